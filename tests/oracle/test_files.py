"""Results files: bad ones are refused in one line."""

import json
import os
import zipfile

import numpy as np
import pytest

import npple
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
    for name in ("r.npz", "r.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FileError, match="not a regular file"):
            oracle.read_results(tmp_path / name)


def promising(path, shape):
    """A file whose header promises an array of this shape, and that holds 64 bytes."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f8", "fortran_order": False,
                                                    "shape": shape})
        file.write(bytes(64))


def test_a_header_that_promises_more_than_there_is_is_refused_before_memory_is_taken(tmp_path):
    (tmp_path / "folder").mkdir()
    promising(tmp_path / "folder/a.npy", (10**11, 10))
    with zipfile.ZipFile(tmp_path / "r.npz", "w") as archive:
        archive.write(tmp_path / "folder/a.npy", "a.npy")
    for path in ("folder", "r.npz"):
        with pytest.raises(FileError, match="bytes are too few"):
            oracle.read_results(tmp_path / path)


def test_links_that_lead_in_a_circle_are_refused_or_not_followed(tmp_path):
    (tmp_path / "a.npy").symlink_to(tmp_path / "a.npy")
    with pytest.raises(FileError, match="not a regular file"):
        oracle.read_results(tmp_path)
    (tmp_path / "a.npy").unlink()
    np.save(tmp_path / "loss.npy", np.zeros(()))
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert set(oracle.read_results(tmp_path)) == {"loss"}


def test_json_results_have_the_values_shapes_and_dtypes_they_name(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({
        "loss": {"shape": [], "values": [0.1]},
        "input": {"dtype": "<f4", "shape": [2, 3], "values": [1, 2, 3, 4, 5, None]}}))
    loss, x = oracle.read_results(path).values()
    assert loss.shape == () and loss == 0.1 and loss.dtype == np.float64
    np.testing.assert_array_equal(x, np.float32([[1, 2, 3], [4, 5, np.nan]]))
    assert x.dtype == np.float32


@pytest.mark.parametrize("content, words", [
    ("[1", "Expecting"),
    ("[1]", "an object is needed"),
    ("{}", "holds no arrays"),
    ('{"loss": 1}', "'loss': expected an object with shape, values"),
    ('{"loss": {"values": [1]}}', "with shape, values"),
    ('{"loss": {"shape": [], "values": [1], "more": 1}}', "with shape, values"),
    ('{"loss": {"shape": [2], "values": [1]}}', r"shape \[2\], and 1 values"),
    ('{"loss": {"shape": [-1, -1], "values": [1]}}', r"shape \[-1, -1\], and 1"),
    ('{"loss": {"shape": 1, "values": [1]}}', "shape 1, and 1"),
    ('{"loss": {"shape": [1], "values": ["1"]}}', "a flat list of numbers"),
    ('{"loss": {"shape": [1, 1], "values": [[1]]}}', "a flat list of numbers"),
    ('{"loss": {"shape": [1], "values": [true]}}', "a flat list of numbers"),
    ('{"loss": {"shape": [1], "values": [1], "dtype": "O"}}', "dtype 'O', expected one of <f8"),
    ("[" * 10**5, "recursion"),
])
def test_bad_json_results_are_refused_in_one_line(tmp_path, content, words):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(FileError, match=words) as caught:
        oracle.read_results(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_control_codes_in_names_do_not_reach_the_terminal(tmp_path):
    vectors = oracle.make_vectors(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    np.savez(tmp_path / "r.npz", **{"\x1b[31mloss": np.zeros(2)})
    with pytest.raises(npple.InputError) as caught:
        oracle.check(vectors, tmp_path / "r.npz")
    assert str(caught.value).isprintable()
    np.savez(tmp_path / "bad.npz", **{"\x1b[31mloss": np.array([None])})
    with pytest.raises(FileError) as caught:
        oracle.read_results(tmp_path / "bad.npz")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("shape", [(100,), (12, 12)])
def test_a_header_may_promise_a_little_too_much_only(tmp_path, shape):
    """Fewer entries than the file has bytes, and more bytes than it has."""
    (tmp_path / "folder").mkdir()
    promising(tmp_path / "folder/a.npy", shape)
    with pytest.raises(FileError, match="'a': an array of shape .* bytes are too few"):
        oracle.read_results(tmp_path / "folder")


def test_a_folder_and_a_file_give_the_same_arrays_by_name(tmp_path):
    arrays = {"loss": np.array(0.5), "tower/a": np.float32([1, 2]), "x.y/z": np.ones((2, 3))}
    np.savez(tmp_path / "r.npz", **arrays)
    for name, array in arrays.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "all" / f"{name}.npy", array)
    for path in (tmp_path / "r.npz", tmp_path / "all", str(tmp_path / "all")):
        found = oracle.read_results(path)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_what_describes_test_vectors_is_no_array(tmp_path):
    np.savez(tmp_path / "r.npz", loss=np.zeros(()))
    with zipfile.ZipFile(tmp_path / "r.npz", "a") as archive:
        archive.writestr("meta.json", "{}")
    assert set(oracle.read_results(tmp_path / "r.npz")) == {"loss"}


def test_a_file_up_to_64_mib_may_expand_to_any_times_its_size(tmp_path):
    np.savez_compressed(tmp_path / "r.npz", a=np.zeros(2**20))
    assert 8 * 2**20 > 200 * (tmp_path / "r.npz").stat().st_size
    assert oracle.read_results(tmp_path / "r.npz")["a"].shape == (2**20,)


def test_a_single_array_and_a_path_that_is_none_are_told(tmp_path):
    with open(tmp_path / "r.npz", "wb") as file:
        np.save(file, np.zeros(2))
    with pytest.raises(FileError, match=r"r\.npz: no results file \(\.npz, \.json\) or folder of "
                                        r"\.npy: a single array, which has no name$"):
        oracle.read_results(tmp_path / "r.npz")
    with pytest.raises(npple.InputError, match="^path: "):
        oracle.read_results(3)
    with pytest.raises(FileError, match="nowhere"):
        oracle.read_results(tmp_path / "nowhere.npz")


def test_arrays_of_python_objects_are_refused_wherever_they_are(tmp_path):
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder/a.npy", np.array([None]))
    np.savez(tmp_path / "r.npz", a=np.array([None]))
    for path in ("folder", "r.npz"):
        with pytest.raises(FileError, match="'a': Object arrays cannot be loaded"):
            oracle.read_results(tmp_path / path)
