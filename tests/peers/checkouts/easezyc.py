"""PLE and MMoE of easezyc/Multitask-Recommendation-Library, as this runner's checkout has them."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkout

import npple
from npple.oracle import (ModuleMapping, Report, check_module, linear, make_vectors, moved, sliced,
                          stacked)

TASKS = {"click": "binary", "buy": "binary"}
FIELDS, WIDTH, UNITS = (5, 4), 3, (6, 5)
INPUTS = {"city": (5, WIDTH), "job": (4, WIDTH), **{f"x[{i}]": "numeric" for i in range(WIDTH)}}
OPTIONS = (FIELDS, WIDTH, WIDTH, UNITS, (4,), len(TASKS))
MEMBERS = {"click": 2, "buy": 2, "shared": 1}


def feed(x: Any) -> Any:
    """Codes (batch, fields) and numeric columns (batch, WIDTH)."""
    import numpy as np
    return (np.stack([x["city"], x["job"]], axis=1),
            np.stack([x[f"x[{i}]"] for i in range(WIDTH)], axis=1))


def mapping(module: Any, experts: dict[str, list[str]], gates: dict[str, str], deep: bool
            ) -> ModuleMapping:
    """`experts`: a group's name -> the paths of its MLPs. `deep`: of two layers each."""
    import torch
    with torch.no_grad():  # the linear layer on the numeric columns: the identity
        module.numerical_layer.weight.copy_(torch.eye(WIDTH))
        module.numerical_layer.bias.zero_()
    table = "embedding.embedding.weight"
    parameters: dict[str, Any] = {"embedding/city": sliced(table, (0, 5)),
                                  "embedding/job": sliced(table, (5, 9))}
    tensors: dict[str, Any] = {}
    norms = {}
    for name, paths in experts.items():
        for layer in (0, 1) if deep else (0,):
            parameters |= linear(f"{name}/layer{layer + 1}",
                                 [f"{path}.mlp.{4 * layer}" for path in paths])
            norms |= {f"{path}.mlp.{4 * layer + 1}": f"{path}.mlp.{4 * layer}" for path in paths}
        tensors[name] = stacked(*paths)
    for name, path in gates.items():
        parameters |= linear(f"{name}/layer1", f"{path}.0")
        tensors[f"{name}/logits"] = f"{path}.0"
    for i, task in enumerate(TASKS):
        parameters |= linear(f"tower/{task}/layer1", f"tower.{i}.mlp.0")
        parameters |= linear(f"tower/{task}/layer2", f"tower.{i}.mlp.4")
        norms[f"tower.{i}.mlp.1"] = f"tower.{i}.mlp.0"
        tensors[f"tower/{task}"] = moved(lambda z: z[:, 0], f"tower.{i}")
    return ModuleMapping(parameters, tensors, ("numerical_layer.*",), (), norms, feed)


def ple(path: Path, train: bool) -> Report:
    """Two levels. In `ee2427f` all experts of a level stand in one list, the shared ones last."""
    import torch
    torch.manual_seed(0)
    checkout.package("models", path / "models")
    sys.modules["layers"] = checkout.load("models.layers", path / "models" / "layers.py")
    made = checkout.load("models.ple", path / "models" / "ple.py")
    module = made.PLEModel(*OPTIONS, 1, 2, 0.0).double().train(train)
    experts, gates = {}, {}
    for level in (0, 1):
        for i, (stream, count) in enumerate(MEMBERS.items()):
            at = f"level{level + 1}/{stream}"
            if hasattr(module, "expert"):
                experts[f"{at}/experts"] = [f"expert.{level}.{2 * i + k}" for k in range(count)]
                gates[f"{at}/gate"] = f"gate.{level}.{i}"
            else:
                own = stream != "shared"
                folder = f"task_experts.{level}.{i}" if own else f"share_experts.{level}"
                experts[f"{at}/experts"] = [f"{folder}.{k}" for k in range(count)]
                gates[f"{at}/gate"] = f"task_gates.{level}.{i}" if own else f"share_gates.{level}"
    last = gates.pop("level2/shared/gate")
    found = mapping(module, experts, gates, deep=False)
    if hasattr(module, "expert"):  # they run once for each task: no tensor of the model's
        del found.tensors["level2/shared/experts"]
    found = replace(found, idle=(*found.idle, f"{last}.*"))
    model = npple.ple(INPUTS, TASKS, levels=2, task_experts=2, shared_experts=1, gate_bias=True,
                      expert_units=[(6,), (5,)], tower_units=(4,))
    return check_module(make_vectors(model), module, found)


def mmoe(path: Path) -> Report:
    import torch
    torch.manual_seed(0)
    checkout.package("models", path / "models")
    from models.mmoe import MMoEModel
    module = MMoEModel(*OPTIONS, 3, 0.0).double().eval()
    found = mapping(module, {"level1/shared/experts": [f"expert.{k}" for k in range(3)]},
                    {f"level1/{task}/gate": f"gate.{i}" for i, task in enumerate(TASKS)}, deep=True)
    model = npple.mmoe(INPUTS, TASKS, experts=3, gate_bias=True, expert_units=UNITS,
                       tower_units=(4,))
    return check_module(make_vectors(model), module, found)


def cases(path: Path) -> checkout.Cases:
    yield "PLE at inference", lambda: ple(path, train=False)
    yield "PLE in training", lambda: ple(path, train=True)
    yield "MMoE at inference", lambda: mmoe(path)


EXPECTED = {
    "8c6529c": {"PLE at inference": checkout.NOTHING,
                "PLE in training": ("failed", ("expert-normalised", "tower-normalised")),
                "MMoE at inference": checkout.NOTHING},
    "ee2427f": {"PLE at inference": ("failed", ("shared-reads-tasks",)),
                "PLE in training": ("failed", ("expert-normalised", "shared-reads-tasks",
                                                       "tower-normalised")),
                "MMoE at inference": checkout.NOTHING},
}

if __name__ == "__main__":
    sys.exit(checkout.main("easezyc/Multitask-Recommendation-Library",
                           [f"models/{name}.py" for name in ("ple", "mmoe", "layers")],
                           cases, EXPECTED))
