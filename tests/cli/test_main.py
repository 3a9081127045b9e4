"""The command line as a whole: help, usage, what it loads."""

import subprocess
import sys

import pytest

from npple.cli import main


@pytest.mark.parametrize("command", [[], ["train"], ["predict"]])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert not command or f"npple {command[0]} --" in capsys.readouterr().out


def test_bad_usage_has_status_2(capsys):
    for arguments in ([], ["fly"], ["train", "--epochs", "many"], ["train", "--task-weight", "3"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


@pytest.mark.parametrize("arguments, message", [
    (["train", "--model", "plee"], "argument --model: no model: 'plee', did you mean 'ple'?"),
    (["train", "--optimizer", "adm"], "argument --optimizer: no optimizer: 'adm', did you mean "),
    (["gradcheck", "--model", "cgcc"], "argument --model: no model: 'cgcc', did you mean 'cgc'?"),
    (["gradcheck", "--method", "complex"], "argument --method: no method: 'complex', did you "),
    (["isolation", "--model", "mmoo"], "argument --model: no model: 'mmoo', did you mean 'mmoe'?"),
    (["compare", "--models", "ple", "mlmmoe"], "no model: 'mlmmoe', did you mean 'ml_mmoe'?"),
    (["abtest", "--models", "cg"], "argument --models: no model: 'cg', did you mean 'cgc'?"),
    (["draw", "--model", "sluce"], "argument --model: no model: 'sluce', did you mean 'sluice'?"),
    (["oracle", "export", "--model", "snr"], "argument --model: no model: 'snr', "),
    (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    (["fly"], "argument COMMAND: invalid choice: 'fly'")])
def test_bad_usage_is_one_line_that_names_the_nearest_right_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    command = " ".join(word for word in arguments[:2] if word.isalpha() and word != "fly")
    prog = f"npple {command}".strip()
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"{prog}: error: ") and message in error
    assert error.endswith(f"; see {prog} --help\n")


def loaded_modules(code):
    done = subprocess.run([sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import npple", "import npple.cli", "import npple.data"])
def test_importing_npple_loads_no_scipy(code):
    loaded = loaded_modules(code)
    assert not loaded & {"scipy", "matplotlib", "torch"} and "numpy" in loaded


def test_importing_npple_loads_the_model_alone_and_what_is_touched_later():
    assert not {name for name in loaded_modules("import npple") if name.startswith((
        "npple.verify", "npple.oracle", "npple.learn", "npple.draw", "npple.archive",
        "concurrent"))}
    assert "npple.verify.isolation" in loaded_modules("import npple; npple.isolation")


def test_every_public_name_is_there_when_asked_for_and_stays_the_same():
    code = """if True:
        import npple
        assert dir(npple) == sorted(npple.__all__)
        first = {name: getattr(npple, name) for name in npple.__all__}
        assert all(getattr(npple, name) is first[name] for name in npple.__all__)
        assert all(callable(first[name]) for name in ("gradcheck", "influence", "isolation"))"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_npple_loads_no_more_of_numpy_than_numpy_does():
    more = loaded_modules("import npple") - loaded_modules("import numpy")
    assert not {name for name in more if name.startswith("numpy")}


def test_python_m_npple_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "npple", "--version"], capture_output=True,
                          text=True, check=True)
    assert done.stdout.startswith("npple ")


def test_help_tells_the_defaults_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in text and "(default: [])" not in text
    assert "decoupled weight decay (default: 0.0)" in text


NETWORK = """
import sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(event)
                 if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto",
                              "socket.bind") else None)
from npple.cli import main
small = ["--data", "synthetic", "--rows", "40", "--inputs", "3"]
for command in (["train", *small, "--epochs", "1"], ["gradcheck", "--model", "cgc"],
                ["isolation", "--model", "cgc"], ["draw", "--html", "ple.html"],
                ["oracle", "export", "--model", "cgc", "--out", "v.npz"],
                ["oracle", "check", "v.npz", "v.npz"]):
    assert main(command) == 0
print("asked for", asked)
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
assert asked == ["socket.connect"]  # it would have been seen
"""


def test_no_connection_is_opened(tmp_path):
    done = subprocess.run([sys.executable, "-c", NETWORK], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "asked for []"
