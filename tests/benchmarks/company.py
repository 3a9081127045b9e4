"""A step at 256 rows, and `npple train`, beside busy processes that multiply matrices.

    python tests/benchmarks/company.py
    python tests/benchmarks/company.py --busy 0 2 --seconds 1

The mean of the step's milliseconds: others wait for the slow ones, too. Busy processes multiply
matrices of 300 with the threads that their BLAS has by itself.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np
from contenders import CONTENDERS, Problem, make
from step import SHAPES
from timing import machine, save, table, threads_here, unpinned, with_threads

BUSY = """
import numpy as np
a = np.ones((300, 300))
while True:
    a @ a
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--busy", nargs="+", type=int, default=[0, 2, 4, 8], help="numbers of busy processes")
    add("--contenders", nargs="+", choices=CONTENDERS,
        default=["npple", "looped", "wide", "compiled", "jax"])
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--seconds", type=float, default=1.5, help="for each contender and number")
    add("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All means with the threads of this process -> a list of dicts; with one thread npple's."""
    one = threads_here() == 1
    problem = Problem.random(SHAPES["256x128x64"], np.dtype("float32"))
    contenders = make(["npple"] if one else args.contenders, problem)
    found = []
    for count in args.busy:
        with busy(count):
            means = {name: mean(contender.step, args.seconds)
                     for name, contender in contenders.items() if contender.learns}
            if count in (0, 2) and not one:
                means["npple train"] = mean(train, 0)
        found.append({"threads": threads_here(), "busy": count, "seconds": means})
    print(f"\nThreads: {threads_here()}; milliseconds\n\n{as_table(found)}\n{machine()}",
          flush=True)
    return found


@contextmanager
def busy(count):
    """So many processes at work."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY], env=unpinned())
                 for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def mean(run, seconds):
    """The mean time of calls until `seconds` have passed; the first few are not counted."""
    for _ in range(3 if seconds else 0):
        run()
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        run()
        count += 1
    return (time.perf_counter() - start) / count


def train():
    """The command with its defaults, on the bundled sample."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "npple", "train"], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=unpinned())


def as_table(results):
    """One row for each number of busy processes."""
    names = list(results[0]["seconds"])
    return table(["busy processes", *names], [
        [result["busy"], *(None if (t := result["seconds"].get(name)) is None else 1e3 * t
                           for name in names)] for result in results])


if __name__ == "__main__":
    main()
