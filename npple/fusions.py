"""The ways to make one representation of the next level from the outputs of expert groups.

Each kind has a forward, which returns the tensors it makes by name and a cache, and a backward,
which takes the gradient `dy` of the representation and yields (name, gradient) for each tensor
read and each parameter. A name may come more than once: gradients add up.
"""

import numpy as np

from npple.experts import mlp_backward, mlp_forward
from npple.ops import mixture_backward, mixture_forward, softmax_backward, softmax_forward


def gate_forward(gate, params, tensors):
    """y = sum_i w_i E_i, w = softmax(MLP(selector)) (PLE paper, sections 4.1 and 4.2).

    selector (..., batch, in), experts (..., n, batch, width) -> `gate.name` (..., batch, width),
    `gate.name/gate/logits` and `/weights` (..., batch, n): in the order of the gate's sources
    """
    activations = (*gate.activations, "identity")
    layers, mlp = mlp_forward(gate.parameters, activations, params, tensors[gate.selector])
    _, logits = layers.popitem()
    weights, softmax = softmax_forward(logits)
    parts, caches, start = [], [], 0
    for source in gate.sources:
        experts = tensors[source.name][..., source.index, :, :]
        stop = start + experts.shape[-3]
        part, cache = mixture_forward(weights[..., start:stop], experts)
        parts.append(part)
        caches.append((source, tensors[source.name].shape[-3], cache))
        start = stop
    layers |= {f"{gate.parameters}/logits": logits, f"{gate.parameters}/weights": weights}
    return layers | {gate.name: sum(parts[1:], parts[0])}, (mlp, softmax, caches)


def gate_backward(gate, dy, cache, unread):
    """Through the mixtures to experts and weights, from the weights to the selector."""
    mlp, softmax, mixtures = cache
    dweights = []
    for source, count, mixture in mixtures:
        dw, dexperts = mixture_backward(dy, mixture)
        dweights.append(dw)
        yield source.name, _spread(dexperts, source, count)
    dlogits = softmax_backward(np.concatenate(dweights, axis=-1), softmax)
    dselector, grads = mlp_backward(dlogits, mlp, need_dx=gate.selector not in unread)
    yield from grads.items()
    if dselector is not None:
        yield gate.selector, dselector


def pass_forward(fusion, params, tensors):
    """y = E: experts (..., 1, batch, width) -> `fusion.name` (..., batch, width)."""
    source, = fusion.sources
    experts = tensors[source.name]
    return {fusion.name: experts[..., source.index, :, :][..., 0, :, :]}, experts.shape[-3]


def pass_backward(fusion, dy, count, unread):
    """dE = dy."""
    source, = fusion.sources
    yield source.name, _spread(dy[..., None, :, :], source, count)


def _spread(dexperts, source, count):
    """The gradient of a whole group from that of the experts a source took: 0 for the others."""
    if source.experts is None:
        return dexperts
    whole = np.zeros((*dexperts.shape[:-3], count, *dexperts.shape[-2:]), dexperts.dtype)
    whole[..., source.index, :, :] = dexperts
    return whole
