"""A candidate's own isolation matrix, from its gradients of each task alone, beside the model's."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from npple.core.base import Array, Arrays, Printed
from npple.oracle.vectors import Vectors
from npple.verify.isolation import grid, isolation
from npple.verify.measure import ISOLATED, REACHED

UNKNOWN = "not given"


@dataclass(frozen=True, repr=False)
class Separation(Printed):
    """Which task's loss reached which parameters of a candidate.

    Attributes
    ----------
    matrix : dict of dict of str
        Task -> group -> "isolated", "reached", or "not given" where a gradient of the group is
        missing.
    expected : dict of dict of str
        The same of the model on these vectors: its isolation matrix, but for tasks without rows,
        which reach nothing.
    """

    matrix: dict[str, dict[str, str]]
    expected: dict[str, dict[str, str]]

    @property
    def differing(self) -> tuple[tuple[str, str], ...]:
        """The cells, (task, group), that are otherwise than the model's."""
        return tuple(self._differing())

    def _differing(self) -> Iterator[tuple[str, str]]:
        for task, row in self.matrix.items():
            for group, found in row.items():
                if found not in (UNKNOWN, self.expected[task][group]):
                    yield task, group

    def __str__(self) -> str:
        """The candidate's matrix; where it differs, the model's word in brackets."""
        differing = set(self.differing)

        def cell(task: str, group: str) -> str:
            demanded = f" ({self.expected[task][group]})" if (task, group) in differing else ""
            return self.matrix[task][group] + demanded

        count = len(differing)
        return "\n".join([
            grid("", tuple(self.matrix), list(next(iter(self.matrix.values()))), cell),
            f"{count} {'cell differs' if count == 1 else 'cells differ'} from the model's, whose "
            "word is in brackets" if count else "no cell differs from the model's"])


def separation(vectors: Vectors, given: Arrays) -> Separation:
    """The matrix of a candidate's arrays.

    Parameters
    ----------
    vectors : npple.oracle.Vectors
    given : dict of ndarray
        By the names of docs/vectors.md; `grad[TASK]/PARAMETER` is looked at.

    Returns
    -------
    Separation
    """
    groups = isolation(vectors.model).groups

    def matrix(arrays: Arrays) -> dict[str, dict[str, str]]:
        return {task: {group: _reached([arrays.get(f"grad[{task}]/{name}") for name in names])
                       for group, names in groups.items()} for task in vectors.model.tasks}

    return Separation(matrix(given), matrix(vectors.expected))


def _reached(gradients: list[Array | None]) -> str:
    """Whether a group's gradients are all exactly 0."""
    known = [gradient for gradient in gradients if gradient is not None]
    if any(np.any(gradient) for gradient in known):
        return REACHED
    return ISOLATED if len(known) == len(gradients) else UNKNOWN
