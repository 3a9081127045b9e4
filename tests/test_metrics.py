"""The metrics agree with brute force, with SciPy, and with each other."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from npple import kinds, metrics
from npple.errors import InputError

finite = st.floats(-50, 50)
dtypes = st.sampled_from([np.float32, np.float64])


@st.composite
def binary(draw, numbers=finite):
    """Targets (n,) and scores (n,); drawn from a few values now and then, so that ties occur."""
    n = draw(st.integers(1, 30))
    dtype = draw(dtypes)
    numbers = draw(st.sampled_from([numbers, st.sampled_from([-1.0, 0.0, 2.5])]))
    targets = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    scores = draw(st.lists(numbers, min_size=n, max_size=n))
    return np.array(targets, dtype), np.array(scores, dtype)


@st.composite
def multiclass(draw):
    """Targets (n,) and logits (n, classes)."""
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    targets = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return targets, draw(hnp.arrays(np.float64, (n, classes), elements=finite))


def both_classes(targets):
    return 0 < targets.sum() < len(targets)


# AUC


@pytest.mark.parametrize("scores", [[2**53, 2**53 + 1], [-2**53 - 1, 0],
                                    np.array([2**63, 2**63 + 1], np.uint64)])
def test_integers_that_float64_cannot_tell_apart_are_refused(scores):
    with pytest.raises(InputError, match="scores: integers beyond 2\\^53"):
        metrics.auc([0, 1], scores)
    with pytest.raises(InputError, match="scores: integers beyond 2\\^53"):
        metrics.gauc([0, 1], scores, [0, 0])


def test_integers_that_float64_holds_are_ranked():
    assert metrics.auc([0, 1], [2**53 - 1, 2**53]) == metrics.auc([0, 1], [-2**53, 1 - 2**53]) == 1


@given(binary())
def test_auc_is_the_share_of_pairs_in_order_with_ties_counted_half(sample):
    targets, scores = sample
    assume(both_classes(targets))
    wins = [
        (positive > negative) + 0.5 * (positive == negative)
        for positive in scores[targets == 1]
        for negative in scores[targets == 0]
    ]
    assert metrics.auc(targets, scores) == pytest.approx(sum(wins) / len(wins), abs=1e-14)


@given(binary())
def test_auc_is_the_mann_whitney_statistic_per_pair(sample):
    targets, scores = sample
    assume(both_classes(targets))
    positive, negative = scores[targets == 1], scores[targets == 0]
    u = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    assert metrics.auc(targets, scores) == pytest.approx(u / (positive.size * negative.size))


@given(binary())
def test_reversing_the_scores_reflects_auc(sample):
    targets, scores = sample
    assume(both_classes(targets))
    reflected = 1 - metrics.auc(targets, -scores)
    assert metrics.auc(targets, scores) == pytest.approx(reflected, abs=1e-14)


@pytest.mark.parametrize("target", [0, 1])
def test_auc_of_a_single_class_is_undefined(target):
    assert math.isnan(metrics.auc([target, target], [0.1, 0.2]))


# Log loss


@given(binary())
def test_log_loss_is_the_cross_entropy_of_the_probabilities(sample):
    targets, logits = (array.astype(np.float64) for array in sample)
    ones, zeros = special.expit(logits), special.expit(-logits)
    expected = -(special.xlogy(targets, ones) + special.xlogy(1 - targets, zeros)).mean()
    assert metrics.log_loss(*sample) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("target", "logit", "expected"), [
    (0, 1e4, 1e4), (1, -1e4, 1e4), (1, 1e4, 0.0), (0, -1e4, 0.0), (1, 0.0, math.log(2)),
    (1, 40.0, math.exp(-40)), (0, -700.0, math.exp(-700)),
])
def test_log_loss_keeps_its_digits_at_any_logit(target, logit, expected):
    assert metrics.log_loss([target], [logit]) == pytest.approx(expected, rel=1e-12, abs=0)


@given(multiclass())
def test_multiclass_log_loss_is_that_of_the_softmax(sample):
    targets, logits = sample
    expected = -special.log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean()
    assert metrics.multiclass_log_loss(*sample) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@given(binary())
def test_two_classes_are_the_binary_case(sample):
    targets, logits = sample
    two = np.stack([np.zeros_like(logits), logits], axis=1)
    expected = metrics.log_loss(targets, logits)
    assert metrics.multiclass_log_loss(targets, two) == pytest.approx(expected, rel=1e-12, abs=0)


@given(multiclass(), finite)
def test_a_constant_added_to_all_logits_changes_no_loss(sample, constant):
    targets, logits = sample
    expected = metrics.multiclass_log_loss(targets, logits)
    shifted = metrics.multiclass_log_loss(targets, logits + constant)
    assert shifted == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_multiclass_log_loss_is_stable_at_huge_logits():
    logits = [[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]]
    assert metrics.multiclass_log_loss([0, 1], logits) == 1e4


# Accuracy and squared error


@given(multiclass())
def test_accuracy_counts_the_rows_whose_first_largest_logit_is_the_targets(sample):
    targets, logits = sample
    hits = [list(row).index(max(row)) == target for target, row in zip(targets, logits)]
    assert metrics.accuracy(targets, logits) == pytest.approx(sum(hits) / len(hits))


@given(hnp.arrays(np.float32, (2, 7), elements=st.floats(-50, 50, width=32)))
def test_mse_is_the_mean_square_in_float64(pair):
    targets, values = pair
    squares = [(float(t) - float(v)) ** 2 for t, v in zip(targets, values)]
    assert metrics.mse(targets, values) == pytest.approx(math.fsum(squares) / 7, rel=1e-14)


# Every metric


@given(binary(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(sample, random):
    targets, outputs = sample
    order = random.sample(range(len(targets)), len(targets))
    for metric in (metrics.auc, metrics.log_loss, metrics.mse):
        expected = pytest.approx(metric(targets, outputs), rel=1e-12, nan_ok=True)
        assert metric(targets[order], outputs[order]) == expected


@pytest.mark.parametrize("metric", [metrics.auc, metrics.log_loss, metrics.mse])
@pytest.mark.parametrize(("targets", "outputs"), [
    ([0, 1], [0.5]),
    ([], []),
    ([[0, 1]], [[0.5, 0.5]]),
    ([0, 1], [[0.5], [0.5]]),
    ([0, 1], [0.5, math.nan]),
    ([0, 1], [0.5, math.inf]),
    ([0, math.nan], [0.5, 0.5]),
    ([0, 1], [0.5, 1j]),
    ([0, 1], ["a", "b"]),
])
def test_outputs_or_targets_that_cannot_be_measured_are_refused(metric, targets, outputs):
    with pytest.raises(InputError, match="expected"):
        metric(targets, outputs)


@pytest.mark.parametrize("metric", [metrics.auc, metrics.log_loss])
@pytest.mark.parametrize("target", [-1, 0.5, 2])
def test_a_target_other_than_zero_and_one_is_refused(metric, target):
    with pytest.raises(InputError, match=rf"targets hold \[{target}\.?\]: expected .* 0 to 1"):
        metric([0, target], [0.1, 0.2])


@pytest.mark.parametrize("metric", [metrics.multiclass_log_loss, metrics.accuracy])
@pytest.mark.parametrize(("targets", "logits"), [
    ([0, 3], np.zeros((2, 3))),
    ([0, -1], np.zeros((2, 3))),
    ([0, 0.5], np.zeros((2, 3))),
    ([0], np.zeros((2, 3))),
    ([0, 1], np.zeros(2)),
    ([], np.zeros((0, 3))),
    ([0, 1], np.full((2, 3), np.nan)),
])
def test_targets_that_are_no_class_numbers_are_refused(metric, targets, logits):
    with pytest.raises(InputError, match="expected"):
        metric(targets, logits)


# By kind of task


@given(binary())
def test_a_binary_task_has_auc_and_log_loss(sample):
    expected = {"auc": metrics.auc(*sample), "logloss": metrics.log_loss(*sample)}
    assert kinds.evaluate("binary", *sample) == pytest.approx(expected, nan_ok=True)


def test_a_regression_task_has_mse():
    assert kinds.evaluate("regression", [1.0, 2.0], [1.0, 5.0]) == {"mse": 4.5}


@given(multiclass())
def test_a_multiclass_task_has_log_loss_and_accuracy(sample):
    targets, logits = sample
    assert kinds.evaluate(f"multiclass:{logits.shape[1]}", targets, logits) == {
        "logloss": metrics.multiclass_log_loss(targets, logits),
        "accuracy": metrics.accuracy(targets, logits),
    }


def test_a_multiclass_task_needs_one_logit_per_class():
    with pytest.raises(InputError, match=r"shape \(2, 3\): expected \(n, 4\) for multiclass:4"):
        kinds.evaluate("multiclass:4", [0, 1], np.zeros((2, 3)))


@pytest.mark.parametrize("kind", ["", "ranking", "ranking:3", "multiclass", "multiclass:",
                                  "multiclass:x", "multiclass:-2", None])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(InputError, match="kind must be 'binary', 'regression' or 'multiclass:K'"):
        kinds.evaluate(kind, [0, 1], np.zeros((2, 3)))


def test_gauc_leaves_groups_of_one_class_out_and_weighs_the_others_by_rows():
    targets, scores = [0, 1, 1, 0, 1, 0, 0, 1], [.1, .2, .9, .3, .3, .8, .1, .1]
    groups = ["a", "a", "a", "b", "b", "b", "b", "c"]  # a: 2 of 2 pairs, b: 1.5 of 3, c: ones alone
    assert metrics.gauc(targets, scores, groups) == pytest.approx((3 * 1 + 4 * 0.5) / 7)
    assert np.isnan(metrics.gauc([1, 1], [0.1, 0.2], [3, 4]))


def test_gauc_wants_a_group_for_each_row():
    with pytest.raises(InputError, match="1 targets for 2 outputs"):
        metrics.gauc([0, 1], [0.1, 0.2], [3])


def test_bins_of_equal_predictions_are_one():
    assert metrics.calibration([0, 1, 1], [0.5, 0.5, 0.5], 10) == [(3, 0.5, pytest.approx(2 / 3))]


def test_the_entropy_of_one_class_is_0():
    assert str(metrics.entropy([1, 1])) == "0.0"
