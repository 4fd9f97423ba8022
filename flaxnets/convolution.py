"""The one convolution that every network here calls."""

import jax
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv2d(
    images: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> jax.Array:
    """2-D cross-correlation with PyTorch's padding.

    Args:
        images: (N, H, W, C_in).
        kernel: (k_h, k_w, C_in / groups, C_out), the dtype of ``images``.
        stride: the same in both directions.
        padding: zeros added on *every* side. (``"SAME"`` would add none on the left and top of an
            even-sized map when the stride is 2.)
        groups: ``feature_group_count``.

    Returns:
        (N, H', W', C_out) with H' = floor((H + 2 padding - k_h) / stride) + 1.
    """
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )
