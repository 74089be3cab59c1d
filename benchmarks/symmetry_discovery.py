"""Discovery and certification of the symmetries of torchvision's networks.

Run: python benchmarks/symmetry_discovery.py [--threads N] [NAME ...]
"""

from __future__ import annotations

import argparse
import time

import torch
import torchvision.models as models

from pyro_bnn.symmetry import discover

DEFAULT = (
    "resnet18",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
)


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("names", nargs="*", default=DEFAULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.names:
        net = getattr(models, name)(weights=None)
        size = 224 if name.startswith(("vit", "swin")) else 64
        start = time.perf_counter()
        group = discover(net, torch.zeros(1, 3, size, size))
        seconds = time.perf_counter() - start
        print(
            f"{name}: {seconds:.1f} s, {len(group.permutable)} spaces, log |G| = "
            f"{group.log_order:.0f}, {group.scale_dim} scales, certified to "
            f"{group.certificate:.0e}, without a rule: {', '.join(group.unruled) or 'none'}"
        )


if __name__ == "__main__":
    main()
