"""The suite tells every deviation and every mistake that hides on ordinary numbers."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.cli import main
from npple.oracle.cases import CASES, suite
from npple.oracle.telling import tells, telling_table

ENOUGH = ("ple-scattered", "ple-square", "ple-optimizer", "ml_mmoe-few-tasks",
          "cross_stitch-few-tasks", "ple-saturated")  # cases that tell everything together


@functools.cache
def case(name):
    vectors, = suite({name})
    return vectors


@pytest.mark.parametrize("deviation", oracle.DEVIATIONS, ids=lambda deviation: deviation.name)
def test_no_deviation_passes_the_whole_suite(deviation):
    assert any(tells(case(name), deviation) for name in ENOUGH)


def test_what_changes_nothing_is_not_told():
    single = case("single_task-few-tasks")
    by_name = {deviation.name: deviation for deviation in oracle.DEVIATIONS}
    assert tells(single, by_name["selector-input"]) is None
    assert tells(case("ple-single-row"), by_name["loss-sum"]) is False
    assert tells(case("ple-many-tasks"), by_name["loss-sum"]) is True


def failed(name, *wrong):
    """Whether the right tensors of a case, but for these, fail."""
    given = dict(case(name).expected)
    for tensors in wrong:
        given |= tensors
    return oracle.check(case(name), given).verdict == "failed"


def test_the_right_tensors_pass_every_case_of_ple():
    for name in CASES:
        assert not failed(f"ple-{name}")


def softmax_as_in_books(logits):
    with np.errstate(all="ignore"):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_a_softmax_that_is_not_stable_fails():
    gate = "level1/click/gate"
    expected = case("ple-saturated").expected
    weights = softmax_as_in_books(expected[f"{gate}/logits"])
    assert np.isnan(weights).any()
    assert failed("ple-saturated", {f"{gate}/weights": weights})


def test_a_cross_entropy_by_the_logarithm_of_a_sigmoid_fails():
    vectors = case("ple-saturated")
    z, y = vectors.expected["tower/click"], vectors.targets["click"]
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-z))
        loss = -np.where(y == 1, np.log(p), np.log(1 - p)).mean()
    assert failed("ple-saturated", {"loss[click]": loss})


def test_clipped_logits_fail():
    z = case("ple-saturated").expected["tower/click"]
    assert failed("ple-saturated", {"tower/click": np.clip(z, -6, 6)})


def test_a_mean_over_no_rows_fails():
    assert not case("ple-scattered").masks["kind"].any()
    assert failed("ple-scattered", {"loss[kind]": np.array(np.nan)})


def test_a_loss_that_is_multiplied_by_the_mask_fails():
    vectors = case("ple-scattered")
    z, y, mask = (vectors.expected["tower/dwell"], vectors.targets["dwell"],
                  vectors.masks["dwell"])
    assert failed("ple-scattered", {"loss[dwell]": (mask * (z - y) ** 2).sum() / mask.sum()})


def test_gradients_of_embeddings_that_are_set_and_not_added_fail():
    vectors = case("ple-scattered")
    grad = np.zeros_like(vectors.expected["grad/embedding/user"])
    grad[vectors.inputs["user"]] = vectors.expected["grad/input"][:, 1:3]
    assert failed("ple-scattered", {"grad/embedding/user": grad})


@pytest.mark.parametrize("part", ["level1/click", "level2/dwell/experts"])
def test_what_is_wrong_behind_the_eighth_row_fails(part):
    y = case("ple-scattered").expected[part].copy()
    y[..., 8:, :] = 0
    assert failed("ple-scattered", {part: y})


def test_outputs_squeezed_where_the_batch_is_one_row_fail():
    z = case("ple-single-row").expected["tower/click"]
    assert failed("ple-single-row", {"tower/click": z.squeeze()})


def stepped(adam, last=12):
    """What an optimizer of one's own makes of the gradients that are handed over."""
    vectors = case("ple-optimizer")
    params, state, found = vectors.params, adam(1).init(vectors.params), {}
    for step in range(1, last + 1):
        grads = {name: vectors.case.gradients[f"{step}/{name}"] for name in params}
        params, state = adam(step).step(params, grads, state)
        found |= {f"handed{step}/{name}": p for name, p in params.items()}
    return {name: p for name, p in found.items() if name in vectors.expected}


def test_the_adam_of_the_vectors_passes_on_the_gradients_that_are_handed_over():
    assert not failed("ple-optimizer", stepped(lambda step: case("ple-optimizer").adam))


@pytest.mark.parametrize("change", [{"weight_decay": 0.0}, {"clip": None}, {"beta2": 0.9},
                                    {"epsilon": 1e-8}, {"beta1": 0.9}])
def test_an_optimizer_with_another_setting_fails(change):
    assert failed("ple-optimizer",
                  stepped(lambda step: replace(case("ple-optimizer").adam, **change)))


def test_an_optimizer_that_goes_wrong_from_step_11_on_fails():
    adam = case("ple-optimizer").adam
    given = stepped(lambda step: adam if step < 11 else replace(adam, rate=0.02))
    report = oracle.check(case("ple-optimizer"), dict(case("ple-optimizer").expected) | given)
    assert report.first_divergence.startswith("handed11/")


def test_each_step_is_judged_from_the_parameters_before_it():
    given = stepped(lambda step: replace(case("ple-optimizer").adam, rate=0.02)
                    if step == 11 else case("ple-optimizer").adam)
    report = oracle.check(case("ple-optimizer"), dict(case("ple-optimizer").expected) | given)
    assert {name.partition("/")[0] for name in report.wrong} == {"handed11"}


def test_the_table_says_how_many_architectures_tell(capsys):
    found = {"one": {"ple-few-tasks": True, "cgc-few-tasks": False}, "two": {"ple-square": True}}
    lines = telling_table(found).splitlines()
    assert lines[0].split() == [*CASES]
    assert lines[1].split() == ["one", "1/2"] and lines[2].split() == ["two", "1/1"]


def test_the_command_lists_the_cases(capsys):
    assert main(["oracle", "suite"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*CASES]


# Vectors of one's own numbers -------------------------------------------------------------------

MODEL = npple.ple({"age": "numeric", "tags": (4, 2, "sum")}, {"a": "binary", "b": "regression"},
                  expert_units=(4,), tower_units=(3,))


def own(rows=6, dtype="float64"):
    rng = np.random.default_rng(0)
    return {"params": {name: p.astype(dtype) for name, p in MODEL.init(seed=5).items()},
            "x": {"age": rng.normal(size=rows).astype(dtype),
                  "tags": rng.integers(-1, 4, (rows, 3))},
            "targets": {"a": rng.integers(0, 2, rows), "b": rng.normal(size=rows).astype(dtype)},
            "masks": {"b": np.arange(rows) % 2 == 0}, "weights": {"a": 0.5, "b": 2.0}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_of_ones_own_rows_are_what_the_model_computes_on_them(dtype, tmp_path):
    mine = own(dtype=dtype)
    vectors = oracle.make_vectors(MODEL, dtype=dtype, **mine)
    loss, grads = MODEL.loss_and_grads(*mine.values())
    given = {"loss": loss} | {f"grad/{name}": g for name, g in grads.items()}
    given |= {f"tower/{task}": z for task, z in
              MODEL.forward(mine["params"], mine["x"]).outputs.items()}
    assert oracle.check(vectors, given).passed
    vectors.save(tmp_path / "own.npz")
    assert oracle.check(oracle.load(tmp_path / "own.npz"), given).passed


def test_numbers_of_ones_own_are_kept_to_the_last_bit():
    vectors = oracle.make_vectors(MODEL, **own())
    for name, p in own()["params"].items():
        np.testing.assert_array_equal(vectors.params[name], p)


@pytest.mark.parametrize("change, said", [
    ({"targets": None}, "targets: missing"), ({"params": None}, "params: missing"),
    ({"x": None}, "x: missing"), ({"dtype": "float32"}, "dtype: float32 does not hold params"),
    ({"params": {}}, "params: missing"), ({"weights": {"a": 1.0}}, "weights: one for each task"),
    ({"targets": {"a": np.zeros(6)}}, "targets: missing 'b'")])
def test_rows_that_make_no_case_are_refused(change, said):
    with pytest.raises(npple.InputError, match=said):
        oracle.make_vectors(MODEL, **own() | change)
