"""Pictures, for the extra `plot`: matplotlib is imported when one is drawn, never before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npple.architectures import ARCHITECTURES
from npple.archive import FilePath, replacing
from npple.checks import check_path
from npple.errors import InputError, require
from npple.kinds import about
from npple.draw.svg import COLORS as TASK_COLORS
from npple.draw.svg import SHARED
from npple.lab.finding import MARKS, Panel, in_parts
from npple.lab.gains import Comparison, Estimate
from npple.learn.synthetic import correlations_text
from npple.metrics import Bin
from npple.verify.isolation import Isolation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {"svg.hashsalt": "npple", "font.size": 9}  # the salt: equal pictures are equal files
UNDATED = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}


def isolation_figure(isolation: Isolation, norms: Mapping[str, Mapping[str, float]]
                     ) -> Figure:
    """The isolation matrix: tasks down, groups across by level, isolated cells empty.

    Parameters
    ----------
    isolation : npple.verify.isolation.Isolation
    norms : dict of dict of float
        Task -> group -> the norm of the task's gradient (`Influence.norms`): how dark a reached
        cell is.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    matplotlib = _matplotlib()
    tasks, groups = isolation.tasks, list(isolation.groups)
    sections, labels = zip(*(_parts(group) for group in groups), strict=True)
    cells = np.array([[norms[task][group] if isolation.matrix[task][group] == "reached" else np.nan
                       for group in groups] for task in tasks])
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure((2 + 0.4 * len(groups), 2.2 + 0.4 * len(tasks)),
                                          layout="constrained")
        axes = figure.subplots()
        image = axes.pcolormesh(cells, edgecolors="0.85", **_shades(matplotlib, cells))
        figure.colorbar(image, label="gradient norm", fraction=0.03, pad=0.02)
        axes.set_xticks(np.arange(len(groups)) + 0.5, labels, rotation=60, ha="right",
                        rotation_mode="anchor")
        axes.set_yticks(np.arange(len(tasks)) + 0.5, [f"{task} loss" for task in tasks])
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        _sections(axes, sections)
    return figure


def save(figure: Figure, file: FilePath) -> None:
    """Write a figure without its date, so that equal pictures are equal files.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    file : path
        Ending in .svg, .png or .pdf.

    Raises
    ------
    InputError
        For what can name no file, or another ending.
    FileError
        If the file cannot be written.
    """
    check_path("file", file)
    ending = Path(file).suffix
    require(ending in UNDATED, f"{file}: a picture ends in {', '.join(UNDATED)}")
    with _matplotlib().rc_context(STYLE), replacing(file) as opened:
        figure.savefig(opened, format=ending[1:], metadata=UNDATED[ending], dpi=150)


def _sections(axes: Any, sections: Any) -> None:
    """A gap between the levels, and each one's name above its columns."""
    start = 0
    for name, members in groupby(sections):
        stop = start + len(list(members))
        axes.annotate(name, ((start + stop) / 2, 0), (0, 6), textcoords="offset points",
                      ha="center", weight="bold")
        axes.axvline(stop, color="white", linewidth=6)
        start = stop


def _parts(group: str) -> tuple[str, str]:
    """What stands above a group's column and below: `level1/a/gate` -> "level 1", "a gate"."""
    section, _, rest = group.partition("/")
    if not rest:
        return "", section
    section = "towers" if section == "tower" else re.sub(r"^level(\d)", r"level \1", section)
    return section, rest.replace("/", " ")


def _shades(matplotlib: Any, cells: Any) -> Any:
    """Logarithmic; the lightest shade is a clear blue, for a norm of 0 too, white only for NaN."""
    positive = cells[cells > 0] if (cells > 0).any() else np.ones(1)
    blues = matplotlib.colormaps["Blues"](np.linspace(0.25, 1, 256))
    return {"cmap": matplotlib.colors.ListedColormap(blues),
            "norm": matplotlib.colors.LogNorm(positive.min(), positive.max(), clip=True)}


def _matplotlib() -> Any:
    try:
        import matplotlib.colors
        import matplotlib.figure
    except ImportError:
        raise InputError("plots need matplotlib: pip install 'npple[plot]'") from None
    return matplotlib


def need_matplotlib() -> None:
    """Raise unless pictures can be drawn.

    Raises
    ------
    InputError
        Without matplotlib.
    """
    _matplotlib()


def calibration_figure(calibration: Mapping[str, Sequence[Bin]]) -> Figure:
    """What was predicted and what was observed: a panel a column of predictions, a dot a bin.

    Parameters
    ----------
    calibration : dict output -> list of Bin
        As of `npple.training.Evaluation`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib, or without a row.
    """
    panels = {name: np.array(bins, float) for name, bins in calibration.items() if bins}
    require(panels, "calibration: no labelled rows, expected some")
    with _matplotlib().rc_context(STYLE):
        figure, axes = _panels(len(panels), 4, 3.0)
        for panel, (name, bins) in zip(axes, panels.items()):
            ends = [bins[:, 1:].min(), bins[:, 1:].max()]
            panel.plot(ends, ends, color="0.7", linewidth=1, label="predicted = observed")
            panel.plot(bins[:, 1], bins[:, 2], "o-", markersize=3, label="bins of the rows")
            panel.set(title=name, xlabel="predicted", ylabel="observed")
        _legend(figure, axes)
    return figure


# A comparison of architectures (`npple.lab.compare`) --------------------------------------

MARKERS = "osD^v<>PX*hp"  # one an architecture, as the colours, in all pictures
COLORS = {"ple": "#d62728", "cgc": "#ff7f0e", "mmoe": "#1f77b4", "ml_mmoe": "#17becf",
          "single_task": "#7f7f7f", "shared_bottom": "#8c564b", "asymmetric_sharing": "#98df8a",
          "customized_sharing": "#2ca02c", "cross_stitch": "#c5b0d5", "sluice": "#e377c2",
          "snr_trans": "#dbdb8d", "snr_aver": "#bcbd22", "uncut ple": "#9467bd"}


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """All pictures of a comparison; that of the experts is of its first trials.

    Parameters
    ----------
    comparison : npple.lab.gains.Comparison

    Returns
    -------
    dict of matplotlib.figure.Figure
        `curves`, and where there is something to see `gains`, `correlation`, `utilization`: the
        figures of these names.

    Raises
    ------
    InputError
        Without matplotlib.
    """
    first = comparison.results[0]
    trials = [result for result in comparison.results
              if (result["data"], result["seed"]) == (first["data"], first["seed"])]
    figures = {"curves": curves_figure(comparison)}
    if _gains(comparison):
        figures["gains"] = gains_figure(comparison)
    if sum(p is not None for p in comparison.correlations.values()) > 1:
        figures["correlation"] = correlation_figure(comparison)
    if any(trial["utilization"] for trial in trials):
        figures["utilization"] = utilization_figure(trials)
    return figures


def gains_figure(comparison: Comparison) -> Figure:
    """Rows of panels, a row a data set: gain of the first task across, of the second up.

    A panel has five architectures at most, PLE among them, with 95 % intervals. The axes go
    through zero: upper right, both tasks gain; upper left and lower right, a seesaw.
    Each is linear up to its median gain and logarithmic from there, since gains differ widely.

    Parameters
    ----------
    comparison : npple.lab.gains.Comparison

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with _matplotlib().rc_context(STYLE):
        gains = [(data, part) for data, pairs in _gains(comparison).items()
                 for part in _parts_with_ple(pairs)]
        figure, panels = _panels(len(gains), 4, 3.2)
        looks = _looks(comparison)
        for axes, (data, pairs) in zip(panels, gains):
            for architecture, ((x, dx), (y, dy)) in pairs.items():
                axes.errorbar(x, y, dy, dx, linestyle="", elinewidth=0.6, **looks[architecture])
            axes.axhline(0, color="0.4", linewidth=0.8, zorder=0)
            axes.axvline(0, color="0.4", linewidth=0.8, zorder=0)
            for set_scale, bars in zip((axes.set_xscale, axes.set_yscale), zip(*pairs.values())):
                middle = np.median([abs(gain) for gain, _ in bars]) or 1
                set_scale("symlog", linthresh=middle, linscale=2)
            axes.tick_params(axis="x", rotation=60)
            first, second = list(comparison.tasks[data])[:2]
            axes.set(title=comparison.headline(data, "\n"), xlabel=f"gain of {first} (symlog)",
                     ylabel=f"gain of {second} (symlog)")
        _legend(figure, panels)
    return figure


def correlation_figure(comparison: Comparison) -> Figure:
    """A panel a task: its metric, with 95 % intervals, against the task correlation p.

    Below each p stands what was measured of the labels, their correlation.

    Parameters
    ----------
    comparison : npple.lab.gains.Comparison

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with _matplotlib().rc_context(STYLE):
        data = {name: p for name, p in comparison.correlations.items() if p is not None}
        tasks = comparison.tasks[next(iter(data))]
        figure, panels = _panels(len(tasks), 4, 3)
        for axes, (task, kind) in zip(panels, tasks.items()):
            for architecture, look in _looks(comparison).items():
                points = sorted((data[row.data], *_bar(row.metrics[task]))
                                for row in comparison.outcomes if row.data in data
                                and row.architecture == architecture and row.metrics[task])
                if points:
                    axes.errorbar(*zip(*points), linewidth=0.8, elinewidth=0.6, **look)
            name, sign = about(kind).gain
            axes.set(title=task, xlabel="task correlation p", ylabel=name,
                     yscale="linear" if sign > 0 else "log")  # losses differ by factors
            words = {name: correlations_text(comparison.labels[name]).split() for name in data}
            axes.set_xticks(list(data.values()), ["\n".join((f"{p:g}", "labels", *words[name][2:]))
                                                  for name, p in data.items()], fontsize=7)
        _legend(figure, panels)
    return figure


def curves_figure(comparison: Comparison) -> Figure:
    """A panel a data set and task: the validation metric by epoch, mean over seeds that got there.

    Parameters
    ----------
    comparison : npple.lab.gains.Comparison

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with _matplotlib().rc_context(STYLE):
        places = [(data, task) for data, tasks in comparison.tasks.items() for task in tasks]
        figure, panels = _panels(len(places), 4, 2.4)
        looks = _looks(comparison)
        for axes, (data, task) in zip(panels, places):
            name, _ = about(comparison.tasks[data][task]).gain
            for architecture, look in looks.items():
                curves = [[epoch.get(name) for epoch in result["tasks"][task]["validation"]]
                          for result in comparison.results if task in result["tasks"]
                          and (result["data"], result["architecture"]) == (data, architecture)]
                if curves:
                    mean = [np.mean(np.array(values, dtype=float)) for values in (
                        [curve[epoch] for curve in curves if len(curve) > epoch]
                        for epoch in range(max(map(len, curves))))]
                    axes.plot(np.arange(1, len(mean) + 1), mean, linewidth=0.8, **look)
            axes.set(title=f"{data}: {task}", xlabel="epoch", ylabel=f"validation {name}")
            axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, panels)
    return figure


def utilization_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel an architecture: mean and deviation of each gate's weight on each of its experts.

    Parameters
    ----------
    results : list of dict
        Of one data set and one seed, from `Comparison.results`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with _matplotlib().rc_context(STYLE):
        results = [result for result in results if result["utilization"]]
        figure, panels = _panels(len(results), 8, 1.8, columns=1)
        owners = _owners(entry for result in results for entry in result["utilization"])
        for axes, result in zip(panels, results):
            _bars(axes, result["utilization"], owners)
            axes.set(title=result["architecture"], ylabel="weight")
        _legend(figure, panels)
    return figure


def _owners(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Whose experts there are -> the colour of their bars: those of tasks in drawings."""
    owners = dict.fromkeys(entry["group"].split("/")[1] for entry in entries)
    own = [owner for owner in owners if owner != "shared"]
    return {owner: SHARED[0] if owner == "shared" else
            TASK_COLORS[own.index(owner) % len(TASK_COLORS)][0] for owner in owners}


def _bars(axes: Any, entries: Sequence[Mapping[str, Any]], owners: Mapping[str, str]) -> None:
    """Mean and deviation of each gate's weight on each expert, the gates apart."""
    at, ticks = 0, {}
    for into, members in groupby(entries, key=lambda entry: entry["into"]):
        start = at
        for at, entry in enumerate(members, start):
            owner = entry["group"].split("/")[1]
            axes.bar(at, entry["mean"], 0.9, yerr=entry["deviation"], color=owners[owner],
                     label=f"{owner} experts")
        ticks[(start + at) / 2] = into.replace("/", "\n")
        at += 2  # a gap between gates
    axes.set_xticks(list(ticks), ticks.values())
    axes.set(ylim=(0, 1))


FAR = 10.0  # times the median gain: a mark beyond it makes an axis symlog
STYLES = {"": "-", "gate bias": "--", "from cgc": ":", "from ple": ":"}


def finding_figure(panels: Sequence[Panel]) -> Figure:
    """The panels of a finding.

    Lines are means over seeds, in bands from the least to the largest; points are gains with their
    95 % intervals; bars are mean weights with their deviation over the rows.

    Parameters
    ----------
    panels : sequence of npple.lab.finding.Panel

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        Without matplotlib.
    """
    with _matplotlib().rc_context(STYLE):
        columns = 2 if len(panels) < 9 else 3
        figure, places = _panels(len(panels), 8 / columns if panels[1:] else 6, 2.8, columns)
        owners = _owners(entry for panel in panels for entry in panel.bars)
        marks = dict(zip(dict.fromkeys(name for panel in panels for name in panel.points
                                       if ", " in name), MARKERS))
        marks |= dict(zip(ARCHITECTURES, MARKERS))
        for axes, panel in zip(places, panels):
            if panel.bars:
                _bars(axes, panel.bars, owners)
            elif panel.points:
                _points(axes, panel.points, marks)
            else:
                _lines(axes, panel)
            axes.set(ylabel=panel.label + _symlog(axes.yaxis),
                     xlabel=panel.across + _symlog(axes.xaxis))
            axes.set_title(panel.title, fontsize=10 if columns == 2 else 8)
        _legend(figure, places)
    return figure


def _lines(axes: Any, panel: Panel) -> None:
    for name, seeds in panel.lines.items():
        architecture, _, how = name.partition(", ")
        values, color = np.array(seeds), COLORS[architecture]  # (seeds, epochs + 1)
        steps = np.arange(values.shape[1])
        axes.plot(steps, values.mean(axis=0), STYLES[how], color=color, label=name,
                  linewidth=2 if architecture == "ple" else 1.2)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color,
                          alpha=0.15, linewidth=0)
    axes.set_yscale("log" if panel.log else "linear")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _points(axes: Any, points: Mapping[str, Sequence[Estimate]], marks: Mapping[str, str]
            ) -> None:
    """A mark each, of the architecture's colour, in a cross of lines through zero."""
    for name, gains in points.items():
        (x, dx), (y, dy) = map(_bar, gains)
        axes.errorbar(x, y, dy, dx, linestyle="", elinewidth=0.8, marker=marks[name], label=name,
                      color=COLORS[name.partition(", ")[0]], markersize=6 if name == "ple" else 5)
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=0)
    for number, set_scale, axis in ((0, axes.set_xscale, "x"), (1, axes.set_yscale, "y")):
        sizes = [abs(gains[number].mean) for gains in points.values()]
        if max(sizes) > FAR * np.median(sizes) > 0:  # or one mark would hide the others
            set_scale("symlog", linthresh=FAR * np.median(sizes))
        else:
            axes.ticklabel_format(axis=axis, scilimits=(-2, 3))
    axes.tick_params(labelsize=7)


def _symlog(axis: Any) -> str:
    """What an axis that is not linear says of it."""
    return " (symlog)" if axis.get_scale() == "symlog" else ""


def _looks(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Architecture -> its colour, mark and name in the legend, the same in all panels."""
    names = dict.fromkeys(row.architecture for row in comparison.outcomes)
    marks = dict(zip(ARCHITECTURES, MARKERS))
    return {name: {"color": COLORS[name], "marker": marks[name], "label": name,
                   "markersize": 6 if name == "ple" else 4} for name in names}


def _parts_with_ple(pairs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The architectures in parts of four at most, with PLE in each."""
    ple = {name: pairs[name] for name in pairs if name == "ple"}
    return [dict(part) | ple for part in
            in_parts([pair for pair in pairs.items() if pair[0] != "ple"], MARKS - len(ple))]


def _gains(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Data set -> architecture -> mean and half interval of the gains of the first two tasks."""
    found: dict[str, dict[str, Any]] = {}
    for row in comparison.outcomes:
        gains = list(row.gains.values())[:2]
        if len(gains) == 2 and all(gains):
            found.setdefault(row.data, {})[row.architecture] = [_bar(gain) for gain in gains]
    return found


def _bar(estimate: Any) -> tuple[float, float]:
    """The mean and half of the interval, 0 where there is none."""
    return estimate.mean, 0 if estimate.high is None else estimate.high - estimate.mean


def _panels(count: int, width: float, height: float, columns: int = 2) -> tuple[Figure, list[Any]]:
    """A figure, and its panels row by row; width and height are those of a panel."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = _matplotlib().figure.Figure((width * columns, height * rows + 0.6),
                                         layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _legend(figure: Figure, panels: Sequence[Any]) -> None:
    """One legend for all panels, below them."""
    entries = {label: handle for axes in panels
               for handle, label in zip(*axes.get_legend_handles_labels())}
    wide = 0.6 + 0.07 * max(map(len, entries), default=0)  # inches
    figure.legend(entries.values(), entries.keys(), loc="outside lower center",
                  ncols=max(1, int(figure.get_figwidth() / wide)))
