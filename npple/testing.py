"""For the test suites of others: does my module, or my function, compute what npple computes?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npple.checks import shown
from npple.core.base import Arrays
from npple.errors import CheckFailed, require
from npple.network import Network
from npple.oracle.adapters import check_module
from npple.oracle.comparison import check
from npple.oracle.frameworks import Gradients, Run, check_arrays
from npple.oracle.mappings import ModuleMapping
from npple.oracle.onnx_files import check_onnx
from npple.oracle.report import Report
from npple.oracle.vectors import Vectors, make_vectors
from npple.verify.gradcheck import GradcheckReport, gradcheck_function
from npple.verify.premises import Function, NoComplexStep


def assert_matches(candidate: Any, model: Network | Vectors, mapping: ModuleMapping | None = None,
                   *, run: Run | None = None, gradients: Gradients | None = None, seed: int = 0,
                   batch: int = 8, conventions: Sequence[str] = ()) -> Report:
    """Passes if a candidate computes what a model of npple computes, to rounding.

    Parameters
    ----------
    candidate : torch.nn.Module, dict of array, path or callable
        A module, the weights of a program of any framework, or an ONNX file, for which `mapping`
        says where it has what; or candidate(params, inputs) -> dict of arrays by the names of
        docs/vectors.md. A module is copied and runs in the mode it is in.
    model : npple.network.Network or npple.oracle.Vectors
        What it should be, or test vectors of that model.
    mapping : npple.oracle.ModuleMapping, optional
        Needed for all but a callable.
    run, gradients : callable, optional
        Of a program with these weights, as for `npple.oracle.check_arrays`. Without `gradients`
        the outputs are enough.
    seed, batch : int
        Of the test vectors made of a model: at least 0; how many rows.
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden", "output-probability", "loss-data-mean".

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
    if run is not None and mapping is not None:
        return check_arrays(vectors, candidate, mapping, run, gradients,
                            expect="gradients" if gradients else "outputs",
                            conventions=conventions).check()
    if isinstance(candidate, (str, Path)) and mapping is not None:
        return check_onnx(vectors, candidate, mapping, conventions=conventions).check()
    require(mapping is None or not isinstance(candidate, Mapping),
            "run: needed for a dict of weights: run(weights, inputs) -> a dict of arrays")
    if mapping is not None:
        return check_module(vectors, candidate, mapping, conventions=conventions).check()
    require(run is None, "mapping: needed where there is a run")
    require(callable(candidate) and not hasattr(candidate, "named_parameters"),
            f"mapping: needed for anything but a function, got {shown(candidate)}")
    return check(vectors, candidate, conventions=conventions).check()


def assert_gradients(f: Function, grad: Function, x: Arrays, *, seed: int = 0) -> GradcheckReport:
    """Passes if `grad` is the gradient of `f` at `x`, to rounding.

    By complex steps where `f` takes complex arrays and is analytic, otherwise by differences.
    NumPy, PyTorch, JAX or TensorFlow may stand behind `f` and `grad`.

    Parameters
    ----------
    f : callable
        dict of ndarray -> a number: a float, an array or a tensor of one element without axes. Its
        dtype says what `f` computes in, and the tolerance follows.
    grad : callable
        dict of ndarray -> dict of arrays or tensors, df/dx by name.
    x : dict of ndarray
        Where: arrays of real floats. `f` gets them in float64 at least, or as complex numbers,
        and `grad` as they are.
    seed : int
        Of the random directions along which the premises are checked.

    Returns
    -------
    npple.verify.gradcheck.GradcheckReport

    Raises
    ------
    CheckFailed
        An AssertionError, with the report as message.
    InputError
        For arguments that cannot be used, and functions that are not deterministic or change
        their arguments.
    """
    __tracebackhide__ = True
    try:
        report = gradcheck_function(f, grad, x, seed=seed)
    except NoComplexStep:
        report = gradcheck_function(f, grad, x, method="central-differences", seed=seed)
    if not report.passed:
        raise CheckFailed(f"\n{report}")
    return report
