"""Batch norm by itself, on inputs that whole networks don't bring about.

Inputs are numbers that float32 (bfloat16) holds exactly: beside a mean of 1e4, rounding them would
hide every other error.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from flaxnets.layers import BatchNorm, FeatureMaps, standardize
from parity.budget import DTYPES, SMALLEST_SHARE, DType, float32_budget, largest, relative_error
from parity.comparison import MODES, Comparison, Mode
from parity.record import full_precision
from parity.standalone.findings import Recorder

CHECK = "batch norm"
BATCHES = 5
# PyTorch has a loop of its own for each, and with it its own rounding errors.
MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last)

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class NormCase:
    """What one layer reads.

    Attributes:
        name: what reports call it.
        shape: (N, H, W, C) of each batch.
        offset: mean of the input.
        deviation: standard deviation of the input.
        momentum: in PyTorch's sense, the share of the new statistics.
        epsilon: added to the variance.
    """

    name: str
    shape: tuple[int, int, int, int] = (5, 6, 7, 8)
    offset: float = 0.5
    deviation: float = 2.0
    momentum: float = 0.1
    epsilon: float = 1e-5


LARGE_OFFSET = NormCase("offset 1e4", (16, 8, 8, 4), offset=1e4, deviation=1.0)
QUICK = (
    NormCase("maps"),
    NormCase("1x1 maps", (6, 1, 1, 8)),
    LARGE_OFFSET,
    NormCase("constant channels", deviation=0.0),
)
CASES = (
    *QUICK,
    NormCase("one picture", (1, 6, 7, 8)),
    NormCase("variance 1e-8", deviation=1e-4),
    NormCase("momentum 0.3", momentum=0.3),
    NormCase("epsilon 1e-3", epsilon=1e-3),
)


@dataclasses.dataclass(frozen=True)
class NormInputs:
    """Arrays that every run of a case shares, all in float64.

    Attributes:
        images: (K, N, H, W, C).
        cotangent: (N, H, W, C), of the first batch's output.
        variables: scale, bias, mean and var before the first batch, each (C,).
    """

    images: np.ndarray
    cotangent: np.ndarray
    variables: Arrays


def check_batch_norm(seed: int, quick: bool) -> Iterator[Comparison]:
    """Compare the layer with ``torch.nn.BatchNorm2d``.

    Args:
        seed: of the inputs.
        quick: fewer kinds of input.
    """
    for case in QUICK if quick else CASES:
        inputs = make_inputs(case, seed)
        for mode in MODES:
            oracle = run_torch(case, inputs, torch.float64, mode)
            for dtype in DTYPES:
                references = []
                if dtype == "float32":
                    references = [
                        run_torch(case, inputs, torch.float32, mode, memory_format)
                        for memory_format in MEMORY_FORMATS
                    ]
                for shared in (False, True):
                    # DenseNet normalises a map once for all the norms that read it.
                    name = f"{case.name}, normalised once" if shared else case.name
                    if shared and case.epsilon != NormCase.epsilon:
                        continue
                    found = run_flax(case, inputs, dtype, mode, shared=shared)
                    recorder = Recorder(CHECK, name, dtype, mode)
                    yield from compare(recorder, found, oracle, references)
    yield fast_formula(seed)
    for shared in (False, True):
        yield refusal(shared=shared)
    yield from bfloat16_input(seed)


def make_inputs(case: NormCase, seed: int, dtype: Any = np.float32) -> NormInputs:
    """Random inputs of a case, rounded to ``dtype``."""
    generator = np.random.default_rng(seed)
    channels = case.shape[-1]

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype).astype(np.float64)

    noise = generator.normal(size=(BATCHES, *case.shape))
    variables = {
        "scale": generator.uniform(0.5, 1.5, channels),
        "bias": generator.normal(0, 0.3, channels),
        "mean": case.offset + generator.normal(size=channels),
        "var": generator.uniform(0.5, 2.0, channels),
    }
    return NormInputs(
        images=rounded(case.offset + case.deviation * noise),
        cotangent=rounded(generator.normal(size=case.shape)),
        variables={name: rounded(value) for name, value in variables.items()},
    )


def run_torch(
    case: NormCase,
    inputs: NormInputs,
    dtype: torch.dtype,
    mode: Mode,
    memory_format: torch.memory_format = torch.contiguous_format,
    *,
    param_dtype: torch.dtype | None = None,
) -> Arrays:
    """Output and gradients of the first batch, and the statistics after all of them."""
    param_dtype = param_dtype or dtype
    layer = nn.BatchNorm2d(case.shape[-1], case.epsilon, case.momentum, dtype=param_dtype)
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    with torch.no_grad():
        for name, value in inputs.variables.items():
            getattr(layer, names[name]).copy_(torch.from_numpy(value))
    layer.train(mode == "train")

    def tensor(array: np.ndarray) -> torch.Tensor:
        channels_first = torch.from_numpy(np.moveaxis(array, -1, 1)).to(dtype)
        return channels_first.contiguous(memory_format=memory_format)

    images = tensor(inputs.images[0]).requires_grad_()
    output = layer(images)
    output.backward(tensor(inputs.cotangent))
    for later in inputs.images[1:]:
        layer(tensor(later))
    gradients = {"input": images.grad, "scale": layer.weight.grad, "bias": layer.bias.grad}
    tensors = {"output": output} | {f"{name} gradient": g for name, g in gradients.items()}
    tensors |= {"running mean": layer.running_mean, "running variance": layer.running_var}
    tensors["batches"] = layer.num_batches_tracked
    return {name: _channels_last(tensor) for name, tensor in tensors.items() if tensor is not None}


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.detach().double().numpy()
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def run_flax(
    case: NormCase,
    inputs: NormInputs,
    dtype: str,
    mode: Mode,
    *,
    shared: bool = False,
    param_dtype: DType | None = None,
) -> Arrays:
    """What ``run_torch`` gives, of ``flaxnets``' layer; the arrays keep their dtypes."""
    param_dtype = param_dtype or ("float64" if dtype == "float64" else "float32")
    with full_precision(param_dtype):
        layer = BatchNorm(
            case.shape[-1],
            epsilon=case.epsilon,
            momentum=1 - case.momentum,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
        )
        for name, value in inputs.variables.items():
            getattr(layer, name).set_value(jnp.asarray(value, param_dtype))
        (layer.train if mode == "train" else layer.eval)()
        graphdef, params, rest = nnx.split(layer, nnx.Param, ...)  # type: ignore[misc]

        @jax.jit
        def step(params: Any, rest: Any, images: jax.Array, cotangent: jax.Array) -> Any:
            def run(params: Any, images: jax.Array) -> Any:
                layer = nnx.merge(graphdef, params, rest, copy=True)
                reads: Any = images
                if shared:
                    reads = standardize(images) if mode == "train" else FeatureMaps(images)
                return layer(reads), nnx.state(layer, nnx.BatchStat)

            output, transpose, rest_after = jax.vjp(run, params, images, has_aux=True)
            return output, transpose(cotangent), rest_after

        images = jnp.asarray(inputs.images, dtype)
        cotangent = jnp.asarray(inputs.cotangent, dtype)
        output, (gradients, input_gradient), rest = step(params, rest, images[0], cotangent)
        for later in images[1:]:
            rest = step(params, rest, later, cotangent)[2]
        arrays = {
            "output": output,
            "input gradient": input_gradient,
            "scale gradient": gradients["scale"][...],
            "bias gradient": gradients["bias"][...],
            "running mean": rest["mean"][...],
            "running variance": rest["var"][...],
            "batches": rest["num_batches_tracked"][...],
        }
        return {name: np.asarray(array) for name, array in arrays.items()}


def compare(
    recorder: Recorder, found: Arrays, oracle: Arrays, references: list[Arrays]
) -> Iterator[Comparison]:
    """Every array of a run; the gradients of scale and bias share one budget and one scale."""
    parameters = ("scale gradient", "bias gradient")
    scale = SMALLEST_SHARE * max(float(np.abs(oracle[name]).max()) for name in parameters)
    for name, expected in oracle.items():
        group = parameters if name in parameters else (name,)
        least = scale if name in parameters else 0.0
        own = [
            relative_error(reference[member], oracle[member], scale=least)
            for reference in references
            for member in group
        ]
        yield recorder.array(
            name, found[name], expected, own, backward=name.endswith("gradient"), scale=least
        )


def fast_formula(seed: int) -> Comparison:
    """That E[x^2] - mean^2 would not pass beside a large mean: the check sees the mistake."""
    inputs = make_inputs(LARGE_OFFSET, seed)
    oracle = run_torch(LARGE_OFFSET, inputs, torch.float64, "train")["output"]
    own = [
        relative_error(
            run_torch(LARGE_OFFSET, inputs, torch.float32, "train", memory_format)["output"], oracle
        )
        for memory_format in MEMORY_FORMATS
    ]
    x = inputs.images[0].astype(np.float32)
    mean, square = x.mean((0, 1, 2)), np.square(x).mean((0, 1, 2))
    variance = np.maximum(square - np.square(mean), 0)
    output = (x - mean) / np.sqrt(variance + np.float32(LARGE_OFFSET.epsilon))
    output = output * inputs.variables["scale"] + inputs.variables["bias"]
    error, budget = relative_error(output, oracle).norm, float32_budget(largest(own)).norm
    return Recorder(CHECK, LARGE_OFFSET.name, "float32", "train").fact(
        "E[x^2] - mean^2 in place of E[(x - mean)^2]",
        error > budget,
        f"would be off by {error:.1e}, with a budget of {budget:.1e}",
    )


def refusal(*, shared: bool) -> Comparison:
    """That one value a channel is refused in training mode, as PyTorch refuses it."""
    case = NormCase("one value a channel", (1, 1, 1, 8))
    inputs = make_inputs(case, 0)
    refused, message = False, "PyTorch accepts it"
    try:
        run_torch(case, inputs, torch.float32, "train")
    except ValueError:
        message = "PyTorch refuses it, Flax doesn't"
        try:
            run_flax(case, inputs, "float32", "train", shared=shared)
        except ValueError as error:
            message = str(error)
            refused = "more than one value a channel" in message and "(1, 1, 1, 8)" in message
    name = f"{case.name}, normalised once" if shared else case.name
    return Recorder(CHECK, name, "float32", "train").fact("refusal", refused, message)


def bfloat16_input(seed: int) -> Iterator[Comparison]:
    """That a bfloat16 input gets float32 statistics, and the output its own rounding at most."""
    case = NormCase("bfloat16 input", offset=4.0)
    inputs = make_inputs(case, seed, jnp.bfloat16)
    for mode in MODES:
        oracle = run_torch(case, inputs, torch.float64, mode)
        own = [
            run_torch(case, inputs, torch.bfloat16, mode, memory_format, param_dtype=torch.float32)
            for memory_format in MEMORY_FORMATS
        ]
        found = run_flax(case, inputs, "bfloat16", mode)
        dtypes = {name: str(array.dtype) for name, array in found.items()}
        wide = {name for name in dtypes if name not in ("output", "input gradient", "batches")}
        yield Recorder(CHECK, case.name, "bfloat16", mode).fact(
            "dtypes",
            {dtypes[name] for name in wide} == {"float32"} and dtypes["output"] == "bfloat16",
            ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items()),
        )
        for name, expected in oracle.items():
            dtype = "float32" if name.startswith("running") else "bfloat16"
            errors = [relative_error(reference[name], expected) for reference in own]
            recorder = Recorder(CHECK, case.name, dtype, mode)
            yield recorder.array(name, found[name], expected, errors)
