"""npple agrees with an independent PyTorch implementation, to rounding, in float64.

The measure (`strategies.worst`): each element's error relative to the larger of the two values,
or, for elements below a thousandth of their array's largest entry, relative to that thousandth.
In random models a whole gradient may cancel to 1e-4 of its terms; there the array is all gradients
of the model side by side. In ordinary models each tensor is measured by itself.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple.core.ops import ACTIVATIONS
from strategies import (MODELS, arguments, assert_close, problem, random_target, random_x, seeds,
                        worst)

torch = pytest.importorskip("torch")

from peers import torch_models  # noqa: E402  (it imports torch)


@pytest.fixture(autouse=True, scope="module")
def one_thread_in_float64():
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def to_torch(model, x, targets, masks):
    """The same batch as tensors: floats in float64, classes as integers."""
    targets = {task: torch.tensor(y, dtype=torch.int64 if model.tasks[task].startswith("multi")
                                  else torch.float64) for task, y in targets.items()}
    masks = {task: torch.from_numpy(mask) for task, mask in masks.items()}
    x = {name: torch.from_numpy(v) for name, v in x.items()} if isinstance(x, dict) \
        else torch.from_numpy(x)
    return x, targets, masks


def both_gradients(name, kwargs, seed, rows):
    """Outputs and losses of the two sides compared; their gradients returned."""
    drawn = problem(npple.ARCHITECTURES[name](**kwargs), seed, rows)
    peer = torch_models.MODELS[name](**kwargs)
    torch_models.load(peer, drawn.params)
    x, targets, masks = to_torch(peer, *drawn.data)
    outputs = peer(x)
    loss, losses = torch_models.joint_loss(peer, outputs, targets, masks, drawn.weights)
    if loss.requires_grad:  # not where every mask is empty
        loss.backward()

    ours = drawn.model.forward(drawn.params, drawn.x).outputs
    assert_close(ours, {task: z.detach().numpy() for task, z in outputs.items()}, 1e-12)
    own = drawn.model.task_losses(drawn.params, *drawn.data)
    assert_close(own, {task: value.item() for task, value in losses.items()}, 1e-12)
    joint, grads = drawn.loss_and_grads()
    assert joint == pytest.approx(loss.item(), rel=1e-12)
    return grads, torch_models.read(peer, lambda p: p.grad)


@pytest.mark.parametrize("name", MODELS)
@given(st.data(), seeds, st.integers(1, 6))
def test_outputs_losses_and_gradients_agree(name, data, seed, rows):
    """With all task kinds, activations, masks, weights, embeddings, gate biases, hidden layers."""
    ours, theirs = both_gradients(name, data.draw(arguments(name)), seed, rows)
    assert ours.keys() == theirs.keys()
    assert worst(*(np.concatenate([side[key].ravel() for key in ours])
                   for side in (ours, theirs))) <= 1e-12


FIXED = {"inputs": {"n": "numeric", "m": "numeric", "c": (5, 3)},
         "tasks": {"vtr": "binary", "vcr": "regression", "shr": "multiclass:3"},
         "tower_units": (4,), "expert_units": (6, 5), "activation": "tanh"}
GATED = {"gate_units": (3,), "gate_bias": True}
COUNTS = {"task_experts": [{"vtr": 1, "vcr": 2, "shr": 3}], "shared_experts": [2]}
DEEP = {"levels": 2, "expert_units": [(6, 5), (4,)],
        "task_experts": [{"vtr": 1, "vcr": 2, "shr": 3}, {"vtr": 2, "vcr": 0, "shr": 1}],
        "shared_experts": [2, 1]}
TRAINED = {"single_task": FIXED, "shared_bottom": FIXED, "mmoe": FIXED | GATED | {"experts": 3},
           "cgc": FIXED | GATED | COUNTS, "ple": FIXED | GATED | DEEP,
           "ml_mmoe": FIXED | GATED | {"levels": 2, "expert_units": [(6, 5), (4,)],
                                       "experts": [3, 2]}}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_tensor_by_tensor(name, activation):
    kwargs = TRAINED[name] | {"activation": activation}
    assert_close(*both_gradients(name, kwargs, seed=0, rows=64), 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_ple_without_its_cut_agree_tensor_by_tensor(activation):
    kwargs = TRAINED["ple"] | {"activation": activation, "cut": False}
    assert_close(*both_gradients("ple", kwargs, seed=0, rows=64), 1e-12)


def train(name, optimizer, peers, steps=100):
    """Both sides by themselves, on the same fresh batch each step; some tasks miss some batches."""
    model = npple.ARCHITECTURES[name](**TRAINED[name])
    peer = torch_models.MODELS[name](**TRAINED[name])
    params = problem(model, 5, 1).params
    torch_models.load(peer, params)
    theirs, state = peers(peer.parameters()), optimizer.init(params)
    for parameter in peer.parameters():  # PyTorch passes over one whose gradient is still None
        parameter.grad = torch.zeros_like(parameter)
    rng = np.random.default_rng(11)
    for _ in range(steps):
        x = random_x(rng, model.table, 8)
        targets = {task: random_target(rng, kind, 8) for task, kind in model.tasks.items()}
        masks = {task: rng.random(8) < rng.choice([0, 0.5]) for task in ("vtr", "shr")}
        _, grads = model.loss_and_grads(params, x, targets, masks)
        params, state = optimizer.step(params, grads, state)
        x, targets, masks = to_torch(peer, x, targets, masks)
        theirs.zero_grad(set_to_none=False)
        loss, _ = torch_models.joint_loss(peer, peer(x), targets, masks, dict.fromkeys(targets, 1))
        loss.backward()
        theirs.step()
    return params, torch_models.read(peer)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("settings", [
    {}, {"weight_decay": 0.1}, {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3}])
def test_a_hundred_adam_steps_agree(name, settings):
    """With `torch.optim.Adam`, and with `AdamW` where there is weight decay."""
    def peers(parameters):
        same = {"lr": 0.01, "betas": (settings.get("beta1", 0.9), settings.get("beta2", 0.999)),
                "eps": settings.get("epsilon", 1e-8)}
        if "weight_decay" in settings:
            return torch.optim.AdamW(parameters, weight_decay=0.1, **same)
        return torch.optim.Adam(parameters, **same)

    assert_close(*train(name, npple.Adam(0.01, **settings), peers), 1e-10)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_hundred_sgd_steps_agree(weight_decay):
    """Decoupled decay times the rate and an L2 term in the gradient are the same for plain SGD."""
    assert_close(*train("ple", npple.SGD(0.05, weight_decay),
                        lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=weight_decay)), 1e-10)


@given(seeds, st.floats(1e-3, 10))
def test_clipping_agrees(seed, clip):
    """PyTorch divides by norm + 1e-6 where the definition has the norm; that apart, equal."""
    rng = np.random.default_rng(seed)
    grads = {name: rng.standard_normal(shape) for name, shape in (("w", (3, 2)), ("b", (2,)))}
    zeros = {name: np.zeros_like(g) for name, g in grads.items()}
    ours, _ = npple.SGD(rate=1.0, clip=clip).step(zeros, grads, {})
    tensors = [torch.nn.Parameter(torch.zeros(g.shape)) for g in grads.values()]
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(tensors, clip).item()
    fudge = (norm + 1e-6) / norm if norm + 1e-6 > clip else 1.0
    assert_close(ours, {name: -tensor.grad.numpy() * fudge
                        for name, tensor in zip(grads, tensors, strict=True)}, 1e-12)
