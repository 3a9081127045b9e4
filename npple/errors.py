"""The exceptions npple raises on purpose; a message says what came and what was expected."""


class NppleError(Exception):
    """The root of them all: catch this to catch everything npple refuses."""


class InputError(NppleError, ValueError):
    """An argument, a column or a value that cannot be used as it is."""


class FileError(NppleError, OSError):
    """A file that cannot be read, trusted or written."""


class Diverged(NppleError, ArithmeticError):
    """Training met a loss that is not finite; the run still holds the state before that step."""


class CheckFailed(NppleError, AssertionError):
    """A check that was asked to assert and did not pass; the message names the worst place."""


def require(condition, message):
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)
