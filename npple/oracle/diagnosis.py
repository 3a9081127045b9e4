"""Which known deviations reproduce a candidate: each tried alone, then two at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from npple.core.base import Arrays
from npple.oracle.deviations import DEVIATIONS, Deviation, complete, deviate
from npple.oracle.results import TensorRow, compare
from npple.oracle.rounding import UNITS, tolerances
from npple.oracle.variant import Variant, cast, compute
from npple.oracle.vectors import Vectors
from npple.verify.cases import Case

Found: TypeAlias = "tuple[Diagnosis, Variant, Case]"
NEAR = 1000  # tolerances of the paper's model within which a deviation's own are worked out
BETTER = 4  # how many times closer it must come at the first divergence


@dataclass(frozen=True)
class Diagnosis:
    """Deviations that together reproduce all tensors a candidate gave, to rounding.

    Attributes
    ----------
    deviations : tuple of Deviation
    details : tuple of str
        For each: which of its forms.
    excess : float
        The largest error, in units of its tolerance.
    decides : str or None
        A tensor that was not given and would tell this diagnosis from the others.
    """

    deviations: tuple[Deviation, ...]
    details: tuple[str, ...]
    excess: float
    decides: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the deviations."""
        return tuple(deviation.name for deviation in self.deviations)

    @property
    def convention(self) -> bool:
        """Whether the candidate is the paper's model under other conventions."""
        return all(deviation.convention for deviation in self.deviations)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values, for JSON.

        Returns
        -------
        dict
            Lists `deviations` (their names), `details` and `descriptions`, one entry a deviation;
            `convention`, `excess` and `decides`.
        """
        return {"deviations": list(self.names), "details": list(self.details),
                "descriptions": [deviation.description for deviation in self.deviations],
                "convention": self.convention, "excess": self.excess, "decides": self.decides}

    def __str__(self) -> str:
        parts = [f"{deviation.description}{f' ({detail})' if detail else ''}"
                 for deviation, detail in zip(self.deviations, self.details)]
        return f"{', and '.join(parts)}  [{', '.join(self.names)}]"


@dataclass(frozen=True)
class _Attempt:
    """Deviations applied together, and the variant they make."""

    deviations: tuple[Deviation, ...]
    details: tuple[str, ...]
    variant: Variant

    def further(self, deviation: Deviation, given: Arrays) -> Iterator[_Attempt]:
        """This and one more deviation, in each of its forms."""
        for variant, detail in deviate(deviation, self.variant, given):
            yield _Attempt((*self.deviations, deviation), (*self.details, detail), variant)


def diagnose(vectors: Vectors, given: Arrays, precision: str, rows: Sequence[TensorRow]
             ) -> list[Diagnosis]:
    """The deviations consistent with a candidate, best first.

    Parameters
    ----------
    vectors : npple.oracle.vectors.Vectors
    given : dict of ndarray
        The candidate's arrays.
    precision : str
    rows : sequence of Row
        The tensors compared, in the order of computation; not all passed.

    Returns
    -------
    list of Diagnosis
        Empty if no deviation of the catalogue, and no two of them, reproduce the candidate.
    """
    case = cast(vectors.case, np.float64)
    judge = _Judge(vectors, case, given, precision, rows)
    single = [trial for deviation in DEVIATIONS
              for trial in _Attempt((), (), vectors.variant).further(deviation, given)]
    pairs = (pair for first in single
             for second in DEVIATIONS[DEVIATIONS.index(first.deviations[0]) + 1:]
             for pair in first.further(second, given))
    found = judge.consistent(single) or judge.consistent(pairs)
    return _decided(found, given, vectors, precision)


@dataclass(frozen=True)
class _Judge:
    """Holds trials against the candidate."""

    vectors: Vectors
    case: Case
    given: Arrays
    precision: str
    rows: Sequence[TensorRow]

    def consistent(self, trials: Iterable[_Attempt]) -> list[Found]:
        """[(Diagnosis, variant, case)] for the trials that explain everything given."""
        found = []
        for trial in trials:
            completed = complete(trial.variant, self.case, self.given)
            excess = self._excess(*completed) if completed else None
            if completed and excess is not None and excess <= 1:
                found.append((Diagnosis(trial.deviations, trial.details, excess), *completed))
        return found

    def _excess(self, variant: Variant, case: Case) -> float | None:
        """The largest error in units of its tolerance; None where it is far off, or no nearer.

        The tolerances are those of the paper's model, or, where these do not do, the variant's.
        """
        first, excess = next(row for row in self.rows if not row.passed), 0.0
        left = {row.name for row in self.rows}
        for name, y in compute(variant, case, self.given):
            if name in self.given:
                row = compare(name, self.given[name], y, self._tolerance(name), self.precision)
                excess = max(excess, row.excess)
                left.discard(name)
                nearer = name != first.name or row.passed or row.error < first.error / BETTER
                if excess > NEAR or not nearer:
                    return None
        if left:
            return None
        return excess if excess <= 1 else self._own_excess(variant, case)

    def _own_excess(self, variant: Variant, case: Case) -> float:
        """The same with the variant's own tolerances, which take longer to find."""
        allowed = tolerances(variant, case, (self.precision,), self.given)
        return max(compare(name, self.given[name], y, allowed[name][0], self.precision).excess
                   for name, y in compute(variant, case, self.given) if name in self.given)

    def _tolerance(self, name: str) -> float:
        """That of the paper's model; the largest for a tensor that is 0 there, or not there."""
        known, at = self.vectors.tolerance, list(UNITS).index(self.precision)
        return known.get(name, (0.0,) * len(UNITS))[at] or max(t[at] for t in known.values())


def _decided(found: Sequence[Found], given: Arrays, vectors: Vectors, precision: str
             ) -> list[Diagnosis]:
    """The diagnoses; where there are several, each with the tensor that would tell it apart."""
    if len(found) < 2:
        return [diagnosis for diagnosis, *_ in found]
    tensors = [dict(compute(variant, case)) for _, variant, case in found]
    return [replace(diagnosis, decides=_difference(tensors[i], tensors[0 if i else 1], given,
                                                   vectors, precision))
            for i, (diagnosis, *_) in enumerate(found)]


def _difference(one: Arrays, other: Arrays, given: Arrays, vectors: Vectors, precision: str
                ) -> str | None:
    """The first tensor, of those not given, on which two explanations differ visibly."""
    at = list(UNITS).index(precision)
    for name, y in one.items():
        if name not in given and name in vectors.expected:
            allowed = 2 * vectors.tolerance[name][at]
            if name not in other or not compare(name, other[name], y, allowed, precision).passed:
                return name
    return None
