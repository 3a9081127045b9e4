"""PLE, CGC and MMoE of the paper for any framework with dense layers, and five mistakes in them.

`forward` is the program, `Ops` what it needs of a framework; `asked` runs the lines of the book.
tests/oracle has the same in NumPy, with a backward pass by hand, and in JavaScript.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import npple

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
MAPPING = "Layers that go by npple's names"  # the section that the others share
TASKS = {"click": "binary", "dwell": "regression"}
WIDTH = 5  # of everything, so that a gate that reads the wrong thing still runs
SIZES = {"inputs": WIDTH, "tasks": TASKS, "expert_units": (WIDTH,), "tower_units": (3,)}
PLE = {"click": 2, "dwell": 2, "shared": 1}
# architecture -> the model, its levels, the experts of each stream
WRITTEN = {"ple": (npple.ple(levels=2, task_experts=2, shared_experts=1, **SIZES), 2, PLE),
           "cgc": (npple.cgc(task_experts=2, shared_experts=1, **SIZES), 1, PLE),
           "mmoe": (npple.mmoe(experts=3, **SIZES), 1, {"shared": 3})}
# mistake -> what names it, and the tensor at which it shows
MISTAKES = {"selector": ("selector-input", "tower/click"),
            "softmax": ("gate-softmax-batch", "tower/click"),
            "shared": ("shared-mean", "tower/click"),
            "linear": ("expert-linear-end", "tower/click"),
            "stopped": ("stop-gate", "grad/level2/dwell/gate/layer1/weight")}


class Ops(NamedTuple):
    """`dense(name, inputs, units, bias)` is a layer, made when it is first asked for."""

    dense: Callable[..., Callable[[Any], Any]]
    relu: Callable[[Any], Any]
    softmax: Callable[[Any, int], Any]
    stop: Callable[[Any], Any]


def forward(ops: Ops, architecture: str, x: Any, mistake: str = "") -> dict[str, Any]:
    """The outputs (batch,) by task."""
    _, levels, counts = WRITTEN[architecture]
    now = dict.fromkeys((*TASKS, "shared"), x)
    for level in range(1, levels + 1):
        experts = {s: [ops.dense(f"level{level}_{s}_experts_layer1_{k}", WIDTH, WIDTH)(now[s])
                       for k in range(n)] for s, n in counts.items()}
        if mistake != "linear":
            experts = {s: [ops.relu(z) for z in each] for s, each in experts.items()}
        following = {}
        for s in (*TASKS, "shared") if level < levels else TASKS:
            mixed = [e for t in experts if s in (t, "shared") or t == "shared" for e in experts[t]]
            if mistake == s == "shared":
                following[s] = sum(mixed) / len(mixed)
                continue
            gate = ops.dense(f"level{level}_{s}_gate_layer1", WIDTH, len(mixed), False)
            g = ops.softmax(gate(x if mistake == "selector" else now[s]),
                            0 if mistake == "softmax" else 1)
            g = ops.stop(g) if mistake == "stopped" else g
            following[s] = sum(g[:, i:i + 1] * e for i, e in enumerate(mixed))
        now = following
    hidden = {t: ops.relu(ops.dense(f"tower_{t}_layer1", WIDTH, 3)(now[t])) for t in TASKS}
    return {t: ops.dense(f"tower_{t}_layer2", 3, 1)(hidden[t])[:, 0] for t in TASKS}


def block(title: str) -> str:
    """The first `text` block of a section of the book."""
    return re.search(rf"^## {re.escape(title)}$.*?^```text\n(.*?)^```$", PAGE, re.M | re.S)[1]


def asked(title: str, names: dict[str, Any], architecture: str, mistake: str = "") -> Any:
    """The report of a section's lines, on a program by these names."""
    code = block(MAPPING) + block(title)
    if mistake == "shared":  # the program has no such gate
        code = code.replace("model.shapes.items():", "model.shapes.items():\n    if 'shared/gate' "
                            "in name: continue")
        code = code.replace("ModuleMapping(parameters)",
                            "ModuleMapping(parameters, own=('*shared/gate*',))")
    names |= {"model": WRITTEN[architecture][0]}
    exec(code, names)
    return names["report"]


def passes(title: str, names: dict[str, Any], architecture: str, dtype: str) -> None:
    """Whether the right program passes, with all gradients of parameters."""
    report = asked(title, names, architecture)
    assert report.verdict == "passed" and report.precision == dtype, str(report)
    compared = {row.name for row in report.rows}
    assert {f"{kind}/{name}" for kind in ("grad", "grad[click]", "grad[dwell]")
            for name in WRITTEN[architecture][0].shapes} <= compared


def is_found(title: str, names: dict[str, Any], architecture: str) -> None:
    """Whether the mapping is found for weights in any order, under names that say nothing."""
    asked(title, names, architecture)
    model, weights, run = WRITTEN[architecture][0], names["weights"], names["run"]
    order = np.random.default_rng(0).permutation([*weights])
    blind = {name: f"w{i}" for i, name in enumerate(order)}
    proposal = npple.oracle.suggest(
        {blind[name]: weights[name] for name in order}, model,
        lambda w, x: run({name: w[blind[name]] for name in weights}, x))
    assert proposal.certain and not proposal.deviation, str(proposal)
    assert proposal.mapping.parameters.keys() == model.shapes.keys()


def is_named(title: str, names: dict[str, Any], mistake: str) -> None:
    """Whether a mistake in PLE is found, located and named."""
    report = asked(title, names, "ple", mistake)
    assert report.verdict == "failed"
    name, where = MISTAKES[mistake]
    assert report.diagnosis[0].names == (name,), str(report)
    assert report.first_divergence == where, str(report)
