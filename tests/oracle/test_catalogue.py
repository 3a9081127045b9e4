"""Every deviation computes what it did: forms, the first tensor that differs, sums, as stored.

`python tests/oracle/test_catalogue.py` writes the numbers anew, for a deviation that was changed on
purpose; tests/peers/test_deviations.py compares them with independent programs.
"""

import functools
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

import npple
from npple.core.passes import backward, forward
from npple.oracle.changes import level_off_by_one, one_for_two, top_gates
from npple.oracle.deviations import BY_NAME, DEVIATIONS, complete, deviate
from npple.oracle.flow import compute
from npple.oracle.telling import SHARE, _hidden, _own
from npple.oracle.variant import Variant, cast
from npple.oracle.vectors import ADAM
from npple.routing import Gate, Stitch
from npple.verify.cases import random_case

STORED = Path(__file__).with_name("catalogue.json")
TWO = {"a": "binary", "b": "regression"}
MODELS = {
    "ple": lambda: npple.ple(2, TWO, levels=2, task_experts=3, shared_experts=2,
                             expert_units=(2,), tower_units=(2,)),
    "cgc": lambda: npple.cgc({"x": "numeric", "city": (4, 2), "site": (4, 2)},
                             TWO | {"c": "binary", "d": "multiclass:3"}, task_experts=2,
                             shared_experts=2, expert_units=(3, 3), tower_units=()),
    "cross_stitch": lambda: npple.cross_stitch(3, TWO | {"c": "binary"}, levels=2,
                                               expert_units=(3,), tower_units=()),
    "ml_mmoe": lambda: npple.ml_mmoe(3, TWO, levels=3, experts=(3, 2, 3), expert_units=(3,),
                                     tower_units=())}
ROWS = 4


@functools.cache
def start(model):
    """The paper's variant and a case, with a decay, a clip and rows outside a sample space."""
    made = MODELS[model]()
    case = random_case(made, 1, ROWS)
    masks = {"b": np.array([True, False, True, True])}
    case = case.__class__(**vars(case) | {"masks": masks})
    return Variant(made.table, ADAM), cast(case, np.float64)


def catalogue():
    """Made anew in each process: a fork has what was made at the import, before its mutant."""
    return _made(os.getpid())


@functools.cache
def _made(process):
    spec = importlib.util.find_spec("npple.oracle.deviations")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BY_NAME


def where(name):
    """The models on which a deviation is tried."""
    return [model for model, only in {"ple": "", "cgc": "", "cross_stitch": "stitch",
                                      "ml_mmoe": "selector-below"}.items()
            if only in name and not (model == "cgc" and name.startswith("adam"))]


def own_numbers(name, variant):
    own = {f"params/{what}/{task}": np.array(SHARE) for task in variant.table.tasks
           for what in ("share", "log_variance")}
    return own | (_hidden(variant) if name == "gate-hidden" else {})


def numbers(tensors):
    """The sum of all entries, each with a weight of its own, and that of their sizes."""
    total = size = 0.0
    for i, y in enumerate(tensors.values()):
        y = np.asarray(y, np.float64).ravel()
        total += float(y @ np.sin(i + np.arange(1, y.size + 1)))
        size += float(np.abs(y).sum())
    return total, size


@functools.cache
def paper(model):
    return dict(compute(*start(model)))


def forms(name, model):
    """[detail, first tensor that differs, sums] of each form of a deviation."""
    variant, case = start(model)
    own, found = own_numbers(name, variant), []
    for form, detail in deviate(catalogue()[name], variant, own):
        made = complete(form, case, own | _own(form, case.params))
        assert made is not None
        wanted = {"grad/"} if form.adam == variant.adam else None  # what Adam makes is slow
        tensors = dict(compute(*made, wanted))
        first = next((key for key, y in tensors.items() if paper(model).get(key) is None
                      or y.shape != paper(model)[key].shape
                      or np.abs(y - paper(model)[key]).max() > 1e-9), None)
        found.append([detail, first, *numbers(tensors)])
    return found


@pytest.mark.parametrize("name", [deviation.name for deviation in DEVIATIONS])
def test_a_deviation_computes_what_it_did(name):
    stored = json.loads(STORED.read_text(encoding="utf-8"))[name]
    for model in where(name):
        found = forms(name, model)
        assert [form[:2] for form in found] == [form[:2] for form in stored[model]]
        for form, before in zip(found, stored[model], strict=True):
            assert form[2:] == pytest.approx(before[2:], abs=1e-9 * before[3])


@pytest.mark.parametrize("name, kind", [("gate-shared", Gate), ("stitch-shared", Stitch)])
def test_what_borrows_does_so_whenever_it_is_made(name, kind):
    for model in where(name):
        variant, _ = start(model)
        assert one_for_two(kind)(variant, {}) == BY_NAME[name].variants(variant, {})


@pytest.mark.parametrize("name", ["gate-on-experts", "gate-by-unit"])
def test_gates_of_another_making_have_hidden_layers_and_take_copies_of_parameters(name):
    model = npple.cgc(3, TWO, task_experts=1, shared_experts=2, expert_units=(4,), tower_units=(),
                      gate_units=(2,), gate_bias=True)
    rng = np.random.default_rng(0)
    x, starts = rng.normal(size=(5, 3)), {f"tower/{task}": rng.normal(size=5) for task in TWO}
    for variant, _ in catalogue()[name].variants(Variant(model.table, ADAM), {}):
        params = {key: rng.normal(size=(2, *shape)) for key, shape in variant.table.shapes.items()}
        assert "level1/a/gate/layer2/bias" in params
        together = forward(variant.table, params, x)
        twice = {key: np.stack([dy, dy]) for key, dy in starts.items()}
        grads = backward(together, twice)
        for at in range(2):
            alone = forward(variant.table, {key: p[at] for key, p in params.items()}, x)
            assert "level1/a/gate/layer1" in alone.keys() == together.keys()
            assert alone["level1/a/gate/logits"].shape == alone["level1/a/gate/weights"].shape
            close({key: y[at] for key, y in together.items() if key != "input"}, alone)
            close({key: g[at] for key, g in grads.items()}, backward(alone, starts))


def close(found, wanted):
    for key, y in found.items():
        assert y.shape == wanted[key].shape
        np.testing.assert_allclose(y, wanted[key], rtol=1e-11, atol=1e-11)


# Numbers of the candidate's own -------------------------------------------------------------------

def biased():
    """A variant whose gates have biases, a case without them, biases, and the logits they give."""
    model = npple.mmoe(3, TWO, experts=2, expert_units=(4,), tower_units=())
    case = cast(random_case(model, 1, 5), np.float64)
    (variant, _), *_ = BY_NAME["gate-bias"].variants(Variant(model.table, ADAM), {})
    biases = {f"level1/{task}/gate/layer1/bias": np.array([0.5, -1.0]) * sign
              for task, sign in (("a", 1), ("b", -2))}
    made = complete(variant, case, {f"params/{name}": b for name, b in biases.items()})
    logits = {name: y for name, y in compute(*made) if name.endswith("/logits")}
    return variant, case, biases, logits


def test_biases_of_gates_are_found_from_the_logits():
    variant, case, biases, logits = biased()
    _, made = complete(variant, case, logits)
    for name, bias in biases.items():
        np.testing.assert_allclose(made.params[name], bias, rtol=1e-12)
    assert made.params.keys() == case.params.keys() | biases.keys()
    assert complete(variant, case, {}) is None


def test_logits_of_another_width_and_of_a_single_row_give_no_bias():
    variant, case, _, logits = biased()
    assert complete(variant, case, {name: y[:, :1] for name, y in logits.items()}) is None
    one = case.__class__(**vars(case) | {"x": case.x[:1]})
    assert complete(variant, one, {name: y[:1] for name, y in logits.items()}) is None


def test_a_bias_that_was_given_in_another_shape_is_not_found_from_the_logits():
    variant, case, biases, logits = biased()
    wrong = {f"params/{next(iter(biases))}": np.zeros(3)}
    assert complete(variant, case, logits | wrong) is None


def test_a_bias_that_is_no_gates_is_not_looked_for():
    model = npple.mmoe(3, TWO, experts=2)
    variant, case = Variant(model.table, ADAM), cast(random_case(model, 1, 5), np.float64)
    fewer = {name: p for name, p in case.params.items() if name != "tower/a/layer1/bias"}
    assert complete(variant, case.__class__(**vars(case) | {"params": fewer}), {}) is None


if __name__ == "__main__":
    STORED.write_text(json.dumps({each.name: {model: forms(each.name, model)
                                              for model in where(each.name)}
                                  for each in DEVIATIONS}, indent=1) + "\n", encoding="utf-8")


def test_gates_that_keep_all_they_have_are_the_papers():
    model = npple.mmoe(3, TWO, experts=3, expert_units=(2,), tower_units=())
    assert top_gates(Variant(model.table, ADAM), 3) is None
    assert top_gates(Variant(model.table, ADAM), 2) is not None


def test_a_level_off_by_one_reads_the_one_below_and_not_the_input():
    model = npple.ple(4, TWO, levels=3, expert_units=(4,), tower_units=())
    (variant, _), = level_off_by_one(Variant(model.table, ADAM), {})
    assert variant.table.row["level3/a/experts"].reads == "level1/a"
    assert variant.table.row["level2/a/experts"].reads == "input"
