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


def pytest_addoption(parser):
    parser.addoption("--fuzz-calls", type=int, default=100_000, help="how many calls with -m fuzz")
    parser.addoption("--fuzz-seed", type=int, default=0, help="which calls with -m fuzz")
