"""Mappings as files: what is saved comes back, and what is no mapping is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple import oracle
from npple.oracle import (ModuleMapping, from_arrays, linear, load_mapping, moved, recipes, sliced,
                          stacked)
from npple.oracle.mappings import by_recipe

ARRAYS = {"p": np.arange(6.0).reshape(2, 3), "q": np.arange(6.0, 12).reshape(2, 3)}
MADE = {
    "'p'": ARRAYS["p"],
    "transposed('p')": ARRAYS["p"].T,
    "transposed(stacked('p', 'q'), axes=(1, 2, 0))":
        np.stack([ARRAYS["p"], ARRAYS["q"]]).transpose(1, 2, 0),
    "stacked('p', 'q', axis=1)": np.stack([ARRAYS["p"], ARRAYS["q"]], axis=1),
    "concatenated('p', 'q')": np.concatenate([ARRAYS["p"], ARRAYS["q"]]),
    "concatenated('p', 'p', axis=-1)": np.concatenate([ARRAYS["p"], ARRAYS["p"]], axis=-1),
    "sliced('p', 1)": ARRAYS["p"][1],
    "sliced('p', None, (0, 3, 2))": ARRAYS["p"][:, 0:3:2],
    "sliced('p', -1, (1, 3))": ARRAYS["p"][-1, 1:3],
    "reshaped(transposed('p'), 2, -1)": ARRAYS["p"].T.reshape(2, -1),
}


@pytest.mark.parametrize("text", MADE)
def test_each_function_makes_what_numpy_makes_and_prints_as_its_call(text):
    move = eval(text, vars(oracle))
    move = by_recipe(move) if isinstance(move, str) else move
    assert np.array_equal(move.forward(ARRAYS), MADE[text]) and repr(move) == text


def test_over_a_function_they_work_and_have_no_recipe():
    move = stacked(moved(np.negative, "p"), "p")
    assert np.array_equal(move.forward(ARRAYS), np.stack([-ARRAYS["p"], ARRAYS["p"]]))
    assert move.recipe is None and repr(move) == "moved(..., 'p')"


RECIPES = st.recursive(st.sampled_from(["p", "q"]), lambda inner: st.one_of(
    inner.map(lambda r: {"transpose": r}), inner.map(lambda r: {"slice": r, "at": [[0, 2], None]}),
    inner.map(lambda r: {"reshape": r, "shape": [-1, 2]}),
    st.lists(inner, min_size=1, max_size=3).map(lambda r: {"stack": r}),
    st.lists(inner, min_size=1, max_size=3).map(lambda r: {"concat": r, "axis": 1})), max_leaves=5)


@given(RECIPES)
def test_any_recipe_survives_json_and_its_code_makes_it_again(recipe):
    recipes.check_recipe("r", json.loads(json.dumps(recipe)))
    made = eval(recipes.code(recipe), vars(oracle))
    assert (made if isinstance(made, str) else made.recipe) == recipe


MODEL = npple.shared_bottom(3, {"a": "binary"}, expert_units=(4,), tower_units=())
MAPPING = ModuleMapping(linear("level1/shared/experts/layer1", ["bottom"])
                        | linear("tower/a/layer1", "head"), {"tower/a": sliced("return", None, 0)},
                        idle=("unused.*",), own=("*/gate/*",), norms={"norm": "bottom"},
                        front={"first.weight": "identity", "first.bias": 0})


def test_a_mapping_comes_back_from_its_file(tmp_path):
    MAPPING.save(tmp_path / "m.json")
    assert repr(load_mapping(tmp_path / "m.json")) == repr(MAPPING)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape) for name, shape in
               {"bottom.weight": (4, 3), "bottom.bias": (4,), "head.weight": (1, 4),
                "head.bias": (1,)}.items()}
    read = [from_arrays(weights, MODEL, replace(mapping, norms={}, front={}))
            for mapping in (MAPPING, load_mapping(tmp_path / "m.json"))]
    assert all((read[0][name] == read[1][name]).all() for name in MODEL.shapes)


@pytest.mark.parametrize("mapping, fault", [
    (ModuleMapping({"w": moved(np.transpose, "p")}), r"parameters: w: moved\(...\) is a function"),
    (ModuleMapping({}, feed=lambda x: (x,)), "feed: a function, which cannot be saved"),
])
def test_functions_are_not_saved(tmp_path, mapping, fault):
    with pytest.raises(npple.InputError, match=fault):
        mapping.save(tmp_path / "m.json")


HEAD = {"format": "npple mapping", "version": 1, "parameters": {}}


def entry(recipe):
    return HEAD | {"parameters": {"w": recipe}}


@pytest.mark.parametrize("content, fault", [
    ("{", "Expecting property name"),
    ("[]", "file: an object is needed, got []"),
    ('{"format": "npple mapping", "format": 2}', "'format' stands twice in one object"),
    ('{"format": NaN}', "NaN is no JSON"),
    ({}, "format: None, expected 'npple mapping'"),
    (HEAD | {"version": 2}, "version: 2, expected 1"),
    (HEAD | {"parameter": {}}, "'parameter' is not known, expected parameters, tensors, idle"),
    (HEAD | {"tensors": []}, "tensors: a JSON object is needed, got []"),
    (HEAD | {"idle": "*"}, "idle: a JSON array is needed, got '*'"),
    (HEAD | {"idle": [1]}, "idle: [1], expected a sequence of texts"),
    (HEAD | {"norms": {"n": 1}}, "norms: n: the name of a layer, or an object with what a Norm"),
    (HEAD | {"norms": {"n": {"gamma": "g"}}}, "norms: n: 'gamma' is not known, expected weight"),
    (HEAD | {"norms": {"n": {"weight": "w", "bias": "b"}}}, "n: mean, variance, eps: missing"),
    (HEAD | {"norms": {"n": {"weight": "w", "bias": "b", "mean": "m", "variance": "v",
                             "eps": "small"}}}, "norm: eps must be"),
    (HEAD | {"front": {"w": "eye"}}, "front: w: 'identity' or a number is needed, got 'eye'"),
    ({"format": "npple mapping", "version": 1}, "parameters: missing"),
    (entry(1), "parameters: w: 1, expected a name or an object with one of transpose, stack"),
    (entry(""), "parameters: w: an empty name"),
    (entry({"turn": "p"}), "parameters: w: {'turn': 'p'}, expected a name or an object with one"),
    (entry({"transpose": "p", "stack": ["p"]}), "expected a name or an object with one"),
    (entry({"transpose": "p", "at": [0]}), "transpose: 'at' is not known, only 'axes' may"),
    (entry({"transpose": ["p"]}), "expected a name or an object with one"),
    (entry({"transpose": "p", "axes": 1}), "transpose: axes: 1, expected a list of integers"),
    (entry({"stack": "p"}), "stack: 'p', expected a list of at least one"),
    (entry({"stack": []}), "stack: [], expected a list of at least one"),
    (entry({"stack": ["p"], "axis": True}), "stack: axis: True, expected an integer"),
    (entry({"slice": "p"}), "slice: at: None, expected a list of integers, [start, stop]"),
    (entry({"slice": "p", "at": []}), "slice: at: [], expected"),
    (entry({"slice": "p", "at": [[0]]}), "slice: at: [[0]], expected"),
    (entry({"slice": "p", "at": [[0, 4, 0]]}), "slice: at: [[0, 4, 0]], expected"),
    (entry({"reshape": "p", "shape": [2.0]}), "reshape: shape: [2.0], expected"),
    (entry({"reshape": "p", "shape": [2**31]}), "reshape: shape: [2147483648], expected"),
    (entry(json.loads('{"transpose": ' * 30 + '"p"' + "}" * 30)), "more than 20 recipes within"),
    ("[" * 100_000, ""),
])
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path, content, fault):
    path = tmp_path / "m.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(npple.FileError) as error:
        load_mapping(path)
    assert str(error.value).startswith(f"{path}: no mapping: ")
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_a_name_that_is_not_there_and_an_array_too_many_are_told_with_the_way_out():
    weights = dict.fromkeys(["bottom.wait", "bottom.bias", "head.weight", "head.bias", "step"],
                            np.ones(1))
    with pytest.raises(npple.errors.MappingError) as error:
        from_arrays(weights, MODEL, replace(MAPPING, norms={}, front={}))
    assert "which the program does not have (did you mean bottom.wait?)\n" in str(error.value)
    assert "; idle= names what the model has no use for" in str(error.value).splitlines()[0]


def test_a_missing_file_and_a_path_that_is_none():
    with pytest.raises(npple.FileError, match="nowhere.json: no mapping: No such file"):
        load_mapping("nowhere.json")
    with pytest.raises(npple.InputError, match="path: a path is needed, got 3"):
        load_mapping(3)


def test_an_empty_name_is_refused_where_it_stands():
    with pytest.raises(npple.InputError, match="^mapping: parameters: a: an empty name, expected"):
        ModuleMapping({"a": ""})
