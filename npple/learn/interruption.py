"""Ctrl-C and SIGTERM as requests: what is running ends where nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_signal(stop: Callable[[int], object]) -> Iterator[None]:
    """Calls `stop(number)` at the first Ctrl-C or SIGTERM; a second one acts as ever.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Parameters
    ----------
    stop : callable
        Takes the signal's number, and returns soon: it runs between two instructions of whatever
        the main thread is doing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        restore()
        stop(number)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.getsignal(each) for each in SIGNALS}
    before = {each: handler for each, handler in before.items() if handler != signal.SIG_IGN}
    for each in before:  # what is ignored, as a shell does for its background, stays so
        signal.signal(each, ask)
    try:
        yield
    finally:
        restore()
