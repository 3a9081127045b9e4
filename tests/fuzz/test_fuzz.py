"""Whatever it is given, npple answers rightly or refuses in one line that names the argument.

Some calls of everything here; many with `pytest -m fuzz --fuzz-calls 100000 -s`, which prints the
tally.
"""

import sys
from random import Random

import pytest
from runner import campaign, once, run, table
from targets import TARGETS

resource = pytest.importorskip("resource")  # there are alarms, too, where it is
CALLS = 8  # of each target


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder where calls may leave what they write."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_arguments_are_answered_rightly_or_refused(target):
    for index in range(CALLS):
        r = Random(f"{target}:{index}")
        _, fault = once(target, TARGETS[target][1](r), r, index)
        assert fault is None, fault


def test_the_same_number_brings_a_call_back():
    assert [run(TARGETS, 1, index)[:2] for index in range(20)] == [
        run(TARGETS, 1, index)[:2] for index in range(20)]


@pytest.mark.fuzz
def test_many_hostile_calls(pytestconfig):
    calls, seed = pytestconfig.getoption("fuzz_calls"), pytestconfig.getoption("fuzz_seed")
    tally, faults = campaign(TARGETS, seed, calls)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{table(tally)}\n{len(faults)} faults, peak memory {peak} MiB")
    print(*faults[:100], sep="\n\n", file=sys.stderr)
    assert not faults
    assert peak < 2048
