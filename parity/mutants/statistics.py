"""Mistakes in batch norm's running statistics."""

from functools import partial

from flaxnets import densenet, layers, wide_resnet
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place

_DENSE_NORM = "denseblock1.denselayer1.norm1"


def _statistics(key: str) -> Place:
    return Place("statistics", key)


MUTANTS = (
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
                "for of in ('mean', 'var'):\n"
                "                kept, other = (getattr(x.norm1, of) for x in (layer, layers[0]))\n"
                "                kept.set_value(kept[...].at[: other.size].set(other[...]))\n"
                "            new = observe(",
            ),
        ),
    ),
)
