"""Cross-stitch networks: units that learn faster, and a start from networks of one task."""

from npple.architectures import cross_stitch, single_task
from npple.lab.ways import TASKS, Way, WaySettings, way_experiment

UNITS = "*/stitch/*"
FACTORS = (10, 100, 1000)
ALONE = "cross_stitch, from networks of one task"


def ways(given: WaySettings) -> dict[str, Way]:
    """Cross-stitch networks with one rate and a random start, and with others.

    Parameters
    ----------
    given : WaySettings

    Returns
    -------
    dict of Way
        Training goes on from networks of one task; so it does from a cross-stitch network itself,
        to tell a better start from longer training.
    """
    model = cross_stitch(given.inputs, TASKS, levels=given.levels, expert_units=(given.units,))
    alone = single_task(given.inputs, TASKS, expert_units=(given.units,) * given.levels)
    found = {"cross_stitch": Way(model)}
    found |= {f"cross_stitch, units {factor} times as fast": Way(model, rates={UNITS: factor})
              for factor in FACTORS}
    return found | {ALONE: Way(model, before=alone),
                    "cross_stitch, from itself": Way(model, before=model)}


EXPERIMENT = way_experiment(
    "cross-stitch",
    "Cross-stitch networks are better if their units learn 100 to 1000 times as fast as the rest, "
    "and if they start from networks trained on one task each (cross-stitch, sections 5.2 and 5.3)",
    ways, {ALONE: 1} | {f"cross_stitch, units {factor} times as fast": 1
                        for factor in FACTORS[1:]})
