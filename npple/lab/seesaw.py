"""Where the seesaw is: the scenes' knob, capacity and loss weight, over several worlds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npple.lab.compare import Problem, Training, compare, vtr_vcr_cases
from npple.lab.finding import Experiment, Found
from npple.lab.gains import Comparison, Outcome

ARCHITECTURES = ("single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple")
CHOOSING = 3  # worlds on which each model's rate is chosen, for the whole map
SEESAWING = ("shared_bottom", "mmoe", "ml_mmoe")  # what the claim says it of


@dataclass(frozen=True)
class SeesawSettings:
    """Of all trainings of the experiment; see `EXPERIMENT`."""

    rows: int
    seeds: int
    epochs: int
    rates: tuple[float, ...]
    dependences: tuple[float, ...]
    budgets: tuple[int, ...]
    weights: tuple[float, ...]
    inputs: int = 16


def measure(given: SeesawSettings, **where: Any) -> Found:
    """All trainings, a world each seed, and what they say.

    Parameters
    ----------
    given : SeesawSettings
    **where
        For `npple.lab.compare.compare`.

    Returns
    -------
    npple.lab.finding.Found
    """
    cases = vtr_vcr_cases(given.dependences, given.rows, given.inputs, tasks=2)

    def trained(names: Sequence[str], cases: Sequence[Problem], budget: int, **how: Any
                ) -> Comparison:
        plan = replace(Training(given.epochs, 256, patience=4), **how.pop("training", {}))
        return compare(cases, names, budget=budget, data_seeds=True, training=plan,
                       **{"seeds": range(given.seeds), **how}, **where)

    tried = trained(ARCHITECTURES, cases[len(cases) // 2:][:1], given.budgets[0],
                    rates=given.rates, choosing=CHOOSING, seeds=range(CHOOSING))
    chosen = {row.architecture: row.rate for row in tried.outcomes}
    table: dict[str, dict[str, Any]] = {}
    rows, everything = list[Outcome](), list(tried.results)
    for budget in given.budgets:
        alone = trained(["single_task"], cases, budget, training={"rate": chosen["single_task"]})
        everything += alone.results
        for weight in given.weights:
            results = [result for name in ARCHITECTURES[1:] for result in trained(
                [name], cases, budget, training={"rate": chosen[name], "weights": {"vcr": weight}}
                ).results]
            own = [row for row in replace(alone, results=alone.results + results).outcomes
                   if row.architecture != "single_task"]
            table |= {f"{row.data}, {budget:,} parameters, weight {weight:g}: {row.architecture}":
                      _cells(row) for row in own}
            rows += own
            everything += results
    return found_of(table, rows, everything)


def _cells(row: Outcome) -> dict[str, Any]:
    word = "strict" if row.seesaw else "by sign" if row.seesaw_by_sign else "no"
    return {"gain of vtr": row.gains["vtr"], "gain of vcr": row.gains["vcr"],
            "detectable vtr": row.gains["vtr"] and row.gains["vtr"].detectable,
            "detectable vcr": row.gains["vcr"] and row.gains["vcr"].detectable,
            "mean relative gain": row.mean_gain, "seesaw": word, "rate": row.rate}


def found_of(table: dict[str, dict[str, Any]], rows: Sequence[Outcome],
             results: Sequence[Mapping[str, Any]]) -> Found:
    """The parts of the claim, of the whole map.

    Parameters
    ----------
    table : dict of dict
    rows : list of npple.lab.gains.Outcome
        Of all its cells, without single task.
    results : list of dict

    Returns
    -------
    npple.lab.finding.Found
    """
    strict = Counter(row.architecture for row in rows if row.seesaw)
    signs = Counter(row.architecture for row in rows if row.seesaw_by_sign)
    names = dict.fromkeys(row.architecture for row in rows)
    parts = [any(strict[name] for name in SEESAWING), not strict["ple"]]
    cells = len(rows) // len(names)
    words = ", ".join(f"{name} {strict[name]} (by sign {signs[name]})" for name in names)
    return Found(table, parts if parts[0] else [False],  # no seesaw, none to avoid
                 f"Strict seesaws in {cells} cells of the map: {words}. In the median of cells and "
                 f"models, gains of VTR from {_detectable(rows, 'vtr')} and of VCR from "
                 f"{_detectable(rows, 'vcr')} are found four times in five.", results)


def _detectable(rows: Sequence[Outcome], task: str) -> str:
    return f"{np.median([gain.detectable or 0.0 for row in rows if (gain := row.gains[task])]):.4f}"


EXPERIMENT = Experiment(
    "seesaw-map",
    "Where the correlation of two tasks depends on the sample, a shared bottom and MMoE "
    "improve one at the cost of the other; PLE improves both (PLE, sections 3.2 and 5.1.5)",
    SeesawSettings(5000, 3, 10, (1e-2, 3e-3), (0.0, 0.9), (6000,), (1.0, 4.0)),
    SeesawSettings(20_000, 20, 40, (1e-2, 3e-3, 1e-3), (0.0, 0.5, 0.9), (3000, 12_000),
                   (0.25, 1.0, 4.0)), measure)
