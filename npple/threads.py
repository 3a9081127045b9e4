"""Blocks of rows side by side: one thread a block, and inside it BLAS with one thread.

BLAS alone spreads only the matrix products over its threads; blocks spread everything. As many run
at a time as BLAS has threads, so what limits BLAS (OPENBLAS_NUM_THREADS, the cores of the process)
limits them. NumPy has no call to set that, so OpenBLAS, which comes with NumPy, is asked directly;
with another BLAS, blocks run one after the other and the products on the threads of that BLAS.
"""

import ctypes

import numpy as np


def for_each(items, run, take):
    """`take(run(item))` for each of a list: `run` side by side in threads, `take` here, in order.

    What `run` raises is raised here, for the first item that does.
    """
    threads = _get_threads()
    count = min(threads, len(items))
    if count < 2:
        for item in items:
            take(run(item))
        return
    from concurrent.futures import ThreadPoolExecutor
    _set_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            for result in pool.map(run, items):
                take(result)
    finally:
        _set_threads(threads)


def _openblas(call, otherwise):
    """A function of the OpenBLAS that NumPy computes with, by whatever name it was built."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    except (AttributeError, OSError):
        return otherwise
    names = (f"{prefix}openblas_{call}{suffix}" for prefix in ("scipy_", "")
             for suffix in ("64_", ""))
    return next((getattr(library, name) for name in names if hasattr(library, name)), otherwise)


_get_threads = _openblas("get_num_threads", lambda: 1)
_set_threads = _openblas("set_num_threads", lambda count: None)
