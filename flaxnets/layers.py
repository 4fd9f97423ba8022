"""Layers with PyTorch's semantics, in NHWC.

They differ from ``flax.nnx``'s own where PyTorch does: symmetric explicit padding, a running
variance that is unbiased, PyTorch's default initialisation, and children of a ``Sequential`` named
"0", "1", ... so that the path of a variable is PyTorch's key with another leaf.
"""

import contextlib
import contextvars
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jax import export, lax

from flaxnets import native
from flaxnets.convolution import conv2d
from flaxnets.repetition import run_in_turn

Init = Literal["fan_out", "fan_out_zero_bias", "fan_in", "fan_in_zero_bias", "xavier", "torch"]
INITS: tuple[str, ...] = get_args(Init)
ZERO_BIAS = ("fan_out_zero_bias", "fan_in_zero_bias")


class Sequential(nnx.Module):
    """Layers applied in turn, under the names "0", "1", ... like ``torch.nn.Sequential``'s."""

    def __init__(self, layers: Iterable[nnx.Module]) -> None:
        self.length = 0
        for layer in layers:
            setattr(self, str(self.length), layer)
            self.length += 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return getattr(self, str(range(self.length)[index]))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self.length))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply every layer in turn."""
        return run_in_turn(self, x)


class Conv(nnx.Module):
    """2-D convolution over NHWC images, padded by half the kernel on every side.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: k, odd; the padding is k // 2, so stride 1 keeps the size.
        stride: step in both directions.
        groups: C_in and C_out are split into this many independent groups.
        bias: whether a bias is added.
        init: one of ``INITS``, explained at ``Layers``.
        key: what the parameters are drawn from; None in ``shapes_only``.
        dtype: compute dtype.
        param_dtype: dtype of ``kernel`` (k, k, C_in / groups, C_out) and ``bias`` (C_out,).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        init: Init = "fan_out",
        key: jax.Array | None,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.stride, self.padding, self.groups = stride, kernel_size // 2, groups
        self.dtype = dtype
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        fan_in, fan_out = math.prod(shape[:3]), kernel_size**2 * out_channels
        match init:
            case "torch":
                kernel = _torch_uniform(key, shape, fan_in, param_dtype)
            case "xavier":
                kernel = _xavier_uniform(key, shape, fan_in + fan_out, param_dtype)
            case "fan_in" | "fan_in_zero_bias":
                kernel = _he_normal(key, shape, fan_in, param_dtype)
            case _:
                kernel = _he_normal(key, shape, fan_out, param_dtype)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.data(None)
        if bias:
            draw = _zeros if init == "xavier" else _torch_uniform
            bias_key = None if key is None else jax.random.fold_in(key, 1)
            self.bias = nnx.data(nnx.Param(draw(bias_key, shape[3:], fan_in, param_dtype)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, ceil(H / stride), ceil(W / stride), C_out), in ``dtype``."""
        y = conv2d(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            self.stride,
            self.padding,
            self.groups,
        )
        return y if self.bias is None else _add_bias(y, self.bias[...].astype(self.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureMaps:
    """Feature maps whose batch statistics were computed once, for every batch norm that reads them.

    Attributes:
        values: (N, H, W, C), as computed by the network.
        normalized: (N, H, W, C), (values - mean) / sqrt(var + epsilon) in float32 or wider; None in
            evaluation mode, where every batch norm uses running statistics of its own.
        mean: (C,), over N, H and W; None in evaluation mode.
        var: (C,), biased; None in evaluation mode.
    """

    values: jax.Array
    normalized: jax.Array | None = None
    mean: jax.Array | None = None
    var: jax.Array | None = None

    def __add__(self, other: "FeatureMaps") -> "FeatureMaps":
        """Concatenate along the channels."""
        return _concatenate(self, other)


@jax.jit
def _concatenate(first: FeatureMaps, second: FeatureMaps) -> FeatureMaps:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), first, second)


def standardize(x: jax.Array, epsilon: float = 1e-5) -> FeatureMaps:
    """Normalise each channel of ``x`` (..., C) to mean 0 and variance 1 over the batch.

    The variance is E[(x - mean)^2]: the one-pass E[x^2] - mean^2 loses every digit when the mean is
    large. Computed in float32, or wider if ``x`` is.
    """
    x = jnp.asarray(x)
    return FeatureMaps(x, *_normalize(_widened(x), epsilon))


@functools.partial(jax.jit, static_argnums=2, inline=True)  # traced once for equal shapes
def standardize_gradient(
    maps: FeatureMaps, gradients: FeatureMaps, epsilon: float = 1e-5
) -> jax.Array:
    """Gradient of ``standardize``'s input, from its result and the gradients of that."""
    assert maps.normalized is not None
    assert maps.var is not None
    residuals = maps.normalized, jnp.sqrt(maps.var + epsilon)
    statistics = gradients.normalized, gradients.mean, gradients.var
    (through_normalized,) = _normalize_backward(epsilon, residuals, statistics)
    return gradients.values + through_normalized.astype(gradients.values.dtype)


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(jnp.float32, x.dtype))


# On a CPU so many parts of each picture are summed in pairs, and of what comes out so many pixels
# one after the other. Parts are for channels that fill registers of so many floats: a DenseNet's
# twelve are slower so (measured).
PARTS, BLOCK_PIXELS, REGISTER = 8, 64, 16


@jax.jit
def _channel_mean(x: jax.Array) -> jax.Array:
    """(..., C) to (C,): the mean over all axes but the last; on a CPU the mean of blocks' means.

    In one go a CPU's long float32 sum is several times as far off as PyTorch's, which is kept in
    double. What is off in a mean is off in every pixel alike, and adds up in the layers below. A
    GPU adds in a tree, and every reduction is a kernel.
    """
    axes = tuple(range(x.ndim - 1))
    default = functools.partial(jnp.mean, axis=axes)
    if x.ndim != 4:
        return default(x)
    return lax.platform_dependent(x, cpu=_mean_by_blocks, default=default)


def _mean_by_blocks(x: jax.Array) -> jax.Array:
    """The parts are summed in the loop that computes ``x``, which then is never stored; blocks as
    products with a row of ones, which is fast, and no compiler makes one long sum of.
    """
    n, height, width, channels = x.shape
    number = math.gcd(PARTS, height * width) if channels % REGISTER == 0 else 1
    parts = list(x.reshape(n, number, -1, channels).swapaxes(0, 1))
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    pixels = height * width // number
    block = max(size for size in range(1, BLOCK_PIXELS + 1) if pixels % size == 0)
    blocks = lax.optimization_barrier(parts[0]).reshape(-1, block, channels)
    weights = jnp.full((blocks.shape[0], 1, block), 1 / (number * block), x.dtype)
    means = lax.dot_general(
        weights, blocks, (((2,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST
    )
    sums = lax.optimization_barrier(means.reshape(n, -1, channels).sum(axis=1))
    return sums.sum(axis=0) / blocks.shape[0]


def _plain_channel_moments(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    mean = _channel_mean(x)
    centred = x - mean
    off = _channel_mean(centred)
    return mean, off, jnp.maximum(_channel_mean(jnp.square(centred)) - jnp.square(off), 0)


@jax.jit
def _channel_moments(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(..., C) to three times (C,): the mean, what it is off by, and the biased variance.

    A mean is off by rounding, and that by more than its channel varies where that hardly does.
    """
    return _on_cpu(native.channel_moments, _plain_channel_moments, x)


def _plain_channel_means(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _channel_mean(a), _channel_mean(a * b)


@jax.jit
def _channel_means(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(..., C) twice to (C,) twice: the means of ``a`` and of ``a * b``."""
    return _on_cpu(native.channel_means, _plain_channel_means, a, b)


def _on_cpu(in_cpp: Callable[..., Any], plain: Callable[..., Any], *arrays: jax.Array) -> Any:
    first = arrays[0]
    if first.ndim != 4 or export.is_symbolic_dim(first.shape[0]) or not native.suits(*arrays):
        return plain(*arrays)
    in_cpp = native.differentiated_as(plain)(in_cpp)
    return lax.platform_dependent(*arrays, cpu=in_cpp, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _normalize(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x - mean) / sqrt(var + epsilon), mean and biased variance over all axes but the last."""
    return _normalize_forward(x, epsilon)[0]


def _normalize_forward(x: jax.Array, epsilon: float) -> Any:
    mean, off, var = _channel_moments(x)
    centred = (x - mean) - off
    deviation = jnp.sqrt(var + epsilon)
    normalized = centred * (1 / deviation)
    return (normalized, mean + off, var), (normalized, deviation)


def _normalize_backward(epsilon: float, residuals: Any, gradients: Any) -> tuple[jax.Array]:
    del epsilon
    normalized, _ = residuals
    gradient = gradients[0]
    means = _channel_means(gradient, normalized)
    return (_gradient_through_statistics(residuals, gradients, *means),)


def _gradient_through_statistics(
    residuals: Any, gradients: Any, mean: jax.Array, slope: jax.Array
) -> jax.Array:
    """Equations of section 3 of Ioffe & Szegedy 2015, gathered by what multiplies what.

    Args:
        residuals: of ``_normalize``.
        gradients: arriving at its three outputs.
        mean: (C,), of the first gradient.
        slope: (C,), the mean of the first gradient times the normalised input.
    """
    normalized, deviation = residuals
    gradient, mean_gradient, var_gradient = gradients
    count = math.prod(gradient.shape[:-1])
    slope = slope - 2 * var_gradient * deviation**2 / count
    return (gradient - mean - normalized * slope) * (1 / deviation) + mean_gradient / count


_normalize.defvjp(_normalize_forward, _normalize_backward)


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """(..., C) + (C,)."""
    return x + bias


def _add_bias_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = math.prod(gradient.shape[:-1])
    bias_gradient = count * _channel_mean(_widened(gradient))
    return gradient, bias_gradient.astype(gradient.dtype)


_add_bias.defvjp(lambda x, bias: (_add_bias(x, bias), None), _add_bias_backward)


@jax.custom_vjp
def scale_and_shift(normalized: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """(..., C) * (C,) + (C,)."""
    return normalized * scale + bias


def _scale_and_shift_backward(residuals: Any, gradient: jax.Array) -> Any:
    normalized, scale = residuals
    count = math.prod(gradient.shape[:-1])
    mean, slope = _channel_means(gradient, normalized)
    of_normalized = (gradient * scale).astype(normalized.dtype)
    return of_normalized, *((count * x).astype(scale.dtype) for x in (slope, mean))


scale_and_shift.defvjp(
    lambda normalized, scale, bias: (
        scale_and_shift(normalized, scale, bias),
        (normalized, scale),
    ),
    _scale_and_shift_backward,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    """``scale_and_shift`` of the normalised input; the input's mean and biased variance.

    Written as one because the gradients of scale and bias are, but for a factor, the means that the
    normalisation's gradient needs.
    """
    return _batch_norm_forward(x, scale, bias, epsilon)[0]


def _batch_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    (normalized, mean, var), residuals = _normalize_forward(x, epsilon)
    return (normalized * scale + bias, mean, var), (residuals, scale)


def _batch_norm_backward(epsilon: float, residuals: Any, gradients: Any) -> Any:
    del epsilon
    residuals, scale = residuals
    gradient, *statistics = gradients
    mean, slope = _channel_means(gradient, residuals[0])
    x_gradient = _gradient_through_statistics(
        residuals, (gradient * scale, *statistics), mean * scale, slope * scale
    )
    count = math.prod(gradient.shape[:-1])
    return x_gradient, count * slope, count * mean


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class BatchNorm(nnx.Module):
    """Batch normalisation over the last axis, as ``torch.nn.BatchNorm2d`` computes it (Ioffe &
    Szegedy 2015).

    Training mode normalises with the batch's mean and *biased* variance and moves the running
    statistics towards the mean and the *unbiased* variance:  running = momentum * running + (1 -
    momentum) * batch. ``momentum`` is in Flax's sense: 0.9 here is ``momentum=0.1`` in PyTorch.
    Statistics and the normalisation are in float32, or wider, whatever the compute dtype.

    Args:
        features: C.
        epsilon: added to the variance (``FeatureMaps`` bring the one they were normalised with).
        momentum: share of the old running statistics that is kept.
        dtype: dtype of the output.
        param_dtype: dtype of ``scale`` and ``bias`` (C,); ``mean`` and ``var`` are float32 or
            wider.
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        stat_dtype = jnp.promote_types(jnp.float32, param_dtype)
        self.epsilon, self.momentum, self.dtype = epsilon, momentum, dtype
        self.use_running_average = False
        self.scale = nnx.Param(_full(1, (features,), param_dtype))
        self.bias = nnx.Param(_full(0, (features,), param_dtype))
        self.mean = nnx.BatchStat(_full(0, (features,), stat_dtype))
        self.var = nnx.BatchStat(_full(1, (features,), stat_dtype))
        self.num_batches_tracked = nnx.BatchStat(_full(0, (), jnp.int32))

    def __call__(self, x: jax.Array | FeatureMaps) -> jax.Array:
        """(..., C) to the same shape, in ``dtype``.

        Raises:
            ValueError: one value a channel in training mode (PyTorch refuses it too).
        """
        values = x.values if isinstance(x, FeatureMaps) else jnp.asarray(x)
        wide = jnp.promote_types(jnp.promote_types(jnp.float32, self.mean.dtype), values.dtype)
        scale, bias = (p[...].astype(wide) for p in (self.scale, self.bias))
        if self.use_running_average:
            mean, var = self.mean[...].astype(wide), self.var[...].astype(wide)
            normalized = (values.astype(wide) - mean) / jnp.sqrt(var + self.epsilon)
            return scale_and_shift(normalized, scale, bias).astype(self.dtype)
        if isinstance(x, FeatureMaps):
            assert x.normalized is not None
            y = scale_and_shift(x.normalized, scale, bias)
            statistics = x.mean, x.var
        else:
            y, *statistics = _batch_norm(values.astype(wide), scale, bias, self.epsilon)
        self._update_running_statistics(*statistics, values.shape)
        return y.astype(self.dtype)

    def affine(self, dtype: Dtype) -> tuple[jax.Array | None, jax.Array, jax.Array]:
        """What it does to maps of ``dtype``: ``(maps - mean) * scale + bias``, (C,) each.

        In training mode the mean is None, and the maps are those that are already normalised.
        """
        wide = jnp.promote_types(jnp.promote_types(jnp.float32, self.mean.dtype), dtype)
        scale, bias = (p[...].astype(wide) for p in (self.scale, self.bias))
        if not self.use_running_average:
            return None, scale, bias
        deviation = jnp.sqrt(self.var[...].astype(wide) + self.epsilon)
        return self.mean[...].astype(wide), scale / deviation, bias

    def track(self, maps: FeatureMaps) -> None:
        """Move the running statistics as a call in training mode does."""
        self._update_running_statistics(maps.mean, maps.var, maps.values.shape)

    def _update_running_statistics(self, mean: Any, var: Any, shape: tuple[int, ...]) -> None:
        count = math.prod(shape[:-1])
        if count < 2:
            raise ValueError(
                "batch norm in training mode needs more than one value a channel, got an input of "
                f"shape {shape}; use a larger batch or picture, or call model.eval()"
            )
        batch = (mean, var * (count / (count - 1)))
        # Not `running[...] =`: under a trace that takes as long as all operations before it.
        for running, new in zip((self.mean, self.var), batch, strict=True):
            old = running[...]
            new = (1 - self.momentum) * new.astype(old.dtype)
            running.set_value(self.momentum * old + new)
        self.num_batches_tracked.set_value(self.num_batches_tracked[...] + 1)


class Layers:
    """Makes the layers of one network, so that each carries its initialisation and dtypes.

    Args:
        init: ``"fan_out"``: convolutions N(0, 2 / (k k C_out)) (He 2015b), linear layers as
            PyTorch's default, U(-1/sqrt(in), 1/sqrt(in)); ``"fan_out_zero_bias"``: the same with
            linear bias 0; ``"fan_in"``: convolution and linear kernels N(0, 2 / fan_in);
            ``"fan_in_zero_bias"``: convolutions N(0, 2 / fan_in), linear layers as PyTorch's
            default with bias 0 (torchvision's DenseNet); ``"xavier"``: convolutions U(-a, a) with
            a = sqrt(12 / (fan_in + fan_out)) and bias 0, linear layers as PyTorch's default
            (meliketoy); ``"torch"``: PyTorch's defaults everywhere. Batch norm starts at scale 1
            and bias 0.
        rngs: streams ``params`` and, with dropout, ``dropout``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
    """

    def __init__(
        self,
        init: Init,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.init, self.rngs, self.dtype, self.param_dtype = init, rngs, dtype, param_dtype
        self._keys: Iterator[Any] = itertools.repeat(None)
        if not _SHAPES_ONLY.get():
            # One draw from the stream, not one a layer: under a trace each costs as much as all
            # before.
            key = rngs.params()
            self._keys = (jax.random.fold_in(key, number) for number in itertools.count())

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> Conv:
        """A ``Conv``; options are its ``stride``, ``groups`` and ``bias``."""
        return Conv(
            in_channels,
            out_channels,
            kernel_size,
            init=self.init,
            key=next(self._keys),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            **options,
        )

    def norm(self, features: int, **options: Any) -> BatchNorm:
        """A ``BatchNorm``; options are its ``epsilon`` and ``momentum``."""
        return BatchNorm(features, dtype=self.dtype, param_dtype=self.param_dtype, **options)

    def dropout(self, rate: float) -> nnx.Dropout | None:
        """A dropout layer with a random stream of its own, or None where the rate is 0."""
        return nnx.data(nnx.Dropout(rate, rngs=self.rngs) if rate else None)

    def classifier(self, in_features: int, num_classes: int) -> nnx.Linear | None:
        """The linear layer that ends a network, or None where ``num_classes`` is 0."""
        return nnx.data(self.linear(in_features, num_classes) if num_classes else None)

    def linear(self, in_features: int, out_features: int) -> nnx.Linear:
        """A linear layer with ``kernel`` (in, out) and ``bias`` (out,)."""

        def initializer(draw: Callable[..., jax.Array]) -> Any:
            key = next(self._keys)
            return lambda _, shape, dtype: draw(key, shape, in_features, dtype)

        return nnx.Linear(
            in_features,
            out_features,
            kernel_init=initializer(_he_normal if self.init == "fan_in" else _torch_uniform),
            bias_init=initializer(_zeros if self.init in ZERO_BIAS else _torch_uniform),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=_NO_KEYS,  # type: ignore[arg-type]
        )


# As one operation: run eagerly, its gradient is then one too.
relu = jax.jit(jax.nn.relu)


def check_images(x: jax.Array) -> None:
    """Raise ``ValueError`` unless ``x`` is a floating-point batch (N, H, W, 3)."""
    if x.ndim != 4 or x.shape[-1] != 3:
        hint = " PyTorch's NCHW needs .transpose(0, 2, 3, 1)." if x.ndim == 4 else ""
        raise ValueError(f"images must be (N, H, W, 3), got shape {x.shape}.{hint}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"images must be floating point, got {x.dtype}; scale to 0..1 and normalise them first"
        )


class _NoKeys:
    """In place of ``nnx.Rngs`` for a layer whose initializers bring keys of their own."""

    def params(self) -> None:
        """No key."""


_NO_KEYS = _NoKeys()

_SHAPES_ONLY: contextvars.ContextVar[bool] = contextvars.ContextVar("shapes_only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Layers made in this context hold ``jax.ShapeDtypeStruct`` where they would hold arrays.

    What ``nnx.eval_shape`` gives too, but without a trace, which takes seconds for a deep network.
    """
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


BLOCK = 2**15


@jax.jit
def _normal_block(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (BLOCK,), jnp.float32)


@jax.jit
def _uniform_block(key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, (BLOCK,), jnp.float32, -1, 1)


def _draw(
    block: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    shape: tuple[int, ...],
    factor: float,
    dtype: Any,
) -> jax.Array:
    """Random numbers of any shape, times ``factor``, cut from blocks of one size.

    Asked for directly, each shape is compiled for itself: minutes for the hundred kernel shapes of
    a DenseNet. Under a trace all blocks of a kernel are one operation, the same numbers: thousands
    of operations for a wide network would take longer to trace than anything else.
    """
    if _SHAPES_ONLY.get():
        return _shape_only(shape, dtype)
    size = math.prod(shape)
    count = math.ceil(size / BLOCK)
    if isinstance(key, jax.core.Tracer):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
        values = jax.vmap(block)(keys).reshape(-1)
        return jnp.asarray(values[:size].reshape(shape) * np.float32(factor), dtype)
    blocks = np.concatenate([block(jax.random.fold_in(key, number)) for number in range(count)])
    return _on_device(blocks[:size].reshape(shape) * np.float32(factor), dtype)


def _he_normal(key: Any, shape: tuple[int, ...], fan: int, dtype: Any) -> jax.Array:
    return _draw(_normal_block, key, shape, math.sqrt(2 / fan), dtype)


def _torch_uniform(key: Any, shape: tuple[int, ...], fan_in: int, dtype: Any) -> jax.Array:
    return _draw(_uniform_block, key, shape, 1 / math.sqrt(fan_in), dtype)


def _xavier_uniform(key: Any, shape: tuple[int, ...], fans: int, dtype: Any) -> jax.Array:
    """Glorot & Bengio 2010 with the gain for ReLU, sqrt(2)."""
    return _draw(_uniform_block, key, shape, math.sqrt(2 * 6 / fans), dtype)


def _zeros(key: Any, shape: tuple[int, ...], fan_in: int, dtype: Any) -> jax.Array:
    return _full(0, shape, dtype)


def _full(value: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    if _SHAPES_ONLY.get():
        return _shape_only(shape, dtype)
    return _on_device(np.full(shape, value), dtype)


def _on_device(x: np.ndarray, dtype: Any) -> jax.Array:
    """As ``jnp.asarray(x, dtype)``, which compiles once for every shape."""
    return jax.device_put(x.astype(jax.dtypes.canonicalize_dtype(dtype)))


def _shape_only(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype))
