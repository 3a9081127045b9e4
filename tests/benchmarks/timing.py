"""Timing for the benchmarks: contenders take turns, medians, tables; one process for each count
of threads; and on what it was measured."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORCING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE",
           "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "BLIS_ARCH_TYPE",
           "ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES")


def measure(runs, seconds=1.0, turns=5, warm=0.05):
    """The median seconds of one call of each contender.

    In each turn every contender runs untimed for `warm` seconds, which also lets the idle threads
    of the one before fall asleep (not at all if `warm` is 0), then timed for its share of
    `seconds`; at least once each. The order changes from turn to turn.

    Parameters
    ----------
    runs : dict of callable
        By name; called without arguments.

    Returns
    -------
    dict of float
    """
    times, names = {name: [] for name in runs}, list(runs)
    for turn in range(turns):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if warm:
                _repeat(runs[name], warm)
            times[name] += _repeat(runs[name], seconds / turns)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _repeat(run, seconds):
    """The times of calls until `seconds` have passed."""
    times, stop = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < stop:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def table(columns, rows):
    """Rows of texts and numbers as a Markdown table; numbers with three digits."""
    lines = [[_cell(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (width - 1) + ("-" if i == 0 else ":")
                     for i, width in enumerate(widths)])
    return "\n".join("| " + " | ".join(
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths))) + " |" for line in lines)


def _cell(value):
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def with_threads(main, threads):
    """Runs `main() -> list` with each number of threads, in a process of its own, pinned to as many
    processors, where numpy and PyTorch see nothing else; the lists one after the other.

    `main` runs once, with the command line it was called with, where the threads are already set.
    Where a variable of the environment forces a kernel, nothing is measured.
    """
    require_own_kernels()
    if os.environ.get("NPPLE_BENCHMARK"):
        Path(os.environ["NPPLE_BENCHMARK"]).write_text(json.dumps(main()))
        return None
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for count in threads:
            names = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")
            environment = os.environ | {f"{name}_NUM_THREADS": str(count) for name in names}
            environment["NPPLE_BENCHMARK"] = str(Path(folder, "results.json"))
            subprocess.run([sys.executable, *sys.argv], check=True, env=environment,
                           preexec_fn=lambda: _pin(count))
            results += json.loads(Path(environment["NPPLE_BENCHMARK"]).read_text())
    return results


def require_own_kernels():
    """Ends the program where a variable chooses the kernels of a BLAS, or the vectors of NumPy."""
    forced = [f"{name}={os.environ[name]}" for name in FORCING if name in os.environ]
    if forced:
        unset = " ".join(f"-u {each.partition('=')[0]}" for each in forced)
        sys.exit(f"environment: {', '.join(forced)}: these are not the processor's own kernels, "
                 f"expected none; run env {unset} python ...")


def machine():
    """What the figures are of: the processor, each BLAS with its kernels and threads, the load.

    Only the BLAS libraries that are loaded are seen; needs threadpoolctl, of the extra `peers`.
    """
    from threadpoolctl import threadpool_info
    blas = sorted({f"{each['internal_api']} {each['version']} {each.get('architecture', '')} "
                   f"({each['num_threads']} threads)" for each in threadpool_info()
                   if each["user_api"] == "blas"})
    if torch := sys.modules.get("torch"):  # its MKL is linked in, where threadpoolctl sees nothing
        said = torch.__config__.show()
        library = "Math Kernel Library Version " if "Math Kernel" in said else "BLAS_INFO="
        blas.append(f"PyTorch's {library[:19].strip()} {said.partition(library)[2].split()[0]} "
                    f"{torch.backends.cpu.get_cpu_capability()} "
                    f"({torch.get_num_threads()} threads)")
    return {"processor": _processor(), "python": platform.python_version(), "blas": blas,
            "versions": _versions(), "load": round(os.getloadavg()[0], 2)}


def _processor():
    """Its name, as Linux has it, and how many of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")),
                platform.processor())
    return f"{os.cpu_count()} x {name}"


def _versions():
    """Of the packages that are compared."""
    from importlib.metadata import PackageNotFoundError, version
    found = {}
    for name in ("numpy", "torch", "jax", "deepctr-torch", "pandas", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def unpinned():
    """The environment of a program that nobody told how many threads to use, and finds npple."""
    import npple
    found = {name: value for name, value in os.environ.items()
             if not name.endswith("_NUM_THREADS") and name != "NPPLE_BENCHMARK"}
    return found | {"PYTHONPATH": str(Path(npple.__file__).parents[1])}


def threads_here():
    """The number of threads that `with_threads` gave this process."""
    return int(os.environ["OMP_NUM_THREADS"])


def _pin(count):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def save(path, results):
    """Writes results as JSON, if there is a path; not in the processes that measure."""
    if path and results is not None:
        Path(path).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
