"""The contenders: npple's PLE and the same model, with the same parameters, in PyTorch and JAX.

Each has `predict()`, `loss()`, `gradients()` (forward and backward) and `step()` (with Adam) on a
batch it was made for.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

import npple
from npple.learn.dataset import Dataset
from npple.learn.training import predict

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests/peers

RATE = 1e-6  # small: however many steps a contender gets, it computes with about the same numbers


@dataclass(frozen=True)
class Shape:
    """A PLE with experts of one layer, and a batch."""

    batch: int
    inputs: int | dict
    units: int
    tasks: int = 2
    specific: int = 3
    shared: int = 3
    levels: int = 2
    tower: int = 64


@dataclass(frozen=True)
class Problem:
    """A model, its parameters and a batch, as `Network.loss_and_grads` takes them."""

    model: npple.Network
    params: dict
    x: np.ndarray | dict
    targets: dict

    @classmethod
    def random(cls, shape, dtype, seed=0):
        """A random batch for a shape."""
        tasks = {f"task{i + 1}": ("binary", "regression")[i % 2] for i in range(shape.tasks)}
        model = npple.ple(shape.inputs, tasks, levels=shape.levels, task_experts=shape.specific,
                          shared_experts=shape.shared, expert_units=(shape.units,),
                          tower_units=(shape.tower,))
        rng = np.random.default_rng(seed)
        if isinstance(shape.inputs, int):
            x = rng.normal(size=(shape.batch, shape.inputs)).astype(dtype)
        else:
            x = {name: rng.integers(0, kind[0], shape.batch)
                 for name, kind in shape.inputs.items()}
        targets = {task: rng.integers(0, 2, shape.batch).astype(dtype) for task in tasks}
        return cls(model, model.init(seed, dtype), x, targets)


class Npple:
    """What a training does: the batch is checked once, before the first step."""

    def __init__(self, problem):
        self.model, self.params = problem.model, problem.params
        self.batch = problem.x, problem.targets
        self.data = Dataset(problem.x, {}, {})
        self.everyone = dict.fromkeys(self.model.tasks)  # no masks
        self.weights = dict.fromkeys(self.model.tasks, 1.0)
        self.optimizer = npple.Adam(rate=RATE)
        self.state = self.optimizer.init(self.params)

    def predict(self):
        return predict(self.model, self.params, self.data)

    def loss(self):
        return sum(self.model.task_losses(self.params, *self.batch).values())

    def gradients(self):
        return self.model.run((self.model.table, self.params, *self.batch, self.everyone, {}),
                              self.weights)

    def step(self):
        _, grads, _ = self.gradients()
        self.params, self.state = self.optimizer.step(self.params, grads, self.state)


class Checked(Npple):
    """The public calls, which check everything each time."""

    def gradients(self):
        return self.model.losses_and_grads(self.params, *self.batch)

    def step(self):
        _, grads, _ = self.gradients()
        self.params, self.state = self.optimizer.step(self.params, grads, self.state)


class Torch:
    """What an expert would run: one fused Adam, gradients set to None, inference mode."""

    def __init__(self, outputs, parameters, x, problem, probabilities=False, compiled=False):
        import torch
        from torch.nn import functional as F

        tasks = problem.model.tasks
        y = {task: torch.from_numpy(target) for task, target in problem.targets.items()}
        binary = F.binary_cross_entropy if probabilities else F.binary_cross_entropy_with_logits

        def joint_loss(x, y):
            return sum((binary if tasks[task] == "binary" else F.mse_loss)(z, y[task])
                       for task, z in outputs(x).items())

        def predictions(x):
            return {task: z.sigmoid() if tasks[task] == "binary" and not probabilities else z
                    for task, z in outputs(x).items()}

        self.batch = x, y
        self.parameters = list(parameters)
        self.inference_mode = torch.inference_mode
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE, fused=True)
        self.joint_loss = torch.compile(joint_loss) if compiled else joint_loss
        self.predictions = torch.compile(predictions) if compiled else predictions

    def predict(self):
        with self.inference_mode():
            return self.predictions(self.batch[0])

    def loss(self):
        with self.inference_mode():
            return self.joint_loss(*self.batch).item()

    def gradients(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.joint_loss(*self.batch).backward()

    def step(self):
        self.gradients()
        self.optimizer.step()


def looped(problem):
    """A list of `nn.Linear` for each group of experts, and a loop over them."""
    import torch
    from peers.torch_models import PLE, load
    from npple.routing import Experts

    table = problem.model.table
    counts = [{group.name.split("/")[1]: group.count for group in level.groups}
              for level in table.levels]
    inputs = table.inputs if isinstance(table.inputs, int) else dict(table.inputs)
    units = [row.units for row in table.rows if isinstance(row, Experts) and "shared" in row.name]
    module = PLE(inputs, table.tasks, len(counts), counts, [each["shared"] for each in counts],
                 units, table.towers[0].units, "relu", gate_units=(), gate_bias=False)
    load(module.to(_dtype(problem)), problem.params)
    x = ({name: torch.from_numpy(column) for name, column in problem.x.items()}
         if isinstance(problem.x, dict) else torch.from_numpy(problem.x))
    return Torch(module, module.parameters(), x, problem)


def stacked(problem, wide, compiled=False):
    """The experts that read one representation as one layer; see `stacked_ple`."""
    from stacked_ple import StackedPLE, features

    module = StackedPLE(problem.model.table, problem.params, wide, joined=compiled)
    return Torch(module, module.parameters(), features(problem.model.table, problem.x), problem,
                 compiled=compiled)


def deepctr_torch(problem):
    """`deepctr_torch.models.PLE`, which has as many shared experts as specific ones a task."""
    import torch
    from peers import frameworks
    from npple.oracle.adapters import load_module
    with mock.patch("threading.Thread.start"):  # at import it asks the network for a newer version
        from deepctr_torch.inputs import DenseFeat, SparseFeat
        from deepctr_torch.models import PLE

    table, tasks = problem.model.table, problem.model.tasks
    group = table.levels[0].groups[0]
    columns = ([DenseFeat("x", table.inputs)] if isinstance(table.inputs, int) else
               [SparseFeat(name, size, embedding_dim=width)
                for name, (size, width) in table.inputs])
    module = PLE(columns, group.count, group.count, len(table.levels), group.units, (),
                 table.towers[0].units, task_types=list(tasks.values()), task_names=list(tasks))
    load_module(module.to(_dtype(problem)), *frameworks.deepctr_torch(module), problem.params)
    x = np.stack(list(problem.x.values()), 1) if isinstance(problem.x, dict) else problem.x
    return Torch(lambda x: dict(zip(tasks, module(x).unbind(1))), module.parameters(),
                 torch.from_numpy(x).to(_dtype(problem)), problem, probabilities=True)


def jax_jit(problem):
    """`jax.jit` of the whole step; see `jax_ple`."""
    from jax_ple import Jax
    from stacked_ple import codes_and_numbers

    return Jax(problem, codes_and_numbers(problem.model.table, problem.x), RATE)


CONTENDERS = {
    "npple": Npple,
    "checked": Checked,
    "looped": looped,
    "stacked": partial(stacked, wide=False),
    "wide": partial(stacked, wide=True),
    "compiled": partial(stacked, wide=True, compiled=True),
    "deepctr": deepctr_torch,
    "jax": jax_jit,
}


def make(names, problem):
    """Contenders by name, after a check that they compute the same loss.

    Those whose packages are not installed are left out. `learns` says of each whether three steps
    of Adam change its loss as they change that of the first.
    """
    made = {}
    for name in names:
        try:
            made[name] = CONTENDERS[name](problem)
        except ImportError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    rtol = {"float32": 1e-4, "float64": 1e-10}[str(next(iter(problem.params.values())).dtype)]
    expected = None
    for name, contender in made.items():
        losses = [contender.loss()]
        for _ in range(3):
            contender.step()
            losses.append(contender.loss())
        expected = losses if expected is None else expected
        np.testing.assert_allclose(losses[0], expected[0], rtol=rtol, err_msg=name)
        change = (losses[3] - losses[0]) / (expected[3] - expected[0])
        contender.learns = abs(change - 1) < 0.03  # float32 rounds such differences to a percent
        if not contender.learns:
            print(f"{name}: wrong gradients, the loss changes by {change:.3f} of what it should",
                  file=sys.stderr)
    return made


def _dtype(problem):
    import torch
    return getattr(torch, str(next(iter(problem.params.values())).dtype))
