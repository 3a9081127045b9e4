"""A candidate's values become arrays with their true precision."""

import array as pyarray
import re
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


class Lent:
    """A tensor that can be had by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [
    Lent, memoryview, lambda array: array.tolist(), lambda array: array.astype(int),
    lambda array: pyarray.array("d", array)])
def test_whatever_is_an_array_is_taken(wrap):
    arrays, precisions = as_arrays({"a": wrap(np.array([1.0, 2.0]))})
    np.testing.assert_array_equal(arrays["a"], [1.0, 2.0])
    assert precisions == {"a": "float64"}


def test_the_precision_of_what_is_lent_is_its_own():
    assert as_arrays({"a": memoryview(np.zeros(2, np.float32))})[1] == {"a": "float32"}
    assert as_arrays({"a": Lent(np.zeros(2, np.float16))})[1] == {"a": "float16"}


class Sparse:
    """As of SciPy."""

    def toarray(self):
        return np.zeros((2, 2))


@pytest.mark.parametrize("value, said", [
    (Sparse(), "a dense array is needed, got a sparse Sparse"),
    (SimpleNamespace(is_sparse=True), "a dense array is needed"),
    ([[1.0], [1.0, 2.0]], "not an array"), (np.array([1, None]), "got dtype object"),
    (np.ones(2, complex), "got dtype complex128"), ("text", "got dtype <U4"),
    (b"bytes", "got dtype"), (None, "got dtype object"), (np.array(["1.0"]), "got dtype <U3")])
def test_what_is_no_array_of_real_numbers_is_refused_by_name(value, said):
    with pytest.raises(InputError, match=f"^candidate: a: .*{re.escape(said)}"):
        as_arrays({"a": value})


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", 3, b"a"])
def test_names_are_printable_texts(name):
    with pytest.raises(InputError, match="names are printable text") as caught:
        as_arrays({name: np.zeros(2)})
    assert str(caught.value).isprintable()
