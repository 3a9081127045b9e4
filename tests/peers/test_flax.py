"""PLE, CGC and MMoE in Flax, by the lines of docs/frameworks.md."""

import pytest

from peers.written import MISTAKES, WRITTEN, Ops, forward, is_found, is_named, passes

jax = pytest.importorskip("jax")
nn = pytest.importorskip("flax.linen")

PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


class Net(nn.Module):
    architecture: str
    mistake: str
    dtype: str

    @nn.compact
    def __call__(self, x):
        def dense(name, inputs, units, bias=True):
            return nn.Dense(units, use_bias=bias, name=name, dtype=self.dtype,
                            param_dtype=self.dtype)
        ops = Ops(dense, nn.relu, nn.softmax, jax.lax.stop_gradient)
        return forward(ops, self.architecture, x, self.mistake)


def program(dtype, architecture="ple", mistake=""):
    jax.config.update("jax_enable_x64", True)
    module = Net(architecture, mistake, dtype)
    return {"module": module, "variables": module.init(jax.random.key(0), jax.numpy.zeros((1, 5)))}


@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype):
    passes("Flax", program(dtype, architecture), architecture, dtype)


@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(mistake, dtype):
    is_named("Flax", program(dtype, mistake=mistake), mistake)


def test_its_mapping_is_found_under_any_names():
    is_found("Flax", program("float64"), "ple")
