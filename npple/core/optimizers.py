"""One step of Adam and of gradient descent for one parameter, and the clipping of gradients."""

import numpy as np

from npple.core.base import Array, Arrays


def adam_update(p: Array, g: Array, m: Array, v: Array, t: int, rate: float, beta1: float,
                beta2: float, epsilon: float, decay: float) -> tuple[Array, Array, Array]:
    """Step t, from 1, of Adam (Kingma & Ba, ICLR 2015, Algorithm 1) -> (p, m, v).

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g²
        p = p - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    before which p loses decay · p: rate · weight_decay as PyTorch's AdamW has it; or weight_decay
    alone as AdamW's Algorithm 2 (Loshchilov & Hutter 2019) does.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + ((1 - beta2) * g) * g  # g² alone overflows sooner
    corrected1, corrected2 = 1 - beta1 ** t, 1 - beta2 ** t
    if decay:
        p = p * (1 - decay)
    update = m / (np.sqrt(v) * corrected2 ** -0.5 + epsilon)
    return p - (rate / corrected1) * update, m, v


def sgd_update(p: Array, g: Array, rate: float, weight_decay: float) -> Array:
    """p - rate g, before which p loses rate · weight_decay · p."""
    return p * (1 - rate * weight_decay) - rate * g


def clipped(grads: Arrays, clip: float | None) -> Arrays:
    """The gradients, scaled down together where their global norm is above `clip`."""
    if clip is None:
        return grads
    largest = max((float(np.abs(g).max(initial=0)) for g in grads.values()), default=0.0) or 1.0
    squares = sum(np.square(np.abs(g / largest)).sum() for g in grads.values())
    norm = largest * float(np.sqrt(squares))  # overflows no sooner than the entries do
    scale = clip / max(clip, norm)  # 1 for a norm that is not a number
    return {name: g * scale for name, g in grads.items()}
