"""A click log as people have it, made up: watch time in ms, gaps, rare ids, labels of some rows."""

from __future__ import annotations

import numpy as np

from npple.checks import check_count
from npple.core.base import Float64
from npple.learn.dataset import streams

START, DAYS = 1_700_000_000, 14  # of the log, in seconds since 1970; how long it is
GAPS = 0.1  # of the rows lack the age
DEVICES = ("phone", "tablet", "tv")
TOPICS = ("cooking", "music", "news", "sport", "travel")


def click_log(rows: int, seed: int = 0) -> dict[str, list[str]]:
    """Videos shown to users over two weeks, in the order of time.

    Users and videos have tastes and topics, a bias, and a popularity that falls with their rank, so
    that most of them are rare. Who clicks follows from these, from age, and from chance; who has
    clicked watches the longer the better it suits.

    Parameters
    ----------
    rows : int
    seed : int, optional

    Returns
    -------
    dict column -> list of str
        `ts` in seconds, `user_id`, `video_id`, `device`, `tags` (of the video, with | between
        them), `age` (missing in a tenth of the rows), `length_s`; the labels `click`, and
        `watch_ms`, empty without a click.

    Raises
    ------
    InputError
        For a number of rows below 1, or a seed that is none.
    """
    check_count("rows", rows, most=10 ** 8)
    (rng,) = streams(seed, 1)
    users, videos = 50 + rows // 5, 25 + rows // 100
    user, video = _drawn(rng, users, rows), _drawn(rng, videos, rows)
    taste, topic = rng.normal(size=(users, len(TOPICS))), rng.random((videos, len(TOPICS))) < 0.3
    age, length = rng.integers(16, 75, users), np.exp(rng.normal(4, 1, videos))
    device = rng.integers(0, len(DEVICES), users)
    appeal = (0.6 * (taste[user] * topic[video]).sum(axis=1) + 0.9 * rng.normal(size=videos)[video]
              + 0.5 * rng.normal(size=users)[user] + 0.06 * (45 - age[user])
              + 0.6 * (4 - np.log(length[video])))
    click = rng.random(rows) < 1 / (1 + np.exp(1 - appeal))
    watch = 1000 * length[video] / (1 + np.exp(0.5 - 0.7 * appeal - rng.normal(size=rows)))
    gap = rng.random(rows) < GAPS
    tags = ["|".join(np.array(TOPICS)[own]) for own in topic]
    return {
        "ts": _texts(START + np.sort(rng.integers(0, DAYS * 86_400, rows))),
        "user_id": _texts(user + 1), "video_id": _texts(video + 1),
        "device": [DEVICES[each] for each in device[user]],
        "tags": [tags[each] for each in video],
        "age": ["" if missing else text for missing, text in zip(gap, _texts(age[user]))],
        "length_s": _texts(length[video].round(1)), "click": _texts(click.astype(int)),
        "watch_ms": [text if own else "" for own, text in zip(click, _texts(watch.astype(int)))]}


def _drawn(rng: np.random.Generator, count: int, rows: int) -> np.ndarray[tuple[int], np.dtype[
        np.int64]]:
    """Of each row which of `count` it is; the r-th comes about as often as 1 / (r + 10)."""
    chance: Float64 = 1 / (np.arange(count) + 10)
    return rng.choice(count, rows, p=chance / chance.sum())


def _texts(values: object) -> list[str]:
    return [str(value) for value in np.asarray(values).tolist()]
