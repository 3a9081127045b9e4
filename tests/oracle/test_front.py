"""What stands before the model: a linear layer on numeric columns, a table of two columns."""

from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import ModuleMapping, check_arrays, from_arrays, sliced, suggest

INPUTS = {"age": "numeric", "income": "numeric", "user": (4, 3), "friend": (3, 3)}
MODEL = npple.shared_bottom(INPUTS, {"a": "binary"}, expert_units=(4,), tower_units=())
VECTORS = oracle.make_vectors(MODEL)
SHAPES = {"front.w": (3, 2), "front.b": (2,), "table": (7, 3), "w": (8, 4), "b": (4,),
          "head": (4, 1), "end": (1,)}


def feed(x):
    """Three numeric columns, one of them 0; the friends are the table's last rows."""
    numeric = np.stack([x["age"], x["income"], 0 * x["age"]], axis=1)
    return {"numeric": numeric, "user": x["user"], "friend": x["friend"] + 4}


MAPPING = ModuleMapping(
    {"embedding/user": sliced("table", (0, 4)), "embedding/friend": sliced("table", (4, 7)),
     "level1/shared/experts/layer1/weight": oracle.reshaped("w", 1, 8, 4),
     "level1/shared/experts/layer1/bias": oracle.reshaped("b", 1, 4),
     "tower/a/layer1/weight": "head", "tower/a/layer1/bias": "end"},
    front={"front.w": "identity", "front.b": 0}, feed=feed)


def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def run(w, x, mistake=""):
    numeric = x["numeric"] @ w["front.w"] + w["front.b"]
    if mistake == "activated":
        numeric = np.maximum(numeric, 0)
    features = [w["table"][x["user"]], w["table"][x["friend"]]]
    features = features[::-1] if mistake == "swapped" else features
    h = np.maximum(np.concatenate([numeric, *features], axis=1) @ w["w"] + w["b"], 0)
    return {"tower/a": (h @ w["head"] + w["end"])[:, 0]}


def test_inputs_pass_through_it_and_the_model_behind_it_is_checked():
    assert check_arrays(VECTORS, weights(), MAPPING, run, expect="outputs").passed
    for mistake in ("activated", "swapped"):
        report = check_arrays(VECTORS, weights(), MAPPING, lambda w, x, m=mistake: run(w, x, m))
        assert report.verdict == "failed"


def test_undeclared_it_is_told():
    with pytest.raises(npple.errors.MappingError, match="front.w .* not mapped"):
        check_arrays(VECTORS, weights(), replace(MAPPING, front={}), run)


def test_read_the_weights_are_those_of_the_model_behind_it():
    own = weights()
    params = from_arrays(own, MODEL, MAPPING)
    x = {"numeric": np.random.default_rng(1).normal(size=(5, 3)),
         "user": np.arange(5) % 4, "friend": 4 + np.arange(5) % 3}
    age, income = (x["numeric"] @ own["front.w"] + own["front.b"]).T
    z = MODEL.forward(params, {"age": age, "income": income, "user": x["user"],
                               "friend": x["friend"] - 4}).outputs["a"]
    np.testing.assert_allclose(z, run(own, x)["tower/a"], rtol=1e-12)


def test_a_proposal_leaves_it_alone():
    table = {name: each for name, each in weights().items() if name != "table"}
    table |= {"users": np.zeros((4, 3)), "friends": np.zeros((3, 3))}
    proposal = suggest(table, MODEL, lambda w, x: run(
        w | {"table": np.concatenate([w["users"], w["friends"]])}, x), feed=feed,
        front=MAPPING.front)
    assert proposal.certain and proposal.mapping.front == MAPPING.front
    assert "front={'front.w': 'identity', 'front.b': 0}" in str(proposal)


@pytest.mark.parametrize("front, fault", [
    ({"fronts": 0}, "front: fronts: not among the weights"),
    ({"front.b": "identity", "front.w": 0}, r"front: front.b \(2,\): 'identity' is for a matrix"),
])
def test_what_does_not_fit_is_told(front, fault):
    with pytest.raises(npple.InputError, match=fault):
        check_arrays(VECTORS, weights(), replace(MAPPING, front=front), run)
