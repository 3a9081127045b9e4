"""What a check asks of its arguments, gives to a candidate, and hands on to the report."""

import functools
import re

import numpy as np
import pytest

import npple
from npple import InputError, oracle
from npple.core.ops import ACTIVATIONS
from npple.oracle.cases import ADAM_ALONE, _handed_over
from npple.oracle.comparison import check_vectors, judged
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.flow import compute
from npple.oracle.variant import cast
from npple.oracle.vectors import drawn

TASKS = {"a": "binary", "b": "regression"}


@functools.cache
def vectors():
    return oracle.make_vectors(npple.cgc(2, TASKS, task_experts=1, shared_experts=1,
                                         expert_units=(2,), tower_units=()))


@functools.cache
def handed():
    """Vectors with noise, masks and gradients to step along."""
    model = npple.snr_trans(2, TASKS, levels=1, experts=2, expert_units=(2,), tower_units=())
    return drawn(model, 0, 4, "float64", ADAM_ALONE, _handed_over)


def right(*prefixes):
    return {name: array.copy() for name, array in vectors().expected.items()
            if name.startswith(prefixes or "")}


def deviating(name, own=None, form=0):
    own = own or {}
    variant, _ = deviate(BY_NAME[name], vectors().variant, own)[form]
    made = dict(compute(*complete(variant, cast(vectors().case, np.float64), own)))
    return {key: y for key, y in made.items() if key in vectors().expected} | own


def says(message):
    """A pattern of exactly this message."""
    return f"^{re.escape(message)}$"


# Arguments --------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", [
    ({"expect": 3}, "expect: 3, expected one of outputs, forward, gradients, everything"),
    ({"takes": 3}, "takes: 3, expected one of inputs, case"),
    ({"precision": "tf32"},
     "precision: 'tf32', expected one of float64, float32, float16, bfloat16"),
    ({"precision": {"": 3}}, "precision: 3, expected one of float64, float32, float16, bfloat16"),
    ({"precision": {"loss": 3}},
     "precision: 'loss': 3, expected one of float64, float32, float16, bfloat16"),
    ({"conventions": "gate-bias"}, "conventions: 'gate-bias', expected a sequence of texts"),
    ({"conventions": ["stop-gate"]}, "conventions: 'stop-gate', expected some of shared-first, "
                                     "gate-bias, gate-hidden, output-probability, "
                                     "loss-data-mean"),
    ({"conventions": ["gate-bias"]},
     "conventions: 'gate-bias' changes nothing in this model, or the candidate does not give the "
     "parameters of its own that it takes (params/NAME)")])
def test_an_argument_that_cannot_be_used_is_told_in_full(options, message):
    with pytest.raises(InputError, match=says(message)):
        oracle.check(vectors(), right(), **options)


@pytest.mark.parametrize("ask", [check_vectors, lambda v: oracle.check(v, right()),
                                 lambda v: oracle.check_step(v, print)])
def test_vectors_are_vectors(ask):
    with pytest.raises(InputError, match=says("vectors: from make_vectors or load, got dict")):
        ask({})


def test_unknown_names_are_told_with_what_the_first_may_mean():
    given = {f"tower/{task}": np.zeros(8) for task in ("A", 2, 3, 4, 5, 6)}
    with pytest.raises(InputError) as caught:
        oracle.check(vectors(), given)
    assert str(caught.value) == (
        "candidate: gives nothing under a known name: tower/A (did you mean tower/b?), "
        "tower/2, tower/3, tower/4, tower/5, tower/6")


def test_a_candidate_without_arrays_is_told_so():
    with pytest.raises(InputError, match=says(
            "candidate: gives nothing under a known name: no arrays at all")):
        oracle.check(vectors(), {})


def test_a_file_is_a_candidate(tmp_path):
    np.savez(tmp_path / "r.npz", **right("tower"))
    for path in (tmp_path / "r.npz", str(tmp_path / "r.npz")):
        assert [*oracle.check(vectors(), path).given] == ["tower/a", "tower/b"]


def test_names_of_what_was_given_are_not_unknown():
    known = ("params/x", "inputs/x", "noise/x", "gradients/x", "targets/x", "masks/x", "weights/x",
             "grad/x", "grad[a]/x", "params/x/z", "grad/x/z")
    unknown = ("xparams/y", "grad/y", "adam1/x", "grad/q/z", "y")
    report = oracle.check(vectors(), right("tower") | dict.fromkeys(known + unknown, 1.0))
    assert report.unknown == unknown


# What the report is handed ----------------------------------------------------------------------

def test_a_precision_counts_for_all():
    report = oracle.check(vectors(), {"tower/a": right()["tower/a"], "other": 1},
                          precision="float32")
    assert report.precisions == {"tower/a": "float32", "other": "float32"}


def test_a_precision_by_name_counts_for_that_name():
    given = {"tower/a": right()["tower/a"], "tower/b": right()["tower/b"].astype(np.float32)}
    report = oracle.check(vectors(), given, precision={"tower/a": "bfloat16"})
    assert report.precisions == {"tower/a": "bfloat16", "tower/b": "float32"}
    assert oracle.check(vectors(), given).precisions == {"tower/a": "float64",
                                                         "tower/b": "float32"}


def test_a_report_holds_what_it_was_made_from():
    given = right("tower")
    report = judged(vectors(), given, {"tower/a": "float32"}, "outputs", [], {"losses": "none"},
                    ["tower/a"])
    assert (report.vectors, report.given) == (vectors(), given)
    assert report.precisions == {"tower/a": "float32"} and report.unknown == ()
    assert (report.conventions, report.reasons) == ((), {"losses": "none"})
    assert report.unsteady == ("tower/a",)
    bare = judged(vectors(), given, {}, "outputs")
    assert (bare.reasons, bare.unsteady, bare.conventions) == ({}, (), ())


@pytest.mark.parametrize("expect, wanted", [
    ("outputs", lambda name: name in ("tower/a", "tower/b")),
    ("gradients", lambda name: name in ("tower/a", "tower/b") or name.startswith("grad") and
     name.endswith(("weight", "bias"))),
    ("steps", lambda name: name.startswith("adam")),
    ("everything", lambda name: True),
    ("forward", lambda name: not name.startswith(("grad", "adam", "loss")))])
def test_what_is_expected(expect, wanted):
    report = judged(vectors(), right("tower"), {}, expect)
    assert sorted(report.expected) == sorted(filter(wanted, vectors().expected))


def test_steps_along_other_gradients_are_no_part_of_the_forward_pass():
    given = {name: y for name, y in handed().expected.items() if name.startswith("tower")}
    report = oracle.check(handed(), given, expect="forward")
    assert not [name for name in report.expected if name.startswith("handed")]
    assert any(name.startswith("handed") for name in handed().expected)


# Candidates that run ----------------------------------------------------------------------------

def test_the_whole_case_is_handed_over():
    seen = {}

    def candidate(case):
        seen.update(case)
        for part in ("params", "noise", "targets", "gradients"):
            for array in case[part].values():
                array[...] = 0
        return right("tower")

    seen_before = {name: array.copy() for name, array in handed().params.items()}
    oracle.check(handed(), lambda case: candidate(case) and {
        name: handed().expected[name] for name in handed().expected}, takes="case")
    case = handed().case
    assert [*seen] == ["params", "inputs", "noise", "targets", "masks", "weights", "adam",
                       "gradients"]
    for part in ("params", "noise", "targets", "masks", "weights", "gradients"):
        assert seen[part].keys() == getattr(case, part).keys() and seen[part]
    assert seen["adam"] == {"rate": 1e-2, "beta1": 0.8, "beta2": 0.6, "epsilon": 1e-2,
                            "weight_decay": 0.125, "clip": 2.0}
    assert seen["weights"] == case.weights and seen["weights"] is not case.weights
    for name, array in handed().params.items():
        np.testing.assert_array_equal(array, seen_before[name])
    for task, mask in case.masks.items():
        np.testing.assert_array_equal(seen["masks"][task], mask)
    np.testing.assert_array_equal(seen["inputs"], handed().inputs)


def test_a_candidate_takes_params_and_inputs():
    def candidate(params, inputs):
        for name, p in vectors().params.items():
            np.testing.assert_array_equal(params[name], p)
        np.testing.assert_array_equal(inputs, vectors().inputs)
        return right("tower")

    assert oracle.check(vectors(), candidate).passed


# Training steps ---------------------------------------------------------------------------------

def stepping(losses=False, spoil=False, dtype=np.float64, calls=None):
    state = vectors().adam.init(vectors().params)

    def step(params, inputs, targets, masks, weights):
        nonlocal state
        for task in TASKS:
            np.testing.assert_array_equal(targets[task], vectors().targets[task])
            np.testing.assert_array_equal(masks[task], vectors().masks[task])
        assert weights == vectors().weights
        np.testing.assert_array_equal(inputs, vectors().inputs)
        if calls is not None:
            calls.append({name: p.copy() for name, p in params.items()})
        params = {name: p.astype(np.float64) for name, p in params.items()}
        model = vectors().model
        loss, grads = model.loss_and_grads(params, inputs, targets, masks, weights)
        if losses:
            loss = {task: vectors().expected[f"loss[{task}]"] for task in TASKS}
        after, state = vectors().adam.step(params, grads, state)
        if spoil:
            after = {name: p.copy() for name, p in after.items()}
            weights.clear()
            for array in (inputs, *params.values(), *targets.values(), *masks.values()):
                array[...] = 0
        return loss, {name: p.astype(dtype) for name, p in after.items()}

    return step


def test_a_step_is_called_twelve_times_with_what_it_made_before():
    calls = []
    report = oracle.check_step(vectors(), stepping(calls=calls))
    assert report.passed and len(calls) == 12
    for name, p in vectors().params.items():
        np.testing.assert_array_equal(calls[0][name], p)
        np.testing.assert_array_equal(calls[1][name], report.given[f"adam1/{name}"])
        np.testing.assert_array_equal(calls[2][name], report.given[f"adam2/{name}"])
    steps = {name.partition("/")[0] for name in report.given}
    assert steps == {"loss", "adam1", "adam2", "adam12"}
    assert report.expected == tuple(n for n in vectors().expected if n.startswith("adam"))


def test_a_step_may_spoil_what_it_is_given():
    assert oracle.check_step(vectors(), stepping(spoil=True)).passed


def test_a_step_may_give_the_loss_of_each_task():
    report = oracle.check_step(vectors(), stepping(losses=True))
    assert report.passed and {"loss[a]", "loss[b]"} <= report.given.keys()
    assert "loss" not in report.given


def test_a_step_is_judged_in_its_own_precision_or_the_one_named():
    single = oracle.check_step(vectors(), stepping(dtype=np.float32))
    assert {p for name, p in single.precisions.items() if name != "loss"} == {"float32"}
    named = oracle.check_step(vectors(), stepping(), precision="float16")
    assert set(named.precisions.values()) == {"float16"}
    with pytest.raises(InputError, match=says(
            "precision: 3, expected one of float64, float32, float16, bfloat16")):
        oracle.check_step(vectors(), stepping(), precision=3)


@pytest.mark.parametrize("step, message", [
    (3, "step: a function is needed, got int"),
    (lambda *case: [1, {}], "step: (loss, params) is needed, got list"),
    (lambda *case: (1, {}, {}), "step: (loss, params) is needed, got tuple"),
    (lambda *case: (1, []), "step: (loss, params) is needed, got tuple"),
    (lambda *case: (1, {3: 1}), "step: params: names are printable text, got 3"),
    (lambda params, *case: (1, {"level1/a/gate/layer1/weight": np.ones((2, 2))}),
     "step: params: ['level1/a/experts/layer1/weight', 'level1/a/experts/layer1/bias', "
     "'level1/b/experts/layer1/weight'] are not there after step 1")])
def test_what_is_no_step_is_told_in_full(step, message):
    with pytest.raises(InputError, match=says(message)):
        oracle.check_step(vectors(), step)


# Conventions ------------------------------------------------------------------------------------

def test_a_declared_convention_is_applied_in_the_form_that_fits(monkeypatch):
    some = {name: ACTIVATIONS[name] for name in ("identity", "tanh", "relu")}
    monkeypatch.setattr("npple.oracle.deviations.ACTIVATIONS", some)
    shape = deviate(BY_NAME["gate-hidden"], vectors().variant, {
        f"params/level1/{task}/gate/layer{i}/weight": np.ones((2, 2)) for task in TASKS
        for i in (1, 2)})[0][0].table.shapes
    rng = np.random.default_rng(0)
    own = {f"params/{name}": rng.normal(size=size) for name, size in shape.items()
           if "/gate/" in name}
    given = deviating("gate-hidden", own, 1)
    given = {name: y for name, y in given.items() if name.startswith(("params", "tower/a"))}
    report = oracle.check(vectors(), given, conventions=["gate-hidden"])
    assert not report.wrong and report.conventions == ("gate-hidden",)
    assert report.vectors.notes == vectors().notes


def test_two_conventions_are_declared_together():
    own = {f"params/level1/{task}/gate/layer1/bias": np.array([0.5, -0.25]) for task in TASKS}
    first = deviate(BY_NAME["shared-first"], vectors().variant, own)[0][0]
    both = deviate(BY_NAME["gate-bias"], first, own)[0][0]
    case = cast(vectors().case, np.float64)
    given = {name: y for name, y in compute(*complete(both, case, own), {"tower"})
             if name.startswith(("level", "tower"))} | own
    report = oracle.check(vectors(), given, conventions=["shared-first", "gate-bias"])
    assert report.passed and report.conventions == ("shared-first", "gate-bias")
    assert not oracle.check(vectors(), given, conventions=["gate-bias"]).passed


@pytest.mark.parametrize("convention, own", [
    ("output-probability", {}),
    ("loss-data-mean", {f"params/share/{task}": np.array(0.5) for task in TASKS})])
def test_a_declared_convention_counts_in_half_precision_too(convention, own):
    variant = deviate(BY_NAME[convention], vectors().variant, own)[0][0]
    half = dict(compute(variant, cast(vectors().case, np.float16))) | own
    report = oracle.check(vectors(), half, precision="float16", conventions=[convention])
    assert not report.wrong, report
