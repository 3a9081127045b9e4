"""docs/train.html: the models on the page are npple's, and so are the numbers it shows."""

import json
import re
import shutil
import subprocess

import make
import numpy as np
import pytest

import npple

PAGE = make.TRAIN.read_text(encoding="utf-8")
TASKS = {"A": "regression", "B": "regression"}
SIZES = {"expert_units": (4,), "tower_units": ()}
PLE = {"task_experts": 1, "shared_experts": 2} | SIZES
MODELS = {
    "shared bottom": npple.shared_bottom(6, TASKS, expert_units=(16,), tower_units=()),
    "MMoE": npple.mmoe(6, TASKS, experts=4, **SIZES),
    "CGC": npple.cgc(6, TASKS, **PLE),
    "PLE": npple.ple(6, TASKS, levels=2, **PLE),
}
SCRIPT = """
console.log(JSON.stringify(Object.keys(MODELS).map((name) => {
  const learning = learner(name, world(3, -0.5), 7);
  for (let i = 0; i < 40; i++) learn(learning);
  return { ...learning, gates: gates(learning), t: null, grads: null, moments: null };
})));
"""

with_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def learned():
    """Model -> what the page holds of it after 40 steps."""
    scripts = re.findall(r'<script id="(?:engine|lab)">\n(.*?)</script>', PAGE, re.DOTALL)
    done = subprocess.run(["node", "-"], input="".join(scripts) + SCRIPT, capture_output=True,
                          text=True, check=True)
    return {each["name"]: each for each in json.loads(done.stdout)}


def arrays(named):
    return {name: np.array(values) for name, values in named.items()}


def test_the_engine_on_the_page_is_that_of_the_file():
    assert make.with_engine(PAGE) == PAGE, "renew it: python docs/make.py"


def test_the_page_loads_nothing_else():
    assert not re.search(r"(src|href)=|https?:|@import|url\(|fetch\(", PAGE)


@with_node
@each_model
def test_the_tables_on_the_page_are_those_of_the_builders(learned, name):
    assert npple.network.Network.from_dict(learned[name]["model"]) == MODELS[name]


@with_node
@each_model
def test_losses_and_the_cosine_on_the_page_are_those_of_npple(learned, name):
    found, model = learned[name], MODELS[name]
    params, targets = arrays(found["params"]), arrays(found["data"]["targets"])
    x = np.array(found["data"]["inputs"]["x"])
    a, b = (model.loss_and_grads(params, x, targets, weights={"A": 0.0, "B": 0.0} | {task: 1.0})
            for task in TASKS)
    for task, (loss, _) in zip(TASKS, (a, b)):
        assert found["history"][task][-1] == pytest.approx(loss, rel=1e-9)
    shared = [np.concatenate([grads[name].ravel() for name in sorted(grads)
                              if name.startswith("level1/shared/experts/")]) for _, grads in (a, b)]
    cosine = np.dot(*shared) / np.prod([np.linalg.norm(part) for part in shared])
    assert found["history"]["cosine"][-1] == pytest.approx(cosine, abs=1e-9)


@with_node
@each_model
def test_the_gates_on_the_page_are_means_of_those_of_npple(learned, name):
    found, model = learned[name], MODELS[name]
    trace = model.forward(arrays(found["params"]), np.array(found["data"]["inputs"]["x"]))
    named = [tensor for tensor in trace if tensor.endswith("/gate/weights")]
    assert [f"{fusion}/gate/weights" for fusion, _ in found["gates"]] == named
    for (_, weights), tensor in zip(found["gates"], named):
        np.testing.assert_allclose([w for _, w in weights], trace[tensor].mean(axis=0), rtol=1e-9)


@with_node
@each_model
def test_training_on_the_page_brings_both_losses_down(learned, name):
    for task in TASKS:
        first, *_, last = learned[name]["history"][task]
        assert last < first / 2


@with_node
def test_the_experts_of_a_gate_are_called_by_their_tasks(learned):
    called = {fusion: [expert for expert, _ in weights]
              for fusion, weights in learned["PLE"]["gates"]}
    assert called["level1/A"] == ["A1", "s1", "s2"] and called["level2/B"] == ["B1", "s1", "s2"]
    assert called["level1/shared"] == ["A1", "B1", "s1", "s2"]
