"""The runners of `checkouts/` judge the files of the commit they name, and nothing else."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "checkouts"
RUNNERS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "checkout.py")


def git(path, *words):
    by = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", path, *by, *words], check=True, capture_output=True,
                          text=True).stdout.strip()


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return runpy.run_path(str(FOLDER / "checkout.py"))


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "ple.py").write_text("right = True\n")
    git(tmp_path, "add", "ple.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path, git(tmp_path, "rev-parse", "HEAD")


def test_the_files_of_the_commit_are_taken(tools, repository):
    path, commit = repository
    assert tools["verify"](path, commit[:7], ["ple.py"]) == commit


def test_files_that_were_changed_are_not(tools, repository):
    path, commit = repository
    (path / "ple.py").write_text("right = False\n")
    with pytest.raises(tools["NotRun"], match=f"ple.py: not as in {commit}; check it out"):
        tools["verify"](path, commit, ["ple.py"])


def test_nor_is_a_commit_or_a_file_that_is_not_there(tools, repository):
    path, commit = repository
    with pytest.raises(tools["NotRun"], match="rev-parse"):
        tools["verify"](path, "0" * 40, ["ple.py"])
    with pytest.raises(tools["NotRun"], match=f"cgc.py: not there; check out {commit}"):
        tools["verify"](path, commit, ["cgc.py"])


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_cannot_be_run_is_said_with_status_2(runner, tmp_path):
    done = subprocess.run([sys.executable, FOLDER / runner, tmp_path, "0" * 40],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.startswith("not run: NotRun: git rev-parse")
