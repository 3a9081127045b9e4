"""What is asked of a torch.nn.Module: its parameters as arrays, a copy, what its parts return.

PyTorch is not imported: the module is asked for `named_parameters`, `get_submodule` and forward
hooks, its tensors for arrays.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from npple.checks import check_kind, named, shown
from npple.core.base import Array
from npple.errors import InputError, require
from npple.oracle.arrays import as_arrays
from npple.oracle.frameworks import fed
from npple.oracle.mappings import ModuleMapping
from npple.oracle.norms import Norm, folded, names_of


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
    norms = norms_of(module, mapping)
    return folded(as_arrays(tensors_of(module, norms, mapping), "module")[0], norms)


def norms_of(module: Any, mapping: ModuleMapping) -> list[Norm]:
    """The normalisations of a mapping, by the names of the module's parameters and buffers."""
    return [norm if isinstance(norm, Norm) else _norm(module, path, norm)
            for path, norm in mapping.norms.items()]


def _norm(module: Any, path: str, layer: str) -> Norm:
    parts = dict(module.named_modules())
    for name in (path, layer):
        require(name in parts, f"mapping: norms: {named(name)}: no part of the module")
    norm, before = parts[path], parts[layer]
    require(getattr(norm, "running_mean", None) is not None,
            f"mapping: norms: {named(path)}: a {type(norm).__name__} without running statistics, "
            "which cannot be folded")
    affine = norm.weight is not None
    return Norm(f"{layer}.weight", f"{path}.running_mean", f"{path}.running_var", norm.eps,
                None if before.bias is None else f"{layer}.bias",
                f"{path}.weight" if affine else None, f"{path}.bias" if affine else None, inputs=-1)


def tensors_of(module: Any, norms: Iterable[Norm], mapping: ModuleMapping) -> dict[str, Any]:
    """The module's parameters by name, and the buffers of its normalisations and its front."""
    names = {name for norm in norms for name in names_of(norm)} | mapping.front.keys()
    return dict(module.named_parameters()) | {
        name: buffer for name, buffer in (module.named_buffers() if names else ())
        if name in names}


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
