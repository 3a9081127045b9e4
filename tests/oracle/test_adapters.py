"""Mappings between a module's parameters and npple's, on stand-ins for PyTorch written in NumPy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple import oracle, testing
from npple.oracle.adapters import from_module, gradients_from_module, load_module
from npple.oracle.mappings import Move, ModuleMapping, linear, moved, stacked
from npple.testing import assert_gradients, assert_matches


class Tensor:
    """As much of a torch tensor as the adapters ask for."""

    def __init__(self, array, dtype=np.float32):
        self.array, self.grad = np.array(array, dtype), None

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)

    dtype = property(lambda self: self.array.dtype)
    shape = property(lambda self: self.array.shape)
    data = property(lambda self: self)

    def new_tensor(self, array):
        return Tensor(array, self.array.dtype)

    def copy_(self, other):
        self.array[...] = other.array


class Module:
    def __init__(self, dtype=np.float32, **shapes):
        rng = np.random.default_rng(0)
        self.parameters = {name.replace("__", "."): Tensor(rng.normal(size=shape), dtype)
                           for name, shape in shapes.items()}

    def named_parameters(self):
        yield from self.parameters.items()

    def __getitem__(self, name):
        return self.parameters[name].array


MODEL = npple.mmoe(3, {"a": "binary", "b": "regression"}, experts=2, expert_units=(4,),
                   tower_units=())
SHAPES = {"experts__0__weight": (4, 3), "experts__0__bias": (4,), "experts__1__weight": (4, 3),
          "experts__1__bias": (4,), "gates": (2, 2, 3), "towers__0__weight": (1, 4),
          "towers__0__bias": (1,), "towers__1__weight": (1, 4), "towers__1__bias": (1,)}
PARAMETERS = (linear("level1/shared/experts/layer1", ["experts.0", "experts.1"])
              | {f"level1/{task}/gate/layer1/weight": moved(lambda g, i=i: g[i].T, "gates")
                 for i, task in enumerate("ab")}
              | linear("tower/a/layer1", "towers.0") | linear("tower/b/layer1", "towers.1"))
MAPPING = ModuleMapping(PARAMETERS)


def faults(module, mapping, model=MODEL):
    """The lines of the error that lists what does not fit."""
    with pytest.raises(npple.InputError) as error:
        from_module(module, model, mapping)
    head, *lines = str(error.value).splitlines()
    assert head.partition(";")[0] == f"mapping: {len(lines)} parameters do not fit"
    return [line.strip() for line in lines]


# Weights ----------------------------------------------------------------------------------------

def test_weights_come_out_transposed_stacked_and_split():
    module = Module(**SHAPES)
    params = from_module(module, MODEL, MAPPING)
    assert {name: p.shape for name, p in params.items()} == MODEL.shapes
    experts = params["level1/shared/experts/layer1/weight"]
    for i in (0, 1):
        assert (experts[i] == module[f"experts.{i}.weight"].T).all()
    assert (params["level1/b/gate/layer1/weight"] == module["gates"][1].T).all()


def test_the_order_of_experts_is_the_mappings():
    module = Module(**SHAPES)
    turned = ModuleMapping(PARAMETERS | linear("level1/shared/experts/layer1",
                                               ["experts.1", "experts.0"]))
    params = from_module(module, MODEL, turned)
    assert (params["level1/shared/experts/layer1/bias"][0] == module["experts.1.bias"]).all()


def test_what_comes_out_is_a_copy():
    module = Module(**SHAPES)
    from_module(module, MODEL, MAPPING)["tower/a/layer1/bias"][...] = 7
    assert module["towers.0.bias"] != 7


@pytest.mark.parametrize("stored, read", [(np.float16, np.float32), (np.float32, np.float32),
                                          (np.float64, np.float64)])
def test_weights_keep_the_modules_precision_from_float32_on(stored, read):
    params = from_module(Module(stored, **SHAPES), MODEL, MAPPING)
    assert {p.dtype for p in params.values()} == {np.dtype(read)}


@given(st.integers(0, 9))
def test_weights_loaded_come_out_again(seed):
    module, params = Module(np.float64, **SHAPES), MODEL.init(seed)
    load_module(module, MODEL, MAPPING, params)
    back = from_module(module, MODEL, MAPPING)
    assert all((back[name] == params[name]).all() for name in params)


def test_layouts_of_all_kinds_have_a_way_back():
    """One array for all experts with the width and the experts in one axis; a table cut in two."""
    model = npple.cgc(3, {"a": "binary"}, task_experts=1, shared_experts=2, expert_units=(4,),
                      tower_units=())
    module = Module(np.float64, kernel=(3, 12), biases=(4, 3), gate=(3, 3), head=(5,))
    bank = lambda kernel: kernel.reshape(3, 4, 3).transpose(2, 0, 1)  # noqa: E731
    mapping = ModuleMapping({
        "level1/a/experts/layer1/weight": moved(lambda k: bank(k)[2:], "kernel"),
        "level1/shared/experts/layer1/weight": moved(lambda k: bank(k)[:2], "kernel"),
        "level1/a/experts/layer1/bias": moved(lambda b: b.T[2:], "biases"),
        "level1/shared/experts/layer1/bias": moved(lambda b: b.T[:2], "biases"),
        "level1/a/gate/layer1/weight": "gate",
        "tower/a/layer1/weight": moved(lambda h: h[:4, None], "head"),
        "tower/a/layer1/bias": moved(lambda h: h[4:], "head")})
    params = model.init(1)
    load_module(module, model, mapping, params)
    assert (module["kernel"].reshape(3, 4, 3)[:, :, 1]
            == params["level1/shared/experts/layer1/weight"][1]).all()
    back = from_module(module, model, mapping)
    assert all((back[name] == params[name]).all() for name in params)


def test_a_constant_can_be_read_but_not_written_over():
    shapes = {name: shape for name, shape in SHAPES.items() if name != "towers__1__bias"}
    mapping = ModuleMapping(PARAMETERS | {"tower/b/layer1/bias": moved(lambda: np.zeros(1))})
    module, params = Module(**shapes), MODEL.init(0)
    assert from_module(module, MODEL, mapping)["tower/b/layer1/bias"] == 0
    load_module(module, MODEL, mapping, params)  # fresh biases are 0
    params["tower/b/layer1/bias"] = np.ones(1)
    with pytest.raises(npple.InputError, match="tower/b/layer1/bias: a constant in the module"):
        load_module(module, MODEL, mapping, params)


def test_gradients_come_out_by_the_same_mapping_and_none_is_zero():
    module = Module(**SHAPES)
    for name in ("experts.1.weight", "towers.0.bias"):
        module.parameters[name].grad = Tensor(np.full(module[name].shape, 3))
    grads = gradients_from_module(module, MODEL, MAPPING)
    assert (grads["level1/shared/experts/layer1/weight"][1] == 3).all()
    assert not grads["level1/shared/experts/layer1/weight"][0].any()
    assert grads["tower/a/layer1/bias"] == 3 and grads["tower/b/layer1/bias"] == 0


# Faults of a mapping ----------------------------------------------------------------------------

def test_every_fault_on_both_sides_is_listed():
    shapes = SHAPES | {"extra": (2,), "towers__1__weight": (1, 5)}
    parameters = {name: move for name, move in PARAMETERS.items() if "tower/a" not in name}
    parameters |= {"tower/c/layer1/bias": "towers.0.bias", "level1/a/gate/layer1/weight": "nothing"}
    found = faults(Module(**shapes), ModuleMapping(parameters))
    assert [line.partition("; there are ")[0] for line in found] == [
        "level1/a/gate/layer1/weight: made of 'nothing', which the program does not have",
        "tower/a/layer1/weight: of shape (4, 1) in the model, not mapped",
        "tower/a/layer1/bias: of shape (1,) in the model, not mapped",
        "tower/b/layer1/weight: of shape (4, 1) in the model, (5, 1) made of "
        "towers.1.weight (1, 5)",
        "tower/c/layer1/bias: mapped to towers.0.bias (1,), not in the model",
        "gates (2, 2, 3) of the program: 6 of 12 entries not mapped",
        "towers.0.weight (1, 4) of the program: it is not mapped",
        "extra (2,) of the program: it is not mapped"]


def test_a_weight_that_was_not_transposed_is_told_with_both_shapes():
    mapping = ModuleMapping(PARAMETERS | {"tower/a/layer1/weight": "towers.0.weight"})
    assert faults(Module(**SHAPES), mapping) == [
        "tower/a/layer1/weight: of shape (4, 1) in the model, (1, 4) made of "
        "towers.0.weight (1, 4)"]


def test_entries_taken_twice_are_told():
    mapping = ModuleMapping(PARAMETERS | linear("tower/b/layer1", "towers.0"))
    assert [line.split(" of the program: ")[1] for line in faults(Module(**SHAPES), mapping)] == [
        "mapped more than once", "mapped more than once", "it is not mapped", "it is not mapped"]


def test_experts_that_cannot_be_stacked_are_told():
    lines = faults(Module(**SHAPES | {"experts__1__bias": (5,)}), MAPPING)
    assert lines[0].startswith("level1/shared/experts/layer1/bias: cannot be made of "
                               "experts.0.bias (4,), experts.1.bias (5,): ")


def test_idle_parameters_may_be_left_out():
    from_module(Module(**SHAPES | {"heads__0__extra": (2,)}), MODEL,
                ModuleMapping(PARAMETERS, idle=("heads.*",)))


def test_own_parameters_are_faults_when_weights_are_read():
    mapping = ModuleMapping(PARAMETERS | {"level1/a/gate/layer1/bias": "gatebias"},
                            own=("*/gate/*",))
    assert faults(Module(**SHAPES | {"gatebias": (2,)}), mapping) == [
        "level1/a/gate/layer1/bias: mapped to gatebias (2,), not in the model"]


def test_an_entry_that_is_no_move_is_refused():
    with pytest.raises(npple.InputError, match="parameters: tower/a/layer1/bias: .* got 3"):
        ModuleMapping({"tower/a/layer1/bias": 3})


@given(st.permutations(range(6)), st.integers(0, 5))
def test_whatever_is_moved_there_is_moved_back(order, cut):
    """Any selection in any order: what was written is read again, what was not stays."""
    move = Move(lambda a: a.reshape(-1)[order][cut:], ("a",))
    arrays = {"a": np.arange(6.0).reshape(2, 3)}
    value = np.arange(100.0, 106 - cut)
    assert move.write(value, arrays).all()
    assert (move.forward(arrays) == value).all()
    assert sorted(arrays["a"].reshape(-1)[order[:cut]]) == sorted(map(float, order[:cut]))


def test_stacked_puts_a_new_axis_in_front():
    arrays = {"p": np.zeros((2, 3)), "q": np.ones((2, 3))}
    assert stacked("p", "q").forward(arrays).shape == (2, 2, 3)


# assert_matches ---------------------------------------------------------------------------------

VECTORS = oracle.make_vectors(MODEL, batch=4)


def test_a_function_that_matches_passes():
    report = assert_matches(lambda params, x: MODEL.forward(params, x).outputs
                            and {f"tower/{task}": z for task, z
                                 in MODEL.forward(params, x).outputs.items()}, VECTORS)
    assert report.passed and [row.name for row in report.rows] == ["tower/a", "tower/b"]


def test_a_function_that_does_not_match_fails_with_the_report():
    def candidate(params, x):
        trace = MODEL.forward(params, x)
        return {"tower/a": trace["tower/a"], "tower/b": trace["tower/b"] * 1.001}

    with pytest.raises(AssertionError) as error:
        assert_matches(candidate, VECTORS)
    assert "FAILED: 1 wrong by themselves, the first is tower/b" in str(error.value)


def test_seed_and_batch_make_the_vectors():
    seen = []

    def candidate(params, x):
        seen.append(x.shape)
        return dict(MODEL.forward(params, x))

    assert_matches(candidate, MODEL, seed=1, batch=3)
    assert seen == [(3, 3)]


def test_a_module_needs_a_mapping():
    with pytest.raises(npple.InputError, match="mapping: needed"):
        assert_matches(Module(**SHAPES), VECTORS)


def test_eight_rows_are_compared_unless_another_number_is_given():
    seen = []

    def candidate(params, x):
        seen.append((x.shape, params["tower/a/layer1/weight"]))
        return dict(MODEL.forward(params, x))

    for options in ({}, {"seed": 0}, {"seed": 1}):
        assert_matches(candidate, MODEL, **options)
    (shape, first), (_, same), (_, other) = seen
    assert shape == (8, 3) and (first == same).all() and (first != other).all()


@pytest.mark.parametrize("judge, candidate", [
    ("check_onnx", "model.onnx"), ("check_onnx", Path("model.onnx")),
    ("check_module", Module(**SHAPES))])
def test_a_file_and_a_module_are_judged_with_all_that_was_given(monkeypatch, judge, candidate):
    class Passed:
        def check(self):
            return self

    def judged(*arguments, **options):
        seen.append((arguments, options))
        return Passed()

    seen = []
    monkeypatch.setattr(testing, judge, judged)
    found = assert_matches(candidate, VECTORS, MAPPING, conventions=("gate-bias",))
    assert isinstance(found, Passed)
    (arguments, options), = seen
    assert [given is wanted for given, wanted in zip(arguments, (VECTORS, candidate, MAPPING),
                                                     strict=True)] == [True] * 3
    assert options == {"conventions": ("gate-bias",)}


def test_a_program_is_judged_by_what_it_was_given(monkeypatch):
    class Passed:
        def check(self):
            return self

    seen, weights = [], {"w": np.zeros(1)}
    monkeypatch.setattr(testing, "check_arrays",
                        lambda *given, **options: seen.append((given, options)) or Passed())
    for gradients, expected in ((None, "outputs"), (len, "gradients")):
        assert_matches(weights, VECTORS, MAPPING, run=abs, gradients=gradients, conventions=["x"])
        assert seen.pop() == ((VECTORS, weights, MAPPING, abs, gradients),
                              {"expect": expected, "conventions": ["x"]})


@pytest.mark.parametrize("arguments, options, message", [
    (({"w": 0}, VECTORS, MAPPING), {}, "run: needed for a dict of weights: "
                                       r"run\(weights, inputs\) -> a dict of arrays$"),
    ((abs, VECTORS), {"run": abs}, "mapping: needed where there is a run$"),
    (("model.onnx", VECTORS), {}, "mapping: needed for anything but a function, got 'model.onnx'$"),
    ((3, VECTORS), {}, "mapping: needed for anything but a function, got 3$")])
def test_what_is_missing_is_told_by_name(arguments, options, message):
    with pytest.raises(npple.InputError, match=f"^{message}"):
        assert_matches(*arguments, **options)


def test_a_module_that_can_be_called_needs_a_mapping():
    class Called(Module):
        def __call__(self, *arguments):
            raise AssertionError("it was called")

    with pytest.raises(npple.InputError, match="^mapping: needed for anything but a function"):
        assert_matches(Called(**SHAPES), VECTORS)


def test_conventions_are_handed_on_for_a_function():
    with pytest.raises(npple.InputError, match="nonsense"):
        assert_matches(lambda params, x: dict(MODEL.forward(params, x)), VECTORS,
                       conventions=("nonsense",))


def test_the_callers_line_is_shown_and_not_the_assertions():
    for assertion, arguments in ((assert_matches, (3, VECTORS)),
                                 (assert_gradients, (3, abs, {"x": np.ones(1)}))):
        with pytest.raises(npple.InputError) as error:
            assertion(*arguments)
        hidden = [entry.frame.f_locals.get("__tracebackhide__") for entry in error.traceback
                  if entry.path.name == "testing.py" and "seed" in entry.frame.f_locals]
        assert hidden == [True]
