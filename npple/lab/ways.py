"""Ways to build or train one model, compared on videos in two scenes: each against the first."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

import npple
from npple.core.base import Arrays
from npple.data import Dataset, vtr_vcr
from npple.kinds import about
from npple.lab.finding import Experiment, Found
from npple.lab.gains import Estimate, estimate, holm
from npple.lab.trials import run_trials
from npple.learn.training import Run, evaluate_model, stitched_start
from npple.network import Network
from npple.optimizers import Adam

TASKS = {"vtr": "binary", "vcr": "regression"}
METRICS = {"vtr": "auc", "vcr": "mse"}


@dataclass(frozen=True)
class Way:
    """A model, and how it is trained.

    Attributes
    ----------
    model : npple.network.Network
    weights, decay, rates : dict of float
        As for `npple.learn.training.Run`.
    before : npple.network.Network or None
        What is trained first, in the same way: the model itself, or for a cross-stitch network
        `single_task`; the model starts from its best parameters.
    """

    model: Network
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))
    decay: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    before: Network | None = None


@dataclass(frozen=True)
class WaySettings:
    """Of all trainings of an experiment."""

    rows: int
    seeds: int
    epochs: int
    grid: tuple[float, ...]
    levels: int
    inputs: int = 16
    units: int = 16
    dependence: float = 0.8
    batch_size: int = 256
    patience: int = 4


@dataclass(frozen=True)
class WayTrial:
    """One training: a way, on the data of a seed."""

    case: str
    architecture: str
    way: Way
    seed: int
    rate: float
    settings: WaySettings

    def key(self) -> str:
        """A name for the result, from everything that decides it."""
        way = self.way
        facts = {"versions": [npple.__version__, np.__version__], "case": self.case,
                 "way": [self.architecture, str(way.model), way.weights, way.decay, way.rates],
                 "seed": self.seed, "rate": self.rate,
                 "settings": asdict(replace(self.settings, seeds=0, grid=()))}  # of other trials
        facts |= {"before": str(way.before)} if way.before else {}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def run(self, case: object) -> dict[str, Any]:
        """Each task's metric at its best epoch, and the validation loss that chooses the rate."""
        started, given, way = time.process_time(), self.settings, self.way
        data = vtr_vcr(given.rows, given.inputs, given.dependence, seed=self.seed, tasks=2)
        train, test = data.split(0.8, self.seed)
        start: Arrays | None = None
        for model in filter(None, (way.before, way.model)):
            run = Run(model, Adam(self.rate), given.batch_size, self.seed, dict(way.weights),
                      dict(way.decay), rates=dict(way.rates), keep_best="per-task", start=start)
            run.train(*train.split(0.9, 0), given.epochs, patience=given.patience)
            start = _start(way.model, run)
        return {"data": self.case, "architecture": self.architecture, "seed": self.seed,
                "rate": self.rate, "metrics": _metrics(run, test), "validation": _validation(run),
                "late": any(run.best_epoch_of(task)["epoch"] == given.epochs for task in TASKS),
                "seconds": round(time.process_time() - started, 3)}


def _start(model: Network, first: Run) -> Arrays:
    """The best parameters of the first run; of networks of one task, each at its best epoch."""
    if model is first.model:
        return first.best
    best = {name: first.bests[name.split("/")[1]][name] for name in first.params}
    return stitched_start(model, first.model, best, first.seed)


def _metrics(run: Run, test: Dataset) -> dict[str, Any]:
    return {task: evaluate_model(run.model, run.bests[task], test)[task][METRICS[task]]
            for task in TASKS}


def _validation(run: Run) -> float:
    """The tasks' best validation losses, each over that of the best constant."""
    best = {task: run.best_epoch_of(task) for task in TASKS}
    return sum((best[task]["validation"][task][about(kind).loss] or math.inf)
               / (best[task]["constants"][task] or 1.0) for task, kind in TASKS.items())


def trained(name: str, made: Mapping[str, Way], given: WaySettings, *, executor: Any = None,
            share: Any = None, out: Any = None, watch: Any = None, stop: Any = None
            ) -> list[dict[str, Any]]:
    """The results of all ways, at the rate that each does best with on the first seed.

    Parameters
    ----------
    name : str
        Of the experiment.
    made : dict of Way
    given : WaySettings
    executor, share, out, watch, stop
        As for `npple.lab.trials.run_trials`.

    Returns
    -------
    list of dict
    """
    done = dict[str, dict[str, Any]]()

    def run(trials: Sequence[WayTrial]) -> list[dict[str, Any]]:
        by_key = {trial.key(): trial for trial in trials}
        done.update(run_trials(by_key, {name: None}, executor, share, out, watch, stop, done))
        return [done[key] for key in by_key]

    tried = run([WayTrial(name, way, made[way], 0, rate, given)
                 for way in made for rate in given.grid])
    chosen = {way: min((result["validation"], result["rate"]) for result in tried
                       if result["architecture"] == way)[1] for way in made}
    return run([WayTrial(name, way, made[way], seed, chosen[way], given)
                for way in made for seed in range(given.seeds)])


def table_of(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Way -> its metrics, and what it gains over the first way; p values with Holm's correction.

    Parameters
    ----------
    results : sequence of dict
        From `trained`.

    Returns
    -------
    dict of dict
        The mean gain is relative: the share that is gone of what the first way leaves.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        runs.setdefault(result["architecture"], []).append(result)
    metrics = {way: np.array([[each["metrics"][task] for task in TASKS] for each in found])
               for way, found in runs.items()}  # (seeds, tasks)
    first, sign = next(iter(metrics.values())), np.array([1.0, -1.0])
    left = np.abs(np.array([1.0, 0.0]) - first.mean(axis=0))  # 1 - AUC, MSE
    table: dict[str, dict[str, Any]] = {}
    for way, values in metrics.items():
        gains = sign * (values - first)
        base = values is first
        total: Estimate | None = None if base else estimate((gains / left).mean(axis=1).tolist())
        table[way] = {"vtr auc": estimate(values[:, 0].tolist()),
                      "vcr mse": estimate(values[:, 1].tolist()),
                      **{f"gain of {task}": None if base else estimate(gains[:, at].tolist())
                         for at, task in enumerate(TASKS)},
                      "mean gain": total, "detectable": total and total.detectable,
                      "rate": runs[way][0]["rate"],
                      "best epoch is the last": sum(each["late"] for each in runs[way])}
    others = list(table)[1:]
    p = holm(np.array([1.0 if (gain := table[way]["mean gain"]).p is None else gain.p
                       for way in others]))
    for way, value in zip(others, p.tolist()):
        table[way]["p with Holm"] = value
    return table


def found_of(results: Sequence[Mapping[str, Any]], claimed: Mapping[str, int]) -> Found:
    """The table, and whether ways gain (1) or lose (-1), as is claimed of them.

    Parameters
    ----------
    results : sequence of dict
        From `trained`.
    claimed : dict of int
        Way -> the direction that is claimed.

    Returns
    -------
    npple.lab.finding.Found
    """
    table = table_of(results)
    words = {1: "gains", -1: "loses", 0: "no difference beyond noise"}
    found = {way: row["mean gain"].direction for way, row in table.items() if row["mean gain"]}
    reason = ("In the mean over both tasks, against the first line, before Holm's correction: "
              + "; ".join(f"{way}: {words[sign]}" for way, sign in found.items()) + ".")
    return Found(table, [found[way] == sign for way, sign in claimed.items()], reason, results)


def way_experiment(name: str, claim: str, ways: Callable[[WaySettings], dict[str, Way]],
                   claimed: Mapping[str, int], levels: int = 2) -> Experiment:
    """An experiment that compares ways.

    Parameters
    ----------
    name, claim : str
    ways : callable
        Settings -> the ways; the first is what the others are compared with.
    claimed : dict of int
        Way -> the direction that is claimed: gains (1) or loses (-1).
    levels : int
        Of the models.

    Returns
    -------
    npple.lab.finding.Experiment
    """
    def measure(given: WaySettings, **where: Any) -> Found:
        return found_of(trained(name, ways(given), given, **where), claimed)
    return Experiment(name, claim, WaySettings(5000, 3, 20, (1e-2, 3e-3), levels),
                      WaySettings(20_000, 8, 40, (1e-2, 3e-3, 1e-3), levels), measure)
