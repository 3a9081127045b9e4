"""Changes of a variant that the catalogue is made of, beside those of `deviations`.

Each maps (Variant, the candidate's arrays) to the changed variants, with a detail in words. What
does not apply to a table leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, TypeAlias

from npple.core.base import Arrays
from npple.core.rows import Row
from npple.oracle.deviant_gates import ExpertsGate, UnitsGate
from npple.oracle.deviant_rows import (BorrowedFusion, DeviantExperts, DeviantTower, deviant_gate,
                                       with_rows, with_sources, within)
from npple.oracle.variant import Variant
from npple.routing import Concat, Experts, Gate, Level, Pool, Source, Table, Tower

Variants: TypeAlias = Callable[[Variant, Arrays], list[tuple[Variant, str]]]


@dataclass(frozen=True)
class Free:
    """A number of the candidate's own, fitted to what it gave.

    Attributes
    ----------
    what : str
        Its name in words.
    set : callable
        (Variant, number) -> the variant with this number.
    start, low, high : float
        Where the search begins, and the legal range, ends left out.
    """

    what: str
    set: Callable[[Variant, float], Variant]
    start: float
    low: float
    high: float


def changed(**changes: Any) -> Variants:
    """Other fields of the variant itself."""
    return lambda variant, given: [(replace(variant, **changes), "")]


def forms(change: Callable[..., Variant | None], *choices: tuple[Any, str]) -> Variants:
    """One form for each choice, a value and a detail; None where there is no such variant."""
    def variants(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
        made = ((change(variant, choice), detail) for choice, detail in choices)
        return [(after, detail) for after, detail in made if after is not None]
    return variants


def rows(kind: type[Row], change: Callable[[Table, Any], Row]) -> Callable[[Variant], Variant]:
    """The variant with other rows of a kind: change(table, row) -> row."""
    def after(variant: Variant) -> Variant:
        table = with_rows(variant.table, lambda row: change(variant.table, row)
                          if isinstance(row, kind) else row)
        return replace(variant, table=table)
    return after


def deviant_experts(row: Experts, **changes: Any) -> DeviantExperts:
    """The group with these changes."""
    row = row if isinstance(row, DeviantExperts) else DeviantExperts(**vars(row))
    return replace(row, **changes)


def deviant_tower(row: Tower, **changes: Any) -> DeviantTower:
    """The tower with these changes."""
    row = row if isinstance(row, DeviantTower) else DeviantTower(**vars(row))
    return replace(row, **changes)


# Experts and towers -----------------------------------------------------------------------------

def normalised_experts(variant: Variant, norm: str) -> Variant:
    """Every layer of the experts is normalised."""
    return rows(Experts, lambda table, row: deviant_experts(row, norm=norm))(variant)


def normalised_towers(variant: Variant, norm: str) -> Variant:
    """Every hidden layer of the towers is normalised."""
    return rows(Tower, lambda table, row: deviant_tower(row, norm=norm) if row.units else row)(
        variant)


def transposed(variant: Variant, kind: type[Row]) -> Variant:
    """Square weights are used transposed."""
    def change(table: Table, row: Any) -> Row:
        square = any(shape[-1] == shape[-2] for name, shape in row.shapes(table).items()
                     if name.endswith("weight"))
        deviant: Callable[..., Row] = deviant_experts if kind is Experts else deviant_tower
        return deviant(row, transposed=True) if square else row
    return rows(kind, change)(variant)


def leaky(variant: Variant, slope: float) -> Variant:
    """The relu of experts and towers has a slope below 0."""
    def change(row: Any) -> Any:
        if "relu" not in getattr(row, "activations", ()) or isinstance(row, Gate):
            return row
        deviant: Callable[..., Row] = (deviant_experts if isinstance(row, Experts)
                                       else deviant_tower)
        return deviant(row, slope=slope)
    return replace(variant, table=with_rows(variant.table, change))


def activation_forgotten(variant: Variant, kind: type[Row]) -> Variant:
    """Backward goes through the layers as if they had no activation."""
    deviant: Callable[..., Row] = deviant_experts if kind is Experts else deviant_tower
    return rows(kind, lambda table, row: deviant(row, forgotten=True) if row.activations else row)(
        variant)


def linear_towers(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The hidden layers of the towers have no activation."""
    return [(rows(Tower, lambda table, row: replace(
        row, activations=("identity",) * len(row.units)))(variant), "")]


def towers_on_both(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """Each tower reads a task's own experts and the shared ones side by side, without a gate."""
    table = variant.table
    last = table.levels[-1]

    def beside(row: Any) -> Any:
        return Concat(row.name, row.sources) if isinstance(row, Gate) else row

    level = Level(last.groups, tuple(within(row, beside) for row in last.fusions))
    return [(replace(variant, table=Table(table.inputs, (*table.levels[:-1], level),
                                          table.towers)), "")]


def one_tower(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """A task uses the tower of another, of equal shape."""
    table, found = variant.table, []
    for lender, tower in permutations(table.towers, 2):
        alike = _alike(table, lender, tower) and lender.activations == tower.activations
        if alike:
            towers = tuple(deviant_tower(row, lender=lender.name) if row is tower else row
                           for row in table.towers)
            found.append((replace(variant, table=Table(table.inputs, table.levels, towers)),
                          f"{tower.task} uses that of {lender.task}"))
    return found


def _alike(table: Table, one: Row, other: Row) -> bool:
    """Whether two rows have parameters of the same shapes."""
    return list(one.shapes(table).values()) == list(other.shapes(table).values())


# Gates and stitches -----------------------------------------------------------------------------

def top_gates(variant: Variant, kept: int) -> Variant | None:
    """The gates keep the largest weights and scale these to one."""
    after = rows(Gate, lambda table, gate: deviant_gate(gate, kept=kept)
                 if gate.count(table) > kept else gate)(variant)
    return after if after != variant else None


def residual_gates(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The gates add what they select on, where it is as wide as the experts."""
    return [(rows(Gate, lambda table, gate: deviant_gate(gate, residual=True)
                  if table.widths[gate.selector] == gate.width(table) else gate)(variant), "")]


def gates(**changes: Any) -> Variants:
    """Other gates."""
    return lambda variant, given: [
        (rows(Gate, lambda table, gate: deviant_gate(gate, **changes))(variant), "")]


def one_for_two(kind: type[Row]) -> Variants:
    """A task uses the parameters of another's gate or stitch of equal shape, on a level or all."""
    def variants(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
        table, found = variant.table, []
        lent: dict[str, str] = {}
        every: dict[str, dict[str, str]] = {}
        for level in table.levels:
            own = {row.name: row.row if isinstance(row, BorrowedFusion) else row
                   for row in level.fusions}
            fusions = [row for row in own.values() if isinstance(row, kind)]
            for one, other in permutations(fusions, 2):
                if _alike(table, one, other) and table.row[other.name] is other:
                    pair = {other.name: one.parameters}
                    found.append((pair, f"{other.name} uses that of {one.name}"))
                    lent |= pair if one is fusions[0] else {}
                    tasks = [row.name.partition("/")[2] for row in (other, one)]
                    every.setdefault(" uses that of ".join(tasks), {}).update(pair)
        found += [(pairs, f"on all levels {what}") for what, pairs in every.items()
                  if len(pairs) > 1]
        found += [(lent, "all use the first of their level")] if len(lent) > 1 else []
        return [(replace(variant, table=_borrowing(table, each)), detail)
                for each, detail in found]
    return variants


def _borrowing(table: Table, lenders: Mapping[str, str]) -> Table:
    """The table in which fusions use the parameters of their lenders."""
    def change(row: Any) -> Any:
        if row.name not in lenders:
            return row
        return BorrowedFusion(row.name, row.sources, row, lenders[row.name])
    return with_rows(table, change)


def permuted(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The weights of a gate meet the experts of each group in reverse order."""
    def change(table: Table, gate: Any) -> Row:
        sources = tuple(replace(source, experts=tuple(reversed(
            source.experts or range(source.count(table))))) if source.group else source
            for source in gate.sources)
        return replace(gate, sources=sources) if any(
            source.count(table) > 1 for source in gate.sources) else gate
    return [(rows(Gate, change)(variant), "")]


def shared_detached(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """One task's gates let no gradient through to the shared experts."""
    found = []
    for task in variant.table.tasks:
        def change(table: Table, gate: Any, task: str = task) -> Row:
            level, _, stream = gate.name.partition("/")
            shared = f"{level}/shared/experts"
            reads = [source.name for source in gate.sources]
            return deviant_gate(gate, detached=(shared,)) if stream == task and shared in reads \
                else gate
        found.append((rows(Gate, change)(variant), task))
    return found


def on_experts(variant: Variant, on: str) -> Variant:
    """The gates select on the outputs of the experts they mix."""
    return rows(Gate, lambda table, gate: ExpertsGate(**vars(gate), on=on))(variant)


def by_unit(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The gates have a weight for every unit."""
    return [(rows(Gate, lambda table, gate: UnitsGate(**vars(gate)))(variant), "")]


# Levels and inputs ------------------------------------------------------------------------------

def _reading(table: Table, change: Callable[[int, str], str], levels: tuple[Level, ...]) -> Table:
    """The table in which the rows of a level read other representations of equal width."""
    made = []
    for at, level in enumerate(levels):
        def read(name: str, at: int = at) -> str:
            other = change(at, name)
            return other if table.widths.get(other) == table.widths[name] else name
        groups = tuple(replace(group, reads=read(group.reads)) for group in level.groups)

        def select(row: Any, read: Callable[[str], str] = read) -> Any:
            return replace(row, selector=read(row.selector)) if isinstance(row, Gate) else row

        made.append(Level(groups, tuple(within(row, select) for row in level.fusions)))
    return Table(table.inputs, tuple(made), table.towers)


def level_off_by_one(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """From level two on, rows read what stands one level further below."""
    table = variant.table

    def below(at: int, name: str) -> str:
        level, _, stream = name.partition("/")
        if not stream:
            return name
        number = int(level.removeprefix("level")) - 1
        return f"level{number}/{stream}" if number else "input"

    return [(replace(variant, table=_reading(table, below, table.levels)), "")]


def mean_of_tasks(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """From level two on, everything reads the mean of the tasks' representations."""
    table, levels = variant.table, []
    for level in table.levels[:-1]:
        tasks = tuple(Source(row.name, group=False) for row in level.fusions
                      if row.name.partition("/")[2] in table.tasks)
        mean = Pool(f"{level.fusions[0].name.partition('/')[0]}/mean of tasks", tasks, mean=True)
        levels.append(Level(level.groups, (*level.fusions, *(mean,) * (len(tasks) > 1))))
    wide = Table(table.inputs, (*levels, table.levels[-1]), table.towers)

    def read(at: int, name: str) -> str:
        return f"{name.partition('/')[0]}/mean of tasks" if "/" in name else name

    return [(replace(variant, table=_reading(wide, read, wide.levels)), "")]


def overwritten(variant: Variant, shared_last: bool) -> Variant:
    """Some gates of a level mix others' experts run anew, on what those gates have just made."""
    levels = [part for level in variant.table.levels
              for part in _one_after_the_other(variant.table, level, shared_last)]
    return replace(variant, table=Table(variant.table.inputs, tuple(levels), variant.table.towers))


def _one_after_the_other(table: Table, level: Level, shared_last: bool) -> list[Level]:
    """A level in two parts, of which the second reads what the first made where it can."""
    late = [row for row in level.fusions if row.name.endswith("/shared") == shared_last]
    early = {row.name: row for row in level.fusions if row not in late}
    again = {}
    for group in level.groups:
        stream = group.name.removesuffix("/experts")
        if stream in early and table.widths[group.reads] == early[stream].width(table):
            again[group.name] = replace(group, name=f"{group.name} again", reads=stream,
                                        parameters=group.parameters)
    names = {name: group.name for name, group in again.items()}
    changed = [with_sources(row, names) for row in late]
    read = {source.name for row in changed for source in row.sources}
    rerun = tuple(group for group in again.values() if group.name in read)
    return [Level(level.groups, tuple(early.values())),
            Level(rerun, tuple(changed))] if rerun else [level]


def multiplied(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """A binary task has the product of its probability and an earlier one's."""
    binary = [task for task, kind in variant.table.tasks.items() if kind == "binary"]
    return [(replace(variant, product=(first, second)), f"{second} that of {first}")
            for at, second in enumerate(binary) for first in binary[:at]]


def one_table(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """A column uses the embedding table of another, of equal shape."""
    columns = variant.table.embeddings
    return [(replace(variant, tables=((other, column),)), f"{other} uses that of {column}")
            for at, column in enumerate(columns) for other in list(columns)[at + 1:]
            if columns[column] == columns[other]]


def padding(variant: Variant, padding: str) -> Variant | None:
    """Code 0 of every column stands for nothing, which learns nothing."""
    return replace(variant, padding=padding) if variant.table.embeddings else None
