"""Training: shuffled mini-batches, validation each epoch, the best parameters kept, checkpoints.

A `Run` is everything a training is at one moment. Its batches follow from the seed and the epoch
alone, so a run that is saved after any step, loaded and continued gives the same bits as one that
was never interrupted.
"""

from __future__ import annotations

import fnmatch
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, NoReturn, TypeVar
from zlib import crc32

import numpy as np

from npple import archive
from npple.archive import FilePath
from npple.checks import (check_choice, check_count, check_kind, check_number, check_params,
                          check_weights, check_x, first_not_finite, shown)
from npple.core.base import Array, Arrays, Float64, Mask
from npple.core.blocks import BLOCK, for_each
from npple.core.passes import Trace, forward
from npple.errors import Diverged, FileError, InputError, Stopped, require
from npple.kinds import about, check_targets, constant_loss, evaluate
from npple.learn.balance import gradient_shares, outweighing
from npple.learn.dataset import Dataset, check_floating
from npple.network import Network, task_weights
from npple.optimizers import SGD, Adam, AdamW
from npple.routing import Gate

Result = TypeVar("Result")
FORMAT, VERSION = "npple checkpoint", 2
OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
SETTINGS = ("batch_size", "seed", "weights", "decay", "skip_absent", "dtype", "schema",
            "decay_per", "mean_over", "rates", "best_by", "keep_best")
CHOICES = {"decay_per": ("epoch", "step"), "mean_over": ("batch", "data"),
           "best_by": ("constant", "sum"), "keep_best": ("joint", "per-task")}
FIRST = {"decay_per": "step", "mean_over": "batch"}  # what a checkpoint of version 1 means
# What a checkpoint means that has no word on it.
LATER: dict[str, Any] = {"rates": {}, "best_by": "sum", "keep_best": "joint"}
PROGRESS = ("step", "epoch", "batch", "loss_sum", "parts", "history", "data", "validation")
NOTHING: dict[str, Any] = {"validation": None, "parts": {}}  # the same, of progress


@dataclass
class Run:
    """A training run: model, settings, and how far it has come.

    Attributes
    ----------
    model : Network
    optimizer : Adam or SGD
    batch_size, seed : int
    weights, decay : dict of float
        w_k0 and gamma_k of each task's loss, which is weighted with w_k0 · gamma_k^t.
    skip_absent : bool
        Leave parameters alone in steps where no row belongs to a task that reaches them; otherwise
        Adam's momentum keeps moving them.
    dtype : str
        Of parameters, features and real targets: "float32", "float64" or "longdouble".
    schema : dict or None
        How raw columns become features (`npple.data.Schema.to_dict`); kept with the checkpoint.
    decay_per : str
        What t counts: "epoch", the finished epochs, as the PLE paper defines it in equation 10; or
        "step", the updates made.
    mean_over : str
        The loss of a task is, by PLE's equation 9, the mean over its rows; a batch holds only some.
        "batch": the mean over those, whatever their number. "data": that mean times their number,
        divided by the number that the task's share of the data lets a batch expect. So the
        gradient of a task with few rows is an unbiased estimate of that of equation 9.
    rates : dict of float
        Pattern of parameters' names, such as "*/stitch/*" -> factor on the optimizer's rate; the
        last pattern that fits counts.
    best_by : str
        What makes an epoch the best. "constant": the weighted sum of each task's validation loss
        over that of the best constant prediction, so that no scale decides; a task whose constant
        has no loss has no say, unless none has one. "sum": the weighted sum of the losses.
    keep_best : str
        "joint": the parameters of one epoch for all tasks; "per-task": for each task those of the
        epoch with its lowest validation loss, too.
    start : dict of ndarray or None
        Initial parameters, such as those of `stitched_start`; otherwise `model.init(seed)`.
    params, state : dict of ndarray
        The latest parameters and the optimizer's state.
    best : dict of ndarray
        The parameters of the epoch with the lowest score.
    bests : dict of dict of ndarray
        With `keep_best="per-task"`, by task.
    step, epoch, batch : int
        Updates made; finished epochs; finished batches of the current epoch.
    history : list of dict
        For each finished epoch: `epoch`; `loss`, the mean joint loss of its batches, and `parts`,
        what each task adds to it; `gradient`, each task's share of the shared experts' gradient on
        one batch; `outweighs`, the tasks that hold more than nine tenths of either in all epochs
        so far and were not named before, with what to do; `validation` (task -> metrics) and
        `constants`, the loss of the best constant, both in the units of the schema's columns;
        `score`, as `best_by` has it.
    meta_verified : bool
        False for a run loaded from a checkpoint of npple 0.1.0, whose checksum is over the arrays
        alone: settings and progress may be damaged. Saved anew, all is covered.

    Raises
    ------
    InputError
        For a setting that cannot be used.
    """

    model: Network
    optimizer: Adam | SGD = Adam()
    batch_size: int = 256
    seed: int = 0
    weights: dict[str, float] = None  # type: ignore[assignment]  # 1 for each task, below
    decay: dict[str, float] = field(default_factory=dict)
    skip_absent: bool = False
    dtype: str = "float32"
    schema: dict[str, Any] | None = None
    decay_per: str = "epoch"
    mean_over: str = "batch"
    rates: dict[str, float] = field(default_factory=dict)
    best_by: str = "constant"
    keep_best: str = "joint"
    start: Arrays | None = None

    def __post_init__(self) -> None:
        self._check_settings()
        self.weights = check_weights(self.model.table, self.weights)
        task_weights(self.weights, self.decay, 0)
        self.params = self.best = self.model.init(self.seed, np.dtype(self.dtype))
        if self.start is not None:
            found = check_params(self.model.table, self.start)
            require(found == self.dtype, f"start: {found}, expected {self.dtype}")
            self.params = self.best = {name: self.start[name].copy() for name in self.params}
        self.factors = {name: factor for pattern, factor in self.rates.items()
                        for name in fnmatch.filter(self.params, pattern)}
        self.state = self.optimizer.init(self.params)
        self.step = self.epoch = self.batch = 0
        self.loss_sum, self.parts = 0.0, dict[str, float]()
        self.bests = dict.fromkeys(self.model.tasks if self.keep_best == "per-task" else (),
                                   self.best)
        self.history: list[dict[str, Any]] = []
        self.data: int | None = None
        self.validation: int | None = None
        self.meta_verified = True

    def _check_settings(self) -> None:
        for name, kind in (("model", Network), ("optimizer", (Adam, SGD)), ("decay", dict),
                           ("rates", dict),
                           ("skip_absent", bool), ("schema", (dict, type(None)))):
            value = getattr(self, name)
            require(isinstance(value, kind), f"{name}: {shown(value)} is not of the right kind")
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        check_count("batch_size", self.batch_size)
        check_count("seed", self.seed, 0)
        self.batch_size, self.seed = int(self.batch_size), int(self.seed)
        self.decay = {task: check_number(f"decay: {shown(task)}", gamma, 0, 1)
                      for task, gamma in self.decay.items()}
        self.rates = {pattern: check_number(f"rates: {shown(pattern)}", factor, 0)
                      for pattern, factor in self.rates.items()}
        for pattern in self.rates:
            require(isinstance(pattern, str) and fnmatch.filter(self.model.shapes, pattern),
                    f"rates: {shown(pattern)} fits no parameter of the model, expected a pattern "
                    "such as '*/stitch/*'")
        self.dtype = check_floating(self.dtype).name
        require(self.dtype != "float16", "dtype is float16, expected at least float32")

    def train(self, data: Dataset, validation: Dataset, epochs: int, *, patience: int | None = None,
              checkpoint: FilePath | None = None, every: int | None = None, new: bool = False,
              on_batch: Callable[[Run, int], object] | None = None,
              on_epoch: Callable[[dict[str, Any]], object] | None = None,
              stop: Callable[[], object] | None = None) -> None:
        """Train until `epochs` epochs are finished, counting those before a resume.

        Parameters
        ----------
        data, validation : npple.data.Dataset
            Features in the dtype of the run, targets and masks by task.
        epochs : int
        patience : int, optional
            Stop after this many epochs in a row without a better validation score.
        checkpoint : path, optional
            Where to save the run, at its start and after each epoch.
        every : int, optional
            Save after each `every` steps too.
        new : bool, optional
            Whether a file that stands at `checkpoint` at the start is an error; so of two trainings
            that are given one file, one is refused.
        on_batch, on_epoch : callable, optional
            Called with the run and the number of batches an epoch, or the epoch's history entry.
        stop : callable, optional
            Asked after each step whether to end here; what is true is a yes.

        Raises
        ------
        InputError
            For data the model does not take, or other data than the run was started with.
        Diverged
            When a loss, a gradient or a parameter is not finite; the run, and its checkpoint, keep
            what was before that step.
        Stopped
            When `stop` said so; the checkpoint holds the run as it is.
        FileError
            When the checkpoint cannot be written.
        """
        data, validation = self._check_call(data, validation, epochs, patience, checkpoint, every)
        batches = -(-len(data) // self.batch_size)
        if checkpoint and not self.step:
            self.save(checkpoint, new)
        try:
            while self.epoch < epochs and not self._exhausted(patience):
                self._steps(data, batches, checkpoint, every, on_batch, stop)
                self._finish_epoch(data, validation, batches)
                if checkpoint:
                    self.save(checkpoint)
                if on_epoch:
                    on_epoch(self.history[-1])
        except (Diverged, Stopped):
            if checkpoint:
                self.save(checkpoint)
            raise

    def _check_call(self, data: Dataset, validation: Dataset, epochs: object, patience: object,
                    checkpoint: object, every: object) -> tuple[Dataset, Dataset]:
        """Both data sets as the losses take them: so no step needs to check its rows again."""
        check_count("epochs", epochs, 0, most=10 ** 9)
        for name, value in (("patience", patience), ("every", every)):
            if value is not None:
                check_count(name, value)
        require(checkpoint is None or isinstance(checkpoint, (str, PathLike)),
                f"checkpoint: a path is needed, got {shown(checkpoint)}")
        dtype = check_params(self.model.table, self.params)
        require(dtype == self.dtype, f"params: {dtype}, expected {self.dtype}")
        checked = (_check_rows("data", self.model, data, dtype),
                   _check_rows("validation", self.model, validation, dtype))
        for name, rows in (("data", data), ("validation", validation)):
            found = fingerprint(rows)
            require(getattr(self, name) in (None, found),
                    f"{name}: not the rows this run was started with")
            setattr(self, name, found)
        return checked

    def _steps(self, data: Dataset, batches: int, checkpoint: FilePath | None, every: int | None,
               on_batch: Callable[[Run, int], object] | None, stop: Callable[[], object] | None
               ) -> None:
        """What is left of the epoch's steps."""
        shuffled = data.take(np.random.default_rng([self.seed, self.epoch]).permutation(len(data)))
        while self.batch < batches:
            if stop and stop():
                raise Stopped(f"stopped after step {self.step}, in epoch {self.epoch + 1}")
            self._update(shuffled)
            if checkpoint and every and self.step % every == 0:
                self.save(checkpoint)
            if on_batch:
                on_batch(self, batches)

    def _update(self, shuffled: Dataset) -> None:
        """One step on the next batch."""
        start = self.batch * self.batch_size
        rows = shuffled.take(slice(start, start + self.batch_size))
        noise = self.model.noise(np.random.default_rng([self.seed, self.step, 1]), self.dtype)
        try:
            weights = self._weights(rows, shuffled)
            masks = {task: rows.masks.get(task) for task in self.model.tasks}
            loss, grads, losses = self.model.run(
                (self.model.table, self.params, rows.x, rows.targets, masks, noise), weights)
        except Diverged as error:
            self._diverged(error)
        if not math.isfinite(self.loss_sum + loss):
            self._diverged("the sum of losses is not finite")
        names: Collection[str] = self.params
        if self.skip_absent:
            present = [task for task in self.model.tasks if _count(rows, task)]
            names = self.model.table.reached_parameters(present)
        with np.errstate(over="ignore", invalid="ignore"):
            params, state = self.optimizer.step(self.params, grads, self.state, names,
                                                self.factors)
        if name := first_not_finite(params):
            self._diverged(f"{name} is not finite after the update")
        self.params, self.state, self.step, self.batch, self.loss_sum = (
            params, state, self.step + 1, self.batch + 1, self.loss_sum + loss)
        self.parts = {task: self.parts.get(task, 0.0) + weights[task] * loss
                      for task, loss in losses.items()}

    def _weights(self, rows: Dataset, data: Dataset) -> dict[str, float]:
        """The weight of each task's mean over a batch, `rows` of `data`."""
        t = self.epoch if self.decay_per == "epoch" else self.step
        weights = task_weights(self.weights, self.decay, t)
        if self.mean_over == "batch":
            return weights
        size = min(self.batch_size, len(data))  # of the last batch too, which may be smaller
        return {task: weight * (_count(rows, task) * len(data)
                                / (size * max(_count(data, task), 1)))
                for task, weight in weights.items()}

    def _diverged(self, what: object) -> NoReturn:
        raise Diverged(f"step {self.step + 1}: {what}; a smaller --rate or --clip 1 may help")

    def _finish_epoch(self, data: Dataset, validation: Dataset, batches: int) -> None:
        entry: dict[str, Any] = {
            "epoch": self.epoch + 1, "loss": self.loss_sum / batches,
            "parts": {task: part / batches for task, part in self.parts.items()},
            "gradient": self._gradient_shares(data), **self._validated(validation)}
        if not self.history or entry["score"] < self.best_epoch["score"]:
            self.best = self.params
        self.history.append(entry)
        entry["outweighs"] = outweighing(self.history, [
            task for task, kind in self.model.tasks.items()
            if kind == "regression" and task not in self._deviations()])
        for task in self.bests:
            if self.best_epoch_of(task) is self.history[-1]:
                self.bests[task] = self.params
        self.epoch, self.batch, self.loss_sum, self.parts = self.epoch + 1, 0, 0.0, {}

    def _validated(self, validation: Dataset) -> dict[str, Any]:
        """The metrics, constants and score of an epoch."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                metrics = evaluate_model(self.model, self.params, validation)
        except Diverged as error:
            raise Diverged(f"validation after step {self.step}: {error}") from None
        constants = {task: constant_loss(kind, validation.targets[task][_own(validation, task)])
                     for task, kind in self.model.tasks.items()}
        score = self._score(metrics, constants)
        if not math.isfinite(score):
            raise Diverged(f"validation after step {self.step}: the loss is not finite")
        for task, std in self._deviations().items():
            for group, name in ((metrics[task], "mse"), (constants, task)):
                if (value := group.get(name)) is not None:
                    group[name] = value * std ** 2
        return {"validation": metrics, "constants": constants, "score": score}

    def _score(self, metrics: Mapping[str, Mapping[str, float | None]],
               constants: Mapping[str, float | None]) -> float:
        """What the best epoch has least of."""
        losses = {task: loss for task, kind in self.model.tasks.items()
                  if (loss := metrics[task].get(about(kind).loss)) is not None}
        known = {task: loss / constant for task, loss in losses.items()
                 if (constant := constants[task])}
        return sum(self.weights[task] * loss for task, loss in (
            known if known and self.best_by == "constant" else losses).items())

    def _gradient_shares(self, data: Dataset) -> dict[str, float]:
        """Each task's share of the shared experts' gradient on a batch drawn at random."""
        random = np.random.default_rng([self.seed, self.epoch, 2])
        rows = data.take(random.permutation(len(data))[:self.batch_size])
        try:
            return gradient_shares(self.model, self.params, rows, self._weights(rows, data))
        except Diverged as error:
            raise Diverged(f"after step {self.step}: {error}") from None

    def _deviations(self) -> dict[str, float]:
        """The deviation of each standardised target."""
        targets = (self.schema or {}).get("targets", {})
        return {task: scale["std"] for task, scale in targets.items()}

    @property
    def best_epoch(self) -> dict[str, Any]:
        """The history entry of the best epoch."""
        return min(self.history, key=lambda entry: entry["score"])

    def best_epoch_of(self, task: str) -> dict[str, Any]:
        """The history entry of the epoch whose parameters predict a task.

        Parameters
        ----------
        task : str

        Returns
        -------
        dict
            With `keep_best="per-task"` that with the task's lowest validation loss, otherwise
            `best_epoch`; also for a task without a validation loss.
        """
        loss = about(self.model.tasks[task]).loss
        found = [entry for entry in self.history if entry["validation"][task].get(loss) is not None]
        if self.keep_best == "joint" or not found:
            return self.best_epoch
        return min(found, key=lambda entry: entry["validation"][task][loss])

    def predict(self, data: Dataset, raw: bool = False) -> dict[str, Array]:
        """Each task's predictions, of the best parameters there are for it.

        Parameters
        ----------
        data : npple.data.Dataset
            Targets are not looked at.
        raw : bool
            The towers' outputs (logits) instead.

        Returns
        -------
        dict of ndarray
            As from `npple.training.predict`.

        Raises
        ------
        InputError
            For data that the model does not take.
        """
        if not self.bests:
            return predict(self.model, self.best, data, raw=raw)
        return {task: predict(self.model, params, data, raw=raw)[task]
                for task, params in self.bests.items()}

    def _exhausted(self, patience: int | None) -> bool:
        return (patience is not None and bool(self.history)
                and self.epoch - max(self.best_epoch_of(task)["epoch"]
                                     for task in self.model.tasks) >= patience)

    def save(self, path: FilePath, new: bool = False) -> None:
        """Write the run to one file, atomically.

        Parameters
        ----------
        path : str or path
        new : bool, optional
            Whether a file that stands there is an error.

        Raises
        ------
        InputError
            If `path` is no path.
        FileError
            If the file cannot be written.
        """
        groups: dict[str, Mapping[str, Any]] = {"params": self.params, "best": self.best,
                                                "state": self.state}
        groups |= {_best_of(task): params for task, params in self.bests.items()}
        arrays = {f"{group}/{name}": array for group, named in groups.items()
                  for name, array in named.items()}
        settings = {name: getattr(self, name) for name in SETTINGS}
        kind = next(name for name, cls in OPTIMIZERS.items() if type(self.optimizer) is cls)
        meta = {"table": self.model.to_dict(), "settings": settings,
                "optimizer": {"kind": kind} | asdict(self.optimizer),
                "progress": {name: getattr(self, name) for name in PROGRESS}}
        archive.save(path, arrays, meta, format=FORMAT, version=VERSION, new=new)

    @classmethod
    def load(cls, path: FilePath) -> Run:
        """Read a run that `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Run

        Raises
        ------
        InputError
            If `path` is no path.
        FileError
            For a file that is missing, damaged, of another kind or version, or whose arrays are
            not those of its model.
        """
        arrays, meta, version = archive.load(path, format=FORMAT, versions=(1, VERSION))
        try:
            model = Network.from_dict(meta["table"])
            check_params(model.table, _group("params", arrays))  # before it allocates as many
            optimizer = OPTIMIZERS[meta["optimizer"].pop("kind")](**meta["optimizer"])
            settings = LATER | (FIRST if version == 1 else {}) | meta["settings"]
            run = cls(model, optimizer, **{name: settings[name] for name in SETTINGS})
            for name, value in _checked_progress(NOTHING | meta["progress"],
                                                 model.tasks).items():
                setattr(run, name, value)
            run.meta_verified = version > 1
            for group in ("params", "best", "state"):
                setattr(run, group, _same_arrays(group, getattr(run, group), arrays))
            run.bests = {task: _same_arrays(_best_of(task), params, arrays)
                         for task, params in run.bests.items()}
        except (InputError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError,
                RecursionError, MemoryError) as error:
            raise FileError(f"{path}: not a usable checkpoint: {shown(error)}") from None
        return run


def evaluate_model(model: Network, params: Arrays, data: Dataset, rows: int = BLOCK
                   ) -> dict[str, dict[str, float | None]]:
    """Each task's metrics on a data set, over the task's own rows.

    Parameters
    ----------
    model : Network
    params : dict of ndarray
    data : npple.data.Dataset
    rows : int
        How many are run at a time.

    Returns
    -------
    dict of dict of float
        As from `npple.kinds.evaluate`, None where undefined; empty for a task without a row.

    Raises
    ------
    InputError
        For what is no Network, or data that it does not take.
    Diverged
        For outputs that are not finite.
    """
    outputs = predict(model, params, data, rows, raw=True)
    if name := first_not_finite(outputs):
        raise Diverged(f"tower/{name} is not finite")
    _check_rows("data", model, data, check_params(model.table, params))
    metrics = {}
    for task, kind in model.tasks.items():
        own = _own(data, task)
        targets = data.targets[task][own]
        found = evaluate(kind, targets, outputs[task][own]) if len(targets) else {}
        metrics[task] = {name: None if np.isnan(value) else value for name, value in found.items()}
    return metrics


def predict(model: Network, params: Arrays, data: Dataset, rows: int = BLOCK, raw: bool = False
            ) -> dict[str, Array]:
    """Each task's predictions for all rows of a data set: probabilities or values.

    Parameters
    ----------
    model : Network
    params : dict of ndarray
    data : npple.data.Dataset
        Targets are not looked at.
    rows : int
        How many are run at a time.
    raw : bool
        The towers' outputs (logits) instead.

    Returns
    -------
    dict of ndarray
        By task: (n,), or (n, K) for "multiclass:K".

    Raises
    ------
    InputError
        For what is no Network, data that it does not take, or without a row.
    """
    parts = over_rows(model, params, data, rows,
                      lambda trace: trace.outputs if raw else trace.predictions)
    return {task: np.concatenate([part[task] for part in parts]) for task in model.tasks}


def gate_weights(model: Network, params: Arrays, data: Dataset, rows: int = BLOCK
                 ) -> dict[str, dict[str, Float64]]:
    """The mean weight that each gate gives each of its experts.

    Parameters
    ----------
    model : Network
    params : dict of ndarray
    data : npple.data.Dataset
        Targets are not looked at.
    rows : int
        How many are run at a time.

    Returns
    -------
    dict of dict of ndarray
        Gate's representation, such as `level1/income` -> expert group -> (n,) mean weight of its
        experts.

    Raises
    ------
    InputError
        For what is no Network, data that it does not take, or without a row.
    """
    check_kind("model", model, Network, "a Network")
    gates = [row for row in model.table.rows if isinstance(row, Gate)]
    sums = over_rows(model, params, data, rows, lambda trace: [
        trace[f"{gate.parameters}/weights"].sum(axis=0, dtype=np.float64) for gate in gates])
    means = {}
    for gate, own in zip(gates, zip(*sums)):
        stops = np.cumsum([source.count(model.table) for source in gate.sources])
        parts = np.split(sum(own, np.zeros(())) / len(data), stops[:-1])
        means[gate.name] = {source.name: part for source, part in zip(gate.sources, parts)}
    return means


def over_rows(model: Network, params: Arrays, data: Dataset, rows: int,
              look: Callable[[Trace], Result]) -> list[Result]:
    """What `look` finds in the forward pass of a data set: some rows at a time, side by side.

    Parameters
    ----------
    model : Network
    params : dict of ndarray
    data : npple.data.Dataset
    rows : int
        How many are run at a time.
    look : callable
        Called with the trace of these rows.

    Returns
    -------
    list
        What it returned, in the order of the rows.

    Raises
    ------
    InputError
        For what is no Network, data that it does not take, or without a row.
    """
    check_kind("model", model, Network, "a Network")
    check_kind("data", data, Dataset, "a Dataset")
    require(len(data), "data: no rows, expected at least one")
    rows = check_count("rows", rows)
    x, count = check_x(model.table, data.x, check_params(model.table, params))
    checked, found = Dataset(x, {}, {}), list[Result]()

    def run(start: int) -> Result:
        with np.errstate(over="ignore", invalid="ignore"):  # of this thread
            return look(forward(model.table, params, checked.take(slice(start, start + rows)).x))

    for_each(range(0, count, rows), run, found.append)
    return found


def stitched_start(model: Network, single: Network, params: Arrays, seed: int = 0
                   ) -> dict[str, Array]:
    """Initial parameters of a cross-stitch network from trained networks of one task each.

    The layers of each task's experts, level after level, the towers and the embeddings are those of
    `single`; what mixes the tasks starts as `model.init` has it (cross-stitch, section 5.3).

    Parameters
    ----------
    model : Network
        Of `npple.cross_stitch`.
    single : Network
        Of `npple.single_task` with the same tasks, and as many layers of the same widths.
    params : dict of ndarray
        Its parameters, trained.
    seed : int
        Of what it does not have.

    Returns
    -------
    dict of ndarray
        For `Run(model, start=...)`.

    Raises
    ------
    InputError
        For networks that do not belong together.
    """
    check_kind("model", model, Network, "a Network")
    check_kind("single", single, Network, "a Network")
    start = model.init(seed, check_params(single.table, params))
    ours, theirs = _layers(model), _layers(single)
    for place, name in theirs.items():
        require(place in ours and start[ours[place]].shape == params[name].shape,
                f"single: {name} {params[name].shape} has no place in the model, expected a "
                "single_task network of the same tasks, layers and widths")
        start[ours[place]] = params[name].copy()
    left = [name for place, name in ours.items() if place not in theirs]
    require(not left, f"single: nothing for {', '.join(map(shown, left[:3]))} of the model")
    return start


def _layers(model: Network) -> dict[tuple[str, ...], str]:
    """What a parameter is to its task, whichever level it stands in -> its name; no mixing."""
    counts, places = Counter[tuple[str, ...]](), dict[tuple[str, ...], str]()
    for name in model.shapes:
        first, *_, last = parts = name.split("/")
        if re.fullmatch(r"level\d+/[^/]+/experts/layer\d+/\w+", name):
            counts[place := (parts[1], last)] += 1
            places[*place, str(counts[place])] = name
        elif first in ("tower", "embedding"):
            places[tuple(parts)] = name
    return places


def _check_rows(what: str, model: Network, data: Dataset, dtype: np.dtype[np.inexact]) -> Dataset:
    """All of a data set as the losses take it; `InputError` unless it is as the model takes it."""
    check_kind(what, data, Dataset, "a Dataset")
    try:
        x, rows = check_x(model.table, data.x, dtype)
        targets, _ = check_targets(model.table, data.targets, data.masks, rows, dtype)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    return Dataset(x, dict(targets), data.masks)


def _best_of(task: str) -> str:
    """The group of arrays that holds a task's best parameters."""
    return f"best of {task}"


def _own(data: Dataset, task: str) -> Mask | slice:
    """What selects the rows of a task's sample space."""
    return data.masks.get(task, slice(None))


def _count(data: Dataset, task: str) -> int:
    """How many rows are in a task's sample space."""
    return int(np.count_nonzero(data.masks[task])) if task in data.masks else len(data)


def fingerprint(data: Dataset) -> int:
    """A checksum over all values, so that a run is not resumed on other rows."""
    columns = data.x if isinstance(data.x, dict) else {"x": data.x}
    total = len(data)
    for group in (columns, data.targets, data.masks):
        for name, values in group.items():
            total = crc32(np.ascontiguousarray(values).tobytes(), crc32(name.encode(), total))
    return total


def _checked_progress(progress: Any, tasks: Mapping[str, str]) -> dict[str, Any]:
    """How far a saved run had come, if it can have come there."""
    for name in ("step", "epoch", "batch"):
        check_count(name, progress[name], 0)
    require(type(progress["loss_sum"]) is float and math.isfinite(progress["loss_sum"]),
            f"loss_sum: {shown(progress['loss_sum'])}")
    for name in ("data", "validation"):
        require(progress[name] is None or type(progress[name]) is int,
                f"{name}: {shown(progress[name])}")
    require(progress["parts"].keys() <= tasks.keys(), f"parts: {shown(progress['parts'])}")
    for task, part in progress["parts"].items():
        check_number(f"parts: {shown(task)}", part)
    history = progress["history"]
    require(isinstance(history, list) and len(history) == progress["epoch"],
            f"history: an entry for each of {progress['epoch']} epochs is needed")
    for number, entry in enumerate(history, start=1):
        require(entry["epoch"] == number and entry["validation"].keys() == tasks.keys(),
                f"history: entry {number} is {shown(entry)}")
        for name in ("loss", "score"):
            check_number(f"history: {name}", entry[name], -math.inf)
        for name, fits in ENTRY.items():
            found = entry.get(name, {})
            require(found.keys() <= tasks.keys() and all(map(fits, found.values())),
                    f"history: {name} of epoch {number} is {shown(found)}")
    return {name: progress[name] for name in PROGRESS}


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def _is_known(value: object) -> bool:
    return value is None or _is_number(value)


ENTRY: dict[str, Callable[[Any], bool]] = {  # what an entry of the history holds of tasks
    "parts": _is_number, "gradient": _is_number, "constants": _is_known,
    "outweighs": lambda text: isinstance(text, str) and text.isprintable(),
    "validation": lambda found: all(map(_is_known, found.values()))}


def _group(group: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a group, by the names they have in it."""
    return {name.removeprefix(f"{group}/"): array for name, array in arrays.items()
            if name.startswith(f"{group}/")}


def _same_arrays(group: str, expected: Mapping[str, Any], arrays: Mapping[str, Any]
                 ) -> dict[str, Any]:
    """The arrays of a group, if their names, shapes and dtypes are the expected ones."""
    found = _group(group, arrays)
    require(found.keys() == expected.keys(), f"{group}: other names than the model's")
    for name, array in expected.items():
        require(found[name].shape == array.shape and found[name].dtype == array.dtype,
                f"{group}/{name}: {found[name].dtype} {found[name].shape}, expected "
                f"{array.dtype} {array.shape}")
    broken = first_not_finite(found)
    require(broken is None, f"{group}/{broken} is not finite")
    return {name: found[name] for name in expected}
