"""What a model accepts: every argument is checked here, before anything is computed.

Messages name the argument, what came and what was expected. Nothing is cast unless the values
stay exactly the same (targets of 0 and 1 given as integers, say).
"""

import numpy as np

from npple.errors import require
from npple.routing import Route

FLOATS = tuple(map(np.dtype, ("float32", "float64", "longdouble", "complex64", "complex128",
                              "clongdouble")))
KNOWN = ", ".join(map(str, FLOATS))


def check_dtype(what, dtype):
    """Raise `InputError` unless the network computes in this dtype."""
    require(dtype in FLOATS, f"{what}: {dtype}, expected one of {KNOWN}")


def check_params(table, params):
    """The common dtype of the parameters, if their names and shapes are the table's."""
    require(isinstance(params, dict), f"params: a dict of arrays is needed, got {_kind(params)}")
    missing, extra = table.shapes.keys() - params.keys(), params.keys() - table.shapes.keys()
    require(not missing, f"params: missing {_list(missing)}")
    require(not extra, f"params: not of this model: {_list(extra)}")
    dtypes = {}
    for name, shape in table.shapes.items():
        array = params[name]
        require(isinstance(array, np.ndarray),
                f"params: {name}: an array is needed, got {_kind(array)}")
        require(array.shape == shape, f"params: {name}: shape {array.shape}, expected {shape}")
        dtypes.setdefault(array.dtype, name)
    require(len(dtypes) == 1, f"params: one dtype is needed, got {_dtypes(dtypes)}")
    dtype, = dtypes
    check_dtype("params", dtype)
    return dtype


def check_x(table, x, dtype):
    """The input as the network takes it and its number of rows; its floats match `dtype`."""
    real = np.zeros(0, dtype).real.dtype
    if isinstance(table.inputs, int):
        x = _array("x", x)
        require(x.ndim == 2 and x.shape[1] == table.inputs,
                f"x: shape {x.shape}, expected (batch, {table.inputs})")
        _check_features("x", x, real)
        return x, len(x)
    require(isinstance(x, dict), f"x: a dict of columns is needed, got {_kind(x)}")
    columns = dict(table.inputs)
    missing, extra = columns.keys() - x.keys(), x.keys() - columns.keys()
    require(not missing, f"x: missing columns {_list(missing)}")
    require(not extra, f"x: columns that the model does not read: {_list(extra)}")
    x = {name: _array(f"x: {name!r}", x[name]) for name in columns}
    rows = x[next(iter(columns))].size
    for name, kind in columns.items():
        require(x[name].shape == (rows,), f"x: {name!r}: shape {x[name].shape}, expected ({rows},)")
        if kind == "numeric":
            _check_features(f"x: {name!r}", x[name], real)
        else:
            _check_codes(f"x: {name!r}", x[name], kind[0])
    return x, rows


def check_targets(table, targets, masks, rows, dtype):
    """Targets and masks by task, ready for the losses: the mask of a task without one is None."""
    masks = {} if masks is None else masks
    for what, given in (("targets", targets), ("masks", masks)):
        require(isinstance(given, dict), f"{what}: a dict by task is needed, got {_kind(given)}")
        extra = given.keys() - table.tasks.keys()
        require(not extra, f"{what}: no such task: {_list(extra)}, expected {_list(table.tasks)}")
    missing = table.tasks.keys() - targets.keys()
    require(not missing, f"targets: missing {_list(missing)}")
    masks = {task: _check_mask(task, masks.get(task), rows) for task in table.tasks}
    real = np.zeros(0, dtype).real.dtype
    return {task: _check_target(task, kind, targets[task], masks[task], rows, real)
            for task, kind in table.tasks.items()}, masks


def check_weights(table, weights):
    """The weight of each task as a float; 1 for all where `weights` is None."""
    if weights is None:
        return dict.fromkeys(table.tasks, 1.0)
    require(isinstance(weights, dict), f"weights: a dict by task is needed, got {_kind(weights)}")
    require(weights.keys() == table.tasks.keys(),
            f"weights: one for each task is needed ({_list(table.tasks)}; 0 leaves a task out), "
            f"got {_list(weights)}")
    for task, weight in weights.items():
        number = isinstance(weight, (int, float, np.integer, np.floating))
        require(number and np.isfinite(weight) and weight >= 0,
                f"weights: {task!r} must be a finite number of at least 0, got {weight!r}")
    return {task: float(weights[task]) for task in table.tasks}


def check_noise(table, noise, dtype):
    """The noise of each `Route` of the table, or {} for none."""
    if not noise:
        return {}
    shapes = {row.name: (row.count(table),) for row in table.rows if isinstance(row, Route)}
    require(isinstance(noise, dict) and noise.keys() == shapes.keys(),
            f"noise: a dict of arrays for {_list(shapes)} is needed, got {_list(noise)}")
    real = np.zeros(0, dtype).real.dtype
    for name, u in noise.items():
        u = _array(f"noise: {name}", u)
        require(u.shape == shapes[name] and u.dtype == real,
                f"noise: {name}: {u.dtype} {u.shape}, expected {real} {shapes[name]}")
        require(((0 < u) & (u < 1)).all(), f"noise: {name}: must lie strictly between 0 and 1")
    return noise


def _check_features(what, x, real):
    require(x.size, f"{what}: no rows")
    require(x.dtype == real,
            f"{what}: dtype {x.dtype}, expected {real} as the parameters: convert with .astype")
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(x.sum()) or np.isfinite(x).all()  # a finite sum settles it quickly
    if not finite:
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        require(False, f"{what}: {x[at]} at row {at[0]}; features must be finite")


def _check_codes(what, codes, size):
    require(codes.size, f"{what}: no rows")
    require(codes.dtype.kind in "iu", f"{what}: dtype {codes.dtype}, expected integer codes")
    low, high = codes.min(), codes.max()
    require(0 <= low and high < size,
            f"{what}: codes from {low} to {high}, expected 0 to {size - 1}")


def _check_mask(task, mask, rows):
    if mask is None:
        return None
    mask = _array(f"masks: {task!r}", mask)
    require(mask.dtype == bool, f"masks: {task!r}: dtype {mask.dtype}, expected bool")
    require(mask.shape == (rows,), f"masks: {task!r}: shape {mask.shape}, expected ({rows},)")
    return mask


def _check_target(task, kind, target, mask, rows, real):
    """The target in the dtype of the loss; rows outside the mask become 0, whatever they held."""
    what = f"targets: {task!r}"
    target = _array(what, target)
    require(target.shape == (rows,), f"{what}: shape {target.shape}, expected ({rows},)")
    require(target.dtype.kind in "biuf", f"{what}: dtype {target.dtype}, expected real numbers")
    if mask is not None:
        target = np.where(mask, target, np.zeros((), target.dtype))
    require(np.isfinite(target).all(), f"{what}: not finite at row {_first(~np.isfinite(target))}")
    if kind == "regression":
        with np.errstate(over="ignore"):
            exact = target.astype(real, copy=False)
        require((exact == target).all(),
                f"{what}: dtype {target.dtype} does not fit {real} exactly: convert with .astype")
        return exact
    classes = 2 if kind == "binary" else int(kind.split(":")[1])
    good = (target >= 0) & (target < classes) & (target == np.floor(target))
    require(good.all(), f"{what}: {target[_first(~good)]} at row {_first(~good)}, expected "
                        + ("0 or 1" if kind == "binary" else f"a class from 0 to {classes - 1}"))
    return target.astype(real if kind == "binary" else np.intp)


def _array(what, value):
    try:
        return np.asarray(value)
    except ValueError as error:
        require(False, f"{what}: not an array: {error}")


def _first(wrong):
    return int(np.argmax(wrong))


def _kind(value):
    return type(value).__name__


def _list(names):
    """Names for a message, the first few of many."""
    names = sorted(map(repr, names))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"


def _dtypes(dtypes):
    return ", ".join(f"{dtype} ({name})" for dtype, name in dtypes.items())
