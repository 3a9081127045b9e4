"""Rows ready for a model: features, one target per task, and who has a label at all."""

from dataclasses import dataclass

import numpy as np

from npple.errors import require


def streams(seed, count):
    """`count` independent generators of random numbers, the same for the same seed.

    Raises
    ------
    InputError
        If `seed` is not an integer of at least 0.
    """
    known = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0
    require(known, f"seed is {seed!r}, expected an integer of at least 0")
    return np.random.default_rng(seed).spawn(count)


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

    x: np.ndarray | dict
    targets: dict
    masks: dict

    def __post_init__(self):
        features = self.x if isinstance(self.x, dict) else {"x": self.x}
        require(features, "the dataset has no features, expected at least one column")
        for group in (features, self.targets, self.masks):
            for name, values in group.items():
                rows = np.shape(values)[:1]
                require(rows == (len(self),), f"{name!r} has {rows} rows, expected {len(self)}")
        for task, mask in self.masks.items():
            require(task in self.targets, f"mask of {task!r}, expected one of {list(self.targets)}")
            require(mask.dtype == bool, f"mask of {task!r} is {mask.dtype}, expected bool")

    def __len__(self):
        return len(next(iter(self.x.values())) if isinstance(self.x, dict) else self.x)

    def take(self, rows):
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
            rows = np.asarray(rows)
            fits = rows.ndim == 1 and rows.dtype.kind in "iub"
            found = f"{rows.dtype} of shape {rows.shape}"
            require(fits, f"rows to take are {found}, expected a slice or a 1-D index array")
        x = _taken(self.x, rows) if isinstance(self.x, dict) else self.x[rows]
        return Dataset(x, _taken(self.targets, rows), _taken(self.masks, rows))

    def split(self, fraction, seed):
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
        require(0 < fraction < 1, f"fraction is {fraction!r}, expected a number between 0 and 1")
        count = round(fraction * len(self))
        enough = 0 < count < len(self)
        require(enough, f"fraction {fraction} of {len(self)} rows leaves one of the parts empty")
        (random,) = streams(seed, 1)
        order = random.permutation(len(self))
        return self.take(order[:count]), self.take(order[count:])


def _taken(arrays, rows):
    return {name: values[rows] for name, values in arrays.items()}
