"""Where the seesaw is: the scenes' knob, capacity and loss weight, over several worlds."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from npple.data import Dataset
from npple.lab.compare import Problem, Training, compare, vtr_vcr_cases
from npple.lab.finding import Finding, verdict
from npple.lab.gains import Outcome

NAME = "seesaw-map"
CLAIM = ("Where the correlation of two tasks depends on the sample, a shared bottom and MMoE "
         "improve one at the cost of the other; PLE improves both (PLE, sections 3.2 and 5.1.5)")
ARCHITECTURES = ("single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple")
TASKS = {"vtr": "binary", "vcr": "regression"}
SEESAWING = ("shared_bottom", "mmoe", "ml_mmoe")  # what the claim says it of


@dataclass(frozen=True)
class SeesawSettings:
    """Of all trainings of the experiment; `QUICK` and `FULL` are such."""

    rows: int
    worlds: int
    epochs: int
    rates: tuple[float, ...]
    dependences: tuple[float, ...]
    budgets: tuple[int, ...]
    weights: tuple[float, ...]
    inputs: int = 16


QUICK = SeesawSettings(5000, 3, 10, (), (0.0, 0.9), (6000,), (1.0, 4.0))
FULL = SeesawSettings(20_000, 20, 40, (1e-2, 3e-3, 1e-3), (0.0, 0.5, 0.9), (3000, 12_000),
                (0.25, 1.0, 4.0))


def run(quick: bool, **where: Any) -> Finding:
    """The whole experiment.

    Parameters
    ----------
    quick : bool
        Fewer rows, epochs, worlds and cells; one learning rate.
    **where
        For `npple.lab.compare.compare`.

    Returns
    -------
    Finding
    """
    given = QUICK if quick else FULL
    table: dict[str, dict[str, Any]] = {}
    rows, seconds = list[Outcome](), 0.0
    cases = [_case(given, dependence, 0) for dependence in given.dependences]
    for budget, weight in product(given.budgets, given.weights):
        found = compare(cases, ARCHITECTURES, seeds=range(given.worlds), budget=budget,
                        rates=given.rates, data_seeds=True, training=Training(
                            given.epochs, 256, patience=4, weights={"vcr": weight}), **where)
        own = [row for row in found.outcomes if row.architecture != "single_task"]
        table |= {f"{row.data}, {budget:,} parameters, weight {weight:g}: {row.architecture}":
                  _cells(row) for row in own}
        rows += own
        seconds += sum(result["seconds"] for result in found.results)
    return finding(table, rows, given, quick, seconds)


def _cells(row: Outcome) -> dict[str, Any]:
    word = "strict" if row.seesaw else "by sign" if row.seesaw_by_sign else "no"
    return {"gain of vtr": row.gains["vtr"], "gain of vcr": row.gains["vcr"],
            "detectable vtr": row.gains["vtr"] and row.gains["vtr"].detectable,
            "detectable vcr": row.gains["vcr"] and row.gains["vcr"].detectable,
            "mean relative gain": row.mean_gain, "seesaw": word, "rate": row.rate}


def _case(given: SeesawSettings, dependence: float, seed: int) -> Problem:
    """The videos of `vtr_vcr` without the shares."""
    whole, = vtr_vcr_cases((dependence,), given.rows, given.inputs, seed=seed)
    return replace(whole, name=f"dependence {dependence:g}", train=_two(whole.train),
                   test=_two(whole.test), tasks=dict(TASKS), scenes={},
                   draw=partial(_case, given, dependence))


def _two(data: Dataset) -> Dataset:
    return Dataset(data.x, {task: data.targets[task] for task in TASKS},
                   {"vcr": data.masks["vcr"]})


def finding(table: dict[str, dict[str, Any]], rows: list[Outcome], given: SeesawSettings,
            quick: bool, seconds: float) -> Finding:
    """The verdict on the map.

    Parameters
    ----------
    table : dict of dict
    rows : list of npple.lab.gains.Outcome
        Of all its cells, without single task.
    given : SeesawSettings
    quick : bool
    seconds : float

    Returns
    -------
    Finding
    """
    strict = Counter(row.architecture for row in rows if row.seesaw)
    signs = Counter(row.architecture for row in rows if row.seesaw_by_sign)
    names = dict.fromkeys(row.architecture for row in rows)
    parts = [any(strict[name] for name in SEESAWING), not strict["ple"]]
    cells = len(rows) // len(names)
    words = ", ".join(f"{name} {strict[name]} (by sign {signs[name]})" for name in names)
    return Finding(NAME, CLAIM, f"npple claims {NAME}" + " --quick" * quick, asdict(given), table,
                   verdict(parts if parts[0] else [False]),  # no seesaw, none to avoid
                   f"Strict seesaws in {cells} cells of the map: {words}.", seconds=seconds)
