"""The loss of a task, its mean over the task's own sample space, and the joint loss's weights.

A kind's row loss is a pair over (output z, target y). z is the tower's raw output: a logit for
"binary", one logit a class for "multiclass:K", the value itself for "regression".
"""

import numpy as np

from npple.checks import check_count, check_dicts, check_number
from npple.errors import require
from npple.ops import sigmoid_forward, softmax_forward, softplus_forward


def binary_forward(z, y):
    """l = -y log sigmoid(z) - (1-y) log(1 - sigmoid(z)) = softplus(s z), s = 1 - 2y.

    z (..., batch), y (batch,) of 0 and 1 -> l (..., batch), stable for any finite z
    """
    s = 1 - 2 * y
    return softplus_forward(s * z)[0], (s, z)


def binary_backward(cache):
    """dl/dz = sigmoid(z) - y = s sigmoid(s z), without the cancellation of the first form."""
    s, z = cache
    return s * sigmoid_forward(s * z)[0]


def regression_forward(z, y):
    """l = (z - y)².

    z (..., batch), y (batch,) -> l (..., batch)
    """
    return (z - y) ** 2, z - y


def regression_backward(residual):
    """dl/dz = 2 (z - y)."""
    return 2 * residual


def multiclass_forward(z, y):
    """l = log sum_j exp(z_j - z_y) = s + log(exp(-s) + sum_{j != y} exp(z_j - z_y - s)), s the max.

    z (..., batch, K), y (batch,) of integers below K -> l (..., batch), exact where near 0
    """
    chosen = np.arange(len(y)), y
    d = z - z[..., *chosen][..., None]
    shift = d.real.max(axis=-1, keepdims=True)  # 0 where y is the largest, then l = log1p(rest)
    e = np.exp(d - shift)
    e[..., *chosen] = np.expm1(-shift[..., 0])
    rest = e.sum(axis=-1)
    return shift[..., 0] + 2 * np.arctanh(rest / (2 + rest)), (z, chosen)


def multiclass_backward(cache):
    """dl/dz_j = softmax(z)_j; for the target's class minus the sum of the others, not w_y - 1."""
    z, chosen = cache
    dz = softmax_forward(z)[0]
    dz[..., *chosen] = 0
    dz[..., *chosen] = -dz.sum(axis=-1)
    return dz


LOSSES = {
    "binary": (binary_forward, binary_backward),
    "regression": (regression_forward, regression_backward),
    "multiclass": (multiclass_forward, multiclass_backward),
}


def loss_forward(kind, z, y, mask=None):
    """L = sum_i delta_i l_i / sum_i delta_i, the mean over the task's rows (PLE, section 4.3).

    mask (batch,), the paper's delta: False for rows outside the task's sample space, whose z
    and y count for nothing; None for all rows. A task without any row has the loss 0.
    """
    forward, backward = LOSSES[kind.split(":")[0]]
    rows, row_cache = forward(z, y)
    if mask is None:
        return rows.mean(axis=-1), (backward, row_cache, mask, rows.shape[-1])
    count = max(int(np.count_nonzero(mask)), 1)
    loss = np.where(mask, rows, 0).sum(axis=-1) / count
    mask = mask.reshape(mask.shape + (1,) * (z.ndim - rows.ndim))  # (batch,) or (batch, 1)
    return loss, (backward, row_cache, mask, count)


def loss_backward(weight, cache):
    """dz = weight delta dl/dz / sum_i delta_i: the gradient of weight · L."""
    backward, row_cache, mask, count = cache
    dz = backward(row_cache)
    if mask is not None:
        dz = np.where(mask, dz, 0)
    return dz * weight / count


def task_weights(initial, decay, step):
    """w_k(t) = w_k0 · gamma_k^t, the weight of each task's loss at a step (PLE, section 4.3).

    Parameters
    ----------
    initial, decay : dict of float
        w_k0 and gamma_k by task; a task missing from `decay` keeps its weight.
    step : int
        t, the number of updates made so far.

    Returns
    -------
    dict of float

    Raises
    ------
    InputError
        For a decay of a task without a weight, or one that is not in (0, 1].
    """
    check_dicts(initial=initial, decay=decay)
    check_count("step", step, 0, 10**15)
    for task, gamma in decay.items():
        require(task in initial, f"decay: {task!r} is no task, expected {list(initial)}")
        gamma = check_number(f"decay: {task!r}", gamma, 0, 1)
        require(gamma > 0, f"decay: {task!r} must be above 0")
    return {task: check_number(f"initial: {task!r}", weight) * decay.get(task, 1.0) ** step
            for task, weight in initial.items()}
