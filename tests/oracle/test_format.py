"""A bundle read as docs/vectors.md says, with nothing but zipfile, json and struct, and recomputed.

Neither npple nor NumPy takes part: plain lists and math. What is checked is that the page and the
file are enough.
"""

import json
import math
import struct
import subprocess
import sys
import zipfile
from ast import literal_eval

import pytest

FORMATS = {"<f8": "d", "<f4": "f", "<i8": "q", "|b1": "?"}


# Reading ----------------------------------------------------------------------------------------

def read(path):
    """Name -> nested lists, and the JSON header."""
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("meta.json"))
        arrays = {name.removesuffix(".npy"): array(archive.read(name))
                  for name in archive.namelist() if name.endswith(".npy")}
    return arrays, header


def array(content):
    """An .npy of version 1.0: magic, header length, a dict as text, values in C order."""
    assert content[:8] == b"\x93NUMPY\x01\x00"
    length, = struct.unpack("<H", content[8:10])
    header = literal_eval(content[10:10 + length].decode("latin1"))
    assert not header["fortran_order"]
    kind = FORMATS[header["descr"]]
    values = [v for v, in struct.iter_unpack("<" + kind, content[10 + length:])]
    return nested(values, header["shape"])


def nested(values, shape):
    if not shape:
        return values[0]
    size = len(values) // shape[0]
    return [nested(values[i * size:(i + 1) * size], shape[1:]) for i in range(shape[0])]


def flat(value):
    return [v for part in value for v in flat(part)] if isinstance(value, list) else [value]


# Computing --------------------------------------------------------------------------------------

ACTIVATIONS = {"relu": lambda z: max(z, 0.0), "tanh": math.tanh, "identity": lambda z: z,
               "sigmoid": lambda z: 1 / (1 + math.exp(-z))}


def dense(x, weight, bias):
    """x (batch, in), weight (in, out) -> (batch, out)"""
    columns = list(zip(*weight))
    return [[sum(a * b for a, b in zip(row, column)) + (bias[j] if bias else 0.0)
             for j, column in enumerate(columns)] for row in x]


def mlp(params, name, activations, x, pick=lambda p: p):
    for i, activation in enumerate(activations, start=1):
        bias = params.get(f"params/{name}/layer{i}/bias")
        x = dense(x, pick(params[f"params/{name}/layer{i}/weight"]), bias and pick(bias))
        x = [[ACTIVATIONS[activation](z) for z in row] for row in x]
    return x


def softmax(row):
    e = [math.exp(z - max(row)) for z in row]
    return [v / sum(e) for v in e]


def forward(arrays, table):
    """Every tensor of the forward pass but hidden layers, row by row of the architecture."""
    made = {"input": inputs(arrays, table["inputs"])}
    for level in table["levels"]:
        for group in level["groups"]:
            made[group["name"]] = [
                mlp(arrays, group["parameters"], group["activations"], made[group["reads"]],
                    lambda p, i=i: p[i]) for i in range(group["count"])]
        for fusion in level["fusions"]:
            experts = [made[source["name"]][i] for source in fusion["sources"]
                       for i in (source["experts"] or range(len(made[source["name"]])))]
            if fusion["fusion"] == "Pass":
                made[fusion["name"]] = experts[0]
                continue
            gate = f"{fusion['name']}/gate"
            logits = mlp(arrays, gate, [*fusion["activations"], "identity"],
                         made[fusion["selector"]])
            weights = [softmax(row) for row in logits]
            made |= {f"{gate}/logits": logits, f"{gate}/weights": weights}
            made[fusion["name"]] = [
                [sum(w * y for w, y in zip(row, values))
                 for values in zip(*(e[b] for e in experts))]
                for b, row in enumerate(weights)]
    for tower in table["towers"]:
        y = mlp(arrays, f"tower/{tower['task']}", [*tower["activations"], "identity"],
                made[tower["reads"]])
        made[f"tower/{tower['task']}"] = (y if tower["kind"].startswith("multiclass")
                                          else [row[0] for row in y])
    return made


def inputs(arrays, columns):
    if isinstance(columns, int):
        return arrays["inputs/x"]
    parts = [[[v] for v in arrays[f"inputs/{name}"]] if kind == "numeric" else
             [arrays[f"params/embedding/{name}"][code] for code in arrays[f"inputs/{name}"]]
             for name, kind in columns]
    return [sum(row, []) for row in zip(*parts)]


def losses(arrays, table, made):
    found, joint = {}, 0.0
    for tower in table["towers"]:
        task, kind = tower["task"], tower["kind"]
        rows = []
        for z, y, used in zip(made[f"tower/{task}"], arrays[f"targets/{task}"],
                              arrays[f"masks/{task}"]):
            if used:
                rows.append((z - y) ** 2 if kind == "regression" else
                            math.log1p(math.exp(-z if y else z)) if kind == "binary" else
                            -math.log(softmax(z)[y]))
        found[f"loss[{task}]"] = sum(rows) / len(rows)
        joint += arrays[f"weights/{task}"] * found[f"loss[{task}]"]
    return found | {"loss": joint}


def adam(arrays, settings):
    """The parameters after the first step, from the gradients in the file."""
    found = {}
    for name in (n.removeprefix("params/") for n in arrays if n.startswith("params/")):
        found[f"adam1/{name}"] = [
            p - settings["rate"] * g / (abs(g) + settings["epsilon"])
            for p, g in zip(flat(arrays[f"params/{name}"]), flat(arrays[f"grad/{name}"]))]
    return found


# The test ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Written by another process: this one never imports npple."""
    path = tmp_path_factory.mktemp("bundle") / "ple.npz"
    script = ("import sys; from npple import oracle; from npple.verify.cases import random_model; "
              "oracle.make_vectors(random_model('ple'), seed=5).save(sys.argv[1])")
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    return read(path)


def test_one_case_is_recomputed_from_the_file_alone(bundle):
    arrays, header = bundle
    table = header["meta"]["architecture"]
    computed = forward(arrays, table)
    computed |= losses(arrays, table, computed)
    computed |= adam(arrays, header["meta"]["adam"])
    assert len(computed) > 60
    tolerances = {name: numbers[0] for name, *numbers in header["meta"]["tensors"]}
    for name, value in computed.items():
        expected = flat(arrays[name])
        allowed = 10 * tolerances[name] * max(map(abs, expected))
        assert all(abs(a - b) <= allowed for a, b in zip(flat(value), expected, strict=True)), name


def test_the_header_lists_every_expected_tensor_with_a_tolerance_for_each_precision(bundle):
    arrays, header = bundle
    given = ("params/", "inputs/", "targets/", "masks/", "weights/", "noise/")
    expected = [name for name in arrays if not name.startswith(given)]
    assert [name for name, *_ in header["meta"]["tensors"]] == expected
    precisions = list(header["meta"]["precisions"].values())
    assert precisions == sorted(precisions)  # finest first
    for _, *numbers in header["meta"]["tensors"]:
        assert len(numbers) == len(precisions)
