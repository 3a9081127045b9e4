"""Losses that are not the paper's: forward/backward pairs over a row, like `npple.core.losses`."""

import numpy as np

from npple.core.base import Array, Cache, Values
from npple.core.losses import Binary, Kind, Regression
from npple.core.ops import sigmoid_forward, softplus_forward


class DeviantBinary(Binary):
    """Cross-entropy in which positives weigh more, or whose targets are drawn to the middle.

    l = p y' softplus(-z) + (1 - y') softplus(z), y' = y (1 - smoothing) + smoothing / 2.
    """

    def __init__(self, positive: float, smoothing: float) -> None:
        super().__init__()
        self.positive, self.smoothing = positive, smoothing

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        y = y * (1 - self.smoothing) + self.smoothing / 2
        loss = self.positive * y * softplus_forward(-z)[0] + (1 - y) * softplus_forward(z)[0]
        return loss, (z, y)

    def backward(self, cache: Cache) -> Array:
        """dl/dz = (1 - y') sigmoid(z) - p y' sigmoid(-z)."""
        z, y = cache
        up: Array = sigmoid_forward(z)[0]
        down: Array = sigmoid_forward(-z)[0]
        return (1 - y) * up - self.positive * y * down


class DeviantRegression(Regression):
    """Half the squared error, or its whole with the gradient of the half."""

    def __init__(self, square: str) -> None:
        super().__init__()
        self.square = square

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        loss, cache = super().forward(z, y)
        return (loss / 2 if self.square == "half" else loss), cache

    def backward(self, cache: Cache) -> Array:
        """dl/dz = z - y."""
        return super().backward(cache) / 2


class Clipped(Kind):
    """Another kind's loss of a row, at most `limit`: beyond it the row has no gradient."""

    def __init__(self, kind: Kind, limit: float) -> None:
        super().__init__(kind.width)
        self.kind, self.limit = kind, limit

    def forward(self, z: Array, y: Values) -> tuple[Array, Cache]:
        loss, cache = self.kind.forward(z, y)
        below = np.asarray(loss).real < self.limit
        return np.where(below, loss, self.limit), (cache, below)

    def backward(self, cache: Cache) -> Array:
        row, below = cache
        dz = self.kind.backward(row)
        return dz * below.reshape(below.shape + (1,) * (dz.ndim - below.ndim))

    def predict(self, z: Array) -> Array:
        return self.kind.predict(z)


def product_forward(z: Array, own: Array) -> tuple[Array, Cache]:
    """The logit of sigmoid(z) sigmoid(own), the probability of two events one after the other."""
    (p, _), (q, _) = sigmoid_forward(z), sigmoid_forward(own)
    no_p, no_q = sigmoid_forward(-z)[0], sigmoid_forward(-own)[0]
    rest = no_p + p * no_q  # 1 - p q, without cancellation
    return np.log(p * q) - np.log(rest), (no_p, no_q, rest)


def product_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """d/dz = (1 - p) / (1 - p q), and the same of q."""
    no_p, no_q, rest = cache
    return dy * no_p / rest, dy * no_q / rest
