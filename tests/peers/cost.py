"""What mistakes of public code cost: PLE and PLE with one of them, trained on the same videos.

`python tests/peers/cost.py [--seeds N] [--out FOLDER]` prints the table of docs/conformance.md.
Every model is trained with the rate that suits it best on the first seed; an interval is of 95 %,
over seeds, of the difference to the right model on the same data.
"""

import argparse

import npple
from npple.lab.finding import shown
from npple.lab.gains import estimate
from npple.lab.ways import METRICS, TASKS, Way, WaySettings, trained
from npple.network import Network
from npple.optimizers import Adam
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.variant import Variant
from npple.printing import aligned

MISTAKES = ("stride-parameters", "shared-reads-tasks", "shared-gate-shared-only", "selector-input",
            "gate-softmax-batch")
MODEL = {"task_experts": 3, "shared_experts": 1, "expert_units": (16,), "tower_units": (8,)}


def ways(given):
    """PLE, and PLE with each mistake."""
    model = npple.ple(given.inputs, TASKS, levels=given.levels, **MODEL)
    found = {"ple": Way(model)}
    for name in MISTAKES:
        changed, _ = deviate(BY_NAME[name], Variant(model.table, Adam()), {})[0]
        found[name] = Way(Network(changed.table))
    return found


def table(results):
    """A line for each model: its metrics, and what the mistake costs."""
    lines = [["", "AUC of vtr", "MSE of vcr", "AUC lost", "MSE gained"]]
    by_model = {}
    for result in results:
        by_model.setdefault(result["architecture"], {})[result["seed"]] = result["metrics"]
    right = by_model["ple"]
    for name, runs in by_model.items():
        means = [estimate([run[task] for run in runs.values()]) for task in METRICS]
        costs = ["", ""] if name == "ple" else [
            estimate([sign * (runs[seed][task] - right[seed][task]) for seed in runs])
            for task, sign in zip(METRICS, (-1, 1))]
        lines.append([name, *map(shown, (*means, *costs))])
    return aligned(lines, range(1, 5))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", metavar="FOLDER",
                        help="keeps what is trained, to go on after a stop")
    options = parser.parse_args(arguments)
    given = WaySettings(options.rows, options.seeds, options.epochs, (1e-2, 3e-3), levels=2)
    print(table(trained("cost", ways(given), given, out=options.out)))


if __name__ == "__main__":
    main()
