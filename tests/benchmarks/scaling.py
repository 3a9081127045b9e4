"""How the training step's time grows with each size of the model, and the memory it takes.

    python tests/benchmarks/scaling.py
    python tests/benchmarks/scaling.py --sizes batch tasks --threads 2

Time: npple's step in float32; each size in turn grows while the others stay; the exponent is the
slope of a straight line through the logarithms. Memory: by how much three steps raise the highest
resident set of a fresh process (Linux) above what it was with the parameters and the batch there:
activations, gradients, Adam's moments.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from contenders import CONTENDERS, Problem, Shape
from timing import machine, measure, save, table, threads_here, with_threads

BASE = Shape(batch=512, inputs=128, units=64)
SIZES = {
    "batch": [{"batch": n} for n in (512, 1024, 2048, 4096, 8192, 16384)],
    "tasks": [{"tasks": n} for n in (2, 4, 8, 16, 32)],
    "experts": [{"specific": n, "shared": n} for n in (2, 4, 8, 16, 32)],
    "levels": [{"levels": n} for n in (2, 4, 8, 16, 32)],
    "width": [{"units": n, "inputs": n, "tower": n} for n in (64, 128, 256, 512)],
}
MEMORY = Shape(batch=1024, inputs=512, units=256)
BATCHES = (256, 1024, 4096, 16384)
IN_MEMORY = ("npple", "looped", "wide")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sizes", nargs="*", choices=[*SIZES, "memory"], default=[*SIZES, "memory"])
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--seconds", type=float, default=2.0, help="for each point")
    add("--json", help="a file for the results")
    add("--peak", nargs=2, metavar=("CONTENDER", "BATCH"), help="only print this one's peak")
    args = parser.parse_args()
    if args.peak:
        print(peak(args.peak[0], int(args.peak[1])))
    else:
        save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All measurements with the threads of this process -> a list of dicts."""
    results = [times(size, args.seconds) for size in args.sizes if size != "memory"]
    if results:
        print(f"\nTraining step, float32, threads: {threads_here()}; milliseconds\n\n"
              f"{as_table(results)}", flush=True)
    if "memory" in args.sizes:
        peaks = [{"batch": batch} | {name: fresh_peak(name, batch) for name in IN_MEMORY}
                 for batch in BATCHES]
        results.append({"size": "memory", "peaks": peaks})
        print(f"\nPeak memory of a training step, float32, threads: {threads_here()}; MB\n\n"
              f"{as_memory_table(results)}", flush=True)
    print(machine())
    return [{"threads": threads_here()} | each for each in results]


def as_table(results):
    """One row for each size."""
    return table(["size", "from", "to", "first", "last", "exponent"], [
        [each["size"], each["values"][0], each["values"][-1], 1e3 * each["seconds"][0],
         1e3 * each["seconds"][-1], each["exponent"]]
        for each in results if each["size"] != "memory"])


def as_memory_table(results):
    """One row for each batch."""
    peaks = [peak for each in results if each["size"] == "memory" for peak in each["peaks"]]
    return table(["batch", *IN_MEMORY], [
        [each["batch"], *(each[name] / 1e6 for name in IN_MEMORY)] for each in peaks])


def times(size, seconds):
    """The step's time at each value of a size, and the fitted exponent."""
    values = [next(iter(change.values())) for change in SIZES[size]]
    runs = {}
    for value, change in zip(values, SIZES[size]):
        problem = Problem.random(replace(BASE, **change), np.dtype("float32"))
        runs[value] = CONTENDERS["npple"](problem).step
    medians = list(measure(runs, seconds).values())
    exponent, _ = np.polyfit(np.log(values), np.log(medians), 1)
    return {"size": size, "values": values, "seconds": medians, "exponent": float(exponent)}


def fresh_peak(name, batch):
    """`peak` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--peak", name, str(batch)], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


def peak(name, batch):
    """Bytes that three training steps add to this process at their highest (Linux)."""
    problem = Problem.random(replace(MEMORY, batch=batch), np.dtype("float32"))
    contender = CONTENDERS[name](problem)
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set is now the present one
    before = status("VmRSS")
    for _ in range(3):
        contender.step()
    return status("VmHWM") - before


def status(field):
    """Bytes of this process, as Linux has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
