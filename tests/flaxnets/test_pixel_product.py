"""Kernels' gradients' product against NumPy's."""

import jax
import numpy as np
import pytest

from flaxnets.pixel_product import product_over_pixels


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_product_over_pixels(first: int, second: int, batch: tuple[int, ...]) -> None:
    """Whichever order is given, the one with fewer columns is multiplied first."""
    keys = jax.random.split(jax.random.key(0))
    columns = first, second
    a, b = (jax.random.normal(key, (*batch, 7, n)) for key, n in zip(keys, columns, strict=True))
    found = product_over_pixels(a, b)
    np.testing.assert_allclose(found, np.swapaxes(a, -1, -2) @ b, rtol=1e-5, atol=1e-5)
    jaxpr = jax.make_jaxpr(product_over_pixels)(a, b)
    (product,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    assert [x.aval.shape[-1] for x in product.invars] == sorted([first, second])
