"""`npple draw`: an architecture, and where gradients go."""

from argparse import Namespace

from npple import Network
from npple.cli.files import check_apart, check_file
from npple.cli.options import (Commands, add_arguments, add_model, build, command, given,
                               named_tasks, refuse_unused, shape, show)
from npple.errors import require


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "draw", run, "draw an architecture, and where gradients go",
                     "npple draw --model ple --levels 2 --task vtr --out ple.svg")
    add_model(parser)
    add_arguments(parser.add_argument_group("drawing"), {
        "--checkpoint": {"metavar": "F", "help": "draw the model of npple train"},
        **shape(inputs=32, tasks=["vtr", "vcr=regression"]),
        "--task": {"metavar": "NAME", "help": "show what the gradient of this task's loss reaches"},
        "--out": {"metavar": "FILE", "help": "write a picture, .svg, instead of printing text"},
        "--html": {"metavar": "FILE", "help": "write a page with all architectures to explore"}})


def run(args: Namespace) -> None:
    """Print the drawing, or write the files asked for."""
    from npple.archive import replacing
    from npple.draw import diagram, page, svg, text
    read = {"--checkpoint": args.checkpoint}
    check_file("--out", args.out, read, endings=(".svg",))
    check_file("--html", args.html, read)
    check_apart("--out", args.out, "--html", args.html)
    if args.html and not args.out:
        refuse_unused(args, "for --html alone, where each task can be chosen", "--task")
    tasks, name = named_tasks(args.tasks), args.checkpoint or args.model
    drawn = diagram(_trained(args) if args.checkpoint else build(args, args.inputs, tasks))
    shown, files = text(drawn, args.task), {}
    if args.out:
        files[args.out] = svg(drawn, name, args.task)
    if args.html:
        files[args.html] = page(args.inputs, tasks, args.model, **given(args))
    for path, content in files.items():
        with replacing(path) as file:
            file.write(content.encode())
    show(args, lambda: {"model": name, **drawn.to_dict()},
         "\n".join(files) or f"{name}\n\n{shown}")


def _trained(args: Namespace) -> Network:
    """The model of the checkpoint."""
    from npple.learn.training import Run
    require(not args.html, "--html: a page is of all architectures, expected no --checkpoint")
    require(not given(args), "--checkpoint: its model is what it is, expected no options of models")
    refuse_unused(args, "with --checkpoint, whose model is what it is", "--model", "--inputs",
                  "--tasks")
    return Run.load(args.checkpoint).model
