"""Influence: norms, conflicts, shares and copies say what the gradients are."""

import numpy as np
import pytest
from hypothesis import given
from strategies import problems

import npple
from npple.errors import InputError
from npple.verify.influence import average, influence
from npple.verify.isolation import generic_case, isolation

TASKS = {"income": "regression", "marital": "regression"}


def case(builder=npple.ple, **options):
    options = {"expert_units": (4,), "tower_units": (2,)} | options
    return generic_case(builder(3, TASKS, **options))


def measured(problem):
    return influence(problem.model, problem.params, *problem.data, problem.weights)


def own_gradients(problem):
    """Task -> the gradient of its weighted loss alone."""
    return {task: problem.model.loss_and_grads(
        problem.params, problem.x, problem.targets, problem.masks,
        {other: problem.weights[task] * (other == task) for other in problem.model.tasks},
        penalties=False)[1] for task in problem.model.tasks}


@given(problems())
def test_norms_and_cosines_are_those_of_the_gradients(problem):
    report = measured(problem)
    groups = isolation(problem.model).groups
    for task, grads in own_gradients(problem).items():
        whole = np.sqrt(sum((g * g).sum() for g in grads.values()))
        np.testing.assert_allclose(np.linalg.norm(list(report.norms[task].values())), whole)
    own = own_gradients(problem)
    for group, pairs in report.cosines.items():
        for (a, b), cosine in pairs.items():
            dot = sum((own[a][name] * own[b][name]).sum() for name in groups[group])
            if np.isnan(cosine):
                assert report.norms[a][group] * report.norms[b][group] == 0
            else:
                np.testing.assert_allclose(
                    cosine * report.norms[a][group] * report.norms[b][group], dot,
                    rtol=1e-9, atol=1e-12 * report.norms[a][group] * report.norms[b][group])


@given(problems())
def test_the_shares_of_a_moved_expert_sum_to_one(problem):
    report = measured(problem)
    for group, norms in report.expert_norms.items():
        moved = sum(norms.values()) > 0
        total = sum(report.shares(group).values())
        np.testing.assert_allclose(total[moved], 1)
        assert np.isnan(total[~moved]).all()


def test_cosines_are_given_for_shared_groups_alone():
    one = case()
    cosines = influence(one.model, one.params, one.x, one.targets, one.masks).cosines
    assert list(cosines["level1/marital/experts"]) == [("income", "marital")]
    assert not cosines.keys() & {"level2/marital/experts", "level1/income/gate", "tower/income"}


@pytest.mark.parametrize("sign", [1, -1])
def test_tasks_that_agree_or_conflict_outright(sign):
    """Equal towers, and targets as far on the same or on the other side of the output."""
    one = case(npple.shared_bottom)
    params = one.params | {name.replace("income", "marital"): array
                           for name, array in one.params.items() if "income" in name}
    z = one.model.forward(params, one.x).outputs["income"]
    away = np.linspace(1, 2, len(z))
    report = influence(one.model, params, one.x, {"income": z + away, "marital": z + sign * away})
    cosine = report.cosines["level1/shared/experts"]["income", "marital"]
    assert cosine == pytest.approx(sign, abs=1e-12)
    assert report.shares("level1/shared/experts")["income"] == pytest.approx(0.5)


def test_a_tasks_weight_scales_its_norms_and_a_weight_of_zero_its_shares():
    one = case()
    plain = influence(one.model, one.params, one.x, one.targets)
    heavy = influence(one.model, one.params, one.x, one.targets,
                      weights={"income": 4.0, "marital": 0.0})
    for group, norm in plain.norms["income"].items():
        assert heavy.norms["income"][group] == 4 * norm
    assert set(heavy.norms["marital"].values()) == {0.0}
    assert heavy.shares("level2/shared/experts")["income"].tolist() == [1, 1]
    assert heavy.shares("level2/income/experts")["marital"].tolist() == [0, 0]


# Copies -----------------------------------------------------------------------------------------

GROUP = "level1/shared/experts"


def symmetric(apart=0.0, gate_apart=0.0):
    """An MMoE whose experts 0 and 2 begin as copies, up to relative differences."""
    one = case(npple.mmoe, experts=3)
    params = {name: array.copy() for name, array in one.params.items()}
    for name, array in params.items():
        if name.startswith(GROUP):
            array[2] = array[0] * (1 + apart)
        elif "/gate/" in name:
            array[:, 2] = array[:, 0] + gate_apart
    return one, params


def test_symmetric_experts_are_copies_and_stay_so_in_training():
    one, params = symmetric()
    state = npple.Adam().init(params)
    for _ in range(3):
        report = influence(one.model, params, one.x, one.targets)
        assert report.copies(threshold=0) == [(GROUP, 0, 2)]
        _, grads = one.model.loss_and_grads(params, one.x, one.targets)
        params, state = npple.Adam().step(params, grads, state)
    assert f"copies of each other: {GROUP} 0 and 2" in str(report)


def test_nearly_equal_experts_are_copies_up_to_the_threshold():
    one, params = symmetric(apart=1e-4)
    report = influence(one.model, params, one.x, one.targets)
    assert report.distances[GROUP]["parameters"][0, 2] == pytest.approx(1e-4, rel=1e-3)
    assert report.copies(threshold=1e-2) == [(GROUP, 0, 2)]
    assert report.copies(threshold=1e-5) == []


def test_equal_experts_whose_gates_differ_are_no_copies():
    """Their gradients part them at the next step."""
    one, params = symmetric(gate_apart=0.5)
    report = influence(one.model, params, one.x, one.targets)
    assert report.distances[GROUP]["parameters"][0, 2] == 0
    assert report.copies() == []


def test_equal_experts_that_nothing_moves_are_copies():
    one, params = symmetric()
    nobody = dict.fromkeys(TASKS, np.zeros(8, bool))
    report = influence(one.model, params, one.x, one.targets, nobody)
    assert report.copies(threshold=0) == [(GROUP, 0, 2)]


# Averages ---------------------------------------------------------------------------------------

def test_an_average_over_a_run_takes_the_mean_of_each_step():
    one = case()
    params, seen, rate = one.params, [], npple.SGD()
    for _ in range(3):
        seen.append(influence(one.model, params, one.x, one.targets))
        _, grads = one.model.loss_and_grads(params, one.x, one.targets)
        params, _ = rate.step(params, grads, {})
    mean = average(seen)
    group, pair = "level2/shared/experts", ("income", "marital")
    assert mean.norms["income"][group] == pytest.approx(
        np.mean([each.norms["income"][group] for each in seen]))
    assert mean.cosines[group][pair] == pytest.approx(
        np.mean([each.cosines[group][pair] for each in seen]))
    np.testing.assert_allclose(mean.distances[group]["gradients"], np.mean(
        [each.distances[group]["gradients"] for each in seen], axis=0))


def test_an_average_leaves_out_what_is_undefined():
    one = case()
    nobody = {"marital": np.zeros(8, bool)}
    some = influence(one.model, one.params, one.x, one.targets)
    none = influence(one.model, one.params, one.x, one.targets, nobody)
    group, pair = "level2/shared/experts", ("income", "marital")
    assert np.isnan(none.cosines[group][pair])
    assert average([some, none]).cosines[group][pair] == some.cosines[group][pair]
    assert np.isnan(average([none, none]).cosines[group][pair])
    with pytest.raises(InputError, match="at least one"):
        average([])


def test_the_report_prints_all_four_parts():
    one = case()
    text = str(influence(one.model, one.params, one.x, one.targets, one.masks))
    for part in ("norm of the gradient", "cosine of two tasks' gradients  income marital",
                 "share of each expert's gradient  income  marital",
                 "experts that are copies of each other: none"):
        assert part in text
    assert "level2/income/experts 0          100%    0%" in text
