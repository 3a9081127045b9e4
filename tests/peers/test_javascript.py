"""docs/ple.js on all bundles of the suite that it can run, in one process of Node."""

import shutil
import subprocess
from pathlib import Path

import pytest

from npple import oracle
from npple.oracle.cases import CASES

ENGINE = Path(__file__).parents[2] / "docs" / "ple.js"
SUITE = [f"{architecture}-{case}"
         for architecture in ("ple", "cgc", "mmoe", "ml_mmoe", "shared_bottom")
         for case, recipe in CASES.items() if architecture in recipe.only]

pytestmark = [pytest.mark.fuzz,  # .ci/run has it among the peers; some bundles are in tests/oracle
              pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")]


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Bundle -> its vectors, and the file of what the program computed."""
    folder = tmp_path_factory.mktemp("suite")
    vectors = {bundle.notes["id"]: bundle for bundle in oracle.suite(SUITE)}
    for name, bundle in vectors.items():
        bundle.save_json(folder / f"{name}.json")
    subprocess.run(["node", ENGINE, *(folder / f"{name}.json" for name in vectors)], check=True)
    return {name: (bundle, folder / f"{name}.results.json") for name, bundle in vectors.items()}


@pytest.mark.parametrize("name", SUITE)
def test_every_tensor_of_a_bundle_is_computed_and_right(computed, name):
    report = oracle.check(*computed[name], expect="everything")
    assert report.verdict == "passed" and not report.missing and not report.unknown
