"""Ctrl-C, SIGTERM and SIGHUP as requests: what is running ends where nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
           if hasattr(signal, name)]  # Windows knows no SIGHUP


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that what is half written is removed.

    They do not where somebody else handles or ignores them, or outside the main thread.
    """
    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    ours = [each for each in SIGNALS if main and signal.getsignal(each) == signal.SIG_DFL]
    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


@contextlib.contextmanager
def on_signal(stop: Callable[[int], object]) -> Iterator[None]:
    """Calls `stop(number)` at the first Ctrl-C, SIGTERM or SIGHUP; a second one acts as ever.

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
