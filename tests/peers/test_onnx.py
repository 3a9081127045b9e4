"""ONNX files from both exporters of PyTorch, run by ONNX Runtime and judged."""

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple.cli import main
from npple.oracle import (Norm, OnnxModel, check_onnx, from_arrays, load_mapping, make_vectors,
                          suggest)
from npple.testing import assert_matches

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASKS = {"click": "binary", "dwell": "regression"}
MODEL = npple.ple(6, TASKS, levels=2, task_experts=2, shared_experts=1, expert_units=(6,),
                  tower_units=())
STREAMS = {"click": 2, "dwell": 2, "shared": 1}


class PLE(torch.nn.Module):
    """Two levels; with the mistake the gates select on the input."""

    def __init__(self, mistake=False):
        super().__init__()
        self.mistake = mistake
        self.experts, self.gates = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for level in "12":
            for s, n in STREAMS.items():
                self.experts[level + s] = torch.nn.ModuleList(
                    torch.nn.Linear(6, 6) for _ in range(n))
                if level == "1" or s != "shared":
                    self.gates[level + s] = torch.nn.Linear(6, 5 if s == "shared" else 3,
                                                            bias=False)
        self.towers = torch.nn.ModuleDict({t: torch.nn.Linear(6, 1) for t in TASKS})

    def forward(self, x):
        now = dict.fromkeys(STREAMS, x)
        for level in "12":
            out = {s: [torch.relu(e(now[s])) for e in self.experts[level + s]] for s in STREAMS}
            following = {}
            for s in STREAMS:
                if level + s in self.gates:
                    mixed = torch.stack([e for t in STREAMS for e in out[t]
                                         if s in (t, "shared") or t == "shared"], dim=1)
                    z = self.gates[level + s](x if self.mistake else now[s])
                    following[s] = (torch.softmax(z, dim=1)[:, :, None] * mixed).sum(1)
            now = following
        return tuple(self.towers[t](now[t])[:, 0] for t in TASKS)


def exported(path, module, dynamo):
    x = torch.zeros(4, 6)
    dynamic = ({"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}} if dynamo else
               {"dynamic_axes": {"x": {0: "batch"}}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' own
        torch.onnx.export(module.eval(), (x,), path, input_names=["x"], output_names=[*TASKS],
                          dynamo=dynamo, verbose=False, **dynamic)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["by tracing", "by torch.export"])
def files(request, tmp_path_factory):
    """The right file, its twin with the mistake, and a bundle of test vectors."""
    torch.manual_seed(0)
    if request.param:
        pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    make_vectors(MODEL).save(folder / "bundle.npz")
    return (exported(folder / "right.onnx", PLE(), request.param),
            exported(folder / "wrong.onnx", PLE(True), request.param), folder / "bundle.npz")


def test_a_right_file_passes_and_its_twin_is_named(files, capsys):
    right, wrong, bundle = map(str, files)
    assert main(["oracle", "check", bundle, right]) == 0
    assert main(["oracle", "check", bundle, wrong, "--json"]) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["verdict"] == "failed"
    assert report["diagnosis"][0]["deviations"] == ["selector-input"]


def test_a_file_is_asserted_as_a_module_is(files):
    right, wrong, _ = files
    file = OnnxModel(right)
    mapping = suggest(file.weights, MODEL, file.run).mapping
    assert assert_matches(right, MODEL, mapping).passed
    with pytest.raises(npple.CheckFailed):
        assert_matches(wrong, MODEL, mapping)


def test_a_mapping_that_was_saved_serves(files, tmp_path, capsys):
    right, wrong, bundle = map(str, files)
    file = OnnxModel(right)
    proposal = suggest(file.weights, MODEL, file.run)
    assert proposal.certain and not proposal.deviation
    proposal.mapping.save(tmp_path / "m.json")
    assert main(["oracle", "check", bundle, right, "--mapping", str(tmp_path / "m.json")]) == 0
    report = check_onnx(make_vectors(MODEL), right, load_mapping(tmp_path / "m.json"),
                        expect="gradients")
    assert report.verdict == "passed in part"  # a file has none
    assert report.precision == "float32"


def test_values_within_the_graph_are_taken_where_the_mapping_names_them(files):
    right, _, _ = files
    file = OnnxModel(right)
    mapping = suggest(file.weights, MODEL, file.run).mapping
    softmaxes = [node for node in onnx.load(right).graph.node if node.op_type == "Softmax"]
    inner = {"level1/click/gate/weights": softmaxes[0].output[0]}
    report = check_onnx(make_vectors(MODEL), right,
                        replace(mapping, tensors=mapping.tensors | inner))
    assert report.verdict == "passed"
    assert "level1/click/gate/weights" in {row.name for row in report.rows}


def test_the_model_one_deploys_is_checked_with_its_own_weights_on_rows_of_ones_own(files):
    right, wrong, _ = files
    file, rng = OnnxModel(right), np.random.default_rng(0)
    mapping = suggest(file.weights, MODEL, file.run).mapping
    x = rng.normal(size=(20, 6)).astype(np.float32)
    targets = {"click": rng.integers(0, 2, 20), "dwell": rng.normal(size=20).astype(np.float32)}
    vectors = make_vectors(MODEL, params=from_arrays(file.weights, MODEL, mapping), x=x,
                           targets=targets)
    assert check_onnx(vectors, right, mapping).passed
    assert check_onnx(vectors, wrong, mapping).diagnosis[0].names == ("selector-input",)


def test_a_quantised_file_cannot_be_judged_and_how_far_it_is_off_is_told(files, tmp_path, capsys):
    quantization = pytest.importorskip("onnxruntime.quantization")
    right, _, bundle = files
    path = tmp_path / "quantised.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(right, path)
    file = OnnxModel(right)
    suggest(file.weights, MODEL, file.run).mapping.save(tmp_path / "m.json")
    assert main(["oracle", "check", str(bundle), str(path), "--mapping",
                 str(tmp_path / "m.json")]) == 1
    printed = capsys.readouterr().out
    assert "cannot be judged" in printed and "the largest deviation is " in printed


def test_a_file_for_other_inputs_is_told(files):
    right, _, _ = files
    mapping = suggest(OnnxModel(right).weights, MODEL, OnnxModel(right).run).mapping
    columns = npple.ple({f"c{i}": "numeric" for i in range(6)}, TASKS, levels=2, task_experts=2,
                        shared_experts=1, expert_units=(6,), tower_units=())
    with pytest.raises(npple.InputError, match="inputs: the file has x, the vectors c0, c1"):
        check_onnx(make_vectors(columns), right, mapping)


def test_what_is_no_onnx_file_is_told_in_one_line(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no protobuf")
    for each, why in ((path, "no ONNX file that can be read"), (tmp_path / "not", "no such file")):
        with pytest.raises(npple.FileError, match=why) as error:
            OnnxModel(each)
        assert "\n" not in str(error.value)


def test_without_the_packages_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(npple.InputError, match=r"pip install 'npple\[onnx\]'"):
        OnnxModel(tmp_path / "m.onnx")


def test_weights_are_initializers_of_reals_with_axes(files):
    right, _, _ = files
    weights = OnnxModel(right).weights
    assert len(weights) == 10 * 2 + 5 + 2 * 2
    assert {w.dtype for w in weights.values()} == {np.dtype("float32")}


def normalised(path, after):
    """A shared bottom with a batch normalisation before or after its activation, as a graph."""
    make, real = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"w": (4, 3), "gamma": (4,), "beta": (4,), "mean": (4,), "var": (4,), "head": (4, 1),
              "end": (1,)}
    order = ("Relu", "BatchNormalization") if after else ("BatchNormalization", "Relu")
    inputs = {"Relu": ["{}"], "BatchNormalization": ["{}", "gamma", "beta", "mean", "var"]}
    nodes = [make.make_node("Gemm", ["x", "w"], ["z0"], transB=1)]
    for i, kind in enumerate(order):
        nodes.append(make.make_node(kind, [name.format(f"z{i}") for name in inputs[kind]],
                                    [f"z{i + 1}"]))
    nodes.append(make.make_node("Gemm", ["z2", "head", "end"], ["y"]))
    graph = make.make_graph(
        nodes, "g", [make.make_tensor_value_info("x", real, ["n", 3])],
        [make.make_tensor_value_info("y", real, ["n", 1])],
        [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in shapes.items()])
    onnx.save(make.make_model(graph, ir_version=8, opset_imports=[make.make_opsetid("", 15)]), path)
    return path


def test_a_normalisation_of_a_file_is_folded_and_its_place_checked(tmp_path, capsys):
    model = npple.shared_bottom(3, {"a": "binary"}, expert_units=(4,), tower_units=())
    norms = {"n": Norm("w", mean="mean", variance="var", eps=1e-5, scale="gamma", shift="beta",
                       inputs=-1)}
    right, wrong = (normalised(tmp_path / f"{after}.onnx", after) for after in (False, True))
    file = OnnxModel(right)
    proposal = suggest(file.weights, model, file.run, norms=norms)
    assert proposal.certain
    assert check_onnx(make_vectors(model), right, proposal.mapping).passed
    assert check_onnx(make_vectors(model), wrong, proposal.mapping).verdict == "failed"
    proposal.mapping.save(tmp_path / "m.json")
    make_vectors(model).save(tmp_path / "bundle.npz")
    for path, status in ((right, 0), (wrong, 1)):
        assert main(["oracle", "check", str(tmp_path / "bundle.npz"), str(path), "--mapping",
                     str(tmp_path / "m.json")]) == status
