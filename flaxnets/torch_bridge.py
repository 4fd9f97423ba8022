"""Weights between PyTorch and Flax: ``load_torch`` and ``to_torch``.

A variable's path and its PyTorch key differ only in the leaf; kernels are transposed. The map is a
bijection: every key of a state dict is used exactly once, in both directions, or the call fails and
    lists what does not fit.
"""

import functools
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from flaxnets import registry

StateDict = Mapping[str, Any]  # PyTorch key -> torch tensor or NumPy array
Path_ = tuple[str, ...]

LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
}
VARIABLES = (nnx.Param, nnx.BatchStat)
OPTIONAL_LEAF = "num_batches_tracked"  # absent from state dicts saved before PyTorch 0.4.1


class CheckpointError(ValueError):
    """A state dict that is not one of the network it was loaded into."""


class Entry(NamedTuple):
    """One variable of a network.

    Attributes:
        path: in the Flax module.
        key: in PyTorch's state dict.
        shape: in PyTorch's layout.
    """

    path: Path_
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

    def walk(module: nnx.Module, prefix: Path_) -> None:
        for name, child in vars(module).items():
            path = (*prefix, name)
            if isinstance(child, nnx.Param | nnx.BatchStat):
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


# Axes of a kernel in Flax's order, as PyTorch orders them: HWIO to OIHW and (in, out) to (out, in).
TO_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
FROM_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}


def load_torch(
    source: StateDict | str | os.PathLike[str],
    arch: str,
    *,
    rngs: nnx.Rngs | None = None,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    **overrides: object,
) -> registry.Model:
    """A named network with the weights of its PyTorch twin.

    Args:
        source: a state dict (torch tensors or NumPy arrays), or the path of a ``.pth``, ``.pt``,
            ``.th`` (needs torch; read with ``weights_only=True``, so nothing in the file is
            executed) or ``.safetensors`` file.
        arch: one of ``list_models()`` or a family alias.
        rngs: the ``dropout`` stream, for networks with dropout; by default ``nnx.Rngs(0)``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
        overrides: fields of the network's config, such as ``num_classes``.

    Returns:
        The model, in training mode like every new one.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape (all are listed), or the
            file holds no state dict.
        FileNotFoundError: there is no such file.
        ValueError: unknown network or option.
    """
    config = registry.get_config(arch, **overrides)
    state_dict = source if isinstance(source, Mapping) else read_state_dict(source)
    entries = layout(config)
    _check(entries, state_dict, arch)

    def build(key: jax.Array) -> registry.Model:
        return registry.build(config, rngs=nnx.Rngs(key), dtype=dtype, param_dtype=param_dtype)

    key = jax.random.key(0) if rngs is None else rngs.dropout()
    graphdef, *states = nnx.split(nnx.eval_shape(build, key), VARIABLES, nnx.RngState)
    wanted, random_state = states
    if jax.tree.leaves(random_state):
        random_state = jax.jit(lambda key: nnx.state(build(key), nnx.RngState))(key)
    flat = nnx.to_flat_state(wanted)
    variables = dict(zip(flat.paths, flat.leaves, strict=True))
    for entry in entries:
        variable = variables[entry.path]
        value = state_dict.get(entry.key, 0)  # only num_batches_tracked may be absent
        variable.set_value(jnp.asarray(_from_torch(_to_numpy(value)), variable.dtype))
    return nnx.merge(graphdef, nnx.from_flat_state(variables.items()), random_state)


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """What the PyTorch twin's ``load_state_dict(strict=True)`` takes, as NumPy arrays.

    Keys come in PyTorch's order, kernels in PyTorch's layout, ``num_batches_tracked`` as int64 and
    bfloat16, which NumPy lacks, as float32.
    Turn it into tensors with ``{key: torch.from_numpy(value) for key, value in
    to_torch(model).items()}``.

    Raises:
        TypeError: the model is not one of this package's networks.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, registry.Config):
        raise TypeError(f"to_torch takes a network of flaxnets, got {type(model).__name__}")
    flat = nnx.to_flat_state(nnx.state(model, VARIABLES))
    values = dict(zip(flat.paths, flat.leaves, strict=True))
    result = {}
    for entry in layout(config):
        value = np.asarray(values[entry.path])
        value = value.transpose(TO_TORCH_AXES.get(value.ndim, range(value.ndim)))
        other = {np.dtype(np.int32): np.int64, np.dtype(jnp.bfloat16): np.float32}
        result[entry.key] = np.array(value, other.get(value.dtype, value.dtype), order="C")
    return result


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Read a ``.safetensors`` file, or a file of ``torch.save`` with ``weights_only=True``.

    Raises:
        CheckpointError: the file can't be read, or holds something else than a state dict.
        FileNotFoundError: there is no such file.
        ImportError: the package that reads it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file at {path}")
    if path.suffix == ".safetensors":
        load = _import("safetensors.numpy", "safetensors", path).load_file
    else:
        torch = _import("torch", "torch", path)
        load = functools.partial(torch.load, map_location="cpu", weights_only=True)
    try:
        content = load(path)
    except Exception as error:  # whatever the reader below raises, the person needs one message
        raise CheckpointError(
            f"{path} could not be read as a state dict ({type(error).__name__}). It may be cut "
            "short, be another kind of file, or hold a pickled module instead of tensors; in that "
            "case load it where its code is trusted and save model.state_dict()"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _import(module: str, package: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        other = (
            "; or convert it to .safetensors, which needs no torch" if package == "torch" else ""
        )
        raise ImportError(
            f"reading {path} needs {package}: pip install {package}{other}"
        ) from error


def _check(entries: tuple[Entry, ...], state_dict: StateDict, arch: str) -> None:
    """Raise one ``CheckpointError`` that lists every key that does not fit."""
    expected = {entry.key: entry.shape for entry in entries}
    missing = [
        f"{key} {shape}"
        for key, shape in expected.items()
        if key not in state_dict and not key.endswith(OPTIONAL_LEAF)
    ]
    unexpected = [key for key in state_dict if key not in expected]
    wrong = [
        f"{key} {tuple(np.shape(state_dict[key]))} instead of {shape}"
        for key, shape in expected.items()
        if key in state_dict and tuple(np.shape(state_dict[key])) != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    if any(problems.values()):
        lists = "".join(
            f"\n{len(keys)} {kind}:" + "".join(f"\n  {key}" for key in keys)
            for kind, keys in problems.items()
            if keys
        )
        raise CheckpointError(f"these are not the weights of {arch}:{lists}")


def _to_numpy(value: Any) -> np.ndarray:
    """A torch tensor or an array as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    return np.asarray(value)


def _from_torch(value: np.ndarray) -> np.ndarray:
    return value.transpose(FROM_TORCH_AXES.get(value.ndim, range(value.ndim)))
