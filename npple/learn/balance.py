"""Whether one task outweighs the others: in the joint loss, or in the shared experts' gradient."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from npple.core.base import Arrays
from npple.core.blocks import blas_with_one_thread
from npple.learn.dataset import Dataset
from npple.network import Network

EPOCHS = 3  # whose mean share of the gradient is more than chance
MOST = 0.9  # of the joint loss, or of the gradient, that one task may hold unnamed
SHARED = re.compile(r"level\d+/shared/experts/")


@blas_with_one_thread()
def gradient_shares(model: Network, params: Arrays, rows: Dataset, weights: Mapping[str, float]
                    ) -> dict[str, float]:
    """Each task's share of the shared experts' gradient, by norm, on a batch.

    Parameters
    ----------
    model : Network
    params : dict of ndarray
    rows : Dataset
    weights : dict of float
        Of the tasks' losses.

    Returns
    -------
    dict task -> float
        Empty for a model without shared experts, or without a gradient there.
    """
    names = [name for name in model.shapes if SHARED.match(name)]
    if not names or len(model.tasks) == 1:
        return {}
    norms = {}
    for task in model.tasks:
        alone = dict.fromkeys(model.tasks, 0.0) | {task: weights[task]}
        grads = model.loss_and_grads(params, rows.x, rows.targets, rows.masks, alone,
                                     penalties=False)[1]
        norms[task] = math.hypot(*(float(np.linalg.norm(grads[name])) for name in names))
    return _shares(norms)


def outweighing(history: Sequence[Mapping[str, Any]], raw: Collection[str] = ()
                ) -> dict[str, str]:
    """The tasks that outweigh the others in all epochs so far, if none of them named it before.

    A share of the loss counts from the first epoch on; one of the gradient, which is measured on a
    batch, from the third on.

    Parameters
    ----------
    history : sequence of dict
        The entries of a run, with `parts` and `gradient`; the last may name tasks.
    raw : collection of str, optional
        The tasks of regression whose targets are not standardised.

    Returns
    -------
    dict task -> str
        What it holds, and what to do.
    """
    named = {task for entry in history for task in entry.get("outweighs", {})}
    shares = {"joint loss": _shares(_sums(history, "parts"))}
    if len(history) >= EPOCHS:
        shares["shared experts' gradient"] = _shares(_sums(history, "gradient"))
    found: dict[str, str] = {}
    for what, held in shares.items():
        for task, share in held.items():
            if share > MOST and len(held) > 1 and task not in {*named, *found}:
                found[task] = (f"task {task!r} holds {share:.1%} of the {what}, so the others "
                               f"may hardly count: {_advice(share, task in raw)}")
    return found


def warnings_text(entry: Mapping[str, Any]) -> list[str]:
    """What an epoch's entry of the history has to warn of, a line each.

    Parameters
    ----------
    entry : dict

    Returns
    -------
    list of str
        The tasks that outweigh the others; in the first epoch, those that have no say in which
        epoch is best, if others have one.
    """
    lines = list(entry.get("outweighs", {}).values())
    constants = entry.get("constants", {})
    if entry["epoch"] == 1 and any(constants.values()):
        lines += [f"task {task!r} has no say in which epoch is best: its validation labels are all "
                  "alike, or none" for task, loss in constants.items() if not loss]
    return lines


def _advice(share: float, raw: bool) -> str:
    """What makes a task with this share weigh as much as all others."""
    factor = f"{(1 - share) / share:.1g} times " if share < 1 else "less of "
    weight = f"give it {factor}the weight (--task-weight)"
    return f"standardise its target (no --raw-targets), or {weight}" if raw else weight


def _sums(history: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """What each task has in all epochs that say so."""
    sums = Counter[str]()
    for entry in history:
        sums.update(entry.get(name, {}))
    return dict(sums)


def _shares(parts: Mapping[str, float]) -> dict[str, float]:
    total = sum(parts.values())
    return {task: part / total for task, part in parts.items()} if total > 0 else {}
