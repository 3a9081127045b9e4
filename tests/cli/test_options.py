"""Options of models: counts per task and level, and what is no count."""

import json

import pytest

import npple
from npple.cli import main
from npple.learn.training import Run

SMALL = ["train", "--data", "synthetic", "--rows", "100", "--inputs", "4", "--epochs", "1",
         "--out", "run"]
TASKS = {"task1": "regression", "task2": "regression"}
GIVEN = {
    "a number": (["--task-experts", "3"], {"task_experts": 3}),
    "by level": (["--task-experts", "3", "1"], {"task_experts": [3, 1]}),
    "by task": (["--task-experts", "task1=3", "task2=1"],
                {"task_experts": {"task1": 3, "task2": 1}}),
    "by task and level": (["--task-experts", "task1=3,task2=1", "2"],
                          {"task_experts": [{"task1": 3, "task2": 1}, 2]}),
    "shared by level": (["--shared-experts", "3", "1"], {"shared_experts": [3, 1]}),
    "widths": (["--expert-units", "6", "5"], {"expert_units": (6, 5)}),
    "widths by level": (["--expert-units", "6", "5", "/", "4"],
                        {"expert_units": ((6, 5), (4,))}),
}


@pytest.mark.parametrize("flags, options", GIVEN.values(), ids=GIVEN)
def test_counts_are_those_of_the_builder(here, capsys, flags, options):
    assert main([*SMALL, *flags]) == 0
    expected = npple.ple(4, TASKS, **options)
    assert Run.load("run/checkpoint.npz").model == expected != npple.ple(4, TASKS)


def test_ml_mmoe_takes_experts_by_level(here, capsys):
    assert main([*SMALL, "--model", "ml_mmoe", "--experts", "4", "2"]) == 0
    assert Run.load("run/checkpoint.npz").model == npple.ml_mmoe(4, TASKS, experts=[4, 2])


@pytest.mark.parametrize("flags, said", [
    (["--task-experts", "many"], "--task-experts: 'many', expected an integer"),
    (["--task-experts", "task1=x", "task2=1"], "--task-experts: 'x', expected an integer"),
    (["--task-experts", "task1=1", "task1=2"], "names a task twice"),
    (["--task-weight", "task1=1", "task1=2"], "--task-weight: 'task1' is named twice"),
    (["--rates", "*=1", "*=2"], "--rates: '*' is named twice"),
    (["--task-experts", "taks1=1", "task2=2"], "taks1"),
    (["--task-experts", "1", "2", "3"], "level"),
    (["--expert-units", "8", "/"], "expert"), (["--expert-units", "x"], "expected an integer")])
def test_what_is_no_count_is_one_line_and_status_2(here, capsys, flags, said):
    assert main([*SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and not [*here.iterdir()]


def test_a_name_without_a_number_is_one_line_that_tells_what_is_needed(here, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--task-weight", "task1="])
    assert "--task-weight: 'task1=', expected NAME=NUMBER" in capsys.readouterr().err


def test_a_drawing_of_a_checkpoint_is_of_its_model(here, capsys, run_json):
    run_json(*SMALL, "--task-experts", "task1=3", "task2=1")
    found = run_json("draw", "--checkpoint", "run/checkpoint.npz")
    drawn = npple.draw.diagram(npple.ple(4, TASKS, task_experts={"task1": 3, "task2": 1}))
    assert found == json.loads(json.dumps({"model": "run/checkpoint.npz", **drawn.to_dict()}))
    assert main(["draw", "--checkpoint", "run/checkpoint.npz", "--out", "p.svg"]) == 0
    assert (here / "p.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("flags, said", [(["--levels", "3"], "no options of models"),
                                         (["--html", "p.html"], "--html: "),
                                         (["--out", "run/checkpoint.npz"], "--out: ")])
def test_a_drawing_of_a_checkpoint_takes_no_other_model(here, capsys, flags, said):
    assert main(SMALL) == 0
    assert main(["draw", "--checkpoint", "run/checkpoint.npz", *flags]) == 2
    assert said in capsys.readouterr().err


def test_isolation_of_a_checkpoint_needs_no_rows(here, capsys, run_json):
    run_json(*SMALL)
    found = run_json("isolation", "--checkpoint", "run/checkpoint.npz")
    assert found["matrix"]["task1"]["level2/task2/experts"] == "isolated"
    assert all(found["verified"].values())
    assert main(["isolation", "--data", "rows.csv"]) == 2
    assert "--data: rows are for a --checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command, flags", [
    ("gradcheck --power", ["--tasks 4", "--levels 3", "--method directional"]),
    ("isolation --checkpoint F", ["--model ple", "--tasks 4", "--levels 3"]),
    ("isolation", ["--rows 3", "--delimiter ;", "--columns a b", "--encoding latin-1"]),
    ("draw --checkpoint F", ["--model cgc", "--tasks a", "--inputs 3"]),
    ("draw --html F", ["--task vtr"]),
    ("oracle export --all F", ["--model cgc", "--inputs 3", "--tasks 4", "--batch 3", "--seed 1",
                               "--dtype float32"]),
    ("compare --rates 1 2", ["--rate 3"]),
    ("compare --dask tcp://a:1", ["--workers 2"]),
    ("claims trainability --dask tcp://a:1", ["--workers 2"])])
def test_an_option_that_another_leaves_without_use_is_refused(here, capsys, command, flags):
    """Before anything is read or computed."""
    for flag in flags:
        assert main([*command.split(), *flag.split()]) == 2
        error = capsys.readouterr().err
        assert f"{flag.split()[0]}: of no use " in error and error.count("\n") == 1
    assert not [*here.iterdir()]


def test_a_suite_takes_no_options_of_models(here, capsys):
    assert main(["oracle", "export", "--all", "suite", "--levels", "3"]) == 2
    assert "--all: the models of the suite" in capsys.readouterr().err and not [*here.iterdir()]
