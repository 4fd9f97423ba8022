"""Weights between PyTorch and Flax: ``load_torch``, ``to_torch`` and ``save_torch``.

Every key of a state dict is used exactly once, in both directions, or the call fails and lists what
does not fit. Names are translated by ``flaxnets.dialects``; kernels are transposed.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from flaxnets import registry
from flaxnets.checkpoint_files import StateDict, read_state_dict, write_state_dict
from flaxnets.dialects import BATCHES_TRACKED, OWN, Dialect
from flaxnets.layout import FROM_TORCH_AXES, TO_TORCH_AXES, VARIABLES, Entry, Path, layout, skeleton
from flaxnets.matching import CheckpointError, Match, find_dialects, match

CLASSIFIERS = ("fc", "classifier")


def load_torch(
    source: StateDict | str | os.PathLike[str],
    arch: str | None = None,
    *,
    dialect: str | None = None,
    head: Literal["keep", "new"] = "keep",
    rngs: nnx.Rngs | None = None,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype | None = jnp.float32,
    **options: Any,
) -> registry.Model:
    """The network that a PyTorch checkpoint is of, with its weights.

    Args:
        source: a state dict (torch tensors or NumPy arrays), or the path of a ``.pth``, ``.pt``,
            ``.th`` (needs torch; read with ``weights_only=True``, so nothing in the file is
            executed) or ``.safetensors`` file (needs no torch). Wrappings such as
            ``{"state_dict": ...}`` and prefixes such as "module." are peeled.
        arch: one of ``list_models()`` or a family alias; by default recognised from keys and
            shapes.
        dialect: the code base that the keys' names are from (``flaxnets.dialects``); by default
            recognised.
        head: "new" keeps all but the classifier, which is newly initialised for ``num_classes``.
        rngs: its ``params`` stream gives the key of a new classifier and of dropout; by default
            that of ``nnx.Rngs(0)``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters; None keeps the checkpoint's (the widest, where it has
            several). Batch statistics are float32 or wider.
        options: fields of the network's config, such as ``num_classes`` or ``dropout``. Those that
            leave no trace in a checkpoint are never guessed.

    Returns:
        The model, in training mode like every new one.

    Raises:
        CheckpointError: the file can't be read, its keys or shapes don't fit (all are listed), or
            they leave open which of several networks it is (the candidates are named).
        FileNotFoundError: there is no such file.
        ValueError: unknown network, dialect or option.
    """
    if head not in ("keep", "new"):
        raise ValueError(f"head={head!r} is not one of keep, new")
    find_dialects(dialect)
    if arch is not None:
        registry.get_config(arch, **options)
    arrays = read_state_dict(source)
    shapes = {key: array.shape for key, array in arrays.items()}
    if head == "new":
        found = _match_body(shapes, arch, dialect, options)
    else:
        found = match(shapes, arch=arch, dialect=dialect, options=options)
    values = {found.dialect.from_upstream(key) or key: array for key, array in arrays.items()}
    _warn_of_values(found.dialect, values)
    if param_dtype is None:
        floats = [
            value.dtype
            for key, value in values.items()
            if not key.endswith((BATCHES_TRACKED, "running_mean", "running_var"))
        ]
        param_dtype = functools.reduce(jnp.promote_types, floats)
    if head == "new":
        _say_new_head(values, found.config)
        values = {key: value for key, value in values.items() if not _of_classifier(key)}
    return _build(found.config, values, rngs, dtype, param_dtype)


def _match_body(
    shapes: Mapping[str, tuple[int, ...]],
    arch: str | None,
    dialect: str | None,
    options: Mapping[str, Any],
) -> Match:
    """The match of all but the classifier; its config has the classes of ``options``."""
    options = dict(options)
    wanted = options.pop("num_classes", None)
    if wanted is None and arch is None:
        raise ValueError('head="new" needs num_classes, for how many classes it is to be')
    if arch is not None:
        default = registry.get_config(arch, **options).num_classes
        wanted = default if wanted is None else wanted
        present = _classes(shapes, arch, dialect)
        options["num_classes"] = default if present is None else present
    found = match(shapes, arch=arch, dialect=dialect, options=options)
    config = dataclasses.replace(found.config, num_classes=wanted)
    return dataclasses.replace(found, config=config)


def _classes(shapes: Mapping[str, tuple[int, ...]], arch: str, dialect: str | None) -> int | None:
    """How many classes a checkpoint's classifier has; None if none is found."""
    family = type(registry.get_config(arch))
    for each in find_dialects(dialect):
        if each.family is family:
            for key, shape in shapes.items():
                if _of_classifier(each.from_upstream(key) or "") and key.endswith("weight"):
                    return shape[0]
    return None


def _of_classifier(key: str) -> bool:
    return key.partition(".")[0] in CLASSIFIERS


def _say_new_head(values: Mapping[str, np.ndarray], config: registry.Config) -> None:
    if not config.num_classes:
        return
    old = [value.shape[0] for key, value in values.items() if _of_classifier(key)]
    was = (
        f"the checkpoint's classifier of {old[0]} classes was left out" if old else "no classifier"
    )
    warnings.warn(f"{was}; a new one for {config.num_classes} classes is initialised", stacklevel=3)


def _warn_of_values(dialect: Dialect, values: Mapping[str, np.ndarray]) -> None:
    bad = [
        dialect.to_upstream(key)
        for key, value in values.items()
        if value.dtype.kind != "i" and not np.isfinite(value).all()
    ]
    if bad:
        warnings.warn(
            f"{len(bad)} tensors of the checkpoint hold NaN or infinite values, the first of them "
            f"{bad[0]}",
            stacklevel=3,
        )


def _build(
    config: registry.Config,
    values: Mapping[str, np.ndarray],
    rngs: nnx.Rngs | None,
    dtype: Dtype,
    param_dtype: Dtype,
) -> registry.Model:
    """The network with these values, by this package's key; what is not given is initialised."""

    def build(key: jax.Array) -> registry.Model:
        return registry.build(config, rngs=nnx.Rngs(key), dtype=dtype, param_dtype=param_dtype)

    empty = skeleton(config, dtype, param_dtype)
    given = {
        entry.path: _from_torch_layout(
            values.get(entry.key, np.zeros((), np.int64)), empty.variables[entry.path].dtype
        )
        for entry in empty.entries
        if entry.key in values or entry.key.endswith(BATCHES_TRACKED)
    }
    arrays = dict(zip(given, jax.device_put(list(given.values())), strict=True))
    random_state: nnx.State[Any, Any] = nnx.State({})
    if empty.random or len(arrays) < len(empty.entries):
        key = jax.random.key(0) if rngs is None else rngs.params()
        missing = [entry.path for entry in empty.entries if entry.path not in given]
        initial, random_state = _initial(build, key, missing)
        arrays |= initial
    state = {path: variable.replace(arrays[path]) for path, variable in empty.variables.items()}
    return nnx.merge(empty.graphdef, nnx.from_flat_state(state.items()), random_state)


def _initial(
    build: Callable[[jax.Array], nnx.Module], key: jax.Array, paths: list[Path]
) -> tuple[dict[Path, jax.Array], nnx.State]:
    """Initial values of some variables, and the random state; the others are never computed."""

    @jax.jit
    def initial(key: jax.Array) -> tuple[list[jax.Array], nnx.State]:
        model = build(key)
        values = _by_path(nnx.state(model, VARIABLES))
        return [values[path] for path in paths], nnx.state(model, nnx.RngState)

    arrays, random_state = initial(key)
    return dict(zip(paths, arrays, strict=True)), random_state


def to_torch(model: nnx.Module, dialect: str = OWN) -> dict[str, np.ndarray]:
    """What upstream's ``load_state_dict(strict=True)`` takes, as NumPy arrays.

    Keys come in the network's order, kernels in PyTorch's layout, ``num_batches_tracked`` as int64.
    bfloat16 parameters become float32, since NumPy and ``torch.from_numpy`` have no bfloat16;
    ``save_torch`` keeps them. Turn it into tensors with ``{key: torch.from_numpy(value) for key,
    value in to_torch(model).items()}``.

    Args:
        model: a network of this package.
        dialect: whose names the keys get; by default those of this package's PyTorch twins, which
            are torchvision's (for a DenseNet without "features.").

    Raises:
        TypeError: the model is not one of this package's networks.
        ValueError: there is no such dialect for its family, or that code computes something else.
    """
    arrays = _upstream_arrays(model, dialect)
    widened = {np.dtype(jnp.bfloat16): np.float32}
    return {
        key: array.astype(widened.get(array.dtype, array.dtype), copy=False)
        for key, array in arrays.items()
    }


def save_torch(model: nnx.Module, path: str | os.PathLike[str], dialect: str = OWN) -> None:
    """Write a network's weights for PyTorch; the file appears whole or not at all.

    Args:
        model: a network of this package.
        path: ends in ".safetensors", or in ".pth", ".pt" or ".th" (which needs torch).
        dialect: as in ``to_torch``.

    Raises:
        TypeError: the model is not one of this package's networks.
        ValueError: as in ``to_torch``, or another suffix.
        OSError: the file can't be written; where there is no such folder, a FileNotFoundError.
        ImportError: the package that writes the file is not installed.
    """
    write_state_dict(_upstream_arrays(model, dialect), path)


def momentum_to_torch(model: nnx.Module, momentum: nnx.State) -> dict[str, Any]:
    """SGD's momentum as the ``state_dict`` of a ``torch.optim.SGD`` over ``module.parameters()``.

    Args:
        model: the network that is trained.
        momentum: a buffer for every parameter, as ``nnx.state(model, nnx.Param)``: optax's
            ``trace``.

    Returns:
        ``{"state": {index: {"momentum_buffer": array}}, "param_groups": [{"params": [...]}]}`` with
        NumPy arrays, which ``torch.from_numpy`` turns into tensors. The group's rates are left to
        the optimizer that it is loaded into. Parameters have the same order in every dialect but
        szagoruyko's, whose optimizer goes by a dictionary of his own.

    Raises:
        ValueError: the buffers are not those of the network's parameters.
    """
    values = _by_path(momentum)
    entries = _parameters(model)
    if values.keys() != {entry.path for entry in entries}:
        raise ValueError(
            f"momentum has {len(values)} buffers, which are not those of the network's "
            f"{len(entries)} parameters; pass a state like nnx.state(model, nnx.Param)"
        )
    buffers = {
        index: {"momentum_buffer": _to_torch_layout(values[entry.path])}
        for index, entry in enumerate(entries)
    }
    return {"state": buffers, "param_groups": [{"params": list(range(len(entries)))}]}


def momentum_from_torch(model: nnx.Module, optimizer: Mapping[str, Any]) -> nnx.State:
    """The momentum buffers of a ``torch.optim.SGD``, in the structure of the network's parameters.

    Args:
        model: the network that is trained.
        optimizer: ``optimizer.state_dict()`` of one over all of the PyTorch module's parameters.

    Returns:
        As ``nnx.state(model, nnx.Param)``; put it into an optax state with
        ``optax.tree.set(opt_state, trace=...)``.

    Raises:
        CheckpointError: it has other parameters, or no momentum.
    """
    entries = _parameters(model)
    try:
        order = [index for group in optimizer["param_groups"] for index in group["params"]]
        buffers = [optimizer["state"][index]["momentum_buffer"] for index in order]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "this is no state_dict of a torch.optim.SGD with momentum that has made a step"
        ) from error
    arrays = read_state_dict({str(index): value for index, value in enumerate(buffers)})
    found = [array.shape for array in arrays.values()]
    expected = [entry.shape for entry in entries]
    if found != expected:
        different = sum(a != b for a, b in zip(found, expected, strict=False))
        raise CheckpointError(
            f"the optimizer has {len(found)} momentum buffers, the network {len(expected)} "
            f"parameters, and {different} are of another shape"
        )
    state = nnx.state(model, nnx.Param)
    flat = nnx.to_flat_state(state)
    variables = dict(zip(flat.paths, flat.leaves, strict=True))
    for entry, array in zip(entries, arrays.values(), strict=True):
        variable = variables[entry.path]
        value = _from_torch_layout(array, variable.dtype)
        variables[entry.path] = variable.replace(jax.device_put(value))
    return nnx.from_flat_state(variables.items())


def _upstream_arrays(model: nnx.Module, name: str) -> dict[str, np.ndarray]:
    config = _config(model)
    dialect = dialect_for(config, name)
    values = _by_path(nnx.state(model, VARIABLES))
    changed = values.keys() ^ {entry.path for entry in layout(config)}
    if changed:
        names = sorted(".".join(map(str, path)) for path in changed)
        raise ValueError(f"the network's variables are not its config's: {', '.join(names[:5])}")
    return {
        dialect.to_upstream(entry.key): _to_torch_layout(values[entry.path])
        for entry in layout(config)
        if dialect.counts_batches or not entry.key.endswith(BATCHES_TRACKED)
    }


def dialect_for(config: registry.Config, name: str) -> Dialect:
    """The dialect of that name in which a network can be written.

    Raises:
        ValueError: there is none for its family, or that code computes something else.
    """
    dialects = [each for each in find_dialects(name) if isinstance(config, each.family)]
    family = type(config).__name__.removesuffix("Config")
    if not dialects:
        others = [each.name for each in find_dialects(None) if isinstance(config, each.family)]
        raise ValueError(
            f"{name} has no {family}; its dialects are {', '.join(dict.fromkeys(others))}"
        )
    differences = [(each.contradictions(config), each) for each in dialects]
    wrong, dialect = min(differences, key=lambda pair: len(pair[0]))
    if wrong:
        settings = "; ".join(
            f"{field} is {value!r} there and {getattr(config, field)!r} here"
            for field, value in wrong.items()
        )
        raise ValueError(f"{dialect.source} computes something else than this network: {settings}")
    return dialect


def _config(model: nnx.Module) -> registry.Config:
    config = getattr(model, "config", None)
    if not isinstance(config, registry.Config):
        raise TypeError(f"this takes a network of flaxnets, got {type(model).__name__}")
    return config


def _parameters(model: nnx.Module) -> list[Entry]:
    """The entries of the trainable parameters, in PyTorch's order."""
    paths = set(nnx.to_flat_state(nnx.state(model, nnx.Param)).paths)
    return [entry for entry in layout(_config(model)) if entry.path in paths]


def _by_path(state: nnx.State) -> dict[Any, Any]:
    flat = nnx.to_flat_state(state)
    return {
        path: leaf[...] if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in zip(flat.paths, flat.leaves, strict=True)
    }


def _from_torch_layout(value: np.ndarray, dtype: Any) -> np.ndarray:
    """In Flax's order; not in memory that the caller, or a mapped file, can change.

    What is strided stays so: ``jax.device_put`` copies it three times as fast as NumPy would.
    """
    value = value.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
    value = value.transpose(FROM_TORCH_AXES.get(value.ndim, range(value.ndim)))
    return value.copy() if value.flags.c_contiguous else value


def _to_torch_layout(value: Any) -> np.ndarray:
    array = np.asarray(value)
    array = array.transpose(TO_TORCH_AXES.get(array.ndim, range(array.ndim)))
    return np.array(array, np.int64 if array.dtype == np.int32 else array.dtype, order="C")
