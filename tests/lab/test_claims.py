"""Experiments on claims: starts are what they say, results are found again, verdicts follow."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import npple
from npple.cli import main
from npple.cli.claims import NAMES
from npple.errors import InputError, Stopped
from npple.draw import plots
from npple.draw.plots import COLORS, finding_figure
from npple.lab import (
    becoming, gates, seesaw, selector, sparse, stitches, trainability, ways, weighting)
from npple.lab.becoming import BecomingSettings, gate_facts
from npple.lab.claims import EXPERIMENTS, claims
from npple.lab import compare as module
from npple.lab.compare import Training, compare, synthetic_cases
from npple.lab.finding import (
    Experiment, Finding, Found, Panel, gain_panels, in_parts, shown, verdict)
from npple.lab.gains import Estimate, Outcome
from npple.learn.training import Run

BECOMES = becoming.EXPERIMENT.name
TINY = BecomingSettings(rows=300, epochs=1, seeds=2, inputs=6, units=4, batch_size=64)


def small(monkeypatch, experiment, **changes):
    """Makes the quick form of an experiment smaller; returns its name."""
    made = experiment.EXPERIMENT
    monkeypatch.setitem(EXPERIMENTS, made.name, replace(made, quick=replace(made.quick, **changes)))
    return made.name


@pytest.fixture
def tiny(monkeypatch):
    small(monkeypatch, becoming, **vars(TINY))


def shut(monkeypatch, family):
    """Name -> model and outputs at a start with its closed edges quite closed."""
    monkeypatch.setattr(becoming, "SHUT", 80.0)
    models = becoming._models(family, TINY)
    first, _ = next(iter(models.values()))
    best = first.init(3, np.float32)
    x = np.random.default_rng(0).standard_normal((9, TINY.inputs), np.float32)
    found = {name: model.forward(begin(model, first, best, x) if begin else best, x)
             for name, (model, begin) in models.items() if begin or model is first}
    return first.forward(best, x), found


def test_mmoe_started_at_cgc_is_cgc(monkeypatch):
    expected, found = shut(monkeypatch, "one level")
    for task, outputs in expected.outputs.items():
        assert found["mmoe, from cgc"].outputs[task] == pytest.approx(outputs, rel=1e-5)


def test_ple_without_a_cut_started_at_ple_is_ple(monkeypatch):
    expected, found = shut(monkeypatch, "two levels")
    for task, outputs in expected.outputs.items():
        assert found["uncut ple, from ple"].outputs[task] == pytest.approx(outputs, rel=1e-5)


def test_ml_mmoe_started_at_ple_has_its_first_level_and_its_experts(monkeypatch):
    expected, found = shut(monkeypatch, "two levels")
    for number, stream in enumerate(("vtr", "vcr", "shared"), start=1):
        assert found["ml_mmoe, from ple"][f"level2/expert{number}/experts"] == pytest.approx(
            expected[f"level2/{stream}/experts"], rel=1e-4, abs=1e-6)


def test_a_gate_that_is_linear_in_the_input_is_fitted_exactly(monkeypatch):
    """ReLUs that are all open: PLE's representations, and so its last gates, are linear in x."""
    monkeypatch.setattr(becoming, "SHUT", 80.0)
    one = {"task_experts": 1, "shared_experts": 1, "expert_units": (4,), "activation": "identity"}
    ple = npple.ple(6, becoming.TASKS, **one)
    best = ple.init(0, np.float32)
    best = {name: 0 * values if name.startswith("level1") and "/gate/" in name else values
            for name, values in best.items()}  # level one mixes equally
    model = npple.ml_mmoe(6, becoming.TASKS, experts=3, expert_units=(4,), activation="identity",
                          gate_bias=True)
    x = np.random.default_rng(0).standard_normal((40, 6), np.float32)
    start = becoming._ml_mmoe_start(model, ple, best, x)
    for task, outputs in ple.forward(best, x).outputs.items():
        assert model.forward(start, x).outputs[task] == pytest.approx(outputs, rel=1e-3, abs=1e-5)


def test_gates_are_as_far_apart_as_the_experts_they_do_not_share():
    data = becoming.vtr_vcr(50, 6)
    cgc = npple.cgc(6, becoming.TASKS, task_experts=1, shared_experts=1)
    mmoe = npple.mmoe(6, becoming.TASKS, experts=4)
    for model, smallest, distance in ((cgc, 0.5, 0.5), (mmoe, 0.25, 0.0)):
        equal = {name: 0 * values if "/gate/" in name else values
                 for name, values in model.init(0, np.float32).items()}
        found = gate_facts(model, equal, data)
        assert [found[fact] for fact in ("smallest", "distance", "entropy", "least used")] == (
            pytest.approx([smallest, distance, 1.0, smallest]))


def test_an_expert_that_no_gate_weights_has_collapsed():
    """A gate that has one expert left: its entropy is 0, the other experts are not used."""
    data, model = becoming.vtr_vcr(50, 6), npple.mmoe(6, becoming.TASKS, experts=3, gate_bias=True)
    params = {name: 0 * values if "/gate/" in name else values
              for name, values in model.init(0, np.float32).items()}
    alone = params | {f"level1/{task}/gate/layer1/bias": np.array([0, -90, -90], np.float32)
                      for task in becoming.TASKS}
    both = alone | {"level1/vcr/gate/layer1/bias": np.array([-90, 0, 0], np.float32)}
    for start, used, entropy in ((params, 1 / 3, 1), (alone, 0, 0),
                                 (both, 0.5, np.log(2) / np.log(3) / 2)):
        found = gate_facts(model, start, data)
        assert [found["least used"], found["entropy"]] == pytest.approx([used, entropy])


@pytest.mark.parametrize("parts, expected", [
    ([True, True], "holds"), ([True, False], "holds in part"), ([False], "does not hold here")])
def test_a_verdict_is_of_all_parts(parts, expected):
    assert verdict(parts) == expected


def runs(smallest, distance):
    return {"smallest": [0.3, smallest], "distance": [0.1, distance], "auc": 0.8, "mse": 0.1}


@pytest.mark.parametrize("smallest, distance, expected", [
    (0.2, 0.1, "holds"), (0.001, 0.1, "holds in part"), (0.2, 0.9, "holds in part"),
    (0.001, 0.9, "does not hold here")])
def test_the_verdict_on_mmoe_follows_from_its_gates(smallest, distance, expected):
    results = [{"data": family, "seconds": 1.0, "runs": {
        reference: runs(0.3, 0.8 + 0.01 * seed),
        f"{reference}, from {reference}": runs(0.3, 0.8), "mmoe": runs(smallest, distance)}}
        for family, reference in becoming.FAMILIES.items() for seed in range(3)]
    assert verdict(becoming.found_of(results).parts) == expected


def test_an_experiment_goes_on_where_it_stopped_and_gives_the_same_numbers(tiny, tmp_path):
    with pytest.raises(Stopped):
        claims(BECOMES, True, out=tmp_path, stop=lambda: True)
    seen = []
    again = claims(BECOMES, True, out=tmp_path,
                   watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen[0][0] == 4 and 0 < seen[0][1] < 4
    assert again.table == claims(BECOMES, True).table
    assert f"verdict: {again.verdict}. " in str(again) and "ml_mmoe, gate bias" in str(again)


def test_the_command_draws_and_says_its_command_and_version(tiny, tmp_path, capsys):
    assert main(["claims", BECOMES, "--quick", "--json", "--plots", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == f"npple claims {BECOMES} --quick"
    assert found["version"] == npple.__version__
    assert shown(found["table"]["mmoe"]["smallest"]).startswith(
        f"{found['table']['mmoe']['smallest']['mean']:.4f} ± ")
    assert (tmp_path / f"{BECOMES}.svg").stat().st_size > 1000


def test_another_experiment_is_refused():
    with pytest.raises(InputError, match="name: 'mmoe'"):
        claims("mmoe")


def test_cells_are_shown_as_what_they_are():
    assert [shown(cell) for cell in (None, 3, 0.5, "text", Estimate(0.5, None, None))] == [
        "", "3", "0.5000", "text", "0.5000"]
    assert "verdict: holds. So." in str(Finding("n", "c", "npple", {}, {"a": {"b": 1}}, "holds",
                                                "So."))


def test_the_command_knows_all_experiments():
    assert NAMES == tuple(EXPERIMENTS)


def outcome(architecture, low, high):
    """An outcome whose gains of two tasks are beyond noise upwards (1), downwards (-1) or not."""
    gains = {task: Estimate(0.1 * sign, 0.1 * sign - 0.05, 0.1 * sign + 0.05, 0.01, 0.02)
             for task, sign in (("vtr", low), ("vcr", high), ("share", high))}
    return Outcome("d", architecture, 9, 0, 1.0, 0, None, {}, gains, gains, None, None, 0.01, 0,
                   {"vtr": 0.5})


@pytest.mark.parametrize("shared, ple, expected", [
    ((-1, 1), (1, 1), "holds"), ((-1, 1), (-1, 1), "holds in part"),
    ((1, 1), (1, 1), "does not hold here"), ((0, 0), (-1, 1), "does not hold here")])
def test_the_verdict_on_the_seesaw_is_of_strict_ones(shared, ple, expected):
    rows = [outcome("shared_bottom", *shared), outcome("ple", *ple)]
    found = seesaw.found_of({}, rows, [])
    assert verdict(found.parts) == expected
    assert f"shared_bottom {int(shared == (-1, 1))}" in found.reason


@pytest.mark.parametrize("mmoe, cgc, expected", [
    (-1, 1, "holds"), (-1, -1, "holds in part"), (0, 0, "does not hold here"),
    (1, -1, "does not hold here")])
def test_the_verdict_on_isolation_is_of_the_dense_task(mmoe, cgc, expected):
    found = SimpleNamespace(outcomes=[outcome("mmoe", mmoe, 0), outcome("cgc", cgc, 0)], results=[])
    assert verdict(sparse.found_of(found).parts) == expected


@pytest.mark.parametrize("experiment, tasks", [
    (sparse, ["vtr", "share"]), (seesaw, ["vtr", "vcr"])])
def test_an_experiment_trains_on_two_tasks_of_the_world(experiment, tasks, monkeypatch):
    few = {"rows": 400, "epochs": 1, "inputs": 6}
    many = {"rates": ()} if experiment is sparse else {"weights": (1.0,)}
    monkeypatch.setattr(experiment, "ARCHITECTURES", ("single_task", "shared_bottom", "ple"))
    found = claims(small(monkeypatch, experiment, **few, **many), True, seeds=2)
    assert found.table and "ple" in str(found)
    for row in found.table.values():
        gains = [name for name in row if name.startswith("gain of")]
        assert gains == [f"gain of {task}" for task in tasks]


WAYS = {"rows": 400, "seeds": 2, "epochs": 1, "inputs": 6, "units": 4, "batch_size": 64}


@pytest.mark.parametrize("experiment, count", [(selector, 5), (weighting, 7), (stitches, 6)])
def test_ways_are_compared_with_the_first(experiment, count, monkeypatch):
    name = small(monkeypatch, experiment, **WAYS, grid=(0.01, 0.1))
    found = claims(name, True)
    first, *others = found.table.values()
    assert len(found.table) == count and first["mean gain"] is None
    assert {row["rate"] for row in found.table.values()} <= {0.01, 0.1}
    assert all(row["mean gain"] for row in others) and found.table == claims(name, True).table


def test_each_deviation_of_ple_is_another_table():
    made = selector.ways(selector.EXPERIMENT.quick)
    assert len({str(way.model) for way in made.values()}) == len(made) == 5
    given = selector.EXPERIMENT.quick
    assert len({each.key() for each in (ways.WayTrial("c", "n", way, 0, 0.1, given)
                                        for way in made.values())}) == 5


def test_a_fast_task_has_its_own_parameters_learn_faster():
    way = weighting.ways(weighting.EXPERIMENT.quick)["ple, vcr fast"]
    run = ways.Run(way.model, rates=way.rates)
    assert set(run.factors) == {name for name in way.model.shapes if "/vcr/" in name}


def of_ways(**gains):
    """Results of three seeds in which a way's VTR is so much better than PLE's."""
    return [{"architecture": way, "seed": seed, "rate": 0.1, "late": False, "seconds": 1.0,
             "metrics": {"vtr": 0.8 + gain + 0.001 * seed * (gain != 0), "vcr": 0.1}}
            for way, gain in {"ple": 0.0, **gains}.items() for seed in range(3)]


@pytest.mark.parametrize("a, b, expected", [
    (-0.1, -0.1, "holds"), (-0.1, 0.1, "holds in part"), (0.1, 0.1, "does not hold here")])
def test_the_verdict_on_ways_is_of_their_mean_gain(a, b, expected):
    found = ways.found_of(of_ways(a=a, b=b), {"a": -1, "b": -1})
    assert verdict(found.parts) == expected
    assert ("a: loses" if a < 0 else "a: gains") in found.reason


def test_a_mean_gain_of_ways_is_a_share_of_what_ple_leaves():
    results = of_ways(a=0.1)
    row = ways.table_of(results)["a"]
    assert row["gain of vtr"].mean == pytest.approx(0.101)
    assert row["mean gain"].mean == pytest.approx(0.101 / 0.2 / 2)


def test_a_tasks_weight_is_that_of_its_loss():
    case, = synthetic_cases((0.5,), rows=300, inputs=4)
    found = [compare([case], ["single_task", "ple"], seeds=(0,), budget=2000,
                     training=Training(1, 64, weights=weights)).results
             for weights in ({}, {"task1": 1.0}, {"task1": 9.0})]
    equal, same, other = [[result["tasks"] for result in results] for results in found]
    assert equal == same and equal[0] == other[0] and equal[1] != other[1]


def test_a_stitched_way_starts_from_networks_of_one_task_at_their_best_epochs(monkeypatch):
    """With a rate of 0 nothing moves: what is trained first keeps its start, so does the model."""
    starts = []
    monkeypatch.setattr(ways, "Run", lambda *args, **more: starts.append(more["start"]) or Run(
        *args, **more))
    given = replace(stitches.EXPERIMENT.quick, **WAYS)
    for name in (stitches.ALONE, "cross_stitch, from itself"):
        way = stitches.ways(given)[name]
        ways.WayTrial("c", name, way, 0, 1e-9, given).run(None)
        before, start = starts[-2:]
        assert before is None and start.keys() == way.model.shapes.keys()
        first = way.before.init(0, np.float32)
        ours = start["level2/vtr/experts/layer1/weight"]
        theirs = first.get("level1/vtr/experts/layer2/weight", first.get(
            "level2/vtr/experts/layer1/weight"))
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_rates_of_the_map_are_chosen_once_and_single_tasks_trained_once_a_budget(monkeypatch):
    seen = []
    def watched(cases, names, **how):
        seen.append((tuple(names), how["budget"], len(how["rates"]) if "rates" in how else
                     how["training"].rate))
        return compare(cases, names, **how)
    monkeypatch.setattr(seesaw, "compare", watched)
    monkeypatch.setattr(seesaw, "ARCHITECTURES", ("single_task", "ple"))
    name = small(monkeypatch, seesaw, rows=400, epochs=1, inputs=6, budgets=(2000, 3000))
    rates = {row["rate"] for row in claims(name, True, seeds=2).table.values()}
    assert seen[0] == (("single_task", "ple"), 2000, 2) and len(rates) == 1
    assert [each[:2] for each in seen[1:]] == [
        each for budget in (2000, 3000)
        for each in [(("single_task",), budget)] + 2 * [(("ple",), budget)]]


def test_more_seeds_go_on_from_fewer(monkeypatch, tmp_path):
    name = small(monkeypatch, stitches, **WAYS | {"grid": (0.01,)})
    claims(name, True, out=tmp_path)
    seen = []
    found = claims(name, True, seeds=3, out=tmp_path,
                   watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen[-1] == (18, 12) and found.command == "npple claims cross-stitch --quick --seeds 3"
    assert found.settings["seeds"] == 3


@pytest.mark.parametrize("seeds", [1, 0, 2.5])
def test_a_number_of_seeds_that_is_none_is_refused(seeds):
    with pytest.raises(InputError, match="seeds: an integer of at least 2"):
        claims(BECOMES, seeds=seeds)


def test_the_use_of_experts_is_that_of_networks_from_scratch(monkeypatch):
    found = claims(small(monkeypatch, gates, **vars(TINY)), True)
    assert [*found.table] == ["cgc", "mmoe", "mmoe, gate bias", "ple", "ml_mmoe",
                              "ml_mmoe, gate bias"]
    labels = {panel.title: len({bar["into"] for bar in panel.bars}) for panel in found.panels
              if panel.bars}
    assert labels == {"cgc, first seed": 2, "mmoe, first seed": 2, "ple, first seed": 5,
                      "ml_mmoe, first seed": 5}  # the 14 labels of figure 8
    assert finding_figure(found.panels)


def runs_of(**losses):
    """Results of two models with these losses, seed by seed."""
    return [{"architecture": name, "rate": 0.01, "seconds": 1.0,
             "tasks": {"a": {"test": {"mse": loss}}, "b": {"test": {"mse": loss}}}}
            for name, values in losses.items() for loss in values]


@pytest.mark.parametrize("shared, mmoe, expected", [
    ([1, 2, 3, 4, 5], [1, 1.01, 1, 1.01, 1], "holds"),
    ([1, 2, 3, 4, 5], [2, 2.01, 2, 2.01, 2], "holds in part"),
    ([2, 2.01, 2, 2.01, 2], [1, 2, 3, 4, 5], "does not hold here")])
def test_the_verdict_on_the_runs_is_of_their_spread_and_their_lowest(shared, mmoe, expected):
    found = trainability.found_of(runs_of(shared_bottom=shared, mmoe=mmoe))
    assert verdict(found.parts) == expected
    assert found.panels[0].lines["mmoe"] == [sorted(mmoe)]


def test_the_runs_are_of_the_sizes_of_the_paper(monkeypatch):
    found = claims(small(monkeypatch, trainability, rows=300, epochs=1, seeds=2, rates=(0.01,)),
                   True)
    assert [*found.table] == ["shared_bottom", "mmoe"]
    widths = {name: 100 * width * trainability.OPTIONS[name].get("experts", 1)
              for name, width in trainability.WIDTHS.items()}
    assert widths == {"shared_bottom": 11_300, "mmoe": 12_800}


def test_gains_are_drawn_with_five_marks_a_panel_at_most():
    cell = Estimate(0.1, 0.0, 0.2)
    table = {f"dependence 0, weight {weight}: {name}": {
        "gain of vtr": cell, "gain of vcr": vars(cell), "mean gain": cell}
        for weight in (1, 4) for name in ("mmoe", "ple")}
    table |= {"ple": {"gain of vtr": None, "gain of vcr": None}}
    panels = gain_panels(table)
    assert [(panel.title, [*panel.points]) for panel in panels] == [
        ("dependence 0\nweight 1", ["mmoe", "ple"]), ("dependence 0\nweight 4", ["mmoe", "ple"])]
    many = {f"ple, {way}": table["dependence 0, weight 1: ple"] for way in range(6)}
    assert [len(panel.points) for panel in gain_panels(many)] == [3, 3]
    assert gain_panels({"ple": {"gain of vtr": cell}}) == []


def test_a_mark_has_the_colour_of_its_architecture_and_is_the_same_in_all_panels():
    cell = [Estimate(0.1, 0.0, 0.2)] * 2
    panels = [Panel("", "y", points={"ple, a": cell}), Panel("", "y", points={
        "ple, b": cell, "mmoe": cell})]
    figure = finding_figure(panels)
    looks = {label: handle.lines[0] for axes in figure.axes
             for handle, label in zip(*axes.get_legend_handles_labels())}
    assert {label: line.get_color() for label, line in looks.items()} == {
        "ple, a": COLORS["ple"], "ple, b": COLORS["ple"], "mmoe": COLORS["mmoe"]}
    assert len({line.get_marker() for line in looks.values()}) == 3


def test_an_experiment_without_panels_draws_the_gains_of_its_table():
    cell = Estimate(0.1, 0.0, 0.2)
    found = Experiment("n", "c", TINY, TINY, lambda given: Found(
        {"mmoe": {"gain of a": cell, "gain of b": cell}}, [True], "So.", [{"seconds": 2.0}])).run()
    assert found.panels == [Panel("", "gain of b", points={"mmoe": [cell, cell]},
                                  across="gain of a")]
    assert (found.verdict, found.seconds, found.command) == ("holds", 2.0, "npple claims n")


@pytest.mark.parametrize("count, parts", [(0, [0]), (4, [4]), (5, [2, 3]), (9, [3, 3, 3])])
def test_parts_are_few_and_as_equal_as_can_be(count, parts):
    found = in_parts(range(count), 4)
    assert [len(part) for part in found] == parts
    assert [item for part in found for item in part] == [*range(count)]


def test_a_panel_of_a_comparison_has_five_marks_at_most_and_ple_is_one():
    cell = Estimate(0.1, 0.0, 0.2)
    pairs = {name: [(cell.mean, 0.1)] * 2 for name in COLORS if name != "uncut ple"}
    parts = plots._parts_with_ple(pairs)
    assert [len(part) for part in parts] == [4, 5, 5] and all("ple" in part for part in parts)
    assert set().union(*parts) == pairs.keys()


def test_a_mark_far_from_the_others_makes_the_axis_symlog_and_the_label_says_so():
    near, far = [[Estimate(gain, gain - 0.1, gain + 0.1), Estimate(0.1, 0.0, 0.2)]
                 for gain in (0.1, -9.0)]
    axes, = finding_figure([Panel("", "y", across="x", points={
        "mmoe": near, "cgc": near, "ple": far})]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (symlog)", "y")


def test_a_rate_is_chosen_by_the_sum_over_the_seeds_that_choose():
    case, = synthetic_cases((0.5,), rows=300, inputs=4)
    def result(seed, rate, loss):
        return {"data": case.name, "architecture": "ple", "seed": seed, "rate": rate,
                "diverged": None, "tasks": {task: {"best_epoch": 1, "constant": 1.0, "validation": [
                    {"mse": loss}]} for task in case.tasks}}
    results = [result(0, 0.1, 1.0), result(0, 0.01, 2.0), result(1, 0.1, 5.0), result(1, 0.01, 2.0)]
    for part, rate in ((results[:2], 0.1), (results, 0.01)):
        assert module._chosen(part, {case.name: case}) == {(case.name, "ple"): (rate, {})}
