"""Training a model, and what a trained one gives: the public names of `npple.learn.training`."""

from npple.learn.evaluation import Evaluation
from npple.learn.training import Run, evaluate_model, gate_weights, predict, stitched_start

__all__ = ["Evaluation", "Run", "evaluate_model", "gate_weights", "predict", "stitched_start"]
