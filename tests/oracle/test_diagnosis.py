"""The catalogue and the search in it, on candidates made by the catalogue itself.

tests/peers/test_deviations.py and test_mistakes.py make them with PyTorch instead.
"""

import functools
from pathlib import Path

import numpy as np
import pytest

import npple
from npple import oracle
from npple.verify.isolation import isolation
from npple.core.passes import backward, forward, joint_loss
from npple.network import Network
from npple.oracle.deviant_losses import product_backward, product_forward
from npple.oracle.deviations import BY_NAME, DEVIATIONS, complete, deviate
from npple.oracle.flow import compute
from npple.oracle.variant import cast

CUT = {"stop-selector", "stop-others", "stop-gate",  # hold gradients back, or have others
       "stop-shared-by-task", "softmax-unsummed", "experts-unweighted", "activation-forgotten"}
OWN = {"gate-hidden", "gate-bias", "last-gate-all", "loss-data-mean", "uncertainty-weights",
       "tower-side-by-side", "gate-on-experts", "gate-by-unit"}  # need its own numbers


TASKS = {"a": "binary", "b": "regression"}
MODELS = (
    lambda: npple.ple(3, TASKS, levels=2, task_experts=3, shared_experts=1, expert_units=(3,),
                      tower_units=()),
    lambda: npple.cgc({"x": "numeric", "city": (4, 3), "site": (4, 3)}, TASKS | {"c": "binary"},
                      task_experts=2, shared_experts=2, expert_units=(4, 4), tower_units=(4,)),
    lambda: npple.cross_stitch(4, TASKS | {"c": "binary"}, levels=2, expert_units=(4,)),
)


@functools.cache
def vectors(at=0):
    return oracle.make_vectors(MODELS[at]())


def deviating(name, given=None, form=0, at=0):
    """A candidate with a deviation, all tensors."""
    variant, _ = deviate(BY_NAME[name], vectors(at).variant, given or {})[form]
    completed = complete(variant, cast(vectors(at).case, np.float64), given or {})
    return dict(compute(*completed))


def owned(variant, bundle):
    """Random numbers for the parameters of a variant that the bundle has in another shape."""
    rng = np.random.default_rng(0)
    return {f"params/{name}": rng.normal(size=shape) for name, shape in variant.table.shapes.items()
            if shape != bundle.model.shapes.get(name)}


def where(name):
    """The first of the models on which a deviation can be."""
    return next(at for at in range(len(MODELS)) if deviate(BY_NAME[name], vectors(at).variant, {}))


def names(given, **options):
    return [diagnosis.names for diagnosis in
            oracle.check(vectors(), given, **options).diagnosis]


ELSEWHERE = {"selector-below"}  # of ML-MMoE alone


def test_an_ml_mmoe_whose_upper_gates_select_on_the_level_below_is_named():
    made = oracle.make_vectors(npple.ml_mmoe(4, {"a": "binary", "b": "regression"}, levels=3,
                                             experts=(3, 2, 3), expert_units=(4,)))
    (variant, _), = deviate(BY_NAME["selector-below"], made.variant, {})
    given = dict(compute(variant, cast(made.case, np.float64)))
    report = oracle.check(made, given)
    assert [diagnosis.names for diagnosis in report.diagnosis] == [("selector-below",)]
    assert report.first_divergence == "level2/expert1/gate/logits"
    assert not deviate(BY_NAME["selector-input"], made.variant, {})  # that is the paper's


@pytest.mark.slow
@pytest.mark.parametrize("name", [d.name for d in DEVIATIONS if d.name not in OWN | ELSEWHERE])
def test_a_candidate_made_from_the_catalogue_is_named(name):
    bundle = vectors(where(name))
    report = oracle.check(bundle, deviating(name, at=where(name)))
    assert name in report.faults[0].names and len(report.faults) == 1
    assert [diagnosis.names for diagnosis in report.diagnosis] == [(name,)]


@pytest.mark.parametrize("name", ["selector-input", "gate-sigmoid", "stop-others", "loss-sum"])
def test_without_what_stands_between_outputs_and_gradients_are_enough(name):
    given = {key: y for key, y in deviating(name).items() if key.startswith(("tower", "grad"))}
    assert names(given) == [(name,)]


@pytest.mark.parametrize("name", [d.name for d in DEVIATIONS if d.name not in OWN]
                         + ["gate-on-experts", "gate-by-unit"])
def test_the_gradient_of_a_deviation_is_that_of_its_own_loss_unless_it_holds_one_back(name):
    for made, _ in deviate(BY_NAME[name], vectors().variant, {}):
        own = owned(made, vectors()) if name in OWN else {}
        variant, case = complete(made, cast(vectors().case, np.float64), own)
        batch = case.targets, case.masks, case.weights

        def run(params):
            trace = forward(variant.table, params, case.x)
            return trace, joint_loss(trace, *batch)

        def gradients(params):
            trace, (_, starts) = run(params)
            found = backward(trace, starts)
            return {key: found.get(key, np.zeros_like(array)) for key, array in params.items()}

        def shifts(key):  # nothing before a normalisation over the batch
            return name.endswith("normalised") and key.endswith("bias") and "/experts/" in key

        asked = {key: p for key, p in case.params.items() if not shifts(key)}
        rest = {key: p for key, p in case.params.items() if shifts(key)}
        report = npple.gradcheck_function(
            lambda p: run(p | rest)[1][0],
            lambda p: {key: g for key, g in gradients(p | rest).items() if key in asked}, asked)
        assert report.passed == (name not in CUT)


def test_all_deviations_say_what_they_are_and_where_they_were_seen():
    assert len(DEVIATIONS) == len(BY_NAME)
    for deviation in DEVIATIONS:
        assert deviation.description and deviation.consequence and deviation.fix
        assert isinstance(deviation.seen, tuple) and all(deviation.seen)
        assert deviation.name == deviation.name.lower() and " " not in deviation.name
    assert {d.name for d in DEVIATIONS if d.convention} == {
        "shared-first", "gate-bias", "gate-hidden", "output-probability", "loss-data-mean"}


def test_what_several_deviations_explain_is_told_with_the_tensor_that_decides():
    outputs = {f"tower/{task}": vectors().expected[f"prediction/{task}"] for task in "ab"}
    report = oracle.check(vectors(), outputs)
    found = {diagnosis.names: diagnosis.decides for diagnosis in report.diagnosis}
    assert found == {("output-probability",): "prediction/a", ("tower-activation",): "prediction/a"}
    assert "prediction/a would tell" in str(report)
    settled = outputs | {"prediction/a": vectors().expected["prediction/a"]}
    assert names(settled) == [("output-probability",)]


def test_outputs_alone_can_be_enough_for_a_name():
    outputs = {f"tower/{task}": deviating("stride-outputs")[f"tower/{task}"] for task in "ab"}
    assert names(outputs) == [("stride-outputs",)]


def test_a_weight_decay_nobody_told_is_found():
    variant, _ = deviate(BY_NAME["adam-l2"], vectors().variant, {})[0]
    adam = variant.adam.__class__(**vars(variant.adam) | {"l2": 0.03})
    given = dict(compute(variant.__class__(variant.table, adam), cast(vectors().case, np.float64)))
    assert names(given) == [("adam-l2",)]


def test_a_candidate_with_parameters_of_its_own_tells_them():
    rng = np.random.default_rng(0)
    own = {f"params/level2/{task}/gate/layer1/weight": rng.normal(size=(3, 7)) for task in "ab"}
    given = deviating("last-gate-all", own)
    assert names(given | own) == [("last-gate-all",)]
    assert names(given) == [("last-gate-all",)]  # they follow from its logits
    logits = {f"level2/{task}/gate/logits" for task in "ab"}
    without = {name: y for name, y in given.items() if name not in logits}
    assert names(without) == []  # nobody can tell


def test_a_shared_gate_of_the_shared_experts_alone_is_named_though_it_is_narrow():
    made = oracle.make_vectors(npple.ple(4, TASKS, levels=2, task_experts=3, shared_experts=2,
                                         expert_units=(3,), tower_units=(2,)))
    form, _ = deviate(BY_NAME["shared-gate-shared-only"], made.variant, {})[1]
    weight = "level1/shared/gate/layer1/weight"
    own = {f"params/{weight}": np.random.default_rng(0).normal(size=form.table.shapes[weight])}
    assert form.table.shapes[weight] == (4, 2)  # of the shared experts alone
    given = dict(compute(*complete(form, cast(made.case, np.float64), own)))
    for told in (given | own, given):
        report = oracle.check(made, told)
        assert [each.names for each in report.diagnosis] == [("shared-gate-shared-only",)]


def over_the_data(parts):
    """A candidate's losses by equation 9 over the whole training set, of which tasks have parts."""
    case, losses = vectors().case, {}
    for task, z in (("a", "tower/a"), ("b", "tower/b")):
        z, y, total = vectors().expected[z], case.targets[task], 0.0
        for i in np.flatnonzero(case.masks[task]):
            total += (np.logaddexp(0, z[i]) - y[i] * z[i] if task == "a" else (z[i] - y[i]) ** 2)
        losses[f"loss[{task}]"] = total / (parts[task] * len(z))
    losses["loss"] = sum(case.weights[task] * losses[f"loss[{task}]"] for task in "ab")
    return losses


def test_the_other_reading_of_equation_9_passes_once_declared():
    parts = {"a": 0.75, "b": 0.2}
    given = over_the_data(parts) | {f"tower/{task}": vectors().expected[f"tower/{task}"]
                                    for task in "ab"}
    told = given | {f"params/share/{task}": part for task, part in parts.items()}
    assert not oracle.check(vectors(), told).passed
    assert names(told) == [("loss-data-mean",)]
    assert oracle.check(vectors(), told, conventions=["loss-data-mean"]).passed
    wrong = told | {"params/share/b": 0.3}
    assert not oracle.check(vectors(), wrong, conventions=["loss-data-mean"]).passed


@pytest.mark.parametrize("parts", [{}, {"a": 0.5}, {"a": 0.5, "b": 0.0}, {"a": 0.5, "b": 1.5},
                                   {"a": 0.5, "b": [0.5]}, {"a": np.nan, "b": 0.5}])
def test_without_the_parts_of_all_tasks_it_cannot_be_declared(parts):
    told = {f"params/share/{task}": part for task, part in parts.items()}
    with pytest.raises(npple.InputError, match="loss-data-mean"):
        oracle.check(vectors(), over_the_data({"a": 1.0, "b": 1.0}) | told,
                     conventions=["loss-data-mean"])


def test_uncertainty_weights_are_named_where_their_numbers_are_told():
    told = {"params/log_variance/a": np.array(0.3), "params/log_variance/b": np.array(-0.7)}
    given = deviating("uncertainty-weights", told)
    losses = {task: given[f"loss[{task}]"] for task in "ab"}
    assert given["loss"] == pytest.approx(
        np.exp(-0.3) * losses["a"] + 0.3 + np.exp(0.7) * losses["b"] - 0.7, rel=1e-12)
    assert names(given | told) == [("uncertainty-weights",)]
    assert oracle.check(vectors(), given).verdict == "failed"


@pytest.mark.parametrize("name, form, at", [
    ("gate-on-experts", 0, 0), ("gate-on-experts", 1, 0), ("gate-on-experts", 2, 0),
    ("gate-on-experts", 0, 1), ("gate-by-unit", 0, 0), ("gate-by-unit", 0, 1)])
def test_gates_of_another_making_are_named_where_their_parameters_are_told(name, form, at):
    own = owned(deviate(BY_NAME[name], vectors(at).variant, {})[form][0], vectors(at))
    given = deviating(name, own, form, at)
    report = oracle.check(vectors(at), {key: y for key, y in given.items()
                                        if key in vectors(at).expected} | own)
    assert [diagnosis.names for diagnosis in report.diagnosis] == [(name,)]


@pytest.mark.parametrize("told", [("prediction",), ("prediction", "grad/"), ("tower", "grad/")])
def test_a_product_of_probabilities_is_named_by_what_there_is(told):
    given = {key: y for key, y in deviating("probability-product", at=1).items()
             if key.startswith(told)}
    assert [each.names for each in oracle.check(vectors(1), given).diagnosis] == [
        ("probability-product",)]


def test_a_product_is_named_where_outputs_are_probabilities():
    given = deviating("probability-product", at=1)
    found = {f"tower/{task}": given[f"prediction/{task}"] for task in "ac"}
    faults = oracle.check(vectors(1), found).faults
    assert [(fault.tensor, fault.names[0]) for fault in faults] == [
        ("tower/a", "output-probability"), ("tower/c", "probability-product")]


def test_the_gradient_of_a_product_is_exact_however_sure_it_is():
    z, own = np.meshgrid([-50.0, -1.0, 0.3, 50.0], [-50.0, 0.2, 50.0])
    y, cache = product_forward(z, own)
    down, own_down = product_backward(np.ones_like(z), cache)
    for found, step in ((down, (1e-30j, 0)), (own_down, (0, 1e-30j))):
        slope = product_forward(z + step[0], own + step[1])[0].imag / 1e-30
        np.testing.assert_allclose(found, slope, rtol=1e-13)
    np.testing.assert_allclose(y, -np.log(np.exp(-z) + np.exp(-own) + np.exp(-z - own)), rtol=1e-13)


def test_towers_that_read_experts_side_by_side_are_named_where_their_parameters_are_told():
    table = deviate(BY_NAME["tower-side-by-side"], vectors().variant, {})[0][0].table
    wide = {name: shape for name, shape in table.shapes.items()
            if shape != vectors().model.shapes.get(name)}
    assert {*wide} == {f"tower/{task}/layer1/weight" for task in "ab"}
    rng = np.random.default_rng(0)
    own = {f"params/{name}": rng.normal(size=shape) for name, shape in wide.items()}
    given = deviating("tower-side-by-side", own)
    given = {name: y for name, y in given.items() if name in vectors().expected}
    assert names(given | own) == [("tower-side-by-side",)]


def test_a_deviation_that_changes_nothing_is_not_tried():
    cgc = oracle.make_vectors(npple.cgc(3, {"a": "binary", "b": "binary"})).variant
    single = oracle.make_vectors(npple.single_task(3, {"a": "binary", "b": "binary"})).variant
    for name in ("selector-input", "shared-reads-tasks", "shared-mean", "stop-others"):
        assert deviate(BY_NAME[name], cgc, {}) == []
    for name in ("gate-sigmoid", "gate-batchnorm", "shared-first", "stop-gate"):
        assert deviate(BY_NAME[name], single, {}) == []


@pytest.mark.parametrize("name, task, group, reached", [
    ("last-gate-all", "a", "level2/b/experts", True),
    ("shared-gate-shared-only", "a", "level1/b/experts", False),
    ("shared-input", "a", "level1/b/experts", False),
    ("shared-reads-tasks", "a", "level1/b/experts", False)])
def test_what_a_deviation_does_to_the_separation_of_tasks(name, task, group, reached):
    # the consequence that the catalogue states, read off the deviating table
    table = deviate(BY_NAME[name], vectors().variant, {})[0][0].table
    assert (group in table.reached(task)) == reached
    assert (group in vectors().model.table.reached(task)) != reached
    assert isolation(Network(vectors().model.table)).matrix is not None


def test_a_batch_of_one_row_does_not_pass_an_error_off_as_a_gate_bias():
    bundle = oracle.make_vectors(vectors().model, batch=1)
    given = dict(compute(bundle.variant, cast(bundle.case, np.float64)))
    given = {name: array for name, array in given.items() if "/gate/logits" in name}
    given["level2/b/gate/logits"] = given["level2/b/gate/logits"] + 0.5
    assert oracle.check(bundle, given).diagnosis == []


def test_the_page_has_the_whole_catalogue():
    page = (Path(__file__).parents[2] / "docs" / "oracle.md").read_text(encoding="utf-8")
    for deviation in oracle.DEVIATIONS:
        name = f"`{deviation.name}`{' (a convention)' if deviation.convention else ''}"
        cells = (name, deviation.description, deviation.consequence, deviation.fix,
                 "; ".join(deviation.seen) or "none known to us")
        assert f"\n| {' | '.join(cells)} |\n" in page
    assert f"{len(oracle.DEVIATIONS)} deviations" in page
