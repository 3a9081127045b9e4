"""The experiments on claims of the papers, by name; `npple claims` runs them."""

from collections.abc import Callable
from concurrent.futures import Executor

from npple.archive import FilePath
from npple.checks import check_choice
from npple.lab import becoming, seesaw, selector, sparse, weighting
from npple.lab.finding import Finding
from npple.lab.trials import Share, Watch

EXPERIMENTS: dict[str, Callable[..., Finding]] = {
    becoming.NAME: becoming.run, sparse.NAME: sparse.run, seesaw.NAME: seesaw.run,
    selector.NAME: selector.run, weighting.NAME: weighting.run}


def claims(name: str, quick: bool = False, *, executor: Executor | None = None,
           share: Share | None = None, out: FilePath | None = None, watch: Watch | None = None,
           stop: Callable[[], object] | None = None) -> Finding:
    """Run an experiment on a claim of the papers.

    Parameters
    ----------
    name : str
        Of `EXPERIMENTS`.
    quick : bool
        Fewer rows, epochs and seeds: two minutes at most.
    executor, share, out, watch, stop
        As for `npple.lab.compare.compare`.

    Returns
    -------
    npple.lab.finding.Finding

    Raises
    ------
    InputError
        For an unknown name.
    FileError
        If a result cannot be written.
    Stopped
        When `stop` said so; `out` holds what was finished.
    """
    check_choice("name", name, EXPERIMENTS)
    return EXPERIMENTS[name](quick, executor=executor, share=share, out=out, watch=watch, stop=stop)
