"""Every variable of a network: its path in Flax, its key and its shape in PyTorch."""

import functools
from typing import Any, NamedTuple

from flax import nnx

from flaxnets import registry

Path = tuple[str, ...]

VARIABLES = (nnx.Param, nnx.BatchStat)

LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
}

# Axes of a kernel in Flax's order, as PyTorch orders them: HWIO to OIHW and (in, out) to (out, in).
TO_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
FROM_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}


class Entry(NamedTuple):
    """One variable of a network.

    Attributes:
        path: in the Flax module.
        key: in the state dict of the PyTorch twin.
        shape: in PyTorch's layout.
    """

    path: Path
    key: str
    shape: tuple[int, ...]


def torch_name(path: tuple[Any, ...]) -> str:
    """PyTorch's dotted name of a variable's or a module's path.

    ``("layer1", "0", "conv1", "kernel")`` is ``"layer1.0.conv1.weight"``.
    """
    *parents, leaf = [str(name) for name in path]
    return ".".join([*parents, LEAF_NAMES.get(leaf, leaf)])


@functools.cache
def layout(config: registry.Config) -> tuple[Entry, ...]:
    """Every variable of the network in PyTorch's key order; nothing is allocated."""
    entries: list[Entry] = []

    def walk(module: nnx.Module, prefix: Path) -> None:
        for name, child in vars(module).items():
            path = (*prefix, name)
            if isinstance(child, VARIABLES):
                order = TO_TORCH_AXES.get(child.ndim, range(child.ndim))
                shape = tuple(child.shape[axis] for axis in order)
                entries.append(Entry(path, torch_name(path), shape))
            elif isinstance(child, nnx.Module) and not isinstance(child, nnx.Dropout):
                walk(child, path)

    def build() -> nnx.Module:
        model = registry.build(config, rngs=nnx.Rngs(0))
        walk(model, ())  # here, where attributes still stand in the order of definition
        return model

    nnx.eval_shape(build)
    return tuple(entries)
