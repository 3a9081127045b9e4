"""PLELayer and MMoELayer of PaddlePaddle/PaddleRec; a tower ends in two classes."""

import sys
import warnings
from pathlib import Path
from typing import Any

import checkout

import npple
from npple.oracle import ModuleMapping, Report, check_arrays, make_vectors, stacked

TASKS = {"income": "multiclass:2", "marital": "multiclass:2"}
WIDTH, UNITS = 6, 5
OPTIONS = {"inputs": WIDTH, "tasks": TASKS, "expert_units": (UNITS,), "tower_units": (4,),
           "gate_bias": True}


def dense(name: str, *paths: str) -> dict[str, Any]:
    """A dense layer, or those of a group of experts."""
    return {f"{name}/layer1/{kind}": stacked(*(f"{path}.{kind}" for path in paths))
            if "experts" in name else f"{paths[0]}.{kind}" for kind in ("weight", "bias")}


def asked(layer: Any, model: npple.Network, parameters: dict[str, Any], seen: dict[str, str],
          idle: tuple[str, ...] = ()) -> Report:
    """`seen`: npple's tensor -> the layer that returns it, or its place in what it returns."""
    import paddle
    for i, task in enumerate(TASKS):
        for k, path in enumerate((f"tower_{i}", f"tower_out_{i}"), start=1):
            parameters |= {f"tower/{task}/layer{k}/{kind}": f"{path}.{kind}"
                           for kind in ("weight", "bias")}
        seen[f"tower/{task}"] = f"tower_out_{i}"
    own, kept = dict(layer.named_parameters()), {}

    def keep(name: str, at: int | None) -> Any:
        def hook(part: Any, inputs: Any, output: Any) -> None:
            kept[name] = output if at is None else output[at]
        return hook

    parts = dict(layer.named_sublayers())
    for name, where in seen.items():
        path, _, at = where.partition("/")
        parts[path].register_forward_post_hook(keep(name, int(at) if at else None))

    def run(weights: dict[str, Any], x: Any) -> dict[str, Any]:
        for name, array in weights.items():
            own[name].set_value(array)
        layer(paddle.to_tensor(x))
        return dict(kept)

    def gradients(weights: dict[str, Any], x: Any, starts: dict[str, Any]) -> dict[str, Any]:
        tensors = run(weights, x)
        found = paddle.grad([tensors[name] for name in starts], [*own.values()],
                            [paddle.to_tensor(start) for start in starts.values()],
                            allow_unused=True)
        return dict(zip(own, found))

    arrays = {name: parameter.numpy() for name, parameter in own.items()}
    return check_arrays(make_vectors(model), arrays, ModuleMapping(parameters, idle=idle), run,
                        gradients)


def ple(path: Path, each: int) -> Report:
    net = checkout.load("ple_net", path / "models/multitask/ple/net.py")
    layer = net.PLELayer(WIDTH, len(TASKS), each, 1, UNITS, 4, 2)
    parameters, seen = {}, {}
    for level in (0, 1):
        for i, stream in enumerate((*TASKS, "shared")):
            at, own = f"level{level + 1}/{stream}", stream != "shared"
            paths = [f"lev_{level}.lev_{level}_exp_{i}_{k}" for k in range(each)]
            parameters |= dense(f"{at}/experts", *(
                paths if own else [f"lev_{level}.lev_{level}_exp_shared_0"]))
            if own or level == 0:
                gate = f"lev_{level}.lev_{level}_gate_{i if own else 'shared_'}"
                parameters |= dense(f"{at}/gate", gate)
                seen |= {f"{at}/gate/logits": gate, at: f"lev_{level}/{i}"}
    model = npple.ple(levels=2, task_experts=each, shared_experts=1, **OPTIONS)
    return asked(layer, model, parameters, seen)


def mmoe(path: Path) -> Report:
    net = checkout.load("mmoe_net", path / "models/multitask/mmoe/net.py")
    layer = net.MMoELayer(WIDTH, 3, UNITS, 4, len(TASKS))
    parameters = dense("level1/shared/experts", *(f"expert_{k}" for k in range(3)))
    seen = {}
    for i, task in enumerate(TASKS):
        parameters |= dense(f"level1/{task}/gate", f"gate_{i}")
        seen[f"level1/{task}/gate/logits"] = f"gate_{i}"
    return asked(layer, npple.mmoe(experts=3, **OPTIONS), parameters, seen)


def cases(path: Path) -> checkout.Cases:
    import paddle
    paddle.set_default_dtype("float64")
    yield "PLE, as many experts a task as tasks", lambda: ple(path, 2)
    yield "PLE, three experts a task, two tasks", lambda: ple(path, 3)
    yield "MMoE", lambda: mmoe(path)


EXPECTED = {
    "656326a": {"PLE, as many experts a task as tasks": checkout.NOTHING,
                "PLE, three experts a task, two tasks": ("failed", ("stride-parameters",)),
                "MMoE": checkout.NOTHING},
    "aa3ba7d": dict.fromkeys(("PLE, as many experts a task as tasks",
                              "PLE, three experts a task, two tasks", "MMoE"), checkout.NOTHING),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(checkout.main("PaddlePaddle/PaddleRec",
                           [f"models/multitask/{name}/net.py" for name in ("ple", "mmoe")],
                           cases, EXPECTED))
