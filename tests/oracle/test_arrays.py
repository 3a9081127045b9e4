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


def test_dense_is_also_what_says_so_by_a_method():
    """As a tensor of PaddlePaddle does."""
    class Dense(Lent):
        def is_sparse(self):
            return False

    assert as_arrays({"a": Dense(np.ones(2))})[0]["a"].tolist() == [1, 1]


class Sparse:
    """As of SciPy."""

    def toarray(self):
        return np.zeros((2, 2))


@pytest.mark.parametrize("value, said", [
    (Sparse(), "a dense array is needed, got a sparse Sparse"),
    (SimpleNamespace(is_sparse=True), "a dense array is needed"),
    (SimpleNamespace(is_sparse=lambda: True), "a dense array is needed"),
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


STEPS = {"torch.bfloat16": None, "from bfloat16": ("detach", "cpu", "float")}


class Foreign:
    """A tensor on a device, with a gradient, of a dtype that prints as PyTorch's do."""

    def __init__(self, array, dtype, steps=()):
        self.array, self.dtype, self.steps = array, dtype, steps

    def detach(self):
        return Foreign(self.array, self.dtype, (*self.steps, "detach"))

    def cpu(self):
        return Foreign(self.array, self.dtype, (*self.steps, "cpu"))

    def float(self):
        return Foreign(self.array, f"from {self.dtype[6:]}", (*self.steps, "float"))

    def __array__(self, dtype=None, copy=None):
        return self.array * (self.steps == STEPS.get(self.dtype, ("detach", "cpu")))


@pytest.mark.parametrize("dtype, precision", [
    ("torch.bfloat16", "bfloat16"), ("torch.float16", "float16"), ("torch.int64", "float64"),
    ("torch.float32", "float32"), ("torch.float8", "float64")])
def test_a_tensor_is_detached_brought_here_and_known_by_its_own_dtype(dtype, precision):
    arrays, precisions = as_arrays({"a": Foreign(np.ones(2, np.float32), dtype)})
    assert precisions == {"a": precision} and (arrays["a"] == 1).all()


def test_a_bfloat16_that_has_no_float_is_taken_as_an_array():
    class Short:
        dtype = "bfloat16"

        def __array__(self, dtype=None, copy=None):
            return np.ones(2, np.float32)

    assert as_arrays({"a": Short()})[1] == {"a": "bfloat16"}


def test_an_array_of_bfloat16_becomes_one_of_float32(monkeypatch):
    short = SimpleNamespace(dtype=SimpleNamespace(name="bfloat16"),
                            astype=lambda dtype: np.ones(2, dtype))
    monkeypatch.setattr("npple.oracle.arrays.as_numpy", lambda name, value: short)
    arrays, precisions = as_arrays({"a": short})
    assert arrays["a"].dtype == np.float32 and precisions == {"a": "bfloat16"}


def test_a_tensor_that_fails_says_what_it_said():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("lost")

    with pytest.raises(InputError) as caught:
        as_arrays({"a": Broken()}, "weights")
    assert str(caught.value) == "weights: a: not an array: lost"
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("value, said", [
    (np.ma.masked_array([1.0], [1]),
     "real numbers are needed, got a masked array; fill it first"),
    (Sparse(), "a dense array is needed, got a sparse Sparse; make it dense first (.toarray(), "
               ".to_dense())"),
    (SimpleNamespace(is_sparse=True), "a dense array is needed, got a sparse SimpleNamespace; "
                                      "make it dense first (.toarray(), .to_dense())"),
    (np.ones(2, complex), "real numbers are needed, got dtype complex128")])
def test_what_is_refused_is_told_in_full(value, said):
    with pytest.raises(InputError) as caught:
        as_arrays({"a": value})
    assert str(caught.value) == f"candidate: a: {said}"


def test_what_is_no_dict_is_refused_under_its_own_name():
    with pytest.raises(InputError) as caught:
        as_arrays([1], "run")
    assert str(caught.value) == "run: a dict of arrays by name is needed, got list"


def test_a_long_name_is_cut_off():
    with pytest.raises(InputError) as caught:
        as_arrays({"\n" * 99: np.zeros(1)})
    assert str(caught.value) == "candidate: names are printable text, got '" + "\\n" * 39 + "\\"


@pytest.mark.parametrize("dtype", ["?", "i4", "u1", "f2", "f4", "f8"])
def test_every_kind_of_real_number_is_taken(dtype):
    assert as_arrays({"a": np.ones(2, dtype)})[0]["a"].dtype == np.dtype(dtype)
