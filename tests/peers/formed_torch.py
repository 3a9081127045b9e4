"""The gated architectures as a module in PyTorch, in the forms that right code has, and a mapping.

Structure and sizes are read off the parameters' names and shapes.
"""

from collections import defaultdict

import torch
from torch import nn
from torch_models import MLP, Bag

from npple.oracle import ModuleMapping, linear, stacked

FORMS = ("slices", "copies", "again")


class Formed(nn.Module):
    """Returns logits by task, and probabilities by p_TASK.

    Parameters
    ----------
    params : dict of ndarray
        For their names and shapes.
    inputs : int or dict
        As for npple's builders.
    tasks : dict of str
    form : str
        "slices": what a level gives is one tensor, of which each reader makes its own slice.
        "copies": a shared expert runs once for each gate that reads it.
        "again": all of it runs twice, and the first result is dropped.
    wide : bool
        Whether outputs are float32, whatever the precision of the rest.
    """

    def __init__(self, params, inputs, tasks, activation, form, wide):
        super().__init__()
        self.inputs, self.tasks, self.form, self.wide = inputs, dict(tasks), form, wide
        self.embeddings = nn.ModuleDict({
            name: nn.Embedding(*kind) if len(kind) == 2 else Bag(*kind)
            for name, kind in (inputs.items() if isinstance(inputs, dict) else ())
            if kind != "numeric"})
        sizes = defaultdict(list)
        for name, p in params.items():
            if name.endswith("/weight"):
                sizes[name.rpartition("/layer")[0]].append(p.shape)
        self.parts = nn.ModuleDict()
        for block, shapes in sizes.items():
            units = [shape[-1] for shape in shapes]
            if block.endswith("experts"):
                self.parts[block] = nn.ModuleList(
                    MLP(shapes[0][-2], units, activation) for _ in range(shapes[0][0]))
            else:
                biased = f"{block}/layer{len(units)}/bias" in params
                self.parts[block] = MLP(shapes[0][0], units[:-1], activation, units[-1], biased)

    def forward(self, x):
        for _ in range(2 if self.form == "again" else 1):
            towers = self.towers(self.embedded(x))
        logits = {task: z.float() if self.wide else z for task, z in towers.items()}
        return logits | {f"p_{task}": self.probability(task, z) for task, z in logits.items()}

    def probability(self, task, z):
        kind = self.tasks[task]
        return (torch.sigmoid(z) if kind == "binary" else z if kind == "regression"
                else torch.softmax(z, -1))

    def embedded(self, x):
        if isinstance(self.inputs, int):
            return x
        return torch.cat([self.embeddings[name](x[name]) if name in self.embeddings
                          else x[name][:, None] for name in self.inputs], dim=1)

    def towers(self, x):
        reps, level = self.handed(dict.fromkeys((*self.tasks, "shared"), x)), 1
        while streams := self.streams(level):
            reps, level = self.handed(self.level(level, streams, reps)), level + 1
        found = {task: self.parts[f"tower/{task}"](reps(task)) for task in self.tasks}
        return {task: z if self.tasks[task].startswith("multiclass") else z[:, 0]
                for task, z in found.items()}

    def streams(self, level):
        return [s for s in (*self.tasks, "shared") if f"level{level}/{s}/experts" in self.parts]

    def handed(self, made):
        """How a reader is handed a tensor of several."""
        if self.form != "slices":
            return made.__getitem__
        names, whole = list(made), torch.stack(list(made.values()), dim=1)
        return lambda name: whole[:, names.index(name)]

    def level(self, level, streams, reps):
        """The representations that a level makes: of a task, and of all while there are more."""
        def run(key):
            return experts[key](reps(key[0]))

        experts = {(s, i): expert for s in streams
                   for i, expert in enumerate(self.parts[f"level{level}/{s}/experts"])}
        taken = run if self.form == "copies" else self.handed({key: run(key) for key in experts})
        made = {}
        for stream in (*self.tasks, *(["shared"] if self.streams(level + 1) else [])):
            chosen = [key for key in experts if stream == "shared" or key[0] in (stream, "shared")]
            gate = f"level{level}/{stream}/gate"
            if gate in self.parts:
                weights = torch.softmax(self.parts[gate](reps(stream)), dim=1)
                made[stream] = sum(weights[:, i, None] * taken(key)
                                   for i, key in enumerate(chosen))
            elif chosen:
                made[stream] = taken(chosen[0])
        return made

    def mapping(self, rng, probable=False):
        """Parameters, outputs, and some of the tensors between, each seen at one of its readers.

        With `probable`, the outputs are probabilities.
        """
        parameters = {f"embedding/{name}": f"embeddings.{name}.weight" for name in self.embeddings}
        tensors = {f"tower/{task}": f"return[{'p_' * probable}{task}]" for task in self.tasks}
        tensors |= {f"prediction/{task}": f"return[p_{task}]" for task in self.tasks}
        again = "#2" if self.form == "again" and rng.random() < 0.5 else ""
        for block, part in self.parts.items():
            paths, path, row = [], f"parts.{block}", block.rpartition("/")[0]
            if isinstance(part, nn.ModuleList):
                paths = [f"{path}.{i}" for i in range(len(part))]
                tensors[block] = stacked(*(each + again for each in paths))
            elif block.endswith("gate"):
                tensors[f"{block}/logits"] = path + again
            level, _, stream = row.partition("/")
            if level[5:] not in ("", "1"):
                tensors[f"level{int(level[5:]) - 1}/{stream}"] = (
                    f"{(paths or [path])[rng.integers(len(paths or [path]))]}:input{again}")
            for i, layer in enumerate((part[0] if paths else part).layers, start=1):
                parameters |= linear(
                    f"{block}/layer{i}", [f"{each}.layers.{i - 1}" for each in paths] or
                    f"{path}.layers.{i - 1}", bias=layer.bias is not None)
        kept = {name: move for name, move in tensors.items()
                if name.startswith("tower") or rng.random() < 0.7}
        options = {} if isinstance(self.inputs, int) else {"feed": dict}
        return ModuleMapping(parameters, kept, **options)
