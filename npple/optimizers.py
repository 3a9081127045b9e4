"""Adam and SGD by hand, as pure functions: parameters, gradients, state in; new ones out.

The state is a dictionary of arrays, so saving it and going on continues bit for bit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from npple.checks import check_dicts, check_number, check_step, check_texts, first_not_finite, shown
from npple.core.base import Array, Arrays, Codes
from npple.core.optimizers import adam_update, clipped, sgd_update
from npple.errors import Diverged, InputError, require

State: TypeAlias = Mapping[str, Array | Codes]  # moments and counts


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
        moved, moments = dict(state), dict[str, Array]()
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
            for name in names:
                p, g, t = params[name], grads[name], int(state[f"t/{name}"]) + 1
                if not p.dtype.type(self.epsilon):
                    raise InputError(f"epsilon: {self.epsilon} is 0 in {p.dtype}, that of "
                                     f"{shown(name)}")
                m, v = cast(Array, state[f"m/{name}"]), cast(Array, state[f"v/{name}"])
                rate = self.rate * factors.get(name, 1.0) if factors else self.rate
                after[name], moments[f"m/{name}"], moments[f"v/{name}"] = adam_update(
                    p, g, m, v, t, rate, self.beta1, self.beta2, self.epsilon, self._decay(rate))
                moved[f"t/{name}"] = np.array(t, np.int64)
        if wrong := first_not_finite(moments):
            raise Diverged(f"{wrong}, a moment of Adam, is not finite")
        return after, moved | moments

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


def _check_settings(optimizer: Adam | SGD) -> None:
    """Settings in their ranges become plain floats: a NumPy scalar would cast the parameters."""
    for name, value in list(vars(optimizer).items()):
        if value is not None or name != "clip":
            value = check_number(name, value)
            require(value > 0 or name not in ("rate", "clip", "epsilon"), f"{name} must be above 0")
            object.__setattr__(optimizer, name, value)
