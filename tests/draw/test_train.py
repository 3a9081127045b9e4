"""docs/train.html: the models on the page are npple's, and so are the numbers it shows."""

import json
import re
import shutil
import subprocess

import make
import numpy as np
import pytest

import npple
from npple.oracle.deviations import BY_NAME

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
  return { ...learning, gates: gates(learning), flows: flows(learning), t: null, moments: null };
})));
"""
BY_HAND = """
const hand = byHand();
const inside = TASKS.map((task) => [task, inGate(hand, `level1/${task}`)]);
console.log(JSON.stringify({ ...hand, inside: Object.fromEntries(inside) }));
"""
BROKEN = """
const data = world(3, -0.5);
console.log(JSON.stringify(Object.fromEntries(WAYS.map((way) => {
  const { model, params, grads } = learner("PLE", data, 7, way);
  return [way, { model, params, data, grads }];
}))));
"""

with_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
each_model = pytest.mark.parametrize("name", MODELS)


def run(script):
    """What a script prints that stands behind those of the page."""
    scripts = re.findall(r'<script id="(?:engine|lab)">\n(.*?)</script>', PAGE, re.DOTALL)
    done = subprocess.run(["node", "-"], input="".join(scripts) + script, capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def learned():
    """Model -> what the page holds of it after 40 steps."""
    return {each["name"]: each for each in run(SCRIPT)}


@pytest.fixture(scope="module")
def hand():
    """The example to follow by hand, as the page computes it."""
    return run(BY_HAND)


def arrays(named):
    return {name: np.array(values, float) for name, values in named.items()}


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


@with_node
def test_the_example_by_hand_has_the_gradients_of_npple(hand):
    model = npple.cgc(2, TASKS, task_experts=1, shared_experts=1, expert_units=(1,),
                      tower_units=(), activation="identity")
    assert npple.network.Network.from_dict(hand["model"]) == model
    params = {name: np.zeros(shape) for name, shape in model.shapes.items()}  # without biases
    params |= arrays(hand["params"])
    x, targets = arrays(hand["data"]["inputs"])["x"], arrays(hand["data"]["targets"])
    assert model.task_losses(params, x, targets) == {"A": 1, "B": 2.25}
    _, grads = model.loss_and_grads(params, x, targets)
    for name in hand["params"]:
        np.testing.assert_array_equal(hand["grads"][name], grads[name], name)


@with_node
def test_what_the_rows_hand_back_adds_up_to_the_gradients(hand):
    for name in ("input", "level1/shared/experts", "level1/A/experts", "level1/A"):
        parts = [np.array(alone[name]) for row, alone in hand["handed"].items() if row != name]
        np.testing.assert_array_equal(sum(parts), hand["grads"][name], name)
    meeting = [hand["handed"][f"level1/{task}"]["level1/shared/experts"] for task in TASKS]
    assert meeting == [[[[1]]], [[[-1.5]]]]


@with_node
@pytest.mark.parametrize("task, dw, dz", [("A", [2, 6], [-1, 1]), ("B", [-6, -9], [0.75, -0.75])])
def test_inside_the_gates_by_hand(hand, task, dw, dz):
    inside = hand["inside"][task]
    assert inside["dw"] == dw and inside["dz"] == dz
    assert np.outer([1, 2], dz).tolist() == hand["grads"][f"level1/{task}/gate/layer1/weight"]


@pytest.fixture(scope="module")
def broken():
    """Way to break a PLE, "" for none -> the model, its parameters and each task's gradient."""
    return run(BROKEN)


def gradients(found, task):
    """What npple says of a model of the page: the gradient of one task's loss."""
    model, data = npple.network.Network.from_dict(found["model"]), found["data"]
    return model.loss_and_grads(
        arrays(found["params"]), arrays(data["inputs"])["x"], arrays(data["targets"]),
        weights={"A": 0.0, "B": 0.0} | {task: 1.0})[1]


@with_node
@pytest.mark.parametrize("way", ["", "gate", "experts", "selector"])
def test_a_broken_ple_on_the_page_has_the_gradients_that_npple_gives_it(broken, way):
    for task, grads in zip(TASKS, broken[way]["grads"]):
        for name, expected in gradients(broken[way], task).items():
            np.testing.assert_allclose(grads[name], expected, rtol=1e-9, atol=1e-12)


@with_node
def test_the_broken_models_are_what_their_names_say(broken):
    made = {way: npple.network.Network.from_dict(found["model"]) for way, found in broken.items()}
    vectors = npple.oracle.make_vectors(MODELS["PLE"])
    (selected, _), = BY_NAME["selector-input"].variants(vectors.variant, {})
    assert made["selector"].table == selected.table
    assert made["experts"] == npple.ple(6, TASKS, levels=2, **PLE | {"shared_experts": 0})
    reaches = {way: npple.isolation(model).matrix["A"]["level1/B/experts"]
               for way, model in made.items()}
    assert reaches == {"": "reached", "gate": "isolated", "experts": "isolated",
                       "selector": "reached", "stopped": "reached"}


@with_node
def test_where_the_gradient_is_stopped_shared_experts_get_none_and_the_last_gates_their_own(broken):
    for stopped, whole in zip(broken["stopped"]["grads"], broken[""]["grads"]):
        for name in stopped:
            if "/shared/" in name and name in broken[""]["params"]:
                assert not np.any(stopped[name])
            elif name.startswith(("tower", "level2/A", "level2/B")):
                assert stopped[name] == whole[name]
        assert stopped["level1/A/experts"] != whole["level1/A/experts"]


@with_node
@each_model
def test_edges_are_as_wide_as_the_gradients_and_none_is_drawn_where_a_loss_does_not_reach(
        learned, name):
    found, matrix = learned[name], npple.isolation(MODELS[name]).matrix
    for i, task in enumerate(TASKS):
        into = {}  # what comes to a group of experts along all edges: their sum is its dE
        for edge in found["flows"]:
            assert edge[task] >= 0
            if edge["target"].endswith("/experts"):
                assert (edge[task] > 0) == (matrix[task][edge["target"]] == "reached")
            into.setdefault(edge["source"], []).append(edge[task])
        for source, norms in into.items():
            if len(norms) == 1:
                assert norms[0] == pytest.approx(
                    np.linalg.norm(np.ravel(found["grads"][i][source])), rel=1e-9)


@pytest.mark.slow
@with_node
def test_on_the_tasks_of_the_tour_the_cosine_is_below_zero_for_most_of_the_training():
    shares = run("""
        console.log(JSON.stringify(Object.keys(MODELS).map((name) => {
          const learning = learner(name, world(1, -1), 1001);
          for (let i = 0; i < 300; i++) learn(learning);
          return sum(learning.history.cosine.map((c) => (c < 0 ? 1 : 0))) / 301;
        })));""")
    assert min(shares) > 0.8
