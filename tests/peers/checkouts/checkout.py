"""A checkout of somebody's repository at a commit, and what the runners beside this file share.

A runner is called with the path of a checkout and a commit, `python easezyc.py PATH COMMIT`. What
it needs of the repository must be as it is in that commit. For each of its cases it prints the
verdict and what was expected. Status: 0 as expected, 1 not, 2 not run.
"""

import argparse
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from npple.errors import InputError  # noqa: E402
from npple.oracle import Report  # noqa: E402
from peers.shown import shown  # noqa: E402

Cases = Iterator[tuple[str, Callable[[], Report]]]
NOTHING = ("passed", ())


class NotRun(Exception):
    """Why a repository could not be run."""


def git(path: Path, *words: str) -> str:
    """What a command of git prints, in a checkout."""
    done = subprocess.run(["git", "-C", path, *words], capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def verify(path: Path, commit: str, files: list[str]) -> str:
    """The full name of the commit, if these files are in the checkout as they are in it."""
    full = git(path, "rev-parse", "--verify", f"{commit}^{{commit}}")
    for file in files:
        try:
            there = git(path, "hash-object", file)
        except NotRun as error:
            raise NotRun(f"{path / file}: not there; check out {full}") from error
        if there != git(path, "rev-parse", f"{full}:{file}"):
            raise NotRun(f"{path / file}: not as in {full}; check it out")
    return full


def package(name: str, path: Path) -> None:
    """Lets the modules of a folder be imported without what its `__init__.py` imports."""
    made = types.ModuleType(name)
    made.__path__ = [str(path)]
    sys.modules[name] = made


def load(name: str, file: Path) -> Any:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(repository: str, files: list[str], cases: Callable[[Path], Cases],
         expected: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]) -> int:
    """Runs the cases of a repository; `expected`: commit -> case -> verdict and names."""
    parser = argparse.ArgumentParser(description=f"What {repository} computes.")
    parser.add_argument("path", type=Path, help="a checkout")
    parser.add_argument("commit", nargs="?", default=next(iter(expected)),
                        help="by default %(default)s")
    options = parser.parse_args()
    try:
        full = verify(options.path, options.commit, files)
        print(f"{repository} at {full}")
        known = next((each for commit, each in expected.items() if full.startswith(commit)), None)
        right = [judged(name, ask, known) for name, ask in cases(options.path.resolve())]
    except (NotRun, ImportError) as error:
        print(f"not run: {type(error).__name__}: {error}")
        return 2
    return 0 if all(right) else 1


def judged(name: str, ask: Callable[[], Report],
           known: Mapping[str, tuple[str, tuple[str, ...]]] | None) -> bool:
    """Whether a case's verdict and names are the expected ones, after printing them."""
    print(f"{name}: ", end="", flush=True)
    try:
        report = shown(ask())
        found = (report.verdict, names(report))
    except InputError as error:
        if error.__cause__ is None:  # ours, and not what their code raised
            raise
        print(f"fails: {type(error.__cause__).__name__}: {error.__cause__}")
        found = ("does not run", ())
    if found[1]:
        print(f"  in the forward pass: {', '.join(found[1])}")
    if known is None:
        print("  nothing is expected of this commit")
    elif found != known[name]:
        print(f"  NOT AS EXPECTED: {known[name]}, but {found}")
    return known is None or found == known[name]


def names(report: Report) -> tuple[str, ...]:
    """The deviations of the faults in the forward pass, in their order, each once."""
    return tuple(dict.fromkeys(name for fault in report.faults for name in fault.names
                               if not fault.tensor.startswith("grad")))
