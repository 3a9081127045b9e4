"""What is asked of a torch.nn.Module: its parameters as arrays, a copy, what its parts return.

PyTorch is not imported: the module is asked for `named_parameters`, `get_submodule` and forward
hooks, its tensors for arrays.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from npple.checks import check_kind, shown
from npple.core.base import Array
from npple.errors import InputError, require
from npple.oracle.arrays import as_arrays
from npple.oracle.frameworks import fed
from npple.oracle.mappings import ModuleMapping


INPUT = "<input>"  # what a module is called with, among the names of its parts
# What PyTorch wraps a module in -> the attribute that has it.
WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module",
            "DistributedDataParallel": "module"}


def opened(module: Any, mapping: ModuleMapping) -> Any:
    """The module that a mapping names the parts of, without what wraps it."""
    check_kind("mapping", mapping, ModuleMapping, "a ModuleMapping")
    require(callable(getattr(module, "named_parameters", None)) and not isinstance(module, type),
            f"module: a torch.nn.Module is needed, got {shown(module)}")
    names = [source for entries in (mapping.parameters, mapping.tensors)
             for move in entries.values() for source in move.sources]
    while (inner := WRAPPERS.get(type(module).__name__)) and not any(
            name.startswith(f"{inner}.") for name in names):
        module = getattr(module, inner)
    return module


def folded_parameters(module: Any, mapping: ModuleMapping) -> dict[str, Array]:
    """The module's parameters as arrays, norms folded into the layers before them."""
    module = opened(module, mapping)
    arrays, _ = as_arrays(dict(module.named_parameters()), "module")
    for path, layer in mapping.norms.items():
        norm = module.get_submodule(path)
        mean, variance = array_of(path, norm.running_mean), array_of(path, norm.running_var)
        scale = arrays.pop(f"{path}.weight") / np.sqrt(variance + norm.eps)
        shift = arrays.pop(f"{path}.bias")
        arrays[f"{layer}.weight"] = arrays[f"{layer}.weight"] * scale[:, None]  # (out, in)
        arrays[f"{layer}.bias"] = (arrays[f"{layer}.bias"] - mean) * scale + shift
    return arrays


def make_scaling(norm: Any, scale: Array | float = 1.0) -> None:
    """A batch normalisation that at inference multiplies by a scale, or changes nothing."""
    norm.weight.data.copy_(norm.weight.new_tensor(np.broadcast_to(scale, norm.weight.shape)))
    norm.bias.data.fill_(0)
    norm.running_mean.fill_(0)
    norm.running_var.fill_(1 - norm.eps)


def telling_scale(norm: Any) -> Array:
    """A scale, exact in every precision, that tells a norm before an activation from one after.

    It turns signs, which a relu sees, and doubles, which a tanh sees; under batch statistics it
    turns signs alone, so that the norm itself stays what it is.
    """
    turned = np.resize([-1.0, 1.0], norm.weight.shape)
    return turned if norm.training else 2 * turned


def array_of(name: str, tensor: Any) -> Array:
    """One tensor as an array."""
    return as_arrays({name: tensor}, "module")[0][name]


def copied(module: Any) -> Any:
    """The module once more, which may be written to and watched; nothing in it is compiled."""
    for path, part in module.named_modules():
        require(all(kind.__name__ != "ScriptModule" for kind in type(part).__mro__),
                f"module: {path or 'it'} is traced or scripted, which cannot be watched nor copied "
                "with its gradients: hand over the module that it was made from")
    try:
        module = deepcopy(module)
    except RuntimeError as error:  # PyTorch copies no tensor that an operation made
        raise InputError(f"module: cannot be copied, does it keep tensors of an earlier run? "
                         f"({error})") from error
    for _, part in module.named_modules():
        if type(part).__name__ == "OptimizedModule":  # runs past the hooks, and backward once only
            part.forward = part._orig_mod.__call__
    return module


def observed(module: Any, paths: Iterable[str], inputs: Any) -> dict[str, Any]:
    """What the parts of a module at `paths` are given and return, by the names of a mapping."""
    seen: dict[str, Any] = {}
    runs: Counter[str] = Counter()

    def watch(path: str) -> Callable[..., None]:
        def hook(part: Any, inputs: Any, output: Any) -> None:
            runs[path] += 1
            again = f"#{runs[path]}" if runs[path] > 1 else ""
            seen.update(elements(f"{path or 'return'}{again}", output))
            seen.update(elements(f"{path}:input{again}", inputs[0] if inputs else None))
        return hook

    modules = dict(module.named_modules())
    for path in modules.keys() & set(paths):
        modules[path].register_forward_hook(watch(path))
    called(module, inputs, seen)
    return seen


def called(module: Any, inputs: Any, seen: dict[str, Any] | None = None) -> Any:
    """What a module returns for the inputs that its mapping feeds it.

    One argument of reals is noted in `seen` as `INPUT`; its gradient can be asked for.

    Raises
    ------
    InputError
        If it fails; with what it raised, and what it was given.
    """
    given = fed(inputs, next(iter(dict(module.named_parameters()).values())))
    if seen is not None and getattr(given, "requires_grad", None) is not None \
            and given.is_floating_point():
        seen[INPUT] = given.requires_grad_()
        given = given.clone()  # the module may write into it
    arguments = given if isinstance(given, tuple) else (given,)
    try:
        return module(*arguments)
    except Exception as error:
        kinds = ", ".join(type(argument).__name__ for argument in arguments)
        raise InputError(
            f"module: fails on its inputs ({kinds}): {type(error).__name__}: {error}; feed= of the "
            "mapping is the function that turns npple's inputs into its arguments") from error


def elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) and, of a tuple or dict, the same for each element."""
    yield name, value
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from elements(f"{name}[{key}]", part)
