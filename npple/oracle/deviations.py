"""The catalogue: how implementations are known to deviate, each as a small change of a `Variant`.

Most are another routing table; some put a row of `deviant_rows` in the place of the paper's; the
last ones change the loss or Adam. A deviation maps a variant to its deviating versions, so that
deviations can be combined.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from npple.core.base import Array, Arrays
from npple.core.blocks import blas_with_one_thread
from npple.core.losses import KINDS, Binary, Kind, kind_of
from npple.core.ops import ACTIVATIONS
from npple.core.optimizers import clipped
from npple.core.rows import Row
from npple.errors import InputError
from npple.optimizers import Adam
from npple.oracle.changes import (Free, Variants, activation_forgotten, by_unit, changed,
                                  deviant_tower, forms, gates, leaky, level_off_by_one,
                                  linear_towers, mean_of_tasks, multiplied, normalised_experts,
                                  normalised_towers, on_experts, one_for_two, one_table, one_tower,
                                  overwritten, padding, permuted, residual_gates, rows,
                                  shared_detached, top_gates, towers_on_both, transposed)
from npple.oracle.deviant_rows import PickedExperts, Stay, deviant_gate, with_rows, with_sources
from npple.oracle.flow import Flow
from npple.oracle.variant import Variant
from npple.routing import Experts, Gate, Level, Source, Stitch, Table, Tower
from npple.verify.cases import Case

@dataclass(frozen=True)
class Deviation:
    """A known way to be something else than the paper's model.

    Attributes
    ----------
    name : str
        Short and stable.
    description : str
        One sentence, to be read after "PLE in which".
    consequence : str
        What it does to learning and to the separation of the tasks.
    seen : tuple of str
        Where public code does this: repository, file, thread. Empty where none is known to us.
    variants : callable
        (Variant, the candidate's arrays) -> the deviating variants, each with a detail in words.
    fix : str
        What to do about it.
    convention : bool
        Whether it is a choice that leaves the model what it is, and may be declared.
    free : Free or None
        A number of the candidate's own, to be fitted.
    """

    name: str
    description: str
    consequence: str
    seen: tuple[str, ...]
    variants: Variants
    fix: str = ""
    convention: bool = False
    free: Free | None = None


# How the tables are changed ---------------------------------------------------------------------

def _gates(change: Callable[[Table, Gate], Row]) -> Variants:
    """The deviation that changes each gate of a table: change(table, gate) -> gate."""
    return lambda variant, given: [(rows(Gate, change)(variant), "")]


def _place(row: Row | Source) -> tuple[str, str]:
    """The level and the stream of a row called `level2/income...`."""
    level, _, rest = row.name.partition("/")
    return level, rest.split("/")[0]


def _groups(table: Table, level: str, streams: Iterable[str]) -> list[Experts]:
    """The expert groups of these streams on a level, those that there are."""
    names = [f"{level}/{stream}/experts" for stream in streams]
    rows = [table.row.get(name) for name in names]
    return [row for row in rows if isinstance(row, Experts)]


def _bank(table: Table, level: str) -> list[tuple[Experts, int]]:
    """All experts of a level in a list, tasks first: pairs of a group and an index."""
    return [(group, i) for group in _groups(table, level, (*table.tasks, "shared"))
            for i in range(group.count)]


def _strided(table: Table, level: str, stream: str) -> list[tuple[Experts, int]] | None:
    """The experts a task takes from the list if it steps by tasks, not by experts a task."""
    tasks, bank = list(table.tasks), _bank(table, level)
    own = [group.count for group in _groups(table, level, [stream])] if stream in tasks else []
    start = tasks.index(stream) * len(tasks) if own else 0
    taken = bank[start:start + sum(own)]
    return taken if own and len(taken) == sum(own) else None


# Who reads whom ---------------------------------------------------------------------------------

def _selector_input(table: Table, gate: Gate) -> Row:
    return replace(gate, selector="input")


def _selector_below(table: Table, gate: Gate) -> Row:
    """Of gates that select on the input, as in ML-MMoE: in their order, of those there are."""
    level = int(_place(gate)[0].removeprefix("level"))
    if level == 1 or gate.selector != "input":
        return gate
    own, below = ([row.name for row in table.levels[at].fusions] for at in (level - 1, level - 2))
    return replace(gate, selector=below[min(own.index(gate.name), len(below) - 1)])


def _shared_reads_tasks(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """Above level one, each task has the shared experts run on its own representation."""
    table, levels = variant.table, []
    for below, level in zip((Level((), ()), *table.levels), table.levels):
        groups, fusions = list(level.groups), list(level.fusions)
        made = [fusion.name for fusion in below.fusions]
        shared = [group for group in groups if made and _place(group)[1] == "shared"]
        for group in shared:
            for i, fusion in enumerate(fusions):
                own = f"{_place(below.fusions[0])[0]}/{_place(fusion)[1]}"
                mixed = group.name in (source.name for source in fusion.sources)
                if own not in made or _place(fusion)[1] == "shared" or not mixed:
                    continue
                copy = replace(group, name=f"{group.name} of {_place(fusion)[1]}", reads=own,
                               parameters=group.parameters)
                groups.append(copy)
                fusions[i] = with_sources(fusion, {group.name: copy.name})
        levels.append(Level(tuple(groups), tuple(fusions)))
    return [(replace(variant, table=Table(table.inputs, tuple(levels), table.towers)), "")]


def _shared_gate_shared_only(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """With weights for all experts, of which it uses some, or for the shared experts alone."""
    def change(table: Table, gate: Gate, narrow: bool) -> Row:
        level, stream = _place(gate)
        start = 0
        for source in gate.sources:
            count = source.count(table)
            shared = stream == "shared" and source.name == f"{level}/shared/experts"
            if shared and not narrow:
                columns = tuple(range(start, start + count))
                return deviant_gate(gate, sources=(source,), columns=columns,
                                    outputs=gate.count(table))
            if shared and count > 1:
                return replace(gate, sources=(source,))
            start += count
        return gate
    return [(rows(Gate, partial(change, narrow=narrow))(variant), detail)
            for narrow, detail in ((False, ""), (True, "with weights for these alone"))]


def _shared_mean(table: Table, gate: Gate) -> Row:
    return deviant_gate(gate, squash="mean") if _place(gate)[1] == "shared" else gate


def _shared_stays(table: Table, gate: Gate) -> Row:
    return (Stay(gate.name, tuple(gate.shapes(table).items()))
            if _place(gate)[1] == "shared" else gate)


def _stride_outputs(table: Table, gate: Gate) -> Row:
    level, stream = _place(gate)
    taken, own = _strided(table, level, stream), f"{level}/{stream}/experts"
    if taken is None:
        return gate
    sources = []
    for source in gate.sources:
        if source.name == own:
            sources += [Source(group.name, (i,)) for group, i in taken]
        else:
            sources.append(source)
    return deviant_gate(gate, sources=tuple(sources))


def _stride_parameters(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    def change(row: Row) -> Row:
        taken = isinstance(row, Experts) and _strided(variant.table, *_place(row))
        if not taken:
            return row
        picks = tuple((group.parameters, i) for group, i in taken)
        return PickedExperts(**vars(row) | {"picks": picks})
    return [(replace(variant, table=with_rows(variant.table, change)), "")]


def _shared_first(table: Table, gate: Gate) -> Row:
    shared = [source for source in gate.sources if _place(source)[1] == "shared"]
    return replace(gate, sources=(*shared, *(s for s in gate.sources if s not in shared)))


def _last_gate_all(table: Table, gate: Gate) -> Row:
    if gate.name not in [row.name for row in table.levels[-1].fusions]:
        return gate
    groups = _groups(table, _place(gate)[0], (*table.tasks, "shared"))
    return replace(gate, sources=tuple(Source(group.name) for group in groups))


# Gates ------------------------------------------------------------------------------------------

def _gate_bias(table: Table, gate: Gate) -> Row:
    return replace(gate, bias=True)


def _gate_hidden(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The widths are those of the candidate's own parameters, the activation is tried."""
    def change(row: Row, activation: str) -> Row:
        if not isinstance(row, Gate):
            return row
        units: list[int] = []
        while (weight := f"params/{row.parameters}/layer{len(units) + 1}/weight") in given:
            units.append(given[weight].shape[-1])
        hidden = tuple(units[:-1])
        return replace(row, units=hidden, activations=(activation,) * len(hidden)) if units else row
    tables = {each: with_rows(variant.table, partial(change, activation=each))
              for each in ACTIVATIONS}
    return [(replace(variant, table=table), activation) for activation, table in tables.items()]


def _batchnorm(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    return [(gates(normalise=kind, raw=raw)(variant, given)[0][0], detail + given_raw)
            for raw, given_raw in ((False, ""), (True, ", after the logits that were given"))
            for kind, detail in (("batch", "with the statistics of the batch"),
                                 ("fresh", "with running statistics that were never updated"))]


def _others_detached(table: Table, gate: Gate) -> Row:
    own = {_place(gate)[1], "shared"}
    names = tuple(s.name for s in gate.sources if _place(s)[1] not in own)
    return deviant_gate(gate, detached=names) if names else gate


# Experts and towers -----------------------------------------------------------------------------

def _linear_experts(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    changed = with_rows(variant.table, lambda row: replace(row, activations=(*row.activations[:-1],
                    "identity")) if isinstance(row, Experts) else row)
    return [(replace(variant, table=changed), "")]


def _tower_output(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    def activated(activation: str, kinds: tuple[type[Kind], ...]) -> tuple[Variant, str]:
        def change(row: Row) -> Row:
            if not isinstance(row, Tower) or type(kind_of(row.kind)) not in kinds:
                return row
            return deviant_tower(row, output=activation)
        return replace(variant, table=with_rows(variant.table, change)), activation

    every = tuple(KINDS.values())
    return [activated("sigmoid", (Binary,)), *(activated(name, every) for name in ACTIVATIONS
                                               if name != "identity")]


def _probabilities(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """All tasks that have probabilities, those of one kind, or one."""
    kinds = {task: kind for task, kind in variant.table.tasks.items() if kind != "regression"}
    some = [tuple(kinds), *(tuple(task for task in kinds if kinds[task] == kind)
                            for kind in kinds.values()), *((task,) for task in kinds)]
    return [(replace(variant, probabilities=tasks), "" if len(tasks) == len(kinds) else
             f"of {', '.join(tasks)}") for tasks in dict.fromkeys(some)]


def _detached(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """One task, all but one, or all."""
    tasks = tuple(variant.table.tasks)
    some = [*((task,) for task in tasks),
            *(tuple(task for task in tasks if task != kept) for kept in tasks), tasks]
    return [(replace(variant, detached=cut), f"of {', '.join(cut)}")
            for cut in dict.fromkeys(some) if cut]


# Losses and Adam --------------------------------------------------------------------------------

def _told(variant: Variant, given: Arrays, what: str) -> tuple[tuple[str, float], ...]:
    """A finite number for each task, `params/WHAT/TASK`; none where one is not given."""
    numbers = {task: given.get(f"params/{what}/{task}") for task in variant.table.tasks}
    found = tuple((task, float(number)) for task, number in numbers.items()
                  if number is not None and number.shape == () and np.isfinite(number))
    return found if len(found) == len(numbers) else ()


def _over_data(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """The other reading of equation 9, with each task's part of the training rows as told."""
    shares = _told(variant, given, "share")
    if not shares or not all(0 < share <= 1 for _, share in shares):
        return []
    return [(replace(variant, divisor="batch", shares=shares), "")]


def _uncertainty(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    """With the logarithm of each task's variance as told."""
    variances = _told(variant, given, "log_variance")
    return [(replace(variant, variances=variances, weight_power=0), "")] if variances else []


def _mean_over_tasks(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    return [(replace(variant, shrink=len(variant.table.tasks)), "")]


@dataclass(frozen=True)
class DeviantAdam(Adam):
    """Adam in another form, and with `l2` times the parameters added to the gradients."""

    form: str = "paper"
    l2: float = 0.0

    def __post_init__(self) -> None:
        """The settings are those of an `Adam` that was checked."""

    def init(self, params: Arrays) -> dict[str, Any]:
        """The state before the first step, with the largest second moments for AMSGrad."""
        return {**super().init(params),
                **{f"w/{name}": np.zeros_like(p) for name, p in params.items()}}

    def step(self, params: Arrays, grads: Arrays, state: Mapping[str, Any], only: Any = None,
             factors: Any = None) -> tuple[dict[str, Array], dict[str, Any]]:
        """One update of all parameters."""
        after, moved, grads = dict(params), dict(state), clipped(grads, self.clip)
        for name, p in params.items():
            g = grads[name] + self.l2 * p
            t = int(state[f"t/{name}"]) + 1
            at = {"ahead": t + 1, "stuck": 1}.get(self.form, t)
            m = self.beta1 * state[f"m/{name}"] + (1 - self.beta1) * g
            v = self.beta2 * state[f"v/{name}"] + (1 - self.beta2) * (g * g)
            one, two = 1 - self.beta1**at, 1 - self.beta2**at
            w = np.maximum(state[f"w/{name}"], v)
            root = np.sqrt(w if self.form == "amsgrad" else v)
            step = m / one
            if self.form.startswith("nadam"):
                betas = [self._momentum(at) for at in range(1, t + 2)]
                both = np.prod(betas[:-1])
                step = (betas[-1] * m / (1 - both * betas[-1]) + (1 - betas[-2]) * g / (1 - both))
            paper = root * two**-0.5 + self.epsilon
            update = step / {"inside": np.sqrt(v / two + self.epsilon),
                             "hat": (root + self.epsilon) * two**-0.5,
                             "uncorrected": (root + self.epsilon) / one}.get(self.form, paper)
            after[name] = p * (1 - self.rate * self.weight_decay) - self.rate * update
            moved |= {f"m/{name}": m, f"v/{name}": v, f"w/{name}": w, f"t/{name}": np.asarray(t)}
        return after, moved

    def _momentum(self, t: int) -> float:
        """What NAdam takes for beta1; PyTorch and Keras have it grow from half of that."""
        return self.beta1 * (1 - 0.5 * 0.96**(0.004 * t) * (self.form == "nadam growing"))


def _adam(**changes: Any) -> Variants:
    def variants(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
        adam = variant.adam
        adam = adam if isinstance(adam, DeviantAdam) else DeviantAdam(**vars(adam))
        return [(replace(variant, adam=replace(adam, **changes)), "")]
    return variants


def _adam_l2(variant: Variant, given: Arrays) -> list[tuple[Variant, str]]:
    decay = variant.adam.weight_decay
    return _adam(l2=decay or 0.01, weight_decay=0.0)(variant, given)


DEVIATIONS = (
    Deviation(
        "selector-input", "the gate's selector is the raw input at every level",
        "the routing above level one ignores what was extracted below, and no gradient reaches "
        "lower levels through the gates",
        (), _gates(_selector_input),
        fix="above level one, give a gate the representation that its level made below"),
    Deviation(
        "selector-below", "the gate's selector above level one is a representation of the level "
        "below, though all gates of a multi-level MMoE select on the input",
        "the routing depends on what was extracted below, as in PLE: the baseline is no longer the "
        "paper's",
        (), _gates(_selector_below),
        fix="give every gate the input"),
    Deviation(
        "last-gate-all", "the last level's gates mix the experts of all tasks",
        "every task's loss reaches every other task's experts on the last level, as in "
        "multi-level MMoE: nothing is separated",
        (), _gates(_last_gate_all),
        fix="let a task's last gate mix its own and the shared experts only"),
    Deviation(
        "stride-parameters", "a task's experts run with the parameters found by stepping through "
        "the list of all experts by the number of tasks instead of by the experts a task has",
        "tasks train and use one another's experts, or shared ones, and some experts are never "
        "used",
        ("PaddlePaddle/PaddleRec, models/multitask/ple/net.py, SinglePLELayer.forward; reported "
         "in pull request 932",), _stride_parameters,
        fix="index the list of experts by experts a task, not by tasks"),
    Deviation(
        "stride-outputs", "a task's gate takes expert outputs found by stepping through the list "
        "of all experts by the number of tasks instead of by the experts a task has",
        "a task mixes other tasks' experts, so its loss reaches them, and leaves some of its own "
        "out",
        (), _gates(_stride_outputs),
        fix="index the list of outputs by experts a task, not by tasks"),
    Deviation(
        "shared-reads-tasks", "above level one the shared experts are run anew on each task's own "
        "representation",
        "what the shared gate extracted is not used, so tasks exchange nothing but the shared "
        "experts' parameters: the layers are not progressive",
        ("median-research-group/LibMTL, LibMTL/architecture/PLE.py; asked about in issue 88",
         "easezyc/Multitask-Recommendation-Library, issue 4"), _shared_reads_tasks,
        fix="run the shared experts once a level, on the shared representation"),
    Deviation(
        "shared-first", "a gate's weights have the shared experts before the specific ones",
        "none for learning; parameters and gate weights of another program are in another order",
        ("median-research-group/LibMTL, LibMTL/architecture/PLE.py",), _gates(_shared_first),
        convention=True,
        fix="put a task's own experts before the shared ones, or declare the convention"),
    Deviation(
        "shared-gate-shared-only", "the shared gate sees only the shared experts",
        "no task's experts feed the shared representation, so knowledge of the tasks never "
        "reaches the levels above through it, and separation is complete from level one",
        ("reczoo/FuxiCTR, model_zoo/multitask/PLE/src/PLE.py, CGC_Layer.forward",),
        _shared_gate_shared_only,
        fix="let the shared gate mix all experts of its level"),
    Deviation(
        "shared-mean", "there is no shared gate: the shared representation is the plain mean of "
        "all experts",
        "every expert counts the same for every sample, and nothing learns which to share",
        (), _gates(_shared_mean),
        fix="give every level but the last a gate for the shared representation"),
    Deviation(
        "shared-input", "there is no shared gate: the shared representation stays the input",
        "the shared experts of every level start from the raw input, and no task's loss reaches "
        "another task's experts",
        (), _gates(_shared_stays),
        fix="give every level but the last a gate for the shared representation"),
    Deviation(
        "gate-bias", "the gates have a bias",
        "a gate can prefer an expert whatever the sample; with a bias of zero the model is the "
        "paper's",
        ("PaddlePaddle/PaddleRec, models/multitask/ple/net.py",
         "median-research-group/LibMTL, LibMTL/architecture/PLE.py",
         "datawhalechina/torch-rechub, torch_rechub/basic/layers.py, MLP as gate"),
        _gates(_gate_bias), convention=True,
        fix="build the gate's last layer without a bias, or declare the convention"),
    Deviation(
        "gate-hidden", "the gates have hidden layers",
        "gates can express more, at the price of parameters",
        ("shenweichen/DeepCTR-Torch, deepctr_torch/models/multitask/ple.py: "
         "gate_dnn_hidden_units=(64,) by default",), _gate_hidden, convention=True,
        fix="make the gate one linear layer, or declare the convention"),
    Deviation(
        "gate-batchnorm", "the gates' logits are batch-normalised",
        "a sample's weights depend on the other samples of its batch, and the gate's own scale is "
        "lost: it cannot become as sharp as it would",
        ("datawhalechina/torch-rechub, torch_rechub/basic/layers.py: MLP puts BatchNorm1d before "
         "the softmax of the gates of torch_rechub/models/multi_task/ple.py",), _batchnorm,
        fix="leave the normalisation out of the gate"),
    Deviation(
        "gate-softmax-batch", "the gates' softmax runs over the batch instead of the experts",
        "the weights of a sample do not sum to one and depend on the batch; a batch of one gives "
        "every expert the weight one",
        (), gates(squash="batch"),
        fix="take the softmax over the last axis, the experts"),
    Deviation(
        "gate-no-softmax", "the gates have no softmax: the logits are the weights",
        "weights may be negative and of any size, so experts are no longer mixed but combined",
        (), gates(squash="none"),
        fix="apply a softmax to the gate's logits"),
    Deviation(
        "gate-sigmoid", "the gates have a sigmoid instead of a softmax",
        "the weights do not sum to one, so experts do not compete and specialise less",
        (), gates(squash="sigmoid"),
        fix="replace the sigmoid by a softmax"),
    Deviation(
        "expert-linear-end", "an expert's last layer has no activation",
        "an expert of one layer is linear, and a level of them adds nothing but the gates' "
        "mixing",
        (), _linear_experts,
        fix="apply the activation after an expert's last layer, too"),
    Deviation(
        "output-probability", "what is given as the tower's output is the probability after it",
        "none for learning; the tensor's name is prediction/TASK",
        (), _probabilities, convention=True,
        fix="hand it in as prediction/TASK, or declare the convention; hand it to no loss that "
        "takes logits"),
    Deviation(
        "tower-activation", "the tower's output goes through an activation before the loss",
        "logits or values cannot take every value: with relu no probability falls below one half, "
        "with sigmoid none leaves the range from 0.5 to 0.73",
        (), _tower_output,
        fix="leave the tower's last layer linear"),
    Deviation(
        "stop-selector", "the gradient is stopped through the selector",
        "lower levels and embeddings do not learn what the gates need to see",
        (), gates(selects=False),
        fix="do not detach what the gate selects on"),
    Deviation(
        "stop-others", "the gradient is stopped through other tasks' experts",
        "the forward pass is the paper's, but no task learns from another: every task is isolated "
        "on every level",
        (), _gates(_others_detached),
        fix="do not detach other tasks' experts"),
    Deviation(
        "stop-gate", "the gradient is stopped through the gate's weights",
        "the gates never learn and stay as they were initialised",
        (), gates(learns=False),
        fix="do not detach the gate's weights"),
    Deviation(
        "loss-sum", "a task's loss is summed over its rows instead of averaged",
        "the step grows with the batch, and tasks with more rows weigh more",
        ("shenweichen/DeepCTR-Torch, deepctr_torch/models/basemodel.py, fit: reduction='sum'",),
        changed(divisor="one"),
        fix="divide a task's loss by its rows"),
    Deviation(
        "loss-batch-mean", "a task's masked loss is divided by the batch size instead of its rows",
        "tasks whose sample space is small are weighed down by just that share",
        ("keras-team/keras, issue 12850, custom_mse",), changed(divisor="batch"),
        fix="divide a task's loss by its own rows, not by the batch"),
    Deviation(
        "loss-data-mean", "a task's masked loss is divided by the batch size times the task's part "
        "of the training rows",
        "none on average: a batch's gradient is an unbiased estimate of that of equation 9 over "
        "the whole training set, where npple takes the mean over the batch's own rows",
        (), _over_data, convention=True,
        fix="divide by the task's rows in the batch, or declare the convention, with each task's "
            "part of the training rows as params/share/TASK"),
    Deviation(
        "loss-mean-over-tasks", "the joint loss is divided by the number of tasks",
        "none but a smaller step; under Adam hardly any",
        ("datawhalechina/torch-rechub, torch_rechub/trainers/mtl_trainer.py, train_one_epoch",),
        _mean_over_tasks,
        fix="add the tasks' losses up"),
    Deviation(
        "weights-twice", "the task weights are applied twice",
        "weights count as their squares: strong tasks dominate",
        (), changed(weight_power=2),
        fix="apply the task weights once"),
    Deviation(
        "weights-ignored", "the task weights are not applied",
        "all tasks weigh the same, whatever was asked for",
        (), changed(weight_power=0),
        fix="multiply each task's loss by its weight"),
    Deviation(
        "adam-epsilon-inside", "Adam adds epsilon inside the square root",
        "small gradients get smaller steps: sqrt(epsilon) is far larger than epsilon",
        ("hand-written optimizers in many small repositories: m_hat / np.sqrt(v_hat + epsilon)",),
        _adam(form="inside"),
        fix="add epsilon after the square root"),
    Deviation(
        "adam-epsilon-hat", "Adam adds epsilon before the bias correction (epsilon hat)",
        "early steps are smaller where gradients are small: epsilon counts up to 30 times",
        ("tensorflow/tensorflow, tensorflow/python/training/adam.py; reported in issue 9047",),
        _adam(form="hat"),
        fix="correct the bias of the second moment before epsilon is added"),
    Deviation(
        "adam-no-correction", "Adam has no bias correction",
        "the first steps are about three times too large",
        (), _adam(form="uncorrected"),
        fix="divide the moments by 1 - beta^t"),
    Deviation(
        "adam-l2", "Adam adds the weight decay to the gradient",
        "the decay is divided by the gradient's size: weights with large gradients hardly decay",
        ("datawhalechina/torch-rechub, torch_rechub/trainers/mtl_trainer.py: torch.optim.Adam "
         "with weight_decay=1e-5 by default",), _adam_l2,
        fix="let the decay act on the parameter, not on the gradient",
        free=Free("decay", lambda variant, number: _adam(l2=number)(variant, {})[0][0],
                  0.01, 0.0, 1e3)),
    Deviation(
        "expert-normalised", "the experts' layers are normalised",
        "with the batch's statistics a sample's experts depend on the other samples; the scale of "
        "an expert is lost",
        (), forms(normalised_experts, ("batch", "over the batch, before the activation"),
                  ("batch after", "over the batch, after the activation"),
                  ("layer", "over the layer, before the activation"),
                  ("layer after", "over the layer, after the activation")),
        fix="leave the normalisation out of the experts, or fold it at inference"),
    Deviation(
        "tower-normalised", "the towers' hidden layers are normalised",
        "with the batch's statistics a sample's output depends on the other samples",
        (), forms(normalised_towers, ("batch", "over the batch, before the activation"),
                  ("batch after", "over the batch, after the activation"),
                  ("layer", "over the layer, before the activation"),
                  ("layer after", "over the layer, after the activation")),
        fix="leave the normalisation out of the towers, or fold it at inference"),
    Deviation(
        "tower-linear-hidden", "the towers' hidden layers have no activation",
        "a tower of any depth is one linear layer",
        (), linear_towers, fix="apply the activation after a tower's hidden layers"),
    Deviation(
        "tower-shared", "two tasks have one tower",
        "the tasks predict the same from what they share",
        (), one_tower, fix="build a tower for each task, in a list of modules"),
    Deviation(
        "weight-transposed", "square weights are used transposed",
        "none for learning from scratch; weights read from elsewhere mean something else",
        (), forms(transposed, (Experts, "the experts'"), (Tower, "the towers'")),
        fix="transpose the weights of both frameworks' layers alike, square ones too"),
    Deviation(
        "gate-temperature", "the gates' logits are divided by a temperature",
        "a high one holds gates near the mean of the experts, a low one makes them choose early",
        (), forms(lambda variant, raw: gates(temperature=2.0, raw=raw)(variant, {})[0][0],
                  (False, ""), (True, "after the logits that were given")),
        fix="feed the logits to the softmax as they are",
        free=Free("temperature", lambda variant, number: gates(temperature=number)(
            variant, {})[0][0], 2.0, 1e-3, 1e3)),
    Deviation(
        "gate-top-k", "the gates keep their largest weights only",
        "experts outside of a sample's first choices learn nothing from it",
        (), forms(top_gates, *((k, f"the first {k}") for k in (1, 2, 3))),
        fix="mix all experts that the gate reads"),
    Deviation(
        "gate-residual", "what a gate selects on is added to its mixture",
        "the levels learn what is missing instead of a representation; the input reaches the "
        "towers past all experts",
        (), residual_gates, fix="return the mixture alone"),
    Deviation(
        "gate-shared", "two tasks have one gate",
        "they cannot weigh the experts differently, which is what gates are there for",
        (), one_for_two(Gate), fix="build a gate for each task, in a list of modules"),
    Deviation(
        "stitch-shared", "two tasks have one row of the cross-stitch unit",
        "both get the same mixture",
        (), one_for_two(Stitch), fix="give each task a row of alpha"),
    Deviation(
        "experts-permuted", "a gate's weights meet the experts of a group in reverse order",
        "none for learning from scratch; weights read from elsewhere mean something else",
        (), permuted, fix="stack the experts in the order in which the gate's columns stand"),
    Deviation(
        "level-reads-mean", "from level two on, everything reads the mean of the tasks' "
        "representations",
        "what was separated on a level is mixed again on the next",
        (), mean_of_tasks, fix="let each stream read its own representation"),
    Deviation(
        "level-off-by-one", "from level two on, rows read what stands one level further below",
        "a level of experts is skipped, and its parameters learn nothing, or little",
        (), level_off_by_one, fix="hand each level what the level before it made"),
    Deviation(
        "stop-shared-by-task", "one task lets no gradient through to the shared experts",
        "the shared experts learn from the other tasks alone",
        (), shared_detached, fix="do not detach the shared experts for any task"),
    Deviation(
        "output-detached", "a task's output is cut off from its loss",
        "nothing learns from the task, its own tower, gate and experts least of all",
        (), _detached,
        fix="compute the loss from the output itself: not detached, under no_grad or from NumPy"),
    Deviation(
        "one-embedding-for-two", "two columns use one embedding table",
        "values of different columns that share a code are one thing to the model",
        (), one_table, fix="build a table for each column"),
    Deviation(
        "padding-idx", "code 0 has an embedding that does not learn",
        "a value that is not missing stands for nothing",
        (), forms(padding, ("zeros", "zeros"), ("kept", "it stays what it is")),
        fix="leave padding_idx out where code 0 is a value"),
    Deviation(
        "unlabelled-negative", "rows outside a task's sample space count as negatives",
        "the model learns the sample space instead of the task",
        (), changed(unlabelled=True),
        fix="leave these rows out of the task's loss"),
    Deviation(
        "positive-weight", "positive rows of binary tasks weigh more, or less",
        "probabilities are no longer calibrated",
        (), changed(positive=2.0), fix="drop the weight of positives",
        free=Free("weight", lambda variant, number: replace(variant, positive=number),
                  2.0, 0.0, 1e6)),
    Deviation(
        "label-smoothing", "binary targets are smoothed",
        "probabilities are drawn to one half",
        (), changed(smoothing=0.1), fix="use the targets as they are",
        free=Free("smoothing", lambda variant, number: replace(variant, smoothing=number),
                  0.1, 0.0, 1.0)),
    Deviation(
        "half-square", "the squared error is halved",
        "regression tasks weigh half of what was asked for",
        (), forms(lambda variant, square: replace(variant, square=square),
                  ("half", "the loss and its gradient"), ("gradient", "in the gradient alone")),
        fix="drop the factor 1/2, or keep the 2 in the gradient"),
    Deviation(
        "loss-factor", "the joint loss is multiplied by a constant",
        "none but another step; under Adam hardly any",
        (), changed(shrink=1.7), fix="drop the factor",
        free=Free("divisor", lambda variant, number: replace(variant, shrink=number),
                  1.7, 1e-6, 1e6)),
    Deviation(
        "loss-clipped", "a row's loss is clipped",
        "rows that are predicted worst teach nothing",
        (), changed(limit=0.5), fix="do not clip losses",
        free=Free("limit", lambda variant, number: replace(variant, limit=number),
                  0.5, 0.0, 1e6)),
    Deviation(
        "uncertainty-weights", "the joint loss sums exp(-s) L + s with an s learned for each task "
        "(uncertainty weights)",
        "the tasks weigh what their noise allows, whatever was asked for",
        (), _uncertainty, fix="add the tasks' losses up by the given weights; s is looked for as "
                              "params/log_variance/TASK"),
    Deviation(
        "masked-target-gradient", "backward multiplies the targets by the mask, not the gradient",
        "rows outside a task's sample space pull its predictions to 0",
        (), changed(leaking=True), fix="multiply the gradient by the mask"),
    Deviation(
        "activation-slope", "the relu of experts and towers has a slope below 0",
        "units are never off",
        (), forms(leaky, (0.01, "")), fix="use the plain relu",
        free=Free("slope", leaky, 0.01, -1.0, 1.0)),
    Deviation(
        "tower-side-by-side", "the towers read the experts of their gate side by side",
        "nothing weighs the experts for a sample; a tower takes all of them in",
        (), towers_on_both, fix="let the tower read the gate's mixture"),
    Deviation(
        "gate-on-experts", "the gates select on the outputs of the experts they mix",
        "the experts decide themselves how much they count, and learn through the weights, too",
        (), forms(on_experts, ("side by side", "side by side"), ("mean", "on their mean"),
                  ("each", "each on its own")),
        fix="give a gate the representation that its level reads"),
    Deviation(
        "gate-by-unit", "the gates have a weight for every unit of an expert, not one for all",
        "a representation is put together from parts of experts, with many more parameters",
        (), by_unit, fix="let a gate have one output an expert"),
    Deviation(
        "streams-overwritten", "representations are overwritten while they are read: gates mix "
        "experts run anew on what other gates of the level have just made",
        "some representations are half a level ahead; which ones depends on the order of a loop",
        (), forms(overwritten, (True, "the shared gate comes last"),
                  (False, "the shared gate comes first")),
        fix="collect the new representations in a new list"),
    Deviation(
        "probability-product", "a task's probability is multiplied by an earlier task's (ESMM)",
        "the task's tower learns what is left of it given the earlier event, over all rows",
        (), multiplied, fix="give each task the probability of its own tower"),
    Deviation(
        "softmax-unsummed", "the softmax's gradient lacks its sum: dz = w dw",
        "raising one weight does not lower the others, so gates drift",
        (), gates(squash="unsummed"), fix="dz = w (dw - sum(w dw))"),
    Deviation(
        "experts-unweighted", "each expert gets the whole gradient of the mixture, not its share",
        "experts learn from samples that their gate does not send them",
        (), gates(weighs=False), fix="dE_i = w_i dy"),
    Deviation(
        "gradient-assigned", "where gradients meet, one takes the place of the others",
        "a representation learns from one of its readers only",
        (), forms(lambda variant, what: replace(variant, assigned=what), ("something", ""),
                  ("nothing", "also by one that is zero")),
        fix="add the gradients of all readers up"),
    Deviation(
        "activation-forgotten", "backward goes past an activation",
        "units that were off learn as if they had been on",
        (), forms(activation_forgotten, (Experts, "the experts'"), (Tower, "the towers'")),
        fix="multiply by the activation's slope"),
    Deviation(
        "mean-for-sum", "the gradients of weights and biases are averaged over the batch once more",
        "steps are too small by the size of the batch",
        (), changed(averaged=True),
        fix="sum over the rows: the loss has been divided by them already"),
    Deviation(
        "adam-time", "Adam's step count is wrong",
        "the bias correction of the first steps is",
        (), lambda variant, given: [
            (_adam(form=form)(variant, given)[0][0], detail) for form, detail in (
                ("ahead", "it is one ahead"), ("stuck", "it stays at one"))],
        fix="count t from 1, once a step"),
    Deviation(
        "adam-amsgrad", "Adam divides by the largest second moment so far (AMSGrad)",
        "steps do not grow again where gradients have become small",
        (), _adam(form="amsgrad"), fix="turn amsgrad off"),
    Deviation(
        "adam-nadam", "Adam's momentum looks one step ahead (NAdam)",
        "the first steps are larger",
        (), forms(lambda variant, form: _adam(form=form)(variant, {})[0][0],
                  ("nadam", "with one beta1"), ("nadam growing", "with a beta1 that grows")),
        fix="use Adam"),
    Deviation(
        "adam-decoupled", "Adam's weight decay is decoupled (AdamW), though none was asked for",
        "parameters shrink at every step",
        (), _adam(l2=0.0, weight_decay=0.01), fix="set the weight decay to 0",
        free=Free("decay", lambda variant, number: _adam(weight_decay=number)(
            variant, {})[0][0], 0.01, 0.0, 1e3)),
    Deviation(
        "adam-clip", "gradients are clipped by their global norm",
        "steps of all parameters hang together, and large gradients count less",
        (), forms(lambda variant, slack: replace(_adam(clip=1.0)(variant, {})[0][0], slack=slack),
                  (0.0, ""), (1e-6, "1e-6 added to the norm, as PyTorch does")),
        fix="turn clipping off",
        free=Free("norm", lambda variant, number: _adam(clip=number)(variant, {})[0][0],
                  1.0, 0.0, 1e6)),
    Deviation(
        "adam-rate", "Adam has another learning rate",
        "all steps are larger, or smaller, by one factor",
        (), _adam(rate=1e-3), fix="set the rate that the vectors name",
        free=Free("rate", lambda variant, number: _adam(rate=number)(variant, {})[0][0],
                  1e-3, 0.0, 1e3)),
    Deviation(
        "adam-epsilon", "Adam has another epsilon",
        "where gradients are small, steps are larger or smaller",
        (), _adam(epsilon=1e-8), fix="set the epsilon that the vectors name",
        free=Free("epsilon", lambda variant, number: _adam(epsilon=number)(variant, {})[0][0],
                  1e-3, 0.0, 1e3)),
    Deviation(
        "adam-momentum", "Adam has another beta1 from its second step on",
        "steps follow the gradients sooner, or later",
        (), _adam(beta1=0.5), fix="set the betas that the vectors name",
        free=Free("beta1", lambda variant, number: _adam(beta1=number)(variant, {})[0][0],
                  0.5, 0.0, 1.0)),
)
BY_NAME = {deviation.name: deviation for deviation in DEVIATIONS}


def deviate(deviation: Deviation, variant: Variant, given: Arrays, fitted: bool = False
            ) -> list[tuple[Variant, str]]:
    """The variants of a deviation that can be built and differ from `variant`, or may once
    `fitted`."""
    try:
        return [(changed, detail) for changed, detail in deviation.variants(variant, given)
                if changed != variant or fitted and deviation.free]
    except (InputError, LookupError, TypeError):  # several together may fit no table
        return []


# Numbers of the candidate's own -----------------------------------------------------------------

def complete(variant: Variant, case: Case, given: Arrays, seen: Arrays | None = None
             ) -> tuple[Variant, Case] | None:
    """The variant and the case with all numbers the variant needs, or None.

    A parameter is the candidate's own where it gives `params/NAME` of the right shape, otherwise
    the bundle's. Biases of gates, and weights of a gate of another width, are found from the
    candidate's logits, which follow from the tensors `seen`.
    """
    params: dict[str, Array] = {}
    fitted: list[tuple[str, Callable[[Array, Array], Array | None]]] = []
    for name, shape in variant.table.shapes.items():
        values = given.get(f"params/{name}"), case.params.get(name)
        value = next((p for p in values if p is not None and p.shape == shape), None)
        if value is None:
            ends = [how for end, how in FITS.items() if name.endswith(end)]
            if not ends or "/gate/" not in name or f"params/{name}" in given:
                return None
            fitted.append((name, ends[0]))
        params[name] = np.zeros(shape) if value is None else value.astype(np.float64)
    for name, fit in fitted:
        found = _found(variant, replace(case, params=params), given, seen or {}, name, fit)
        if found is None or found.shape != params[name].shape:
            return None
        params[name] = found
    return variant, replace(case, params=params)


def _found(variant: Variant, case: Case, given: Arrays, seen: Arrays, name: str,
           fit: Callable[[Array, Array], Array | None]) -> Array | None:
    """A gate's parameter, from the logits that the candidate gives and the paper's without it."""
    gate = name.rsplit("/", 2)[0]
    theirs, row = given.get(f"{gate}/logits"), variant.table.row.get(gate.removesuffix("/gate"))
    if theirs is None or not isinstance(row, Gate) or fit is _weight_of and row.units:
        return None
    flow = Flow(variant, case, seen)
    ours = flow.local(f"{gate}/logits")
    return fit(flow[row.selector], theirs - ours) if theirs.shape == ours.shape else None


def _bias_of(x: Array, rest: Array) -> Array | None:
    """The bias that makes up for what logits lack: rest (batch, n) -> (n,)."""
    return rest.mean(axis=0) if len(rest) > 1 else None


@blas_with_one_thread()
def _weight_of(x: Array, rest: Array) -> Array | None:
    """The weight by which x (batch, d) gives rest (batch, n): (d, n), if the rows say which."""
    if len(x) <= x.shape[1]:
        return None
    found: Array = np.linalg.lstsq(x, rest)[0]
    left = rest - x.astype(np.longdouble) @ found  # what the solution's own rounding leaves
    return found + np.linalg.lstsq(x, left.astype(np.float64))[0]


FITS = {"/bias": _bias_of, "/gate/layer1/weight": _weight_of}
