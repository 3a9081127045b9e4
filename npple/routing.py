"""The routing table: who reads whom. A model is one of these and nothing else; no arrays here.

A table is a list of rows. Each row reads named tensors and makes one, called by the row's name:

    Experts   n equal MLPs reading one representation    level1/income/experts
    Gate      a softmax-weighted mixture of experts      level1/income
    Pass      the one expert there is, as it is          level1/income
    Concat    experts side by side                       level1/income
    Stitch    learned constant mixtures of experts       level1/income
    Route     a sum of experts with learned switches     level1/income
    Tower     the MLP that ends in a task's output       tower/income

What a fusion (Gate to Route) makes is a representation; `input` is the one before level 1. Levels
only group the rows for the reader: the network runs the rows from first to last, and backward
from last to first. Which parameters a task's loss can reach follows from the table alone.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from sys import float_info

from npple.errors import InputError, require
from npple.ops import ACTIVATIONS

__all__ = ["Table", "Level", "Experts", "Gate", "Pass", "Concat", "Stitch", "Route", "Tower",
           "Source", "Row", "Fusion"]
CLASSES = 1_000_000  # of a task
LARGEST = 10 ** 9  # units, experts, words of a column


@dataclass(frozen=True)
class Source:
    """Experts that a fusion mixes: all of a group, some of it, or a representation.

    Parameters
    ----------
    name : str
        Of the group, `level1/income/experts`, or of the representation.
    experts : tuple of int, optional
        Which experts of the group, counted from 0; all by default.
    group : bool
        False for a representation, which counts as one expert.
    """

    name: str
    experts: tuple[int, ...] | None = None
    group: bool = True

    @property
    def index(self):
        """The slice or list that selects these experts in a group's output (n, batch, width)."""
        return slice(None) if self.experts is None else list(self.experts)

    def count(self, table):
        """How many experts these are.

        Parameters
        ----------
        table : Table
            What the source is in.

        Returns
        -------
        int
        """
        if not self.group:
            return 1
        return table.row[self.name].count if self.experts is None else len(self.experts)


class Row:
    """What all rows have: they read tensors and make one, which has their `name`.

    `penalty` is the weight of the row's own term in the loss, 0 for none. A `Table` calls
    `validate` of each row when it is made.
    """

    penalty = 0.0

    @property
    def parameters(self):
        """What the names of the row's parameters begin with; None for a row that can have none."""
        return self.name

    def inputs(self):
        """The tensors that the row reads.

        Returns
        -------
        tuple of str
            Their names; a tensor that is read twice may stand there twice.
        """
        return (self.reads,)

    def width(self, table):
        """The width of the tensor that the row makes: the length of its last axis.

        Parameters
        ----------
        table : Table
            What the row is in.

        Returns
        -------
        int
            For a tower 1, whose output has no last axis, or the number of classes.
        """
        return self.units[-1]

    def shapes(self, table):
        """The parameters that the row uses.

        Parameters
        ----------
        table : Table
            What the row is in.

        Returns
        -------
        dict of tuple
            Name -> shape, in the order of computation.
        """
        return {}

    def validate(self, table):
        """Refuse what the row cannot work with; the tensors that it reads are there.

        Parameters
        ----------
        table : Table
            What the row is in.

        Raises
        ------
        InputError
            For sources, widths, counts or names that do not fit the row.
        """


@dataclass(frozen=True)
class Experts(Row):
    """A group of MLPs of equal shape, all reading one representation.

    Parameters
    ----------
    name : str
        `level1/income/experts`; the tensor (count, batch, width) is called so.
    reads : str
        The representation, `input` or what a fusion made.
    count : int
        How many experts.
    units : tuple of int
        The widths of the layers, at least one.
    activations : tuple of str
        What follows each layer, a name of `npple.ops.ACTIVATIONS`.
    parameters : str
        Under whose name the parameters stand: by default its own, or that of another group of
        which it borrows them.
    penalty : float
        The weight of the penalty on experts whose weights overlap (sluice networks).
    """

    name: str
    reads: str
    count: int
    units: tuple[int, ...]
    activations: tuple[str, ...]
    parameters: str = ""
    penalty: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "parameters", self.parameters or self.name)

    def shapes(self, table):
        width = table.widths[self.reads]
        return _mlp_shapes(self.parameters, width, self.units, stack=(self.count,))

    def validate(self, table):
        _check_representation(self.name, self.reads, table)
        _check_count(f"{self.name}: count", self.count)
        _check_penalty(self)
        _check_mlp(self.name, self.units, self.activations)
        require(self.units, f"{self.name}: units: an expert needs at least one layer")


class Fusion(Row):
    """What all fusions have: they read the experts of `sources` and make a representation."""

    def inputs(self):
        return tuple(source.name for source in self.sources)

    def count(self, table):
        """How many experts are mixed.

        Parameters
        ----------
        table : Table
            What the fusion is in.

        Returns
        -------
        int
        """
        return sum(source.count(table) for source in self.sources)

    def width(self, table):
        return table.widths[self.sources[0].name]

    def validate(self, table):
        _check_sources(self, table)


@dataclass(frozen=True)
class Gate(Fusion):
    """y = sum_i w_i E_i, w = softmax(MLP(selector)).

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to mix, two or more in all, in the order of the weights.
    selector : str
        The representation that the weights depend on.
    units : tuple of int
        The widths of the MLP's hidden layers; none in the paper.
    activations : tuple of str
        What follows each of them.
    bias : bool
        Whether the last layer has one; it has none in the paper.
    """

    name: str
    sources: tuple[Source, ...]
    selector: str
    units: tuple[int, ...] = ()
    activations: tuple[str, ...] = ()
    bias: bool = False

    @property
    def parameters(self):
        return f"{self.name}/gate"

    def inputs(self):
        return (*super().inputs(), self.selector)

    def shapes(self, table):
        units = (*self.units, self.count(table))
        return _mlp_shapes(self.parameters, table.widths[self.selector], units, bias=self.bias)

    def validate(self, table):
        super().validate(table)
        _check_representation(self.name, self.selector, table)
        _check_mlp(self.parameters, self.units, self.activations)
        require(self.count(table) > 1, f"{self.name}: a gate over a single expert is a Pass")


@dataclass(frozen=True)
class Pass(Fusion):
    """y = E, one expert as it is: what a softmax over one expert comes to.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        One source of one expert.
    """

    name: str
    sources: tuple[Source, ...]

    parameters = None

    def validate(self, table):
        super().validate(table)
        require(len(self.sources) == self.count(table) == 1,
                f"{self.name}: a pass takes exactly one expert, got {self.count(table)}")


@dataclass(frozen=True)
class Concat(Fusion):
    """y = [E_1, ..., E_n], experts side by side.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts, in their order.
    """

    name: str
    sources: tuple[Source, ...]

    parameters = None

    def width(self, table):
        return super().width(table) * self.count(table)


@dataclass(frozen=True)
class Stitch(Fusion):
    """y = [y_1, ..., y_parts], y_p = sum_i alpha_pi E_i with learned constants alpha.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to mix, in the order of alpha's columns.
    start : tuple of tuple of float
        The rows of alpha, one a part, before the first step.
    """

    name: str
    sources: tuple[Source, ...]
    start: tuple[tuple[float, ...], ...]

    @property
    def parameters(self):
        return f"{self.name}/stitch"

    @property
    def parts(self):
        """How many mixtures stand side by side."""
        return len(self.start)

    def width(self, table):
        return super().width(table) * self.parts

    def shapes(self, table):
        return {f"{self.parameters}/weight": (self.parts, self.count(table))}

    def validate(self, table):
        super().validate(table)
        require(self.start and all(len(row) == self.count(table) for row in self.start),
                f"{self.name}: start needs rows of {self.count(table)} numbers")


@dataclass(frozen=True)
class Route(Fusion):
    """y = sum_i z_i E_i W_i with hard concrete routing variables z.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to add up, in the order of z.
    transform : bool
        Whether there are matrices W_i (SNR-Trans); without them y = sum_i z_i E_i (SNR-Aver).
    penalty : float
        The weight of the penalty on the expected number of open connections.
    """

    name: str
    sources: tuple[Source, ...]
    transform: bool = False
    penalty: float = 0.0

    @property
    def parameters(self):
        return f"{self.name}/route"

    def shapes(self, table):
        n, width = self.count(table), self.width(table)
        weight = {f"{self.parameters}/weight": (n, width, width)} if self.transform else {}
        return {f"{self.parameters}/log_alpha": (n,)} | weight

    def validate(self, table):
        super().validate(table)
        _check_penalty(self)


@dataclass(frozen=True)
class Tower(Row):
    """The MLP from a representation to the output of a task.

    Parameters
    ----------
    task : str
        The task's name.
    kind : str
        "binary", "regression" or "multiclass:K".
    reads : str
        The representation.
    units : tuple of int
        The widths of the hidden layers, maybe none; the output layer comes on top.
    activations : tuple of str
        What follows each hidden layer.
    """

    task: str
    kind: str
    reads: str
    units: tuple[int, ...]
    activations: tuple[str, ...]

    @property
    def name(self):
        """`tower/` and the task; the output (batch,) or (batch, K) is called so."""
        return f"tower/{self.task}"

    def width(self, table):
        return classes(self.kind)

    def shapes(self, table):
        units = (*self.units, classes(self.kind))
        return _mlp_shapes(self.parameters, table.widths[self.reads], units)

    def validate(self, table):
        check_task(self.task, self.kind)
        _check_representation(self.name, self.reads, table)
        _check_mlp(self.name, self.units, self.activations)


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


@dataclass(frozen=True)
class Table:
    """A whole model: its input, its levels, one tower per task. `npple.Network` runs it.

    Parameters
    ----------
    inputs : int or tuple of tuple
        The width of a plain matrix, or the columns of a mapping: pairs of a name and "numeric" or
        (vocabulary size, embedding width).
    levels : tuple of Level
        From the first to the last, at least one.
    towers : tuple of Tower
        One a task, at least one.

    Raises
    ------
    InputError
        Where a row reads what no earlier row makes, or a count, width, name or kind is unusable.
    """

    inputs: int | tuple[tuple[str, str | tuple[int, int]], ...]
    levels: tuple[Level, ...]
    towers: tuple[Tower, ...]

    def __post_init__(self):
        require(self.levels, "levels: at least one is needed, got none")
        require(self.towers, "tasks: at least one is needed, got none")
        self.widths["input"] = _input_width(self.inputs)
        for row in self.rows:
            require(row.name not in self.widths, f"{row.name}: two rows have this name")
            for name in row.inputs():
                require(name in self.widths, f"{row.name}: reads {name!r}, made by no earlier row")
            row.validate(self)
            self.widths[row.name] = row.width(self)
        self.shapes  # refuses borrowed parameters of two shapes

    @cached_property
    def widths(self):
        """The width of each tensor that a row reads or makes; filled while the table is checked."""
        return {}

    @cached_property
    def rows(self):
        """All rows, in the order in which they run."""
        levels = [row for level in self.levels for row in (*level.groups, *level.fusions)]
        return (*levels, *self.towers)

    @cached_property
    def row(self):
        """The rows by name."""
        return {row.name: row for row in self.rows}

    @property
    def tasks(self):
        """Task name -> kind, in the order of the towers."""
        return {tower.task: tower.kind for tower in self.towers}

    @property
    def embeddings(self):
        """Categorical column -> (vocabulary size, embedding width)."""
        columns = () if isinstance(self.inputs, int) else self.inputs
        return {name: kind for name, kind in columns if kind != "numeric"}

    @cached_property
    def shapes(self):
        """Name -> shape of every parameter: embeddings first, then in the order of the rows."""
        shapes = {f"embedding/{name}": shape for name, shape in self.embeddings.items()}
        for row in self.rows:
            for name, shape in row.shapes(self).items():
                require(shapes.setdefault(name, shape) == shape,
                        f"{row.name}: borrows {name} of shape {shapes[name]}, needs {shape}")
        return shapes

    def reached(self, task):
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
        came_from, queue = {f"tower/{task}": None}, [f"tower/{task}"]
        for reader in queue:
            for name in self.row[reader].inputs() if reader in self.row else ():
                if name not in came_from:
                    came_from[name] = reader
                    queue.append(name)
        return came_from

    def reached_parameters(self, tasks):
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
        reached = set().union(*(self.reached(task) for task in tasks))
        names = {name for row in self.rows if row.name in reached for name in row.shapes(self)}
        if "input" in reached:
            names |= {f"embedding/{column}" for column in self.embeddings}
        return [name for name in self.shapes if name in names]

    def to_dict(self):
        """The table as plain lists and dictionaries, for JSON; `from_dict` is the way back.

        Returns
        -------
        dict
            With the keys "inputs", "levels" and "towers".
        """
        levels = [{"groups": [asdict(group) for group in level.groups],
                   "fusions": [{"fusion": type(fusion).__name__} | asdict(fusion)
                               for fusion in level.fusions]}
                  for level in self.levels]
        return {"inputs": self.inputs, "levels": levels,
                "towers": [asdict(tower) for tower in self.towers]}

    @staticmethod
    def from_dict(content):
        """The table that `to_dict` wrote.

        Parameters
        ----------
        content : dict
            What `to_dict` returned, also after a way through JSON.

        Returns
        -------
        Table

        Raises
        ------
        InputError
            For content that `to_dict` cannot have written.
        """
        try:
            content = _tuples(content)
            levels = tuple(Level(tuple(Experts(**group) for group in level["groups"]),
                                 tuple(_fusion(**fusion) for fusion in level["fusions"]))
                           for level in content["levels"])
            towers = tuple(Tower(**tower) for tower in content["towers"])
            return Table(content["inputs"], levels, towers)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise InputError(f"table: not one that npple wrote ({error!r})") from None


FUSIONS = {kind.__name__: kind for kind in (Gate, Pass, Concat, Stitch, Route)}


def classes(kind):
    """The width of a task's output: K for "multiclass:K", otherwise 1."""
    return int(kind.split(":")[1]) if kind.startswith("multiclass:") else 1


def check_task(name, kind):
    """Raise `InputError` unless a task may be called `name` and be of this `kind`."""
    require(isinstance(name, str) and name and name.isprintable() and "/" not in name,
            f"tasks: a name is a non-empty printable text without '/', got {name!r}")
    require(name != "shared", "tasks: the name 'shared' is taken by the shared experts")
    known = isinstance(kind, str) and (
        kind in ("binary", "regression")
        or kind.startswith("multiclass:") and kind[11:].isdecimal() and len(kind) < 18
        and 1 < int(kind[11:]) <= CLASSES)
    require(known, f"tasks: {name!r} must be 'binary', 'regression' or 'multiclass:K' with K > 1, "
                   f"at most {CLASSES}, got {kind!r:.80}")


def _input_width(inputs):
    """The width of the representation `input`."""
    if not isinstance(inputs, tuple):
        require(type(inputs) is int and inputs > 0,
                f"inputs: a positive integer or a dict of columns is needed, got {inputs!r}")
        return inputs
    require(inputs, "inputs: at least one column is needed, got none")
    seen = set()
    for name, kind in inputs:
        require(isinstance(name, str) and name and name.isprintable(),
                f"inputs: a column name is a non-empty printable text, got {name!r}")
        require(name not in seen, f"inputs: the column {name!r} stands there twice")
        seen.add(name)
        require(isinstance(kind, tuple) and len(kind) == 2
                or isinstance(kind, str) and kind == "numeric",
                f"inputs: {name!r} must be 'numeric' or (vocabulary size, width), got {kind!r}")
        if kind != "numeric":
            _check_count(f"inputs: {name!r}: vocabulary size", kind[0])
            _check_count(f"inputs: {name!r}: embedding width", kind[1])
    return sum(1 if kind == "numeric" else kind[1] for _, kind in inputs)


def _check_count(what, value):
    require(type(value) is int and 0 < value <= LARGEST,
            f"{what} must be a positive integer, at most {LARGEST}, got {value!r:.80}")


def _check_representation(name, read, table):
    require(read == "input" or isinstance(table.row[read], Fusion),
            f"{name}: reads {read!r}, which is no representation")


def _check_penalty(row):
    require(isinstance(row.penalty, (int, float)) and 0 <= row.penalty <= float_info.max,
            f"{row.name}: penalty must be a finite number of at least 0, got {row.penalty!r:.80}")


def _check_mlp(name, units, activations):
    for unit in units:
        _check_count(f"{name}: units", unit)
    require(len(units) == len(activations),
            f"{name}: {len(units)} layers need as many activations, got {len(activations)}")
    for activation in activations:
        require(isinstance(activation, str) and activation in ACTIVATIONS,
                f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def _check_sources(fusion, table):
    """Sources are expert groups or representations of equal width, the indices distinct experts."""
    require(fusion.sources, f"{fusion.name}: a fusion needs at least one source")
    for source in fusion.sources:
        row = table.row.get(source.name)
        kind = Experts if source.group else Fusion
        require(isinstance(row, kind),
                f"{fusion.name}: {source.name!r} is not of the kind {kind.__name__}")
        chosen = source.experts
        require(chosen is None or source.group and chosen and len(set(chosen)) == len(chosen)
                and all(type(i) is int and 0 <= i < row.count for i in chosen),
                f"{fusion.name}: {chosen} are no distinct experts of {source.name}")
    widths = {source.name: table.widths[source.name] for source in fusion.sources}
    require(len(set(widths.values())) == 1,
            f"{fusion.name}: a fusion takes experts of equal width, these have {widths}")


def _mlp_shapes(name, width, units, bias=True, stack=()):
    """The shapes of an MLP's parameters; `bias` says whether the last layer has one."""
    shapes = {}
    for i, unit in enumerate(units, start=1):
        shapes[f"{name}/layer{i}/weight"] = (*stack, width, unit)
        if bias or i < len(units):
            shapes[f"{name}/layer{i}/bias"] = (*stack, unit)
        width = unit
    return shapes


def _fusion(fusion, sources, **rest):
    return FUSIONS[fusion](sources=tuple(Source(**source) for source in sources), **rest)


def _tuples(content):
    """JSON content with its lists as tuples."""
    if isinstance(content, dict):
        return {key: _tuples(value) for key, value in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, (list, tuple)) else content
