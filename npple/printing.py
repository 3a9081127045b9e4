"""How reports print: tables of texts, and names of strangers made harmless."""

import re
from collections.abc import Collection, Sequence

HIDDEN = re.compile("[\0-\t\v-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
FORMULA = re.compile("[=+@-]")  # what spreadsheets compute, at the start of a cell


def visible(text: object) -> str:
    """A text whose control codes, all but the end of a line, stand there as their numbers."""
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(name: object) -> str:
    """A name in a report: visible, and no line of its own."""
    return visible(name).replace("\n", r"\n")


def csv_name(name: str) -> str:
    """A name as a cell of a CSV file: visible, and no formula."""
    return f"'{visible(name)}" if FORMULA.match(name) else visible(name)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table of texts, in columns as wide as they must be; those in `right` end at one place."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    pads = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths))
                     .rstrip() for row in rows)
