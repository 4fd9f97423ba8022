"""What the networks of all families have in common."""

import jax
from flax import nnx


class Network(nnx.Module):
    """A classifier of pictures that can show its stages' outputs."""

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name, in order: stem, stage1, ..., pre_logits, logits.

        Args:
            x: (N, H, W, 3), normalised.

        Returns:
            Maps (N, h, w, c) for the stem and stages (a DenseNet's before norm and transition),
            ``pre_logits`` (N, F) and, with a classifier, ``logits`` (N, num_classes).

        Raises:
            ValueError: ``x`` is not a floating-point NHWC batch.
        """
        raise NotImplementedError

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures (N, H, W, 3) to logits (N, num_classes); without a classifier to (N, F).

        Raises:
            ValueError: ``x`` is not a floating-point NHWC batch.
        """
        outputs = self.features(x)
        return outputs.get("logits", outputs["pre_logits"])
