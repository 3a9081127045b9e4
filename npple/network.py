"""A model: a routing table, and the calls that check their arguments and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from npple.checks import (check_count, check_dicts, check_dtype, check_kind, check_noise,
                          check_number, check_params, check_weights, check_x, first_not_finite)
from npple.core.base import Array, Arrays, Cache, Columns, Features, Masks, Printed, Shapes, Targets
from npple.core.blocks import blas_with_one_thread, each_block
from npple.core.passes import (Trace, add_up, backward, forward, loss_starts, losses,
                               penalty_backward, penalty_forward, weighted)
from npple.core.rows import (Concat, Experts, Fusion, Gate, Pass, Pool, Route, Row, Source, Stitch,
                             Tower)
from npple.core.table import Level, Table
from npple.errors import Diverged, InputError, require
from npple.kinds import check_targets

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["Network", "Trace", "task_weights"]
Batch: TypeAlias = tuple[Table, Arrays, Features, Targets, Masks, Arrays]  # of `each_block`


@dataclass(frozen=True, repr=False)
class Network(Printed):
    """A multi-task model: a routing table, and the calls that check their arguments and run it.

    Parameters
    ----------
    table : npple.routing.Table
        Who reads whom; `npple.ple` and the other builders make it.
    """

    table: Table

    def __str__(self) -> str:
        """The rows, a line each."""
        size = sum(prod(shape) for shape in self.shapes.values())
        tasks = ", ".join(f"{task} ({kind})" for task, kind in self.tasks.items())
        return f"Network of {size:,} parameters, {len(self.tasks)} tasks: {tasks}\n{self.table}"

    @property
    def tasks(self) -> dict[str, str]:
        """Task name -> kind."""
        return self.table.tasks

    @property
    def shapes(self) -> Shapes:
        """Parameter name -> shape; a copy, which may be changed."""
        return dict(self.table.shapes)

    @property
    def unread(self) -> frozenset[str]:
        """The representations whose gradient no parameter needs: `input` without embeddings."""
        return frozenset() if self.table.embeddings else frozenset({"input"})

    def to_dict(self) -> dict[str, Any]:
        """The table as plain lists and dictionaries, for JSON; `from_dict` is the way back.

        Returns
        -------
        dict
            With the keys "inputs", "levels" and "towers".
        """
        levels = [{"groups": [_fields(group) for group in level.groups],
                   "fusions": [{"fusion": type(fusion).__name__} | _fields(fusion)
                               for fusion in level.fusions]} for level in self.table.levels]
        return {"inputs": self.table.inputs, "levels": levels,
                "towers": [_fields(tower) for tower in self.table.towers]}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Network:
        """The model that `to_dict` wrote.

        Parameters
        ----------
        content : dict
            What `to_dict` returned, also after a way through JSON.

        Returns
        -------
        Network

        Raises
        ------
        InputError
            For content that `to_dict` cannot have written.
        """
        try:
            content = _tuples(content)
            levels = tuple(Level(tuple(Experts(**group) for group in level["groups"]),
                                 tuple(_fusion(**fusion) for fusion in level["fusions"]))
                           for level in content["levels"])
            towers = tuple(Tower(**tower) for tower in content["towers"])
            return Network(Table(content["inputs"], levels, towers))
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise InputError(f"table: not one that npple wrote ({error!r})") from None

    def init(self, seed: int = 0, dtype: DTypeLike = np.float64) -> dict[str, Array]:
        """Fresh parameters.

        Weights are uniform in ±sqrt(6 / (in + out)) (Glorot & Bengio 2010), biases 0, embeddings
        uniform in ±0.1, log alpha of routing variables in [0.5, 1.5) (mostly open), constants of
        cross-stitch and sluice units what the table says. Each array is drawn by itself from the
        seed and its name, so a parameter that two architectures share by name starts equal in
        both.

        Parameters
        ----------
        seed : int
            At least 0.
        dtype : dtype
            float32, float64, longdouble or a complex type.

        Returns
        -------
        dict of ndarray

        Raises
        ------
        InputError
            For a `seed` or `dtype` that is none.
        """
        check_count("seed", seed, 0)
        check_dtype("dtype", dtype)
        return {name: array.astype(dtype) for name, array in self.table.initial(int(seed)).items()}

    def noise(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> dict[str, Array]:
        """Noise for one pass in training: fusion -> (n,) uniform in (0, 1), for each `Route`.

        Parameters
        ----------
        rng : numpy.random.Generator
        dtype : dtype
            Of the parameters.

        Returns
        -------
        dict of ndarray
            Empty for a model without routing variables.

        Raises
        ------
        InputError
            For a `rng` or `dtype` that is none.
        """
        check_kind("rng", rng, np.random.Generator, "a numpy.random.Generator")
        check_dtype("dtype", dtype)
        return {row.name: rng.uniform(1e-6, 1 - 1e-6, row.count(self.table)).astype(dtype)
                for row in self.table.rows if isinstance(row, Route)}

    def forward(self, params: Arrays, x: Array | Columns, noise: Arrays | None = None) -> Trace:
        """Every intermediate of the network on a batch.

        Parameters
        ----------
        params : dict of ndarray
            As from `init`.
        x : ndarray (batch, width), or dict of ndarray (batch,)
            Features in the precision of the parameters; with columns, numeric ones as floats and
            categorical ones as integer codes.
        noise : dict of ndarray, optional
            As from `noise`, for models with routing variables: one draw for the whole batch. By
            default there is none, as at inference.

        Returns
        -------
        Trace

        Raises
        ------
        InputError
            For wrong names, shapes, dtypes, features that are not finite, codes out of range.
        """
        dtype = check_params(self.table, params)
        features, _ = check_x(self.table, x, dtype)
        noises = check_noise(self.table, noise, dtype)
        with blas_with_one_thread():
            return forward(self.table, params, features, noises)

    def task_losses(self, params: Arrays, x: Array | Columns, targets: Columns,
                    masks: Masks | None = None, noise: Arrays | None = None) -> dict[str, float]:
        """Each task's own loss, unweighted.

        Parameters
        ----------
        params, x, noise
            As in `forward`.
        targets : dict of ndarray (batch,)
            By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
        masks : dict of bool ndarray (batch,), optional
            The sample space of a task: False where a row is not the task's; its target there may
            be anything. Tasks not named have all rows.

        Returns
        -------
        dict of float

        Raises
        ------
        InputError
            As `forward`, and for targets and masks that do not fit.
        Diverged
            For a loss that is not finite; names the first tensor that is not.
        """
        def run(trace: Trace, targets: Targets, masks: Masks, shares: dict[str, float]
                ) -> dict[str, Array]:
            found = losses(trace, targets, masks)
            _require_finite({task: value for task, (value, _) in found.items()}, trace)
            return _parts(found, shares)

        parts: list[dict[str, Array]] = []
        each_block(run, parts.append, *self._checked(params, x, targets, masks, noise))
        total = _means(parts, _dtype(params))
        _require_finite(total)
        return {task: loss.item()  # type: ignore[misc] # complex for complex parameters
                for task, loss in total.items()}

    def loss_and_grads(self, params: Arrays, x: Array | Columns, targets: Columns,
                       masks: Masks | None = None, weights: Mapping[str, float] | None = None,
                       noise: Arrays | None = None, penalties: bool = True
                       ) -> tuple[float, dict[str, Array]]:
        """The joint loss L = sum_k w_k L_k and its gradient (PLE paper, equation 8).

        Parameters
        ----------
        params, x, targets, masks, noise
            As in `task_losses`.
        weights : dict of float, optional
            w_k for every task; 1 by default. A task's own gradient: its weight 1, the others 0.
        penalties : bool
            Whether to add the penalties that the table has (sluice, SNR); no other model has any.

        Returns
        -------
        loss : float
        grads : dict of ndarray
            Names, shapes and dtype of `params`; exactly 0 where no weighted task reaches.

        Raises
        ------
        InputError
            As `task_losses`, and for weights that do not fit.
        Diverged
            For a loss or a gradient that is not finite; names the first tensor that is not.
        """
        loss, grads, _ = self.losses_and_grads(params, x, targets, masks, weights, noise,
                                               penalties)
        return loss, grads

    def losses_and_grads(self, params: Arrays, x: Array | Columns, targets: Columns,
                         masks: Masks | None = None, weights: Mapping[str, float] | None = None,
                         noise: Arrays | None = None, penalties: bool = True
                         ) -> tuple[float, dict[str, Array], dict[str, float]]:
        """What `loss_and_grads` gives, and each weighted task's own loss, in one pass.

        Parameters
        ----------
        params, x, targets, masks, weights, noise, penalties
            As in `loss_and_grads`.

        Returns
        -------
        loss : float
        grads : dict of ndarray
        losses : dict of float
            Unweighted; of the tasks whose weight is not 0.

        Raises
        ------
        InputError
            As `loss_and_grads`.
        Diverged
            As `loss_and_grads`.
        """
        factors = check_weights(self.table, weights)
        return self.run(self._checked(params, x, targets, masks, noise), factors, penalties)

    def run(self, batch: Batch, factors: Mapping[str, float], penalties: bool = True
            ) -> tuple[float, dict[str, Array], dict[str, float]]:
        """What `losses_and_grads` gives, of arguments that were checked.

        Parameters
        ----------
        batch : tuple
            Table, parameters, features, targets, masks by task (None for all rows) and noise.
        factors : dict of float
            The weight of each task.
        penalties : bool
            As in `loss_and_grads`.

        Returns
        -------
        loss : float
        grads : dict of ndarray
        losses : dict of float

        Raises
        ------
        Diverged
            As `loss_and_grads`.
        """
        _, params, *_ = batch
        found: dict[str, Array] = {}

        def run(trace: Trace, targets: Targets, masks: Masks, shares: dict[str, float]
                ) -> tuple[dict[str, Array], list[tuple[str, Array]]]:
            own = {task: each for task, each in losses(trace, targets, masks).items()
                   if factors[task]}
            _require_finite({f"loss/{task}": value for task, (value, _) in own.items()}, trace)
            weighed = {task: factors[task] * share for task, share in shares.items()}
            grads = backward(trace, loss_starts(own, weighed), self.unread)
            return (_parts(own, shares),
                    [(name, grads[name]) for name in params if name in grads])

        def take(result: tuple[dict[str, Array], list[tuple[str, Array]]]) -> None:
            parts.append(result[0])
            add_up(found, result[1])

        parts: list[dict[str, Array]] = []
        with np.errstate(over="ignore", invalid="ignore"), blas_with_one_thread():
            each_block(run, take, *batch)
            losses_of = _means(parts, _dtype(params))
            total = weighted(losses_of, factors)
            if penalties:
                value, caches = penalty_forward(self.table, params)
                total = total + value
                add_up(found, penalty_backward(caches))
        grads = {name: found[name] if name in found else np.zeros_like(array)
                 for name, array in params.items()}
        _require_finite({"loss": total, **{f"grad/{name}": g for name, g in grads.items()}})
        return np.asarray(total).item(), grads, {
            task: value.item()  # type: ignore[misc] # complex for complex parameters
            for task, value in losses_of.items()}

    def _checked(self, params: Arrays, x: Array | Columns, targets: Columns, masks: Masks | None,
                 noise: Arrays | None) -> Batch:
        """The arguments of `each_block`."""
        dtype = check_params(self.table, params)
        features, rows = check_x(self.table, x, dtype)
        checked, masks = check_targets(self.table, targets, masks, rows, dtype)
        return self.table, params, features, checked, masks, check_noise(self.table, noise, dtype)


FUSIONS: dict[str, Callable[..., Fusion]] = {
    kind.__name__: kind for kind in (Concat, Gate, Pass, Pool, Route, Stitch)}


def _fields(row: Row) -> dict[str, Any]:
    return asdict(cast(Any, row))


def _fusion(fusion: str, sources: Any, **rest: Any) -> Fusion:
    return FUSIONS[fusion](sources=tuple(Source(**source) for source in sources), **rest)


def _tuples(content: Any) -> Any:
    """JSON content with its lists as tuples."""
    if isinstance(content, dict):
        return {key: _tuples(value) for key, value in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, (list, tuple)) else content


def _parts(found: Mapping[str, tuple[Array, Cache]], shares: Mapping[str, float]
           ) -> dict[str, Array]:
    """What a block adds to each task's loss, in extended precision."""
    return {task: value * np.longdouble(shares[task]) for task, (value, _) in found.items()}


def _means(parts: Sequence[Mapping[str, Array]], dtype: np.dtype[np.inexact]) -> dict[str, Array]:
    """Each task's loss from what the blocks add to it, rounded once."""
    return {task: np.sum(np.array([part[task] for part in parts])).astype(dtype)
            for task in parts[0]}


def _dtype(params: Arrays) -> np.dtype[np.inexact]:
    return next(iter(params.values())).dtype


def _require_finite(named: Mapping[str, Array | float], trace: Arrays | None = None) -> None:
    """Raises `Diverged` if not all of `named` is finite, with the first tensor that is not."""
    if name := first_not_finite(named):
        raise Diverged(f"{first_not_finite(trace or {}) or name} is not finite")


def task_weights(initial: Mapping[str, float], decay: Mapping[str, float], step: int
                 ) -> dict[str, float]:
    """w_k(t) = w_k0 · gamma_k^t, the weight of each task's loss (PLE, equation 10).

    Parameters
    ----------
    initial, decay : dict of float
        w_k0 and gamma_k by task; a task missing from `decay` keeps its weight.
    step : int
        t. The paper says that the weight changes after each step, and that t is the epoch; so
        t is the number of finished epochs, or of updates made.

    Returns
    -------
    dict of float

    Raises
    ------
    InputError
        For a decay of a task without a weight, or one that is not in (0, 1].
    """
    check_dicts(initial=initial, decay=decay)
    check_count("step", step, 0, 10**15)
    for task, gamma in decay.items():
        require(task in initial, f"decay: {task!r} is no task, expected {list(initial)}")
        gamma = check_number(f"decay: {task!r}", gamma, 0, 1)
        require(gamma > 0, f"decay: {task!r} must be above 0")
    return {task: check_number(f"initial: {task!r}", weight) * decay.get(task, 1.0) ** step
            for task, weight in initial.items()}
