"""Mistakes in how batch norm normalises, and in its gradients."""

from functools import partial

from flaxnets import layers
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from parity.mutants.native_changes import edited_without_native

_BN1 = Place("isolated layers", "bn1")
_DENSE_NORM = "denseblock1.denselayer1.norm1"

MUTANTS = (
    Mutant(
        name="epsilon 1e-3",
        description="another library's default for what is added to the variance",
        expected=_BN1,
        subject="resnet, eval",
        change=partial(edited, layers.BatchNorm.__init__, ("float = 1e-5", "float = 1e-3")),
    ),
    Mutant(
        name="epsilon beside the root",
        description="sqrt(var) + epsilon, not sqrt(var + epsilon)",
        expected=_BN1,
        subject="resnet, eval",
        change=partial(
            edited,
            layers.BatchNorm.__call__,
            ("jnp.sqrt(var + self.epsilon)", "(jnp.sqrt(var) + self.epsilon)"),
        ),
    ),
    Mutant(
        name="shared normalisation's epsilon",
        description="DenseNet normalises its maps once, with another epsilon than its norms have",
        expected=Place("isolated layers", _DENSE_NORM),
        subject="densenet, train",
        change=partial(edited, layers.standardize, ("float = 1e-5", "float = 1e-3")),
    ),
    Mutant(
        name="unbiased variance normalises",
        description="the batch is normalised with the variance that is divided by n - 1",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._normalize_forward,
            (
                "deviation = jnp.sqrt(var + epsilon)",
                "count = math.prod(x.shape[:-1])\n"
                "    deviation = jnp.sqrt(var * (count / (count - 1)) + epsilon)",
            ),
        ),
    ),
    Mutant(
        name="fast variance",
        description="E[x^2] - mean^2, which loses its digits beside a large mean",
        expected=Place("batch norm", "output", "offset 1e4"),
        subject="batch norm",
        change=partial(
            edited_without_native,
            layers._plain_channel_moments,
            (
                "_channel_mean(jnp.square(centred)) - jnp.square(off)",
                "_channel_mean(jnp.square(x)) - jnp.square(mean)",
            ),
        ),
    ),
    Mutant(
        name="statistics in bfloat16",
        description="statistics are computed in the dtype of the input",
        expected=Place("batch norm", subject="bfloat16 input"),
        subject="batch norm",
        change=partial(
            edited,
            layers.BatchNorm.__call__,
            (
                "wide = jnp.promote_types(jnp.promote_types(jnp.float32, self.mean.dtype), "
                "values.dtype)",
                "wide = values.dtype",
            ),
        ),
    ),
    Mutant(
        name="one value a channel accepted",
        description="a batch of one value a channel is normalised to 0, not refused",
        expected=Place("batch norm", "refusal", "one value a channel"),
        subject="batch norm",
        change=partial(
            edited,
            layers.BatchNorm._update_running_statistics,
            ("if count < 2:", "if count < 1:"),
            ("count / (count - 1)", "count / max(1, count - 1)"),
        ),
    ),
    Mutant(
        name="statistics of every picture",
        description="each picture's own mean is taken off, as instance norm does",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._normalize_forward,
            ("centred = (x - mean) - off", "centred = x - x.mean((1, 2), keepdims=True)"),
        ),
    ),
    Mutant(
        name="statistics from the wrong axes",
        description="the mean is over pictures and rows, not over columns too",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._normalize_forward,
            ("centred = (x - mean) - off", "centred = x - x.mean((0, 1), keepdims=True)"),
        ),
    ),
    Mutant(
        name="statistics of a part of the batch",
        description="only the first picture counts, as where each device has its own statistics",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._normalize_forward,
            ("_channel_moments(x)", "_channel_moments(x[:1])"),
        ),
    ),
    Mutant(
        name="evaluation mode while training",
        description="batch norm uses its running statistics in training too",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited, layers.BatchNorm.__call__, ("if self.use_running_average:", "if True:")
        ),
    ),
    Mutant(
        name="training mode while evaluating",
        description="batch norm uses the batch's statistics in evaluation too",
        expected=_BN1,
        subject="resnet, eval",
        change=partial(
            edited, layers.BatchNorm.__call__, ("if self.use_running_average:", "if False:")
        ),
    ),
    Mutant(
        name="no gradient through the statistics",
        description="mean and variance count as constants in the backward pass",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._gradient_through_statistics,
            (
                "return (gradient - mean - normalized * slope) * (1 / deviation)",
                "return gradient * (1 / deviation)",
            ),
        ),
    ),
    Mutant(
        name="no gradient through the variance",
        description="the variance counts as a constant in the backward pass",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._gradient_through_statistics,
            ("gradient - mean - normalized * slope", "gradient - mean"),
        ),
    ),
    Mutant(
        name="scale's gradient is a mean",
        description="the gradients of scale and bias are means over the pixels, not sums",
        expected=_BN1,
        subject="resnet, train",
        change=partial(
            edited,
            layers._batch_norm_backward,
            ("count = math.prod(gradient.shape[:-1])", "count = 1"),
        ),
    ),
    Mutant(
        name="scale and bias swapped",
        description="the bias multiplies and the scale is added",
        expected=_BN1,
        subject="resnet, eval",
        change=partial(
            edited,
            layers.scale_and_shift,
            ("return normalized * scale + bias", "return normalized * bias + scale"),
        ),
    ),
)
