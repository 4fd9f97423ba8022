"""The data path: mistakes in ``train``'s reading, shuffling, cropping and normalising are told."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity.comparison import Comparison
from parity.standalone import data_path
from train import augment, datasets
from train.step import Batches


def out(found: list[Comparison]) -> list[str]:
    return [c.layer for c in found if not c.ok]


def check() -> list[str]:
    """What is out, of one key of each data set."""
    return out(list(data_path.check_data_path(0, quick=True)))


@pytest.fixture(autouse=True)
def one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_path, "QUICK_SEEDS", 1)
    monkeypatch.setattr(data_path, "FILES", {"cifar100": data_path.FILES["cifar100"]})


def test_all_is_well() -> None:
    found = list(data_path.check_data_path(0, quick=True))
    assert out(found) == []
    assert [c.layer for c in found] == [
        *("files, pictures", "files, labels", "constants"),
        *("key 0, crops and flips", "key 0, normalised", "key 0, labels", "key 0, epochs"),
        *("crops and flips", "draws"),
    ]


def test_flipping_before_cropping_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    crop = augment.crop_and_flip

    def flipped_first(images: jax.Array, offsets: jax.Array, flips: jax.Array, padding: int) -> Any:
        images = jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)
        return crop(images, offsets, jnp.zeros_like(flips), padding)

    monkeypatch.setattr(augment, "crop_and_flip", flipped_first)
    assert check() == ["key 0, crops and flips", "key 0, normalised", "crops and flips"]


def test_a_reciprocal_in_the_normalisation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def normalize(images: jax.Array, mean: Any, std: Any, dtype: Any = jnp.float32) -> jax.Array:
        scaled = images.astype(dtype) * np.float32(1 / 255)
        return (scaled - np.asarray(mean, dtype)) / np.asarray(std, dtype)

    monkeypatch.setattr(augment, "normalize", normalize)
    assert check() == ["key 0, normalised"]


def test_an_epoch_that_is_not_shuffled_anew_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Batches.order
    monkeypatch.setattr(
        Batches, "order", lambda self, key, step, pictures: order(self, key, step * 0, pictures)
    )
    assert check() == ["key 0, epochs"]


def test_a_constant_of_the_other_set_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        data_path.CONSTANTS, "cifar100", (data_path.CONSTANTS["cifar10"][0], (0.3, 0.3, 0.3))
    )
    assert check() == ["constants", "key 0, normalised"]


def test_the_coarse_class_in_place_of_the_fine_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = datasets.load

    def coarse(*args: Any) -> Any:
        dataset = load(*args)
        dataset.train_labels[:] = 0
        return dataset

    monkeypatch.setattr(datasets, "load", coarse)
    assert check() == ["files, labels", "key 0, labels"]


def test_an_offset_that_is_never_drawn_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = augment.random_offsets_and_flips

    def short(key: jax.Array, n: int, padding: int, **options: Any) -> Any:
        offsets, flips = draw(key, n, padding, **options)
        return jnp.minimum(offsets, 2 * padding - 1), flips

    monkeypatch.setattr(augment, "random_offsets_and_flips", short)
    found = data_path.all_are_drawn(0)
    assert not found.ok
    assert found.note == "128 of 162 in 4000 draws"
