"""The check: right candidates pass in every precision, wrong tensors are found, reports exact."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npple
from npple import CheckFailed, FileError, InputError, oracle
from npple.core import blocks
from npple.core.rows import Tower
from npple.network import Network
from npple.oracle.flow import compute
from npple.oracle.variant import cast
from strategies import models

TASKS = {"a": "binary", "b": "regression", "c": "multiclass:3"}


@functools.cache
def vectors():
    return oracle.make_vectors(npple.ple(
        {"x": "numeric", "city": (4, 3)}, TASKS, levels=2, task_experts={"a": 1, "b": 2, "c": 2},
        shared_experts=2, expert_units=(4, 3), tower_units=(3,)))


def run(bundle, dtype):
    """Everything, by the reference itself in another precision."""
    return dict(compute(bundle.variant, cast(bundle.case, dtype)))


def right(dtype=np.float64):
    return {name: array.copy() for name, array in _right(np.dtype(dtype)).items()}


@functools.cache
def _right(dtype):
    return run(vectors(), dtype)


# Right candidates -------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "longdouble"])
def test_a_right_candidate_passes_in_any_precision(dtype):
    given = run(vectors(), dtype)
    if dtype == "float16":  # Adam's second moment underflows there, which no tolerance counts yet
        given = {name: array for name, array in given.items() if not name.startswith("adam")}
    report = oracle.check(vectors(), given)
    assert report.passed and report.first_divergence is None
    assert not report.missing or dtype == "float16"
    assert report.diagnosis == []
    assert report.precision == ("float64" if dtype == "longdouble" else dtype)


def bfloat16(array):
    """Rounded to eight significant bits, as bfloat16 stores it."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 2**8) / 2**8, exponent).astype(np.float32)


def test_bfloat16_is_judged_by_its_own_unit_roundoff():
    stored = {name: bfloat16(array) for name, array in right(np.float32).items()}
    assert not oracle.check(vectors(), stored).passed
    assert oracle.check(vectors(), stored, precision="bfloat16").passed
    stored["level1/a"] = 2 * stored["level1/a"]
    assert oracle.check(vectors(), stored, precision="bfloat16").first_divergence == "level1/a"


@settings(max_examples=3)  # tests/peers/false_alarms.py takes 1,000
@given(models(), st.integers(0, 1000), st.integers(1, 6))
def test_any_right_model_passes_in_single_and_double_precision(model, seed, rows):
    bundle = oracle.make_vectors(model, seed=seed, batch=rows)
    for dtype in (np.float64, np.float32):
        report = oracle.check(bundle, run(bundle, dtype))
        assert report.passed, report


def test_a_bundle_in_single_precision_judges_nobody_finer():
    bundle = oracle.make_vectors(vectors().model, dtype="float32")
    report = oracle.check(bundle, run(bundle, np.float64))
    assert report.passed and report.precision == "float32"


# Wrong tensors ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype, size", [(np.float64, 1e-11), (np.float32, 1e-4)])
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.fuzz)])
def test_a_small_relative_error_in_any_one_tensor_is_caught(dtype, size, stride):
    for name, array in [*right(dtype).items()][::stride]:
        if array.any():
            wrong = (array.astype(np.float64) * (1 + size)).astype(dtype)
            report = oracle.check(vectors(), {name: wrong})
            assert not report.passed and report.first_divergence == name


@pytest.mark.parametrize("name", ["level1/b/experts", "tower/c", "grad[a]/level2/c/experts",
                                  "adam2/embedding/city"])
def test_an_error_in_one_entry_is_located(name):
    given = right()
    index = tuple(n - 1 for n in given[name].shape)
    given[name][index] += 1e-10 * max(np.abs(given[name]).max(), 1)
    report = oracle.check(vectors(), given)
    row = report.worst
    assert not report.passed and (row.name, row.index) == (name, index)
    assert row.got == given[name][index]
    assert row.expected == pytest.approx(vectors().expected[name][index], rel=1e-14)


def test_the_first_divergence_is_the_first_in_the_order_of_computation():
    given = right()
    for name in ("adam1/embedding/city", "grad/tower/c", "level2/b", "level1/shared/experts"):
        given[name] = given[name] + 1
    names = list(given)
    given = {name: given[name] for name in reversed(names)}  # whatever the order they come in
    assert oracle.check(vectors(), given).first_divergence == "level1/shared/experts"


def test_an_unknown_deviation_is_located_though_not_named():
    given = right()
    given["level2/b"] = given["level2/b"][:, ::-1]
    report = oracle.check(vectors(), given)
    assert report.first_divergence == "level2/b" and report.diagnosis == []
    assert "no known deviation" in str(report)


# What a candidate may be ------------------------------------------------------------------------

def test_a_callable_gets_copies_that_it_may_spoil():
    def spoils(params, inputs):
        trace = dict(vectors().model.forward(params, inputs))
        for array in (*params.values(), *inputs.values()):
            array[...] = 0
        return trace

    for _ in range(2):
        assert oracle.check(vectors(), spoils).passed


def test_results_may_stand_in_a_file_or_a_folder(tmp_path):
    given = right()
    np.savez(tmp_path / "results.npz", **given)
    for name, array in given.items():
        path = tmp_path / "folder" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    for path in ("results.npz", "folder"):
        report = oracle.check(vectors(), tmp_path / path)
        assert report.passed and not report.missing and not report.unknown
        assert oracle.check(vectors(), str(tmp_path / path)).passed


def test_a_bundle_is_a_results_file_of_its_own(tmp_path):
    vectors().save(tmp_path / "v.npz")
    report = oracle.check(vectors(), tmp_path / "v.npz")
    assert report.passed and not report.missing


def test_some_tensors_are_enough():
    report = oracle.check(vectors(), {f"tower/{task}": right()[f"tower/{task}"] for task in TASKS})
    assert report.passed and len(report.rows) == 3
    assert len(report.missing) == len(vectors().expected) - 3


# What is told precisely -------------------------------------------------------------------------

def test_a_wrong_shape_is_told():
    report = oracle.check(vectors(), right() | {"tower/a": right()["tower/a"][:, None]})
    assert report.first_divergence == "tower/a"
    assert "shape (8, 1), expected (8,)" in str(report)


def test_an_entry_that_is_not_finite_is_told():
    given = right()
    given["level1/b"][3, 1] = np.nan
    report = oracle.check(vectors(), given)
    assert report.first_divergence == "level1/b" and "nan at (3, 1)" in str(report)


def test_unknown_names_are_told_with_what_may_be_meant():
    report = oracle.check(vectors(), right() | {"tower/d": np.zeros(3)})
    assert report.passed and report.unknown == ("tower/d",) and "did you mean tower/" in str(report)


@pytest.mark.parametrize("candidate, message", [
    ({}, "nothing under a known name: no arrays at all"),
    ({"towers/a": np.zeros(8)}, "towers/a .did you mean tower/a"),
    ([1, 2], "a dict of arrays by name is needed, got list"),
    ({"tower/a": "high"}, "tower/a: real numbers are needed"),
    ({"tower/a": np.zeros(8, complex)}, "tower/a: real numbers are needed"),
    ({3: np.zeros(8)}, "names are printable text, got 3")])
def test_candidates_that_give_nothing_to_compare_are_refused(candidate, message):
    with pytest.raises(InputError, match=message):
        oracle.check(vectors(), candidate)


@pytest.mark.parametrize("options, names", [
    ({"precision": "tf32"}, "precision"), ({"precision": 5}, "precision"),
    ({"precision": {3: "tf32"}}, "precision: 3"), ({"conventions": ["shared-last"]}, "conventions"),
    ({"conventions": ["stop-gate"]}, "conventions"),   # a mistake is no convention
    ({"conventions": ["gate-bias"]}, "conventions")])  # nor is it found, or given
def test_options_that_cannot_be_used_are_named(options, names):
    with pytest.raises(InputError, match=f"^{names}:"):
        oracle.check(vectors(), {"tower/a": right()["tower/a"]}, **options)


def test_files_that_are_no_results_are_refused(tmp_path):
    for folder in ("empty", "pickled"):
        (tmp_path / folder).mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "pickled" / "loss.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "pickled.npz", loss=np.array([{}], object))
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name, reason in [
            ("absent.npz", "No such file"), ("empty", "holds no arrays"), ("text.npz", "pickle"),
            ("pickled", "'loss': Object arrays"), ("pickled.npz", "'loss': Object arrays"),
            ("one.npy", "a single array, which has no name")]:
        with pytest.raises(FileError, match=f"{name}: .*{reason}"):
            oracle.check(vectors(), tmp_path / name)


# The report -------------------------------------------------------------------------------------

def test_the_report_for_json_holds_what_the_command_promises():
    given = right() | {"loss": np.float64(3)}
    content = json.loads(json.dumps(oracle.check(vectors(), given).to_dict(), allow_nan=False))
    assert not content["passed"] and content["first_divergence"] == "loss"
    assert content["worst"]["tensor"] == "loss" and content["compared"] == len(given)
    assert [row["tensor"] for row in content["tensors"] if not row["passed"]] == ["loss"]
    assert content["diagnosis"] == [] and content["missing"] == [] == content["unknown"]


def test_infinite_errors_do_not_spoil_the_json():
    given = right() | {"loss": np.float64("inf"), "tower/a": np.zeros(3)}
    json.dumps(oracle.check(vectors(), given).to_dict(), allow_nan=False)


def test_check_raises_with_the_report_as_its_message():
    assert oracle.check(vectors(), right()).check().passed
    with pytest.raises(CheckFailed, match="the first is level1/a"):
        oracle.check(vectors(), right() | {"level1/a": np.zeros((8, 3))}).check()


@pytest.mark.slow
def test_it_is_told_when_the_first_wrong_tensor_may_not_be_where_the_error_is():
    given = {"tower/a": right()["tower/a"] + 1}
    told = str(oracle.check(vectors(), given))
    assert "computed from level2/a (not given); give level2/a to learn" in told
    given = {"level1/a/experts": right()["level1/a/experts"] + 1, "input": right()["input"]}
    assert "computed from input (right)" in str(oracle.check(vectors(), given))


def test_the_vectors_stand_for_one_model():
    assert isinstance(vectors().model, Network)
    with pytest.raises(InputError, match="^vectors:"):
        oracle.check(vectors().model, right())


def test_blas_has_one_thread_so_that_their_number_changes_no_digit(monkeypatch):
    seen = set()
    for name in ("forward", "backward"):
        def watching(*arguments, own=getattr(Tower, name)):
            seen.add(blocks._get_threads())
            return own(*arguments)
        monkeypatch.setattr(Tower, name, watching)
    before = blocks._get_threads()
    blocks._set_threads(2)
    wrong = right() | {"tower/a": right()["tower/a"] + 1}
    assert not oracle.check(vectors(), wrong, expect="gradients").passed
    blocks._set_threads(before)
    assert seen == {1}
