"""Read a CSV file into columns of text; what the text means is for `Schema` to say."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from npple.archive import FilePath, read_bytes
from npple.checks import check_path, check_texts, shown
from npple.core.base import AnyArray, Codes
from npple.errors import FileError, InputError, nearest, require

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

GZIP_MAGIC = b"\x1f\x8b"
EXPANSION = 200  # times its size that a gzip file may expand to; a table seldom does 30 times
ANY_EXPANSION = 2**26  # bytes that any may
WIDEST, LONGEST = 2**20, 2**31 - 1  # columns of a file; characters of a field


class Texts(Sequence[str]):
    """A column of texts: each distinct one once, and for each row which one it is.

    It can be read like a list of str and equals one with the same texts. What is done with a
    column is done once per distinct text.

    Parameters
    ----------
    words : list of str
        Different from each other; some may be in no row.
    numbers : (n,) array of int
        Of each row, the place of its text in `words`.
    """

    def __init__(self, words: list[str], numbers: Codes) -> None:
        self.words, self.numbers = words, numbers

    @classmethod
    def of(cls, name: str, texts: Sequence[str]) -> Texts:
        """The same texts, given as a list or tuple; `InputError` names the column `name`."""
        if isinstance(texts, cls):
            return texts
        if not all(map(str.__instancecheck__, texts)):
            row, text = next((row, text) for row, text in enumerate(texts, start=1)
                             if not isinstance(text, str))
            raise InputError(f"column {shown(name)}, row {row}: {shown(text)}, expected a text")
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        numbers = np.fromiter(map(places.__getitem__, texts), np.int32, len(texts))
        return cls(list(places), numbers)

    @cached_property
    def distinct(self) -> tuple[list[str], Codes]:
        """The texts that are in a row, and of each row the place of its text among them."""
        present = np.unique(self.numbers)
        places = np.empty(len(self.words), np.intp)
        places[present] = np.arange(len(present))
        return [self.words[number] for number in present], places[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        return map(self.words.__getitem__, self.numbers.tolist())

    @overload
    def __getitem__(self, rows: int) -> str: ...

    @overload
    def __getitem__(self, rows: slice) -> Texts: ...

    def __getitem__(self, rows: int | slice) -> str | Texts:
        if isinstance(rows, slice):
            return Texts(self.words, self.numbers[rows])
        return self.words[self.numbers[rows]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple, Texts)):
            return NotImplemented
        return list(self) == list(other)

    def __repr__(self) -> str:
        return f"<{len(self)} texts, {len(self.distinct[0])} of them distinct>"


class Columns(dict[str, Texts]):
    """Columns by name; `doubled` names those that a file has more than once, which are left out."""

    def __init__(self, columns: Mapping[str, Texts], doubled: Sequence[str] = ()) -> None:
        super().__init__(columns)
        self.doubled = list(doubled)


class Dress(NamedTuple):
    """How a file is written down.

    Attributes
    ----------
    delimiter : str
        What stands between two fields: one character, or "tab".
    names : sequence of str or None
        The column names of a file without a header; with None the first row holds them.
    encoding : str
        Of its characters, as Python names encodings.
    """

    delimiter: str = ","
    names: Sequence[str] | None = None
    encoding: str = "utf-8"


CSV = Dress()


def read_columns(path: FilePath, names: Sequence[str] | None = None, delimiter: str = ",",
                 encoding: str = "utf-8") -> Columns:
    """Read a CSV file, plain or gzip-compressed.

    Spaces around a field are dropped. Blank lines at the end are no rows; no other line is
    skipped. Columns without a name, and those whose name comes more than once, are left out. A
    row may end in one delimiter too many.

    Parameters
    ----------
    path : str or path
        The file. Whether it is compressed is seen from its first bytes, not from its name.
    names : sequence of str, optional
        The column names of a file without a header; by default the first row holds them.
    delimiter : str, optional
        What stands between two fields: one character, or "tab".
    encoding : str, optional
        Of the characters, as Python names encodings.

    Returns
    -------
    dict column -> Texts
        The fields, as many per column, in file order.

    Raises
    ------
    FileError
        If the file cannot be read, is empty or is not text.
    InputError
        If no column has a name, a row has not one field per name, or an option cannot be used.
    """
    dress = Dress(delimiter, names, encoding)
    rows = read_rows(path, dress)
    return as_columns(path, next(rows) if names is None else names, rows)


def read_rows(path: FilePath, dress: Dress = CSV) -> Iterator[list[str]]:
    """Yield the rows of a CSV file as lists of fields, spaces not yet dropped."""
    check_path("path", path)
    delimiter = "\t" if dress.delimiter in ("tab", "\\t") else dress.delimiter
    fits = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in "\r\n\" "
    require(fits, f"delimiter: {shown(delimiter)}, expected one character, as ',' or ';', or 'tab'")
    text = _text(path, dress.encoding).rstrip(" \r\n")
    if '"' not in text:  # then a line is a row, and this takes half the time
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if len(line) > WIDEST:
                _narrow(path, line, delimiter)
            yield line.split(delimiter) if line else []
        return
    narrow = (_narrow(path, line, delimiter) for line in io.StringIO(text, newline=""))
    reader = csv.reader(narrow, delimiter=delimiter, skipinitialspace=True, strict=True)
    limit = csv.field_size_limit(LONGEST)
    try:
        yield from reader
    except csv.Error as error:
        raise FileError(f"{_quoted(path)}, line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _narrow(path: FilePath, line: str, delimiter: str) -> str:
    """A line, if it has no more fields than a table may have."""
    if (count := line.count(delimiter) + 1) > WIDEST:
        raise InputError(f"{_quoted(path)}: a line of {count} fields, expected at most {WIDEST}")
    return line


def as_columns(path: FilePath, names: Sequence[str], rows: Iterable[list[str]]) -> Columns:
    """Turn rows of fields into columns of text without surrounding spaces."""
    names = [name.strip(" ") for name in check_texts("names", names)]
    for mark, option in {"\t": "tab", ";": "';'", "|": "'|'"}.items():
        require(len(names) != 1 or mark not in names[0],
                f"{_quoted(path)}: one column, {shown(names[0] if names else '')}, is the file "
                f"separated by {option}? then read it with --delimiter {option}")
    require(any(names), f"{_quoted(path)}: names: every column name is missing, expected a header "
                        "in the first line")
    numbers = _Numbers()
    fields = chain.from_iterable(_equally_long(path, rows, len(names)))
    found = np.fromiter(map(numbers.__getitem__, fields), np.int32)  # row after row
    words = list(numbers.of_text)
    by_column = np.ascontiguousarray(found.reshape(-1, len(names)).T)
    count = Counter(names)
    return Columns({name: Texts(words, column) for name, column in zip(names, by_column)
                    if name and count[name] == 1},
                   [name for name in count if name and count[name] > 1])


def absent(columns: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise `InputError` for names that are no columns: the nearest, and what there is."""
    missing = [name for name in names if name not in columns]
    for name in missing[:1]:
        require(name not in getattr(columns, "doubled", ()),
                f"column {shown(name)} comes more than once, expected one of that name")
        guess = nearest("", name, map(str, columns)).removeprefix(f": {name!r:.80}, ")
        hint = ("; is the first line no header? then name the columns with --columns"
                if any(map(_is_number, columns)) else "")
        raise InputError(f"no column {', '.join(map(shown, missing[:5]))}, {guess}{hint}")


def _is_number(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[+-]?[0-9.]+", text) is not None


def converted(name: str, texts: Texts, convert: Callable[[str], object], expected: str,
              dtype: DTypeLike) -> AnyArray:
    """Convert each text of a column, doing the work once per distinct text.

    Parameters
    ----------
    name : str
        The column, for the error message.
    texts : Texts
    convert : callable
        From a text to its value, or to None if the text cannot be accepted.
    expected : str
        What is accepted, for the error message.
    dtype : dtype
        Of the result.

    Returns
    -------
    (n,) array

    Raises
    ------
    InputError
        Naming the column, the row counted from 1, and the text.
    """
    words, places = texts.distinct
    values = [convert(text) for text in words]
    if None in values:
        row = int(np.argmax(np.array([value is None for value in values])[places]))
        raise InputError(f"column {shown(name)}, row {row + 1}: {shown(texts[row])}, "
                         f"expected {expected}")
    return np.array(values, dtype)[places]


class _Numbers(dict[str, int]):
    """field -> number of its text without surrounding spaces, in the order they first come."""

    def __init__(self) -> None:
        self.of_text: dict[str, int] = {}

    def __missing__(self, field: str) -> int:
        number = self.of_text.setdefault(field.strip(" "), len(self.of_text))
        self[field] = number
        return number


def _text(path: FilePath, encoding: str) -> str:
    try:
        "".encode(encoding)  # Python knows others, as rot13, that make no text
    except (LookupError, TypeError, ValueError):
        raise InputError(f"encoding: {shown(encoding)}, expected one that Python knows, as "
                         "'utf-8' or 'latin-1'") from None
    try:
        data = read_bytes(path)
        if data.startswith(GZIP_MAGIC):
            data = _expanded(path, data)
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        message = (f"{_quoted(path)}: byte {error.start + 1} is not {encoding.upper()}, expected a "
                   "CSV file; another encoding is read with --encoding, as latin-1 or utf-16")
        raise FileError(message) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(f"{_quoted(path)}: broken or truncated gzip file ({error})") from error
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: of a codec
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{_quoted(path)}: {reason}, expected a readable file") from error
    if not text or text.isspace():
        raise FileError(f"{_quoted(path)}: the file is empty, expected a CSV file")
    if "\0" in text:
        raise FileError(f"{_quoted(path)}: NUL characters, expected a CSV file, not a binary one")
    return str(text)


def _expanded(path: FilePath, data: bytes) -> bytes:
    """What a gzip file holds, unless it is a bomb: never much more memory than the limit."""
    limit = max(EXPANSION * len(data), ANY_EXPANSION)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise FileError(f"{_quoted(path)}: {len(data)} bytes of gzip expand to more than {limit}, "
                        "expected a CSV file")
    return text


def _equally_long(path: FilePath, rows: Iterable[list[str]], width: int) -> Iterator[list[str]]:
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            if len(row) == width + 1 and not row[-1].strip(" "):
                row.pop()  # a trailing comma
            else:
                place = f"{_quoted(path)}, row {number}"
                raise InputError(f"{place}: {len(row)} fields, expected {width}")
        yield row


def _quoted(path: FilePath) -> str:
    return shown(os.fspath(path) if isinstance(path, (str, os.PathLike)) else path)
