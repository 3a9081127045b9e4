"""Forward pass, forward and backward pass, and training step: npple, PyTorch, JAX, and products.

    python tests/benchmarks/step.py
    python tests/benchmarks/step.py --shapes 256x128x64 --threads 2 --dtypes float32 --work step

Milliseconds, medians; the contenders take turns. First all of them must compute the same losses;
one whose gradients are wrong is timed at `predict` only.
`torch/npple` is the time of the fastest PyTorch contender over npple's, `peer/npple` that of the
fastest of all; `npple/bound` is npple's time over that of the matrix products alone.
"""

import argparse

import numpy as np
from bound import matrix_products
from contenders import CONTENDERS, Problem, Shape, make
from timing import machine, measure, save, table, threads_here, with_threads

SHAPES = {
    "256x128x64": Shape(256, 128, 64),
    "1024x512x256": Shape(1024, 512, 256),
    "4096x512x256": Shape(4096, 512, 256),
    "5 tasks": Shape(1024, {f"column{i}": (1000, 8) for i in range(30)}, 64, tasks=5, specific=2,
                     shared=2, levels=3),
}
WORK = ("predict", "gradients", "step")
OURS = ("npple", "checked")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="batch x input x width")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--dtypes", nargs="+", choices=("float32", "float64"), default=["float32", "float64"])
    add("--work", nargs="+", choices=WORK, default=list(WORK))
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--seconds", type=float, default=1.5, help="for each contender and kind of work")
    add("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All measurements with the threads of this process -> a list of dicts."""
    results = []
    for dtype in args.dtypes:
        found = []
        for shape in args.shapes:
            problem = Problem.random(SHAPES[shape], np.dtype(dtype))
            contenders = make(args.contenders, problem)
            found += [{"threads": threads_here(), "dtype": dtype, "shape": shape, "work": work}
                      | times(problem, contenders, work, args.seconds) for work in args.work]
        print(f"\n{dtype}, threads: {threads_here()}; milliseconds\n\n{as_table(found)}\n"
              f"{machine()}", flush=True)
        results += found
    return results


def times(problem, contenders, work, seconds):
    """Medians in seconds by contender, of the bound, and their ratios."""
    runs = {name: getattr(contender, work) for name, contender in contenders.items()
            if work == "predict" or contender.learns}
    for wide in (False, True):
        runs[f"bound{wide:d}"] = matrix_products(problem, work != "predict", wide)
    seconds = measure(runs, seconds)
    bound = min(seconds.pop("bound0"), seconds.pop("bound1"))
    peers = {name: value for name, value in seconds.items() if name not in OURS}
    fastest = min(peers, key=peers.get, default=None)
    torch = [value for name, value in peers.items() if name != "jax"]
    found = {"seconds": seconds, "bound": bound, "fastest": fastest}
    if "npple" in seconds:
        found["npple/bound"] = seconds["npple"] / bound
        found["torch/npple"] = min(torch) / seconds["npple"] if torch else None
        found["peer/npple"] = peers[fastest] / seconds["npple"] if peers else None
    return found


def as_table(results):
    """One row for each result."""
    names = list(dict.fromkeys(name for result in results for name in result["seconds"]))
    rows = [[f"{result['shape']}, {result['work']}",
             *(1e3 * result["seconds"][name] if name in result["seconds"] else None
               for name in names), 1e3 * result["bound"],
             *map(result.get, ("torch/npple", "peer/npple", "npple/bound")), result["fastest"]]
            for result in results]
    return table(["shape, work", *names, "bound", "torch/npple", "peer/npple", "npple/bound",
                  "fastest peer"], rows)


if __name__ == "__main__":
    main()
