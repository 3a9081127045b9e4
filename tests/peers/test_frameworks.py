"""PLE, CGC and MMoE in JAX (a plain pytree) and functional PyTorch, by docs/frameworks.md."""

import pytest

from npple.oracle import ModuleMapping, from_arrays, into_arrays
from peers.written import MISTAKES, WRITTEN, Ops, asked, forward, is_found, is_named, passes


def by_jax(dtype, architecture="ple", mistake=""):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    zeros, params = jax.numpy.zeros, {}

    def apply(params, x):
        def dense(name, inputs, units, bias=True):
            layer = params.setdefault(name, {"weight": zeros((inputs, units), dtype)} | (
                {"bias": zeros(units, dtype)} if bias else {}))
            return lambda z: z @ layer["weight"] + layer.get("bias", 0)

        ops = Ops(dense, jax.nn.relu, jax.nn.softmax, jax.lax.stop_gradient)
        return forward(ops, architecture, x, mistake)

    apply(params, zeros((1, 5), dtype))
    return "JAX", {"params": params, "apply": apply}


def by_torch(dtype, architecture="ple", mistake=""):
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        """Its layers are made in the first call."""

        def dense(self, name, inputs, units, bias=True):
            if not hasattr(self, name):
                self.add_module(name, torch.nn.Linear(inputs, units, bias))
            return getattr(self, name)

        def forward(self, x):
            ops = Ops(self.dense, torch.relu, torch.softmax, torch.Tensor.detach)
            return forward(ops, architecture, x, mistake)

    module = Module()
    module(torch.zeros((1, 5)))
    return "PyTorch, functional", {"module": module.to(getattr(torch, dtype))}


FRAMEWORKS = pytest.mark.parametrize("framework", [by_jax, by_torch])
PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


@FRAMEWORKS
@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(framework, architecture, dtype):
    passes(*framework(dtype, architecture), architecture, dtype)


@FRAMEWORKS
@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(framework, mistake, dtype):
    is_named(*framework(dtype, mistake=mistake), mistake)


@FRAMEWORKS
def test_bfloat16_is_judged_as_such(framework):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    title, names = framework("float32")
    if framework is by_jax:
        import jax
        names["params"] = jax.tree.map(lambda leaf: leaf.astype(bfloat16), names["params"])
    else:
        names["module"] = names["module"].bfloat16()
    report = asked(title, names, "ple")
    assert {row.precision for row in report.rows} == {"bfloat16"} and not report.wrong


@FRAMEWORKS
def test_weights_written_come_out_again(framework):
    title, names = framework("float64")
    asked(title, names, "ple")
    model, mapping = WRITTEN["ple"][0], ModuleMapping(names["parameters"])
    params = model.init(1)
    back = from_arrays(into_arrays(names["weights"], model, mapping, params), model, mapping)
    assert all((back[name] == params[name]).all() for name in params)


@FRAMEWORKS
def test_its_mapping_is_found_under_any_names(framework):
    is_found(*framework("float64"), "ple")
