"""The simulated online test: its world, its log, its buckets, its statistics, and what it finds."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import npple
from npple.cli import main
from npple.errors import InputError
from npple.lab import abtest as ab

WORLD = ab.draw_world(users=1000, videos=400, width=4, seed=3)
TINY = {"tiny": partial(npple.single_task, expert_units=(4,), tower_units=())}
SMALL = {"impressions": 3000, "log_impressions": 1000, "epochs": 1, "users": 200, "videos": 50}


def everyone_watches(world):
    """The world where each video shown is viewed to its end."""
    return replace(world, base=np.full(4, 50.0))


def random_policy(users, videos):
    return np.random.default_rng(0).random(videos.shape)


SCENES = ab.draw_scene_world(users=1000, videos=400, width=5, sharing=0.2, seed=3)

# The world


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_responses_have_the_expected_responses_as_their_means(noise):
    world, random = replace(WORLD, noise=noise), np.random.default_rng(0)
    users, videos = np.full((40_000, 1), 7), np.full((40_000, 1), 11)
    expected = world.expected(users[:1], videos[:1])
    responses = world.respond(users, videos, random)
    views = responses["vtr"] == 1
    for task, y in responses.items():
        y = y if task == "vtr" else y[views]  # the others are given a view
        p = expected[task].item()
        assert abs(y.mean() - p) < 4 * np.sqrt(p * (1 - p) / len(y)), task


def test_without_a_view_nothing_else_happens():
    responses = WORLD.respond(np.arange(1000)[:, None], np.zeros((1000, 3), int),
                              np.random.default_rng(0))
    for y in responses.values():
        assert not y[responses["vtr"] == 0].any()


def test_tasks_of_correlation_one_differ_by_a_constant_alone():
    world = ab.draw_world(users=50, videos=50, correlation=1.0)
    z = world._utilities(np.arange(50)[:, None], np.arange(50)[None, :]) - world.base
    np.testing.assert_allclose(z, np.broadcast_to(z[..., :1], z.shape), atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_mean_responses_are_about_the_rates_whatever_the_noise(noise):
    world = ab.draw_world(users=400, videos=400, noise=noise, seed=1)
    found = world.expected(np.arange(400)[:, None], np.arange(400)[None, :])
    for task, rate in ab.RATES.items():
        assert found[task].mean() == pytest.approx(rate, rel=0.25), task


def test_more_noise_leaves_less_to_know():
    def spread(noise):
        world = replace(WORLD, noise=noise)
        return world.expected(np.arange(1000)[:, None], np.arange(400)[None, :])["vcr"].std()
    assert spread(0.0) > spread(1.0) > spread(3.0)


def test_a_model_sees_the_user_and_the_video():
    x = WORLD.features(np.array([[5]]), np.array([[2, 9]]))
    expected = [[*WORLD.users[5], *WORLD.videos[v]] for v in (2, 9)]
    assert x.dtype == np.float32 and (x == np.float32([expected])).all()


# The log


def test_only_views_are_in_the_sample_space_of_what_follows_a_view():
    log = ab.draw_log(WORLD, 5000, seed=1)
    assert len(log) == 5000 and log.masks.keys() == {"vcr", "shr", "cmr"}
    for mask in log.masks.values():
        assert (mask == (log.targets["vtr"] == 1)).all()
    assert 0 <= log.targets["vcr"].min() and log.targets["vcr"].max() <= 1


def test_exploration_makes_the_log_less_popular():
    views = [ab.draw_log(WORLD, 20_000, exploration=e).targets["vtr"].mean() for e in (0, 1, 50)]
    assert views[0] > views[1] > views[2]


# Buckets and serving


def test_a_bucket_is_the_hash_of_salt_and_user_and_nothing_else():
    digest = hashlib.sha256(b"salt:7").hexdigest()
    assert ab.assign(10, 6, "salt")[7] == ab.assign(99, 6, "salt")[7] == int(digest[:16], 16) % 6


def test_buckets_are_of_equal_size_and_shuffled_by_the_salt():
    first, second = ab.assign(6000, 3, "a"), ab.assign(6000, 3, "b")
    table = np.histogram2d(first, second, bins=3)[0]  # (3, 3): uniform if both are and independent
    assert stats.chisquare(table.ravel()).pvalue > 0.01


def test_every_impression_is_counted_for_the_user_who_had_it():
    world = everyone_watches(WORLD)
    shown = []

    def longest(users, videos):
        order = np.argsort(-world.lengths[videos], axis=1)[:, :4]
        shown.append(np.take_along_axis(world.lengths[videos], order, axis=1).sum())
        return world.lengths[videos]
    outcomes = ab.serve(world, {"longest": longest, "other": random_policy}, 8003, shown=4)
    assert sum(found["views"].sum() for found in outcomes.values()) == 8000  # whole visits
    assert {*outcomes["other"]["views"]} == {8.0}  # 2000 visits of 1000 users, 4 videos each
    assert outcomes["longest"]["watch_time"].sum() == pytest.approx(shown[0])
    assert sum(len(found["views"]) for found in outcomes.values()) == 1000


def test_a_visit_never_offers_a_video_twice():
    def look(users, videos):
        assert all(len({*row}) == 20 for row in videos.tolist())
        return random_policy(users, videos)
    ab.serve(WORLD, {"a": look}, 2000)


@pytest.mark.parametrize("message, change", [
    ("impressions: an integer .* 5 .*needed, got 4", {"impressions": 4}),
    ("impressions: 5, too few: no visit in bucket", {"impressions": 5}),
    ("candidates: an integer .* 5 .*needed, got 4", {"candidates": 4}),
    ("candidates: 500, expected at most the 400 videos", {"candidates": 500}),
    ("shown: an integer of at least 1 is needed, got 2.5", {"shown": 2.5}),
])
def test_what_cannot_be_served_is_refused(message, change):
    with pytest.raises(InputError, match=message):
        ab.serve(WORLD, {"a": random_policy, "b": random_policy}, **{"impressions": 5000} | change)


@pytest.mark.parametrize("message, change", [
    ("users: 2, too few for 6 buckets", {"users": 2}),
    ("videos: an integer .* got 0", {"videos": 0}),
    ("width: an integer .* 2 .*needed, got 1", {"width": 1}),
    ("noise must be a finite number of 0 to 1e[+]06, got -1", {"noise": -1}),
    ("noise must be a finite number of 0 to 1e[+]06, got 1e[+]300", {"noise": 1e300}),
    ("correlation is -0.5", {"correlation": -0.5}),
    ("seed is -1", {"seed": -1}),
    ("impressions: an integer .* 5 .*needed, got 4", {"impressions": 4}),
    ("models: .'retrained'., expected at least one", {"models": {"retrained": npple.ple}}),
    ("trained: an integer of at least 1 is needed, got 0", {"trained": 0}),
    ("models: .., expected at least one", {"models": {}}),
    ("models: a text as name is needed, got None", {"models": {None: npple.ple}}),
])
def test_what_makes_no_test_is_refused(message, change):
    with pytest.raises(InputError, match=message):
        ab.abtest(**{"models": TINY} | SMALL | change)


# Statistics

samples = hnp.arrays(float, st.integers(2, 30), elements=st.integers(-1, 20).map(float),
                     fill=st.nothing())


@given(samples, samples)
def test_p_is_that_of_welch(treated, control):
    found = ab.lift(treated, control)
    if found is not None:
        welch = stats.ttest_ind(treated, control, equal_var=False)
        assert found.p == pytest.approx(welch.pvalue, rel=1e-9)
        assert found.lift == pytest.approx(treated.mean() / control.mean() - 1)


@given(samples, samples)
def test_the_interval_leaves_out_zero_exactly_where_p_is_below_5_percent(treated, control):
    found = ab.lift(treated, control)
    if found is not None and abs(found.p - 0.05) > 1e-9:
        assert found.low <= found.lift <= found.high
        assert (found.low <= 0 <= found.high) == (found.p > 0.05)


@given(samples, samples)
def test_the_interval_ends_where_the_test_of_that_ratio_stops_rejecting(treated, control):
    found = ab.lift(treated, control)
    if found is not None:
        critical = stats.t.isf(0.025, stats.ttest_ind(treated, control, equal_var=False).df)
        for ratio in (1 + found.low, 1 + found.high):
            error = np.hypot(stats.sem(treated), ratio * stats.sem(control))
            assert abs(treated.mean() - ratio * control.mean()) == pytest.approx(critical * error)


def test_the_interval_is_that_of_the_delta_method_for_many_users():
    random = np.random.default_rng(0)
    treated, control = random.gamma(2, 3, size=40_000), random.gamma(2, 2, size=30_000)
    found, ratio = ab.lift(treated, control), treated.mean() / control.mean()
    variances = [x.var(ddof=1) / len(x) / x.mean()**2 for x in (treated, control)]
    half = 1.959964 * ratio * np.sqrt(sum(variances))
    assert found.low == pytest.approx(ratio - half - 1, abs=0.01 * half)
    assert found.high == pytest.approx(ratio + half - 1, abs=0.01 * half)


def test_95_of_100_intervals_hold_the_true_lift():
    random = np.random.default_rng(0)
    found = [ab.lift(random.gamma(2, 3, size=40), random.gamma(2, 2, size=60)) for _ in range(1000)]
    assert 0.935 < np.mean([x.low <= 0.5 <= x.high for x in found]) < 0.965


@pytest.mark.parametrize("bad", [[1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]], ["a", "b"], 3.0,
                                 np.ma.array([1.0, 2.0], mask=[True, False])])
def test_a_lift_of_what_is_not_a_number_a_user_is_refused(bad):
    good = np.array([1.0, 2.0, 3.0])
    for treated, control in ((bad, good), (good, bad)):
        with pytest.raises(InputError, match="treated|control"):
            ab.lift(treated, control)


def test_one_user_says_nothing_of_how_users_differ():
    many = np.array([1.0, 1.01, 0.99])
    assert ab.lift(np.array([5.0]), many) is None and ab.lift(many, np.array([5.0])) is None
    assert ab.lift(np.array([]), many) is None


def test_95_of_100_lifts_hold_zero_where_there_is_none():
    random = np.random.default_rng(0)
    found = [ab.lift(a, b) for a, b in random.gamma(2, 3, size=(4000, 2, 50))]
    assert 0.94 <= np.mean([x.low <= 0 <= x.high for x in found]) <= 0.96


def test_there_is_no_lift_over_what_cannot_be_told_from_zero():
    assert ab.lift(np.array([1.0, 2.0]), np.array([-1.0, 1.0])) is None
    assert ab.lift(np.zeros(3), np.zeros(3)) is None


# What it finds


def test_two_buckets_with_one_policy_differ_in_about_5_of_100_seeds():
    policy = ab.oracle_policy(WORLD)
    covered = np.zeros(2)
    for seed in range(100):
        _, same = ab.summarize(ab.serve(WORLD, {"a": policy, "A/A": policy}, 2500, seed=seed))
        covered += [x.low <= 0 <= x.high for x in (same.views_lift, same.watch_time_lift)]
    assert (covered >= 93).all() and (covered < 100).all()


def test_the_oracle_is_found_better_than_the_logging_policy():
    logging = ab.logging_policy(WORLD, 1.0, np.random.default_rng(0))
    _, oracle = ab.summarize(ab.serve(
        WORLD, {"logging": logging, "oracle": ab.oracle_policy(WORLD)}, 20_000))
    assert oracle.views_lift.low > 0 and oracle.views_lift.p < 1e-3
    assert oracle.watch_time_lift.low > 0 and oracle.watch_time_lift.p < 1e-3


def test_a_model_that_knows_the_responses_ranks_as_the_oracle(monkeypatch):
    users, videos = np.arange(6)[:, None], np.arange(120).reshape(6, 20)
    truth = WORLD.expected(users, videos)
    known = {task: p.ravel() for task, p in truth.items()}
    known["vcr"] = np.where(known["vcr"] > 0.9, 1.2, known["vcr"])  # a regression's overshoot
    monkeypatch.setattr(ab, "predict", lambda model, params, rows: dict(known))
    truth["vcr"] = np.where(truth["vcr"] > 0.9, 1.0, truth["vcr"])
    expected = npple.ranking.log_score(truth, ab.EXPONENTS, WORLD.lengths[videos])
    assert (ab.model_policy(WORLD, None, None)(users, videos) == expected).all()


def test_the_whole_test_trains_each_model_and_the_control_anew_and_reports_every_bucket():
    built = []

    def builder(name, inputs, tasks):
        built.append(name)
        return TINY["tiny"](inputs, tasks)
    models = {name: partial(builder, name) for name in ("first", "second")}
    report = ab.abtest(models, **SMALL, trained=2)
    assert built[:2] == ["first", "second"]  # a look at what they make
    assert built[2:] == ["first"] * 2 + ["second"] * 2 + ["first"] * 2
    assert [*report.offline] == ["first", "second", "retrained"]
    assert [bucket.name for bucket in report.buckets] == [
        "first", "A/A", "retrained", "second", "oracle: score", "oracle: views",
        "oracle: watch time"]
    control, *others = report.buckets
    assert control.views_lift is None is control.watch_time_lift
    for bucket in others:
        assert bucket.views_lift.lift == pytest.approx(bucket.views / control.views - 1)
    assert json.loads(json.dumps(report.to_dict()))["buckets"][1]["views_lift"]["p"] <= 1
    for bucket in others:
        assert str(bucket.views_lift) in str(report)


@pytest.mark.parametrize("option", [{"cuped": True}, {"feedback": True}, {"trained": 1}])
def test_options_of_the_test_change_what_comes_out(option):
    plain, other = ab.abtest(TINY, **SMALL), ab.abtest(TINY, **SMALL, **option)
    assert plain.to_dict()["buckets"] != other.to_dict()["buckets"]
    assert other.settings[next(iter(option))] == next(iter(option.values()))


def test_each_oracle_is_best_at_what_it_aims_at():
    policies = {aim: ab.oracle_policy(WORLD, aim) for aim in ab.AIMS}
    users, videos = np.arange(500)[:, None], np.tile(np.arange(20), (500, 1))
    truth, shown = WORLD.expected(users, videos), {}
    worth = {"views": truth["vtr"],
             "watch time": truth["vtr"] * truth["vcr"] * WORLD.lengths[videos]}
    for aim, policy in policies.items():
        best = policy(users, videos).argmax(axis=1)
        shown[aim] = {what: values[np.arange(500), best].sum() for what, values in worth.items()}
    for what in worth:
        others = [found[what] for aim, found in shown.items() if aim != what]
        assert shown[what][what] > max(others)


def test_users_of_a_bucket_are_shared_among_its_policies():
    policy = ab.mixed_policy([lambda users, videos, k=k: np.full(videos.shape, k)
                              for k in range(3)])
    users = np.array([[4], [0], [5], [6]])
    assert policy(users, np.zeros((4, 2), int)).tolist() == [[1, 1], [0, 0], [2, 2], [0, 0]]


def test_the_log_of_a_policy_shows_what_it_ranks_first():
    best = ab.draw_log(WORLD, 5000, policy=ab.oracle_policy(WORLD, "views")).targets["vtr"].mean()
    assert best > ab.draw_log(WORLD, 5000).targets["vtr"].mean() + 0.05


def test_an_a_a_difference_is_commented():
    off, none = ab.Lift(0.1, 0.05, 0.15, 0.001, 0.02), ab.Lift(0.0, -0.1, 0.1, 0.9, 0.02)
    for name, words in (("A/A", "by chance alone"), ("retrained", "by the luck of training")):
        for lift, expected in ((off, True), (none, False)):
            report = ab.ABReport({"impressions": 1, "seed": 0}, {}, {}, (
                ab.Bucket("first", 9, 1.0, 1.0, None, None),
                ab.Bucket(name, 9, 1.0, 1.0, none, lift)))
            assert (f"{name} differs on watch time {words}" in str(report)
                    or f"{name} differs on watch time from" in str(report)) == expected


def test_a_seed_says_it_all():
    first, again, other = (ab.abtest(TINY, **SMALL, seed=s).to_dict() for s in (4, 4, 5))
    assert first == again
    assert first["buckets"] != other["buckets"]


# The world in two scenes


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_responses_in_scenes_have_the_expected_responses_as_their_means(noise):
    world, random = replace(SCENES, noise=noise), np.random.default_rng(0)
    for user in range(4):
        users, videos = np.full((40_000, 1), user), np.full((40_000, 1), 11)
        expected = world.expected(users[:1], videos[:1])
        responses = world.respond(users, videos, random)
        played = responses["vcr"] > 0
        for task, y in responses.items():
            y = y if task == "vtr" else y[played]
            assert y.mean() == pytest.approx(expected[task].item(), abs=4 * y.std() / len(y)**0.5
                                             + 1e-12), (user, task)
        seconds = responses["vcr"] * world.lengths[11]
        assert seconds.mean() == pytest.approx(world.seconds(users[:1], videos[:1]).item(),
                                               abs=4 * seconds.std() / 200)


def test_scenes_of_users_have_the_plays_and_correlations_of_the_data_in_scenes():
    log = ab.draw_log(SCENES, 40_000, exploration=100.0)
    rows = npple.data.vtr_vcr(40_000, 5, sharing=0.2)
    for scene in (-1, 1):
        ours, theirs = (data.take(data.x[:, 0] == scene) for data in (log, rows))
        assert ours.masks["vcr"].mean() == pytest.approx(theirs.masks["vcr"].mean(), abs=0.06)
        views = [data.targets["vtr"][data.masks["vcr"]].mean() for data in (ours, theirs)]
        assert views[0] == pytest.approx(views[1], abs=0.1)
        assert (ours.targets["vtr"] <= ours.masks["vcr"]).all()


def test_each_oracle_in_scenes_is_best_at_what_it_aims_at():
    users, videos = np.arange(500)[:, None], np.tile(np.arange(20), (500, 1))
    worth = {"views": SCENES.expected(users, videos)["vtr"],
             "watch time": SCENES.seconds(users, videos)}
    for what, values in worth.items():
        shown = {aim: values[np.arange(500), ab.oracle_policy(SCENES, aim)(users, videos).argmax(
            axis=1)].sum() for aim in ab.AIMS}
        assert shown[what] == max(shown.values()) > min(shown.values())


def test_the_test_in_scenes_prints_the_correlations_by_scene(capsys):
    small = ["--impressions", "3000", "--log-impressions", "1000", "--epochs", "1", "--users",
             "200", "--models", "single_task", "ple", "--trained", "1"]
    assert main(["abtest", "--scenes", "--dependence", "0.9", *small]) == 0
    text = capsys.readouterr().out
    assert "labels in click: vtr, vcr" in text and "oracle: watch time" in text
    for flags in (["--scenes", "--correlation", "0"], ["--sharing", "0.1"]):
        assert main(["abtest", *flags, *small]) == 2
        assert f"{flags[-2]}: of no use" in capsys.readouterr().err


@pytest.mark.parametrize("builder", [len, lambda inputs, tasks: 3])
def test_what_builds_no_model_is_refused_before_anything_is_logged(monkeypatch, builder):
    monkeypatch.setattr(ab, "draw_log", None)
    with pytest.raises(InputError, match="models: 'mine': .*expected a builder|a Network"):
        ab.abtest({"ple": npple.ple, "mine": builder}, users=40, videos=30, width=2)
