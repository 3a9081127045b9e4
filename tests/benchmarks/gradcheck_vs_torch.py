"""Time of an exhaustive gradient check of one PLE: npple's complex-step and PyTorch's gradcheck.

    python tests/benchmarks/gradcheck_vs_torch.py

The same parameters, batch and joint loss, in float64, in one run; each the best of three. PyTorch's
is `torch.autograd.gradcheck` with its defaults: every entry by central differences.
"""

import time

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

import npple
from npple.gradcheck import gradcheck
from npple.random_case import random_case

TASKS = {"click": "binary", "watch": "regression"}
LOSS = {"click": binary_cross_entropy_with_logits, "watch": mse_loss}


def torch_loss(params, x, targets):
    """The sum of both tasks' losses of a two-level PLE with one-layer experts and linear gates."""
    def experts(name, read):
        layer = f"{name}/experts/layer1"
        weight, bias = params[f"{layer}/weight"], params[f"{layer}/bias"]
        return torch.baddbmm(bias[:, None], read.expand(len(weight), *read.shape), weight).relu()

    def gate(name, read, mixed):
        weights = torch.softmax(read @ params[f"{name}/gate/layer1/weight"], dim=-1)
        return torch.einsum("bn,nbw->bw", weights, torch.cat(mixed))

    reads = dict.fromkeys((*TASKS, "shared"), x)
    for level in ("level1", "level2"):
        made = {name: experts(f"{level}/{name}", read) for name, read in reads.items()}
        reads = {task: gate(f"{level}/{task}", reads[task], [made[task], made["shared"]])
                 for task in TASKS} | ({"shared": gate(f"{level}/shared", reads["shared"],
                                                       list(made.values()))}
                                       if level == "level1" else {})
    loss = 0
    for task in TASKS:
        tower = f"tower/{task}"
        h = torch.addmm(params[f"{tower}/layer1/bias"], reads[task],
                        params[f"{tower}/layer1/weight"]).relu()
        z = torch.addmm(params[f"{tower}/layer2/bias"], h, params[f"{tower}/layer2/weight"])
        loss = loss + LOSS[task](z[:, 0], targets[task])
    return loss


def best_of_three(run):
    """Seconds of the fastest of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    """Checks that both compute the same loss, then times both checks."""
    torch.set_num_threads(1)  # the matrices are small: more threads only wait for each other
    model = npple.ple(inputs=12, tasks=TASKS, levels=2, task_experts=2, shared_experts=2,
                      expert_units=(12,), tower_units=(8,))
    case = random_case(model, seed=0, batch=8)
    targets = {task: np.asarray(target, np.float64) for task, target in case.targets.items()}
    names = list(case.params)
    tensors = [torch.tensor(case.params[name], requires_grad=True) for name in names]
    x = torch.tensor(case.x)
    torch_targets = {task: torch.tensor(target) for task, target in targets.items()}

    def loss(*values):
        return torch_loss(dict(zip(names, values)), x, torch_targets)

    ours, _ = model.loss_and_grads(case.params, case.x, targets)
    np.testing.assert_allclose(loss(*tensors).item(), ours, rtol=1e-12)

    report = gradcheck(model, case.params, case.x, targets).check()
    seconds = best_of_three(lambda: gradcheck(model, case.params, case.x, targets))
    torch_seconds = best_of_three(lambda: torch.autograd.gradcheck(loss, tensors))
    print(f"PLE with {report.checked} parameters, batch 8, every parameter checked")
    print(f"npple complex-step        {seconds:8.3f} s   largest error "
          f"{report.max_relative_error:.1e}")
    print(f"torch.autograd.gradcheck  {torch_seconds:8.3f} s   its tolerance 1e-3")
    print(f"ratio                     {seconds / torch_seconds:8.3f}")


if __name__ == "__main__":
    main()
