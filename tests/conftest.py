"""Settings for all tests: hypothesis draws the same examples each time; helpers can be imported."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz"),  # for `from strategies import ...`
                str(TESTS.parent / "docs")]

settings.register_profile("npple", deadline=None, derandomize=True, max_examples=20,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("npple")


def pytest_collection_finish(session):
    """The pages of the documentation begin to run at once, beside the other tests.

    Not in a worker of pytest-xdist, which has its share of the pages alone.
    """
    alone = not session.config.option.collectonly and not hasattr(session.config, "workerinput")
    for item in session.items if alone else ():
        if item.name.startswith("test_the_code_on_the_page_runs"):
            item.module.running(item.callspec.params["page"])


def pytest_sessionfinish(session):
    """Pages that nobody waits for any more do not run."""
    for module in {item.module for item in getattr(session, "items", ())}:
        if beside := getattr(module, "BESIDE", None):
            beside.shutdown(wait=False, cancel_futures=True)


def pytest_addoption(parser):
    parser.addoption("--fuzz-calls", type=int, default=100_000, help="how many calls with -m fuzz")
    parser.addoption("--fuzz-sequences", type=int, default=2000, help="how many with -m fuzz")
    parser.addoption("--pyodide", help="the folder of Pyodide, with -m fuzz")
    parser.addoption("--fuzz-seed", type=int, default=0, help="which calls with -m fuzz")
