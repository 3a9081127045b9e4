"""Comparisons: equal budgets, results that depend on nothing but what they should, honest gains."""

import csv
import io
import json
import math
import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import npple
from npple.cli import main
from npple.data import Dataset
from npple.errors import FileError, InputError, Stopped
from npple.lab import compare as module
from npple.lab import trials, workers
from npple.lab.budget import networks, parameters, sized
from npple.lab.compare import Problem, Training, compare, synthetic_cases
from npple.lab.gains import Comparison, estimate, holm, student
from npple.lab.inspection import (connections, connections_text, pruned_share, utilization,
                                          utilization_text)
from npple.lab.trials import progress
from npple.lab.workers import Processes, open_workers
from npple.cli.compare import FIGURES
from npple.draw.plots import comparison_figures, save
from npple.learn.training import Run, evaluate_model, gate_weights

NAMES = ("single_task", "mmoe", "ple")
SMALL = {"architectures": NAMES, "seeds": (0, 1), "budget": 2000, "training": Training(2, 64, 0.01)}
TASKS = {"a": "binary", "b": "regression", "c": "multiclass:3"}


def small_cases(rows=400):
    return synthetic_cases((0.0, 0.5), rows=rows, inputs=4)


def mixed_case(rows=200):
    """Three kinds of task, a mask, columns with embeddings."""
    random = np.random.default_rng(0)
    x = {"age": random.standard_normal(rows).astype("float32"),
         "city": random.integers(0, 5, rows)}
    noise = random.standard_normal(rows).astype("float32")  # so that training overfits
    targets = {"a": (x["age"] + noise > 0).astype("float32"), "b": x["age"] + noise,
               "c": x["city"] % 3}
    data = Dataset(x, targets, {"b": x["city"] > 0})
    return Problem("mixed", *data.split(0.8, 0), {"age": "numeric", "city": (5, 3)}, TASKS)


def untimed(comparison):
    """The results without what differs from one run to the next."""
    return [{key: value for key, value in result.items() if key != "seconds"}
            for result in comparison.results]


@pytest.fixture(scope="module")
def expected():
    return untimed(compare(small_cases(), **SMALL))


# Budgets ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", npple.ARCHITECTURES)
@settings(max_examples=8)
@given(budget=st.integers(20_000, 200_000), inputs=st.integers(1, 64), levels=st.integers(1, 3),
       tasks=st.integers(1, 3))
def test_no_other_width_comes_closer_to_the_budget(name, budget, inputs, levels, tasks):
    tasks = dict.fromkeys("abc"[:tasks], "regression")
    found = sized(name, inputs, tasks, budget, levels)
    width = found[0].table.levels[0].groups[0].units[0]
    distances = {w: abs(parameters(networks(name, inputs, tasks, w, levels))[0] - budget)
                 for w in (width - 1, width, width + 1) if w}
    assert parameters(found)[0] == parameters(networks(name, inputs, tasks, width, levels))[0]
    assert distances[width] == min(distances.values())


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_all_architectures_have_the_budget_within_a_few_percent(name):
    tasks = {"a": "regression", "b": "binary"}
    found = sized(name, {"x": "numeric", "c": (7, 4)}, tasks, 30_000)
    own = sum(a.size for n in found for k, a in n.init(0).items() if not k.startswith("embedding"))
    assert abs(own - 30_000) < 0.05 * 30_000
    assert parameters(found) == (own, 28 * len(found))


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_all_architectures_are_equally_deep(name):
    model = networks(name, 3, {"a": "regression", "b": "regression"}, 4, levels=3)[0]
    layers = sum(len(level.groups[0].units) for level in model.table.levels)
    assert layers == 3


def test_a_budget_out_of_reach_is_refused():
    with pytest.raises(InputError, match="budget: 10 parameters are out of reach of ple"):
        sized("ple", 4, {"a": "binary"}, 10)


def test_options_reach_the_builders_that_have_them():
    options = {"shared_experts": 3, "tower_units": (5,), "l0": 0.5}
    ple, = networks("ple", 4, {"a": "binary"}, 8, options=options)
    snr, = networks("snr_aver", 4, {"a": "binary"}, 8, options=options)
    assert ple.table.row["level1/shared/experts"].count == 3
    assert snr.table.towers[0].units == (5,) and snr.table.row["level1/sub1"].penalty == 0.5


# What decides a result --------------------------------------------------------------------------

def test_two_processes_give_the_same_bits_as_none(expected):
    with open_workers(2) as (executor, share):
        found = compare(small_cases(), executor=executor, share=share, **SMALL)
    assert untimed(found) == expected


def test_a_killed_worker_changes_nothing(expected):
    killed = []

    def watch(total, found):
        def kill_one(result):
            if not killed:
                killed.append(multiprocessing.active_children()[0])
                killed[0].kill()
        return kill_one

    with open_workers(2) as (executor, share):
        found = compare(small_cases(), executor=executor, share=share, watch=watch, **SMALL)
    assert killed[0].exitcode == -9
    assert untimed(found) == expected


def test_a_dask_cluster_gives_the_same_bits(expected):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, dashboard_address=None) as cluster:
        with open_workers(dask=cluster.scheduler_address) as (executor, share):
            found = compare(small_cases(), executor=executor, share=share, **SMALL)
    assert untimed(found) == expected


def wait_for(path, log):
    with open(log, "a") as file:
        file.write("started\n")
    while not path.exists():
        time.sleep(0.01)


def test_a_worker_that_dies_loses_its_own_call_only(tmp_path):
    with Processes(2) as executor:
        other = executor.submit(wait_for, tmp_path / "go", tmp_path / "log")
        with pytest.raises(InputError, match="3 processes died"):
            executor.submit(os._exit, 1).result()
        (tmp_path / "go").touch()
        other.result()
    assert (tmp_path / "log").read_text() == "started\n"


def test_an_interrupted_comparison_goes_on_where_it_stopped(expected, tmp_path, monkeypatch):
    def interrupt(total, found):
        def show(result):
            if len(list(tmp_path.iterdir())) == 3:
                raise KeyboardInterrupt
        return show

    with pytest.raises(KeyboardInterrupt):
        compare(small_cases(), out=tmp_path, watch=interrupt, **SMALL)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    seen = []
    found = compare(small_cases(), out=tmp_path, **SMALL,
                    watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen == [(12, 3)]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert untimed(found) == expected
    monkeypatch.setattr(module._Trial, "run", None)  # a third time, nothing is left to do
    assert untimed(compare(small_cases(), out=tmp_path, **SMALL)) == expected


def test_a_comparison_that_is_asked_to_stop_keeps_what_runs_and_goes_on_later(expected, tmp_path):
    with pytest.raises(Stopped, match="stopped with .* of 12 results"):
        compare(small_cases(), out=tmp_path, stop=lambda: True, **SMALL)
    assert 0 < len(list(tmp_path.iterdir())) < 12
    assert untimed(compare(small_cases(), out=tmp_path, stop=lambda: False, **SMALL)) == expected


def test_a_damaged_result_is_made_again(expected, tmp_path):
    compare(small_cases(), out=tmp_path, **SMALL)
    files = sorted(tmp_path.iterdir())
    files[0].write_text('{"data"')
    files[1].write_bytes(files[2].read_bytes())  # of another trial
    for seed, file in enumerate(files[3:]):
        file.write_bytes(damaged(file.read_bytes(), seed))
    assert untimed(compare(small_cases(), out=tmp_path, **SMALL)) == expected


def test_no_damage_to_a_result_is_believed(stored_result, tmp_path):
    path = tmp_path / stored_result.name
    for seed in range(300):
        path.write_bytes(damaged(stored_result.read_bytes(), seed))
        assert trials._read(path) is None, seed


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '"x"', "{}", '{"data": 3}', "[" * 10 ** 5,
                                  '{"result": {}}', '{"sha256": 3, "result": {}}'])
def test_what_is_no_result_is_none(tmp_path, text):
    path = tmp_path / "trial-x.json"
    path.write_text(text)
    assert trials._read(path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "trial-x.json")
    assert trials._read(tmp_path / "trial-x.json") is None


@pytest.fixture(scope="module")
def stored_result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    compare(small_cases(100), out=folder, **SMALL)
    path = next(folder.iterdir())
    assert trials._read(path)["architecture"] in NAMES
    return path


def damaged(content, seed):
    """One digit, letter or other byte changed, or a stretch left out."""
    random = np.random.default_rng(seed)
    at = int(random.integers(len(content)))
    if seed % 3 == 0:
        return content[:at] + content[at + int(random.integers(1, 20)):]
    digits = [i for i in range(len(content)) if content[i:i + 1].isdigit()]
    at = at if seed % 3 == 1 else int(random.choice(digits))
    new = (content[at] ^ int(2 ** random.integers(8)) if seed % 3 == 1
           else ord("0") + (content[at] - ord("0") + int(random.integers(1, 10))) % 10)
    return content[:at] + bytes([new]) + content[at + 1:]


@pytest.mark.parametrize("change", [
    {"seeds": (2, 3)}, {"training": Training(2, 64, 0.02)}, {"training": Training(1, 64, 0.01)},
    {"budget": 2500}, {"options": {"tower_units": (8,)}}, {"levels": 1}, "rows"])
def test_a_result_is_not_taken_for_another(change, tmp_path):
    compare(small_cases(), out=tmp_path, **SMALL)
    seen = []
    cases, change = (small_cases(401), {}) if change == "rows" else (small_cases(), change)
    compare(cases, out=tmp_path, **SMALL | change,
            watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen == [(12, 0)]


def test_single_task_is_each_task_trained_alone():
    case = mixed_case()
    found, = compare([case], ["single_task"], seeds=(3,), budget=2000,
                     training=Training(8, 32, 0.1)).results
    train, validation = case.train.split(0.9, 0)
    together = sized("single_task", case.inputs, TASKS, 2000)
    width = together[0].table.levels[0].groups[0].units[0]
    earlier = []  # tasks whose best epoch is not the last
    for task, kind in TASKS.items():
        def alone(data):
            masks = {task: data.masks[task]} if task in data.masks else {}
            return Dataset(data.x, {task: data.targets[task]}, masks)
        model = npple.single_task(case.inputs, {task: kind}, expert_units=(width, width))
        run = Run(model, npple.Adam(0.1), 32, 3)
        run.train(alone(train), alone(validation), 8, patience=3)
        earlier.append(run.best_epoch["epoch"] < 8)
        metrics = evaluate_model(model, run.best, alone(case.test))
        assert found["tasks"][task]["test"] == metrics[task]
    assert any(earlier)


# Gains ------------------------------------------------------------------------------------------

def made(scores, kinds=None):
    """A comparison whose results have these metrics: architecture -> task -> one a seed."""
    names = {"binary": "auc", "regression": "mse", "multiclass:3": "logloss"}
    kinds = kinds or dict.fromkeys(next(iter(scores.values())), "binary")
    results = [{"data": "d", "architecture": name, "seed": seed, "parameters": 9, "embeddings": 0,
                "seconds": 1.0, "diverged": None, "utilization": [], "connections": [],
                "tasks": {task: {"test": {names[kinds[task]]: values[seed]}, "best_epoch": 1,
                                 "validation": [{names[kinds[task]]: values[seed]}]}
                          for task, values in tasks.items()}}
               for name, tasks in scores.items()
               for seed in range(len(next(iter(tasks.values()))))]
    return Comparison({"d": kinds}, {"d": None}, {"d": {}}, results)


VALUES = st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=2, max_size=6)


@given(values=VALUES, kind=st.sampled_from(("binary", "regression", "multiclass:3")))
def test_a_gain_is_paired_over_seeds_with_scipys_interval(values, kind):
    alone_a, alone_b, ple_a, ple_b = map(list, zip(*values))
    _, row = made({"single_task": {"a": alone_a, "b": alone_b}, "ple": {"a": ple_a, "b": ple_b}},
                  {"a": kind, "b": kind}).outcomes
    sign = 1 if kind == "binary" else -1
    for gain, alone, ple in ((row.gains["a"], alone_a, ple_a), (row.gains["b"], alone_b, ple_b)):
        differences = sign * (np.array(ple) - np.array(alone))
        half = np.ptp(stats.t.interval(0.95, len(values) - 1, scale=1)) / 2 * (
            differences.std(ddof=1) / len(values) ** 0.5)
        assert gain.mean == pytest.approx(differences.mean(), abs=1e-12)
        assert gain.low == pytest.approx(differences.mean() - half, abs=1e-12)
        assert gain.high == pytest.approx(differences.mean() + half, abs=1e-12)
    assert row.mean_gain.mean == pytest.approx((row.gains["a"].mean + row.gains["b"].mean) / 2,
                                               abs=1e-12)


def test_an_interval_is_that_of_a_paired_t_test():
    alone, ple = [0.7, 0.72, 0.69, 0.71], [0.74, 0.73, 0.75, 0.72]
    row = made({"single_task": {"a": alone}, "ple": {"a": ple}}).outcomes[1]
    low, high = stats.ttest_rel(ple, alone).confidence_interval(0.95)
    assert (row.gains["a"].low, row.gains["a"].high) == pytest.approx((low, high), rel=1e-12)


UP, DOWN, NOISE = [0.80, 0.81, 0.82], [0.60, 0.61, 0.62], [0.69, 0.72, 0.72]


@pytest.mark.parametrize("a, b, seesaw, negative", [
    (UP, DOWN, True, True), (DOWN, UP, True, True), (DOWN, NOISE, False, True),
    (UP, NOISE, False, False), (UP, UP, False, False), (DOWN, DOWN, False, True)])
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_flags_follow_gains_beyond_noise(a, b, seesaw, negative, kind):
    alone = [0.70, 0.71, 0.72]
    if kind == "regression":  # what was better is now worse
        a, b = ([1.41 - value for value in values] for values in (a, b))
        alone = [1.41 - value for value in alone]
    row = made({"single_task": {"a": alone, "b": alone}, "mmoe": {"a": a, "b": b}},
               {"a": kind, "b": kind}).outcomes[1]
    assert (row.seesaw, row.negative_transfer) == (seesaw, negative)


def test_one_seed_has_no_interval_and_no_flag():
    alone, row = made({"single_task": {"a": [0.9], "b": [0.1]},
                       "ple": {"a": [0.1], "b": [0.9]}}).outcomes
    assert row.gains["a"].mean == pytest.approx(-0.8) and row.gains["a"].low is None
    assert not row.seesaw and not row.negative_transfer and alone.gains == {"a": None, "b": None}


def test_the_lead_of_ple_is_over_each_other_architecture():
    rows = made({"single_task": {"a": [0.5, 0.6]}, "mmoe": {"a": [0.9, 0.9]},
                 "ple": {"a": [0.8, 0.7]}}).outcomes
    assert rows[0].ple_lead.mean == pytest.approx(0.2)
    assert rows[1].ple_lead.mean == pytest.approx(-0.15)
    assert rows[2].ple_lead is None


def test_metrics_of_different_kinds_have_the_mean_of_relative_gains():
    comparison = compare([mixed_case()], NAMES, seeds=(0, 1), budget=2000,
                         training=Training(1, 32))
    row = comparison.outcomes[-1]
    assert set(row.gains) == set(row.relative_gains) == set(TASKS)
    assert row.mean_gain.mean == pytest.approx(
        np.mean([gain.mean for gain in row.relative_gains.values()]))
    assert "mean relative gain" in str(comparison)
    for name in ("a auc", "b mse", "c logloss"):
        assert name in str(comparison)


def test_a_relative_gain_is_a_share_of_what_single_task_leaves():
    scores = {"single_task": {"a": [0.7, 0.8], "b": [0.2, 0.4]},
              "ple": {"a": [0.75, 0.85], "b": [0.1, 0.2]}}
    alone, row = made(scores, {"a": "binary", "b": "regression"}).outcomes
    assert row.relative_gains["a"].mean == pytest.approx(0.05 / 0.25)
    assert row.relative_gains["b"].mean == pytest.approx(0.15 / 0.3)
    assert row.mean_gain.mean == pytest.approx((0.2 + 0.5) / 2) == alone.ple_lead.mean


def test_holms_correction_is_that_of_a_worked_example():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1, 1])


def test_a_gain_has_two_stars_where_it_stands_with_the_correction_for_the_table():
    alone, high, higher = [0.70] * 4, [0.71, 0.70, 0.72, 0.715], [0.80, 0.81, 0.80, 0.81]
    found = made({"single_task": {"a": alone, "b": alone},
                  "mmoe": {"a": higher, "b": high}, "ple": {"a": alone, "b": alone}})
    row = found.outcomes[1]
    assert row.holm["a"] == pytest.approx(4 * row.gains["a"].p) and row.holm["a"] < 0.05
    assert row.gains["b"].p > 0.05 and row.holm["b"] == pytest.approx(3 * row.gains["b"].p)
    assert "+0.1050 ± 0.0092** " in str(found) and "+0.0113 ± 0.0136   " in str(found)


def test_what_is_detectable_is_found_four_times_in_five():
    random = np.random.default_rng(0)
    reach = np.mean([estimate(row).detectable for row in random.standard_normal((300, 6)).tolist()])
    deviation = np.sqrt(2 / 5) * math.gamma(3) / math.gamma(2.5)  # what that of 6 draws is, of 1
    found = student(reach / deviation + random.standard_normal((6, 20_000)))
    assert np.mean(found[0] > found[1]) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("a, by_sign", [(NOISE, False), (UP, False), (DOWN, True)])
def test_a_seesaw_by_sign_needs_no_interval(a, by_sign):
    row = made({"single_task": {"a": [0.70, 0.71, 0.72], "b": [0.70, 0.71, 0.72]},
                "mmoe": {"a": a, "b": [0.71, 0.71, 0.72]}}).outcomes[1]
    assert (row.seesaw, row.seesaw_by_sign) == (False, by_sign)


def test_an_undefined_metric_leaves_no_estimate():
    assert estimate([0.5, None]) is None
    assert "ple" in str(made({"single_task": {"a": [0.5, 0.5]}, "ple": {"a": [0.5, None]}}))


def test_a_run_that_diverges_is_reported_and_the_others_stand():
    found = compare(small_cases()[:1], **SMALL | {"training": Training(2, 64, 1e30)})
    assert all(row.diverged == 2 and row.metrics["task1"] is None for row in found.outcomes)
    assert "diverged 2 times" in str(found)


def test_json_and_csv_hold_the_outcomes():
    found = compare(small_cases(), **SMALL)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["results"] == found.results
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == len(found.outcomes) * 2
    for row, outcome in zip(rows[::2], content["outcomes"], strict=True):
        assert (row["data"], row["architecture"]) == (outcome["data"], outcome["architecture"])
        assert float(row["mean"]) == outcome["metrics"]["task1"]["mean"]
        if outcome["architecture"] != "single_task":
            assert float(row["gain_low"]) == outcome["gains"]["task1"]["low"]


# No effect, nothing found -----------------------------------------------------------------------

TABLES, SEEDS = 4000, 5


@pytest.fixture(scope="module")
def tables():
    """Metrics (tables, architectures, tasks, seeds) without effect; an architecture's are related.

    The tasks' scales differ, and all gains of a task are over one single-task network.
    """
    random = np.random.default_rng(0)
    shared = random.standard_normal((TABLES, 1, 1, SEEDS))  # of a seed's data
    own = random.standard_normal((TABLES, 4, 2, SEEDS)) + random.standard_normal(
        (TABLES, 4, 1, SEEDS))
    return 0.7 + np.array([[0.001], [0.02]]) * (own + shared)


@pytest.fixture(scope="module")
def without_effect(tables):
    """The outcomes of single_task and of PLE in each table, of tasks with two metrics."""
    return [made({name: {"a": own[0].tolist(), "b": (1.4 - own[1]).tolist()}
                  for name, own in zip(("single_task", "ple"), table)},
                 {"a": "binary", "b": "regression"}).outcomes for table in tables]


@pytest.mark.parametrize("interval", [
    lambda alone, ple: ple.gains["a"], lambda alone, ple: ple.relative_gains["b"],
    lambda alone, ple: ple.mean_gain, lambda alone, ple: alone.ple_lead])
def test_95_of_100_intervals_hold_zero_where_there_is_no_effect(without_effect, interval):
    found = [interval(*rows) for rows in without_effect]
    assert 0.94 <= np.mean([each.low <= 0 <= each.high for each in found]) <= 0.96


def test_holm_finds_something_in_at_most_6_of_100_tables_without_an_effect(tables):
    gains = tables[:, 1:] - tables[:, :1]  # (tables, 3, 2, seeds)
    p = student(np.moveaxis(gains, -1, 0))[2].reshape(TABLES, -1)
    assert np.mean((holm(p) < 0.05).any(axis=1)) <= 0.06 < np.mean((p < 0.05).any(axis=1))


# The protocol -----------------------------------------------------------------------------------

GRID = {"architectures": ("single_task", "ple"), "seeds": (0, 1), "budget": 2000,
        "rates": (1e-6, 0.01, 0.003), "training": Training(3, 64)}


def test_each_architecture_has_the_rate_with_the_lowest_validation_loss():
    case, = small_cases()[:1]
    found = compare([case], **GRID)
    assert [row.rate for row in found.outcomes] == [0.01, 0.01]
    assert "rate at an end of --rates" in str(found)
    alone = [compare([case], ["ple"], seeds=(0,), budget=2000, training=Training(3, 64, rate))
             for rate in GRID["rates"]]
    losses = [sum(min(epoch["mse"] for epoch in task["validation"]) / task["constant"]
                  for task in each.results[0]["tasks"].values()) for each in alone]
    assert GRID["rates"][int(np.argmin(losses))] == found.outcomes[1].rate
    assert untimed(alone[1])[0] == untimed(found)[2]


def test_a_choice_of_rates_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def interrupt(total, found):
        def show(result):
            if len(list(tmp_path.iterdir())) == 4:
                raise KeyboardInterrupt
        return show

    with pytest.raises(KeyboardInterrupt):
        compare(small_cases()[:1], out=tmp_path, watch=interrupt, **GRID)
    seen = []
    found = compare(small_cases()[:1], out=tmp_path, **GRID,
                    watch=lambda *counts: (seen.append(counts), lambda result: None)[1])
    assert seen == [(6, 4), (4, 2)]
    monkeypatch.setattr(module._Trial, "run", None)
    assert untimed(compare(small_cases()[:1], out=tmp_path, **GRID)) == untimed(found)


def test_an_architecture_chooses_of_a_grid_the_options_that_it_has():
    case, grid = small_cases()[0], {"experts": (1, 3), "l0": (0.0, 0.1)}
    found = compare([case], ["single_task", "mmoe", "snr_trans"], seeds=(0, 1), budget=2000,
                    rates=(0.01, 0.003), grid=grid, training=Training(2, 64))
    single, mmoe, snr = found.outcomes
    assert single.chosen == {} and {*mmoe.chosen} == {"experts"}
    assert {*snr.chosen} == {"experts", "l0"} and snr.chosen["l0"] in grid["l0"]
    tried = [compare([case], ["mmoe"], seeds=(0,), budget=2000, options={"experts": experts},
                     training=Training(2, 64, rate)).results[0]
             for rate in (0.01, 0.003) for experts in grid["experts"]]
    losses = [module._loss(result, case.tasks) for result in tried]
    best = tried[int(np.argmin(losses))]
    assert best["tasks"] == next(result["tasks"] for result in found.results
                                 if (result["architecture"], result["seed"]) == ("mmoe", 0))
    assert f"experts {mmoe.chosen['experts']}" in str(found)
    assert f",experts {mmoe.chosen['experts']}," in found.to_csv()


@pytest.mark.parametrize("grid, message", [
    ({"experts": 3}, "grid: experts: 3, expected a sequence"),
    ({"experts": ()}, r"grid: experts: \(\), expected a sequence"),
    ({"nobody": (1, 2)}, "options: \\['nobody'\\]")])
def test_a_grid_of_what_nobody_has_is_refused(grid, message):
    with pytest.raises(InputError, match=message):
        compare(small_cases()[:1], ["mmoe"], grid=grid)


def test_the_command_takes_a_grid(capsys):
    small = ["compare", "--data", "vtr_vcr", "--rows", "300", "--inputs", "6", "--dependence", "0",
             "--models", "mmoe", "--seeds", "1", "--epochs", "1", "--budget", "3000", "--json"]
    assert main([*small, "--grid", "experts=1,2"]) == 0
    assert json.loads(capsys.readouterr().out)["outcomes"][0]["chosen"]["experts"] in (1, 2)
    with pytest.raises(SystemExit):
        main([*small, "--grid", "experts"])
    assert "expected an option and numbers, as experts=2,4,8" in capsys.readouterr().err


def test_new_data_for_each_seed_are_those_of_the_seed():
    (case,), (other,) = (synthetic_cases((0.5,), rows=400, inputs=4, seed=seed) for seed in (0, 7))
    small = {"architectures": ["ple"], "budget": 2000, "training": Training(2, 64, 0.01)}
    found = compare([case], seeds=(0, 7), data_seeds=True, **small)
    first, = compare([case], seeds=(0,), **small).results
    second, = compare([other], seeds=(7,), **small).results
    assert [result["tasks"] for result in found.results] == [first["tasks"], second["tasks"]]


def test_the_same_structure_is_one_width_for_all():
    case, = small_cases(100)[:1]
    found = compare([case], NAMES, seeds=(0,), width=5, training=Training(1, 64))
    for row in found.outcomes:
        models = networks(row.architecture, case.inputs, case.tasks, 5)
        assert row.parameters == parameters(models)[0]


def test_a_width_and_a_budget_are_refused():
    with pytest.raises(InputError, match="width: a budget decides the widths"):
        compare(small_cases(100), width=5, **SMALL)


def test_data_of_a_file_are_not_drawn_anew():
    with pytest.raises(InputError, match="data_seeds: mixed has no other data"):
        compare([mixed_case()], ["ple"], data_seeds=True)


@pytest.mark.parametrize("keep_best", ["joint", "per-task"])
def test_a_checkpoint_is_that_of_the_tasks_own_epoch_or_of_all(keep_best):
    training = Training(8, 32, 0.1, patience=None, keep_best=keep_best)
    tasks = compare([mixed_case()], ["ple"], seeds=(0,), budget=2000,
                    training=training).results[0]["tasks"]
    epochs = {found["best_epoch"] for found in tasks.values()}
    assert (len(epochs) == 1) == (keep_best == "joint")


def test_patience_ends_a_training_and_a_best_epoch_that_is_the_last_is_told():
    case = small_cases()[:1]
    patient = compare(case, ["ple"], seeds=(0,), budget=2000, training=Training(200, 64, 0.05))
    short = compare(case, ["ple"], seeds=(0,), budget=2000, training=Training(1, 64, 0.05))
    assert len(patient.results[0]["tasks"]["task1"]["validation"]) < 200
    assert patient.outcomes[0].late == 0 and "best epoch is the last" not in str(patient)
    assert short.outcomes[0].late == 2 and "best epoch is the last in 2 of 2" in str(short)


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_are_flagged(seeds):
    values = [0.7, 0.8, 0.9][:seeds]
    found = made({"single_task": {"a": values}, "ple": {"a": values[::-1]}})
    assert ("one degree of freedom" in str(found)) == (seeds == 2)


# What training made of the models ---------------------------------------------------------------

def test_utilization_is_the_mean_and_deviation_of_each_gates_weights():
    model = npple.ple(4, {"a": "binary", "b": "binary"}, task_experts={"a": 1, "b": 3})
    data = synthetic_cases((0.0,), rows=100, inputs=4)[0].train
    params = model.init(0, np.float32)
    entries = utilization(model, params, data, rows=33)
    trace = model.forward(params, data.x)
    for into, groups in gate_weights(model, params, data).items():
        own = [entry for entry in entries if entry["into"] == into]
        weights = trace[f"{into}/gate/weights"].astype(float)
        assert [e["mean"] for e in own] == pytest.approx(np.concatenate([*groups.values()]))
        assert [e["deviation"] for e in own] == pytest.approx(weights.std(axis=0), rel=1e-5)
        assert [(e["group"], e["expert"]) for e in own] == [
            (group, i + 1) for group, means in groups.items() for i in range(len(means))]
        assert into in utilization_text(entries)


def test_connections_say_which_are_pruned():
    model = npple.snr_trans(4, {"a": "binary", "b": "binary"}, experts=2)
    params = model.init(0)
    params["level1/sub2/route/log_alpha"] = np.array([-9.0, 9.0])
    found = connections(model, params)
    assert [(e["group"], e["into"]) for e in found if e["z"] == 0] == [
        ("level1/sub1/experts", "level1/sub2")]
    assert pruned_share(found) == 1 / 8
    assert "pruned: 1 of 8 connections" in connections_text(found)
    trace = model.forward(params, np.zeros((1, 4)))
    assert [e["z"] for e in found if e["into"] == "level1/sub2"] == list(
        trace["level1/sub2/route/z"])


@pytest.mark.parametrize("l0, prunes", [(1.0, True), (0.0, False)])
def test_a_strong_l0_penalty_prunes(l0, prunes):
    case = small_cases()[0]
    model = npple.snr_aver(case.inputs, case.tasks, expert_units=(8,), l0=l0)
    run = Run(model, npple.Adam(0.05), 32)
    run.train(case.train, case.test, 15)
    assert (pruned_share(connections(model, run.params)) >= 1 / 3) == prunes


def test_the_table_tells_how_much_was_pruned():
    found = compare(small_cases()[:1], ["ple", "snr_aver"], seeds=(0, 1), budget=2000,
                    training=Training(1, 32))
    for result in found.results[2:]:
        for entry in result["connections"][:6 if result["seed"] else 0]:
            entry["z"] = 0.0
    ple, snr = found.outcomes
    assert (ple.pruned, snr.pruned) == (None, 6 / 48)
    assert "12% pruned" in str(found)


def test_task_and_label_correlation_stand_above_each_table():
    found = compare(small_cases(), **SMALL)
    for case, table in zip(small_cases(), str(found).split("\n\n"), strict=True):
        labels = np.corrcoef(*case.train.targets.values())[0, 1]
        assert found.labels[case.name] == {"task1, task2": pytest.approx(labels, rel=1e-6)}
        assert table.startswith(f"{case.name}, task correlation {case.correlation:g}, "
                                f"label correlation {labels:.2f}: mean")


@pytest.mark.parametrize("name", ["snr_trans", "snr_aver"])
def test_snr_is_compared_with_a_penalty_that_closes_connections(name):
    """By default that of 1e-3; against the same training without one, chances to be open fall."""
    tried = {l0: compare(small_cases()[:1], [name], seeds=(0,), budget=2000, options=options,
                         training=Training(4, 16, 0.01)).results[0]["connections"]
             for l0, options in (("none", {"l0": 0.0}), ("default", None), ("1e-3", {"l0": 1e-3}))}
    assert tried["default"] == tried["1e-3"] != tried["none"]
    sums = {l0: sum(entry["z"] for entry in found) for l0, found in tried.items()}
    assert sums["default"] < sums["none"]


def test_pictures_are_drawn_and_equal_for_equal_comparisons(tmp_path):
    found = compare(small_cases(), [*NAMES, "snr_aver"], **{k: v for k, v in SMALL.items()
                                                            if k != "architectures"})
    figures, again = comparison_figures(found), comparison_figures(found)
    assert set(figures) == {*FIGURES} == {"gains", "correlation", "curves", "utilization"}
    panels = figures["gains"].axes
    assert [axes.get_title() for axes in panels] == [
        found.headline(data, "\n") for data in ("synthetic p=0", "synthetic p=0.5")]
    assert figures["correlation"].axes[0].get_xlabel() == "task correlation p"
    for tick, pairs in zip(figures["correlation"].axes[0].get_xticklabels(),
                           found.labels.values(), strict=True):
        assert tick.get_text().endswith(f"labels\n{pairs['task1, task2']:.2f}")
    for name in ("gains", "utilization"):
        save(figures[name], tmp_path / "once.svg")
        save(again[name], tmp_path / "again.svg")
        assert (tmp_path / "once.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


# Calling it -------------------------------------------------------------------------------------

def test_progress_counts_what_was_there_already():
    stream = io.StringIO()
    show = progress(4, 2, stream)
    result = {"data": "d", "architecture": "ple", "seed": 1, "seconds": 2.0, "rate": 0.01}
    show(result)
    show(result)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("3/4  d  ple  seed 1  rate 0.01  2.0 s  (")
    assert lines[1].endswith("(0 s left)")


def test_dask_without_the_extra_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="npple\\[dask\\]"), open_workers(dask="tcp://host:1"):
        pass


@pytest.mark.parametrize("change, message", [
    ({"architectures": ["plee"]}, "architectures: 'plee'"),
    ({"architectures": ["ple", "ple"]}, "architectures: different ones"),
    ({"seeds": ()}, "seeds: different ones"),
    ({"seeds": (-1,)}, "seeds: an integer of at least 0"),
    ({"options": {"width": 3}}, "options:"),
    ({"options": {"expert_units": (3,)}}, "options:"),
    ({"budget": 0.5}, "budget: a positive integer")])
def test_what_makes_no_comparison_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        compare(small_cases(), **SMALL | change)


def test_a_training_without_an_epoch_is_refused():
    with pytest.raises(InputError, match="epochs: an integer from 1 .* is needed, got 0"):
        Training(epochs=0)


def test_results_need_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="expected a folder to write to"):
        compare(small_cases(), out=tmp_path / "file", **SMALL)


def test_cases_of_one_name_are_refused():
    with pytest.raises(InputError, match="cases: different ones"):
        compare(small_cases() + small_cases(), **SMALL)


@pytest.mark.parametrize("number", [0, True, 10**9])
def test_workers_must_be_a_positive_number(number):
    with pytest.raises(InputError, match="workers: an integer from 1 to 1000"):
        Processes(number)


def test_workers_are_refused_where_there_can_be_no_more_files(monkeypatch):
    def none_left(*arguments):
        raise OSError(24, "Too many open files")
    monkeypatch.setattr(workers, "ProcessPoolExecutor", none_left)
    with Processes(1) as processes, pytest.raises(InputError, match="workers: Too many open"):
        processes.submit(abs, 1).result()


@pytest.mark.parametrize("wrong", [[1], True, np.ones(2), "l0"])
@pytest.mark.parametrize("what", ["options", "grid"])
def test_options_that_are_no_dict_are_refused(what, wrong):
    with pytest.raises(InputError, match=f"{what}: a dict is needed"):
        compare(small_cases(), **SMALL | {what: wrong})


def test_an_option_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="options: .*3.*expected some of"):
        compare(small_cases(), **SMALL | {"options": {3: 1, "x": 2}})
