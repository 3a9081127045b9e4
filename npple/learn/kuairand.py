"""The published files of KuaiRand-Pure, a log of videos shown, as tasks like VTR and VCR."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from npple.archive import FilePath
from npple.checks import check_choice, check_number, check_path, shown
from npple.core.base import Codes
from npple.errors import FileError, InputError, require
from npple.learn.columns import Texts, as_columns, converted, read_columns, read_rows

EARLY, LATE = "log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"
USERS, VIDEOS = "user_features_pure.csv", "video_features_basic_pure.csv"
USED = ("user_id", "video_id", "hourmin", "tab", "is_click", "is_like", "long_view",
        "play_time_ms", "duration_ms")  # of a log
LOG = (*USED, "date", "time_ms", "is_follow", "is_comment", "is_forward", "is_hate",
       "profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand")
OF_USER = ("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
           "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
           "register_days_range", *(f"onehot_feat{number}" for number in range(18)))
OF_VIDEO = ("author_id", "video_type", "upload_type", "music_id", "music_type", "tag")
FEATURES = {  # file -> its key, the columns that are used, and the others that it has
    USERS: ("user_id", OF_USER, ("follow_user_num", "fans_user_num", "friend_user_num",
                                 "register_days")),
    VIDEOS: ("video_id", OF_VIDEO, ("upload_dt", "visible_status", "video_duration",
                                    "server_width", "server_height"))}
GROUPS = {  # of tasks: those like VTR and VCR, and all
    "1": {"long_view": "binary", "completion": "regression"},
    "2": {"click": "binary", "long_view": "binary", "completion": "regression", "like": "binary"}}
LONGEST = 1e15  # milliseconds


def is_kuairand(folder: FilePath) -> bool:
    """Whether a folder holds the first log.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    bool

    Raises
    ------
    InputError
        For what can name no folder.
    """
    check_path("folder", folder)
    return isfile(Path(folder) / EARLY)


def kuairand_roles(columns: Mapping[str, Texts], group: str = "1") -> dict[str, Any]:
    """What the columns are, as `npple.fit` and `Schema.learn` take it.

    Parameters
    ----------
    columns : dict column -> Texts
        From `read_kuairand`: features of users and videos may be there or not.
    group : str, optional
        "1", `long_view` and `completion`, which are like VTR and VCR, or "2", all four tasks.

    Returns
    -------
    dict
        `numeric`, `categorical`, `bags`, `tasks` and `log`.

    Raises
    ------
    InputError
        If there is no such group.
    """
    check_choice("task group", group, GROUPS)
    names = ("user_id", "video_id", "hour", "tab", *OF_USER, *OF_VIDEO)
    return {"numeric": ("duration_ms",), "log": ("duration_ms",), "tasks": GROUPS[group],
            "categorical": [name for name in names if name in columns and name != "tag"],
            "bags": [name for name in ("tag",) if name in columns]}


def read_kuairand(path: FilePath) -> dict[str, Texts]:
    """Read a log, and what the files of features beside it say of its users and videos.

    Parameters
    ----------
    path : str or path
        A log in the published format, plain or gzip-compressed. `user_features_pure.csv` and
        `video_features_basic_pure.csv` in its folder are joined where they are there.

    Returns
    -------
    dict column -> Texts
        Features, and the labels `click`, `long_view`, `like`, and `completion`: the play time over
        the length, at most 1, of rows with a click; no other row has one.

    Raises
    ------
    FileError
        If a file cannot be read.
    InputError
        If a file has a column that is not published, or lacks one that is used; if a user or video
        has several rows of features; if a time or a click is none.

    References
    ----------
    Gao et al., CIKM 2022; the columns are those that https://kuairand.com describes.
    """
    rows = read_rows(path)
    names = [name.strip(" ") for name in next(rows)]
    _check_names(path, names, LOG, USED)
    columns: dict[str, Texts] = as_columns(path, USED, _chosen(path, names, rows))
    for file, (key, used, others) in FEATURES.items():
        source = Path(path).parent / file
        if source.is_file():
            table = read_columns(source)
            _check_names(source, [*table, *table.doubled], (key, *used, *others), (key, *used))
            columns |= _joined(source, columns[key], table, key, used)
    if "tag" in columns:
        columns["tag"] = _mapped("tag", columns["tag"], lambda text: text.replace(",", "|"))
    columns["hour"] = _mapped("hourmin", columns.pop("hourmin"), lambda text: text[:-2] or "0")
    for label in ("click", "like"):
        columns[label] = columns.pop(f"is_{label}")
    columns["completion"] = _completion(columns["click"], columns.pop("play_time_ms"),
                                        columns["duration_ms"])
    return columns


def kuairand_split(folder: FilePath) -> tuple[dict[str, Texts], dict[str, Texts]]:
    """The two standard logs as published: two weeks to train on, the days after to judge by.

    Parameters
    ----------
    folder : str or path
        Holds the files.

    Returns
    -------
    earlier, later : dict column -> Texts

    Raises
    ------
    FileError
        If a log is not there or cannot be read.
    InputError
        If a file is not of the published form.
    """
    check_path("folder", folder)
    for name in (EARLY, LATE):
        if not isfile(Path(folder) / name):
            raise FileError(f"no {name} in {str(folder)!r}, expected the folder with the published "
                            "files")
    earlier, later = (read_kuairand(Path(folder) / name) for name in (EARLY, LATE))
    return earlier, later


def _check_names(path: FilePath, names: Sequence[str], known: Sequence[str],
                 needed: Sequence[str]) -> None:
    """Refuse a header with a column that is not known, comes twice, or without one needed."""
    for name in names:
        require(name in known and names.count(name) == 1,
                f"{str(path)!r}: column {shown(name)}, expected those published, each once: "
                f"{', '.join(known)}")
    for name in needed:
        require(name in names, f"{str(path)!r}: no column {name!r}, expected the published file")


def _chosen(path: FilePath, names: Sequence[str], rows: Iterator[list[str]]
            ) -> Iterator[list[str]]:
    """The fields of `USED` of each row; the others are never kept."""
    places = [names.index(name) for name in USED]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise InputError(f"{str(path)!r}, row {number}: {len(row)} fields, "
                             f"expected {len(names)}")
        yield [row[place] for place in places]


def _joined(path: Path, keys: Texts, table: Mapping[str, Texts], key: str, used: Sequence[str]
            ) -> dict[str, Texts]:
    """The columns `used` for each of the log's rows; nothing for a key that the file lacks."""
    ids = list(table[key])
    row_of = {name: row for row, name in enumerate(ids)}
    require(len(row_of) == len(ids), f"{str(path)!r}: a {key} comes more than once, expected a row "
                                     "for each")
    words, places = keys.distinct
    rows = np.array([row_of.get(word, len(ids)) for word in words], np.intp)[places]
    return {name: _taken(table[name], rows) for name in used}


def _taken(column: Texts, rows: Codes) -> Texts:
    """The texts of these rows; the row behind the last has none."""
    words, places = column.distinct
    words = words if "" in words else [*words, ""]
    return Texts(words, np.append(places, words.index("")).astype(np.int32)[rows])


def _mapped(name: str, column: Texts, change: Callable[[str], str]) -> Texts:
    """A column with each text changed."""
    words, places = column.distinct
    changed = Texts.of(name, [change(word) for word in words])
    return Texts(changed.words, changed.numbers[places])


def _completion(clicks: Texts, played: Texts, lengths: Texts) -> Texts:
    """The share that was played, to four digits; nothing without a click or a length."""
    clicked = converted("is_click", clicks, {"0": False, "1": True}.get, "0 or 1", bool)
    play, length = (converted(name, texts, _milliseconds, "milliseconds", float)
                    for name, texts in (("play_time_ms", played), ("duration_ms", lengths)))
    defined = clicked & (length > 0)
    tenths = np.full(len(clicked), -1)  # of a thousandth
    tenths[defined] = np.rint(1e4 * np.minimum(play[defined] / length[defined], 1))
    values, numbers = np.unique(tenths, return_inverse=True)
    return Texts([f"{value / 1e4:g}" if value >= 0 else "" for value in values.tolist()],
                 numbers.astype(np.int32))


def _milliseconds(text: str) -> float | None:
    try:
        return check_number("milliseconds", float(text), 0, LONGEST)
    except ValueError:
        return None
