"""A large batch in blocks of rows, which run side by side: one thread a block, BLAS with one each.

BLAS alone spreads only the matrix products over its threads, and rounds otherwise for each number
of them; blocks spread everything and round always alike. As many run at a time as BLAS has threads,
so what limits BLAS (OPENBLAS_NUM_THREADS, the cores of the process)
limits them, and no more gradients than that are held at a time. NumPy has no call to set that, so
OpenBLAS, which comes with NumPy, is asked directly; with another BLAS, blocks run one after the
other and the products on the threads of that BLAS.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from npple.core.base import Arrays, Features, Mask, Masks, Targets
from npple.core.passes import Trace, forward
from npple.core.table import Table

BLOCK = 512  # rows
Item = TypeVar("Item")
Result = TypeVar("Result")


def each_block(run: Callable[[Trace, Targets, Masks, dict[str, float]], Result],
               take: Callable[[Result], None], table: Table, params: Arrays, x: Features,
               targets: Targets, masks: Masks, noise: Arrays | None = None) -> None:
    """`take(run(trace, targets, masks, shares))` for each block of a batch; nothing is checked.

    Blocks have at most `BLOCK` rows and run side by side; `take` gets their results in order.
    `shares` says for each task what part of its rows are in the block: the mean over a task's rows
    in the batch is the sum of the blocks' means times these.
    """
    whole = slice(0, len(next(iter(targets.values()))))

    def run_forward(at: slice) -> Result:
        shares = {task: _count(mask, at) / max(_count(mask, whole), 1)
                  for task, mask in masks.items()}
        own = {task: None if mask is None else mask[at] for task, mask in masks.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # of this thread
            trace = forward(table, params, _rows(x, at), noise)
            return run(trace, _rows(targets, at), own, shares)

    keep_freed_memory()
    count = -(-whole.stop // BLOCK)
    edges = [whole.stop * i // count for i in range(count + 1)]
    for_each([slice(*pair) for pair in pairwise(edges)], run_forward, take)


def _count(mask: Mask | None, at: slice) -> int:
    """How many rows of a slice are in a task's sample space."""
    return at.stop - at.start if mask is None else int(np.count_nonzero(mask[at]))


def _rows(columns: Features | Targets, at: slice) -> Any:
    """Some rows of a matrix, or of each column."""
    return ({name: column[at] for name, column in columns.items()}
            if isinstance(columns, Mapping) else columns[at])


def for_each(items: Sequence[Item], run: Callable[[Item], Result], take: Callable[[Result], None]
             ) -> None:
    """`take(run(item))` for each of a list: `run` side by side in threads, `take` here, in order.

    What `run` raises is raised here, for the first item that does.
    """
    with blas_with_one_thread() as threads:
        for start in range(0, len(items), threads):
            for result in _side_by_side(items[start:start + threads], run):
                take(result)


def _side_by_side(items: Sequence[Item], run: Callable[[Item], Result]) -> Iterator[Result]:
    """`run(item)` of each, the first one in this thread, the others in threads of their own."""
    from concurrent.futures import Future
    outcomes = [Future[Result]() for _ in items]

    def work(item: Item, outcome: Future[Result]) -> None:
        try:
            outcome.set_result(run(item))
        except BaseException as error:
            outcome.set_exception(error)

    threads = [threading.Thread(target=work, args=pair)
               for pair in zip(items[1:], outcomes[1:])]
    for thread in threads:
        thread.start()
    work(items[0], outcomes[0])
    for thread in threads:
        thread.join()
    while outcomes:
        yield outcomes.pop(0).result()


@contextmanager
def blas_with_one_thread() -> Iterator[int]:
    """Hold OpenBLAS to one thread, and say how many it had: so many blocks run side by side.

    OpenBLAS has one setting a process: the first caller in takes it, the last one out restores it.
    So each caller finds one thread, whoever else is at work, and its sums have one order.
    """
    with _lock:
        _callers.append(_callers[0] if _callers else _get_threads())
        _set_threads(1)
    try:
        yield _callers[0]
    finally:
        with _lock:
            before = _callers.pop()
            if not _callers:
                _set_threads(before)


_lock, _callers = threading.Lock(), list[int]()  # what OpenBLAS had, once for each caller


def _in_child() -> None:
    """A forked process has none of its parent's callers: OpenBLAS gets its threads back."""
    while _callers:
        _set_threads(_callers.pop())
    _lock.release()


getattr(os, "register_at_fork", dict)(  # not on Windows; while forking no caller is half in
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)


def _openblas(call: str, otherwise: Callable[..., int]) -> Callable[..., int]:
    """A function of the OpenBLAS that NumPy computes with, by whatever name it was built."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return otherwise
    names = (f"{start}openblas_{call}{end}" for start in ("scipy_", "") for end in ("64_", ""))
    return next((getattr(library, name) for name in names if hasattr(library, name)), otherwise)


_get_threads = _openblas("get_num_threads", lambda: 1)
_set_threads = _openblas("set_num_threads", lambda count: 0)


@cache
def keep_freed_memory() -> None:
    """Let the C library (glibc) keep what arrays of up to 32 MB free for the arrays to come.

    Otherwise it hands large arrays back to the system, and up to a quarter of a step goes by in
    getting new ones. Making and freeing one array of that size, never touched, raises its limit,
    for the whole process; it is done once, before the first loss. NPPLE_KEEP_MEMORY=0 in the
    environment switches it off.
    """
    if os.environ.get("NPPLE_KEEP_MEMORY") != "0":
        np.empty(2**25 - 2**13, np.uint8)
