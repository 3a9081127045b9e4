"""`assert_gradients` with JAX and with TensorFlow behind the function: right, wrong, too coarse."""

import numpy as np
import pytest

from npple.testing import assert_gradients

POINT = {"z": np.random.default_rng(0).normal(size=(4, 3)),
         "w": np.random.default_rng(1).normal(size=3)}


def with_jax():
    """f and grad of what a framework differentiates, arrays in, a number or arrays out."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def loss(v):
        return (jax.numpy.tanh(v["z"] @ v["w"]) ** 2).sum()

    return loss, jax.grad(loss)


def with_tensorflow():
    tf = pytest.importorskip("tensorflow")

    def loss(v):
        z, w = (tf.convert_to_tensor(v[name]) for name in ("z", "w"))
        # `** 2` goes through a logarithm, which rounds a small imaginary part away
        return tf.reduce_sum(tf.square(tf.tanh(tf.linalg.matvec(z, w))))

    def grad(v):
        v = {name: tf.Variable(array) for name, array in v.items()}
        with tf.GradientTape() as tape:
            value = loss(v)
        return tape.gradient(value, v)

    return loss, grad


FRAMEWORKS = pytest.mark.parametrize("made", [with_jax, with_tensorflow])


@FRAMEWORKS
def test_a_right_gradient_passes_by_complex_steps(made):
    f, grad = made()
    report = assert_gradients(f, grad, POINT)
    assert (report.method, report.tolerance, report.skipped) == ("complex-step", 1e-12, 0)


@FRAMEWORKS
def test_a_wrong_gradient_fails(made):
    f, grad = made()
    with pytest.raises(AssertionError, match="FAILED"):
        assert_gradients(f, lambda v: grad(v) | {"w": grad(v)["w"] * (1 + 1e-9)}, POINT)


@FRAMEWORKS
def test_a_function_with_a_modulus_is_checked_by_differences(made):
    f, grad = made()

    def modulus(v):
        return abs(f(v))  # f is positive, so the gradient stays

    report = assert_gradients(modulus, grad, POINT)
    assert report.method == "central-differences" and report.passed


@FRAMEWORKS
def test_what_computes_in_float32_is_judged_by_that_and_told_the_way_to_float64(made):
    f, grad = made()

    def coarse(v):
        return f({name: array.real.astype(np.float32) for name, array in v.items()})

    x = {name: array.astype(np.float32) for name, array in POINT.items()}
    with pytest.raises(AssertionError, match="f computes in float32: .*jax_enable_x64.*tf.float64"):
        assert_gradients(coarse, lambda v: {name: -g for name, g in grad(v).items()}, x)
