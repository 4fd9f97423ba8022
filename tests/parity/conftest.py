from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from parity.budget import DType
from parity.checks import Pair
from parity.naming import unchanged
from parity.weights import copy_weights, random_batches, randomize


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Compiling takes nearly all the time; without LLVM's optimization it takes half of it."""
    flag = "jax_disable_most_optimizations"
    before = jax.config.values[flag]
    jax.config.update(flag, True)
    yield
    jax.config.update(flag, before)


class TorchTiny(nn.Module):
    """conv, norm, ReLU, conv, norm, dropout, ReLU, mean, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.dropout(self.bn2(self.conv2(x))))
        return self.fc(x.mean(dim=(2, 3)))


class Norm(nnx.Module):
    """Batch norm as PyTorch's, or with a mistake."""

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        unbiased: bool = True,
        statistics_have_gradients: bool = True,
    ) -> None:
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.epsilon, self.unbiased = epsilon, unbiased
        self.statistics_have_gradients = statistics_have_gradients
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = self.mean[...], self.var[...]
        if not self.use_running_average:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            if not self.statistics_have_gradients:
                mean, var = jax.lax.stop_gradient((mean, var))
            count = x.size // x.shape[-1]
            kept = var * count / (count - 1) if self.unbiased else var
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
            self.var[...] = 0.9 * self.var[...] + 0.1 * kept
            self.num_batches_tracked[...] += 1
        return (x - mean) / jnp.sqrt(var + self.epsilon) * self.scale + self.bias


class FlaxTiny(nnx.Module):
    """The same network in Flax, or with a mistake."""

    def __init__(self, mistake: str) -> None:
        def conv(channels: int, features: int, **options: Any) -> nnx.Conv:
            return nnx.Conv(channels, features, (3, 3), rngs=nnx.Rngs(0), **options)

        late = mistake == "stride on the wrong convolution"
        padding = 0 if mistake == "no padding" else 1
        self.conv1 = conv(3, 4, strides=1 if late else 2, padding=1, use_bias=False)
        self.bn1 = Norm(
            4,
            epsilon=1e-3 if mistake == "epsilon" else 1e-5,
            unbiased=mistake != "biased running variance",
            statistics_have_gradients=mistake != "no gradient through statistics",
        )
        self.conv2 = conv(4, 6, strides=2 if late else 1, padding=padding)
        self.bn2 = Norm(6)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        self.fc = nnx.Linear(6, 5, rngs=nnx.Rngs(0))
        self.mistake = mistake

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.bn1(self.conv1(images))
        if self.mistake == "one layer too many":
            x = self.dropout(x)
        if self.mistake != "missing ReLU":
            x = jax.nn.relu(x)
        x = self.conv2(x)
        if self.mistake != "missing layer":
            x = self.bn2(x)
        x = jax.nn.relu(self.dropout(x))
        if self.mistake == "not pooled":
            return self.fc(x.reshape(len(x), -1))
        return self.fc(x.mean((1, 2)))


@pytest.fixture
def tiny_pair() -> Callable[..., Pair]:
    """Make a pair of tiny networks, the Flax one with a mistake if one is named."""

    def make(mistake: str = "", seed: int = 0) -> Pair:
        module = TorchTiny()
        batches = random_batches(count=2, size=2, height=6, width=8, classes=5, seed=seed)
        randomize(module, batches, seed=seed)

        def make_flax(dtype: DType) -> nnx.Module:
            model = FlaxTiny(mistake)
            copy_weights(module, model, unchanged, dtype=jnp.dtype(dtype))
            if mistake == "kernel axes swapped":
                model.conv1.kernel[...] = model.conv1.kernel[...].transpose(1, 0, 2, 3)
            return model

        return Pair("tiny", module, make_flax, batches)

    return make


@pytest.fixture
def tiny_inputs() -> np.ndarray:
    """Two batches of two pictures."""
    return random_batches(count=2, size=2, height=6, width=8, classes=5).images
