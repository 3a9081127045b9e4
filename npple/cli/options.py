"""What commands share: the parser, the options of a model and its tasks, and how they print."""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from npple import ARCHITECTURES, Network
from npple.architectures import Inputs
from npple.errors import nearest, require
from npple.printing import visible
from npple.verify.cases import numbered_tasks

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Group: TypeAlias = "argparse._ArgumentGroup | Parser"
Options: TypeAlias = dict[str, Any]  # keyword arguments by name
Run: TypeAlias = Callable[[argparse.Namespace], int | None]  # a status; None is 0
MODEL: dict[str, Options] = {  # options that are arguments of builders, by their names
    "levels": {"type": int, "help": "extraction levels"},
    "experts": {"type": int, "nargs": "+", "metavar": "N", "help": "experts of MMoE; for ML-MMoE "
                "also a number a level"},
    "task_experts": {"nargs": "+", "metavar": "N", "help": "experts a task: a number, or numbers "
                     "by task (click=2 watch=3), or such an entry a level (2 click=2,watch=3)"},
    "shared_experts": {"type": int, "nargs": "+", "metavar": "N",
                       "help": "shared experts: a number, or one a level"},
    "expert_units": {"nargs": "+", "metavar": "N", "help": "widths of an expert's layers; levels "
                     "of different widths apart with / (64 32 / 16)"},
    "tower_units": {"type": int, "nargs": "*", "help": "widths of a tower's hidden layers"},
    "gate_units": {"type": int, "nargs": "+", "help": "widths of a gate's hidden layers"},
    "gate_bias": {"action": "store_true", "help": "give the gates a bias"},
    "activation": {"help": "relu, tanh, sigmoid, gelu, softplus or identity"},
    "l0": {"type": float, "help": "weight of SNR's penalty on open connections"},
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and what is wrong; the usage is a `--help` away."""
        line = visible(" ".join(message.split()))
        self.exit(2, f"{self.prog}: error: {line}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help or an error; argparse's own hides a disk that is full."""
        print(message, end="", file=file or sys.stderr, flush=True)


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """A help that adds the defaults there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default == []
        return action.help if none else super()._get_help_string(action)


def command(commands: Commands, name: str, run: Run, help: str,
            example: str) -> Parser:
    """A new command, or an action of one, that calls `run` and knows --json."""
    parser = commands.add_parser(name, help=help, description=help, epilog=f"example: {example}",
                                 formatter_class=Help)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object on standard output")
    return parser


def add_arguments(group: Group, arguments: Mapping[str, Options]) -> None:
    """A table of arguments: name -> what `add_argument` takes."""
    for name, options in arguments.items():
        group.add_argument(name, **options)


def number(default: float, help: str) -> Options:
    """An argument that is an integer or a real number, as its default is."""
    return {"type": type(default), "default": default, "help": help}


def one_of(what: str, choices: Collection[str]) -> Callable[[str], str]:
    """For `type=`: a name among `choices`; another is answered with the nearest of them."""
    def name(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(nearest(f"no {what}", text, choices))
        return text
    return name


def assignment(text: str) -> tuple[str, float]:
    """For `type=`: a name and its number."""
    name, _, value = text.rpartition("=")
    try:
        number = float(value if name else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected NAME=NUMBER") from None
    return name, number


def by_name(flag: str, pairs: Sequence[tuple[str, Any]]) -> Options:
    """Pairs as a dict, if no name comes twice: all but the last would be lost."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, f"{flag}: {twice!r} is named twice, expected once")
    return dict(pairs)


def refuse_unused(args: argparse.Namespace, why: str, *flags: str) -> None:
    """Raise `InputError` for a flag with another value than its default, of no use for a reason."""
    for flag in flags:
        name = flag[2:].replace("-", "_")
        require((getattr(args, name) or None) == (args.parser.get_default(name) or None),
                f"{flag}: of no use {why}")


def show(args: argparse.Namespace, data: Callable[[], object], text: object) -> None:
    """Print a result: with --json what `data` returns, else `text`."""
    print(json.dumps(data()) if args.json else visible(text))


# Models -----------------------------------------------------------------------------------------

def add_model(parser: Parser) -> None:
    """--model and the options of its builder."""
    group = parser.add_argument_group("model (unset options are the architecture's own defaults)")
    add_arguments(group, {"--model": {
        "type": one_of("model", ARCHITECTURES), "default": "ple", "metavar": "NAME",
        "help": ", ".join(sorted(ARCHITECTURES))}})
    add_options(group)


def add_options(group: Any) -> None:
    """The options of builders."""
    add_arguments(group, {f"--{name.replace('_', '-')}": {"default": argparse.SUPPRESS, **option}
                          for name, option in MODEL.items()})


def shape(inputs: int, tasks: list[str]) -> dict[str, Options]:
    """--inputs and --tasks of a model that needs no data, with these defaults."""
    return {"--inputs": number(inputs, "width of the input"),
            "--tasks": {"nargs": "+", "default": tasks, "metavar": "T", "help":
                        "a number, or NAME[=KIND] with the kinds binary, regression, multiclass:K"}}


def given(args: argparse.Namespace) -> Options:
    """The model options that the arguments set."""
    read: dict[str, Callable[[Any], object]] = {
        "experts": _one_or_all, "shared_experts": _one_or_all, "task_experts": _task_counts,
        "expert_units": _level_units}
    return {name: read.get(name, _as_it_is)(value) for name, value in vars(args).items()
            if name in MODEL}


def _as_it_is(value: object) -> object:
    return value


def _one_or_all(entries: list[Any]) -> object:
    """A lone entry is that of all levels."""
    return entries[0] if len(entries) == 1 else entries


def _task_counts(texts: list[str]) -> object:
    """An entry a level, a number or numbers by task; single tasks side by side are one entry."""
    if all("=" in text and "," not in text for text in texts):
        texts = [",".join(texts)]
    return _one_or_all([_task_count(text) for text in texts])


def _task_count(text: str) -> int | dict[str, int]:
    if "=" not in text:
        return _integer("--task-experts", text)
    pairs = [part.rpartition("=")[::2] for part in text.split(",")]
    counts = {task: _integer("--task-experts", count) for task, count in pairs}
    require(len(counts) == len(pairs), f"--task-experts: {text!r} names a task twice, expected an "
            "entry a level, such as click=2,watch=3")
    return counts


def _level_units(texts: list[str]) -> object:
    """Widths, or lists of them where a / stands between two levels."""
    levels: list[list[int]] = [[]]
    for text in texts:
        if text == "/":
            levels.append([])
        else:
            levels[-1].append(_integer("--expert-units", text))
    return _one_or_all(levels)


def _integer(flag: str, text: str) -> int:
    require(re.fullmatch(r"[+-]?[0-9]{1,9}", text), f"{flag}: {text!r}, expected an integer")
    return int(text)


def build(args: argparse.Namespace, inputs: Inputs, tasks: Mapping[str, str]) -> Network:
    """The model that the arguments describe; options it does not have are an error."""
    builder, options = ARCHITECTURES[args.model], given(args)
    unknown = options.keys() - inspect.signature(builder).parameters.keys()
    require(not unknown, f"--{min(unknown, default='').replace('_', '-')}: "
                         f"{args.model} has no such option")
    return builder(inputs, tasks, **options)


def named_tasks(texts: Sequence[str]) -> dict[str, str]:
    """Task name -> kind from NAME[=KIND], "binary" without one; or from a number of tasks."""
    if len(texts) == 1 and texts[0].isdecimal() and len(texts[0]) < 10:
        return numbered_tasks(int(texts[0]))
    tasks = {name: kind or "binary" for name, _, kind in (text.partition("=") for text in texts)}
    require(len(tasks) == len(texts), f"--tasks: a name stands there twice: {texts}")
    return tasks


# Proofs -----------------------------------------------------------------------------------------

def add_proof(commands: Commands, name: str, run: Run, help: str,
              example: str) -> Parser:
    """A command that proves something of one architecture, or of all, on a random case."""
    parser, names = command(commands, name, run, help, example), ["all", *sorted(ARCHITECTURES)]
    add_arguments(parser, {
        "--model": {"type": one_of("model", names), "default": "all", "metavar": "NAME", "help":
                    f"{', '.join(names)}; with --json one object, or a list of them for 'all'"},
        "--tasks": number(3, "number of tasks"),
        "--levels": number(2, "extraction levels"),
        "--seed": number(0, "of random parameters and data")})
    return parser


def models(args: argparse.Namespace) -> list[str]:
    """The architectures to prove something of."""
    return list(ARCHITECTURES) if args.model == "all" else [args.model]
