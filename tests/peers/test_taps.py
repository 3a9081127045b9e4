"""A module of PyTorch however it is wrapped, written in place, or in training: judged, or told."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import npple  # noqa: E402
from npple import oracle  # noqa: E402
from npple.errors import InputError  # noqa: E402

TASKS = {"a": "binary", "b": "regression"}
MODEL = npple.mmoe(4, TASKS, experts=3, expert_units=(5,), tower_units=(3,))
VECTORS = oracle.make_vectors(MODEL)
PARTS = {"compiled": lambda module: torch.compile(module, backend="eager"),
         "data parallel": nn.DataParallel,
         "compiled, then data parallel": lambda module: nn.DataParallel(
             torch.compile(module, backend="eager"))}


class Mmoe(nn.Module):
    """With functional activations, in place or not, and perhaps something that is active."""

    def __init__(self, in_place=False, extra=None):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 5) for _ in range(3)])
        self.gates = nn.ModuleDict({task: nn.Linear(4, 3, bias=False) for task in TASKS})
        self.hidden = nn.ModuleDict({task: nn.Linear(5, 3) for task in TASKS})
        self.outputs = nn.ModuleDict({task: nn.Linear(3, 1) for task in TASKS})
        self.in_place, self.extra = in_place, extra or nn.Identity()

    def forward(self, x):
        experts = torch.stack([F.relu(expert(x), inplace=self.in_place)
                               for expert in self.experts], 1)
        found = {}
        for task in TASKS:
            weights = self.gates[task](x).softmax(-1)
            mixed = self.extra((weights[..., None] * experts).sum(1))
            hidden = self.hidden[task](mixed)
            hidden = hidden.relu_() if self.in_place else hidden.relu()
            found[task] = self.outputs[task](hidden)[..., 0]
        return found


def mapping(prefix="", experts="experts", **tensors):
    linear = {}
    for task in TASKS:
        for layer, part in enumerate(("hidden", "outputs"), start=1):
            linear |= oracle.linear(f"tower/{task}/layer{layer}", f"{prefix}{part}.{task}")
        linear |= {f"level1/{task}/gate/layer1/weight":
                   oracle.transposed(f"{prefix}gates.{task}.weight")}
    paths = [f"{prefix}{experts}.{i}" for i in range(3)]
    linear["level1/shared/experts/layer1/weight"] = oracle.stacked(
        *(oracle.transposed(f"{path}.weight") for path in paths))
    linear["level1/shared/experts/layer1/bias"] = oracle.stacked(*(f"{p}.bias" for p in paths))
    returned = {f"tower/{task}": f"return[{task}]" for task in TASKS}
    return oracle.ModuleMapping(linear, returned | tensors)


@pytest.mark.parametrize("wrap", PARTS)
def test_what_wraps_a_module_does_not_matter(wrap):
    logits = {f"level1/{task}/gate/logits": f"gates.{task}" for task in TASKS}
    report = oracle.check_module(VECTORS, PARTS[wrap](Mmoe()), mapping(**logits))
    assert report.verdict == "passed"
    assert {*logits} <= {row.name for row in report.rows}


@pytest.mark.parametrize("wrap, prefix", [("compiled", "_orig_mod."), ("data parallel", "module.")])
def test_a_mapping_may_have_the_names_of_the_wrapped_module(wrap, prefix):
    assert oracle.check_module(VECTORS, PARTS[wrap](Mmoe()), mapping(prefix)).passed


def test_weights_go_into_a_compiled_module_and_come_out_again():
    module = PARTS["compiled"](Mmoe().double())
    oracle.load_module(module, MODEL, mapping(), VECTORS.params)
    found = oracle.from_module(module, MODEL, mapping())
    assert all((found[name] == p).all() for name, p in VECTORS.params.items())


def test_parts_may_be_compiled_by_themselves():
    module = Mmoe()
    module.experts = nn.ModuleList([torch.compile(e, backend="eager") for e in module.experts])
    proposal = oracle.suggest(module, MODEL)
    assert proposal.certain
    assert oracle.check_module(VECTORS, module, proposal.mapping).passed


def test_a_compiled_module_has_a_proposal():
    assert oracle.suggest(PARTS["compiled"](Mmoe()), MODEL).certain


def test_activations_may_be_functional_and_in_place():
    for in_place in (False, True):
        assert oracle.check_module(VECTORS, Mmoe(in_place), mapping()).passed


def test_a_layer_that_is_written_over_counts_as_what_it_is_in_the_end():
    tapped = {"level1/shared/experts": oracle.stacked("experts.0", "experts.1", "experts.2")}
    assert oracle.check_module(VECTORS, Mmoe(in_place=True), mapping(**tapped)).passed
    assert not oracle.check_module(VECTORS, Mmoe(), mapping(**tapped)).passed


def test_a_mistake_in_a_compiled_module_is_found():
    class Twice(Mmoe):
        def forward(self, x):
            return {task: 2 * y for task, y in super().forward(x).items()}

    assert oracle.check_module(VECTORS, PARTS["compiled"](Twice()), mapping()).verdict == "failed"


def test_a_selector_that_is_cut_from_a_plain_input_is_told_by_the_inputs_gradient():
    class Gate(nn.Linear):
        def forward(self, x):
            return super().forward(x.detach())

    module = Mmoe()
    assert "grad/input" in {row.name for row in oracle.check_module(VECTORS, module,
                                                                    mapping()).rows}
    module.gates = nn.ModuleDict({task: Gate(4, 3, bias=False) for task in TASKS})
    report = oracle.check_module(VECTORS, module, mapping())
    assert report.verdict == "failed" and report.diagnosis[0].names == ("stop-selector",)


def test_an_input_that_is_cut_off_whole_is_no_mistake():
    class Cut(Mmoe):
        def forward(self, x):
            return super().forward(x.detach())

    assert oracle.check_module(VECTORS, Cut(), mapping()).passed


@pytest.mark.parametrize("made", [
    lambda: torch.jit.trace(Mmoe(), torch.zeros(2, 4), strict=False),
    lambda: Mmoe(extra=torch.jit.trace(nn.Identity(), torch.zeros(2, 5)))])
@pytest.mark.filterwarnings("ignore")
def test_a_traced_module_is_refused_with_the_way_out(made):
    with pytest.raises(InputError, match="traced or scripted.*hand over the module"):
        oracle.check_module(VECTORS, made(), mapping())


@pytest.mark.parametrize("extra, told", [
    (nn.Dropout(0.5), "call .eval()"), (nn.BatchNorm1d(5), "call .eval()")])
def test_what_is_active_in_training_is_told(extra, told):
    own = oracle.ModuleMapping(**{**vars(mapping()), "idle": ("extra.*",)})
    report = oracle.check_module(VECTORS, Mmoe(extra=extra), own)
    assert not report.passed and told in str(report)


def test_inputs_that_do_not_fit_the_module_are_told_to_be_fed():
    columns = npple.mmoe({"age": "numeric", "city": (3, 3)}, TASKS, experts=3, expert_units=(5,),
                         tower_units=(3,))

    class Embedded(Mmoe):
        def __init__(self):
            super().__init__()
            self.city = nn.Embedding(3, 3)

        def forward(self, age, city):
            return super().forward(torch.cat([age[:, None], self.city(city)], 1))

    maps = mapping()
    maps.parameters["embedding/city"] = oracle.ModuleMapping({"x": "city.weight"}).parameters["x"]
    with pytest.raises(InputError, match="feed"):
        oracle.check_module(oracle.make_vectors(columns), Embedded(), maps)
