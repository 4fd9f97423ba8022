"""Every variable of a network: its path in Flax, its key and its shape in PyTorch."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets import registry
from flaxnets.layers import shapes_only

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


class Skeleton(NamedTuple):
    """A network with shapes in place of arrays.

    Attributes:
        entries: its variables in PyTorch's key order.
        graphdef: its structure.
        variables: by path; each holds a ``jax.ShapeDtypeStruct``.
        random: whether it has random state too, which dropout has.
    """

    entries: tuple[Entry, ...]
    graphdef: nnx.GraphDef[Any]
    variables: dict[Any, Any]
    random: bool


def skeleton(config: registry.Config, dtype: Any, param_dtype: Any) -> Skeleton:
    """The structure of a network; nothing is allocated."""
    return _skeleton(config, dtype, param_dtype, jax.dtypes.canonicalize_dtype("float64"))


@functools.lru_cache(maxsize=64)
def _skeleton(config: registry.Config, dtype: Any, param_dtype: Any, float64: Any) -> Skeleton:
    """What ``float64`` becomes depends on JAX's setting, and so do the shapes: part of the key."""
    entries: list[Entry] = []

    def walk(module: nnx.Module, prefix: Path) -> None:
        for name, child in vars(module).items():  # in the order of definition
            path = (*prefix, name)
            if isinstance(child, VARIABLES):
                order = TO_TORCH_AXES.get(child.ndim, range(child.ndim))
                shape = tuple(child.shape[axis] for axis in order)
                entries.append(Entry(path, torch_name(path), shape))
            elif isinstance(child, nnx.Module) and not isinstance(child, nnx.Dropout):
                walk(child, path)

    with shapes_only():
        model = registry.build(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)
    walk(model, ())
    graphdef, *states = nnx.split(model, VARIABLES, nnx.RngState)
    variables, random_state = states
    flat = nnx.to_flat_state(variables)
    random = bool(nnx.to_flat_state(random_state).paths)
    by_path = dict(zip(flat.paths, flat.leaves, strict=True))
    return Skeleton(tuple(entries), graphdef, by_path, random)


def layout(config: registry.Config) -> tuple[Entry, ...]:
    """Every variable of the network in PyTorch's key order; nothing is allocated."""
    return skeleton(config, jnp.float32, jnp.float32).entries
