"""The recipe of a network on a data set, and the full configuration of a run made from one.

The published recipes for CIFAR are data of ``flaxnets``; those for the digits are here.
"""

import dataclasses
from typing import Any

import flaxnets
from flaxnets.published import cifar_recipe
from flaxnets.published_recipes import Recipe
from train.schedule import SCHEDULES, Schedule
from train.schedule import build as build_schedule

DTYPES = ("float32", "bfloat16")


_DIGITS = Recipe(
    "digits",
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
    "ResNet": _DIGITS,
    "PreActResNet": _DIGITS,
    "DenseNet": dataclasses.replace(_DIGITS, epochs=4, learning_rate=0.2),
    "WideResNet": dataclasses.replace(_DIGITS, epochs=2),
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
    """Return the recipe of a named network on a data set; on the digits it is its family's.

    Raises:
        ValueError: an unknown network.
    """
    if dataset == "digits":
        return DIGITS_RECIPES[flaxnets.info(arch).family]
    return cifar_recipe(arch)


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
