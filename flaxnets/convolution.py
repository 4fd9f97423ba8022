"""The one convolution that every network here calls, in forms that a CPU computes fast.

On a GPU or TPU the convolution and its gradients are XLA's own. XLA's CPU backend computes 1x1
convolutions and most gradients at a small part of the machine's speed (the kernel's by swapping the
batch with the features, the input's of a strided convolution by spreading it with zeros), so there,
and only there, they are rewritten: as matrix products over slices of the input
(``flaxnets.kernel_gradient``) or over neighbourhoods of its pixels (``flaxnets.im2col``, for wide
convolutions themselves too); wide 3x3 convolutions by Winograd's algorithm; narrow ones with
neighbouring pixels merged. Where there is a C++ compiler, kernels' gradients and narrow 3x3
convolutions are computed by functions in C++ instead (``flaxnets.native``). A CPU's form or XLA's
own is decided at lowering, C++ or not when a function is traced. A batch whose size is a symbol
(``jax.export.symbolic_shape``) has XLA's own everywhere.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export, lax

from flaxnets import im2col, native, winograd
from flaxnets.kernel_gradient import kernel_gradient


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv2d(
    images: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> jax.Array:
    """2-D cross-correlation with PyTorch's padding.

    Differentiable in reverse mode, any number of times; not in forward mode (``jax.jvp``). Within
    ``jax.shard_map`` it needs ``check_vma=False``.

    Args:
        images: (N, H, W, C_in).
        kernel: (k, k, C_in / groups, C_out), the dtype of ``images``.
        stride: the same in both directions.
        padding: zeros added on *every* side. (``"SAME"`` would add none on the left and top of an
            even-sized map when the stride is 2.)
        groups: ``feature_group_count``.

    Returns:
        (N, H', W', C_out) with H' = floor((H + 2 padding - k) / stride) + 1.

    Raises:
        ValueError: the kernel is not square.
    """
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"a square kernel is wanted, not one of {kernel.shape[:2]}")
    plain = functools.partial(plain_conv2d, stride=stride, padding=padding, groups=groups)
    if export.is_symbolic_dim(images.shape[0]):
        return plain(images, kernel)
    if groups > 1:
        return plain(images, kernel)
    if kernel.shape[:2] == (1, 1) and padding == 0:
        rewritten: Callable[..., jax.Array] = functools.partial(_pointwise, stride=stride)
    elif winograd.suits(images, kernel.shape[3], kernel.shape[0], stride, padding):
        rewritten = winograd.convolve
    elif im2col.suits(images, kernel.shape[3], kernel.shape[0]):
        rewritten = functools.partial(im2col.convolve, stride=stride, padding=padding)
    elif stride == padding == 1 and _is_narrow(images, kernel):
        rewritten = native.convolve
    elif stride == 1 and (merged := _pixels_to_merge(images, kernel, padding)) > 1:
        rewritten = functools.partial(_merged, padding=padding, merged=merged)
    else:
        return plain(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=rewritten, default=plain)


def _forward(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(images, kernel, stride, padding, groups), (images, kernel)


def _backward(
    stride: int,
    padding: int,
    groups: int,
    residuals: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    plain = functools.partial(_plain_gradients, stride, padding, groups)
    if export.is_symbolic_dim(images.shape[0]):
        return plain(images, kernel, gradient)
    if groups > 1:
        rewritten = functools.partial(_grouped_gradients, stride, padding, groups)
    else:
        rewritten = functools.partial(_cpu_gradients, stride, padding)
    return lax.platform_dependent(images, kernel, gradient, cpu=rewritten, default=plain)


conv2d.defvjp(_forward, _backward)


def plain_conv2d(
    images: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> jax.Array:
    """``conv2d`` as XLA computes it and its gradients on any device: what a GPU wants."""
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _pointwise(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """A 1x1 convolution as one matrix product over all pixels."""
    pixels = images[:, ::stride, ::stride]
    product = pixels.reshape(-1, kernel.shape[2]) @ kernel[0, 0]
    return product.reshape(*pixels.shape[:3], kernel.shape[3])


def _is_narrow(images: jax.Array, kernel: jax.Array) -> bool:
    """Whether the C++ form is faster than XLA's (measured), and there is one."""
    size, _, channels, features = kernel.shape
    few = size == 3 and channels <= native.MOST_CHANNELS and 8 < features <= 16
    return few and native.suits(images, kernel)


def _pixels_to_merge(images: jax.Array, kernel: jax.Array, padding: int) -> int:
    """How many neighbours in a row to compute as the features of one pixel (measured).

    XLA's CPU backend is fast for 32 output features and more, of few input channels for 48, and
    slow for those that don't fill its registers (12 a pixel are better taken as 24).
    """
    height, width, channels, features = kernel.shape
    wanted = 48 if height * width * channels < 128 else 32 if features >= 16 else 24
    merged = 1
    while merged * features < wanted:
        merged *= 2
    columns = images.shape[2] + 2 * padding - width + 1
    return merged if merged <= 4 and features >= 12 and columns % merged == 0 else 1


def _merged(images: jax.Array, kernel: jax.Array, padding: int, merged: int) -> jax.Array:
    """A convolution with a wider kernel and ``merged`` times the features and the step in a row."""
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, merged - 1 - shift), (0, 0), (0, 0)))
        for shift in range(merged)
    ]
    y = lax.conv_general_dilated(
        images,
        jnp.concatenate(shifted, axis=3),
        window_strides=(1, merged),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*y.shape[:2], y.shape[2] * merged, kernel.shape[3])


def _plain_gradients(
    stride: int,
    padding: int,
    groups: int,
    images: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    _, transpose = jax.vjp(lambda x, k: plain_conv2d(x, k, stride, padding, groups), images, kernel)
    return transpose(gradient)


def _grouped_gradients(
    stride: int,
    padding: int,
    groups: int,
    images: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Through products of every pixel's neighbourhood with the kernel, one for each group."""
    size, _, channels, features = kernel.shape

    def product(x: jax.Array, k: jax.Array) -> jax.Array:
        x = im2col.neighbourhoods(x, size, stride, padding)
        x = x.reshape(*x.shape[:3], size**2, groups, channels)
        k = k.reshape(size**2, channels, groups, features // groups)
        return jnp.einsum("nhwtgc,tcgo->nhwgo", x, k).reshape(gradient.shape)

    _, transpose = jax.vjp(product, images, kernel)
    return transpose(gradient)


def _cpu_gradients(
    stride: int, padding: int, images: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    size, _, _, features = kernel.shape
    if size == 1 and padding == 0:
        _, spread = jax.vjp(lambda x: x[:, ::stride, ::stride], images)
        (images_gradient,) = spread(_pointwise(gradient, kernel.swapaxes(2, 3)))
    elif winograd.suits(images, features, size, stride, padding):
        images_gradient = winograd.images_gradient(gradient, kernel)
    elif stride > 1 or padding >= size or im2col.suits(images, features, size):
        images_gradient = im2col.images_gradient(images, kernel, gradient, stride, padding)
    else:
        # The barrier keeps the flip from being folded into the convolution, which then is slow.
        flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
        images_gradient = conv2d(gradient, flipped, 1, size - 1 - padding)
    if native.suits(images):
        of_kernel = _native_kernel_gradient(images, gradient, size, stride, padding)
    else:
        of_kernel = _kernel_gradient_by_xla(images, kernel, gradient, stride, padding)
    return images_gradient, of_kernel.astype(kernel.dtype)


def _kernel_gradient_by_xla(
    images: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: int
) -> jax.Array:
    size, _, _, features = kernel.shape
    if size == 1 and padding == 0:
        return kernel_gradient(images[:, ::stride, ::stride], gradient, 1, 0)
    if winograd.suits(images, features, size, stride, padding):
        return winograd.kernel_gradient(images, gradient)
    if stride > 1 or padding >= size or im2col.suits(images, features, size):
        return im2col.kernel_gradient(images, kernel, gradient, stride, padding)
    return kernel_gradient(images, gradient, size, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _native_kernel_gradient(
    images: jax.Array, gradient: jax.Array, size: int, stride: int, padding: int
) -> jax.Array:
    """It is linear in both arrays, so each one's gradient goes through the other as it is."""
    return native.kernel_gradient(images, gradient, size, stride, padding)


def _native_backward(
    size: int,
    stride: int,
    padding: int,
    residuals: tuple[jax.Array, jax.Array],
    kernel: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, gradient = residuals
    output, transpose = jax.vjp(lambda x: conv2d(x, kernel, stride, padding), images)
    return transpose(gradient)[0], output


_native_kernel_gradient.defvjp(
    lambda images, gradient, *options: (
        _native_kernel_gradient(images, gradient, *options),
        (images, gradient),
    ),
    _native_backward,
)
