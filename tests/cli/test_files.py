"""What commands write: refused before anything is computed, and never over what is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from npple.cli import files, main
from npple.errors import FileError, InputError

SMALL = ["--data", "synthetic", "--rows", "200", "--inputs", "4", "--epochs", "1"]
LONG = "n" * 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_csv):
    folder = tmp_path_factory.mktemp("trained")
    data = str(write_csv(folder / "rows.csv"))
    assert main(["train", "--data", data, "--numeric", "age", "--categorical", "city",
                 "--binary", "clicked", "--epochs", "1", "--out", str(folder)]) == 0
    return data, str(folder / "checkpoint.npz")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command, flag", [
    (["predict"], "--out"), (["evaluate"], "--plot"), (["isolation"], "--plot")])
def test_neither_the_data_nor_the_checkpoint_is_overwritten(here, capsys, trained, command, flag):
    """Also by another name, and with an ending that is right."""
    for number, read in enumerate(trained):
        os.symlink(read, here / f"other{number}.svg")
        before = Path(read).read_bytes()
        for out in (read, f"other{number}.svg") if flag == "--out" else (f"other{number}.svg",):
            assert main([*command, "--checkpoint", trained[1], "--data", trained[0],
                         flag, out]) == 2
            error = capsys.readouterr().err
            assert f"{flag}: " in error and ("that is read" in error) and error.count("\n") == 1
        assert Path(read).read_bytes() == before


def test_no_checkpoint_is_overwritten_even_if_it_is_not_read(here, capsys, trained):
    assert main(["train", *SMALL, "--out", "other"]) == 0
    before = contents(here)
    capsys.readouterr()
    assert main(["predict", "--checkpoint", trained[1], "--data", trained[0],
                 "--out", "other/checkpoint.npz"]) == 2
    assert "is a checkpoint" in capsys.readouterr().err and contents(here) == before


def test_no_published_data_set_is_overwritten(here, capsys, trained):
    """--data names its folder, or a log whose neighbours are read."""
    for name in ("census-income.test", "user_features_pure.csv"):
        (here / name).write_text("theirs")
        assert main(["predict", "--checkpoint", trained[1], "--data", trained[0],
                     "--out", name]) == 2
        assert "is a published data set" in capsys.readouterr().err
        assert (here / name).read_text() == "theirs"


@pytest.mark.parametrize("command, one, other", [
    (["draw"], "--out", "--html"), (["clicklog"], "--out", "--later")])
def test_two_outputs_of_one_name_are_refused(here, capsys, command, one, other):
    assert main([*command, one, "x.svg", other, "./x.svg"]) == 2
    assert f"{other}: the same file as {one}" in capsys.readouterr().err and not contents(here)


def outputs(trained):
    """Each option that names a file or folder to write, in a command that would take long."""
    model = ["--checkpoint", trained[1], "--data", trained[0]]
    many = ["compare", "--data", "synthetic", "--rows", "100000000"]
    return {"predict": (["predict", *model, "--out"], ""), "plot": (["evaluate", *model, "--plot"],
            ".svg"), "isolation": (["isolation", "--model", "ple", "--plot"], ".svg"),
            "csv": ([*many, "--csv"], ""), "vectors": (["oracle", "export", "--out"], ".npz"),
            "drawing": (["draw", "--out"], ".svg"), "html": (["draw", "--html"], "")}


def folders():
    many = ["--data", "synthetic", "--rows", "100000000"]
    return {"run": ["train", *many, "--out"], "compared": ["compare", *many, "--out"],
            "plots": ["compare", *many, "--plots"], "suite": ["oracle", "export", "--all"]}


NAMES = ("predict", "plot", "isolation", "csv", "vectors", "drawing", "html")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [LONG, "file/x", "folder", "missing/x"])
def test_where_no_file_can_be_is_one_line_before_anything_is_done(here, capsys, trained, name,
                                                                  bad):
    command, ending = outputs(trained)[name]
    (here / "file").touch()
    (here / f"folder{ending}").mkdir()
    assert main([*command, bad + ending]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and f"{command[-1]}: " in error
    assert {path.name for path in here.iterdir()} == {"file", f"folder{ending}"}


@pytest.mark.parametrize("name", ["run", "compared", "plots", "suite"])
@pytest.mark.parametrize("bad", [LONG, "file", "file/x"])
def test_where_no_folder_can_be_is_one_line_before_anything_is_done(here, capsys, name, bad):
    (here / "file").touch()
    command = folders()[name]
    assert main([*command, bad]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and f"{command[-1]}: " in error
    assert [path.name for path in here.iterdir()] == ["file"]


@pytest.mark.parametrize("command, name", [
    (["oracle", "export", "--out", "a/x.npz", "--also-json"], "x.json"),
    (["oracle", "export", "--all", "a"], "manifest.json"),
    (["claims", "trainability", "--plots", "a"], "trainability.svg"),
    (["compare", "--data", "synthetic", "--rows", "100000000", "--plots", "a"], "curves.svg")])
def test_a_folder_where_a_file_will_be_is_refused_before_anything_is_done(here, capsys, command,
                                                                          name):
    (here / "a" / name).mkdir(parents=True)
    assert main(command) == 2
    assert f"'a/{name}' exists and is no file" in capsys.readouterr().err and not contents(here)


@pytest.mark.parametrize("check, path", [(files.check_file, "x"), (files.check_folder, "x/y")])
def test_a_folder_without_permission_is_refused(here, monkeypatch, check, path):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(FileError, match="--out: .*no permission to write to"):
        check("--out", path)


def test_a_device_is_no_file_to_write():
    with pytest.raises(FileError, match="exists and is no file"):
        files.check_file("--out", os.devnull)


def test_a_name_with_a_nul_is_refused_like_any_other():
    with pytest.raises(FileError, match="--out: .*null"):
        files.check_file("--out", "a\0b")


# Two at once ------------------------------------------------------------------------------------

def test_a_second_training_in_the_same_folder_is_refused(here, capsys):
    pytest.importorskip("fcntl")
    (here / "run").mkdir()
    with files.alone_in("--out", here / "run"):
        assert main(["train", *SMALL, "--out", "run"]) == 2
        assert "another training is at work there" in capsys.readouterr().err
    assert main(["train", *SMALL, "--out", "run"]) == 0


def test_a_checkpoint_that_came_meanwhile_is_kept(here, capsys, monkeypatch):
    from npple.cli import train
    made = train.make_folder

    def late(flag, path):
        made(flag, path)
        (path / "checkpoint.npz").write_bytes(b"somebody else's")
    monkeypatch.setattr(train, "make_folder", late)
    assert main(["train", *SMALL, "--out", "run"]) == 2
    assert (here / "run/checkpoint.npz").read_bytes() == b"somebody else's"


def test_trainings_without_a_folder_get_one_each(here):
    assert [str(files.new_folder("--out", "run")) for _ in range(3)] == ["run", "run-2", "run-3"]


def test_two_resumed_at_once_are_one_and_a_refusal(here, capsys):
    pytest.importorskip("fcntl")
    assert main(["train", *SMALL, "--out", "run"]) == 0
    with files.alone_in("--out", here / "run"), pytest.raises(InputError, match="--out: 'run'"):
        with files.alone_in("--out", here.relative_to(here) / "run"):
            pass


@pytest.mark.parametrize("content", ["{", "null", '{"data": 3}', '"x"', "\0" * 9, ""])
def test_a_broken_result_of_a_comparison_is_made_again(here, content):
    command = ["compare", "--data", "synthetic", "--rows", "60", "--inputs", "3", "--epochs", "1",
               "--models", "single_task", "--seeds", "1", "--correlation", "0", "--out", "kept"]
    assert main(command) == 0
    path, = (here / "kept").iterdir()
    path.write_text(content)
    assert main(command) == 0 and path.read_text().startswith('{"sha256": ')


def test_a_wrong_model_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--model", "nosuch"])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


# What is printed --------------------------------------------------------------------------------

def npple(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "npple", *arguments], text=True, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_behind_what_is_printed_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        done = npple("draw", stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "npple draw: error: printing: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_a_full_disk_behind_a_help_is_one_line(tmp_path, flag):
    with open("/dev/full", "w") as full:
        done = npple(flag, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "npple: error: printing: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("buffered", [True, False])
def test_where_nothing_at_all_can_be_printed_the_status_still_tells(tmp_path, buffered):
    options = {"cwd": tmp_path, "env": {name: value for name, value in os.environ.items()
                                        if name != "PYTHONUNBUFFERED"}}
    options["env"] |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    with open("/dev/full", "w") as full:
        assert npple("draw", stdout=full, stderr=full, **options).returncode == 2
        assert npple("draw", "--out", "no/x.svg", stderr=full, **options).returncode == 2


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_output_is_none_and_its_number_goes_to_no_file(tmp_path, closed):
    """Nor do errors go to the standard output instead."""
    for command, status in ((["draw", "--out", "x.svg"], 0), (["draw", "--model", "nosuch"], 2)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "npple", *command],
            cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status and "Traceback" not in done.stderr
        assert bool(done.stdout) == (closed == "2" and status == 0)
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


def test_a_character_that_the_terminal_lacks_is_printed_as_its_number(tmp_path):
    done = npple("draw", "--tasks", "点击", capture_output=True, cwd=tmp_path,
                 env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and r"\u70b9\u51fb" in done.stdout and done.stderr == ""


# Names of strangers -----------------------------------------------------------------------------

CLASSES = ("\x1b[2Jwipe", "=1+1", "@x")
ODD = "age,x,=cls,\x1b[31mred\x9b\u202e\n" + "".join(
    f"0.{row},{row % 2},{CLASSES[row % 3]},1\n" for row in range(60))


@pytest.fixture
def odd(here):
    """Data whose names hold control codes and formulas, and a model trained on it."""
    (here / "\x1b[31mrows.csv").write_text(ODD, encoding="utf-8")
    data = ["--data", "\x1b[31mrows.csv"]
    named = [*data, "--numeric", "age", "--binary", "x", "--multiclass", "=cls"]
    assert main(["train", *named, "--epochs", "1", "--out", "run"]) == 0
    return data, named, ["--checkpoint", "run/checkpoint.npz"]


def test_control_codes_of_a_file_reach_no_terminal_and_no_csv(here, capsys, odd):
    data, named, model = odd
    small = ["--models", "single_task", "--seeds", "1", "--epochs", "1"]
    for status, command in ((0, ["predict", *model, *data, "--out", "p.csv"]),
                            (0, ["evaluate", *model, *data]),
                            (0, ["compare", *named, *small, "--csv", "t.csv"]),
                            (2, ["train", *data, "--numeric", "agee", "--binary", "x"]),
                            (2, ["evaluate", *model, "--data", "no\x1b[31m.csv"]),
                            (2, ["draw", "--checkpoint", "no\x1b[31m.npz"])):
        assert main(command) == status
    told = "".join(capsys.readouterr())
    told += "".join((here / name).read_text() for name in ("p.csv", "t.csv"))
    assert r"\x1b[2Jwipe" in told and r"\x1b[31mred\x9b\u202e" in told
    assert not {"\x1b", "\x9b", "\u202e"} & {*told}


def test_no_name_of_a_file_is_a_line_of_a_report(here, capsys):
    """It could say there what npple says."""
    rows = "".join(f'0.{row},{row % 2},"{"xyz"[row % 3]}\nforged line",1\n' for row in range(60))
    (here / "a\nforged line").write_text(f'age,x,cls,"left\nforged line out"\n{rows}')
    named = ["--data", "a\nforged line", "--numeric", "age", "--binary", "x", "--epochs", "1"]
    assert main(["train", *named, "--multiclass", "cls", "--out", "run"]) == 0
    model = ["--checkpoint", "run/checkpoint.npz", *named[:2]]
    small = ["--models", "single_task", "--seeds", "1"]
    for command in (["predict", *model, "--out", "p.csv"], ["evaluate", *model],
                    ["compare", *named, *small]):
        assert main(command) == 0
    told = "".join(capsys.readouterr())
    assert told.count(r"\nforged line") > 5 and "\nforged line" not in told


def test_no_name_is_a_formula_of_a_spreadsheet(here, odd):
    data, _, model = odd
    assert main(["predict", *model, *data, "--out", "p.csv"]) == 0
    assert (here / "p.csv").read_text().split("\n")[0] == (
        r"x,'=cls=\x1b[2Jwipe,'=cls==1+1,'=cls=@x")
