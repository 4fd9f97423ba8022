"""The training step as it is compiled for GPUs and TPUs, which need not be at hand."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import flaxnets
from flaxnets.layers import Conv
from parity.cases import Case
from parity.comparison import Comparison
from parity.standalone.findings import Recorder
from train.optimizer import sgd
from train.step import make_train_step, split

PLATFORMS = ("cuda", "tpu")
# What the forms of the convolution that are for CPUs consist of, besides matrix products.
CPU_FORMS = ("while", "optimization_barrier")
# JAX's random numbers on NVIDIA's GPUs.
ON_THE_DEVICE = {"cu_threefry2x32_ffi"}


def check_lowering(check: str, case: Case) -> Iterator[Comparison]:
    """Look at what the step of a network's training is made of, for each of ``PLATFORMS``.

    Args:
        check: of the records.
        case: the network and its pictures.
    """
    model: Any = flaxnets.create(case.arch, rngs=nnx.Rngs(0), **case.overrides)
    modules = [module for _, module in nnx.iter_modules(model)]
    convolutions = sum(isinstance(module, Conv) for module in modules)
    products = sum(isinstance(module, nnx.Linear) for module in modules)
    optimizer = sgd(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    graph, _, state = split(model, optimizer)
    step = jax.jit(make_train_step(graph, optimizer), donate_argnums=0)
    images = jax.ShapeDtypeStruct((case.batch, case.height, case.width, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((case.batch,), jnp.int32)
    for platform in PLATFORMS:
        recorder = Recorder(check, f"{case.name}, step for {platform}", "float32", "train")
        try:
            lowered = jax.export.export(step, platforms=[platform])(state, images, labels)
        except (ValueError, NotImplementedError) as error:
            # A call of the host can't be lowered at all where that host has no such device.
            yield recorder.fact("lowering", False, str(error).strip().partition("\n")[0])
            continue
        text, donated = lowered.mlir_module(), len(jax.tree.leaves(state))
        yield from look_at(recorder, text, convolutions, products, donated)


def look_at(
    recorder: Recorder, text: str, convolutions: int, products: int, donated: int
) -> Iterator[Comparison]:
    """Look at a lowered training step.

    Args:
        recorder: of the records.
        text: StableHLO.
        convolutions: how many layers convolve.
        products: how many linear layers there are.
        donated: arrays that the step takes over and gives back.
    """
    operations = Counter(re.findall(r"stablehlo\.(\w+)", text))
    # Forward, the gradient of the kernel and that of the input, which the first layer doesn't need.
    for operation, expected in (
        ("convolution", 3 * convolutions - 1),
        ("dot_general", 3 * products),
    ):
        yield recorder.fact(
            operation,
            operations[operation] == expected,
            f"{operations[operation]}, {expected} expected",
        )
    found = {name: operations[name] for name in CPU_FORMS if operations[name]}
    yield recorder.fact("forms for CPUs", not found, f"{found or 'none'}")
    calls = {*re.findall(r"stablehlo\.custom_call @([\w.]+)", text)} - ON_THE_DEVICE
    yield recorder.fact("calls of the host", not calls, ", ".join(sorted(calls)) or "none")
    aliases = text.count("tf.aliasing_output")
    yield recorder.fact(
        "donated buffers", aliases == donated, f"{aliases} of {donated} are used again"
    )
