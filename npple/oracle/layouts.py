"""Ways in which a program's arrays can hold a model's parameters, by their shapes alone.

A `Slot` is what one expert or one layer of the model needs: a matrix or a vector. A `Piece` is a
part of a program's array that may fill one. Experts may be arrays of their own, lie on top of one
another along any axis, or side by side. Axes of length 1 count for nothing, and a matrix may be
the other way round: the `key` of a shape is what is left.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np

from npple.core.base import Array
from npple.routing import Experts, Table

Key = tuple[int, ...]
Shape = tuple[int, ...]
COMBINATIONS = 5000  # of layouts that are looked at
READINGS = 8  # of one array's shape


@dataclass(frozen=True)
class Slot:
    """A matrix or vector of a model: a parameter, or what one expert has of it."""

    name: str
    index: int | None
    shape: Shape

    @property
    def key(self) -> Key:
        """The lengths of the axes, sorted, without ones."""
        return key_of(self.shape)

    def of(self, params: Mapping[str, Array]) -> Array:
        """The slot's part of the parameters, a view."""
        return params[self.name] if self.index is None else params[self.name][self.index]

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a program's array: how it is cut out, and its shape there."""

    source: str
    recipe: Any
    shape: Shape

    @property
    def key(self) -> Key:
        """The lengths of the axes, sorted, without ones."""
        return key_of(self.shape)

    def fill(self, slot: Slot, turned: bool) -> Any:
        """The recipe of what stands in the slot; `turned` for the other way round."""
        recipe, shape = self.recipe, self.shape
        if turned:
            if len(shape) != 2:
                recipe, shape = {"reshape": recipe, "shape": [*_long(shape)]}, _long(shape)
            recipe, shape = {"transpose": recipe}, shape[::-1]
        return recipe if shape == slot.shape else {"reshape": recipe, "shape": [*slot.shape]}


def key_of(shape: Iterable[int]) -> Key:
    """The lengths of the axes, sorted, without ones."""
    return tuple(sorted(_long(shape)))


def _long(shape: Iterable[int]) -> Shape:
    return tuple(length for length in shape if length > 1)


def oriented(canonical: Array, shape: Shape) -> Array:
    """An array of a key, as an array of this shape: the other way round where that fits."""
    turned = canonical.ndim == 2 and _long(shape) != canonical.shape
    return (canonical.T if turned else canonical).reshape(shape)


def slots_of(table: Table) -> list[Slot]:
    """What the parameters of a table consist of, in its order."""
    banks = {row.parameters: row.count for row in table.rows if isinstance(row, Experts)}
    slots = []
    for name, shape in table.shapes.items():
        bank = any(name.startswith(f"{parameters}/") for parameters in banks)
        slots += ([Slot(name, i, shape[1:]) for i in range(shape[0])] if bank or len(shape) > 2
                  else [Slot(name, None, shape)])
    return slots


# Readings ---------------------------------------------------------------------------------------

def layouts(shapes: Mapping[str, Shape], slots: Sequence[Slot]) -> Iterator[list[Piece]]:
    """Ways to cut a program's arrays into pieces for the slots, those that fit best first.

    Arrays of one shape are cut alike. What cannot be cut into pieces for any slot is left whole.
    """
    wanted = Counter(slot.key for slot in slots)
    alike: dict[Shape, list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault(shape, []).append(name)
    choices = [_readings(shape, wanted, len(names)) or [[Piece("", "", shape)]]
               for shape, names in alike.items()]
    keys = list(wanted)
    counts = [np.array([[len(names) * sum(piece.key == key for piece in pieces) for key in keys]
                        for pieces in cuts]) for names, cuts in zip(alike.values(), choices)]
    ranked = []
    for rank, chosen in enumerate(islice(product(*(range(len(cuts)) for cuts in choices)),
                                         COMBINATIONS)):
        lacking = np.array(list(wanted.values())) - sum(
            count[i] for count, i in zip(counts, chosen))
        ranked.append((lacking.clip(0).sum(), (-lacking).clip(0).sum(), rank, chosen))
    for *_, chosen in sorted(ranked, key=lambda each: each[:3]):
        cut = {shape: cuts[i] for shape, cuts, i in zip(alike, choices, chosen)}
        yield [Piece(name, _in(piece.recipe, name), piece.shape)
               for name, shape in shapes.items() for piece in cut[shape]]


def _in(recipe: Any, name: str) -> Any:
    """A recipe over "" as one over a name."""
    if not isinstance(recipe, dict):
        return name
    return {kind: _in(part, name) if kind in ("slice", "reshape") else part
            for kind, part in recipe.items()}


def _readings(shape: Shape, wanted: Counter[Key], arrays: int) -> list[list[Piece]]:
    """Ways to cut so many arrays of one shape, those of few pieces first; recipes over ""."""
    cuts = list(_cuts(Piece("", "", shape), wanted, 2))
    fitting = [cut for cut in cuts if len(cut) == 1 or all(
        arrays * count <= wanted[key] for key, count in Counter(p.key for p in cut).items())]
    rows, *width = shape if len(shape) == 2 else (0,)
    if key_of((rows - 1, *width)) in wanted and rows > 2:  # an embedding with a row for padding
        fitting.append([Piece("", {"slice": "", "at": [[1, rows]]}, (rows - 1, *width)),
                        Piece("", {"slice": "", "at": [0]}, (*width,))])
    return sorted(fitting, key=len)[:READINGS]


def _cuts(piece: Piece, wanted: Mapping[Key, int], depth: int) -> Iterator[list[Piece]]:
    if piece.key in wanted:
        yield [piece]
    if depth:
        for parts in _halved(piece, wanted):
            inner = [_cuts(part, wanted, depth - 1) for part in parts]
            yield from ([piece for cut in cuts for piece in cut] for cuts in zip(*inner))


def _halved(piece: Piece, wanted: Mapping[Key, int]) -> Iterator[list[Piece]]:
    """A piece taken apart along each of its axes: entry by entry, or in equal parts."""
    most = sum(wanted.values())
    for axis, length in enumerate(piece.shape):
        if (len(_long(piece.shape)) > 1 or () in wanted) and 1 < length <= most:
            shape = piece.shape[:axis] + piece.shape[axis + 1:]
            yield [_part(piece, axis, i, shape) for i in range(length)]
    for axis, length in enumerate(piece.shape):
        for count in range(2, min(length, most + 1)):
            if length % count == 0:
                shape = (*piece.shape[:axis], length // count, *piece.shape[axis + 1:])
                if prod(shape) > 1:
                    width = length // count
                    yield [_part(piece, axis, [i * width, (i + 1) * width], shape)
                           for i in range(count)]
                    yield [_part(piece, axis, [i, length, count], shape) for i in range(count)]


def _part(piece: Piece, axis: int, at: int | list[int], shape: Shape) -> Piece:
    return Piece("", {"slice": piece.recipe, "at": [*[None] * axis, at]}, shape)


# Recipes for whole parameters -------------------------------------------------------------------

def assembled(filled: Mapping[Slot, Any]) -> dict[str, Any]:
    """Parameter -> its recipe, from those of its slots; only parameters that are complete."""
    by_name: dict[str, list[Any]] = {}
    for slot, recipe in filled.items():
        by_name.setdefault(slot.name, []).append((slot.index, recipe))
    made = {}
    for name, parts in by_name.items():
        if parts[0][0] is None:
            made[name] = parts[0][1]
        else:
            made[name] = _together([recipe for _, recipe in sorted(parts, key=lambda p: p[0])])
    return made


def _together(recipes: list[Any]) -> Any:
    """Recipes on top of one another; neighbouring slices of one array as one slice."""
    first, *rest = recipes
    turned = all(isinstance(recipe, dict) and recipe.keys() == {"transpose"} for recipe in recipes)
    inner = [recipe["transpose"] for recipe in recipes] if turned else recipes
    ats = [recipe["at"] if isinstance(recipe, dict) and recipe.keys() == {"slice", "at"} else None
           for recipe in inner]
    if (ats[0] and len(ats[0]) == 1 and isinstance(ats[0][0], int)
            and ats == [[ats[0][0] + i] for i in range(len(ats))]
            and all(recipe["slice"] == inner[0]["slice"] for recipe in inner)):
        some = {"slice": inner[0]["slice"], "at": [[ats[0][0], ats[0][0] + len(ats)]]}
        return {"transpose": some, "axes": [0, 2, 1]} if turned else some
    return {"stack": [first, *rest]}


def base(key: Key, seed: int) -> tuple[Array, Array]:
    """Numbers for all pieces and slots of a key, and a step away from them.

    A square of numbers is symmetric, so that it does not matter which way round it is read; the
    step is not.
    """
    rng = np.random.default_rng([seed, *key])
    scale = 1 / np.sqrt(np.mean(key)) if len(key) > 1 else 0.5
    numbers, step = rng.normal(size=(2, *key)) * scale
    if len(key) == 2 and key[0] == key[1]:
        numbers = (numbers + numbers.T) / np.sqrt(2)
    return np.asarray(numbers), np.asarray(step)
