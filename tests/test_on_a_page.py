"""PLE on a page is npple's PLE: two programs, written apart, give the same numbers to rounding."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npple

DOCS = Path(__file__).parent.parent / "docs"
_spec = importlib.util.spec_from_file_location("make", DOCS / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

TASKS = ("vtr", "vcr", "shr", "cmr")
ADAM = {"rate": 0.01, "epsilon": 1e-2}  # a large epsilon: rounding stays rounding in every step


def source():
    """The first block of Python on the page."""
    text = (DOCS / "on-a-page.md").read_text(encoding="utf-8")
    return next(block.text for block in make.blocks(text) if block.info == "python")


def program(code):
    """The functions that the code of the page defines."""
    names = {}
    exec(code, names)
    return SimpleNamespace(**names)


PAGE = program(source())


# What is drawn ----------------------------------------------------------------------------------

counts = st.integers(1, 3)
units = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@st.composite
def problems(draw):
    """A model, parameters, and a batch of which any task may have no row."""
    names = TASKS[:draw(st.integers(1, len(TASKS)))]
    tasks = {task: draw(st.sampled_from(["binary", "regression"])) for task in names}
    levels, inputs, batch = draw(counts), draw(st.integers(1, 6)), draw(st.integers(1, 8))
    model = npple.ple(
        inputs=inputs, tasks=tasks, levels=levels,
        task_experts=[{task: draw(counts) for task in tasks} for _ in range(levels)],
        shared_experts=[draw(counts) for _ in range(levels)],
        expert_units=[draw(units) for _ in range(levels)],
        tower_units=draw(st.lists(st.integers(1, 4), max_size=2)))
    full = draw(st.tuples(*[st.sampled_from([0, 0.5, 1])] * len(tasks)))
    weights = {task: draw(st.sampled_from([0.0, 0.3, 1.0, 2.5])) for task in tasks}
    return problem(model, batch, dict(zip(tasks, full, strict=True)), weights,
                   draw(st.integers(0, 2**32 - 1)))


def problem(model, batch, full, weights, seed):
    """Numbers for a model, so small that no gate and no sigmoid rounds to 1; no bias is 0."""
    rng = np.random.default_rng(seed)
    draws = {"binary": lambda: rng.integers(0, 2, batch) * 1.0,
             "regression": lambda: rng.normal(size=batch)}
    return SimpleNamespace(
        model=model, tasks=model.tasks, x=rng.normal(size=(batch, model.table.inputs)),
        params={name: rng.normal(scale=0.5, size=shape) for name, shape in model.shapes.items()},
        targets={task: draws[kind]() for task, kind in model.tasks.items()},
        masks={task: rng.random(batch) < full[task] for task in model.tasks}, weights=weights)


def wide():
    """One problem in which every line of the page has an effect."""
    tasks = {"vtr": "binary", "vcr": "regression", "shr": "binary"}
    model = npple.ple(inputs=5, tasks=tasks, levels=3, task_experts=[{"vtr": 1, "vcr": 2, "shr": 3}]
                      * 3, shared_experts=[2, 1, 3], expert_units=(6, 5), tower_units=(4,))
    return problem(model, 20, dict.fromkeys(tasks, 0.6), {"vtr": 1.0, "vcr": 0.5, "shr": 2.0}, 0)


# The comparison ---------------------------------------------------------------------------------

def loss_and_grads(page, p, params):
    outputs, cache = page.forward(params, p.tasks, p.x)
    loss, dz = page.joint_loss(p.tasks, outputs, p.targets, p.masks, p.weights)
    return loss, page.backward(params, dz, cache)


def compare(page, p):
    """Raise AssertionError where the page and npple differ by more than rounding."""
    outputs, _ = page.forward(p.params, p.tasks, p.x)
    same(outputs, p.model.forward(p.params, p.x).outputs)
    ours, m, v = dict(p.params), {}, {}
    theirs, optimizer = p.params, npple.Adam(**ADAM)
    state = optimizer.init(theirs)
    for t in (1, 2, 3):
        loss, grads = loss_and_grads(page, p, ours)
        expected_loss, expected = p.model.loss_and_grads(theirs, p.x, p.targets, p.masks,
                                                         p.weights)
        same({"loss": loss}, {"loss": expected_loss})
        same(grads, expected)
        page.adam(ours, grads, m, v, t, **ADAM)
        theirs, state = optimizer.step(theirs, expected, state)
    same(ours, theirs)


def same(ours, theirs):
    """Equal names and shapes, and values to 1e-12 of each tensor's largest."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert np.shape(ours[name]) == np.shape(value), name
        off = np.abs(ours[name] - value).max()
        assert off <= 1e-12 * np.abs(value).max(), f"{name}: {off}"


@settings(deadline=None)
@given(problems())
def test_the_page_and_npple_give_the_same_outputs_loss_gradients_and_steps(p):
    compare(PAGE, p)


@pytest.mark.parametrize(("right", "wrong"), [
    ("w * (dw - (w * dw).sum(axis=-1, keepdims=True))", "w * (1 - w) * dw"),
    ("dexperts[part] += dE[:n]", "dexperts[part] = dE[:n]"),
    ("dx[name] += da @ params[gate].T", "pass"),
    ("dx[name] += mlp_backward", "dx[name] = mlp_backward"),
    ("np.where(mask, drows, 0)", "drows"),
    ("max(mask.sum(), 1)", "len(mask)"),
    ("(*tasks, \"shared\") if name == \"shared\"", "(\"shared\", *tasks) if name == \"shared\""),
    ("on = (z > 0) | output", "on = z > 0"),
    ("v[name] / (1 - beta2 ** t)", "v[name]"),
    ("(1 - beta2 ** t)) + epsilon", "(1 - beta2 ** t) + epsilon)"),
])
def test_a_page_that_is_wrong_in_one_place_is_not_the_same(right, wrong):
    code = source()
    assert code.count(right) == 1
    compare(PAGE, wide())
    with pytest.raises(AssertionError):
        compare(program(code.replace(right, wrong)), wide())


# A witness --------------------------------------------------------------------------------------

def test_the_page_stands_alone():
    """It imports NumPy alone, and has no classes and about 80 lines."""
    lines = [line for line in source().splitlines() if line.strip()]
    assert [line for line in lines if "import" in line] == ["import numpy as np"]
    assert not any(line.startswith("class") for line in lines) and len(lines) <= 80


def test_what_the_next_page_replaces_stands_on_the_page():
    blocks = make.blocks((DOCS / "from-the-page-to-the-core.md").read_text(encoding="utf-8"))
    page = (DOCS / "on-a-page.md").read_text(encoding="utf-8")
    quoted = [block.text for block in blocks if block.info == "text"]
    assert quoted and all(text in page for text in quoted)
