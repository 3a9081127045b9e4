"""The command beside the table of costs in docs/conformance.md runs, and the table is its own."""

import re
from pathlib import Path

from peers import cost

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")


def test_it_prints_a_line_for_each_mistake_of_the_page(capsys):
    cost.main(["--seeds", "2", "--rows", "300", "--epochs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["ple", *cost.MISTAKES]
    table = PAGE[PAGE.index("## What mistakes cost"):PAGE.index("## Read, not run")]
    assert tuple(re.findall(r"^\| ([a-z]+-[a-z-]+) \|", table, re.M)) == cost.MISTAKES
