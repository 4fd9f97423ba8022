"""Random weights that hide nothing, and their way into Flax modules that have no bridge."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from parity.naming import Rename, kernel_axes, torch_key
from parity.record import Batches, set_mode

BATCHES_TRACKED = "num_batches_tracked"


def random_batches(
    *,
    count: int,
    size: int,
    height: int,
    width: int,
    classes: int,
    channels: int = 3,
    seed: int = 0,
) -> Batches:
    """``count`` batches of ``size`` pictures of normal noise, with random labels."""
    generator = np.random.default_rng(seed)
    return Batches(
        images=generator.normal(size=(count, size, height, width, channels)),
        labels=generator.integers(0, classes, (count, size)),
    )


def randomize(
    module: nn.Module, batches: Batches, *, seed: int, damping: Mapping[str, float] | None = None
) -> None:
    """Turn a module into float64 and draw all its parameters and batch-norm statistics anew, in
    place.

    At their initial values batch norm's scale, bias and statistics are 1 and 0, and could be
    swapped, forgotten or read from another layer without a trace. Here scale is U(0.5, 1.5) and
    bias N(0, 0.3). The running statistics are those of the first batch, moved: the mean by N(0,
    0.3) deviations and the variance by a factor U(0.5, 2). Values that know nothing of the
    activations would make those of an evaluation grow, or vanish, exponentially with depth. Kernels
    are N(0, 2 / fan_in), other biases N(0, 0.1).

    Args:
        module: of ``Conv2d``, ``Linear`` and ``BatchNorm2d`` layers, and layers without parameters.
        batches: the first is read to find the activations' scale.
        seed: of all draws.
        damping: factors of some parameters, by name.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: torch.Tensor, deviation: float) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64) * deviation

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * drawn

    module.double()
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                fan_in = layer.weight[0].numel()
                layer.weight.copy_(normal(layer.weight, (2 / fan_in) ** 0.5))
                if layer.bias is not None:
                    layer.bias.copy_(normal(layer.bias, 0.1))
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.5, 1.5))
            norm.bias.copy_(normal(norm.bias, 0.3))
        for name, factor in (damping or {}).items():
            module.get_parameter(name).mul_(factor)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with set_mode(module, training=True, keep_buffers=True):
            module(torch.tensor(np.moveaxis(batches.images[0], -1, 1)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            mean, variance = norm.running_mean, norm.running_var
            if mean is None or variance is None or norm.num_batches_tracked is None:
                continue
            mean.add_(variance.sqrt() * normal(mean, 0.3))
            variance.mul_(uniform(variance, 0.5, 2.0))
            norm.num_batches_tracked.fill_(int(torch.randint(1, 1000, (), generator=generator)))


def copy_weights(
    source: nn.Module, target: nnx.Module, rename: Rename, *, dtype: jnp.dtype
) -> None:
    """Give every parameter and statistic of ``target`` the value of its namesake in ``source``, in
    place.

    Whole numbers stay what they are; to hold float64, JAX must have 64-bit types enabled.

    Args:
        source: the PyTorch module.
        target: the Flax module.
        rename: a Flax variable's key to PyTorch's.
        dtype: of the floating-point variables.

    Raises:
        ValueError: a variable of one has no counterpart of its shape in the other; all are listed.
    """
    tensors = source.state_dict()
    flat = nnx.to_flat_state(nnx.state(target, (nnx.Param, nnx.BatchStat)))
    keys = {path: torch_key(path, rename) for path in flat.paths}
    if not any(key.endswith(BATCHES_TRACKED) for key in keys.values()):
        # Flax's own batch norm counts no batches.
        tensors = {key: t for key, t in tensors.items() if not key.endswith(BATCHES_TRACKED)}
    problems = [f"{key}: only in PyTorch" for key in tensors if key not in keys.values()]
    for path, variable in zip(flat.paths, flat.leaves, strict=True):
        key = keys[path]
        if key not in tensors:
            problems.append(f"{key}: only in Flax")
            continue
        value = tensors[key].numpy(force=True)
        if path[-1] == "kernel":
            value = value.transpose(np.argsort(kernel_axes(value.ndim)))
        if value.shape != variable.shape:
            problems.append(f"{key}: shape {value.shape} from PyTorch, {variable.shape} in Flax")
            continue
        exact = np.issubdtype(value.dtype, np.integer)
        variable.set_value(jnp.asarray(value, jnp.int32 if exact else dtype))
    if problems:
        raise ValueError("these weights don't fit the Flax module:\n  " + "\n  ".join(problems))
