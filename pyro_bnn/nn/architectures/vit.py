"""A small vision transformer (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from torch import nn

__all__ = ["small_vit"]


def small_vit(
    classes: int = 10,
    *,
    image: int = 32,
    patch: int = 4,
    layers: int = 4,
    heads: int = 4,
    width: int = 64,
) -> nn.Module:
    """Return torchvision's vision transformer at a size that a laptop can sample.

    Parameters
    ----------
    classes : int
        Outputs.
    image, patch : int
        Sides of the images ``(batch, 3, image, image)`` and of their patches, in pixels.
    layers, heads, width : int
        Encoder blocks, attention heads of each, and the width of a token; the hidden layer of a
        block is twice as wide.
    """
    # An import of seconds, which the other networks do not need.
    from torchvision.models import VisionTransformer

    net: nn.Module = VisionTransformer(
        image_size=image,
        patch_size=patch,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=2 * width,
        num_classes=classes,
    )
    return net
