from collections.abc import Callable

import pytest
import torch
from torch import nn

Record = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def randomize() -> Callable[[nn.Module], nn.Module]:
    """Make a network float64 and draw every batch-norm tensor, so that none is without effect."""

    def fill(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        network = network.double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0.0, 0.3, generator=generator)
                nn.init.normal_(module.running_mean, 0.0, 0.3, generator=generator)
                nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
        return network

    return fill


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    """Draw random float64 images of shape (count, 3, height, width)."""

    def draw(count: int, height: int, width: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture
def record() -> Callable[[nn.Module, torch.Tensor], Record]:
    """Run a network and return every submodule's (input, output) by name."""

    def run(network: nn.Module, x: torch.Tensor) -> Record:
        seen: Record = {}
        for name, module in network.named_modules():

            def hook(_: nn.Module, inputs: tuple, output: torch.Tensor, name: str = name) -> None:
                seen[name] = (inputs[0], output)

            module.register_forward_hook(hook)
        network(x)
        return seen

    return run
