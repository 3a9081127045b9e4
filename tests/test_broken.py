"""Each promise of the trust page is held: its test fails where `tests/broken/` takes it out.

A patch names the promise and its test, and takes out what keeps it. All of them:
python -m pytest -m fuzz tests/test_broken.py
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATCHES = sorted((ROOT / "tests/broken").glob("*.patch"))
SAMPLE = ("auc-integers", "record-digest")  # quick ones
PATIENCE = 60  # seconds; a test that waits for ever fails too
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")


def heading(patch):
    """The promise and its test, a line each."""
    found = re.match(r"Promise: (.+\.)\nTest: (\S+)\n\n", patch.read_text(encoding="utf-8"))
    assert found, f"{patch.name}: expected 'Promise: ...' and 'Test: ...' in the first two lines"
    return found.groups()


def named(patches):
    return [pytest.param(patch, id=patch.stem) for patch in patches]


@needs_git
@pytest.mark.parametrize("patch", named(PATCHES))
def test_each_patch_applies_and_names_a_test_that_is_there(patch):
    _, test = heading(patch)
    path, _, function = test.partition("::")
    assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8") if function else True
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, f"make it anew: {done.stderr}"


def test_the_page_names_each_patch_and_tests_that_are_there():
    page = (ROOT / "docs/trust.md").read_text(encoding="utf-8")
    assert [patch.stem for patch in PATCHES if f", `{patch.stem}` |" not in page] == []
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > len(PATCHES)
    for path, function in named:
        assert f"def {function}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), function


def holds(patch, folder):
    """Whether the promise's test passes in a copy without what keeps the promise."""
    for name in ("npple", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(["git", "apply", patch], cwd=folder, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               heading(patch)[1]]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
                              env=os.environ | {"PYTHONPATH": str(folder)})
    except subprocess.TimeoutExpired:
        return False
    ended = done.returncode in (0, 1) or done.returncode < 0  # passed, failed, or killed
    assert ended, done.stdout + done.stderr
    return done.returncode == 0


@needs_git
@pytest.mark.parametrize("patch", named(p for p in PATCHES if p.stem in SAMPLE))
def test_a_promise_taken_out_is_missed(patch, tmp_path):
    assert not holds(patch, tmp_path)


@pytest.mark.fuzz
@needs_git
@pytest.mark.parametrize("patch", named(p for p in PATCHES if p.stem not in SAMPLE))
def test_every_promise_taken_out_is_missed(patch, tmp_path):
    assert not holds(patch, tmp_path)
