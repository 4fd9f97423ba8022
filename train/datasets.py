"""CIFAR-10, CIFAR-100 and scikit-learn's digits as arrays in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


class DataError(ValueError):
    """A data set that is missing, damaged or not what its layout promises."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one classification task, and what augmentation suits it.

    Attributes:
        name: Name that :func:`load` knows it by.
        train_images: uint8 (N, H, W, 3).
        train_labels: int32 (N,), from 0 to ``num_classes - 1``.
        test_images: uint8 (M, H, W, 3).
        test_labels: int32 (M,).
        mean: Channel means of the training images, in units where white is 1.
        std: Channel standard deviations over all pixels, in the same units.
        num_classes: Number of classes.
        class_names: One name per class.
        flip: Whether a mirror image is still of its class.
        crop_padding: Border in pixels for random crops.
        notes: What a person should be told about the files, one sentence each.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...]
    flip: bool
    crop_padding: int
    notes: tuple[str, ...] = ()


def load(name: str, data_dir: Path | None = None, *, digits_size: int = 16) -> Dataset:
    """Load a data set by name: "cifar10", "cifar100" or "digits".

    Args:
        name: Name of the data set.
        data_dir: Folder with the CIFAR files, ``data`` in the working directory if None. What is
            missing is downloaded there. The digits come with scikit-learn and need no folder.
        digits_size: Height and width of the digits, a multiple of 8.

    Returns:
        The data set.

    Raises:
        DataError: The name is unknown, or files are missing, damaged or of another layout.
    """
    if name == "digits":
        return _load_digits(digits_size)
    raise DataError(f"unknown data set {name!r}; known: cifar10, cifar100, digits")


def _load_digits(size: int) -> Dataset:
    """Scikit-learn's 8x8 digits, enlarged, in a fixed stratified split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if size < 8 or size % 8:
        raise DataError(f"digits are 8x8 pixels: the size must be a multiple of 8, got {size}")
    scale = size // 8
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey.repeat(scale, axis=1).repeat(scale, axis=2)[..., None], 3, axis=3)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images,
        digits.target.astype(np.int32),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    mean = float(train_images.mean() / 255)
    std = float(train_images.std() / 255)
    return Dataset(
        name="digits",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=(mean,) * 3,
        std=(std,) * 3,
        num_classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        flip=False,
        crop_padding=scale,  # one pixel of the original
    )
