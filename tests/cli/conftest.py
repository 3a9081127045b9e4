"""What tests of commands share: an empty folder, a command's JSON, and one trained checkpoint."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from npple.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_json(capsys):
    """Runs a command with --json; what it prints, parsed."""
    def run(*arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)
    return run


@pytest.fixture(scope="session")
def census(tmp_path_factory):
    """A model trained on the bundled census with the default folder: `.folder`, `.summary`."""
    folder = tmp_path_factory.mktemp("census")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", "--epochs", "2", "--json"]) == 0
    return SimpleNamespace(folder=folder, summary=json.loads(out.getvalue()),
                           checkpoint=str(folder / "run/checkpoint.npz"))


@pytest.fixture(scope="session")
def write_csv():
    """Writes columns age, city, clicked, time, reason: clicked and time follow age, reason city."""
    def write(path, rows=120, label=True):
        rng = np.random.default_rng(0)
        lines = ["age,city,clicked,time,reason" if label else "age,city"]
        for _ in range(rows):
            age, city = rng.normal(), "ABC"[rng.integers(3)]
            labels = f",{int(age > 0)},{2 * age:.3f},{'xyz'['ABC'.index(city)]}"
            lines.append(f"{age:.4f},{city}" + (labels if label else ""))
        path.write_text("\n".join(lines) + "\n")
        return path
    return write
