"""The oracle: is this PLE right, and if not, where and why?

    make_vectors(model)            every tensor of a model on one batch, as test vectors
    check(vectors, candidate)      another implementation's tensors against them
    check_step(vectors, step)      a training step of one's own: its loss, its optimizer
    export_all(folder)             a suite of vectors over all architectures
    check_arrays(vectors, weights, mapping, run, gradients)    a program of any framework
    check_module(vectors, module, mapping)    a module of PyTorch, by a mapping of names
    from_module(module, model, mapping)       its parameters
    check_onnx(vectors, path, mapping)        an ONNX file, by ONNX Runtime
    suggest(weights or module, model)         the mapping, found by probing
"""

from npple.oracle.adapters import check_module, from_module, gradients_from_module, load_module
from npple.oracle.cases import export_all, suite
from npple.oracle.comparison import check, check_step
from npple.oracle.deviations import DEVIATIONS, Deviation
from npple.oracle.diagnosis import Diagnosis
from npple.oracle.faults import Fault
from npple.oracle.frameworks import check_arrays, from_arrays, into_arrays
from npple.oracle.mappings import (ModuleMapping, concatenated, linear, load_mapping, moved,
                                   reshaped, sliced, stacked, transposed)
from npple.oracle.norms import Norm
from npple.oracle.onnx_files import OnnxModel, check_onnx
from npple.oracle.proposals import Proposal, suggest
from npple.oracle.report import Report
from npple.oracle.files import read_results
from npple.oracle.results import TensorRow
from npple.oracle.vectors import Vectors, load, make_vectors

__all__ = ["DEVIATIONS", "Deviation", "Diagnosis", "Fault", "ModuleMapping", "Norm", "OnnxModel",
           "Proposal", "Report", "TensorRow", "Vectors", "check", "check_arrays", "check_module",
           "check_onnx", "check_step", "concatenated", "export_all", "from_arrays", "from_module",
           "gradients_from_module", "into_arrays", "linear", "load", "load_mapping", "load_module",
           "make_vectors", "moved", "read_results", "reshaped", "sliced", "stacked", "suggest",
           "suite", "transposed"]
