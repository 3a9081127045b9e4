"""Large batches and many rows, and `npple compare` spread over processes.

    python tests/benchmarks/scale.py
    python tests/benchmarks/scale.py --jobs batch --rows 1000000

    batch     gradients and predictions of one batch: time, and the memory they add at their highest
    rows      a training over many synthetic rows: rows a second in each tenth of the epoch
    compare   runs of `npple compare`: in one process, in two, on a Dask cluster of one and of two
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scaling import status
from timing import machine, save, table, unpinned, with_threads

import npple
from npple.learn.dataset import Dataset
from npple.learn.training import Run, predict

MODEL = npple.ple(8, {"a": "binary", "b": "regression"}, expert_units=(32,), tower_units=(16,))
BATCHES = (100_000, 1_000_000)
COMPARE = ("compare", "--models", "single_task", "cgc", "ple", "mmoe", "--seeds", "2", "--epochs",
           "1", "--budget", "20000", "--json")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    add("--rows", type=int, default=10_000_000, help="of the training")
    add("--threads", nargs="+", type=int, default=[2])
    add("--json", help="a file for the results")
    add("--batch", type=int, help="only print what a batch of so many rows takes")
    args = parser.parse_args()
    if args.batch:
        print(json.dumps(one_batch(args.batch)))
    else:
        save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All jobs -> a list of dicts."""
    found = [{"job": job} | each for job in args.jobs for each in JOBS[job](args.rows)]
    for job in args.jobs:
        own = [each for each in found if each["job"] == job]
        print(f"\n{job}\n\n{as_table(own)}", flush=True)
    print(machine())
    return found


def synthetic(rows):
    """Random features and targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 8), np.float32)
    return Dataset(x, {"a": (x[:, 0] > 0).astype(np.float32), "b": x[:, 1] * x[:, 2]}, {})


def large_batches(rows):
    """Each in a process of its own."""
    for batch in BATCHES:
        done = subprocess.run([sys.executable, __file__, "--batch", str(batch)], check=True,
                              capture_output=True, text=True)
        yield json.loads(done.stdout)


def one_batch(rows):
    """Seconds, and bytes added at the highest, of gradients and of predictions."""
    data, params = synthetic(rows), MODEL.init(0, np.float32)
    few = data.take(slice(0, 2048))
    found = {"rows": rows}
    for work, call in {"gradients": lambda each: MODEL.loss_and_grads(params, each.x, each.targets),
                       "predictions": lambda each: predict(MODEL, params, each)}.items():
        call(few)  # what is loaded and kept with the first call is not counted
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.perf_counter()
        call(data)
        found[f"{work}, s"] = time.perf_counter() - start
        found[f"{work}, MB"] = (status("VmHWM") - before) / 1e6
    return found


def many_rows(rows):
    """One epoch at batch 8192: rows a second in its first and last tenth, and the slowest one."""
    data, times = synthetic(rows), [time.perf_counter()]
    small = data.take(slice(0, 1000))
    run = Run(MODEL, batch_size=8192)
    run.train(data, small, 1, on_batch=lambda *_: times.append(time.perf_counter()))
    steps = np.diff(times[1:])
    speeds = [8192 / float(np.mean(part)) for part in np.array_split(steps, 10)]
    yield {"rows": rows, "first tenth, rows/s": speeds[0], "last tenth": speeds[-1],
           "slowest tenth": min(speeds), "training, s": times[-1] - times[1]}


def compared(rows):
    """Eight trainings of one thread each, with nothing kept."""
    for workers in (1, 2):
        yield {"where": "processes", "workers": workers, "s": compare("--workers", str(workers))}
    try:
        from distributed import LocalCluster
    except ImportError:
        return
    for workers in (1, 2):
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as each:
            yield {"where": "Dask", "workers": workers,
                   "s": compare("--dask", each.scheduler_address)}


def compare(*options):
    """Seconds of the command."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "npple", *COMPARE, *options], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=unpinned())
    return time.perf_counter() - start


def as_table(results):
    """One row for each result."""
    columns = [name for name in results[0] if name not in ("job", "threads")]
    return table(columns, [[result[name] for name in columns] for result in results])


JOBS = {"batch": large_batches, "rows": many_rows, "compare": compared}

if __name__ == "__main__":
    main()
