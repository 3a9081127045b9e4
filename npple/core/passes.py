"""One forward and one backward over a routing table, the joint loss, and the penalties.

    forward    for each row: read tensors, make one            -> a trace of every tensor by name
    backward   for each row, last to first: turn the gradient of what it made into the gradients
               of what it read                                  -> a gradient by name, for tensors
               and parameters alike

A row whose tensor no loss depends on is never visited, so its gradients are exactly 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

import numpy as np

from npple.core.base import (Array, Arrays, Cache, Codes, Features, Gradients, Masks, Targets,
                             brief, nearest)
from npple.core.losses import kind_of, loss_backward, loss_forward
from npple.core.ops import embedding_backward, embedding_forward, side_by_side
from npple.core.rows import Row
from npple.core.table import Table

Number = TypeVar("Number", Array, float)


class Trace(Mapping[str, Array]):
    """Every tensor of one forward pass: a read-only dict by name, in the order of computation.

    Attributes
    ----------
    table : npple.routing.Table
        The rows that were run.
    tensors : dict of ndarray
        By name, in the order of computation.
    caches : dict
        Row -> what its backward pass needs.
    """

    def __init__(self, table: Table, tensors: dict[str, Array], caches: dict[str, Cache]) -> None:
        self.table, self.tensors, self.caches = table, tensors, caches

    def __getitem__(self, name: str) -> Array:
        if name not in self.tensors:
            raise KeyError(nearest("tensor", name, self.tensors))
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        return brief("\n".join(f"{name:40} {array.shape}"
                               for name, array in self.tensors.items()))

    @property
    def outputs(self) -> dict[str, Array]:
        """Task -> the tower's output.

        Logits (batch,) for "binary", values (batch,) for "regression", logits (batch, K) for
        "multiclass:K".
        """
        return {task: self.tensors[f"tower/{task}"] for task in self.table.tasks}

    @property
    def predictions(self) -> dict[str, Array]:
        """Task -> the outputs as probabilities (sigmoid, softmax) and values."""
        return {task: kind_of(self.table.tasks[task]).predict(z)
                for task, z in self.outputs.items()}


def input_forward(table: Table, params: Arrays, x: Features) -> tuple[dict[str, Array], Cache]:
    """The representation `input`: x itself, or its numeric columns and embeddings side by side.

    x (batch, width), or columns by name, (batch,) or bags (batch, longest) -> (..., batch, width)
    """
    if isinstance(x, np.ndarray):
        return {"input": x}, None
    made = {name: (cast(Array, x[name])[..., None], None) if isinstance(kind, str) else
            embedding_forward(params[f"embedding/{name}"], cast(Codes, x[name]), *kind[2:])
            for name, kind in table.columns}
    return ({"input": side_by_side([part for part, _ in made.values()])},
            {name: (part.shape[-1], cache) for name, (part, cache) in made.items()})


def input_backward(dy: Array, caches: Cache) -> Gradients:
    """Cuts the gradient of `input` into its columns: (`x/name` or `embedding/name`, gradient)."""
    start = 0
    for name, (width, cache) in (caches or {}).items():
        own = dy[..., start:start + width]
        yield ((f"x/{name}", own[..., 0]) if cache is None else
               (f"embedding/{name}", embedding_backward(own, cache)))
        start += width


def forward(table: Table, params: Arrays, x: Features, noise: Arrays | None = None) -> Trace:
    """Runs the rows of `table` from first to last; nothing is checked. -> Trace

    Parameters may have leading axes that broadcast: copies to be evaluated together.
    """
    tensors, inputs = input_forward(table, params, x)
    tensors |= {f"{name}/route/noise": u for name, u in (noise or {}).items()}
    caches = {"input": inputs}
    for row in table.rows:
        made, caches[row.name] = row.forward(params, tensors)
        tensors |= made
    return Trace(table, tensors, caches)


def backward(trace: Trace, starts: Arrays, unread: frozenset[str] = frozenset()
             ) -> dict[str, Array]:
    """Carries gradients back through the rows, from last to first.

    Parameters
    ----------
    trace : Trace
    starts : dict of ndarray
        dL/d(tensor) by name, for the tensors that L is a direct function of: `tower/task`.
    unread : frozenset of str
        Representations whose gradient nobody wants (`Network.unread`), not computed.

    Returns
    -------
    dict of ndarray
        dL/d(tensor) and dL/d(parameter) by name, for whatever the losses depend on.
    """
    gradients = dict(starts)
    for row in reversed(trace.table.rows):
        if row.name in gradients:
            add_up(gradients, row.backward(gradients[row.name], trace.caches[row.name], unread))
    if "input" in gradients:
        add_up(gradients, input_backward(gradients["input"], trace.caches["input"]))
    return gradients


def add_up(total: dict[str, Number], parts: Iterable[tuple[str, Number]]) -> None:
    """Adds (name, gradient) to what a dictionary has under that name."""
    for name, value in parts:
        total[name] = total[name] + value if name in total else value


def losses(trace: Trace, targets: Targets, masks: Masks) -> dict[str, tuple[Array, Cache]]:
    """Task -> (its loss (...), the cache of its backward)."""
    return {task: loss_forward(kind_of(kind), trace[f"tower/{task}"], targets[task], masks[task])
            for task, kind in trace.table.tasks.items()}


def joint_loss(trace: Trace, targets: Targets, masks: Masks, weights: Mapping[str, float]
               ) -> tuple[Array | float, dict[str, Array]]:
    """L = sum_k w_k L_k (PLE paper, equation 8), and where its gradients start.

    A task with weight 0 is left out altogether, whatever its loss.

    Returns
    -------
    loss : ndarray (...)
    starts : dict of ndarray
        dL/d(`tower/task`) by name.
    """
    found = losses(trace, targets, masks)
    values = {task: value for task, (value, _) in found.items()}
    return weighted(values, weights), loss_starts(found, weights)


def weighted(values: Arrays, weights: Mapping[str, float]) -> Array | float:
    """sum_k w_k L_k over the tasks whose weight is not 0, from each L_k (...)."""
    loss: Array | float = 0.0
    for task, value in values.items():
        if weights[task]:
            loss = loss + weights[task] * value
    return loss


def loss_starts(found: Mapping[str, tuple[Array, Cache]], weights: Mapping[str, float]
                ) -> dict[str, Array]:
    """Where the gradients of what `losses` found start: w_k dL_k/d(`tower/k`) by name."""
    return {f"tower/{task}": loss_backward(weights[task], cache)
            for task, (_, cache) in found.items() if weights[task]}


def penalty_forward(table: Table, params: Arrays
                    ) -> tuple[Array | float, list[tuple[Row, Cache]]]:
    """The sum of the penalties of all rows that have one -> (value (...), cache)."""
    found = [(row, *row.penalty_forward(params)) for row in table.rows if row.penalty]
    return sum((value for _, value, _ in found), 0.0), [(row, cache) for row, _, cache in found]


def penalty_backward(caches: Iterable[tuple[Row, Cache]]) -> Gradients:
    """(parameter name, gradient) of each penalty."""
    for row, cache in caches:
        yield from row.penalty_backward(cache)
