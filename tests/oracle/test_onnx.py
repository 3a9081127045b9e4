"""ONNX files without ONNX: what is asked of the packages, what is refused; on stand-ins for both.

tests/peers/test_onnx.py checks real files.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import npple
from npple import FileError, InputError, oracle
from npple.oracle import onnx_files
from npple.oracle.mappings import ModuleMapping, sliced, transposed
from npple.oracle.onnx_files import OnnxModel, _fed, _single, check_onnx

MODEL = npple.shared_bottom(2, {"a": "binary"}, expert_units=(2,), tower_units=(),
                            activation="tanh")
MAPPING = ModuleMapping(
    {"level1/shared/experts/layer1/weight": transposed("w1", (0, 2, 1)),
     "level1/shared/experts/layer1/bias": "b1", "tower/a/layer1/weight": "w2",
     "tower/a/layer1/bias": "b2"}, {"tower/a": sliced("y", None, 0), "level1/a": "h"})


def named(name, **more):
    return SimpleNamespace(name=name, **more)


class Initializer:
    def __init__(self, name, array):
        self.name, self.array = name, array

    def CopyFrom(self, other):  # noqa: N802  # as protobuf has it
        self.name, self.array = other.name, other.array


class Graph:
    def __init__(self, kinds=("MatMul", "Tanh")):
        self.initializer = [
            Initializer("w1", np.ones((1, 2, 2), np.float32)),
            Initializer("b1", np.ones((1, 2), np.float32)),
            Initializer("w2", np.ones((2, 1), np.float32)),
            Initializer("b2", np.ones(1, np.float32)), Initializer("axis", np.array(1)),
            Initializer("shape", np.array([1, 2])), Initializer("eps", np.float32(1).reshape(()))]
        self.node = [SimpleNamespace(op_type=kind, output=[name])
                     for kind, name in zip(kinds, ("h", "y"), strict=True)]
        self.output = [named("y")]


class Proto:
    """A model that the runtime below runs; what it is asked for is noted."""

    kinds = ("MatMul", "Tanh")

    def __init__(self):
        self.graph = Graph(self.kinds)

    def CopyFrom(self, other):  # noqa: N802
        self.graph.output = [*other.graph.output]
        self.graph.node = other.graph.node

    def SerializeToString(self):  # noqa: N802
        return self


class Session:
    made = []

    def __init__(self, model, options, providers):
        self.made.append((model, options, providers))
        self.model = model

    def get_inputs(self):
        return [named("x", shape=["rows", 2], type="tensor(float)")]

    def get_outputs(self):
        return self.model.graph.output

    def run(self, names, inputs):
        w = {each.name: each.array for each in self.model.graph.initializer}
        if (w["b2"] > 1e6).any():
            raise RuntimeError("too\nlarge")
        h = np.tanh(inputs["x"] @ w["w1"][0].T + w["b1"][0])
        values = {"h": h, "y": h @ w["w2"] + w["b2"]}
        return [values[name] for name in names]


@pytest.fixture
def packages(monkeypatch):
    checked = []
    onnx = SimpleNamespace(
        load=lambda path: Proto(), checker=SimpleNamespace(check_model=checked.append),
        numpy_helper=SimpleNamespace(to_array=lambda each: each.array,
                                     from_array=lambda array, name: Initializer(name, array)),
        ValueInfoProto=named)
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setattr(onnx_files, "_packages", lambda: (onnx, runtime))
    monkeypatch.setattr(Session, "made", [])
    monkeypatch.setattr(Proto, "kinds", ("MatMul", "Tanh"))
    return SimpleNamespace(onnx=onnx, checked=checked)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    return tmp_path / "m.onnx"


def vectors():
    return oracle.make_vectors(MODEL, batch=3)


def test_weights_are_initializers_of_real_numbers_with_axes(packages, path):
    file = OnnxModel(path)
    assert [*file.weights] == ["w1", "b1", "w2", "b2"] and file.quantised == ()
    assert packages.checked == [file._model]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_real_dtype_counts(packages, path, dtype):
    packages.onnx.numpy_helper.to_array = lambda each: np.ones(2, dtype)
    assert len(OnnxModel(path).weights) == 7
    packages.onnx.numpy_helper.to_array = lambda each: np.ones(2, "int8")
    assert not OnnxModel(path).weights


def test_a_right_file_passes(packages, path):
    report = check_onnx(vectors(), path, MAPPING)
    assert report.verdict == "passed" and {row.name for row in report.rows} == {"tower/a",
                                                                               "level1/a"}
    assert {row.precision for row in report.rows} == {"float32"}
    model, options, providers = Session.made[0]
    assert (options.log_severity_level, options.intra_op_num_threads) == (4, 1)
    assert providers == ["CPUExecutionProvider"]
    assert [each.name for each in model.graph.output] == ["y", "h"]


def test_what_is_expected_and_declared_is_handed_on(packages, path):
    report = check_onnx(vectors(), path, MAPPING, expect="forward")
    assert report.verdict == "passed in part" and "level1/shared/experts" in report.expected
    with pytest.raises(InputError, match="^conventions: 'shared-first' changes nothing"):
        check_onnx(vectors(), path, MAPPING, conventions=["shared-first"])


def test_weights_take_the_place_of_initializers(packages, path):
    file, x = OnnxModel(path), np.ones((2, 2), np.float32)
    plain = file.run({}, x)
    assert [*plain] == ["y"]
    moved = file.run({"b2": np.full(1, 5.0, np.float32), "zzz": np.ones(1)}, x, ["h", "q"])
    np.testing.assert_allclose(moved["y"] - plain["y"], 4.0, rtol=1e-6)
    assert [*moved] == ["y", "h"]
    assert file.weights["b2"] == 1.0


def test_what_fails_is_told_in_one_line(packages, path):
    file = OnnxModel(path)
    with pytest.raises(InputError) as caught:
        file.run({"b2": np.full(1, 1e9, np.float32)}, np.ones((2, 2)))
    assert str(caught.value) == "ONNX Runtime: too\\nlarge"
    with pytest.raises(InputError, match="^inputs: the file has x, the vectors z"):
        file.run({}, {"z": np.ones((2, 2))})


def test_a_quantised_file_cannot_be_judged_and_says_how_far_it_is_off(packages, path, monkeypatch):
    monkeypatch.setattr(Proto, "kinds", ("MatMulInteger", "Tanh"))
    bundle = vectors()
    report = check_onnx(bundle, path, MAPPING, expect="forward")
    assert report.verdict == "cannot be judged" and report.given.keys() == {"tower/a", "level1/a"}
    x = bundle.inputs.astype(np.float32)
    h = np.tanh(x.sum(axis=1) + 1)[:, None] * np.ones(2)
    off = {"level1/a": np.abs(h - bundle.expected["level1/a"]).max(),
           "tower/a": np.abs(h.sum(axis=1) + 1 - bundle.expected["tower/a"]).max()}
    worst = max(off, key=off.get)
    assert report.reasons == {"quantised": (
        "MatMulInteger; with the file's own weights the largest deviation is "
        f"{off[worst]:.2g}, in {worst}")}
    assert set(report.precisions.values()) == {"float32"}
    assert "level1/shared/experts" in report.expected
    wide = ModuleMapping({}, {"tower/a": "y"})
    assert check_onnx(bundle, path, wide).reasons["quantised"].endswith(
        "the largest deviation is not known: no tensor has its shape")


@pytest.mark.parametrize("kinds, quantised", [
    (("QuantizeLinear", "DequantizeLinear"), ("QuantizeLinear",)), (("Gemm", "Relu"), ()),
    (("QLinearMatMul", "QLinearMatMul"), ("QLinearMatMul",)), (("QGemm", "QAttention"),
                                                              ("QGemm", "QAttention"))])
def test_operations_on_integers_are_known(packages, path, monkeypatch, kinds, quantised):
    monkeypatch.setattr(Proto, "kinds", kinds)
    assert OnnxModel(path).quantised == quantised


def test_what_cannot_be_read_is_refused(packages, path, tmp_path):
    with pytest.raises(FileError) as caught:
        OnnxModel(tmp_path / "none.onnx")
    assert str(caught.value) == (f"{tmp_path / 'none.onnx'}: no ONNX file that can be read: no "
                                 "such file")
    with pytest.raises(InputError, match="^path: a path is needed, got 3"):
        OnnxModel(3)
    packages.onnx.load = lambda path: (_ for _ in ()).throw(ValueError("  a\n b "))
    with pytest.raises(FileError, match=r"read: a b$"):
        OnnxModel(path)
    packages.onnx.load = lambda path: (_ for _ in ()).throw(KeyError())
    with pytest.raises(FileError, match=r"read: KeyError$"):
        OnnxModel(path)


@pytest.mark.parametrize("arguments, message", [
    ((3, "m.onnx", MAPPING), "vectors: from make_vectors or load, got int"),
    ((None, "m.onnx", 3), "mapping: a ModuleMapping is needed, got 3")])
def test_arguments_are_checked_first(arguments, message):
    given = (arguments[0] or vectors(), *arguments[1:])
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_onnx(*given)


def test_without_the_packages_it_is_told_how_to_get_them():
    import importlib.util
    if importlib.util.find_spec("onnx"):
        assert onnx_files._packages()
    else:
        with pytest.raises(InputError) as caught:
            onnx_files._packages()
        assert str(caught.value) == ("ONNX files need onnx and onnxruntime (No module named "
                                     "'onnx'): pip install 'npple[onnx]'")


# Inputs -----------------------------------------------------------------------------------------

def declared(name, shape, kind):
    return named(name, shape=shape, type=kind)


@pytest.mark.parametrize("kind, dtype", [
    ("tensor(float)", "f4"), ("tensor(double)", "f8"), ("tensor(float16)", "f2"),
    ("tensor(int32)", "i4"), ("tensor(int64)", "i8")])
def test_inputs_are_fed_in_the_dtype_and_axes_declared(kind, dtype):
    x = np.arange(3)
    made = _fed([declared("x", ["n"], kind), declared("y", ["n", 1], kind)], {"x": x, "y": x})
    assert made["x"].dtype == made["y"].dtype == np.dtype(dtype)
    assert made["x"].shape == (3,) and made["y"].shape == (3, 1)
    assert made["y"][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("shapes, inputs, message", [
    ({"x": [4]}, np.zeros(3), "inputs: x: the file takes 4 rows, the vectors have 3; export it for "
                              "any number of rows"),
    ({"x": [3], "y": [3]}, np.zeros(3), "inputs: the file has x, y, the vectors one matrix"),
    ({"x": [3], "y": [3]}, {"x": np.zeros(3), "z": np.zeros(3)},
     "inputs: the file has x, y, the vectors x, z; give its inputs those names")])
def test_inputs_that_are_not_the_files_are_told(shapes, inputs, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        _fed([declared(name, shape, "tensor(float)") for name, shape in shapes.items()], inputs)


def test_rows_may_be_fixed_free_or_unknown():
    for shape in ([3], ["n"], [None], []):
        assert len(_fed([declared("x", shape, "tensor(float)")], np.zeros(3))["x"]) == 3


def test_quantised_files_are_fed_singles_and_codes():
    made = _single({"x": np.ones(2), "c": np.arange(2)})
    assert made["x"].dtype == np.float32 and made["c"].dtype == np.arange(2).dtype
    assert _single(np.ones(2)).dtype == np.float32
