"""Named networks as pairs: the PyTorch twin with random weights, and Flax with the same ones."""

from flax import nnx

import flaxnets
import torchref
from parity.budget import DType
from parity.cases import Case
from parity.checks import Pair
from parity.weights import random_batches, randomize

BATCHES = 2


def make_pair(case: Case, *, seed: int = 0) -> Pair:
    """Both networks of a case, with random weights and inputs.

    Weights are drawn in PyTorch and carried over by ``flaxnets.load_torch``, which is part of what
    is proven; the float32 networks have the float64 weights rounded.
    """
    module = torchref.create(case.arch, **case.overrides)
    config = flaxnets.get_config(case.arch, **case.overrides)
    batches = random_batches(
        count=BATCHES,
        size=case.batch,
        height=case.height,
        width=case.width,
        classes=config.num_classes,
        seed=seed,
    )
    randomize(module, batches, seed=seed)

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
    )
