"""A batch taken through a function in chunks of pictures that stay in a core's cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def sum_over_chunks(
    function: Callable[..., jax.Array], arrays: tuple[jax.Array, ...], most: int
) -> jax.Array:
    """Sum of ``function(*arrays)`` over chunks of at most ``most`` pictures, and of one at least.

    Where the pictures lie spread over several devices, each sums its own.
    """
    parts, number = _split(arrays, most)
    function = jax.vmap(function)

    def add(index: jax.Array, totals: jax.Array) -> jax.Array:
        return totals + function(*_chunk(parts, number, index))

    if number == 1:
        return function(*parts).sum(axis=0)
    result = jax.eval_shape(function, *_chunk(parts, number, 0))
    return lax.fori_loop(0, number, add, jnp.zeros(result.shape, result.dtype)).sum(axis=0)


def map_over_chunks(
    function: Callable[[jax.Array], jax.Array], images: jax.Array, most: int
) -> jax.Array:
    """``function(images)``, computed for chunks of at most ``most`` pictures, one at least."""
    (part,), number = _split((images,), most)
    function = jax.vmap(function)

    def compute(index: jax.Array, results: jax.Array) -> jax.Array:
        return _with_chunk(results, function(*_chunk([part], number, index)), index)

    if number == 1:
        results = function(part)
    else:
        chunk = jax.eval_shape(function, *_chunk([part], number, 0))
        results = jnp.zeros((*part.shape[:2], *chunk.shape[2:]), chunk.dtype)
        results = lax.fori_loop(0, number, compute, results)
    return results.reshape(-1, *results.shape[2:])


def update_over_chunks(
    function: Callable[..., tuple[jax.Array, Any]],
    target: jax.Array,
    arrays: tuple[jax.Array, ...],
    most: int,
) -> tuple[jax.Array, Any]:
    """``function(target, *arrays)``, chunk by chunk: a new ``target``, and what is to be summed.

    The new target takes the old one's place, without another array of its size.
    """
    parts, number = _split((target, *arrays), most)
    function = jax.vmap(function)

    def update(index: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        target, totals = carry
        chunk, terms = function(*_chunk([target, *parts[1:]], number, index))
        return _with_chunk(target, chunk, index), jax.tree.map(jnp.add, totals, terms)

    if number == 1:
        result, totals = terms = function(*parts)
    else:
        terms = jax.eval_shape(function, *_chunk(parts, number, 0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _sum_dtype(x.dtype)), terms[1])
        result, totals = lax.fori_loop(0, number, update, (parts[0], zeros))
    result = result.reshape(target.shape)
    sums = jax.tree.map(lambda x, term: x.sum(axis=0).astype(term.dtype), totals, terms[1])
    return result, sums


def _sum_dtype(dtype: Any) -> Any:
    """Half precision is summed in float32: a sum of its own would soon stop growing."""
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    return jnp.promote_types(jnp.float32, dtype) if inexact else dtype


def count_chunks(pictures: int, most: int) -> int:
    """How many chunks of at most ``most`` pictures each device takes, one after the other.

    They are of one size. A number of pictures without divisors makes them small, and slow.
    """
    share = max(1, pictures // count_shares(pictures))
    return min(share // n for n in range(1, share + 1) if share % n == 0 and n <= max(1, most))


def count_shares(pictures: int) -> int:
    """One for each device, if the pictures can be split evenly over them."""
    devices = jax.device_count()
    return devices if pictures % devices == 0 else 1


def _split(arrays: tuple[jax.Array, ...], most: int) -> tuple[list[jax.Array], int]:
    """(N, ...) to (shares, pictures, ...), and the number of chunks in a share.

    Without an axis for the chunks: of one picture each, its layout would not be clear, and XLA
    copies what it takes for another layout.
    """
    pictures = arrays[0].shape[0]
    parts = [x.reshape(count_shares(pictures), -1, *x.shape[1:]) for x in arrays]
    return parts, count_chunks(pictures, most)


def _chunk(parts: list[jax.Array], number: int, index: jax.Array | int) -> list[jax.Array]:
    size = parts[0].shape[1] // number
    return [lax.dynamic_slice_in_dim(x, index * size, size, axis=1) for x in parts]


def _with_chunk(x: jax.Array, chunk: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, chunk, index * chunk.shape[1], axis=1)
