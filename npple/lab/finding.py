"""What an experiment on a claim of the papers found: its table, its curves, and a verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import npple
from npple.core.base import Printed
from npple.lab.gains import Estimate
from npple.printing import aligned

MARKS = 5  # in a panel, at most
VERDICTS = ("holds", "holds in part", "does not hold here", "cannot be tested here")


@dataclass(frozen=True)
class Panel:
    """A small picture: lines over the epochs, from 0; gains of two tasks; or bars of weights.

    Attributes
    ----------
    title, label : str
        Above it, and of its vertical axis.
    lines : dict of list of list of float
        Name -> seed by seed one number an epoch.
    log : bool
        Whether the axis is logarithmic.
    bars : list of dict
        From `npple.lab.inspection.utilization`.
    points : dict of list of Estimate
        Name -> what it gains in the task across, and in the one up.
    across : str
        The label of the horizontal axis.
    """

    title: str
    label: str
    lines: dict[str, list[list[float]]] = field(default_factory=dict)
    log: bool = False
    bars: list[dict[str, Any]] = field(default_factory=list)
    points: dict[str, list[Estimate]] = field(default_factory=dict)
    across: str = "epoch"


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


def gain_panels(table: Mapping[str, Mapping[str, Any]]) -> list[Panel]:
    """A panel for each part of a table, what stands before ": ": gains of its two tasks.

    Parameters
    ----------
    table : dict of dict
        As of `Finding`, also one that is stored as JSON.

    Returns
    -------
    list of Panel
        Of at most five marks each; none for a table without gains of two tasks.
    """
    parts: dict[str, dict[str, list[Estimate]]] = {}
    labels = list[str]()
    for line, row in table.items():
        gains = {column: cell for column, cell in row.items() if column.startswith("gain of ")}
        if len(gains) == 2 and all(gains.values()):
            part, _, name = line.rpartition(": ")
            labels, cells = [*gains], [cell if isinstance(cell, Estimate) else Estimate(**cell)
                                       for cell in gains.values()]
            parts.setdefault(part, {})[name] = cells
    return [Panel(part.replace(", ", "\n", 1), labels[1], points=dict(points), across=labels[0])
            for part, found in parts.items()
            for points in in_parts([*found.items()], MARKS)]


def in_parts(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """The items in as few parts as can be, as equal as can be.

    Parameters
    ----------
    items : sequence
    most : int
        As many items has a part, at most.

    Returns
    -------
    list of sequence
        At least one.
    """
    count = max(1, -(-len(items) // most))
    ends = [len(items) * part // count for part in range(count + 1)]
    return [items[start:stop] for start, stop in zip(ends, ends[1:])]


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


class Found(NamedTuple):
    """What an experiment measures: see `Finding`; `parts` are those of the claim, true or not."""

    table: dict[str, dict[str, Any]]
    parts: list[bool]
    reason: str
    results: Sequence[Mapping[str, Any]]
    panels: list[Panel] = []


@dataclass(frozen=True)
class Experiment:
    """A claim, and how it is tested.

    Attributes
    ----------
    name, claim : str
    quick, full : dataclass
        The settings of the short and of the whole form; both have `seeds`.
    measure : callable
        Settings, and keywords of `npple.lab.trials.run_trials` -> `Found`.
    """

    name: str
    claim: str
    quick: Any
    full: Any
    measure: Callable[..., Found] = field(repr=False)

    def run(self, quick: bool = False, seeds: int | None = None, **where: Any) -> Finding:
        """The experiment.

        Parameters
        ----------
        quick : bool
            Fewer rows, epochs and seeds.
        seeds : int, optional
            Another number of seeds: of worlds, where each seed has its own.
        **where
            For `npple.lab.trials.run_trials`.

        Returns
        -------
        Finding
        """
        given, command = self.quick if quick else self.full, f"npple claims {self.name}"
        if seeds is not None:
            given = replace(given, seeds=seeds)
        found = self.measure(given, **where)
        command += " --quick" * quick + (f" --seeds {seeds}" if seeds is not None else "")
        return Finding(self.name, self.claim, command, asdict(given), found.table,
                       verdict(found.parts), found.reason,
                       found.panels or gain_panels(found.table),
                       sum(result["seconds"] for result in found.results))
