"""What the oracle computes: every tensor of a model on one batch, in the order of computation.

A `Variant` is the paper's model, or a deviation from it: another table, other factors in the
losses, another Adam. One function computes them all.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npple.checks import check_x
from npple.core.base import Array, Arrays, Masks
from npple.core.passes import (Trace, backward, forward, joint_loss, losses, penalty_backward,
                               penalty_forward)
from npple.kinds import check_targets
from npple.optimizers import Adam
from npple.routing import Table
from npple.verify.cases import Case

STEPS = (1, 2, 10)  # the Adam steps whose parameters are kept


@dataclass(frozen=True)
class Variant:
    """A model, and how its losses are averaged, weighted and followed.

    `divisor` is what a task's summed loss is divided by: its "rows" (PLE, section 4.3), the whole
    "batch", or "one". `weight_power` is how often the task weights are applied, `shrink` what the
    joint loss is divided by. With `probabilities`, `tower/TASK` is reported as `prediction/TASK`.
    """

    table: Table
    adam: Adam
    divisor: str = "rows"
    weight_power: int = 1
    shrink: int = 1
    probabilities: bool = False

    def factors(self, masks: Masks, rows: int) -> dict[str, float]:
        """Task -> what its mean loss is multiplied by."""
        counts = {task: rows if mask is None else int(np.count_nonzero(mask))
                  for task, mask in masks.items()}
        return {task: {"rows": 1.0, "batch": count / rows, "one": count}[self.divisor]
                for task, count in counts.items()}


def cast(case: Case, dtype: Any) -> Case:
    """The case in another precision, targets and masks as the losses take them."""
    table, dtype = case.model.table, np.dtype(dtype)

    def real(array: Any) -> Any:
        return array.astype(dtype) if array.dtype.kind == "f" else array

    x, rows = check_x(table, each_column(case.x, real), dtype)
    floats = {task: real(y) for task, y in case.targets.items()}
    targets, masks = check_targets(table, floats, case.masks, rows, dtype)
    return replace(case, params={name: real(p) for name, p in case.params.items()}, x=x,
                   targets=targets, masks=masks,
                   noise={name: real(u) for name, u in case.noise.items()})


def compute(variant: Variant, case: Case, wanted: Collection[str] | None = None
            ) -> Iterator[tuple[str, Array]]:
    """Yields (name, array) for every tensor of docs/vectors.md, in the order of computation.

    Parameters
    ----------
    variant : Variant
    case : npple.verify.cases.Case
        From `cast`; parameters and features may have leading axes, copies computed together.
    wanted : collection of str, optional
        Names to stop at: passes that none of them needs are left out. All by default.
    """
    def needs(*prefixes: str) -> bool:
        return wanted is None or any(name.startswith(prefixes) for name in wanted)

    trace = forward(variant.table, case.params, case.x, case.noise)
    predictions = trace.predictions
    shown = {f"tower/{task}": p for task, p in predictions.items() if variant.probabilities}
    yield from ((name, shown.get(name, y)) for name, y in trace.items()
                if not name.endswith("/route/noise"))
    yield from ((f"prediction/{task}", p) for task, p in predictions.items())
    if not needs("loss", "grad", "adam"):
        return
    factors = variant.factors(case.masks, len(next(iter(case.targets.values()))))
    own = losses(trace, case.targets, case.masks)
    yield from ((f"loss[{task}]", factors[task] * value) for task, (value, _) in own.items())
    loss, grads = objective(variant, trace, case, case.params)
    yield "loss", np.asarray(loss)
    yield from ((f"grad/{name}", g) for name, g in grads.items())
    for task in own:
        if needs(f"grad[{task}]/"):
            alone = dict.fromkeys(own, 0.0) | {task: factors[task]}
            starts = joint_loss(trace, case.targets, case.masks, alone)[1]
            yield from ((f"grad[{task}]/{name}", g)
                        for name, g in _gradients(trace, case.params, starts).items())
    if needs("adam"):
        yield from _adam_steps(variant, case, grads)


def objective(variant: Variant, trace: Trace, case: Case, params: Arrays
              ) -> tuple[Array | float, dict[str, Array]]:
    """The joint loss with the table's penalties, and its gradients by name."""
    factors = variant.factors(case.masks, len(next(iter(case.targets.values()))))
    weights = {task: case.weights[task] ** variant.weight_power * factors[task] / variant.shrink
               for task in trace.table.tasks}
    loss, starts = joint_loss(trace, case.targets, case.masks, weights)
    penalty, caches = penalty_forward(trace.table, params)
    grads = _gradients(trace, params, starts)
    for name, grad in penalty_backward(caches):
        grads[name] = grads[name] + grad
    return loss + penalty, grads


def _gradients(trace: Trace, params: Arrays, starts: Arrays) -> dict[str, Array]:
    """dL/d(tensor) and dL/d(parameter) by name, last row first; zeros where no loss reaches."""
    table, found = trace.table, backward(trace, starts)
    names = [name for row in reversed(table.rows)
             for name in (row.name, *reversed(row.shapes(table)))]
    names += ["input", *(f"embedding/{column}" for column in table.embeddings)]
    return {name: found[name] if name in found
            else np.zeros_like(params[name] if name in params else trace[name])
            for name in dict.fromkeys(names)}


def _adam_steps(variant: Variant, case: Case, grads: dict[str, Array]
                ) -> Iterator[tuple[str, Array]]:
    """Yields the parameters after 1, 2 and 10 steps on the same batch."""
    params, state = case.params, variant.adam.init(case.params)
    for step in range(1, max(STEPS) + 1):
        if step > 1:
            trace = forward(variant.table, params, case.x, case.noise)
            _, grads = objective(variant, trace, case, params)
        params, state = variant.adam.step(params, grads, state)
        if step in STEPS:
            yield from ((f"adam{step}/{name}", p) for name, p in params.items())


def each_column(x: Any, convert: Callable[[Any], Any]) -> Any:
    """`convert` of a matrix, or of each column."""
    if isinstance(x, dict):
        return {name: convert(column) for name, column in x.items()}
    return convert(x)
