"""Ready-made mappings for the multi-task models of deepctr-torch and torch-rechub.

Each takes a module of its package and gives the paper's model of the same configuration, and where
the module has that model's parts. What the packages compute was read off their sources and is
measured in tests/peers/test_deepctr.py and test_rechub.py; docs/conformance.md has the results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npple.architectures import Inputs, mmoe, ple, shared_bottom
from npple.core.table import Embedded
from npple.errors import require
from npple.network import Network
from npple.oracle.mappings import ModuleMapping, linear, moved, stacked
from npple.routing import Experts, Gate, Table, Tower

ACTIVATIONS = {"ReLU": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "GELU": "gelu",
               "Softplus": "softplus", "Identity": "identity"}


def deepctr_torch(module: Any) -> tuple[Network, ModuleMapping]:
    """The model that a `PLE`, `MMOE` or `SharedBottom` of deepctr-torch should be.

    Parameters
    ----------
    module : deepctr_torch.models.basemodel.BaseModel
        Of sparse features, each with an embedding of its own, sequences that are summed or
        averaged, and dense features.

    Returns
    -------
    model : npple.network.Network
        Its inputs are a matrix where all features are dense; otherwise columns, the sparse
        features first, sequences as bags, then the dense ones (`x[0]`, `x[1]`, ... of a vector
        `x`). Both packages keep code 0 for padding, so a bag's codes are theirs less one.
    mapping : npple.oracle.ModuleMapping

    Raises
    ------
    InputError
        For another class, or features or activations that npple does not have.
    """
    return _DeepCTR(module).result()


def torch_rechub(module: Any, tasks: Any = None) -> tuple[Network, ModuleMapping]:
    """The model that a `PLE`, `MMOE` or `SharedBottom` of torch-rechub should be.

    The gates of these modules have a bias, and so has the model. In `eval` mode their batch
    normalisations are affine and count as part of the layers before them.

    Parameters
    ----------
    module : torch.nn.Module
        Of sparse features, each with an embedding of its own, and dense ones.
    tasks : sequence of str, optional
        Names for the tasks, which the module does not have; by default task1, task2, ...

    Returns
    -------
    model : npple.network.Network
        Its inputs are a matrix where all features are dense; otherwise columns, the sparse
        features first, then the dense ones (`x[0]`, `x[1]`, ... of a vector `x`).
    mapping : npple.oracle.ModuleMapping

    Raises
    ------
    InputError
        For another class, features or activations that npple does not have, or names for another
        number of tasks.
    """
    return _RecHub(module, tasks).result()


# What both have in common -----------------------------------------------------------------------

@dataclass(frozen=True)
class _Layer:
    """Paths of a dense layer, of the activation and the batch normalisation after it, if any."""

    linear: str
    activation: str | None = None
    norm: str | None = None
    bias: str | None = None  # where it is not the linear layer's own


class _Peer:
    """A module of some package: subclasses tell where its MLPs are, lists of `_Layer`."""

    kinds = ("PLE", "MMOE", "SharedBottom")
    embeddings: str  # path of the embeddings
    outputs: str  # path of what follows a tower
    tasks: list[str]
    experts: Callable[[int, str], list[list[_Layer]]]
    gate: Callable[[int, str], list[_Layer]]
    tower: Callable[[str], list[_Layer]]
    options: Callable[[], dict[str, Any]]
    kinds_of_tasks: Callable[[], dict[str, str]]
    idle: Callable[[Network], tuple[str, ...]]
    feed: Callable[[Any], Any]

    def __init__(self, module: Any, sparse: Mapping[str, Embedded], dense: Mapping[str, int]
                 ) -> None:
        """`sparse`: name -> as the model takes it; `dense`: name -> width."""
        self.kind = type(module).__name__
        require(self.kind in self.kinds,
                f"module: {self.kind}, expected one of {', '.join(self.kinds)}")
        self.module, self.sparse, self.dense = module, sparse, dense

    def result(self) -> tuple[Network, ModuleMapping]:
        """The model and the mapping."""
        model = self.model()
        parameters: dict[str, Any] = {
            f"embedding/{name}": moved(lambda w: w[1:], self.table(name)) if len(kind) == 3
            else self.table(name) for name, kind in self.sparse.items()}
        padded = tuple(self.table(name) for name, kind in self.sparse.items() if len(kind) == 3)
        tensors: dict[str, Any] = {}
        norms: dict[str, str] = {}
        readers: dict[str, Any] = {}
        for row in model.table.rows:
            mlps = self.mlps(row)
            for i, layers in enumerate(zip(*mlps), start=1):
                parameters |= self.layer_parameters(row, i, layers)
                norms |= {layer.norm: layer.linear for layer in layers if layer.norm}
            tensors |= self.tensors(row, mlps)
            if mlps and not isinstance(row, Gate):
                readers.setdefault(row.inputs()[0], f"{mlps[0][0].linear}:input")
        mapping = ModuleMapping(parameters, readers | tensors, (*self.idle(model), *padded),
                                ("*/gate/*",),
                                norms, self.feed)
        return model, mapping

    def table(self, name: str) -> str:
        """The path of a feature's embedding."""
        return f"{self.embeddings}.{name}.weight"

    def mlps(self, row: Any) -> list[list[_Layer]]:
        """The MLPs of a row of the table: those of all experts, or one, or none."""
        level, stream, *_ = row.name.split("/")
        if isinstance(row, Experts):
            return self.experts(int(level[5:]) - 1, stream)
        if isinstance(row, Gate):
            return [self.gate(int(level[5:]) - 1, stream)]
        return [self.tower(stream)] if isinstance(row, Tower) else []

    def layer_parameters(self, row: Any, i: int, layers: Sequence[Any]) -> dict[str, Any]:
        """The parameters of layer `i` of a row; `layers` has it for each expert."""
        name, paths = f"{row.parameters}/layer{i}", [layer.linear for layer in layers]
        if isinstance(row, Experts):
            return linear(name, paths)
        own = self.module.get_submodule(paths[0]).bias is not None
        elsewhere = {f"{name}/bias": layers[0].bias} if layers[0].bias else {}
        return linear(name, paths[0], bias=own) | elsewhere

    def tensors(self, row: Any, mlps: Sequence[Sequence[_Layer]]) -> dict[str, Any]:
        """What can be seen of a row: hidden layers, and what it ends in."""
        if not mlps:
            return {}
        hidden = {f"{getattr(row, 'name' if isinstance(row, Experts) else 'parameters')}/layer{i}":
                  [layer.activation for layer in layers]
                  for i, layers in enumerate(zip(*(mlp[:-1] for mlp in mlps)), start=1)}
        ends = [mlp[-1] for mlp in mlps]
        if isinstance(row, Experts):
            hidden[row.name] = [end.activation for end in ends]
            return {name: stacked(*paths) for name, paths in hidden.items()}
        seen = {name: path for name, (path,) in hidden.items()}
        if isinstance(row, Gate):
            seen[f"{row.parameters}/logits"] = ends[0].norm or ends[0].linear
            if ends[0].activation:
                seen[f"{row.parameters}/weights"] = ends[0].activation
            return seen
        i = self.tasks.index(row.task)
        seen[row.name] = moved(lambda z: z[:, 0], f"{self.outputs}.{i}:input")
        seen[f"prediction/{row.task}"] = moved(lambda p: p[:, i], "return")
        return seen

    def model(self) -> Network:
        """The paper's model: the extraction from the builder, the towers from the module."""
        inputs: Inputs = sum(self.dense.values())
        if self.sparse:
            inputs = {**self.sparse, **{column: "numeric" for _, column in self.columns()}}
        expert = self.experts(0, "shared" if self.kind != "PLE" else self.tasks[0])[0]
        options = {"expert_units": self.units(expert), "tower_units": (),
                   "activation": self.activations(expert)[0]}
        builders: dict[str, Callable[..., Network]] = {
            "PLE": ple, "MMOE": mmoe, "SharedBottom": shared_bottom}
        made = builders[self.kind](inputs, self.kinds_of_tasks(), **options, **self.options())
        table = made.table
        towers = []
        for tower in table.towers:
            hidden = self.tower(tower.task)[:-1]
            towers.append(Tower(tower.task, tower.kind, tower.reads, self.units(hidden),
                                self.activations(hidden)))
        return Network(Table(table.inputs, table.levels, tuple(towers)))

    def units(self, layers: Sequence[Any]) -> tuple[int, ...]:
        return tuple(self.module.get_submodule(layer.linear).out_features for layer in layers)

    def activations(self, layers: Sequence[Any]) -> tuple[str, ...]:
        names = [type(self.module.get_submodule(layer.activation)).__name__ for layer in layers]
        for name in names:
            require(name in ACTIVATIONS, f"module: npple has no activation {name}")
        return tuple(ACTIVATIONS[name] for name in names)

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yields (dense feature, its column in npple)."""
        for name, width in self.dense.items():
            yield from ((name, name if width == 1 else f"{name}[{i}]") for i in range(width))

    def features(self, inputs: Any) -> dict[str, Any]:
        """npple's inputs by the module's features: codes (batch,), values or bags (batch, n)."""
        if not self.sparse:
            cuts = np.cumsum(list(self.dense.values()))[:-1]
            return dict(zip(self.dense, np.split(inputs, cuts, axis=1)))
        values: dict[str, list[Any]] = {name: [] for name in self.dense}
        for name, column in self.columns():
            values[name].append(inputs[column])
        return {name: inputs[name] + (len(kind) == 3) for name, kind in self.sparse.items()} | {
            name: np.stack(parts, axis=1) for name, parts in values.items()}

    def unused(self, layers: Sequence[Any]) -> tuple[str, ...]:
        return tuple(f"{path}.*" for layer in layers for path in (layer.linear, layer.norm) if path)


# deepctr-torch ----------------------------------------------------------------------------------

class _DeepCTR(_Peer):
    """Lists of modules for each level and task; a DNN is lists of linears and activations."""

    embeddings, outputs = "embedding_dict", "out"

    def __init__(self, module: Any) -> None:
        features: dict[str, dict[str, Any]] = {"SparseFeat": {}, "VarLenSparseFeat": {},
                                               "DenseFeat": {}}
        for feature in getattr(module, "dnn_feature_columns", ()):
            known = features.get(type(feature).__name__)
            require(known is not None and getattr(feature, "embedding_name", feature.name)
                    == feature.name, f"module: feature {feature.name!r}: only SparseFeat and "
                                     "VarLenSparseFeat with an embedding of their own, DenseFeat")
            features[type(feature).__name__][feature.name] = feature
        super().__init__(module,
                         {name: (int(f.vocabulary_size), int(f.embedding_dim))
                          for name, f in features["SparseFeat"].items()} |
                         {name: (int(f.vocabulary_size) - 1, int(f.embedding_dim), f.combiner)
                          for name, f in features["VarLenSparseFeat"].items()},
                         {name: int(f.dimension) for name, f in features["DenseFeat"].items()})
        self.tasks = list(module.task_names)
        if self.kind == "PLE":
            wanted, made = module.shared_expert_num, len(module.shared_experts[0][0])
            require(wanted <= made, f"module: shared_expert_num={wanted}, but {made} were made: "
                                    "deepctr-torch makes as many as specific_expert_num")

    def kinds_of_tasks(self) -> dict[str, str]:
        return {task: self.module.out[i].task for i, task in enumerate(self.tasks)}

    def options(self) -> dict[str, Any]:
        module = self.module
        if self.kind == "SharedBottom":
            return {}
        gate = {"gate_units": tuple(module.gate_dnn_hidden_units)}
        if self.kind == "MMOE":
            return gate | {"experts": module.num_experts}
        return gate | {"levels": module.num_levels, "task_experts": module.specific_expert_num,
                       "shared_experts": module.shared_expert_num}

    def dnn(self, path: str) -> list[_Layer]:
        dnn = self.module.get_submodule(path)
        return [_Layer(f"{path}.linears.{i}", f"{path}.activation_layers.{i}",
                       f"{path}.bn.{i}" if dnn.use_bn else None) for i in range(len(dnn.linears))]

    def experts(self, level: int, stream: str) -> list[list[_Layer]]:
        module = self.module
        if self.kind == "SharedBottom":
            return [self.dnn("bottom_dnn")]
        if self.kind == "MMOE":
            return [self.dnn(f"expert_dnn.{k}") for k in range(module.num_experts)]
        if stream == "shared":
            return [self.dnn(f"shared_experts.{level}.0.{k}")
                    for k in range(module.shared_expert_num)]
        i = self.tasks.index(stream)
        return [self.dnn(f"specific_experts.{level}.{i}.{j}")
                for j in range(module.specific_expert_num)]

    def gate(self, level: int, stream: str) -> list[_Layer]:
        if self.kind == "MMOE":
            at = str(self.tasks.index(stream))
            hidden, last = f"gate_dnn.{at}", f"gate_dnn_final_layer.{at}"
        elif stream == "shared":
            hidden, last = f"shared_gate_dnn.{level}", f"shared_gate_dnn_final_layer.{level}"
        else:
            at = f"{level}.{self.tasks.index(stream)}"
            hidden, last = f"specific_gate_dnn.{at}.0", f"specific_gate_dnn_final_layer.{at}"
        return [*(self.dnn(hidden) if self.module.gate_dnn_hidden_units else ()), _Layer(last)]

    def tower(self, task: str) -> list[_Layer]:
        i = self.tasks.index(task)
        hidden = self.dnn(f"tower_dnn.{i}") if self.module.tower_dnn_hidden_units else []
        return [*hidden, _Layer(f"tower_dnn_final_layer.{i}", bias=f"out.{i}.bias")]

    def idle(self, model: Network) -> tuple[str, ...]:
        """Gates whose result is not used, and shared experts that are made but not run."""
        if self.kind != "PLE":
            return ()
        module, patterns = self.module, []
        for level in range(module.num_levels):
            gates = [(name, self.gate(level, name)) for name in (*self.tasks, "shared")]
            patterns += [pattern for name, gate in gates
                         if not isinstance(model.table.row.get(f"level{level + 1}/{name}"), Gate)
                         for pattern in self.unused(gate)]
            made = range(module.shared_expert_num, len(module.shared_experts[level][0]))
            patterns += [f"shared_experts.{level}.0.{k}.*" for k in made]
        return tuple(patterns)

    def feed(self, inputs: Any) -> Any:
        """One matrix, the features in the order in which they were declared."""
        features = self.features(inputs)
        dtype = np.result_type(np.float32, *features.values())
        parts = []
        for name, (start, stop) in self.module.feature_index.items():
            part = features[name].reshape(len(features[name]), -1).astype(dtype)
            parts.append(np.pad(part, [(0, 0), (0, stop - start - part.shape[1])]))
        return np.concatenate(parts, axis=1)


# torch-rechub -----------------------------------------------------------------------------------

class _RecHub(_Peer):
    """An MLP is a sequence of linear, normalisation, activation and dropout, again and again."""

    embeddings, outputs = "embedding.embed_dict", "predict_layers"

    def __init__(self, module: Any, tasks: Any) -> None:
        sparse: dict[str, Embedded] = {}
        dense: dict[str, int] = {}
        for feature in getattr(module, "features", ()):
            kind = type(feature).__name__
            require(kind in ("SparseFeature", "SequenceFeature", "DenseFeature")
                    and getattr(feature, "shared_with", None) is None,
                    f"module: feature {feature.name!r}: only SparseFeature and SequenceFeature "
                    "with an embedding of their own, and DenseFeature")
            if kind == "SequenceFeature":
                require(feature.padding_idx == 0, f"module: feature {feature.name!r}: padding_idx "
                                                  f"{feature.padding_idx}, expected 0")
                sparse[feature.name] = (int(feature.vocab_size) - 1, int(feature.embed_dim),
                                        feature.pooling)
            elif kind == "SparseFeature":
                sparse[feature.name] = (int(feature.vocab_size), int(feature.embed_dim))
            else:
                dense[feature.name] = int(feature.embed_dim)
        super().__init__(module, sparse, dense)
        count = len(module.task_types)
        self.tasks = [f"task{i + 1}" for i in range(count)] if tasks is None else list(tasks)
        require(len(self.tasks) == count, f"tasks: {len(self.tasks)} names for {count} tasks")

    def kinds_of_tasks(self) -> dict[str, str]:
        kinds = {"classification": "binary", "regression": "regression"}
        return {task: kinds[kind] for task, kind in zip(self.tasks, self.module.task_types)}

    def options(self) -> dict[str, Any]:
        module = self.module
        if self.kind == "SharedBottom":
            return {}
        if self.kind == "MMOE":
            return {"gate_bias": True, "experts": module.n_expert}
        layer = module.cgc_layers[0]
        return {"gate_bias": True, "levels": module.n_level,
                "task_experts": layer.n_expert_specific, "shared_experts": layer.n_expert_shared}

    def mlp(self, path: str) -> list[_Layer]:
        count = len(self.module.get_submodule(path).mlp)
        layers = [_Layer(f"{path}.mlp.{i}", f"{path}.mlp.{i + 2}", f"{path}.mlp.{i + 1}")
                  for i in range(0, count - 1, 4)]
        return layers + ([_Layer(f"{path}.mlp.{count - 1}")] if count % 4 else [])

    def experts(self, level: int, stream: str) -> list[list[_Layer]]:
        if self.kind == "SharedBottom":
            return [self.mlp("bottom_mlp")]
        if self.kind == "MMOE":
            return [self.mlp(f"experts.{k}") for k in range(self.module.n_expert)]
        layer, path = self.module.cgc_layers[level], f"cgc_layers.{level}"
        if stream == "shared":
            return [self.mlp(f"{path}.experts_shared.{k}") for k in range(layer.n_expert_shared)]
        start = self.tasks.index(stream) * layer.n_expert_specific
        return [self.mlp(f"{path}.experts_specific.{start + j}")
                for j in range(layer.n_expert_specific)]

    def gate(self, level: int, stream: str) -> list[_Layer]:
        if self.kind == "MMOE":
            return self.mlp(f"gates.{self.tasks.index(stream)}")
        if stream == "shared":
            return self.mlp(f"cgc_layers.{level}.gate_shared")
        return self.mlp(f"cgc_layers.{level}.gates_specific.{self.tasks.index(stream)}")

    def tower(self, task: str) -> list[_Layer]:
        return self.mlp(f"towers.{self.tasks.index(task)}")

    def idle(self, model: Network) -> tuple[str, ...]:
        """Gates over one expert, and shared gates where there are no shared experts above."""
        levels = getattr(self.module, "n_level", 1) if self.kind != "SharedBottom" else 0
        gates = [(level, name) for level in range(levels) for name in (*self.tasks, "shared")
                 if name != "shared" or self.kind == "PLE" and level < levels - 1]
        return tuple(pattern for level, name in gates
                     if not isinstance(model.table.row.get(f"level{level + 1}/{name}"), Gate)
                     for pattern in self.unused(self.gate(level, name)))

    def feed(self, inputs: Any) -> Any:
        return self.features(inputs)
