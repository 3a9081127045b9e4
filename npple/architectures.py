"""The architectures, each a routing table: what tells them apart is who reads whom.

All take `inputs` (the width of a plain matrix, or a dict column -> "numeric" or (vocabulary size,
embedding width)) and `tasks` (a dict name -> "binary", "regression" or "multiclass:K").
"""

from __future__ import annotations

from numbers import Integral

from npple.checks import check_count
from npple.errors import require
from npple.network import Network
from npple.core.rows import (Concat, Experts, Gate, Pass, Route, Source, Stitch, Tower,
                             check_task)
from npple.core.table import Level, Table

MANY = 1000  # levels, subspaces or sub-networks: each is a row of the table of its own


def ple(inputs, tasks, *, levels=2, task_experts=2, shared_experts=2, expert_units=(64,),
        tower_units=(32,), activation="relu", gate_units=(), gate_bias=False):
    """Progressive Layered Extraction (Tang et al., RecSys 2020, section 4.2).

    A task's experts and gate read that task's representation of the level below; shared experts
    and the shared gate read the shared one. A task's gate mixes its own experts and the shared
    ones, in this order; the shared gate mixes all experts, tasks first. There is no shared gate
    where no later level has shared experts, so none on the last level.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
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

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _extraction(True, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                       tower_units, activation, gate_units, gate_bias)


def ml_mmoe(inputs, tasks, *, levels=2, task_experts=2, shared_experts=2, expert_units=(64,),
            tower_units=(32,), activation="relu", gate_units=(), gate_bias=False):
    """Multi-level MMoE: PLE with no edge cut, every gate mixes all experts of its level.

    The expert groups have the names they have in `ple`, so the two can be compared parameter by
    parameter: PLE is this model with the gate weights of the cut edges at 0 (PLE paper, section
    4.2).

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
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

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _extraction(False, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                       tower_units, activation, gate_units, gate_bias)


def cgc(inputs, tasks, *, task_experts=2, shared_experts=2, expert_units=(64,), tower_units=(32,),
        activation="relu", gate_units=(), gate_bias=False):
    """Customized Gate Control: PLE with one level (PLE paper, section 4.1).

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    task_experts : int or dict of int
        Experts of each task: for all, or by task. 0 for none.
    shared_experts : int
        Shared experts; 0 for none.
    expert_units : sequence of int
        Widths of an expert's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers and gates: "relu", "tanh",
        "sigmoid", "identity", "gelu" or "softplus".
    gate_units : sequence of int
        Widths of a gate's hidden layers; the paper has none.
    gate_bias : bool
        Whether a gate's last layer has a bias; the paper has none.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return ple(inputs, tasks, levels=1, task_experts=task_experts, shared_experts=shared_experts,
               expert_units=expert_units, tower_units=tower_units, activation=activation,
               gate_units=gate_units, gate_bias=gate_bias)


def mmoe(inputs, tasks, *, experts=4, expert_units=(64,), tower_units=(32,), activation="relu",
         gate_units=(), gate_bias=False):
    """Multi-gate Mixture-of-Experts (Ma et al., KDD 2018): CGC without specific experts.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    experts : int
        Number of shared experts.
    expert_units : sequence of int
        Widths of an expert's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers and gates: "relu", "tanh",
        "sigmoid", "identity", "gelu" or "softplus".
    gate_units : sequence of int
        Widths of a gate's hidden layers; the paper has none.
    gate_bias : bool
        Whether a gate's last layer has a bias; the paper has none.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return cgc(inputs, tasks, task_experts=0, shared_experts=_count("experts", experts),
               expert_units=expert_units, tower_units=tower_units, activation=activation,
               gate_units=gate_units, gate_bias=gate_bias)


def shared_bottom(inputs, tasks, *, expert_units=(64,), tower_units=(32,), activation="relu"):
    """Shared bottom (Caruana 1997): MMoE with one expert, which every tower reads.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    expert_units : sequence of int
        Widths of a bottom's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of bottoms and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return mmoe(inputs, tasks, experts=1, expert_units=expert_units, tower_units=tower_units,
                activation=activation)


def single_task(inputs, tasks, *, expert_units=(64,), tower_units=(32,), activation="relu"):
    """One network a task, nothing shared but the embeddings: CGC without shared experts.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    expert_units : sequence of int
        Widths of an expert's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return cgc(inputs, tasks, task_experts=1, shared_experts=0, expert_units=expert_units,
               tower_units=tower_units, activation=activation)


def asymmetric_sharing(inputs, tasks, *, borrows=None, expert_units=(64,), tower_units=(32,),
                       activation="relu"):
    """Asymmetric sharing (PLE paper, figure 1): some towers also read other tasks' bottoms.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    borrows : dict of sequence of str, optional
        Task -> the tasks whose bottom its tower reads beside its own. By default each task
        borrows from those named before it, so the first is on its own.
    expert_units : sequence of int
        Widths of a bottom's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of bottoms and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    names = list(_tasks(tasks))
    if borrows is None:
        borrows = {task: names[:i] for i, task in enumerate(names)}
    require(isinstance(borrows, dict), f"borrows: a dict by task is needed, got {borrows!r}")
    for task, others in borrows.items():
        require(_is_list(others) and task in names and all(o in names for o in others)
                and task not in others,
                f"borrows: {task!r}: {others!r}, expected a list of other tasks of {names}")
    reads = {task: (task, *borrows.get(task, ())) for task in names}
    return _bottoms(inputs, tasks, names, reads, expert_units, tower_units, activation)


def customized_sharing(inputs, tasks, *, expert_units=(64,), tower_units=(32,),
                       activation="relu"):
    """Customized sharing (PLE paper, figure 1): each tower reads its own and a shared bottom.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    expert_units : sequence of int
        Widths of a bottom's layers.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of bottoms and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    reads = {task: (task, "shared") for task in _tasks(tasks)}
    return _bottoms(inputs, tasks, [*tasks, "shared"], reads, expert_units, tower_units, activation)


def cross_stitch(inputs, tasks, *, levels=2, expert_units=(64,), tower_units=(32,),
                 activation="relu", own=0.9):
    """Cross-stitch networks (Misra et al., CVPR 2016): after each level the tasks' activations mix.

    The mixture constants are learned. They start near the identity: `own` for a task's own
    activations, the rest spread evenly over the others.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    levels : int
        Number of levels.
    expert_units : sequence of int, or a sequence of these
        Widths of an expert's layers: on all levels, or one sequence a level.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".
    own : float
        In [0, 1]; 1 starts as single-task networks.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _stitched(inputs, tasks, levels, 1, expert_units, tower_units, activation, own, 0.0,
                     False)


def sluice(inputs, tasks, *, levels=2, subspaces=2, expert_units=(64,), tower_units=(32,),
           activation="relu", own=0.9, orthogonality=0.0):
    """Sluice networks (Ruder et al. 2017): subspaces, their mixing matrix, a mixture over levels.

    A task's layer is cut into subspaces (experts that read one representation). Each input to the
    next level is a learned mixture of all subspaces of all tasks; each tower reads a learned
    mixture of its task's representations on all levels, which therefore have one width.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    levels : int
        Number of levels.
    subspaces : int
        Subspaces of each task and level.
    expert_units : sequence of int, or a sequence of these
        Widths of a subspace's layers: on all levels, or one sequence a level; the last widths
        of all levels are equal.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".
    own : float
        In [0, 1]: where a subspace's own constant starts.
    orthogonality : float
        Weight of the penalty |W_i^T W_j|² on the subspaces i < j of a task and level.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _stitched(inputs, tasks, levels, subspaces, expert_units, tower_units, activation, own,
                     orthogonality, True)


def snr_trans(inputs, tasks, *, levels=2, experts=4, expert_units=(64,), tower_units=(32,),
              activation="relu", l0=0.0):
    """SNR-Trans (Ma et al., AAAI 2019): sub-networks joined by routed linear transforms.

    A sub-network of level two and up, and each tower, reads sum_i z_i W_i u_i over the
    sub-networks below, z_i hard concrete: open, closed or between, learned with noise.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    levels : int
        Number of levels.
    experts : int
        Sub-networks a level.
    expert_units : sequence of int, or a sequence of these
        Widths of a sub-network's layers: on all levels, or one sequence a level.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".
    l0 : float
        Weight of the penalty on the expected number of open connections.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _routed(True, inputs, tasks, levels, experts, expert_units, tower_units, activation, l0)


def snr_aver(inputs, tasks, *, levels=2, experts=4, expert_units=(64,), tower_units=(32,),
             activation="relu", l0=0.0):
    """SNR-Aver (Ma et al., AAAI 2019): as `snr_trans` without transforms, sum_i z_i u_i.

    Parameters
    ----------
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    levels : int
        Number of levels.
    experts : int
        Sub-networks a level.
    expert_units : sequence of int, or a sequence of these
        Widths of a sub-network's layers: on all levels, or one sequence a level.
    tower_units : sequence of int
        Widths of a tower's hidden layers; () for a linear tower.
    activation : str
        After every layer of experts and hidden layer of towers: "relu", "tanh", "sigmoid",
        "identity", "gelu" or "softplus".
    l0 : float
        Weight of the penalty on the expected number of open connections.

    Returns
    -------
    npple.network.Network

    Raises
    ------
    InputError
        For counts, widths, names or kinds that make no model.
    """
    return _routed(False, inputs, tasks, levels, experts, expert_units, tower_units, activation, l0)


ARCHITECTURES = {builder.__name__: builder for builder in (
    single_task, shared_bottom, asymmetric_sharing, customized_sharing, cross_stitch, sluice, mmoe,
    ml_mmoe, snr_trans, snr_aver, cgc, ple)}


# How the tables are made ------------------------------------------------------------------------

def _extraction(cut, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                tower_units, activation, gate_units, gate_bias):
    """The table of PLE (`cut`) or of ML-MMoE, from the builders' arguments."""
    levels = _levels(levels)
    counts = _counts(_tasks(tasks), levels, task_experts, shared_experts)
    units = _level_units(expert_units, levels)
    gate_units = _units("gate_units", gate_units)
    require(type(gate_bias) is bool, f"gate_bias: True or False is needed, got {gate_bias!r}")

    def fuse(level, stream, mixed, selector):
        """The fusion that makes the representation `stream` from the groups `mixed`."""
        sources = tuple(Source(f"level{level}/{name}/experts") for name in mixed
                        if counts[level - 1][name])
        require(sources, f"task_experts, shared_experts: {stream!r} has no expert on level {level}")
        if sum(counts[level - 1][name] for name in mixed) == 1:
            return Pass(f"level{level}/{stream}", sources)
        return Gate(f"level{level}/{stream}", sources, selector, gate_units,
                    (activation,) * len(gate_units), gate_bias)

    made, below = [], dict.fromkeys((*tasks, "shared"), "input")
    for level, count in enumerate(counts, start=1):
        streams = [*tasks, "shared"] if any(c["shared"] for c in counts[level:]) else [*tasks]
        groups = tuple(_group(level, name, below[name], n, units, activation)
                       for name, n in count.items() if n)
        fusions = tuple(fuse(level, name, (name, "shared") if cut and name in tasks else count,
                             below[name]) for name in streams)
        below = {name: f"level{level}/{name}" for name in streams}
        made.append(Level(groups, fusions))
    return _network(inputs, tasks, made, below, tower_units, activation)


def _bottoms(inputs, tasks, bottoms, reads, expert_units, tower_units, activation):
    """One level of bottoms (groups of one expert), each tower on those it reads, side by side."""
    units = _level_units(expert_units, 1)
    groups = tuple(_group(1, name, "input", 1, units, activation) for name in bottoms)
    fusions = []
    for task in tasks:
        sources = tuple(Source(f"level1/{name}/experts") for name in reads[task])
        fusions.append((Concat if len(sources) > 1 else Pass)(f"level1/{task}", sources))
    below = {task: f"level1/{task}" for task in tasks}
    return _network(inputs, tasks, [Level(groups, tuple(fusions))], below, tower_units, activation)


def _stitched(inputs, tasks, levels, subspaces, expert_units, tower_units, activation, own, penalty,
              over_levels):
    """Levels of one group a task, stitched; with a mixture `over_levels` before the towers."""
    names = list(_tasks(tasks))
    levels, subspaces = _levels(levels), _count("subspaces", subspaces, most=MANY)
    units = _level_units(expert_units, levels)
    require(isinstance(own, (int, float)) and 0 <= own <= 1,
            f"own: a number from 0 to 1 is needed, got {own!r}")
    made, below, total = [], dict.fromkeys(names, "input"), len(names) * subspaces
    other = (1 - own) / (total - 1) if total > 1 else 0.0
    for level in range(1, levels + 1):
        groups = tuple(_group(level, name, below[name], subspaces, units, activation, penalty)
                       for name in names)
        sources, below = tuple(Source(group.name) for group in groups), {}
        fusions = []
        for k, name in enumerate(names):
            rows = range(k * subspaces, (k + 1) * subspaces)
            start = tuple(tuple(own if i == row else other for i in range(total)) for row in rows)
            below[name] = f"level{level}/{name}"
            fusions.append(Stitch(below[name], sources, start))
        made.append(Level(groups, tuple(fusions)))
    if over_levels:
        start = ((1 / levels,) * levels,)
        outputs = {name: Stitch(f"levels/{name}", tuple(
            Source(f"level{level}/{name}", group=False) for level in range(1, levels + 1)), start)
            for name in names}
        made[-1] = Level(made[-1].groups, made[-1].fusions + tuple(outputs.values()))
        below = {name: output.name for name, output in outputs.items()}
    return _network(inputs, tasks, made, below, tower_units, activation)


def _routed(transform, inputs, tasks, levels, experts, expert_units, tower_units, activation, l0):
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
        made.append(Level(groups, tuple(Route(name, sources, transform, l0)
                                        for name in below.values())))
    return _network(inputs, tasks, made, below, tower_units, activation)


def _group(level, name, reads, count, units, activation, penalty=0.0):
    units = units[level - 1]
    return Experts(f"level{level}/{name}/experts", reads, count, units, (activation,) * len(units),
                   penalty=penalty)


def _network(inputs, tasks, levels, reads, tower_units, activation):
    """The levels, with a tower a task on the representation `reads[task]`."""
    units = _units("tower_units", tower_units)
    towers = tuple(Tower(task, kind, reads[task], units, (activation,) * len(units))
                   for task, kind in tasks.items())
    if isinstance(inputs, dict):
        inputs = tuple((name, _column(name, kind)) for name, kind in inputs.items())
    else:
        inputs = _count("inputs", inputs)
    return Network(Table(inputs, tuple(levels), towers))


def _column(name, kind):
    """A column's kind with plain lists and integers; what is no kind is for the table to refuse."""
    if _is_list(kind):
        return tuple(int(size) if isinstance(size, Integral) else size for size in kind)
    return kind


def _tasks(tasks):
    require(isinstance(tasks, dict) and tasks,
            f"tasks: a non-empty dict of name and kind is needed, got {tasks!r}")
    for task, kind in tasks.items():
        check_task(task, kind)
    return tasks


def _levels(value):
    return _count("levels", value, most=MANY)


def _count(what, value, least=1, most=1_000_000):
    """`value` as a plain int; NumPy's integers are welcome."""
    check_count(what, value, least, most)
    return int(value)


def _level_units(expert_units, levels):
    """The widths of an expert's layers, level by level."""
    nested = _is_list(expert_units) and any(map(_is_list, expert_units))
    by_level = [_units("expert_units", each)
                for each in _each_level("expert_units", expert_units, levels, nested)]
    require(all(by_level), f"expert_units: an expert needs at least one layer, got {expert_units!r}")
    return by_level


def _counts(tasks, levels, task_experts, shared_experts):
    """Per level: the number of experts by group, tasks first, then shared."""
    counts = []
    by_level = zip(_each_level("task_experts", task_experts, levels, _is_list(task_experts)),
                   _each_level("shared_experts", shared_experts, levels, _is_list(shared_experts)))
    for specific, shared in by_level:
        if not isinstance(specific, dict):
            specific = dict.fromkeys(tasks, specific)
        require(specific.keys() == tasks.keys(),
                f"task_experts: a count for each task ({list(tasks)}) is needed, got {specific}")
        counts.append({task: _count(f"task_experts: {task!r}", specific[task], 0) for task in tasks}
                      | {"shared": _count("shared_experts", shared, 0)})
    return counts


def _each_level(what, value, levels, is_list):
    """One entry a level: those of a list, or `value` again and again."""
    if not is_list:
        return [value] * levels
    require(len(value) == levels, f"{what}: {levels} levels need as many entries, got {value!r}")
    return list(value)


def _is_list(value):
    return isinstance(value, (list, tuple))


def _units(what, units):
    require(_is_list(units), f"{what}: a list of widths is needed, got {units!r}")
    return tuple(_count(what, unit) for unit in units)
