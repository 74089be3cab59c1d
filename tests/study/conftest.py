"""Data sets in miniature, in the layouts in which they are stored."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.svhn
from PIL import Image

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a few rows of every data set; torchvision's checksums are off."""
    monkeypatch.setenv("PYRO_BNN_DATA", str(tmp_path))
    for module in (torchvision.datasets.cifar, torchvision.datasets.svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())
    for name in ("MNIST", "FashionMNIST"):
        _idx(tmp_path / name / "raw", 12, 6)
    _cifar(tmp_path / "cifar-10-batches-py", 10)
    _cifar(tmp_path / "cifar-100-python", 100)
    images = RNG.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    scipy.io.savemat(
        tmp_path / "test_32x32.mat", {"X": images, "y": np.array([[1], [10], [3], [4], [5]])}
    )
    _tiny(tmp_path / "tiny-imagenet-200")
    _uci(tmp_path / "UCI" / "yacht" / "data")
    return tmp_path


def _idx(folder: Path, train: int, test: int) -> None:
    folder.mkdir(parents=True)
    for prefix, rows in (("train", train), ("t10k", test)):
        images = RNG.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        head = struct.pack(">IIII", 2051, rows, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = (np.arange(rows) % 10).astype(np.uint8)
        head = struct.pack(">II", 2049, rows)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def _cifar(folder: Path, classes: int) -> None:
    folder.mkdir()
    if classes == 10:
        batches = {f"data_batch_{k}": 2 for k in range(1, 6)} | {"test_batch": 4}
        key, meta, names = "labels", "batches.meta", "label_names"
    else:
        batches, key, meta, names = {"train": 10, "test": 4}, "fine_labels", "meta", None
    for batch, rows in batches.items():
        data = RNG.integers(0, 256, (rows, 3072), dtype=np.uint8)
        labels = RNG.integers(0, classes, rows).tolist()
        (folder / batch).write_bytes(pickle.dumps({"data": data, key: labels}))
    listed = [f"class {k}" for k in range(classes)]
    (folder / meta).write_bytes(pickle.dumps({names or "fine_label_names": listed}))


def _tiny(folder: Path) -> None:
    lines = []
    for number, name in enumerate(("n01", "n02", "n03")):
        for part in (folder / "train" / name / "images", folder / "val" / "images"):
            part.mkdir(parents=True, exist_ok=True)
            pixels = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(part / f"{number}.png")
        lines.append(f"{number}.png\t{name}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))


def _uci(folder: Path) -> None:
    folder.mkdir(parents=True)
    np.savetxt(folder / "data.txt", 4 + 2 * RNG.normal(size=(20, 7)))
    np.savetxt(folder / "index_features.txt", np.arange(6))
    np.savetxt(folder / "index_target.txt", [6])
    for split in range(2):
        order = np.random.default_rng(split).permutation(20)
        np.savetxt(folder / f"index_train_{split}.txt", order[:18])
        np.savetxt(folder / f"index_test_{split}.txt", order[18:])
