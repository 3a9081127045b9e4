"""A model is a routing table: the rows, who reads whom, and the shapes that follow; no arrays.

Levels only group the rows for the reader: the network runs the rows from first to last, and
backward from last to first. Which parameters a task's loss can reach follows from the table alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np

from npple.core.base import Array, Printed, Shapes, require
from npple.core.rows import Experts, Fusion, Row, Tower, check_count

Embedded = tuple[int, int] | tuple[int, int, str]  # vocabulary size, width, for bags "mean", "sum"
Column = tuple[str, str | Embedded]  # a name, "numeric" or what is embedded


@dataclass(frozen=True)
class Level:
    """The expert groups of one extraction level and the fusions that read them.

    Parameters
    ----------
    groups : tuple of Experts
        They run first, in this order.
    fusions : tuple of Fusion
        They run after the groups, in this order.
    """

    groups: tuple[Experts, ...]
    fusions: tuple[Fusion, ...]


@dataclass(frozen=True, repr=False)
class Table(Printed):
    """A whole model: its input, its levels, one tower per task. `npple.Network` runs it.

    Parameters
    ----------
    inputs : int or tuple of tuple
        The width of a plain matrix, or the columns of a mapping: pairs of a name and "numeric",
        (vocabulary size, embedding width) or, for a bag of values, (size, width, "mean" or "sum").
    levels : tuple of Level
        From the first to the last, at least one.
    towers : tuple of Tower
        One a task, at least one.

    Raises
    ------
    InputError
        Where a row reads what no earlier row makes, or a count, width, name or kind is unusable.
    """

    inputs: int | tuple[Column, ...]
    levels: tuple[Level, ...]
    towers: tuple[Tower, ...]

    def __post_init__(self) -> None:
        require(self.levels, "levels: at least one is needed, got none")
        require(self.towers, "tasks: at least one is needed, got none")
        check_inputs(self.inputs)
        self.widths["input"] = self.inputs if isinstance(self.inputs, int) else sum(
            1 if isinstance(kind, str) else kind[1] for _, kind in self.inputs)
        for row in self.rows:
            require(row.name not in self.widths, f"{row.name}: two rows have this name")
            for name in row.inputs():
                require(name in self.widths, f"{row.name}: reads {name!r}, made by no earlier row")
            row.validate(self)
            self.widths[row.name] = row.width(self)
        _ = self.shapes  # refuses borrowed parameters of two shapes

    def __str__(self) -> str:
        """The rows, a line each."""
        return "\n".join(f"{row.name:36} {type(row).__name__:8} reads {', '.join(row.inputs())}"
                         for row in self.rows)

    @cached_property
    def widths(self) -> dict[str, int]:
        """The width of each tensor that a row reads or makes; filled while the table is checked."""
        return {}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order in which they run."""
        levels = [row for level in self.levels for row in (*level.groups, *level.fusions)]
        return (*levels, *self.towers)

    @cached_property
    def row(self) -> dict[str, Row]:
        """The rows by name."""
        return {row.name: row for row in self.rows}

    @property
    def tasks(self) -> dict[str, str]:
        """Task name -> kind, in the order of the towers."""
        return {tower.task: tower.kind for tower in self.towers}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the input, none for a plain matrix."""
        return () if isinstance(self.inputs, int) else self.inputs

    @cached_property
    def embeddings(self) -> dict[str, tuple[int, int]]:
        """Embedded column -> (vocabulary size, embedding width)."""
        return {name: kind[:2] for name, kind in self.columns if not isinstance(kind, str)}

    @cached_property
    def shapes(self) -> Shapes:
        """Name -> shape of every parameter: embeddings first, then in the order of the rows."""
        shapes: Shapes = {f"embedding/{name}": shape for name, shape in self.embeddings.items()}
        for row in self.rows:
            for name, shape in row.shapes(self).items():
                require(shapes.setdefault(name, shape) == shape,
                        f"{row.name}: borrows {name} of shape {shapes[name]}, needs {shape}")
        return shapes

    def reached(self, task: str) -> dict[str, str | None]:
        """What the loss of `task` reaches: tensor -> the tensor it came through, tower first.

        Breadth first, from the task's tower to what it reads, to what that reads, and so on down
        to "input": each tensor is reached on a shortest path.

        Parameters
        ----------
        task : str
            A task of the table.

        Returns
        -------
        dict of str
            Name -> the name of the tensor above it, None for the tower.
        """
        queue = [f"tower/{task}"]
        came_from: dict[str, str | None] = {f"tower/{task}": None}
        for reader in queue:
            for name in self.row[reader].inputs() if reader in self.row else ():
                if name not in came_from:
                    came_from[name] = reader
                    queue.append(name)
        return came_from

    def reached_parameters(self, tasks: Iterable[str]) -> list[str]:
        """The parameters that the losses of `tasks` together can reach.

        Parameters
        ----------
        tasks : iterable of str
            Tasks of the table.

        Returns
        -------
        list of str
            Their names, in the order of `shapes`.
        """
        reached = {name for task in tasks for name in self.reached(task)}
        names = {name for row in self.rows if row.name in reached for name in row.shapes(self)}
        if "input" in reached:
            names |= {f"embedding/{column}" for column in self.embeddings}
        return [name for name in self.shapes if name in names]

    def initial(self, seed: int) -> dict[str, Array]:
        """Fresh parameters in float64, each drawn by itself from the seed and its name.

        So a parameter that two architectures share by name starts equal in both.

        Parameters
        ----------
        seed : int
            At least 0.

        Returns
        -------
        dict of ndarray
            By name, in the order of `shapes`: embeddings uniform in ±0.1, the others as their row
            says.
        """
        owners = {name: row for row in reversed(self.rows) for name in row.shapes(self)}
        params = {}
        for name, shape in self.shapes.items():
            rng = np.random.default_rng([seed, crc32(name.encode())])
            params[name] = (owners[name].initial(name, shape, rng) if name in owners
                            else rng.uniform(-0.1, 0.1, shape))
        return params


def check_inputs(inputs: int | tuple[Column, ...]) -> None:
    """Raise `InputError` unless a matrix can be so wide, or columns be so."""
    if not isinstance(inputs, tuple):
        require(type(inputs) is int and inputs > 0,
                f"inputs: a positive integer or a dict of columns is needed, got {inputs!r}")
        return
    require(inputs, "inputs: at least one column is needed, got none")
    seen: set[str] = set()
    for name, kind in inputs:
        require(isinstance(name, str) and name and name.isprintable(),
                f"inputs: a column name is a non-empty printable text, got {name!r}")
        require(name not in seen, f"inputs: the column {name!r} stands there twice")
        seen.add(name)
        require(isinstance(kind, tuple) and (len(kind) == 2 or [*map(type, kind[2:])] == [str]
                and kind[2] in ("mean", "sum")) or isinstance(kind, str) and kind == "numeric",
                f"inputs: {name!r} must be 'numeric', (vocabulary size, width) or, for a bag, "
                f"(vocabulary size, width, 'mean' or 'sum'), got {kind!r}")
        if not isinstance(kind, str):
            check_count(f"inputs: {name!r}: vocabulary size", kind[0])
            check_count(f"inputs: {name!r}: embedding width", kind[1])
