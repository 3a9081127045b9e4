"""What a variant makes of losses, weights and samples; the losses that are not the paper's."""

import numpy as np
import pytest

import npple
from npple.core.losses import Binary, Multiclass, Regression
from npple.oracle.deviant_losses import (Clipped, DeviantBinary, DeviantRegression,
                                         product_backward, product_forward)
from npple.oracle.variant import Variant, cast, each_column
from npple.verify.cases import random_case

MODEL = npple.mmoe(2, {"a": "binary", "b": "regression", "c": "multiclass:3"}, experts=2,
                   expert_units=(2,), tower_units=())
ADAM = npple.Adam()


def variant(**changes):
    return Variant(MODEL.table, ADAM, **changes)


# Weights ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, weight", [
    ({}, 3.0), ({"weight_power": 2}, 9.0), ({"weight_power": 0}, 1.0), ({"shrink": 2}, 1.5),
    ({"variances": (("a", 0.5), ("b", 9.0))}, 3.0 * np.exp(-0.5)),
    ({"variances": (("b", 9.0),)}, 3.0)])
def test_what_a_task_counts_in_the_joint_loss(changes, weight):
    found = variant(**changes).weight("a", 3.0)
    assert type(found) is float and found == pytest.approx(weight, rel=1e-15)


@pytest.mark.parametrize("changes, factors", [
    ({}, {"a": 1.0, "b": 1.0}), ({"divisor": "one"}, {"a": 4.0, "b": 1.0}),
    ({"divisor": "batch"}, {"a": 1.0, "b": 0.25}),
    ({"divisor": "batch", "shares": (("b", 0.5),)}, {"a": 1.0, "b": 0.5})])
def test_what_a_mean_loss_is_multiplied_by(changes, factors):
    masks = {"a": None, "b": np.array([False, True, False, False])}
    found = variant(**changes).factors(masks, 4)
    assert found == factors and all(type(each) is float for each in found.values())


# Losses by task ---------------------------------------------------------------------------------

def test_losses_are_the_papers_unless_something_of_their_kind_is_changed():
    assert [type(variant().kind(task)) for task in "abc"] == [Binary, Regression, Multiclass]
    for changes in ({"positive": 2.0}, {"smoothing": 0.1}):
        kinds = [variant(**changes).kind(task) for task in "abc"]
        assert [type(kind) for kind in kinds] == [DeviantBinary, Regression, Multiclass]
        assert (kinds[0].positive, kinds[0].smoothing) == (changes.get("positive", 1.0),
                                                           changes.get("smoothing", 0.0))
    kinds = [variant(square="half").kind(task) for task in "abc"]
    assert [type(kind) for kind in kinds] == [Binary, DeviantRegression, Multiclass]
    assert kinds[1].square == "half"


def test_a_limit_holds_for_every_kind():
    for task, width in zip("abc", (1, 1, 3), strict=True):
        kind = variant(limit=2.5).kind(task)
        assert type(kind) is Clipped and kind.limit == 2.5 and kind.width == width
        assert type(kind.kind) is type(variant().kind(task))
    assert type(variant(limit=np.inf).kind("a")) is Binary


# Samples ----------------------------------------------------------------------------------------

TARGETS = {"a": np.array([1.0, 1.0, 0.0]), "b": np.array([2.0, np.nan, 3.0])}
MASKS = {"a": None, "b": np.array([True, False, True])}


def test_the_losses_see_what_is_in_a_sample_space():
    assert variant().sample(TARGETS, MASKS) == (TARGETS, MASKS)


def test_unlabelled_rows_count_as_zeros_where_they_are_negatives():
    targets, masks = variant(unlabelled=True).sample(TARGETS, MASKS)
    assert masks == {"a": None, "b": None}
    assert targets["a"] is TARGETS["a"] and targets["b"].tolist() == [2.0, 0.0, 3.0]
    assert targets["b"].dtype == np.float64
    assert np.isnan(TARGETS["b"][1])


# Cases ------------------------------------------------------------------------------------------

def test_a_case_is_cast_whole():
    model = npple.snr_trans({"x": "numeric", "city": (4, 3)}, {"a": "regression"}, experts=2,
                            expert_units=(2,), tower_units=())
    case = random_case(model, 0, 4)
    case = case.__class__(**vars(case) | {"gradients": dict(case.params)})
    made = cast(case, "float32")
    real = np.dtype("float32")
    for part in (made.params, made.noise, made.gradients, made.targets):
        assert part and {array.dtype for array in part.values()} == {real}
    for before, after in ((case.params, made.params), (case.noise, made.noise),
                          (case.gradients, made.gradients), (case.targets, made.targets)):
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array.astype(real))
    assert made.x["x"].dtype == real and made.x["city"].dtype.kind == "i"
    np.testing.assert_array_equal(made.x["city"], case.x["city"])
    assert made.masks == {"a": None} and made.weights == case.weights


def test_a_mask_is_kept():
    case, mask = random_case(MODEL, 0, 4), np.array([True, False, True, True])
    masked = case.__class__(**vars(case) | {"masks": {"b": mask}})
    np.testing.assert_array_equal(cast(masked, np.float64).masks["b"], mask)


def test_features_are_converted_as_a_matrix_or_by_column():
    assert each_column(3, lambda x: x + 1) == 4
    assert each_column({"a": 3, "b": 5}, lambda x: x + 1) == {"a": 4, "b": 6}


# Deviant losses ---------------------------------------------------------------------------------

Z, Y = np.array([-3.0, -0.5, 0.0, 0.7, 40.0, -800.0]), np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])


def slope(kind, z, y):
    """By complex steps."""
    return kind.forward(z + 1e-30j, y)[0].imag / 1e-30


@pytest.mark.parametrize("positive, smoothing", [(1.0, 0.0), (2.5, 0.0), (1.0, 0.25), (3.0, 0.1)])
def test_cross_entropy_with_a_positive_weight_and_smoothed_targets(positive, smoothing):
    kind = DeviantBinary(positive, smoothing)
    loss, cache = kind.forward(Z, Y)
    y = Y * (1 - smoothing) + 0.5 * smoothing
    np.testing.assert_allclose(
        loss, positive * y * np.logaddexp(0, -Z) + (1 - y) * np.logaddexp(0, Z), rtol=1e-14)
    np.testing.assert_allclose(kind.backward(cache), slope(kind, Z, Y), rtol=1e-13, atol=1e-300)
    assert kind.width == Binary().width
    np.testing.assert_array_equal(kind.predict(Z), Binary().predict(Z))


@pytest.mark.parametrize("square, share", [("half", 0.5), ("gradient", 1.0)])
def test_half_the_squared_error_or_its_gradient_alone(square, share):
    kind = DeviantRegression(square)
    loss, cache = kind.forward(Z[:5], Y[:5])
    np.testing.assert_allclose(loss, share * (Z[:5] - Y[:5]) ** 2, rtol=1e-15)
    np.testing.assert_allclose(kind.backward(cache), Z[:5] - Y[:5], rtol=1e-15)
    assert kind.width == Regression().width


def test_a_clipped_loss_has_no_gradient_from_its_limit_on():
    z, y = np.array([0.5, 2.0, 3.0]), np.zeros(3)
    kind = Clipped(Regression(), 4.0)
    loss, cache = kind.forward(z, y)
    assert loss.tolist() == [0.25, 4.0, 4.0] and kind.backward(cache).tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(kind.predict(z), Regression().predict(z))


def test_a_clipped_loss_of_classes_has_gradients_by_row():
    z, y = np.array([[0.0, 0.1, 0.2], [9.0, 0.0, 0.0]]), np.array([1, 2])
    whole, kind = Multiclass(3), Clipped(Multiclass(3), 2.0)
    loss, cache = kind.forward(z, y)
    assert loss[0] == whole.forward(z, y)[0][0] and loss[1] == 2.0
    dz = kind.backward(cache)
    np.testing.assert_array_equal(dz[0], whole.backward(whole.forward(z, y)[1])[0])
    assert not dz[1].any() and kind.width == 3


def test_a_product_of_probabilities_has_its_logit_and_its_slopes():
    z, own = np.meshgrid([-30.0, -1.0, 0.3, 30.0], [-20.0, 0.2, 25.0])
    y, cache = product_forward(z, own)
    np.testing.assert_allclose(y, -np.log(np.exp(-z) + np.exp(-own) + np.exp(-z - own)), rtol=1e-13)
    down, own_down = product_backward(3 * np.ones_like(z), cache)
    for found, step in ((down, (1e-30j, 0)), (own_down, (0, 1e-30j))):
        np.testing.assert_allclose(
            found, 3 * product_forward(z + step[0], own + step[1])[0].imag / 1e-30, rtol=1e-13)
