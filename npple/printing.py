"""How reports print: tables of texts."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table of texts, in columns as wide as they must be; those in `right` end at one place."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    pads = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths))
                     .rstrip() for row in rows)
