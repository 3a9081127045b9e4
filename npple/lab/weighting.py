"""Task weights of PLE: fixed, decaying by epoch, and tasks that learn faster."""

from npple.architectures import ple
from npple.lab.ways import TASKS, Way, WaySettings, way_experiment

DECAYING = tuple(f"ple, {task} decays" for task in TASKS)
GAMMA, TIMES, SPEED = 0.9, 4.0, 3.0


def ways(given: WaySettings) -> dict[str, Way]:
    """PLE with weights of 1, and with others.

    Parameters
    ----------
    given : WaySettings

    Returns
    -------
    dict of Way
        A task that is fast has its experts, gates and tower learn at several times the rate.
    """
    model = ple(given.inputs, TASKS, levels=given.levels, expert_units=(given.units,))
    found = {"ple": Way(model)}
    for task in TASKS:
        found |= {f"ple, {task} {TIMES:g} times": Way(model, Way(model).weights | {task: TIMES}),
                  f"ple, {task} decays": Way(model, decay={task: GAMMA}),
                  f"ple, {task} fast": Way(model, rates={f"*/{task}/*": SPEED})}
    return found


EXPERIMENT = way_experiment(
    "task-weights",
    "Loss weights that decay from epoch to epoch, for each task by a factor of its own "
    "(PLE, equation 10), are better than fixed ones",
    ways, dict.fromkeys(DECAYING, 1))
