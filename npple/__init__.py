"""npple: Progressive Layered Extraction and its relatives, every gradient written by hand."""

from importlib import import_module

from npple import ranking
from npple.architectures import (ARCHITECTURES, asymmetric_sharing, cgc, cross_stitch,
                                 customized_sharing, ml_mmoe, mmoe, ple, shared_bottom,
                                 single_task, sluice, snr_aver, snr_trans)
from npple.errors import CheckFailed, Diverged, FileError, InputError, NppleError
from npple.verify.gradcheck import gradcheck, gradcheck_function, hessian_vector
from npple.verify.influence import influence
from npple.verify.isolation import isolation
from npple.network import Network, Trace, task_weights
from npple.optimizers import SGD, Adam

__version__ = "0.1.0"

__all__ = ["ARCHITECTURES", "Adam", "CheckFailed", "Diverged", "FileError", "InputError",
           "Network", "NppleError", "SGD", "Trace", "asymmetric_sharing", "cgc", "cross_stitch",
           "customized_sharing", "gradcheck", "gradcheck_function", "hessian_vector", "influence",
           "isolation", "ml_mmoe", "mmoe", "ple", "ranking", "shared_bottom", "single_task",
           "sluice", "snr_aver", "snr_trans", "task_weights"]


def __getattr__(name):
    """`npple.oracle` and `npple.testing`, loaded when first asked for."""
    if name in ("oracle", "testing"):
        return import_module(f"npple.{name}")
    raise AttributeError(f"module 'npple' has no attribute {name!r}")
