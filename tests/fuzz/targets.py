"""The public interface, call by call: how to make a good `Call` of each, from a generator."""

import contextlib
import inspect
import io
import itertools
import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np

import npple
from hostile import FOLDER, NAMES, cut, flip, inf, overwrite
from npple import archive, data, draw, kinds, metrics, ranking
from npple.cli import main
from npple.data import Dataset, Schema
from npple.lab.abtest import abtest, draw_world
from npple.lab.budget import sized
from npple.lab.compare import Problem, Training, compare
from npple.lab.inspection import connections, utilization
from npple.verify.influence import average
from npple.oracle import (ModuleMapping, check, from_module, gradients_from_module, load,
                          load_module, make_vectors, read_results)
from npple.verify.cases import random_case, random_model
from npple.learn.training import Run, evaluate_model, gate_weights, predict
from runner import Call

TEMPORARY = Path(FOLDER.name)
UNIQUE = itertools.count()


@cache
def pool():
    """A small case of each architecture, in three precisions; nothing may change them."""
    models = [random_model(name, tasks=3, levels=2) for name in npple.ARCHITECTURES]
    return [random_case(model, seed, 4, dtype) for seed, model in enumerate(models)
            for dtype in (np.float32, np.float64, np.longdouble)]


def batch(r, *names, cases=None):
    """A case, and those of its arguments that a call takes, by name."""
    case = r.choice(cases or pool())
    given = {"params": case.params, "x": case.x, "targets": case.targets, "masks": case.masks,
             "weights": case.weights, "noise": case.noise or None}
    return case.model, {name: given[name] for name in names}


@cache
def small():
    """Cases for what is slow: two tasks, one level, widths of 2."""
    def model(builder, **options):
        return builder(2, {"a": "binary", "b": "regression"}, expert_units=(2,), tower_units=(),
                       **options)

    models = (model(npple.cgc, task_experts=1, shared_experts=1), model(npple.shared_bottom),
              model(npple.snr_trans, levels=1, experts=2))
    return [random_case(each, seed, 3) for seed, each in enumerate(models)]


# Models -----------------------------------------------------------------------------------------

def build(r):
    name = r.choice(list(npple.ARCHITECTURES))
    tasks = {f"task{i}": r.choice(("binary", "regression", "multiclass:3"))
             for i in range(r.choice([1, 2, 2, 3]))}
    if r.random() < 0.002:
        tasks = {f"task{i}": "binary" for i in range(300)}
    if r.random() < 0.05:
        tasks = {name: "binary" for name in NAMES if isinstance(name, str) and r.random() < 0.2}
        tasks = tasks if all(n.isprintable() and "/" not in n and n not in ("", "shared")
                             for n in tasks) and tasks else {"ü☃": "binary"}
    many = 1000 if len(tasks) < 4 and name == "mmoe" else 2  # others have many edges, too
    options = {
        "inputs": r.choice([3, {"n": "numeric", "c": (4, 2)}, {"a/b": (2, 1), "ü": "numeric"}]),
        "tasks": tasks, "levels": r.choice([1, 2, 3]), "expert_units": (2,), "tower_units": (2,),
        "task_experts": r.choice([1, 2, dict.fromkeys(tasks, 1)]), "shared_experts": 1,
        "experts": r.choice([1, 2, 2, 2, many]), "gate_units": (2,),
        "gate_bias": True, "activation": "tanh", "own": 0.5, "orthogonality": 0.1, "l0": 0.1,
        "subspaces": 2, "borrows": None}
    builder = npple.ARCHITECTURES[name]
    known = inspect.signature(builder).parameters
    names = {"task_experts": ("expert",), "shared_experts": ("expert",), "levels": ("level",),
             "own": ("start",), "l0": ("penalty",), "orthogonality": ("penalty",),
             "borrows": ("tasks",), "tasks": ("task",), "gate_units": ("units",),
             "tower_units": ("units",), "expert_units": ("units",), "gate_bias": ("bias",)}
    return Call(builder, {k: v for k, v in options.items() if k in known}, working, names)


def working(model):
    """What a model that was accepted computes on a batch."""
    if sum(np.prod(shape, dtype=float) for shape in model.shapes.values()) > 1e5:
        return model.tasks
    case = random_case(model, 0, 2)
    return model.loss_and_grads(case.params, *case.batch)


def init(r):
    return Call(r.choice(pool()).model.init, {"seed": r.randrange(99), "dtype": "float32"})


def noise(r):
    model = r.choice(pool()).model
    return Call(model.noise, {"rng": np.random.default_rng(0), "dtype": np.float64}, loose=True)


def forward(r):
    model, given = batch(r, "params", "x", "noise")
    return Call(model.forward, given, lambda trace: {**trace, **trace.predictions})


def task_losses(r):
    model, given = batch(r, "params", "x", "targets", "masks", "noise")
    return Call(model.task_losses, given)


def large_batch(r):
    """A batch of several blocks of rows."""
    case = r.choice(small())
    rows = r.choice([511, 512, 513, 700, 1100])
    case = random_case(case.model, 0, rows, r.choice([np.float32, np.float64]))
    return Call(case.model.loss_and_grads, {
        "params": case.params, "x": case.x, "targets": case.targets, "masks": case.masks,
        "weights": case.weights, "noise": case.noise or None})


def loss_and_grads(r):
    model, given = batch(r, "params", "x", "targets", "masks", "weights", "noise")
    return Call(model.loss_and_grads, given)


def optimizer(r):
    if r.random() < 0.5:
        return Call(npple.SGD, {"rate": 0.1, "weight_decay": 0.1, "clip": 1.0}, loose=True)
    return Call(npple.Adam, {"rate": 0.1, "beta1": 0.5, "beta2": 0.5, "epsilon": 1e-8,
                             "weight_decay": 0.1, "clip": 1.0}, loose=True)


def step(r):
    case = r.choice(pool())
    method = r.choice([npple.Adam(weight_decay=0.1), npple.Adam(clip=1.0), npple.SGD(clip=0.1)])
    _, grads = case.model.loss_and_grads(case.params, *case.batch)
    return Call(method.step, {"params": case.params, "grads": grads,
                              "state": method.init(case.params),
                              "only": r.choice([None, list(case.params)[:2]])},
                names={"params": ("grads", "only")})


def task_weights(r):
    return Call(npple.task_weights, {"initial": {"a": 1.0, "b": 2.0}, "decay": {"a": 0.9},
                                     "step": 3}, names={"initial": ("decay",)})


# Proofs -----------------------------------------------------------------------------------------

def gradcheck(r):
    model, given = batch(r, "params", "x", "targets", "masks", "weights", "noise", cases=small())
    method = r.choice(["complex-step", "directional", "central-differences", "longdouble"])
    return Call(lambda **given: npple.gradcheck(model, **given),
                given | {"method": method, "inputs": False, "grads": None, "tolerance": 1e-6,
                         "seed": 0}, lambda report: (str(report), report.checked))


def gradcheck_function(r):
    x = {"w": np.array([0.5, -1.5]), "b": np.array(2.0)}
    return Call(npple.gradcheck_function,
                {"f": lambda p: sum((array ** 2).sum() for array in p.values()),
                 "grad": lambda p: {name: 2 * array for name, array in p.items()},
                 "x": x, "method": "complex-step", "tolerance": 1e-9, "seed": 0},
                lambda report: (str(report), report.checked), {"x": ("f:", "grad")},
                fixed=("f", "grad"))


def hessian_vector(r):
    model, given = batch(r, "params", "x", "targets", "masks", cases=small())
    return Call(lambda **given: npple.hessian_vector(model, **given),
                given | {"vector": {name: p + 1 for name, p in given["params"].items()}},
                names={"params": ("vector",)})


def isolation(r):
    model, given = batch(r, "params", "x", "targets", "masks", cases=small())
    return Call(npple.isolation(model).verify, given | {"steps": 2}, lambda report: (
        str(report), report.passed) and 0, {"params": ("group",)})


def explain(r):
    found = npple.isolation(r.choice(pool()).model)
    return Call(found.explain,
                {"task": r.choice(found.tasks), "group": r.choice(list(found.groups))})


def compare_gradients(r):
    case = r.choice(small())
    found = npple.isolation(case.model)
    grads = {task: {name: case.params[name] for name in case.params} for task in found.tasks}
    groups = {name: group for group, names in found.groups.items() for name in names}
    return Call(found.compare_gradients, {"gradients": grads, "groups": groups}, str)


def influence(r):
    model, given = batch(r, "params", "x", "targets", "masks", "weights", cases=small())
    return Call(lambda **given: npple.influence(model, **given), given,
                lambda found: (str(found), found.norms)[1])


def averaged(r):
    case = r.choice(small())
    found = npple.influence(case.model, case.params, *case.batch[:3])
    return Call(average, {"influences": [found, found]}, lambda found: found.norms)


def random_models(r):
    return Call(random_model, {"name": "ple", "tasks": 2, "levels": 1}, working,
                {"name": ("model",), "levels": ("level",)})


def sizes(r):
    return Call(sized, {"name": r.choice(["mmoe", "ple"]), "inputs": 3, "tasks": {"a": "binary"},
                        "budget": 221, "levels": 1, "options": {"tower_units": (2,)}},
                lambda models: [working(model) for model in models],
                {"options": ("tower_units", "options", "budget"), "levels": ("level", "budget"),
                 "name": ("model",), "inputs": ("budget",), "tasks": ("budget",)})


def compared(r):
    cases = [Problem("small", rows(), rows(), 2, dict.fromkeys(rows().targets, "regression"))]
    return Call(compare, {"cases": cases, "architectures": ("cgc", "single_task"), "seeds": (0, 1),
                          "budget": 60, "levels": 1, "options": {"tower_units": ()},
                          "training": Training(1, 4), "out": None},
                lambda found: found.to_csv(), {"options": ("tower_units", "budget"), "levels": (
                    "level", "budget"), "out": ("expected a folder",)})


def training(r):
    return Call(Training, {"epochs": 1, "batch_size": 4, "rate": 0.1})


def tested(r):
    return Call(abtest, {"models": {"a": npple.cgc, "b": npple.single_task}, "impressions": 200,
                         "log_impressions": 100, "epochs": 1, "rate": 0.1, "batch_size": 16,
                         "exploration": 1.0, "seed": 0, "users": 40, "videos": 30, "width": 2,
                         "correlation": 0.5, "noise": 1.0},
                lambda report: str(report),
                dict.fromkeys(("log_impressions", "users", "seed"), ("impressions",))
                | {"width": ("inputs",)})


def world(r):
    return Call(draw_world, {"users": 20, "videos": 30, "width": 2, "correlation": 0.5,
                             "noise": 1.0, "seed": 0}, lambda world: world.lengths, {
        "width": ("inputs",)})


def inspected(r):
    model, given = batch(r, "params", cases=small())
    function = r.choice([utilization, connections])
    if function is connections:
        return Call(lambda params: function(model, params), given, str)
    model, params = routed(), routed().init(0, np.float32)
    return Call(lambda **given: function(model, **given), {"params": params, "data": rows()}, str)


# Drawing ----------------------------------------------------------------------------------------

def drawn(r):
    case = r.choice(pool())
    function = r.choice([draw.svg, draw.text])
    given = {"title": "a title"} if function is draw.svg else {}
    return Call(function, given | {"diagram": draw.diagram(case.model),
                                   "task": r.choice([None, *case.model.tasks])}, len)


def page_of(r):
    return Call(draw.page, {"inputs": 3, "tasks": {"a": "binary"}, "model": "cgc",
                               "task_experts": 1}, len, {"task_experts": ("expert",),
                                                         "tasks": ("task",)})


# The oracle -------------------------------------------------------------------------------------

@cache
def vectors():
    return make_vectors(small()[0].model, batch=2)


@cache
def bundle():
    path = TEMPORARY / "vectors.npz"
    vectors().save(path)
    return path.read_bytes()


def make(r):
    return Call(make_vectors, {"model": small()[1].model, "seed": 0, "batch": 2,
                               "dtype": "float64", "adam": npple.Adam()}, lambda v: v.expected)


def held_against(r):
    candidate = dict(r.sample(list(vectors().expected.items()), r.randint(1, 30)))
    def call(candidate, **given):
        return check(vectors(), None if callable(candidate) else candidate, **given)
    return Call(call, {"candidate": candidate, "precision": "float64", "conventions": ()},
                lambda report: report.passed, {"candidate": ("results",)})


def results(r):
    path = TEMPORARY / "results.npz"
    np.savez(path, outputs=np.ones(3), **{"tower/a": np.zeros(2)})
    content = r.choice([flip, cut, overwrite, lambda r, content: content])(r, path.read_bytes())
    path.write_bytes(content)
    return Call(read_results, {"path": path}, len, FILE, ("path",), r.choice([("path",), ()]), True)


def corrupted(r, content):
    """The path of a file with a damaged copy of the content."""
    path = TEMPORARY / "damaged.npz"
    damaged = r.choice([flip, cut, overwrite])(r, content)
    path.write_bytes(damaged)
    return path


def load_vectors(r):
    return Call(load, {"path": corrupted(r, bundle())}, lambda v: v.expected, FILE, ("path",),
                r.choice([("path",), ()]), True)


class Module:
    """What the adapters ask of a module of PyTorch: parameters by name, to read and to write."""

    def __init__(self, arrays):
        self.arrays = arrays

    def named_parameters(self):
        return ((name, Parameter(array)) for name, array in self.arrays.items()
                if isinstance(array, np.ndarray))


class Parameter(np.ndarray):
    def __new__(cls, array):
        return np.array(array).view(cls)

    grad = None
    data = property(lambda self: self)

    def new_tensor(self, array):
        return np.asarray(array, self.dtype)

    def copy_(self, other):
        self[...] = other


def adapted(r):
    case = r.choice(small())
    names = {f"{i}.weight": name for i, name in enumerate(case.params)}
    tensors = {path: case.params[name] for path, name in names.items()}
    mapping = {name: path for path, name in names.items()}
    function = r.choice([from_module, gradients_from_module, load_module])
    more = {"params": case.params} if function is load_module else {}

    def call(tensors, model, parameters, idle, **more):
        module = Module(tensors) if isinstance(tensors, dict) else tensors
        return function(module, model, ModuleMapping(parameters, idle=idle), **more)
    return Call(call, {"tensors": tensors, "model": case.model, "parameters": mapping, "idle": (),
                       **more}, names={"tensors": ("mapping", "module"), "idle": ("mapping",),
                                       "parameters": ("mapping",)}, fixed=("model",))


def misused(r):
    """Adapters with something in the place of an argument that is none."""
    case = r.choice(small())
    mapping = ModuleMapping({name: name for name in case.params})
    function = r.choice([from_module, gradients_from_module])
    return Call(function, {"module": Module(case.params), "model": case.model, "mapping": mapping})


# Metrics and ranking ----------------------------------------------------------------------------

def metric(r):
    name = r.choice(["auc", "log_loss", "mse", "multiclass_log_loss", "accuracy", "calibration"])
    y, z = np.array([0, 1, 1, 0, 1]), np.array([0.2, -1.0, 3.0, 1e4, -1e4])
    second = list(inspect.signature(getattr(metrics, name)).parameters)[1]
    if name in ("multiclass_log_loss", "accuracy"):
        z = np.stack([z, -z, z * 2], axis=1)
    names = {"targets": ("targets",),
             second: (second, "scores", "logits", "values", "outputs", "predictions")}
    return Call(getattr(metrics, name), {"targets": y, second: z}, _or_undefined, names)


def grouped(r):
    return Call(metrics.gauc, {"targets": np.array([0, 1, 1, 0, 1]), "groups": np.arange(5) % 2,
                               "scores": np.array([0.2, -1.0, 3.0, 1e4, -1e4])}, _or_undefined,
                {"targets": ("targets",), "scores": ("scores", "outputs"),
                 "groups": ("groups", "outputs")})


def _or_undefined(value):
    """An AUC of one class alone is NaN, as documented."""
    return 0.0 if isinstance(value, float) and np.isnan(value) else value


def evaluate(r):
    kind = r.choice(["binary", "regression", "multiclass:3"])
    z = np.linspace(-2, 2, 15).reshape(5, 3)
    return Call(kinds.evaluate, {"kind": kind, "targets": np.array([0, 1, 1, 0, 1]),
                                   "outputs": z if ":" in kind else z[:, 0]},
                lambda found: [_or_undefined(value) for value in found.values()],
                {"kind": ("kind", "outputs", "targets"), "outputs": ("logits", "values", "scores")})


def ranked(r):
    p = {"vtr": np.array([0.1, 0.5, 0.9]), "vcr": np.array([0.2, 0.0, 1.0])}
    function = r.choice([ranking.score, ranking.log_score, ranking.weighted_sum])
    return Call(function, {"predictions": p, "weights": {"vtr": 1.0, "vcr": 0.5},
                           "video_len": np.array([3.0, 60.0, 10.0]), "f": np.log1p},
                lambda s: np.where(np.isinf(s), 0, s), {"predictions": ("weights",)}, fixed=("f",))


def top(r):
    return Call(ranking.top_k, {"scores": np.array([[1.0, inf, -inf, 0.0]]), "k": 2},
                names={"scores": ("k: ",)})


# Data -------------------------------------------------------------------------------------------

COLUMNS = {"age": ["1", "2.5", "-3", "1e3"], "city": ["A", "B", "A", "ü"],
           "clicked": ["0", "1", "", "true"], "time": ["0.5", "1", "", "7"],
           "reason": ["x", "y", "x", ""]}
ROLES = {"numeric": ["age"], "categorical": ["city"],
         "tasks": {"clicked": "binary", "time": "regression", "reason": "multiclass"}}
COLUMN_NAMES = {"columns": ("column", "task", "row"), "numeric": ("column", "feature"),
                "categorical": ("column", "feature"), "tasks": ("task", "column", "label"),
                "log": ("column",), "content": ("schema", "column", "task", "class"),
                "labels": ("column",), "embedding_width": ("embedding_width",)}


def learn(r):
    return Call(Schema.learn, {"columns": COLUMNS, **ROLES, "log": []}, lambda s: s.to_dict(),
                COLUMN_NAMES)


FRAME_NAMES = COLUMN_NAMES | {"min_count": ("min_count", "min-count"),
                              "embedding_width": ("embedding_width", "embedding width")} | (
    dict.fromkeys(("frame", "validation"), ("column", "task", "row", "frame", "readable")))


def fit(r):
    frame = {name: list(column) for name, column in COLUMNS.items()}
    return Call(npple.fit, {"frame": frame, **ROLES, "log": [], "model": "cgc", "min_count": 1,
                            "epochs": 1, "batch_size": 4, "seed": 0, "embedding_width": 2,
                            "keep_best": "joint", "validation": frame},
                lambda run: run.run.best, FRAME_NAMES, loose=True)


def judged(r):
    frame = {name: list(column) for name, column in COLUMNS.items()} | {"who": ["a", "b"] * 2}
    return Call(fitted().evaluate, {"frame": frame, "group": "who", "bins": 3,
                                    "accept_unknown": False},
                lambda found: 0, FRAME_NAMES | {"group": ("group", "column"),
                                                "accept_unknown": ("column", "accept")}, loose=True)


@cache
def fitted():
    return npple.fit(COLUMNS, **ROLES, min_count=1, epochs=1, expert_units=(2,), tower_units=())


def schema_from(r):
    content = Schema.learn(COLUMNS, **ROLES).to_dict()
    return Call(Schema.from_dict, {"content": json.loads(json.dumps(content))},
                lambda s: s.to_dict(), COLUMN_NAMES)


def encode(r):
    schema = Schema.learn(COLUMNS, **ROLES)
    return Call(schema.encode, {"columns": COLUMNS, "dtype": np.float32, "labels": True},
                lambda d: (d.x, d.targets), COLUMN_NAMES)


def dataset(r):
    n = r.randint(1, 4)
    x = r.choice([np.ones((n, 2)), {"a": np.ones(n), "b": np.arange(n)}])
    return Call(Dataset, {"x": x, "targets": {"t": np.zeros(n)}, "masks": {"t": np.ones(n, bool)}},
                len, {"x": ("feature", "rows"), "masks": ("mask",)})


def taken(r):
    rows = data.synthetic(5, inputs=2)
    if r.random() < 0.5:
        return Call(rows.split, {"fraction": 0.5, "seed": 1}, lambda parts: parts[0].x)
    return Call(rows.take, {"rows": r.choice([slice(1, 3), np.array([0, 4]), [1, 1]])},
                lambda part: part.x)


def synthetic(r):
    return Call(data.synthetic, {"rows": 3, "inputs": 4, "correlation": 0.5, "tasks": 2,
                                 "sines": 2, "noise": 0.1, "scale": 1.0, "seed": 0,
                                 "dtype": np.float32}, lambda d: (d.x, d.targets),
                {"tasks": ("inputs",)})


CSV = ("age,city,clicked\n1,A,0\n2.5,\"B, b\",1\n-3,\"ü\n\",0\n" * 1).encode()
CENSUS = None


@cache
def census():
    import gzip
    from importlib.resources import files
    text = gzip.decompress((files("npple.learn") / "census-test-sample.csv.gz").read_bytes())
    return b"\n".join(text.split(b"\n")[:20]) + b"\n"


def hostile_text(r, content):
    """A CSV file as somebody might send it."""
    import gzip
    names, rest = content.split(b"\n", 1)
    return r.choice([
        lambda: content, lambda: b"\xef\xbb\xbf" + content, lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.replace(b"\n", b"\r"), lambda: content.decode().encode("utf-16"),
        lambda: content.decode().encode("latin-1", "replace") + b"\xff", lambda: rest,
        lambda: content + b"1,2\n", lambda: content + b"\n\n", lambda: content + b'"open',
        lambda: content.replace(b",", b";"), lambda: content.replace(b",", b"\t"),
        lambda: b"", lambda: b"\n", lambda: b" \n ", lambda: names, lambda: names + b"\n",
        lambda: content + b"\0", lambda: r.randbytes(200), lambda: b"\x1f\x8b" + r.randbytes(50),
        lambda: gzip.compress(content), lambda: cut(r, gzip.compress(content)),
        lambda: flip(r, gzip.compress(content)), lambda: gzip.compress(gzip.compress(content)),
        lambda: flip(r, content), lambda: cut(r, content), lambda: overwrite(r, content),
        lambda: b",".join(b"c%d" % i for i in range(3000)) + b"\n" + b",".join([b"1"] * 3000),
        lambda: b"a,a\n1,2\n", lambda: b",\n,\n", lambda: b"a\n" + b"9" * 200_000,
        lambda: content * 50, lambda: content.replace(b"1", b"1e999"),
        lambda: content.replace(b"1", b"nan"), lambda: content.replace(b"1", "١".encode()),
    ])()


FILE = {"path": ("results", "damaged", "hostile", "row", "column", "member", "file", "99999")}


def read_csv(r):
    path = TEMPORARY / "hostile.csv"
    path.write_bytes(hostile_text(r, CSV))
    return Call(data.read_columns, {"path": path, "names": None}, len, FILE, ("path",),
                r.choice([(), ("path", "names")]), True)


def read_census(r):
    path = TEMPORARY / "hostile.csv"
    path.write_bytes(hostile_text(r, census()))
    return Call(data.read_census, {"path": path}, len, FILE, ("path",), r.choice([(), ("path",)]),
                True)


# Training and files -----------------------------------------------------------------------------

@cache
def rows():
    return data.synthetic(8, inputs=2)


@cache
def model():
    return npple.cgc(2, {"task1": "regression", "task2": "regression"}, task_experts=1,
                     shared_experts=1, expert_units=(2,), tower_units=())


@cache
def routed():
    return npple.ple(2, dict.fromkeys(rows().targets, "regression"), expert_units=(2,))


@cache
def checkpoint():
    path = TEMPORARY / "checkpoint.npz"
    Run(model(), batch_size=4).train(rows(), rows(), 1, checkpoint=path)
    return path.read_bytes()


def start(r):
    return Call(Run, {"model": model(), "optimizer": npple.Adam(), "batch_size": 4, "seed": 0,
                      "weights": {"task1": 1.0, "task2": 2.0}, "decay": {"task1": 0.9},
                      "skip_absent": False, "dtype": "float32", "schema": None,
                      "decay_per": "epoch", "mean_over": "data"},
                lambda run: run.params)


def train(r):
    run = Run(model(), r.choice([npple.Adam(), npple.SGD(0.1)]), batch_size=4)
    path = TEMPORARY / f"run{next(UNIQUE) % 4}.npz"
    def call(**given):
        return run.train(**given, stop=lambda: run.step > 20)
    return Call(call, {"data": rows(), "validation": rows(), "epochs": 1, "patience": None,
                            "checkpoint": path, "every": None},
                lambda _: run.params, {"validation": ("validation", "targets")}, loose=True)


def train_on(r):
    """Training on rows whose arrays are hostile, which a Dataset does not notice."""
    run = Run(model(), batch_size=4)

    def call(x, targets, masks):
        run.train(Dataset(x, targets, masks), rows(), 1)
        return run.params
    masks = {"task1": np.arange(8) % 2 == 0}
    return Call(call, {"x": rows().x, "targets": rows().targets, "masks": masks},
                names={"masks": ("mask",), "targets": ("target",)}, loose=True)


def use(r):
    function = r.choice([predict, evaluate_model, gate_weights])
    return Call(lambda **given: function(model(), **given),
                {"params": model().init(0, np.float32), "data": rows(), "rows": r.choice([3, 99])})


def load_run(r):
    return Call(Run.load, {"path": corrupted(r, checkpoint())}, lambda run: run.params, FILE,
                ("path",), r.choice([("path",), ("path",), ()]), True)


def forged(r):
    """A checkpoint that is sound as an archive and spoiled in what it says."""
    path = TEMPORARY / "forged.npz"
    path.write_bytes(checkpoint())
    kind = {"format": "npple checkpoint", "versions": (2,)}
    arrays, meta, _ = archive.load(path, **kind)

    def call(arrays, meta):
        archive.save(path, arrays, meta, format="npple checkpoint", version=2)
        return Run.load(path).params
    return Call(call, {"arrays": arrays, "meta": meta}, names={
        "arrays": ("forged", "array"), "meta": ("forged", "meta")}, loose=True)


def stored(r):
    path = TEMPORARY / "stored.npz"

    def call(path, arrays, meta, format, version):
        archive.save(path, arrays, meta, format=format, version=version)
        return archive.load(path, format=format, versions=(version,))[0]
    return Call(call, {"path": path, "arrays": {"a": np.arange(3.0), "b/ü": np.ones((2, 2), "f")},
                       "meta": {"n": 1}, "format": "fuzz", "version": 1},
                lambda arrays: 0, {"arrays": ("array",), "path": ("write", "readable", "path")})


# The command line -------------------------------------------------------------------------------

TEXTS = ("", " ", "-1", "0", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "x", "ü/☃", "a\nb",
         "9" * 5000, "a=b", "=", "task1=x", "task1=nan", "..", "/", "/dev/null", "/nowhere/x", "\0",
         "--json", "--help", "-", "census", "[1]", "None", "true", "hostile.csv", "good.csv")
DATA = ["--data", "good.csv", "--numeric", "age", "--categorical", "city", "--binary", "clicked"]
TINY = ["--expert-units", "2", "--tower-units", "2"]
COMMANDS = (
    ["train", *DATA, *TINY, "--epochs", "1", "--rate", "0.1", "--batch-size", "4", "--seed", "1"],
    ["train", "--data", "synthetic", "--rows", "12", "--inputs", "3", *TINY, "--epochs", "1",
     "--task-weight", "task1=2", "--clip", "1", "--patience", "1", "--weight-decay", "0"],
    ["train", *DATA, *TINY, "--epochs", "1", "--embedding-width", "2", "--model", "ple"],
    ["train", *DATA, *TINY, "--epochs", "2", "--out", "kept", "--resume", "--seed", "1",
     "--batch-size", "4", "--rate", "0.1"],
    ["predict", "--checkpoint", "kept/checkpoint.npz", "--data", "good.csv", "--out", "p.csv"],
    ["evaluate", "--checkpoint", "kept/checkpoint.npz", "--data", "good.csv", "--group", "city",
     "--bins", "3"],
    ["clicklog", "--rows", "30", "--seed", "1", "--out", "run.csv", "--later", "run2.csv"],
    ["draw", "--checkpoint", "kept/checkpoint.npz", "--task", "clicked"],
    ["isolation", "--checkpoint", "kept/checkpoint.npz", "--data", "good.csv", "--rows", "4"],
    ["isolation", "--model", "cgc", "--tasks", "1", "--levels", "1", "--seed", "1"],
    ["gradcheck", "--model", "cgc", "--tasks", "1", "--method", "directional", "--seed", "1"],
    ["compare", "--data", "synthetic", "--rows", "40", "--inputs", "2", "--correlation", "0.5",
     "--models", "cgc", "single_task", "--seeds", "1", "--budget", "200", "--epochs", "1"],
    ["abtest", "--models", "cgc", "mmoe", "--impressions", "200", "--log-impressions", "100",
     "--epochs", "1", "--users", "60", "--correlation", "0.5", "--noise", "1"],
    ["oracle", "export", "--model", "cgc", "--tasks", "a", "b=regression", "--levels", "1",
     "--inputs", "2", "--batch", "2", "--seed", "1", "--dtype", "float32", "--out", "run.npz"],
    ["oracle", "check", "vectors.npz", "results.npz", "--precision", "float64"],
    ["oracle", "check", "vectors.npz", "folder", "--conventions", "gate-bias", "shared-first"],
    ["draw", "--model", "cgc", "--inputs", "3", "--tasks", "a", "b=regression", "--task", "a"],
)


@cache
def workshop():
    """A folder with a good file and a trained checkpoint."""
    folder = TEMPORARY / "workshop"
    folder.mkdir()
    lines = ["age,city,clicked"] + [f"{i * 7 % 5}.5,{'AB'[i % 2]},{i % 3 % 2}" for i in range(12)]
    (folder / "good.csv").write_text("\n".join(lines) + "\n")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main([*COMMANDS[0], "--out", "kept"]) == 0
    (folder / "vectors.npz").write_bytes(bundle())
    np.savez(folder / "results.npz", **vectors().expected)
    (folder / "folder").mkdir()
    np.save(folder / "folder" / "loss.npy", np.float64(0.5))
    return folder


def command_line(r):
    folder, arguments = workshop(), list(r.choice(COMMANDS))
    (folder / "hostile.csv").write_bytes(hostile_text(r, (folder / "good.csv").read_bytes()))
    if r.random() < 0.3 and "good.csv" in arguments:
        arguments[arguments.index("good.csv")] = "hostile.csv"
    for _ in range(r.choice([0, 1, 1, 2])):
        at, how = r.randrange(1, len(arguments)), r.random()
        if how < 0.7:
            arguments[at] = r.choice(TEXTS)
        elif how < 0.85:
            del arguments[at]
        else:
            arguments.insert(at, r.choice(TEXTS))
    return Call(run_command, {"arguments": arguments, "folder": folder}, hostile=("arguments",),
                fixed=("arguments", "folder"), loose=True)


def run_command(arguments, folder):
    """Runs a command in the workshop: its status must fit what it says."""
    out, err = io.StringIO(), io.StringIO()
    with (contextlib.chdir(folder), contextlib.redirect_stdout(out),
          contextlib.redirect_stderr(err)):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        for made in folder.glob("run*"):
            made.unlink() if made.is_file() else shutil.rmtree(made)
    if status == 0:
        assert out.getvalue(), "nothing said"
    elif status == 1:
        assert "FAILED" in out.getvalue() or "NOT VERIFIED" in out.getvalue() or (
            "--json" in arguments), out.getvalue()
    else:
        lines = err.getvalue().splitlines()
        assert status == 2 and any(": error: " in line for line in lines), (status, err.getvalue())
        if "Traceback" in err.getvalue():
            raise AssertionError(err.getvalue())
        if '--json' in arguments:
            assert "{" not in out.getvalue()
    if "NaN" in out.getvalue() and "--json" in arguments:
        raise AssertionError(out.getvalue())
    return status


TARGETS = {  # name -> how often, relative to the others, and the maker of the call
    "build": (8, build), "Network.init": (2, init), "Network.noise": (1, noise),
    "forward": (8, forward), "task_losses": (8, task_losses),
    "loss_and_grads": (10, loss_and_grads),
    "loss_and_grads, large": (0.5, large_batch), "adapters": (3, adapted),
    "adapters, misused": (0.5, misused),
    "Adam, SGD": (2, optimizer), "step": (8, step), "task_weights": (1, task_weights),
    "gradcheck": (2, gradcheck), "gradcheck_function": (1, gradcheck_function),
    "hessian_vector": (3, hessian_vector), "isolation.verify": (1, isolation),
    "isolation.explain": (1, explain), "compare_gradients": (1, compare_gradients),
    "influence": (2, influence), "influence.average": (1, averaged),
    "random_model": (1, random_models), "compare": (0.3, compared), "Training": (0.3, training),
    "abtest": (0.3, tested), "draw_world": (0.5, world), "inspection": (1, inspected),
    "drawing": (1, drawn), "drawing.page": (0.1, page_of), "read_results": (2, results),
    "sized": (1, sizes),
    "oracle.make_vectors": (0.05, make), "oracle.check": (2, held_against),
    "oracle.load": (3, load_vectors), "metrics": (4, metric), "metrics.evaluate": (3, evaluate),
    "ranking": (3, ranked), "ranking.top_k": (1, top), "Schema.learn": (3, learn),
    "metrics.gauc": (1, grouped), "fit": (2, fit), "Trained.evaluate": (2, judged),
    "Schema.from_dict": (3, schema_from), "Schema.encode": (3, encode), "Dataset": (3, dataset),
    "Dataset.take, split": (2, taken), "synthetic": (1, synthetic), "read_columns": (4, read_csv),
    "read_census": (3, read_census), "Run": (2, start), "Run.train": (2, train),
    "Run.train, data": (3, train_on), "predict, evaluate": (2, use), "Run.load": (4, load_run),
    "Run.load, forged": (4, forged), "archive": (2, stored), "command line": (2, command_line),
}
