"""Which deviations some tensors can tell from the paper's model, and what cases do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from zlib import crc32

import numpy as np

from npple.core.base import Array, Arrays, Shapes
from npple.oracle.cases import CASES, suite
from npple.oracle.deviations import BY_NAME, DEVIATIONS, Deviation, complete, deviate
from npple.oracle.flow import compute
from npple.oracle.results import compare
from npple.oracle.rounding import UNITS
from npple.oracle.variant import Variant, cast
from npple.oracle.vectors import Vectors
from npple.printing import aligned
from npple.routing import Gate
from npple.verify.cases import Case

HIDDEN = 4  # units
SHARE = 0.5  # a number of a task's that a deviation asks for


def shows(vectors: Vectors, variant: Variant, case: Case, names: Mapping[str, str]) -> bool:
    """Whether a variant changes any of some tensors by more than rounding may.

    Parameters
    ----------
    vectors : Vectors
    variant, case
        From `npple.oracle.deviations.complete`.
    names : dict of str
        Tensor -> the precision it is judged in.

    Returns
    -------
    bool
    """
    for name, y in compute(variant, case, names):
        if name in names:
            allowed = vectors.tolerance[name][list(UNITS).index(names[name])]
            if not compare(name, y, vectors.expected[name], allowed, names[name]).passed:
                return True
    return False


def hides(vectors: Vectors, deviation: Deviation, names: Mapping[str, str]) -> bool:
    """Whether a deviation could be there with none of some tensors changed.

    Numbers of its own, which a candidate did not give, could be such.
    """
    case = cast(vectors.case, np.float64)
    made = [complete(form, case, {}) for form, _ in deviate(deviation, vectors.variant, {})]
    return any(form is None or not shows(vectors, *form, names) for form in made)


def tells(vectors: Vectors, deviation: Deviation) -> bool | None:
    """Whether all tensors of some vectors tell every form of a deviation; None if none fits.

    What numbers it has of its own are drawn.
    """
    case, names = cast(vectors.case, np.float64), dict.fromkeys(vectors.expected, "float64")
    variant = vectors.variant
    own = {f"params/{what}/{task}": np.array(SHARE) for task in vectors.model.tasks
           for what in ("share", "log_variance")}
    found = deviate(deviation, variant, own)
    found = found or deviate(deviation, variant, {**own, **_hidden(variant)})
    made = [complete(form, case, {**own, **_own(form, case.params)}) for form, _ in found]
    return all(form and shows(vectors, *form, names) for form in made) if made else None


def _own(form: Variant, params: Arrays) -> Arrays:
    """Parameters that a form has and the paper's model has not."""
    missing = {name: shape for name, shape in form.table.shapes.items()
               if name not in params or params[name].shape != shape}
    return _drawn(missing)


def _hidden(variant: Variant) -> Arrays:
    """Parameters of a hidden layer in each gate."""
    shapes: Shapes = {}
    for row in variant.table.rows:
        if isinstance(row, Gate):
            deeper = replace(row, units=(HIDDEN,), activations=("relu",))
            shapes |= deeper.shapes(variant.table)
    return _drawn(shapes)


def _drawn(shapes: Shapes) -> dict[str, Array]:
    """`params/NAME` of these shapes, each drawn by itself."""
    return {f"params/{name}": np.random.default_rng(crc32(name.encode())).normal(size=shape)
            for name, shape in shapes.items()}


def telling_cases(names: Iterable[str] | None = None) -> dict[str, dict[str, bool]]:
    """Which cases of the suite tell which deviations from the paper's model.

    Parameters
    ----------
    names : iterable of str, optional
        Of deviations; by default all.

    Returns
    -------
    dict of dict of bool
        Deviation -> case -> whether it does, of those to which it applies.
    """
    asked = set(BY_NAME if names is None else names)
    wanted = [each for each in DEVIATIONS if each.name in asked]
    found: dict[str, dict[str, bool]] = {deviation.name: {} for deviation in wanted}
    for vectors in suite():
        for deviation in wanted:
            told = tells(vectors, deviation)
            if told is not None:
                found[deviation.name][vectors.notes["id"]] = told
    return found


def telling_table(found: Mapping[str, Mapping[str, bool]]) -> str:
    """What `telling_cases` found: by deviation and case, of how many architectures it is told.

    Parameters
    ----------
    found : dict of dict of bool

    Returns
    -------
    str
        "2/3" where two of the three architectures of that case to which it applies tell it.
    """
    rows = [["", *CASES]]
    for name, cases in found.items():
        cells = []
        for case in CASES:
            told = [known for at, known in cases.items() if at.partition("-")[2] == case]
            cells.append(f"{sum(told)}/{len(told)}" if told else "")
        rows.append([name, *cells])
    return aligned(rows, range(1, len(rows[0])))
