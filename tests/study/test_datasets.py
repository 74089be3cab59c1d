"""Loaders of the studies' data: what they read, and what they say where there is nothing."""

from __future__ import annotations

import re

import pytest
import torch

from pyro_bnn import UserError, datasets


def test_images_come_scaled_with_their_labels(root):
    found = datasets.mnist(root)
    assert found.train.x.shape == (12, 1, 28, 28)
    assert found.train.y.tolist() == [k % 10 for k in range(12)]
    raw = (root / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    first = (raw[16] / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(found.train.x[0, 0, 0, 0].item(), first, rtol=1e-6, atol=1e-6)
    assert list(found.ood) == ["FashionMNIST"]


def test_without_fashion_mnist_the_pixels_are_shuffled(root):
    for file in (root / "FashionMNIST" / "raw").iterdir():
        file.unlink()
    found = datasets.mnist()
    far = found.ood["shuffled pixels"].x
    assert not torch.equal(far, found.test.x)
    torch.testing.assert_close(far.flatten(1).sort().values, found.test.x.flatten(1).sort().values)


@pytest.mark.parametrize(("load", "classes"), [(datasets.cifar10, 10), (datasets.cifar100, 100)])
def test_cifar_with_street_numbers_elsewhere(root, load, classes):
    found = load(root)
    assert found.train.x.shape == (10, 3, 32, 32)
    assert found.ood["SVHN"].x.shape == (5, 3, 32, 32)
    assert found.ood["SVHN"].y.tolist() == [1, 0, 3, 4, 5]
    assert found.test.transform is None
    row = found.train.x[0]
    torch.manual_seed(0)
    changed = [found.train.transform(row) for _ in range(8)]
    assert all(one.shape == row.shape for one in changed)
    assert not any(torch.equal(one, row) for one in changed[:4])
    (root / "test_32x32.mat").unlink()
    assert load(root).ood == {}


def test_validation_images_get_their_labels_from_the_list(root):
    found = datasets.tiny_imagenet(root)
    assert found.train.y.tolist() == [0, 1, 2]
    assert found.test.y.tolist() == [2, 1, 0]
    assert found.test.x.shape == (3, 3, 64, 64)


def test_validation_images_in_a_folder_a_class(root):
    val = root / "tiny-imagenet-200" / "val"
    before = datasets.tiny_imagenet(root).test
    for number, name in enumerate(("n01", "n02", "n03")):
        (val / name).mkdir()
        (val / "images" / f"{number}.png").rename(val / name / f"{number}.png")
    (val / "images").rmdir()
    (val / "val_annotations.txt").unlink()
    after = datasets.tiny_imagenet(root).test
    assert after.y.tolist() == [0, 1, 2]
    assert torch.equal(after.x, before.x.flip(0))


def test_tables_are_standardised_by_the_training_rows_of_their_split(root):
    first, second = datasets.uci("yacht", 0, root), datasets.uci("yacht", 1, root)
    for found in (first, second):
        assert (len(found.train.x), len(found.test.x)) == (18, 2)
        torch.testing.assert_close(found.train.x.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.train.y.std(), torch.tensor(1.0))
    assert not torch.equal(first.test.x, second.test.x)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (datasets.mnist, r"MNIST is not at .*python -c .*MNIST"),
        (datasets.cifar10, r"CIFAR10 is not at .*python -c .*CIFAR10"),
        (datasets.cifar100, r"CIFAR100 is not at .*python -c .*CIFAR100"),
        (datasets.tiny_imagenet, r"Tiny ImageNet is not at .*curl"),
        (lambda root: datasets.uci("boat", 3, root), r"split 3 of the UCI set 'boat'.*git clone"),
    ],
)
def test_what_is_missing_says_the_command_that_gets_it(tmp_path, load, words):
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path)
    command = re.search(r'python -c "(.*)"', str(caught.value))
    if command:
        compile(command[1], "<command>", "exec")
        assert f"'{tmp_path}'" in command[1]


def test_digits_stand_in_for_mnist(tmp_path):
    found = datasets.mnist_or_digits(tmp_path)
    assert found.name == "digits 8x8, enlarged"
    assert found.train.x.shape == (1437, 1, 28, 28)
    assert list(found.ood) == ["shuffled pixels"]
