"""The losses: their values in the tails, sample spaces (masks), and the weights over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

import npple
from npple.core.losses import kind_of, loss_backward, loss_forward
from strategies import (DTYPES, KINDS, assert_close, assert_equal, models, problem, problems,
                        random_target, seeds)

LOGITS = [-1e4, -700, -90, -50, -10, -1, -1e-3, 0, 1e-3, 1, 10, 50, 90, 700, 1e4]


def rows(kind, z, y):
    """Row losses and their derivatives."""
    kind = kind_of("multiclass:3" if kind == "multiclass" else kind)
    loss, cache = kind.forward(z, y)
    return loss, kind.backward(cache)


def outputs(seed, kind, batch, dtype="float64"):
    """A tower's output and targets for `kind`."""
    rng = np.random.default_rng(seed)
    shape = (batch, 3) if kind.startswith("multiclass") else (batch,)
    z = (3 * rng.standard_normal(shape)).astype("float32").astype(dtype)
    y = random_target(rng, kind, batch)
    return z, y if kind.startswith("multiclass") else y.astype(z.real.dtype)


# Row losses -------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("y", [0, 1])
def test_binary_cross_entropy_keeps_its_relative_accuracy_up_to_ten_thousand(dtype, y):
    z = np.array(LOGITS, dtype)
    loss, dz = rows("binary", z, np.full(len(z), y, z.real.dtype))
    wide = np.array(LOGITS, "float32" if dtype == "float32" else "float64").astype("longdouble")
    sign = 1 - 2 * y
    assert loss.dtype == dz.dtype == dtype
    info = np.finfo(dtype)
    close = {"rtol": 4 * float(info.eps), "atol": info.smallest_subnormal}
    np.testing.assert_allclose(loss.real, np.logaddexp(0, sign * wide), **close)
    e = np.exp(-np.abs(wide))
    np.testing.assert_allclose(dz.real, sign * np.where(sign * wide > 0, 1, e) / (1 + e), **close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("y", [0, 1])
def test_two_classes_with_logits_0_and_z_are_the_binary_loss_of_z(dtype, y):
    """To a few ulps at every z, loss and gradient, though the formulas share nothing."""
    z = np.array(LOGITS, dtype)
    target = np.full(len(z), y)
    loss, dz = rows("binary", z, target.astype(z.real.dtype))
    loss2, dz2 = rows("multiclass", np.stack([0 * z, z], axis=-1), target)
    assert loss2.dtype == dz2.dtype == dtype
    info = np.finfo(dtype)
    close = {"rtol": 8 * float(info.eps), "atol": 2 * info.smallest_subnormal}
    np.testing.assert_allclose(loss2.real, loss.real, **close)
    np.testing.assert_allclose(dz2[:, 1].real, dz.real, **close)
    np.testing.assert_allclose(dz2[:, 0].real, -dz.real, **close)


@given(seeds, st.integers(2, 6), st.floats(0.1, 30))
def test_multiclass_agrees_with_scipy(seed, classes, scale):
    rng = np.random.default_rng(seed)
    z, y = scale * rng.standard_normal((5, classes)), rng.integers(classes, size=5)
    loss, dz = rows("multiclass", z, y)
    np.testing.assert_allclose(loss, -special.log_softmax(z, axis=-1)[np.arange(5), y],
                               rtol=1e-13, atol=1e-13 * scale)
    np.testing.assert_allclose(dz, special.softmax(z, axis=-1) - np.eye(classes)[y], atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiclass_at_ten_thousand_is_its_limit(dtype):
    z = np.array([[1e4, -1e4, 0], [1e4, 1e4, -1e4], [-1e4] * 3, [1e4, -1e4, 0]], dtype)
    loss, dz = rows("multiclass", z, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(loss, [0, np.log(2), np.log(3), 2e4], rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(dz, [[0, 0, 0], [-.5, .5, 0], [1 / 3, -2 / 3, 1 / 3], [1, -1, 0]],
                               rtol=1e-6, atol=1e-300)


def test_regression_is_the_squared_error():
    loss, dz = rows("regression", np.array([1.5, -2.0, 1e4]), np.array([1.0, 1.0, -1e4]))
    np.testing.assert_array_equal(loss, [0.25, 9, 4e8])
    np.testing.assert_array_equal(dz, [1, -6, 4e4])


@pytest.mark.parametrize("kind", KINDS)
@given(seeds)
def test_row_loss_gradient_is_the_complex_step_derivative(kind, seed):
    z, y = outputs(seed, kind, 4)
    name = kind.split(":")[0]
    direction = np.random.default_rng(seed + 1).standard_normal(z.shape)
    slope = rows(name, z + 1e-100j * direction, y)[0].imag / 1e-100
    dz = rows(name, z, y)[1] * direction
    np.testing.assert_allclose(dz.reshape(4, -1).sum(axis=1), slope, rtol=1e-12, atol=1e-13)


def test_complex_step_of_the_cross_entropies_is_right_at_equal_and_at_extreme_logits():
    z = np.array(LOGITS)
    dz = rows("binary", z, np.zeros(len(z)))[1]
    step = rows("binary", z + 1e-150j, np.zeros(len(z)))[0].imag / 1e-150
    np.testing.assert_allclose(step, dz, rtol=1e-14, atol=1e-150)
    logits = np.stack([np.zeros(len(z)), z + 1e-150j], axis=-1)
    step = rows("multiclass", logits, np.zeros(len(z), int))[0].imag / 1e-150
    np.testing.assert_allclose(step, dz, rtol=1e-14, atol=1e-150)


# The mean over a task's rows --------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@given(seeds, hnp.arrays(bool, 5))
def test_masked_loss_is_the_mean_over_the_rows_of_the_mask(dtype, kind, seed, mask):
    """Whatever targets the other rows have."""
    z, y = outputs(seed, kind, 5, dtype)
    if y.dtype.kind == "f" and dtype != "complex128":  # a complex NaN warns
        y[~mask] = np.nan
    loss, cache = loss_forward(kind_of(kind), z, y, mask)
    dz = loss_backward(2.0, cache)
    assert loss.dtype == dz.dtype == dtype
    assert not dz[~mask].any()
    if not mask.any():
        assert loss == 0
        return
    expected, cache = loss_forward(kind_of(kind), z[mask], y[mask])
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(loss, expected, rtol=8 * eps, atol=8 * eps)
    np.testing.assert_allclose(dz[mask], loss_backward(2.0, cache), rtol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_taken_in_the_precision_of_the_model(dtype, kind):
    """Each row three times over: 1/3 rounds, in the model's precision and in no other."""
    z, y = outputs(7, kind, 1, dtype)
    once, cache = loss_forward(kind_of(kind), z, y)
    dz = loss_backward(1.0, cache)
    thrice, cache = loss_forward(kind_of(kind), np.repeat(z, 3, axis=0), np.repeat(y, 3, axis=0))
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(thrice, once, rtol=4 * eps)
    np.testing.assert_allclose(3 * loss_backward(1.0, cache), np.repeat(dz, 3, axis=0),
                               rtol=4 * eps)


GARBAGE = {"binary": [np.nan, np.inf, -7, 0.5], "regression": [np.nan, -np.inf, 1e300, 2],
           "multiclass:3": [np.nan, np.inf, 99, -1]}


@given(problems(), st.integers(0, 3))
def test_targets_outside_the_sample_space_may_be_garbage(drawn, which):
    kinds = drawn.model.tasks

    def targets(outside):
        return drawn.targets | {
            task: np.where(mask, drawn.targets[task].astype(float), outside(kinds[task]))
            for task, mask in drawn.masks.items()}

    clean = drawn.loss_and_grads(targets=targets(lambda kind: 0))
    dirty = drawn.loss_and_grads(targets=targets(lambda kind: GARBAGE[kind][which]))
    assert dirty[0] == clean[0]
    assert_equal(dirty[1], clean[1])


@given(problems(), st.data())
def test_a_task_without_a_row_contributes_exactly_nothing(drawn, data):
    """As if its weight were 0: the others' loss and gradients keep their bits."""
    task = data.draw(st.sampled_from(list(drawn.model.tasks)))
    nowhere = drawn.masks | {task: np.zeros(len(drawn.targets[task]), bool)}
    loss, grads = drawn.loss_and_grads(masks=nowhere)
    left_out, expected = drawn.loss_and_grads(weights=drawn.weights | {task: 0})
    assert loss == left_out
    assert_equal(grads, expected)
    assert drawn.model.task_losses(drawn.params, drawn.x, drawn.targets, nowhere)[task] == 0


@given(problems())
def test_a_mask_of_all_rows_is_no_mask(drawn):
    everywhere = {task: np.ones(len(y), bool) for task, y in drawn.targets.items()}
    loss, grads = drawn.loss_and_grads(masks=everywhere)
    expected_loss, expected = drawn.loss_and_grads(masks=None)
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    assert_close(grads, expected, 1e-13)
    assert_equal(drawn.loss_and_grads(masks={})[1], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(models(), seeds)
def test_loss_and_gradients_are_finite_at_logits_of_ten_thousand(dtype, model, seed):
    drawn = problem(model, seed, 3, dtype)
    params = {name: p + np.asarray(1e4, dtype) * np.sign(p) if name.startswith("tower") else p
              for name, p in drawn.params.items()}
    for task in model.tasks:  # the output layer's bias, so that the logits do reach it
        last = [name for name in params if name.startswith(f"tower/{task}/")][-1]
        assert last.endswith("bias") and np.abs(params[last]).max() >= 1e4
    loss, grads = drawn.loss_and_grads(params=params)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in grads.values())


# Weights over time ------------------------------------------------------------------------------

def test_task_weights_decay_geometrically():
    initial, decay = {"a": 2.0, "b": 0.5, "c": 1.0}, {"a": 0.5, "b": 1.0}
    assert npple.task_weights(initial, decay, 0) == initial
    assert npple.task_weights(initial, decay, 3) == {"a": 0.25, "b": 0.5, "c": 1.0}
    assert npple.task_weights(initial, {}, 1000) == initial


@pytest.mark.parametrize("decay", [{"b": 0.9}, {"a": 0.0}, {"a": -0.5}, {"a": 1.5},
                                   {"a": float("nan")}])
def test_a_decay_outside_its_range_or_of_no_task_is_refused(decay):
    with pytest.raises(npple.InputError, match="^decay: "):
        npple.task_weights({"a": 1.0}, decay, 1)
