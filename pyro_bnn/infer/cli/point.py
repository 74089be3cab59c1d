"""The single network that the predictions of a run are compared with."""

from __future__ import annotations

from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.data import Split
from pyro_bnn.infer.cli.predicting import site_values
from pyro_bnn.infer.point_estimate import maximum_a_posteriori
from pyro_bnn.infer.predict import predict_in_chunks
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import open_trace, segment_paths
from pyro_bnn.trace.reader import check_segments

__all__ = ["point_predictions", "single_network"]


def single_network(density: LogDensity, recipe: Recipe, run: Path) -> dict[str, Tensor]:
    """Return one trained network, ``(1, *shape)`` for each site, running statistics included.

    Where the run trains such networks, it is the first of them: trained as the recipe says, while
    many a network cannot be trained from draws of its prior. Elsewhere one is trained by Adam.

    Parameters
    ----------
    density : LogDensity
        Of the model.
    recipe : Recipe
        Of the run.
    run : Path
        The run directory, its segments written.
    """
    if recipe.method == "map":
        segments = segment_paths(run)
        check_segments(segments)
        with open_trace(segments[0]) as segment:
            first = segment["posterior"].to_dataset().isel(chain=slice(1), draw=slice(1))
            return site_values(first.load(), density)
    generator = torch.Generator(density.device).manual_seed(recipe.run.seed)
    return with_statistics(density, maximum_a_posteriori(density, generator))


def point_predictions(
    density: LogDensity, point: dict[str, Tensor], split: Split, kind: str
) -> xr.Dataset:
    """Return what one network predicts on a split: the group ``point_estimate``.

    Parameters
    ----------
    density : LogDensity
        Of the model.
    point : dict of str to Tensor
        ``(1, *shape)`` for each site.
    split : Split
        Of the data.
    kind : str
        What `likelihood_kind` returned.
    """
    found = predict_in_chunks(density, point, split.x, split.y)
    variables = {
        name: (("test", "class")[: tensor.ndim - 1], tensor[0].cpu().numpy())
        for name, tensor in found._asdict().items()
        if tensor is not None
    }
    return xr.Dataset(variables, attrs={"likelihood": kind})
