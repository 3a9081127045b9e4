"""Trials: trainings that know nothing of each other, run in any order, found again later."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from npple.archive import FilePath, make_folder, replacing
from npple.errors import Stopped, require
from npple.printing import visible

Share: TypeAlias = Callable[[Any], Any]  # brings what many calls need to where they run
Watch: TypeAlias = Callable[[int, int], Callable[[Mapping[str, Any]], object]]


class Trial(Protocol):
    """A training that can be pickled: all that decides its result, beside the data."""

    @property
    def case(self) -> str:
        """The name of its data."""

    def run(self, case: Any) -> dict[str, Any]:
        """The result on that data, as JSON can hold it."""


def run_trials(trials: Mapping[str, Trial], cases: Mapping[str, Any], executor: Executor | None,
               share: Share | None, out: FilePath | None, watch: Watch | None,
               stop: Callable[[], object] | None, known: Mapping[str, dict[str, Any]]
               ) -> dict[str, dict[str, Any]]:
    """Key -> result of every trial: known, from the folder `out`, or from the executor.

    Parameters
    ----------
    trials : dict of Trial
        By a name for the result, from everything that decides it.
    cases : dict
        Name -> data.
    executor, share, out, watch, stop
        As for `npple.lab.compare.compare`.
    known : dict of dict
        Results that are there already, by the same names.

    Returns
    -------
    dict of dict

    Raises
    ------
    FileError
        If a result cannot be written.
    Stopped
        When `stop` said so; `out` holds what was finished.
    """
    if executor is None:
        with ThreadPoolExecutor(1) as executor:
            return run_trials(trials, cases, executor, share, out, watch, stop, known)
    done = {key: known[key] for key in trials if key in known}
    if out is not None:
        make_folder("out", out)
        done |= {key: result for key in trials if (result := _read(_file(out, key)))}
    show = watch(len(trials), len(done)) if watch else lambda result: None
    needed = {trial.case for key, trial in trials.items() if key not in done}
    shared = {name: share(cases[name]) if share else cases[name] for name in needed}
    futures = {executor.submit(trial.run, shared[trial.case]): key
               for key, trial in trials.items() if key not in done}
    try:
        for future in as_completed(futures):
            if future.cancelled():
                continue
            key = futures[future]
            done[key] = future.result()
            if out is not None:
                with replacing(_file(out, key)) as file:
                    file.write(_record(key, done[key]))
            show(done[key])
            if stop and stop():
                _cancel(futures)
    finally:
        _cancel(futures)
    if len(done) < len(trials):
        raise Stopped(f"stopped with {len(done)} of {len(trials)} results")
    return done


def _cancel(futures: Iterable[Any]) -> None:
    for future in futures:
        future.cancel()


def _file(out: FilePath, key: str) -> Path:
    return Path(out) / f"trial-{key}.json"


def _record(key: str, result: Mapping[str, Any]) -> bytes:
    """A result as its file holds it, with a SHA-256 over the name of its trial and all of it."""
    digest = hashlib.sha256((key + json.dumps(result)).encode()).hexdigest()
    return json.dumps({"sha256": digest, "result": result}).encode()


def _read(path: Path) -> dict[str, Any] | None:
    """A result, or None where there is none that can be trusted: its trial is run again."""
    try:
        require(path.is_file(), "a pipe would be waited for")
        content = path.read_bytes()
        result = json.loads(content)["result"]
        key = path.stem.removeprefix("trial-")
        return result if content == _record(key, result) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def progress(total: int, found: int, stream: IO[str] | None = None
             ) -> Callable[[Mapping[str, Any]], None]:
    """For `watch`: a line for each result, with the time that is left.

    Parameters
    ----------
    total, found : int
        All trials, and how many of them are there already.
    stream : file, optional
        Standard error by default.

    Returns
    -------
    callable
        To be called with each result.
    """
    started, count = time.monotonic(), found

    def show(result: Mapping[str, Any]) -> None:
        nonlocal count
        count += 1
        left = (time.monotonic() - started) / (count - found) * (total - count)
        print(f"{count}/{total}  {visible(result['data'])}  {result['architecture']}  "
              f"seed {result['seed']}  rate {result['rate']:g}  {result['seconds']:.1f} s  "
              f"({_duration(left)} left)",
              file=stream or sys.stderr, flush=True)
    return show


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
