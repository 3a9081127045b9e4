"""`npple.testing.assert_gradients`: the check of other people's gradients, for their tests."""

import numpy as np
import pytest

import npple
from npple import testing
from npple.testing import assert_gradients
from npple.verify.gradcheck import gradcheck_function

X = {"w": np.array([0.3, -1.2, 2.0])}


def square(v):
    return (v["w"] ** 2).sum()


def twice(v):
    return {"w": 2 * v["w"]}


def test_complex_steps_are_taken_where_the_function_allows_them():
    assert assert_gradients(square, twice, X).method == "complex-step"


@pytest.mark.parametrize("f, grad", [
    (lambda v: np.abs(v["w"]).sum(), lambda v: {"w": np.sign(v["w"])}),
    (lambda v: np.cbrt(v["w"]).sum(), lambda v: {"w": np.cbrt(v["w"]) / 3 / v["w"]}),
    (lambda v: float(v["w"].real @ v["w"].real), twice)], ids=["abs", "cbrt", "real"])
def test_differences_are_taken_otherwise(f, grad):
    assert assert_gradients(f, grad, X).method == "central-differences"


def test_a_wrong_gradient_is_an_assertion_error_with_the_report():
    with pytest.raises(AssertionError, match=r"w +3 +3 +0 +1\.0e\+00.*\n.*FAILED"):
        assert_gradients(square, lambda v: {"w": 0 * v["w"]}, X)


def test_a_function_that_is_none_stays_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(npple.InputError, match="f is not deterministic"):
        assert_gradients(lambda v: rng.normal(), twice, X)


class Tensor:
    """An array as frameworks have it."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_tensors_of_frameworks_are_taken():
    assert_gradients(lambda v: Tensor(np.asarray(square(v))),
                     lambda v: {"w": Tensor(2 * v["w"])}, X)


def test_the_tolerance_follows_what_the_function_computes_in():
    def single(v):
        kind = np.complex64 if v["w"].dtype.kind == "c" else np.float32
        return (v["w"].astype(kind) ** 2).sum()

    report = assert_gradients(single, lambda v: {"w": 2 * v["w"].astype(np.float32)}, X)
    assert 5e-4 < report.tolerance < 1e-3


def test_what_cannot_be_judged_is_told_how_to_turn_float64_on():
    def coarse(v):
        return np.float16((v["w"].real.astype(np.float16) ** 2).sum())

    with pytest.raises(AssertionError, match="f computes in float16: .*torch.float64.*"
                                             "jax_enable_x64.*tf.float64"):
        assert_gradients(coarse, twice, {"w": np.array([0.01, 1.0, 20.0])})


@pytest.mark.parametrize("f, grad, method", [
    (square, twice, "complex-step"),
    (lambda v: np.abs(v["w"]).sum(), lambda v: {"w": np.sign(v["w"])}, "central-differences")])
def test_the_seed_is_handed_on(monkeypatch, f, grad, method):
    seen = []

    def recorded(*arguments, **options):
        seen.append(options)
        return gradcheck_function(*arguments, **options)

    monkeypatch.setattr(testing, "gradcheck_function", recorded)
    assert_gradients(f, grad, X, seed=5)
    assert_gradients(f, grad, X)
    rest = [{}] if method == "complex-step" else [{}, {"method": method}]
    assert seen == [{"seed": seed, **more} for seed in (5, 0) for more in rest]
