"""npple train: what it prints, what it writes, and that bad usage changes nothing."""

import re

import pytest

from npple.cli import main
from npple.learn.training import Run

SMALL = ["--data", "synthetic", "--rows", "200", "--inputs", "4", "--epochs", "1"]


def test_the_main_job_trains_on_the_bundled_census(census):
    summary = census.summary
    assert summary["checkpoint"] == "run/checkpoint.npz"
    assert (census.folder / "run/checkpoint.npz").exists()
    assert summary["validation"]["marital"]["auc"] > 0.95
    assert sum(summary["gates"]["level2/income"].values()) == pytest.approx(1, abs=1e-5)


def test_the_default_folder_is_never_used_twice(here, run_json):
    first, second = (run_json("train", *SMALL)["checkpoint"] for _ in range(2))
    assert (first, second) == ("run/checkpoint.npz", "run-2/checkpoint.npz")


@pytest.mark.parametrize("model", ["single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple"])
def test_every_architecture_trains(here, run_json, model):
    assert run_json("train", "--model", model, *SMALL)["model"] == model


def test_resuming_equals_training_in_one_go(here, run_json):
    whole = run_json("train", *SMALL, "--epochs", "3", "--out", "whole")
    run_json("train", *SMALL, "--epochs", "1", "--out", "parts")
    parts = run_json("train", *SMALL, "--epochs", "3", "--out", "parts", "--resume")
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
}


@pytest.mark.parametrize("arguments, names", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_that_names_it_status_2_and_nothing_written(
        here, capsys, write_csv, arguments, names):
    write_csv(here / "rows.csv")
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and names in error
    assert [path.name for path in here.iterdir()] == ["rows.csv"]


def test_a_misspelt_task_is_answered_with_the_nearest_one(here, capsys):
    assert main(["train", *SMALL, "--task-weight", "taks1=1"]) == 2
    assert capsys.readouterr().err == ("npple train: error: --task-weight: 'taks1', did you mean "
                                       "'task1'? expected one of task1, task2\n")


def test_a_misspelt_column_is_answered_with_the_nearest_one(here, capsys, write_csv):
    columns = ["--data", str(write_csv(here / "rows.csv")), "--binary", "clicked"]
    for flag in ("--numeric", "--categorical", "--log", "--regression", "--multiclass"):
        assert main(["train", *columns, "--numeric", "age", flag, "cty"]) == 2
        assert "no column 'cty', did you mean 'city'? expected one of age, city, clicked" \
            in capsys.readouterr().err


def test_an_existing_checkpoint_is_not_overwritten(here, capsys, run_json):
    run_json("train", *SMALL, "--out", "out")
    before = (here / "out/checkpoint.npz").read_bytes()
    assert main(["train", *SMALL, "--out", "out"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (here / "out/checkpoint.npz").read_bytes() == before


def test_resuming_with_other_settings_is_refused(here, capsys, run_json):
    run_json("train", *SMALL, "--out", "out")
    for flags in (["--rate", "0.1"], ["--batch-size", "7"], ["--expert-units", "8"]):
        assert main(["train", *SMALL, "--epochs", "2", "--out", "out", "--resume", *flags]) == 2
        assert "was started with another" in capsys.readouterr().err


def test_a_resumed_run_keeps_what_its_decay_counts(here, capsys, run_json):
    few = [*SMALL, "--task-decay", "task1=0.5", "--batch-size", "40"]
    whole = run_json("train", *few, "--epochs", "2", "--decay-per", "step", "--out", "whole")
    run_json("train", *few, "--decay-per", "step", "--out", "parts")
    two = ["--epochs", "2", "--out", "parts", "--resume"]
    assert main(["train", *few, *two, "--decay-per", "epoch"]) == 2
    assert "was started with another decay per" in capsys.readouterr().err
    parts = run_json("train", *few, *two)
    assert parts["validation"] == whole["validation"]
    assert run_json("train", *few, "--epochs", "2")["validation"] != whole["validation"]


def test_the_mean_over_the_data_is_an_option(here, capsys, run_json):
    few = [*SMALL, "--batch-size", "100"]  # 160 rows to train on: the last batch is smaller
    batch, data = (run_json("train", *few, "--mean-over", rows, "--out", rows)["validation"]
                   for rows in ("batch", "data"))
    assert batch != data
    assert main(["train", *few, "--epochs", "2", "--out", "data", "--resume"]) == 2
    assert "was started with another mean over" in capsys.readouterr().err


def test_a_cross_stitch_network_starts_from_single_tasks_with_faster_units(here, capsys, run_json):
    run_json("train", *SMALL, "--model", "single_task", "--expert-units", "8", "8", "--out", "one")
    stitch = [*SMALL, "--model", "cross_stitch", "--expert-units", "8"]
    more = ["--start-from", "one/checkpoint.npz", "--rates", "*/stitch/*=100"]
    plain, whole = (run_json("train", *stitch, *extra, "--epochs", "2")["validation"]
                    for extra in ([], more))
    run_json("train", *stitch, *more, "--out", "parts")
    two = [*stitch, "--epochs", "2", "--out", "parts", "--resume"]
    assert main(["train", *two]) == 2
    assert "was started with another rates" in capsys.readouterr().err
    assert run_json("train", *two, *more)["validation"] == whole != plain


@pytest.mark.parametrize("flag, value", [("--decay-per", "stpe"), ("--mean-over", "dtaa")])
def test_an_unknown_reading_is_answered_with_the_nearest_one(here, capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        main(["train", *SMALL, flag, value])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert flag in error and "did you mean" in error


def test_task_and_label_correlation_are_printed_side_by_side(here, capsys):
    main(["train", *SMALL, "--correlation", "0.9"])
    assert re.search(r"^task correlation 0\.9, label correlation \d\.\d\d$",
                     capsys.readouterr().out, re.MULTILINE)


def test_json_is_alone_on_standard_output(here, run_json):
    run_json("train", *SMALL)  # json.loads would fail on anything else


def test_resuming_with_other_columns_is_refused(here, capsys, write_csv):
    data = ["--data", str(write_csv(here / "rows.csv")), "--binary", "clicked", "--out", "out"]
    assert main(["train", *data, "--numeric", "age", "--epochs", "1"]) == 0
    resumed = ["train", *data, "--epochs", "2", "--resume"]
    assert main([*resumed, "--categorical", "city"]) == 2
    assert "was started with another choice of columns" in capsys.readouterr().err
    assert main([*resumed, "--numeric", "age"]) == 0


@pytest.mark.parametrize("other", [["--min-count", "30"], ["--missing", "mean"], ["--raw-targets"],
                                   ["--log", "age"]])
def test_resuming_with_other_readings_of_the_rows_is_refused(here, capsys, write_csv, other):
    text = write_csv(here / "rows.csv").read_text().replace("-", "")
    (here / "rows.csv").write_text(text + "1.0,D,1,2,x\n" * 4)
    command = ["train", "--data", "rows.csv", "--numeric", "age", "--categorical", "city",
               "--regression", "time", "--epochs", "1", "--out", "run"]
    assert main(command) == 0
    assert main([*command, "--resume", *other]) == 2
    assert "--resume: the rows or how they are read differ" in capsys.readouterr().err


def test_resuming_with_another_validation_file_is_refused(here, capsys, write_csv):
    write_csv(here / "rows.csv")
    for name, rows in (("later.csv", 50), ("other.csv", 51)):
        write_csv(here / name, rows)
    command = ["train", "--data", "rows.csv", "--numeric", "age", "--binary", "clicked",
               "--out", "run"]
    assert main([*command, "--validation", "later.csv", "--epochs", "1"]) == 0
    resumed = [*command, "--epochs", "2", "--resume", "--validation"]
    assert main([*resumed, "other.csv"]) == 2
    assert "validation: not the rows this run was started with" in capsys.readouterr().err
    assert main([*resumed, "later.csv"]) == 0


def test_each_epoch_prints_each_tasks_part_of_the_loss_and_the_constants_beside_its_own(
        here, capsys):
    assert main(["train", *SMALL]) == 0
    assert re.search(r"^epoch   1  loss [\d.]+ \(task1 [\d.]+, task2 [\d.]+\)  \|  "
                     r"task1 mse [\d.]+ \(constant [\d.]+\)  \|  task2 mse [\d.]+ \(constant ",
                     capsys.readouterr().out, re.MULTILINE)


def test_a_target_that_swamps_the_others_is_named_once(here, capsys):
    rows = [f"{row % 7},{int(row % 7 > 3)},{1000 * (row % 5)}" for row in range(100)]
    (here / "rows.csv").write_text("\n".join(["age,clicked,watch", *rows]))
    command = ["train", "--data", "rows.csv", "--numeric", "age", "--binary", "clicked",
               "--regression", "watch", "--epochs", "2"]
    assert main([*command, "--raw-targets"]) == 0
    assert capsys.readouterr().out.count("task 'watch' holds 100.0% of the joint loss") == 1
    assert main(command) == 0
    assert "holds" not in capsys.readouterr().out


def test_a_task_may_keep_its_own_best_epoch(here, capsys, write_csv, run_json):
    write_csv(here / "rows.csv")
    command = ["train", "--data", "rows.csv", "--numeric", "age", "--categorical", "city",
               "--binary", "clicked", "--multiclass", "reason", "--rate", "0.1", "--epochs", "6",
               "--batch-size", "16"]
    best = run_json(*command, "--keep-best", "per-task", "--out", "run")
    history = Run.load("run/checkpoint.npz").history
    for task, epoch in best["best_epochs"].items():
        losses = [entry["validation"][task]["logloss"] for entry in history]
        assert losses.index(min(losses)) + 1 == epoch
        assert best["validation"][task]["logloss"] == min(losses)
    assert len({*best["best_epochs"].values()}) == 2
    assert run_json(*command)["best_epochs"].keys() == {"clicked", "reason"}
    assert main([*command, "--resume", "--out", "run"]) == 2
    assert "was started with another keep best" in capsys.readouterr().err


def test_a_target_whose_square_is_no_number_is_refused_by_name(here, capsys):
    rows = [f"{row},{row}e200" for row in range(1, 40)]
    (here / "rows.csv").write_text("\n".join(["age,watch", *rows]))
    assert main(["train", "--data", "rows.csv", "--numeric", "age", "--regression", "watch"]) == 2
    assert "column 'watch': numbers about " in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("flags", [[], ["--raw-targets"]])
def test_a_target_of_nanoseconds_is_learned_or_diverges_and_the_checkpoint_loads(
        here, capsys, run_json, flags):
    rows = [f"{row % 7},{1_700_000_000_000_000_000 + row * 10 ** 12}" for row in range(60)]
    (here / "rows.csv").write_text("\n".join(["age,when", *rows]))
    status = main(["train", "--data", "rows.csv", "--numeric", "age", "--regression", "when",
                   "--epochs", "2", "--out", "run", *flags])
    capsys.readouterr()
    assert status in ((0,) if not flags else (0, 2))
    command = ["--checkpoint", "run/checkpoint.npz", "--data", "rows.csv"]
    assert run_json("predict", *command, "--out", "p.csv")["rows"] == 60
    if not flags:
        times = [float(line) for line in (here / "p.csv").read_text().split()[1:]]
        assert all(1.69e18 < time < 1.71e18 for time in times)


CSV = ["--data", "rows.csv", "--numeric", "age", "--binary", "clicked"]


@pytest.mark.parametrize("data, flags", [
    (CSV, ["--task-group", "2"]), (CSV, ["--rows", "5"]), (CSV, ["--correlation", "0"]),
    (["--data", "vtr_vcr"], ["--correlation", "0"]), (["--data", "synthetic"], ["--noise", "1"]),
    (["--data", "census"], ["--rows", "5"]), (["--data", "census"], ["--delimiter", "tab"]),
    *((["--data", "synthetic"], flags) for flags in (
        ["--task-group", "2"], ["--time", "age"], ["--split-by", "age"], ["--raw-targets"],
        ["--missing", "mean"], ["--columns", "age"], ["--min-count", "1"]))])
def test_a_flag_that_the_data_has_no_use_for_is_refused(here, capsys, write_csv, data, flags):
    write_csv(here / "rows.csv")
    for command in (["train", "--out", "run"], ["compare"]):
        assert main([*command, "--epochs", "1", *data, *flags]) == 2
        error = capsys.readouterr().err
        assert f"{flags[0]}: of no use for" in error and error.count("\n") == 1
    assert not (here / "run").exists()
