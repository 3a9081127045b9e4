"""Schema: what training columns teach, and how it is applied to any other file."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npple.data import Schema
from npple.errors import InputError

NUMBERS = st.lists(st.integers(-(10**9), 10**9).map(lambda v: v / 1000), min_size=1, max_size=20)
ABOVE_MINUS_ONE = st.integers(-999, 10**9).map(lambda v: v / 1000)
TEXTS = st.lists(st.text(max_size=4), min_size=1, max_size=20)


def small(**columns):
    """Three rows with a numeric, a categorical and a binary column, some replaced."""
    return {"n": ["1", "2", "6"], "c": ["b", "a", "b"], "t": ["0", "1", "1"]} | columns


def learn(columns, kind="binary", log=()):
    return Schema.learn(columns, ["n"], ["c"], {"t": kind}, log)


def constant(count, **columns):
    """Columns in which only the given ones matter."""
    return small(n=["1"] * count, c=["a"] * count, t=["0"] * count) | columns


@given(NUMBERS)
def test_training_numbers_are_standardised(numbers):
    columns = constant(len(numbers), n=[repr(v) for v in numbers])
    encoded = learn(columns).encode(columns, np.float64).x["n"]
    mean, std = statistics.fmean(numbers), statistics.pstdev(numbers)
    assert np.allclose(encoded, [(v - mean) / (std or 1.0) for v in numbers], rtol=1e-6, atol=1e-6)


@given(st.lists(ABOVE_MINUS_ONE, min_size=1, max_size=20), ABOVE_MINUS_ONE)
def test_log_of_one_more_is_taken_first(numbers, other):
    columns = constant(len(numbers), n=[repr(v) for v in numbers])
    logs = constant(len(numbers), n=[repr(math.log1p(v)) for v in numbers])
    by_log, by_hand = learn(columns, log=["n"]), learn(logs)
    new, new_log = constant(1, n=[repr(other)]), constant(1, n=[repr(math.log1p(other))])
    left, right = by_log.encode(new, np.float64), by_hand.encode(new_log, np.float64)
    assert np.array_equal(left.x["n"], right.x["n"])


def test_a_constant_column_keeps_its_scale():
    schema = learn(small(n=["0.1", "0.1", "0.1"]))  # the mean of the three would not be 0.1
    assert schema.encode(small(n=["0.1", "1.1", "-0.9"]), np.float64).x["n"].tolist() == [0, 1, -1]


def test_another_file_is_scaled_by_the_training_file():
    schema = learn(small())
    mean, std = 3, math.sqrt((4 + 1 + 9) / 3)
    encoded = schema.encode(small(n=["3", "+1e1", "-.5"]), np.float64).x["n"]
    assert np.allclose(encoded, [0, (10 - mean) / std, (-0.5 - mean) / std], rtol=1e-15)


@given(TEXTS, TEXTS)
def test_codes_are_places_in_the_sorted_training_vocabulary(training, later):
    schema = learn(constant(len(training), c=training))
    codes = schema.encode(constant(len(later), c=later)).x["c"]
    words = sorted(set(training))
    assert codes.tolist() == [words.index(t) + 1 if t in words else 0 for t in later]
    assert codes.dtype == np.int64
    assert schema.inputs(7) == {"n": "numeric", "c": (len(words) + 1, 7)}


@given(st.lists(st.sampled_from(["0", "1", "0.0", "1.0", "True", "FALSE", "true", ""]), min_size=1))
def test_binary_labels_and_their_masks(labels):
    if not any(labels):
        with pytest.raises(InputError, match="task 't' has no labelled row"):
            learn(constant(len(labels), t=labels))
        return
    columns = constant(len(labels), t=labels)
    data = learn(columns).encode(columns)
    assert data.targets["t"].tolist() == [t in ("1", "1.0", "True", "true") for t in labels]
    assert data.targets["t"].dtype == np.float32
    assert ("t" in data.masks) == ("" in labels)
    if "" in labels:
        assert data.masks["t"].tolist() == [t != "" for t in labels]


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_regression_labels_are_kept_as_they_are(labels):
    labels = [0.25, *labels]  # so that there is one
    columns = constant(len(labels), t=["" if v is None else repr(v) for v in labels])
    schema = Schema.learn(columns, ["n"], ["c"], {"t": "regression"}, standardise=False)
    data = schema.encode(columns, np.float64)
    assert data.targets["t"].tolist() == [v or 0.0 for v in labels]
    labelled = data.masks.get("t", np.ones(len(labels), bool))
    assert labelled.tolist() == [v is not None for v in labels]


def test_classes_are_sorted_and_counted():
    columns = small(t=["tiger", "", "bee"])
    schema = learn(columns, "multiclass")
    assert schema.tasks == {"t": "multiclass:2"}
    data = schema.encode(columns)
    assert data.targets["t"].tolist() == [1, 0, 0]
    assert data.masks["t"].tolist() == [True, False, True]
    assert data.targets["t"].dtype == np.int64
    with pytest.raises(InputError, match=r"column 't', row 3: 'cat', expected one of the classes"):
        schema.encode(small(t=["bee", "tiger", "cat"]))


def test_the_order_is_numeric_then_categorical_as_listed():
    columns = {"d": ["x"], "b": ["2"], "c": ["y"], "a": ["1"], "t": ["0"]}
    schema = Schema.learn(columns, ["b", "a"], ["d", "c"], {"t": "binary"})
    assert list(schema.inputs()) == list(schema.encode(columns).x) == ["b", "a", "d", "c"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_dtype_is_that_of_numbers_and_labels(dtype):
    data = learn(small()).encode(small(), dtype)
    assert data.x["n"].dtype == data.targets["t"].dtype == dtype


def test_prediction_needs_no_labels_and_ignores_other_columns():
    schema = learn(small())
    columns = small(more=["?", "?", "?"])
    del columns["t"]
    data = schema.encode(columns, labels=False)
    assert set(data.x) == {"n", "c"} and data.targets == data.masks == {}
    with pytest.raises(InputError, match="no column 't'"):
        schema.encode(columns)


@given(NUMBERS, TEXTS, st.sampled_from(["binary", "regression", "multiclass"]))
def test_a_schema_survives_json(numbers, texts, kind):
    rows = len(numbers) * len(texts)
    columns = {
        "n": [repr(v) for v in numbers] * len(texts),
        "c": texts * len(numbers),
        "t": ["0", "1", *[""] * (rows - 2)][:rows],
    }
    if kind == "multiclass" and rows == 1:
        kind = "binary"
    schema = learn(columns, kind)
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


@pytest.mark.parametrize(
    "text",
    ["", "x", "nan", "inf", "-Infinity", "1e999", "1_000", "0x1", "1,5", "١", "1 2", ".", "1e"],
)
def test_a_numeric_field_is_a_finite_number(text):
    with pytest.raises(InputError) as caught:
        learn(small(n=["1", "2", text]))
    message, _, hint = str(caught.value).partition("; ")
    assert message == f"column 'n', row 3: {text!r}, expected a finite number"
    assert ("--missing mean, median or 0" in hint) == (text in ("", "nan"))
    assert ("decimal comma" in hint) == (text == "1,5")


def test_the_first_of_several_bad_rows_is_named():
    with pytest.raises(InputError, match="column 'n', row 2: 'y'"):
        learn(small(n=["1", "y", "x"]))


def test_log_needs_numbers_above_minus_one():
    with pytest.raises(InputError, match="row 2: '-1', expected a finite number above -1"):
        learn(small(n=["0", "-1", "2"]), log=["n"])


def test_a_number_too_large_for_the_dtype_is_refused_by_its_text():
    schema = learn(small())
    with pytest.raises(InputError, match="column 'n', row 2: '1e40' is too large.*float32"):
        schema.encode(small(n=["1", "1e40", "2"]))
    with pytest.raises(InputError, match="column 't', row 1: '1e39' is too large.*float32"):
        learn(small(), "regression").encode(small(t=["1e39", "", "0"]))
    narrow = learn(small(n=["0", "1e-150", "0"]))
    with pytest.raises(InputError, match="column 'n', row 3: '1e300' is too large.*float64"):
        narrow.encode(small(n=["0", "0", "1e300"]), np.float64)


def test_numbers_without_a_usable_deviation_are_refused():
    for texts in (["1e308", "-1e308", "1e308"], ["1e-200", "2e-200", "1e-200"]):
        with pytest.raises(InputError, match="column 'n' has .*, expected a finite mean, a posit"):
            learn(small(n=texts))


@pytest.mark.parametrize("text", ["2", "yes", "-1", "0.5", "01"])
def test_another_binary_label_is_refused_when_learning(text):
    message = f"column 't', row 2: '{text}', expected 0, 1, false, true"
    with pytest.raises(InputError, match=message):
        learn(small(t=["0", text, "1"]))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"numeric": ["n", "n"]}, "column 'n' is listed twice"),
        ({"numeric": ["n", "c"]}, "column 'c' is listed twice"),
        ({"numeric": ["n", "t"]}, "column 't' is a label"),
        ({"numeric": ["n", "z"], "categorical": ["y"]}, "no column 'z', 'y'"),
        ({"numeric": [], "categorical": []}, "no feature columns"),
        ({"tasks": {}}, "no tasks"),
        ({"tasks": {"t": "ranking"}}, "task 't' is 'ranking', expected 'binary', 'regression' or"),
        ({"tasks": {"t": "multiclass:2"}}, "task 't' is 'multiclass:2', expected"),
        ({"log": ["c"]}, "log of 'c', expected a numeric column"),
        ({"columns": small(t=["", "", ""])}, "task 't' has no labelled row"),
        ({"columns": small(n=[], c=[], t=[])}, "no rows"),
        ({"columns": small(c=["a"])}, "column 'c' has 1 rows, expected 3"),
        ({"columns": small(c=["a", "b", 3])}, "column 'c', row 3: 3, expected a text"),
        ({"columns": small(n=["1", "2", 3.5])}, "column 'n', row 3: 3.5, expected a text"),
        ({"columns": small(t=["a", "a", "a"]), "tasks": {"t": "multiclass"}}, "has one class"),
    ],
)
def test_what_cannot_be_learned_is_refused(changed, message):
    usual = {"columns": small(), "numeric": ["n"], "categorical": ["c"], "tasks": {"t": "binary"}}
    with pytest.raises(InputError, match=message):
        Schema.learn(**(usual | changed))


@pytest.mark.parametrize("name", ["", "shared", "a/b", "a\nb", "\u200b"])
def test_a_task_name_must_be_usable(name):
    with pytest.raises(InputError, match="task is named .*, expected a printable name"):
        Schema.learn(small(**{name: ["0", "1", "1"]}), ["n"], ["c"], {name: "binary"})


@pytest.mark.parametrize("arguments", [{"dtype": np.int64}, {"dtype": np.complex128}])
def test_encode_wants_a_floating_dtype(arguments):
    with pytest.raises(InputError, match="expected a floating one"):
        learn(small()).encode(small(), **arguments)


@pytest.mark.parametrize("width", [0, -1, 2.0])
def test_an_embedding_is_at_least_one_wide(width):
    with pytest.raises(InputError, match="embedding_width is .*, expected a positive integer"):
        learn(small()).inputs(width)


GOOD = {
    "numeric": {"n": {"mean": 0.5, "std": 2.0, "log": False}},
    "categorical": {"c": ["a", "b"]},
    "tasks": {"t": "binary", "m": "multiclass:2"},
    "classes": {"m": ["x", "y"]},
}


def scale(**changes):
    return GOOD | {"numeric": {"n": GOOD["numeric"]["n"] | changes}}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "schema is None, expected a dict with the keys numeric, categorical"),
        ({}, "schema is {}, expected a dict"),
        (GOOD | {"more": 1}, "expected a dict with the keys"),
        (GOOD | {"numeric": []}, "schema numeric is .*, expected a dict"),
        (GOOD | {"numeric": {3: GOOD["numeric"]["n"]}}, "column 3, expected a text"),
        (GOOD | {"numeric": {"n": 3.0}}, "column 'n' is 3.0, expected a dict with the keys mean"),
        (scale(more=1), "expected a dict with the keys mean, std, log"),
        (scale(mean=math.nan), "expected a finite mean"),
        (scale(mean="0"), "expected a finite mean"),
        (scale(mean=10**400), "expected a finite mean"),
        (scale(std=0.0), "a positive std"),
        (scale(std=math.inf), "a positive std"),
        (scale(log=1), "log true or false"),
        (GOOD | {"categorical": {"c": "ab"}}, "column 'c' has values 'ab', expected sorted texts"),
        (GOOD | {"categorical": {"c": ["b", "a"]}}, "expected sorted texts"),
        (GOOD | {"categorical": {"c": ["a", "a"]}}, "expected sorted texts"),
        (GOOD | {"categorical": {"c": ["a", 1]}}, "expected sorted texts"),
        (GOOD | {"categorical": {"c": []}}, "expected sorted texts"),
        (GOOD | {"categorical": {"n": ["a"]}}, "column 'n' is listed twice"),
        (GOOD | {"numeric": {}, "categorical": {}}, "no feature columns"),
        (GOOD | {"tasks": {"t": "binary"}}, "classes of .*, expected tasks' only"),
        (GOOD | {"tasks": {"m": "multiclass:3"}}, "task 'm' is 'multiclass:3', expected"),
        (GOOD | {"tasks": {"t": ["binary"]}, "classes": {}}, "task 't' is .*, expected"),
        (GOOD | {"tasks": {"m": "multiclass:2"}, "classes": {}}, "task 'm' is 'multiclass:2'"),
        (GOOD | {"tasks": {"m": "multiclass:1"}, "classes": {"m": ["x"]}}, "has one class"),
        (GOOD | {"tasks": {"c": "binary"}, "classes": {}}, "column 'c' is a label"),
        (GOOD | {"tasks": {"a/b": "binary"}, "classes": {}}, "task is named 'a/b'"),
    ],
)
def test_a_schema_from_elsewhere_is_validated(content, message):
    with pytest.raises(InputError, match=message) as caught:
        Schema.from_dict(content)
    assert "\n" not in str(caught.value)


def test_a_sound_schema_from_elsewhere_is_accepted():
    assert Schema.from_dict(GOOD).to_dict() == scale(fill=None, gaps=False) | {
        "targets": {}, "form": "csv", "drawn": 0.0, "bags": {}}


@given(NUMBERS, NUMBERS)
def test_regression_targets_are_standardised_and_led_back(training, later):
    schema = learn(constant(len(training), t=[repr(v) for v in training]), "regression")
    own = schema.encode(constant(len(later), t=[repr(v) for v in later]), np.float64).targets
    mean, std = statistics.fmean(training), statistics.pstdev(training)
    assert np.allclose(own["t"], [(v - mean) / (std or 1.0) for v in later], rtol=1e-6, atol=1e-6)
    assert np.allclose(schema.own_units(own)["t"], later, rtol=1e-12, atol=1e-6)


def test_nothing_but_classes_is_learned_from_other_rows():
    columns = small(n=["1", "3", "1000"], c=["b", "a", "only held out"], t=["1", "3", "1000"])
    schema = Schema.learn(columns, ["n"], ["c"], {"t": "regression"}, rows=np.array([0, 1]))
    assert schema.numeric["n"][:2] == schema.targets["t"][:2] == (2.0, 1.0)
    assert schema.categorical["c"] == ("a", "b")
    assert schema.encode(columns).x["c"].tolist() == [2, 1, 0]
    classes = Schema.learn(columns, ["n"], [], {"t": "multiclass"}, rows=np.array([0, 1])).classes
    assert classes["t"] == ("1", "1000", "3")


def test_a_bad_row_that_is_held_out_is_named_by_its_place_in_the_file():
    for changed in ({"n": ["1", "x", "2"]}, {"t": ["1", "x", "0"]}):
        with pytest.raises(InputError, match="row 2: 'x'"):
            Schema.learn(small(**changed), ["n"], ["c"], {"t": "binary"}, rows=np.array([0, 2]))


def test_categories_rarer_than_asked_are_unknown():
    columns = small(c=["a", "b", "a"])
    schema = Schema.learn(columns, ["n"], ["c"], {"t": "binary"}, min_count=2)
    assert schema.encode(columns).x["c"].tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="column 'c': no value comes 3 times"):
        Schema.learn(columns, ["n"], ["c"], {"t": "binary"}, min_count=3)


@pytest.mark.parametrize("missing, fill", [("mean", 3.0), ("median", 2.0), ("0", 0.0)])
@pytest.mark.parametrize("gap", ["", "NA", "nan", "null"])
def test_missing_numbers_are_filled_and_marked(missing, fill, gap):
    columns = constant(4, n=["1", "2", gap, "6"], m=["1", "2", "3", "4"])
    schema = Schema.learn(columns, ["n", "m"], [], {"t": "binary"}, missing=missing)
    assert list(schema.inputs()) == ["n", "m", "n missing"]
    x = schema.encode(columns | {"m": ["1", gap, "3", "4"]}, np.float64).x
    assert x["n missing"].tolist() == [0, 0, 1, 0]
    scale = schema.numeric["n"]
    assert x["n"][2] == (fill - scale.mean) / scale.std and scale.mean == 3.0
    assert np.isfinite(x["m"]).all()
    assert Schema.from_dict(schema.to_dict()) == schema


def test_a_fill_is_taken_after_the_logarithm():
    columns = constant(3, n=[repr(math.e - 1), "", repr(math.e ** 3 - 1)])
    schema = Schema.learn(columns, ["n"], [], {"t": "binary"}, ["n"], missing="mean")
    assert schema.numeric["n"].fill == pytest.approx(2)


def test_the_mark_of_a_gap_may_not_have_the_name_of_a_column():
    columns = small(n=["1", "", "2"]) | {"n missing": ["a", "b", "c"]}
    with pytest.raises(InputError, match="'n missing' is listed twice"):
        Schema.learn(columns, ["n"], ["n missing"], {"t": "binary"}, missing="0")


def test_true_and_false_are_numbers():
    columns = small(n=["True", "false", "2"], t=["TRUE", "False", ""])
    schema = Schema.learn(columns, ["n"], [], {"t": "regression"}, standardise=False)
    data = schema.encode(columns, np.float64)
    assert data.targets["t"].tolist() == [1, 0, 0] and data.masks["t"].tolist() == [1, 1, 0]
    assert schema.numeric["n"].mean == 1.0


@pytest.mark.parametrize("known, later", [("3", "3.0"), ("3", "003"), ("007", "7"), ("-3", "-3.0")])
def test_an_unknown_id_that_is_written_otherwise_is_pointed_out(known, later):
    schema = learn(small(c=[known, known, "x"]))
    unknown = schema.unknown(small(c=[later, "y", known]))["c"]
    assert unknown == (2, 3, (later, known), False) and "2 of 3 unknown" in str(unknown)
    assert schema.unknown(small(c=[known, "x", "x"])) == {}
    assert schema.unknown(small(c=["y", "4", "x"]))["c"].alike is None


def test_a_few_categories_of_the_training_rows_count_as_unknown():
    columns = constant(1000, c=["a", "b"] * 500, d=["x", "y"] * 500)
    schema = Schema.learn(columns, ["n"], ["c", "d"], {"t": "binary"}, drawn=0.01)
    data = schema.encode(columns)
    drawn = schema.with_unknown(data, seed=3)
    changed = {name: np.flatnonzero(drawn.x[name] != data.x[name]).tolist() for name in data.x}
    assert [len(rows) for rows in changed.values()] == [0, 10, 10]
    assert changed["c"] != changed["d"] and not drawn.x["c"][changed["c"]].any()
    again, other = schema.with_unknown(data, seed=3), schema.with_unknown(data, seed=4)
    assert (again.x["c"] == drawn.x["c"]).all() and (other.x["c"] != drawn.x["c"]).any()
