"""The synthetic tasks: the papers' formula, and the promises about seeds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npple.data import Dataset, label_correlations, synthetic, weights
from npple.learn.synthetic import _waves, correlations_text
from npple.errors import InputError

SEED = st.integers(0, 2**32)
COUNT = st.integers(2, 6)


@given(COUNT, st.integers(0, 5), st.floats(0, 1), st.floats(0.1, 9), SEED)
def test_all_weights_have_length_c_and_cosine_p(tasks, extra, share, scale, seed):
    lowest = -1 / (tasks - 1)
    p = min(lowest + share * (1 - lowest), 1.0)
    w = weights(tasks + extra, p, tasks, scale, seed)
    expected = scale**2 * (p + (1 - p) * np.eye(tasks))
    assert np.allclose(w @ w.T, expected, rtol=0, atol=1e-12 * scale**2)


@given(p=st.floats(-1, 1), scale=st.floats(0.1, 9), seed=SEED)
def test_two_weights_follow_the_formula_of_the_paper(p, scale, seed):
    u1, u2 = weights(7, 0.0, 2, 1.0, seed)  # orthogonal, so these are u1 and u2 themselves
    w1, w2 = weights(7, p, 2, scale, seed)
    assert np.allclose(w1, scale * u1, rtol=0, atol=1e-14 * scale)
    expected = scale * (p * u1 + math.sqrt(1 - p * p) * u2)
    assert np.allclose(w2, expected, rtol=0, atol=1e-14 * scale)


@given(seed=SEED)
def test_directions_are_normal_draws_made_orthonormal_one_after_the_other(seed):
    first, second = np.random.default_rng(seed).spawn(1)[0].standard_normal((6, 2)).T
    u1 = first / np.linalg.norm(first)
    rest = second - (second @ u1) * u1
    expected = [u1, rest / np.linalg.norm(rest)]
    assert np.allclose(weights(6, 0.0, seed=seed), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", [1.0, -1.0])
def test_full_correlation_makes_the_weights_equal_or_opposite(p):
    first, second = weights(9, p)
    assert np.array_equal(second, p * first)


@settings(max_examples=20)
@given(rows=st.integers(1, 5), tasks=st.integers(1, 3), sines=st.integers(0, 4), seed=SEED)
def test_targets_without_noise_are_the_formula(rows, tasks, sines, seed):
    data = synthetic(rows, 4, 0.3, tasks, sines, 0.0, 1.5, seed, np.float64)
    w = weights(4, 0.3, tasks, 1.5, seed)
    alpha, beta = _waves(sines, seed)
    for k in range(tasks):
        for x, y in zip(data.x, data.targets[f"task{k + 1}"]):
            t = math.fsum(a * b for a, b in zip(w[k], x))
            waves = math.fsum(math.sin(a * t + b) for a, b in zip(alpha, beta))
            assert y == pytest.approx(t + waves, rel=1e-12, abs=1e-12)


@given(seed=SEED)
def test_fewer_rows_are_the_first_of_more_rows(seed):
    few, many = (synthetic(rows, 5, seed=seed, dtype=np.float64) for rows in (3, 40))
    assert np.array_equal(few.x, many.x[:3])
    for task in ("task1", "task2"):
        assert np.allclose(few.targets[task], many.targets[task][:3], rtol=1e-13, atol=1e-13)


def test_waves_and_rows_have_random_numbers_of_their_own():
    _, waves, rows, _ = np.random.default_rng(5).spawn(4)
    assert np.array_equal(np.transpose(_waves(3, 5)), waves.standard_normal((3, 2)))
    x = synthetic(4, 6, seed=5, dtype=np.float64).x
    assert np.array_equal(x, rows.standard_normal((4, 6)))


def test_noise_is_independent_with_the_given_deviation():
    clean, noisy = (synthetic(20_000, 2, noise=s, dtype=np.float64) for s in (0.0, 0.5))
    assert np.array_equal(clean.x, noisy.x)
    noise = np.stack([noisy.targets[t] - clean.targets[t] for t in ("task1", "task2")])
    # mean, variance and covariance within 5 standard errors
    assert np.abs(noise.mean(1)).max() < 5 * 0.5 / math.sqrt(20_000)
    assert np.abs(np.cov(noise) - 0.25 * np.eye(2)).max() < 5 * 0.25 * math.sqrt(2 / 20_000)


def test_features_and_waves_are_standard_normal():
    x = synthetic(5_000, 4).x.astype(np.float64)
    assert np.abs(x.mean(0)).max() < 5 / math.sqrt(5_000)
    assert np.abs(np.cov(x.T) - np.eye(4)).max() < 5 * math.sqrt(2 / 5_000)
    waves = np.array(_waves(5_000, 0))
    assert np.abs(np.cov(waves) - np.eye(2)).max() < 5 * math.sqrt(2 / 5_000)


def test_another_precision_is_the_same_data_rounded():
    wide, narrow = (synthetic(6, 3, dtype=dtype) for dtype in (np.float64, np.float32))
    assert narrow.x.dtype == narrow.targets["task1"].dtype == np.float32
    assert np.array_equal(narrow.x, wide.x.astype(np.float32))
    assert np.array_equal(narrow.targets["task2"], wide.targets["task2"].astype(np.float32))


def test_the_seed_changes_functions_and_rows():
    assert not np.allclose(weights(4, seed=1), weights(4, seed=2))
    assert not np.allclose(_waves(3, 1), _waves(3, 2))
    assert not np.allclose(synthetic(3, 4, seed=1).x, synthetic(3, 4, seed=2).x)


@pytest.mark.parametrize("p, expected", [(-0.5, -0.17), (0.0, 0.01), (0.5, 0.18), (0.9, 0.53)])
def test_the_correlation_of_the_labels_is_not_that_of_the_tasks(p, expected):
    found = label_correlations(synthetic(50_000, 16, p))
    assert found == {"task1, task2": pytest.approx(expected, abs=0.05)}


def test_label_correlations_are_of_the_rows_that_have_both_labels():
    rng, both = np.random.default_rng(0), np.arange(9) > 3
    a, b, c = rng.normal(size=(3, 9))
    data = Dataset(np.ones((9, 1)), {"a": a, "b": b, "c": c, "of": np.arange(9), "one": np.ones(9)},
                   {"b": both})
    assert label_correlations(data) == {
        "a, b": pytest.approx(np.corrcoef(a[4:], b[4:])[0, 1]),
        "a, c": pytest.approx(np.corrcoef(a, c)[0, 1]), "a, one": None,
        "b, c": pytest.approx(np.corrcoef(b[4:], c[4:])[0, 1]), "b, one": None, "c, one": None}


@pytest.mark.parametrize("found, text", [
    ({"a, b": 0.526}, "label correlation 0.53"), ({"a, b": None}, ""), ({}, ""),
    ({"a, b": 0.5, "a, c": -0.25, "b, c": None}, "label correlation -0.25 to 0.50")])
def test_correlations_in_words(found, text):
    assert correlations_text(found) == text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rows": 0}, "rows is 0, expected an integer of at least 1"),
        ({"rows": 2.0}, "rows is 2.0, expected an integer"),
        ({"rows": True}, "rows is True, expected an integer"),
        ({"tasks": 0}, "tasks is 0, expected an integer of at least 1"),
        ({"inputs": 1}, "inputs is 1, expected an integer of at least 2"),
        ({"sines": -1}, "sines is -1, expected an integer of at least 0"),
        ({"noise": -0.1}, "noise is -0.1, expected a number from 0.0"),
        ({"noise": math.inf}, "noise is inf, expected a number"),
        ({"scale": "1"}, "scale is '1', expected a number"),
        ({"scale": math.nan}, "scale is nan, expected a number"),
        ({"correlation": 1.1}, "correlation is 1.1, expected a number from -1.0 to 1.0"),
        ({"correlation": -0.6, "tasks": 3}, "correlation is -0.6, expected a number from -0.5"),
        ({"dtype": np.int64}, "expected a floating one"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        synthetic(**({"rows": 3, "inputs": 5} | arguments))
