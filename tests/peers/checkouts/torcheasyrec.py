"""The multi-task modules of alibaba/TorchEasyRec: ExtractionNet (levels of PLE), and MMoE.

Of the package only `tzrec/modules` is run: its model classes need its protocol buffers, its data
pipeline and torchrec. The towers are TaskTower, as in its `models/ple.py`.
"""

import logging
import sys
import types
from pathlib import Path
from typing import Any

import checkout

import npple
from npple.oracle import ModuleMapping, Report, check_module, linear, make_vectors, moved, stacked

TASKS = {"click": "binary", "buy": "binary"}
WIDTH, UNITS = 6, [(5, 6), (4,)]
OPTIONS = {"inputs": WIDTH, "tasks": TASKS, "tower_units": (3,), "gate_bias": True}


def modules(path: Path) -> tuple[Any, Any, Any]:
    """Three of its files; of what they import, a logger and two functions stand in."""
    for name in ("tzrec", "tzrec.modules", "tzrec.utils", "tzrec.ops"):
        checkout.package(name, path / name.replace(".", "/"))
    sys.modules["tzrec.ops"].Kernel = None  # kernels for sequences, not used here
    logger = types.ModuleType("tzrec.utils.logging_util")
    logger.logger = logging.getLogger("tzrec")
    sys.modules[logger.__name__] = logger
    from tzrec.modules import extraction_net, mmoe, task_tower
    return extraction_net.ExtractionNet, mmoe.MMoE, task_tower.TaskTower


def ple(path: Path) -> Report:
    import torch
    torch.manual_seed(0)
    Net, _, Tower = modules(path)

    class PLE(torch.nn.Module):
        """The loop of `tzrec/models/ple.py` over the levels."""

        def __init__(self) -> None:
            super().__init__()
            self.nets, width = torch.nn.ModuleList(), WIDTH
            for units in UNITS:
                net = {"hidden_units": list(units)}
                self.nets.append(Net([width] * len(TASKS), width, "", 1, 2, net, net,
                                     final_flag=units == UNITS[-1]))
                width = units[-1]
            self.towers = torch.nn.ModuleList(
                Tower(width, 1, {"hidden_units": [3]}) for _ in TASKS)

        def forward(self, x: Any) -> Any:
            features, shared = [x] * len(TASKS), x
            for net in self.nets:
                features, shared = net(features, shared)
            return [tower(each)[:, 0] for tower, each in zip(self.towers, features)]

    experts, gates = {}, {}
    for level in (0, 1):
        for i, stream in enumerate((*TASKS, "shared")):
            at, own = f"level{level + 1}/{stream}", stream != "shared"
            experts[f"{at}/experts"] = ([f"nets.{level}._task_layers.{i}.{k}" for k in (0, 1)]
                                        if own else [f"nets.{level}._shared_layers.0"])
            if own or level == 0:
                gates[f"{at}/gate"] = (f"nets.{level}._task_gates.{i}" if own
                                       else f"nets.{level}._shared_gate")
    model = npple.ple(levels=2, task_experts=2, shared_experts=1, expert_units=UNITS, **OPTIONS)
    return asked(PLE(), model, experts, gates)


def mmoe(path: Path) -> Report:
    import torch
    torch.manual_seed(0)
    _, Net, Tower = modules(path)

    class MMoE(torch.nn.Module):
        """The lines of `tzrec/models/mmoe.py`."""

        def __init__(self) -> None:
            super().__init__()
            self.net = Net(WIDTH, {"hidden_units": [5, 4]}, 3, len(TASKS))
            self.towers = torch.nn.ModuleList(Tower(4, 1, {"hidden_units": [3]}) for _ in TASKS)

        def forward(self, x: Any) -> Any:
            return [tower(each)[:, 0] for tower, each in zip(self.towers, self.net(x))]

    model = npple.mmoe(experts=3, expert_units=(5, 4), **OPTIONS)
    return asked(MMoE(), model,
                 {"level1/shared/experts": [f"net.expert_mlps.{k}" for k in range(3)]},
                 {f"level1/{task}/gate": f"net.gate_finals.{i}" for i, task in enumerate(TASKS)})


def asked(module: Any, model: npple.Network, experts: dict[str, list[str]],
          gates: dict[str, str]) -> Report:
    """`experts`: a group's name -> the paths of its MLPs; `gates`: likewise, of linear layers."""
    module = module.double()
    parameters: dict[str, Any] = {}
    tensors: dict[str, Any] = {name: stacked(*paths) for name, paths in experts.items()}
    mlps = experts | {f"tower/{task}": [f"towers.{i}.tower_mlp"] for i, task in enumerate(TASKS)}
    for name, paths in mlps.items():
        for layer in range(len(module.get_submodule(paths[0]).mlp)):
            where = [f"{path}.mlp.{layer}.perceptron.0" for path in paths]
            parameters |= linear(f"{name}/layer{layer + 1}",
                                 where if name in experts else where[0])
    for name, path in gates.items():
        parameters |= linear(f"{name}/layer1", path)
        tensors[f"{name}/logits"] = path
    for i, task in enumerate(TASKS):
        parameters |= linear(f"tower/{task}/layer2", f"towers.{i}.linear")
        tensors[f"tower/{task}"] = moved(lambda z: z[:, 0], f"towers.{i}")
    return check_module(make_vectors(model), module, ModuleMapping(parameters, tensors))


def cases(path: Path) -> checkout.Cases:
    yield "PLE", lambda: ple(path)
    yield "MMoE", lambda: mmoe(path)


EXPECTED = {"54cac31": {"PLE": checkout.NOTHING, "MMoE": checkout.NOTHING}}

if __name__ == "__main__":
    sys.exit(checkout.main(
        "alibaba/TorchEasyRec",
        [f"tzrec/modules/{name}.py" for name in ("extraction_net", "mmoe", "mlp", "task_tower",
                                                 "activation", "utils")], cases, EXPECTED))
