"""Mappings found by probing: on generated layouts, on wrong programs, and without a function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npple
from npple import oracle
from npple.oracle import check_arrays, from_arrays, into_arrays, make_vectors, suggest

TASKS = {"a": "binary", "b": "regression", "c": "multiclass:3"}


# Layouts ----------------------------------------------------------------------------------------

class Program:
    """A model whose arrays are kept in a drawn layout, under names that say nothing."""

    def __init__(self, model, rng):
        self.model, self.rng = model, rng
        self.made, self.back = {}, {}  # name -> from params; parameter -> from arrays
        for name, shape in model.shapes.items():
            self.keep(name, shape)
        names = [*self.made]
        rng.shuffle(names)
        self.weights = {name: self.made[name](model.init(0)) for name in names}

    def name(self):
        return f"v{self.rng.integers(10**9)}"

    def keep(self, name, shape):
        """One parameter: in one array or one for each expert; each matrix either way round."""
        turned = len(shape) > 1 and self.rng.random() < 0.5
        turn = (lambda a: a.swapaxes(-1, -2)) if turned and len(shape) > 1 else (lambda a: a)
        if "/experts/" in name and name.endswith("bias"):
            turn = lambda a: a  # noqa: E731  # (n, out): a vector for each expert
        kind = self.rng.choice(["split", "stacked", "beside"]) if "/experts/" in name else "whole"
        if kind == "split":
            parts = [self.name() for _ in range(shape[0])]
            for i, part in enumerate(parts):
                self.made[part] = lambda p, i=i: turn(p[name])[i].copy()
            self.back[name] = lambda a: turn(np.stack([a[part] for part in parts]))
        elif kind == "beside":  # all experts in the last axis of one array
            own, shape = self.name(), turn(np.zeros(shape)).shape
            self.made[own] = lambda p: np.concatenate(list(turn(p[name])), axis=-1)
            self.back[name] = lambda a: turn(np.stack(np.split(a[own], shape[0], axis=-1)))
        else:
            own = self.name()
            self.made[own] = lambda p: turn(p[name]).copy()
            self.back[name] = lambda a: turn(a[own])

    def run(self, weights, x):
        params = {name: np.ascontiguousarray(back(weights)) for name, back in self.back.items()}
        return self.model.forward(params, x).outputs


@st.composite
def models(draw):
    """A model of a plain size, of the kinds that people write."""
    tasks = dict(list(TASKS.items())[:draw(st.integers(1, 3))])
    common = {"inputs": draw(st.sampled_from([4, 6, {"u": "numeric", "v": (7, 3)}])),
              "tasks": tasks, "tower_units": draw(st.sampled_from([(), (3,), (4,)])),
              "activation": draw(st.sampled_from(["relu", "tanh"]))}
    gates = {"gate_bias": draw(st.booleans()), "gate_units": draw(st.sampled_from([(), (3,)]))}
    units = draw(st.sampled_from([(4,), (5,), (5, 4)]))
    kind = draw(st.sampled_from(["shared_bottom", "mmoe", "cgc", "ple"]))
    if kind == "shared_bottom":
        return npple.shared_bottom(**common, expert_units=units)
    if kind == "mmoe":
        return npple.mmoe(**common, **gates, expert_units=units, experts=draw(st.integers(2, 3)))
    counts = {"task_experts": draw(st.integers(1, 2)), "shared_experts": draw(st.integers(1, 2))}
    if kind == "cgc":
        return npple.cgc(**common, **gates, **counts, expert_units=units)
    return npple.ple(**common, **gates, **counts, levels=2, expert_units=units)


def agrees(program, model, mapping, seed=3):
    """Whether parameters written through a mapping compute the same in both."""
    params, x = model.init(seed), make_vectors(model, batch=6).inputs
    weights = into_arrays(program.weights, model, mapping, params)
    read = from_arrays(weights, model, mapping)
    theirs, ours = program.run(weights, x), model.forward(read, x).outputs
    return all(np.allclose(theirs[task], ours[task], rtol=1e-9, atol=1e-12) for task in ours)


@pytest.mark.slow
def test_what_is_called_certain_computes_the_same_and_four_of_five_layouts_are():
    found = []

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(models(), st.integers(0, 10**6))
    def check(model, seed):
        program = Program(model, np.random.default_rng(seed))
        proposal = suggest(program.weights, model, program.run)
        found.append(proposal.certain)
        if proposal.certain:
            assert agrees(program, model, proposal.mapping)
        else:
            assert proposal.missing or proposal.ambiguous or proposal.unplaced

    check()
    assert np.mean(found) >= 0.8, f"{np.mean(found):.2f} of {len(found)}"


# One program, right and wrong -------------------------------------------------------------------

MODEL = npple.ple(5, {"a": "binary", "b": "regression"}, levels=2, task_experts=2,
                  shared_experts=1, expert_units=(5,), tower_units=(3,))
STREAMS = {"a": 2, "b": 2, "shared": 1}


def shapes(bias=False, norm=False):
    made = {}
    for level in (0, 1):
        for s, n in STREAMS.items():
            made |= {f"{level}.{s}.{i}.{name}": shape for i in range(n)
                     for name, shape in (("w", (5, 5)), ("b", (5,)))}
            mixed = 5 if s == "shared" else 3
            made[f"{level}.gate.{s}"] = (mixed, 5)  # that of the last level's shared is not used
            if bias:
                made[f"{level}.gate.{s}.b"] = (mixed,)
    for t in "ab":
        made |= {f"{t}.w1": (3, 5), f"{t}.b1": (3,), f"{t}.w2": (1, 3), f"{t}.b2": (1,)}
    return made | ({"scale": (5,)} if norm else {})


def ple(w, x, mistake=""):
    now = dict.fromkeys(STREAMS, x * w["scale"] if "scale" in w else x)
    for level in (0, 1):
        outs = {s: [np.maximum(now[s] @ w[f"{level}.{s}.{i}.w"].T + w[f"{level}.{s}.{i}.b"], 0)
                    for i in range(n)] for s, n in STREAMS.items()}
        following = {}
        for s in STREAMS:
            mixed = [e for t in STREAMS for e in outs[t] if s in (t, "shared") or t == "shared"]
            if mistake == "shared-first":
                mixed = mixed[-1:] + mixed[:-1]
            if mistake == "shared-mean" and s == "shared":
                following[s] = sum(mixed) / 5
                continue
            z = (x if mistake == "selector-input" else now[s]) @ w[f"{level}.gate.{s}"].T
            e = np.exp(z + w.get(f"{level}.gate.{s}.b", 0))
            g = e / e.sum(axis=1, keepdims=True)
            if mistake == "unknown":
                g = g ** 2
            following[s] = sum(c[:, None] * e for c, e in zip(g.T, mixed, strict=True))
        now = following
    return {t: ((np.maximum(now[t] @ w[f"{t}.w1"].T + w[f"{t}.b1"], 0)
                 @ w[f"{t}.w2"].T) + w[f"{t}.b2"])[:, 0] for t in "ab"}


def proposed(mistake="", **options):
    return suggest({name: np.zeros(shape) for name, shape in shapes(**options).items()}, MODEL,
                   lambda w, x: ple(w, x, mistake))


def test_a_right_program_is_mapped_and_passes():
    proposal = proposed()
    assert proposal.certain and proposal.deviation is None
    assert proposal.unplaced == {"1.gate.shared": "no output depends on it"}
    assert not proposal.missing and not proposal.ambiguous
    report = check_arrays(make_vectors(MODEL), {n: np.zeros(s) for n, s in shapes().items()},
                          proposal.mapping, lambda w, x: ple(w, x))
    assert report.verdict == "passed in part" and not report.wrong  # no gradients


def test_what_it_prints_is_code_that_makes_the_mapping():
    proposal = proposed()
    names = {}
    exec("from npple.oracle import *\n" + str(proposal), names)
    assert repr(names["mapping"].parameters) == repr(proposal.mapping.parameters)
    assert repr(names["mapping"].tensors) == repr(proposal.mapping.tensors)
    assert names["mapping"].idle == proposal.mapping.idle
    assert str(proposal).endswith("# not placed: 1.gate.shared: no output depends on it")


@pytest.mark.parametrize("mistake", ["selector-input", "shared-first"])
def test_a_mistake_of_the_catalogue_is_mapped_and_named(mistake):
    proposal = proposed(mistake)
    assert proposal.certain and proposal.deviation == mistake
    report = check_arrays(make_vectors(MODEL), {n: np.zeros(s) for n, s in shapes().items()},
                          proposal.mapping, lambda w, x: ple(w, x, mistake))
    assert report.diagnosis[0].names == (mistake,)


def test_a_shared_gate_that_is_missing_is_recognised():
    """The program has no array for it, and the mean of all experts in its place."""
    arrays = {name: np.zeros(shape) for name, shape in shapes().items()
              if "gate.shared" not in name}
    proposal = suggest(arrays, MODEL, lambda w, x: ple(w, x, "shared-mean"))
    assert proposal.certain and proposal.deviation == "shared-mean"
    assert not proposal.unplaced and not proposal.missing
    assert proposal.mapping.own == ("level1/shared/gate/layer1/weight",)
    report = check_arrays(make_vectors(MODEL), arrays, proposal.mapping,
                          lambda w, x: ple(w, x, "shared-mean"))
    assert report.diagnosis[0].names == ("shared-mean",)


def test_gates_with_a_bias_are_recognised():
    proposal = proposed(bias=True)
    assert proposal.certain and proposal.deviation == "gate-bias"
    assert "level1/shared/gate/layer1/bias" in proposal.mapping.own
    assert repr(proposal.mapping.parameters["level2/b/gate/layer1/bias"]) == "'1.gate.b.b'"


def test_a_mistake_that_nobody_knows_is_not_certain_and_said():
    proposal = proposed("unknown")
    assert not proposal.certain
    assert "by shapes, names and order alone" in proposal.ambiguous[0]
    assert "# NOT CERTAIN" in str(proposal)


@pytest.mark.slow
def test_a_mistake_that_no_single_step_shows_is_not_called_certain():
    """Only where the gates of both tasks differ on both levels does it change anything."""
    def run(w, x):
        apart = [(w[f"{level}.gate.a"] - w[f"{level}.gate.b"])[0, 0] for level in (0, 1)]
        y = ple(w | {"1.gate.shared": np.zeros((5, 5))}, x)
        return y | {"a": y["a"] + apart[0] * apart[1]}

    arrays = {name: np.zeros(shape) for name, shape in shapes().items() if name != "1.gate.shared"}
    proposal = suggest(arrays, MODEL, run)
    assert not proposal.missing and not proposal.unplaced and not proposal.certain
    assert "on random parameters the outputs differ" in proposal.ambiguous[0]


def test_an_array_that_the_model_has_not_is_told():
    """A scale of the inputs: no parameter of the model changes the outputs like that."""
    proposal = proposed(norm=True)
    assert not proposal.certain
    assert "scale" in proposal.unplaced


def test_without_a_function_names_and_order_propose_and_nothing_is_certain():
    proposal = suggest({name: np.zeros(shape) for name, shape in shapes().items()}, MODEL)
    assert not proposal.certain
    assert proposal.ambiguous[0].startswith("there was no function to run")
    assert repr(proposal.mapping.parameters["tower/b/layer1/weight"]) == "transposed('b.w1')"


def test_names_of_the_tasks_decide_whose_output_is_whose():
    turned = suggest({name: np.zeros(shape) for name, shape in shapes().items()}, MODEL,
                     lambda w, x: dict(reversed(ple(w, x).items())))
    assert turned.certain
    assert repr(turned.mapping.parameters["tower/a/layer2/bias"]) == "'a.b2'"


def test_predictions_are_known_from_logits():
    def run(w, x):
        made = ple(w, x)
        return {"y": np.stack([1 / (1 + np.exp(-made["a"])), made["b"]], axis=1)}

    proposal = suggest({name: np.zeros(shape) for name, shape in shapes().items()}, MODEL, run)
    assert proposal.certain
    assert [*proposal.mapping.tensors] == ["prediction/a", "tower/b"]


@pytest.mark.parametrize("arguments, fault", [
    (({}, None), "model: a Network is needed, got None"),
    ((3, MODEL), "weights: a module or a dict of arrays is needed, got int"),
    (({}, MODEL, 3), "run: a function is needed"),
    (({"w": "text"}, MODEL), "weights: w: "),
    (({"w": np.zeros(3)}, MODEL, lambda w, x: [1]), r"run: a dict of arrays is needed, got \[1\]"),
])
def test_what_cannot_be_used_is_told(arguments, fault):
    with pytest.raises(npple.InputError, match=fault):
        oracle.suggest(*arguments)
