"""A suite of test vectors over every architecture of the package, with a manifest.

Each case is one model and one batch, chosen so that some mistake cannot hide; its flags say which.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from npple.architectures import ARCHITECTURES
from npple.archive import FilePath, replacing
from npple.oracle.vectors import FORMAT, VERSION, Vectors, make_vectors

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
    "all-kinds": (
        "binary, regression and multiclass outputs side by side",
        "docs/vectors.md, losses"),
}
TWO = {"click": "binary", "dwell": "regression"}
THREE = TWO | {"kind": "multiclass:3"}
CASES = {  # id: (what it tests, flags, rows, arguments of the builders that take them)
    "few-tasks": (
        "counts that must not be mixed up", ("few-tasks-many-experts", "masked"), 8,
        {"inputs": 7, "tasks": TWO, "task_experts": 3, "shared_experts": 1, "experts": 5,
         "expert_units": (6,), "tower_units": (4,)}),
    "many-tasks": (
        "the same counts the other way round, outputs of all kinds",
        ("many-tasks-few-experts", "masked", "all-kinds"), 8,
        {"inputs": 5, "tasks": THREE, "task_experts": 2, "shared_experts": 2, "experts": 3,
         "expert_units": (6, 4), "tower_units": (5, 3)}),
    "uneven": (
        "numeric and categorical columns, other counts for each task",
        ("uneven-experts", "columns", "masked", "all-kinds"), 16,
        {"inputs": {"age": "numeric", "country": (6, 3), "device": (3, 2)}, "tasks": THREE,
         "task_experts": {"click": 1, "dwell": 3, "kind": 2}, "shared_experts": 2, "experts": 4,
         "expert_units": (7,), "tower_units": ()}),
    "square": (
        "equal widths everywhere, three levels", ("square", "three-levels", "masked"), 8,
        {"inputs": 5, "tasks": TWO, "levels": 3, "task_experts": 2, "shared_experts": 3,
         "experts": 4, "expert_units": (5,), "tower_units": (5,)}),
    "single-row": (
        "a batch of one row", ("single-row", "all-kinds"), 1,
        {"inputs": 6, "tasks": THREE, "task_experts": 2, "shared_experts": 2, "experts": 3,
         "expert_units": (5,), "tower_units": (4,)}),
}


def suite() -> Iterator[Vectors]:
    """Yields the cases of the suite.

    Yields
    ------
    npple.oracle.Vectors
        `notes` holds id, architecture, purpose and flags.
    """
    for architecture, builder in ARCHITECTURES.items():
        known = signature(builder).parameters
        for name, (purpose, flags, rows, options) in CASES.items():
            model = builder(**{key: value for key, value in options.items() if key in known})
            vectors = make_vectors(model, seed=0, batch=rows)
            notes = {"id": f"{architecture}-{name}", "architecture": architecture,
                     "purpose": purpose, "flags": list(flags)}
            yield replace(vectors, notes=notes | vectors.notes)


def export_all(folder: FilePath) -> dict[str, Any]:
    """Writes the suite: one `ID.npz` a case, and `manifest.json`.

    Parameters
    ----------
    folder : str or path
        Made if it is not there.

    Returns
    -------
    dict
        The manifest: format, version, flags with description and source, and for each case its
        id, file, SHA-256, architecture, purpose, flags, seed, rows and dtype.

    Raises
    ------
    FileError
        If something cannot be written.
    """
    folder, cases = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for vectors in suite():
        path = folder / f"{vectors.notes['id']}.npz"
        vectors.save(path)
        cases.append(vectors.notes | {"file": path.name, "tensors": len(vectors.expected),
                                      "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    flags = {name: {"description": description, "source": source}
             for name, (description, source) in FLAGS.items()}
    manifest = {"format": f"{FORMAT} suite", "version": VERSION, "flags": flags, "cases": cases}
    with replacing(folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return manifest
