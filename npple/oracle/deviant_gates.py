"""Gates of another making: they select on the experts' outputs, or weigh every unit by itself.

Their parameters have other shapes than the paper's, so a candidate has to hand its own over.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from npple.core.base import Array, Arrays, Cache, Gradients, Shapes
from npple.core.ops import (columns, mixture_backward, mixture_forward, softmax_backward,
                            softmax_forward)
from npple.core.rows import Gate, mlp_backward, mlp_forward, mlp_shapes
from npple.core.table import Table


@dataclass(frozen=True)
class ExpertsGate(Gate):
    """A gate whose logits come from what it mixes.

    It selects on the experts' outputs `on` "side by side" or their "mean"; or "each" has a logit
    that one MLP makes of its own output.
    """

    on: str = "side by side"

    def shapes(self, table: Table) -> Shapes:
        count, width = self.count(table), self.width(table)
        wide = count * width if self.on == "side by side" else width
        outputs = 1 if self.on == "each" else count
        return mlp_shapes(self.parameters, wide, (*self.units, outputs), bias=self.bias)

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a gate's."""
        parts, counts = self.take(tensors)
        experts = np.concatenate(parts, axis=-3)  # (..., n, batch, width)
        own = params if self.on != "each" else {  # one MLP for all experts: (..., 1, in, out)
            name: p[..., None, :, :] if name.endswith("weight") else p[..., None, :]
            for name, p in params.items() if name.startswith(f"{self.parameters}/")}
        layers, mlp = mlp_forward(self.parameters, (*self.activations, "identity"), own,
                                  self._selector(experts))
        _, z = layers.popitem()
        logits = z[..., 0].swapaxes(-1, -2) if self.on == "each" else z  # (..., batch, n)
        weights, softmax = softmax_forward(logits)
        y, mixture = mixture_forward(weights, parts)
        layers |= {f"{self.parameters}/logits": logits, f"{self.parameters}/weights": weights}
        return layers | {self.name: y}, (mlp, softmax, mixture, counts)

    def _selector(self, experts: Array) -> Array:
        """Experts (..., n, batch, width) -> what the MLP reads."""
        if self.on == "mean":
            return experts.mean(axis=-3)
        if self.on == "each":
            return experts
        beside = np.moveaxis(experts, -3, -2)  # (..., batch, n, width)
        return beside.reshape(*beside.shape[:-2], -1)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """The experts have gradients through the mixture, and through the weights."""
        mlp, softmax, mixture, counts = cache
        dweights, dparts = mixture_backward(dy, mixture)
        dlogits = softmax_backward(dweights, softmax)
        dz = dlogits.swapaxes(-1, -2)[..., None] if self.on == "each" else dlogits
        dx, grads = mlp_backward(dz, mlp, need_dx=True)
        dselector: Any = dx
        count = dlogits.shape[-1]
        if self.on == "mean":
            dexperts = np.stack([dselector / count] * count, axis=-3)
        elif self.on == "each":  # one MLP for all experts
            dexperts = dselector
            grads = {name: g.sum(axis=-3 if name.endswith("weight") else -2)
                     for name, g in grads.items()}
        else:
            width = dselector.shape[-1] // count
            dexperts = np.moveaxis(dselector.reshape(*dselector.shape[:-1], count, width), -2, -3)
        yield from self.give([part + dexperts[..., at, :, :]
                              for part, at in columns(dparts)], counts)
        yield from grads.items()


@dataclass(frozen=True)
class UnitsGate(Gate):
    """A gate with a weight for every unit of every expert, a softmax over experts each.

    Its last layer has the weights of the first expert's units first.
    """

    def shapes(self, table: Table) -> Shapes:
        units = (*self.units, self.count(table) * self.width(table))
        return mlp_shapes(self.parameters, table.widths[self.selector], units, bias=self.bias)

    def forward(self, params: Arrays, tensors: Arrays) -> tuple[dict[str, Array], Cache]:
        """As a gate's; its logits and weights (..., batch, n · width)."""
        layers, mlp = mlp_forward(self.parameters, (*self.activations, "identity"), params,
                                  tensors[self.selector])
        _, logits = layers.popitem()
        parts, counts = self.take(tensors)
        experts = np.moveaxis(np.concatenate(parts, axis=-3), -3, -1)  # (..., batch, width, n)
        by_unit = logits.reshape(*logits.shape[:-1], experts.shape[-1], -1).swapaxes(-1, -2)
        weights, softmax = softmax_forward(by_unit)
        flat = weights.swapaxes(-1, -2).reshape(logits.shape)
        layers |= {f"{self.parameters}/logits": logits, f"{self.parameters}/weights": flat}
        made = {self.name: (weights * experts).sum(axis=-1)}
        return layers | made, (mlp, softmax, weights, experts, parts, counts)

    def backward(self, dy: Array, cache: Cache, unread: frozenset[str]) -> Gradients:
        """Unit by unit."""
        mlp, softmax, weights, experts, parts, counts = cache
        dexperts = np.moveaxis(dy[..., None] * weights, -1, -3)
        yield from self.give([dexperts[..., at, :, :] for _, at in columns(parts)], counts)
        dlogits = softmax_backward(dy[..., None] * experts, softmax).swapaxes(-1, -2)
        dselector, grads = mlp_backward(dlogits.reshape(*dlogits.shape[:-2], -1), mlp,
                                        need_dx=self.selector not in unread)
        yield from grads.items()
        if dselector is not None:
            yield self.selector, dselector
