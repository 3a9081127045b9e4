"""A diagram as SVG: plain text, equal for equal diagrams."""

from collections.abc import Iterator, Mapping
from html import escape
from string import Template

from npple.checks import check_kind
from npple.draw.diagram import Diagram, Node
from npple.draw.layout import CARD, Box, layout
from npple.draw.text import check_task

STYLE = Template("""\
.npple text{font-family:system-ui,'Segoe UI','DejaVu Sans',Verdana,sans-serif;fill:$ink}
.npple text{text-anchor:middle}
.npple .title{font-size:12.5px;font-weight:600}
.npple .detail,.npple .zero{font-size:11px}
.npple .shape{font-size:11px;text-anchor:start}
.npple .caption{font-size:12px;text-anchor:start}
.npple .heading{font-size:15px;font-weight:600;text-anchor:start}
.npple .band{fill:$band}
.npple .band-name{font-size:12px;fill:$muted}
.npple .box{stroke-width:1.5;stroke:$muted;fill:$neutral}
.npple .zero{display:none}
.npple .edge{fill:none;stroke:$muted;stroke-width:1.4;marker-end:url(#npple-ahead)}
.npple .selects{stroke-dasharray:4 3}
.npple .ahead{fill:$muted}
.flow .edge{stroke-opacity:.28;marker-end:none}
.flow .node{opacity:.38}
.flow .node.lit{opacity:1}
.flow .edge.lit{stroke-opacity:1;stroke-width:2.6;marker-start:url(#npple-back)}
.flow .lit .box{stroke-width:2.6}
.flow .isolated .detail{display:none}
.flow .isolated .zero{display:inline}
""")
LIGHT = {"ink": "#1b2430", "muted": "#5d6b7c", "band": "#eef2f7", "neutral": "#ffffff"}
PAPER = "#fbfcfe"
COLORS = [("#1d5fd1", "#dbe8ff"), ("#c2255c", "#ffe0ec"), ("#0b7a53", "#d6f5e6"),
          ("#6d3fc9", "#ebe1ff"), ("#0e7490", "#d5f3fa"), ("#8a4b16", "#f8e6d6")]
SHARED = ("#a86a00", "#fff0cc")


def svg(diagram: Diagram, title: str = "", task: str | None = None) -> str:
    """A picture of a diagram, bottom-up: levels in bands, tensor shapes where arrows begin.

    Parameters
    ----------
    diagram : npple.draw.Diagram
    title : str
        What to write above it.
    task : str, optional
        Show where the gradient of this task's loss goes; the rest is pale.

    Returns
    -------
    str
        An SVG document.

    Raises
    ------
    InputError
        For a task that the model does not have.
    """
    check_task(diagram, task)
    check_kind("title", title, str, "a text")
    lines, (left, top, width, _) = body(diagram, task)
    captions = ["B: rows of a batch"]
    if any(edge.role == "selects" for edge in diagram.edges):
        captions[0] += "; dashed: what a gate selects on"
    if task:
        captions = [f"the gradient of the {task} loss on its way back;", "pale: it is exactly 0"]
    top, bottom = top - 34, 26 + 17 * len(captions)
    words = [f'<text class="heading" x="{left + 14:g}" y="{top + 26:g}">{escape(title)}</text>']
    words += [f'<text class="caption" x="0" y="{36 + 17 * i}">{escape(caption)}</text>'
              for i, caption in enumerate(captions)]
    flow = f" flow flow{list(diagram.model.tasks).index(task) % len(COLORS)}" if task else ""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" class="npple{flow}" role="img" '
        f'width="{width:g}" height="{bottom - top:g}" '
        f'viewBox="{left:g} {top:g} {width:g} {bottom - top:g}">',
        f"<title>{escape(title)}</title>",
        f"<style>{style(LIGHT)}</style>",
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{bottom - top:g}" rx="8" '
        f'fill="{PAPER}"/>', *lines, *words, "</svg>\n"])


def style(colors: Mapping[str, str]) -> str:
    """The style sheet of drawings.

    Parameters
    ----------
    colors : dict of str
        "ink", "muted", "band", "neutral", and optionally "stroke0", "fill0", ... "strokes",
        "fills" in place of the colours of tasks and of what is shared.

    Returns
    -------
    str
    """
    rules, flows = [STYLE.substitute(colors)], []
    for i, (stroke, fill) in [*enumerate(COLORS), ("s", SHARED)]:
        stroke, fill = colors.get(f"stroke{i}", stroke), colors.get(f"fill{i}", fill)
        rules.append(f".npple .c{i} .box{{stroke:{stroke};fill:{fill}}}\n"
                     f".npple .edge.c{i}{{stroke:{stroke}}}\n")
        flows.append(f".npple.flow{i} .edge.lit,.npple.flow{i} .lit .box{{stroke:{stroke}}}\n"
                     f".flow{i} .back{{fill:{stroke}}}\n")
    return "".join(rules + flows[:-1])  # what is shared has no loss


def body(diagram: Diagram, task: str | None = None
         ) -> tuple[list[str], tuple[float, float, float, float]]:
    """The drawing's elements without a frame: `lines` of SVG, and (left, top, width, height).

    Each node is a `g` with `data-node` (its number), `data-layer`, `data-group`; each edge a `path`
    with `data-source` and `data-target`. Class `lit` marks what the gradient of `task` reaches.
    """
    places = layout(diagram)
    reached = set(diagram.reached(task)) if task else set()
    numbers = {node.name: i for i, node in enumerate(diagram.nodes)}
    left, top, width, _ = places.frame
    lines = ['<defs>' + _marker("ahead", 8) + _marker("back", 11) + '</defs>']
    for level, above, below in places.bands:
        middle = (above + below) / 2
        lines.append(f'<rect class="band" x="{left + 6:g}" y="{above:g}" width="{width - 12:g}" '
                     f'height="{below - above:g}" rx="8"/>')
        lines.append(f'<text class="band-name" transform="translate({left + 22:g} {middle:g}) '
                     f'rotate(-90)">level {level}</text>')
    edges = sorted(diagram.edges, key=lambda edge: edge.target in reached)  # the lit ones on top
    for edge in edges:
        color = _color(diagram, diagram.node[edge.source].owner, edge.source == "input")
        words = f"edge {edge.role} {color}" + (" lit" if edge.target in reached else "")
        lines.append(f'<path class="{words.strip()}" data-source="{numbers[edge.source]}" '
                     f'data-target="{numbers[edge.target]}" d="{places.paths[edge]}"/>')
    for node in diagram.nodes:
        lines += _box(node, numbers[node.name], places.boxes[node.name],
                      _color(diagram, node.owner, node.kind == "input"),
                      (" lit" if node.name in reached else " isolated") if task else "")
    return lines, (left, top, width, 22 - top)


def about(node: Node) -> list[str]:
    """What there is to know of a tensor: lines of text."""
    lines = [f"{node.name} {node.shape}", node.formula, f"back: {node.backward}"]
    return lines + [f"{name.removeprefix(node.group + '/')} {tuple(shape)}"
                    for name, shape in node.parameters.items()]


def _box(node: Node, number: int, box: Box, color: str, state: str) -> Iterator[str]:
    """A node: its stack of boxes, two lines of text, and its shape where arrows leave it."""
    words = f"node {node.kind} {color}".strip() + state
    yield (f'<g class="{words}" data-node="{number}" data-layer="{node.layer}" '
           f'data-group="{escape(node.group)}" data-name="{escape(node.name)}" '
           f'transform="translate({box.x:g} {box.y:g})">')
    yield f"<title>{escape(chr(10).join(about(node))).replace(chr(10), '&#10;')}</title>"
    for card in reversed(range(int(box.rise) // CARD + 1)):
        yield (f'<rect class="box" x="{CARD * card - box.width / 2:g}" '
               f'y="{-CARD * card - box.height / 2:g}" width="{box.width:g}" '
               f'height="{box.height:g}" rx="{13 if node.kind == "loss" else 6}"/>')
    if node.kind in ("input", "loss"):
        title = f"{node.title} {node.shape}" if node.kind == "input" else node.title
        yield f'<text class="title" y="4.5">{escape(title)}</text>'
    else:
        yield f'<text class="title" y="-3">{escape(node.title)}</text>'
        yield f'<text class="detail" y="13">{escape(node.detail)}</text>'
        yield '<text class="zero" y="13">gradient 0</text>'
        yield (f'<text class="shape" x="6" y="{-box.height / 2 - box.rise - 9:g}">'
               f'{escape(node.shape)}</text>')
    yield "</g>"


def _marker(name: str, size: float) -> str:
    """An arrow's head; its tip is where the line ends."""
    return (f'<marker id="npple-{name}" class="{name}" viewBox="0 0 8 8" refX="7" refY="4" '
            f'markerWidth="{size}" markerHeight="{size}" markerUnits="userSpaceOnUse" '
            'orient="auto-start-reverse"><path d="M0 0.5L8 4L0 7.5z"/></marker>')


def _color(diagram: Diagram, owner: str, neutral: bool = False) -> str:
    """The class of a colour: a task's own, that of what is shared, or none."""
    tasks = list(diagram.model.tasks)
    if neutral:
        return ""
    return f"c{tasks.index(owner) % len(COLORS)}" if owner in tasks else "cs"
