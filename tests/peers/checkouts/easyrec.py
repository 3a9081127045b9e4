"""PLE and MMoE of alibaba/EasyRec: its graphs, in a session of TensorFlow 1's kind.

Run with TF_USE_LEGACY_KERAS=1 and tf-keras. Of the package only the layers and the functions that
build the graphs are run: for its protocol buffers and the base class of its models, which have to
be compiled and need its data pipeline, plain classes stand in.
"""

import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace as Config
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import checkout  # noqa: E402

import npple  # noqa: E402
from npple.oracle import (ModuleMapping, Report, check_arrays, make_vectors,  # noqa: E402
                          reshaped, stacked)

TASKS = {"click": "binary", "buy": "binary"}
WIDTH, UNITS = 6, [(5, 6), (4,)]
OPTIONS = {"inputs": WIDTH, "tasks": TASKS, "tower_units": (3,), "gate_bias": True}
BASES = {"easy_rec.python.protos.ple_pb2": "PLE", "easy_rec.python.protos.mmoe_pb2": "MMoE"}


class Base:
    """Instead of MultiTaskModel: keeps what it is given, and the towers' outputs."""

    def __init__(self, config: Any, features: Any) -> None:
        self._model_config, self._features = config, features
        self._l2_reg, self._is_training = None, False
        self._task_num = self._task_nums = len(TASKS)
        self._prediction_dict: dict[str, Any] = {}

    def _add_to_prediction_dict(self, outputs: dict[str, Any]) -> None:
        self._prediction_dict |= outputs


def dnn(units: tuple[int, ...]) -> Config:
    return Config(hidden_units=list(units), activation="relu", use_bn=False, dropout_ratio=[])


def towers() -> list[Config]:
    return [Config(tower_name=task, num_class=1, dnn=dnn((3,)), HasField=lambda name: True)
            for task in TASKS]


def model_class(path: Path, name: str) -> Any:
    """Its class PLE or MMoE, over `Base`."""
    for folder in ("easy_rec", "easy_rec.python", "easy_rec.python.layers", "easy_rec.python.utils",
                   "easy_rec.python.model", "easy_rec.python.protos"):
        checkout.package(folder, path / folder.replace(".", "/"))
    for module, what in {**BASES, "easy_rec.python.model.multi_task_model": "MultiTaskModel"
                         }.items():
        made = types.ModuleType(module)
        setattr(made, what, Base)
        sys.modules[module] = made
    from easy_rec.python.model import mmoe, ple
    found = {"PLE": ple.PLE, "MMoE": mmoe.MMoE}[name]
    found.__init__ = Base.__init__
    return found


def dense(name: str, paths: list[str], depth: int = 1) -> dict[str, Any]:
    """The dense layers of an expert group, of a gate or of a tower."""
    made = {}
    for layer in range(depth):
        each = [path.format(layer) for path in paths]
        for ours, theirs in (("weight", "kernel"), ("bias", "bias")):
            made[f"{name}/layer{layer + 1}/{ours}"] = (
                stacked(*(f"{path}/{theirs}" for path in each)) if "experts" in name
                else f"{each[0]}/{theirs}")
    return made


def asked(path: Path, name: str, config: Config, model: npple.Network, parameters: dict[str, Any]
          ) -> Report:
    import tensorflow as tf
    v1 = tf.compat.v1
    for i, task in enumerate(TASKS):
        parameters |= dense(f"tower/{task}", [f"{task}/dnn_{{}}"])
        parameters |= {f"tower/{task}/layer2/weight": f"dnn_output_{i}/kernel",
                       f"tower/{task}/layer2/bias": f"dnn_output_{i}/bias"}
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float64, (None, WIDTH))
        outputs = model_class(path, name)(config, x).build_predict_graph()
        own = {variable.op.name: variable for variable in v1.trainable_variables()}
        session = v1.Session()
        session.run(v1.global_variables_initializer())
        arrays = session.run(own)
        started = {task: v1.placeholder(tf.float64, (None, 1)) for task in TASKS}
        slopes = v1.gradients([outputs[task] for task in TASKS], [*own.values()],
                              [started[task] for task in TASKS])

        def fed(weights: dict[str, Any], inputs: Any) -> dict[Any, Any]:
            for variable, array in weights.items():
                own[variable].load(array, session)
            return {x: inputs}

        def run(weights: dict[str, Any], inputs: Any) -> dict[str, Any]:
            return session.run(outputs, fed(weights, inputs))

        def gradients(weights: dict[str, Any], inputs: Any, starts: dict[str, Any]
                      ) -> dict[str, Any]:
            begun = {started[task]: starts[task] for task in TASKS}
            return dict(zip(own, session.run(slopes, fed(weights, inputs) | begun)))

        tensors = {f"tower/{task}": reshaped(task, -1) for task in TASKS}
        return check_arrays(make_vectors(model), arrays, ModuleMapping(parameters, tensors), run,
                            gradients)


def ple(path: Path) -> Report:
    levels = [Config(network_name=f"net{i}", expert_num_per_task=2, share_num=1,
                     task_expert_net=dnn(units), share_expert_net=dnn(units))
              for i, units in enumerate(UNITS)]
    parameters = {}
    for level, units in enumerate(UNITS):
        for i, stream in enumerate((*TASKS, "shared")):
            at, own = f"level{level + 1}/{stream}", stream != "shared"
            where = f"net{level}_task_{i}" if own else f"net{level}_share/dnn"
            parameters |= dense(f"{at}/experts", [f"{where}_expert_{k}/dnn/dnn_{{}}"
                                                  for k in range(2 if own else 1)], len(units))
            if own or level == 0:
                gate = where if own else f"net{level}_share"
                parameters |= dense(f"{at}/gate", [f"{gate}_gate/dnn"])
    model = npple.ple(levels=2, task_experts=2, shared_experts=1, expert_units=UNITS, **OPTIONS)
    config = Config(extraction_networks=levels, task_towers=towers())
    return asked(path, "PLE", config, model, parameters)


def mmoe(path: Path) -> Report:
    config = Config(HasField=lambda name: name == "expert_dnn", expert_dnn=dnn((5, 4)),
                    num_expert=3, task_towers=towers())
    parameters = dense("level1/shared/experts", [f"mmoe/expert_{k}/dnn_{{}}" for k in range(3)], 2)
    for i, task in enumerate(TASKS):
        parameters |= dense(f"level1/{task}/gate", [f"mmoe/gate_{i}/dnn"])
    model = npple.mmoe(experts=3, expert_units=(5, 4), **OPTIONS)
    return asked(path, "MMoE", config, model, parameters)


def cases(path: Path) -> checkout.Cases:
    yield "PLE, use_bn: false", lambda: ple(path)
    yield "MMoE, use_bn: false", lambda: mmoe(path)


EXPECTED = {"bd230cb": dict.fromkeys(("PLE, use_bn: false", "MMoE, use_bn: false"),
                                     checkout.NOTHING)}

if __name__ == "__main__":
    sys.exit(checkout.main(
        "alibaba/EasyRec", [f"easy_rec/python/{name}.py" for name in (
            "model/ple", "model/mmoe", "layers/dnn", "layers/mmoe", "utils/activation")],
        cases, EXPECTED))
