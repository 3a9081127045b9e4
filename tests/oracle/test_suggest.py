"""`suggest` on the smallest programs: what it finds, word by word, and each part by itself."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from torchlike import BatchNorm, Linear, MMoE, Module, Tensor

import npple
from npple import InputError
from npple.oracle import Proposal, suggest
from npple.oracle.layouts import Piece, Slot
from npple.oracle.mappings import ModuleMapping
from npple.oracle.proposals import (_alike, _alike_tensors, _close, _columns, _faults, _generic,
                                    _norms, _numbers, _read_outputs, _shaped, _square, _structures,
                                    _turned)

MODEL = npple.mmoe(3, {"a": "binary", "b": "regression"}, experts=2, expert_units=(4,),
                   tower_units=())
SHAPES = {"kernel": (3, 8), "offset": (8,), "gates": (2, 2, 3), "heads": (2, 4), "ends": (2,)}
PARAMETERS = """\
mapping = ModuleMapping({
    'level1/shared/experts/layer1/weight': stacked(sliced('kernel', None, (0, 4)), \
sliced('kernel', None, (4, 8))),
    'level1/shared/experts/layer1/bias': stacked(sliced('offset', (0, 4)), sliced('offset', (4, 8))),
    'level1/a/gate/layer1/weight': transposed(sliced('gates', 0)),
    'level1/b/gate/layer1/weight': transposed(sliced('gates', 1)),
    'tower/a/layer1/weight': reshaped(sliced('heads', 0), 4, 1),
    'tower/a/layer1/bias': reshaped(sliced('ends', 0), 1),
    'tower/b/layer1/weight': reshaped(sliced('heads', 1), 4, 1),
    'tower/b/layer1/bias': reshaped(sliced('ends', 1), 1),
}, {
"""  # noqa: E501
OUTPUTS = "    'tower/a': 'a',\n    'tower/b': 'b',\n}"
CERTAIN = "\n# certain: on random parameters the outputs agree"
AMBIGUOUS = """
# ambiguous: shape (3, 4): 2 of the program's for 2 of the model's, the first \
level1/shared/experts/layer1/weight[0]
# ambiguous: shape (4,): 4 of the program's for 4 of the model's, the first \
level1/shared/experts/layer1/bias[0]
# ambiguous: shape (3, 2): 2 of the program's for 2 of the model's, the first \
level1/a/gate/layer1/weight"""


def weights(**more):
    return {name: np.zeros(shape) for name, shape in (SHAPES | more).items()}


def run(w, x, gate=None, ends=None):
    experts = np.maximum(x @ w["kernel"] + w["offset"], 0).reshape(len(x), 2, 4)
    made = {}
    for i, task in enumerate("ab"):
        z = x @ w["gates"][i].T
        g = gate(z) if gate else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        made[task] = (np.einsum("bn,bno->bo", g, experts) @ w["heads"][i]
                      + (w["ends"] if ends is None else ends)[i])
    return made


# What is found ----------------------------------------------------------------------------------

def test_a_right_program_is_mapped_whole_and_certain():
    found = suggest(weights(), MODEL, run)
    assert str(found) == PARAMETERS + OUTPUTS + ")" + CERTAIN
    assert (found.certain, found.deviation, found.missing, found.unplaced, found.ambiguous) == (
        True, None, {}, {}, ())
    assert found.mapping.own == () and found.mapping.norms == {}


def test_another_structure_is_named():
    found = suggest(weights(), MODEL, lambda w, x: run(w, x, lambda z: 1 / (1 + np.exp(-z))))
    assert found.deviation == "gate-sigmoid" and found.certain
    assert str(found) == (PARAMETERS + OUTPUTS + ")" + CERTAIN
                          + "\n# the structure is not the model's but: gate-sigmoid")


def test_arrays_on_which_nothing_depends_are_idle_and_told():
    found = suggest(weights(idle=(7,), k2=(3, 4)), MODEL, run)
    assert found.certain and found.mapping.idle == ("idle", "k2")
    assert str(found) == (PARAMETERS + OUTPUTS + ", idle=('idle', 'k2'))" + CERTAIN
                          + "\n# not placed: idle: no output depends on it"
                          + "\n# not placed: k2: no output depends on it")


def test_without_a_function_all_is_by_shapes_names_and_order():
    found = suggest(weights(), MODEL)
    assert str(found) == (
        PARAMETERS + "})\n# NOT CERTAIN: look at each line, then ask npple.oracle's check"
        "\n# ambiguous: there was no function to run: this is by shapes, names and order alone"
        + AMBIGUOUS + "\n# ambiguous: shape (1,): 2 of the program's for 2 of the model's, the "
        "first tower/a/layer1/bias")


@pytest.fixture
def alone(monkeypatch):
    """No structure but the model's is tried."""
    monkeypatch.setattr("npple.oracle.proposals._structures", lambda model: [(None, model.table)])


def test_a_program_of_something_else_is_guessed_and_that_is_said(alone):
    found = suggest({name: w for name, w in weights().items() if name != "ends"}, MODEL,
                    lambda w, x: run(w, x, ends=np.ones(2)))
    lines = str(found).splitlines()
    assert lines[-8:-5] == [
        "# NOT CERTAIN: look at each line, then ask npple.oracle's check",
        "# missing: tower/a/layer1/bias: no array of shape (1,) is left",
        "# missing: tower/b/layer1/bias: no array of shape (1,) is left"]
    assert lines[-5] == ("# ambiguous: the outputs are not the model's, nor those of a known "
                         "deviation: this is by shapes, names and order alone")
    assert lines[-1] == ("# ambiguous: shape (1,): 0 of the program's for 2 of the model's, the "
                         "first tower/a/layer1/bias")


def test_what_changes_the_outputs_as_nothing_in_the_model_does_is_told(alone):
    found = suggest(weights(scale=(3,)), MODEL, lambda w, x: run(w, x * (1 + w["scale"])))
    assert not found.certain
    assert found.unplaced == {"scale": "it changes the outputs as nothing in the model does"}


def test_what_a_feed_makes_is_what_the_program_gets():
    def feed(x):
        return {"x": 2 * x}

    found = suggest(weights(), MODEL, lambda w, x: run(w, x["x"] / 2), feed=feed)
    assert found.certain and found.mapping.feed is feed
    assert str(found) == PARAMETERS + OUTPUTS + ", feed=...)" + CERTAIN


def test_logits_predictions_columns_and_names_are_read():
    def stacked(w, x):
        made = run(w, x)
        return {"all": np.stack([1 / (1 + np.exp(-made["a"])), made["b"]], axis=1)}

    found = suggest(weights(), MODEL, stacked)
    assert {name: repr(move) for name, move in found.mapping.tensors.items()} == {
        "prediction/a": "sliced('all', None, 0)", "tower/b": "sliced('all', None, 1)"}
    assert found.certain


def test_inner_tensors_that_are_equal_each_time_are_mapped():
    def seen(w, x):
        experts = np.maximum(x @ w["kernel"] + w["offset"], 0).reshape(len(x), 2, 4)
        return run(w, x) | {"e0": experts[:, 0], "e1": experts[:, 1],
                            "pre": x @ w["kernel"][:, :4] + w["offset"][:4]}

    found = suggest(weights(), MODEL, seen)
    assert repr(found.mapping.tensors["level1/shared/experts"]) == "stacked('e0', 'e1')"
    assert "level1/a" not in found.mapping.tensors


def test_experts_in_another_order_find_their_places():
    names = {f"{part}{i}": shape for i in (0, 1) for part, shape in (("w", (3, 4)), ("b", (4,)))}
    rest = {name: shape for name, shape in SHAPES.items() if name not in ("kernel", "offset")}

    def split(w, x):
        return run(w | {"kernel": np.concatenate([w["w1"], w["w0"]], axis=1),
                        "offset": np.concatenate([w["b1"], w["b0"]])}, x)

    found = suggest({n: np.zeros(s) for n, s in (names | rest).items()}, MODEL, split)
    assert found.certain
    moves = found.mapping.parameters
    order = [moves[f"level1/shared/experts/layer1/{kind}"].sources for kind in ("weight", "bias")]
    assert order in ([("w1", "w0"), ("b1", "b0")], [("w0", "w1"), ("b0", "b1")])


# Modules ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("norm", ["", "before"])
def test_a_module_is_asked_itself_and_stays_as_it_is(norm):
    module = MMoE(norm=norm)
    before = {name: p.array.copy() for name, p in module.named_parameters()}
    found = suggest(module, MODEL)
    assert found.certain and found.deviation is None
    assert {name: repr(move) for name, move in found.mapping.tensors.items()} == {
        "level1/shared/experts": "stacked('experts.0', 'experts.1')",
        "level1/a/gate/logits": "'gates.0'", "level1/b/gate/logits": "'gates.1'",
        "tower/a": "sliced('return[0]', None, 0)", "tower/b": "sliced('return[1]', None, 0)"}
    assert found.mapping.norms == ({f"experts.{i}.norm": f"experts.{i}.layer" for i in (0, 1)}
                                   if norm else {})
    assert repr(found.mapping.parameters["tower/b/layer1/weight"]) == (
        "reshaped('towers.1.weight', 4, 1)")
    for name, p in module.named_parameters():
        np.testing.assert_array_equal(p.array, before[name])
    assert module.training


def test_a_normalisation_belongs_to_the_layer_before_it_of_as_many_features():
    rng, module = np.random.default_rng(0), Module()
    module.first, module.norm = Linear(2, 3, rng), BatchNorm(3, rng)
    module.second, module.other = Linear(3, 4, rng), BatchNorm(3, rng)
    assert _norms(module) == {"norm": "first"}


# Arguments --------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, options, message", [
    (({}, None), {}, "model: a Network is needed, got None"),
    ((3, MODEL), {}, "weights: a module or a dict of arrays is needed, got int"),
    ((MMoE, MODEL), {}, "weights: a module or a dict of arrays is needed, got type"),
    (({}, MODEL, 3), {},
     "run: a function is needed, and none beside a module, which runs by itself"),
    ((MMoE(), MODEL, print), {},
     "run: a function is needed, and none beside a module, which runs by itself"),
    (({}, MODEL), {"feed": 3}, "mapping: feed: a function is needed, got 3"),
    ((weights(), MODEL, lambda w, x: [1]), {}, "run: a dict of arrays is needed, got [1]"),
    (({"w": "text"}, MODEL), {}, "weights: w: real numbers are needed, got dtype <U4, of a str")])
def test_what_cannot_be_used_is_told_in_full(arguments, options, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        suggest(*arguments, **options)


# Parts ------------------------------------------------------------------------------------------

def test_a_proposal_is_as_open_as_what_it_lacks():
    bare = Proposal(ModuleMapping({}), False)
    assert _faults(bare) == 0 and (bare.deviation, bare.missing, bare.unplaced, bare.ambiguous) == (
        None, {}, {}, ())
    assert _faults(Proposal(ModuleMapping({}), False, None, {"a": ""}, {"b": "", "c": ""},
                            ("d",))) == 4
    many = Proposal(ModuleMapping({}, idle=("x",), own=("y",), norms={"n": "l"}), True, "z",
                    {"a": "b"}, {"c": "d"}, ("e",))
    assert str(many).splitlines() == [
        "mapping = ModuleMapping({", "}, {",
        "}, idle=('x',), own=('y',), norms={'n': 'l'})",
        "# certain: on random parameters the outputs agree",
        "# the structure is not the model's but: z", "# missing: a: b", "# not placed: c: d",
        "# ambiguous: e"]


def test_structures_are_tables_each_once_the_model_first():
    found = [*_structures(MODEL)]
    names, tables = [name for name, _ in found], [table for _, table in found]
    assert names[0] is None and tables[0] == MODEL.table
    assert all(tables.index(table) == i for i, table in enumerate(tables))
    assert {"gate-bias", "gate-sigmoid", "gate-sigmoid and gate-bias"} <= {*names}
    assert not {"loss-sum", "gate-bias and gate-bias", "stop-gate and stop-gate"} & {*names}
    assert names.index("gate-sigmoid") < names.index("gate-sigmoid and gate-bias")


ROWS = 24


@pytest.mark.parametrize("shapes, recipes", [
    ({"a": (24,), "b": (24, 1)}, {"a": "a", "b": {"slice": "b", "at": [None, 0]}}),
    ({"tower/a": (24,), "return[b]": (24,)}, {"a": "tower/a", "b": "return[b]"}),
    ({"b": (24,), "a": (24,)}, {"a": "a", "b": "b"}),
    ({"x": (24,), "y": (24,)}, {"a": "x", "b": "y"}),
    ({"x": (24, 2)}, {"a": {"slice": "x", "at": [None, 0]}, "b": {"slice": "x", "at": [None, 1]}}),
    ({"x": (24, 1), "y": (24,)}, {"a": {"slice": "x", "at": [None, 0]}, "b": "y"}),
    ({"x": (24, 3)}, None), ({"x": (24,)}, None), ({"a": (24, 2), "b": (24,)}, None)])
def test_outputs_are_taken_by_name_or_in_their_order(shapes, recipes):
    assert _columns(MODEL, {name: np.zeros(shape) for name, shape in shapes.items()}) == recipes


def test_classes_have_columns_of_their_own():
    model = npple.mmoe(3, {"a": "multiclass:3", "b": "binary"}, experts=2, expert_units=(4,),
                       tower_units=())
    zeros = {"x": np.zeros((24, 3)), "y": np.zeros((24, 1))}
    assert _columns(model, zeros) == {"a": "x", "b": {"slice": "y", "at": [None, 0]}}
    assert _columns(model, {"a": np.zeros((24, 3)), "b": np.zeros(24)}) == {"a": "a", "b": "b"}


def test_a_shape_is_wanted_as_it_is_or_with_an_axis_of_one():
    assert _shaped("y", (24,), (24,)) == "y"
    assert _shaped("y", (24, 1), (24,)) == {"slice": "y", "at": [None, 0]}
    assert _shaped("y", (24, 2), (24,)) is None and _shaped("y", (1, 24), (24,)) is None


def test_outputs_are_read_where_all_agree():
    expected = {"a": {"tower": np.array([1.0, 2.0]), "prediction": np.array([0.7, 0.9])},
                "b": {"tower": np.array([3.0, 4.0]), "prediction": np.array([3.0, 4.0])}}
    outputs = {"x": np.array([0.7, 0.9]), "y": np.array([3.0, 4.0])}
    assert _read_outputs({"a": "x", "b": "y"}, outputs, expected, 1e-9) == {
        "a": ("prediction", "x"), "b": ("tower", "y")}
    assert _read_outputs({"a": "x", "b": "x"}, outputs, expected, 1e-9) is None


def test_values_are_close_relative_to_the_largest_or_to_one():
    y = np.array([4.0, 0.0])
    assert _close(y + [0, 4e-3], y, 1.01e-3) and not _close(y + [0, 4.1e-3], y, 1e-3)
    small = np.array([0.25, 0.0])
    assert _close(small + [0, 1e-3], small, 1.01e-3)
    assert not _close(small + [0, 1.1e-3], small, 1e-3) and not _close(small[:1], small, 1.0)


def test_only_arrays_are_looked_at():
    found = _numbers({"y": np.ones(2), "z": 3, "t": Tensor(np.ones(2)), "n": None})
    assert [*found] == ["y", "t"] and all(type(array) is np.ndarray for array in found.values())
    with pytest.raises(InputError, match="^run: y: real numbers are needed"):
        _numbers({"y": np.array(["text"])})


def test_tensors_that_are_alike_are_found_part_by_part():
    one, two = np.full((5, 2), 1.0), np.full((5, 2), 2.0)
    trace = {"input": one, "level1/e": np.stack([one, two]), "level1/a": two, "tower/a": one,
             "tower/a/layer1": one, "h": one}
    seen = {"p": one + 1e-9, "q": two, "r": one, "h": one}
    assert _alike_tensors(seen, trace, 1e-6) == {
        "level1/e": [{"p", "r", "h"}, {"q"}], "level1/a": [{"q"}],
        "tower/a/layer1": [{"p", "r", "h"}]}


@pytest.mark.parametrize("piece, slot, turned", [
    ((3, 4), (4, 3), True), ((3, 4), (3, 4), False), ((3, 1, 4), (3, 4), False),
    ((4, 1, 3), (3, 4), True), ((4,), (4, 1), False), ((3, 3), (3, 3), False)])
def test_what_stands_the_other_way_round(piece, slot, turned):
    assert _turned(Piece("p", "p", piece), Slot("w", None, slot)) == turned


def test_a_square_has_two_equal_axes():
    assert _square(Slot("w", None, (3, 3))) and _square(Slot("w", None, (3, 1, 3)))
    assert not _square(Slot("w", None, (3, 4))) and not _square(Slot("w", None, (3,)))


@pytest.mark.parametrize("source, shape, slot, score", [
    ("x", (9,), "tower/a/layer1/bias", 0.0), ("head", (9,), "tower/x/layer1/bias", 1.0),
    ("Head.a.bias", (9,), "tower/a/layer1/bias", 4.0), ("q", (2,), "tower/x/layer1/bias", 0.5),
    ("x", (2,), "zzz/bias", 0.5), ("expert.weight", (9,), "level1/shared/experts/l/weight", 2.0),
    ("shared.bottom", (9,), "level1/shared/experts/l/weight", 3.0),
    ("router.b", (9,), "level1/b/gate/layer1/weight", 3.0), ("q", (9,), "embedding/city", 0.0),
    ("q_emb", (9,), "embedding/city", 1.0)])
def test_names_agree_as_far_as_they_share_words(source, shape, slot, score):
    probe = SimpleNamespace(model=SimpleNamespace(tasks=["a", "b"]))
    assert _alike(probe, Slot(slot, None, (2,)), Piece(source, source, shape)) == score


def test_random_parameters_are_of_the_size_of_layers():
    table = npple.mmoe(30, {"a": "binary"}, experts=2, expert_units=(40,), tower_units=()).table
    one, other = _generic(table, 1), _generic(table, 2)
    assert {name: p.shape for name, p in one.items()} == dict(table.shapes)
    weight, bias = (f"level1/shared/experts/layer1/{kind}" for kind in ("weight", "bias"))
    assert one[weight].std() == pytest.approx(30**-0.5, rel=0.1)
    assert one[bias].std() == pytest.approx(2**-0.5, rel=0.6)
    assert not np.allclose(one[weight], other[weight])
    np.testing.assert_array_equal(one[weight], _generic(table, 1)[weight])
