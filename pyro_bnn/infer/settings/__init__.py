"""Table ``[kernel]`` of a recipe, one kernel a file: the settings and the kernel they build."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from pyro_bnn.infer.settings.base import KernelSettings, Table
from pyro_bnn.infer.settings.hmc import HMCSettings
from pyro_bnn.infer.settings.nuts import NUTSSettings

__all__ = ["KERNELS", "AnyKernel", "HMCSettings", "KernelSettings", "NUTSSettings", "Table"]

_Kernel = HMCSettings | NUTSSettings

KERNELS: dict[str, type[KernelSettings]] = {
    settings.model_fields["name"].default: settings for settings in get_args(_Kernel)
}
"""The settings of each kernel, by the name that a recipe gives it."""

AnyKernel = Annotated[_Kernel, Field(discriminator="name")]
