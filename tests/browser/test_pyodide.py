"""npple in Pyodide, the browser's Python, as far as it can be had: docs/in-the-browser.md.

Needs Node, and the folder of the npm package `pyodide` or of Pyodide's full distribution:
python -m pytest -m fuzz tests/browser/test_pyodide.py --pyodide node_modules/pyodide -rs
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")
pytestmark = [pytest.mark.fuzz, pytest.mark.skipif(NODE is None, reason="no Node here")]
SOURCES = """
import ast, importlib, pathlib, sys

def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []

modules, files = set(), sorted(pathlib.Path("/npple/npple").rglob("*.py"))
for file in files:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    compile(tree, str(file), "exec")
    modules |= {name for node in tree.body for name in imported(node)}
standard = {name for name in modules if name.split(".")[0] in sys.stdlib_module_names}
for name in standard:
    importlib.import_module(name)
print(len(files), len(standard))
"""


@pytest.fixture(scope="module")
def pyodide(pytestconfig):
    """Runs Python in Pyodide; what it prints."""
    folder = pytestconfig.getoption("pyodide")
    if folder is None:
        pytest.skip("no Pyodide: give its folder with --pyodide")

    def run(source, *packages):
        done = subprocess.run([NODE, Path(__file__).with_name("in_pyodide.mjs"), folder, ROOT,
                               *packages], input=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        if "missing" in found:
            pytest.skip(f"Pyodide cannot load {' and '.join(packages)}: {found['missing']}")
        return found["printed"]
    return run


def test_pyodide_compiles_all_sources_and_has_the_standard_modules_they_import(pyodide):
    files, modules = map(int, pyodide(SOURCES).split())
    assert files == len([*(ROOT / "npple").rglob("*.py")]) and modules > 40


def test_the_page_prints_in_pyodide_what_it_prints_here(pyodide):
    page = (ROOT / "docs/in-the-browser.md").read_text(encoding="utf-8")
    (source, printed), = re.findall(r"```python\n(.*?)```\n\n```text output\n(.*?)```", page, re.S)
    assert pyodide(source, "numpy", "scipy") == printed.strip()
