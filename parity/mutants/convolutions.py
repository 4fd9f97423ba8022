"""Mistakes in convolutions, the layer and its gradients."""

from functools import partial

from flaxnets import convolution, im2col, kernel_gradient, layers, winograd
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from parity.mutants.native_changes import edited_without_native


def _isolated(layer: str) -> Place:
    return Place("isolated layers", layer)


def _padded(padding: str) -> partial:
    """Convolutions are the library's own, with this padding."""
    return partial(
        edited,
        layers.Conv.__call__,
        (
            "return y if",
            "y = lax.conv_general_dilated(\n"
            "        x.astype(self.dtype),\n"
            "        self.kernel[...].astype(self.dtype),\n"
            "        (self.stride, self.stride),\n"
            f"        {padding},\n"
            '        dimension_numbers=("NHWC", "HWIO", "NHWC"),\n'
            "        feature_group_count=self.groups,\n"
            "    )\n"
            "    return y if",
        ),
    )


MUTANTS = (
    Mutant(
        name="SAME padding",
        description='convolutions padded by "SAME": on the right and below only if the step is 2',
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=_padded('"SAME"'),
    ),
    Mutant(
        name="padding on one side",
        description="all of a convolution's padding on the right and below",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=_padded("((0, 2 * self.padding),) * 2"),
    ),
    Mutant(
        name="no padding",
        description="convolutions without padding",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            layers.Conv.__init__,
            ("stride, kernel_size // 2, groups", "stride, 0, groups"),
        ),
    ),
    Mutant(
        name="stem padded by 1",
        description="the 7x7 stem has the padding of a 3x3 convolution",
        expected=_isolated("conv1"),
        subject="ImageNet stem, eval",
        change=partial(
            edited,
            layers.Conv.__init__,
            ("stride, kernel_size // 2, groups", "stride, min(1, kernel_size // 2), groups"),
        ),
    ),
    Mutant(
        name="kernel flipped",
        description="a convolution in the mathematicians' sense: the kernel upside down",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            layers.Conv.__call__,
            ("self.kernel[...].astype", "self.kernel[...][::-1, ::-1].astype"),
        ),
    ),
    Mutant(
        name="bias missing",
        description="a convolution's bias is not added (batch norm would hide it)",
        expected=_isolated("conv1"),
        subject="resnet with biases, train",
        change=partial(
            edited,
            layers.Conv.__call__,
            ("return y if self.bias is None else", "return y if True else"),
        ),
    ),
    Mutant(
        name="bias added twice",
        description="a convolution's bias is added by the library and once more by hand",
        expected=_isolated("conv1"),
        subject="resnet with biases, train",
        change=partial(
            edited,
            layers.Conv.__call__,
            (
                "return y if self.bias is None else",
                "y = y if self.bias is None else y + self.bias[...].astype(self.dtype)\n"
                "    return y if self.bias is None else",
            ),
        ),
    ),
    Mutant(
        name="groups interleaved",
        description="channel c belongs to group c mod g, not to the c-th g-th part of them",
        expected=_isolated("layer1.0.conv2"),
        subject="groups, eval",
        change=partial(
            edited,
            convolution.conv2d,
            (
                "if groups > 1:\n",
                "if groups > 1:\n        shape = (*images.shape[:3], -1, groups)\n"
                "        images = images.reshape(shape).swapaxes(3, 4).reshape(images.shape)\n",
            ),
        ),
    ),
    Mutant(
        name="groups interleaved in the gradient",
        description="a grouped convolution's gradients deal its features out to the groups in turn",
        expected=_isolated("layer1.0.conv2"),
        subject="groups, eval",
        change=partial(
            edited,
            convolution._grouped_gradients,
            (
                "k.reshape(size**2, channels, groups, features // groups)",
                "k.reshape(size**2, channels, features // groups, groups).swapaxes(2, 3)",
            ),
        ),
    ),
    Mutant(
        name="strided projection reads odd pixels",
        description="a 1x1 convolution of step 2 reads the pixels 1, 3, 5, ...",
        expected=_isolated("layer2.0.downsample.0"),
        subject="resnet, eval",
        change=partial(
            edited,
            convolution._pointwise,
            (
                "images[:, ::stride, ::stride]",
                "images[:, stride - 1 :: stride, stride - 1 :: stride]",
            ),
        ),
    ),
    Mutant(
        name="merged neighbours swapped",
        description="pixels of a row that are computed together come out in reversed order",
        expected=_isolated("conv1"),
        subject="16 channels, eval",
        change=partial(
            edited_without_native,
            convolution._merged,
            ("(shift, merged - 1 - shift)", "(merged - 1 - shift, shift)"),
        ),
    ),
    Mutant(
        name="input gradient's kernel not flipped",
        description="the gradient of a convolution's input goes through the kernel as it is",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            convolution._cpu_gradients,
            ("jnp.flip(kernel, (0, 1)).swapaxes(2, 3)", "kernel.swapaxes(2, 3)"),
        ),
    ),
    Mutant(
        name="strided gradient shifted",
        description="the gradients of a strided convolution are shifted by one pixel",
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited_without_native,
            im2col.neighbourhoods,
            (
                "((0, 0), (padding, padding), (padding, padding), (0, 0))",
                "((0, 0), (padding + 1, padding - 1), (padding + 1, padding - 1), (0, 0))",
            ),
        ),
    ),
    Mutant(
        name="strided gradient's taps transposed",
        description="rows and columns of taps are swapped in the gradient of a strided input",
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            im2col.images_gradient,
            ("kernel.reshape(", "kernel.swapaxes(0, 1).reshape("),
        ),
    ),
    Mutant(
        name="strided input gradient's phases shifted",
        description="of the input's gradient the odd pixels come from the wrong places",
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            im2col._scatter,
            ("number - padding - phase", "number - padding + phase"),
        ),
    ),
    Mutant(
        name="strided kernel gradient's taps transposed",
        description="the same in the gradient of a strided kernel",
        expected=_isolated("layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited_without_native,
            im2col.kernel_gradient,
            (".reshape(kernel.shape)", ".reshape(kernel.shape).swapaxes(0, 1)"),
        ),
    ),
    Mutant(
        name="wide convolution's taps transposed",
        description="rows and columns of taps are swapped where few pixels have many channels",
        expected=_isolated("layer1.0.conv1"),
        subject="few pixels of 128 channels, eval",
        change=partial(
            edited,
            im2col.convolve,
            ("kernel.reshape(", "kernel.swapaxes(0, 1).reshape("),
        ),
    ),
    Mutant(
        name="kernel gradient misses a tap",
        description="the kernel's gradient leaves the last tap out",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited_without_native,
            kernel_gradient._by_taps,
            (".transpose(2, 1, 0, 3)", ".transpose(2, 1, 0, 3).at[-1, -1].set(0)"),
        ),
    ),
    Mutant(
        name="wide kernel gradient misses a column of taps",
        description="the same, of a whole column, in the form for many features",
        expected=_isolated("conv1"),
        subject="16 channels, eval",
        change=partial(
            edited_without_native,
            kernel_gradient._by_taps,
            ("for column in range(size)])", "for column in range(size)]).at[0].set(0)"),
        ),
    ),
    Mutant(
        name="kernel gradient's rows upside down",
        description="a kernel's gradient has its last row of taps first",
        expected=_isolated("conv1"),
        subject="resnet, eval",
        change=partial(
            edited_without_native,
            kernel_gradient._by_taps,
            (
                "start + height] for start in reversed(range(size))",
                "start + height] for start in range(size)",
            ),
        ),
    ),
    Mutant(
        name="wide kernel gradient's columns mirrored",
        description="the input is shifted to the wrong side in the form for many features",
        expected=_isolated("conv1"),
        subject="16 channels, eval",
        change=partial(
            edited_without_native,
            kernel_gradient._by_taps,
            ("2, padding - column", "2, column - padding"),
        ),
    ),
    Mutant(
        name="Winograd tile wrong",
        description="one sign is wrong in the transform of the input's tiles",
        expected=_isolated("layer1.0.conv1"),
        subject="128 channels, eval",
        change=partial(
            edited,
            winograd._input_tiles,
            ("_tiles(INPUT,", "_tiles(INPUT * np.array([[1], [1], [1], [-1]]),"),
        ),
    ),
    Mutant(
        name="Winograd border lost",
        description="the input of the tiles is padded below and on the right only",
        expected=_isolated("layer1.0.conv1"),
        subject="128 channels, eval",
        change=partial(
            edited,
            winograd._input_tiles,
            (
                "((0, 0), (1, below), (1, right), (0, 0))",
                "((0, 0), (0, below + 1), (0, right + 1), (0, 0))",
            ),
        ),
    ),
    Mutant(
        name="Winograd rows and columns swapped",
        description="a tile's four pixels come out transposed",
        expected=_isolated("layer1.0.conv1"),
        subject="128 channels, eval",
        change=partial(
            edited,
            winograd._convolve,
            ("list(row)), axis=3)", "list(row)), axis=2)"),
            ("jnp.stack(rows, axis=2)", "jnp.stack(rows, axis=3)"),
        ),
    ),
    Mutant(
        name="Winograd kernel not turned round",
        description="the input's gradient is computed with the kernel as it is",
        expected=_isolated("layer1.0.conv1"),
        subject="128 channels, eval",
        change=partial(
            edited,
            winograd.images_gradient,
            ("KERNEL[:, ::-1]", "KERNEL"),
        ),
    ),
    Mutant(
        name="Winograd kernel gradient's tap wrong",
        description="one sign is wrong where a kernel's gradient is put together from its products",
        expected=_isolated("layer1.0.conv1"),
        subject="128 channels, eval",
        change=partial(
            edited_without_native,
            winograd._both_ways,
            ("(KERNEL_GRADIENT,", "(KERNEL_GRADIENT * np.array([[1], [-1], [1]]),"),
        ),
    ),
    Mutant(
        name="Winograd kernel gradient's rows mirrored",
        description="the gradient is shifted by rows to the wrong side in the form along rows",
        expected=_isolated("layer1.0.conv1"),
        subject="64 channels, eval",
        change=partial(edited_without_native, winograd._along_rows, ("(2, 1, 0)", "(0, 1, 2)")),
    ),
    Mutant(
        name="Winograd kernel gradient's taps transposed",
        description="rows and columns of a kernel's gradient are swapped in the form along rows",
        expected=_isolated("layer1.0.conv1"),
        subject="64 channels, eval",
        change=partial(
            edited_without_native,
            winograd._along_rows,
            ("columns.transpose(2, 0, 1, 3)", "columns.transpose(0, 2, 1, 3)"),
        ),
    ),
    Mutant(
        name="bfloat16 in a float32 network",
        description="layers compute in bfloat16 whatever dtype is asked for",
        expected=_isolated("conv1"),
        subject="resnet, float32",
        change=partial(
            edited,
            layers.Layers.__init__,
            ("= init, rngs, dtype, param_dtype", "= init, rngs, jnp.bfloat16, param_dtype"),
        ),
    ),
)
