"""The page to explore: every architecture and expert count drawn beforehand, a script to choose.

The page holds the SVG of all drawings, line by line, each line once: equal levels of two drawings
are equal lines. Its script puts a drawing together, walks back along its arrows from a loss, and
lights what it comes to.
"""

import inspect
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from npple.architectures import ARCHITECTURES, Inputs
from npple.checks import check_choice, check_count
from npple.draw.diagram import Node, diagram
from npple.draw.svg import COLORS, LIGHT, PAPER, SHARED, body, style
from npple.network import Network

CHOICES = {"levels": (1, 2, 3), "experts": (1, 2, 3, 4), "task_experts": (1, 2, 3, 4),
           "shared_experts": (1, 2, 3, 4), "subspaces": (1, 2, 3, 4)}
DRAWN = 100  # levels, experts
DARK = {"ink": "#e8edf4", "muted": "#9aa8ba", "band": "#1c242f", "neutral": "#141a22"}
DARK_PAPER = "#11161d"
DARK_COLORS = [("#7fb0ff", "#17325f"), ("#ff8fb8", "#571b37"), ("#5fd8a8", "#0e3f2e"),
               ("#bfa3ff", "#38236b"), ("#67d5ea", "#0d3b46"), ("#e2ab78", "#4a2d12")]
DARK_SHARED = ("#f0b937", "#493600")


def page(inputs: Inputs, tasks: Mapping[str, str], model: str = "ple", **options: object) -> str:
    """A self-contained HTML page: choose an architecture, click a loss, see what it reaches.

    Parameters
    ----------
    inputs : int or dict
        The width of a plain matrix, or column -> "numeric" or (vocabulary size, embedding width).
    tasks : dict of str
        Task -> "binary", "regression" or "multiclass:K".
    model : str
        The architecture to begin with.
    options : dict
        Further arguments of builders; each builder is given those it has. The numbers of levels
        and experts are only what the page begins with.

    Returns
    -------
    str
        The HTML document.

    Raises
    ------
    InputError
        For arguments that make no model.
    """
    for name in CHOICES.keys() & options.keys():
        options[name] = check_count(name, options[name], 0, DRAWN)
    lines: dict[str, int] = {}
    models = {}
    for name, builder in ARCHITECTURES.items():
        models[name] = _drawings(builder, inputs, tasks, options, lines)
    check_choice("model", model, models)
    content = {"tasks": list(tasks), "colors": len(COLORS), "model": model, "models": models,
               "lines": list(lines)}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("</", "<\\/").replace("<!", "<\\u0021")  # stays inside its script
    template = resources.files("npple.draw").joinpath("page.html").read_text("utf-8")
    for mark, text in (("/* style */", _colors() + style(_names())), ("/* data */", data)):
        template = template.replace(mark, text)
    return template


def _drawings(builder: Callable[..., Network], inputs: Inputs, tasks: Mapping[str, str],
              options: Mapping[str, Any], lines: dict[str, int]) -> dict[str, Any]:
    """An architecture's drawings by choice ("2,1,4"), as numbers of `lines`, which grow."""
    known = inspect.signature(builder).parameters
    options = {name: value for name, value in options.items() if name in known}
    choices = {name: sorted({*values, *([options[name]] if name in options else [])})
               for name, values in CHOICES.items() if name in known}
    start = {name: options.get(name, known[name].default) for name in choices}
    drawings = {}
    for values in itertools.product(*choices.values()):
        model = builder(inputs, tasks, **options | dict(zip(choices, values)))
        drawn = diagram(model)
        elements, frame = body(drawn)
        drawings[",".join(map(str, values))] = {
            "frame": frame, "layers": list(map(_layer, drawn.layers)),
            "lines": [lines.setdefault(line, len(lines)) for line in elements]}
    return {"choices": choices, "start": start, "drawings": drawings}


def _layer(nodes: Sequence[Node]) -> str:
    """What a layer of the drawing is called."""
    kind, level = nodes[0].kind, nodes[0].level
    if level:
        return f"level {level} {'experts' if kind == 'experts' else 'fusions'}"
    return {"input": "the input", "tower": "the towers", "loss": "the losses"}[kind]


def _names() -> dict[str, str]:
    """The style sheet's colours as CSS variables."""
    keys = [*LIGHT, *(f"{part}{i}" for i in (*range(len(COLORS)), "s")
                      for part in ("stroke", "fill"))]
    return {key: f"var(--{key})" for key in keys}


def _colors() -> str:
    """The values of these variables, light and dark."""
    light = _values(LIGHT | {"paper": PAPER}, COLORS, SHARED)
    dark = _values(DARK | {"paper": DARK_PAPER}, DARK_COLORS, DARK_SHARED)
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _values(colors: dict[str, str], tasks: Sequence[tuple[str, str]], shared: tuple[str, str]
            ) -> str:
    pairs = [*enumerate(tasks), ("s", shared)]
    values = colors | {f"stroke{i}": stroke for i, (stroke, _) in pairs}
    values |= {f"fill{i}": fill for i, (_, fill) in pairs}
    return ";".join(f"--{name}:{value}" for name, value in values.items())
