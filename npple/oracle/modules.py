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


def named_parameters(module: Any, mapping: ModuleMapping) -> dict[str, Any]:
    """The module's own parameters by name, if both arguments are what they should be."""
    check_kind("mapping", mapping, ModuleMapping, "a ModuleMapping")
    require(callable(getattr(module, "named_parameters", None)) and not isinstance(module, type),
            f"module: a torch.nn.Module is needed, got {shown(module)}")
    return dict(module.named_parameters())


def folded_parameters(module: Any, mapping: ModuleMapping) -> dict[str, Array]:
    """The module's parameters as arrays, norms folded into the layers before them."""
    arrays, _ = as_arrays(named_parameters(module, mapping), "module")
    for path, layer in mapping.norms.items():
        norm = module.get_submodule(path)
        mean, variance = array_of(path, norm.running_mean), array_of(path, norm.running_var)
        scale = arrays.pop(f"{path}.weight") / np.sqrt(variance + norm.eps)
        shift = arrays.pop(f"{path}.bias")
        arrays[f"{layer}.weight"] = arrays[f"{layer}.weight"] * scale[:, None]  # (out, in)
        arrays[f"{layer}.bias"] = (arrays[f"{layer}.bias"] - mean) * scale + shift
    return arrays


def make_identity(norm: Any) -> None:
    """A batch normalisation that at inference changes nothing."""
    norm.weight.data.fill_(1)
    norm.bias.data.fill_(0)
    norm.running_mean.fill_(0)
    norm.running_var.fill_(1 - norm.eps)


def array_of(name: str, tensor: Any) -> Array:
    """One tensor as an array."""
    return as_arrays({name: tensor}, "module")[0][name]


def copied(module: Any) -> Any:
    """The module once more, which may be written to and watched."""
    try:
        return deepcopy(module)
    except RuntimeError as error:  # PyTorch copies no tensor that an operation made
        raise InputError(f"module: cannot be copied, does it keep tensors of an earlier run? "
                         f"({error})") from error


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
    called(module, inputs)
    return seen


def called(module: Any, inputs: Any) -> Any:
    """What a module returns for the inputs that its mapping feeds it."""
    given = fed(inputs, next(iter(dict(module.named_parameters()).values())))
    return module(*(given if isinstance(given, tuple) else (given,)))


def elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) and, of a tuple or dict, the same for each element."""
    yield name, value
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from elements(f"{name}[{key}]", part)
