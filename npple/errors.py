"""The exceptions npple raises on purpose; a message says what came and what was expected."""

LONGEST = 1000  # characters of a message


class NppleError(Exception):
    """The root of them all: catch this to catch everything npple refuses.

    A message is one line, whatever it quotes, and leaves out the middle of what is endless.
    """

    def __init__(self, message):
        line = " ".join(str(message).splitlines())
        if len(line) > LONGEST:
            line = f"{line[:LONGEST // 2]} ... {line[5 - LONGEST // 2:]}"
        super().__init__(line)


class InputError(NppleError, ValueError):
    """An argument, a column or a value that cannot be used as it is."""


class MappingError(InputError):
    """Parameters of another library's module that do not fit the model's: a line for each."""

    def __init__(self, faults):
        Exception.__init__(self, faults)


class FileError(NppleError, OSError):
    """A file that cannot be read, trusted or written."""


class Diverged(NppleError, ArithmeticError):
    """Something that was computed is not finite; a run is still as before that step."""


class Stopped(NppleError):
    """Training was asked to end and did so after a step; it can be resumed from its checkpoint."""


class CheckFailed(NppleError, AssertionError):
    """A check that was asked to assert and did not pass; the message names the worst place."""

    def __init__(self, report):
        Exception.__init__(self, report)  # of as many lines as it takes


def require(condition, message):
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)
