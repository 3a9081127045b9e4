"""What LibMTL 1.1.5 computes: the verdicts of docs/conformance.md."""

import sys
from unittest import mock

import pytest

import npple
from npple.oracle import (ModuleMapping, check_module, concatenated, linear, make_vectors, moved,
                          sliced, stacked, transposed)
from peers.shown import shown

torch = pytest.importorskip("torch")
missing = {"torchvision", "torchvision.models", "torchvision.models.utils"} - {*sys.modules}
sys.modules |= {name: mock.Mock() for name in missing}  # for pretrained models, not used here
architecture = pytest.importorskip("LibMTL.architecture", exc_type=ImportError)
for absent in missing:
    del sys.modules[absent]

TASKS = {"click": "binary", "dwell": "regression"}
WIDTH = 5
SIZES = {"inputs": WIDTH, "tasks": TASKS, "expert_units": (WIDTH,), "tower_units": ()}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def layer():
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())


class FiveLayers(torch.nn.Module):
    """By the names of a ResNet, which LibMTL's PLE takes apart into its five levels."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = (*layer(), torch.nn.ReLU(),
                                                         torch.nn.Identity())
        self.layer1, self.layer2, self.layer3, self.layer4 = (layer() for _ in range(4))


def made(kind, encoder, experts):
    decoders = torch.nn.ModuleDict({task: torch.nn.Linear(WIDTH, 1) for task in TASKS})
    return getattr(architecture, kind)([*TASKS], encoder, decoders, False, False, "cpu",
                                       img_size=[WIDTH], num_experts=experts).double()


def own_first(path, shared):
    """A gate whose weights (experts, in) begin with the shared experts: the specific ones first."""
    def turned(kind):
        return concatenated(sliced(f"{path}.{kind}", (shared, 99)),
                            sliced(f"{path}.{kind}", (0, shared)))
    return transposed(turned("weight")), turned("bias")


def ends():
    parameters, tensors = {}, {}
    for task in TASKS:
        parameters |= linear(f"tower/{task}/layer1", f"decoders.{task}")
        tensors[f"tower/{task}"] = moved(lambda z: z[:, 0], f"return[{task}]")
    return parameters, tensors


def test_mmoe_is_the_papers_with_a_gate_bias():
    module = made("MMoE", layer, [3])
    parameters, tensors = ends()
    experts = [f"experts_shared.{k}" for k in range(3)]
    parameters |= linear("level1/shared/experts/layer1", [f"{path}.0" for path in experts])
    for task in TASKS:
        parameters |= linear(f"level1/{task}/gate/layer1", f"gate_specific.{task}.0")
    tensors["level1/shared/experts"] = stacked(*experts)
    model = npple.mmoe(experts=3, gate_bias=True, **SIZES)
    report = shown(check_module(make_vectors(model), module, ModuleMapping(parameters, tensors)))
    assert report.verdict == "passed"


def test_cgc_is_the_papers_with_a_gate_bias_its_shared_experts_first():
    module = made("CGC", layer, [1, 2, 2])
    parameters, tensors = ends()
    for stream in (*TASKS, "shared"):
        paths = [f"experts_specific.{stream}.{k}" for k in (0, 1)]
        paths = paths if stream in TASKS else ["experts_shared.0"]
        parameters |= linear(f"level1/{stream}/experts/layer1", [f"{path}.0" for path in paths])
        tensors[f"level1/{stream}/experts"] = stacked(*paths)
    for task in TASKS:
        gate = f"level1/{task}/gate/layer1"
        parameters[f"{gate}/weight"], parameters[f"{gate}/bias"] = own_first(
            f"gate_specific.{task}.0", 1)
    model = npple.cgc(task_experts=2, shared_experts=1, gate_bias=True, **SIZES)
    report = shown(check_module(make_vectors(model), module, ModuleMapping(parameters, tensors)))
    assert report.verdict == "passed"


def test_ple_runs_the_shared_experts_on_each_tasks_own_representation():
    """Of the shared gates, which it does not have, no loss depends."""
    module = made("PLE", FiveLayers, [1, 1, 1])
    parameters, tensors = ends()
    for level in range(5):
        for stream in (*TASKS, "shared"):
            part = (f"specific_layer.{level}.{stream}" if stream in TASKS
                    else f"shared_layer.{level}")
            parameters |= linear(f"level{level + 1}/{stream}/experts/layer1",
                                 [f"encoder.{part}.0.0"])
        for task in TASKS:
            gate = f"level{level + 1}/{task}/gate/layer1"
            parameters[f"{gate}/weight"], parameters[f"{gate}/bias"] = own_first(
                f"encoder.gate_specific.{task}.{level}.0", 1)
    model = npple.ple(levels=5, task_experts=1, shared_experts=1, gate_bias=True, **SIZES)
    report = shown(check_module(make_vectors(model), module,
                                ModuleMapping(parameters, tensors, own=("*shared/gate*",))))
    assert report.verdict == "failed"
    assert report.diagnosis[0].names == ("shared-reads-tasks",)
