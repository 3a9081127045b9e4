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
