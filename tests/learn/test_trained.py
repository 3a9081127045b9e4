"""npple.fit and npple.load: a table in, predictions in its own units out."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import npple
from npple import metrics
from npple.cli import main
from strategies import assert_equal

ROLES = {"numeric": ["age"], "categorical": ["user"],
         "tasks": {"click": "binary", "watch": "regression", "why": "multiclass"}}
SMALL = {"epochs": 2, "expert_units": (8,), "tower_units": (4,), "batch_size": 64}


def table(rows=400, seed=0):
    """Clicks and watch time in ms follow age and user; columns of several kinds."""
    rng = np.random.default_rng(seed)
    age, user = rng.normal(40, 10, rows), rng.integers(0, 20, rows)
    return {"age": age.tolist(), "user": [f"u{number}" for number in user],
            "click": (age + 5 * (user % 3) + rng.normal(0, 5, rows) > 45).astype(int),
            "watch": np.maximum(0, age * 400 + rng.normal(0, 3000, rows)),
            "why": ["abc"[number % 3] for number in user]}


def as_csv(columns, path):
    cells = [list(map(repr if name in ("age", "watch") else str, np.asarray(column).tolist()))
             for name, column in columns.items()]
    path.write_text("\n".join(map(",".join, [[*columns], *zip(*cells)])) + "\n")
    return path


class Frame:
    """As much of a frame as npple asks for: names of columns, and a column by name."""

    def __init__(self, columns):
        self.columns, self._columns = [*columns], columns

    def __getitem__(self, name):
        return self._columns[name]


@pytest.fixture(scope="module")
def trained():
    return npple.fit(table(), **ROLES, **SMALL)


def same(left, right):
    return left.keys() == right.keys() and all(
        np.array_equal(left[name], right[name]) for name in left)


def test_a_dict_a_frame_and_a_path_give_the_same_bits(trained, tmp_path):
    for frame in (Frame(table()), as_csv(table(), tmp_path / "log.csv"),
                  {name: list(column) for name, column in table().items()}):
        assert same(npple.fit(frame, **ROLES, **SMALL).run.best, trained.run.best)
        assert same(trained.predict(frame), trained.predict(table()))
        assert trained.evaluate(frame, group="user") == trained.evaluate(table(), group="user")


def test_a_missing_value_of_pandas_is_a_gap(trained):
    missing = type("NAType", (), {"__ne__": lambda *_: missing, "__bool__": lambda _: 1 / 0})()
    users = table()["user"]
    gap, none = (trained.predict(table() | {"user": [first, *users[1:]]})
                 for first in (missing, None))
    assert same(gap, none)


def test_predictions_are_probabilities_and_values_in_the_columns_units(trained):
    found = trained.predict({name: table()[name] for name in ("age", "user")})
    assert {task: values.shape for task, values in found.items()} == {
        "click": (400,), "watch": (400,), "why": (400, 3)}
    assert ((found["click"] > 0) & (found["click"] < 1)).all()
    assert 8000 < found["watch"].mean() < 24000
    assert np.allclose(found["why"].sum(axis=1), 1)


def test_an_evaluation_is_of_the_predictions_and_labels_in_their_own_units(trained):
    labels = table(seed=1)
    labels["click"] = [*labels["click"][:100], *[None] * 300]
    found, predictions = trained.evaluate(labels), trained.predict(labels)
    click = found.tasks["click"]
    assert found.rows == 400 and click["rows"] == 100
    assert click["auc"] == metrics.auc(labels["click"][:100], predictions["click"][:100])
    assert click["constant"] == metrics.entropy(labels["click"][:100])
    watch = np.square(labels["watch"] - predictions["watch"]).mean()
    assert found.tasks["watch"]["mse"] == pytest.approx(watch, rel=1e-12)
    assert found.tasks["watch"]["constant"] == pytest.approx(np.var(labels["watch"]), rel=1e-12)
    assert found.calibration["why=a"] == metrics.calibration(
        [label == "a" for label in labels["why"]], predictions["why"][:, 0])


def test_the_history_is_in_the_units_of_the_columns(trained):
    """And of a run that leaves its targets as they are: the same constants."""
    raw = npple.fit(table(), **ROLES, **SMALL, raw_targets=True)
    for ours, theirs in zip(trained.run.history, raw.run.history):
        assert ours["constants"] == pytest.approx(theirs["constants"], rel=1e-5)
        assert ours["constants"]["watch"] > 1e6
    validation = table(100, seed=1)
    judged = npple.fit(table(), **ROLES, **SMALL, validation=validation)
    best = judged.run.best_epoch["validation"]["watch"]["mse"]
    assert judged.evaluate(validation).tasks["watch"]["mse"] == pytest.approx(best, rel=1e-5)


def test_rows_without_a_group_are_left_out_of_the_gauc(trained):
    labels = table(seed=1)
    users = labels["user"]
    labels["who"] = [None] * 100 + users[100:]
    found = trained.evaluate(labels, group="who").tasks["click"]
    scores = trained.predict(labels)["click"]
    expected = metrics.gauc(labels["click"][100:], scores[100:], users[100:])
    assert found["gauc"] == pytest.approx(expected, rel=1e-12)
    mixed = [user for user in {*users[100:]} if len({
        label for label, of in zip(labels["click"][100:], users[100:]) if of == user}) == 2]
    assert found["groups"] == len(mixed)


def test_an_evaluation_prints_and_is_json(trained):
    found = trained.evaluate(table(), group="user")
    assert json.loads(json.dumps(found.to_dict()))["tasks"]["click"] == found.tasks["click"]
    text = str(found)
    assert "gauc" in text and "(constant " in text and "why=c: predicted " in text
    assert text.count("predicted    observed    ratio") == 2  # of the tasks that are one column


def test_a_task_without_a_labelled_row_has_no_metrics_and_no_bins(trained):
    found = trained.evaluate(table() | {"click": [None] * 400}, group="user")
    assert found.tasks["click"] == {} and found.calibration["click"] == []
    assert "click  no rows" in str(found) and "click: no rows" in str(found)


def test_what_was_saved_predicts_the_same_bits_in_python_and_on_the_command_line(trained, tmp_path,
                                                                                capsys):
    trained.save(tmp_path / "run.npz")
    assert same(npple.load(tmp_path / "run.npz").predict(table()), trained.predict(table()))
    log = str(as_csv(table(), tmp_path / "log.csv"))
    assert main(["predict", "--checkpoint", str(tmp_path / "run.npz"), "--data", log,
                 "--out", str(tmp_path / "p.csv")]) == 0
    first = (tmp_path / "p.csv").read_text().splitlines()[1].split(",")
    assert float(first[0]) == trained.predict(table())["click"][0]


def test_the_command_line_trains_to_the_same_bits(trained, tmp_path, capsys):
    log, out = as_csv(table(), tmp_path / "log.csv"), tmp_path / "run"
    assert main(["train", "--data", str(log), "--numeric", "age", "--categorical", "user",
                 "--binary", "click", "--regression", "watch", "--multiclass", "why",
                 "--epochs", "2", "--expert-units", "8", "--tower-units", "4",
                 "--batch-size", "64", "--out", str(out)]) == 0
    found = npple.load(out / "checkpoint.npz")
    assert same(found.run.best, trained.run.best) and found.schema == trained.schema


def test_rare_ids_are_told_and_a_column_of_them_is_refused(trained):
    strange = table() | {"user": ["u1", *["nobody"] * 399]}
    assert trained.unknown(strange) == ["column 'user': 399 of 400 unknown"]
    assert trained.evaluate(strange).unknown == trained.unknown(strange)
    strange["user"][0] = "nobody"
    with pytest.raises(npple.InputError, match="accept_unknown"):
        trained.predict(strange)
    assert len(trained.predict(strange, accept_unknown=True)["click"]) == 400


@pytest.mark.parametrize("change, said", [
    ({"model": "plee"}, "model: 'plee', did you mean 'ple'"),
    ({"expert_unit": (8,)}, "option of ple: 'expert_unit', did you mean 'expert_units'"),
    ({"tasks": ["click"]}, "tasks: a dict of column and kind"),
    ({"numeric": 3}, "numeric: 3, expected a sequence of texts"),
    ({"time": 3}, "time: 3, expected a column"),
    ({"numeric": ["aeg"]}, "no column 'aeg', did you mean 'age'"),
    ({"raw_targets": "yes"}, "raw_targets: True or False"),
    ({"checkpoint": 3}, "checkpoint: a path is needed")])
def test_what_cannot_be_fitted_is_refused_by_name(change, said):
    with pytest.raises(npple.InputError, match=said):
        npple.fit(table(40), **{**ROLES, **SMALL, **change})


@pytest.mark.parametrize("change, said", [
    ({"group": "usr"}, "no column 'usr', did you mean 'user'"), ({"bins": 0}, "bins: an integer"),
    ({"group": 0}, "group: 0, expected a column"), ({"group": ""}, "no column ''")])
def test_what_cannot_be_evaluated_is_refused_by_name(trained, change, said):
    with pytest.raises(npple.InputError, match=said):
        trained.evaluate(table(40), **change)


def test_a_trained_model_shows_its_best_epoch(trained):
    assert repr(trained).splitlines()[0] == "Trained for 2 epochs"
    assert f"click  epoch {trained.run.best_epoch['epoch']}  auc" in repr(trained)


@pytest.mark.parametrize("frame, said", [
    ({"age": [1, 2], "user": ["a"]}, "columns of different lengths, 1 ('user') and 2 ('age')"),
    ({"age": np.float64(1)}, "column 'age'"),
    ({"age": [np.ones(2)], "user": ["u1"]}, "column 'age', row 1: '1.0|1.0', expected a finite"),
    ({"age": 3}, "column 'age': 3, expected a list or array"), (3, "frame: 3, expected a path")])
def test_what_is_no_table_is_refused_by_name(trained, frame, said):
    with pytest.raises(npple.InputError, match=re.escape(said)):
        trained.predict(frame)


def test_a_model_of_synthetic_data_takes_no_tables(tmp_path, capsys):
    assert main(["train", "--data", "synthetic", "--rows", "40", "--inputs", "3", "--epochs", "1",
                 "--out", str(tmp_path)]) == 0
    with pytest.raises(npple.InputError, match="synthetic"):
        npple.load(tmp_path / "checkpoint.npz")


def test_fitting_overwrites_no_checkpoint(tmp_path):
    (tmp_path / "run.npz").write_bytes(b"kept")
    with pytest.raises(npple.InputError, match="exists, expected a new file"):
        npple.fit(table(40), **ROLES, **SMALL, checkpoint=tmp_path / "run.npz")
    assert (tmp_path / "run.npz").read_bytes() == b"kept"


def test_of_two_trainings_that_are_given_one_checkpoint_one_is_refused(tmp_path):
    """Both have seen that no file is there; the later one finds it at its first save."""
    path, ready = tmp_path / "run.npz", threading.Barrier(2, timeout=60)

    class Late(dict):
        """A table that both have in hand before either goes on."""

        def __iter__(self):
            if threading.current_thread() not in seen:
                seen.append(threading.current_thread())
                ready.wait()
            return super().__iter__()

    def train(seed):
        table = Late(age=[*range(40)], clicked=[0, 1] * 20)
        try:
            return npple.fit(table, numeric=["age"], tasks={"clicked": "binary"}, epochs=1,
                             seed=seed, checkpoint=path).run.params
        except npple.FileError as error:
            return str(error)

    seen = []
    with ThreadPoolExecutor(2) as pool:
        done = [*pool.map(train, (0, 1))]
    (refused,), (params,) = ([each for each in done if isinstance(each, kind)]
                             for kind in (str, dict))
    assert "it exists, expected a new file" in refused
    assert_equal(npple.load(path).run.params, params)
    assert [each.name for each in tmp_path.iterdir()] == ["run.npz"]
