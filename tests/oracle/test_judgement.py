"""The judge: what a tensor is held against, in which precision, within which tolerance."""

import functools

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import judgement
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.judgement import BLUNT, Judge, _floor, _Shaken
from npple.oracle.results import TensorRow, compare
from npple.oracle.rounding import noisy
from npple.oracle.variant import cast


@functools.cache
def vectors(levels=1, dtype="float64"):
    return oracle.make_vectors(npple.ple(2, {"a": "binary", "b": "regression"}, levels=levels,
                                         task_experts=1, shared_experts=1, expert_units=(2,),
                                         tower_units=()), dtype=dtype)


def right(*prefixes, levels=1):
    return {name: array.copy() for name, array in vectors(levels).expected.items()
            if name.startswith(prefixes or "")}


def judge(given, precisions=None, levels=1, dtype="float64", tapped=False):
    found = Judge(vectors(levels, dtype), given, precisions or {}, tapped)
    return found, found.flow(found.vectors.variant, found.case)


def deviant(name):
    variant, _ = deviate(BY_NAME[name], vectors().variant, {})[0]
    return complete(variant, cast(vectors().case, np.float64), {})


# What others are computed from ------------------------------------------------------------------

def test_usable_is_what_is_known_finite_and_of_the_right_shape():
    given = right("tower", "level1/a") | {"level1/b": np.zeros((8, 1)), "other": np.zeros(2)}
    given["tower/b"][3] = np.inf
    given["tower/a"] = given["tower/a"].astype(np.float32)
    usable = judge(given)[0].usable
    assert {*usable} == {name for name in given if name.startswith("level1/a")} | {"tower/a"}
    assert usable["tower/a"].dtype == np.float64


def test_a_tensor_under_a_wrong_name_is_unread_and_hides_nothing():
    given = right()
    given["level1/a"] = given["level1/b"].copy()
    found, flow = judge(given)
    assert found.unread == {"level1/a"} and found.wrong(flow) == ["level1/a"]
    assert "level1/a" not in flow.given and "level1/b" in flow.given


def test_a_wrong_tensor_that_was_read_is_not_unread():
    given = right("level1/a")
    given["level1/a"] = given["level1/a"] * 2
    tower = vectors().params["tower/a/layer1/weight"][:, 0]
    given["tower/a"] = given["level1/a"] @ tower + vectors().params["tower/a/layer1/bias"]
    found, flow = judge(given)
    assert found.unread == frozenset() and found.wrong(flow) == ["level1/a"]


def test_without_a_reader_nobody_can_tell_whether_it_was_read():
    given = {"level1/a": right()["level1/b"], "level1/b": right()["level1/b"]}
    found, flow = judge(given)
    assert found.unread == frozenset() and found.wrong(flow) == ["level1/a"]


def test_one_reader_that_follows_is_enough_to_have_been_read():
    names = ("level1/a", "level2/a/experts", "level2/a/gate/logits")
    given = {name: right(levels=2)[name] for name in names}
    given["level1/a"] = given["level1/a"] * 1.5
    found, _ = judge(given, levels=2)
    assert found.unread == {"level1/a"}
    weight = vectors(2).params["level2/a/experts/layer1/weight"][0]
    bias = vectors(2).params["level2/a/experts/layer1/bias"][0]
    given["level2/a/experts"] = np.maximum(given["level1/a"] @ weight + bias, 0)[None]
    changed, _ = judge(given, levels=2)
    assert changed.unread == frozenset()


def test_what_adam_reads_says_nothing_about_what_was_read():
    given = right("grad/tower/a/layer1", "adam1/tower/a/layer1")
    given["grad/tower/a/layer1/bias"] = given["grad/tower/a/layer1/bias"] * 2
    found, flow = judge(given)
    assert found.unread == frozenset() and found.wrong(flow) == ["grad/tower/a/layer1/bias"]


# Gradients in part ------------------------------------------------------------------------------

def readers(name, *rows):
    """What comes through some of its readers alone."""
    _, flow = judge(right(levels=2), levels=2)
    kind, _, rest = name.partition("/")
    return sum(flow.contributions(kind, row)[rest] for row in rows)


@pytest.mark.parametrize("name, rows", [
    ("grad/level1/a", ("level2/a/experts",)), ("grad/level1/a", ("level2/a",)),
    ("grad[b]/level1/shared/experts", ("level1/b",)),
    ("grad/level1/shared/experts", ("level1/a", "level1/b"))])
def test_a_gradient_of_some_readers_is_partial_and_not_wrong(name, rows):
    given = right(levels=2)
    given[name] = readers(name, *rows)
    found, flow = judge(given, levels=2)
    assert found.unread == {name} and found.partial == (name,) and found.wrong(flow) == []


@pytest.mark.parametrize("factor, partial", [(12, ("grad/level1/a",)), (20, ())])
def test_a_small_part_is_told_by_the_rounding_of_the_whole(factor, partial):
    given = right(levels=2)
    error = factor * 2.0**-53 * np.abs(given["grad/level1/a"]).max()
    given["grad/level1/a"] = readers("grad/level1/a", "level2/a/experts") + error
    assert judge(given, levels=2)[0].partial == partial


def test_a_gradient_of_one_expert_of_a_group_is_partial():
    made = oracle.make_vectors(npple.ple(2, {"a": "binary", "b": "regression"}, task_experts=2,
                                         shared_experts=1, expert_units=(2,), tower_units=()))
    given = {name: y.copy() for name, y in made.expected.items()}
    for i in range(2):
        start = Judge(made, given, {}).flow(made.variant, cast(made.case, np.float64))
        given["grad/level1/a"] = start.shares("grad", "level2/a/experts")[i]
        assert Judge(made, given, {}, tapped=True).partial == ("grad/level1/a",)
        assert Judge(made, given, {}).partial == ()
    assert start.shares("grad", "level2/a") == []


@pytest.mark.parametrize("tapped, partial, wrong", [
    (True, ("grad[b]/level1/a",), []), (False, (), ["grad[b]/level1/a"])])
def test_a_gradient_at_a_reader_that_a_task_does_not_reach_is_partial(tapped, partial, wrong):
    """In a module; among results it is one that was never computed."""
    given = right(levels=3)
    given["grad[b]/level1/a"] = 0 * given["grad[b]/level1/a"]
    found, flow = judge(given, levels=3, tapped=tapped)
    assert found.partial == partial and found.wrong(flow) == wrong


@pytest.mark.parametrize("precision", ["float64", "float32", "float16", "bfloat16"])
def test_among_results_no_gradient_of_zeros_passes_that_is_judged(precision):
    """Though those of all parameters are right."""
    names = [name for name, y in right(levels=2).items() if name.startswith("grad") and y.any()]
    passed, blunt = [], []
    for name in names:
        given = right("tower", "grad", "level", levels=2)
        given[name] *= 0
        found, flow = judge(given, dict.fromkeys(given, precision), levels=2)
        if found.wrong(flow) == []:
            (passed if found.judged(name, flow) else blunt).append(name)
    assert not passed and len(blunt) <= 3 < len(names)


@pytest.mark.parametrize("tapped, beyond, partial", [(True, 1, True), (False, 1, False),
                                                     (False, 1 - 1e-9, True)])
def test_a_part_within_the_roundings_of_the_whole_is_none_of_results(tapped, beyond, partial):
    given = right("grad/level1", "level1", levels=2)
    found, flow = judge(given, levels=2, tapped=tapped)
    given["grad/level1/a"] = readers("grad/level1/a", "level2/a/experts")
    part, whole = (np.abs(y).max() for y in (given["grad/level1/a"], flow.local("grad/level1/a")))
    found.local = lambda name, flow: TensorRow(name, 1.0, beyond * part / whole)
    assert found._part("grad/level1/a", flow) == partial


def test_a_part_may_be_exact_and_has_the_shape_of_the_whole():
    given = right("grad/level1", "level1", levels=2)
    found, flow = judge(given, levels=2)
    given["grad/level1/a"] = flow.contributions("grad", "level2/a/experts")["level1/a"]
    found.local = lambda name, flow: TensorRow(name, 1.0, 0.0)
    assert found._part("grad/level1/a", flow)
    found.local = lambda name, flow: TensorRow(name, 1.0, 0.0, fault="shape")
    assert not found._part("grad/level1/a", flow)
    found.local = lambda name, flow: None
    assert not found._part("grad/level1/a", flow)


def test_where_all_readers_are_reached_zeros_are_no_part_of_a_module():
    given = right(levels=2)
    given["grad/level1/a"] *= 0
    assert judge(given, levels=2, tapped=True)[0].partial == ()


@pytest.mark.parametrize("tolerance, size, told", [
    (BLUNT, 1.0, True), (BLUNT * 1.01, 1.0, False), (2 * BLUNT, 4.0, True), (0.5, 4.0, False)])
def test_what_is_forgiven_tells_if_it_is_little_of_the_larger_of_two(tolerance, size, told):
    _, flow = judge(right())
    flow.local = lambda name: np.array([2.0, -1.0])
    assert judgement._tells(TensorRow("tower/a", 0.0, tolerance), flow, size) == told


def test_parts_that_one_tensor_reads_are_found_together_in_half_precision():
    names = [f"grad/level1/{task}" for task in "ab"]
    given = right("tower", "grad/level1/shared/experts/layer1", levels=2)
    given |= {name: readers(name, f"level2/{name[12:]}/experts") for name in names}
    found, flow = judge(given, dict.fromkeys(given, "float16"), levels=2)
    assert {*found.partial} == {*names} and found.wrong(flow) == []


@pytest.mark.parametrize("precision, suspects", [
    ("float32", ["grad/level1/a/gate/layer1/weight"]),
    ("bfloat16", ["grad/level1/a", "grad/level1/a/gate/layer1/weight"])])
def test_in_half_precision_what_is_read_by_what_is_wrong_is_suspected_too(precision, suspects):
    given = right("grad/level1/a/gate", "grad/level1/a", levels=2)
    given = {name: y for name, y in given.items() if name in suspects or name == "grad/level1/a"}
    given["grad/level1/a/gate/layer1/weight"] *= 3
    found, flow = judge(given, dict.fromkeys(given, precision), levels=2)
    names, readers = found._suspects(flow)
    assert names == suspects and readers[names[0]] == suspects[1:]


def test_a_gradient_of_no_such_parts_is_wrong_and_not_partial():
    given = right(levels=2)
    given["grad/level1/a"] = 3 * readers("grad/level1/a", "level2/a/experts")
    found, flow = judge(given, levels=2)
    assert found.partial == () and "grad/level1/a" in found.wrong(flow)


def test_what_is_no_gradient_is_never_partial():
    given = right()
    given["level1/a"] = given["level1/b"].copy()
    assert judge(given)[0].partial == ()


# The paper's values -----------------------------------------------------------------------------

def test_against_the_paper_each_tensor_has_the_tolerance_of_its_own_precision():
    given = right("tower/a", "level1/b/experts", "level1/a/experts", "loss[a]")
    precisions = {"tower/a": "float32", "level1/b/experts": "float16",
                  "level1/a/experts": "bfloat16"}
    paper = judge(given, precisions)[0].paper
    assert [*paper] == ["level1/a/experts", "level1/b/experts", "tower/a", "loss[a]"]
    for name, at in (("loss[a]", 0), ("tower/a", 1), ("level1/b/experts", 2),
                     ("level1/a/experts", 3)):
        assert paper[name] == compare(name, given[name], vectors().expected[name],
                                      vectors().tolerance[name][at],
                                      ("float64", "float32", "float16", "bfloat16")[at])


def test_vectors_in_single_precision_judge_nobody_finer():
    found, flow = judge(right("tower"), {"tower/b": "bfloat16"}, dtype="float32")
    assert [row.precision for row in found.paper.values()] == ["float32", "bfloat16"]
    assert found.precision("tower/a", flow) == "float32"
    assert found.coarsest == "bfloat16"
    assert judge({}, dtype="float32")[0].coarsest == "float32"


# Values that follow -----------------------------------------------------------------------------

def test_a_tensor_is_as_coarse_as_what_it_is_computed_from():
    found, flow = judge(right(), {"tower/a": "float32", "level1/a": "float16"})
    assert found.precision("tower/a", flow) == "float16"
    assert found.precision("level1/a", flow) == "float16"
    assert found.precision("tower/b", flow) == "float64"
    assert found.precision("loss[a]", flow) == "float32"


def test_what_the_variant_does_not_make_is_not_right():
    found, flow = judge(right("tower") | {"zzz": np.zeros(1)})
    assert flow.value("zzz") is None and found.local("zzz", flow) is None


def test_what_is_computed_from_parameters_alone_has_the_papers_row():
    found, flow = judge(right("tower/a"))
    assert found.local("tower/a", flow) is found.paper["tower/a"]
    given, of = judge(right("tower/a", "level1/a"))
    row = given.local("tower/a", of)
    assert row is not given.paper["tower/a"] and row.tolerance < given.paper["tower/a"].tolerance
    variant, case = deviant("gate-sigmoid")
    other = found.local("tower/a", found.flow(variant, case))
    assert other is not found.paper["tower/a"] and not other.passed


def test_a_value_that_follows_is_excused_what_rounding_does_in_its_precision():
    given = right("tower/a", "level1/a")
    for precision, size, passed in [("float64", 1e-15, True), ("float64", 1e-13, False),
                                    ("float32", 1e-7, True), ("float32", 1e-5, False),
                                    ("float16", 5e-4, True), ("float16", 5e-3, False),
                                    ("bfloat16", 2e-3, True), ("bfloat16", 2e-2, False)]:
        changed = given | {"tower/a": given["tower/a"] * (1 + size)}
        found, flow = judge(changed, dict.fromkeys(changed, precision))
        row = found.local("tower/a", flow)
        assert (row.name, row.passed, row.precision) == ("tower/a", passed, precision)


def test_what_has_the_papers_value_is_right_whatever_it_read():
    given = right("tower/a", "level1/a")
    given["level1/a"] = given["level1/a"] * 2
    found, _ = judge(given)
    flow = found._without(vectors().variant, found.case, frozenset())
    assert not found.local("tower/a", flow).passed and found.right("tower/a", flow)
    assert found.strained(flow) == 2  # with what it read


def test_in_half_precision_the_papers_value_alone_does_not_make_it_right():
    given = right("tower/a", "level1/a")
    given["level1/a"] = given["level1/a"] * 1.5
    found, _ = judge(given, dict.fromkeys(given, "float16"))
    flow = found._without(vectors().variant, found.case, frozenset())
    assert found.paper["tower/a"].passed and not found.right("tower/a", flow)


def test_where_rounding_leaves_nothing_the_papers_value_decides(monkeypatch):
    given = right("tower/a", "level1/a")
    found, flow = judge(given, dict.fromkeys(given, "bfloat16"))
    assert found.judged("tower/a", flow)
    for tolerance, blunt in ((BLUNT, False), (BLUNT * 1.01, True)):
        row = compare("tower/a", given["tower/a"] * 9, given["tower/a"], tolerance, "float64")
        monkeypatch.setattr(found, "local", lambda name, flow: row)
        assert found.judged("tower/a", flow) != blunt and found.right("tower/a", flow) == blunt
    monkeypatch.setattr(found, "local", lambda name, flow: None)
    assert not found.judged("tower/a", flow) and not found.right("tower/a", flow)


def test_a_fine_output_of_a_coarse_model_is_held_against_the_papers_as_coarsely(monkeypatch):
    given = right("tower/a", "level1/a")
    given["tower/a"] = given["tower/a"] * (1 + 2e-3)
    coarse = dict.fromkeys(given, "float16") | {"tower/a": "float32"}
    found, flow = judge(given, coarse)
    monkeypatch.setattr(judgement, "_tells", lambda row, flow, size: False)
    assert found.right("tower/a", flow) and not found.judged("tower/a", flow)
    finer, flow = judge({"tower/a": given["tower/a"]}, {"tower/a": "float32"})
    assert not finer.right("tower/a", flow) and finer.judged("tower/a", flow)


def test_what_is_fine_is_always_judged():
    found, flow = judge(right("tower/a"))
    found.local = None
    assert found.judged("tower/a", flow)


def test_tolerances_follow_the_unit_and_are_kept_by_flow_precision_and_direction():
    found, flow = judge(right())
    y = flow.local("tower/a")
    numbers = {p: found.tolerance("tower/a", y, flow, p)
               for p in ("float64", "float32", "float16", "bfloat16")}
    assert numbers["float32"] / numbers["float64"] == pytest.approx(2**29, rel=0.5)
    assert numbers["float16"] / numbers["float32"] == pytest.approx(2**13 / 4, rel=0.5)
    assert numbers["bfloat16"] / numbers["float16"] == pytest.approx(4, rel=0.5)
    assert len(found._noisy) == 4
    g = flow.local("grad/tower/a")
    wide = found.tolerance("grad/tower/a", g, flow, "float16")
    assert len(found._noisy) == 5 and wide > 0
    assert found.tolerance("tower/a", y, flow, "float16") == numbers["float16"]
    assert len(found._noisy) == 5


def test_a_tolerance_is_a_quarter_more_than_the_largest_of_some_runs():
    found, flow = judge(right())
    y = flow.local("tower/a")
    told = found.tolerance("tower/a", y, flow, "float32")
    (_, noisy_flow), = found._noisy.values()
    error = np.abs(np.asarray(noisy_flow.local("tower/a")) - y).max() / np.abs(y).max()
    assert told == pytest.approx(1.25 * error, rel=1e-12)


def test_parameters_round_as_the_precision_does():
    found, flow = judge({})
    y = flow.local("level1/a/experts")
    numbers = {p: found.tolerance("level1/a/experts", y, flow, p)
               for p in ("float32", "float16", "bfloat16")}
    assert 2.0**-24 < numbers["float32"] < 64 * 2.0**-24
    assert numbers["float16"] / numbers["float32"] == pytest.approx(2**13 / 4, rel=0.3)
    assert numbers["bfloat16"] / numbers["float16"] == pytest.approx(8 / 2, rel=0.3)


def test_each_flow_has_its_own_tolerances():
    found, flow = judge({})
    variant, case = deviant("gate-sigmoid")
    other = found.flow(variant, case)
    for each in (flow, other):
        y = each.local("tower/a")
        assert found.tolerance("tower/a", y, each, "float32") < 1e-4
    assert len(found._noisy) == 2


def test_a_loss_is_forgiven_by_its_own_size():
    given = right("tower/b", "loss[b]")
    found, flow = judge(given)
    assert found.local("loss[b]", flow).tolerance == pytest.approx(
        _floor("loss[b]", given["loss[b]"], "float64"), rel=1e-9)


def test_zeros_are_excused_nothing_and_what_overflows_everything():
    found, flow = judge(right())
    assert found.tolerance("tower/a", np.zeros(8), flow, "float64") == 0.0
    found.tolerance("tower/a", np.ones(8), flow, "float64")
    assert found.tolerance("tower/a", np.array([np.inf] * 8), flow, "float64") == np.inf


@pytest.mark.parametrize("name, y, precision, floor", [
    ("tower/a", [3.0], "float64", 16 * 2.0**-53), ("tower/a", [3.0], "float16", 4 * 2.0**-11),
    ("tower/a", [3.0], "bfloat16", 2 * 2.0**-8), ("grad/tower/a", [3.0], "float16", 16 * 2.0**-11),
    ("grad[a]/x", [3.0], "bfloat16", 16 * 2.0**-8), ("adam1/x", [3.0], "bfloat16", 16 * 2.0**-8),
    ("handed1/x", [3.0], "float16", 16 * 2.0**-11), ("loss", [3.0], "float64", 16 * 2.0**-53),
    ("loss", [-0.5], "float64", 32 * 2.0**-53), ("loss[a]", [0.25], "float32", 64 * 2.0**-24),
    ("loss", [0.0], "float32", 16 * 2.0**-24), ("tower/a", [0.25], "float32", 16 * 2.0**-24)])
def test_the_error_that_is_always_forgiven(name, y, precision, floor):
    assert _floor(name, np.array(y), precision) == floor


def test_small_errors_pass_by_the_floor_without_random_runs():
    given = right("tower/a", "level1/a")
    given["tower/a"] = given["tower/a"] * (1 + 2e-16)
    found, flow = judge(given)
    row = found.local("tower/a", flow)
    assert row.name == "tower/a" and row.passed and not found._noisy
    assert row.tolerance == pytest.approx(16 * 2.0**-53, rel=1e-6)


@pytest.mark.parametrize("size, looked_into", [(1e-12, True), (1e-8, False)])
def test_far_errors_in_double_precision_are_not_looked_into(size, looked_into):
    given = right("tower/a", "level1/a")
    given["tower/a"] = given["tower/a"] * (1 + size)
    found, flow = judge(given)
    assert not found.local("tower/a", flow).passed and bool(found._noisy) == looked_into


def test_far_errors_in_half_precision_are_looked_into():
    given = right("tower/a", "level1/a")
    given["tower/a"] = given["tower/a"] * 1e9
    found, flow = judge(given, dict.fromkeys(given, "float16"))
    assert not found.local("tower/a", flow).passed and found._noisy


def test_another_shape_is_not_looked_into():
    given = right("tower/a", "level1/a") | {"tower/a": np.zeros(3)}
    found, flow = judge(given, dict.fromkeys(given, "float16"))
    assert found.local("tower/a", flow).fault and not found._noisy


def test_an_expected_tensor_is_never_judged_below_the_floor():
    given = right("input", "level1/a/experts")
    found, flow = judge(given, dict.fromkeys(given, "float16"))
    given["level1/a/experts"] = given["level1/a/experts"] * 1.003
    row = found.local("level1/a/experts", flow)
    assert row.tolerance >= 4 * 2.0**-11


# Copies -----------------------------------------------------------------------------------------

def test_given_tensors_are_shaken_once_each_when_they_are_read():
    given = {"a": np.ones(3), "b": np.full(2, 2.0)}
    shaken = _Shaken(given, np.array([2.0**-10]), 8)
    assert [*shaken] == ["a", "b"] and len(shaken) == 2 and "a" in shaken and "c" not in shaken
    assert not shaken.made
    first = shaken["a"]
    assert first.shape == (8, 3) and shaken["a"] is first and [*shaken.made] == ["a"]
    off = np.abs(np.asarray(first) - 1).max()
    assert 2.0**-10 < off <= 8 * 2.0**-10
    again = noisy(np.array([2.0**-10]), 8)(given["a"]) * 1.0
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))


@pytest.mark.parametrize("error, better", [(0.45, True), (0.5, False)])
def test_what_is_as_near_without_a_part_speaks_for_nothing(monkeypatch, error, better):
    """What rounding excuses is known at random: it may be less for the same values."""
    of, _ = judge(right())
    rows = {("x", "with"): TensorRow("x", 0.45, 0.74, (0,), 1.0, 1.0, "", "bfloat16"),
            ("x", "without"): TensorRow("x", error, 0.41, (0,), 1.0, 1.0, "", "bfloat16"),
            ("y", "with"): TensorRow("y", 0.9, 0.41, (0,), 1.0, 1.0, "", "bfloat16"),
            ("y", "without"): TensorRow("y", 0.1, 0.41, (0,), 1.0, 1.0, "", "bfloat16")}
    monkeypatch.setattr(of, "local", lambda name, flow: rows[name, flow])
    monkeypatch.setattr(of, "right", lambda name, flow: rows[name, flow].passed)
    assert of._better(["x", "y"], "with", "without") is better
