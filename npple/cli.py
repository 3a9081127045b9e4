"""The command line: what `npple COMMAND` does, from its arguments to what it prints.

Results go to standard output, as text or with --json as one JSON object; progress and errors go
to standard error. Exit status: 0 passed, 1 a check failed, 2 bad usage or input, 130 or 143 ended
by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shlex
import sys
import time
from pathlib import Path

from npple import ARCHITECTURES, InputError, NppleError, __version__
from npple.errors import FileError, Stopped, require
from npple.learn.interruption import on_signal


def main(arguments=None):
    """Run one command; the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except NppleError as error:
        print(f"npple {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"npple {args.command}: error: out of memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"npple {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `npple ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="npple", description="Progressive Layered Extraction and its relatives, by hand.")
    parser.add_argument("--version", action="version", version=f"npple {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_predict(commands)
    _add_gradcheck(commands)
    _add_isolation(commands)
    _add_oracle(commands)
    _add_abtest(commands)
    _add_compare(commands)
    _add_draw(commands)
    return parser


def _command(commands, name, run, help, example):
    parser = commands.add_parser(name, help=help, description=help, epilog=f"example: {example}",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object on standard output")
    return parser


# Models and data, as several commands take them -------------------------------------------------

def _add_model(parser, default="ple"):
    group = parser.add_argument_group("model (unset options are the architecture's own defaults)")
    group.add_argument("--model", choices=sorted(ARCHITECTURES), default=default)
    _add_options(group)


def _add_options(group):
    add = group.add_argument
    hidden = {"default": argparse.SUPPRESS}
    add("--levels", type=int, help="extraction levels", **hidden)
    add("--experts", type=int, help="experts of MMoE", **hidden)
    add("--task-experts", type=int, help="experts a task", **hidden)
    add("--shared-experts", type=int, help="shared experts", **hidden)
    add("--expert-units", type=int, nargs="+", help="widths of an expert's layers", **hidden)
    add("--tower-units", type=int, nargs="*", help="widths of a tower's hidden layers", **hidden)
    add("--gate-units", type=int, nargs="+", help="widths of a gate's hidden layers", **hidden)
    add("--gate-bias", action="store_true", help="give the gates a bias", **hidden)
    add("--activation", help="relu, tanh, sigmoid, gelu, softplus or identity", **hidden)
    add("--l0", type=float, help="weight of SNR's penalty on open connections", **hidden)


def _build(args, inputs, tasks):
    """The model that the arguments describe; options it does not have are an error."""
    builder, given = ARCHITECTURES[args.model], _given(args)
    unknown = given.keys() - inspect.signature(builder).parameters.keys()
    require(not unknown, f"--{min(unknown, default='').replace('_', '-')}: "
                         f"{args.model} has no such option")
    return builder(inputs, tasks, **given)


def _given(args):
    """The model options that the arguments set."""
    return {name: value for name, value in vars(args).items() if name in (
        "levels", "experts", "task_experts", "shared_experts", "expert_units", "tower_units",
        "gate_units", "gate_bias", "activation", "l0")}


def _named_tasks(texts):
    """Task name -> kind from NAME[=KIND], "binary" without one; or from a number of tasks."""
    from npple.verify.cases import numbered_tasks
    if len(texts) == 1 and texts[0].isdecimal() and len(texts[0]) < 10:
        return numbered_tasks(int(texts[0]))
    tasks = {name: kind or "binary" for name, _, kind in (text.partition("=") for text in texts)}
    require(len(tasks) == len(texts), f"--tasks: a name stands there twice: {texts}")
    return tasks


def _add_data(parser, correlations=False):
    group = parser.add_argument_group("data")
    group.add_argument("--data", default="census", metavar="D",
                       help="'census' (the bundled sample), 'synthetic', or a file: Census-Income "
                            "as published or, with the flags below, a CSV with a header")
    group.add_argument("--validation", metavar="F",
                       help="a file in the same format (otherwise a fifth of the rows is held out)")
    for kind, help in (("numeric", "numeric feature columns"),
                       ("categorical", "categorical feature columns"),
                       ("log", "numeric columns to take log(1 + x) of"),
                       ("binary", "label columns of 0 and 1"),
                       ("regression", "label columns of real numbers"),
                       ("multiclass", "label columns of class names")):
        group.add_argument(f"--{kind}", nargs="+", default=[], metavar="COLUMN", help=help)
    group.add_argument("--embedding-width", type=int, default=4, metavar="N",
                       help="width of each categorical column's embedding")
    group.add_argument("--rows", type=int, default=20000, help="rows of synthetic data")
    group.add_argument("--inputs", type=int, default=128, help="width of synthetic data")
    group.add_argument("--tasks", type=int, default=2, help="tasks of synthetic data")
    several = {"nargs": "+", "default": [-0.5, 0.0, 0.5, 0.9]} if correlations else {"default": 0.5}
    group.add_argument("--correlation", type=float, **several,
                       help="label correlation p of synthetic data, -1 to 1")


def _roles(args):
    """What the column flags say, as `Schema.learn` takes it; None without flags."""
    tasks = {column: kind for kind in ("binary", "regression", "multiclass")
             for column in getattr(args, kind)}
    labels = args.binary + args.regression + args.multiclass
    for column in tasks:
        require(labels.count(column) == 1, f"label columns: {column!r} is named twice")
    if not (tasks or args.numeric or args.categorical or args.log):
        return None
    require(args.data not in ("census", "synthetic"),
            f"--data {args.data} knows its columns: leave out --numeric, --binary and so on")
    return {"numeric": args.numeric, "categorical": args.categorical, "tasks": tasks,
            "log": args.log}


def _load(args):
    """Training and validation rows, the model's inputs, its tasks, and the schema to keep."""
    from npple import data
    from npple.learn import census
    roles = _roles(args)
    if args.data == "synthetic":
        require(not args.validation, "--validation: synthetic data makes its own")
        rows = data.synthetic(args.rows, inputs=args.inputs, correlation=args.correlation,
                              tasks=args.tasks, seed=args.seed)
        tasks = dict.fromkeys(rows.targets, "regression")
        return *rows.split(0.8, args.seed), args.inputs, tasks, None
    form = "csv" if roles else "census"
    columns = data.bundled() if args.data == "census" else _read(form, args.data)
    schema = data.Schema.learn(columns, **(roles or census.ROLES))
    rows = schema.encode(columns)
    held_out = (schema.encode(_read(form, args.validation)),) if args.validation else ()
    train, validation = (rows, *held_out) if held_out else rows.split(0.8, args.seed)
    kept = {"form": form, **schema.to_dict()}
    return train, validation, schema.inputs(args.embedding_width), schema.tasks, kept


def _read(form, path):
    from npple import data
    return data.read_census(path) if form == "census" else data.read_columns(path)


# npple train ------------------------------------------------------------------------------------

def _add_train(commands):
    parser = _command(commands, "train", _train, "train a model and save it",
                      "npple train --model ple --levels 2 --epochs 5 --out run")
    _add_data(parser)
    _add_model(parser)
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=int, default=10)
    add("--batch-size", type=int, default=256)
    add("--seed", type=int, default=0, help="of initial values, shuffling and the held-out rows")
    add("--optimizer", choices=("adam", "sgd"), default="adam")
    add("--rate", type=float, default=1e-3, help="learning rate")
    add("--weight-decay", type=float, default=0.0, help="decoupled weight decay")
    add("--clip", type=float, help="largest global gradient norm")
    add("--task-weight", type=_assignment, nargs="+", default=[], metavar="TASK=W",
        help="weight of a task's loss (1 otherwise)")
    add("--task-decay", type=_assignment, nargs="+", default=[], metavar="TASK=G",
        help="factor on that weight each step")
    add("--skip-absent", action="store_true",
        help="leave parameters alone in steps without a row of a task that reaches them")
    add("--patience", type=int, help="stop after so many epochs without a better validation loss")
    add("--out", metavar="DIR", help="where the checkpoint goes (default: run, run-2, ...)")
    add("--checkpoint-every", type=int, metavar="N", help="save after every N steps too")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")


def _train(args):
    from npple.learn.training import OPTIMIZERS, Run
    for name in ("epochs", "patience", "checkpoint_every"):
        value = getattr(args, name)
        require(value is None or value > 0,
                f"--{name.replace('_', '-')}: must be above 0, got {value}")
    checkpoint = _checkpoint(args)
    train, validation, inputs, tasks, schema = _load(args)
    model = _build(args, inputs, tasks)
    settings = {"weight_decay": args.weight_decay, "clip": args.clip, "rate": args.rate}
    run = Run(model, OPTIMIZERS[args.optimizer](**settings), args.batch_size, args.seed,
              _by_task("--task-weight", args.task_weight, tasks, 1.0) if args.task_weight else None,
              _by_task("--task-decay", args.task_decay, tasks, None),
              args.skip_absent, schema=schema)
    if args.resume:
        run = _resumed(run, checkpoint)
    _make_folder("--out", checkpoint.parent)
    log = sys.stderr if args.json else sys.stdout
    parameters = sum(array.size for array in run.params.values())
    print(f"{args.model}: {', '.join(f'{task} ({kind})' for task, kind in tasks.items())}; "
          f"{parameters:,} parameters\n{len(train):,} rows to train on, {len(validation):,} to "
          f"validate on; batches of {run.batch_size}, seed {run.seed}", file=log, flush=True)
    started, signals = time.perf_counter(), []
    try:
        with on_signal(signals.append):
            run.train(train, validation, args.epochs, patience=args.patience,
                      checkpoint=checkpoint, every=args.checkpoint_every,
                      on_batch=_show_progress(), stop=lambda: signals,
                      on_epoch=lambda entry: print(_epoch_line(entry), file=log, flush=True))
    except Stopped as stopped:
        print(f"npple train: {stopped}; to go on, repeat the command with --out "
              f"{shlex.quote(str(checkpoint.parent))} --resume", file=sys.stderr)
        return 128 + signals[0]
    summary = _summary(args, run, validation, parameters, checkpoint)
    summary["seconds"] = round(time.perf_counter() - started, 2)
    print(json.dumps(summary) if args.json else _summary_text(summary))
    return 0


def _checkpoint(args):
    """Where the checkpoint goes; never over another one."""
    if args.out is None:
        require(not args.resume, "--resume: say where with --out DIR")
        number = next(n for n in range(1, sys.maxsize) if not Path(_run_name(n)).exists())
        return Path(_run_name(number)) / "checkpoint.npz"
    path = Path(args.out) / "checkpoint.npz"
    require(path.exists() == args.resume or not path.exists() and not args.resume,
            f"--out: {path} exists: --resume to go on with it, or choose another folder"
            if path.exists() else f"--resume: there is no {path}")
    return path


def _make_folder(flag, path):
    """`path` as a folder, made if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise FileError(f"{flag}: {path}: {getattr(error, 'strerror', None) or error}, expected a "
                        "folder to write to") from None


def _run_name(number):
    return "run" if number == 1 else f"run-{number}"


def _resumed(run, checkpoint):
    """The saved run, if it was started with the same model and settings."""
    from npple.learn.training import SETTINGS, Run
    saved = Run.load(checkpoint)
    for name in ("model", "optimizer", *SETTINGS):
        require(getattr(saved, name) == getattr(run, name),
                f"--resume: {checkpoint} was started with another {name.replace('_', ' ')}")
    return saved


def _assignment(text):
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"expected TASK=NUMBER, got {text!r}")
    return name, float(value)


def _by_task(flag, pairs, tasks, default):
    """{task: number} from TASK=NUMBER pairs, with a default for the tasks not named."""
    for task, _ in pairs:
        require(task in tasks, f"{flag}: {task!r} is no task, expected one of {', '.join(tasks)}")
    return ({} if default is None else dict.fromkeys(tasks, default)) | dict(pairs)


def _show_progress():
    """A line on a terminal that counts the batches of the running epoch; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(run, batches):
        end = "\r" if run.batch < batches else "\r\033[K"
        print(f"epoch {run.epoch + 1}: batch {run.batch} of {batches}, "
              f"loss {run.loss_sum / run.batch:.4f}", end=end, file=sys.stderr, flush=True)
    return show


def _epoch_line(entry):
    parts = [f"epoch {entry['epoch']:>3}  loss {entry['loss']:.4f}"]
    for task, metrics in entry["validation"].items():
        parts.append(f"{task} " + _metrics(metrics))
    return "  |  ".join(parts)


def _metrics(metrics):
    return "  ".join(f"{name} {'undefined' if value is None else f'{value:.4f}'}"
                     for name, value in metrics.items()) or "no rows"


def _summary(args, run, validation, parameters, checkpoint):
    from npple.learn.training import gate_weights
    gates = {name: {group: float(weights.sum()) for group, weights in groups.items()}
             for name, groups in gate_weights(run.model, run.best, validation).items()}
    return {"model": args.model, "tasks": run.model.tasks, "parameters": parameters,
            "seed": run.seed, "epochs": run.epoch, "best_epoch": run.best_epoch["epoch"],
            "validation": run.best_epoch["validation"], "gates": gates,
            "checkpoint": str(checkpoint)}


def _summary_text(summary):
    lines = [f"\nbest epoch: {summary['best_epoch']} of {summary['epochs']}, "
             f"{summary['seconds']:.1f} s in all"]
    width = max(map(len, summary["tasks"]))
    for task, metrics in summary["validation"].items():
        lines.append(f"  {task:{width}}  {_metrics(metrics)}")
    if summary["gates"]:
        lines.append("mean weight that each gate gives the experts of")
    for name, groups in summary["gates"].items():
        shares = "  ".join(f"{group.split('/')[1]} {share:.3f}" for group, share in groups.items())
        lines.append(f"  {name:{width + 7}}  {shares}")
    lines.append(f"checkpoint: {summary['checkpoint']}")
    return "\n".join(lines)


# npple predict ----------------------------------------------------------------------------------

def _add_predict(commands):
    parser = _command(commands, "predict", _predict, "predict with a trained model",
                      "npple predict --checkpoint run/checkpoint.npz --data new.csv --out p.csv")
    parser.add_argument("--checkpoint", required=True, metavar="F", help="from npple train")
    parser.add_argument("--data", required=True, metavar="D",
                        help="rows in the format of the training data; labels are not needed")
    parser.add_argument("--out", required=True, metavar="F",
                        help="CSV to write: one row per row of the data, in its order")


def _predict(args):
    from npple.learn.training import Run, predict
    run = Run.load(args.checkpoint)
    rows, schema = _encode(run, args, labels=False, dtype=run.dtype)
    predictions = predict(run.model, run.best, rows)
    _write_predictions(args.out, predictions, schema)
    summary = {"rows": len(rows), "tasks": list(predictions), "out": args.out}
    print(json.dumps(summary) if args.json else
          f"{len(rows):,} rows, {', '.join(predictions)}: {args.out}")
    return 0


def _encode(run, args, dtype, labels=True):
    """The rows of --data as the checkpoint's model takes them, and the schema behind it."""
    from npple import data
    require(run.schema is not None,
            f"--checkpoint: {args.checkpoint} was trained on synthetic data, which no file holds")
    schema = dict(run.schema)
    form = schema.pop("form", None)
    columns = data.bundled() if args.data == "census" else _read(form, args.data)
    schema = data.Schema.from_dict(schema)
    return schema.encode(columns, dtype, labels), schema


def _write_predictions(path, predictions, schema):
    """A CSV with a header: a column a task, or a column a class, named task=class."""
    import csv
    import io

    from npple.archive import replacing
    columns = {}
    for task, values in predictions.items():
        if values.ndim == 1:
            columns[task] = values
        else:
            names = schema.classes[task]
            columns |= {f"{task}={name}": values[:, k] for k, name in enumerate(names)}
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values())))
        text.detach()


# npple gradcheck, npple isolation ---------------------------------------------------------------

def _add_proof(commands, name, run, help, example):
    """A command that proves something of one architecture, or of all, on a random case."""
    parser = _command(commands, name, run, help, example)
    parser.add_argument("--model", choices=["all", *sorted(ARCHITECTURES)], default="all",
                        help="with --json: one object, or a list of them for 'all'")
    parser.add_argument("--tasks", type=int, default=3, help="number of tasks")
    parser.add_argument("--levels", type=int, default=2, help="extraction levels")
    parser.add_argument("--seed", type=int, default=0, help="of random parameters and data")
    return parser


def _models(args):
    return list(ARCHITECTURES) if args.model == "all" else [args.model]


def _print_results(args, results):
    """The results as JSON: a list of objects for all architectures, one object for one."""
    print(json.dumps(results if args.model == "all" else results[0]))


def _add_gradcheck(commands):
    from npple.verify.gradcheck import METHODS
    parser = _add_proof(commands, "gradcheck", _gradcheck,
                        "check every gradient of an architecture on random data",
                        "npple gradcheck --model ple --levels 3")
    parser.add_argument("--method", choices=METHODS, default="complex-step")
    parser.add_argument("--power", action="store_true",
                        help="print the smallest error that each method finds (of PLE, if 'all')")


def _gradcheck(args):
    from npple.verify.gradcheck import demonstrate
    from npple.verify.power import power
    if args.power:
        strict = power("ple" if args.model == "all" else args.model, args.seed)
        print(json.dumps(strict.to_list()) if args.json else strict)
        return 0
    results = []
    for name in _models(args):
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
        _print_results(args, results)
    return 1 if any(result["passed"] is False for result in results) else 0


def _add_isolation(commands):
    parser = _add_proof(commands, "isolation", _isolation,
                        "show and verify which task's loss reaches which parameters",
                        "npple isolation --model ple --levels 3 --plot isolation.svg")
    parser.add_argument("--checkpoint", metavar="F",
                        help="a trained model instead of a random one, from npple train")
    parser.add_argument("--data", metavar="D", help="rows for the checkpoint, as for npple train")
    parser.add_argument("--rows", type=int, default=256, help="how many of these rows to use")
    parser.add_argument("--plot", metavar="FILE", help="draw the matrix: .svg, .png or .pdf")


def _isolation(args):
    from npple.draw import plots
    from npple.verify.influence import influence
    from npple.verify.isolation import isolation
    cases = [_trained_case(args)] if args.checkpoint else _random_cases(args)
    require(not args.plot or len(cases) == 1, "--plot: choose one --model to draw")
    results = []
    for name, model, params, batch in cases:
        found = isolation(model).verify(params, *batch[:3])
        results.append(found.to_dict(name))
        if not args.json:
            print(f"{name}\n{found}")
            print(f"{'verified four ways' if found.passed else 'NOT VERIFIED'}\n")
        if args.plot or args.checkpoint:
            start = params if args.checkpoint else model.init(args.seed)
            strength = influence(model, start, *batch[:3])
            if args.checkpoint and not args.json:
                print(strength)
            if args.plot:
                plots.save(plots.isolation_figure(found.isolation, strength.norms), args.plot)
    if args.json:
        _print_results(args, results) if not args.checkpoint else print(json.dumps(results[0]))
    return 0 if all(all(result["verified"].values()) for result in results) else 1


def _random_cases(args):
    from npple.verify.isolation import generic_case
    from npple.verify.cases import random_model
    cases = []
    for name in _models(args):
        case = generic_case(random_model(name, args.tasks, args.levels), args.seed)
        cases.append((name, case.model, case.params, case.batch))
    return cases


def _trained_case(args):
    """A checkpoint's model and best parameters, and the first rows of the data, in float64."""
    from npple.learn.training import Run
    require(args.data, "--checkpoint: the model needs rows to be measured on: give --data too")
    run = Run.load(args.checkpoint)
    rows = _encode(run, args, dtype="float64")[0].take(slice(0, args.rows))
    params = {name: array.astype("float64") for name, array in run.best.items()}
    return args.checkpoint, run.model, params, (rows.x, rows.targets, rows.masks)


# npple oracle -----------------------------------------------------------------------------------

def _add_oracle(commands):
    parser = commands.add_parser("oracle", help="say whether another implementation is right",
                                 description="say whether another implementation is right")
    actions = parser.add_subparsers(dest="action", required=True, metavar="export|check")
    parser = _command(actions, "export", _export, "write test vectors of a model, or the suite",
                      "npple oracle export --model ple --tasks 3 --levels 2 --out ple.npz")
    _add_model(parser)
    add = parser.add_argument_group("test vectors").add_argument
    add("--inputs", type=int, default=8, help="width of the input")
    add("--tasks", nargs="+", default=["2"], metavar="T",
        help="a number, or NAME[=KIND] with the kinds binary, regression, multiclass:K")
    add("--batch", type=int, default=8, help="rows")
    add("--seed", type=int, default=0, help="of parameters and data")
    add("--dtype", default="float64", help="of everything stored: float64 or float32")
    add("--out", metavar="F", help="the file to write, .npz")
    add("--all", metavar="DIR", help="write the suite over all architectures instead")
    parser = _command(actions, "check", _check, "hold results against test vectors",
                      "npple oracle check ple.npz results.npz")
    parser.add_argument("vectors", help="from npple oracle export")
    parser.add_argument("results", help="an .npz, or a folder of .npy files, by the same names")
    parser.add_argument("--precision", help="what the results were computed in: float64, float32, "
                                            "float16, bfloat16; the dtype they have, otherwise")
    parser.add_argument("--conventions", nargs="+", default=[], metavar="NAME",
                        help="choices that are no mistakes: shared-first, gate-bias, gate-hidden")


def _export(args):
    from npple import oracle
    require(bool(args.out) != bool(args.all), "--out FILE or --all DIR: one of them is needed")
    if args.all:
        manifest = oracle.export_all(args.all)
        print(json.dumps(manifest) if args.json else
              f"{len(manifest['cases'])} cases and manifest.json: {args.all}")
        return 0
    model = _build(args, args.inputs, _named_tasks(args.tasks))
    vectors = oracle.make_vectors(model, args.seed, args.batch, args.dtype)
    vectors.save(args.out)
    written = {"file": args.out, "tensors": len(vectors.expected), **vectors.notes}
    print(json.dumps(written) if args.json else
          f"{args.out}: {written['tensors']} tensors of {args.model} on {args.batch} rows")
    return 0


def _check(args):
    from npple import oracle
    report = oracle.check(oracle.load(args.vectors), args.results, precision=args.precision,
                          conventions=args.conventions)
    print(json.dumps(report.to_dict()) if args.json else report)
    return 0 if report.passed else 1


# npple abtest -----------------------------------------------------------------------------------

def _add_abtest(commands):
    parser = _command(commands, "abtest", _abtest, "let models rank for simulated users",
                      "npple abtest --models single_task mmoe ple --impressions 200000")
    add = parser.add_argument
    add("--models", nargs="+", choices=sorted(ARCHITECTURES), metavar="MODEL",
        default=["single_task", "mmoe", "cgc", "ple"], help="the first is the control")
    add("--impressions", type=int, default=200_000, help="videos shown in the test")
    add("--log-impressions", type=int, default=50_000, help="videos shown before, to learn from")
    add("--epochs", type=int, default=5)
    add("--users", type=int, default=20_000, help="users, of all buckets")
    add("--correlation", type=float, default=0.5, help="of the tasks, -1/3 to 1")
    add("--noise", type=float, default=1.0, help="what no feature tells, against 1")
    add("--exploration", type=float, default=1.0, help="noise on the logging policy's scores")
    add("--seed", type=int, default=0, help="of everything")


def _abtest(args):
    from npple.lab.abtest import abtest
    options = {name: value for name, value in vars(args).items()
               if name not in ("models", "command", "run", "json")}
    report = abtest({name: ARCHITECTURES[name] for name in args.models}, **options,
                    progress=lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(report.to_dict()) if args.json else report)
    return 0


# npple compare ----------------------------------------------------------------------------------

def _add_compare(commands):
    parser = _command(commands, "compare", _compare, "compare architectures at equal budgets",
                      "npple compare --data synthetic --correlation 0 0.9 --seeds 5 --out compared")
    _add_data(parser, correlations=True)
    _add_options(parser.add_argument_group("model (for the architectures that have the option)"))
    add = parser.add_argument_group("comparison").add_argument
    add("--models", nargs="+", default=list(ARCHITECTURES), metavar="NAME", help="architectures")
    add("--budget", type=int, metavar="N", help="parameters of each, embeddings aside, by the "
        "width of experts (otherwise those of PLE with experts of width 32)")
    add("--seeds", type=int, default=3, help="trainings of each")
    add("--seed", type=int, default=0, help="of the data, and the first of the trainings")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=512)
    add("--rate", type=float, default=3e-3, help="learning rate")
    add("--workers", type=int, default=1, help="processes")
    add("--dask", metavar="ADDRESS", help="of a Dask scheduler to train on instead")
    add("--out", metavar="DIR", help="keep each training's result here; an interrupted comparison "
        "goes on from them")
    add("--csv", metavar="F", help="write the table here too")
    add("--plots", metavar="DIR", help="draw gains, learning curves, expert utilization ... here")


def _compare(args):
    from npple.archive import replacing
    from npple.lab.compare import Case, Training, compare, progress, synthetic_cases
    from npple.lab.workers import open_workers
    if args.data == "synthetic":
        _roles(args)
        require(not args.validation, "--validation: synthetic data makes its own")
        cases = synthetic_cases(args.correlation, args.rows, args.inputs, args.tasks, args.seed)
    else:
        train, test, inputs, tasks, _ = _load(args)
        cases = [Case(Path(args.data).name, train, test, inputs, tasks)]
    options = _given(args)
    levels = options.pop("levels", 2)
    signals = []
    try:
        with on_signal(signals.append), open_workers(args.workers, args.dask) as (executor, share):
            comparison = compare(
                cases, args.models, seeds=range(args.seed, args.seed + args.seeds),
                budget=args.budget, levels=levels, options=options, executor=executor, share=share,
                out=args.out, training=Training(args.epochs, args.batch_size, args.rate),
                watch=progress, stop=lambda: signals)
    except Stopped as stopped:
        print(f"npple compare: {stopped}; " + ("repeat the command to go on" if args.out else
              "--out DIR would have kept them"), file=sys.stderr)
        return 128 + signals[0]
    if args.csv:
        with replacing(args.csv) as file:
            file.write(comparison.to_csv().encode())
    if args.plots:
        from npple.draw.plots import comparison_figures, save
        Path(args.plots).mkdir(parents=True, exist_ok=True)
        for name, figure in comparison_figures(comparison).items():
            save(figure, Path(args.plots) / f"{name}.svg")
    print(json.dumps(comparison.to_dict()) if args.json else comparison)
    return 0


# npple draw -------------------------------------------------------------------------------------

def _add_draw(commands):
    parser = _command(commands, "draw", _draw, "draw an architecture, and where gradients go",
                      "npple draw --model ple --levels 2 --task vtr --out ple.svg")
    _add_model(parser)
    add = parser.add_argument_group("drawing").add_argument
    add("--inputs", type=int, default=32, help="width of the input")
    add("--tasks", nargs="+", default=["vtr", "vcr=regression"], metavar="T",
        help="a number, or NAME[=KIND] with the kinds binary, regression, multiclass:K")
    add("--task", metavar="NAME", help="show what the gradient of this task's loss reaches")
    add("--out", metavar="FILE", help="write a picture, .svg, instead of printing text")
    add("--html", metavar="FILE", help="write a page with all architectures to explore")


def _draw(args):
    from npple.archive import replacing
    from npple.draw import diagram, page, svg, text
    tasks = _named_tasks(args.tasks)
    require(not args.out or args.out.endswith(".svg"), f"--out: {args.out}: a drawing ends in .svg")
    drawn = diagram(_build(args, args.inputs, tasks))
    shown, files = text(drawn, args.task), {}
    if args.out:
        files[args.out] = svg(drawn, args.model, args.task)
    if args.html:
        files[args.html] = page(args.inputs, tasks, args.model, **_given(args))
    for path, content in files.items():
        with replacing(path) as file:
            file.write(content.encode())
    if args.json:
        print(json.dumps({"model": args.model, **drawn.to_dict()}))
    else:
        print("\n".join(files) or f"{args.model}\n\n{shown}")
    return 0
