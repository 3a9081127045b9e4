"""The network: one forward and one backward over a routing table, whatever its architecture.

    forward    for each row: read tensors, make one            -> a trace of every tensor by name
    backward   for each row, last to first: turn the gradient of what it made into the gradients
               of what it read                                  -> a gradient by name, for tensors
               and parameters alike

A row whose tensor no loss depends on is never visited, so its gradients are exactly 0. A loss and
its gradients are added up over blocks of rows, which run side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np

from npple.checks import (check_dtype, check_kind, check_noise, check_params, check_targets,
                          check_weights, check_x, first_not_finite)
from npple.errors import Diverged, require
from npple.experts import (experts_backward, experts_forward, experts_penalty_backward,
                           experts_penalty_forward, mlp_backward, mlp_forward)
from npple.fusions import (concat_backward, concat_forward, gate_backward, gate_forward,
                           pass_backward, pass_forward, route_backward, route_forward,
                           route_penalty_backward, route_penalty_forward, stitch_fusion_backward,
                           stitch_fusion_forward)
from npple.losses import loss_backward, loss_forward
from npple.ops import (embedding_backward, embedding_forward, side_by_side, sigmoid_forward,
                       softmax_forward)
from npple.routing import Concat, Experts, Gate, Pass, Route, Stitch, Table, Tower, classes
from npple.threads import for_each

BLOCK = 512  # rows

# Made, freed and never touched: from now on glibc keeps what is freed for the arrays to come. Else
# it hands large arrays back to the system, and up to a quarter of a step goes by in getting new.
np.empty(2**25 - 2**13, np.uint8)


class Trace(Mapping):
    """Every tensor of one forward pass: a read-only dict by name, in the order of computation.

    Attributes
    ----------
    table : npple.routing.Table
        The rows that were run.
    tensors : dict of ndarray
        By name, in the order of computation.
    caches : dict
        Row -> what its backward pass needs.
    """

    def __init__(self, table, tensors, caches):
        self.table, self.tensors, self.caches = table, tensors, caches

    def __getitem__(self, name):
        return self.tensors[name]

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)

    def __repr__(self):
        return "\n".join(f"{name:40} {array.shape}" for name, array in self.tensors.items())

    @property
    def outputs(self):
        """Task -> the tower's output.

        Logits (batch,) for "binary", values (batch,) for "regression", logits (batch, K) for
        "multiclass:K".
        """
        return {task: self.tensors[f"tower/{task}"] for task in self.table.tasks}

    @property
    def predictions(self):
        """Task -> the outputs as probabilities (sigmoid, softmax) and values."""
        return {task: _PREDICTIONS[self.table.tasks[task].split(":")[0]](z)
                for task, z in self.outputs.items()}


_PREDICTIONS = {
    "binary": lambda z: sigmoid_forward(z)[0],
    "regression": lambda z: z,
    "multiclass": lambda z: softmax_forward(z)[0],
}


# The two passes ---------------------------------------------------------------------------------

def tower_forward(tower, params, tensors):
    """y_k = t_k(x) (PLE paper, section 4.1): representation (..., batch, in) -> `tower/task`.

    (..., batch) for a scalar output, (..., batch, K) for K classes; hidden layers by name
    """
    activations = (*tower.activations, "identity")
    layers, cache = mlp_forward(tower.parameters, activations, params, tensors[tower.reads])
    _, y = layers.popitem()
    return layers | {tower.name: y if classes(tower.kind) > 1 else y[..., 0]}, cache


def tower_backward(tower, dy, cache, unread):
    """Through the tower's layers to the representation it reads."""
    dy = dy if classes(tower.kind) > 1 else dy[..., None]
    dx, grads = mlp_backward(dy, cache, need_dx=tower.reads not in unread)
    yield from grads.items()
    if dx is not None:
        yield tower.reads, dx


def input_forward(table, params, x):
    """The representation `input`: x itself, or its numeric columns and embeddings side by side.

    x (batch, width), or columns (batch,) by name -> (..., batch, width)
    """
    if isinstance(table.inputs, int):
        return {"input": x}, None
    caches, parts = [], []
    for name, kind in table.inputs:
        if kind == "numeric":
            part, cache = x[name][..., None], None
        else:
            part, cache = embedding_forward(params[f"embedding/{name}"], x[name])
        parts.append(part)
        caches.append((name, cache))
    return {"input": side_by_side(parts)}, caches


def input_backward(dy, caches):
    """Cuts the gradient of `input` into its columns: (`x/name` or `embedding/name`, gradient)."""
    start = 0
    for name, cache in caches or ():
        stop = start + (1 if cache is None else cache[0].shape[-1])
        if cache is None:
            yield f"x/{name}", dy[..., start]
        else:
            yield f"embedding/{name}", embedding_backward(dy[..., start:stop], cache)
        start = stop


OPERATIONS = {
    Experts: (experts_forward, experts_backward),
    Gate: (gate_forward, gate_backward),
    Pass: (pass_forward, pass_backward),
    Concat: (concat_forward, concat_backward),
    Stitch: (stitch_fusion_forward, stitch_fusion_backward),
    Route: (route_forward, route_backward),
    Tower: (tower_forward, tower_backward),
}
PENALTIES = {
    Experts: (experts_penalty_forward, experts_penalty_backward),
    Route: (route_penalty_forward, route_penalty_backward),
}


def forward(table, params, x, noise=None):
    """Runs the rows of `table` from first to last; nothing is checked. -> Trace

    Parameters may have leading axes that broadcast: copies to be evaluated together.
    """
    tensors, inputs = input_forward(table, params, x)
    tensors |= {f"{name}/route/noise": u for name, u in (noise or {}).items()}
    caches = {"input": inputs}
    for row in table.rows:
        made, caches[row.name] = OPERATIONS[type(row)][0](row, params, tensors)
        tensors |= made
    return Trace(table, tensors, caches)


def each_block(run, take, table, params, x, targets, masks, noise=None):
    """`take(run(trace, targets, masks, shares))` for each block of a batch; nothing is checked.

    Blocks have at most `BLOCK` rows and run side by side; `take` gets their results in order.
    `shares` says for each task what part of its rows are in the block: the mean over a task's rows
    in the batch is the sum of the blocks' means times these.
    """
    whole = slice(0, len(next(iter(targets.values()))))

    def run_forward(at):
        shares = {task: _count(mask, at) / max(_count(mask, whole), 1)
                  for task, mask in masks.items()}
        own = {task: None if mask is None else mask[at] for task, mask in masks.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # of this thread
            trace = forward(table, params, _rows(x, at), noise)
            return run(trace, _rows(targets, at), own, shares)

    count = -(-whole.stop // BLOCK)
    edges = [whole.stop * i // count for i in range(count + 1)]
    for_each([slice(*pair) for pair in pairwise(edges)], run_forward, take)


def _count(mask, at):
    """How many rows of a slice are in a task's sample space."""
    return at.stop - at.start if mask is None else int(np.count_nonzero(mask[at]))


def _rows(columns, at):
    """Some rows of a matrix, or of each column."""
    if isinstance(columns, dict):
        return {name: column[at] for name, column in columns.items()}
    return columns[at]


def losses(trace, targets, masks):
    """Task -> (its loss (...), the cache of its backward)."""
    return {task: loss_forward(kind, trace[f"tower/{task}"], targets[task], masks[task])
            for task, kind in trace.table.tasks.items()}


def joint_loss(trace, targets, masks, weights):
    """L = sum_k w_k L_k (PLE paper, section 4.3), and where its gradients start.

    A task with weight 0 is left out altogether, whatever its loss.

    Returns
    -------
    loss : ndarray (...)
    starts : dict of ndarray
        dL/d(`tower/task`) by name.
    """
    loss, starts = 0.0, {}
    for task, (value, cache) in losses(trace, targets, masks).items():
        if weights[task]:
            loss = loss + weights[task] * value
            starts[f"tower/{task}"] = loss_backward(weights[task], cache)
    return loss, starts


def penalty_forward(table, params):
    """The sum of the penalties of all rows that have one -> (value (...), cache)."""
    value, caches = 0.0, []
    for row in table.rows:
        if row.penalty:
            part, cache = PENALTIES[type(row)][0](row, params)
            value = value + part
            caches.append((row, cache))
    return value, caches


def penalty_backward(caches):
    """Yields (parameter name, gradient) for each penalty."""
    for row, cache in caches:
        yield from PENALTIES[type(row)][1](row, cache)


def backward(trace, starts, unread=frozenset()):
    """Carries gradients back through the rows, from last to first.

    Parameters
    ----------
    trace : Trace
    starts : dict of ndarray
        dL/d(tensor) by name, for the tensors that L is a direct function of: `tower/task`.
    unread : set of str
        Representations whose gradient nobody wants (`Network.unread`), not computed.

    Returns
    -------
    dict of ndarray
        dL/d(tensor) and dL/d(parameter) by name, for whatever the losses depend on.
    """
    gradients = dict(starts)
    for row in reversed(trace.table.rows):
        if row.name in gradients:
            cache = trace.caches[row.name]
            _add_up(gradients, OPERATIONS[type(row)][1](row, gradients[row.name], cache, unread))
    if "input" in gradients:
        _add_up(gradients, input_backward(gradients["input"], trace.caches["input"]))
    return gradients


def _add_up(total, parts):
    """Adds (name, gradient) to what a dictionary has under that name."""
    for name, value in parts:
        total[name] = total[name] + value if name in total else value


# The model --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Network:
    """A multi-task model: a routing table, and the calls that check their arguments and run it.

    Parameters
    ----------
    table : npple.routing.Table
        Who reads whom; `npple.ple` and the other builders make it.
    """

    table: Table

    @property
    def tasks(self):
        """Task name -> kind."""
        return self.table.tasks

    @property
    def shapes(self):
        """Parameter name -> shape."""
        return self.table.shapes

    @property
    def unread(self):
        """The representations whose gradient no parameter needs: `input` without embeddings."""
        return frozenset() if self.table.embeddings else frozenset({"input"})

    def init(self, seed=0, dtype=np.float64):
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
        require(isinstance(seed, (int, np.integer)) and seed >= 0,
                f"seed: an integer of at least 0 is needed, got {seed!r}")
        check_dtype("dtype", dtype)
        fixed = {f"{row.parameters}/weight": np.array(row.start) for row in self.table.rows
                 if isinstance(row, Stitch)}
        return {name: (fixed[name] if name in fixed else _initial(name, shape, seed)).astype(dtype)
                for name, shape in self.shapes.items()}

    def noise(self, rng, dtype=np.float64):
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

    def forward(self, params, x, noise=None):
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
        x, _ = check_x(self.table, x, dtype)
        return forward(self.table, params, x, check_noise(self.table, noise, dtype))

    def task_losses(self, params, x, targets, masks=None, noise=None):
        """Each task's own loss, unweighted.

        Parameters
        ----------
        params : dict of ndarray
            As from `init`.
        x : ndarray (batch, width), or dict of ndarray (batch,)
            Features in the precision of the parameters; with columns, numeric ones as floats and
            categorical ones as integer codes.
        targets : dict of ndarray (batch,)
            By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
        masks : dict of bool ndarray (batch,), optional
            The sample space of a task: False where a row is not the task's; its target there may
            be anything. Tasks not named have all rows.
        noise : dict of ndarray, optional
            As from `noise`, for models with routing variables: one draw for the whole batch. By
            default there is none, as at inference.

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
        def run(trace, targets, masks, shares):
            found = {task: value.item() * shares[task]
                     for task, (value, _) in losses(trace, targets, masks).items()}
            _require_finite(found, trace)
            return found

        total = {}
        each_block(run, lambda found: _add_up(total, found.items()),
                   *self._checked(params, x, targets, masks, noise))
        _require_finite(total)
        return total

    def loss_and_grads(self, params, x, targets, masks=None, weights=None, noise=None,
                       penalties=True):
        """The joint loss L = sum_k w_k L_k and its gradient (PLE paper, section 4.3).

        Parameters
        ----------
        params : dict of ndarray
            As from `init`.
        x : ndarray (batch, width), or dict of ndarray (batch,)
            Features in the precision of the parameters; with columns, numeric ones as floats and
            categorical ones as integer codes.
        targets : dict of ndarray (batch,)
            By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
        masks : dict of bool ndarray (batch,), optional
            The sample space of a task: False where a row is not the task's; its target there may
            be anything. Tasks not named have all rows.
        weights : dict of float, optional
            w_k for every task; 1 by default. A task's own gradient: its weight 1, the others 0.
        noise : dict of ndarray, optional
            As from `noise`, for models with routing variables: one draw for the whole batch. By
            default there is none, as at inference.
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
        weights = check_weights(self.table, weights)

        def run(trace, targets, masks, shares):
            shares = {task: weights[task] * share for task, share in shares.items()}
            loss, starts = joint_loss(trace, targets, masks, shares)
            _require_finite({"loss": loss}, trace)
            found = backward(trace, starts, self.unread)
            return loss, [(name, found[name]) for name in params if name in found]

        def take(result):
            nonlocal loss
            loss = loss + result[0]
            _add_up(grads, result[1])

        loss, grads = 0.0, {}
        batch = self._checked(params, x, targets, masks, noise)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
            each_block(run, take, *batch)
            if penalties:
                value, caches = penalty_forward(self.table, params)
                take((value, penalty_backward(caches)))
        grads = {name: grads[name] if name in grads else np.zeros_like(array)
                 for name, array in params.items()}
        _require_finite({"loss": loss, **{f"grad/{name}": g for name, g in grads.items()}})
        return np.asarray(loss).item(), grads

    def _checked(self, params, x, targets, masks, noise):
        """The arguments of `each_block`."""
        dtype = check_params(self.table, params)
        x, rows = check_x(self.table, x, dtype)
        targets, masks = check_targets(self.table, targets, masks, rows, dtype)
        return self.table, params, x, targets, masks, check_noise(self.table, noise, dtype)


def _require_finite(named, trace={}):
    """Raises `Diverged` if not all of `named` is finite, with the first tensor that is not."""
    if name := first_not_finite(named):
        raise Diverged(f"{first_not_finite(trace) or name} is not finite")


def _initial(name, shape, seed):
    """One parameter's initial values in float64."""
    rng = np.random.default_rng([seed, crc32(name.encode())])
    if name.startswith("embedding/"):
        return rng.uniform(-0.1, 0.1, shape)
    if name.endswith("/log_alpha"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("/bias"):
        return np.zeros(shape)
    bound = np.sqrt(6 / (shape[-2] + shape[-1]))
    return rng.uniform(-bound, bound, shape)
