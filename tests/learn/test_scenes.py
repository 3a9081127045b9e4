"""Videos in two scenes: the knobs do what they say."""

import numpy as np
import pytest

from npple.cli import main
from npple.data import label_correlations, vtr_vcr
from npple.errors import InputError
from npple.learn.scenes import PLAYED, SCENES, scene_correlations
from npple.learn.synthetic import weights


def parts(data):
    """Scene -> its rows."""
    return {name: data.take(data.x[:, 0] == value) for name, value in SCENES.items()}


def test_the_scene_decides_how_much_is_played():
    for name, rows in parts(vtr_vcr(40_000, seed=1)).items():
        assert rows.masks["vcr"].mean() == pytest.approx(PLAYED[name], abs=0.02)


def test_vtr_is_watch_time_over_ten_seconds():
    data = vtr_vcr(2000, seed=2)
    seconds = 30 * np.exp(0.5 * data.x[:, 1].astype(float)) * data.targets["vcr"]
    assert np.array_equal(data.targets["vtr"] == 1, seconds > 10)
    assert not data.targets["vtr"][~data.masks["vcr"]].any()


@pytest.mark.parametrize("dependence", [0.0, 0.9])
def test_playing_and_completing_go_together_in_one_scene_and_not_in_the_other(dependence):
    to_play = weights(30, 0.0, 3)[0]
    for name, rows in parts(vtr_vcr(40_000, 32, dependence, noise=0.0)).items():
        own = rows.masks["vcr"] & (np.abs(rows.x[:, 2:] @ to_play) < 1)  # hardly selected by play
        found = np.corrcoef(rows.x[own, 2:] @ to_play, rows.targets["vcr"][own])[0, 1]
        assert np.sign(round(found, 1)) == -np.sign(dependence * SCENES[name])


def test_noise_hides_completion_from_the_features():
    def explained(noise):
        data = vtr_vcr(5000, noise=noise, dependence=0.0)
        own = data.masks["vcr"]
        x = np.column_stack([data.x[own], np.ones(own.sum())])
        y = data.targets["vcr"][own]
        return 1 - np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y)
    assert explained(0.0) > 0.9 > 0.4 > explained(2.0)


@pytest.mark.parametrize("sharing", [0.01, 0.2])
def test_so_many_played_rows_are_shared(sharing):
    data = vtr_vcr(40_000, sharing=sharing)
    assert data.targets["share"][data.masks["share"]].mean() == pytest.approx(sharing, rel=0.15)


def test_fewer_tasks_are_the_first_of_them():
    two, three = vtr_vcr(50, 8, tasks=2), vtr_vcr(50, 8)
    assert [*two.targets] == ["vtr", "vcr"] == [*three.targets][:2] and [*two.masks] == ["vcr"]
    for task, y in two.targets.items():
        assert np.array_equal(y, three.targets[task])


def test_flags_of_other_data_are_refused(capsys):
    for data, flag in (("vtr_vcr", "--correlation"), ("synthetic", "--dependence"),
                       ("census", "--sharing")):
        assert main(["train", "--data", data, flag, "0.25"]) == 2
        assert f"{flag}: of no use for" in capsys.readouterr().err


def test_fewer_rows_are_the_first_of_more_rows():
    few, many = vtr_vcr(3, 8, seed=4), vtr_vcr(50, 8, seed=4)
    assert np.array_equal(few.x, many.x[:3])
    for task, y in few.targets.items():
        assert np.array_equal(y, many.targets[task][:3])


def test_correlations_by_scene_are_those_of_its_rows():
    data = vtr_vcr(3000)
    assert scene_correlations(data) == {name: label_correlations(rows)
                                        for name, rows in parts(data).items()}


@pytest.mark.parametrize("change, message", [
    ({"inputs": 4}, "inputs: an integer of at least 5"), ({"dependence": 2}, "dependence must be"),
    ({"noise": -1}, "noise must be"), ({"sharing": 2}, "sharing must be"),
    ({"tasks": 5}, "tasks: an integer from 1 to 4"), ({"rows": 0}, "rows: an integer"),
    ({"seed": -1}, "seed is -1")])
def test_what_makes_no_videos_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        vtr_vcr(**{"rows": 10} | change)


def test_training_and_comparing_print_the_labels_correlations_by_scene(tmp_path, monkeypatch,
                                                                       capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--data", "vtr_vcr", "--rows", "600", "--inputs", "6", "--epochs", "1"]
    assert main(["train", *small]) == 0
    assert main(["compare", *small, "--models", "single_task", "--seeds", "1",
                 "--dependence", "0", "0.9"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("labels in")]
    assert len(lines) == 6 and all("vtr, vcr 0." in line for line in lines)
