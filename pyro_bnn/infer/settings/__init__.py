"""Tables ``[kernel]`` and ``[guide]`` of a recipe: the settings and the method they build."""

from __future__ import annotations

from typing import get_args

from pyro_bnn.infer.settings.adjusted_mclmc import AdjustedMCLMCSettings
from pyro_bnn.infer.settings.base import KernelSettings, Table
from pyro_bnn.infer.settings.chees import ChEESSettings
from pyro_bnn.infer.settings.guides import GUIDES, AnyGuide, GuideSettings
from pyro_bnn.infer.settings.hmc import HMCSettings
from pyro_bnn.infer.settings.mclmc import MCLMCSettings
from pyro_bnn.infer.settings.nuts import NUTSSettings
from pyro_bnn.infer.settings.preconditioned_sgld import PreconditionedSGLDSettings
from pyro_bnn.infer.settings.sghmc import SGHMCSettings
from pyro_bnn.infer.settings.sgld import SGLDSettings
from pyro_bnn.infer.settings.sgnht import SGNHTSettings

__all__ = [
    "GUIDES",
    "KERNELS",
    "AdjustedMCLMCSettings",
    "AnyGuide",
    "AnyKernel",
    "ChEESSettings",
    "GuideSettings",
    "HMCSettings",
    "KernelSettings",
    "MCLMCSettings",
    "NUTSSettings",
    "PreconditionedSGLDSettings",
    "SGHMCSettings",
    "SGLDSettings",
    "SGNHTSettings",
    "Table",
]

AnyKernel = (
    HMCSettings
    | NUTSSettings
    | ChEESSettings
    | MCLMCSettings
    | AdjustedMCLMCSettings
    | SGLDSettings
    | PreconditionedSGLDSettings
    | SGHMCSettings
    | SGNHTSettings
)

KERNELS: dict[str, type[KernelSettings]] = {
    settings.model_fields["name"].default: settings for settings in get_args(AnyKernel)
}
"""The settings of each kernel, by the name that a recipe gives it."""
