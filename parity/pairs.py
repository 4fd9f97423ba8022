"""Cases as pairs: the PyTorch module with its weights, and Flax with the same ones.

Weights are PyTorch's and carried over by ``flaxnets.load_torch``, which is part of what is proven;
the float32 networks have the float64 weights rounded.
"""

import dataclasses
from typing import Any

import torch
from flax import nnx

import flaxnets
import torchref
from flaxnets.checkpoint_files import read_state_dict
from flaxnets.matching import match
from flaxnets.registry import Config
from parity.budget import DType
from parity.cases import Case, picture_size
from parity.checks import Pair, unfinished
from parity.record import Batches
from parity.upstream import (
    EXAMPLES,
    LOG_PROBABILITIES,
    layer_names,
    layers_are_gathered_otherwise,
    load_file,
    log_softmax,
    remove_dropout,
    upstream_module,
)
from parity.weights import random_batches, randomize

BATCHES = 2


def make_pair(case: Case, *, seed: int = 0) -> Pair:
    """Both networks of a case, with random inputs and, unless it has a file, random weights.

    Raises:
        ValueError: the file's weights, or the options, are not the network's; or its code base has
            no module here.
        OSError: the file can't be read.
    """
    if case.example:
        return _example_pair(case, seed)
    if case.weights is not None:
        return _file_pair(case, seed)
    return _twin_pair(case, seed)


def _twin_pair(case: Case, seed: int) -> Pair:
    module = torchref.create(case.arch, **case.overrides)
    config = flaxnets.get_config(case.arch, **case.overrides)
    batches = _batches(case, config, seed)
    randomize(module, batches, seed=seed, damping=branch_damping(module))

    def make_flax(dtype: DType) -> nnx.Module:
        return flaxnets.load_torch(
            module.state_dict(), case.arch, dtype=dtype, param_dtype=dtype, **case.overrides
        )

    return Pair(
        name=case.name,
        torch=module,
        make_flax=make_flax,
        batches=batches,
        published=None if case.overrides else flaxnets.published_parameters(case.arch),
        to_torch=flaxnets.to_torch,
    )


# In networks of more residual blocks the branches are made smaller.
UNDAMPED_BLOCKS = 12


def branch_damping(module: torch.nn.Module) -> dict[str, float]:
    """Factors of what scales the residual branches of a deep network; none for others.

    A random network adds to every rounding error in each block. Over hundreds of blocks that
    multiplies it a hundred-million-fold: two correct float64 programs are then 1e-8 apart (PyTorch
    itself, adding in another order, too), and float32 compares luck with luck. Where branches grow
    smaller as blocks grow more, it stays within a thousandfold.
    """
    scales = []
    for name, block in module.named_modules():
        layers = dict(block.named_children())
        ends = [(f"conv{n}", f"bn{n}") for n in (2, 3) if {f"conv{n}", f"bn{n}"} <= layers.keys()]
        if ends:
            last = max(ends[-1], key=list(layers).index)  # the norm, or after it the convolution
            scales.append(f"{name}.{last}.weight")
    factor = min(1.0, UNDAMPED_BLOCKS / max(1, len(scales)))
    return dict.fromkeys(scales, factor) if factor < 1 else {}


def _example_pair(case: Case, seed: int) -> Pair:
    """A tiny network of a code base, beside Flax with its weights."""
    example = EXAMPLES[case.example]
    module = upstream_module(example.dialect, example.config)
    batches = _batches(case, example.config, seed)
    randomize(module, batches, seed=seed)
    options = {"dialect": example.dialect, **example.options}
    return _beside_upstream(case.name, module, example.config, batches, None, options)


def _file_pair(case: Case, seed: int) -> Pair:
    """The network of a checkpoint file in Flax, and in the code base that the file is from."""
    assert case.weights is not None
    arrays = read_state_dict(case.weights)
    shapes = {key: array.shape for key, array in arrays.items()}
    options = {"dialect": case.dialect, **case.overrides}
    arch = case.arch or None
    found = match(shapes, arch=arch, dialect=case.dialect, options=dict(case.overrides))
    module = upstream_module(found.dialect.name, found.config)
    load_file(module, arrays)
    if not case.height:
        height, width = picture_size(found.config)
        case = dataclasses.replace(case, height=height, width=width)
    options["dialect"] = found.dialect.name
    batches = _batches(case, found.config, seed)
    return _beside_upstream(case.name, module.double(), found.config, batches, arch, options)


def _beside_upstream(
    name: str,
    module: torch.nn.Module,
    config: Config,
    batches: Batches,
    arch: str | None,
    options: dict[str, Any],
) -> Pair:
    remove_dropout(module)
    if hasattr(config, "dropout"):
        options = options | {"dropout": 0.0}

    def make_flax(dtype: DType) -> nnx.Module:
        state = module.state_dict()
        return flaxnets.load_torch(state, arch, dtype=dtype, param_dtype=dtype, **options)

    dialect = options["dialect"]
    return Pair(
        name=name,
        torch=module,
        make_flax=make_flax,
        batches=batches,
        rename=layer_names(config, dialect),
        finish=log_softmax if dialect in LOG_PROBABILITIES else unfinished,
        to_torch=lambda model: flaxnets.to_torch(model, dialect),
        leaves_only=layers_are_gathered_otherwise(config, dialect),
    )


def _batches(case: Case, config: Config, seed: int) -> Batches:
    return random_batches(
        count=BATCHES,
        size=case.batch,
        height=case.height,
        width=case.width,
        classes=config.num_classes,
        seed=seed,
    )
