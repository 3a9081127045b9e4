"""ONNX files: their initializers as weights, ONNX Runtime as the function that runs them.

The packages `onnx` and `onnxruntime` are an extra, loaded when a file is opened.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npple.archive import FilePath
from npple.checks import check_kind, check_path, few, named
from npple.core.base import Array
from npple.errors import FileError, InputError, require
from npple.oracle.comparison import check_vectors, judged
from npple.oracle.frameworks import check_arrays
from npple.oracle.mappings import ModuleMapping
from npple.oracle.report import Report
from npple.oracle.vectors import Vectors

QUANTISED = ("Quantize", "QLinear", "Integer", "QAttention", "QGemm")
REALS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxModel:
    """An ONNX file that can be asked like any program.

    Parameters
    ----------
    path : str or path

    Attributes
    ----------
    weights : dict of ndarray
        Its initializers of real numbers that have axes, by name.
    quantised : tuple of str
        The kinds of its operations that compute with integers for reals.

    Raises
    ------
    InputError
        If `onnx` or `onnxruntime` is not installed, or `path` is no path.
    FileError
        If the file cannot be read.
    """

    def __init__(self, path: FilePath) -> None:
        check_path("path", path)
        self._onnx, self._runtime = _packages()
        try:
            require(Path(path).is_file(), "no such file")
            self._model = self._onnx.load(Path(path))
            self._onnx.checker.check_model(self._model)
        except Exception as error:  # of protobuf, of onnx, of the system
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileError(f"{path}: no ONNX file that can be read: {named(reason)}") \
                from error
        self.weights = {each.name: array for each in self._model.graph.initializer
                        if (array := self._onnx.numpy_helper.to_array(each)).ndim
                        and array.dtype.name in ("float16", "float32", "float64", "bfloat16")}
        kinds = dict.fromkeys(node.op_type for node in self._model.graph.node)
        self.quantised = tuple(kind for kind in kinds if any(part in kind for part in QUANTISED))
        self._made = {name for node in self._model.graph.node for name in node.output}

    def run(self, weights: Mapping[str, Array], inputs: Any, also: Sequence[str] = ()
            ) -> dict[str, Array]:
        """Its outputs with these weights, for `check_arrays` and `suggest`.

        Parameters
        ----------
        weights : dict of ndarray
            In the place of its initializers.
        inputs : ndarray or dict of ndarray
            One array for its one input, or columns by the names of its inputs.
        also : sequence of str
            Values within the graph that are wanted as well.

        Returns
        -------
        dict of ndarray

        Raises
        ------
        InputError
            For inputs that are not the file's, or if ONNX Runtime cannot run it.
        """
        model = type(self._model)()
        model.CopyFrom(self._model)
        for each in model.graph.initializer:
            if each.name in weights:
                each.CopyFrom(self._onnx.numpy_helper.from_array(weights[each.name], each.name))
        wanted = self._made.intersection(also) - {each.name for each in model.graph.output}
        model.graph.output.extend(self._onnx.ValueInfoProto(name=name) for name in sorted(wanted))
        options = self._runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            session = self._runtime.InferenceSession(model.SerializeToString(), options,
                                                     providers=["CPUExecutionProvider"])
            names = [each.name for each in session.get_outputs()]
            return dict(zip(names, session.run(names, _fed(session.get_inputs(), inputs))))
        except InputError:
            raise
        except Exception as error:  # ONNX Runtime has a dozen kinds of its own
            raise InputError(f"ONNX Runtime: {named(str(error))}") from error


def check_onnx(vectors: Vectors, path: FilePath, mapping: ModuleMapping, *,
               expect: str = "outputs", conventions: Sequence[str] = ()) -> Report:
    """Whether an ONNX file, run by ONNX Runtime, computes what the vectors say.

    The vectors' parameters take the place of the file's initializers. A quantised file keeps its
    own: it cannot be judged, and the report says how far its outputs are off.

    Parameters
    ----------
    vectors : npple.oracle.Vectors
    path : str or path
        The file.
    mapping : ModuleMapping
        Its names are those of initializers and of values in the graph.
    expect : str
        As for `check`; a file has no gradients.
    conventions : sequence of str
        As for `check`.

    Returns
    -------
    npple.oracle.Report

    Raises
    ------
    InputError
        If `onnx` or `onnxruntime` is not installed, or the mapping does not fit.
    FileError
        If the file cannot be read.
    """
    check_vectors(vectors)
    check_kind("mapping", mapping, ModuleMapping, "a ModuleMapping")
    file = OnnxModel(path)
    also = [source for move in mapping.tensors.values() for source in move.sources]
    if not file.quantised:
        return check_arrays(vectors, file.weights, mapping, lambda w, x: file.run(w, x, also),
                            expect=expect, conventions=conventions)
    seen = file.run({}, _single(vectors.inputs), also)
    given = {name: move.forward(seen) for name, move in mapping.tensors.items()}
    off = {name: float(np.abs(array - vectors.expected[name]).max())
           for name, array in given.items() if name in vectors.expected
           and array.shape == vectors.expected[name].shape}
    worst = max(off, key=off.__getitem__, default="")
    why = (f"{few(file.quantised)}; with the file's own weights the largest deviation is "
           + (f"{off[worst]:.2g}, in {worst}" if worst else "not known: no tensor has its shape"))
    return judged(vectors, given, dict.fromkeys(given, "float32"), expect, conventions,
                  {"quantised": why})


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnx.numpy_helper
        import onnxruntime
    except ImportError as error:
        raise InputError(f"ONNX files need onnx and onnxruntime ({error}): "
                         "pip install 'npple[onnx]'") from None
    return onnx, onnxruntime


def _single(inputs: Any) -> Any:
    """Inputs in float32, as exported files take them."""
    if isinstance(inputs, dict):
        return {name: _single(array) for name, array in inputs.items()}
    return inputs.astype(np.float32) if inputs.dtype.kind == "f" else inputs


def _fed(declared: Sequence[Any], inputs: Any) -> dict[str, Array]:
    """The file's inputs from npple's: in the dtype and with as many axes as it declares."""
    names = [each.name for each in declared]
    if not isinstance(inputs, dict):
        require(len(names) == 1, f"inputs: the file has {few(names)}, the vectors one matrix")
        inputs = {names[0]: inputs}
    require(inputs.keys() == {*names}, f"inputs: the file has {few(names)}, the vectors "
                                       f"{few(inputs)}; give its inputs those names")
    made = {}
    for each in declared:
        array, rows = np.asarray(inputs[each.name]), each.shape[0] if each.shape else None
        require(not isinstance(rows, int) or rows == len(array),
                f"inputs: {named(each.name)}: the file takes {rows} rows, the vectors have "
                f"{len(array)}; export it for any number of rows")
        if len(each.shape) == array.ndim + 1:
            array = array[:, None]
        made[each.name] = array.astype(REALS.get(each.type, np.int32 if "int32" in each.type
                                                 else np.int64))
    return made
