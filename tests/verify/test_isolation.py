"""Isolation: the matrix that follows from the table agrees with what can be measured."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from strategies import tables

import npple
from npple.draw import plots
from npple.errors import FileError, InputError
from npple.verify.influence import influence
from npple.verify.isolation import generic_case, isolation
from npple.verify.measure import same_bits
from npple.network import Network
from npple.verify.cases import random_case, random_model
from npple.routing import Gate, Source, Table

WAYS = ["analytic", "parameters", "labels", "training"]
TASKS = {"income": "binary", "marital": "regression"}


def two_tasks(builder=npple.ple, **options):
    return builder(3, TASKS, expert_units=(4,), tower_units=(2,), **options)


def own_gradients(model, case):
    """Task -> the gradient of its loss alone."""
    return {task: model.loss_and_grads(case.params, case.x, case.targets, case.masks,
                                       {other: float(other == task) for other in model.tasks})[1]
            for task in model.tasks}


def owners(report):
    """Parameter name -> group, by the names alone."""
    return {name: name.split("/layer")[0] for name in report.model.shapes}


# The table against the numbers ------------------------------------------------------------------

@settings(max_examples=50)
@given(tables())
def test_table_and_measurements_agree_in_every_cell_of_any_table(table):
    agrees(table)


@pytest.mark.fuzz
@settings(max_examples=500)
@given(tables())
def test_table_and_measurements_agree_in_many_tables(table):
    agrees(table)


def agrees(table):
    model = Network(table)
    case = generic_case(model)
    trace = model.forward(case.params, case.x)
    # a gate over nothing but copies of one expert makes that expert, whatever its parameters are
    assume(not any(mixes_copies(row, trace) for row in table.rows if isinstance(row, Gate)))
    assert isolation(model).verify(steps=1).passed


def mixes_copies(gate, trace):
    experts = np.concatenate([source.take(trace[source.name]) for source in gate.sources])
    return np.allclose(experts, experts[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", sorted(npple.ARCHITECTURES))
def test_table_and_measurements_agree_in_every_architecture(name, levels):
    report = isolation(random_model(name, levels=levels)).verify()
    assert report.verified == dict.fromkeys(WAYS, True), report
    assert report.passed


@pytest.mark.parametrize("group", ["level1/marital/experts", "level2/marital/experts",
                                   "level1/income/gate", "level1/shared/gate", "tower/marital"])
def test_each_way_by_itself_notices_a_wrong_cell(group):
    report = isolation(two_tasks())
    wrong = {"isolated": "reached", "reached": "isolated"}[report.matrix["income"][group]]
    report.matrix["income"][group] = wrong
    verification = report.verify()
    assert verification.verified == dict.fromkeys(WAYS, False)
    for comparison in verification.ways.values():
        assert {(d.task, d.group, d.expected) for d in comparison.deviations} == {
            ("income", group, wrong)}
    evidence = [d.evidence.split(":")[0] for d in verification.ways["training"].deviations]
    assert evidence == [f"3 steps of {name} on income alone" for name in ("SGD", "Adam")]


def test_a_unit_that_is_off_is_reported_with_its_first_entry():
    model = two_tasks()
    case = generic_case(model)
    off = case.params | {"level2/shared/experts/layer1/bias": np.full((2, 4), -1e3)}
    report = isolation(model).verify(off, case.x, case.targets)
    entry = "level2/shared/experts/layer1/weight[0, 0, 0] is 0.0, the others likewise"
    first = next(d for d in report.ways["analytic"].deviations if "level2" in d.group)
    assert not report.passed
    assert report.agreed("income", "level2/shared/experts") == ()
    assert report.agreed("income", "tower/income") == tuple(WAYS)
    assert first.task == "income" and entry in first.evidence
    assert "reached  ----" in str(report) and "isolated aplt" in repr(report)


def test_a_task_without_a_row_reaches_nothing_when_measured():
    model = two_tasks()
    case = generic_case(model)
    masks = {"income": np.zeros(8, bool)}
    report = isolation(model).verify(case.params, case.x, case.targets, masks)
    assert not report.verified["analytic"] and report.verified["parameters"]
    assert {d.task for d in report.ways["labels"].deviations} == {"income"}


def test_verify_takes_the_whole_data_or_none():
    with pytest.raises(InputError, match="all three or none"):
        isolation(two_tasks()).verify(two_tasks().init())


# The matrix -------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_a_loss_reaches_the_other_tasks_experts_in_every_level_of_ple_but_the_last(levels):
    matrix = isolation(random_model("ple", levels=levels)).matrix
    for level in range(1, levels + 1):
        found = {matrix[a][f"level{level}/{b}/experts"] for a in matrix for b in matrix if a != b}
        assert found == {"isolated" if level == levels else "reached"}


def test_who_is_isolated_in_the_other_architectures():
    def isolated(name):
        report = isolation(random_model(name))
        return {(task, group) for task in report.tasks for group in report.groups
                if "experts" in group and report.matrix[task][group] == "isolated"}

    others = {(a, f"level1/{b}/experts") for a in ("task1", "task2", "task3")
              for b in ("task1", "task2", "task3") if a != b}
    assert isolated("cgc") == isolated("single_task") == others
    assert isolated("mmoe") == isolated("ml_mmoe") == isolated("shared_bottom") == set()


def test_the_groups_are_what_the_rows_own_and_one_for_all_embeddings():
    report = isolation(npple.cgc({"age": "numeric", "job": (5, 2), "city": (4, 3)}, TASKS))
    assert report.groups["embedding"] == ("embedding/job", "embedding/city")
    assert report.groups["level1/income/gate"] == ("level1/income/gate/layer1/weight",)
    assert sorted(sum(report.groups.values(), ())) == sorted(report.model.shapes)


def test_a_group_lent_in_part_is_one_group_with_all_its_parameters():
    deep = two_tasks(npple.cgc).table.row["level1/income/experts"]
    deep = replace(deep, units=(4, 4), activations=("relu", "relu"))
    first = replace(two_tasks(npple.cgc).table.row["level1/marital/experts"],
                    parameters=deep.name)  # no more than its first layer
    report = isolation(rewired(two_tasks(npple.cgc), deep, first))
    assert report.groups[deep.name] == tuple(
        f"{deep.name}/layer{i}/{kind}" for i in (1, 2) for kind in ("weight", "bias"))
    assert report.verify().passed


def test_bits_are_the_same_for_the_same_number_the_same_zero_and_two_nans():
    a = np.array([1.0, 0.0, -0.0, 0.0, np.nan, np.nan, np.inf])
    b = np.array([1.0, 0.0, -0.0, -0.0, np.nan, 1.0, -np.inf])
    assert same_bits(a, b).tolist() == [True, True, True, False, True, False, False]


def test_a_path_reads_from_the_tower_down():
    report = isolation(two_tasks())
    assert report.explain("marital", "level1/income/experts") == (
        "marital tower <- level 2 shared experts <- level 1 shared gate <- level 1 income experts")
    assert report.explain("marital", "level2/marital/gate") == (
        "marital tower <- level 2 marital gate")
    assert report.explain("marital", "tower/marital") == "marital tower"
    assert report.explain("marital", "level2/income/experts").startswith("isolated")
    with pytest.raises(InputError, match="group: 'level3/a', expected one of"):
        report.explain("marital", "level3/a")


def test_the_report_prints_a_row_a_group():
    lines = str(isolation(two_tasks())).splitlines()
    assert lines[0].split() == ["income", "marital"]
    assert "level2/income/experts   reached   isolated" in lines


def test_the_json_report():
    report = isolation(two_tasks(npple.cgc))
    content = report.verify().to_dict("cgc")
    assert list(content) == ["model", "tasks", "groups", "matrix", "verified"]
    assert content["model"] == "cgc" and content["tasks"] == ["income", "marital"]
    assert content["groups"] == list(report.groups)
    assert content["matrix"]["income"]["level1/marital/experts"] == "isolated"
    assert content["verified"] == dict.fromkeys(WAYS, True)


# Broken wirings ---------------------------------------------------------------------------------

def rewired(model, *rows):
    """The model with these rows in place of those with their names."""
    new = {row.name: row for row in rows}
    levels = tuple(replace(level, groups=tuple(new.get(row.name, row) for row in level.groups),
                           fusions=tuple(new.get(row.name, row) for row in level.fusions))
                   for level in model.table.levels)
    return Network(replace(model.table, levels=levels))


def deviations(good, broken):
    found = isolation(good).compare(isolation(broken)).deviations
    assert isolation(broken).verify().passed  # the broken table is as true to itself
    return {(d.task, d.group, d.found): d.evidence for d in found}


def test_experts_indexed_by_the_number_of_tasks():
    """Three experts a task in one list, cut by a stride of two: marital's begin with income's."""
    good = two_tasks(npple.cgc, task_experts=3)
    gates = good.table.row
    shared = Source("level1/shared/experts")
    income, marital = "level1/income/experts", "level1/marital/experts"
    broken = rewired(
        good,
        replace(gates["level1/income"], sources=(Source(income, (0, 1)), shared)),
        replace(gates["level1/marital"],
                sources=(Source(income, (2,)), Source(marital, (0,)), shared)))
    assert deviations(good, broken) == {
        ("marital", income, "reached"): "marital tower <- level 1 income experts [2]"}


def test_a_shared_gate_on_the_last_level_that_feeds_a_tower():
    good = two_tasks()
    table = good.table
    last = table.levels[1]
    gate = Gate("level2/shared", tuple(Source(group.name) for group in last.groups),
                "level1/shared")
    towers = (table.towers[0], replace(table.towers[1], reads="level2/shared"))
    broken = Network(Table(table.inputs, (
        table.levels[0], replace(last, fusions=(*last.fusions, gate))), towers))
    found = deviations(good, broken)
    assert found["marital", "level2/income/experts", "reached"] == (
        "marital tower <- level 2 shared gate <- level 2 income experts")
    assert found["marital", "level2/shared/gate", "reached"] == (
        "marital tower <- level 2 shared gate")
    assert found["marital", "level2/marital/gate", "isolated"] == (
        "no path there, here marital tower <- level 2 marital gate")
    assert {task for task, _, _ in found} == {"marital"}


def test_two_tasks_that_share_an_expert_group():
    good = two_tasks(npple.cgc)
    group = replace(good.table.row["level1/marital/experts"], parameters="level1/income/experts")
    found = deviations(good, rewired(good, group))
    assert found["marital", "level1/income/experts", "reached"] == (
        "marital tower <- level 1 marital experts (parameters of level1/income/experts)")
    assert found["marital", "level1/marital/experts", "isolated"].startswith("no path there")
    assert len(found) == 2


def test_a_model_deviates_in_nothing_from_itself():
    report = isolation(two_tasks())
    assert report.compare(isolation(two_tasks())).passed
    assert report.compare(report.verify().to_dict("ple")["matrix"]).passed
    with pytest.raises(InputError, match="other: a dict by task"):
        report.compare(isolation(random_model("ple")))


# Gradients of other implementations -------------------------------------------------------------

def test_gradients_from_elsewhere_pass_where_they_isolate():
    report = isolation(two_tasks())
    gradients = own_gradients(report.model, generic_case(report.model))
    assert report.compare_gradients(gradients, owners(report)).passed
    nothing = {task: {name: g if g.any() else None for name, g in named.items()}
               for task, named in gradients.items()}
    assert report.compare_gradients(nothing, owners(report)).passed
    negative = {task: {name: g if g.any() else -g for name, g in named.items()}
                for task, named in gradients.items()}
    assert report.compare_gradients(negative, owners(report)).passed  # -0.0 is 0


def test_the_smallest_gradient_from_elsewhere_is_found_and_named():
    report = isolation(two_tasks())
    gradients = own_gradients(report.model, generic_case(report.model))
    gradients["income"]["level2/marital/experts/layer1/weight"][1, 2, 3] = 5e-324
    deviation, = report.compare_gradients(gradients, owners(report)).deviations
    assert (deviation.task, deviation.group) == ("income", "level2/marital/experts")
    assert (deviation.expected, deviation.found) == ("isolated", "reached")
    assert "level2/marital/experts/layer1/weight[1, 2, 3] is 5e-324" in deviation.evidence


def test_an_uncut_ple_is_not_taken_for_a_ple():
    case = generic_case(two_tasks(partial(npple.ple, cut=False)))
    report = isolation(two_tasks())
    gradients = own_gradients(case.model, case)
    found = report.compare_gradients(gradients, owners(report)).deviations
    assert {(d.task, d.group) for d in found if "experts" in d.group} == {
        ("income", "level2/marital/experts"), ("marital", "level2/income/experts")}


def test_gradients_must_be_named_and_mapped_completely():
    report = isolation(two_tasks())
    groups = owners(report)
    gradients = own_gradients(report.model, generic_case(report.model))
    fewer = {name: group for name, group in groups.items() if group != "tower/income"}
    for message, arguments in {
            "gradients: a dict by task": ({"income": gradients["income"]}, groups),
            "mapped to a wrong group: 'tower/x', did you mean 'tower/income'":
                (gradients, groups | {"w": "tower/x"}),
            "no name is mapped to 'tower/income'": (gradients, fewer),
            "'extra' stands in one": (gradients, groups | {"extra": "tower/income"})}.items():
        with pytest.raises(InputError, match=message):
            report.compare_gradients(*arguments)


# What moves in training all the same ------------------------------------------------------------

def steps(optimizer, only_income=False):
    """Marital's last experts after a step on marital's loss, and after one on income's alone."""
    model = two_tasks()
    case = generic_case(model)
    gradients = own_gradients(model, case)
    only = model.table.reached_parameters(["income"]) if only_income else None
    before, state = optimizer.step(case.params, gradients["marital"], optimizer.init(case.params))
    after, _ = optimizer.step(before, gradients["income"], state, only)
    name = "level2/marital/experts/layer1/weight"
    assert not gradients["income"][name].any()
    return before[name].tobytes(), after[name].tobytes()


@pytest.mark.parametrize("optimizer", [npple.Adam(), npple.SGD(weight_decay=0.1)])
def test_old_moments_and_weight_decay_move_what_a_loss_is_isolated_from(optimizer):
    before, after = steps(optimizer)
    assert before != after
    before, after = steps(optimizer, only_income=True)
    assert before == after


def test_plain_sgd_moves_nothing_that_the_loss_is_isolated_from():
    before, after = steps(npple.SGD())
    assert before == after


def test_clipping_lets_one_tasks_targets_scale_the_steps_of_groups_isolated_from_it():
    model = two_tasks()
    case = generic_case(model)
    name = "level2/income/experts/layer1/weight"

    def step(optimizer, marital):
        targets = case.targets | {"marital": case.targets["marital"] + marital}
        _, grads = model.loss_and_grads(case.params, case.x, targets)
        return optimizer.step(case.params, grads, {})[0][name].tobytes()

    assert step(npple.SGD(), 0.0) == step(npple.SGD(), 100.0)
    assert step(npple.SGD(clip=0.1), 0.0) != step(npple.SGD(clip=0.1), 100.0)


def test_penalties_are_no_tasks_loss():
    """They move every group that has one, so isolation is measured without them."""
    model = two_tasks(npple.snr_aver, l0=0.1)
    case = generic_case(model)
    name = "level2/marital/route/log_alpha"
    _, grads = model.loss_and_grads(case.params, case.x, case.targets,
                                    weights={"income": 1.0, "marital": 0.0})
    assert grads[name].any() and isolation(model).verify().passed
    norms = influence(model, case.params, case.x, case.targets).norms
    assert norms["income"]["level2/marital/route"] == 0


# The picture ------------------------------------------------------------------------------------

def picture():
    pytest.importorskip("matplotlib")
    report = isolation(two_tasks())
    case = generic_case(report.model)
    norms = influence(report.model, case.params, case.x, case.targets, case.masks).norms
    norms["income"]["level1/marital/experts"] = 0.0  # reached, if by nothing
    return report, plots.isolation_figure(report, norms)


def test_the_picture_leaves_isolated_cells_empty_and_shades_all_others():
    report, figure = picture()
    mesh = figure.axes[0].collections[0]
    alpha = mesh.to_rgba(mesh.get_array())[..., -1]
    reached = [[report.matrix[task][group] == "reached" for group in report.groups]
               for task in report.tasks]
    assert (alpha == 1).tolist() == reached and ((alpha == 0) | (alpha == 1)).all()
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["level 1", "level 2", "towers"]


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        plots.save(picture()[1], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_that_cannot_be_saved_says_why(tmp_path):
    _, figure = picture()
    with pytest.raises(InputError, match="a picture ends in .svg"):
        plots.save(figure, tmp_path / "a.txt")
    with pytest.raises(FileError, match="cannot write"):
        plots.save(figure, tmp_path / "nowhere" / "a.svg")


# What is refused --------------------------------------------------------------------------------

@pytest.mark.parametrize("model", ["ple", None, two_tasks().table], ids=lambda m: type(m).__name__)
def test_what_is_no_model_is_refused(model):
    case = random_case(two_tasks())
    data = npple.data.Dataset(case.x, case.targets, {})
    for call in (isolation, npple.Isolation, random_case, generic_case, npple.draw.diagram,
                 lambda m: npple.training.predict(m, case.params, data),
                 lambda m: npple.training.evaluate_model(m, case.params, data),
                 lambda m: npple.training.gate_weights(m, case.params, data),
                 lambda m: npple.influence(m, case.params, case.x, case.targets),
                 lambda m: npple.gradcheck(m, case.params, case.x, case.targets)):
        with pytest.raises(npple.InputError, match="^model: a Network is needed, got "):
            call(model)


@pytest.mark.parametrize("none", [np.zeros(0), np.array(["a"]), np.zeros(2, [("a", float)])])
def test_a_gradient_without_numbers_is_refused(none):
    report = isolation(two_tasks())
    gradients = {task: dict.fromkeys(report.groups, none) for task in report.tasks}
    with pytest.raises(npple.InputError, match=r"^gradients: 'income': .* an array .*, "
                                               "expected at least one number$"):
        report.compare_gradients(gradients, {group: group for group in report.groups})


@pytest.mark.parametrize("name, options", [
    ("ml_mmoe", {"experts": (3, 2)}), ("ple", {"cut": False}), ("ple", {"cut": True})])
def test_gradients_to_1e_12_and_isolation_in_all_four_ways(name, options):
    model = npple.ARCHITECTURES[name](
        {"age": "numeric", "job": (5, 2), "tags": (4, 2, "mean")}, TASKS, levels=2,
        expert_units=(4,), tower_units=(3,), **options)
    case = random_case(model)
    assert max(row.error for row in npple.gradcheck(model, case.params, *case.batch).rows) <= 1e-12
    verified = isolation(model).verify(steps=1).verified
    assert len(verified) == 4 and all(verified.values())
