"""Bundles of test vectors: what is in them, that it is right, reproducible and telling."""

import functools
import json
from inspect import signature

import numpy as np
import pytest

import npple
from npple import FileError, InputError, archive, oracle
from npple.oracle.cases import CASES
from npple.oracle.vectors import FORMAT, TELLING, VERSION
from npple.verify.cases import random_model

TASKS = {"a": "binary", "b": "regression", "c": "multiclass:3"}


@functools.cache
def of_architecture(name):
    return oracle.make_vectors(random_model(name, tasks=2), batch=3)


def small(**options):
    return npple.ple(4, TASKS, levels=2, task_experts=2, shared_experts=1, expert_units=(3,),
                     tower_units=(2,), **options)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        oracle.make_vectors(small(), seed=3).save(tmp_path / name)
    oracle.make_vectors(small(), seed=4).save(tmp_path / "other")
    one, two, other = ((tmp_path / name).read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_a_bundle_of_any_architecture_comes_back_from_its_file(name, tmp_path):
    vectors = of_architecture(name)
    vectors.save(tmp_path / "v.npz")
    again = oracle.load(tmp_path / "v.npz")
    again.save(tmp_path / "w.npz")
    assert again.model == vectors.model and again.adam == vectors.adam
    assert again.tolerance == vectors.tolerance and again.notes == vectors.notes
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "w.npz").read_bytes()


def test_the_json_form_holds_the_same_as_the_file(tmp_path):
    vectors, = oracle.suite({"cgc-scattered"})  # of all dtypes, and with targets that are none
    vectors.save(tmp_path / "v.npz")
    vectors.save_json(tmp_path / "v.json")
    content = json.loads((tmp_path / "v.json").read_text())
    arrays, meta, version = archive.load(tmp_path / "v.npz", format=FORMAT, versions=[VERSION])
    assert (content["format"], content["version"]) == (FORMAT, version)
    assert content["meta"] == meta and [*content["arrays"]] == [*arrays]
    assert None in content["arrays"]["targets/dwell"]["values"]
    for name, array in arrays.items():
        plain = content["arrays"][name]
        values = [np.nan if value is None else value for value in plain["values"]]
        again = np.array(values, plain["dtype"]).reshape(plain["shape"])
        assert again.dtype == array.dtype and again.shape == array.shape
        np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_the_expected_values_are_those_of_the_network(name):
    vectors = of_architecture(name)
    model, expected = vectors.model, vectors.expected
    data = vectors.inputs, vectors.targets, vectors.masks
    trace = model.forward(vectors.params, vectors.inputs, vectors.noise or None)
    loss, grads = model.loss_and_grads(vectors.params, *data, vectors.weights, vectors.noise)
    for tensor in trace:
        if not tensor.endswith("/route/noise"):
            np.testing.assert_allclose(trace[tensor], expected[tensor], rtol=1e-9, atol=1e-12)
    assert loss == pytest.approx(float(expected["loss"]), rel=1e-12)
    for parameter, grad in grads.items():
        largest = np.abs(grad).max()
        np.testing.assert_allclose(grad, expected[f"grad/{parameter}"], atol=1e-11 * largest)
    for task in model.tasks:
        alone = dict.fromkeys(model.tasks, 0.0) | {task: 1.0}
        _, grads = model.loss_and_grads(vectors.params, *data, alone, vectors.noise,
                                        penalties=False)
        for parameter, grad in grads.items():
            np.testing.assert_allclose(grad, expected[f"grad[{task}]/{parameter}"],
                                       atol=1e-11 * np.abs(grad).max())


def test_adams_steps_are_those_of_the_optimizer():
    vectors = oracle.make_vectors(small())
    params, state = vectors.params, vectors.adam.init(vectors.params)
    for step in range(1, 13):
        _, grads = vectors.model.loss_and_grads(params, vectors.inputs, vectors.targets,
                                                vectors.masks, vectors.weights)
        params, state = vectors.adam.step(params, grads, state)
        if step in (1, 2, 12):
            for name, value in params.items():
                np.testing.assert_allclose(value, vectors.expected[f"adam{step}/{name}"],
                                           rtol=1e-9, atol=1e-12)


def test_the_order_is_that_of_computation():
    names = list(oracle.make_vectors(small()).expected)
    order = ["input", "level1/a/experts", "level1/shared/experts", "level1/a/gate/logits",
             "level1/a/gate/weights", "level1/a", "level1/shared", "level2/a/experts", "level2/a",
             "tower/a/layer1", "tower/a", "tower/c", "prediction/a", "loss[a]", "loss",
             "grad/tower/c", "grad/tower/c/layer2/weight", "grad/tower/a", "grad/level2/c",
             "grad/level2/a/gate/layer1/weight", "grad/level2/shared/experts",
             "grad/level1/shared", "grad/level1/a/experts", "grad/input", "grad[a]/tower/c",
             "grad[c]/input", "adam1/level1/a/experts/layer1/weight",
             "adam2/level1/a/experts/layer1/weight", "adam12/tower/c/layer2/bias"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)


def test_parameters_and_features_are_exact_in_every_precision():
    vectors = oracle.make_vectors(small())
    for array in (*vectors.params.values(), vectors.inputs, vectors.targets["b"]):
        mantissa, _ = np.frexp(array)
        assert (mantissa * 2**8 == np.round(mantissa * 2**8)).all()


@pytest.mark.parametrize("name, builder", [
    ("few-tasks", npple.sluice), ("many-tasks", npple.mmoe), ("uneven", npple.ple),
    ("single-row", npple.ple)])
def test_the_cases_of_the_suite_are_telling(name, builder):
    rows, options = CASES[name].rows, CASES[name].options
    options = {k: v for k, v in options.items() if k in signature(builder).parameters}
    vectors = oracle.make_vectors(builder(**options), batch=rows)
    expected, tasks = vectors.expected, list(vectors.model.tasks)
    for precision, limit in TELLING.items():
        at = ["float64", "float32"].index(precision)
        assert max(tolerance[at] for tolerance in vectors.tolerance.values()) <= limit
    reached = vectors.model.table.reached_parameters(tasks)
    assert all(expected[f"grad/{parameter}"].any() for parameter in reached)
    for gate in (n for n in expected if n.endswith("/gate/weights") and n.startswith("level")):
        assert expected[gate].max() > 1.2 / expected[gate].shape[1]  # no gate is uniform
    if rows > 1:
        assert not vectors.masks[tasks[1]].all() and vectors.masks[tasks[1]].any()


def test_a_bundle_in_single_precision_is_the_same_rounded_once():
    double, single = (oracle.make_vectors(small(), dtype=d) for d in ("float64", "float32"))
    for name, array in single.expected.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, double.expected[name].astype(np.float32))


@pytest.mark.parametrize("arguments, names", [
    ({"model": "ple"}, "model"), ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"),
    ({"batch": 0}, "batch"), ({"dtype": "float16"}, "dtype"), ({"adam": 1e-3}, "adam")])
def test_arguments_that_cannot_be_used_are_named(arguments, names):
    with pytest.raises(InputError, match=f"^{names}:"):
        oracle.make_vectors(**{"model": small()} | arguments)


def test_a_file_that_is_no_bundle_is_refused(tmp_path):
    vectors = oracle.make_vectors(small(), batch=2)
    vectors.save(tmp_path / "v.npz")
    arrays, meta, _ = archive.load(tmp_path / "v.npz", format=FORMAT, versions=[VERSION])
    spoiled = [(arrays, meta | {"architecture": {}}), (arrays, {}),
               (arrays, meta | {"precisions": {"float64": 1e-16}}), (arrays, meta | {"notes": {}}),
               (arrays, meta | {"tensors": [[name, 0.1] for name in vectors.expected]}),
               *((arrays, meta | {"tensors": [[name, *rest, bad] for name, *rest, _ in
                                              meta["tensors"]]}) for bad in
                 ("0.1", None, True, [], -1e-9)),
               ({n: a for n, a in arrays.items() if n != "loss"}, meta),
               ({n: a for n, a in arrays.items() if n != "targets/a"}, meta)]
    for arrays, meta in spoiled:
        archive.save(tmp_path / "bad.npz", arrays, meta, format=FORMAT, version=VERSION)
        with pytest.raises(FileError, match="bad.npz") as caught:
            oracle.load(tmp_path / "bad.npz")
        assert len(str(caught.value).splitlines()) == 1
