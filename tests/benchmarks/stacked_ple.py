"""PLE in PyTorch as fast as it gets: all experts that read one representation are one layer."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class StackedPLE(nn.Module):
    """PLE with experts of one layer, linear gates and towers of one hidden layer.

    Parameters
    ----------
    table : npple.routing.Table
    params : dict of ndarray
        npple's parameters.
    wide : bool
        Whether the experts' outputs are (batch, n, width), from one linear layer, and the mixture
        is a product and a sum; otherwise (n, batch, width), from a batched product, and an einsum.
    joined : bool
        Whether a wide mixture copies the experts it reads together first. Eager, that costs time.
        Compiled, it is needed: without it torch 2.13.0's compiler gets gradients wrong, those of
        the task experts of the middle one of three levels (with it, still some at 5 tasks).
    """

    def __init__(self, table, params, wide, joined=False):
        super().__init__()
        self.wide, self.joined, self.tasks = wide, joined, list(table.tasks)
        self.streams = [*self.tasks, "shared"]
        self.table = None
        if table.embeddings:
            self.table = parameter(np.concatenate(
                [params[f"embedding/{name}"] for name in table.embeddings]))
        self.levels = nn.ModuleList()
        for i in range(1, len(table.levels) + 1):
            groups = [self.streams] if i == 1 else [[stream] for stream in self.streams]
            self.levels.append(nn.ModuleList(
                Layer(f"level{i}", group, params, wide) for group in groups))
        self.towers = nn.ModuleList(nn.ParameterList(
            parameter(params[f"tower/{task}/{name}"])
            for name in ("layer1/bias", "layer1/weight", "layer2/bias", "layer2/weight"))
            for task in self.tasks)

    def forward(self, x):
        numeric, codes = x
        parts = [] if numeric is None else [numeric]
        if codes is not None:
            parts.append(F.embedding(codes, self.table).flatten(1))
        reads = dict.fromkeys(self.streams, parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        for layers in self.levels:
            experts, logits = {}, {}
            for layer in layers:
                made, scores = layer(reads[layer.group[0]])
                experts |= made
                logits |= scores
            reads = {name: self.mix(z.softmax(1), [experts[source] for source in (
                self.streams if name == "shared" else (name, "shared"))])
                for name, z in logits.items()}
        return {task: self.tower(tower, reads[task])
                for task, tower in zip(self.tasks, self.towers)}

    def mix(self, weights, experts):
        if not self.wide:
            return torch.einsum("bn,nbw->bw", weights, torch.cat(experts))
        if self.joined:
            experts = [torch.cat(experts, 1)]
        parts = weights.split([each.shape[1] for each in experts], 1)
        return sum((part.unsqueeze(-1) * each).sum(1) for part, each in zip(parts, experts))

    @staticmethod
    def tower(parameters, x):
        bias1, weight1, bias2, weight2 = parameters
        return torch.addmm(bias2, torch.addmm(bias1, x, weight1).relu(), weight2)[:, 0]


class Layer(nn.Module):
    """The experts and gates of a level that read the same representation."""

    def __init__(self, level, group, params, wide):
        super().__init__()
        self.group, self.wide = group, wide
        weights = [params[f"{level}/{stream}/experts/layer1/weight"] for stream in group]
        self.counts = [len(weight) for weight in weights]
        weight = np.concatenate(weights)  # (n, in, width)
        bias = np.concatenate([params[f"{level}/{stream}/experts/layer1/bias"] for stream in group])
        if wide:
            self.weight = parameter(weight.swapaxes(1, 2).reshape(-1, weight.shape[1]))
            self.bias = parameter(bias.reshape(-1))
        else:
            self.weight, self.bias = parameter(weight), parameter(bias[:, None])
        self.gates = [stream for stream in group
                      if f"{level}/{stream}/gate/layer1/weight" in params]
        gates = [params[f"{level}/{stream}/gate/layer1/weight"] for stream in self.gates]
        self.choices = [gate.shape[1] for gate in gates]
        if gates:
            self.gate = parameter(np.concatenate(gates, 1))

    def forward(self, x):
        if self.wide:
            experts = F.linear(x, self.weight, self.bias).relu()
            experts = experts.view(len(x), sum(self.counts), -1)
        else:
            many = x.expand(len(self.weight), *x.shape)
            experts = torch.baddbmm(self.bias, many, self.weight).relu()
        logits = (x @ self.gate).split(self.choices, 1) if self.gates else ()
        return (dict(zip(self.group, experts.split(self.counts, int(self.wide)))),
                dict(zip(self.gates, logits)))


def parameter(array):
    return nn.Parameter(torch.tensor(array))


def features(table, x):
    """npple's x as tensors: (numeric features or None, rows of the one embedding table or None)."""
    return tuple(None if part is None else torch.from_numpy(part)
                 for part in codes_and_numbers(table, x))


def codes_and_numbers(table, x):
    """npple's x as (numeric features or None, rows of the one embedding table or None)."""
    if not isinstance(x, dict):
        return x, None
    numeric = [x[name] for name, kind in table.inputs if kind == "numeric"]
    codes = [x[name] for name, kind in table.inputs if kind != "numeric"]
    sizes = [kind[0] for _, kind in table.inputs if kind != "numeric"]
    offsets = np.cumsum([0, *sizes[:-1]])
    return (np.stack(numeric, 1) if numeric else None,
            np.stack(codes, 1) + offsets if codes else None)
