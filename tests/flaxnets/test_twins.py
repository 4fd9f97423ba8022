"""Options that no small named network has, against their PyTorch twins in float64.

Logits, every gradient and the running statistics, in training and in evaluation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
import torchref
from flaxnets.registry import Model
from parity.naming import torch_arrays, unchanged
from parity.weights import random_batches, randomize

SMALL = {"stage_sizes": (1, 2), "widths": (6, 8), "stem_width": 6}
DENSE = {"block_sizes": (2, 2), "growth_rate": 3, "stem_width": 5}
BOTTLENECK = SMALL | {"block": "bottleneck"}

CASES = {
    "groups": ("resnet50_cifar", BOTTLENECK | {"groups": 2, "bottleneck_width": 0.5}),
    "bottlenecks, thin": ("resnet164", SMALL),
    "new maps first, transitions without ReLU": (
        "densenet_cifar",
        DENSE | {"transition_relu": False},
    ),
    "new maps first, no bottlenecks": ("densenet_40_12", DENSE | {"concat": "new_old"}),
    "meliketoy": ("meliketoy_wrn_16_8", {"depth": 10, "widen_factor": 1, "dropout": 0.0}),
    "fb.resnet.torch": ("preact_resnet110", SMALL),
    "fb.resnet.torch, projections": ("preact_resnet110_b", SMALL),
    "He 2016": ("preact_resnet164", SMALL),
    "kuangliu": ("preact_resnet50_cifar", SMALL),
    "weiaicunzai": ("weiaicunzai_preact_resnet18_cifar", SMALL | {"num_classes": 10}),
    "weiaicunzai, bottlenecks": ("weiaicunzai_preact_resnet50_cifar", SMALL | {"num_classes": 10}),
    "no classifier": ("preact_resnet110", SMALL | {"num_classes": 0}),
}


CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def call(model: Model, x: jax.Array) -> jax.Array:
    return model(x)


def loss(model: Model, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(x)
    return jnp.square(logits - 1).sum(), logits


def pair(case: str) -> tuple[torch.nn.Module, Model, np.ndarray]:
    """Both networks with the same random weights, and pictures (N, H, W, 3); all in float64."""
    arch, options = CASES[case]
    batches = random_batches(count=1, size=3, height=6, width=8, classes=2)
    module = torchref.create(arch, **options)
    randomize(module, batches, seed=0)
    double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = flaxnets.load_torch(module.state_dict(), arch, **double, **options)
    return module, model, batches.images[0]


def to_torch(pictures: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(pictures, -1, 1), requires_grad=True)


@pytest.mark.parametrize("case", CASES)
def test_equal_in_training(case: str, gradients: Callable) -> None:
    with jax.enable_x64(True):
        module, model, pictures = pair(case)
        by_parameters, by_inputs, logits, statistics = gradients(loss, model, jnp.asarray(pictures))
        ours = torch_arrays(nnx.to_flat_state(by_parameters), unchanged)
        left = torch_arrays(nnx.to_flat_state(statistics), unchanged)

    x = to_torch(pictures)
    expected = module(x)
    (expected - 1).square().sum().backward()
    np.testing.assert_allclose(logits, expected.detach(), **CLOSE)
    np.testing.assert_allclose(np.moveaxis(by_inputs, -1, 1), x.grad, **CLOSE)
    parameters = dict(module.named_parameters())
    assert ours.keys() == parameters.keys()
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, parameters[name].grad, **CLOSE, err_msg=name)
    buffers = dict(module.named_buffers())
    assert left.keys() == buffers.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, buffers[name], **CLOSE, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_equal_in_evaluation(case: str, forward: Callable) -> None:
    with jax.enable_x64(True):
        module, model, pictures = pair(case)
        model.eval()
        logits = forward(model, jnp.asarray(pictures), call)
    expected = module.eval()(to_torch(pictures)).detach()
    assert expected.shape == logits.shape
    np.testing.assert_allclose(logits, expected, **CLOSE)
