import gc
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from flaxnets import native_library
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


# What JAX's cache on disk would take for one program are two with strides of 2 and 3, unless their
# calls in C++ are told apart: all shapes are the same.
CACHED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flaxnets import native
from train.compilation import compile_ahead

split = NamedSharding(jax.make_mesh((jax.device_count(),), ("data",)), PartitionSpec("data"))
x, g = np.arange(64.0, dtype=np.float32).reshape(4, 4, 4, 1), np.ones((4, 2, 2, 1), np.float32)
stride = int(sys.argv[1])
function = jax.jit(lambda x, g: native.kernel_gradient(x, g, 1, stride, 0), in_shardings=split)
found = compile_ahead(function, x, g)(*jax.device_put((x, g), split))
assert float(found[0, 0, 0, 0]) == x[:, ::stride, ::stride].sum(), found
"""


@pytest.mark.skipif(not native_library.is_available(), reason="no C++ compiler")
@pytest.mark.parametrize("devices", ["1", "2"])
def test_the_cache_finds_what_is_in_cpp_and_nothing_else(devices, tmp_path):
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": devices,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    numbers = []
    for stride in ("2", "2", "3", "3", "2"):
        subprocess.run(
            [sys.executable, "-c", CACHED, stride], env=os.environ | settings, check=True
        )
        numbers.append(len(list(tmp_path.glob("*-cache"))))
    assert numbers[0] == numbers[1] < numbers[2] == numbers[3] == numbers[4]
