"""What PLE's selector and its shared stream are worth: the oracle's deviations, trained."""

from npple.architectures import ple
from npple.lab.ways import TASKS, Way, WaySettings, way_experiment
from npple.network import Network
from npple.optimizers import Adam
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.variant import Variant

DEVIATIONS = {"selector is the input": "selector-input",
              "no shared gate, the mean instead": "shared-mean",
              "no shared gate, the input instead": "shared-input",
              "a shared stream for each task": "shared-reads-tasks"}


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


EXPERIMENT = way_experiment(
    "selector-worth",
    "What the gates of PLE select on, the shared gate, and the one shared stream make "
    "extraction progressive (PLE, section 4.2): without one of them PLE is worse",
    ways, {f"ple, {name}": -1 for name in DEVIATIONS}, levels=3)
