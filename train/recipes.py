"""Published training recipes as data, and the full configuration of a run made from one.

The numbers are the papers' or, where these leave a choice open, those of PyTorch code with
published results. All recipes are SGD with momentum that decays every parameter.
"""

import dataclasses
from typing import Any

import flaxnets
from train.schedule import SCHEDULES, Schedule
from train.schedule import build as build_schedule

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a family of networks is trained on one data set.

    Attributes:
        source: where the numbers come from.
        epochs: passes over the training pictures.
        batch_size: pictures in an update, over all devices.
        learning_rate: the highest rate.
        schedule: "step", "cosine" or "constant".
        milestones: 0-based epochs, out of ``epochs``, that begin with a multiplied rate.
        decay_factor: what the rate is multiplied by there.
        warmup_epochs: length of the linear warm-up.
        momentum: of SGD.
        nesterov: whether with Nesterov's look-ahead.
        weight_decay: of every parameter.
    """

    source: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    nesterov: bool = False
    momentum: float = 0.9
    schedule: str = "step"
    milestones: tuple[int, ...] = ()
    decay_factor: float = 0.1
    warmup_epochs: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The fields that are also a :class:`Config`'s, but for the milestones."""
        values = dataclasses.asdict(self)
        del values["source"], values["milestones"]
        return values


CIFAR_RECIPES = {
    "kellerjordan": Recipe(
        "KellerJordan/ResNet-PyTorch-CIFAR10",
        epochs=60,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=1e-4,
        milestones=(50, 55),
    ),
    "resnet_cifar": Recipe(
        "kuangliu/pytorch-cifar (the rate falls with every update, there once an epoch)",
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
    ),
    "resnet": Recipe(
        "He et al. 2015, section 4.2, in the epochs of akamaster/pytorch_resnet_cifar10",
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=1e-4,
        milestones=(100, 150),
    ),
    "densenet": Recipe(
        "Huang et al. 2017, section 4.2; andreasveit/densenet-pytorch",
        epochs=300,
        batch_size=64,
        learning_rate=0.1,
        weight_decay=1e-4,
        nesterov=True,
        milestones=(150, 225),
    ),
    "wrn": Recipe(
        "Zagoruyko and Komodakis 2016, section 3",
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
        nesterov=True,
        milestones=(60, 120, 160),
        decay_factor=0.2,
    ),
}

_DIGITS = Recipe(
    "chosen here for short runs on a CPU",
    epochs=8,
    batch_size=32,
    learning_rate=0.1,
    weight_decay=5e-4,
    nesterov=True,
    schedule="cosine",
    warmup_epochs=0.5,
)
DIGITS_RECIPES = {
    "resnet": _DIGITS,
    "densenet": dataclasses.replace(_DIGITS, epochs=4, learning_rate=0.2),
    "wrn": dataclasses.replace(_DIGITS, epochs=2),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number of a run, resolved; what ``config.json`` holds under "config".

    ``milestones`` are 0-based epochs of this run. ``dropout`` None keeps the network's own rate,
    ``steps_per_dispatch`` None lets the loop choose, ``checkpoint_every`` None means once an epoch.
    """

    arch: str
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    milestones: tuple[int, ...]
    decay_factor: float
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    dropout: float | None = None
    seed: int = 0
    dtype: str = "float32"
    steps_per_dispatch: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_dispatch", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{_flag(name)} must be at least 1, got {value}")
        if self.warmup_epochs < 0:
            raise ValueError(f"--warmup-epochs must not be negative, got {self.warmup_epochs:g}")
        for name, known in (("schedule", SCHEDULES), ("dtype", DTYPES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{_flag(name)} must be one of {', '.join(known)}; got {value!r}")
        if self.milestones and self.schedule != "step":
            raise ValueError(f"--milestones mean nothing with --schedule {self.schedule}")
        if list(self.milestones) != sorted(self.milestones) or min(self.milestones, default=1) < 1:
            raise ValueError(
                f"--milestones must be ascending epochs from 1 on, got {list(self.milestones)}"
            )

    def learning_rates(self, steps_per_epoch: int) -> Schedule:
        """Return the learning rate as a function of the step."""
        return build_schedule(
            self.schedule,
            self.learning_rate,
            epochs=self.epochs,
            steps_per_epoch=steps_per_epoch,
            milestones=self.milestones,
            factor=self.decay_factor,
            warmup_epochs=self.warmup_epochs,
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def find(arch: str, dataset: str) -> Recipe:
    """Return the recipe of a named network's family on a data set."""
    recipes = DIGITS_RECIPES if dataset == "digits" else CIFAR_RECIPES
    if arch.startswith("wrn"):
        family = "wrn"
    elif arch.startswith("densenet"):
        family = "densenet"
    elif arch.startswith("kellerjordan"):
        family = "kellerjordan"
    elif arch.endswith("_cifar"):
        family = "resnet_cifar"
    else:
        family = "resnet"
    return recipes.get(family, recipes["resnet"])


def resolve(arch: str, dataset: str, **given: Any) -> Config:
    """Fill in what isn't given, or is None, from the recipe of the network and data set.

    Milestones of the recipe are rescaled to the number of epochs, rounded up to whole epochs: half
    of 300 is 150, half of 3 is 2. A schedule other than the recipe's has no milestones.

    Args:
        arch: a network's name or alias.
        dataset: a data set's name.
        given: other fields of :class:`Config`.

    Raises:
        ValueError: an unknown network, or values that can't be; the message names the flag.
    """
    name = flaxnets.canonical_name(arch)
    recipe = find(name, dataset)
    values = recipe.settings() | {key: value for key, value in given.items() if value is not None}
    if "milestones" not in values:
        same = values["schedule"] == recipe.schedule
        values["milestones"] = tuple(
            -(-milestone * values["epochs"] // recipe.epochs)
            for milestone in (recipe.milestones if same else ())
        )
    return Config(arch=name, dataset=dataset, **values)
