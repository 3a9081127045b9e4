"""A group of stacked expert MLPs, and the plain MLP that gates and towers are made of.

The parameters of an MLP called `name` are `name/layer1/weight`, `name/layer1/bias`, ...; the
output of its i-th hidden layer is the tensor `name/layeri`. An expert group stacks n equal MLPs:
its weights are (n, in, out), its biases (n, out), its output (n, batch, width).
"""

import numpy as np

from npple.ops import ACTIVATIONS, dense_backward, dense_forward


def mlp_forward(name, activations, params, x):
    """h_i = activation_i(h_{i-1} W_i + b_i), h_0 = x.

    x (..., batch, in) -> the outputs of all layers by name, each (..., batch, units_i), and a cache
    """
    layers, caches = {}, []
    for i, activation in enumerate(activations, start=1):
        layer = f"{name}/layer{i}"
        z, dense = dense_forward(x, params[f"{layer}/weight"], params.get(f"{layer}/bias"))
        x, active = ACTIVATIONS[activation][0](z)
        layers[layer] = x
        caches.append((layer, activation, dense, active))
    return layers, caches


def mlp_backward(dy, caches, need_dx):
    """Layer by layer from the last: through the activation, then the dense layer.

    dy (..., batch, units of the last layer) -> dx (..., batch, in), parameter gradients by name
    """
    grads = {}
    for i, (layer, activation, dense, active) in reversed(list(enumerate(caches))):
        dz = ACTIVATIONS[activation][1](dy, active)
        dy, grads[f"{layer}/weight"], db = dense_backward(dz, dense, need_dx or i > 0)
        if db is not None:
            grads[f"{layer}/bias"] = db
    return dy, grads


def experts_forward(group, params, tensors):
    """E_i = MLP_i(x) for the n experts of a group, all reading one representation x.

    x (..., batch, in) -> the tensor `group.name` (..., n, batch, width) and its hidden layers
    """
    x = tensors[group.reads][..., None, :, :]  # (..., 1, batch, in): the same input for each expert
    layers, cache = mlp_forward(group.parameters, group.activations, params, x)
    _, y = layers.popitem()
    hidden = {group.name + name.removeprefix(group.parameters): h for name, h in layers.items()}
    return hidden | {group.name: y}, cache


def experts_backward(group, dy, cache, unread):
    """dx = sum_i dx_i over the experts of the group; yields (name, gradient)."""
    dx, grads = mlp_backward(dy, cache, need_dx=group.reads not in unread)
    yield from grads.items()
    if dx is not None:
        yield group.reads, dx.sum(axis=-3)


def experts_penalty_forward(group, params):
    """penalty · sum over layers and pairs i < j of |W_i^T W_j|² (Ruder et al. 2017).

    weights W (..., n, in, out) -> (...)
    """
    value, caches = 0, []
    for i in range(1, len(group.units) + 1):
        name = f"{group.parameters}/layer{i}/weight"
        w = params[name]
        gram = w[..., :, None, :, :].swapaxes(-1, -2) @ w[..., None, :, :, :]  # (n, n, out, out)
        gram = gram * ~np.eye(w.shape[-3], dtype=bool)[:, :, None, None]
        value = value + (gram * gram).sum(axis=(-1, -2, -3, -4))
        caches.append((name, w, gram))
    return group.penalty / 2 * value, caches


def experts_penalty_backward(group, caches):
    """dW_i = 2 penalty · sum over j ≠ i of W_j (W_j^T W_i); yields by parameter name."""
    for name, w, gram in caches:
        yield name, 2 * group.penalty * (w[..., :, None, :, :] @ gram).sum(axis=-4)
