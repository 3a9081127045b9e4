"""Every citation of an equation, section, figure, table or algorithm, held to one list.

`citations.json` says for each paper what its numbers stand for, from the papers' own texts, and
for each file which of them it cites how often. So a number that does not exist, or one that was
changed, fails; whoever adds a citation looks up what the number stands for.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIST = json.loads((ROOT / "tests" / "citations.json").read_text(encoding="utf-8"))
PAPERS = {  # what a paper is called where it is cited
    "PLE": r"PLE|CGC|Tang et al|\bpaper\b", "MMoE": r"MMoE|Multi-gate|Ma et al\., KDD",
    "cross-stitch": r"[Cc]ross-stitch|Misra", "SNR": r"SNR|Ma et al\., AAAI",
    "sluice": r"[Ss]luice|Ruder", "hard concrete": r"Louizos", "Adam": r"Adam\b|Kingma",
    "AdamW": r"AdamW|Loshchilov", "Glorot": r"Glorot"}
NUMBER = r"\d+(?:\.\d+)*[a-i]?\b"
CITED = re.compile(rf"\b(equation|section|figure|table|algorithm)s?\s+({NUMBER}(?:(?:,\s+|\s+and\s+"
                   rf"|,\s+and\s+|\s+to\s+){NUMBER})*)", re.IGNORECASE)
NAMED = re.compile("|".join(f"(?P<p{i}>{alias})" for i, alias in enumerate(PAPERS.values())))


def citations(text):
    """How often a text cites what: "PLE equation 9"."""
    found = Counter()
    for match in CITED.finditer(text):
        for number in numbers(match[2]):
            found[f"{paper_before(text, match)} {match[1].lower()} {number}"] += 1
    return found


def numbers(listed):
    """`2, 3 and 6` -> 2, 3, 6; `5 to 7` -> 5, 6, 7."""
    if " to " in listed:
        first, last = map(int, re.split(r"\s+to\s+", listed))
        return [str(number) for number in range(first, last + 1)]
    return re.findall(NUMBER, listed)


def paper_before(text, match):
    """The paper named last before a citation, in its line and the one above.

    In a row of a table in its cell, or else in the heading. PLE is the paper otherwise.
    """
    *lines, last = text[:match.start()].split("\n")
    heading = next((line for line in reversed(lines) if line.startswith("#")), "")
    above = heading if last.startswith("|") else "".join(lines[-1:])
    named = list(NAMED.finditer(f"{above}\n{last}"))
    return list(PAPERS)[int(named[-1].lastgroup[1:])] if named else "PLE"


def files():
    """All that may cite: code, tests and pages; the reference repeats what the code cites."""
    found = [ROOT / "README.md"]
    for folder, kinds in (("npple", ("py",)), ("tests", ("py",)), ("docs", ("py", "md"))):
        found += [path for kind in kinds for path in (ROOT / folder).rglob(f"*.{kind}")]
    made = ROOT / "docs/reference"
    return sorted(path for path in found
                  if path != Path(__file__).resolve() and made not in path.parents)


@pytest.fixture(scope="module")
def cited():
    """File -> what it cites how often."""
    found = {path.relative_to(ROOT).as_posix(): citations(path.read_text(encoding="utf-8"))
             for path in files()}
    return {file: dict(items) for file, items in found.items() if items}


def test_every_number_cited_stands_for_something_in_its_paper(cited):
    known = {f"{paper} {item}" for paper, items in LIST["papers"].items() for item in items}
    unknown = {f"{file}: {item}" for file, items in cited.items() for item in items} - {
        f"{file}: {item}" for file, items in cited.items() for item in items if item in known}
    assert not unknown


def test_every_citation_is_on_the_list_and_nothing_else(cited):
    for file in sorted(cited.keys() | LIST["cited"].keys()):
        assert cited.get(file, {}) == LIST["cited"].get(file, {}), (
            f"{file}: look up what the numbers stand for in citations.json, then list them there")


@pytest.mark.parametrize("text, found", [
    ("the mean (PLE, equation 9)", {"PLE equation 9": 1}),
    ("Ma et al., KDD 2018, equations 2 to 4", {f"MMoE equation {n}": 1 for n in (2, 3, 4)}),
    ("(PLE paper, equations 2, 3 and 6)", {f"PLE equation {n}": 1 for n in (2, 3, 6)}),
    ("Adam (Kingma & Ba,\nAlgorithm 1)", {"Adam algorithm 1": 1}),
    ("PLE paper, section 5.1.2 and figure 8", {"PLE section 5.1.2": 1, "PLE figure 8": 1}),
    ("figures 1h and 8 of the paper", {"PLE figure 1h": 1, "PLE figure 8": 1})])
def test_citations_are_found_in_their_forms(text, found):
    assert citations(text) == found


@pytest.mark.parametrize("file", ["npple/core/losses.py", "docs/forward.md",
                                  "tests/test_architectures.py"])
def test_a_number_changed_by_one_is_found(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    match = CITED.search(text)
    last = re.search(r"(\d+)[a-i]?$", match[2])
    place = match.start(2) + last.start(1)
    changed = f"{text[:place]}{int(last[1]) + 1}{text[place + len(last[1]):]}"
    assert citations(changed) != LIST["cited"][file] == citations(text)
