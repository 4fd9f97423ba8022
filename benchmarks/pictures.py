"""Synthetic pictures in a ``DataLoader``, through torchvision's transforms."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from benchmarks import data
from benchmarks.task import Task


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures in memory, handed out one by one as PIL images, as torchvision's CIFAR10 does.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,).
        transform: from a PIL image to a tensor.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self._transform(Image.fromarray(self._images[index]))
        return image, int(self._labels[index])


def make_loader(
    task: Task,
    pictures: tuple[np.ndarray, np.ndarray],
    *,
    workers: int,
    train: bool = True,
    steps: int | None = None,
) -> DataLoader[Any]:
    """Batches of pictures, cropped, flipped and normalised.

    Args:
        task: says the batch size and the size of the pictures.
        pictures: images (N, H, W, 3) uint8 and labels (N,).
        workers: processes that make them; 0 makes them in this one.
        train: shuffled, cropped and flipped, whole batches only; else all in order.
        steps: batches in a pass; by default all pictures once.
    """
    augment = [
        transforms.RandomCrop((task.height, task.width), padding=data.CROP_PADDING),
        transforms.RandomHorizontalFlip(),
    ]
    normalise = [transforms.ToTensor(), transforms.Normalize(data.MEAN, data.STD)]
    dataset = Pictures(*pictures, transforms.Compose([*(augment if train else []), *normalise]))
    sampler = None
    if train:
        sampler = RandomSampler(dataset, num_samples=None if steps is None else steps * task.batch)
    return DataLoader(
        dataset,
        batch_size=task.batch,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        drop_last=train,
    )
