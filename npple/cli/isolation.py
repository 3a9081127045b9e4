"""`npple isolation`: which task's loss reaches which parameters, shown and verified."""

import json
from argparse import Namespace

from npple import influence, isolation
from npple.cli.files import check_plot
from npple.cli.options import Commands, add_arguments, add_proof, models, number, refuse_unused
from npple.cli.rows import DRESS, encode
from npple.errors import require
from npple.verify.cases import Case, random_model
from npple.verify.isolation import generic_case


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = add_proof(commands, "isolation", run,
                       "show and verify which task's loss reaches which parameters",
                       "npple isolation --model ple --levels 3 --plot isolation.svg")
    add_arguments(parser, {
        "--checkpoint": {"metavar": "F",
                         "help": "a trained model instead of a random one, from npple train"},
        "--data": {"metavar": "D", "help": "rows to verify the checkpoint on and measure its "
                                          "influence, as for npple train (otherwise random ones "
                                          "verify it)"},
        **DRESS,
        "--rows": number(256, "how many of these rows to use"),
        "--plot": {"metavar": "FILE", "help": "draw the matrix: .svg, .png or .pdf"}})


def run(args: Namespace) -> int:
    """Verify the matrix of each model; with a plot or a checkpoint, measure influence too."""
    require(args.checkpoint or not args.data, "--data: rows are for a --checkpoint, expected one")
    if args.checkpoint:
        refuse_unused(args, "with --checkpoint, whose model is what it is", "--model", "--tasks",
                      "--levels")
    if not args.data:
        refuse_unused(args, "without --data", "--rows", *DRESS)
    check_plot("--plot", args.plot, {"--checkpoint": args.checkpoint, "--data": args.data})
    cases = {args.checkpoint: _trained_case(args)} if args.checkpoint else _random_cases(args)
    require(not args.plot or len(cases) == 1, "--plot: choose one --model to draw")
    results = []
    for name, case in cases.items():
        found = isolation(case.model).verify(case.params, *case.batch[:3])
        results.append(found.to_dict(name))
        if not args.json:
            print(f"{name}\n{found}")
            print(f"{'verified four ways' if found.passed else 'NOT VERIFIED'}\n")
        if args.plot or args.data:
            _influence(args, case)
    if args.json:
        print(json.dumps(results[0] if args.checkpoint or args.model != "all" else results))
    return 0 if all(all(result["verified"].values()) for result in results) else 1


def _influence(args: Namespace, case: Case) -> None:
    """Print how strongly each loss reaches each group of a checkpoint, and draw the plot."""
    params = case.params if args.data else case.model.init(args.seed)
    strength = influence(case.model, params, *case.batch[:3])
    if args.data and not args.json:
        print(strength)
    if args.plot:
        from npple.draw import plots
        plots.save(plots.isolation_figure(isolation(case.model), strength.norms), args.plot)


def _random_cases(args: Namespace) -> dict[str, Case]:
    """A random case of each architecture asked for."""
    return {name: generic_case(random_model(name, args.tasks, args.levels), args.seed)
            for name in models(args)}


def _trained_case(args: Namespace) -> Case:
    """A checkpoint's model and best parameters, and the first rows of the data, in float64.

    Without data, random parameters and rows.
    """
    from npple.learn.training import Run
    trained = Run.load(args.checkpoint)
    if not args.data:
        return generic_case(trained.model, args.seed)
    rows = encode(trained, args, "float64")[0].take(slice(0, args.rows))
    params = {name: array.astype("float64") for name, array in trained.best.items()}
    return Case(trained.model, params, rows.x, rows.targets, {**rows.masks}, weights={}, noise={})
