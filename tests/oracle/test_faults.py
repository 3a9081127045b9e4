"""Each fault by itself: located at its row and named, however many stand together."""

import functools
import random
import tracemalloc
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.deviant_rows import deviant_gate, with_rows
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.flow import compute
from npple.oracle.variant import cast
from npple.routing import Gate

pytestmark = pytest.mark.slow

TWO = {"a": "binary", "b": "regression"}
THREE = TWO | {"c": "multiclass:3"}
MODELS = {
    "ple": lambda: npple.ple(3, TWO, levels=2, task_experts=3, shared_experts=1,
                             expert_units=(3,), tower_units=()),
    "deep ple": lambda: npple.ple({"x": "numeric", "city": (4, 3)}, THREE, levels=3,
                                  task_experts={"a": 1, "b": 2, "c": 3}, shared_experts=2,
                                  expert_units=(4,), tower_units=(3,)),
    "cgc": lambda: npple.cgc({"x": "numeric", "city": (6, 3)}, TWO,
                             task_experts={"a": 2, "b": 3}, shared_experts=2, expert_units=(5,),
                             tower_units=(4,)),
    "mmoe": lambda: npple.mmoe(4, THREE, experts=4, expert_units=(5, 4), tower_units=(3,)),
    "ml_mmoe": lambda: npple.ml_mmoe(4, TWO, levels=3, experts=(3, 2, 3), expert_units=(4,)),
}


@functools.cache
def vectors(name):
    return oracle.make_vectors(MODELS[name]())


def right(name="ple"):
    return {key: array.copy() for key, array in vectors(name).expected.items()}


def made(name, deviations):
    """A candidate with these deviations, or None where they do not go together."""
    variant = vectors(name).variant
    for deviation in sorted(deviations, key=list(BY_NAME).index):
        forms = deviate(BY_NAME[deviation], variant, {})
        if not forms:
            return None
        variant = forms[0][0]
    completed = complete(variant, cast(vectors(name).case, np.float64), {})
    try:
        return completed and {key: y for key, y in compute(*completed)
                              if key in vectors(name).expected}
    except ValueError:  # shapes that clash
        return None


def differ(one, other):
    """Whether two candidates differ by more than rounding."""
    return any(key not in other or one[key].shape != other[key].shape
               or np.abs(one[key] - other[key]).max() > 1e-7 * max(np.abs(one[key]).max(), 1e-9)
               for key in one)


def outputs(name, given):
    """The outputs and the gradients of parameters alone."""
    table = vectors(name).model.table
    return {key: y for key, y in given.items() if key in {row.name for row in table.towers}
            or key.startswith("grad") and key.partition("/")[2] in vectors(name).params}


# With another number one of them may do alone what two do: a limit so low that a task is detached.
NUMBERED = {"loss-clipped"} | {name for name, deviation in BY_NAME.items() if deviation.free}


def drawn(size, number, kept=lambda name, given: given):
    """`number` of (model, names, candidate): sets in which each member changes what is kept."""
    rng, sets = random.Random(size), []
    for attempt in count():
        if len(sets) == number:
            return sets
        name = list(MODELS)[attempt % len(MODELS)]
        names = rng.sample(sorted(BY_NAME), size)
        if sum(BY_NAME[each].free is not None for each in names) > 1:
            continue  # two fitted numbers in one tensor are beyond the search
        if sum(each.startswith("adam") for each in names) > 1 or "adam-epsilon" in names:
            continue  # so are two mistakes in one step of Adam, and an epsilon beside others,
            # which is fitted less exactly than the smallest gradients would show
        if {"shared-reads-tasks", "level-reads-mean"} <= {*names}:
            continue  # if all read the mean, the first changes nothing but how often experts run
        given = made(name, names)
        if given is None:
            continue
        given = kept(name, given)
        fewer = [made(name, [each for each in names if each != left]) for left in names]
        if all(less is not None and differ(given, less) for less in fewer):
            sets.append((name, names, given))


@pytest.mark.parametrize("size, number", [
    (3, 2), (5, 1), *(pytest.param(*many, marks=pytest.mark.fuzz) for many in ((3, 30), (5, 10)))])
def test_deviations_that_stand_together_are_each_found_and_named(size, number):
    for name, names, given in drawn(size, number):
        report = oracle.check(vectors(name), given)
        assert len(report.faults) == size, (name, names, report.faults)
        found = [fault.names for fault in report.faults]
        assert all(any(each in fault for fault in found) for each in names), (name, names, found)


@pytest.mark.parametrize("size, number", [
    (1, 3), (2, 1), *(pytest.param(*many, marks=pytest.mark.fuzz) for many in ((1, 60), (2, 40)))])
def test_outputs_and_gradients_are_enough_for_one_or_two_names(size, number):
    for name, names, given in drawn(size, number, outputs):
        report = oracle.check(vectors(name), given)
        found = [{*each.names} for each in report.diagnosis]
        fewer = [one for one in found if one < {*names} and one & NUMBERED]
        assert {*names} in found or fewer, (name, names, report)


def test_a_limit_that_gradients_show_in_steps_alone_is_told_about():
    variant = replace(vectors("ple").variant, limit=1.3)
    given = outputs("ple", dict(compute(variant, cast(vectors("ple").case, np.float64))))
    fault, = oracle.check(vectors("ple"), given).faults
    assert fault.names == ("loss-clipped",) and "seen in steps alone" in fault.detail


def test_a_fault_stands_at_the_row_that_makes_the_tensor():
    given = right("deep ple")
    given["level2/b/experts"] = given["level2/b/experts"] * 1.01
    given["tower/c"] = given["tower/c"][::-1].copy()
    faults = oracle.check(vectors("deep ple"), given).faults
    assert [(fault.tensor, fault.row) for fault in faults] == [
        ("level2/b/experts", "level2/b/experts"), ("tower/c", "tower/c")]


def test_a_deviation_in_one_row_alone_is_found_there():
    one = made("ple", ["gate-sigmoid"])
    names = [key for key in one if "level2/b" in key and not key.startswith(("grad", "adam"))]
    flow = {key: array for key, array in right().items() if not key.startswith(
        ("grad", "adam", "loss", "tower", "prediction"))}
    given = flow | {key: one[key] for key in names if "gate" in key}
    variant = vectors("ple").variant
    row = deviate(BY_NAME["gate-sigmoid"], variant, {})[0][0].table.row["level2/b"]
    tensors = flow | {"input": vectors("ple").inputs}
    given |= row.forward(vectors("ple").params, tensors)[0]
    fault, = oracle.check(vectors("ple"), given).faults
    assert fault.row == "level2/b" and fault.names[0] == "gate-sigmoid"


def test_a_tensor_under_a_wrong_name_hides_no_deviation():
    given = made("ple", ["selector-input"])
    given["level1/a"] = given["level1/b"]
    faults = oracle.check(vectors("ple"), given).faults
    assert [(fault.tensor, fault.names) for fault in faults] == [
        ("level1/a", ()), ("level2/a/gate/logits", ("selector-input",))]
    assert "not what its readers read" in faults[0].detail


def test_another_tensors_values_are_recognised():
    given = {key: right()[key] for key in ("level1/a", "level1/b")}
    given["level1/a"] = given["level1/b"]
    fault, = oracle.check(vectors("ple"), given).faults
    assert fault.detail.endswith("it has the values of level1/b")


@pytest.mark.parametrize("change, words", [(-1, "is missing"), (1, "counts 2 times")])
def test_the_guilty_part_of_a_gradient_is_found(change, words):
    bundle, given = vectors("ple"), right()
    report = oracle.check(bundle, given)
    part = report.start.contributions("grad", "level2/a/experts")["level1/a"]
    given = {key: y for key, y in given.items()  # nothing that would read the gradient
             if not key.startswith(("adam", "grad[", "grad/level1", "grad/input"))}
    given["grad/level1/a"] = right()["grad/level1/a"] + change * part
    fault, = oracle.check(bundle, given).faults
    assert fault.tensor == "grad/level1/a"
    assert f"the part of level2/a/experts {words}" in fault.detail


def test_zeros_that_many_causes_have_are_not_named_after_one():
    """A tower is frozen: it is not shared, nor is its task's output detached."""
    given = outputs("cgc", right("cgc"))
    for name in [name for name in given if "/tower/b/" in name]:
        given[name] = 0 * given[name]
    faults = oracle.check(vectors("cgc"), given).faults
    assert not any(fault.names for fault in faults)
    assert faults[0].tensor == "grad/tower/b/layer2/bias"
    assert faults[0].detail.endswith("it is zero throughout: cut off from the loss?")


@pytest.mark.parametrize("name", ["ple", "cgc"])
@pytest.mark.parametrize("kind", ["grad/", "grad"])
def test_a_detached_output_is_named_and_nothing_else(name, kind):
    variant = vectors(name).variant
    for cut in [("a",), ("b",), tuple(variant.table.tasks)]:
        case = cast(vectors(name).case, np.float64)
        made = dict(compute(replace(variant, detached=cut), case))
        given = {key: y for key, y in outputs(name, made).items()
                 if key.startswith(("tower", kind))}
        fault, = oracle.check(vectors(name), given).faults
        assert fault.names == ("output-detached",)
        assert fault.detail.endswith(f"(of {', '.join(cut)})")


def test_rounding_of_a_gradient_that_is_none_speaks_against_nothing():
    """Before a normalisation over the batch the gradient of a bias is rounding alone."""
    given = made("deep ple", ["tower-shared", "tower-normalised"])
    found = oracle.check(vectors("deep ple"), given).faults
    assert {fault.names for fault in found} == {("tower-shared",), ("tower-normalised",)}


def test_a_gradient_seen_at_one_reader_only_is_not_judged():
    bundle, given = vectors("ple"), right()
    start = oracle.check(bundle, given).start
    given["grad/level1/a"] = start.contributions("grad", "level2/a/experts")["level1/a"]
    report = oracle.check(bundle, given)
    assert report.verdict == "passed" and report.judge.partial == ("grad/level1/a",)
    assert "through some readers of a tensor only, not judged: grad/level1/a" in str(report)


def test_five_faults_of_a_large_model_are_found_and_all_are_unknown():
    given = right("deep ple")
    wrong = ["level1/a/experts", "level2/b/gate/logits", "tower/c", "loss[b]",
             "grad/level3/c/experts/layer1/weight"]
    rng = np.random.default_rng(0)
    for name in wrong:
        given[name] = given[name] + rng.normal(size=given[name].shape)
    faults = oracle.check(vectors("deep ple"), given).faults
    assert [fault.tensor for fault in faults] == wrong
    assert not any(fault.names for fault in faults)


def unknown(name):
    """A candidate whose gates are normalised over the layer, which the catalogue does not have."""
    variant = vectors(name).variant
    table = with_rows(variant.table, lambda row: deviant_gate(row, normalise="layer")
                      if isinstance(row, Gate) else row)
    return dict(compute(replace(variant, table=table), cast(vectors(name).case, np.float64)))


@pytest.mark.parametrize("name", ["ple", "cgc"])
def test_adam_is_not_blamed_for_the_gradients_of_an_unknown_model(name):
    faults = oracle.check(vectors(name), unknown(name)).faults
    gates = [row.name for row in vectors(name).model.table.rows if isinstance(row, Gate)]
    assert [fault.row for fault in faults] == gates


def test_a_search_that_ends_early_says_so(monkeypatch):
    monkeypatch.setattr("npple.oracle.faults.TRIALS", 0)
    assert "the search ended before" in str(oracle.check(vectors("cgc"), unknown("cgc")))


def test_a_search_keeps_few_of_the_runs_with_roundings(monkeypatch):
    """In float32 each variant that is tried is run with them; of all, that was gigabytes."""
    monkeypatch.setattr("npple.oracle.faults.COMBINATIONS", 5)
    model = npple.mmoe(4, {"a": "binary"}, experts=3, expert_units=(5,), tower_units=(3,))
    vectors = oracle.make_vectors(model)
    y = vectors.expected["tower/a"]
    noise = np.random.default_rng(0).uniform(0.5, 2, y.shape)
    report = oracle.check(vectors, {"tower/a": (y * noise).astype(np.float32)})
    tracemalloc.start()
    search = report.search
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert search.trials > 100 and peak < 80e6


def test_what_stood_behind_a_fault_that_has_a_name_later_is_looked_at_again():
    """A clipped loss hides that a task's loss is divided by another number."""
    names = ["loss-batch-mean", "tower-normalised", "mean-for-sum", "loss-clipped",
             "tower-linear-hidden"]
    found = oracle.check(vectors("cgc"), made("cgc", names)).faults
    assert sorted(fault.names for fault in found) == sorted((name,) for name in names)


@pytest.mark.parametrize("name, names", [("cgc", ("loss-batch-mean", "mean-for-sum")),
                                         ("mmoe", ("loss-mean-over-tasks", "weights-twice"))])
def test_a_number_that_fits_some_tensors_by_chance_waits_for_two_that_explain_all(name, names):
    faults = oracle.check(vectors(name), outputs(name, made(name, names))).faults
    assert [fault.names for fault in faults] == [(each,) for each in names]


@pytest.mark.parametrize("name", ["stop-selector", "gate-temperature", "gate-top-k", "shared-first",
                                  "experts-permuted", "selector-input"])
def test_what_borrows_its_parameters_deviates_as_others_do(name):
    found = oracle.check(vectors("ple"), made("ple", ["gate-shared", name])).faults
    assert {each for fault in found for each in fault.names} >= {"gate-shared"}
    assert any(name in fault.names for fault in found) and all(fault.names for fault in found)


ALIKE = {"a": "binary", "b": "binary", "c": "regression"}  # towers of one shape


def taking_turns(model, rows):
    """Vectors, and a candidate in which each of some rows runs with the next one's parameters."""
    made, following = oracle.make_vectors(model), dict(zip(rows, (*rows[1:], rows[0])))

    def lender(name):
        row, layer, rest = name.partition("/layer")
        return following.get(row, row) + layer + rest if row in following else name

    params = {name: made.params[lender(name)] for name in made.params}
    found = compute(made.variant, replace(cast(made.case, np.float64), params=params))
    given = {}
    for name, y in found:
        kind, _, rest = name.partition("/")
        given[f"{kind}/{lender(rest)}" if rest in params else name] = y
    return made, {name: y for name, y in given.items() if name in made.expected}


@pytest.mark.parametrize("level, rows, name", [
    (1, ("tower/a", "tower/b"), "tower-shared"),
    (2, ("tower/a", "tower/b", "tower/c"), "tower-shared"),
    (1, ("level1/a/gate", "level1/b/gate"), "gate-shared"),
    (2, ("level1/c/gate", "level1/b/gate", "level1/a/gate"), "gate-shared")])
@pytest.mark.parametrize("all_of_it", [True, False])
def test_rows_that_take_turns_with_their_parameters_are_each_named(level, rows, name, all_of_it):
    """By outputs and gradients alone, too."""
    made, given = taking_turns(npple.ple(3, ALIKE, levels=level, task_experts=2, shared_experts=1,
                                         expert_units=(3,), tower_units=(2,)), rows)
    if not all_of_it:
        given = {key: y for key, y in given.items() if key in made.model.table.row and
                 key.startswith("tower") or key.startswith("grad/") and key[5:] in made.params}
    faults = oracle.check(made, given).faults
    assert [fault.names for fault in faults] == [(name,)] * len(rows)
    if all_of_it:
        assert {fault.row for fault in faults} == {row.removesuffix("/gate") for row in rows}
