"""The convolutions of a network one by one, in each of a training step's three passes.

What a step's time is made of, and which of its layers are behind: the passes are called by
themselves, on the whole batch and all cores, as ``flaxnets.layers`` calls them in training. Where a
network fuses layers (a DenseNet's runs compute their 1x1 convolutions otherwise) the step's own
forms are not what is measured.
"""

import dataclasses
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.task import Task

PASSES = FORWARD, OF_INPUT, OF_KERNEL = "forward", "input's gradient", "kernel's gradient"
ALL = "all layers"
PASS_SECONDS = 0.03  # a pass is called for about so long in a run

Pass = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution without its kernel's values.

    Attributes:
        height: of the input, in pixels.
        width: likewise.
        channels: of the input.
        features: of the output.
        size: of the square kernel, in pixels.
        stride: in both directions.
        padding: zeros on every side.
        groups: channels and features are split into so many.
        of_pictures: whether the input is the pictures, which need no gradient.
        calls: how many such convolutions the network has.
    """

    height: int
    width: int
    channels: int
    features: int
    size: int
    stride: int
    padding: int
    groups: int
    of_pictures: bool
    calls: int = 1

    @property
    def name(self) -> str:
        """Number, kernel, channels to features, input, and what is unusual."""
        text = (
            f"{self.calls} of {self.size}x{self.size}, {self.channels} to {self.features}, "
            f"{self.height}x{self.width}"
        )
        text += f", stride {self.stride}" * (self.stride > 1)
        return text + f", {self.groups} groups" * (self.groups > 1)

    @property
    def passes(self) -> tuple[str, ...]:
        """What a training step computes."""
        return (FORWARD, OF_KERNEL) if self.of_pictures else PASSES

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a picture."""
        return self.height, self.width, self.channels

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(H', W', O) of a picture."""
        places = [
            (length + 2 * self.padding - self.size) // self.stride + 1
            for length in (self.height, self.width)
        ]
        return places[0], places[1], self.features

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(k, k, C / groups, O)."""
        return self.size, self.size, self.channels // self.groups, self.features

    @property
    def multiply_adds(self) -> int:
        """Of one picture in any of the passes."""
        return math.prod(self.output_shape) * math.prod(self.kernel_shape[:3])


def list_convolutions(arch: str, input_shape: tuple[int, int, int, int]) -> list[Convolution]:
    """The different convolutions of a network, in the order in which it first calls them.

    Args:
        arch: the network's name.
        input_shape: (N, H, W, 3).
    """
    from flax import nnx

    import flaxnets
    from flaxnets.intercept import trace_calls
    from flaxnets.layers import Conv, shapes_only

    with shapes_only():
        model = flaxnets.create(arch, rngs=nnx.Rngs(0))
    found: Counter[Convolution] = Counter()

    def record(path: Any, module: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, Conv):
            _, height, width, channels = args[0].shape
            size, _, _, features = module.kernel.shape
            found[
                Convolution(
                    height=height,
                    width=width,
                    channels=channels,
                    features=features,
                    size=size,
                    stride=module.stride,
                    padding=module.padding,
                    groups=module.groups,
                    of_pictures=not found,
                )
            ] += 1
        return call(*args, **kwargs)

    trace_calls(model, input_shape, record)
    return [dataclasses.replace(each, calls=calls) for each, calls in found.items()]


class Convolutions:
    """One side's passes: subclasses make them, wait for them and fetch what they compute.

    Attributes:
        parts: seconds of each pass in the last :meth:`advance`, by :func:`part`'s names.
    """

    def __init__(self, task: Task) -> None:
        self._layers, self._batch = layers_of(task), task.batch
        largest = max(max(map(math.prod, _shapes(each, task.batch))) for each in self._layers)
        self._numbers = np.random.default_rng(0).standard_normal(largest, np.float32)
        self._calls: dict[str, int] = {}
        self.parts: dict[str, float] = {}

    def advance(self, steps: int) -> list[dict[str, float]]:
        """Take turns with all passes so many times; the sizes of what they compute, each time."""
        taken: dict[str, float] = defaultdict(float)
        sizes = []
        for _ in range(steps):
            size = {}
            for layer in self._layers:
                arrays = [self._draw(shape) for shape in _shapes(layer, self._batch)]
                for name, call in self._passes(layer, *arrays).items():
                    output = self._fetch(call())
                    size[part(layer, name)] = float(np.abs(output).mean(dtype=np.float64))
                    taken[part(layer, name)] += self._time(part(layer, name), call)
            sizes.append(size)
        self.parts = {name: seconds / steps for name, seconds in taken.items()}
        return sizes

    def _draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._numbers[: math.prod(shape)].reshape(shape)

    def _time(self, name: str, call: Pass) -> float:
        """Seconds of one call, of some that are made one after the other.

        Each is waited for: XLA's CPU devices can lock each other out where several programs that
        exchange sums are under way.
        """
        calls = self._calls.get(name, 1)
        begun = time.perf_counter()
        for _ in range(calls):
            self._wait(call())
        seconds = (time.perf_counter() - begun) / calls
        self._calls.setdefault(name, max(2, round(PASS_SECONDS / seconds)))
        return seconds

    def _passes(
        self, layer: Convolution, images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray
    ) -> dict[str, Pass]:
        """What starts each of the layer's passes.

        Args:
            layer: the convolution.
            images: its input (N, H, W, C).
            kernel: (k, k, C / groups, O).
            gradient: at its output, (N, H', W', O).
        """
        raise NotImplementedError

    def _wait(self, result: Any) -> None:
        """Until it is there."""
        raise NotImplementedError

    def _fetch(self, result: Any) -> np.ndarray:
        """As float32."""
        raise NotImplementedError


def layers_of(task: Task) -> list[Convolution]:
    """The convolutions that a task names."""
    return [Convolution(**each) for each in task.convolutions]


def part(layer: Convolution, name: str) -> str:
    """The name of a layer's pass in a record."""
    return f"{layer.name}: {name}"


def totals(layers: list[Convolution], parts: Mapping[str, float]) -> dict[str, float]:
    """Sums over a whole step, each layer as often as it is called: of each pass, and of all.

    Args:
        layers: a network's.
        parts: a number for each pass of each of them.
    """
    sums = {
        name: sum(
            layer.calls * parts[part(layer, name)] for layer in layers if name in layer.passes
        )
        for name in PASSES
    }
    return {f"{ALL}: {name}": value for name, value in sums.items()} | {ALL: sum(sums.values())}


def count_parts(layers: list[Convolution]) -> dict[str, int]:
    """Multiply-adds of a picture in each pass of each layer, and in the sums over them."""
    parts = {part(layer, name): layer.multiply_adds for layer in layers for name in layer.passes}
    return parts | {name: round(value) for name, value in totals(layers, parts).items()}


def _shapes(layer: Convolution, batch: int) -> list[tuple[int, ...]]:
    return [(batch, *layer.input_shape), layer.kernel_shape, (batch, *layer.output_shape)]
