"""Where trainings run: processes that outlive each other, or a Dask cluster."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from queue import SimpleQueue
from typing import Any

from npple.checks import check_count
from npple.errors import InputError
from npple.learn.interruption import SIGNALS

MOST = 1000  # processes
TRIES = 3  # a call that ended so many processes will end the next one too
BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Processes(Executor):
    """Processes of their own, one call at a time in each; one that dies is replaced.

    The call that it was working on is repeated, the other processes go on: in one
    `ProcessPoolExecutor` all of them would end. Processes are spawned, with one BLAS thread each
    unless the environment says otherwise, so that sums have one order however many there are.

    Parameters
    ----------
    workers : int

    Raises
    ------
    InputError
        For a number that is none; and as the result of a call that ended 3 processes.
    """

    def __init__(self, workers: int) -> None:
        check_count("workers", workers, most=MOST)
        for name in BLAS:
            os.environ.setdefault(name, "1")  # too late for this process, in time for the others
        self._idle: SimpleQueue[ProcessPoolExecutor | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # made when it is needed
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs a call in the next process that is free.

        Parameters
        ----------
        function : callable
            Like the arguments and the result, something that can be pickled.
        *args, **kwargs
            What it is called with.

        Returns
        -------
        concurrent.futures.Future
            Of what the call returns or raises.
        """
        return self._threads.submit(self._call, function, *args, **kwargs)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        process = self._idle.get()
        try:
            for _ in range(TRIES):
                process = process or _process()
                try:
                    return process.submit(function, *args, **kwargs).result()
                except BrokenProcessPool:
                    process = None
        finally:
            self._idle.put(process)
        raise InputError(f"workers: {TRIES} processes died of the same run; less memory is "
                         "needed with fewer workers")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and ends the processes that are free.

        Parameters
        ----------
        wait : bool
            Whether to wait until the calls have ended, so that all processes are free.
        cancel_futures : bool
            Whether to drop the calls that have not begun.
        """
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self._idle.empty():
            if process := self._idle.get():
                process.shutdown(wait)


def _process() -> ProcessPoolExecutor:
    """One process."""
    try:
        return ProcessPoolExecutor(1, get_context("spawn"), _settle)
    except OSError as error:
        raise InputError(f"workers: {error.strerror}, expected fewer") from None


def _settle() -> None:
    """What a new process does first: it leaves signals to its parent, and will end with it.

    Ctrl-C and the end of a terminal are for the parent, which lets it finish its call.
    """
    for each in {*SIGNALS} - {signal.SIGTERM}:
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process once its parent is gone, killed perhaps: nobody wants its result."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def open_workers(workers: int = 1, dask: str | None = None) -> Any:
    """Processes of this machine, or an existing Dask cluster.

    Parameters
    ----------
    workers : int
    dask : str, optional
        Address of a Dask scheduler, where npple must be installed too; then `workers` is not
        looked at.

    Yields
    ------
    executor : concurrent.futures.Executor
    share : callable
        Brings what many calls need to where they run, once; what it returns is passed instead.

    Raises
    ------
    InputError
        Where the `dask` extra is not installed, or nobody answers at that address.
    """
    if dask is None:
        with Processes(workers) as executor:
            yield executor, lambda value: value
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError("dask: needs distributed: pip install 'npple[dask]'") from None
    try:
        client = Client(dask, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"dask: no scheduler at {dask!r}: {error}") from None
    with client, client.get_executor(pure=False) as executor:
        yield executor, lambda value: client.scatter(value, broadcast=True)
