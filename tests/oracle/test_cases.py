"""The suite: every architecture is in it, the manifest tells the truth, flags are explained."""

import hashlib
import json

import npple
from npple import oracle
from npple.oracle import cases


def test_every_architecture_is_in_it_with_every_case(monkeypatch):
    made, one = [], oracle.make_vectors(npple.cgc(2, {"a": "binary"}, expert_units=(2,)), batch=1)

    def record(model, *options):
        made.append(model)
        return one

    monkeypatch.setattr(cases, "drawn", record)
    notes = [vectors.notes for vectors in oracle.suite()]
    assert {note["architecture"] for note in notes} == set(npple.ARCHITECTURES)
    everywhere = [name for name, recipe in cases.CASES.items() if len(recipe.only) > 1]
    assert len(notes) == len(npple.ARCHITECTURES) * len(everywhere) + 1  # the optimizer's
    assert len({note["id"] for note in notes}) == len(notes) == len(made)


def test_the_manifest_describes_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "ARCHITECTURES", {"ple": npple.ple, "sluice": npple.sluice})
    monkeypatch.setattr(cases, "CASES", {name: cases.CASES[name]
                                         for name in ("few-tasks", "single-row")})
    returned = oracle.export_all(tmp_path / "suite", also_json=True)
    manifest = json.loads((tmp_path / "suite" / "manifest.json").read_text())
    assert manifest == returned and len(manifest["cases"]) == 4
    for case in manifest["cases"]:
        path = tmp_path / "suite" / case["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == case["sha256"]
        content = json.loads(path.with_suffix(".json").read_text())
        assert content["meta"]["notes"]["id"] == case["id"]
        vectors = oracle.load(path)
        assert vectors.notes["id"] == case["id"] and len(vectors.expected) == case["tensors"]


def test_every_flag_is_explained_with_its_source_and_used():
    used = {flag for recipe in cases.CASES.values() for flag in recipe.flags}
    assert used == set(cases.FLAGS)
    assert all(description and source for description, source in cases.FLAGS.values())


def test_the_cases_tell_numbers_apart():
    # 2 tasks with 3 experts each and 1 shared is not 3 tasks with 2 and 2
    few, many = cases.CASES["few-tasks"].options, cases.CASES["many-tasks"].options
    assert (len(few["tasks"]), few["task_experts"], few["shared_experts"]) == (2, 3, 1)
    assert (len(many["tasks"]), many["task_experts"], many["shared_experts"]) == (3, 2, 2)
