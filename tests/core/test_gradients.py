"""Every gradient in npple, from one multiplication to whole networks: read this from the top.

A backward function gets dL/dy and returns dL/dx. To check one by itself, make a loss of what its
forward returns: L = sum(c · y), c a constant array that looks like nothing else. Then dL/dy = c,
and the gradient that backward makes of c is compared with Im L(x + i h e_j) / h, entry by entry,
by `gradcheck_function`. Whole networks have a loss already, so `gradcheck` takes it from there.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import models, seeds, tables

import npple
from npple.core import ops
from npple.verify.gradcheck import demonstrate, gradcheck, gradcheck_function, hessian_vector
from npple.core.losses import kind_of, loss_backward, loss_forward
from npple.network import Network
from npple.verify.cases import random_case, random_model
from npple.routing import Concat, Experts, Gate, Pass, Pool, Route, Source, Stitch, Tower


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape)


def parts(name, gradient, dparts):
    """The gradients of an operation that took its experts in one part."""
    (dexperts,) = dparts
    return {name: gradient, "experts": dexperts}


def check(forward, backward, x):
    """`forward(x) -> (y, cache)` and `backward(dy, cache) -> dict` belong to each other at x."""
    c = normal(*forward(x)[0].shape)
    gradcheck_function(lambda x: (c * forward(x)[0]).sum(),
                       lambda x: backward(c, forward(x)[1]), x).check()


# Operations, each alone -------------------------------------------------------------------------

def test_dense():
    check(lambda v: ops.dense_forward(v["x"], v["weight"], v["bias"]),
          lambda dz, cache: dict(zip(("x", "weight", "bias"), ops.dense_backward(dz, cache))),
          {"x": normal(4, 3), "weight": normal(3, 2), "bias": normal(2)})


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activation(name):
    forward, backward = ops.ACTIVATIONS[name]
    z = np.concatenate([normal(20), 1e-6 * normal(5), 30 * normal(5), [25.0, -25.0]])
    check(lambda v: forward(v["z"]), lambda dy, cache: {"z": backward(dy, cache)}, {"z": z})


def test_softmax():
    check(lambda v: ops.softmax_forward(v["z"]),
          lambda dw, w: {"z": ops.softmax_backward(dw, w)}, {"z": normal(5, 4)})


@pytest.mark.parametrize("logits", [(50, 0, -50), (50, 50, -50), (-50, 49, 50), (0, 0, 0)])
def test_softmax_of_saturated_logits_keeps_its_small_gradients(logits):
    # weights of 1 - 2e-22 are 1; each logit is held against its own value, not against the largest
    z, dw = np.array(logits, float), np.array([0.3, -1.1, 0.7])
    got = ops.softmax_backward(dw, ops.softmax_forward(z)[1])
    w = np.exp(z.astype(np.longdouble) - z.max())
    w = w / w.sum()
    expected = [sum(w[i] * w[j] * (dw[i] - dw[j]) for j in range(3)) for i in range(3)]
    np.testing.assert_allclose(got, np.array(expected, float), rtol=1e-14)


def test_mixture():
    check(lambda v: ops.mixture_forward(v["w"], [v["experts"]]),
          lambda dy, cache: parts("w", *ops.mixture_backward(dy, cache)),
          {"w": normal(4, 3), "experts": normal(3, 4, 2)})


def test_stitch():
    check(lambda v: ops.stitch_forward(v["alpha"], [v["experts"]]),
          lambda dy, cache: parts("alpha", *ops.stitch_backward(dy, cache)),
          {"alpha": normal(2, 3), "experts": normal(3, 4, 2)})


@pytest.mark.parametrize("noise", [None, np.linspace(0.05, 0.95, 7)])
def test_hard_concrete(noise):
    check(lambda v: ops.hard_concrete_forward(v["log_alpha"], noise),
          lambda dz, cache: {"log_alpha": ops.hard_concrete_backward(dz, cache)},
          {"log_alpha": normal(7)})


def test_expected_l0():
    check(lambda v: ops.expected_l0_forward(v["log_alpha"]),
          lambda c, cache: {"log_alpha": c * ops.expected_l0_backward(cache)},
          {"log_alpha": normal(7)})


@pytest.mark.parametrize("inputs", [False, True])
def test_overlap(inputs):
    w = normal(3, 4, 2)
    check(lambda v: ops.overlap_forward(v["w"], inputs),
          lambda c, cache: {"w": c * ops.overlap_backward(cache)}, {"w": w})
    pairs = [w[i] @ w[j].T if inputs else w[i].T @ w[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = sum((pair ** 2).sum() for pair in pairs)
    np.testing.assert_allclose(ops.overlap_forward(w, inputs)[0], expected, rtol=1e-12)


def test_transforms_in_two_parts():
    weight, experts = normal(3, 4, 2), normal(3, 5, 4)

    def forward(v):
        made, cache = ops.transform_forward(v["weight"], [v["experts"][:1], v["experts"][1:]])
        return np.concatenate(made), cache

    def backward(dy, cache):
        dweight, dparts = ops.transform_backward([dy[:1], dy[1:]], cache)
        return {"weight": dweight, "experts": np.concatenate(dparts)}

    check(forward, backward, {"weight": weight, "experts": experts})
    np.testing.assert_allclose(forward({"weight": weight, "experts": experts})[0],
                               [e @ w for e, w in zip(experts, weight)], rtol=1e-12)


def test_embedding_with_repeated_and_unused_codes():
    codes = np.array([3, 0, 3, 3, 1])
    check(lambda v: ops.embedding_forward(v["table"], codes),
          lambda dy, cache: {"table": ops.embedding_backward(dy, cache)}, {"table": normal(5, 2)})


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_bags_with_repeated_codes_and_an_empty_one(pool):
    codes = np.array([[3, 0, 3], [-1, -1, -1], [1, -1, 3]])
    check(lambda v: ops.embedding_forward(v["table"], codes, pool),
          lambda dy, cache: {"table": ops.embedding_backward(dy, cache)}, {"table": normal(5, 2)})


# Losses -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["binary", "regression", "multiclass:3"])
@pytest.mark.parametrize("mask", [None, np.array([True, False, True, True, False])])
def test_loss_of_a_task_on_its_own_rows(kind, mask):
    y = np.array([0, 1, 2, 1, 0]) if kind == "multiclass:3" else np.array([0.0, 1, 1, 0, 1])
    z = {"z": normal(*(5, 3) if kind == "multiclass:3" else (5,))}
    check(lambda v: loss_forward(kind_of(kind), v["z"], y, mask),
          lambda c, cache: {"z": loss_backward(c, cache)}, z)


@pytest.mark.parametrize("z", [-600.0, -50.0, -1e-6, 0.0, 1e-6, 50.0, 600.0])
@pytest.mark.parametrize("y", [0, 1])
def test_cross_entropy_of_a_certain_model(z, y):
    for name, logits in (("binary", [z]), ("multiclass:2", [[z, 0.0]])):
        kind = kind_of(name)
        check(lambda v: kind.forward(v["z"], np.array([y])),
              lambda c, cache: {"z": (kind.backward(cache).T * c).T}, {"z": np.array(logits)})


# Rows of the routing table: experts, gates, towers ----------------------------------------------

def check_row(row, shapes, fixed=None):
    """One row by itself, with respect to its parameters and to all that it reads."""
    def gradients(dy, cache):
        found = {}
        for name, gradient in row.backward(dy, cache, frozenset()):
            found[name] = found.get(name, 0) + gradient
        return found

    def made(v):
        tensors, cache = row.forward(v, v | (fixed or {}))
        return tensors[row.name], cache

    check(made, gradients, {name: normal(*shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_a_group_of_experts(activation):
    check_row(Experts("e", "input", 3, (4, 2), (activation, activation)),
              {"input": (5, 3), "e/layer1/weight": (3, 3, 4), "e/layer1/bias": (3, 4),
               "e/layer2/weight": (3, 4, 2), "e/layer2/bias": (3, 2)})


def test_a_gate_over_two_groups():
    check_row(Gate("g", (Source("a"), Source("b")), "input"),
              {"input": (5, 3), "a": (2, 5, 4), "b": (1, 5, 4), "g/gate/layer1/weight": (3, 3)})


def test_a_gate_with_a_hidden_layer_over_some_experts_of_a_group():
    check_row(Gate("g", (Source("a", (2, 0)), Source("b")), "input", (6,), ("tanh",), True),
              {"input": (5, 3), "a": (3, 5, 4), "b": (1, 5, 4), "g/gate/layer1/weight": (3, 6),
               "g/gate/layer1/bias": (6,), "g/gate/layer2/weight": (6, 3),
               "g/gate/layer2/bias": (3,)})


def test_a_pass_of_one_expert_of_many():
    check_row(Pass("p", (Source("a", (1,)),)), {"a": (3, 5, 4)})


SOURCES = (Source("a", (2, 0)), Source("r", group=False), Source("b"))  # 4 experts in all
READ = {"a": (3, 5, 4), "r": (5, 4), "b": (1, 5, 4)}


def test_a_concatenation():
    check_row(Concat("c", SOURCES), READ)


@pytest.mark.parametrize("mean", [False, True])
def test_a_sum_or_mean_of_experts(mean):
    check_row(Pool("p", SOURCES, mean), READ)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_a_cross_stitch_unit(channels):
    check_row(Stitch("s", SOURCES, ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)), bool(channels)),
              READ | {"s/stitch/weight": (2, 4, *channels)})


@pytest.mark.parametrize("transform", [False, True])
def test_a_route_with_noise(transform):
    shapes = {"r/route/weight": (4, 4, 4)} if transform else {}
    check_row(Route("r", SOURCES, transform), READ | shapes | {"r/route/log_alpha": (4,)},
              {"r/route/noise": np.array([0.2, 0.4, 0.6, 0.7])})


@pytest.mark.parametrize("kind, outputs", [("binary", 1), ("multiclass:2", 2), ("multiclass:3", 3)])
def test_a_tower(kind, outputs):
    check_row(Tower("t", kind, "input", (4,), ("gelu",)),
              {"input": (5, 3), "tower/t/layer1/weight": (3, 4), "tower/t/layer1/bias": (4,),
               "tower/t/layer2/weight": (4, outputs), "tower/t/layer2/bias": (outputs,)})


# Whole networks ---------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_ple_of_any_depth(levels):
    case = random_case(random_model("ple", levels=levels), seed=levels)
    gradcheck(case.model, case.params, *case.batch, inputs=True).check()


EXTENDED = np.finfo(np.longdouble).eps < 1e-18


@pytest.mark.parametrize("method, bound", [("complex-step", 1e-12), ("directional", 1e-12),
                                           ("central-differences", 1e-9 if EXTENDED else 1e-7)])
@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_every_architecture_by_every_method(name, method, bound):
    report = demonstrate(name, method=method)
    assert report.tolerance <= bound
    assert report.check().checked + report.skipped == sum(
        np.prod(shape) for shape in random_model(name).shapes.values())


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_rounding_of_every_architecture(name):
    assert demonstrate(name, method="longdouble").max_relative_error <= 1e-12


def extended(model, seed, batch):
    """A case in extended precision, where a check to 1e-12 has rounding to spare."""
    return random_case(model, seed, batch, np.longdouble)


@settings(max_examples=15)
@given(models(), seeds, st.integers(1, 6))
def test_any_architecture_on_any_batch(model, seed, batch):
    case = extended(model, seed, batch)
    gradcheck(case.model, case.params, *case.batch, inputs=True).check()


@settings(max_examples=15)
@given(tables(), seeds, st.integers(1, 6))
def test_any_routing_table(table, seed, batch):
    case = extended(Network(table), seed, batch)
    gradcheck(case.model, case.params, *case.batch, inputs=True).check()


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_inputs_of_any_size(activation, size):
    model = npple.ple(3, {"a": "binary", "b": "multiclass:3"}, expert_units=(4,), tower_units=(3,),
                      activation=activation)
    case = random_case(model)
    gradcheck(model, case.params, size * case.x, *case.batch[1:], inputs=True).check()


def saturated(model, logit=50.0):
    """A case with each gate's logits scaled so that the largest is ±50."""
    case = random_case(model, seed=1)
    trace = case.model.forward(case.params, case.x, case.noise)
    for name, tensor in trace.items():
        if name.endswith("gate/logits"):
            last = max(p for p in case.params if p.startswith(name.removesuffix("logits"))
                       and p.endswith("weight"))
            case.params[last] *= logit / np.abs(tensor).max()
    return case


@pytest.mark.parametrize("name", ["mmoe", "cgc", "ple", "ml_mmoe"])
def test_saturated_gates(name):
    case = saturated(random_model(name))
    gradcheck(case.model, case.params, *case.batch, inputs=True).check()
    rounding = gradcheck(case.model, case.params, *case.batch, method="longdouble", inputs=True)
    assert rounding.max_relative_error <= 1e-12


def test_a_task_of_weight_zero_leaves_exact_zeros():
    case = random_case(random_model("single_task"))
    weights = case.weights | {"task2": 0.0}
    report = gradcheck(case.model, case.params, case.x, case.targets, case.masks, weights).check()
    own = [row for row in report.rows if "/task2/" in row.name]
    assert own and all(row.analytic == row.numeric == row.error == 0 for row in own)


# Second derivatives -----------------------------------------------------------------------------

def dot(a, b):
    return sum((a[name] * b[name]).sum() for name in a)


def random_vectors(case, count):
    return [{name: np.random.default_rng([i, p.size]).normal(size=p.shape).astype(p.dtype)
             for name, p in case.params.items()} for i in range(count)]


@pytest.mark.parametrize("size", [1e-300, 1e-5, 1e28, 1e30, 1e280])
def test_hessian_vector_product_is_exact_for_vectors_of_any_size(size):
    case = random_case(random_model("ple"))
    v, = random_vectors(case, 1)
    long = {name: size * along for name, along in v.items()}
    product, large = (hessian_vector(case.model, case.params, u, *case.batch) for u in (v, long))
    for name, along in product.items():
        scale = np.abs(along).max()
        np.testing.assert_allclose(large[name] / size, along, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_hessian_is_symmetric(name):
    case = random_case(random_model(name))
    u, v = random_vectors(case, 2)
    ours, theirs = (dot(a, hessian_vector(case.model, case.params, b, *case.batch))
                    for a, b in ((u, v), (v, u)))
    assert ours == pytest.approx(theirs, rel=1e-11)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus", "sigmoid"])
def test_hessian_vector_product_is_the_difference_of_gradients(activation):
    model = npple.ple(4, {"a": "binary", "b": "regression", "c": "multiclass:3"}, levels=2,
                      expert_units=(5,), tower_units=(3,), activation=activation)
    case = random_case(model, dtype=np.longdouble)
    v, = random_vectors(case, 1)
    h = np.longdouble(1e-6)
    plus, minus = (model.loss_and_grads({n: p + s * h * v[n] for n, p in case.params.items()},
                                        *case.batch)[1] for s in (1, -1))
    for name, product in hessian_vector(model, case.params, v, *case.batch).items():
        expected = (plus[name] - minus[name]) / (2 * h)
        assert np.abs(product - expected).max() <= 1e-9 * max(1, np.abs(expected).max()), name


def test_hessian_vector_product_of_float32_parameters_comes_in_float32():
    case = random_case(random_model("cgc"), dtype=np.float32)
    wide = random_case(random_model("cgc"), dtype=np.float64)
    v, = random_vectors(case, 1)
    narrow = hessian_vector(case.model, case.params, v, *case.batch)
    exact = hessian_vector(wide.model, wide.params, v, *wide.batch)
    for name, product in narrow.items():
        assert product.dtype == np.float32
        np.testing.assert_allclose(product, exact[name], atol=1e-4 * np.abs(exact[name]).max())
