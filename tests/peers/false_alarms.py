"""Does the oracle cry wolf? Right candidates of random architectures, in four precisions.

    python tests/peers/false_alarms.py --runs 1000

Each run draws an architecture, its sizes, parameters and a batch, then a candidate: for the gated
architectures the PyTorch program of `deviant_torch` without a mistake, experts stacked or looped
and every sum in a random order, or a module of `formed_torch` with some of its parts mapped; for
the others npple's own passes in the candidate's precision. Runs take turns between float64, float32
and, in PyTorch, float16 and bfloat16. Of what is no module every third hands in only some of its
tensors, every fifth probabilities for logits and every fifth no logits.
"""

import argparse
import sys
from collections import Counter
from inspect import signature
from pathlib import Path

import numpy as np
import torch

import npple
from npple import oracle
from npple.oracle.flow import compute
from npple.oracle.variant import cast

sys.path.insert(0, str(Path(__file__).parent))
from deviant_torch import Candidate  # noqa: E402
from formed_torch import FORMS, Formed  # noqa: E402

PRECISIONS = ("float64", "float32", "float16", "bfloat16")
KINDS = ("binary", "regression", "multiclass:3")
GATED = ("single_task", "shared_bottom", "mmoe", "cgc", "ple")


def draw(number):
    """The name, the model, its inputs, its activation and the rows of run `number`."""
    rng = np.random.default_rng([1, number])

    def widths(low, high):
        return tuple(int(w) for w in rng.integers(2, 17, rng.integers(low, high)))

    tasks = {f"t{i}": str(rng.choice(KINDS)) for i in range(rng.integers(1, 5))}
    options = {"levels": int(rng.integers(1, 4)), "experts": int(rng.integers(1, 6)),
               "task_experts": {task: int(rng.integers(1, 4)) for task in tasks},
               "shared_experts": int(rng.integers(1, 4)), "expert_units": widths(1, 3),
               "tower_units": widths(0, 3), "gate_bias": bool(rng.integers(2)),
               "gate_units": widths(0, 2) if rng.integers(2) else (),
               "activation": str(rng.choice(["relu", "tanh", "sigmoid", "gelu", "softplus"]))}
    columns = {"x": "numeric", "c": (int(rng.integers(2, 9)), 3), "y": "numeric"}
    inputs = columns if rng.integers(2) else int(rng.integers(2, 17))
    name = str(rng.choice(list(npple.ARCHITECTURES)))
    builder = npple.ARCHITECTURES[name]
    known = signature(builder).parameters
    if "l0" in known or name in ("cross_stitch", "sluice"):
        options["expert_units"] = options["expert_units"][:1] * len(options["expert_units"])
    model = builder(inputs, tasks, **{key: options[key] for key in options if key in known})
    return name, model, inputs, options["activation"], int(rng.integers(1, 33))


def check(number):
    """The report of run `number`, and a line that says what it was."""
    name, model, inputs, activation, rows = draw(number)
    precision = PRECISIONS[number % (4 if name in GATED else 2)]
    vectors = oracle.make_vectors(model, seed=number, batch=rows)
    if name in GATED and number // 8 % 2:
        report, form = of_module(vectors, inputs, activation, precision, number)
    else:
        report, form = of_tensors(vectors, name, activation, precision, number)
    return report, f"run {number}: {name}, {activation}, {rows} rows, {precision}, {form}"


def of_module(vectors, inputs, activation, precision, number):
    """The report on a module in one of the forms of `formed_torch`, and which."""
    rng = np.random.default_rng([2, number])
    form, wide = str(rng.choice(FORMS)), bool(rng.integers(2)) and precision != "float64"
    module = Formed(vectors.params, inputs, vectors.model.tasks, activation, form, wide)
    probable = number % 5 == 2 and precision in ("float64", "float32") and (
        {*vectors.model.tasks.values()} != {"regression"})
    report = oracle.check_module(
        vectors, module.to(getattr(torch, precision)), module.mapping(rng, probable),
        conventions=["output-probability"] * probable)
    return report, (f"module, {form}{', float32 outputs' * wide}"
                    f"{', probabilities as outputs' * probable}")


def of_tensors(vectors, name, activation, precision, number):
    """The report on a candidate's tensors, and how they were made."""
    if name in GATED:
        stacked = bool(number // 4 % 2)
        candidate = Candidate(vectors, dtype=getattr(torch, precision), seed=number,
                              stacked=stacked, activation=activation)
        given = candidate(vectors.params, vectors.inputs)
        form = f"PyTorch, {'stacked' if stacked else 'looped'}"
    else:
        given = dict(compute(vectors.variant, cast(vectors.case, np.dtype(precision))))
        form = "npple"
    rng = np.random.default_rng([2, number])
    if number % 3 == 0:
        given = {tensor: y for tensor, y in given.items() if rng.random() < 0.7}
    given, conventions, handed = outputs(given, vectors.model.tasks, number)
    report = oracle.check(vectors, given, precision=precision, conventions=conventions)
    return report, form + handed


def outputs(given, tasks, number):
    """The tensors, in some runs with probabilities for logits; conventions; which, in words."""
    names = {f"tower/{task}": f"prediction/{task}" for task in tasks}
    others = {name: y for name, y in given.items() if name not in names}
    if number % 5 == 1:
        return others, (), ", predictions alone"
    if number % 5 == 2 and {*tasks.values()} != {"regression"}:
        return (others | {name: given[own] for name, own in names.items() if own in given},
                ("output-probability",), ", probabilities as outputs")
    return given, (), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    limits = {"float64": 1e-11, "float32": 1e-4}
    alarms, tensors, blunt, verdicts = 0, 0, 0, Counter()
    worst = dict.fromkeys(PRECISIONS, 0.0)
    for number in range(args.first, args.first + args.runs):
        report, what = check(number)
        tensors += len(report.rows)
        verdicts[report.verdict] += 1
        whole = (row.excess for row in report.rows if row.name not in report.judge.partial)
        worst[report.precision] = max(worst[report.precision], *whole)
        limit = limits.get(report.precision, np.inf)
        blunt += sum(row.tolerance > limit for row in report.rows)
        if report.wrong or report.verdict not in ("passed", "passed in part"):
            alarms += 1
            print(f"FALSE ALARM {what}: {report.verdict}\n{report.worst}", flush=True)
    found = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    print(f"{args.runs} runs ({found}), {alarms} false alarms; {tensors} tensors; largest error in "
          f"units of its tolerance: "
          f"{', '.join(f'{each:.2f} ({name})' for name, each in worst.items())}; "
          f"{blunt} tensors tolerate more than 1e-11 or 1e-4")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
