"""Dataset: taking, splitting, and refusing what does not belong together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npple.data import Dataset
from npple.learn.dataset import split_rows
from npple.errors import InputError


def numbered(rows):
    """A dataset in which every array tells its row number."""
    number = np.arange(rows)
    return Dataset({"a": number, "b": -number}, {"t": 2.0 * number}, {"t": number % 2 == 0})


@given(rows=st.integers(1, 30), data=st.data())
def test_take_takes_the_same_rows_of_every_array(rows, data):
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1))
    part = numbered(rows).take(np.array(chosen))
    assert len(part) == len(chosen)
    assert part.x["a"].tolist() == chosen
    assert part.x["b"].tolist() == [-i for i in chosen]
    assert part.targets["t"].tolist() == [2.0 * i for i in chosen]
    assert part.masks["t"].tolist() == [i % 2 == 0 for i in chosen]


def test_a_slice_gives_views():
    whole = numbered(10)
    part = whole.take(slice(2, 5))
    assert len(part) == 3
    assert np.shares_memory(part.x["a"], whole.x["a"])
    assert np.shares_memory(part.targets["t"], whole.targets["t"])
    assert np.shares_memory(part.masks["t"], whole.masks["t"])


def test_take_works_on_one_array_of_features():
    x = np.arange(12.0).reshape(4, 3)
    part = Dataset(x, {}, {}).take(np.array([3, 0]))
    assert np.array_equal(part.x, x[[3, 0]])


@given(rows=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**40))
def test_the_parts_of_a_split_hold_every_row_once(rows, fraction, seed):
    if not 0 < round(fraction * rows) < rows:
        with pytest.raises(InputError, match="leaves one of the parts empty"):
            numbered(rows).split(fraction, seed)
        return
    train, rest = numbered(rows).split(fraction, seed)
    assert len(train) == round(fraction * rows)
    assert sorted([*train.x["a"], *rest.x["a"]]) == list(range(rows))


def test_a_split_depends_on_its_seed_and_on_nothing_else():
    first, again, other = (numbered(50).split(0.5, seed)[0].x["a"].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert first != sorted(first)


@pytest.mark.parametrize("seed", [-1, None, 1.0, True, "1"])
def test_a_seed_is_an_integer_from_0(seed):
    with pytest.raises(InputError, match="seed is .*, expected an integer of at least 0"):
        numbered(4).split(0.5, seed)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan"), "half", 10**400])
def test_a_fraction_is_between_0_and_1(fraction):
    with pytest.raises(InputError, match="fraction"):
        numbered(4).split(fraction, 0)


@pytest.mark.parametrize(
    "x, targets, masks, message",
    [
        ({}, {}, {}, "no features"),
        (None, {}, {}, "x: an array of rows is needed"),
        ({"a": [1, 2]}, {}, {}, "x: 'a': an array of rows is needed"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, {}, {}, "x: 'b': 2 rows, expected 3"),
        (np.zeros((3, 2)), {"t": np.zeros(2)}, {}, "targets: 't': 2 rows, expected 3"),
        (np.zeros((3, 2)), {"t": np.float64(0)}, {}, "targets: 't': an array of rows is needed"),
        (np.zeros((3, 2)), [np.zeros(3)], {}, "targets: a dict of arrays is needed"),
        (np.zeros((3, 2)), {}, {"t": np.ones(3, bool)}, "masks: 't', expected one of"),
        (np.zeros((3, 2)), {"t": np.zeros(3)}, {"t": np.ones(3)}, "float64, expected bool"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(x, targets, masks, message):
    with pytest.raises(InputError, match=message):
        Dataset(x, targets, masks)


@pytest.mark.parametrize("rows", [3, None, [[1], [2, 3]], np.zeros((2, 2), int), [0.0, 1.0], [5],
                                  [-6], [True] * 4])
def test_take_refuses_what_selects_no_rows(rows):
    with pytest.raises(InputError, match="rows: .*, expected a slice, indices of 5 rows"):
        numbered(5).take(rows)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=60), st.floats(0.1, 0.9),
       st.integers(0, 9))
def test_a_split_by_time_or_by_group_separates_both(values, fraction, seed):
    values = np.array(values)
    for key in ("time", "groups"):
        try:
            first, rest = split_rows(len(values), fraction, seed, **{key: values})
        except InputError as error:
            assert "leaves one of the parts empty" in str(error)
            continue
        assert sorted([*first, *rest]) == list(range(len(values)))
        assert not {*values[first]} & {*values[rest]}
        if key == "time":
            assert values[first].max() < values[rest].min()


def test_a_split_by_time_holds_out_the_latest():
    first, rest = split_rows(5, 0.8, 0, time=np.array([5, 1, 4, 2, 3]))
    assert sorted(first) == [1, 2, 3, 4] and rest.tolist() == [0]
