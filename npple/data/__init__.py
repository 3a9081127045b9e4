"""Data for the models to learn from: a CSV file, the census of the papers, synthetic tasks.

The core of npple knows only arrays. Here, and nowhere else, text becomes arrays: a file is read
into columns of text (`read_columns`), a `Schema` learned from the training columns says what
they mean, and its `encode` gives a `Dataset`. `read_census` and `synthetic` are the two data
sets of the papers. Nothing here knows models or the command line.
"""

from npple.data.census import bundled, read_census
from npple.data.columns import read_columns
from npple.data.dataset import Dataset
from npple.data.schema import Schema
from npple.data.synthetic import synthetic, weights

__all__ = [
    "Dataset", "Schema", "bundled", "read_census", "read_columns", "synthetic", "weights",
]
