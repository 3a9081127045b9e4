"""Blocks of rows side by side: the same bits, the same errors, and BLAS as it was before."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import pytest

import npple
from npple.core import blocks
from strategies import assert_equal, problem

TASKS = {"a": "binary", "b": "regression"}


@pytest.fixture(autouse=True)
def _as_before():
    """Tests that claim another number of threads leave BLAS with it."""
    before = blocks._get_threads()
    yield
    blocks._set_threads(before)


def loss_and_grads(count):
    """Of a batch of several blocks with `count` threads, BLAS with one."""
    blocks._set_threads(1)
    drawn = problem(npple.ple({"age": "numeric", "job": (5, 3)}, TASKS), 0, 2000)
    with patch("npple.core.blocks._get_threads", lambda: count):
        return drawn.loss_and_grads()


def test_a_gradient_has_the_same_bits_whatever_the_number_of_threads():
    loss, grads = loss_and_grads(1)
    for count in (2, 3):
        again, other = loss_and_grads(count)
        assert again == loss
        assert_equal(other, grads)


def test_as_many_run_at_a_time_as_blas_has_threads():
    together = threading.Barrier(3, timeout=60)
    with patch("npple.core.blocks._get_threads", lambda: 3):
        blocks.for_each(range(6), lambda item: together.wait(), lambda result: None)


def test_no_more_run_at_a_time_than_blas_has_threads():
    """So no more of their gradients are held than that."""
    held, most = [], []

    def run(item):
        held.append(item)
        most.append(len(held))

    with patch("npple.core.blocks._get_threads", lambda: 3):
        blocks.for_each(range(120), run, lambda result: held.pop())
    assert max(most) <= 3


def openblas(threads):
    """Set the threads that a caller finds; skip with another BLAS."""
    blocks._set_threads(threads)
    if blocks._get_threads() != threads:
        pytest.skip("NumPy has another BLAS, or fewer threads")


def digest(rows):
    """The bits of a loss, its gradients and the outputs: products that OpenBLAS splits."""
    drawn = problem(npple.ple(64, TASKS, levels=1, expert_units=(96,)), 0, rows)
    loss, grads = drawn.loss_and_grads()
    outputs = drawn.model.forward(drawn.params, drawn.x).outputs
    return loss, *(array.tobytes() for array in (*grads.values(), *outputs.values()))


SIZES = (3, 400, 500, 512, 700)


@pytest.mark.parametrize("threads", [2, 4])
def test_the_number_of_blas_threads_changes_no_bit(threads):
    openblas(1)
    expected = [*map(digest, SIZES)]
    openblas(threads)
    assert [*map(digest, SIZES)] == expected


def test_callers_in_many_threads_get_the_bits_of_one():
    openblas(2)
    expected = [*map(digest, SIZES)]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(digest, SIZES * 8)] == expected * 8
    assert blocks._get_threads() == 2


def test_callers_in_many_threads_get_the_bits_of_one_from_any_blas_with_one_thread():
    """Also one that cannot be asked for its threads, if the environment gives it one."""
    blocks._set_threads(1)
    expected = [*map(digest, SIZES)]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(digest, SIZES * 4)] == expected * 4


@pytest.mark.fuzz
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_3200_calls_of_32_callers_have_the_bits_of_one(threads):
    openblas(1)
    expected = [*map(digest, SIZES)]
    openblas(threads)
    with ThreadPoolExecutor(32) as pool:
        assert [*pool.map(digest, SIZES * 640)] == expected * 640


FORK = """
import os, threading
from npple.core import blocks
blocks._set_threads(2)
inside, done = threading.Event(), threading.Event()

def call():
    with blocks.blas_with_one_thread():
        inside.set()
        done.wait()

caller = threading.Thread(target=call)
caller.start()
inside.wait()
child = os.fork()
if child == 0:
    with blocks.blas_with_one_thread() as before:
        one = blocks._get_threads()
    os._exit((before, one, blocks._get_threads()) != (2, 1, 2))
done.set()
caller.join()
assert os.waitpid(child, 0)[1] == 0 and blocks._get_threads() == 2
"""
OUTLIVE = """
import threading, time
import numpy as np, npple

def train():
    main.join()
    model = npple.ple(4, {"a": "binary"})
    model.loss_and_grads(model.init(0), np.ones((2000, 4)), {"a": np.ones(2000)})
    print("done")

main = threading.current_thread()
threading.Thread(target=train).start()
"""


def output(script):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], text=True,
                          capture_output=True, timeout=60,
                          env=os.environ | {"OPENBLAS_NUM_THREADS": "2"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_during_a_call_has_the_threads_of_before():
    openblas(2)
    output(FORK)


def test_a_call_in_a_thread_that_outlives_the_main_one_works():
    assert output(OUTLIVE) == "done\n"


def test_results_come_in_order_and_to_the_thread_that_asked():
    first, taken = threading.Event(), []

    def run(item):
        assert item or first.wait(60)
        if item == 1:
            first.set()
        return item

    with patch("npple.core.blocks._get_threads", lambda: 2):
        blocks.for_each(range(4), run, lambda item: taken.append((item, threading.get_ident())))
    assert taken == [(item, threading.get_ident()) for item in range(4)]


@pytest.mark.parametrize("count", [1, 2])
def test_blas_has_one_thread_inside_and_its_own_number_again_after_an_error(count):
    state, seen = [count], []

    def run(item):
        seen.append(state[0])
        raise ValueError(f"item {item}")

    with (patch("npple.core.blocks._get_threads", lambda: state[0]),
          patch("npple.core.blocks._set_threads", lambda count: state.__setitem__(0, count)),
          pytest.raises(ValueError, match="item 0")):
        blocks.for_each(range(2), run, lambda result: None)
    assert set(seen) == {1} and state == [count]


def test_the_threads_of_openblas_are_found_and_set():
    build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in build:
        assert blocks._get_threads() == 1
        return
    before = blocks._get_threads()
    blocks._set_threads(1)
    assert blocks._get_threads() == 1
    blocks._set_threads(before)
    assert blocks._get_threads() == before


def test_without_openblas_blocks_run_one_after_the_other():
    with patch("ctypes.CDLL", side_effect=OSError):
        assert blocks._openblas("get_num_threads", lambda: 1)() == 1


def test_a_block_that_diverges_stops_the_step_and_names_the_tensor():
    model = npple.ple(2, TASKS)
    x, targets = np.ones((2000, 2)), {"a": np.ones(2000), "b": np.ones(2000)}
    x[1999] = 1e300
    params = {name: array * 1e10 for name, array in model.init(0).items()}
    with (patch("npple.core.blocks._get_threads", lambda: 2),
          pytest.raises(npple.Diverged, match="level1/.* is not finite")):
        model.loss_and_grads(params, x, targets)
