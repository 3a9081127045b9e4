"""The types that users get: their programs are checked, their mistakes found at the line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import npple

pytest.importorskip("mypy")

RIGHT = '''\
import numpy as np

import npple

model = npple.ple(inputs={"age": "numeric", "job": (5, 3)}, tasks={"a": "binary"}, levels=2,
                  task_experts={"a": 2}, expert_units=((8,), (4,)))
params = model.init(seed=0, dtype=np.float32)
x = {"age": np.ones(4, np.float32), "job": np.arange(4)}
targets = {"a": np.array([0, 1, 0, 1])}
trace = model.forward(params, x)
reveal_type(trace["level1/a"])
loss, grads = model.loss_and_grads(params, x, targets, masks={"a": np.ones(4, bool)})
reveal_type(loss)
adam = npple.Adam(rate=1e-3)
params, state = adam.step(params, grads, adam.init(params))
report = npple.gradcheck(model, params, x, targets)
reveal_type(report.passed)
reveal_type(npple.isolation(model).matrix)
vectors = npple.oracle.make_vectors(model, seed=0)
reveal_type(npple.oracle.check(vectors, vectors.expected).passed)
run = npple.fit({"age": [1.0, 2.0]}, numeric=["age"], tasks={"a": "binary"}, levels=1)
reveal_type(npple.load("run.npz").predict("rows.csv"))
reveal_type(run.evaluate({"age": [3.0], "a": [1]}, group="user").tasks)
'''
WRONG = '''\
import npple
npple.ple(inputs="x", tasks=3)
npple.mmoe(3, {"a": "binary"}, experts="four")
npple.Adam(rate="fast")
npple.ple(3, {"a": "binary"}).init(seed=0).append(1)
npple.no_such_name
'''


def checked(program, tmp_path):
    """What mypy --strict says to a program."""
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    folder = Path(npple.__file__).parents[1]  # mypy does not follow editable installations
    found = {} if folder.name == "site-packages" else {"MYPYPATH": str(folder)}
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent",
                           "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}", str(file)],
                          capture_output=True, text=True, encoding="utf-8", cwd=tmp_path,
                          env=os.environ | found)
    assert "program.py" in done.stdout, done.stdout + done.stderr
    return [line.partition("program.py:")[2] for line in done.stdout.splitlines()]


def test_a_users_program_is_typed_throughout(tmp_path):
    said = checked(RIGHT, tmp_path)
    assert not [line for line in said if "error" in line], said
    revealed = "\n".join(said)
    assert revealed.count("Revealed type") == 7 and 'Revealed type is "Any"' not in revealed


def test_a_users_mistakes_are_found_at_their_lines(tmp_path):
    lines = {int(line.split(":")[0]) for line in checked(WRONG, tmp_path) if "error" in line}
    assert lines == {2, 3, 4, 5, 6}
