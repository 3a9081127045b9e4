"""Evaluation against scikit-learn and plain loops; tables of pandas, polars and pyarrow."""

import numpy as np
import pytest

import npple
from npple import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")
from sklearn.calibration import calibration_curve  # noqa: E402


def case(rows=3000, levels=None):
    """Labels, logits (of `levels` different values only, so that they tie) and users."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 2, rows)
    if levels:
        logits = np.round(logits * levels) / levels
    labels = (rng.uniform(size=rows) < 1 / (1 + np.exp(-logits))).astype(int)
    return labels, logits, rng.integers(0, 200, rows)


TIES = pytest.mark.parametrize("levels", [None, 2])


@TIES
def test_auc_and_log_loss_are_scikit_learns(levels):
    labels, logits, _ = case(levels=levels)
    auc = sklearn_metrics.roc_auc_score(labels, logits)
    assert metrics.auc(labels, logits) == pytest.approx(auc, rel=1e-12)
    loss = sklearn_metrics.log_loss(labels, 1 / (1 + np.exp(-logits)))
    assert metrics.log_loss(labels, logits) == pytest.approx(loss, rel=1e-12)


@TIES
@pytest.mark.parametrize("bins", [1, 10, 37])
def test_calibration_bins_are_scikit_learns(levels, bins):
    labels, logits, _ = case(levels=levels)
    probabilities = 1 / (1 + np.exp(-logits))
    observed, predicted = calibration_curve(labels, probabilities, n_bins=bins,
                                            strategy="quantile")
    found = metrics.calibration(labels, probabilities, bins)
    np.testing.assert_allclose([each.observed for each in found], observed, rtol=1e-12)
    np.testing.assert_allclose([each.predicted for each in found], predicted, rtol=1e-12)


@TIES
def test_gauc_is_its_definition_in_plain_loops(levels):
    labels, logits, users = case(levels=levels)
    assert metrics.gauc(labels, logits, users) == pytest.approx(in_loops(labels, logits, users),
                                                                rel=1e-12)


def in_loops(labels, logits, users):
    """The AUC of each user with ones and zeros, pair by pair; their mean, weighted by rows."""
    total = rows = 0
    for user in sorted({*users.tolist()}):
        own = [row for row in range(len(users)) if users[row] == user]
        ones, zeros = ([row for row in own if labels[row] == label] for label in (1, 0))
        if ones and zeros:
            wins = sum((logits[one] > logits[zero]) + (logits[one] == logits[zero]) / 2
                       for one in ones for zero in zeros)
            total += len(own) * wins / (len(ones) * len(zeros))
            rows += len(own)
    return total / rows


def test_the_entropy_is_the_log_loss_of_the_rate():
    labels, _, _ = case()
    rate = np.full(len(labels), labels.mean())
    assert metrics.entropy(labels) == pytest.approx(sklearn_metrics.log_loss(labels, rate),
                                                    rel=1e-12)


def test_an_evaluation_is_scikit_learns_of_the_predictions():
    log = npple.data.click_log(3000)
    run = npple.fit(log, numeric=["length_s"], categorical=["user_id", "device"],
                    tasks={"click": "binary", "watch_ms": "regression"}, epochs=2)
    found, predicted = run.evaluate(log, group="user_id"), run.predict(log)
    labels, scores = np.array(log["click"], int), predicted["click"]
    click, watch = found.tasks["click"], found.tasks["watch_ms"]
    assert click["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), rel=1e-12)
    assert click["logloss"] == pytest.approx(sklearn_metrics.log_loss(labels, scores), rel=1e-12)
    assert click["gauc"] == pytest.approx(in_loops(labels, scores, np.array(log["user_id"])),
                                          rel=1e-12)
    observed, means = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([each[1:] for each in found.calibration["click"]],
                               np.transpose([means, observed]), rtol=1e-12)
    own = labels == 1
    times = np.array([float(text) for text in log["watch_ms"] if text])
    assert watch["mse"] == pytest.approx(
        sklearn_metrics.mean_squared_error(times, predicted["watch_ms"][own]), rel=1e-12)


def columns():
    rng = np.random.default_rng(0)
    age, user = rng.normal(40, 10, 300), rng.integers(0, 12, 300)
    return {"age": age, "user": user, "fan": user % 2 == 0, "city": ["xyz"[u % 3] for u in user],
            "click": (age + 5 * (user % 3) > 45).astype(int), "watch": 400 * age}


ROLES = {"numeric": ["age", "fan"], "categorical": ["user", "city"],
         "tasks": {"click": "binary", "watch": "regression"},
         "epochs": 1, "expert_units": (4,), "tower_units": (4,), "batch_size": 64}


@pytest.mark.parametrize("library, make", [
    ("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")])
def test_a_frame_gives_the_bits_of_the_dict(library, make):
    frame = getattr(pytest.importorskip(library), make)(columns())
    run, plain = npple.fit(frame, **ROLES), npple.fit(columns(), **ROLES)
    assert run.schema == plain.schema
    for name, array in plain.run.best.items():
        assert np.array_equal(run.run.best[name], array)
    assert run.evaluate(frame, group="user") == plain.evaluate(columns(), group="user")


def test_gaps_of_pandas_are_those_of_a_dict():
    pandas = pytest.importorskip("pandas")
    gaps = columns()
    gaps["age"], gaps["city"] = [None, *gaps["age"][1:]], [None, *gaps["city"][1:]]
    roles = ROLES | {"missing": "mean"}
    run, plain = npple.fit(pandas.DataFrame(gaps), **roles), npple.fit(gaps, **roles)
    assert run.schema == plain.schema
    for name, array in plain.run.best.items():
        assert np.array_equal(run.run.best[name], array)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_a_log_read_by_pandas_is_the_file(tmp_path, backend):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    log, path = npple.data.click_log(400), tmp_path / "log.csv"
    path.write_text("\n".join([",".join(log), *map(",".join, zip(*log.values()))]))
    roles = {"numeric": ["age", "length_s"], "missing": "mean", "time": "ts", "epochs": 1,
             "categorical": ["user_id", "tags"], "tasks": {"click": "binary",
                                                           "watch_ms": "regression"}}
    frame = pandas.read_csv(path, dtype_backend=backend)
    run, plain = npple.fit(frame, **roles), npple.fit(path, **roles)
    for name, array in plain.run.best.items():
        assert np.array_equal(run.run.best[name], array)
    assert run.evaluate(frame, group="user_id") == plain.evaluate(path, group="user_id")


def test_parquet_is_read_where_a_library_can(tmp_path):
    polars = pytest.importorskip("polars")
    polars.DataFrame(columns()).write_parquet(tmp_path / "log.parquet")
    run, plain = npple.fit(tmp_path / "log.parquet", **ROLES), npple.fit(columns(), **ROLES)
    assert run.schema == plain.schema
