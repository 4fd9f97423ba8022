"""What a training step is made of, counted."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.__main__ import main
from benchmarks.traffic import Traffic, _array, _count, _Operation, _traced, count

FLOATS = 64 * 64
BYTES = 4 * FLOATS


def counted(function: Any, *shapes: tuple[int, ...]) -> Traffic:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _count(list(_traced(jaxpr, [_array(v, _Operation("")) for v in jaxpr.invars])), 0)


def test_operations_on_elements_are_one_kernel() -> None:
    traffic = counted(lambda a, b: jnp.maximum(a * 2 + b, 0), (64, 64), (64, 64))
    assert traffic.kernels == {"elementwise": 1}
    assert traffic.moved == {"elementwise": 3 * BYTES}


def test_what_a_product_reads_is_written_first() -> None:
    traffic = counted(lambda a, b: jnp.maximum(a, 0) @ b, (64, 64), (64, 64))
    assert traffic.kernels == {"elementwise": 1, "matrix product": 1}
    assert traffic.moved == {"elementwise": 2 * BYTES, "matrix product": 3 * BYTES}
    assert traffic.least == 3 * BYTES


def test_a_reduction_computes_what_it_reads() -> None:
    traffic = counted(lambda a: jnp.square(a).sum(0), (64, 64))
    assert traffic.kernels == {"reduction": 1}
    assert traffic.moved == {"reduction": BYTES + 4 * 64}


def test_reductions_of_the_same_array_are_one_unless_one_needs_the_other() -> None:
    def apart(a: jax.Array) -> Any:
        return a.sum(0), jnp.square(a).sum(0)

    def chained(a: jax.Array) -> Any:
        return jnp.square(a - a.sum(0)).sum(0)

    assert counted(apart, (64, 64)).kernels == {"reduction": 1}
    assert counted(chained, (64, 64)).kernels == {"reduction": 2}


def test_the_branch_of_another_platform_is_not_counted() -> None:
    def function(a: jax.Array) -> jax.Array:
        return lax.platform_dependent(a, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    assert counted(jax.jit(function), (64, 64)).kernels == {"matrix product": 1}


def test_a_networks_step_has_plain_convolutions_in_its_dtype() -> None:
    traffic = count("resnet20", 4, 16, 16, jnp.bfloat16)
    assert traffic.kernels["convolution"] == 3 * 19 - 1
    assert traffic.convolution_dtypes == {"bfloat16": 3 * 19 - 1}
    # Mean, variance, and the backward pass's two together; mean pooling, the loss and the like.
    assert 3 * 19 <= traffic.kernels["reduction"] <= 3 * 19 + 8
    assert sum(traffic.moved.values()) > traffic.least


def test_blocks_that_are_a_loop_on_a_cpu_are_counted_one_by_one() -> None:
    kernels = count("resnet44", 2, 16, 16).kernels
    assert kernels["convolution"] == 3 * 43 - 1


def test_the_command_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["traffic", "--arch", "wrn_10_1", "--batch", "2", "--input", "16x16"]) == 0
    shown = capsys.readouterr().out
    assert "wrn_10_1, batch 2, 16x16, float32" in shown
    assert "times the least" in shown
    assert main(["traffic", "--arch", "resnet21"]) == 2
    assert "resnet20" in capsys.readouterr().err
