"""PLE in JAX, compiled by `jit`: experts and gates that read one representation are one product."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)  # so that float64 stays what it is


def joined(table, params):
    """npple's parameters, those of the layers that read one representation side by side.

    Returns
    -------
    dict of ndarray
        "embeddings" (all sizes, width), `level1/experts` (in, n · width), `level1/bias`,
        `level1/gates` (in, all choices), towers under their own names.
    """
    made = {name: p for name, p in params.items() if name.startswith("tower/")}
    if table.embeddings:
        made["embeddings"] = np.concatenate([params[f"embedding/{name}"]
                                             for name in table.embeddings])
    for level, group, streams in reads(table):
        names = [f"{level}/{stream}/experts/layer1" for stream in streams]
        made[f"{group}/experts"] = np.concatenate(
            [np.concatenate([*params[f"{name}/weight"]], 1) for name in names], 1)
        made[f"{group}/bias"] = np.concatenate([params[f"{name}/bias"].ravel() for name in names])
        if gates := gates_of(table, level, streams):
            made[f"{group}/gates"] = np.concatenate([params[gate] for gate, _ in gates.values()], 1)
    return {name: jnp.asarray(p) for name, p in made.items()}


def reads(table):
    """(level, name of the layer, streams) for each representation that experts read."""
    streams = [*table.tasks, "shared"]
    for number in range(1, len(table.levels) + 1):
        level = f"level{number}"
        for group in [streams] if number == 1 else [[stream] for stream in streams]:
            yield level, f"{level}/{group[0]}", group


def gates_of(table, level, streams):
    """Stream -> (its gate's weight, how many experts it mixes)."""
    found = {stream: f"{level}/{stream}/gate/layer1/weight" for stream in streams}
    return {stream: (name, table.shapes[name][1]) for stream, name in found.items()
            if name in table.shapes}


def outputs(table, params, x):
    """Task -> (batch,)."""
    numeric, codes = x
    parts = [] if numeric is None else [numeric]
    if codes is not None:
        parts.append(params["embeddings"][codes].reshape(len(codes), -1))
    streams = [*table.tasks, "shared"]
    inputs = dict.fromkeys(streams, jnp.concatenate(parts, 1))
    layers, level = list(reads(table)), ""
    for number in range(1, len(table.levels) + 1):
        experts, weights = {}, {}
        for level, name, group in (each for each in layers if each[0] == f"level{number}"):
            experts |= wide_experts(table, params, level, name, group, inputs[group[0]])
            weights |= softmaxes(table, params, level, name, group, inputs[group[0]])
        inputs = {stream: mixture(w, [experts[each] for each in (
            streams if stream == "shared" else (stream, "shared"))])
            for stream, w in weights.items()}
    return {task: tower(params, f"tower/{task}", inputs[task]) for task in table.tasks}


def wide_experts(table, params, level, name, group, x):
    """Stream -> its experts (batch, n, width)."""
    shapes = [table.shapes[f"{level}/{stream}/experts/layer1/weight"] for stream in group]
    y = jax.nn.relu(x @ params[f"{name}/experts"] + params[f"{name}/bias"])
    y = y.reshape(len(x), -1, shapes[0][-1])
    return dict(zip(group, jnp.split(y, np.cumsum([n for n, *_ in shapes])[:-1], 1)))


def softmaxes(table, params, level, name, group, x):
    """Stream -> the weights of its gate (batch, n)."""
    gates = gates_of(table, level, group)
    if not gates:
        return {}
    stops = np.cumsum([count for _, count in gates.values()])[:-1]
    logits = jnp.split(x @ params[f"{name}/gates"], stops, 1)
    return {stream: jax.nn.softmax(z) for stream, z in zip(gates, logits)}


def mixture(weights, experts):
    """(batch, n), parts of (batch, n, width) -> (batch, width)."""
    return (weights[..., None] * jnp.concatenate(experts, 1)).sum(1)


def tower(params, name, x):
    h = jax.nn.relu(x @ params[f"{name}/layer1/weight"] + params[f"{name}/layer1/bias"])
    return (h @ params[f"{name}/layer2/weight"] + params[f"{name}/layer2/bias"])[:, 0]


def joint_loss(table, params, x, y):
    """Sum of the tasks' mean losses."""
    total = 0.0
    for task, z in outputs(table, params, x).items():
        row = (jax.nn.softplus(z) - y[task] * z if table.tasks[task] == "binary"
               else (z - y[task]) ** 2)
        total = total + row.mean()
    return total


def adam(params, grads, state, rate):
    """One step -> (params, state)."""
    (t, m, v), each = state, jax.tree.map
    t = t + 1
    m = each(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = each(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    return each(lambda p, m, v: p - (rate / (1 - 0.9 ** t) * m / (
        jnp.sqrt(v / (1 - 0.999 ** t)) + 1e-8)).astype(p.dtype), params, m, v), (t, m, v)


class Jax:
    """The contender: every call is one compiled program, and waits for its results."""

    def __init__(self, problem, features, rate):
        table = problem.model.table
        self.params = joined(table, problem.params)
        m, v = (jax.tree.map(jnp.zeros_like, self.params) for _ in "mv")
        self.state = jnp.zeros(()), m, v
        numeric, codes = (None if part is None else jnp.asarray(part) for part in features)
        self.batch = (numeric, codes), {task: jnp.asarray(y) for task, y in problem.targets.items()}
        self.joint = jax.jit(partial(joint_loss, table))
        self.both = jax.jit(jax.value_and_grad(partial(joint_loss, table)))
        self.probabilities = jax.jit(lambda params, x: {
            task: jax.nn.sigmoid(z) if table.tasks[task] == "binary" else z
            for task, z in outputs(table, params, x).items()})

        def update(params, state, x, y):
            loss, grads = jax.value_and_grad(partial(joint_loss, table))(params, x, y)
            return adam(params, grads, state, rate)

        self.update = jax.jit(update, donate_argnums=(0, 1))

    def predict(self):
        return jax.block_until_ready(self.probabilities(self.params, self.batch[0]))

    def loss(self):
        return self.joint(self.params, *self.batch).item()

    def gradients(self):
        return jax.block_until_ready(self.both(self.params, *self.batch))

    def step(self):
        self.params, self.state = jax.block_until_ready(
            self.update(self.params, self.state, *self.batch))
