"""MNIST and Fashion-MNIST through torchvision's classes, from an offline copy or by download."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DOWNLOADS = Path(__file__).resolve().parents[1] / "data" / "torchvision"
MOMENTS = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}  # of the training pixels


class MissingImagesError(RuntimeError):
    """The images are not there; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """Standardised float32 images ``[images, pixels]`` and labels 0 to 9."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load(dataset: str, root: Path | None) -> Images:
    """Reads a data set.

    Args:
        dataset: "MNIST" or "FashionMNIST", torchvision's names.
        root: a folder that holds ``dataset/raw/*-ubyte``; None downloads what is not there yet.

    Raises:
        MissingImagesError: no torchvision, no files, or no download.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingImagesError(
            f"{dataset} is read by torchvision, which is not installed ({error}): "
            "pip install torchvision, or '.[experiments]'"
        ) from error
    reader = getattr(datasets, dataset)
    where = DOWNLOADS if root is None else root
    try:
        train, test = (
            reader(str(where), train=part, download=root is None) for part in (True, False)
        )
    except (RuntimeError, OSError) as error:
        raise MissingImagesError(
            f"no {dataset} ({str(error).splitlines()[0]}): put the four unpacked files "
            f"train-images-idx3-ubyte, ... into DIR/{dataset}/raw and pass --data DIR"
        ) from error
    mean, deviation = MOMENTS[dataset]

    def pixels(images: Tensor) -> Tensor:
        return ((images.float() / 255.0 - mean) / deviation).flatten(1)

    return Images(pixels(train.data), train.targets, pixels(test.data), test.targets)


def subset(images: Images, count: int | None) -> Images:
    """The first ``count`` training images, all of them for None."""
    return Images(
        images.train[:count], images.train_labels[:count], images.test, images.test_labels
    )


def blobs(count: int, pixels: int, seed: int) -> Images:
    """Ten Gaussian blobs in the place of images, for tests; as many for testing as for training."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, pixels, generator=generator)
    labels = torch.arange(2 * count) % 10
    points = centres[labels] + 0.5 * torch.randn(2 * count, pixels, generator=generator)
    return Images(points[:count], labels[:count], points[count:], labels[count:])
