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
from npple.lab import becoming, seesaw, selector, sparse, ways, weighting
from npple.lab.becoming import BecomingSettings, gate_facts
from npple.lab.claims import EXPERIMENTS, claims
from npple.lab.compare import Training, compare, synthetic_cases
from npple.lab.finding import Finding, shown, verdict
from npple.lab.gains import Estimate, Outcome

TINY = BecomingSettings(rows=300, epochs=1, seeds=2, inputs=6, units=4, batch_size=64)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(becoming, "QUICK", TINY)


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
        assert gate_facts(model, equal, data) == pytest.approx((smallest, distance))


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
    assert becoming.finding(results, quick=True).verdict == expected


def test_an_experiment_goes_on_where_it_stopped_and_gives_the_same_numbers(tiny, tmp_path):
    with pytest.raises(Stopped):
        claims(becoming.NAME, True, out=tmp_path, stop=lambda: True)
    seen = []
    again = claims(becoming.NAME, True, out=tmp_path,
                   watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen[0][0] == 4 and 0 < seen[0][1] < 4
    assert again.table == claims(becoming.NAME, True).table
    assert f"verdict: {again.verdict}. " in str(again) and "ml_mmoe, gate bias" in str(again)


def test_the_command_draws_and_says_its_command_and_version(tiny, tmp_path, capsys):
    assert main(["claims", becoming.NAME, "--quick", "--json", "--plots", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == f"npple claims {becoming.NAME} --quick"
    assert found["version"] == npple.__version__
    assert shown(found["table"]["mmoe"]["smallest"]).startswith(
        f"{found['table']['mmoe']['smallest']['mean']:.4f} ± ")
    assert (tmp_path / f"{becoming.NAME}.svg").stat().st_size > 1000


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
    found = seesaw.finding({}, rows, seesaw.QUICK, True, 1.0)
    assert found.verdict == expected
    assert f"shared_bottom {int(shared == (-1, 1))}" in found.reason


@pytest.mark.parametrize("mmoe, cgc, expected", [
    (-1, 1, "holds"), (-1, -1, "holds in part"), (0, 0, "does not hold here"),
    (1, -1, "does not hold here")])
def test_the_verdict_on_isolation_is_of_the_dense_task(mmoe, cgc, expected):
    found = SimpleNamespace(outcomes=[outcome("mmoe", mmoe, 0), outcome("cgc", cgc, 0)], results=[])
    assert sparse.finding(found, sparse.QUICK, True).verdict == expected


@pytest.mark.parametrize("experiment, tasks", [
    (sparse, ["vtr", "share"]), (seesaw, ["vtr", "vcr"])])
def test_an_experiment_trains_on_two_tasks_of_the_world(experiment, tasks, monkeypatch):
    few = {"rows": 400, "epochs": 1, "inputs": 6}
    many = {"seeds": 2} if experiment is sparse else {"worlds": 2, "weights": (1.0,)}
    monkeypatch.setattr(experiment, "QUICK", replace(experiment.QUICK, **few, **many, rates=()))
    monkeypatch.setattr(experiment, "ARCHITECTURES", ("single_task", "shared_bottom", "ple"))
    found = claims(experiment.NAME, True)
    assert found.table and "ple" in str(found)
    for row in found.table.values():
        gains = [name for name in row if name.startswith("gain of")]
        assert gains == [f"gain of {task}" for task in tasks]


WAYS = {"rows": 400, "seeds": 2, "epochs": 1, "inputs": 6, "units": 4, "batch_size": 64}


@pytest.mark.parametrize("experiment, count", [(selector, 5), (weighting, 7)])
def test_ways_of_ple_are_compared_with_ple(experiment, count, monkeypatch):
    monkeypatch.setattr(experiment, "QUICK", replace(experiment.QUICK, **WAYS, grid=(0.01, 0.1)))
    found = claims(experiment.NAME, True)
    assert len(found.table) == count and found.table["ple"]["mean gain"] is None
    assert {row["rate"] for row in found.table.values()} <= {0.01, 0.1}
    assert found.table == claims(experiment.NAME, True).table


def test_each_deviation_of_ple_is_another_table():
    made = selector.ways(selector.QUICK)
    assert len({str(way.model) for way in made.values()}) == len(made) == 5
    assert len({each.key() for each in (ways.WayTrial("c", "n", way, 0, 0.1, selector.QUICK)
                                        for way in made.values())}) == 5


def test_a_fast_task_has_its_own_parameters_learn_faster():
    way = weighting.ways(weighting.QUICK)["ple, vcr fast"]
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
    found = ways.finding("n", "c", of_ways(a=a, b=b), selector.QUICK, True, {"a": -1, "b": -1})
    assert found.verdict == expected
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
