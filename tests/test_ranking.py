"""The ranking score: the paper's product of powers, what it does at 0 and 1, and top-k by it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npple import ranking
from npple.errors import InputError

TASKS = ("vtr", "vcr", "shr", "cmr")
probabilities = st.floats(0, 1)
numbers = st.floats(-3, 3) | st.sampled_from([-math.inf, 0.0, math.inf])


@st.composite
def candidates(draw):
    """Predictions by task, weights by task and lengths, of n candidates."""
    n = draw(st.integers(1, 6))
    column = st.lists(probabilities, min_size=n, max_size=n).map(np.array)
    predictions = {task: draw(column) for task in TASKS}
    weights = {task: draw(st.floats(0, 4)) for task in TASKS}
    return predictions, weights, draw(column) * 100


@given(candidates())
def test_the_score_is_the_product_of_powers_and_length_factor(case):
    predictions, weights, lengths = case
    powers = [p ** weights[task] for task, p in predictions.items()]
    expected = math.prod(powers) * np.log1p(lengths)
    np.testing.assert_allclose(ranking.score(*case), expected, rtol=1e-11, atol=1e-290)


def test_a_prediction_that_rounded_to_zero_makes_the_score_zero():
    scores = ranking.score({"vtr": [0.0, 1e-300], "shr": [1.0, 1.0]}, {"vtr": 0.1, "shr": 2.0},
                           [10.0, 10.0])
    assert scores[0] == 0 < scores[1]


def test_a_prediction_of_one_leaves_the_log_score_as_it_is():
    lengths = np.array([3.0, 40.0])
    without = ranking.log_score({"vtr": [0.2, 0.3]}, {"vtr": 0.7}, lengths)
    ones = {"vtr": [0.2, 0.3], "shr": [1.0, 1.0]}
    assert (ranking.log_score(ones, {"vtr": 0.7, "shr": 3.0}, lengths) == without).all()


def test_a_weight_of_zero_leaves_the_task_out_even_at_zero():
    lengths = np.array([3.0, 40.0])
    without = ranking.log_score({"vtr": [0.2, 0.3]}, {"vtr": 0.7}, lengths)
    zeros = {"vtr": [0.2, 0.3], "shr": [0.0, 0.5]}
    assert (ranking.log_score(zeros, {"vtr": 0.7, "shr": 0.0}, lengths) == without).all()


def test_the_log_score_keeps_the_order_where_the_product_underflows():
    predictions = {"vtr": [1e-200, 2e-200, 3e-200], "vcr": [1e-200] * 3}
    case = predictions, {"vtr": 1.0, "vcr": 1.0}, [1.0] * 3
    assert not ranking.score(*case).any()
    assert ranking.top_k(ranking.log_score(*case), 3).tolist() == [2, 1, 0]


def test_the_score_of_float32_predictions_is_computed_in_float64():
    p = np.array([0.1, 0.7], np.float32)
    wide = ranking.score({"vtr": p.astype(np.float64)}, {"vtr": 0.3}, [1.0, 2.0])
    assert (ranking.score({"vtr": p}, {"vtr": 0.3}, np.float32([1, 2])) == wide).all()


def test_f_shapes_the_length_and_ones_leave_it_out():
    case = {"vtr": [0.5, 0.5]}, {"vtr": 1.0}, [10.0, 99.0]
    np.testing.assert_allclose(ranking.score(*case, f=np.sqrt), 0.5 * np.sqrt([10, 99]))
    np.testing.assert_allclose(ranking.score(*case, f=np.ones_like), 0.5)
    np.testing.assert_allclose(ranking.weighted_sum(*case, f=np.sqrt), 0.5 * np.sqrt([10, 99]))


@given(candidates())
def test_the_weighted_sum_is_a_matrix_product_times_the_length_factor(case):
    predictions, weights, lengths = case
    matrix = np.stack([predictions[task] for task in TASKS], axis=1)  # (n, 4)
    expected = matrix @ [weights[task] for task in TASKS] * np.log1p(lengths)
    np.testing.assert_allclose(ranking.weighted_sum(*case), expected, rtol=1e-12, atol=1e-300)


@given(st.lists(numbers, min_size=1, max_size=8), st.data())
def test_top_k_sorts_by_score_and_then_by_place(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert ranking.top_k(scores, k).tolist() == expected


def test_of_many_equal_scores_the_earlier_come_first():
    scores = np.arange(300) % 3  # long enough for a sort that is not stable to show
    assert ranking.top_k(scores, 100).tolist() == list(range(2, 300, 3))


def test_top_k_ranks_each_row_by_itself():
    assert ranking.top_k([[1, 3, 2], [5, 4, 5]], 2).tolist() == [[1, 2], [0, 2]]


@pytest.mark.parametrize("message, arguments", [
    ("weights: for .'vtr'., expected one for each of .'vtr', 'shr'.",
     ({"vtr": [0.5], "shr": [0.5]}, {"vtr": 1.0}, [1.0])),
    ("weights: 'vtr' must be a finite number of at least 0, got -1.0",
     ({"vtr": [0.5]}, {"vtr": -1.0}, [1.0])),
    ("predictions: 'vtr': shape .2,., expected .1,. as video_len",
     ({"vtr": [0.5, 0.5]}, {"vtr": 1.0}, [1.0])),
    ("predictions: 'vtr': .-0.01., expected finite numbers of at least 0",
     ({"vtr": [0.5, -0.01]}, {"vtr": 1.0}, [1.0, 1.0])),
    ("predictions: 'vtr': .nan.", ({"vtr": [np.nan]}, {"vtr": 1.0}, [1.0])),
    ("f.video_len.: .-1.", ({"vtr": [0.5]}, {"vtr": 1.0}, [1.0], lambda length: -length)),
])
def test_what_has_no_score_is_refused(message, arguments):
    with pytest.raises(InputError, match=message):
        ranking.score(*arguments)
    with pytest.raises(InputError, match=message):
        ranking.weighted_sum(*arguments)


@pytest.mark.parametrize("scores, k, message", [
    ([1.0, 2.0], 3, "k: 3, expected an integer from 1 to 2"), ([1.0], 0, "k: 0"),
    ([1.0, np.nan], 1, "scores: NaN"), (1.0, 1, "no axis")])
def test_what_cannot_be_ranked_is_refused(scores, k, message):
    with pytest.raises(InputError, match=message):
        ranking.top_k(scores, k)
