"""The one file format: named arrays and a JSON record, for checkpoints and for test vectors.

An archive is a zip of uncompressed members: one `<name>.npy` per array, so that plain
`np.load(path)` reads them, and `meta.json`, which holds what the file is (`format`, `version`),
a SHA-256 over that record and the arrays with their names, and the caller's own `meta`.

The same arrays and meta give the same bytes. A save replaces the old file whole or not at all.
A load trusts nothing: it never unpickles, allocates no more than the file holds, and hands out
only arrays whose every byte was verified.

Sources: PKWARE APPNOTE 6.3.10 (zip), NumPy NEP 1 (npy).
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.lib import format as npy

from npple.checks import check_path, shown
from npple.core.base import AnyArray
from npple.errors import FileError, InputError, require

FilePath: TypeAlias = str | os.PathLike[str]

PIPE = 2**26  # bytes that a pipe or a device may give
_META = "meta.json"
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,1000}")  # no controls, no surrogates
_BLANK = "0" * 64  # stands for the SHA-256 in the record while that is computed
_KINDS = "biufc"  # the dtype kinds that are plain numbers
_X87_BYTES = 10  # of an x87 long double that hold its value; the rest of its storage is padding


def save(path: FilePath, arrays: Mapping[str, AnyArray], meta: Mapping[str, Any], *, format: str,
         version: int, new: bool = False) -> None:
    """Write an archive; on any failure the file that stood at `path` stays as it was.

    Parameters
    ----------
    path : str or path-like
        Where to write. A symbolic link is followed.
    arrays : dict[str, ndarray]
        Booleans and numbers of any precision, shape, byte order and memory layout. A NumPy scalar
        counts as an array without axes. A name has 1 to 1000 characters, none of them a control
        character, and neither is `meta.json` nor ends with `.npy`.
    meta : dict
        Anything JSON can hold, without NaN or infinities. As always in JSON, tuples come back as
        lists and keys as strings.
    format : str
        What kind of file this is, for example `"npple checkpoint"`.
    version : int
        The version of that format.
    new : bool, optional
        Whether a file that stands at `path` is an error.

    Raises
    ------
    InputError
        If an argument cannot be stored.
    FileError
        If the file cannot be written.
    """
    check_path("path", path)
    require(isinstance(arrays, dict), f"arrays: a dict is needed, got {shown(arrays)}")
    for name, array in arrays.items():
        _require_storable(name, array)
    arrays = {name: _without_padding(np.asarray(array)) for name, array in arrays.items()}
    header = {"sha256": _BLANK, "format": format, "version": version, "meta": meta}
    if fault := _header_fault(header):
        raise InputError(fault)
    record = _to_json(header).encode()
    record = record.replace(_BLANK.encode(), _digest(record, arrays).encode(), 1)
    with replacing(path, new) as file:
        _write(file, record, arrays)


def load(path: FilePath, *, format: str, versions: Sequence[int]
         ) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Read an archive that `save` wrote, refusing all that it cannot vouch for.

    Parameters
    ----------
    path : str or path-like
        The file.
    format : str
        The format it must have.
    versions : collection of int
        The versions of the format that the caller can read.

    Returns
    -------
    arrays : dict[str, ndarray]
        As saved: names, order, dtypes, shapes and bits. They are writable.
    meta : dict
        As saved.
    version : int
        Which of the versions it has. In files of version 1, whatever their format, the SHA-256
        is over the arrays alone: their meta may be damaged and nobody would know.

    Raises
    ------
    InputError
        If `path` is no path.
    FileError
        If the file is missing, damaged, not an archive, of another format or version, or holds
        anything that `save` does not write. The message names the member at fault.
    """
    check_path("path", path)
    path = Path(path)
    with _refusing(f"{path}: not a readable archive"):
        _refuse_unless(path.is_file(), f"{path}: no such file")
        archive = zipfile.ZipFile(path)
    with archive:
        members = archive.infolist()
        _check_members(path, members)
        record, header = _read_header(path, archive)
        _check_format(path, header, format, versions)
        arrays = {
            member.filename.removesuffix(".npy"): _read_array(path, archive, member)
            for member in members
            if member.filename != _META
        }
    blank = record.replace(header["sha256"].encode(), _BLANK.encode(), 1)
    allowed = [_digest(blank, arrays)] + [_digest(b"", arrays)] * (header["version"] == 1)
    _refuse_unless(
        header["sha256"] in allowed,
        f"{path}: {_META} and the arrays do not match the SHA-256 there (altered, or members "
        "swapped, renamed or missing, or long doubles of another machine)",
    )
    return arrays, header["meta"], header["version"]


# What may be stored, and its fingerprint


def _require_storable(name: str, array: object) -> None:
    """Raise `InputError` unless `array` can be stored under `name`."""
    require(
        isinstance(name, str) and _is_name(name),
        f"array name {shown(name)}: expected 1 to 1000 characters without control characters, "
        f"not {_META} and not ending with .npy",
    )
    if not isinstance(array, (np.ndarray, np.generic)):
        raise InputError(f"array {name!r}: expected an ndarray, got {type(array).__name__}")
    require(
        array.dtype.kind in _KINDS,
        f"array {name!r}: expected booleans or numbers, got dtype {array.dtype}",
    )


def _is_name(name: str) -> bool:
    """Whether `name` gives a member that both `load` and `np.load` find under that name alone."""
    return bool(_NAME.fullmatch(name)) and name != _META and not name.endswith(".npy")


def _header_fault(header: Mapping[str, Any]) -> str | None:
    """What is wrong with the types of a header, or None."""
    expected = {"format": str, "version": int, "sha256": str, "meta": dict}
    if not isinstance(header, dict) or set(header) != set(expected):
        return f"expected an object with exactly {', '.join(expected)}"
    for key, kind in expected.items():
        if type(header[key]) is not kind:
            return f"{key}: expected {kind.__name__}, got {type(header[key]).__name__}"
    return None


def _to_json(header: Mapping[str, Any]) -> str:
    """The header as JSON text; `InputError` if its meta is not JSON."""
    try:
        return json.dumps(header, allow_nan=False, indent=1)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"meta cannot be written as JSON: {error}") from error


def _without_padding(array: AnyArray) -> AnyArray:
    """`array`, with the padding of x87 long doubles, which holds chance bits, set to zero."""
    if array.dtype.char not in "gG" or np.finfo(np.longdouble).nmant != 63:
        return array
    array = array.copy(order="K")
    raw = array.ravel(order="K").view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
    least_first = raw if array.dtype.isnative else raw[:, ::-1]
    least_first[:, _X87_BYTES:] = 0
    return array


def _digest(record: bytes, arrays: Mapping[str, AnyArray]) -> str:
    """SHA-256, in hexadecimal, of the record, then of the names, dtypes, shapes and values.

    The width of the significand is part of it, since long doubles of two machines can share a
    dtype's name and differ in meaning.
    """
    sha = hashlib.sha256(record)
    for name, array in arrays.items():
        significand = np.finfo(array.dtype).nmant if array.dtype.kind in "fc" else 0
        sha.update(json.dumps([name, array.dtype.str, significand, array.shape]).encode())
        sha.update(array.ravel().view(np.uint8).data)
    return sha.hexdigest()


# Writing


@contextlib.contextmanager
def replacing(path: FilePath, new: bool = False) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` once it is complete and on the disk.

    Whatever fails, the file that stood there stays as it was.

    Parameters
    ----------
    path : str or path-like
    new : bool, optional
        Whether a file that stands there by then is an error, and stays.

    Raises
    ------
    InputError
        For what can name no file.
    FileError
        If the file cannot be written.
    """
    check_path("path", path)
    with _refusing(f"cannot write {path}"), _complete(Path(path).resolve(), new) as file:
        yield file


def make_folder(what: str, path: FilePath) -> Path:
    """`path` as a folder to write to, made if it is not there.

    Parameters
    ----------
    what : str
        What the message calls it.
    path : str or path-like

    Raises
    ------
    InputError
        For what can name no folder.
    FileError
        If it cannot be one.
    """
    check_path(what, path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{what}: {shown(str(path))}: {error.strerror}, expected a folder to write "
                        "to") from None
    return Path(path)


def read_bytes(path: FilePath) -> bytes:
    """The bytes of a file; of a pipe or a device, which may have no end, not without bound.

    Raises
    ------
    FileError
        If there are more than `PIPE` of them.
    OSError
        If the file cannot be read.
    """
    with Path(path).open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file.read()
        data = file.read(PIPE + 1)
    _refuse_unless(len(data) <= PIPE, f"{path}: a pipe or device with more than {PIPE} bytes, "
                                      "expected a file")
    return data


@contextlib.contextmanager
def _complete(path: Path, new: bool) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, renamed to it at the end, removed on any failure."""
    if path.exists() and not path.is_file():
        raise OSError("it exists and is not a regular file")
    temporary = path.with_name(f".npple-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(temporary, path, new)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _give_name(temporary: Path, path: Path, new: bool) -> None:
    """Rename the file; if `new`, nobody else's file can have the name."""
    if new:
        try:
            os.link(temporary, path)
            return temporary.unlink()
        except FileExistsError:
            raise OSError("it exists, expected a new file") from None
        except OSError:  # a file system without links: the file is empty for a moment
            path.open("xb").close()
    os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    """Put a rename inside `folder` on the disk, on the systems that can (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write(file: BinaryIO, record: bytes, arrays: Mapping[str, AnyArray]) -> None:
    """Write the members: `meta.json`, then the arrays in order."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with _new_member(archive, _META) as member:
            member.write(record)
        for name, array in arrays.items():
            with _new_member(archive, f"{name}.npy") as member:
                npy.write_array(member, array, version=(1, 0), allow_pickle=False)


def _new_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open a member whose zip entry depends on nothing but its name and content."""
    entry = zipfile.ZipInfo(name)  # dated 1980-01-01
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = 0o644 << 16
    return archive.open(entry, "w", force_zip64=True)


# Reading


def _refuse_unless(condition: object, message: str) -> None:
    """Raise `FileError(message)` unless `condition` holds."""
    if not condition:
        raise FileError(message)


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into a one-line `FileError`."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # zipfile and numpy document no complete list
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{what}: {reason}") from error


def _check_members(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse entries that `save` does not write, before anything is read or allocated."""
    left = path.stat().st_size
    seen = set()
    for member in members:
        where = f"{path}: member {member.filename!r:.100}"
        stem = member.filename.removesuffix(".npy")
        _refuse_unless(
            member.filename == _META or (stem != member.filename and _is_name(stem)),
            f"{where} is neither {_META} nor a named .npy array",
        )
        _refuse_unless(member.filename not in seen, f"{where} is there twice")
        seen.add(member.filename)
        _refuse_unless(not member.flag_bits & 1, f"{where} is encrypted")
        _refuse_unless(
            member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size,
            f"{where} is compressed, expected it stored as it is",
        )
        left -= member.file_size
        _refuse_unless(left >= 0, f"{where} claims {member.file_size} bytes, more than there are")
    _refuse_unless(_META in seen, f"{path}: member {_META!r} is missing")


def _read_header(path: Path, archive: zipfile.ZipFile) -> tuple[bytes, dict[str, Any]]:
    """The record, and the JSON header in it, its types checked."""
    where = f"{path}: member {_META!r}"
    with _refusing(where):
        record = archive.read(_META)
        header = json.loads(record, parse_constant=_refuse_constant)
    fault = _header_fault(header)
    _refuse_unless(fault is None, f"{where}: {fault}")
    return record, header


def _refuse_constant(name: str) -> None:
    """Called by `json.loads` for NaN, Infinity and -Infinity."""
    raise ValueError(f"{name} is not JSON")


def _check_format(path: Path, header: Mapping[str, Any], format: str, versions: Sequence[int]
                  ) -> None:
    """Refuse a file of another format or version."""
    _refuse_unless(
        header["format"] == format,
        f"{path}: expected format {format!r}, got {header['format']!r:.80}",
    )
    _refuse_unless(
        header["version"] in versions,
        f"{path}: {format} version {header['version']} is not supported, expected one of "
        f"{', '.join(map(str, versions))}",
    )


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> AnyArray:
    """One array, once its CRC is right and its header fits the bytes that are there."""
    where = f"{path}: member {member.filename!r}"
    with _refusing(where):
        content = archive.read(member)  # all of it, so that zipfile verifies the CRC
        stream = io.BytesIO(content)
        npy_version = npy.read_magic(stream)
        _refuse_unless(npy_version == (1, 0), f"{where} has npy version {npy_version}, not (1, 0)")
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
        _refuse_unless(
            dtype.kind in _KINDS, f"{where} holds dtype {dtype}, expected booleans or numbers"
        )
        start = stream.tell()
        claimed, held = math.prod(shape) * dtype.itemsize, len(content) - start
        _refuse_unless(
            min(shape, default=0) >= 0 and claimed == held,
            f"{where} claims shape {shape} of {dtype} ({claimed} bytes) and holds {held} bytes",
        )
        return np.ndarray(shape, dtype, bytearray(content), start, order="F" if fortran else "C")
