"""The Census-Income (KDD) files, read as MMoE and PLE use them: income and marital status."""

from importlib.resources import as_file, files
from itertools import chain

from npple.archive import FilePath
from npple.errors import require
from npple.learn.columns import Texts, as_columns, converted, read_rows

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
NO_FEATURES = ("marital_stat", "income_50k", "instance_weight")  # two labels, a survey weight
CATEGORICAL = tuple(name for name in FIELDS if name not in (*NUMERIC, *NO_FEATURES))
TASKS = {"income": "binary", "marital": "binary"}
ROLES = {"numeric": NUMERIC, "categorical": CATEGORICAL, "tasks": TASKS, "log": LOG}

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
        The features, NUMERIC and CATEGORICAL, and the labels of TASKS: `income` is "1" above
        50,000 and `marital` is "1" for "Never married", otherwise "0".

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
    return columns


def bundled() -> dict[str, Texts]:
    """The columns of the bundled sample: 10,000 rows, described in `census-sample.md`.

    Returns
    -------
    dict column -> Texts
        As from `read_census`.
    """
    with as_file(files("npple.learn") / "census-sample.csv.gz") as path:
        return read_census(path)
