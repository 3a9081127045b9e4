"""A damaged file is refused, or loads what was saved: nothing between."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from damage import DAMAGES
from runner import parts
from targets import bundle, checkpoint

import npple
from npple import oracle
from npple.learn.training import Run

FILES = {"checkpoint": (checkpoint, Run.load), "vectors": (bundle, oracle.load)}


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


def tally(kind, path, copies, seed=0):
    """How each kind of damage ended, for so many copies of a file."""
    make, load = FILES[kind]
    content = make()
    path.write_bytes(content)
    whole, counts = load(path), Counter()
    for index in range(copies):
        damage = DAMAGES[index % len(DAMAGES)]
        damaged = damage(Random(f"{seed}:{index}"), content)
        try:
            counts[damage.__name__, outcome(load, path, damaged, whole)] += 1
        except BaseException as error:
            raise AssertionError(f"copy {index} of a {kind} ({damage.__name__})") from error
    return counts


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused_or_loads_what_was_saved(kind, tmp_path):
    counts = tally(kind, tmp_path / "damaged.npz", 20 * len(DAMAGES))
    for damage in ("swap", "rename", "reorder", "drop_or_repeat", "pickled", "claim"):
        assert counts[damage, "refused"] == 20, counts


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", FILES)
def test_many_damaged_files(kind, tmp_path):
    counts = tally(kind, tmp_path / "damaged.npz", 10_000, seed=1)
    print(f"\n{counts.total():,} damaged copies of a {kind}")
    for (damage, ended), count in sorted(counts.items()):
        print(f"{count:>6,}  {damage}: {ended}")
