"""At the edge of the floats: right where there is a right answer, refused by name where not."""

import json

import numpy as np
import pytest

import npple
from npple import ranking
from npple.cli import main
from npple.data import Dataset, synthetic
from npple.learn.training import Run, evaluate_model

TASKS = {"a": "binary", "b": "multiclass:3", "c": "regression"}
KINDS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def batch(dtype, rows=6):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 4)).astype(dtype), {
        "a": np.arange(rows) % 2, "b": np.arange(rows) % 3,
        "c": rng.normal(size=rows).astype(dtype)}


def finite(named):
    return all(np.isfinite(array).all() for array in named.values())


@KINDS
def test_gates_that_are_one_hot_pass_one_expert_on_and_have_no_gradient(dtype):
    model = npple.ple(4, TASKS, expert_units=(3,), activation="tanh", gate_bias=True)
    x, targets = batch(dtype)
    params = model.init(0, dtype)
    for name in params:
        if name.endswith("gate/layer1/bias"):
            params[name] = np.where(np.arange(params[name].size) == 1, 1e4, -1e4).astype(dtype)
    trace = model.forward(params, x)
    for task in TASKS:
        assert (trace[f"level2/{task}/gate/weights"] == [0, 1, 0, 0]).all()
        assert np.array_equal(trace[f"level2/{task}"], trace[f"level2/{task}/experts"][1])
    _, grads = model.loss_and_grads(params, x, targets)
    assert finite(grads)
    assert all((g == 0).all() for name, g in grads.items() if "/gate/" in name)


@KINDS
@pytest.mark.parametrize("sign", [-1, 1])
def test_logits_of_ten_thousand_give_exact_losses_probabilities_and_gradients(dtype, sign):
    model = npple.shared_bottom(1, {"a": "binary"}, expert_units=(1,), tower_units=(),
                                activation="identity")
    params = {name: np.full(p.shape, 0 if name.endswith("bias") else 1, dtype)
              for name, p in model.init(0, dtype).items()}
    x = np.full((2, 1), sign * 1e4, dtype)
    trace = model.forward(params, x)
    assert trace.predictions["a"].tolist() == [float(sign > 0)] * 2
    right, wrong = (model.loss_and_grads(params, x, {"a": np.full(2, y)})
                    for y in (sign > 0, sign < 0))
    assert right[0] == 0 and all((g == 0).all() for g in right[1].values())
    assert wrong[0] == 1e4 and wrong[1]["tower/a/layer1/bias"].tolist() == [sign]


def test_probabilities_that_round_to_0_and_1_can_be_ranked():
    scores = ranking.score({"vtr": [0.0, 1.0, 5e-324]}, {"vtr": 1.0}, [10.0, 10.0, 10.0])
    assert scores.tolist()[:2] == [0.0, np.log1p(10.0)] and 0 < scores[2] < 1e-300


def test_targets_of_one_class_leave_the_auc_undefined_and_the_loss_defined(tmp_path, monkeypatch,
                                                                           capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["age,clicked", *(f"{age},1" for age in range(40))]
    (tmp_path / "ones.csv").write_text("\n".join(lines) + "\n")
    command = ["train", "--data", "ones.csv", "--numeric", "age", "--binary", "clicked",
               "--epochs", "1"]
    assert main(command) == 0
    assert "auc undefined" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["validation"]["clicked"]
    assert metrics["auc"] is None and 0 < metrics["logloss"] < 2


@pytest.mark.parametrize("optimizer", [npple.SGD(rate=1e30), npple.Adam(rate=1e30)])
def test_training_that_overflows_keeps_what_was_before_and_names_step_and_tensor(tmp_path,
                                                                                optimizer):
    rows, kept = synthetic(64, inputs=4, seed=0), []
    model = npple.ple(4, dict.fromkeys(rows.targets, "regression"), expert_units=(3,))
    run = Run(model, optimizer, batch_size=16)
    with pytest.raises(npple.Diverged) as caught:
        run.train(rows, rows, 50, checkpoint=tmp_path / "c.npz",
                  on_batch=lambda run, batches: kept.append(run.params))
    message = str(caught.value)
    tensors = [*model.shapes, *model.forward(model.init(0), np.ones((1, 4))), "loss"]
    assert message.startswith(f"step {run.step + 1}: ") or f"after step {run.step}" in message
    assert any(name in message for name in tensors) and "is not finite" in message
    saved = Run.load(tmp_path / "c.npz")
    assert saved.step == run.step == len(kept) and finite(saved.params) and finite(saved.state)
    for name, before in kept[-1].items():
        assert np.array_equal(saved.params[name], before)


@KINDS
def test_a_loss_beyond_the_floats_is_refused_and_names_the_first_tensor(dtype):
    model = npple.ple(4, TASKS, expert_units=(3,), activation="identity")
    x, targets = batch(dtype)
    large, wide = np.finfo(dtype).max, "level1/c/experts/layer1/weight"
    params = {name: np.full(p.shape, large, dtype) if name == wide else p
              for name, p in model.init(0, dtype).items()}
    for call in (model.loss_and_grads, model.task_losses):
        with pytest.raises(npple.Diverged, match="level1/c/experts is not finite"):
            with np.errstate(all="ignore"):
                call(params, x, targets)


def test_no_metric_is_computed_of_outputs_beyond_the_floats():
    model = npple.shared_bottom(1, {"c": "regression"}, expert_units=(1,), tower_units=())
    params = {name: np.full(p.shape, 1e30, np.float32) for name, p in model.init(0).items()}
    rows = Dataset(np.ones((2, 1), np.float32), {"c": np.ones(2, np.float32)}, {})
    with pytest.raises(npple.Diverged, match="tower/c is not finite"), np.errstate(all="ignore"):
        evaluate_model(model, params, rows)


def test_no_valid_call_makes_a_text_of_an_array():
    """Which takes longer than the call: messages are for what is refused."""
    printed = []
    model = npple.ple(4, TASKS, expert_units=(3,))
    x, targets = batch(np.float32)
    data = Dataset(x, targets, {})
    with np.printoptions(formatter={"all": lambda number: printed.append(number) or "x"}):
        run = Run(model, batch_size=3)
        run.train(data, data, epochs=1)
        npple.gradcheck(model, run.params, x, targets).check()
        assert npple.isolation(model).verify().passed
        vectors = npple.oracle.make_vectors(model)
        assert npple.oracle.check(vectors, dict(vectors.expected)).passed
    assert not printed
