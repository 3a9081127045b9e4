"""Facts that no other test held: each was found by a mutant of the numerical core that survived.

Gradient checks hold a backward pass to its forward; a wrong forward with the backward of that
wrong forward passes them. So here values are held to formulas, written out in plain numbers.
"""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

import npple
from npple.core import ops
from npple.errors import InputError
from npple.core.passes import backward, forward, joint_loss, penalty_forward
from npple.verify.cases import random_case, random_model
from npple.routing import Experts, Gate, Level, Route, Source, Stitch, Table, Tower


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def z_of(log_alpha, u=None):
    """A hard concrete variable, from the definition (Louizos et al. 2018)."""
    x = log_alpha if u is None else (math.log(u / (1 - u)) + log_alpha) / (2 / 3)
    return min(1.0, max(0.0, sigmoid(x) * 1.2 - 0.1))


# Routing variables and penalties ----------------------------------------------------------------

@pytest.mark.parametrize("log_alpha", [-40.0, -3.0, -1.0, 0.0, 0.7, 2.0, 2.5, 40.0])
@pytest.mark.parametrize("u", [None, 0.01, 0.3, 0.5, 0.9])
def test_a_routing_variable_is_stretched_and_clipped(log_alpha, u):
    z, _ = ops.hard_concrete_forward(np.array([log_alpha]), None if u is None else np.array([u]))
    assert z[0] == pytest.approx(z_of(log_alpha, u), rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("end, start", [(0.0, -math.log(11)), (1.0, math.log(11))])
def test_a_routing_variable_exactly_at_an_end_is_clipped_and_has_no_gradient(end, start):
    near = start + np.spacing(start) * np.arange(-40, 41)
    z, cache = ops.hard_concrete_forward(near)
    _, gamma, zeta = ops.LIMITS
    s = ops.sigmoid_forward(near)[0] * (zeta - gamma) + gamma
    assert (s == end).any() and (z[s == end] == end).all()
    assert (ops.hard_concrete_backward(np.ones(81), cache)[s == end] == 0).all()


def test_the_expected_number_of_open_connections_is_that_of_the_distribution():
    log_alpha = np.array([-1.0, 0.3, 2.0])
    u = (np.arange(200_000) + 0.5) / 200_000
    open_ = [(ops.hard_concrete_forward(np.array(a), u)[0] > 0).mean() for a in log_alpha]
    assert ops.expected_l0_forward(log_alpha)[0] == pytest.approx(sum(open_), abs=1e-4)


def test_the_l0_penalty_is_the_sum_over_all_routes():
    case = random_case(npple.snr_aver(3, {"a": "binary"}, l0=0.5, experts=2))
    per_route = [0.5 * sum(sigmoid(a - 2 / 3 * math.log(0.1 / 1.1))
                           for a in case.params[f"{row.name}/route/log_alpha"])
                 for row in case.model.table.rows if isinstance(row, Route)]
    assert penalty_forward(case.model.table, case.params)[0] == pytest.approx(sum(per_route))


@pytest.mark.parametrize("units", [(4,), (4, 3), (2, 4, 3)])
def test_the_orthogonality_penalty_counts_each_pair_of_subspaces_once_in_each_layer(units):
    row = Experts("e", "input", 3, units, ("relu",) * len(units), penalty=0.7)
    rng, width, params, expected = np.random.default_rng(0), 5, {}, 0.0
    for i, unit in enumerate(units, start=1):
        w = params[f"e/layer{i}/weight"] = rng.normal(size=(3, width, unit))
        expected += sum(0.7 * ((w[a].T @ w[b]) ** 2).sum() for a in range(3) for b in range(a))
        width = unit
    assert row.penalty_forward(params)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["snr_trans", "snr_aver"])
def test_noise_opens_and_closes_the_routes(name):
    case = random_case(random_model(name))
    trace = case.model.forward(case.params, case.x, case.noise)
    for fusion, u in case.noise.items():
        log_alpha = case.params[f"{fusion}/route/log_alpha"]
        np.testing.assert_allclose(trace[f"{fusion}/route/z"], list(map(z_of, log_alpha, u)),
                                   rtol=1e-13, atol=1e-15)


# Copies -----------------------------------------------------------------------------------------

def some_experts():
    """A model whose gate takes two of three experts, which no builder makes."""
    experts = Experts("level1/a/experts", "input", 3, (4,), ("tanh",))
    gate = Gate("level1/a", (Source(experts.name, (2, 0)),), "input")
    tower = Tower("a", "binary", gate.name, (), ())
    return npple.Network(Table(3, (Level((experts,), (gate,)),), (tower,)))


@pytest.mark.parametrize("model", [*map(random_model, npple.ARCHITECTURES), some_experts()],
                         ids=[*npple.ARCHITECTURES, "some_experts"])
def test_backward_of_copies_is_the_backward_of_each(model):
    cases = [random_case(model, seed) for seed in (0, 1)]
    _, targets, masks, weights, noise = cases[0].batch
    masks = dict.fromkeys(targets) | masks

    def gradients(params):
        trace = forward(cases[0].model.table, params, cases[0].x, noise)
        return backward(trace, joint_loss(trace, targets, masks, weights)[1])

    together = gradients({key: np.stack([case.params[key] for case in cases])
                          for key in cases[0].params})
    for i, case in enumerate(cases):
        for key, gradient in gradients(case.params).items():
            np.testing.assert_allclose(together[key][i], gradient, rtol=1e-9, atol=1e-12,
                                       err_msg=key)


# State and print --------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_fresh_moments_have_the_shape_and_dtype_of_their_parameter(dtype):
    params = {"w": np.ones((2, 3), dtype), "b": np.ones(3, dtype)}
    state = npple.Adam().init(params)
    for name, p in params.items():
        for moment in (state[f"m/{name}"], state[f"v/{name}"]):
            assert (moment.shape, moment.dtype) == (p.shape, p.dtype) and not moment.any()
        assert state[f"t/{name}"].dtype == np.int64 and state[f"t/{name}"] == 0


@pytest.mark.parametrize("optimizer", [npple.Adam(), npple.SGD()])
def test_an_update_of_what_is_not_there_is_refused(optimizer):
    params = {"w": np.ones(2), "b": np.ones(2)}
    state = optimizer.init(params)
    with pytest.raises(InputError, match="^only: 'v' is no parameter"):
        optimizer.step(params, params, state, only=["w", "v", "u"])
    with pytest.raises(InputError, match="grads: missing 'b'"):
        optimizer.step(params, {"w": np.ones(2)}, state)


def test_a_trace_prints_a_line_for_each_tensor():
    case = random_case(random_model("cgc"))
    trace = case.model.forward(case.params, case.x)
    lines = repr(trace).splitlines()
    assert [line.split()[0] for line in lines] == list(trace)
    assert lines[0].endswith(str(trace["input"].shape))


# Initial values ---------------------------------------------------------------------------------

def test_the_constants_of_stitch_units_start_as_the_table_says():
    model = npple.cross_stitch(3, {"a": "binary", "b": "binary"}, own=0.7)
    stitches = {row: model.init(dtype=np.float32)[f"{row.parameters}/weight"]
                for row in model.table.rows if isinstance(row, Stitch)}
    assert stitches
    for row, alpha in stitches.items():
        np.testing.assert_array_equal(alpha, np.array(row.start, np.float32), strict=True)


def test_the_default_seed_is_0():
    model = random_model("ple")
    zero, default = model.init(seed=0), model.init()
    assert all((zero[name] == default[name]).all() for name in zero)


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
def test_a_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(InputError, match="seed: an integer of at least 0 is needed, got"):
        random_model("ple").init(seed)


def test_a_dtype_that_npple_does_not_compute_in_is_refused():
    with pytest.raises(InputError, match="^dtype: .*int64"):
        random_model("ple").init(dtype=np.dtype("int64"))


def test_routing_variables_start_mostly_open():
    model = npple.snr_aver(3, {"a": "binary"}, experts=40)
    for name, p in model.init().items():
        assert p.shape == model.shapes[name]
        if name.endswith("/log_alpha"):
            assert 0.5 <= p.min() < 0.7 and 1.3 < p.max() < 1.5


# Noise and penalties as arguments ---------------------------------------------------------------

class Extreme(np.random.Generator):
    """A random generator that always draws one end of the interval."""

    def __init__(self, end):
        super().__init__(np.random.PCG64())
        self.end = end

    def uniform(self, low, high, size):
        return np.full(size, (low, high)[self.end])


@pytest.mark.parametrize("end", [0, 1])
def test_noise_lies_strictly_between_0_and_1_in_the_precision_asked_for(end):
    model = random_model("snr_aver")
    for u in model.noise(Extreme(end), np.float32).values():
        assert u.dtype == np.float32 and ((0 < u) & (u < 1)).all()


@pytest.mark.parametrize("call", ["forward", "task_losses", "loss_and_grads"])
def test_noise_of_another_dtype_is_refused(call):
    case = random_case(random_model("snr_aver"))
    noise = {name: u.astype(np.float32) for name, u in case.noise.items()}
    batch = (case.x,) if call == "forward" else (case.x, case.targets)
    with pytest.raises(InputError, match="noise: .*float32"):
        getattr(case.model, call)(case.params, *batch, noise=noise)


def test_the_joint_loss_is_the_weighted_tasks_under_the_same_noise_and_the_penalties():
    case = random_case(random_model("snr_aver"))
    x, targets, masks, weights, noise = case.batch
    each = case.model.task_losses(case.params, x, targets, masks, noise)
    assert each != case.model.task_losses(case.params, x, targets, masks)
    joint = sum(weights[task] * loss for task, loss in each.items())
    loss, _ = case.model.loss_and_grads(case.params, *case.batch, penalties=False)
    assert loss == pytest.approx(joint, rel=1e-14)
    loss, _ = case.model.loss_and_grads(case.params, *case.batch)
    assert loss == pytest.approx(joint + penalty_forward(case.model.table, case.params)[0])


# gelu in extended precision ---------------------------------------------------------------------

def normal_tail(a):
    """Phi(-a) to 40 digits: 1/2 less the series of erf."""
    with localcontext() as context:
        context.prec = 60
        a, pi = Decimal(a), Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        term = total = a
        for k in range(1, 200):
            term = term * a * a / (2 * k + 1)
            total += term
        return Decimal("0.5") - total * (-a * a / 2).exp() / (2 * pi).sqrt()


@pytest.mark.parametrize("a, units", [
    (0.25, 12), (1.25, 12), (1.4375, 12), (1.5, 3), (1.5625, 3), (2.0, 3), (2.25, 3), (2.375, 3),
    (2.4375, 3), (3.5, 3), (6.0, 3)])
def test_gelu_in_extended_precision_is_exact_on_both_sides_of_its_change_of_formula(a, units):
    """The series below 1.5 subtracts from 1/2; the fraction from 1.5 on subtracts nothing."""
    eps = np.finfo(np.longdouble).eps
    y, _ = ops.gelu_forward(np.array([-a], np.longdouble))
    expected = np.longdouble(str(-Decimal(a) * normal_tail(a)))
    assert abs(y[0] / expected - 1) <= units * eps


# What is refused, by name -----------------------------------------------------------------------

@pytest.mark.parametrize("missing", ["m/w", "v/w"])
def test_a_step_of_adam_without_a_moment_is_refused(missing):
    params = {"w": np.ones(2)}
    state = npple.Adam().init(params)
    del state[missing]
    with pytest.raises(InputError, match=f"^state: missing '{missing}'"):
        npple.Adam().step(params, params, state)


@pytest.mark.parametrize("name", ["params", "grads", "state"])
def test_an_update_takes_dictionaries(name):
    given = {"params": {}, "grads": {}, "state": {}} | {name: [("w", np.ones(2))]}
    with pytest.raises(InputError, match=f"^{name}: a dict is needed"):
        npple.SGD().step(**given)


def test_the_names_to_update_are_texts():
    with pytest.raises(InputError, match="^only: 5, expected"):
        npple.SGD().step({}, {}, {}, only=5)


@pytest.mark.parametrize("changes, message", [
    ({"initial": 5}, "^initial: a dict"), ({"decay": 5}, "^decay: a dict"),
    ({"step": -1}, "^step: an integer"),
    ({"step": 10**400}, "^step: an integer"), ({"step": 10**15 + 1}, "^step: an integer"),
    ({"initial": {"a": "x"}}, "^initial: 'a' must")])
def test_task_weights_that_are_none_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        npple.task_weights(**{"initial": {"a": 1.0}, "decay": {"a": 0.5}, "step": 1} | changes)


def test_the_last_step_that_has_task_weights():
    assert npple.task_weights({"a": 1.0}, {"a": 0.5}, 10**15) == {"a": 0.0}


@pytest.mark.parametrize("rng, dtype, message", [
    (0, np.float64, "^rng: a numpy.random.Generator is needed, got 0"),
    (np.random.default_rng(0), "int8", "^dtype: 'int8'")])
def test_noise_needs_a_generator_and_a_dtype(rng, dtype, message):
    with pytest.raises(InputError, match=message):
        random_model("snr_aver").noise(rng, dtype)


def test_noise_has_the_precision_of_the_parameters():
    model = random_model("snr_aver")
    case = random_case(model)
    params = {name: p.astype(np.float32) for name, p in case.params.items()}
    x = ({name: column.astype(np.float32) if column.dtype.kind == "f" else column
          for name, column in case.x.items()} if isinstance(case.x, dict)
         else case.x.astype(np.float32))
    noise = {name: u.astype(np.float32) for name, u in case.noise.items()}
    assert model.forward(params, x, noise).outputs
    with pytest.raises(InputError, match="^noise: .*float64"):
        model.forward(params, x, case.noise)


# What overflows ---------------------------------------------------------------------------------

def regression(scale):
    """A model with parameters of ± scale, and a batch."""
    model = npple.shared_bottom(2, {"a": "regression"}, expert_units=(4,), tower_units=(3,))
    signs = np.random.default_rng(0)
    params = {name: scale * signs.choice([-1.0, 1.0], size=shape)
              for name, shape in model.shapes.items()}
    return model, params, np.ones((3, 2)), {"a": np.zeros(3)}


@pytest.mark.parametrize("scale, first", [(1e60, "a"), (1e200, "tower/a/layer1"),
                                          (1e308, "level1/shared/experts")])
def test_a_task_loss_that_is_not_finite_is_refused_with_the_first_tensor_that_is_not(scale, first):
    with pytest.raises(npple.errors.Diverged, match=f"^{first}.* is not finite"):
        model, *batch = regression(scale)
        model.task_losses(*batch)


@pytest.mark.parametrize("scale, first", [(1e60, "loss"), (1e200, "tower/a/layer1"),
                                          (1e308, "level1/shared/experts")])
def test_a_joint_loss_that_is_not_finite_is_refused_with_the_first_tensor_that_is_not(scale, first):
    with pytest.raises(npple.errors.Diverged, match=f"^{first}.* is not finite"):
        model, *batch = regression(scale)
        model.loss_and_grads(*batch)


def linear(slope):
    """y = slope (w x + b), w and b zero: a target t has the loss t², the gradient -2 t slope x."""
    model = npple.shared_bottom(1, {"a": "regression"}, expert_units=(1,), tower_units=(),
                                activation="identity")
    params = {name: np.zeros(shape) for name, shape in model.shapes.items()}
    params["tower/a/layer1/weight"] += slope
    return model, params


def test_losses_of_blocks_whose_sum_overflows_are_refused(monkeypatch):
    monkeypatch.setattr("npple.core.blocks.BLOCK", 1)
    model, params = linear(1e-300)
    targets = {"a": np.full(2, 1e-7)}
    half = model.loss_and_grads(params, np.ones((2, 1)), targets, weights={"a": 1e308})[0]
    assert half == pytest.approx(1e294, rel=1e-14)
    with pytest.raises(npple.errors.Diverged, match="^loss is not finite$"):
        model.loss_and_grads(params, np.ones((2, 1)), {"a": np.full(2, 1.4)},
                             weights={"a": 1e308})


def test_gradients_of_blocks_whose_sum_is_not_a_number_are_refused(monkeypatch):
    monkeypatch.setattr("npple.core.blocks.BLOCK", 1)
    model, params = linear(1.0)
    with pytest.raises(npple.errors.Diverged, match="^grad/level1/.*weight is not finite$"):
        model.loss_and_grads(params, np.array([[1e4], [-1e4]]), {"a": np.full(2, 0.1)},
                             weights={"a": 1e307})


@pytest.mark.parametrize("call", ["task_losses", "loss_and_grads"])
def test_a_logit_of_minus_infinity_closes_a_gate_and_leaves_the_loss_finite(call):
    model = npple.mmoe(1, {"a": "regression"}, experts=2, expert_units=(1,), tower_units=())
    params = model.init(0)
    params["level1/a/gate/layer1/weight"] = np.array([[-1e308, 0.0]])
    trace = model.forward(params, np.full((2, 1), 1.5))
    assert (trace["level1/a/gate/weights"] == [0, 1]).all()
    x = np.full((2, 1), 100.0)
    with np.errstate(over="ignore"):
        assert np.isneginf(model.forward(params, x)["level1/a/gate/logits"][:, 0]).all()
    assert getattr(model, call)(params, x, {"a": np.zeros(2)})


def test_the_gradient_of_an_input_that_nobody_asks_for_is_not_computed(monkeypatch):
    seen = []
    monkeypatch.setattr("npple.network.backward", lambda *given: seen.append(backward(*given))
                        or seen[-1])
    model, params = linear(1.0)
    model.loss_and_grads(params, np.ones((2, 1)), {"a": np.zeros(2)})
    assert "level1/a" in seen[0] and "input" not in seen[0]


def test_clipping_of_no_gradients_is_none():
    assert npple.SGD(clip=1.0).step({}, {}, {}) == ({}, {})


def test_gradients_whose_squares_underflow_are_clipped():
    params = {"w": np.zeros(2)}
    new, _ = npple.SGD(rate=1.0, clip=1e-200).step(params, {"w": np.array([3e-200, 4e-200])}, {})
    np.testing.assert_allclose(new["w"], [-0.6e-200, -0.8e-200], rtol=1e-14)
