"""PLE in PyTorch, twice: with a loop over experts, as frameworks write it, and with stacked ones."""

import torch
import torch.nn.functional as F
from torch import nn


class LoopedLevel(nn.Module):
    """One extraction level: every expert and gate its own `nn.Linear`."""

    def __init__(self, width, tasks, specific, shared, units, last):
        super().__init__()
        def group(n):
            return nn.ModuleList(nn.Linear(width, units) for _ in range(n))
        self.experts = nn.ModuleList([group(specific) for _ in range(tasks)] + [group(shared)])
        self.gates = nn.ModuleList(
            nn.Linear(width, specific + shared, bias=False) for _ in range(tasks))
        total = tasks * specific + shared
        self.shared_gate = None if last else nn.Linear(width, total, bias=False)

    def forward(self, streams):
        outputs = [[F.relu(expert(x)) for expert in group]
                   for group, x in zip(self.experts, streams)]
        mixed = [self.mix(gate, streams[k], outputs[k] + outputs[-1])
                 for k, gate in enumerate(self.gates)]
        if self.shared_gate is not None:
            mixed.append(self.mix(self.shared_gate, streams[-1], sum(outputs, [])))
        return mixed

    @staticmethod
    def mix(gate, selector, experts):
        weights = torch.softmax(gate(selector), -1)
        return (weights.unsqueeze(-1) * torch.stack(experts, 1)).sum(1)


class StackedLevel(nn.Module):
    """The same with each group's experts as one batched product."""

    def __init__(self, width, tasks, specific, shared, units, last):
        super().__init__()
        counts = [specific] * tasks + [shared]
        self.weights = nn.ParameterList(torch.randn(n, width, units) * width ** -.5 for n in counts)
        self.biases = nn.ParameterList(torch.zeros(n, 1, units) for n in counts)
        self.gates = nn.ModuleList(
            nn.Linear(width, specific + shared, bias=False) for _ in range(tasks))
        self.shared_gate = None if last else nn.Linear(width, sum(counts), bias=False)

    def forward(self, streams):
        outputs = [F.relu(torch.matmul(x, w) + b)
                   for x, w, b in zip(streams, self.weights, self.biases)]
        mixed = [self.mix(gate, streams[k], torch.cat([outputs[k], outputs[-1]]))
                 for k, gate in enumerate(self.gates)]
        if self.shared_gate is not None:
            mixed.append(self.mix(self.shared_gate, streams[-1], torch.cat(outputs)))
        return mixed

    @staticmethod
    def mix(gate, selector, experts):
        return torch.einsum("bn,nbd->bd", torch.softmax(gate(selector), -1), experts)


class PLE(nn.Module):
    """Levels, then a tower of one hidden layer a task; embeddings in front where there are any."""

    def __init__(self, level, width, units, tasks=2, specific=3, shared=3, levels=2, tower=64,
                 embeddings=()):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, d) for n, d in embeddings)
        self.levels = nn.ModuleList(
            level(width if i == 0 else units, tasks, specific, shared, units, i == levels - 1)
            for i in range(levels))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(units, tower), nn.ReLU(), nn.Linear(tower, 1))
            for _ in range(tasks))
        self.tasks = tasks

    def forward(self, x):
        if self.embeddings:
            x = torch.cat([table(codes) for table, codes in zip(self.embeddings, x)], -1)
        streams = [x] * (self.tasks + 1)
        for level in self.levels:
            streams = level(streams)
        return [tower(stream).squeeze(-1) for tower, stream in zip(self.towers, streams)]
