"""How long a check takes of a model of 100,000 parameters, and a diagnosis of what fails it."""

import time

import numpy as np

import npple
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.flow import compute
from npple.oracle.variant import cast

large = npple.ple(64, {"a": "binary", "b": "regression", "c": "binary"}, levels=2,
                  expert_units=(80,), tower_units=(32,))
of_large = npple.oracle.make_vectors(large)
everything = dict(of_large.expected)


def deviating(*names):
    """What the model computes with these deviations."""
    variant = of_large.variant
    for name in names:
        variant = deviate(BY_NAME[name], variant, {})[0][0]
    return dict(compute(variant, cast(of_large.case, np.float64)))


both = deviating("stop-others", "adam-epsilon-hat")
five = deviating("shared-mean", "tower-linear-hidden", "stop-others", "loss-batch-mean",
                 "adam-epsilon-hat")
unknown = everything | {"adam12/tower/c/layer2/bias": everything["adam12/tower/c/layer2/bias"] + 1}
for title, candidate in (("right", everything), ("a pair", both), ("five", five),
                         ("unknown", unknown)):
    started = time.perf_counter()
    report = npple.oracle.check(of_large, candidate)
    checked = time.perf_counter()
    names = [diagnosis.names for diagnosis in report.diagnosis]
    print(f"{title}: check {checked - started:.3f} s, "
          f"diagnosis {time.perf_counter() - checked:.2f} s: {names}")
print(sum(p.size for p in of_large.params.values()), "parameters")
