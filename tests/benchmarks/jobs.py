"""The other jobs people wait for: npple and what one would use otherwise.

    python tests/benchmarks/jobs.py
    python tests/benchmarks/jobs.py --jobs read epoch --census census-income.data --threads 2

    gradcheck   every parameter of a small PLE, against `torch.autograd.gradcheck` (eager)
    premises    of that loss as somebody's function: what checking them takes of the whole check
    read        the census file into arrays, against pandas: read_csv, factorize, standardised
    auc         against scikit-learn
    import      `import npple` and `npple --help`, against `import numpy`, in fresh processes
    epoch       one of training on the census file, against PyTorch with a DataLoader

Each is checked first: both sides must find the same. Without --census the bundled sample is
repeated to 56,000 rows.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from contenders import Problem, Shape, make
from timing import machine, measure, save, table, threads_here, with_threads

import npple
from npple.data import Schema
from npple.learn.census import CATEGORICAL, FIELDS, GROUPS, LOG, NUMERIC, census_roles, read_census
from npple.verify.gradcheck import gradcheck, gradcheck_function, model_loss
from npple.verify.premises import examined
from npple.metrics import auc
from npple.learn.training import Run

ROWS, BATCH = 56_000, 256


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--census", type=Path, help="the census file")
    add("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All jobs with the threads of this process -> a list of dicts."""
    with tempfile.TemporaryDirectory() as folder:
        census = args.census or repeated_sample(Path(folder, "census.csv"))
        results = [{"threads": threads_here(), "job": job, "seconds": seconds}
                   for name in args.jobs for job, seconds in JOBS[name](census).items()]
    print(f"\nThreads: {threads_here()}; milliseconds\n\n{as_table(results)}\n{machine()}")
    return results


def as_table(results):
    """One row for each job."""
    return table(["job", "npple", "other", "other/npple", "fastest other"], map(as_row, results))


def as_row(result):
    """npple's time, that of the fastest of the others, their ratio."""
    others = dict(result["seconds"])
    ours = others.pop("npple")
    fastest = min(others, key=others.get)
    return [result["job"], 1e3 * ours, 1e3 * others[fastest], others[fastest] / ours, fastest]


def repeated_sample(path):
    """The bundled sample's rows again and again, as a plain file of ROWS rows."""
    lines = gzip.decompress((files("npple.learn") / "census-test-sample.csv.gz").read_bytes())
    path.write_bytes(b"".join(islice(cycle(lines.splitlines(keepends=True)), ROWS)))
    return path


def gradient_check(census):
    """About 2,000 parameters, a batch of 8, float64."""
    import torch

    shape = Shape(8, 12, 12, specific=2, shared=2, tower=8)
    problem = Problem.random(shape, np.float64)
    ours = partial(gradcheck, problem.model, problem.params, problem.x, problem.targets)
    runs = {"npple": lambda: ours().check()}
    for name, contender in make(["npple", "looped", "stacked", "wide"], problem).items():
        if name != "npple":  # gradcheck changes the parameters in place and computes the loss anew
            runs[name] = partial(torch.autograd.gradcheck,
                                 lambda *_, c=contender: c.joint_loss(*c.batch),
                                 contender.parameters)
    return {f"gradient check, {ours().checked} parameters": measure(runs, 0, turns=3, warm=0)}


def premises(census):
    """`gradcheck_function` of the same loss, and its part that checks the premises."""
    problem = Problem.random(Shape(8, 12, 12, specific=2, shared=2, tower=8), np.float64)
    batch = problem.x, problem.targets
    loss = model_loss(problem.model, problem.params, *batch)

    def f(v):
        name = next(iter(v))
        return replace(loss, values=loss.values | v)(name, v[name][None])[0]

    def grad(v):
        return problem.model.loss_and_grads(v, *batch)[1]

    whole = partial(gradcheck_function, f, grad, problem.params)
    part = partial(examined, f, grad, problem.params, True, np.random.default_rng(0))
    assert whole().check().checked == sum(p.size for p in problem.params.values())
    return {"premises of a check, 25 tensors": measure(
        {"npple": part, "the whole check": whole}, 0, turns=5, warm=0)}


def read_file(census):
    """Both read, learn the vocabularies and standardise; codes may be numbered differently."""
    import pandas

    def theirs():
        frame = pandas.read_csv(census, header=None, names=FIELDS, skipinitialspace=True)
        codes = {name: pandas.factorize(frame[name])[0] for name in CATEGORICAL}
        numbers = {name: frame[name].to_numpy(np.float64) for name in NUMERIC}
        for name, values in numbers.items():
            values = np.log1p(values) if name in LOG else values
            numbers[name] = ((values - values.mean()) / values.std()).astype(np.float32)
        targets = {"income": frame["income_50k"] == "50000+.",
                   "marital": frame["marital_stat"] == "Never married"}
        return codes | numbers, {name: y.to_numpy(np.float32) for name, y in targets.items()}

    expected, targets = theirs()
    data = read_and_encode(census)
    for name in NUMERIC:
        np.testing.assert_allclose(data.x[name], expected[name], atol=1e-5)
    for name in CATEGORICAL:
        pairs = np.unique(np.stack([data.x[name], expected[name]]), axis=1)
        assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1])), name
    for task in GROUPS["1"]:
        np.testing.assert_array_equal(data.targets[task], targets[task])
    runs = {"npple": lambda: read_and_encode(census), "pandas": theirs}
    return {f"census file, {len(data)} rows, to arrays": measure(runs, 3, warm=0)}


def read_and_encode(census):
    """The file as a Dataset."""
    columns = read_census(census)
    return Schema.learn(columns, **census_roles()).encode(columns)


def area(census):
    """Scores with many ties and with none."""
    from sklearn.metrics import roc_auc_score

    found = {}
    for rows in (ROWS, 1_000_000):
        rng = np.random.default_rng(0)
        targets = rng.integers(0, 2, rows)
        scores = rng.normal(size=rows) + targets
        np.testing.assert_allclose(auc(targets, scores), roc_auc_score(targets, scores), rtol=1e-12)
        found[f"AUC, {rows} rows"] = measure(
            {"npple": partial(auc, targets, scores),
             "scikit-learn": partial(roc_auc_score, targets, scores)}, 1)
    return found


def start(census):
    """Fresh processes of this interpreter, which find everything compiled already."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def fresh(*arguments):
            return partial(subprocess.run, [sys.executable, *arguments], check=True,
                           stdout=subprocess.DEVNULL, env=environment)

        numpy = fresh("-c", "import numpy")
        return {f"{name}, import numpy": measure({"npple": run, "numpy": numpy}, 8) for name, run in
                {"import npple": fresh("-c", "import npple"),
                 "npple --help": fresh("-m", "npple", "--help")}.items()}


def epoch(census):
    """The default PLE with embeddings of width 4; batches shuffled anew."""
    data = read_and_encode(census)
    schema = Schema.learn(read_census(census), **census_roles())
    model = npple.ple(schema.inputs(), GROUPS["1"])
    first = data.take(slice(0, BATCH))
    problem = Problem(model, model.init(0, np.float32), first.x, first.targets)
    contenders = make(["npple", "looped", "wide"], problem)
    runs = {"npple": lambda: Run(model, batch_size=BATCH).train(data, first, epochs=1)}
    for name in contenders.keys() - {"npple"}:
        for loader in ("DataLoader", "DataLoader of batches"):
            runs[f"{name}, {loader}"] = torch_epoch(
                contenders[name], model.table, data, name == "looped", loader == "DataLoader")
    return {f"training epoch, {len(data)} rows": measure(runs, 0, turns=3, warm=0)}


def torch_epoch(contender, table, data, by_column, by_row):
    """A function that trains for an epoch.

    The loader collates single rows, as it does by default, or takes the rows of a batch at once.
    """
    import torch
    from stacked_ple import features
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    names = list(table.embeddings)
    numeric, codes = features(table, data.x)
    if by_column:  # each column has a table of its own
        codes = torch.from_numpy(np.stack([data.x[name] for name in names], 1))
    rows = TensorDataset(numeric, codes, *map(torch.from_numpy, data.targets.values()))
    options = ({"batch_size": BATCH, "shuffle": True} if by_row else
               {"batch_size": None, "sampler": BatchSampler(RandomSampler(rows), BATCH, False)})
    loader = DataLoader(rows, **options)

    def run():
        for numeric, codes, *targets in loader:
            x = numeric, codes
            if by_column:
                x = (dict(zip(NUMERIC, numeric.unbind(1))) | dict(zip(names, codes.unbind(1))))
            contender.batch = x, dict(zip(data.targets, targets))
            contender.step()
    return run


JOBS = {"gradcheck": gradient_check, "premises": premises, "read": read_file, "auc": area,
        "import": start, "epoch": epoch}

if __name__ == "__main__":
    main()
