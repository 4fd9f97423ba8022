"""The layers of a network with their shapes, parameters and multiply-adds, without running it."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from flax import nnx

from flaxnets import registry
from flaxnets.intercept import Path, trace_calls
from flaxnets.layers import Conv, shapes_only
from flaxnets.text_table import aligned


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of one layer.

    Attributes:
        path: dotted, torchvision's name of the layer; "" is the model itself.
        kind: its class, with kernel, stride and groups of a convolution.
        output_shape: NHWC; of the first array, if the layer returns several.
        parameters: trainable ones; 0 where an earlier row has counted them.
        buffers: running statistics and counters, likewise.
        multiply_adds: of a convolution or linear layer; 0 of all others.
        activation_bytes: of the output.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    buffers: int
    multiply_adds: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order in which they run, and totals; ``print`` it.

    Attributes:
        name: of the network, or of the model's class.
        input_shape: (N, H, W, C).
        rows: one for each call of a layer. ReLU, additions and pooling are functions here, not
            layers.
        parameters: trainable ones of the whole model.
        buffers: its running statistics and counters, PyTorch's ``buffers()``.
        parameter_bytes: of parameters and buffers.
    """

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[LayerSummary, ...]
    parameters: int
    buffers: int
    parameter_bytes: int

    @property
    def multiply_adds(self) -> int:
        """Of the convolutions and linear layers, as torchvision counts its "GFLOPS"."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Of the outputs of all rows in one forward pass, as torchsummary counts them.

        Its "forward/backward" is twice that: a gradient for every output.
        """
        return sum(row.activation_bytes for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Rows and totals in a form that ``json.dumps`` takes."""
        totals = {"multiply_adds": self.multiply_adds, "activation_bytes": self.activation_bytes}
        return dataclasses.asdict(self) | totals

    def __str__(self) -> str:
        """A table of the rows and the totals."""
        return "\n".join(_lines(self))


def summary(
    model_or_name: nnx.Module | str,
    input_shape: Sequence[int] = (1, 32, 32, 3),
    **overrides: object,
) -> Summary:
    """The layers of a network for pictures of a shape, without computing or allocating anything.

    Args:
        model_or_name: one of ``list_models()``, a family alias, or any module that is called with
            one float32 array; it may be abstract, from ``nnx.eval_shape``. It is traced in
            evaluation mode and left as it is.
        input_shape: (N, H, W, 3).
        overrides: of a named network's config, such as ``num_classes=100``.

    Raises:
        ValueError: unknown name or option, or pictures that the network can't take.
    """
    shape = tuple(input_shape)
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"input_shape must be positive whole numbers, got {input_shape!r}")
    if isinstance(model_or_name, str):
        name = registry.canonical_name(model_or_name)
        config = registry.get_config(name, **overrides)
        with shapes_only():
            model: Any = registry.build(config, rngs=nnx.Rngs(0))
    elif overrides:
        raise ValueError(
            f"options ({', '.join(overrides)}) belong to a network's name; a model has its own"
        )
    else:
        model, name = model_or_name, type(model_or_name).__name__
    rows: list[LayerSummary] = []
    trace_calls(model, shape, _recorder(model, rows))
    parameters, buffers = (_arrays(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    return Summary(
        name=name,
        input_shape=shape,
        rows=tuple(rows),
        parameters=_elements(parameters),
        buffers=_elements(buffers),
        parameter_bytes=_bytes(parameters + buffers),
    )


def _recorder(model: nnx.Module, rows: list[LayerSummary]) -> Callable[..., Any]:
    """A handler of ``trace_calls`` that adds a row for every call of a layer.

    A layer is a module that has variables of its own, or no modules in it.
    """
    parents = {path[:end] for path, _ in nnx.iter_modules(model) for end in range(len(path))}
    counted: set[int] = set()

    def record(
        path: Path, module: nnx.Module, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        output = call(*args, **kwargs)
        own = [v for v in vars(module).values() if isinstance(v, nnx.Variable)]
        if path in parents and not own:
            return output
        arrays = _arrays(output)
        if id(module) in counted:
            own = []  # called before
        counted.add(id(module))
        rows.append(
            LayerSummary(
                path=".".join(map(str, path)),
                kind=_kind(module),
                output_shape=arrays[0].shape if arrays else (),
                parameters=_elements([v for v in own if isinstance(v, nnx.Param)]),
                buffers=_elements([v for v in own if isinstance(v, nnx.BatchStat)]),
                multiply_adds=_multiply_adds(module, arrays),
                activation_bytes=_bytes(arrays),
            )
        )
        return output

    return record


def _kind(module: nnx.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, Conv):
        height, width = module.kernel.shape[:2]
        kind += f" {height}x{width}"
        if module.stride > 1:
            kind += f", stride {module.stride}"
        if module.groups > 1:
            kind += f", {module.groups} groups"
    elif isinstance(module, nnx.Dropout):
        kind += f" {module.rate:g}"
    return kind


def _multiply_adds(module: nnx.Module, outputs: list[Any]) -> int:
    """Each element of the output takes one for every element of the kernel that leads to it."""
    if not isinstance(module, Conv | nnx.Conv | nnx.Linear):
        return 0
    return sum(math.prod(output.shape) for output in outputs) * math.prod(module.kernel.shape[:-1])


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]


def _elements(arrays: Sequence[Any]) -> int:
    return sum(math.prod(array.shape) for array in arrays)


def _bytes(arrays: Sequence[Any]) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def _lines(summary: Summary) -> Iterator[str]:
    """The lines of ``str(summary)``."""
    yield f"{summary.name} for an input of {_dimensions(summary.input_shape)}"
    yield ""
    yield from aligned(
        ("layer", "kind", "output", "parameters", "multiply-adds"),
        [
            (
                row.path or "(the model)",
                row.kind,
                _dimensions(row.output_shape),
                f"{row.parameters:,}" if row.parameters else "-",
                f"{row.multiply_adds:,}" if row.multiply_adds else "-",
            )
            for row in summary.rows
        ],
        numeric=(3, 4),
    )
    parameters = [f"{summary.parameters:,} trainable"]
    if missing := summary.parameters - sum(row.parameters for row in summary.rows):
        parameters.append(f"{missing:,} of them in modules that are not called")
    parameters.append(f"{summary.buffers:,} in buffers")
    forward = summary.activation_bytes
    yield ""
    yield f"parameters     {'; '.join(parameters)}; {_mebibytes(summary.parameter_bytes)}"
    yield (
        f"multiply-adds  {summary.multiply_adds / 1e9:.3f} G in convolutions and linear layers "
        "(what torchvision calls GFLOPS)"
    )
    yield (
        f"activations    {_mebibytes(forward)} of outputs above, forward; "
        f"{_mebibytes(2 * forward)} with their gradients"
    )


def _dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB"
