"""What is published about the named networks, as data: papers, pictures, recipes and errors."""

import dataclasses
import textwrap
from collections.abc import Iterator

from flaxnets import registry
from flaxnets.published_errors import DATASETS, PublishedError, errors_of
from flaxnets.published_recipes import (
    CIFAR_HABITS,
    IMAGENET_RECIPES,
    IMAGENET_RGB,
    RECIPES,
    Normalisation,
    Recipe,
)


@dataclasses.dataclass(frozen=True)
class Paper:
    """Where a network was proposed.

    Attributes:
        label: first author and year, as in the sources of errors: "He 2015".
        title: in full.
        authors: short.
        year: of the version that the label names.
        arxiv: identifier there.
    """

    label: str
    title: str
    authors: str
    year: int
    arxiv: str


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """Everything that is known of a named network before it is built.

    Attributes:
        name: in the registry.
        family: "ResNet", "DenseNet", ...: the class that ``create`` returns.
        config: the architecture, with its published number of classes.
        parameters: trainable ones, of the upstream module with that number of classes.
        source: the upstream project, or paper, whose details the network has.
        paper: where it was proposed.
        errors: published ones, none for a network that has none.
        input_size: height and width of the pictures it was made for.
        normalisations: of its source's pictures; the first is the one of its own data set.
        recipe: how its source trains it; None where that is not SGD on a published schedule.
        multiply_adds: published, for one picture of ``input_size``; None where nobody says.
    """

    name: str
    family: str
    config: registry.Config
    parameters: int
    source: str
    paper: Paper
    errors: tuple[PublishedError, ...]
    input_size: tuple[int, int]
    normalisations: tuple[Normalisation, ...]
    recipe: Recipe | None
    multiply_adds: int | None

    @property
    def normalisation(self) -> Normalisation:
        """The one of the network's own data set."""
        return self.normalisations[0]

    @property
    def best_error(self) -> PublishedError | None:
        """The lowest with one crop of the usual size, on ImageNet or else the first CIFAR set."""
        errors = [error for error in self.errors if error.view == "one crop"]
        for dataset in ("ImageNet", "CIFAR-10", "CIFAR-100"):
            if same := [error for error in errors if error.dataset == dataset]:
                return min(same, key=lambda error: error.top1)
        return None

    def __str__(self) -> str:
        """The facts in a form to read, at most 100 columns wide."""
        return "\n".join(_describe(self))


HE_2015 = Paper(
    "He 2015",
    "Deep Residual Learning for Image Recognition",
    "He, Zhang, Ren & Sun",
    2015,
    "1512.03385",
)
HE_2016 = Paper(
    "He 2016",
    "Identity Mappings in Deep Residual Networks",
    "He, Zhang, Ren & Sun",
    2016,
    "1603.05027",
)
ZAGORUYKO_2016 = Paper(
    "Zagoruyko 2016",
    "Wide Residual Networks",
    "Zagoruyko & Komodakis",
    2016,
    "1605.07146",
)
HUANG_2017 = Paper(
    "Huang 2017",
    "Densely Connected Convolutional Networks",
    "Huang, Liu, van der Maaten & Weinberger",
    2017,
    "1608.06993",
)
XIE_2017 = Paper(
    "Xie 2017",
    "Aggregated Residual Transformations for Deep Neural Networks",
    "Xie, Girshick, Dollár, Tu & He",
    2017,
    "1611.05431",
)

# For one picture of 224x224: the "GFLOPS" of torchvision's weights, which are multiply-adds.
_MULTIPLY_ADDS = {
    "resnet18": 1_814_000_000,
    "resnet34": 3_664_000_000,
    "resnet50": 4_089_000_000,
    "resnet101": 7_801_000_000,
    "resnet152": 11_514_000_000,
    "wide_resnet50_2": 11_398_000_000,
    "wide_resnet101_2": 22_753_000_000,
    "resnext50_32x4d": 4_230_000_000,
    "resnext101_32x8d": 16_414_000_000,
    "resnext101_64x4d": 15_460_000_000,
    "densenet121": 2_834_000_000,
    "densenet161": 7_728_000_000,
    "densenet169": 3_360_000_000,
    "densenet201": 4_291_000_000,
}

# Paper, and the source whose habits a CIFAR network of another one is given.
_FAMILIES = {
    "ResNet": (HE_2015, "He 2015"),
    "PreActResNet": (HE_2016, "He 2016"),
    "DenseNet": (HUANG_2017, "Huang 2017"),
    "WideResNet": (ZAGORUYKO_2016, "Zagoruyko 2016"),
}


def info(name: str) -> NetworkInfo:
    """What is published about a named network; ``print`` it to read it.

    Args:
        name: one of ``list_models()`` or a family alias.

    Raises:
        ValueError: there is no such network; near misses are suggested.
    """
    name = registry.canonical_name(name)
    network = registry.NETWORKS[name]
    config, source = network.config, network.source
    family = type(config).__name__.removesuffix("Config")
    recipe: str | None
    normalisations: tuple[Normalisation, ...]
    if getattr(config, "stem", "cifar") == "imagenet":
        size, normalisations = 224, (IMAGENET_RGB,)
        recipe = IMAGENET_RECIPES.get(name)
    else:
        size = 32
        recipe, normalisations = _cifar_habits(family, source)
    # Where the classes are CIFAR-100's, its statistics come first.
    if config.num_classes == 100:
        normalisations = tuple(sorted(normalisations, key=lambda n: n.dataset != "CIFAR-100"))
    return NetworkInfo(
        name=name,
        family=family,
        config=config,
        parameters=network.parameters,
        source=source,
        paper=_paper(name, family),
        errors=errors_of(name),
        input_size=(size, size),
        normalisations=normalisations,
        recipe=None if recipe is None else RECIPES[recipe],
        multiply_adds=_MULTIPLY_ADDS.get(name),
    )


def cifar_recipe(name: str) -> Recipe:
    """The recipe for a named network on CIFAR: its own, or, of an ImageNet network, its family's.

    Raises:
        ValueError: there is no such network; near misses are suggested.
    """
    network = info(name)
    if network.input_size == (32, 32) and network.recipe is not None:
        return network.recipe
    recipe, _ = _cifar_habits(network.family, "")
    return RECIPES[recipe]


def _cifar_habits(family: str, source: str) -> tuple[str, tuple[Normalisation, ...]]:
    """Recipe and normalisations of the project or paper that ``source`` begins with."""
    for project, habits in CIFAR_HABITS.items():
        if source.startswith(project):
            return habits
    return CIFAR_HABITS[_FAMILIES[family][1]]


def _paper(name: str, family: str) -> Paper:
    if name.startswith("resnext"):
        return XIE_2017
    if name.startswith("wide_resnet"):
        return ZAGORUYKO_2016
    # Thin bottlenecks on CIFAR, the baselines of the second paper.
    if name in ("resnet164", "resnet1001"):
        return HE_2016
    return _FAMILIES[family][0]


def _describe(network: NetworkInfo) -> Iterator[str]:
    """The lines of ``str(network)``."""
    config, paper = network.config, network.paper
    yield f"{network.name}: {network.family}, {network.parameters:,} parameters"
    facts = {
        "paper": f"{paper.title}, {paper.authors} {paper.year}, arXiv:{paper.arxiv}",
        "source": network.source,
        "input": "{}x{}".format(*network.input_size),
    }
    for normalisation in network.normalisations:
        mean, std = (
            " ".join(f"{value:g}" for value in values)
            for values in (normalisation.mean, normalisation.std)
        )
        facts[normalisation.dataset] = f"mean {mean}, std {std} ({normalisation.source})"
    if network.multiply_adds is not None:
        facts["multiply-adds"] = f"{network.multiply_adds / 1e9:.3f} G (torchvision)"
    if network.recipe is not None:
        facts["recipe"] = f"{network.recipe.name}, from {network.recipe.source}"
        facts["training"] = str(network.recipe)
    facts["config"] = ", ".join(
        f"{field.name}={getattr(config, field.name)!r}" for field in dataclasses.fields(config)
    )
    for name, text in facts.items():
        yield from _wrapped(f"{name:<15}", text)
    if not network.errors:
        yield "errors         none published"
        return
    yield ""
    yield "test error, %   top-1   top-5   published in"
    for error in sorted(network.errors, key=lambda error: DATASETS.index(error.dataset)):
        top5 = "-" if error.top5 is None else f"{error.top5:.2f}"
        view = "" if error.view == "one crop" else error.view
        remarks = [remark for remark in (view, error.note) if remark]
        where = error.source + (f": {'; '.join(remarks)}" if remarks else "")
        yield from _wrapped(f"{error.dataset:<14}  {error.top1:5.2f}  {top5:>6}   ", where)


def _wrapped(label: str, text: str) -> list[str]:
    """Lines of at most 100 columns: the text on the right of the label."""
    indent = " " * len(label)
    return textwrap.wrap(
        text, 100, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False
    )
