"""For the test suites of others: does my module, or my function, compute what npple computes?"""

from collections.abc import Sequence
from typing import Any

from npple.errors import require
from npple.network import Network
from npple.oracle.adapters import ModuleMapping, check_module
from npple.oracle.comparison import Report, check
from npple.oracle.vectors import Vectors, make_vectors


def assert_matches(candidate: Any, model: Network | Vectors, mapping: ModuleMapping | None = None,
                   *, seed: int = 0, batch: int = 8, conventions: Sequence[str] = ()) -> Report:
    """Passes if a candidate computes what a model of npple computes, to rounding.

    Parameters
    ----------
    candidate : torch.nn.Module or callable
        A module, for which `mapping` says where it has what; or candidate(params, inputs) -> dict
        of arrays by the names of docs/vectors.md. A module is copied and runs in the mode it is in.
    model : npple.network.Network or npple.oracle.Vectors
        What it should be, or test vectors of that model.
    mapping : npple.oracle.ModuleMapping, optional
        Needed for a module.
    seed, batch : int
        Of the test vectors made of a model: at least 0; how many rows.
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden".

    Returns
    -------
    npple.oracle.Report

    Raises
    ------
    CheckFailed
        An AssertionError, with the report as message.
    InputError
        For a mapping that does not fit the module, a candidate that gives nothing under a known
        name, or an unknown convention.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the report
    vectors = model if isinstance(model, Vectors) else make_vectors(model, seed, batch)
    if mapping is not None:
        return check_module(vectors, candidate, mapping, conventions=conventions).check()
    require(not hasattr(candidate, "named_parameters"),
            f"mapping: needed for a module ({type(candidate).__name__})")
    return check(vectors, candidate, conventions=conventions).check()
