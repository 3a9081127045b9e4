"""The exceptions npple raises on purpose; a message says what came and what was expected."""

from npple.core.base import InputError, NppleError, nearest, require

__all__ = ["CheckFailed", "Diverged", "FileError", "InputError", "MappingError", "NppleError",
           "Stopped", "nearest", "require"]


class MappingError(InputError):
    """Parameters of another library's module that do not fit the model's: a line for each."""

    def __init__(self, faults: str) -> None:
        Exception.__init__(self, faults)


class FileError(NppleError, OSError):
    """A file that cannot be read, trusted or written."""


class Diverged(NppleError, ArithmeticError):
    """Something that was computed is not finite; a run is still as before that step."""


class Stopped(NppleError):
    """Training was asked to end and did so after a step; it can be resumed from its checkpoint."""


class CheckFailed(NppleError, AssertionError):
    """A check that was asked to assert and did not pass; the message names the worst place."""

    def __init__(self, report: object) -> None:
        Exception.__init__(self, report)  # of as many lines as it takes
