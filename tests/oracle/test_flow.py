"""The flow: every tensor from the candidate's own before it; what reads what; the order of all."""

from dataclasses import replace

import numpy as np
import pytest

import npple
from npple.oracle.deviations import BY_NAME, deviate
from npple.oracle.flow import Flow, backwards, compute, owner
from npple.oracle.rounding import noisy_case
from npple.oracle.variant import Variant, cast
from npple.verify.cases import random_case

TASKS = {"a": "binary", "b": "multiclass:3"}
MODELS = {
    "ple": lambda: npple.ple({"x": "numeric", "city": (4, 2)}, TASKS, levels=2, task_experts=1,
                             shared_experts=2, expert_units=(3, 2), tower_units=(2,)),
    "snr_trans": lambda: npple.snr_trans(2, TASKS, levels=1, experts=2, expert_units=(2,), l0=0.1,
                                         tower_units=()),
    "sluice": lambda: npple.sluice(2, TASKS, levels=1, expert_units=(2,), tower_units=()),
    "cross_stitch": lambda: npple.cross_stitch(2, TASKS, levels=1, expert_units=(2,),
                                               tower_units=())}
ADAM = npple.Adam(rate=1e-2, epsilon=1e-2)


def made(model="ple", adam=ADAM, rows=3, handed=False):
    """A variant and a case, with rows outside a sample space."""
    network = MODELS[model]()
    case = random_case(network, 0, rows)
    rng = np.random.default_rng(0)
    gradients = {f"{step}/{name}": rng.normal(size=p.shape) for step in range(1, 13)
                 for name, p in case.params.items()} if handed else {}
    case = replace(case, masks={"a": None, "b": np.arange(rows) != 1},
                   weights={"a": 0.75, "b": 1.5}, gradients=gradients)
    return Variant(network.table, adam), cast(case, np.float64)


def flow(given=None, **options):
    return Flow(*made(**options), given or {})


# All of it --------------------------------------------------------------------------------------

@pytest.mark.parametrize("model", MODELS)
def test_all_tensors_are_those_of_the_network(model):
    variant, case = made(model)
    tensors, network = dict(compute(variant, case)), case.model
    assert [*tensors] == [name for name, _ in compute(variant, case)]
    trace = network.forward(case.params, case.x, case.noise or None)
    for name in trace:
        if not name.endswith("/route/noise"):
            np.testing.assert_allclose(tensors[name], trace[name], rtol=1e-12)
    for task in TASKS:
        np.testing.assert_allclose(tensors[f"prediction/{task}"], trace.predictions[task],
                                   rtol=1e-12)
    masks = {"b": case.masks["b"]}
    for kind, weights in {"grad": case.weights, "grad[a]": {"a": 1.0, "b": 0.0},
                          "grad[b]": {"a": 0.0, "b": 1.0}}.items():
        loss, grads = network.loss_and_grads(case.params, case.x, case.targets, masks, weights,
                                             case.noise, penalties=kind == "grad")
        told = "loss" if kind == "grad" else f"loss{kind[4:]}"
        assert float(tensors[told]) == pytest.approx(loss, rel=1e-12)
        for name in case.params:
            np.testing.assert_allclose(tensors[f"{kind}/{name}"], grads[name], rtol=1e-9,
                                       atol=1e-13)


@pytest.mark.parametrize("adam", [ADAM, npple.Adam(rate=1e-2, epsilon=1e-2, weight_decay=0.1,
                                                   clip=0.5)])
def test_steps_are_those_of_adam_on_the_batch_or_along_what_is_handed_over(adam):
    variant, case = made("cross_stitch", adam, handed=True)
    tensors, masks = dict(compute(variant, case)), {"b": case.masks["b"]}
    after, state = case.params, adam.init(case.params)
    along, moved = case.params, adam.init(case.params)
    for step in range(1, 13):
        _, grads = case.model.loss_and_grads(after, case.x, case.targets, masks, case.weights)
        after, state = adam.step(after, grads, state)
        along, moved = adam.step(along, {name: case.gradients[f"{step}/{name}"]
                                         for name in along}, moved)
        for kind, params, steps in (("adam", after, (1, 2, 12)), ("handed", along, (1, 2, 11, 12))):
            for name, p in params.items():
                assert (f"{kind}{step}/{name}" in tensors) == (step in steps)
                if step in steps:
                    np.testing.assert_allclose(tensors[f"{kind}{step}/{name}"], p, rtol=1e-10)


def test_the_order_of_all_tensors():
    network = npple.shared_bottom(2, {"a": "binary"}, expert_units=(2,), tower_units=())
    case = cast(random_case(network, 0, 3), np.float64)
    parameters = ["level1/shared/experts/layer1/weight", "level1/shared/experts/layer1/bias",
                  "tower/a/layer1/weight", "tower/a/layer1/bias"]
    back = ["tower/a", "tower/a/layer1/bias", "tower/a/layer1/weight", "level1/a",
            "level1/shared/experts", "level1/shared/experts/layer1/bias",
            "level1/shared/experts/layer1/weight", "input"]
    names = [name for name, _ in compute(Variant(network.table, ADAM), case)]
    assert names == ["input", "level1/shared/experts", "level1/a", "tower/a", "prediction/a",
                     "loss[a]", "loss", *(f"grad/{name}" for name in back),
                     *(f"grad[a]/{name}" for name in back),
                     *(f"adam{step}/{name}" for step in (1, 2, 12) for name in parameters)]
    assert backwards(network.table) == back


@pytest.mark.parametrize("wanted, kinds", [
    ({"tower/a"}, set()), ({"loss"}, {"loss", "loss[a]", "loss[b]"}),
    ({"loss[a]"}, {"loss", "loss[a]", "loss[b]"}),
    ({"grad/input"}, {"loss", "loss[a]", "loss[b]", "grad"}),
    ({"grad[b]/input"}, {"loss", "loss[a]", "loss[b]", "grad[b]"}),
    ({"adam12/x"}, {"loss", "loss[a]", "loss[b]", "adam1", "adam2", "adam12"}),
    ({"handed1/x"}, {"handed1", "handed2", "handed11", "handed12"})])
def test_passes_that_nobody_wants_are_left_out(wanted, kinds):
    found = {name.partition("/")[0] for name, _ in compute(*made("cross_stitch", handed=True),
                                                           wanted)}
    assert found == kinds | {"input", "level1", "tower", "prediction"}


def test_copies_are_computed_together_each_as_itself():
    variant, case = made("cross_stitch", npple.Adam(rate=1e-2, epsilon=1e-2, clip=0.5),
                         handed=True)
    copies = noisy_case(case, np.array([2.0**-30]))
    stacked, plain = dict(compute(variant, copies)), dict(compute(variant, case))
    for name in ("adam12/tower/b/layer1/weight", "handed12/tower/b/layer1/bias", "grad/input"):
        assert stacked[name].shape == (8, *plain[name].shape)
        error = np.abs(np.asarray(stacked[name]) - plain[name]).max()
        assert 0 < error < 1e-5


# Tensors that were given ------------------------------------------------------------------------

def test_every_row_reads_what_was_given():
    right = flow()
    for tensor, reader in (("level1/a", "level2/a/experts"), ("input", "level1/a/experts"),
                           ("level1/a/experts/layer1", "level1/a/experts"),
                           ("level1/a/gate/logits", "level1/a/gate/weights"),
                           ("level1/a/gate/weights", "level1/a"), ("tower/a/layer1", "tower/a"),
                           ("tower/a", "prediction/a"), ("tower/a", "loss[a]"),
                           ("loss[a]", "loss"), ("level2/a", "tower/a/layer1")):
        changed = flow({tensor: right.local(tensor) * 1.5})
        np.testing.assert_array_equal(changed[tensor], right.local(tensor) * 1.5)
        np.testing.assert_allclose(changed.local(tensor), right.local(tensor), rtol=1e-15)
        assert np.abs(changed.local(reader) - right.local(reader)).max() > 1e-9


def test_gradients_start_from_those_given_and_from_the_candidates_weights():
    right = flow()
    for tensor, reader in (("grad/tower/a", "grad/level2/a"), ("grad/level2/a",
                           "grad/level2/a/gate/layer1/weight"), ("grad/level1/a",
                           "grad/level1/a/experts"), ("grad[b]/tower/b", "grad[b]/level2/b"),
                           ("grad/input", "grad/embedding/city"),
                           ("level1/a/gate/weights", "grad/level1/a/experts"),
                           ("tower/a", "grad/tower/a")):
        changed = flow({tensor: right.local(tensor) * 1.5})
        assert np.abs(changed.local(reader) - right.local(reader)).max() > 1e-9
        other = reader.replace("grad/", "grad[b]/") if tensor.startswith("grad/") else "input"
        np.testing.assert_array_equal(changed.local(other), right.local(other))


def test_steps_go_on_from_what_was_given():
    name = "tower/a/layer1/bias"
    right = flow()
    assert right.local(f"adam1/{name}") is not None
    for tensor, reader in ((f"grad/{name}", f"adam1/{name}"), (f"adam1/{name}", f"adam2/{name}"),
                           (f"adam2/{name}", f"adam12/{name}")):
        changed = flow({tensor: right.local(tensor) + 0.5})
        assert np.abs(changed.local(reader) - right.local(reader)).max() > 1e-6
    handed = flow(model="cross_stitch", handed=True)
    changed = flow({f"handed11/{name}": handed.local(f"handed11/{name}") + 0.5},
                   model="cross_stitch", handed=True)
    np.testing.assert_allclose(changed.local(f"handed12/{name}"),
                               handed.local(f"handed12/{name}") + 0.5, rtol=1e-12)


def test_one_parameter_is_stepped_alone_where_no_clip_ties_all_together():
    names = ("tower/a/layer1/bias", "tower/b/layer1/bias")
    for clip, alone in ((None, True), (1e-3, False)):
        adam = replace(ADAM, clip=clip)
        right = flow(adam=adam)
        given = {f"grad/{names[0]}": right.local(f"grad/{names[0]}") * 3}
        changed = flow(given, adam=adam)
        same = np.array_equal(changed.local(f"adam1/{names[1]}"), right.local(f"adam1/{names[1]}"))
        assert same == alone


def test_logits_of_another_width_are_not_read():
    right, name = flow(), "level1/a/gate/logits"
    wide = np.ones((3, right.local(name).shape[-1] + 1))
    changed = flow({name: wide, "level1/b/gate/weights": wide})
    for tensor in ("level1/a/gate/weights", "level1/b"):
        np.testing.assert_array_equal(changed.local(tensor), right.local(tensor))


def test_a_flow_is_a_mapping_of_what_was_given():
    given = {"tower/a": np.zeros(3), "level1/a": np.zeros((3, 2))}
    found = flow(given)
    assert [*found] == ["tower/a", "level1/a"] and len(found) == 2


def test_noise_is_read_by_its_name():
    variant, case = made("snr_trans")
    found = Flow(variant, case, {})
    assert case.noise
    for name, u in case.noise.items():
        np.testing.assert_array_equal(found[f"{name}/route/noise"], u)


def test_what_the_variant_does_not_make_has_no_value():
    found = flow()
    assert found.value("level9/a") is None and found.value("tower/a/layer9") is None
    with pytest.raises(KeyError):
        found.local("level9/a")
    np.testing.assert_array_equal(found.value("tower/a"), found.local("tower/a"))
    clash = flow({"level1/a": np.zeros((3, 9))})
    assert clash.value("level2/a/experts") is None


def test_a_tensor_is_computed_once():
    found = flow()
    assert found.local("loss") is found.local("loss")
    assert found.contributions("grad", "level1/a") is found.contributions("grad", "level1/a")


# What reads what --------------------------------------------------------------------------------

def test_what_a_tensor_is_computed_from():
    given = {name: flow().local(name) for name in ("level1/a", "tower/a", "grad/tower/a")}
    found = flow(given)
    tower = {"params/tower/a/layer1/weight", "params/tower/a/layer1/bias",
             "params/tower/a/layer2/weight", "params/tower/a/layer2/bias"}
    assert found.reads("level2/a/experts") == {"level1/a"} | {
        f"params/level2/a/experts/layer{i}/{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert found.reads("tower/a") >= tower | {"level1/a"}
    assert "tower/a" not in found.reads("tower/a")
    assert found.reads("prediction/a") == {"tower/a"}
    assert found.reads("input") == {"params/embedding/city"}
    assert found.reads("loss") > {"tower/a", "params/tower/b/layer1/weight"}
    assert found.reads("grad/tower/a/layer2/bias") >= {"grad/tower/a"}
    assert "params/tower/a/layer1/weight" not in found.reads("loss[b]")
    assert found.reads("level2/a/experts/layer1") == found.reads("level2/a/experts")


def test_who_reads_a_tensor_or_parameter():
    found = flow()
    assert found.readers("level1/a") == ["level2/a/experts", "level2/a"]
    assert found.readers("level1/shared") == ["level2/shared/experts"]
    assert found.readers("level1/shared/experts") == ["level1/a", "level1/b", "level1/shared"]
    assert found.readers("tower/a/layer1/weight") == ["tower/a"]
    assert found.readers("embedding/city") == ["input"]
    assert found.readers("tower/a") == [] and found.readers("embedding/x") == []
    assert found.readers("input")[0] == "level1/a/experts"


def test_a_deviant_row_may_read_any_parameter():
    variant, case = made(rows=3)
    other, _ = deviate(BY_NAME["gate-sigmoid"], variant, {})[0]
    found = Flow(other, case, {})
    assert "level1/b" in found.readers("tower/a/layer1/weight")
    assert "level1/a/experts" not in found.readers("tower/a/layer1/weight")


def test_a_gradient_is_the_sum_of_what_its_readers_add():
    found = flow()
    for name in ("level1/a", "input", "level1/shared/experts", "level1/a/experts/layer1/weight"):
        parts = [found.contributions("grad", row)[name] for row in found.readers(name)]
        np.testing.assert_allclose(found.local(f"grad/{name}"), sum(parts), rtol=1e-12)
    assert {*found.contributions("grad", "input")} == {"x/x", "embedding/city"}
    assert found.contributions("grad[a]", "level2/b") == {}


def test_leaking_gradients_count_all_rows_over_those_of_the_sample_space():
    variant, case = made()
    found, whole = (Flow(replace(variant, **{name: True}), case, {})
                    for name in ("leaking", "unlabelled"))
    task, mask = next((task, mask) for task, mask in case.masks.items() if mask is not None)
    assert 0 < mask.sum() < len(mask)
    np.testing.assert_allclose(found.local(f"grad[{task}]/tower/{task}"),
                               whole.local(f"grad[{task}]/tower/{task}") * len(mask) / mask.sum())


def test_penalties_are_part_of_the_joint_gradient_alone():
    variant, case = made("snr_trans")
    found = Flow(variant, case, {})
    name = next(name for name in case.params if "log_alpha" in name or "route" in name)
    parts = [found.contributions("grad", row).get(name, 0) for row in found.readers(name)]
    assert np.abs(found.local(f"grad/{name}") - sum(parts)).max() > 1e-9
    alone = sum(found.local(f"grad[{task}]/{name}") * case.weights[task] for task in TASKS)
    np.testing.assert_allclose(alone, sum(parts), rtol=1e-9, atol=1e-13)


def test_the_rows_of_a_table_own_their_tensors():
    table = MODELS["ple"]().table
    assert owner(table, "input") == "input"
    for name, row in (("level1/a/experts/layer1/weight", "level1/a/experts"),
                      ("level1/a/gate/logits", "level1/a"), ("tower/a", "tower/a")):
        assert owner(table, name) == row
    with pytest.raises(KeyError, match="^'level9/a'$"):
        owner(table, "level9/a")
    found = flow()
    assert found.made("level1/a") == ("level1/a/gate/logits", "level1/a/gate/weights", "level1/a")
    assert found.made("tower/b") == ("tower/b/layer1", "tower/b")


def test_a_step_is_computed_from_its_own_gradient_alone():
    names = ("tower/a/layer1/bias", "tower/b/layer1/bias")
    given = {f"grad/{name}": flow().local(f"grad/{name}") for name in names}
    assert flow(given).reads(f"adam1/{names[0]}") == {f"grad/{names[0]}"}
    clipped = flow(given, adam=replace(ADAM, clip=1.0))
    assert clipped.reads(f"adam1/{names[0]}") >= {*given}


def test_copies_of_logits_are_read():
    variant, case = made()
    logits = np.zeros((8, 3, 3))  # the same for all experts, in each of eight copies
    copies = Flow(variant, noisy_case(case, np.array([2.0**-30])), {"level1/a/gate/logits": logits})
    np.testing.assert_allclose(np.asarray(copies.local("level1/a/gate/weights")), 1 / 3, rtol=1e-12)
