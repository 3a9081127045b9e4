"""A random model with random parameters and data, for gradient checks, isolation and the oracle.

Everything is generic on purpose: no value is zero, symmetric or equal to another, gates are far
from uniform, so that a mistake has nothing to cancel against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from npple.architectures import ARCHITECTURES
from npple.checks import check_choice, check_count, check_kind, shown
from npple.core.base import Array, Codes, Features, Float64, Mask, Values
from npple.core.losses import kind_of
from npple.core.rows import LARGEST
from npple.errors import require
from npple.kinds import about
from npple.network import Network

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

MOST = 1000  # tasks
KINDS = ("binary", "regression", "multiclass:3")


@dataclass(frozen=True)
class Case:
    """A model and one batch for it: what `Network.loss_and_grads` takes, by the same names.

    `gradients` are handed over to an optimizer: `STEP/NAME`, steps from 1 on.
    """

    model: Network
    params: dict[str, Array] = field(repr=False)
    x: Features = field(repr=False)
    targets: dict[str, Values] = field(repr=False)
    masks: dict[str, Mask | None] = field(repr=False)
    weights: dict[str, float] = field(repr=False)
    noise: dict[str, Array] = field(repr=False)
    gradients: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def batch(self) -> tuple[Features, dict[str, Values], dict[str, Mask | None], dict[str, float],
                             dict[str, Array]]:
        """What `loss_and_grads` takes after `params`, in this order."""
        return self.x, self.targets, self.masks, self.weights, self.noise


def random_model(name: str, tasks: int | Mapping[str, str] = 3, levels: int = 2) -> Network:
    """A small model of an architecture: embeddings, all task kinds, uneven expert counts.

    Parameters
    ----------
    name : str
        A key of `npple.ARCHITECTURES`.
    tasks : int or dict of str
        The number of tasks (their kinds take turns), or task -> kind.
    levels : int
        Extraction levels, for the architectures that have them.

    Returns
    -------
    npple.network.Network
    """
    check_choice("model", name, ARCHITECTURES)
    tasks = tasks if isinstance(tasks, Mapping) else numbered_tasks(tasks)
    options = {"levels": levels, "shared_experts": 2, "experts": 4,
               "task_experts": {task: 1 + i % 3 for i, task in enumerate(tasks)},
               "expert_units": (7, 5), "tower_units": (4,), "gate_units": (3,), "gate_bias": True,
               "orthogonality": 0.01, "l0": 0.02}
    builder = ARCHITECTURES[name]
    known = signature(builder).parameters
    inputs = {"age": "numeric", "country": (6, 3), "device": (3, 2), "length": "numeric"}
    return builder(inputs, tasks, **{key: options[key] for key in options if key in known})


def numbered_tasks(count: int) -> dict[str, str]:
    """task1, task2, ... with the kinds of `KINDS` in turn; `InputError` for no or too many."""
    require(type(count) is int and 0 < count <= MOST,
            f"tasks: a positive integer up to {MOST} is needed, got {shown(count)}")
    return {f"task{i + 1}": KINDS[i % len(KINDS)] for i in range(count)}


def random_case(model: Network, seed: int = 0, batch: int = 8, dtype: DTypeLike = np.float64
                ) -> Case:
    """Generic parameters and one batch for a model.

    Parameters
    ----------
    model : npple.network.Network
    seed : int
        At least 0. A parameter depends on it, its name and its shape alone: two models that share
        a name share its values.
    batch : int
        Rows. From two tasks on, every other task is masked: about half of the rows, at least one.
    dtype : dtype
        Of parameters, features and regression targets.

    Returns
    -------
    Case

    Raises
    ------
    InputError
        For what is no Network, and numbers out of their range.
    """
    check_kind("model", model, Network, "a Network")
    check_count("seed", seed, 0)
    check_count("batch", batch, most=LARGEST)
    rng = np.random.default_rng([seed, batch])
    table = model.table
    params = {name: _parameter(name, shape, seed).astype(dtype)
              for name, shape in model.shapes.items()}
    x: Features
    if isinstance(table.inputs, int):
        x = rng.normal(size=(batch, table.inputs)).astype(dtype)
    else:
        x = {name: rng.normal(size=batch).astype(dtype) if isinstance(kind, str)
             else rng.integers(0, kind[0], batch) if len(kind) == 2 else _bags(rng, kind[0], batch)
             for name, kind in table.inputs}
    targets = {task: _target(kind, rng, batch, dtype) for task, kind in model.tasks.items()}
    masks: dict[str, Mask | None] = {task: _mask(rng, batch) for task in list(model.tasks)[1::2]}
    weights = {task: rng.uniform(0.5, 2) for task in model.tasks}
    return Case(model, params, x, targets, masks, weights, model.noise(rng, dtype))


def _parameter(name: str, shape: tuple[int, ...], seed: int) -> Float64:
    """Biases in [0.1, 1), embeddings in ±[0.5, 1.5); weights too, scaled to keep variances."""
    rng = np.random.default_rng([seed, crc32(name.encode())])
    if name.endswith(("/bias", "/log_alpha")):
        return rng.uniform(0.1, 1, shape)
    scale = 1 if name.startswith("embedding/") else np.sqrt(2 / shape[-2])
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-scale, scale], shape)


def _bags(rng: np.random.Generator, size: int, batch: int) -> Codes:
    """Bags of up to four codes (batch, 4), some twice in one; the last of several is empty."""
    codes = rng.integers(-1, size, (batch, 4))
    codes[-1] = -1 if batch > 1 else 0
    return codes


def _target(kind: str, rng: np.random.Generator, batch: int, dtype: DTypeLike) -> Values:
    """Targets of a task (batch,)."""
    drawn = about(kind).draw(kind_of(kind), rng, batch)
    return drawn.astype(dtype) if drawn.dtype.kind == "f" else drawn


def _mask(rng: np.random.Generator, batch: int) -> Mask:
    """About half of the rows (batch,), at least one."""
    mask = rng.random(batch) < 0.5
    mask[rng.integers(batch)] = True
    return mask
