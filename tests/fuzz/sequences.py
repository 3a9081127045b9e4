"""What somebody may do with trainings in one folder, in any order, and what may come of it.

A rule machine of Hypothesis: a rule is a step. Each step ends with status 0, or with one line and
status 2; one that a signal ended with that signal's. A step changes no file but its own, and these
are whole: what a training, a prediction, a comparison or an export leaves has, byte for byte, what
the same one left that nobody interrupted, in whatever order things were done.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import npple
from damage import DAMAGES, TEXT_DAMAGES
from npple import archive, oracle
from npple.cli import main
from npple.lab import compare, trials
from npple.learn.training import Run
from runner import PATIENCE

ROWS = "age,city,clicked,time\n" + "".join(
    f"{i % 7},{'ABC'[i % 3]},{i % 2},{i % 5}\n" for i in range(60))
FILE = ["--data", "rows.csv", "--numeric", "age", "--categorical", "city", "--binary", "clicked",
        "--regression", "time", "--batch-size", "16", "--expert-units", "3", "--tower-units", "2"]
SETTINGS = {
    "ple": [*FILE, "--seed", "1"],
    "bottom": [*FILE, "--model", "shared_bottom", "--keep-best", "per-task", "--rate", "0.1"],
    "made up": ["--data", "synthetic", "--rows", "40", "--inputs", "3", "--batch-size", "16",
                "--model", "snr_trans", "--expert-units", "3"]}
LOADED = {name: content for name, content in SETTINGS.items() if "rows.csv" in content}
MODELS = {name: ["--model", name, "--inputs", "3", "--tasks", "2", "--expert-units", "2",
                 "--tower-units", "2", "--seed", "3"] for name in ("cgc", "shared_bottom")}
MOST = 100_000  # calls of what writes, those of the longest training here
WRITING = (archive.__file__, trials.__file__, zipfile.__file__)  # a process is killed in these
WRITES = ("fsync", "replace", "link")  # and gets a signal before one of these

settings_of, trainings = st.sampled_from([*SETTINGS]), st.sampled_from("ab")
bundles, numbers = st.sampled_from([*MODELS]), st.integers(0, 2**16)
epochs_of, moments = st.integers(1, 3), st.integers(1, 14)
calls_of = st.integers(1, MOST) | st.integers(1, 200)
outputs = st.sampled_from([*["p.csv", "q.csv"] * 4, "rows.csv", "nowhere/p.csv", "a/checkpoint.npz",
                           "b/checkpoint.npz", "taken"])


class Sequence(RuleBasedStateMachine):
    """A folder, what is known of the files in it, and the steps."""

    tally = Counter()  # (step, how it ended) -> how often, of all sequences

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="npple-sequence-"))
        (self.folder / "rows.csv").write_text(ROWS)
        (self.folder / "taken").mkdir()
        self.whole = {}  # file -> its bytes before somebody damaged it
        self.trained = {}  # training -> its settings

    def teardown(self):
        shutil.rmtree(self.folder)

    # The steps ------------------------------------------------------------------------------------

    @initialize(name=trainings, settings=settings_of, epochs=epochs_of)
    def first(self, name, settings, epochs):
        self.train(name, settings, epochs)

    @rule(name=trainings, settings=settings_of, epochs=epochs_of)
    def train(self, name, settings, epochs):
        """A training in a folder of its own; never over another."""
        file = f"{name}/checkpoint.npz"
        free = not self.there(file)
        with self.changing("train", *[file] * free) as ended:
            ended += run(self.folder, "train", *SETTINGS[settings], *lasting(name, epochs))
            assert ended[0] == (0 if free else 2), ended
        if free:
            self.trained[name] = settings
            assert self.read(file) == trained(settings, epochs)

    @rule(name=trainings, settings=settings_of, epochs=epochs_of, same=st.booleans())
    def resume(self, name, settings, epochs, same):
        """To the end that a training has which nobody interrupted."""
        file = f"{name}/checkpoint.npz"
        settings = self.trained.get(name, settings) if same else settings
        right = self.there(file) and self.trained[name] == settings
        before = self.sound(file) if right else None
        damaged = self.read(file) if file in self.whole else None
        with self.changing("resume", file) as ended:
            ended += run(self.folder, "train", *SETTINGS[settings], *lasting(name, epochs),
                         "--resume")
            assert ended[0] == 0 if right and file not in self.whole else ended[0] in (0, 2), ended
            assert right or ended[0] == 2, ended
        if ended[0] == 0:
            expected = resumed(settings, epochs, before)
            if self.read(file) == damaged:
                assert expected == before, "nothing trained, though something was left to train"
            else:
                self.whole.pop(file, None)
                assert self.read(file) == expected

    @rule(name=trainings, settings=settings_of, epochs=epochs_of, moment=calls_of)
    def kill(self, name, settings, epochs, moment):
        """A training that is killed while it writes: the checkpoint is whole, or not there."""
        file = f"{name}/checkpoint.npz"
        settings = self.trained.get(name, settings)
        damaged = self.whole.get(file)
        with self.changing("kill", file, f"{name}/.npple-") as ended:
            ended += forked(self.folder, moment, "train", *SETTINGS[settings],
                            *lasting(name, epochs), "--checkpoint-every", "1",
                            *["--resume"] * self.there(file))
            assert ended[0] in (0, 2, -signal.SIGKILL), ended
        for left in (self.folder / name).glob(".npple-*.tmp"):
            left.unlink()  # as the page says one can
        if self.there(file) and (damaged is None or ended[0] == 0):
            self.trained[name] = settings
            Run.load(self.folder / file)
            self.whole.pop(file, None)
        elif damaged is not None and ended[0] != 2:
            with contextlib.suppress(npple.FileError):  # killed before, or after, its first write
                Run.load(self.folder / file)
                self.whole.pop(file, None)

    @rule(name=trainings, settings=settings_of, epochs=epochs_of, moment=moments,
          number=st.sampled_from([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
    def interrupt(self, name, settings, epochs, moment, number):
        """A training that gets a signal while it writes ends with a checkpoint, and says how."""
        file = f"{name}/checkpoint.npz"
        settings = self.trained.get(name, settings)
        with self.changing("interrupt", file) as ended:
            with interrupting(number, moment):
                ended += run(self.folder, "train", *SETTINGS[settings], *lasting(name, epochs),
                             "--checkpoint-every", "1", *["--resume"] * self.there(file))
            assert ended[0] in (0, 128 + number) or file in self.whole and ended[0] == 2, ended
        if ended[0] != 2 and self.there(file):
            self.trained[name] = settings
            self.whole.pop(file, None)
            Run.load(self.folder / file)

    @rule(name=trainings, settings=settings_of, epochs=epochs_of)
    def together(self, name, settings, epochs):
        """Two trainings at once in one folder are one and a refusal."""
        file = f"{name}/checkpoint.npz"
        free = not self.there(file)
        command = "train", *SETTINGS[settings], *lasting(name, epochs)
        with self.changing("together", *[file] * free) as ended:
            both = [start(self.folder, 0, *command) for _ in range(2)]
            found = sorted(map(end, both))
            assert [status for status, _ in found] == ([0, 2] if free else [2, 2]), found
            assert len(found[1][1].splitlines()) == 1, found
            ended += found[0]
        if free:
            self.trained[name] = settings
            assert self.read(file) == trained(settings, epochs)

    @rule(name=trainings, out=outputs)
    def predict(self, name, out):
        """Into a new file or over an old one, never over what is read."""
        file, place = f"{name}/checkpoint.npz", self.folder / out
        if out.endswith(".npz") and place.parent.exists() and not place.exists():
            return  # left by a training that was killed: a new file as any other
        with self.changing("predict", out) as ended:
            ended += run(self.folder, "predict", "--checkpoint", file, "--data", "rows.csv",
                         "--out", out)
            able = self.able(name) and out in ("p.csv", "q.csv")
            assert ended[0] == 0 if able and file not in self.whole else ended[0] in (0, 2), ended
            assert able or ended[0] == 2, ended
        if ended[0] == 0:
            assert self.read(out) == answered("predict", self.sound(file))

    @rule(name=trainings)
    def evaluate(self, name):
        file = f"{name}/checkpoint.npz"
        with self.changing("evaluate") as ended:
            ended += run(self.folder, "evaluate", "--checkpoint", file, "--data", "rows.csv",
                         "--json")
            assert ended[0] == 0 if self.able(name) and file not in self.whole else (
                ended[0] in (0, 2)), ended
        if ended[0] == 0:
            assert self.able(name) and ended[1].encode() == answered("evaluate", self.sound(file))

    @rule(model=bundles)
    @precondition(lambda self: not self.there("v.npz") or "v.npz" in self.whole)
    def export(self, model):
        """Test vectors, in the place of damaged ones."""
        with self.changing("export", "v.npz") as ended:
            ended += run(self.folder, "oracle", "export", *MODELS[model], "--out", "v.npz")
            assert ended[0] == 0 or "v.npz" in self.whole and ended[0] == 2, ended
        if ended[0] == 0:  # and not refused, since what was damaged looks like a checkpoint
            self.whole.pop("v.npz", None)
            assert self.read("v.npz") == exported(model)

    @rule(wrong=st.booleans())
    @precondition(lambda self: self.there("v.npz"))
    def check(self, wrong):
        """A verdict is 1 for results that are wrong, and 0 for those that are right."""
        results = "wrong.npz" if wrong else "v.npz"
        if wrong:
            np.savez(self.folder / results, **wrongly(self.sound("v.npz")))
        with self.changing("check") as ended:
            ended += run(self.folder, "oracle", "check", "v.npz", results)
            verdict = 1 if wrong else 0
            assert ended[0] == verdict or "v.npz" in self.whole and ended[0] == 2, ended
        (self.folder / "wrong.npz").unlink(missing_ok=True)

    @rule(moment=st.integers(0, 32))
    def compare(self, moment):
        """A comparison that keeps its results, killed or not: its words are the same each time."""
        kept = [f"kept/{path.name}" for path in (self.folder / "kept").glob("trial-*.json")]
        with self.changing("compare", "kept/") as ended:
            if moment:
                ended += comparing(self.folder, moment)
                assert ended[0] in (0, -signal.SIGKILL), ended
            else:
                assert comparison(self.folder / "kept") == comparison(None)
                ended += 0, ""
        for left in (self.folder / "kept").glob(".npple-*.tmp"):
            left.unlink()
        for file in kept if ended[0] == 0 else ():
            self.whole.pop(file, None)  # trained anew, if it was damaged

    @rule(number=numbers)
    def damage(self, number):
        """Disks, networks and people; of damage that changes nothing nobody need know."""
        r = Random(number)
        files = [file for file in self.files() if file.endswith((".npz", ".json"))]
        if not files:
            return
        file = r.choice(files)
        content = self.sound(file)
        damaged = r.choice(DAMAGES if file.endswith(".npz") else TEXT_DAMAGES)(r, content)
        (self.folder / file).write_bytes(damaged)
        self.whole[file] = content
        if damaged == content:
            del self.whole[file]
        self.tally["damage", "done"] += 1

    @rule(name=trainings)
    def remove(self, name):
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self.whole.pop(f"{name}/checkpoint.npz", None)
        self.trained.pop(name, None)

    @rule(name=trainings, callers=st.integers(2, 6))
    def call_from_threads(self, name, callers):
        """Callers at the same time get what one gets alone."""
        file = f"{name}/checkpoint.npz"
        with self.changing("callers") as ended, ThreadPoolExecutor(callers) as pool:
            asked = [self.folder / file] * 2 * callers
            found = {*pool.map(predicted, asked)}
            ended += 0, ""
            assert len(found) == 1, f"callers got different answers: {found}"
            answer, = found
        if self.able(name) and (file not in self.whole or answer != "refused"):
            assert answer == predictions(self.sound(file))
        else:
            assert answer == "refused"

    # What is known --------------------------------------------------------------------------------

    def files(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*")
                      if path.is_file())

    def there(self, file):
        return (self.folder / file).exists()

    def read(self, file):
        return (self.folder / file).read_bytes()

    def sound(self, file):
        """What a file held before it was damaged."""
        return self.whole[file] if file in self.whole else self.read(file)

    def able(self, name):
        """Whether there is a training to predict with from a file."""
        return self.there(f"{name}/checkpoint.npz") and self.trained[name] in LOADED

    @contextlib.contextmanager
    def changing(self, step, *files):
        """A step, and what it may change: files whose names begin so; how it ended goes in."""
        before, ended = {file: self.read(file) for file in self.files()}, []
        yield ended
        self.tally[step, ended[0]] += 1
        after = {file: self.read(file) for file in self.files()}
        changed = {file for file in before | after if before.get(file) != after.get(file)}
        assert {file for file in changed if not file.startswith(files)} == set(), (step, ended)
        assert ended[0] != 2 or not changed, f"{step} refused and changed {changed}"
        assert ended[0] != 2 or len(ended[1].splitlines()) == 1, ended


def lasting(name, epochs):
    return ["--epochs", str(epochs), "--out", name]


# Calls ----------------------------------------------------------------------------------------

def run(folder, *arguments):
    """The status of a command in this process, and what it printed, or its errors."""
    with (contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out,
          contextlib.redirect_stderr(io.StringIO()) as errors):
        try:
            status = main(arguments)
        except SystemExit as error:
            status = error.code
    return status, out.getvalue() if status == 0 else errors.getvalue()


def start(folder, moment, *arguments, call=run):
    """A command in a process of its own, killed at the `moment`-th call of what writes, if any."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # `end` closes it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that this process may have
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            kill_at(moment)
            status, text = call(folder, *arguments)
            errors.write(text if status else "")
            errors.flush()
        finally:
            os._exit(locals().get("status", 77))
    return child, errors


def end(process):
    """The status of a process and its errors."""
    child, errors = process
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with errors:
        errors.seek(0)
        return status, errors.read()


def forked(folder, moment, *arguments):
    return end(start(folder, moment, *arguments))


def kill_at(moment):
    """Kill this process before a call that Python's or npple's own writing of files makes."""
    left = moment

    def watch(frame, event, argument):
        nonlocal left
        if event == "c_call" and frame.f_code.co_filename in WRITING:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch if moment else None)


@contextlib.contextmanager
def interrupting(number, moment):
    """This process gets a signal at one of its writes."""
    count, own = 0, {name: getattr(os, name) for name in WRITES}

    def writing(name):
        def write(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), number)
            return own[name](*arguments, **options)
        return write

    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        for name in WRITES:
            setattr(os, name, writing(name))
        yield
    finally:
        for name, function in own.items():
            setattr(os, name, function)
        signal.signal(number, before)


def comparison(folder):
    """The results of a small comparison, without the seconds."""
    cases = compare.synthetic_cases((0.5,), rows=60, inputs=3)
    found = compare.compare(cases, ["single_task", "shared_bottom"], seeds=(0,), out=folder,
                            training=compare.Training(1))
    return json.dumps([{name: value for name, value in result.items() if name != "seconds"}
                       for result in found.results])


def comparing(folder, moment):
    """The same in a process that is killed while it writes."""
    return end(start(folder, moment, call=lambda folder: (comparison(folder / "kept") == "", "")))


def predicted(path):
    """The predictions of a checkpoint for the rows, as text, or that there are none."""
    try:
        found = npple.load(path).predict(path.parents[1] / "rows.csv")
    except npple.NppleError:
        return "refused"
    return repr({task: values.tobytes() for task, values in found.items()})


# What nobody interrupts, each once ------------------------------------------------------------

@contextlib.contextmanager
def elsewhere():
    with tempfile.TemporaryDirectory(prefix="npple-alone-") as name:
        (Path(name) / "rows.csv").write_text(ROWS)
        yield Path(name)


@cache
def trained(settings, epochs):
    """The checkpoint of a training."""
    with elsewhere() as folder:
        assert run(folder, "train", *SETTINGS[settings], *lasting("a", epochs))[0] == 0
        return (folder / "a/checkpoint.npz").read_bytes()


@cache
def resumed(settings, epochs, before):
    """The checkpoint of a training that goes on: that of one which nobody interrupted."""
    with elsewhere() as folder:
        (folder / "before.npz").write_bytes(before)
        saved = Run.load(folder / "before.npz")
    over = (saved.epoch, saved.batch) > (epochs, 0)
    return before if over else trained(settings, epochs)


@cache
def answered(command, content):
    """What is predicted or evaluated with a checkpoint."""
    with elsewhere() as folder:
        (folder / "c.npz").write_bytes(content)
        written = ["--out", "p.csv"] if command == "predict" else ["--json"]
        status, text = run(folder, command, "--checkpoint", "c.npz", "--data", "rows.csv", *written)
        assert status == 0
        return (folder / "p.csv").read_bytes() if command == "predict" else text.encode()


@cache
def predictions(content):
    with elsewhere() as folder:
        (folder / "a").mkdir()
        (folder / "a/checkpoint.npz").write_bytes(content)
        return predicted(folder / "a/checkpoint.npz")


@cache
def exported(model):
    with elsewhere() as folder:
        assert run(folder, "oracle", "export", *MODELS[model], "--out", "v.npz")[0] == 0
        return (folder / "v.npz").read_bytes()


@cache
def wrongly(content):
    """Results of which one tensor is wrong."""
    with elsewhere() as folder:
        (folder / "v.npz").write_bytes(content)
        expected = oracle.load(folder / "v.npz").expected
    name = next(name for name in expected if name.startswith("tower/"))
    return expected | {name: expected[name] * 1.5 + 1}
