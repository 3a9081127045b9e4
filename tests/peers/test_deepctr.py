"""What deepctr-torch 0.3.0 computes: the verdicts of docs/conformance.md."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.adapters import check_module, from_module, gradients_from_module, load_module
from peers.frameworks import deepctr_torch
from npple.oracle.rounding import tolerances
from npple.oracle.variant import cast
from npple.oracle.vectors import bundle
from npple.testing import assert_matches
from peers.shown import shown

torch = pytest.importorskip("torch")
with mock.patch("threading.Thread.start"):  # at import it asks the network for a newer version
    pytest.importorskip("deepctr_torch", exc_type=ImportError)
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import MMOE, PLE, SharedBottom

TASKS = {"ctr": "binary", "time": "regression"}
SIZES = {"tower_dnn_hidden_units": (3,), "task_names": tuple(TASKS),
         "task_types": tuple(TASKS.values()), "l2_reg_embedding": 0}
EXPERTS = SIZES | {"expert_dnn_hidden_units": (5, 4)}


def columns():
    return [DenseFeat("x", 2), SparseFeat("city", 5, embedding_dim=3),
            SparseFeat("job", 4, embedding_dim=2)]


def ple(shared=1, specific=2, levels=2, features=None, gate=(), **options):
    return PLE(features or columns(), shared, specific, levels, gate_dnn_hidden_units=gate,
               **EXPERTS | options)


def mmoe(gate=(), **options):
    return MMOE(columns(), num_experts=3, gate_dnn_hidden_units=gate, **EXPERTS | options)


def shared_bottom(**options):
    return SharedBottom(columns(), bottom_dnn_hidden_units=(5, 4), **SIZES | options)


@pytest.fixture(scope="module")
def paper():
    """PLE as in the paper, in the configuration of `ple()`."""
    inputs = {"city": (5, 3), "job": (4, 2), "x[0]": "numeric", "x[1]": "numeric"}
    model = npple.ple(inputs, TASKS, levels=2, task_experts=2, shared_experts=1,
                      expert_units=(5, 4), tower_units=(3,))
    return oracle.make_vectors(model)


def with_sequence(combiner):
    return [*columns(), VarLenSparseFeat(SparseFeat("tags", 6, embedding_dim=2), maxlen=5,
                                         combiner=combiner)]


# The model --------------------------------------------------------------------------------------

CORRECT = {
    "PLE, 1 level": lambda: ple(levels=1),
    "PLE, 3 levels, hidden gate layer": lambda: ple(2, 2, 3, gate=(6,)),
    "PLE, one expert each": lambda: ple(1, 1, expert_dnn_hidden_units=(4,)),
    "PLE, no shared experts": lambda: ple(0, 2),
    "PLE, dense features alone": lambda: ple(features=[DenseFeat("x", 2), DenseFeat("y", 1)]),
    "PLE, linear towers, sigmoid": lambda: ple(tower_dnn_hidden_units=(),
                                               dnn_activation="sigmoid"),
    "MMOE": mmoe,
    "MMOE, hidden gate layer": lambda: mmoe(gate=(6,)),
    "PLE, a sequence summed": lambda: ple(features=with_sequence("sum")),
    "PLE, a sequence averaged": lambda: ple(features=with_sequence("mean")),
    "SharedBottom": shared_bottom,
    "SharedBottom, linear towers": lambda: shared_bottom(tower_dnn_hidden_units=()),
}


@pytest.mark.parametrize("name", CORRECT)
def test_it_is_the_papers_model_with_all_gradients(name):
    """`pytest -rP` shows the numbers of docs/conformance.md."""
    model, mapping = deepctr_torch(CORRECT[name]())
    vectors = oracle.make_vectors(model, batch=4)
    for dtype in (torch.float32, torch.float64):
        report = shown(assert_matches(CORRECT[name]().to(dtype), vectors, mapping))
    compared = {row.name for row in report.rows}
    assert {f"prediction/{task}" for task in TASKS} <= compared
    assert {f"grad[{task}]/{name}" for task in TASKS for name in model.shapes} <= compared


def test_the_model_is_the_papers_ple(paper):
    assert deepctr_torch(ple())[0] == paper.model


def test_its_default_gates_have_a_hidden_layer_which_is_a_convention(paper):
    module = PLE(columns(), 1, 2, 2, **EXPERTS).double()
    assert module.gate_dnn_hidden_units == (64,)
    report = shown(check_module(paper, module, deepctr_torch(module)[1]))
    assert report.first_divergence == "level1/ctr/gate/logits"
    assert report.diagnosis[0].names == ("gate-hidden",) and report.diagnosis[0].convention
    assert_matches(module, paper, deepctr_torch(module)[1], conventions=["gate-hidden"])


def test_the_number_of_shared_experts_it_makes_is_that_of_the_specific_ones():
    assert [len(level[0]) for level in ple(shared=1, specific=3).shared_experts] == [3, 3]


def test_more_shared_than_specific_experts_cannot_run():
    module = ple(shared=3, specific=2)
    with pytest.raises(IndexError):
        module(torch.zeros(4, 4))
    with pytest.raises(npple.InputError, match="shared_expert_num=3, but 2 were made"):
        deepctr_torch(module)


def test_with_fewer_shared_than_specific_experts_the_rest_is_idle():
    module = ple(shared=1, specific=3).double()
    model, mapping = deepctr_torch(module)
    assert_matches(module, model, mapping, batch=4)
    module(torch.zeros(4, 4).double()).sum().backward()
    idle = {name for name, p in module.named_parameters() if p.grad is None}
    assert idle == {f"shared_experts.{level}.0.{k}.linears.{i}.{kind}" for level in (0, 1)
                    for k in (1, 2) for i in (0, 1) for kind in ("weight", "bias")} | {
        "shared_gate_dnn_final_layer.1.weight"}  # the last level's shared gate: run, not used


def test_with_batch_normalisation_it_is_the_papers_at_inference_only(paper):
    module = ple(dnn_use_bn=True).double()
    mapping = deepctr_torch(module)[1]
    assert_matches(module.eval(), paper, mapping)
    report = shown(check_module(paper, module.train(), mapping))
    assert report.first_divergence == "level1/ctr/experts/layer1"


@pytest.mark.parametrize("activation", ["prelu", "dice"])
def test_activations_with_parameters_of_their_own_are_refused(activation):
    with pytest.raises(npple.InputError, match="npple has no activation"):
        deepctr_torch(ple(dnn_activation=activation))


# Training ---------------------------------------------------------------------------------------

def unweighted(vectors):
    """The vectors without masks and task weights, which `fit` does not have."""
    case = replace(cast(vectors.case, np.float64), masks=dict.fromkeys(TASKS),
                   weights=dict.fromkeys(TASKS, 1.0))
    return bundle(vectors.variant, case, tolerances(vectors.variant, case), vectors.notes)


def batch(vectors):
    """x and y as `fit` takes them."""
    x = vectors.inputs
    x = {"x": np.stack([x["x[0]"], x["x[1]"]], axis=1), "city": x["city"], "job": x["job"]}
    return x, np.stack([vectors.targets[task] for task in TASKS], axis=1).astype(np.float64)


def fit(module, vectors, optimizer, **options):
    model, mapping = deepctr_torch(module)
    load_module(module, model, mapping, vectors.params)
    module.compile(optimizer(module.parameters()), loss=["binary_crossentropy", "mse"])
    x, y = batch(vectors)
    module.fit(x, y, batch_size=len(y), epochs=1, verbose=0, **options)
    return model, mapping


def test_fit_sums_the_loss_over_the_batch(paper):
    vectors, module = unweighted(paper), ple()
    model, mapping = fit(module, vectors, lambda p: torch.optim.SGD(p, lr=0.0))
    grads = gradients_from_module(module, model, mapping)
    report = shown(oracle.check(vectors, {f"grad/{name}": g for name, g in grads.items()}))
    assert not report.passed
    assert [diagnosis.names for diagnosis in report.diagnosis] == [("loss-sum",)]


def test_a_trained_model_can_be_examined_with_npple(paper):
    module = ple()
    model, mapping = fit(module, paper, lambda p: torch.optim.SGD(p, lr=0.01))
    params = from_module(module, model, mapping)
    assert any((params[name] != paper.params[name]).any() for name in params)
    x, _ = batch(paper)
    theirs = module.predict(x, batch_size=256)
    columns = {name: column.astype(np.float32) if column.dtype.kind == "f" else column
               for name, column in paper.inputs.items()}
    trace = model.forward(params, columns)
    for i, task in enumerate(TASKS):
        np.testing.assert_allclose(trace.predictions[task], theirs[:, i], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace["level2/ctr/gate/weights"].sum(axis=1), 1, rtol=1e-6)
