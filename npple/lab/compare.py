"""Comparing architectures: equal parameters, equal training, several seeds, paired gains.

A trial is one architecture, data set and seed, trained once. Trials know nothing of each other, so
they run wherever an executor puts them, in any order, with the same results; each result is a
small JSON file as soon as it is there, and a comparison that was interrupted goes on from these.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

import npple
from npple.architectures import ARCHITECTURES, Inputs
from npple.archive import FilePath, replacing
from npple.checks import check_choice, check_count, check_kind, check_number, check_path
from npple.data import Dataset, label_correlations, synthetic, vtr_vcr
from npple.errors import Diverged, FileError, Stopped, require
from npple.lab.budget import known_options, networks, parameters, sized
from npple.lab.gains import Comparison
from npple.lab.inspection import connections, utilization
from npple.learn.scenes import TASKS, scene_correlations
from npple.learn.training import Run, evaluate_model, fingerprint
from npple.network import Network
from npple.optimizers import Adam
from npple.printing import visible

Share: TypeAlias = Callable[[Any], Any]  # brings what many calls need to where they run
Watch: TypeAlias = Callable[[int, int], Callable[[Mapping[str, Any]], object]]
L0 = 1e-3  # of SNR's penalty: the largest weight that its authors try, from 1e-5
REFERENCE_WIDTH = 32  # the default budget is that of PLE with experts of this width


@dataclass(frozen=True)
class Problem:
    """A data set to compare on.

    Attributes
    ----------
    name : str
    train, test : npple.data.Dataset
        A tenth of `train` is set aside to choose the best epoch; `test` is only reported.
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    correlation : float or None
        The task correlation p of synthetic data: the cosine of the tasks' weight vectors.
    scenes : dict of dict of float or None
        The labels' correlations in each scene of `npple.data.vtr_vcr`.
    draw : callable or None
        Seed -> the problem with new rows, of new functions; something that can be pickled.
    """

    name: str
    train: Dataset = field(repr=False)
    test: Dataset = field(repr=False)
    inputs: Inputs
    tasks: dict[str, str]
    correlation: float | None = None
    scenes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    draw: Callable[[int], "Problem"] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Training:
    """How every network of a comparison is trained, by Adam: the same for all.

    Parameters
    ----------
    epochs : int
        The one with the best validation counts.
    batch_size : int
    rate : float
        Adam's step size.

    Raises
    ------
    InputError
        For a number out of its range.
    """

    epochs: int = 5
    batch_size: int = 512
    rate: float = 3e-3

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs, most=10 ** 9)
        check_count("batch_size", self.batch_size)
        check_number("rate", self.rate)


def synthetic_cases(correlations: Sequence[float] = (-0.5, 0.0, 0.5, 0.9), rows: int = 100_000,
                    inputs: int = 128, tasks: int = 2, seed: int = 0) -> list[Problem]:
    """One case for each task correlation; a fifth of the rows is the test.

    Parameters
    ----------
    correlations : sequence of float
        The cosines p between the weight vectors of any two tasks.
    rows, inputs, tasks : int
        How many rows, features and tasks each case has.
    seed : int
        Of the data and of what becomes the test.

    Returns
    -------
    list of Problem

    Raises
    ------
    InputError
        For an argument that `npple.learn.synthetic` refuses.
    """
    return [_synthetic_case(rows, inputs, float(p), tasks, seed) for p in correlations]


def _synthetic_case(rows: int, inputs: int, p: float, tasks: int, seed: int) -> Problem:
    data = synthetic(rows, inputs, p, tasks=tasks, seed=seed)
    kinds = dict.fromkeys(data.targets, "regression")
    return Problem(f"synthetic p={p:g}", *data.split(0.8, seed), inputs, kinds, p,
                   draw=partial(_synthetic_case, rows, inputs, p, tasks))


def vtr_vcr_cases(dependences: Sequence[float] = (0.8,), rows: int = 100_000, inputs: int = 32,
                  noise: float = 0.5, sharing: float = 0.03, seed: int = 0) -> list[Problem]:
    """One case of `npple.data.vtr_vcr` for each dependence; a fifth of the rows is the test.

    Parameters
    ----------
    dependences : sequence of float
        How much playing and completing depend on the scene.
    rows, inputs : int
    noise, sharing : float
        As for `npple.data.vtr_vcr`.
    seed : int
        Of the data and of what becomes the test.

    Returns
    -------
    list of Problem

    Raises
    ------
    InputError
        For an argument that `npple.data.vtr_vcr` refuses.
    """
    return [_vtr_vcr_case(rows, inputs, float(dependence), noise, sharing, seed)
            for dependence in dependences]


def _vtr_vcr_case(rows: int, inputs: int, dependence: float, noise: float, sharing: float,
                  seed: int) -> Problem:
    train, test = vtr_vcr(rows, inputs, dependence, noise, sharing, seed).split(0.8, seed)
    return Problem(f"vtr_vcr dependence={dependence:g}", train, test, inputs, dict(TASKS),
                   scenes=scene_correlations(train),
                   draw=partial(_vtr_vcr_case, rows, inputs, dependence, noise, sharing))


def compare(cases: Sequence[Problem], architectures: Sequence[str] = tuple(ARCHITECTURES), *,
            seeds: Sequence[int] = (0, 1, 2), budget: int | None = None, levels: int = 2,
            options: Mapping[str, Any] | None = None, training: Training = Training(),
            executor: Executor | None = None, share: Share | None = None,
            out: FilePath | None = None, watch: Watch | None = None,
            stop: Callable[[], object] | None = None) -> Comparison:
    """Train the architectures on the cases with equal budgets, once for each seed.

    Parameters
    ----------
    cases : sequence of Problem
        With different names.
    architectures : sequence of str
        Of `npple.ARCHITECTURES`. Gains need `single_task` among them.
    seeds : sequence of int
        A seed decides initial values, the order of the rows and routing noise. The data and what
        is set aside of them are the same for all seeds, so gains are paired over seeds.
    budget : int, optional
        Parameters of each architecture, embeddings not counted; by default those of PLE with
        experts of width 32. The widths of the experts are adjusted to it.
    levels : int
        Extraction levels; layers of an expert where an architecture has no levels.
    options : dict, optional
        Further arguments of builders; each builder is given those it has. SNR's `l0` is 1e-3
        unless given: without a penalty nothing would close its connections.
    training : Training
    executor : concurrent.futures.Executor, optional
        Where trials run, for example from `npple.lab.workers.open_workers`; by default
        here, one by one.
    share : callable, optional
        From `open_workers`, with its executor.
    out : path, optional
        A folder for the results of trials; those that it holds already are not run again.
    watch : callable, optional
        Called with the number of all trials and of those found in `out`; returns what is to be
        called with each result. `progress` is one.
    stop : callable, optional
        Asked after each result whether to end here; then the trials that run are still finished.

    Returns
    -------
    npple.lab.gains.Comparison

    Raises
    ------
    InputError
        For arguments that make no comparison.
    FileError
        If a result cannot be written.
    Stopped
        When `stop` said so; `out` holds what was finished.
    """
    _check(cases, architectures, seeds, options, training, out)
    options = {"l0": L0, **(options or {})}
    trials = {}
    for case in cases:
        data = [fingerprint(case.train), fingerprint(case.test)]
        size = _reference_size(case, levels, options) if budget is None else budget
        for name in architectures:
            models = sized(name, case.inputs, case.tasks, size, levels, options)
            for seed in seeds:
                trial = _Trial(case.name, name, models, training, int(seed))
                trials[trial.key(data)] = trial
    done = _run(trials, {case.name: case for case in cases}, executor, share, out, watch,
                stop)
    kinds = {case.name: case.tasks for case in cases}
    correlations = {case.name: case.correlation for case in cases}
    labels = {case.name: label_correlations(case.train) for case in cases}
    scenes = {case.name: case.scenes for case in cases if case.scenes}
    return Comparison(kinds, correlations, labels, [done[key] for key in trials], scenes)


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
              f"seed {result['seed']}  {result['seconds']:.1f} s  ({_duration(left)} left)",
              file=stream or sys.stderr, flush=True)
    return show


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


# One trial --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Trial:
    """One training: all that decides its result, beside the data."""

    case: str
    architecture: str
    models: list[Network]
    training: Training
    seed: int

    def key(self, data: Sequence[int]) -> str:
        """A name for the result, from everything that decides it; `data` identifies the data."""
        facts = {"versions": [npple.__version__, np.__version__], "case": self.case,
                 "architecture": self.architecture, "seed": self.seed, "data": data,
                 "tables": [model.to_dict() for model in self.models],
                 "training": asdict(self.training)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def run(self, case: Problem) -> dict[str, Any]:
        """The result, as JSON can hold it; a network for each task where there are several."""
        started = time.perf_counter()
        sizes = parameters(self.models)
        result: dict[str, Any] = {
            "data": self.case, "architecture": self.architecture, "seed": self.seed,
            "parameters": sizes[0], "embeddings": sizes[1],
            "tasks": {}, "utilization": [], "connections": [], "diverged": None}
        train, validation = case.train.split(0.9, 0)
        for model in self.models:
            run = Run(model, Adam(self.training.rate), self.training.batch_size, self.seed,
                      best_by="sum")
            try:
                run.train(_only(train, model), _only(validation, model), self.training.epochs)
            except Diverged as error:
                result["diverged"] = str(error)
                break
            test = _only(case.test, model)
            for task, metrics in evaluate_model(model, run.best, test).items():
                result["tasks"][task] = {
                    "test": metrics, "best_epoch": run.best_epoch["epoch"],
                    "validation": [entry["validation"][task] for entry in run.history]}
            result["utilization"] += utilization(model, run.best, test)
            result["connections"] += connections(model, run.best)
        return result | {"seconds": round(time.perf_counter() - started, 3)}


def _only(data: Dataset, model: Network) -> Dataset:
    """The rows with the targets of the model's tasks alone."""
    return Dataset(data.x, {task: y for task, y in data.targets.items() if task in model.tasks},
                   {task: mask for task, mask in data.masks.items() if task in model.tasks})


# All of them ------------------------------------------------------------------------------------

def _run(trials: Mapping[str, _Trial], cases: Mapping[str, Problem], executor: Executor | None,
         share: Share | None, out: FilePath | None, watch: Watch | None,
         stop: Callable[[], object] | None) -> dict[str, dict[str, Any]]:
    """Key -> result of every trial, from the folder `out` or from the executor."""
    if executor is None:
        with ThreadPoolExecutor(1) as executor:
            return _run(trials, cases, executor, share, out, watch, stop)
    done = {}
    if out is not None:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{out}: {error.strerror}, expected a folder to write to") from None
        done = {key: result for key in trials if (result := _read(_file(out, key)))}
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


def _reference_size(case: Problem, levels: int, options: Mapping[str, Any] | None) -> int:
    return parameters(networks("ple", case.inputs, case.tasks, REFERENCE_WIDTH, levels, options))[0]


def _check(cases: Any, architectures: Any, seeds: Any, options: Mapping[str, Any] | None,
           training: Any, out: Any) -> None:
    """Refuse names and seeds that come twice, are none, or options that nobody has."""
    for what, values in (("cases", cases), ("architectures", architectures), ("seeds", seeds)):
        check_kind(what, values, Sequence, "a sequence")
    for case in cases:
        check_kind("cases", case, Problem, "a Problem")
    for name in architectures:
        check_choice("architectures", name, ARCHITECTURES)
    for seed in seeds:
        require(isinstance(seed, (int, np.integer)) and seed >= 0,
                f"seeds: integers of at least 0 are needed, got {seed!r}")
    for what, values in (("cases", [case.name for case in cases]),
                         ("architectures", architectures), ("seeds", seeds)):
        require(values and len(set(values)) == len(values),
                f"{what}: different ones are needed, got {list(values)}")
    check_kind("training", training, Training, "a Training")
    check_kind("options", options, (dict, type(None)), "a dict")
    if out is not None:
        check_path("out", out)
    unknown = set(options or ()) - known_options(architectures)
    require(not unknown, f"options: {sorted(unknown)}, expected some of "
                         f"{sorted(known_options(architectures))}")
