"""`npple evaluate`: how good a checkpoint's predictions for labelled rows are."""

from __future__ import annotations

from argparse import Namespace

from npple.cli.files import check_plot
from npple.cli.options import Commands, add_arguments, command, number, show
from npple.cli.rows import DRESS, TRAINED, UNKNOWN, dress_of


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "evaluate", run, "evaluate a trained model on labelled rows",
                     "npple evaluate --checkpoint run/checkpoint.npz --data later.csv "
                     "--group user_id")
    add_arguments(parser, {
        **TRAINED,
        "--data": {"required": True, "metavar": "D",
                   "help": "labelled rows in the format of the training data"},
        **DRESS, **UNKNOWN,
        "--group": {"metavar": "COLUMN", "help": "column of users: print GAUC too, the mean AUC "
                                                 "within users, weighted by their rows"},
        "--bins": number(10, "bins of the calibration, of about as many rows each"),
        "--plot": {"metavar": "FILE", "help": "draw the calibration: .svg, .png or .pdf"}})


def run(args: Namespace) -> None:
    """Evaluate, print, and draw if asked to."""
    from npple.learn.trained import load
    check_plot("--plot", args.plot, {"--checkpoint": args.checkpoint, "--data": args.data})
    found = load(args.checkpoint).evaluate(args.data, group=args.group, bins=args.bins,
                                           accept_unknown=args.allow_unknown, **dress_of(args))
    if args.plot:
        from npple.draw import plots
        plots.save(plots.calibration_figure(found.calibration), args.plot)
    show(args, found.to_dict, found)
