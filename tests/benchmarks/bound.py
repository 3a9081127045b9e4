"""The matrix-product bound: only the products that a pass cannot avoid, at their shapes."""

import numpy as np

from npple.routing import Experts, Gate, Tower


def products(table):
    """Yields (tensor read, experts, width in, width out) for each dense layer of the network.

    The tensor is None for a layer inside an MLP: each expert reads its own.
    """
    for row in table.rows:
        if isinstance(row, (Experts, Gate, Tower)):
            reads, i = row.selector if isinstance(row, Gate) else row.reads, 1
            while (name := f"{row.parameters}/layer{i}/weight") in table.shapes:
                *count, width, units = table.shapes[name]
                yield reads, *(count or [1]), width, units
                reads, i = None, i + 1


def side_by_side(table):
    """The same, with the layers that read one tensor put side by side as one product."""
    columns = {}
    for reads, count, width, units in products(table):
        if reads is None:
            yield None, count, width, units
        else:
            columns[reads] = width, columns.get(reads, (width, 0))[1] + count * units
    for reads, (width, units) in columns.items():
        yield reads, 1, width, units


def matrix_products(problem, backward, wide):
    """A function without arguments that computes them into arrays made beforehand.

    Parameters
    ----------
    problem : contenders.Problem
    backward : bool
        Whether to compute those of the backward pass too: dW for each layer, dX for each but those
        that read an input without embeddings.
    wide : bool
        Layers that read one tensor side by side; otherwise each expert's product by itself.
    """
    model, runs = problem.model, []
    batch = len(next(iter(problem.targets.values())))
    dtype = next(iter(problem.params.values())).dtype
    for reads, count, width, units in (side_by_side if wide else products)(model.table):
        x = np.ones((count, batch, width) if reads is None else (batch, width), dtype)
        w, dw = np.ones((2, count, width, units), dtype)
        z, dz = np.ones((2, count, batch, units), dtype)
        runs.append((x, w, z))
        if backward:
            runs.append((x.swapaxes(-1, -2), dz, dw))
            if reads not in model.unread:
                runs.append((dz, w.swapaxes(-1, -2), np.ones((count, batch, width), dtype)))

    def run():
        for a, b, out in runs:
            np.matmul(a, b, out=out)
    return run
