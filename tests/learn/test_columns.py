"""read_columns: a CSV file in whatever dress, or one clear line about why not."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npple.data import read_columns
from npple.learn.columns import Dress
from npple.learn.frames import columns_of
from npple.learn import columns
from npple.errors import FileError, InputError

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8).map(
    lambda text: text.strip(" ")
)
SIMPLE = st.text("ab1.?-é", min_size=1, max_size=4)  # needs no quotes


def tables(cell):
    """Rows of 2 to 4 cells, all of them equally long."""
    return st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1)
    )


def written(folder, data, name="file.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def by_number(rows):
    """The columns the rows should become, under the names "0", "1", ..."""
    return {str(i): [row[i] for row in rows] for i in range(len(rows[0]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("columns")


@given(rows=tables(CELL), ending=st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_quotes_is_read_back(folder, rows, ending):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ending).writerows(rows)
    path = written(folder, text.getvalue())
    assert read_columns(path, by_number(rows)) == by_number(rows)


@given(
    rows=tables(SIMPLE),
    comma=st.sampled_from([",", ", ", " ,  "]),
    ending=st.sampled_from(["\n", "\r\n", "\r", "  \n"]),
    last=st.booleans(),
    bom=st.booleans(),
    zipped=st.booleans(),
)
def test_the_dress_of_a_file_does_not_matter(folder, rows, comma, ending, last, bom, zipped):
    text = ending.join(comma.join(row) for row in rows) + ending * last
    data = text.encode("utf-8-sig" if bom else "utf-8")
    path = written(folder, gzip.compress(data) if zipped else data)
    assert read_columns(path, by_number(rows)) == by_number(rows)


@given(rows=tables(SIMPLE))
def test_one_quoted_field_changes_no_other_field(folder, rows):
    rows[0][-1] = "x"
    text = "\n".join(", ".join(row) for row in rows)
    rows[0][-1] = "x,y"
    path = written(folder, text.replace("x", '"x,y"'))
    assert read_columns(path, by_number(rows)) == by_number(rows)


@given(text=st.text("ab1, \r\n\x0b\u2028é", min_size=1))
def test_a_file_without_quotes_is_read_as_the_csv_module_reads_it(folder, text):
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    expected = [[field.strip(" ") for field in row] for row in reader]
    while expected and expected[-1] in ([], [""]):  # blank lines at the end are no rows
        expected.pop()
    if text.strip():
        found = columns.read_rows(written(folder, text))
        assert [[field.strip(" ") for field in row] for row in found] == expected


def test_the_header_is_the_first_row(tmp_path):
    path = written(tmp_path, "a, b \n1,2\n3,\n")
    assert read_columns(path) == {"a": ["1", "3"], "b": ["2", ""]}


def test_a_file_may_have_a_hundred_thousand_columns(tmp_path):
    names = [f"c{i}" for i in range(10**5)]
    path = written(tmp_path, "\n".join([",".join(names), *[",".join("7" for _ in names)] * 2]))
    assert read_columns(path) == {name: ["7", "7"] for name in names}


def test_a_header_alone_gives_empty_columns(tmp_path):
    assert read_columns(written(tmp_path, "a,b\n")) == {"a": [], "b": []}


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "the file is empty, expected a CSV file"),
        (b" \r\n\n", "the file is empty, expected a CSV file"),
        (gzip.compress(b"", mtime=0), "the file is empty, expected a CSV file"),
        ("a\n\xe9\n".encode("latin-1"), "byte 3 is not UTF-8, expected a CSV file"),
        ("a\n1\n".encode("utf-16"), "byte 1 is not UTF-8, expected a CSV file"),
        (b"a\n1\0\n", "NUL characters, expected a CSV file, not a binary one"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-9], "broken or truncated gzip file"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-1] + b"!", "broken or truncated gzip file"),
        (gzip.compress(b"a\n1\n", mtime=0) + b"more", "broken or truncated gzip file"),
        (gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "broken or truncated gzip file"),
        (b"\x1f\x8b", "broken or truncated gzip file"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        (b'a,b\n1,"2"3\n', "line 2: ',' expected after '\"'"),
    ],
)
def test_a_file_that_is_not_a_table_of_text_is_refused(tmp_path, data, message):
    path = written(tmp_path, data)
    with pytest.raises(FileError) as caught:
        read_columns(path)
    assert str(path)[-30:] in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", ".", "with\nnewline.csv"])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(FileError, match=r"^'[^\n]*', expected a readable file$|: .*, expected a"):
        read_columns(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n1,2,3\n", "row 2: 3 fields, expected 2"),
        ("a,b\n1\n", "row 1: 1 fields, expected 2"),
        ("a,b\n1,2\n\n1,2\n", "row 2: 0 fields, expected 2"),
        ('a,b\n"1",2\n\n1,2\n', "row 2: 0 fields, expected 2"),
        ("a\n1\n\n2\n", "row 2: 0 fields, expected 1"),
        (",\n1,2\n", "every column name is missing"),
        ("\na\n", "every column name is missing"),
        ("a;b\n1;2,5\n", "separated by ';'. then read it with --delimiter ';'"),
        ("a\tb\n1\t2\n", "separated by tab. then read it with --delimiter tab"),
    ],
)
def test_rows_that_make_no_table_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_columns(written(tmp_path, text))


def test_a_message_stays_short_whatever_the_file_holds(tmp_path):
    with pytest.raises(InputError) as caught:
        read_columns(written(tmp_path, "a" * 5000 + ";" + "a" * 5000))
    assert len(str(caught.value)) < 200 + len(str(tmp_path))


def test_given_names_are_held_to_the_same_rules(tmp_path):
    path = written(tmp_path, "1,2\n")
    assert read_columns(path, ["a", ""]) == {"a": ["1"]}
    with pytest.raises(InputError, match="row 1: 2 fields, expected 3"):
        read_columns(path, ["a", "b", "c"])


@pytest.mark.parametrize("text", ["a,a,,b\n1,2,3,4\n", "a,b,a,\n1,4,2,\n", "a,a,b\n1,2,4,\n"])
def test_unnamed_and_doubled_columns_are_left_out(tmp_path, text):
    columns = read_columns(written(tmp_path, text))
    assert columns == {"b": ["4"]} and columns.doubled == ["a"]


@pytest.mark.parametrize("end", ["\n\n", "\r\n \n", "\n\n\n"])
@pytest.mark.parametrize("field", ["1", '"1"'])
def test_blank_lines_at_the_end_are_no_rows(tmp_path, end, field):
    assert read_columns(written(tmp_path, f"a,b\n{field},2{end}")) == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_field_may_be_long(tmp_path, quote):
    limit = csv.field_size_limit()
    text = "1 " * 100_000 + "1"
    path = written(tmp_path, f"a,b\n{quote}{text}{quote},2\n")
    assert read_columns(path) == {"a": [text], "b": ["2"]}
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("delimiter, mark", [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("|", "|")])
def test_other_delimiters_are_read_when_named(tmp_path, delimiter, mark):
    path = written(tmp_path, f"a{mark}b\n1{mark}2,5\n")
    assert read_columns(path, delimiter=delimiter) == {"a": ["1"], "b": ["2,5"]}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_when_named(tmp_path, encoding):
    path = written(tmp_path, "a\n\xe9\n".encode(encoding))
    assert read_columns(path, encoding=encoding) == {"a": ["\xe9"]}


@pytest.mark.parametrize("options", [{"delimiter": ",,"}, {"delimiter": '"'}, {"delimiter": 5},
                                     {"encoding": "utf-9"},
                                     {"encoding": "rot13"}, {"encoding": None}])
def test_what_is_no_delimiter_or_encoding_is_refused(tmp_path, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: .*, expected one"):
        read_columns(written(tmp_path, "a\n1\n"), **options)


def test_a_line_of_millions_of_commas_is_refused_before_it_is_split(tmp_path):
    path = written(tmp_path, gzip.compress(b"," * 2**22))
    with pytest.raises(InputError, match="a line of 4194305 fields, expected at most"):
        read_columns(path)


def test_a_gzip_bomb_is_refused_before_it_is_expanded(folder, monkeypatch):
    monkeypatch.setattr(columns, "ANY_EXPANSION", 1000)
    bomb = gzip.compress(b"a,b\n" * 10**6)  # expands to about 1000 times its size
    path = written(folder, bomb)
    with pytest.raises(FileError, match=f"{len(bomb)} bytes of gzip expand to more than"):
        read_columns(path)
    monkeypatch.setattr(columns, "EXPANSION", 2000)
    assert len(read_columns(path, ["a", "b"])["b"]) == 10**6


def test_a_hundred_thousand_columns_are_read(folder):
    names = [f"c{i}" for i in range(10**5)]
    read = read_columns(written(folder, "\n".join([",".join(names)] + [",".join("1" * 10**5)] * 2)))
    assert list(read) == names and read["c99999"] == ["1", "1"]


@pytest.mark.parametrize("names", [5, "ab", [1, 2], [None]])
def test_names_are_texts(folder, names):
    with pytest.raises(InputError, match="names: .*, expected a sequence of texts"):
        read_columns(written(folder, "1,2\n"), names)


def test_names_that_are_no_texts_do_not_hide_what_is_missing():
    with pytest.raises(InputError, match="no column 'a', expected one of True, 3"):
        columns.absent({True: [], 3: []}, ["a"])


@pytest.mark.parametrize("first", ["a", '"a"'])  # with a quote, another reader is at work
def test_a_line_of_too_many_fields_is_refused_before_it_is_taken_apart(tmp_path, monkeypatch,
                                                                       first):
    monkeypatch.setattr(columns, "WIDEST", 100)
    (tmp_path / "wide.csv").write_text(first + "," * 100)
    with pytest.raises(InputError, match="a line of 101 fields, expected at most 100"):
        columns.read_columns(tmp_path / "wide.csv")


@pytest.mark.parametrize("dress, what", [({"delimiter": ";"}, "delimiter: ';'"),
                                         ({"names": ["a"]}, r"columns: \['a'\]"),
                                         ({"encoding": "latin-1"}, "encoding: 'latin-1'")])
@pytest.mark.parametrize("frame, form", [({"a": [1]}, "csv"), ("census", "census"),
                                         (".", "kuairand"), ("a.parquet", "csv")])
def test_how_a_csv_file_is_written_down_is_of_no_use_for_others(frame, form, dress, what):
    with pytest.raises(InputError, match=f"{what}, of no use but for a CSV file"):
        columns_of(frame, form, Dress(**dress))
