"""Results files: bad ones are refused in one line."""

import os
import zipfile

import numpy as np
import pytest

from npple import oracle
from npple.errors import FileError


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_numpy_never_writes_are_refused(tmp_path, method):
    np.save(tmp_path / "a.npy", np.zeros(8))
    with zipfile.ZipFile(tmp_path / "r.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(FileError, match="neither of NumPy's ways"):
        oracle.read_results(tmp_path / "r.npz")


def test_a_file_that_expands_too_far_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "r.npz", a=np.zeros(9 * 2**20))
    with pytest.raises(FileError, match="more than 200 times"):
        oracle.read_results(tmp_path / "r.npz")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "r.npz")
    with pytest.raises(FileError, match="not a regular file"):
        oracle.read_results(tmp_path / "r.npz")
