"""From a table to a trained model and back to predictions: `npple.fit` and `npple.load`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from npple.archive import FilePath
from npple.architectures import ARCHITECTURES
from npple.checks import check_choice, check_count, shown
from npple.core.base import Array, Codes
from npple.core.losses import kind_of
from npple.errors import InputError, require
from npple.learn.balance import warnings_text
from npple.learn.columns import Dress, Texts, absent
from npple.learn.evaluation import (Evaluation, calibrations, entry_texts, evaluate_outputs,
                                    output_names)
from npple.learn.fitting import prepare
from npple.learn.frames import columns_of
from npple.learn.schema import Schema, known_enough
from npple.learn.training import Run
from npple.optimizers import SGD, Adam


@dataclass(frozen=True, repr=False)
class Trained:
    """A trained model that takes tables, and gives predictions in the units of their columns.

    Parameters
    ----------
    run : npple.training.Run
        Model, parameters, settings and history.
    schema : npple.data.Schema
        How columns become features and targets.
    """

    run: Run
    schema: Schema

    def predict(self, frame: object, *, accept_unknown: bool = False, delimiter: str = ",",
                columns: Sequence[str] | None = None, encoding: str = "utf-8"
                ) -> dict[str, Array]:
        """Each task's predictions for all rows of a table.

        Parameters
        ----------
        frame : path, dict, or anything with columns (pandas, polars, pyarrow)
            As for `npple.fit`; label columns need not be there.
        accept_unknown : bool, optional
            Whether a column may be unknown in every row.
        delimiter, columns, encoding
            As for `npple.fit`.

        Returns
        -------
        dict of ndarray
            By task: probabilities or values (n,), or (n, K) of K classes, `schema.classes[task]`.

        Raises
        ------
        InputError
            If a column is missing, has a value that cannot be used, or none that training knew.
        FileError
            If a file cannot be read.
        """
        table = self._table(frame, Dress(delimiter, columns, encoding))
        known_enough(self.schema, table, accept_unknown)
        return self._predictions(self._outputs(table))

    def unknown(self, frame: object, *, delimiter: str = ",",
                columns: Sequence[str] | None = None, encoding: str = "utf-8") -> list[str]:
        """A line for each column that has values which training did not know.

        Parameters
        ----------
        frame, delimiter, columns, encoding
            As for `predict`.

        Returns
        -------
        list of str

        Raises
        ------
        InputError
            If a column is missing.
        FileError
            If a file cannot be read.
        """
        return known_enough(self.schema, self._table(frame, Dress(delimiter, columns, encoding)),
                            accept=True)

    def evaluate(self, frame: object, *, group: str | None = None, bins: int = 10,
                 accept_unknown: bool = False, delimiter: str = ",",
                 columns: Sequence[str] | None = None, encoding: str = "utf-8") -> Evaluation:
        """How good the predictions for labelled rows are.

        Parameters
        ----------
        frame : path, dict, or anything with columns (pandas, polars, pyarrow)
            As for `npple.fit`.
        group : str, optional
            The column of users: the AUC within each, averaged by their rows, is the GAUC. Rows
            without a user are left out of it.
        bins : int, optional
            Of the calibration: predicted over observed, in bins of as many rows.
        accept_unknown : bool, optional
            Whether a column may be unknown in every row.
        delimiter, columns, encoding
            As for `npple.fit`.

        Returns
        -------
        Evaluation

        Raises
        ------
        InputError
            As `predict`, and for labels that cannot be used.
        FileError
            If a file cannot be read.
        """
        check_count("bins", bins, most=10 ** 6)
        require(group is None or isinstance(group, str), f"group: {shown(group)}, expected a "
                                                         "column")
        table = self._table(frame, Dress(delimiter, columns, encoding))
        absent(table, [*self.schema.tasks, *([] if group is None else [group])])
        unknown = known_enough(self.schema, table, accept_unknown)
        targets, masks = self.schema.labels(table)
        kinds, outputs = self.schema.tasks, self._outputs(table)
        found = evaluate_outputs(kinds, targets, masks, self.schema.own_units(outputs),
                                 None if group is None else _groups(table[group]))
        bins_of = calibrations(kinds, self.schema.classes, targets, masks,
                               self._predictions(outputs), bins)
        return Evaluation(len(next(iter(targets.values()))), found, bins_of, group, unknown)

    def output_names(self) -> dict[str, list[str]]:
        """The names of each task's columns of predictions, all different.

        Returns
        -------
        dict task -> list of str
            The task, or `task=class` for each class.
        """
        return output_names(self.schema.tasks, self.schema.classes)

    def save(self, path: FilePath) -> None:
        """Write a checkpoint, which `npple.load` and the command line read.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        InputError
            If `path` is no path.
        FileError
            If the file cannot be written.
        """
        self.run.save(path)

    def __repr__(self) -> str:
        lines = [f"Trained for {self.run.epoch} epochs", *(
            line for entry in self.run.history for line in warnings_text(entry))]
        width = max(map(len, self.schema.tasks))
        for task in self.schema.tasks if self.run.history else ():
            best = self.run.best_epoch_of(task)
            lines.append(f"  {task:{width}}  epoch {best['epoch']}  {entry_texts(best)[task]}")
        return "\n".join(lines)

    def _table(self, frame: object, dress: Dress) -> Mapping[str, Texts]:
        return columns_of(frame, self.schema.form, dress)

    def _outputs(self, table: Mapping[str, Texts]) -> dict[str, Array]:
        """What the towers give, in float64, where unequal logits are unequal probabilities."""
        rows = self.schema.encode(table, self.run.dtype, labels=False)
        return {task: values.astype(np.result_type(values, np.float64))
                for task, values in self.run.predict(rows, raw=True).items()}

    def _predictions(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Probabilities, and values in the units of their columns."""
        return self.schema.own_units({task: kind_of(self.schema.tasks[task]).predict(values)
                                      for task, values in outputs.items()})


def fit(frame: object, *, numeric: Sequence[str] = (), categorical: Sequence[str] = (),
        bags: Sequence[str] = (), tasks: Mapping[str, str], log: Sequence[str] = (),
        model: str = "ple", validation: object = None, time: str | None = None,
        split_by: str | None = None, min_count: int = 2, missing: str | None = None,
        raw_targets: bool = False, bag_separator: str = "|", bag_pool: str = "mean",
        embedding_width: int = 4, optimizer: Adam | SGD | None = None, epochs: int = 10,
        batch_size: int = 256, seed: int = 0, weights: dict[str, float] | None = None,
        keep_best: str = "joint", patience: int | None = None, checkpoint: FilePath | None = None,
        on_epoch: Callable[[dict[str, Any]], object] | None = None, delimiter: str = ",",
        columns: Sequence[str] | None = None, encoding: str = "utf-8", **options: Any) -> Trained:
    """Train a model on a table, as `npple train` does.

    Parameters
    ----------
    frame : path, dict, or anything with columns (pandas, polars, pyarrow)
        A path is a CSV file, or a parquet file where pandas or polars can read one; a dict is
        column -> list or array. A list in a cell stands for its values with | between them.
    numeric, categorical : sequences of str
        The feature columns.
    bags : sequence of str, optional
        Feature columns with several values in a text, such as "news|sport", or none.
    tasks : dict column -> "binary", "regression" or "multiclass"
        The label columns, each a task. A row without a label is outside the task's sample space.
    log : sequence of str, optional
        The numeric columns of which to take log(1 + v).
    model : str, optional
        One of `npple.ARCHITECTURES`.
    validation : optional
        A table like `frame`; by default a fifth of the rows is held out.
    time, split_by : str, optional
        The column by which the latest rows are held out; whose values stay together.
    min_count : int, optional
        Categories that come more seldom count as unknown.
    missing : "mean", "median" or "0", optional
        What stands for a missing number; by default one is refused.
    raw_targets : bool, optional
        Leave the targets of regression as they are; otherwise they are standardised.
    bag_separator, bag_pool : str, optional
        What stands between the values of a bag; whether it is the "mean" or "sum" of their
        embeddings.
    embedding_width : int, optional
        Of each categorical column and each column of bags.
    optimizer : Adam or SGD, optional
        By default `npple.Adam(rate=1e-3)`.
    epochs, batch_size, seed : int, optional
    weights : dict of float, optional
        Of each task's loss.
    keep_best : "joint" or "per-task", optional
        Whether each task is predicted with the parameters of its own best epoch, rather than with
        those of the best for all.
    patience : int, optional
        Stop after so many epochs without a better one.
    checkpoint : path, optional
        Where to save the run, at its start and after each epoch.
    on_epoch : callable, optional
        Called with each epoch's history entry.
    delimiter, columns, encoding : optional
        How a CSV file is written down: what stands between two fields (one character, or "tab");
        the names of the columns of a file without a header; the encoding of its characters.
    **options
        Of the model's builder, such as `levels=2, task_experts=2, expert_units=(64,)`.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        If the table or a setting cannot be used.
    FileError
        If a file cannot be read or written.
    Diverged
        When a loss, a gradient or a parameter is not finite.
    """
    check_choice("model", model, ARCHITECTURES)
    for option in options:
        known = [*inspect.signature(ARCHITECTURES[model]).parameters][2:]
        check_choice(f"option of {model}", option, known)
    require(type(raw_targets) is bool, f"raw_targets: True or False, got {shown(raw_targets)}")
    require(not isinstance(checkpoint, (str, PathLike)) or not Path(checkpoint).exists(),
            f"checkpoint: {checkpoint} exists, expected a new file")
    dress = Dress(delimiter, columns, encoding)
    roles = {"numeric": numeric, "categorical": categorical, "bags": bags, "tasks": tasks,
             "log": log}
    held_out = None if validation is None else columns_of(validation, dress=dress)
    made = prepare(columns_of(frame, dress=dress), held_out, roles, seed=seed, time=time,
                   split_by=split_by, min_count=min_count, missing=missing,
                   standardise=not raw_targets, separator=bag_separator, pool=bag_pool)
    network = ARCHITECTURES[model](made.schema.inputs(embedding_width), made.schema.tasks,
                                   **options)
    run = Run(network, Adam(rate=1e-3) if optimizer is None else optimizer, batch_size, seed,
              weights, schema=made.schema.to_dict(), keep_best=keep_best)  # type: ignore[arg-type]  # None is 1 for all
    run.train(made.train, made.validation, epochs, patience=patience, checkpoint=checkpoint,
              new=True, on_epoch=on_epoch)
    return Trained(run, made.schema)


def load(path: FilePath) -> Trained:
    """A trained model from its checkpoint, whether the command line or Python saved it.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        If `path` is no path, or the model was trained on what no table holds.
    FileError
        For a file that is missing, damaged, or no checkpoint.
    """
    run = Run.load(path)
    if run.schema is None:
        raise InputError(f"{path}: was trained on synthetic data, which no file holds")
    return Trained(run, Schema.from_dict(run.schema))


def _groups(texts: Texts) -> Codes:
    """Of each row the place of its text among the sorted ones, below 0 where it is empty."""
    words, places = texts.distinct
    rank = {word: place for place, word in enumerate(sorted(words))} | {"": -1}
    return np.array([rank[word] for word in words])[places]
