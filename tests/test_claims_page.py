"""Each number of docs/claims.md is that of a stored result, each result that of a command."""

import re
import shlex
from dataclasses import replace

import pytest

import claims
from npple.cli import _parser
from npple.lab.claims import EXPERIMENTS
from npple.lab.finding import VERDICTS

PAGE = claims.PAGE.read_text("utf-8")
STORED = claims.stored()
each_result = pytest.mark.parametrize("name", STORED)
each_row = pytest.mark.parametrize("row", claims.CLAIMS, ids=lambda row: row.claim)


def test_the_page_is_what_follows_from_the_stored_results():
    assert claims.renewed(PAGE) == PAGE, "renew it: python docs/claims.py"


def test_the_page_has_at_least_25_claims_with_a_verdict_each():
    assert len({row.claim for row in claims.CLAIMS}) == len(claims.CLAIMS) >= 25
    assert {claims.verdict_of(row, STORED) for row in claims.CLAIMS} <= {*VERDICTS, claims.NOT_RUN}


@each_row
def test_no_measured_number_is_written_by_hand(row):
    assert not re.search(r"\d\.\d{2}", claims.PLACE.sub("", row.ours).replace("0.0,", ""))
    assert {*row.results()} <= claims.COMMANDS.keys()
    if row.fixed == claims.NOT_RUN:
        assert not row.ours and row.command


@each_row
def test_a_claim_names_where_it_is_made(row):
    assert re.search(r"(table|figure|section|equation) \d|YouTube8M|penalty", row.where)


@each_result
def test_a_result_says_its_command_and_its_version(name):
    found = STORED[name]
    command = claims.COMMANDS[name]
    assert re.fullmatch(re.escape(command) + r"( --quick)?( --seeds \d+)?" * ("claim" in found),
                        found["command"])
    words = shlex.split(found["command"])
    assert words[0] == "npple" and _parser().parse_args(words[1:]).command == words[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["version"]) and found["seconds"] > 0
    assert f"### {name}\n" in PAGE and found["command"] in PAGE


@each_result
def test_a_finding_is_one_of_the_settings_that_its_command_runs(name):
    if name in EXPERIMENTS:
        args = _parser().parse_args(shlex.split(STORED[name]["command"])[1:])
        settings = EXPERIMENTS[name].quick if args.quick else EXPERIMENTS[name].full
        settings = replace(settings, **{"seeds": args.seeds} if args.seeds else {})
        stored = {key: tuple(value) if isinstance(value, list) else value
                  for key, value in STORED[name]["settings"].items()}
        assert stored == vars(settings)
        assert STORED[name]["command"].startswith(f"npple claims {name}")


@each_result
def test_a_result_stands_behind_a_row(name):
    assert any(name in row.results() for row in claims.CLAIMS)


def test_a_verdict_follows_from_intervals():
    def cell(low, high):
        return {"mean": (low + high) / 2, "low": low, "high": high}
    results = {"r": {"table": {"ple": {"up": cell(1, 2), "down": cell(-2, -1),
                                       "noise": cell(-1, 1), "word": "strict",
                                       "none": 0.0, "share": 0.2}}}}
    for parts, expected in (([("up", 1), ("down", -1)], "holds"),
                            ([("up", 1), ("noise", 1)], "holds in part"),
                            ([("noise", 0), ("up", 0), ("word", "strict")], "holds"),
                            ([("none", 1), ("share", 1)], "holds in part"),
                            ([("down", 0), ("noise", -1), ("word", "no")], "does not hold here")):
        row = claims.Claim("c", "w", "p", parts=tuple(("r", "ple", *part) for part in parts))
        assert claims.verdict_of(row, results) == expected
