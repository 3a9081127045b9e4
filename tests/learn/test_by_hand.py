"""A raw file against the same rows prepared by hand: what `npple.fit` does beside is no secret."""

import numpy as np
import pytest

import npple
from npple import metrics
from npple.data import bundled, click_log
from npple.learn.census import CATEGORICAL, GROUPS, LOG, NUMERIC
from npple.learn.dataset import split_rows


def standardised(values, rows):
    return (values - values[rows].mean()) / values[rows].std()


def as_column(texts, rows, rare):
    """Ids, those that come less than twice in the training rows as one."""
    counts = dict(zip(*np.unique(texts[rows], return_counts=True)))
    return [text if counts.get(text, 0) >= 2 else rare for text in texts]


def rows_of(columns, rows):
    return {name: np.asarray(column, object)[rows].tolist() for name, column in columns.items()}


SETTINGS = {"epochs": 4, "expert_units": (32,), "tower_units": (16,), "optimizer":
            npple.Adam(rate=3e-3), "batch_size": 128}


def compared(raw, later, roles, prepared, train, rest, hand_roles, seeds=1):
    """{task: AUC} on the held-out rows, of the raw file and of the prepared one: seeds' means."""
    hand, hand_later = rows_of(prepared, train), rows_of(prepared, rest)
    aucs = [], []
    for seed in range(seeds):
        runs = (npple.fit(raw, **roles, **SETTINGS, seed=seed),
                npple.fit(hand, validation=hand_later, **hand_roles, min_count=1, raw_targets=True,
                          **SETTINGS, seed=seed))
        for found, run, rows in zip(aucs, runs, (later, hand_later)):
            found.append({task: metrics["auc"] for task, metrics in run.evaluate(rows).tasks.items()
                          if "auc" in metrics})
    return [{task: np.mean([auc[task] for auc in found]) for task in found[0]} for found in aucs]


@pytest.mark.slow
def test_the_click_log_as_it_is_does_as_well_as_one_prepared_by_hand(tmp_path):
    log = click_log(6000)
    path = tmp_path / "log.csv"
    path.write_text("\n".join([",".join(log), *map(",".join, zip(*log.values()))]))
    train, rest = np.arange(4800), np.arange(4800, 6000)  # the log is in the order of time
    age = np.array([float(text or "nan") for text in log["age"]])
    watch = np.array([float(text or "nan") for text in log["watch_ms"]])
    gap, known = np.isnan(age), train[~np.isnan(watch[train])]
    prepared = {
        "age": standardised(np.where(gap, np.nanmean(age[train]), age), train),
        "no age": gap.astype(float),
        "length": standardised(np.log1p(np.array(log["length_s"], float)), train),
        **{name: as_column(np.array(log[name]), train, "rare") for name in ("user_id", "video_id")},
        "device": log["device"], "tags": log["tags"], "click": log["click"],
        "watch": [None if np.isnan(value) else value for value in standardised(watch, known)]}
    raw, hand = compared(
        path, rows_of(log, rest),
        {"numeric": ["age", "length_s"], "log": ["length_s"], "missing": "mean", "time": "ts",
         "categorical": ["user_id", "video_id", "device"], "bags": ["tags"],
         "tasks": {"click": "binary", "watch_ms": "regression"},
         "weights": {"click": 1.0, "watch_ms": 0.1}},
        prepared, train, rest,
        {"numeric": ["age", "no age", "length"], "categorical": ["user_id", "video_id", "device"],
         "bags": ["tags"],
         "tasks": {"click": "binary", "watch": "regression"},
         "weights": {"click": 1.0, "watch": 0.1}}, seeds=3)
    assert raw["click"] == pytest.approx(hand["click"], abs=0.005) and raw["click"] > 0.75


@pytest.mark.slow
def test_the_census_as_it_is_does_as_well_as_one_prepared_by_hand():
    tasks = GROUPS["1"]
    census = {name: np.array(list(column)) for name, column in bundled().items()}
    train, rest = split_rows(len(census["age"]), 0.8, 0)
    numbers = {name: census[name].astype(float) for name in NUMERIC}
    numbers |= {name: np.log1p(numbers[name]) for name in LOG}
    prepared = {**{name: standardised(values, train) for name, values in numbers.items()},
                **{name: as_column(census[name], train, "rare") for name in CATEGORICAL},
                **{task: census[task] for task in tasks}}
    roles = {"numeric": NUMERIC, "categorical": CATEGORICAL, "tasks": tasks}
    raw, hand = compared(census, rows_of(census, rest), roles | {"log": LOG}, prepared, train, rest,
                         roles)
    for task in tasks:
        assert raw[task] == pytest.approx(hand[task], abs=0.005) and raw[task] > 0.85


def test_the_click_log_has_what_logs_have():
    log = click_log(4000)
    assert {len(column) for column in log.values()} == {4000}
    assert [*map(int, log["ts"])] == sorted(map(int, log["ts"]))
    assert 0.08 < log["age"].count("") / 4000 < 0.12
    assert [text == "" for text in log["watch_ms"]] == [text == "0" for text in log["click"]]
    assert np.mean([float(text) for text in log["watch_ms"] if text]) > 10_000
    users, counts = np.unique(log["user_id"], return_counts=True)
    assert (counts == 1).sum() > 10 and counts.max() > 40
    assert any("|" in text for text in log["tags"])
    assert click_log(4000) == log != click_log(4000, seed=1)


def test_what_is_to_be_learned_from_the_click_log_is_known_to_nobody_by_chance():
    log = click_log(4000)
    age = np.array([float(text or 45) for text in log["age"]])
    assert 0.52 < metrics.auc(np.array(log["click"], int), -age) < 0.75


@pytest.mark.parametrize("rows", [0, 1.5, "many"])
def test_a_log_has_rows(rows):
    with pytest.raises(npple.InputError, match="rows: an integer"):
        click_log(rows)
