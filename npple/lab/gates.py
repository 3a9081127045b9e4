"""How gates use experts: figure 8 of PLE, and collapse and entropy over training."""

from collections.abc import Mapping, Sequence
from typing import Any

from npple.lab.becoming import (CLOSED, FAMILIES, BecomingSettings, panels_of, trained)
from npple.lab.finding import Experiment, Found, Panel
from npple.lab.gains import estimate

FACTS = {"smallest": "smallest mean weight", "least used": "weight of the least used expert",
         "entropy": "entropy of the gates", "distance": "distance of the tasks' gates"}


def measure(given: BecomingSettings, **where: Any) -> Found:
    """The trainings of `mmoe-becomes-ple` from scratch, and what they say.

    Parameters
    ----------
    given : npple.lab.becoming.BecomingSettings
    **where
        For `npple.lab.trials.run_trials`.

    Returns
    -------
    npple.lab.finding.Found
    """
    return found_of(trained(given, scratch=True, **where))


def found_of(results: Sequence[Mapping[str, Any]]) -> Found:
    """The table and the parts of the claim.

    Parameters
    ----------
    results : sequence of dict
        From `npple.lab.becoming.trained`.

    Returns
    -------
    npple.lab.finding.Found
    """
    table: dict[str, dict[str, Any]] = {}
    parts, bars, lines = list[bool](), list[Panel](), list[Panel]()
    for family, reference in FAMILIES.items():
        found = [result["runs"] for result in results if result["data"] == family]
        for name in found[0]:
            table[name] = {f"{fact}{when}": estimate([runs[name][fact][at] for runs in found])
                           for fact in FACTS for when, at in ((" at start", 0), ("", -1))}
            if name != reference:
                lead = estimate([runs[reference]["distance"][-1] - runs[name]["distance"][-1]
                                 for runs in found])
                table[name]["nearer than in PLE"] = lead
                parts += [all(runs[name]["smallest"][-1] > CLOSED for runs in found),
                          bool(lead and lead.direction > 0)]
        plain = [name for name in found[0] if "," not in name]
        bars += [Panel(f"{name}, first seed", "weight", bars=found[0][name]["utilization"],
                       across="gate")
                 for name in plain]
        lines += panels_of(found, family, plain, {
            fact: FACTS[fact] for fact in ("least used", "entropy")})
    collapsed = [name for name, row in table.items() if row["least used"].mean < CLOSED]
    return Found(table, parts, f"At the end of training an expert has a mean weight below "
                 f"{CLOSED:g} in all gates in: {', '.join(collapsed) or 'none'}.",
                 results, bars + lines)


EXPERIMENT = Experiment(
    "utilization",
    "Gates of MMoE and ML-MMoE use every expert and differ little between the tasks; those of CGC "
    "and PLE differ much (PLE, section 5.3 and figure 8)",
    BecomingSettings(20_000, 8, 3), BecomingSettings(60_000, 20, 5), measure)
