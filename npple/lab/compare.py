"""Comparing architectures: equal parameters, equal training, several seeds, paired gains.

A trial is one architecture, data set and seed, trained once. Trials know nothing of each other, so
they run wherever an executor puts them, in any order, with the same results; each result is a
small JSON file as soon as it is there, and a comparison that was interrupted goes on from these.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

import npple
from npple.architectures import ARCHITECTURES, Inputs
from npple.archive import FilePath
from npple.checks import check_choice, check_count, check_kind, check_number, check_path, shown
from npple.data import Dataset, label_correlations, synthetic, vtr_vcr
from npple.errors import Diverged, require
from npple.kinds import about
from npple.lab.budget import known_options, networks, parameters, sized
from npple.lab.gains import Comparison
from npple.lab.inspection import connections, utilization
from npple.lab.trials import Share, Watch, run_trials
from npple.learn.scenes import TASKS, scene_correlations
from npple.learn.training import CHOICES, Run, evaluate_model, fingerprint
from npple.network import Network
from npple.optimizers import Adam

L0 = 1e-3  # of SNR's penalty: the largest weight that its authors try, from 1e-5
REFERENCE_WIDTH = 32  # the default budget is that of PLE with experts of this width


@dataclass(frozen=True)
class Problem:
    """A data set to compare on.

    Attributes
    ----------
    name : str
    train, test : npple.data.Dataset
        `test` is only reported.
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    correlation : float or None
        The task correlation p of synthetic data: the cosine of the tasks' weight vectors.
    scenes : dict of dict of float or None
        The labels' correlations in each scene of `npple.data.vtr_vcr`.
    draw : callable or None
        Seed -> the problem with new rows, of new functions; something that can be pickled.
    validation : npple.data.Dataset or None
        Chooses the best epoch; None: a tenth of `train` is set aside for that.
    """

    name: str
    train: Dataset = field(repr=False)
    test: Dataset = field(repr=False)
    inputs: Inputs
    tasks: dict[str, str]
    correlation: float | None = None
    scenes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    draw: Callable[[int], "Problem"] | None = field(default=None, repr=False)
    validation: Dataset | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Training:
    """How every network of a comparison is trained, by Adam: the same for all, but for the rate.

    Parameters
    ----------
    epochs : int
        At most; that with the best validation counts.
    batch_size : int
    rate : float
        Adam's step size.
    patience : int or None
        A training ends after so many epochs without a better validation loss; None: never before
        `epochs`.
    keep_best : str
        "per-task": each task is predicted by the parameters of its own best epoch, as single tasks
        are; "joint": all by those of one epoch.
    weights : dict of float
        The weights of tasks' losses, 1 otherwise; a network of one task has 1.

    Raises
    ------
    InputError
        For a number out of its range.
    """

    epochs: int = 50
    batch_size: int = 512
    rate: float = 3e-3
    patience: int | None = 3
    keep_best: str = "per-task"
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs, most=10 ** 9)
        check_count("batch_size", self.batch_size)
        check_number("rate", self.rate)
        if self.patience is not None:
            check_count("patience", self.patience)
        for task, weight in self.weights.items():
            check_number(f"weights: {task!r}", weight)
        check_choice("keep_best", self.keep_best, CHOICES["keep_best"])


def synthetic_cases(correlations: Sequence[float] = (-0.5, 0.0, 0.5, 0.9), rows: int = 100_000,
                    inputs: int = 128, tasks: int = 2, seed: int = 0) -> list[Problem]:
    """One case for each task correlation; a fifth of the rows is the test.

    Parameters
    ----------
    correlations : sequence of float
        The cosines p between the weight vectors of any two tasks.
    rows, inputs, tasks : int
        How many rows, features and tasks each case has.
    seed : int
        Of the data and of what becomes the test.

    Returns
    -------
    list of Problem

    Raises
    ------
    InputError
        For an argument that `npple.learn.synthetic` refuses.
    """
    return [_synthetic_case(rows, inputs, float(p), tasks, seed) for p in correlations]


def _synthetic_case(rows: int, inputs: int, p: float, tasks: int, seed: int) -> Problem:
    data = synthetic(rows, inputs, p, tasks=tasks, seed=seed)
    kinds = dict.fromkeys(data.targets, "regression")
    return Problem(f"synthetic p={p:g}", *data.split(0.8, seed), inputs, kinds, p,
                   draw=partial(_synthetic_case, rows, inputs, p, tasks))


def vtr_vcr_cases(dependences: Sequence[float] = (0.8,), rows: int = 100_000, inputs: int = 32,
                  noise: float = 0.5, sharing: float = 0.03, seed: int = 0, tasks: int = 3
                  ) -> list[Problem]:
    """One case of `npple.data.vtr_vcr` for each dependence; a fifth of the rows is the test.

    Parameters
    ----------
    dependences : sequence of float
        How much playing and completing depend on the scene.
    rows, inputs : int
    noise, sharing : float
        As for `npple.data.vtr_vcr`.
    seed : int
        Of the data and of what becomes the test.
    tasks : int
        How many of VTR, VCR, sharing and commenting.

    Returns
    -------
    list of Problem

    Raises
    ------
    InputError
        For an argument that `npple.data.vtr_vcr` refuses.
    """
    return [_vtr_vcr_case(rows, inputs, float(dependence), noise, sharing, tasks, seed)
            for dependence in dependences]


def _vtr_vcr_case(rows: int, inputs: int, dependence: float, noise: float, sharing: float,
                  tasks: int, seed: int) -> Problem:
    train, test = vtr_vcr(rows, inputs, dependence, noise, sharing, seed, tasks).split(0.8, seed)
    kinds = {task: TASKS[task] for task in train.targets}
    return Problem(f"vtr_vcr dependence={dependence:g}", train, test, inputs, kinds,
                   scenes=scene_correlations(train),
                   draw=partial(_vtr_vcr_case, rows, inputs, dependence, noise, sharing, tasks))


def compare(cases: Sequence[Problem], architectures: Sequence[str] = tuple(ARCHITECTURES), *,
            seeds: Sequence[int] = (0, 1, 2), budget: int | None = None, levels: int = 2,
            options: Mapping[str, Any] | None = None, training: Training = Training(),
            rates: Sequence[float] = (), grid: Mapping[str, Sequence[Any]] | None = None,
            choosing: int = 1, data_seeds: bool = False, width: int | None = None,
            executor: Executor | None = None, share: Share | None = None,
            out: FilePath | None = None, watch: Watch | None = None,
            stop: Callable[[], object] | None = None) -> Comparison:
    """Train the architectures on the cases with equal budgets, once for each seed.

    Parameters
    ----------
    cases : sequence of Problem
        With different names.
    architectures : sequence of str
        Of `npple.ARCHITECTURES`. Gains need `single_task` among them.
    seeds : sequence of int
        A seed decides initial values, the order of the rows and routing noise. All architectures
        have the same data for a seed, so gains are paired over seeds.
    budget : int, optional
        Parameters of each architecture, embeddings not counted; by default those of PLE with
        experts of width 32. The widths of the experts are adjusted to it.
    levels : int
        Extraction levels; layers of an expert where an architecture has no levels.
    options : dict, optional
        Further arguments of builders; each builder is given those it has. SNR's `l0` is 1e-3
        unless given: without a penalty nothing would close its connections.
    training : Training
    rates : sequence of float
        Learning rates to choose from, instead of that of `training`: each architecture has, on
        each case, the one with the lowest validation loss for the first seeds.
    grid : dict of sequence, optional
        Option of builders -> values to choose from in the same way, as SNR's `l0` or the number of
        experts, each with each and with each rate; a builder without the option has no choice.
    choosing : int
        On how many of the seeds rates and options are chosen, by the sum of the losses.
    data_seeds : bool
        Draw new data for each seed (`Problem.draw`), so that intervals speak of other data too.
        Otherwise the data are the same for all seeds.
    width : int, optional
        Of every layer of the experts of all architectures, instead of a budget: the same structure,
        as in the PLE paper, with as many parameters as each then has.
    executor : concurrent.futures.Executor, optional
        Where trials run, for example from `npple.lab.workers.open_workers`; by default
        here, one by one.
    share : callable, optional
        From `open_workers`, with its executor.
    out : path, optional
        A folder for the results of trials; those that it holds already are not run again.
    watch : callable, optional
        Called with the number of all trials and of those found in `out`; returns what is to be
        called with each result. `progress` is one. With `rates` or `grid` called twice: for the
        trials that choose, and for all.
    stop : callable, optional
        Asked after each result whether to end here; then the trials that run are still finished.

    Returns
    -------
    npple.lab.gains.Comparison

    Raises
    ------
    InputError
        For arguments that make no comparison.
    FileError
        If a result cannot be written.
    Stopped
        When `stop` said so; `out` holds what was finished.
    """
    for what, value in (("options", options), ("grid", grid)):
        check_kind(what, value, (dict, type(None)), "a dict")
    _check(cases, architectures, seeds, {**(options or {}), **(grid or {})}, training, out)
    _check_choices(cases, rates, grid, data_seeds)
    require(budget is None or width is None, "width: a budget decides the widths, expected one of "
            "the two")
    options = {"l0": L0, **(options or {})}
    keys, known = _Keys(cases), {case.name: case for case in cases}
    sizes = {name: _reference_size(case, levels, options) if budget is None else budget
             for name, case in known.items()}
    done = dict[str, dict[str, Any]]()

    def trials(case: Problem, name: str, rate: float, chosen: dict[str, Any], seeds: Sequence[int]
               ) -> list[_Trial]:
        given = options | chosen
        models = (sized(name, case.inputs, case.tasks, sizes[case.name], levels, given)
                  if width is None else
                  networks(name, case.inputs, case.tasks, width, levels, given))
        return [_Trial(case.name, name, models, replace(training, rate=float(rate)), int(seed),
                       data_seeds, chosen) for seed in seeds]

    def run(trials: list[_Trial]) -> list[dict[str, Any]]:
        """Their results; those that are there already are not run again."""
        by_key = {keys(trial): trial for trial in trials}
        done.update(run_trials(by_key, known, executor, share, out, watch, stop, done))
        return [done[key] for key in by_key]

    pairs = [(case, name) for case in cases for name in architectures]
    best: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {
        (case.name, name): (training.rate, {}) for case, name in pairs}
    if rates or grid:
        best = _chosen(run([trial for case, name in pairs for rate in rates or [training.rate]
                            for chosen in _combinations(name, grid or {}) for trial in
                            trials(case, name, rate, chosen, seeds[:choosing])]), known)
    results = run([trial for case, name in pairs
                   for trial in trials(case, name, *best[case.name, name], seeds)])
    kinds = {case.name: case.tasks for case in cases}
    correlations = {case.name: case.correlation for case in cases}
    labels = {case.name: label_correlations(case.train) for case in cases}
    scenes = {case.name: case.scenes for case in cases if case.scenes}
    return Comparison(kinds, correlations, labels, results, scenes, [float(r) for r in rates])


# One trial --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Trial:
    """One training: all that decides its result, beside the data."""

    case: str
    architecture: str
    models: list[Network]
    training: Training
    seed: int
    new_data: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def data(self, case: Problem) -> Problem:
        """The problem with the data of this trial."""
        return case.draw(self.seed) if self.new_data and case.draw else case

    def key(self, data: Sequence[int]) -> str:
        """A name for the result, from everything that decides it; `data` identifies the data."""
        facts = {"versions": [npple.__version__, np.__version__], "case": self.case,
                 "architecture": self.architecture, "seed": self.seed, "data": data,
                 "tables": [model.to_dict() for model in self.models],
                 "training": asdict(self.training)}
        facts |= {"chosen": self.chosen} if self.chosen else {}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def run(self, case: Problem) -> dict[str, Any]:
        """The result, as JSON can hold it; a network for each task where there are several."""
        started, case = time.process_time(), self.data(case)
        sizes = parameters(self.models)
        result: dict[str, Any] = {
            "data": self.case, "architecture": self.architecture, "seed": self.seed,
            "parameters": sizes[0], "embeddings": sizes[1], "rate": self.training.rate,
            "chosen": dict(self.chosen), "tasks": {}, "utilization": [], "connections": [],
            "diverged": None}
        train, validation = ((case.train, case.validation) if case.validation else
                             case.train.split(0.9, 0))
        for model in self.models:
            weights = {task: float(self.training.weights.get(task, 1)) for task in model.tasks}
            run = Run(model, Adam(self.training.rate), self.training.batch_size, self.seed,
                      weights if len(weights) > 1 else dict.fromkeys(weights, 1.0),
                      best_by="sum", keep_best=self.training.keep_best)
            try:
                run.train(_only(train, model), _only(validation, model), self.training.epochs,
                          patience=self.training.patience)
            except Diverged as error:
                result["diverged"] = str(error)
                break
            test = _only(case.test, model)
            for task, metrics in _metrics(run, test).items():
                best = run.best_epoch_of(task)
                result["tasks"][task] = {
                    "test": metrics, "best_epoch": best["epoch"],
                    "constant": best["constants"][task],
                    "validation": [entry["validation"][task] for entry in run.history]}
            result["utilization"] += utilization(model, run.best, test)
            result["connections"] += connections(model, run.best)
        return result | {"seconds": round(time.process_time() - started, 3)}


def _metrics(run: Run, test: Dataset) -> dict[str, dict[str, float | None]]:
    """Each task's metrics, of the best parameters there are for it."""
    if not run.bests:
        return evaluate_model(run.model, run.best, test)
    return {task: evaluate_model(run.model, params, test)[task]
            for task, params in run.bests.items()}


def _only(data: Dataset, model: Network) -> Dataset:
    """The rows with the targets of the model's tasks alone."""
    return Dataset(data.x, {task: y for task, y in data.targets.items() if task in model.tasks},
                   {task: mask for task, mask in data.masks.items() if task in model.tasks})


# The choice of the rate and of options ----------------------------------------------------------

def _combinations(name: str, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The options to choose from that an architecture's builder has, each value with each."""
    own = [option for option in grid if option in known_options([name])]
    return [dict(zip(own, values)) for values in product(*(grid[option] for option in own))]


def _chosen(results: Sequence[Mapping[str, Any]], cases: Mapping[str, Problem]
            ) -> dict[tuple[str, str], tuple[float, dict[str, Any]]]:
    """(case, architecture) -> rate and options with the lowest validation loss over the seeds."""
    losses: dict[tuple[str, str], dict[tuple[float, str], float]] = {}
    for result in results:
        own = losses.setdefault((result["data"], result["architecture"]), {})
        choice = result["rate"], json.dumps(result.get("chosen", {}))
        own[choice] = own.get(choice, 0.0) + _loss(result, cases[result["data"]].tasks)
    best = {key: min((total, *choice) for choice, total in own.items())
            for key, own in losses.items()}
    return {key: (rate, json.loads(chosen)) for key, (_, rate, chosen) in best.items()}


def _loss(result: Mapping[str, Any], tasks: Mapping[str, str]) -> float:
    """The tasks' validation losses, each over that of the best constant; infinite if it diverged.

    No scale of a target decides.
    """
    if result["diverged"] is not None:
        return math.inf
    total = 0.0
    for task, found in result["tasks"].items():
        loss = found["validation"][found["best_epoch"] - 1].get(about(tasks[task]).loss)
        total += (loss or 0.0) / (found["constant"] or 1.0)
    return total


# All of them ------------------------------------------------------------------------------------

class _Keys:
    """Trial -> the name of its result; each data set is drawn and looked at once."""

    def __init__(self, cases: Sequence[Problem]) -> None:
        self.cases = {case.name: case for case in cases}
        self.data: dict[tuple[str, int | None], list[int]] = {}

    def __call__(self, trial: _Trial) -> str:
        which = trial.case, trial.seed if trial.new_data else None
        if which not in self.data:
            case = trial.data(self.cases[trial.case])
            self.data[which] = [fingerprint(rows) for rows in (case.train, case.test,
                                                               case.validation) if rows]
        return trial.key(self.data[which])


def _reference_size(case: Problem, levels: int, options: Mapping[str, Any] | None) -> int:
    return parameters(networks("ple", case.inputs, case.tasks, REFERENCE_WIDTH, levels, options))[0]


def _check_choices(cases: Sequence[Problem], rates: Any, grid: Any, data_seeds: bool) -> None:
    """Refuse rates and values that are none, and new data for problems that have none."""
    for option, values in (grid or {}).items():
        require(isinstance(values, Sequence) and values and not isinstance(values, str),
                f"grid: {option}: {shown(values)}, expected a sequence of values")
    check_kind("rates", rates, Sequence, "a sequence")
    for rate in rates:
        check_number("rates", rate)
    for case in cases if data_seeds else ():
        require(case.draw, f"data_seeds: {case.name} has no other data, expected made-up data")


def _check(cases: Any, architectures: Any, seeds: Any, options: Mapping[str, Any], training: Any,
           out: Any) -> None:
    """Refuse names and seeds that come twice, are none, or options that nobody has."""
    for what, values in (("cases", cases), ("architectures", architectures), ("seeds", seeds)):
        check_kind(what, values, Sequence, "a sequence")
    for case in cases:
        check_kind("cases", case, Problem, "a Problem")
    for name in architectures:
        check_choice("architectures", name, ARCHITECTURES)
    for seed in seeds:
        check_count("seeds", seed, 0)
    for what, values in (("cases", [case.name for case in cases]),
                         ("architectures", architectures), ("seeds", seeds)):
        require(values and len(set(values)) == len(values),
                f"{what}: different ones are needed, got {list(values)}")
    check_kind("training", training, Training, "a Training")
    if out is not None:
        check_path("out", out)
    unknown = set(map(str, options)) - known_options(architectures)
    require(not unknown, f"options: {sorted(unknown)}, expected some of "
                         f"{sorted(known_options(architectures))}")
