"""The tolerances: what they scale with, what they excuse, what they do not."""

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.rounding import FLOOR, UNITS, noisy, tolerances
from npple.oracle.flow import compute
from npple.oracle.variant import Variant, cast
from npple.verify.cases import random_case, random_model


@pytest.fixture(scope="module", params=["ple", "snr_trans"])
def measured(request):
    model = random_model(request.param)
    case = cast(random_case(model, seed=2), np.float64)
    variant = Variant(model.table, npple.Adam(epsilon=1e-2))
    return variant, case, tolerances(variant, case)


def test_tolerances_grow_with_the_unit_roundoff(measured):
    for numbers in measured[2].values():
        assert list(numbers) == sorted(numbers)


def test_where_rounding_is_small_they_are_proportional_to_it(measured):
    units = list(UNITS.values())
    ratios = [numbers[1] / units[1] / (numbers[0] / units[0])
              for numbers in measured[2].values() if numbers[0]]
    assert 0.5 < np.median(ratios) < 2


def test_no_tensor_is_judged_finer_than_the_floor_and_zeros_are_exact(measured):
    variant, case, found = measured
    for name, array in compute(variant, case):
        if not array.any():
            assert set(found[name]) == {0.0}
        else:
            assert all(t >= FLOOR * unit for t, unit in zip(found[name], UNITS.values()))


def test_they_are_the_same_each_time(measured):
    variant, case, found = measured
    assert tolerances(variant, case, ("float32",), {"loss"})["loss"][0] > 0
    assert tolerances(variant, case) == found


def test_the_textbook_gradient_of_a_sharp_softmax_is_excused():
    # w (dw - sum w dw) cancels where a weight is near 1; npple's own formula does not
    vectors = oracle.make_vectors(npple.mmoe(4, {"a": "regression"}, experts=3,
                                             expert_units=(3,), tower_units=()))
    case = cast(vectors.case, np.float64)
    params = {n: p * (6 if "/gate/" in n else 1) for n, p in case.params.items()}
    case = case.__class__(**vars(case) | {"params": params})
    tensors = dict(compute(vectors.variant, case))
    w, dy = tensors["level1/a/gate/weights"], tensors["grad/level1/a"]
    assert w.max() > 0.999
    for scale in (np.float32, np.float64):
        experts = tensors["level1/shared/experts"].astype(scale)
        dw = np.einsum("bw,nbw->bn", dy.astype(scale), experts)
        w_ = w.astype(scale)
        dz = w_ * (dw - (w_ * dw).sum(axis=1, keepdims=True))
        grad = case.x.astype(scale).T @ dz
        exact = tensors["grad/level1/a/gate/layer1/weight"]
        precision = np.dtype(scale).name
        allowed = tolerances(vectors.variant, case, (precision,))
        error = np.abs(grad - exact).max() / np.abs(exact).max()
        assert error <= allowed["grad/level1/a/gate/layer1/weight"][0]


@pytest.mark.parametrize("name, lost", [("float16", True), ("bfloat16", False)])
def test_a_product_that_underflows_may_be_lost(name, lost):
    made = np.asarray(noisy(np.array([UNITS[name]]))(np.full(64, 1e-5)) * 1e-5)
    assert (made >= 0).all()
    assert (np.abs(made - 1e-10).max() > 1e-8) == lost
