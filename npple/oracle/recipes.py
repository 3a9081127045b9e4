"""How one array is made of others by moving entries, as plain data that JSON can hold.

    "experts.0.weight"                                     the array of that name
    {"transpose": R}, {"transpose": R, "axes": [1, 0]}     axes turned round, or in this order
    {"stack": [R, ...]}, {"stack": [R, ...], "axis": 1}    on top of one another, along a new axis
    {"concat": [R, ...]}, {"concat": [R, ...], "axis": 1}  one after the other
    {"slice": R, "at": [0, [2, 4], [0, 9, 3], null]}       an index, start and stop, a step; all
    {"reshape": R, "shape": [3, -1]}                       the same entries in another shape

R is again one of these.
"""

from typing import Any

import numpy as np

from npple.checks import shown
from npple.core.base import AnyArray, Arrays
from npple.errors import require

OPTIONS = {"transpose": "axes", "stack": "axis", "concat": "axis", "slice": "at",
           "reshape": "shape"}
FUNCTIONS = {"transpose": "transposed", "stack": "stacked", "concat": "concatenated",
             "slice": "sliced", "reshape": "reshaped"}
DEEPEST = 20  # recipes within recipes
LARGEST = 2**31  # of a number in a recipe


def check_recipe(what: str, recipe: Any, depth: int = 0) -> None:
    """Raise `InputError` unless this is a recipe."""
    if isinstance(recipe, str):
        return require(recipe, f"{what}: an empty name, expected the name of an array")
    require(depth < DEEPEST, f"{what}: more than {DEEPEST} recipes within one another")
    kinds = [kind for kind in OPTIONS if isinstance(recipe, dict) and kind in recipe]
    require(len(kinds) == 1, f"{what}: {shown(recipe)}, expected a name or an object with one of "
                             f"{', '.join(OPTIONS)}")
    kind, = kinds
    option, parts = OPTIONS[kind], recipe[kind]
    extra = [key for key in recipe if key not in (kind, option)]
    require(not extra, f"{what}: {kind}: {''.join(map(shown, extra[:1]))} is not known, only "
                       f"'{option}' may stand beside it")
    require(_fits(option, recipe) or option not in recipe and kind not in ("slice", "reshape"),
            f"{what}: {kind}: {option}: {shown(recipe.get(option))}, expected {EXPECTED[option]}")
    many = kind in ("stack", "concat")
    require(not many or isinstance(parts, list) and parts,
            f"{what}: {kind}: {shown(parts)}, expected a list of at least one")
    for part in parts if many else [parts]:
        check_recipe(what, part, depth + 1)


EXPECTED = {"axes": "a list of integers", "axis": "an integer", "shape": "a list of integers",
            "at": "a list of integers, [start, stop], [start, stop, step] or null"}


def _fits(option: str, recipe: dict[str, Any]) -> bool:
    value = recipe.get(option)
    if option == "axis":
        return _integer(value)
    return isinstance(value, list) and bool(value) and all(
        _integer(each) or option == "at" and _range(each) for each in value)


def _integer(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


def _range(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) in (2, 3)
                             and all(map(_integer, value)) and 0 not in value[2:])


def sources(recipe: Any) -> tuple[str, ...]:
    """The names in a recipe, each once, in the order in which they stand there."""
    return tuple(dict.fromkeys(_names(recipe)))


def _names(recipe: Any) -> list[str]:
    if isinstance(recipe, str):
        return [recipe]
    kind, parts = _kind(recipe)
    return [name for part in parts for name in _names(part)]


def _kind(recipe: dict[str, Any]) -> tuple[str, list[Any]]:
    """Which of `OPTIONS` this is, and what it is made of."""
    kind = next(kind for kind in OPTIONS if kind in recipe)
    return kind, recipe[kind] if isinstance(recipe[kind], list) else [recipe[kind]]


def follow(recipe: Any, arrays: Arrays) -> AnyArray:
    """What a recipe makes of arrays by name.

    Raises
    ------
    ValueError, IndexError
        Where the arrays do not have the axes that the recipe needs.
    """
    if isinstance(recipe, str):
        return arrays[recipe]
    kind, parts = _kind(recipe)
    made, option = [follow(part, arrays) for part in parts], recipe.get(OPTIONS[kind])
    if kind == "transpose":
        return np.transpose(made[0], option)
    if kind == "stack":
        return np.stack(made, option or 0)
    if kind == "concat":
        return np.concatenate(made, option or 0)
    if kind == "reshape":
        return np.reshape(made[0], option)
    return made[0][tuple(at if isinstance(at, int) else slice(*at or [None]) for at in option)]


def code(recipe: Any) -> str:
    """A recipe as the call of npple.oracle's functions that makes it."""
    if isinstance(recipe, str):
        return repr(recipe)
    kind, parts = _kind(recipe)
    option, name = recipe.get(OPTIONS[kind]), OPTIONS[kind]
    given = [code(part) for part in parts]
    if kind in ("slice", "reshape"):
        given += [repr(tuple(each) if isinstance(each, list) else each) for each in option]
    elif option is not None:
        given.append(f"{name}={tuple(option) if isinstance(option, list) else option}")
    return f"{FUNCTIONS[kind]}({', '.join(given)})"
