"""The architectures around PLE as their papers describe them; PLE itself is in test_network.py.

Each test computes the towers' outputs by hand, from the parameters by name.
"""

import numpy as np
import pytest

import npple
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
