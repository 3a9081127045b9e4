"""Makes the files of this folder; needs npple 0.1.0, see README.md: `python make.py`."""

import shutil
from pathlib import Path

import numpy as np

import npple
from npple import oracle
from npple.cli import main
from npple.data import Dataset
from npple.training import Run, predict

TASKS = {"a": "binary", "b": "regression"}
SMALL = {"expert_units": (2,), "tower_units": ()}
COLUMNS = {"age": "numeric", "city": (4, 2)}
MODELS = {
    "ple": npple.ple(COLUMNS, {"b": "regression", "c": "multiclass:3"}, levels=1, task_experts=1,
                     shared_experts=1, gate_bias=True, **SMALL),
    "ml_mmoe": npple.ml_mmoe(3, TASKS, levels=2, task_experts=1, shared_experts=1, **SMALL),
    "cross_stitch": npple.cross_stitch(3, TASKS, levels=1, **SMALL),
    "sluice": npple.sluice(3, TASKS, levels=2, orthogonality=0.5, **SMALL),
    "snr_trans": npple.snr_trans(3, TASKS, levels=1, experts=2, l0=0.1, **SMALL),
}
CLI = ["--data", "rows.csv", "--numeric", "age", "--categorical", "city", "--binary", "clicked",
       "--regression", "spent", "--model", "cgc", "--task-experts", "1", "--shared-experts", "1",
       "--expert-units", "2", "--tower-units", "2", "--batch-size", "4", "--seed", "3",
       "--optimizer", "sgd", "--rate", "0.1", "--out", "cli"]


def rows(model, seed, count=12):
    """Random rows for a model; task b has labels for some of them only."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    if model.table.embeddings:
        x = {"age": x[:, 0], "city": rng.integers(0, 4, count)}
    drawn = {"a": rng.integers(0, 2, count), "b": rng.normal(size=count),
             "c": rng.integers(0, 3, count)}
    return Dataset(x, {task: drawn[task] for task in model.tasks}, {"b": rng.random(count) < 0.7})


def given(data):
    """A data set as named arrays."""
    x = data.x if isinstance(data.x, dict) else {"x": data.x}
    return ({f"x/{name}": values for name, values in x.items()}
            | {f"targets/{name}": values for name, values in data.targets.items()}
            | {f"masks/{name}": values for name, values in data.masks.items()})


def checkpoint(name, model):
    """One run of two epochs and a half, saved; then what version 0.1.0 made of the file."""
    data, path = rows(model, 1), f"{name}.npz"
    optimizer = npple.Adam(0.01) if name == "ple" else npple.SGD(0.05)
    run = Run(model, optimizer, batch_size=4, seed=7, decay={"b": 0.9}, dtype="float64",
              weights=dict.fromkeys(model.tasks, 1.0) | {"b": 0.5}, skip_absent=name == "ple")
    try:
        run.train(data, data, epochs=3, checkpoint=path, stop=lambda: run.step == 7)
    except npple.errors.Stopped:
        pass
    run = Run.load(path)
    noise = model.noise(np.random.default_rng(5), "float64")
    loss, grads = model.loss_and_grads(run.params, data.x, data.targets, data.masks, run.weights,
                                       noise)
    numbers = {f"data/{key}": value for key, value in given(data).items()}
    numbers |= {f"prediction/{task}": value
                for task, value in predict(model, run.best, data).items()}
    numbers |= {f"noise/{key}": value for key, value in noise.items()}
    numbers |= {"loss": loss, "grads": flat(grads), "steps": [run.step, run.epoch, run.batch]}
    run.train(data, data, epochs=4)
    numbers |= {"resumed/params": flat(run.params),
                "resumed/scores": [entry["score"] for entry in run.history]}
    return {f"{name}/{key}": value for key, value in numbers.items()}


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()])


def from_the_command_line():
    """A checkpoint with a schema, its predictions, and the scores with one more epoch."""
    rng = np.random.default_rng(2)
    lines = ["age,city,clicked,spent"] + [
        f"{rng.integers(18, 80)},{rng.choice(['Rome', 'Oslo', 'Lima'])},{rng.integers(0, 2)},"
        f"{rng.normal():.3f}" for _ in range(40)]
    Path("rows.csv").write_text("\n".join(lines) + "\n")
    main(["train", *CLI, "--epochs", "2"])
    shutil.copy("cli/checkpoint.npz", "cli.npz")
    main(["predict", "--checkpoint", "cli.npz", "--data", "rows.csv", "--out", "cli.csv"])
    main(["train", *CLI, "--epochs", "3", "--resume"])
    run = Run.load("cli/checkpoint.npz")
    shutil.rmtree("cli")
    return {"cli/resumed/scores": [entry["score"] for entry in run.history]}


def bundle():
    """Test vectors, and a results file that holds some of them and passes."""
    model = npple.ple(2, {"a": "binary"}, levels=1, task_experts=1, shared_experts=1, **SMALL)
    vectors = oracle.make_vectors(model, seed=4, batch=3)
    vectors.save("vectors.npz")
    results = {name: np.asarray(value) for name, value in vectors.expected.items()
               if name.startswith(("prediction", "loss", "grad/"))}
    assert oracle.check(vectors, results).passed
    np.savez_compressed("results.npz", **results)


if __name__ == "__main__":
    assert npple.__version__ == "0.1.0"
    found = from_the_command_line()
    for each, network in MODELS.items():
        found |= checkpoint(each, network)
    bundle()
    np.savez_compressed("numbers.npz", **found)
