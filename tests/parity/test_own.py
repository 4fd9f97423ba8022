"""``parity.compare`` for modules that the project has never seen, here with NNX's own layers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import parity
from parity.checks import Pair, check_pair

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
    after = [("updates", f"statistics after step {n}: body.1.running_var") for n in (1, 2)]
    once = [(check, "body.1.running_var") for check in ("statistics", "whole network")]
    assert out == [*once, *after]


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


class TorchActivated(TorchOwn):
    def __init__(self) -> None:
        super().__init__()
        self.body[2] = nn.GELU(approximate="tanh")


class FlaxActivated(FlaxOwn):
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jax.nn.gelu(self.norm(self.conv(x)), approximate=True).mean((1, 2)))


def test_an_activation_that_flax_writes_as_a_function_is_no_missing_layer(
    tiny_inputs: np.ndarray,
) -> None:
    parity.assert_equal(
        TorchActivated(), FlaxActivated(), tiny_inputs, rename=rename, modes=["eval"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"modes": "train"},
            r"modes are a list .* of \['eval', 'train'\], got 'train'",
        ),
        ({"modes": ["training"]}, "modes are a list .* got 'training'"),
        ({"modes": []}, "modes are a list .* got none"),
        ({"dtypes": "float64"}, "dtypes are a list .* got 'float64'"),
        ({"dtypes": ["bfloat16"]}, "dtypes are a list .* got 'bfloat16'"),
        ({"inputs": np.zeros((2, 8, 8, 3))}, r"inputs are \(K, N, H, W, C\).*give inputs\[None\]"),
        ({"inputs": np.zeros((0, 2, 8, 8, 3))}, "inputs are"),
        ({"labels": np.zeros(2, int)}, r"labels are \(2, 2\) whole numbers"),
        ({"labels": np.full((2, 2), 0.5)}, "labels are .* got float64"),
        ({"labels": np.full((2, 2), 9)}, "labels below the number of classes, not 9"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    options: dict[str, Any], message: str, tiny_inputs: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(FlaxOwn(), **({"inputs": tiny_inputs} | options))


def test_a_layer_of_several_outputs_is_named(tiny_inputs: np.ndarray) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    class TorchTwo(TorchOwn):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.two(x)[0])

    with pytest.raises(ValueError, match="layer two gives a tuple"):
        parity.compare(TorchTwo(), FlaxOwn(), tiny_inputs, rename=rename, modes=["eval"])


def test_a_layer_of_a_fixed_dtype_is_told(tiny_inputs: np.ndarray) -> None:
    model = FlaxOwn()
    model.conv.dtype = np.float32
    first = compare(model, tiny_inputs).first_divergence
    assert first is not None
    assert (first.check, first.layer) == ("isolated layers", "body.0")
    notes = {c.note for c in compare(model, tiny_inputs).comparisons if c.layer == "body.0"}
    assert any(note.startswith("computed in float32") for note in notes)


def test_a_network_that_does_not_run_is_not_equal_whatever_is_asked(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()

    def make_flax(dtype: Any) -> nnx.Module:
        class Refusing(nnx.Module):
            def __init__(self, inner: nnx.Module) -> None:
                for name, value in vars(inner).items():
                    if not name.startswith("_"):
                        setattr(self, name, value)

            def __call__(self, x: jax.Array) -> jax.Array:
                raise ValueError("not today")

        return Refusing(pair.make_flax(dtype))

    broken = dataclasses.replace(pair, make_flax=make_flax)
    for check in ("logits", "loss", "input gradient"):
        found = [c for g in check_pair(broken, dtypes=["float64"], checks=[check]) for c in g]
        assert found
        assert not any(c.ok for c in found)
        assert "not today" in found[0].note
