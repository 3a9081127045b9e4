"""What there is to draw of a routing table: its tensors with shape and formula, who reads whom."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from npple.checks import check_kind
from npple.core.base import Shapes
from npple.core.rows import Row
from npple.core.table import Table
from npple.kinds import about
from npple.network import Network
from npple.routing import Concat, Experts, Fusion, Gate, Pass, Pool, Route, Stitch, Tower

Words: TypeAlias = tuple[str, str, str]  # detail, formula, backward


@dataclass(frozen=True)
class Node:
    """A tensor and the row that makes it; or the input, or a task's loss.

    Attributes
    ----------
    name : str
        As in a trace: `level1/vtr/experts`, `input`; `loss/vtr` for a loss.
    kind : str
        "input", "experts", "gate", "pass", "concat", "stitch", "route", "tower" or "loss".
    owner : str
        The task it belongs to, "shared", or the sub-network.
    level, layer : int
        The extraction level, 0 for what is in none; the layer of the drawing, 0 for the input.
    count : int
        Experts of a group, 1 for the rest.
    detail : str
        In a few words: widths of the layers, how many experts are mixed.
    shape : str
        Of the tensor; B is the batch.
    formula, backward : str
        How it is computed; the gradients it hands back.
    group : str
        Of the isolation matrix, "" without parameters.
    parameters : dict of tuple
        Name -> shape.
    """

    name: str
    kind: str
    owner: str
    level: int
    layer: int
    count: int
    detail: str
    shape: str
    formula: str
    backward: str
    group: str
    parameters: Shapes

    @property
    def title(self) -> str:
        """What stands in its box."""
        kind = self.kind
        if kind == "experts" and self.count == 1:
            kind = "expert"
        return kind if kind == "input" else f"{self.owner} {kind}"


@dataclass(frozen=True)
class Edge:
    """An arrow: the row `target` reads the tensor `source`.

    Attributes
    ----------
    source, target : str
        Names of nodes.
    role : str
        "reads", or "selects" where a gate's weights depend on the tensor.
    experts : tuple of int or None
        The indices that it takes of a group, None for all.
    """

    source: str
    target: str
    role: str
    experts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Diagram:
    """A model as nodes and edges; `diagram` makes it.

    Attributes
    ----------
    model : npple.Network
        What is drawn.
    nodes : tuple of Node
        In the order in which they are computed, the losses last.
    edges : tuple of Edge
        Row by row, in the order of what each row reads; those to the losses last.
    """

    model: Network
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @cached_property
    def node(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def layers(self) -> list[list[Node]]:
        """The nodes of each layer, from the input up."""
        layers: list[list[Node]] = [[] for _ in range(1 + max(node.layer for node in self.nodes))]
        for node in self.nodes:
            layers[node.layer].append(node)
        return layers

    def reached(self, task: str) -> list[str]:
        """The nodes that the loss of a task reaches, the loss included.

        Parameters
        ----------
        task : str
            A task of the model.

        Returns
        -------
        list of str
            Their names, in the order of `npple.routing.Table.reached`.
        """
        return [f"loss/{task}", *self.model.table.reached(task)]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it.

        Returns
        -------
        dict
            With the keys "tasks", "nodes", "edges" and "reached", the last by task.
        """
        nodes = [{"name": node.name, "kind": node.kind, "level": node.level, "shape": node.shape,
                  "formula": node.formula, "backward": node.backward, "group": node.group or None,
                  "parameters": node.parameters} for node in self.nodes]
        edges = [{"from": edge.source, "to": edge.target, "role": edge.role,
                  "experts": edge.experts} for edge in self.edges]
        reached = {task: self.reached(task) for task in self.model.tasks}
        return {"tasks": self.model.tasks, "nodes": nodes, "edges": edges, "reached": reached}


def diagram(model: Network) -> Diagram:
    """The drawing's nodes and edges, from the routing table.

    Parameters
    ----------
    model : npple.Network

    Returns
    -------
    Diagram

    Raises
    ------
    InputError
        For what is no Network.
    """
    check_kind("model", model, Network, "a Network")
    table = model.table
    layer = _layers(table)
    top = max(layer.values())
    level = {row.name: number for number, level in enumerate(table.levels, start=1)
             for row in (*level.groups, *level.fusions)}
    group = "embedding" if table.embeddings else ""
    embeddings = {name: shape for name, shape in table.shapes.items()
                  if name.startswith("embedding/")}
    nodes = [Node("input", "input", "input", 0, 0, 1, "", f"(B, {table.widths['input']})", "x",
                  "dx: cut into columns and embeddings" if group else "dx: not needed",
                  group, embeddings)]
    nodes += [_node(table, row, level.get(row.name, 0), layer[row.name]) for row in table.rows]
    nodes += [_loss(tower, top + 1) for tower in table.towers]
    edges = [edge for row in table.rows for edge in _edges(row)]
    edges += [Edge(tower.name, f"loss/{tower.task}", "reads") for tower in table.towers]
    return Diagram(model, tuple(nodes), tuple(edges))


def _layers(table: Table) -> dict[str, int]:
    """Tensor -> layer: each level's rows above the level below, all towers side by side on top."""
    layer, base = {"input": 0}, 0
    for level in table.levels:
        rows = (*level.groups, *level.fusions)
        for row in rows:
            layer[row.name] = 1 + max([base, *(layer[name] for name in row.inputs())])
        base = max(layer[row.name] for row in rows)
    return layer | dict.fromkeys((tower.name for tower in table.towers), base + 1)


def _node(table: Table, row: Row, level: int, layer: int) -> Node:
    kind, count = type(row).__name__.lower(), row.count if isinstance(row, Experts) else 1
    words = next(_WORDS[cls] for cls in type(row).__mro__ if cls in _WORDS)
    detail, formula, backward = words(row, table)
    width = table.widths[row.name]
    shape = f"({count}, B, {width})" if isinstance(row, Experts) else f"(B, {width})"
    if isinstance(row, Tower) and width == 1:
        shape = "(B,)"
    return Node(row.name, kind, _owner(row.name), level, layer, count, detail, shape, formula,
                backward, row.parameters if row.shapes(table) else "", row.shapes(table))


def _loss(tower: Tower, layer: int) -> Node:
    formula, backward = about(tower.kind).words
    return Node(f"loss/{tower.task}", "loss", tower.task, 0, layer, 1, tower.kind, "()", formula,
                backward, "", {})


def _owner(name: str) -> str:
    """`level1/vtr/experts` and `tower/vtr` -> vtr."""
    return name.split("/")[1] if "/" in name else name


def _edges(row: Row) -> Iterator[Edge]:
    """From everything that a row reads."""
    if not isinstance(row, Fusion):
        yield from (Edge(name, row.name, "reads") for name in row.inputs())
        return
    for source in row.sources:
        yield Edge(source.name, row.name, "reads", source.experts)
    if isinstance(row, Gate):
        yield Edge(row.selector, row.name, "selects")


# In words: detail, formula, backward ------------------------------------------------------------

def _experts(row: Experts, table: Table) -> Words:
    widths = _widths(table.widths[row.reads], row.units)
    return (f"{row.count} × {widths}", f"E_i = MLP_i(x), x = {row.reads}",
            "dz_i = dE_i ⊙ act'(z_i), dW_i = xᵀ dz_i, dx = Σ_i dz_i W_iᵀ, layer by layer")


def _gate(row: Gate, table: Table) -> Words:
    inside = "MLP(s)" if row.units else "s W + b" if row.bias else "s W"
    down = ", layer by layer down to ds" if row.units else ", ds = dz Wᵀ"
    return (f"softmax of {row.count(table)}",
            f"y = Σ_i w_i E_i, w = softmax(z), z = {inside}, s = {row.selector}",
            "dE_i = w_i dy, dw_i = dy · E_i, dz = w ⊙ (dw − Σ_j w_j dw_j), "
            f"dW = {'h' if row.units else 's'}ᵀ dz{down}")


def _pass(row: Pass, table: Table) -> Words:
    return "one, as it is", "y = E", "dE = dy"


def _pool(row: Pool, table: Table) -> Words:
    n = row.count(table)
    share = f" / {n}" if row.mean else ""
    return f"{'mean' if row.mean else 'sum'} of {n}", f"y = Σ_i E_i{share}", f"dE_i = dy{share}"


def _concat(row: Concat, table: Table) -> Words:
    return (f"{row.count(table)} side by side", f"y = [E_1, …, E_{row.count(table)}]",
            "dE_i = its own columns of dy")


def _stitch(row: Stitch, table: Table) -> Words:
    mixed = f"{row.count(table)}{'' if row.sources[0].group else ' levels'}"
    return (f"mix of {mixed}" if row.parts == 1 else f"{row.parts} mixes of {mixed}",
            "y_p = Σ_i α_pi E_i, α learned" if row.parts > 1 else "y = Σ_i α_i E_i, α learned",
            "dE_i = Σ_p α_pi dy_p, dα_pi = Σ dy_p ⊙ E_i")


def _route(row: Route, table: Table) -> Words:
    transform, back = (" W_i", " W_iᵀ") if row.transform else ("", "")
    return (f"{row.count(table)} switches", f"y = Σ_i z_i E_i{transform}, z hard concrete",
            f"dE_i = z_i dy{back}, dz_i = Σ dy ⊙ E_i{transform}")


def _tower(row: Tower, table: Table) -> Words:
    return (_widths(table.widths[row.reads], (*row.units, table.widths[row.name])),
            f"z = MLP(x), x = {row.reads}",
            "dz_l = dh_l ⊙ act'(z_l), dW_l = h_(l-1)ᵀ dz_l, layer by layer down to dx")


_WORDS: dict[type, Callable[..., Words]] = {
    Experts: _experts, Gate: _gate, Pass: _pass, Concat: _concat, Pool: _pool, Stitch: _stitch,
    Route: _route, Tower: _tower}


def _widths(width: int, units: Sequence[int]) -> str:
    return "→".join(map(str, (width, *units)))
