"""The table as data: who reaches whom, which parameters there are, and the way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple.core.losses import kind_of
from npple.network import Network
from npple.routing import Experts, Gate, Pass, Tower
from strategies import models, tables

any_table = tables() | models().map(lambda model: model.table)


def closure(table, task):
    """What a task's tower reads, what that reads, and so on, by trying until nothing is new."""
    found = {f"tower/{task}"}
    while True:
        more = {name for row in table.rows if row.name in found for name in row.inputs()}
        if more <= found:
            return found
        found |= more


@given(any_table)
def test_a_loss_reaches_what_its_tower_reads_and_so_on_down(table):
    for task in table.tasks:
        assert set(table.reached(task)) == closure(table, task)


@given(any_table)
def test_each_tensor_reached_is_read_by_the_one_it_came_through(table):
    """So the chain from any tensor leads up to the task's tower."""
    for task in table.tasks:
        reached = table.reached(task)
        assert reached.pop(f"tower/{task}") is None
        for name, through in reached.items():
            assert name in table.row[through].inputs()
            assert through == f"tower/{task}" or through in reached


@given(any_table, st.data())
def test_the_parameters_reached_are_those_of_the_rows_reached(table, data):
    """Of several tasks: of any of them; in the order of the model's parameters."""
    tasks = data.draw(st.lists(st.sampled_from(list(table.tasks)), unique=True))
    rows = set().union(*(closure(table, task) for task in tasks))
    expected = {name for row in table.rows if row.name in rows for name in row.shapes(table)}
    expected |= {f"embedding/{column}" for column in table.embeddings} if tasks else set()
    reached = table.reached_parameters(tasks)
    assert [name for name in table.shapes if name in expected] == reached


@given(any_table)
def test_rows_read_only_what_stands_above_them(table):
    made = {"input"}
    for row in table.rows:
        assert set(row.inputs()) <= made
        made.add(row.name)
    assert {row.name: row for row in table.rows} == table.row


@given(any_table)
def test_shapes_follow_from_the_widths(table):
    """Each layer takes the width of what stands before it; a gate ends in a logit an expert."""
    for row in table.rows:
        shapes = row.shapes(table)
        if isinstance(row, Pass):
            assert shapes == {} and table.widths[row.name] == table.widths[row.sources[0].name]
            continue
        weights = [shape for name, shape in shapes.items() if name.endswith("weight")]
        biases = [shape for name, shape in shapes.items() if name.endswith("bias")]
        assert weights[0][-2] == table.widths[row.selector if isinstance(row, Gate) else row.reads]
        assert all(a[-1] == b[-2] for a, b in zip(weights, weights[1:], strict=False))
        assert biases == [(*w[:-2], w[-1]) for w in weights[:len(biases)]]
        if isinstance(row, Gate):
            assert weights[-1][-1] == row.count(table) > 1
            assert len(biases) == len(weights) - (not row.bias)
        else:
            assert len(biases) == len(weights)
        if isinstance(row, Tower):
            assert weights[-1][-1] == kind_of(row.kind).width
        if isinstance(row, Experts):
            assert {shape[0] for shape in weights} == {row.count}


@given(any_table)
def test_every_parameter_belongs_to_a_row_or_a_column(table):
    """Once, also where two groups share it."""
    owned = [f"embedding/{column}" for column in table.embeddings]
    owned += [name for row in table.rows for name in row.shapes(table)]
    assert list(table.shapes) == list(dict.fromkeys(owned))


@given(any_table)
def test_a_table_comes_back_from_json_as_it_was(table):
    again = Network.from_dict(json.loads(json.dumps(Network(table).to_dict()))).table
    assert again == table and hash(again) == hash(table)
    assert again.shapes == table.shapes


@given(any_table, any_table)
def test_tables_are_equal_where_their_content_is(one, other):
    assert (one == other) == (Network(one).to_dict() == Network(other).to_dict())


@pytest.mark.parametrize(("kind", "width"), [("binary", 1), ("regression", 1), ("multiclass:2", 2),
                                             ("multiclass:17", 17)])
def test_a_task_has_an_output_a_class_or_one(kind, width):
    table = npple.cgc(3, {"a": kind}, tower_units=(5,)).table
    assert kind_of(kind).width == table.widths["tower/a"] == width
    assert table.shapes["tower/a/layer2/weight"] == (5, width)
