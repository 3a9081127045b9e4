"""What deepctr 0.9.4 computes, over Keras 3: the verdicts of docs/conformance.md."""

from unittest import mock

import numpy as np
import pytest

import npple
from npple.oracle import ModuleMapping, check_arrays, make_vectors, stacked
from peers.shown import shown

keras = pytest.importorskip("keras", exc_type=ImportError)
tf = pytest.importorskip("tensorflow")
with mock.patch("threading.Thread.start"):  # at import it asks the network for a newer version
    pytest.importorskip("deepctr", exc_type=ImportError)
    from deepctr.feature_column import DenseFeat, SparseFeat
    from deepctr.models import MMOE, PLE

TASKS = {"ctr": "binary", "time": "regression"}
INPUTS = {"city": (5, 3), "x[0]": "numeric", "x[1]": "numeric"}
SIZES = {"expert_units": (5, 4), "tower_units": (3,)}
OPTIONS = {"expert_dnn_hidden_units": (5, 4), "tower_dnn_hidden_units": (3,),
           "task_types": tuple(TASKS.values()), "task_names": tuple(TASKS), "l2_reg_embedding": 0}


def made(build, *counts, dtype="float32", **options):
    """A model of deepctr; its layers are numbered anew."""
    keras.backend.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    columns = [DenseFeat("x", 2), SparseFeat("city", 5, embedding_dim=3)]
    return build(columns, *counts, **OPTIONS | options)


def layers(name, paths, count):
    """The dense layers of an expert group or a tower, each DNN with numbered kernels."""
    group = name.endswith("experts")
    return {f"{name}/layer{i + 1}/{ours}": stacked(*(f"{path}/{theirs}{i}" for path in paths))
            if group else f"{paths[0]}/{theirs}{i}" for i in range(count)
            for ours, theirs in (("weight", "kernel"), ("bias", "bias"))}


def judged(module, model, experts, gates, taps):
    """`experts`: a group's name -> its DNNs; `gates` and `taps`: npple's name -> a layer."""
    parameters = {"embedding/city": "sparse_emb_city/embeddings"}
    for name, paths in experts.items():
        parameters |= layers(name, paths, 2)
    parameters |= {f"{name}/layer1/weight": f"{path}/kernel" for name, path in gates.items()}
    for i, task in enumerate(TASKS):
        parameters |= layers(f"tower/{task}", [f"tower_{task}"], 1)
        parameters[f"tower/{task}/layer2/weight"] = f"dense{f'_{i}' * (i > 0)}/kernel"
        parameters[f"tower/{task}/layer2/bias"] = f"{task}/global_bias"
    tensors = {name: stacked(*paths) for name, paths in experts.items()} | taps
    weights = {w.path: w for w in module.weights}
    seen = {path for move in ModuleMapping({}, tensors).tensors.values() for path in move.sources}
    logits = {task: f"dense{f'_{i}' * (i > 0)}" for i, task in enumerate(TASKS)}
    probe = keras.Model(module.inputs, {name: module.get_layer(name).output
                                        for name in (*seen, *logits.values())})

    def run(arrays, x):
        for name, array in arrays.items():
            weights[name].assign(array)
        made = probe({"x": np.stack([x["x[0]"], x["x[1]"]], axis=1), "city": x["city"][:, None]})
        ends = {f"tower/{task}": (made[layer] + weights[f"{task}/global_bias"])[:, 0]
                for task, layer in logits.items()}  # as its PredictionLayer adds it
        return {name: made[name] for name in seen} | ends

    def gradients(arrays, x, starts):
        with tf.GradientTape() as tape:
            y = run(arrays, x)
        starts = {name: tf.convert_to_tensor(starts[name]) for name in starts}
        found = tape.gradient({name: y[name] for name in starts},
                              [w.value for w in weights.values()], starts)
        return {name: None if g is None else tf.convert_to_tensor(g)
                for name, g in zip(weights, found)}

    return shown(check_arrays(make_vectors(model), weights, ModuleMapping(parameters, tensors),
                              run, gradients))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shared", [1, 0])
def test_ple_is_the_papers(shared, dtype):
    module = made(PLE, shared, 2, 2, dtype=dtype)
    experts, gates, taps = {}, {}, {}
    for level in (0, 1):
        for stream in (*TASKS, "shared"):
            at, own = f"level{level + 1}/{stream}", stream in TASKS
            if own or shared:
                experts[f"{at}/experts"] = ([f"level_{level}_task_{stream}_expert_specific_{k}"
                                             for k in (0, 1)] if own
                                            else [f"level_{level}_expert_shared_0"])
            if own or shared and level == 0:
                kind = f"specific_{stream}" if own else "shared"
                gates[f"{at}/gate"] = f"level_{level}_gate_softmax_{kind}"
                taps[f"{at}/gate/weights"] = f"level_{level}_gate_softmax_{kind}"
                taps[at] = f"level_{level}_gate_mul_expert_{kind}"
    model = npple.ple(INPUTS, TASKS, levels=2, task_experts=2, shared_experts=shared, **SIZES)
    assert judged(module, model, experts, gates, taps).verdict == "passed"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mmoe_is_the_papers(dtype):
    module = made(MMOE, 3, gate_dnn_hidden_units=(), dtype=dtype)
    gates = {f"level1/{task}/gate": f"gate_softmax_{task}" for task in TASKS}
    taps = {f"{name}/weights": path for name, path in gates.items()}
    taps |= {f"level1/{task}": f"gate_mul_expert_{task}" for task in TASKS}
    model = npple.mmoe(INPUTS, TASKS, experts=3, **SIZES)
    assert judged(module, model, {"level1/shared/experts": [f"expert_{k}" for k in range(3)]},
                  gates, taps).verdict == "passed"
