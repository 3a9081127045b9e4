"""`check_arrays` with JAX (a plain pytree) and functional PyTorch, by the lines of the book."""

import re
from pathlib import Path

import numpy as np
import pytest

import npple
from npple.oracle import moved

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
WITH_JAX, WITH_TORCH = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)[:2]
TASKS = {"click": "binary", "dwell": "regression"}
MODEL = npple.ple(inputs=5, tasks=TASKS, levels=2, task_experts=2, shared_experts=1,
                  expert_units=(5,), tower_units=(3,))
STREAMS = ("click", "dwell", "shared")
# mistake -> what names it
MISTAKES = {"": None, "selector": "selector-input", "softmax": "gate-softmax-batch",
            "shared": "shared-mean", "linear": "expert-linear-end", "stopped": "stop-gate"}


def ple(library, w, x, mistake):
    """Two levels of PLE by any library with NumPy's functions, `relu` and `stop`."""
    xp, relu, stop = library
    now = dict.fromkeys(STREAMS, x)
    for level in (0, 1):
        experts = {}
        for s in STREAMS:
            each = w[f"level{level}"][s]
            z = xp.einsum("bi,noi->nbo", now[s], each["kernel"]) + each["bias"][:, None]
            experts[s] = z if mistake == "linear" else relu(z)
        following = {}
        for s in STREAMS if level == 0 else STREAMS[:2]:
            mixed = xp.concatenate([experts[t] for t in STREAMS if s in (t, "shared")
                                    or t == "shared"])
            if mistake == "shared" and s == "shared":
                following[s] = mixed.mean(0)
                continue
            logits = (x if mistake == "selector" else now[s]) @ w[f"gate{level}"][s]
            weights = xp.exp(logits)
            weights = weights / weights.sum(0 if mistake == "softmax" else 1)[
                ... if mistake == "softmax" else (slice(None), None)]
            weights = stop(weights) if mistake == "stopped" else weights
            following[s] = xp.einsum("bn,nbo->bo", weights, mixed)
        now = following
    return {t: (relu(now[t] @ w["tower"][t]["w1"] + w["tower"][t]["b1"])
                @ w["tower"][t]["w2"] + w["tower"][t]["b2"])[:, 0] for t in TASKS}


def pytree(mistake, dtype):
    """Zeros, in the shapes of the program: kernels (expert, out, in)."""
    def zeros(*shape):
        return np.zeros(shape, dtype)

    counts = {"click": 2, "dwell": 2, "shared": 1}
    made = {f"level{level}": {s: {"kernel": zeros(n, 5, 5), "bias": zeros(n, 5)}
                              for s, n in counts.items()} for level in (0, 1)}
    made |= {"gate0": {s: zeros(5, n) for s, n in (("click", 3), ("dwell", 3), ("shared", 5))},
             "gate1": {s: zeros(5, 3) for s in TASKS}}
    if mistake == "shared":
        del made["gate0"]["shared"]
    made["tower"] = {t: {"w1": zeros(5, 3), "b1": zeros(3), "w2": zeros(3, 1), "b2": zeros(1)}
                     for t in TASKS}
    return made


def parameters(join, mistake):
    """npple's names to the program's, whose parts are joined by `join`."""
    made = {}
    for level in (0, 1):
        for s in STREAMS:
            at = f"level{level + 1}/{s}/experts/layer1"
            made[f"{at}/weight"] = moved(lambda k: k.transpose(0, 2, 1),
                                         join.join((f"level{level}", s, "kernel")))
            made[f"{at}/bias"] = join.join((f"level{level}", s, "bias"))
            if (level == 0 or s != "shared") and (mistake, s) != ("shared", "shared"):
                made[f"level{level + 1}/{s}/gate/layer1/weight"] = f"gate{level}{join}{s}"
    return made | {f"tower/{t}/layer{i}/{name}": join.join(("tower", t, f"{name[0]}{i}"))
                   for t in TASKS for i in (1, 2) for name in ("weight", "bias")}


def by_jax(mistake, dtype):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    library = (jax.numpy, jax.nn.relu, jax.lax.stop_gradient)
    params = jax.tree.map(jax.numpy.asarray, pytree(mistake, dtype))
    return WITH_JAX, {"params": params, "apply": lambda w, x: ple(library, w, x, mistake)}, "/"


def by_torch(mistake, dtype):
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in flat(pytree(mistake, dtype)).items():
                self.register_parameter(name, torch.nn.Parameter(torch.as_tensor(value)))

        def forward(self, x):
            return ple((torch, torch.relu, torch.Tensor.detach), deep(self._parameters), x, mistake)

    return WITH_TORCH, {"module": Module()}, "-"


def flat(tree, path=()):
    if not isinstance(tree, dict):
        return {"-".join(path): tree}
    return {name: each for key, inner in tree.items()
            for name, each in flat(inner, (*path, key)).items()}


def deep(named):
    made = {}
    for name, value in named.items():
        *path, last = name.split("-")
        place = made
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return made


FRAMEWORKS = pytest.mark.parametrize("framework", [by_jax, by_torch])


def asked(framework, mistake="", dtype="float64"):
    code, names, join = framework(mistake, dtype)
    own = {"shared": ("*shared/gate*",)}.get(mistake, ())
    code = code.replace("ModuleMapping(parameters)", f"ModuleMapping(parameters, own={own!r})")
    names |= {"model": MODEL, "parameters": parameters(join, mistake)}
    exec(code, names)
    return names


@FRAMEWORKS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_program_passes_with_gradients(framework, dtype):
    report = asked(framework, dtype=dtype)["report"]
    assert report.verdict == "passed" and report.precision == dtype
    compared = {row.name for row in report.rows}
    assert {f"{kind}/{name}" for kind in ("grad", "grad[click]", "grad[dwell]")
            for name in MODEL.shapes} <= compared


@FRAMEWORKS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name])
def test_each_mistake_is_named(framework, mistake, dtype):
    report = asked(framework, mistake, dtype)["report"]
    assert report.verdict == "failed"
    assert report.diagnosis[0].names == (MISTAKES[mistake],)


@FRAMEWORKS
def test_bfloat16_is_judged_as_such(framework):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    code, names, join = framework("", "float32")
    if framework is by_jax:
        import jax
        names["params"] = jax.tree.map(lambda leaf: leaf.astype(bfloat16), names["params"])
    else:
        names["module"] = names["module"].bfloat16()
    names |= {"model": MODEL, "parameters": parameters(join, "")}
    exec(code, names)
    report = names["report"]
    assert {row.precision for row in report.rows} == {"bfloat16"} and not report.wrong


@FRAMEWORKS
def test_weights_written_come_out_again(framework):
    names = asked(framework)
    from npple.oracle import ModuleMapping, from_arrays, into_arrays
    mapping, params = ModuleMapping(names["parameters"]), MODEL.init(1)
    made = into_arrays(names["weights"], MODEL, mapping, params)
    back = from_arrays(made, MODEL, mapping)
    assert all((back[name] == params[name]).all() for name in params)


def test_what_a_user_writes_is_at_most_twenty_lines():
    """Without the model, and without blank lines."""
    for code in (WITH_JAX, WITH_TORCH):
        assert len([line for line in code.splitlines() if line.strip()]) <= 20


