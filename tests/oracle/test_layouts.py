"""Layouts by shapes: slots and pieces, how arrays are cut, recipes for whole parameters."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

import npple
from npple.oracle.layouts import (Piece, Slot, _halved, _readings, assembled, base, key_of, layouts,
                                  oriented, slots_of)
from npple.oracle.mappings import by_recipe


def cut(pieces):
    return [(piece.recipe["at"], piece.shape) for piece in pieces]


# Slots and pieces -------------------------------------------------------------------------------

def test_a_model_consists_of_what_each_expert_and_each_layer_has():
    table = npple.mmoe(3, {"a": "binary"}, experts=2, expert_units=(4,), tower_units=()).table
    layer = "level1/shared/experts/layer1"
    assert slots_of(table) == [
        Slot(f"{layer}/weight", 0, (3, 4)), Slot(f"{layer}/weight", 1, (3, 4)),
        Slot(f"{layer}/bias", 0, (4,)), Slot(f"{layer}/bias", 1, (4,)),
        Slot("level1/a/gate/layer1/weight", None, (3, 2)),
        Slot("tower/a/layer1/weight", None, (4, 1)), Slot("tower/a/layer1/bias", None, (1,))]
    sluice = npple.snr_trans(2, {"a": "binary"}, levels=1, experts=2, expert_units=(2,),
                             tower_units=()).table
    deep = [slot for slot in slots_of(sluice) if len(sluice.shapes[slot.name]) > 2]
    assert deep and all(slot.index is not None for slot in deep)
    assert all(slot.shape == sluice.shapes[slot.name][1:] for slot in deep)


def test_a_slot_is_a_view_of_its_parameter():
    params = {"w": np.arange(12.0).reshape(2, 2, 3), "b": np.arange(2.0)}
    slot = Slot("w", 1, (2, 3))
    slot.of(params)[...] = 7
    assert params["w"][1].tolist() == [[7] * 3] * 2 and params["w"][0].max() == 5
    assert Slot("b", None, (2,)).of(params) is params["b"]
    assert str(slot) == "w[1]" and str(Slot("b", None, (2,))) == "b"
    assert slot.key == (2, 3) and Slot("w", 0, (3, 1, 2)).key == (2, 3)


def test_axes_of_one_and_their_order_count_for_nothing():
    assert key_of((3, 1, 2)) == (2, 3) and key_of((1, 1)) == () and key_of([5]) == (5,)
    assert Piece("p", "p", (4, 1, 3)).key == (3, 4)


@pytest.mark.parametrize("shape, slot, turned, recipe", [
    ((3, 4), (3, 4), False, "p"), ((4, 3), (3, 4), True, {"transpose": "p"}),
    ((4, 1, 3), (3, 4), True, {"transpose": {"reshape": "p", "shape": [4, 3]}}),
    ((3, 1, 4), (3, 4), False, {"reshape": "p", "shape": [3, 4]}),
    ((4,), (4, 1), False, {"reshape": "p", "shape": [4, 1]}),
    ((3, 3), (3, 3), True, {"transpose": "p"}),
    ((4, 3), (3, 4, 1), True, {"reshape": {"transpose": "p"}, "shape": [3, 4, 1]})])
def test_a_piece_fills_a_slot_of_its_key(shape, slot, turned, recipe):
    made = Piece("p", "p", shape).fill(Slot("w", None, slot), turned)
    assert made == recipe
    assert by_recipe(made).forward({"p": np.zeros(shape)}).shape == slot


def test_numbers_of_a_key_are_turned_where_the_shape_is():
    numbers = np.arange(6.0).reshape(2, 3)
    assert oriented(numbers, (2, 3)) is not None
    np.testing.assert_array_equal(oriented(numbers, (2, 3)), numbers)
    np.testing.assert_array_equal(oriented(numbers, (3, 2)), numbers.T)
    np.testing.assert_array_equal(oriented(numbers, (3, 1, 2)), numbers.T.reshape(3, 1, 2))
    np.testing.assert_array_equal(oriented(np.arange(3.0), (1, 3)), [[0, 1, 2]])
    assert oriented(np.array(5.0), (1,)).tolist() == [5.0]


# Readings ---------------------------------------------------------------------------------------

def test_a_piece_is_taken_apart_along_each_axis_entry_by_entry_then_in_equal_parts():
    parts = [cut(each) for each in _halved(Piece("", "", (4, 2)), {(2, 2): 4})]
    assert parts == [
        [([i], (2,)) for i in range(4)], [([None, i], (4,)) for i in range(2)],
        [([[0, 2]], (2, 2)), ([[2, 4]], (2, 2))],
        [([[0, 4, 2]], (2, 2)), ([[1, 4, 2]], (2, 2))]]


def test_no_more_parts_are_made_than_there_are_slots():
    assert [len(each) for each in _halved(Piece("", "", (6,)), {(3,): 2, (): 0})] == [2, 2]
    assert [len(each) for each in _halved(Piece("", "", (6,)), {(3,): 2, (): 1})] == [2, 2, 3, 3]
    assert [len(each) for each in _halved(Piece("", "", (2,)), {(): 2})] == [2]
    assert [*_halved(Piece("", "", (2,)), {(2,): 2})] == []
    assert [*_halved(Piece("", "", (1, 1)), {(): 2})] == []
    assert [*_halved(Piece("", "", (3,)), {(3,): 4})] == []


@pytest.mark.parametrize("shape, wanted, arrays, found", [
    ((2, 3, 4), {(3, 4): 2}, 1, [[([0], (3, 4)), ([1], (3, 4))]]),
    ((2, 3, 4), {(3, 4): 2}, 2, []),  # two arrays would give four
    ((3, 8), {(3, 4): 2}, 1, [[([None, [0, 4]], (3, 4)), ([None, [4, 8]], (3, 4))],
                              [([None, [0, 8, 2]], (3, 4)), ([None, [1, 8, 2]], (3, 4))]]),
    ((5, 3), {(3, 4): 1}, 1, [[([[1, 5]], (4, 3)), ([0], (3,))]]),  # a row for padding
    ((2,), {(1, 2): 1}, 1, []), ((3,), {(2,): 1}, 1, [])])
def test_arrays_are_cut_into_what_is_wanted(shape, wanted, arrays, found):
    assert [cut(each) for each in _readings(shape, Counter(wanted), arrays)] == found


def test_what_fits_whole_is_one_piece_and_comes_first():
    first, *more = _readings((4,), Counter({(4,): 1, (2,): 2}), 1)
    assert [(piece.recipe, piece.shape) for piece in first] == [("", (4,))]
    assert [cut(each) for each in more] == [[([[0, 2]], (2,)), ([[2, 4]], (2,))],
                                            [([[0, 4, 2]], (2,)), ([[1, 4, 2]], (2,))]]
    assert len(_readings((12, 12), Counter({(k,): 50 for k in (1, 2, 3, 4, 6, 12)}
                                           | {(): 200, (12, 12): 9}), 1)) <= 8


def test_pieces_of_pieces_are_cut_twice_at_most():
    found = _readings((2, 2, 3), Counter({(3,): 4}), 1)
    assert [[piece.shape for piece in each] for each in found] == [[(3,)] * 4, [(3,)] * 4]
    array = np.arange(12.0).reshape(2, 2, 3)
    for each in found:
        rows = [by_recipe({**piece.recipe, "slice": {**piece.recipe["slice"], "slice": "p"}}
                          ).forward({"p": array}) for piece in each]
        assert sorted(row.tolist() for row in rows) == array.reshape(4, 3).tolist()


def test_layouts_come_with_those_first_that_fill_all_slots():
    table = npple.mmoe(3, {"a": "binary"}, experts=2, expert_units=(4,), tower_units=()).table
    shapes = {"k": (3, 8), "b": (8,), "g": (2, 3), "h": (4,), "o": (1,), "more": (7, 5)}
    first, second = islice(layouts(shapes, slots_of(table)), 2)
    assert [(piece.source, piece.recipe, piece.shape) for piece in first] == [
        ("k", {"slice": "k", "at": [None, [0, 4]]}, (3, 4)),
        ("k", {"slice": "k", "at": [None, [4, 8]]}, (3, 4)),
        ("b", {"slice": "b", "at": [[0, 4]]}, (4,)), ("b", {"slice": "b", "at": [[4, 8]]}, (4,)),
        ("g", "g", (2, 3)), ("h", "h", (4,)), ("o", "o", (1,)), ("more", "more", (7, 5))]
    assert [piece.recipe for piece in second][2:4] == [{"slice": "b", "at": [[0, 8, 2]]},
                                                       {"slice": "b", "at": [[1, 8, 2]]}]


def test_arrays_of_one_shape_are_cut_alike_and_what_lacks_least_wins():
    slots = [Slot("w", i, (2, 3)) for i in range(4)]
    first = next(layouts({"p": (4, 3), "q": (4, 3)}, slots))
    assert [(piece.source, piece.recipe["at"]) for piece in first] == [
        ("p", [[0, 2]]), ("p", [[2, 4]]), ("q", [[0, 2]]), ("q", [[2, 4]])]
    whole = next(layouts({"p": (6,)}, [Slot("b", None, (6,))]))
    assert [piece.recipe for piece in whole] == ["p"]
    both = next(layouts({"p": (4,)}, [Slot("b", None, (4,)), *(Slot("c", i, (2,))
                                                              for i in range(2))]))
    assert [piece.shape for piece in both] == [(2,), (2,)]  # one slot lacks, not two


# Recipes ----------------------------------------------------------------------------------------

def sliced(*at, of="p"):
    return {"slice": of, "at": [*at]}


@pytest.mark.parametrize("parts, made", [
    ([(1, "q"), (0, "p")], {"stack": ["p", "q"]}), ([(None, "p")], "p"),
    ([(0, sliced(2)), (1, sliced(3))], sliced([2, 4])),
    ([(0, {"transpose": sliced(0)}), (1, {"transpose": sliced(1)})],
     {"transpose": sliced([0, 2]), "axes": [0, 2, 1]}),
    ([(0, sliced(0)), (1, sliced(2))], {"stack": [sliced(0), sliced(2)]}),
    ([(0, sliced(1)), (1, sliced(0))], {"stack": [sliced(1), sliced(0)]}),
    ([(0, sliced(0)), (1, sliced(1, of="q"))], {"stack": [sliced(0), sliced(1, of="q")]}),
    ([(0, sliced(0, 1)), (1, sliced(1, 1))], {"stack": [sliced(0, 1), sliced(1, 1)]}),
    ([(0, sliced([0, 2])), (1, sliced([2, 4]))], {"stack": [sliced([0, 2]), sliced([2, 4])]}),
    ([(0, "p"), (1, sliced(0))], {"stack": ["p", sliced(0)]}),
    ([(0, {"transpose": sliced(0)}), (1, sliced(1))],
     {"stack": [{"transpose": sliced(0)}, sliced(1)]}),
    ([(0, {"transpose": "p", "axes": [1, 0]})], {"stack": [{"transpose": "p", "axes": [1, 0]}]})])
def test_recipes_of_slots_become_that_of_a_parameter(parts, made):
    filled = {Slot("w", index, (2,)): recipe for index, recipe in parts}
    assert assembled(filled) == {"w": made}


def test_parameters_are_assembled_each_by_itself():
    assert assembled({Slot("w", 0, (2,)): "p", Slot("b", None, (2,)): "q",
                      Slot("w", 1, (2,)): "r"}) == {"w": {"stack": ["p", "r"]}, "b": "q"}


# Numbers ----------------------------------------------------------------------------------------

def test_numbers_of_a_key_are_its_own_and_of_the_size_of_a_layer():
    (one, step), (again, _), (other, _) = base((30, 40), 1), base((30, 40), 1), base((30, 40), 2)
    np.testing.assert_array_equal(one, again)
    assert one.shape == step.shape == (30, 40) and not np.allclose(one, other)
    assert not np.allclose(one, step)
    assert one.std() == pytest.approx(35**-0.5, rel=0.05) == step.std()
    assert base((1000,), 0)[0].std() == pytest.approx(0.5, rel=0.05)
    assert base((), 0)[0].shape == ()


def test_a_square_of_numbers_is_symmetric_and_its_step_is_not():
    numbers, step = base((40, 40), 0)
    np.testing.assert_array_equal(numbers, numbers.T)
    assert np.abs(step - step.T).max() > 0.1
    assert numbers.std() == pytest.approx(40**-0.5, rel=0.05)
    assert not np.array_equal(base((2, 3), 0)[0][:, :2], base((2, 3), 0)[0][:, :2].T)
