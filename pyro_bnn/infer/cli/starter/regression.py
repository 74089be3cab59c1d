"""A Bayesian regression of one column of a table on the others."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn

from pyro_bnn.data import standardised_split
from pyro_bnn.nn import Normal, gaussian, lift

TABLE = "data.csv"
READ = {}  # what pandas.read_csv is told of it
DROP = []  # columns that are left out
TARGET = "target"

# Empty columns are left out, then rows with gaps.
table = pd.read_csv(TABLE, **READ).drop(columns=DROP).dropna(axis="columns", how="all").dropna()
target = torch.tensor(table.pop(TARGET).to_numpy(), dtype=torch.float32)
# Columns of words become columns of zeros and ones.
columns = pd.get_dummies(table).astype("float64")
# Centred first: a time stamp has more digits than float32.
features = torch.tensor((columns - columns.mean()).to_numpy(dtype="float32"))

net = nn.Sequential(
    nn.Linear(features.shape[1], 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
)
bnn = lift(net, prior=Normal(scale="fan_in"))


def model(x, y=None):
    """Sample weights and the noise's deviation, then the standardised target."""
    return gaussian(bnn(x), y)


def data():
    """Hold out a fifth of the rows; standardise features and target."""
    return standardised_split(features, target, standardise_y=True, name=Path(TABLE).name)
