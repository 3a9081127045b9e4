"""A simulated online test: models rank videos for users whose true responses are known.

It is a simulation and says nothing about any real product. A `World` of users and videos answers
with known probabilities; a logging policy has shown some videos; models learn from that log; users
fall into buckets by a salted hash; each bucket is served by one model's ranking score. Two buckets
have the same model (the A/A test, which must find nothing), and one the true expected responses
(the oracle, which must be found better).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from npple import ARCHITECTURES, ranking
from npple.checks import check_count, check_kind, check_number, check_reals, shown
from npple.core.base import Array, Arrays, Codes, Float64, Printed, Values
from npple.data import Dataset, label_correlations, weights
from npple.errors import require
from npple.learn.dataset import streams
from npple.learn.synthetic import correlations_text
from npple.learn.training import Run, predict
from npple.network import Network
from npple.optimizers import Adam
from npple.printing import aligned

TASKS = {"vtr": "binary", "vcr": "regression", "shr": "binary", "cmr": "binary"}
RATES = {"vtr": 0.4, "vcr": 0.5, "shr": 0.03, "cmr": 0.05}  # mean responses to a random video
EXPONENTS = {"vtr": 1.0, "vcr": 1.0, "shr": 0.1, "cmr": 0.1}  # of the ranking score
MODELS = {name: ARCHITECTURES[name] for name in ("single_task", "mmoe", "cgc", "ple")}
MANY = 10 ** 9  # users, videos, impressions
CANDIDATES, SHOWN = 20, 5  # videos to choose from on a visit, and of these how many are shown
LEVEL = 0.95  # of the intervals


# The world ---------------------------------------------------------------------------------------
Policy: TypeAlias = Callable[[Codes, Codes], Float64]  # users (n, 1), videos (n, c) -> (n, c)


@dataclass(frozen=True)
class World:
    """Users, videos, and how the first respond to the second; `draw_world` makes one.

    The utility of video v to user u for task k is z_k = c_k + w_k·[a_u, b_v, a_u * b_v]. The
    completion ratio is Phi(z_k + noise e_k), Phi the standard normal distribution function and e_k
    a standard normal draw that no feature tells; for views, shares and comments the same is their
    chance. The expected response is the mean over e_k, Phi(z_k / sqrt(1 + noise²)).

    Attributes
    ----------
    users, videos : (U, d), (V, d) float64
        The features a and b.
    taste : (4, 3 d) float64
        The unit vectors w, a row a task; any two have the same cosine, the task correlation.
    base : (4,) float64
        The constants c.
    noise : float
    """

    users: np.ndarray
    videos: np.ndarray
    taste: np.ndarray
    base: np.ndarray
    noise: float

    @property
    def lengths(self) -> Float64:
        """Seconds of each video, (V,): log-normal, 30 in the median, told by the first feature."""
        return 30 * np.exp(0.5 * self.videos[:, 0])

    def features(self, users: Codes, videos: Codes) -> Array:
        """What a model sees of users and videos.

        Parameters
        ----------
        users : ndarray of int (n, 1)
        videos : ndarray of int (n, c)
            Their numbers.

        Returns
        -------
        ndarray (n, c, 2 d), float32
            The features of the user, then those of the video.
        """
        a, b = self.users[users], self.videos[videos]
        return np.concatenate([np.broadcast_to(a, b.shape), b], axis=-1, dtype=np.float32)

    def expected(self, users: Codes, videos: Codes) -> dict[str, Float64]:
        """The expected responses of users to videos.

        Parameters
        ----------
        users : ndarray of int (n, 1)
        videos : ndarray of int (n, c)
            Their numbers.

        Returns
        -------
        dict of ndarray (n, c)
            Task -> in [0, 1]; for all tasks but "vtr" given that the video is viewed.
        """
        from scipy.special import ndtr
        z = self._utilities(users, videos) / np.sqrt(1 + self.noise**2)
        return dict(zip(TASKS, np.moveaxis(ndtr(z), -1, 0)))

    def respond(self, users: Codes, videos: Codes, random: np.random.Generator
                ) -> dict[str, Float64]:
        """Draws the responses of users to videos.

        Parameters
        ----------
        users : ndarray of int (n, 1)
        videos : ndarray of int (n, c)
            Their numbers.
        random : numpy.random.Generator

        Returns
        -------
        dict of ndarray (n, c)
            Task -> 0 or 1 for "vtr", "shr" and "cmr", in [0, 1] for "vcr"; all 0 without a view.
        """
        from scipy.special import ndtr
        z = self._utilities(users, videos)  # (n, c, 4)
        moods = np.moveaxis(ndtr(z + self.noise * random.standard_normal(z.shape)), -1, 0)
        responses = {task: p if kind == "regression" else random.random(p.shape) < p
                     for (task, kind), p in zip(TASKS.items(), moods)}
        return {task: np.where(responses["vtr"], y, 0) for task, y in responses.items()}

    def _utilities(self, users: Codes, videos: Codes) -> Float64:
        """z (n, c, 4)."""
        a, b = self.users[users], self.videos[videos]
        of_user, of_video, of_match = np.split(self.taste, 3, axis=1)  # (4, d) each
        return self.base + a @ of_user.T + b @ of_video.T + (a * b) @ of_match.T


def draw_world(users: int = 20_000, videos: int = 2_000, width: int = 16, correlation: float = 0.5,
               noise: float = 1.0, seed: int = 0) -> World:
    """A world whose features are standard normal.

    Parameters
    ----------
    users, videos : int
    width : int
        Features of a user, and of a video.
    correlation : float
        The task correlation: the cosine between the weight vectors of any two tasks, -1/3 to 1.
    noise : float
        Deviation of what moves a response and no feature tells, against 1 for what they tell.
    seed : int

    Returns
    -------
    World

    Raises
    ------
    InputError
        For a number out of its range.
    """
    from scipy.special import ndtri
    for name, value, least in (("users", users, 2), ("videos", videos, 1), ("width", width, 2)):
        check_count(name, value, least, MANY)
    noise = check_number("noise", noise, 0, 1e6)
    taste = weights(3 * width, correlation, len(TASKS), seed=seed)
    random = streams(seed, 4)[1]  # the first is that of `weights`
    base = ndtri(list(RATES.values())) * np.sqrt(2 + noise**2)  # z has variance 1, noise, Phi 1
    return World(random.standard_normal((users, width)), random.standard_normal((videos, width)),
                 taste, base, float(noise))


# Policies: users (n, 1), videos (n, c) -> scores (n, c) ------------------------------------------

def oracle_policy(world: World) -> Policy:
    """Ranks by the score of the true expected responses: better by construction.

    Parameters
    ----------
    world : World

    Returns
    -------
    callable
        Users (n, 1) and videos (n, c) -> scores (n, c).
    """
    return lambda users, videos: _score(world, world.expected(users, videos), videos)


def model_policy(world: World, model: Network, params: Arrays) -> Policy:
    """Ranks by the score of a model's predictions; the completion ratio is cut to [0, 1].

    Parameters
    ----------
    world : World
    model : npple.network.Network
        Of the tasks and features of the world.
    params : dict of ndarray

    Returns
    -------
    callable
        Users (n, 1) and videos (n, c) -> scores (n, c).
    """
    def scores(users: Codes, videos: Codes) -> Float64:
        x = world.features(users, videos)  # (n, c, 2 d)
        found = predict(model, params, Dataset(x.reshape(-1, x.shape[-1]), {}, {}))
        found["vcr"] = found["vcr"].clip(0, 1)
        return _score(world, {task: p.reshape(videos.shape) for task, p in found.items()}, videos)
    return scores


def logging_policy(world: World, exploration: float, random: np.random.Generator) -> Policy:
    """Ranks by what a video's features add to views on average, plus `exploration` · noise.

    Parameters
    ----------
    world : World
    exploration : float
        Deviation of the noise on the scores.
    random : numpy.random.Generator
        Of the noise, drawn anew in every call.

    Returns
    -------
    callable
        Users (n, 1) and videos (n, c) -> scores (n, c).
    """
    of_video = np.split(world.taste[list(TASKS).index("vtr")], 3)[1]
    popularity = world.videos @ of_video  # (V,)
    return lambda users, videos: (
        popularity[videos] + exploration * random.standard_normal(videos.shape))


def _score(world: World, predictions: Mapping[str, Array], videos: Codes) -> Float64:
    return ranking.log_score(predictions, EXPONENTS, world.lengths[videos])


# Serving -----------------------------------------------------------------------------------------

def draw_log(world: World, impressions: int, *, candidates: int = CANDIDATES, shown: int = SHOWN,
             exploration: float = 1.0, seed: int = 0) -> Dataset:
    """What the logging policy showed and how users responded, as data to learn from.

    Every impression belongs to the sample space of "vtr"; only views to those of the completion
    ratio, sharing and commenting (masks; PLE paper, section 4.3).

    Parameters
    ----------
    world : World
    impressions : int
        Videos shown in all, in visits of `shown`; what makes no whole visit is left out.
    candidates, shown : int
        Videos to choose from on a visit, and of these how many are shown.
    exploration : float
        Deviation of the noise on the policy's scores; 0 always shows the most popular.
    seed : int

    Returns
    -------
    npple.data.Dataset
        x (n, 2 d), targets and masks by task, float32.
    """
    random = streams(seed, 4)[2]
    users, videos = _visits(world, impressions, candidates, shown, random)
    videos, responses = _serve(world, logging_policy(world, exploration, random), users, videos,
                               shown, random)
    x = world.features(users, videos)
    targets: dict[str, Values] = {task: y.ravel().astype(np.float32)
                                  for task, y in responses.items()}
    masks = {task: targets["vtr"] == 1 for task in TASKS if task != "vtr"}
    return Dataset(x.reshape(-1, x.shape[-1]), targets, masks)


def serve(world: World, policies: Mapping[str, Policy], impressions: int, *,
          candidates: int = CANDIDATES, shown: int = SHOWN, seed: int = 0) -> dict[str, Any]:
    """Each policy ranks for its bucket of users; what each user viewed and watched.

    Parameters
    ----------
    world : World
    policies : dict of callable
        Bucket -> policy: users (n, 1) and videos (n, c) -> scores (n, c).
    impressions : int
        Videos shown in all, in visits of `shown`; what makes no whole visit is left out.
    candidates, shown : int
        Videos to choose from on a visit, and of these how many are shown.
    seed : int
        Of the visits, the responses and the salt of the buckets.

    Returns
    -------
    dict of dict of ndarray
        Bucket -> "views" and "watch_time" (seconds) -> one number for each of its users, those
        who never came included.

    Raises
    ------
    InputError
        For numbers out of their range, or a bucket without two users or a visit.
    """
    random = streams(seed, 4)[3]
    users, videos = _visits(world, impressions, candidates, shown, random)
    buckets = assign(len(world.users), len(policies), salt=f"abtest {seed}")
    fewest = np.bincount(buckets, minlength=len(policies)).min()
    require(fewest > 1, f"users: {len(buckets)}, too few for {len(policies)} buckets")
    outcomes = {}
    for number, (name, policy) in enumerate(policies.items()):
        here = buckets[users[:, 0]] == number
        require(here.any(), f"impressions: {impressions}, too few: no visit in bucket {name!r}")
        chosen, responses = _serve(world, policy, users[here], videos[here], shown, random)
        watched = responses["vcr"] * world.lengths[chosen]
        sums = {"views": responses["vtr"].sum(axis=1), "watch_time": watched.sum(axis=1)}  # visits
        outcomes[name] = {
            metric: np.bincount(users[here, 0], values, len(buckets))[buckets == number]
            for metric, values in sums.items()}
    return outcomes


def assign(users: int, buckets: int, salt: str) -> Codes:
    """The bucket of each of so many users: SHA-256 of salt and number, modulo `buckets`.

    The same user is always in the same bucket of a test, without a list that says so; another
    salt shuffles anew.

    Parameters
    ----------
    users, buckets : int
        How many there are.
    salt : str
        The name of the test.

    Returns
    -------
    ndarray of int (users,)
        The bucket of each user, from 0.
    """
    digests = (hashlib.sha256(f"{salt}:{user}".encode()).digest() for user in range(users))
    return np.array([int.from_bytes(digest[:8]) % buckets for digest in digests])


def _visits(world: World, impressions: int, candidates: int, shown: int, random: np.random.Generator
            ) -> tuple[Codes, Codes]:
    """Who comes, users (n, 1), and what there is to choose from, videos (n, candidates).

    Users come equally often, give or take a visit. The j-th candidate is drawn from the videos
    numbered j modulo `candidates`: all differ.
    """
    check_count("shown", shown, 1)
    check_count("candidates", candidates, shown)
    check_count("impressions", impressions, shown, MANY)
    strata = len(world.videos) // candidates
    require(strata, f"candidates: {candidates}, expected at most the {len(world.videos)} videos")
    visits = impressions // shown
    users = random.permutation(len(world.users))[np.arange(visits)[:, None] % len(world.users)]
    drawn = random.integers(strata, size=(visits, candidates))
    return users, drawn * candidates + np.arange(candidates)


def _serve(world: World, policy: Policy, users: Codes, videos: Codes, shown: int,
           random: np.random.Generator) -> tuple[Codes, dict[str, Float64]]:
    """The videos shown (n, shown), best first, and the responses to them."""
    best = ranking.top_k(policy(users, videos), shown)
    videos = np.take_along_axis(videos, best, axis=1)
    return videos, world.respond(users, videos, random)


# Statistics --------------------------------------------------------------------------------------

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
    """

    lift: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        p = f"p={self.p:.3f}" if self.p >= 0.001 else "p<0.001"
        return f"{self.lift:+.1%} [{self.low:+.1%}, {self.high:+.1%}] {p}"


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
    from scipy.special import stdtr, stdtrit
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
    return Lift(*map(float, (ratio - 1, low - 1, high - 1, p)))


def _numbers(what: str, values: Values) -> Float64:
    """One finite number a user."""
    values = check_reals(what, values)
    require(values.ndim == 1 and np.isfinite(values).all(),
            f"{what}: {shown(values)}, expected one finite number a user")
    return values


# The whole test ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Bucket:
    """What one bucket of users saw: means a user, and lifts over the control bucket.

    Attributes
    ----------
    name : str
    users : int
        How many.
    views, watch_time : float
        Means a user; watch time in seconds.
    views_lift, watch_time_lift : Lift or None
        Over the control; None for the control itself, and where the lift is undefined.
    """

    name: str
    users: int
    views: float
    watch_time: float
    views_lift: Lift | None
    watch_time_lift: Lift | None


@dataclass(frozen=True, repr=False)
class ABReport(Printed):
    """The outcome of a simulated online test; prints as a table.

    Attributes
    ----------
    settings : dict
        What was run.
    labels : dict of float or None
        The correlations of the labels in the log, measured (`npple.data.label_correlations`).
    offline : dict
        Model -> task -> metrics on held-out rows of the log.
    buckets : tuple of Bucket
        The control first.
    """

    settings: dict[str, Any]
    labels: dict[str, float | None]
    offline: dict[str, Any]
    buckets: tuple[Bucket, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dicts and lists, ready for JSON.

        Returns
        -------
        dict
            `settings`, `labels`, `offline` and `buckets`.
        """
        return asdict(self)

    def __str__(self) -> str:
        control = self.buckets[0]
        title = (f"Simulated online test: {self.settings['impressions']:,} impressions, seed "
                 f"{self.settings['seed']}; lift over {control.name} with 95 % interval")
        rows = [(bucket.name, str(bucket.users), f"{bucket.views:.3f}", f"{bucket.watch_time:.2f}",
                 *("" if bucket is control else str(lift or "undefined")
                   for lift in (bucket.views_lift, bucket.watch_time_lift)))
                for bucket in self.buckets]
        heads = ("bucket", "users", "views/user", "seconds/user", "views", "watch time")
        table = aligned([heads, *rows], (1, 2, 3))
        return f"{title}\n{table}\nin the log: {correlations_text(self.labels) or 'no labels'}"


def summarize(outcomes: Mapping[str, Any]) -> tuple[Bucket, ...]:
    """A `Bucket` for each bucket of `serve`; the first is the control.

    Parameters
    ----------
    outcomes : dict of dict of ndarray
        From `serve`.

    Returns
    -------
    tuple of Bucket
    """
    control = next(iter(outcomes.values()))
    means = {name: [float(values.mean()) for values in found.values()]
             for name, found in outcomes.items()}
    lifts = {name: [None if found is control else lift(values, control[metric])
                    for metric, values in found.items()] for name, found in outcomes.items()}
    return tuple(Bucket(name, len(found["views"]), means[name][0], means[name][1],
                        lifts[name][0], lifts[name][1]) for name, found in outcomes.items())


def abtest(models: Mapping[str, Callable[..., Network]] = MODELS, *, impressions: int = 200_000,
           log_impressions: int = 50_000, epochs: int = 5, rate: float = 1e-3,
           batch_size: int = 256, exploration: float = 1.0, seed: int = 0,
           progress: Callable[[str], object] = lambda text: None, **world: Any
           ) -> ABReport:
    """Train models on a log and let them rank for users, each for its own bucket.

    Parameters
    ----------
    models : dict of callable
        Name -> builder, called with the inputs and tasks alone (`functools.partial` sets
        options). The first is the control; the A/A bucket has the same trained model.
    impressions, log_impressions : int
        Videos shown in the test, and before it in the log.
    epochs, rate, batch_size : int, float, int
        Of the training by Adam; the best epoch on a held-out fifth of the log counts.
    exploration : float
        Of the logging policy.
    seed : int
        Of everything.
    progress : callable
        Told in a line of text what begins.
    **world
        For `draw_world`: users, videos, width, correlation, noise.

    Returns
    -------
    ABReport

    Raises
    ------
    InputError
        For arguments that make no test.
    """
    check_kind("models", models, dict, "a dict of name and builder")
    for name, builder in models.items():
        require(callable(builder), f"models: {name!r}: a builder is needed, got {shown(builder)}")
    check_number("exploration", exploration)
    check_count("epochs", epochs, most=10 ** 9)
    require(models and not {"A/A", "oracle"} & models.keys(),
            f"models: {list(models)}, expected at least one, and none called 'A/A' or 'oracle'")
    check_count("impressions", impressions, SHOWN, MANY)  # now rather than after the training
    where = draw_world(**world, seed=seed)
    log = draw_log(where, log_impressions, exploration=exploration, seed=seed)
    train, held_out = log.split(0.8, seed)
    policies, offline = {}, {}
    for name, builder in models.items():
        progress(f"{name}: training on {len(train):,} impressions of the log")
        run = Run(builder(2 * where.users.shape[1], TASKS), Adam(rate), batch_size, seed,
                  best_by="sum")
        run.train(train, held_out, epochs)
        policies[name] = model_policy(where, run.model, run.best)
        offline[name] = run.best_epoch["validation"]
    control = next(iter(policies))
    policies = {control: policies[control], "A/A": policies[control], **policies,
                "oracle": oracle_policy(where)}
    progress(f"serving {impressions:,} impressions to {len(policies)} buckets")
    buckets = summarize(serve(where, policies, impressions, seed=seed))
    settings = {"impressions": impressions, "log_impressions": log_impressions, "epochs": epochs,
                "rate": rate, "batch_size": batch_size, "exploration": exploration, "seed": seed,
                **world}
    return ABReport(settings, label_correlations(log), offline, buckets)
