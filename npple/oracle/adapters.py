"""A torch.nn.Module by npple's names: weights out, weights in, tensors and gradients to check."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np

from npple.checks import few
from npple.core.base import Array, Arrays, Features
from npple.errors import require
from npple.network import Network
from npple.oracle.arrays import as_arrays, as_numpy
from npple.oracle.comparison import check_vectors
from npple.oracle.frameworks import Program, check_program
from npple.oracle.mappings import ModuleMapping, as_it_is, read, written
from npple.oracle.modules import (INPUT, copied, folded_parameters, norms_of, observed, opened,
                                  tensors_of)
from npple.oracle.norms import folded, folded_gradients, unfolded
from npple.oracle.report import Report
from npple.oracle.vectors import Vectors


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
    return read(model, mapping, folded_parameters(module, mapping))


def gradients_from_module(module: Any, model: Network, mapping: ModuleMapping) -> dict[str, Array]:
    """The gradients of a module's parameters, its `.grad`, by npple's names; 0 where it is None.

    Parameters
    ----------
    module : torch.nn.Module
        Or anything with `named_parameters()`, after its backward pass.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping
        Its norms at inference count as part of the layers before them.

    Returns
    -------
    dict of ndarray
        In the module's precision, but at least float32. A copy.

    Raises
    ------
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    """
    module = opened(module, mapping)
    norms = norms_of(module, mapping)
    tensors = tensors_of(module, norms, mapping)
    return read(model, mapping, folded_gradients(
        {name: _grad(name, tensor) for name, tensor in tensors.items()},
        as_arrays(tensors, "module")[0], norms))


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
           own: Iterable[str] = (), tell: bool = False) -> None:
    """Writes the parameters; where norms tell, the layers before them are divided by a slope."""
    module = opened(module, mapping)
    made = written(model, mapping, params, folded_parameters(module, mapping), own)
    norms = norms_of(module, mapping)
    tensors = tensors_of(module, norms, mapping)
    by_batch = [norm for path, norm in zip(mapping.norms, norms)
                if getattr(dict(module.named_modules()).get(path), "training", False)]
    arrays = unfolded(made, as_arrays(tensors, "module")[0], norms, tell, by_batch)
    for name, tensor in tensors.items():
        tensor.data.copy_(tensor.new_tensor(arrays[name]))


def _grad(name: str, tensor: Any) -> Array:
    """A tensor's gradient as an array; 0 where nothing depends on it."""
    if tensor.grad is None:
        return np.zeros(tuple(tensor.shape), np.float32)
    return as_arrays({name: tensor.grad}, "module")[0][name]


# Checks -----------------------------------------------------------------------------------------

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
        "gate-hidden", "output-probability", "loss-data-mean".

    Returns
    -------
    npple.oracle.Report

    Raises
    ------
    InputError
        For a mapping that does not fit, or parts of the module that did not run.
    """
    check_vectors(vectors)
    module = copied(opened(module, mapping))
    _write(module, vectors.model, mapping, vectors.params, mapping.own, tell=True)
    return check_program(vectors, _Module(module, mapping, vectors.inputs), conventions)


class _Module(Program):
    """A module with the vectors' parameters in it, which runs as a copy each time."""

    what = "module"
    tapped = True

    def __init__(self, module: Any, mapping: ModuleMapping, inputs: Features) -> None:
        self.module, self.mapping, self.inputs = module, mapping, inputs
        self.norms = norms_of(module, mapping)
        self.weights = tensors_of(module, self.norms, mapping)
        self._arrays, self._precisions = as_arrays(self.weights, "module")

    def stored(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Norms are part of the layers before them."""
        return folded(self._arrays, self.norms), self._precisions

    def run(self) -> dict[str, Any]:
        """The tensors that the mapping asks for; their graph leads to the copy's parameters."""
        module = copied(self.module)
        seen, every = _run(module, self.mapping, self.inputs)
        self.weights = dict(module.named_parameters())
        for tensor in every.values():
            if _tracked(tensor):
                tensor.retain_grad()
        self.again = {name: _again(name, tensor, every) for name, tensor in seen.items()
                      if _tracked(tensor)}
        return seen

    def tracked(self, seen: Mapping[str, Any]) -> set[str]:
        """Those that are in a graph."""
        return {name for name, tensor in seen.items() if _tracked(tensor)}

    def gradients(self, seen: Mapping[str, Any], starts: dict[str, Array]) -> dict[str, Array]:
        """By autograd, through the graph of the last run."""
        leaves = {**{name: seen[name] for name in starts}, **self.weights}
        for tensor in (*leaves.values(), *sum(self.again.values(), [])):
            tensor.grad = None
        total = sum((seen[name] * seen[name].new_tensor(start)).sum()
                    for name, start in starts.items() if start.any())
        if not isinstance(total, int):  # something that learns has a part in this loss
            total.backward(retain_graph=True)
        found = {name: sum((_grad(name, copy) for copy in self.again.get(name, [])),
                           start=_grad(name, tensor)) for name, tensor in leaves.items()
                 if name != "input" or tensor.grad is not None}  # nothing before it learns
        return folded_gradients(found, self._arrays, self.norms)

    def reasons(self, seen: Mapping[str, Any]) -> dict[str, str]:
        """What of the module stands in the way."""
        return _reasons(self.module, self.mapping, seen)


def _reasons(module: Any, mapping: ModuleMapping, seen: Mapping[str, Any]) -> dict[str, str]:
    """Why gradients are missing or results not what they are at inference, in words."""
    reasons = {}
    training = [(path, type(part).__name__) for path, part in module.named_modules()
                if getattr(part, "training", False)]
    dropout = [path for path, kind in training if "Dropout" in kind]
    if dropout:
        reasons["dropout"] = f"active in {few(dropout)}: call .eval() before the check"
    norms = [path for path, kind in training if "BatchNorm" in kind]
    if norms:
        reasons["batch statistics"] = (f"in use in {few(norms)}: call .eval() to check "
                                       "the model at inference")
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    if frozen:
        reasons["frozen parameters"] = (f"{few(frozen)}: "
                                        "requires_grad is False, so they have no gradient")
    cut = [name for name, move in mapping.tensors.items() if name.startswith("tower/")
           and not any(_tracked(seen[source]) for source in move.sources)]
    if cut:
        reasons["gradients"] = (f"none come from {few(cut)}: computed under no_grad, "
                                "detached, or through NumPy")
    return reasons


def _tracked(tensor: Any) -> bool:
    return bool(getattr(tensor, "requires_grad", False))


def _again(name: str, tensor: Any, every: Mapping[str, Any]) -> list[Any]:
    """What a part gave when it ran again: the same values, apart from the first in the graph.

    A gradient of one of npple's tensors is the sum of theirs.
    """
    path, bracket, key = name.partition("[")
    names = (f"{path}#{number}{bracket}{key}" for number in count(2))
    found = [tensor]
    for copy in (every[each] for each in takewhile(every.__contains__, names)):
        if _tracked(copy) and np.array_equal(as_numpy(name, tensor), as_numpy(name, copy)):
            for each in found:
                each.grad = None
            copy.sum().backward(retain_graph=True)
            found += [copy] if all(each.grad is None for each in found) else []
    return found[1:]


def _run(module: Any, mapping: ModuleMapping, inputs: Features
         ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors that the mapping asks for, by the module's names, and all that were seen."""
    wanted = {source for move in mapping.tensors.values() for source in move.sources}
    parts = {re.split(r"[:#[]", name)[0] for name in wanted}
    seen = observed(module, {"" if part == "return" else part for part in parts},
                    mapping.feed(inputs))
    missing = sorted(wanted - seen.keys())
    require(not missing, f"mapping: tensors: {few(missing)}: the module has no such part, or "
                         "it did not run")
    found = {name: seen[name] for name in wanted}
    plain = INPUT in seen and mapping.feed is as_it_is and "input" not in wanted
    return found | ({"input": seen[INPUT]} if plain else {}), seen
