"""The layers against PyTorch's: equal to rounding in float64, as exact as they in float32."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxnets import layers, pooling

torch = pytest.importorskip("torch")
functional = torch.nn.functional
RNG = np.random.default_rng(0)
DTYPES = {"dtype": jnp.float64, "param_dtype": jnp.float64}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def nchw(x: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2).copy())


def assert_close(ours: jax.Array, theirs: "torch.Tensor") -> None:
    theirs = theirs.detach().numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "groups", "size"),
    [(3, 2, 1, (6, 7)), (7, 2, 1, (9, 8)), (1, 2, 1, (5, 4)), (3, 1, 2, (4, 3))],
)
def test_convolution(kernel_size: int, stride: int, groups: int, size: tuple[int, int]) -> None:
    options = {"stride": stride, "groups": groups}
    layer = layers.Conv(4, 6, kernel_size, bias=True, key=jax.random.key(0), **options, **DTYPES)
    x = RNG.normal(size=(2, *size, 4))
    weight = torch.from_numpy(np.array(layer.kernel).transpose(3, 2, 0, 1).copy())
    bias = torch.from_numpy(np.array(layer.bias))
    expected = functional.conv2d(nchw(x), weight, bias, padding=kernel_size // 2, **options)
    assert_close(layer(jnp.asarray(x)), expected)


def test_batch_norm_over_three_batches() -> None:
    """Outputs, gradients and running statistics in training mode, then evaluation."""
    ours, theirs = layers.BatchNorm(3, **DTYPES), torch.nn.BatchNorm2d(3).double()
    scale, bias = RNG.normal(size=(2, 3))
    ours.scale[...], ours.bias[...] = scale, bias
    theirs.load_state_dict(
        {**theirs.state_dict(), "weight": torch.tensor(scale), "bias": torch.tensor(bias)}
    )
    weights = RNG.normal(size=(4, 5, 2, 3))

    @nnx.jit
    def step(model: layers.BatchNorm, x: jax.Array) -> tuple:
        def loss(model: layers.BatchNorm, x: jax.Array) -> tuple:
            y = model(x)
            return (y * weights).sum(), y

        arguments = nnx.DiffState(0, nnx.Param), 1
        return nnx.grad(loss, argnums=arguments, has_aux=True)(model, x)

    for offset in (0, 10, 1000):
        x = offset + 3 * RNG.normal(size=weights.shape)
        (gradients, input_gradient), y = step(ours, jnp.asarray(x))
        theirs.zero_grad()
        inputs = nchw(x).requires_grad_()
        outputs = theirs(inputs)
        (outputs * nchw(weights)).sum().backward()
        assert_close(y, outputs)
        assert_close(gradients["scale"][...], theirs.weight.grad)
        assert_close(gradients["bias"][...], theirs.bias.grad)
        np.testing.assert_allclose(
            input_gradient, inputs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-8, atol=1e-10
        )
    assert_close(ours.mean[...], theirs.running_mean)
    assert_close(ours.var[...], theirs.running_var)
    assert int(ours.num_batches_tracked[...]) == int(theirs.num_batches_tracked) == 3
    ours.eval()
    assert_close(ours(jnp.asarray(x)), theirs.eval()(nchw(x)))


@pytest.mark.parametrize("offset", [10, 100, 10_000])
def test_batch_norm_in_float32_is_as_exact_as_torchs(offset: float) -> None:
    """Errors against float64 when the mean is large beside the deviation."""
    x = (np.random.default_rng(0).normal(size=(64, 8, 8, 2)) + offset).astype(np.float32)
    wide = x.astype(np.float64)
    exact = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    theirs = torch.nn.BatchNorm2d(2)(nchw(x)).detach().numpy().transpose(0, 2, 3, 1)
    ours = layers.BatchNorm(2)(jnp.asarray(x))
    assert np.abs(ours - exact).max() <= 10 * np.abs(theirs - exact).max()


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 2)])
def test_pooling(size: tuple[int, int]) -> None:
    x = RNG.normal(size=(2, *size, 3)) - 10
    assert_close(
        pooling.max_pool_3x3_stride_2(jnp.asarray(x)), functional.max_pool2d(nchw(x), 3, 2, 1)
    )
    if min(size) > 1:
        assert_close(pooling.avg_pool(jnp.asarray(x), 2), functional.avg_pool2d(nchw(x), 2))
    assert_close(
        pooling.global_avg_pool(jnp.asarray(x)),
        functional.adaptive_avg_pool2d(nchw(x), 1).flatten(1),
    )


def test_max_pool_shares_out_the_gradient_of_ties_as_torch_does() -> None:
    """A ReLU before the pooling makes ties of zeros; the first of them gets the gradient."""
    x = np.maximum(RNG.normal(size=(2, 7, 6, 2)) - 1, 0)
    weights = RNG.normal(size=(2, 4, 3, 2))
    ours = jax.grad(lambda x: (pooling.max_pool_3x3_stride_2(x) * weights).sum())(jnp.asarray(x))
    inputs = nchw(x).requires_grad_()
    (functional.max_pool2d(inputs, 3, 2, 1) * nchw(weights)).sum().backward()
    assert_close(ours, inputs.grad)


def test_default_initialisation_has_torchs_bounds() -> None:
    maker = layers.Layers("torch", nnx.Rngs(0))
    conv, linear = maker.conv(8, 16, 3, bias=True), maker.linear(50, 40)
    theirs = torch.nn.Conv2d(8, 16, 3), torch.nn.Linear(50, 40)
    for ours, module in zip((conv, linear), theirs, strict=True):
        for a, b in ((ours.kernel, module.weight), (ours.bias, module.bias)):
            # Both draw uniformly: the largest of n values is within a few 1/n of the bound.
            bound, count = float(jnp.abs(a[...]).max()), b.numel()
            assert bound == pytest.approx(float(b.detach().abs().max()), rel=10 / count)
