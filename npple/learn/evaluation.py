"""How good a trained model is on labelled rows: metrics, calibration, and ranking within groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npple import metrics
from npple.core.base import Array, Codes, Mask, Values
from npple.kinds import constant_loss, evaluate
from npple.metrics import Bin
from npple.printing import one_line

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on labelled rows, in the units of their columns.

    Parameters
    ----------
    rows : int
    tasks : dict task -> dict
        Over the task's own rows, `rows` of them: the metrics of `npple.kinds.evaluate`; `constant`,
        the loss of the best constant prediction; for binary tasks with groups `gauc` and `groups`,
        how many it is over. None is undefined; a task without a row has no metrics.
    calibration : dict output -> list of Bin
        A task, or `task=class`, as the columns of predictions are named.
    group : str or None
        The column of the groups.
    unknown : list of str
        A line for each column with values that training did not know.
    """

    rows: int
    tasks: dict[str, Metrics]
    calibration: dict[str, list[Bin]]
    group: str | None = None
    unknown: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists, texts and numbers, ready for JSON.

        Returns
        -------
        dict
        """
        bins = {name: [each._asdict() | {"ratio": _over(each)} for each in found]
                for name, found in self.calibration.items()}
        return {"rows": self.rows, "tasks": self.tasks, "calibration": bins, "group": self.group,
                "unknown": self.unknown}

    def __str__(self) -> str:
        width = max(map(len, self.tasks))
        lines = [f"{self.rows:,} rows", *self.unknown]
        lines += [f"{task:{width}}  {metrics_text(found)}" for task, found in self.tasks.items()]
        for name, bins in self.calibration.items():
            lines += ["", f"{one_line(name)}: {_ratio(bins)}"]
            lines += _table(bins) if name in self.tasks else []
        return "\n".join(lines)


def brief(value: float) -> str:
    """A number of a report: four decimals, or five digits from a thousand on."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def metrics_text(found: Mapping[str, float | None]) -> str:
    """Metrics in one line; beside the loss that of the best constant."""
    if not found:
        return "no rows"
    beside = found.get("constant")
    loss = next((name for name in ("logloss", "mse", "loss") if name in found), None)
    parts = []
    for name, value in found.items():
        if name in ("rows", "groups"):
            parts.append(f"{value:,} {name}")
        elif name != "constant":
            text = "undefined" if value is None else brief(value)
            constant = f" (constant {brief(beside)})" if name == loss and beside else ""
            parts.append(f"{name} {text}{constant}")
    return "  ".join(parts)


def entry_texts(entry: Mapping[str, Any]) -> dict[str, str]:
    """Each task's validation metrics in an entry of a run's history, beside the constant's loss."""
    constants = entry.get("constants", {})
    return {task: metrics_text(found | {"constant": constants.get(task)} if found else {})
            for task, found in entry["validation"].items()}


def evaluate_outputs(kinds: Mapping[str, str], targets: Mapping[str, Values],
                     masks: Mapping[str, Mask], outputs: Mapping[str, Array],
                     groups: Codes | None = None) -> dict[str, Metrics]:
    """Each task's metrics over its own rows, and the loss of the best constant beside them.

    Parameters
    ----------
    kinds : dict task -> str
    targets, masks : dict task -> (n,) array
    outputs : dict task -> (n,) or (n, K) array
        Logits, or values of regression.
    groups : (n,) array of int, optional
        Of each row its group; below 0 for none.

    Returns
    -------
    dict task -> dict
        As `Evaluation.tasks`.
    """
    found = {}
    for task, kind in kinds.items():
        own = np.flatnonzero(masks.get(task, np.ones(len(targets[task]), bool)))
        found[task] = _of_task(kind, targets[task][own], outputs[task][own],
                               None if groups is None else groups[own])
    return found


def _of_task(kind: str, targets: Values, outputs: Array, groups: Codes | None) -> Metrics:
    if not len(targets):
        return {}
    found: Metrics = {"rows": len(targets), **evaluate(kind, targets, outputs),
                      "constant": constant_loss(kind, targets)}
    if groups is not None and kind == "binary":
        own = groups >= 0
        found["gauc"] = (metrics.gauc(targets[own], outputs[own], groups[own]) if own.any()
                         else None)
        found["groups"] = _mixed(targets[own], groups[own])
    return {name: None if value is None or np.isnan(value) else value
            for name, value in found.items()}


def _mixed(targets: Values, groups: Codes) -> int:
    """How many groups have both classes."""
    rows, ones = np.bincount(groups), np.bincount(groups, targets)
    return int(((ones > 0) & (ones < rows)).sum())


def output_names(kinds: Mapping[str, str], classes: Mapping[str, Sequence[str]]
                 ) -> dict[str, list[str]]:
    """The names of each task's columns of predictions: the task, or `task=class` for its classes.

    A name that is taken gets more equal signs: the task `a=u` keeps its name, and the class `u` of
    the task `a` is `a==u`.

    Parameters
    ----------
    kinds : dict task -> str
    classes : dict task -> sequence of str

    Returns
    -------
    dict task -> list of str
    """
    taken = {task for task in kinds if task not in classes}
    found = {}
    for task in kinds:
        names, sign = [task], "="
        if task in classes:
            while {*(names := [f"{task}{sign}{label}" for label in classes[task]])} & taken:
                sign += "="
        taken |= {*names}
        found[task] = names
    return found


def calibrations(kinds: Mapping[str, str], classes: Mapping[str, Sequence[str]],
                 targets: Mapping[str, Values], masks: Mapping[str, Mask],
                 predictions: Mapping[str, Array], bins: int) -> dict[str, list[Bin]]:
    """What was predicted over what was observed, for each column of predictions.

    Parameters
    ----------
    kinds, targets, masks
        As for `evaluate_outputs`.
    classes : dict task -> sequence of str
    predictions : dict task -> (n,) or (n, K) array
        Probabilities or values.
    bins : int

    Returns
    -------
    dict output -> list of Bin
    """
    found = {}
    for task, names in output_names(kinds, classes).items():
        own = masks.get(task, slice(None))
        each = predictions[task][own].reshape(-1, len(names))
        target = targets[task][own]
        for place, name in enumerate(names):
            observed = target == place if task in classes else target
            found[name] = (metrics.calibration(observed, each[:, place], bins) if len(target)
                           else [])
    return found


def _ratio(bins: Sequence[Bin]) -> str:
    total = _mean(bins)
    return (f"predicted {brief(total.predicted)}, observed {brief(total.observed)}, ratio "
            f"{_over_text(total)}" if bins else "no rows")


def _table(bins: Sequence[Bin]) -> list[str]:
    return ["      rows   predicted    observed    ratio", *(
        f"{each.rows:>10,} {brief(each.predicted):>11} {brief(each.observed):>11} "
        f"{_over_text(each):>8}" for each in bins)]


def _mean(bins: Sequence[Bin]) -> Bin:
    rows = sum(each.rows for each in bins) or 1
    return Bin(rows, sum(each.rows * each.predicted for each in bins) / rows,
               sum(each.rows * each.observed for each in bins) / rows)


def _over(each: Bin) -> float | None:
    """Predicted over observed; nothing where nothing was observed."""
    return each.predicted / each.observed if each.observed else None


def _over_text(each: Bin) -> str:
    ratio = _over(each)
    return "-" if ratio is None else f"{ratio:.3f}"
