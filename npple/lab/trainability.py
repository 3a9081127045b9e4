"""How much the result of a training varies: the runs of MMoE, figure 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npple.lab.compare import Training, compare, synthetic_cases
from npple.lab.finding import Experiment, Found, Panel
from npple.lab.gains import estimate

WIDTHS = {"shared_bottom": 113, "mmoe": 16}  # about as many weights of experts and towers
OPTIONS: dict[str, dict[str, Any]] = {
    "shared_bottom": {"tower_units": (8,)},
    "mmoe": {"tower_units": (8,), "experts": 8}}
CHOOSING = 3  # seeds on which a model's rate is chosen
ALIKE = 0.1  # lowest losses that differ by a smaller share are comparable


@dataclass(frozen=True)
class TrainabilitySettings:
    """Of all trainings of the experiment; see `EXPERIMENT`."""

    rows: int
    seeds: int
    epochs: int
    rates: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    correlation: float = 0.5
    inputs: int = 100
    batch_size: int = 256
    patience: int = 5


def measure(given: TrainabilitySettings, **where: Any) -> Found:
    """All trainings, each on new data, and what they say.

    Parameters
    ----------
    given : TrainabilitySettings
    **where
        For `npple.lab.compare.compare`.

    Returns
    -------
    npple.lab.finding.Found
    """
    cases = synthetic_cases((given.correlation,), given.rows, given.inputs)
    return found_of([result for name, width in WIDTHS.items() for result in compare(
        cases, [name], seeds=range(given.seeds), width=width, levels=1, options=OPTIONS[name],
        rates=given.rates, choosing=CHOOSING, data_seeds=True,
        training=Training(given.epochs, given.batch_size, patience=given.patience), **where
        ).results])


def found_of(results: Sequence[Mapping[str, Any]]) -> Found:
    """The table and the parts of the claim.

    Parameters
    ----------
    results : sequence of dict
        Of both models on the same data, seed by seed.

    Returns
    -------
    npple.lab.finding.Found
    """
    losses = {name: np.array([np.mean([task["test"]["mse"] for task in each["tasks"].values()])
                              for each in results if each["architecture"] == name])
              for name in WIDTHS}  # (seeds,)
    rates = {each["architecture"]: each["rate"] for each in results}
    apart = {name: np.abs(loss - np.median(loss)) for name, loss in losses.items()}
    lowest = {name: float(np.sort(loss)[:max(1, len(loss) // 10)].mean())
              for name, loss in losses.items()}
    table: dict[str, dict[str, Any]] = {name: {
        "loss": estimate(loss.tolist()), "deviation": float(loss.std(ddof=1)),
        "distance from the median": estimate(apart[name].tolist()),
        "mean of the lowest tenth": lowest[name], "rate": rates[name]}
        for name, loss in losses.items()}
    more = estimate((apart["shared_bottom"] - apart["mmoe"]).tolist())
    table["shared_bottom"]["further from the median than mmoe"] = more
    parts = [bool(more and more.direction > 0),
             abs(lowest["mmoe"] / lowest["shared_bottom"] - 1) < ALIKE]
    words = [("further from" if parts[0] else "not further from"),
             ("comparable" if parts[1] else "not comparable")]
    return Found(table, parts, f"The losses of a shared bottom are {words[0]} their median, beyond "
                 f"noise; the lowest tenths, of which comparable ones differ by less than "
                 f"{ALIKE:.0%}, are {words[1]}.", results,
                 [Panel("losses of the runs", "mean squared error of both tasks",
                        {name: [np.sort(loss).tolist()] for name, loss in losses.items()},
                        log=True, across="run, from the lowest loss")])


EXPERIMENT = Experiment(
    "trainability",
    "Over many runs, each with new data and initial values, a shared bottom's losses vary most, "
    "and the lowest losses are comparable (MMoE, section 5.2 and figure 5)",
    TrainabilitySettings(4000, 8, 20), TrainabilitySettings(10_000, 200, 60), measure)
