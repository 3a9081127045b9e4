"""Equal budgets: the expert width at which an architecture has a given number of parameters."""

import inspect
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from npple.architectures import ARCHITECTURES, MANY, Inputs
from npple.checks import check_choice, check_count, check_kind, shown
from npple.errors import require
from npple.network import Network

LARGEST = 10 ** 9  # parameters
TOLERANCE = 0.1  # a budget missed by more than this share is refused: no equal comparison


def parameters(networks: Iterable[Network]) -> tuple[int, int]:
    """How many parameters the networks have together: without their embeddings, and embeddings.

    Parameters
    ----------
    networks : iterable of npple.network.Network

    Returns
    -------
    parameters, embeddings : int
    """
    sizes = [0, 0]
    for network in networks:
        for name, shape in network.shapes.items():
            sizes[name.startswith("embedding/")] += prod(shape)
    return sizes[0], sizes[1]


def known_options(names: Iterable[str]) -> set[str]:
    """The arguments of the builders that a comparison may set for all of them.

    Parameters
    ----------
    names : iterable of str
        Of `npple.ARCHITECTURES`.

    Returns
    -------
    set of str
        All that one of the builders takes, but the inputs, tasks, levels and expert widths.
    """
    known = {option for name in names
             for option in inspect.signature(ARCHITECTURES[name]).parameters}
    return known - {"inputs", "tasks", "levels", "expert_units"}


def networks(name: str, inputs: Inputs, tasks: Mapping[str, str], width: int, levels: int = 2,
             options: Mapping[str, Any] | None = None) -> list[Network]:
    """The networks of an architecture: one, but for `single_task` one a task.

    All architectures get the same depth: those with levels have `levels` of them with experts of
    one layer, the others have experts of `levels` layers.

    Parameters
    ----------
    name : str
        Of `npple.ARCHITECTURES`.
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    width : int
        Of every layer of the experts.
    levels : int
        Extraction levels, or layers of an expert.
    options : dict, optional
        Further arguments of builders; each builder is given those it has.

    Returns
    -------
    list of npple.network.Network

    Raises
    ------
    InputError
        For an unknown architecture, or arguments that its builder refuses.
    """
    check_choice("model", name, ARCHITECTURES)
    check_kind("tasks", tasks, dict, "a dict of task and kind")
    check_kind("options", options, (dict, type(None)), "a dict")
    check_count("levels", levels, most=MANY)
    builder = ARCHITECTURES[name]
    known = inspect.signature(builder).parameters
    given = {option: value for option, value in (options or {}).items() if option in known}
    if "levels" in known:
        given |= {"levels": levels, "expert_units": (width,)}
    else:
        given["expert_units"] = (width,) * levels
    groups = [tasks] if name != "single_task" else [{task: tasks[task]} for task in tasks]
    return [builder(inputs, group, **given) for group in groups]


def sized(name: str, inputs: Inputs, tasks: Mapping[str, str], budget: int, levels: int = 2,
          options: Mapping[str, Any] | None = None) -> list[Network]:
    """The networks of an architecture at the expert width that comes closest to a budget.

    Parameters
    ----------
    name : str
        Of `npple.ARCHITECTURES`.
    inputs : int or dict
        Width of the matrix x; or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    budget : int
        How many parameters all its networks together shall have, embeddings not counted.
    levels : int
        Extraction levels, or layers of an expert.
    options : dict, optional
        Further arguments of builders; each builder is given those it has.

    Returns
    -------
    list of npple.network.Network
        One, but for `single_task` one a task.

    Raises
    ------
    InputError
        If the closest number of parameters is more than a tenth off, or the builder refuses.
    """
    def count(width: int) -> int:
        return parameters(networks(name, inputs, tasks, width, levels, options))[0]

    require(type(budget) is int and 0 < budget <= LARGEST,
            f"budget: a positive integer up to {LARGEST} is needed, got {shown(budget)}")
    widths = range(1, budget + 1)  # more parameters than units, whatever the architecture
    at = bisect_left(widths, budget, key=count)
    width = min(widths[max(at - 1, 0):at + 1], key=lambda width: abs(count(width) - budget))
    found = count(width)
    require(abs(found - budget) <= TOLERANCE * budget,
            f"budget: {budget:,} parameters are out of reach of {name}: its closest is {found:,}")
    return networks(name, inputs, tasks, width, levels, options)
