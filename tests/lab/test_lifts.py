"""The statistics of an online test: corrections, power, and what is known from before."""

import numpy as np
import pytest

from npple.lab.gains import holm
from npple.lab.lifts import corrected, cuped, lift, sample_ratio


def buckets(random, effect=0.0, users=200):
    """Outcomes of control and treated users, and of the same users before the test."""
    before = {name: random.gamma(2, 3, users) for name in ("control", "treated")}
    return {name: x + random.normal(size=users) + effect * (name == "treated")
            for name, x in before.items()}, before


def test_holms_p_is_over_all_lifts_that_there_are():
    random = np.random.default_rng(0)
    lifts = [None, *(lift(random.gamma(2, 3, 50), random.gamma(2, 3, 50)) for _ in range(4))]
    found = corrected(lifts)
    assert found[0] is None
    assert [each.holm for each in found[1:]] == pytest.approx(
        holm(np.array([each.p for each in lifts[1:]])).tolist())


def test_a_detectable_lift_is_found_four_times_in_five():
    random = np.random.default_rng(0)
    size = np.mean([lift(*random.gamma(2, 3, (2, 200))).detectable for _ in range(50)])
    found = [lift(a + 6 * size, b) for a, b in random.gamma(2, 3, (1500, 2, 200))]
    assert np.mean([each.low > 0 for each in found]) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("counts, broken", [((1000, 1010, 990), False), ((1000, 1300, 990), True)])
def test_buckets_that_are_not_as_drawn_are_found(counts, broken):
    assert (sample_ratio(counts) < 0.001) == broken


def test_what_was_known_before_makes_intervals_narrower_and_leaves_effects():
    outcomes, before = buckets(np.random.default_rng(1), effect=0.5)
    less = cuped(outcomes, before)
    plain, found = (lift(each["treated"], each["control"]) for each in (outcomes, less))
    assert found.high - found.low < 0.4 * (plain.high - plain.low)
    assert found.low < 0.5 / 6 < found.high


def test_95_of_100_intervals_of_it_hold_zero_where_there_is_no_effect():
    random = np.random.default_rng(2)
    found = []
    for _ in range(1500):
        less = cuped(*buckets(random, users=60))
        found.append(lift(less["treated"], less["control"]))
    assert 0.935 <= np.mean([each.low <= 0 <= each.high for each in found]) <= 0.965


def test_what_was_the_same_for_all_tells_nothing():
    outcomes, before = buckets(np.random.default_rng(0))
    flat = {name: np.ones_like(x) for name, x in before.items()}
    assert all((cuped(outcomes, flat)[name] == y).all() for name, y in outcomes.items())
