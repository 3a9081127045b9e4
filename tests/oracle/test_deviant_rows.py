"""The passes of deviant rows by themselves: any leading axes, any precision, their own backward."""

import numpy as np
import pytest

import npple
from npple.core.ops import softmax_backward, softmax_forward
from npple.core.passes import backward, forward
from npple.oracle.deviant_rows import (PickedExperts, Textbook, _largest, _leaky, _over_batch,
                                       batchnorm_backward, batchnorm_forward, deviant_gate,
                                       textbook_softmax_backward, with_rows)
from npple.routing import Gate

TABLE = npple.mmoe(3, {"a": "regression", "b": "regression"}, experts=3, expert_units=(4,),
                   tower_units=(), gate_bias=True).table
CGC = npple.cgc(3, {"a": "regression", "b": "regression"}, task_experts=2, shared_experts=2,
                expert_units=(4,), tower_units=()).table


def normal(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_over_the_batch_is_over_the_last_axis_of_what_is_turned():
    z, dy = normal(2, 5, 3), normal(2, 5, 3, seed=1)
    forward, backward = _over_batch((softmax_forward, softmax_backward))
    y, cache = forward(z)
    np.testing.assert_allclose(y, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(backward(dy, cache),
                               y * (dy - (y * dy).sum(axis=1, keepdims=True)), atol=1e-15)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (2, 5, 3)])
def test_the_softmax_of_textbooks_has_the_same_gradient(shape):
    w, dw = softmax_forward(normal(*shape))[0], normal(*shape, seed=1)
    np.testing.assert_allclose(textbook_softmax_backward(dw, w), softmax_backward(dw, w),
                               atol=1e-15)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_batch_normalisation_and_its_gradient(shape):
    z, dy, h = normal(*shape), normal(*shape, seed=1), 1e-30
    y, cache = batchnorm_forward(z)
    np.testing.assert_allclose(y, (z - z.mean(axis=-2, keepdims=True)) / np.sqrt(
        z.var(axis=-2, keepdims=True) + 1e-5), rtol=1e-12, atol=1e-15)
    dz = batchnorm_backward(dy, cache)
    for at in np.ndindex(shape):
        step = np.zeros(shape, complex)
        step[at] = 1j * h
        assert (dy * batchnorm_forward(z + step)[0]).sum().imag / h == pytest.approx(
            dz[at], abs=1e-12)


def gradients(table, dtype=np.float64):
    """Of random gradients of the outputs, with all that backward makes."""
    params = {name: normal(*shape, dtype=dtype, seed=i)
              for i, (name, shape) in enumerate(table.shapes.items())}
    trace = forward(table, params, normal(5, 3, dtype=dtype))
    return backward(trace, {f"tower/{task}": normal(5, dtype=dtype, seed=9) for task in "ab"})


def test_a_gate_with_the_gradient_of_textbooks_is_the_same_gate():
    table = with_rows(TABLE, lambda row: Textbook(**vars(row)) if isinstance(row, Gate) else row)
    found, wanted = gradients(table), gradients(TABLE)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        np.testing.assert_allclose(found[name], grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"columns": (0, 1, 2), "outputs": 3}, {"kept": 3},
                                     {"temperature": 1.0}, {"normalise": "identity"}])
def test_a_deviant_gate_without_a_deviation_is_the_papers_gate(changes):
    table = with_rows(TABLE, lambda row: deviant_gate(row, **changes) if isinstance(row, Gate)
                      else row)
    for dtype, error in ((np.float64, 1e-12), (np.float32, 1e-4)):
        found, wanted = gradients(table, dtype), gradients(TABLE, dtype)
        assert found.keys() == wanted.keys()
        for name, grad in wanted.items():
            assert found[name].dtype == dtype
            np.testing.assert_allclose(found[name], grad, rtol=error, atol=error)


def test_the_largest_weights_are_those_of_a_row_and_add_up_to_one():
    w = softmax_forward(normal(2, 5, 3))[0]
    kept = _largest(w, 2)
    assert ((kept > 0) == (w > w.min(axis=-1, keepdims=True))).all()
    np.testing.assert_allclose(kept, np.where(kept > 0, w, 0) / np.where(kept > 0, w, 0).sum(
        axis=-1, keepdims=True), rtol=1e-12)


def test_a_leaky_relu_has_its_slope_up_to_0():
    forward, backward = _leaky(0.25)
    y, above = forward(np.array([-2.0, 0.0, 3.0]))
    assert y.tolist() == [-0.5, 0.0, 3.0]
    assert backward(np.ones(3), above).tolist() == [0.25, 0.25, 1.0]


def test_experts_by_the_parameters_of_others_take_copies_and_any_precision():
    picked = with_rows(CGC, lambda row: PickedExperts(**vars(row), picks=(
        ("level1/shared/experts", 1), ("level1/a/experts", 0))) if row.name == "level1/b/experts"
        else row)
    params = {name: normal(2, *shape, dtype=np.float32, seed=i)
              for i, (name, shape) in enumerate(picked.shapes.items())}
    x = normal(5, 3, dtype=np.float32)
    starts = {f"tower/{task}": normal(5, dtype=np.float32, seed=9) for task in "ab"}
    together = forward(picked, params, x)
    grads = backward(together, {name: np.stack([dy, dy]) for name, dy in starts.items()})
    for at in range(2):
        own = {name: p[at] for name, p in params.items()}
        alone = forward(picked, own, x)
        wanted = forward(CGC, own | {
            f"level1/b/experts/layer1/{part}": np.stack([
                own[f"level1/shared/experts/layer1/{part}"][1],
                own[f"level1/a/experts/layer1/{part}"][0]]) for part in ("weight", "bias")}, x)
        for name in starts:
            np.testing.assert_allclose(alone[name], wanted[name], rtol=1e-5)
            np.testing.assert_allclose(together[name][at], wanted[name], rtol=1e-4, atol=1e-5)
        for name, grad in backward(alone, starts).items():
            assert grad.dtype == np.float32
            np.testing.assert_allclose(grads[name][at], grad, rtol=1e-3, atol=1e-4)
