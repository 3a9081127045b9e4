"""What the tests draw (models, routing tables, parameters, batches) and how they compare arrays.

    models()      a network from any of the builders: kinds, counts, depths, activations
    tables()      any valid routing table, made row by row: far more than the builders make
    problems()    a network with parameters, a batch, masks and weights

The shape of things is drawn by hypothesis, so it shrinks; the numbers come from a drawn seed.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from npple.architectures import ARCHITECTURES
from npple.network import Network
from npple.core.ops import ACTIVATIONS
from npple.core.losses import kind_of
from npple.routing import Experts, Gate, Level, Pass, Source, Table, Tower

MODELS = ("single_task", "shared_bottom", "mmoe", "ml_mmoe", "cgc", "ple")
TASKS = ("vtr", "vcr", "shr", "cmr", "like")
KINDS = ("binary", "regression", "multiclass:3")
SMOOTH = tuple(name for name in ACTIVATIONS if name != "relu")
DTYPES = ("float32", "float64", "longdouble", "complex128")

seeds = st.integers(0, 2**32 - 1)
widths = st.integers(1, 4)
unit_lists = st.lists(widths, min_size=1, max_size=2).map(tuple)
hidden_lists = st.lists(widths, max_size=2).map(tuple)
task_dicts = st.lists(st.sampled_from(KINDS), min_size=1, max_size=5).map(
    lambda kinds: dict(zip(TASKS, kinds, strict=False)))
bags = st.tuples(widths, widths, st.sampled_from(["mean", "sum"]))
columns = st.lists(st.just("numeric") | st.tuples(widths, widths) | bags, min_size=1,
                   max_size=3).map(lambda kinds: {f"c{i}": kind for i, kind in enumerate(kinds)})


# Models -----------------------------------------------------------------------------------------

@st.composite
def arguments(draw, name, activations=tuple(ACTIVATIONS)):
    """Arguments for the builder called `name`, uneven wherever the builder allows it."""
    made = {"inputs": draw(widths | columns), "tasks": draw(task_dicts),
            "tower_units": draw(hidden_lists), "activation": draw(st.sampled_from(activations)),
            "expert_units": draw(unit_lists)}
    if name in ("single_task", "shared_bottom"):
        return made
    made |= {"gate_units": draw(hidden_lists), "gate_bias": draw(st.booleans())}
    if name == "mmoe":
        return made | {"experts": draw(st.integers(1, 4))}
    levels = 1 if name == "cgc" else draw(st.integers(1, 4))
    if name == "ml_mmoe":
        return made | {"levels": levels,
                       "experts": draw(st.lists(widths, min_size=levels, max_size=levels)),
                       "expert_units": draw(st.lists(unit_lists, min_size=levels,
                                                     max_size=levels))}
    shared = draw(st.lists(st.integers(0, 2), min_size=levels, max_size=levels))
    made["shared_experts"] = shared
    made["task_experts"] = [{task: draw(st.integers(0 if n else 1, 3)) for task in made["tasks"]}
                            for n in shared]
    if name == "cgc":
        return made
    units = draw(st.lists(unit_lists, min_size=levels, max_size=levels))
    return made | {"levels": levels, "expert_units": units, "cut": draw(st.booleans())}


@st.composite
def models(draw, names=MODELS, activations=tuple(ACTIVATIONS)):
    """A network that one of the named builders makes."""
    name = draw(st.sampled_from(names))
    return ARCHITECTURES[name](**draw(arguments(name, activations)))


# Tables -----------------------------------------------------------------------------------------

@st.composite
def tables(draw, activations=tuple(ACTIVATIONS)):
    """A valid routing table: 1 to 5 tasks, 1 to 4 levels, and rows that read whatever they may.

    Groups read any earlier representation, now and then with another group's parameters; fusions
    take some experts of some groups of any level so far; some rows are read by nobody.
    """
    inputs = draw(widths | columns.map(lambda kinds: tuple(kinds.items())))
    wide = inputs if isinstance(inputs, int) else sum(
        1 if kind == "numeric" else kind[1] for _, kind in inputs)
    made, groups, levels = {"input": wide}, [], []
    for level in range(1, draw(st.integers(1, 4)) + 1):
        new = [_group(draw, f"level{level}/g{i}/experts", made, groups, activations)
               for i in range(draw(st.integers(1, 3)))]
        groups += new
        fusions = [_fusion(draw, f"level{level}/f{i}", made, groups, activations)
                   for i in range(draw(st.integers(1, 4)))]
        made |= {fusion.name: _width(fusion, groups) for fusion in fusions}
        levels.append(Level(tuple(new), tuple(fusions)))
    towers = tuple(Tower(task, kind, draw(st.sampled_from(list(made))),
                         *_layers(draw, hidden_lists, activations))
                   for task, kind in draw(task_dicts).items())
    return Table(inputs, tuple(levels), towers)


def _layers(draw, units, activations):
    """Widths of layers and what follows each."""
    units = draw(units)
    return units, tuple(draw(st.sampled_from(activations)) for _ in units)


def _group(draw, name, made, groups, activations):
    """Experts that read a representation in `made`, perhaps with an earlier group's parameters."""
    if groups and draw(st.booleans()):
        lender = draw(st.sampled_from(groups))
        alike = [rep for rep, width in made.items() if width == made[lender.reads]]
        return Experts(name, draw(st.sampled_from(alike)), lender.count, lender.units,
                       lender.activations, lender.parameters)
    return Experts(name, draw(st.sampled_from(list(made))), draw(st.integers(1, 3)),
                   *_layers(draw, unit_lists, activations))


def _fusion(draw, name, made, groups, activations):
    """A gate over some experts of some groups of equal width; a pass where that is one expert."""
    width = draw(st.sampled_from(groups)).units[-1]
    alike = [group for group in groups if group.units[-1] == width]
    chosen = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3, unique=True))
    sources = tuple(Source(group.name, draw(_some(group.count))) for group in chosen)
    if sum(_size(source, groups) for source in sources) == 1:
        return Pass(name, sources)
    return Gate(name, sources, draw(st.sampled_from(list(made))),
                *_layers(draw, hidden_lists, activations), draw(st.booleans()))


@cache
def _some(count):
    """All experts of a group (None), or distinct ones in any order."""
    return st.none() | st.lists(st.integers(0, count - 1), min_size=1, unique=True).map(tuple)


def _size(source, groups):
    count, = (group.count for group in groups if group.name == source.name)
    return count if source.experts is None else len(source.experts)


def _width(fusion, groups):
    width, = {group.units[-1] for group in groups
              if group.name in {source.name for source in fusion.sources}}
    return width


# Parameters and batches -------------------------------------------------------------------------

class Problem(NamedTuple):
    """All that `loss_and_grads` takes; `data` is x, targets and masks."""

    model: Network
    params: dict
    x: object
    targets: dict
    masks: dict
    weights: dict

    @property
    def data(self):
        return self.x, self.targets, self.masks

    def loss_and_grads(self, **changes):
        return Network.loss_and_grads(*self._replace(**changes))


@st.composite
def problems(draw, networks=models() | tables().map(Network), dtype="float64"):
    """A network with random parameters and data: any number of rows from 1, any masks."""
    return problem(draw(networks), draw(seeds), draw(st.integers(1, 6)), dtype)


def problem(model, seed, rows, dtype="float64"):
    """Random parameters, batch, masks and weights of a model; the numbers fit into float32."""
    rng = np.random.default_rng(seed)
    real = np.zeros(0, dtype).real.dtype
    targets = {task: random_target(rng, kind, rows)
               .astype("float32" if kind_of(kind).width == 1 else int)
               for task, kind in model.tasks.items()}
    masks = {task: rng.random(rows) < rng.choice([0, 0.6, 1], p=[0.1, 0.6, 0.3])
             for task in model.tasks if rng.random() < 0.7}
    weights = {task: float(rng.choice([1, 0.5, rng.uniform(0.1, 3)])) for task in model.tasks}
    return Problem(model, random_params(rng, model, dtype),
                   random_x(rng, model.table, rows, real), targets, masks, weights)


def random_params(rng, model, dtype="float64"):
    """Parameters with no zeros and none equal, biases and embeddings included."""
    return {name: (rng.standard_normal(shape) / np.sqrt(shape[-2] if "weight" in name else 2))
            .astype("float32").astype(dtype) for name, shape in model.shapes.items()}


def random_x(rng, table, rows, real="float64"):
    if isinstance(table.inputs, int):
        return rng.standard_normal((rows, table.inputs)).astype("float32").astype(real)
    return {name: rng.standard_normal(rows).astype("float32").astype(real) if kind == "numeric"
            else rng.integers(kind[0], size=rows) if len(kind) == 2
            else random_bags(rng, kind[0], rows) for name, kind in table.inputs}


def random_bags(rng, size, rows):
    """Bags, some of them empty, but not the first."""
    bags = rng.integers(-1, size, (rows, rng.integers(1, 4)))
    bags[0, 0] = rng.integers(size)
    return bags


def random_target(rng, kind, rows):
    if kind == "regression":
        return rng.standard_normal(rows)
    return rng.integers(max(kind_of(kind).width, 2), size=rows)


# Comparing --------------------------------------------------------------------------------------

def worst(actual, expected, floor=1e-3):
    """The largest error, element by element, relative to the larger of the two values.

    Where both are below `floor` times the array's largest entry, relative to that instead.
    """
    assert actual.shape == expected.shape
    if not np.any(expected) and not np.any(actual):
        return 0.0
    size = np.maximum(np.abs(actual), np.abs(expected))
    return float((np.abs(actual - expected) / np.maximum(size, floor * size.max())).max())


def assert_close(actual, expected, tolerance, floor=1e-3):
    """Two dictionaries of arrays (or numbers) agree, by `worst`, under each name."""
    assert set(actual) == set(expected)
    errors = {name: worst(np.asarray(actual[name]), np.asarray(expected[name]), floor)
              for name in expected}
    assert max(errors.values()) <= tolerance, {k: v for k, v in errors.items() if v > tolerance}


def assert_equal(actual, expected):
    """Two dictionaries of arrays are equal to the last bit."""
    assert set(actual) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name, strict=True)
