"""Where a training step spends its time: processor time by function, in one thread.

    python tests/benchmarks/profiled.py

What is no function of Python (a product, a sum) counts for the function that calls it, but for the
few of NumPy that are named. The profiler itself takes about a third more.
"""

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import numpy as np
from contenders import Npple, Problem
from step import SHAPES
from timing import machine, save, table, with_threads

STEPS = {"256x128x64": 200, "1024x512x256": 10, "5 tasks": 15}
MOST = 12  # functions


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(run, [1]))


def run():
    """All shapes -> a list of dicts."""
    found = [each for shape, steps in STEPS.items() for each in profile(shape, steps)]
    print(f"\n{as_table(found)}\n{machine()}")
    return found


def profile(shape, steps):
    """The functions that take the most, and all others together."""
    step = Npple(Problem.random(SHAPES[shape], np.dtype("float32"))).step
    step()
    profiler = cProfile.Profile(time.thread_time)
    profiler.enable()
    for _ in range(steps):
        step()
    profiler.disable()
    own = {}  # name -> calls, seconds
    for (file, _, name), (_, calls, seconds, *_) in pstats.Stats(profiler).stats.items():
        where = f"{Path(file).name}: {name}" if file != "~" else name.strip("<>")
        before = own.get(where, (0, 0.0))
        own[where] = before[0] + calls, before[1] + seconds
    total = sum(seconds for _, seconds in own.values())
    ranked = sorted(own.items(), key=lambda each: -each[1][1])
    rest = [sum(each) for each in zip(*(value for _, value in ranked[MOST:]))]
    for what, (calls, seconds) in [*ranked[:MOST], (f"{len(ranked) - MOST} others", rest)]:
        yield {"shape": shape, "function": what, "calls": calls / steps,
               "seconds": seconds / steps, "share": seconds / total}


def as_table(results):
    """One row for each function."""
    return table(["shape", "function", "calls a step", "ms a step", "share"], [
        [each["shape"], each["function"].replace("|", " "), each["calls"], 1e3 * each["seconds"],
         each["share"]] for each in results])


if __name__ == "__main__":
    main()
