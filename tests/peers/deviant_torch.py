"""PLE, ML-MMoE, CGC and MMoE in PyTorch, with mistakes to switch on: the oracle's test subject.

Written from the paper and docs/vectors.md, with autograd and torch.optim, and without npple: the
structure is read off the names and shapes of the parameters.
"""

import numpy as np
import torch
from torch.nn import functional as F

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
               "identity": lambda z: z, "gelu": F.gelu,
               "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z))}
BY_HAND = {"adam-epsilon-inside", "adam-epsilon-hat", "adam-no-correction", "adam-time"}


class Candidate:
    """candidate(params, inputs) -> every tensor of docs/vectors.md by name.

    Parameters
    ----------
    vectors
        Read for targets, masks, weights, tasks and Adam's settings.
    cut : bool
        Whether a task's gate sees only its own and the shared experts (PLE), or all (ML-MMoE).
    mistakes : collection of str
        Names of the oracle's catalogue.
    dtype : torch.dtype
    seed : int or None
        Of random orders of summation; None for the plain order.
    stacked : bool
        Experts as one batched product, or one after the other.
    own : dict of ndarray
        Parameters of the candidate's own, in the place of the vectors'.
    give_own : bool
        Whether these are told, as params/NAME.
    """

    def __init__(self, vectors, cut=True, mistakes=(), dtype=torch.float64, seed=None,
                 stacked=False, activation="relu", own=None, give_own=True, decay=0.01,
                 tower_output="gelu"):
        self.vectors, self.cut, self.mistakes = vectors, cut, set(mistakes)
        self.dtype, self.stacked, self.activation = dtype, stacked, ACTIVATIONS[activation]
        self.own, self.give_own, self.decay = own or {}, give_own, decay
        self.tower_output = ACTIVATIONS[tower_output]
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.tasks = dict(vectors.model.tasks)

    # The pass -----------------------------------------------------------------------------------

    def __call__(self, params, inputs):
        values = {name: torch.tensor(array).to(self.dtype) for name, array in
                  (params | self.own).items()}
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        x = self.features(inputs)
        tensors = self.forward(leaves, x)
        results = dict(tensors)
        if "output-probability" in self.mistakes:
            results |= {f"tower/{task}": self.prediction(task, tensors) for task in self.tasks}
        results |= {f"prediction/{task}": self.prediction(task, tensors) for task in self.tasks}
        own, joint = self.losses(tensors, leaves)
        results |= {f"loss[{task}]": loss for task, loss in own.items()} | {"loss": joint}
        results |= {f"grad/{name}": g for name, g in self.grads(joint, leaves, tensors).items()}
        for task, loss in own.items():
            found = self.grads(loss, leaves, tensors)
            results |= {f"grad[{task}]/{name}": g for name, g in found.items()}
        results |= self.adam(values, x)
        if self.give_own:
            results |= {f"params/{name}": values[name] for name in self.own}
        return {name: value.detach() for name, value in results.items()}

    def features(self, inputs):
        if isinstance(inputs, dict):
            return {name: torch.tensor(v).to(self.dtype) if v.dtype.kind == "f"
                    else torch.tensor(v) for name, v in inputs.items()}
        return torch.tensor(inputs).to(self.dtype)

    def forward(self, p, x):
        if isinstance(x, dict):
            x = torch.cat([self.embed(p, name, v) if f"embedding/{name}" in p else v[:, None]
                           for name, v in x.items()], dim=1)
        elif not x.requires_grad:
            x = x.clone().requires_grad_()
        made = {"input": x}
        reps, level = dict.fromkeys((*self.tasks, "shared"), x), 1
        while any(name.startswith(f"level{level}/") for name in p):
            reps = self.extract(p, made, reps, level)
            level += 1
        for task in self.tasks:
            self.tower(p, made, reps[task], task)
        return made

    def embed(self, p, name, codes):
        return p[f"embedding/{name}"][codes]

    def tower(self, p, made, h, task):
        name = f"tower/{task}"
        layers = self.layers(p, name)
        for i in range(1, layers + 1):
            h = self.dense(h, p[f"{name}/layer{i}/weight"], p[f"{name}/layer{i}/bias"])
            if i < layers:
                h = made[f"{name}/layer{i}"] = self.activate(h, name)
        if "tower-activation" in self.mistakes:
            h = self.tower_output(h)
        made[name] = h if self.tasks[task].startswith("multiclass") else h[:, 0]

    def activate(self, h, row):
        return self.activation(h)

    def extract(self, p, made, reps, level):
        """One level: all experts, then the representation of each task and the shared one."""
        streams = [s for s in (*self.tasks, "shared")
                   if f"level{level}/{s}/experts/layer1/weight" in p]
        bank = {s: p[f"level{level}/{s}/experts/layer1/weight"].shape[0] for s in streams}
        experts = {s: self.run(p, made, level, s, reps[s], bank) for s in streams}
        flat = [(s, i) for s in streams for i in range(bank[s])]
        next_reps, last = {}, f"level{level + 1}/{streams[-1]}/experts/layer1/weight" not in p
        for stream in self.order():
            name = f"level{level}/{stream}"
            if stream == "shared" and (last or "shared" not in streams):
                continue
            if stream == "shared" and "shared-input" in self.mistakes:
                next_reps[stream] = made[name] = made["input"].clone()
                continue
            read = self.read(p, level, stream, experts, next_reps, bank)
            if "shared-reads-tasks" in self.mistakes and level > 1 and stream != "shared":
                read = experts | {"shared": self.run(p, {}, level, "shared", reps[stream], bank)}
                made.pop(f"level{level}/shared/experts", None)
                for hidden in [n for n in made if n.startswith(f"level{level}/shared/experts/")]:
                    del made[hidden]
            chosen = self.chosen(stream, streams, bank, flat, last)
            outputs = [self.taken(read[s][i], stream, s) for s, i in chosen]
            if "stop-others" in self.mistakes:
                outputs = [y.detach() if s not in (stream, "shared") else y
                           for y, (s, _) in zip(outputs, chosen)]
            if len(outputs) == 1:
                next_reps[stream] = made[name] = outputs[0]
                continue
            selector = made["input"] if "selector-input" in self.mistakes else reps[stream]
            if "stop-selector" in self.mistakes:
                selector = selector.detach()
            weights = self.gate(p, made, name, selector, chosen, flat, outputs)
            if "stop-gate" in self.mistakes:
                weights = weights.detach()
            next_reps[stream] = made[name] = self.mix(name, weights, outputs, selector)
        return next_reps

    def order(self):
        return *self.tasks, "shared"

    def read(self, p, level, stream, experts, next_reps, bank):
        """The experts' outputs that a stream's gate finds."""
        return experts

    def taken(self, y, stream, source):
        """An expert's output on its way to a gate."""
        return y

    def mix(self, name, weights, outputs, selector):
        return self.total([weights[:, i:i + 1] * y for i, y in enumerate(outputs)])

    def chosen(self, stream, streams, bank, flat, last):
        """The experts a gate mixes, in the order of its weights."""
        tasks = list(self.tasks)
        if stream == "shared" and "shared-gate-shared-only" in self.mistakes:
            return [(s, i) for s, i in flat if s == "shared"]
        mixed = [s for s in streams if not self.cut or stream == "shared"
                 or s in (stream, "shared")]
        if last and "last-gate-all" in self.mistakes:
            mixed = streams
        if "shared-first" in self.mistakes:
            mixed = [s for s in mixed if s == "shared"] + [s for s in mixed if s != "shared"]
        picked = []
        for s in mixed:
            if s == stream and "stride-outputs" in self.mistakes and s in tasks:
                start = tasks.index(s) * len(tasks)
                picked += flat[start:start + bank[s]]
            else:
                picked += [(s, i) for i in range(bank[s])]
        return picked

    def gate(self, p, made, name, selector, chosen, flat, outputs):
        layers = self.layers(p, f"{name}/gate")
        z = selector
        for i in range(1, layers + 1):
            weight, bias = (p.get(f"{name}/gate/layer{i}/{kind}") for kind in ("weight", "bias"))
            z = self.dense(z, weight, bias)
            if i < layers:
                z = made[f"{name}/gate/layer{i}"] = self.activation(z)
        if name.endswith("/shared") and "shared-gate-shared-only" in self.mistakes:
            z = z[:, [i for i, (s, _) in enumerate(flat) if s == "shared"]]
        if "gate-batchnorm" in self.mistakes:
            z = F.batch_norm(z, None, None, training=True)
        if name.endswith("/shared") and "shared-mean" in self.mistakes:
            w = torch.full_like(z, 1 / z.shape[1]) + 0 * z
        elif "gate-softmax-batch" in self.mistakes:
            w = torch.softmax(z, dim=0)
        elif "gate-no-softmax" in self.mistakes:
            w = z
        elif "gate-sigmoid" in self.mistakes:
            w = torch.sigmoid(z)
        else:
            w = self.softmax(z)
        made[f"{name}/gate/logits"], made[f"{name}/gate/weights"] = z, w
        return w

    def softmax(self, z):
        return torch.softmax(z, dim=1)

    def run(self, p, made, level, stream, x, bank):
        """The outputs (n, batch, width) of a group of experts."""
        name = f"level{level}/{stream}/experts"
        layers = self.layers(p, name)
        picks = [(stream, i) for i in range(bank[stream])]
        if "stride-parameters" in self.mistakes and stream != "shared":
            flat = [(s, i) for s in bank for i in range(bank[s])]
            start = list(self.tasks).index(stream) * len(self.tasks)
            picks = flat[start:start + len(picks)]
        weights = [[torch.stack([p[f"level{level}/{s}/experts/layer{k}/{kind}"][i]
                                 for s, i in picks]) for kind in ("weight", "bias")]
                   for k in range(1, layers + 1)]
        h = x.expand(len(picks), *x.shape)
        for k, (weight, bias) in enumerate(weights, start=1):
            if self.stacked:
                h = torch.baddbmm(bias[:, None], h, weight)
            else:
                h = torch.stack([self.dense(h[i], weight[i], bias[i]) for i in range(len(picks))])
            if k < layers or "expert-linear-end" not in self.mistakes:
                h = self.activate(h, name)
            made[name if k == layers else f"{name}/layer{k}"] = h
        return h

    def layers(self, p, name):
        return sum(1 for key in p if key.startswith(f"{name}/layer") and key.endswith("weight"))

    def dense(self, x, weight, bias):
        if self.rng is not None:
            order = self.rng.permutation(x.shape[1])
            x, weight = x[:, order], weight[order]
        return x @ weight if bias is None else x @ weight + bias

    def total(self, parts):
        if self.rng is not None:
            parts = [parts[i] for i in self.rng.permutation(len(parts))]
        return sum(parts[1:], parts[0])

    # Losses, gradients, Adam --------------------------------------------------------------------

    def prediction(self, task, tensors):
        z, kind = tensors[f"tower/{task}"], self.tasks[task]
        return (torch.sigmoid(z) if kind == "binary" else z if kind == "regression"
                else torch.softmax(z, dim=1))

    def losses(self, tensors, p):
        own, joint = {}, 0
        for task in self.tasks:
            own[task] = self.own_loss(task, tensors)
            weight = self.vectors.weights[task]
            weight = (1 if "weights-ignored" in self.mistakes else
                      weight**2 if "weights-twice" in self.mistakes else weight)
            joint = joint + weight * own[task]
        if "loss-mean-over-tasks" in self.mistakes:
            joint = joint / len(self.tasks)
        return own, joint

    def own_loss(self, task, tensors):
        y, mask = self.sample(task)
        rows = self.rows(task, tensors, y)
        order = slice(None) if self.rng is None else self.rng.permutation(len(mask))
        return (rows * mask)[order].sum() / self.divisor(task, mask)

    def sample(self, task):
        return torch.tensor(self.vectors.targets[task]), torch.tensor(self.vectors.masks[task])

    def divisor(self, task, mask):
        return (len(mask) if "loss-batch-mean" in self.mistakes else
                1 if "loss-sum" in self.mistakes else mask.sum())

    def rows(self, task, tensors, y):
        """The loss of each row (batch,)."""
        z, kind = tensors[f"tower/{task}"], self.tasks[task]
        if kind == "binary":
            return F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none")
        if kind == "regression":
            return F.mse_loss(z, y.to(z.dtype), reduction="none")
        return F.cross_entropy(z, y, reduction="none")

    def grads(self, loss, leaves, tensors):
        """Of parameters, towers, representations and expert groups; zeros where unused."""
        wanted = leaves | {name: y for name, y in tensors.items()
                           if "/layer" not in name and "/gate/" not in name}
        found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True,
                                    allow_unused=True)
        return {name: torch.zeros_like(y) if g is None else g
                for (name, y), g in zip(wanted.items(), found)}

    def adam(self, values, x):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        settings, moments, results = self.vectors.adam, {}, {}
        l2 = self.decay if "adam-l2" in self.mistakes else 0.0
        optimizer = self.optimizer(leaves.values(), settings, l2)
        for t in range(1, 13):
            joint = self.losses(self.forward(leaves, x), leaves)[1]
            for name, g in self.grads(joint, leaves, {}).items():
                leaves[name].grad = g
            if self.mistakes & BY_HAND:
                self.by_hand(leaves, moments, t, l2, settings)
            else:
                optimizer.step()
            if t in (1, 2, 12):
                results |= {f"adam{t}/{name}": leaf.detach().clone()
                            for name, leaf in leaves.items()}
        return results

    def optimizer(self, leaves, settings, l2):
        return torch.optim.Adam(leaves, lr=settings.rate, eps=settings.epsilon, weight_decay=l2,
                                betas=(settings.beta1, settings.beta2))

    def by_hand(self, leaves, moments, t, l2, settings):
        b1, b2, eps = settings.beta1, settings.beta2, settings.epsilon
        t = self.time(t)
        for name, leaf in leaves.items():
            g = leaf.grad + l2 * leaf.detach()
            m, v = moments.get(name, (torch.zeros_like(g), torch.zeros_like(g)))
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            moments[name] = m, v
            if "adam-no-correction" in self.mistakes:
                update = m / (v.sqrt() + eps)
            elif "adam-epsilon-inside" in self.mistakes:
                update = m / (1 - b1**t) / (v / (1 - b2**t) + eps).sqrt()
            elif "adam-epsilon-hat" in self.mistakes:
                update = m * (1 - b2**t) ** 0.5 / (1 - b1**t) / (v.sqrt() + eps)
            else:
                update = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps)
            with torch.no_grad():
                leaf -= settings.rate * update

    def time(self, t):
        return t
