"""The core, on ten pages: everything that is PLE and its gradients, and nothing else.

    ops.py         operations on arrays, each a forward/backward pair
    rows.py        the kinds of rows that a model is made of, each with its own mathematics
    table.py       a model: the rows, who reads whom, and the shapes that follow
    losses.py      the kinds of tasks, each with its loss, and the mean over a task's own rows
    passes.py      one forward and one backward over any table, the joint loss, the penalties
    optimizers.py  Adam and gradient descent
    blocks.py      a large batch in blocks of rows, side by side
    base.py        the names of types, and the error that a model which cannot work raises

It knows nobody outside. What users pass in is checked above, before it comes here.
"""
