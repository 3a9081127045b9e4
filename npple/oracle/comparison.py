"""Is this PLE right? A candidate's tensors against test vectors, in the order of computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

import numpy as np

from npple.archive import FilePath
from npple.checks import check_choice, check_texts
from npple.core.base import Arrays
from npple.errors import CheckFailed, require
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.diagnosis import Diagnosis, diagnose
from npple.oracle.results import TensorRow, as_arrays, compare, read_results
from npple.oracle.rounding import UNITS, tolerances
from npple.oracle.variant import Variant, cast, compute
from npple.oracle.vectors import Vectors, bundle
from npple.verify.cases import Case


Candidate: TypeAlias = FilePath | Arrays | Callable[..., Arrays]
GIVEN = ("params/", "inputs/", "noise/", "targets/", "masks/", "weights/")  # not results
SHOWN = 6  # names on a line of a report
LINES = 20  # tensors in its table


@dataclass(frozen=True)
class Report:
    """What a check found. Prints as text; `to_dict` is for JSON.

    Attributes
    ----------
    vectors : Vectors
        What the candidate was held against, its conventions applied.
    given : dict of ndarray
        The candidate's arrays.
    precision : str
        The unit roundoff by which it was judged.
    rows : tuple of npple.oracle.TensorRow
        One for each tensor compared, in the order of computation.
    missing, unknown : tuple of str
        Tensors that were not given; names given that the vectors do not have.
    conventions : tuple of str
        Those declared.
    """

    vectors: Vectors = field(repr=False)
    given: Arrays = field(repr=False)
    precision: str
    rows: tuple[TensorRow, ...] = field(repr=False)
    missing: tuple[str, ...] = field(repr=False)
    unknown: tuple[str, ...] = field(repr=False)
    conventions: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every tensor compared is within its tolerance."""
        return all(row.passed for row in self.rows)

    @property
    def first_divergence(self) -> str | None:
        """The first tensor, in the order of computation, that is wrong; None where all is right."""
        return next((row.name for row in self.rows if not row.passed), None)

    @property
    def worst(self) -> TensorRow:
        """The row with the largest error in units of its tolerance."""
        return max(self.rows, key=lambda row: row.excess)

    @cached_property
    def diagnosis(self) -> list[Diagnosis]:
        """The known deviations that reproduce the candidate, best first; found when first asked."""
        if self.passed:
            return []
        return diagnose(self.vectors, self.given, self.precision, self.rows)

    def check(self) -> Report:
        """Asserts that all passed.

        Returns
        -------
        Report
            Itself.

        Raises
        ------
        CheckFailed
            An AssertionError, with the report as message.
        """
        if not self.passed:
            raise CheckFailed(str(self))
        return self

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON.

        Returns
        -------
        dict
            `passed`, `precision`, `compared` (how many tensors), `first_divergence`, `diagnosis`
            (a list), `worst` and `tensors` (rows as dicts), `missing`, `unknown`, `conventions`.
        """
        rows = [{"tensor": row.name, "passed": row.passed, "error": _number(row.error),
                 "tolerance": row.tolerance, "index": list(row.index), "got": row.got,
                 "expected": row.expected, "fault": row.fault} for row in self.rows]
        return {"passed": self.passed, "precision": self.precision, "compared": len(rows),
                "first_divergence": self.first_divergence,
                "diagnosis": [diagnosis.to_dict() for diagnosis in self.diagnosis],
                "worst": rows[self.rows.index(self.worst)], "tensors": rows,
                "missing": list(self.missing), "unknown": list(self.unknown),
                "conventions": list(self.conventions)}

    def __str__(self) -> str:
        shown = [row for row in self.rows if not row.passed] or [self.worst]
        lines = [("tensor", "error", "tolerance", "at", "got", "expected"),
                 *(_cells(row) for row in shown[:LINES])]
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                 for line in lines]
        if len(shown) > LINES:
            table.append(f"... and {len(shown) - LINES} more that are wrong")
        return "\n".join([*table, *self._notes(), *self._verdict()])

    def _notes(self) -> Iterator[str]:
        if self.conventions:
            yield f"conventions declared: {', '.join(self.conventions)}"
        if self.unknown:
            yield "unknown names: " + _few(
                [name + _suggestion(name, self.vectors.expected) for name in self.unknown[:SHOWN]],
                len(self.unknown))
        if self.missing:
            yield "not given: " + _few(self.missing, len(self.missing))

    def _verdict(self) -> Iterator[str]:
        compared = f"{len(self.rows)} of {len(self.vectors.expected)} tensors compared, "
        if self.passed:
            yield f"{compared}judged as {self.precision}: passed"
            return
        wrong = sum(not row.passed for row in self.rows)
        yield (f"{compared}judged as {self.precision}: FAILED, {wrong} wrong, the first is "
               f"{self.first_divergence}{self._origin()}")
        if not self.diagnosis:
            yield "no known deviation, and no two together, reproduce all that was given"
        for i, diagnosis in enumerate(self.diagnosis):
            yield f"{'or it is' if i else 'it is'} the model in which {diagnosis}"
            if diagnosis.convention:
                yield (f"  a convention, not a mistake: declare it with conventions="
                       f"{list(diagnosis.names)}")
            if diagnosis.decides:
                yield f"  {diagnosis.decides} would tell"

    def _origin(self) -> str:
        """What of the inputs of the first wrong tensor was not given, so may be wrong already."""
        rows = self.vectors.model.table.rows
        name = str(self.first_divergence)
        row = next((row for row in rows if row.name == name), None)
        unseen = [read for read in row.inputs() if read not in self.given] if row else []
        return f" (computed from {', '.join(unseen)}, which was not given)" if unseen else ""


def check(vectors: Vectors, candidate: Candidate, *, precision: str | None = None,
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
    precision : str, optional
        "float64", "float32", "float16" or "bfloat16": what the candidate computed in. By default
        the coarsest dtype of its arrays.
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden".

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For a candidate that gives nothing under a known name, or no arrays; an unknown precision
        or convention.
    FileError
        For a results file that cannot be read.
    """
    require(isinstance(vectors, Vectors),
            f"vectors: from make_vectors or load, got {type(vectors).__name__}")
    if precision is not None:
        check_choice("precision", precision, UNITS)
    given, coarsest = as_arrays(_results(vectors, candidate))
    stored = vectors.notes["dtype"]  # no candidate is judged finer than the vectors are stored
    precision = max(precision or coarsest, stored, key=UNITS.__getitem__)
    for name in check_texts("conventions", conventions):
        vectors = _declare(vectors, name, given)
    known = [name for name in vectors.expected if name in given]
    unknown = [name for name in given if name not in vectors.expected
               and not name.startswith(GIVEN)]
    require(known, "candidate: gives nothing under a known name: " + (", ".join(
        name + _suggestion(name, vectors.expected) for name in unknown[:5]) or "no arrays at all"))
    at = list(UNITS).index(precision)
    rows = tuple(compare(name, given[name], vectors.expected[name], vectors.tolerance[name][at],
                         precision) for name in known)
    missing = tuple(name for name in vectors.expected if name not in given)
    return Report(vectors, given, precision, rows, missing, tuple(unknown), tuple(conventions))


def _results(vectors: Vectors, candidate: Candidate) -> Mapping[str, Any]:
    """What the candidate gives; a callable gets copies, which it may spoil."""
    if isinstance(candidate, (str, PathLike)):
        return read_results(candidate)
    if not callable(candidate):
        return candidate
    inputs = vectors.inputs
    copied = (inputs.copy() if isinstance(inputs, np.ndarray) else
              {name: column.copy() for name, column in inputs.items()})
    return candidate({name: p.copy() for name, p in vectors.params.items()}, copied)


def _declare(vectors: Vectors, name: str, given: Arrays) -> Vectors:
    """The vectors under a convention."""
    choices = [deviation.name for deviation in BY_NAME.values() if deviation.convention]
    require(name in choices, f"conventions: {name!r}, expected some of {', '.join(choices)}")
    case = cast(vectors.case, np.float64)
    completed = [complete(variant, case, given)
                 for variant, _ in deviate(BY_NAME[name], vectors.variant, given)]
    forms = [form for form in completed if form is not None]
    require(forms, f"conventions: {name!r} changes nothing in this model, or the candidate does "
                   "not give the parameters of its own that it takes (params/NAME)")
    variant, case = min(forms, key=lambda form: _misfit(form[0], form[1], given))
    return bundle(variant, case, tolerances(variant, case), vectors.notes)


def _misfit(variant: Variant, case: Case, given: Arrays) -> float:
    """How far a form of a convention is from the candidate, at the worst of its forward pass."""
    forward = [name for name in given if not name.startswith(("loss", "grad", "adam"))]
    return max((compare(name, given[name], y, 0.0, "float64").error
                for name, y in compute(variant, case, forward) if name in forward), default=0.0)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _few(names: Sequence[str], count: int) -> str:
    """The first of `count` names, for a line of text."""
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


def _cells(row: TensorRow) -> tuple[str, ...]:
    if row.fault:
        return row.name, row.fault, "", "", "", ""
    return (row.name, f"{row.error:.1e}", f"{row.tolerance:.1e}",
            ",".join(map(str, row.index)), f"{row.got:.9g}", f"{row.expected:.9g}")
