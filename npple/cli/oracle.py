"""`npple oracle`: test vectors of a model, and whether another implementation agrees with them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from npple.cli.files import check_file, check_folder
from npple.cli.options import (Commands, Parser, add_arguments, add_model, build, command,
                               given, named_tasks, number, refuse_unused, shape, show)
from npple.errors import require

if TYPE_CHECKING:
    from npple.oracle import Report, Vectors


EXPECT = ("outputs", "forward", "gradients", "everything")


def add(commands: Commands) -> None:
    """The command and its three actions."""
    help = "say whether another implementation is right"
    parser = commands.add_parser("oracle", help=help, description=help)
    actions = parser.add_subparsers(dest="action", required=True, metavar="export|check|suite")
    _add_export(command(actions, "export", export, "write test vectors of a model, or the suite",
                        "npple oracle export --model ple --tasks 3 --levels 2 --out ple.npz"))
    _add_check(command(actions, "check", check, "hold results against test vectors",
                       "npple oracle check ple.npz results.npz"))
    _add_suite(command(actions, "suite", show_suite, "list the cases of the suite, or what each of "
                       "them tells", "npple oracle suite --table"))


def _add_export(parser: Parser) -> None:
    add_model(parser)
    add_arguments(parser.add_argument_group("test vectors"), {
        **shape(inputs=8, tasks=["2"]),
        "--batch": number(8, "rows"),
        "--seed": number(0, "of parameters and data"),
        "--dtype": {"default": "float64", "help": "of everything stored: float64 or float32"},
        "--out": {"metavar": "F", "help": "the file to write, .npz"},
        "--all": {"metavar": "DIR", "help": "write the suite over all architectures instead"},
        "--also-json": {"action": "store_true", "help": "write the same as .json beside each .npz, "
                        "for languages that cannot read those"}})


def _add_check(parser: Parser) -> None:
    add_arguments(parser, {
        "vectors": {"help": "from npple oracle export"},
        "results": {"help": "an .npz or .json, or a folder of .npy files, by the same names; or "
                            "an .onnx file, which is run"},
        "--mapping": {"metavar": "F", "help": "JSON that says where an .onnx file has what; by "
                      "default it is found by probing"},
        "--expect": {"default": "outputs", "choices": EXPECT, "help": "what must be there for a "
                     "full pass"},
        "--precision": {"help": "what the results were computed in: float64, float32, float16, "
                                "bfloat16; the dtype they have, otherwise"},
        "--conventions": {"nargs": "+", "default": [], "metavar": "NAME", "help": "choices that "
                          "are no mistakes: shared-first, gate-bias, gate-hidden, "
                          "output-probability, loss-data-mean"}})


def _add_suite(parser: Parser) -> None:
    add_arguments(parser, {"--table": {"action": "store_true", "help": "deviation by case: of how "
                                       "many architectures, of those it applies to, it is told"}})


def show_suite(args: Namespace) -> None:
    """List the cases, or work out which of them tells which deviation."""
    from npple.oracle.cases import CASES
    from npple.oracle.telling import telling_cases, telling_table
    from npple.printing import aligned
    if args.table:
        found = telling_cases()
        return show(args, lambda: found, telling_table(found))
    listed = {name: recipe.purpose for name, recipe in CASES.items()}
    show(args, lambda: listed, aligned([*listed.items()]))


def export(args: Namespace) -> None:
    """Write the vectors of one model, or the suite."""
    from npple import oracle
    require(bool(args.out) != bool(args.all), "--out FILE or --all DIR: one of them is needed")
    check_file("--out", args.out)
    require(not (args.also_json and args.out and Path(args.out).suffix == ".json"),
            f"--out: {args.out}, expected another ending beside --also-json, such as .npz")
    if args.also_json and args.out:
        check_file("--also-json", str(Path(args.out).with_suffix(".json")))
    check_folder("--all", args.all, ["manifest.json"])
    if args.all:
        require(not given(args), "--all: the models of the suite are what they are, expected no "
                                 "options of models")
        refuse_unused(args, "with --all, which writes the suite", "--model", "--inputs", "--tasks",
                      "--batch", "--seed", "--dtype")
        manifest = oracle.export_all(args.all, args.also_json)
        return show(args, lambda: manifest,
                    f"{len(manifest['cases'])} cases and manifest.json: {args.all}")
    model = build(args, args.inputs, named_tasks(args.tasks))
    vectors = oracle.make_vectors(model, args.seed, args.batch, args.dtype)
    vectors.save(args.out)
    if args.also_json:
        vectors.save_json(Path(args.out).with_suffix(".json"))
    count = len(vectors.expected)
    show(args, lambda: {"file": args.out, "tensors": count, **vectors.notes},
         f"{args.out}: {count} tensors of {args.model} on {args.batch} rows")


def check(args: Namespace) -> int:
    """Judge the results."""
    from npple import oracle
    vectors = oracle.load(args.vectors)
    if args.results.lower().endswith(".onnx"):
        report = _check_onnx(args, vectors)
    else:
        require(args.mapping is None, "--mapping: for an .onnx file alone, results go by npple's "
                                      "names")
        report = oracle.check(vectors, args.results, expect=args.expect, precision=args.precision,
                              conventions=args.conventions)
    show(args, report.to_dict, report)
    return 0 if report.passed else 1


def _check_onnx(args: Namespace, vectors: Vectors) -> Report:
    """The report on an ONNX file, by the mapping that is given or found."""
    from npple import oracle
    require(args.precision is None, "--precision: an .onnx file has its own")
    if args.mapping is not None:
        mapping = oracle.load_mapping(args.mapping)
    else:
        file = oracle.OnnxModel(args.results)
        proposal = oracle.suggest(file.weights, vectors.model, file.run)
        require(proposal.certain, "--mapping: needed, for where this file has what could not be "
                                  "found with certainty; npple.oracle.suggest shows how far")
        mapping = proposal.mapping
    return oracle.check_onnx(vectors, args.results, mapping, expect=args.expect,
                             conventions=args.conventions)
