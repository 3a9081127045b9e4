"""What is installed, under which licences, and built to the same bytes each time."""

import io
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/trust.md").read_text(encoding="utf-8").partition("## What is installed")[2]
ROWS = dict(re.findall(r"^\| `([^`|]+)`[^|]*\| ([^|]+) \|$", PAGE, re.MULTILINE))
NEEDED = [re.match(r"[\w-]+", text).group() for text in tomllib.loads(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]]


def test_each_file_that_is_no_python_has_a_licence_on_the_page():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "npple").rglob("*")
             if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == {name for name in ROWS if name.startswith("npple/") and "*" not in name}


def test_each_package_that_comes_along_has_a_licence_on_the_page():
    assert NEEDED == [name for name in ROWS if not name.startswith("npple/")]


@pytest.mark.parametrize("name", NEEDED)
def test_a_package_says_no_other_licence_than_the_page(name):
    said = metadata(name)
    found = re.split(r" AND | OR | WITH |[()]", said.get("License-Expression", ""))
    assert {*filter(None, found)} <= {*ROWS[name].split(", ")}
    assert found != [""] or "License :: OSI Approved :: BSD License" in said.get_all("Classifier")


@pytest.mark.parametrize("words", [("--only", "("), ("--part", "5/4"), ("--part", "x"),
                                   ("--sample", "-3"), ("--jobs", "0"), ("--all",)])
def test_mutation_refuses_what_it_cannot_use_in_one_line(words):
    done = subprocess.run([sys.executable, ROOT / ".ci/mutation", "core", *words],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words[0] in done.stderr


def archive(times):
    """A `.tar.gz` of two files, in an order and with times and owners of its own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, time in times.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.mode = 1, time, time, 0o600
            tar.addfile(member, io.BytesIO(b"x"))
    return out.getvalue()


def test_a_source_archive_is_packed_to_the_same_bytes():
    release = ModuleType("release")
    release.__file__ = str(ROOT / ".ci/release")
    exec(SourceFileLoader("release", release.__file__).get_code("release"), vars(release))
    one, other = archive({"a": 1, "b": 2}), archive({"b": 4, "a": 3})
    assert one != other
    assert release.packed_anew(one, 9) == release.packed_anew(other, 9)
