"""The kinds of tasks: how each loss looks at a row, its mean over a task's own sample space.

A kind is a class of its own. z is the tower's raw output: a logit for "binary", one logit a class
for "multiclass:K", the value itself for "regression". A row's loss l is a forward/backward pair
over (z, target y).
"""

from abc import ABC, abstractmethod

import numpy as np

from npple.core.base import Array, Cache, Mask, Values
from npple.core.ops import sigmoid_forward, softmax_forward, softplus_forward


class Kind(ABC):
    """What a kind of task has: its loss, the meaning of an output, and the number of outputs."""

    widths = range(1, 2)  # that there can be

    def __init__(self, width: int = 1) -> None:
        self.width = width

    @abstractmethod
    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        """z (..., batch), or (..., batch, width) if wider, y (batch,) -> l (..., batch)."""

    @abstractmethod
    def backward(self, cache: Cache) -> Array:
        """dl/dz, in the shape of z."""

    @abstractmethod
    def predict(self, z: Array) -> Array:
        """What an output says: a probability or a value, in the shape of z."""


class Binary(Kind):
    """Does it happen? y is 0 or 1."""

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        """l = -y log sigmoid(z) - (1-y) log(1 - sigmoid(z)) = softplus(s z), s = 1 - 2y.

        Stable for any finite z.
        """
        s = 1 - 2 * y
        return softplus_forward(s * z)[0], (s, z)

    def backward(self, cache: Cache) -> Array:
        """dl/dz = sigmoid(z) - y = s sigmoid(s z), without the cancellation of the first form."""
        s, z = cache
        return s * sigmoid_forward(s * z)[0]

    def predict(self, z: Array) -> Array:
        """sigmoid(z)."""
        return sigmoid_forward(z)[0]


class Regression(Kind):
    """How much? y is a real number."""

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        """l = (z - y)²."""
        return (z - y) ** 2, z - y

    def backward(self, cache: Cache) -> Array:
        """dl/dz = 2 (z - y)."""
        return 2 * cache

    def predict(self, z: Array) -> Array:
        """z."""
        return z


class Multiclass(Kind):
    """Which of K? y is an integer from 0 to K - 1."""

    widths = range(2, 1_000_001)

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        """l = log sum_j exp(z_j - z_y) = s + log(exp(-s) + sum_{j != y} exp(z_j - z_y - s)).

        s is the largest z_j - z_y, so l is exact where it is near 0.
        """
        chosen = np.arange(len(y)), y
        d = z - z[..., *chosen][..., None]
        shift = d.real.max(axis=-1, keepdims=True)  # 0 where y is the largest: l = log1p(rest)
        e = np.exp(d - shift)
        e[..., *chosen] = np.expm1(-shift[..., 0])
        rest = e.sum(axis=-1)
        return shift[..., 0] + 2 * np.arctanh(rest / (2 + rest)), (z, chosen)

    def backward(self, cache: Cache) -> Array:
        """dl/dz_j = softmax(z)_j; for the target's class minus the sum of the others."""
        z, chosen = cache
        dz = self.predict(z)
        dz[..., *chosen] = 0
        dz[..., *chosen] = -dz.sum(axis=-1)
        return dz

    def predict(self, z: Array) -> Array:
        """softmax(z)."""
        return softmax_forward(z)[0]


KINDS: dict[str, type[Kind]] = {
    "binary": Binary, "regression": Regression, "multiclass": Multiclass}


def kind_of(text: str) -> Kind:
    """The kind that a checked text names: "binary", "regression" or "multiclass:K"."""
    name, _, width = text.partition(":")
    return KINDS[name](int(width or 1))


def loss_forward(kind: Kind, z: Array, y: Values, mask: Mask | None = None
                 ) -> tuple[Array, Cache]:
    """L = sum_i delta_i l_i / sum_i delta_i, the mean over the task's rows (PLE, equation 9).

    mask (batch,), the paper's delta: False for rows outside the task's sample space, whose z
    and y count for nothing; None for all rows. A task without any row has the loss 0.
    """
    rows, row_cache = kind.forward(z, y)
    if mask is None:
        return rows.mean(axis=-1), (kind, row_cache, mask, rows.shape[-1])
    count = max(int(np.count_nonzero(mask)), 1)
    loss = np.where(mask, rows, 0).sum(axis=-1) / count
    mask = mask.reshape(mask.shape + (1,) * (z.ndim - rows.ndim))  # (batch,) or (batch, 1)
    return loss, (kind, row_cache, mask, count)


def loss_backward(weight: float, cache: Cache) -> Array:
    """dz = weight delta dl/dz / sum_i delta_i: the gradient of weight · L."""
    kind, row_cache, mask, count = cache
    dz = kind.backward(row_cache)
    if mask is not None:
        dz = np.where(mask, dz, 0)
    return dz * weight / count
