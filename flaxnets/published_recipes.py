"""Published training recipes, and how the papers and upstream projects normalise pictures."""

import dataclasses
from typing import Any

from flaxnets.published_errors import DataSet


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """(pixel - mean) / std for each channel, with pixels in 0..1.

    Attributes:
        dataset: whose pictures are normalised by it.
        mean: of red, green and blue.
        std: likewise.
        source: who normalises so.
    """

    dataset: DataSet
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum.

    Attributes:
        name: what it is called here.
        source: where the numbers come from.
        epochs: passes over the training pictures.
        batch_size: pictures in an update, over all devices.
        learning_rate: the highest rate.
        weight_decay: of every parameter.
        nesterov: whether with Nesterov's look-ahead.
        momentum: of SGD.
        schedule: "step", "cosine" or "constant".
        milestones: 0-based epochs, out of ``epochs``, that begin with a multiplied rate.
        decay_factor: what the rate is multiplied by there.
        warmup_epochs: length of the linear warm-up.
    """

    name: str
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
        """The numbers by name, but for the milestones, which depend on the number of epochs."""
        values = dataclasses.asdict(self)
        for field in ("name", "source", "milestones"):
            del values[field]
        return values

    def __str__(self) -> str:
        """The numbers in one line."""
        rate = f"rate {self.learning_rate:g}"
        if self.milestones:
            rate += f" (times {self.decay_factor:g} after {_listed(self.milestones)} epochs)"
        elif self.schedule == "cosine":
            rate += " (cosine)"
        parts = [
            f"{self.epochs} epochs",
            f"batch {self.batch_size}",
            f"SGD with {'Nesterov ' if self.nesterov else ''}momentum {self.momentum:g}",
            rate,
            f"weight decay {self.weight_decay:g}",
        ]
        if self.warmup_epochs:
            parts.append(f"{self.warmup_epochs:g}-epoch warm-up")
        return "; ".join(parts)


def _listed(numbers: tuple[int, ...]) -> str:
    """(1, 2, 3) as "1, 2 and 3"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


# Recipes. An upstream project's stands for its paper's where it has an answer to what the paper
# leaves open, and the other way round.

_STEPS = Recipe(
    "he_2015",
    "He et al. 2015, section 4.2, in the epochs of akamaster/pytorch_resnet_cifar10",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=1e-4,
    milestones=(100, 150),
)
_IMAGENET_STEPS = Recipe(
    "torchvision",
    "torchvision, references/classification, V1 weights",
    epochs=90,
    batch_size=256,
    learning_rate=0.1,
    weight_decay=1e-4,
    milestones=(30, 60),
)
_COSINE = Recipe(
    "kuangliu",
    "kuangliu/pytorch-cifar (the rate falls with every update, not epoch)",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    schedule="cosine",
)
_WRN = Recipe(
    "zagoruyko_2016",
    "Zagoruyko and Komodakis 2016, section 3",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    nesterov=True,
    milestones=(60, 120, 160),
    decay_factor=0.2,
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        _STEPS,
        dataclasses.replace(
            _STEPS,
            name="he_2016",
            source="He et al. 2016, 64,000 updates (the warm-up there is 400 updates at 0.01)",
            epochs=164,
            milestones=(82, 123),
            warmup_epochs=1.0,
        ),
        dataclasses.replace(
            _STEPS,
            name="fb_resnet_torch",
            source="facebook/fb.resnet.torch",
            epochs=164,
            nesterov=True,
            milestones=(80, 121),
        ),
        dataclasses.replace(
            _STEPS,
            name="resnet_1k_layers",
            source="KaimingHe/resnet-1k-layers",
            batch_size=64,
            nesterov=True,
            milestones=(80, 121),
        ),
        dataclasses.replace(
            _STEPS,
            name="kellerjordan",
            source="KellerJordan/ResNet-PyTorch-CIFAR10",
            epochs=60,
            milestones=(50, 55),
        ),
        _COSINE,
        dataclasses.replace(
            _COSINE,
            name="chenyaofo",
            source="chenyaofo/pytorch-cifar-models (the rate falls with every update, not epoch)",
            batch_size=256,
            nesterov=True,
        ),
        Recipe(
            "huang_2017",
            "Huang et al. 2017, section 4.2; andreasveit/densenet-pytorch",
            epochs=300,
            batch_size=64,
            learning_rate=0.1,
            weight_decay=1e-4,
            nesterov=True,
            milestones=(150, 225),
        ),
        _WRN,
        dataclasses.replace(
            _WRN, name="meliketoy", source="meliketoy/wide-resnet.pytorch", nesterov=False
        ),
        dataclasses.replace(
            _WRN,
            name="weiaicunzai",
            source="weiaicunzai/pytorch-cifar100",
            nesterov=False,
            milestones=(59, 119, 159),
            warmup_epochs=1.0,
        ),
        _IMAGENET_STEPS,
        dataclasses.replace(
            _IMAGENET_STEPS, name="torchvision_resnext", epochs=100, milestones=(30, 60, 90)
        ),
        dataclasses.replace(
            _IMAGENET_STEPS,
            name="fb_imagenet",
            source="facebook/fb.resnet.torch, as in Zagoruyko 2016 and Huang 2017",
            nesterov=True,
        ),
    )
}

# What the papers and the upstream projects do, by the beginning of the registry's ``source``.

IMAGENET_RGB = Normalisation(
    "ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "torchvision"
)
_FB_CIFAR = (
    Normalisation(
        "CIFAR-10", (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616), "fb.resnet.torch"
    ),
    Normalisation(
        "CIFAR-100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), "fb.resnet.torch"
    ),
)
# Not the deviation over all pixels but the mean of each picture's own.
_KUANGLIU = Normalisation(
    "CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "kuangliu"
)
_WEIAICUNZAI = Normalisation(
    "CIFAR-100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "weiaicunzai"
)


def _same(
    normalisation: Normalisation, source: str, *datasets: DataSet
) -> tuple[Normalisation, ...]:
    replace = dataclasses.replace
    return tuple(replace(normalisation, dataset=data, source=source) for data in datasets)


CIFAR_HABITS: dict[str, tuple[str, tuple[Normalisation, ...]]] = {
    "He 2015": ("he_2015", _FB_CIFAR),
    "He 2016": ("he_2016", _FB_CIFAR),
    "fb.resnet.torch": ("fb_resnet_torch", _FB_CIFAR),
    "KaimingHe": ("resnet_1k_layers", _FB_CIFAR),
    "akamaster": ("he_2015", _same(IMAGENET_RGB, "akamaster", "CIFAR-10")),
    "KellerJordan": (
        "kellerjordan",
        (Normalisation("CIFAR-10", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "KellerJordan"),),
    ),
    "kuangliu": ("kuangliu", (_KUANGLIU,)),
    "chenyaofo": (
        "chenyaofo",
        (
            *_same(_KUANGLIU, "chenyaofo", "CIFAR-10"),
            Normalisation(
                "CIFAR-100", (0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761), "chenyaofo"
            ),
        ),
    ),
    "weiaicunzai": ("weiaicunzai", (_WEIAICUNZAI,)),
    "Huang 2017": ("huang_2017", _FB_CIFAR),
    "andreasveit": ("huang_2017", _same(_FB_CIFAR[0], "andreasveit", "CIFAR-10")),
    "Zagoruyko 2016": ("zagoruyko_2016", _FB_CIFAR),
    "xternalz": ("zagoruyko_2016", _same(_FB_CIFAR[0], "xternalz", "CIFAR-10", "CIFAR-100")),
    "meliketoy": (
        "meliketoy",
        (
            *_same(_KUANGLIU, "meliketoy", "CIFAR-10"),
            *_same(_FB_CIFAR[1], "meliketoy", "CIFAR-100"),
        ),
    ),
}

# torchvision's V1 weights of its other networks come from training that no recipe here describes.
IMAGENET_RECIPES = {
    "wide_resnet50_2": "fb_imagenet",
    "resnext50_32x4d": "torchvision_resnext",
    "resnext101_32x8d": "torchvision_resnext",
    **{f"resnet{depth}": "torchvision" for depth in (18, 34, 50, 101, 152)},
    **{f"densenet{depth}": "fb_imagenet" for depth in (121, 161, 169, 201, 264)},
}
