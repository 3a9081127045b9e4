"""The command line: what it prints, what it writes, and that bad usage changes nothing."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import npple
from npple.cli import main
from npple.metrics import auc

SMALL = ["--data", "synthetic", "--rows", "200", "--inputs", "4", "--epochs", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_json(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    out, _ = capsys.readouterr()
    return json.loads(out)


def write_csv(path, rows=120, label=True):
    """Columns age, city, clicked, time, reason: clicked and time follow age, reason the city."""
    rng = np.random.default_rng(0)
    lines = ["age,city,clicked,time,reason" if label else "age,city"]
    for _ in range(rows):
        age, city = rng.normal(), "ABC"[rng.integers(3)]
        labels = f",{int(age > 0)},{2 * age:.3f},{'xyz'['ABC'.index(city)]}"
        lines.append(f"{age:.4f},{city}" + (labels if label else ""))
    path.write_text("\n".join(lines) + "\n")
    return path


CSV_FLAGS = ["--numeric", "age", "--categorical", "city", "--binary", "clicked",
             "--regression", "time", "--multiclass", "reason"]


def test_the_main_job_trains_on_the_bundled_census(here, capsys):
    summary = run_json(capsys, "train", "--epochs", "2")
    assert summary["checkpoint"] == "run/checkpoint.npz" and (here / "run/checkpoint.npz").exists()
    assert summary["validation"]["marital"]["auc"] > 0.95
    assert sum(summary["gates"]["level2/income"].values()) == pytest.approx(1, abs=1e-5)


def test_the_default_folder_is_never_used_twice(here, capsys):
    first, second = (run_json(capsys, "train", *SMALL)["checkpoint"] for _ in range(2))
    assert (first, second) == ("run/checkpoint.npz", "run-2/checkpoint.npz")


@pytest.mark.parametrize("model", ["single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple"])
def test_every_architecture_trains(here, capsys, model):
    assert run_json(capsys, "train", "--model", model, *SMALL)["model"] == model


def test_predictions_come_in_the_order_of_the_rows_and_match_the_labels(here, capsys):
    data = write_csv(here / "rows.csv", 400)
    run_json(capsys, "train", "--data", str(data), *CSV_FLAGS, "--epochs", "20", "--rate", "0.01",
             "--batch-size", "32", "--out", "out")
    assert main(["predict", "--checkpoint", "out/checkpoint.npz", "--data", str(data),
                 "--out", "preds.csv"]) == 0
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


def test_predict_needs_no_labels_and_takes_unseen_values(here, capsys):
    run_json(capsys, "train", "--data", str(write_csv(here / "a.csv")), *CSV_FLAGS, "--out", "out")
    new = write_csv(here / "b.csv", 30, label=False)
    new.write_text(new.read_text() + "0.5,Atlantis\n")
    summary = run_json(capsys, "predict", "--checkpoint", "out/checkpoint.npz", "--data", str(new),
                       "--out", "p.csv")
    assert summary["rows"] == 31 and len((here / "p.csv").read_text().splitlines()) == 32


def test_resuming_equals_training_in_one_go(here, capsys):
    whole = run_json(capsys, "train", *SMALL, "--epochs", "3", "--out", "whole")
    run_json(capsys, "train", *SMALL, "--epochs", "1", "--out", "parts")
    parts = run_json(capsys, "train", *SMALL, "--epochs", "3", "--out", "parts", "--resume")
    assert whole["validation"] == parts["validation"] and whole["gates"] == parts["gates"]


BAD = {
    "no such file": (["train", "--data", "nowhere.csv"], "nowhere.csv"),
    "unknown option of the model": (["train", *SMALL, "--model", "cgc", "--levels", "2"], "levels"),
    "no experts": (["train", *SMALL, "--task-experts", "0", "--shared-experts", "0"], "expert"),
    "no epochs": (["train", *SMALL, "--epochs", "0"], "--epochs"),
    "unknown activation": (["train", *SMALL, "--activation", "swish"], "swish"),
    "negative rate": (["train", *SMALL, "--rate", "-1"], "rate"),
    "unknown task": (["train", *SMALL, "--task-weight", "vtr=1"], "vtr"),
    "correlation": (["train", *SMALL, "--correlation", "2"], "correlation"),
    "no features": (["train", "--data", "rows.csv", "--binary", "clicked"], "feature"),
    "unknown column": (["train", "--data", "rows.csv", "--numeric", "hours", "--binary",
                        "clicked"], "hours"),
    "label is a feature": (["train", "--data", "rows.csv", "--numeric", "age", "clicked",
                            "--binary", "clicked"], "clicked"),
    "label twice": (["train", "--data", "rows.csv", "--numeric", "age", "--binary", "clicked",
                     "--regression", "clicked"], "clicked"),
    "text as a number": (["train", "--data", "rows.csv", "--numeric", "city", "--binary",
                          "clicked"], "city"),
    "resume from nothing": (["train", *SMALL, "--out", "none", "--resume"], "none"),
    "no checkpoint": (["predict", "--checkpoint", "no.npz", "--data", "census", "--out", "p.csv"],
                      "no.npz"),
    "not a checkpoint": (["predict", "--checkpoint", "rows.csv", "--data", "census", "--out",
                          "p.csv"], "rows.csv"),
}


@pytest.mark.parametrize("arguments, names", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_that_names_it_status_2_and_nothing_written(
        here, capsys, arguments, names):
    write_csv(here / "rows.csv")
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and names in error
    assert [path.name for path in here.iterdir()] == ["rows.csv"]


def test_an_existing_checkpoint_is_not_overwritten(here, capsys):
    run_json(capsys, "train", *SMALL, "--out", "out")
    before = (here / "out/checkpoint.npz").read_bytes()
    assert main(["train", *SMALL, "--out", "out"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (here / "out/checkpoint.npz").read_bytes() == before


def test_resuming_with_other_settings_is_refused(here, capsys):
    run_json(capsys, "train", *SMALL, "--out", "out")
    for flags in (["--rate", "0.1"], ["--batch-size", "7"], ["--expert-units", "8"]):
        assert main(["train", *SMALL, "--epochs", "2", "--out", "out", "--resume", *flags]) == 2
        assert "was started with another" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["predict"]])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert not command or f"npple {command[0]} --" in capsys.readouterr().out


def test_bad_usage_has_status_2(capsys):
    for arguments in ([], ["fly"], ["train", "--epochs", "many"], ["train", "--task-weight", "3"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_json_is_alone_on_standard_output(here, capsys):
    run_json(capsys, "train", *SMALL)  # json.loads would fail on anything else


def loaded_modules(code):
    done = subprocess.run([sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import npple", "import npple.cli", "import npple.data"])
def test_importing_npple_loads_no_scipy(code):
    loaded = loaded_modules(code)
    assert not loaded & {"scipy", "matplotlib", "tqdm", "torch"} and "numpy" in loaded


def test_importing_npple_loads_no_more_of_numpy_than_numpy_does():
    more = loaded_modules("import npple") - loaded_modules("import numpy")
    assert not {name for name in more if name.startswith("numpy")}


def test_python_m_npple_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "npple", "--version"], capture_output=True,
                          text=True, check=True)
    assert done.stdout.startswith("npple ")


# The oracle -------------------------------------------------------------------------------------

def test_the_oracle_passes_what_it_exported(here, capsys):
    options = ("--model", "ple", "--tasks", "3", "--levels", "2", "--inputs", "5")
    written = run_json(capsys, "oracle", "export", *options, "--out", "ple.npz")
    found = run_json(capsys, "oracle", "check", "ple.npz", "ple.npz")
    assert found["passed"] and found["compared"] == written["tensors"] > 300
    assert found["first_divergence"] is None and found["diagnosis"] == []
    assert not found["unknown"] and not found["missing"] and found["worst"]["passed"]


def test_the_oracle_names_the_first_wrong_tensor_and_the_mistake(here, capsys):
    run_json(capsys, "oracle", "export", "--tasks", "a", "b=regression", "--out", "ple.npz")
    found = np.load("ple.npz", allow_pickle=False)
    summed = 8 * found["loss[a]"]  # over the 8 rows
    np.savez("results.npz", **{"tower/a": found["tower/a"], "loss[a]": summed})
    assert main(["oracle", "check", "ple.npz", "results.npz", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["compared"] == 2 and report["first_divergence"] == "loss[a]"
    assert ["loss-sum"] in [each["deviations"] for each in report["diagnosis"]]
    assert main(["oracle", "check", "ple.npz", "results.npz"]) == 1
    assert "it is the model in which" in capsys.readouterr().out


def test_the_oracle_refuses_what_holds_no_results(here, capsys):
    main(["oracle", "export", "--model", "cgc", "--out", "cgc.npz"])
    np.savez("other.npz", output=np.ones(8))
    for arguments, message in (
            (["check", "cgc.npz", "other.npz"], "nothing under a known name: output"),
            (["check", "cgc.npz", "none.npz"], "none.npz: no results file"),
            (["check", "none.npz", "other.npz"], "none.npz"),
            (["export"], "--out FILE or --all DIR"),
            (["export", "--tasks", "0", "--out", "x.npz"], "tasks: a positive integer up to")):
        capsys.readouterr()
        assert main(["oracle", *arguments]) == 2
        assert message in capsys.readouterr().err


# Proofs -----------------------------------------------------------------------------------------

def test_gradcheck_covers_all_architectures(capsys):
    results = run_json(capsys, "gradcheck", "--model", "all", "--method", "directional")
    assert [result["model"] for result in results] == list(npple.ARCHITECTURES)
    assert all(result["passed"] and result["max_relative_error"] <= 1e-12 for result in results)


def test_gradcheck_of_one_architecture_prints_a_row_a_tensor(capsys):
    assert main(["gradcheck", "--model", "cgc", "--tasks", "2"]) == 0
    out = capsys.readouterr().out
    assert "level1/shared/experts/layer1/weight" in out and "passed" in out


def test_a_failed_gradcheck_has_status_1(capsys, monkeypatch):
    forward, _ = npple.core.ops.ACTIVATIONS["relu"]
    monkeypatch.setitem(npple.core.ops.ACTIVATIONS, "relu", (forward, lambda dy, on: dy * on * 1.001))
    assert main(["gradcheck", "--model", "ple"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_power_of_gradient_checks_in_json_and_as_a_table(capsys):
    cells = run_json(capsys, "gradcheck", "--power", "--model", "single_task")
    assert {cell["method"] for cell in cells} == {"complex-step", "directional",
                                                  "central-differences"}
    assert all(cell["found"] < 0.1 for cell in cells) and len(cells) == 9


def test_rounding_alone_is_no_failure(capsys):
    result = run_json(capsys, "gradcheck", "--model", "cgc", "--method", "longdouble")
    assert result["passed"] is None and result["max_relative_error"] < 1e-12


def test_isolation_in_json(capsys):
    result = run_json(capsys, "isolation", "--model", "ple", "--tasks", "2", "--levels", "3")
    assert set(result) == {"model", "tasks", "groups", "matrix", "verified"}
    assert result["matrix"]["task1"]["level2/task2/experts"] == "reached"
    assert result["matrix"]["task1"]["level3/task2/experts"] == "isolated"
    assert all(result["verified"].values())


def test_isolation_of_a_trained_checkpoint(here, capsys):
    run_json(capsys, "train", "--epochs", "1", "--out", "out")
    arguments = ["isolation", "--checkpoint", "out/checkpoint.npz", "--data", "census"]
    assert run_json(capsys, *arguments)["tasks"] == ["income", "marital"]
    assert main(arguments) == 0
    assert "cosine" in capsys.readouterr().out


def test_the_isolation_plot_is_a_picture_of_one_model(here, capsys):
    pytest.importorskip("matplotlib")
    assert main(["isolation", "--model", "ple", "--plot", "p.svg"]) == 0
    assert (here / "p.svg").read_text().startswith("<?xml")
    assert main(["isolation", "--plot", "all.svg"]) == 2
