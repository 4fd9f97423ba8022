import gc

import jax
import numpy as np
import pytest

from train.compilation import compile_ahead


@pytest.fixture(params=[True, False])
def collects(request):
    """Whether the garbage collector is on while the test runs."""
    was_on = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was_on else gc.disable)()


def test_collector_rests_while_tracing_and_is_then_as_it_was(collects):
    seen = []

    def function(x):
        seen.append(gc.isenabled())
        return 2 * x

    compiled = compile_ahead(jax.jit(function), jax.ShapeDtypeStruct((3,), np.float32))
    assert seen == [False]
    assert gc.isenabled() is collects
    np.testing.assert_array_equal(compiled(np.ones(3, np.float32)), 2 * np.ones(3))


def test_collector_is_as_it_was_after_an_error(collects):
    def function(x):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        compile_ahead(jax.jit(function), 1.0)
    assert gc.isenabled() is collects
