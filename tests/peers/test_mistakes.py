"""The rest of the catalogue, made by independent PyTorch programs, is located and named."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

import npple
from npple import oracle

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
import test_deviations  # noqa: E402
from mistaken_torch import CrossStitch, Mistaken, MLMMoE  # noqa: E402

TASKS = {"click": "binary", "dwell": "regression", "share": "binary"}
MODELS = test_deviations.MODELS | {
    "ple even": lambda: npple.ple(
        {"age": "numeric", "city": (4, 2), "site": (4, 2)}, TASKS, levels=3, task_experts=2,
        shared_experts=2, expert_units=(5,), tower_units=(5,)),
    "cgc even": lambda: npple.cgc(
        {"city": (6, 3), "age": "numeric", "site": (6, 3)}, TASKS, task_experts=2,
        shared_experts=2, expert_units=(7, 7), tower_units=(4, 4)),
    "mmoe even": lambda: npple.mmoe(
        {"city": (5, 3), "site": (5, 3)}, TASKS, experts=3, expert_units=(6,), tower_units=(6,)),
    "cross-stitch": lambda: npple.cross_stitch(
        5, TASKS, levels=2, expert_units=(4,), tower_units=()),
    "cross-stitch deep": lambda: npple.cross_stitch(
        {"city": (6, 3), "age": "numeric"}, TASKS, levels=3, expert_units=(3,), tower_units=(3,)),
    "ml-mmoe": lambda: npple.ml_mmoe(4, TASKS, levels=3, experts=(3, 2, 3), expert_units=(4,)),
    "ml-mmoe wide": lambda: npple.ml_mmoe(
        {"city": (6, 3), "age": "numeric"}, TASKS, levels=2, experts=(3, 4), expert_units=(5, 4),
        tower_units=()),
}
PROGRAMS = {"cross-stitch": CrossStitch, "cross-stitch deep": CrossStitch, "ml-mmoe": MLMMoE,
            "ml-mmoe wide": MLMMoE}
USUAL = ["cgc", "mmoe", "ple uneven"]
SQUARE = ["ple 2 levels", "ple uneven", "ple even"]  # as wide as their inputs
COLUMNS = ["cgc even", "mmoe even", "ple even"]  # two of one shape, towers of one shape
GATED = {"": "level1/{first}/gate/logits"}

# Deviation -> the models, and by form the tensor where it enters, derived by hand. Braces as in
# test_deviations.py; {gate} is the first gate above level one of an ML-MMoE.
CASES = {
    "selector-below": (["ml-mmoe", "ml-mmoe wide"], {"": "level2/{gate}/gate/logits"}),
    "expert-normalised": (USUAL, dict.fromkeys(
        ("batch", "batch after", "layer", "layer after"), "{row}{hidden}")),
    "tower-normalised": (USUAL, dict.fromkeys(
        ("batch", "batch after", "layer", "layer after"), "tower/{first}/layer1")),
    "tower-linear-hidden": (USUAL, {"": "tower/{first}/layer1"}),
    "tower-shared": (["cgc", "mmoe even", "ple uneven"], {"": "tower/{second}/layer1"}),
    "weight-transposed": (COLUMNS, {"towers": "tower/{first}/layer"}),
    "gate-temperature": (USUAL, GATED | {"linear": "level1/{first}/gate/weights"}),
    "gate-top-k": (USUAL, dict.fromkeys(("1", "2"), "level1/{first}/gate/weights")),
    "gate-residual": (SQUARE, {"": "level1/{first}"}),
    "gate-shared": (["ple 2 levels", "ple even", "mmoe even"], {
        "": "level1/{second}/gate/logits", "lent": "level1/{last}/gate/logits"}),
    "stitch-shared": (["cross-stitch", "cross-stitch deep"], {"": "level1/{second}"}),
    "experts-permuted": (USUAL, {"": "level1/{first}"}),
    "level-reads-mean": (SQUARE, {"": "level2/{first}/experts"}),
    "level-off-by-one": (SQUARE, {"": "level2/{first}/experts"}),
    "stop-shared-by-task": (["cgc", "ple even", "ple uneven"],
                            {"": "grad/level{top}/shared/experts"}),
    "output-detached": (USUAL, {"": "grad/tower/{second}", "all": "grad/tower/{last}"}),
    "one-embedding-for-two": (COLUMNS, {"": "input"}),
    "padding-idx": (COLUMNS, {"": "grad/embedding/city", "zeros": "input"}),
    "unlabelled-negative": (USUAL, {"": "loss[{second}]"}),
    "positive-weight": (USUAL, {"": "loss[{first}]"}),
    "label-smoothing": (USUAL, {"": "loss[{first}]"}),
    "half-square": (["mmoe", "ple uneven", "ple even"],
                    {"": "loss[dwell]", "gradient": "grad/tower/dwell"}),
    "loss-factor": (USUAL, {"": "loss"}),
    "loss-data-mean": (USUAL, {"": "loss[{first}]"}),
    "loss-clipped": (USUAL, {"": "loss[{first}]"}),
    "uncertainty-weights": (USUAL, {"": "loss"}),
    "masked-target-gradient": (USUAL, {"": "grad/tower/{second}"}),
    "activation-slope": (USUAL, {"": "{row}{hidden}"}),
    "tower-side-by-side": (["cgc", "ple 2 levels", "ple uneven"], {"": "level{top}/{first}"}),
    "gate-on-experts": (USUAL, dict.fromkeys(
        ("side by side", "mean", "each"), "level1/{first}/gate/logits")),
    "gate-by-unit": (USUAL, GATED),
    "streams-overwritten": (SQUARE, {"": "level1/shared", "shared first": "level1/{first}"}),
    "probability-product": (COLUMNS, {"": "prediction/share"}),
    "softmax-unsummed": (USUAL, {"": "grad/level{top}/{last}/gate/layer1/weight"}),
    "experts-unweighted": (USUAL, {"": "grad/level{top}/shared/experts"}),
    "gradient-assigned": (USUAL, {"": "grad/level{top}/shared/experts"}),
    "activation-forgotten": (USUAL, {
        "experts": "grad/level{top}/shared/experts/layer{deep}/bias",
        "towers": "grad/tower/{last}/layer1/bias"}),
    "mean-for-sum": (USUAL, {"": "grad/tower/{last}/layer2/bias"}),
    "adam-time": (USUAL, {"ahead": "adam1/{param}", "stuck": "adam2/{param}"}),
    "adam-amsgrad": (USUAL, {"": "adam"}),
    "adam-nadam": (USUAL, {"": "adam1/{param}"}),
    "adam-decoupled": (USUAL, {"": "adam1/{param}"}),
    "adam-clip": (USUAL, {"": "adam1/{param}"}),
    "adam-rate": (USUAL, {"": "adam1/{param}"}),
    "adam-epsilon": (USUAL, {"": "adam1/{param}"}),
    "adam-momentum": (USUAL, {"": "adam2/{param}"}),
}
ALL = [(mistake, form, name) for mistake, (names, forms) in CASES.items() for form in forms
       for name in names]
QUICK = [(mistake, next(iter(forms)), names[0]) for mistake, (names, forms) in CASES.items()]


@functools.cache
def vectors(name):
    return oracle.make_vectors(MODELS[name](), seed=1)


@functools.cache
def given(mistake, form, name):
    """What the program with this mistake computes; PyTorch's NAdam keeps a product in float32."""
    bundle = vectors(name)
    program = PROGRAMS.get(name, Mistaken)(
        bundle, mistakes={mistake} - {""}, form=form, own=own_parameters(bundle, mistake, form),
        dtype=torch.float32 if mistake == "adam-nadam" else torch.float64)
    return program(bundle.params, bundle.inputs)


def own_parameters(bundle, mistake, form):
    """Numbers of the program's own, where a mistake needs them."""
    rng, model = np.random.default_rng(0), bundle.model
    if mistake == "uncertainty-weights":
        return {f"log_variance/{task}": rng.normal(size=()) for task in model.tasks}
    if mistake == "loss-data-mean":
        return {f"share/{task}": np.array(1 / (2 + i)) for i, task in enumerate(model.tasks)}
    shapes = {}
    for row in model.table.rows:
        weight = f"{row.name}/gate/layer1/weight"
        if weight in model.shapes:
            wide, count = model.shapes[weight]
            width = model.table.widths[row.name]
            if mistake in ("gate-on-experts", "gate-by-unit"):
                shapes[weight] = {"side by side": (count * width, count), "mean": (width, count),
                                  "each": (width, 1), "": (wide, count * width)}[form]
            tower = f"tower/{row.name.partition('/')[2]}/layer1/weight"
            if mistake == "tower-side-by-side" and tower in model.shapes:
                shapes[tower] = (count * width, model.shapes[tower][1])
    return {name: rng.normal(size=shape) / 2 for name, shape in shapes.items()}


def enters(mistake, form, name):
    """The tensor that a pattern of `CASES` means for a model."""
    model = vectors(name).model
    tasks, rows = list(model.tasks), model.table.rows
    top = max(int(row.name[5]) for row in rows if row.name.startswith("level"))
    return CASES[mistake][1][form].format(
        first=tasks[0], second=tasks[1], last=tasks[-1], top=top, param=next(iter(model.shapes)),
        row=rows[0].name, hidden="/layer1" if len(rows[0].units) > 1 else "",
        deep=len(rows[0].units), gate="expert1" if top > 2 else tasks[0])


def located_and_named(mistake, form, name):
    report = oracle.check(vectors(name), given(mistake, form, name))
    assert report.first_divergence.startswith(enters(mistake, form, name)), report
    assert [diagnosis.names for diagnosis in report.diagnosis] == [(mistake,)]


def test_every_deviation_has_a_program():
    assert CASES.keys() ^ test_deviations.CASES.keys() == {
        deviation.name for deviation in oracle.DEVIATIONS}


@pytest.mark.parametrize("name", MODELS.keys() - test_deviations.MODELS.keys())
def test_without_a_mistake_everything_passes(name):
    report = oracle.check(vectors(name), given("", "", name))
    assert report.passed and not report.missing and not report.unknown, report


@pytest.mark.parametrize("mistake, form, name", QUICK)
def test_a_mistake_is_located_and_named(mistake, form, name):
    located_and_named(mistake, form, name)


@pytest.mark.fuzz
@pytest.mark.parametrize("mistake, form, name", [each for each in ALL if each not in QUICK])
def test_every_form_of_a_mistake_is_located_and_named(mistake, form, name):
    located_and_named(mistake, form, name)


@pytest.mark.fuzz
@pytest.mark.parametrize("mistake, form, name", ALL)
def test_outputs_and_gradients_are_enough_for_a_name(mistake, form, name):
    bundle = vectors(name)
    kept = {f"{kind}/{task}" for kind in ("tower", "prediction") for task in bundle.model.tasks}
    told = {key: y for key, y in given(mistake, form, name).items()
            if key in kept or key.startswith("params/")
            or key.startswith("grad") and key.partition("/")[2] in bundle.params}
    report = oracle.check(bundle, told)
    if mistake.startswith("adam"):  # nothing that was given shows it, and that is said
        assert report.passed and mistake in report.not_excluded
    else:
        assert (mistake,) in [diagnosis.names for diagnosis in report.diagnosis], report
