"""As much of PyTorch as the adapters ask of it, in NumPy: tensors with a graph, modules with hooks.

Where PyTorch refuses, this refuses, too: a tensor in a graph is no array, and one that an operation
made has no gradient unless it was told to keep it.
"""

import numpy as np


class Tensor:
    """An array, and what it was computed from: pairs of a tensor and dy -> its gradient."""

    def __init__(self, array, requires_grad=False, parents=()):
        self.array, self.requires_grad, self.grad = np.asarray(array), requires_grad, None
        self.parents = [(of, back) for of, back in parents if of.requires_grad]
        self.requires_grad = requires_grad or bool(self.parents)
        self.kept = requires_grad and not self.parents

    dtype = property(lambda self: f"torch.{self.array.dtype.name}")
    shape = property(lambda self: self.array.shape)
    data = property(lambda self: Tensor(self.array))

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("in a graph, detach it first")
        return self.array

    def detach(self):
        return Tensor(self.array)

    def cpu(self):
        return self

    def clone(self):
        return Tensor(self.array.copy(), parents=[(self, lambda dy: dy)])

    def long(self):
        return Tensor(self.array.astype(np.int64))

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def new_tensor(self, array):
        return Tensor(np.array(array, self.array.dtype))

    def requires_grad_(self):
        self.requires_grad = self.kept = True
        return self

    def retain_grad(self):
        if not self.requires_grad:
            raise RuntimeError("not in a graph")
        self.kept = True

    def copy_(self, other):
        self.array[...] = other.array

    def fill_(self, value):
        self.array[...] = value

    def sum(self):
        return Tensor(self.array.sum(), parents=[
            (self, lambda dy: np.full(self.shape, dy, self.array.dtype))])

    def __mul__(self, other):
        return Tensor(self.array * other.array, parents=[
            (self, lambda dy: dy * other.array), (other, lambda dy: dy * self.array)])

    def __add__(self, other):
        return Tensor(self.array + other.array, parents=[(self, lambda dy: dy),
                                                         (other, lambda dy: dy)])

    def __radd__(self, zero):
        return self + Tensor(zero)

    def backward(self, retain_graph=False):
        if not retain_graph:
            raise RuntimeError("the graph is needed again")
        order, seen = [], set()

        def visit(tensor):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                for of, _ in tensor.parents:
                    visit(of)
                order.append(tensor)

        visit(self)
        grads = {id(self): np.ones(self.shape)}
        for tensor in reversed(order):
            dy = grads[id(tensor)]
            if tensor.kept:
                tensor.grad = Tensor(dy if tensor.grad is None else tensor.grad.array + dy)
            for of, back in tensor.parents:
                grads[id(of)] = grads.get(id(of), 0) + back(dy)


def relu(x):
    return Tensor(np.maximum(x.array, 0), parents=[(x, lambda dy: dy * (x.array > 0))])


def softmax(x):
    e = np.exp(x.array - x.array.max(axis=1, keepdims=True))
    w = e / e.sum(axis=1, keepdims=True)
    return Tensor(w, parents=[(x, lambda dy: w * (dy - (w * dy).sum(axis=1, keepdims=True)))])


def mixture(weights, experts):
    """weights (batch, n), experts n times (batch, width) -> (batch, width)."""
    made = sum(weights.array[:, i:i + 1] * e.array for i, e in enumerate(experts))
    back = [(weights, lambda dy: np.stack([(dy * e.array).sum(axis=1) for e in experts], axis=1))]
    return Tensor(made, parents=back + [
        (e, lambda dy, i=i: dy * weights.array[:, i:i + 1]) for i, e in enumerate(experts)])


class Module:
    """Parts are attributes, or lists of them."""

    training = True

    def parts(self):
        for name, value in vars(self).items():
            many = enumerate(value) if isinstance(value, list) else ()
            yield from ((f"{name}.{i}", each) for i, each in many)
            yield name, value

    def named_modules(self, path=""):
        yield path, self
        for name, part in self.parts():
            if isinstance(part, Module):
                yield from part.named_modules(f"{path}.{name}" if path else name)

    def named_parameters(self):
        for path, part in self.named_modules():
            for name, value in part.parts():
                if isinstance(value, Tensor) and not name.startswith("running"):
                    yield f"{path}.{name}" if path else name, value

    def named_buffers(self):
        for path, part in self.named_modules():
            for name, value in part.parts():
                if isinstance(value, Tensor) and name.startswith("running"):
                    yield f"{path}.{name}", value

    def get_submodule(self, path):
        return dict(self.named_modules())[path]

    def register_forward_hook(self, hook):
        self.hook = hook

    def train(self, mode=True):
        for _, part in self.named_modules():
            part.training = mode
        return self

    def eval(self):
        return self.train(False)

    def __call__(self, *inputs):
        made = self.forward(*inputs)
        if hasattr(self, "hook"):
            self.hook(self, inputs, made)
        return made


def parameter(array):
    return Tensor(np.array(array), requires_grad=True)


class Linear(Module):
    def __init__(self, inputs, outputs, rng, bias=True, dtype=np.float64):
        self.weight = parameter(rng.normal(size=(outputs, inputs)).astype(dtype))
        self.bias = parameter(rng.normal(size=outputs).astype(dtype)) if bias else None
        self.out_features = outputs

    def forward(self, x):
        w, b = self.weight, self.bias
        back = [(x, lambda dy: dy @ w.array), (w, lambda dy: dy.T @ x.array)]
        y = x.array @ w.array.T
        if b is None:
            return Tensor(y, parents=back)
        return Tensor(y + b.array, parents=[*back, (b, lambda dy: dy.sum(axis=0))])


class BatchNorm(Module):
    """At inference alone."""

    eps = 1e-5
    affine = track_running_stats = True

    def __init__(self, width, rng):
        self.weight, self.bias = (parameter(rng.normal(size=width)) for _ in range(2))
        self.running_mean, self.running_var = (Tensor(rng.uniform(1, 2, width)) for _ in range(2))
        self.num_features = width

    def forward(self, x):
        scale = 1 / np.sqrt(self.running_var.array + self.eps)
        hat = (x.array - self.running_mean.array) * scale
        w, b = self.weight, self.bias
        return Tensor(hat * w.array + b.array, parents=[
            (x, lambda dy: dy * w.array * scale), (w, lambda dy: (dy * hat).sum(axis=0)),
            (b, lambda dy: dy.sum(axis=0))])


class Dropout(Module):
    def forward(self, x):
        return x


class Expert(Module):
    """A layer, perhaps normalised before or after its activation."""

    def __init__(self, inputs, width, rng, norm="", dtype=np.float64):
        self.layer = Linear(inputs, width, rng, dtype=dtype)
        self.drop = Dropout()
        self.place = norm
        if norm:
            self.norm = BatchNorm(width, rng)

    def forward(self, x):
        x = self.layer(x)
        x = self.norm(x) if self.place == "before" else x
        x = self.drop(relu(x))
        return self.norm(x) if self.place == "after" else x


class MMoE(Module):
    """Two experts, two tasks; returns a pair of outputs (batch, 1)."""

    def __init__(self, seed=0, norm="", dtype=np.float64):
        rng = np.random.default_rng(seed)
        self.experts = [Expert(3, 4, rng, norm, dtype) for _ in range(2)]
        self.gates = [Linear(3, 2, rng, bias=False, dtype=dtype) for _ in range(2)]
        self.towers = [Linear(4, 1, rng, dtype=dtype) for _ in range(2)]

    def forward(self, x):
        made = [expert(x) for expert in self.experts]
        return tuple(tower(mixture(softmax(gate(x)), made))
                     for gate, tower in zip(self.gates, self.towers, strict=True))
