"""Files that version 0.1.0 saved keep their meaning; tests/stored/README.md says what they are."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from npple import oracle
from npple.cli import main
from npple.data import Dataset
from npple.training import Run, predict

STORED = Path(__file__).parent / "stored"
MODELS = ["ple", "ml_mmoe", "cross_stitch", "sluice", "snr_trans"]


@pytest.fixture(scope="module")
def numbers():
    """What 0.1.0 computed: numbers(prefix) -> the arrays below it by name."""
    with np.load(STORED / "numbers.npz") as file:
        arrays = dict(file)

    def below(prefix):
        return {name.removeprefix(prefix): array for name, array in arrays.items()
                if name.startswith(prefix)}
    return below


def stored(model, numbers):
    """A checkpoint's run, and the rows it was trained on."""
    x, targets, masks = (numbers(f"{model}/data/{part}/") for part in ("x", "targets", "masks"))
    return Run.load(STORED / f"{model}.npz"), Dataset(x.get("x", x), targets, masks)


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()])


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_stands_where_it_stood_and_predicts_the_same(numbers, model):
    run, data = stored(model, numbers)
    assert not run.meta_verified
    assert [run.step, run.epoch, run.batch] == numbers(f"{model}/")["steps"].tolist()
    expected = numbers(f"{model}/prediction/")
    found = predict(run.model, run.best, data)
    assert found.keys() == expected.keys()
    for task in expected:
        assert_allclose(found[task], expected[task], rtol=1e-12, err_msg=task)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_has_the_same_loss_and_gradients(numbers, model):
    run, data = stored(model, numbers)
    loss, grads = run.model.loss_and_grads(run.params, data.x, data.targets, data.masks,
                                           run.weights, numbers(f"{model}/noise/"))
    assert_allclose(loss, numbers(f"{model}/")["loss"], rtol=1e-12)
    assert_allclose(flat(grads), numbers(f"{model}/")["grads"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_resumes_with_its_decay_a_step(numbers, model):
    run, data = stored(model, numbers)
    run.train(data, data, epochs=4)
    expected = numbers(f"{model}/resumed/")
    assert_allclose([entry["score"] for entry in run.history], expected["scores"], rtol=1e-10)
    assert_allclose(flat(run.params), expected["params"], rtol=1e-9, atol=1e-11)


def test_the_command_line_predicts_and_resumes(numbers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.csv", "cli.npz"):
        shutil.copy(STORED / name, tmp_path)
    assert main(["predict", "--checkpoint", "cli.npz", "--data", "rows.csv", "--out", "p.csv"]) == 0
    (header, *found), (expected_header, *expected) = (
        csv.reader(path.read_text().splitlines()) for path in (Path("p.csv"), STORED / "cli.csv"))
    assert header == expected_header
    assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-5)
    Path("cli").mkdir()
    Path("cli.npz").rename("cli/checkpoint.npz")
    assert main(["train", "--data", "rows.csv", "--numeric", "age", "--categorical", "city",
                 "--binary", "clicked", "--regression", "spent", "--model", "cgc",
                 "--task-experts", "1", "--shared-experts", "1", "--expert-units", "2",
                 "--tower-units", "2", "--batch-size", "4", "--seed", "3", "--optimizer", "sgd",
                 "--rate", "0.1", "--out", "cli", "--epochs", "3", "--resume"]) == 0
    scores = [entry["score"] for entry in Run.load("cli/checkpoint.npz").history]
    assert_allclose(scores, numbers("cli/resumed/")["scores"], rtol=1e-5)


def test_a_bundle_has_its_tensors_and_todays_npple_computes_the_same():
    vectors = oracle.load(STORED / "vectors.npz")
    assert "not verified" in vectors.notes["meta"] and "not verified" in repr(vectors)
    with np.load(STORED / "vectors.npz") as file:
        for name, array in vectors.expected.items():
            assert_allclose(array, file[name], rtol=0, err_msg=name)
    given = vectors.case
    loss, grads = vectors.model.loss_and_grads(given.params, given.x, given.targets, given.masks,
                                               given.weights, given.noise)
    results = {"loss": loss} | {f"grad/{name}": grad for name, grad in grads.items()}
    report = oracle.check(vectors, results)
    assert not report.faults and report.lacking == ("tower/a",)
    assert len(report.rows) == len(results) and not report.unknown


def test_a_results_file_passes():
    report = oracle.check(oracle.load(STORED / "vectors.npz"), STORED / "results.npz").check()
    assert len(report.rows) > 10 and not report.unknown
