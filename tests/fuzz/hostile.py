"""Hostile inputs from a seeded generator: values of every wrong kind, and good values spoiled.

`r` is a `random.Random` everywhere, so one number brings any input back.
"""

import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np

nan, inf = float("nan"), float("inf")
FOLDER = tempfile.TemporaryDirectory(prefix="npple-fuzz-")
SCALARS = (
    None, True, False, 0, 1, 2, 3, 7, -1, -7, 2.5, -0.0, nan, inf, -inf, 1e300, -1e300, 5e-324,
    10**30, -10**30, 10**400, 1j, "", "a", "x\ny", "ü/☃", "\ud800", "9" * 5000, b"bytes", (), [],
    {}, set(), [None], [[1], [2, 3]], {"a": None}, {1: 2}, object(), len, int, range(3),
    slice(None), ..., np.float32(1), np.float16(2), np.int64(2), np.uint8(200), np.bool_(True),
    np.complex128(1j), np.float64(nan), np.longdouble("1e400"), np.array(3), np.array([1, 2]),
    np.array(None), np.array("text"), np.datetime64("2020"), NotImplemented, Exception("no"),
)
NAMES = ("", " ", "a", "shared", "a/b", "a\nb", "ü☃", "\ud800", "\0", "meta.json", "x.npy", "..",
         "a" * 2000, "input", "tower", 0, None, ("a",), True, nan)


class Unfriendly:
    """Fails when asked for an array."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")


def scalar(r):
    """A value of some wrong kind."""
    return Unfriendly() if r.random() < 0.02 else r.choice(SCALARS)


# Arrays -----------------------------------------------------------------------------------------
# Layouts keep every value, so the answer must stay; the others change something that counts.

def _strided(r, a):
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a


def _read_only(r, a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _reversed_twice(r, a):
    return a[::-1].copy()[::-1] if a.ndim else a


def _mapped(r, a):
    path = Path(FOLDER.name) / "mapped.bin"
    if not a.size:
        return a
    a.tofile(path)
    mapped = np.memmap(path, a.dtype, "r", shape=a.shape)
    path.unlink()  # the next array mapped is another file
    return mapped


LAYOUTS = (_strided, _read_only, _reversed_twice, _mapped, lambda r, a: np.array(a, order="F"),
           lambda r, a: np.array(a))


def _with(value):
    def put(r, a):
        if a.dtype.kind not in "fc" or not a.size:
            return a.astype(object)
        a = a.copy()
        with np.errstate(all="ignore"):
            a.flat[r.randrange(a.size)] = value
        return a
    return put


def _as(dtype):
    def cast(r, a):
        with np.errstate(all="ignore"):
            return a.real.astype(dtype)
    return cast


def _times(factor):
    def scale(r, a):
        with np.errstate(all="ignore"):
            return (a * np.asarray(factor, a.real.dtype if a.dtype.kind in "fc" else float)).astype(
                a.dtype)
    return scale


def _noise(r, a):
    """Random bytes under the same dtype and shape."""
    if a.dtype.kind not in "iuf" or a.dtype.itemsize > 8:
        return a[:0]
    return np.frombuffer(r.randbytes(a.nbytes), a.dtype).reshape(a.shape)


def _swapped(r, a):
    return a.astype(a.dtype.newbyteorder())


SPOILS = (
    *map(_as, ("?", "i1", "u1", "i8", "u8", "f2", "f4", "f8", "g", "F", "D", "O", "S4", "U4")),
    *map(_with, (nan, inf, -inf, 1e300, -1e30, 5e-324)),
    *map(_times, (0, -1, 1e30, 1e300, 1e-300, 5e-324, 1e4)), _noise, _swapped,
    lambda r, a: a[:0], lambda r, a: a[None], lambda r, a: a[..., None], lambda r, a: a.T,
    lambda r, a: a.ravel(), lambda r, a: a[:1],
    lambda r, a: np.concatenate([a, a]) if a.ndim else a,
    lambda r, a: a.sum(), lambda r, a: np.broadcast_to(a.ravel()[:1], a.shape) if a.size else a,
    lambda r, a: a.tolist(), lambda r, a: np.ma.masked_array(a, np.zeros(a.shape, bool)),
    lambda r, a: np.asmatrix(a) if a.ndim <= 2 else a, lambda r, a: memoryview(a.tobytes()),
    lambda r, a: np.zeros((*a.shape, 0), a.dtype), lambda r, a: a.astype("M8[s]") if
    a.dtype.kind in "iu" else a.astype(object), lambda r, a: {"x": a}, lambda r, a: [a],
)


# Whatever it is ---------------------------------------------------------------------------------

def spoil(r, value):
    """`value` with something wrong, and whether that must leave the answer as it is."""
    if r.random() < 0.15:
        return scalar(r), False
    if isinstance(value, np.ndarray):
        if r.random() < 0.25:
            return r.choice(LAYOUTS)(r, value), True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return r.choice(SPOILS)(r, value), False
        except (IndexError, TypeError, ValueError):  # this array cannot be spoiled so
            return scalar(r), False
    if isinstance(value, dict):
        return _spoil_dict(r, value)
    if isinstance(value, (list, tuple)) and value:
        return _spoil_list(r, value), False
    return scalar(r), False


def _spoil_dict(r, value):
    if not value or r.random() < 0.1:
        return r.choice([{}, {r.choice(NAMES): scalar(r)}, list(value.items()), [*value]]), False
    key, how = r.choice(list(value)), r.random()
    if how < 0.7:
        inner, kept = spoil(r, value[key])
        return value | {key: inner}, kept
    if how < 0.75:
        return OrderedDict(reversed(value.items())), False
    others = {name: item for name, item in value.items() if name != key}
    if how < 0.85:
        return others, False
    return others | {r.choice(NAMES): value[key]}, False


def _spoil_list(r, value):
    items = list(value)
    at, how = r.randrange(len(items)), r.random()
    if how < 0.5:
        items[at] = spoil(r, items[at])[0]
    elif how < 0.6:
        del items[at]
    elif how < 0.7:
        items.insert(at, items[at])
    elif how < 0.75:
        return iter(items)
    elif how < 0.8:
        return np.array(items, object)
    else:
        items.append(scalar(r))
    return tuple(items) if isinstance(value, tuple) else items


# Bytes ------------------------------------------------------------------------------------------

def flip(r, data):
    """`data` with one to three bits flipped."""
    data = bytearray(data)
    for _ in range(r.randint(1, 3)):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


def cut(r, data):
    """`data` without its end, or without a stretch inside."""
    start = r.randrange(len(data))
    return data[:start] + (data[start + r.randint(1, 40):] if r.random() < 0.3 else b"")


def overwrite(r, data):
    """`data` with some bytes written over, put in or taken from elsewhere in it."""
    at, length = r.randrange(len(data)), r.randint(1, 64)
    source = r.randrange(len(data))
    new = r.choice([r.randbytes(length), bytes(length), data[source:source + length],
                    b"\xff" * length])
    return data[:at] + new + data[at + r.choice([0, len(new), length]):]
