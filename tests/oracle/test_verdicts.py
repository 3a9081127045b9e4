"""The four verdicts, what is expected, and what a pass does not exclude."""

import functools
import json

import numpy as np
import pytest

import npple
from npple import InputError, oracle
from npple.oracle.comparison import judged
from npple.oracle.flow import compute
from npple.oracle.variant import cast


@functools.cache
def vectors():
    return oracle.make_vectors(npple.ple(3, {"a": "binary", "b": "regression"}, levels=2,
                                         task_experts=3, shared_experts=1, expert_units=(3,),
                                         tower_units=(2,)))


def right(*prefixes):
    return {name: array.copy() for name, array in vectors().expected.items()
            if name.startswith(prefixes or "")}


def half(dtype="float16"):
    return dict(compute(vectors().variant, cast(vectors().case, np.dtype(dtype))))


@pytest.mark.parametrize("given, expect, verdict", [
    (("tower",), "outputs", "passed"),
    (("prediction",), "outputs", "passed"),
    (("tower",), "forward", "passed in part"),
    (("tower", "grad"), "gradients", "passed"),
    (("tower", "grad/"), "gradients", "passed in part"),
    (("grad",), "outputs", "passed in part"),
    (("level", "input", "tower", "prediction"), "forward", "passed"),
    (("level", "input", "tower", "prediction"), "everything", "passed in part"),
    (("",), "everything", "passed")])
def test_a_pass_needs_what_is_expected(given, expect, verdict):
    report = oracle.check(vectors(), right(*given), expect=expect)
    assert report.verdict == verdict and report.passed == (verdict == "passed")
    assert bool(report.lacking) == (verdict == "passed in part")


@pytest.mark.parametrize("part", ["level1/a", "tower/b", "loss", "grad/input",
                                  "adam12/tower/a/layer1/bias"])
def test_one_wrong_tensor_of_any_part_fails(part):
    assert oracle.check(vectors(), right() | {part: right()[part] + 1}).verdict == "failed"


def test_a_candidate_that_differs_from_run_to_run_cannot_be_judged():
    report = judged(vectors(), right(), {}, "outputs", unsteady=("tower/a",))
    assert report.verdict == "cannot be judged"
    assert "another result when run again: tower/a" in str(report)


def test_what_could_not_be_had_is_told_with_the_reason():
    report = judged(vectors(), right("tower"), {}, "gradients",
                    reasons={"gradients": "the module ran under no_grad"})
    assert report.verdict == "passed in part"
    assert "gradients: the module ran under no_grad" in str(report)


def test_the_last_lines_say_in_words_what_was_compared():
    lines = str(oracle.check(vectors(), right("tower/a", "grad/"))).splitlines()
    assert lines[-1] == "passed in part; not compared: outputs (1 of 2)"
    assert lines[-2].endswith(
        "judged as float64: towers (1 of 2), outputs (1 of 2), gradients of the joint loss; not: "
        "representations, experts, gates, predictions, losses, gradients of each task, Adam")


def test_a_pass_on_outputs_excludes_what_changes_outputs_and_nothing_else():
    hidden = oracle.check(vectors(), right("tower/a", "tower/b")).not_excluded
    assert {"stop-selector", "loss-sum", "adam-l2", "gate-bias"} <= set(hidden)
    assert not {"selector-input", "shared-mean", "gate-sigmoid"} & set(hidden)


def test_gradients_exclude_what_holds_them_back():
    hidden = oracle.check(vectors(), right("tower/a", "tower/b", "grad")).not_excluded
    assert not {"stop-selector", "stop-others", "stop-gate", "loss-sum"} & set(hidden)


# Precision by what is compared ------------------------------------------------------------------

def test_an_unrelated_coarse_array_loosens_nothing():
    given = right() | {"tower/b": half()["tower/b"]}
    given["level1/a"] = given["level1/a"] * (1 + 1e-9)
    report = oracle.check(vectors(), given)
    assert report.first_divergence == "level1/a" and report.worst.precision == "float64"


@pytest.mark.parametrize("dtype, size", [("float16", 0.005), ("bfloat16", 0.02)])
@pytest.mark.parametrize("name", ["level1/a/experts", "level1/shared", "level2/b", "tower/a"])
def test_an_error_of_the_size_promised_is_found_in_half_precision(dtype, size, name):
    given = half() if dtype == "float16" else {
        key: np.ldexp(np.round(np.frexp(array)[0] * 2**8), np.frexp(array)[1] - 8)
        for key, array in half("float32").items()}
    given = {key: array for key, array in given.items() if not key.startswith(("grad", "adam"))}
    assert oracle.check(vectors(), given, precision=dtype).passed
    given[name] = (given[name] * (1 + 1.2 * size)).astype(given[name].dtype)
    assert oracle.check(vectors(), given, precision=dtype).first_divergence == name


def test_a_gradient_judged_before_loosens_no_forward_tensor():
    report = oracle.check(vectors(), half(), precision="float16")
    judge, flow, name = report.judge, report.start, "level2/b"
    y = flow.local(name)
    alone = report.judge.tolerance(name, y, judge.flow(vectors().variant, judge.case), "float16")
    gradient = "grad/level2/b"
    judge.tolerance(gradient, flow.local(gradient), flow, "float16")
    assert judge.tolerance(name, y, flow, "float16") == pytest.approx(alone, rel=0.5)


def test_an_unsteady_candidate_is_not_searched_for_faults():
    wrong = right() | {"level1/a": right()["level1/a"] + 1}
    report = judged(vectors(), wrong, {}, "outputs", unsteady=("level1/a",))
    assert report.diagnosis == report.faults == report.to_dict()["faults"] == []
    assert "fault" not in str(report)


@pytest.mark.slow
def test_what_passes_as_float32_is_told_so():
    given = {name: array.astype(np.float32).astype(np.float64) for name, array in right().items()}
    assert "all of it passes as float32" in str(oracle.check(vectors(), given))
    assert oracle.check(vectors(), given, precision="float32").passed


def test_a_precision_by_name_counts_for_that_tensor_and_what_follows_from_it():
    given = right()
    for name in ("level2/a", "tower/a/layer1"):
        given[name] = given[name].astype(np.float32).astype(np.float64)
    names = dict.fromkeys(("level2/a", "tower/a/layer1"), "float32")
    assert not oracle.check(vectors(), given).passed
    assert oracle.check(vectors(), given, precision=names).passed


# Training steps and whole cases -----------------------------------------------------------------

def training(adam, scale=1.0):
    state = adam.init(vectors().params)

    def step(params, inputs, targets, masks, weights):
        nonlocal state
        loss, grads = vectors().model.loss_and_grads(params, inputs, targets, masks, weights)
        params, state = adam.step(params, {name: scale * g for name, g in grads.items()}, state)
        return loss, params

    return step


def test_a_right_training_step_passes():
    report = oracle.check_step(vectors(), training(vectors().adam))
    assert report.passed and "Adam" in str(report)


@pytest.mark.parametrize("step", [training(npple.Adam(rate=1e-2, epsilon=1e-8)),
                                  training(npple.Adam(rate=1e-2, epsilon=1e-2), 0.5)])
def test_another_epsilon_or_half_the_gradient_fails(step):
    report = oracle.check_step(vectors(), step)
    assert report.verdict == "failed" and report.first_divergence.startswith("adam1/")


@pytest.mark.parametrize("made", [None, {}, (1.0, [])])
def test_a_step_that_gives_something_else_is_refused(made):
    with pytest.raises(InputError, match="^step: .loss, params. is needed"):
        oracle.check_step(vectors(), lambda *case: made)


def test_a_candidate_may_ask_for_the_whole_case():
    def candidate(case):
        loss, grads = vectors().model.loss_and_grads(
            case["params"], case["inputs"], case["targets"], case["masks"], case["weights"])
        assert case["adam"]["rate"] == vectors().adam.rate
        return {"loss": loss} | {f"grad/{name}": g for name, g in grads.items()}

    report = oracle.check(vectors(), candidate, takes="case")
    assert report.verdict == "passed in part" and "loss" in report.given


@pytest.mark.parametrize("options, names", [
    ({"expect": "all"}, "expect"), ({"takes": "everything"}, "takes"),
    ({"precision": {"tower/a": "tf32"}}, "precision: 'tower/a'")])
def test_options_that_are_none_are_named(options, names):
    with pytest.raises(InputError, match=f"^{names}:"):
        oracle.check(vectors(), right(), **options)


def test_the_report_as_json_has_verdict_and_faults():
    content = json.loads(json.dumps(
        oracle.check(vectors(), right() | {"loss": np.float64(9)}).to_dict(), allow_nan=False))
    assert content["verdict"] == "failed" and content["faults"][0]["tensor"] == "loss"
    assert set(content["faults"][0]) == {"tensor", "row", "names", "detail"}


# Isolation --------------------------------------------------------------------------------------

def test_a_candidates_own_isolation_is_that_of_the_table_where_it_is_right():
    report = oracle.check(vectors(), right())
    assert report.isolation.matrix == npple.isolation(vectors().model).matrix
    assert report.isolation.differing == ()


def test_what_a_candidate_reaches_against_the_table_is_told():
    given = right()
    leak = given["grad[a]/level2/b/experts/layer1/weight"]
    leak[0, 0, 0] = 1e-30
    report = oracle.check(vectors(), given)
    assert report.isolation.differing == (("a", "level2/b/experts"),)
    assert "otherwise reached than in the model (print(report.isolation)): level2/b/experts by a" \
        in str(report)
    assert "reached (isolated)" in str(report.isolation)


def test_what_a_candidate_does_not_reach_is_told():
    given = right()
    for name in [key for key in given if key.startswith("grad[b]/level1/a/experts")]:
        given[name] = np.zeros_like(given[name])
    assert oracle.check(vectors(), given).isolation.differing == (("b", "level1/a/experts"),)


def test_isolation_is_not_known_without_the_gradients_of_each_task():
    found = oracle.check(vectors(), right("tower", "grad/")).isolation
    assert {cell for row in found.matrix.values() for cell in row.values()} == {"not given"}
    assert found.differing == ()
