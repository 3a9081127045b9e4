"""npple predict: a row for a row, and a refusal of what is no checkpoint."""

import csv

import numpy as np
import pytest

from npple.cli import main
from npple.metrics import auc


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_csv):
    """A file of rows and the checkpoint of a model trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    data = str(write_csv(folder / "rows.csv", 400))
    assert main(["train", "--data", data, "--numeric", "age", "--categorical", "city",
                 "--binary", "clicked", "--regression", "time", "--multiclass", "reason",
                 "--epochs", "20", "--rate", "0.01", "--batch-size", "32",
                 "--out", str(folder)]) == 0
    return data, str(folder / "checkpoint.npz")


def test_predictions_come_in_the_order_of_the_rows_and_match_the_labels(here, trained):
    data, checkpoint = trained
    assert main(["predict", "--checkpoint", checkpoint, "--data", data, "--out", "preds.csv"]) == 0
    with open("preds.csv", newline="") as file:
        preds = list(csv.DictReader(file))
    with open(data, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(preds[0]) == ["clicked", "time", "reason=x", "reason=y", "reason=z"]
    labels = np.array([int(row["clicked"]) for row in rows])
    assert auc(labels, np.array([float(pred["clicked"]) for pred in preds])) > 0.97
    times = np.array([[float(row["time"]), float(pred["time"])] for row, pred in zip(rows, preds)])
    assert np.corrcoef(times.T)[0, 1] > 0.95
    likely = [max("xyz", key=lambda name: float(pred[f"reason={name}"])) for pred in preds]
    assert np.mean([a == row["reason"] for a, row in zip(likely, rows)]) > 0.9


def test_predict_needs_no_labels_and_takes_unseen_values(here, run_json, trained, write_csv):
    new = write_csv(here / "b.csv", 30, label=False)
    new.write_text(new.read_text() + "0.5,Atlantis\n")
    summary = run_json("predict", "--checkpoint", trained[1], "--data", str(new), "--out", "p.csv")
    assert summary["rows"] == 31 and len((here / "p.csv").read_text().splitlines()) == 32


@pytest.mark.parametrize("checkpoint", ["no.npz", "rows.csv"])  # none, and no checkpoint
def test_a_bad_checkpoint_is_one_line_that_names_it_status_2_and_nothing_written(
        here, capsys, write_csv, checkpoint):
    write_csv(here / "rows.csv")
    assert main(["predict", "--checkpoint", checkpoint, "--data", "census", "--out", "p.csv"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and checkpoint in error
    assert [path.name for path in here.iterdir()] == ["rows.csv"]


def test_it_says_which_rows_and_columns_it_used(here, capsys, run_json, trained):
    data, checkpoint = trained
    command = ["predict", "--checkpoint", checkpoint, "--data", data, "--out", "p.csv"]
    said = run_json(*command)
    assert said["columns"] == ["age", "city"] and said["left_out"] == ["clicked", "time", "reason"]
    assert main(command) == 0
    assert capsys.readouterr().out == (
        "400 rows, clicked, time, reason: p.csv\nfrom age, city\nnot from clicked, time, reason\n")


def test_a_task_and_a_class_of_the_same_name_get_a_column_each(here):
    lines = [f"{row},{row % 2},{'uv'[row % 2]},{row % 3}" for row in range(40)]
    (here / "rows.csv").write_text("\n".join(["age,reason=u,reason,time", *lines]))
    assert main(["train", "--data", "rows.csv", "--numeric", "age", "--binary", "reason=u",
                 "--multiclass", "reason", "--epochs", "1", "--out", "run"]) == 0
    assert main(["predict", "--checkpoint", "run/checkpoint.npz", "--data", "rows.csv",
                 "--out", "p.csv"]) == 0
    with open("p.csv", newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["reason=u", "reason==u", "reason==v"]
    assert float(first[1]) + float(first[2]) == pytest.approx(1)
