"""npple: Progressive Layered Extraction and its relatives, every gradient written by hand.

A short tour::

    model = npple.ple(inputs=32, tasks={"vtr": "binary", "vcr": "regression"})
    params = model.init(seed=0)                                parameters, by name
    trace = model.forward(params, x)                           every intermediate, by name
    loss, grads = model.loss_and_grads(params, x, targets)     every gradient, by name
    adam = npple.Adam(); state = adam.init(params)
    params, state = adam.step(params, grads, state)            one step

    npple.gradcheck(model, params, x, targets)       are the gradients right?
    npple.isolation(model)                           which loss reaches which expert?
    vectors = npple.oracle.make_vectors(model)       every tensor of a model on one batch, and
    npple.oracle.check(vectors, candidate)           is the PLE you wrote elsewhere the paper's?

    run = npple.fit("log.csv", numeric=["age"], categorical=["user"], tasks={"click": "binary"})
    run.predict("new.csv"); run.evaluate("later.csv"); run.save("run.npz"); npple.load("run.npz")

`npple.ARCHITECTURES` lists the builders; `npple.routing` has what a table of one's own is made of;
`npple.data` and `npple.training` are what learning is made of; the command line: `npple --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from npple.architectures import (ARCHITECTURES, asymmetric_sharing, cgc, cross_stitch,
                                 customized_sharing, ml_mmoe, mmoe, ple, shared_bottom,
                                 single_task, sluice, snr_aver, snr_trans)
from npple.errors import CheckFailed, Diverged, FileError, InputError, NppleError, nearest
from npple.network import Network, Trace, task_weights
from npple.optimizers import SGD, Adam, AdamW

if TYPE_CHECKING:
    from npple import (archive, core, data, draw, errors, lab, learn, metrics, network, oracle,
                       ranking, routing, testing, training, verify)
    from npple.learn.trained import Trained, fit, load
    from npple.verify.gradcheck import (GradcheckReport, gradcheck, gradcheck_function,
                                        hessian_vector)
    from npple.verify.influence import Influence, influence
    from npple.verify.isolation import Isolation, isolation

__version__ = "0.1.0"
MODULES = ("archive", "core", "data", "draw", "errors", "lab", "learn", "metrics", "network",
           "oracle", "ranking", "routing", "testing", "training", "verify")
LAZY = {**dict.fromkeys(("GradcheckReport", "gradcheck", "gradcheck_function", "hessian_vector"),
                        "verify.gradcheck"),
        **dict.fromkeys(("Influence", "influence"), "verify.influence"),
        **dict.fromkeys(("Isolation", "isolation"), "verify.isolation"),
        **dict.fromkeys(("Trained", "fit", "load"), "learn.trained")}  # name -> its module
__all__ = ["ARCHITECTURES", "Adam", "AdamW", "CheckFailed", "Diverged", "FileError",
           "GradcheckReport", "Influence", "InputError", "Isolation", "Network", "NppleError",
           "SGD", "Trace", "Trained", "archive", "asymmetric_sharing", "cgc", "core",
           "cross_stitch", "customized_sharing", "data", "draw", "errors", "fit", "gradcheck",
           "gradcheck_function", "hessian_vector", "influence", "isolation", "lab", "learn",
           "load", "metrics", "ml_mmoe", "mmoe", "network", "oracle", "ple", "ranking", "routing",
           "shared_bottom", "single_task", "sluice", "snr_aver", "snr_trans", "task_weights",
           "testing", "training", "verify"]


if not TYPE_CHECKING:  # a type checker reads the imports above, and finds a wrong name
    def __getattr__(name: str) -> object:
        """A part of the package, or what one offers, loaded when first asked for."""
        if name in MODULES:
            return import_module(f"npple.{name}")
        if name in LAZY:
            value = getattr(import_module(f"npple.{LAZY[name]}"), name)
            return globals().setdefault(name, value)
        raise AttributeError(nearest("no attribute of npple", name, __all__))


def __dir__() -> list[str]:
    return __all__
