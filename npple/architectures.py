"""The architectures, each a routing table: what tells them apart is who reads whom.

All take `inputs` (the width of a plain matrix, or a dict column -> "numeric" or (vocabulary size,
embedding width)) and `tasks` (a dict name -> "binary", "regression" or "multiclass:K").
"""

from npple.errors import InputError, require
from npple.network import Network
from npple.routing import Experts, Gate, Level, Pass, Source, Table, Tower, check_task


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

    The expert groups are called as in `ple`, so the two can be compared parameter by parameter:
    PLE is this model with the gate weights of the cut edges at 0 (PLE paper, section 4.2).

    Parameters and returns as for `ple`.
    """
    return _extraction(False, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                       tower_units, activation, gate_units, gate_bias)


def cgc(inputs, tasks, *, task_experts=2, shared_experts=2, expert_units=(64,), tower_units=(32,),
        activation="relu", gate_units=(), gate_bias=False):
    """Customized Gate Control: PLE with one level (PLE paper, section 4.1).

    Parameters and returns as for `ple`.
    """
    return ple(inputs, tasks, levels=1, task_experts=task_experts, shared_experts=shared_experts,
               expert_units=expert_units, tower_units=tower_units, activation=activation,
               gate_units=gate_units, gate_bias=gate_bias)


def mmoe(inputs, tasks, *, experts=4, expert_units=(64,), tower_units=(32,), activation="relu",
         gate_units=(), gate_bias=False):
    """Multi-gate Mixture-of-Experts (Ma et al., KDD 2018): CGC without specific experts.

    Parameters
    ----------
    experts : int
        Number of shared experts.

    Other parameters and returns as for `ple`.
    """
    return cgc(inputs, tasks, task_experts=0, shared_experts=experts, expert_units=expert_units,
               tower_units=tower_units, activation=activation, gate_units=gate_units,
               gate_bias=gate_bias)


def shared_bottom(inputs, tasks, *, expert_units=(64,), tower_units=(32,), activation="relu"):
    """Shared bottom (Caruana 1997): MMoE with one expert, which every tower reads.

    Parameters and returns as for `ple`.
    """
    return mmoe(inputs, tasks, experts=1, expert_units=expert_units, tower_units=tower_units,
                activation=activation)


def single_task(inputs, tasks, *, expert_units=(64,), tower_units=(32,), activation="relu"):
    """One network a task, nothing shared but the embeddings: CGC without shared experts.

    Parameters and returns as for `ple`.
    """
    return cgc(inputs, tasks, task_experts=1, shared_experts=0, expert_units=expert_units,
               tower_units=tower_units, activation=activation)


ARCHITECTURES = {builder.__name__: builder
                 for builder in (single_task, shared_bottom, mmoe, ml_mmoe, cgc, ple)}


# How the tables are made ------------------------------------------------------------------------

def _extraction(cut, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                tower_units, activation, gate_units, gate_bias):
    """The table of PLE (`cut`) or of ML-MMoE, from the builders' arguments."""
    require(isinstance(tasks, dict) and tasks,
            f"tasks: a non-empty dict of name and kind is needed, got {tasks!r}")
    for task, kind in tasks.items():
        check_task(task, kind)
    require(type(levels) is int and levels > 0,
            f"levels: a positive integer is needed, got {levels!r}")
    counts = _counts(tasks, levels, task_experts, shared_experts)
    nested = _is_list(expert_units) and any(map(_is_list, expert_units))
    units = [_units("expert_units", each)
             for each in _each_level("expert_units", expert_units, levels, nested)]
    gate_units = _units("gate_units", gate_units)

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
        groups = tuple(Experts(f"level{level}/{name}/experts", below[name], n, units[level - 1],
                               (activation,) * len(units[level - 1]))
                       for name, n in count.items() if n)
        fusions = tuple(fuse(level, name, (name, "shared") if cut and name in tasks else count,
                             below[name]) for name in streams)
        below = {name: f"level{level}/{name}" for name in streams}
        made.append(Level(groups, fusions))
    towers = _towers(tasks, below, tower_units, activation)
    return Network(Table(_inputs(inputs), tuple(made), towers))


def _towers(tasks, reads, tower_units, activation):
    units = _units("tower_units", tower_units)
    return tuple(Tower(task, kind, reads[task], units, (activation,) * len(units))
                 for task, kind in tasks.items())


def _inputs(inputs):
    """Columns as the pairs the table holds; a width as it is."""
    if not isinstance(inputs, dict):
        return inputs
    return tuple((name, tuple(kind) if isinstance(kind, list) else kind)
                 for name, kind in inputs.items())


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
        count = {task: specific[task] for task in tasks} | {"shared": shared}
        for name, n in count.items():
            require(type(n) is int and n >= 0,
                    f"{'shared' if name == 'shared' else 'task'}_experts: a count of at least 0 is "
                    f"needed, got {n!r} for {name!r}")
        counts.append(count)
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
    try:
        units = tuple(units)
    except TypeError:
        raise InputError(f"{what}: a sequence of widths is needed, got {units!r}") from None
    for unit in units:
        require(type(unit) is int and unit > 0,
                f"{what}: widths are positive integers, got {unit!r}")
    return units
