"""What every file stands on: names of types, and the error for what cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    Array: TypeAlias = NDArray[np.inexact]  # of real or complex floats, any shape
    Codes: TypeAlias = NDArray[np.integer]
    Mask: TypeAlias = NDArray[np.bool]
else:  # without numpy.typing, which takes as long to load as all of npple
    Array = Codes = Mask = np.ndarray
Arrays: TypeAlias = Mapping[str, Array]  # by name: parameters, gradients, tensors
Features: TypeAlias = Array | Mapping[str, Array | Codes]  # x (batch, width), or columns (batch,)
Targets: TypeAlias = Mapping[str, Array | Codes]  # by task, each (batch,)
Masks: TypeAlias = Mapping[str, Mask | None]  # by task, each (batch,); None for all rows
Gradients: TypeAlias = Iterator[tuple[str, Array]]  # a name may come twice: gradients add up
Shapes: TypeAlias = dict[str, tuple[int, ...]]
Cache: TypeAlias = Any  # what a forward keeps for its backward: each pair knows its own

LONGEST = 1000  # characters of a message


class NppleError(Exception):
    """The root of them all: catch this to catch everything npple refuses.

    A message is one line, whatever it quotes, and leaves out the middle of what is endless.
    """

    def __init__(self, message: object) -> None:
        line = " ".join(str(message).splitlines())
        if len(line) > LONGEST:
            line = f"{line[:LONGEST // 2]} ... {line[5 - LONGEST // 2:]}"
        super().__init__(line)


class InputError(NppleError, ValueError):
    """An argument, a column or a value that cannot be used as it is."""


def require(condition: object, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)
