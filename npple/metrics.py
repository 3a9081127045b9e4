"""How good predictions are: ranking, likelihood, error. All in float64.

Outputs are what a tower gives: logits for classification, values for regression.
"""

from typing import NamedTuple

import numpy as np

from npple.checks import check_array, check_count, check_reals
from npple.core.base import Codes, Float64, Values
from npple.errors import require


def auc(targets: Values, scores: Values) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Ties count half. With r_i the rank of sample i by score, ties sharing their mean rank, and P
    positives and N negatives, it is the Mann-Whitney statistic

        AUC = (sum of r_i over the positives - P (P + 1) / 2) / (P N)

    Parameters
    ----------
    targets : array_like, shape (n,)
        Zeros and ones.
    scores : array_like, shape (n,)
        Higher for what is more likely a one: logits or probabilities.

    Returns
    -------
    float
        In [0, 1]; nan where it is undefined, that is when only one class is present.

    Raises
    ------
    InputError
        If shapes or values are not as above.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982.
    """
    from scipy.stats import rankdata

    scores = _finite("scores", scores, ndim=1)
    positive = _classes(targets, len(scores), count=2) == 1
    positives = np.count_nonzero(positive)
    pairs = positives * (len(scores) - positives)
    if pairs == 0:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / pairs)


def gauc(targets: Values, scores: Values, groups: Values) -> float:
    """Mean over the groups of the AUC within a group, weighted by the groups' rows.

    Groups with one class alone have no AUC and are left out. With n_g rows and AUC_g in group g,

        GAUC = sum_g n_g AUC_g / sum_g n_g

    Parameters
    ----------
    targets : array_like, shape (n,)
        Zeros and ones.
    scores : array_like, shape (n,)
        Higher for what is more likely a one: logits or probabilities.
    groups : array_like, shape (n,)
        Equal values are one group: the user, most often.

    Returns
    -------
    float
        In [0, 1]; nan where no group has both classes.

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    scores = _finite("scores", scores, ndim=1)
    positive = _classes(targets, len(scores), count=2)
    groups = check_array("groups", groups)
    require(groups.ndim == 1, f"groups of shape {groups.shape}: expected one axis")
    _require_length(groups, len(scores))
    _, groups = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, groups))
    positive, groups, scores = positive[order], groups[order], scores[order]
    differs = (np.diff(groups) != 0) | (np.diff(scores) != 0)
    starts = np.flatnonzero(np.append(True, differs))  # of rows of one group and score
    ties = np.diff(np.append(starts, len(scores)))
    rank = np.repeat(starts + (ties + 1) / 2, ties)  # over all; ties share their mean
    rows = np.bincount(groups)
    rank -= np.repeat(np.cumsum(rows) - rows, rows)
    ones = np.bincount(groups, positive)
    pairs = ones * (rows - ones)
    both = pairs > 0
    if not both.any():
        return float("nan")
    wins = np.bincount(groups, rank * positive) - ones * (ones + 1) / 2
    return float(np.average(wins[both] / pairs[both], weights=rows[both]))


class Bin(NamedTuple):
    """Rows with predictions of about one height.

    Attributes
    ----------
    rows : int
    predicted, observed : float
        The mean prediction and the mean target of these rows.
    """

    rows: int
    predicted: float
    observed: float


def calibration(targets: Values, predictions: Values, bins: int = 10) -> list[Bin]:
    """What was predicted beside what was observed, in bins of about as many rows.

    The bins end at the quantiles of the predictions, so equal predictions share one, and there may
    be fewer than asked for.

    Parameters
    ----------
    targets : array_like, shape (n,)
        Zeros and ones, or values.
    predictions : array_like, shape (n,)
        Probabilities, or values.
    bins : int, optional
        At most so many.

    Returns
    -------
    list of Bin
        By ascending prediction; none without a row.

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    predictions = _finite("predictions", predictions, ndim=1)
    targets = _finite("targets", targets, ndim=1)
    _require_length(targets, len(predictions))
    check_count("bins", bins, most=10 ** 6)
    edges = np.percentile(predictions, 100 * np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, predictions)
    rows = np.bincount(place)
    means = zip(np.bincount(place, predictions), np.bincount(place, targets))
    return [Bin(int(count), float(p / count), float(t / count))
            for count, (p, t) in zip(rows, means) if count]


def log_loss(targets: Values, logits: Values) -> float:
    """Mean binary cross-entropy, `log(1 + exp(-z))` for a one and `log(1 + exp(z))` for a zero.

    Parameters
    ----------
    targets : array_like, shape (n,)
        Zeros and ones.
    logits : array_like, shape (n,)
        z, before the sigmoid.

    Returns
    -------
    float
        In nats; exact to rounding however large the logits are.

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    logits = _finite("logits", logits, ndim=1)
    targets = _classes(targets, len(logits), count=2)
    return float(np.logaddexp(0.0, np.where(targets == 1, -logits, logits)).mean())


def multiclass_log_loss(targets: Values, logits: Values) -> float:
    """Mean cross-entropy, `log(sum_j exp(z_j - z_target))`, over the rows.

    Parameters
    ----------
    targets : array_like, shape (n,)
        Class numbers from 0.
    logits : array_like, shape (n, classes)
        z, before the softmax.

    Returns
    -------
    float
        In nats; exact to rounding however large the logits are.

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    logits = _finite("logits", logits, ndim=2)
    targets = _classes(targets, *logits.shape)
    of_target = np.take_along_axis(logits, targets[:, None], axis=1)  # (n, 1)
    return float(np.logaddexp.reduce(logits - of_target, axis=1).mean())


def accuracy(targets: Values, logits: Values) -> float:
    """Share of rows whose largest logit is the target's; of equal ones the first counts.

    Parameters
    ----------
    targets : array_like, shape (n,)
        Class numbers from 0.
    logits : array_like, shape (n, classes)
        Logits or probabilities.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    logits = _finite("logits", logits, ndim=2)
    targets = _classes(targets, *logits.shape)
    return float((logits.argmax(axis=1) == targets).mean())


def entropy(targets: Values) -> float:
    """Mean cross-entropy of the best constant prediction: the classes' shares of the rows.

    Parameters
    ----------
    targets : array_like, shape (n,)
        Class numbers from 0.

    Returns
    -------
    float
        `-sum_c p_c log(p_c)`, in nats; 0 where only one class is present.

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    targets = _finite("targets", targets, ndim=1)
    counts = np.unique(_classes(targets, len(targets), count=2 ** 53), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def mse(targets: Values, values: Values) -> float:
    """Mean squared error.

    Parameters
    ----------
    targets : array_like, shape (n,)
        What was to be predicted.
    values : array_like, shape (n,)
        What was predicted.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If shapes or values are not as above.
    """
    values = _finite("values", values, ndim=1)
    targets = _finite("targets", targets, ndim=1)
    _require_length(targets, len(values))
    return float(np.square(targets - values).mean())


def _finite(name: str, array: object, ndim: int) -> Float64:
    """`array` in float64, checked to have `ndim` axes and to be non-empty, real and finite."""
    array = check_reals(name, array)
    require(
        array.ndim == ndim and array.size > 0,
        f"{name} of shape {array.shape}: expected {ndim} axes, none of them empty",
    )
    require(np.isfinite(array).all(), f"{name} hold NaN or infinity: expected finite numbers")
    return array


def _classes(targets: Values, length: int, count: int) -> Codes:
    """`targets` as integers, shape (length,), checked to be class numbers from 0 to count - 1."""
    targets = _finite("targets", targets, ndim=1)
    _require_length(targets, length)
    strange = targets[(targets != np.floor(targets)) | (targets < 0) | (targets >= count)]
    require(
        strange.size == 0,
        f"targets hold {strange[:1]}: expected class numbers from 0 to {count - 1}",
    )
    return targets.astype(np.intp)


def _require_length(targets: Values, length: int) -> None:
    """Raise `InputError` unless there is one target per output."""
    require(
        len(targets) == length, f"{len(targets)} targets for {length} outputs: expected as many"
    )
