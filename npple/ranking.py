"""From several predictions to one order: the ranking score of the PLE paper, and top-k by it.

The score of a video is a product of powers, computed as a sum of logs, so that many small factors
neither underflow nor lose their order. The weighted sum is the usual alternative.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from npple.checks import check_dicts, check_number, check_reals, is_whole, shown
from npple.core.base import Codes, Float64, Values
from npple.errors import require

Factor: TypeAlias = Callable[[Float64], Values]


def score(predictions: Mapping[str, Values], weights: Mapping[str, float], video_len: Values,
          f: Factor = np.log1p) -> Float64:
    """The paper's score, pVTR^wVTR · pVCR^wVCR · pSHR^wSHR · pCMR^wCMR · f(video_len).

    A factor of 0, be it a probability that rounded to 0 or f(video_len), makes the score 0; a
    probability of 1 leaves it alone; a weight of 0 leaves its task out, as 0^0 = 1.

    Parameters
    ----------
    predictions : dict of array_like
        Task -> (..., n) predictions of n candidates, at least 0 and finite. Any tasks will do.
    weights : dict of float
        Task -> its exponent, at least 0.
    video_len : array_like, shape (..., n)
        Lengths of the videos.
    f : callable
        From lengths to factors of at least 0, elementwise; `numpy.ones_like` to leave it out.

    Returns
    -------
    ndarray, shape (..., n), float64
        Below the smallest positive float it becomes 0, above the largest infinity: rank by
        `log_score`, which keeps the order there too.

    Raises
    ------
    InputError
        If tasks or shapes differ, or a value is negative or not finite.

    References
    ----------
    Tang et al., RecSys 2020, section 3.1; f is a sigmoid or a log there.
    """
    with np.errstate(over="ignore"):
        return np.exp(log_score(predictions, weights, video_len, f))


def log_score(predictions: Mapping[str, Values], weights: Mapping[str, float], video_len: Values,
              f: Factor = np.log1p) -> Float64:
    """The logarithm of `score`: sum_k w_k log p_k + log f(video_len); minus infinity for 0.

    Parameters
    ----------
    predictions : dict of array_like
        Task -> (..., n) predictions of n candidates, at least 0 and finite.
    weights : dict of float
        Task -> its exponent, at least 0.
    video_len : array_like, shape (..., n)
        Lengths of the videos.
    f : callable
        From lengths to factors of at least 0, elementwise; `numpy.ones_like` to leave it out.

    Returns
    -------
    ndarray, shape (..., n), float64

    Raises
    ------
    InputError
        If tasks or shapes differ, or a value is negative or not finite.

    References
    ----------
    Tang et al., RecSys 2020, section 3.1.
    """
    predictions, factor = _checked(predictions, weights, video_len, f)
    with np.errstate(divide="ignore"):  # log 0
        logs = [weights[task] * np.log(p) for task, p in predictions.items() if weights[task]]
        return sum(logs, start=np.log(factor))


def weighted_sum(predictions: Mapping[str, Values], weights: Mapping[str, float], video_len: Values,
                 f: Factor = np.log1p) -> Float64:
    """The alternative to `score`: (sum_k w_k p_k) · f(video_len).

    A candidate can make up for a task near 0 with another, which the product does not allow.

    Parameters
    ----------
    predictions : dict of array_like
        Task -> (..., n) predictions of n candidates, at least 0 and finite.
    weights : dict of float
        Task -> its weight, at least 0.
    video_len : array_like, shape (..., n)
        Lengths of the videos.
    f : callable
        From lengths to factors of at least 0, elementwise; `numpy.ones_like` to leave it out.

    Returns
    -------
    ndarray, shape (..., n), float64

    Raises
    ------
    InputError
        If tasks or shapes differ, or a value is negative or not finite.
    """
    values, factor = _checked(predictions, weights, video_len, f)
    return sum((weights[task] * p for task, p in values.items()), np.zeros(())) * factor


def top_k(scores: Values, k: int) -> Codes:
    """The k best candidates, best first; of equal ones the earlier comes first.

    Parameters
    ----------
    scores : array_like, shape (..., n)
        Scores or log scores; infinities are in order.
    k : int
        From 1 to n.

    Returns
    -------
    ndarray, shape (..., k), int
        Places along the last axis.

    Raises
    ------
    InputError
        If k is out of range or a score is NaN.
    """
    scores = check_reals("scores", scores)
    require(scores.ndim and not np.isnan(scores).any(),
            "scores: NaN or no axis, expected numbers in an array")
    require(is_whole(k) and 1 <= k <= scores.shape[-1],
            f"k: {shown(k)}, expected an integer from 1 to {scores.shape[-1]}")
    return np.argsort(-scores, axis=-1, kind="stable")[..., :k]


def _checked(predictions: Mapping[str, Values], weights: Mapping[str, float],
             video_len: Values | None, f: Factor) -> tuple[dict[str, Float64], Float64]:
    """Predictions and f(video_len) in float64, all of one shape."""
    check_dicts(predictions=predictions, weights=weights)
    require(predictions.keys() == weights.keys(),
            f"weights: for {[*weights]}, expected one for each of {[*predictions]}")
    for task, weight in weights.items():
        check_number(f"weights: {shown(task)}", weight)
    video_len = check_reals("video_len", video_len)
    values = {task: _factor(f"predictions: {shown(task)}", p, video_len.shape)
              for task, p in predictions.items()}
    require(callable(f), f"f: a function is needed, got {shown(f)}")
    return values, _factor("f(video_len)", f(video_len), video_len.shape)


def _factor(what: str, values: object, shape: tuple[int, ...]) -> Float64:
    values = check_reals(what, values)
    require(values.shape == shape, f"{what}: shape {values.shape}, expected {shape} as video_len")
    good = np.isfinite(values) & (values >= 0)
    require(good.all(),
            f"{what}: {values[~good][:1]}, expected finite numbers of at least 0")
    return values
