"""What training made of a model: how its gates use the experts, which connections SNR pruned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npple.checks import check_params
from npple.core.base import Arrays
from npple.core.ops import hard_concrete_forward
from npple.core.table import Table
from npple.learn.dataset import Dataset
from npple.learn.training import over_rows
from npple.network import Network
from npple.printing import aligned
from npple.routing import Fusion, Gate, Route


def utilization(model: Network, params: Arrays, data: Dataset, rows: int = 8192
                ) -> list[dict[str, Any]]:
    """The mean and the deviation, over the rows, of each gate's weight on each expert.

    Parameters
    ----------
    model : npple.network.Network
    params : dict of ndarray
    data : npple.data.Dataset
    rows : int
        How many are run at a time.

    Returns
    -------
    list of dict
        One for each gate and expert: `into` (what the gate makes, such as `level1/income`),
        `group` (such as `level1/shared/experts`), `expert` (its number in the group, from 1),
        `mean` and `deviation` of its weight.
    """
    gates = [row for row in model.table.rows if isinstance(row, Gate)]
    parts = over_rows(model, params, data, rows, lambda trace: [
        trace[f"{gate.parameters}/weights"] for gate in gates])  # each (batch, n)
    entries = []
    for gate, own in zip(gates, zip(*parts)):
        weights = np.concatenate(own).astype(np.float64)  # (rows, n)
        columns = zip(_mixed(gate, model.table), weights.mean(axis=0), weights.std(axis=0))
        entries += [expert | {"mean": float(mean), "deviation": float(deviation)}
                    for expert, mean, deviation in columns]
    return entries


def utilization_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries of `utilization` as a table: a line for each gate and group.

    Parameters
    ----------
    entries : list of dict
        From `utilization`.

    Returns
    -------
    str
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        lines.setdefault((entry["into"], entry["group"]), []).append(
            f"{entry['mean']:.3f} ± {entry['deviation']:.3f}")
    return aligned([(*key, "   ".join(cells)) for key, cells in lines.items()])


def connections(model: Network, params: Arrays) -> list[dict[str, Any]]:
    """Every routed connection of an SNR model, and how far it is open at inference.

    Parameters
    ----------
    model : npple.network.Network
    params : dict of ndarray

    Returns
    -------
    list of dict
        `into` (the fusion that reads), `group` (what it reads, such as `level1/sub2/experts`),
        `expert` (its number in the group, from 1) and `z`, from 0 (pruned) to 1. Empty for a model
        without routing variables.

    Raises
    ------
    InputError
        For parameters that are not the model's.

    References
    ----------
    Ma et al., "SNR", AAAI 2019.
    """
    check_params(model.table, params)
    entries = []
    for row in model.table.rows:
        if isinstance(row, Route):
            z, _ = hard_concrete_forward(params[f"{row.parameters}/log_alpha"],
                                         limits=row.limits)
            entries += [expert | {"z": float(value)}
                        for expert, value in zip(_mixed(row, model.table), z)]
    return entries


def pruned_share(entries: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of `connections` that are pruned.

    Parameters
    ----------
    entries : list of dict
        From `connections`.

    Returns
    -------
    float or None
        None where there are no connections.
    """
    return sum(entry["z"] == 0 for entry in entries) / len(entries) if entries else None


def connections_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries of `connections` as tables: what reads down, what is read across, z inside.

    Parameters
    ----------
    entries : list of dict
        From `connections`.

    Returns
    -------
    str
    """
    lines, shown = [], None
    for into in dict.fromkeys(entry["into"] for entry in entries):
        own = [entry for entry in entries if entry["into"] == into]
        read = [f"{entry['group'].removesuffix('/experts')}" for entry in own]
        if read != shown:
            lines.append(f"{'z':20}" + "".join(f"{name:>16}" for name in read))
            shown = read
        cells = ("pruned" if entry["z"] == 0 else f"{entry['z']:.3f}" for entry in own)
        lines.append(f"{into:20}" + "".join(f"{cell:>16}" for cell in cells))
    closed = sum(entry["z"] == 0 for entry in entries)
    return "\n".join([*lines, f"pruned: {closed} of {len(entries)} connections"])


def _mixed(fusion: Fusion, table: Table) -> list[dict[str, Any]]:
    """The experts that a fusion mixes, in the order of its weights."""
    return [{"into": fusion.name, "group": source.name, "expert": expert + 1}
            for source in fusion.sources
            for expert in source.experts or range(source.count(table))]
