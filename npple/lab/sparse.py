"""A dense and a sparse task: does CGC's isolation protect the dense one?"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from npple.data import Dataset
from npple.lab.compare import Problem, Training, compare, vtr_vcr_cases
from npple.lab.finding import Experiment, Found
from npple.lab.gains import Comparison, Outcome

ARCHITECTURES = ("single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple")
TASKS = {"vtr": "binary", "share": "binary"}
SHARED, SEPARATE = ("shared_bottom", "mmoe"), ("cgc", "ple")


@dataclass(frozen=True)
class SparseSettings:
    """Of all trainings of the experiment; see `EXPERIMENT`."""

    rows: int
    seeds: int
    epochs: int
    rates: tuple[float, ...]
    sharing: tuple[float, ...]
    inputs: int = 16
    budget: int = 6000
    dependence: float = 0.8


def measure(given: SparseSettings, **where: Any) -> Found:
    """All trainings, and what they say.

    Parameters
    ----------
    given : SparseSettings
    **where
        For `npple.lab.compare.compare`.

    Returns
    -------
    npple.lab.finding.Found
    """
    cases = [_case(given, sharing, 0) for sharing in given.sharing]
    return found_of(compare(cases, ARCHITECTURES, seeds=range(given.seeds), budget=given.budget,
                            rates=given.rates, data_seeds=True,
                            training=Training(given.epochs, 256, patience=4), **where))


def _case(given: SparseSettings, sharing: float, seed: int) -> Problem:
    """The videos of `vtr_vcr` with the views and shares alone."""
    whole, = vtr_vcr_cases((given.dependence,), given.rows, given.inputs, sharing=sharing,
                           seed=seed)
    return replace(whole, name=f"sharing {sharing:g}", train=_two(whole.train),
                   test=_two(whole.test), tasks=dict(TASKS), scenes={},
                   draw=partial(_case, given, sharing))


def _two(data: Dataset) -> Dataset:
    return Dataset(data.x, {task: data.targets[task] for task in TASKS},
                   {"share": data.masks["share"]})


def found_of(found: Comparison) -> Found:
    """The table and the parts of the claim.

    Parameters
    ----------
    found : npple.lab.gains.Comparison

    Returns
    -------
    npple.lab.finding.Found
    """
    rows = [row for row in found.outcomes if row.architecture != "single_task"]
    table = {f"{row.data}: {row.architecture}": {
        "gain of vtr": row.gains["vtr"], "detectable": row.gains["vtr"] and
        row.gains["vtr"].detectable, "p with Holm": row.holm["vtr"],
        "gain of share": row.gains["share"], "rate": row.rate,
        "best epoch is the last": row.late} for row in rows}
    lost = {row.architecture for row in rows if _loses(row)}
    parts = [not lost.isdisjoint(SHARED), lost.isdisjoint(SEPARATE)]
    losers = ", ".join(f"{row.architecture} ({row.data})" for row in rows if _loses(row))
    return Found(table, parts if parts[0] else [False],  # no loss, nothing to protect from
                 f"The dense task loses beyond noise in: {losers or 'none'}.", found.results)


def _loses(row: Outcome) -> bool:
    gain = row.gains["vtr"]
    return gain is not None and gain.direction < 0


EXPERIMENT = Experiment(
    "dense-and-sparse",
    "Separate experts keep a task from what another one does to shared experts (PLE, sections "
    "3.2 and 4.1): beside a sparse task the dense one loses in a shared bottom and in MMoE, "
    "and not in CGC and PLE",
    SparseSettings(5000, 3, 12, (1e-2, 3e-3), (0.02,)),
    SparseSettings(20_000, 8, 30, (1e-2, 3e-3), (0.005, 0.05)), measure)
