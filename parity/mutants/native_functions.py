"""Mistakes in what is computed in C++, for where there is a compiler."""

from functools import partial

from parity.mutants.mutant import Mutant, Place
from parity.mutants.native_changes import edited_cpp


def _isolated(layer: str) -> Place:
    return Place("isolated layers", layer)


def _whole(key: str) -> Place:
    return Place("whole network", key)


MUTANTS = (
    Mutant(
        name="native kernel gradient's rows shifted",
        description="the C++ form of a kernel's gradient reads the row of pixels below",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited_cpp, "kernel_gradient.h", "top * c.stride + i - c.padding", "top * c.stride + i"
        ),
    ),
    Mutant(
        name="native kernel gradient's taps upside down",
        description="it puts its last row of taps first",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited_cpp,
            "kernel_gradient.h",
            "image_strips + tap * row",
            "image_strips + (c.size - 1 - tap) * row",
        ),
    ),
    Mutant(
        name="native kernel gradient's columns too near",
        description="of a strided convolution it reads neighbouring pixels",
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited_cpp,
            "kernel_gradient.h",
            "c.stride * row, c.stride * c.channels",
            "c.stride * row, c.channels",
        ),
    ),
    Mutant(
        name="native narrow convolution's columns swapped",
        description="the C++ form of a narrow 3x3 convolution takes its left column twice",
        expected=_isolated("conv1"),
        subject="16 channels, eval",
        change=partial(
            edited_cpp,
            "narrow_convolution.h",
            "sums[i - 2] += number * right;",
            "sums[i - 2] += number * left;",
        ),
    ),
    Mutant(
        name="native variance of blocks",
        description="the C++ form of a variance forgets how far apart the means of blocks lie",
        expected=_isolated("bn1"),
        subject="resnet, train",
        change=partial(
            edited_cpp,
            "channel_sums.h",
            "squares += other.squares + distance * distance * count * other.count / sum;",
            "squares += other.squares;",
        ),
    ),
    Mutant(
        name="native scale's gradient is the bias's",
        description="the C++ form of batch norm's sums forgets one factor",
        expected=_isolated("bn1"),
        subject="resnet, train",
        change=partial(
            edited_cpp,
            "channel_sums.h",
            "product += number * Load<V>(b + row * width + column);",
            "product += number;",
        ),
    ),
    Mutant(
        name="native dense run forgets later readers",
        description="the C++ form gives maps the gradient of their first reader alone",
        expected=_whole("denseblock2.denselayer1.conv2.weight"),
        subject="dense run",
        change=partial(edited_cpp, "expansion.h", "Load<V>(total + place) + passed", "passed"),
    ),
    Mutant(
        name="native dense layer's dead units have gradients",
        description="the C++ form lets a gradient pass where ReLU gave 0",
        expected=_whole(""),
        subject="dense run",
        change=partial(edited_cpp, "expansion.h", "active_here > zero", "active_here >= zero"),
    ),
    Mutant(
        name="native dense layer skips a channel",
        description="the C++ form leaves out the last channel that a layer reads",
        expected=_whole(""),
        subject="dense run",
        change=partial(
            edited_cpp,
            "expansion.h",
            "!expansion.Reads(read.last - 1)) --read.last;",
            "!expansion.Reads(read.last - 1)) --read.last;\n  --read.last;",
        ),
    ),
)
