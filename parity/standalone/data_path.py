"""The pictures that a training step is given, from the files on, against torchvision's transforms.

Which pictures, where they are cropped and whether they are flipped is drawn by ``train``;
torchvision is told, and so has to come out at the same pixels.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchvision.transforms import functional

from parity.comparison import Comparison
from parity.standalone.findings import Recorder
from train import augment, datasets
from train.step import Batches, Preprocessing, TrainState, make_train_chunk

CHECK = "data path"
# The files of a data set's training pictures, how many bytes before a picture tell its class (the
# last one does), and how many classes there are.
FILES = {
    "cifar10": ([f"data_batch_{number}.bin" for number in range(1, 6)], 1, 10),
    "cifar100": (["train.bin"], 2, 100),
}
TEST_FILES = {"cifar10": "test_batch.bin", "cifar100": "test.bin"}
# Mean and standard deviation of each set's training pixels, not taken from ``train``.
CONSTANTS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
PICTURES, BATCH = 40, 8
STEPS_PER_EPOCH = PICTURES // BATCH
EPOCHS = 2
PADDING = 4
SEEDS, QUICK_SEEDS = 5, 2
# So many that one of the 81 places times 2 directions is left out once in a hundred million runs.
DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What ``train`` drew for one batch.

    Attributes:
        indices: (N,), which pictures.
        offsets: (N, 2), top and left edge of each crop.
        flips: (N,).
    """

    indices: np.ndarray
    offsets: np.ndarray
    flips: np.ndarray


def check_data_path(seed: int, quick: bool) -> Iterator[Comparison]:
    """Compare the batches of both CIFAR sets, for several keys.

    Args:
        seed: of the pictures, and the first of the keys.
        quick: fewer keys.
    """
    generator = np.random.default_rng(seed)
    # From 1: no pixel of a picture looks like the black border.
    images = generator.integers(1, 256, (PICTURES, 32, 32, 3), np.uint8)
    for name, (_, _, classes) in FILES.items():
        labels = generator.integers(0, classes, PICTURES, np.uint8)
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            write_files(name, Path(folder), images, labels)
            dataset = datasets.load(name, folder)
        yield from compare_dataset(dataset, images, labels)
        batches = Batches(Preprocessing.of(dataset), BATCH, STEPS_PER_EPOCH)
        chunk = make_chunk(batches)
        for key_seed in range(seed, seed + (QUICK_SEEDS if quick else SEEDS)):
            yield from compare_epochs(dataset, batches, chunk, images, labels, key_seed)
    yield every_place(images)
    yield all_are_drawn(seed)


def write_files(name: str, folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write pictures as a data set's training files, planes of red, green and blue."""
    files, label_bytes, _ = FILES[name]
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.zeros((len(images), label_bytes - 1), np.uint8), labels[:, None], planes]
    records = np.concatenate(columns, axis=1)
    for file, part in zip(files, np.split(records, len(files)), strict=True):
        (folder / file).write_bytes(part.tobytes())
    (folder / TEST_FILES[name]).write_bytes(records[:1].tobytes())


def compare_dataset(
    dataset: datasets.Dataset, images: np.ndarray, labels: np.ndarray
) -> Iterator[Comparison]:
    """What ``train`` read of the files, and what it normalises by."""
    recorder = Recorder(CHECK, dataset.name, mode="train")
    read = dataset.train_images, dataset.train_labels
    for layer, found, written in zip(("pictures", "labels"), read, (images, labels), strict=True):
        same = found.shape == written.shape and np.array_equal(found, written)
        yield recorder.fact(f"files, {layer}", same, f"{len(found)} of {PICTURES} read")
    constants = dataset.mean, dataset.std
    yield recorder.fact(
        "constants", constants == CONSTANTS[dataset.name], f"mean and deviation {constants}"
    )


def compare_epochs(
    dataset: datasets.Dataset,
    batches: Batches,
    chunk: Any,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
) -> Iterator[Comparison]:
    """Compare all batches of the first epochs of one run.

    Args:
        dataset: as ``train`` read it.
        batches: of the data set.
        chunk: of ``make_chunk``.
        images: (PICTURES, H, W, 3), uint8, that were written.
        labels: (PICTURES,), that were written.
        seed: of the run's key.
    """
    recorder = Recorder(CHECK, dataset.name, "float32", "train")
    mean, std = CONSTANTS[dataset.name]
    key = jax.random.key(seed)
    found_images, found_labels = given_batches(
        chunk, key, dataset.train_images, dataset.train_labels
    )
    drawn = [draw(batches, key, step) for step in range(EPOCHS * STEPS_PER_EPOCH)]

    different, off = 0, 0.0
    for number, one in enumerate(drawn):
        cropped = cropped_by_train(images[one.indices], one.offsets, one.flips)
        expected = torchvision_crops(images[one.indices], one.offsets, one.flips)
        different += int((cropped != expected).sum())
        normalised = torchvision_normalised(expected, mean, std)
        distance = np.abs(found_images[number] - normalised) / np.spacing(np.abs(normalised))
        off = float(np.maximum(off, distance.max()))  # nan stays
    indices = np.stack([one.indices for one in drawn])
    layer = f"key {seed}"
    yield recorder.fact(
        f"{layer}, crops and flips", different == 0, f"{different} bytes differ from torchvision's"
    )
    yield recorder.number(f"{layer}, normalised", off, 0.0, "the largest difference, in ulp")
    yield recorder.fact(
        f"{layer}, labels",
        np.array_equal(found_labels, labels[indices]),
        f"{int((found_labels != labels[indices]).sum())} labels are another picture's",
    )
    epochs = np.sort(indices.reshape(EPOCHS, PICTURES))
    yield recorder.fact(
        f"{layer}, epochs",
        bool((epochs == np.arange(PICTURES)).all())
        and not np.array_equal(*indices.reshape(EPOCHS, PICTURES)),
        "every epoch has each picture once, in an order of its own",
    )


def make_chunk(batches: Batches) -> Any:
    """``train``'s own dispatch of an epoch; each of its steps gives back what it is given."""

    def keep(state: TrainState, images: jax.Array, labels: jax.Array) -> Any:
        return dataclasses.replace(state, step=state.step + 1), {"images": images, "labels": labels}

    return jax.jit(make_train_chunk(keep, batches, length=STEPS_PER_EPOCH))


def given_batches(
    chunk: Any, key: jax.Array, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the steps of the first epochs of ``make_chunk``'s dispatch are given.

    Returns:
        Normalised pictures (steps, N, H, W, 3) and labels (steps, N).
    """
    nothing: Any = {"weight": jnp.zeros(())}
    state = TrainState(jnp.zeros((), jnp.int32), nothing, nothing, ())
    epochs = []
    for _ in range(EPOCHS):
        state, given = chunk(state, key, jnp.asarray(images), jnp.asarray(labels))
        epochs.append(given)
    together = (np.concatenate([epoch[name] for epoch in epochs]) for name in ("images", "labels"))
    return next(together), next(together)


def draw(batches: Batches, key: jax.Array, step: int) -> Drawn:
    """What ``train`` draws for a step, from the keys that its documentation names."""
    position = jnp.asarray(step, jnp.int32)
    order = batches.order(key, position, PICTURES)
    step_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    offsets, flips = augment.random_offsets_and_flips(step_key, BATCH, PADDING)
    arrays = batches.indices(order, position), offsets, flips
    return Drawn(*map(np.asarray, arrays))


def cropped_by_train(images: np.ndarray, offsets: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Padded, cropped and flipped pictures, uint8 (N, H, W, 3)."""
    drawn = jnp.asarray(offsets), jnp.asarray(flips)
    return np.asarray(augment.crop_and_flip(jnp.asarray(images), *drawn, PADDING))


def torchvision_crops(images: np.ndarray, offsets: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """The same of torchvision."""
    height, width = images.shape[1:3]
    crops = []
    for image, (top, left), flipped in zip(images, offsets, flips, strict=True):
        planes = functional.pad(torch.from_numpy(image).permute(2, 0, 1), [PADDING])
        planes = functional.crop(planes, int(top), int(left), height, width)
        crops.append(functional.hflip(planes) if flipped else planes)
    return torch.stack(crops).permute(0, 2, 3, 1).numpy()


def torchvision_normalised(
    images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Uint8 pictures (N, H, W, 3) to normalised ones, float32."""
    planes = torch.stack([functional.to_tensor(image) for image in images])
    return functional.normalize(planes, list(mean), list(std)).permute(0, 2, 3, 1).numpy()


def every_place(images: np.ndarray) -> Comparison:
    """Every offset, the corners among them, with and without a flip."""
    places = np.arange(2 * PADDING + 1)
    rows, columns, flips = (axis.ravel() for axis in np.meshgrid(places, places, [False, True]))
    offsets = np.stack([rows, columns], axis=1)
    batch = images[np.arange(len(flips)) % len(images)]
    cropped = cropped_by_train(batch, offsets, flips)
    different = (cropped != torchvision_crops(batch, offsets, flips)).any((1, 2, 3))
    return Recorder(CHECK, "every offset and flip", mode="train").fact(
        "crops and flips",
        not different.any(),
        f"{int(different.sum())} of {len(flips)} differ from torchvision's",
    )


def all_are_drawn(seed: int) -> Comparison:
    """That the draws reach every offset in both directions."""
    offsets, flips = augment.random_offsets_and_flips(jax.random.key(seed), DRAWS, PADDING)
    drawn = {(*map(int, offset), bool(flip)) for offset, flip in zip(offsets, flips, strict=True)}
    possible = 2 * (2 * PADDING + 1) ** 2
    return Recorder(CHECK, "every offset and flip", mode="train").fact(
        "draws", len(drawn) == possible, f"{len(drawn)} of {possible} in {DRAWS} draws"
    )
