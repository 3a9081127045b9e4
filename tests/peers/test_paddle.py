"""PLE, CGC and MMoE in PaddlePaddle, by the lines of docs/frameworks.md."""

import warnings

import pytest

from peers.written import MISTAKES, WRITTEN, Ops, forward, is_found, is_named, passes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that there is no ccache
    paddle = pytest.importorskip("paddle", exc_type=ImportError)
F = paddle.nn.functional

PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


class Net(paddle.nn.Layer):
    """Its layers are made in the first call."""

    def __init__(self, architecture, mistake):
        super().__init__()
        self.architecture, self.mistake = architecture, mistake

    def dense(self, name, inputs, units, bias=True):
        if not hasattr(self, name):
            self.add_sublayer(name, paddle.nn.Linear(inputs, units,
                                                     bias_attr=None if bias else False))
        return getattr(self, name)

    def forward(self, x):
        ops = Ops(self.dense, F.relu, F.softmax, lambda g: g.detach())
        return forward(ops, self.architecture, x, self.mistake)


def program(dtype, architecture="ple", mistake=""):
    paddle.set_default_dtype(dtype)
    layer = Net(architecture, mistake)
    layer(paddle.zeros((1, 5)))
    return {"layer": layer}


@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype):
    passes("PaddlePaddle", program(dtype, architecture), architecture, dtype)


@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(mistake, dtype):
    is_named("PaddlePaddle", program(dtype, mistake=mistake), mistake)


def test_its_mapping_is_found_under_any_names():
    is_found("PaddlePaddle", program("float64"), "ple")
