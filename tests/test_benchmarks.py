"""The benchmarks refuse kernels that are not the processor's own; their page is what they found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.parametrize("script", ["step.py", "tables.py"])
def test_nothing_is_measured_where_a_variable_forces_a_kernel(script, tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"OPENBLAS_CORETYPE": "Haswell", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 1 and not done.stdout
    assert "OPENBLAS_CORETYPE=Haswell" in done.stderr and "env -u OPENBLAS_CORETYPE" in done.stderr


def test_the_tables_of_the_page_are_those_of_the_figures(monkeypatch):
    """Otherwise: python tests/benchmarks/tables.py --parts"""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tables
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page) == page
    assert {name for _, name, _ in tables.MARKED.findall(page)} == tables.TABLES.keys()
