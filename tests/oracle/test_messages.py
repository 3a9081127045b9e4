"""Names of any length and letters, from modules and files, in messages: lines, and short ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npple
from npple.oracle import (ModuleMapping, Norm, check, check_arrays, load_mapping, make_vectors,
                          sliced, stacked)

MODEL = npple.shared_bottom(3, {"a": "binary"}, expert_units=(2,), tower_units=())
VECTORS = make_vectors(MODEL, batch=2)
OWN = dict(zip(MODEL.shapes, ("kernel", "offset", "head", "end"), strict=True))
MAPPING = ModuleMapping(OWN)
NAMES = st.lists(st.text(min_size=1, max_size=3)
                 | st.text(alphabet="/.\n'\"x", min_size=61, max_size=400),
                 min_size=7, max_size=7, unique=True)
SMALL = np.ones(())


def judged(mapping=MAPPING, run=None, gradients=None, weights=None):
    own = {OWN[name]: np.ones(shape) for name, shape in MODEL.shapes.items()} | (weights or {})
    return check_arrays(VECTORS, own, mapping, run or (lambda w, x: {}), gradients)


def grads(names):
    return lambda w, x, starts: dict.fromkeys(names, SMALL)


def outputs(w, x):
    return {"tower/a": np.zeros(2)}


FAULTS = {
    "sources": lambda n, tmp: judged(replace(MAPPING, parameters=OWN | {"a": stacked(*n)})),
    "no entries": lambda n, tmp: judged(ModuleMapping(dict(zip(n, n, strict=True))),
                                        weights=dict.fromkeys(n, SMALL)),
    "tensors": lambda n, tmp: judged(replace(MAPPING, tensors={n[0]: stacked(*n)}),
                                     lambda w, x: dict.fromkeys(n[1:], SMALL)),
    "close": lambda n, tmp: judged(replace(MAPPING, tensors={n[0]: n[1]}),
                                   lambda w, x: {n[1] + "x": SMALL}),
    "axes": lambda n, tmp: judged(replace(MAPPING, tensors={n[0]: sliced(n[1], 0)}),
                                  lambda w, x: {n[1]: SMALL}),
    "entries": lambda n, tmp: ModuleMapping({n[0]: 3}),
    "fronts": lambda n, tmp: judged(replace(MAPPING, front={n[0]: 0})),
    "matrix": lambda n, tmp: judged(replace(MAPPING, front={n[0]: "identity"}),
                                    weights={n[0]: SMALL}),
    "norms": lambda n, tmp: judged(replace(MAPPING, norms={n[0]: n[1]})),
    "norm": lambda n, tmp: judged(replace(MAPPING, norms={n[0]: Norm(*n[:3], 0.1)})),
    "twice": lambda n, tmp: ModuleMapping(OWN, norms=dict.fromkeys(n[1:], n[0])),
    "sizes": lambda n, tmp: judged(replace(MAPPING, norms={n[0]: Norm(*n[:3], 0.1)}),
                                   weights={n[0]: np.ones((3, 2)), n[1]: SMALL, n[2]: SMALL}),
    "both": lambda n, tmp: judged(ModuleMapping(OWN, idle=("*",)),
                                  lambda w, x: outputs(w, x) | dict.fromkeys(n, SMALL), grads(n),
                                  weights=dict.fromkeys(n, SMALL)),
    "unknown": lambda n, tmp: judged(run=outputs, gradients=grads(n)),
    "shapes": lambda n, tmp: judged(ModuleMapping(OWN, idle=("*",)), outputs, grads(n),
                                    weights=dict.fromkeys(n, np.ones(2))),
    "texts": lambda n, tmp: judged(weights={n[0]: "text"}),
    "results": lambda n, tmp: check(VECTORS, dict.fromkeys(n, SMALL)),
    "nearly": lambda n, tmp: check(VECTORS, {f"tower/b{name}": SMALL for name in n}),
    "files": lambda n, tmp: load(tmp, {n[0]: 1}),
    "recipes": lambda n, tmp: load(tmp, {"parameters": {n[0]: {"stack": [n[1]], n[2]: 1}}}),
    "keys": lambda n, tmp: load(tmp, {"parameters": {}, "norms": {n[0]: {n[1]: 1}}}),
}


def load(folder, content):
    path = folder / "m.json"
    path.write_text(json.dumps({"format": "npple mapping", "version": 1} | content))
    return load_mapping(path)


@pytest.mark.parametrize("fault", FAULTS)
@given(names=NAMES)
def test_a_message_is_a_short_line_whatever_the_names(fault, names, tmp_path_factory):
    with pytest.raises(npple.errors.NppleError) as caught:
        FAULTS[fault](names, tmp_path_factory.getbasetemp())
    head, *more = str(caught.value).split("\n")
    assert all(line.startswith("  ") for line in more)
    assert not more or isinstance(caught.value, npple.errors.MappingError)
    assert all(len(line) <= 300 and line.isprintable() for line in (head, *more))
