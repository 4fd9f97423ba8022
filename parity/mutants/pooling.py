"""Mistakes in pooling, and in the ReLU."""

from functools import partial

import jax

from flaxnets import layers, pooling, resnet
from parity.mutants.changes import edited, replaced
from parity.mutants.mutant import Mutant, Place


@jax.jit
def _leaky_relu(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x)


MUTANTS = (
    Mutant(
        name="leaky ReLU",
        description="leaky ReLU in the place of ReLU",
        expected=Place("layers", "layer1.0.conv1"),
        subject="resnet, eval",
        change=lambda: replaced(layers.relu, _leaky_relu),
    ),
    Mutant(
        name="max-pooling padded with 0",
        description="the padding of max-pooling counts as 0 (a ReLU in front would hide it)",
        expected=Place("functions", "max pooling"),
        subject="functions",
        change=partial(
            edited,
            pooling._largest,
            ("_windows(x, -jnp.inf)", "_windows(x, 0)"),
        ),
    ),
    Mutant(
        name="max-pooling not padded on the left",
        description='max-pooling padded by "SAME": on the right and below only',
        expected=Place("layers", "layer1.0.conv1"),
        subject="ImageNet stem, eval",
        change=partial(
            edited,
            pooling._windows,
            ("((0, 0), (1, 1), (1, 1), (0, 0))", "((0, 0), (0, 2), (0, 2), (0, 0))"),
        ),
    ),
    Mutant(
        name="max-pooling's gradient mirrored",
        description="it goes to the pixel whose row is the largest one's column in its window",
        expected=Place("functions", "max pooling"),
        subject="functions",
        change=partial(
            edited,
            pooling._spread,
            ("3 * rows[:, None] + columns", "rows[:, None] + 3 * columns"),
        ),
    ),
    Mutant(
        name="max-pooling missing",
        description="the ImageNet stem ends without pooling",
        expected=Place("layers", "layer1.0.conv1"),
        subject="ImageNet stem, eval",
        change=partial(edited, resnet.ResNet.features, ("x = max_pool_3x3_stride_2(x)", "pass")),
    ),
    Mutant(
        name="average-pooling's divisor",
        description="the sum over 2x2 pixels is divided by 2",
        expected=Place("layers", "transition1"),
        subject="densenet, eval",
        change=partial(edited, pooling.avg_pool, ("/ size**2", "/ size")),
    ),
    Mutant(
        name="average-pooling counts padding",
        description="incomplete windows are filled up with zeros and averaged too",
        expected=Place("layers", "transition1"),
        subject="densenet, odd sizes, eval",
        change=partial(
            edited,
            pooling.avg_pool,
            (
                "height, width = height // size * size, width // size * size",
                "x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))\n"
                "    height, width = -(-height // size) * size, -(-width // size) * size",
            ),
        ),
    ),
    Mutant(
        name="sum in global pooling",
        description="the sum over all pixels, not their mean",
        expected=Place("layers", "fc"),
        subject="resnet, eval",
        change=partial(edited, pooling.global_avg_pool, ("x.mean((1, 2))", "x.sum((1, 2))")),
    ),
    Mutant(
        name="maximum in global pooling",
        description="the maximum over all pixels, not their mean",
        expected=Place("layers", "fc"),
        subject="resnet, eval",
        change=partial(edited, pooling.global_avg_pool, ("x.mean((1, 2))", "x.max((1, 2))")),
    ),
)
