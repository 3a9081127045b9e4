"""What PLE's selector and its shared stream are worth: the oracle's deviations, trained."""

from typing import Any

from npple.architectures import ple
from npple.lab.finding import Finding
from npple.lab.ways import TASKS, Way, WaySettings, finding, trained
from npple.network import Network
from npple.optimizers import Adam
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.variant import Variant

NAME = "selector-worth"
CLAIM = ("What the gates of PLE select on, the shared gate, and the one shared stream make "
         "extraction progressive (PLE, section 4.2): without one of them PLE is worse")
DEVIATIONS = {"selector is the input": "selector-input",
              "no shared gate, the mean instead": "shared-mean",
              "no shared gate, the input instead": "shared-input",
              "a shared stream for each task": "shared-reads-tasks"}
QUICK = WaySettings(5000, 3, 20, (1e-2, 3e-3), levels=3)
FULL = WaySettings(20_000, 8, 40, (1e-2, 3e-3, 1e-3), levels=3)


def ways(given: WaySettings) -> dict[str, Way]:
    """PLE, and each deviation of its table.

    Parameters
    ----------
    given : WaySettings

    Returns
    -------
    dict of Way
    """
    model = ple(given.inputs, TASKS, levels=given.levels, expert_units=(given.units,))
    found = {"ple": Way(model)}
    for name, deviation in DEVIATIONS.items():
        (changed, _), = deviate(BY_NAME[deviation], Variant(model.table, Adam()), {})
        found[f"ple, {name}"] = Way(Network(changed.table))
    return found


def run(quick: bool, **where: Any) -> Finding:
    """The whole experiment.

    Parameters
    ----------
    quick : bool
        Fewer rows, epochs, seeds and rates.
    **where
        For `npple.lab.ways.trained`.

    Returns
    -------
    Finding
    """
    given = QUICK if quick else FULL
    return finding(NAME, CLAIM, trained(NAME, ways(given), given, **where), given, quick,
                   {f"ple, {name}": -1 for name in DEVIATIONS})
