"""A damaged file is refused, or loads what was saved: nothing between."""

from collections import Counter
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from damage import DAMAGES, TEXT_DAMAGES
from runner import parts
from targets import TEMPORARY, bundle, checkpoint

import npple
from npple import oracle
from npple.lab import compare, trials
from npple.learn.training import Run

TRIAL = "trial-0123456789abcdef.json"  # by its name it is known whose result it is


def trial():
    """A stored result of a comparison."""
    cases = compare.synthetic_cases((0.5,), rows=60, inputs=3)
    folder = TEMPORARY / "trials"
    compare.compare(cases, ["ple"], seeds=(0,), out=folder, training=compare.Training(1))
    path, = folder.glob("trial-*.json")
    return trials._record(TRIAL[6:-5], trials._read(path))


def load_trial(path):
    result = trials._read(path)
    if result is None:
        raise npple.FileError(f"{path}: no result")
    return SimpleNamespace(**result)


FILES = {"checkpoint": (checkpoint, Run.load, DAMAGES, "damaged.npz"),
         "vectors": (bundle, oracle.load, DAMAGES, "damaged.npz"),
         "trial": (trial, load_trial, TEXT_DAMAGES, TRIAL)}


def same(a, b):
    """Whether two loaded files hold the same: every number, and all the rest as it prints."""
    return (all(np.array_equal(x, y) and x.dtype == y.dtype
                for x, y in zip(parts(vars(a)), parts(vars(b)), strict=True))
            and repr(vars(a)) == repr(vars(b)))


def outcome(load, path, damaged, whole):
    """What came of loading a damaged copy."""
    path.write_bytes(damaged)
    try:
        loaded = load(path)
    except npple.FileError as error:
        message = str(error)
        assert str(path) in message and len(message.splitlines()) == 1, message
        return "refused"
    assert same(loaded, whole)
    return "the same values"


def tally(kind, folder, copies, seed=0):
    """How each kind of damage ended, for so many copies of a file."""
    make, load, damages, name = FILES[kind]
    content, path = make(), folder / name
    path.write_bytes(content)
    whole, counts = load(path), Counter()
    for index in range(copies):
        damage = damages[index % len(damages)]
        damaged = damage(Random(f"{seed}:{index}"), content)
        try:
            counts[damage.__name__, outcome(load, path, damaged, whole)] += 1
        except BaseException as error:
            raise AssertionError(f"copy {index} of a {kind} ({damage.__name__})") from error
    return counts


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused_or_loads_what_was_saved(kind, tmp_path):
    damages = FILES[kind][2]
    counts = tally(kind, tmp_path, 20 * len(damages))
    for damage in {each.__name__ for each in damages} & {
            "swap", "rename", "reorder", "drop_or_repeat", "pickled", "claim", "digit",
            "digit_in_record", "version"}:
        assert counts[damage, "refused"] == 20, counts


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", FILES)
def test_many_damaged_files(kind, tmp_path):
    counts = tally(kind, tmp_path, 10_000, seed=1)
    print(f"\n{counts.total():,} damaged copies of a {kind}")
    for (damage, ended), count in sorted(counts.items()):
        print(f"{count:>6,}  {damage}: {ended}")
