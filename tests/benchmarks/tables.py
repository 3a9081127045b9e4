"""Makes all tables of docs/performance.md: measures, keeps the figures, writes the page.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/tables.py
    python tests/benchmarks/tables.py --parts step company
    python tests/benchmarks/tables.py --parts             only writes the page anew

The figures go to docs/performance.json, part by part. On two idle processors all of it
takes some twelve minutes. Needs the extra `peers`. --census: the published file, or one like it;
without it the bundled sample is repeated.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import company
import jobs
import newcomer
import numpy as np
import products
import profiled
import scale
import scaling
import step
from timing import require_own_kernels, table

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
FIGURES, PAGE = DOCS / "performance.json", DOCS / "performance.md"
IDLE = 0.1  # of the processors' time, taken by others: below it figures are of the machine alone
MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
EAGER = ["--contenders", "npple", "looped", "wide", "jax"]
PARTS = {  # name -> the command
    "step": ["step.py", "--threads", "2", "--dtypes", "float32", "--seconds", "0.6"],
    "one": ["step.py", "--threads", "1", "--dtypes", "float32", "--work", "step", "--seconds",
            "0.6", *EAGER],
    "double": ["step.py", "--threads", "2", "--dtypes", "float64", "--work", "step", "--seconds",
               "0.6", *EAGER],
    "products": ["products.py", "--seconds", "0.5"],
    "company": ["company.py"],
    "scaling": ["scaling.py", "--threads", "2", "--seconds", "0.5"],
    "jobs": ["jobs.py", "--threads", "2"],
    "scale": ["scale.py"],
    "newcomer": ["newcomer.py"],
    "profile": ["profiled.py"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    add("--census", type=Path, help="the census file")
    args = parser.parse_args()
    if args.parts:
        require_own_kernels()
    for part in args.parts:
        options = ["--census", str(args.census)] if part == "jobs" and args.census else []
        keep(part, measured([*PARTS[part], *options]))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def measured(command):
    """What a benchmark finds, on what, beside how busy processors and in how many seconds."""
    others, start = busy(), time.perf_counter()
    script, *options = command
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        subprocess.run([sys.executable, HERE / script, *options, "--json", out], check=True)
        results = json.loads(out.read_text())
    return {"others": others, "machine": on_what(), "took": round(time.perf_counter() - start),
            "results": results}


def busy(seconds=1.0):
    """What share of the processors' time others take, while this process sleeps (Linux)."""
    def ticks():
        _, *counts = Path("/proc/stat").read_text().splitlines()[0].split()
        return np.array(counts[:8], float)

    before = ticks()
    time.sleep(seconds)
    passed = ticks() - before
    return round(float(1 - passed[3:5].sum() / max(passed.sum(), 1)), 2)  # but idle and iowait


def on_what():
    """`timing.machine()` of a process that has loaded what is compared."""
    done = subprocess.run(
        [sys.executable, "-c", "import json, numpy, torch, timing; print(json.dumps("
         "timing.machine()))"], cwd=HERE, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def figures():
    """All that was kept, by part."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def keep(part, found):
    """Replaces the figures of a part."""
    FIGURES.write_text(json.dumps(figures() | {part: found}) + "\n", encoding="utf-8")


def filled(page):
    """The page with all its tables made from the figures."""
    found = figures()
    return MARKED.sub(lambda match: f"{match[1]}\n{made(match[2], found)}\n\n{match[3]}", page)


def made(name, found):
    """A table by its name on the page, if its parts were measured."""
    try:
        return TABLES[name](found)
    except KeyError as missing:
        if missing.args[0] not in PARTS:
            raise
        return f"Not measured yet: `python tests/benchmarks/tables.py --parts {missing.args[0]}`."


def results(name):
    """A function from all figures to a part's results."""
    return lambda found: found[name]["results"]


def machines(found):
    """On what the parts were measured; processors busier than IDLE are marked."""
    each = [[name, part["others"], "yes" if part["others"] <= IDLE else "no: to be measured again",
             part["took"]] for name, part in found.items()]
    machine = (found.get("step") or found["profile"])["machine"]
    said = [machine["processor"], f"Python {machine['python']}", *machine["blas"],
            *(f"{name} {version}" for name, version in machine["versions"].items())]
    return "\n".join(f"- {line}" for line in said) + "\n\n" + table(
        ["part", "processors busy before it", "idle", "took, s"], each)


GOALS = {  # shape -> the least peer/npple of the step and of predict, the most npple/bound
    "256x128x64": (1.0, 1.0, 2.6), "1024x512x256": (1.5, 1.5, 1.45),
    "4096x512x256": (1.5, 1.2, 1.35), "5 tasks": (1.2, 1.0, 2.6)}


def goals(found):
    """The targets beside what was measured."""
    of = {(each["shape"], each["work"]): each for each in found["step"]["results"]}
    rows = []
    for shape, (stepping, predicting, bound) in GOALS.items():
        for work, least in (("step", stepping), ("predict", predicting)):
            result = of[shape, work]
            peers = min(t for name, t in result["seconds"].items() if name not in step.OURS)
            least = min(least, peers / (1.15 * result["bound"]))  # no target below 1.15 bounds
            rows.append([f"{work}, {shape}: fastest peer / npple", f"at least {least:.2f}",
                         result["peer/npple"], _met(result["peer/npple"] >= least)])
        rows.append([f"step, {shape}: npple / bound", f"at most {bound}",
                     of[shape, "step"]["npple/bound"],
                     _met(of[shape, "step"]["npple/bound"] <= bound)])
    return table(["target", "it is", "measured", "met"], rows + others(found))


def others(found):
    """The targets that are not of one thread or float32, of company and of the other jobs."""
    small = next(each["torch/npple"] for each in found["step"]["results"]
                 if (each["shape"], each["work"]) == ("256x128x64", "step"))
    least = min(each["torch/npple"] for each in found["double"]["results"])
    rows = [["step, 256x128x64: fastest PyTorch / npple", "at least 1.8", small,
             _met(small >= 1.8)],
            ["float64 step: fastest PyTorch / npple, at the worst shape", "at least 1.00", least,
             _met(least >= 1)]]
    peaks = [peak for each in found["scaling"]["results"] for peak in each.get("peaks", ())]
    most = max(peak["npple"] / min(peak["looped"], peak["wide"]) for peak in peaks)
    rows.append(["peak memory: npple / PyTorch, at the worst batch", "at most 1.00", most,
                 _met(most <= 1)])
    alone = {each["busy"]: each["seconds"]["npple"] for each in found["company"]["results"]
             if each["threads"] == 1}
    for each in found["company"]["results"]:
        if each["threads"] == 2 and each["busy"] in (4, 8):
            seconds, name = each["seconds"], f"beside {each['busy']}"
            share = seconds["npple"] / alone[each["busy"]]
            torch = min(t for name, t in seconds.items() if name in ("looped", "wide", "compiled"))
            rows += [[f"{name}: npple with 2 threads / with 1", "at most 1.2", share,
                      _met(share <= 1.2)],
                     [f"{name}: fastest PyTorch / npple", "at least 5", torch / seconds["npple"],
                      _met(torch >= 5 * seconds["npple"])]]
    trains = {each["busy"]: each["seconds"]["npple train"] for each in found["company"]["results"]
              if "npple train" in each["seconds"]}
    rows.append(["`npple train` beside 2 / alone", "at most 3", trains[2] / trains[0],
                 _met(trains[2] <= 3 * trains[0])])
    for each in found["jobs"]["results"]:
        for start, least in (("census file", 1.0), ("training epoch", 1.3)):
            if each["job"].startswith(start):
                ratio = jobs.as_row(each)[3]
                rows.append([f"{each['job']}: fastest other / npple", f"at least {least}", ratio,
                             _met(ratio >= least)])
    return rows


def _met(held):
    return "yes" if held else "no"


TABLES = {  # name on the page -> from all figures to Markdown
    "machine": machines,
    "step": lambda found: step.as_table(results("step")(found)),
    "one": lambda found: step.as_table(results("one")(found)),
    "double": lambda found: step.as_table(results("double")(found)),
    "products": lambda found: products.as_table(results("products")(found)),
    "company": lambda found: company.as_table(
        [each for each in results("company")(found) if each["threads"] == 2]),
    "company-one": lambda found: company.as_table(
        [each for each in results("company")(found) if each["threads"] == 1]),
    "scaling": lambda found: scaling.as_table(results("scaling")(found)),
    "memory": lambda found: scaling.as_memory_table(results("scaling")(found)),
    "jobs": lambda found: jobs.as_table(results("jobs")(found)),
    **{f"scale-{job}": lambda found, job=job: scale.as_table(
        [each for each in results("scale")(found) if each["job"] == job]) for job in scale.JOBS},
    "newcomer": lambda found: newcomer.as_table(results("newcomer")(found)),
    "profile": lambda found: profiled.as_table(results("profile")(found)),
    "goals": goals,
}

if __name__ == "__main__":
    main()
