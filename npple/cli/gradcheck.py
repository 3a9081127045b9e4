"""`npple gradcheck`: every gradient of an architecture against numbers."""

import json
from argparse import Namespace

from npple.cli.options import Commands, add_proof, models, one_of, refuse_unused
from npple.verify.gradcheck import METHODS, demonstrate
from npple.verify.power import power


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = add_proof(commands, "gradcheck", run,
                       "check every gradient of an architecture on random data",
                       "npple gradcheck --model ple --levels 3")
    parser.add_argument("--method", type=one_of("method", METHODS), default="complex-step",
                        metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--power", action="store_true",
                        help="print the smallest error that each method finds (of PLE, if 'all')")


def run(args: Namespace) -> int:
    """Check each architecture that is asked for, or say how strict the checks are."""
    if args.power:
        refuse_unused(args, "with --power", "--tasks", "--levels", "--method")
        strict = power("ple" if args.model == "all" else args.model, args.seed)
        print(json.dumps(strict.to_list()) if args.json else strict)
        return 0
    results = []
    for name in models(args):
        report = demonstrate(name, args.tasks, args.levels, method=args.method, seed=args.seed)
        results.append({"model": name, "parameters": report.checked + report.skipped,
                        "method": args.method, "max_relative_error": report.max_relative_error,
                        "tolerance": report.tolerance, "skipped": report.skipped,
                        "passed": report.passed})
        if not args.json:
            print(f"{name}\n{report}\n" if args.model != "all" else
                  f"{name:20} {results[-1]['parameters']:>6} parameters  {args.method}: largest "
                  f"error {report.max_relative_error:.1e}, {report.skipped} not judged  "
                  f"{report.verdict}", flush=True)
    if args.json:
        print(json.dumps(results if args.model == "all" else results[0]))
    return 1 if any(result["passed"] is False for result in results) else 0
