"""What is known of a kind of task above the core: its targets, its metrics, its words.

A new kind is a class in `npple.core.losses.KINDS` and an entry in `ABOUT` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npple import metrics
from npple.checks import check_array, check_columns, check_mask
from npple.core.base import Array, Columns, Mask, Masks, Values
from npple.core.losses import Binary, Kind, Multiclass, Regression, kind_of
from npple.core.rows import check_task_kind
from npple.core.table import Table
from npple.errors import InputError, require

Target = Values


@dataclass(frozen=True)
class About:
    """What else there is to know of a kind of task.

    Attributes
    ----------
    check : callable
        (kind, what the target is called, target, real dtype) -> the target in the dtype of the
        loss; `InputError` for values that are no targets.
    draw : callable
        (kind, generator, rows) -> random targets.
    other : callable
        (kind, targets, those of the task's own rows) -> other targets for all rows.
    metrics : callable
        (targets, outputs) -> metric -> value.
    loss : str
        The metric that is the task's loss.
    gain : tuple of str and int
        The metric that gains are about; 1 if higher is better, -1 if lower is.
    words : tuple of str
        The loss and its gradient, t the target, n the number of the task's rows.
    constant : callable or None
        (targets) -> the loss of the best prediction that is the same for all rows.
    """

    check: Callable[[Kind, str, Target, np.dtype[np.floating]], Target]
    draw: Callable[[Kind, np.random.Generator, int], Target]
    other: Callable[[Kind, Target, Target], Target]
    metrics: Callable[[Target, Array], dict[str, float]]
    loss: str
    gain: tuple[str, int]
    words: tuple[str, str]
    constant: Callable[[Target], float] | None = None


def about(kind: str) -> About:
    """What there is to know of the kind that a text names."""
    return ABOUT[type(kind_of(kind))]


def evaluate(kind: str, targets: Target, outputs: Array) -> dict[str, float]:
    """The metrics of one task.

    Parameters
    ----------
    kind : str
        `"binary"`, `"regression"` or `"multiclass:K"` with K classes.
    targets : array_like, shape (n,)
        Zeros and ones, values, or class numbers from 0.
    outputs : array_like, shape (n,), or (n, K) for multiclass
        What the task's tower gives: logits, or values for regression.

    Returns
    -------
    dict[str, float]
        `auc` and `logloss` for binary, `mse` for regression, `logloss` and `accuracy` for
        multiclass.

    Raises
    ------
    InputError
        If the kind is unknown, or shapes or values are not as above.
    """
    check_task_kind("kind", kind)
    known = kind_of(kind)
    shape = check_array("outputs", outputs).shape
    if known.width > 1:
        require(len(shape) == 2 and shape[1] == known.width,
                f"outputs of shape {shape}: expected (n, {known.width}) for {kind}")
    return ABOUT[type(known)].metrics(targets, outputs)


def constant_loss(kind: str, targets: Target) -> float | None:
    """The loss of the best constant prediction; None where it has none, or it is 0.

    Parameters
    ----------
    kind : str
        As for `evaluate`.
    targets : array_like, shape (n,)
        Zeros and ones, values, or class numbers from 0.

    Returns
    -------
    float or None
    """
    best = about(kind).constant
    return best(targets) or None if best is not None and len(targets) else None


def check_targets(table: Table, targets: Columns, masks: Masks | None, rows: int,
                  dtype: np.dtype[np.inexact]) -> tuple[dict[str, Target], dict[str, Mask | None]]:
    """Targets and masks by task, ready for the losses: the mask of a task without one is None."""
    masks = {} if masks is None else masks
    check_columns("targets", targets, table.tasks, all_of_them=True)
    check_columns("masks", masks, table.tasks)
    checked = {task: check_mask(task, masks.get(task), rows) for task in table.tasks}
    real = np.zeros(0, dtype).real.dtype
    return {task: _check_target(task, kind, targets[task], checked[task], rows, real)
            for task, kind in table.tasks.items()}, checked


def _check_target(task: str, kind: str, values: object, mask: Mask | None, rows: int,
                  real: np.dtype[np.floating]) -> Target:
    """The target in the dtype of the loss; rows outside the mask become 0, whatever they held."""
    what = f"targets: {task!r}"
    target = check_array(what, values)
    require(target.shape == (rows,), f"{what}: shape {target.shape}, expected ({rows},)")
    if target.dtype.kind not in "biuf":
        raise InputError(f"{what}: dtype {target.dtype}, expected real numbers")
    if mask is not None:
        target = np.where(mask, target, np.zeros((), target.dtype))
    if not (finite := np.isfinite(target)).all():
        raise InputError(f"{what}: not finite at row {_first(~finite)}")
    known = kind_of(kind)
    return ABOUT[type(known)].check(known, what, target, real)


def _value(kind: Kind, what: str, target: Target, real: np.dtype[np.floating]) -> Target:
    """Real numbers that fit the precision of the loss exactly."""
    with np.errstate(over="ignore"):
        exact = target.astype(real, copy=False)
    limit = 2 ** (np.finfo(real).nmant + 1)  # integers beyond it are rounded, most of them
    fits = (exact == target if target.dtype.kind not in "iu"
            else (target <= limit) & (target >= -limit))
    if not fits.all():
        raise InputError(f"{what}: dtype {target.dtype} does not fit {real} exactly: convert with "
                         ".astype")
    return exact


def _yes_or_no(kind: Kind, what: str, target: Target, real: np.dtype[np.floating]) -> Target:
    return _whole(what, target, 2, "0 or 1").astype(real)


def _class(kind: Kind, what: str, target: Target, real: np.dtype[np.floating]) -> Target:
    return _whole(what, target, kind.width, f"a class from 0 to {kind.width - 1}").astype(np.intp)


def _whole(what: str, target: Target, count: int, expected: str) -> Target:
    """Whole numbers from 0 to below `count`."""
    good = (target >= 0) & (target < count) & (target == np.floor(target))
    if not good.all():
        raise InputError(f"{what}: {target[_first(~good)]} at row {_first(~good)}, expected "
                         f"{expected}")
    return target


def _rarest(classes: int, y: Target, own: Target) -> Target:
    """Targets all of the class that is rarest among the task's own rows."""
    return np.full_like(y, np.bincount(own.astype(int), minlength=classes).argmin())


def _first(wrong: Mask) -> int:
    return int(np.argmax(wrong))


ABOUT = {
    Binary: About(
        _yes_or_no, lambda kind, rng, rows: rng.integers(0, 2, rows),
        lambda kind, y, own: _rarest(2, y, own),
        lambda y, z: {"auc": metrics.auc(y, z), "logloss": metrics.log_loss(y, z)},
        "logloss", ("auc", 1), ("L = mean(softplus(z) − t z)", "dz = (sigmoid(z) − t) / n"),
        metrics.entropy),
    Regression: About(
        _value, lambda kind, rng, rows: rng.normal(size=rows),
        lambda kind, y, own: y + np.ones((), y.dtype),
        lambda y, z: {"mse": metrics.mse(y, z)},
        "mse", ("mse", -1), ("L = mean((z − t)²)", "dz = 2 (z − t) / n"),
        lambda y: float(np.var(y, dtype=np.float64))),
    Multiclass: About(
        _class, lambda kind, rng, rows: rng.integers(0, kind.width, rows),
        lambda kind, y, own: _rarest(kind.width, y, own),
        lambda y, z: {"logloss": metrics.multiclass_log_loss(y, z),
                      "accuracy": metrics.accuracy(y, z)},
        "logloss", ("logloss", -1),
        ("L = mean(log Σ_j exp(z_j) − z_t)", "dz = (softmax(z) − onehot(t)) / n"),
        metrics.entropy),
}
