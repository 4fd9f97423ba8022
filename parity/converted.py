"""Proves a converted checkpoint: ``python -m parity.converted IN OUT``.

Three networks read the same pictures in float64: Flax with the weights of IN, Flax with those of
OUT, and the PyTorch twin with those of OUT. All three must compute the same.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

import flaxnets
import torchref
from flaxnets.convert import option
from flaxnets.matching import named_networks
from parity.budget import FLOAT64_FORWARD, relative_error
from parity.cases import picture_size
from parity.execution import full_precision
from parity.weights import random_batches


def main(arguments: list[str] | None = None) -> int:
    """Compare the outputs; 0 where they are equal, 1 where not, 2 where they can't be compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--arch")
    parser.add_argument("--dialect")
    parser.add_argument("--to-dialect")
    parser.add_argument("--set", dest="options", action="append", default=[], type=option)
    options = parser.parse_args(arguments)
    fields = dict(options.options)
    try:
        errors = compare(
            options.source,
            options.target,
            options.arch,
            options.dialect,
            options.to_dialect,
            fields,
        )
    except (ValueError, RuntimeError, OSError, ImportError) as problem:
        print(f"the outputs could not be compared: {problem}", file=sys.stderr)
        return 2
    for name, error in errors.items():
        print(f"{name}: relative error {error:.1e} (budget {FLOAT64_FORWARD:.0e})")
    equal = all(error <= FLOAT64_FORWARD for error in errors.values())
    print("the outputs are equal" if equal else "THE OUTPUTS DIFFER")
    return 0 if equal else 1


def compare(
    source: Path,
    target: Path,
    arch: str | None,
    dialect: str | None,
    to_dialect: str | None,
    fields: dict[str, Any],
) -> dict[str, float]:
    """The worst relative error of the logits of each network against Flax with IN's weights."""
    with full_precision("float64"):
        first = _load(source, arch, dialect, fields)
        config = first.config
        every_field = dataclasses.asdict(config)
        again = _load(target, _relative(config), to_dialect, every_field)
        named = named_networks(config)
        twin = (
            torchref.create(named[0])
            if named
            else torchref.create(_relative(config), **every_field)
        )
        twin.double().eval()
        arrays = flaxnets.to_torch(again)
        twin.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
        height, width = picture_size(config)
        pictures = random_batches(count=1, size=2, height=height, width=width, classes=2).images[0]
        first.eval()
        again.eval()
        expected = np.asarray(first(jnp.asarray(pictures)))
        with torch.no_grad():
            reference = twin(torch.from_numpy(np.moveaxis(pictures, -1, 1).copy())).numpy()
        result = np.asarray(again(jnp.asarray(pictures)))
        return {
            "Flax with OUT against PyTorch with OUT": relative_error(result, reference).worst,
            "Flax with OUT against Flax with IN": relative_error(result, expected).worst,
        }


def _load(path: Path, arch: str | None, dialect: str | None, fields: dict[str, Any]) -> Any:
    return flaxnets.load_torch(
        path, arch, dialect=dialect, dtype="float64", param_dtype="float64", **fields
    )


def _relative(config: flaxnets.registry.Config) -> str:
    """A named network of the config's family, to start from."""
    return next(
        name
        for name in flaxnets.list_models()
        if isinstance(flaxnets.get_config(name), type(config))
    )


if __name__ == "__main__":
    sys.exit(main())
