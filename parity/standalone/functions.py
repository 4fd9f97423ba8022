"""Pooling and ReLU by themselves, on maps of every sign and of odd size.

In a network they read what is not negative, and a mistake about padding or signs can hide.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from flaxnets import layers, pooling
from parity.budget import DTYPES, relative_error
from parity.comparison import Comparison
from parity.execution import full_precision
from parity.standalone.findings import Recorder

CHECK = "functions"
SIZES = ((8, 12), (7, 10), (9, 5))
CHANNELS = 4

JaxFunction = Callable[[jax.Array], jax.Array]
TorchFunction = Callable[[torch.Tensor], torch.Tensor]


def _functions() -> dict[str, tuple[JaxFunction, TorchFunction]]:
    return {
        "ReLU": (layers.relu, F.relu),
        "max pooling": (pooling.max_pool_3x3_stride_2, lambda x: F.max_pool2d(x, 3, 2, 1)),
        "average pooling": (lambda x: pooling.avg_pool(x, 2), lambda x: F.avg_pool2d(x, 2)),
        "global pooling": (pooling.global_avg_pool, lambda x: x.mean((2, 3))),
    }


def check_functions(seed: int, quick: bool) -> Iterator[Comparison]:
    """Compare output and gradient with PyTorch's functions.

    Args:
        seed: of the maps, and of the gradients that arrive.
        quick: one size less.
    """
    generator = np.random.default_rng(seed)
    for height, width in SIZES[: 2 if quick else None]:
        maps = generator.normal(-0.5, 1, (3, height, width, CHANNELS)).astype(np.float32)
        for name, (ours, theirs) in _functions().items():
            arriving = torch_run(theirs, maps, None, torch.float64)["output"]
            arriving = generator.normal(size=arriving.shape).astype(np.float32)
            oracle = torch_run(theirs, maps, arriving, torch.float64)
            for dtype in DTYPES:
                found = flax_run(ours, maps, arriving, dtype)
                own = torch_run(theirs, maps, arriving, torch.float32) if dtype == "float32" else {}
                recorder = Recorder(CHECK, f"{height}x{width}", dtype)
                for kind, expected in oracle.items():
                    errors = [relative_error(own[kind], expected)] if own else []
                    yield recorder.array(
                        f"{name}, {kind}",
                        found[kind],
                        expected,
                        errors,
                        backward=kind == "gradient",
                    )


def torch_run(
    function: TorchFunction, maps: np.ndarray, arriving: np.ndarray | None, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """Output and, for the gradient that arrives there, the input's; both channels last."""
    x = torch.tensor(np.moveaxis(maps, -1, 1), dtype=dtype, requires_grad=True)
    output = function(x)
    arrays = {"output": output}
    if arriving is not None:
        last_first = np.moveaxis(arriving, -1, 1)
        (arrays["gradient"],) = torch.autograd.grad(
            output, x, torch.tensor(last_first, dtype=dtype)
        )
    return {name: np.moveaxis(each.numpy(force=True), 1, -1) for name, each in arrays.items()}


def flax_run(
    function: JaxFunction, maps: np.ndarray, arriving: np.ndarray, dtype: str
) -> dict[str, np.ndarray]:
    """The same of a function of ``flaxnets.layers``; no gradient where the shape is another."""
    with full_precision("float64" if dtype == "float64" else "float32"):
        output, transpose = jax.vjp(function, jnp.asarray(maps, dtype))
        if output.shape != arriving.shape:
            return {"output": np.asarray(output), "gradient": np.zeros(())}
        (gradient,) = transpose(jnp.asarray(arriving, output.dtype))
        return {"output": np.asarray(output), "gradient": np.asarray(gradient)}
