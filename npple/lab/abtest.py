"""A simulated online test: models rank videos for users whose true responses are known.

It is a simulation and says nothing about any real product. A `World` of users and videos answers
with known probabilities; a logging policy has shown some videos; models learn from that log; users
fall into buckets by a salted hash; each bucket is served by the ranking scores of several trainings
of one model. Two buckets have the same ones (the A/A test, which must find nothing), another the
control trained anew; and for each aim one ranks by the true expected responses (the oracles).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np

from npple import ARCHITECTURES, ranking
from npple.checks import check_choice, check_count, check_kind, check_number, shown
from npple.core.base import Array, Arrays, Codes, Float64, Mask, Printed, Values
from npple.core.blocks import blas_with_one_thread
from npple.data import Dataset, label_correlations, weights
from npple.errors import InputError, require
from npple.lab.lifts import Lift, corrected, cuped, lift, sample_ratio
from npple.learn.dataset import streams
from npple.learn.scenes import PLAYED, SCENES, THRESHOLD, scene_correlations, scenes_text
from npple.learn.scenes import TASKS as SCENE_TASKS
from npple.learn.synthetic import correlations_text
from npple.learn.training import Run, predict
from npple.network import Network
from npple.optimizers import Adam
from npple.printing import aligned

TASKS = {"vtr": "binary", "vcr": "regression", "shr": "binary", "cmr": "binary"}
RATES = {"vtr": 0.4, "vcr": 0.5, "shr": 0.03, "cmr": 0.05}  # mean responses to a random video
EXPONENTS = {"vtr": 1.0, "vcr": 1.0, "shr": 0.1, "cmr": 0.1}  # of the ranking score
SCENE_EXPONENTS = {"vtr": 1.0, "vcr": 1.0, "share": 0.1}
MODELS = {name: ARCHITECTURES[name] for name in ("single_task", "mmoe", "cgc", "ple")}
MANY = 10 ** 9  # users, videos, impressions
CANDIDATES, SHOWN = 20, 5  # videos to choose from on a visit, and of these how many are shown
AIMS = ("score", "views", "watch time")  # what an oracle ranks by


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
    tasks: ClassVar[dict[str, str]] = TASKS
    exponents: ClassVar[dict[str, float]] = EXPONENTS

    @property
    @blas_with_one_thread()
    def popularity(self) -> Float64:
        """What each video's features add to views on average, (V,)."""
        found: Float64 = self.videos @ np.split(self.taste[0], 3)[1]
        return found

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

    def seconds(self, users: Codes, videos: Codes) -> Float64:
        """The expected watch time of users with videos.

        Parameters
        ----------
        users : ndarray of int (n, 1)
        videos : ndarray of int (n, c)
            Their numbers.

        Returns
        -------
        ndarray (n, c)
            Seconds.
        """
        found = self.expected(users, videos)
        seconds: Float64 = found["vtr"] * found["vcr"] * self.lengths[videos]
        return seconds

    def sampled(self, targets: Mapping[str, Values]) -> Mask:
        """Which impressions have a completion ratio and what follows: those viewed.

        Parameters
        ----------
        targets : dict of ndarray (n,)

        Returns
        -------
        ndarray of bool (n,)
        """
        return targets["vtr"] == 1

    @blas_with_one_thread()
    def _utilities(self, users: Codes, videos: Codes) -> Float64:
        """z (n, c, 4)."""
        a, b = self.users[users], self.videos[videos]
        of_user, of_video, of_match = np.split(self.taste, 3, axis=1)  # (4, d) each
        return self.base + a @ of_user.T + b @ of_video.T + (a * b) @ of_match.T


@dataclass(frozen=True)
class SceneWorld(World):
    """The mechanism of `npple.data.vtr_vcr`, for users and videos; `draw_scene_world` makes one.

    A user's first feature is the scene, a video's first tells its length. With x = [a, b, a * b]
    of the others, u = w_1·x and v as there, a video is played where u + e > c, and a view where
    more than 10 seconds of it are watched.

    Attributes
    ----------
    users, videos : (U, d), (V, d) float64
        The features a and b.
    taste : (3, 3 (d - 1)) float64
        What makes play, complete and share: orthonormal.
    base : (3,) float64
        The constants -c: of playing in the click and the auto-play scene, and of sharing.
    noise, dependence : float
        As for `npple.data.vtr_vcr`.
    """

    dependence: float
    tasks: ClassVar[dict[str, str]] = dict([*SCENE_TASKS.items()][:3])
    exponents: ClassVar[dict[str, float]] = SCENE_EXPONENTS

    @property
    @blas_with_one_thread()
    def popularity(self) -> Float64:
        """What each video's features add to plays on average, (V,)."""
        found: Float64 = self.videos[:, 1:] @ np.split(self.taste[0], 3)[1]
        return found

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
            Task -> in [0, 1]; for all tasks but "vtr" given that the video is played.
        """
        from scipy.special import ndtr, ndtri
        play, stay, share = self._moods(users, videos)
        needed = ndtri(np.minimum(THRESHOLD / self.lengths[videos], 1))
        long = ndtr((stay - needed) / max(self.noise, 1e-9))
        return {"vtr": ndtr(play) * long, "vcr": ndtr(stay / np.sqrt(1 + self.noise**2)),
                "share": ndtr(share)}

    def seconds(self, users: Codes, videos: Codes) -> Float64:
        """The expected watch time of users with videos.

        Parameters
        ----------
        users : ndarray of int (n, 1)
        videos : ndarray of int (n, c)
            Their numbers.

        Returns
        -------
        ndarray (n, c)
            Seconds.
        """
        from scipy.special import ndtr
        played: Float64 = ndtr(self._moods(users, videos)[0])
        return played * self.expected(users, videos)["vcr"] * self.lengths[videos]

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
            Task -> 0 or 1 for "vtr" and "share", in [0, 1] for "vcr"; all 0 without a play.
        """
        from scipy.special import ndtr
        play, stay, share = self._moods(users, videos)
        e = random.standard_normal((3, *videos.shape))
        played = play + e[0] > 0
        watched = np.where(played, ndtr(stay + self.noise * e[1]), 0)
        return {"vtr": np.where(watched * self.lengths[videos] > THRESHOLD, 1.0, 0.0),
                "vcr": watched, "share": np.where(played & (share + e[2] > 0), 1.0, 0.0)}

    def sampled(self, targets: Mapping[str, Values]) -> Mask:
        """Which impressions have a completion ratio and what follows: those played.

        Parameters
        ----------
        targets : dict of ndarray (n,)

        Returns
        -------
        ndarray of bool (n,)
        """
        return targets["vcr"] > 0

    @blas_with_one_thread()
    def _moods(self, users: Codes, videos: Codes) -> tuple[Float64, Float64, Float64]:
        """u - c, v, and the same as the first of sharing, (n, c) each."""
        a, b = self.users[users], self.videos[videos]
        x = np.concatenate([np.broadcast_to(part, b[..., 1:].shape)
                            for part in (a[..., 1:], b[..., 1:], a[..., 1:] * b[..., 1:])], axis=-1)
        u, own, share = np.moveaxis(x @ self.taste.T, -1, 0)
        auto = a[..., 0] == SCENES["auto-play"]  # (n, 1)
        cosine = np.where(auto, -self.dependence, self.dependence)
        v = cosine * u + np.sqrt(1 - self.dependence**2) * own
        return u + np.where(auto, self.base[1], self.base[0]), v, share + self.base[2]


def draw_scene_world(users: int = 20_000, videos: int = 2_000, width: int = 16,
                     dependence: float = 0.8, noise: float = 0.5, sharing: float = 0.03,
                     seed: int = 0) -> SceneWorld:
    """A world with the mechanism of `npple.data.vtr_vcr`; half of the users are in each scene.

    Parameters
    ----------
    users, videos : int
    width : int
        Features of a user, and of a video.
    dependence, noise, sharing : float
        As for `npple.data.vtr_vcr`.
    seed : int

    Returns
    -------
    SceneWorld

    Raises
    ------
    InputError
        For a number out of its range.
    """
    from scipy.special import ndtri
    for name, value, least in (("users", users, 2), ("videos", videos, 1), ("width", width, 2)):
        check_count(name, value, least, MANY)
    dependence = check_number("dependence", dependence, 0, 1)
    noise, sharing = check_number("noise", noise, 0, 1e6), check_number("sharing", sharing, 0, 1)
    taste = weights(3 * (width - 1), 0.0, 3, seed=seed)
    random = streams(seed, 4)[1]  # the first is that of `weights`
    a = random.standard_normal((users, width))
    a[:, 0] = np.where(a[:, 0] > 0, *reversed(SCENES.values()))
    base = np.sqrt(2) * ndtri([*PLAYED.values(), sharing])
    return SceneWorld(a, random.standard_normal((videos, width)), taste, base, noise, dependence)


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

def oracle_policy(world: World, aim: str = "score") -> Policy:
    """Ranks by the true expected responses: better by construction, at what it aims at.

    Parameters
    ----------
    world : World
    aim : str
        "score", the ranking score; "views", the chance of one; "watch time", expected seconds.

    Returns
    -------
    callable
        Users (n, 1) and videos (n, c) -> scores (n, c).

    Raises
    ------
    InputError
        For another aim.
    """
    check_choice("aim", aim, AIMS)

    def scores(users: Codes, videos: Codes) -> Float64:
        found = world.expected(users, videos)
        if aim == "score":
            return _score(world, found, videos)
        return found["vtr"] if aim == "views" else world.seconds(users, videos)
    return scores


def mixed_policy(policies: Sequence[Policy]) -> Policy:
    """Several policies side by side: each ranks for its share of the users.

    Parameters
    ----------
    policies : sequence of callable
        User u has that of the number u modulo how many there are.

    Returns
    -------
    callable
        Users (n, 1) and videos (n, c) -> scores (n, c).
    """
    def scores(users: Codes, videos: Codes) -> Float64:
        found, own = np.empty(videos.shape), users[:, 0] % len(policies)
        for number, policy in enumerate(policies):
            here = own == number
            if here.any():
                found[here] = policy(users[here], videos[here])
        return found
    return scores


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
    popularity = world.popularity
    return lambda users, videos: (
        popularity[videos] + exploration * random.standard_normal(videos.shape))


def _score(world: World, predictions: Mapping[str, Array], videos: Codes) -> Float64:
    return ranking.log_score(predictions, world.exponents, world.lengths[videos])


# Serving -----------------------------------------------------------------------------------------

def draw_log(world: World, impressions: int, *, candidates: int = CANDIDATES, shown: int = SHOWN,
             exploration: float = 1.0, seed: int = 0, policy: Policy | None = None) -> Dataset:
    """What a policy showed and how users responded, as data to learn from.

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
    policy : callable, optional
        Who ranked; by default the logging policy.

    Returns
    -------
    npple.data.Dataset
        x (n, 2 d), targets and masks by task, float32.
    """
    random = streams(seed, 4)[2]
    users, videos = _visits(world, impressions, candidates, shown, random)
    videos, responses = _serve(world, policy or logging_policy(world, exploration, random), users,
                               videos, shown, random)
    x = world.features(users, videos)
    targets: dict[str, Values] = {task: y.ravel().astype(np.float32)
                                  for task, y in responses.items()}
    masks = {task: world.sampled(targets) for task in targets if task != "vtr"}
    return Dataset(x.reshape(-1, x.shape[-1]), targets, masks)


def serve(world: World, policies: Mapping[str, Policy], impressions: int, *,
          candidates: int = CANDIDATES, shown: int = SHOWN, seed: int = 0,
          salt: str | None = None) -> dict[str, Any]:
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
    salt : str, optional
        Of the buckets, where another test has the same users in them.

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
    buckets = assign(len(world.users), len(policies), salt=salt or f"abtest {seed}")
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
        Model -> task -> metrics on held-out rows of the log, of its first training.
    buckets : tuple of Bucket
        The control first.
    sample_ratio : float
        The p of `npple.lab.lifts.sample_ratio`.
    scenes : dict
        Scene -> the same as `labels`, there; empty without scenes.
    """

    settings: dict[str, Any]
    labels: dict[str, float | None]
    offline: dict[str, Any]
    buckets: tuple[Bucket, ...]
    sample_ratio: float = 1.0
    scenes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dicts and lists, ready for JSON.

        Returns
        -------
        dict
            `settings`, `labels`, `offline`, `buckets`, `sample_ratio` and `scenes`.
        """
        return asdict(self)

    def __str__(self) -> str:
        control = self.buckets[0]
        title = (f"Simulated online test: {self.settings['impressions']:,} impressions, seed "
                 f"{self.settings['seed']}; lift over {control.name} with 95 % interval, p with "
                 "Holm's correction for the table")
        rows = [(bucket.name, str(bucket.users), f"{bucket.views:.3f}", f"{bucket.watch_time:.2f}",
                 *("" if bucket is control else str(lift or "undefined")
                   for lift in (bucket.views_lift, bucket.watch_time_lift)))
                for bucket in self.buckets]
        heads = ("bucket", "users", "views/user", "seconds/user", "views", "watch time")
        table = aligned([heads, *rows], (1, 2, 3))
        notes = [f"in the log: {correlations_text(self.labels) or 'no labels'}",
                 *scenes_text(self.scenes).splitlines(), *self._notes()]
        return "\n".join((title, table, *notes))

    def _notes(self) -> list[str]:
        """What has to be known to read the table."""
        broken = "" if self.sample_ratio >= 0.001 else "; the buckets are not as drawn: look no on"
        notes = [f"users a bucket: p={self.sample_ratio:.3f} of equal chances{broken}"]
        known = [lift.detectable for bucket in self.buckets
                 for lift in (bucket.views_lift, bucket.watch_time_lift) if lift]
        if known:
            notes.append(f"detectable four times in five: lifts of {min(known):.1%} to "
                         f"{max(known):.1%}, before the correction")
        for bucket in self.buckets:
            lifts = {"views": bucket.views_lift, "watch time": bucket.watch_time_lift}
            off = [name for name, lift in lifts.items() if lift and not lift.low <= 0 <= lift.high]
            if bucket.name == "A/A" and off:
                notes.append(f"A/A differs on {' and '.join(off)} by chance alone, as one interval "
                             "in twenty does: the models are the same")
            if bucket.name == "retrained" and off:
                notes.append(f"retrained differs on {' and '.join(off)} from the control, whose "
                             "model it has: by the luck of training, which no interval here covers")
        return notes


def summarize(outcomes: Mapping[str, Any], before: Mapping[str, Any] | None = None
              ) -> tuple[Bucket, ...]:
    """A `Bucket` for each bucket of `serve`; the first is the control.

    Parameters
    ----------
    outcomes : dict of dict of ndarray
        From `serve`.
    before : dict of dict of ndarray, optional
        Of the same users before the test: lifts are then of what this does not tell
        (`npple.lab.lifts.cuped`).

    Returns
    -------
    tuple of Bucket
    """
    if before is not None:
        less = {metric: cuped(*({name: found[metric] for name, found in each.items()}
                                for each in (outcomes, before)))
                for metric in next(iter(outcomes.values()))}
        outcomes = {name: {metric: less[metric][name] for metric in less} for name in outcomes}
    control = next(iter(outcomes.values()))
    means = {name: [float(values.mean()) for values in found.values()]
             for name, found in outcomes.items()}
    places = [(name, metric) for name in outcomes for metric in control]
    found = corrected([None if outcomes[name] is control
                       else lift(outcomes[name][metric], control[metric])
                       for name, metric in places])
    lifts = {name: found[2 * i:2 * i + 2] for i, name in enumerate(outcomes)}
    return tuple(Bucket(name, len(found["views"]), means[name][0], means[name][1],
                        lifts[name][0], lifts[name][1]) for name, found in outcomes.items())


def _check_builder(name: str, builder: Callable[..., Network], where: World) -> None:
    """Raise `InputError` unless the builder makes a model for a world."""
    try:
        network = builder(2 * where.users.shape[1], where.tasks)
    except TypeError as error:
        raise InputError(f"models: {shown(name)}: {error}, expected a builder as npple.ple"
                         ) from error
    check_kind(f"models: {shown(name)}: what the builder makes", network, Network, "a Network")


def abtest(models: Mapping[str, Callable[..., Network]] = MODELS, *, impressions: int = 200_000,
           log_impressions: int = 50_000, epochs: int = 5, rate: float = 1e-3,
           batch_size: int = 256, exploration: float = 1.0, trained: int = 3,
           cuped: bool = False, feedback: bool = False, scenes: bool = False, seed: int = 0,
           progress: Callable[[str], object] = lambda text: None, **world: Any
           ) -> ABReport:
    """Train models on a log and let them rank for users, each for its own bucket.

    Parameters
    ----------
    models : dict of callable
        Name -> builder, called with the inputs and tasks alone (`functools.partial` sets
        options). The first is the control. The A/A bucket has the same trained models, the
        bucket "retrained" as many more trainings of it.
    impressions, log_impressions : int
        Videos shown in the test, and before it in the log.
    epochs, rate, batch_size : int, float, int
        Of the training by Adam; the best epoch on a held-out fifth of the log counts.
    exploration : float
        Of the logging policy.
    trained : int
        Trainings of each model, which differ in their seeds; each ranks for a share of its bucket.
    cuped : bool
        Take from each user's outcome what a time before the test, under the logging policy, tells.
    feedback : bool
        Train anew on a second log, of as many impressions, that the first models ranked.
    scenes : bool
        In a world with the mechanism of `npple.data.vtr_vcr`, instead of four tasks.
    seed : int
        Of everything.
    progress : callable
        Told in a line of text what begins.
    **world
        For `draw_world`: users, videos, width, correlation, noise. With `scenes` for
        `draw_scene_world`: dependence and sharing instead of the correlation.

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
        check_kind("models", name, str, "a text as name")
        require(callable(builder), f"models: {name!r}: a builder is needed, got {shown(builder)}")
    check_number("exploration", exploration)
    check_count("epochs", epochs, most=10 ** 9)
    oracles = [f"oracle: {aim}" for aim in AIMS]
    require(models and not {"A/A", "retrained", *oracles} & models.keys(),
            f"models: {list(models)}, expected at least one, and none called 'A/A' or 'retrained'")
    check_count("trained", trained)
    check_count("impressions", impressions, SHOWN, MANY)  # now rather than after the training
    where = (draw_scene_world if scenes else draw_world)(**world, seed=seed)
    for name, builder in models.items():
        _check_builder(name, builder, where)
    log = draw_log(where, log_impressions, exploration=exploration, seed=seed)
    train, held_out = log.split(0.8, seed)

    def learn(builder: Callable[..., Network], number: int) -> tuple[Policy, Any]:
        """One training: who ranks by it, and its validation metrics."""
        def on(train: Dataset, held_out: Dataset) -> tuple[Policy, Any]:
            run = Run(builder(2 * where.users.shape[1], where.tasks), Adam(rate), batch_size,
                      seed + number, best_by="sum")
            run.train(train, held_out, epochs)
            return model_policy(where, run.model, run.best), run.best_epoch["validation"]

        policy, metrics = on(train, held_out)
        if feedback:
            second = draw_log(where, log_impressions, seed=seed + 1, policy=policy)
            policy, metrics = on(*_joined(log, second).split(0.8, seed))
        return policy, metrics

    control = next(iter(models))
    policies, offline = dict[str, Policy](), {}
    for name, builder in [*models.items(), ("retrained", models[control])]:
        progress(f"{name}: {trained} trainings on {len(train):,} impressions of the log")
        first = trained if name == "retrained" else 0
        found = [learn(builder, number) for number in range(first, first + trained)]
        policies[name] = mixed_policy([policy for policy, _ in found])
        offline[name] = found[0][1]
    policies = {control: policies[control], "A/A": policies[control],
                "retrained": policies.pop("retrained"), **policies,
                **{name: oracle_policy(where, aim) for name, aim in zip(oracles, AIMS)}}
    progress(f"serving {impressions:,} impressions to {len(policies)} buckets")
    outcomes, before = serve(where, policies, impressions, seed=seed), None
    if cuped:
        logging = logging_policy(where, exploration, streams(seed, 5)[4])
        before = serve(where, dict.fromkeys(policies, logging), impressions, seed=seed + 1,
                       salt=f"abtest {seed}")
    buckets = summarize(outcomes, before)
    settings = {"impressions": impressions, "log_impressions": log_impressions, "epochs": epochs,
                "rate": rate, "batch_size": batch_size, "exploration": exploration,
                "trained": trained, "cuped": cuped, "feedback": feedback, "scenes": scenes,
                "seed": seed, **world}
    return ABReport(settings, label_correlations(log), offline, buckets,
                    sample_ratio([bucket.users for bucket in buckets]),
                    scene_correlations(log) if scenes else {})


def _joined(first: Dataset, second: Dataset) -> Dataset:
    """The rows of two logs."""
    def both(a: Any, b: Any) -> Any:
        return {name: np.concatenate([a[name], b[name]]) for name in a}
    return Dataset(both({"x": first.x}, {"x": second.x})["x"], both(first.targets, second.targets),
                   both(first.masks, second.masks))
