"""npple gradcheck: every architecture, and a gradient that is wrong."""

import npple
from npple.cli import main


# Proofs -----------------------------------------------------------------------------------------

def test_gradcheck_covers_all_architectures(run_json):
    results = run_json("gradcheck", "--model", "all", "--method", "directional")
    assert [result["model"] for result in results] == list(npple.ARCHITECTURES)
    assert all(result["passed"] and result["max_relative_error"] <= 1e-12 for result in results)


def test_gradcheck_of_one_architecture_prints_a_row_a_tensor(capsys):
    assert main(["gradcheck", "--model", "cgc", "--tasks", "2"]) == 0
    out = capsys.readouterr().out
    assert "level1/shared/experts/layer1/weight" in out and "passed" in out


def test_a_failed_gradcheck_has_status_1(capsys, monkeypatch):
    activations = npple.core.ops.ACTIVATIONS
    forward, _ = activations["relu"]
    monkeypatch.setitem(activations, "relu", (forward, lambda dy, on: dy * on * 1.001))
    assert main(["gradcheck", "--model", "ple"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_power_of_gradient_checks_in_json_and_as_a_table(run_json):
    cells = run_json("gradcheck", "--power", "--model", "single_task")
    assert {cell["method"] for cell in cells} == {"complex-step", "directional",
                                                  "central-differences"}
    assert all(cell["found"] < 0.1 for cell in cells) and len(cells) == 9


def test_rounding_alone_is_no_failure(run_json):
    result = run_json("gradcheck", "--model", "cgc", "--method", "longdouble")
    assert result["passed"] is None and result["max_relative_error"] < 1e-12
