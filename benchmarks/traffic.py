"""What a training step is made of on a GPU, counted on a machine that has none.

Kernels and bytes are an estimate of what XLA makes of the step that ``train`` compiles: operations
on single elements (and slices, pads, casts) are free where they can be computed on the way into or
out of another kernel, and a kernel of their own where a convolution, a matrix product or the step's
result needs their values in memory. The least that any program of these networks has to move are
the inputs and outputs of convolutions and products, and the parameters with their momentum.
"""

import contextlib
import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx

import flaxnets
from flaxnets import repetition
from train.optimizer import sgd
from train.step import make_train_step, split

# Operations that read memory and write memory, whatever stands around them.
PRODUCTS = {"conv_general_dilated": "convolution", "dot_general": "matrix product"}
KERNELS = PRODUCTS | {
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_and", "argmax"), "reduction"),
    **dict.fromkeys(
        ("reduce_window", "reduce_window_max", "select_and_scatter_add", "reduce_window_sum"),
        "pooling",
    ),
    **dict.fromkeys(("gather", "scatter", "scatter-add", "scatter_add", "sort"), "gather, scatter"),
    **dict.fromkeys(("while", "scan", "random_bits", "threefry2x32"), "other"),
}
LARGE = 4096  # bytes from which on an array is none of scales and means
# XLA gathers most of the small ones, updates of scales and statistics, into a few.
ELEMENTWISE, SMALL = "elementwise", "elementwise, small"


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a step is made of.

    Attributes:
        kernels: how many of each kind.
        moved: bytes that each kind reads and writes.
        least: bytes of convolutions, products, parameters and momentum alone.
        convolution_dtypes: how many convolutions give each dtype.
    """

    kernels: Mapping[str, int]
    moved: Mapping[str, int]
    least: int
    convolution_dtypes: Mapping[str, int]


def count(arch: str, batch: int, height: int, width: int, dtype: Any = jnp.float32) -> Traffic:
    """Count a network's training step, forward, backward and SGD with momentum.

    Args:
        arch: a named network.
        batch: pictures.
        height: of the pictures.
        width: of the pictures.
        dtype: compute dtype; parameters and statistics are float32.

    Raises:
        ValueError: the network refuses such pictures.
    """
    model = flaxnets.create(arch, rngs=nnx.Rngs(0), dtype=dtype)
    optimizer = sgd(lambda _: 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    graph, _, state = split(model, optimizer)
    images = jax.ShapeDtypeStruct((batch, height, width, 3), dtype)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    with _written_out():
        jaxpr = jax.make_jaxpr(make_train_step(graph, optimizer))(state, images, labels).jaxpr
    arguments = [_array(variable, _Operation("")) for variable in jaxpr.invars]
    updated = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))
    return _count(list(_traced(jaxpr, arguments)), 2 * updated)


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    """Have equal blocks be no loop, as few of them are on a GPU, so that each one is counted."""
    fewest = repetition._fewest
    repetition._fewest = lambda block: sys.maxsize
    try:
        yield
    finally:
        repetition._fewest = fewest


# These give another view of the same memory.
VIEWS = {"reshape", "squeeze", "expand_dims", "copy", "copy_p", "stop_gradient", "mesh_cast"}


@dataclasses.dataclass(frozen=True, eq=False)
class _Operation:
    """An operation of the step; "" makes the step's arguments and constants."""

    name: str
    inputs: tuple["_Array", ...] = ()
    depth: int = 0  # the longest chain of kernels that ends here


@dataclasses.dataclass(frozen=True, eq=False)
class _Array:
    """What an operation makes."""

    made_by: _Operation
    nbytes: int
    dtype: str


def _traced(jaxpr: Any, arguments: Iterable[_Array]) -> Iterator[_Array]:
    """The results of a function for GPUs, with all functions that it calls written out."""
    arrays = dict(zip(jaxpr.invars, arguments, strict=True))
    arrays |= {variable: _array(variable, _Operation("")) for variable in jaxpr.constvars}

    def read(variable: Any) -> _Array:
        if isinstance(variable, jax.extend.core.Literal):
            return dataclasses.replace(_array(variable, _Operation("")), nbytes=0)
        return arrays[variable]

    for equation in jaxpr.eqns:
        inputs = tuple(read(variable) for variable in equation.invars)
        inner = _called(equation)
        if inner is None:
            name = equation.primitive.name
            before = max((each.made_by.depth for each in inputs), default=0)
            operation = _Operation(name, inputs, before + (name in KERNELS))
            outputs = [_array(variable, operation) for variable in equation.outvars]
        else:
            outputs = list(_traced(inner, inputs[len(inputs) - len(inner.invars) :]))
        arrays |= zip(equation.outvars, outputs, strict=True)
    return map(read, jaxpr.outvars)


def _called(equation: Any) -> Any:
    """The function that an equation calls; of a choice among platforms that for GPUs."""
    if equation.params.get("branches_platforms"):
        return equation.params["branches"][-1].jaxpr  # the default
    if equation.primitive.name in KERNELS:
        return None
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    closed = next((equation.params[name] for name in names if name in equation.params), None)
    return getattr(closed, "jaxpr", closed)


def _array(variable: Any, operation: _Operation) -> _Array:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    size = getattr(dtype, "itemsize", 4)
    return _Array(operation, math.prod(shape) * size, str(dtype))


def _operations(results: Iterable[_Array]) -> list[_Operation]:
    """Every operation that the results need."""
    found: dict[_Operation, None] = {}
    waiting = [result.made_by for result in results]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found[operation] = None
            waiting += [each.made_by for each in operation.inputs]
    return list(found)


class _Memory:
    """Which arrays lie in memory, and what has to be read to compute the others.

    Args:
        results: of the step.
        operations: all of it.
    """

    def __init__(self, results: Iterable[_Array], operations: Iterable[_Operation]) -> None:
        needed = [each for each in operations if KERNELS.get(each.name, "reduction") != "reduction"]
        wanted = [*results, *(array for each in needed for array in each.inputs)]
        self.computed = {_viewed(array): None for array in wanted}
        self._sources: dict[_Array, frozenset[_Array]] = {}

    def lies(self, array: _Array) -> bool:
        """Whether an array is in memory."""
        name = array.made_by.name
        return not name or name in KERNELS or array in self.computed

    def sources(self, operation: _Operation) -> frozenset[_Array]:
        """The arrays in memory that a kernel reads which ends in this operation."""
        return frozenset().union(*(self._source(_viewed(each)) for each in operation.inputs))

    def _source(self, array: _Array) -> frozenset[_Array]:
        if self.lies(array):
            return frozenset([array])
        if array not in self._sources:
            self._sources[array] = self.sources(array.made_by)
        return self._sources[array]


def _viewed(array: _Array) -> _Array:
    """The array that this one is a view of."""
    while array.made_by.name in VIEWS:
        (array,) = array.made_by.inputs[:1]
    return array


def _count(results: list[_Array], updated: int) -> Traffic:
    operations = _operations(results)
    memory = _Memory(results, operations)
    kernels, moved, dtypes = Counter[str](), Counter[str](), Counter[str]()
    least = updated
    outputs: dict[_Operation, list[_Array]] = {}
    for operation in operations:
        for array in operation.inputs:
            outputs.setdefault(array.made_by, []).append(array)
    for array in results:
        outputs.setdefault(array.made_by, []).append(array)
    siblings: set[tuple[str, int, frozenset[_Array], int]] = set()
    for operation, made in outputs.items():
        kind = KERNELS.get(operation.name)
        made = [each for each in dict.fromkeys(made) if memory.lies(each)]
        if not operation.name or not made:
            continue
        sources, written = memory.sources(operation), sum(each.nbytes for each in made)
        amount = sum(each.nbytes for each in sources) + written
        if kind in (None, "reduction"):
            kind = kind or (ELEMENTWISE if written >= LARGE else SMALL)
            # Results of one size from the same large arrays come from one kernel.
            large = frozenset(each for each in sources if each.nbytes >= LARGE)
            sibling = kind, operation.depth, large, written
            if large and sibling in siblings:
                moved[kind] += written
                continue
            siblings.add(sibling)
        kernels[kind] += 1
        moved[kind] += amount
        if operation.name in PRODUCTS:
            least += amount
        if operation.name == "conv_general_dilated":
            dtypes[made[0].dtype] += 1
    return Traffic(dict(kernels), dict(moved), least, dict(dtypes))
