"""Every fault of a candidate by itself: located at its row, and named where the catalogue knows it.

The first tensor that is wrong by itself is explained by a deviation, or by a few together; the
variant with these takes the place of the model, and the search goes on with what is still wrong.
So any number of faults is found, and what no deviation explains hides nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from typing import Any

import numpy as np

from npple.core.base import Array, Float64
from npple.core.table import Level, Table
from npple.errors import InputError
from npple.oracle.changes import Free
from npple.oracle.deviations import DEVIATIONS, Deviation, complete, deviate
from npple.oracle.flow import Flow, owner
from npple.oracle.judgement import Judge
from npple.oracle.results import compare
from npple.oracle.variant import Variant
from npple.verify.cases import Case

# Deviations that may meet in one tensor, and how many of them have a number that is fitted. It
# explains much: it comes last, and not with two others.
TOGETHER = ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0))
COMBINATIONS = 300  # of each size that are tried
SAME = 1e-12  # relative to the largest entry: two values that are one
STEP = 1e-6  # relative, of the slope by which a number is fitted
TRIES = 20  # steps by which it may be found
HALVES = 0.5 ** np.arange(16)  # of a step that is too long
LADDER = 1.1 ** np.array(sorted(range(-30, 31), key=abs))  # for one seen in steps alone
SETTLED = 1e-4  # relative: a step below this goes nowhere
TRIALS = 1000  # variants tried before those of two or three deviations are left out
MOST = 3000  # variants tried before the search ends
FIT = 5  # variants that fitting a number counts for
LOOKED = 12  # wrong tensors that a number is fitted to
SHOWN = 4  # tensors named in a detail


@dataclass(frozen=True)
class Fault:
    """Something that is wrong by itself, not because of what it read.

    Attributes
    ----------
    tensor : str
        The first tensor in which it shows.
    row : str
        The row it stands in: that of a table, "input", "loss", or "adam".
    names : tuple of str
        Deviations of the catalogue that explain it, the best first; empty if none does.
    detail : str
        What is known about it, in words.
    """

    tensor: str
    row: str
    names: tuple[str, ...]
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """The fault as plain values, for JSON.

        Returns
        -------
        dict
            `tensor`, `row`, `names` (a list), `detail`.
        """
        return {"tensor": self.tensor, "row": self.row, "names": list(self.names),
                "detail": self.detail}

    def __str__(self) -> str:
        names = f"  [{', or '.join(self.names)}]" if self.names else ""
        return f"{self.tensor} (row {self.row}): {self.detail}{names}"


@dataclass(frozen=True)
class Form:
    """A variant made by some deviations, with all numbers it needs, and its flow."""

    deviations: tuple[Deviation, ...]
    details: tuple[str, ...]
    variant: Variant
    case: Case
    flow: Flow = field(repr=False)
    local: bool = False  # whether the last of them changes some of its rows only

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the deviations."""
        return tuple(deviation.name for deviation in self.deviations)

    @property
    def fitted(self) -> int:
        """How many of them have a number that was fitted."""
        return sum(deviation.free is not None for deviation in self.deviations)


@dataclass
class Search:
    """The search for the faults of a candidate.

    Attributes
    ----------
    judge : Judge
    faults : list of Fault
        Those found, in the order of computation.
    whole : list of Form
        The forms, one deviation or a few together, that alone explain everything given.
    final : Form
        The model with all deviations found.
    unexplained : list of str
        Wrong tensors that no deviation explains.
    looked : list of str
        Wrong tensors that numbers of the candidate's own are fitted to: to all of them, or, where
        another mistake is in the way, to the first.
    trials : int
        Variants tried.
    ended : bool
        Whether some wrong tensor was not looked at with deviations together, or not at all.
    """

    judge: Judge
    faults: list[Fault] = field(default_factory=list)
    whole: list[Form] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    trials: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        judge = self.judge
        variant, case = judge.vectors.variant, judge.case
        self.start = self.final = Form((), (), variant, case, judge.flow(variant, case))

    def run(self) -> Search:
        """Finds the faults, one after the other."""
        with np.errstate(all="ignore"):  # deviations that do not fit may overflow
            self._search()
        order = {name: i for i, name in enumerate(self.judge.paper)}
        self.faults.sort(key=lambda fault: order[fault.tensor])
        return self

    def _search(self) -> None:
        wrong = self.judge.wrong(self.final.flow)
        while wrong:
            found = self._explained(wrong)
            if found:
                self._take(found, wrong)  # zeros are looked at again: much could explain them
                self.unexplained = [name for name in self.unexplained
                                    if not self.judge.faint(name)]
            else:
                self._give_up(wrong)
            still = self.judge.wrong(self.final.flow)  # later finds explain some given up before
            if any(not fault.names and fault.tensor not in still for fault in self.faults):
                self.faults = [fault for fault in self.faults if fault.names]
                self.unexplained = []  # and what stood behind it is looked at again
            self.unexplained = [name for name in self.unexplained if name in still]
            wrong = [name for name in still
                     if name not in self.unexplained and not (self.unexplained and _later(name))]

    # What a deviation explains ----------------------------------------------------------------

    def _explained(self, wrong: Sequence[str]) -> list[tuple[list[str], Form]]:
        """Forms under which the first wrong tensor is right, best first, with what they leave."""
        self.ended = self.ended or self.trials > TRIALS
        if self.trials > MOST:
            return []
        first = wrong[0]
        near = [name for name in wrong if _later(first) or not _later(name)]
        self.looked = near[:LOOKED]  # steps of Adam are long to follow, and come later
        touching = self._touching(first)
        alone = _later(first) or self.ended or self.judge.faint(first)
        weak: list[tuple[list[str], Form]] = []
        for size, fitted in TOGETHER[:2] if alone else TOGETHER:
            tried = self._together(touching, size, fitted)
            found = [form for form in tried if self.judge.right(first, form.flow)]
            left = [pair for form in found for pair in self._left(form, wrong)]
            left = sorted([*weak, *left], key=lambda pair: len(pair[0]))
            weak = left if fitted and not alone and not weak and self._weak(left, wrong) else []
            if left and not weak:
                return left
        return weak

    def _weak(self, found: Sequence[tuple[list[str], Form]], wrong: Sequence[str]) -> bool:
        """Whether the best form leaves wrong what it changes: its number may fit by chance."""
        if not found:
            return False
        left, form = found[0]
        return any(name in left and not _same(form.flow.value(name), self.final.flow.value(name))
                   for name in wrong)

    def _left(self, form: Form, wrong: Sequence[str]) -> Iterator[tuple[list[str], Form]]:
        """What a form leaves wrong; where it spoils what was right, also in the wrong rows only."""
        fits, left = self._fits(form, wrong), self.judge.wrong(form.flow)
        again = form.names[-1] in self.final.names
        if fits and (not again or {*left} < {*wrong}):
            yield left, form
        faint = self.judge.faint(wrong[0])
        for local in self._here(form, wrong) if not (faint or fits and {*left} <= {*wrong}) else ():
            if self.judge.right(wrong[0], local.flow) and self._fits(local, wrong):
                yield self.judge.wrong(local.flow), local

    def _fits(self, form: Form, wrong: Sequence[str]) -> bool:
        """Whether nothing that was given speaks against a form.

        What stands before the first wrong tensor and has the paper's value must follow from the
        form, too. That a gradient is nothing but zeros or rounding has many causes: one of them is
        named if it explains all gradients that it changes.
        """
        judge, names = self.judge, list(self.judge.paper)
        before, after = self.final.flow, form.flow
        first = names.index(wrong[0])
        needed = [name for name in names[:first] if judge.paper[name].passed
                  and judge.follows(name, before)]
        needed += names[first:] if judge.faint(wrong[0]) else []
        return all(_same(after.value(name), before.value(name)) or judge.follows(name, after)
                   for name in needed)

    def _touching(self, name: str) -> list[Deviation]:
        """The deviations that change what a tensor should be."""
        before, found = self.final.flow.value(name), []
        for deviation in DEVIATIONS:
            forms = self._forms(self.final, [deviation], fit=False)
            if any(not _same(form.flow.value(name), before) for form in forms):
                found.append(deviation)
        return found

    def _together(self, touching: Sequence[Deviation], size: int, fitted: int) -> Iterator[Form]:
        """Forms with `size` more deviations, `fitted` of them with a number that is fitted."""
        plain = [deviation for deviation in touching if not deviation.free]
        free = [deviation for deviation in touching if deviation.free]
        groups = (group + last for group in combinations(plain, size - fitted)
                  for last in combinations(free, fitted))
        for group in islice(groups, COMBINATIONS):
            self.ended = self.ended or self.trials > MOST
            forms = [self.final] * (self.trials <= MOST)
            for deviation in group:
                forms = [after for form in forms for after in self._forms(form, [deviation])]
            yield from forms

    def _forms(self, form: Form, deviations: Sequence[Deviation], fit: bool = True
               ) -> Iterator[Form]:
        """A form with one more deviation, in each of the ways there are."""
        for deviation in deviations:
            again = deviation.name in form.names
            for variant, detail in deviate(deviation, form.variant, self.judge.given, fitted=True):
                if again and variant.table is form.variant.table:
                    continue  # rows may deviate in different ways
                after = self._form(form, deviation, variant, detail, fit)
                if after:
                    yield after

    def _form(self, form: Form, deviation: Deviation, variant: Variant, detail: str,
              fit: bool = True) -> Form | None:
        judge = self.judge
        self.trials += FIT if deviation.free and fit else 1
        completed = complete(variant, judge.case, judge.given, judge.usable)
        if completed is None:
            return None
        made, case = completed

        def formed(variant: Variant, told: str) -> Form:
            return Form((*form.deviations, deviation), (*form.details, told), variant, case,
                        judge.flow(variant, case))

        free = deviation.free
        if free is None:
            return formed(made, detail)
        if not fit:  # a number that no row has found yet
            return formed(free.set(made, free.start * (1 + STEP)), detail)

        def fitted(looked: Sequence[str]) -> Form | None:
            found = self._fitted(free, made, case, looked)
            return formed(*found) if found else None

        first = self.looked[0]
        near, off = (judge.flow(free.set(made, x), case).value(first)
                     for x in (free.start, free.start * (1 + STEP)))
        if not _same(near, off) or form is not self.final:  # it takes long: not with another
            return self._best_fit(fitted)
        tried = [formed(free.set(made, x), f"{free.what} about {x:.3g}, seen in steps alone")
                 for x in free.start * LADDER if free.low < x < free.high]
        return max((each for each in tried if judge.right(first, each.flow)), default=None,
                   key=lambda each: sum(judge.right(name, each.flow) for name in self.looked))

    def _best_fit(self, fit: Callable[[Sequence[str]], Form | None]) -> Form | None:
        """The form with a number fitted to all that is looked at.

        Where another mistake spoils that, to the first tensor, and then to those right by it; a
        single number, which says too little, beside the first other tensor that comes right.
        """
        def explains(form: Form | None) -> bool:
            return form is not None and self.judge.right(self.looked[0], form.flow)

        whole = fit(self.looked)
        if explains(whole):
            return whole
        alone = fit(self.looked[:1])
        if alone is None and np.size(self.judge.given[self.looked[0]]) == 1:
            pairs = ((name, fit([self.looked[0], name])) for name in self.looked[1:])
            alone = next((form for name, form in pairs if form and explains(form)
                          and self.judge.right(name, form.flow)), None)
        if alone is None or not explains(alone):
            return whole
        finer = fit([name for name in self.looked if self.judge.right(name, alone.flow)])
        return finer if explains(finer) else alone

    def _fitted(self, free: Free, variant: Variant, case: Case, looked: Sequence[str]
                ) -> tuple[Variant, str] | None:
        """The variant with the number that explains some tensors best, by Gauss-Newton.

        A step that leaves the legal range or comes no nearer is halved. None unless there are more
        numbers given than one that it changes, and it settles.
        """
        judge, number = self.judge, free.start

        def flow(number: float) -> Flow:
            return judge.flow(free.set(variant, number), case)

        near, off = flow(number), flow(number * (1 + STEP))
        names = [name for name, y in judge.usable.items() if name in looked
                 and getattr(near.value(name), "shape", None) == y.shape
                 and not _same(near.value(name), off.value(name))]
        given = [judge.usable[name].ravel() for name in names]
        equations = sum(y.size for y in given)
        if equations < 2:
            return None

        def residual(number: float) -> Float64:
            made = flow(number)
            values = [made.value(name) for name in names]
            return np.concatenate([np.full_like(y, np.nan) if value is None else value.ravel() - y
                                   for value, y in zip(values, given)])

        here, change = residual(number), np.inf
        for _ in range(TRIES):
            slope = (residual(number * (1 + STEP)) - here) / (number * STEP)
            change = float(-(slope @ here) / (slope @ slope))
            legal = (x for x in number + change * HALVES if free.low < x < free.high)
            made = ((float(x), residual(x)) for x in legal)
            nearer = next(((x, r) for x, r in made if r @ r < here @ here), None)
            if nearer is None:  # as near as rounding, or another mistake, lets it come
                break
            number, here = nearer
        if not abs(change) < SETTLED * abs(number):
            return None
        return free.set(variant, number), (
            f"{free.what} {number:.6g}, fitted: {equations} equations, 1 unknown")

    def _here(self, form: Form, wrong: Sequence[str]) -> Iterator[Form]:
        """The form with its last deviation in the rows alone that are wrong by themselves."""
        forward = [name for name in wrong if not name.startswith("grad")] or wrong
        rows, last = {_row(form.flow.table, name) for name in forward}, form.deviations[-1]
        table = _mixed(self.final.variant.table, form.variant.table, rows)
        if table not in (None, form.variant.table, self.final.variant.table):
            variant = replace(form.variant, table=table)
            local = self._form(replace(form, deviations=form.deviations[:-1],
                                       details=form.details[:-1]),
                               replace(last, free=last.free and _within(last.free, rows)),
                               variant, form.details[-1])
            if local:
                yield replace(local, local=True)

    # What is made of it -----------------------------------------------------------------------

    def _take(self, found: Sequence[tuple[list[str], Form]], wrong: Sequence[str]) -> None:
        """Makes faults of the best explanation, and goes on from there."""
        left, best = found[0]
        known = len(self.final.deviations)
        if not known and not left:
            strained = [((form.fitted, form.local, self.judge.strained(form.flow)), form)
                        for names, form in found if not names]
            least = min(count for count, _ in strained)
            best = next(form for count, form in strained if count == least)
            self.whole = list({form.names: form for count, form in reversed(strained)
                               if count == least}.values())[::-1]
        others = [form for names, form in found[1:] if names == left
                  and (form.fitted, form.local) == (best.fitted, best.local)
                  and len(form.deviations) == len(best.deviations)]
        for at in range(known, len(best.deviations)):
            deviation, detail = best.deviations[at], best.details[at]
            shown = self._shown(best, at, [name for name in wrong if name not in left])
            names = dict.fromkeys([deviation.name, *(form.names[at] for form in others)])
            self.faults.append(Fault(shown[0], self._changed(best, shown[0]), tuple(names),
                                     _detail(deviation, detail, shown)))
        self.final = best

    def _changed(self, best: Form, name: str) -> str:
        """The row by which an explanation changes a tensor: for a gradient, one that reads it."""
        kind, _, rest = name.partition("/")
        if kind.startswith("grad") and rest not in self.judge.case.params:
            old, new = self.final.flow.table.row, best.flow.table.row
            for row in self.final.flow.readers(rest):
                if new.get(row) != old[row]:
                    return row
        return _row(best.flow.table, name)

    def _shown(self, best: Form, at: int, repaired: list[str]) -> list[str]:
        """In which of the repaired tensors one of the deviations shows."""
        if len(best.deviations) - len(self.final.deviations) == 1:
            return repaired
        alone = list(self._forms(self.final, [best.deviations[at]]))
        return [name for name in repaired
                if any(not _same(form.flow.value(name), self.final.flow.value(name))
                       for form in alone)] or repaired

    def _give_up(self, wrong: Sequence[str]) -> None:
        """A fault that no deviation explains, with all that is wrong in the same row."""
        first = wrong[0]
        row = _row(self.final.flow.table, first)
        known = [fault for fault in self.faults if not fault.names]
        faint = self.judge.faint
        part = [name for name in wrong if self._through(name, row)
                and (faint(name) or not faint(first))]  # what has entries is looked at by itself
        behind = [fault for fault in known if self._through(first, fault.row)]
        self.unexplained += [first] if behind else part or [first]
        if not behind:
            self.faults.append(Fault(first, row, (), self._unknown(first)))

    def _through(self, name: str, row: str) -> bool:
        """Whether a row makes a tensor, or has a part in a gradient."""
        kind, _, rest = name.partition("/")
        if row in ("loss", "adam") or not kind.startswith("grad"):
            return _row(self.final.flow.table, name) == row
        return row in self.final.flow.readers(rest)

    def _unknown(self, name: str) -> str:
        """What can be said of a wrong tensor that no deviation explains."""
        row = self.judge.local(name, self.final.flow) or self.judge.paper[name]
        if row.fault:
            return row.fault
        text = (f"{row.got:.9g} where {row.expected:.9g} follows from what it reads, at "
                f"{','.join(map(str, row.index)) or 'its one entry'}")
        unread = ("; not what its readers read: handed in under a wrong name, or changed "
                  "afterwards?" if name in self.judge.unread else "")
        return text + self._blame(name) + self._alike(name) + unread

    def _alike(self, name: str) -> str:
        """Which other tensor a wrong one is equal to."""
        flow, row = self.final.flow, self.judge.paper[name]
        if not self.judge.given[name].any():
            return "; it is zero throughout" + ": cut off from the loss?" * name.startswith("grad")
        for other in self.judge.paper:
            y = flow.value(other) if other != name else None
            if y is not None and y.shape == self.judge.given[name].shape and compare(
                    name, self.judge.given[name], y, row.tolerance, row.precision).passed:
                return f"; it has the values of {other}"
        return ""

    def _blame(self, name: str) -> str:
        """Which of the parts of a gradient may be the guilty one."""
        kind, _, rest = name.partition("/")
        flow = self.final.flow
        if not kind.startswith("grad"):
            return ""
        parts = {row: flow.contributions(kind, row)[rest] for row in flow.readers(rest)
                 if rest in flow.contributions(kind, row)}
        if len(parts) < 2:
            return ""
        missing = self.judge.given[name] - flow.local(name)
        for row, part in parts.items():
            scale = float((part * missing).sum() / ((part * part).sum() or 1.0))
            if np.allclose(scale * part, missing, rtol=0, atol=1e-6 * np.abs(missing).max()):
                return (f"; the part of {row} is missing" if abs(scale + 1) < 1e-6 else
                        f"; the part of {row} counts {1 + scale:.6g} times")
        return f"; it is the sum of what comes from {', '.join(parts)}"

    @property
    def exact(self) -> bool:
        """Whether the deviations found explain everything given."""
        return not self.unexplained


def find_faults(judge: Judge) -> Search:
    """The faults of a candidate.

    Parameters
    ----------
    judge : Judge

    Returns
    -------
    Search
    """
    return Search(judge).run()


def _detail(deviation: Deviation, detail: str, shown: Sequence[str]) -> str:
    """A deviation in words, and where else it shows."""
    more = [name for name in shown[1:] if not name.startswith(("grad", "adam", "handed", "loss"))]
    also = f"; also in {', '.join(more[:SHOWN])}" if more else ""
    also += f" and {len(more) - SHOWN} more" if len(more) > SHOWN else ""
    return deviation.description + (f" ({detail})" if detail else "") + also


def _row(table: Table, name: str) -> str:
    """The row that a tensor, or the gradient of what it makes or owns, belongs to."""
    kind, _, rest = name.partition("/")
    if kind.startswith("loss"):
        return "loss"
    if kind.startswith(("adam", "handed")):
        return "adam"
    name = rest if kind == "prediction" or kind.startswith("grad") else name
    if kind == "prediction":
        return f"tower/{rest}"
    if name.startswith("embedding/"):
        return "input"
    try:
        return owner(table, name)
    except KeyError:
        return name


def _later(name: str) -> bool:
    """Whether this stands after Adam's second step or a later one.

    Its gradient is that of the whole model, so it follows from whatever was not explained before.
    """
    return name.startswith("adam") and not name.startswith("adam1/")


def _same(one: Array | None, other: Array | None) -> bool:
    """Whether two values are one, but for rounding."""
    if one is None or other is None or one.shape != other.shape:
        return one is other
    scale = np.abs(other).max(initial=0.0)
    return bool((np.abs(one - other) <= SAME * scale).all())


def _within(free: Free, rows: set[str]) -> Free:
    """The same number in the rows of these names alone."""
    def in_rows(variant: Variant, number: float) -> Variant:
        made = free.set(variant, number)
        return replace(made, table=_mixed(variant.table, made.table, rows) or made.table)

    return replace(free, set=in_rows)


def _mixed(old: Table, new: Table, rows: set[str]) -> Table | None:
    """The old table with the new rows of these names; None if they do not fit together."""
    def row(each: Any) -> Any:
        return new.row.get(each.name, each) if each.name in rows else each

    levels = tuple(Level(tuple(map(row, level.groups)), tuple(map(row, level.fusions)))
                   for level in old.levels)
    try:
        return Table(old.inputs, levels, tuple(map(row, old.towers)))
    except InputError:
        return None
