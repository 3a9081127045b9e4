"""What an experiment on a claim of the papers found: its table, its curves, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import npple
from npple.core.base import Printed
from npple.lab.gains import Estimate
from npple.printing import aligned

VERDICTS = ("holds", "holds in part", "does not hold here", "cannot be tested here")


@dataclass(frozen=True)
class Panel:
    """A small picture: lines over the epochs, from 0, or points beside each other.

    Attributes
    ----------
    title, label : str
        Above it, and of its vertical axis.
    lines : dict of list of list of float
        Name -> seed by seed one number an epoch.
    log : bool
        Whether the axis is logarithmic.
    """

    title: str
    label: str
    lines: dict[str, list[list[float]]]
    log: bool = False


@dataclass(frozen=True, repr=False)
class Finding(Printed):
    """The outcome of `npple claims NAME`; prints as a table with its verdict.

    Attributes
    ----------
    name, claim : str
        The experiment, and what the papers claim, in our words.
    command : str
        What gives these numbers again.
    settings : dict
        What was run.
    table : dict of dict
        Row -> column -> `Estimate` over seeds or worlds, a number, a text or None.
    verdict : str
        "holds", "holds in part", "does not hold here" or "cannot be tested here".
    reason : str
        The sentence behind it.
    panels : list of Panel
        What there is to draw.
    seconds : float
        Of computing, over all trainings, also those found in a folder of results.
    version : str
        Of npple.
    """

    name: str
    claim: str
    command: str
    settings: dict[str, Any]
    table: dict[str, dict[str, Any]]
    verdict: str
    reason: str
    panels: list[Panel] = field(default_factory=list)
    seconds: float = 0.0
    version: str = npple.__version__

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON.

        Returns
        -------
        dict
        """
        return asdict(self)

    def __str__(self) -> str:
        columns = list(dict.fromkeys(column for row in self.table.values() for column in row))
        lines = [["", *columns]]
        lines += [[name, *(shown(row.get(column)) for column in columns)]
                  for name, row in self.table.items()]
        given = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return "\n".join((f"{self.claim}", f"({given}; mean ± half of the 95 % interval)",
                          aligned(lines, range(1, len(lines[0]))),
                          f"verdict: {self.verdict}. {self.reason}"))


def shown(value: Estimate | Mapping[str, Any] | float | str | None) -> str:
    """A cell of a finding's table, also of one that is stored as JSON.

    Parameters
    ----------
    value : Estimate or its dict, float, str or None

    Returns
    -------
    str
        Such as "0.1234 ± 0.0056"; empty for None.
    """
    if isinstance(value, Mapping):
        value = Estimate(**value)
    if isinstance(value, Estimate):
        half = "" if value.high is None else f" ± {value.high - value.mean:.4f}"
        return f"{value.mean:.4f}{half}"
    return f"{value:.4f}" if isinstance(value, float) else str("" if value is None else value)


def verdict(parts: Sequence[bool]) -> str:
    """What the parts of a claim, each true or not, make of the whole.

    Parameters
    ----------
    parts : sequence of bool

    Returns
    -------
    str
        One of the first three of `VERDICTS`.
    """
    return VERDICTS[0] if all(parts) else VERDICTS[1] if any(parts) else VERDICTS[2]
