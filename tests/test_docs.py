"""Every code block of the README and of docs/ runs, from the top of a page to its end."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_on_the_page_runs(page, tmp_path):
    # one interpreter a page: its Python blocks share names, its commands share a folder
    script = ["import os, subprocess, sys"]
    for kind, text in blocks(page):
        if kind == "python":
            script.append(text)
        elif page.name != "README.md":  # the set-up commands are what .ci/run executes
            for line in re.findall(r"^\$ npple (.*)$", text, re.MULTILINE):
                command = ["-m", "npple", *shlex.split(line)]
                script.append(f"subprocess.run([sys.executable, *{command!r}], check=True)")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", "\n".join(script)],
                          cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_console_blocks_hold_only_commands_that_are_tested(page):
    for kind, text in blocks(page):
        for line in text.splitlines() if kind == "console" else ():
            assert line.startswith("$ npple " if page.name != "README.md" else "$ "), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_to_something(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_has_two_set_up_commands():
    console = [text for kind, text in blocks(ROOT / "README.md") if kind == "console"]
    assert len(console) == 1 and len(re.findall(r"^\$ ", console[0], re.MULTILINE)) == 2
