"""PLE, CGC and MMoE in NumPy, forward and backward by hand, and five mistakes in them."""

import numpy as np
import pytest

from peers.written import MISTAKES, TASKS, WRITTEN, Ops, forward, is_found, is_named, passes

TITLE = "NumPy"
PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


class Program:
    """Tensors by what they are, where they stand, and whose they are; weights are (in, out)."""

    def __init__(self, architecture, mistake):
        _, self.levels, self.counts = WRITTEN[architecture]
        self.mistake = mistake

    def gates(self, level):
        """(stream, the experts that it mixes), for each gate of a level."""
        for stream in (*TASKS, "shared") if level < self.levels else TASKS:
            yield stream, [("expert", level, t, k) for t, count in self.counts.items()
                           if stream in (t, "shared") or t == "shared" for k in range(count)]

    def experts(self, level):
        for stream, count in self.counts.items():
            for k in range(count):
                yield ("expert", level, stream, k), f"level{level}_{stream}_experts_layer1_{k}"

    def selects(self, level, stream):
        return "read", 1 if self.mistake == "selector" else level, stream

    @property
    def axis(self):
        return 0 if self.mistake == "softmax" else 1

    def averages(self, stream):
        return self.mistake == stream == "shared"

    def forward(self, w, x):
        t = {("read", 1, stream): x for stream in (*TASKS, "shared")}
        for level in range(1, self.levels + 1):
            for key, name in self.experts(level):
                z = dense(w, name, t["read", level, key[2]])
                t[key] = z if self.mistake == "linear" else np.maximum(z, 0)
            for stream, mixed in self.gates(level):
                if self.averages(stream):
                    g = np.full((len(x), len(mixed)), 1 / len(mixed), x.dtype)
                else:
                    z = dense(w, f"level{level}_{stream}_gate_layer1",
                              t[self.selects(level, stream)])
                    g = np.exp(z - z.max(self.axis, keepdims=True))
                    g /= g.sum(self.axis, keepdims=True)
                t["gate", level, stream] = g
                t["read", level + 1, stream] = sum(g[:, [i]] * t[key]
                                                   for i, key in enumerate(mixed))
        for task in TASKS:
            t["hidden", task] = np.maximum(
                dense(w, f"tower_{task}_layer1", t["read", self.levels + 1, task]), 0)
            t["tower", task] = dense(w, f"tower_{task}_layer2", t["hidden", task])[:, 0]
        return t

    def backward(self, w, x, starts):
        t, grads = self.forward(w, x), {}
        d = {key: np.zeros_like(value) for key, value in t.items()}
        for task in TASKS:
            dh = back(w, grads, f"tower_{task}_layer2", t["hidden", task],
                      starts[f"tower/{task}"][:, None])
            read = "read", self.levels + 1, task
            d[read] += back(w, grads, f"tower_{task}_layer1", t[read],
                            dh * (t["hidden", task] > 0))
        for level in range(self.levels, 0, -1):
            for stream, mixed in self.gates(level):
                dy, g = d["read", level + 1, stream], t["gate", level, stream]
                for i, key in enumerate(mixed):
                    d[key] += g[:, [i]] * dy
                if self.averages(stream) or self.mistake == "stopped":
                    continue
                dg = np.stack([(dy * t[key]).sum(1) for key in mixed], 1)
                read = self.selects(level, stream)
                d[read] += back(w, grads, f"level{level}_{stream}_gate_layer1", t[read],
                                g * (dg - (g * dg).sum(self.axis, keepdims=True)))
            for key, name in self.experts(level):
                read = "read", level, key[2]
                dz = d[key] if self.mistake == "linear" else d[key] * (t[key] > 0)
                d[read] += back(w, grads, name, t[read], dz)
        return {name: grads.get(name) for name in w}


def dense(w, name, x):
    return x @ w[f"{name}.weight"] + w.get(f"{name}.bias", 0)


def back(w, grads, name, x, dz):
    """The gradient by x; those of the layer's parameters are put into `grads`."""
    grads |= {f"{name}.weight": x.T @ dz, f"{name}.bias": dz.sum(0)}
    return dz @ w[f"{name}.weight"].T


def program(dtype, architecture="ple", mistake=""):
    written, weights = Program(architecture, mistake), {}

    def noted(name, inputs, units, bias=True):
        weights[f"{name}.weight"] = np.zeros((inputs, units), dtype)
        if bias:
            weights[f"{name}.bias"] = np.zeros(units, dtype)
        return lambda z: np.zeros((1, units))

    forward(Ops(noted, np.abs, lambda z, axis: z, np.copy), architecture, np.zeros((1, 5)), mistake)

    def run(w, x):
        return {f"tower/{task}": written.forward(w, x)["tower", task] for task in TASKS}

    return {"weights": weights, "run": run, "gradients": written.backward}


@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype):
    passes(TITLE, program(dtype, architecture), architecture, dtype)


@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(mistake, dtype):
    is_named(TITLE, program(dtype, mistake=mistake), mistake)


@pytest.mark.parametrize("architecture", WRITTEN)
def test_its_mapping_is_found_under_any_names(architecture):
    is_found(TITLE, program("float64", architecture), architecture)
