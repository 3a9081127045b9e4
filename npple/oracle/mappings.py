"""Where another program keeps what npple has a name for: one mapping for all frameworks.

Where a program keeps what npple calls `level1/income/experts/layer1/weight` is the user's to say,
as a `ModuleMapping`: a dict from npple's names to the program's.

A program's array and npple's hold the same numbers in another order: transposed, split, stacked. So
a mapping only says how to read. The way back is found by sending numbered entries through it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from math import inf, prod
from typing import Any

import numpy as np

from npple.archive import FilePath, read_bytes, replacing
from npple.checks import (check_kind, check_params, check_path, check_texts, few, named,
                          shown)
from npple.core.base import AnyArray, Array, Arrays, Mask
from npple.errors import FileError, InputError, MappingError, require
from npple.network import Network
from npple.oracle import recipes
from npple.oracle.norms import Norm
from npple.oracle.report import suggestion
from npple.oracle.rounding import UNITS

FORMAT, VERSION = "npple mapping", 1

# Mappings ---------------------------------------------------------------------------------------

@dataclass(frozen=True, repr=False)
class Move:
    """One of npple's arrays: `make` of the module's arrays `sources`, which only moves entries.

    Attributes
    ----------
    make : callable
        The module's arrays, in the order of `sources` -> npple's array.
    sources : tuple of str
        The module's names.
    recipe : str or dict, optional
        The same as plain data, which can be saved; see `npple.oracle.recipes`.
    """

    make: Callable[..., AnyArray]
    sources: tuple[str, ...]
    recipe: Any = None

    def __repr__(self) -> str:
        """The call that makes it, as far as it is known."""
        if self.recipe is not None:
            return recipes.code(self.recipe)
        return f"moved({', '.join(['...', *map(repr, self.sources)])})"

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
        for name, mask, places in self.origins(shapes_of(arrays))[1]:
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
        weight, biases = transposed(f"{where}.weight"), by_recipe(f"{where}.bias")
    else:
        weight = stacked(*(transposed(f"{path}.weight") for path in where))
        biases = stacked(*(f"{path}.bias" for path in where))
    return {f"{layer}/weight": weight} | ({f"{layer}/bias": biases} if bias else {})


def stacked(*sources: "str | Move", axis: int = 0) -> Move:
    """Arrays on top of one another, along a new axis: the outputs of a group's experts.

    Parameters
    ----------
    sources : str or Move
        The module's names, or what was made of its arrays, in npple's order; of one shape.
    axis : int
        Where the new axis stands; in front by default.

    Returns
    -------
    Move
    """
    return _combined("stack", list(sources), {"axis": axis} if axis else {})


def concatenated(*sources: "str | Move", axis: int = 0) -> Move:
    """Arrays one after the other.

    Parameters
    ----------
    sources : str or Move
        The module's names, or what was made of its arrays, in npple's order.
    axis : int
        Along which; the first by default.

    Returns
    -------
    Move
    """
    return _combined("concat", list(sources), {"axis": axis} if axis else {})


def transposed(source: "str | Move", axes: Sequence[int] | None = None) -> Move:
    """An array with its axes in another order.

    Parameters
    ----------
    source : str or Move
        The module's name, or what was made of its arrays.
    axes : sequence of int, optional
        By default the other way round: (out, in) becomes (in, out).

    Returns
    -------
    Move
    """
    return _combined("transpose", source, {} if axes is None else {"axes": list(axes)})


def sliced(source: "str | Move", *at: int | Sequence[int] | None) -> Move:
    """A part of an array.

    Parameters
    ----------
    source : str or Move
        The module's name, or what was made of its arrays.
    at : int, sequence of int or None
        For each axis, as far as needed: an index, which drops the axis; (start, stop) or
        (start, stop, step); None for all of it.

    Returns
    -------
    Move
    """
    return _combined("slice", source,
                     {"at": [list(each) if isinstance(each, Sequence) else each for each in at]})


def reshaped(source: "str | Move", *shape: int) -> Move:
    """An array's entries, row by row, in another shape.

    Parameters
    ----------
    source : str or Move
        The module's name, or what was made of its arrays.
    shape : int
        The lengths of the axes; one may be -1, for what is left.

    Returns
    -------
    Move
    """
    return _combined("reshape", source, {"shape": list(shape)})


def _combined(kind: str, parts: Any, option: dict[str, Any]) -> Move:
    """The move of a recipe over names and moves; over a `moved(...)` one without a recipe."""
    each = [_entry(f"{recipes.FUNCTIONS[kind]}(...)", part)
            for part in (parts if isinstance(parts, list) else [parts])]
    many = isinstance(parts, list)
    if all(move.recipe is not None for move in each):
        return by_recipe({kind: [move.recipe for move in each] if many else each[0].recipe}
                         | option)
    names = [f"part {i}" for i in range(len(each))]
    recipe = {kind: names if many else names[0]} | option
    recipes.check_recipe(recipes.FUNCTIONS[kind], recipe)
    sources = tuple(dict.fromkeys(source for move in each for source in move.sources))

    def make(*arrays: AnyArray) -> AnyArray:
        given = dict(zip(sources, arrays))
        made = (move.make(*(given[source] for source in move.sources)) for move in each)
        return recipes.follow(recipe, dict(zip(names, map(np.asarray, made))))
    return Move(make, sources)


def by_recipe(recipe: Any) -> Move:
    """What a recipe of `npple.oracle.recipes` makes.

    Parameters
    ----------
    recipe : str or dict
        The name of an array, or plain data that says how to make one of several.

    Returns
    -------
    Move

    Raises
    ------
    InputError
        If it is no recipe.
    """
    recipes.check_recipe("recipe", recipe)
    sources = recipes.sources(recipe)
    return Move(lambda *arrays: recipes.follow(recipe, dict(zip(sources, arrays))), sources, recipe)


def _entry(what: str, entry: Any) -> Move:
    """An entry of a mapping as a move."""
    if isinstance(entry, str):
        recipes.check_recipe(what, entry)
        return by_recipe(entry)
    require(isinstance(entry, Move),
            f"{what}: the module's name or moved(...) is needed, got {shown(entry)}")
    return entry


def as_it_is(inputs: Any) -> Any:
    """npple's inputs as they are."""
    return inputs


@dataclass(frozen=True)
class ModuleMapping:
    """Where a module, or another program, has what npple has a name for.

    Attributes
    ----------
    parameters : dict of str or Move
        npple's parameter -> the module's of the same shape, or what `transposed`, `stacked`,
        `concatenated`, `sliced`, `reshaped` or `moved` make of its arrays; see `linear`.
    tensors : dict of str or Move
        npple's tensor -> the name under which the `run` of `check_arrays` gives it. Of a module:
        what a part of it returns ("experts.0"), is given first ("towers.1:input"), or the module
        itself returns ("return"). An element of a tuple or dict is "return[0]", "return[income]";
        what a part returns when it runs again is "experts.0#2".
        With all of `tower/TASK`, gradients are checked too.
    idle : tuple of str
        Patterns (`*`) of parameters of the module that the model has no use for.
    own : tuple of str
        Patterns of npple's parameters that may differ in a check: not in the model, of another
        shape, not in the module. The bias of a gate, say. What the module has then stays as it is.
    norms : dict of str or Norm
        A batch normalisation -> the layer before it. Of a module: its path -> the path of the
        `nn.Linear`. Of any program: any name -> a `Norm`. Weights are read with the normalisation
        at inference folded in; written, it is made the identity. A check leaves it a scale, so
        that one that stands after the activation fails.
    feed : callable
        npple's inputs (an array, or a dict of columns) -> the module's: an array, a dict of arrays,
        or a tuple for several arguments. By default as they are.
    front : dict of str or float
        What stands before the model, such as a linear layer on numeric columns: the program's array
        -> "identity", or a number for all of it, with which inputs pass through as they are. Those
        are written, in a check too; read, the weights are those of the model behind.

    Raises
    ------
    InputError
        For an entry that is neither a name nor `moved(...)`.
    """

    parameters: dict[str, Any]
    tensors: dict[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    norms: dict[str, str | Norm] = field(default_factory=dict)
    feed: Callable[[Any], Any] = as_it_is
    front: dict[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(callable(self.feed), f"mapping: feed: a function is needed, got {shown(self.feed)}")
        for kind in ("idle", "own"):
            object.__setattr__(self, kind, tuple(check_texts(f"mapping: {kind}",
                                                             getattr(self, kind))))
        for kind in ("parameters", "tensors", "norms", "front"):
            check_kind(f"mapping: {kind}", getattr(self, kind), dict, "a dict")
        for kind in ("parameters", "tensors"):
            object.__setattr__(self, kind, {
                name: _entry(f"mapping: {kind}: {named(name)}", entry)
                for name, entry in getattr(self, kind).items()})
        for name, norm in self.norms.items():
            check_kind(f"mapping: norms: {named(name)}", norm, (str, Norm),
                       "the name of a layer, or a Norm(...),")
        layers = [norm if isinstance(norm, str) else norm.weight for norm in self.norms.values()]
        twice = [layer for layer, count in Counter(layers).items() if count > 1]
        require(not twice, f"mapping: norms: {few(twice)}: two of one layer")
        for name, value in self.front.items():
            number = isinstance(value, (int, float)) and abs(value) < inf
            require(number or value == "identity",
                    f"mapping: front: {named(name)}: 'identity' or a number is needed, got "
                    f"{shown(value)}")

    def save(self, path: FilePath) -> None:
        """Writes the mapping as JSON, as docs/oracle.md has it.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        InputError
            For an entry made by `moved(...)`, or a `feed`: functions, which no file can hold.
        FileError
            If the file cannot be written.
        """
        require(self.feed is as_it_is, "mapping: feed: a function, which cannot be saved; set it "
                                       "again after loading, with dataclasses.replace")
        text = json.dumps({"format": FORMAT, "version": VERSION,
                           **{kind: {name: _saved(f"mapping: {kind}: {named(name)}", move)
                                     for name, move in getattr(self, kind).items()}
                              for kind in ("parameters", "tensors")},
                           "idle": self.idle, "own": self.own, "norms": {
                               name: norm if isinstance(norm, str) else
                               {key: each for key, each in vars(norm).items() if each is not None}
                               for name, norm in self.norms.items()}, "front": self.front},
                          indent=1)
        with replacing(path) as file:
            file.write(text.encode())


def _saved(what: str, move: Move) -> Any:
    require(move.recipe is not None, f"{what}: moved(...) is a function, which cannot be saved; "
                                     "use transposed, stacked, concatenated, sliced, reshaped")
    return move.recipe


def load_mapping(path: FilePath) -> ModuleMapping:
    """The mapping of a JSON file, written by `ModuleMapping.save` or by hand.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    ModuleMapping

    Raises
    ------
    InputError
        If `path` is no path.
    FileError
        If the file cannot be read, or anything in it is not what docs/oracle.md says.
    """
    check_path("path", path)
    try:
        content = json.loads(read_bytes(path), object_pairs_hook=_distinct,
                             parse_constant=_no_number)
        return _from_json(content)
    except (InputError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise FileError(f"{path}: no mapping: {reason}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        require(name not in found, f"{shown(name)} stands twice in one object")
        found[name] = value
    return found


def _no_number(text: str) -> None:
    raise InputError(f"{text} is no JSON")


def _from_json(content: Any) -> ModuleMapping:
    check_kind("file", content, dict, "an object")
    kinds = {"parameters": dict, "tensors": dict, "idle": list, "own": list, "norms": dict,
             "front": dict}
    for name, expected in {"format": FORMAT, "version": VERSION}.items():
        require(content.get(name) == expected,
                f"{name}: {shown(content.get(name))}, expected {expected!r}")
    for name, value in content.items():
        require(name in kinds or name in ("format", "version"),
                f"{shown(name)} is not known, expected {', '.join(kinds)}")
        if name in kinds:
            check_kind(name, value, kinds[name], f"a JSON {JSON[kinds[name]]}")
    require("parameters" in content, "parameters: missing")
    for kind in ("parameters", "tensors"):
        for name, recipe in content.get(kind, {}).items():
            recipes.check_recipe(f"{kind}: {named(name)}", recipe)
    norms = {name: _norm(f"norms: {named(name)}", norm)
             for name, norm in content.get("norms", {}).items()}
    return ModuleMapping(**{kind: content[kind] for kind in kinds if kind in content} | {
        kind: {name: by_recipe(recipe) for name, recipe in content.get(kind, {}).items()}
        for kind in ("parameters", "tensors")} | {"norms": norms})


def _norm(what: str, norm: Any) -> str | Norm:
    check_kind(what, norm, (str, dict), "the name of a layer, or an object with what a Norm has,")
    if isinstance(norm, str):
        return norm
    known = {each.name: each.default is MISSING for each in fields(Norm)}
    for name in norm:
        require(name in known, f"{what}: {shown(name)} is not known, expected {', '.join(known)}")
    missing = [name for name, needed in known.items() if needed and name not in norm]
    require(not missing, f"{what}: {', '.join(missing)}: missing")
    return Norm(**norm)


JSON = {dict: "object", list: "array"}


# Reading and writing by a mapping ---------------------------------------------------------------

def read(model: Network, mapping: ModuleMapping, arrays: Arrays) -> dict[str, Array]:
    """A program's arrays as npple's parameters: in its precision, at least float32; a copy.

    Raises
    ------
    MappingError
        With a list of all that is not mapped or of the wrong shape, on both sides.
    """
    check_mapping(model, mapping, arrays)
    dtype = np.result_type(np.float32, *arrays.values())
    return {name: np.array(mapping.parameters[name].forward(arrays), dtype, order="C")
            for name in model.shapes}


def written(model: Network, mapping: ModuleMapping, params: Arrays, arrays: Arrays,
            own: Iterable[str] = ()) -> dict[str, Array]:
    """A program's arrays with npple's parameters in them; what matches `own` may not fit.

    Raises
    ------
    MappingError
        With a list of all that is not mapped or of the wrong shape, on both sides.
    InputError
        For parameters that are not the model's, or that a constant of the mapping has no place for.
    """
    check_mapping(model, mapping, arrays, own)
    check_params(model.table, params)
    arrays = {name: np.array(array) for name, array in arrays.items()} | passing(mapping, arrays)
    for name, value in params.items():
        move = mapping.parameters.get(name)
        if move is None or move.forward(arrays).shape != value.shape:
            continue  # the program's own
        whole = [source for source in move.sources if arrays[source].dtype.kind != "f"]
        require(not whole, f"mapping: {named(name)}: {few(whole)}: integers, which hold no "
                           "parameter; make them floats")
        placed = move.write(value, arrays)
        require((move.forward(arrays) == value)[~placed].all(),
                f"mapping: {named(name)}: a constant in the module, which has no place for "
                "other values")
    return arrays


def passing(mapping: ModuleMapping, arrays: Arrays) -> dict[str, Array]:
    """What stands in front of the model, so that inputs pass through as they are."""
    made = {}
    for name, value in mapping.front.items():
        require(name in arrays, f"mapping: front: {named(name)}: not among the weights")
        shape = arrays[name].shape
        require(value != "identity" or len(shape) == 2,
                f"mapping: front: {named(name)} {shape}: 'identity' is for a matrix; expected a "
                "number")
        made[name] = np.eye(*shape) if value == "identity" else np.full(shape, float(value))
    return made


def coarsest(move: Move, precisions: Mapping[str, str]) -> str:
    """What an array made of a program's was computed in."""
    return max((precisions[source] for source in move.sources), key=UNITS.__getitem__,
               default="float64")


def shapes_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def check_mapping(model: Network, mapping: ModuleMapping, arrays: Arrays,
                   own: Iterable[str] = ()) -> None:
    """Raises `MappingError` with every fault of the mapping but those of the names in `own`."""
    check_kind("model", model, Network, "a Network")
    passing(mapping, arrays)  # refuses what is not there
    shapes, faults = shapes_of(arrays), []
    uses = {name: np.zeros(shape, int) for name, shape in shapes.items()}
    for name in {**model.shapes, **mapping.parameters}:
        move, expected = mapping.parameters.get(name), model.shapes.get(name)
        fault = move and unreadable(move, shapes)
        if move and not fault:
            for source, _, places in move.origins(shapes)[1]:
                np.add.at(uses[source].reshape(-1), places, 1)
        fault = fault or not _matches(name, own) and _misfit(move, expected, shapes)
        if fault:
            faults.append(f"{named(name)}: {fault}")
    for name, count in uses.items():
        if not count.all() and name not in mapping.front and not _matches(name, mapping.idle):
            part = f"{(count == 0).sum()} of {count.size} entries" if count.any() else "it is"
            faults.append(f"{named(name)} {shapes[name]} of the program: {part} not mapped")
        if (count > 1).any():
            faults.append(f"{named(name)} {shapes[name]} of the program: mapped more than once")
    if faults:
        hint = "; idle= names what the model has no use for" * any(
            fault.endswith("it is not mapped") for fault in faults)
        head = f"mapping: {len(faults)} parameters do not fit{hint}"
        raise MappingError("\n  ".join([head, *faults]))


def unreadable(move: Move, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why an entry cannot be made of the module's arrays at all, or None."""
    unknown = [source for source in move.sources if source not in shapes]
    if unknown:
        known = suggestion(unknown[0], shapes) or f"; there are {few(shapes) if shapes else 'none'}"
        return f"made of {few(map(shown, unknown))}, which the program does not have{known}"
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
    return ", ".join(f"{named(source)} {shapes[source]}" for source in move.sources) or "constants"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
