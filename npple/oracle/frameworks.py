"""One door for every framework: weights by name, a function that runs, one that differentiates.

`check_arrays` asks a program of NumPy, JAX, TensorFlow, PyTorch or anything else whose arrays
speak `__dlpack__`, `__array__` or the buffer protocol. A `Program` is what it and `check_module`
have in common: tensors and gradients by the program's own names, which a mapping translates.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npple.checks import check_choice, check_kind, few, named, shown
from npple.core.base import Array, Arrays
from npple.core.passes import joint_loss
from npple.errors import require
from npple.kinds import check_targets
from npple.network import Network, Trace
from npple.oracle.arrays import as_arrays, as_numpy
from npple.oracle.comparison import EXPECT, check_vectors, judged
from npple.oracle.mappings import (ModuleMapping, Move, by_recipe, coarsest, read, shapes_of,
                                   unreadable, written)
from npple.oracle.norms import Norm, folded, folded_gradients, unfolded
from npple.oracle.report import Report
from npple.oracle.rounding import UNITS
from npple.oracle.vectors import Vectors
from npple.routing import Pass

STEADY = 64  # unit roundoffs by which two runs may differ
NEARER = 10  # times to the probability than to the logit, and an output is the former

Run = Callable[[dict[str, Any], Any], Mapping[str, Any]]
Gradients = Callable[[dict[str, Any], Any, dict[str, Any]], Mapping[str, Any]]


# Weights ----------------------------------------------------------------------------------------

def from_arrays(weights: Mapping[str, Any], model: Network, mapping: ModuleMapping
                ) -> dict[str, Array]:
    """The weights of a program as npple's parameters.

    Parameters
    ----------
    weights : dict of array
        The program's, by its own names, of any framework.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping

    Returns
    -------
    dict of ndarray
        In the program's precision, but at least float32. A copy.

    Raises
    ------
    InputError
        For weights that are no arrays of real numbers.
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    """
    return read(model, mapping, folded(_weights(weights, mapping), norms_of_arrays(mapping)))


def into_arrays(weights: Mapping[str, Any], model: Network, mapping: ModuleMapping,
                params: Arrays) -> dict[str, Any]:
    """npple's parameters as the weights of a program.

    Parameters
    ----------
    weights : dict of array
        The program's, for their shapes and dtypes, and for what is not mapped. They stay as they
        are.
    model : npple.network.Network
        The same architecture in npple.
    mapping : ModuleMapping
    params : dict of ndarray
        As from `from_arrays` or `model.init`; cast to the program's precision.

    Returns
    -------
    dict of array
        Names, shapes and dtypes of `weights`: arrays of NumPy or JAX, tensors of PyTorch; for other
        libraries arrays of NumPy.

    Raises
    ------
    InputError
        For weights that are no arrays of real numbers, parameters that are not the model's, or that
        a constant of the mapping has no place for.
    MappingError
        With a list of all parameters that are not mapped or of the wrong shape, on both sides.
    """
    made = _written(model, mapping, params, _weights(weights, mapping))
    return {name: like(weights[name], array) for name, array in made.items()}


def _weights(weights: Mapping[str, Any], mapping: ModuleMapping) -> dict[str, Array]:
    check_kind("mapping", mapping, ModuleMapping, "a ModuleMapping")
    return as_arrays(weights, "weights")[0]


def norms_of_arrays(mapping: ModuleMapping) -> list[Norm]:
    """The normalisations of a program that is no module."""
    for name, norm in mapping.norms.items():
        require(isinstance(norm, Norm),
                f"mapping: norms: {named(name)}: {shown(norm)} is a layer of a module of PyTorch; "
                "expected Norm(weight, mean, variance, eps, ...) of names among the weights")
    return [norm for norm in mapping.norms.values() if isinstance(norm, Norm)]


def _written(model: Network, mapping: ModuleMapping, params: Arrays, arrays: Arrays,
             own: Sequence[str] = (), tell: bool = False) -> dict[str, Array]:
    """A program's arrays with npple's parameters in them, its normalisations included."""
    norms = norms_of_arrays(mapping)
    made = written(model, mapping, params, folded(arrays, norms), own)
    return unfolded(made, arrays, norms, tell)


def like(value: Any, array: Array) -> Any:
    """An array in the kind and dtype of another's value: of the same library, if it offers that."""
    if callable(getattr(value, "new_tensor", None)):  # PyTorch
        return value.new_tensor(array)
    if callable(getattr(value, "__array_namespace__", None)):  # NumPy, JAX, CuPy
        return value.__array_namespace__().asarray(array, dtype=value.dtype, copy=True)
    dtype = as_numpy("weights", value).dtype
    return array.astype(dtype if dtype.name in UNITS else np.float32)


# Programs ---------------------------------------------------------------------------------------

class Program(ABC):
    """A program with the vectors' parameters in it. All names are its own."""

    mapping: ModuleMapping
    weights: Mapping[str, Any]
    what = "run"  # gives its tensors
    tapped = False  # whether gradients are taken where a part sees a tensor

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """Its tensors on the vectors' inputs."""

    @abstractmethod
    def gradients(self, seen: Mapping[str, Any], starts: dict[str, Array]) -> dict[str, Array]:
        """The gradients of weights and tensors, from those of the tensors in `starts`."""

    def stored(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Its weights as arrays, as the mapping reads them, and their precisions."""
        return as_arrays(self.weights)

    def tracked(self, seen: Mapping[str, Any]) -> set[str]:
        """Which of the tensors gradients can start from."""
        return set(seen)

    def reasons(self, seen: Mapping[str, Any]) -> dict[str, str]:
        """Why gradients are missing or results not what they are at inference, in words."""
        return {}


def check_program(vectors: Vectors, program: Program, conventions: Sequence[str] = (),
                  expect: str = "gradients") -> Report:
    """Whether a program computes what the vectors say: its tensors, and its gradients."""
    mapping = program.mapping
    stored, precisions_of = program.stored()
    results = {f"params/{name}": move.forward(stored) for name, move in mapping.parameters.items()}
    precisions = {f"params/{name}": coarsest(move, precisions_of)
                  for name, move in mapping.parameters.items()}
    again, _ = as_arrays(program.run(), program.what)
    seen = program.run()
    arrays, computed = as_arrays(seen, program.what)
    moves = {name: _slim(move, arrays, vectors.expected.get(name))
             for name, move in _tensors(mapping, arrays).items()}
    for name, move in moves.items():
        fault = unreadable(move, shapes_of(arrays)) or unreadable(move, shapes_of(again))
        require(not fault, f"mapping: tensors: {named(name)}: {fault}")
        results[name] = move.forward(arrays)
        precisions[name] = coarsest(move, computed)
    grads = _gradients(program, moves, vectors, seen, results)
    for name in grads:
        of = name.partition("/")[2]
        precisions[name] = precisions[of if of in precisions else f"params/{of}"]
    unsteady = tuple(name for name, move in moves.items()
                     if not _steady(move.forward(again), results[name], precisions[name]))
    reasons = program.reasons(seen) if expect in ("gradients", "everything") else {}
    if probable := _probable(_outputs(vectors, results), vectors):
        reasons["probabilities"] = (f"{few([*probable])}: gradients are those of a loss that takes "
                                    "probabilities; in one that takes logits they are wrong")
    return judged(vectors, results | grads, precisions, expect, conventions, reasons, unsteady,
                  program.tapped)


def _tensors(mapping: ModuleMapping, seen: Arrays) -> dict[str, Move]:
    """How npple's tensors are read; what no entry reads goes by its own name."""
    taken = {source for move in mapping.tensors.values() for source in move.sources}
    return {name: by_recipe(name) for name in seen if name not in taken} | mapping.tensors


def _slim(move: Move, seen: Arrays, expected: Array | None) -> Move:
    """The move without a last axis of length 1, as a linear layer of one output leaves it."""
    if expected is None or move.recipe is None or unreadable(move, shapes_of(seen)):
        return move
    wide = move.forward(seen).shape == (*expected.shape, 1)
    at = [*[None] * expected.ndim, 0]
    return by_recipe({"slice": move.recipe, "at": at}) if wide else move


def _steady(one: Array, other: Array, precision: str) -> bool:
    """Whether two runs agree, but for the order of sums."""
    if one.shape != other.shape:
        return False
    largest = np.abs(other[np.isfinite(other)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        near = np.abs(one - other) <= STEADY * UNITS[precision] * largest
    return bool((near | (one == other) | np.isnan(one) & np.isnan(other)).all())


def _outputs(vectors: Vectors, results: Arrays) -> dict[str, Array]:
    """The outputs that have their shape, in float64."""
    names = [f"tower/{task}" for task in vectors.model.tasks]
    return {name: results[name].astype(np.float64) for name in names if name in results
            and results[name].shape == vectors.expected[name].shape}


def _gradients(program: Program, tensors: Mapping[str, Move], vectors: Vectors,
               seen: Mapping[str, Any], results: Arrays) -> dict[str, Array]:
    """The gradients of the joint loss and of each task's alone, where all outputs are known.

    Those of a `Pass` are left out: there a program has one tensor for the expert and all its uses.
    """
    table, rows = vectors.model.table, len(next(iter(vectors.targets.values())))
    tracked = program.tracked(seen)
    known = _outputs(vectors, results)
    learning = [name for name in known if tracked.issuperset(tensors[name].sources)]
    if len(known) < len(table.tasks) or not learning:
        return {}
    probable = _probable(known, vectors)
    known |= {name: _logit(p) for name, p in probable.items()}
    trace = Trace(table, known, {})
    targets, masks = check_targets(table, vectors.targets, vectors.masks, rows,
                                   np.dtype(np.float64))
    moves = program.mapping.parameters | {
        name: move for name, move in tensors.items()
        if tracked.issuperset(move.sources) and not isinstance(table.row.get(name), Pass)
        and name not in probable}
    shapes = {name: as_numpy(name, tensor).shape for name, tensor in seen.items()
              if name in tracked}
    alone = {f"grad[{task}]": dict.fromkeys(table.tasks, 0.0) | {task: 1.0} for task in table.tasks}
    found: dict[str, Array] = {}
    for kind, weights in ({"grad": vectors.weights} | alone).items():
        starts: dict[str, Array] = {name: np.zeros(shape) for name, shape in shapes.items()}
        for name, dy in joint_loss(trace, targets, masks, weights)[1].items():
            if name in learning:
                p = probable.get(name)
                tensors[name].write(dy if p is None else _by_probability(dy, p), starts)
        grads = program.gradients(seen, starts)
        found |= {f"{kind}/{name}": move.forward(grads) for name, move in moves.items()
                  if grads.keys() >= set(move.sources)
                  and (f"{kind}/{name}" in vectors.expected or name in program.mapping.parameters)}
    return found


def _probable(outputs: Arrays, vectors: Vectors) -> dict[str, Array]:
    """Those of a program's outputs that are probabilities and not logits."""
    found = {}
    for name, y in outputs.items():
        logit, p = (vectors.expected[name.replace("tower", kind, 1)]
                    for kind in ("tower", "prediction"))
        near, far = np.abs(y - p).max(), np.abs(y - logit).max()
        if (y >= 0).all() and (y <= 1).all() and NEARER * near < far:
            found[name] = y
    return found


def _logit(p: Array) -> Array:
    """The logits of probabilities: (batch,) of a sigmoid, (batch, classes) of a softmax."""
    least = np.finfo(np.float64).tiny
    z = np.log(np.maximum(p, least))
    return z if p.ndim > 1 else z - np.log(np.maximum(1 - p, least))


def _by_probability(dz: Array, p: Array) -> Array:
    """The gradient by probabilities that becomes `dz` before them; 0 where nothing can."""
    slope = p if p.ndim > 1 else p * (1 - p)
    return np.divide(dz, slope, out=np.zeros_like(dz), where=slope != 0)


# Arrays -----------------------------------------------------------------------------------------

def check_arrays(vectors: Vectors, weights: Mapping[str, Any], mapping: ModuleMapping, run: Run,
                 gradients: Gradients | None = None, *, expect: str = "gradients",
                 conventions: Sequence[str] = ()) -> Report:
    """Whether a program of any framework computes what the vectors say.

    The functions are given weights by their own names, with the vectors' parameters in them, and
    inputs, all in the kind and dtypes of `weights`: arrays of NumPy or JAX, tensors of PyTorch; for
    other libraries arrays of NumPy.

    Parameters
    ----------
    vectors : npple.oracle.Vectors
    weights : dict of array
        The program's, by its own names and in its own layouts: a flattened pytree, `{w.path: w}`,
        `dict(module.named_parameters())`. Anything with `__dlpack__`, `__array__` or a buffer.
    mapping : ModuleMapping
        Its `tensors` say what npple's are made of among those that `run` gives; what they do not
        read counts under the name it has. Its `feed` makes the inputs that the functions get.
    run : callable
        run(weights, inputs) -> dict of arrays: the outputs, and as many others as there are.
    gradients : callable, optional
        gradients(weights, inputs, starts) -> dict of arrays: the gradients of a loss by weight, and
        perhaps by tensor of `run`. `starts` has the loss's gradient by each tensor that `run`
        gives, in its shape and dtype.
    expect : str
        What must be there for a full pass: "outputs", "forward", "gradients" or "everything".
    conventions : sequence of str
        Deviations that are choices and not mistakes, by name: "shared-first", "gate-bias",
        "gate-hidden", "output-probability", "loss-data-mean".

    Returns
    -------
    npple.oracle.Report

    Raises
    ------
    InputError
        For a mapping that does not fit, or functions that give something else.
    """
    check_vectors(vectors)
    for name, function in {"run": run, "gradients": gradients or run}.items():
        require(callable(function), f"{name}: a function is needed, got {shown(function)}")
    check_choice("expect", expect, EXPECT)
    return check_program(vectors, _Functions(vectors, weights, mapping, run, gradients),
                         conventions, expect)


class _Functions(Program):
    """A dict of weights, and two functions of it."""

    def __init__(self, vectors: Vectors, weights: Mapping[str, Any], mapping: ModuleMapping,
                 run: Run, gradients: Gradients | None) -> None:
        self.mapping = mapping
        made = _written(vectors.model, mapping, vectors.params, _weights(weights, mapping),
                        mapping.own, tell=True)
        self.norms = norms_of_arrays(mapping)
        self.weights = {name: like(weights[name], array) for name, array in made.items()}
        self._made, self._inputs = made, mapping.feed(vectors.inputs)
        self._run, self._gradients = run, gradients

    def stored(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Normalisations are part of the layers before them."""
        arrays, precisions = as_arrays(self.weights)
        return folded(arrays, self.norms), precisions

    def run(self) -> dict[str, Any]:
        """What the user's function gives for fresh copies, which it may spoil."""
        seen = self._run(*self._arguments())
        check_kind("run", seen, Mapping, "a dict of arrays")
        return dict(seen)

    def gradients(self, seen: Mapping[str, Any], starts: dict[str, Array]) -> dict[str, Array]:
        """What the user's function gives; None stands for 0."""
        if self._gradients is None:
            return {}
        both = sorted(self.weights.keys() & seen.keys())
        require(not both, f"run: {few(map(shown, both))}: also the name of a weight, so "
                          "its gradient is ambiguous; give the tensor another name")
        given = self._gradients(*self._arguments(),
                                {name: like(seen[name], start) for name, start in starts.items()})
        check_kind("gradients", given, Mapping, "a dict of arrays")
        some = any(grad is not None for grad in given.values()) or not given
        require(some or not any(map(np.any, starts.values())),
                "gradients: None for every weight: differentiate by the weights that the function "
                "is given")
        shapes = {name: as_numpy(name, each).shape
                  for name, each in (*seen.items(), *self.weights.items())}
        found, _ = as_arrays({name: np.zeros(shapes.get(name, ()), np.float32) if grad is None
                              else grad for name, grad in given.items()}, "gradients")
        for name, grad in found.items():
            require(name in shapes, f"gradients: {shown(name)}: neither a weight nor a tensor of "
                                    "run")
            require(grad.shape == shapes[name],
                    f"gradients: {named(name)}: shape {grad.shape}, expected {tuple(shapes[name])}")
        return folded_gradients(found, as_arrays(self.weights)[0], self.norms)

    def reasons(self, seen: Mapping[str, Any]) -> dict[str, str]:
        """That there is no function for gradients."""
        if self._gradients is None:
            return {"gradients": "no function for them was given"}
        return {}

    def _arguments(self) -> tuple[dict[str, Any], Any]:
        """The weights and the inputs, anew."""
        weights = {name: like(self.weights[name], array) for name, array in self._made.items()}
        return weights, fed(self._inputs, next(iter(weights.values()), np.zeros(0)))


def fed(value: Any, weight: Any) -> Any:
    """Inputs, or a dict or tuple of them, in the kind of a weight: reals in its dtype, codes."""
    if isinstance(value, dict):
        return {name: fed(array, weight) for name, array in value.items()}
    if isinstance(value, tuple):
        return tuple(fed(array, weight) for array in value)
    if value.dtype.kind == "f":
        return like(weight, value)
    return weight.long().new_tensor(value) if hasattr(weight, "new_tensor") else value.copy()
