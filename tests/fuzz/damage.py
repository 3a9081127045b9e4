"""Damaged copies of an archive: what disks, networks and people make of a file, from a seed."""

import io
import json
import pickle
import warnings
import zipfile

import numpy as np
from hostile import cut, flip, overwrite

HUGE = 2 ** 40  # bytes or entries that no honest header claims


def members(content):
    """Name -> bytes of the members of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(pairs):
    """A zip of (name, bytes), its checksums right."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        for name, data in pairs:
            archive.writestr(name, data)
    return file.getvalue()


def array_in(r, found):
    """The name of one of the arrays."""
    return r.choice([name for name in found if name.endswith(".npy")])


def swap(r, content):
    """Two members that differ change places."""
    found = members(content)
    one, other = r.sample(sorted(found), 2)
    while found[one] == found[other]:
        one, other = r.sample(sorted(found), 2)
    return zipped((found | {one: found[other], other: found[one]}).items())


def rename(r, content):
    """A member gets another name, taken or free."""
    found = members(content)
    old = r.choice(list(found))
    new = r.choice([array_in(r, found), "x.npy", old.upper() + "x", old.removesuffix(".npy"),
                    f"../{old}", f"{old}.npy", "a\x00b.npy", "a\nb.npy", "ü.npy"])
    new = new if new != old else f"x{old}"
    return zipped((new if name == old else name, data) for name, data in found.items())


def reorder(r, content):
    """The same members in another order."""
    pairs = list(members(content).items())
    at = r.randrange(1, len(pairs) - 1)
    pairs[at:at + 2] = pairs[at + 1], pairs[at]
    return zipped(pairs)


def drop_or_repeat(r, content):
    """A member is missing, or there twice."""
    pairs = list(members(content).items())
    at = r.randrange(len(pairs))
    return zipped(pairs[:at] + pairs[at + 1:] if r.random() < 0.5 else pairs + [pairs[at]])


class Boom:
    """Fails the test if anybody unpickles it."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def pickled(r, content):
    """A pickle in the place of an array, as it is or as NumPy would keep it."""
    found = members(content)
    as_array = io.BytesIO()
    np.save(as_array, np.array([Boom()], object), allow_pickle=True)
    data = r.choice([pickle.dumps(Boom()), as_array.getvalue()])
    return zipped((found | {array_in(r, found): data}).items())


def flip_inside(r, content):
    """Bits of an array flip, and the zip's checksum is made anew: only our own can tell."""
    found = members(content)
    name = array_in(r, found)
    return zipped((found | {name: flip(r, found[name])}).items())


def flip_record(r, content):
    """Bits of the record flip (a rate, a mean, an activation), under a zip checksum made anew."""
    found = members(content)
    return zipped((found | {"meta.json": flip(r, found["meta.json"])}).items())


def digit(r, text):
    """`text` with another digit: a number, a version or the digest itself."""
    at = r.choice([i for i in range(len(text)) if text[i:i + 1].isdigit()])
    other = r.choice([each for each in b"0123456789" if each != text[at]])
    return text[:at] + bytes([other]) + text[at + 1:]


def digit_in_record(r, content):
    """One digit of the record is another."""
    found = members(content)
    return zipped((found | {"meta.json": digit(r, found["meta.json"])}).items())


def version(r, content):
    """The record is of another version or format than the file was written in."""
    found = members(content)
    record = json.loads(found["meta.json"])
    record |= r.choice([{"version": number} for number in (0, 1, 3, 2**70, -1)]
                       + [{"format": text} for text in ("npple vectors", "npple checkpoint", "")])
    text = json.dumps(record, indent=1).encode()
    return zipped((found | {"meta.json": text}).items()) if text != found["meta.json"] else b""


def claim(r, content):
    """The header of an array claims another shape or dtype than its bytes hold."""
    found = members(content)
    name = array_in(r, found)
    array = np.load(io.BytesIO(found[name]))
    shape = r.choice([(HUGE,), (HUGE, HUGE), (0, HUGE),
                      (*array.shape, 1), (2, *array.shape), (-1,)])
    header = {"descr": r.choice([array.dtype.str, ">f8", "<f2", "|O", "|V8"]),
              "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return zipped((found | {name: file.getvalue() + array.tobytes()}).items())


def oversize(r, content):
    """A length or offset in the zip's own records claims more than there is."""
    at = r.choice([i for i in range(len(content) - 4)
                   if content[i:i + 4] in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")])
    field, size = at + r.randrange(8, 30), r.choice([2, 4])
    return content[:field] + b"\xff" * size + content[field + size:]


DAMAGES = (flip, flip, cut, overwrite, swap, rename, reorder, drop_or_repeat, pickled, flip_inside,
           flip_record, digit_in_record, version, claim, oversize)
TEXT_DAMAGES = (flip, digit, cut, overwrite)
