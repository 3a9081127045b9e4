"""Where everything stands: a column for each task and the shared part, layers from bottom to top.

x grows to the right, y downwards; the input's bar is centred at y = 0, so that equal levels of two
drawings have equal places. An arrow to the next layer leaves the top of its tensor and fans out.
One that skips layers climbs in a lane left of its target's column and enters from the side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from npple.draw.diagram import Diagram, Edge, Node

HEIGHTS = {"input": 30, "experts": 44, "tower": 38, "loss": 26}  # of the boxes; fusions 38
STEM, LANE, CARD = 24, 16, 4  # what is straight of an arrow; lane to box; one expert behind another


@dataclass(frozen=True)
class Box:
    """A node's place: its centre, width and height, and how far the stack behind it rises."""

    x: float
    y: float
    width: float
    height: float
    rise: float = 0

    @property
    def top(self) -> float:
        return self.y - self.height / 2 - self.rise

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    @property
    def left(self) -> float:
        return self.x - self.width / 2


@dataclass(frozen=True)
class Layout:
    """Places of all nodes by name, paths of all edges, bands (level, top, bottom), and the frame.

    `frame` is left, top, width, height.
    """

    boxes: dict[str, Box]
    paths: dict[Edge, str]
    bands: list[tuple[int, float, float]]
    frame: tuple[float, float, float, float]


def layout(diagram: Diagram) -> Layout:
    """Where to draw a diagram.

    Parameters
    ----------
    diagram : npple.draw.Diagram

    Returns
    -------
    Layout
    """
    longest = max(max(len(node.title) * 7.2, len(node.detail) * 6.6) for node in diagram.nodes)
    width = max(116, longest + 18)
    x, total = _columns(diagram, width + 40)
    boxes: dict[str, Box] = {}
    bands: list[tuple[int, float, float]] = []
    y = 0.0
    for number, nodes in enumerate(diagram.layers):
        for node in nodes:
            rise = CARD * (min(node.count, 4) - 1)
            boxes[node.name] = (
                Box(total / 2, 0, total + 12, HEIGHTS["input"]) if node.kind == "input" else
                Box(x[node.name], y, width if node.kind in ("experts", "tower") else width - 18,
                    HEIGHTS.get(node.kind, 38), rise))
        top = min(boxes[node.name].y - boxes[node.name].height / 2 for node in nodes)
        top -= CARD * 3 if nodes[0].kind == "experts" else 0  # equal heights for all counts
        bottom = max(boxes[node.name].bottom for node in nodes)
        if nodes[0].level and bands and bands[-1][0] == nodes[0].level:
            bands[-1] = (nodes[0].level, top - 10, bands[-1][2])
        elif nodes[0].level:
            bands.append((nodes[0].level, top - 10, bottom + 10))
        if number + 1 < len(diagram.layers):
            above = diagram.layers[number + 1]
            y = top - _gap(nodes, above) - max(HEIGHTS.get(node.kind, 38) for node in above) / 2
    return Layout(boxes, _paths(diagram, boxes, width), bands, (-34, top - 12, total + 50, 0))


def _gap(below: Sequence[Node], above: Sequence[Node]) -> float:
    """The height of the arrows between two layers: more where they cross."""
    kinds = {below[0].kind, above[0].kind}
    if "input" in kinds or "loss" in kinds:
        return 40
    return 54 if above[0].kind in ("experts", "tower") else 84


def _columns(diagram: Diagram, width: float) -> tuple[dict[str, float], float]:
    """Node -> x, and the width of all columns.

    Tasks stand in their order with the shared part in the middle. Other owners (sub-networks)
    take the same columns where they fill a layer, further ones else. So between two columns there
    is room for arrows on every layer.
    """
    keys, layers = {}, []
    for nodes in diagram.layers[1:]:
        taken = {}
        for node in nodes:
            key = node.name if node.owner in taken else node.owner
            taken[key] = keys[node.name] = key
        layers.append(set(taken))
    tasks = list(diagram.model.tasks)
    if "shared" in keys.values():
        tasks.insert((len(tasks) + 1) // 2, "shared")
    others = [key for key in dict.fromkeys(keys.values()) if key not in tasks]
    if any(layer & set(others) and layer & set(tasks) for layer in layers):
        tasks, others = tasks + others, []
    columns = max(len(tasks), len(others))
    at = {key: width * (i + 0.5 + (columns - len(part)) // 2) for part in (tasks, others)
          for i, key in enumerate(part)}
    return {name: at[key] for name, key in keys.items()}, width * columns


def _paths(diagram: Diagram, boxes: Mapping[str, Box], width: float) -> dict[Edge, str]:
    """Edge -> the path of its arrow, from source to target."""
    near: dict[str, list[Edge]] = {}  # target -> the edges from the layer below, from left to right
    for edge in diagram.edges:
        if _is_near(diagram, edge):
            near.setdefault(edge.target, []).append(edge)
    for edges in near.values():
        edges.sort(key=lambda edge: boxes[edge.source].x)
    paths = {}
    for edge in diagram.edges:
        source, target = boxes[edge.source], boxes[edge.target]
        if _is_near(diagram, edge):
            fellows = near[edge.target]
            step = min(18, 0.7 * target.width / len(fellows))
            port = target.x + step * (fellows.index(edge) - (len(fellows) - 1) / 2)
            start = target.x if edge.source == "input" else source.x
            paths[edge] = _fan(start, source.top, port, target.bottom)
        else:
            lane = target.x - width / 2 - LANE
            stem = None if edge.source == "input" else source.x
            paths[edge] = _climb(stem, source.top, lane, target.left, target.y)
    return paths


def _is_near(diagram: Diagram, edge: Edge) -> bool:
    return diagram.node[edge.target].layer == diagram.node[edge.source].layer + 1


def _fan(x1: float, y1: float, x2: float, y2: float) -> str:
    """Up a stem, then a curve that ends upright; y2 is the upper end."""
    if x1 == x2:
        return f"M{x1:g} {y1:g}V{y2:g}"
    bend = (y1 - STEM + y2) / 2
    return f"M{x1:g} {y1:g}V{y1 - STEM:g}C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {y2 + 6:g}V{y2:g}"


def _climb(x1: float | None, y1: float, lane: float, x2: float, y2: float) -> str:
    """From a stem (or, without x1, right from the bar) to the lane, up, and into the side."""
    start = f"M{lane:g} {y1:g}"
    if x1 is not None:
        turn, way = y1 - 10, 8 if x1 > lane else -8
        start = f"M{x1:g} {y1:g}V{turn:g}H{lane + way:g}Q{lane:g} {turn:g} {lane:g} {turn - 8:g}"
    return f"{start}V{y2 + 8:g}Q{lane:g} {y2:g} {lane + 8:g} {y2:g}H{x2:g}"
