"""A suite of test vectors over every architecture of the package, with a manifest.

Each case is one model and one batch, chosen so that some mistake cannot hide; its flags say which.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from inspect import signature
from typing import Any, NamedTuple, cast

import numpy as np

from npple.architectures import ARCHITECTURES
from npple.archive import FilePath, make_folder, replacing
from npple.core.base import Array, Mask, Values
from npple.optimizers import Adam
from npple.oracle.variant import HANDED
from npple.oracle.vectors import ADAM, FORMAT, VERSION, Vectors, drawn
from npple.routing import Gate
from npple.verify.cases import Case

PLE_PAPER = "Tang et al., RecSys 2020"
FLAGS = {
    "few-tasks-many-experts": (
        "two tasks with three experts each and one shared: indices that mix up the two numbers "
        "go wrong", "PaddlePaddle/PaddleRec, pull request 932"),
    "many-tasks-few-experts": (
        "three tasks with two experts each and two shared: the other way round",
        "PaddlePaddle/PaddleRec, pull request 932"),
    "uneven-experts": (
        "every task has another number of experts, so one count for all goes wrong",
        f"{PLE_PAPER}, section 4.1: m_k experts of task k, m_s shared"),
    "square": (
        "all widths are equal, so a gate or an expert that reads the wrong representation still "
        "runs", f"{PLE_PAPER}, section 4.2: the selector is the representation below"),
    "three-levels": (
        "a level that is neither first nor last, with a shared gate that reads a shared "
        "representation", f"{PLE_PAPER}, section 4.2"),
    "single-row": (
        "a batch of one row: arrays that are squeezed, and statistics over the batch, go wrong",
        "shenweichen/DeepCTR-Torch, deepctr_torch/models/multitask/ple.py: squeeze()"),
    "masked": (
        "every other task has rows outside its sample space",
        f"{PLE_PAPER}, section 4.3: the indicator delta"),
    "columns": (
        "numeric columns and embeddings instead of one matrix",
        "docs/vectors.md, the representation `input`"),
    "many-rows": (
        "more rows than one looks at: what goes wrong behind the eighth shows", "npple"),
    "far-codes": (
        "codes that repeat, far apart in two vocabularies of one size: gradients that are set and "
        "not added up, tables that are mixed up", "npple"),
    "bags": (
        "a column of several values in a row, or none", "docs/vectors.md, `inputs`"),
    "empty-task": (
        "a task without a row in the batch: its loss is 0, not a mean over nothing",
        f"{PLE_PAPER}, section 4.3: the indicator delta"),
    "no-number": (
        "targets that are no number where a row is outside a task's sample space: times a mask of "
        "0 they still are none", "npple"),
    "large-logits": (
        "gates whose logits overflow in the exponential, towers whose sigmoid is 1: formulas that "
        "are not stable, and logits that are clipped", "npple"),
    "handed-over": (
        "gradients to step along, others each time: decay, clipping, and moments that fall",
        "npple"),
    "all-kinds": (
        "binary, regression and multiclass outputs side by side",
        "docs/vectors.md, losses"),
}
TWO = {"click": "binary", "dwell": "regression"}
THREE = TWO | {"kind": "multiclass:3"}
LARGE = 750  # of a gate's logits: their exponentials are no numbers any more, in any precision
FAR = 50  # of a tower's logits: the sigmoid is 1 to the last bit
WIDE = 300  # a vocabulary of which few codes come
ADAM_ALONE = Adam(rate=1e-2, beta1=0.8, beta2=0.6, epsilon=1e-2, weight_decay=0.125, clip=2.0)


def _as_drawn(case: Case) -> Case:
    return case


def _scattered(case: Case) -> Case:
    """Few codes, far apart and again and again; a task without a row."""
    codes = np.array([0, WIDE - 1, 7, WIDE - 1, 128])
    x = dict(cast(dict[str, Values], case.x))
    for at, name in enumerate(("user", "video")):
        x[name] = codes[(np.arange(len(x[name])) * (at + 2)) % len(codes)]
    rows = len(x["user"])
    some: dict[str, Mask | None] = {task: np.arange(rows) % 3 < 2 for task in case.targets}
    return replace(case, x=x, masks=some | case.masks | {"kind": np.zeros(rows, bool)})


def _saturated(case: Case) -> Case:
    """Logits of gates about ±750, of towers up to 50, a positive one where the label is 0."""
    params, table = dict(case.params), case.model.table
    for row in table.rows:
        if isinstance(row, Gate):
            name = f"{row.parameters}/layer{len(row.activations) + 1}/weight"
            signs = np.where(params[name].sum(axis=1, keepdims=True) < 0, -1, 1)
            params[name] = LARGE / 2 * signs + 4 * params[name]
    trace = case.model.forward(params, case.x)
    targets = dict(case.targets)
    for row in table.towers:
        z = trace[row.name]
        if row.kind != "binary":
            continue
        top = np.argmax(np.abs(z))
        layer = f"{row.parameters}/layer{len(row.activations) + 1}"
        for name in (f"{layer}/weight", f"{layer}/bias"):
            params[name] = params[name] * FAR / z[top]
        targets[row.task] = targets[row.task].copy()
        targets[row.task][top] = 0
    return replace(case, params=params, targets=targets, masks={})


def _handed_over(case: Case) -> Case:
    """Twelve gradients to step along: other ones each time, smaller and smaller, one of zeros."""
    rng = np.random.default_rng(12)
    gradients: dict[str, Array] = {
        f"{step}/{name}": rng.normal(size=p.shape) * (step != 6) * 2.0 ** (1 - step // 2)
        for step in range(1, max(HANDED) + 1) for name, p in case.params.items()}
    return replace(case, gradients=gradients)


class Recipe(NamedTuple):
    """How a case is made: what it is for, its flags, rows, and arguments of the builders.

    `prepare` changes what was drawn; `only` names the architectures it is made for, if not all.
    """

    purpose: str
    flags: tuple[str, ...]
    rows: int
    options: dict[str, Any]
    prepare: Callable[[Case], Case] = _as_drawn
    adam: Adam = ADAM
    only: tuple[str, ...] = tuple(ARCHITECTURES)


CASES = {
    "few-tasks": Recipe(
        "counts that must not be mixed up", ("few-tasks-many-experts", "masked"), 8,
        {"inputs": 7, "tasks": TWO, "task_experts": 3, "shared_experts": 1, "experts": 5,
         "expert_units": (6,), "tower_units": (4,)}),
    "many-tasks": Recipe(
        "the same counts the other way round, outputs of all kinds",
        ("many-tasks-few-experts", "masked", "all-kinds"), 8,
        {"inputs": 5, "tasks": THREE, "task_experts": 2, "shared_experts": 2, "experts": 3,
         "expert_units": (6, 4), "tower_units": (5, 3)}),
    "uneven": Recipe(
        "numeric and categorical columns, other counts for each task",
        ("uneven-experts", "columns", "masked", "all-kinds"), 16,
        {"inputs": {"age": "numeric", "country": (6, 3), "device": (3, 2)}, "tasks": THREE,
         "task_experts": {"click": 1, "dwell": 3, "kind": 2}, "shared_experts": 2, "experts": 4,
         "expert_units": (7,), "tower_units": ()}),
    "square": Recipe(
        "equal widths everywhere, three levels", ("square", "three-levels", "masked"), 8,
        {"inputs": 5, "tasks": TWO, "levels": 3, "task_experts": 2, "shared_experts": 3,
         "experts": 4, "expert_units": (5,), "tower_units": (5,)}),
    "single-row": Recipe(
        "a batch of one row", ("single-row", "all-kinds"), 1,
        {"inputs": 6, "tasks": THREE, "task_experts": 2, "shared_experts": 2, "experts": 3,
         "expert_units": (5,), "tower_units": (4,)}),
    "scattered": Recipe(
        "two dozen rows of repeated and far codes and bags, a task without a row, and no number "
        "where there is no label",
        ("many-rows", "far-codes", "bags", "empty-task", "no-number", "masked"), 24,
        {"inputs": {"price": "numeric", "user": (WIDE, 2), "video": (WIDE, 2),
                    "tags": (5, 2, "mean")}, "tasks": THREE, "task_experts": 4,
         "shared_experts": 1, "experts": 5, "expert_units": (6,), "tower_units": (4,)},
        _scattered),
    "saturated": Recipe(
        "logits so large that the plain formulas overflow", ("large-logits",), 12,
        {"inputs": 6, "tasks": {"click": "binary", "like": "binary"}, "task_experts": 2,
         "shared_experts": 2, "experts": 3, "expert_units": (5,), "tower_units": (4,)},
        _saturated),
    "optimizer": Recipe(
        "twelve gradients that are handed over, with decay and clipping", ("handed-over",), 8,
        {"inputs": 3, "tasks": TWO, "levels": 1, "task_experts": 1, "shared_experts": 1,
         "expert_units": (3,), "tower_units": ()},
        _handed_over, ADAM_ALONE, ("ple",)),
}


def suite(ids: Collection[str] | None = None) -> Iterator[Vectors]:
    """Yields the cases of the suite.

    Parameters
    ----------
    ids : collection of str, optional
        Those wanted, as `ARCHITECTURE-CASE`; by default all.

    Yields
    ------
    npple.oracle.Vectors
        `notes` holds id, architecture, purpose and flags.
    """
    for architecture in ARCHITECTURES:
        for name, recipe in CASES.items():
            wanted = ids is None or f"{architecture}-{name}" in ids
            if architecture in recipe.only and wanted:
                yield _made(architecture, name, recipe)


def _made(architecture: str, name: str, recipe: Recipe) -> Vectors:
    builder = ARCHITECTURES[architecture]
    known = signature(builder).parameters
    model = builder(**{key: value for key, value in recipe.options.items() if key in known})
    vectors = drawn(model, 0, recipe.rows, "float64", recipe.adam, recipe.prepare)
    notes = {"id": f"{architecture}-{name}", "architecture": architecture,
             "purpose": recipe.purpose, "flags": list(recipe.flags)}
    case = _without_labels(vectors.case) if "no-number" in recipe.flags else vectors.case
    return replace(vectors, case=case, notes=notes | vectors.notes)


def _without_labels(case: Case) -> Case:
    """The case with NaN, or a class that is none, where a row has no label."""
    targets = {}
    for task, y in case.targets.items():
        mask = case.masks[task]
        none = np.nan if y.dtype.kind == "f" else -1
        targets[task] = y if mask is None else np.where(mask, y, none)
    return replace(case, targets=targets)


def export_all(folder: FilePath, also_json: bool = False) -> dict[str, Any]:
    """Writes the suite: one `ID.npz` a case, and `manifest.json`.

    Parameters
    ----------
    folder : str or path
        Made if it is not there.
    also_json : bool
        Whether to write `ID.json`, too, for languages that cannot read `.npz` files.

    Returns
    -------
    dict
        The manifest: format, version, flags with description and source, and for each case its
        id, file, SHA-256, architecture, purpose, flags, seed, rows and dtype.

    Raises
    ------
    InputError
        For what can name no folder.
    FileError
        If something cannot be written.
    """
    folder, cases = make_folder("folder", folder), []
    for vectors in suite():
        path = folder / f"{vectors.notes['id']}.npz"
        vectors.save(path)
        if also_json:
            vectors.save_json(path.with_suffix(".json"))
        cases.append(vectors.notes | {"file": path.name, "tensors": len(vectors.expected),
                                      "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    flags = {name: {"description": description, "source": source}
             for name, (description, source) in FLAGS.items()}
    manifest = {"format": f"{FORMAT} suite", "version": VERSION, "flags": flags, "cases": cases}
    with replacing(folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest
