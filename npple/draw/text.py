"""A model for a terminal: a line for each tensor, from the losses down to the input."""

from itertools import chain, groupby
from math import prod

from npple.checks import check_choice, check_kind
from npple.draw.diagram import Diagram, Node


def text(diagram: Diagram, task: str | None = None) -> str:
    """The drawing as text, read from the top: each line reads from lines further down.

    Parameters
    ----------
    diagram : npple.draw.Diagram
    task : str, optional
        Mark with ● what this task's loss reaches, with ○ where its gradient is exactly 0.

    Returns
    -------
    str

    Raises
    ------
    InputError
        For a task that the model does not have.
    """
    check_task(diagram, task)
    reached = set(diagram.reached(task)) if task else set()
    cells = {node.name: (node.name, node.shape,
                         f"{node.kind}, {node.detail}" if node.detail else "",
                         _reads(diagram, node)) for node in diagram.nodes if node.kind != "loss"}
    widths = [max(map(len, column)) for column in zip(*cells.values())]
    lines = []
    for level, layers in groupby(reversed(diagram.layers[:-1]), lambda nodes: nodes[0].level):
        lines.append(f"── level {level} ".ljust(sum(widths[:3]) + 8, "─") if level else "")
        for node in chain(*layers):
            mark = "" if not task else "● " if node.name in reached else "○ "
            lines.append((mark + "   ".join(map(str.ljust, cells[node.name], widths))).rstrip())
    lines.append("\nB: rows of a batch; ←: reads; by: a gate selects on it"
                 f"\n{_size(diagram):,} parameters")
    if task:
        lines.append(f"● the {task} loss reaches it   ○ its gradient is exactly 0")
    return "\n".join(lines[1:])


def check_task(diagram: Diagram, task: object) -> None:
    """Refuse what is no diagram, and a task that the model does not have; None is fine."""
    check_kind("diagram", diagram, Diagram, "a Diagram")
    if task is not None:
        check_choice("task", task, diagram.model.tasks)


def _reads(diagram: Diagram, node: Node) -> str:
    """What a row reads, groups of one level together, a gate's selector last."""
    owners: dict[str, list[str]] = {}
    parts = []
    for edge in diagram.edges:
        if edge.target == node.name and edge.role == "reads":
            owner = diagram.node[edge.source].owner
            pattern = edge.source.replace(f"/{owner}", "/{}")
            taken = "" if edge.experts is None else f" {list(edge.experts)}"
            owners.setdefault(pattern + taken, []).append(owner)
        elif edge.target == node.name:
            parts.append(f"by {edge.source}")
    read = [pattern.replace("{}", names[0] if len(names) == 1 else f"{{{','.join(names)}}}")
            for pattern, names in owners.items()]
    return "← " + ", ".join(read + parts) if read else ""


def _size(diagram: Diagram) -> int:
    return sum(prod(shape) for shape in diagram.model.shapes.values())
