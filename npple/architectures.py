"""The architectures, each a routing table: what tells them apart is who reads whom.

All take `inputs` (the width of a plain matrix, or a dict column -> "numeric", (vocabulary size,
embedding width) or, for a bag of values, (size, width, "mean" or "sum")) and `tasks` (a dict name
-> "binary", "regression" or "multiclass:K"), return a `npple.Network`, and raise `InputError` for
counts, widths, names or kinds that make no model.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import TypeAlias, TypeVar

from npple.checks import check_choice, check_count, check_number, shown
from npple.core.ops import LIMITS
from npple.core.rows import (Concat, Experts, Fusion, Gate, Pass, Pool, Route, Source, Stitch,
                             Tower, check_task)
from npple.core.table import Embedded, Level, Table
from npple.errors import InputError, require
from npple.network import Network

MANY = 1000  # levels, subspaces or sub-networks: each is a row of the table of its own

Inputs: TypeAlias = int | Mapping[str, str | Sequence[int | str]]
Tasks: TypeAlias = Mapping[str, str]
Units: TypeAlias = Sequence[int]
LevelUnits: TypeAlias = Units | Sequence[Units]
Counts: TypeAlias = int | Sequence[int]
TaskCounts: TypeAlias = int | Mapping[str, int] | Sequence[int | Mapping[str, int]]
Entry = TypeVar("Entry")


def ple(inputs: Inputs, tasks: Tasks, *, levels: int = 2, task_experts: TaskCounts = 2,
        shared_experts: Counts = 2, expert_units: LevelUnits = (64,), tower_units: Units = (32,),
        activation: str = "relu", gate_units: Units = (), gate_bias: bool = False,
        cut: bool = True) -> Network:
    """Progressive Layered Extraction (Tang et al., RecSys 2020, section 4.2).

    A task's experts and gate read that task's representation of the level below; shared experts
    and the shared gate read the shared one. A task's gate mixes its own experts and the shared
    ones, in this order; the shared gate mixes all experts, tasks first. There is no shared gate
    where no later level has shared experts, so none on the last level.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric", (vocabulary size, embedding width) or, for a
        column of bags, (vocabulary size, embedding width, "mean" or "sum").
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    levels : int
        Number of extraction levels.
    task_experts : int, dict of int, or a sequence of these
        Experts of each task: for all, by task, or one such entry a level. 0 for none.
    shared_experts : int or sequence of int
        Shared experts: on all levels, or one number a level. 0 for none.
    expert_units : sequence of int, or a sequence of these
        Widths of an expert's layers: on all levels, or one sequence a level.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers and gates: "relu", "tanh",
        "sigmoid", "identity", "gelu" or "softplus".
    gate_units : sequence of int
        Widths of a gate's hidden layers; the paper has none.
    gate_bias : bool
        Whether a gate's last layer has a bias; the paper has none.
    cut : bool
        False joins what PLE separates: every gate mixes all experts of its level. PLE is this
        model in the limit of closed gates on the edges that it cuts.

    Returns
    -------
    npple.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    levels = _levels(levels)
    counts = _counts(_tasks(tasks), levels, task_experts, shared_experts)
    units, gates = _level_units(expert_units, levels), _gates(activation, gate_units, gate_bias)
    require(type(cut) is bool, f"cut: True or False is needed, got {shown(cut)}")
    made, below = [], dict.fromkeys((*tasks, "shared"), "input")
    for level, count in enumerate(counts, start=1):
        streams = [*tasks, "shared"] if any(c["shared"] for c in counts[level:]) else [*tasks]
        groups = tuple(_group(level, name, below[name], n, units, activation)
                       for name, n in count.items() if n)
        fusions = []
        for name in streams:
            mixed = (name, "shared") if cut and name in tasks else tuple(count)
            sources = [group for group in groups if group.name.split("/")[1] in mixed]
            require(sources,
                    f"task_experts, shared_experts: {name!r} has no expert on level {level}")
            fusions.append(_mix(f"level{level}/{name}", sources, below[name], *gates))
        below = {name: f"level{level}/{name}" for name in streams}
        made.append(Level(groups, tuple(fusions)))
    return _network(inputs, tasks, made, below, tower_units, activation)


def ml_mmoe(inputs: Inputs, tasks: Tasks, *, levels: int = 2, experts: Counts = 4,
            expert_units: LevelUnits = (64,), tower_units: Units = (32,), activation: str = "relu",
            gate_units: Units = (), gate_bias: bool = False) -> Network:
    """Multi-level MMoE (PLE paper, section 5.1.2, figures 1 and 8): one bank of experts a level.

    An expert of level two and up has a gate of its own over all experts of the level below. All
    gates, also those of the tasks at the end, select on the input. With one level it is `mmoe`.

    Parameters
    ----------
    inputs, tasks, levels, expert_units, tower_units, activation, gate_units, gate_bias
        As in `ple`.
    experts : int or sequence of int
        Experts on all levels, or one number a level.

    Returns
    -------
    npple.Network
    """
    levels = _levels(levels)
    counts = [_count("experts", n) for n in _each_level("experts", experts, levels)]
    units, gates = _level_units(expert_units, levels), _gates(activation, gate_units, gate_bias)
    bank = [_group(1, "shared", "input", counts[0], units, activation)]
    made = []
    for level, above in enumerate([*counts[1:], None], start=1):
        names = [*_tasks(tasks)] if above is None else [f"expert{i + 1}" for i in range(above)]
        fusions = tuple(_mix(f"level{level}/{name}", bank, "input", *gates) for name in names)
        made.append(Level(tuple(bank), fusions))
        bank = [_group(level + 1, name, f"level{level}/{name}", 1, units, activation)
                for name in names if above]
    below = {task: f"level{levels}/{task}" for task in tasks}
    return _network(inputs, tasks, made, below, tower_units, activation)


def cgc(inputs: Inputs, tasks: Tasks, *, task_experts: int | Mapping[str, int] = 2,
        shared_experts: int = 2, expert_units: Units = (64,), tower_units: Units = (32,),
        activation: str = "relu", gate_units: Units = (), gate_bias: bool = False) -> Network:
    """Customized Gate Control: PLE with one level (PLE paper, section 4.1).

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation, gate_units, gate_bias
        As in `ple`.
    task_experts : int or dict of int
        Experts of each task: for all, or by task. 0 for none.
    shared_experts : int
        Shared experts; 0 for none.

    Returns
    -------
    npple.Network
    """
    return ple(inputs, tasks, levels=1, task_experts=task_experts, shared_experts=shared_experts,
               expert_units=expert_units, tower_units=tower_units, activation=activation,
               gate_units=gate_units, gate_bias=gate_bias)


def mmoe(inputs: Inputs, tasks: Tasks, *, experts: int = 4, expert_units: Units = (64,),
         tower_units: Units = (32,), activation: str = "relu", gate_units: Units = (),
         gate_bias: bool = False) -> Network:
    """Multi-gate Mixture-of-Experts (Ma et al., KDD 2018): CGC without specific experts.

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation, gate_units, gate_bias
        As in `ple`.
    experts : int
        Number of shared experts.

    Returns
    -------
    npple.Network
    """
    return cgc(inputs, tasks, task_experts=0, shared_experts=_count("experts", experts),
               expert_units=expert_units, tower_units=tower_units, activation=activation,
               gate_units=gate_units, gate_bias=gate_bias)


def shared_bottom(inputs: Inputs, tasks: Tasks, *, expert_units: Units = (64,),
                  tower_units: Units = (32,), activation: str = "relu") -> Network:
    """Shared bottom (Caruana 1997): MMoE with one expert, which every tower reads.

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation
        As in `ple`; the bottom is the expert.

    Returns
    -------
    npple.Network
    """
    return mmoe(inputs, tasks, experts=1, expert_units=expert_units, tower_units=tower_units,
                activation=activation)


def single_task(inputs: Inputs, tasks: Tasks, *, expert_units: Units = (64,),
                tower_units: Units = (32,), activation: str = "relu") -> Network:
    """One network a task, nothing shared but the embeddings: CGC without shared experts.

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation
        As in `ple`.

    Returns
    -------
    npple.Network
    """
    return cgc(inputs, tasks, task_experts=1, shared_experts=0, expert_units=expert_units,
               tower_units=tower_units, activation=activation)


def asymmetric_sharing(inputs: Inputs, tasks: Tasks, *,
                       borrows: Mapping[str, Sequence[str]] | None = None, pool: str = "concat",
                       expert_units: Units = (64,), tower_units: Units = (32,),
                       activation: str = "relu") -> Network:
    """Asymmetric sharing (PLE paper, section 3.2): some towers also read other tasks' bottoms.

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation
        As in `ple`; a task's bottom is its expert.
    borrows : dict of sequence of str, optional
        Task -> the tasks whose bottom its tower reads beside its own. By default each task
        borrows from those named before it, so the first is on its own.
    pool : str
        How the bottoms that a tower reads are joined: "concat", "sum" or "mean".

    Returns
    -------
    npple.Network
    """
    names = list(_tasks(tasks))
    if borrows is None:
        borrows = {task: names[:i] for i, task in enumerate(names)}
    require(isinstance(borrows, dict), f"borrows: a dict by task is needed, got {shown(borrows)}")
    for task, others in borrows.items():
        require(_is_list(others) and task in names and all(o in names for o in others)
                and task not in others,
                f"borrows: {task!r}: {others!r}, expected a list of other tasks of {names}")
    reads = {task: (task, *borrows.get(task, ())) for task in names}
    return _bottoms(inputs, tasks, names, reads, pool, expert_units, tower_units, activation)


def customized_sharing(inputs: Inputs, tasks: Tasks, *, expert_units: Units = (64,),
                       tower_units: Units = (32,), activation: str = "relu") -> Network:
    """Customized sharing (PLE paper, section 3.2): each tower reads its own and a shared bottom.

    Parameters
    ----------
    inputs, tasks, expert_units, tower_units, activation
        As in `ple`; a task's bottom is its expert.

    Returns
    -------
    npple.Network
    """
    reads = {task: (task, "shared") for task in _tasks(tasks)}
    return _bottoms(inputs, tasks, [*tasks, "shared"], reads, "concat", expert_units, tower_units,
                    activation)


def cross_stitch(inputs: Inputs, tasks: Tasks, *, levels: int = 2, expert_units: LevelUnits = (64,),
                 tower_units: Units = (32,), activation: str = "relu", own: float = 0.9,
                 per: str = "layer") -> Network:
    """Cross-stitch networks (Misra et al., CVPR 2016): after each level the tasks' activations mix.

    The mixture constants are learned. They start near the identity: `own` for a task's own
    activations, the rest spread evenly over the others.

    Parameters
    ----------
    inputs, tasks, levels, expert_units, tower_units, activation
        As in `ple`.
    own : float
        In [0, 1]; 1 starts as single-task networks.
    per : str
        One constant a pair of tasks and "layer" (cross-stitch, section 6), or one for each
        "channel" of it (cross-stitch, section 5).

    Returns
    -------
    npple.Network
    """
    check_choice("per", per, ("layer", "channel"))
    names, levels = list(_tasks(tasks)), _levels(levels)
    made, below = _stitched(names, levels, 1, expert_units, activation,
                            check_number("own", own, 0, 1), per == "channel")
    return _network(inputs, tasks, made, below, tower_units, activation)


def sluice(inputs: Inputs, tasks: Tasks, *, levels: int = 2, subspaces: int = 2,
           expert_units: LevelUnits = (64,), tower_units: Units = (32,), activation: str = "relu",
           own: float | None = None, last: float | None = None, orthogonality: float = 0.0,
           overlap: str = "inputs") -> Network:
    """Sluice networks (Ruder et al.): subspaces, their mixing matrix, a mixture over levels.

    A task's layer is cut into subspaces (experts that read one representation). Each input to the
    next level is a learned mixture of all subspaces of all tasks; each tower reads a learned
    mixture of its task's representations on all levels, which therefore have one width.

    Parameters
    ----------
    inputs, tasks, levels, tower_units, activation
        As in `ple`.
    subspaces : int
        Subspaces of each task and level.
    expert_units : sequence of int, or a sequence of these
        Widths of a subspace's layers: on all levels, or one sequence a level; the last widths
        of all levels are equal.
    own : float, optional
        In [0, 1]: where a subspace's own constant starts, the rest spread evenly. By default all
        are equal, as the authors' "balanced" start.
    last : float, optional
        In [0, 1]: where the last level's part in a tower's input starts, the rest spread evenly.
        By default all are equal; the authors' other start is 0.9.
    orthogonality : float
        Weight of the penalty on the subspaces i < j of a task and level; 0.1 in the authors'
        README.
    overlap : str
        What it penalises: |W_i W_j^T|² over "inputs", as the authors' code, or |W_i^T W_j|² over
        "outputs".

    Returns
    -------
    npple.Network
    """
    names, levels = list(_tasks(tasks)), _levels(levels)
    subspaces = _count("subspaces", subspaces, most=MANY)
    own = 1 / (len(names) * subspaces) if own is None else check_number("own", own, 0, 1)
    last = 1 / levels if last is None else check_number("last", last, 0, 1)
    made, below = _stitched(names, levels, subspaces, expert_units, activation, own, False,
                            check_number("orthogonality", orthogonality), overlap)
    rest = (1 - last) / (levels - 1) if levels > 1 else 0.0
    start = ((*(rest,) * (levels - 1), last),)
    towers = tuple(Stitch(f"levels/{name}", tuple(
        Source(f"level{level}/{name}", group=False) for level in range(1, levels + 1)), start)
        for name in names)
    made[-1] = Level(made[-1].groups, made[-1].fusions + towers)
    below = {name: f"levels/{name}" for name in names}
    return _network(inputs, tasks, made, below, tower_units, activation)


def snr_trans(inputs: Inputs, tasks: Tasks, *, levels: int = 2, experts: int = 4,
              expert_units: LevelUnits = (64,), tower_units: Units = (32,),
              activation: str = "relu", l0: float = 0.0, beta: float = LIMITS[0],
              gamma: float = LIMITS[1], zeta: float = LIMITS[2],
              start: tuple[float, float] = (0.5, 1.5)) -> Network:
    """SNR-Trans (Ma et al., AAAI 2019): sub-networks joined by routed linear transforms.

    A sub-network of level two and up, and each tower, reads sum_i z_i W_i u_i over the
    sub-networks below, z_i hard concrete: open, closed or between, learned with noise.

    Parameters
    ----------
    inputs, tasks, levels, expert_units, tower_units, activation
        As in `ple`; a sub-network is an expert.
    experts : int
        Sub-networks a level.
    l0 : float
        Weight of the penalty on the expected number of open connections; the authors try 1e-3,
        1e-4 and 1e-5.
    beta, gamma, zeta : float
        Temperature and limits of the hard concrete distribution. The authors search beta in
        [0.5, 0.9], gamma in [-1, -0.1] and zeta in [1.1, 2]; the defaults are those of Louizos et
        al. (2018).
    start : tuple of float
        Log alpha starts uniform between these two; the authors do not say where.

    Returns
    -------
    npple.Network
    """
    return _routed(True, inputs, tasks, levels, experts, expert_units, tower_units, activation, l0,
                   (beta, gamma, zeta), start)


def snr_aver(inputs: Inputs, tasks: Tasks, *, levels: int = 2, experts: int = 4,
             expert_units: LevelUnits = (64,), tower_units: Units = (32,), activation: str = "relu",
             l0: float = 0.0, beta: float = LIMITS[0], gamma: float = LIMITS[1],
             zeta: float = LIMITS[2], start: tuple[float, float] = (0.5, 1.5)) -> Network:
    """SNR-Aver (Ma et al., AAAI 2019): as `snr_trans` without transforms, sum_i z_i u_i.

    Parameters
    ----------
    inputs, tasks, levels, experts, expert_units, tower_units, activation
        As in `snr_trans`.
    l0, beta, gamma, zeta, start
        As in `snr_trans`.

    Returns
    -------
    npple.Network
    """
    return _routed(False, inputs, tasks, levels, experts, expert_units, tower_units, activation,
                   l0, (beta, gamma, zeta), start)


ARCHITECTURES: dict[str, Callable[..., Network]] = {builder.__name__: builder for builder in (
    single_task, shared_bottom, asymmetric_sharing, customized_sharing, cross_stitch, sluice, mmoe,
    ml_mmoe, snr_trans, snr_aver, cgc, ple)}


# How the tables are made ------------------------------------------------------------------------

def _gates(activation: str, units: Units, bias: bool) -> tuple[tuple[int, ...], str, bool]:
    """What all gates of a table have."""
    require(type(bias) is bool, f"gate_bias: True or False is needed, got {shown(bias)}")
    return _units("gate_units", units), activation, bias


def _mix(name: str, groups: Sequence[Experts], selector: str, units: tuple[int, ...],
         activation: str, bias: bool) -> Fusion:
    """The representation `name` from the experts of some groups: gated, or the one there is."""
    sources = tuple(Source(group.name) for group in groups)
    if sum(group.count for group in groups) == 1:
        return Pass(name, sources)
    return Gate(name, sources, selector, units, (activation,) * len(units), bias)


def _bottoms(inputs: Inputs, tasks: Tasks, bottoms: Sequence[str],
             reads: Mapping[str, Sequence[str]], pool: str, expert_units: Units,
             tower_units: Units, activation: str) -> Network:
    """One level of bottoms (groups of one expert), each tower on those it reads, joined."""
    check_choice("pool", pool, ("concat", "sum", "mean"))
    units = _level_units(expert_units, 1)
    groups = tuple(_group(1, name, "input", 1, units, activation) for name in bottoms)
    fusions: list[Fusion] = []
    for task in tasks:
        name = f"level1/{task}"
        sources = tuple(Source(f"level1/{bottom}/experts") for bottom in reads[task])
        fusions.append(Pass(name, sources) if len(sources) == 1 else
                       Concat(name, sources) if pool == "concat" else
                       Pool(name, sources, pool == "mean"))
    below = {task: f"level1/{task}" for task in tasks}
    return _network(inputs, tasks, [Level(groups, tuple(fusions))], below, tower_units, activation)


def _stitched(names: Sequence[str], levels: int, subspaces: int, expert_units: LevelUnits,
              activation: str, own: float, channels: bool, penalty: float = 0.0,
              overlap: str = "outputs") -> tuple[list[Level], dict[str, str]]:
    """Levels of one group a task, stitched, and what each task's next row reads."""
    units, total = _level_units(expert_units, levels), len(names) * subspaces
    made, below = [], dict.fromkeys(names, "input")
    other = (1 - own) / (total - 1) if total > 1 else 0.0
    for level in range(1, levels + 1):
        groups = tuple(_group(level, name, below[name], subspaces, units, activation, penalty,
                              overlap) for name in names)
        sources = tuple(Source(group.name) for group in groups)
        below = {name: f"level{level}/{name}" for name in names}
        fusions = []
        for k, name in enumerate(names):
            rows = range(k * subspaces, (k + 1) * subspaces)
            start = tuple(tuple(own if i == row else other for i in range(total)) for row in rows)
            fusions.append(Stitch(below[name], sources, start, channels))
        made.append(Level(groups, tuple(fusions)))
    return made, below


def _routed(transform: bool, inputs: Inputs, tasks: Tasks, levels: int, experts: int,
            expert_units: LevelUnits, tower_units: Units, activation: str, l0: float,
            limits: tuple[float, float, float], start: tuple[float, float]) -> Network:
    """Levels of sub-networks; each one, and each tower, routes over all those below."""
    levels, experts = _levels(levels), _count("experts", experts, most=MANY)
    units = _level_units(expert_units, levels)
    names = [f"sub{i + 1}" for i in range(experts)]
    made, below = [], dict.fromkeys(names, "input")
    for level in range(1, levels + 1):
        groups = tuple(_group(level, name, below[name], 1, units, activation) for name in names)
        sources = tuple(Source(group.name) for group in groups)
        above = names if level < levels else _tasks(tasks)
        below = {name: f"level{level}/{name}" for name in above}
        made.append(Level(groups, tuple(Route(name, sources, transform, l0, limits, start)
                                        for name in below.values())))
    return _network(inputs, tasks, made, below, tower_units, activation)


def _group(level: int, name: str, reads: str, count: int, units: Sequence[tuple[int, ...]],
           activation: str, penalty: float = 0.0, overlap: str = "outputs") -> Experts:
    widths = units[level - 1]
    return Experts(f"level{level}/{name}/experts", reads, count, widths,
                   (activation,) * len(widths), penalty=penalty, overlap=overlap)


def _network(inputs: Inputs, tasks: Tasks, levels: Sequence[Level], reads: Mapping[str, str],
             tower_units: Units, activation: str) -> Network:
    """The levels, with a tower a task on the representation `reads[task]`."""
    units = _units("tower_units", tower_units)
    towers = tuple(Tower(task, kind, reads[task], units, (activation,) * len(units))
                   for task, kind in tasks.items())
    if isinstance(inputs, dict):
        columns = tuple((name, _column(kind)) for name, kind in inputs.items())
        return Network(Table(columns, tuple(levels), towers))
    return Network(Table(_count("inputs", inputs), tuple(levels), towers))


def _column(kind: str | Sequence[int | str]) -> str | Embedded:
    """A column's kind with plain lists and integers; what is no kind is for the table to refuse."""
    if not _is_list(kind):
        return kind  # type: ignore[return-value]  # a text, or for the table to refuse
    return tuple(int(size) if isinstance(size, Integral) else size for size in kind)  # type: ignore[return-value]  # of sizes, or for the table to refuse


def _tasks(tasks: Tasks) -> Tasks:
    require(isinstance(tasks, dict) and tasks,
            f"tasks: a non-empty dict of name and kind is needed, got {shown(tasks)}")
    for task, kind in tasks.items():
        check_task(task, kind)
    return tasks


def _levels(value: int) -> int:
    return _count("levels", value, most=MANY)


def _count(what: str, value: object, least: int = 1, most: int = 1_000_000) -> int:
    """`value` as a plain int; NumPy's integers are welcome."""
    return check_count(what, value, least, most)


def _level_units(expert_units: LevelUnits, levels: int) -> list[tuple[int, ...]]:
    """The widths of an expert's layers, level by level."""
    nested = _is_list(expert_units) and any(map(_is_list, expert_units))
    each: list[object] = (_each_level("expert_units", list(expert_units), levels) if nested
                          else [expert_units] * levels)
    by_level = [_units("expert_units", units) for units in each]
    require(all(by_level),
            f"expert_units: an expert needs at least one layer, got {shown(expert_units)}")
    return by_level


def _counts(tasks: Tasks, levels: int, task_experts: TaskCounts, shared_experts: Counts
            ) -> list[dict[str, int]]:
    """Per level: the number of experts by group, tasks first, then shared."""
    counts = []
    for specific, shared in zip(_each_level("task_experts", task_experts, levels),
                                _each_level("shared_experts", shared_experts, levels)):
        own = specific if isinstance(specific, dict) else dict.fromkeys(tasks, specific)
        require(own.keys() == tasks.keys(),
                f"task_experts: a count for each task ({list(tasks)}) is needed, got {own}")
        counts.append({task: _count(f"task_experts: {task!r}", own[task], 0) for task in tasks}
                      | {"shared": _count("shared_experts", shared, 0)})
    return counts


def _each_level(what: str, value: Entry | Sequence[Entry], levels: int) -> list[Entry]:
    """One entry a level: those of a list, or `value` again and again."""
    if not isinstance(value, (list, tuple)):
        return [value] * levels  # type: ignore[list-item]  # no sequence
    require(len(value) == levels,
            f"{what}: {levels} levels need as many entries, got {shown(value)}")
    return list(value)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _units(what: str, units: object) -> tuple[int, ...]:
    if not isinstance(units, (list, tuple)):
        raise InputError(f"{what}: a list of widths is needed, got {shown(units)}")
    return tuple(_count(what, unit) for unit in units)
