"""Videos in two scenes: the mechanism that the PLE paper gives for its seesaw, with knobs.

Where videos play by themselves more is played than where a click is asked for, so how playing goes
together with completing depends on the sample (PLE, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npple.checks import check_count, check_number
from npple.core.base import Array, Float64, Values
from npple.core.blocks import blas_with_one_thread
from npple.learn.dataset import Dataset, streams
from npple.learn.synthetic import label_correlations, weights

TASKS = {"vtr": "binary", "vcr": "regression", "share": "binary", "comment": "binary"}
SCENES = {"click": -1.0, "auto-play": 1.0}  # the value of the first feature
PLAYED = {"click": 0.3, "auto-play": 0.7}  # the share of the rows that is played
SECONDS, THRESHOLD = 30.0, 10.0  # a video's median length, and the watch time that makes a view
MOST = 10 ** 9


@blas_with_one_thread()
def vtr_vcr(rows: int, inputs: int = 32, dependence: float = 0.8, noise: float = 0.5,
            sharing: float = 0.03, seed: int = 0, tasks: int = 3) -> Dataset:
    """Draw impressions of videos with the labels "vtr", "vcr", "share" and "comment".

    The features are the scene, the logarithm of the length, and standard normal ones, x. A video
    is played where `u + e > c`, with u = w_1.x, e standard normal and c by the scene: 0.3 of the
    rows are played where a click is asked for, 0.7 where videos play by themselves. Of what is
    played `Phi(v + noise e')` is watched, Phi the standard normal distribution function; v is
    `dependence u + sqrt(1 - dependence^2) w_2.x` in the click scene, and with `-dependence` in
    the other.

    Parameters
    ----------
    rows : int
    inputs : int
        Features: the scene (-1 click, 1 auto-play), the length, and normal ones.
    dependence : float
        How much playing and completing depend on the scene, 0 to 1: the correlation of u and v is
        this in one scene, and its negative in the other.
    noise : float
        Deviation of what moves completion and no feature tells, against 1 for what they tell.
    sharing : float
        The share of played rows that is shared, between 0 and 1: how sparse that task is; as many
        get a comment.
    seed : int
        The same seed gives the same functions, and the same first rows, whatever `rows` is.
    tasks : int
        How many of the labels there are, 1 to 4; the others are what they would be.

    Returns
    -------
    Dataset
        x (n, inputs) and targets (n,), float32. "vtr": whether more than 10 seconds were watched,
        of all rows; "vcr": the share of the length that was watched, of played rows; "share":
        whether a played row was shared; "comment": whether it got one.

    Raises
    ------
    InputError
        If an argument is out of its range; the message says which range.

    References
    ----------
    Tang et al., RecSys 2020, section 3.1.
    """
    from scipy.special import ndtr, ndtri
    check_count("rows", rows, most=MOST)
    check_count("inputs", inputs, 5)
    check_count("tasks", tasks, 1, len(TASKS))
    dependence = check_number("dependence", dependence, 0, 1)
    noise, sharing = check_number("noise", noise, 0, 1e6), check_number("sharing", sharing, 0, 1)
    to_play, to_stay, to_share = weights(inputs - 2, 0.0, 3, seed=seed)  # orthonormal
    of_scene, of_x, of_chance, of_comment = streams(seed, 5)[1:]  # the first: of `weights`
    auto = of_scene.random(rows) < 0.5
    x = of_x.standard_normal((rows, inputs - 1))
    moods = of_chance.standard_normal((rows, 3))
    u, length = x[:, 1:] @ to_play, SECONDS * np.exp(0.5 * x[:, 0])
    share, cosine = (np.where(auto, b, a) for a, b in (PLAYED.values(), (dependence, -dependence)))
    played = u + moods[:, 0] > -np.sqrt(2) * ndtri(share)
    v = cosine * u + np.sqrt(1 - dependence**2) * (x[:, 1:] @ to_stay)
    watched: Float64 = np.where(played, ndtr(v + noise * moods[:, 1]), 0)
    shared = played & (x[:, 1:] @ to_share + moods[:, 2] > -np.sqrt(2) * ndtri(sharing))
    to_comment = of_comment.standard_normal(inputs - 2)
    mood = x[:, 1:] @ to_comment / np.linalg.norm(to_comment) + of_comment.standard_normal(rows)
    commented = played & (mood > -np.sqrt(2) * ndtri(sharing))
    scene = np.where(auto, SCENES["auto-play"], SCENES["click"])
    labels: tuple[Values, ...] = (watched * length > THRESHOLD, watched, shared, commented)
    targets: dict[str, Values] = {task: y.astype(np.float32)
                                  for task, y in zip([*TASKS][:tasks], labels)}
    features: Array = np.column_stack([scene, x]).astype(np.float32)
    return Dataset(features, targets, {task: played.copy() for task in [*targets][1:]})


def scene_correlations(data: Dataset) -> dict[str, dict[str, float | None]]:
    """What `label_correlations` finds in each scene of `vtr_vcr`.

    Parameters
    ----------
    data : Dataset
        From `vtr_vcr`, or a part of it.

    Returns
    -------
    dict of dict of float or None
        Scene -> "task1, task2" -> the correlation of the labels, over the rows that have both.
    """
    assert isinstance(data.x, np.ndarray)
    return {name: label_correlations(data.take(data.x[:, 0] == value))
            for name, value in SCENES.items()}


def scenes_text(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """What `scene_correlations` found, in words.

    Parameters
    ----------
    found : dict of dict of float or None

    Returns
    -------
    str
        "labels in click: vtr, vcr 0.61; ..." and a further line for each scene; empty without one.
    """
    return "\n".join(
        f"labels in {scene}: " + "; ".join(f"{pair} {value:.2f}" for pair, value in pairs.items()
                                          if value is not None)
        for scene, pairs in found.items())
