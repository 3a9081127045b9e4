"""`npple abtest`: models rank for simulated users."""

import sys
from argparse import Namespace

from npple import ARCHITECTURES
from npple.cli.options import Commands, add_arguments, command, number, one_of, show
from npple.errors import require


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "abtest", run, "let models rank for simulated users",
                     "npple abtest --models single_task mmoe ple --impressions 200000")
    add_arguments(parser, {
        "--models": {"nargs": "+", "type": one_of("model", ARCHITECTURES), "metavar": "MODEL",
                     "default": ["single_task", "mmoe", "cgc", "ple"],
                     "help": "the first is the control"},
        "--impressions": number(200_000, "videos shown in the test"),
        "--log-impressions": number(50_000, "videos shown before, to learn from"),
        "--epochs": number(5, "passes over what was logged"),
        "--users": number(20_000, "users, of all buckets"),
        "--scenes": {"action": "store_true", "help": "videos in two scenes, as of --data vtr_vcr, "
                                                     "instead of four tasks"},
        "--correlation": {"type": float, "help": "task correlation, -1/3 to 1: the cosine of the "
                                                 "tasks' weight vectors (0.5)"},
        "--dependence": {"type": float, "help": "with --scenes: how much playing and completing "
                                                "depend on the scene (0.8)"},
        "--sharing": {"type": float, "help": "with --scenes: the share of played rows that is "
                                             "shared (0.03)"},
        "--noise": {"type": float, "help": "what no feature tells, against 1 (1; with --scenes "
                                           "0.5)"},
        "--exploration": number(1.0, "noise on the logging policy's scores"),
        "--trained": number(3, "trainings of each model, each for a share of its bucket"),
        "--cuped": {"action": "store_true", "help": "take from each user's outcome what a time "
                                                    "before the test tells"},
        "--feedback": {"action": "store_true", "help": "train anew on a second log, that the first "
                                                       "models ranked"},
        "--seed": number(0, "of everything")})


def run(args: Namespace) -> None:
    """Log, learn, serve, and compare the buckets."""
    from npple.lab.abtest import abtest
    options = {name: value for name, value in vars(args).items()
               if name not in ("models", "command", "run", "parser", "json") and value is not None}
    for name in ("correlation",) if args.scenes else ("dependence", "sharing"):
        require(name not in options,
                f"--{name}: of no use {'with' if args.scenes else 'without'} --scenes")
    report = abtest({name: ARCHITECTURES[name] for name in args.models}, **options,
                    progress=lambda text: print(text, file=sys.stderr, flush=True))
    show(args, report.to_dict, report)
