"""The report of a check: the verdict, every fault by itself, and what a pass does not exclude."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np

from npple.checks import named
from npple.core.base import Arrays, Printed
from npple.errors import CheckFailed
from npple.oracle.deviations import DEVIATIONS
from npple.oracle.diagnosis import Diagnosis, diagnose
from npple.oracle.faults import Fault, Search, find_faults
from npple.oracle.judgement import BLUNT, HALF, Judge
from npple.oracle.results import TensorRow
from npple.oracle.separation import Separation, separation
from npple.oracle.telling import hides
from npple.oracle.vectors import Vectors
from npple.printing import aligned

VERDICTS = ("passed", "passed in part", "failed", "cannot be judged")
SHOWN = 6  # names on a line of a report
LINES = 20  # tensors in its table, and faults below it


@dataclass(frozen=True, repr=False)
class Report(Printed):
    """What a check found. Prints as text; `to_dict` is for JSON.

    Attributes
    ----------
    vectors : Vectors
        What the candidate was held against, its conventions applied.
    given : dict of ndarray
        The candidate's arrays.
    precisions : dict of str
        What each of them was computed in, as far as it is known.
    expected : tuple of str
        The tensors without which the candidate passes in part at most.
    unknown : tuple of str
        Names given that the vectors do not have.
    conventions : tuple of str
        Those declared.
    reasons : dict of str
        What could not be had of the candidate -> why, in words.
    unsteady : tuple of str
        Tensors that came out differently when the candidate ran again.
    tapped : bool
        Whether gradients were taken where a part of a module sees a tensor.
    """

    vectors: Vectors
    given: Arrays
    precisions: Mapping[str, str]
    expected: tuple[str, ...]
    unknown: tuple[str, ...]
    conventions: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    unsteady: tuple[str, ...] = ()
    tapped: bool = False

    # What was found -----------------------------------------------------------------------------

    @cached_property
    def judge(self) -> Judge:
        """Who holds the tensors against what they follow from."""
        return Judge(self.vectors, self.given, self.precisions, self.tapped)

    @cached_property
    def search(self) -> Search:
        """The search for faults, after it ran."""
        return find_faults(self.judge)

    @property
    def faults(self) -> list[Fault]:
        """Everything wrong by itself, in the order of computation; none unless it failed."""
        return self.search.faults if self.verdict == "failed" else []

    @cached_property
    def wrong(self) -> tuple[str, ...]:
        """The tensors that do not follow from what they read, in the order of computation."""
        return tuple(self.judge.wrong(self.start))

    @cached_property
    def start(self) -> Any:
        """The paper's model on the candidate's own tensors."""
        return self.judge.flow(self.vectors.variant, self.judge.case)

    @cached_property
    def rows(self) -> tuple[TensorRow, ...]:
        """One for each tensor compared, in the order of computation.

        Against the paper's value; where a tensor is wrong by itself, or half of all precision is
        gone, against what follows from the tensors before it.
        """
        return tuple(self._row(name) for name in self.judge.paper)

    @cached_property
    def blunt(self) -> tuple[str, ...]:
        """Tensors so coarse that rounding leaves nothing to judge by."""
        return tuple(name for name in self.judge.paper
                     if not self.judge.judged(name, self.start))

    @property
    def missing(self) -> tuple[str, ...]:
        """Tensors that were not given."""
        return tuple(name for name in self.vectors.expected if name not in self.given)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What was expected and not given, or given too coarsely to be judged."""
        given = set(self.judge.paper) - set(self.blunt) - set(self.judge.partial)
        given |= {f"tower/{task}" for task in self.vectors.model.tasks
                  if f"prediction/{task}" in given}
        return tuple(name for name in self.expected if name not in given)

    @cached_property
    def isolation(self) -> Separation:
        """Which task's loss reached which of the candidate's parameters, beside the model's."""
        return separation(self.vectors, self.given)

    @property
    def verdict(self) -> str:
        """One of "passed", "passed in part", "failed", "cannot be judged"."""
        if self.unsteady or "quantised" in self.reasons or (
                len(self.blunt) == len(self.judge.paper)):
            return "cannot be judged"
        if self.wrong:
            return "failed"
        return "passed in part" if self.lacking else "passed"

    @property
    def passed(self) -> bool:
        """Whether all that was expected was given, and all that was given is right."""
        return self.verdict == "passed"

    @property
    def precision(self) -> str:
        """The coarsest precision among the tensors compared."""
        return self.judge.coarsest

    @property
    def first_divergence(self) -> str | None:
        """The first tensor, in the order of computation, that is wrong by itself, or None."""
        return self.wrong[0] if self.wrong else None

    @property
    def worst(self) -> TensorRow:
        """The row with the largest error in units of its tolerance."""
        return max(self.rows, key=lambda row: row.excess)

    @cached_property
    def diagnosis(self) -> list[Diagnosis]:
        """The known deviations that reproduce the candidate, best first; found when first asked."""
        return diagnose(self.search) if self.verdict == "failed" else []

    @cached_property
    def not_excluded(self) -> tuple[str, ...]:
        """Deviations that what was given could not have told from the paper's model.

        Those that apply to this architecture and change nothing given by more than rounding, on
        these vectors; or that have numbers of their own, which could be such.
        """
        names = {name: row.precision for name, row in self.judge.paper.items()
                 if name not in self.blunt}
        return tuple(deviation.name for deviation in DEVIATIONS
                     if hides(self.vectors, deviation, names))

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

    # Rows ---------------------------------------------------------------------------------------

    def _row(self, name: str) -> TensorRow:
        paper = self.judge.paper[name]
        if paper.passed and paper.precision not in HALF:
            return paper
        local = self.judge.local(name, self.start)
        if local is None or name not in self.wrong and self.wrong:
            return paper
        return local if local.tolerance <= BLUNT else self.judge.against_paper(
            name, local.precision)

    # As text and JSON ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON.

        Returns
        -------
        dict
            `verdict`, `passed`, `precision`, `compared` (how many tensors), `faults` (a list),
            `first_divergence`, `diagnosis` (a list), `worst` and `tensors` (rows as dicts),
            `missing`, `lacking`, `unknown`, `conventions`, `reasons`, `unsteady`, `not_judged`.
        """
        rows = [{"tensor": row.name, "passed": row.passed, "error": _number(row.error),
                 "tolerance": _number(row.tolerance), "precision": row.precision,
                 "index": list(row.index), "got": row.got, "expected": row.expected,
                 "fault": row.fault} for row in self.rows]
        return {"verdict": self.verdict, "passed": self.passed, "precision": self.precision,
                "compared": len(rows), "faults": [fault.to_dict() for fault in self.faults],
                "first_divergence": self.first_divergence,
                "diagnosis": [diagnosis.to_dict() for diagnosis in self.diagnosis],
                "worst": rows[self.rows.index(self.worst)], "tensors": rows,
                "missing": list(self.missing), "lacking": list(self.lacking),
                "unknown": list(self.unknown), "conventions": list(self.conventions),
                "reasons": dict(self.reasons), "unsteady": list(self.unsteady),
                "not_judged": [*self.blunt, *self.judge.partial]}

    def __str__(self) -> str:
        shown = [row for row in self.rows if not row.passed] or [self.worst]
        table = [("tensor", "error", "tolerance", "at", "got", "expected"),
                 *(_cells(row) for row in shown[:LINES])]
        more = [f"... and {len(shown) - LINES} more that differ"] if len(shown) > LINES else []
        return "\n".join([aligned(table), *more, *self._notes(), *self._faults(),
                          *self._coverage(), self._last()])

    def _notes(self) -> Iterator[str]:
        if self.conventions:
            yield f"conventions declared: {', '.join(self.conventions)}"
        if "meta" in self.vectors.notes:
            yield f"the settings of these vectors are {self.vectors.notes['meta']}"
        if self.unknown:
            yield "unknown names: " + _few(
                [named(name) + suggestion(name, self.vectors.expected) for name in self.unknown])
        for what, why in self.reasons.items():
            yield f"{what}: {why}"
        if self.unsteady:
            yield f"another result when run again: {_few(self.unsteady)}"
        if self.judge.partial:
            yield ("gradients through some readers of a tensor only, not judged: "
                   f"{_few(self.judge.partial)}")
        if differing := self.isolation.differing:
            yield ("otherwise reached than in the model (print(report.isolation)): "
                   + _few([f"{group} by {task}" for task, group in differing]))
        if self.blunt:
            yield f"too coarse to be judged: {_few(self.blunt)}"
        half = [row for row in self.rows if row.precision in HALF and row.name not in self.blunt]
        if half:
            worst = max(half, key=lambda row: row.tolerance)
            yield (f"{worst.precision}: errors up to {worst.tolerance:.1%} pass, the most at "
                   f"{worst.name}")

    def _faults(self) -> Iterator[str]:
        if self.verdict != "failed":
            return
        coarser = self._coarser()
        if coarser:
            yield "all of it passes as float32: was it computed in float32, and stored as float64?"
        yield f"{len(self.faults)} fault{'s' * (len(self.faults) > 1)}:"
        most = 1 if coarser else LINES
        for i, fault in enumerate(self.faults[:most], start=1):
            yield f"{i}. {fault}"
            yield f"   {self._reads(fault)}"
        if len(self.faults) > most:
            yield f"... and {len(self.faults) - most} more"
        if self.search.unexplained:
            yield ("the search ended before all deviations were tried together" if self.search.ended
                   else "no known deviation, alone or with others, explains what has no name in "
                        "brackets")
            shaped = any(not self.judge.paper[name].fault for name in self.search.unexplained)
            if shaped and any(name.startswith("params/") for name in self.given):
                yield ("a mapping that turns a matrix round, or has experts or tasks in another "
                       "order, looks the same: does npple.oracle.suggest find yours?")
        for diagnosis in self.diagnosis:
            if diagnosis.decides:
                others = [each.names for each in self.diagnosis if each is not diagnosis]
                own = [name for name in diagnosis.names if not any(name in each for each in others)]
                yield (f"{diagnosis.decides} would tell {(own or diagnosis.names)[0]} from the "
                       "others")
            elif diagnosis.convention:
                yield (f"a convention, not a mistake: declare it with conventions="
                       f"{list(diagnosis.names)}")

    def _reads(self, fault: Fault) -> str:
        """What a faulty tensor is computed from, what is known of that, and where to look next."""
        kind, _, rest = fault.tensor.partition("/")
        table = self.vectors.model.table
        if kind.startswith("grad") and rest not in self.vectors.params:
            reads = [f"{kind}/{name}" for name in self.start.readers(rest)]
        elif kind.startswith("grad"):
            reads = [f"{kind}/{fault.row}"]
        else:
            reads = list(table.row[fault.row].inputs()) if fault.row in table.row else []
        reads = [name for name in dict.fromkeys(reads) if name in self.vectors.expected]
        if not reads:
            return "look at how it is computed: what stands before it is right"
        wrong = [name for name in reads if name in self.wrong]
        unseen = [name for name in reads if name not in self.given]
        right = [name for name in reads if name not in wrong and name not in unseen]
        parts = [f"{_few(names)} ({what})" for names, what in (
            (right, "right"), (wrong, "wrong by itself"), (unseen, "not given")) if names]
        learn = f"; give {unseen[0]} to learn whether the fault stands before it" if unseen else ""
        return f"computed from {', '.join(parts)}{learn}"

    def _coarser(self) -> bool:
        """Whether a candidate judged as float64 passes as float32."""
        if self.precision != "float64":
            return False
        judge = Judge(self.vectors, self.given, dict.fromkeys(self.given, "float32"),
                      self.tapped)
        return not judge.wrong(judge.flow(self.vectors.variant, judge.case))

    def _coverage(self) -> Iterator[str]:
        if self.lacking and not self.wrong and not self.unsteady:
            yield f"expected and not there: {_few(self.lacking)}"

    def _last(self) -> str:
        names = set(self.judge.paper) - set(self.blunt) - set(self.judge.partial)
        every = self.vectors.expected
        absent = set(map(_group, every)) - set(map(_group, names))
        words = _groups(names, every) + ("; not: " if absent else "") + _groups(
            [name for name in every if _group(name) in absent], every)
        return (f"{len(self.rows)} of {len(every)} tensors compared, judged as "
                f"{self.precision}: {words}\n{self._closing()}")

    def _closing(self) -> str:
        if self.verdict == "passed in part":
            return f"passed in part; not compared: {_groups(self.lacking, self.expected)}"
        if self.verdict != "failed":
            return self.verdict
        return (f"FAILED: {len(self.wrong)} wrong by themselves, the first is "
                f"{self.first_divergence}")


def _group(name: str) -> str:
    """What kind of tensor a name stands for, in words."""
    kind, _, rest = name.partition("/")
    if kind == "tower" and "/" not in rest:
        return "outputs"
    if kind.startswith("grad"):
        return "gradients of the joint loss" if kind == "grad" else "gradients of each task"
    if kind.startswith(("adam", "handed")):
        return "Adam"
    if kind.startswith("loss"):
        return "losses"
    if kind == "prediction":
        return "predictions"
    if "/gate" in name:
        return "gates"
    return "experts" if "/experts" in name else "towers" if kind == "tower" else "representations"


def _groups(names: Collection[str], every: Collection[str]) -> str:
    """What kinds of tensors some of them are, with counts where not all of a kind are there."""
    some, all_of = Counter(map(_group, names)), Counter(map(_group, every))
    return ", ".join(group if some[group] == of else f"{group} ({some[group]} of {of})"
                     for group, of in all_of.items() if some[group])


def suggestion(name: str, known: Collection[str]) -> str:
    """What may be meant by a name, in parentheses."""
    close = [f"tower/{name}"] if f"tower/{name}" in known else get_close_matches(name, known)
    return f" (did you mean {named(close[0])}?)" if close else ""


def _few(names: Sequence[str]) -> str:
    """The first names, for a line of text."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


def _cells(row: TensorRow) -> tuple[str, ...]:
    if row.fault:
        return row.name, row.fault, "", "", "", ""
    return (row.name, f"{row.error:.1e}", f"{row.tolerance:.1e}",
            ",".join(map(str, row.index)), f"{row.got:.9g}", f"{row.expected:.9g}")
