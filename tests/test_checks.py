"""What the model refuses: one clear line that names the argument, and nothing is changed."""

import numpy as np
import pytest

import npple
from npple.checks import check_count, check_number, few, named
from npple.archive import replacing
from npple.lab.claims import claims
from npple.learn.census import census_split, read_census
from npple.learn.columns import read_columns
from npple.learn.frames import columns_of
from npple.learn.kuairand import is_kuairand, kuairand_split, read_kuairand
from npple.network import Network
from npple.routing import Experts, Gate, Level, Pass, Source, Table, Tower
from npple.training import Run
from npple.verify.cases import random_model
from strategies import problem

nan, inf = float("nan"), float("inf")
TASKS = {"a": "binary", "b": "regression", "c": "multiclass:3"}
COLUMNS = {"n": "numeric", "c": (4, 2)}


def refuse(call, message):
    """The call raises InputError, in one short line that begins with `message`."""
    with pytest.raises(npple.InputError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(message), text
    assert len(text.splitlines()) == 1 and len(text) < 300


# Building a model -------------------------------------------------------------------------------

@pytest.mark.parametrize(("changes", "message"), [
    ({"tasks": {}}, "tasks: "),
    ({"tasks": None}, "tasks: "),
    ({"tasks": ["a", "b"]}, "tasks: "),
    ({"tasks": {"": "binary"}}, "tasks: "),
    ({"tasks": {"a/b": "binary"}}, "tasks: "),
    ({"tasks": {"a\n": "binary"}}, "tasks: "),
    ({"tasks": {7: "binary"}}, "tasks: "),
    ({"tasks": {"shared": "binary"}}, "tasks: the name 'shared'"),
    ({"tasks": {"a": "poisson"}}, "tasks: 'a' must be 'binary', 'regression' or 'multiclass:K'"),
    ({"tasks": {"a": None}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:1"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:-3"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:x"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:03"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:\u0663"}}, "tasks: 'a' must be"),  # a digit of Arabic
    ({"inputs": 0}, "inputs: "),
    ({"inputs": -3}, "inputs: "),
    ({"inputs": 2.0}, "inputs: "),
    ({"inputs": True}, "inputs: "),
    ({"inputs": None}, "inputs: "),
    ({"inputs": ["n"]}, "inputs: "),
    ({"inputs": {}}, "inputs: "),
    ({"inputs": {"": "numeric"}}, "inputs: a column name"),
    ({"inputs": {1: "numeric"}}, "inputs: a column name"),
    ({"inputs": {"n": "text"}}, "inputs: 'n' must be 'numeric', (vocabulary size, width) or"),
    ({"inputs": {"n": (3,)}}, "inputs: 'n' must be"),
    ({"inputs": {"n": (0, 2)}}, "inputs: 'n': vocabulary size"),
    ({"inputs": {"n": (3, -1)}}, "inputs: 'n': embedding width"),
    ({"inputs": {"n": (3, 2, np.ones(2))}}, "inputs: 'n' must be 'numeric', (vocabulary size, "),
    ({"inputs": {"n": (3, 2, "max")}}, "inputs: 'n' must be 'numeric', (vocabulary size, width)"),
    ({"inputs": {"n": (3, 2, 1)}}, "inputs: 'n' must be"),
    ({"inputs": {"n": (3, 0, "sum")}}, "inputs: 'n': embedding width"),
    ({"inputs": {"n": (3.0, 1)}}, "inputs: 'n': vocabulary size"),
    ({"levels": 0}, "levels: "),
    ({"levels": -1}, "levels: "),
    ({"levels": 1.0}, "levels: "),
    ({"task_experts": -1}, "task_experts: "),
    ({"task_experts": 1.5}, "task_experts: "),
    ({"task_experts": {"a": 1}}, "task_experts: a count for each task"),
    ({"task_experts": {"a": 1, "b": 1, "c": 1, "d": 1}}, "task_experts: a count for each task"),
    ({"task_experts": [1, 2, 3]}, "task_experts: 2 levels"),
    ({"shared_experts": -2}, "shared_experts: "),
    ({"shared_experts": None}, "shared_experts: "),
    ({"shared_experts": [1]}, "shared_experts: 2 levels"),
    ({"task_experts": 0, "shared_experts": 0},
     "task_experts, shared_experts: 'a' has no expert on level 1"),
    ({"expert_units": ()}, "expert_units"),
    ({"expert_units": 64}, "expert_units: "),
    ({"expert_units": (0,)}, "expert_units: "),
    ({"expert_units": (8, -1)}, "expert_units: "),
    ({"expert_units": (8.0,)}, "expert_units: "),
    ({"expert_units": [(8,), (8,), (8,)]}, "expert_units: 2 levels"),
    ({"expert_units": [(8,), 4]}, "expert_units: "),
    ({"tower_units": (0,)}, "tower_units: "),
    ({"tower_units": None}, "tower_units: "),
    ({"gate_units": 3}, "gate_units: "),
    ({"gate_units": ("x",)}, "gate_units: "),
    ({"activation": "swish"}, "level1/a/experts: activation must be one of identity, relu"),
    ({"activation": ["relu"]}, "level1/a/experts: activation must be one of"),
    ({"activation": None}, "level1/a/experts: activation must be one of"),
    ({"activation": np.array(["relu"] * 2)}, "level1/a/experts: activation must be one of"),
    ({"levels": 10 ** 9}, "levels: an integer from 1 to 1000 is needed"),
    ({"shared_experts": 10 ** 9}, "shared_experts: an integer from 0 to 1000000 is needed"),
    ({"expert_units": (10 ** 30,)}, "expert_units: an integer from 1 to 1000000 is needed"),
    ({"inputs": {"n": (10 ** 400, 2)}}, "inputs: 'n': vocabulary size must be a positive integer"),
    ({"inputs": {"n": np.ones(2)}}, "inputs: 'n' must be 'numeric', (vocab"),
    ({"tasks": {"a": "multiclass:1000001"}}, "tasks: 'a' must be"),
    ({"tasks": {"a": "multiclass:" + "9" * 5000}}, "tasks: 'a' must be"),
    ({"gate_bias": 1}, "gate_bias: True or False is needed"),
])
def test_arguments_that_make_no_model_are_refused(changes, message):
    arguments = {"inputs": 3, "tasks": TASKS} | changes
    refuse(lambda: npple.ple(**arguments), message)


@pytest.mark.parametrize("builder, changes, message", [
    (npple.asymmetric_sharing, {"borrows": [("a", "b")]}, "borrows: a dict by task is needed"),
    (npple.asymmetric_sharing, {"borrows": {"a": "b"}}, "borrows: 'a': 'b', expected a list"),
    (npple.asymmetric_sharing, {"borrows": {"a": [{}]}}, "borrows: 'a': [{}], expected a list"),
    (npple.sluice, {"subspaces": 10 ** 6}, "subspaces: an integer from 1 to 1000 is needed"),
    (npple.snr_trans, {"experts": 10 ** 6}, "experts: an integer from 1 to 1000 is needed"),
    (npple.snr_aver, {"l0": 10 ** 400}, "level1/sub1: penalty must be a finite number"),
    (npple.snr_aver, {"gamma": 0.1}, "level1/sub1: limits: beta above 0, gamma below 0 and zeta"),
    (npple.snr_trans, {"zeta": float("nan")}, "level1/sub1: limits: 3 finite numbers are needed"),
    (npple.snr_trans, {"start": (2.0, 1.0)}, "level1/sub1: start: the lower end first is needed"),
    (npple.snr_trans, {"start": 0.5}, "level1/sub1: start: 2 finite numbers are needed"),
    (npple.cross_stitch, {"per": "chanel"}, "per: 'chanel', did you mean 'channel'?"),
    (npple.cross_stitch, {"own": 1.5}, "own must be a finite number of 0 to 1, got 1.5"),
    (npple.sluice, {"last": -0.1}, "last must be a finite number of 0 to 1, got -0.1"),
    (npple.sluice, {"overlap": "all"}, "level1/a/experts: overlap: 'inputs' or 'outputs' is"),
    (npple.asymmetric_sharing, {"pool": "max"}, "pool: 'max'"),
    (npple.ml_mmoe, {"experts": 0}, "experts: an integer from 1 to 1000000 is needed, got 0"),
    (npple.ml_mmoe, {"experts": (2, 2, 2)}, "experts: 2 levels need as many entries"),
    (npple.ple, {"cut": 1}, "cut: True or False is needed, got 1"),
])
def test_options_of_one_architecture_are_checked(builder, changes, message):
    refuse(lambda: builder(3, TASKS, **changes), message)


def test_a_task_without_any_expert_on_a_level_is_refused():
    """Without the cut it could still read the others' experts."""
    counts = {"task_experts": {"a": 1, "b": 0, "c": 1}, "shared_experts": [1, 0]}
    refuse(lambda: npple.ple(3, TASKS, **counts),
           "task_experts, shared_experts: 'b' has no expert on level 2")
    npple.ple(3, TASKS, cut=False, **counts)


@pytest.mark.parametrize("experts", [0, -1, 2.0, None, [2]])
def test_mmoe_names_its_own_argument(experts):
    refuse(lambda: npple.mmoe(3, TASKS, experts=experts), "experts: ")


# Tables made by hand ----------------------------------------------------------------------------

def experts(name="e", reads="input", count=2, units=(3,), activations=("relu",), **options):
    return Experts(name, reads, count, units, activations, **options)


def a_table(groups=(experts(),), fusions=(Gate("r", (Source("e"),), "input"),),
            towers=(Tower("a", "binary", "r", (), ()),), inputs=4):
    return Table(inputs, (Level(groups, fusions),), towers)


@pytest.mark.parametrize(("rows", "message"), [
    ({"groups": (experts(reads="r"),)}, "e: reads 'r', made by no earlier row"),
    ({"groups": (experts(), experts())}, "e: two rows have this name"),
    ({"groups": (experts(name="input"),)}, "input: two rows have this name"),
    ({"groups": (experts(), experts("f", "e"))}, "f: reads 'e', which is no representation"),
    ({"groups": (experts(count=0),)}, "e: count must be a positive integer"),
    ({"groups": (experts(units=(0,)),)}, "e: units must be a positive integer"),
    ({"groups": (experts(units=(3, 3)),)}, "e: 2 layers need as many activations, got 1"),
    ({"groups": (experts(), experts("f", units=(4,), parameters="e"))},
     "f: borrows e/layer1/weight of shape (2, 4, 3), needs (2, 4, 4)"),
    ({"groups": (experts(count=1),)}, "r: a gate over a single expert is a Pass"),
    ({"fusions": (Pass("r", (Source("e"),)),)}, "r: a pass takes exactly one expert, got 2"),
    ({"fusions": (Gate("r", (Source("nobody"),), "input"),)}, "r: reads 'nobody'"),
    ({"fusions": (Gate("r", (Source("input"),), "input"),)}, "r: 'input' is no"),
    ({"fusions": (Gate("r", (Source("e", (0, 2)),), "input"),)}, "r: "),
    ({"fusions": (Gate("r", (Source("e", (0, 0)),), "input"),)}, "r: "),
    ({"fusions": (Gate("r", (Source("e", (0, -1)),), "input"),)}, "r: "),
    ({"fusions": (Gate("r", (Source("e"),), "e"),)}, "r: reads 'e', which is no representation"),
    ({"fusions": (Gate("r", (Source("e"),), "input", (3,)),)}, "r/gate: 1 layers need"),
    ({"groups": (experts(), experts("f", units=(4,))),
      "fusions": (Gate("r", (Source("e"), Source("f")), "input"),)}, "r: "),
    ({"towers": ()}, "tasks: at least one is needed"),
    ({"towers": (Tower("a", "binary", "r", (), ()), Tower("a", "regression", "r", (), ()))},
     "tower/a: two rows have this name"),
    ({"towers": (Tower("a", "binary", "e", (), ()),)}, "tower/a: reads 'e', which is no"),
    ({"towers": (Tower("a", "binary", "tower/a", (), ()),)}, "tower/a: reads 'tower/a', made by"),
    ({"towers": (Tower("", "binary", "r", (), ()),)}, "tasks: "),
    ({"towers": (Tower("a", "count", "r", (), ()),)}, "tasks: 'a' must be"),
    ({"inputs": (("n", "numeric"), ("n", "numeric"))}, "inputs: the column 'n' stands there twice"),
    ({"inputs": ()}, "inputs: at least one column"),
])
def test_rows_that_do_not_fit_together_are_refused(rows, message):
    a_table()
    refuse(lambda: a_table(**rows), message)


def test_a_table_needs_levels():
    refuse(lambda: Table(3, (), (Tower("a", "binary", "input", (), ()),)), "levels: ")


@pytest.mark.parametrize("content", [
    {}, [], None, {"inputs": 3, "levels": [], "towers": []},
    {"inputs": 3, "levels": 7, "towers": []},
    {"inputs": 3, "levels": [{"groups": [{}], "fusions": []}], "towers": []},
    {"inputs": 3, "levels": [{"groups": [], "fusions": [{"fusion": "Mix"}]}], "towers": []},
])
def test_content_that_is_no_table_is_refused(content):
    refuse(lambda: Network.from_dict(content), "")


# Calling a model --------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=["float64", "float32"])
def matrix(request):
    return problem(npple.ple(3, TASKS, expert_units=(4,)), 0, 5, request.param)


@pytest.fixture(scope="module")
def mapping():
    return problem(npple.ple(COLUMNS, TASKS, expert_units=(4,)), 0, 5)


def everything(drawn):
    return [drawn.params, drawn.x if isinstance(drawn.x, dict) else {"x": drawn.x}, drawn.targets,
            drawn.masks]


def refuse_call(drawn, message, **changes):
    """`loss_and_grads`, and what else takes these arguments, refuse them and change nothing."""
    before = [{name: a.copy() for name, a in arrays.items()} for arrays in everything(drawn)]
    changed = drawn._replace(**changes)
    refuse(changed.loss_and_grads, message)
    if "weights" not in changes:
        refuse(lambda: changed.model.task_losses(changed.params, *changed.data), message)
    if changes.keys() <= {"params", "x"}:
        refuse(lambda: changed.model.forward(changed.params, changed.x), message)
    for arrays, copies in zip(everything(drawn), before, strict=True):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, copies[name])


def put(array, at, value):
    """A copy with one entry changed."""
    array = np.array(array)
    array[at] = value
    return array


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x[:, :2], "x: shape (5, 2), expected (batch, 3)"),
    (lambda x: x[0], "x: shape (3,), expected (batch, 3)"),
    (lambda x: x[None], "x: shape (1, 5, 3), expected (batch, 3)"),
    (lambda x: x[:0], "x: no rows"),
    (lambda x: None, "x: shape (), expected (batch, 3)"),
    (lambda x: {"x": x}, "x: shape (), expected (batch, 3)"),
    (lambda x: [[1.0], [2.0, 3.0]], "x: not an array"),
    (lambda x: x.astype(int), "x: dtype int64, expected float"),
    (lambda x: x.astype("float16"), "x: dtype float16, expected float"),
    (lambda x: x.astype("longdouble"), "x: dtype float128, expected float"),
    (lambda x: x.astype(complex), "x: dtype complex128, expected float"),
    (lambda x: x.astype(object), "x: dtype object, expected float"),
    (lambda x: x.astype(str), "x: dtype <U32, expected float"),
    (lambda x: put(x, (3, 1), nan), "x: nan at row 3; features must be finite"),
    (lambda x: put(x, (0, 0), -inf), "x: -inf at row 0; features must be finite"),
])
def test_a_matrix_the_model_cannot_read_is_refused(matrix, change, message):
    refuse_call(matrix, message, x=change(matrix.x))


def test_large_but_finite_features_are_accepted():
    """Though their sum overflows."""
    drawn = problem(npple.shared_bottom(3, {"a": "binary"}), 0, 5)
    params = {name: np.zeros_like(p) for name, p in drawn.params.items()}
    assert drawn.loss_and_grads(params=params, x=np.full((5, 3), 1e308))[0] > 0


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: {"n": x["n"]}, "x: missing columns 'c'"),
    (lambda x: x | {"z": x["n"]}, "x: columns that the model does not read: 'z'"),
    (lambda x: x["n"], "x: a dict of columns is needed, got ndarray"),
    (lambda x: x | {"n": x["n"][:4]}, "x: 'c': shape (5,), expected (4,)"),
    (lambda x: x | {"n": x["n"][:, None]}, "x: 'n': shape (5, 1), expected (5,)"),
    (lambda x: {name: v[:0] for name, v in x.items()}, "x: 'n': no rows"),
    (lambda x: x | {"n": x["c"]}, "x: 'n': dtype int64, expected float64"),
    (lambda x: x | {"n": put(x["n"], 2, nan)}, "x: 'n': nan at row 2; features must be finite"),
    (lambda x: x | {"c": x["n"]}, "x: 'c': dtype float64, expected integer codes"),
    (lambda x: x | {"c": put(x["c"], 1, 4)}, "x: 'c': codes from"),
    (lambda x: x | {"c": put(x["c"], 1, -1)}, "x: 'c': codes from -1"),
])
def test_columns_the_model_cannot_read_are_refused(mapping, change, message):
    refuse_call(mapping, message, x=change(mapping.x))


@pytest.mark.parametrize(("change", "message"), [
    (lambda bags: bags[:, 0], "x: 't': shape (5,), expected (5, longest bag)"),
    (lambda bags: bags[:, :0], "x: 't': shape (5, 0), expected (5, longest bag)"),
    (lambda bags: bags[:3], "x: 't': shape (3, "),
    (lambda bags: bags.astype(float), "x: 't': dtype float64, expected integer codes"),
    (lambda bags: put(bags, (1, 0), 4), "x: 't': codes from -1 to 4, expected -1 to 3 (-1"),
    (lambda bags: put(bags, (1, 0), -2), "x: 't': codes from -2 to"),
])
def test_bags_the_model_cannot_read_are_refused(change, message):
    drawn = problem(npple.cgc({"n": "numeric", "t": (4, 2, "mean")}, TASKS), 0, 5)
    drawn.x["t"][0, 0], drawn.x["t"][1, 0] = -1, 3
    refuse_call(drawn, message, x=drawn.x | {"t": change(drawn.x["t"])})


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: None, "targets: a dict by task is needed, got NoneType"),
    (lambda t: t["a"], "targets: a dict by task is needed, got ndarray"),
    (lambda t: {"a": t["a"]}, "targets: missing 'b', 'c'"),
    (lambda t: t | {"d": t["a"]}, "targets: no such task: 'd'"),
    (lambda t: t | {"a": t["a"][:4]}, "targets: 'a': shape (4,), expected (5,)"),
    (lambda t: t | {"a": t["a"][:, None]}, "targets: 'a': shape (5, 1), expected (5,)"),
    (lambda t: t | {"a": put(t["a"], 1, 2)}, "targets: 'a': 2.0 at row 1, expected 0 or 1"),
    (lambda t: t | {"a": put(t["a"], 4, -1)}, "targets: 'a': -1.0 at row 4, expected 0 or 1"),
    (lambda t: t | {"a": put(t["a"], 0, 0.5)}, "targets: 'a': 0.5 at row 0, expected 0 or 1"),
    (lambda t: t | {"a": put(t["a"], 2, nan)}, "targets: 'a': not finite at row 2"),
    (lambda t: t | {"b": put(t["b"], 3, inf)}, "targets: 'b': not finite at row 3"),
    (lambda t: t | {"c": put(t["c"], 3, 3)},
     "targets: 'c': 3 at row 3, expected a class from 0 to 2"),
    (lambda t: t | {"c": put(t["c"], 3, -1)}, "targets: 'c': -1 at row 3"),
    (lambda t: t | {"c": t["c"] + 0.5}, "targets: 'c': "),
    (lambda t: t | {"a": ["yes"] * 5}, "targets: 'a': dtype <U3, expected real numbers"),
    (lambda t: t | {"b": [None] * 5}, "targets: 'b': dtype object, expected real numbers"),
    (lambda t: t | {"b": t["b"] * 1j}, "targets: 'b': dtype complex64, expected real numbers"),
])
def test_targets_that_are_none_are_refused(matrix, change, message):
    refuse_call(matrix, message, targets=change(matrix.targets), masks=None)


@pytest.mark.parametrize("value", [0.1, 1e300])
def test_targets_that_would_be_rounded_on_the_sly_are_refused(value):
    drawn = problem(npple.cgc(3, {"b": "regression"}), 0, 5, "float32")
    refuse_call(drawn, "targets: 'b': dtype float64 does not fit float32 exactly",
                targets={"b": np.full(5, value)}, masks=None)


@pytest.mark.parametrize(("masks", "message"), [
    (np.ones(5, bool), "masks: a dict by task is needed, got ndarray"),
    ([], "masks: a dict by task is needed, got list"),
    ({"d": np.ones(5, bool)}, "masks: no such task: 'd'"),
    ({"a": np.ones(4, bool)}, "masks: 'a': shape (4,), expected (5,)"),
    ({"a": np.ones((5, 1), bool)}, "masks: 'a': shape (5, 1), expected (5,)"),
    ({"a": np.ones(5)}, "masks: 'a': dtype float64, expected bool"),
    ({"a": np.ones(5, int)}, "masks: 'a': dtype int64, expected bool"),
    ({"a": True}, "masks: 'a': shape (), expected (5,)"),
])
def test_masks_that_do_not_fit_are_refused(matrix, masks, message):
    refuse_call(matrix, message, masks=masks)


@pytest.mark.parametrize(("weights", "message"), [
    ([1, 1, 1], "weights: a dict by task is needed, got list"),
    (1.0, "weights: a dict by task is needed, got float"),
    ({"a": 1.0}, "weights: one for each task is needed"),
    ({"a": 1, "b": 1, "c": 1, "d": 1}, "weights: one for each task is needed"),
    ({"a": -1, "b": 1, "c": 1}, "weights: 'a' must be a finite number of at least 0, got -1"),
    ({"a": nan, "b": 1, "c": 1}, "weights: 'a' must be"),
    ({"a": 1, "b": inf, "c": 1}, "weights: 'b' must be"),
    ({"a": 1, "b": 1, "c": "1"}, "weights: 'c' must be"),
    ({"a": 1, "b": 1, "c": 1j}, "weights: 'c' must be"),
    ({"a": 1, "b": 1, "c": np.complex128(1)}, "weights: 'c' must be"),
    ({"a": 1, "b": 1, "c": np.ones(2)}, "weights: 'c' must be"),
])
def test_weights_that_are_none_are_refused(matrix, weights, message):
    refuse_call(matrix, message, weights=weights)


WEIGHT = "tower/a/layer1/weight"


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: None, "params: a dict of arrays is needed, got NoneType"),
    (lambda p: list(p.values()), "params: a dict of arrays is needed, got list"),
    (lambda p: {}, "params: missing 'level1/a/experts/layer1/bias'"),
    (lambda p: {name: v for name, v in p.items() if name != WEIGHT}, f"params: missing '{WEIGHT}'"),
    (lambda p: p | {"tower/z": p[WEIGHT]}, "params: not of this model: 'tower/z'"),
    (lambda p: p | {WEIGHT: p[WEIGHT].T}, f"params: {WEIGHT}: shape (32, 4), expected (4, 32)"),
    (lambda p: p | {WEIGHT: p[WEIGHT].tolist()}, f"params: {WEIGHT}: an array is needed, got list"),
    (lambda p: p | {WEIGHT: p[WEIGHT].astype("longdouble")}, "params: one dtype is needed, got "),
    (lambda p: {name: v.astype(int) for name, v in p.items()}, "params: "),
    (lambda p: {name: v.astype("float16") for name, v in p.items()}, "params: "),
])
def test_parameters_of_another_model_are_refused(matrix, change, message):
    refuse_call(matrix, message, params=change(matrix.params))


def test_an_unknown_dtype_or_seed_is_refused():
    model = npple.cgc(3, TASKS)
    for dtype in (int, object, "float16", "bfloat16"):
        refuse(lambda dtype=dtype: model.init(dtype=dtype), "dtype: ")
    for seed in (-1, 0.5, "0", None):
        refuse(lambda seed=seed: model.init(seed), "seed: ")


def test_exactly_equal_values_of_another_type_are_accepted(matrix):
    """Nothing is cast unless the values stay the same; lists and integers will do for targets."""
    loss, _ = matrix.loss_and_grads()
    plain = {task: y.tolist() for task, y in matrix.targets.items()}
    plain["b"] = matrix.targets["b"].astype("float32")
    assert matrix.loss_and_grads(targets=plain)[0] == loss
    as_bool = matrix.targets | {"a": matrix.targets["a"].astype(bool)}
    as_bool["c"] = matrix.targets["c"].astype("float32")
    assert matrix.loss_and_grads(targets=as_bool)[0] == loss
    masks = {task: mask.tolist() for task, mask in matrix.masks.items()}
    assert matrix.loss_and_grads(masks=masks)[0] == loss
    weights = {task: np.float32(1) for task in TASKS}
    assert matrix.loss_and_grads(weights=weights)[0] == matrix.loss_and_grads(weights=None)[0]


@pytest.mark.parametrize("call, message", [
    (lambda: npple.gradcheck_function(3, len, {"w": np.ones(2)}), "f: a function is needed, got 3"),
    (lambda: npple.gradcheck_function(len, None, {"w": np.ones(2)}), "grad: a function is needed"),
    (lambda: npple.ranking.score({"a": [0.5]}, {"a": 1.0}, [1.0], f="log"), "f: a function"),
])
def test_what_is_no_function_is_refused(call, message):
    with pytest.raises(npple.InputError, match=message):
        call()


def test_a_gradient_may_be_a_number_where_the_array_has_no_axes():
    x = {"w": np.array(2.0)}
    report = npple.gradcheck_function(lambda p: p["w"] ** 2, lambda p: {"w": 2 * p["w"]}, x)
    assert report.passed and report.checked == 1


@pytest.mark.parametrize("kind", [npple.InputError, npple.FileError, npple.Diverged])
def test_a_message_is_one_line_and_not_endless(kind):
    error = kind("first\nlast " + "9" * 5000 + " end")
    assert str(error).startswith("first last 9") and str(error).endswith("9 end")
    assert len(str(error)) == 1000 and "9 ... 9" in str(error)


def test_of_a_long_name_start_and_end_are_shown():
    assert named("a'b") == "a'b" and named("a\nb") == r"a\nb" and named(3) == "3"
    assert named("x" * 60) == "x" * 60
    assert named("a" * 20 + "b" * 4 + "c" * 37) == "a" * 20 + "..." + "c" * 37


def test_of_many_names_those_are_shown_that_sixty_letters_hold():
    assert few([]) == "" and few(["a"] * 20) == ", ".join("a" * 20)
    assert few(["a"] * 21) == ", ".join("a" * 20) + " and 1 more"
    assert few(["a" * 29, "b" * 29]) == f"{'a' * 29}, {'b' * 29}"
    assert few(["a" * 30, "b" * 29, "c"]) == f"{'a' * 30} and 2 more"
    assert few(["a" * 70, "b"]) == f"{'a' * 20}...{'a' * 37} and 1 more"


@pytest.mark.parametrize("call", [
    lambda span: check_count("n", span), lambda span: check_number("n", span),
    lambda span: npple.cgc(3, TASKS).init(seed=span), lambda span: npple.data.synthetic(span, 2),
    lambda span: npple.ranking.top_k(np.ones(3), span)])
def test_a_span_of_time_is_no_number(call):
    """NumPy's are integers of its own by their class."""
    with pytest.raises(npple.InputError, match="timedelta64"):
        call(np.timedelta64(1, "s"))


class Mute:
    """An object that cannot be printed."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("call", [
    lambda: random_model("ple", Mute()),
    lambda: npple.oracle.make_vectors(npple.cgc(3, TASKS), seed=Mute()),
    lambda: npple.isolation(npple.cgc(3, TASKS)).compare_gradients(Mute(), {}),
    lambda: npple.cgc(3, Mute()),
    lambda: npple.cgc(3, TASKS, gate_bias=Mute())])
def test_what_cannot_be_printed_is_refused_by_its_kind(call):
    with pytest.raises(npple.InputError, match="Mute"):
        call()


class Named:
    """What says that it names a file."""

    def __init__(self, name):
        self.name = name

    def __fspath__(self):
        return self.name


CASE = npple.oracle.make_vectors(npple.mmoe(2, {"a": "binary"}))
PATHS = {  # what takes a path, and reads or writes there
    "load": npple.load, "Run.load": Run.load, "archive.load": lambda path: npple.archive.load(
        path, format="x", versions=[1]), "oracle.load": npple.oracle.load,
    "archive.save": lambda path: npple.archive.save(path, {"a": np.ones(2)}, {}, format="x",
                                                    version=1),
    "replacing": lambda path: replacing(path).__enter__(),
    "vectors": CASE.save, "vectors as JSON": CASE.save_json, "suite": npple.oracle.export_all,
    "results": lambda path: npple.oracle.check(CASE, path),
    "mapping": npple.oracle.load_mapping, "Run.save": Run(CASE.model, npple.Adam(1e-3), 8, 0).save,
    "mapping to write": npple.oracle.ModuleMapping({}, {}).save,
    "columns": read_columns, "census": read_census, "census folder": census_split,
    "KuaiRand": read_kuairand, "KuaiRand folder": kuairand_split, "is it KuaiRand": is_kuairand,
    "frame": columns_of, "fit": lambda path: npple.fit(path, tasks={"a": "binary"}),
    "claims": lambda path: claims("utilization", True, out=path)}


@pytest.mark.parametrize("path", [
    "a\0b", "\ud800", "a/\ud800/b.csv", Named("\ud800"), Named("a\0"), Named(b"a"), Named(3)],
    ids=["NUL", "surrogate", "inner", "named so", "named NUL", "named bytes", "named 3"])
@pytest.mark.parametrize("what", PATHS)
def test_what_can_name_no_file_is_refused(tmp_path, monkeypatch, what, path):
    """By all that take a path, before anything is made there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(npple.InputError, match="expected a path") as caught:
        PATHS[what](path)
    assert len(str(caught.value).splitlines()) == 1 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("path", ["n" * 300, "file/below"])
@pytest.mark.parametrize("what", [name for name in PATHS if name not in (
    "is it KuaiRand", "claims", "suite")])
def test_where_no_file_can_be_is_said_in_one_line(tmp_path, monkeypatch, what, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(npple.FileError) as caught:
        PATHS[what](path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("what", ["claims", "suite"])
def test_where_no_folder_can_be_made_is_said_in_one_line(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path in ("n" * 300, "file/below"):
        with pytest.raises(npple.FileError, match="expected a folder to write to$"):
            PATHS[what](path)
