"""The same seed gives the same bits, wherever and however it runs; with OpenBLAS on any threads."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npple

SCRIPT = """
import locale
locale.setlocale(locale.LC_ALL, "")
import npple
from npple.cli import main
from npple.oracle import make_vectors

assert main(["train", "--data", "census", "--epochs", "1", "--seed", "3", "--out", "run"]) == 0
assert main(["predict", "--checkpoint", "run/checkpoint.npz", "--data", "census",
             "--out", "predictions.csv"]) == 0
assert main(["draw", "--model", "sluice", "--out", "drawing.svg"]) == 0
model = npple.ple({"age": "numeric", "city": (4, 3)}, {"\\u00fc": "binary", "b": "regression"},
                  expert_units=(4,), tower_units=(3,))
make_vectors(model, batch=4).save("vectors.npz")
"""
LARGE = """
import sys
import npple
from npple.data import synthetic
from npple.learn.training import Run

data = synthetic(1024, inputs=300, seed=0, dtype="float64")  # products that BLAS splits
model = npple.ple(300, dict.fromkeys(data.targets, "regression"), expert_units=(256,))
run = Run(model, batch_size=500, dtype="float64")
run.train(data, data, 1)
run.save(sys.argv[1])
"""
FILES = ("run/checkpoint.npz", "predictions.csv", "drawing.svg", "vectors.npz")


def made(folder, **environment):
    """Runs the script with this environment; the digest of each file it makes."""
    folder.mkdir(parents=True)
    known = {name: value for name, value in os.environ.items()
             if not name.startswith(("LC_", "LANG"))}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL,
                   env=known | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """As somebody on another continent has it: ASCII, western time, their order of hashes."""
    return made(tmp_path_factory.mktemp("plain") / "here", PYTHONHASHSEED="1", LC_ALL="C",
                PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", TZ="America/Los_Angeles")


@pytest.mark.slow
def test_hash_seed_locale_time_zone_and_folder_change_no_bit(plain, tmp_path):
    other = made(tmp_path / "ü ☃" / "deep" / "down", PYTHONHASHSEED="4242", LC_ALL="C.UTF-8",
                 TZ="Pacific/Kiritimati")
    assert other == plain


def trained(path, threads):
    """The arrays after a training whose matrix products are large enough to be split."""
    subprocess.run([sys.executable, "-c", LARGE, path], check=True, env=os.environ | {
        "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads})
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "meta.json"}


@pytest.mark.slow
def test_two_blas_threads_give_the_same_bits_each_time_and_those_of_one(tmp_path):
    """With another BLAS than OpenBLAS those of one but for rounding."""
    one, two, again = (trained(tmp_path / f"{i}.npz", threads) for i, threads in enumerate("122"))
    openblas = "openblas" in np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    for name in one:
        assert np.array_equal(two[name], again[name]), name
        np.testing.assert_allclose(two[name], one[name], rtol=0 if openblas else 1e-9,
                                   atol=0 if openblas else 1e-12, err_msg=name)


PRODUCTS = {"dot", "vdot", "inner", "matmul", "tensordot", "lstsq", "qr", "norm"}
BY_THEIR_CALLER = {"faults.py: _fitted"}  # small, and part of a check


def multiplies(node):
    """Whether BLAS may be at work: a product of matrices, or a norm over all axes."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.MatMult)
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and node.func.attr in PRODUCTS and not any(k.arg == "axis" for k in node.keywords))


def left_to_blas(path):
    """The functions of a module that multiply, and neither they nor all who name them hold it."""
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.FunctionDef)]
    held = {f.name for f in functions if "blas_with_one_thread()" in ast.unparse(f)}
    for f in functions:
        if f.name not in held and any(map(multiplies, ast.walk(f))):
            callers = {g.name for g in functions for n in ast.walk(g)
                       if isinstance(n, ast.Name) and n.id == f.name}
            if not callers or not callers <= held:
                yield f"{path.name}: {f.name}"


def test_blas_has_one_thread_wherever_the_package_multiplies():
    """In the core it is the caller who holds it: the network, the checks."""
    package = Path(npple.__file__).parent
    found = {name for path in package.rglob("*.py") if path.parent != package / "core"
             for name in left_to_blas(path)}
    assert found <= BY_THEIR_CALLER
