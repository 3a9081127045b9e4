"""The ways to make one representation of the next level from the outputs of expert groups.

Each kind has a forward, which returns the tensors it makes by name and a cache, and a backward,
which takes the gradient `dy` of the representation and yields (name, gradient) for each tensor
read and each parameter. A name may come more than once: gradients add up.
"""

import numpy as np

from npple.experts import mlp_backward, mlp_forward
from npple.ops import (dense_backward, dense_forward, expected_l0_backward, expected_l0_forward,
                       hard_concrete_backward, hard_concrete_forward, mixture_backward,
                       mixture_forward, side_by_side, softmax_backward, softmax_forward,
                       stitch_backward, stitch_forward)


def gate_forward(gate, params, tensors):
    """y = sum_i w_i E_i, w = softmax(MLP(selector)) (PLE paper, sections 4.1 and 4.2).

    selector (..., batch, in), experts (..., n, batch, width) -> `gate.name` (..., batch, width),
    `gate.name/gate/logits` and `/weights` (..., batch, n): in the order of the gate's sources
    """
    activations = (*gate.activations, "identity")
    layers, mlp = mlp_forward(gate.parameters, activations, params, tensors[gate.selector])
    _, logits = layers.popitem()
    weights, softmax = softmax_forward(logits)
    parts, caches = [], []
    for source, experts, columns in _taken(gate, tensors):
        part, cache = mixture_forward(weights[..., columns], experts)
        parts.append(part)
        caches.append((source, tensors[source.name].shape, cache))
    layers |= {f"{gate.parameters}/logits": logits, f"{gate.parameters}/weights": weights}
    return layers | {gate.name: sum(parts[1:], parts[0])}, (mlp, softmax, caches)


def gate_backward(gate, dy, cache, unread):
    """Through the mixtures to experts and weights, from the weights to the selector."""
    mlp, softmax, mixtures = cache
    dweights = []
    for source, shape, mixture in mixtures:
        dw, dexperts = mixture_backward(dy, mixture)
        dweights.append(dw)
        yield source.name, _given_back(dexperts, source, shape)
    dlogits = softmax_backward(np.concatenate(dweights, axis=-1), softmax)
    dselector, grads = mlp_backward(dlogits, mlp, need_dx=gate.selector not in unread)
    yield from grads.items()
    if dselector is not None:
        yield gate.selector, dselector


def pass_forward(fusion, params, tensors):
    """y = E: experts (..., 1, batch, width) -> `fusion.name` (..., batch, width)."""
    (source, experts, _), = _taken(fusion, tensors)
    return {fusion.name: experts[..., 0, :, :]}, tensors[source.name].shape


def pass_backward(fusion, dy, shape, unread):
    """dE = dy."""
    source, = fusion.sources
    yield source.name, _given_back(dy[..., None, :, :], source, shape)


def concat_forward(fusion, params, tensors):
    """y = [E_1, ..., E_n] (PLE paper, figure 1: customized and asymmetric sharing).

    experts (..., n, batch, width) -> `fusion.name` (..., batch, n · width)
    """
    taken = list(_taken(fusion, tensors))
    y = side_by_side([experts[..., i, :, :] for _, experts, _ in taken
                      for i in range(experts.shape[-3])])
    return {fusion.name: y}, [(source, tensors[source.name].shape, columns)
                              for source, _, columns in taken]


def concat_backward(fusion, dy, taken, unread):
    """Each expert's own columns of dy."""
    for source, shape, columns in taken:
        width = shape[-1]
        parts = [dy[..., i * width:(i + 1) * width] for i in range(columns.start, columns.stop)]
        yield source.name, _given_back(np.stack(parts, axis=-3), source, shape)


def stitch_fusion_forward(stitch, params, tensors):
    """y = [sum_i alpha_1i E_i, ..., sum_i alpha_pi E_i], alpha learned (Misra et al. 2016).

    experts (..., n, batch, width), alpha (parts, n) -> `stitch.name` (..., batch, parts · width)
    """
    alpha, parts, caches = params[f"{stitch.parameters}/weight"], [], []
    for source, experts, columns in _taken(stitch, tensors):
        part, cache = stitch_forward(alpha[..., columns], experts)
        parts.append(part)
        caches.append((source, tensors[source.name].shape, cache))
    y = sum(parts[1:], parts[0])  # (..., parts, batch, width)
    return {stitch.name: side_by_side([y[..., p, :, :] for p in range(y.shape[-3])])}, caches


def stitch_fusion_backward(stitch, dy, caches, unread):
    """Each part's own columns of dy, then back through the mixture."""
    dparts = np.stack(np.split(dy, stitch.parts, axis=-1), axis=-3)
    dalpha = []
    for source, shape, cache in caches:
        da, dexperts = stitch_backward(dparts, cache)
        dalpha.append(da)
        yield source.name, _given_back(dexperts, source, shape)
    yield f"{stitch.parameters}/weight", np.concatenate(dalpha, axis=-1)


def route_forward(route, params, tensors):
    """y = sum_i z_i E_i W_i, z hard concrete (SNR, Ma et al. 2019); W_i = 1 unless `transform`.

    experts (..., n, batch, width), W (n, width, width) -> `route.name` (..., batch, width), and
    the routing variables `route.name/route/z` (..., n)
    """
    z, concrete = hard_concrete_forward(params[f"{route.parameters}/log_alpha"],
                                        tensors.get(f"{route.parameters}/noise"))
    parts, caches = [], []
    for source, experts, columns in _taken(route, tensors):
        dense = None
        if route.transform:
            weight = params[f"{route.parameters}/weight"][..., columns, :, :]
            experts, dense = dense_forward(experts, weight)
        part, cache = stitch_forward(z[..., None, columns], experts)
        parts.append(part)
        caches.append((source, tensors[source.name].shape, dense, cache))
    y = sum(parts[1:], parts[0])[..., 0, :, :]
    return {f"{route.parameters}/z": z, route.name: y}, (concrete, caches)


def route_backward(route, dy, cache, unread):
    """Through the mixture to the experts, their transforms and z, from z to log alpha."""
    concrete, caches = cache
    dz, dweights = [], []
    for source, shape, dense, mixture in caches:
        dz_part, dexperts = stitch_backward(dy[..., None, :, :], mixture)
        dz.append(dz_part[..., 0, :])
        if route.transform:
            dexperts, dweight, _ = dense_backward(dexperts, dense)
            dweights.append(dweight)
        yield source.name, _given_back(dexperts, source, shape)
    if route.transform:
        yield f"{route.parameters}/weight", np.concatenate(dweights, axis=-3)
    dz = np.concatenate(dz, axis=-1)
    yield f"{route.parameters}/log_alpha", hard_concrete_backward(dz, concrete)


def route_penalty_forward(route, params):
    """The expected number of open connections, times `route.penalty`."""
    value, cache = expected_l0_forward(params[f"{route.parameters}/log_alpha"])
    return route.penalty * value, cache


def route_penalty_backward(route, cache):
    """Yields the gradient of `route_penalty_forward`, by parameter name."""
    yield f"{route.parameters}/log_alpha", route.penalty * expected_l0_backward(cache)


def _taken(fusion, tensors):
    """For each source: the experts taken (..., n, batch, width) and their columns of the fusion."""
    start = 0
    for source in fusion.sources:
        experts = tensors[source.name]
        experts = experts[..., source.index, :, :] if source.group else experts[..., None, :, :]
        stop = start + experts.shape[-3]
        yield source, experts, slice(start, stop)
        start = stop


def _given_back(dexperts, source, shape):
    """The gradient of a source's whole tensor from that of the experts taken: 0 for the others."""
    if not source.group:
        return dexperts[..., 0, :, :]
    if source.experts is None:
        return dexperts
    whole = np.zeros((*dexperts.shape[:-3], *shape[-3:]), dexperts.dtype)
    whole[..., source.index, :, :] = dexperts
    return whole
