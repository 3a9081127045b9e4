"""Data for the models to learn from: a CSV file, the census of the papers, synthetic tasks.

A file is read into columns of text (`read_columns`), a `Schema` learned from the training columns
says what they mean, and its `encode` gives a `Dataset`. `read_census` and `synthetic` are the two
data sets of the papers; `click_log` makes one up as people have them.
"""

from npple.learn.census import bundled, read_census
from npple.learn.clicklog import click_log
from npple.learn.columns import read_columns
from npple.learn.dataset import Dataset
from npple.learn.schema import Schema
from npple.learn.synthetic import label_correlations, synthetic, weights

__all__ = ["Dataset", "Schema", "bundled", "click_log", "label_correlations", "read_census",
           "read_columns", "synthetic", "weights"]
