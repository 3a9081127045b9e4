"""More mistakes for `deviant_torch`'s program: what people write by hand, or choose otherwise.

Each is a switch in a step of the program. A backward pass that is wrong has the value of one tensor
and the gradient of another (`valued`).
"""

import torch
from deviant_torch import Candidate
from torch.nn import functional as F


def valued(y, other):
    """The value of y, the gradient of another tensor."""
    return y.detach() + (other - other.detach())


class Mistaken(Candidate):
    """A candidate with mistakes of the rest of the catalogue; `form` says which of its kinds."""

    def __init__(self, *args, form="", **options):
        super().__init__(*args, **options)
        self.form, (self.first, self.second) = form, list(self.tasks)[:2]
        self.top = max(int(name[5]) for name in self.vectors.params if name.startswith("level"))

    def has(self, mistake, *forms):
        return mistake in self.mistakes and (not forms or self.form in forms)

    def __call__(self, params, inputs):
        if self.has("tower-side-by-side"):
            params = {name: p for name, p in params.items()
                      if not (name.startswith(f"level{self.top}/") and "/gate/" in name)}
        return super().__call__(params, inputs)

    # Inputs and levels --------------------------------------------------------------------------

    def embed(self, p, name, codes):
        if self.has("one-embedding-for-two"):
            name = next(key for key in p if key.startswith("embedding/")).partition("/")[2]
        table = p[f"embedding/{name}"]
        if not self.has("padding-idx"):
            return table[codes]
        if self.form == "zeros":
            table = table * torch.arange(len(table)).clamp(max=1)[:, None]
        return F.embedding(codes, table, padding_idx=0)

    def forward(self, p, x):
        self.levels, self.readers = [], {}
        return super().forward(p, x)

    def extract(self, p, made, reps, level):
        self.levels.append(reps)
        if self.has("level-reads-mean") and level > 1:
            reps = dict.fromkeys(reps, sum(reps[task] for task in self.tasks) / len(self.tasks))
        if self.has("level-off-by-one") and level > 1:
            reps = self.levels[level - 2]
        return super().extract(p, made, reps, level)

    def order(self):
        early = self.has("streams-overwritten", "shared first")
        return ("shared", *self.tasks) if early else super().order()

    def read(self, p, level, stream, experts, next_reps, bank):
        late = [] if self.form else self.tasks if stream == "shared" else []
        anew = late or [s for s in next_reps if s == "shared" != stream]
        if not self.has("streams-overwritten"):
            return experts
        return experts | {s: self.run(p, {}, level, s, next_reps[s], bank) for s in anew}

    def once(self, what, reader):
        """Whether this reader is the first of what it reads."""
        return self.readers.setdefault(what, reader) == reader

    def taken(self, y, stream, source):
        held = (self.has("stop-shared-by-task") and (stream, source) == (self.second, "shared")
                or self.has("gradient-assigned")
                and not self.once(f"{len(self.levels)}/{source}", stream))
        return y.detach() if held else y

    # Rows ---------------------------------------------------------------------------------------

    def run(self, p, made, level, stream, x, bank):
        if self.has("weight-transposed", "experts"):
            p = self.transposed(p, f"level{level}/")
        if self.has("gradient-assigned") and level == 1 and not self.once("input", stream):
            x = x.detach()
        return super().run(p, made, level, stream, x, bank)

    @staticmethod
    def transposed(p, start):
        return {name: w.transpose(-1, -2) if name.startswith(start) and name.endswith("weight")
                and "/gate/" not in name and w.shape[-1] == w.shape[-2] else w
                for name, w in p.items()}

    def activate(self, h, row):
        experts = "/experts" in row
        norm = ("expert" if experts else "tower") + "-normalised"
        if self.has(norm, "batch", "layer"):
            h = self.normalised(h)
        y = super().activate(h, row)
        if self.has(norm, "batch after", "layer after"):
            y = self.normalised(y)
        if self.has("activation-slope"):
            y = F.leaky_relu(h, 0.01)
        if self.has("activation-forgotten", "experts" if experts else "towers"):
            y = valued(y, h)
        return h if self.has("tower-linear-hidden") and not experts else y

    def normalised(self, h):
        if self.form.startswith("layer"):
            return F.layer_norm(h, h.shape[-1:])
        if h.ndim == 3:  # (n, batch, width)
            return torch.stack([self.normalised(each) for each in h])
        return F.batch_norm(h, None, None, training=True)

    def chosen(self, stream, *args):
        picked = super().chosen(stream, *args)
        if self.has("experts-permuted"):
            groups = dict.fromkeys(s for s, _ in picked)
            picked = [pair for group in groups for pair in picked[::-1] if pair[0] == group]
        return picked

    def tower(self, p, made, h, task):
        if self.has("weight-transposed", "towers"):
            p = self.transposed(p, "tower/")
        if self.has("tower-shared") and task == self.second:
            p = p | {name.replace(self.first, task): w for name, w in p.items()
                     if name.startswith(f"tower/{self.first}/")}
        super().tower(p, made, h, task)

    # Gates --------------------------------------------------------------------------------------

    def gate(self, p, made, name, selector, chosen, flat, outputs):
        level, stream = name.split("/")
        weight = f"{name}/gate/layer1/weight"
        if self.has("tower-side-by-side") and weight not in p:
            return None
        lent = self.has("gate-shared", "lent")  # the last task has the second's, not the first's
        if self.has("gate-shared") and stream == (list(self.tasks)[-1] if lent else self.second):
            lender = self.second if lent and stream != self.second else self.first
            p = p | {weight: p[f"{level}/{lender}/gate/layer1/weight"]}
        if self.has("gradient-assigned"):  # experts read the same, and come first
            selector = selector.detach()
        if self.has("gate-on-experts"):
            selector = (torch.cat(outputs, dim=1) if self.form == "side by side" else
                        sum(outputs) / len(outputs))
        self.mixed = outputs
        weights = super().gate(p, made, name, selector, chosen, flat, outputs)
        if self.has("gate-on-experts", "each"):
            z = made[f"{name}/gate/logits"] = torch.cat([y @ p[weight] for y in outputs], dim=1)
            weights = made[f"{name}/gate/weights"] = torch.softmax(z, dim=1)
        if self.has("gate-temperature", ""):
            made[f"{name}/gate/logits"] = made[f"{name}/gate/logits"] / 2
        return weights

    def softmax(self, z):
        if self.has("gate-temperature"):
            return torch.softmax(z / 2, dim=1)
        if self.has("gate-top-k"):
            values, kept = z.topk(min(int(self.form), z.shape[1]), dim=1)
            return torch.softmax(torch.full_like(z, -torch.inf).scatter(1, kept, values), dim=1)
        if self.has("softmax-unsummed"):
            w = torch.softmax(z, dim=1)
            return valued(w, w.detach() * z)
        if self.has("gate-by-unit"):  # the first expert's units come first
            return torch.softmax(z.reshape(len(z), len(self.mixed), -1), dim=1).reshape(z.shape)
        return super().softmax(z)

    def mix(self, name, weights, outputs, selector):
        if weights is None:
            return torch.cat(outputs, dim=1)
        if self.has("gate-by-unit"):
            weights = weights.reshape(len(weights), len(outputs), -1)
            return (weights * torch.stack(outputs, dim=1)).sum(dim=1)
        y = super().mix(name, weights, outputs, selector)
        if self.has("experts-unweighted"):
            return valued(y, sum(weights[:, i:i + 1] * e.detach() + e
                                 for i, e in enumerate(outputs)))
        return y + selector if self.has("gate-residual") and selector.shape == y.shape else y

    # Losses -------------------------------------------------------------------------------------

    def sample(self, task):
        y, mask = super().sample(task)
        return (y * mask, mask | True) if self.has("unlabelled-negative") else (y, mask)

    def divisor(self, task, mask):
        share = self.own.get(f"share/{task}")
        return super().divisor(task, mask) if share is None else len(mask) * float(share)

    def own_loss(self, task, tensors):
        loss = super().own_loss(task, tensors)
        if self.has("masked-target-gradient"):
            y, mask = self.sample(task)
            loss = valued(loss, self.rows(task, tensors, y * mask).sum() / mask.sum())
        cut = self.has("output-detached") and (self.form == "all" or task == self.second)
        return valued(loss, 0 * loss) if cut else loss

    def rows(self, task, tensors, y):
        z, kind = tensors[f"tower/{task}"], self.tasks[task]
        if self.has("label-smoothing") and kind == "binary":
            y = y * 0.9 + 0.05
        rows = super().rows(task, tensors, y)
        if self.has("positive-weight") and kind == "binary":
            rows = F.binary_cross_entropy_with_logits(
                z, y.to(z.dtype), reduction="none", pos_weight=torch.tensor(2.0, dtype=z.dtype))
        if self.has("probability-product") and kind == "binary":
            rows = F.binary_cross_entropy(self.prediction(task, tensors), y.to(z.dtype),
                                          reduction="none")
        if self.has("half-square") and kind == "regression":
            rows = valued(rows, rows / 2) if self.form else rows / 2
        return rows.clamp(max=0.5) if self.has("loss-clipped") else rows

    def prediction(self, task, tensors):
        p = super().prediction(task, tensors)
        binary = [each for each, kind in self.tasks.items() if kind == "binary"]
        if self.has("probability-product") and task == binary[1]:
            p = p * super().prediction(binary[0], tensors)
        return p

    def losses(self, tensors, p):
        own, joint = super().losses(tensors, p)
        if self.has("uncertainty-weights"):
            joint = sum(torch.exp(-p[f"log_variance/{task}"]) * loss + p[f"log_variance/{task}"]
                        for task, loss in own.items())
        return own, joint / 1.7 if self.has("loss-factor") else joint

    # Gradients, Adam ----------------------------------------------------------------------------

    def grads(self, loss, leaves, tensors):
        rows = len(next(iter(self.vectors.targets.values())))
        return {name: g / rows if self.has("mean-for-sum") and name in leaves
                and not name.startswith("embedding/") else g
                for name, g in super().grads(loss, leaves, tensors).items()}

    def optimizer(self, leaves, settings, l2):
        leaves = list(leaves)
        kind = (torch.optim.NAdam if self.has("adam-nadam") else
                torch.optim.AdamW if self.has("adam-decoupled") else torch.optim.Adam)
        made = kind(leaves, lr=1e-3 if self.has("adam-rate") else settings.rate,
                    eps=1e-8 if self.has("adam-epsilon") else settings.epsilon,
                    betas=(0.5 if self.has("adam-momentum") else settings.beta1, settings.beta2),
                    weight_decay=0.01 if self.has("adam-decoupled") else 0.0,
                    **{"amsgrad": True} if self.has("adam-amsgrad") else {})
        if self.has("adam-clip"):
            made.register_step_pre_hook(
                lambda *_: torch.nn.utils.clip_grad_norm_(leaves, 0.5) and None)
        return made

    def time(self, t):
        return t + 1 if self.has("adam-time", "ahead") else 1 if self.has("adam-time") else t


class CrossStitch(Mistaken):
    """Networks of one expert a task, whose outputs are mixed by learned numbers on each level."""

    def extract(self, p, made, reps, level):
        outputs = [self.run(p, made, level, task, reps[task], {task: 1})[0] for task in self.tasks]
        mixed = {}
        for task in self.tasks:
            owner = self.first if self.has("stitch-shared") and task == self.second else task
            alpha = p[f"level{level}/{owner}/stitch/weight"][0]
            mixed[task] = made[f"level{level}/{task}"] = sum(a * y for a, y in zip(alpha, outputs))
        return mixed


class MLMMoE(Mistaken):
    """Each expert above level one has a gate on the level below; all gates select on the input."""

    def extract(self, p, made, reps, level):
        owned = [name.split("/")[1:3] for name in p if name.startswith(f"level{level}/")]
        banks = dict.fromkeys(owner for owner, kind in owned if kind == "experts")
        outputs = [y for owner in banks for y in self.run(
            p, made, level, owner, reps[owner],
            {owner: len(p[f"level{level}/{owner}/experts/layer1/bias"])})]
        mixed, below = {}, list(reps.values())
        for at, owner in enumerate(dict.fromkeys(owner for owner, kind in owned if kind == "gate")):
            name, selector = f"level{level}/{owner}", made["input"]
            if self.has("selector-below") and level > 1:
                selector = below[min(at, len(below) - 1)]
            weights = self.gate(p, made, name, selector, [], [], outputs)
            mixed[owner] = made[name] = self.mix(name, weights, outputs, selector)
        return mixed
