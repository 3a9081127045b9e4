"""Can MMoE become PLE? Gates over training, from scratch and from where PLE would have it."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import npple
from npple.architectures import cgc, ml_mmoe, mmoe, ple
from npple.core.base import Array, Arrays, Float64
from npple.core.blocks import blas_with_one_thread
from npple.data import Dataset, vtr_vcr
from npple.lab.finding import Experiment, Found, Panel
from npple.lab.gains import Estimate, estimate
from npple.lab.inspection import utilization
from npple.lab.trials import run_trials
from npple.learn.training import Run, evaluate_model
from npple.network import Network
from npple.optimizers import Adam
from npple.routing import Gate

TASKS = {"vtr": "binary", "vcr": "regression"}
SHUT = 6.0  # the logit of a closed edge is this far below 0 where training starts
CLOSED = 0.01  # a mean weight below it is no edge any more
FAMILIES = {"one level": "cgc", "two levels": "ple"}


@dataclass(frozen=True)
class BecomingSettings:
    """Of all trainings of the experiment; see `EXPERIMENT`."""

    rows: int
    epochs: int
    seeds: int
    inputs: int = 16
    units: int = 16
    dependence: float = 0.8
    batch_size: int = 512
    rate: float = 3e-3


@dataclass(frozen=True)
class Becoming:
    """All networks of a family, trained on the data of one seed; or those from scratch alone."""

    case: str
    seed: int
    settings: BecomingSettings
    scratch: bool = False

    def key(self) -> str:
        """A name for the result, from everything that decides it."""
        facts = asdict(replace(self, settings=replace(self.settings, seeds=0)))  # of other trials
        facts |= {"versions": [npple.__version__, np.__version__], "experiment": "gates"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def run(self, case: object) -> dict[str, Any]:
        """What became of each network: gates after each epoch, metrics of the best ones."""
        started, given = time.process_time(), self.settings
        data = vtr_vcr(given.rows, given.inputs, given.dependence, seed=self.seed)
        parts = Dataset(data.x, {task: data.targets[task] for task in TASKS},
                        {"vcr": data.masks["vcr"]}).split(0.8, self.seed)
        models = _models(self.case, given)
        reference, _ = next(iter(models.values()))
        runs: dict[str, Any] = {}
        best: Arrays = {}
        for name, (model, begin) in models.items():
            if begin and self.scratch:
                continue
            start = begin(model, reference, best, parts[0].x) if begin else None
            run = Run(model, Adam(given.rate), given.batch_size, self.seed, keep_best="per-task",
                      start=start)
            runs[name] = _trained(run, *parts, given.epochs)
            best = best or run.best
        return {"data": self.case, "architecture": FAMILIES[self.case],
                "seed": self.seed, "rate": given.rate, "runs": runs,
                "seconds": round(time.process_time() - started, 3)}


Begin = Callable[[Network, Network, Arrays, Any], dict[str, Array]]


def _models(family: str, given: BecomingSettings) -> dict[str, tuple[Network, Begin | None]]:
    """Name -> the network, and how its start follows from the first one's solution.

    One expert a module for CGC and PLE, three a level for MMoE and ML-MMoE, all of single layers:
    the set-up of PLE, figure 8.
    """
    units = {"expert_units": (given.units,)}
    one: dict[str, Any] = {"task_experts": 1, "shared_experts": 1} | units
    three: dict[str, Any] = {"experts": 3} | units
    if family == "one level":
        return {"cgc": (cgc(given.inputs, TASKS, **one), None),
                "cgc, from cgc": (cgc(given.inputs, TASKS, **one), _same_start),
                "mmoe": (mmoe(given.inputs, TASKS, **three), None),
                "mmoe, gate bias": (mmoe(given.inputs, TASKS, **three, gate_bias=True), None),
                "mmoe, from cgc": (mmoe(given.inputs, TASKS, **three, gate_bias=True), _mmoe_start)}
    return {"ple": (ple(given.inputs, TASKS, **one), None),
            "ple, from ple": (ple(given.inputs, TASKS, **one), _same_start),
            "ml_mmoe": (ml_mmoe(given.inputs, TASKS, **three), None),
            "ml_mmoe, gate bias": (ml_mmoe(given.inputs, TASKS, **three, gate_bias=True), None),
            "ml_mmoe, from ple": (ml_mmoe(given.inputs, TASKS, **three, gate_bias=True),
                                  _ml_mmoe_start),
            "uncut ple, from ple": (ple(given.inputs, TASKS, **one, gate_bias=True, cut=False),
                                    _uncut_start)}


def _trained(run: Run, train: Dataset, test: Dataset, epochs: int) -> dict[str, Any]:
    """Gates at the start and after each epoch, at last each expert's weight; the best metrics."""
    train, validation = train.split(0.9, 0)
    gates = [gate_facts(run.model, run.params, test)]
    before = evaluate_model(run.model, run.params, test)
    for epoch in range(1, epochs + 1):
        run.train(train, validation, epoch)
        gates.append(gate_facts(run.model, run.params, test))
    found = {task: evaluate_model(run.model, params, test)[task]
             for task, params in run.bests.items()}
    return {**{fact: [found[fact] for found in gates] for fact in gates[0]},
            "utilization": utilization(run.model, run.params, test),
            "auc": found["vtr"]["auc"], "mse": found["vcr"]["mse"],
            "start": {"auc": before["vtr"]["auc"], "mse": before["vcr"]["mse"]},
            "late": [run.best_epoch_of(task)["epoch"] == epochs for task in TASKS]}


def gate_facts(model: Network, params: Arrays, data: Dataset) -> dict[str, float]:
    """How the gates use the experts, over the rows.

    Parameters
    ----------
    model : npple.network.Network
        Of two tasks.
    params : dict of ndarray
    data : npple.data.Dataset

    Returns
    -------
    dict of float
        `smallest`, the smallest mean weight of any gate. `least used`, the same where each expert
        counts by the gate that weights it most: near 0 where an expert has collapsed. `entropy`,
        of each row's weights as a share of the largest there is, in the mean over rows and gates:
        0 where one expert has all the weight, 1 where all have the same. `distance`, how far the
        two tasks' last gates are apart: half of the sum of the weights' differences, in the mean
        over the rows: 0 where the tasks mix the same experts alike, 1 where they share none.
    """
    from scipy.special import entr

    trace = model.forward(params, data.x)
    gates = {row.name: row for row in model.table.rows if isinstance(row, Gate)}
    mixed: dict[str, dict[tuple[str, int], Float64]] = {}  # gate -> expert -> (rows,)
    for name, gate in gates.items():
        experts = [(source.name, i) for source in gate.sources
                   for i in range(source.count(model.table))]
        mixed[name] = dict(zip(experts, trace[f"{gate.parameters}/weights"].T.astype(float)))
    first, second = (mixed[tower.reads] for tower in model.table.towers)
    zero = np.zeros(len(data))
    apart = sum(np.abs(first.get(expert, zero) - second.get(expert, zero))
                for expert in {**first, **second})
    means = [(expert, float(w.mean())) for weights in mixed.values()
             for expert, w in weights.items()]
    most: dict[tuple[str, int], float] = {}
    for expert, mean in means:
        most[expert] = max(most.get(expert, 0.0), mean)
    spread = [np.mean(sum(entr(w) for w in weights.values())) / np.log(len(weights))
              for weights in mixed.values()]
    return {"smallest": min(mean for _, mean in means), "least used": min(most.values()),
            "entropy": float(np.mean(spread)), "distance": float(np.mean(apart) / 2)}


# Where PLE would have it -------------------------------------------------------------------------

PLACES = {"vtr": [0, 2], "vcr": [1, 2], "shared": [0, 1, 2]}  # of three experts, whom each mixes


def _same_start(model: Network, same: Network, best: Arrays, x: Any) -> dict[str, Array]:
    """The solution itself: what as many more epochs alone do."""
    return dict(best)


def _mmoe_start(model: Network, cgc: Network, best: Arrays, x: Any) -> dict[str, Array]:
    """MMoE as CGC: the same experts, and the edges that CGC does not have closed."""
    start = model.init(0, np.float32) | _towers(best)
    for part in ("weight", "bias"):
        start[f"level1/shared/experts/layer1/{part}"] = _bank(best, 1, part)
    for task in TASKS:
        start |= _gate(f"level1/{task}", best[f"level1/{task}/gate/layer1/weight"], PLACES[task])
    return start


def _uncut_start(model: Network, ple: Network, best: Arrays, x: Any) -> dict[str, Array]:
    """PLE with no edge cut as PLE: exactly, but for what passes the closed edges."""
    start = model.init(0, np.float32)
    start |= {name: values for name, values in best.items() if "/gate/" not in name}
    for name, values in best.items():
        if "/gate/" in name:
            level, stream = name.split("/")[:2]
            start |= _gate(f"{level}/{stream}", values, PLACES[stream])
    return start


@blas_with_one_thread()
def _ml_mmoe_start(model: Network, ple: Network, best: Arrays, x: Any) -> dict[str, Array]:
    """ML-MMoE near PLE: its last gates select on the input, so they are fitted to PLE's."""
    start = model.init(0, np.float32) | _towers(best)
    trace = ple.forward(best, x)
    for part in ("weight", "bias"):
        start[f"level1/shared/experts/layer1/{part}"] = _bank(best, 1, part)
        for number, stream in enumerate(PLACES, start=1):
            start[f"level2/expert{number}/experts/layer1/{part}"] = best[
                f"level2/{stream}/experts/layer1/{part}"]
    for number, stream in enumerate(PLACES, start=1):
        start |= _gate(f"level1/expert{number}", best[f"level1/{stream}/gate/layer1/weight"],
                       PLACES[stream])
    columns = np.column_stack([x, np.ones(len(x))])
    for task in TASKS:
        logits = np.log(np.maximum(trace[f"level2/{task}/gate/weights"], 1e-6))
        fitted = np.linalg.lstsq(columns, logits[:, :1] - logits[:, 1:], rcond=None)[0]
        own = np.column_stack([fitted, np.zeros(len(fitted))])  # against the shared expert's 0
        start |= _gate(f"level2/{task}", own[:-1], PLACES[task], own[-1])
    return {name: values.astype(np.float32) for name, values in start.items()}


def _towers(best: Arrays) -> dict[str, Array]:
    return {name: values for name, values in best.items() if name.startswith("tower/")}


def _bank(best: Arrays, level: int, part: str) -> Array:
    """The experts of the tasks and the shared one as one group (3, ...)."""
    return np.concatenate([best[f"level{level}/{name}/experts/layer1/{part}"] for name in PLACES])


def _gate(into: str, weight: Array, places: Sequence[int], bias: Any = 0) -> dict[str, Array]:
    """A gate over three experts that gives those at `places` the weights of a gate over them."""
    wide = np.zeros((len(weight), 3), np.float32)
    wide[:, places] = weight
    logits = np.full(3, -SHUT, np.float32)
    logits[places] = bias
    return {f"{into}/gate/layer1/weight": wide, f"{into}/gate/layer1/bias": logits}


# All of it ---------------------------------------------------------------------------------------

def trained(given: BecomingSettings, scratch: bool = False, **where: Any) -> list[dict[str, Any]]:
    """The results of all trainings.

    Parameters
    ----------
    given : BecomingSettings
    scratch : bool
        Without the networks that start where PLE would have them.
    **where
        For `npple.lab.trials.run_trials`.

    Returns
    -------
    list of dict
    """
    made = [Becoming(family, seed, given, scratch) for seed in range(given.seeds)
            for family in FAMILIES]
    by_key = {trial.key(): trial for trial in made}
    done = run_trials(by_key, dict.fromkeys(FAMILIES), **where, known={})
    return [done[key] for key in by_key]


def measure(given: BecomingSettings, **where: Any) -> Found:
    """All trainings, and what they say.

    Parameters
    ----------
    given : BecomingSettings
    **where
        For `npple.lab.trials.run_trials`.

    Returns
    -------
    npple.lab.finding.Found
    """
    return found_of(trained(given, **where))


def found_of(results: Sequence[Mapping[str, Any]]) -> Found:
    """The table and the parts of the claim.

    Parameters
    ----------
    results : sequence of dict
        From `trained`.

    Returns
    -------
    npple.lab.finding.Found
    """
    table: dict[str, dict[str, Any]] = {}
    panels, parts = list[Panel](), list[bool]()
    for family, reference in FAMILIES.items():
        found = [result["runs"] for result in results if result["data"] == family]
        for name in found[0]:
            runs, base = [each[name] for each in found], [each[
                f"{reference}, from {reference}" if " from " in name else reference]
                for each in found]
            table[name] = _row(runs, base)
            if name != reference and " from " not in name:
                lead = estimate([b["distance"][-1] - r["distance"][-1]
                                 for r, b in zip(runs, base)])
                table[name]["nearer than in PLE"] = lead
                parts += [all(run["smallest"][-1] > CLOSED for run in runs),
                          bool(lead and lead.direction > 0)]
        panels += panels_of(found, family, [name for name in found[0]
                                            if name != f"{reference}, from {reference}"],
                            {"smallest": "smallest mean weight",
                             "distance": "distance of the tasks' gates"})
    return Found(table, parts, _reason(parts, table), results, panels)


def panels_of(found: Sequence[Mapping[str, Any]], family: str, names: Sequence[str],
              facts: Mapping[str, str]) -> list[Panel]:
    """Pictures of what gates do over training: one for each fact, a line a network.

    Parameters
    ----------
    found : sequence of dict
        The runs of a family, seed by seed.
    family : str
    names : sequence of str
        Of its networks.
    facts : dict of str
        Of `gate_facts` -> in words.

    Returns
    -------
    list of npple.lab.finding.Panel
    """
    return [Panel(f"{family}: {words}", words,
                  {name: [runs[name][fact] for runs in found] for name in names},
                  fact == "smallest") for fact, words in facts.items()]


def _row(runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
         ) -> dict[str, Estimate | None]:
    """A network's line: its gates at the start and at the end, its metrics, and what it gains.

    The gain is relative, in the mean over both tasks: the share that is gone of what CGC or PLE
    leaves to be gained, after as many epochs.
    """
    left = [np.mean([1 - each["auc"] for each in base]), np.mean([each["mse"] for each in base])]
    gains = [float(np.mean([(run["auc"] - own["auc"]) / left[0], (own["mse"] - run["mse"]) / left[1]
                            ])) for run, own in zip(runs, base)]
    return {"smallest at start": estimate([run["smallest"][0] for run in runs]),
            "smallest": estimate([run["smallest"][-1] for run in runs]),
            "distance at start": estimate([run["distance"][0] for run in runs]),
            "distance": estimate([run["distance"][-1] for run in runs]),
            "vtr auc": estimate([run["auc"] for run in runs]),
            "vcr mse": estimate([run["mse"] for run in runs]),
            "gain over cgc or ple": None if runs[0] is base[0] else estimate(gains)}


def _reason(parts: Sequence[bool], table: Mapping[str, Mapping[str, Any]]) -> str:
    stay = [name.partition(",")[0] for name, row in table.items()
            if " from " in name and row["smallest"].mean < CLOSED
            and row["gain over cgc or ple"] is not None]
    opened, apart = sum(parts[::2]), sum(parts[1::2])
    return (f"From scratch no mean weight falls below {CLOSED:g} in {opened} of {len(parts) // 2} "
            f"networks, and the tasks' gates are nearer to each other than in CGC or PLE, beyond "
            f"noise, in {apart}. Started there, so many stay, with an edge below {CLOSED:g}: "
            f"{len(stay)} ({', '.join(stay) or 'none'}).")


EXPERIMENT = Experiment(
    "mmoe-becomes-ple",
    "MMoE and ML-MMoE could become CGC and PLE, but do not find the way: no mean gate weight "
    "is zero, and the tasks' gates differ less than in CGC and PLE "
    "(PLE, sections 2.1, 4.2 and 5.3)",
    BecomingSettings(20_000, 8, 3), BecomingSettings(60_000, 20, 5), measure)
