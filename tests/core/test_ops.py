"""Every operation: its value and derivative against another derivation, in every precision.

The yardstick of the activations is decimal arithmetic with 500 digits; an error is measured in
units of eps · (|f| + |z f'|), that is, in ulps of the value and of the argument together.
"""

import cmath
import math
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from npple.core import ops
from strategies import DTYPES, seeds, worst

POINTS = np.concatenate([[0], *([-p, p] for p in (1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.75, 1, 1.4, 1.5,
                                                  1.6, 2, 3, 4.5, 6, 8, 10, 12, 20, 30))])
POINTS = POINTS.astype("float32").astype("float64")  # exact in every precision
REAL = [dtype for dtype in DTYPES if dtype != "complex128"]


# The yardstick: z -> (f, f', f'') ---------------------------------------------------------------

def exact_identity(z):
    return z, Decimal(1), Decimal(0)


def exact_relu(z):
    return max(z, Decimal(0)), Decimal(z > 0), Decimal(0)


def exact_tanh(z):
    y = 1 - 2 / (1 + (2 * z).exp())
    return y, 1 - y * y, -2 * y * (1 - y * y)


def exact_sigmoid(z):
    y = 1 / (1 + (-z).exp())
    return y, y * (1 - y), y * (1 - y) * (1 - 2 * y)


def exact_softplus(z):
    return ((1 + z.exp()).ln(), *exact_sigmoid(z)[:2])


def exact_gelu(z):
    """The normal distribution function from the Taylor series of erf."""
    term, total, k = z, z, 0
    while abs(term) > Decimal("1e-490"):
        k += 1
        term = -term * z * z / (2 * k)
        total += term / (2 * k + 1)
    root = (2 * exact_pi()).sqrt()
    cdf, density = Decimal("0.5") + total / root, (-z * z / 2).exp() / root
    return z * cdf, cdf + z * density, (2 - z * z) * density


def exact_pi():
    """Machin's formula."""
    def arctan_inverse(n):
        return sum((-1) ** k / (Decimal(n) ** (2 * k + 1) * (2 * k + 1)) for k in range(370))
    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


@cache
def exact(name):
    """f, f', f'' of the activation at POINTS, correct to longdouble."""
    with localcontext(prec=500):
        rows = [globals()[f"exact_{name}"](Decimal(float(z))) for z in POINTS]
        return np.array([[np.longdouble(f"{value:.40e}") for value in row] for row in rows]).T


def ulps(actual, expected, slope):
    """The largest error in units of eps (|f| + |z f'|), z being POINTS."""
    info = np.finfo(actual.dtype)
    unit = info.eps * (np.abs(expected) + np.abs(POINTS * slope)) + 2 * info.smallest_subnormal
    return (np.abs(actual - expected) / unit).max()


# Activations ------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation_and_derivative_are_exact_to_a_few_ulps(name, dtype):
    """The tails included: at ±30 a derivative of exp(-60) keeps its relative accuracy."""
    forward, backward = ops.ACTIVATIONS[name]
    value, slope, bend = exact(name)
    y, kept = forward(POINTS.astype(dtype))
    dz = backward(np.ones_like(y), kept)
    assert y.dtype == dz.dtype == dtype
    assert not y.imag.any() and not dz.imag.any()
    assert ulps(y.real, value, slope) < 4
    assert ulps(dz.real, slope, bend) < 4


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_backward_is_the_complex_step_derivative(name):
    """Im f(z + ih) / h has no cancellation; z = 0, where relu has the subgradient 0, included."""
    forward, backward = ops.ACTIVATIONS[name]
    h = 1e-100
    step = forward(POINTS + 1j * h)[0].imag / h
    dy = np.linspace(-2, 2, len(POINTS))
    z = POINTS.astype(float)
    dz = backward(dy, forward(z)[1])
    slope, bend = exact(name)[1:]
    assert ulps(step, slope, bend) < 16
    assert ulps(dz, dy * step, dy * bend) < 16


@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_backward_is_analytic_too(name, dtype):
    """A Hessian-vector product is the imaginary part of the backward pass."""
    forward, backward = ops.ACTIVATIONS[name]
    h = np.asarray(1e-100, dtype)
    z = POINTS.astype(dtype) + 1j * h
    second = backward(np.ones_like(z), forward(z)[1]).imag / h
    bend = exact(name)[2]
    size = np.abs(bend) * (1 + POINTS ** 2) + (np.abs(POINTS) < 2)
    assert (np.abs(second - bend) <= 16 * np.finfo(dtype).eps * size).all()


COMPLEX = {
    "identity": lambda z: z,
    "relu": lambda z: z if z.real > 0 else 0,
    "tanh": cmath.tanh,
    "sigmoid": lambda z: 1 / (1 + cmath.exp(-z)),
    "softplus": lambda z: cmath.log(1 + cmath.exp(z)),
    "gelu": lambda z: z * (1 + special.erf(z / math.sqrt(2))) / 2,
}


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
@given(st.complex_numbers(max_magnitude=1))
def test_activation_continues_analytically(name, z):
    y = ops.ACTIVATIONS[name][0](np.array([z]))[0]
    assert abs(y[0] - COMPLEX[name](z)) < 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation_at_ten_thousand_is_its_limit(name, dtype):
    z = np.array([-1e4, 1e4], dtype)
    y, kept = ops.ACTIVATIONS[name][0](z)
    low, high = {"identity": (-1e4, 1e4), "tanh": (-1, 1), "sigmoid": (0, 1)}.get(name, (0, 1e4))
    np.testing.assert_allclose(y, [low, high], rtol=1e-15, atol=np.longdouble('1e-4000'))
    assert np.isfinite(ops.ACTIVATIONS[name][1](np.ones_like(z), kept)).all()


@given(hnp.arrays("float64", 5, elements=st.floats(-30, 30)))
def test_float64_activations_agree_with_scipy_and_math(z):
    def of(name):
        return ops.ACTIVATIONS[name][0](z)[0]
    np.testing.assert_allclose(of("sigmoid"), special.expit(z), rtol=1e-14)
    np.testing.assert_allclose(of("softplus"), np.logaddexp(0, z), rtol=1e-14)
    gelu = [v / 2 * math.erfc(-v / math.sqrt(2)) for v in z]
    np.testing.assert_allclose(of("gelu"), gelu, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble", "complex64", "clongdouble"])
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_no_precision_is_refused_or_left(name, dtype):
    y, kept = ops.ACTIVATIONS[name][0](POINTS.astype(dtype))
    assert y.dtype == ops.ACTIVATIONS[name][1](y, kept).dtype == dtype


def test_relu_passes_no_gradient_at_zero():
    for zero in (0.0, -0.0):
        _, kept = ops.relu_forward(np.array([zero]))
        assert ops.relu_backward(np.array([5.0]), kept) == 0


# Dense layer ------------------------------------------------------------------------------------

def random(seed, *shape, dtype="float64"):
    """Normal numbers, complex ones for a complex dtype."""
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, *shape)).astype("float32")
    return (parts[0] + (1j * parts[1] if dtype == "complex128" else 0)).astype(dtype)


def epsilon(dtype):
    return float(np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_dense_is_its_sum_over_inputs(dtype, lead):
    x, w, b = (random(i, *lead, *shape, dtype=dtype)
               for i, shape in enumerate([(5, 4), (4, 2), (2,)]))
    dz = random(3, *lead, 5, 2, dtype=dtype)
    z, kept = ops.dense_forward(x, w, b)
    dx, dw, db = ops.dense_backward(dz, kept)
    assert {a.dtype for a in (z, dx, dw, db)} == {np.dtype(dtype)}
    for actual, expected in [
        (z, (x[..., None] * w[..., None, :, :]).sum(-2) + b[..., None, :]),
        (dx, np.einsum("...bo,...io->...bi", dz, w)),
        (dw, np.einsum("...bi,...bo->...io", x, dz)),
        (db, np.einsum("...bo->...o", dz)),
    ]:
        assert worst(actual, expected) < 100 * epsilon(dtype)


def test_dense_without_bias_or_wanted_input_gradient_returns_none_for_them():
    x, w = random(0, 5, 4), random(1, 4, 2)
    z, kept = ops.dense_forward(x, w)
    dx, dw, db = ops.dense_backward(np.ones_like(z), kept, need_dx=False)
    np.testing.assert_array_equal(z, x @ w)
    assert dx is None and db is None and dw.shape == w.shape


def test_dense_broadcasts_one_input_over_stacked_experts():
    x, w, b = random(0, 5, 4), random(1, 3, 4, 2), random(2, 3, 2)
    z, _ = ops.dense_forward(x[None], w, b)
    for i in range(3):
        np.testing.assert_allclose(z[i], x @ w[i] + b[i], rtol=1e-13)


# Softmax and mixture ----------------------------------------------------------------------------

@given(hnp.arrays("float64", (3, 4), elements=st.integers(-60, 60)), st.integers(-10**6, 10**6))
def test_softmax_ignores_a_shift_of_all_logits(z, shift):
    """Whole numbers, so that the shift itself does not round: equal to the last bit."""
    np.testing.assert_array_equal(ops.softmax_forward(z + shift)[0], ops.softmax_forward(z)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@given(seeds, st.floats(0.01, 300), st.integers(1, 6))
def test_softmax_rows_are_positive_and_sum_to_one(dtype, seed, scale, n):
    z = (random(seed, 4, n) * scale).astype(dtype)
    w, _ = ops.softmax_forward(z)
    assert w.dtype == dtype and (w.real >= 0).all()
    assert np.abs(w.sum(axis=-1) - 1).max() <= n * epsilon(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_huge_logits_picks_the_largest(dtype):
    z = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype)
    w, kept = ops.softmax_forward(z)
    np.testing.assert_allclose(w, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6, atol=1e-30)
    assert np.isfinite(ops.softmax_backward(z, kept)).all()


@given(seeds, st.integers(1, 6))
def test_softmax_agrees_with_scipy_and_its_jacobian(seed, n):
    z, dw = random(seed, 3, n) * 5, random(seed + 1, 3, n)
    w, kept = ops.softmax_forward(z)
    np.testing.assert_allclose(w, special.softmax(z, axis=-1), rtol=1e-13)
    for row in range(3):
        jacobian = np.diag(w[row]) - np.outer(w[row], w[row])
        np.testing.assert_allclose(ops.softmax_backward(dw, kept)[row], jacobian @ dw[row],
                                   rtol=1e-10, atol=1e-15)


def test_softmax_is_analytic():
    z, direction, dw = random(0, 3, 4), random(1, 3, 4), random(2, 3, 4)
    w, _ = ops.softmax_forward(z + 1e-100j * direction)
    slope = (dw * ops.softmax_forward(z + 1e-100j * direction)[0].imag).sum() / 1e-100
    dz = ops.softmax_backward(dw, ops.softmax_forward(z)[1])
    assert slope == pytest.approx((dz * direction).sum(), rel=1e-13)
    assert np.abs(w.sum(axis=-1) - 1).max() < 1e-15


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixture_is_the_weighted_sum_sample_by_sample(dtype):
    w, experts = random(0, 5, 3, dtype=dtype), random(1, 3, 5, 2, dtype=dtype)
    dy = random(2, 5, 2, dtype=dtype)
    y, kept = ops.mixture_forward(w, [experts])
    dw, (dexperts,) = ops.mixture_backward(dy, kept)
    assert {a.dtype for a in (y, dw, dexperts)} == {np.dtype(dtype)}
    for b in range(5):
        by_hand = sum(w[b, i] * experts[i, b] for i in range(3))
        assert worst(y[b], by_hand) < 100 * epsilon(dtype)
        for i in range(3):
            np.testing.assert_array_equal(dexperts[i, b], w[b, i] * dy[b])
    assert worst(dw, np.einsum("bo,nbo->bn", dy, experts)) < 100 * epsilon(dtype)


def test_mixture_broadcasts_copies_of_the_weights():
    w, experts = random(0, 7, 5, 3), random(1, 3, 5, 2)
    y, _ = ops.mixture_forward(w, [experts])
    np.testing.assert_allclose(y, np.einsum("cbn,nbo->cbo", w, experts), rtol=1e-12)


# Embedding --------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,)])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_embedding_gradient_is_summed_over_repeated_codes(dtype, lead, codes):
    """Codes that do not occur get exactly 0."""
    codes = np.array(codes)
    table, dy = random(0, *lead, 5, 2, dtype=dtype), random(1, *lead, len(codes), 2, dtype=dtype)
    y, kept = ops.embedding_forward(table, codes)
    dtable = ops.embedding_backward(dy, kept)
    assert y.dtype == dtable.dtype == dtype
    expected = np.zeros_like(table)
    np.add.at(expected, (..., codes, slice(None)), dy)
    assert worst(dtable, expected) < 100 * epsilon(dtype)
    assert not dtable[..., np.setdiff1d(np.arange(5), codes), :].any()
    for b, code in enumerate(codes):
        np.testing.assert_array_equal(y[..., b, :], table[..., code, :])


def test_embedding_gradient_of_one_table_for_many_upstream_copies():
    """A gradient with leading axes that the table has not: one table gradient for each."""
    codes = np.array([1, 1, 0])
    dy = random(0, 4, 3, 2)
    dtable = ops.embedding_backward(dy, ops.embedding_forward(random(1, 3, 2), codes)[1])
    np.testing.assert_allclose(dtable[:, 1], dy[:, :2].sum(axis=1), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_one_code_are_added_in_the_order_of_the_batch(dtype):
    """To the last bit, wherever the rows of other codes stand."""
    codes = np.random.default_rng(0).integers(3, size=400)
    dy = random(1, 400, 2, dtype=dtype)
    grouped = sorted(range(400), key=lambda b: codes[b])  # within a code as before
    table = np.zeros((3, 2), dtype)
    found = [ops.embedding_backward(rows, ops.embedding_forward(table, those)[1])
             for rows, those in ((dy[grouped], codes[grouped]), (dy, codes))]
    np.testing.assert_array_equal(*found)


# Bags -------------------------------------------------------------------------------------------

bags_of_codes = st.integers(1, 4).flatmap(lambda longest: st.lists(
    st.lists(st.integers(-1, 4), min_size=longest, max_size=longest), min_size=1, max_size=6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", ["sum", "mean"])
@pytest.mark.parametrize("lead", [(), (3,)])
@given(bags_of_codes)
def test_a_bag_is_the_sum_or_mean_of_its_rows_and_its_gradient_goes_back_to_them(
        dtype, pool, lead, bags):
    table, dy = random(0, *lead, 5, 2, dtype=dtype), random(1, *lead, len(bags), 2, dtype=dtype)
    y, kept = ops.embedding_forward(table, np.array(bags), pool)
    dtable = ops.embedding_backward(dy, kept)
    assert y.dtype == dtable.dtype == dtype
    expected, gradient = np.zeros_like(dy), np.zeros_like(table)
    for b, bag in enumerate(bags):
        codes = [code for code in bag if code >= 0]
        for code in codes:
            part = np.dtype(dtype).type(1) / len(codes) if pool == "mean" else 1
            expected[..., b, :] += table[..., code, :] * part
            gradient[..., code, :] += dy[..., b, :] * part
    assert worst(y, expected) < 100 * epsilon(dtype)
    assert worst(dtable, gradient) < 100 * epsilon(dtype)


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_an_empty_bag_is_exactly_0_and_gives_no_gradient(pool):
    table = random(0, 3, 2)
    y, kept = ops.embedding_forward(table, np.full((2, 3), -1), pool)
    assert not y.any() and not ops.embedding_backward(np.full((2, 2), np.nan), kept).any()


def test_bags_of_one_are_codes():
    table, codes, dy = random(0, 4, 3), np.array([2, 0, 2, 3]), random(1, 4, 3)
    for pool in ("sum", "mean"):
        (y, kept), (own, alone) = (ops.embedding_forward(table, codes[:, None], pool),
                                   ops.embedding_forward(table, codes))
        np.testing.assert_array_equal(y, own)
        np.testing.assert_array_equal(*(ops.embedding_backward(dy, each) for each in (kept, alone)))
