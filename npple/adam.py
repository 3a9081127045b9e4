"""Adam and SGD by hand, as pure functions: parameters, gradients, state in; new ones out.

The state is a dictionary of arrays, so saving it and going on continues bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from npple.errors import require


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
        p loses rate · weight_decay · p each step, before the rest (AdamW, Loshchilov & Hutter
        2019).
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

    def __post_init__(self):
        _check_settings(self)
        for name in ("beta1", "beta2"):
            require(getattr(self, name) < 1, f"{name}: must be below 1, got {getattr(self, name)}")

    def init(self, params):
        """The state before the first step: `m/name`, `v/name` (zeros), `t/name` (0) for each."""
        return ({f"m/{name}": np.zeros_like(p) for name, p in params.items()}
                | {f"v/{name}": np.zeros_like(p) for name, p in params.items()}
                | {f"t/{name}": np.zeros((), np.int64) for name in params})

    def step(self, params, grads, state, only=None):
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

        Returns
        -------
        params, state : dict of ndarray
            New dictionaries; what came in is left as it was.
        """
        only = _names(params, grads, only)
        params, state = dict(params), dict(state)
        scale = _clip_scale(grads, self.clip)
        for name in only:
            p, g = params[name], grads[name] * scale if scale < 1 else grads[name]
            t = state[f"t/{name}"] + 1
            m = self.beta1 * state[f"m/{name}"] + (1 - self.beta1) * g
            v = self.beta2 * state[f"v/{name}"] + (1 - self.beta2) * (g * g)
            corrected1, corrected2 = 1 - self.beta1 ** int(t), 1 - self.beta2 ** int(t)
            if self.weight_decay:
                p = p * (1 - self.rate * self.weight_decay)
            update = m / (np.sqrt(v) * corrected2 ** -0.5 + self.epsilon)
            params[name] = p - (self.rate / corrected1) * update
            state |= {f"m/{name}": m, f"v/{name}": v, f"t/{name}": np.asarray(t)}
        return params, state


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent, p = p - rate g; `weight_decay` and `clip` as in `Adam`."""

    rate: float = 1e-2
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self):
        _check_settings(self)

    def init(self, params):
        """No state: an empty dictionary."""
        return {}

    def step(self, params, grads, state, only=None):
        """One update; parameters and returns as for `Adam.step`."""
        only = _names(params, grads, only)
        scale, params = _clip_scale(grads, self.clip), dict(params)
        for name in only:
            p = params[name] * (1 - self.rate * self.weight_decay)
            params[name] = p - self.rate * scale * grads[name]
        return params, state


def _names(params, grads, only):
    """The parameters to update: `only` these, or all."""
    names = list(params if only is None else only)
    for name in names:
        require(name in params, f"only: {name!r} is no parameter")
        require(name in grads, f"grads: missing {name!r}")
    return names


def _clip_scale(grads, clip):
    """What to multiply all gradients with so that their global norm is at most `clip`."""
    if clip is None:
        return 1.0
    norm = float(np.sqrt(sum(np.vdot(g, g) for g in grads.values())))
    return clip / norm if norm > clip else 1.0


def _check_settings(optimizer):
    """Settings in their ranges become plain floats: a NumPy scalar would cast the parameters."""
    for name, value in list(vars(optimizer).items()):
        if name == "clip" and value is None:
            continue
        number = isinstance(value, (int, float, np.integer, np.floating))
        require(number and np.isfinite(value) and value >= 0,
                f"{name}: a finite number of at least 0 is needed, got {value!r}")
        require(value > 0 or name not in ("rate", "clip", "epsilon"), f"{name}: must be above 0")
        object.__setattr__(optimizer, name, float(value))
