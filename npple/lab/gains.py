"""What a comparison found: metrics, gains over single task, and which of them are beyond noise."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from npple.core.base import Float64, Printed
from npple.kinds import about
from npple.lab.inspection import pruned_share
from npple.learn.scenes import scenes_text
from npple.learn.synthetic import correlations_text
from npple.printing import aligned, csv_name


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval.

    Attributes
    ----------
    mean : float
    low, high : float or None
        The bounds of the interval; None for a single seed.
    p : float or None
        Of Student's test of a mean of 0: below 0.05 where the interval leaves 0 out.
    detectable : float or None
        The smallest true mean that as many seeds, of the same deviation, find to be beyond noise
        four times in five.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None = None
    detectable: float | None = None

    @property
    def direction(self) -> int:
        """1 where the whole interval is above 0, -1 where it is below, 0 for what may be noise."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """The mean of one value a seed, with Student's t interval.

    Parameters
    ----------
    values : sequence of float or None

    Returns
    -------
    Estimate or None
        None where a value is missing.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if len(values) == 1:
        return Estimate(known[0], None, None)
    mean, half, p = map(float, student(np.array(known)))
    critical, reach = _quantiles(len(known) - 1)
    return Estimate(mean, mean - half, mean + half, p, half / critical * reach)


def student(values: Float64) -> tuple[Float64, Float64, Float64]:
    """Means over the first axis, half of their 95 % intervals, and p of a mean of 0.

    Parameters
    ----------
    values : (n, ...) ndarray
        One a seed, of at least two seeds.

    Returns
    -------
    mean, half, p : (...) ndarray
    """
    from scipy.special import stdtr

    count = len(values)
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)
    return mean, _quantiles(count - 1)[0] * error, 2 * stdtr(count - 1, -t)


def holm(p: Float64) -> Float64:
    """Holm's correction: p values that hold for all of a table together.

    If each is compared with 0.05, the chance of a single false find in the whole table is at most
    0.05, however the values depend on each other.

    Parameters
    ----------
    p : (..., m) ndarray
        Of m comparisons.

    Returns
    -------
    (..., m) ndarray
        Corrected, at most 1.
    """
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.maximum.accumulate(steps, axis=-1).clip(0, 1), -1)
    return corrected


@cache
def _quantiles(freedom: int) -> tuple[float, float]:
    """In standard errors: half of a 95 % interval, and the mean found beyond it with power 0.8."""
    from scipy import optimize, stats

    critical = float(stats.t.ppf(0.975, freedom))
    return critical, float(optimize.brentq(
        lambda mean: stats.nct.sf(critical, freedom, mean) - 0.8, 0, 3 * critical))


@dataclass(frozen=True)
class Outcome:
    """One architecture on one data set, over all seeds.

    Attributes
    ----------
    data, architecture : str
    parameters, embeddings : int
        Sizes; embeddings are not counted among the parameters.
    seconds : float
        Mean time of a training.
    diverged : int
        Seeds whose loss was not finite; then there are no estimates.
    pruned : float or None
        Share of the routed connections that are pruned, for models that have such.
    metrics, gains : dict of Estimate or None
        By task: the metric, and how much better it is than that of `single_task`: AUC higher, MSE
        or log-loss lower. None for `single_task` itself, and where it was not trained.
    relative_gains : dict of Estimate or None
        The gains as shares of what `single_task` leaves to be gained, in the mean over the seeds:
        1 less its AUC, its MSE or its log-loss.
    mean_gain : Estimate or None
        Of the mean gain over the tasks; of the mean relative gain where they have different
        metrics.
    ple_lead : Estimate or None
        How much better than this PLE is in the mean over the tasks; a share of what this leaves
        to be gained where they have different metrics.
    rate : float or None
        The learning rate.
    late : int
        Trainings of a task whose best epoch is the last: more epochs may be better.
    holm : dict of float or None
        By task: the p of its gain, corrected by Holm for all gains on the data set.
    chosen : dict
        The options of its builder that it chose from a grid.
    """

    data: str
    architecture: str
    parameters: int
    embeddings: int
    seconds: float
    diverged: int
    pruned: float | None
    metrics: dict[str, Estimate | None]
    gains: dict[str, Estimate | None]
    relative_gains: dict[str, Estimate | None]
    mean_gain: Estimate | None
    ple_lead: Estimate | None
    rate: float | None = None
    late: int = 0
    holm: dict[str, float | None] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)

    @property
    def negative_transfer(self) -> bool:
        """Whether a task is worse than on its own, beyond noise."""
        return -1 in self._directions

    @property
    def seesaw(self) -> bool:
        """Whether a task gains and another one loses, both beyond noise."""
        return {-1, 1} <= self._directions

    @property
    def seesaw_by_sign(self) -> bool:
        """Whether the mean gain of one task is above 0 and that of another below, as in PLE."""
        known = [gain.mean for gain in self.gains.values() if gain]
        return min(known, default=0) < 0 < max(known, default=0)

    @property
    def _directions(self) -> set[int]:
        return {gain.direction for gain in self.gains.values() if gain}


@dataclass(frozen=True, repr=False)
class Comparison(Printed):
    """The results of `compare`; prints as a table.

    Attributes
    ----------
    tasks : dict of dict of str
        Data set -> task -> kind.
    correlations : dict of float or None
        Data set -> task correlation p, of synthetic data.
    labels : dict of dict of float or None
        Data set -> "task1, task2" -> the correlation that their labels have in the training rows,
        measured (`npple.data.label_correlations`).
    results : list of dict
        One of each trial, in the order of data sets, architectures and seeds: sizes, seconds,
        metrics on the test rows, validation metrics of each epoch, expert utilization, routed
        connections.
    scenes : dict of dict of dict of float or None
        Data set -> scene -> the same as `labels`, in that scene, where the data set has scenes.
    rates : list of float
        The learning rates that each architecture could choose from; empty for one rate for all.
    """

    tasks: dict[str, dict[str, str]]
    correlations: dict[str, float | None]
    labels: dict[str, dict[str, float | None]]
    results: list[dict[str, Any]]
    scenes: dict[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """An `Outcome` for each data set and architecture, in the order of the results."""
        found = [self._outcome(*key) for key in self._groups]
        return [replace(row, holm=corrected) for data in self.tasks
                for row, corrected in _corrected([row for row in found if row.data == data])]

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(data set, architecture) -> its results, seed by seed."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for result in self.results:
            groups.setdefault((result["data"], result["architecture"]), []).append(result)
        return groups

    def _outcome(self, data: str, architecture: str) -> Outcome:
        results, tasks = self._groups[data, architecture], self.tasks[data]
        alike = self._alike(data)
        return Outcome(
            data, architecture, results[0]["parameters"], results[0]["embeddings"],
            seconds=float(np.mean([result["seconds"] for result in results])),
            diverged=sum(result["diverged"] is not None for result in results),
            pruned=pruned_share([c for result in results for c in result["connections"]]),
            metrics={task: estimate(self._values(data, architecture, task)) for task in tasks},
            gains={task: self._lead(data, architecture, "single_task", [task]) for task in tasks},
            relative_gains={task: self._lead(data, architecture, "single_task", [task], True)
                            for task in tasks},
            mean_gain=self._lead(data, architecture, "single_task", tasks, not alike),
            ple_lead=self._lead(data, "ple", architecture, tasks, not alike),
            rate=results[0].get("rate"), chosen=results[0].get("chosen", {}),
            late=sum(found.get("best_epoch") == len(found["validation"])
                     for result in results for found in result["tasks"].values()))

    def _alike(self, data: str) -> bool:
        """Whether all tasks have one metric, so that gains have a mean."""
        return len({about(kind).gain for kind in self.tasks[data].values()}) == 1

    def _values(self, data: str, architecture: str, task: str) -> list[float | None]:
        """The task's metric for each seed, None where there is none."""
        name, _ = about(self.tasks[data][task]).gain
        return [result["tasks"].get(task, {}).get("test", {}).get(name)
                for result in self._groups[data, architecture]]

    def _lead(self, data: str, better: str, than: str, tasks: Iterable[str],
              relative: bool = False) -> Estimate | None:
        """How much better one architecture is than another, in the mean over the tasks.

        A relative lead is a share of what the other leaves to be gained, in the mean over the
        seeds: so it leaves 0 out where the lead itself does.
        """
        if better == than or not {(data, better), (data, than)} <= self._groups.keys():
            return None
        leads = []  # (seeds,) for each task
        for task in tasks:
            _, sign = about(self.tasks[data][task]).gain
            ours, theirs = self._values(data, better, task), self._values(data, than, task)
            if None in ours or None in theirs:
                return None
            a, b = np.array(ours, float), np.array(theirs, float)
            left = (1 - b if sign > 0 else b).mean() if relative else 1.0
            if left == 0:
                return None
            leads.append(sign * (a - b) / left)
        return estimate(np.mean(leads, axis=0).tolist())

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON.

        Returns
        -------
        dict
            `tasks`, `correlations`, `labels`, `scenes` and `results` as they are, and `outcomes`:
            each as a dict, with its intervals and the flags `seesaw`, `seesaw_by_sign` and
            `negative_transfer`.
        """
        outcomes = [asdict(outcome) | {"seesaw": outcome.seesaw,
                                       "seesaw_by_sign": outcome.seesaw_by_sign,
                                       "negative_transfer": outcome.negative_transfer}
                    for outcome in self.outcomes]
        return {"tasks": self.tasks, "correlations": self.correlations, "labels": self.labels,
                "scenes": self.scenes, "rates": self.rates, "outcomes": outcomes,
                "results": self.results}

    def to_csv(self) -> str:
        """The outcomes as CSV text: a row for each data set, architecture and task.

        Returns
        -------
        str
            With a line of headings first.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("data", "architecture", "parameters", "embeddings", "seconds", "task",
                         "metric", "mean", "low", "high", "gain", "gain_low", "gain_high",
                         "p", "p_holm", "detectable", "relative_gain", "relative_low",
                         "relative_high", "rate", "chosen", "best_epoch_is_last",
                         "negative_transfer", "seesaw", "seesaw_by_sign"))
        for row in self.outcomes:
            for task, found in row.metrics.items():
                writer.writerow((csv_name(row.data), row.architecture, row.parameters,
                                 row.embeddings, round(row.seconds, 3), csv_name(task),
                                 about(self.tasks[row.data][task]).gain[0], *_cells(found),
                                 *_cells(row.gains[task]),
                                 *_tested(row.gains[task], row.holm[task]),
                                 *_cells(row.relative_gains[task]), row.rate,
                                 _choices(row), row.late,
                                 int(row.negative_transfer), int(row.seesaw),
                                 int(row.seesaw_by_sign)))
        return text.getvalue()

    def headline(self, data: str, separator: str = ", ") -> str:
        """A data set's name, and the correlations there are.

        Parameters
        ----------
        data, separator : str

        Returns
        -------
        str
        """
        p = self.correlations[data]
        task = "" if p is None else f"task correlation {p:g}"
        return separator.join(filter(None, (data, task, correlations_text(self.labels[data]))))

    def __str__(self) -> str:
        return "\n\n".join(self._table(data) for data in self.tasks)

    def _table(self, data: str) -> str:
        rows = [row for row in self.outcomes if row.data == data]
        seeds = len(self._groups[data, rows[0].architecture])
        title = (f"{self.headline(data)}: mean of {seeds} seeds ± half of the 95 % interval; "
                 "a gain is over single_task, * is beyond noise, ** also with Holm's correction "
                 "for all gains of the table")
        few = "" if seeds != 2 else (
            "2 seeds leave one degree of freedom: an interval is 12.7 standard errors to each "
            "side, and finds next to nothing; take 5")
        title = "\n".join(filter(None, (title, scenes_text(self.scenes.get(data, {})), few)))
        heads = [head for task, kind in self.tasks[data].items()
                 for head in (f"{task} {about(kind).gain[0]}", "gain")]
        share = "" if self._alike(data) else "relative "
        lines = [["architecture", "parameters", "seconds", "rate", *heads, f"mean {share}gain",
                  "detectable", f"{share}lead of ple", ""]]
        leads = _corrected_leads(rows)
        for row in rows:
            numbers = [cell for task in row.metrics for cell in
                       (_shown(row.metrics[task]), _gain(row.gains[task], row.holm[task]))]
            least = row.mean_gain and row.mean_gain.detectable
            lines.append([row.architecture, f"{row.parameters:,}", f"{row.seconds:.1f}",
                          f"{row.rate or 0:g}", *numbers, _gain(row.mean_gain),
                          "" if least is None else f"{least:.4f}",
                          _gain(row.ple_lead, leads[row.architecture]), self._remarks(row)])
        return f"{title}\n{aligned(lines, range(1, len(lines[0]) - 1))}"


    def _remarks(self, row: Outcome) -> str:
        trained = len(self._groups[row.data, row.architecture]) * len(row.metrics)
        edges = {min(self.rates), max(self.rates)} if len(self.rates) > 2 else set()
        remarks = {"seesaw": row.seesaw,
                   "seesaw by sign": row.seesaw_by_sign and not row.seesaw,
                   "negative transfer": row.negative_transfer,
                   f"{row.pruned or 0:.0%} pruned": row.pruned,
                   f"diverged {row.diverged} times": row.diverged,
                   f"best epoch is the last in {row.late} of {trained}": row.late,
                   "rate at an end of --rates": row.rate in edges,
                   _choices(row): row.chosen}
        return ", ".join(remark for remark, holds in remarks.items() if holds)


def _choices(row: Outcome) -> str:
    """What was chosen from a grid, in words."""
    return ", ".join(f"{name} {value:g}" for name, value in row.chosen.items())


def _corrected(rows: Sequence[Outcome]) -> list[tuple[Outcome, dict[str, float | None]]]:
    """Each row, and the p of its gains with Holm's correction over all the rows."""
    places = [(row, task) for row in rows for task in row.gains]
    found = _holm([row.gains[task] for row, task in places])
    by_row: dict[str, dict[str, float | None]] = {row.architecture: {} for row in rows}
    for (row, task), p in zip(places, found):
        by_row[row.architecture][task] = p
    return [(row, by_row[row.architecture]) for row in rows]


def _corrected_leads(rows: Sequence[Outcome]) -> dict[str, float | None]:
    """The same of PLE's leads, by architecture."""
    return dict(zip((row.architecture for row in rows), _holm([row.ple_lead for row in rows])))


def _holm(found: Sequence[Estimate | None]) -> list[float | None]:
    """The p of the estimates that have one, corrected together."""
    known = [each.p for each in found if each and each.p is not None]
    corrected = iter(holm(np.array(known)).tolist())
    return [next(corrected) if each and each.p is not None else None for each in found]


def _tested(found: Estimate | None, corrected: float | None) -> tuple[float | None, ...]:
    return (found.p, corrected, found.detectable) if found else (None, None, None)


def _cells(found: Estimate | None) -> tuple[float | None, ...]:
    return (found.mean, found.low, found.high) if found else (None,) * 3


def _shown(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    half = "" if found.high is None else f" ± {found.high - found.mean:.4f}"
    return f"{found.mean:{sign}.4f}{half}"


def _gain(found: Estimate | None, corrected: float | None = None) -> str:
    """With * beyond noise, ** where the p that is corrected for the table is so, too."""
    if found is None:
        return ""
    stars = "**" if corrected is not None and corrected < 0.05 else "*" if found.direction else ""
    return f"{_shown(found, '+')}{stars:2}"
