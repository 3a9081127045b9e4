"""What a comparison found: metrics, gains over single task, and which of them are beyond noise."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from npple.core.base import Printed
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
    """

    mean: float
    low: float | None
    high: float | None

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
    from scipy import stats

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    mean = float(np.mean(known))
    if len(values) == 1:
        return Estimate(mean, None, None)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half)


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
    mean_gain : Estimate or None
        Of the mean gain over the tasks, where all have one metric.
    ple_lead : Estimate or None
        How much better than this PLE is in the mean over the tasks, under the same condition.
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
    mean_gain: Estimate | None
    ple_lead: Estimate | None

    @property
    def negative_transfer(self) -> bool:
        """Whether a task is worse than on its own, beyond noise."""
        return -1 in self._directions

    @property
    def seesaw(self) -> bool:
        """Whether a task gains and another one loses, both beyond noise."""
        return {-1, 1} <= self._directions

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
    """

    tasks: dict[str, dict[str, str]]
    correlations: dict[str, float | None]
    labels: dict[str, dict[str, float | None]]
    results: list[dict[str, Any]]
    scenes: dict[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """An `Outcome` for each data set and architecture, in the order of the results."""
        return [self._outcome(*key) for key in self._groups]

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(data set, architecture) -> its results, seed by seed."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for result in self.results:
            groups.setdefault((result["data"], result["architecture"]), []).append(result)
        return groups

    def _outcome(self, data: str, architecture: str) -> Outcome:
        results, tasks = self._groups[data, architecture], self.tasks[data]
        alike = len({about(kind).gain for kind in tasks.values()}) == 1
        return Outcome(
            data, architecture, results[0]["parameters"], results[0]["embeddings"],
            seconds=float(np.mean([result["seconds"] for result in results])),
            diverged=sum(result["diverged"] is not None for result in results),
            pruned=pruned_share([c for result in results for c in result["connections"]]),
            metrics={task: estimate(self._values(data, architecture, task)) for task in tasks},
            gains={task: self._lead(data, architecture, "single_task", [task]) for task in tasks},
            mean_gain=self._lead(data, architecture, "single_task", tasks) if alike else None,
            ple_lead=self._lead(data, "ple", architecture, tasks) if alike else None)

    def _values(self, data: str, architecture: str, task: str) -> list[float | None]:
        """The task's metric for each seed, None where there is none."""
        name, _ = about(self.tasks[data][task]).gain
        return [result["tasks"].get(task, {}).get("test", {}).get(name)
                for result in self._groups[data, architecture]]

    def _lead(self, data: str, better: str, than: str, tasks: Iterable[str]
              ) -> Estimate | None:
        """How much better one architecture is than another, in the mean over the tasks."""
        if better == than or not {(data, better), (data, than)} <= self._groups.keys():
            return None
        leads = []  # task by task, seed by seed
        for task in tasks:
            _, sign = about(self.tasks[data][task]).gain
            pairs = zip(self._values(data, better, task), self._values(data, than, task),
                        strict=True)
            leads.append([None if a is None or b is None else sign * (a - b) for a, b in pairs])
        by_seed = [[lead for lead in of_seed if lead is not None] for of_seed in zip(*leads)]
        return estimate([float(np.mean(known)) if len(known) == len(leads) else None
                         for known in by_seed])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON.

        Returns
        -------
        dict
            `tasks`, `correlations`, `labels`, `scenes` and `results` as they are, and `outcomes`:
            each as a dict, with its intervals and the flags `seesaw` and `negative_transfer`.
        """
        outcomes = [asdict(outcome) | {"seesaw": outcome.seesaw,
                                       "negative_transfer": outcome.negative_transfer}
                    for outcome in self.outcomes]
        return {"tasks": self.tasks, "correlations": self.correlations, "labels": self.labels,
                "scenes": self.scenes, "outcomes": outcomes, "results": self.results}

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
                         "negative_transfer", "seesaw"))
        for row in self.outcomes:
            for task, found in row.metrics.items():
                writer.writerow((csv_name(row.data), row.architecture, row.parameters,
                                 row.embeddings, round(row.seconds, 3), csv_name(task),
                                 about(self.tasks[row.data][task]).gain[0], *_cells(found),
                                 *_cells(row.gains[task]), int(row.negative_transfer),
                                 int(row.seesaw)))
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
                 "a gain is over single_task, * is beyond noise")
        title = "\n".join(filter(None, (title, scenes_text(self.scenes.get(data, {})))))
        heads = [head for task, kind in self.tasks[data].items()
                 for head in (f"{task} {about(kind).gain[0]}", "gain")]
        lines = [["architecture", "parameters", "seconds", *heads, "mean gain", "lead of ple", ""]]
        for row in rows:
            numbers = [cell for task in row.metrics for cell in
                       (_shown(row.metrics[task]), _shown(row.gains[task], gain=True))]
            lines.append([row.architecture, f"{row.parameters:,}", f"{row.seconds:.1f}", *numbers,
                          _shown(row.mean_gain, gain=True), _shown(row.ple_lead, gain=True),
                          _remarks(row)])
        return f"{title}\n{aligned(lines, range(1, len(lines[0]) - 1))}"


def _remarks(row: Outcome) -> str:
    remarks = {"seesaw": row.seesaw, "negative transfer": row.negative_transfer,
               f"{row.pruned or 0:.0%} pruned": row.pruned,
               f"diverged {row.diverged} times": row.diverged}
    return ", ".join(remark for remark, holds in remarks.items() if holds)


def _cells(found: Estimate | None) -> tuple[float | None, ...]:
    return (found.mean, found.low, found.high) if found else (None,) * 3


def _shown(found: Estimate | None, gain: bool = False) -> str:
    if found is None:
        return ""
    mean = f"{found.mean:+.4f}" if gain else f"{found.mean:.4f}"
    half = "" if found.high is None else f" ± {found.high - found.mean:.4f}"
    return mean + half + ("" if not gain else "*" if found.direction else " ")
