"""Adam and SGD: Algorithm 1 number by number, its options, its state, and what moments do."""

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple import SGD, Adam, AdamW
from npple.core.optimizers import adam_update
from strategies import DTYPES, assert_close, assert_equal, problem, random_target, random_x, seeds

SETTINGS = st.builds(dict, rate=st.floats(1e-5, 1), beta1=st.floats(0, 0.99),
                     beta2=st.floats(0, 0.9999), epsilon=st.floats(1e-10, 1e-2))


def drawn_steps(seed, steps, dtype="float64"):
    """Parameters and a list of gradients of very uneven size."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (3, 2), "b": (2,), "e": (1,)}

    def arrays(scale):
        return {name: np.asarray(scale * rng.standard_normal(shape), dtype)
                for name, shape in shapes.items()}
    return arrays(1), [arrays(10.0 ** rng.integers(-4, 4)) for _ in range(steps)]


def algorithm_1(theta, gradients, rate, beta1, beta2, epsilon, weight_decay=0.0, scale=None):
    """Kingma & Ba's pseudocode line by line, on one number, in longdouble: theta, way it went."""
    alpha, beta1, beta2, epsilon, theta = map(np.longdouble, (rate, beta1, beta2, epsilon, theta))
    m, v, t, way = np.longdouble(0), np.longdouble(0), 0, abs(theta)
    for g in gradients:
        t = t + 1
        decayed = (alpha if scale is None else scale) * np.longdouble(weight_decay) * theta
        g = np.longdouble(g)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - decayed - alpha * m_hat / (np.sqrt(v_hat) + epsilon)
        way = way + abs(alpha * m_hat / (np.sqrt(v_hat) + epsilon))
    return theta, way


def run(optimizer, params, gradients, state=None, **options):
    state = optimizer.init(params) if state is None else state
    for grads in gradients:
        params, state = optimizer.step(params, grads, state, **options)
    return params, state


@given(SETTINGS, seeds, st.sampled_from([0.0, 0.01, 0.5]))
def test_adam_is_algorithm_1(settings, seed, weight_decay):
    """With decoupled weight decay in front; 25 steps, each number by itself."""
    start, gradients = drawn_steps(seed, 25)
    params, _ = run(Adam(weight_decay=weight_decay, **settings), start, gradients)
    for name, p in params.items():
        for at in np.ndindex(p.shape):
            exact, way = algorithm_1(start[name][at], [g[name][at] for g in gradients],
                                     weight_decay=weight_decay, **settings)
            assert abs(p[at] - exact) < 1e-13 * way


@given(SETTINGS, seeds)
def test_adamw_is_algorithm_2(settings, seed):
    """Each step takes weight_decay · p, whatever the rate: 25 steps, each number by itself."""
    start, gradients = drawn_steps(seed, 25)
    params, _ = run(AdamW(weight_decay=0.01, **settings), start, gradients)
    for name, p in params.items():
        for at in np.ndindex(p.shape):
            exact, way = algorithm_1(start[name][at], [g[name][at] for g in gradients],
                                     weight_decay=0.01, scale=1, **settings)
            assert abs(p[at] - exact) < 1e-13 * way


@given(seeds, st.sampled_from([Adam, AdamW, SGD]), st.floats(1e-3, 1e3))
def test_a_factor_multiplies_the_rate_of_its_parameter_alone(seed, kind, factor):
    start, gradients = drawn_steps(seed, 3)
    found, _ = run(kind(rate=0.01, weight_decay=0.1), start, gradients, factors={"w": factor})
    plain, _ = run(kind(rate=0.01, weight_decay=0.1), start, gradients)
    faster, _ = run(kind(rate=0.01 * factor, weight_decay=0.1), start, gradients)
    assert_equal(found, plain | {"w": faster["w"]})


def test_the_first_step_is_the_rate_whatever_the_size_of_the_gradient():
    """The bias corrections cancel: m_hat / sqrt(v_hat) is the gradient's sign."""
    grads = {"w": np.array([1e-3, -1.0, 1e6])}
    params, _ = run(Adam(rate=0.5, epsilon=1e-30), {"w": np.zeros(3)}, [grads])
    np.testing.assert_allclose(params["w"], [-0.5, 0.5, -0.5], rtol=1e-14)


def test_weight_decay_is_decoupled_from_the_gradient():
    """Without a gradient a parameter shrinks by exactly 1 - rate · weight_decay a step."""
    start = {"w": np.array([4.0, -8.0])}
    for optimizer in (Adam(rate=0.5, weight_decay=0.5), SGD(rate=0.5, weight_decay=0.5)):
        params, _ = run(optimizer, start, [{"w": np.zeros(2)}] * 2)
        np.testing.assert_array_equal(params["w"], start["w"] * 0.75**2)


@given(seeds)
def test_sgd_goes_down_the_gradient(seed):
    start, (grads,) = drawn_steps(seed, 1)
    params, state = run(SGD(rate=0.5), start, [grads])
    assert state == {}
    assert_equal(params, {name: start[name] - 0.5 * grads[name] for name in start})


@given(seeds, st.floats(0.1, 10))
def test_clipping_scales_all_gradients_together_to_the_global_norm(seed, clip):
    start, (grads,) = drawn_steps(seed, 1)
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    scale = min(1, clip / norm)
    params, _ = run(SGD(rate=1.0, clip=clip), start, [grads])
    assert_close(params, {name: start[name] - scale * g for name, g in grads.items()}, 1e-13)
    adam = {"rate": 0.1, "epsilon": 1.0}
    clipped, _ = run(Adam(clip=clip, **adam), start, [grads])
    by_hand, _ = run(Adam(**adam), start, [{name: scale * g for name, g in grads.items()}])
    assert_close(clipped, by_hand, 1e-13)


@pytest.mark.parametrize("optimizer", [SGD(rate=1.0, clip=1.0), Adam(rate=1.0, clip=1.0)])
def test_gradients_whose_squares_overflow_are_clipped_to_the_same_norm(optimizer):
    start = {"w": np.zeros(2, np.float32), "none": np.zeros((0, 3), np.float32)}
    vast, plain = ({"w": np.array(g, np.float32), "none": start["none"]}
                   for g in ([3e30, -4e30], [3, -4]))
    assert_close(run(optimizer, start, [vast])[0], run(optimizer, start, [plain])[0], 1e-6)


def test_gradients_within_the_norm_are_left_alone():
    start, (grads,) = drawn_steps(1, 1)
    assert_equal(run(Adam(clip=1e9), start, [grads])[0], run(Adam(), start, [grads])[0])
    nothing = {name: np.zeros_like(g) for name, g in grads.items()}
    assert_equal(run(SGD(clip=1.0), start, [nothing])[0], start)


@pytest.mark.parametrize("dtype", DTYPES[:3])
@pytest.mark.parametrize("number", [float, np.float64, np.longdouble])
def test_an_update_keeps_the_precision_of_the_parameters(dtype, number):
    """Also when a setting is a NumPy scalar, which would cast a float32 array by itself."""
    start, gradients = drawn_steps(0, 3, dtype)
    settings = {"rate": number(0.1), "weight_decay": number(0.1), "clip": number(0.1)}
    for optimizer in (Adam(beta1=number(0.9), **settings), SGD(**settings)):
        params, state = run(optimizer, start, gradients)
        moments = [a for name, a in state.items() if not name.startswith("t/")]
        assert {a.dtype for a in [*params.values(), *moments]} == {np.dtype(dtype)}


# State ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("optimizer", [Adam(0.01, weight_decay=0.1, clip=1.0), SGD(0.01)])
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_saved_and_resumed_it_continues_bit_for_bit(optimizer, dtype):
    params, gradients = drawn_steps(3, 20, dtype)
    straight, straight_state = run(optimizer, params, gradients)
    params, state = run(optimizer, params, gradients[:7])
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    params, state = run(optimizer, params, gradients[7:], state=dict(np.load(file)))
    assert_equal(params, straight)
    assert_equal(state, straight_state)


def test_the_state_is_two_moments_and_a_count_for_each_parameter():
    params, gradients = drawn_steps(0, 2)
    state = Adam().init(params)
    assert set(state) == {f"{kind}/{name}" for kind in "mvt" for name in params}
    assert not any(a.any() for a in state.values())
    _, state = run(Adam(), params, gradients)
    assert {name: int(state[f"t/{name}"]) for name in params} == dict.fromkeys(params, 2)
    for name, g in gradients[1].items():
        np.testing.assert_allclose(state[f"m/{name}"], 0.09 * gradients[0][name] + 0.1 * g,
                                   rtol=1e-12)


@pytest.mark.parametrize("optimizer", [Adam(weight_decay=0.1, clip=0.1),
                                       SGD(weight_decay=0.1, clip=0.1)])
@pytest.mark.parametrize("only", [None, ["w"]])
def test_a_step_changes_nothing_that_came_in(optimizer, only):
    params, (first, grads) = drawn_steps(0, 2)
    params, state = run(optimizer, params, [first])
    given_in = [params, grads, state]
    copies = [{name: a.copy() for name, a in arrays.items()} for arrays in given_in]
    for arrays in given_in:
        for array in arrays.values():
            array.flags.writeable = False
    optimizer.step(params, grads, state, only=only)
    for arrays, copied in zip(given_in, copies, strict=True):
        assert_equal(arrays, copied)


@given(seeds)
def test_only_updates_what_it_names_and_freezes_the_rest(seed):
    """Value, moments and count; as if the other parameters were not there."""
    start, gradients = drawn_steps(seed, 3)
    for optimizer in (Adam(weight_decay=0.1), SGD(weight_decay=0.1)):
        params, state = run(optimizer, start, gradients[:1])
        after, after_state = run(optimizer, params, gradients[1:], state, only=["w", "e"])
        alone = {name: params[name] for name in ("w", "e")}
        expected, _ = run(optimizer, alone, gradients[1:],
                          {name: a for name, a in state.items() if not name.endswith("/b")})
        assert_equal(after, expected | {"b": params["b"]})
        for kind in "mvt" if state else "":
            assert after_state[f"{kind}/b"] is state[f"{kind}/b"]
            assert after_state[f"{kind}/w"] is not state[f"{kind}/w"]
        assert_equal(run(optimizer, params, gradients, state, only=[])[0], params)


# Moments and sample spaces ----------------------------------------------------------------------

@pytest.fixture
def interrupted():
    """A PLE after one step with both tasks; in the next, task b has no sample."""
    model = npple.ple(4, {"a": "binary", "b": "regression"}, expert_units=(5,), tower_units=(3,),
                      activation="tanh")
    drawn = problem(model, 0, 8)
    params, state = run(Adam(0.01), drawn.params, [drawn.loss_and_grads(masks={})[1]])
    grads = model.loss_and_grads(params, drawn.x, drawn.targets, {"b": np.zeros(8, bool)})[1]
    only_b = [name for name in params if name not in model.table.reached_parameters(["a"])]
    return model, params, grads, state, only_b


def test_moments_keep_moving_a_task_that_had_no_sample(interrupted):
    """The gradient is exactly 0, yet the old momentum moves every number by nearly a full step."""
    model, params, grads, state, only_b = interrupted
    assert "tower/b/layer1/weight" in only_b and "level2/b/experts/layer1/weight" in only_b
    assert not any(grads[name].any() for name in only_b)
    moved, _ = Adam(0.01).step(params, grads, state)
    for name in only_b:
        size = np.abs(moved[name] - params[name])
        assert (size > 0.005).all() and (size < 0.01).all()


def test_only_the_reached_parameters_stops_them(interrupted):
    model, params, grads, state, only_b = interrupted
    moved, _ = Adam(0.01).step(params, grads, state, only=model.table.reached_parameters(["a"]))
    for name in params:
        if name in only_b:
            assert moved[name] is params[name]
        else:
            assert (moved[name] != params[name]).all()


def test_plain_gradient_descent_has_no_such_memory(interrupted):
    _, params, grads, _, only_b = interrupted
    moved, _ = SGD(0.01).step(params, grads, {})
    for name in only_b:
        np.testing.assert_array_equal(moved[name], params[name])


@pytest.mark.parametrize("optimizer", [Adam(0.03), SGD(0.3)])
def test_training_fits_every_kind_of_task(optimizer):
    model = npple.cgc(4, {"a": "binary", "b": "regression", "c": "multiclass:3"},
                      expert_units=(8,), activation="tanh")
    rng = np.random.default_rng(0)
    x = random_x(rng, model.table, 12)
    targets = {task: random_target(rng, kind, 12) for task, kind in model.tasks.items()}
    params = model.init(0)
    state, before = optimizer.init(params), model.task_losses(params, x, targets)
    for _ in range(100):
        params, state = optimizer.step(params, model.loss_and_grads(params, x, targets)[1], state)
    after = model.task_losses(params, x, targets)
    assert all(after[task] < 0.5 * before[task] for task in model.tasks)


@pytest.mark.parametrize("settings", [
    {"rate": 0}, {"rate": -1}, {"rate": float("nan")}, {"rate": "0.1"}, {"beta1": 1.0},
    {"beta2": 1.5}, {"beta1": -0.1}, {"epsilon": -1e-8}, {"epsilon": 0}, {"weight_decay": -0.1},
    {"weight_decay": float("inf")}, {"clip": 0}, {"clip": -1.0}, {"clip": "none"}])
def test_settings_outside_their_range_are_refused_by_name(settings):
    name, = settings
    with pytest.raises(npple.InputError, match=f"^{name} must be "):
        Adam(**settings)
    if name in ("rate", "weight_decay", "clip"):
        with pytest.raises(npple.InputError, match=f"^{name} must be "):
            SGD(**settings)


@pytest.mark.parametrize("optimizer", [Adam(clip=1.0), SGD(clip=1.0)])
def test_a_gradient_that_holds_no_floats_is_refused_even_if_not_used(optimizer):
    params = {"w": np.ones(2)}
    grads = params | {"other": np.array([b"x"])}
    with pytest.raises(npple.InputError, match="grads: 'other': an array of floats is needed"):
        optimizer.step(params, grads, optimizer.init(params))


@pytest.mark.parametrize("params", [None, 1.5, [np.ones(2)]])
@pytest.mark.parametrize("optimizer", [Adam(), SGD()])
def test_parameters_that_are_no_dictionary_are_refused(optimizer, params):
    with pytest.raises(npple.InputError, match="params: a dict is needed"):
        optimizer.step(params, {}, {}, only=["w"])


# Where numbers end ------------------------------------------------------------------------------

def one_step(g, dtype="float32", optimizer=Adam(), state=None):
    params = {"w": np.zeros(1, dtype)}
    return optimizer.step(params, {"w": np.full(1, g, dtype)}, state or optimizer.init(params))


@pytest.mark.parametrize("g", [1e18, 1.9e19, 1e20, 5e20, -5e20])
def test_no_step_is_lost_while_the_second_moment_itself_is_finite(g):
    params, state = one_step(g)
    np.testing.assert_allclose(params["w"], -1e-3 * np.sign(g), rtol=1e-6)
    np.testing.assert_allclose(state["v/w"], 1e-3 * g * g, rtol=1e-6)


@pytest.mark.parametrize("g, moment", [(1e21, "v/w"), (np.inf, "m/w"), (np.nan, "m/w")])
def test_a_moment_that_is_not_finite_stops_training_and_is_named(g, moment):
    with pytest.raises(npple.Diverged, match=f"^{moment}, a moment of Adam, is not finite"):
        one_step(g)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint64"])
def test_counts_of_any_width_go_on(kind):
    state = {"m/w": np.zeros(1), "v/w": np.ones(1)}
    largest = min(np.iinfo(kind).max, 2**62)
    params, after = one_step(1.0, float, state=state | {"t/w": np.array(largest, kind)})
    assert params["w"].dtype == float and after["t/w"] == largest + 1
    again, _ = one_step(1.0, float, state=state | {"t/w": np.array(largest, int)})
    assert params["w"] == again["w"]


@pytest.mark.parametrize("count", [np.int64(2**63 - 1), np.uint64(2**63), np.int8(-1)])
def test_a_count_that_cannot_go_on_is_refused(count):
    state = {"m/w": np.zeros(1), "v/w": np.ones(1), "t/w": np.array(count)}
    with pytest.raises(npple.InputError, match=f"state: t/'w': a count below .* {count}"):
        one_step(1.0, float, state=state)


def test_a_mean_of_squares_below_0_is_refused():
    state = {"m/w": np.zeros(1), "v/w": np.array([-1e-30]), "t/w": np.array(1)}
    with pytest.raises(npple.InputError, match="^state: v/'w': below 0, expected what a step"):
        one_step(1.0, float, state=state)


@pytest.mark.parametrize("epsilon, dtype", [(1e-46, "float32"), (1e-8, "float16")])
def test_an_epsilon_below_the_smallest_number_is_refused(epsilon, dtype):
    with pytest.raises(npple.InputError, match=f"epsilon: {epsilon} is 0 in {dtype}, that of 'w'"):
        one_step(0.0, dtype, Adam(epsilon=epsilon))


def test_the_smallest_epsilon_leaves_what_has_no_gradient_alone():
    assert one_step(0.0, "float32", Adam(epsilon=1e-45))[0]["w"] == 0


def test_one_vector_gives_the_bits_of_each_parameter_by_itself():
    """Formula and order are those of the core's update, also over several pieces and shares."""
    params, gradients = drawn_steps(0, 3, "float32")
    sizes = {"big": 2 ** 18 + 5, "w": 3}
    gradients = [{name: np.resize(g["w"], n) for name, n in sizes.items()} for g in gradients]
    start = {name: np.resize(params["w"], n) for name, n in sizes.items()}
    both, state = run(Adam(), start, gradients)
    for name, p in start.items():
        m = v = np.zeros_like(p)
        for t, g in enumerate(gradients, start=1):
            p, m, v = adam_update(p, g[name], m, v, t, 1e-3, 0.9, 0.999, 1e-8, 0.0)
        for ours, theirs in ((both[name], p), (state[f"m/{name}"], m), (state[f"v/{name}"], v)):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("change", [
    lambda params: params | {"w": params["u"], "u": params["w"]},
    lambda params: params.update(w=params["u"], u=params["w"]) or params,
    lambda params: params["w"].__setitem__(0, 9) or params,
    lambda params: {name: params[name] for name in reversed(params)}],
    ids=["swapped", "swapped in place", "written to", "reversed"])
def test_parameters_that_were_changed_after_a_step_are_taken_as_they_are(change):
    """Also where they are still views of the vector of that step."""
    start = {"w": np.ones(3), "u": np.full(3, 2.0)}
    params, state = run(Adam(), start, [start])
    params = change(params)
    copied = {name: p.copy() for name, p in params.items()}
    found, _ = Adam().step(params, copied, state)
    expected, _ = Adam().step(copied, copied, {name: s.copy() for name, s in state.items()})
    assert_equal(found, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))],
                         ids=["copied", "pickled"])
def test_what_was_copied_after_a_step_may_be_changed_in_place(copied):
    params, _ = run(Adam(), {"w": np.ones(3)}, [{"w": np.ones(3)}])
    params = copied(params)
    params["w"][0] = 5
    found, _ = Adam().step(params, {"w": np.zeros(3)}, Adam().init(params))
    assert found["w"][0] == 5


def test_an_array_of_a_class_of_its_own_is_updated_in_its_own_arithmetic():
    class Counting(np.ndarray):
        operations = 0

        def __array_ufunc__(self, ufunc, method, *inputs, **options):
            Counting.operations += 1
            plain = [np.asarray(array) for array in inputs]
            return np.asarray(getattr(ufunc, method)(*plain, **options)).view(Counting)

    plain = {"w": np.array([1.0, -2.0]), "b": np.array([3.0])}
    own = {name: array.view(Counting) for name, array in plain.items()}
    adam = npple.Adam(rate=0.1)
    expected, _ = adam.step(plain, plain, adam.init(plain))
    after, _ = adam.step(own, own, adam.init(own))
    assert all(isinstance(array, Counting) for array in after.values())
    assert Counting.operations >= 2 * 12
    assert all(np.array_equal(np.asarray(after[name]), expected[name]) for name in plain)
