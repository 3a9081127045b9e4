"""What deviations, together, make the paper's model into a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from npple.oracle.deviations import Deviation
from npple.oracle.faults import Form, Search
from npple.oracle.judgement import Judge
from npple.oracle.results import compare
from npple.oracle.rounding import UNITS
from npple.oracle.flow import compute


@dataclass(frozen=True)
class Diagnosis:
    """Deviations that together explain all tensors a candidate gave, to rounding.

    Attributes
    ----------
    deviations : tuple of Deviation
    details : tuple of str
        For each: which of its forms.
    evidence : tuple of int
        How many of the tensors given they explain that the paper's model does not, and how many
        were given.
    decides : str or None
        A tensor that was not given and would tell this diagnosis from the others.
    """

    deviations: tuple[Deviation, ...]
    details: tuple[str, ...]
    evidence: tuple[int, int]
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
            `convention`, `evidence` and `decides`.
        """
        return {"deviations": list(self.names), "details": list(self.details),
                "descriptions": [deviation.description for deviation in self.deviations],
                "convention": self.convention, "evidence": list(self.evidence),
                "decides": self.decides}

    def __str__(self) -> str:
        parts = [f"{deviation.description}{f' ({detail})' if detail else ''}"
                 for deviation, detail in zip(self.deviations, self.details)]
        return f"{', and '.join(parts)}  [{', '.join(self.names)}]"


def diagnose(search: Search) -> list[Diagnosis]:
    """The deviations consistent with all that a candidate gave, best first.

    Parameters
    ----------
    search : npple.oracle.faults.Search
        After it has run.

    Returns
    -------
    list of Diagnosis
        Empty if there are none, or something remains that they do not explain.
    """
    found = search.whole or ([search.final] if search.exact and search.final.deviations else [])
    explained = len(search.judge.wrong(search.start.flow)), len(search.judge.paper)
    return [Diagnosis(form.deviations, form.details, explained, _decides(form, found, search.judge))
            for form in found]


def _decides(form: Form, found: Sequence[Form], judge: Judge) -> str | None:
    """The first tensor, of those not given, on which a form differs visibly from another."""
    other = next((each for each in found if each is not form), None)
    if other is None:
        return None
    at = list(UNITS).index(judge.coarsest)
    tensors = dict(compute(other.variant, other.case))
    for name, y in compute(form.variant, form.case):
        if name not in judge.given and name in judge.vectors.expected:
            allowed = 2 * judge.vectors.tolerance[name][at]
            if name not in tensors or not compare(name, tensors[name], y, allowed,
                                                  judge.coarsest).passed:
                return name
    return None
