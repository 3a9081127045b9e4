"""What torch-rechub 0.9.0 computes: the verdicts of docs/conformance.md."""

import copy

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.adapters import check_module, from_module
from npple.errors import InputError
from peers.frameworks import torch_rechub
from npple.testing import assert_matches
from peers.shown import shown

torch = pytest.importorskip("torch")
pytest.importorskip("torch_rechub", exc_type=ImportError)
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature  # noqa: E402
from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom  # noqa: E402
from torch_rechub.trainers import MTLTrainer  # noqa: E402

TASKS = {"ctr": "binary", "time": "regression"}
TYPES = ["classification", "regression"]
EXPERT, TOWERS = {"dims": [5, 4]}, [{"dims": [3]}, {"dims": [3]}]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def features():
    return [DenseFeature("x", 2), SparseFeature("city", 5, embed_dim=3),
            SparseFeature("job", 4, embed_dim=3)]


def with_sequence(pooling):
    return [*features(), SequenceFeature("tags", 6, embed_dim=3, pooling=pooling, padding_idx=0)]


def ple(shared=1, specific=2, levels=2, columns=None, expert=EXPERT, towers=TOWERS):
    return PLE(columns or features(), TYPES, levels, specific, shared, expert, towers)


def mapping_of(module):
    return torch_rechub(module, TASKS)[1]


@pytest.fixture(scope="module")
def paper():
    return oracle.make_vectors(model(gate_bias=False))


@pytest.fixture(scope="module")
def biased():
    return oracle.make_vectors(model(gate_bias=True))


def model(gate_bias):
    """The configuration of `ple()`."""
    inputs = {"city": (5, 3), "job": (4, 3), "x[0]": "numeric", "x[1]": "numeric"}
    return npple.ple(inputs, TASKS, levels=2, task_experts=2, shared_experts=1,
                     expert_units=(5, 4), tower_units=(3,), gate_bias=gate_bias)


def batch_normalisations(module, gates):
    return [part for path, part in module.named_modules()
            if isinstance(part, torch.nn.BatchNorm1d) and ("gate" in path) == gates]


# The model --------------------------------------------------------------------------------------

CORRECT = {
    "PLE, 1 level": lambda: ple(levels=1),
    "PLE, 3 levels": lambda: ple(2, 1, 3),
    "PLE, no shared experts": lambda: ple(0, 2),
    "PLE, one specific and no shared expert": lambda: ple(0, 1),
    "PLE, towers of different depth": lambda: ple(towers=[{"dims": [3]}, {"dims": []}]),
    "PLE, sigmoid": lambda: ple(expert={"dims": [4], "activation": "sigmoid"}),
    "MMOE": lambda: MMOE(features(), TYPES, 3, EXPERT, TOWERS),
    "MMOE, one expert": lambda: MMOE(features(), TYPES, 1, EXPERT, TOWERS),
    "SharedBottom": lambda: SharedBottom(features(), TYPES, EXPERT, TOWERS),
}


@pytest.mark.parametrize("name", CORRECT)
def test_at_inference_it_is_the_model_with_a_gate_bias_and_all_gradients(name):
    """`pytest -rP` shows the numbers of docs/conformance.md."""
    model, mapping = torch_rechub(CORRECT[name](), TASKS)
    vectors = oracle.make_vectors(model, batch=4)
    for dtype in (torch.float32, torch.float64):
        report = shown(assert_matches(CORRECT[name]().to(dtype).eval(), vectors, mapping))
    compared = {row.name for row in report.rows}
    assert {f"prediction/{task}" for task in TASKS} <= compared
    assert {f"grad[{task}]/{name}" for task in TASKS for name in model.shapes} <= compared


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_sequences_are_bags_in_float32_the_one_precision_in_which_they_run(pooling):
    module = ple(columns=with_sequence(pooling)).eval()
    model, mapping = torch_rechub(module, TASKS)
    assert_matches(module, oracle.make_vectors(model, batch=4), mapping)
    with pytest.raises(InputError, match="Float but found Double"):
        check_module(oracle.make_vectors(model, batch=4), module.double(), mapping)


def test_at_inference_the_gates_bias_is_the_only_difference_to_the_paper(paper, biased):
    module = ple().double().eval()
    assert torch_rechub(module, TASKS)[0] == biased.model
    report = shown(check_module(paper, module, mapping_of(module)))
    assert report.first_divergence == "level1/ctr/gate/logits"
    assert report.diagnosis[0].names == ("gate-bias",) and report.diagnosis[0].convention
    assert_matches(module, paper, mapping_of(module), conventions=["gate-bias"])


def test_in_training_the_logits_of_the_gates_are_batch_normalised(paper):
    """The other normalisations held at inference, this is the one known deviation left."""
    module = ple().double().eval()
    for norm in batch_normalisations(module, gates=True):
        norm.train()
    report = shown(check_module(paper, module, mapping_of(module)))
    assert report.first_divergence == "level1/ctr/gate/logits"
    diagnosis, = report.diagnosis
    assert diagnosis.names == ("gate-batchnorm",)
    assert diagnosis.details == ("with the statistics of the batch",)


def test_in_training_the_layers_of_experts_are_batch_normalised_too(paper):
    module = ple().double().train()
    report = shown(check_module(paper, module, mapping_of(module)))
    assert report.first_divergence == "level1/ctr/experts/layer1"


def test_in_training_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ple().train()({"x": torch.zeros(1, 2), "city": torch.zeros(1), "job": torch.zeros(1)})


def test_models_made_of_the_same_feature_objects_share_their_embeddings():
    columns = features()
    one, other = ple(columns=columns), ple(columns=columns)
    assert one.embedding.embed_dict["city"] is other.embedding.embed_dict["city"]


def test_dense_features_are_cast_to_float32():
    module = ple(columns=[DenseFeature("x", 2)]).double().eval()
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        module({"x": torch.zeros(4, 2, dtype=torch.float64)})


def test_dice_is_refused():
    with pytest.raises(npple.InputError, match="npple has no activation Dice"):
        torch_rechub(ple(expert={"dims": [4], "activation": "dice"}))


def test_tasks_are_numbered_without_names_and_counted_with():
    assert list(torch_rechub(ple())[0].tasks) == ["task1", "task2"]
    with pytest.raises(npple.InputError, match="tasks: 3 names for 2 tasks"):
        torch_rechub(ple(), "abc")


# Training ---------------------------------------------------------------------------------------

@pytest.fixture
def one_step(tmp_path, capsys):
    """A PLE after one step of MTLTrainer as it is by default, and its copy before, after backward.

    The copy's gradients are those of the plain sum of the tasks' mean losses.
    """
    torch.manual_seed(0)
    module = ple()
    x = {"x": torch.randn(16, 2), "city": torch.arange(16) % 5, "job": torch.arange(16) % 4}
    y = torch.stack([torch.arange(16) % 2, torch.randn(16)], dim=1)
    before = copy.deepcopy(module)
    p = before(x)
    loss = torch.nn.functional.binary_cross_entropy(p[:, 0], y[:, 0])
    (loss + torch.nn.functional.mse_loss(p[:, 1], y[:, 1])).backward()
    MTLTrainer(module, TYPES, model_path=str(tmp_path)).train_one_epoch([(x, y)])
    return module, before, x


def arrays(module, of):
    return {name: of(p).detach().numpy() for name, p in module.named_parameters()
            if p.grad is not None}


def test_the_trainer_divides_the_loss_by_the_number_of_tasks(one_step):
    module, before, _ = one_step
    theirs, summed = (arrays(m, lambda p: p.grad) for m in (module, before))
    for name in theirs:
        np.testing.assert_allclose(2 * theirs[name], summed[name], rtol=1e-4, atol=1e-6)


def test_the_trainers_adam_adds_weight_decay_to_the_gradient(one_step):
    module, before, _ = one_step
    start, end = (arrays(m, lambda p: p) for m in (before, module))
    grads = arrays(module, lambda p: p.grad)
    adam = npple.Adam(rate=1e-3)
    with_l2 = {name: g + np.float32(1e-5) * start[name] for name, g in grads.items()}
    ours, _ = adam.step(start, with_l2, adam.init(start))
    decoupled = npple.Adam(rate=1e-3, weight_decay=1e-5)
    other, _ = decoupled.step(start, grads, decoupled.init(start))
    worst = [max(np.abs(made[name] - end[name]).max() for name in end) for made in (ours, other)]
    assert worst[0] < 1e-6 and worst[1] > 1e-4


def test_a_trained_model_can_be_examined_with_npple(one_step):
    """Running statistics and all: predictions and gate weights."""
    module, _, x = one_step
    model, mapping = torch_rechub(module.eval(), TASKS)
    params = from_module(module, model, mapping)
    columns = {"x[0]": x["x"][:, 0].numpy(), "x[1]": x["x"][:, 1].numpy(),
               "city": x["city"].numpy(), "job": x["job"].numpy()}
    trace = model.forward(params, columns)
    theirs = module(x).detach().numpy()
    for i, task in enumerate(TASKS):
        np.testing.assert_allclose(trace.predictions[task], theirs[:, i], rtol=1e-5, atol=1e-6)
    gate = module.cgc_layers[1].gates_specific[0].mlp
    seen = []
    gate.register_forward_hook(lambda part, inputs, output: seen.append(output.detach().numpy()))
    module(x)
    np.testing.assert_allclose(trace["level2/ctr/gate/weights"], seen[0], rtol=1e-5, atol=1e-6)
