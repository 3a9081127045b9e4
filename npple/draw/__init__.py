"""Drawings of a model, made from its routing table: text, SVG, and a page to explore.

    diagram(model)        the tensors, who reads whom, shapes and formulas
    text(diagram)         for a terminal
    svg(diagram)          a picture
    page(tasks)           a self-contained HTML page with all architectures
"""

from npple.draw.diagram import Diagram, Edge, Node, diagram
from npple.draw.page import page
from npple.draw.svg import svg
from npple.draw.text import text

__all__ = ["Diagram", "Edge", "Node", "diagram", "page", "svg", "text"]
