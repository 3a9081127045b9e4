"""The models of facebookresearch/AdaTT that npple has: PLE, MLMMoE, CrossStitch, SharedBottom."""

import sys
from pathlib import Path
from typing import Any

import checkout

import npple
from npple.oracle import (ModuleMapping, Report, check_module, linear, make_vectors, moved, sliced,
                          stacked)

TASKS = {"click": "binary", "buy": "binary"}
WIDTH, DIMS = 6, [[5, 6], [4]]
UNITS, OPTIONS = [(5, 6), (4,)], {"inputs": WIDTH, "tasks": TASKS, "tower_units": (3,)}


def asked(path: Path, model: npple.Network, experts: dict[str, list[str]], gates: dict[str, str],
          more: dict[str, Any], idle: tuple[str, ...] = (), **configs: Any) -> Report:
    """`experts`: a group's name -> the paths of its MLPs; `gates`: likewise, of sequences."""
    import torch
    torch.manual_seed(0)
    lib = checkout.load("mtl_lib", path / "mtl_lib.py")
    module = lib.CentralTaskArch(lib.MtlConfigs(expert_out_dims=DIMS, **configs),
                                 lib.ArchInputs(num_task=len(TASKS), task_mlp=[3]), WIDTH).double()
    parameters, tensors = dict(more), {}
    for name, paths in experts.items():
        depth = len(module.get_submodule(paths[0]).mlp_net) // 2
        for layer in range(depth):
            parameters |= linear(f"{name}/layer{layer + 1}",
                                 [f"{path}.mlp_net.{2 * layer}" for path in paths])
        tensors[name] = stacked(*paths)
    for name, gate in gates.items():
        last = len(module.get_submodule(gate)) - 2
        parameters |= linear(f"{name}/layer1", f"{gate}.{last}")
        tensors |= {f"{name}/logits": f"{gate}.{last}", f"{name}/weights": gate}
    for i, task in enumerate(TASKS):
        parameters |= linear(f"tower/{task}/layer1", f"task_modules.{i}.0.mlp_net.0")
        parameters |= linear(f"tower/{task}/layer2", f"task_modules.{i}.1")
        tensors[f"tower/{task}"] = moved(lambda z: z[:, 0], f"return[{i}]")
    return check_module(make_vectors(model), module, ModuleMapping(parameters, tensors, idle))


def ple(path: Path, shared: int) -> Report:
    experts, gates = {}, {}
    for level in (0, 1):
        for i, stream in enumerate((*TASKS, "shared")):
            at, count = f"level{level + 1}/{stream}", shared if stream == "shared" else 2
            if count:
                experts[f"{at}/experts"] = [f"mtl_arch.experts.{level}.{2 * i + k}"
                                            for k in range(count)]
            if stream != "shared" or level == 0 and shared:
                gates[f"{at}/gate"] = f"mtl_arch.gate_weights.{level}.{i}"
    model = npple.ple(levels=2, task_experts=2, shared_experts=shared, expert_units=UNITS,
                      gate_bias=True, **OPTIONS)
    idle = () if shared else ("mtl_arch.gate_weights.0.2.*",)
    return asked(path, model, experts, gates, {}, idle, mtl_model="ple", num_task_experts=2,
                 num_shared_experts=shared)


def ml_mmoe(path: Path) -> Report:
    model = npple.ml_mmoe(levels=2, experts=3, expert_units=UNITS, gate_bias=True, **OPTIONS)
    mixed = [f"level1/expert{k}" for k in (1, 2, 3)]
    gates = {f"{name}/gate": f"mtl_arch.gates.0.{k}" for k, name in enumerate(mixed)}
    gates |= {f"level2/{task}/gate": f"mtl_arch.gates.1.{i}" for i, task in enumerate(TASKS)}
    experts = {"level1/shared/experts": [f"mtl_arch.experts.0.{k}" for k in range(3)]}
    experts |= {f"level2/expert{k + 1}/experts": [f"mtl_arch.experts.1.{k}"] for k in range(3)}
    return asked(path, model, experts, gates, {}, mtl_model="mmoe", num_shared_experts=3)


def cross_stitch(path: Path) -> Report:
    model = npple.cross_stitch(expert_units=UNITS, levels=2, **OPTIONS)
    experts = {f"level{level + 1}/{task}/experts": [f"mtl_arch.experts.{level}.{i}"]
               for level in (0, 1) for i, task in enumerate(TASKS)}
    stitches = {f"level{level + 1}/{task}/stitch/weight":
                sliced(f"mtl_arch.stitchs.{level}.weight", (i, i + 1))
                for level in (0, 1) for i, task in enumerate(TASKS)}
    return asked(path, model, experts, {}, stitches, mtl_model="cross_st")


def cases(path: Path) -> checkout.Cases:
    yield "PLE", lambda: ple(path, 1)
    yield "PLE, no shared experts", lambda: ple(path, 0)
    yield "MLMMoE", lambda: ml_mmoe(path)
    yield "CrossStitch", lambda: cross_stitch(path)


EXPECTED = {"0efdd82": {"PLE": checkout.NOTHING,
                        "PLE, no shared experts": ("does not run", ()),
                        "MLMMoE": checkout.NOTHING,
                        "CrossStitch": checkout.NOTHING}}

if __name__ == "__main__":
    sys.exit(checkout.main("facebookresearch/AdaTT", ["mtl_lib.py"], cases, EXPECTED))
