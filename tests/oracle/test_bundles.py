"""Bundles: what is refused, what a file holds, how numbers are drawn; on the smallest models."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import FileError, InputError, archive, oracle
from npple.oracle.vectors import (_blunt, _hidden, _short, _stored, bundle, drawn)
from npple.oracle.variant import Variant, cast
from npple.verify.cases import random_case

TASKS = {"a": "binary", "b": "regression"}


def model(**options):
    return npple.shared_bottom(2, TASKS, expert_units=(2,), tower_units=(), **options)


def made(batch=3, **options):
    return oracle.make_vectors(model(), batch=batch, **options)


ONE = made()


# Arguments --------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, message", [
    ({"model": 3}, "model: a Network is needed, got int"),
    ({"seed": -1}, "seed: an integer of at least 0 is needed, got -1"),
    ({"seed": 0.5}, "seed: an integer of at least 0 is needed, got 0.5"),
    ({"batch": 0}, "batch: a positive integer, got 0"),
    ({"batch": True}, "batch: a positive integer, got True"),
    ({"dtype": 3}, "dtype: 3, expected one of float64, float32"),
    ({"adam": 3}, "adam: npple.Adam(...) is needed, got 3"),
    ({"params": {}}, "x: missing, where rows of one's own need params, x and targets"),
    ({"x": 1}, "params: missing, where rows of one's own need params, x and targets"),
    ({"targets": {}}, "params: missing, where rows of one's own need params, x and targets"),
    ({"masks": {}}, "params: missing, where rows of one's own need params, x and targets"),
    ({"weights": {}}, "params: missing, where rows of one's own need params, x and targets"),
    ({"params": {}, "x": 1}, "targets: missing, where rows of one's own need params, x and "
                             "targets")])
def test_an_argument_that_cannot_be_used_is_told_in_full(arguments, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        oracle.make_vectors(**{"model": model()} | arguments)


def test_adam_w_is_refused():
    with pytest.raises(InputError, match=r"^adam: npple.Adam\(...\) is needed, got AdamW"):
        oracle.make_vectors(model(), adam=npple.AdamW())


# What is drawn ----------------------------------------------------------------------------------

def test_a_bundle_says_how_it_was_made():
    bundle_of = made(seed=np.int64(3), batch=2, dtype="float32", adam=npple.Adam(rate=0.5))
    assert bundle_of.notes == {"seed": 3, "batch": 2, "dtype": "float32"}
    assert bundle_of.adam == npple.Adam(rate=0.5) and bundle_of.model == model()
    for arrays in (bundle_of.expected, bundle_of.params, {"x": bundle_of.inputs}):
        assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    assert bundle_of.inputs.shape == (2, 2) and {*bundle_of.masks} == {*bundle_of.targets} == {
        *TASKS}
    assert bundle_of.tolerance.keys() == bundle_of.expected.keys()
    assert bundle_of.variant == Variant(model().table, npple.Adam(rate=0.5))
    assert bundle_of.weights == bundle_of.case.weights and bundle_of.noise == {}


def drawn_case():
    """What the bundle is of, before every task had a mask."""
    case = cast(ONE.case, np.float64)
    return ONE.variant, replace(case, masks=case.masks | {"a": None})


def test_what_is_drawn_hides_nothing():
    variant, case = drawn_case()
    assert _hidden(variant, case) == 0
    assert not np.array_equal(ONE.inputs, made(seed=1).inputs)


def test_each_thing_that_hides_counts_once():
    variant, case = drawn_case()
    full = replace(case, masks={"a": np.ones(3, bool), "b": np.array([True, True, False])})
    assert _hidden(variant, full) == 1
    assert _hidden(variant, replace(case, masks=dict.fromkeys(TASKS))) == 0
    pair = cast(random_case(model(), 0, 2), np.float64)
    none, both = (replace(pair, masks={"a": mask, "b": None}) for mask in (None, np.ones(2, bool)))
    assert _hidden(variant, both) == _hidden(variant, none) + 1
    one_row = cast(random_case(model(), 0, 1), np.float64)
    alone = replace(one_row, masks={"a": np.ones(1, bool), "b": None})
    assert _hidden(variant, alone) == _hidden(variant, replace(alone, masks=dict.fromkeys(TASKS)))
    near = replace(case, masks=dict.fromkeys(TASKS), targets=case.targets | {
        "b": case.model.forward(case.params, case.x).outputs["b"]})
    assert _hidden(variant, near) == 3  # the loss, and the gradients of its tower
    empty = replace(near, masks={"a": None, "b": np.zeros(3, bool)})
    assert _hidden(variant, empty) == 0


def test_what_is_blunt_is_counted_in_the_precisions_that_must_tell():
    numbers = {"x": (1e-11, 1e-4, 9.0, 9.0), "y": (2e-11, 1e-4, 9.0, 9.0), "z": (1e-12, 2e-4, 0, 0)}
    assert _blunt(numbers, ("float64", "float32", "float16", "bfloat16")) == 2
    assert _blunt({"x": (2e-4,), "y": (1e-4,)}, ("float32",)) == 1


@pytest.mark.parametrize("hidden, blunt, draws, taken", [
    ([0], [0, 0], 1, 0), ([2, 0], [0, 0, 0], 2, 1), ([0] * 10, [0, 1], 10, 0),
    ([3, 1, 2, *[5] * 7], [0] * 3, 10, 1), ([1, *[5] * 9], [0, 0], 10, 0),
    ([2, 1, 1, 0], [0, 4, 0, 0, 0], 4, 3)])
def test_the_first_draw_that_hides_nothing_is_taken_or_the_best(monkeypatch, hidden, blunt, draws,
                                                                taken):
    seeds, hidden, blunt = [], iter(hidden), iter(blunt)
    monkeypatch.setattr("npple.oracle.vectors.random_case", lambda model, seed=None, batch=3: (
        seeds.append((seed, batch)), random_case(model, 7 if seed is None else seed, 3))[1])
    monkeypatch.setattr("npple.oracle.vectors._hidden", lambda variant, case: next(hidden))
    monkeypatch.setattr("npple.oracle.vectors._blunt", lambda tolerance, of: next(blunt))
    monkeypatch.setattr("npple.oracle.vectors.tolerances", lambda *of: {"x": of[1].x})
    from npple.oracle.vectors import _draw
    case, tolerance = _draw(model(), 2, 3, npple.Adam(), lambda case: case)
    assert seeds[1:] == [(20 + i, 3) for i in range(draws)]
    np.testing.assert_array_equal(case.x, cast(_short(random_case(model(), 20 + taken, 3)),
                                               np.float64).x)
    np.testing.assert_array_equal(tolerance["x"], case.x)


def test_what_is_prepared_is_made_short_again():
    bundle_of = drawn(model(), 0, 3, "float64", npple.Adam(), lambda case: replace(
        case, x=case.x / 3, gradients={f"{step}/{name}": p / 3 for step in range(1, 13)
                                       for name, p in case.params.items()}))
    for array in (bundle_of.inputs, *bundle_of.case.gradients.values()):
        mantissa, _ = np.frexp(array)
        assert (mantissa * 2**8 == np.round(mantissa * 2**8)).all() and array.any()


def test_all_floats_are_made_short_and_noise_stays_below_one():
    network = npple.snr_trans({"x": "numeric", "city": (4, 3)}, {"b": "regression"}, levels=1,
                              experts=2, expert_units=(2,), tower_units=())
    case = random_case(network, 0, 3)
    case = replace(case, weights={"b": 1 / 3}, gradients=dict(case.params),
                   noise={name: np.full_like(u, 0.9999) for name, u in case.noise.items()})
    short = _short(case)
    assert short.weights == {"b": round(2 / 3 * 2**8) / 2**9}
    assert all((u == 1 - 2.0**-8).all() for u in short.noise.values()) and short.noise
    for before, after in ((case.params, short.params), (case.targets, short.targets),
                          (case.gradients, short.gradients), (case.x, short.x)):
        assert before.keys() == after.keys()
        for name, array in before.items():
            if array.dtype.kind == "f":
                assert (np.abs(after[name] - array) <= np.abs(array) * 2.0**-8).all()
                mantissa, _ = np.frexp(after[name])
                assert (mantissa * 2**8 == np.round(mantissa * 2**8)).all()
            else:
                np.testing.assert_array_equal(after[name], array)


# Rows of one's own ------------------------------------------------------------------------------

def own(real=np.float64, **options):
    params = model().init(0, real)
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(4, 2)).astype(real), {"a": np.array([0, 1, 1, 0]),
                                                        "b": np.array([1.0, 2.0, -1.0, 0.5], real)}
    return oracle.make_vectors(model(), params=params, x=x, targets=targets, **options), params, x


def test_rows_of_ones_own_are_kept_and_say_nothing_of_a_seed():
    masks = {"b": np.array([True, False, True, True])}
    found, params, x = own(masks=masks, weights={"a": 0.25, "b": 2.0})
    assert found.notes == {"batch": 4, "dtype": "float64"}
    np.testing.assert_array_equal(found.inputs, x)
    for name, p in params.items():
        np.testing.assert_array_equal(found.params[name], p)
    assert found.weights == {"a": 0.25, "b": 2.0}
    assert found.masks["a"].tolist() == [True] * 4
    assert found.masks["b"].tolist() == [True, False, True, True]
    loss, grads = model().loss_and_grads(params, x, found.targets, found.masks, found.weights)
    assert float(found.expected["loss"]) == pytest.approx(loss, rel=1e-14)


def test_a_dtype_that_does_not_hold_the_parameters_is_refused():
    assert own(np.float32)[0].notes["dtype"] == "float64"
    assert own(np.float32, dtype="float32")[0].expected["loss"].dtype == np.float32
    with pytest.raises(InputError, match=re.escape(
            "dtype: float32 does not hold params of float64, expected dtype='float64'")):
        own(dtype="float32")


def test_a_bundle_is_computed_in_extended_precision_and_rounded_once():
    variant, case = ONE.variant, cast(ONE.case, np.float64)
    found = bundle(variant, case, ONE.tolerance, {"dtype": "float32"})
    for name, array in found.expected.items():
        np.testing.assert_array_equal(array, ONE.expected[name].astype(np.float32))
    assert found.notes == {"dtype": "float32"} and found.tolerance is ONE.tolerance
    assert _stored(replace(case, masks={"a": None}), np.float64).masks["a"].tolist() == [True] * 3


# Files ------------------------------------------------------------------------------------------

def content():
    arrays, meta = ONE._content()
    return dict(arrays), json.loads(json.dumps(meta))


def test_a_file_holds_these_names_and_settings():
    arrays, meta = content()
    parts = ("params", "inputs", "targets", "masks", "weights")
    assert [name for name in arrays if name not in ONE.expected] == [
        *(f"params/{name}" for name in ONE.params), "inputs/x", "targets/a", "targets/b",
        "masks/a", "masks/b", "weights/a", "weights/b"]
    assert arrays["weights/a"] == ONE.weights["a"] and arrays["inputs/x"] is ONE.inputs
    assert {name.partition("/")[0] for name in arrays if name.startswith(parts)} == {*parts}
    assert [*meta] == ["architecture", "conventions", "adam", "precisions", "tensors", "notes"]
    assert meta["architecture"] == json.loads(json.dumps(model().to_dict()))
    assert meta["notes"] == ONE.notes
    assert meta["adam"] == {"rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 0.01,
                            "weight_decay": 0.0, "clip": None, "steps": [1, 2, 12]}
    assert meta["tensors"] == [[name, *ONE.tolerance[name]] for name in ONE.expected]
    assert meta["precisions"] == {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11,
                                  "bfloat16": 2.0**-8}


def saved(path, arrays, meta, version=2, name="npple vectors"):
    archive.save(path, arrays, meta, format=name, version=version)
    return path


def test_columns_noise_and_gradients_come_back(tmp_path):
    network = npple.snr_trans({"x": "numeric", "city": (4, 3)}, {"b": "regression"}, levels=1,
                              experts=2, expert_units=(2,), tower_units=())
    first = drawn(network, 0, 2, "float64", npple.Adam(clip=1.0), lambda case: replace(
        case, gradients={f"{step}/{name}": p + step for step in range(1, 13)
                         for name, p in case.params.items()}))
    first.save(tmp_path / "v.npz")
    again = oracle.load(tmp_path / "v.npz")
    assert again.adam == first.adam and again.notes == first.notes and again.model == network
    assert again.tolerance == first.tolerance and again.weights == first.weights
    for part in ("params", "x", "targets", "masks", "noise", "gradients"):
        before, after = getattr(first.case, part), getattr(again.case, part)
        assert [*before] == [*after] and before
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array)
    for name, array in first.expected.items():
        np.testing.assert_array_equal(again.expected[name], array)


def test_the_json_form_is_the_whole_file(tmp_path):
    ONE.save_json(tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())
    arrays, meta = content()
    assert [*found] == ["format", "version", "meta", "arrays"]
    assert (found["format"], found["version"], found["meta"]) == ("npple vectors", 2, meta)
    assert [*found["arrays"]] == [*arrays]
    x = found["arrays"]["inputs/x"]
    assert x == {"dtype": "<f8", "shape": [3, 2], "values": ONE.inputs.ravel().tolist()}
    with pytest.raises(InputError, match="^path: a path is needed, got 3"):
        ONE.save_json(3)


def test_no_number_is_null_in_json(tmp_path):
    odd = replace(ONE, expected=ONE.expected | {"loss": np.array(np.nan)})
    odd.save_json(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["arrays"]["loss"] == {
        "dtype": "<f8", "shape": [], "values": [None]}


def test_settings_of_the_first_version_are_not_verified(tmp_path):
    arrays, meta = content()
    old = oracle.load(saved(tmp_path / "v.npz", arrays, meta, version=1))
    assert old.notes == ONE.notes | {
        "meta": "not verified: saved by npple 0.1.0, export it anew"}
    assert oracle.load(saved(tmp_path / "w.npz", arrays, meta)).notes == ONE.notes
    for version, name in ((3, "npple vectors"), (2, "npple checkpoint")):
        with pytest.raises(FileError):
            oracle.load(saved(tmp_path / "x.npz", arrays, meta, version, name))


@pytest.mark.parametrize("spoil, message", [
    (lambda a, m: m.pop("notes"), "'notes'"),
    (lambda a, m: m["notes"].update(dtype="float16"), "notes: dtype"),
    (lambda a, m: m["precisions"].update(float64=1e-16),
     "precisions: expected {'float64': 1.1102230246251565e-16, 'float32': 5.960464477539063e-08, "
     "'float16': 0.00048828125, 'bfloat16': 0.00390625}"),
    (lambda a, m: m["tensors"][0].pop(), "tensors: one tolerance for each precision is needed"),
    (lambda a, m: m["tensors"][0].__setitem__(2, -1.0), "tensors: input: a tolerance"),
    (lambda a, m: m["adam"].pop("clip"), "'clip'"),
    (lambda a, m: m["adam"].update(rate=-1), "rate"),
    (lambda a, m: a.pop("loss"), "'loss'"),
    (lambda a, m: a.pop("targets/a"), "targets"),
    (lambda a, m: a.update({"inputs/x": a["inputs/x"][:, :1]}), "x"),
    (lambda a, m: a.update({"params/tower/a/layer1/bias": np.zeros(9)}),
     "params: tower/a/layer1/bias: shape (9,), expected (1,)"),
    (lambda a, m: a.update({"weights/a": np.float64(-1)}), "weights"),
    (lambda a, m: a.update({"noise/x": np.zeros(2)}), "noise"),
    (lambda a, m: a.update({"gradients/1/tower/a/layer1/bias": np.zeros(9)}),
     "gradients/1/tower/a/layer1/bias: as the parameter"),
    (lambda a, m: a.update({"gradients/1/tower/a/layer1/bias": np.zeros(1, np.float32)}),
     "gradients/1/tower/a/layer1/bias: as the parameter"),
    (lambda a, m: a.update({"gradients/1/tower/a/layer1/bias": np.full(1, np.nan)}),
     "gradients/1/tower/a/layer1/bias: as the parameter"),
    (lambda a, m: a.update({"gradients/1/zzz": np.zeros(1)}), "'zzz'")])
def test_a_file_of_something_else_is_refused_with_the_reason(tmp_path, spoil, message):
    arrays, meta = content()
    spoil(arrays, meta)
    path = saved(tmp_path / "v.npz", arrays, meta)
    with pytest.raises(FileError) as caught:
        oracle.load(path)
    start = f"{path}: not a bundle that npple wrote: "
    assert str(caught.value).startswith(start) and message in str(caught.value)
    assert str(caught.value).removeprefix(start).startswith(message[:4])
    assert isinstance(caught.value.__cause__, Exception)
