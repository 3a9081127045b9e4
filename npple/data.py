"""Data for the models to learn from: a CSV file, the census of the papers, synthetic tasks.

A file is read into columns of text (`read_columns`), a `Schema` learned from the training columns
says what they mean, and its `encode` gives a `Dataset`. `read_census` and `synthetic` are the two
data sets of the papers, `census_split` and `census_roles` use the first as they do; `click_log`
makes one up as people have them, `vtr_vcr` one with the mechanism behind PLE's seesaw.
"""

from npple.learn.census import bundled, census_roles, census_split, read_census
from npple.learn.clicklog import click_log
from npple.learn.columns import read_columns
from npple.learn.dataset import Dataset
from npple.learn.scenes import vtr_vcr
from npple.learn.schema import Schema
from npple.learn.synthetic import label_correlations, synthetic, weights

__all__ = ["Dataset", "Schema", "bundled", "census_roles", "census_split", "click_log",
           "label_correlations", "read_census", "read_columns", "synthetic", "vtr_vcr", "weights"]
