"""The report: its text word by word, its JSON, and what it is read off from."""

import functools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.comparison import judged
from npple.oracle.diagnosis import Diagnosis, _decides, diagnose
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.faults import Fault, Search, find_faults
from npple.oracle.report import Report, _few, suggestion

ALL = ("representations, experts, gates, outputs, predictions, losses, gradients of the joint "
       "loss, gradients of each task, Adam")
REST = ALL.replace("outputs, ", "")


@functools.cache
def vectors():
    """With tolerances that one can read."""
    made = oracle.make_vectors(npple.cgc(2, {"a": "binary", "b": "regression"}, task_experts=1,
                                         shared_experts=1, expert_units=(2,), tower_units=()))
    numbers = dict.fromkeys(made.tolerance, (2e-9, 3e-5, 4e-3, 5e-2))
    return replace(made, tolerance=numbers)


def right(*prefixes):
    return {name: array.copy() for name, array in vectors().expected.items()
            if name.startswith(prefixes or "")}


def text(given, **options):
    return str(oracle.check(vectors(), given, **options)).splitlines()


HEAD = "tensor   error    tolerance  at  got         expected"
A = "tower/a  0.0e+00  2.0e-09    0   1.20162734  1.20162734"


def found(report, *faults, unexplained=(), ended=False):
    """The report after a search that found these."""
    report.__dict__["search"] = SimpleNamespace(faults=[*faults], unexplained=unexplained,
                                                ended=ended)
    report.__dict__["diagnosis"] = []
    return report


# Text -------------------------------------------------------------------------------------------

def test_a_full_pass():
    given = right()
    given["tower/b"] = given["tower/b"] * (1 - 1e-9)
    assert text(given) == [
        HEAD, "tower/b  1.0e-09  2.0e-09    2   1.40092545  1.40092545",
        f"113 of 113 tensors compared, judged as float64: {ALL}", "passed"]


def test_what_is_missing_is_counted_and_told():
    assert text(right("tower/a")) == [
        HEAD, A, "expected and not there: tower/b",
        f"1 of 113 tensors compared, judged as float64: outputs (1 of 2); not: {REST}",
        "passed in part; not compared: outputs (1 of 2)"]
    assert text(right("tower/a", "level1/a", "level1/b/experts"))[-2] == (
        "6 of 113 tensors compared, judged as float64: representations (1 of 3), experts "
        "(2 of 3), gates (2 of 4), outputs (1 of 2); not: predictions, losses, gradients of the "
        "joint loss, gradients of each task, Adam")


def test_every_note_has_its_line():
    old = replace(vectors(), notes=vectors().notes | {"meta": "not verified"})
    given = right("tower") | {"tower/c": np.zeros(8), "zzz": np.zeros(8)}
    report = judged(old, given, {}, "everything", ["shared-first"],
                    {"gradients": "none", "losses": "no"}, ["tower/a", "tower/b"])
    lines = str(report).splitlines()
    assert lines[3:] == [
        "conventions declared: shared-first",
        "the settings of these vectors are not verified",
        "unknown names: tower/c (did you mean tower/b?), zzz", "gradients: none", "losses: no",
        "another result when run again: tower/a, tower/b",
        f"2 of 113 tensors compared, judged as float64: outputs; not: {REST}", "cannot be judged"]


def test_a_gradient_that_leaks_is_told():
    given = right()
    given["grad[a]/tower/b/layer1/bias"] = given["grad[a]/tower/b/layer1/bias"] + 1
    assert ("otherwise reached than in the model (print(report.isolation)): tower/b by a"
            in text(given))


def test_a_fault_tells_what_it_reads():
    given = right("tower", "level1/b", "grad/tower/a", "grad/level1/a")
    given["level1/b/gate/weights"] = given["level1/b/gate/weights"][:, :1]
    given["tower/a"] = given["tower/a"] + 1
    given["tower/b"] = given["tower/b"] + 1
    del given["level1/b/experts"]
    report = oracle.check(vectors(), given)
    rows = {"level1/b/gate/weights": "level1/b", "tower/a": "tower/a", "tower/b": "tower/b"}
    assert report.wrong == (*rows,)
    lines = str(found(report, *(Fault(*pair, (), "") for pair in rows.items()))).splitlines()
    start = lines.index("3 faults:")
    assert lines[start + 2:start + 8:2] == [
        "   computed from level1/b/experts, level1/shared/experts, input (not given); give "
        "level1/b/experts to learn whether the fault stands before it",
        "   computed from level1/a (not given); give level1/a to learn whether the fault stands "
        "before it",
        "   computed from level1/b (right)"]
    assert lines[-1] == "FAILED: 3 wrong by themselves, the first is level1/b/gate/weights"


@pytest.mark.parametrize("tensor, row, line", [
    ("grad/level1/a", "level1/a", "computed from grad/tower/a (right)"),
    ("grad/input", "input", "computed from grad/level1/a/experts, grad/level1/b/experts, "
     "grad/level1/shared/experts, grad/level1/a, grad/level1/b (right)"),
    ("grad/tower/a/layer1/bias", "tower/a", "computed from grad/tower/a (right)"),
    ("grad[b]/level1/a/gate/layer1/weight", "level1/a", "computed from grad[b]/level1/a (right)"),
    ("level1/a", "level1/a",
     "computed from level1/a/experts, level1/shared/experts, input (right)"),
    ("tower/a", "tower/a", "computed from level1/a (right)"),
    ("loss", "loss", "look at how it is computed: what stands before it is right"),
    ("grad/tower/a", "tower/a", "look at how it is computed: what stands before it is right")])
def test_where_to_look_next(tensor, row, line):
    report = oracle.check(vectors(), right())
    assert report._reads(Fault(tensor, row, (), "")) == line


def test_what_is_read_and_wrong_is_told_beside_what_is_right():
    report = oracle.check(vectors(), right() | {"level1/a/experts": np.zeros((1, 8, 2))})
    assert report._reads(Fault("level1/a", "level1/a", (), "")) == (
        "computed from level1/shared/experts, input (right), level1/a/experts (wrong by itself)")


def test_of_many_wrong_tensors_and_faults_the_first_twenty_are_told():
    given = right()
    for name in [*given][:22]:
        given[name] = np.zeros(99)
    report = oracle.check(vectors(), given)
    faults = [Fault(f"t{i}", f"r{i}", ("x", "y"), "detail") for i in range(22)]
    lines = str(found(report, *faults)).splitlines()
    assert lines[0].split() == ["tensor", "error", "tolerance", "at", "got", "expected"]
    assert lines[1] == "input                       shape (99,), expected (8, 2)"
    assert lines[21:25] == ["... and 2 more that differ", "22 faults:",
                            "1. t0 (row r0): detail  [x, or y]",
                            "   look at how it is computed: what stands before it is right"]
    assert lines[61].startswith("20. t19") and lines[63] == "... and 2 more"
    assert len(lines) == 66


@pytest.mark.parametrize("count, more", [(20, False), (21, True)])
def test_twenty_are_told_without_a_word_more(count, more):
    given = right()
    for name in [*given][:count]:
        given[name] = np.zeros(99)
    report = oracle.check(vectors(), given)
    found(report, *[Fault("loss", "loss", (), "d")] * count)
    told = [line for line in str(report).splitlines() if line.startswith("...")]
    assert told == (["... and 1 more that differ", "... and 1 more"] if more else [])


def test_places_and_conventions_stand_side_by_side():
    given = right("tower") | {"level1/a": right()["level1/a"] + 1}
    report = Report(vectors(), given, {}, (), (), ("shared-first", "gate-bias"))
    lines = str(found(report)).splitlines()
    assert lines[1].split()[:4] == ["level1/a", f"{report.worst.error:.1e}", "2.0e-09", "1,1"]
    assert "conventions declared: shared-first, gate-bias" in lines


def test_one_fault_is_one():
    report = oracle.check(vectors(), right() | {"loss": np.float64("nan")})
    assert str(report).splitlines()[2:6] == [
        "1 fault:", "1. loss (row loss): nan at ()",
        "   look at how it is computed: what stands before it is right",
        "no known deviation, alone or with others, explains what has no name in brackets"]


def test_what_was_stored_as_float32_is_told_with_its_first_fault_alone():
    given = right("tower", "level1", "prediction")
    for name in ("tower/a", "tower/b"):
        given[name] = given[name].astype(np.float32).astype(np.float64)
    lines = text(given)
    at = lines.index("all of it passes as float32: was it computed in float32, and stored as "
                     "float64?")
    assert lines[at + 1] == "2 faults:" and lines[at + 4] == "... and 1 more"
    coarse = text(given | {"tower/a": given["tower/a"] * 1.01})
    assert not any("float32" in line for line in coarse)


def test_what_fails_as_float32_is_not_said_to_pass_as_it():
    report = oracle.check(vectors(), {"tower/a": right()["tower/a"].astype(np.float32) * 2})
    assert report.precision == "float32" and not report._coarser()


def test_the_largest_error_that_passes_in_half_precision_is_told():
    given = {name: y.astype(np.float16) for name, y in right("tower").items()}
    report = oracle.check(vectors(), given)
    worst = max(report.rows, key=lambda row: row.tolerance)
    assert f"float16: errors up to {worst.tolerance:.1%} pass, the most at {worst.name}" in str(
        report).splitlines()


def test_what_is_too_coarse_to_be_judged_is_told_and_counts_for_nothing():
    blunt = replace(vectors(), tolerance=dict.fromkeys(vectors().tolerance, (2e-9, 3e-5, .5, .5)))
    report = oracle.check(blunt, right("tower"), precision={"tower/a": "bfloat16"})
    report.__dict__["blunt"] = ("tower/a",)
    assert report.lacking == ("tower/a",) and report.verdict == "passed in part"
    lines = str(report).splitlines()
    assert "too coarse to be judged: tower/a" in lines
    assert not any("errors up to" in line for line in lines)
    assert lines[-2].startswith("2 of 113 tensors compared, judged as bfloat16: outputs (1 of 2); ")
    assert report.to_dict()["not_judged"] == ["tower/a"]
    report.__dict__["blunt"] = ("tower/a", "tower/b")
    assert report.verdict == "cannot be judged"


def test_what_rounding_leaves_nothing_of_is_shown_as_coarsely_as_what_it_is_made_of():
    given = right("tower")
    given["tower/a"] = given["tower/a"] * (1 + 2e-3)
    report = oracle.check(vectors(), given, precision=dict.fromkeys(given, "float32"))
    report.__dict__["wrong"] = ()
    for tolerance, precision in ((0.1, "float32"), (0.2, "float16")):
        row = replace(report.judge.paper["tower/a"], tolerance=tolerance, precision=precision)
        report.judge.local = lambda name, flow, row=row: row
        found = report._row("tower/a")
        assert found.precision == precision and found.passed
        assert (found is row) == (tolerance == 0.1)


def test_a_gradient_at_some_readers_is_told_and_not_judged():
    report = oracle.check(vectors(), right("tower", "grad/tower"), expect="gradients")
    report.judge.__dict__["partial"] = ("grad/tower/a", "tower/b")
    assert ("gradients through some readers of a tensor only, not judged: grad/tower/a, tower/b"
            in str(report).splitlines())
    assert report.lacking[0] == "tower/b" and report.verdict == "passed in part"
    assert report.to_dict()["not_judged"] == ["grad/tower/a", "tower/b"]
    assert "judged as float64: outputs (1 of 2), " in str(report)


@pytest.mark.parametrize("ended, line", [
    (True, "the search ended before all deviations were tried together"),
    (False, "no known deviation, alone or with others, explains what has no name in brackets")])
def test_why_something_has_no_name(ended, line):
    report = oracle.check(vectors(), right() | {"loss": np.float64(9)})
    found(report, unexplained=["loss"], ended=ended)
    assert str(report).splitlines()[2:4] == ["0 fault:", line]


# Diagnoses --------------------------------------------------------------------------------------

def test_what_a_diagnosis_says_of_conventions_and_of_what_decides():
    report = oracle.check(vectors(), right() | {"loss": np.float64(9)})
    found(report)
    choice, mistake = BY_NAME["gate-bias"], BY_NAME["loss-sum"]
    report.__dict__["diagnosis"] = [Diagnosis((choice, BY_NAME["shared-first"]), ("", ""), (1, 2)),
                                    Diagnosis((choice, mistake), ("", "x"), (1, 2), "tower/a")]
    assert str(report).splitlines()[2:5] == [
        "0 fault:", "a convention, not a mistake: declare it with conventions="
        "['gate-bias', 'shared-first']", "tower/a would tell loss-sum from the others"]
    both = report.diagnosis[1]
    assert str(both) == (f"{choice.description}, and {mistake.description} (x)  "
                         "[gate-bias, loss-sum]")
    assert both.to_dict() == {
        "deviations": ["gate-bias", "loss-sum"], "details": ["", "x"],
        "descriptions": [choice.description, mistake.description], "convention": False,
        "evidence": [1, 2], "decides": "tower/a"}
    assert json.loads(json.dumps(both.to_dict())) == both.to_dict()
    report.__dict__["diagnosis"] = [replace(both, deviations=(choice,)), both]
    assert "tower/a would tell gate-bias from the others" in str(report)


def probabilities():
    return {f"tower/{task}": vectors().expected[f"prediction/{task}"] for task in "ab"}


def test_two_explanations_are_told_with_the_tensor_that_decides():
    told = oracle.check(vectors(), probabilities()).diagnosis
    assert [(each.names, each.details, each.evidence, each.decides) for each in told] == [
        (("output-probability",), ("",), (1, 2), "prediction/a"),
        (("tower-activation",), ("sigmoid",), (1, 2), "prediction/a")]
    lines = text(probabilities())
    assert lines[5:7] == ["prediction/a would tell output-probability from the others",
                          "prediction/a would tell tower-activation from the others"]


def test_a_name_is_found_for_all_that_remains_or_for_nothing():
    given = probabilities() | {"prediction/a": right()["prediction/a"]}
    search = find_faults(oracle.check(vectors(), given).judge)
    alone, = diagnose(search)
    assert alone.names == ("output-probability",) and alone.decides is None
    search.whole = []
    assert [each.names for each in diagnose(search)] == [("output-probability",)]
    search.unexplained = ["loss"]
    assert diagnose(search) == []
    fresh = find_faults(oracle.check(vectors(), right()).judge)
    assert diagnose(fresh) == []


def test_what_decides_differs_by_more_than_rounding_may():
    search = find_faults(oracle.check(vectors(), probabilities()).judge)
    wide = replace(vectors(), tolerance=vectors().tolerance
                   | {"prediction/a": (2e-9, 3e-5, 4e-3, 9.0)})
    search.judge = oracle.check(wide, probabilities(), precision="bfloat16").judge
    assert {each.decides for each in diagnose(search)} == {"loss[a]"}


def test_a_tensor_that_the_vectors_do_not_have_decides_nothing():
    made = oracle.make_vectors(npple.ple(2, {"a": "binary", "b": "regression"}, levels=2,
                                         task_experts=1, shared_experts=1, expert_units=(2,),
                                         tower_units=()), batch=3)
    search = Search(oracle.check(made, {"input": made.inputs}).judge)
    one, other = (next(search._forms(search.start, [BY_NAME[name]]))
                  for name in ("shared-reads-tasks", "tower-activation"))
    assert "level2/shared/experts of a" in one.variant.table.row
    assert _decides(one, [one, other], search.judge) == "level2/a"
    assert _decides(one, [one], search.judge) is None
    assert _decides(one, [one, one], search.judge) is None


# JSON and properties ----------------------------------------------------------------------------

def test_the_report_as_plain_values():
    given = right("tower") | {"tower/b": right()["tower/b"][:1], "new": np.zeros(1)}
    report = judged(vectors(), given, {}, "outputs", [], {"losses": "none"})
    found(report, Fault("tower/b", "tower/b", ("x",), "wrong"))
    content = report.to_dict()
    row = {"tensor": "tower/b", "passed": False, "error": None, "tolerance": 2e-9,
           "precision": "float64", "index": [], "got": None, "expected": None,
           "fault": "shape (1,), expected (8,)"}
    first = {"tensor": "tower/a", "passed": True, "error": 0.0,
             "tolerance": pytest.approx(2e-9), "precision": "float64", "index": [0],
             "got": given["tower/a"][0], "expected": given["tower/a"][0], "fault": ""}
    assert content == {
        "verdict": "failed", "passed": False, "precision": "float64", "compared": 2,
        "faults": [{"tensor": "tower/b", "row": "tower/b", "names": ["x"], "detail": "wrong"}],
        "first_divergence": "tower/b", "diagnosis": [], "worst": row, "tensors": [first, row],
        "missing": [name for name in vectors().expected if name not in given], "lacking": [],
        "unknown": ["new"], "conventions": [], "reasons": {"losses": "none"}, "unsteady": [],
        "not_judged": []}


def test_declared_and_unsteady_stand_in_the_json():
    report = judged(vectors(), right("tower"), {}, "everything", ["shared-first"],
                    unsteady=["tower/a"])
    content = report.to_dict()
    assert content["conventions"] == ["shared-first"] and content["unsteady"] == ["tower/a"]
    assert content["faults"] == [] and content["verdict"] == "cannot be judged"
    named = oracle.check(vectors(), probabilities()).to_dict()
    assert [each["deviations"] for each in named["diagnosis"]] == [["output-probability"],
                                                                   ["tower-activation"]]


@pytest.mark.parametrize("reasons, verdict", [({"quantised": "x"}, "cannot be judged"),
                                              ({"gradients": "x"}, "passed")])
def test_what_is_quantised_cannot_be_judged(reasons, verdict):
    assert judged(vectors(), right("tower"), {}, "outputs", (), reasons).verdict == verdict


def test_a_failed_check_raises_its_report_and_a_passed_one_gives_it():
    passed = oracle.check(vectors(), right("tower"))
    assert passed.check() is passed
    failed = found(oracle.check(vectors(), right("tower") | {"tower/b": np.zeros(1)}))
    with pytest.raises(npple.CheckFailed) as caught:
        failed.check()
    assert str(caught.value) == str(failed)


def test_only_what_failed_is_explained():
    report = oracle.check(vectors(), right("tower"))
    report.__dict__["search"] = None
    assert report.diagnosis == [] and report.first_divergence is None and report.wrong == ()


def test_a_prediction_stands_for_its_output():
    report = oracle.check(vectors(), right("prediction/a", "tower/b"))
    assert report.lacking == () and report.passed
    assert oracle.check(vectors(), right("prediction/a")).lacking == ("tower/b",)


def test_rows_of_what_is_right_are_those_against_the_paper():
    given = right("tower", "level1/b") | {"level1/b": right()["level1/b"] * (1 + 1e-6)}
    report = oracle.check(vectors(), given)
    rows = {row.name: row for row in report.rows}
    assert rows["tower/a"] is report.judge.paper["tower/a"]
    assert rows["level1/b"] == report.judge.local("level1/b", report.start)
    assert rows["level1/b"] is not report.judge.paper["level1/b"]


def test_what_is_wrong_because_of_what_it_read_is_shown_against_the_paper():
    given = right("tower/b", "level1/b")
    given["level1/b"] = given["level1/b"] * 2
    given["tower/b"] = given["level1/b"] @ vectors().params["tower/b/layer1/weight"][:, 0] \
        + vectors().params["tower/b/layer1/bias"]
    report = oracle.check(vectors(), given)
    assert report.wrong == ("level1/b",)
    rows = {row.name: row for row in report.rows}
    assert rows["tower/b"] is report.judge.paper["tower/b"] and not rows["tower/b"].passed


def test_what_a_pass_does_not_exclude_depends_on_what_was_given_and_how_precisely():
    sharp = set(oracle.check(vectors(), right("tower")).not_excluded)
    assert {"stop-gate", "loss-sum", "gate-bias"} <= sharp and "selector-input" not in sharp
    assert "gate-sigmoid" not in sharp
    report = oracle.check(vectors(), right("tower"))
    report.__dict__["blunt"] = ("tower/a", "tower/b")
    assert "gate-sigmoid" in report.not_excluded


# Parts ------------------------------------------------------------------------------------------

def test_six_names_stand_on_a_line():
    names = list("abcdefgh")
    assert _few(names[:6]) == "a, b, c, d, e, f"
    assert _few(names[:7]) == "a, b, c, d, e, f and 1 more"
    assert _few(names) == "a, b, c, d, e, f and 2 more"


def test_the_nearest_name_is_meant():
    assert suggestion("tower/d", ["tower/a", "loss"]) == " (did you mean tower/a?)"
    assert suggestion("xyz", ["tower/a", "loss"]) == ""


@pytest.mark.parametrize("name, group", [
    ("tower/a", "outputs"), ("tower/a/layer1", "towers"), ("grad/tower/a", "gradients of the joint "
     "loss"), ("grad[a]/tower/a", "gradients of each task"), ("adam1/tower/a/layer1", "Adam"),
    ("handed2/tower/a/layer1", "Adam"), ("loss", "losses"), ("loss[a]", "losses"),
    ("prediction/a", "predictions"), ("level1/a/gate/weights", "gates"),
    ("level1/a/experts", "experts"), ("level1/a/experts/layer1", "experts"),
    ("level1/a", "representations"), ("input", "representations")])
def test_every_tensor_is_of_a_kind_that_has_a_word(name, group):
    from npple.oracle.report import _group
    assert _group(name) == group


def test_a_report_made_bare_has_no_conventions_reasons_or_unsteady_tensors():
    bare = Report(vectors(), right("tower"), {}, (), ())
    assert (bare.conventions, bare.reasons, bare.unsteady) == ((), {}, ())
    assert deviate(BY_NAME["loss-sum"], vectors().variant, {})
