"""What the oracle computes with: the paper's model, or a deviation from it, and a case.

A deviation is another table, other losses, other inputs, or another Adam. `npple.oracle.flow` runs
them all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npple.checks import check_x
from npple.core.base import Masks, Targets
from npple.core.losses import Kind, kind_of
from npple.kinds import check_targets
from npple.optimizers import Adam
from npple.oracle.deviant_losses import DeviantBinary, DeviantRegression
from npple.routing import Table
from npple.verify.cases import Case

STEPS = (1, 2, 12)  # the Adam steps whose parameters are kept
HANDED = (1, 2, 11, 12)  # the same, of steps along gradients that are handed over


@dataclass(frozen=True)
class Variant:
    """A model, and how its losses are averaged, weighted and followed.

    `divisor` is what a task's summed loss is divided by: its "rows" (PLE, section 4.3), the whole
    "batch" times the task's part of the training rows (`shares`, otherwise 1), or "one".
    `weight_power` is how often the task weights are applied, `shrink` what the
    joint loss is divided by. With `probabilities`, `tower/TASK` is reported as `prediction/TASK`.
    `unlabelled` makes negatives of the rows outside a task's sample space, `positive` and
    `smoothing` change binary losses, `square` halves the squared error or its "gradient" alone.
    `assigned` gradients take the place of one another where they should be added up, `averaged`
    ones of parameters are divided by the batch. `tables` says whose embedding a column uses, and
    with `padding` code 0 has none.
    """

    table: Table
    adam: Adam
    divisor: str = "rows"
    weight_power: int = 1
    shrink: float = 1
    probabilities: bool = False
    unlabelled: bool = False
    positive: float = 1.0
    smoothing: float = 0.0
    square: str = "whole"
    assigned: bool = False
    averaged: bool = False
    tables: tuple[tuple[str, str], ...] = ()
    padding: bool = False
    shares: tuple[tuple[str, float], ...] = ()

    def factors(self, masks: Masks, rows: int) -> dict[str, float]:
        """Task -> what its mean loss is multiplied by."""
        counts = {task: rows if mask is None else int(np.count_nonzero(mask))
                  for task, mask in masks.items()}
        if self.divisor == "one":
            return {task: float(count) for task, count in counts.items()}
        if self.divisor == "rows":
            return dict.fromkeys(counts, 1.0)
        shares = dict(self.shares)
        return {task: count / (rows * shares.get(task, 1.0)) for task, count in counts.items()}

    def kind(self, task: str) -> Kind:
        """How the loss of a task looks at a row."""
        text = self.table.tasks[task]
        if text == "binary" and (self.positive, self.smoothing) != (1.0, 0.0):
            return DeviantBinary(self.positive, self.smoothing)
        if text == "regression" and self.square != "whole":
            return DeviantRegression(self.square)
        return kind_of(text)

    def sample(self, targets: Targets, masks: Masks) -> tuple[Targets, Masks]:
        """The targets and masks that the losses see."""
        if not self.unlabelled:
            return targets, masks
        zero = dict(targets)
        for task, mask in masks.items():
            if mask is not None:
                zero[task] = np.where(mask, targets[task], np.zeros_like(targets[task]))
        return zero, dict.fromkeys(masks)


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
                   noise={name: real(u) for name, u in case.noise.items()},
                   gradients={name: real(g) for name, g in case.gradients.items()})


def each_column(x: Any, convert: Callable[[Any], Any]) -> Any:
    """`convert` of a matrix, or of each column."""
    if isinstance(x, dict):
        return {name: convert(column) for name, column in x.items()}
    return convert(x)
