"""PLE, CGC and MMoE in Keras over TensorFlow, by the lines of docs/frameworks.md."""

import pytest

from peers.written import MISTAKES, WRITTEN, Ops, forward, is_found, is_named, passes

keras = pytest.importorskip("keras", exc_type=ImportError)
tf = pytest.importorskip("tensorflow")

PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


def program(dtype, architecture="ple", mistake=""):
    """A functional model; each layer is asked for once."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    ops = Ops(lambda name, inputs, units, bias=True: keras.layers.Dense(units, use_bias=bias,
                                                                        name=name),
              keras.ops.relu, lambda z, axis: keras.ops.softmax(z, axis=axis),
              keras.ops.stop_gradient)
    x = keras.Input((5,))
    return {"network": keras.Model(x, forward(ops, architecture, x, mistake))}


@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype):
    passes("Keras", program(dtype, architecture), architecture, dtype)


@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(mistake, dtype):
    is_named("Keras", program(dtype, mistake=mistake), mistake)


def test_its_mapping_is_found_under_any_names():
    is_found("Keras", program("float64"), "ple")
