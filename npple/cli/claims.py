"""`npple claims`: run an experiment on a claim of the papers."""

import sys
from argparse import Namespace
from pathlib import Path

from npple.cli.files import check_folder
from npple.cli.options import (Commands, add_arguments, command, number, one_of,
                               refuse_unused, show)
from npple.errors import Stopped
from npple.learn.interruption import on_signal

NAMES = ("mmoe-becomes-ple", "utilization", "dense-and-sparse", "seesaw-map", "selector-worth",
         "task-weights", "cross-stitch", "trainability")


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "claims", run, "test a claim of the papers",
                     "npple claims mmoe-becomes-ple --quick --out runs --plots plots")
    add_arguments(parser, {
        "name": {"metavar": "NAME", "type": one_of("experiment", NAMES), "help": ", ".join(NAMES)},
        "--quick": {"action": "store_true",
                    "help": "fewer rows, epochs and seeds: two minutes at most"},
        "--seeds": {"type": int, "metavar": "N",
                    "help": "as many trainings of each, on new data, instead"},
        "--workers": number(1, "processes"),
        "--dask": {"metavar": "ADDRESS", "help": "of a Dask scheduler to train on instead"},
        "--out": {"metavar": "DIR", "help": "keep each training's result here; an interrupted "
                                            "experiment goes on from them"},
        "--plots": {"metavar": "DIR", "help": "draw NAME.svg here"}})


def run(args: Namespace) -> int:
    """Train, and say what came out."""
    from npple.lab.claims import claims
    from npple.lab.trials import progress
    from npple.lab.workers import open_workers
    if args.dask:
        refuse_unused(args, "with --dask, whose workers train", "--workers")
    check_folder("--out", args.out)
    check_folder("--plots", args.plots, [f"{args.name}.svg"])
    if args.plots:
        from npple.draw.plots import need_matplotlib
        need_matplotlib()
    signals = list[int]()
    try:
        with on_signal(signals.append), open_workers(args.workers, args.dask) as (executor, share):
            found = claims(args.name, args.quick, seeds=args.seeds, executor=executor, share=share,
                           out=args.out, watch=progress, stop=lambda: signals)
    except Stopped as stopped:
        print(f"npple claims: {stopped}; " + ("repeat the command to go on" if args.out else
              "--out DIR would have kept them"), file=sys.stderr)
        return 128 + signals[0]
    if args.plots:
        from npple.archive import make_folder
        from npple.draw.plots import finding_figure, save
        make_folder("--plots", args.plots)
        save(finding_figure(found.panels), Path(args.plots) / f"{found.name}.svg")
    show(args, found.to_dict, found)
    return 0
