"""What mlgb 0.0.7 computes under the names of PLE and MMoE: nothing a mapping could be made for."""

import warnings

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    multitask = pytest.importorskip("mlgb.torch.modules.ranking.multitask", exc_type=ImportError)
    from mlgb.torch.components.linears import TaskLayer

WIDTH, UNITS = 6, 5


def tasks():
    return torch.nn.ModuleList(TaskLayer(task="binary", task_linear_if_identity=True)
                               for _ in range(2))


def ple(levels=1):
    torch.manual_seed(0)
    return multitask.ProgressiveLayeredExtractionLayer(
        tasks(), tower_dnn_hidden_units=(3,), expert_men_num=2, shared_men_num=1,
        men_hidden_units=(UNITS,) * levels, dnn_activation="relu")


def mmoe():
    torch.manual_seed(0)
    return multitask.MultigateMixtureOfExpertLayer(
        tasks(), expert_num=3, expert_dnn_hidden_units=(UNITS,), gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=(3,), dnn_activation="relu")


def towers_read(module, towers):
    """How wide what the first tower reads is."""
    widths = []
    towers[0].register_forward_pre_hook(lambda part, given: widths.append(given[0].shape[1]))
    module(torch.ones(4, WIDTH))
    return widths[0]


@pytest.mark.parametrize("levels, experts", [(1, 3), (2, 9)])
def test_the_gates_of_ple_do_not_mix_experts_so_their_number_grows_by_level(levels, experts):
    module = ple(levels)
    assert towers_read(module, module.tower_dnn_fn_list) == experts * UNITS


def test_the_gates_of_ple_weigh_the_features_of_an_expert_and_not_the_experts():
    module, seen = ple(), []
    x = torch.arange(4 * 2 * UNITS).reshape(4, 2, UNITS) / 10
    gate = module.cgc_ffn_fn_list[0][0]
    gate.register_forward_hook(lambda part, given, made: seen.append(made.softmax(2)))
    mixed = module.cgc_e_fn(x, x[:, :1], 0, 0)
    assert torch.equal(mixed, torch.concat([x, x[:, :1]], 1) * seen[0])
    assert seen[0].shape == (4, 3, UNITS)  # not a weight an expert


def test_the_gates_of_ple_are_not_among_its_parameters_and_so_never_trained():
    module = ple()
    module(torch.ones(4, WIDTH))
    gate = module.cgc_ffn_fn_list[0][0]
    assert not [*gate.parameters()] and not gate.state_dict()
    assert gate.ffn_weight_list[0].requires_grad


def test_a_tower_of_mmoe_reads_all_weighted_experts_side_by_side_and_not_their_sum():
    module = mmoe()
    assert towers_read(module, module.dnn_tower_fn_list) == 3 * UNITS


def test_a_gate_of_mmoe_has_an_activation_before_its_softmax():
    module, seen = mmoe(), []
    module.dnn_gate_out_fn_list[0].register_forward_hook(
        lambda part, given, made: seen.append(made))
    module(torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH))
    assert (seen[0] == 0).any() and (seen[0] >= 0).all()
