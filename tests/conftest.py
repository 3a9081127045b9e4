"""Settings for all tests: hypothesis draws the same examples each time; helpers can be imported."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `from strategies import ...`

settings.register_profile("npple", deadline=None, derandomize=True, max_examples=20,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("npple")
