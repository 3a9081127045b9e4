"""Results files: the named arrays of an `.npz` file, of a folder, or of a JSON file."""

import json
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from npple.archive import FilePath
from npple.checks import check_path
from npple.core.base import AnyArray
from npple.errors import FileError, require

EXPANSION = 200  # times its size that a file may expand to, as for a CSV file
ANY_EXPANSION = 64 * 2**20  # bytes that any file may expand to
REALS = ("<f8", "<f4", "<f2")  # what an array in a JSON file may have been computed in


def read_results(path: FilePath) -> dict[str, Any]:
    """The named arrays of an `.npz` file, of a `.json` file, or of the `.npy` files in a folder.

    Parameters
    ----------
    path : str or path
        The file, or the folder, whose subfolders count.

    Returns
    -------
    dict of ndarray
        By name: in a folder the path of the file within it, without `.npy`.

    Raises
    ------
    InputError
        If `path` is no path.
    FileError
        If there is nothing to read at `path`, or it cannot be read.
    """
    check_path("path", path)
    path, arrays, name = Path(path), {}, None
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.npy")):
                name = file.relative_to(path).with_suffix("").as_posix()
                require(file.is_file(), "not a regular file")
                with file.open("rb") as stream:
                    _check_header(stream, file.stat().st_size)
                arrays[name] = np.load(file, allow_pickle=False)
        elif path.suffix.lower() == ".json":
            require(path.is_file() or not path.exists(), "not a regular file")
            content = json.loads(path.read_bytes())
            require(isinstance(content, dict), "an object is needed, an array by each name")
            for name, plain in content.items():
                arrays[name] = _from_json(plain)
        else:
            _check_members(path)
            file = np.load(path, allow_pickle=False)
            require(isinstance(file, np.lib.npyio.NpzFile), "a single array, which has no name")
            with file:
                for name in (n for n in file.files if n != "meta.json"):
                    arrays[name] = file[name]
    except Exception as error:  # zipfile and numpy document no complete list
        reason = " ".join(str(error).split()) or type(error).__name__
        where = f"{name!r:.80}: " if name else ""
        raise FileError(f"{path}: no results file (.npz, .json) or folder of .npy: {where}"
                        f"{reason}") from error
    if not arrays:
        raise FileError(f"{path}: no results: holds no arrays")
    return arrays


def _from_json(plain: Any) -> AnyArray:
    """The array of an object `{"shape", "values", "dtype"}`; null stands for no number."""
    require(isinstance(plain, dict) and plain.keys() - {"dtype"} == {"shape", "values"},
            "expected an object with shape, values and, but for float64, dtype")
    dtype, values = plain.get("dtype", REALS[0]), plain["values"]
    require(dtype in REALS, f"dtype {dtype!r:.80}, expected one of {', '.join(REALS)}")
    require(isinstance(values, list) and all(type(v) in (int, float, type(None)) for v in values),
            "values: expected a flat list of numbers, the last index fastest")
    numbers = np.array([np.nan if v is None else v for v in values], dtype)
    shape = plain["shape"]
    require(isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
            and prod(shape) == len(values), f"shape {shape!r:.80}, and {len(values)} values")
    return numbers.reshape(shape)


def _check_members(path: Path) -> None:
    """Refuse what is no regular file, and members that would expand far beyond it."""
    require(path.is_file() or not path.exists(), "not a regular file")
    if not zipfile.is_zipfile(path):
        return  # NumPy says what it is
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            require(member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
                    f"member {member.filename!r:.80} is compressed by neither of NumPy's ways, "
                    "expected np.savez or np.savez_compressed")
        size, held = path.stat().st_size, sum(member.file_size for member in members)
        require(held <= max(EXPANSION * size, ANY_EXPANSION),
                f"{size} bytes expand to {held}, more than {EXPANSION} times")
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_header(stream, member.file_size)


def _check_header(stream: IO[bytes], held: int) -> None:
    """Refuse an array whose header promises more than the file holds."""
    version = np.lib.format.read_magic(stream)
    read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
            else np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(stream)
    require(prod(shape) * dtype.itemsize <= held,
            f"an array of shape {shape} {dtype}, for which {held} bytes are too few")
