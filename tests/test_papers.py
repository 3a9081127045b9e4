"""The architectures around PLE as their papers describe them; PLE itself is in test_network.py.

Each test computes the towers' outputs by hand, from the parameters by name.
"""

import numpy as np
import pytest

import npple
from npple.data import Dataset
from npple.learn.training import Run
from npple.verify.cases import random_case
from strategies import assert_close

TASKS = {"a": "binary", "b": "regression", "c": "binary"}
SIZES = {"expert_units": (4,), "tower_units": ()}


def case_of(builder, **options):
    return random_case(builder(5, TASKS, **SIZES, **options))


def experts(params, group, h):
    """relu(h W_i + b_i) for each expert of a group."""
    layer = f"{group}/experts/layer1"
    return [np.maximum(h @ weight + bias, 0)
            for weight, bias in zip(params[f"{layer}/weight"], params[f"{layer}/bias"])]


def assert_towers_read(case, representations):
    """The outputs are those of linear towers on what was computed by hand."""
    tower = {task: (case.params[f"tower/{task}/layer1/weight"],
                    case.params[f"tower/{task}/layer1/bias"]) for task in TASKS}
    expected = {task: (h @ tower[task][0] + tower[task][1])[:, 0]
                for task, h in representations.items()}
    assert_close(case.model.forward(case.params, case.x).outputs, expected, 1e-13)


def mixed(alpha, parts):
    """sum_i alpha_i E_i: one constant for every sample."""
    return sum(constant * part for constant, part in zip(alpha, parts, strict=True))


@pytest.mark.parametrize("borrows, read", [
    (None, {"a": "a", "b": "ba", "c": "cab"}),
    ({"a": ["c"], "c": ["b", "a"]}, {"a": "ac", "b": "b", "c": "cba"})])
def test_asymmetric_sharing_puts_the_bottoms_a_task_borrows_beside_its_own(borrows, read):
    case = case_of(npple.asymmetric_sharing, borrows=borrows)
    bottom = {task: experts(case.params, f"level1/{task}", case.x)[0] for task in TASKS}
    assert_towers_read(case, {task: np.hstack([bottom[each] for each in read[task]])
                              for task in TASKS})


def test_customized_sharing_puts_the_shared_bottom_beside_each_tasks_own():
    case = case_of(npple.customized_sharing)
    bottom = {name: experts(case.params, f"level1/{name}", case.x)[0]
              for name in (*TASKS, "shared")}
    assert_towers_read(case, {task: np.hstack([bottom[task], bottom["shared"]]) for task in TASKS})


def test_a_cross_stitch_network_mixes_the_tasks_activations_by_constants_after_each_level():
    case = case_of(npple.cross_stitch)
    h = dict.fromkeys(TASKS, case.x)
    for level in (1, 2):
        parts = [experts(case.params, f"level{level}/{task}", h[task])[0] for task in TASKS]
        h = {task: mixed(case.params[f"level{level}/{task}/stitch/weight"][0], parts)
             for task in TASKS}
    assert_towers_read(case, h)


def test_a_cross_stitch_network_per_channel_has_a_constant_for_each_column():
    """Cross-stitch, section 5, in plain loops."""
    case = case_of(npple.cross_stitch, per="channel")
    h = dict.fromkeys(TASKS, case.x)
    for level in (1, 2):
        parts = [experts(case.params, f"level{level}/{task}", h[task])[0] for task in TASKS]
        h = {}
        for task in TASKS:
            alpha = case.params[f"level{level}/{task}/stitch/weight"]
            assert alpha.shape == (1, 3, 4)
            h[task] = np.zeros_like(parts[0])
            for b, c in np.ndindex(*parts[0].shape):
                for i, part in enumerate(parts):
                    h[task][b, c] += alpha[0, i, c] * part[b, c]
    assert_towers_read(case, h)


def test_channels_start_as_layers_do():
    layer, channel = (npple.cross_stitch(5, TASKS, per=per).init(0) for per in ("layer", "channel"))
    for name, alpha in channel.items():
        if "/stitch/" in name:
            assert alpha.shape == (*layer[name].shape, 64)
            assert (alpha == layer[name][..., None]).all()


def test_ml_mmoe_has_a_gate_for_each_upper_expert_that_selects_on_the_input():
    """PLE paper, section 5.1.2 and figure 8; SNR: every gate reads the model's input."""
    case = case_of(npple.ml_mmoe, levels=3, experts=(3, 2, 4))
    bank, upper = experts(case.params, "level1/shared", case.x), {1: 2, 2: 4}
    for level in (1, 2):
        made = [gated(case, f"level{level}/expert{i}", bank) for i in range(1, upper[level] + 1)]
        bank = [experts(case.params, f"level{level + 1}/expert{i}", h)[0]
                for i, h in enumerate(made, start=1)]
    assert_towers_read(case, {task: gated(case, f"level3/{task}", bank) for task in TASKS})


def gated(case, name, parts):
    """A softmax of the input's logits over the experts, row by row."""
    weight = case.params[f"{name}/gate/layer1/weight"]
    rows = []
    for b, x in enumerate(case.x):
        scores = [np.exp(sum(x[j] * weight[j, i] for j in range(5))) for i in range(len(parts))]
        rows.append(sum(score * part[b] for score, part in zip(scores, parts)) / sum(scores))
    return np.array(rows)


@pytest.mark.parametrize("pool, share", [("sum", 1), ("mean", 1 / 2)])
def test_asymmetric_sharing_may_add_up_or_average_the_bottoms(pool, share):
    case = case_of(npple.asymmetric_sharing, borrows={"b": ["a"]}, pool=pool)
    bottom = {task: experts(case.params, f"level1/{task}", case.x)[0] for task in TASKS}
    assert_towers_read(case, bottom | {"b": share * (bottom["a"] + bottom["b"])})


@pytest.mark.parametrize("overlap", ["inputs", "outputs"])
def test_the_sluice_penalty_is_the_squared_overlap_of_each_pair_of_subspaces(overlap):
    """|W_i W_j^T|² over inputs in the authors' code, |W_i^T W_j|² over outputs."""
    case = case_of(npple.sluice, levels=1, subspaces=3, orthogonality=0.1, overlap=overlap)
    total = 0.0
    for task in TASKS:
        w = case.params[f"level1/{task}/experts/layer1/weight"]
        w = w if overlap == "inputs" else w.swapaxes(1, 2)
        for i in range(3):
            for j in range(i):
                for row in w[i]:
                    for other in w[j]:
                        total += 0.1 * sum(a * b for a, b in zip(row, other)) ** 2
    with_penalty, _ = case.model.loss_and_grads(case.params, *case.batch)
    without, _ = case.model.loss_and_grads(case.params, *case.batch, penalties=False)
    assert with_penalty - without == pytest.approx(total, rel=1e-12)


def test_a_sluice_network_starts_balanced_or_as_told():
    """The authors' code: alpha 1 / (tasks · subspaces), beta 1 / levels or 0.9 for the last."""
    start = npple.sluice(5, TASKS, levels=2).init(0)
    assert start["level1/a/stitch/weight"] == pytest.approx(np.full((2, 6), 1 / 6))
    assert start["levels/a/stitch/weight"].tolist() == [[0.5, 0.5]]
    told = npple.sluice(5, TASKS, levels=3, own=0.5, last=0.9).init(0)
    assert told["level1/b/stitch/weight"] == pytest.approx(
        np.where(np.eye(6)[2:4] > 0, 0.5, 0.1))
    assert told["levels/b/stitch/weight"][0] == pytest.approx([0.05, 0.05, 0.9])


def test_the_limits_of_snr_are_the_models_own():
    beta, gamma, zeta = 0.6, -0.5, 1.5
    case = case_of(npple.snr_aver, experts=2, l0=1e-3, beta=beta, gamma=gamma, zeta=zeta,
                   start=(-1.0, 1.0))
    trace = case.model.forward(case.params, case.x, case.noise)
    expected = 0.0
    for row in ("level1/sub1", "level1/sub2", *(f"level2/{task}" for task in TASKS)):
        log_alpha, u = case.params[f"{row}/route/log_alpha"], case.noise[row]
        for i in range(2):
            s = 1 / (1 + np.exp(-(np.log(u[i] / (1 - u[i])) + log_alpha[i]) / beta))
            z = min(max(s * (zeta - gamma) + gamma, 0), 1)
            assert trace[f"{row}/route/z"][i] == pytest.approx(z, rel=1e-12, abs=1e-15)
            expected += 1e-3 / (1 + np.exp(beta * np.log(-gamma / zeta) - log_alpha[i]))
    penalty = (case.model.loss_and_grads(case.params, *case.batch)[0]
               - case.model.loss_and_grads(case.params, *case.batch, penalties=False)[0])
    assert penalty == pytest.approx(expected, rel=1e-11)
    fresh = case.model.init(0)
    starts = np.concatenate([p for name, p in fresh.items() if name.endswith("log_alpha")])
    assert (np.abs(starts) <= 1).all() and (starts < 0.5).any()


def test_a_sluice_network_mixes_all_subspaces_into_each_and_the_levels_into_the_output():
    case = case_of(npple.sluice)
    h, levels = dict.fromkeys(TASKS, case.x), []
    for level in (1, 2):
        parts = [part for task in TASKS
                 for part in experts(case.params, f"level{level}/{task}", h[task])]
        h = {task: np.hstack([mixed(alpha, parts) for alpha in
                              case.params[f"level{level}/{task}/stitch/weight"]]) for task in TASKS}
        levels.append(h)
    assert_towers_read(case, {
        task: mixed(case.params[f"levels/{task}/stitch/weight"][0], [h[task] for h in levels])
        for task in TASKS})


@pytest.mark.parametrize("builder", [npple.snr_trans, npple.snr_aver])
def test_snr_routes_from_every_sub_network_to_every_one_above_and_to_every_tower(builder):
    case = case_of(builder, experts=2)
    h, transforms = {"sub1": case.x, "sub2": case.x}, builder is npple.snr_trans
    for level, above in ((1, ("sub1", "sub2")), (2, TASKS)):
        below = [experts(case.params, f"level{level}/{name}", h[name])[0] for name in h]
        h = {}
        for name in above:
            route = f"level{level}/{name}/route"
            z = np.clip(1.2 / (1 + np.exp(-case.params[f"{route}/log_alpha"])) - 0.1, 0, 1)
            weights = case.params[f"{route}/weight"] if transforms else [np.eye(4)] * 2
            h[name] = mixed(z, [u @ weight for u, weight in zip(below, weights)])
    assert_towers_read(case, h)


@pytest.mark.parametrize("decay_per", ["epoch", "step"])
@pytest.mark.parametrize("mean_over", ["batch", "data"])
def test_training_is_gradient_descent_on_both_readings_of_the_loss_and_its_weights(
        decay_per, mean_over):
    """PLE paper, equations 8 to 10, for linear tasks of their own; the last batch is smaller."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(22, 2)), {task: rng.normal(size=22) for task in "ab"}
    delta = {"a": np.ones(22, bool), "b": np.arange(22) % 5 == 0}
    model = npple.single_task(2, dict.fromkeys("ab", "regression"), expert_units=(1,),
                              tower_units=(), activation="identity")
    run = Run(model, npple.SGD(rate=0.02), 4, 3, {"a": 0.5, "b": 2.0}, {"b": 0.7}, dtype="float64",
              decay_per=decay_per, mean_over=mean_over)
    expected, step = {name: p.copy() for name, p in run.params.items()}, 0
    for epoch in range(3):
        order = np.random.default_rng([3, epoch]).permutation(22)
        for start in range(0, 22, 4):
            batch, t = order[start:start + 4], epoch if decay_per == "epoch" else step
            for task, weight in (("a", 0.5), ("b", 2.0 * 0.7 ** t)):
                own = [i for i in batch if delta[task][i]]
                rows = len(own) if mean_over == "batch" else 4 * sum(delta[task]) / 22
                if own:
                    descend(expected, task, x, y[task], own, 0.02 * weight / rows)
            step += 1
    data = Dataset(x, y, {"b": delta["b"]})
    run.train(data, data, epochs=3)
    assert run.step == step == 18
    assert_close(run.params, expected, 1e-12)


def descend(params, task, x, y, rows, rate):
    """A step down the sum of (z - y)² over some rows, z = (x w + c) v + d."""
    w, c = (params[f"level1/{task}/experts/layer1/{name}"] for name in ("weight", "bias"))
    v, d = (params[f"tower/{task}/layer1/{name}"] for name in ("weight", "bias"))
    dw, dc, dv, dd = [0.0, 0.0], 0.0, 0.0, 0.0
    for i in rows:
        h = x[i, 0] * w[0, 0, 0] + x[i, 1] * w[0, 1, 0] + c[0, 0]
        dz = 2 * (h * v[0, 0] + d[0] - y[i])
        dw = [dw[j] + dz * v[0, 0] * x[i, j] for j in (0, 1)]
        dc, dv, dd = dc + dz * v[0, 0], dv + dz * h, dd + dz
    for j in (0, 1):
        w[0, j, 0] -= rate * dw[j]
    c[0, 0], v[0, 0], d[0] = c[0, 0] - rate * dc, v[0, 0] - rate * dv, d[0] - rate * dd
