"""How strongly each task moves each parameter group: what shows negative transfer and idle experts.

`isolation` says who can disturb whom; `influence` measures how much, on a batch. Several of them
make an average, for instance over a training run:

    average(influence(model, params, *batch) for params, batch in run)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np

from npple.checks import check_kind, check_weights, shown
from npple.core.base import Array, Arrays, Columns, Float64, Masks, Printed
from npple.core.blocks import blas_with_one_thread
from npple.errors import require
from npple.network import Network
from npple.routing import Experts
from npple.verify.isolation import Isolation, grid
from npple.verify.measure import REACHED


@dataclass(frozen=True, repr=False)
class Influence(Printed):
    """Gradients of each task's own weighted loss, seen group by group; `influence` makes it.

    Attributes
    ----------
    norms : dict of dict of float
        Task -> group -> the Euclidean norm of the task's gradient, 0 where isolated.
    cosines : dict of dict of float
        Group -> pair of tasks that both reach it -> the cosine between their gradients: below 0
        they pull against each other. NaN where one of them is 0.
    expert_norms : dict of dict of ndarray (n,)
        Expert group -> task -> the norm of its gradient on each expert.
    distances : dict of dict of ndarray (n, n)
        Expert group -> "parameters" or "gradients" -> how far each two experts are apart:
        |a - b| / max(|a|, |b|). Gradients are those of all tasks, one after the other.
    """

    norms: dict[str, dict[str, float]]
    cosines: dict[str, dict[tuple[str, str], float]]
    expert_norms: dict[str, dict[str, Float64]]
    distances: dict[str, dict[str, Float64]]

    def shares(self, group: str) -> dict[str, Float64]:
        """Which part of each expert's gradient comes from which task.

        Parameters
        ----------
        group : str
            An expert group.

        Returns
        -------
        dict of ndarray (n,)
            Task -> its norm on each expert, divided by the sum of all tasks'; NaN for an expert
            that no task moves.
        """
        norms = self.expert_norms[group]
        total = sum(norms.values())
        return {task: _ratio(norm, total) for task, norm in norms.items()}

    def copies(self, threshold: float = 1e-3) -> list[tuple[str, int, int]]:
        """Experts of one group that are copies of each other, and stay so in training.

        Both their parameters and their gradients are within `threshold` of each other, as
        `distances` measures it: as after symmetric initial values.

        Parameters
        ----------
        threshold : float
            The largest distance of copies; 0 for equal ones alone.

        Returns
        -------
        list of (str, int, int)
            Group and two experts of it.
        """
        return [(group, int(i), int(j)) for group, apart in self.distances.items()
                for i, j in np.argwhere(np.triu(
                    (apart["parameters"] <= threshold) & (apart["gradients"] <= threshold), k=1))]

    def __str__(self) -> str:
        tasks = list(self.norms)
        pairs = list(combinations(tasks, 2))

        def cosine(pair: tuple[str, str], group: str) -> str:
            return f"{self.cosines[group][pair]:.2f}" if pair in self.cosines[group] else ""

        experts = [(group, i) for group, norms in self.expert_norms.items()
                   for i in range(len(norms[tasks[0]]))]
        copies = [f"{group} {i} and {j}" for group, i, j in self.copies()]
        return "\n\n".join([
            grid("norm of the gradient", tasks, self.norms[tasks[0]],
                 lambda task, group: f"{self.norms[task][group]:.3g}"),
            grid("cosine of two tasks' gradients", pairs, self.cosines, cosine),
            grid("share of each expert's gradient", tasks, experts,
                 lambda task, expert: f"{self.shares(expert[0])[task][expert[1]]:.0%}"),
            f"experts that are copies of each other: {', '.join(copies) or 'none'}"])


@blas_with_one_thread()
def influence(model: Network, params: Arrays, x: Array | Columns, targets: Columns,
              masks: Masks | None = None, weights: Mapping[str, float] | None = None) -> Influence:
    """How strongly each task moves each parameter group on a batch.

    Parameters
    ----------
    model : npple.network.Network
    params : dict of ndarray
        As from `model.init`.
    x : ndarray (batch, width), or dict of ndarray (batch,)
        Features in the precision of the parameters, categorical columns as integer codes.
    targets : dict of ndarray (batch,)
        By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
    masks : dict of bool ndarray (batch,), optional
        By task: False for rows outside its sample space. Tasks not named have all rows.
    weights : dict of float, optional
        The weight of each task's loss; 1 by default.

    Returns
    -------
    Influence
        Prints as tables.

    Raises
    ------
    InputError
        For arguments the model does not take.
    """
    check_kind("model", model, Network, "a Network")
    weights = check_weights(model.table, weights)
    alone = {task: {other: weights[other] * (other == task) for other in weights}
             for task in weights}
    grads = {task: model.loss_and_grads(params, x, targets, masks, own, penalties=False)[1]
             for task, own in alone.items()}
    isolation = Isolation(model)
    vectors = {group: {task: np.concatenate([grads[task][name].ravel() for name in names])
                       for task in weights} for group, names in isolation.groups.items()}
    owners = {row.parameters for row in model.table.rows if isinstance(row, Experts)}
    experts = {group: names for group, names in isolation.groups.items() if group in owners}
    rows = {group: {task: _by_expert(grads[task], names) for task in weights}
            for group, names in experts.items()}
    return Influence(
        norms={task: {group: float(np.linalg.norm(by_task[task]))
                      for group, by_task in vectors.items()} for task in weights},
        cosines={group: {pair: _cosine(*(vectors[group][task] for task in pair)) for pair in pairs}
                 for group, pairs in _shared(isolation).items()},
        expert_norms={group: {task: np.linalg.norm(g, axis=1) for task, g in by_task.items()}
                      for group, by_task in rows.items()},
        distances={group: {"parameters": _apart(_by_expert(params, names)),
                           "gradients": _apart(np.concatenate(list(rows[group].values()), axis=1))}
                   for group, names in experts.items()})


def average(influences: Sequence[Influence]) -> Influence:
    """The mean over several batches, or over the steps of a training run.

    Norms, cosines and distances are averaged, a NaN counting for nothing; shares follow from the
    averaged norms.

    Parameters
    ----------
    influences : iterable of Influence
        Of one model.

    Returns
    -------
    Influence

    Raises
    ------
    InputError
        For none at all.
    """
    require(isinstance(influences, Iterable) and not isinstance(influences, np.ndarray),
            f"influences: several are needed, got {shown(influences)}")
    influences = list(influences)
    require(influences, "influences: at least one is needed, got none")
    for each in influences:
        check_kind("influences", each, Influence, "an Influence")
        require(_layout(vars(each)) == _layout(vars(influences[0])),
                "influences: all must be of one model")
    return Influence(*(_mean([getattr(each, field.name) for each in influences])
                       for field in fields(Influence)))


def _shared(isolation: Isolation) -> dict[str, list[tuple[str, str]]]:
    """Group -> the pairs of tasks that both reach it, for the groups with such a pair."""
    reaching = {group: [task for task, row in isolation.matrix.items() if row[group] == REACHED]
                for group in isolation.groups}
    return {group: list(combinations(tasks, 2)) for group, tasks in reaching.items()
            if len(tasks) > 1}


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers or arrays, leaving NaN out; of dictionaries, name by name."""
    if isinstance(values[0], dict):
        return {name: _mean([value[name] for value in values]) for name in values[0]}
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def _layout(value: Any) -> Any:
    """The names in nested dictionaries, and the shapes of the arrays there."""
    if isinstance(value, dict):
        return {name: _layout(each) for name, each in value.items()}
    return np.shape(value)


def _by_expert(arrays: Arrays, names: Iterable[str]) -> Array:
    """The named arrays (n, ...) as one row an expert (n, entries)."""
    return np.concatenate([arrays[name].reshape(len(arrays[name]), -1) for name in names], axis=1)


def _apart(rows: Array) -> Float64:
    """|a - b| / max(|a|, |b|) for each two rows (n, entries) -> (n, n); 0 for two rows of zeros."""
    norms = np.linalg.norm(rows, axis=1)
    gaps = np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])
    return np.where(gaps == 0, 0, _ratio(gaps, np.maximum.outer(norms, norms)))


def _cosine(a: Array, b: Array) -> float:
    return float(_ratio(a @ b, np.linalg.norm(a) * np.linalg.norm(b)))


def _ratio(part: Any, whole: Any) -> Any:
    """NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole)
