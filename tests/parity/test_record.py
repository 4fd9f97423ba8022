from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from parity.checks import Pair
from parity.kinks import Relu
from parity.record import Batches, record_flax, record_torch
from parity.weights import random_batches, randomize


def test_layers_are_in_execution_order_under_their_names(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    trace = record_torch(pair.torch, pair.batches, training=True)
    assert list(trace.layers) == ["conv1", "bn1", "conv2", "bn2", "dropout", "fc"]
    assert trace.layers["conv1"].shape == (2, 3, 4, 4)
    assert list(trace.parameter_gradients) == [name for name, _ in pair.torch.named_parameters()]
    assert trace.input_gradient.shape == (2, 6, 8, 3)


def test_an_output_is_recorded_before_it_is_changed_in_place(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()
    assert pair.torch.relu.inplace
    trace = record_torch(pair.torch, pair.batches, training=True)
    assert trace.layers["bn1"].min() < 0


def test_the_gradient_at_a_layer_is_that_of_its_output_before_it_is_changed_in_place(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()
    pair.torch.relu.inplace = True
    in_place = record_torch(pair.torch, pair.batches, training=True)
    pair.torch.relu.inplace = False
    apart = record_torch(pair.torch, pair.batches, training=True)
    assert set(in_place.layer_gradients) == set(in_place.layers)
    for name, gradient in apart.layer_gradients.items():
        np.testing.assert_array_equal(in_place.layer_gradients[name], gradient)
    np.testing.assert_array_equal(in_place.layer_gradients["bn1"] == 0, in_place.layers["bn1"] <= 0)


def test_the_gradient_at_the_logits_is_softmax_minus_one_hot(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()
    traces = [
        record_torch(pair.torch, pair.batches, training=True),
        record_flax(pair.flax("float64"), pair.batches, dtype="float64", training=True),
    ]
    for trace in traces:
        odds = np.exp(trace.logits)
        expected = odds / odds.sum(axis=1, keepdims=True) - np.eye(5)[pair.batches.labels[0]]
        np.testing.assert_allclose(trace.layer_gradients["fc"], expected / 2, rtol=1e-12)


def test_leaf_layers_have_their_inputs_and_calls(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    trace = record_torch(pair.torch, pair.batches, training=True)
    assert list(trace.inputs) == ["conv1", "bn1", "conv2", "bn2", "fc"]
    np.testing.assert_array_equal(trace.inputs["bn1"], trace.layers["conv1"])
    np.testing.assert_array_equal(trace.inputs["conv2"], np.maximum(trace.layers["bn1"], 0))
    flax = record_flax(pair.flax("float64"), pair.batches, dtype="float64", training=True)
    assert list(flax.calls) == list(trace.inputs)
    assert flax.calls["bn1"].path == ("bn1",)
    assert not flax.calls["bn1"].reads_maps


def test_statistics_are_those_after_all_batches_and_the_rest_is_the_first_ones(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()
    both = record_torch(pair.torch, pair.batches, training=True)
    one = Batches(pair.batches.images[:1], pair.batches.labels[:1])
    first = record_torch(pair.torch, one, training=True)
    np.testing.assert_array_equal(both.logits, first.logits)
    np.testing.assert_array_equal(both.input_gradient, first.input_gradient)
    tracked = "bn1.num_batches_tracked"
    assert both.statistics[tracked] == first.statistics[tracked] + 1
    assert (both.statistics["bn1.running_mean"] != first.statistics["bn1.running_mean"]).all()


@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_left_as_it_was(training: bool, tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    pair.torch.train()
    pair.torch.bn2.eval()
    before = {key: value.clone() for key, value in pair.torch.state_dict().items()}
    record_torch(pair.torch, pair.batches, training=training)
    after = pair.torch.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert pair.torch.training
    assert not pair.torch.bn2.training
    assert pair.torch.dropout.p == 0.5
    assert all(parameter.grad is None for parameter in pair.torch.parameters())


def test_dropout_is_off(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    trace = record_torch(pair.torch, pair.batches, training=True)
    np.testing.assert_array_equal(trace.layers["dropout"], trace.layers["bn2"])


def test_a_module_called_twice_has_two_outputs() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x)).mean(dim=(2, 3))

    batches = random_batches(count=1, size=1, height=2, width=3, classes=3)
    trace = record_torch(Shared().double(), batches, training=False)
    assert list(trace.layers) == ["conv", "conv (call 2)"]
    assert (trace.layers["conv"] != trace.layers["conv (call 2)"]).any()


def test_every_relu_is_traced_to_the_layer_that_shows_its_sign(
    tiny_pair: Callable[..., Pair],
) -> None:
    pair = tiny_pair()
    trace = record_torch(pair.torch, pair.batches, training=True)
    assert trace.relus == {0: Relu("bn1", after=False), 1: Relu("dropout", after=False)}


def test_a_relu_of_a_sum_made_in_place_is_traced_to_the_block_that_returns_it() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = BasicBlock(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x).mean(dim=(2, 3))

    module = Network()
    batches = random_batches(count=1, size=2, height=3, width=4, classes=3)
    randomize(module, batches, seed=0)
    trace = record_torch(module, batches, training=True)
    assert trace.relus == {0: Relu("block.bn1", after=False), 1: Relu("block", after=True)}
