"""The kinds of rows that a model is made of, each with its own mathematics.

A row reads named tensors and makes one, called by the row's name:

    Experts   n equal MLPs reading one representation    level1/income/experts
    Gate      a softmax-weighted mixture of experts      level1/income
    Pass      the one expert there is, as it is          level1/income
    Concat    experts side by side                       level1/income
    Pool      the sum or the mean of experts             level1/income
    Stitch    learned constant mixtures of experts       level1/income
    Route     a sum of experts with learned switches     level1/income
    Tower     the MLP that ends in a task's output       tower/income

What a fusion (Gate to Route) makes is a representation; `input` is the one before level 1. The
parameters of an MLP called `name` are `name/layer1/weight`, `name/layer1/bias`, ...; the output
of its i-th hidden layer is the tensor `name/layeri`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from sys import float_info
from typing import TYPE_CHECKING

import numpy as np

from npple.core.base import Array, Arrays, Cache, Gradients, Shapes, require
from npple.core.losses import KINDS, Kind, Multiclass, kind_of
from npple.core.ops import (ACTIVATIONS, LIMITS, channel_stitch_backward,
                            channel_stitch_forward, columns, dense_backward, dense_forward,
                            expected_l0_backward, expected_l0_forward, hard_concrete_backward,
                            hard_concrete_forward, mixture_backward, mixture_forward,
                            overlap_backward, overlap_forward, side_by_side, softmax_backward,
                            softmax_forward, stitch_backward, stitch_forward, transform_backward,
                            transform_forward)

if TYPE_CHECKING:
    from npple.core.table import Table

LARGEST = 10 ** 9  # units, experts, words of a column


class Row(ABC):
    """What all rows have: a `name`, the tensors they read, and the passes through them.

    `penalty` is the weight of the row's own term in the loss, 0 for none.
    """

    name: str
    suffix = ""
    penalty: float = 0.0

    @property
    def parameters(self) -> str:
        """What the names of the row's parameters begin with."""
        return self.name + self.suffix

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that the row reads; one read twice may stand there twice."""

    @abstractmethod
    def width(self, table: Table) -> int:
        """The length of the last axis of what the row makes; for a tower the number of outputs."""

    def shapes(self, table: Table) -> Shapes:
        """Name -> shape of the parameters that the row uses, in the order of computation."""
        return {}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """A parameter before the first step: biases 0, weights ±sqrt(6 / (in + out)) (Glorot)."""
        if name.endswith("/bias"):
            return np.zeros(shape)
        bound = np.sqrt(6 / (shape[-2] + shape[-1]))
        return rng.uniform(-bound, bound, shape)

    def validate(self, table: Table) -> None:  # noqa: B027  # a row may have nothing to refuse
        """Raise `InputError` for what the row cannot work with; the tensors it reads are there."""

    @abstractmethod
    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """The tensors that the row makes by name, and what `backward` needs."""

    @abstractmethod
    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """From dL/d(what the row made) to dL/d(parameter) and dL/d(tensor read), by name.

        Representations in `unread` are left out: their gradient is not needed.
        """

    # of rows with a penalty: that term (...), weight included, and its gradient by parameter name
    penalty_forward: Callable[[Arrays], tuple[Array, Cache]]
    penalty_backward: Callable[[Cache], Gradients]


@dataclass(frozen=True)
class Source:
    """Experts that a fusion mixes: all of a group, some of it, or a representation.

    Parameters
    ----------
    name : str
        Of the group, `level1/income/experts`, or of the representation.
    experts : tuple of int, optional
        Which experts of the group, counted from 0; all by default.
    group : bool
        False for a representation, which counts as one expert.
    """

    name: str
    experts: tuple[int, ...] | None = None
    group: bool = True

    def count(self, table: Table) -> int:
        """How many experts these are."""
        row = table.row[self.name]
        return len(self.experts or range(row.count if isinstance(row, Experts) else 1))

    def take(self, tensor: Array) -> Array:
        """The experts (..., n, batch, width) of the tensor that `name` stands for."""
        if not self.group:
            return tensor[..., None, :, :]
        return tensor if self.experts is None else tensor[..., list(self.experts), :, :]

    def give(self, dexperts: Array, count: int) -> Array:
        """The gradient of that tensor from that of the experts taken: 0 for others of `count`."""
        if not self.group:
            return dexperts[..., 0, :, :]
        if self.experts is None:
            return dexperts
        whole = np.zeros((*dexperts.shape[:-3], count, *dexperts.shape[-2:]), dexperts.dtype)
        whole[..., list(self.experts), :, :] = dexperts
        return whole


# MLPs, which experts, gates and towers are made of ----------------------------------------------

def mlp_shapes(name: str, width: int, units: Sequence[int], bias: bool = True,
               stack: tuple[int, ...] = ()) -> Shapes:
    """The shapes of an MLP's parameters; `bias` says whether the last layer has one."""
    shapes: Shapes = {}
    for i, unit in enumerate(units, start=1):
        shapes[f"{name}/layer{i}/weight"] = (*stack, width, unit)
        if bias or i < len(units):
            shapes[f"{name}/layer{i}/bias"] = (*stack, unit)
        width = unit
    return shapes


def mlp_forward(name: str, activations: Sequence[str], params: Arrays, x: Array
                ) -> tuple[dict[str, Array], Cache]:
    """h_i = activation_i(h_{i-1} W_i + b_i), h_0 = x.

    x (..., batch, in) -> the outputs of all layers by name, each (..., batch, units_i), and a cache
    """
    layers, caches = {}, []
    for i, activation in enumerate(activations, start=1):
        layer = f"{name}/layer{i}"
        z, dense = dense_forward(x, params[f"{layer}/weight"], params.get(f"{layer}/bias"))
        layers[layer], active = ACTIVATIONS[activation][0](z)
        x = layers[layer]
        caches.append((layer, activation, dense, active))
    return layers, caches


def mlp_backward(dy: Array, caches: Cache, need_dx: bool) -> tuple[Array | None, dict[str, Array]]:
    """Layer by layer from the last: through the activation, then the dense layer.

    dy (..., batch, units of the last layer) -> dx (..., batch, in), parameter gradients by name
    """
    grads: dict[str, Array] = {}
    dx: Array | None = dy
    for i, (layer, activation, dense, active) in reversed(list(enumerate(caches))):
        dz = ACTIVATIONS[activation][1](dx, active)
        dx, grads[f"{layer}/weight"], db = dense_backward(dz, dense, need_dx or i > 0)
        if db is not None:
            grads[f"{layer}/bias"] = db
    return dx, grads


def mlp_gradients(dy: Array, caches: Cache, reads: str, unread: frozenset[str]) -> Gradients:
    """The gradients of an MLP's parameters, and of the tensor it `reads` unless that is unread."""
    dx, grads = mlp_backward(dy, caches, need_dx=reads not in unread)
    yield from grads.items()
    if dx is not None:
        yield reads, dx


class Reader(Row):
    """What experts and towers have: they read one representation."""

    reads: str

    def inputs(self) -> tuple[str, ...]:
        return (self.reads,)


# Experts ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Experts(Reader):
    """A group of MLPs of equal shape, all reading one representation.

    Parameters
    ----------
    name : str
        `level1/income/experts`; the tensor (count, batch, width) is called so.
    reads : str
        The representation, `input` or what a fusion made.
    count : int
        How many experts.
    units : tuple of int
        The widths of the layers, at least one.
    activations : tuple of str
        What follows each layer, a name of `npple.core.ops.ACTIVATIONS`.
    parameters : str
        Under whose name the parameters stand: by default its own, or that of another group of
        which it borrows them.
    penalty : float
        The weight of the penalty on experts whose weights overlap (sluice networks).
    overlap : str
        Of what: of the "inputs" that two experts take up, or of their "outputs".
    """

    name: str
    reads: str
    count: int
    units: tuple[int, ...]
    activations: tuple[str, ...]
    parameters: str = ""
    penalty: float = 0.0
    overlap: str = "outputs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", self.parameters or self.name)

    def width(self, table: Table) -> int:
        return self.units[-1]

    def shapes(self, table: Table) -> Shapes:
        return mlp_shapes(self.parameters, table.widths[self.reads], self.units,
                          stack=(self.count,))

    def validate(self, table: Table) -> None:
        check_representation(self.name, self.reads, table)
        check_count(f"{self.name}: count", self.count)
        check_penalty(self)
        check_mlp(self.name, self.units, self.activations)
        require(self.units, f"{self.name}: units: an expert needs at least one layer")
        require(self.overlap in ("inputs", "outputs"),
                f"{self.name}: overlap: 'inputs' or 'outputs' is needed, got {self.overlap!r:.80}")

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """E_i = MLP_i(x): x (..., batch, in) -> `name` (..., n, batch, width), hidden layers."""
        x = tensors[self.reads][..., None, :, :]  # (..., 1, batch, in): the same for each expert
        layers, cache = mlp_forward(self.parameters, self.activations, params, x)
        _, y = layers.popitem()
        hidden = {self.name + name.removeprefix(self.parameters): h for name, h in layers.items()}
        return hidden | {self.name: y}, cache

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """dx = sum_i dx_i over the experts of the group."""
        for name, g in mlp_gradients(dy, cache, self.reads, unread):
            yield name, g.sum(axis=-3) if name == self.reads else g

    def penalty_forward(self, params: Arrays) -> tuple[Array, Cache]:
        """penalty · sum over layers and pairs i < j of |W_i W_j^T|² (Ruder et al., their code).

        For an overlap of "outputs" |W_i^T W_j|².
        """
        names = [f"{self.parameters}/layer{i}/weight" for i in range(1, len(self.units) + 1)]
        values, caches = zip(*(overlap_forward(params[name], self.overlap == "inputs")
                               for name in names))
        return self.penalty * sum(values[1:], values[0]), list(zip(names, caches))

    def penalty_backward(self, cache: Cache) -> Gradients:
        """Each layer's own part."""
        for name, overlap in cache:
            yield name, self.penalty * overlap_backward(overlap)


# Fusions: from the experts of a level to a representation of the next ---------------------------

class Fusion(Row):
    """What all fusions have: they take the experts of `sources` and make a representation."""

    sources: tuple[Source, ...]

    def inputs(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.sources)

    def count(self, table: Table) -> int:
        """How many experts are mixed."""
        return sum(source.count(table) for source in self.sources)

    def width(self, table: Table) -> int:
        return table.widths[self.sources[0].name]

    def validate(self, table: Table) -> None:
        check_sources(self, table)

    def take(self, tensors: Arrays) -> tuple[list[Array], list[int]]:
        """The experts of each source (..., n, batch, width), and of how many they are taken."""
        read = [tensors[source.name] for source in self.sources]
        return ([source.take(tensor) for source, tensor in zip(self.sources, read)],
                [tensor.shape[-3] if source.group else 1
                 for source, tensor in zip(self.sources, read)])

    def give(self, dparts: Sequence[Array], counts: Sequence[int]) -> Gradients:
        """The gradients of the tensors that the sources name, from those of what was taken."""
        for source, dexperts, count in zip(self.sources, dparts, counts):
            yield source.name, source.give(dexperts, count)


@dataclass(frozen=True)
class Gate(Fusion):
    """y = sum_i w_i E_i, w = softmax(MLP(selector)) (PLE paper, equations 2, 3 and 6).

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to mix, two or more in all, in the order of the weights.
    selector : str
        The representation that the weights depend on.
    units : tuple of int
        The widths of the MLP's hidden layers; none in the paper.
    activations : tuple of str
        What follows each of them.
    bias : bool
        Whether the last layer has one; it has none in the paper.
    """

    name: str
    sources: tuple[Source, ...]
    selector: str
    units: tuple[int, ...] = ()
    activations: tuple[str, ...] = ()
    bias: bool = False

    suffix = "/gate"

    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs(), self.selector)

    def shapes(self, table: Table) -> Shapes:
        units = (*self.units, self.count(table))
        return mlp_shapes(self.parameters, table.widths[self.selector], units, bias=self.bias)

    def validate(self, table: Table) -> None:
        super().validate(table)
        check_representation(self.name, self.selector, table)
        check_mlp(self.parameters, self.units, self.activations)
        require(self.count(table) > 1, f"{self.name}: a gate over a single expert is a Pass")

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Selector (..., batch, in), experts (..., n, batch, width) -> `name` (..., batch, width).

        Beside it `name/gate/logits` and `name/gate/weights` (..., batch, n), as the sources stand.
        """
        layers, mlp = mlp_forward(self.parameters, (*self.activations, "identity"), params,
                                  tensors[self.selector])
        _, logits = layers.popitem()
        weights, softmax = softmax_forward(logits)
        parts, counts = self.take(tensors)
        y, mixture = mixture_forward(weights, parts)
        layers |= {f"{self.parameters}/logits": logits, f"{self.parameters}/weights": weights}
        return layers | {self.name: y}, (mlp, softmax, mixture, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Through the mixture to experts and weights, from the weights to the selector."""
        mlp, softmax, mixture, counts = cache
        dweights, dparts = mixture_backward(dy, mixture)
        yield from self.give(dparts, counts)
        yield from mlp_gradients(softmax_backward(dweights, softmax), mlp, self.selector, unread)


@dataclass(frozen=True)
class Pass(Fusion):
    """y = E, one expert as it is: what a softmax over one expert comes to.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        One source of one expert.
    """

    name: str
    sources: tuple[Source, ...]

    def validate(self, table: Table) -> None:
        super().validate(table)
        require(len(self.sources) == self.count(table) == 1,
                f"{self.name}: a pass takes exactly one expert, got {self.count(table)}")

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Experts (..., 1, batch, width) -> `name` (..., batch, width)."""
        (experts,), counts = self.take(tensors)
        return {self.name: experts[..., 0, :, :]}, counts

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """dE = dy."""
        yield from self.give([dy[..., None, :, :]], cache)


@dataclass(frozen=True)
class Concat(Fusion):
    """y = [E_1, ..., E_n], experts side by side.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts, in their order.
    """

    name: str
    sources: tuple[Source, ...]

    def width(self, table: Table) -> int:
        return super().width(table) * self.count(table)

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Experts (..., n, batch, width) -> `name` (..., batch, n · width)."""
        parts, counts = self.take(tensors)
        taken = [at for _, at in columns(parts)]
        experts = [part[..., i, :, :] for part in parts for i in range(part.shape[-3])]
        return {self.name: side_by_side(experts)}, (taken, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Each expert's own columns of dy."""
        taken, counts = cache
        dexperts = np.stack(np.split(dy, taken[-1].stop, axis=-1), axis=-3)
        yield from self.give([dexperts[..., at, :, :] for at in taken], counts)


@dataclass(frozen=True)
class Pool(Fusion):
    """y = sum_i E_i, or their mean.

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to add up.
    mean : bool
        Whether the sum is divided by their number.
    """

    name: str
    sources: tuple[Source, ...]
    mean: bool = False

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Experts (..., n, batch, width) -> `name` (..., batch, width)."""
        parts, counts = self.take(tensors)
        share = 1 / sum(part.shape[-3] for part in parts) if self.mean else 1.0
        sums = [part.sum(axis=-3) for part in parts]
        return {self.name: share * sum(sums[1:], sums[0])}, (share, parts, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """dE_i = dy, or dy / n."""
        share, parts, counts = cache
        ones = [np.ones((part.shape[-3], 1, 1), dy.dtype) for part in parts]
        yield from self.give([share * dy[..., None, :, :] * each for each in ones], counts)


@dataclass(frozen=True)
class Stitch(Fusion):
    """y = [y_1, ..., y_parts], y_p = sum_i alpha_pi E_i, alpha learned (Misra et al. 2016).

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to mix, in the order of alpha's columns.
    start : tuple of tuple of float
        The rows of alpha, one a part, before the first step.
    channels : bool
        Whether each channel, a column of the experts' outputs, has an alpha of its own.
    """

    name: str
    sources: tuple[Source, ...]
    start: tuple[tuple[float, ...], ...]
    channels: bool = False

    suffix = "/stitch"

    @property
    def parts(self) -> int:
        """How many mixtures stand side by side."""
        return len(self.start)

    def width(self, table: Table) -> int:
        return super().width(table) * self.parts

    def shapes(self, table: Table) -> Shapes:
        channels = (super().width(table),) * self.channels
        return {f"{self.parameters}/weight": (self.parts, self.count(table), *channels)}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        start = np.array(self.start)  # (parts, n)
        return np.broadcast_to(start[..., None], shape).copy() if self.channels else start

    def validate(self, table: Table) -> None:
        super().validate(table)
        require(self.start and all(len(row) == self.count(table) for row in self.start),
                f"{self.name}: start needs rows of {self.count(table)} numbers")

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Experts (..., n, batch, width), alpha (parts, n) -> (..., batch, parts · width).

        With channels alpha is (parts, n, width).
        """
        parts, counts = self.take(tensors)
        stitch = channel_stitch_forward if self.channels else stitch_forward
        y, cache = stitch(params[f"{self.parameters}/weight"], parts)
        y = side_by_side([y[..., p, :, :] for p in range(self.parts)])
        return {self.name: y}, (cache, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Each part's own columns of dy, then back through the mixture."""
        mixture, counts = cache
        dy = np.stack(np.split(dy, self.parts, axis=-1), axis=-3)  # (..., parts, batch, width)
        stitch = channel_stitch_backward if self.channels else stitch_backward
        dalpha, dparts = stitch(dy, mixture)
        yield from self.give(dparts, counts)
        yield f"{self.parameters}/weight", dalpha


@dataclass(frozen=True)
class Route(Fusion):
    """y = sum_i z_i E_i W_i, z hard concrete, W_i = 1 unless `transform` (SNR, Ma et al. 2019).

    Parameters
    ----------
    name : str
        `level1/income`; the representation (batch, width) is called so.
    sources : tuple of Source
        The experts to add up, in the order of z.
    transform : bool
        Whether there are matrices W_i (SNR-Trans); without them y = sum_i z_i E_i (SNR-Aver).
    penalty : float
        The weight of the penalty on the expected number of open connections.
    limits : tuple of float
        beta, gamma and zeta of the hard concrete distribution.
    start : tuple of float
        Log alpha starts uniform between these two.
    """

    name: str
    sources: tuple[Source, ...]
    transform: bool = False
    penalty: float = 0.0
    limits: tuple[float, float, float] = LIMITS
    start: tuple[float, float] = (0.5, 1.5)

    suffix = "/route"

    def shapes(self, table: Table) -> Shapes:
        n, width = self.count(table), self.width(table)
        weight: Shapes = {f"{self.parameters}/weight": (n, width, width)} if self.transform else {}
        return {f"{self.parameters}/log_alpha": (n,), **weight}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if name.endswith("/log_alpha"):
            return rng.uniform(*self.start, shape)
        return super().initial(name, shape, rng)

    def validate(self, table: Table) -> None:
        super().validate(table)
        check_penalty(self)
        check_switches(self)

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Experts (..., n, batch, width), W (n, width, width) -> `name` (..., batch, width).

        Beside it the routing variables `name/route/z` (..., n); `name/route/noise` is read.
        """
        z, concrete = hard_concrete_forward(params[f"{self.parameters}/log_alpha"],
                                            tensors.get(f"{self.parameters}/noise"), self.limits)
        (parts, counts), dense = self.take(tensors), None
        if self.transform:
            parts, dense = transform_forward(params[f"{self.parameters}/weight"], parts)
        y, mixture = stitch_forward(z[..., None, :], parts)
        return {f"{self.parameters}/z": z, self.name: y[..., 0, :, :]}, (
            concrete, dense, mixture, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Through the mixture to the experts, their transforms and z, from z to log alpha."""
        concrete, dense, mixture, counts = cache
        dz, dparts = stitch_backward(dy[..., None, :, :], mixture)
        if self.transform:
            dweight, dparts = transform_backward(dparts, dense)
            yield f"{self.parameters}/weight", dweight
        yield from self.give(dparts, counts)
        yield f"{self.parameters}/log_alpha", hard_concrete_backward(dz[..., 0, :], concrete)

    def penalty_forward(self, params: Arrays) -> tuple[Array, Cache]:
        """The expected number of open connections, times `penalty`."""
        value, cache = expected_l0_forward(params[f"{self.parameters}/log_alpha"], self.limits)
        return self.penalty * value, cache

    def penalty_backward(self, cache: Cache) -> Gradients:
        """Each connection's own part."""
        yield f"{self.parameters}/log_alpha", self.penalty * expected_l0_backward(cache)


# Towers -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Tower(Reader):
    """The MLP from a representation to the output of a task, y_k = t_k(x) (PLE, equation 5).

    Parameters
    ----------
    task : str
        The task's name.
    kind : str
        "binary", "regression" or "multiclass:K".
    reads : str
        The representation.
    units : tuple of int
        The widths of the hidden layers, maybe none; the output layer comes on top.
    activations : tuple of str
        What follows each hidden layer.
    """

    task: str
    kind: str
    reads: str
    units: tuple[int, ...]
    activations: tuple[str, ...]

    @property
    def name(self) -> str:  # type: ignore[override]  # a field of the other rows
        """`tower/` and the task; the output (batch,) or (batch, K) is called so."""
        return f"tower/{self.task}"

    def width(self, table: Table) -> int:
        return kind_of(self.kind).width

    def shapes(self, table: Table) -> Shapes:
        units = (*self.units, self.width(table))
        return mlp_shapes(self.name, table.widths[self.reads], units)

    def validate(self, table: Table) -> None:
        check_task(self.task, self.kind)
        check_representation(self.name, self.reads, table)
        check_mlp(self.name, self.units, self.activations)

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """Representation (..., batch, in) -> `name`, (..., batch) or (..., batch, K)."""
        layers, cache = mlp_forward(self.name, (*self.activations, "identity"), params,
                                    tensors[self.reads])
        _, y = layers.popitem()
        return layers | {self.name: y if y.shape[-1] > 1 else y[..., 0]}, cache

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Through the tower's layers to the representation it reads."""
        dy = dy if kind_of(self.kind).width > 1 else dy[..., None]
        yield from mlp_gradients(dy, cache, self.reads, unread)


# What rows demand of their wiring ---------------------------------------------------------------

def check_task(name: str, kind: str) -> None:
    """Raise `InputError` unless a task may be called `name` and be of this `kind`."""
    require(isinstance(name, str) and name and name.isprintable() and "/" not in name,
            f"tasks: a name is a non-empty printable text without '/', got {name!r}")
    require(name != "shared", "tasks: the name 'shared' is taken by the shared experts")
    check_task_kind(f"tasks: {name!r}", kind)


def check_task_kind(what: str, text: object) -> None:
    """Raise `InputError` unless a text names a kind of task."""
    name, colon, width = text.partition(":") if isinstance(text, str) else ("", "", "")
    kind = KINDS.get(name, Kind)
    known = name in KINDS and not colon if len(kind.widths) == 1 else (
        width.isdecimal() and len(width) < 8 and width == str(n := int(width)) and n in kind.widths)
    expected = [f"'{name}{':K' * (len(each.widths) > 1)}'" for name, each in KINDS.items()]
    require(known, f"{what} must be {', '.join(expected[:-1])} or {expected[-1]} with K > 1, at "
                   f"most {Multiclass.widths.stop - 1}, got {text!r:.80}")


def check_count(what: str, value: object) -> None:
    """Raise `InputError` unless `value` can be a number of units, experts or words."""
    require(type(value) is int and 0 < value <= LARGEST,
            f"{what} must be a positive integer, at most {LARGEST}, got {value!r:.80}")


def check_representation(name: str, read: str, table: Table) -> None:
    """Raise `InputError` unless `read` is the input or what a fusion made."""
    require(read == "input" or isinstance(table.row[read], Fusion),
            f"{name}: reads {read!r}, which is no representation")


def check_penalty(row: Row) -> None:
    """Raise `InputError` unless the weight of a row's penalty is one."""
    require(isinstance(row.penalty, (int, float)) and 0 <= row.penalty <= float_info.max,
            f"{row.name}: penalty must be a finite number of at least 0, got {row.penalty!r:.80}")


def check_numbers(what: str, values: object, count: int) -> None:
    """Raise `InputError` unless `values` are so many finite numbers."""
    require(isinstance(values, tuple) and len(values) == count
            and all(isinstance(value, (int, float)) and isfinite(value) for value in values),
            f"{what}: {count} finite numbers are needed, got {values!r:.80}")


def check_switches(route: Route) -> None:
    """Raise `InputError` for limits or a start that make no hard concrete distribution."""
    check_numbers(f"{route.name}: limits", route.limits, 3)
    check_numbers(f"{route.name}: start", route.start, 2)
    beta, gamma, zeta = route.limits
    require(beta > 0 > gamma and zeta > 1, f"{route.name}: limits: beta above 0, gamma below 0 "
                                           f"and zeta above 1 are needed, got {route.limits}")
    require(route.start[0] <= route.start[1],
            f"{route.name}: start: the lower end first is needed, got {route.start}")


def check_mlp(name: str, units: Sequence[int], activations: Sequence[str]) -> None:
    """Raise `InputError` for widths or activations that make no MLP."""
    for unit in units:
        check_count(f"{name}: units", unit)
    require(len(units) == len(activations),
            f"{name}: {len(units)} layers need as many activations, got {len(activations)}")
    for activation in activations:
        require(isinstance(activation, str) and activation in ACTIVATIONS,
                f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def check_sources(fusion: Fusion, table: Table) -> None:
    """Sources are expert groups or representations of equal width, the indices distinct experts."""
    require(fusion.sources, f"{fusion.name}: a fusion needs at least one source")
    for source in fusion.sources:
        row = table.row.get(source.name)
        kind = Experts if source.group else Fusion
        require(isinstance(row, kind),
                f"{fusion.name}: {source.name!r} is not of the kind {kind.__name__}")
        chosen, count = source.experts, row.count if isinstance(row, Experts) else 0
        require(chosen is None or source.group and chosen and len(set(chosen)) == len(chosen)
                and all(type(i) is int and 0 <= i < count for i in chosen),
                f"{fusion.name}: {chosen} are no distinct experts of {source.name}")
    widths = {source.name: table.widths[source.name] for source in fusion.sources}
    require(len(set(widths.values())) == 1,
            f"{fusion.name}: a fusion takes experts of equal width, these have {widths}")
