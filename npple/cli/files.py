"""What commands write: refused early where it could not be written or would destroy an input."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from npple.checks import shown
from npple.errors import FileError, InputError, require
from npple.learn import census, kuairand

CHECKPOINT = b'"npple checkpoint"'  # stands near the start of every one
PICTURES = (".svg", ".png", ".pdf")
PUBLISHED = (census.TRAIN_FILE, census.TEST_FILE, f"{census.TRAIN_FILE}.gz",
             f"{census.TEST_FILE}.gz", kuairand.EARLY, kuairand.LATE, kuairand.USERS,
             kuairand.VIDEOS)  # files that are read where --data names their folder, or a neighbour


def check_file(flag: str, path: str | None, inputs: Mapping[str, str | None] | None = None,
               endings: tuple[str, ...] = ()) -> None:
    """Raise unless a file can be written there without harm.

    Parameters
    ----------
    flag : str
        The option that names it.
    path : str or None
        None is nothing to write.
    inputs : dict flag -> path, optional
        What the command reads.
    endings : tuple of str, optional
        The endings that the file may have.

    Raises
    ------
    InputError
        If it is an input, a checkpoint or a published data set, or has another ending.
    FileError
        If it is a folder or a device, or there is no folder to hold it.
    """
    if path is None:
        return
    require(not endings or Path(path).suffix in endings,
            f"{flag}: {shown(path)}, expected a file that ends in {', '.join(endings)}")
    with _refusing(flag, path, "a file to write"):
        there = _exists(path)
        for other, read in (inputs or {}).items():
            same = there and read is not None and _exists(read) and os.path.samefile(path, read)
            require(not same, f"{flag}: {shown(path)} is the {other} that is read, expected "
                              "another file")
        if there and not os.path.isfile(path):
            raise FileError(f"{flag}: {shown(path)} exists and is no file, expected a file to "
                            "write")
        if there:
            require(Path(path).resolve().name not in PUBLISHED, f"{flag}: {shown(path)} is a "
                    "published data set, expected another file")
            with open(path, "rb") as file:
                require(CHECKPOINT not in file.read(1000),
                        f"{flag}: {shown(path)} is a checkpoint, expected another file")
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"no folder {shown(str(folder))}")
        _check_writable(folder)


def check_plot(flag: str, path: str | None, inputs: Mapping[str, str | None] | None = None
               ) -> None:
    """As `check_file`, for a picture that matplotlib draws."""
    if path is not None:
        check_file(flag, path, inputs, PICTURES)
        from npple.draw.plots import need_matplotlib
        need_matplotlib()


def check_apart(flag: str, path: str | None, other: str, second: str | None) -> None:
    """Raise `InputError` if two options name one file to write."""
    require(path is None or second is None or Path(path).resolve() != Path(second).resolve(),
            f"{other}: the same file as {flag}, expected another one")


def check_folder(flag: str, path: str | Path | None, names: Sequence[str] = ()) -> None:
    """Raise an error unless files can be written to a folder that is there or can be made.

    Parameters
    ----------
    flag : str
        The option that names it.
    path : str or Path or None
        None is nothing to write.
    names : sequence of str, optional
        Of files that will be written there.

    Raises
    ------
    FileError
        If it is no folder, or one without permission, or a name is a folder's there.
    InputError
        If a name is a checkpoint's there.
    """
    if path is not None:
        with _refusing(flag, path, "a folder to write to"):
            there = next(each for each in (Path(path).absolute(), *Path(path).absolute().parents)
                         if _exists(each))
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            _check_writable(there)
        for name in names if Path(path).is_dir() else ():
            check_file(flag, str(Path(path, name)))


def new_folder(flag: str, name: str) -> Path:
    """A folder of that name that nobody had before: the first of name, name-2, name-3 and so on."""
    for number in itertools.count(1):
        path = Path(name if number == 1 else f"{name}-{number}")
        with _refusing(flag, path, "a folder to write to"), contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError


@contextlib.contextmanager
def alone_in(flag: str, folder: Path) -> Iterator[None]:
    """Nobody else is in this block with the same folder, on the systems that can tell.

    Raises
    ------
    InputError
        If somebody is.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # Windows; file systems without locks
            import fcntl
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{flag}: {shown(str(folder))}: another training is at work "
                                 "there, expected another folder") from None
        yield


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write to {shown(str(folder))}")


def _exists(path: str | Path) -> bool:
    """Whether something is there; an `OSError` if that cannot be known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def _refusing(flag: str, path: str | Path, expected: str) -> Iterator[None]:
    """What the system says of a path, as one line."""
    try:
        yield
    except (FileError, InputError, FileExistsError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{flag}: {shown(str(path))}: {reason}, expected {expected}") from None
