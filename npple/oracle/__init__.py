"""The oracle: is this PLE right, and if not, where and why?

    make_vectors(model)            every tensor of a model on one batch, as test vectors
    check(vectors, candidate)      another implementation's tensors against them
    export_all(folder)             a suite of vectors over all architectures
"""

from npple.oracle.comparison import Report, check
from npple.oracle.deviations import DEVIATIONS, Deviation
from npple.oracle.diagnosis import Diagnosis
from npple.oracle.results import Row, read_results
from npple.oracle.cases import export_all, suite
from npple.oracle.vectors import Vectors, load, make_vectors

__all__ = ["DEVIATIONS", "Deviation", "Diagnosis", "Report", "Row", "Vectors", "check",
           "export_all", "load", "make_vectors", "read_results", "suite"]
