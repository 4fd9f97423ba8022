"""What the plain networks are made of."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype


class Layers:
    """Makes ``nnx``'s layers, with the options that all of a network's share."""

    def __init__(self, rngs: nnx.Rngs, dtype: Dtype, *, bias: bool = False) -> None:
        self.norm = functools.partial(
            nnx.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs
        )
        self.linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self._conv = functools.partial(nnx.Conv, use_bias=bias, dtype=dtype, rngs=rngs)

    def conv(self, inputs: int, outputs: int, size: int, **options: Any) -> nnx.Conv:
        """A convolution padded by half its kernel."""
        return self._conv(inputs, outputs, (size, size), padding=size // 2, **options)


class PadShortcut(nnx.Module):
    """Every second pixel, or the average of four, and channels of zeros (option A)."""

    def __init__(self, before: int, after: int, stride: int, average: bool = False) -> None:
        self.before, self.after, self.stride, self.average = before, after, stride, average

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to (N, H / stride, W / stride, before + C + after)."""
        if self.average:
            x = nnx.avg_pool(x, (self.stride,) * 2, strides=(self.stride,) * 2)
        else:
            x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.before, self.after)))


def make_shortcut(kind: str, layers: Layers, inputs: int, outputs: int, stride: int) -> nnx.Module:
    """The layers between a block's input and the addition; kinds as in ``flaxnets.shortcuts``."""
    extra = outputs - inputs
    if kind == "zero_pad_both":
        return PadShortcut(extra // 2, extra - extra // 2, stride)
    if kind in ("zero_pad_end", "avg_pool_pad"):
        return PadShortcut(0, extra, stride, kind == "avg_pool_pad")
    if kind == "projection_biased":
        return nnx.List([layers.conv(inputs, outputs, 1, strides=stride, use_bias=True)])
    return nnx.List([layers.conv(inputs, outputs, 1, strides=stride), layers.norm(outputs)])


def apply_shortcut(shortcut: Any, x: jax.Array) -> jax.Array:
    """A shortcut's layers in turn; without any, ``x``."""
    if shortcut is None:
        return x
    for layer in shortcut if isinstance(shortcut, nnx.List) else [shortcut]:
        x = layer(x)
    return x
