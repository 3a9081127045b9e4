"""What every file stands on: names of types, and the error for what cannot be used."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    Array: TypeAlias = NDArray[np.inexact]  # of real or complex floats, any shape
    Codes: TypeAlias = NDArray[np.integer]
    Mask: TypeAlias = NDArray[np.bool]
    Float64: TypeAlias = NDArray[np.float64]
    AnyArray: TypeAlias = NDArray[Any]
else:  # without numpy.typing, which takes as long to load as all of npple
    Array = Codes = Mask = Float64 = AnyArray = np.ndarray
Values: TypeAlias = Array | Codes | Mask  # real numbers
Arrays: TypeAlias = Mapping[str, Array]  # by name: parameters, gradients, tensors
Columns: TypeAlias = Mapping[str, object]  # as users pass them: arrays by name
Features: TypeAlias = Array | Mapping[str, Values]  # x (batch, width), or columns (batch, ...)
Targets: TypeAlias = Mapping[str, Values]  # by task, each (batch,)
Masks: TypeAlias = Mapping[str, Mask | None]  # by task, each (batch,); None for all rows
Gradients: TypeAlias = Iterator[tuple[str, Array]]  # a name may come twice: gradients add up
Shapes: TypeAlias = dict[str, tuple[int, ...]]
Cache: TypeAlias = Any  # what a forward keeps for its backward: each pair knows its own

LONGEST = 1000  # characters of a message
MOST = 20  # names in a message
LINES, WIDTH = 30, 100  # of a `repr`


class NppleError(Exception):
    """The root of them all: catch this to catch everything npple refuses.

    A message is one line without control codes, whatever it quotes, and leaves out the middle of
    what is endless.
    """

    def __init__(self, message: object) -> None:
        text = " ".join(str(message).splitlines())
        line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
        super().__init__(line if len(line) <= LONGEST else
                         f"{line[:LONGEST // 2]} ... {line[5 - LONGEST // 2:]}")


class InputError(NppleError, ValueError):
    """An argument, a column or a value that cannot be used as it is."""


def require(condition: object, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def brief(text: str) -> str:
    """A text in at most 30 lines of at most 100 characters: the `repr` of what may be large."""
    lines = text.splitlines()
    if len(lines) > LINES:
        lines[LINES - 1:] = [f"... and {len(lines) - LINES + 1} more lines"]
    return "\n".join(line if len(line) <= WIDTH else f"{line[:WIDTH - 4]} ..." for line in lines)


class Printed:
    """What prints in full, and is brief where an interactive session shows it."""

    def __repr__(self) -> str:
        return brief(str(self))


def nearest(what: str, name: object, choices: Iterable[str]) -> str:
    """A message for a name that is none: the nearest right one, and the first right ones.

    Parameters
    ----------
    what : str
        What the name is called, `task` or `--model`, and where it stands.
    name : object
        What came.
    choices : iterable of str
        The right names.

    Returns
    -------
    str
        "task: 'vrt', did you mean 'vtr'? expected one of vtr, vcr"
    """
    from difflib import get_close_matches
    known = list(choices)
    near = get_close_matches(str(name), known, 1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return f"{what}: {name!r:.80}, {guess}expected one of {', '.join(known[:MOST])}{more}"
