"""The operations, each a forward/backward pair; the only place where arrays meet calculus.

Every forward returns `(y, cache)`, every backward takes `(dy, cache)` and returns the gradients
of a scalar loss L: `dy` stands for dL/dy. Shapes are written for one sample batch; any number of
leading axes may stand in front (copies of a parameter perturbed together, stacked experts), and
broadcast. The same lines run in float32, float64, longdouble and complex128: each formula is
analytic, branches look at the real part alone, and nothing is cast.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from npple.core.base import Array, Cache, Codes

PI = 4 * np.arctan(np.longdouble(1))


# Dense layer ------------------------------------------------------------------------------------

def dense_forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Cache]:
    """z = x W + b.

    x (..., batch, in), weight (..., in, out), bias (..., out) or None -> z (..., batch, out)
    """
    z = x @ weight if bias is None else x @ weight + bias[..., None, :]
    return z, (x, weight, bias is not None)


def dense_backward(dz: Array, cache: Cache, need_dx: bool = True
                   ) -> tuple[Array | None, Array, Array | None]:
    """dx = dz W^T, dW = x^T dz, db = sum of dz over the batch -> (dx, dW, db), None for none."""
    x, weight, has_bias = cache
    dx = dz @ weight.swapaxes(-1, -2) if need_dx else None
    return dx, x.swapaxes(-1, -2) @ dz, dz.sum(axis=-2) if has_bias else None


# Activations, z (any shape) -> y (the same shape) -----------------------------------------------

def identity_forward(z: Array) -> tuple[Array, Cache]:
    """y = z."""
    return z, None


def identity_backward(dy: Array, _: Cache) -> Array:
    """dz = dy."""
    return dy


def relu_forward(z: Array) -> tuple[Array, Cache]:
    """y = z where z > 0, else 0."""
    on = z.real > 0
    return z * on, on


def relu_backward(dy: Array, on: Cache) -> Array:
    """dz = dy where z > 0, else 0: the subgradient at z = 0 is 0."""
    return dy * on


def tanh_forward(z: Array) -> tuple[Array, Cache]:
    """y = tanh(z)."""
    return np.tanh(z), z


def tanh_backward(dy: Array, z: Cache) -> Array:
    """dz = dy (1 - tanh²(z)) = dy 4e / (1 + e)², e = exp(-2|z|): exact where tanh rounds to 1."""
    e = np.exp(-2 * _fold(z))
    return dy * (4 * e / (1 + e) ** 2)


def sigmoid_forward(z: Array) -> tuple[Array, Cache]:
    """y = 1 / (1 + exp(-z)), computed from e = exp(-|z|) so that nothing overflows."""
    e = np.exp(-_fold(z))
    return np.where(z.real >= 0, 1, e) / (1 + e), e


def sigmoid_backward(dy: Array, e: Cache) -> Array:
    """dz = dy y (1 - y) = dy e / (1 + e)²: exact where y rounds to 1."""
    return dy * (e / (1 + e) ** 2)


def softplus_forward(z: Array) -> tuple[Array, Cache]:
    """y = log(1 + exp(z)) = max(z, 0) + log1p(e), e = exp(-|z|); log1p(e) = 2 artanh(e/(2+e))."""
    e = np.exp(-_fold(z))
    return z * (z.real >= 0) + 2 * np.arctanh(e / (2 + e)), z


def softplus_backward(dy: Array, z: Cache) -> Array:
    """dz = dy sigmoid(z)."""
    return dy * sigmoid_forward(z)[0]


def gelu_forward(z: Array) -> tuple[Array, Cache]:
    """y = z Phi(z), Phi the standard normal distribution function (exact, not the tanh formula)."""
    phi = _normal_cdf(z)
    return z * phi, (z, phi)


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """dz = dy (Phi(z) + z exp(-z²/2) / sqrt(2 pi))."""
    z, phi = cache
    return dy * (phi + z * np.exp(-z * z / 2) / np.sqrt(z.real.dtype.type(2 * PI)))


def _fold(z: Array) -> Array:
    """|z| continued analytically: -z where the real part is negative."""
    return np.where(z.real < 0, -z, z)


def _normal_cdf(z: Array) -> Array:
    """Phi(z); SciPy's, and where it has none (longdouble) a series below 1.5, a fraction above.

    Phi(-a) = phi(a) / (a + 1/(a + 2/(a + 3/...)));  Phi(a) - 1/2 = phi(a) (a + a³/3 + a⁵/15 + ...)
    """
    if z.real.dtype.char != "g":
        from scipy.special import ndtr
        return ndtr(z)
    a = _fold(z)
    tail = np.piecewise(a, [a.real < 1.5], [_tail_series, _tail_fraction])
    return np.where(z.real < 0, tail, 1 - tail)


def _tail_series(a: Array) -> Array:
    term = series = a
    for k in range(1, 40):
        term = term * a * a / (2 * k + 1)
        series = series + term
    return 0.5 - _normal_density(a) * series


def _tail_fraction(a: Array) -> Array:
    fraction = a
    for k in range(250, 0, -1):
        fraction = a + k / fraction
    return _normal_density(a) / fraction


def _normal_density(a: Array) -> Array:
    return np.exp(-a * a / 2) / np.sqrt(2 * PI)


ACTIVATIONS: dict[str, tuple[Callable[..., tuple[Array, Cache]], Callable[..., Array]]] = {
    "identity": (identity_forward, identity_backward),
    "relu": (relu_forward, relu_backward),
    "tanh": (tanh_forward, tanh_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "softplus": (softplus_forward, softplus_backward),
    "gelu": (gelu_forward, gelu_backward),
}


# Softmax and the mixture it weights -------------------------------------------------------------

def softmax_forward(z: Array) -> tuple[Array, Cache]:
    """w_i = exp(z_i) / sum_j exp(z_j) over the last axis, shifted by the largest z.

    The largest by its real part if z is complex: a shift changes nothing but the rounding.

    z (..., n) -> w (..., n), positive and summing to 1
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    w = e / e.sum(axis=-1, keepdims=True)
    return w, w


def softmax_backward(dw: Array, w: Cache) -> Array:
    """dz_i = w_i (dw_i - sum_j w_j dw_j), with dw shifted to 0 at a weight above 1/2.

    The shift changes nothing but the rounding: it keeps dz exact where a weight rounds to 1.
    """
    dw = dw - np.where(w.real > 0.5, dw, 0).sum(axis=-1, keepdims=True)
    return w * (dw - (w * dw).sum(axis=-1, keepdims=True))


def mixture_forward(w: Array, parts: Sequence[Array]) -> tuple[Array, Cache]:
    """y = sum_i w_i E_i, sample by sample (PLE paper, equation 2).

    w (..., batch, n), experts in parts (..., n_part, batch, width) -> y (..., batch, width)
    """
    y = [w[..., None, at] @ experts.swapaxes(-3, -2)  # (..., batch, 1, n) @ (..., batch, n, width)
         for experts, at in columns(parts)]
    return sum(y[1:], y[0])[..., 0, :], (w, parts)


def mixture_backward(dy: Array, cache: Cache) -> tuple[Array, list[Array]]:
    """dw_i = dy · E_i, dE_i = w_i dy -> (dw, dE in the parts of E)."""
    w, parts = cache
    dw = [(experts.swapaxes(-3, -2) @ dy[..., None])[..., 0]  # (..., batch, n, width) @ (..., 1)
          for experts in parts]
    return (np.concatenate(dw, axis=-1),
            [np.einsum("...bn,...bw->...nbw", w[..., at], dy) for _, at in columns(parts)])


def transform_forward(weight: Array, parts: Sequence[Array]) -> tuple[list[Array], Cache]:
    """y_i = E_i W_i, each expert through its own matrix.

    weight (..., n, in, out), experts in parts (..., n_part, batch, in) -> y in the parts of E
    """
    made = [dense_forward(part, weight[..., at, :, :]) for part, at in columns(parts)]
    return [part for part, _ in made], [cache for _, cache in made]


def transform_backward(dy: Sequence[Array], caches: Cache) -> tuple[Array, list[Array]]:
    """dW_i = E_i^T dy_i, dE_i = dy_i W_i^T, dy in the parts of E -> (dW, dE in these parts)."""
    back = [dense_backward(part, cache) for part, cache in zip(dy, caches)]
    return (np.concatenate([dw for _, dw, _ in back], axis=-3),
            [dx for dx, _, _ in back if dx is not None])


def stitch_forward(alpha: Array, parts: Sequence[Array]) -> tuple[Array, Cache]:
    """y_p = sum_i alpha_pi E_i, the same for every sample.

    alpha (..., p, n), experts in parts (..., n_part, batch, width) -> y (..., p, batch, width)
    """
    flat = [experts.reshape(*experts.shape[:-2], -1) for experts in parts]  # (..., n, batch·width)
    y = [alpha[..., at] @ each for each, (_, at) in zip(flat, columns(parts))]
    total = sum(y[1:], y[0])
    return total.reshape(*total.shape[:-1], *parts[0].shape[-2:]), (alpha, parts, flat)


def stitch_backward(dy: Array, cache: Cache) -> tuple[Array, list[Array]]:
    """dalpha_pi = dy_p · E_i, dE_i = sum_p alpha_pi dy_p -> (dalpha, dE in the parts of E)."""
    alpha, parts, flat = cache
    dflat = dy.reshape(*dy.shape[:-2], -1)  # (..., p, batch · width)
    dparts = [alpha[..., at].swapaxes(-1, -2) @ dflat for _, at in columns(parts)]
    return (np.concatenate([dflat @ each.swapaxes(-1, -2) for each in flat], axis=-1),
            [part.reshape(*part.shape[:-1], *dy.shape[-2:]) for part in dparts])


def channel_stitch_forward(alpha: Array, parts: Sequence[Array]) -> tuple[Array, Cache]:
    """y_p = sum_i alpha_pi ⊙ E_i: a constant for each channel, the same for every sample.

    alpha (..., p, n, width), experts in parts (..., n_part, batch, width) -> (..., p, batch, width)
    """
    y = [np.einsum("...pnc,...nbc->...pbc", alpha[..., at, :], experts)
         for experts, at in columns(parts)]
    return sum(y[1:], y[0]), (alpha, parts)


def channel_stitch_backward(dy: Array, cache: Cache) -> tuple[Array, list[Array]]:
    """dalpha_pi = sum over samples of dy_p ⊙ E_i, dE_i = sum_p alpha_pi ⊙ dy_p."""
    alpha, parts = cache
    dalpha = [np.einsum("...pbc,...nbc->...pnc", dy, experts) for experts in parts]
    return (np.concatenate(dalpha, axis=-2),
            [np.einsum("...pnc,...pbc->...nbc", alpha[..., at, :], dy)
             for _, at in columns(parts)])


def columns(parts: Sequence[Array]) -> Iterator[tuple[Array, slice]]:
    """Each part (..., n_part, batch, width) with the places of its experts among all of them."""
    start = 0
    for part in parts:
        yield part, slice(start, start := start + part.shape[-3])


def side_by_side(parts: Sequence[Array]) -> Array:
    """Arrays (..., batch, width_i) -> (..., batch, sum of width_i); leading axes broadcast."""
    lead = np.broadcast_shapes(*{part.shape[:-1] for part in parts})
    return np.concatenate([part if part.shape[:-1] == lead else
                           np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], -1)


# Hard concrete routing variables (Louizos et al. 2018; SNR, equations 2 and 3) ------------------

LIMITS = 2 / 3, -0.1, 1.1  # beta, gamma, zeta: temperature, and the interval that is clipped


def hard_concrete_forward(log_alpha: Array, noise: Array | None = None,
                          limits: tuple[float, float, float] = LIMITS) -> tuple[Array, Cache]:
    """z = clip(s (zeta - gamma) + gamma, 0, 1), s = sigmoid((logit(u) + log alpha) / beta).

    Without noise the deterministic z of inference, s = sigmoid(log alpha).

    log_alpha (..., n), noise u (n,) in (0, 1) or None -> z (..., n)
    """
    beta, gamma, zeta = limits
    logit = log_alpha
    if noise is not None:
        logit = (np.log(noise) - np.log1p(-noise) + log_alpha) / beta
    s, cache = sigmoid_forward(logit)
    z = s * (zeta - gamma) + gamma
    low, high = z.real <= 0, z.real >= 1
    return np.where(low, 0, np.where(high, 1, z)), (
        cache, ~(low | high), zeta - gamma, 1.0 if noise is None else beta)


def hard_concrete_backward(dz: Array, cache: Cache) -> Array:
    """dlog_alpha = dz (zeta - gamma) s (1 - s) / beta, 0 where z is clipped."""
    s, inside, stretch, beta = cache
    return sigmoid_backward(dz * inside * stretch, s) / beta


def expected_l0_forward(log_alpha: Array, limits: tuple[float, float, float] = LIMITS
                        ) -> tuple[Array, Cache]:
    """sum_i P(z_i > 0) = sum_i sigmoid(log alpha_i - beta log(-gamma / zeta)).

    log_alpha (..., n) -> (...)
    """
    beta, gamma, zeta = limits
    p, cache = sigmoid_forward(log_alpha - beta * float(np.log(-gamma / zeta)))
    return p.sum(axis=-1), cache


def expected_l0_backward(cache: Cache) -> Array:
    """dlog_alpha_i = p_i (1 - p_i)."""
    return sigmoid_backward(np.ones_like(cache), cache)


# Weights of experts that overlap ----------------------------------------------------------------

def overlap_forward(w: Array, inputs: bool) -> tuple[Array, Cache]:
    """sum over pairs i < j of |W_i^T W_j|², or of |W_i W_j^T|² over the `inputs`.

    w (..., n, in, out) -> (...)
    """
    w = w.swapaxes(-1, -2) if inputs else w  # -> (..., n, out, in)
    gram = w[..., :, None, :, :].swapaxes(-1, -2) @ w[..., None, :, :, :]
    gram = gram * ~np.eye(w.shape[-3], dtype=bool)[:, :, None, None]  # (..., n, n, in, in)
    return (gram * gram).sum(axis=(-1, -2, -3, -4)) / 2, (w, gram, inputs)


def overlap_backward(cache: Cache) -> Array:
    """dW_i = 2 · sum over j ≠ i of W_j W_j^T W_i, or (W_i W_j^T) W_j over the inputs."""
    w, gram, inputs = cache
    dw = 2 * (w[..., :, None, :, :] @ gram).sum(axis=-4)
    return dw.swapaxes(-1, -2) if inputs else dw


# Embedding --------------------------------------------------------------------------------------

def embedding_forward(table: Array, codes: Codes, pool: str = "sum") -> tuple[Array, Cache]:
    """Row `codes[b]` of the table for each sample b; of a bag of codes the "sum" or "mean".

    table (..., size, width) -> (..., batch, width); codes are integers (batch,), or bags (batch,
    longest) with -1 for none. An empty bag gives 0.
    """
    if codes.ndim == 1:
        return table.take(codes, -2), (codes, table.shape[-2], slice(None), 1)
    there = codes >= 0  # n of them
    samples, counts = np.nonzero(there)[0], there.sum(axis=1)  # (n,), (batch,)
    share = np.ones((len(samples), 1), table.real.dtype)
    if pool == "mean":
        share /= counts[samples, None]
    rows = share * table.take(codes[there], -2)  # (..., n, width)
    return sums_by(samples, rows, len(codes)), (codes[there], table.shape[-2], samples, share)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """dtable[c] = sum of dy, times its share, over the places where the code is c; 0 where none."""
    codes, size, samples, share = cache
    return sums_by(codes, share * dy[..., samples, :], size)


def sums_by(groups: Codes, rows: Array, count: int) -> Array:
    """The sum of the rows of each group, 0 for a group without any.

    groups (n,) of integers below count, rows (..., n, width) -> (..., count, width)
    """
    order = np.argsort(groups, stable=True)
    ordered = groups[order]
    first = np.ones(len(order), bool)  # of the rows of its group
    first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(first)
    sums = np.zeros((*rows.shape[:-2], count, rows.shape[-1]), rows.dtype)
    sums[..., ordered[starts], :] = np.add.reduceat(rows.take(order, -2), starts, axis=-2)
    return sums
