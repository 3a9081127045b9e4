"""The operations that deviations put in the place of the paper's: rows with a pair of their own.

They are registered beside the network's own rows, so that its one forward and backward run them.
"""

from dataclasses import dataclass, replace

import numpy as np

from npple.experts import experts_backward, experts_forward, mlp_backward, mlp_forward
from npple.network import OPERATIONS, tower_backward, tower_forward
from npple.ops import (ACTIVATIONS, mixture_backward, mixture_forward, sigmoid_backward,
                       sigmoid_forward, softmax_backward, softmax_forward)
from npple.routing import Experts, Fusion, Gate, Level, Table, Tower

BATCHNORM_EPSILON = 1e-5  # the default of PyTorch


# Tables with other rows ------------------------------------------------------------------------

def with_rows(table, change):
    """The table with `change(row)` in the place of each row."""
    levels = tuple(Level(tuple(map(change, level.groups)), tuple(map(change, level.fusions)))
                   for level in table.levels)
    return Table(table.inputs, levels, tuple(map(change, table.towers)))


def deviant_gate(gate, **changes):
    """The gate as a `DeviantGate` with these changes."""
    gate = gate if isinstance(gate, DeviantGate) else DeviantGate(**vars(gate))
    return replace(gate, **changes)


# A gate with another way from logits to weights, or with its gradient cut -----------------------

@dataclass(frozen=True)
class DeviantGate(Gate):
    """A gate whose weights are `squash` of its `normalise`d logits.

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

    def shapes(self, table):
        shapes = super().shapes(table)
        last = len(self.units) + 1
        for name in (f"{self.parameters}/layer{last}/{kind}" for kind in ("weight", "bias")):
            if self.columns is not None and name in shapes:
                shapes[name] = (*shapes[name][:-1], self.outputs)
        return shapes

    def validate(self, table):
        """Whatever a deviation makes; its gates are made from gates that were checked."""


def deviant_gate_forward(gate, params, tensors):
    """As `gate_forward`: the representation, its logits (what is squashed) and weights."""
    activations = (*gate.activations, "identity")
    layers, mlp = mlp_forward(gate.parameters, activations, params, tensors[gate.selector])
    _, z = layers.popitem()
    outputs = z.shape
    z = z if gate.columns is None else z[..., list(gate.columns)]
    logits, normal = NORMALISE[gate.normalise][0](z)
    weights, squash = SQUASH[gate.squash][0](logits)
    taken = [tensors[source.name][..., source.index, :, :] for source in gate.sources]
    y, mixture = mixture_forward(weights, np.concatenate(taken, axis=-3))
    groups = [(source, tensors[source.name], part.shape[-3])
              for source, part in zip(gate.sources, taken)]
    layers |= {f"{gate.parameters}/logits": logits, f"{gate.parameters}/weights": weights}
    return layers | {gate.name: y}, (mlp, outputs, normal, squash, mixture, groups)


def deviant_gate_backward(gate, dy, cache, unread):
    """As `gate_backward`, without what is cut."""
    mlp, outputs, normal, squash, mixture, groups = cache
    dweights, dexperts = mixture_backward(dy, mixture)
    start = 0
    for source, tensor, count in groups:
        if source.name not in gate.detached:
            whole = np.zeros_like(tensor)
            whole[..., source.index, :, :] = dexperts[..., start:start + count, :, :]
            yield source.name, whole
        start += count
    if not gate.learns:
        return
    dlogits = NORMALISE[gate.normalise][1](SQUASH[gate.squash][1](dweights, squash), normal)
    dz = dlogits
    if gate.columns is not None:
        dz = np.zeros(outputs, dlogits.dtype)
        dz[..., list(gate.columns)] = dlogits
    dselector, grads = mlp_backward(dz, mlp, need_dx=gate.selector not in unread)
    yield from grads.items()
    if dselector is not None and gate.selects:
        yield gate.selector, dselector


def _over_batch(pair):
    """A pair over the last axis, taken over the batch instead."""
    def forward(z):
        y, cache = pair[0](z.swapaxes(-1, -2))
        return y.swapaxes(-1, -2), cache

    def backward(dy, cache):
        return pair[1](dy.swapaxes(-1, -2), cache).swapaxes(-1, -2)

    return forward, backward


def batchnorm_forward(z):
    """y = (z - mean) / sqrt(var + epsilon), mean and variance over the batch, column by column."""
    d = z - z.mean(axis=-2, keepdims=True)
    scale = 1 / np.sqrt((d * d).mean(axis=-2, keepdims=True) + BATCHNORM_EPSILON)
    return d * scale, (d * scale, scale)


def batchnorm_backward(dy, cache):
    """dz = scale (dy - mean(dy) - y mean(dy y))."""
    y, scale = cache
    return scale * (dy - dy.mean(axis=-2, keepdims=True)
                    - y * (dy * y).mean(axis=-2, keepdims=True))


def textbook_softmax_backward(dw, w):
    """dz_i = w_i (dw_i - sum_j w_j dw_j) as most programs have it: cancels where a w is near 1."""
    return w * (dw - (w * dw).sum(axis=-1, keepdims=True))


_IDENTITY = ACTIVATIONS["identity"]
_FRESH = (1 + BATCHNORM_EPSILON) ** -0.5  # running mean 0 and variance 1, as at initialisation
NORMALISE = {
    "identity": _IDENTITY,
    "batch": (batchnorm_forward, batchnorm_backward),
    "fresh": (lambda z: (z * _FRESH, None), lambda dy, _: dy * _FRESH),
}
SQUASH = {
    "softmax": (softmax_forward, softmax_backward),
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

    def inputs(self):
        return ("input",)

    def width(self, table):
        return table.widths["input"]

    def shapes(self, table):
        return dict(self.unused)

    def validate(self, table):
        """Nothing to check."""


def stay_forward(stay, params, tensors):
    return {stay.name: tensors["input"]}, None


def stay_backward(stay, dy, cache, unread):
    yield "input", dy


@dataclass(frozen=True)
class PickedExperts(Experts):
    """A group whose experts run with the parameters of `picks`: pairs of a group and an index."""

    picks: tuple[tuple[str, int], ...] = ()


def _stacked(name, suffix):
    """The axis of experts in a parameter: before (in, out) of a weight, before (out,) of a bias."""
    return name, suffix, -3 if suffix.endswith("weight") else -2


def picked_forward(group, params, tensors):
    """As `experts_forward`, on the parameters picked."""
    own = [_stacked(name, name.removeprefix(group.parameters)) for name in params
           if name.startswith(f"{group.parameters}/layer")]
    picked = {name: np.stack([params[owner + suffix].take(i, axis) for owner, i in group.picks],
                             axis) for name, suffix, axis in own}
    made, cache = experts_forward(group, picked, tensors)
    return made, (own, params, cache)


def picked_backward(group, dy, cache, unread):
    """As `experts_backward`; each gradient goes to the parameter that was picked."""
    own, params, cache = cache
    places = {name: (suffix, axis) for name, suffix, axis in own}
    for name, grad in experts_backward(group, dy, cache, unread):
        if name not in places:
            yield name, grad
            continue
        suffix, axis = places[name]
        for k, (owner, i) in enumerate(group.picks):
            whole = np.zeros(params[owner + suffix].shape, grad.dtype)
            np.moveaxis(whole, axis, 0)[i] = grad.take(k, axis)
            yield owner + suffix, whole


@dataclass(frozen=True)
class DeviantTower(Tower):
    """A tower with an activation `output` on its output."""

    output: str = "identity"


def deviant_tower_forward(tower, params, tensors):
    made, cache = tower_forward(tower, params, tensors)
    y, active = ACTIVATIONS[tower.output][0](made[tower.name])
    return made | {tower.name: y}, (cache, active)


def deviant_tower_backward(tower, dy, cache, unread):
    dz = ACTIVATIONS[tower.output][1](dy, cache[1])
    yield from tower_backward(tower, dz, cache[0], unread)


OPERATIONS |= {
    DeviantGate: (deviant_gate_forward, deviant_gate_backward),
    Stay: (stay_forward, stay_backward),
    PickedExperts: (picked_forward, picked_backward),
    DeviantTower: (deviant_tower_forward, deviant_tower_backward),
}
