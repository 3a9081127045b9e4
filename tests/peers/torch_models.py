"""The architectures once more, in PyTorch and from the papers: a second opinion on npple's.

Written the way such models usually are (modules, lists of experts, loops), with no use of npple's
routing table. Each takes the keyword arguments of npple's builder of the same name, the counts
by level as lists and by task as dicts. `mlps` says what npple calls the parameters.
"""

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "identity": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU, "softplus": lambda: nn.Softplus(threshold=40),  # linear above: below 1e-17
}


class MLP(nn.Module):
    def __init__(self, width, units, activation, output=None, bias=True):
        """Activated layers of widths `units`, then a linear one of width `output`, if any."""
        super().__init__()
        self.layers = nn.ModuleList()
        for unit in units:
            self.layers.append(nn.Linear(width, unit))
            width = unit
        self.hidden, self.active = len(units), ACTIVATIONS[activation]()
        if output is not None:
            self.layers.append(nn.Linear(width, output, bias=bias))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = self.active(layer(x)) if i < self.hidden else layer(x)
        return x


class Gate(nn.Module):
    def __init__(self, width, experts, activation, gate_units, gate_bias):
        super().__init__()
        self.experts = experts
        self.mlp = MLP(width, gate_units, activation, experts, gate_bias)

    def forward(self, selector, experts):
        weights = F.softmax(self.mlp(selector), dim=1)
        assert len(experts) == weights.shape[1]
        return sum(weights[:, i:i + 1] * expert for i, expert in enumerate(experts))


class Bag(nn.Embedding):
    """The sum or mean of the rows that are there; codes below 0 are none."""

    def __init__(self, size, width, pool):
        super().__init__(size, width)
        self.pool = pool

    def forward(self, codes):
        there = (codes >= 0)[..., None]
        rows = torch.where(there, super().forward(codes.clamp(min=0)), 0.0).sum(dim=1)
        return rows / there.sum(dim=1).clamp(min=1) if self.pool == "mean" else rows


class MultiTask(nn.Module):
    """Embeddings below, towers above; what is between makes a representation for each task."""

    def __init__(self, inputs, tasks, top, tower_units, activation):
        super().__init__()
        self.inputs, self.tasks = inputs, tasks
        self.embeddings = nn.ModuleDict()
        if isinstance(inputs, dict):
            for name, kind in inputs.items():
                if kind != "numeric":
                    self.embeddings[name] = nn.Embedding(*kind) if len(kind) == 2 else Bag(*kind)
        self.towers = nn.ModuleDict({
            task: MLP(top, tower_units, activation, int(kind.partition(":")[2] or 1))
            for task, kind in tasks.items()})

    @staticmethod
    def width(inputs):
        if isinstance(inputs, int):
            return inputs
        return sum(1 if kind == "numeric" else kind[1] for kind in inputs.values())

    def embed(self, x):
        if isinstance(self.inputs, int):
            return x
        return torch.cat([self.embeddings[name](x[name]) if name in self.embeddings
                          else x[name][:, None] for name in self.inputs], dim=1)

    def forward(self, x):
        made = self.extract(self.embed(x))
        outputs = {task: tower(made[task]) for task, tower in self.towers.items()}
        return {task: z if self.tasks[task].startswith("multiclass") else z[:, 0]
                for task, z in outputs.items()}

    def mlps(self):
        """Yields npple's name, the expert's number (None for no expert), and the MLP."""
        yield from self.middle()
        for task, tower in self.towers.items():
            yield f"tower/{task}", None, tower


def experts(count, width, units, activation):
    return nn.ModuleList(MLP(width, units, activation) for _ in range(count))


class SingleTask(MultiTask):
    def __init__(self, inputs, tasks, expert_units, tower_units, activation):
        super().__init__(inputs, tasks, expert_units[-1], tower_units, activation)
        self.nets = nn.ModuleDict({task: MLP(self.width(inputs), expert_units, activation)
                                   for task in tasks})

    def extract(self, x):
        return {task: net(x) for task, net in self.nets.items()}

    def middle(self):
        for task, net in self.nets.items():
            yield f"level1/{task}/experts", 0, net


class SharedBottom(MultiTask):
    def __init__(self, inputs, tasks, expert_units, tower_units, activation):
        super().__init__(inputs, tasks, expert_units[-1], tower_units, activation)
        self.bottom = MLP(self.width(inputs), expert_units, activation)

    def extract(self, x):
        return dict.fromkeys(self.tasks, self.bottom(x))

    def middle(self):
        yield "level1/shared/experts", 0, self.bottom


class MMoE(MultiTask):
    def __init__(self, inputs, tasks, experts, expert_units, tower_units, activation, **gate):
        super().__init__(inputs, tasks, expert_units[-1], tower_units, activation)
        width = self.width(inputs)
        self.experts = globals()["experts"](experts, width, expert_units, activation)
        self.gates = nn.ModuleDict({task: Gate(width, experts, activation, **gate)
                                    for task in tasks})

    def extract(self, x):
        made = [expert(x) for expert in self.experts]
        return {task: gate(x, made) for task, gate in self.gates.items()}

    def middle(self):
        for i, expert in enumerate(self.experts):
            yield "level1/shared/experts", i, expert
        for task, gate in self.gates.items():
            if gate.experts > 1:
                yield f"level1/{task}/gate", None, gate.mlp


class ExtractionLayer(nn.Module):
    """PLE, section 4.1 and 4.2: a task mixes its own experts and the shared ones."""

    def __init__(self, width, tasks, own, shared, units, activation, with_shared_gate, gate):
        super().__init__()
        self.own = nn.ModuleDict({task: experts(own[task], width, units, activation)
                                  for task in tasks})
        self.shared = experts(shared, width, units, activation)
        mixed = {task: self.mixed(task, own, shared) for task in tasks}
        if with_shared_gate:
            mixed["shared"] = sum(own.values()) + shared
        self.gates = nn.ModuleDict({name: Gate(width, count, activation, **gate)
                                    for name, count in mixed.items()})

    def mixed(self, task, own, shared):
        return own[task] + shared

    def forward(self, below):
        own = {task: [expert(below[task]) for expert in group] for task, group in self.own.items()}
        shared = [expert(below["shared"]) for expert in self.shared]
        return {name: gate(below[name], self.chosen(name, own, shared))
                for name, gate in self.gates.items()}

    def chosen(self, name, own, shared):
        return sum(own.values(), []) + shared if name == "shared" else own[name] + shared


class MixingLayer(ExtractionLayer):
    """PLE without its cut: the same experts, but every gate mixes all of them."""

    def mixed(self, task, own, shared):
        return sum(own.values()) + shared

    def chosen(self, name, own, shared):
        return sum(own.values(), []) + shared


class PLE(MultiTask):
    def __init__(self, inputs, tasks, levels, task_experts, shared_experts, expert_units,
                 tower_units, activation, cut=True, **gate):
        super().__init__(inputs, tasks, expert_units[-1][-1], tower_units, activation)
        layer = ExtractionLayer if cut else MixingLayer
        self.levels, width = nn.ModuleList(), self.width(inputs)
        for level in range(levels):
            last = level == levels - 1
            self.levels.append(layer(
                width, tasks, {task: task_experts[level][task] for task in tasks},
                shared_experts[level], expert_units[level], activation, not last, gate))
            width = expert_units[level][-1]

    def extract(self, x):
        made = dict.fromkeys([*self.tasks, "shared"], x)
        for level in self.levels:
            made = level({"shared": None} | made)
        return made

    def middle(self):
        """The shared gate stands in npple only where it is read: shared experts follow."""
        for i, level in enumerate(self.levels):
            for name, group in [*level.own.items(), ("shared", level.shared)]:
                for number, expert in enumerate(group):
                    yield f"level{i + 1}/{name}/experts", number, expert
            followed = any(len(above.shared) for above in self.levels[i + 1:])
            for name, gate in level.gates.items():
                if gate.experts > 1 and (name != "shared" or followed):
                    yield f"level{i + 1}/{name}/gate", None, gate.mlp


class MLMMoE(MultiTask):
    """Multi-level MMoE, PLE paper, section 5.1.2: each upper expert has a gate on the input."""

    def __init__(self, inputs, tasks, levels, experts, expert_units, tower_units, activation,
                 **gate):
        super().__init__(inputs, tasks, expert_units[-1][-1], tower_units, activation)
        width = below = self.width(inputs)
        self.banks, self.inner = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            self.banks.append(globals()["experts"](experts[level], below, expert_units[level],
                                                   activation))
            below = expert_units[level][-1]
            if level + 1 < levels:
                self.inner.append(nn.ModuleList(Gate(width, experts[level], activation, **gate)
                                                for _ in range(experts[level + 1])))
        self.gates = nn.ModuleDict({task: Gate(width, experts[-1], activation, **gate)
                                    for task in tasks})

    def extract(self, x):
        made = [expert(x) for expert in self.banks[0]]
        for gates, bank in zip(self.inner, self.banks[1:]):
            made = [expert(gate(x, made)) for gate, expert in zip(gates, bank)]
        return {task: gate(x, made) for task, gate in self.gates.items()}

    def middle(self):
        for i, expert in enumerate(self.banks[0]):
            yield "level1/shared/experts", i, expert
        for level, (gates, bank) in enumerate(zip(self.inner, self.banks[1:]), start=1):
            for i, (gate, expert) in enumerate(zip(gates, bank), start=1):
                if gate.experts > 1:
                    yield f"level{level}/expert{i}/gate", None, gate.mlp
                yield f"level{level + 1}/expert{i}/experts", 0, expert
        for task, gate in self.gates.items():
            if gate.experts > 1:
                yield f"level{len(self.banks)}/{task}/gate", None, gate.mlp


class CGC(MultiTask):
    def __init__(self, inputs, tasks, task_experts, shared_experts, expert_units, tower_units,
                 activation, **gate):
        super().__init__(inputs, tasks, expert_units[-1], tower_units, activation)
        width = self.width(inputs)
        (own,), (shared,) = task_experts, shared_experts
        self.own = nn.ModuleDict({task: experts(own[task], width, expert_units, activation)
                                  for task in tasks})
        self.shared = experts(shared, width, expert_units, activation)
        self.gates = nn.ModuleDict({task: Gate(width, own[task] + shared, activation, **gate)
                                    for task in tasks})

    def extract(self, x):
        shared = [expert(x) for expert in self.shared]
        return {task: self.gates[task](x, [expert(x) for expert in self.own[task]] + shared)
                for task in self.tasks}

    def middle(self):
        for name, group in [*self.own.items(), ("shared", self.shared)]:
            for number, expert in enumerate(group):
                yield f"level1/{name}/experts", number, expert
        for task, gate in self.gates.items():
            if gate.experts > 1:
                yield f"level1/{task}/gate", None, gate.mlp


MODELS = {"single_task": SingleTask, "shared_bottom": SharedBottom, "mmoe": MMoE,
          "ml_mmoe": MLMMoE, "cgc": CGC, "ple": PLE}


def joint_loss(model, outputs, targets, masks, weights):
    """Weighted sum of the tasks' losses, each over the rows of its mask, and these losses."""
    losses = {}
    for task, z in outputs.items():
        y = targets[task]
        if task in masks:
            z, y = z[masks[task]], y[masks[task]]
        if not len(z):
            losses[task] = torch.zeros((), dtype=z.dtype)
        elif model.tasks[task] == "binary":
            losses[task] = F.binary_cross_entropy_with_logits(z, y)
        elif model.tasks[task] == "regression":
            losses[task] = F.mse_loss(z, y)
        else:
            losses[task] = F.cross_entropy(z, y)
    return sum(weights[task] * loss for task, loss in losses.items()), losses


# Parameters from and to npple's dictionaries ----------------------------------------------------

def parameters(model):
    """Yields npple's name, the expert's number or None, the parameter; weights as (in, out)."""
    for name, embedding in model.embeddings.items():
        yield f"embedding/{name}", None, embedding.weight, False
    for prefix, number, mlp in model.mlps():
        for i, layer in enumerate(mlp.layers, start=1):
            yield f"{prefix}/layer{i}/weight", number, layer.weight, True
            if layer.bias is not None:
                yield f"{prefix}/layer{i}/bias", number, layer.bias, False


def load(model, params):
    with torch.no_grad():
        for name, number, parameter, transposed in parameters(model):
            value = torch.from_numpy(params[name] if number is None else params[name][number])
            parameter.copy_(value.T if transposed else value)


def read(model, of=lambda parameter: parameter):
    """Parameters, or what `of` takes from each, by npple's names; experts stacked."""
    stacks = {}
    for name, number, parameter, transposed in parameters(model):
        value = of(parameter)
        value = torch.zeros_like(parameter) if value is None else value.detach()
        stacks.setdefault(name, []).append((number, value.T if transposed else value))
    return {name: (values[0][1] if values[0][0] is None
                   else torch.stack([value for _, value in values])).numpy().copy()
            for name, values in stacks.items()}
