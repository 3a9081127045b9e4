"""Sequences of commands in one folder, killed, damaged and at once: nothing but what is allowed.

A few here; many with `pytest -m fuzz tests/fuzz/test_sequences.py --fuzz-sequences 2000 -s`, which
prints how the steps ended.
"""

import contextlib
import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sequences import Sequence

from npple import archive
from npple.cli import predict, train
from npple.errors import FileError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@contextlib.contextmanager
def in_place(path, new):
    """Files are written where they will stand."""
    with open(path, "wb") as file:
        yield file


BROKEN = {"files are written in place": (archive, "_complete", in_place),
          "any training is resumed": (train, "_resumed", lambda args, run, saved: saved),
          "what is read is overwritten": (predict, "check_file", lambda *args, **options: None)}


def run(sequences, number, steps, phases=(Phase.generate, Phase.shrink)):
    """So many sequences, drawn by a number."""
    Sequence.tally.clear()
    run_state_machine_as_test(seed(number)(Sequence), settings=settings(
        max_examples=sequences, stateful_step_count=steps, derandomize=False, database=None,
        phases=phases, report_multiple_bugs=False, suppress_health_check=[*HealthCheck]))
    return Sequence.tally


@pytest.mark.slow
def test_whatever_is_done_in_whatever_order_only_what_is_allowed_comes_of_it():
    assert run(6, 0, 8).total() > 30


@pytest.mark.fuzz
def test_many_sequences(pytestconfig):
    sequences, number = (pytestconfig.getoption(f"fuzz_{name}") for name in ("sequences", "seed"))
    tally = run(sequences, number, 12)
    print(f"\n{sequences:,} sequences, {tally.total():,} steps")
    for (step, ended), count in sorted(tally.items(), key=str):
        print(f"{count:>7,}  {step}: {ended}")


@pytest.mark.fuzz
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_noticed(monkeypatch, broken):
    monkeypatch.setattr(*BROKEN[broken])
    with pytest.raises((AssertionError, FileError)):  # in place: a file cut off where it was killed
        run(300, 0, 12, [Phase.generate])
