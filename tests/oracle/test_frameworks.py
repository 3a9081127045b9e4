"""`check_arrays` on an MMoE in plain NumPy, which keeps its arrays in a layout of its own."""

import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from torchlike import Tensor

import npple
from npple import CheckFailed, oracle
from npple.oracle import (ModuleMapping, check_arrays, from_arrays, into_arrays, reshaped, sliced,
                          transposed)
from npple.oracle.frameworks import _by_probability, _Functions, _logit, _steady, fed, like
from npple.testing import assert_matches

MODEL = npple.mmoe(3, {"a": "binary", "b": "regression"}, experts=2, expert_units=(4,),
                   tower_units=(), activation="tanh")
VECTORS = oracle.make_vectors(MODEL, batch=5)
SHAPES = {"kernel": (3, 8), "offset": (8,), "gates": (2, 2, 3), "heads": (2, 5)}
PARAMETERS = {
    "level1/shared/experts/layer1/weight": transposed(reshaped("kernel", 3, 2, 4), (1, 0, 2)),
    "level1/shared/experts/layer1/bias": reshaped("offset", 2, 4)} | {
    f"level1/{task}/gate/layer1/weight": transposed(sliced("gates", i))
    for i, task in enumerate("ab")} | {
    f"tower/{task}/layer1/weight": reshaped(sliced("heads", i, (0, 4)), 4, 1)
    for i, task in enumerate("ab")} | {
    f"tower/{task}/layer1/bias": sliced("heads", i, (4, 5)) for i, task in enumerate("ab")}
MAPPING = ModuleMapping(PARAMETERS, {f"tower/{task}": sliced("y", None, i)
                                     for i, task in enumerate("ab")})


def weights(dtype=np.float64):
    return {name: np.ones(shape, dtype) for name, shape in SHAPES.items()}


def run(w, x, softmax_axis=1):
    experts = np.tanh(x @ w["kernel"] + w["offset"]).reshape(len(x), 2, 4)
    outputs = []
    for gate, head in zip(w["gates"], w["heads"], strict=True):
        e = np.exp(x @ gate.T)
        mixed = np.einsum("bn,bno->bo", e / e.sum(axis=softmax_axis, keepdims=True), experts)
        outputs.append(mixed @ head[:4] + head[4])
    return {"y": np.stack(outputs, axis=1)}


def gradients(w, x, starts, of=run):
    """By complex steps, an entry at a time."""
    w, made = {name: each.astype(complex) for name, each in w.items()}, {}
    for name, each in w.items():
        made[name] = np.zeros(each.shape)
        for at in np.ndindex(each.shape):
            stepped = w | {name: each.copy()}
            stepped[name][at] += 1e-30j
            made[name][at] = (of(stepped, x)["y"] * starts["y"]).sum().imag / 1e-30
    return made


def test_a_right_program_passes_with_all_gradients():
    report = check_arrays(VECTORS, weights(), MAPPING, run, gradients)
    assert report.verdict == "passed"
    compared = {row.name for row in report.rows}
    assert {f"{kind}/{name}" for kind in ("grad", "grad[a]", "grad[b]")
            for name in MODEL.shapes} <= compared


def columns(w, x):
    """The outputs as a list of columns (batch, 1), as linear layers leave them."""
    y = run(w, x)["y"]
    return {f"y{i}": y[:, i:i + 1] for i in range(2)}


def test_outputs_may_be_columns():
    def back(w, x, starts):
        return gradients(w, x, {"y": np.concatenate([starts["y0"], starts["y1"]], axis=1)})

    mapping = ModuleMapping(PARAMETERS, {"tower/a": "y0", "tower/b": "y1"})
    assert check_arrays(VECTORS, weights(), mapping, columns, back).passed


def test_an_output_of_one_row_that_lost_its_axis_fails():
    one = oracle.make_vectors(MODEL, batch=1)
    mapping = ModuleMapping(PARAMETERS, {"tower/a": "y0", "tower/b": "y1"})
    report = check_arrays(one, weights(), mapping, lambda w, x: {
        name: y.squeeze() for name, y in columns(w, x).items()})
    assert report.verdict == "failed" and report.rows[0].fault == "shape (), expected (1,)"


def test_a_program_is_asserted_with_or_without_gradients():
    for given in ({"gradients": gradients}, {}):
        assert assert_matches(weights(), VECTORS, MAPPING, run=run, **given).passed
    with pytest.raises(CheckFailed, match="gate-softmax-batch"):
        assert_matches(weights(), VECTORS, MAPPING, run=lambda w, x: run(w, x, softmax_axis=0))
    with pytest.raises(npple.InputError, match="run: needed for a dict of weights"):
        assert_matches(weights(), VECTORS, MAPPING)
    with pytest.raises(npple.InputError, match="mapping: needed"):
        assert_matches(weights(), VECTORS, run=run)


def test_without_gradients_the_outputs_are_compared_and_the_reason_is_told():
    report = check_arrays(VECTORS, weights(), MAPPING, run)
    assert report.verdict == "passed in part"
    assert report.reasons == {"gradients": "no function for them was given"}


def test_a_wrong_softmax_is_named():
    report = check_arrays(VECTORS, weights(), MAPPING, lambda w, x: run(w, x, softmax_axis=0))
    assert report.diagnosis[0].names == ("gate-softmax-batch",)


def test_a_wrong_gradient_is_located_at_its_parameter():
    def wrong(w, x, starts):
        made = gradients(w, x, starts)
        return made | {"gates": made["gates"] * 2}

    report = check_arrays(VECTORS, weights(), MAPPING, run, wrong)
    assert {name.partition("/")[2] for name in report.wrong} == {
        "level1/a/gate/layer1/weight", "level1/b/gate/layer1/weight"}


def test_where_no_deviation_explains_it_the_mapping_is_doubted():
    """Gates that are read the wrong way round, which fits by their shapes."""
    turned = {f"level1/{task}/gate/layer1/weight": reshaped(sliced("gates", i), 3, 2)
              for i, task in enumerate("ab")}
    report = check_arrays(VECTORS, weights(), replace(MAPPING, parameters=PARAMETERS | turned), run)
    assert "does npple.oracle.suggest find yours?" in str(report)
    assert "suggest" not in str(check_arrays(VECTORS, weights(), MAPPING,
                                             lambda w, x: {"y": run(w, x)["y"][1:]}))


def test_tensors_that_no_entry_reads_count_by_their_own_names():
    bare = ModuleMapping(PARAMETERS)
    named = lambda w, x: {f"tower/{t}": run(w, x)["y"][:, i]  # noqa: E731
                          for i, t in enumerate("ab")} | {"nonsense": np.ones(1)}
    report = check_arrays(VECTORS, weights(), bare, named)
    assert {row.name for row in report.rows} == {"tower/a", "tower/b"}
    assert report.unknown == ("nonsense",)


def test_gradients_of_intermediates_locate_what_is_stopped():
    """Given for the experts too, where None stands for 0."""
    bare = ModuleMapping(PARAMETERS)

    def seen(w, x):
        y = run(w, x)["y"]
        experts = np.tanh(x @ w["kernel"] + w["offset"]).reshape(len(x), 2, 4)
        return {"tower/a": y[:, 0], "tower/b": y[:, 1],
                "level1/shared/experts": experts.transpose(1, 0, 2)}

    def stopped(w, x, starts):
        inner = {"y": np.stack([starts["tower/a"], starts["tower/b"]], axis=1)}
        return gradients(w, x, inner) | {"level1/shared/experts": None}

    report = check_arrays(VECTORS, weights(), bare, seen, stopped)
    assert report.first_divergence == "grad/level1/shared/experts"


@pytest.mark.parametrize("dtype, told", [("float64", "float64"), ("float32", "float32"),
                                         ("float16", "float16")])
def test_functions_are_given_the_dtype_of_the_weights(dtype, told):
    given = []

    def spy(w, x):
        given.extend([x.dtype, *(each.dtype for each in w.values())])
        return run(w, x)

    report = check_arrays(VECTORS, weights(dtype), MAPPING, spy)
    assert {*given} == {np.dtype(dtype)} and not report.wrong
    assert {row.precision for row in report.rows} == {told}


def test_what_the_functions_spoil_is_their_own_copy():
    def spoiling(w, x):
        made = run(w, x)
        w["kernel"][...] = np.nan
        x[...] = np.nan
        return made

    given = weights()
    assert not check_arrays(VECTORS, given, MAPPING, spoiling).wrong
    assert (given["kernel"] == 1).all()


def test_a_program_that_differs_from_run_to_run_cannot_be_judged():
    rng = np.random.default_rng(0)
    report = check_arrays(VECTORS, weights(), MAPPING,
                          lambda w, x: {"y": run(w, x)["y"] + rng.normal(size=(5, 2))})
    assert report.verdict == "cannot be judged"


@pytest.mark.parametrize("arguments, fault", [
    ({"run": None}, "run: a function is needed, got None"),
    ({"gradients": 3}, "gradients: a function is needed, got 3"),
    ({"run": lambda w, x: run(w, x)["y"]}, "run: a dict of arrays is needed, got an array"),
    ({"run": lambda w, x: {"z": run(w, x)["y"]}},
     "tower/a: made of 'y', which the program does not have; there are z"),
    ({"run": lambda w, x: run(w, x) | {"extra": None}}, "run: extra: .*, of a NoneType"),
    ({"run": lambda w, x: dict(zip("ab", run(w, x)["y"].T, strict=True)),
      "mapping": replace(MAPPING, tensors={})}, r"a \(did you mean tower/a\?\), b"),
    ({"weights": {name: np.ones(shape, int) for name, shape in SHAPES.items()}},
     "experts/layer1/weight: kernel: integers, which hold no parameter"),
    ({"gradients": lambda w, x, s: dict.fromkeys(w)}, "gradients: None for every weight"),
    ({"run": lambda w, x: run(w, x) | {"gates": 1.0}, "gradients": gradients},
     "run: 'gates': also the name of a weight"),
    ({"gradients": lambda w, x, s: (w,)}, "gradients: a dict of arrays is needed, got "),
    ({"gradients": lambda w, x, s: {"kernal": w["kernel"]}}, "gradients: 'kernal': neither a"),
    ({"gradients": lambda w, x, s: {"kernel": w["kernel"].T}},
     r"gradients: kernel: shape \(8, 3\), expected \(3, 8\)"),
    ({"mapping": replace(MAPPING, norms={"n": "l"})}, "mapping: norms: n: .l. is a layer of a mo"),
    ({"mapping": None}, "mapping: a ModuleMapping is needed, got None"),
    ({"weights": {"kernel": object()}}, "weights: kernel: "),
    ({"vectors": MODEL}, "vectors: from make_vectors or load"),
])
def test_what_cannot_be_used_is_told_in_one_line(arguments, fault):
    given = {"vectors": VECTORS, "weights": weights(), "mapping": MAPPING, "run": run} | arguments
    with pytest.raises(npple.InputError, match=fault) as error:
        check_arrays(**given)
    assert "\n" not in str(error.value)


# Weights ----------------------------------------------------------------------------------------

def test_weights_go_in_and_come_out_again():
    given, params = weights(np.float32), MODEL.init(3, np.float32)
    made = into_arrays(given, MODEL, MAPPING, params)
    assert {name: each.dtype for name, each in made.items()} == dict.fromkeys(
        SHAPES, np.dtype("float32"))
    back = from_arrays(made, MODEL, MAPPING)
    assert all((back[name] == params[name]).all() for name in params)
    assert all((each == 1).all() for each in given.values())


class Capsule:
    """An array that speaks DLPack alone."""

    def __init__(self, inner):
        self.inner = inner

    def __dlpack__(self, **options):
        return self.inner.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.inner.__dlpack_device__()


class Plain:
    """An array that speaks `__array__` alone, as a variable of another library."""

    def __init__(self, inner):
        self.inner = inner

    def __array__(self, dtype=None, copy=None):
        return self.inner


@pytest.mark.parametrize("kind", [Capsule, Plain, memoryview,
                                  lambda a: array.array(a.dtype.char, a.tolist())])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whatever_is_an_array_is_judged_by_its_own_dtype(kind, dtype):
    given = {name: each for name, each in VECTORS.expected.items() if name.startswith("tower/")}
    given = {name: kind(each.astype(dtype)) for name, each in given.items()}
    report = oracle.check(VECTORS, given)
    assert report.passed and {row.precision for row in report.rows} == {dtype}


@pytest.mark.parametrize("kind", [Capsule, Plain, memoryview, np.ndarray.tolist])
def test_a_program_may_give_and_be_given_any_kind_of_array(kind):
    given = {name: kind(each) for name, each in weights().items()}
    report = check_arrays(
        VECTORS, given, MAPPING,
        lambda w, x: {"y": kind(run({n: np.asarray(a, np.float64) for n, a in w.items()},
                                    x.astype(np.float64))["y"])},
        lambda w, x, starts: {n: kind(g) for n, g in gradients(
            {n: np.asarray(a, np.float64) for n, a in w.items()}, x, starts).items()})
    assert report.verdict == "passed"


def test_an_array_whose_library_refuses_to_hand_it_over_is_told():
    class Elsewhere(Capsule):
        def cpu(self):
            raise RuntimeError("no data")

    with pytest.raises(npple.InputError, match="run: y: not an array: no data"):
        check_arrays(VECTORS, weights(), MAPPING, lambda w, x: {"y": Elsewhere(run(w, x)["y"])})


def test_bfloat16_of_ml_dtypes_is_known_by_its_name():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    given = {f"tower/{task}": VECTORS.expected[f"tower/{task}"].astype(bfloat16) for task in "ab"}
    for each in (given, {name: Plain(value) for name, value in given.items()}):
        report = oracle.check(VECTORS, each)
        assert not report.wrong and {row.precision for row in report.rows} == {"bfloat16"}
    widened = {name: each.astype(np.float64) for name, each in given.items()}
    assert oracle.check(VECTORS, widened).wrong


# Parts ------------------------------------------------------------------------------------------

def functions(run=run, gradients=None, **more):
    return _Functions(VECTORS, weights(), MAPPING, run, gradients, **more)


def test_an_array_takes_the_kind_of_another():
    array = np.array([1.5, 2.5])
    torch = like(Tensor(np.zeros(1, np.float32)), array)
    assert type(torch) is Tensor and torch.array.dtype == np.float32
    for dtype in ("float16", "float32", "int64"):
        made = like(np.zeros(1, dtype), array)
        assert type(made) is np.ndarray and made.dtype == dtype and made is not array
    plain = like(np.zeros(1), array)
    plain[0] = 7
    assert array[0] == 1.5
    for dtype, told in (("float64", "float64"), ("float16", "float16"), ("int64", "float32")):
        assert like(Plain(np.zeros(1, dtype)), array).dtype == told
    spaced = SimpleNamespace(dtype="real", __array_namespace__=lambda: SimpleNamespace(
        asarray=lambda array, dtype, copy: (array, dtype, copy)))
    assert like(spaced, array) == (array, "real", True) or like(spaced, array)[1:] == ("real", True)


def test_inputs_are_fed_in_the_kind_of_the_weights():
    x, codes = np.array([1.5]), np.array([3])
    assert fed(x, np.zeros(1, np.float32)).dtype == np.float32
    made = fed({"x": x, "c": codes}, np.zeros(1, np.float16))
    assert made["x"].dtype == np.float16 and made["c"].dtype == codes.dtype
    assert made["c"] is not codes
    one, other = fed((x, codes), Tensor(np.zeros(1, np.float32)))
    assert one.array.dtype == np.float32 and other.array.dtype == np.int64


@pytest.mark.parametrize("given, message", [
    ({"kernal": None}, "gradients: 'kernal': neither a weight nor a tensor of run"),
    ({"kernel": np.zeros((8, 3))}, "gradients: kernel: shape (8, 3), expected (3, 8)"),
    ({"kernel": "text"},
     "gradients: kernel: real numbers are needed, got dtype <U4, of a str")])
def test_gradients_that_do_not_fit_are_told_in_full(given, message):
    program = functions(gradients=lambda w, x, starts: given)
    with pytest.raises(npple.InputError) as caught:
        program.gradients(program.run(), {})
    assert str(caught.value) == message


def test_names_that_are_weights_and_tensors_are_told():
    program = functions(run=lambda w, x: dict.fromkeys(w, 1.0), gradients=gradients)
    with pytest.raises(npple.InputError) as caught:
        program.gradients(program.run(), {})
    assert str(caught.value) == (
        "run: 'gates', 'heads', 'kernel', 'offset': also the name of a weight, so its gradient is "
        "ambiguous; give the tensor another name")


def test_no_gradient_is_zeros_of_the_shape_in_single_precision():
    program = functions(gradients=lambda w, x, starts: {"kernel": None, "y": None})
    found = program.gradients(program.run(), {})
    assert {name: (g.shape, g.dtype, g.any()) for name, g in found.items()} == {
        "kernel": ((3, 8), np.float32, False), "y": ((5, 2), np.float32, False)}
    assert functions().gradients({}, {}) == {}


def test_starts_have_the_kind_of_the_tensors():
    seen = {}
    program = functions(gradients=lambda w, x, starts: seen.update(starts) or {})
    program.gradients({"y": np.zeros((5, 2), np.float32)}, {"y": np.ones((5, 2))})
    assert seen["y"].dtype == np.float32 and (seen["y"] == 1).all()


def test_reasons_are_those_of_functions():
    assert functions().reasons({}) == {"gradients": "no function for them was given"}
    assert functions(gradients=gradients).reasons({}) == {}
    assert functions().tracked({"y": 1, "z": 2}) == {"y", "z"}


@pytest.mark.parametrize("one, other, steady", [
    ([4, 1], [4, 1], True), ([4, 1 + 64 * 4 * 2.0**-24], [4, 1], True),
    ([4, 1 + 65 * 4 * 2.0**-24], [4, 1], False), ([4, 1], [4, np.nan], False),
    ([4, np.nan], [4, np.nan], True), ([np.inf, 1], [np.inf, 1], True),
    ([np.inf, 1], [np.inf, 2], False), ([np.inf, 1], [9, 1], False),
    ([np.inf, 1], [-np.inf, 1], False), ([np.nan] * 2, [np.nan] * 2, True),
    ([4, 1], [4], False), ([4, 1], [[4, 1]], False)])
def test_two_runs_agree_up_to_the_order_of_sums(one, other, steady):
    assert _steady(np.array(one), np.array(other), "float32") == steady


def test_what_is_no_number_each_time_fails_and_is_not_called_unsteady():
    report = check_arrays(VECTORS, weights(), MAPPING, lambda w, x: {"y": np.full((5, 2), np.nan)})
    assert report.unsteady == () and report.verdict == "failed"


@pytest.mark.parametrize("expect, reasons", [
    ("outputs", {}), ("forward", {}),
    ("gradients", {"gradients": "no function for them was given"}),
    ("everything", {"gradients": "no function for them was given"})])
def test_reasons_are_told_where_gradients_are_expected(expect, reasons):
    report = check_arrays(VECTORS, weights(), MAPPING, run, expect=expect)
    assert report.reasons == reasons
    assert report.verdict == ("passed" if expect == "outputs" else "passed in part")


def test_an_expectation_that_is_none_and_a_convention_are_handed_on():
    with pytest.raises(npple.InputError, match="^expect: 3, expected one of outputs, forward"):
        check_arrays(VECTORS, weights(), MAPPING, run, expect=3)
    with pytest.raises(npple.InputError, match="^conventions: 'shared-first' changes nothing"):
        check_arrays(VECTORS, weights(), MAPPING, run, conventions=["shared-first"])


def test_tensors_of_another_shape_in_a_second_run_are_told():
    runs = iter([(5, 2), (5, 1)])
    with pytest.raises(npple.InputError, match="^mapping: tensors: tower/b: cannot be made of y"):
        check_arrays(VECTORS, weights(), MAPPING, lambda w, x: {"y": np.zeros(next(runs))})


def test_parameters_and_gradients_have_the_precision_of_the_weights():
    single = weights() | {"kernel": np.ones(SHAPES["kernel"], np.float32)}
    report = check_arrays(VECTORS, single, MAPPING, run, gradients)
    layer = "level1/shared/experts/layer1/weight"
    assert report.precisions[f"params/{layer}"] == "float32"
    assert report.precisions[f"grad/{layer}"] == "float32"
    assert report.precisions["params/tower/a/layer1/bias"] == "float64"
    np.testing.assert_array_equal(report.given[f"params/{layer}"], VECTORS.params[layer])


def test_paths_of_norms_are_for_modules():
    for use in (lambda m: from_arrays(weights(), MODEL, m),
                lambda m: into_arrays(weights(), MODEL, m, MODEL.init(0))):
        with pytest.raises(npple.InputError) as caught:
            use(replace(MAPPING, norms={"n": "l"}))
        assert str(caught.value) == (
            "mapping: norms: n: 'l' is a layer of a module of PyTorch; expected Norm(weight, mean, "
            "variance, eps, ...) of names among the weights")
    with pytest.raises(npple.InputError, match="^weights: a: real numbers are needed"):
        from_arrays({"a": "text"}, MODEL, MAPPING)


# Probabilities ----------------------------------------------------------------------------------

def test_the_gradient_by_a_probability_becomes_that_by_its_logit():
    rng = np.random.default_rng(0)
    z, classes, dz = rng.normal(size=4), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    p, dz = 1 / (1 + np.exp(-z)), dz - dz.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(_logit(p), z, rtol=1e-14)
    np.testing.assert_allclose(_by_probability(z, p) * p * (1 - p), z, rtol=1e-14)
    w = np.exp(classes) / np.exp(classes).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(_logit(w)), w, rtol=1e-14)
    dw = _by_probability(dz, w)
    np.testing.assert_allclose(w * (dw - (w * dw).sum(axis=1, keepdims=True)), dz, rtol=1e-13)


def test_a_probability_that_is_certain_has_a_finite_logit_and_teaches_nothing():
    certain = np.array([0.0, 1.0])
    assert np.isfinite(_logit(certain)).all() and not _by_probability(certain, certain).any()
