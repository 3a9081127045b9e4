"""Drawings of a model, made from its routing table: text, SVG, and a page to explore.

    diagram(model)        the tensors, who reads whom, shapes and formulas
    text(diagram)         for a terminal
    svg(diagram)          a picture
    page(tasks)           a self-contained HTML page with all architectures
"""

from npple.drawing.diagram import Diagram, Edge, Node, diagram
from npple.drawing.page import page
from npple.drawing.svg import svg
from npple.drawing.text import text

__all__ = ["Diagram", "Edge", "Node", "diagram", "page", "svg", "text"]
