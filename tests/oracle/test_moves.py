"""Moves and mappings, word by word: where entries come from, what a file holds, what is refused."""

import json
import re

import numpy as np
import pytest

import npple
from npple import FileError, InputError
from npple.errors import MappingError
from npple.oracle.mappings import (ModuleMapping, Move, as_it_is, by_recipe, check_mapping,
                                   coarsest, concatenated, linear, load_mapping, moved, read,
                                   reshaped, shapes_of, sliced, stacked, transposed, unreadable,
                                   written)
from npple.oracle.recipes import check_recipe, code, follow, sources

P, Q = np.arange(6.0).reshape(2, 3), np.arange(6.0, 12.0).reshape(2, 3)
MODEL = npple.shared_bottom(2, {"a": "binary"}, expert_units=(3,), tower_units=())
LAYER = "level1/shared/experts/layer1"
ENTRIES = {f"{LAYER}/weight": stacked("w"), f"{LAYER}/bias": stacked("b"),
           "tower/a/layer1/weight": "h", "tower/a/layer1/bias": "e"}
ARRAYS = {"w": np.ones((2, 3)), "b": np.zeros(3), "h": np.ones((3, 1)), "e": np.zeros(1)}


# Moves ------------------------------------------------------------------------------------------

def test_entries_come_from_their_numbered_places_and_constants_from_nowhere():
    move = moved(lambda p, q: np.concatenate([q.T[:1], np.full((1, 2), -5), p[:, 1:].T]), "p", "q")
    shape, origins = move.origins({"p": (2, 3), "q": (2, 3), "more": (9,)})
    assert shape == (4, 2) and [name for name, _, _ in origins] == ["p", "q"]
    (_, mine, places), (_, theirs, others) = origins
    assert mine.tolist() == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]
    assert theirs.tolist() == [[True] * 2] + [[False] * 2] * 3
    assert places.tolist() == [1, 4, 2, 5] and others.tolist() == [0, 3]
    assert places.dtype == np.intp


def test_zero_and_the_number_after_the_last_are_constants():
    for constant in (0, 7):
        shape, [(_, mask, places)] = moved(lambda p, c=constant: np.array([c, p[0, 0], p[1, 2]]),
                                           "p").origins({"p": (2, 3)})
        assert shape == (3,) and mask.tolist() == [False, True, True] and places.tolist() == [0, 5]


def test_what_is_written_goes_where_it_came_from():
    arrays = {"p": P.copy(), "q": Q.copy()}
    move = moved(lambda p, q: np.stack([p[0], [0, 0, 0], q[1]]), "p", "q")
    placed = move.write(np.full((3, 3), 9.0), arrays)
    assert placed.dtype == bool and placed.tolist() == [[True] * 3, [False] * 3, [True] * 3]
    assert arrays["p"].tolist() == [[9, 9, 9], [3, 4, 5]]
    assert arrays["q"].tolist() == [[6, 7, 8], [9, 9, 9]]


def test_a_move_prints_as_the_call_that_makes_it():
    assert repr(moved(np.transpose, "p", "q")) == "moved(..., 'p', 'q')"
    assert repr(moved(lambda: P)) == "moved(...)" and repr(by_recipe("p")) == "'p'"
    assert type(moved(lambda p: [1, 2], "p").forward({"p": P})) is np.ndarray


def test_a_layer_has_a_weight_and_a_bias_of_one_path_or_of_several():
    one = linear("t/layer1", "head")
    assert {name: repr(move) for name, move in one.items()} == {
        "t/layer1/weight": "transposed('head.weight')", "t/layer1/bias": "'head.bias'"}
    assert [*linear("g", "gate", bias=False)] == ["g/weight"]
    assert {name: repr(move) for name, move in linear("e", ["e0", "e1"]).items()} == {
        "e/weight": "stacked(transposed('e0.weight'), transposed('e1.weight'))",
        "e/bias": "stacked('e0.bias', 'e1.bias')"}


@pytest.mark.parametrize("move, recipe", [
    (stacked("p", "q"), {"stack": ["p", "q"]}),
    (stacked("p", axis=2), {"stack": ["p"], "axis": 2}),
    (concatenated("p", "q"), {"concat": ["p", "q"]}),
    (concatenated("p", axis=1), {"concat": ["p"], "axis": 1}),
    (transposed("p"), {"transpose": "p"}),
    (transposed("p", [1, 0]), {"transpose": "p", "axes": [1, 0]}),
    (sliced("p", 0, (1, 2), None), {"slice": "p", "at": [0, [1, 2], None]}),
    (reshaped(transposed("p"), 3, 2), {"reshape": {"transpose": "p"}, "shape": [3, 2]})])
def test_each_function_has_its_recipe(move, recipe):
    assert move.recipe == recipe and move.sources == tuple(dict.fromkeys(sources(recipe)))


def test_functions_over_functions_have_no_recipe_and_their_sources_once():
    double = moved(lambda p, q: p + q, "p", "q")
    move = concatenated(double, "q", double, axis=1)
    assert move.recipe is None and move.sources == ("p", "q")
    np.testing.assert_array_equal(move.forward({"p": P, "q": Q}),
                                  np.concatenate([P + Q, Q, P + Q], axis=1))
    turned = transposed(moved(lambda p: p.tolist(), "p"))
    np.testing.assert_array_equal(turned.forward({"p": P}), P.T)
    assert transposed(double).sources == ("p", "q")


@pytest.mark.parametrize("make, message", [
    (lambda: stacked(), "recipe: stack: [], expected a list of at least one"),
    (lambda: stacked("p", 3), "stacked(...): the module's name or moved(...) is needed, got 3"),
    (lambda: transposed(moved(np.negative, "p"), ["a"]),
     "transposed: transpose: axes: ['a'], expected a list of integers"),
    (lambda: sliced("p"), "recipe: slice: at: [], expected a list of integers, [start, stop], "
                          "[start, stop, step] or null"),
    (lambda: by_recipe(3), "recipe: 3, expected a name or an object with one of transpose, stack, "
                           "concat, slice, reshape"),
    (lambda: ModuleMapping({"a": 3}), "mapping: parameters: a: the module's name or moved(...) is "
                                      "needed, got 3"),
    (lambda: ModuleMapping({}, {"a": 3}), "mapping: tensors: a: the module's name or moved(...) is "
                                          "needed, got 3"),
    (lambda: ModuleMapping([]), "mapping: parameters: a dict is needed, got []"),
    (lambda: ModuleMapping({}, []), "mapping: tensors: a dict is needed, got []"),
    (lambda: ModuleMapping({}, norms=[]), "mapping: norms: a dict is needed, got []"),
    (lambda: ModuleMapping({}, idle="x"), "mapping: idle: 'x', expected a sequence of texts"),
    (lambda: ModuleMapping({}, own=[3]), "mapping: own: [3], expected a sequence of texts"),
    (lambda: ModuleMapping({}, feed=3), "mapping: feed: a function is needed, got 3")])
def test_what_is_no_move_or_mapping_is_refused_in_full(make, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make()


def test_a_mapping_bare_has_nothing_more():
    bare = ModuleMapping({})
    assert (bare.tensors, bare.idle, bare.own, bare.norms) == ({}, (), (), {})
    assert bare.feed is as_it_is and as_it_is(P) is P
    assert ModuleMapping({}, idle=["x"], own=["y"]).idle == ("x",)


# Recipes ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("recipe, message", [
    ("", "r: an empty name, expected the name of an array"),
    ({"stack": ["p"], "at": 1}, "r: stack: 'at' is not known, only 'axis' may stand beside it"),
    ({"concat": ["p"], "axis": 1.0}, "r: concat: axis: 1.0, expected an integer"),
    ({"reshape": "p"}, "r: reshape: shape: None, expected a list of integers"),
    ({"slice": "p", "at": [[1]]}, "r: slice: at: [[1]], expected a list of integers, [start, stop],"
                                  " [start, stop, step] or null"),
    ({"slice": "p", "at": [[0, 4, 0]]}, "r: slice: at: [[0, 4, 0]], expected a list of integers, "
                                        "[start, stop], [start, stop, step] or null"),
    ({"stack": ["p", 3]}, "r: 3, expected a name or an object with one of transpose, stack, concat,"
                          " slice, reshape"),
    ({"transpose": ["p"]}, "r: ['p'], expected a name or an object with one of transpose, stack, "
                           "concat, slice, reshape")])
def test_what_is_no_recipe_is_told_in_full(recipe, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_recipe("r", recipe)


def test_recipes_within_recipes_end_at_twenty():
    recipe = "p"
    for _ in range(20):
        recipe = {"transpose": recipe}
    check_recipe("r", recipe)
    with pytest.raises(InputError, match="^r: more than 20 recipes within one another$"):
        check_recipe("r", {"transpose": recipe})


@pytest.mark.parametrize("number, fine", [(2**31 - 1, True), (2**31, False), (-2**31, False),
                                          (1 - 2**31, True)])
def test_numbers_in_recipes_have_a_limit(number, fine):
    if fine:
        return check_recipe("r", {"slice": "p", "at": [number]})
    with pytest.raises(InputError):
        check_recipe("r", {"slice": "p", "at": [number]})


@pytest.mark.parametrize("recipe, made, text", [
    ({"transpose": "p", "axes": [0, 1]}, P, "transposed('p', axes=(0, 1))"),
    ({"stack": ["p", "q"]}, np.stack([P, Q]), "stacked('p', 'q')"),
    ({"stack": ["p", "q"], "axis": 2}, np.stack([P, Q], 2), "stacked('p', 'q', axis=2)"),
    ({"concat": ["p", "q"], "axis": 1}, np.concatenate([P, Q], 1),
     "concatenated('p', 'q', axis=1)"),
    ({"slice": "p", "at": [[0, 2], [0, 3, 2]]}, P[:, ::2], "sliced('p', (0, 2), (0, 3, 2))"),
    ({"slice": "p", "at": [None, -1]}, P[:, -1], "sliced('p', None, -1)"),
    ({"reshape": "p", "shape": [3, -1]}, P.reshape(3, 2), "reshaped('p', 3, -1)")])
def test_recipes_are_followed_and_printed(recipe, made, text):
    check_recipe("r", recipe)
    np.testing.assert_array_equal(follow(recipe, {"p": P, "q": Q}), made)
    assert code(recipe) == text


def test_names_in_a_recipe_come_once_in_their_order():
    assert sources({"stack": ["q", {"transpose": "p"}, "q"]}) == ("q", "p")
    assert sources("p") == ("p",)


# Files ------------------------------------------------------------------------------------------

def test_a_file_is_json_that_one_can_read(tmp_path):
    mapping = ModuleMapping({"t/weight": transposed("h")}, {"tower/a": "y"}, ("x.*",), ("g/*",),
                            {"n": "l"})
    mapping.save(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert text.startswith('{\n "format": "npple mapping",\n "version": 1,\n "parameters": {\n')
    assert json.loads(text) == {
        "format": "npple mapping", "version": 1, "parameters": {"t/weight": {"transpose": "h"}},
        "tensors": {"tower/a": "y"}, "idle": ["x.*"], "own": ["g/*"], "norms": {"n": "l"},
        "front": {}}
    again = load_mapping(tmp_path / "m.json")
    assert repr(again.parameters) == repr(mapping.parameters)
    assert repr(again.tensors) == repr(mapping.tensors)
    assert (again.idle, again.own, again.norms) == (("x.*",), ("g/*",), {"n": "l"})


@pytest.mark.parametrize("mapping, message", [
    (ModuleMapping({"w": moved(np.transpose, "p")}),
     "mapping: parameters: w: moved(...) is a function, which cannot be saved; use transposed, "
     "stacked, concatenated, sliced, reshaped"),
    (ModuleMapping({}, {"t": moved(np.transpose, "p")}),
     "mapping: tensors: t: moved(...) is a function, which cannot be saved; use transposed, "
     "stacked, concatenated, sliced, reshaped"),
    (ModuleMapping({}, feed=lambda x: x),
     "mapping: feed: a function, which cannot be saved; set it again after loading, with "
     "dataclasses.replace")])
def test_functions_are_not_saved_and_that_is_told_in_full(tmp_path, mapping, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        mapping.save(tmp_path / "m.json")


HEAD = {"format": "npple mapping", "version": 1}


@pytest.mark.parametrize("content, message", [
    ("[]", "file: an object is needed, got []"),
    ('{"a": 1, "a": 2}', "'a' stands twice in one object"),
    ('{"a": Infinity}', "Infinity is no JSON"),
    (json.dumps(HEAD | {"version": "1"}), "version: '1', expected 1"),
    (json.dumps({"format": "x"}), "format: 'x', expected 'npple mapping'"),
    (json.dumps(HEAD | {"more": 1}),
     "'more' is not known, expected parameters, tensors, idle, own, norms, front"),
    (json.dumps(HEAD), "parameters: missing"),
    (json.dumps(HEAD | {"parameters": []}), "parameters: a JSON object is needed, got []"),
    (json.dumps(HEAD | {"parameters": {}, "own": {}}), "own: a JSON array is needed, got {}"),
    (json.dumps(HEAD | {"parameters": {"w": ""}}),
     "parameters: w: an empty name, expected the name of an array"),
    (json.dumps(HEAD | {"parameters": {}, "tensors": {"t": ""}}),
     "tensors: t: an empty name, expected the name of an array"),
    (json.dumps(HEAD | {"parameters": {}, "norms": {"n": 1}}),
     "norms: n: the name of a layer, or an object with what a Norm has, is needed, got 1")])
def test_what_is_no_mapping_is_told_in_full(tmp_path, content, message):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(FileError) as caught:
        load_mapping(tmp_path / "m.json")
    assert str(caught.value) == f"{tmp_path / 'm.json'}: no mapping: {message}"
    assert caught.value.__cause__ is not None


def test_parameters_alone_are_a_mapping_and_a_file_that_is_not_there_is_told(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(HEAD | {"parameters": {"w": "p"}}))
    assert repr(load_mapping(tmp_path / "m.json").parameters) == "{'w': 'p'}"
    with pytest.raises(FileError) as caught:
        load_mapping(tmp_path / "none.json")
    assert str(caught.value) == f"{tmp_path / 'none.json'}: no mapping: No such file or directory"


# Reading and writing ----------------------------------------------------------------------------

def test_parameters_are_read_in_single_precision_at_least_and_anew():
    mapping = ModuleMapping(ENTRIES)
    for dtype, made in (("float16", "float32"), ("float32", "float32"), ("float64", "float64")):
        params = read(MODEL, mapping, {name: a.astype(dtype) for name, a in ARRAYS.items()})
        assert {p.dtype.name for p in params.values()} == {made}
        assert all(p.flags["C_CONTIGUOUS"] for p in params.values())
        assert [*params] == [*MODEL.shapes]
    params["tower/a/layer1/weight"][...] = 5
    assert (ARRAYS["h"] == 1).all()


def test_parameters_are_written_into_copies_and_what_does_not_fit_stays():
    params = {name: p + 3 for name, p in MODEL.init(0).items()}
    made = written(MODEL, ModuleMapping(ENTRIES), params, ARRAYS)
    np.testing.assert_array_equal(made["w"], params[f"{LAYER}/weight"][0])
    np.testing.assert_array_equal(made["e"], params["tower/a/layer1/bias"])
    assert (ARRAYS["e"] == 0).all()
    wide = ARRAYS | {"e": np.zeros(2)}
    kept = written(MODEL, ModuleMapping(ENTRIES), params, wide, ("tower/a/layer1/bias",))
    assert kept["e"].tolist() == [0, 0]
    without = {name: entry for name, entry in ENTRIES.items() if not name.endswith("layer1/bias")}
    kept = written(MODEL, ModuleMapping(without, idle=("e", "b")), params, ARRAYS, ("*/bias",))
    assert kept["e"].tolist() == [0]
    constant = ModuleMapping(ENTRIES | {"tower/a/layer1/bias": moved(lambda: np.ones(1))},
                             idle=("e",))
    with pytest.raises(InputError, match=re.escape(
            "mapping: tower/a/layer1/bias: a constant in the module, which has no place for other "
            "values")):
        written(MODEL, constant, params, ARRAYS)
    with pytest.raises(InputError, match="^params"):
        written(MODEL, ModuleMapping(ENTRIES), {}, ARRAYS)


def test_every_fault_of_a_mapping_has_its_line():
    mapping = ModuleMapping(ENTRIES | {
        "tower/a/layer1/weight": sliced("h", (0, 2)), "more": "e", "tower/a/layer1/bias": "none",
        f"{LAYER}/bias": moved(np.linalg.det, "b")})
    with pytest.raises(MappingError) as caught:
        check_mapping(MODEL, mapping, ARRAYS | {"x" * 99: np.zeros(2)})
    lines = str(caught.value).split("\n  ")
    assert lines[0].startswith("mapping: 7 parameters do not fit; idle= names") and len(lines) == 8
    assert lines[1].startswith(f"{LAYER}/bias: cannot be made of b (3,): ")
    assert lines[3].startswith(
        "tower/a/layer1/bias: made of 'none', which the program does not have; there are w, b, h")
    assert [lines[2], *lines[4:6]] == [
        "tower/a/layer1/weight: of shape (3, 1) in the model, (2, 1) made of h (3, 1)",
        "more: mapped to e (1,), not in the model", "b (3,) of the program: it is not mapped"]
    assert lines[6] == "h (3, 1) of the program: 1 of 3 entries not mapped"
    assert lines[7] == f"{'x' * 20}...{'x' * 37} (2,) of the program: it is not mapped"
    with pytest.raises(InputError, match="^model: a Network is needed, got 3"):
        check_mapping(3, mapping, ARRAYS)


def test_constants_and_what_is_taken_twice_are_told():
    mapping = ModuleMapping(ENTRIES | {"tower/a/layer1/bias": moved(lambda: np.ones(2))})
    with pytest.raises(MappingError) as caught:
        check_mapping(MODEL, mapping, ARRAYS)
    assert str(caught.value).split("\n  ")[1:] == [
        "tower/a/layer1/bias: of shape (1,) in the model, (2,) made of constants",
        "e (1,) of the program: it is not mapped"]
    twice = ModuleMapping(ENTRIES | {"tower/a/layer1/bias": sliced("b", (0, 1))}, idle=("e",))
    with pytest.raises(MappingError) as caught:
        check_mapping(MODEL, twice, ARRAYS)
    assert str(caught.value).split("\n  ")[1:] == ["b (3,) of the program: mapped more than once"]


def test_what_an_array_is_made_of_decides_its_precision():
    known = {"p": "float32", "q": "bfloat16", "r": "float64"}
    assert coarsest(stacked("p", "q"), known) == "bfloat16"
    assert coarsest(by_recipe("p"), known) == "float32"
    assert coarsest(moved(lambda: P), known) == "float64"
    assert shapes_of({"p": P}) == {"p": (2, 3)}


def test_what_cannot_be_made_is_told_why():
    shapes = {"p": (2, 3), "q": (3,)}
    assert unreadable(stacked("p", "p"), shapes) is None
    assert unreadable(stacked("p", "z", "y"), shapes) == (
        "made of 'z', 'y', which the program does not have; there are p, q")
    for move in (stacked("p", "q"), sliced("p", 9), Move(lambda p: p(3), ("p",))):
        assert unreadable(move, shapes).startswith("cannot be made of p (2, 3)")
