"""What is learned from the training columns, so that every later file is read the same way."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npple.checks import check_kind, check_texts, shown
from npple.core.base import Array, Codes, Float64, Values
from npple.errors import InputError, require
from npple.learn.columns import Texts, converted
from npple.learn.dataset import Dataset, check_floating

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
BINARY = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
UNKNOWN = 0  # the code of a category that training never had


class Scale(NamedTuple):
    """How a numeric column is standardised: (v - mean) / std, of v or of log(1 + v)."""

    mean: float
    std: float
    log: bool


@dataclass(frozen=True)
class Schema:
    """How columns of text become arrays. Made by `Schema.learn` or `Schema.from_dict`.

    Parameters
    ----------
    numeric : dict column -> Scale
    categorical : dict column -> tuple of str
        The sorted vocabulary; the code of a text is its place in it, from 1. Code 0 is for
        texts that are not in it.
    tasks : dict task -> str
        "binary", "regression" or "multiclass:K". A task is named as its label column.
    classes : dict task -> tuple of str
        The K sorted class labels of each multiclass task.

    Raises
    ------
    InputError
        If the parts are not of this form or contradict each other.
    """

    numeric: dict[str, Scale]
    categorical: dict[str, tuple[str, ...]]
    tasks: dict[str, str]
    classes: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        _check_names([*self.numeric, *self.categorical], self.tasks)
        for column, scale in self.numeric.items():
            expected = "a finite mean, a positive std and log true or false"
            fits = (_finite(scale.mean) and _finite(scale.std) and scale.std > 0
                    and isinstance(scale.log, bool))
            require(fits, f"column {column!r} has {shown(scale)}, expected {expected}")
        for name, texts in (self.categorical | self.classes).items():
            ascending = _ascending(texts)
            require(ascending, f"column {name!r} has values {shown(texts)}, expected sorted texts")
        kinds = {task: f"multiclass:{len(texts)}" for task, texts in self.classes.items()}
        for task, kind in self.tasks.items():
            usable = [kinds[task]] if task in kinds else ["binary", "regression"]
            require(isinstance(kind, str) and kind in usable,
                    f"task {task!r} is {shown(kind)}, expected {usable}")
            require(kind != "multiclass:1", f"task {task!r} has one class, expected at least 2")
        require(set(kinds) <= set(self.tasks), f"classes of {list(kinds)}, expected tasks' only")

    @classmethod
    def learn(cls, columns: Mapping[str, Sequence[str]], numeric: Sequence[str],
              categorical: Sequence[str], tasks: Mapping[str, str], log: Sequence[str] = ()
              ) -> Schema:
        """Learn the scales, vocabularies and classes of the training columns.

        Parameters
        ----------
        columns : dict column -> Texts or list of str
            As from `read_columns`.
        numeric, categorical : sequences of str
            The feature columns.
        tasks : dict column -> "binary", "regression" or "multiclass"
            The label columns, each a task.
        log : sequence of str, optional
            The numeric columns of which to take log(1 + v) before anything else.

        Returns
        -------
        Schema

        Raises
        ------
        InputError
            If a column is unknown, listed twice or both feature and label; if there are no
            rows, features or tasks; if a value cannot be used; or if a task has no label.
        """
        numeric, categorical, log = (check_texts(name, columns) for name, columns in (
            ("numeric", numeric), ("categorical", categorical), ("log", log)))
        check_kind("tasks", tasks, dict, "a dict of column and kind")
        _check_names([*numeric, *categorical], tasks)
        for column in log:
            require(column in numeric, f"log of {column!r}, expected a numeric column")
        texts = _texts(columns, [*numeric, *categorical, *tasks])
        kinds, classes = dict(tasks), {}
        for task, kind in tasks.items():
            known = isinstance(kind, str) and kind in ("binary", "regression", "multiclass")
            expected = "'binary', 'regression' or 'multiclass'"
            require(known, f"task {task!r} is {shown(kind)}, expected {expected}")
            labels = {*texts[task].distinct[0]} - {""}
            require(labels, f"task {task!r} has no labelled row, expected at least one")
            if kind == "multiclass":
                classes[task] = tuple(sorted(labels))
                kinds[task] = f"multiclass:{len(labels)}"
        scales = {name: _scale(name, texts[name], name in log) for name in numeric}
        words = {name: tuple(sorted(texts[name].distinct[0])) for name in categorical}
        schema = cls(scales, words, kinds, classes)
        for task in tasks:
            schema._targets(texts, task, np.dtype(np.float64))  # so that a bad label is refused now
        return schema

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        """The schema that `to_dict` described; `content` may come from anyone.

        Parameters
        ----------
        content : dict
            As from `to_dict`, or read from JSON.

        Returns
        -------
        Schema

        Raises
        ------
        InputError
            If `content` is not of that form.
        """
        parts = _entries("schema", content, cls.__dataclass_fields__)
        for name, part in parts.items():
            require(isinstance(part, dict), f"schema {name} is {shown(part)}, expected a dict")
        scales = {
            name: Scale(**_entries(f"column {shown(name)}", entry, Scale._fields))
            for name, entry in parts["numeric"].items()
        }
        words, classes = _tuples(parts["categorical"]), _tuples(parts["classes"])
        return cls(scales, words, dict(parts["tasks"]), classes)

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dicts, lists, texts and numbers, ready for JSON.

        Returns
        -------
        dict
            `numeric`, `categorical`, `tasks` and `classes`, each by column or task.
        """
        return {
            "numeric": {name: scale._asdict() for name, scale in self.numeric.items()},
            "categorical": {name: list(words) for name, words in self.categorical.items()},
            "tasks": dict(self.tasks),
            "classes": {task: list(labels) for task, labels in self.classes.items()},
        }

    def encode(self, columns: Mapping[str, Sequence[str]], dtype: DTypeLike = np.float32,
               labels: bool = True) -> Dataset:
        """Turn columns of text into a dataset. Columns the schema does not know are left out.

        Parameters
        ----------
        columns : dict column -> Texts or list of str
            As from `read_columns`.
        dtype : floating dtype, optional
            Of the numeric features and of the binary and regression targets; category codes
            and classes are int64.
        labels : bool, optional
            False for prediction: label columns are not read and need not exist.

        Returns
        -------
        Dataset
            An empty label sets the row's mask to False and its target to 0.

        Raises
        ------
        InputError
            If a column is missing, there are no rows, or a value cannot be used.
        """
        dtype = check_floating(dtype)
        require(type(labels) is bool, f"labels: True or False is needed, got {shown(labels)}")
        features = [*self.numeric, *self.categorical]
        texts = _texts(columns, [*features, *self.tasks] if labels else features)
        x: dict[str, Values] = {
            **{name: self._standardised(texts, name, dtype) for name in self.numeric},
            **{name: self._codes(texts, name) for name in self.categorical}}
        tasks = self.tasks if labels else {}
        targets = {task: self._targets(texts, task, dtype) for task in tasks}
        masks = {task: converted(task, texts[task], bool, "a text", bool) for task in tasks}
        return Dataset(x, targets, {task: m for task, m in masks.items() if not m.all()})

    def inputs(self, embedding_width: int = 4) -> dict[str, str | tuple[int, int]]:
        """What the model builders take as `inputs=`.

        Parameters
        ----------
        embedding_width : int, optional
            Of each categorical column.

        Returns
        -------
        dict column -> "numeric" or (codes, embedding_width)
            `codes` counts the code of the unknown; numeric columns come first.

        Raises
        ------
        InputError
            If the width is not a positive integer.
        """
        positive = isinstance(embedding_width, int) and embedding_width > 0
        require(positive, f"embedding_width is {embedding_width!r}, expected a positive integer")
        tables = {name: (len(w) + 1, embedding_width) for name, w in self.categorical.items()}
        return dict.fromkeys(self.numeric, "numeric") | tables

    def _standardised(self, columns: Mapping[str, Texts], name: str, dtype: np.dtype[np.floating]
                      ) -> Array:
        scale = self.numeric[name]
        values = _numbers(name, columns[name], scale.log)
        with np.errstate(over="ignore"):  # seen by _fitting
            values = (values - scale.mean) / scale.std
        return _fitting(name, columns[name], values, dtype)

    def _codes(self, columns: Mapping[str, Texts], name: str) -> Codes:
        codes = {text: code for code, text in enumerate(self.categorical[name], 1)}
        return converted(
            name, columns[name], lambda text: codes.get(text, UNKNOWN), "a text", np.int64
        )

    def _targets(self, columns: Mapping[str, Texts], task: str, dtype: np.dtype[np.floating]
                 ) -> Values:
        """The targets of a task, 0 where the label is empty."""
        if task in self.classes:
            places = {text: place for place, text in enumerate(self.classes[task])} | {"": 0}
            expected = f"one of the classes {shown(self.classes[task])}"
            return converted(task, columns[task], places.get, expected, np.int64)
        if self.tasks[task] == "binary":
            labels, expected = BINARY | {"": 0}, "0, 1, false, true, or nothing for no label"
            return converted(
                task, columns[task], lambda text: labels.get(text.lower()), expected, dtype
            )
        values = _numbers(task, columns[task], False, empty=0.0)
        return _fitting(task, columns[task], values, dtype)


def _numbers(name: str, texts: Texts, log: bool, empty: float = math.inf) -> Float64:
    """Texts -> float64 (n,), or log(1 + v) of them; an empty text counts as `empty`."""

    def number(text: str) -> float | None:
        value = float(text) if NUMBER.fullmatch(text) else math.inf if text else empty
        if not math.isfinite(value) or (log and value <= -1):
            return None
        return math.log1p(value) if log else value

    expected = "a finite number above -1" if log else "a finite number"
    return converted(name, texts, number, expected, np.float64)


def _fitting(name: str, texts: Texts, values: Float64, dtype: np.dtype[np.floating]) -> Array:
    """`values` in `dtype`, refusing those that overflow there."""
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    for row in np.flatnonzero(~np.isfinite(cast))[:1]:
        place = f"column {name!r}, row {row + 1}: {shown(texts[row])}"
        raise InputError(f"{place} is too large, expected one that fits {np.dtype(dtype)}")
    return cast


def _scale(name: str, texts: Texts, log: bool) -> Scale:
    values = _numbers(name, texts, log)
    if values.min() == values.max():
        return Scale(float(values[0]), 1.0, log)
    with np.errstate(over="ignore", invalid="ignore"):  # refused by Schema: not finite
        return Scale(float(values.mean()), float(values.std()), log)


def _check_names(features: Sequence[str], tasks: Mapping[str, str]) -> None:
    """Refuse feature and task names that no schema may have."""
    require(features, "no feature columns, expected at least one")
    require(tasks, "no tasks, expected at least one")
    seen = set()
    for name in features:
        require(isinstance(name, str), f"column {shown(name)}, expected a text")
        require(name not in seen, f"column {shown(name)} is listed twice, expected once")
        seen.add(name)
    for task in tasks:
        usable = isinstance(task, str) and task.isprintable() and "/" not in task
        expected = "a printable name without '/', other than 'shared'"
        fits = usable and task not in ("", "shared")
        require(fits, f"task is named {shown(task)}, expected {expected}")
        require(task not in seen, f"column {task!r} is a label, expected not as a feature too")


def _texts(columns: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, Texts]:
    """These columns as `Texts`, unless some are missing, empty or of different lengths."""
    check_kind("columns", columns, dict, "a dict of column and texts")
    missing = [name for name in names if name not in columns]
    require(not missing, f"no column {', '.join(map(repr, missing[:5]))}, expected all that are "
                         "listed")
    for name in names:
        check_kind(f"column {name!r}", columns[name], (list, tuple, Texts), "a list of texts")
    rows = len(columns[names[0]])
    require(rows, "columns: no rows, expected at least one")
    for name in names:
        count = len(columns[name])
        require(count == rows, f"column {name!r} has {count} rows, expected {rows}")
    return {name: Texts.of(name, columns[name]) for name in names}


def _entries(what: str, content: Any, keys: Iterable[str]) -> dict[str, Any]:
    fits = isinstance(content, dict) and set(content) == set(keys)
    require(fits, f"{what} is {shown(content)}, expected a dict with the keys {', '.join(keys)}")
    return content


def _tuples(lists: Mapping[str, Any]) -> dict[str, Any]:
    """Each list as a tuple; what is no list is left for Schema to refuse."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in lists.items()}


def _finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _ascending(texts: Any) -> bool:
    kept = isinstance(texts, tuple) and texts and all(isinstance(text, str) for text in texts)
    return bool(kept) and all(low < high for low, high in zip(texts, texts[1:]))
