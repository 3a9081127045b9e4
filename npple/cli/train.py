"""`npple train`: train a model, validate it each epoch, keep a checkpoint."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npple.archive import make_folder
from npple.checks import check_choice
from npple.cli.files import alone_in, check_folder, new_folder
from npple.cli.options import (Commands, Options, add_arguments, add_model, assignment, build,
                               by_name, command, number, one_of, show)
from npple.cli.rows import add_data, load
from npple.errors import Stopped, require
from npple.learn.balance import warnings_text
from npple.learn.evaluation import brief, entry_texts
from npple.learn.schema import Schema
from npple.learn.interruption import on_signal

if TYPE_CHECKING:
    from npple import Network
    from npple.core.base import Arrays
    from npple.learn.dataset import Dataset
    from npple.learn.training import Run


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "train", run, "train a model and save it",
                     "npple train --model ple --levels 2 --epochs 5 --out run")
    add_data(parser)
    add_model(parser)
    add_arguments(parser.add_argument_group("training"), {
        "--epochs": number(10, "passes over the rows"),
        "--batch-size": number(256, "rows of a step"),
        "--seed": number(0, "of initial values, shuffling and the held-out rows"),
        "--optimizer": {"type": one_of("optimizer", ("adam", "adamw", "sgd")),
                        "default": "adam", "metavar": "NAME", "help": "adam, adamw (its weight "
                        "decay is not scaled by the rate) or sgd"},
        "--rate": number(1e-3, "learning rate"),
        "--rates": {"type": assignment, "nargs": "+", "default": [], "metavar": "PATTERN=F",
                    "help": "factor on the rate of parameters of such names: '*/stitch/*=100'"},
        "--start-from": {"metavar": "F", "help": "checkpoint of single_task with these tasks, from "
                         "whose best parameters a cross-stitch network starts"},
        "--weight-decay": number(0.0, "decoupled weight decay"),
        "--clip": {"type": float, "help": "largest global gradient norm"},
        "--task-weight": {"type": assignment, "nargs": "+", "default": [], "metavar": "TASK=W",
                          "help": "weight of a task's loss (1 otherwise)"},
        "--task-decay": {"type": assignment, "nargs": "+", "default": [], "metavar": "TASK=G",
                         "help": "factor on that weight each epoch"},
        "--decay-per": {"type": one_of("unit of decay", ("epoch", "step")), "metavar": "UNIT",
                        "help": "epoch, or step: decay in each step instead (default: epoch, or "
                                "what --resume goes on with)"},
        "--mean-over": {"type": one_of("mean", ("batch", "data")), "default": "batch",
                        "metavar": "ROWS", "help": "batch: a task's loss is the mean over its rows "
                        "in the batch; data: weighted so that its gradient is an unbiased "
                        "estimate of that over all its rows"},
        "--skip-absent": {"action": "store_true", "help": "leave parameters alone in steps "
                          "without a row of a task that reaches them"},
        "--patience": {"type": int,
                       "help": "stop after so many epochs without a better validation loss"},
        "--keep-best": {"type": one_of("choice", ("joint", "per-task")), "default": "joint",
                        "metavar": "WHICH", "help": "joint: the parameters of one epoch for all "
                        "tasks, the best by validation losses relative to the best constant's; "
                        "per-task: those of each task's own best epoch too"},
        "--out": {"metavar": "DIR",
                  "help": "where the checkpoint goes (default: run, run-2, ...)"},
        "--checkpoint-every": {"type": int, "metavar": "N", "help": "save after every N steps too"},
        "--resume": {"action": "store_true", "help": "go on from the checkpoint in --out"}})


def run(args: Namespace) -> int:
    """Train, and say how each epoch went."""
    from npple.learn.training import Run
    for name in ("epochs", "patience", "checkpoint_every"):
        value = getattr(args, name)
        require(value is None or value > 0,
                f"--{name.replace('_', '-')}: must be above 0, got {value}")
    checkpoint = _checkpoint(args)
    saved = Run.load(checkpoint) if checkpoint and args.resume else None
    kept = Schema.from_dict(saved.schema) if saved and saved.schema else None
    train, validation, inputs, tasks, schema = load(args, kept)
    training = _new_run(args, build(args, inputs, tasks), schema.to_dict() if schema else None)
    if saved:
        training = _resumed(args, training, saved)
    if checkpoint is None:
        checkpoint = new_folder("--out", "run") / "checkpoint.npz"
    make_folder("--out", checkpoint.parent)
    with alone_in("--out", checkpoint.parent):
        return _train(args, training, train, validation, checkpoint)


def _train(args: Namespace, training: Run, train: Dataset, validation: Dataset, checkpoint: Path
           ) -> int:
    log = sys.stderr if args.json else sys.stdout
    print(_start_text(args, training, train, validation), file=log, flush=True)
    started, signals = time.perf_counter(), list[int]()
    try:
        with on_signal(signals.append):
            training.train(train, validation, args.epochs, patience=args.patience,
                           checkpoint=checkpoint, every=args.checkpoint_every,
                           new=not args.resume,  # somebody else's may have come
                           on_batch=_show_progress(), stop=lambda: signals,
                           on_epoch=lambda entry: print(_epoch_text(entry), file=log, flush=True))
    except Stopped as stopped:
        print(f"npple train: {stopped}; to go on, repeat the command with --out "
              f"{shlex.quote(str(checkpoint.parent))} --resume", file=sys.stderr)
        return 128 + signals[0]
    summary = _summary(args, training, validation, checkpoint)
    summary["seconds"] = round(time.perf_counter() - started, 2)
    show(args, lambda: summary, _summary_text(summary))
    return 0


# The run and its checkpoint ---------------------------------------------------------------------

def _new_run(args: Namespace, model: Network, schema: Options | None) -> Run:
    from npple.learn.training import OPTIMIZERS, Run
    optimizer = OPTIMIZERS[args.optimizer](weight_decay=args.weight_decay, clip=args.clip,
                                           rate=args.rate)
    weights = _by_task("--task-weight", args.task_weight, model.tasks)
    return Run(model, optimizer, args.batch_size, args.seed,
               dict.fromkeys(model.tasks, 1.0) | weights,
               _by_task("--task-decay", args.task_decay, model.tasks), args.skip_absent,
               schema=schema, decay_per=args.decay_per or "epoch", mean_over=args.mean_over,
               rates=by_name("--rates", args.rates), keep_best=args.keep_best,
               start=_start(args, model))


def _start(args: Namespace, model: Network) -> Arrays | None:
    """The parameters of --start-from, if there are any to start from."""
    from npple.learn.training import Run, stitched_start
    if args.start_from is None or args.resume:
        return None
    single = Run.load(args.start_from)
    return stitched_start(model, single.model, single.best, args.seed)


def _by_task(flag: str, pairs: Sequence[tuple[str, float]], tasks: Mapping[str, str]
             ) -> dict[str, float]:
    """{task: number} from TASK=NUMBER pairs."""
    for task, _ in pairs:
        check_choice(flag, task, tasks)
    return by_name(flag, pairs)


def _checkpoint(args: Namespace) -> Path | None:
    """Where the checkpoint goes, never over another one; None for a folder still to be made."""
    if args.out is None:
        require(not args.resume, "--resume: say where with --out DIR")
        check_folder("--out", ".")
        return None
    path = Path(args.out) / "checkpoint.npz"
    check_folder("--out", path.parent)
    require(path.exists() == args.resume,
            f"--out: {path} exists: --resume to go on with it, or choose another folder"
            if path.exists() else f"--resume: there is no {path}")
    return path


def _resumed(args: Namespace, run: Run, saved: Run) -> Run:
    """The saved run, if it was started with the same model and settings."""
    from npple.learn.training import SETTINGS
    if saved.schema is not None:
        run.schema = run.schema and Schema.from_dict(saved.schema).to_dict()
        saved.schema = Schema.from_dict(saved.schema).to_dict()
    run.decay_per, run.best_by = args.decay_per or saved.decay_per, saved.best_by
    for name in ("model", "optimizer", *SETTINGS):
        require(getattr(saved, name) == getattr(run, name),
                f"--resume: {args.out} was started with another {name.replace('_', ' ')}")
    return saved


# What is printed --------------------------------------------------------------------------------

def _start_text(args: Namespace, run: Run, train: Dataset, validation: Dataset) -> str:
    tasks = ", ".join(f"{task} ({kind})" for task, kind in run.model.tasks.items())
    rows = (f"{len(train):,} rows to train on, {len(validation):,} to validate on; batches of "
            f"{run.batch_size}, seed {run.seed}")
    lines = (f"{args.model}: {tasks}; {_size(run):,} parameters", rows, _correlations(args, train))
    return "\n".join(filter(None, lines))


def _correlations(args: Namespace, train: Dataset) -> str:
    """The task correlation of synthetic data, and that of the labels as measured, by scene too."""
    from npple.data import label_correlations
    from npple.learn.scenes import scene_correlations, scenes_text
    from npple.learn.synthetic import correlations_text
    task = f"task correlation {args.correlation:g}" if args.data == "synthetic" else ""
    scenes = scenes_text(scene_correlations(train)) if args.data == "vtr_vcr" else ""
    found = ", ".join(filter(None, (task, correlations_text(label_correlations(train)))))
    return "\n".join(filter(None, (found, scenes)))


def _size(run: Run) -> int:
    return sum(array.size for array in run.params.values())


def _show_progress() -> Callable[[Run, int], None] | None:
    """A line on a terminal that counts the batches of the running epoch; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(run: Run, batches: int) -> None:
        end = "\r" if run.batch < batches else "\r\033[K"
        print(f"epoch {run.epoch + 1}: batch {run.batch} of {batches}, "
              f"loss {run.loss_sum / run.batch:.4f}", end=end, file=sys.stderr, flush=True)
    return show


def _epoch_text(entry: Mapping[str, Any]) -> str:
    """An epoch in a line, and a line for what there is to be warned of."""
    parts = ", ".join(f"{task} {brief(part)}" for task, part in entry["parts"].items())
    tasks = (f"{task} {text}" for task, text in entry_texts(entry).items())
    line = "  |  ".join([f"epoch {entry['epoch']:>3}  loss {brief(entry['loss'])} ({parts})",
                         *tasks])
    return "\n".join([line, *warnings_text(entry)])


def _summary(args: Namespace, run: Run, validation: Dataset, checkpoint: Path) -> dict[str, Any]:
    from npple.learn.training import gate_weights
    gates = {name: {group: float(weights.sum()) for group, weights in groups.items()}
             for name, groups in gate_weights(run.model, run.best, validation).items()}
    best = {task: run.best_epoch_of(task) for task in run.model.tasks}
    return {"model": args.model, "tasks": run.model.tasks, "parameters": _size(run),
            "seed": run.seed, "epochs": run.epoch, "best_epoch": run.best_epoch["epoch"],
            "best_epochs": {task: entry["epoch"] for task, entry in best.items()},
            "validation": {task: entry["validation"][task] for task, entry in best.items()},
            "constants": {task: entry.get("constants", {}).get(task)
                          for task, entry in best.items()},
            "gates": gates, "checkpoint": str(checkpoint)}


def _summary_text(summary: Mapping[str, Any]) -> str:
    lines = [f"\nbest epoch: {summary['best_epoch']} of {summary['epochs']}, "
             f"{summary['seconds']:.1f} s in all"]
    if {*summary["best_epochs"].values()} != {summary["best_epoch"]}:
        each = (f"{task} {epoch}" for task, epoch in summary["best_epochs"].items())
        lines.append(f"each task's own: {', '.join(each)}")
    width = max(map(len, summary["tasks"]))
    lines += [f"  {task:{width}}  {text}" for task, text in entry_texts(summary).items()]
    if summary["gates"]:
        lines.append("mean weight that each gate gives the experts of")
    for name, groups in summary["gates"].items():
        shares = "  ".join(f"{group.split('/')[1]} {share:.3f}" for group, share in groups.items())
        lines.append(f"  {name:{width + 7}}  {shares}")
    lines.append(f"checkpoint: {summary['checkpoint']}")
    return "\n".join(lines)
