"""The PyTorch blocks of docs/checking-gradients.md: an autograd function that lacks a term."""

import re
from pathlib import Path

import numpy as np
import pytest

from npple.testing import assert_gradients

torch = pytest.importorskip("torch")
PAGE = (Path(__file__).parents[2] / "docs" / "checking-gradients.md").read_text(encoding="utf-8")
SWISH, ASSERTED = (block for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
                   if "Swish" in block or "assert_gradients" in block)
POINT = {"z": np.random.default_rng(0).normal(size=(4, 3))}


def run(text, **names):
    exec(text + ASSERTED, names | {"z": POINT["z"]})


def test_the_missing_term_is_found():
    with pytest.raises(AssertionError, match="FAILED"):
        run(SWISH)


def test_with_the_term_it_passes():
    run(SWISH.replace("(s + z * s)", "(s + z * s * (1 - s))"))


def test_what_takes_complex_numbers_is_checked_by_complex_steps():
    def loss(z):
        return (torch.tanh(z) ** 2).sum()

    def grad(v):
        z = torch.tensor(v["z"], requires_grad=True)
        loss(z).backward()
        return {"z": z.grad}

    report = assert_gradients(lambda v: loss(torch.as_tensor(v["z"])), grad, POINT)
    assert (report.method, report.tolerance) == ("complex-step", 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coarse_types_are_told_how_to_turn_float64_on(dtype):
    def f(v):
        return (torch.as_tensor(v["z"].real).to(dtype) ** 2).sum()

    with pytest.raises(Exception, match="torch.float64"):
        assert_gradients(f, lambda v: {"z": 2 * v["z"]}, POINT)
