"""Arrays whose every operation is off at random: how far, in which operations, always the same."""

import functools

import numpy as np
import pytest

import npple
from npple.oracle.deviant_rows import DeviantGate, Textbook
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.rounding import noisy, noisy_case, textbook, tolerances
from npple.oracle.variant import Variant, cast
from npple.verify.cases import random_case

UNIT = 2.0**-20


def copies(array, units=(UNIT,), safety=1.0):
    return noisy(np.array(units), safety)(np.asarray(array))


def off(result, exact):
    """By how many units, relative to the exact result, the copies are off: least and most."""
    error = np.abs(np.asarray(result) - exact) / np.abs(exact) / UNIT
    return error.min(), error.max()


# Noise ------------------------------------------------------------------------------------------

def test_there_are_eight_copies_a_unit_stacked_in_front_and_exact():
    x = np.array([[1.0, 2.0, 3.0]])
    made = copies(x, (UNIT, 4 * UNIT))
    assert made.shape == (16, 1, 3) and (np.asarray(made) == x).all()


@pytest.mark.parametrize("operate, exact", [
    (lambda x: x + x, 6.0), (lambda x: x * x, 9.0), (lambda x: x / 7, 3 / 7),
    (np.sqrt, 3**0.5), (lambda x: x - 1, 2.0), (np.log, np.log(3.0)), (np.tanh, np.tanh(3.0))])
def test_an_operation_is_off_by_up_to_its_unit(operate, exact):
    made = operate(copies(np.full(2000, 3.0)))
    least, most = off(made, exact)
    assert 0.99 < most <= 1.01 and least < 0.01
    assert 0.45 < np.mean(np.abs(np.asarray(made) - exact) / exact / UNIT) < 0.55
    assert abs(np.mean(np.asarray(made) - exact) / exact / UNIT) < 0.05


def test_safety_multiplies_the_unit_and_units_are_those_of_their_copies():
    made = np.asarray(copies(np.full(2000, 3.0), (UNIT, 4 * UNIT), 5.0) + 1)
    for part, most in ((made[:8], 5), (made[8:], 20)):
        assert most * 0.99 < off(part, 4.0)[1] <= most * 1.01


@pytest.mark.parametrize("operate", [np.negative, np.abs, lambda x: np.maximum(x, 2.0)])
def test_what_does_not_round_is_exact(operate):
    x = np.array([-1.5, 4.0])
    made = operate(copies(x))
    assert (np.asarray(made) == operate(x)).all() and type(made).__name__ == "Noisy"


def test_what_the_usual_formulas_take_from_one_is_off_by_the_unit_of_one():
    made = np.asarray(np.exp(copies(np.full(2000, -12.0))))
    error = np.abs(made - np.exp(-12.0)) / UNIT
    assert 0.95 < error.max() <= 1.01


def test_the_terms_of_a_sum_and_of_a_product_of_matrices_are_off():
    x = np.array([1.0, -1.0, 1.0, -1.0])
    for made in (copies(x).sum(axis=-1), copies(x[None]) @ np.ones((4, 1)),
                 np.add.reduce(copies(x), axis=-1)):
        error = np.abs(np.asarray(made)) / UNIT
        assert error.min() > 1e-6 and 0.2 < error.max() <= 4


def test_a_product_of_two_sums_no_terms():
    error = np.abs(np.asarray(copies(np.full(500, 1.0)) + np.full(500, -1 + 1e-30)))
    assert error.max() < 1e-15


def test_what_is_no_real_number_stays_as_it_is():
    codes = np.array([3, 1])
    assert copies(codes) is codes
    made = copies(np.array([1.0, -1.0])) > 0
    assert type(made) is np.ndarray and made.tolist() == [[True, False]] * 8


def test_results_go_where_they_are_wanted():
    x = copies(np.full(50, 3.0))
    target = np.zeros((8, 50))
    made = np.add(x, x, out=target)
    assert made is target and off(target, 6.0)[1] > 0.5


def test_functions_of_numpy_keep_the_noise():
    x = copies(np.array([1.0, 2.0]))
    joined = np.concatenate([x, x], axis=-1)
    assert type(joined) is type(x) and (np.asarray(joined) == [1.0, 2.0, 1.0, 2.0]).all()
    assert np.shape(x) == (8, 2)


def test_the_noise_is_the_same_each_time_and_another_in_each_operation():
    first, again = (np.asarray(copies(np.ones(9)) * 3.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    x = copies(np.ones(9))
    assert (np.asarray(x * 3.0) != np.asarray(x * 3.0)).all()


def test_more_numbers_than_are_kept_are_used_again():
    made = np.asarray(copies(np.full(2**18, 3.0)) + 1)
    assert off(made, 4.0)[1] > 0.99 and made.shape == (8, 2**18)


# Cases and variants -----------------------------------------------------------------------------

@functools.cache
def measured():
    network = npple.cgc(2, {"a": "binary", "b": "regression"}, task_experts=1, shared_experts=1,
                        expert_units=(2,), tower_units=())
    case = cast(random_case(network, 0, 4), np.float64)
    return Variant(network.table, npple.Adam(rate=1e-2, epsilon=1e-2)), case


def test_parameters_features_and_gradients_of_a_case_become_copies():
    variant, case = measured()
    case = case.__class__(**vars(case) | {"gradients": {"1/x": np.ones(2)}})
    made = noisy_case(case, np.array([UNIT]), 2.0)
    for before, after in ((case.params, made.params), (case.gradients, made.gradients),
                          ({"x": case.x}, {"x": made.x})):
        assert before.keys() == after.keys()
        for name, array in before.items():
            assert (np.asarray(after[name]) == array).all() and after[name].shape[0] == 8
    assert made.targets is case.targets
    most = off(made.x * 3.0, case.x * 3.0)[1]
    assert 1.0 < most <= 2.01
    plain = noisy_case(case, np.array([UNIT]))
    assert 4.0 < off(plain.x * 3.0, case.x * 3.0)[1] <= 8.01


def test_the_gradient_of_a_softmax_is_the_textbooks():
    variant, _ = measured()
    rows = textbook(variant).table.row
    assert type(rows["level1/a"]) is Textbook and rows["level1/a"].name == "level1/a"
    assert rows["level1/a/experts"] == variant.table.row["level1/a/experts"]
    for name, squash in (("gate-temperature", "textbook"), ("gate-sigmoid", "sigmoid")):
        deviant, _ = deviate(BY_NAME[name], variant, {})[0]
        row = textbook(deviant).table.row["level1/a"]
        assert type(row) is DeviantGate and row.squash == squash
        assert type(row) is type(deviant.table.row["level1/a"]) and row.name == "level1/a"
    other, _ = deviate(BY_NAME["gate-by-unit"], variant, {})[0]
    assert textbook(other).table == other.table


# Tolerances -------------------------------------------------------------------------------------

TOLERANCES = {
    "input": (1.776e-15, 9.537e-07, 0.007812, 0.0625),
    "level1/a/experts": (1.776e-15, 1.18e-06, 0.007812, 0.0625),
    "level1/a": (3.165e-15, 1.41e-06, 0.01389, 0.1192),
    "tower/a": (2.258e-15, 1.426e-06, 0.01053, 0.1008),
    "loss[a]": (6.609e-15, 3.548e-06, 0.02907, 0.2325),
    "loss": (3.229e-15, 1.413e-06, 0.008332, 0.08626),
    "grad/tower/a": (4.948e-15, 1.927e-06, 0.0199, 0.1274),
    "grad/level1/a/gate/layer1/weight": (4.573e-15, 1.739e-06, 0.01889, 0.1785),
    "adam12/tower/b/layer1/bias": (3.113e-15, 2.124e-06, 0.01132, 0.1237),
}


def test_tolerances_of_a_small_model():
    found = tolerances(*measured())
    for name, numbers in TOLERANCES.items():
        assert found[name] == pytest.approx(numbers, rel=2e-3)
    assert found["grad[a]/tower/b"] == (0.0, 0.0, 0.0, 0.0)


def test_the_floor_of_a_small_loss_is_relative_to_one():
    variant, case = measured()
    small = case.__class__(**vars(case) | {"weights": {"a": 1e-3, "b": 0.0}})
    found, floor = tolerances(variant, small, wanted={"loss"}), 16 * 2.0**-53
    loss = case.model.loss_and_grads(case.params, case.x, case.targets, None,
                                     {"a": 1e-3, "b": 0.0})[0]
    assert loss < 1 and found["loss"][0] >= floor / loss
    assert found["tower/a"][0] >= floor and "grad/input" not in found


def test_only_the_precisions_asked_for_are_told():
    found = tolerances(*measured(), ("float32", "bfloat16"), {"loss"})
    assert [len(numbers) for numbers in found.values()] == [2] * len(found)
    assert found["tower/a"][1] > 1e4 * found["tower/a"][0]
