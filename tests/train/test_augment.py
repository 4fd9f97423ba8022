import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import augment

draw = jax.jit(augment.random_offsets_and_flips, static_argnames=("n", "padding", "flip"))
crop_and_flip = jax.jit(augment.crop_and_flip, static_argnames="padding")

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def random_images(n: int, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    # From 1, so that no pixel of a picture looks like the black border.
    return np.random.default_rng(0).integers(1, 256, (n, height, width, channels), np.uint8)


def test_offsets_and_flips_cover_their_range_evenly() -> None:
    offsets, flips = map(np.asarray, draw(jax.random.key(0), n=9000, padding=4))
    assert offsets.shape == (9000, 2)
    assert offsets.dtype == jnp.int32
    assert flips.shape == (9000,)
    assert flips.dtype == jnp.bool_
    for axis in range(2):
        counts = np.bincount(offsets[:, axis], minlength=9)
        assert counts.shape == (9,)
        assert np.abs(counts - 1000).max() < 150  # 5 standard deviations
    assert abs(int(flips.sum()) - 4500) < 240
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 0.05
    assert abs(np.corrcoef(offsets[:, 0], flips)[0, 1]) < 0.05


def test_offsets_and_flips_depend_on_the_key_alone() -> None:
    first = draw(jax.random.key(1), n=64, padding=4)
    again = augment.random_offsets_and_flips(jax.random.key(1), n=64, padding=4)
    other = draw(jax.random.key(2), n=64, padding=4)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (np.asarray(a) != np.asarray(c)).any()


def test_flip_false_draws_the_same_offsets_and_no_flips() -> None:
    offsets, _ = draw(jax.random.key(1), n=64, padding=4)
    same, flips = draw(jax.random.key(1), n=64, padding=4, flip=False)
    np.testing.assert_array_equal(same, offsets)
    assert not flips.any()


@pytest.mark.parametrize("shape", [(32, 32, 3), (6, 9, 1)])
def test_crop_and_flip_equals_slicing_a_padded_array(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    padding = 3
    offsets = np.stack(np.meshgrid(range(7), range(7)), -1).reshape(-1, 2).repeat(2, axis=0)
    flips = np.arange(len(offsets)) % 2 == 1
    images = random_images(len(offsets), height, width, channels)
    result = np.asarray(crop_and_flip(images, offsets, flips, padding=padding))
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    assert result.dtype == np.uint8
    assert result.shape == images.shape
    for i, (top, left) in enumerate(offsets):
        expected = padded[i, top : top + height, left : left + width]
        np.testing.assert_array_equal(result[i], expected[:, ::-1] if flips[i] else expected)


def test_crop_and_flip_equals_torchvision() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    images = random_images(64)
    offsets, flips = map(np.asarray, draw(jax.random.key(1), n=64, padding=4))
    result = np.asarray(crop_and_flip(images, offsets, flips, padding=4))
    assert flips.any()
    assert not flips.all()
    for image, (top, left), flipped, ours in zip(images, offsets, flips, result, strict=True):
        theirs = functional.pad(torch.from_numpy(image.transpose(2, 0, 1).copy()), 4)
        theirs = functional.crop(theirs, int(top), int(left), 32, 32)
        theirs = functional.hflip(theirs) if flipped else theirs
        np.testing.assert_array_equal(ours, theirs.numpy().transpose(1, 2, 0))


def test_augmentation_inside_scan_equals_outside() -> None:
    images = random_images(12).reshape(3, 4, 32, 32, 3)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])

    @jax.jit
    def augmented(key: jax.Array, batch: jax.Array) -> jax.Array:
        offsets, flips = augment.random_offsets_and_flips(key, 4, 4)
        return augment.normalize(augment.crop_and_flip(batch, offsets, flips, 4), MEAN, STD)

    _, scanned = jax.jit(
        lambda: jax.lax.scan(lambda carry, xs: (carry, augmented(*xs)), None, (keys, images))
    )()
    for seed, (batch, result) in enumerate(zip(images, np.asarray(scanned), strict=True)):
        np.testing.assert_array_equal(result, augmented(jax.random.key(seed), batch))


def every_byte() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)


@pytest.mark.parametrize("compiled", [False, True])
def test_normalize_equals_torchvision(compiled: bool) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    planes = torch.from_numpy(every_byte()[0].transpose(2, 0, 1).copy())
    theirs = functional.normalize(planes.float().div(255), MEAN, STD)

    def normalize(images: jax.Array) -> jax.Array:
        return augment.normalize(images, MEAN, STD)

    ours = (jax.jit(normalize) if compiled else normalize)(jnp.asarray(every_byte()))
    assert ours.dtype == jnp.float32
    np.testing.assert_array_equal(ours[0], theirs.numpy().transpose(1, 2, 0))


def test_normalize_values() -> None:
    images = jnp.asarray([[[0, 51, 255]]], jnp.uint8)
    result = augment.normalize(images, (0.5, 0.1, 0.25), (0.25, 0.5, 0.125))
    np.testing.assert_allclose(result, [[[-2.0, 0.2, 6.0]]], rtol=1e-6)


def test_normalize_to_bfloat16_is_the_rounded_float32_result() -> None:
    images = jnp.asarray(every_byte())
    result = augment.normalize(images, MEAN, STD, jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    expected = augment.normalize(images, MEAN, STD).astype(jnp.bfloat16)
    np.testing.assert_array_equal(result.astype(jnp.float32), expected.astype(jnp.float32))


def test_normalize_in_float64_is_exact_to_float64() -> None:
    with jax.enable_x64(True):
        result = augment.normalize(jnp.asarray(every_byte()), MEAN, STD, jnp.float64)
        assert result.dtype == jnp.float64
        expected = (every_byte() / 255 - np.array(MEAN)) / np.array(STD)
        np.testing.assert_array_equal(result, expected)


def test_normalize_refuses_images_that_are_not_bytes() -> None:
    with pytest.raises(TypeError, match="uint8 images, got float32"):
        augment.normalize(jnp.zeros((1, 2, 2, 3)), MEAN, STD)
