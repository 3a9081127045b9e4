"""The exceptions npple raises on purpose; a message says what came and what was expected."""


class NppleError(Exception):
    """The root of them all: catch this to catch everything npple refuses."""


class InputError(NppleError, ValueError):
    """An argument, a column or a value that cannot be used as it is."""


class FileError(NppleError, OSError):
    """A file that cannot be read, trusted or written."""


class Diverged(NppleError, ArithmeticError):
    """Something that training computed is not finite; the run still is as before that step."""


class Stopped(NppleError):
    """Training was asked to end and did so after a step; it can be resumed from its checkpoint."""


class CheckFailed(NppleError, AssertionError):
    """A check that was asked to assert and did not pass; the message names the worst place."""


def require(condition, message):
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)
