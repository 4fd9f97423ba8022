"""``parity.compare`` for modules that the project has never seen, here with NNX's own layers."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import parity

pytestmark = pytest.mark.usefixtures("quick_compilation")


class TorchOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))


class FlaxOwn(nnx.Module):
    def __init__(self, epsilon: float = 1e-5, classes: int = 2) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, epsilon=epsilon, rngs=rngs)
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jax.nn.relu(self.norm(self.conv(x))).mean((1, 2)))


def rename(name: str) -> str:
    return name.replace("conv", "body.0").replace("norm", "body.1")


def compare(flax_module: nnx.Module, inputs: np.ndarray, **options: Any) -> parity.NetworkReport:
    chosen = {"rename": rename, "dtypes": ["float64"], "modes": ["eval"]} | options
    return parity.compare(TorchOwn(), flax_module, inputs, **chosen)


def test_a_pair_of_ones_own_is_equal_in_evaluation(tiny_inputs: np.ndarray) -> None:
    report = compare(FlaxOwn(), tiny_inputs)
    assert report.ok
    layers = [comparison.layer for comparison in report.comparisons if comparison.check == "layers"]
    assert layers == ["body.0", "body.1", "head"]


def test_a_planted_mistake_is_found(tiny_inputs: np.ndarray) -> None:
    first = compare(FlaxOwn(epsilon=1e-3), tiny_inputs).first_divergence
    assert first is not None
    assert (first.check, first.layer) == ("isolated layers", "body.1")


def test_nnx_keeps_the_biased_variance_where_pytorch_keeps_the_unbiased_one(
    tiny_inputs: np.ndarray,
) -> None:
    report = compare(FlaxOwn(), tiny_inputs, modes=["train"])
    out = [(c.check, c.layer) for c in report.comparisons if not c.ok]
    after = [("lockstep", f"statistics after step {n}: body.1.running_var") for n in (1, 2)]
    assert out == [("statistics", "body.1.running_var"), *after]


def test_neither_module_is_changed(tiny_inputs: np.ndarray) -> None:
    torch_module, flax_module = TorchOwn(), FlaxOwn()
    kernel = np.asarray(flax_module.conv.kernel)
    weight = torch_module.body[0].weight.detach().numpy().copy()
    parity.compare(torch_module, flax_module, tiny_inputs, rename=rename, dtypes=["float64"])
    np.testing.assert_array_equal(flax_module.conv.kernel, kernel)
    np.testing.assert_array_equal(torch_module.body[0].weight.detach().numpy(), weight)
    assert torch_module.body[0].weight.dtype == torch.float32


def test_weights_that_do_not_fit_are_all_listed(tiny_inputs: np.ndarray) -> None:
    with pytest.raises(ValueError, match="don't fit") as error:
        compare(FlaxOwn(classes=3), tiny_inputs, rename=lambda name: name.replace("conv", "body.0"))
    lines = str(error.value).splitlines()[1:]
    assert sorted(line.strip() for line in lines) == [
        "body.1.bias: only in PyTorch",
        "body.1.running_mean: only in PyTorch",
        "body.1.running_var: only in PyTorch",
        "body.1.weight: only in PyTorch",
        "head.bias: shape (2,) from PyTorch, (3,) in Flax",
        "head.weight: shape (4, 2) from PyTorch, (4, 3) in Flax",
        "norm.bias: only in Flax",
        "norm.running_mean: only in Flax",
        "norm.running_var: only in Flax",
        "norm.weight: only in Flax",
    ]


def test_assert_equal_fails_with_the_first_divergence(tiny_inputs: np.ndarray) -> None:
    options: dict[str, Any] = {"rename": rename, "dtypes": ["float64"], "modes": ["eval"]}
    parity.assert_equal(TorchOwn(), FlaxOwn(), tiny_inputs, **options)
    with pytest.raises(
        AssertionError, match=r"divergence: isolated layers body\.1 \(float64 eval\)"
    ):
        parity.assert_equal(TorchOwn(), FlaxOwn(epsilon=1e-3), tiny_inputs, **options)
