"""What each tensor must be, given what a candidate computed before it.

A `Flow` runs a variant on the candidate's own numbers: every row reads the tensors that the
candidate gave, and those it did not give are computed from the ones before. So each tensor is
judged by itself, forward and backward, and one fault does not hide another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from npple.core.base import Array, Arrays, Cache, Masks, Targets
from npple.core.blocks import blas_with_one_thread
from npple.core.losses import kind_of, loss_forward
from npple.core.ops import ACTIVATIONS, dense_forward, mixture_forward, softmax_forward
from npple.core.passes import (add_up, input_backward, input_forward, loss_starts,
                               penalty_backward, penalty_forward)
from npple.core.rows import Concat, Experts, Gate, Pass, Pool, Route, Row, Stitch, Tower
from npple.core.table import Table
from npple.errors import Diverged
from npple.oracle.deviant_losses import product_backward, product_forward
from npple.oracle.deviant_rows import Textbook
from npple.oracle.variant import HANDED, STEPS, Variant
from npple.verify.cases import Case

Found = TypeVar("Found")
PAPER = {Experts, Gate, Textbook, Pass, Concat, Pool, Stitch, Route, Tower}  # own parameters


class Flow(Mapping[str, Array]):
    """Every tensor of docs/vectors.md by name: the candidate's own, or computed from it.

    Parameters
    ----------
    variant : Variant
        The model that is run.
    case : npple.verify.cases.Case
        From `npple.oracle.variant.cast`.
    given : dict of ndarray
        The candidate's tensors, of the right shapes, as far as they are to be believed.

    Attributes
    ----------
    support : dict of set of str
        What was computed -> the given tensors and the parameters that went into it.
    """

    def __init__(self, variant: Variant, case: Case, given: Arrays) -> None:
        self.variant, self.case, self.given = variant, case, given
        self.noise = {f"{name}/route/noise": u for name, u in case.noise.items()}
        self.support: dict[str, set[str]] = {}
        self._known: dict[str, Any] = {}
        self._running: list[str] = []

    def __getitem__(self, name: str) -> Array:
        if name in self.noise:
            return self.noise[name]
        if name in self.given:
            self._note({name})
            return self.given[name]
        return self.local(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def local(self, name: str) -> Array:
        """A tensor computed from what it reads, whether it was given or not.

        Raises
        ------
        KeyError
            If the variant makes no such tensor.
        """
        part, _, rest = name.partition("/")
        if part == "loss" or part.startswith("loss["):
            make: Callable[[], Array] = partial(self._loss, part)
        elif part == "grad" or part.startswith("grad["):
            make = partial(self._gradient, part, rest)
        elif part.startswith("handed"):
            make = partial(self._handed_over, int(part.removeprefix("handed")), rest)
        elif part.startswith("adam"):
            make = partial(self._adam, int(part.removeprefix("adam")), rest)
        elif part == "prediction":
            make = partial(self._prediction, rest)
        elif part == "tower" and rest in self.variant.probabilities:
            make = partial(self._prediction, rest)
        else:
            made: dict[str, Array] = self._run(owner(self.table, name))[0]
            return made[name]
        return self._find(name, make)

    @property
    def table(self) -> Table:
        """The table of the variant."""
        return self.variant.table

    def value(self, name: str) -> Array | None:
        """`local`, or None if the variant makes no such tensor, or cannot be run at all."""
        try:
            return self.local(name)
        except (LookupError, ValueError, Diverged):  # no such row; deviations that clash
            return None

    def made(self, row: str) -> tuple[str, ...]:
        """The names of the tensors that a row makes, in the order of computation."""
        return tuple(self._run(row)[0])

    def reads(self, name: str) -> set[str]:
        """The given tensors and the parameters (`params/NAME`) that a tensor is computed from."""
        self.local(name)
        return self.support[name if name in self.support else f"row {owner(self.table, name)}"]

    def contributions(self, kind: str, row: str) -> dict[str, Array]:
        """What a row adds to the gradients of what it reads and of its parameters, by name.

        Parameters
        ----------
        kind : str
            "grad" for the joint loss, "grad[TASK]" for a task's own.
        row : str
            Its name, or "input" for the columns.
        """
        return self._find(f"{kind} through {row}", partial(self._contributions, kind, row))

    def shares(self, kind: str, row: str) -> list[Array]:
        """What each expert of a group adds to the gradient of what the group reads.

        Parameters
        ----------
        kind : str
            As for `contributions`.
        row : str
            Its name; of what is no group there are none.
        """
        group = self.table.row.get(row)
        if not isinstance(group, Experts):
            return []
        dy, cache, found = self[f"{kind}/{row}"], self._run(row)[1], []
        for i in range(group.count):
            parts: dict[str, Array] = {}
            alone = np.zeros_like(dy)
            alone[..., i, :, :] = dy[..., i, :, :]
            add_up(parts, group.backward(alone, cache, frozenset()))
            found.append(parts[group.reads])
        return found

    # How things are found ---------------------------------------------------------------------

    def _find(self, unit: str, make: Callable[[], Found]) -> Found:
        """What `make` computes, once, noting what went into it."""
        if unit not in self._known:
            self.support[unit] = set()
            self._running.append(unit)
            try:
                with blas_with_one_thread():
                    self._known[unit] = make()
            finally:
                self._running.pop()
        self._note(self.support[unit])
        found: Found = self._known[unit]
        return found

    def _note(self, names: set[str]) -> None:
        if self._running:
            self.support[self._running[-1]] |= names

    # Forward ----------------------------------------------------------------------------------

    def _run(self, name: str) -> tuple[dict[str, Array], Cache]:
        return self._find(f"row {name}", partial(self._row, name))

    def _row(self, name: str) -> tuple[dict[str, Array], Cache]:
        if name == "input":
            self._note({f"params/embedding/{column}" for column in self.table.embeddings})
            params = {**self.case.params, **{
                f"embedding/{column}": self._embedding(column) for column in self.table.embeddings}}
            return input_forward(self.table, params, self.case.x)
        row = self.table.row[name]
        self._note({f"params/{parameter}" for parameter in row.shapes(self.table)})
        steps = STEPPED.get(type(row))
        return steps(row, self) if steps else row.forward(self.case.params, self)

    def _embedding(self, column: str) -> Array:
        """The table whose rows a column's codes name."""
        name = f"embedding/{dict(self.variant.tables).get(column, column)}"
        table = self.case.params[name]
        if self.variant.padding == "zeros":
            table = np.array(table, subok=True)
            table[..., 0, :] = 0
        return table

    def _output(self, task: str) -> Array:
        """What a task is predicted by, before sigmoid or softmax."""
        if task in self.variant.product[1:]:
            return self._find("product", self._product)[0]
        return self._logit(task)

    def _logit(self, task: str) -> Array:
        """What a tower makes."""
        name = f"tower/{task}"
        return self._run(name)[0][name] if task in self.variant.probabilities else self[name]

    def _product(self) -> tuple[Array, Cache]:
        """The logit of two tasks' probabilities multiplied."""
        return product_forward(*map(self._logit, self.variant.product))

    def _prediction(self, task: str) -> Array:
        return kind_of(self.table.tasks[task]).predict(self._output(task))

    # Losses -----------------------------------------------------------------------------------

    def _own(self) -> dict[str, tuple[Array, Cache]]:
        return self._losses(*self.variant.sample(self.case.targets, self.case.masks))

    def _losses(self, targets: Targets, masks: Masks) -> dict[str, tuple[Array, Cache]]:
        return {task: loss_forward(self.variant.kind(task), self._output(task), targets[task],
                                   masks[task]) for task in self.table.tasks}

    def _rows(self) -> int:
        return len(next(iter(self.case.targets.values())))

    def _factors(self) -> dict[str, float]:
        _, masks = self.variant.sample(self.case.targets, self.case.masks)
        return self.variant.factors(masks, self._rows())

    def _loss(self, name: str) -> Array:
        if name != "loss":
            task = name[len("loss["):-1]
            value, _ = self._find("losses", self._own)[task]
            return self._factors()[task] * value
        weights = {task: self.variant.weight(task, self.case.weights[task])
                   for task in self.table.tasks}
        parts = [weight * self[f"loss[{task}]"] for task, weight in weights.items() if weight]
        penalty, _ = penalty_forward(self.table, self.case.params)
        penalty = penalty + sum(s for _, s in self.variant.variances)
        return np.asarray(sum(parts, start=np.asarray(0.0)) + penalty)

    # Backward ---------------------------------------------------------------------------------

    def _starts(self, kind: str) -> dict[str, Array]:
        factors, weights = self._factors(), self.case.weights
        if kind == "grad":
            scale = {task: self.variant.weight(task, weights[task]) * factors[task]
                     for task in self.table.tasks}
        else:
            scale = dict.fromkeys(self.table.tasks, 0.0)
            scale[kind[len("grad["):-1]] = factors[kind[len("grad["):-1]]
        starts = self._from_losses(scale | dict.fromkeys(self.variant.detached, 0.0))
        first, second = (f"tower/{task}" for task in self.variant.product or ("", ""))
        if second in starts:
            before, starts[second] = product_backward(starts[second],
                                                      self._find("product", self._product)[1])
            add_up(starts, [(first, before)])
        return starts

    def _from_losses(self, scale: Mapping[str, float]) -> dict[str, Array]:
        """The gradients of what the losses look at, each times its scale."""
        if not self.variant.leaking:
            return loss_starts(self._find("losses", self._own), scale)
        rows = {task: 1 if mask is None else len(mask) / max(int(np.count_nonzero(mask)), 1)
                for task, mask in self.case.masks.items()}
        return loss_starts(self._find("losses leaking", self._leaking),
                           {task: scale[task] * rows[task] for task in scale})

    def _leaking(self) -> dict[str, tuple[Array, Cache]]:
        targets, masks = self.variant.filled(self.case.targets, self.case.masks)
        return self._losses(targets, masks)

    def _gradient(self, kind: str, name: str) -> Array:
        """The sum of what the losses, the rows that read `name` and the penalties add to it."""
        parts = [self._find(f"{kind} starts", partial(self._starts, kind)).get(name)]
        read = [self.contributions(kind, row).get(name) for row in self.readers(name)]
        if self.variant.assigned and any(part is not None for part in read):
            if self.variant.assigned == "something":
                read = [part for part in read if part is not None]
            parts, read = [], read[:1]
        parts += read
        if kind == "grad":
            parts.append(self._find("penalties", self._penalties).get(name))
        found = [part for part in parts if part is not None]
        if found:
            total = sum(found[1:], found[0])
            inner = name in self.case.params and not name.startswith("embedding/")
            return total / self._rows() if inner and self.variant.averaged else total
        value = self.case.params[name] if name in self.case.params else self[name]
        return np.zeros_like(value)

    def _penalties(self) -> dict[str, Array]:
        """What the penalties add to the gradients of parameters."""
        parts: dict[str, Array] = {}
        add_up(parts, penalty_backward(penalty_forward(self.table, self.case.params)[1]))
        return parts

    def readers(self, name: str) -> list[str]:
        """The rows that may add to the gradient of a tensor or a parameter.

        Parameters
        ----------
        name : str
        """
        if name.startswith("embedding/") and name in self.case.params:
            return ["input"]
        return self._reading.get(name, [])

    @cached_property
    def _reading(self) -> dict[str, list[str]]:
        """Tensor or parameter -> the rows that may add to its gradient."""
        found: dict[str, list[str]] = {f"embedding/{column}": ["input"]
                                       for column in self.table.embeddings}
        params = [name for name in self.case.params if name not in found]
        for row in self.table.rows:
            own = row.shapes(self.table) if type(row) in PAPER else params
            for name in dict.fromkeys((*row.inputs(), *own)):
                found.setdefault(name, []).append(row.name)
        return found

    def _contributions(self, kind: str, row: str) -> dict[str, Array]:
        dy, cache = self[f"{kind}/{row}"], self._run(row)[1]
        parts: dict[str, Array] = {}
        if not dy.any():
            return parts
        if row != "input":
            add_up(parts, self.table.row[row].backward(dy, cache, frozenset()))
            return parts
        tables = dict(self.variant.tables)
        for name, part in input_backward(dy, cache):
            kind, _, column = name.partition("/")
            if kind == "embedding" and self.variant.padding:
                part[..., 0, :] = 0
            add_up(parts, [(f"{kind}/{tables.get(column, column)}", part)])
        return parts

    # Adam -------------------------------------------------------------------------------------

    def _adam(self, step: int, name: str) -> Array:
        """A parameter after a step."""
        return self._step(step, name)[0][name]

    def _step(self, step: int, name: str) -> tuple[dict[str, Array], Any]:
        """Parameters and state after a step, of one parameter at least."""
        group = self._group(step, name)
        return self._find(f"step {step} of {', '.join(group)}", partial(self._steps, step, group))

    def _group(self, step: int, name: str) -> tuple[str, ...]:
        """The parameters that are stepped together with one.

        All, where a clip ties them together, and between the steps that a candidate may give.
        """
        alone = self.given and step in STEPS and self.variant.adam.clip is None
        return (name,) if alone else self._all

    @cached_property
    def _all(self) -> tuple[str, ...]:
        return tuple(self.case.params)

    def _steps(self, step: int, group: tuple[str, ...]) -> tuple[dict[str, Array], Any]:
        """Parameters and state after a step, from the candidate's own before it."""
        before = {name: self._before(step, name) for name in group}
        if step == 1:
            grads = {name: self[f"grad/{name}"] for name in group}
            return self._stepped(before, grads, self.variant.adam.init(before))
        later = self._find(f"step {step} anew", partial(self._later, step))
        grads = {name: later[f"grad/{name}"] for name in group}
        groups = dict.fromkeys(self._group(step - 1, name) for name in group)
        states = [self._step(step - 1, names[0])[1] for names in groups]
        return self._stepped(before, grads, {
            key: kept for state in states for key, kept in state.items()
            if key.partition("/")[2] in before})

    def _before(self, step: int, name: str) -> Array:
        """A parameter before a step."""
        if step == 1:
            return self.case.params[name]
        return self[f"adam{step - 1}/{name}"]

    def _later(self, step: int) -> Flow:
        """The model with the parameters before a step after the first."""
        params = {name: self._before(step, name) for name in self.case.params}
        variances = tuple((task, float(s.real[0])) for task, s in self._variances(step)[0].items())
        variant = replace(self.variant, variances=variances)
        after = Flow(variant, replace(self.case, params=params), {})
        after._reading = self._reading
        return after

    def _variances(self, step: int) -> tuple[dict[str, Array], Any]:
        """What uncertainty weights are before a step, and Adam's state: they learn, too."""
        adam = self.variant.adam
        if step == 1 or not self.variant.variances:
            start = {task: np.array([s]) for task, s in self.variant.variances}
            return start, adam.init(start)
        before, state = self._variances(step - 1)
        flow = self if step == 2 else self._find(f"step {step - 1} anew",
                                                 partial(self._later, step - 1))
        grads = {task: 1 - np.exp(-s) * np.asarray(flow[f"loss[{task}]"]).mean()
                 for task, s in before.items()}
        return adam.step(before, grads, state)

    def _handed_over(self, step: int, name: str) -> Array:
        """A parameter after a step along the gradients that were handed over."""
        return self._find(f"handed step {step}", partial(self._along, step))[0][name]

    def _along(self, step: int) -> tuple[dict[str, Array], Any]:
        """Parameters and state after a step, from the candidate's own parameters before it."""
        adam, before, state = self.variant.adam, self.case.params, None
        if step > 1:
            before = {name: self[f"handed{step - 1}/{name}"] for name in self.case.params}
            _, state = self._find(f"handed step {step - 1}", partial(self._along, step - 1))
        grads = {name: self.case.gradients[f"{step}/{name}"] for name in before}
        return self._stepped(before, grads, adam.init(before) if state is None else state)

    def _stepped(self, before: Arrays, grads: Arrays, state: Any) -> tuple[dict[str, Array], Any]:
        """Adam's step; the norm to clip by is that of each copy, where parameters are copies."""
        adam = self.variant.adam
        if adam.clip is None:
            return adam.step(before, grads, state)
        own = {name: len(self.table.shapes[name]) for name in before}  # axes of one copy
        squares = sum((g * g).sum(axis=tuple(range(-own[name], 0))) for name, g in grads.items())
        norms = np.sqrt(squares) + self.variant.slack  # (...)
        scale = adam.clip / np.maximum(adam.clip, norms)
        grads = {name: g * scale.reshape(*scale.shape, *(1,) * own[name])
                 for name, g in grads.items()}
        return replace(adam, clip=None).step(before, grads, state)


def compute(variant: Variant, case: Case, wanted: Collection[str] | None = None
            ) -> Iterator[tuple[str, Array]]:
    """Yields (name, array) for every tensor of docs/vectors.md, in the order of computation.

    Parameters
    ----------
    variant : Variant
    case : npple.verify.cases.Case
        From `npple.oracle.variant.cast`; parameters and features may have leading axes, copies
        computed together.
    wanted : collection of str, optional
        Names to stop at: passes that none of them needs are left out. All by default.
    """
    def needs(prefix: str) -> bool:
        prefixes = ("loss", "grad", "adam") if prefix == "loss" else (prefix,)
        return wanted is None or any(name.startswith(prefixes) for name in wanted)

    flow, table, tasks = Flow(variant, case, {}), variant.table, list(variant.table.tasks)
    for row in ("input", *(row.name for row in table.rows)):
        yield from ((name, flow.local(name)) for name in flow.made(row))
    kinds = ["grad", *(f"grad[{task}]" for task in tasks)]
    params = [f"adam{step}/{name}" for step in STEPS for name in case.params]
    handed = [f"handed{step}/{name}" for step in HANDED if case.gradients for name in case.params]
    for prefix, names in (("", [f"prediction/{task}" for task in tasks]),
                          ("loss", [*(f"loss[{task}]" for task in tasks), "loss"]),
                          *((f"{kind}/", [f"{kind}/{name}" for name in backwards(table)])
                            for kind in kinds), ("adam", params), ("handed", handed)):
        if not prefix or needs(prefix):
            yield from ((name, flow.local(name)) for name in names)


def backwards(table: Table) -> list[str]:
    """What has a gradient, tensors and parameters, last row first."""
    names = [name for row in reversed(table.rows)
             for name in (row.name, *reversed(row.shapes(table)))]
    names += ["input", *(f"embedding/{column}" for column in table.embeddings)]
    return list(dict.fromkeys(names))


def owner(table: Table, name: str) -> str:
    """The row that makes a tensor; "input" for what stands before all rows.

    Raises
    ------
    KeyError
        If no row does.
    """
    if name == "input":
        return name
    row = name
    while row and row not in table.row:
        row = row.rpartition("/")[0]
    if not row:
        raise KeyError(name)
    return row


# Rows step by step, each step from the candidate's own result of the one before -----------------

def _layers(flow: Flow, row: Row, shown: str, last: str, activations: Sequence[str], x: Array
            ) -> tuple[dict[str, Array], Cache]:
    """As `npple.core.rows.mlp_forward`; the output of the last layer is called `last`."""
    made, caches = {}, []
    for i, activation in enumerate(activations, start=1):
        layer = f"{row.parameters}/layer{i}"
        params = flow.case.params
        z, dense = dense_forward(x, params[f"{layer}/weight"], params.get(f"{layer}/bias"))
        y, active = ACTIVATIONS[activation][0](z)
        name = last if i == len(activations) else f"{shown}/layer{i}"
        made[name] = y
        caches.append((layer, activation, dense, active))
        x = flow.given[name] if name in flow.given and i < len(activations) else y
    return made, caches


def _experts(row: Any, flow: Flow) -> tuple[dict[str, Array], Cache]:
    return _layers(flow, row, row.name, row.name, row.activations,
                   flow[row.reads][..., None, :, :])


def _tower(row: Any, flow: Flow) -> tuple[dict[str, Array], Cache]:
    made, cache = _layers(flow, row, row.name, row.name, (*row.activations, "identity"),
                          flow[row.reads])
    y = made[row.name]
    return made | {row.name: y if y.shape[-1] > 1 else y[..., 0]}, cache


def _gate(row: Any, flow: Flow) -> tuple[dict[str, Array], Cache]:
    logits, weights = f"{row.parameters}/logits", f"{row.parameters}/weights"
    made, mlp = _layers(flow, row, row.parameters, logits, (*row.activations, "identity"),
                        flow[row.selector])
    made[weights], _ = softmax_forward(_fitting(flow.given.get(logits), made[logits]))
    own = _fitting(flow.given.get(weights), made[weights])
    parts, counts = row.take(flow)
    made[row.name], mixture = mixture_forward(own, parts)
    return made, (mlp, own, mixture, counts)  # a softmax keeps its result for its backward


def _fitting(given: Array | None, made: Array) -> Array:
    """What was given, if it has the shape of what is made here."""
    return made if given is None or given.shape[-1] != made.shape[-1] else given


STEPPED: dict[type[Row], Callable[[Any, Flow], tuple[dict[str, Array], Cache]]] = {
    Experts: _experts, Gate: _gate, Textbook: _gate, Tower: _tower}
