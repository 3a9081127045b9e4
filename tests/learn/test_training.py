"""A run: learns, keeps the best, resumes bit for bit, and refuses what it cannot use."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npple
from npple import archive
from npple.data import Dataset, synthetic
from npple.learn import training
from npple.learn.training import Run, evaluate_model, gate_weights, predict

MODEL = npple.ple(6, {"task1": "regression", "task2": "regression"}, levels=2, expert_units=(5,),
                  tower_units=(3,))


@pytest.fixture(scope="module")
def rows():
    return synthetic(300, inputs=6, correlation=0.5, seed=0).split(0.8, 0)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss_and_beats_the_mean(rows):
    run = Run(MODEL, npple.Adam(rate=1e-2), batch_size=32)
    run.train(*rows, epochs=10)
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]
    assert run.best_epoch["score"] < sum(y.var() for y in rows[1].targets.values())


def test_the_same_seed_gives_the_same_bits_and_another_does_not(rows):
    runs = [Run(MODEL, batch_size=64, seed=seed) for seed in (3, 3, 4)]
    for run in runs:
        run.train(*rows, epochs=2)
    assert same(runs[0].params, runs[1].params) and runs[0].history == runs[1].history
    assert not same(runs[0].params, runs[2].params)


class Halved(npple.Adam):
    """An optimizer of a user's own."""

    def step(self, params, grads, state, only=None, factors=None):
        moved, state = super().step(params, grads, state, only, factors)
        return {name: (p + params[name]) / 2 for name, p in moved.items()}, state


def test_a_subclass_steps_in_its_own_way(rows):
    runs = [Run(MODEL, optimizer(1e-2), batch_size=240) for optimizer in (npple.Adam, Halved)]
    for run in runs:
        run.train(*rows, epochs=1)
    for name, start in MODEL.init(0, np.float32).items():
        whole, half = (run.params[name] - start for run in runs)
        np.testing.assert_allclose(half, whole / 2, rtol=1e-4, atol=1e-7)


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", [npple.Adam(weight_decay=0.1, clip=1.0),
                                       npple.AdamW(weight_decay=0.1), npple.SGD()])
@pytest.mark.parametrize("decay_per, mean_over", [("epoch", "data"), ("step", "batch")])
@pytest.mark.parametrize("stop", [1, 4, 5, 8, 11])
def test_a_run_interrupted_after_any_step_resumes_bit_for_bit(rows, tmp_path, optimizer, decay_per,
                                                              mean_over, stop):
    # 240 rows in batches of 50: five steps an epoch; step 5 and 10 end one
    settings = {"decay": {"task1": 0.9}, "decay_per": decay_per, "mean_over": mean_over}
    whole = Run(MODEL, optimizer, batch_size=50, **settings)
    whole.train(*rows, epochs=3)

    def interrupt(run, batches):
        if run.step == stop:
            raise Stop

    part = Run(MODEL, optimizer, batch_size=50, **settings)
    with pytest.raises(Stop):
        part.train(*rows, epochs=3, checkpoint=tmp_path / "c.npz", every=1, on_batch=interrupt)
    resumed = Run.load(tmp_path / "c.npz")
    assert resumed.step == stop
    resumed.train(*rows, epochs=3)
    assert same(resumed.params, whole.params) and same(resumed.best, whole.best)
    assert same(resumed.state, whole.state) and resumed.history == whole.history


def test_each_epoch_visits_every_row_once_in_another_order(rows):
    seen = []

    class Spy(npple.SGD):
        pass

    data = Dataset(np.arange(24, dtype=np.float32)[:, None] * np.ones(6, np.float32),
                   {task: np.arange(24, dtype=np.float32) for task in MODEL.tasks}, {})
    run = Run(MODEL, Spy(rate=1e-6), batch_size=5)
    original = npple.Network.run

    def spy(self, batch, factors):
        _, _, x, *_ = batch
        seen.append(x[:, 0].tolist())
        return original(self, batch, factors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npple.Network, "run", spy)
        patch.setattr(training, "gradient_shares", lambda *_: {})
        run.train(data, data, epochs=2)
    first, second = sum(seen[:5], []), sum(seen[5:], [])
    assert sorted(first) == sorted(second) == list(range(24)) and first != second


def test_best_holds_the_parameters_of_the_best_epoch(rows):
    run = Run(MODEL, npple.SGD(rate=0.3), batch_size=16)
    kept = {}
    run.train(*rows, epochs=6, on_epoch=lambda entry: kept.update({entry["epoch"]: run.params}))
    best = min(run.history, key=lambda entry: entry["score"])
    assert same(run.best, kept[best["epoch"]])


def test_early_stopping_after_patience_epochs_without_a_better_score(rows):
    run = Run(MODEL, npple.SGD(rate=1e-30), batch_size=64)  # too small to change a parameter
    run.train(*rows, epochs=50, patience=3)
    assert run.epoch == 4 and run.best_epoch["epoch"] == 1


def test_a_diverging_run_stops_with_the_parameters_from_before(rows):
    run = Run(MODEL, npple.SGD(rate=1e30), batch_size=64)
    with pytest.raises(npple.Diverged, match="step .* is not finite"):
        run.train(*rows, epochs=5)


def masked(rows):
    masks = {"task2": np.zeros(len(rows), bool)}
    return Dataset(rows.x, rows.targets, masks)


@pytest.mark.parametrize("skip", [False, True])
def test_skip_absent_leaves_a_task_without_rows_alone(rows, skip):
    run = Run(MODEL, npple.Adam(), batch_size=64, skip_absent=skip)
    run.train(*rows, epochs=1)
    before = run.params
    run.data = None
    run.train(masked(rows[0]), rows[1], epochs=2)
    own = "level2/task2/experts/layer1/weight"
    assert np.array_equal(run.params[own], before[own]) == skip
    assert not np.array_equal(run.params["tower/task1/layer1/weight"],
                              before["tower/task1/layer1/weight"])


# The loss of a batch -----------------------------------------------------------------------------

def sparse(rows):
    """Rows of which a seventh are task2's; none of the last few."""
    mask = (np.arange(len(rows)) % 7 == 0) & (np.arange(len(rows)) < len(rows) - 40)
    x = rows.x.astype(float)
    return Dataset(x, {task: y.astype(float) for task, y in rows.targets.items()}, {"task2": mask})


def gradients_of_an_epoch(data, **settings):
    """The parameters and the gradient of each batch, at one place: no step is of any size."""
    found = []
    original = npple.Network.run

    def spy(self, *given):
        result = original(self, *given)
        found.append(result[1])
        return result

    run = Run(MODEL, npple.SGD(rate=1e-30), dtype="float64", **settings)
    start = run.params
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npple.Network, "run", spy)
        patch.setattr(training, "gradient_shares", lambda *_: {})
        run.train(data, data, epochs=1)
    return start, found


def distance(sums, full):
    return max(np.abs(sums[name] - full[name]).max() for name in full)


@pytest.mark.parametrize("batch_size", [7, 64, 240, 1000])
def test_weighted_batches_add_up_to_the_gradient_over_all_the_data(rows, batch_size):
    """B / N times the sum of an epoch's gradients, batch by batch, also with a smaller last one."""
    data, weights = sparse(rows[0]), {"task1": 0.0, "task2": 3.0}
    part = min(batch_size / len(data), 1)
    for mean_over, exact in (("data", True), ("batch", batch_size >= len(data))):
        params, found = gradients_of_an_epoch(data, batch_size=batch_size, weights=weights,
                                              mean_over=mean_over)
        _, full = MODEL.loss_and_grads(params, data.x, data.targets, data.masks, weights)
        sums = {name: part * sum(grads[name] for grads in found) for name in full}
        assert (distance(sums, full) < 1e-12) == exact


def test_a_task_without_a_row_in_the_data_changes_nothing(rows):
    data = masked(rows[0])
    weighted, alone = (Run(MODEL, npple.SGD(), batch_size=64, mean_over="data", weights=weights)
                       for weights in ({"task1": 1.0, "task2": 1.0}, {"task1": 1.0, "task2": 0.0}))
    for run in (weighted, alone):
        run.train(data, rows[1], epochs=1)
    assert same(weighted.params, alone.params)


def test_weights_decay_per_epoch_unless_told_otherwise(rows):
    runs = [Run(MODEL, batch_size=240, decay={"task1": 0.5}, **settings)
            for settings in ({}, {"decay_per": "epoch"}, {"decay_per": "step"})]
    for run in runs:
        run.train(*rows, epochs=3)  # of one step each, where both mean the same
    assert same(runs[0].params, runs[1].params) and same(runs[1].params, runs[2].params)
    runs = [Run(MODEL, batch_size=60, decay={"task1": 0.5}, **settings)
            for settings in ({}, {"decay_per": "epoch"}, {"decay_per": "step"})]
    for run in runs:
        run.train(*rows, epochs=1)
    assert same(runs[0].params, runs[1].params) and not same(runs[1].params, runs[2].params)


@pytest.mark.parametrize("settings, message", [
    ({"decay_per": "epcoh"}, "decay_per: 'epcoh', did you mean 'epoch'"),
    ({"decay_per": 1}, "decay_per: 1, expected one of epoch, step"),
    ({"mean_over": None}, "mean_over: None, expected one of batch, data")])
def test_an_unknown_reading_is_refused(settings, message):
    with pytest.raises(npple.InputError, match=f"^{message}"):
        Run(MODEL, **settings)


def test_a_task_without_validation_rows_has_no_metrics(rows):
    assert evaluate_model(MODEL, MODEL.init(0, np.float32), masked(rows[1]))["task2"] == {}


def test_an_undefined_auc_is_none():
    model = npple.shared_bottom(2, {"a": "binary"})
    data = Dataset(np.ones((4, 2), np.float32), {"a": np.zeros(4)}, {})
    assert evaluate_model(model, model.init(0, np.float32), data)["a"]["auc"] is None


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 40))
def test_predictions_do_not_depend_on_how_many_rows_run_at_a_time(rows):
    data = Dataset(np.random.default_rng(0).normal(size=(40, 6)), {}, {})
    params = MODEL.init(0)
    parts, whole = predict(MODEL, params, data, rows), predict(MODEL, params, data)
    for task in MODEL.tasks:
        np.testing.assert_allclose(parts[task], whole[task], rtol=1e-12)


def test_gate_weights_are_the_means_of_the_trace(rows):
    params = MODEL.init(0, np.float32)
    means = gate_weights(MODEL, params, rows[0], rows=77)
    trace = MODEL.forward(params, rows[0].x)
    for name, groups in means.items():
        found = np.concatenate(list(groups.values()))
        np.testing.assert_allclose(found, trace[f"{name}/gate/weights"].mean(0), rtol=1e-5)
        assert found.sum() == pytest.approx(1, abs=1e-6)


def test_a_run_is_not_resumed_on_other_rows(rows):
    run = Run(MODEL, batch_size=64)
    run.train(*rows, epochs=1)
    with pytest.raises(npple.InputError, match="not the rows this run was started with"):
        run.train(rows[0].take(slice(0, 100)), rows[1], epochs=2)


STITCHED = npple.cross_stitch(6, MODEL.tasks, levels=2, expert_units=(8,))
ALONE = npple.single_task(6, MODEL.tasks, expert_units=(8, 8))


def test_rates_multiply_the_steps_of_what_fits_the_pattern(rows):
    """Of plain gradient descent, one step: 100 times as far."""
    runs = [Run(STITCHED, npple.SGD(1e-4), 240, dtype="float64", rates=rates)
            for rates in ({}, {"*/stitch/*": 100.0}, {"*": 7.0, "*/stitch/*": 100.0})]
    wide = [Dataset(part.x.astype(float), {t: y.astype(float) for t, y in part.targets.items()}, {})
            for part in rows]
    for run in runs:
        run.train(*wide, epochs=1)
    start = STITCHED.init(0)
    for name, value in start.items():
        plain, stitch, both = (run.params[name] - value for run in runs)
        factor = 100 if "/stitch/" in name else 1
        np.testing.assert_allclose(stitch, factor * plain, rtol=1e-7, atol=1e-15)
        np.testing.assert_allclose(both, max(factor, 7) * plain, rtol=1e-7, atol=1e-15)


def test_rates_are_saved_with_the_run_and_go_on(rows, tmp_path):
    path, settings = tmp_path / "c.npz", {"batch_size": 50, "rates": {"*/stitch/*": 100.0}}
    whole, parts = Run(STITCHED, **settings), Run(STITCHED, **settings)
    whole.train(*rows, epochs=2)
    parts.train(*rows, epochs=1, checkpoint=path)
    resumed = Run.load(path)
    resumed.train(*rows, epochs=2)
    assert resumed.rates == settings["rates"] and same(resumed.params, whole.params)


@pytest.mark.parametrize("rates", [{"*/stich/*": 2.0}, {3: 1.0}, {"*": -1.0}, {"*": "fast"}, []])
def test_rates_that_fit_nothing_or_are_none_are_refused(rates):
    with pytest.raises(npple.InputError, match="rates"):
        Run(STITCHED, rates=rates)


def test_a_cross_stitch_network_may_start_as_trained_single_task_networks(rows):
    """With units that mix nothing it then computes what these do."""
    single = Run(ALONE, batch_size=64)
    single.train(*rows, epochs=1)
    start = npple.training.stitched_start(STITCHED, ALONE, single.params)
    own = {f"level{level}/task{k}/stitch/weight": np.eye(2, dtype=np.float32)[[k - 1]]
           for level in (1, 2) for k in (1, 2)}
    x = rows[0].x
    found, expected = STITCHED.forward(start | own, x), ALONE.forward(single.params, x)
    for task in MODEL.tasks:
        np.testing.assert_allclose(found.outputs[task], expected.outputs[task], 1e-5, 1e-6)
    assert same(Run(STITCHED, start=start).params, start)


@pytest.mark.parametrize("units, levels", [((8,), 2), ((8, 8, 8), 2), ((8, 8), 3), ((8, 4), 2)])
def test_single_task_networks_of_another_form_are_no_start(units, levels):
    single = npple.single_task(6, MODEL.tasks, expert_units=units)
    model = npple.cross_stitch(6, MODEL.tasks, levels=levels, expert_units=(8,))
    with pytest.raises(npple.InputError, match="^single: "):
        npple.training.stitched_start(model, single, single.init(0))


# Checkpoints ------------------------------------------------------------------------------------

@pytest.fixture
def saved(rows, tmp_path):
    run = Run(MODEL, batch_size=64)
    run.train(*rows, epochs=1, checkpoint=tmp_path / "c.npz")
    return tmp_path / "c.npz"


def test_a_truncated_checkpoint_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(npple.FileError, match="c.npz"):
        Run.load(saved)


def rewrite(path, change):
    arrays, meta, _ = archive.load(path, format=training.FORMAT, versions=(training.VERSION,))
    change(arrays, meta)
    archive.save(path, arrays, meta, format=training.FORMAT, version=training.VERSION)


def test_a_checkpoint_of_version_1_keeps_its_meaning(rows, tmp_path):
    """Weights that decay per step, means over the batch: what 0.1.0 did, resumed bit for bit."""
    path, settings = tmp_path / "c.npz", {"batch_size": 50, "decay": {"task1": 0.9}}
    whole = Run(MODEL, **settings, decay_per="step", mean_over="batch")
    whole.train(*rows, epochs=2)
    Run(MODEL, **settings, decay_per="step").train(*rows, epochs=1, checkpoint=path)
    arrays, meta, _ = archive.load(path, format=training.FORMAT, versions=(2,))
    for name in ("decay_per", "mean_over"):
        del meta["settings"][name]
    archive.save(path, arrays, meta, format=training.FORMAT, version=1)
    resumed = Run.load(path)
    assert (resumed.decay_per, resumed.mean_over) == ("step", "batch")
    resumed.train(*rows, epochs=2)
    assert same(resumed.params, whole.params) and resumed.history == whole.history


@pytest.mark.parametrize("change", [
    lambda arrays, meta: arrays.pop("best/tower/task1/layer1/weight"),
    lambda arrays, meta: arrays.update({"params/extra": np.zeros(2, np.float32)}),
    lambda arrays, meta: arrays.update({"state/v/tower/task1/layer1/bias": np.zeros(7, "f")}),
    lambda arrays, meta: arrays.update({"params/tower/task1/layer1/bias": np.zeros(3, "d")}),
    lambda arrays, meta: arrays["best/tower/task1/layer1/bias"].fill(np.inf),
    lambda arrays, meta: meta.pop("table"),
    lambda arrays, meta: meta["table"]["towers"].clear(),
    lambda arrays, meta: meta["table"]["levels"][0]["groups"][0].update(count=-1),
    lambda arrays, meta: meta["optimizer"].update(kind="rmsprop"),
    lambda arrays, meta: meta["settings"].update(batch_size="many"),
    lambda arrays, meta: meta["settings"].update(decay_per="day"),
    lambda arrays, meta: meta["settings"].pop("decay_per"),
    lambda arrays, meta: [meta["settings"].pop(name) for name in training.FIRST],
    lambda arrays, meta: meta["progress"].pop("step"),
], ids=range(14))
def test_a_checkpoint_that_does_not_fit_its_model_is_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(npple.FileError, match="not a usable checkpoint"):
        Run.load(saved)


@pytest.mark.parametrize("name, wrong", [
    ("parts", {"task1": "1"}), ("gradient", {"task1": None}), ("constants", {"task1": []}),
    ("outweighs", {"task1": 1}), ("outweighs", {"task1": "\x1b[2J"}), ("outweighs", {"x": "y"}),
    ("validation", {}), ("validation", {"task1": {"mse": "1"}, "task2": {}}),
    ("validation", {"task1": 3, "task2": {}}), ("validation", {"task1": {"mse": 10**400}})])
def test_a_history_that_no_training_writes_is_refused(saved, name, wrong):
    """Under checksums that are right: reports would fail over it later."""
    rewrite(saved, lambda arrays, meta: meta["progress"]["history"][0].update({name: wrong}))
    with pytest.raises(npple.FileError, match="not a usable checkpoint"):
        Run.load(saved)


def test_the_meta_data_of_a_checkpoint_is_plain_json(saved):
    _, meta, _ = archive.load(saved, format=training.FORMAT, versions=(training.VERSION,))
    assert json.loads(json.dumps(meta))["progress"]["epoch"] == 1


def test_predictions_of_many_rows_are_those_of_each_block():
    """Bit for bit, in the order of the rows, however many threads share the blocks."""
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(1300, 6)).astype(np.float32), {}, {})
    params = MODEL.init(0, np.float32)
    found = training.predict(MODEL, params, data, raw=True)
    for start in (0, 512, 1024):
        at = slice(start, start + 512)
        for task, z in MODEL.forward(params, data.take(at).x).outputs.items():
            np.testing.assert_array_equal(found[task][at], z)


def test_rows_that_are_no_longer_finite_are_found_before_the_first_step(rows):
    data, validation = rows
    broken = Dataset(data.x.copy(), data.targets, data.masks)
    broken.x[3, 2] = np.nan
    run = Run(MODEL)
    with pytest.raises(npple.InputError, match="^data: x: nan at row 3"):
        run.train(broken, validation, 1)
    assert run.step == 0
