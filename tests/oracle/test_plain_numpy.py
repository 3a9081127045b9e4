"""PLE, CGC and MMoE in plain NumPy, forward and backward by hand, and five mistakes in them.

The program is that of docs/on-a-page.md, the others are edits of it.
"""

from functools import cache

import numpy as np
import pytest

import npple
from peers.written import MISTAKES, TASKS, WRITTEN
from test_on_a_page import program, source

PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32])
ONE_GROUP = (  # what makes an MMoE of it: nobody has experts of his own
    ("for name in h:  # experts[name]", 'for name in ["shared"]:  # experts[name]'),
    ('parts = (*tasks, "shared") if name == "shared" else (name, "shared")', 'parts = ["shared"]'),
    ("for name in h:\n            dx[name] += mlp_backward",
     "for name in layers:\n            dx[name] += mlp_backward"))
NO_WAY_BACK = "            dx[name] += da @ params[gate].T", "            pass"
EDITS = {  # mistake -> the edits that make it, forward and backward
    "selector": (("w = softmax(h[name] @", "w = softmax(x @"),
                 ("grads[gate] = h[name].T @", "grads[gate] = levels[0][0][name].T @"),
                 NO_WAY_BACK),
    "softmax": (("a.max(axis=-1", "a.max(axis=0"), ("e.sum(axis=-1", "e.sum(axis=0"),
                ("(w * dw).sum(axis=-1", "(w * dw).sum(axis=0")),
    "shared": (("w = softmax(h[name] @ params[gate])",
                "w = softmax(h[name] @ params[gate] * (name != 'shared'))"),
               ("            grads[gate] = ", '            if name == "shared":\n'
                '                da = 0 * da\n            grads[gate] = ')),
    "linear": (("on = (z > 0) | output", 'on = (z > 0) | output | ("experts" in name)'),),
    "stopped": (("            da = w * (", "            da = 0 * w * ("),),
}


def edited(edits):
    """The page's functions after some edits."""
    code = source()
    for old, new in edits:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return program(code)


@cache
def vectors_of(architecture):
    return npple.oracle.make_vectors(WRITTEN[architecture][0])


def judged(page, architecture, dtype, lacks="nothing"):
    """The oracle's report on outputs and gradients, joint and per task, of a program in a dtype."""
    def floats(arrays):
        return {name: array.astype(dtype) for name, array in arrays.items()}

    def candidate(case):
        params, targets = floats(case["params"]), floats(case["targets"])
        outputs, cache = page.forward(params, TASKS, case["inputs"].astype(dtype))
        given = {f"tower/{task}": z for task, z in outputs.items()}
        each = {f"grad[{task}]": {task: 1.0} for task in TASKS}
        for kind, weights in {"grad": case["weights"], **each}.items():
            _, dz = page.joint_loss(TASKS, outputs, targets, case["masks"],
                                    dict.fromkeys(TASKS, 0.0) | weights)
            given |= {f"{kind}/{name}": g for name, g in page.backward(params, dz, cache).items()
                      if lacks not in name}
        return given

    return npple.oracle.check(vectors_of(architecture), candidate, takes="case", expect="outputs")


@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype):
    report = judged(edited(ONE_GROUP if architecture == "mmoe" else ()), architecture, dtype)
    assert report.verdict == "passed" and report.precision == np.dtype(dtype).name, str(report)
    assert {f"{kind}/{name}" for kind in ("grad", *(f"grad[{task}]" for task in TASKS))
            for name in WRITTEN[architecture][0].shapes} <= {row.name for row in report.rows}


@PRECISIONS
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_located_and_named(mistake, dtype):
    report = judged(edited(EDITS[mistake]), "ple", dtype,
                    "shared/gate" if mistake == "shared" else "nothing")
    name, where = MISTAKES[mistake]
    assert report.verdict == "failed"
    assert report.diagnosis[0].names == (name,), str(report)
    assert report.first_divergence == where, str(report)
