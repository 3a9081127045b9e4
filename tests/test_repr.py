"""`repr` is a table of at most 30 lines whatever the size, and `print` shows reports in full."""

import numpy as np
import pytest

import npple
from npple import oracle
from npple.core.base import brief
from npple.data import Dataset
from npple.training import Run
from npple.verify.cases import random_case
from npple.verify.isolation import Verification

REPORTS = ["isolation", "verification", "comparison", "influence", "gradcheck"]
OTHERS = ["model", "table", "run", "dataset", "case", "trace", "vectors"]


@pytest.fixture(scope="module", params=[2, 60], ids="{} tasks".format)
def things(request):
    """One of each by name, for a model of so many tasks."""
    tasks = {f"task{i}": "binary" for i in range(request.param)}
    model = npple.ple({f"column{i}": "numeric" for i in range(40)}, tasks, levels=1,
                      task_experts=1, expert_units=(2,), tower_units=())
    case = random_case(model)
    isolation = npple.isolation(model)
    zeros = {task: dict.fromkeys(isolation.groups, np.zeros(2)) for task in tasks}
    comparison = isolation.compare_gradients(zeros, {group: group for group in isolation.groups})
    row = npple.gradcheck(model, case.params, case.x, case.targets, case.masks,
                          method="directional").rows
    return {"model": model, "table": model.table, "run": Run(model), "case": case,
            "dataset": Dataset(case.x, case.targets, {}),
            "trace": model.forward(case.params, case.x),
            "vectors": oracle.vectors.Vectors(case, npple.Adam(), dict(case.params), {}, {}),
            "isolation": isolation, "comparison": comparison,
            "verification": Verification(isolation, {"training": comparison}),
            "influence": npple.influence(model, case.params, case.x, case.targets),
            "gradcheck": npple.GradcheckReport("directional", row)}


@pytest.mark.parametrize("name", OTHERS + REPORTS)
def test_repr_is_at_most_30_lines(things, name):
    text = repr(things[name])
    assert 1 <= len(text.splitlines()) <= 30
    assert "array(" not in text and "[[" not in text


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_prints_in_full(things, name):
    full, short = str(things[name]), repr(things[name])
    assert short == brief(full)
    if len(things["model"].tasks) == 60:
        assert len(full.splitlines()) > 30 and "more lines" not in full
        assert short.endswith(f"... and {len(full.splitlines()) - 29} more lines")


def test_a_data_set_says_its_rows_columns_and_types():
    data = Dataset({"age": np.zeros(3)}, {"clicked": np.ones(3, int)},
                   {"clicked": np.ones(3, bool)})
    assert [line.split() for line in repr(data).splitlines()] == [
        ["Dataset", "of", "3", "rows"], ["x", "age", "float64", "(3,)"],
        ["targets", "clicked", "int64", "(3,)"], ["masks", "clicked", "bool", "(3,)"]]


def test_brief_cuts_lines_and_what_is_after_30_of_them():
    assert brief("a\nb") == "a\nb"
    assert brief("x" * 100) == "x" * 100
    assert brief("x" * 101) == "x" * 96 + " ..."
    assert brief("\n".join("x" * 30)).splitlines() == ["x"] * 30
    assert brief("\n".join("x" * 31)).splitlines() == ["x"] * 29 + ["... and 2 more lines"]
