"""The archive returns what was put in, bit for bit, or says in one line why it will not."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import npple
from npple import archive
from npple.errors import FileError, InputError

KIND = {"format": "test", "version": 3}
PLAIN = ["?", "i1", "u2", "<i4", ">i8", "f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c16", "g", "G"]

names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20).filter(
    lambda name: name != "meta.json" and not name.endswith(".npy")
)
arrays_of_any_bits = st.builds(
    lambda *drawn: from_bits(*drawn),
    st.sampled_from(PLAIN),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    st.binary(min_size=1, max_size=64),
    st.sampled_from("CF"),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def from_bits(dtype, shape, pattern, order):
    """An array whose bytes repeat `pattern`: NaN payloads, minus zeros and denormals included."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b" or dtype.char in "gG":  # not every pattern is a value of these
        numbers = np.resize(np.frombuffer(pattern, np.int8), shape)
        return np.array(numbers / np.longdouble(3), dtype, order=order)
    size = int(np.prod(shape)) * dtype.itemsize
    values = np.frombuffer((pattern * (size + 1))[:size], dtype)
    return np.array(values.reshape(shape), order=order)


def assert_same(loaded, saved):
    """Equal names in equal order, and arrays equal in dtype, shape and every bit that counts."""
    assert list(loaded) == list(saved)
    for name, array in saved.items():
        assert (loaded[name].dtype.str, loaded[name].shape) == (array.dtype.str, array.shape)
        if array.dtype.char in "gG":  # their bytes include padding, which holds chance bits
            np.testing.assert_array_equal(loaded[name], array)
        else:
            assert loaded[name].tobytes() == array.tobytes()


def load(path):
    return archive.load(path, format="test", versions=(2, 3))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that the examples of a property overwrite in turn."""
    return tmp_path_factory.mktemp("scratch") / "file.npz"


@pytest.fixture
def saved(path):
    """A small archive on the disk, and the arrays and meta in it."""
    arrays = {
        "level1/gate/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "level1/gate/bias": np.arange(6, dtype=np.float32).reshape(2, 3) + 1,
        "step": np.array(7),
    }
    meta = {"seed": 1, "tasks": {"vtr": "binary"}}
    archive.save(path, arrays, meta, **KIND)
    return arrays, meta


def members(path):
    """The members of a zip, name to bytes, in order."""
    with zipfile.ZipFile(path) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def rewrite(path, content, **how):
    """Write a zip by hand; `content` is a dict of bytes, or pairs where a name comes twice."""
    with zipfile.ZipFile(path, "w", **how) as zipped:
        for name, data in content.items() if isinstance(content, dict) else content:
            zipped.writestr(name, data)


def refusal(path):
    """The message of the refusal to load, which is one line."""
    with pytest.raises(FileError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What goes in comes out


@settings(deadline=None)
@given(st.dictionaries(names, arrays_of_any_bits, max_size=4),
       st.dictionaries(st.text(), json_values, max_size=3))
def test_what_is_saved_comes_back_bit_for_bit(scratch, arrays, meta):
    archive.save(scratch, arrays, meta, **KIND)
    loaded, loaded_meta, version = load(scratch)
    assert_same(loaded, arrays)
    assert loaded_meta == meta and version == KIND["version"]


@settings(deadline=None)
@given(st.dictionaries(names, arrays_of_any_bits, max_size=4))
def test_plain_numpy_reads_the_arrays_under_the_same_names(scratch, arrays):
    archive.save(scratch, arrays, {}, **KIND)
    with np.load(scratch) as plain:
        assert_same({name: plain[name] for name in plain.files if name != "meta.json"}, arrays)


def test_views_that_are_not_contiguous_are_stored_by_value(path):
    base = np.arange(24.0).reshape(4, 6)
    arrays = {"strided": base[::2, ::-3], "broadcast": np.broadcast_to(base[0], (3, 6))}
    archive.save(path, arrays, {}, **KIND)
    assert_same(load(path)[0], arrays)


def test_fortran_order_survives(path):
    archive.save(path, {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3))}, {}, **KIND)
    assert load(path)[0]["a"].flags.f_contiguous


def test_a_numpy_scalar_comes_back_as_an_array_without_axes(path):
    archive.save(path, {"a": np.float32(0.1)}, {}, **KIND)
    assert_same(load(path)[0], {"a": np.array(0.1, np.float32)})


def test_loaded_arrays_are_writable_and_independent_of_the_file(path, saved):
    load(path)[0]["step"][...] = 99
    assert_same(load(path)[0], saved[0])


# A save is reproducible


def test_the_same_content_gives_the_same_bytes(path, tmp_path, saved):
    archive.save(tmp_path / "other.npz", *saved, **KIND)
    assert (tmp_path / "other.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
@pytest.mark.parametrize("swapped", [False, True])
def test_padding_of_long_doubles_does_not_reach_the_file(path, dtype, shape, swapped):
    values = np.full(shape, 1 / np.longdouble(3), dtype)
    values = values.astype(values.dtype.newbyteorder()) if swapped else values
    files = []
    for chance in (0, 255):
        if np.finfo(np.longdouble).nmant == 63:  # x87: ten bytes of value, then padding
            width = np.dtype(np.longdouble).itemsize
            raw = values.reshape(-1).view(np.uint8).reshape(-1, width)
            raw[:, slice(0, -10) if swapped else slice(10, None)] = chance
        before = values.tobytes()
        archive.save(path, {"a": values}, {}, **KIND)
        assert values.tobytes() == before  # and the caller's array is left alone
        np.testing.assert_array_equal(load(path)[0]["a"], values)
        files.append(path.read_bytes())
    assert files[0] == files[1]


# A save replaces all or nothing


def raise_disk_full(*args, **kwargs):
    raise OSError("disk\nfull")


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "numpy.lib.format.write_array"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, saved, monkeypatch, where):
    before = path.read_bytes()
    monkeypatch.setattr(where, raise_disk_full)
    with pytest.raises(FileError, match=r"cannot write .*file\.npz: disk full"):
        archive.save(path, {"new": np.zeros(3)}, {}, **KIND)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(path, saved, monkeypatch):
    before = path.read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        archive.save(path, {"new": np.zeros(3)}, {}, **KIND)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_content_is_on_the_disk_before_it_takes_the_name(path, monkeypatch):
    order = []
    real = {"fsync": os.fsync, "replace": os.replace}
    for name, function in real.items():
        monkeypatch.setattr(os, name, lambda *args, name=name, function=function: (
            order.append(name), function(*args)))
    archive.save(path, {}, {}, **KIND)
    assert order[:2] == ["fsync", "replace"]


def test_a_save_follows_a_symbolic_link(path, tmp_path, saved):
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    archive.save(link, {"new": np.zeros(3)}, {}, **KIND)
    assert link.is_symlink()
    assert list(load(path)[0]) == ["new"]


def test_a_save_does_not_replace_what_is_not_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        archive.save(tmp_path / "pipe", {}, {}, **KIND)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_no_name_that_somebody_has(tmp_path, monkeypatch, links):
    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", raise_disk_full)
    archive.save(tmp_path / "a.npz", {"a": np.zeros(3)}, {}, **KIND, new=True)
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(FileError, match="cannot write .*a.npz: .*exists"):
        archive.save(tmp_path / "a.npz", {}, {}, **KIND, new=True)
    assert os.listdir(tmp_path) == ["a.npz"] and (tmp_path / "a.npz").read_bytes() == before
    assert_same(load(tmp_path / "a.npz")[0], {"a": np.zeros(3)})


def test_a_save_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileError, match="cannot write .*No such file"):
        archive.save(tmp_path / "missing" / "file.npz", {}, {}, **KIND)


# What a save refuses


@pytest.mark.parametrize("name", ["", "meta.json", "a.npy", "a\nb", "a\0", "\x9f", "\ud800",
                                  "a" * 1001, 5])
def test_a_name_that_could_not_be_found_again_is_refused(path, name):
    with pytest.raises(InputError, match="array name"):
        archive.save(path, {name: np.zeros(1)}, {}, **KIND)
    assert not path.exists()


@pytest.mark.parametrize("value", [
    np.array([{}], dtype=object), np.zeros(2, "f8,i4"), np.array(["text"]),
    np.array(["2020"], "M8[Y]"), 1.0, [1.0],
])
def test_what_is_not_an_array_of_plain_numbers_is_refused(path, value):
    with pytest.raises(InputError, match="array 'a': expected"):
        archive.save(path, {"a": value}, {}, **KIND)
    assert not path.exists()


@pytest.mark.parametrize("meta", [{"a": float("nan")}, {"a": float("inf")}, {"a": np.zeros(2)},
                                  {"a": {1, 2}}, {(1, 2): 3}, [1], None])
def test_meta_that_is_not_a_json_object_is_refused(path, meta):
    with pytest.raises(InputError, match="meta"):
        archive.save(path, {}, meta, **KIND)
    assert not path.exists()


@pytest.mark.parametrize("kind", [{"format": None, "version": 1}, {"format": "a", "version": True},
                                  {"format": "a", "version": "1"}])
def test_a_format_is_a_string_and_a_version_an_integer(path, kind):
    with pytest.raises(InputError, match="format|version"):
        archive.save(path, {}, {}, **kind)


# A damaged file is refused, or was not damaged where it counts


def test_any_changed_byte_is_refused_or_changes_nothing(path, saved):
    intact = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(len(intact)), 500):
        damaged = bytearray(intact)
        damaged[position] ^= rng.randrange(1, 256)
        assert_refused_or_intact(path, damaged, saved)


def test_any_flipped_bit_in_the_data_of_an_array_is_refused(path, saved):
    intact = path.read_bytes()
    data = saved[0]["level1/gate/bias"].tobytes()
    start = intact.index(data)
    for position in range(start, start + len(data)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert "level1/gate/bias.npy" in refusal(path)


def test_any_flipped_bit_in_the_record_is_refused_under_a_right_zip_checksum(path, saved):
    content = members(path)
    record = content["meta.json"]
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        rewrite(path, content | {"meta.json": bytes(damaged)})
        assert "file.npz: " in refusal(path)


DAMAGES = {"a digit of the version": (b'"version": 3', b'"version": 2'),
           "a number of meta": (b'"seed": 1', b'"seed": 2'),
           "a text of meta": (b"binary", b"binare"),
           "a key of meta": (b'"vtr"', b'"vtx"'),
           "a blank": (b'"seed": 1', b'"seed":  1'),
           "a key that is there twice": (b'"seed": 1', b'"seed": 1,"seed": 1'),
           "a number spelled differently": (b'"seed": 1', b'"seed": 1.0'),
           "a text spelled differently": (b'"vtr"', b'"\\u0076tr"'),
           "the end": (b"}", b"}\n")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_says_something_else_is_refused(path, saved, damage):
    content, (old, new) = members(path), DAMAGES[damage]
    at = content["meta.json"].rindex(old)
    record = content["meta.json"][:at] + new + content["meta.json"][at + len(old):]
    rewrite(path, content | {"meta.json": record})
    assert "do not match the SHA-256" in refusal(path)


def test_the_record_is_hashed_with_64_zeros_for_the_hash(path):
    """As docs/vectors.md says; with names and values that look like it."""
    archive.save(path, {}, {"zeros": "0" * 64}, format="0" * 64, version=3)
    record = members(path)["meta.json"]
    stated = json.loads(record)["sha256"]
    blank = record.replace(stated.encode(), b"0" * 64, 1)
    assert hashlib.sha256(blank).hexdigest() == stated
    assert archive.load(path, format="0" * 64, versions=(3,))[1] == {"zeros": "0" * 64}


@pytest.mark.parametrize("version", [1, 2])
def test_only_version_1_may_leave_its_record_out_of_the_hash(path, version):
    content = members(Path(__file__).parent / "stored" / "vectors.npz")  # of npple 0.1.0
    record = json.loads(content["meta.json"]) | {"version": version}
    rewrite(path, content | {"meta.json": json.dumps(record)})
    try:
        archive.load(path, format="npple vectors", versions=(1, 2))
    except FileError as error:
        assert "do not match the SHA-256" in str(error) and version == 2
    else:
        assert version == 1


def test_every_truncation_is_refused(path, saved):
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        assert "file.npz: " in refusal(path)


@settings(deadline=None)
@given(st.data())
def test_any_overwritten_stretch_is_refused_or_changes_nothing(scratch, data):
    content = {"a": np.arange(5.0)}, {"b": 1}
    archive.save(scratch, *content, **KIND)
    damaged = bytearray(scratch.read_bytes())
    start = data.draw(st.integers(0, len(damaged)))
    stop = data.draw(st.integers(start, len(damaged)))
    damaged[start:stop] = data.draw(st.binary(max_size=64))
    assert_refused_or_intact(scratch, damaged, content)


def assert_refused_or_intact(path, damaged, content):
    path.write_bytes(damaged)
    try:
        arrays, meta, version = load(path)
    except FileError as error:
        assert "\n" not in str(error)
    else:
        assert_same(arrays, content[0])
        assert meta == content[1] and version == KIND["version"]


# A forged file is refused


class Bomb:
    """Unpickling it makes a folder, which the test would see."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_is_refused_and_not_executed(path, saved, tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb(tmp_path / "executed")], dtype=object), allow_pickle=True)
    rewrite(path, members(path) | {"step.npy": stream.getvalue()})
    assert "'step.npy' holds dtype object" in refusal(path)
    rewrite(path, members(path) | {"step.npy": pickle.dumps(Bomb(tmp_path / "executed"))})
    assert "'step.npy'" in refusal(path)
    assert not (tmp_path / "executed").exists()


def test_swapped_members_are_refused(path, saved):
    content = members(path)
    a, b = "level1/gate/weight.npy", "level1/gate/bias.npy"
    rewrite(path, content | {a: content[b], b: content[a]})
    assert "do not match the SHA-256" in refusal(path)


def test_a_renamed_member_is_refused(path, saved):
    rewrite(path, {name.replace("bias", "skew"): data for name, data in members(path).items()})
    assert "do not match the SHA-256" in refusal(path)


def test_a_missing_or_added_array_is_refused(path, saved):
    content = members(path)
    rewrite(path, content | {"extra.npy": content["step.npy"]})
    assert "do not match the SHA-256" in refusal(path)
    del content["step.npy"]
    rewrite(path, content)
    assert "do not match the SHA-256" in refusal(path)


def npy_member(shape, data=b"", descr="<f8"):
    """A .npy file that claims `shape`, whatever it holds."""
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


@pytest.mark.parametrize("shape", [(2**60,), (2**40, 2**40), (1,), (3,), (-1, -2), (0, -1), ()])
def test_a_header_that_does_not_fit_the_bytes_is_refused(path, saved, shape):
    rewrite(path, members(path) | {"step.npy": npy_member(shape, bytes(16))})
    assert "'step.npy' claims shape" in refusal(path)


@pytest.mark.parametrize("header", [
    npy_member((0, 2**70)), npy_member((1,) * 100, bytes(8)),
    npy_member((2,), bytes(16), "nonsense"),
    npy_member((2,), bytes(16), "|O"), npy_member((2,), bytes(16), [("a", "<f8")]),
    b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x03\x00" + bytes(100),
    b"\x93NUMPY\x01\x00\x10\x27" + b"[" * 10000, b"\x93NUMPY\x01\x00\x04\x00((L\n",
])
def test_a_header_that_is_no_header_of_numbers_is_refused(path, saved, header):
    rewrite(path, members(path) | {"step.npy": header})
    assert "'step.npy'" in refusal(path)


def test_a_compressed_member_is_refused_before_it_is_inflated(path, saved):
    rewrite(path, members(path) | {"step.npy": npy_member((2**17,), bytes(2**20))},
            compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(path)


def test_members_that_claim_more_bytes_than_the_file_has_are_refused(path, saved):
    damaged = bytearray(path.read_bytes())
    entry = damaged.rindex(b"PK\x01\x02")  # the central directory's entry of the last member
    damaged[entry + 20:entry + 28] = (2**31).to_bytes(4, "little") * 2
    path.write_bytes(damaged)
    assert "'step.npy' claims 2147483648 bytes" in refusal(path)


def test_an_encrypted_member_is_refused(path, saved):
    damaged = bytearray(path.read_bytes())
    damaged[damaged.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(damaged)
    assert "'step.npy' is encrypted" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(path, saved):
    content = members(path)
    rewrite(path, [*content.items(), ("step.npy", content["step.npy"])])
    assert "'step.npy' is there twice" in refusal(path)


@pytest.mark.parametrize("name", ["readme.txt", "folder/", ".npy", "meta.json.npy", "a\nb.npy"])
def test_a_member_that_no_save_writes_is_refused(path, saved, name):
    content = members(path)
    rewrite(path, content | {name: content["step.npy"]})
    assert f"member {name!r} is neither" in refusal(path)


def test_an_array_in_another_version_of_npy_is_refused(path, saved):
    content = members(path)
    other = content["step.npy"].replace(b"NUMPY\x01", b"NUMPY\x09")
    rewrite(path, content | {"step.npy": other})
    assert "'step.npy' has npy version (9, 0), not (1, 0)" in refusal(path)


def test_a_missing_record_is_refused(path, saved):
    content = members(path)
    del content["meta.json"]
    rewrite(path, content)
    assert "'meta.json' is missing" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"version": NaN}', "[" * 100_000,
                                  b"\xff\xfe\xff"])
def test_a_record_that_is_not_the_expected_json_is_refused(path, saved, text):
    rewrite(path, members(path) | {"meta.json": text})
    assert "member 'meta.json': " in refusal(path)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused(path, saved, constant):
    content = members(path)
    text = content["meta.json"].replace(b'"seed": 1', f'"seed": {constant}'.encode())
    rewrite(path, content | {"meta.json": text})
    assert f"'meta.json': {constant} is not JSON" in refusal(path)


@pytest.mark.parametrize(("key", "value"), [("format", 1), ("version", True), ("version", 3.0),
                                            ("sha256", None), ("meta", []), ("extra", 1)])
def test_a_record_with_a_field_of_another_type_is_refused(path, saved, key, value):
    content = members(path)
    record = json.loads(content["meta.json"]) | {key: value}
    rewrite(path, content | {"meta.json": json.dumps(record)})
    assert "member 'meta.json': " in refusal(path)


def test_another_format_is_refused(path, saved):
    with pytest.raises(FileError, match="expected format 'other', got 'test'"):
        archive.load(path, format="other", versions=(3,))


def test_an_unsupported_version_is_named(path, saved):
    with pytest.raises(FileError, match="test version 3 is not supported, expected one of 1, 2"):
        archive.load(path, format="test", versions=(1, 2))


def test_a_missing_file_is_refused(path):
    assert refusal(path).endswith("file.npz: no such file")


def test_what_is_no_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path)


def test_a_file_that_is_not_a_zip_is_refused(path):
    np.save(path.with_suffix(".npy"), np.zeros(3))
    shutil.move(path.with_suffix(".npy"), path)
    assert "not a readable archive" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("read", [npple.data.read_columns, npple.oracle.load_mapping])
def test_a_pipe_without_an_end_is_refused(tmp_path, monkeypatch, read):
    monkeypatch.setattr(archive, "PIPE", 1000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=pour, args=(path, 100_000))
    writer.start()
    with pytest.raises(FileError, match="pipe or device with more than 1000 bytes, expected a fi"):
        read(path)
    writer.join()


def pour(path, size):
    """Write to a pipe, as much as somebody reads."""
    with contextlib.suppress(BrokenPipeError), open(path, "wb") as file:
        file.write(b"1\n" * (size // 2))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_that_ends_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=pour, args=(tmp_path / "pipe", 10_000))
    writer.start()
    assert len(npple.data.read_columns(tmp_path / "pipe", ["a"])["a"]) == 5000
    writer.join()
