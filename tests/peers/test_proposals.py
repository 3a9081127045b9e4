"""Mappings found by probing real modules: hand-written ones, and those of three packages."""

import itertools
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

import npple
from npple.oracle import check_module, make_vectors, suggest
from npple.oracle.mappings import as_it_is
from npple.oracle.modules import norms_of
from peers import test_adapters

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", test_adapters.KWARGS)
def test_of_a_hand_written_module_all_is_found_and_it_passes(name):
    module, model, _ = test_adapters.peer(name)
    proposal = found(module, model, dict)
    assert not proposal.missing and not proposal.ambiguous
    report = check_module(make_vectors(model), module.double(), proposal.mapping)
    assert report.verdict == "passed"


def renamed(module, norms):
    """A module's arrays under names that say nothing, shuffled, what runs it, and its norms."""
    from torch.func import functional_call
    own = {name: each for name, each in module.state_dict().items() if each.is_floating_point()}
    order = np.random.default_rng(0).permutation(len(own))
    names = {f"w{i}": [*own][i] for i in order}

    def run(weights, x):
        out = functional_call(module, {names[name]: w for name, w in weights.items()}, (x,))
        return out if isinstance(out, dict) else {"y": out}

    back = {path: name for name, path in names.items()}
    norms = {back[norm.weight]: replace(norm, **{
        kind: back[name] for kind, name in vars(norm).items() if name in back}) for norm in norms}
    return {name: own[path] for name, path in names.items()}, run, norms


def found(module, model, feed):
    """The proposal for a module; that for its weights under other names is as complete."""
    proposal = suggest(module, model, feed=feed)
    weights, run, norms = renamed(module, norms_of(module, proposal.mapping))
    blind = suggest(weights, model, run, feed=feed, norms=norms)
    assert proposal.certain and blind.certain, f"{proposal}\n{blind}"
    assert blind.mapping.parameters.keys() == proposal.mapping.parameters.keys()
    assert blind.deviation == proposal.deviation
    return proposal


def test_of_deepctr_torch_all_is_found_under_any_names():
    test_deepctr = pytest.importorskip("peers.test_deepctr", exc_type=ImportError)
    from peers.frameworks import deepctr_torch
    for name, make in test_deepctr.CORRECT.items():
        model, mapping = deepctr_torch(make().eval())
        proposal = found(make().eval(), model, mapping.feed)
        assert not proposal.deviation, name
        assert {*mapping.parameters} == {*proposal.mapping.parameters}, name


def test_of_torch_rechub_all_is_found_its_normalisations_folded():
    test_rechub = pytest.importorskip("peers.test_rechub", exc_type=ImportError)
    from peers.frameworks import torch_rechub
    for name, make in test_rechub.CORRECT.items():
        module = make().eval()
        model, mapping = torch_rechub(module)
        proposal = found(module, model, mapping.feed)
        assert not proposal.deviation, name
        assert {*mapping.parameters} == {*proposal.mapping.parameters}, name


def test_the_gate_bias_of_torch_rechub_is_recognised():
    test_rechub = pytest.importorskip("peers.test_rechub", exc_type=ImportError)
    from peers.frameworks import torch_rechub
    module = test_rechub.ple().eval()
    proposal = suggest(module, test_rechub.model(gate_bias=False),
                       feed=torch_rechub(module, test_rechub.TASKS)[1].feed)
    assert proposal.certain and proposal.deviation == "gate-bias"


def test_of_libmtl_cgc_all_is_found_with_its_conventions():
    """Shared experts come first in its gates, which have a bias."""
    missing = {name: mock.Mock() for name in ("torchvision", "torchvision.models",
                                              "torchvision.models.utils")}
    with mock.patch.dict(sys.modules, missing):  # for pretrained models, which are not used here
        architecture = pytest.importorskip("LibMTL.architecture", exc_type=ImportError)
    tasks = ["click", "dwell"]

    def encoder():
        return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())

    decoders = torch.nn.ModuleDict({task: torch.nn.Linear(5, 1) for task in tasks})
    module = architecture.CGC(tasks, encoder, decoders, False, False, "cpu", img_size=[6],
                              num_experts=[1, 2, 2])
    model = npple.cgc(6, dict(zip(tasks, ("binary", "regression"))), task_experts=2,
                      shared_experts=1, expert_units=(5,), tower_units=())
    proposal = found(module, model, as_it_is)
    assert proposal.deviation == "shared-first and gate-bias"
    assert all(why == "no output depends on it" for why in proposal.unplaced.values())


def test_it_takes_the_time_of_a_few_hundred_runs():
    module, model, _ = test_adapters.peer("ple")
    calls = itertools.count()
    module.register_forward_hook(lambda *_: next(calls))
    suggest(module, model, feed=dict)
    assert next(calls) < 1000
