"""The four families once more, written straight from a state dict with ``torch.nn.functional``.

Structure is read off the keys, as anything that only has a checkpoint must do. The last pooling is
the upstream CIFAR codes' fixed 8x8 window, so that equality at 32x32 shows the global one to agree.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import torchref

State = dict[str, torch.Tensor]


class Functional:
    """Layers applied by name from a state dict."""

    def __init__(self, state: State, *, training: bool) -> None:
        self.state = state
        self.training = training

    def has(self, prefix: str) -> bool:
        return any(key.startswith(prefix + ".") for key in self.state)

    def conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        groups = x.shape[1] // weight.shape[1]
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        scale, shift = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if self.training:
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
        else:
            mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        factor = scale / torch.sqrt(var + 1e-5)
        return x * factor[:, None, None] + (shift - mean * factor)[:, None, None]

    def activate(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.norm(name, x).clamp(min=0)

    def head(self, name: str, x: torch.Tensor) -> torch.Tensor:
        features = F.avg_pool2d(x, 8).flatten(1)
        return features @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def numbered(layers: Functional, template: str, start: int) -> list[str]:
    names = []
    while layers.has(template.format(start + len(names))):
        names.append(template.format(start + len(names)))
    return names


def densenet(
    layers: Functional, x: torch.Tensor, *, newest_first: bool = False, bare: bool = False
) -> torch.Tensor:
    """``bare``: transitions without ReLU."""
    order = -1 if newest_first else 1
    x = layers.conv("conv0", x)
    for number, block in enumerate(numbered(layers, "denseblock{}", 1), start=1):
        features = [x]
        for layer in numbered(layers, block + ".denselayer{}", 1):
            known = torch.cat(features[::order], 1)
            y = layers.conv(f"{layer}.conv1", layers.activate(f"{layer}.norm1", known))
            if layers.has(f"{layer}.conv2"):
                y = layers.conv(f"{layer}.conv2", layers.activate(f"{layer}.norm2", y))
            features.append(y)
        x = torch.cat(features[::order], 1)
        if layers.has(f"transition{number}"):
            y = layers.norm(f"transition{number}.norm", x)
            y = y if bare else y.clamp(min=0)
            x = F.avg_pool2d(layers.conv(f"transition{number}.conv", y), 2)
    return layers.head("classifier", layers.activate("norm5", x))


def preactivated(
    layers: Functional, x: torch.Tensor, *, reads: str, strided: str = "conv1"
) -> torch.Tensor:
    """WRNs and pre-activation ResNets; ``reads``: the shortcut's input."""
    x = layers.conv("conv1", x)
    x = layers.activate("bn0", x) if layers.has("bn0") else x
    for stage in numbered(layers, "layer{}", 1):
        for block in numbered(layers, stage + ".{}", 0):
            step = 2 if stage != "layer1" and block.endswith(".0") else 1
            first = layers.activate(f"{block}.bn1", x)
            y = layers.conv(f"{block}.conv1", first, step if strided == "conv1" else 1)
            for name in numbered(layers, block + ".conv{}", 2):
                y = layers.activate(name.replace("conv", "bn"), y)
                y = layers.conv(name, y, step if name.endswith(strided) else 1)
            changes = x.shape != y.shape
            if (reads == "activated" and changes) or (
                reads == "activated_first" and block.endswith(".0")
            ):
                x = first
            if layers.has(f"{block}.downsample"):
                x = layers.conv(f"{block}.downsample.0", x, step)
            elif changes:
                x = padded(x, y.shape[1], step, "zero_pad_end")
            x = x + y
    return layers.head("fc", layers.activate("bn1", x) if layers.has("bn1") else x)


def padded(x: torch.Tensor, channels: int, step: int, kind: str) -> torch.Tensor:
    """A parameter-free shortcut: a tensor of zeros with some channels written."""
    small = x[:, :, ::step, ::step]
    if kind == "avg_pool_pad" and step == 2:
        small = (small + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    out = small.new_zeros(len(x), channels, *small.shape[2:])
    start = (channels - x.shape[1]) // 2 if kind == "zero_pad_both" else 0
    out[:, start : start + x.shape[1]] = small
    return out


def resnet(layers: Functional, x: torch.Tensor, *, shortcut: str) -> torch.Tensor:
    x = layers.activate("bn1", layers.conv("conv1", x))
    for stage in numbered(layers, "layer{}", 1):
        for block in numbered(layers, stage + ".{}", 0):
            step = 2 if stage != "layer1" and block.endswith(".0") else 1
            strided = "conv2" if layers.has(f"{block}.conv3") else "conv1"
            y = x
            convolutions = numbered(layers, block + ".conv{}", 1)
            for name in convolutions:
                y = layers.conv(name, y, step if name.endswith(strided) else 1)
                y = layers.norm(name.replace("conv", "bn"), y)
                if name != convolutions[-1]:
                    y = y.clamp(min=0)
            if layers.has(f"{block}.downsample.0"):
                x = layers.conv(f"{block}.downsample.0", x, step)
                if layers.has(f"{block}.downsample.1"):
                    x = layers.norm(f"{block}.downsample.1", x)
            elif x.shape != y.shape:
                x = padded(x, y.shape[1], step, shortcut)
            x = (x + y).clamp(min=0)
    return layers.head("fc", x)


SMALL_RESNET = {"stage_sizes": (2, 2, 2)}
SMALL_PREACT = {"stage_sizes": (2, 1, 1), "widths": (8, 12, 16), "stem_width": 8}
SMALL_DENSENET = {"block_sizes": (3, 2, 2), "growth_rate": 6, "stem_width": 10}
SHORTCUTS = ["zero_pad_end", "zero_pad_both", "projection", "projection_biased", "avg_pool_pad"]
CASES = {
    "densenet": (torchref.DenseNet, SMALL_DENSENET | {"compression": 0.7}, densenet),
    "densenet plain": (
        torchref.DenseNet,
        SMALL_DENSENET | {"bottleneck": False, "compression": 1.0},
        densenet,
    ),
    "densenet uneven blocks": (
        partial(torchref.create, "densenet_bc_40_12"),
        {"block_sizes": (1, 2, 1)},
        densenet,
    ),
    **{
        f"wrn {block} {projection} x{factor}": (
            torchref.WideResNet,
            {
                "depth": depth,
                "widen_factor": factor,
                "block": block,
                "projection_input": projection,
                "stride_on": strided,
            },
            partial(preactivated, reads=projection, strided=strided),
        )
        for block, depth, strided in (("basic", 16, "conv1"), ("bottleneck", 22, "conv2"))
        for projection in ("activated", "raw")
        for factor in (1, 2)
    },
    "densenet new first, transitions without ReLU": (
        torchref.DenseNet,
        SMALL_DENSENET | {"concat": "new_old", "transition_relu": False},
        partial(densenet, newest_first=True, bare=True),
    ),
    "meliketoy": (
        partial(torchref.create, "meliketoy_wrn_16_8"),
        {"depth": 10, "widen_factor": 2, "dropout": 0.0},
        partial(preactivated, reads="raw", strided="conv2"),
    ),
    "preact thin": (
        partial(torchref.create, "preact_resnet110"),
        SMALL_RESNET,
        partial(preactivated, reads="activated_first"),
    ),
    "preact thin bottleneck": (
        partial(torchref.create, "preact_resnet164"),
        SMALL_RESNET | {"shortcut_input": "activated_first"},
        partial(preactivated, reads="activated"),
    ),
    "preact kuangliu": (
        partial(torchref.create, "preact_resnet50_cifar"),
        SMALL_PREACT,
        partial(preactivated, reads="activated", strided="conv2"),
    ),
    **{
        f"preact weiaicunzai {depth}": (
            partial(torchref.create, f"weiaicunzai_preact_resnet{depth}_cifar"),
            SMALL_PREACT | {"num_classes": 10},
            partial(preactivated, reads="raw"),
        )
        for depth in (18, 50)
    },
    "resnext": (
        partial(torchref.create, "resnet50_cifar"),
        SMALL_PREACT | {"groups": 2, "bottleneck_width": 0.5},
        partial(resnet, shortcut="projection"),
    ),
    **{
        f"resnet14 {kind}": (
            partial(torchref.create, "resnet20"),
            SMALL_RESNET | {"shortcut": kind},
            partial(resnet, shortcut=kind),
        )
        for kind in SHORTCUTS
    },
    "resnet14 every block": (
        partial(torchref.create, "resnet20"),
        SMALL_RESNET | {"shortcut": "projection", "project": "every_block"},
        partial(resnet, shortcut="projection"),
    ),
    "kellerjordan": (
        partial(torchref.create, "kellerjordan_resnet20"),
        SMALL_RESNET | {"dropout": 0.0, "shortcut": "projection_biased"},
        partial(resnet, shortcut="projection_biased"),
    ),
    "resnet bottleneck, option A": (
        torchref.ResNet,
        {
            "block": "bottleneck",
            "stage_sizes": (2, 1, 2),
            "widths": (6, 9, 12),
            "stem": "cifar",
            "stem_width": 10,
            "shortcut": "zero_pad_both",
            "bottleneck_width": 1.5,
        },
        partial(resnet, shortcut="zero_pad_both"),
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_logits_of_an_independent_statement(
    randomize: Callable, images: Callable, case: str, training: bool
) -> None:
    make, options, forward = CASES[case]
    network = randomize(make(**options)).train(training)
    x = images(2, 32, 32)
    with torch.no_grad():
        expected = forward(Functional(network.state_dict(), training=training), x)
        logits = network(x)
    assert logits.shape == (2, 10 if make is not torchref.ResNet else 1000)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-11)
