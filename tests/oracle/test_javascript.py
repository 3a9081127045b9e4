"""docs/ple.js, in another language: right on the suite, and its planted mistakes are named.

tests/peers/test_javascript.py has all of the suite's bundles that it can run.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

import npple
from npple import oracle
from peers.written import MISTAKES as FIVES
from peers.written import WRITTEN

ENGINE = Path(__file__).parents[2] / "docs" / "ple.js"
SOURCE = ENGINE.read_text(encoding="utf-8")
NODE = "// With Node: files "  # what stands behind needs Node, what stands before does not
SUITE = ("ple-optimizer", "ple-square", "cgc-scattered", "ml_mmoe-uneven", "mmoe-single-row",
         "mmoe-saturated", "shared_bottom-many-tasks")
TASKS = {"click": "binary", "kind": "multiclass:3"}
SMALL = {"task_experts": 1, "shared_experts": 1}
OTHERS = {  # what the suite does not have
    "tanh": npple.ple(4, TASKS, activation="tanh", expert_units=(4, 4), tower_units=(3,), **SMALL),
    "identity": npple.cgc(4, TASKS, activation="identity", expert_units=(3,), **SMALL),
    "gates": npple.cgc({"x": "numeric", "tags": (5, 2, "sum")}, TASKS, activation="sigmoid",
                       expert_units=(3,), gate_bias=True, gate_units=(4,), **SMALL),
}

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(engine, *bundles):
    """The program on bundles, in one process."""
    return subprocess.run(["node", engine, *bundles], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Bundle -> its vectors, and the file of what the program computed."""
    folder = tmp_path_factory.mktemp("bundles")
    vectors = {bundle.notes["id"]: bundle for bundle in oracle.suite(SUITE)}
    vectors |= {name: oracle.make_vectors(model, batch=5) for name, model in OTHERS.items()}
    for name, bundle in vectors.items():
        bundle.save_json(folder / f"{name}.json")
    done = run(ENGINE, *(folder / f"{name}.json" for name in vectors))
    assert not done.returncode, done.stderr
    return {name: (bundle, folder / f"{name}.results.json") for name, bundle in vectors.items()}


@pytest.mark.parametrize("name", [*SUITE, *OTHERS])
def test_every_tensor_of_a_bundle_is_computed_and_right(computed, name):
    report = oracle.check(*computed[name], expect="everything")
    assert report.verdict == "passed" and not report.missing and not report.unknown


MISTAKES = {
    "softmax-unsummed": (
        "weight * (dw[i] - mean)", "weight * dw[i]", "grad/level2/kind/gate/layer1/weight"),
    "loss-batch-mean": (
        "sum(losses) / rows.length", "sum(losses) / masks[task].length", "loss[kind]"),
    "weights-ignored": ("data.weights[task] * found", "found", "loss"),
    "adam-epsilon-inside": (
        "(Math.sqrt(v / c2) + epsilon)", "Math.sqrt(v / c2 + epsilon)",
        "adam1/level1/click/experts/layer1/weight"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_located_and_named(computed, name, tmp_path):
    vectors, _ = computed["tanh"]
    right, wrong, tensor = MISTAKES[name]
    assert SOURCE.count(right) == 1
    engine, bundle = tmp_path / "ple.js", tmp_path / "bundle.json"
    engine.write_text(SOURCE.replace(right, wrong), encoding="utf-8")
    vectors.save_json(bundle)
    done = run(engine, bundle)
    assert not done.returncode, done.stderr
    fault, *_ = oracle.check(vectors, tmp_path / "bundle.results.json", expect="everything").faults
    assert (fault.tensor, fault.names[0]) == (tensor, name)


# The mistakes that all frameworks are tested with, forward and backward: what by what to replace
FIVE = {
    "selector": [("fusion.selector", "'input'")],
    "softmax": [("t[`${name}/logits`].map(softmax)",
                 "columns(columns(t[`${name}/logits`]).map(softmax))"),
                ("dot(row, dw);", "places.map((place, i) => sum(w.map((other, q) => "
                                  "other[i] * dot(dy[q], at(t, place)[q]))));"),
                ("(dw[i] - mean)", "(dw[i] - mean[i])")],
    "shared": [(".map(softmax); // (B", ".map(fusion.name.endsWith('/shared') ? "
                                        "(z) => z.map(() => 1 / z.length) : softmax); // (B"),
               ("weight * (dw", "(fusion.name.endsWith('/shared') ? 0 : weight) * (dw")],
    "linear": [("group.activations", "[...group.activations.slice(0, -1), 'identity']")],
    "stopped": [("const dz = w.map(", "return;\n  const dz = w.map(")],
}
PLACES = {"selector": "level2/click/gate/logits", "softmax": "level1/click/gate/weights",
          "shared": "level1/shared/gate/weights", "linear": "level1/click/experts",
          "stopped": "grad/level2/dwell/gate/layer1/weight"}
# Every operation rounded to float32, and what is given, too
ROUNDED = [("return f(a, b, c)", "return Math.fround(f(a, b, c))"),
           ("total + x * b[i]", "Math.fround(total + x * b[i])"),
           ("=> total + x,", "=> Math.fround(total + x),"),
           ("=> weights[0] * x", "=> Math.fround(weights[0] * x)"),
           ("total[j] += weights[i] * rows[i][j]",
            "total[j] = Math.fround(total[j] + weights[i] * rows[i][j])"),
           ("=> x / total", "=> Math.fround(x / total)"),
           ("return values[0]", "return Math.fround(values[0])"),
           ("values: [tensor].flat(Infinity)", "values: [tensor].flat(Infinity), dtype: '<f4'")]
PRECISIONS = pytest.mark.parametrize("dtype", ["float64", "float32"])


def judged(folder, architecture, dtype, changes=()):
    """The report on a changed program."""
    source, vectors = SOURCE, oracle.make_vectors(WRITTEN[architecture][0])
    for right, wrong in (*changes, *(ROUNDED if dtype == "float32" else ())):
        assert right in source
        source = source.replace(right, wrong)
    engine, bundle = folder / "ple.js", folder / "bundle.json"
    engine.write_text(source, encoding="utf-8")
    vectors.save_json(bundle)
    done = run(engine, bundle)
    assert not done.returncode, done.stderr
    return oracle.check(vectors, folder / "bundle.results.json", expect="everything")


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_right_program_passes_with_gradients(architecture, dtype, tmp_path):
    report = judged(tmp_path, architecture, dtype)
    assert report.verdict == "passed" and report.precision == dtype and not report.missing


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize("mistake", FIVES)
def test_the_five_mistakes_of_all_frameworks_are_located_and_named(mistake, dtype, tmp_path):
    report = judged(tmp_path, "ple", dtype, FIVE[mistake])
    assert (report.first_divergence, *report.diagnosis[0].names) == (
        PLACES[mistake], FIVES[mistake][0])


def test_what_is_not_in_the_file_is_refused_by_name(computed, tmp_path):
    vectors, _ = computed["identity"]
    bundle = tmp_path / "bundle.json"
    vectors.save_json(bundle)
    for known, other, words in (('"Gate"', '"Stitch"', "fusion Stitch: not in this file"),
                                ('"identity"', '"gelu"', "activation gelu: not in this file")):
        changed = tmp_path / "changed.json"
        changed.write_text(bundle.read_text().replace(known, other))
        done = run(ENGINE, changed)
        assert done.returncode and words in done.stderr


def test_the_engine_runs_where_there_is_no_node():
    core = SOURCE.partition(NODE)[0]
    assert core != SOURCE and "require" not in core and "console" not in core
    script = "console.log(require('node:vm').runInNewContext(process.argv[1], {}))"
    done = subprocess.run(["node", "-e", script, f"{core}\nsoftmax([1000, 1000])[0] === 0.5"],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "true\n"
