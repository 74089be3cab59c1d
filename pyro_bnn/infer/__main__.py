"""``python -m pyro_bnn.infer``."""

from __future__ import annotations

from pyro_bnn.infer.cli.app import main_infer

if __name__ == "__main__":
    main_infer()
