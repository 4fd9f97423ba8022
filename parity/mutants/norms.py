"""Mistakes in batch norm."""

from functools import partial

from flaxnets import densenet, layers, wide_resnet
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place

_BN1 = Place("isolated layers", "bn1")
_DENSE_NORM = "denseblock1.denselayer1.norm1"


def _statistics(key: str) -> Place:
    return Place("statistics", key)


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
        name="momentum 0.99",
        description="another library's default for the share of running statistics that is kept",
        expected=_statistics("bn1.running_mean"),
        subject="resnet, train",
        change=partial(
            edited, layers.BatchNorm.__init__, ("momentum: float = 0.9", "momentum: float = 0.99")
        ),
    ),
    Mutant(
        name="momentum 0.1",
        description="PyTorch's momentum taken for the share that is kept",
        expected=_statistics("bn1.running_mean"),
        subject="resnet, train",
        change=partial(
            edited, layers.BatchNorm.__init__, ("momentum: float = 0.9", "momentum: float = 0.1")
        ),
    ),
    Mutant(
        name="last norm's momentum forgotten",
        description="a network's last norm has the momentum of all others",
        expected=_statistics("bn1.running_mean"),
        subject="wrn, train",
        change=partial(
            edited,
            wide_resnet.WideResNet.__init__,
            ("norm(channels, momentum=config.final_norm_momentum)", "norm(channels)"),
        ),
    ),
    Mutant(
        name="biased running variance",
        description="the variance that is kept is divided by n, not by n - 1",
        expected=_statistics("bn1.running_var"),
        subject="resnet, train",
        change=partial(
            edited,
            layers.BatchNorm._update_running_statistics,
            ("var * (count / (count - 1))", "var"),
        ),
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
            edited,
            layers._normalize_forward,
            (
                "_channel_mean(jnp.square(centred))",
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
            ("centred = x - mean", "centred = x - x.mean((1, 2), keepdims=True)"),
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
            ("centred = x - mean", "centred = x - x.mean((0, 1), keepdims=True)"),
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
            ("mean = _channel_mean(x)", "mean = _channel_mean(x[:1])"),
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
        name="evaluation moves running statistics",
        description="running statistics move in evaluation too",
        expected=_statistics("bn1.running_mean"),
        subject="resnet, eval",
        change=partial(
            edited,
            layers.BatchNorm.__call__,
            (
                "if self.use_running_average:\n",
                "if self.use_running_average:\n"
                "        statistics = _normalize_forward(values, self.epsilon)[0][1:]\n"
                "        self._update_running_statistics(*statistics, values.shape)\n",
            ),
            (
                "mean, var = self.mean[...].astype(wide), self.var[...].astype(wide)",
                "mean, var = before",
            ),
            (
                "wide = ",
                "before = self.mean[...], self.var[...]\n    wide = ",
            ),
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
        name="running statistics not updated",
        description="running mean and variance stay what they were",
        expected=_statistics("bn1.running_mean"),
        subject="resnet, train",
        change=partial(
            edited,
            layers.BatchNorm._update_running_statistics,
            ("running.set_value(self.momentum * old + new)", "running.set_value(old)"),
        ),
    ),
    Mutant(
        name="batches not counted",
        description="num_batches_tracked stays what it was",
        expected=_statistics("bn1.num_batches_tracked"),
        subject="resnet, train",
        change=partial(
            edited,
            layers.BatchNorm._update_running_statistics,
            ("self.num_batches_tracked[...] + 1", "self.num_batches_tracked[...]"),
        ),
    ),
    Mutant(
        name="scale and bias swapped",
        description="the bias multiplies and the scale is added",
        expected=_BN1,
        subject="resnet, eval",
        change=partial(
            edited,
            layers._scale_and_shift,
            ("return normalized * scale + bias", "return normalized * bias + scale"),
        ),
    ),
    Mutant(
        name="dense layers' statistics not kept",
        description="norms that read maps normalised before keep no running statistics",
        expected=_statistics(f"{_DENSE_NORM}.running_mean"),
        subject="densenet, train",
        change=partial(
            edited,
            layers.BatchNorm.__call__,
            (
                "self._update_running_statistics(*statistics, values.shape)",
                "if not isinstance(x, FeatureMaps):\n"
                "        self._update_running_statistics(*statistics, values.shape)",
            ),
        ),
    ),
    Mutant(
        name="running statistics of another layer",
        description="a dense block's norms all evaluate with the running statistics of its first",
        expected=Place("layers", "denseblock1.denselayer2.norm1"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseBlock.__call__,
            (
                "new = observe(",
                "layer, first = (\n"
                '            getattr(self, f"denselayer{number}").norm1 for number in (index, 1)\n'
                "        )\n"
                "        for of in ('mean', 'var'):\n"
                "            kept, other = getattr(layer, of), getattr(first, of)[...]\n"
                "            kept.set_value(kept[...].at[: len(other)].set(other))\n"
                "        new = observe(",
            ),
        ),
    ),
    Mutant(
        name="shared maps not normalised anew",
        description="a transition's norm forgets that its maps bring their statistics along",
        expected=Place("layers", "transition1.norm"),
        subject="densenet, train",
        change=partial(
            edited,
            densenet.Transition.__call__,
            (
                "self.norm(maps)",
                "self.norm(FeatureMaps(maps.values, maps.values, maps.mean, maps.var))",
            ),
        ),
    ),
)
