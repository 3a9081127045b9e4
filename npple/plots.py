"""Pictures, for the extra `plot`: matplotlib is imported when one is drawn, never before."""

import re
from itertools import groupby
from pathlib import Path

import numpy as np

from npple.archive import replacing
from npple.errors import InputError, require

STYLE = {"svg.hashsalt": "npple", "font.size": 9}  # the salt: equal pictures are equal files
UNDATED = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}


def isolation_figure(isolation, norms):
    """The isolation matrix: tasks down, groups across by level, isolated cells empty.

    Parameters
    ----------
    isolation : npple.isolation.Isolation
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


def save(figure, file):
    """Write a figure without its date, so that equal pictures are equal files.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    file : path
        Ending in .svg, .png or .pdf.

    Raises
    ------
    InputError
        For another ending.
    FileError
        If the file cannot be written.
    """
    ending = Path(file).suffix
    require(ending in UNDATED, f"{file}: a picture ends in {', '.join(UNDATED)}")
    with _matplotlib().rc_context(STYLE), replacing(file) as opened:
        figure.savefig(opened, format=ending[1:], metadata=UNDATED[ending], dpi=150)


def _sections(axes, sections):
    """A gap between the levels, and each one's name above its columns."""
    start = 0
    for name, members in groupby(sections):
        stop = start + len(list(members))
        axes.annotate(name, ((start + stop) / 2, 0), (0, 6), textcoords="offset points",
                      ha="center", weight="bold")
        axes.axvline(stop, color="white", linewidth=6)
        start = stop


def _parts(group):
    """What stands above a group's column and below: `level1/a/gate` -> "level 1", "a gate"."""
    section, _, rest = group.partition("/")
    if not rest:
        return "", section
    section = "towers" if section == "tower" else re.sub(r"^level(\d)", r"level \1", section)
    return section, rest.replace("/", " ")


def _shades(matplotlib, cells):
    """Logarithmic; the lightest shade is a clear blue, for a norm of 0 too, white only for NaN."""
    positive = cells[cells > 0] if (cells > 0).any() else np.ones(1)
    blues = matplotlib.colormaps["Blues"](np.linspace(0.25, 1, 256))
    return {"cmap": matplotlib.colors.ListedColormap(blues),
            "norm": matplotlib.colors.LogNorm(positive.min(), positive.max(), clip=True)}


def _matplotlib():
    try:
        import matplotlib.colors
        import matplotlib.figure
    except ImportError:
        raise InputError("plots need matplotlib: pip install 'npple[plot]'") from None
    return matplotlib
