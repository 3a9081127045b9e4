"""The adapters on real PyTorch modules: weights in and out, tensors, gradients by autograd."""

import copy
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle import (ModuleMapping, check_module, from_module, gradients_from_module, linear,
                          load_module, moved, stacked)
from npple.testing import assert_matches

torch = pytest.importorskip("torch")

from peers import torch_models  # noqa: E402  (it imports torch)

INPUTS = {"age": "numeric", "city": (5, 3)}
TASKS = {"vtr": "binary", "vcr": "regression", "shr": "multiclass:3"}
COMMON = {"inputs": INPUTS, "tasks": TASKS, "tower_units": (4,), "activation": "relu"}
GATE = {"gate_units": (3,), "gate_bias": True}
COUNTS = [{"vtr": 1, "vcr": 2, "shr": 3}, {"vtr": 2, "vcr": 1, "shr": 1}]
DEEP = {"levels": 2, "task_experts": COUNTS, "shared_experts": [2, 1],
        "expert_units": [(6, 5), (4,)]}
KWARGS = {
    "single_task": COMMON | {"expert_units": (6, 5)},
    "shared_bottom": COMMON | {"expert_units": (6, 5)},
    "mmoe": COMMON | GATE | {"expert_units": (6, 5), "experts": 3},
    "cgc": COMMON | GATE | {"expert_units": (6, 5), "task_experts": COUNTS[:1],
                            "shared_experts": [2]},
    "ple": COMMON | GATE | DEEP,
    "ml_mmoe": COMMON | GATE | {"levels": 2, "experts": [3, 2], "expert_units": [(6, 5), (4,)]},
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def peer(name):
    """A module of torch_models, the model it is, and the mapping between them."""
    module = torch_models.MODELS[name](**KWARGS[name])
    model = npple.ARCHITECTURES[name](**KWARGS[name])
    paths = {id(part): path for path, part in module.named_modules()}
    parameters, groups = {"embedding/city": "embeddings.city.weight"}, {}
    for block, number, mlp in module.mlps():
        groups.setdefault(block, []).append((number, mlp))
    for block, members in groups.items():
        for i, layers in enumerate(zip(*(mlp.layers for _, mlp in members)), start=1):
            where = [paths[id(layer)] for layer in layers]
            parameters |= linear(f"{block}/layer{i}",
                                 where[0] if members[0][0] is None else where)
    tensors = {f"{block}": stacked(*(paths[id(mlp)] for _, mlp in members))
               for block, members in groups.items() if block.endswith("experts")}
    tensors |= {f"tower/{task}": f"return[{task}]" for task in TASKS}
    idle = ("levels.1.gates.shared.*",)  # made for every level but the last
    return module, model, ModuleMapping(parameters, tensors, idle, feed=dict)


@pytest.mark.parametrize("name", KWARGS)
def test_a_correct_module_passes_with_all_gradients(name):
    module, model, mapping = peer(name)
    report = assert_matches(module.double(), model, mapping)
    compared = {row.name for row in report.rows}
    assert {f"tower/{task}" for task in TASKS} <= compared
    for kind in ("grad", *(f"grad[{task}]" for task in TASKS)):
        assert {f"{kind}/{parameter}" for parameter in model.shapes} <= compared


@pytest.fixture(scope="module")
def ple():
    return oracle.make_vectors(peer("ple")[1], seed=1)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_module_is_judged_by_its_precision(ple, dtype):
    module, _, mapping = peer("ple")
    report = assert_matches(module.to(getattr(torch, dtype)), ple, mapping)
    assert report.precision == dtype


def test_the_module_is_left_as_it_was(ple):
    module, _, mapping = peer("ple")
    before = {name: array.clone() for name, array in module.state_dict().items()}
    check_module(ple, module, mapping)
    assert all(torch.equal(before[name], array) for name, array in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


def test_trained_weights_come_out_and_predict_the_same():
    """From a module that was trained, and from another into which they were loaded."""
    module, model, mapping = peer("ple")
    module.double()
    x = {"age": torch.linspace(-1, 1, 10, dtype=torch.float64), "city": torch.arange(10) % 5}
    for _ in range(5):
        sum((z - 1).pow(2).mean() for z in module(x).values()).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.05 * (0 if parameter.grad is None else parameter.grad)
                parameter.grad = None
    params = from_module(module, model, mapping)
    trace = model.forward(params, {name: column.numpy() for name, column in x.items()})
    for task, z in module(x).items():
        np.testing.assert_allclose(trace.outputs[task], z.detach().numpy(), rtol=1e-12, atol=1e-12)
    other = peer("ple")[0].double()
    load_module(other, model, mapping, params)
    assert all(torch.equal(z, other(x)[task]) for task, z in module(x).items())


def test_gradients_of_a_loss_of_ones_own_come_out_by_name(ple):
    module, model, mapping = peer("ple")
    load_module(module.double(), model, mapping, ple.params)
    x = {name: torch.from_numpy(column) for name, column in ple.inputs.items()}
    targets = {task: torch.from_numpy(y) for task, y in ple.targets.items()}
    targets["vtr"] = targets["vtr"].double()
    masks = {task: torch.from_numpy(mask) for task, mask in ple.masks.items()}
    loss, _ = torch_models.joint_loss(module, module(x), targets, masks, ple.weights)
    loss.backward()
    grads = gradients_from_module(module, model, mapping)
    report = oracle.check(ple, {f"grad/{name}": g for name, g in grads.items()})
    assert report.verdict == "passed in part"  # no outputs were handed in
    assert len(report.rows) == len(model.shapes)


def test_experts_in_another_order_fail_at_the_experts(ple):
    """The mapping says which expert is which: a wrong one is a wrong tensor, not an error."""
    module, _, mapping = peer("ple")
    tensors = mapping.tensors | {"level1/vcr/experts": stacked("levels.0.own.vcr.1",
                                                               "levels.0.own.vcr.0")}
    report = check_module(ple, module.double(), ModuleMapping(
        mapping.parameters, tensors, mapping.idle, feed=dict))
    assert report.first_divergence == "level1/vcr/experts"


@pytest.mark.parametrize("source", ["nowhere", "return[cmr]", "towers.vtr:input#2"])
def test_a_part_that_did_not_run_is_told(ple, source):
    module, _, mapping = peer("ple")
    mapping = ModuleMapping(mapping.parameters, mapping.tensors | {"level1/vtr": source},
                            mapping.idle, feed=dict)
    with pytest.raises(npple.InputError) as error:
        check_module(ple, module, mapping)
    assert source in str(error.value)


def test_a_tensor_that_cannot_be_made_of_the_modules_is_told(ple):
    module, _, mapping = peer("ple")
    mapping = ModuleMapping(mapping.parameters, {"tower/vtr": moved(lambda y: y[:, 3],
                                                                    "return[vtr]")},
                            mapping.idle, feed=dict)
    with pytest.raises(npple.InputError, match="tensors: tower/vtr: cannot be made of"):
        check_module(ple, module, mapping)


def test_a_module_that_keeps_tensors_of_an_earlier_run_is_told():
    module = Stacked()
    module.kept = module(torch.ones(2, 4), torch.ones(1))
    with pytest.raises(npple.InputError, match="module: cannot be copied"):
        check_module(oracle.make_vectors(CGC, batch=1), module, STACKED)


# A module that keeps all experts in one array, and cuts gradients where it should not -------------

class Stacked(torch.nn.Module):
    """CGC with one kernel for all experts, gates in a list, one head for both tasks."""

    def __init__(self, detach="", gate_bias=False):
        super().__init__()
        self.detach = detach
        self.offset = torch.nn.Parameter(torch.randn(2, 4)) if gate_bias else [0, 0]
        self.kernel, self.bias = (torch.nn.Parameter(torch.zeros(s)) for s in ((6, 4, 5), (6, 5)))
        self.gates = torch.nn.ParameterList([torch.zeros(4, 4) for _ in range(2)])
        self.head, self.end = (torch.nn.Parameter(torch.zeros(s)) for s in ((2, 5), (2,)))

    def forward(self, x, scale):
        experts = torch.relu(torch.einsum("bi,eio->ebo", x, self.kernel) + self.bias[:, None])
        outputs = []
        for task, gate in enumerate(self.gates):
            weights = torch.softmax(x @ gate + self.offset[task], dim=1)
            if self.detach == "gate":
                weights = weights.detach()
            own = experts[[2 * task, 2 * task + 1, 4, 5]]
            mixed = torch.einsum("be,ebo->bo", weights, own)
            outputs.append((mixed @ self.head[task] + self.end[task]) * scale)
        return torch.stack(outputs, dim=1)


CGC = npple.cgc(4, {"a": "binary", "b": "regression"}, expert_units=(5,), tower_units=())
BANK = {"a": slice(0, 2), "b": slice(2, 4), "shared": slice(4, 6)}
STACKED = ModuleMapping(
    {f"level1/{name}/experts/layer1/weight": moved(lambda k, at=at: k[at], "kernel")
     for name, at in BANK.items()}
    | {f"level1/{name}/experts/layer1/bias": moved(lambda b, at=at: b[at], "bias")
       for name, at in BANK.items()}
    | {f"level1/{task}/gate/layer1/weight": f"gates.{i}" for i, task in enumerate("ab")}
    | {f"tower/{task}/layer1/weight": moved(lambda h, i=i: h[i][:, None], "head")
       for i, task in enumerate("ab")}
    | {f"tower/{task}/layer1/bias": moved(lambda e, i=i: e[i:i + 1], "end")
       for i, task in enumerate("ab")},
    {f"tower/{task}": moved(lambda y, i=i: y[:, i], "return") for i, task in enumerate("ab")},
    feed=lambda x: (x, np.ones(1)))


@pytest.fixture(scope="module")
def cgc():
    return oracle.make_vectors(CGC)


def test_one_array_for_all_experts_and_two_arguments(cgc):
    report = assert_matches(Stacked().double(), cgc, STACKED)
    assert "grad[a]/level1/b/experts/layer1/weight" in {row.name for row in report.rows}


def test_a_gradient_that_is_stopped_is_found_though_all_outputs_are_right(cgc):
    report = check_module(cgc, Stacked("gate").double(), STACKED)
    assert report.first_divergence == "grad/level1/b/gate/layer1/weight"
    assert report.diagnosis[0].names == ("stop-gate",)
    with pytest.raises(AssertionError, match="stop-gate"):
        assert_matches(Stacked("gate").double(), cgc, STACKED)


def test_parameters_of_the_modules_own_are_told_to_the_check(cgc):
    module = Stacked(gate_bias=True).double()
    entries = {f"level1/{task}/gate/layer1/bias": moved(lambda o, i=i: o[i], "offset")
               for i, task in enumerate("ab")}
    mapping = ModuleMapping(STACKED.parameters | entries, STACKED.tensors, own=("*/gate/*",),
                            feed=STACKED.feed)
    report = check_module(cgc, module, mapping)
    assert report.diagnosis[0].names == ("gate-bias",)


def test_without_gradients_the_outputs_alone_are_compared(cgc):
    with torch.no_grad():
        report = check_module(cgc, Stacked().double(), STACKED)
    assert report.verdict == "passed in part" and not report.faults
    assert {row.name for row in report.rows} == {"tower/a", "tower/b"}


# Batch normalisation ----------------------------------------------------------------------------

class Normalised(torch.nn.Module):
    """A shared bottom with a batch normalisation after its one layer."""

    def __init__(self, activation=torch.relu, after=False):
        super().__init__()
        self.bottom, self.norm = torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5)
        self.towers = torch.nn.ModuleList(torch.nn.Linear(5, 1) for _ in range(2))
        self.activation, self.after = activation, after

    def forward(self, x):
        h = self.bottom(x)
        h = self.norm(self.activation(h)) if self.after else self.activation(self.norm(h))
        return [tower(h)[:, 0] for tower in self.towers]


BOTTOM = npple.shared_bottom(4, {"a": "binary", "b": "regression"}, expert_units=(5,),
                             tower_units=())
NORMALISED = ModuleMapping(
    linear("level1/shared/experts/layer1", ["bottom"]) | linear("tower/a/layer1", "towers.0")
    | linear("tower/b/layer1", "towers.1"),
    {"tower/a": "return[0]", "tower/b": "return[1]"}, norms={"norm": "bottom"})


def test_a_normalisation_at_inference_is_part_of_the_layer_before_it():
    module = Normalised().double()
    for _ in range(3):
        module(torch.randn(16, 4).double() * 2 + 1)  # running statistics move
    with torch.no_grad():
        module.norm.weight.uniform_(0.5, 2)
        module.norm.bias.uniform_(-1, 1)
    x = torch.randn(6, 4).double()
    params = from_module(module, BOTTOM, NORMALISED)
    outputs = BOTTOM.forward(params, x.numpy()).outputs
    for task, z in zip("ab", module.eval()(x), strict=True):
        np.testing.assert_allclose(outputs[task], z.detach().numpy(), rtol=1e-12)
    again = copy.deepcopy(module)
    load_module(again, BOTTOM, NORMALISED, params)  # the normalisation becomes the identity
    for z, same in zip(module(x), again(x), strict=True):
        torch.testing.assert_close(z, same, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softplus"])
def test_a_normalisation_after_the_activation_is_not_folded_unseen(activation, dtype):
    model = npple.shared_bottom(4, dict(BOTTOM.tasks), expert_units=(5,), tower_units=(),
                                activation=activation)
    function = getattr(torch.nn.functional, activation)
    for after in (False, True):
        module = Normalised(function, after).to(getattr(torch, dtype)).eval()
        report = check_module(oracle.make_vectors(model), module, NORMALISED)
        assert report.verdict == ("failed" if after else "passed"), report


class Bare(Normalised):
    """The layer has no bias, or the normalisation no scale and no shift."""

    def __init__(self, bias, activation=torch.relu, after=False):
        super().__init__(activation, after)
        self.bottom = torch.nn.Linear(4, 5, bias=bias)
        self.norm = torch.nn.BatchNorm1d(5, affine=not bias)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_or_a_normalisation_may_lack_what_the_other_has(bias):
    end = {} if bias else {"level1/shared/experts/layer1/bias": stacked("norm.bias")}
    mapping = replace(NORMALISED, parameters=NORMALISED.parameters | end)
    for after in (False, True):
        module = Bare(bias, after=after).double().eval()
        report = check_module(oracle.make_vectors(BOTTOM), module, mapping)
        assert report.verdict == ("failed" if after else "passed"), report


def test_gradients_of_layers_with_normalisations_as_they_are_come_out():
    """Those of the folded layer, which has to move more than the one before a steep norm."""
    module = Normalised().double()
    module(torch.randn(16, 4).double() * 2 + 1)
    with torch.no_grad():
        module.norm.weight.uniform_(0.5, 2)
    x = torch.randn(6, 4).double()
    sum(z.sum() for z in module.eval()(x)).backward()
    grads = gradients_from_module(module, BOTTOM, NORMALISED)
    params = from_module(module, BOTTOM, NORMALISED)
    step = {name: 1e-6 * np.random.default_rng(0).normal(size=p.shape)
            for name, p in params.items()}
    up, down = (sum(z.sum() for z in BOTTOM.forward(
        {name: p + sign * step[name] for name, p in params.items()}, x.numpy()).outputs.values())
        for sign in (1, -1))
    assert (up - down) / 2 == pytest.approx(sum((grads[name] * step[name]).sum() for name in step),
                                            rel=1e-6)


@pytest.mark.parametrize("norms, fault", [
    ({"nowhere": "bottom"}, "norms: nowhere: no part of the module"),
    ({"norm": "nowhere"}, "norms: nowhere: no part of the module"),
    ({"bottom": "bottom"}, "norms: bottom: a Linear without running statistics"),
])
def test_a_normalisation_that_cannot_be_folded_is_told(norms, fault):
    with pytest.raises(npple.InputError, match=fault):
        check_module(oracle.make_vectors(BOTTOM), Normalised(), replace(NORMALISED, norms=norms))


def test_a_normalisation_in_training_is_a_deviation_and_at_inference_none():
    module = Normalised().double()
    assert not check_module(oracle.make_vectors(BOTTOM), module, NORMALISED).passed
    assert_matches(module.eval(), BOTTOM, NORMALISED)


# What stands in the way of gradients ------------------------------------------------------------

class Detached(Stacked):
    """The outputs are cut from the graph."""

    def forward(self, *inputs):
        return super().forward(*inputs).detach()


def test_outputs_that_are_detached_are_no_full_pass_and_the_reason_is_told(cgc):
    report = check_module(cgc, Detached().double(), STACKED)
    assert report.verdict == "passed in part"
    assert "detached" in report.reasons["gradients"]


def test_a_task_whose_output_alone_is_detached_fails_by_its_gradients(cgc):
    class OneDetached(Stacked):
        def forward(self, *inputs):
            made = super().forward(*inputs)
            keep = torch.tensor([1.0, 0.0], dtype=made.dtype)
            keep = keep[:, None] if made.shape[0] == 2 else keep
            return keep * made + (1 - keep) * made.detach()

    report = check_module(cgc, OneDetached().double(), STACKED)
    assert report.verdict == "failed"
    assert any(name.startswith("grad[b]/") for name in report.wrong)
    assert not any(name.startswith("grad[a]/") for name in report.wrong)


def test_frozen_parameters_are_named(cgc):
    module = Stacked().double()
    next(iter(module.parameters())).requires_grad_(False)
    assert "frozen parameters" in check_module(cgc, module, STACKED).reasons


def test_a_module_that_differs_from_run_to_run_cannot_be_judged(cgc):
    class Dropping(Stacked):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, *inputs):
            return super().forward(*(self.drop(x) if x.is_floating_point() else x for x in inputs))

    report = check_module(cgc, Dropping().double(), STACKED)
    assert report.verdict == "cannot be judged" and "dropout" in report.reasons
