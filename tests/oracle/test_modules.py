"""`check_module` and all that it asks of a module, on a stand-in for PyTorch with its autograd."""

import functools

import numpy as np
import pytest
from torchlike import BatchNorm, MMoE, Module, Tensor, mixture, parameter, softmax

import npple
from npple import InputError, oracle
from npple.oracle.adapters import (check_module, from_module, gradients_from_module, load_module)
from npple.oracle.mappings import ModuleMapping, linear, moved, sliced, stacked
from npple.oracle.modules import copied, elements, folded_parameters, observed, opened

MODEL = npple.mmoe(3, {"a": "binary", "b": "regression"}, experts=2, expert_units=(4,),
                   tower_units=())
PARAMETERS = (linear("level1/shared/experts/layer1", ["experts.0.layer", "experts.1.layer"])
              | {f"level1/{task}/gate/layer1/weight": moved(np.transpose, f"gates.{i}.weight")
                 for i, task in enumerate("ab")}
              | linear("tower/a/layer1", "towers.0") | linear("tower/b/layer1", "towers.1"))
OUTPUTS = {f"tower/{task}": sliced(f"return[{i}]", None, 0) for i, task in enumerate("ab")}
MAPPING = ModuleMapping(PARAMETERS, OUTPUTS | {
    "level1/shared/experts": stacked("experts.0", "experts.1"), "level1/a": "towers.0:input",
    "level1/b/gate/logits": "gates.1"})
NORMS = ModuleMapping(PARAMETERS, OUTPUTS,
                      norms={f"experts.{i}.norm": f"experts.{i}.layer" for i in (0, 1)})


@functools.cache
def vectors():
    return oracle.make_vectors(MODEL, batch=6)


def right(**options):
    return MMoE(**options).eval()


# Right modules ----------------------------------------------------------------------------------

def test_a_right_module_passes_with_the_gradients_of_all_that_is_mapped():
    report = check_module(vectors(), right(), MAPPING)
    assert report.verdict == "passed" and report.reasons == {} and report.conventions == ()
    tensors = {*MAPPING.tensors, "input"}
    with_gradients = tensors - {"level1/b/gate/logits"} | {*MODEL.shapes}
    assert {row.name for row in report.rows} == tensors | {
        f"{kind}/{name}" for kind in ("grad", "grad[a]", "grad[b]") for name in with_gradients}
    assert {row.precision for row in report.rows} == {"float64"}


def test_the_parameters_checked_are_the_vectors():
    report = check_module(vectors(), right(), MAPPING)
    for name, p in vectors().params.items():
        np.testing.assert_array_equal(report.given[f"params/{name}"], p)


def test_the_module_stays_as_it_is():
    module = right(seed=3)
    before = {name: p.array.copy() for name, p in module.named_parameters()}
    check_module(vectors(), module, MAPPING)
    for name, p in module.named_parameters():
        np.testing.assert_array_equal(p.array, before[name])
        assert p.grad is None
    assert not any(hasattr(part, "hook") for _, part in module.named_modules())


def test_a_module_is_judged_in_its_own_precision():
    report = check_module(vectors(), right(dtype=np.float32), MAPPING)
    assert report.passed and {row.precision for row in report.rows} == {"float32"}


def test_conventions_are_declared():
    with pytest.raises(InputError, match="^conventions: 'shared-first' changes nothing"):
        check_module(vectors(), right(), MAPPING, conventions=["shared-first"])


def test_an_input_that_a_feed_makes_has_no_gradient():
    fed = ModuleMapping(PARAMETERS, OUTPUTS, feed=lambda x: 1 * x)
    report = check_module(vectors(), right(), fed)
    assert report.passed and not any(row.name.endswith("input") for row in report.rows)


def test_an_input_that_is_mapped_is_what_the_mapping_says():
    named = ModuleMapping(PARAMETERS, OUTPUTS | {"input": "gates.0:input"})
    report = check_module(vectors(), right(), named)
    assert report.passed and "input" in {row.name for row in report.rows}


# What is wrong ----------------------------------------------------------------------------------

def test_a_wrong_gradient_is_located():
    class Halved(MMoE):
        def forward(self, x):
            one, other = super().forward(x)
            return one, Tensor(other.array, parents=[(other, lambda dy: dy / 2)])

    report = check_module(vectors(), Halved().eval(), MAPPING)
    assert report.verdict == "failed"
    assert report.first_divergence == "grad/tower/b/layer1/bias"


@pytest.mark.parametrize("place, verdict", [("before", "passed"), ("after", "failed")])
def test_a_folded_norm_stands_before_the_activation(place, verdict):
    assert check_module(vectors(), right(norm=place), NORMS).verdict == verdict


def test_a_part_that_did_not_run_is_told():
    mapping = ModuleMapping(PARAMETERS, OUTPUTS | {"level1/a": "fusion", "level1/b": "gates.0#2"})
    with pytest.raises(InputError) as caught:
        check_module(vectors(), right(), mapping)
    assert str(caught.value) == ("mapping: tensors: fusion, gates.0#2: the module has no such part"
                                 ", or it did not run")


@pytest.mark.parametrize("vectors_of, module, mapping, message", [
    (lambda: 3, right, MAPPING, "vectors: from make_vectors or load, got int"),
    (vectors, lambda: 3, MAPPING, "module: a torch.nn.Module is needed, got 3"),
    (vectors, lambda: MMoE, MAPPING, "module: a torch.nn.Module is needed, got <class "),
    (vectors, right, None, "mapping: a ModuleMapping is needed, got None")])
def test_what_is_no_module_is_refused(vectors_of, module, mapping, message):
    with pytest.raises(InputError) as caught:
        check_module(vectors_of(), module(), mapping)
    assert str(caught.value).startswith(message)


def test_a_parameter_that_is_no_array_is_named():
    module = right()
    module.towers[0].bias = Tensor(np.array(["text"]))
    with pytest.raises(InputError, match="^module: towers.0.bias: real numbers are needed"):
        check_module(vectors(), module, MAPPING)


# Reasons ----------------------------------------------------------------------------------------

def test_active_dropout_is_told_with_its_first_places():
    module = MMoE()
    report = check_module(vectors(), module, MAPPING)
    assert report.reasons == {"dropout": "active in experts.0.drop, experts.1.drop: call .eval() "
                                         "before the check"}
    for i in (0, 1):
        module.gates[i].drop = module.experts[0].drop.__class__()
        module.gates[i].more = module.experts[0].drop.__class__()
    assert "experts.1.drop, gates.0.drop, gates.0.more and 2 more: call" in check_module(
        vectors(), module, MAPPING).reasons["dropout"]


def test_a_part_that_knows_no_training_is_in_none():
    class Bare(Module):
        @property
        def training(self):
            raise AttributeError("training")

    module = right()
    module.extra = Bare()
    assert check_module(vectors(), module, MAPPING).reasons == {}


def test_batch_statistics_are_told():
    module = MMoE(norm="before").eval()
    for expert in module.experts:
        expert.norm.training = True
    report = check_module(vectors(), module, NORMS)
    assert report.reasons == {"batch statistics": (
        "in use in experts.0.norm, experts.1.norm: call .eval() to check the model at inference")}
    module.gates[0].extra, module.gates[1].extra = (BatchNorm(2, np.random.default_rng(0))
                                                    for _ in range(2))
    idle = ModuleMapping(PARAMETERS, OUTPUTS, norms=NORMS.norms, idle=("gates.*.extra.*",))
    assert check_module(vectors(), module, idle).reasons["batch statistics"].startswith(
        "in use in experts.0.norm, experts.1.norm, gates.0.extra, gates.1.extra: ")


@pytest.mark.parametrize("count, told", [
    (2, "gates.0.weight, gates.1.weight"), (3, "gates.0.weight, gates.1.weight, towers.0.weight"),
    (5, "gates.0.weight, gates.1.weight, towers.0.weight and 2 more")])
def test_frozen_parameters_are_told(count, told):
    module = right()
    for name, p in [*module.named_parameters()][4:4 + count]:
        p.requires_grad = p.kept = False
        assert name.startswith(("gates", "towers"))
    report = check_module(vectors(), module, MAPPING)
    assert report.reasons == {
        "frozen parameters": f"{told}: requires_grad is False, so they have no gradient"}
    assert report.verdict == "failed"


def test_a_detached_output_is_told():
    class Cut(MMoE):
        def forward(self, x):
            one, other = super().forward(x)
            return one.detach(), other

    report = check_module(vectors(), Cut().eval(), MAPPING)
    assert report.reasons == {"gradients": "none come from tower/a: computed under no_grad, "
                                           "detached, or through NumPy"}
    assert report.verdict == "failed"
    assert [fault.names for fault in report.faults] == [("output-detached",)]


def test_without_any_graph_there_are_no_gradients():
    class NoGrad(MMoE):
        def forward(self, x):
            return tuple(y.detach() for y in super().forward(x))

    report = check_module(vectors(), NoGrad().eval(), ModuleMapping(PARAMETERS, OUTPUTS))
    assert report.verdict == "passed in part"
    assert report.reasons["gradients"].startswith("none come from tower/a, tower/b: ")


class Copies(MMoE):
    """Every task runs the experts by itself."""

    def forward(self, x):
        return tuple(tower(mixture(softmax(gate(x)), [expert(x) for expert in self.experts]))
                     for gate, tower in zip(self.gates, self.towers, strict=True))


class Again(MMoE):
    """Its first result is dropped."""

    def forward(self, x):
        super().forward(x)
        return super().forward(x)


class Copy(Module):
    def forward(self, x):
        return x.clone()


class Chained(MMoE):
    """A part runs again on what it gave."""

    def __init__(self):
        super().__init__()
        self.copies = [Copy(), Copy()]

    def forward(self, x):
        made = [copy(copy(expert(x)))
                for copy, expert in zip(self.copies, self.experts, strict=True)]
        return tuple(tower(mixture(softmax(gate(x)), made))
                     for gate, tower in zip(self.gates, self.towers, strict=True))


@pytest.mark.parametrize("kind, experts", [(Copies, "experts"), (Again, "experts"),
                                           (Chained, "copies")])
def test_what_a_part_gives_again_is_one_tensor_with_it(kind, experts):
    tensors = MAPPING.tensors | {"level1/shared/experts": stacked(f"{experts}.0", f"{experts}.1")}
    report = check_module(vectors(), kind().eval(), ModuleMapping(PARAMETERS, tensors))
    assert report.passed and not report.judge.partial, report
    assert "grad/level1/shared/experts" in report.judge.paper


def test_what_a_part_gives_of_something_else_is_another_tensor():
    class OneTower(MMoE):
        def forward(self, x):
            made = [expert(x) for expert in self.experts]
            return [self.towers[0](mixture(softmax(gate(x)), made)) for gate in self.gates]

    outputs = {f"tower/{task}": sliced(run, None, 0)
               for task, run in (("a", "towers.0"), ("b", "towers.0#2"))}
    report = check_module(vectors(), OneTower().eval(), ModuleMapping(PARAMETERS, outputs))
    assert report.judge.paper["grad/tower/a"].passed and report.verdict == "failed"


class Probable(MMoE):
    """The first task's output is a probability."""

    factor = 1.0

    def forward(self, x):
        one, other = super().forward(x * Tensor(np.full(x.shape, self.factor)))
        p = 1 / (1 + np.exp(-one.array))
        return Tensor(p, parents=[(one, lambda dy: dy * p * (1 - p))]), other


def test_a_module_that_returns_probabilities_passes_once_that_is_declared():
    report = check_module(vectors(), Probable().eval(), MAPPING,
                          conventions=["output-probability"])
    assert report.passed and "grad[a]/tower/a/layer1/weight" in report.judge.paper
    assert report.reasons == {"probabilities": (
        "tower/a: gradients are those of a loss that takes probabilities; in one that takes logits "
        "they are wrong")}


def test_a_module_that_returns_probabilities_is_told_so_and_nothing_else():
    report = check_module(vectors(), Probable().eval(), MAPPING)
    fault, = report.faults
    assert fault.tensor == "tower/a" and fault.names[0] == "output-probability"
    assert [each.names for each in report.diagnosis] == [("output-probability",)]


def test_what_is_wrong_before_a_probability_fails_though_it_is_declared():
    module = Probable().eval()
    module.factor = 1.5
    assert check_module(vectors(), module, MAPPING,
                        conventions=["output-probability"]).verdict == "failed"


# Weights and gradients of a module --------------------------------------------------------------

def test_a_norm_is_folded_into_the_layer_before_it():
    module = right(norm="before")
    arrays = folded_parameters(module, NORMS)
    assert not any("norm" in name for name in arrays)
    norm, layer = module.experts[1].norm, module.experts[1].layer
    scale = norm.weight.array / np.sqrt(norm.running_var.array + norm.eps)
    np.testing.assert_allclose(arrays["experts.1.layer.weight"],
                               layer.weight.array * scale[:, None], rtol=1e-15)
    np.testing.assert_allclose(
        arrays["experts.1.layer.bias"],
        (layer.bias.array - norm.running_mean.array) * scale + norm.bias.array, rtol=1e-13)
    params = from_module(module, MODEL, NORMS)
    x = np.random.default_rng(0).normal(size=(5, 3))
    for (y,), task in zip(([y] for y in module(Tensor(x))), "ab", strict=True):
        np.testing.assert_allclose(y.array[:, 0], MODEL.forward(params, x).outputs[task],
                                   rtol=1e-12)


def test_loading_leaves_norms_the_identity():
    module, params = right(norm="before"), MODEL.init(1)
    load_module(module, MODEL, NORMS, params)
    for expert in module.experts:
        norm = expert.norm
        assert (norm.weight.array == 1).all() and (norm.bias.array == 0).all()
        assert (norm.running_mean.array == 0).all()
        np.testing.assert_array_equal(norm.running_var.array + norm.eps, 1)
    back = from_module(module, MODEL, NORMS)
    assert all((back[name] == params[name]).all() for name in params)


def test_gradients_come_out_by_npples_names_without_those_of_norms():
    module, params = right(norm="before"), MODEL.init(1)
    load_module(module, MODEL, NORMS, params)
    x = np.random.default_rng(0).normal(size=(5, 3))
    one, other = module(Tensor(x))
    (one.sum() + other.sum()).backward(retain_graph=True)
    found = gradients_from_module(module, MODEL, NORMS)
    assert {*found} == {*MODEL.shapes}
    np.testing.assert_allclose(found["tower/a/layer1/bias"], [5.0])
    assert found["level1/shared/experts/layer1/weight"].any()


# Parts of a module ------------------------------------------------------------------------------

@pytest.mark.parametrize("wrapper, inner", [
    ("OptimizedModule", "_orig_mod"), ("DataParallel", "module"),
    ("DistributedDataParallel", "module")])
def test_what_wraps_a_module_is_opened_unless_the_mapping_names_it(wrapper, inner):
    module, kind = right(), type(wrapper, (Module,), {})
    wrapped = kind()
    setattr(wrapped, inner, module)
    outer = kind()
    setattr(outer, inner, wrapped)
    assert opened(outer, MAPPING) is module
    named = ModuleMapping({"p": f"{inner}.experts.0.layer.weight"})
    assert opened(wrapped, named) is wrapped
    named = ModuleMapping({}, {"p": f"{inner}.experts.0"})
    assert opened(wrapped, named) is wrapped


def test_parts_are_observed_by_what_they_are_given_and_return():
    module, x = right(), vectors().inputs
    seen = observed(module, ["", "experts.1", "towers.0"], x)
    assert {*seen} == {"<input>", "return", "return[0]", "return[1]", ":input", "experts.1",
                       "experts.1:input", "towers.0", "towers.0:input"}
    np.testing.assert_array_equal(seen[":input"].array, x)
    assert seen["return[0]"] is seen["towers.0"]
    assert seen["<input>"].kept and seen[":input"] is not seen["<input>"]


def test_a_part_that_runs_twice_is_told_apart():
    class Twice(Module):
        def __init__(self):
            self.inner = right().towers[0]

        def forward(self, x):
            return {"one": self.inner(x), "other": [self.inner(x)]}

    seen = observed(Twice(), ["inner", ""], np.ones((2, 4)))
    assert {*seen} == {"<input>", "inner", "inner:input", "inner#2", "inner:input#2", "return",
                       "return[one]", "return[other]", "return[other][0]", ":input"}


def test_codes_are_fed_as_codes_and_have_no_gradient():
    class Plain(Module):
        def __init__(self):
            self.weight = parameter(np.zeros(1, np.float32))

        def forward(self, *inputs):
            return inputs

    seen = observed(Plain(), [""], (np.arange(3), np.ones(2)))
    assert seen["return[0]"].array.dtype == np.int64
    assert seen["return[1]"].array.dtype == np.float32 and "<input>" not in seen
    assert "<input>" not in observed(Plain(), [""], np.arange(3))


def test_a_module_that_fails_says_what_it_was_given():
    with pytest.raises(InputError) as caught:
        observed(right(), [""], (np.ones((2, 3)), np.ones(2)))
    assert str(caught.value).startswith("module: fails on its inputs (Tensor, Tensor): TypeError: ")
    assert str(caught.value).endswith("; feed= of the mapping is the function that turns npple's "
                                      "inputs into its arguments")


def test_elements_of_tuples_lists_and_dicts_have_names():
    assert [*elements("y", ({"k": 1}, [2]))] == [
        ("y", ({"k": 1}, [2])), ("y[0]", {"k": 1}), ("y[0][k]", 1), ("y[1]", [2]), ("y[1][0]", 2)]


def test_a_copy_is_another_module_and_nothing_in_it_is_compiled():
    module = right()
    again = copied(module)
    assert again is not module and again.gates[0].weight is not module.gates[0].weight
    compiled = type("OptimizedModule", (Module,), {"forward": lambda self, x: None})()
    compiled._orig_mod = right().towers[0]
    module.extra = compiled
    y = copied(module).extra.forward(Tensor(np.ones((1, 4))))
    assert y.shape == (1, 1)


def test_what_cannot_be_watched_or_copied_is_refused():
    module = right()
    module.extra = type("Traced", (type("ScriptModule", (Module,), {}),), {})()
    with pytest.raises(InputError) as caught:
        copied(module)
    assert str(caught.value) == (
        "module: extra is traced or scripted, which cannot be watched nor copied with its "
        "gradients: hand over the module that it was made from")
    with pytest.raises(InputError, match="^module: it is traced or scripted"):
        copied(module.extra)

    class Kept(Module):
        def __deepcopy__(self, memo):
            raise RuntimeError("only leaves")

    with pytest.raises(InputError) as caught:
        copied(Kept())
    assert str(caught.value) == ("module: cannot be copied, does it keep tensors of an earlier "
                                 "run? (only leaves)")
