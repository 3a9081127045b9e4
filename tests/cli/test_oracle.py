"""npple oracle: vectors out, verdicts back."""

import json
import sys
from pathlib import Path

import numpy as np

from npple.cli import main


# The oracle -------------------------------------------------------------------------------------

def test_the_oracle_passes_what_it_exported(here, run_json):
    options = ("--model", "ple", "--tasks", "3", "--levels", "2", "--inputs", "5")
    written = run_json("oracle", "export", *options, "--out", "ple.npz")
    found = run_json("oracle", "check", "ple.npz", "ple.npz")
    assert found["passed"] and found["compared"] == written["tensors"] > 300
    assert found["first_divergence"] is None and found["diagnosis"] == []
    assert not found["unknown"] and not found["missing"] and found["worst"]["passed"]


def test_a_bundle_and_results_go_through_json(here, run_json):
    run_json("oracle", "export", "--model", "cgc", "--out", "cgc.npz", "--also-json")
    arrays = json.loads(Path("cgc.json").read_text())["arrays"]
    results = {name: arrays[name] for name in arrays if name.startswith(("tower", "loss", "grad"))}
    Path("results.json").write_text(json.dumps(results))
    assert run_json("oracle", "check", "cgc.npz", "results.json")["passed"]


def test_the_oracle_names_the_first_wrong_tensor_and_the_mistake(here, capsys, run_json):
    run_json("oracle", "export", "--tasks", "a", "b=regression", "--out", "ple.npz")
    found = np.load("ple.npz", allow_pickle=False)
    summed = 8 * found["loss[a]"]  # over the 8 rows
    np.savez("results.npz", **{"tower/a": found["tower/a"], "loss[a]": summed})
    assert main(["oracle", "check", "ple.npz", "results.npz", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["compared"] == 2 and report["first_divergence"] == "loss[a]"
    assert ["loss-sum"] in [each["deviations"] for each in report["diagnosis"]]
    assert main(["oracle", "check", "ple.npz", "results.npz"]) == 1
    assert "a task's loss is summed over its rows" in capsys.readouterr().out


def test_the_oracle_refuses_what_holds_no_results(here, capsys):
    main(["oracle", "export", "--model", "cgc", "--out", "cgc.npz"])
    np.savez("other.npz", output=np.ones(8))
    for arguments, message in (
            (["check", "cgc.npz", "other.npz"], "nothing under a known name: output"),
            (["check", "cgc.npz", "none.npz"], "none.npz: no results file"),
            (["check", "none.npz", "other.npz"], "none.npz"),
            (["export"], "--out FILE or --all DIR"),
            (["export", "--out", "x.json", "--also-json"], "--out: x.json, expected another end"),
            (["export", "--tasks", "0", "--out", "x.npz"], "tasks: a positive integer up to")):
        capsys.readouterr()
        assert main(["oracle", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_an_onnx_file_without_the_packages_names_the_extra(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    main(["oracle", "export", "--model", "cgc", "--out", "cgc.npz"])
    assert main(["oracle", "check", "cgc.npz", "model.onnx"]) == 2
    assert "pip install 'npple[onnx]'" in capsys.readouterr().err


def test_a_mapping_is_for_onnx_files_alone(here, capsys):
    main(["oracle", "export", "--model", "cgc", "--out", "cgc.npz"])
    assert main(["oracle", "check", "cgc.npz", "cgc.npz", "--mapping", "m.json"]) == 2
    assert "--mapping: for an .onnx file alone" in capsys.readouterr().err
