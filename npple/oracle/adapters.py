"""A torch.nn.Module under npple's names: weights out, weights in, tensors and gradients to check.

Where a module keeps what npple calls `level1/income/experts/layer1/weight` is the user's to say, as
a `ModuleMapping`: a dict from npple's names to the module's. PyTorch is not imported: the module is
asked for `named_parameters`, `get_submodule` and forward hooks, its tensors for arrays.

A module's array and npple's hold the same numbers in another order: transposed, split, stacked. So
a mapping only says how to read. The way back is found by sending numbered entries through it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np

from npple.checks import check_kind, check_params, check_texts, shown
from npple.core.base import AnyArray, Array, Arrays, Features, Mask
from npple.core.passes import joint_loss
from npple.errors import InputError, MappingError, require
from npple.kinds import check_targets
from npple.network import Network, Trace
from npple.oracle.comparison import judged
from npple.oracle.report import Report
from npple.oracle.arrays import as_arrays
from npple.oracle.rounding import UNITS
from npple.oracle.vectors import Vectors
from npple.routing import Pass


# Mappings ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Move:
    """One of npple's arrays: `make` of the module's arrays `sources`, which only moves entries.

    Attributes
    ----------
    make : callable
        The module's arrays, in the order of `sources` -> npple's array.
    sources : tuple of str
        The module's names.
    """

    make: Callable[..., AnyArray]
    sources: tuple[str, ...]

    def forward(self, arrays: Arrays) -> Array:
        """npple's array, from the module's by name.

        Parameters
        ----------
        arrays : dict of ndarray
            The module's, at least those of `sources`.

        Returns
        -------
        ndarray
        """
        return np.asarray(self.make(*(arrays[name] for name in self.sources)))

    def origins(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Where the entries of npple's array come from.

        The entries of the sources are numbered from 1 on; any other number made is a constant.

        Parameters
        ----------
        shapes : dict of tuple
            Of the module's arrays, at least those of `sources`.

        Returns
        -------
        shape : tuple of int
            Of npple's array.
        origins : list of (str, ndarray of bool, ndarray of int)
            For each source: its name, which entries of npple's array are its own, and their flat
            places in it.
        """
        starts = np.cumsum([1, *(prod(shapes[name]) for name in self.sources)])
        spans = list(zip(self.sources, starts, starts[1:]))
        made = np.asarray(self.make(*(np.arange(start, stop).reshape(shapes[name])
                                      for name, start, stop in spans)))
        masks = [(name, (start <= made) & (made < stop), start) for name, start, stop in spans]
        return made.shape, [(name, mask, (made[mask] - start).astype(np.intp))
                            for name, mask, start in masks]

    def write(self, value: Array, arrays: dict[str, Any]) -> Mask:
        """Puts npple's array where its entries come from.

        Parameters
        ----------
        value : ndarray
            npple's array.
        arrays : dict of ndarray
            The module's; those of `sources` are written to.

        Returns
        -------
        ndarray of bool
            Which entries of `value` found a place: all but constants.
        """
        placed = np.zeros(value.shape, bool)
        for name, mask, places in self.origins(_shapes(arrays))[1]:
            arrays[name].flat[places] = value[mask]
            placed |= mask
        return placed


def moved(make: Callable[..., AnyArray], *sources: str) -> Move:
    """What `make(*arrays)` makes of the module's arrays, for a `ModuleMapping`.

    Parameters
    ----------
    make : callable
        Slices, transposes, reshapes, stacks or concatenates; may put constants in. Nothing else.
    sources : str
        The module's names.

    Returns
    -------
    Move
    """
    return Move(make, sources)


def linear(layer: str, where: str | Sequence[str], bias: bool = True
           ) -> dict[str, Move]:
    """The entries for one dense layer, from layers `nn.Linear`, whose weights are (out, in).

    Parameters
    ----------
    layer : str
        npple's, such as "tower/income/layer1".
    where : str or list of str
        Path of the `nn.Linear`; for a group of experts a list, in npple's order.
    bias : bool
        Whether npple's layer has one; a gate's last layer has none.

    Returns
    -------
    dict
        For the `parameters` of a `ModuleMapping`.
    """
    if isinstance(where, str):
        weight, biases = moved(np.transpose, f"{where}.weight"), _as_is(f"{where}.bias")
    else:
        weight = moved(lambda *w: np.stack([each.T for each in w]), *(f"{p}.weight" for p in where))
        biases = stacked(*(f"{path}.bias" for path in where))
    return {f"{layer}/weight": weight} | ({f"{layer}/bias": biases} if bias else {})


def stacked(*sources: str) -> Move:
    """The module's arrays on top of one another: the outputs of a group's experts.

    Parameters
    ----------
    sources : str
        The module's names, in npple's order; arrays of one shape.

    Returns
    -------
    Move
    """
    return moved(lambda *arrays: np.stack(arrays), *sources)


def _as_is(source: str) -> Move:
    return moved(lambda array: array, source)


@dataclass(frozen=True)
class ModuleMapping:
    """Where a module has what npple has a name for.

    Attributes
    ----------
    parameters : dict of str or Move
        npple's parameter -> the module's of the same shape, or `moved(...)`; see `linear`.
    tensors : dict of str or Move
        npple's tensor -> what a part of the module returns ("experts.0"), is given first
        ("towers.1:input"), or the module itself returns ("return"). An element of a tuple or dict
        is "return[0]", "return[income]"; what a part returns when it runs again is "experts.0#2".
        With all of `tower/TASK`, gradients are checked too.
    idle : tuple of str
        Patterns (`*`) of parameters of the module that the model has no use for.
    own : tuple of str
        Patterns of npple's parameters that may differ in a check: not in the model, of another
        shape, not in the module. The bias of a gate, say. What the module has then stays as it is.
    norms : dict of str
        Path of a batch normalisation -> path of the `nn.Linear` before it. Weights are read with
        the normalisation at inference folded in; written, it is made the identity.
    feed : callable
        npple's inputs (an array, or a dict of columns) -> the module's: an array, a dict of arrays,
        or a tuple for several arguments. By default as they are.

    Raises
    ------
    InputError
        For an entry that is neither a name nor `moved(...)`.
    """

    parameters: dict[str, Any]
    tensors: dict[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    norms: dict[str, str] = field(default_factory=dict)
    feed: Callable[[Any], Any] = lambda inputs: inputs

    def __post_init__(self) -> None:
        for kind in ("idle", "own"):
            object.__setattr__(self, kind, tuple(check_texts(f"mapping: {kind}",
                                                             getattr(self, kind))))
        for kind in ("parameters", "tensors", "norms"):
            check_kind(f"mapping: {kind}", getattr(self, kind), dict, "a dict")
        for kind in ("parameters", "tensors"):
            entries = {name: _as_is(entry) if isinstance(entry, str) else entry
                       for name, entry in getattr(self, kind).items()}
            for name, entry in entries.items():
                require(isinstance(entry, Move), f"mapping: {kind}: {name}: the module's name or "
                                                 f"moved(...) is needed, got {entry!r}")
            object.__setattr__(self, kind, entries)


# Weights ----------------------------------------------------------------------------------------

def from_module(module: Any, model: Network, mapping: ModuleMapping) -> dict[str, Array]:
    """The weights of a module as npple's parameters.

    Parameters
    ----------
    module : torch.nn.Module
        Or anything with `named_parameters()`, and `get_submodule(path)` where there are norms.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping

    Returns
    -------
    dict of ndarray
        In the module's precision, but at least float32. A copy.

    Raises
    ------
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    """
    return _read(model, mapping, _parameters(module, mapping))


def gradients_from_module(module: Any, model: Network, mapping: ModuleMapping) -> dict[str, Array]:
    """The gradients of a module's parameters, its `.grad`, by npple's names; 0 where it is None.

    Parameters
    ----------
    module : torch.nn.Module
        Or anything with `named_parameters()`, after its backward pass.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping
        Its norms must be the identity, as `load_module` leaves them.

    Returns
    -------
    dict of ndarray
        In the module's precision, but at least float32. A copy.

    Raises
    ------
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    """
    parameters = _named_parameters(module, mapping)
    own = {f"{path}.{kind}" for path in mapping.norms for kind in ("weight", "bias")}
    return _read(model, mapping, {name: _grad(name, parameter) for name, parameter
                                  in parameters.items() if name not in own})


def _read(model: Network, mapping: ModuleMapping, arrays: Arrays) -> dict[str, Array]:
    _check_mapping(model, mapping, arrays)
    dtype = np.result_type(np.float32, *arrays.values())
    return {name: np.array(mapping.parameters[name].forward(arrays), dtype, order="C")
            for name in model.shapes}


def load_module(module: Any, model: Network, mapping: ModuleMapping, params: Arrays) -> None:
    """Writes npple's parameters into a module.

    Parameters
    ----------
    module : torch.nn.Module
        Its parameters are overwritten, its norms become the identity.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping
    params : dict of ndarray
        As from `from_module` or `model.init`; cast to the module's precision.

    Raises
    ------
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    InputError
        For parameters that are not the model's, or that a constant of the mapping has no place for.
    """
    _write(module, model, mapping, params)


def _write(module: Any, model: Network, mapping: ModuleMapping, params: Arrays,
           own: Iterable[str] = ()) -> None:
    arrays = _parameters(module, mapping)
    _check_mapping(model, mapping, arrays, own)
    check_params(model.table, params)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    for name, value in params.items():
        move = mapping.parameters.get(name)
        if move is None or move.forward(arrays).shape != value.shape:
            continue  # the module's own
        placed = move.write(value, arrays)
        require((move.forward(arrays) == value)[~placed].all(),
                f"mapping: {name}: a constant in the module, which has no place for other values")
    for norm in mapping.norms:
        _make_identity(module.get_submodule(norm))
    for name, parameter in module.named_parameters():
        if name in arrays:
            parameter.data.copy_(parameter.new_tensor(arrays[name]))


def _named_parameters(module: Any, mapping: ModuleMapping) -> dict[str, Any]:
    """The module's own parameters by name, if both arguments are what they should be."""
    check_kind("mapping", mapping, ModuleMapping, "a ModuleMapping")
    require(callable(getattr(module, "named_parameters", None)) and not isinstance(module, type),
            f"module: a torch.nn.Module is needed, got {shown(module)}")
    return dict(module.named_parameters())


def _parameters(module: Any, mapping: ModuleMapping) -> dict[str, Array]:
    """The module's parameters as arrays, norms folded into the layers before them."""
    arrays, _ = as_arrays(_named_parameters(module, mapping), "module")
    for path, layer in mapping.norms.items():
        norm = module.get_submodule(path)
        mean, variance = _array(path, norm.running_mean), _array(path, norm.running_var)
        scale = arrays.pop(f"{path}.weight") / np.sqrt(variance + norm.eps)
        shift = arrays.pop(f"{path}.bias")
        arrays[f"{layer}.weight"] = arrays[f"{layer}.weight"] * scale[:, None]  # (out, in)
        arrays[f"{layer}.bias"] = (arrays[f"{layer}.bias"] - mean) * scale + shift
    return arrays


def _make_identity(norm: Any) -> None:
    """A batch normalisation that at inference changes nothing."""
    norm.weight.data.fill_(1)
    norm.bias.data.fill_(0)
    norm.running_mean.fill_(0)
    norm.running_var.fill_(1 - norm.eps)


def _array(name: str, tensor: Any) -> Array:
    return as_arrays({name: tensor}, "module")[0][name]


def _grad(name: str, tensor: Any) -> Array:
    """A tensor's gradient as an array; 0 where nothing depends on it."""
    if tensor.grad is None:
        return np.zeros(tuple(tensor.shape), np.float32)
    return _array(name, tensor.grad)


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _check_mapping(model: Network, mapping: ModuleMapping, arrays: Arrays,
                   own: Iterable[str] = ()) -> None:
    """Raises `MappingError` with every fault of the mapping but those of the names in `own`."""
    check_kind("model", model, Network, "a Network")
    shapes, faults = _shapes(arrays), []
    uses = {name: np.zeros(shape, int) for name, shape in shapes.items()}
    for name in {**model.shapes, **mapping.parameters}:
        move, expected = mapping.parameters.get(name), model.shapes.get(name)
        fault = move and _unreadable(move, shapes)
        if move and not fault:
            for source, _, places in move.origins(shapes)[1]:
                np.add.at(uses[source].reshape(-1), places, 1)
        fault = fault or not _matches(name, own) and _misfit(move, expected, shapes)
        if fault:
            faults.append(f"{_named(name)}: {fault}")
    for name, count in uses.items():
        if not count.all() and not _matches(name, mapping.idle):
            part = f"{(count == 0).sum()} of {count.size} entries" if count.any() else "it is"
            faults.append(f"{_named(name)} {shapes[name]} of the module: {part} not mapped")
        if (count > 1).any():
            faults.append(f"{_named(name)} {shapes[name]} of the module: mapped more than once")
    if faults:
        raise MappingError("\n  ".join([f"mapping: {len(faults)} parameters do not fit", *faults]))


def _unreadable(move: Move, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why an entry cannot be made of the module's arrays at all, or None."""
    unknown = [source for source in move.sources if source not in shapes]
    if unknown:
        return f"made of {', '.join(map(shown, unknown))}, which the module does not have"
    try:
        move.origins(shapes)
    except (ValueError, IndexError, TypeError) as error:
        return f"cannot be made of {_listed(move, shapes)}: {error}"
    return None


def _misfit(move: Move | None, expected: tuple[int, ...] | None,
            shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """How an entry differs from the model, where its shape is `expected`, or None."""
    if move is None:
        return f"of shape {expected} in the model, not mapped"
    if expected is None:
        return f"mapped to {_listed(move, shapes)}, not in the model"
    got, _ = move.origins(shapes)
    if got != expected:
        return f"of shape {expected} in the model, {got} made of {_listed(move, shapes)}"
    return None


def _listed(move: Move, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{_named(source)} {shapes[source]}" for source in move.sources) or "constants"


def _named(name: str) -> str:
    """A name as a line of the error shows it: plain, or the start of a long one in quotes."""
    text = shown(name)
    return text[1:-1] if isinstance(name, str) and not text.endswith("...") else text


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


# Checks -----------------------------------------------------------------------------------------

STEADY = 64  # unit roundoffs by which two runs may differ


def check_module(vectors: Vectors, module: Any, mapping: ModuleMapping, *,
                 conventions: Sequence[str] = ()) -> Report:
    """Whether a module computes what the vectors say: its tensors, and its gradients by autograd.

    A copy of the module is given the vectors' parameters and inputs and runs in the mode
    (`train`, `eval`) it is in. Gradients are those of the joint loss and of each task's loss, which
    npple computes from the module's own `tower/TASK`.

    Parameters
    ----------
    vectors : npple.oracle.Vectors
    module : torch.nn.Module
    mapping : ModuleMapping
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden", "loss-data-mean".

    Returns
    -------
    npple.oracle.Report

    Raises
    ------
    InputError
        For a mapping that does not fit, or parts of the module that did not run.
    """
    require(isinstance(vectors, Vectors),
            f"vectors: from make_vectors or load, got {type(vectors).__name__}")
    _named_parameters(module, mapping)
    module = _copy(module)
    _write(module, vectors.model, mapping, vectors.params, mapping.own)
    arrays, stored = as_arrays(dict(module.named_parameters()))
    results = {f"params/{name}": move.forward(arrays) for name, move in mapping.parameters.items()}
    again, _ = as_arrays(_run(_copy(module), mapping, vectors.inputs))
    seen = _run(module, mapping, vectors.inputs)
    arrays, computed = as_arrays(seen)
    for name, move in mapping.tensors.items():
        fault = _unreadable(move, _shapes(arrays))
        require(not fault, f"mapping: tensors: {name}: {fault}")
        results[name] = move.forward(arrays)
    precisions = {f"params/{name}": _coarsest(move, stored)
                  for name, move in mapping.parameters.items()}
    precisions |= {name: _coarsest(move, computed) for name, move in mapping.tensors.items()}
    grads = _gradients(module, mapping, vectors, seen, results)
    for name in grads:
        of = name.partition("/")[2]
        precisions[name] = precisions[of if of in precisions else f"params/{of}"]
    unsteady = tuple(name for name, move in mapping.tensors.items()
                     if not _steady(move.forward(again), results[name], precisions[name]))
    return judged(vectors, results | grads, precisions, "gradients", conventions,
                  _reasons(module, mapping, seen), unsteady)


def _steady(one: Array, other: Array, precision: str) -> bool:
    """Whether two runs agree, but for the order of sums."""
    scale = STEADY * UNITS[precision] * np.abs(other).max(initial=0.0)
    return bool(one.shape == other.shape and np.array_equal(np.isnan(one), np.isnan(other))
                and (np.abs(one - other) <= scale)[~np.isnan(one)].all())


def _reasons(module: Any, mapping: ModuleMapping, seen: Mapping[str, Any]) -> dict[str, str]:
    """Why gradients are missing or results not what they are at inference, in words."""
    reasons = {}
    training = [(path, type(part).__name__) for path, part in module.named_modules()
                if getattr(part, "training", False)]
    dropout = [path for path, kind in training if "Dropout" in kind]
    if dropout:
        reasons["dropout"] = f"active in {', '.join(dropout[:3])}: call .eval() before the check"
    norms = [path for path, kind in training if "BatchNorm" in kind]
    if norms:
        reasons["batch statistics"] = (f"in use in {', '.join(norms[:3])}: call .eval() to check "
                                       "the model at inference")
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    if frozen:
        reasons["frozen parameters"] = (f"{', '.join(frozen[:3])}"
                                        f"{f' and {len(frozen) - 3} more' * (len(frozen) > 3)}: "
                                        "requires_grad is False, so they have no gradient")
    cut = [name for name, move in mapping.tensors.items() if name.startswith("tower/")
           and not any(_tracked(seen[source]) for source in move.sources)]
    if cut:
        reasons["gradients"] = (f"none come from {', '.join(cut[:3])}: computed under no_grad, "
                                "detached, or through NumPy")
    return reasons


def _tracked(tensor: Any) -> bool:
    return bool(getattr(tensor, "requires_grad", False))


def _coarsest(move: Move, precisions: Mapping[str, str]) -> str:
    """What an array made of a module's was computed in."""
    return max((precisions[source] for source in move.sources), key=UNITS.__getitem__,
               default="float64")


def _copy(module: Any) -> Any:
    try:
        return deepcopy(module)
    except RuntimeError as error:  # PyTorch copies no tensor that an operation made
        raise InputError(f"module: cannot be copied, does it keep tensors of an earlier run? "
                         f"({error})") from error


def _run(module: Any, mapping: ModuleMapping, inputs: Features) -> dict[str, Any]:
    """The module's own tensors that the mapping asks for, by the names it has for them."""
    wanted = {source for move in mapping.tensors.values() for source in move.sources}
    seen: dict[str, Any] = {}
    runs: Counter[str] = Counter()

    def watch(path: str) -> Callable[..., None]:
        def hook(part: Any, inputs: Any, output: Any) -> None:
            runs[path] += 1
            again = f"#{runs[path]}" if runs[path] > 1 else ""
            seen.update(_parts(f"{path or 'return'}{again}", output))
            seen.update(_parts(f"{path}:input{again}", inputs[0] if inputs else None))
        return hook

    paths = dict(module.named_modules())
    for source in {re.split(r"[:#[]", name)[0] for name in wanted}:
        path = "" if source == "return" else source
        if path in paths:
            paths[path].register_forward_hook(watch(path))
    fed = mapping.feed(inputs)
    module(*(_tensors(module, part) for part in (fed if isinstance(fed, tuple) else (fed,))))
    missing = sorted(wanted - seen.keys())
    require(not missing, f"mapping: tensors: {', '.join(missing)}: the module has no such part, or "
                         "it did not run")
    return {name: seen[name] for name in wanted}


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) and, of a tuple or dict, the same for each element."""
    yield name, value
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _parts(f"{name}[{key}]", part)


def _tensors(module: Any, value: Any) -> Any:
    """An array, or a dict of arrays, as tensors: reals in the module's dtype, codes as integers."""
    if isinstance(value, dict):
        return {name: _tensors(module, array) for name, array in value.items()}
    like = next(iter(dict(module.named_parameters()).values()))
    return (like if value.dtype.kind == "f" else like.long()).new_tensor(value)


def _gradients(module: Any, mapping: ModuleMapping, vectors: Vectors, seen: Mapping[str, Any],
               results: Arrays) -> dict[str, Array]:
    """The gradients of the joint loss and of each task's alone, where all outputs are known.

    Those of a `Pass` are left out: there a module has one tensor for the expert and all its uses.
    """
    table, rows = vectors.model.table, len(next(iter(vectors.targets.values())))
    outputs = {f"tower/{task}": results.get(f"tower/{task}") for task in table.tasks}
    tracked = {name: tensor for name, tensor in seen.items() if _tracked(tensor)}
    known: dict[str, Array] = {
        name: y.astype(np.float64) for name, y in outputs.items() if y is not None
             and y.shape == vectors.expected[name].shape}
    learning = [name for name in known if tracked.keys() >= set(mapping.tensors[name].sources)]
    if known.keys() < outputs.keys() or not learning:
        return {}
    trace = Trace(table, known, {})
    targets, masks = check_targets(table, vectors.targets, vectors.masks, rows,
                                   np.dtype(np.float64))
    for tensor in tracked.values():
        tensor.retain_grad()
    moves = mapping.parameters | {name: move for name, move in mapping.tensors.items()
                                  if tracked.keys() >= set(move.sources)
                                  and not isinstance(table.row.get(name), Pass)}
    alone = {f"grad[{task}]": dict.fromkeys(table.tasks, 0.0) | {task: 1.0} for task in table.tasks}
    found: dict[str, Array] = {}
    for kind, weights in ({"grad": vectors.weights} | alone).items():
        starts = joint_loss(trace, targets, masks, weights)[1]
        starts = {name: dy for name, dy in starts.items() if name in learning}
        grads = _backward(mapping, starts, tracked, dict(module.named_parameters()))
        found |= {f"{kind}/{name}": move.forward(grads) for name, move in moves.items()
                  if f"{kind}/{name}" in vectors.expected or name in mapping.parameters}
    return found


def _backward(mapping: ModuleMapping, starts: Mapping[str, Any], tracked: Mapping[str, Any],
              parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The gradients by the module's names, from those of the outputs by npple's."""
    leaves = {**tracked, **parameters}
    for tensor in leaves.values():
        tensor.grad = None
    start = {name: np.zeros(tuple(tensor.shape)) for name, tensor in tracked.items()}
    for name, dy in starts.items():
        mapping.tensors[name].write(dy, start)
    total = sum((tensor * tensor.new_tensor(start[name])).sum()
                for name, tensor in tracked.items() if start[name].any())
    if isinstance(total, int):  # nothing that learns has a part in this loss
        return {name: _grad(name, tensor) for name, tensor in leaves.items()}
    total.backward(retain_graph=True)
    return {name: _grad(name, tensor) for name, tensor in leaves.items()}
