"""A candidate's values become arrays with their true precision."""

from types import SimpleNamespace

import numpy as np
import pytest

from npple.errors import InputError
from npple.oracle.arrays import as_arrays


def test_a_masked_array_is_refused():
    with pytest.raises(InputError, match="a: real numbers are needed, got a masked array"):
        as_arrays({"a": np.ma.masked_array([1.0, 2.0], [0, 1])})


def test_the_name_of_a_dtype_object_is_its_precision():
    class Tensor:
        dtype = SimpleNamespace(name="float32")  # as TensorFlow's, which print otherwise

        def __array__(self, dtype=None, copy=None):
            return np.zeros(2, np.float32)

    assert as_arrays({"a": Tensor()})[1] == {"a": "float32"}
