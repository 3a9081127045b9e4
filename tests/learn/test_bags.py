"""Columns with several values in a text, from the file to the model and back from a checkpoint."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

import npple
from npple.cli import main
from npple.data import Schema, click_log

SMALL = {"epochs": 2, "expert_units": (8,), "tower_units": (4,), "min_count": 1,
         "optimizer": npple.Adam(rate=0.02)}


def table(tags, **more):
    """A table whose label is whether `a` is among the tags."""
    return {"tags": tags, "y": ["01"["a" in text] for text in tags], **more}


def learn(tags, **options):
    return Schema.learn(table(tags), [], [], {"y": "binary"}, bags=["tags"], **options)


texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=5).map("|".join), min_size=1,
                 max_size=8).filter(any)


@given(texts, texts)
def test_codes_are_places_in_the_sorted_vocabulary_of_the_training_rows(training, later):
    schema = learn(training)
    words = sorted({word for text in training for word in text.split("|") if word})
    codes = schema.encode(table(later)).x["tags"]
    assert schema.bags["tags"].words == tuple(words)
    for text, row in zip(later, codes, strict=True):
        expected = [words.index(word) + 1 if word in words else 0
                    for word in text.split("|") if word]
        assert row.tolist() == expected + [-1] * (codes.shape[1] - len(expected))


def test_spaces_and_empty_values_are_no_values():
    tags = ["a | b", "a||b|", " ", "|"]
    codes = learn(tags).encode(table(tags)).x["tags"]
    assert codes.tolist() == [[1, 2], [1, 2], [-1, -1], [-1, -1]]


def test_another_separator():
    assert learn(["a;b", "b|c"], separator=";").bags["tags"].words == ("a", "b", "b|c")


def test_values_that_come_seldom_are_unknown():
    assert learn(["a|a|b", "a|c", "c"], min_count=2).bags["tags"].words == ("a", "c")


@pytest.mark.parametrize("options, message", [
    ({"separator": ""}, "bag separator ''"), ({"separator": "| "}, "bag separator '| '"),
    ({"separator": 3}, "bag separator 3"), ({"pool": "max"}, "bag pool: 'max', .*mean, sum")])
def test_options_that_make_no_bags_are_refused(options, message):
    with pytest.raises(npple.InputError, match=message):
        learn(["a|b"], **options)


def test_a_column_has_one_role():
    with pytest.raises(npple.InputError, match="column 'tags' is listed twice"):
        Schema.learn(table(["a"]), [], ["tags"], {"y": "binary"}, bags=["tags"])


def test_one_endless_bag_takes_no_memory_for_all_rows():
    rows = ["a"] * 3000 + ["|".join(["a"] * 2000)]
    with pytest.raises(npple.InputError, match="column 'tags', row 3001: 2000 values, where rows"):
        learn(rows).encode(table(rows))


def test_the_schema_survives_being_stored():
    schema = learn(["a|b", "c"], separator=";", pool="sum")
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.inputs(3) == {"tags": (3, 3, "sum")}


@pytest.mark.parametrize("bag", [3, {}, {"words": "ab", "separator": "|", "pool": "mean"},
                                 {"words": ["b", "a"], "separator": "|", "pool": "mean"},
                                 {"words": ["a"], "separator": "", "pool": "mean"},
                                 {"words": ["a"], "separator": "|", "pool": []}])
def test_a_schema_from_elsewhere_is_validated(bag):
    stored = learn(["a|b", "c"]).to_dict()
    with pytest.raises(npple.InputError):
        Schema.from_dict(stored | {"bags": {"tags": bag}})


def test_a_few_bags_of_the_training_rows_have_an_unknown_value():
    rows = ["a|b", ""] * 500
    schema = learn(rows, drawn=0.02)
    data = schema.encode(table(rows))
    drawn = schema.with_unknown(data, seed=3).x["tags"]
    changed = drawn != data.x["tags"]
    assert 3 <= changed.sum() <= 20 and (drawn[changed] == 0).all() and not changed[:, 1].any()


def test_unknown_values_are_counted_by_rows_and_look_alikes_pointed_out():
    schema = learn(["3|5", "5"])
    found = schema.unknown(table(["3.0|5", "5", ""]))["tags"]
    assert found == (1, 3, ("3.0", "3"), False)
    assert schema.unknown(table(["7", "8|9"]))["tags"].nothing


def test_a_model_learns_from_bags_and_says_when_it_knows_none():
    rng = np.random.default_rng(0)
    tags = ["|".join(np.array(list("abcdef"))[rng.random(6) < 0.3]) for _ in range(600)]
    run = npple.fit(table(tags), bags=["tags"], tasks={"y": "binary"}, **SMALL | {
        "expert_units": (16,), "tower_units": (8,), "epochs": 4, "batch_size": 32})
    assert run.evaluate(table(tags)).tasks["y"]["auc"] > 0.95
    with pytest.raises(npple.InputError, match="column 'tags': 1 of 1 unknown"):
        run.predict({"tags": ["zebra"]})


@pytest.mark.parametrize("cells", [
    lambda tags: [text.split("|") if text else [] for text in tags],
    lambda tags: [tuple(text.split("|")) if text else None for text in tags],
    lambda tags: [np.array(text.split("|")) if text else np.array([]) for text in tags]])
def test_lists_in_cells_are_bags(cells):
    tags = ["a|b", "", "b", "a", "a|c"] * 30
    runs = [npple.fit(table(tags) | {"tags": column}, bags=["tags"], tasks={"y": "binary"}, **SMALL)
            for column in (tags, cells(tags))]
    np.testing.assert_array_equal(*(run.predict(table(tags))["y"] for run in runs))


def test_the_command_line_trains_on_bags_predicts_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = click_log(400)
    text = "\n".join([",".join(log), *map(",".join, zip(*log.values()))])
    (tmp_path / "log.csv").write_text(text.replace("|", ";"))
    train = ["train", "--data", "log.csv", "--categorical", "device", "--bag", "tags",
             "--bag-separator", ";", "--bag-pool", "sum", "--binary", "click", "--epochs", "1",
             "--expert-units", "4", "--tower-units", "2", "--out", "run"]
    assert main(train) == 0
    assert main(["predict", "--checkpoint", "run/checkpoint.npz", "--data", "log.csv", "--out",
                 "p.csv"]) == 0
    assert "from device, tags" in capsys.readouterr().out
    assert npple.load("run/checkpoint.npz").schema.bags["tags"].separator == ";"
    resumed = [word if word != "sum" else "mean" for word in train]
    assert main([*resumed, "--resume"]) == 2
    assert "options of bags" in capsys.readouterr().err
