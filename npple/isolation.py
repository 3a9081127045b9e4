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

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from npple.adam import SGD, Adam
from npple.errors import require
from npple.network import Network
from npple.random_case import random_case
from npple.routing import Experts, Tower, classes

ISOLATED, REACHED = "isolated", "reached"


def isolation(model):
    """Which task's loss can reach which parameters, from the routing table alone.

    Parameters
    ----------
    model : npple.network.Network

    Returns
    -------
    Isolation
        Prints as a table.
    """
    return Isolation(model)


@dataclass(frozen=True)
class Deviation:
    """A cell of the matrix that was found otherwise than this architecture demands, and why."""

    task: str
    group: str
    expected: str
    found: str
    evidence: str

    def __str__(self):
        return (f"{self.task} x {self.group}: expected {self.expected}, found {self.found}: "
                f"{self.evidence}")


@dataclass(frozen=True)
class Comparison:
    """The outcome of holding the matrix against another: the cells that deviate, in order."""

    deviations: tuple[Deviation, ...]

    @property
    def passed(self):
        """Whether every cell agreed."""
        return not self.deviations

    def __repr__(self):
        return "\n".join(map(str, self.deviations)) or "every cell agrees"


@dataclass(frozen=True, repr=False)
class Isolation:
    """The isolation matrix of a model (PLE paper, sections 4.1 and 4.2); `isolation` makes it."""

    model: Network

    @property
    def tasks(self):
        """The tasks' names."""
        return tuple(self.model.tasks)

    @cached_property
    def groups(self):
        """Group -> the names of its parameters; embeddings first, then in the order of rows."""
        table = self.model.table
        columns = [f"embedding/{column}" for column in table.embeddings]
        groups = {"embedding": dict.fromkeys(columns)} if columns else {}
        for row in table.rows:
            if row.parameters:
                groups.setdefault(row.parameters, {}).update(row.shapes(table))
        return {group: tuple(names) for group, names in groups.items()}

    @cached_property
    def matrix(self):
        """Task -> group -> "isolated" or "reached"."""
        return {task: {group: REACHED if self._path(task, group) else ISOLATED
                       for group in self.groups} for task in self.tasks}

    def explain(self, task, group):
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
        require(task in self.tasks, f"task: {task!r}, expected one of {', '.join(self.tasks)}")
        require(group in self.groups,
                f"group: {group!r}, expected one of {', '.join(self.groups)}")
        path = self._path(task, group)
        if not path:
            return f"isolated: nothing that the {task} tower reads comes from {group}"
        labels = [self._label(*step) for step in zip(path, [None, *path])]
        if len(path) > 2 and path[1].endswith(f"/{task}"):
            del labels[1]
        return " <- ".join(labels)

    def verify(self, params=None, x=None, targets=None, masks=None, steps=3):
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
        params, x, targets, masks
            As for `Network.task_losses`; all but `masks` or none. By default `generic_case`.
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
        require(type(steps) is int and steps > 0, f"steps: a positive integer, got {steps!r}")
        if params is None:
            case = generic_case(self.model)
            params, x, targets, masks = case.params, case.x, case.targets, case.masks
        self.model.task_losses(params, x, targets, masks)  # refuses what the model does not take
        with np.errstate(all="ignore"):
            return Verification(self, {
                "analytic": self._held(_analytic(self, params, x, targets, masks)),
                "parameters": self._held(_parameters(self, params, x)),
                "labels": self._held(_labels(self, params, x, targets, masks)),
                "training": self._held(_training(self, params, x, targets, masks, steps)),
            })

    def compare(self, other):
        """Where another wiring of the same tasks reaches what this one does not, or the reverse.

        Parameters
        ----------
        other : Isolation or dict
            Another model's, whose paths are then the evidence; or a matrix task -> group ->
            "isolated" or "reached". A group that one side lacks is isolated there.

        Returns
        -------
        Comparison

        Raises
        ------
        InputError
            For other tasks than this model's.
        """
        matrix = other.matrix if isinstance(other, Isolation) else other
        self._check_tasks("other", matrix)

        def evidence(task, group, found):
            if found == ISOLATED:
                return f"no path there, here {self.explain(task, group)}"
            return other.explain(task, group) if isinstance(other, Isolation) else "as given"

        deviations = []
        for task, row in matrix.items():
            for group in self.matrix[task] | row:
                expected, found = (m.get(group, ISOLATED) for m in (self.matrix[task], row))
                if found != expected:
                    why = evidence(task, group, found)
                    deviations.append(Deviation(task, group, expected, found, why))
        return Comparison(tuple(deviations))

    def compare_gradients(self, gradients, groups):
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
        Comparison

        Raises
        ------
        InputError
            For other tasks than the model's, names without a group, groups without a name.
        """
        self._check_tasks("gradients", gradients)
        members = {group: tuple(n for n in groups if groups[n] == group) for group in self.groups}
        for name, group in groups.items():
            require(group in members, f"groups: {name!r} is mapped to {group!r}, expected one of "
                                      f"{', '.join(members)}")
        for group, names in members.items():
            require(names, f"groups: no name is mapped to {group!r}")
        for task, named in gradients.items():
            odd = next(iter(named.keys() ^ groups.keys()), None)
            require(odd is None, f"gradients: {task!r} and groups must have equal names, "
                                 f"{odd!r} stands in one of them")
        return self._held(cell for task, named in gradients.items()
                          for cell in _nonzero(task, members, named))

    def __repr__(self):
        return grid("", self.tasks, self.groups, lambda task, group: self.matrix[task][group])

    def _check_tasks(self, what, given):
        require(isinstance(given, dict) and given.keys() == set(self.tasks),
                f"{what}: a dict by task is needed ({', '.join(self.tasks)}), got {list(given)}")

    def _held(self, measured):
        """The measured cells (task, group, found, evidence) that the matrix has otherwise."""
        return Comparison(tuple(
            Deviation(task, group, self.matrix[task][group], found, evidence)
            for task, group, found, evidence in measured if found != self.matrix[task][group]))

    def _path(self, task, group):
        """The tensors from the task's tower to one made with the group's parameters, or none."""
        came_from = self.model.table.reached(task)
        name = next((name for name in came_from if self._owned(name) == group), None)
        path = []
        while name:
            path.insert(0, name)
            name = came_from[name]
        return path

    def _owned(self, tensor):
        """The group of the parameters that make a tensor."""
        return "embedding" if tensor == "input" else self.model.table.row[tensor].parameters

    def _label(self, tensor, reader):
        """A tensor as the paths call it: "level 1 shared gate"."""
        if tensor == "input":
            return "embedding"
        row = self.model.table.row[tensor]
        if isinstance(row, Tower):
            return f"{row.task} tower"
        label = re.sub(r"^level(\d+)/", r"level \1 ", tensor).replace("/", " ")
        if not isinstance(row, Experts):
            return f"{label} {type(row).__name__.lower()}"
        taken = [i for source in self.model.table.row[reader].sources if source.name == tensor
                 for i in source.experts or ()]
        label += f" {taken}" if taken else ""
        return label + (f" (parameters of {row.parameters})" if row.parameters != tensor else "")


@dataclass(frozen=True, repr=False)
class Verification:
    """What `Isolation.verify` found, way by way; prints as a table with the disagreements below.

    Attributes
    ----------
    isolation : Isolation
    ways : dict of Comparison
        "analytic", "parameters", "labels" and "training".
    """

    isolation: Isolation
    ways: dict

    @property
    def verified(self):
        """Way -> whether it agreed with the table in every cell."""
        return {way: comparison.passed for way, comparison in self.ways.items()}

    @property
    def passed(self):
        """Whether all four ways agreed in every cell."""
        return all(self.verified.values())

    def agreed(self, task, group):
        """The ways that agreed with the table in this cell."""
        return tuple(way for way, comparison in self.ways.items()
                     if (task, group) not in {(d.task, d.group) for d in comparison.deviations})

    def to_dict(self, name):
        """The report as JSON can hold it; `name` is what to call the model."""
        isolation = self.isolation
        return {"model": name, "tasks": list(isolation.tasks), "groups": list(isolation.groups),
                "matrix": isolation.matrix, "verified": self.verified}

    def __repr__(self):
        def cell(task, group):
            agreed = self.agreed(task, group)
            marks = "".join(way[0] if way in agreed else "-" for way in self.ways)
            return f"{self.isolation.matrix[task][group]:8} {marks}"

        legend = "agreed: " + ", ".join(f"{way[0]} {way}" for way in self.ways)
        lines = [f"{way}: {deviation}" for way, comparison in self.ways.items()
                 for deviation in comparison.deviations]
        table = grid("", self.isolation.tasks, self.isolation.groups, cell)
        return "\n".join([table, legend, *lines])


def generic_case(model, seed=0):
    """Parameters and a batch on which whatever can be reached is reached.

    `random_case` with smaller weights and larger biases: hardly a relu is off, no gate saturated.

    Parameters
    ----------
    model : npple.network.Network
    seed : int

    Returns
    -------
    npple.random_case.Case
    """
    case = random_case(model, seed)
    params = {name: array / 8 if name.endswith("/weight") else
              array + 1 if name.endswith("/bias") else array
              for name, array in case.params.items()}
    return replace(case, params=params)


# The four ways: each yields (task, group, found, evidence) ----------------------------------------

def _analytic(isolation, params, x, targets, masks):
    """The gradient of each task's loss alone."""
    for task in isolation.tasks:
        grads = _own_gradients(isolation.model, task, params, x, targets, masks)
        yield from _nonzero(task, isolation.groups, grads)


def _parameters(isolation, params, x):
    """The outputs of all tasks, before and after one group's parameters are replaced."""
    rng = np.random.default_rng(0)
    replacements = {"other values": lambda p: p + rng.normal(size=p.shape).astype(p.dtype),
                    "NaN": lambda p: np.full_like(p, np.nan)}
    before = isolation.model.forward(params, x)
    for group, names in isolation.groups.items():
        for what, values in replacements.items():
            changed = params | {name: values(params[name]) for name in names}
            after = isolation.model.forward(changed, x)
            for task in isolation.tasks:
                yield _changed(task, group, before, after, (f"tower/{task}",), f"{what} in {group}")


def _labels(isolation, params, x, targets, masks):
    """The gradients of the joint loss, before and after one task's targets are replaced."""
    model = isolation.model
    _, before = model.loss_and_grads(params, x, targets, masks)
    for task, kind in model.tasks.items():
        others = {task: _other_targets(kind, np.asarray(targets[task]), (masks or {}).get(task))}
        _, after = model.loss_and_grads(params, x, targets | others, masks)
        for group, names in isolation.groups.items():
            yield _changed(task, group, before, after, names, f"other targets of {task}")


def _training(isolation, params, x, targets, masks, steps):
    """The parameters, before and after steps on one task's loss alone."""
    for optimizer in (SGD(), Adam()):
        for task in isolation.tasks:
            after, state = params, optimizer.init(params)
            for _ in range(steps):
                grads = _own_gradients(isolation.model, task, after, x, targets, masks)
                after, state = optimizer.step(after, grads, state)
            cause = f"{steps} steps of {type(optimizer).__name__} on {task} alone"
            for group, names in isolation.groups.items():
                yield _changed(task, group, params, after, names, cause)


def _own_gradients(model, task, params, x, targets, masks):
    """The gradient of one task's loss alone, without penalties, which are no task's."""
    alone = {other: float(other == task) for other in model.tasks}
    return model.loss_and_grads(params, x, targets, masks, alone, penalties=False)[1]


def _other_targets(kind, y, mask):
    """Targets all one larger, or all of the class that is rarest among the task's rows."""
    if kind == "regression":
        return y + np.ones((), y.dtype)
    own = y if mask is None else y[mask]
    return np.full_like(y, np.bincount(own.astype(int), minlength=max(classes(kind), 2)).argmin())


def _nonzero(task, groups, grads):
    """Each group's verdict by a task's own gradient: is any entry not exactly 0?"""
    for group, names in groups.items():
        arrays = {name: np.asarray(0.0 if grads[name] is None else grads[name]) for name in names}
        yield _verdict(task, group, {name: array != 0 for name, array in arrays.items()},
                       f"gradient of the {task} loss",
                       lambda name, at: f"is {arrays[name][at]}")


def _changed(task, group, before, after, names, cause):
    """A group's verdict by arrays from before and after: do the bits of any entry differ?"""
    return _verdict(task, group, {name: ~_same_bits(before[name], after[name]) for name in names},
                    cause, lambda name, at: f"was {before[name][at]}, is {after[name][at]}")


def _same_bits(a, b):
    """Where two arrays hold the same number, the same zero or both NaN."""
    return (a == b) & (np.signbit(a.real) == np.signbit(b.real)) | (a != a) & (b != b)


def _verdict(task, group, moved, cause, values):
    """A cell that is reached if any entry moved; the first such entry, or the first, as evidence.

    moved: name -> bool array; values(name, index) says what that entry holds
    """
    name = next((name for name, where in moved.items() if where.any()), None)
    found, rest = (REACHED, "") if name else (ISOLATED, ", the others likewise")
    name = name or next(iter(moved))
    at = tuple(map(int, np.unravel_index(moved[name].argmax(), moved[name].shape)))
    return task, group, found, f"{cause}: {name}{list(at)} {values(name, at)}{rest}"


def grid(title, across, down, cell):
    """A table of the texts `cell(a, d)`, aligned, with headings; a tuple's parts stand apart."""
    rows = [[title, *map(_heading, across)]]
    rows += [[_heading(d), *(cell(a, d) for a in across)] for d in down]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _heading(name):
    return name if isinstance(name, str) else " ".join(map(str, name))
