"""The names that PyTorch code bases give the same layers, as tables that are read both ways.

A dialect belongs to one family. Its renames lead from this package's names, which are torchvision's
(for a DenseNet without the leading "features."), to upstream's. What a key can't show, upstream's
code decides, and the dialect states it: as ``fixed`` where that code knows nothing else, as
``assumed`` where code with the same names is known to differ, so that somebody has to confirm it.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from flaxnets.densenet import DenseNetConfig
from flaxnets.preact_resnet import PreActResNetConfig
from flaxnets.resnet import ResNetConfig
from flaxnets.wide_resnet import WideResNetConfig

OWN = "flaxnets"
BATCHES_TRACKED = "num_batches_tracked"
LEAVES = ("weight", "bias", "running_mean", "running_var", BATCHES_TRACKED)

# Fields that change nothing of what a network computes in evaluation mode.
TRAINING_ONLY = ("dropout", "dropout_before", "dropout_after", "final_norm_momentum")

# A place in a template: {*} is any text, {name}, {name+1} and {name-1} are whole numbers, counted
# from one more or one less than this package does.
_PLACE = re.compile(r"\{(\*|[a-z]+)([+-]1)?\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one code base names the layers of one family, and what it computes.

    Attributes:
        name: of the code base; it may have a dialect for each family.
        source: repository or chapter.
        family: class of the configs.
        renames: pairs of templates, this package's and upstream's, of a layer's name; or of a whole
            key, where ours ends in ".weight". The first that fits counts; other names are the same.
        fixed: config fields that upstream's code always has so: those that leave no trace in a
            key, and others, so that nothing is written in its names that it could not read.
        assumed: the same, but look-alikes are known that differ.
        choices: the values that a field may have in code with these names, where it has a choice.
        counts_batches: whether batch norms have ``num_batches_tracked``.
        note: what a user of upstream's module has to know besides.
    """

    name: str
    source: str
    family: type
    renames: tuple[tuple[str, str], ...] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    assumed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    counts_batches: bool = True
    note: str = ""

    def to_upstream(self, key: str) -> str:
        """Upstream's key for one of this package's."""
        return _translate(key, self.renames)

    def from_upstream(self, key: str) -> str | None:
        """This package's key for one of upstream's; None where upstream has no such key."""
        ours = _translate(key, _reversed(self.renames))
        return ours if self.to_upstream(ours) == key else None

    def contradictions(self, config: object, *, look_alikes: bool = False) -> dict[str, Any]:
        """The fields that upstream's code has otherwise, with its values; but for dropout and
        others that matter in training only.

        Args:
            config: of the dialect's family.
            look_alikes: whether what look-alikes are known to do is no contradiction.
        """
        values = {**self.fixed, **({} if look_alikes else self.assumed)}
        values = {name: value for name, value in values.items() if name not in TRAINING_ONLY}
        wrong = {field: value for field, value in values.items() if getattr(config, field) != value}
        for field, allowed in self.choices.items():
            if field not in values and getattr(config, field) not in allowed:
                wrong[field] = " or ".join(map(str, allowed))
        return wrong


def _reversed(renames: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((theirs, ours) for ours, theirs in renames)


def _translate(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, fill in _compiled(renames):
        match = pattern.fullmatch(key)
        if match:
            return fill(match)
    return key


@functools.cache
def _compiled(renames: tuple[tuple[str, str], ...]) -> tuple[tuple[re.Pattern[str], Any], ...]:
    compiled = []
    for source, target in renames:
        whole = source.endswith(".weight") or target.endswith(".weight")
        leaf = "" if whole else rf"\.(?P<leaf>{'|'.join(LEAVES)})"
        compiled.append((re.compile(_expression(source) + leaf), _filler(source, target, whole)))
    return tuple(compiled)


def _expression(template: str) -> str:
    parts, end = [], 0
    for place in _PLACE.finditer(template):
        parts.append(re.escape(template[end : place.start()]))
        name = place[1]
        parts.append("(?P<any>.+)" if name == "*" else rf"(?P<{name}>0|[1-9]\d*)")
        end = place.end()
    return "".join(parts) + re.escape(template[end:])


def _filler(source: str, target: str, whole: bool) -> Any:
    offsets = {place[1]: int(place[2] or 0) for place in _PLACE.finditer(source)}

    def fill(match: re.Match[str]) -> str:
        def value(place: re.Match[str]) -> str:
            name = place[1]
            if name == "*":
                return match["any"]
            return str(int(match[name]) - offsets[name] + int(place[2] or 0))

        return _PLACE.sub(value, target) + ("" if whole else f".{match['leaf']}")

    return fill


def _layers(*names: str) -> tuple[tuple[str, str], ...]:
    """Renames of pairs of names that are written "ours > theirs"."""
    pairs = (name.split(" > ") for name in names)
    return tuple((ours, theirs) for ours, theirs in pairs)


_PLAIN_RESNET = {"dropout": 0.0, "conv_bias": False, "project": "on_change"}
_PLAIN_DENSENET = {"dropout": 0.0, "concat": "old_new", "transition_relu": True}
_BOTTLENECKS_AND_HALVES = {"bottleneck": True, "compression": 0.5}
_PLAIN_WRN = {"block": "basic", "stride_on": "conv1", "final_norm_momentum": 0.9}
_LINEAR_AND_SHORTCUT = _layers(
    "layer{s}.{b}.downsample.{i} > layer{s}.{b}.shortcut.{i}", "fc > linear"
)
_PYTORCH_BOOK = _layers(
    "conv1 > pre.0",
    "bn1 > pre.1",
    "layer{s}.{b}.conv1 > layer{s}.{b}.left.0",
    "layer{s}.{b}.bn1 > layer{s}.{b}.left.1",
    "layer{s}.{b}.conv2 > layer{s}.{b}.left.3",
    "layer{s}.{b}.bn2 > layer{s}.{b}.left.4",
    "layer{s}.{b}.downsample.{i} > layer{s}.{b}.right.{i}",
)
_TORCHVISION_DENSENET = _layers("classifier > classifier", "{*} > features.{*}")
_TORCHVISION_RESNET_FIXED = _PLAIN_RESNET | {"stem": "imagenet", "shortcut": "projection"}
_TORCHVISION_DENSENET_FIXED = (
    _PLAIN_DENSENET | _BOTTLENECKS_AND_HALVES | {"stem": "imagenet", "dropout_after": "last_conv"}
)

RESNET = (
    Dialect(
        name="torchvision",
        source="torchvision.models.resnet",
        family=ResNetConfig,
        fixed=_TORCHVISION_RESNET_FIXED,
    ),
    Dialect(
        name="timm",
        source="timm.models.resnet (BasicBlock and Bottleneck without extras)",
        family=ResNetConfig,
        fixed=_TORCHVISION_RESNET_FIXED,
    ),
    Dialect(
        name="chenyaofo",
        source="chenyaofo/pytorch-cifar-models, resnet.py",
        family=ResNetConfig,
        # Code with the same names and other widths keeps a max-pooling that no key shows.
        fixed=_PLAIN_RESNET
        | {
            "stem": "cifar",
            "shortcut": "projection",
            "block": "basic",
            "stem_width": 16,
            "widths": (16, 32, 64),
        },
    ),
    Dialect(
        name="pytorch_book",
        source="chenyuntc/pytorch-book, chapter 4",
        family=ResNetConfig,
        renames=(*_PYTORCH_BOOK, ("fc", "classifier")),
        fixed=_TORCHVISION_RESNET_FIXED | {"block": "basic"},
    ),
    Dialect(
        name="pytorch_book_fc",
        source="chenyuntc/pytorch-book, chapter 9; chapters 4 and 6 of v0.3 to v1.0",
        family=ResNetConfig,
        renames=_PYTORCH_BOOK,
        fixed={
            "dropout": 0.0,
            "conv_bias": False,
            "stem": "imagenet",
            "shortcut": "projection",
            "block": "basic",
        },
    ),
    Dialect(
        name="kellerjordan",
        source="KellerJordan/ResNet-PyTorch-CIFAR10",
        family=ResNetConfig,
        renames=_layers(
            "bn1 > norm1",
            "layer{s}.{b}.downsample.0 > layers{s}.{b}.projection.conv",
            "layer{s}.{b}.{*} > layers{s}.{b}.{*}",
            "fc > linear",
        ),
        fixed={
            "dropout": 0.5,
            "conv_bias": True,
            "project": "on_change",
            "stem": "cifar",
            "block": "basic",
        },
        choices={"shortcut": ("zero_pad_end", "avg_pool_pad", "projection_biased")},
    ),
    Dialect(
        name="akamaster",
        source="akamaster/pytorch_resnet_cifar10",
        family=ResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed=_PLAIN_RESNET | {"stem": "cifar", "block": "basic"},
        assumed={"shortcut": "zero_pad_both"},
        choices={"shortcut": ("zero_pad_both", "zero_pad_end")},
    ),
    Dialect(
        name="akamaster",
        source="akamaster/pytorch_resnet_cifar10, option B",
        family=ResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed=_PLAIN_RESNET | {"stem": "cifar", "block": "basic", "shortcut": "projection"},
    ),
    Dialect(
        name="kuangliu",
        source="kuangliu/pytorch-cifar, resnet.py",
        family=ResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed=_PLAIN_RESNET | {"stem": "cifar", "shortcut": "projection"},
    ),
    Dialect(
        name="weiaicunzai",
        source="weiaicunzai/pytorch-cifar100, resnet.py",
        family=ResNetConfig,
        renames=_layers(
            "conv1 > conv1.0",
            "bn1 > conv1.1",
            "layer{s}.{b}.conv1 > conv{s+1}_x.{b}.residual_function.0",
            "layer{s}.{b}.bn1 > conv{s+1}_x.{b}.residual_function.1",
            "layer{s}.{b}.conv2 > conv{s+1}_x.{b}.residual_function.3",
            "layer{s}.{b}.bn2 > conv{s+1}_x.{b}.residual_function.4",
            "layer{s}.{b}.conv3 > conv{s+1}_x.{b}.residual_function.6",
            "layer{s}.{b}.bn3 > conv{s+1}_x.{b}.residual_function.7",
            "layer{s}.{b}.downsample.{i} > conv{s+1}_x.{b}.shortcut.{i}",
        ),
        fixed=_PLAIN_RESNET | {"stem": "cifar", "shortcut": "projection"},
    ),
    Dialect(name=OWN, source="flaxnets", family=ResNetConfig),
)

DENSENET = (
    Dialect(
        name="torchvision",
        source="torchvision.models.densenet",
        family=DenseNetConfig,
        renames=_TORCHVISION_DENSENET,
        fixed=_TORCHVISION_DENSENET_FIXED,
    ),
    Dialect(
        name="torchvision_2017",
        source="torchvision's published DenseNet files",
        family=DenseNetConfig,
        renames=_layers(
            "classifier > classifier",
            "denseblock{b}.denselayer{l}.norm{i} > features.denseblock{b}.denselayer{l}.norm.{i}",
            "denseblock{b}.denselayer{l}.conv{i} > features.denseblock{b}.denselayer{l}.conv.{i}",
            "{*} > features.{*}",
        ),
        fixed=_TORCHVISION_DENSENET_FIXED,
        note="the key names of 2017, which torchvision's module takes after its own renaming",
    ),
    Dialect(
        name="timm",
        source="timm.models.densenet",
        family=DenseNetConfig,
        renames=_TORCHVISION_DENSENET,
        fixed=_TORCHVISION_DENSENET_FIXED,
    ),
    Dialect(
        name="andreasveit",
        source="andreasveit/densenet-pytorch, and tutorials made from it",
        family=DenseNetConfig,
        renames=_layers(
            "conv0 > conv1",
            "denseblock{b}.denselayer{l}.norm{i} > block{b}.layer.{l-1}.bn{i}",
            "denseblock{b}.denselayer{l}.conv{i} > block{b}.layer.{l-1}.conv{i}",
            "transition{t}.norm > trans{t}.bn1",
            "transition{t}.conv > trans{t}.conv1",
            "norm5 > bn1",
            "classifier > fc",
        ),
        fixed={
            "stem": "cifar",
            "concat": "old_new",
            "transition_relu": True,
            "dropout_after": "every_conv",
        },
    ),
    Dialect(
        name="bamos",
        source="bamos/densenet.pytorch",
        family=DenseNetConfig,
        renames=_layers(
            "conv0 > conv1",
            "denseblock{b}.denselayer{l}.norm{i} > dense{b}.{l-1}.bn{i}",
            "denseblock{b}.denselayer{l}.conv{i} > dense{b}.{l-1}.conv{i}",
            "transition{t}.norm > trans{t}.bn1",
            "transition{t}.conv > trans{t}.conv1",
            "norm5 > bn1",
            "classifier > fc",
        ),
        fixed=_PLAIN_DENSENET | {"stem": "cifar"},
        note="upstream's module returns log-probabilities: log_softmax of these logits",
    ),
    Dialect(
        name="kuangliu",
        source="kuangliu/pytorch-cifar, densenet.py",
        family=DenseNetConfig,
        renames=_layers(
            "conv0 > conv1",
            "denseblock{b}.denselayer{l}.norm{i} > dense{b}.{l-1}.bn{i}",
            "denseblock{b}.denselayer{l}.conv{i} > dense{b}.{l-1}.conv{i}",
            "transition{t}.norm > trans{t}.bn",
            "transition{t}.conv > trans{t}.conv",
            "norm5 > bn",
            "classifier > linear",
        ),
        fixed=_PLAIN_DENSENET | _BOTTLENECKS_AND_HALVES | {"stem": "cifar", "concat": "new_old"},
    ),
    Dialect(
        name="weiaicunzai",
        source="weiaicunzai/pytorch-cifar100, densenet.py",
        family=DenseNetConfig,
        renames=_layers(
            "conv0 > conv1",
            *(
                f"{ours}.denselayer{{l}}.{layer} > features.{theirs}."
                f"bottle_neck_layer_{{l-1}}.bottle_neck.{place}"
                # The last of its four blocks has a name of another form.
                for ours, theirs in (
                    ("denseblock4", "dense_block3"),
                    ("denseblock{b}", "dense_block_layer_{b-1}"),
                )
                for layer, place in (("norm1", 0), ("conv1", 2), ("norm2", 3), ("conv2", 5))
            ),
            "transition{t}.norm > features.transition_layer_{t-1}.down_sample.0",
            "transition{t}.conv > features.transition_layer_{t-1}.down_sample.1",
            "norm5 > features.bn",
            "classifier > linear",
        ),
        fixed=_PLAIN_DENSENET
        | _BOTTLENECKS_AND_HALVES
        | {"stem": "cifar", "transition_relu": False},
    ),
    Dialect(name=OWN, source="flaxnets", family=DenseNetConfig),
)

WIDE_RESNET = (
    Dialect(
        name="xternalz",
        source="xternalz/WideResNet-pytorch",
        family=WideResNetConfig,
        renames=_layers(
            "layer{s}.{b}.downsample.0 > block{s}.layer.{b}.convShortcut",
            "layer{s}.{b}.{*} > block{s}.layer.{b}.{*}",
        ),
        fixed=_PLAIN_WRN
        | {"projection_input": "activated", "dropout_before": "conv2", "conv_bias": False},
    ),
    Dialect(
        name="szagoruyko",
        source="szagoruyko/wide-residual-networks, pytorch",
        family=WideResNetConfig,
        renames=_layers(
            "conv1.weight > conv0",
            "layer{s}.{b}.conv{i}.weight > group{s-1}.block{b}.conv{i-1}",
            "layer{s}.{b}.bn{i} > group{s-1}.block{b}.bn{i-1}",
            "layer{s}.{b}.downsample.0.weight > group{s-1}.block{b}.convdim",
            "bn1 > bn",
        ),
        fixed=_PLAIN_WRN | {"projection_input": "activated", "dropout": 0.0, "conv_bias": False},
        counts_batches=False,
    ),
    Dialect(
        name="meliketoy",
        source="meliketoy/wide-resnet.pytorch",
        family=WideResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed={
            "block": "basic",
            "conv_bias": True,
            "projection_input": "raw",
            "stride_on": "conv2",
            "dropout_before": "bn2",
            "final_norm_momentum": 0.1,
        },
    ),
    Dialect(
        name="weiaicunzai",
        source="weiaicunzai/pytorch-cifar100, wideresidual.py",
        family=WideResNetConfig,
        renames=_layers(
            "conv1 > init_conv",
            "layer{s}.{b}.bn1 > conv{s+1}.{b}.residual.0",
            "layer{s}.{b}.conv1 > conv{s+1}.{b}.residual.2",
            "layer{s}.{b}.bn2 > conv{s+1}.{b}.residual.3",
            "layer{s}.{b}.conv2 > conv{s+1}.{b}.residual.6",
            "layer{s}.{b}.downsample.0 > conv{s+1}.{b}.shortcut.0",
            "bn1 > bn",
            "fc > linear",
        ),
        fixed=_PLAIN_WRN
        | {
            "conv_bias": True,
            "projection_input": "raw",
            "dropout_before": "conv2",
            "dropout": 0.5,
        },
    ),
    Dialect(
        name="wrn_tutorial",
        source="a Korean WRN tutorial (stages layer2 to layer4, head fcl)",
        family=WideResNetConfig,
        renames=_layers(
            "layer{s}.{b}.downsample.0 > layer{s+1}.{b}.shortcut.0",
            "layer{s}.{b}.{*} > layer{s+1}.{b}.{*}",
            "bn1 > fcl.0",
            "fc > fcl.4",
        ),
        fixed=_PLAIN_WRN | {"projection_input": "raw", "dropout_before": "bn2", "conv_bias": False},
    ),
    Dialect(name=OWN, source="flaxnets", family=WideResNetConfig),
)

_KUANGLIU_PREACT = {
    "shortcut": "projection",
    "shortcut_input": "activated",
    "conv_bias": False,
    "stem_norm": False,
    "final_norm": False,
}

PREACT_RESNET = (
    Dialect(
        name="kuangliu",
        source="kuangliu/pytorch-cifar, preact_resnet.py",
        family=PreActResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed=_KUANGLIU_PREACT | {"block": "basic", "stride_on": "conv1"},
    ),
    Dialect(
        name="kuangliu",
        source="kuangliu/pytorch-cifar, preact_resnet.py",
        family=PreActResNetConfig,
        renames=_LINEAR_AND_SHORTCUT,
        fixed=_KUANGLIU_PREACT | {"block": "bottleneck", "stride_on": "conv2"},
    ),
    Dialect(
        name="weiaicunzai",
        source="weiaicunzai/pytorch-cifar100, preactresnet.py",
        family=PreActResNetConfig,
        renames=_layers(
            "conv1 > pre.0",
            "bn0 > pre.1",
            "layer{s}.{b}.bn1 > stage{s}.{b}.residual.0",
            "layer{s}.{b}.conv1 > stage{s}.{b}.residual.2",
            "layer{s}.{b}.bn2 > stage{s}.{b}.residual.3",
            "layer{s}.{b}.conv2 > stage{s}.{b}.residual.5",
            "layer{s}.{b}.bn3 > stage{s}.{b}.residual.6",
            "layer{s}.{b}.conv3 > stage{s}.{b}.residual.8",
            "layer{s}.{b}.downsample.0 > stage{s}.{b}.shortcut",
            "fc > linear",
        ),
        fixed={
            "shortcut": "projection",
            "shortcut_input": "raw",
            "stride_on": "conv1",
            "conv_bias": True,
            "stem_norm": True,
            "final_norm": False,
        },
    ),
    Dialect(name=OWN, source="flaxnets", family=PreActResNetConfig),
)

DIALECTS: tuple[Dialect, ...] = (*RESNET, *PREACT_RESNET, *DENSENET, *WIDE_RESNET)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """A network that is recognised, and that no config expresses.

    Attributes:
        source: repository and file.
        marks: keys that it has.
        absent: keys that would speak against it.
        reason: why it is not expressed.
    """

    source: str
    marks: frozenset[str]
    absent: frozenset[str] = frozenset()
    reason: str


REFUSED = (
    Refusal(
        source="meliketoy/wide-resnet.pytorch, networks/resnet.py",
        marks=frozenset({"conv1.bias", "layer1.0.conv1.bias", "layer2.0.shortcut.1.weight"}),
        absent=frozenset({"layer4.0.conv1.weight"}),
        reason="it drops the fourth stage of its own table and puts a bias under every batch norm, "
        "so that its ResNet-18 is a network of 14 layers that no paper describes; "
        "it is left out here",
    ),
)
