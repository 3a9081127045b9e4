"""The rows that deviations put in the place of the paper's: subclasses with passes of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from npple.core.base import Array, Arrays, Cache, Gradients, Shapes
from npple.core.losses import kind_of
from npple.core.ops import (ACTIVATIONS, dense_backward, dense_forward, mixture_backward,
                            mixture_forward, sigmoid_backward, sigmoid_forward, softmax_backward,
                            softmax_forward)
from npple.core.rows import (Experts, Fusion, Gate, Row, Source, Tower, mlp_backward, mlp_forward,
                             mlp_gradients)
from npple.core.table import Level, Table

Pair: TypeAlias = tuple[Callable[..., tuple[Array, Cache]], Callable[..., Array]]
BATCHNORM_EPSILON = 1e-5  # the default of PyTorch


# Tables with other rows ------------------------------------------------------------------------

def with_rows(table: Table, change: Callable[[Any], Any]) -> Table:
    """The table with `change(row)` in the place of each row."""
    levels = tuple(Level(tuple(map(change, level.groups)),
                         tuple(within(row, change) for row in level.fusions))
                   for level in table.levels)
    return Table(table.inputs, levels, tuple(map(change, table.towers)))


def within(row: Any, change: Callable[[Any], Any]) -> Any:
    """`change(row)`; what borrows its parameters does so whatever it becomes."""
    if not isinstance(row, BorrowedFusion):
        return change(row)
    inner = change(row.row)
    return replace(row, sources=getattr(inner, "sources", ()), row=inner)


def with_sources(fusion: Any, names: Mapping[str, str]) -> Any:
    """The fusion with other groups in the place of some: name -> name."""
    return within(fusion, lambda row: replace(row, sources=tuple(
        replace(source, name=names.get(source.name, source.name)) for source in row.sources)))


def deviant_gate(gate: Gate, **changes: Any) -> DeviantGate:
    """The gate as a `DeviantGate` with these changes."""
    gate = gate if isinstance(gate, DeviantGate) else DeviantGate(**vars(gate))
    return replace(gate, **changes)


# A gate with another way from logits to weights, or with its gradient cut -----------------------

@dataclass(frozen=True)
class DeviantGate(Gate):
    """A gate whose weights are `squash` of its `normalise`d logits.

    What it calls its logits is squashed as it is, or, where they are `raw`, before that is done.
    `columns` are the logits that count, of `outputs` computed. No gradient passes to the groups
    `detached`, to the selector unless `selects`, to the whole gate unless `learns`.
    """

    squash: str = "softmax"
    normalise: str = "identity"
    columns: tuple[int, ...] | None = None
    outputs: int = 0
    detached: tuple[str, ...] = ()
    selects: bool = True
    learns: bool = True
    temperature: float = 1.0
    raw: bool = False
    kept: int = 0
    residual: bool = False
    weighs: bool = True

    def shapes(self, table: Table) -> Shapes:
        shapes = super().shapes(table)
        last = len(self.units) + 1
        for name in (f"{self.parameters}/layer{last}/{kind}" for kind in ("weight", "bias")):
            if self.columns is not None and name in shapes:
                shapes[name] = (*shapes[name][:-1], self.outputs)
        return shapes

    def validate(self, table: Table) -> None:
        """Whatever a deviation makes; its gates are made from gates that were checked."""

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a gate's: the representation, its logits (what is squashed) and weights."""
        layers, mlp = mlp_forward(self.parameters, (*self.activations, "identity"), params,
                                  tensors[self.selector])
        _, z = layers.popitem()
        outputs = z.shape
        z = z if self.columns is None else z[..., list(self.columns)]
        logits, normal = NORMALISE[self.normalise][0](z / self.temperature)
        weights, squash = SQUASH[self.squash][0](logits)
        if self.kept:
            weights = squash = _largest(weights, self.kept)
        parts, counts = self.take(tensors)
        y, mixture = mixture_forward(weights, parts)
        y = y + tensors[self.selector] if self.residual else y
        layers |= {f"{self.parameters}/logits": z if self.raw else logits,
                   f"{self.parameters}/weights": weights}
        return layers | {self.name: y}, (mlp, outputs, normal, squash, mixture, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """As a gate's, without what is cut."""
        mlp, outputs, normal, squash, mixture, counts = cache
        dweights, dparts = mixture_backward(dy, mixture)
        if not self.weighs:
            dparts = [np.broadcast_to(dy[..., None, :, :], part.shape) for part in dparts]
        if self.residual and self.selector not in unread:
            yield self.selector, dy
        yield from ((name, grad) for name, grad in self.give(dparts, counts)
                    if name not in self.detached)
        if not self.learns:
            return
        dlogits = NORMALISE[self.normalise][1](SQUASH[self.squash][1](dweights, squash), normal)
        dlogits = dlogits / self.temperature
        dz = dlogits
        if self.columns is not None:
            dz = np.zeros(outputs, dlogits.dtype)
            dz[..., list(self.columns)] = dlogits
        dselector, grads = mlp_backward(dz, mlp, need_dx=self.selector not in unread)
        yield from grads.items()
        if dselector is not None and self.selects:
            yield self.selector, dselector


@dataclass(frozen=True)
class Textbook(Gate):
    """A gate with the softmax's gradient as most programs have it, w (dw - sum of w dw)."""

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        mlp, weights, mixture, counts = cache
        dweights, dparts = mixture_backward(dy, mixture)
        yield from self.give(dparts, counts)
        dlogits = textbook_softmax_backward(dweights, weights)
        yield from mlp_gradients(dlogits, mlp, self.selector, unread)


def _over_batch(pair: Pair) -> Pair:
    """A pair over the last axis, taken over the batch instead."""
    def forward(z: Array) -> tuple[Array, Cache]:
        y, cache = pair[0](z.swapaxes(-1, -2))
        return y.swapaxes(-1, -2), cache

    def backward(dy: Array, cache: Cache) -> Array:
        return pair[1](dy.swapaxes(-1, -2), cache).swapaxes(-1, -2)

    return forward, backward


def _largest(weights: Array, count: int) -> Array:
    """The largest weights, scaled to sum to one; zeros for the others."""
    least = np.sort(np.asarray(weights).real, axis=-1)[..., -count, None]
    kept = weights * (np.asarray(weights).real >= least)
    largest: Array = kept / kept.sum(axis=-1, keepdims=True)
    return largest


def batchnorm_forward(z: Array) -> tuple[Array, Cache]:
    """y = (z - mean) / sqrt(var + epsilon), mean and variance over the batch, column by column."""
    d = z - z.mean(axis=-2, keepdims=True)
    scale = 1 / np.sqrt((d * d).mean(axis=-2, keepdims=True) + BATCHNORM_EPSILON)
    return d * scale, (d * scale, scale)


def batchnorm_backward(dy: Array, cache: Cache) -> Array:
    """dz = scale (dy - mean(dy) - y mean(dy y))."""
    y, scale = cache
    return scale * (dy - dy.mean(axis=-2, keepdims=True)
                    - y * (dy * y).mean(axis=-2, keepdims=True))


def textbook_softmax_backward(dw: Array, w: Array) -> Array:
    """dz_i = w_i (dw_i - sum_j w_j dw_j) as most programs have it: cancels where a w is near 1."""
    return w * (dw - (w * dw).sum(axis=-1, keepdims=True))


_IDENTITY = ACTIVATIONS["identity"]
_FRESH = (1 + BATCHNORM_EPSILON) ** -0.5  # running mean 0 and variance 1, as at initialisation
NORMALISE = {
    "identity": _IDENTITY,
    "batch": (batchnorm_forward, batchnorm_backward),
    "layer": _over_batch((batchnorm_forward, batchnorm_backward)),
    "fresh": (lambda z: (z * _FRESH, None), lambda dy, _: dy * _FRESH),
}
SQUASH = {
    "softmax": (softmax_forward, softmax_backward),
    "unsummed": (softmax_forward, lambda dw, w: w * dw),
    "textbook": (softmax_forward, textbook_softmax_backward),
    "batch": _over_batch((softmax_forward, softmax_backward)),
    "none": _IDENTITY,
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "mean": (lambda z: (np.full_like(z, 1) / z.shape[-1], None), lambda dy, _: 0 * dy),
}


# A representation that is not made, experts of other groups, a tower that ends in an activation --

@dataclass(frozen=True)
class Stay(Fusion):
    """y = the input: a gate is missing, though its parameters are there (`unused`, with shapes)."""

    name: str
    unused: tuple[tuple[str, tuple[int, ...]], ...]

    sources = ()

    def inputs(self) -> tuple[str, ...]:
        return ("input",)

    def width(self, table: Table) -> int:
        return table.widths["input"]

    def shapes(self, table: Table) -> Shapes:
        return dict(self.unused)

    def validate(self, table: Table) -> None:
        """Nothing to check."""

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        return {self.name: tensors["input"]}, None

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        yield "input", dy


@dataclass(frozen=True)
class PickedExperts(Experts):
    """A group whose experts run with the parameters of `picks`: pairs of a group and an index."""

    picks: tuple[tuple[str, int], ...] = ()

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a group's, on the parameters picked."""
        own = {name: _stacked(name.removeprefix(self.parameters)) for name in params
               if name.startswith(f"{self.parameters}/layer")}
        picked = {name: np.stack([params[owner + suffix].take(i, axis) for owner, i in self.picks],
                                 axis) for name, (suffix, axis) in own.items()}
        made, experts = super().forward(picked, tensors)
        return made, (own, params, experts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """As a group's; each gradient goes to the parameter that was picked."""
        own, params, experts = cache
        for name, grad in super().backward(dy, experts, unread):
            if name not in own:
                yield name, grad
                continue
            suffix, axis = own[name]
            for k, (owner, i) in enumerate(self.picks):
                whole = np.zeros(params[owner + suffix].shape, grad.dtype)
                np.moveaxis(whole, axis, 0)[i] = grad.take(k, axis)
                yield owner + suffix, whole


def _leaky(slope: float) -> Pair:
    """relu with a slope below 0."""
    return (lambda z: (np.where(z.real > 0, z, slope * z), z.real > 0),
            lambda dy, above: np.where(above, dy, slope * dy))


def _stacked(suffix: str) -> tuple[str, int]:
    """The axis of experts in a parameter: before (in, out) of a weight, before (out,) of a bias."""
    return suffix, -3 if suffix.endswith("weight") else -2


# MLPs in another form ---------------------------------------------------------------------------

class _Deviant(Row):
    """What deviant experts and towers have: other layers, read from and to their parameters.

    Every layer but a tower's last is normalised by `norm` before its activation, or after it
    where the name says so. A relu lets `slope` times what is below 0 through. With
    `transposed`, square weights are used transposed; with `forgotten`, backward leaves the
    activations out; the parameters may be those of a `lender`.
    """

    norm: str
    transposed: bool
    forgotten: bool
    lender: str
    slope: float

    def view(self, params: Arrays) -> dict[str, Array]:
        """The parameters under the row's own names, as its layers use them."""
        found = {}
        for name, own in self._names(params).items():
            p = params[own]
            square = name.endswith("weight") and p.shape[-1] == p.shape[-2]
            found[name] = p.swapaxes(-1, -2) if self.transposed and square else p
        return found

    def _names(self, params: Arrays) -> dict[str, str]:
        """The row's own names -> those of the parameters used."""
        prefix = f"{self.parameters}/"
        lender = f"{self.lender or self.parameters}/"
        return {name: lender + name.removeprefix(prefix) for name in params
                if name.startswith(f"{prefix}layer")}

    def run(self, activations: Sequence[str], normalised: int, params: Arrays, x: Array
            ) -> tuple[dict[str, Array], Cache]:
        """As `mlp_forward`, the first `normalised` layers normalised."""
        own, made, caches = self.view(params), {}, []
        for i, activation in enumerate(activations, start=1):
            layer = f"{self.parameters}/layer{i}"
            norm = self.norm if i <= normalised else ""
            x, dense = dense_forward(x, own[f"{layer}/weight"], own.get(f"{layer}/bias"))
            leaky = _leaky(self.slope) if self.slope and activation == "relu" else None
            steps = [NORMALISE[norm.removesuffix(" after")] if norm else _IDENTITY,
                     leaky or ACTIVATIONS[activation]]
            steps = steps[::-1] if norm.endswith(" after") else steps
            kept = []
            for forward, _ in steps:
                x, cache = forward(x)
                kept.append(cache)
            made[layer] = x
            caches.append((layer, dense, steps, kept))
        return made, (caches, self._names(params))

    def back(self, dy: Any, cache: Cache) -> tuple[Array, dict[str, Array]]:
        """As `mlp_backward`, under the names of the parameters used."""
        caches, names = cache
        grads: dict[str, Array] = {}
        for layer, dense, steps, kept in reversed(caches):
            if not self.forgotten:
                for (_, backward), each in zip(reversed(steps), reversed(kept)):
                    dy = backward(dy, each)
            dy, dweight, db = dense_backward(dy, dense, True)
            square = dweight.shape[-1] == dweight.shape[-2]
            grads[names[f"{layer}/weight"]] = (dweight.swapaxes(-1, -2)
                                               if self.transposed and square else dweight)
            if db is not None:
                grads[names[f"{layer}/bias"]] = db
        dx: Array = dy
        return dx, grads


@dataclass(frozen=True)
class DeviantExperts(_Deviant, Experts):
    """A group of experts with other layers, see `norm`, `transposed` and `forgotten`."""

    norm: str = ""
    transposed: bool = False
    forgotten: bool = False
    lender: str = ""
    slope: float = 0.0

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a group's."""
        layers, cache = self.run(self.activations, len(self.units), params,
                                 tensors[self.reads][..., None, :, :])
        _, y = layers.popitem()
        hidden = {self.name + name.removeprefix(self.parameters): h for name, h in layers.items()}
        return hidden | {self.name: y}, cache

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        dx, grads = self.back(dy, cache)
        yield from grads.items()
        yield self.reads, dx.sum(axis=-3)


@dataclass(frozen=True)
class DeviantTower(_Deviant, Tower):
    """A tower with other layers, and an activation `output` on its output."""

    output: str = "identity"
    norm: str = ""
    transposed: bool = False
    forgotten: bool = False
    lender: str = ""
    slope: float = 0.0

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a tower's."""
        layers, cache = self.run((*self.activations, "identity"), len(self.units), params,
                                 tensors[self.reads])
        _, y = layers.popitem()
        y, active = ACTIVATIONS[self.output][0](y if y.shape[-1] > 1 else y[..., 0])
        return layers | {self.name: y}, (cache, active)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        layers, active = cache
        dy = ACTIVATIONS[self.output][1](dy, active)
        dx, grads = self.back(dy if kind_of(self.kind).width > 1 else dy[..., None], layers)
        yield from grads.items()
        yield self.reads, dx


# A fusion with the parameters of another --------------------------------------------------------

@dataclass(frozen=True)
class BorrowedFusion(Fusion):
    """A fusion `row` that runs with the parameters called `lender`; its own are unused."""

    name: str
    sources: tuple[Source, ...]
    row: Any
    lender: str

    def inputs(self) -> tuple[str, ...]:
        inputs: tuple[str, ...] = self.row.inputs()
        return inputs

    def width(self, table: Table) -> int:
        width: int = self.row.width(table)
        return width

    def shapes(self, table: Table) -> Shapes:
        shapes: Shapes = self.row.shapes(table)
        return shapes

    def validate(self, table: Table) -> None:
        """The row was checked."""

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As the row's."""
        prefix = f"{self.row.parameters}/"
        own = {name: params[f"{self.lender}/{name.removeprefix(prefix)}"] if name.startswith(prefix)
               else p for name, p in params.items()}
        made: tuple[dict[str, Array], Cache] = self.row.forward(own, tensors)
        return made

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """As the row's, under the names of the parameters used."""
        prefix = f"{self.row.parameters}/"
        for name, g in self.row.backward(dy, cache, unread):
            yield (f"{self.lender}/{name.removeprefix(prefix)}" if name.startswith(prefix)
                   else name), g
