from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.intercept import intercepted, trace_calls


class Twice(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return 2 * x


class TwiceAndOne(Twice):
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) + 1


class Inherited(Twice):
    pass


class Network(nnx.Module):
    def __init__(self) -> None:
        self.a, self.z, self.m = TwiceAndOne(), Twice(), Inherited()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.a(self.m(self.z(x)))


def test_calls_come_in_execution_order_each_once() -> None:
    calls = []

    def note(path: Any, module: nnx.Module, call: Any, x: jax.Array) -> jax.Array:
        calls.append((path, type(module).__name__, float(x)))
        return call(x)

    network = Network()
    with intercepted(network, note):
        assert network(jnp.ones(())) == 9
    assert calls == [(("z",), "Twice", 1), (("m",), "Inherited", 2), (("a",), "TwiceAndOne", 4)]


def test_the_handler_can_change_an_output() -> None:
    network = Network()
    with intercepted(network, lambda path, module, call, x: call(x) + 10 * (path == ("z",))):
        assert network(jnp.ones(())) == 49


def test_other_models_and_later_calls_are_left_alone() -> None:
    network, other = Network(), Network()
    before = Twice.__dict__["__call__"]
    with intercepted(network, lambda *_: jnp.zeros(())):
        assert other(jnp.ones(())) == 9
        assert network(jnp.ones(())) == 0
    assert network(jnp.ones(())) == 9
    assert Twice.__dict__["__call__"] is before
    assert "__call__" not in Inherited.__dict__


def test_a_trace_computes_nothing_and_begins_with_the_model() -> None:
    calls = []

    def note(path: Any, module: nnx.Module, call: Any, x: jax.Array) -> jax.Array:
        calls.append((path, x.shape, isinstance(x, jax.core.Tracer)))
        return call(x)

    trace_calls(Network(), (2, 3), note)
    assert calls == [(path, (2, 3), True) for path in [(), ("z",), ("m",), ("a",)]]
