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
from npple.oracle.deviant_losses import Clipped, DeviantBinary, DeviantRegression
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
    joint loss is divided by. Of the tasks of `probabilities`, `tower/TASK` is reported as
    `prediction/TASK`.
    `unlabelled` makes negatives of the rows outside a task's sample space, `positive` and
    `smoothing` change binary losses, `square` halves the squared error or its "gradient" alone.
    `assigned` gradients take the place of one another where they should be added up, where there is
    "something" to assign or "nothing", too; `averaged` ones of parameters are divided by the batch.
    `tables` says whose embedding a column uses; with `padding`, code 0 has none that learns but
    "zeros", or what is "kept". A row's loss is at most `limit`; `leaking` gradients of losses
    count rows outside a sample space with a target of 0; `variances` are the logarithms s by task
    by which a joint loss sums exp(-s) L + s. Of the two tasks of a `product` the second has the
    product of both probabilities (ESMM). `slack` is added to the norm that gradients are
    clipped by. Losses of `detached` tasks have no gradient.
    """

    table: Table
    adam: Adam
    divisor: str = "rows"
    weight_power: int = 1
    shrink: float = 1
    probabilities: tuple[str, ...] = ()
    unlabelled: bool = False
    positive: float = 1.0
    smoothing: float = 0.0
    square: str = "whole"
    assigned: str = ""
    averaged: bool = False
    tables: tuple[tuple[str, str], ...] = ()
    padding: str = ""
    shares: tuple[tuple[str, float], ...] = ()
    limit: float = np.inf
    leaking: bool = False
    variances: tuple[tuple[str, float], ...] = ()
    product: tuple[str, ...] = ()
    slack: float = 0.0
    detached: tuple[str, ...] = ()

    def weight(self, task: str, weight: float) -> float:
        """What a task's loss counts in the joint loss."""
        return float(weight ** self.weight_power / self.shrink
                     * np.exp(-dict(self.variances).get(task, 0.0)))

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
        kind = self._kind(task)
        return Clipped(kind, self.limit) if self.limit < np.inf else kind

    def _kind(self, task: str) -> Kind:
        text = self.table.tasks[task]
        if text == "binary" and (self.positive, self.smoothing) != (1.0, 0.0):
            return DeviantBinary(self.positive, self.smoothing)
        if text == "regression" and self.square != "whole":
            return DeviantRegression(self.square)
        return kind_of(text)

    def sample(self, targets: Targets, masks: Masks) -> tuple[Targets, Masks]:
        """The targets and masks that the losses see."""
        return self.filled(targets, masks) if self.unlabelled else (targets, masks)

    def filled(self, targets: Targets, masks: Masks) -> tuple[Targets, Masks]:
        """Targets of 0 for the rows outside a sample space, which count."""
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
