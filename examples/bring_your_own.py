"""Compare a network of one's own in both frameworks, and see a mistake found and named.

    python examples/bring_your_own.py
    python examples/bring_your_own.py --mistake relu --html report.html

Exit status: 0 equal, 1 not equal. Takes some ten seconds on a CPU.
"""

import argparse
import sys
from pathlib import Path

import jax
import torch
from flax import nnx
from torch import nn

import parity
from parity.html import write_html
from parity.report import make_console, print_network, to_json
from parity.weights import random_batches, randomize

CLASSES = 5
MISTAKES = ("none", "relu", "epsilon")


class TorchBlock(nn.Module):
    """Two convolutions with batch norm, and the input added to them; (N, 8, H, W) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A feature map to a feature map."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


class TorchNet(nn.Module):
    """The network in PyTorch: (N, 3, H, W) to (N, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block1 = TorchBlock()
        self.block2 = TorchBlock()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures to logits."""
        return self.head(self.block2(self.block1(self.stem(images))).mean(dim=(2, 3)))


class FlaxBlock(nnx.Module):
    """The same block in Flax, (N, H, W, 8) to the same, or with a mistake.

    Args:
        mistake: one of ``MISTAKES``: "relu" leaves out the one after the addition, "epsilon" has
            1e-3 in place of 1e-5 in the second batch norm.
        rngs: for the initial weights.
    """

    def __init__(self, mistake: str, rngs: nnx.Rngs) -> None:
        def conv() -> nnx.Conv:
            return nnx.Conv(8, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)

        epsilon = 1e-3 if mistake == "epsilon" else 1e-5
        self.conv1 = conv()
        self.bn1 = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv2 = conv()
        self.bn2 = nnx.BatchNorm(8, momentum=0.9, epsilon=epsilon, rngs=rngs)
        self.relu_at_the_end = mistake != "relu"

    def __call__(self, x: jax.Array) -> jax.Array:
        """A feature map to a feature map."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + x
        return jax.nn.relu(y) if self.relu_at_the_end else y


class FlaxNet(nnx.Module):
    """The network in Flax, (N, H, W, 3) to (N, classes); a mistake is in the second block."""

    def __init__(self, mistake: str = "none") -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 8, (3, 3), padding=1, rngs=rngs)
        self.block1 = FlaxBlock("none", rngs)
        self.block2 = FlaxBlock(mistake, rngs)
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Pictures to logits."""
        return self.head(self.block2(self.block1(self.stem(images))).mean((1, 2)))


def compare(mistake: str = "none") -> parity.NetworkReport:
    """Compare the two networks in evaluation mode."""
    batches = random_batches(count=1, size=2, height=8, width=12, classes=CLASSES)
    torch_net = TorchNet()
    # At its initial values a batch norm does nothing that could go wrong.
    randomize(torch_net, batches, seed=0)
    return parity.compare(
        torch_net,
        FlaxNet(mistake),
        batches.images,
        labels=batches.labels,
        name="my network",
        modes=["eval"],
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare a network of one's own.")
    parser.add_argument("--mistake", choices=MISTAKES, default="none", help="to be planted")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report to FILE, too")
    options = parser.parse_args(arguments)
    report = compare(options.mistake)
    print_network(make_console(), report)
    if options.html is not None:
        write_html(to_json({"mistake": options.mistake}, [report]), options.html)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
