"""The network on any table: precision, gradients by task, names, and what must not matter."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple.core.passes import backward, forward, joint_loss
from npple.network import Network
from npple.routing import Experts, Gate, Level, Source, Table, Tower
from strategies import (DTYPES, MODELS, SMOOTH, assert_close, assert_equal, models, problem,
                        problems, seeds, tables, worst)

TWO = {"a": "binary", "b": "regression"}
smooth = models(activations=SMOOTH) | tables(activations=SMOOTH).map(Network)


# By hand ----------------------------------------------------------------------------------------

def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def dense(params, name, x, expert=...):
    return x @ params[f"{name}/weight"][expert] + params[f"{name}/bias"][expert]


def ple_by_hand(params, x):
    """PLE of two levels, tasks a and b, 2 own experts each and 1 shared: sample by sample."""
    def experts(level, name, h):
        weight = params[f"level{level}/{name}/experts/layer1/weight"]
        return [np.maximum(dense(params, f"level{level}/{name}/experts/layer1", h, i), 0)
                for i in range(len(weight))]

    def gate(level, name, h, mixed):
        w = softmax(h @ params[f"level{level}/{name}/gate/layer1/weight"])
        assert len(w) == len(mixed)
        return sum(w_i * e_i for w_i, e_i in zip(w, mixed, strict=True))

    outputs = {"a": [], "b": []}
    for row in x:
        a1, b1, s1 = (experts(1, name, row) for name in ("a", "b", "shared"))
        a, b = gate(1, "a", row, a1 + s1), gate(1, "b", row, b1 + s1)
        shared = gate(1, "shared", row, a1 + b1 + s1)
        a2, b2, s2 = experts(2, "a", a), experts(2, "b", b), experts(2, "shared", shared)
        for task, top in (("a", gate(2, "a", a, a2 + s2)), ("b", gate(2, "b", b, b2 + s2))):
            hidden = np.maximum(dense(params, f"tower/{task}/layer1", top), 0)
            outputs[task].append(dense(params, f"tower/{task}/layer2", hidden)[0])
    return {task: np.array(values) for task, values in outputs.items()}


def test_ple_is_what_the_paper_says_sample_by_sample():
    model = npple.ple(5, TWO, shared_experts=1, expert_units=(4,), tower_units=(3,))
    drawn = problem(model, 0, 6)
    assert_close(model.forward(drawn.params, drawn.x).outputs, ple_by_hand(drawn.params, drawn.x),
                 1e-13)


@given(problems())
def test_the_gradient_is_the_derivative_of_the_loss(drawn):
    """Along a random direction in all parameters at once, by complex step on the forward pass."""
    rng = np.random.default_rng(0)
    ray = {name: rng.standard_normal(p.shape) for name, p in drawn.params.items()}
    moved = {name: p + 1e-100j * ray[name] for name, p in drawn.params.items()}
    slope = drawn.loss_and_grads(params=moved)[0].imag / 1e-100
    _, grads = drawn.loss_and_grads()
    terms = np.concatenate([(grads[name] * ray[name]).ravel() for name in grads])
    assert abs(slope - terms.sum()) <= 1e-13 * np.abs(terms).sum()


# Precision --------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@given(problems())
def test_everything_is_computed_in_the_precision_of_the_parameters(dtype, drawn):
    """And to it: the values agree with those in longdouble."""
    def run(dtype):
        params = {name: p.astype(dtype) for name, p in drawn.params.items()}
        real = np.zeros(0, dtype).real.dtype
        x = drawn.x.astype(real) if isinstance(drawn.x, np.ndarray) else {
            name: v.astype(real) if v.dtype.kind == "f" else v for name, v in drawn.x.items()}
        trace = drawn.model.forward(params, x)
        loss, grads = drawn.loss_and_grads(params=params, x=x)
        # the input is data: it stays real
        assert {a.dtype for name, a in trace.items() if name != "input"} == {np.dtype(dtype)}
        assert {g.dtype for g in grads.values()} == {np.dtype(dtype)}
        return dict(trace), grads, loss

    trace, grads, loss = run(dtype)
    exact = run("longdouble")
    tolerance = 3e4 * float(np.finfo(dtype).eps)
    for name, value in exact[0].items():
        assert worst(trace[name], value, floor=0.1) < tolerance
    assert abs(loss - exact[2]) <= tolerance * abs(exact[2])
    scale = max(np.abs(g).max() for g in exact[1].values())
    assert max(np.abs(grads[name] - g).max() for name, g in exact[1].items()) <= tolerance * scale
    if dtype == "complex128":
        assert loss.imag == 0 and not any(g.imag.any() for g in grads.values())


@given(problems())
def test_the_loss_is_a_plain_float(drawn):
    assert type(drawn.loss_and_grads()[0]) is float
    own = drawn.model.task_losses(drawn.params, *drawn.data)
    assert list(own) == list(drawn.model.tasks) and {type(v) for v in own.values()} == {float}


# Blocks of rows ---------------------------------------------------------------------------------

@given(problems(), st.integers(1, 9))
def test_however_a_batch_is_cut_into_blocks_its_losses_and_gradients_are_the_same(drawn, rows):
    """With masks: a block may hold none of a task's rows, or all of them."""
    whole, own = drawn.loss_and_grads(), drawn.model.task_losses(drawn.params, *drawn.data)
    with patch("npple.core.blocks.BLOCK", rows):
        loss, grads = drawn.loss_and_grads()
        assert drawn.model.task_losses(drawn.params, *drawn.data) == pytest.approx(own, rel=1e-13)
    assert loss == pytest.approx(whole[0], rel=1e-13)
    scale = max(np.abs(g).max() for g in whole[1].values())
    assert max(np.abs(grads[name] - g).max() for name, g in whole[1].items()) <= 1e-13 * scale


def test_only_a_block_of_rows_is_run_at_a_time():
    model = npple.ple(inputs=2, tasks={"a": "regression"})
    rows = 2 * npple.core.blocks.BLOCK + 1
    with patch("npple.core.blocks.forward", wraps=forward) as run:
        model.loss_and_grads(model.init(0), np.ones((rows, 2)), {"a": np.ones(rows)})
    assert sorted(len(call.args[2]) for call in run.call_args_list) == [341, 342, 342]


@pytest.mark.parametrize("name", ["ple", "snr_trans", "sluice"])
@pytest.mark.parametrize("rows", [511, 513, 600, 1500])
def test_a_large_batch_is_the_mean_of_its_parts(name, rows):
    model = npple.ARCHITECTURES[name]({"age": "numeric", "job": (5, 3)}, TWO)
    drawn = problem(model, 0, rows)
    parts = [slice(0, rows // 3), slice(rows // 3, rows)]
    loss, grads = model.loss_and_grads(drawn.params, drawn.x, drawn.targets)
    total, summed = 0.0, dict.fromkeys(grads, 0.0)
    for at in parts:
        share = (at.stop - at.start) / rows
        part = model.loss_and_grads(drawn.params, {k: v[at] for k, v in drawn.x.items()},
                                    {k: v[at] for k, v in drawn.targets.items()})
        total += share * part[0]
        summed = {name: summed[name] + share * grad for name, grad in part[1].items()}
    assert loss == pytest.approx(total, rel=1e-13)
    assert_close(grads, summed, 1e-12)


# The tasks' losses and gradients ----------------------------------------------------------------

@given(problems())
def test_the_joint_loss_is_the_weighted_sum_of_the_tasks_losses(drawn):
    own = drawn.model.task_losses(drawn.params, *drawn.data)
    joint = sum(drawn.weights[task] * loss for task, loss in own.items())
    assert drawn.loss_and_grads()[0] == pytest.approx(joint, rel=1e-14)
    assert drawn.loss_and_grads(weights=None)[0] == pytest.approx(sum(own.values()), rel=1e-14)


@given(problems())
def test_the_tasks_gradients_add_up_to_the_joint_gradient(drawn):
    total = dict.fromkeys(drawn.params, 0.0)
    size = dict.fromkeys(drawn.params, 0.0)
    for task in drawn.model.tasks:
        weights = dict.fromkeys(drawn.model.tasks, 0) | {task: drawn.weights[task]}
        for name, grad in drawn.loss_and_grads(weights=weights)[1].items():
            total[name] = total[name] + grad
            size[name] = size[name] + np.abs(grad).max()
    for name, grad in drawn.loss_and_grads()[1].items():
        assert np.abs(grad - total[name]).max() <= 1e-13 * size[name]


@given(problems(smooth), st.data())
def test_a_gradient_is_exactly_zero_where_the_table_says_unreachable_and_only_there(drawn, data):
    task = data.draw(st.sampled_from(list(drawn.model.tasks)))
    everywhere = drawn.masks | {task: np.ones(len(drawn.targets[task]), bool)}
    only = dict.fromkeys(drawn.model.tasks, 0) | {task: 1}
    _, grads = drawn.loss_and_grads(masks=everywhere, weights=only)
    reached = drawn.model.table.reached_parameters([task])
    assert [name for name, grad in grads.items() if grad.any()] == reached


@given(problems(), st.sampled_from([0.25, 4.0, 1024.0]))
def test_loss_and_gradient_scale_with_the_weights(drawn, factor):
    """By powers of two, which do not round: to the last bit."""
    loss, grads = drawn.loss_and_grads()
    scaled = {task: factor * weight for task, weight in drawn.weights.items()}
    scaled_loss, scaled_grads = drawn.loss_and_grads(weights=scaled)
    assert scaled_loss == factor * loss
    assert_equal(scaled_grads, {name: factor * grad for name, grad in grads.items()})


def test_with_all_weights_zero_nothing_is_learned():
    drawn = problem(npple.ple(3, TWO), 0, 4)
    loss, grads = drawn.loss_and_grads(weights={"a": 0, "b": 0})
    assert loss == 0 and type(loss) is float
    assert_equal(grads, {name: np.zeros_like(p) for name, p in drawn.params.items()})


def test_a_task_with_weight_zero_is_left_out_whatever_its_loss():
    """An infinite loss times 0 would be no number."""
    drawn = problem(npple.cgc(3, TWO), 0, 4)
    huge = drawn.targets | {"b": np.full(4, 1e200)}
    with np.errstate(over="ignore"):
        loss, grads = drawn.loss_and_grads(targets=huge, weights={"a": 1, "b": 0})
    expected_loss, expected = drawn.loss_and_grads(weights={"a": 1, "b": 0})
    assert loss == expected_loss
    assert_equal(grads, expected)


# What must not matter ---------------------------------------------------------------------------

def take(x, rows):
    """These rows of a matrix or of each column."""
    return {name: v[rows] for name, v in x.items()} if isinstance(x, dict) else x[rows]


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(drawn, random):
    rows = len(next(iter(drawn.targets.values())))
    order = np.array(random.sample(range(rows), rows))
    x = take(drawn.x, order)
    targets = {task: y[order] for task, y in drawn.targets.items()}
    masks = {task: mask[order] for task, mask in drawn.masks.items()}
    loss, grads = drawn.loss_and_grads()
    other_loss, other = drawn.loss_and_grads(x=x, targets=targets, masks=masks)
    assert other_loss == pytest.approx(loss, rel=1e-13)
    scale = max(np.abs(g).max() for g in grads.values())
    assert max(np.abs(other[name] - g).max() for name, g in grads.items()) <= 1e-13 * scale


@given(problems())
def test_a_row_alone_has_the_outputs_it_has_in_the_batch(drawn):
    """No row sees another, so a batch of one is nothing special."""
    whole = drawn.model.forward(drawn.params, drawn.x).outputs
    for i in range(len(next(iter(whole.values())))):
        alone = drawn.model.forward(drawn.params, take(drawn.x, [i])).outputs
        scale = {task: np.abs(z).max() for task, z in whole.items()}
        for task, z in alone.items():
            assert z.shape == whole[task][i:i + 1].shape
            assert np.abs(z - whole[task][i:i + 1]).max() <= 1e-13 * scale[task]


@given(problems())
def test_nothing_that_came_in_is_changed(drawn):
    kept = {"params": drawn.params, "targets": drawn.targets, "masks": drawn.masks,
            "x": drawn.x if isinstance(drawn.x, dict) else {"x": drawn.x}}
    copies = {what: {name: v.copy() for name, v in arrays.items()} for what, arrays in kept.items()}
    weights = dict(drawn.weights)
    for arrays in kept.values():
        for array in arrays.values():
            array.flags.writeable = False
    drawn.loss_and_grads()
    drawn.model.task_losses(drawn.params, *drawn.data)
    for what, arrays in kept.items():
        assert_equal(arrays, copies[what])
    assert drawn.weights == weights


@given(problems())
def test_a_call_leaves_no_trace_in_the_next(drawn):
    first, second = drawn.loss_and_grads(), drawn.loss_and_grads()
    assert first[0] == second[0]
    assert_equal(first[1], second[1])


def test_copies_of_parameters_are_evaluated_together():
    """Leading axes broadcast through the whole forward pass and the losses."""
    for name in MODELS:
        model = npple.ARCHITECTURES[name]({"n": "numeric", "c": (3, 2)},
                                          TWO | {"c": "multiclass:3"})
        drawn = problem(model, 1, 4)
        rng = np.random.default_rng(2)
        copies = {key: p + 0.1 * rng.standard_normal((5, *p.shape))
                  for key, p in drawn.params.items()}
        masks = {task: drawn.masks.get(task) for task in drawn.model.tasks}
        trace = forward(drawn.model.table, copies, drawn.x)
        loss, _ = joint_loss(trace, drawn.targets, masks, drawn.weights)
        for i in range(5):
            one, _ = drawn.loss_and_grads(params={key: p[i] for key, p in copies.items()})
            assert loss[i] == pytest.approx(one, rel=1e-13), name


# Inputs -----------------------------------------------------------------------------------------

@given(seeds)
def test_numeric_columns_are_the_matrix_they_make(seed):
    """Side by side in the order of the model's columns, whatever the order of the mapping."""
    matrix, by_column = npple.cgc(3, TWO), npple.cgc(dict.fromkeys("rst", "numeric"), TWO)
    drawn = problem(matrix, seed, 4)
    columns = {name: drawn.x[:, "rst".index(name)] for name in "tsr"}
    loss, grads = drawn.loss_and_grads()
    other_loss, other = drawn.loss_and_grads(model=by_column, x=columns)
    assert other_loss == loss
    assert_equal(other, grads)


def test_an_embedding_is_a_dense_layer_on_one_hot_codes():
    """Values and gradients, with repeated codes and one that does not occur."""
    model = npple.ple({"n": "numeric", "c": (4, 2), "d": (3, 1)}, TWO, activation="tanh")
    drawn = problem(model, 3, 5)
    drawn.x["c"][:] = [0, 2, 2, 0, 2]
    params, x = drawn.params, drawn.x
    onehot = {name: np.eye(size)[x[name]] for name, size in (("c", 4), ("d", 3))}
    flat = np.concatenate([x["n"][:, None], onehot["c"] @ params["embedding/c"],
                           onehot["d"] @ params["embedding/d"]], axis=1)
    plain = npple.ple(4, TWO, activation="tanh")
    rest = {name: p for name, p in params.items() if not name.startswith("embedding/")}
    trace = forward(plain.table, rest, flat)
    assert_close(model.forward(params, x).outputs, trace.outputs, 1e-14)
    masks = {task: drawn.masks.get(task) for task in TWO}
    _, starts = joint_loss(trace, drawn.targets, masks, drawn.weights)
    gradients = backward(trace, starts)
    expected = {name: gradients[name] for name in rest}
    expected |= {"embedding/c": onehot["c"].T @ gradients["input"][:, 1:3],
                 "embedding/d": onehot["d"].T @ gradients["input"][:, 3:]}
    grads = drawn.loss_and_grads()[1]
    assert_close(grads, expected, 1e-12)
    assert not grads["embedding/c"][[1, 3]].any()


def test_padding_a_bag_changes_nothing_and_a_blocked_batch_neither():
    model = npple.ple({"n": "numeric", "tags": (5, 2, "mean")}, TWO)
    drawn = problem(model, 3, 1200)
    wider = {"n": drawn.x["n"], "tags": np.hstack([drawn.x["tags"], np.full((1200, 2), -1)])}
    loss, grads = drawn.loss_and_grads()
    other, padded = drawn.loss_and_grads(x=wider)
    assert loss == other
    assert_equal(grads, padded)


def test_a_bag_is_isolated_as_every_embedding_is_and_its_gradients_are_checked():
    model = npple.ple({"n": "numeric", "tags": (5, 2, "sum"), "seen": (4, 3, "mean")}, TWO,
                      expert_units=(3,), tower_units=(2,))
    drawn = problem(model, 3, 5)
    assert npple.gradcheck(model, drawn.params, *drawn.data).passed
    assert npple.isolation(model).verify(steps=1).passed


# Names and shapes -------------------------------------------------------------------------------

def test_what_a_caller_does_to_the_shapes_and_tasks_changes_no_model():
    model = npple.ple(4, {"a": "binary"})
    before = dict(model.shapes), dict(model.tasks)
    model.shapes.clear()
    model.tasks.clear()
    assert (model.shapes, model.tasks) == before and [*model.init(0)] == [*before[0]]


def test_every_intermediate_has_its_documented_name_and_shape():
    model = npple.ple({"n": "numeric", "c": (7, 2)}, {"a": "binary", "b": "multiclass:5"}, levels=2,
                      task_experts={"a": 1, "b": 2}, shared_experts=[1, 0], expert_units=(6, 4),
                      tower_units=(3,), gate_units=(8,))
    drawn = problem(model, 0, 9)
    trace = model.forward(drawn.params, drawn.x)
    assert {name: array.shape for name, array in trace.items()} == {
        "input": (9, 3),
        "level1/a/experts/layer1": (1, 9, 6), "level1/a/experts": (1, 9, 4),
        "level1/b/experts/layer1": (2, 9, 6), "level1/b/experts": (2, 9, 4),
        "level1/shared/experts/layer1": (1, 9, 6), "level1/shared/experts": (1, 9, 4),
        "level1/a/gate/layer1": (9, 8), "level1/a/gate/logits": (9, 2),
        "level1/a/gate/weights": (9, 2), "level1/a": (9, 4),
        "level1/b/gate/layer1": (9, 8), "level1/b/gate/logits": (9, 3),
        "level1/b/gate/weights": (9, 3), "level1/b": (9, 4),
        "level2/a/experts/layer1": (1, 9, 6), "level2/a/experts": (1, 9, 4),
        "level2/b/experts/layer1": (2, 9, 6), "level2/b/experts": (2, 9, 4),
        "level2/a": (9, 4),
        "level2/b/gate/layer1": (9, 8), "level2/b/gate/logits": (9, 2),
        "level2/b/gate/weights": (9, 2), "level2/b": (9, 4),
        "tower/a/layer1": (9, 3), "tower/a": (9,), "tower/b/layer1": (9, 3), "tower/b": (9, 5),
    }
    assert list(trace.outputs) == ["a", "b"] and trace.outputs["b"] is trace["tower/b"]
    assert len(trace) == len(list(trace)) and "level2/b/gate/weights" in repr(trace)


@given(problems())
def test_gate_weights_are_the_softmax_of_the_gate_logits(drawn):
    trace = drawn.model.forward(drawn.params, drawn.x)
    for name in trace:
        if name.endswith("/gate/logits"):
            e = np.exp(trace[name])
            weights = trace[name.replace("logits", "weights")]
            np.testing.assert_allclose(weights, e / e.sum(axis=-1, keepdims=True), rtol=1e-12)


@given(problems())
def test_predictions_are_probabilities_or_values(drawn):
    trace = drawn.model.forward(drawn.params, drawn.x)
    for task, kind in drawn.model.tasks.items():
        p, z = trace.predictions[task], trace.outputs[task]
        if kind == "binary":
            np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), rtol=1e-12)
        elif kind == "regression":
            np.testing.assert_array_equal(p, z)
        else:
            np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
            np.testing.assert_allclose(np.log(p[:, 1:] / p[:, :1]), z[:, 1:] - z[:, :1], rtol=1e-9,
                                       atol=1e-12)


@given(problems())
def test_gradients_have_the_names_and_shapes_of_the_parameters(drawn):
    _, grads = drawn.loss_and_grads()
    assert list(grads) == list(drawn.params)
    assert {name: g.shape for name, g in grads.items()} == dict(drawn.model.shapes)


@given(problems())
def test_backward_gives_the_gradient_of_every_tensor_that_counts(drawn):
    """With the shape of the tensor; and leaving out what nobody reads changes nothing."""
    masks = {task: drawn.masks.get(task) for task in drawn.model.tasks}
    trace = forward(drawn.model.table, drawn.params, drawn.x)
    _, starts = joint_loss(trace, drawn.targets, masks, drawn.weights)
    gradients = backward(trace, starts)
    for name in set(gradients) & set(trace):
        assert gradients[name].shape == trace[name].shape
    reached = set().union(*(drawn.model.table.reached(task) for task in drawn.model.tasks))
    assert set(gradients) & {"input", *drawn.model.table.row} == reached
    short = backward(trace, starts, drawn.model.unread)
    assert not short.keys() & drawn.model.unread
    assert_equal(short, {name: gradients[name] for name in short})


# Initial values ---------------------------------------------------------------------------------

@given(models(), seeds)
def test_initial_values_depend_on_the_seed_alone(model, seed):
    assert_equal(model.init(seed), model.init(seed=seed))
    assert {name: p.shape for name, p in model.init(seed).items()} == dict(model.shapes)
    for name, p in model.init(seed).items():
        if not name.endswith("bias"):
            assert (p != model.init(seed + 1)[name]).all()


def test_a_parameter_starts_equal_in_every_architecture_that_has_it():
    made = [builder({"n": "numeric", "c": (3, 2)}, TWO).init(5)
            for builder in npple.ARCHITECTURES.values()]
    seen = {}
    for params in made:
        for name, p in params.items():
            np.testing.assert_array_equal(p, seen.setdefault((name, p.shape), p))
    assert len(seen) < sum(map(len, made))


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_values_are_as_documented(dtype):
    model = npple.cgc({"n": "numeric", "c": (500, 20)}, TWO, expert_units=(400,))
    params = model.init(1, dtype)
    assert {p.dtype for p in params.values()} == {np.dtype(dtype)}
    for name, p in params.items():
        assert not p.any() if name.endswith("bias") else len(np.unique(p)) > 0.9 * p.size
    weight = params["level1/a/experts/layer1/weight"]
    assert weight.shape == (2, 21, 400)
    bound = np.sqrt(6 / 421)
    assert 0.999 * bound < np.abs(weight).max() <= bound * (1 + 1e-7)
    assert 0.099 < np.abs(params["embedding/c"]).max() <= 0.1 * (1 + 1e-7)
    assert abs(weight.mean()) < 0.02 * bound
    assert (weight != params["level1/b/experts/layer1/weight"]).all()


# Shared parameters ------------------------------------------------------------------------------

def test_groups_that_share_parameters_are_trained_together():
    """The gradient is the sum of what each of the two would get by itself."""
    def made(second):
        level1 = Level((Experts("e1", "input", 2, (3,), ("tanh",)),),
                       (Gate("r1", (Source("e1"),), "input"),))
        level2 = Level((Experts("e2", "input", 2, (3,), ("tanh",), second),),
                       (Gate("r2", (Source("e2", (1, 0)),), "r1"),))
        return Network(Table(3, (level1, level2), (Tower("a", "regression", "r2", (), ()),)))

    tied = problem(made("e1"), 0, 4)
    names = {"e2/layer1/weight": "e1/layer1/weight", "e2/layer1/bias": "e1/layer1/bias"}
    apart = {name: tied.params[names.get(name, name)] for name in made("").shapes}
    loss, grads = tied.loss_and_grads()
    other_loss, other = tied.loss_and_grads(model=made(""), params=apart)
    assert loss == other_loss
    for lent, name in names.items():
        np.testing.assert_allclose(grads[name], other[name] + other[lent], rtol=1e-13)
