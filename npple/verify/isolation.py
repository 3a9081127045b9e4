"""Who may disturb whom: which task's loss reaches which parameters, by the table and by numbers.

    isolation(model)                the matrix task x parameter group, from the routing table alone
        .explain(task, group)       the path on which the loss gets there
        .verify()                   the matrix measured in four ways that share nothing
        .compare(other)             ... held against another table, or a matrix from elsewhere
        .compare_gradients(...)     ... held against per-task gradients of any implementation

A parameter group is what one row of the table owns: the experts of a group, a gate, a tower. All
embeddings are one group, `embedding`: every row starts from all of them. A group whose parameters
another borrows is one group, reached through either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from npple.checks import check_array, check_choice, check_count, check_dicts, check_kind, shown
from npple.core.base import Array, Arrays, Columns, Masks, Printed
from npple.errors import require
from npple.network import Network
from npple.printing import aligned
from npple.routing import Experts, Fusion, Tower
from npple.verify import measure
from npple.verify.cases import Case
from npple.verify.measure import ISOLATED, REACHED, Cell


def isolation(model: Network) -> Isolation:
    """Which task's loss can reach which parameters, from the routing table alone.

    Parameters
    ----------
    model : npple.network.Network

    Returns
    -------
    Isolation
        Prints as a table.

    Raises
    ------
    InputError
        For what is no Network.
    """
    return Isolation(model)


@dataclass(frozen=True)
class Mismatch:
    """A cell of the matrix that was found otherwise than this architecture demands, and why.

    Attributes
    ----------
    task, group : str
        The cell.
    expected, found : str
        "isolated" or "reached".
    evidence : str
        In words: a path, or what was measured.
    """

    task: str
    group: str
    expected: str
    found: str
    evidence: str

    def __str__(self) -> str:
        return (f"{self.task} x {self.group}: expected {self.expected}, found {self.found}: "
                f"{self.evidence}")


@dataclass(frozen=True, repr=False)
class MatrixComparison(Printed):
    """The outcome of holding the matrix against another: the cells that deviate, in order.

    Attributes
    ----------
    deviations : tuple of Mismatch
        Empty where all agree.
    """

    deviations: tuple[Mismatch, ...]

    @property
    def passed(self) -> bool:
        """Whether every cell agreed."""
        return not self.deviations

    def __str__(self) -> str:
        return "\n".join(map(str, self.deviations)) or "every cell agrees"


@dataclass(frozen=True, repr=False)
class Isolation(Printed):
    """The isolation matrix of a model (PLE paper, sections 4.1 and 4.2); `isolation` makes it.

    Attributes
    ----------
    model : npple.network.Network

    Raises
    ------
    InputError
        For what is no Network.
    """

    model: Network

    def __post_init__(self) -> None:
        check_kind("model", self.model, Network, "a Network")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(self.model.tasks)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> the names of its parameters; embeddings first, then in the order of rows."""
        table = self.model.table
        columns = [f"embedding/{column}" for column in table.embeddings]
        groups = {"embedding": dict.fromkeys(columns)} if columns else {}
        for row in table.rows:
            if row.shapes(table):
                groups.setdefault(row.parameters, {}).update(row.shapes(table))
        return {group: tuple(names) for group, names in groups.items()}

    @cached_property
    def matrix(self) -> dict[str, dict[str, str]]:
        """Task -> group -> "isolated" or "reached"."""
        return {task: {group: REACHED if self._path(task, group) else ISOLATED
                       for group in self.groups} for task in self.tasks}

    def explain(self, task: str, group: str) -> str:
        """The path from the task's tower down to the group, or that there is none.

        The gate that feeds a task's tower counts with the tower, unless it is the group asked for.

        Parameters
        ----------
        task : str
        group : str
            A key of `groups`.

        Returns
        -------
        str
            Such as "marital tower <- level 2 shared experts <- level 1 shared gate <- level 1
            income experts".

        Raises
        ------
        InputError
            For a task or group that the model does not have.
        """
        check_choice("task", task, self.tasks)
        check_choice("group", group, self.groups)
        path = self._path(task, group)
        if not path:
            return f"isolated: nothing that the {task} tower reads comes from {group}"
        labels = [self._label(*step) for step in zip(path, [None, *path])]
        if len(path) > 2 and path[1].endswith(f"/{task}"):
            del labels[1]
        return " <- ".join(labels)

    def verify(self, params: Arrays | None = None, x: Array | Columns | None = None,
               targets: Columns | None = None, masks: Masks | None = None, steps: int = 3
               ) -> Verification:
        """Measure every cell of the matrix in four ways, with no tolerance.

        analytic
            The gradient of a task's loss alone is exactly 0 in a group it is isolated from, and
            somewhere not 0 in one it reaches.
        parameters
            With other values in a group, and with NaN, the outputs of the tasks isolated from it
            keep their bits, and those that reach it change.
        labels
            With other targets for a task, the joint loss's gradient keeps its bits in the groups
            isolated from the task, and changes in those it reaches.
        training
            After steps on a task's loss alone, with SGD and with Adam from fresh moments, the
            groups isolated from it have the bits they had, and those it reaches have not.

        Parameters
        ----------
        params : dict of ndarray, optional
            As from `model.init`; given with `x` and `targets` or not at all, and then all are those
            of `generic_case`.
        x : ndarray (batch, width), or dict of ndarray (batch,), optional
            Features in the precision of the parameters, categorical columns as integer codes.
        targets : dict of ndarray (batch,), optional
            By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
        masks : dict of bool ndarray (batch,), optional
            By task: False for rows outside its sample space. Tasks not named have all rows.
        steps : int
            Optimizer steps of the fourth way.

        Returns
        -------
        Verification

        Raises
        ------
        InputError
            For arguments the model does not take.
        """
        given = [argument is not None for argument in (params, x, targets)]
        require(all(given) or not any(given), "params, x, targets: give all three or none")
        check_count("steps", steps, most=10_000)
        if params is None or x is None or targets is None:
            case = generic_case(self.model)
            params, x, targets, masks = case.params, case.x, case.targets, case.masks
        self.model.task_losses(params, x, targets, masks)  # refuses what the model does not take
        own, data = (self.model, self.groups, params, x), (targets, masks)
        with np.errstate(all="ignore"):
            return Verification(self, {
                "analytic": self._held(measure.analytic(*own, *data)),
                "parameters": self._held(measure.parameters(*own)),
                "labels": self._held(measure.labels(*own, *data)),
                "training": self._held(measure.training(*own, *data, steps))})

    def compare(self, other: Isolation) -> MatrixComparison:
        """Where another wiring of the same tasks reaches what this one does not, or the reverse.

        Parameters
        ----------
        other : Isolation or dict
            Another model's, whose paths are then the evidence; or a matrix task -> group ->
            "isolated" or "reached". A group that one side lacks is isolated there.

        Returns
        -------
        MatrixComparison

        Raises
        ------
        InputError
            For other tasks than this model's.
        """
        matrix = other.matrix if isinstance(other, Isolation) else other
        self._check_tasks("other", matrix)
        check_dicts(**{f"other: {task!r}": row for task, row in matrix.items()})

        def evidence(task: str, group: str, found: str) -> str:
            if found == ISOLATED:
                return f"no path there, here {self.explain(task, group)}"
            return other.explain(task, group) if isinstance(other, Isolation) else "as given"

        deviations = []
        for task, row in matrix.items():
            for group in self.matrix[task] | row:
                expected, found = (m.get(group, ISOLATED) for m in (self.matrix[task], row))
                if found != expected:
                    why = evidence(task, group, found)
                    deviations.append(Mismatch(task, group, expected, found, why))
        return MatrixComparison(tuple(deviations))

    def compare_gradients(self, gradients: Mapping[str, Mapping[str, Array | None]],
                          groups: Mapping[str, str]) -> MatrixComparison:
        """Whether another implementation isolates what this architecture must isolate.

        Parameters
        ----------
        gradients : dict of dict
            Task -> parameter name -> the gradient of this task's loss alone: an array of any
            framework that `numpy.asarray` takes, or None where there is none.
        groups : dict of str
            Parameter name -> the group it belongs to, a key of `Isolation.groups`. The names are
            the implementation's own; an array that holds several groups is to be cut into them.

        Returns
        -------
        MatrixComparison

        Raises
        ------
        InputError
            For other tasks than the model's, names without a group, groups without a name.
        """
        self._check_tasks("gradients", gradients)
        check_dicts(groups=groups, **{f"gradients: {task!r}": g for task, g in gradients.items()})
        for name, group in groups.items():
            check_choice(f"groups: {name!r} is mapped to a wrong group", group, self.groups)
        members = {group: tuple(n for n in groups if groups[n] == group) for group in self.groups}
        for group, names in members.items():
            require(names, f"groups: no name is mapped to {group!r}")
        for task, named in gradients.items():
            odd = named.keys() ^ groups.keys()
            require(not odd, f"gradients: {task!r} and groups must have equal names, "
                             f"{shown(next(iter(odd), None))} stands in one of them")
            for name, gradient in named.items():
                what = f"gradients: {task!r}: {shown(name)}"
                found = np.zeros(1) if gradient is None else check_array(what, gradient)
                require(found.size and found.dtype.kind in "biufc",
                        f"{what}: {shown(gradient)}, expected at least one number")
        return self._held(cell for task, named in gradients.items()
                          for cell in measure.nonzero(task, members, named))

    def __str__(self) -> str:
        return grid("", self.tasks, list(self.groups), lambda task, group: self.matrix[task][group])

    def _check_tasks(self, what: str, given: object) -> None:
        require(isinstance(given, dict) and given.keys() == set(self.tasks),
                f"{what}: a dict by task is needed ({', '.join(self.tasks)}), got {shown(given)}")

    def _held(self, measured: Iterable[Cell]) -> MatrixComparison:
        """The measured cells (task, group, found, evidence) that the matrix has otherwise."""
        return MatrixComparison(tuple(
            Mismatch(task, group, self.matrix[task][group], found, evidence)
            for task, group, found, evidence in measured if found != self.matrix[task][group]))

    def _path(self, task: str, group: str) -> list[str]:
        """The tensors from the task's tower to one made with the group's parameters, or none."""
        came_from = self.model.table.reached(task)
        name = next((name for name in came_from if self._owned(name) == group), None)
        path: list[str] = []
        while name:
            path.insert(0, name)
            name = came_from[name]
        return path

    def _owned(self, tensor: str) -> str:
        """The group of the parameters that make a tensor."""
        return "embedding" if tensor == "input" else self.model.table.row[tensor].parameters

    def _label(self, tensor: str, reader: str | None) -> str:
        """A tensor as the paths call it: "level 1 shared gate"."""
        if tensor == "input":
            return "embedding"
        row = self.model.table.row[tensor]
        if isinstance(row, Tower):
            return f"{row.task} tower"
        label = re.sub(r"^level(\d+)/", r"level \1 ", tensor).replace("/", " ")
        if not isinstance(row, Experts):
            return f"{label} {type(row).__name__.lower()}"
        fusion = cast(Fusion, self.model.table.row[cast(str, reader)])
        taken = [i for source in fusion.sources if source.name == tensor
                 for i in source.experts or ()]
        label += f" {taken}" if taken else ""
        return label + (f" (parameters of {row.parameters})" if row.parameters != tensor else "")


@dataclass(frozen=True, repr=False)
class Verification(Printed):
    """What `Isolation.verify` found, way by way; prints as a table with the disagreements below.

    Attributes
    ----------
    isolation : Isolation
    ways : dict of MatrixComparison
        "analytic", "parameters", "labels" and "training".
    """

    isolation: Isolation
    ways: dict[str, MatrixComparison]

    @property
    def verified(self) -> dict[str, bool]:
        """Way -> whether it agreed with the table in every cell."""
        return {way: comparison.passed for way, comparison in self.ways.items()}

    @property
    def passed(self) -> bool:
        """Whether all four ways agreed in every cell."""
        return all(self.verified.values())

    def agreed(self, task: str, group: str) -> tuple[str, ...]:
        """The ways that agreed with the table in one cell.

        Parameters
        ----------
        task, group : str

        Returns
        -------
        tuple of str
        """
        return tuple(way for way, comparison in self.ways.items()
                     if (task, group) not in {(d.task, d.group) for d in comparison.deviations})

    def to_dict(self, name: str) -> dict[str, Any]:
        """The report as plain values, for JSON.

        Parameters
        ----------
        name : str
            What to call the model.

        Returns
        -------
        dict
            `model`, `tasks`, `groups`, `matrix` and `verified`.
        """
        isolation = self.isolation
        return {"model": name, "tasks": list(isolation.tasks), "groups": list(isolation.groups),
                "matrix": isolation.matrix, "verified": self.verified}

    def __str__(self) -> str:
        def cell(task: str, group: str) -> str:
            agreed = self.agreed(task, group)
            marks = "".join(way[0] if way in agreed else "-" for way in self.ways)
            return f"{self.isolation.matrix[task][group]:8} {marks}"

        legend = "agreed: " + ", ".join(f"{way[0]} {way}" for way in self.ways)
        lines = [f"{way}: {deviation}" for way, comparison in self.ways.items()
                 for deviation in comparison.deviations]
        table = grid("", self.isolation.tasks, list(self.isolation.groups), cell)
        return "\n".join([table, legend, *lines])


def generic_case(model: Network, seed: int = 0) -> Case:
    """Parameters and a batch on which whatever can be reached is reached.

    `random_case` with smaller weights and larger biases: hardly a relu is off, no gate saturated.

    Parameters
    ----------
    model : npple.network.Network
    seed : int

    Returns
    -------
    npple.verify.cases.Case
    """
    from npple.verify.cases import random_case
    case = random_case(model, seed)
    params = {name: array / 8 if name.endswith("/weight") else
              array + 1 if name.endswith("/bias") else array
              for name, array in case.params.items()}
    return replace(case, params=params)


def grid(title: str, across: Iterable[Any], down: Iterable[Any], cell: Callable[[Any, Any], str]
         ) -> str:
    """A table of texts, aligned, with headings.

    Parameters
    ----------
    title : str
        Of the column of headings.
    across, down : iterable of str or tuple
        What the columns and the rows are about; a tuple's parts stand apart.
    cell : callable
        cell(a, d) -> the text of a column and a row.

    Returns
    -------
    str
    """
    rows = [[title, *map(_heading, across)]]
    rows += [[_heading(d), *(cell(a, d) for a in across)] for d in down]
    return aligned(rows)


def _heading(name: str) -> str:
    return name if isinstance(name, str) else " ".join(map(str, name))
