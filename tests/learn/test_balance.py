"""A task that outweighs the others is named once; no scale decides which epoch is the best."""

import numpy as np
import pytest

import npple
from npple.data import Dataset
from npple.learn.balance import gradient_shares, outweighing, warnings_text
from npple.learn.training import Run

TASKS = {"click": "binary", "watch": "regression"}
MODEL = npple.ple(4, TASKS, expert_units=(6,), tower_units=())


def rows(scale=1.0, seed=0, count=200):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    watch = (scale * (x[:, 0] + rng.normal(size=count))).astype(np.float32)
    return Dataset(x, {"click": (x[:, 1] > 0).astype(np.float32), "watch": watch}, {})


def trained(scale=1.0, epochs=3, model=MODEL, validation=None, **settings):
    run = Run(model, npple.Adam(rate=3e-3), batch_size=32, **settings)
    run.train(rows(scale), validation or rows(scale, 1, 100), epochs)
    return run


def test_the_parts_of_the_loss_add_up_to_it():
    for entry in trained(weights={"click": 2.0, "watch": 0.5}).history:
        assert sum(entry["parts"].values()) == pytest.approx(entry["loss"], rel=1e-5)


def test_a_part_is_the_mean_of_the_weighted_losses_of_the_batches():
    run = Run(MODEL, npple.SGD(rate=1e-30), batch_size=50, weights={"click": 2.0, "watch": 1.0})
    data = rows()
    losses = MODEL.task_losses(run.params, data.x, data.targets)
    run.train(data, data, 1)
    assert run.history[0]["parts"] == pytest.approx(
        {"click": 2 * losses["click"], "watch": losses["watch"]}, rel=1e-5)


def test_parts_go_on_where_a_stopped_epoch_was(tmp_path):
    whole, calls = trained(), iter([0, 0, 1])
    run = Run(MODEL, npple.Adam(rate=3e-3), batch_size=32)
    with pytest.raises(npple.errors.Stopped):
        run.train(rows(), rows(1.0, 1, 100), 3, stop=lambda: next(calls),
                  checkpoint=tmp_path / "c.npz")
    resumed = Run.load(tmp_path / "c.npz")
    resumed.train(rows(), rows(1.0, 1, 100), 3)
    assert resumed.history == whole.history


def test_gradient_shares_are_those_of_the_norms_of_each_tasks_gradient():
    params, data = MODEL.init(0, np.float32), rows()
    weights = {"click": 2.0, "watch": 0.5}
    norms = {}
    for task in TASKS:
        alone = {other: weights[other] if other == task else 0.0 for other in TASKS}
        _, grads = MODEL.loss_and_grads(params, data.x, data.targets, weights=alone)
        own = [g.ravel() for name, g in grads.items() if "/shared/experts/" in name]
        norms[task] = np.linalg.norm(np.concatenate(own))
    total = sum(norms.values())
    assert gradient_shares(MODEL, params, data, weights) == pytest.approx(
        {task: norm / total for task, norm in norms.items()}, rel=1e-5)


@pytest.mark.parametrize("model", [npple.single_task(4, TASKS), npple.cross_stitch(4, TASKS),
                                   npple.ple(4, {"click": "binary"})])
def test_a_model_without_shared_experts_or_with_one_task_has_no_shares(model):
    assert gradient_shares(model, model.init(0, np.float32), rows(), {"click": 1, "watch": 1}) == {}


def test_a_task_that_outweighs_the_others_is_named_once_with_what_to_do():
    history = trained(scale=100.0).history
    first, *later = (warnings_text(entry) for entry in history)
    assert len(first) == 1 and not any(later)
    assert "task 'watch' holds 9" in first[0] or "task 'watch' holds 100" in first[0]
    assert "of the joint loss" in first[0] and "no --raw-targets" in first[0]


def test_tasks_of_one_scale_are_not_named():
    assert not any(warnings_text(entry) for entry in trained(epochs=6).history)


def test_a_share_of_the_gradient_counts_from_the_third_epoch_on_and_nine_tenths_do_not():
    entry = {"parts": {"a": 0.9, "b": 0.1}, "gradient": {"a": 0.05, "b": 0.95}}
    assert outweighing([entry, entry]) == {}
    found = outweighing([entry, entry, entry])
    assert [*found] == ["b"] and found["b"] == (
        "task 'b' holds 95.0% of the shared experts' gradient, so the others may hardly count: "
        "give it 0.05 times the weight (--task-weight)")
    assert outweighing([entry, entry, entry | {"outweighs": found}, entry]) == {}


def test_a_task_that_others_leave_the_rest_of_the_loss_is_not_named():
    parts = [{"a": 0.7, "b": 0.9}, {"a": 0.6, "b": 0.3}, {"a": 0.6, "b": 0.02}]
    assert outweighing([{"parts": each, "gradient": {}} for each in parts]) == {}


# The best epoch ---------------------------------------------------------------------------------

def test_the_score_is_of_losses_over_those_of_the_best_constants():
    validation = rows(1.0, 1, 100)
    run = trained(weights={"click": 2.0, "watch": 0.5}, validation=validation)
    share = validation.targets["click"].mean()
    constants = {"click": -(share * np.log(share) + (1 - share) * np.log(1 - share)),
                 "watch": validation.targets["watch"].astype(float).var()}
    for entry in run.history:
        assert entry["constants"] == pytest.approx(constants, rel=1e-6)
        losses = {"click": entry["validation"]["click"]["logloss"],
                  "watch": entry["validation"]["watch"]["mse"]}
        assert entry["score"] == pytest.approx(2 * losses["click"] / constants["click"]
                                               + 0.5 * losses["watch"] / constants["watch"])


def test_a_task_whose_constant_has_no_loss_has_no_say_and_is_named_once():
    validation = rows(1.0, 1, 100)
    ones = Dataset(validation.x, validation.targets | {"click": np.ones(100, np.float32)}, {})
    history = trained(validation=ones).history
    for entry in history:
        assert entry["score"] == pytest.approx(
            entry["validation"]["watch"]["mse"] / entry["constants"]["watch"])
    assert [len(warnings_text(entry)) for entry in history] == [1, 0, 0]
    assert "task 'click' has no say in which epoch is best" in warnings_text(history[0])[0]


def test_without_any_constant_the_losses_themselves_decide():
    validation = rows(1.0, 1, 100)
    flat = Dataset(validation.x, {task: np.ones(100, np.float32) for task in TASKS}, {})
    for entry in trained(validation=flat).history:
        assert entry["score"] == pytest.approx(
            entry["validation"]["click"]["logloss"] + entry["validation"]["watch"]["mse"])
        assert warnings_text(entry) == []


def test_the_sum_of_losses_decides_where_a_run_says_so():
    for entry in trained(best_by="sum").history:
        assert entry["score"] == pytest.approx(
            entry["validation"]["click"]["logloss"] + entry["validation"]["watch"]["mse"])


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


def test_each_task_keeps_its_own_best_epoch_through_a_checkpoint(tmp_path):
    run, kept = Run(MODEL, npple.Adam(rate=0.1), batch_size=32, keep_best="per-task"), {}
    validation = rows(1.0, 1, 100)
    run.train(rows(), validation, 8, on_epoch=lambda entry: kept.update(
        {entry["epoch"]: run.params}))
    run.save(tmp_path / "c.npz")
    loaded = Run.load(tmp_path / "c.npz")
    epochs = {}
    for task, loss in (("click", "logloss"), ("watch", "mse")):
        entry = min(run.history, key=lambda entry: entry["validation"][task][loss])
        epochs[task] = entry["epoch"]
        assert run.best_epoch_of(task) is entry
        for each in (run, loaded):
            assert same(each.bests[task], kept[entry["epoch"]])
            alone = npple.training.predict(MODEL, kept[entry["epoch"]], validation)[task]
            assert np.array_equal(each.predict(validation)[task], alone)
    assert epochs["click"] != epochs["watch"]  # or the test could not tell them apart


def test_patience_waits_for_the_task_that_was_best_last():
    run = Run(MODEL, npple.Adam(rate=0.1), batch_size=32, keep_best="per-task")
    run.train(rows(), rows(1.0, 1, 100), 30, patience=2)
    last = max(run.best_epoch_of(task)["epoch"] for task in TASKS)
    assert run.epoch == last + 2 < 30


def test_a_run_predicts_with_its_best_parameters_for_all_tasks_unless_told():
    run, data = trained(), rows()
    expected = npple.training.predict(MODEL, run.best, data)
    assert run.bests == {} and same(run.predict(data), expected)
