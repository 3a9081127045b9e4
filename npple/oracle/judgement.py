"""Is each tensor right, given what it was computed from?

A tensor is right if it agrees with the paper's value, or with what follows from the tensors that
the candidate gave, within what rounding may do in the precision of all that went into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, combinations

import numpy as np

from npple.core.base import Array, Arrays, Float64
from npple.oracle.flow import Flow
from npple.oracle.results import TensorRow, compare
from npple.oracle.rounding import FLOOR, SAFETY, UNITS, noisy, noisy_case, textbook
from npple.oracle.variant import Variant, cast
from npple.oracle.vectors import Vectors
from npple.verify.cases import Case

HALF = {"float16": 2.0, "bfloat16": 1.0}  # unit roundoffs that one operation may be off by
LEAST = {"float16": 4.0, "bfloat16": 2.0}  # of a tensor's largest entry, that are forgiven
MARGIN = 1.25  # the largest of some random runs is not yet the largest there can be
BLUNT = 0.1  # a tolerance above this judges nothing
MOST = 7  # parts of a gradient of which all sums are looked at
FAR = 1e6  # floors beyond which no rounding of float64 or float32 is looked into
NOISY = 8  # flows of which runs with roundings are kept; a search tries thousands


class Judge:
    """Holds a candidate's tensors against what they follow from.

    Parameters
    ----------
    vectors : Vectors
    given : dict of ndarray
        The candidate's arrays, those of parameters too.
    precisions : dict of str
        What each of them was computed in.
    tapped : bool
        Whether gradients were taken where a part of a module sees a tensor: perhaps at one expert
        of a group, perhaps where no gradient comes from.
    """

    def __init__(self, vectors: Vectors, given: Arrays, precisions: Mapping[str, str],
                 tapped: bool = False) -> None:
        self.vectors, self.given, self.precisions = vectors, given, precisions
        self.tapped = tapped
        self.case = cast(vectors.case, np.float64)
        self.stored = vectors.notes["dtype"]  # nothing is judged finer than the vectors are
        self._noisy: dict[tuple[int, str, float], tuple[Flow, Flow]] = {}

    @cached_property
    def usable(self) -> dict[str, Array]:
        """The given tensors that others can be computed from, in float64."""
        expected = self.vectors.expected
        return {name: array.astype(np.float64) for name, array in self.given.items()
                if name in expected and array.shape == expected[name].shape
                and np.isfinite(array).all()}

    def flow(self, variant: Variant, case: Case) -> Flow:
        """The variant on the candidate's own tensors, as far as they were read as given."""
        return self._without(variant, case, self.unread)

    @cached_property
    def unread(self) -> frozenset[str]:
        """Given tensors that are wrong, and that what should read them did not read.

        They were handed in under a wrong name, changed afterwards, or are a part of a gradient.
        """
        variant, found = self.vectors.variant, frozenset[str]()
        flow = self._without(variant, self.case, found)
        suspects, readers = self._suspects(flow)
        for name in suspects:
            without = self._without(variant, self.case, found | {name})
            if self._better(readers[name], flow, without):
                found |= {name}
        parts, before = found, self._without(variant, self.case, found)
        without = before
        for name in suspects:  # what reads several parts follows only without all of them
            if self._part(name, without):
                parts |= {name}
                without = self._without(variant, self.case, parts)
        together = self._better([other for name in suspects if name in parts - found
                                 for other in readers[name]], before, without)
        return parts if together else found

    def _suspects(self, flow: Flow) -> tuple[list[str], dict[str, list[str]]]:
        """What is wrong, or is read by what is wrong in half precision, and what reads it."""
        names = [name for name in self.paper if not name.startswith(("adam", "handed"))]
        wrong = {name for name in names if not self.right(name, flow)}
        for name in [*wrong]:  # half precision may call right what lacks a small part
            if not self._fine(self.precision(name, flow)):
                wrong |= {each for each in flow.reads(name) & self.paper.keys() if _backward(each)}
        readers: dict[str, list[str]] = {name: [] for name in names if name in wrong}
        for other in names if wrong else ():
            for name in wrong & flow.reads(other) - {other}:
                readers[name].append(other)
        return [*readers], readers

    def _better(self, names: Sequence[str], flow: Flow, without: Flow) -> bool:
        """Whether some tensors follow only without what a flow reads, and none only with it.

        What is as near in both flows follows in both: what rounding excuses is known at random.
        """
        found = False
        for name in names:
            one, other = self.local(name, flow), self.local(name, without)
            follows, right = one is not None and one.passed, self.right(name, without)
            if follows and not right and not (one and other and other.error <= one.error):
                return False
            found = found or not follows and right
        return found

    @cached_property
    def partial(self) -> tuple[str, ...]:
        """Gradients that hold what comes through some of the tensor's readers, not through all."""
        flow = self.flow(self.vectors.variant, self.case)
        return tuple(name for name in self.paper
                     if name in self.unread and self._part(name, flow))

    def _part(self, name: str, flow: Flow) -> bool:
        """Whether a gradient is the sum of some of its parts."""
        kind, _, rest = name.partition("/")
        if not kind.startswith("grad"):
            return False
        parts = [flow.contributions(kind, row).get(rest) for row in flow.readers(rest)]
        whole, known = self.local(name, flow), [part for part in parts if part is not None]
        sums = (sum(some[1:], some[0]) for size in range(1, min(len(known), MOST))
                for some in combinations(known, size))
        if whole is None or whole.fault:
            return False
        least = whole.tolerance * _largest(flow.local(name))  # of the whole: parts may be small
        if _largest(self.given[name]) <= least and not self.tapped:
            return False
        tapped = self.tapped and rest not in self.vectors.params
        seen = self._seen(kind, rest, flow) if tapped else ()
        return any(_largest(self.given[name] - y) <= least for y in chain(sums, seen))

    @staticmethod
    def _seen(kind: str, name: str, flow: Flow) -> Iterator[Array]:
        """A tensor's gradient at single experts, and at readers that the loss does not reach."""
        rows = flow.readers(name)
        if any(name not in flow.contributions(kind, row) for row in rows):
            yield np.zeros(())
        for row in rows:
            yield from flow.shares(kind, row)

    def _without(self, variant: Variant, case: Case, names: frozenset[str]) -> Flow:
        given = {name: y for name, y in self.usable.items() if name not in names}
        return Flow(variant, case, given)

    @cached_property
    def paper(self) -> dict[str, TensorRow]:
        """Each given tensor against the paper's value; half precisions by the coarsest of all."""
        return {name: self.against_paper(name) for name in self.vectors.expected
                if name in self.given}

    @property
    def coarsest(self) -> str:
        """The coarsest precision among the tensors compared."""
        return max((row.precision for row in self.paper.values()), key=UNITS.__getitem__,
                   default=self.stored)

    def wrong(self, flow: Flow) -> list[str]:
        """The given tensors that are not right, in the order of computation."""
        return [name for name in self.paper
                if name not in self.partial and not self.right(name, flow)]

    def strained(self, flow: Flow) -> int:
        """How many given tensors have the paper's value, though the flow gives another."""
        rows = (self.local(name, flow) for name in self.paper)
        return sum(row is None or not row.passed for row in rows)

    def right(self, name: str, flow: Flow) -> bool:
        """Whether a given tensor agrees with the paper's value or with the flow's."""
        if self.paper[name].passed and self._fine(self.paper[name].precision):
            return True
        row = self.local(name, flow)
        if row is None:
            return False
        return row.passed if _tells(row, flow, self._size(name)) else self.against_paper(
            name, row.precision).passed

    def follows(self, name: str, flow: Flow) -> bool:
        """Whether nothing tells a given tensor from the flow's, the paper's value left aside."""
        row = self.local(name, flow)
        return row is not None and (row.passed or not row.fault and not _tells(
            row, flow, self._size(name)))

    def faint(self, name: str) -> bool:
        """Whether a given tensor is nothing but zeros or rounding, and the paper's is not."""
        return self._nothing(name, self.given[name])

    def _nothing(self, name: str, y: Array) -> bool:
        """Whether an array is nothing beside the paper's tensor of this name."""
        return _largest(y) * FAR < self._size(name)

    def _size(self, name: str) -> float:
        """How large the paper's tensor is; of a task's gradient also that of the joint loss."""
        kind, _, rest = name.partition("/")
        own, joint = self.vectors.expected[name], self.vectors.expected.get(f"grad/{rest}")
        return max(_largest(own), _largest(joint) if joint is not None and "[" in kind else 0.0)

    def judged(self, name: str, flow: Flow) -> bool:
        """Whether rounding leaves anything of a tensor to be judged by."""
        if self._fine(self.precision(name, flow)):
            return True
        local = self.local(name, flow)
        paper = _largest(self.vectors.expected[name])  # not the joint loss's: it may be far larger
        return local is not None and _tells(local, flow, paper)

    def local(self, name: str, flow: Flow) -> TensorRow | None:
        """A given tensor against the flow's; None if the variant makes no such tensor."""
        y = flow.value(name)
        if y is None:
            return None
        precision = self.precision(name, flow)
        paper = self.paper.get(name)
        if paper and paper.precision == precision and flow.variant == self.vectors.variant and not (
                flow.reads(name) & flow.given.keys()):
            return paper  # computed from parameters and inputs alone: no other value
        floor = _floor(name, y, precision)
        row = compare(name, self.given[name], y, floor, precision)
        hopeless = self._fine(precision) and row.error > FAR * floor
        if row.passed or row.fault or hopeless and not self._nothing(name, y):
            return row
        return compare(name, self.given[name], y,
                       max(floor, self.tolerance(name, y, flow, precision)), precision)

    def precision(self, name: str, flow: Flow) -> str:
        """The coarsest of a tensor's own and those of all that went into it."""
        parts = name, *flow.reads(name)
        found = [self.precisions[part] for part in parts if part in self.precisions]
        return max((*found, self.stored), key=UNITS.__getitem__)

    def tolerance(self, name: str, y: Array, flow: Flow, precision: str) -> float:
        """How far rounding may take a tensor from `y`, relative to its largest entry."""
        safety = SAFETY if self._fine(precision) or _backward(name) else HALF[precision]
        key = id(flow), precision, safety
        if key not in self._noisy:
            unit = np.array([UNITS[precision]])
            given = _Shaken(flow.given, unit, safety)
            case = noisy_case(flow.case, unit, safety)
            while len(self._noisy) >= NOISY:
                self._noisy.pop(next(iter(self._noisy)))
            self._noisy[key] = flow, Flow(textbook(flow.variant), case, given)
        largest = _largest(y)
        if not largest:
            return 0.0
        with np.errstate(all="ignore"):
            copies = np.asarray(self._noisy[key][1].local(name))
            error = np.abs(copies - y).max() / largest
        return float(MARGIN * error) if np.isfinite(error) else np.inf

    def against_paper(self, name: str, own: str = "") -> TensorRow:
        """A given tensor against the paper's, in a precision or its own."""
        own = own or self.precisions.get(name, "float64")
        precision = max(own, self.stored, key=UNITS.__getitem__)
        at = list(UNITS).index(precision)
        return compare(name, self.given[name], self.vectors.expected[name],
                       self.vectors.tolerance[name][at], precision)

    @staticmethod
    def _fine(precision: str) -> bool:
        return precision not in HALF


def _largest(y: Array) -> float:
    """The size of the largest entry."""
    return float(np.abs(y).max(initial=0.0))


def _tells(row: TensorRow, flow: Flow, size: float) -> bool:
    """Whether what is forgiven is little, of the tensor or of the paper's of that size.

    What is nothing but rounding, as before a normalisation the gradient of a bias, is told from
    the paper's by its size.
    """
    own = _largest(flow.local(row.name))
    return row.tolerance * own <= BLUNT * max(own, size)


def _backward(name: str) -> bool:
    """Whether a tensor is a gradient, or what Adam makes of one."""
    return name.startswith(("grad", "adam", "handed"))


def _floor(name: str, y: Array, precision: str) -> float:
    """The error, relative to the largest entry, that is always forgiven."""
    least = FLOOR if precision not in HALF or _backward(name) else LEAST[precision]
    scale = min(_largest(y), 1.0) if name.startswith("loss") else 1.0
    return least * UNITS[precision] / (scale or 1.0)


class _Shaken(Mapping[str, Array]):
    """The given tensors as copies, each off by its own rounding; made when they are read."""

    def __init__(self, given: Arrays, unit: Float64, safety: float) -> None:
        self.given, self.copies = given, noisy(unit, safety)
        self.made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self.made:
            self.made[name] = self.copies(self.given[name]) * 1.0
        return self.made[name]

    def __contains__(self, name: object) -> bool:
        return name in self.given

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)
