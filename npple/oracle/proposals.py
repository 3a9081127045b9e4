"""A mapping found instead of written: from shapes, from what a program answers when it is probed.

All pieces of a program's arrays that have one shape are filled with the same numbers, and so are
the model's parameters. Then it does not matter which is which: a program of this model gives the
model's outputs, and if it does not, its layout or its structure is another. From there one piece
after the other is moved a step. How the outputs change is the piece's fingerprint, and the slot of
the model with the same fingerprint is its place. In the end both run on random parameters: only
what agrees there is called certain.

Without a function to run there are shapes, names and order, and nothing is certain.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from npple.checks import check_kind, few
from npple.core.base import Array, Arrays
from npple.errors import MappingError, require
from npple.network import Network
from npple.oracle.arrays import as_arrays
from npple.oracle.deviations import BY_NAME, DEVIATIONS, deviate
from npple.oracle.frameworks import Run, fed, like, norms_of_arrays
from npple.oracle.layouts import (Piece, Slot, assembled, base, layouts, oriented,
                                  slots_of)
from npple.oracle.mappings import ModuleMapping, as_it_is, by_recipe, passing, written
from npple.oracle.modules import (called, copied, elements, norms_of, observed, opened,
                                  tensors_of)
from npple.oracle.norms import Norm, folded, unfolded
from npple.oracle.rounding import UNITS
from npple.oracle.variant import Variant
from npple.oracle.vectors import ADAM
from npple.routing import Table
from npple.verify.cases import random_case

ROWS = 24  # of the batch on which a program is probed
SEEDS = 3  # bases that are tried
TRIED = 24  # layouts that are tried for the model; for a deviation from it, a few
POINTS = 4  # random parameters on which a program must agree
NOISE = 512  # unit roundoffs that do not count


@dataclass(frozen=True)
class Proposal:
    """A mapping, and how far it can be trusted; prints as code to paste.

    Attributes
    ----------
    mapping : ModuleMapping
        What was found; not complete where `missing` is not empty.
    certain : bool
        Whether the program, on random parameters written through the mapping, gave the outputs of
        the model, or of the deviation from it.
    deviation : str or None
        The deviation of the catalogue that the program's structure shows.
    missing : dict of str
        npple's parameter -> why it has no place.
    unplaced : dict of str
        The program's array -> why it is not, or not all of it, in the mapping.
    ambiguous : tuple of str
        What could as well be otherwise, a sentence each.
    """

    mapping: ModuleMapping
    certain: bool
    deviation: str | None = None
    missing: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, str] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The mapping as code, with what is to be known about it as comments."""
        mapping = self.mapping
        lines = ["mapping = ModuleMapping({",
                 *(f"    {name!r}: {move!r}," for name, move in mapping.parameters.items()), "}, {",
                 *(f"    {name!r}: {move!r}," for name, move in mapping.tensors.items())]
        rest = [f"{kind}={getattr(mapping, kind)!r}"
                for kind in ("idle", "own", "norms", "front") if getattr(mapping, kind)]
        rest += ["feed=..."] if mapping.feed is not as_it_is else []
        lines.append("}, " + ", ".join(rest) + ")" if rest else "})")
        lines.append("# certain: on random parameters the outputs agree" if self.certain else
                     "# NOT CERTAIN: look at each line, then ask npple.oracle's check")
        if self.deviation:
            lines.append(f"# the structure is not the model's but: {self.deviation}")
        lines += [f"# missing: {name}: {why}" for name, why in self.missing.items()]
        lines += [f"# not placed: {name}: {why}" for name, why in self.unplaced.items()]
        return "\n".join(lines + [f"# ambiguous: {text}" for text in self.ambiguous])


def suggest(weights: Any, model: Network, run: Run | None = None, *,
            feed: Callable[[Any], Any] = as_it_is, norms: Mapping[str, str | Norm] | None = None,
            front: Mapping[str, str | float] | None = None) -> Proposal:
    """Proposes the mapping of a program that should be a model.

    The outputs are taken by name where they bear the names of the tasks, otherwise in their order.

    Parameters
    ----------
    weights : torch.nn.Module or dict of array
        A module, which is copied and runs in eval mode; or the arrays of a program by its names.
    model : npple.network.Network
        What it should be.
    run : callable, optional
        As for `check_arrays`. Without it, and without a module, nothing is certain.
    feed, norms, front : optional
        As for a `ModuleMapping`; a module's norms are found.

    Returns
    -------
    Proposal

    Raises
    ------
    InputError
        For arguments that cannot be used, or a program that fails.
    """
    check_kind("model", model, Network, "a Network")
    module = callable(getattr(weights, "named_parameters", None)) and not isinstance(weights, type)
    require(module or isinstance(weights, Mapping),
            f"weights: a module or a dict of arrays is needed, got {type(weights).__name__}")
    require(run is None or callable(run) and not module,
            "run: a function is needed, and none beside a module, which runs by itself")
    known = ModuleMapping({}, feed=feed, norms=dict(norms or {}), front=dict(front or {}))
    probe = _ModuleProbe(weights, model, known) if module else _Probe(weights, model, known, run)
    if probe.runs:
        best: Proposal | None = None
        for name, table in _structures(model):
            for seed in range(SEEDS if name is None else 1):
                found = _probed(probe, name, table, seed)
                if found is None:
                    break  # the outputs differ: it is not of this structure
                if found.certain:
                    return found
                best = min(best or found, found, key=_faults)
        if best:
            return best
    return _guessed(probe)


def _faults(found: Proposal) -> int:
    """How much of a proposal is open."""
    return len(found.missing) + len(found.unplaced) + len(found.ambiguous)


def _structures(model: Network) -> Iterator[tuple[str | None, Table]]:
    """The model, every deviation from it that is another table, and those with gates' biases."""
    yield None, model.table
    start, seen = Variant(model.table, ADAM), [model.table]
    biased = [variant for variant, _ in deviate(BY_NAME["gate-bias"], start, {})]
    for base_of, added in ((start, ""), *((variant, " and gate-bias") for variant in biased)):
        for deviation in DEVIATIONS:
            for changed, _ in deviate(deviation, base_of, {}):
                if changed.table not in seen:
                    seen.append(changed.table)
                    yield deviation.name + added, changed.table


# Programs that answer ---------------------------------------------------------------------------

class _Probe:
    """A program that can be asked: arrays in, outputs out."""

    def __init__(self, weights: Mapping[str, Any], model: Network, mapping: ModuleMapping,
                 run: Run | None) -> None:
        self.weights, self.model, self.mapping, self.runs = weights, model, mapping, run is not None
        self._run = run
        self.x = random_case(model, 0, ROWS).x
        self._stored, precisions = as_arrays(weights, "weights")
        self._norms = self._layers()
        self.arrays = {name: array for name, array in folded(self._stored, self._norms).items()
                       if name not in mapping.front}
        coarsest = max(precisions.values(), key=UNITS.__getitem__, default="float64")
        self.noise = NOISE * UNITS[coarsest]

    def _layers(self) -> list[Norm]:
        return norms_of_arrays(self.mapping)

    def _weights(self, arrays: Arrays) -> dict[str, Any]:
        """The program's own, of which these are what is left when they are folded."""
        made = unfolded(arrays, self._stored, self._norms) | passing(self.mapping, self._stored)
        return {name: like(self.weights[name], array) for name, array in made.items()}

    def answer(self, arrays: Arrays) -> dict[str, Any]:
        """What the program gives with these weights, by its names."""
        assert self._run is not None
        weights = self._weights(arrays)
        first = next(iter(weights.values()))
        made = self._run(weights, fed(self.mapping.feed(self.x), first))
        check_kind("run", made, Mapping, "a dict of arrays")
        return dict(made)

    def outputs(self, arrays: Arrays) -> dict[str, Array]:
        """Its answer as arrays of numbers, as far as it has a row for each of the batch's."""
        return {name: array for name, array in _numbers(self.answer(arrays)).items()
                if array.ndim in (1, 2) and len(array) == ROWS}

    def tensors(self, arrays: Arrays) -> dict[str, Array]:
        """All that can be seen of it with these weights."""
        return _numbers(self.answer(arrays))


class _ModuleProbe(_Probe):
    """A module of PyTorch in eval mode, its normalisations part of the layers before them."""

    def __init__(self, module: Any, model: Network, mapping: ModuleMapping) -> None:
        self.module = copied(opened(module, ModuleMapping({})))
        self.module.eval()
        mapping = replace(mapping, norms=_norms(self.module) | mapping.norms)
        tensors = tensors_of(self.module, norms_of(self.module, mapping), mapping)
        super().__init__(tensors, model, mapping, lambda w, x: {})

    def _layers(self) -> list[Norm]:
        return norms_of(self.module, self.mapping)

    def answer(self, arrays: Arrays) -> dict[str, Any]:
        """What the module itself returns, by the names of a mapping."""
        self._write(arrays)
        return dict(elements("return", called(self.module, self.mapping.feed(self.x))))

    def tensors(self, arrays: Arrays) -> dict[str, Array]:
        """Also what its parts return."""
        self._write(arrays)
        module = copied(self.module)
        seen = observed(module, [path for path, _ in module.named_modules()],
                        self.mapping.feed(self.x))
        return _numbers({name: each for name, each in seen.items() if ":input" not in name})

    def _write(self, arrays: Arrays) -> None:
        for name, tensor in self._weights(arrays).items():
            self.weights[name].data.copy_(tensor)


def _norms(module: Any) -> dict[str, str | Norm]:
    """Each batch normalisation -> the linear layer right before it, of as many features."""
    found: dict[str, str | Norm] = {}
    before = ("", 0)
    for path, part in module.named_modules():
        if hasattr(part, "out_features"):
            before = path, part.out_features
        if ("BatchNorm" in type(part).__name__ and before[1] == part.num_features
                and part.affine and part.track_running_stats):
            found[path] = before[0]
    return found


def _numbers(seen: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of real numbers among an answer."""
    return {name: as_arrays({name: value}, "run")[0][name] for name, value in seen.items()
            if hasattr(value, "shape")}


# Outputs ----------------------------------------------------------------------------------------

Reading = dict[str, tuple[str, Any]]  # task -> tower or prediction, and the recipe


def _columns(model: Network, outputs: Arrays) -> dict[str, Any] | None:
    """Task -> the recipe of its output: by name, or in the order of the tasks; None if neither."""
    table = model.table
    shapes = {task: (ROWS, *(w for w in [table.row[f"tower/{task}"].width(table)] if w > 1))
              for task in table.tasks}
    named = {task: [name for name in outputs if name in (task, f"tower/{task}", f"return[{task}]")]
             for task in table.tasks}
    if all(len(names) == 1 for names in named.values()):
        recipes = {task: _shaped(names[0], outputs[names[0]].shape, shapes[task])
                   for task, names in named.items()}
        return None if None in recipes.values() else recipes
    pieces: list[tuple[Any, tuple[int, ...]]] = []
    for name, array in outputs.items():
        pieces += ([(name, array.shape)] if array.shape in shapes.values() else
                   [({"slice": name, "at": [None, i]}, (ROWS,)) for i in range(array.shape[1])])
    if [shape for _, shape in pieces] != [*shapes.values()]:
        return None
    return {task: recipe for task, (recipe, _) in zip(shapes, pieces)}


def _shaped(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
    """A recipe that makes an output of the shape that is wanted, or None."""
    if shape == wanted:
        return name
    return {"slice": name, "at": [None, 0]} if shape == (*wanted, 1) else None


def _read_outputs(recipes: Mapping[str, Any], outputs: Arrays, expected: Mapping[str, Any],
                  noise: float) -> Reading | None:
    """How each task's output is read, if all agree with the model's logits or predictions."""
    found: Reading = {}
    for task, recipe in recipes.items():
        got = by_recipe(recipe).forward(outputs)
        kind = next((kind for kind, wanted in expected[task].items()
                     if _close(got, wanted, noise)), None)
        if kind is None:
            return None
        found[task] = kind, recipe
    return found


def _close(got: Array, wanted: Array, noise: float) -> bool:
    return got.shape == wanted.shape and bool(
        np.abs(got - wanted).max() <= noise * max(1.0, np.abs(wanted).max()))


def _expected(table: Table, params: Arrays, x: Any) -> dict[str, dict[str, Array]]:
    """Task -> its output as "tower" and as "prediction"."""
    trace = Network(table).forward(dict(params), x)
    return {task: {"tower": trace.outputs[task], "prediction": trace.predictions[task]}
            for task in table.tasks}


def _alike_tensors(seen: Arrays, trace: Arrays, noise: float) -> dict[str, list[set[str]]]:
    """The model's tensor -> for it, or for each expert, the program's that are equal to it."""
    found = {}
    for name, tensor in trace.items():
        if name not in seen and name != "input" and not (
                name.startswith("tower/") and "/layer" not in name):
            parts = list(tensor) if tensor.ndim == 3 else [tensor]
            found[name] = [{own for own, array in seen.items() if _close(array, part, noise)}
                           for part in parts]
    return found


# Probing ----------------------------------------------------------------------------------------

class _Point:
    """A program and a table with the same numbers in all that has one shape and no place yet."""

    def __init__(self, probe: _Probe, table: Table, seed: int, pieces: list[Piece]) -> None:
        self.probe, self.table, self.seed, self.pieces = probe, table, seed, pieces
        self.slots = slots_of(table)
        self.generic = _generic(table, seed)
        self.placed: dict[Slot, tuple[Piece, bool]] = {}
        self.params = {name: np.zeros(shape) for name, shape in table.shapes.items()}
        self.arrays: dict[str, Array] = {name: np.array(array, np.float64)
                                         for name, array in probe.arrays.items()}
        for slot in self.slots:
            slot.of(self.params)[...] = oriented(base(slot.key, seed)[0], slot.shape)
        keys = {slot.key for slot in self.slots}
        for piece in pieces:
            if piece.key in keys:
                by_recipe(piece.recipe).write(oriented(base(piece.key, seed)[0], piece.shape),
                                              self.arrays)
        self.reading = self._reading()

    def _reading(self) -> Reading | None:
        """How the outputs are read, if they are those of the table."""
        outputs = self.probe.outputs(self.arrays)
        recipes = _columns(self.probe.model, outputs)
        expected = _expected(self.table, self.params, self.probe.x)
        return recipes and _read_outputs(recipes, outputs, expected, self.probe.noise)

    def place(self, slot: Slot, piece: Piece, turned: bool) -> None:
        """Puts numbers of their own into a slot and its piece."""
        self.placed[slot] = piece, turned
        value = slot.of(self.generic)
        slot.of(self.params)[...] = value
        by_recipe(piece.fill(slot, turned)).write(value, self.arrays)

    def open(self) -> tuple[list[Slot], list[Piece]]:
        """What has no place yet."""
        used = [piece for piece, _ in self.placed.values()]
        return ([slot for slot in self.slots if slot not in self.placed],
                [piece for piece in self.pieces if piece not in used])

    def program(self, arrays: Arrays) -> Array:
        """The outputs of the program, (rows, tasks' columns)."""
        assert self.reading is not None
        outputs = self.probe.outputs(arrays)
        return np.concatenate([by_recipe(recipe).forward(outputs).reshape(ROWS, -1)
                               for _, recipe in self.reading.values()], axis=1)

    def model(self, params: Arrays) -> Array:
        """The outputs of the model, alike."""
        assert self.reading is not None
        made = _expected(self.table, params, self.probe.x)
        return np.concatenate([made[task][kind].reshape(ROWS, -1)
                               for task, (kind, _) in self.reading.items()], axis=1)

    def agrees(self) -> bool:
        """Whether the program gives the model's outputs as it stands."""
        return _close(self.program(self.arrays), self.model(self.params), self.probe.noise)


def _probed(probe: _Probe, name: str | None, table: Table, seed: int) -> Proposal | None:
    """What is found if the program has the structure of this table, or None."""
    point = _point(probe, table, seed, TRIED if name is None else TRIED // 6)
    if point is None:
        return None
    silent, unread, ambiguous = _place_all(point)
    unread = unread if name else []  # in a deviation, what its table has and does not use
    filled = {slot: piece.fill(slot, turned) for slot, (piece, turned) in point.placed.items()}
    slots, pieces = point.open()
    open_names = {slot.name for slot in slots}
    recipes = assembled(filled)
    parameters = {each: by_recipe(recipes[each]) for each in table.shapes
                  if each in recipes and each not in open_names}
    missing = {str(slot): "no array changes the outputs as it does" for slot in slots
               if slot not in unread}
    unplaced: dict[str, str] = {}
    for piece in sorted(pieces, key=lambda piece: piece not in silent):  # what is not silent wins
        unplaced[piece.source] = SILENT if piece in silent else (
            "it changes the outputs as nothing in the model does")
    idle = tuple(array for array, why in unplaced.items() if why == SILENT)
    own = tuple(each for each in {**table.shapes, **probe.model.shapes}
                if table.shapes.get(each) != probe.model.shapes.get(each)
                or each in {slot.name for slot in unread})
    assert point.reading is not None
    tensors = {f"{kind}/{task}": by_recipe(recipe)
               for task, (kind, recipe) in point.reading.items()}
    found = Proposal(replace(probe.mapping, parameters=parameters, tensors=tensors, idle=idle,
                             own=own), False, name, missing, unplaced, ambiguous)
    return found if missing or ambiguous else _confirmed(point, found)


SILENT = "no output depends on it"


def _point(probe: _Probe, table: Table, seed: int, tried: int) -> _Point | None:
    """The first layout of the program in which it gives the outputs of the table, if any."""
    shapes = {name: array.shape for name, array in probe.arrays.items()}
    for pieces in islice(layouts(shapes, slots_of(table)), tried):
        point = _Point(probe, table, seed, pieces)
        if point.reading:
            return point
    return None


def _place_all(point: _Point) -> tuple[list[Piece], list[Slot], tuple[str, ...]]:
    """Places what has fingerprints; pieces and slots on which nothing depends, what is ambiguous.

    In rounds: a gate shows only where the experts that it mixes already differ. Where no piece has
    a place of its own, the first of those that have several takes the first, and that is told.
    """
    ambiguous: list[str] = []
    while point.agrees():
        matches, silent, unread = _matches(point)
        pieces = Counter(piece for piece, _, _ in matches)
        slots = Counter(slot for _, slot, _ in matches)
        sure = [(piece, slot, turned) for piece, slot, turned in matches
                if pieces[piece] == 1 == slots[slot]]
        if not matches:
            return silent, unread, tuple(ambiguous)
        for piece, slot, turned in sure or matches[:1]:
            point.place(slot, piece, turned)
        if not sure:
            piece, slot, _ = matches[0]
            others = {str(each) for own, each, _ in matches if own is piece} | {
                own.source for own, each, _ in matches if each == slot}
            ambiguous.append(f"{slot}: {piece.source} stands for it, and cannot be told from "
                             f"{few(sorted(others - {str(slot), piece.source}))}")
    return [], [], tuple(ambiguous)


Match = tuple[Piece, Slot, bool]


def _matches(point: _Point) -> tuple[list[Match], list[Piece], list[Slot]]:
    """Which pieces have the fingerprints of which slots; what of both nothing depends on."""
    slots, pieces = point.open()
    theirs = {piece: print_ for piece, _, print_ in
              _fingerprints(point, point.program, point.arrays, pieces)}
    ours = [*_fingerprints(point, point.model, point.params, slots)]
    noise = point.probe.noise * max(1.0, float(np.abs(point.model(point.params)).max()))
    silent = [piece for piece, print_ in theirs.items() if np.abs(print_).max() <= noise]
    unread = [slot for slot, turned, own in ours if not turned and np.abs(own).max() <= noise]
    matches = [(piece, slot, turned or _turned(piece, slot))
               for piece, print_ in theirs.items() if piece not in silent
               for slot, turned, own in ours if slot.key == piece.key
               and np.abs(own).max() > 4 * noise and np.abs(own - print_).max() <= noise]
    return matches, silent, unread


def _turned(piece: Piece, slot: Slot) -> bool:
    """Whether a shape that is no square stands the other way round."""
    lengths = [[length for length in each if length > 1] for each in (piece.shape, slot.shape)]
    return len(lengths[0]) == 2 and lengths[0] != lengths[1]


def _fingerprints(point: _Point, outputs: Callable[[Arrays], Array], numbers: Arrays,
                  parts: Sequence[Any]) -> Iterator[tuple[Any, bool, Array]]:
    """Yields (part, False, what a step in it changes); of a square slot also turned, True."""
    start = outputs(numbers)
    for part in parts:
        step = base(part.key, point.seed)[1]
        steps = [step, step.T] if isinstance(part, Slot) and _square(part) else [step]
        for turned, each in enumerate(steps):
            moved = {name: np.array(array) for name, array in numbers.items()}
            if isinstance(part, Slot):
                place = part.of(moved)
                place[...] = place + oriented(each, part.shape)
            else:
                move = by_recipe(part.recipe)
                move.write(move.forward(moved) + oriented(each, part.shape), moved)
            yield part, bool(turned), outputs(moved) - start


def _square(slot: Slot) -> bool:
    return len(slot.key) == 2 and slot.key[0] == slot.key[1]


def _confirmed(point: _Point, found: Proposal) -> Proposal:
    """The proposal, certain if the program agrees on random parameters of the table.

    On several, so that a tensor is not taken for one that only happens to be equal: relu changes
    nothing where all are positive.
    """
    probe, model, moves = point.probe, Network(point.table), found.mapping.parameters
    alike: dict[str, list[set[str]]] = {}
    for seed in range(POINTS):
        params: Arrays = _generic(point.table, SEEDS + seed)
        try:
            arrays = written(model, replace(found.mapping, front={}), params, point.arrays,
                             found.mapping.own)
        except MappingError:
            return found  # arrays that nothing in the model accounts for
        params = {name: moves[name].forward(arrays) if name in moves else array
                  for name, array in params.items()}
        if not _close(point.program(arrays), point.model(params), probe.noise):
            return replace(found, ambiguous=("each array has its place by itself, and on random "
                                             "parameters the outputs differ all the same",))
        again = _alike_tensors(probe.tensors(arrays), model.forward(dict(params), probe.x),
                               probe.noise)
        alike = {name: [one & other for one, other in zip(alike.get(name, parts), parts)]
                 for name, parts in again.items()}
    tensors = {name: by_recipe({"stack": [min(part) for part in parts]}
                               if name.endswith("/experts") or "/experts/" in name
                               else min(parts[0]))
               for name, parts in alike.items() if all(parts)}
    return replace(found, certain=True, mapping=replace(
        found.mapping, tensors=tensors | found.mapping.tensors))


def _generic(table: Table, seed: int) -> dict[str, Array]:
    """Random parameters, of which no two are alike."""
    rng = np.random.default_rng([seed, 1])
    return {name: rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 4)
            for name, shape in table.shapes.items()}


# Guessing ---------------------------------------------------------------------------------------

WORDS = {"experts": ("expert", "bottom"), "gate": ("gate", "select", "router"),
         "tower": ("tower", "head", "out"), "embedding": ("emb",)}


def _guessed(probe: _Probe) -> Proposal:
    """By shapes, names and order: nothing of it is certain."""
    slots = slots_of(probe.model.table)
    shapes = {name: array.shape for name, array in probe.arrays.items()}
    pieces = next(layouts(shapes, slots))
    placed, ambiguous = _assigned(probe, slots, pieces)
    filled = {slot: piece.fill(slot, _turned(piece, slot)) for slot, piece in placed.items()}
    recipes = assembled(filled)
    parameters = {name: by_recipe(recipes[name]) for name in probe.model.shapes
                  if all(slot in filled for slot in slots if slot.name == name)}
    missing = {str(slot): f"no array of shape {slot.shape} is left"
               for slot in slots if slot not in placed}
    whole = {name for name in shapes if any(piece.source == name for piece in pieces)}
    whole -= {piece.source for piece in pieces if piece not in placed.values()}
    unplaced = {name: "the model has nothing of its shape left"
                for name in shapes if name not in whole}
    why = ("the outputs are not the model's, nor those of a known deviation: this is by shapes, "
           "names and order alone" if probe.runs else
           "there was no function to run: this is by shapes, names and order alone")
    return Proposal(replace(probe.mapping, parameters=parameters), False, None, missing, unplaced,
                    (why, *ambiguous))


def _assigned(probe: _Probe, slots: Sequence[Slot], pieces: Sequence[Piece]
              ) -> tuple[dict[Slot, Piece], list[str]]:
    """For each shape the best assignment by names, then by order."""
    from scipy.optimize import linear_sum_assignment
    placed: dict[Slot, Piece] = {}
    ambiguous = []
    for key in dict.fromkeys(slot.key for slot in slots):
        mine = [slot for slot in slots if slot.key == key]
        theirs = [piece for piece in pieces if piece.key == key]
        scores = np.array([[_alike(probe, slot, piece) - 1e-3 * abs(i - j)
                            for j, piece in enumerate(theirs)] for i, slot in enumerate(mine)]
                          ).reshape(len(mine), len(theirs))
        for i, j in zip(*linear_sum_assignment(-scores)):
            placed[mine[i]] = theirs[j]
        if len(mine) > 1 or len(theirs) > 1:
            ambiguous.append(f"shape {mine[0].shape}: {len(theirs)} of the program's for "
                             f"{len(mine)} of the model's, the first {mine[0]}")
        elif _square(mine[0]):
            ambiguous.append(f"{mine[0]}: a square, it may stand the other way round")
    return placed, ambiguous


def _alike(probe: _Probe, slot: Slot, piece: Piece) -> float:
    """How well the names of a slot and of a piece's array agree."""
    name, parts = piece.source.lower(), slot.name.split("/")
    kind = next((kind for kind in WORDS if kind in parts), "")
    score = float(any(word in name for word in WORDS.get(kind, ())))
    stream = next((part for part in parts if part in (*probe.model.tasks, "shared")), "")
    score += 2.0 * (bool(stream) and stream.lower() in name)
    score += parts[-1] in name  # weight, bias
    return score + (piece.shape == slot.shape[::-1] or piece.shape == slot.shape) / 2
