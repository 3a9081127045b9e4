"""The four ways in which isolation is measured, each an argument of its own.

Each takes a model, its parameter groups (group -> names), parameters and data, and yields its
verdict on every cell of the matrix, once or more: (task, group, "isolated" or "reached", the first
entry as evidence).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from npple.core.base import Array, Arrays, Columns, Mask, Masks, Values
from npple.core.losses import kind_of
from npple.kinds import about
from npple.network import Network
from npple.optimizers import SGD, Adam

ISOLATED, REACHED = "isolated", "reached"
Cell: TypeAlias = tuple[str, str, str, str]  # task, group, what was found, the evidence
Groups: TypeAlias = Mapping[str, Iterable[str]]


def analytic(model: Network, groups: Groups, params: Arrays, x: Array | Columns,
             targets: Columns, masks: Masks | None) -> Iterator[Cell]:
    """The gradient of each task's loss alone."""
    for task in model.tasks:
        grads = _own_gradients(model, task, params, x, targets, masks)
        yield from nonzero(task, groups, grads)


def parameters(model: Network, groups: Groups, params: Arrays, x: Array | Columns
               ) -> Iterator[Cell]:
    """The outputs of all tasks, before and after one group's parameters are replaced."""
    rng = np.random.default_rng(0)
    replacements: dict[str, Callable[[Array], Array]] = {
        "other values": lambda p: p + rng.normal(size=p.shape).astype(p.dtype),
        "NaN": lambda p: np.full_like(p, np.nan)}
    before = model.forward(params, x)
    for group, names in groups.items():
        for what, values in replacements.items():
            changed = {**params, **{name: values(params[name]) for name in names}}
            after = model.forward(changed, x)
            for task in model.tasks:
                yield _changed(task, group, before, after, (f"tower/{task}",), f"{what} in {group}")


def labels(model: Network, groups: Groups, params: Arrays, x: Array | Columns,
           targets: Columns, masks: Masks | None) -> Iterator[Cell]:
    """The gradients of the joint loss, before and after one task's targets are replaced."""
    _, before = model.loss_and_grads(params, x, targets, masks)
    for task, kind in model.tasks.items():
        others = {task: _other_targets(kind, np.asarray(targets[task]), (masks or {}).get(task))}
        _, after = model.loss_and_grads(params, x, {**targets, **others}, masks)
        for group, names in groups.items():
            yield _changed(task, group, before, after, names, f"other targets of {task}")


def training(model: Network, groups: Groups, params: Arrays, x: Array | Columns,
             targets: Columns, masks: Masks | None, steps: int) -> Iterator[Cell]:
    """The parameters, before and after steps on one task's loss alone."""
    for optimizer in (SGD(), Adam()):
        for task in model.tasks:
            after, state = params, optimizer.init(params)
            for _ in range(steps):
                grads = _own_gradients(model, task, after, x, targets, masks)
                after, state = optimizer.step(after, grads, state)
            cause = f"{steps} steps of {type(optimizer).__name__} on {task} alone"
            for group, names in groups.items():
                yield _changed(task, group, params, after, names, cause)


def _own_gradients(model: Network, task: str, params: Arrays, x: Array | Columns, targets: Columns,
                   masks: Masks | None) -> dict[str, Array]:
    """The gradient of one task's loss alone, without penalties, which are no task's."""
    alone = {other: float(other == task) for other in model.tasks}
    return model.loss_and_grads(params, x, targets, masks, alone, penalties=False)[1]


def _other_targets(kind: str, y: Values, mask: Mask | None) -> Values:
    """Targets that differ from `y` on the task's rows, for all rows."""
    return about(kind).other(kind_of(kind), y, y if mask is None else y[mask])


def nonzero(task: str, groups: Groups, grads: Mapping[str, Array | None]
            ) -> Iterator[Cell]:
    """Each group's verdict by a task's own gradient: is any entry not exactly 0?"""
    for group, names in groups.items():
        given = {name: grads[name] for name in names}
        arrays = {name: np.zeros(()) if g is None else np.asarray(g) for name, g in given.items()}
        yield _verdict(task, group, {name: array != 0 for name, array in arrays.items()},
                       f"gradient of the {task} loss", partial(_entry, arrays))


def _entry(arrays: Arrays, name: str, at: tuple[int, ...]) -> str:
    return f"is {arrays[name][at]}"


def _changed(task: str, group: str, before: Arrays, after: Arrays, names: Iterable[str], cause: str
             ) -> Cell:
    """A group's verdict by arrays from before and after: do the bits of any entry differ?"""
    return _verdict(task, group, {name: ~same_bits(before[name], after[name]) for name in names},
                    cause, lambda name, at: f"was {before[name][at]}, is {after[name][at]}")


def same_bits(a: Array, b: Array) -> Mask:
    """Where two arrays hold the same number, the same zero or both NaN."""
    return (a == b) & (np.signbit(a.real) == np.signbit(b.real)) | (a != a) & (b != b)


def _verdict(task: str, group: str, moved: Mapping[str, Mask], cause: str,
             values: Callable[[str, tuple[int, ...]], str]) -> Cell:
    """A cell that is reached if any entry moved; the first such entry, or the first, as evidence.

    moved: name -> bool array; values(name, index) says what that entry holds
    """
    name = next((name for name, where in moved.items() if where.any()), None)
    found, rest = (REACHED, "") if name else (ISOLATED, ", the others likewise")
    name = name or next(iter(moved))
    at = tuple(map(int, np.unravel_index(moved[name].argmax(), moved[name].shape)))
    return task, group, found, f"{cause}: {name}{list(at)} {values(name, at)}{rest}"
