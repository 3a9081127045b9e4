"""Batch normalisation at inference, as a part of the layer before it, by a program's own names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npple.checks import check_number, named, shown
from npple.core.base import Array, Arrays
from npple.errors import require


@dataclass(frozen=True)
class Norm:
    """A batch normalisation after a layer and before its activation, for the `norms` of a mapping.

    Weights are read with it folded in: the layer's weight and bias as they are after it. A layer
    without a bias has it in the `shift`, so a mapping reads it there.

    Attributes
    ----------
    weight : str
        The layer's weight among the program's arrays; of one layer, or of several in one array.
    mean, variance : str
        The running statistics, a number for each of the layer's outputs.
    eps : float
        What is added to the variance.
    bias : str, optional
        The layer's.
    scale, shift : str, optional
        What the normalised values are multiplied by, and what is added. Where there is no `bias`,
        a `shift` is needed.
    inputs : int
        The axis of the weight along which the layer's inputs run: -2 for (in, out), -1 for (out,
        in).

    Raises
    ------
    InputError
        For what is no name, number or axis, and where there is neither `bias` nor `shift`.
    """

    weight: str
    mean: str
    variance: str
    eps: float
    bias: str | None = None
    scale: str | None = None
    shift: str | None = None
    inputs: int = -2

    def __post_init__(self) -> None:
        for what in ("weight", "mean", "variance", "bias", "scale", "shift"):
            name = getattr(self, what)
            absent = name is None and what in ("bias", "scale", "shift")
            require(absent or isinstance(name, str) and name,
                    f"norm: {what}: the name of an array is needed, got {shown(name)}")
        check_number("norm: eps", self.eps)
        require(type(self.inputs) is int, f"norm: inputs: an axis is needed, got "
                                          f"{shown(self.inputs)}")
        require(self.bias or self.shift, "norm: bias, shift: one is needed, what the layer adds is "
                                         "in it")


def names_of(norm: Norm) -> list[str]:
    """All arrays that it is made of: the layer's and its own."""
    return [name for name in (norm.weight, norm.bias, norm.scale, norm.shift, norm.mean,
                              norm.variance) if name]


def folded(arrays: Arrays, norms: Collection[Norm]) -> dict[str, Array]:
    """A program's arrays with its normalisations folded into the layers before them."""
    made = dict(arrays)
    for norm in norms:
        _check(norm, arrays)
        slope = _slope(norm, arrays)
        bias, mean, shift = (arrays[name].reshape(slope.shape) if name else np.zeros(())
                             for name in (norm.bias, norm.mean, norm.shift))
        made[norm.weight] = arrays[norm.weight] * _spread(norm, slope, arrays[norm.weight])
        made[_end(norm)] = (bias - mean) * slope + shift
    return _without(made, norms)


def unfolded(made: Arrays, arrays: Arrays, norms: Collection[Norm], tell: bool = False,
             plain: Collection[Norm] = ()) -> dict[str, Array]:
    """A program's arrays that fold to `made`: its normalisations change nothing, or tell where.

    Parameters
    ----------
    made : dict of ndarray
        As from `folded`.
    arrays : dict of ndarray
        The program's, for their shapes.
    norms : collection of Norm
    tell : bool
        Whether the normalisations are left a slope, which the layers before them are divided by.
    plain : collection of Norm
        Those whose slope is 1 but for signs: they go by the statistics of a batch.
    """
    result = dict(made)
    for norm in norms:
        slope, mean = (_told(norm, arrays, norm in plain) if tell else
                       (np.ones(arrays[_end(norm)].shape), 0.0))
        result[norm.weight] = made[norm.weight] / _spread(norm, slope, made[norm.weight])
        values: dict[str | None, Any] = {norm.mean: mean, norm.scale: slope, norm.shift: 0.0,
                                         norm.variance: (1 if norm.scale else slope ** -2.0)
                                         - norm.eps}
        values[_end(norm)] = (made[_end(norm)] / slope + mean if norm.bias else
                            made[_end(norm)] + mean * slope)
        for name in names_of(norm)[1:]:
            result[name] = np.resize(values[name], arrays[name].shape)
    return result


def folded_gradients(grads: Mapping[str, Array], arrays: Arrays, norms: Collection[Norm]
                     ) -> dict[str, Array]:
    """The gradients of folded arrays, from those of the program's."""
    found = dict(grads)
    for norm in norms:
        slope = _slope(norm, arrays)
        if norm.weight in grads:
            found[norm.weight] = grads[norm.weight] / _spread(norm, slope, arrays[norm.weight])
        if norm.bias and norm.bias in grads:
            found[norm.bias] = grads[norm.bias] / slope
    return _without(found, norms)


def _without(arrays: Mapping[str, Array], norms: Collection[Norm]) -> dict[str, Array]:
    """What is part of the model once all is folded."""
    own = {name for norm in norms for name in {*names_of(norm)} - {norm.weight, _end(norm)}}
    return {name: array for name, array in arrays.items() if name not in own}


def _end(norm: Norm) -> str:
    """Where the bias of layer and normalisation together stands."""
    return norm.bias or norm.shift or ""


def _check(norm: Norm, arrays: Arrays) -> None:
    """Raise `InputError` unless the arrays are there and have a number an output."""
    for name in names_of(norm):
        require(name in arrays, f"mapping: norms: {named(name)}: not among the weights")
    shape = arrays[norm.weight].shape
    require(-len(shape) <= norm.inputs < len(shape),
            f"mapping: norms: inputs: {named(norm.weight)} {shape} has no axis {norm.inputs}")
    outputs = np.delete(shape, norm.inputs).prod()
    for name in names_of(norm)[1:]:
        require(arrays[name].size == outputs,
                f"mapping: norms: {named(name)}: shape {arrays[name].shape}, expected {outputs} "
                f"numbers, as outputs of {named(norm.weight)} {shape} with the inputs along axis "
                f"{norm.inputs}")


def _slope(norm: Norm, arrays: Arrays) -> Array:
    """By what each output is multiplied, in the shape of the bias."""
    slope = (1 / np.sqrt(arrays[norm.variance] + norm.eps)).reshape(arrays[_end(norm)].shape)
    return np.asarray(slope * arrays[norm.scale].reshape(slope.shape) if norm.scale else slope)


def _spread(norm: Norm, slope: Array, weight: Array) -> Array:
    """A number an output, in axes that multiply the weight."""
    return np.expand_dims(slope.reshape(np.delete(weight.shape, norm.inputs)), norm.inputs)


def _told(norm: Norm, arrays: Arrays, plain: bool) -> tuple[Array, float]:
    """A slope and a mean that tell a norm before an activation from one after.

    The slope turns signs, which a relu sees, and doubles, which a tanh sees; `plain` turns signs
    alone. Without a scale no sign can be turned, and the mean is moved instead.
    """
    shape, size = arrays[_end(norm)].shape, 1.0 if plain else 2.0
    if norm.scale:
        return np.resize([-size, size], shape), 0.0
    return np.full(shape, size), 1.0
