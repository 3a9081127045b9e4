"""The PyTorch blocks of docs/oracle.md: the module with its mistake, the verdict, the remedy."""

import re
from pathlib import Path

import pytest

import npple.testing
from npple import oracle

pytest.importorskip("torch")
PAGE = (Path(__file__).parents[2] / "docs" / "oracle.md").read_text(encoding="utf-8")
MODULE, ASKED, ENDS, ASSERTED, BACK = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_page_prints_what_it_says(capsys):
    names = {}
    exec(MODULE + ASKED, names)
    assert names["report"].first_divergence == "level2/click/gate/logits"
    assert capsys.readouterr().out.endswith(ENDS)


def test_without_the_mistake_the_module_passes_with_gradients_and_its_weights_can_be_read():
    names = {}
    exec(MODULE.replace('{s}"](x)', '{s}"](now[s])') + ASKED, names)
    assert names["report"].passed
    assert "grad[dwell]/level1/click/experts/layer1/weight" in names["report"].given
    vectors = oracle.make_vectors(names["model"], seed=1)
    names |= {"npple": npple, "mapping": oracle.ModuleMapping(names["parameters"],
                                                              names["tensors"]),
              "x": vectors.inputs.astype("float32"), "targets": vectors.targets}
    exec(ASSERTED + BACK.splitlines()[0], names)
    outputs = names["model"].forward(names["params"], names["x"]).outputs
    module = names["module"](names["torch"].tensor(names["x"]))
    for task, y in outputs.items():
        assert abs(module[task].detach().numpy() - y).max() < 1e-5
