import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxnets import layers
from flaxnets.convolution import conv2d
from flaxnets.layers import BatchNorm, Conv, FeatureMaps, Layers, Sequential, standardize

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# Convolution


def convolve(
    images: np.ndarray, kernel: np.ndarray, stride: int, padding: int, groups: int = 1
) -> np.ndarray:
    """The definition: one product of a window and the kernel for every output pixel, in float64."""
    size = kernel.shape[0]
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images.astype(np.float64), pads)
    height, width = ((length - size) // stride + 1 for length in padded.shape[1:3])
    inputs = np.split(padded, groups, axis=-1)
    kernels = np.split(kernel.astype(np.float64), groups, axis=-1)
    out = np.empty((len(images), height, width, kernel.shape[-1]))
    for row, column in itertools.product(range(height), range(width)):
        top, left = row * stride, column * stride
        out[:, row, column] = np.concatenate(
            [
                np.einsum("nhwi,hwio->no", part[:, top : top + size, left : left + size], weights)
                for part, weights in zip(inputs, kernels, strict=True)
            ],
            axis=-1,
        )
    return out


@pytest.mark.parametrize(
    ("kernel_size", "stride", "height", "width"),
    [(1, 1, 4, 5), (1, 2, 5, 4), (3, 1, 5, 4), (3, 2, 6, 8), (3, 2, 7, 5), (7, 2, 8, 9)],
)
def test_convolution_is_its_definition(
    kernel_size: int, stride: int, height: int, width: int
) -> None:
    x = normal(2, height, width, 3)
    layer = Conv(3, 4, kernel_size, stride=stride, bias=True, key=jax.random.key(0))
    expected = convolve(x, np.asarray(layer.kernel), stride, kernel_size // 2)
    y = layer(x)
    assert y.shape == (2, -(-height // stride), -(-width // stride), 4)
    np.testing.assert_allclose(y, expected + np.asarray(layer.bias), rtol=1e-5, atol=1e-5)


def test_convolution_in_groups() -> None:
    x = normal(2, 5, 6, 4)
    layer = Conv(4, 6, 3, groups=2, key=jax.random.key(0))
    assert layer.kernel.shape == (3, 3, 2, 6)
    assert layer.bias is None
    expected = convolve(x, np.asarray(layer.kernel), 1, 1, groups=2)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_stride_2_pads_on_every_side() -> None:
    """The first pixel stands under the middle of the kernel; with "SAME" it would not."""
    x = jnp.ones((1, 4, 4, 1))
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    y = conv2d(x, kernel, stride=2, padding=1)
    bottom, right = 4 + 5 + 6 + 7 + 8 + 9, 2 + 3 + 5 + 6 + 8 + 9
    assert y[0, :, :, 0].tolist() == [[5 + 6 + 8 + 9, bottom], [right, 45]]


def test_convolution_computes_in_dtype() -> None:
    layer = Conv(3, 4, 3, bias=True, key=jax.random.key(0), dtype=jnp.bfloat16)
    assert layer.kernel.dtype == layer.bias.dtype == jnp.float32
    assert layer(normal(1, 4, 4, 3)).dtype == jnp.bfloat16


# Batch normalisation


def batch_norm(channels: int = 3, **options: object) -> BatchNorm:
    """One whose scale, bias and running statistics are all random."""
    layer = BatchNorm(channels, **options)
    layer.scale[...] = RNG.uniform(0.5, 1.5, channels)
    layer.bias[...] = RNG.normal(size=channels)
    layer.mean[...] = RNG.normal(size=channels)
    layer.var[...] = RNG.uniform(0.5, 1.5, channels)
    return layer


def numbers(layer: BatchNorm) -> dict[str, np.ndarray]:
    return {
        name: np.array(getattr(layer, name), np.float64)
        for name in ("scale", "bias", "mean", "var", "num_batches_tracked")
    }


def test_batch_norm_starts_as_the_identity() -> None:
    expected = {"scale": 1, "bias": 0, "mean": 0, "var": 1, "num_batches_tracked": 0}
    layer = BatchNorm(3)
    for name, value in expected.items():
        assert np.asarray(getattr(layer, name)).tolist() in (value, [value] * 3), name
    assert layer.num_batches_tracked.dtype == jnp.int32
    assert isinstance(layer.scale, nnx.Param)
    assert isinstance(layer.var, nnx.BatchStat)


def test_batch_norm_in_training_mode(form: None) -> None:
    layer = batch_norm()
    before = numbers(layer)
    x = 3 * normal(4, 5, 2, 3) + 1
    mean, biased = x.mean((0, 1, 2), np.float64), x.var((0, 1, 2), np.float64)
    unbiased = biased * 40 / 39
    expected = (x - mean) / np.sqrt(biased + 1e-5) * before["scale"] + before["bias"]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    after = numbers(layer)
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * unbiased, rtol=1e-5)
    assert after["num_batches_tracked"] == 1
    layer(x)
    assert layer.num_batches_tracked[...] == 2


def test_batch_norm_options() -> None:
    layer = batch_norm(momentum=0.25, epsilon=0.5)
    before = numbers(layer)
    x = normal(2, 3, 3, 3)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(var + 0.5) * before["scale"] + before["bias"]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.mean, 0.25 * before["mean"] + 0.75 * mean, rtol=1e-5)


def test_batch_norm_in_evaluation_mode() -> None:
    layer = batch_norm()
    before = numbers(layer)
    layer.eval()
    x = normal(1, 1, 1, 3)  # the batch's own statistics would make it the bias
    expected = (x - before["mean"]) / np.sqrt(before["var"] + 1e-5)
    expected = expected * before["scale"] + before["bias"]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    for name, value in numbers(layer).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_batch_norm_far_from_zero(form: None) -> None:
    """E[x^2] - E[x]^2 in float32 would lose the variance altogether: 1e8 has a spacing of 8."""
    x = (normal(64, 8, 8, 2) + np.float32([1e4, -1e4])).astype(np.float32)
    layer = BatchNorm(2, momentum=0.0)
    y = layer(jnp.asarray(x))
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(layer.mean, mean, rtol=3e-7)
    np.testing.assert_allclose(layer.var, var, rtol=1e-4)
    # Numbers near 1e4 have a spacing of 1e-3, and so has their mean.
    np.testing.assert_allclose(y, (wide - mean) / np.sqrt(var), atol=3e-3)


@pytest.mark.parametrize("channels", [5, 16])
def test_a_constant_channel_becomes_its_bias(form: None, channels: int) -> None:
    """Its mean must not be off by a rounding error, which would be divided by the deviation: 0."""
    constants = np.asarray(RNG.uniform(-1e3, 1e3, channels), np.float32)
    layer = BatchNorm(channels, momentum=0.0)
    y = layer(jnp.broadcast_to(constants, (24, 12, 9, channels)))
    np.testing.assert_allclose(y, 0, atol=1e-5)
    np.testing.assert_array_equal(layer.mean, constants)
    np.testing.assert_allclose(layer.var, 0, atol=1e-9)


@pytest.mark.parametrize("channels", [3, 16, 48])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (6, 5), (4, 4), (32, 32)])
def test_means_of_whatever_parts_and_blocks(size: tuple[int, int], channels: int) -> None:
    x = normal(6, *size, channels) + 2
    found = jax.jit(layers._mean_by_blocks)(jnp.asarray(x))
    np.testing.assert_allclose(found, x.mean((0, 1, 2), dtype=np.float64), rtol=5e-7)


def test_batch_norm_refuses_one_value_a_channel() -> None:
    layer = BatchNorm(3)
    with pytest.raises(ValueError, match=r"more than one value.*\(1, 1, 1, 3\).*model\.eval\(\)"):
        layer(normal(1, 1, 1, 3))
    assert layer(normal(1, 1, 2, 3)).shape == (1, 1, 2, 3)


def test_batch_norm_in_bfloat16_keeps_its_statistics_in_float32() -> None:
    layer = BatchNorm(2, momentum=0.0, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    x = jnp.asarray(normal(16, 8, 8, 2) + 5, jnp.bfloat16)
    y = layer(x)
    assert y.dtype == layer.scale.dtype == jnp.bfloat16
    assert layer.mean.dtype == layer.var.dtype == jnp.float32
    wide = np.asarray(x, np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-5)  # bfloat16 alone is good to 4e-3
    np.testing.assert_allclose(layer.var, var, rtol=1e-5)
    expected = (wide - mean) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    # One rounding to bfloat16, at the end.
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2.0**-8, atol=1e-5)


def test_batch_norm_in_float64(form: None) -> None:
    with jax.enable_x64(True):
        layer = BatchNorm(2, momentum=0.0, dtype=jnp.float64, param_dtype=jnp.float64)
        x = RNG.normal(size=(3, 4, 4, 2))
        expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(layer.var, x.var((0, 1, 2), ddof=1), rtol=1e-13)


def test_gradient_of_the_normalised_maps_and_of_their_statistics(form: None) -> None:
    """Against the derivatives of the definition, in float64, for all three results at once."""

    def definition(x: jax.Array) -> tuple[jax.Array, ...]:
        mean = x.mean((0, 1, 2))
        var = ((x - mean) ** 2).mean((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 0.1), mean, var

    def layer(x: jax.Array) -> tuple[jax.Array, ...]:
        maps = standardize(x, 0.1)
        return maps.normalized, maps.mean, maps.var

    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(3, 2, 4, 2)))
        weights = [jnp.asarray(RNG.normal(size=size)) for size in (x.shape, 2, 2)]

        def gradient(function: Callable) -> jax.Array:
            def total(x: jax.Array) -> jax.Array:
                return sum((w * r).sum() for w, r in zip(weights, function(x), strict=True))

            return jax.jit(jax.grad(total))(x)

        ours, expected = gradient(layer), gradient(definition)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_feature_maps_change_nothing(form: None, training: bool, gradients: Callable) -> None:
    """A norm that reads maps normalised beforehand gives what it gives for the maps themselves."""
    maps = jnp.asarray(normal(4, 3, 3, 2)), jnp.asarray(normal(4, 3, 3, 1))
    weights = normal(4, 3, 3, 3)
    layer = batch_norm()
    layer.train() if training else layer.eval()

    def separately(layer: BatchNorm, maps: tuple[jax.Array, ...]) -> tuple:
        observe = standardize if training else FeatureMaps
        joined = observe(maps[0]) + observe(maps[1])
        y = layer(joined)
        return (y * weights).sum(), (y, joined.values)

    def together(layer: BatchNorm, maps: tuple[jax.Array, ...]) -> tuple:
        x = jnp.concatenate(maps, axis=-1)
        y = layer(x)
        return (y * weights).sum(), (y, x)

    ours, expected = (gradients(function, layer, maps) for function in (separately, together))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, expected
    )
    assert int(ours[-1]["num_batches_tracked"][...]) == training


# Initialisation

CHANNELS, FEATURES, SIZE = 40, 60, 3
FAN_IN, FAN_OUT = CHANNELS * SIZE**2, FEATURES * SIZE**2


def made(init: str, **options: object) -> dict[str, np.ndarray]:
    """The initial values of a convolution and a linear layer."""
    maker = Layers(init, nnx.Rngs(0), **options)
    conv, linear = maker.conv(CHANNELS, FEATURES, SIZE, bias=True), maker.linear(300, 100)
    return {
        "conv": np.asarray(conv.kernel),
        "conv bias": np.asarray(conv.bias),
        "linear": np.asarray(linear.kernel),
        "linear bias": np.asarray(linear.bias),
    }


def assert_normal(values: np.ndarray, std: float) -> None:
    count = values.size
    assert abs(values.mean()) < 4 * std / np.sqrt(count)
    assert values.std() == pytest.approx(std, rel=4 / np.sqrt(2 * count))
    assert np.mean(values**4) / std**4 == pytest.approx(3, abs=4 * np.sqrt(96 / count))


def assert_uniform(values: np.ndarray, bound: float) -> None:
    count = values.size
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > bound * (1 - 10 / count)
    assert abs(values.mean()) < 4 * bound / np.sqrt(3 * count)
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=4 / np.sqrt(5 * count))


@pytest.mark.parametrize("init", layers.INITS)
def test_initial_values(init: str) -> None:
    values = made(init)
    assert values["conv"].shape == (SIZE, SIZE, CHANNELS, FEATURES)
    assert values["linear"].shape == (300, 100)
    if init == "torch":
        assert_uniform(values["conv"], 1 / np.sqrt(FAN_IN))
    elif init == "xavier":
        assert_uniform(values["conv"], np.sqrt(12 / (FAN_IN + FAN_OUT)))
    else:
        assert_normal(values["conv"], np.sqrt(2 / (FAN_IN if "fan_in" in init else FAN_OUT)))
    if init == "xavier":
        assert not values["conv bias"].any()
    else:
        assert_uniform(values["conv bias"], 1 / np.sqrt(FAN_IN))
    if init == "fan_in":
        assert_normal(values["linear"], np.sqrt(2 / 300))
    else:
        assert_uniform(values["linear"], 1 / np.sqrt(300))
    if init in ("fan_out_zero_bias", "fan_in_zero_bias"):
        assert not values["linear bias"].any()
    else:
        assert_uniform(values["linear bias"], 1 / np.sqrt(300))


def test_initial_values_have_the_parameters_dtype() -> None:
    values, rounded = made("fan_in"), made("fan_in", param_dtype=jnp.bfloat16)
    for name, value in rounded.items():
        assert value.dtype == jnp.bfloat16, name
        np.testing.assert_array_equal(value, values[name].astype(jnp.bfloat16), err_msg=name)


def test_no_two_layers_are_drawn_alike() -> None:
    """Layers of one shape differ, as do seeds, and the blocks that a large kernel is cut from."""
    maker, other = (Layers("fan_in", nnx.Rngs(seed)) for seed in (0, 1))
    shape = (128, 96, 3)  # more than three blocks of numbers
    kernels = [np.asarray(made.conv(*shape).kernel) for made in (maker, maker, other)]
    assert kernels[0].size > 3 * layers.BLOCK
    values = np.concatenate([kernel.ravel() for kernel in kernels])
    # Of 331,776 float32 normals some hundreds coincide by chance; a repeated block is 32,768.
    assert len(np.unique(values)) > values.size - layers.BLOCK / 4


@pytest.mark.parametrize("init", ["fan_in", "fan_out_zero_bias", "xavier"])
def test_initial_values_are_the_same_in_a_trace(init: str) -> None:
    def make() -> Sequential:
        maker = Layers(init, nnx.Rngs(3))
        return Sequential([maker.conv(64, 64, 3, bias=True), maker.norm(64), maker.linear(64, 10)])

    eager, compiled, shapes = make(), nnx.jit(make)(), nnx.eval_shape(make)
    assert eager[0].kernel.size > layers.BLOCK  # drawn in several pieces
    states = [nnx.to_flat_state(nnx.state(module)) for module in (eager, compiled, shapes)]
    assert states[0].paths == states[1].paths == states[2].paths
    assert len(states[0].paths) == 9
    for path, one, two, shape in zip(
        states[0].paths, *(state.leaves for state in states), strict=True
    ):
        np.testing.assert_array_equal(one, two, err_msg=str(path))
        assert (one.shape, one.dtype) == (shape.shape, shape.dtype), path


# Sequential, and the maker of layers


def test_sequential_names_its_children_by_number() -> None:
    maker = Layers("torch", nnx.Rngs(0))
    stack = Sequential([maker.conv(3, 3, 1), maker.norm(3), maker.conv(3, 2, 1, bias=True)])
    assert sorted(nnx.to_flat_state(nnx.state(stack, nnx.Param)).paths) == [
        ("0", "kernel"),
        ("1", "bias"),
        ("1", "scale"),
        ("2", "bias"),
        ("2", "kernel"),
    ]
    assert len(stack) == 3
    assert list(stack) == [stack[0], stack[1], stack[2]]
    assert stack[-1] is stack[2]
    with pytest.raises(IndexError):
        stack[3]


def test_sequential_applies_its_layers_in_turn() -> None:
    maker = Layers("torch", nnx.Rngs(0))
    channels = [3, *range(4, 16)]  # twelve layers: "10" must not come before "2"
    stack = Sequential([maker.conv(a, b, 1) for a, b in itertools.pairwise(channels)])
    x = expected = normal(1, 2, 2, 3)
    for layer in stack:
        expected = convolve(expected, np.asarray(layer.kernel), 1, 0)
    np.testing.assert_allclose(stack(x), expected, rtol=1e-4, atol=1e-6)


def test_dropout_layer_only_above_rate_0() -> None:
    class Block(nnx.Module):
        def __init__(self, rate: float) -> None:
            self.dropout = Layers("torch", nnx.Rngs(0)).dropout(rate)

    assert Block(0.0).dropout is None
    assert isinstance(Block(0.25).dropout, nnx.Dropout)
    assert Block(0.25).dropout.rate == 0.25


def test_linear_layer_is_a_product() -> None:
    layer = Layers("torch", nnx.Rngs(0)).linear(5, 4)
    x = normal(3, 5)
    expected = x @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


# Pictures


def test_check_images() -> None:
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        layers.check_images(jnp.zeros((2, 5, 7, 3), dtype))
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 8, 8\).*transpose\(0, 2, 3, 1\)"):
        layers.check_images(jnp.zeros((2, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\), got shape \(8, 8, 3\)\.$"):
        layers.check_images(jnp.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"got uint8; scale to 0\.\.1"):
        layers.check_images(jnp.zeros((2, 8, 8, 3), jnp.uint8))
