"""A Bayesian classification: one column of a table given the others."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn

from pyro_bnn.data import standardised_split
from pyro_bnn.nn import Normal, categorical, lift

TABLE = "data.csv"
READ = {}  # what pandas.read_csv is told of it
DROP = []  # columns that are left out
TARGET = "target"

# Empty columns are left out, then rows with gaps.
table = pd.read_csv(TABLE, **READ).drop(columns=DROP).dropna(axis="columns", how="all").dropna()
labels, classes = pd.factorize(table.pop(TARGET), sort=True)
target = torch.tensor(labels)
# Columns of words become columns of zeros and ones.
columns = pd.get_dummies(table).astype("float64")
# Centred first: a time stamp has more digits than float32.
features = torch.tensor((columns - columns.mean()).to_numpy(dtype="float32"))

net = nn.Sequential(nn.Linear(features.shape[1], 32), nn.ReLU(), nn.Linear(32, len(classes)))
bnn = lift(net, prior=Normal(scale="fan_in"))


def model(x, y=None):
    """Sample the network's weights, then the class of each row."""
    return categorical(bnn(x), y)


def data():
    """Hold out a fifth of the rows; standardise the features."""
    return standardised_split(features, target, name=Path(TABLE).name)
