"""The pictures of the documentation: `python docs/pictures.py docs/images`.

Drawings of architectures come from their tables. The others show what was measured; the numbers
stand in `pictures.json` beside the pictures, and `--measure` takes them anew.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import by_hand
from npple.draw import plots
from npple.archive import replacing
from npple.architectures import ARCHITECTURES, ple
from npple.draw.diagram import diagram
from npple.draw.svg import COLORS, svg
from npple.lab.compare import Training, compare, synthetic_cases
from npple.lab.gains import Comparison
from npple.lab.trials import progress
from npple.verify.influence import influence
from npple.verify.isolation import isolation
from npple.core.passes import forward, joint_loss
from npple.verify.cases import random_case

TASKS = {"vtr": "binary", "vcr": "regression"}
CORRELATIONS = (-0.5, 0.0, 0.5, 0.9)  # of the comparison in docs/experiments.md
DATA = {"rows": 125_000, "inputs": 128}
TRAINING = Training(epochs=8, patience=None, keep_best="joint")
SEEDS = range(5)
MIXERS = ("mmoe", "ml_mmoe", "cgc", "ple")  # whose expert utilization is drawn
STEPS = 10 ** np.linspace(-1, -16, 46)


def drawings():
    """The pictures that follow from tables alone: file name -> SVG."""
    drawn = {name: diagram(builder(32, TASKS)) for name, builder in ARCHITECTURES.items()}
    pictures = {f"architecture-{name}.svg": svg(drawn[name], name) for name in drawn}
    return pictures | {"gradient-ple.svg": svg(drawn["ple"], "ple: the vtr loss", "vtr"),
                       "cgc-by-hand.svg": by_hand.picture()}


def plotted(measured):
    """The pictures of what was measured: file name -> SVG, with a digest of the numbers in it.

    Parameters
    ----------
    measured : dict
        The content of `pictures.json`: a result of each function of `MEASUREMENTS`, by its name.
    """
    comparison = Comparison(**measured["comparison"])
    first = comparison.results[0]
    mixers = [result for result in comparison.results if result["architecture"] in MIXERS
              and (result["data"], result["seed"]) == (first["data"], first["seed"])]
    measured = measured | {"problem": printed_numbers("problem.md")}
    figures = {"problem.svg": ("problem", _problem_figure(measured["problem"])),
               "isolation-ple.svg": ("isolation", plots.isolation_figure(
                   isolation(_isolation_case().model), measured["isolation"])),
               "seesaw.svg": ("comparison", plots.gains_figure(comparison)),
               "correlation.svg": ("comparison", plots.correlation_figure(comparison)),
               "utilization.svg": ("comparison", plots.utilization_figure(mixers)),
               "difference-error.svg": ("errors", _error_figure(measured["errors"]))}
    return {file: _rendered(figure, digest(measured[name]))
            for file, (name, figure) in figures.items()}


def printed_numbers(page):
    """What a page prints of each seed: section -> model -> task -> the numbers."""
    found, line = {}, re.compile(r"^(\S.*?) +([AB]) \S+ \|([ \d.]+)$", re.MULTILINE)
    for section in (Path(__file__).parent / page).read_text("utf-8").split("\n## ")[1:]:
        for name, task, seeds in line.findall(section):
            models = found.setdefault(section.partition("\n")[0], {})
            models.setdefault(name, {})[task] = [float(number) for number in seeds.split()]
    return found


def digest(numbers):
    """What tells whether a picture shows these numbers."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def _rendered(figure, numbers):
    """The figure as SVG, and the digest of its numbers in a comment."""
    return rendered(figure).replace("<svg ", f"<!-- numbers: {numbers} -->\n<svg ", 1)


def rendered(figure):
    """The figure as a small SVG: its letters as text, its places to a tenth of a point."""
    import matplotlib
    options = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    with tempfile.TemporaryDirectory() as folder, matplotlib.rc_context(options):
        file = Path(folder) / "figure.svg"
        plots.save(figure, file)
        text = file.read_text("utf-8")
    text = re.sub(r"^ +| +$", "", text, flags=re.MULTILINE)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    return re.sub(r' (d|x|y|transform)="[^"]*"', lambda place: re.sub(
        r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", place[0]), text)


# What is measured -------------------------------------------------------------------------------

def measure_isolation():
    """The norm of each task's gradient on each group of a PLE of three levels, at its start."""
    case = _isolation_case()
    norms = influence(case.model, case.model.init(seed=0), case.x, case.targets).norms
    return {task: {group: float(f"{norm:.6g}") for group, norm in groups.items()}
            for task, groups in norms.items()}


def _isolation_case():
    tasks = {"income": "binary", "marital": "binary"}
    return random_case(ple(16, tasks, levels=3, expert_units=(8,), tower_units=(4,)), batch=256)


def measure_comparison(architectures=tuple(ARCHITECTURES), seeds=SEEDS, out=None):
    """Architectures at equal budgets on synthetic data, as `npple compare` does it."""
    found = compare(synthetic_cases(CORRELATIONS, **DATA), architectures, seeds=seeds,
                    training=TRAINING, out=out, watch=progress)
    return {"tasks": found.tasks, "correlations": found.correlations, "labels": found.labels,
            "results": list(map(_short, found.results))}


def _short(result):
    """A result without what no picture shows but the first epoch's errors; five digits."""
    mixed = result["utilization"] if result["architecture"] in MIXERS and not result["seed"] else []
    tasks = {task: {"test": _five_digits(found["test"]),
                    "validation": [_five_digits(found["validation"][0])]}
             for task, found in result["tasks"].items()}
    rounded = [entry | {key: float(f"{entry[key]:.4f}") for key in ("mean", "deviation")}
               for entry in mixed]
    return result | {"tasks": tasks, "utilization": rounded, "connections": [], "seconds": 0}


def _five_digits(metrics):
    return {"mse": float(f"{metrics['mse']:.5g}")}


def measure_errors():
    """The relative error of three numerical derivatives by step size.

    Of each entry of a weight in level 1 of a PLE with tanh, against its gradient in extended
    precision; the error of the whole is the norm of the errors over that of the gradient.
    """
    model = ple(4, TASKS, expert_units=(4,), tower_units=(3,), activation="tanh")
    case, name = random_case(model), "level1/vtr/experts/layer1/weight"
    weight, masks = case.params[name], dict.fromkeys(TASKS)
    directions = np.eye(weight.size).reshape(-1, *weight.shape)

    def loss(copies):  # (entries, *shape of the weight) -> (entries,)
        params = case.params | {name: copies}
        trace = forward(model.table, params, case.x)
        return joint_loss(trace, case.targets, masks, case.weights)[0]

    extended = {key: value.astype(np.longdouble) for key, value in case.params.items()}
    targets = {task: y.astype(np.longdouble) if y.dtype.kind == "f" else y
               for task, y in case.targets.items()}
    exact = model.loss_and_grads(extended, case.x.astype(np.longdouble), targets,
                                 weights=case.weights)[1][name].ravel()
    found = {"one-sided difference": [], "central difference": [], "complex step": []}
    for h in STEPS:
        up, down = loss(weight + h * directions), loss(weight - h * directions)
        numeric = ((up - loss(weight[None])) / h, (up - down) / (2 * h),
                   loss(weight + 1j * h * directions).imag / h)
        for errors, derivative in zip(found.values(), numeric):
            error = np.linalg.norm((derivative - exact).astype(float)) / np.linalg.norm(
                exact.astype(float))
            errors.append(float(f"{error:.3g}"))
    return {"steps": [float(f"{h:.3g}") for h in STEPS], "errors": found}


def _error_figure(measured):
    """Both axes logarithmic: step size down to the right, relative error up."""
    import matplotlib.figure
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure((6, 3.4), layout="constrained")
        axes = figure.subplots()
        for (name, errors), style in zip(measured["errors"].items(), ("--", "-.", "-")):
            axes.loglog(measured["steps"], errors, style, label=name)
        axes.axhline(np.finfo(float).eps, color="0.6", linewidth=0.8, linestyle=":")
        axes.annotate("rounding of one number", (measured["steps"][0], np.finfo(float).eps),
                      (4, 3), textcoords="offset points", color="0.4", fontsize=8)
        axes.invert_xaxis()
        axes.set(xlabel="step size h", ylabel="relative error of the derivative")
        axes.legend()
    return figure


def _problem_figure(printed):
    """Left all labels, a dot a seed; right few: errors of A and B against each other."""
    import matplotlib.figure
    narrow, models, few = printed.values()
    with matplotlib.rc_context(plots.STYLE):
        figure = matplotlib.figure.Figure((9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        every = {name: found for name, found in (narrow | models).items() if name != "bottom of 2"}
        for i, found in enumerate(every.values()):
            for task, color, aside in (("A", COLORS[0][0], -0.15), ("B", COLORS[1][0], 0.15)):
                seeds, x = found[task], i + aside
                left.plot([x] * len(seeds), seeds, "o", color=color, alpha=0.5, markersize=4)
                left.plot([x - 0.12, x + 0.12], [np.median(seeds)] * 2, color=color,
                          label=None if i else f"task {task}")
        left.set_xticks(range(len(every)), every, rotation=25, ha="right")
        left.set(ylabel="error on new rows", ylim=(0, None))
        left.legend()
        medians = {name: tuple(map(np.median, found.values())) for name, found in few.items()}
        path = sorted((float(name.split()[1]), name) for name in few if name.startswith("weight"))
        path.insert(2, (1.0, "shared_bottom"))
        right.plot(*zip(*(medians[name] for _, name in path)), "s-", color="0.5", markersize=4)
        for name, (a, b) in medians.items():
            if not name.startswith("weight"):
                right.plot(a, b, "o", color="black", markersize=5)
            right.annotate(name, (a, b), (5, -12 if name == "weight 0.01" else 4),
                           textcoords="offset points", fontsize=8)
        right.set(xlabel="error of A", ylabel="error of B, with 40 labels", xlim=(0, 0.6))
    return figure


MEASUREMENTS = {"isolation": measure_isolation, "comparison": measure_comparison,
                "errors": measure_errors}


def main(arguments=None):
    """Write all pictures to a folder; with `--measure` take the numbers anew first."""
    parser = argparse.ArgumentParser(
        prog="python docs/pictures.py", description="Draw the pictures of the documentation.")
    parser.add_argument("folder", type=Path, help="where the pictures and pictures.json stand")
    parser.add_argument("--measure", nargs="+", choices=MEASUREMENTS, default=[],
                        help="take these numbers anew; comparison takes half an hour")
    args = parser.parse_args(arguments)
    numbers = args.folder / "pictures.json"
    measured = json.loads(numbers.read_text("utf-8")) if numbers.exists() else {}
    for name in args.measure:
        measured[name] = MEASUREMENTS[name]()
    _write(numbers, json.dumps(measured, separators=(",", ":")).replace("},", "},\n") + "\n")
    for file, text in (drawings() | plotted(measured)).items():
        _write(args.folder / file, text)


def _write(path, text):
    with replacing(path) as file:
        file.write(text.encode())


if __name__ == "__main__":
    sys.exit(main())
