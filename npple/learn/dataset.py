"""Rows ready for a model: features, one target per task, and who has a label at all."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npple.checks import check_kind, check_number, is_whole, shown
from npple.core.base import Codes, Features, Mask, Values, brief
from npple.errors import require

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


def check_floating(dtype: DTypeLike) -> np.dtype[np.floating]:
    """`dtype` as a dtype, if it is one of real floats of this machine's byte order."""
    try:
        found: np.dtype[Any] = np.dtype(object if dtype is None else dtype)
    except Exception:  # NumPy parses texts as Python does
        found = np.dtype(object)
    fits = found.kind == "f" and found.isnative
    require(fits, f"dtype is {shown(dtype)}, expected a floating one")
    return found


def streams(seed: int, count: int) -> list[np.random.Generator]:
    """`count` independent generators of random numbers, the same for the same seed.

    Raises
    ------
    InputError
        If `seed` is not an integer of at least 0.
    """
    require(is_whole(seed) and seed >= 0,
            f"seed is {shown(seed)}, expected an integer of at least 0")
    return np.random.default_rng(seed).spawn(count)


def split_rows(rows: int, fraction: float, seed: int, time: Values | None = None,
               groups: Values | None = None) -> tuple[Codes, Codes]:
    """The numbers of the rows of two parts: by chance, by time, or whole groups by chance.

    Parameters
    ----------
    rows : int
    fraction : float
        The share of the rows that go to the first part, between 0 and 1.
    seed : int
        The same seed gives the same parts.
    time : (rows,) array, optional
        Every row of the first part is earlier than every other row.
    groups : (rows,) array, optional
        Rows with the same value go to the same part.

    Returns
    -------
    first, rest : arrays of int

    Raises
    ------
    InputError
        If the fraction or the seed cannot be used, or a part would be empty.
    """
    require(0 < check_number("fraction", fraction, 0, 1) < 1,
            f"fraction: {fraction}, expected a number between 0 and 1")
    count = round(fraction * rows)
    (random,) = streams(seed, 1)
    if time is not None and rows:
        early = time < np.sort(time)[min(count, rows - 1)]
        first, rest = np.flatnonzero(early), np.flatnonzero(~early)
    elif groups is not None:
        _, places = np.unique(groups, return_inverse=True)
        place = random.permutation(places.max(initial=-1) + 1)[places]  # (rows,) group's turn
        order = np.argsort(place, kind="stable")
        early = place[order] < place[order][min(count, rows - 1)]
        first, rest = order[early], order[~early]
    else:
        order = random.permutation(rows)
        first, rest = order[:count], order[count:]
    require(len(first) and len(rest),
            f"fraction: {fraction} of {rows} rows leaves one of the parts empty")
    return first, rest


@dataclass(frozen=True)
class Dataset:
    """Features, targets and masks of n rows.

    Parameters
    ----------
    x : (n, width) array, or dict column -> (n,) array
        The features: floats where numeric, integer codes where categorical.
    targets : dict task -> (n,) array
        The labels; empty when there are none, as for prediction.
    masks : dict task -> (n,) bool array
        True where a row belongs to the task's sample space. A task without a mask has them all.

    Raises
    ------
    InputError
        If there is no feature, the arrays differ in their rows, or a mask is not boolean or
        has no task.
    """

    x: Features
    targets: dict[str, Values]
    masks: dict[str, Mask]

    def __post_init__(self) -> None:
        require(self._groups["x"], "x: the dataset has no features, expected at least one column")
        for group, arrays in self._groups.items():
            check_kind(group, arrays, dict, "a dict of arrays")
            for name, values in arrays.items():
                rows = isinstance(values, np.ndarray) and values.ndim
                if not rows or len(values) != len(self):
                    what = "x" if values is self.x else f"{group}: {shown(name)}"
                    require(rows, f"{what}: an array of rows is needed, got {shown(values)}")
                    require(False, f"{what}: {len(values)} rows, expected {len(self)}")
        for task, mask in self.masks.items():
            require(task in self.targets, f"masks: {shown(task)}, expected one of the targets: "
                                          f"{shown(list(self.targets))}")
            require(mask.dtype == bool, f"masks: {shown(task)}: {mask.dtype}, expected bool")

    @property
    def _groups(self) -> dict[str, Any]:
        features = self.x if isinstance(self.x, dict) else {"x": self.x}
        return {"x": features, "targets": self.targets, "masks": self.masks}

    def __repr__(self) -> str:
        lines = [f"{group:8} {name:24} {array.dtype.name:12} {array.shape}"
                 for group, arrays in self._groups.items() for name, array in arrays.items()]
        return brief("\n".join([f"Dataset of {len(self):,} rows", *lines]))

    def __len__(self) -> int:
        return len(next(iter(self.x.values())) if isinstance(self.x, dict) else self.x)

    def take(self, rows: slice | Codes | Mask) -> Dataset:
        """The dataset of these rows only.

        Parameters
        ----------
        rows : slice, or (m,) array of row indices or of booleans
            A slice gives views of the arrays, an array gives copies.

        Returns
        -------
        Dataset

        Raises
        ------
        InputError
            If `rows` is neither.
        """
        if not isinstance(rows, slice):
            rows = _indices(rows, len(self))
        x = self.x[rows] if isinstance(self.x, np.ndarray) else _taken(self.x, rows)
        taken = copy(self)  # rows of what was checked are not checked again
        vars(taken).update(x=x, targets=_taken(self.targets, rows), masks=_taken(self.masks, rows))
        return taken

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two random parts without a common row.

        Parameters
        ----------
        fraction : float
            The share of the rows that go to the first part, between 0 and 1.
        seed : int
            The same seed gives the same parts.

        Returns
        -------
        train, rest : Dataset

        Raises
        ------
        InputError
            If the fraction or the seed cannot be used, or a part would be empty.
        """
        first, rest = split_rows(len(self), fraction, seed)
        return self.take(first), self.take(rest)


def _indices(rows: object, count: int) -> Codes | Mask:
    """What selects rows, as an array that does select some of `count` rows."""
    try:
        indices = np.asarray(rows)
    except Exception:
        indices = np.asarray(None)
    fits = indices.ndim == 1 and indices.dtype.kind in "iub"
    if fits and indices.dtype == bool:
        fits = len(indices) == count
    elif fits and indices.size:
        fits = -count <= indices.min() and indices.max() < count
    require(fits, f"rows: {shown(rows)}, expected a slice, indices of {count} rows, or as many "
                  "booleans")
    return indices


def _taken(arrays: Mapping[str, Any], rows: slice | Codes | Mask) -> dict[str, Any]:
    return {name: values[rows] for name, values in arrays.items()}
