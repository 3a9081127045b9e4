"""The logs of KuaiRand-Pure, on made files of the published form."""

import gzip
import tracemalloc

import numpy as np
import pytest

from npple.cli import main
from npple.errors import FileError, InputError
from npple.learn.kuairand import (EARLY, LATE, OF_USER, OF_VIDEO, USERS, VIDEOS, kuairand_roles,
                                  kuairand_split, read_kuairand)

LOG = ("user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
       "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
       "is_profile_enter,is_rand,tab")  # as published
USER = ("user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
        "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
        "friend_user_num_range,register_days,register_days_range,"
        + ",".join(f"onehot_feat{number}" for number in range(18)))
VIDEO = ("video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
         "server_width,server_height,music_id,music_type,tag")
ROWS = ("3,1071,20220408,1600,1649408076860,1,0,0,0,0,0,1,175045,87433,0,0,0,0,1\n"
        "3,20,20220408,400,1649408076861,1,1,0,0,0,0,0,8000,32000,0,0,0,0,0\n"
        "4,20,20220408,0,1649408076862,0,0,0,0,0,0,0,1385,32000,0,0,0,0,1\n"
        "4,21,20220408,1330,1649408076863,1,0,0,0,0,0,0,5,0,0,0,0,0,1\n")


def drawn(count, date, seed):
    random = np.random.default_rng(seed)
    for row in range(count):
        user, video, click = random.integers((40, 30, 2))
        play = random.integers(7000, 60_000) if click else random.integers(0, 7000)
        yield (f"{user},{video},{date},{100 * random.integers(24)},{1649408076860 + row},{click},"
               f"{int(random.random() < 0.1)},0,0,0,0,{int(play >= 18_000)},{play},40000,"
               "0,0,0,0,1\n")


def folder_of(path, rows=300):
    (path / EARLY).write_text(f"{LOG}\n" + "".join(drawn(rows, 20220410, 0)))
    (path / LATE).write_text(f"{LOG}\n" + "".join(drawn(rows // 3, 20220425, 1)))
    (path / USERS).write_text(f"{USER}\n" + "".join(
        f"{user},full_active,0,0,1,5,\"(0,10]\",312,\"[100,1k)\",0,0,3624,730+,"
        + ",".join(str(user % 3) for _ in range(18)) + "\n" for user in range(39)))
    (path / VIDEOS).write_text(f"{VIDEO}\n" + "".join(
        f"{video},{video % 7},NORMAL,2022-04-01,Web,1,40000.0,720,1280,99,4.0,\"{video % 5},65\"\n"
        for video in range(30)))
    return path


@pytest.fixture
def log(tmp_path):
    path = tmp_path / EARLY
    path.write_text(f"{LOG}\n{ROWS}")
    return path


def test_completion_is_play_time_over_length_at_most_1_and_of_clicked_rows_alone(log):
    assert read_kuairand(log)["completion"] == ["1", "0.25", "", ""]


def test_labels_and_features_are_those_of_the_file(log):
    columns = read_kuairand(log)
    assert columns["click"] == ["1", "1", "0", "1"] and columns["like"] == ["0", "1", "0", "0"]
    assert columns["long_view"] == ["1", "0", "0", "0"] and columns["tab"] == list("1011")
    assert columns["hour"] == ["16", "4", "0", "13"] and columns["user_id"] == list("3344")


def test_what_is_known_after_the_video_was_shown_is_no_feature(tmp_path):
    columns, _ = kuairand_split(folder_of(tmp_path))
    roles = kuairand_roles(columns, "2")
    assert set(columns) == {*roles["numeric"], *roles["categorical"], *roles["bags"],
                            *roles["tasks"]}
    assert {*OF_USER, *OF_VIDEO} < set(columns) and "tag" in roles["bags"]


def test_features_are_joined_by_id_and_nothing_stands_for_an_unknown_one(log):
    folder_of(log.parent)
    log.write_text(f"{LOG}\n{ROWS}")
    columns = read_kuairand(log)
    assert columns["author_id"] == ["", "6", "6", "0"] and columns["tag"][1] == "0|65"
    assert columns["onehot_feat3"] == list("0011")


def test_without_the_files_of_features_the_log_is_read_alone(log):
    roles = kuairand_roles(read_kuairand(log))
    assert roles["categorical"] == ["user_id", "video_id", "hour", "tab"] and not roles["bags"]


def test_a_packed_log_is_read_too(log):
    plain = read_kuairand(log)
    log.write_bytes(gzip.compress(log.read_bytes()))
    assert read_kuairand(log) == plain


@pytest.mark.parametrize("old, new, message", [
    ("is_hate", "is_fun", "column 'is_fun', expected those published"),
    ("is_hate", "is_like", "column 'is_like', expected those published, each once"),
    ("date,", "", "row 1: 19 fields, expected 18"),
    ("175045", "-1", "column 'play_time_ms', row 1: '-1', expected milliseconds"),
    ("175045", "soon", "column 'play_time_ms', row 1: 'soon', expected milliseconds"),
    ("860,1,0", "860,2,0", "column 'is_click', row 1: '2', expected 0 or 1"),
    ("87433,", "", "row 1: 18 fields, expected 19")])
def test_other_files_are_refused(log, old, new, message):
    log.write_text(log.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_kuairand(log)


def test_a_log_without_a_column_that_is_used_is_refused(log):
    log.write_text("user_id,video_id\n1,2\n")
    with pytest.raises(InputError, match="no column 'hourmin', expected the published file"):
        read_kuairand(log)


def test_a_user_with_two_rows_of_features_is_refused(log):
    users = folder_of(log.parent) / USERS
    users.write_text(users.read_text() + users.read_text().splitlines()[1] + "\n")
    with pytest.raises(InputError, match="a user_id comes more than once"):
        read_kuairand(log)


def test_a_folder_without_the_later_log_is_refused(log):
    with pytest.raises(FileError, match=f"no {LATE}"):
        kuairand_split(log.parent)


def test_memory_is_in_proportion_to_the_log(tmp_path):
    def peak(rows):
        path = folder_of(tmp_path, rows) / EARLY
        tracemalloc.start()
        read_kuairand(path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / path.stat().st_size
    assert peak(8000) < 12


def test_the_command_line_trains_on_the_earlier_log_and_judges_by_the_later(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "--data", str(folder_of(tmp_path)), "--epochs", "1", "--out", out,
                 "--task-group", "2"]) == 0
    assert "completion" in capsys.readouterr().out
    assert main(["evaluate", "--checkpoint", f"{out}/checkpoint.npz", "--data", str(tmp_path)]) == 0
    assert "100 rows" in capsys.readouterr().out


def test_flags_of_other_data_are_refused(tmp_path, capsys):
    folder = str(folder_of(tmp_path))
    for flag in (["--time", "hour"], ["--rows", "5"], ["--delimiter", ";"]):
        assert main(["train", "--data", folder, *flag]) == 2
        assert f"{flag[0]}: of no use for KuaiRand-Pure" in capsys.readouterr().err
