"""PLE's CGC_Layer and MMoE_Layer of reczoo/FuxiCTR, with the towers of its models."""

import sys
from pathlib import Path
from typing import Any

import checkout

import npple
from npple.oracle import ModuleMapping, Report, check_module, linear, make_vectors, moved, stacked

TASKS = {"click": "binary", "buy": "binary"}
WIDTH, UNITS = 6, [6, 6]
OPTIONS = {"inputs": WIDTH, "tasks": TASKS, "expert_units": UNITS, "tower_units": (3,),
           "gate_bias": True}
HIDDEN = {"hidden_activations": "ReLU", "net_dropout": 0, "batch_norm": False}


def levels(path: Path, name: str) -> tuple[Any, Any]:
    """The layer of a model file, and the package's MLP_Block."""
    sys.path.insert(0, str(path))
    module = checkout.load(f"fuxictr_{name}", path / f"model_zoo/multitask/{name}/src/{name}.py")
    return getattr(module, "CGC_Layer" if name == "PLE" else "MMoE_Layer"), module.MLP_Block


def asked(layers: list[Any], block: Any, model: npple.Network, experts: dict[str, list[str]],
          gates: dict[str, str], idle: tuple[str, ...] = ()) -> Report:
    """`layers` one after the other, then the towers; `experts`, `gates`: paths of MLP_Blocks."""
    import torch

    class Net(torch.nn.Module):
        """The lines of its models' `forward` after the embeddings."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(layers)
            self.tower = torch.nn.ModuleList(
                block(input_dim=WIDTH, output_dim=1, hidden_units=[3]) for _ in TASKS)

        def forward(self, x: Any) -> Any:
            now = [x] * (len(TASKS) + 1) if len(gates) != len(TASKS) else x
            for layer in self.layers:
                now = layer(now)
            return [tower(each) for tower, each in zip(self.tower, now)]

    parameters: dict[str, Any] = {}
    tensors: dict[str, Any] = {name: stacked(*paths) for name, paths in experts.items()}
    for name, paths in experts.items():
        for i in (0, 1):
            parameters |= linear(f"{name}/layer{i + 1}", [f"{path}.mlp.{2 * i}" for path in paths])
    for name, where in gates.items():
        parameters |= linear(f"{name}/layer1", f"{where}.mlp.0")
    for i, task in enumerate(TASKS):
        parameters |= linear(f"tower/{task}/layer1", f"tower.{i}.mlp.0")
        parameters |= linear(f"tower/{task}/layer2", f"tower.{i}.mlp.2")
        tensors[f"tower/{task}"] = moved(lambda z: z[:, 0], f"return[{i}]")
    mapping = ModuleMapping(parameters, tensors, idle, ("level1/shared/gate/*",))
    return check_module(make_vectors(model), Net().double(), mapping)


def ple(path: Path) -> Report:
    """Its shared gate has a weight for each shared expert, and none for those of the tasks."""
    import torch
    torch.manual_seed(0)
    layer, block = levels(path, "PLE")
    layers = [layer(2, 2, len(TASKS), WIDTH, UNITS, [], **HIDDEN) for _ in (0, 1)]
    experts, gates = {}, {}
    for level in (0, 1):
        for i, stream in enumerate((*TASKS, "shared")):
            at, where = f"level{level + 1}/{stream}", f"layers.{level}"
            folder = f"specific_experts.{i}" if stream in TASKS else "shared_experts"
            experts[f"{at}/experts"] = [f"{where}.{folder}.{k}" for k in (0, 1)]
            if stream in TASKS or level == 0:
                gates[f"{at}/gate"] = f"{where}.gate.{i}"
    model = npple.ple(levels=2, task_experts=2, shared_experts=2, **OPTIONS)
    return asked(layers, block, model, experts, gates, ("layers.1.gate.2.*",))


def mmoe(path: Path) -> Report:
    import torch
    torch.manual_seed(0)
    layer, block = levels(path, "MMoE")
    made = layer(3, len(TASKS), WIDTH, UNITS, [], **HIDDEN)
    return asked([made], block, npple.mmoe(experts=3, **OPTIONS),
                 {"level1/shared/experts": [f"layers.0.experts.{k}" for k in range(3)]},
                 {f"level1/{task}/gate": f"layers.0.gate.{i}" for i, task in enumerate(TASKS)})


def cases(path: Path) -> checkout.Cases:
    yield "PLE", lambda: ple(path)
    yield "MMoE", lambda: mmoe(path)


EXPECTED = {"0245987": {"PLE": ("failed", ("shared-gate-shared-only",)),
                        "MMoE": checkout.NOTHING}}

if __name__ == "__main__":
    sys.exit(checkout.main(
        "reczoo/FuxiCTR", ["fuxictr/pytorch/layers/blocks/mlp_block.py",
                           *(f"model_zoo/multitask/{name}/src/{name}.py"
                             for name in ("PLE", "MMoE"))], cases, EXPECTED))
