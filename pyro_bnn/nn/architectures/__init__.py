"""Networks of the studies, one a file; each is a plain ``nn.Module`` for `lift`."""

from __future__ import annotations

from pyro_bnn.nn.architectures.lenet import lenet5
from pyro_bnn.nn.architectures.mlp import mlp
from pyro_bnn.nn.architectures.optunet import optunet
from pyro_bnn.nn.architectures.resnet18 import resnet18
from pyro_bnn.nn.architectures.resnet20_frn import resnet20_frn
from pyro_bnn.nn.architectures.vit import small_vit

__all__ = ["lenet5", "mlp", "optunet", "resnet18", "resnet20_frn", "small_vit"]
