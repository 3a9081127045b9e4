"""The statistics of an online test: lifts and their intervals, corrections, power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npple.checks import check_reals, shown
from npple.core.base import Float64, Values
from npple.core.blocks import blas_with_one_thread
from npple.errors import require
from npple.lab.gains import holm

LEVEL = 0.95  # of the intervals
POWER = 0.8  # with which a detectable lift is found


@dataclass(frozen=True)
class Lift:
    """The ratio of two buckets' means less 1, its 95 % interval, and p of equal means.

    Attributes
    ----------
    lift : float
    low, high : float
        The bounds of the interval.
    p : float
        The chance of as large a difference between buckets of equal means.
    detectable : float
        The smallest true lift that a test of this size finds four times in five.
    holm : float or None
        The p corrected by Holm for all lifts of the report.
    """

    lift: float
    low: float
    high: float
    p: float
    detectable: float = 0.0
    holm: float | None = None

    def __str__(self) -> str:
        p = self.p if self.holm is None else self.holm
        text = f"p={p:.3f}" if p >= 0.001 else "p<0.001"
        return f"{self.lift:+.1%} [{self.low:+.1%}, {self.high:+.1%}] {text}"


def lift(treated: Values, control: Values) -> Lift | None:
    """By how much the mean over treated users exceeds the mean over control users.

    p is Welch's, of equal means. The interval is Fieller's, with Welch's degrees of freedom: the
    ratios r for which that test does not reject mean(treated) = r mean(control). So it holds 0
    exactly where p >= 0.05; for many users it is the delta method's.

    Parameters
    ----------
    treated, control : (n,), (m,) ndarray
        One number a user.

    Returns
    -------
    Lift or None
        None where there is nothing to say: a bucket of one user, no number varies, or the control's
        mean cannot be told from 0, which leaves the interval without bounds.

    Raises
    ------
    InputError
        For what is not one finite number a user.
    """
    from scipy.special import ndtri, stdtr, stdtrit
    treated, control = _numbers("treated", treated), _numbers("control", control)
    if min(len(treated), len(control)) < 2:
        return None
    means, counts = (treated.mean(), control.mean()), np.array([len(treated), len(control)])
    variances = np.array([treated.var(ddof=1), control.var(ddof=1)]) / counts  # of the means
    if not variances.any():
        return None
    df = variances.sum()**2 / (variances**2 / (counts - 1)).sum()
    p = 2 * stdtr(df, -abs(means[0] - means[1]) / np.sqrt(variances.sum()))
    critical = stdtrit(df, (1 + LEVEL) / 2)
    if means[1]**2 <= critical**2 * variances[1]:
        return None
    ratio, g = means[0] / means[1], critical**2 * variances[1] / means[1]**2
    half = critical / abs(means[1]) * np.sqrt((1 - g) * variances[0] + ratio**2 * variances[1])
    low, high = (ratio - half) / (1 - g), (ratio + half) / (1 - g)
    detectable = (critical + ndtri(POWER)) * np.sqrt(variances.sum()) / abs(means[1])
    return Lift(*map(float, (ratio - 1, low - 1, high - 1, p, detectable)))


def _numbers(what: str, values: Values) -> Float64:
    """One finite number a user."""
    values = check_reals(what, values)
    require(values.ndim == 1 and np.isfinite(values).all(),
            f"{what}: {shown(values)}, expected one finite number a user")
    return values


def corrected(lifts: Sequence[Lift | None]) -> list[Lift | None]:
    """The lifts with Holm's p for all of them together.

    Parameters
    ----------
    lifts : sequence of Lift or None

    Returns
    -------
    list of Lift or None
    """
    found = iter(holm(np.array([each.p for each in lifts if each])).tolist())
    return [each and replace(each, holm=next(found)) for each in lifts]


def sample_ratio(counts: Sequence[int]) -> float:
    """The chance of buckets as unequal as these, if users are assigned as they should be.

    Parameters
    ----------
    counts : sequence of int
        Users of each bucket.

    Returns
    -------
    float
        The p of a chi-squared test; below 0.001 the assignment is broken, and no lift means
        anything.
    """
    from scipy import stats
    return float(stats.chisquare(counts).pvalue)


@blas_with_one_thread()
def cuped(outcomes: Mapping[str, Values], before: Mapping[str, Values]) -> dict[str, Float64]:
    """Outcomes without what the same users' outcomes before the test tell of them.

    What is taken away has the mean 0 over all users, whatever their bucket, so means stay what they
    were, give or take chance, and vary less.

    Parameters
    ----------
    outcomes, before : dict of ndarray
        Bucket -> one number for each of its users.

    Returns
    -------
    dict of ndarray

    References
    ----------
    Deng, Xu, Kohavi, Walker, WSDM 2013.
    """
    everyone = np.concatenate([before[name] for name in outcomes])
    centred = {name: before[name] - before[name].mean() for name in outcomes}
    spread = sum(float(x @ x) for x in centred.values())
    slope = sum(float(centred[name] @ y) for name, y in outcomes.items()) / (spread or 1.0)
    return {name: y - slope * (before[name] - everyone.mean()) for name, y in outcomes.items()}
