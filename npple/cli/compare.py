"""`npple compare`: architectures at equal budgets."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from npple import ARCHITECTURES
from npple.cli.files import check_file, check_folder
from npple.cli.options import (Commands, add_arguments, add_options, by_name, command, given,
                               number, one_of, refuse_unused, show)
from npple.cli.rows import add_data, load, roles
from npple.errors import Stopped
from npple.learn.frames import columns_of
from npple.learn.interruption import on_signal
from npple.printing import one_line

if TYPE_CHECKING:
    from npple.lab.compare import Problem
    from npple.lab.gains import Comparison


FIGURES = ("curves", "gains", "correlation", "utilization")  # those of `comparison_figures`


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "compare", run, "compare architectures at equal budgets",
                     "npple compare --data synthetic --correlation 0 0.9 --seeds 5 --out compared")
    add_data(parser, correlations=True)
    add_options(parser.add_argument_group("model (for the architectures that have the option)"))
    add_arguments(parser.add_argument_group("comparison"), {
        "--models": {"nargs": "+", "type": one_of("model", ARCHITECTURES), "metavar": "NAME",
                     "default": list(ARCHITECTURES), "help": "architectures"},
        "--budget": {"type": int, "metavar": "N",
                     "help": "parameters of each, embeddings aside, by the width of experts "
                             "(otherwise those of PLE with experts of width 32)"},
        "--width": {"type": int, "metavar": "N", "help": "width of the experts of all instead: the "
                    "same structure, whatever parameters that makes"},
        "--seeds": number(3, "trainings of each"),
        "--seed": number(0, "of the data, and the first of the trainings"),
        "--data-seeds": {"action": "store_true", "help": "new data for each seed (synthetic, "
                         "vtr_vcr), so that intervals speak of other data too"},
        "--epochs": number(50, "passes over the rows at most"),
        "--patience": number(3, "a training ends after so many epochs without a better validation "
                                "loss"),
        "--batch-size": number(512, "rows of a step"),
        "--rate": number(3e-3, "learning rate"),
        "--rates": {"type": float, "nargs": "+", "default": [], "metavar": "R",
                    "help": "choose the rate of each architecture from these, by the validation "
                            "loss of the first seed"},
        "--grid": {"type": _choice, "nargs": "+", "default": [], "metavar": "OPTION=V,V",
                   "help": "choose options of each architecture that has them in the same way, as "
                           "l0=0.0001,0.001 experts=2,4,8"},
        "--keep-best": {"type": one_of("choice", ("joint", "per-task")), "default": "per-task",
                        "metavar": "WHICH", "help": "per-task: each task is predicted by the "
                        "parameters of its own best epoch; joint: all by those of one"},
        "--workers": number(1, "processes"),
        "--dask": {"metavar": "ADDRESS", "help": "of a Dask scheduler to train on instead"},
        "--out": {"metavar": "DIR", "help": "keep each training's result here; an interrupted "
                                            "comparison goes on from them"},
        "--csv": {"metavar": "F", "help": "write the table here too"},
        "--plots": {"metavar": "DIR",
                    "help": "draw gains, learning curves, expert utilization ... here"}})


def _choice(text: str) -> tuple[str, list[float]]:
    """An option and the numbers to choose from."""
    name, _, values = text.partition("=")
    try:
        return name.replace("-", "_"), [
            int(value) if value.isdecimal() else float(value) for value in values.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r}, expected an option and numbers, as experts=2,4,8"
                                ) from None


def run(args: Namespace) -> int:
    """Train all of them and print the gains."""
    from npple.lab.compare import Training, compare
    from npple.lab.trials import progress
    from npple.lab.workers import open_workers
    if args.rates:
        refuse_unused(args, "with --rates, which are chosen from", "--rate")
    if args.dask:
        refuse_unused(args, "with --dask, whose workers train", "--workers")
    check_file("--csv", args.csv, {"--data": args.data, "--validation": args.validation})
    check_folder("--out", args.out)
    check_folder("--plots", args.plots, [f"{name}.svg" for name in FIGURES])
    if args.plots:
        from npple.draw.plots import need_matplotlib
        need_matplotlib()
    cases, options, signals = _cases(args), given(args), list[int]()
    levels = options.pop("levels", 2)
    try:
        with on_signal(signals.append), open_workers(args.workers, args.dask) as (executor, share):
            comparison = compare(
                cases, args.models, seeds=range(args.seed, args.seed + args.seeds),
                budget=args.budget, levels=levels, options=options, executor=executor, share=share,
                out=args.out, width=args.width, rates=args.rates, grid=by_name("--grid", args.grid),
                data_seeds=args.data_seeds,
                training=Training(args.epochs, args.batch_size, args.rate, args.patience,
                                  args.keep_best),
                watch=progress, stop=lambda: signals)
    except Stopped as stopped:
        print(f"npple compare: {stopped}; " + ("repeat the command to go on" if args.out else
              "--out DIR would have kept them"), file=sys.stderr)
        return 128 + signals[0]
    _write(args, comparison)
    show(args, comparison.to_dict, comparison)
    return 0


def _cases(args: Namespace) -> list[Problem]:
    """The data sets to compare on: one for each correlation, or the one of --data."""
    from npple.lab.compare import Problem, synthetic_cases, vtr_vcr_cases
    if args.data == "synthetic":
        roles(args)
        return synthetic_cases(args.correlation, args.rows, args.inputs, args.tasks, args.seed)
    if args.data == "vtr_vcr":
        roles(args)
        return vtr_vcr_cases(args.dependence, args.rows, args.inputs, args.noise, args.sharing,
                             args.seed, args.tasks)
    train, test, inputs, tasks, schema = load(args)
    validation = None
    if schema and schema.form == "census" and Path(args.data).is_dir():  # as the papers split it
        test, validation = schema.encode(columns_of(args.data, schema.form)), test
    return [Problem(one_line(Path(args.data).name), train, test, inputs, tasks,
                    validation=validation)]


def _write(args: Namespace, comparison: Comparison) -> None:
    """The table and the plots that were asked for."""
    from npple.archive import make_folder, replacing
    if args.csv:
        with replacing(args.csv) as file:
            file.write(comparison.to_csv().encode())
    if args.plots:
        from npple.draw.plots import comparison_figures, save
        make_folder("--plots", args.plots)
        for name, figure in comparison_figures(comparison).items():
            save(figure, Path(args.plots) / f"{name}.svg")
