"""Batch normalisation of any program counts as part of the layer before it, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import (ModuleMapping, Norm, check_arrays, from_arrays, into_arrays,
                          load_mapping, suggest, transposed)
from npple.oracle.norms import folded

TASKS = {"a": "binary", "b": "regression"}
MODEL = npple.mmoe(3, TASKS, experts=2, expert_units=(4,), tower_units=())
NORM = Norm("kernel", "mean", "variance", 1e-3, bias="offset", scale="gamma", shift="beta")
# kind -> the norm, and what its program does not have
KINDS = {"whole": (NORM, ()),
         "without the layer's bias": (replace(NORM, bias=None), ("offset",)),
         "without a scale": (replace(NORM, scale=None), ("gamma",)),
         "without a shift": (replace(NORM, shift=None), ("beta",)),
         "neither bias nor scale": (replace(NORM, bias=None, scale=None), ("offset", "gamma")),
         "turned": (replace(NORM, inputs=-1), ())}
ACTIVATIONS = {"relu": lambda z: z * (z.real > 0), "tanh": np.tanh}


def program(kind, activation="relu", after=False):
    """Weights, a mapping and a function: kernels (expert, in, out) or turned, a norm over them."""
    norm, absent = KINDS[kind]
    turned = norm.inputs == -1
    shapes = {"kernel": (2, 4, 3) if turned else (2, 3, 4), "offset": (2, 1, 4), "mean": (2, 1, 4),
              "variance": (2, 1, 4), "gamma": (2, 1, 4), "beta": (2, 1, 4), "gates": (2, 3, 2),
              "heads": (2, 4, 1), "ends": (2, 1)}
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.5, 2, shape) for name, shape in shapes.items()
               if name not in absent}

    def run(w, x):
        z = np.matmul(x, w["kernel"].swapaxes(1, 2) if turned else w["kernel"])
        z = z + w.get("offset", 0)
        z = ACTIVATIONS[activation](z) if after else z
        z = (z - w["mean"]) / np.sqrt(w["variance"] + x.dtype.type(1e-3))
        z = z * w.get("gamma", 1) + w.get("beta", 0)
        z = z if after else ACTIVATIONS[activation](z)
        e = np.exp(x @ w["gates"])
        mixed = np.einsum("tbn,nbo->tbo", e / e.sum(2, keepdims=True), z)
        made = np.matmul(mixed, w["heads"]) + w["ends"][:, None]
        return {"tower/a": made[0, :, 0], "tower/b": made[1, :, 0]}

    parameters = {"level1/shared/experts/layer1/weight":
                  transposed("kernel", (0, 2, 1)) if turned else "kernel",
                  "level1/shared/experts/layer1/bias":
                  oracle.reshaped(norm.bias or norm.shift, 2, 4)}
    for i, task in enumerate(TASKS):
        parameters |= {f"level1/{task}/gate/layer1/weight": oracle.sliced("gates", i),
                       f"tower/{task}/layer1/weight": oracle.sliced("heads", i),
                       f"tower/{task}/layer1/bias": oracle.sliced("ends", i)}
    return weights, ModuleMapping(parameters, norms={"any name": norm}), run


def gradients_of(run):
    """By complex steps, an entry at a time."""
    def gradients(w, x, starts):
        made = {}
        for name, each in w.items():
            made[name] = np.zeros(each.shape)
            for at in np.ndindex(each.shape):
                stepped = {**w, name: each.astype(complex)}
                stepped[name][at] += 1e-30j
                y = run(stepped, x)
                made[name][at] = sum((y[k] * starts[k]).sum().imag for k in starts) / 1e-30
        return made
    return gradients


def activated(activation):
    return npple.mmoe(3, TASKS, experts=2, expert_units=(4,), tower_units=(),
                      activation=activation)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_folded_and_all_gradients_are_those_of_the_layer(kind):
    weights, mapping, run = program(kind)
    report = check_arrays(oracle.make_vectors(MODEL, batch=5), weights, mapping, run,
                          gradients_of(run))
    assert report.verdict == "passed", report
    assert "grad[a]/level1/shared/experts/layer1/bias" in {row.name for row in report.rows}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_after_the_activation_it_fails(kind, activation, dtype):
    vectors = oracle.make_vectors(activated(activation))
    for after in (False, True):
        weights, mapping, run = program(kind, activation, after)
        weights = {name: each.astype(dtype) for name, each in weights.items()}
        report = check_arrays(vectors, weights, mapping, run, expect="outputs")
        assert report.verdict == ("failed" if after else "passed"), report


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_out_folded_and_go_in_again(kind):
    weights, mapping, run = program(kind)
    x = oracle.make_vectors(MODEL).inputs
    params = from_arrays(weights, MODEL, mapping)
    again = into_arrays(weights, MODEL, mapping, params)
    assert {name: each.shape for name, each in again.items()} == {
        name: each.shape for name, each in weights.items()}
    for task, z in MODEL.forward(params, x).outputs.items():
        for each in (weights, again):
            np.testing.assert_allclose(z, run(each, x)[f"tower/{task}"], rtol=1e-12)


def test_a_wrong_eps_fails():
    weights, mapping, run = program("whole")
    wrong = replace(mapping, norms={"n": replace(NORM, eps=1e-5)})
    assert not check_arrays(oracle.make_vectors(MODEL), weights, wrong, run).passed


def test_a_proposal_counts_it_as_part_of_the_layer():
    weights, mapping, run = program("without the layer's bias")
    proposal = suggest(weights, MODEL, run, norms=mapping.norms)
    assert proposal.certain and {*proposal.mapping.parameters} == {*MODEL.shapes}
    names = {}
    exec("from npple.oracle import *\n" + str(proposal), names)
    assert names["mapping"].norms == mapping.norms


def test_it_comes_back_from_a_file(tmp_path):
    _, mapping, _ = program("without a scale")
    mapping.save(tmp_path / "m.json")
    assert load_mapping(tmp_path / "m.json").norms == mapping.norms


@pytest.mark.parametrize("changes, fault", [
    ({"weight": 3}, "norm: weight: the name of an array is needed, got 3"),
    ({"mean": None}, "norm: mean: the name of an array is needed, got None"),
    ({"eps": -1.0}, "norm: eps must be"),
    ({"inputs": 0.5}, "norm: inputs: an axis is needed, got 0.5"),
    ({"bias": None, "shift": None}, "norm: bias, shift: one is needed"),
])
def test_what_is_no_norm_is_told(changes, fault):
    with pytest.raises(npple.InputError, match=fault):
        replace(NORM, **changes)


@pytest.mark.parametrize("norm, fault", [
    ("kernel", "norms: any name: 'kernel' is a layer of a module of PyTorch; expected Norm"),
    (replace(NORM, mean="means"), "norms: means: not among the weights"),
    (replace(NORM, mean="gates"), r"norms: gates: shape \(2, 3, 2\), expected 8 numbers, as outp"),
    (replace(NORM, inputs=3), r"norms: inputs: kernel \(2, 3, 4\) has no axis 3"),
    (replace(NORM, inputs=-1), r"norms: offset: shape \(2, 1, 4\), expected 6 numbers"),
])
def test_a_norm_that_does_not_fit_is_told_in_one_line(norm, fault):
    weights, mapping, run = program("whole")
    with pytest.raises(npple.InputError, match=fault) as error:
        check_arrays(oracle.make_vectors(MODEL), weights,
                     replace(mapping, norms={"any name": norm}), run)
    assert "\n" not in str(error.value)


def test_two_of_one_layer_are_refused():
    with pytest.raises(npple.InputError, match="norms: kernel: two of one layer"):
        ModuleMapping({}, norms={"one": NORM, "other": NORM})


def test_the_weight_of_one_layer_has_its_inputs_along_the_first_of_two_axes():
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.5, 2, shape) for name, shape in {
        "kernel": (3, 4), "offset": 4, "mean": 4, "variance": 4, "gamma": 4, "beta": 4}.items()}
    x = rng.normal(size=(5, 3))
    made = folded(arrays, [NORM])
    z = (x @ arrays["kernel"] + arrays["offset"] - arrays["mean"]) / np.sqrt(arrays["variance"]
                                                                              + 1e-3)
    np.testing.assert_allclose(x @ made["kernel"] + made["offset"],
                               z * arrays["gamma"] + arrays["beta"], rtol=1e-12)
