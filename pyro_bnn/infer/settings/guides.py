"""Table ``[guide]`` of a recipe: the settings of each guide and the guide they build."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args

from pydantic import Field

from pyro_bnn.infer.guides import (
    SWAG,
    Dropout,
    Ensemble,
    FullRank,
    Guide,
    Laplace,
    LowRank,
    MeanField,
    PointEstimate,
    Training,
)
from pyro_bnn.infer.guides.layer_start import init_to_layers
from pyro_bnn.infer.settings.base import Table
from pyro_bnn.logdensity import LogDensity

__all__ = ["GUIDES", "AnyGuide", "GuideSettings"]


class GuideSettings(Table):
    """Table ``[guide]``: a name, which chooses the guide, how it is trained, and its own keys."""

    name: str
    epochs: int = Field(100, ge=1, description="Passes over the data.")
    batch_size: int = Field(128, ge=1, description="Rows of a step; all, if there are no more.")
    optimiser: Literal["sgd", "adam", "adamw"] = Field("adam", description="The optimiser.")
    learning_rate: float = Field(0.01, gt=0, description="The first learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd.")
    least_momentum: float | None = Field(
        None, description="Of sgd with one-cycle: the momentum where the rate is highest."
    )
    nesterov: bool = Field(False, description="Nesterov's momentum, of sgd.")
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = Field(
        "cosine", description="How the learning rate falls."
    )
    milestones: tuple[float, ...] = Field(
        (1 / 3, 2 / 3), description="Shares of the training at which the schedule step steps."
    )
    decay: float = Field(0.1, gt=0, description="Factor of each such step.")
    clip_norm: float | None = Field(
        None, gt=0, description="Norm to which the gradient of the loss a row is shortened."
    )
    accumulate: int = Field(1, ge=1, description="Minibatches whose gradients make a step.")
    precision: Literal["full", "bfloat16", "float16"] = Field(
        "full", description="Of the model's arithmetic in training, by autocast."
    )
    loaders: int = Field(0, ge=0, description="Processes that fetch augmented rows.")
    fail_above: float | None = Field(
        None, description="A member of a higher last loss, in nats a row, has failed."
    )
    retries: int = Field(1, ge=0, description="How often a member that failed is trained again.")
    block: int | None = Field(None, ge=1, description="Members that are trained at once.")
    workers: int = Field(1, ge=1, description="Processes that train, each its own blocks.")
    start: Literal["prior", "layers"] = Field(
        "prior", description="Draws from the prior, or weights as the layers initialise themselves."
    )

    def least_gradients(self, rows: int) -> int:
        """Count the gradients of the training of one member, on so many rows."""
        return self.epochs * max(1, rows // self.batch_size)

    def ensemble(self, density: LogDensity, size: int) -> Ensemble:
        """Build the guide, `size` times."""
        guide = self.guide(density)
        if self.start == "layers":
            guide.init_strategy = init_to_layers(density)
        return Ensemble(
            guide,
            size,
            block=self.block,
            retries=self.retries,
            workers=self.workers,
        )

    def guide(self, density: LogDensity) -> Guide:
        """Build the guide."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return the guide's own keys and its training, as arguments of its class."""
        keys = {field.name: getattr(self, field.name) for field in fields(Training)}
        own = self.model_dump(exclude={"name", "retries", "block", "workers", "start", *keys})
        return {"training": Training(**keys), **own}


class PointEstimateSettings(GuideSettings):
    """Table ``[guide]`` of a recipe with ``name = "map"``."""

    name: Literal["map"] = Field("map", description="Maximum a posteriori; deep ensembles.")

    def guide(self, density: LogDensity) -> PointEstimate:
        """Build the guide."""
        return PointEstimate(density, **self.options())


class SWAGSettings(GuideSettings):
    """Table ``[guide]`` of a recipe with ``name = "swag"``."""

    name: Literal["swag"] = Field("swag", description="Stochastic weight averaging, Gaussian.")
    collect_epochs: int = Field(40, ge=2, description="Epochs whose iterates are collected.")
    collect_rate: float = Field(0.01, gt=0, description="Learning rate meanwhile.")
    rank: int = Field(20, ge=0, description="Deviations that are kept; 0 for the diagonal.")
    scale: float = Field(1.0, gt=0, description="Multiplies the covariance.")

    def guide(self, density: LogDensity) -> SWAG:
        """Build the guide."""
        return SWAG(density, **self.options())


class VariationalSettings(GuideSettings):
    """What the variational guides share."""

    initial_scale: float = Field(0.05, gt=0, description="Deviation of each weight at the start.")
    kl_weight: float = Field(1.0, gt=0, description="Of the divergence from the prior.")
    particles: int = Field(1, ge=1, description="Draws of each step.")


class MeanFieldSettings(VariationalSettings):
    """Table ``[guide]`` of a recipe with ``name = "mean-field"``."""

    name: Literal["mean-field"] = Field("mean-field", description="Bayes by backprop.")
    estimator: Literal["plain", "local", "flipout"] = Field(
        "plain", description="Noise in the weights, in the outputs of layers, or with signs a row."
    )

    def guide(self, density: LogDensity) -> MeanField:
        """Build the guide."""
        return MeanField(density, **self.options())


class LowRankSettings(VariationalSettings):
    """Table ``[guide]`` of a recipe with ``name = "low-rank"``."""

    name: Literal["low-rank"] = Field(
        "low-rank", description="Variational, covariance of low rank plus diagonal."
    )
    rank: int = Field(10, ge=1, description="Rank of that covariance.")

    def guide(self, density: LogDensity) -> LowRank:
        """Build the guide."""
        return LowRank(density, **self.options())


class FullRankSettings(VariationalSettings):
    """Table ``[guide]`` of a recipe with ``name = "full-rank"``."""

    name: Literal["full-rank"] = Field(
        "full-rank", description="Variational, full covariance; for small networks."
    )

    def guide(self, density: LogDensity) -> FullRank:
        """Build the guide."""
        return FullRank(density, **self.options())


class LaplaceSettings(GuideSettings):
    """Table ``[guide]`` of a recipe with ``name = "laplace"``."""

    name: Literal["laplace"] = Field("laplace", description="A Gaussian at the mode.")
    structure: Literal["kron", "diag", "full", "last-layer", "subnetwork", "hessian"] = Field(
        "kron", description="Of the curvature; hessian is for models without a lifted network."
    )
    prior: Literal["model", "marglik"] | float = Field(
        "model", description="The model's own, that of the highest evidence, or a precision."
    )
    subnetwork: int = Field(100, ge=1, description="Weights of the structure subnetwork.")

    def guide(self, density: LogDensity) -> Laplace:
        """Build the guide."""
        return Laplace(density, **self.options())


class DropoutSettings(GuideSettings):
    """Table ``[guide]`` of a recipe with ``name = "dropout"``."""

    name: Literal["dropout"] = Field("dropout", description="Monte Carlo dropout.")
    rate: float | dict[str, float] = Field(
        0.1, description="Probability of dropping a unit, or one for each pattern of site names."
    )
    axis: int = Field(1, ge=0, description="Axis of a weight's inputs.")

    def guide(self, density: LogDensity) -> Dropout:
        """Build the guide."""
        return Dropout(density, **self.options())


AnyGuide = (
    PointEstimateSettings
    | SWAGSettings
    | MeanFieldSettings
    | LowRankSettings
    | FullRankSettings
    | LaplaceSettings
    | DropoutSettings
)

GUIDES: dict[str, type[GuideSettings]] = {
    settings.model_fields["name"].default: settings for settings in get_args(AnyGuide)
}
"""The settings of each guide, by the name that a recipe gives it."""
