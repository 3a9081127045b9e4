"""Whatever ends a training, at whatever moment: the checkpoint is whole, and resuming gives the
same bits as never having been interrupted."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from npple.cli import main
from npple.learn.training import Run

STEPS = 600
TRAIN = ["train", "--data", "synthetic", "--rows", "400", "--inputs", "4", "--batch-size", "8",
         "--epochs", "15", "--seed", "1", "--model", "ple", "--expert-units", "8", "--out", "run"]


def checkpoint(folder):
    return folder / "run" / "checkpoint.npz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of the training that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(TRAIN) == 0
    assert Run.load(checkpoint(folder)).step == STEPS
    return checkpoint(folder).read_bytes()


def interrupted(folder, number, delay):
    """Trains with a checkpoint after every step, and is sent a signal while it does."""
    with subprocess.Popen([sys.executable, "-m", "npple", *TRAIN, "--checkpoint-every", "1"],
                          cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as training:
        while not checkpoint(folder).exists():
            assert training.poll() is None, training.stderr.read()
            time.sleep(0.001)
        time.sleep(delay)
        training.send_signal(number)
        _, errors = training.communicate()
    return training.returncode, errors.decode()


def resumed(folder, monkeypatch):
    """The checkpoint of the interrupted training, once it was continued to its end."""
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*TRAIN, "--resume"]) == 0
    return checkpoint(folder).read_bytes()


@pytest.fixture(autouse=True)
def signals_are_heard():
    """A run in a shell's background ignores Ctrl-C, and so would the processes it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_training_after_a_step_and_says_how_to_go_on(whole, tmp_path, monkeypatch,
                                                                   number):
    status, errors = interrupted(tmp_path, number, 0.05)
    step = Run.load(checkpoint(tmp_path)).step
    assert status == 128 + number and f"stopped after step {step}, " in errors
    assert "repeat the command with --out run --resume" in errors
    assert step < STEPS and resumed(tmp_path, monkeypatch) == whole


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_kill_9_at_any_moment_loses_nothing_before_the_last_checkpoint(whole, tmp_path, monkeypatch,
                                                                       delay):
    status, _ = interrupted(tmp_path, signal.SIGKILL, delay)
    assert status == -signal.SIGKILL
    assert Run.load(checkpoint(tmp_path)).step < STEPS
    assert resumed(tmp_path, monkeypatch) == whole


def test_a_signal_ends_a_comparison_after_the_training_that_runs(tmp_path):
    command = [sys.executable, "-m", "npple", "compare", "--data", "synthetic", "--rows", "2000",
               "--inputs", "4", "--correlation", "0", "--models", "single_task", "mmoe",
               "--seeds", "6", "--budget", "2000", "--out", "kept"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as comparison:
        while not list(tmp_path.glob("kept/trial-*.json")):
            assert comparison.poll() is None, comparison.stderr.read()
            time.sleep(0.001)
        comparison.send_signal(signal.SIGINT)
        _, errors = comparison.communicate()
    kept = len(list(tmp_path.glob("kept/trial-*.json")))
    assert comparison.returncode == 128 + signal.SIGINT, errors.decode()
    assert f"stopped with {kept} of 12 results; repeat the command to go on" in errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_midst_of_writing_leaves_nothing_half_written(tmp_path, monkeypatch,
                                                                      number):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        main(["clicklog", "--rows", "10", "--out", "log.csv"])
    assert ended.value.code == 128 + number and not [*tmp_path.iterdir()]
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so(tmp_path, monkeypatch):
    """As nohup has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["clicklog", "--rows", "10", "--out", "log.csv"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


WORKERS = """
import os, sys, time
from npple.lab.workers import open_workers

if __name__ == "__main__":
    with open_workers(2) as (executor, share):
        pids = [executor.submit(os.getpid) for _ in range(2)]
        print(*{pid.result() for pid in pids}, flush=True)
        executor.submit(time.sleep, 60)
        time.sleep(60)
"""


def test_kill_9_of_a_comparison_leaves_no_workers(tmp_path):
    (tmp_path / "work.py").write_text(WORKERS)
    with subprocess.Popen([sys.executable, "work.py"], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert workers
    until = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    left = [pid for pid in workers if running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def running(pid):
    """Whether there is such a process, which has not ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.fuzz
def test_a_hundred_kills_at_random_moments(whole, tmp_path, monkeypatch):
    moments, steps = random.Random(0), []
    while len(steps) < 100:
        folder = tmp_path / f"{random.random()}"
        folder.mkdir()
        status, errors = interrupted(folder, signal.SIGKILL, moments.uniform(0, 2))
        if status:
            assert status == -signal.SIGKILL, errors
            steps.append(Run.load(checkpoint(folder)).step)
            assert resumed(folder, monkeypatch) == whole
    steps = sorted(steps)
    print(f"\n{len(steps)} kills, the last checkpoints after steps {steps[0]} to {steps[-1]}, "
          f"half of them before {steps[50]}; {len(set(steps))} different steps")
