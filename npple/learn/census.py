"""The Census-Income (KDD) files, read as MMoE and PLE use them: features, tasks, split."""

from importlib.resources import as_file, files
from itertools import chain
from os.path import isfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npple.archive import FilePath
from npple.checks import check_choice, check_path
from npple.errors import FileError, require
from npple.learn.columns import Texts, as_columns, converted, read_rows
from npple.learn.dataset import streams

FIELDS = (
    "age class_worker det_ind_code det_occ_code education wage_per_hour hs_college marital_stat "
    "major_ind_code major_occ_code race hisp_origin sex union_member unemp_reason "
    "full_or_part_emp capital_gains capital_losses stock_dividends tax_filer_stat "
    "region_prev_res state_prev_res det_hh_fam_stat det_hh_summ instance_weight mig_chg_msa "
    "mig_chg_reg mig_move_reg mig_same mig_prev_sunbelt num_emp fam_under_18 country_father "
    "country_mother country_self citizenship own_or_self vet_question vet_benefits "
    "weeks_worked year income_50k"
).split()
LOG = ("wage_per_hour", "capital_gains", "capital_losses", "stock_dividends")
NUMERIC = ("age", *LOG, "num_emp", "weeks_worked")
NO_FEATURES = ("education", "marital_stat", "income_50k", "instance_weight")  # MMoE, section 6.3
CATEGORICAL = tuple(name for name in FIELDS if name not in (*NUMERIC, *NO_FEATURES))
GROUPS = {  # the papers' groups of tasks: the main one, and whether someone has never married
    "1": {"income": "binary", "marital": "binary"},
    "2": {"college": "binary", "marital": "binary"},
}
TRAIN_FILE, TEST_FILE = "census-income.data", "census-income.test"  # as published

LAYOUTS = {  # number of fields -> their names
    42: FIELDS,
    41: [name for name in FIELDS if name != "income_50k"],
    40: [name for name in FIELDS if name not in ("marital_stat", "income_50k")],
}
LABELS = {  # task -> its field, and the label of each text found there
    "income": ("income_50k", {"- 50000.": "0", "50000+.": "1"}),
    "marital": (
        "marital_stat",
        {
            "Divorced": "0",
            "Married-A F spouse present": "0",
            "Married-civilian spouse present": "0",
            "Married-spouse absent": "0",
            "Never married": "1",
            "Separated": "0",
            "Widowed": "0",
        },
    ),
}
SCHOOL = (
    "10th grade", "11th grade", "12th grade no diploma", "1st 2nd 3rd or 4th grade",
    "5th or 6th grade", "7th and 8th grade", "9th grade", "Children", "High school graduate",
    "Less than 1st grade", "Some college but no degree",
)
COLLEGE = (  # an associate's degree or more: correlates with `marital` as MMoE says, |r| 0.239
    "Associates degree-academic program", "Associates degree-occup /vocational",
    "Bachelors degree(BA AB BS)", "Doctorate degree(PhD EdD)",
    "Masters degree(MA MS MEng MEd MSW MBA)", "Prof school degree (MD DDS DVM LLB JD)",
)


class Split(NamedTuple):
    """Columns to train on, to choose by and to judge by."""

    train: dict[str, Texts]
    validation: dict[str, Texts]
    test: dict[str, Texts]


def census_roles(group: str = "1") -> dict[str, Any]:
    """What the columns are, as `npple.fit` and `Schema.learn` take it.

    Parameters
    ----------
    group : str, optional
        "1", income above 50,000 and never married, or "2", at least college and never married.

    Returns
    -------
    dict
        `numeric`, `categorical`, `tasks` and `log`.

    Raises
    ------
    InputError
        If there is no such group.

    References
    ----------
    MMoE section 6.3: the two groups; education and marital status are removed from the features.
    """
    check_choice("task group", group, GROUPS)
    return {"numeric": NUMERIC, "categorical": CATEGORICAL, "tasks": GROUPS[group], "log": LOG}


def read_census(path: FilePath) -> dict[str, Texts]:
    """Read a file in the published format: no header, 42 fields in a row.

    A file for prediction may lack the last field, the income (41 fields), or the income and
    `marital_stat` (40 fields); the column of that task is then absent.

    Parameters
    ----------
    path : str or path
        Plain or gzip-compressed.

    Returns
    -------
    dict column -> Texts
        The features, NUMERIC and CATEGORICAL; `education`, which the papers do not use as one;
        and the labels: `income` is "1" above 50,000, `marital` is "1" for "Never married",
        `college` is "1" for an associate's degree or more, otherwise "0".

    Raises
    ------
    FileError
        If the file cannot be read.
    InputError
        If a row has another number of fields, or a label text is none of the published ones.

    References
    ----------
    UCI Machine Learning Repository, Census-Income (KDD), doi 10.24432/C5N30T.
    """
    rows = read_rows(path)
    first = next(rows)
    found = f"{str(path)!r}, row 1: {len(first)} fields"
    expected = "42 fields, 41 without income or 40 without both labels"
    require(len(first) in LAYOUTS, f"{found}, expected {expected}")
    columns = as_columns(path, LAYOUTS[len(first)], chain([first], rows))
    del columns["instance_weight"]  # a survey weight: the publisher says not to classify by it
    for task, (field, labels) in LABELS.items():
        if field in columns:
            expected = f"one of {list(labels)}"
            texts = columns.pop(field)
            values = converted(field, texts, labels.get, expected, object)
            columns[task] = Texts.of(task, values.tolist())
    degrees = dict.fromkeys(SCHOOL, "0") | dict.fromkeys(COLLEGE, "1")
    values = converted("education", columns["education"], degrees.get, f"one of {list(degrees)}",
                       object)
    columns["college"] = Texts.of("college", values.tolist())
    return columns


def census_split(folder: FilePath, seed: int = 0) -> Split:
    """The published files, split as MMoE and PLE do: half of the test file is for validation.

    Parameters
    ----------
    folder : str or path
        Holds `census-income.data` and `census-income.test`, each perhaps with ".gz" behind.
    seed : int, optional
        Of which half is which.

    Returns
    -------
    Split

    Raises
    ------
    FileError
        If a file is not there or cannot be read.
    InputError
        If a file is not of the published form, or an argument cannot be used.

    References
    ----------
    MMoE section 6.3: 199,523 rows to train on, the other 99,762 split 1:1.
    """
    check_path("folder", folder)
    (random,) = streams(seed, 1)
    train, rest = (read_census(_published(folder, name)) for name in (TRAIN_FILE, TEST_FILE))
    count = len(rest["age"])
    order = random.permutation(count)
    halves = (np.sort(rows) for rows in (order[:count // 2], order[count // 2:]))
    return Split(train, *({name: Texts(column.words, column.numbers[rows])
                           for name, column in rest.items()} for rows in halves))


def _published(folder: FilePath, name: str) -> Path:
    """Where a published file lies, packed or not."""
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if isfile(path):  # no pipe, which would be waited for
            return path
    raise FileError(f"no {name} or {name}.gz in {str(folder)!r}, expected the folder with the "
                    "published files")


def bundled() -> dict[str, Texts]:
    """The bundled sample of the published test file: 10,000 rows, see `census-test-sample.md`.

    Returns
    -------
    dict column -> Texts
        As from `read_census`.
    """
    with as_file(files("npple.learn") / "census-test-sample.csv.gz") as path:
        return read_census(path)
