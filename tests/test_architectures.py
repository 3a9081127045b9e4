"""The wiring of each architecture, and the equalities between them that the papers promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple.network import Network
from npple.routing import Experts, Gate, Level, Pass, Source, Table, Tower
from strategies import (TASKS, arguments, assert_close, assert_equal, models, problem, problems,
                        seeds)

TWO = {"a": "binary", "b": "regression"}
DEFAULT = ((64,), ("relu",))


def group(name, reads, count, layers=DEFAULT):
    return Experts(f"{name}/experts", reads, count, *layers)


def mix(name, mixed, selector):
    """The paper's gate: linear, no bias."""
    return Gate(name, tuple(Source(f"{each}/experts") for each in mixed), selector)


def tower(task, reads):
    return Tower(task, TWO[task], reads, (32,), ("relu",))


# The wiring, row by row -------------------------------------------------------------------------

def test_ple_is_wired_as_in_the_paper():
    """Above level 1 all read the level below; the shared gate mixes all, and tops no last level."""
    one, two, three = ([f"level{i}/{name}" for name in ("a", "b", "shared")] for i in (1, 2, 3))
    level1 = Level(tuple(group(name, "input", 2) for name in one),
                   (mix("level1/a", [one[0], one[2]], "input"),
                    mix("level1/b", [one[1], one[2]], "input"),
                    mix("level1/shared", one, "input")))
    level2 = Level(tuple(group(name, below, 2) for name, below in zip(two, one, strict=True)),
                   (mix("level2/a", [two[0], two[2]], "level1/a"),
                    mix("level2/b", [two[1], two[2]], "level1/b"),
                    mix("level2/shared", two, "level1/shared")))
    level3 = Level(tuple(group(name, below, 2) for name, below in zip(three, two, strict=True)),
                   (mix("level3/a", [three[0], three[2]], "level2/a"),
                    mix("level3/b", [three[1], three[2]], "level2/b")))
    towers = (tower("a", "level3/a"), tower("b", "level3/b"))
    assert npple.ple(9, TWO, levels=3).table == Table(9, (level1, level2, level3), towers)


def test_uncut_ple_is_ple_with_every_gate_mixing_all_experts():
    one, two = ([f"level{i}/{name}" for name in ("a", "b", "shared")] for i in (1, 2))
    level1 = Level(tuple(group(name, "input", 2) for name in one),
                   tuple(mix(name, one, "input") for name in one))
    level2 = Level(tuple(group(name, below, 2) for name, below in zip(two, one, strict=True)),
                   (mix("level2/a", two, "level1/a"), mix("level2/b", two, "level1/b")))
    towers = (tower("a", "level2/a"), tower("b", "level2/b"))
    assert npple.ple(9, TWO, cut=False).table == Table(9, (level1, level2), towers)


def test_ml_mmoe_has_a_gate_for_each_upper_expert_and_all_gates_select_on_the_input():
    """PLE paper, section 5.1.2 and figure 8."""
    two, three = ([f"level{i}/expert{e}" for e in range(1, n + 1)] for i, n in ((2, 2), (3, 4)))
    level1 = Level((group("level1/shared", "input", 3),), tuple(
        mix(f"level1/expert{e}", ["level1/shared"], "input") for e in (1, 2)))
    level2 = Level(tuple(group(name, f"level1/expert{e}", 1) for e, name in enumerate(two, 1)),
                   tuple(mix(f"level2/expert{e}", two, "input") for e in (1, 2, 3, 4)))
    level3 = Level(tuple(group(name, f"level2/expert{e}", 1) for e, name in enumerate(three, 1)),
                   tuple(mix(f"level3/{task}", three, "input") for task in TWO))
    towers = (tower("a", "level3/a"), tower("b", "level3/b"))
    model = npple.ml_mmoe(9, TWO, levels=3, experts=(3, 2, 4))
    assert model.table == Table(9, (level1, level2, level3), towers)


def test_ml_mmoe_of_the_papers_figure_8_has_five_gates():
    """Three experts a level, two levels, two tasks: three inner gates and one a task."""
    assert len(gates(npple.ml_mmoe(9, TWO, experts=3))) == 5


def test_mmoe_is_one_group_and_a_gate_for_each_task():
    level = Level((group("level1/shared", "input", 3),),
                  tuple(mix(f"level1/{task}", ["level1/shared"], "input") for task in TWO))
    towers = (tower("a", "level1/a"), tower("b", "level1/b"))
    assert npple.mmoe(9, TWO, experts=3).table == Table(9, (level,), towers)


def test_shared_bottom_is_one_expert_that_every_tower_reads():
    level = Level((group("level1/shared", "input", 1),),
                  tuple(Pass(f"level1/{task}", (Source("level1/shared/experts"),)) for task in TWO))
    towers = (tower("a", "level1/a"), tower("b", "level1/b"))
    assert npple.shared_bottom(9, TWO).table == Table(9, (level,), towers)


def test_single_tasks_have_nothing_in_common_but_the_embeddings():
    model = npple.single_task({"n": "numeric", "c": (3, 2)}, TWO)
    reached = {task: set(model.table.reached_parameters([task])) for task in TWO}
    assert reached["a"] & reached["b"] == {"embedding/c"}
    assert reached["a"] | reached["b"] == set(model.shapes)
    assert {name for name in reached["a"] if "/b/" in name} == set()


def test_counts_and_widths_may_differ_by_level_and_task():
    model = npple.ple(9, TWO, levels=3, task_experts=[{"a": 1, "b": 3}, 2, {"b": 0, "a": 2}],
                      shared_experts=[2, 0, 1], expert_units=[(8, 7), (6,), (5, 4, 3)],
                      gate_units=(11,), tower_units=(), activation="tanh")
    assert {name: shape for name, shape in model.shapes.items() if "layer1/weight" in name
            or name.endswith("layer2/weight") or name.endswith("layer3/weight")} == {
        "level1/a/experts/layer1/weight": (1, 9, 8), "level1/a/experts/layer2/weight": (1, 8, 7),
        "level1/b/experts/layer1/weight": (3, 9, 8), "level1/b/experts/layer2/weight": (3, 8, 7),
        "level1/shared/experts/layer1/weight": (2, 9, 8),
        "level1/shared/experts/layer2/weight": (2, 8, 7),
        "level1/a/gate/layer1/weight": (9, 11), "level1/a/gate/layer2/weight": (11, 3),
        "level1/b/gate/layer1/weight": (9, 11), "level1/b/gate/layer2/weight": (11, 5),
        "level1/shared/gate/layer1/weight": (9, 11), "level1/shared/gate/layer2/weight": (11, 6),
        "level2/a/experts/layer1/weight": (2, 7, 6), "level2/b/experts/layer1/weight": (2, 7, 6),
        "level2/a/gate/layer1/weight": (7, 11), "level2/a/gate/layer2/weight": (11, 2),
        "level2/b/gate/layer1/weight": (7, 11), "level2/b/gate/layer2/weight": (11, 2),
        "level2/shared/gate/layer1/weight": (7, 11), "level2/shared/gate/layer2/weight": (11, 4),
        "level3/a/experts/layer1/weight": (2, 6, 5), "level3/a/experts/layer2/weight": (2, 5, 4),
        "level3/a/experts/layer3/weight": (2, 4, 3),
        "level3/shared/experts/layer1/weight": (1, 6, 5),
        "level3/shared/experts/layer2/weight": (1, 5, 4),
        "level3/shared/experts/layer3/weight": (1, 4, 3),
        "level3/a/gate/layer1/weight": (6, 11), "level3/a/gate/layer2/weight": (11, 3),
        "tower/a/layer1/weight": (3, 1), "tower/b/layer1/weight": (3, 1),
    }
    assert model.table.row["level3/b"] == Pass("level3/b", (Source("level3/shared/experts"),))
    activations = [row.activations for row in model.table.rows if hasattr(row, "activations")]
    assert {name for each in activations for name in each} == {"tanh"}


def test_there_is_a_shared_gate_only_where_shared_experts_follow():
    """Otherwise nobody would read what it makes."""
    for shared, gates in (([1, 1, 1], [1, 2]), ([1, 0, 1], [1, 2]), ([1, 1, 0], [1]),
                          ([1, 0, 0], []), ([0, 0, 1], [1, 2])):
        table = npple.ple(3, TWO, levels=3, shared_experts=shared).table
        assert [i for i in (1, 2, 3) if f"level{i}/shared" in table.row] == gates


@given(models())
def test_towers_read_the_last_level_and_nothing_made_is_left_unread(model):
    table = model.table
    read = {name for row in table.rows for name in row.inputs()}
    assert read == {"input", *(row.name for level in table.levels
                               for row in (*level.groups, *level.fusions))}
    last = {fusion.name for fusion in table.levels[-1].fusions}
    assert {row.reads for row in table.towers} <= last


def test_a_task_cannot_touch_anothers_experts_on_the_last_level_but_does_below():
    """PLE separates progressively: through the shared gate a's loss reaches b's lower experts."""
    table = npple.ple(3, TWO, levels=3).table
    reached = table.reached("a")
    assert "level3/b/experts" not in reached and "level2/b" not in reached
    assert "level1/b/experts" in reached and "level2/b/experts" in reached
    assert reached["level2/b/experts"] == "level2/shared"
    assert "level1/b/experts" not in npple.cgc(3, TWO).table.reached("a")
    assert "level2/b/experts" in npple.ple(3, TWO, cut=False).table.reached("a")


# Equal tables -----------------------------------------------------------------------------------

@given(arguments("cgc"))
def test_cgc_is_ple_with_one_level(kwargs):
    assert npple.cgc(**kwargs).table == npple.ple(levels=1, **kwargs).table


@given(arguments("mmoe"))
def test_mmoe_is_cgc_without_specific_experts(kwargs):
    model = npple.mmoe(**kwargs)
    experts = kwargs.pop("experts")
    assert model.table == npple.cgc(task_experts=0, shared_experts=experts, **kwargs).table


@given(arguments("mmoe"))
def test_mmoe_is_ml_mmoe_with_one_level(kwargs):
    assert npple.ml_mmoe(levels=1, **kwargs).table == npple.mmoe(**kwargs).table


@given(arguments("shared_bottom"))
def test_shared_bottom_is_mmoe_with_one_expert(kwargs):
    assert npple.shared_bottom(**kwargs).table == npple.mmoe(experts=1, **kwargs).table


@given(arguments("single_task"))
def test_single_tasks_are_cgc_without_shared_experts(kwargs):
    assert npple.single_task(**kwargs).table == npple.cgc(
        task_experts=1, shared_experts=0, **kwargs).table


@given(arguments("mmoe"), seeds)
def test_mmoe_with_equal_gates_and_towers_gives_equal_tasks(kwargs, seed):
    """The task's number or place plays no part."""
    kwargs["tasks"] = {"a": "regression", "b": "regression"}
    drawn = problem(npple.mmoe(**kwargs), seed, 4)
    params = {name: drawn.params[name.replace("/b/", "/a/")] for name in drawn.params}
    outputs = drawn.model.forward(params, drawn.x).outputs
    np.testing.assert_array_equal(outputs["a"], outputs["b"])


# Equal functions --------------------------------------------------------------------------------

def columns(model, fusion):
    """Which expert each gate weight of a fusion belongs to: (group, number), in order."""
    return [(source.name, i) for source in model.table.row[fusion].sources
            for i in range(source.count(model.table))]


def gates(model):
    return [row for row in model.table.rows if isinstance(row, Gate)]


def last_layer(gate, kind):
    return f"{gate.name}/gate/layer{len(gate.units) + 1}/{kind}"


@given(arguments("ple"), seeds)
def test_ple_is_uncut_ple_with_the_gate_weights_of_the_cut_edges_at_zero(kwargs, seed):
    """A bias of -1e4 makes a weight exactly 0: equal outputs, losses, gradients; 0 where cut."""
    kwargs |= {"gate_bias": True, "cut": True}
    cut, full = npple.ple(**kwargs), npple.ple(**kwargs | {"cut": False})
    drawn = problem(cut, seed, 5)
    params = dict(problem(full, seed, 5).params)
    params |= {name: p for name, p in drawn.params.items() if params[name].shape == p.shape}
    kept = {}
    for gate in gates(full):
        order, had = columns(full, gate.name), columns(cut, gate.name)
        kept[gate.name] = [order.index(expert) for expert in had]
        weight, bias = params[last_layer(gate, "weight")], np.full(len(order), -1e4)
        if len(had) > 1:
            weight[:, kept[gate.name]] = drawn.params[last_layer(gate, "weight")]
            bias[kept[gate.name]] = drawn.params[last_layer(gate, "bias")]
        else:
            bias[kept[gate.name]] = 0.0
        params[last_layer(gate, "bias")] = bias

    outputs = cut.forward(drawn.params, drawn.x).outputs
    assert_close(full.forward(params, drawn.x).outputs, outputs, 1e-12)
    loss, grads = drawn.loss_and_grads()
    full_loss, full_grads = drawn.loss_and_grads(model=full, params=params)
    assert full_loss == pytest.approx(loss, rel=1e-12)
    for gate in gates(full):
        for kind in ("weight", "bias"):
            name = last_layer(gate, kind)
            rest = np.delete(full_grads[name], kept[gate.name], axis=-1)
            assert not rest.any()
            full_grads[name] = full_grads[name][..., kept[gate.name]]
    scale = max(np.abs(g).max() for g in grads.values())
    for name, grad in full_grads.items():
        expected = grads.get(name, 0.0)  # a gate that PLE has not: one kept expert, no gradient
        assert np.abs(grad - expected).max() <= 1e-12 * scale


@given(arguments("ple") | arguments("cgc"), seeds, st.permutations(TASKS))
def test_the_order_of_the_tasks_does_not_matter(kwargs, seed, order):
    """But for the columns of a shared gate, which follow it."""
    kwargs.setdefault("levels", 1)
    model = npple.ple(**kwargs)
    tasks = {task: kwargs["tasks"][task] for task in order if task in kwargs["tasks"]}
    other = npple.ple(**kwargs | {"tasks": tasks})
    drawn = problem(model, seed, 5)
    params = dict(drawn.params)
    moved = {}
    for gate in gates(other):
        had = columns(model, gate.name)
        moved[gate.name] = [had.index(expert) for expert in columns(other, gate.name)]

    def follow(arrays):
        """The arrays with each gate's last layer in the order of `other`."""
        arrays = {name: arrays[name] for name in other.shapes}
        for gate in gates(other):
            for kind in ("weight", "bias") if gate.bias else ("weight",):
                name = last_layer(gate, kind)
                arrays[name] = arrays[name][..., moved[gate.name]]
        return arrays

    loss, grads = drawn.loss_and_grads()
    other_loss, other_grads = drawn.loss_and_grads(model=other, params=follow(params))
    assert other_loss == pytest.approx(loss, rel=1e-13)
    scale = max(np.abs(g).max() for g in grads.values())
    for name, expected in follow(grads).items():
        assert np.abs(other_grads[name] - expected).max() <= 1e-12 * scale
    assert_close(other.forward(follow(params), drawn.x).outputs,
                 model.forward(params, drawn.x).outputs, 1e-12)


def test_a_pass_is_a_gate_over_a_single_expert():
    """What one expert's softmax weight of 1 comes to: the expert itself."""
    model = npple.mmoe(4, TWO, experts=2)
    drawn = problem(model, 0, 5)
    params = {name: p.copy() for name, p in drawn.params.items()}
    for name in ("level1/shared/experts/layer1/weight", "level1/shared/experts/layer1/bias"):
        params[name][1] = params[name][0]  # twice the same expert: the weights cannot matter
    single = npple.shared_bottom(4, TWO)
    one = {name: params[name][:1] if "experts" in name else params[name] for name in single.shapes}
    assert_close(model.forward(params, drawn.x).outputs, single.forward(one, drawn.x).outputs,
                 1e-13)


@given(problems(st.just(npple.cgc(3, TWO, gate_bias=True))))
def test_a_gate_bias_shifts_the_logits(drawn):
    without = npple.cgc(3, TWO)
    params = {name: drawn.params[name] for name in without.shapes}
    for task in TWO:
        name = f"level1/{task}/gate/logits"
        shift = (drawn.model.forward(drawn.params, drawn.x)[name]
                 - without.forward(params, drawn.x)[name])
        bias = drawn.params[f"level1/{task}/gate/layer1/bias"]
        np.testing.assert_allclose(shift, np.broadcast_to(bias, shift.shape), rtol=1e-12)


@given(arguments("ple"), seeds)
def test_a_model_is_its_table(kwargs, seed):
    """Built again, or come back from JSON, it computes the same bits."""
    drawn = problem(npple.ple(**kwargs), seed, 3)
    loss, grads = drawn.loss_and_grads()
    again = Network.from_dict(drawn.model.to_dict())
    other_loss, other = drawn.loss_and_grads(model=again)
    assert other_loss == loss
    assert_equal(other, grads)
