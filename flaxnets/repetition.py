"""Blocks of one shape, one after the other: compiled once, however many there are.

A compiler's time grows with the number of layers that it sees. Under ``jax.jit`` a long row of
blocks that differ only in the values of their variables is therefore one loop over those values.
Parameters stay variables of their own, with their own names; the loop stacks them inside the
program. ``nnx.capture`` sees nothing of what is inside a loop.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from flaxnets.intercept import is_watched

# From so many on a loop is used. It keeps what the gradient needs in stacked arrays, and copies
# them: shorter rows are faster written out. A CPU compiles slowly and does not mind the copies,
# unless the parameters, which are stacked at each call, are large beside what it computes.
FEWEST = 64
FEWEST_ON_CPU = 5
FEWEST_LARGE_ON_CPU = 16
LARGE_BYTES = 2**20  # of a block's parameters

REST = nnx.Not(nnx.Param)


def run_in_turn(blocks: Iterable[Any], x: jax.Array) -> jax.Array:
    """Apply every block to the output of the one before; the first to ``x``.

    Written out where ``x`` is no tracer, and where someone watches the blocks' own layers
    (``flaxnets.intercept``).
    """
    blocks = list(blocks)
    if len(blocks) < FEWEST_ON_CPU or is_watched() or not isinstance(x, jax.core.Tracer):
        for block in blocks:
            x = block(x)
        return x
    for row in _rows(blocks):
        if len(row) < _fewest(row[0]):
            for each in row:
                x = each.block(x)
        else:
            x = _loop(row, x)
    return x


class _Split(NamedTuple):
    block: Any
    graphdef: nnx.GraphDef
    parameters: nnx.State
    rest: nnx.State


def _rows(blocks: Iterable[nnx.Module]) -> Iterator[list[_Split]]:
    """Neighbours that differ only in their variables' values."""

    def kind(each: _Split) -> tuple[Any, ...]:
        leaves = jax.tree.leaves((each.parameters, each.rest))
        return each.graphdef, [(leaf.shape, leaf.dtype) for leaf in leaves]

    splits = [_Split(block, *nnx.split(block, nnx.Param, ...)) for block in blocks]
    for _, row in itertools.groupby(splits, kind):
        yield list(row)


def _fewest(block: _Split) -> int:
    if jax.default_backend() != "cpu":
        return FEWEST
    parameter_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(block.parameters))
    return FEWEST_ON_CPU if parameter_bytes <= LARGE_BYTES else FEWEST_LARGE_ON_CPU


def _loop(row: list[_Split], x: jax.Array) -> jax.Array:
    graphdef = row[0].graphdef
    changed: list[int] = []  # leaves of the state that a block changes

    def run(x: jax.Array, state: tuple[nnx.State, nnx.State]) -> tuple[jax.Array, list[jax.Array]]:
        block: Any = nnx.merge(graphdef, *state, copy=True)
        y = block(x)
        before, after = jax.tree.leaves(state[1]), jax.tree.leaves(nnx.state(block, REST))
        changed[:] = [number for number, leaf in enumerate(after) if leaf is not before[number]]
        return y, [after[number] for number in changed]

    states = [(each.parameters, each.rest) for each in row]
    x, values = lax.scan(run, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    for index, each in enumerate(row if changed else ()):
        leaves, structure = jax.tree.flatten(each.rest)
        for number, value in zip(changed, values, strict=True):
            leaves[number] = value[index]
        nnx.update(each.block, jax.tree.unflatten(structure, leaves))
    return x
