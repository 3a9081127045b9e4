"""The census format: fields, labels, and the bundled sample."""

import gzip
import os
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

import npple.lab.compare
from npple.cli import main
from npple.data import Schema, bundled, census_roles, census_split, read_census
from npple.learn.census import CATEGORICAL, COLLEGE, FIELDS, GROUPS, LOG, NUMERIC
from npple.errors import FileError, InputError

MARITAL, INCOME, WEIGHT = FIELDS.index("marital_stat"), 41, FIELDS.index("instance_weight")


def sample_lines():
    packed = (files("npple.learn") / "census-test-sample.csv.gz").read_bytes()
    return gzip.decompress(packed).decode().splitlines()


def written(folder, rows):
    path = folder / "census.csv"
    path.write_text("".join(", ".join(row) + "\n" for row in rows))
    return path


def rows_of_sample(count):
    return [line.split(", ") for line in sample_lines()[:count]]


def test_the_sample_has_10_000_rows_as_published():
    lines = sample_lines()
    assert len(lines) == 10_000
    assert {line.count(", ") for line in lines} == {41}


def test_the_columns_are_features_and_labels_without_the_survey_weight():
    columns = bundled()
    labels = {"income", "college", "marital"}
    assert set(columns) == {*NUMERIC, *CATEGORICAL, "education", *labels}
    assert len(NUMERIC) == 7 and len(CATEGORICAL) == 31
    assert set(LOG) <= set(NUMERIC)


def test_labels_count_as_their_texts_do_in_the_file():
    text = "\n".join(sample_lines())
    columns = bundled()
    assert Counter(columns["income"])["1"] == text.count(", 50000+.")
    assert Counter(columns["marital"])["1"] == text.count(", Never married, ")
    assert set(columns["income"]) == set(columns["marital"]) == {"0", "1"}


def test_every_feature_stands_under_its_own_name():
    columns = bundled()
    row = sample_lines()[17].split(",")
    for name in (*NUMERIC, *CATEGORICAL):
        assert columns[name][17] == row[FIELDS.index(name)].strip()


def test_columns_without_a_text_of_their_own_stand_at_the_published_places():
    places = {
        "det_ind_code": 3, "det_occ_code": 4, "union_member": 14, "mig_same": 29,
        "mig_prev_sunbelt": 30, "num_emp": 31, "country_father": 33, "country_mother": 34,
        "country_self": 35, "own_or_self": 37, "vet_question": 38, "vet_benefits": 39,
    }
    assert {name: FIELDS.index(name) + 1 for name in places} == places


@pytest.mark.parametrize(
    "name, text",
    [
        ("class_worker", "Private"),
        ("education", "Bachelors degree(BA AB BS)"),
        ("hs_college", "College or university"),
        ("major_ind_code", "Retail trade"),
        ("major_occ_code", "Adm support including clerical"),
        ("race", "Black"),
        ("hisp_origin", "Mexican (Mexicano)"),
        ("sex", "Female"),
        ("unemp_reason", "Re-entrant"),
        ("full_or_part_emp", "Full-time schedules"),
        ("tax_filer_stat", "Joint both under 65"),
        ("region_prev_res", "Midwest"),
        ("state_prev_res", "Utah"),
        ("det_hh_fam_stat", "Nonfamily householder"),
        ("det_hh_summ", "Child 18 or older"),
        ("mig_chg_msa", "MSA to MSA"),
        ("mig_chg_reg", "Different state same division"),
        ("mig_move_reg", "Different state in West"),
        ("fam_under_18", "Both parents present"),
        ("citizenship", "Foreign born- Not a citizen of U S"),
        ("year", "94"),
    ],
)
def test_a_column_alone_has_the_text_that_belongs_to_it(name, text):
    assert [column for column, texts in bundled().items() if text in texts] == [name]


@pytest.mark.parametrize(
    "left_out, absent", [([INCOME], {"income"}), ([MARITAL, INCOME], {"income", "marital"})]
)
def test_a_file_for_prediction_may_lack_labels(tmp_path, left_out, absent):
    whole = rows_of_sample(5)
    kept = [[text for i, text in enumerate(row) if i not in left_out] for row in whole]
    expected = read_census(written(tmp_path, whole))
    columns = read_census(written(tmp_path, kept))
    assert columns == {name: texts for name, texts in expected.items() if name not in absent}


def test_college_is_a_degree():
    columns = bundled()
    assert {text for text, label in zip(columns["education"], columns["college"])
            if label == "1"} == {*COLLEGE}


def test_labels_correlate_as_the_paper_says_of_the_published_file():
    labels = {name: np.array(list(bundled()[name]), float) for name in ("income", "college",
                                                                        "marital")}
    for main_task, published in (("income", 0.1768), ("college", 0.2373)):
        found = abs(np.corrcoef(labels[main_task], labels["marital"])[0, 1])
        assert found == pytest.approx(published, abs=0.02)


@pytest.mark.parametrize("group", GROUPS)
def test_no_label_and_neither_education_nor_marital_status_is_a_feature(group):
    roles = census_roles(group)
    assert "marital" in roles["tasks"] and len(roles["tasks"]) == 2
    assert not {"education", "marital_stat", "income_50k", "instance_weight", "income", "college",
                "marital"} & {*roles["numeric"], *roles["categorical"]}


def test_there_are_two_groups():
    with pytest.raises(InputError, match="task group"):
        census_roles("3")


@pytest.fixture
def published(tmp_path):
    """A folder with 60 rows of a training and 41 of a test file, the latter packed."""
    lines = [line + "\n" for line in sample_lines()]
    (tmp_path / "census-income.data").write_text("".join(lines[:60]))
    with gzip.open(tmp_path / "census-income.test.gz", "wt") as file:
        file.write("".join(lines[60:101]))
    return tmp_path


def test_the_test_file_is_split_in_two_halves_without_a_common_row(published):
    split = census_split(published)
    whole = bundled()
    rows = [list(zip(*(map(str, column) for column in part.values()))) for part in split]
    assert [len(part) for part in rows] == [60, 20, 21]
    expected = list(zip(*(list(column)[:101] for column in whole.values())))
    assert rows[0] == expected[:60] and sorted(rows[1] + rows[2]) == sorted(expected[60:])
    assert census_split(published) == split and census_split(published, seed=1) != split


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(FileError, match="census-income.data"):
        census_split(tmp_path)


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "census-income.data")
    with pytest.raises(FileError, match="census-income.data"):
        census_split(tmp_path)


def test_the_command_line_trains_on_the_folder_and_evaluates_the_other_half(published, capsys):
    run = str(published / "run")
    assert main(["train", "--data", str(published), "--task-group", "2", "--epochs", "1",
                 "--expert-units", "2", "--tower-units", "2", "--out", run]) == 0
    assert "60 rows to train on, 20 to validate on" in capsys.readouterr().out
    assert main(["evaluate", "--data", str(published), "--checkpoint", run + "/checkpoint.npz",
                 "--bins", "2", "--allow-unknown"]) == 0
    told = capsys.readouterr().out
    assert "21 rows" in told and "college" in told and "marital" in told


def test_a_comparison_chooses_epochs_and_judges_by_the_halves_of_the_papers(published, monkeypatch):
    cases, run = [], npple.lab.compare.compare
    monkeypatch.setattr(npple.lab.compare, "compare",
                        lambda given, *args, **more: cases.extend(given) or run(
                            given, *args, **more))
    assert main(["compare", "--data", str(published), "--models", "single_task", "--seeds", "1",
                 "--epochs", "1", "--width", "2"]) == 0
    case, = cases
    for rows, expected in zip((case.train, case.validation, case.test), census_split(published)):
        assert rows.targets["marital"].tolist() == [float(y) for y in expected["marital"]]


@pytest.mark.parametrize("flag", ["--time", "--split-by", "--validation"])
def test_the_published_files_have_a_split_of_their_own(published, tmp_path, capsys, flag):
    assert main(["train", "--data", str(published), flag, "age", "--out", str(tmp_path)]) == 2
    assert f"{flag}: the published files come with their own split" in capsys.readouterr().err


def test_the_papers_split_goes_into_fit(published):
    train, validation, test = census_split(published)
    run = npple.fit(train, validation=validation, **census_roles(), epochs=1, expert_units=(2,),
                    tower_units=())
    assert run.evaluate(test, accept_unknown=True, bins=2).rows == 21


@pytest.mark.parametrize("field, text", [(INCOME, "50000"), (INCOME, ""), (MARITAL, "Single"),
                                         (FIELDS.index("education"), "College")])
def test_an_unknown_label_text_is_refused(tmp_path, field, text):
    rows = rows_of_sample(3)
    rows[1][field] = text
    message = f"column '{FIELDS[field]}', row 2: '{text}', expected one of"
    with pytest.raises(InputError, match=message):
        read_census(written(tmp_path, rows))


def test_another_number_of_fields_is_refused(tmp_path):
    rows = rows_of_sample(2)
    with pytest.raises(InputError, match="row 2: 41 fields, expected 42"):
        read_census(written(tmp_path, [rows[0], rows[1][1:]]))
    with pytest.raises(InputError, match="row 1: 39 fields, expected 42 fields, 41 without"):
        read_census(written(tmp_path, [row[3:] for row in rows]))


def test_the_sample_can_be_learned_and_encoded_whole():
    columns = bundled()
    schema = Schema.learn(columns, **census_roles())
    data = schema.encode(columns)
    assert len(data) == 10_000 and not data.masks
    assert list(schema.inputs()) == list(data.x) == [*NUMERIC, *CATEGORICAL]
    for name in CATEGORICAL:
        assert data.x[name].min() == 1
        assert data.x[name].max() == schema.inputs()[name][0] - 1
