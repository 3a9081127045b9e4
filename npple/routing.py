"""The routing table: who reads whom. A model is one of these and nothing else; no arrays here.

A table is a list of rows. Each row reads named tensors and makes one, called by the row's name:

    Experts   n equal MLPs reading one representation    level1/income/experts
    Gate      a softmax-weighted mixture of experts      level1/income
    Pass      the one expert there is, as it is          level1/income
    Tower     the MLP that ends in a task's output       tower/income

What a fusion (gate or pass) makes is a representation; `input` is the one before level 1. Levels
only group the rows for the reader: the network runs the rows from first to last, and backward
from last to first. Which parameters a task's loss can reach follows from the table alone.
"""

from dataclasses import asdict, dataclass
from functools import cached_property

from npple.errors import InputError, require
from npple.ops import ACTIVATIONS


@dataclass(frozen=True)
class Source:
    """The experts of the group `name` that a fusion mixes: all, or those with these indices."""

    name: str
    experts: tuple[int, ...] | None = None

    @property
    def index(self):
        """What selects these experts in the group's output (n, batch, width)."""
        return slice(None) if self.experts is None else list(self.experts)

    def count(self, table):
        """How many experts these are."""
        return table.row[self.name].count if self.experts is None else len(self.experts)


@dataclass(frozen=True)
class Experts:
    """A group of `count` MLPs of equal shape, all reading the representation `reads`.

    `units` are the widths of the layers, `activations` what follows each. The parameters stand
    under the group's own name, or under `parameters` where a group borrows another's.
    """

    name: str
    reads: str
    count: int
    units: tuple[int, ...]
    activations: tuple[str, ...]
    parameters: str = ""

    def __post_init__(self):
        object.__setattr__(self, "parameters", self.parameters or self.name)

    def inputs(self):
        return (self.reads,)

    def width(self, table):
        return self.units[-1]

    def shapes(self, table):
        width = table.widths[self.reads]
        return _mlp_shapes(self.parameters, width, self.units, stack=(self.count,))

    def validate(self, table):
        _check_count(f"{self.name}: count", self.count)
        _check_mlp(self.name, self.units, self.activations)
        require(self.units, f"{self.name}: units: an expert needs at least one layer")


@dataclass(frozen=True)
class Gate:
    """y = sum_i w_i E_i over the experts of `sources`, w = softmax(MLP(selector)).

    In the paper the MLP is one linear layer without a bias: no hidden `units`, `bias` false.
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
        return (*(source.name for source in self.sources), self.selector)

    def width(self, table):
        return table.widths[self.sources[0].name]

    def count(self, table):
        """How many experts the gate weights."""
        return sum(source.count(table) for source in self.sources)

    def shapes(self, table):
        units = (*self.units, self.count(table))
        return _mlp_shapes(self.parameters, table.widths[self.selector], units, bias=self.bias)

    def validate(self, table):
        _check_mlp(self.parameters, self.units, self.activations)
        _check_sources(self, table)
        require(self.count(table) > 1, f"{self.name}: a gate over a single expert is a Pass")
        widths = {source.name: table.widths[source.name] for source in self.sources}
        require(len(set(widths.values())) == 1,
                f"{self.name}: a gate mixes experts of equal width, these have {widths}")


@dataclass(frozen=True)
class Pass:
    """y = E, the only expert of the only source: what a softmax over one expert comes to."""

    name: str
    sources: tuple[Source]

    parameters = None

    def inputs(self):
        return (self.sources[0].name,)

    def width(self, table):
        return table.widths[self.sources[0].name]

    def shapes(self, table):
        return {}

    def validate(self, table):
        _check_sources(self, table)
        count = sum(source.count(table) for source in self.sources)
        require(count == 1, f"{self.name}: a pass takes exactly one expert, got {count}")


@dataclass(frozen=True)
class Tower:
    """The MLP from the representation `reads` to the output of `task`.

    `kind` is "binary", "regression" or "multiclass:K"; `units` are the hidden widths, the output
    layer comes on top.
    """

    task: str
    kind: str
    reads: str
    units: tuple[int, ...]
    activations: tuple[str, ...]

    @property
    def name(self):
        return f"tower/{self.task}"

    parameters = name

    def inputs(self):
        return (self.reads,)

    def width(self, table):
        return classes(self.kind)

    def shapes(self, table):
        units = (*self.units, classes(self.kind))
        return _mlp_shapes(self.parameters, table.widths[self.reads], units)

    def validate(self, table):
        check_task(self.task, self.kind)
        _check_mlp(self.name, self.units, self.activations)


@dataclass(frozen=True)
class Level:
    """The expert groups of one extraction level and the fusions that read them."""

    groups: tuple[Experts, ...]
    fusions: tuple[Gate | Pass, ...]


@dataclass(frozen=True)
class Table:
    """A whole model: its input, its levels, one tower per task.

    `inputs` is the width of a plain matrix, or the columns of a mapping: pairs of a name and
    "numeric" or (vocabulary size, embedding width).

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
        require(self.shapes, "levels: the table has no parameters")

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

        From the task's tower to what it reads, to what that reads, and so on down to "input".
        """
        came_from = {f"tower/{task}": None}
        for row in reversed(self.rows):
            if row.name in came_from:
                for name in row.inputs():
                    came_from.setdefault(name, row.name)
        return came_from

    def reached_parameters(self, tasks):
        """The names of the parameters that the losses of `tasks` together can reach."""
        reached = set().union(*(self.reached(task) for task in tasks))
        names = {name for row in self.rows if row.name in reached for name in row.shapes(self)}
        return [name for name in self.shapes if name in names or name.startswith("embedding/")]

    def to_dict(self):
        """The table as plain lists and dictionaries, for JSON; `from_dict` is the way back."""
        levels = [{"groups": [asdict(group) for group in level.groups],
                   "fusions": [{"fusion": type(fusion).__name__} | asdict(fusion)
                               for fusion in level.fusions]}
                  for level in self.levels]
        return {"inputs": self.inputs, "levels": levels,
                "towers": [asdict(tower) for tower in self.towers]}

    @staticmethod
    def from_dict(content):
        """The table that `to_dict` wrote; `InputError` for content it cannot have written."""
        try:
            content = _tuples(content)
            levels = tuple(Level(tuple(Experts(**group) for group in level["groups"]),
                                 tuple(_fusion(**fusion) for fusion in level["fusions"]))
                           for level in content["levels"])
            towers = tuple(Tower(**tower) for tower in content["towers"])
            return Table(content["inputs"], levels, towers)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise InputError(f"table: not one that npple wrote ({error!r})") from None


FUSIONS = {kind.__name__: kind for kind in (Gate, Pass)}


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
        or kind.startswith("multiclass:") and kind[11:].isdecimal() and int(kind[11:]) > 1)
    require(known, f"tasks: {name!r} must be 'binary', 'regression' or 'multiclass:K' with K > 1, "
                   f"got {kind!r}")


def _input_width(inputs):
    """The width of the representation `input`."""
    if not isinstance(inputs, tuple):
        _check_count("inputs", inputs)
        return inputs
    require(inputs, "inputs: at least one column is needed, got none")
    seen = set()
    for name, kind in inputs:
        require(isinstance(name, str) and name and name.isprintable(),
                f"inputs: a column name is a non-empty printable text, got {name!r}")
        require(name not in seen, f"inputs: the column {name!r} stands there twice")
        seen.add(name)
        require(kind == "numeric" or isinstance(kind, tuple) and len(kind) == 2,
                f"inputs: {name!r} must be 'numeric' or (vocabulary size, width), got {kind!r}")
        if kind != "numeric":
            _check_count(f"inputs: {name!r}: vocabulary size", kind[0])
            _check_count(f"inputs: {name!r}: embedding width", kind[1])
    return sum(1 if kind == "numeric" else kind[1] for _, kind in inputs)


def _check_count(what, value):
    require(type(value) is int and value > 0, f"{what} must be a positive integer, got {value!r}")


def _check_mlp(name, units, activations):
    for unit in units:
        _check_count(f"{name}: units", unit)
    require(len(units) == len(activations),
            f"{name}: {len(units)} layers need as many activations, got {len(activations)}")
    for activation in activations:
        require(activation in ACTIVATIONS,
                f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def _check_sources(fusion, table):
    """Each source is an expert group, and its indices are distinct experts of it."""
    for source in fusion.sources:
        group = table.row.get(source.name)
        require(isinstance(group, Experts), f"{fusion.name}: {source.name!r} is no expert group")
        chosen, count = source.experts, group.count
        require(chosen is None or chosen and len(set(chosen)) == len(chosen)
                and all(type(i) is int and 0 <= i < count for i in chosen),
                f"{fusion.name}: experts of {source.name} are 0 to {count - 1}, got {chosen}")


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
