"""How the cases of the suite are made, what its manifest holds, and what tells deviations."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import cases, telling
from npple.oracle.cases import (FAR, LARGE, WIDE, Recipe, _as_drawn, _handed_over, _made,
                                _saturated, _scattered, _without_labels, export_all, suite)
from npple.oracle.deviations import BY_NAME, complete, deviate
from npple.oracle.telling import (_drawn, _hidden, _own, hides, shows, telling_cases, telling_table,
                                  tells)
from npple.oracle.variant import cast
from npple.oracle.vectors import Vectors
from npple.verify.cases import random_case

TASKS = {"a": "binary", "b": "regression"}


def tiny(builder=npple.mmoe, inputs=2, **options):
    return builder(inputs, TASKS, expert_units=(2,), tower_units=(), **options)


# How cases are made -----------------------------------------------------------------------------

def test_codes_come_again_and_again_far_apart_and_a_task_has_no_rows():
    model = npple.mmoe({"user": (WIDE, 2), "video": (WIDE, 2), "x": "numeric"},
                       {"a": "binary", "kind": "multiclass:3"}, experts=1, expert_units=(2,),
                       tower_units=())
    case = random_case(model, 0, 7)
    made = _scattered(replace(case, masks={}))
    assert made.x["user"].tolist() == [0, 7, 128, 299, 299, 0, 7]
    assert made.x["video"].tolist() == [0, 299, 299, 128, 7, 0, 299]
    np.testing.assert_array_equal(made.x["x"], case.x["x"])
    assert made.masks["a"].tolist() == [True, True, False] * 2 + [True]
    assert made.masks["kind"].tolist() == [False] * 7 and made.masks["kind"].dtype == bool
    own = np.arange(7) == 3
    assert _scattered(replace(case, masks={"a": own})).masks["a"] is own


def test_gates_and_towers_are_saturated_and_one_of_them_is_wrong():
    model = tiny(experts=2)
    before = random_case(model, 0, 6)
    case = _saturated(replace(before, masks={"a": np.ones(6, bool)}))
    trace = model.forward(case.params, case.x)
    first = before.params["level1/a/gate/layer1/weight"]
    signs = np.where(first.sum(axis=1, keepdims=True) < 0, -1, 1)
    np.testing.assert_array_equal(case.params["level1/a/gate/layer1/weight"],
                                  LARGE / 2 * signs + 4 * first)
    z = trace["tower/a"]
    top = np.argmax(np.abs(z))
    assert z[top] == pytest.approx(FAR) and case.targets["a"][top] == 0
    rest = np.delete(case.targets["a"], top)
    np.testing.assert_array_equal(rest, np.delete(before.targets["a"], top))
    np.testing.assert_array_equal(case.params["tower/b/layer1/weight"],
                                  before.params["tower/b/layer1/weight"])
    np.testing.assert_array_equal(case.targets["b"], before.targets["b"])
    assert case.masks == {} and before.targets["a"] is not case.targets["a"]


def test_twelve_gradients_get_smaller_and_the_sixth_is_zero():
    case = _handed_over(random_case(tiny(experts=1), 0, 3))
    assert [*case.gradients] == [f"{step}/{name}" for step in range(1, 13) for name in case.params]
    size = {step: np.concatenate([g.ravel() for name, g in case.gradients.items()
                                  if name.startswith(f"{step}/")]) for step in range(1, 13)}
    assert not size[6].any()
    for step in (1, 2, 3, 5, 8, 12):
        scale = 2.0 ** (1 - step // 2)
        assert 0.6 < size[step].std() / scale < 1.5
    again = _handed_over(random_case(tiny(experts=1), 0, 3))
    assert all((again.gradients[name] == g).all() for name, g in case.gradients.items())
    first = next(iter(case.gradients.values()))
    np.testing.assert_array_equal(first, 2 * np.random.default_rng(12).normal(size=first.shape))


def test_rows_without_a_label_have_no_number_and_no_class():
    case = random_case(npple.mmoe(2, TASKS | {"c": "multiclass:3"}, experts=1, expert_units=(2,),
                                  tower_units=()), 0, 3)
    mask = np.array([True, False, True])
    made = _without_labels(replace(case, masks={"a": None, "b": mask, "c": mask}))
    assert made.targets["a"] is case.targets["a"]
    assert np.isnan(made.targets["b"]).tolist() == [False, True, False]
    assert made.targets["c"].tolist() == [case.targets["c"][0], -1, case.targets["c"][2]]
    assert made.targets["b"][0] == case.targets["b"][0]


def recipe(flags=("masked",), prepare=_as_drawn, only=("mmoe", "cgc")):
    return Recipe("a purpose", flags, 3, {"inputs": 2, "tasks": TASKS, "experts": 2,
                                          "task_experts": 1, "shared_experts": 1, "levels": 2,
                                          "expert_units": (2,), "tower_units": ()}, prepare,
                  npple.Adam(rate=0.5), only)


@pytest.fixture
def quick(monkeypatch):
    """Bundles are cases with their input alone, which nothing is computed for."""
    def drawn(model, seed, rows, dtype, adam, prepare):
        case = prepare(replace(random_case(model, seed, rows), masks=dict.fromkeys(TASKS)))
        masks = {task: np.ones(rows, bool) if mask is None else mask
                 for task, mask in case.masks.items()}
        return Vectors(replace(case, masks=masks), adam, {"input": case.x}, {"input": (0.0,) * 4},
                       {"seed": seed, "batch": rows, "dtype": dtype})

    monkeypatch.setattr(cases, "drawn", drawn)


def test_a_case_takes_what_its_builder_knows_and_says_what_it_is_for(quick):
    made = _made("mmoe", "x", recipe())
    assert made.model == tiny(experts=2) and made.adam == npple.Adam(rate=0.5)
    assert made.notes == {"id": "mmoe-x", "architecture": "mmoe", "purpose": "a purpose",
                          "flags": ["masked"], "seed": 0, "batch": 3, "dtype": "float64"}
    assert len(made.inputs) == 3
    prepared = _made("mmoe", "x", recipe(prepare=lambda case: replace(case, x=case.x * 0 + 0.5)))
    assert (prepared.inputs == 0.5).all()


def test_labels_are_taken_out_where_the_flag_says_so(quick):
    def one_row_out(case):
        return replace(case, masks=case.masks | {"b": np.array([True, False, True])})

    plain = _made("mmoe", "x", recipe(prepare=one_row_out))
    without = _made("mmoe", "x", recipe(("no-number",), one_row_out))
    assert np.isfinite(plain.targets["b"]).all()
    assert np.isnan(without.targets["b"]).tolist() == [False, True, False]


@pytest.fixture
def small(monkeypatch):
    """A suite of two cases on two architectures, of which one case is of one alone."""
    monkeypatch.setattr(cases, "ARCHITECTURES", {"mmoe": npple.mmoe, "cgc": npple.cgc})
    few = {"one": recipe(), "two": recipe(only=("cgc",))}
    monkeypatch.setattr(cases, "CASES", few)
    monkeypatch.setattr(telling, "CASES", few)


def test_the_suite_is_by_architecture_and_case_or_what_is_wanted(small, monkeypatch):
    monkeypatch.setattr(cases, "_made", lambda *of: of[:2])
    assert [*suite()] == [("mmoe", "one"), ("cgc", "one"), ("cgc", "two")]
    assert [*suite({"cgc-two", "mmoe-two"})] == [("cgc", "two")]


@pytest.mark.parametrize("also_json", [False, True])
def test_the_manifest_holds_flags_and_files(quick, small, tmp_path, monkeypatch, also_json):
    monkeypatch.delitem(cases.ARCHITECTURES, "cgc")
    made = export_all(str(tmp_path / "new" / "suite"), also_json=also_json)
    folder = tmp_path / "new" / "suite"
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", *["mmoe-one.json"] * also_json, "mmoe-one.npz"]
    assert json.loads((folder / "manifest.json").read_text()) == made
    assert (folder / "manifest.json").read_text().startswith('{\n "format": "npple vectors suite",')
    assert [*made] == ["format", "version", "flags", "cases"] and made["version"] == 2
    description, source = cases.FLAGS["masked"]
    assert made["flags"]["masked"] == {"description": description, "source": source}
    first = made["cases"][0]
    path = folder / "mmoe-one.npz"
    assert [first] == made["cases"] and first == {
        "id": "mmoe-one", "architecture": "mmoe", "purpose": "a purpose", "flags": ["masked"],
        "seed": 0, "batch": 3, "dtype": "float64", "file": "mmoe-one.npz",
        "tensors": 1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_suite_may_be_written_into_a_folder_that_is_there(quick, small, tmp_path):
    assert export_all(tmp_path) == export_all(tmp_path)


# What tells deviations --------------------------------------------------------------------------

@pytest.fixture(scope="module")
def vectors():
    return oracle.make_vectors(tiny(npple.cgc, task_experts=1, shared_experts=1), batch=3)


def names_of(bundle, *prefixes, precision="float64"):
    return {name: precision for name in bundle.expected if name.startswith(prefixes)}


def test_a_variant_shows_in_what_it_changes_by_more_than_rounding(vectors):
    case = cast(vectors.case, np.float64)
    variant, _ = deviate(BY_NAME["loss-sum"], vectors.variant, {})[0]
    form = complete(variant, case, {})
    assert shows(vectors, *form, names_of(vectors, "loss"))
    assert shows(vectors, *form, names_of(vectors, "tower", "grad/"))
    assert not shows(vectors, *form, names_of(vectors, "tower", "level", "prediction"))
    assert not shows(vectors, vectors.variant, case, names_of(vectors, ""))
    assert not shows(vectors, *form, {})
    wide = replace(vectors, tolerance=dict.fromkeys(vectors.tolerance, (0.0, 0.0, 9.0, 0.0)))
    assert not shows(wide, *form, names_of(vectors, "loss", precision="float16"))
    assert shows(wide, *form, names_of(vectors, "loss", precision="float32"))


def test_a_deviation_hides_where_one_of_its_forms_could_be_there(vectors):
    outputs = names_of(vectors, "tower")
    assert hides(vectors, BY_NAME["loss-sum"], outputs)
    assert not hides(vectors, BY_NAME["gate-sigmoid"], outputs)
    assert hides(vectors, BY_NAME["gate-bias"], names_of(vectors, ""))  # a bias of zero
    assert not hides(vectors, BY_NAME["shared-mean"], {})  # it does not apply
    assert not hides(vectors, BY_NAME["loss-data-mean"], {})  # its numbers were not given


def test_a_case_tells_a_deviation_by_all_of_its_forms_or_none_applies(vectors):
    assert tells(vectors, BY_NAME["loss-sum"]) is True
    assert tells(vectors, BY_NAME["shared-mean"]) is None
    for name in ("loss-data-mean", "uncertainty-weights", "gate-bias"):
        assert tells(vectors, BY_NAME[name]) is True  # numbers of its own are drawn
    one = oracle.make_vectors(tiny(npple.cgc, task_experts=1, shared_experts=1), batch=1)
    assert tells(one, BY_NAME["loss-sum"]) is False


def test_parameters_of_its_own_are_drawn_each_by_itself(vectors):
    form, _ = deviate(BY_NAME["gate-bias"], vectors.variant, {})[0]
    own = _own(form, vectors.params)
    assert {name: p.shape for name, p in own.items()} == {
        f"params/level1/{task}/gate/layer1/bias": (2,) for task in "ab"}
    assert _own(vectors.variant, vectors.params) == {}
    first, other = own.values()
    assert not np.allclose(first, other)
    hidden = _hidden(vectors.variant)
    assert {name: p.shape for name, p in hidden.items()} == {
        f"params/level1/{task}/gate/layer{i}/weight": shape for task in "ab"
        for i, shape in ((1, (2, 4)), (2, (4, 2)))} | {
        f"params/level1/{task}/gate/layer1/bias": (4,) for task in "ab"}
    assert _drawn({"x": (2,)})["params/x"] == pytest.approx(
        np.random.default_rng(0x8CDC1683).normal(size=2))  # the CRC-32 of x


def test_what_tells_what_is_told_by_deviation_and_case(quick, small, monkeypatch):
    monkeypatch.setattr(telling, "tells", lambda vectors, deviation: (
        True if deviation.name == "loss-sum" else None))
    found = telling_cases(iter(["loss-sum", "shared-mean"]))
    assert found == {"shared-mean": {}, "loss-sum": {"mmoe-one": True, "cgc-one": True,
                                                     "cgc-two": True}}
    found["loss-sum"]["cgc-one"] = False
    assert telling_table(found) == ("             one  two\n"
                                    "shared-mean\n"
                                    "loss-sum     1/2  1/1")


def test_counts_end_where_the_name_of_their_case_ends(monkeypatch):
    monkeypatch.setattr(telling, "CASES", dict.fromkeys(["first", "second"]))
    found = {"loss-sum": {"mmoe-first": True, "mmoe-second": False, "cgc-second": True}}
    assert telling_table(found) == ("          first  second\n"
                                    "loss-sum    1/1     1/2")
