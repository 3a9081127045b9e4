"""The checkers are checked: every method finds every mistake and names the tensor it is in."""

import math
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import npple
from npple.core import blocks, passes, rows
from npple.errors import CheckFailed, InputError
from npple.verify.gradcheck import demonstrate, gradcheck, gradcheck_function, hessian_vector
from npple.verify.cases import random_case, random_model

MODULE = sys.modules[gradcheck.__module__]  # `npple.verify.gradcheck` is the function
METHODS = ("complex-step", "directional", "central-differences", "longdouble")


@pytest.fixture(scope="module")
def case():
    model = npple.cgc({"age": "numeric", "country": (5, 3)},
                      {"a": "binary", "b": "regression", "c": "multiclass:3"},
                      task_experts={"a": 1, "b": 2, "c": 1}, expert_units=(4, 4), tower_units=(3,))
    return random_case(model, seed=3)


def own_gradients(case):
    return case.model.loss_and_grads(case.params, *case.batch)[1]


def failing(case, grads, method):
    """The names of the tensors that a method says are wrong."""
    report = gradcheck(case.model, case.params, *case.batch, grads=grads, method=method)
    return {row.name for row in report.rows if row.error > row.tolerance}


def of(case, *streams):
    """The parameters of some streams: tasks, or "shared"."""
    return {name for name in case.params if any(f"/{stream}/" in name for stream in streams)}


# Mistakes ---------------------------------------------------------------------------------------
# Each returns wrong gradients of the case, and the tensors that are wrong.

def a_sign(case):
    grads = own_gradients(case)
    largest = np.abs(grads["tower/a/layer1/weight"]).argmax()
    grads["tower/a/layer1/weight"].flat[largest] *= -1
    return grads, {"tower/a/layer1/weight"}


def a_transposed_square_gradient(case):
    grads, name = own_gradients(case), "level1/b/experts/layer2/weight"
    grads[name] = grads[name].swapaxes(-1, -2)
    return grads, {name}


def a_shared_group_that_lacks_one_task(case):
    grads, wrong = own_gradients(case), of(case, "shared")
    alone = {task: case.weights[task] * (task == "c") for task in case.weights}
    own = case.model.loss_and_grads(case.params, case.x, case.targets, case.masks, alone)[1]
    return {n: g - own[n] if n in wrong else g for n, g in grads.items()}, wrong


def with_patch(case, module, name, replacement):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, replacement)
        return own_gradients(case)


def a_softmax_without_its_second_term(case):
    grads = with_patch(case, rows, "softmax_backward", lambda dw, w: w * dw)
    return grads, {n for n in case.params if "/gate/" in n} | {"embedding/country"}


def a_forgotten_mask(case):
    def unmasked(weight, cache):
        return whole(weight, (*cache[:2], None, cache[3]))

    whole = passes.loss_backward
    grads = with_patch(case, passes, "loss_backward", unmasked)
    return grads, of(case, "b", "shared") | {"embedding/country"}


def a_forgotten_task_weight(case):
    whole = passes.loss_backward
    grads = with_patch(case, passes, "loss_backward", lambda weight, cache: whole(1.0, cache))
    return grads, set(case.params)


def a_square_weight_not_transposed(case):
    def straight(dz, cache, need_dx=True):
        x, weight, bias = cache
        square = weight.shape[-1] == weight.shape[-2] and weight.ndim == 3
        return whole(dz, (x, weight.swapaxes(-1, -2) if square else weight, bias), need_dx)

    whole = rows.dense_backward
    grads = with_patch(case, rows, "dense_backward", straight)
    return grads, {n for n in case.params if "experts/layer1" in n} | {"embedding/country"}


MISTAKES = (a_sign, a_transposed_square_gradient, a_shared_group_that_lacks_one_task,
            a_softmax_without_its_second_term, a_forgotten_mask, a_forgotten_task_weight,
            a_square_weight_not_transposed)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_found_in_the_tensors_that_have_it_and_nowhere_else(case, mistake, method):
    grads, wrong = mistake(case)
    assert failing(case, grads, method) == wrong


EXTENDED = np.finfo(np.longdouble).eps < 1e-18  # differences to 1e-11 need it


@pytest.mark.parametrize("method, size, tolerance", [
    ("complex-step", 1e-9, None), ("directional", 1e-9, None),
    ("central-differences", 1e-7 if EXTENDED else 1e-5, None)])
def test_one_entry_off_by_a_little_is_found_in_100_of_100_random_places(case, method, size,
                                                                        tolerance):
    # tensors are judged one by one, so each run can hold one wrong entry in every tensor
    gradcheck(case.model, case.params, *case.batch, method=method, tolerance=tolerance).check()
    places, rng = 0, np.random.default_rng(0)
    while places < 100:
        grads, at = own_gradients(case), {}
        for name, g in grads.items():
            at[name] = tuple(rng.choice(np.argwhere(g != 0)).tolist())
            g[at[name]] *= 1 + size
        report = gradcheck(case.model, case.params, *case.batch, grads=grads, method=method,
                           tolerance=tolerance)
        for row in report.rows:
            assert row.error > row.tolerance, row
            if method != "directional":
                assert row.index == at[row.name]
        places += len(at)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_forgotten_altogether_is_found(case, method):
    grads = own_gradients(case) | {"tower/b/layer1/bias": np.zeros(3)}
    assert failing(case, grads, method) == {"tower/b/layer1/bias"}


def test_a_direction_cannot_hide_an_error_in_one_entry():
    # it moves the derivative by at least e G / 2, and the floor is at most G sqrt(n)
    g = np.random.default_rng(0).normal(size=500)
    for j in range(0, 500, 7):
        wrong = g.copy()
        wrong[j] += 1e-6 * max(abs(g[j]), 1e-2 * abs(g).max())
        report = gradcheck_function(lambda v: (g * v["x"]).sum(), lambda v, g=wrong: {"x": g},
                                    {"x": np.ones(500)}, method="directional")
        assert report.max_relative_error > 0.9 * 1e-6 / (2 * math.sqrt(500))


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_with_a_nan_fails_and_is_named(case, method):
    grads = own_gradients(case)
    grads["tower/c/layer2/weight"][1, 2] = np.nan
    report = gradcheck(case.model, case.params, *case.batch, grads=grads, method=method)
    assert not report.passed
    with pytest.raises(CheckFailed, match="tower/c/layer2/weight"):
        report.check()


# Kinks ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def kink():
    """Every relu of the experts is exactly at its kink on the first row."""
    model = npple.single_task(2, {"a": "regression"}, expert_units=(3,), tower_units=())
    case = random_case(model, batch=2)
    case.params["level1/a/experts/layer1/bias"][...] = 0
    case.x[0] = 0
    return case


@pytest.mark.parametrize("method", ["complex-step", "directional"])
def test_the_subgradient_at_the_kink_of_relu_is_zero(kink, method):
    report = gradcheck(kink.model, kink.params, *kink.batch, method=method).check()
    assert report.skipped == 0


def test_differences_do_not_judge_what_is_at_a_kink_and_nothing_else(kink):
    report = gradcheck(kink.model, kink.params, *kink.batch, method="central-differences")
    skipped = {row.name.removeprefix("level1/a/experts/"): row.skipped for row in report.rows}
    assert skipped == {"layer1/weight": 0, "layer1/bias": 3, "tower/a/layer1/weight": 0,
                       "tower/a/layer1/bias": 0}
    assert report.checked == 6 + 0 + 3 + 1


def test_a_gradient_of_zero_is_judged_where_a_unit_is_off_and_its_kink_near():
    gradcheck_function(lambda v: 3 + np.maximum(v["a"] - 1e-5, 0).sum(),
                       lambda v: {"a": (v["a"] > 1e-5) * 1.0}, {"a": np.array([-1e-3, 1, -2.0])},
                       method="central-differences").check()
    near = npple.ple(5, {"a": "binary", "b": "regression"}, levels=1, expert_units=(3,),
                     tower_units=(2,))
    for seed in (0, 2):  # towers with units that are off
        rng = np.random.default_rng(seed)
        batch = rng.normal(size=(8, 5)), {"a": rng.integers(0, 2, 8), "b": rng.normal(size=8)}
        gradcheck(near, near.init(seed), *batch, method="central-differences").check()


def test_a_zero_that_a_coarse_loss_cannot_tell_is_not_judged():
    def f(v):  # a kink at 1e-3, a slope of 1e-4 before it
        return float(np.float32(1 + 1e-4 * v["a"][0] + np.maximum(v["a"][0] - 1 - 1e-3, 0)))

    report = gradcheck_function(f, lambda v: {"a": np.zeros(1)}, {"a": np.ones(1)},
                                method="central-differences")
    assert report.verdict == "not judged"


@pytest.mark.parametrize("entries", [[np.inf, -np.inf], [1e308, 1e308], [np.nan, 1.0]])
def test_directions_fail_gradients_that_are_not_finite_without_a_warning(entries):
    report = gradcheck_function(lambda v: (v["a"] ** 2).sum(), lambda v: {"a": np.array(entries)},
                                {"a": X["a"]}, method="directional")
    assert report.verdict == "FAILED"


def test_a_tensor_of_which_too_little_is_judged_does_not_pass(kink):
    report = gradcheck(kink.model, kink.params, *kink.batch, method="central-differences")
    assert report.verdict == "not judged" and not report.passed
    with pytest.raises(CheckFailed, match="layer1/bias: 3 of 3 not judged: .* there is a kink"):
        report.check()


# Arguments and report ---------------------------------------------------------------------------

def test_the_package_gives_the_functions():
    assert npple.gradcheck is gradcheck
    assert npple.gradcheck_function is gradcheck_function
    assert npple.hessian_vector is hessian_vector


def test_features_are_checked_on_request(case):
    names = [row.name for row in gradcheck(case.model, case.params, *case.batch).rows]
    assert names == list(case.params)
    report = gradcheck(case.model, case.params, *case.batch, inputs=True)
    assert [row.name for row in report.rows] == [*case.params, "x/age"]
    matrix = random_case(npple.cgc(3, {"a": "binary"}))
    report = gradcheck(matrix.model, matrix.params, *matrix.batch, inputs=True)
    assert [row.name for row in report.check().rows] == [*matrix.params, "x"]
    assert np.abs(report.rows[-1].analytic) > 0


@pytest.mark.parametrize("inputs", [3, {"age": "numeric", "country": (5, 3)}])
def test_without_any_weighted_task_all_gradients_are_zero(inputs):
    case = random_case(npple.cgc(inputs, {"a": "binary"}, expert_units=(2,)))
    report = gradcheck(case.model, case.params, case.x, case.targets, weights={"a": 0.0},
                       inputs=True).check()
    assert report.max_relative_error == 0 and all(row.numeric == 0 for row in report.rows)


@pytest.mark.parametrize("executor", [
    lambda: ThreadPoolExecutor(2), lambda: ProcessPoolExecutor(2, get_context("spawn"))],
    ids=["threads", "processes"])
def test_an_executor_changes_nothing(case, executor):
    alone = gradcheck(case.model, case.params, *case.batch, method="directional")
    with executor() as pool:
        report = gradcheck(case.model, case.params, *case.batch, method="directional",
                           executor=pool)
    assert report == alone


def test_copies_are_evaluated_in_chunks_that_change_nothing(case, monkeypatch):
    together = gradcheck(case.model, case.params, *case.batch).rows
    monkeypatch.setattr(MODULE, "CHUNK", 1)
    for row, other in zip(gradcheck(case.model, case.params, *case.batch).rows, together):
        assert (row.name, row.checked) == (other.name, other.checked)
        assert row.error <= 1e-12


def test_another_seed_takes_other_directions(case):
    first, same, other = (gradcheck(case.model, case.params, *case.batch, method="directional",
                                    seed=seed).rows for seed in (0, 0, 1))
    assert first == same != other


def test_the_report_prints_as_a_table_and_names_the_worst_entry(case):
    grads = own_gradients(case)
    grads["tower/b/layer1/weight"][3, 1] += 1
    report = gradcheck(case.model, case.params, *case.batch, grads=grads)
    assert not report.passed and report.worst.name == "tower/b/layer1/weight"
    assert report.worst.index == (3, 1) and report.worst.shape == (4, 3)
    assert report.worst.analytic == pytest.approx(report.worst.numeric + 1)
    head, *rows, summary = str(report).splitlines()
    assert [row.split()[0] for row in rows] == list(case.params)
    assert all(row[head.index("shape") - 1] == " " != row[head.index("shape")] for row in rows)
    assert summary.startswith("complex-step: ") and summary.endswith("FAILED")
    with pytest.raises(CheckFailed, match=r"tower/b/layer1/weight\[3, 1\]: relative error 0\.\d+, "
                                          r"analytic -?\d.*, numeric -?\d.* exceeds 1e-12"):
        report.check()
    passing = gradcheck(case.model, case.params, *case.batch)
    assert passing.check() is passing and str(passing).endswith("passed")


def test_the_last_line_names_the_tensor_that_fails():
    x = {"coarse": np.float16([0.7, 1.3]), "fine": np.array([0.3, 2.0])}
    report = gradcheck_function(
        lambda v: sum((a ** 3).sum() for a in v.values()),
        lambda v: {"coarse": 3 * v["coarse"] ** 2, "fine": 3 * v["fine"] ** 2 * (1 + 1e-6)}, x)
    assert str(report).splitlines()[-1] == (
        "complex-step: 4 checked, 0 not judged, largest error 1.0e-06, tolerance 1.0e-12, in fine: "
        "FAILED")


def test_directions_judge_gradients_of_any_size():
    for size in (1e-250, 1e290):
        gradcheck_function(lambda v, size=size: size * (v["a"] ** 2).sum(),
                           lambda v, size=size: {"a": size * 2 * v["a"]},
                           {"a": np.array([0.3, -1.2])}, method="directional").check()


def test_the_tolerance_follows_the_precision_of_the_gradients():
    case = random_case(random_model("ple"), dtype=np.float32)
    report = gradcheck(case.model, case.params, *case.batch).check()
    assert report.tolerance == pytest.approx(1e-12 * 2.0 ** 29)
    assert 1e-9 < report.max_relative_error  # judged in float64: its rounding shows
    strict = gradcheck(case.model, case.params, *case.batch, tolerance=1e-10)
    assert not strict.passed


@pytest.mark.parametrize("changes, message", [
    ({"method": "magic"}, "method: 'magic', expected one of complex-step"),
    ({"grads": {}}, r"grads: .* an array of real floats of shape \(.*\) is needed, got NoneType"),
    ({"grads": {"embedding/country": np.zeros((5, 2))}}, r"embedding/country: .*\(5, 2\)"),
    ({"grads": {"embedding/country": np.zeros((5, 3), int)}}, "embedding/country: .*int64"),
    ({"weights": {"a": 1.0}}, "weights"),
])
def test_unusable_arguments_are_refused_by_name(case, changes, message):
    arguments = {"x": case.x, "targets": case.targets} | changes
    with pytest.raises(InputError, match=message):
        gradcheck(case.model, case.params, **arguments)


def test_complex_parameters_are_refused(case):
    with pytest.raises(InputError, match="params: real parameters are needed, got complex128"):
        gradcheck(case.model, {n: p + 0j for n, p in case.params.items()}, *case.batch)


def test_a_vector_of_the_wrong_shape_is_refused(case):
    with pytest.raises(InputError, match="vector: .* an array of shape"):
        hessian_vector(case.model, case.params, {}, *case.batch)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(InputError, match="model: 'pel', did you mean 'ple'"):
        demonstrate("pel")
    with pytest.raises(InputError, match="tasks: a positive integer up to 1000 is needed, got 0"):
        demonstrate("ple", tasks=0)


@pytest.mark.parametrize("seed", [-1, -10**30, 1.0, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(InputError, match="seed: an integer of at least 0 is needed"):
        demonstrate("ple", seed=seed)


@pytest.mark.parametrize("batch", [0, 10**30])
def test_a_batch_that_no_array_holds_is_refused(case, batch):
    with pytest.raises(InputError, match="batch: an integer from 1 to 1000000000"):
        random_case(case.model, batch=batch)


# Somebody else's function -----------------------------------------------------------------------

X = {"a": np.array([0.3, -1.2]), "b": np.array([[0.5], [2.0]])}


def product(v):
    return np.sin(v["a"]) @ v["b"][:, 0] ** 3


def product_gradient(v):
    a, b = v["a"], v["b"][:, 0]
    return {"a": np.cos(a) * b ** 3, "b": (np.sin(a) * 3 * b ** 2)[:, None]}


@pytest.mark.parametrize("method", METHODS[:3])
def test_somebody_elses_function(method):
    report = gradcheck_function(product, product_gradient, X, method=method).check()
    assert [(row.name, row.checked) for row in report.rows] == [("a", 2), ("b", 2)]

    def wrong(v):
        return product_gradient(v) | {"b": 3 * v["b"] ** 2}

    report = gradcheck_function(product, wrong, X, method=method)
    assert [row.error > row.tolerance for row in report.rows] == [False, True]


def test_longdouble_measures_rounding_and_gives_no_verdict():
    wrong = gradcheck_function(product, lambda v: {n: -g for n, g in product_gradient(v).items()},
                               X, method="longdouble")
    assert wrong.passed is None and wrong.max_relative_error < 1e-15
    assert str(wrong).endswith("is rounding; no verdict on the formula")
    with pytest.raises(CheckFailed, match="gives no verdict on a formula"):
        wrong.check()


def test_a_function_that_takes_no_complex_numbers_is_checked_by_differences():
    def f(v):
        return sum(math.erf(float(x)) for x in v["a"])

    def grad(v):
        return {"a": 2 / math.sqrt(math.pi) * np.exp(-v["a"] ** 2)}

    gradcheck_function(f, grad, {"a": X["a"]}, method="central-differences").check()


@pytest.mark.parametrize("f, x, message", [
    (lambda v: v["a"].real.sum(), X, "real result for complex arrays"),
    (lambda v: v["a"], X, "f: one number is needed"),
    (product, {"a": [1.0]}, "x: 'a': an array of real floats is needed"),
    (product, {"a": np.array([1])}, "x: 'a': an array of real floats is needed"),
    (product, {}, "x: a dict of arrays is needed"),
])
def test_unusable_functions_are_refused(f, x, message):
    with pytest.raises(InputError, match=message):
        gradcheck_function(f, product_gradient, x)


# The random case --------------------------------------------------------------------------------

@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_a_random_case_is_generic_and_depends_on_the_seed_alone(name):
    model = random_model(name, tasks=4)
    case, again, other = (random_case(model, seed) for seed in (5, 5, 6))
    assert set(model.tasks.values()) == {"binary", "regression", "multiclass:3"}
    assert list(case.masks) == ["task2", "task4"]
    assert all(mask.any() for mask in case.masks.values())
    for key, p in case.params.items():
        assert (p != 0).all() and len(np.unique(p)) == p.size
        assert (p == again.params[key]).all() and (p != other.params[key]).all()
    assert len(set(case.weights.values())) == 4


def test_gates_of_a_random_case_are_far_from_uniform():
    case = random_case(random_model("ple"), batch=200)
    for name, weights in case.model.forward(case.params, case.x).items():
        if name.endswith("/gate/weights"):
            assert np.abs(weights.max(axis=-1) - 1 / weights.shape[-1]).mean() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_blas_has_one_thread_so_that_their_number_changes_no_digit(case, monkeypatch, method):
    seen, joint_loss = set(), MODULE.joint_loss

    def watching(*arguments):
        seen.add(blocks._get_threads())
        return joint_loss(*arguments)

    before = blocks._get_threads()
    blocks._set_threads(2)
    monkeypatch.setattr(MODULE, "joint_loss", watching)
    gradcheck(case.model, case.params, *case.batch, method=method)
    blocks._set_threads(before)
    assert seen == {1}
