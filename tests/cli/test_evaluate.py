"""npple evaluate: a checkpoint on labelled rows, as text, JSON and a picture."""

import csv
from pathlib import Path

import numpy as np
import pytest

from npple import metrics
from npple.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_csv):
    """Rows for training, later rows, and the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    data, later = write_csv(folder / "rows.csv", 300), write_csv(folder / "later.csv", 150)
    assert main(["train", "--data", str(data), "--numeric", "age", "--categorical", "city",
                 "--binary", "clicked", "--regression", "time", "--multiclass", "reason",
                 "--epochs", "2", "--out", str(folder)]) == 0
    return str(later), str(folder / "checkpoint.npz")


def test_it_judges_what_predict_writes(here, run_json, trained):
    data, checkpoint = trained
    found = run_json("evaluate", "--checkpoint", checkpoint, "--data", data, "--group", "city",
                     "--bins", "4")
    run_json("predict", "--checkpoint", checkpoint, "--data", data, "--out", "p.csv")
    with open("p.csv", newline="") as file, open(data, newline="") as labels:
        rows = [left | {f"true {name}": text for name, text in right.items()}
                for left, right in zip(csv.DictReader(file), csv.DictReader(labels))]
    clicked, scores = (np.array([float(row[name]) for row in rows])
                       for name in ("true clicked", "clicked"))
    assert found["rows"] == 150 and found["group"] == "city"
    assert found["tasks"]["clicked"]["auc"] == metrics.auc(clicked, scores)
    assert found["tasks"]["clicked"]["gauc"] == pytest.approx(
        metrics.gauc(clicked, scores, [row["true city"] for row in rows]), rel=1e-12)
    assert found["calibration"]["clicked"] == [
        each._asdict() | {"ratio": each.predicted / each.observed if each.observed else None}
        for each in metrics.calibration(clicked, scores, 4)]
    times = np.array([[float(row["time"]), float(row["true time"])] for row in rows])
    assert found["tasks"]["time"]["mse"] == pytest.approx(np.square(times @ [1, -1]).mean())


def test_it_prints_metrics_beside_the_constants_and_the_bins(here, capsys, trained):
    assert main(["evaluate", "--checkpoint", trained[1], "--data", trained[0]]) == 0
    out = capsys.readouterr().out
    assert "150 rows" in out and "(constant " in out and "observed    ratio" in out


def test_it_tells_unknown_values(here, run_json, trained):
    text = Path(trained[0]).read_text().replace(",A,", ",Atlantis,")
    (here / "new.csv").write_text(text)
    found = run_json("evaluate", "--checkpoint", trained[1], "--data", "new.csv")
    assert found["unknown"] == [f"column 'city': {text.count('Atlantis')} of 150 unknown"]


def test_it_refuses_a_column_of_unknown_values_unless_told(here, capsys, trained):
    text = Path(trained[0]).read_text()
    for city in "ABC":
        text = text.replace(f",{city},", f",{city}{city},")
    (here / "new.csv").write_text(text)
    command = ["evaluate", "--checkpoint", trained[1], "--data", "new.csv"]
    assert main(command) == 2
    assert "--allow-unknown" in capsys.readouterr().err
    assert main([*command, "--allow-unknown"]) == 0


def test_it_takes_the_census_as_published(run_json, census):
    found = run_json("evaluate", "--checkpoint", census.checkpoint, "--data", "census",
                     "--group", "sex")
    assert found["tasks"]["marital"]["auc"] > 0.95 and found["tasks"]["marital"]["groups"] == 2


def test_the_plot_is_a_picture(here, trained):
    pytest.importorskip("matplotlib")
    assert main(["evaluate", "--checkpoint", trained[1], "--data", trained[0],
                 "--plot", "c.svg"]) == 0
    picture = (here / "c.svg").read_text()
    assert picture.startswith("<?xml") and "reason=x" in picture


@pytest.mark.parametrize("flags, said", [
    (["--group", "ctiy"], "no column 'ctiy', did you mean 'city'"), (["--bins", "0"], "bins"),
    (["--plot", "c.gif"], "--plot: 'c.gif', expected a file that ends in .svg, .png, .pdf"),
    (["--plot", "no/c.svg"], "--plot: 'no/c.svg'")])
def test_bad_input_is_one_line_and_status_2(here, capsys, trained, flags, said):
    assert main(["evaluate", "--checkpoint", trained[1], "--data", trained[0], *flags]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and said in error
    assert not [*here.iterdir()]


def test_labels_are_needed(here, capsys, trained, write_csv):
    bare = write_csv(here / "bare.csv", 30, label=False)
    assert main(["evaluate", "--checkpoint", trained[1], "--data", str(bare)]) == 2
    assert "no column 'clicked', 'time', 'reason'" in capsys.readouterr().err


def test_a_click_log_is_made_up_in_one_file_or_two(here, run_json):
    whole = run_json("clicklog", "--rows", "50", "--out", "whole.csv")
    parts = run_json("clicklog", "--rows", "50", "--out", "log.csv", "--later", "later.csv")
    assert whole["rows"] == {"whole.csv": 50} and parts["rows"] == {"log.csv": 40, "later.csv": 10}
    first, last = ((here / name).read_text().splitlines() for name in ("log.csv", "later.csv"))
    assert first[0] == last[0] == ",".join(whole["columns"])
    assert [*first, *last[1:]] == (here / "whole.csv").read_text().splitlines()


def test_the_two_files_of_a_click_log_are_two(here, capsys):
    assert main(["clicklog", "--rows", "50", "--out", "log.csv", "--later", "log.csv"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not [*here.iterdir()]
