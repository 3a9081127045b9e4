"""The search for faults, part by part: numbers that are fitted, words, rows, where it ends."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import faults
from npple.oracle.changes import Free
from npple.oracle.deviant_rows import deviant_gate, with_rows
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.faults import (Fault, Form, Search, _detail, _later, _mixed, _row, _same,
                                 find_faults)
from npple.oracle.flow import compute
from npple.oracle.variant import cast


@functools.cache
def vectors():
    return oracle.make_vectors(npple.cgc(2, {"a": "binary", "b": "regression"}, task_experts=2,
                                         shared_experts=1, expert_units=(2,), tower_units=()))


def right(*prefixes):
    return {name: y.copy() for name, y in vectors().expected.items()
            if name.startswith(prefixes or "")}


def search(given):
    """Before it has run."""
    return Search(oracle.check(vectors(), given).judge)


def found(given):
    return find_faults(oracle.check(vectors(), given).judge)


def made(*names, number=None):
    """A candidate with these deviations, the last with a number of its own."""
    variant = vectors().variant
    for name in names:
        variant = deviate(BY_NAME[name], variant, {})[0][0]
    if number is not None:
        variant = BY_NAME[names[-1]].free.set(variant, number)
    completed = complete(variant, cast(vectors().case, np.float64), {})
    return {name: y for name, y in compute(*completed) if name in vectors().expected}


# Numbers that are fitted ------------------------------------------------------------------------

@pytest.mark.parametrize("name, number, told", [
    ("adam-l2", 0.015, "decay 0.015, fitted: 48 equations"),
    ("gate-temperature", 3.0, "temperature 3, fitted: 120 equations"),
    ("activation-slope", 0.015, "slope 0.015, fitted: 132 equations"),
    ("adam-clip", 1.5, "norm 1.5, fitted: 48 equations")])
def test_a_number_is_found_and_told_with_both_counts(name, number, told):
    fault, = found(made(name, number=number)).faults
    assert fault.names == (name,) and f"({told}, 1 unknown)" in fault.detail
    assert fault.detail.startswith(BY_NAME[name].description)


def fitting(name, given, looked=None):
    """What is fitted to the tensors looked at: the variant and the detail, or None."""
    of = search(given)
    free = BY_NAME[name].free
    variant, _ = deviate(BY_NAME[name], vectors().variant, {})[0]
    return of._fitted(free, variant, of.judge.case, looked or [*given])


def test_one_equation_is_none():
    given = made("loss-factor", number=2.5)
    assert fitting("loss-factor", given, ["loss"]) is None
    variant, told = fitting("loss-factor", given, ["loss", "grad/tower/b"])
    assert told == "divisor 2.5, fitted: 9 equations, 1 unknown"
    assert variant == BY_NAME["loss-factor"].free.set(vectors().variant, pytest.approx(2.5))


def test_only_tensors_that_the_number_changes_are_equations():
    given = made("loss-factor", number=2.5)
    names = ["loss", "grad/tower/b", "tower/a", "loss[a]", "grad/tower/b/layer1/bias", "nothing"]
    assert fitting("loss-factor", given, names)[1].endswith(" 9 equations, 1 unknown")
    spoiled = given | {"grad/tower/b": np.zeros(3)}
    names.remove("grad/tower/b/layer1/bias")
    assert fitting("loss-factor", spoiled, names) is None


def test_a_number_stays_within_its_legal_range():
    given = right("tower", "loss", "grad/tower")
    y = 1.0 - vectors().targets["a"] * 3  # beyond what any smoothing makes of targets
    given["loss[a]"] = given["loss[a]"] * 0 + 40.0
    result = fitting("label-smoothing", given, ["loss[a]", "grad/tower/a"])
    assert y.size == 8 and (result is None or 0 < float(result[1].split()[1].strip(",")) < 1)


def test_a_slope_of_zero_is_no_fit():
    free = Free("x", lambda variant, number: variant, 1.0, 0.0, 2.0)
    given = right("tower")
    of = search(given)
    assert of._fitted(free, vectors().variant, of.judge.case, [*given]) is None


class Line:
    """A flow whose one tensor is a function of a number."""

    def __init__(self, function, number):
        self.function, self.number = function, number

    def value(self, name):
        made = self.function(self.number)
        return None if made is None else made * np.ones(3)


def solve(function, wanted, start=1.0, low=-10.0, high=10.0):
    """The number that `_fitted` finds for three equal equations, and the numbers it tried."""
    tried = []

    def flow(number, case):
        tried.append(number)
        return Line(function, number)

    judge = SimpleNamespace(usable={"y": np.full(3, float(wanted))}, flow=flow)
    free = Free("x", lambda variant, number: number, start, low, high)
    with np.errstate(all="ignore"):  # as in a search
        result = Search._fitted(SimpleNamespace(judge=judge), free, None, None, ["y"])
    return result and (result[0], result[1]), tried


def test_the_number_is_that_of_least_squares():
    (number, told), _ = solve(lambda x: x * x, 2.25)
    assert number == pytest.approx(1.5, rel=1e-9)
    assert told == "x 1.5, fitted: 3 equations, 1 unknown"
    (number, _), _ = solve(lambda x: 2 * x - 1, -4.0)
    assert number == pytest.approx(-1.5, rel=1e-6)


def test_a_step_that_is_too_long_is_halved():
    for function, wanted in ((np.arctan, 0.5), (lambda x: np.cbrt(x - 1), 0.25)):
        (number, _), _ = solve(function, function(wanted), start=4.0)
        assert number == pytest.approx(wanted, rel=1e-9)


def test_no_number_beyond_its_range_is_tried_and_its_end_is_no_fit():
    for wanted, bounds in ((30.0, {"high": 3.0}), (-30.0, {"low": -3.0})):
        result, tried = solve(lambda x: x, wanted, **bounds)
        assert result is None and -3.0 < min(tried) and max(tried) < 3.0 * (1 + 2e-6)


def test_the_first_slope_is_a_millionth_of_the_start():
    _, tried = solve(lambda x: x, 2.0, start=4.0)
    assert tried[:4] == [4.0, 4.0 * (1 + 1e-6), 4.0, 4.0 * (1 + 1e-6)]


def test_what_grows_without_end_is_no_fit():
    assert solve(lambda x: np.inf if x > 1 else x, 5.0)[0] is None
    assert solve(lambda x: 0 * x, 5.0)[0] is None


# The search -------------------------------------------------------------------------------------

def test_two_deviations_in_one_tensor_are_found_together():
    result = found(made("gate-sigmoid", "loss-sum"))
    assert [(each.tensor, each.row, each.names) for each in result.faults] == [
        ("level1/a/gate/weights", "level1/a", ("gate-sigmoid",)),
        ("loss[a]", "loss", ("loss-sum",))]
    assert result.exact and result.final.names == ("gate-sigmoid", "loss-sum")
    assert result.unexplained == [] and not result.ended and result.trials > 0


def test_what_is_alone_and_explains_all_is_whole():
    result = found(made("gate-sigmoid"))
    assert [form.names for form in result.whole] == [("gate-sigmoid",)]
    assert result.start.names == () and result.start.flow is not result.final.flow
    assert result.final.fitted == 0
    assert found(made("adam-rate", number=0.5)).final.fitted == 1


def test_nothing_wrong_has_no_faults():
    result = found(right())
    assert result.faults == [] == result.whole and result.trials == 0
    assert result.final is result.start and result.exact


def test_faults_stand_in_the_order_of_computation():
    given = made("loss-sum")
    given["level1/a"] = given["level1/a"] * 1.5
    result = found({name: y for name, y in given.items() if not name.startswith(("adam", "grad"))})
    assert [each.tensor for each in result.faults] == ["level1/a", "loss[a]"]
    assert [each.names for each in result.faults] == [(), ("loss-sum",)]
    assert result.unexplained == ["level1/a"]


def test_a_search_has_an_end(monkeypatch):
    of = search(made("gate-sigmoid"))
    wrong = of.judge.wrong(of.final.flow)
    of.trials = 3001
    assert of._explained(wrong) == [] and of.ended
    of = search(made("gate-sigmoid"))
    of.trials = 1001
    assert of._explained(wrong) and of.ended
    of = search(made("gate-sigmoid"))
    of.trials = 1000
    assert of._explained(wrong)[0][0] == [] and not of.ended
    assert of.looked == [name for name in wrong if not _later(name)][:12]


def test_numbers_are_fitted_to_late_steps_only_where_nothing_before_is_wrong():
    for given, late in ((made("gate-sigmoid"), False), (made("adam-amsgrad"), True)):
        of = search(given)
        of._explained(of.judge.wrong(of.final.flow))
        assert all(_later(name) is late for name in of.looked) and of.looked


def test_fitting_counts_for_five_trials():
    of = search(right())
    for name, trials in (("gate-sigmoid", 1), ("adam-rate", 5)):
        of.looked, of.trials = ["tower/a", "tower/b"], 0
        [*of._forms(of.final, [BY_NAME[name]])]
        assert of.trials == trials
        of.trials = 0
        [*of._forms(of.final, [BY_NAME[name]], fit=False)]
        assert of.trials == 1


def test_a_deviation_is_not_made_twice():
    of = search(right())
    form, = of._forms(of.final, [BY_NAME["gate-sigmoid"]])
    assert [*of._forms(form, [BY_NAME["gate-sigmoid"]])] == []
    again, = of._forms(form, [BY_NAME["loss-sum"]])
    assert again.names == ("gate-sigmoid", "loss-sum") and again.details == ("", "")


def test_only_what_changes_a_tensor_is_tried_for_it():
    of = search(right("tower"))
    names = {each.name for each in of._touching("loss")}
    assert {"loss-sum", "weights-twice"} <= names
    assert not {"stop-gate", "adam-rate", "gate-sigmoid"} & names  # the towers were given
    assert {each.name for each in of._touching("adam1/tower/a/layer1/bias")} >= {
        "adam-rate", "adam-clip"}


# Words ------------------------------------------------------------------------------------------

def test_a_fault_as_text_and_plain_values():
    fault = Fault("tower/a", "tower/a", ("x", "y"), "wrong")
    assert str(fault) == "tower/a (row tower/a): wrong  [x, or y]"
    assert str(replace(fault, names=())) == "tower/a (row tower/a): wrong"
    assert fault.to_dict() == {"tensor": "tower/a", "row": "tower/a", "names": ["x", "y"],
                               "detail": "wrong"}


def test_what_nobody_knows_is_told_with_its_numbers():
    given = right("level1/a/experts")
    given["level1/a/experts"][1, 3, 0] += 1.0
    y = right()["level1/a/experts"][1, 3, 0]
    assert search(given)._unknown("level1/a/experts") == (
        f"{y + 1:.9g} where {y:.9g} follows from what it reads, at 1,3,0")
    assert search({"loss": np.float64(9)})._unknown("loss") == (
        f"9 where {float(right()['loss']):.9g} follows from what it reads, at its one "
        "entry")


def test_another_shape_is_told_as_it_is():
    told = search({"tower/a": np.zeros(3)})._unknown("tower/a")
    assert told == "shape (3,), expected (8,)"


def test_all_that_can_be_said_stands_in_one_line():
    given = right("level1", "tower")
    given["level1/a"] = given["level1/b"].copy()
    told = search(given)._unknown("level1/a")
    assert told.endswith("; it has the values of level1/b; not what its readers read: handed in "
                         "under a wrong name, or changed afterwards?")


def blamed(change):
    """What is said of a gradient that lacks, or has too much of, what its readers add."""
    start = oracle.check(vectors(), right()).start
    parts = {row: start.contributions("grad", row)["level1/shared/experts"]
             for row in ("level1/a", "level1/b")}
    of = search({"grad/level1/shared/experts": change(parts["level1/a"], parts["level1/b"])})
    return of._blame("grad/level1/shared/experts")


@pytest.mark.parametrize("change, words", [
    (lambda a, b: b, "; the part of level1/a is missing"),
    (lambda a, b: a, "; the part of level1/b is missing"),
    (lambda a, b: a + 3.5 * b, "; the part of level1/b counts 3.5 times"),
    (lambda a, b: -a + b, "; the part of level1/a counts -1 times"),
    (lambda a, b: a * a + b, "; it is the sum of what comes from level1/a, level1/b"),
    (lambda a, b: 2 * a + 3 * b, "; it is the sum of what comes from level1/a, level1/b")])
def test_the_guilty_part_of_a_gradient(change, words):
    assert blamed(change) == words


def test_nobody_is_blamed_for_what_has_one_part_or_is_no_gradient():
    of = search(right())
    assert of._blame("level1/a") == "" and of._blame("grad/tower/a/layer1/bias") == ""
    assert of._blame("grad/level1/a") == ""


@pytest.mark.parametrize("name, told", [
    ("grad/level1/a", "; it is zero throughout: cut off from the loss?"),
    ("level1/a", "; it is zero throughout")])
def test_what_is_zero_throughout_is_told(name, told):
    assert search(right() | {name: 0 * right()[name]})._alike(name) == told


@pytest.mark.parametrize("name, row, through", [
    ("loss[a]", "loss", True), ("grad/tower/a", "loss", False), ("grad/level1/a", "loss", False),
    ("grad/level1/a", "tower/a", True), ("grad/level1/a", "tower/b", False),
    ("adam1/tower/a/layer1/bias", "adam", True), ("level1/a", "level1/a", True)])
def test_a_row_makes_a_tensor_or_has_a_part_in_its_gradient(name, row, through):
    assert search(right())._through(name, row) == through


def test_the_tensor_that_a_wrong_one_equals_is_told():
    given = right("level1/a", "level1/b")
    given["level1/a"] = given["level1/b"].copy()
    of = search(given)
    assert of._alike("level1/a") == "; it has the values of level1/b"
    assert search(right("level1/a", "tower/a"))._alike("level1/a") == ""


def test_a_deviation_in_words_names_where_else_it_shows():
    known = BY_NAME["gate-sigmoid"]
    shown = ["level1/a", "grad/x", "adam1/x", "handed1/x", "loss", "level1/b", "t/1", "t/2", "t/3"]
    assert _detail(known, "", ["level1/a"]) == known.description
    assert _detail(known, "so", ["level1/a", "grad/x"]) == f"{known.description} (so)"
    assert _detail(known, "", shown) == (
        f"{known.description}; also in level1/b, t/1, t/2, t/3")
    assert _detail(known, "", [*shown, "t/4", "t/5"]) == (
        f"{known.description}; also in level1/b, t/1, t/2, t/3 and 2 more")


@pytest.mark.parametrize("name, row", [
    ("loss", "loss"), ("loss[a]", "loss"), ("adam1/tower/a/layer1/bias", "adam"),
    ("handed12/x", "adam"), ("prediction/a", "tower/a"), ("grad/tower/a", "tower/a"),
    ("grad[b]/level1/a/gate/layer1/weight", "level1/a"), ("grad/embedding/x", "input"),
    ("embedding/x", "input"), ("level1/a/gate/logits", "level1/a"), ("input", "input"),
    ("grad/input", "input"), ("level1/a/experts", "level1/a/experts"), ("nowhere/x", "nowhere/x"),
    ("grad/nowhere", "nowhere")])
def test_every_tensor_belongs_to_a_row(name, row):
    assert _row(vectors().model.table, name) == row


@pytest.mark.parametrize("name, later", [
    ("adam1/x", False), ("adam2/x", True), ("adam12/x", True), ("grad/x", False),
    ("handed2/x", False)])
def test_steps_from_the_second_on_come_later(name, later):
    assert _later(name) == later


def test_values_are_the_same_up_to_rounding():
    one = np.array([1.0, -2.0])
    assert _same(one, one + [0, 1.9e-12]) and not _same(one, one + [0, 2.5e-12])
    assert _same(None, None) and not _same(one, None) and not _same(None, one)
    assert not _same(one, np.zeros(3)) and _same(np.zeros(2), np.zeros(2))
    assert not _same(np.array([1e-30, 0]), np.zeros(2))


def test_some_rows_of_one_table_are_put_into_another():
    old = vectors().model.table
    new = deviate(BY_NAME["gate-sigmoid"], vectors().variant, {})[0][0].table
    mixed = _mixed(old, new, {"level1/a"})
    assert mixed.row["level1/a"] == new.row["level1/a"] != old.row["level1/a"]
    assert mixed.row["level1/b"] == old.row["level1/b"] and mixed.towers == old.towers
    assert _mixed(old, new, set()) == old and _mixed(old, new, {"level1/a", "level1/b"}) == new
    wide = npple.cgc(2, {"a": "binary", "b": "regression"}, task_experts=2, shared_experts=1,
                     expert_units=(5,), tower_units=()).table
    assert _mixed(old, wide, {"level1/a/experts"}) is None
    towers = _mixed(old, deviate(BY_NAME["tower-activation"], vectors().variant, {})[0][0].table,
                    {"tower/a"})
    assert towers.row["tower/a"] != old.row["tower/a"]
    assert towers.row["tower/b"] == old.row["tower/b"]


def test_a_mistake_in_one_of_two_gates_is_found_in_that_one_alone():
    one, other = made("gate-sigmoid"), right()
    given = {name: (one if "level1/a" in name else other)[name] for name in other
             if name.startswith("level1")}
    fault, = found(given).faults
    assert (fault.tensor, fault.row, fault.names) == ("level1/a/gate/weights", "level1/a",
                                                      ("gate-sigmoid",))


def gated(**changes):
    """A candidate whose gates of tasks differ from the paper's by these fields."""
    own = {f"level1/{task}": fields for task, fields in changes.items()}
    table = with_rows(vectors().model.table, lambda row: deviant_gate(row, **own[row.name])
                      if row.name in own else row)
    variant = replace(vectors().variant, table=table)
    return dict(compute(variant, cast(vectors().case, np.float64)))


def test_a_number_in_one_of_two_gates_is_found_in_that_one_alone():
    fault, = found(gated(b={"temperature": 1.7})).faults
    assert (fault.tensor, fault.names) == ("level1/b/gate/logits", ("gate-temperature",))
    assert "(temperature 1.7, fitted: " in fault.detail


@pytest.mark.parametrize("first, second", [(2.0, 3.0), (3.0, 2.0)])  # the search begins at 2
def test_each_gate_has_a_number_of_its_own(first, second):
    one, other = found(gated(a={"temperature": first}, b={"temperature": second})).faults
    assert (one.tensor, one.names) == ("level1/a/gate/logits", ("gate-temperature",))
    assert (other.tensor, other.names) == ("level1/b/gate/logits", ("gate-temperature",))
    assert f"(temperature {first:g}, " in one.detail
    assert f"(temperature {second:g}, " in other.detail


def test_each_gate_may_deviate_in_its_own_way():
    one, other = found(gated(a={"kept": 1}, b={"kept": 2})).faults
    assert one.names[0] == other.names[0] == "gate-top-k"
    assert "(the first 1)" in one.detail and "(the first 2)" in other.detail


def test_a_form_knows_its_names_and_numbers():
    both = BY_NAME["gate-sigmoid"], BY_NAME["adam-rate"]
    form = Form(both, ("", ""), None, None, None)
    assert form.names == ("gate-sigmoid", "adam-rate") and form.fitted == 1 and not form.local
    assert faults.TOGETHER == ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0))


# Where and as what it is told -------------------------------------------------------------------

def test_two_deviations_that_meet_in_one_tensor_are_two_faults():
    both = made("gate-sigmoid", "gate-residual")
    given = {name: both[name] for name in ("level1/a", "level1/b", "tower/a", "tower/b")}
    result = found(given)
    assert {each.names[0] for each in result.faults} == {"gate-sigmoid", "gate-residual"}
    assert [(each.tensor, each.row) for each in result.faults] == [("level1/a", "level1/a")] * 2
    assert all(each.detail.endswith("; also in level1/b") for each in result.faults)


def test_a_number_is_weak_if_something_that_it_changes_stays_wrong():
    of = search(made("gate-temperature", number=3.0))
    variant, _ = deviate(BY_NAME["gate-temperature"], vectors().variant, {})[0]
    form = Form((), (), variant, of.judge.case, of.judge.flow(variant, of.judge.case))
    every = [*vectors().expected]
    changed = [name for name in every
               if not _same(form.flow.value(name), of.final.flow.value(name))]
    others = [name for name in every if name not in changed]
    assert changed and others
    assert not of._weak([], every) and not of._weak([(others, form)], every)
    assert of._weak([(changed[-1:], form), (others, form)], every)
    assert not of._weak([(changed[-1:], form)], changed[:-1])


@pytest.mark.parametrize("weak, kept", [(True, [(2, 0)]), (False, [(1, 1)])])
def test_a_weak_number_waits_for_two_deviations_without_one(monkeypatch, weak, kept):
    of = search(made("gate-sigmoid"))
    wrong, tried = of.judge.wrong(of.final.flow), []

    def together(touching, size, fitted):
        tried.append((size, fitted))
        yield SimpleNamespace(flow=None, made=(size, fitted))

    monkeypatch.setattr(of, "_touching", lambda first: [])
    monkeypatch.setattr(of, "_together", together)
    monkeypatch.setattr(of.judge, "right", lambda first, flow: tried[-1] != (1, 0))
    monkeypatch.setattr(of, "_left", lambda form, wrong: [(["left"] * form.made[1], form)])
    monkeypatch.setattr(of, "_weak", lambda found, wrong: weak and bool(found))
    found = of._explained(wrong)
    assert [form.made for _, form in found][:1] == kept
    assert tried == [(1, 0), (1, 1)] + [(2, 0)] * weak
    assert len(found) == 1 + weak
    of.ended, tried[:] = True, []
    assert [form.made for _, form in of._explained(wrong)] == [(1, 1)] and len(tried) == 2
    tried.clear()
    monkeypatch.setattr(of.judge, "right", lambda first, flow: False)
    assert of._explained(wrong) == [] and tried == [(1, 0), (1, 1)]
    of.ended = False
    assert of._explained(wrong) == [] and tried[2:] == [*faults.TOGETHER]


def test_what_is_weak_is_all_there_is_if_nothing_else_explains_it(monkeypatch):
    of = search(made("gate-sigmoid"))
    wrong, tried = of.judge.wrong(of.final.flow), []

    def together(touching, size, fitted):
        tried.append((size, fitted))
        return [SimpleNamespace(flow=None, made=(size, fitted))] * fitted

    monkeypatch.setattr(of, "_touching", lambda first: [])
    monkeypatch.setattr(of, "_together", together)
    monkeypatch.setattr(of.judge, "right", lambda first, flow: True)
    monkeypatch.setattr(of, "_left", lambda form, wrong: [([], form)])
    monkeypatch.setattr(of, "_weak", lambda found, wrong: bool(found))
    assert [form.made for _, form in of._explained(wrong)] == [(1, 1)]
    assert tried == [(1, 0), (1, 1), (2, 0)]
    monkeypatch.setattr(of, "_together", lambda touching, size, fitted: (
        [SimpleNamespace(flow=None, made=(size, fitted))] * (size == 2 and fitted)))
    assert [form.made for _, form in of._explained(wrong)] == [(2, 1)]


def test_what_was_given_up_behind_a_fault_is_looked_at_again_when_that_has_a_name(monkeypatch):
    of = search(made("gate-sigmoid"))
    of.faults = [Fault("level1/a", "level1/a", (), ""), Fault("loss", "loss", ("known",), "")]
    of.unexplained, seen = ["level1/a", "grad/input"], []
    answers = iter([["level1/b", "grad/input"], ["grad/input"], [], []])
    monkeypatch.setattr(of.judge, "wrong", lambda flow: next(answers))
    monkeypatch.setattr(of, "_explained", lambda wrong: seen.append(wrong) or [([], None)])
    monkeypatch.setattr(of, "_take", lambda found, wrong: None)
    of._search()
    assert seen == [["level1/b", "grad/input"], ["grad/input"]]
    assert [fault.tensor for fault in of.faults] == ["loss"] and of.unexplained == []


def test_a_deviation_shows_where_it_changes_something_by_itself():
    of = search(right())
    first, = of._forms(of.final, [BY_NAME["gate-sigmoid"]])
    both, = of._forms(first, [BY_NAME["loss-sum"]])
    repaired = ["level1/a/gate/weights", "loss[a]", "loss[b]", "tower/a"]
    assert of._shown(both, 0, repaired) == ["level1/a/gate/weights"]
    assert of._shown(both, 1, repaired) == ["loss[a]", "loss[b]"]
    assert of._shown(both, 1, ["tower/a"]) == ["tower/a"]
    assert of._shown(first, 0, repaired) == repaired


@pytest.mark.parametrize("name, tensor, row", [
    ("stop-selector", "grad/input", "level1/a"),
    ("softmax-unsummed", "grad/level1/b/gate/layer1/weight", "level1/b"),
    ("stop-shared-by-task", "grad/level1/shared/experts", "level1/a")])
def test_a_gradient_is_changed_by_a_row_that_reads_it(name, tensor, row):
    fault, = found(made(name)).faults
    assert (fault.tensor, fault.row, fault.names[0]) == (tensor, row, name)


def test_what_explains_as_much_is_named_beside_it():
    fault, = found({f"tower/{task}": vectors().expected[f"prediction/{task}"]
                    for task in "ab"}).faults
    assert fault.names == ("output-probability", "tower-activation")


def test_a_form_in_some_rows_alone_keeps_its_detail():
    one, other = made("expert-normalised"), right()
    given = {name: (one if name == "level1/a/experts" else other)[name]
             for name in ("level1/a/experts", "level1/b/experts", "level1/shared/experts", "input")}
    fault, = found(given).faults
    assert fault.names == ("expert-normalised",) and fault.tensor == "level1/a/experts"
    assert fault.detail == ("the experts' layers are normalised (over the batch, before the "
                            "activation)")


def test_a_form_can_be_had_in_some_rows_alone():
    of = search(made("expert-normalised"))
    sigmoid, = of._forms(of.final, [BY_NAME["gate-sigmoid"]])
    of.final = sigmoid
    whole = next(of._forms(sigmoid, [BY_NAME["expert-normalised"]]))
    local, = of._here(whole, ["level1/a/experts", "grad/level1/b/gate/layer1/weight"])
    assert local.local and not whole.local and local.names == whole.names
    assert local.details == whole.details == ("", "over the batch, before the activation")
    changed = {name for name, row in local.variant.table.row.items()
               if row != sigmoid.variant.table.row[name]}
    assert changed == {"level1/a/experts"}
    assert [*of._here(whole, ["tower/a"])] == []  # nothing would be changed
    assert [*of._here(whole, [f"level1/{stream}/experts" for stream in ("a", "b", "shared")])] == []


def test_what_follows_is_told_where_the_paper_has_another_value():
    given = right("level1/a", "tower/a")
    given = {name: given[name] for name in ("level1/a", "tower/a")}
    given["level1/a"] = given["level1/a"] * 2
    given["tower/a"] = given["tower/a"] + 7
    layer = "tower/a/layer1"
    follows = (given["level1/a"] @ vectors().params[f"{layer}/weight"]
               + vectors().params[f"{layer}/bias"])[:, 0]
    at = np.argmax(np.abs(given["tower/a"] - follows))
    assert search(given)._unknown("tower/a") == (
        f"{given['tower/a'][at]:.9g} where {follows[at]:.9g} follows from what it reads, at {at}")


def test_a_number_for_which_nothing_is_made_is_no_fit():
    assert solve(lambda x: x * x if x < 3 else None, 9.0)[0] is None
    (number, _), _ = solve(lambda x: x * x if x < 3 else None, 6.25)
    assert number == pytest.approx(2.5, rel=1e-9)


def test_a_number_that_vanishes_is_no_fit():
    """A slope, decay or smoothing of nothing is the paper's model."""
    assert solve(lambda x: x + 1, 1.0)[0] is None
