"""The experiments on claims of the papers, by name; `npple claims` runs them."""

from collections.abc import Callable
from concurrent.futures import Executor

from npple.archive import FilePath
from npple.checks import check_choice, check_count, check_path
from npple.lab import (
    becoming, gates, seesaw, selector, sparse, stitches, trainability, weighting)
from npple.lab.finding import Experiment, Finding
from npple.lab.trials import Share, Watch

EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in (
    becoming, gates, sparse, seesaw, selector, weighting, stitches, trainability)}


def claims(name: str, quick: bool = False, *, seeds: int | None = None,
           executor: Executor | None = None, share: Share | None = None,
           out: FilePath | None = None, watch: Watch | None = None,
           stop: Callable[[], object] | None = None) -> Finding:
    """Run an experiment on a claim of the papers.

    Parameters
    ----------
    name : str
        Of `EXPERIMENTS`.
    quick : bool
        Fewer rows, epochs and seeds: two minutes at most.
    seeds : int, optional
        As many trainings of each, instead; each on new data.
    executor, share, out, watch, stop
        As for `npple.lab.compare.compare`.

    Returns
    -------
    npple.lab.finding.Finding

    Raises
    ------
    InputError
        For an unknown name, less than two seeds, or what can name no folder.
    FileError
        If a result cannot be written.
    Stopped
        When `stop` said so; `out` holds what was finished.
    """
    check_choice("name", name, EXPERIMENTS)
    if seeds is not None:
        check_count("seeds", seeds, 2)
    if out is not None:
        check_path("out", out)
    return EXPERIMENTS[name].run(quick, seeds, executor=executor, share=share, out=out,
                                 watch=watch, stop=stop)
