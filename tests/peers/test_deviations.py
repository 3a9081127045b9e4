"""Deviations of the catalogue, made by an independent PyTorch program, are found and named.

The rest of the catalogue is in test_mistakes.py.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

import npple
from npple import oracle

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
import false_alarms  # noqa: E402
from deviant_torch import Candidate  # noqa: E402

TWO = {"click": "binary", "dwell": "regression"}
THREE = TWO | {"kind": "multiclass:3"}
MODELS = {
    "ple 2 levels": lambda: npple.ple(
        6, TWO, levels=2, task_experts=3, shared_experts=1, expert_units=(6,), tower_units=(5,)),
    "ple 3 levels": lambda: npple.ple(
        {"age": "numeric", "city": (5, 4)}, THREE, levels=3, task_experts=2, shared_experts=2,
        expert_units=(4, 7), tower_units=()),
    "ple uneven": lambda: npple.ple(
        5, THREE, levels=2, task_experts={"click": 1, "dwell": 3, "kind": 2}, shared_experts=3,
        expert_units=(5,), tower_units=(3,)),
    "ple uncut": lambda: npple.ple(
        4, TWO, levels=2, task_experts=3, shared_experts=2, expert_units=(6, 4), tower_units=(3,),
        cut=False),
    "cgc": lambda: npple.cgc(
        7, THREE, task_experts={"click": 2, "dwell": 1, "kind": 2}, shared_experts=2,
        expert_units=(6, 5), tower_units=(4,)),
    "cgc 4 tasks": lambda: npple.cgc(
        4, THREE | {"share": "binary"}, task_experts=3, shared_experts=8, expert_units=(3,),
        tower_units=()),
    "mmoe": lambda: npple.mmoe(
        6, THREE, experts=4, expert_units=(5, 4), tower_units=(4,)),
    "mmoe wide": lambda: npple.mmoe(
        {"age": "numeric", "city": (5, 3)}, TWO, experts=3, expert_units=(6,), tower_units=()),
}
PLE = ["ple 2 levels", "ple 3 levels", "ple uneven"]
LEVELS = [*PLE, "ple uncut"]
FAMILY = ["ple 3 levels", "cgc", "mmoe", "ple uncut"]

# Deviation -> models that can have it, and the tensor where it enters, derived by hand: {first},
# {second} and {last} are tasks, {top} is the last level, {below} the one before, {tops} where
# gradients first pass from a gate to other tasks' experts, {row} the first group, {param} the first
# parameter.
CASES = {
    "selector-input": (LEVELS, "level2/{first}/gate/logits"),
    "last-gate-all": ([*PLE, "cgc"], "level{top}/{first}/gate/logits"),
    "stride-parameters": ([*PLE, "cgc 4 tasks"], "level1/{second}/experts{hidden}"),
    "stride-outputs": ([*PLE, "cgc 4 tasks"], "level1/{second}"),
    "shared-reads-tasks": (LEVELS, "level2/{first}"),
    "shared-first": ([*LEVELS, "cgc"], "level1/{first}"),
    "shared-gate-shared-only": (["ple 3 levels", "ple uneven", "ple uncut"],
                                "level1/shared/gate/logits"),
    "shared-mean": (LEVELS, "level1/shared/gate/weights"),
    "shared-input": (LEVELS, "level1/shared"),
    "gate-bias": (FAMILY, "level1/{first}/gate/logits"),
    "gate-hidden": (FAMILY, "level1/{first}/gate/logits"),
    "gate-batchnorm": (FAMILY, "level1/{first}/gate/logits"),
    "gate-softmax-batch": (FAMILY, "level1/{first}/gate/weights"),
    "gate-no-softmax": (FAMILY, "level1/{first}/gate/weights"),
    "gate-sigmoid": (FAMILY, "level1/{first}/gate/weights"),
    "expert-linear-end": (FAMILY, "{row}"),
    "output-probability": (FAMILY, "tower/{first}"),
    "tower-activation": (FAMILY, "tower/{first}"),
    "stop-selector": (FAMILY, "grad/{beneath}"),
    "stop-others": (LEVELS, "grad/level{tops}/{last}/experts"),
    "stop-gate": (FAMILY, "grad/level{top}/{last}/gate/layer1/weight"),
    "loss-sum": (FAMILY, "loss[{first}]"),
    "loss-batch-mean": (FAMILY, "loss[{second}]"),
    "loss-mean-over-tasks": (FAMILY, "loss"),
    "weights-twice": (FAMILY, "loss"),
    "weights-ignored": (FAMILY, "loss"),
    "adam-epsilon-inside": (FAMILY, "adam1/{param}"),
    "adam-epsilon-hat": (FAMILY, "adam1/{param}"),
    "adam-no-correction": (FAMILY, "adam1/{param}"),
    "adam-l2": (FAMILY, "adam1/{param}"),
}

# Half of the regression task's rows are its own there: both halve its loss.
TWINS = {("loss-batch-mean", "cgc"): [("half-square",)]}


@functools.cache
def vectors(name):
    return oracle.make_vectors(MODELS[name](), seed=1)


def candidate(name, mistakes, **options):
    """The PyTorch program with these mistakes, with parameters of its own where they need it."""
    bundle = vectors(name)
    own = {}
    for mistake in mistakes:
        own |= own_parameters(bundle, name, mistake)
    return Candidate(bundle, cut=name != "ple uncut", mistakes=mistakes, own=own, **options)


def own_parameters(bundle, name, mistake):
    """Random parameters where a mistake needs others than the bundle's, or more."""
    rng, own, params = np.random.default_rng(0), {}, bundle.params
    wide = bundle.expected["input"].shape[1]
    top = max(int(parameter[5]) for parameter in params if parameter.startswith("level"))

    def draw(parameter, *shape):
        if params.get(parameter, np.zeros(0)).shape != shape:
            own[parameter] = rng.normal(size=shape) / np.sqrt(shape[0])

    for parameter, weight in params.items():
        level = int(parameter[5]) if parameter.startswith("level") else 0
        stem = parameter.removesuffix("/layer1/weight")
        gate, shared = stem.endswith("/gate"), stem.endswith("/shared/experts")
        if mistake == "selector-input" and gate:
            draw(parameter, wide, weight.shape[1])
        if mistake == "last-gate-all" and gate and level == top:
            experts = [p for p in params if p.startswith(f"level{top}/")
                       and p.endswith("experts/layer1/weight")]
            draw(parameter, len(weight), sum(len(params[p]) for p in experts))
        if mistake == "shared-input" and shared and level > 1:
            draw(parameter, len(weight), wide, weight.shape[2])
        if mistake == "gate-bias" and gate:
            draw(f"{stem}/layer1/bias", weight.shape[1])
        if mistake == "gate-hidden" and gate:
            draw(parameter, len(weight), 11)
            draw(f"{stem}/layer1/bias", 11)
            draw(f"{stem}/layer2/weight", 11, weight.shape[1])
    return own


def enters(name, pattern):
    """The tensor that a pattern of `CASES` means for a model."""
    model = vectors(name).model
    tasks, rows = list(model.tasks), model.table.rows
    top = max(int(row.name[5]) for row in rows if row.name.startswith("level"))
    return pattern.format(
        first=tasks[0], second=tasks[1], last=tasks[-1], top=top, param=next(iter(model.shapes)),
        tops=top if name == "ple uncut" else top - 1, row=rows[0].name,
        hidden="/layer1" if len(rows[0].units) > 1 else "",
        beneath=f"level{top - 1}/{tasks[-1]}" if top > 1 else "input")


def test_each_of_these_deviations_is_tested_on_three_models_or_more():
    assert all(len(models) >= 3 for models, _ in CASES.values())


@pytest.mark.parametrize("name", MODELS)
def test_without_a_mistake_everything_passes(name):
    report = oracle.check(vectors(name), candidate(name, ()))
    assert report.passed and not report.missing and not report.unknown, report


# 27 runs all twice, 172 returns probabilities, 507 sees gradients in part; in 70, second moments
# underflow
@pytest.mark.parametrize("number", [*range(24), 27, 67, 70, 172, 507])
def test_a_right_candidate_of_a_random_architecture_is_no_false_alarm(number):
    report, what = false_alarms.check(number)
    assert report.verdict in ("passed", "passed in part"), f"{what}\n{report}"


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["ple uneven", "cgc", "mmoe"])
def test_half_precision_is_judged_by_the_same_rule(name, precision):
    right = candidate(name, (), dtype=getattr(torch, precision), seed=0, stacked=True)
    report = oracle.check(vectors(name), right)
    assert report.passed and report.precision == precision, report
    wrong = candidate(name, ("gate-sigmoid",), dtype=getattr(torch, precision), seed=0)
    report = oracle.check(vectors(name), wrong)
    assert report.first_divergence == enters(name, CASES["gate-sigmoid"][1])


@pytest.mark.parametrize("mistake, name", [(mistake, name) for mistake, (names, _) in CASES.items()
                                           for name in names])
def test_a_deviation_is_located_and_named(mistake, name):
    report = oracle.check(vectors(name), candidate(name, (mistake,)))
    assert report.first_divergence == enters(name, CASES[mistake][1])
    twins = TWINS.get((mistake, name), [])
    assert [diagnosis.names for diagnosis in report.diagnosis] == [(mistake,), *twins]


@pytest.mark.parametrize("mistake", ["selector-input", "stride-outputs", "gate-batchnorm",
                                     "stop-others", "loss-sum", "adam-epsilon-hat"])
def test_a_deviation_is_named_in_single_precision(mistake):
    report = oracle.check(vectors("ple uneven"),
                          candidate("ple uneven", (mistake,), dtype=torch.float32, seed=3))
    assert report.precision == "float32"
    assert report.first_divergence == enters("ple uneven", CASES[mistake][1])
    assert [diagnosis.names for diagnosis in report.diagnosis] == [(mistake,)]


def test_a_gate_bias_that_was_not_told_is_found_from_the_logits():
    subject = candidate("cgc", ("gate-bias",), give_own=False)
    report = oracle.check(vectors("cgc"), subject)
    assert [diagnosis.names for diagnosis in report.diagnosis] == [("gate-bias",)]


@pytest.mark.parametrize("name, activation", [("mmoe", "softplus"), ("cgc", "relu")])
def test_the_form_of_a_deviation_is_told(name, activation):
    subject = candidate(name, ("tower-activation",), tower_output=activation)
    diagnosis, = oracle.check(vectors(name), subject).diagnosis
    assert diagnosis.names == ("tower-activation",) and diagnosis.details == (activation,)


@pytest.mark.parametrize("convention", ["shared-first", "gate-bias", "gate-hidden"])
def test_a_convention_passes_once_declared(convention):
    subject = candidate("ple uneven", (convention,))
    report = oracle.check(vectors("ple uneven"), subject)
    assert not report.passed and report.diagnosis[0].convention
    assert oracle.check(vectors("ple uneven"), subject, conventions=[convention]).passed


PAIRS = [
    ("ple 2 levels", "selector-input", "gate-sigmoid"),
    ("ple 2 levels", "selector-input", "shared-mean"),
    ("ple 2 levels", "stride-parameters", "gate-bias"),
    ("ple 2 levels", "shared-reads-tasks", "expert-linear-end"),
    ("ple 2 levels", "shared-input", "adam-epsilon-hat"),
    ("ple 2 levels", "gate-hidden", "loss-sum"),
    ("ple 2 levels", "stop-selector", "adam-l2"),
    ("ple uneven", "selector-input", "stride-outputs"),
    ("ple uneven", "last-gate-all", "gate-no-softmax"),
    ("ple uneven", "shared-first", "gate-batchnorm"),
    ("ple uneven", "shared-first", "shared-mean"),
    ("ple uneven", "stride-parameters", "stop-others"),
    ("ple uneven", "shared-reads-tasks", "shared-first"),
    ("ple uneven", "shared-mean", "tower-activation"),
    ("ple uneven", "loss-batch-mean", "weights-ignored"),
    ("ple uneven", "stop-gate", "adam-no-correction"),
    ("ple uncut", "selector-input", "stop-others"),
    ("ple uncut", "shared-gate-shared-only", "weights-twice"),
    ("ple uncut", "gate-softmax-batch", "loss-mean-over-tasks"),
    ("ple uncut", "stop-selector", "stop-others"),
    ("cgc", "gate-bias", "gate-sigmoid"),
    ("cgc", "shared-first", "adam-epsilon-inside"),
    ("cgc", "last-gate-all", "loss-batch-mean"),
    ("mmoe", "gate-batchnorm", "expert-linear-end"),
    ("mmoe", "weights-twice", "adam-l2"),
    ("mmoe wide", "gate-no-softmax", "output-probability"),
]


@pytest.mark.parametrize("name, one, other", PAIRS)
def test_two_deviations_at_once_are_both_named(name, one, other):
    report = oracle.check(vectors(name), candidate(name, (one, other)))
    assert [set(diagnosis.names) for diagnosis in report.diagnosis] == [{one, other}]
