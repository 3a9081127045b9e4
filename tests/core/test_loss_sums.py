"""A task's loss is the mean over its rows, whatever the blocks, and the same from both calls."""

import math

import numpy as np
import pytest

import npple
from npple.core import blocks

MODEL = npple.single_task(2, {"a": "regression", "b": "regression"}, expert_units=(2,),
                          tower_units=())


def batch(dtype, rows=20_000):
    """Features and targets with outliers, and a mask."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2)).astype(dtype)
    targets = {task: (rng.normal(size=rows) * np.where(rng.random(rows) < 1e-3, 1e4, 1)).astype(
        dtype) for task in MODEL.tasks}
    return MODEL.init(0, dtype), x, targets, {"b": rng.random(rows) < 0.3}


def exact_losses(params, x, targets, masks):
    outputs = MODEL.forward(params, x).outputs
    return {task: math.fsum(((outputs[task] - y) ** 2)[masks.get(task, slice(None))].tolist())
            / (masks[task].sum() if task in masks else len(y)) for task, y in targets.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", [64, 512, 10**6])
def test_a_loss_is_the_exact_mean_to_a_few_eps_whatever_the_blocks(monkeypatch, dtype, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    found, exact = MODEL.task_losses(*batch(dtype)), exact_losses(*batch(dtype))
    for task, loss in found.items():
        assert abs(loss - exact[task]) <= 4 * np.finfo(dtype).eps * exact[task]


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble", "complex128"])
@pytest.mark.parametrize("block", [64, 10**6])
def test_both_calls_give_the_same_bits_for_a_task(monkeypatch, dtype, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    params, x, targets, masks = batch("float64", 2000)
    real = np.zeros(0, dtype).real.dtype
    arguments = ({name: p.astype(dtype) for name, p in params.items()}, x.astype(real),
                 {task: y.astype(real) for task, y in targets.items()}, masks)
    for task, loss in MODEL.task_losses(*arguments).items():
        alone = {other: float(other == task) for other in MODEL.tasks}
        assert MODEL.loss_and_grads(*arguments, alone)[0] == loss
