"""Is this PLE right? A candidate's tensors, or a training step, held against test vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from typing import Any, TypeAlias

import numpy as np

from npple.archive import FilePath
from npple.checks import check_choice, check_kind, check_texts, few, named, shown
from npple.core.base import Arrays
from npple.errors import InputError, require
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.judgement import Judge
from npple.oracle.report import Report, suggestion
from npple.oracle.arrays import as_arrays
from npple.oracle.files import read_results
from npple.oracle.rounding import UNITS, tolerances
from npple.oracle.variant import cast
from npple.oracle.vectors import Vectors, bundle

Candidate: TypeAlias = FilePath | Arrays | Callable[..., Any]
GIVEN = ("params/", "inputs/", "noise/", "gradients/", "targets/", "masks/", "weights/")
EXPECT = ("outputs", "forward", "gradients", "everything")
TAKES = ("inputs", "case")


def check(vectors: Vectors, candidate: Candidate, *, expect: str = "outputs",
          takes: str = "inputs", precision: str | Mapping[str, str] | None = None,
          conventions: Sequence[str] = ()) -> Report:
    """Whether a candidate computes what the vectors say.

    Parameters
    ----------
    vectors : Vectors
        From `make_vectors` or `load`.
    candidate : callable, mapping, str or path
        candidate(params, inputs) -> dict of arrays; or such a dict; or a results file (`.npz`) or
        a folder of `.npy` files. Names are those of docs/vectors.md, as many as there are: from
        the outputs alone to everything. Parameters of the candidate's own, such as the bias of a
        gate, may stand beside as `params/NAME`.
    expect : str
        What must be there for a full pass: the "outputs" (or the predictions), all of the
        "forward" pass, outputs and all "gradients" of parameters, or "everything".
    takes : str
        What a callable is given: params and "inputs", or the whole "case", a dict with `params`,
        `inputs`, `noise`, `targets`, `masks`, `weights`, `adam` (its settings) and `gradients`
        (those to step along, `STEP/NAME`; none in most cases).
    precision : str or dict of str, optional
        "float64", "float32", "float16" or "bfloat16": what the candidate computed in, as a whole
        or by tensor. By default each tensor is judged by the coarsest dtype among itself and what
        it is computed from.
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden", "output-probability", "loss-data-mean".

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For a candidate that gives nothing under a known name, or no arrays; an unknown precision,
        convention or expectation.
    FileError
        For a results file that cannot be read.
    """
    check_vectors(vectors)
    check_choice("expect", expect, EXPECT)
    check_choice("takes", takes, TAKES)
    check_kind("precision", precision, (str, Mapping, type(None)), f"one of {', '.join(UNITS)}, or "
               "a dict of them by tensor")
    by_name = {"": precision} if isinstance(precision, str) else dict(precision or {})
    for name, each in by_name.items():
        check_choice(f"precision{f': {shown(name)}' if name else ''}", each, UNITS)
    names = check_texts("conventions", conventions)
    given, precisions = as_arrays(_results(vectors, candidate, takes))
    precisions = ({name: str(precision) for name in given} if isinstance(precision, str) else
                  precisions | {name: str(each) for name, each in by_name.items()})
    return judged(vectors, given, precisions, expect, names)


def judged(vectors: Vectors, given: Arrays, precisions: Mapping[str, str], expect: str,
           conventions: Sequence[str] = (), reasons: Mapping[str, str] | None = None,
           unsteady: Sequence[str] = (), tapped: bool = False) -> Report:
    """The report on a candidate's arrays.

    Parameters
    ----------
    vectors : Vectors
    given : dict of ndarray
        The arrays by npple's names.
    precisions : dict of str
        What each was computed in.
    expect : str
        As for `check`, or "steps": the parameters after Adam's.
    conventions : sequence of str
        As for `check`.
    reasons : dict of str, optional
        What could not be had of the candidate -> why, in words.
    unsteady : sequence of str
        Tensors that came out differently when the candidate ran again.
    tapped : bool, optional
        Whether gradients were taken where a part of a module sees a tensor.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For a candidate that gives nothing under a known name, or an unknown convention.
    """
    for name in conventions:
        vectors = _declare(vectors, name, given, precisions)
    unknown = [name for name in given if name not in vectors.expected
               and not name.startswith(GIVEN) and not _own(name, given)]
    if not any(name in vectors.expected for name in given):
        what = [named(name) + suggestion(name, vectors.expected) for name in unknown[:1]]
        what += [few(unknown[1:])] if unknown[1:] else []
        raise InputError("candidate: gives nothing under a known name: "
                         f"{', '.join(what) or 'no arrays at all'}")
    return Report(vectors, given, precisions, _expected(vectors, expect), tuple(unknown),
                  tuple(conventions), dict(reasons or {}), tuple(unsteady), tapped)


def check_step(vectors: Vectors, step: Callable[..., Any], *, precision: str | None = None
               ) -> Report:
    """Whether a training step of one's own does what the paper's loss and Adam do.

    `step` is called again and again, as a training loop would, each time with the parameters that
    it made before, and always on the same batch.

    Parameters
    ----------
    vectors : Vectors
        Their Adam settings (`vectors.adam`) are those to use.
    step : callable
        step(params, inputs, targets, masks, weights) -> (loss, params): the joint loss before the
        step, and dicts of arrays by npple's names after it. The loss may be a dict of task ->
        loss instead. Whatever an optimizer keeps between steps is the step's own.
    precision : str, optional
        As for `check`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For a step that gives something else.
    """
    check_vectors(vectors)
    require(callable(step), f"step: a function is needed, got {type(step).__name__}")
    case = vectors.case
    results: dict[str, Any]
    params: Mapping[str, Any] = vectors.params
    steps = {int(name.partition("/")[0][4:]) for name in vectors.expected if name[:4] == "adam"}
    for number in range(1, max(steps) + 1):
        made = step({name: np.array(p) for name, p in params.items()}, _copied(case.x),
                    _copied(case.targets), _copied(case.masks), dict(case.weights))
        require(isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping),
                f"step: (loss, params) is needed, got {type(made).__name__}")
        loss, after = made
        if number == 1:
            results = ({f"loss[{task}]": value for task, value in loss.items()}
                       if isinstance(loss, Mapping) else {"loss": loss})
        params = as_arrays(after, "step: params")[0]
        missing = [name for name in vectors.params if name not in params]
        require(not missing, f"step: params: {missing[:3]} are not there after step {number}")
        if number in steps:
            results |= {f"adam{number}/{name}": after[name] for name in vectors.params}
    given, precisions = as_arrays(results)
    if precision is not None:
        check_choice("precision", precision, UNITS)
        precisions = dict.fromkeys(given, precision)
    return judged(vectors, given, precisions, "steps")


def check_vectors(vectors: object) -> None:
    """Raise `InputError` unless these are test vectors."""
    require(isinstance(vectors, Vectors),
            f"vectors: from make_vectors or load, got {type(vectors).__name__}")


def _own(name: str, given: Arrays) -> bool:
    """Whether this is the gradient of a parameter of the candidate's own."""
    kind, _, rest = name.partition("/")
    return kind.startswith("grad") and f"params/{rest}" in given


def _expected(vectors: Vectors, expect: str) -> tuple[str, ...]:
    """The tensors that a full pass needs."""
    outputs = [f"tower/{task}" for task in vectors.model.tasks]
    if expect == "outputs":
        return tuple(outputs)
    if expect == "steps":
        return tuple(name for name in vectors.expected if name.startswith("adam"))
    if expect == "gradients":
        return (*outputs, *(name for name in vectors.expected if name.startswith("grad")
                            and name.partition("/")[2] in vectors.params))
    return tuple(name for name in vectors.expected if expect == "everything"
                 or not name.startswith(("grad", "adam", "handed", "loss")))


def _results(vectors: Vectors, candidate: Candidate, takes: str) -> Mapping[str, Any]:
    """What the candidate gives; a callable gets copies, which it may spoil."""
    if isinstance(candidate, (str, PathLike)):
        return read_results(candidate)
    if not callable(candidate):
        return candidate
    case, params, inputs = vectors.case, _copied(vectors.params), _copied(vectors.inputs)
    if takes == "inputs":
        made: Mapping[str, Any] = candidate(params, inputs)
        return made
    made = candidate({"params": params, "inputs": inputs, "noise": _copied(case.noise),
                      "targets": _copied(case.targets), "masks": _copied(case.masks),
                      "weights": dict(case.weights), "adam": asdict(vectors.adam),
                      "gradients": _copied(case.gradients)})
    return made


def _copied(arrays: Any) -> Any:
    """An array, or a dict of them, anew."""
    if isinstance(arrays, Mapping):
        return {name: _copied(array) for name, array in arrays.items()}
    return np.array(arrays)


def _declare(vectors: Vectors, name: str, given: Arrays, precisions: Mapping[str, str]) -> Vectors:
    """The vectors under a convention, in the form that leaves the least wrong.

    What a convention needs of the candidate it must have given: nothing is fitted here, or the
    check would pass what it was made from.
    """
    choices = [deviation.name for deviation in BY_NAME.values() if deviation.convention]
    require(name in choices, f"conventions: {name!r}, expected some of {', '.join(choices)}")
    case = cast(vectors.case, np.float64)
    own = {key: array for key, array in given.items() if key.startswith("params/")}
    completed = [complete(variant, case, own)
                 for variant, _ in deviate(BY_NAME[name], vectors.variant, own)]
    forms = [form for form in completed if form is not None]
    require(forms, f"conventions: {name!r} changes nothing in this model, or the candidate does "
                   "not give the parameters of its own that it takes (params/NAME)")
    made = [replace(bundle(*form, tolerances(*form), vectors.notes), declared=form[0])
            for form in forms]
    return min(made, key=lambda each: _wrong(each, given, precisions))


def _wrong(vectors: Vectors, given: Arrays, precisions: Mapping[str, str]) -> int:
    """How many tensors of a candidate are wrong."""
    judge = Judge(vectors, given, precisions)
    return len(judge.wrong(judge.flow(vectors.variant, judge.case)))
