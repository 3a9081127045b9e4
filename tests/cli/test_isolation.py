"""npple isolation: of random models, of a checkpoint, as a picture."""

import pytest

from npple.cli import main


def test_isolation_in_json(run_json):
    result = run_json("isolation", "--model", "ple", "--tasks", "2", "--levels", "3")
    assert set(result) == {"model", "tasks", "groups", "matrix", "verified"}
    assert result["matrix"]["task1"]["level2/task2/experts"] == "reached"
    assert result["matrix"]["task1"]["level3/task2/experts"] == "isolated"
    assert all(result["verified"].values())


def test_isolation_of_a_trained_checkpoint(census, capsys, run_json):
    arguments = ["isolation", "--checkpoint", census.checkpoint, "--data", "census"]
    assert run_json(*arguments)["tasks"] == ["income", "marital"]
    assert main(arguments) == 0
    assert "cosine" in capsys.readouterr().out


def test_the_isolation_plot_is_a_picture_of_one_model(here, capsys):
    pytest.importorskip("matplotlib")
    assert main(["isolation", "--model", "ple", "--plot", "p.svg"]) == 0
    assert (here / "p.svg").read_text().startswith("<?xml")
    assert main(["isolation", "--plot", "all.svg"]) == 2
