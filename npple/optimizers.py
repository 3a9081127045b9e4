"""Adam and SGD by hand, as pure functions: parameters, gradients, state in; new ones out.

The state is a dictionary of arrays, so saving it and going on continues bit for bit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from operator import is_
from typing import Any, TypeAlias, cast

import numpy as np

from npple.checks import check_dicts, check_number, check_step, check_texts, first_not_finite, shown
from npple.core.base import Array, Arrays, Codes
from npple.core.blocks import for_each
from npple.core.optimizers import adam_update, clipped, sgd_update
from npple.errors import Diverged, InputError, require

State: TypeAlias = Mapping[str, Array | Codes]  # moments and counts
PIECE = 2 ** 14  # numbers of a vector that are updated at a time: so the cache holds what is read
SHARE = 2 ** 18  # numbers that a thread takes on at a time
ALIGNED = 16  # numbers: where a parameter may start in a vector


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015, Algorithm 1), with decoupled weight decay as an option.

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g²
        p = p - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    rate : float
        The step size alpha.
    beta1, beta2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
        Added outside the square root, after the bias correction.
    weight_decay : float
        p loses rate · weight_decay · p each step, before the rest. The factor rate is PyTorch's,
        not that of AdamW's Algorithm 2 (Loshchilov & Hutter, ICLR 2019): that is `AdamW`.
    clip : float or None
        Gradients are scaled down together to this norm where their global norm is larger.

    Raises
    ------
    InputError
        For a setting outside its range.
    """

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        _check_settings(self)
        for name in ("beta1", "beta2"):
            require(getattr(self, name) < 1, f"{name} must be below 1, got {getattr(self, name)}")

    def init(self, params: Arrays) -> dict[str, Array | Codes]:
        """The state before the first step: `m/name`, `v/name` (zeros), `t/name` (0) for each.

        Parameters
        ----------
        params : dict of ndarray

        Returns
        -------
        dict of ndarray
        """
        moments = {f"{m}/{name}": np.zeros_like(p) for m in "mv" for name, p in params.items()}
        return {**moments, **{f"t/{name}": np.zeros((), np.int64) for name in params}}

    def step(self, params: Arrays, grads: Arrays, state: State,
             only: Collection[str] | None = None, factors: Mapping[str, float] | None = None
             ) -> tuple[dict[str, Array], dict[str, Array | Codes]]:
        """One update.

        Parameters of one count t, rate and dtype are updated as one vector; an array of a subclass
        of ndarray is updated by itself, in its own arithmetic.

        Parameters
        ----------
        params, grads : dict of ndarray
            Equal names, shapes and dtype.
        state : dict of ndarray
            From `init` or the last step.
        only : collection of str, optional
            The parameters to update; the others keep value, moments and count t. By default all,
            and then a parameter whose gradient is 0 still moves by its old momentum m.
        factors : dict of float, optional
            By parameter, what its rate is multiplied with; 1 for those that are not in it.

        Returns
        -------
        params, state : dict of ndarray
            New dictionaries; what came in is left as it was.

        Raises
        ------
        InputError
            For names, shapes or dtypes that do not belong together, a count at the largest
            number there is, and an epsilon that is 0 in the dtype of a parameter.
        Diverged
            For a moment that is not finite; names it.
        """
        names = _names(params, grads, state, only, moments=("m", "v"))
        after, grads = dict(params), clipped(grads, self.clip)
        moved: dict[str, Any] = dict(state)
        alike: dict[Any, list[str]] = {}
        for name in names:
            rate = self.rate * (factors or {}).get(name, 1.0)
            alone = _of_own_class(params[name], grads[name]) and name
            alike.setdefault((int(state[f"t/{name}"]) + 1, rate, params[name].dtype, alone), []
                             ).append(name)
        for (t, rate, dtype, alone), own in alike.items():
            if not dtype.type(self.epsilon):
                raise InputError(f"epsilon: {self.epsilon} is 0 in {dtype}, that of "
                                 f"{shown(own[0])}")
            update = partial(adam_update, t=t, rate=rate, beta1=self.beta1, beta2=self.beta2,
                             epsilon=self.epsilon, decay=self._decay(rate))
            shapes = [params[name].shape for name in own]
            named = [f"{moment}/{name}" for moment in "mv" for name in own]
            if alone:
                m, v = (cast(Array, state[name]) for name in named)
                _check_squares(v, own, state)
                with np.errstate(over="ignore", invalid="ignore"):
                    new_p, *new_mv = update(params[alone], grads[alone], m, v)
                new, moments = {alone: new_p}, dict(zip(named, new_mv))
            else:
                mv = _joined(cast(Arrays, state), named)
                _check_squares(mv[mv.size // 2:], own, state)
                new_p, joined = _in_pieces(update, _joined(params, own), _joined(grads, own), mv)
                new, moments = Parts(own, shapes, new_p), Parts(named, 2 * shapes, joined)
            if (alone or first_not_finite({"m, v": joined})) and (
                    wrong := first_not_finite(moments)):
                raise Diverged(f"{wrong}, a moment of Adam, is not finite")
            whole = own == list(params)
            after = new if whole else after | new
            moved = moments if whole else moved | moments
            moved |= {f"t/{name}": np.array(t, np.int64) for name in own}
        return after, moved

    def _decay(self, rate: float) -> float:
        """The share that a parameter loses, at its rate."""
        return rate * self.weight_decay


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose weight decay the rate does not scale (AdamW, Loshchilov & Hutter, algorithm 2).

    p loses weight_decay · p each step, where `Adam` takes rate · weight_decay. The paper's schedule
    eta, which scales rate and decay alike, is 1. PyTorch's class of this name is npple's `Adam`.

    Parameters
    ----------
    rate, beta1, beta2, epsilon, weight_decay, clip
        As of `Adam`.
    """

    def _decay(self, rate: float) -> float:
        return self.weight_decay


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent, p = p - rate g.

    Parameters
    ----------
    rate : float
        The step size.
    weight_decay : float
        p loses rate · weight_decay · p each step, before the rest.
    clip : float or None
        Gradients are scaled down together to this norm where their global norm is larger.

    Raises
    ------
    InputError
        For a setting outside its range.
    """

    rate: float = 1e-2
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        _check_settings(self)

    def init(self, params: Arrays) -> dict[str, Array | Codes]:
        """The state before the first step: there is none.

        Parameters
        ----------
        params : dict of ndarray

        Returns
        -------
        state : dict
            Empty.
        """
        return {}

    def step(self, params: Arrays, grads: Arrays, state: State,
             only: Collection[str] | None = None, factors: Mapping[str, float] | None = None
             ) -> tuple[dict[str, Array], dict[str, Array | Codes]]:
        """One update.

        Parameters
        ----------
        params, grads : dict of ndarray
            Equal names, shapes and dtype.
        state : dict
            From `init` or the last step: empty.
        only : collection of str, optional
            The parameters to update; the others keep their value. By default all.
        factors : dict of float, optional
            By parameter, what its rate is multiplied with; 1 for those that are not in it.

        Returns
        -------
        params, state : dict of ndarray
            New parameters; what came in is left as it was.

        Raises
        ------
        InputError
            For names, shapes or dtypes that do not belong together.
        """
        names = _names(params, grads, state, only)
        after, grads = dict(params), clipped(grads, self.clip)
        for name in names:
            rate = self.rate * (factors or {}).get(name, 1.0)
            after[name] = sgd_update(params[name], grads[name], rate, self.weight_decay)
        return after, dict(state)


class Parts(dict[str, Array]):
    """Arrays by name, views of one vector: `_joined` takes it as it is. A copy is a plain dict.

    Parameters
    ----------
    names : list of str
    shapes : list of tuple of int
        Of the arrays, one after the other.
    vector : (n,) array
        Each starts in it at a multiple of `ALIGNED`.
    """

    def __init__(self, names: list[str], shapes: Sequence[tuple[int, ...]], vector: Array
                 ) -> None:
        places, _ = _places(tuple(shapes))
        super().__init__(zip(names, [vector[at].reshape(shape)
                                     for at, shape in zip(places, shapes)]))
        self.vector, self.names, self.views = vector, list(names), list(self.values())

    def __reduce__(self) -> tuple[type, tuple[dict[str, Array]]]:
        return dict, (dict(self),)


def _of_own_class(*arrays: Array) -> bool:
    """Whether one is of a subclass of ndarray, whose arithmetic a plain vector would lose."""
    return any(isinstance(array, np.ndarray) and type(array) is not np.ndarray for array in arrays)


def _joined(arrays: Arrays, names: list[str]) -> Array:
    """The named arrays in one vector, with zeros between; of `Parts` it is there already."""
    found = [arrays[name] for name in names]
    if isinstance(arrays, Parts) and arrays.names == names and all(map(is_, found, arrays.views)):
        return arrays.vector
    places, size = _places(tuple([array.shape for array in found]))
    vector = np.zeros(size, found[0].dtype)
    for at, array in zip(places, found):
        vector[at] = array.reshape(-1)
    return vector


def _in_pieces(update: Callable[..., tuple[Array, ...]], p: Array, g: Array, mv: Array
              ) -> tuple[Array, Array]:
    """`update(p, g, m, v)`, each number by itself, of vectors: a piece at a time -> (p, mv)."""
    new_p, new_mv = np.empty_like(p), np.empty_like(mv)
    (m, v), (new_m, new_v) = mv.reshape(2, -1), new_mv.reshape(2, -1)

    def run(share: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found later
            for start in range(share, min(share + SHARE, p.size), PIECE):
                at = slice(start, start + PIECE)
                new_p[at], new_m[at], new_v[at] = update(p[at], g[at], m[at], v[at])

    for_each(range(0, p.size, SHARE), run, lambda _: None)
    return new_p, new_mv


@lru_cache(64)
def _places(shapes: tuple[tuple[int, ...], ...]) -> tuple[list[slice], int]:
    """Where arrays of these shapes stand in a vector, and its length."""
    places, end = list[slice](), 0
    for shape in shapes:
        places.append(slice(end, end + prod(shape)))
        end += -(-prod(shape) // ALIGNED) * ALIGNED
    return places, end


def _names(params: Arrays, grads: Arrays, state: State,
           only: Collection[str] | None, moments: Sequence[str] = ()) -> list[str]:
    """The parameters to update, `only` these or all, if everything is there for them."""
    check_dicts(params=params, grads=grads, state=state)
    names = list(params) if only is None else check_texts("only", only)
    for name in names:
        if name not in params:
            raise InputError(f"only: {shown(name)} is no parameter")
    check_step(params, grads, state, names, moments)
    return names


def _check_squares(v: Array, names: list[str], state: State) -> None:
    """Raise `InputError` where a mean of squares, all of which are in v, is below 0."""
    if v.dtype.kind == "f" and np.any(v < 0):
        name = next(name for name in names if np.any(state[f"v/{name}"] < 0))
        raise InputError(f"state: v/{shown(name)}: below 0, expected what a step before gave")


def _check_settings(optimizer: Adam | SGD) -> None:
    """Settings in their ranges become plain floats: a NumPy scalar would cast the parameters."""
    for name, value in list(vars(optimizer).items()):
        if value is not None or name != "clip":
            value = check_number(name, value)
            require(value > 0 or name not in ("rate", "clip", "epsilon"), f"{name} must be above 0")
            object.__setattr__(optimizer, name, value)
