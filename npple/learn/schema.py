"""What is learned from the training columns, so that every later file is read the same way."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npple.checks import (check_choice, check_count, check_kind, check_number, check_texts,
                          shown)
from npple.core.base import Array, Codes, Float64, Mask, Values
from npple.core.table import Embedded
from npple.errors import InputError, require
from npple.learn.columns import Texts, absent, converted
from npple.learn.dataset import Dataset, check_floating, streams

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
BINARY = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
TRUTH = {"false": 0.0, "true": 1.0}
MISSING = {"", "na", "n/a", "nan", "null", "none"}  # texts that are no number, in any case
FILLS: dict[str, Callable[[Float64], Any]] = {
    "mean": np.mean, "median": np.median, "0": lambda values: 0.0}
LARGEST = 1e150  # of a target
UNKNOWN = 0  # the code of a category that training never had
WHOLE = re.compile(r"([+-]?)0*([0-9]+)(\.0*)?")  # 3, 003 and 3.0


class Scale(NamedTuple):
    """How a numeric column is standardised: (v - mean) / std, of v or of log(1 + v).

    `fill` is what stands for a missing v, or for its logarithm; None refuses it. With `gaps` a
    column `NAME missing` of ones and zeros says where v is missing.
    """

    mean: float
    std: float
    log: bool
    fill: float | None = None
    gaps: bool = False


class Bag(NamedTuple):
    """How a text is a bag of values: its sorted vocabulary, what stands between them, the pooling.

    `pool` is "mean" or "sum", of the values' embeddings.
    """

    words: tuple[str, ...]
    separator: str = "|"
    pool: str = "mean"

    def values(self, text: str) -> list[str]:
        """The values of a text, without spaces around them; empty ones are none."""
        return [value for part in text.split(self.separator) if (value := part.strip(" "))]


class Unknown(NamedTuple):
    """What a column holds that training did not know: so many rows, or `nothing` that it knew."""

    rows: int
    of: int
    alike: tuple[str, str] | None  # an unknown text, and a known one that may mean the same
    nothing: bool

    def __str__(self) -> str:
        alike = "" if self.alike is None else (" (is {!r} the known {!r}? ids must be written as "
                                               "in training)".format(*self.alike))
        return f"{self.rows:,} of {self.of:,} unknown{alike}"


AS_IT_IS = Scale(0.0, 1.0, False)
NEW = ("targets", "form", "drawn", "bags")  # fields that a schema of version 0.1.0 may lack
POOLS = ("mean", "sum")
PADDED = 64  # times the values of a column of bags that its array of codes may have places
ANY_PADDED = 2**20  # places that any may have


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
    targets : dict task -> Scale
        How the targets of regression tasks are standardised; those of other tasks are as they are.
    form : str
        How a file of such columns is read: "csv", or as the data are published "census" and
        "kuairand".
    drawn : float
        The share of training rows in which a category counts as unknown, so that its embedding
        learns what is unknown.
    bags : dict column -> Bag
        Columns with several values in a text. Codes are as those of `categorical`.

    Raises
    ------
    InputError
        If the parts are not of this form or contradict each other.
    """

    numeric: dict[str, Scale]
    categorical: dict[str, tuple[str, ...]]
    tasks: dict[str, str]
    classes: dict[str, tuple[str, ...]]
    targets: dict[str, Scale] = field(default_factory=dict)
    form: str = "csv"
    drawn: float = 0.0
    bags: dict[str, Bag] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names([*self.numeric, *map(_gaps, self._gappy), *self.categorical, *self.bags],
                     self.tasks)
        for column, bag in self.bags.items():
            _check_bags(f"column {column!r}: ", bag.separator, bag.pool)
        check_choice("schema form", self.form, ("csv", "census", "kuairand"))
        check_number("schema drawn", self.drawn, 0, 1)
        for column, scale in (self.numeric | self.targets).items():
            expected = "a finite mean, a positive std and log true or false"
            fits = (_finite(scale.mean) and _finite(scale.std) and scale.std > 0
                    and isinstance(scale.log, bool) and isinstance(scale.gaps, bool)
                    and (scale.fill is None or _finite(scale.fill)))
            require(fits, f"column {column!r} has {shown(scale)}, expected {expected}")
        for task in self.targets:
            check_choice("schema targets", self.tasks.get(task), ("regression",))
        words = {column: bag.words for column, bag in self.bags.items()}
        for name, texts in (self.categorical | self.classes | words).items():
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
              categorical: Sequence[str], tasks: Mapping[str, str], log: Sequence[str] = (), *,
              rows: Codes | None = None, min_count: int = 1, missing: str | None = None,
              standardise: bool = True, form: str = "csv", drawn: float = 0.0,
              bags: Sequence[str] = (), separator: str = "|", pool: str = "mean") -> Schema:
        """Learn the scales, vocabularies, fills and classes of the training rows.

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
        rows : array of int, optional
            The training rows: nothing is learned from the others, except which classes a label
            has. By default all.
        min_count : int, optional
            A category that comes more seldom counts as unknown.
        missing : "mean", "median" or "0", optional
            What stands for a missing number; by default one is refused.
        standardise : bool, optional
            False leaves the targets of regression as they are.
        form, drawn : str, float
            As attributes.
        bags : sequence of str, optional
            The feature columns with several values in a text.
        separator, pool : str, optional
            What stands between these values; whether their embeddings' "mean" or "sum" counts.

        Returns
        -------
        Schema

        Raises
        ------
        InputError
            If a column is unknown, listed twice or both feature and label; if there are no
            rows, features or tasks; if a value cannot be used; or if a task has no label.
        """
        numeric, categorical, log, bags = (check_texts(name, names) for name, names in (
            ("numeric", numeric), ("categorical", categorical), ("log", log), ("bags", bags)))
        _check_bags("", separator, pool)
        check_kind("tasks", tasks, dict, "a dict of column and kind")
        check_count("min_count", min_count)
        if missing is not None:
            check_choice("missing", missing, FILLS)
        _check_names([*numeric, *categorical, *bags], tasks)
        for column in log:
            require(column in numeric, f"log of {shown(column)}, expected a numeric column")
        texts = _texts(columns, [*numeric, *categorical, *bags, *tasks])
        rows = np.arange(len(texts[next(iter(tasks))])) if rows is None else rows
        scales = {name: _scale(name, texts[name], name in log, rows, missing) for name in numeric}
        words = {name: _vocabulary(name, _counts(texts[name], rows), min_count)
                 for name in categorical}
        several = {name: Bag(_vocabulary(name, _value_counts(Bag((), separator), texts[name], rows),
                                         min_count), separator, pool) for name in bags}
        kinds, classes = _kinds(texts, tasks)
        targets = {task: _target_scale(task, texts[task], rows)
                   for task, kind in kinds.items() if kind == "regression" and standardise}
        schema = cls(scales, words, kinds, classes, targets, form, drawn, several)
        for task in tasks:
            schema._targets(texts, task, np.dtype(np.float64))  # so that a bad label is refused now
        return schema

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        """The schema that `to_dict` described; `content` may come from anyone.

        Parameters
        ----------
        content : dict
            As from `to_dict`, or read from JSON; the `schema` of a run too. Version 0.1.0 knew no
            `targets`, `drawn`, `bags`, `fill` and `gaps`.

        Returns
        -------
        Schema

        Raises
        ------
        InputError
            If `content` is not of that form.
        """
        parts = _entries("schema", content, cls.__dataclass_fields__, NEW)
        for name in [name for name in parts if name not in ("form", "drawn")]:
            require(isinstance(parts[name], dict),
                    f"schema {name} is {shown(parts[name])}, expected a dict")
        scales, targets = ({
            name: Scale(**_entries(f"column {shown(name)}", entry, Scale._fields, ("fill", "gaps")))
            for name, entry in parts.get(group, {}).items()} for group in ("numeric", "targets"))
        words, classes = _tuples(parts["categorical"]), _tuples(parts["classes"])
        bags = {name: Bag(**_tuples(_entries(f"column {shown(name)}", entry, Bag._fields)))
                for name, entry in parts.get("bags", {}).items()}
        return cls(scales, words, dict(parts["tasks"]), classes, targets,
                   parts.get("form", "csv"), parts.get("drawn", 0.0), bags)

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dicts, lists, texts and numbers, ready for JSON.

        Returns
        -------
        dict
            `numeric`, `categorical`, `tasks`, `classes`, `targets` and `bags`, each by column or
            task; `form` and `drawn`.
        """
        return {
            "numeric": {name: scale._asdict() for name, scale in self.numeric.items()},
            "categorical": {name: list(words) for name, words in self.categorical.items()},
            "tasks": dict(self.tasks),
            "classes": {task: list(labels) for task, labels in self.classes.items()},
            "targets": {task: scale._asdict() for task, scale in self.targets.items()},
            "form": self.form, "drawn": self.drawn,
            "bags": {name: bag._asdict() | {"words": list(bag.words)}
                     for name, bag in self.bags.items()},
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
            and classes are int64. Bags are (n, longest), with -1 behind their codes.
        labels : bool, optional
            False for prediction: label columns are not read and need not exist.

        Returns
        -------
        Dataset
            An empty label sets the row's mask to False and its target to 0. Targets of regression
            are standardised; `own_units` leads back.

        Raises
        ------
        InputError
            If a column is missing, there are no rows, or a value cannot be used.
        """
        dtype = check_floating(dtype)
        require(type(labels) is bool, f"labels: True or False is needed, got {shown(labels)}")
        features = [*self.numeric, *self.categorical, *self.bags]
        texts = _texts(columns, [*features, *self.tasks] if labels else features)
        x: dict[str, Values] = {
            **{name: self._standardised(texts, name, dtype) for name in self.numeric},
            **{_gaps(name): converted(name, texts[name], _is_missing, "a text", dtype)
               for name in self._gappy},
            **{name: self._codes(texts, name) for name in self.categorical},
            **{name: self._bags_of_codes(texts, name) for name in self.bags}}
        return Dataset(x, *self._labels(texts, dtype) if labels else ({}, {}))

    def labels(self, columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, Values],
                                                                    dict[str, Mask]]:
        """The targets in the units of their columns, and the masks.

        Parameters
        ----------
        columns : dict column -> Texts or list of str
            As for `encode`; only label columns are read.

        Returns
        -------
        targets : dict task -> (n,) array
            Real ones in float64; 0 where there is no label.
        masks : dict task -> (n,) bool array
            Of the tasks that lack a label somewhere.

        Raises
        ------
        InputError
            As `encode`.
        """
        return replace(self, targets={})._labels(_texts(columns, [*self.tasks]),
                                                 np.dtype(np.float64))

    def _labels(self, texts: Mapping[str, Texts], dtype: np.dtype[np.floating]
                ) -> tuple[dict[str, Values], dict[str, Mask]]:
        targets = {task: self._targets(texts, task, dtype) for task in self.tasks}
        masks = {task: converted(task, texts[task], bool, "a text", bool) for task in self.tasks}
        return targets, {task: mask for task, mask in masks.items() if not mask.all()}

    def own_units(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Predictions as the tasks' columns have them: those of regression no longer standardised.

        Parameters
        ----------
        values : dict task -> (n,) or (n, K) array

        Returns
        -------
        dict of ndarray
            In float64 where a target is standardised.
        """
        return {task: value if task not in self.targets else
                value.astype(np.float64) * self.targets[task].std + self.targets[task].mean
                for task, value in values.items()}

    def unknown(self, columns: Mapping[str, Sequence[str]]) -> dict[str, Unknown]:
        """How many rows of each categorical column training did not know.

        Parameters
        ----------
        columns : dict column -> Texts or list of str
            As for `encode`.

        Returns
        -------
        dict column -> Unknown
            Of the columns with such rows.

        Raises
        ------
        InputError
            If a column is missing, or there are no rows.
        """
        found = {}
        for name, texts in _texts(columns, [*self.categorical, *self.bags]).items():
            bag = self.bags.get(name)
            words, places = texts.distinct
            values = [bag.values(word) if bag else [word] for word in words]
            vocabulary = {*(bag.words if bag else self.categorical[name])}
            strange = np.array([not vocabulary.issuperset(own) for own in values])[places]
            if strange.any():
                known = {_whole(word): word for word in vocabulary} | {None: ""}
                every = {value for own in values for value in own}
                alike = next(((word, known[_whole(word)]) for word in sorted(every - vocabulary)
                              if known.get(_whole(word))), None)
                found[name] = Unknown(int(strange.sum()), len(strange), alike,
                                      vocabulary.isdisjoint(every))
        return found

    def with_unknown(self, data: Dataset, seed: int) -> Dataset:
        """Training rows in which a few categories count as unknown: `drawn` of each column.

        Parameters
        ----------
        data : Dataset
            As from `encode`.
        seed : int

        Returns
        -------
        Dataset

        Raises
        ------
        InputError
            If `data` is no Dataset, or the seed cannot be used.
        """
        check_kind("data", data, Dataset, "a Dataset")
        if not self.drawn or not isinstance(data.x, dict):
            return data
        x, count = dict(data.x), math.ceil(self.drawn * len(data))
        names = [*self.categorical, *self.bags]
        for name, random in zip(names, streams(seed, len(names))):
            x[name] = x[name].copy()
            codes = x[name] if name in self.categorical else x[name][:, 0]  # of a bag, one value
            rows = random.permutation(len(data))[:count]
            codes[rows] = np.where(codes[rows] < 0, codes[rows], UNKNOWN)
        return Dataset(x, data.targets, data.masks)

    def inputs(self, embedding_width: int = 4) -> dict[str, str | Embedded]:
        """What the model builders take as `inputs=`.

        Parameters
        ----------
        embedding_width : int, optional
            Of each categorical column and each column of bags.

        Returns
        -------
        dict column -> "numeric", (codes, embedding_width) or (codes, embedding_width, pool)
            `codes` counts the code of the unknown; numeric columns come first, then those that
            say where one is missing, categorical ones, and bags.

        Raises
        ------
        InputError
            If the width is not a positive integer.
        """
        positive = isinstance(embedding_width, int) and embedding_width > 0
        require(positive, f"embedding_width is {embedding_width!r}, expected a positive integer")
        numbers = [*self.numeric, *map(_gaps, self._gappy)]
        return {**dict.fromkeys(numbers, "numeric"),
                **{name: (len(w) + 1, embedding_width) for name, w in self.categorical.items()},
                **{name: (len(bag.words) + 1, embedding_width, bag.pool)
                   for name, bag in self.bags.items()}}

    @property
    def _gappy(self) -> list[str]:
        return [name for name, scale in self.numeric.items() if scale.gaps]

    def _standardised(self, columns: Mapping[str, Texts], name: str, dtype: np.dtype[np.floating]
                      ) -> Array:
        scale = self.numeric[name]
        values = _numbers(name, columns[name], scale.log, gaps=scale.fill is not None)
        if scale.fill is not None:
            values = np.where(np.isnan(values), scale.fill, values)
        return _fitting(name, columns[name], scale, values, dtype)

    def _codes(self, columns: Mapping[str, Texts], name: str) -> Codes:
        codes = {text: code for code, text in enumerate(self.categorical[name], 1)}
        return converted(
            name, columns[name], lambda text: codes.get(text, UNKNOWN), "a text", np.int64
        )

    def _bags_of_codes(self, columns: Mapping[str, Texts], name: str) -> Codes:
        """The codes of each row's values, -1 behind them: (n, longest)."""
        bag, (words, places) = self.bags[name], columns[name].distinct
        codes = {value: code for code, value in enumerate(bag.words, 1)}
        rows = [[codes.get(value, UNKNOWN) for value in bag.values(word)] for word in words]
        counts = np.array([len(row) for row in rows])
        longest, total = max(1, int(counts.max())), int(counts[places].sum())
        require(longest * len(places) <= max(PADDED * total, ANY_PADDED),
                f"column {name!r}, row {int(np.argmax(counts[places])) + 1}: {longest} values, "
                f"where rows have {total / len(places):.2g} on average: cut the longest short")
        table = np.full((len(rows), longest), -1)
        for own, row in zip(table, rows):
            own[:len(row)] = row
        return table[places]

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
        values = _numbers(task, columns[task], False, labels=True)
        scaled = _fitting(task, columns[task], self.targets.get(task, AS_IT_IS),
                          np.nan_to_num(values), dtype)
        return np.where(np.isnan(values), np.zeros((), dtype), scaled)


def known_enough(schema: Schema, columns: Mapping[str, Sequence[str]], accept: bool = False
                 ) -> list[str]:
    """A line for each column with unknown values; `InputError` if all of one are, unless accepted.

    Parameters
    ----------
    schema : Schema
    columns : dict column -> Texts or list of str
    accept : bool, optional
        Whether a column may be unknown in every row.

    Returns
    -------
    list of str
    """
    found = schema.unknown(columns)
    for name, unknown in found.items():
        require(accept or not unknown.nothing,
                f"column {shown(name)}: {unknown}: nothing that training knew; --allow-unknown "
                "(accept_unknown= in Python) predicts all the same")
    return [f"column {shown(name)}: {unknown}" for name, unknown in found.items()]


def _numbers(name: str, texts: Texts, log: bool, gaps: bool = False, labels: bool = False
             ) -> Float64:
    """Texts -> float64 (n,), or log(1 + v) of them; NaN where missing, if there may be `gaps`.

    Of `labels`, the empty text may be missing.
    """

    def number(text: str) -> float | None:
        if (gaps and _is_missing(text)) or (labels and not text):
            return math.nan
        value = float(text) if NUMBER.fullmatch(text) else TRUTH.get(text.lower(), math.inf)
        if not math.isfinite(value) or (log and value <= -1):
            return None
        return math.log1p(value) if log else value

    expected = "a finite number above -1" if log else "a finite number"
    try:
        return converted(name, texts, number, expected, np.float64)
    except InputError as error:
        hints = {_is_missing: "; missing numbers are filled with --missing mean, median or 0 "
                              "(missing= in Python)",
                 _has_comma: "; a decimal comma? then write points"}
        bad = next(text for text in texts if number(text) is None)
        hint = next((hints[of] for of in hints if not labels and of(bad)), "")
        raise InputError(f"{error}{hint}") from None


def _is_missing(text: str) -> bool:
    return text.lower() in MISSING


def _has_comma(text: str) -> bool:
    return "," in text and NUMBER.fullmatch(text.replace(",", ".")) is not None


def _gaps(name: str) -> str:
    """The name of the feature that says where a column has no number."""
    return f"{name} missing"


def _whole(text: str) -> str | None:
    """What `3`, `3.0` and `003` have in common; None for other texts."""
    match = WHOLE.fullmatch(text)
    return match and match[1].strip("+") + match[2]


def _fitting(name: str, texts: Texts, scale: Scale, values: Float64,
             dtype: np.dtype[np.floating]) -> Array:
    """`values` standardised, in `dtype`, refusing those that overflow there."""
    with np.errstate(over="ignore"):
        cast = ((values - scale.mean) / scale.std).astype(dtype)
    for row in np.flatnonzero(~np.isfinite(cast))[:1]:
        place = f"column {name!r}, row {row + 1}: {shown(texts[int(row)])}"
        raise InputError(f"{place} is too large, expected one that fits {np.dtype(dtype)}")
    return cast


def _scale(name: str, texts: Texts, log: bool, rows: Codes, missing: str | None) -> Scale:
    """The scale of the training rows; all rows are read, so that each is checked."""
    values = _numbers(name, texts, log, gaps=missing is not None)[rows]
    there = values[~np.isnan(values)]
    require(there.size, f"column {name!r}: no number in the training rows, expected some")
    mean, std = _moments(there)
    fill = None if missing is None else float(FILLS[missing](there))
    return Scale(mean, std, log, fill, there.size < values.size)


def _target_scale(task: str, texts: Texts, rows: Codes) -> Scale:
    values = _numbers(task, texts, False, labels=True)[rows]
    there = values[~np.isnan(values)]
    if not there.size:
        return AS_IT_IS
    mean, std = _moments(there)
    require(math.hypot(mean, std) < LARGEST,
            f"column {task!r}: numbers about {mean:.3g} ± {std:.3g}, expected ones below "
            f"{LARGEST:g}, whose squares are still numbers")
    return Scale(mean, std, False)


def _moments(values: Float64) -> tuple[float, float]:
    """Mean and standard deviation, 1 where all values are equal."""
    if values.min() == values.max():
        return float(values[0]), 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # refused by Schema: not finite
        return float(values.mean()), float(values.std())


def _counts(texts: Texts, rows: Codes) -> dict[str, int]:
    """How often each text comes in some rows."""
    numbers, counts = np.unique(texts.numbers[rows], return_counts=True)
    return {texts.words[number]: int(count) for number, count in zip(numbers, counts)}


def _value_counts(bag: Bag, texts: Texts, rows: Codes) -> dict[str, int]:
    """How often each value comes in the bags of some rows."""
    counts: Counter[str] = Counter()
    for text, count in _counts(texts, rows).items():
        for value in bag.values(text):
            counts[value] += count
    return counts


def _vocabulary(name: str, counts: Mapping[str, int], min_count: int) -> tuple[str, ...]:
    """The sorted texts that come at least `min_count` times in the training rows."""
    known = sorted(text for text, count in counts.items() if count >= min_count)
    require(known, f"column {name!r}: no value comes {min_count} times in the training rows, "
                   "expected some that do: leave the column out, or lower --min-count")
    return tuple(known)


def _kinds(texts: Mapping[str, Texts], tasks: Mapping[str, str]
           ) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The tasks with their numbers of classes, and these classes."""
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
    return kinds, classes


def _check_bags(where: str, separator: object, pool: object) -> None:
    """Refuse what cannot stand between the values of a bag, or join them."""
    fits = isinstance(separator, str) and separator and separator.strip() == separator
    require(fits or separator == " ", f"{where}bag separator {shown(separator)}, expected "
                                      "characters such as '|'")
    check_choice(f"{where}bag pool", pool, POOLS)


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
    absent(columns, names)
    for name in names:
        check_kind(f"column {name!r}", columns[name], (list, tuple, Texts), "a list of texts")
    rows = len(columns[names[0]]) if names else 1
    require(rows, "columns: no rows, expected at least one")
    for name in names:
        count = len(columns[name])
        require(count == rows, f"column {name!r} has {count} rows, expected {rows}")
    return {name: Texts.of(name, columns[name]) for name in names}


def _entries(what: str, content: Any, keys: Iterable[str], optional: Sequence[str] = ()
             ) -> dict[str, Any]:
    fits = isinstance(content, dict) and {*keys} - {*optional} <= {*content} <= {*keys}
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
