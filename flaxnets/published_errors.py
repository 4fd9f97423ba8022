"""Published test errors of the named networks, as the tables and READMEs print them.

Top-1 and top-5 in percent, each with its table, README or weights. The CIFAR networks were trained
with random shifts and flips unless a note says otherwise. Numbers whose network differs from the
named one in more than its training have a note that says how.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

DataSet = Literal["ImageNet", "CIFAR-10", "CIFAR-100", "SVHN"]
DATASETS: tuple[DataSet, ...] = get_args(DataSet)
View = Literal["one crop", "10 crops", "several scales"]
Percent = float | tuple[float, float] | None  # top-1, or top-1 and top-5


@dataclasses.dataclass(frozen=True)
class PublishedError:
    """One published test error.

    Attributes:
        dataset: what it was measured on.
        top1: percent of pictures whose likeliest class is wrong.
        top5: percent whose class is not among the five likeliest; None where it isn't given.
        source: the table, README or weights it comes from.
        note: what sets the number apart: how it was chosen, or how the network or its training
            differs.
        view: how each test picture is shown.
    """

    dataset: DataSet
    top1: float
    top5: float | None
    source: str
    note: str = ""
    view: View = "one crop"


@dataclasses.dataclass(frozen=True)
class Column:
    """What the numbers of one column have in common; the fields are ``PublishedError``'s."""

    dataset: DataSet
    note: str = ""
    view: View = "one crop"


@dataclasses.dataclass(frozen=True)
class Table:
    """A published table, or README.

    Attributes:
        source: where it is printed.
        columns: what is measured.
        rows: by network, a number for each column or None.
        accuracies: whether these are percentages of right answers.
    """

    source: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Percent, ...]]
    accuracies: bool = False


def errors_of(name: str) -> tuple[PublishedError, ...]:
    """The published errors of a named network, in the order of the tables; none is ().

    Args:
        name: of the registry, not an alias.
    """
    found = []
    for table in TABLES:
        if name not in table.rows:
            continue
        for column, percent in zip(table.columns, table.rows[name], strict=True):
            if percent is None:
                continue
            top1, top5 = percent if isinstance(percent, tuple) else (percent, None)
            if table.accuracies:
                top1, top5 = round(100 - top1, 3), None if top5 is None else round(100 - top5, 3)
            found.append(
                PublishedError(column.dataset, top1, top5, table.source, column.note, column.view)
            )
    return tuple(found)


_BEST_EPOCH = "the best test epoch"
_MEDIAN = "median of 5 runs"
_UNAUGMENTED = "pictures neither shifted nor flipped"
_ZCA = "ZCA-whitened pictures"
_V1_STRIDE = "stride on the first 1x1 convolution"

IMAGENET = (
    Table(
        "torchvision V1 weights",
        (Column("ImageNet"),),
        {
            "resnet18": ((69.758, 89.078),),
            "resnet34": ((73.314, 91.420),),
            "resnet50": ((76.130, 92.862),),
            "resnet101": ((77.374, 93.546),),
            "resnet152": ((78.312, 94.046),),
            "wide_resnet50_2": ((78.468, 94.086),),
            "wide_resnet101_2": ((78.848, 94.284),),
            "resnext50_32x4d": ((77.618, 93.698),),
            "resnext101_32x8d": ((79.312, 94.526),),
            "resnext101_64x4d": ((83.246, 96.454),),
            "densenet121": ((74.434, 91.972),),
            "densenet161": ((77.138, 93.560),),
            "densenet169": ((75.600, 92.806),),
            "densenet201": ((76.896, 93.370),),
        },
        accuracies=True,
    ),
    Table(
        "torchvision V2 weights",
        (Column("ImageNet"),),
        {
            "resnet50": ((80.858, 95.434),),
            "resnet101": ((81.886, 95.780),),
            "resnet152": ((82.284, 96.002),),
            "wide_resnet50_2": ((81.602, 95.758),),
            "wide_resnet101_2": ((82.510, 96.020),),
            "resnext50_32x4d": ((81.198, 95.340),),
            "resnext101_32x8d": ((82.834, 96.228),),
        },
        accuracies=True,
    ),
    Table(
        "timm",
        (
            Column("ImageNet", "torchvision's V1 weights"),
            Column("ImageNet", "torchvision's V1 weights, pictures resized bicubically"),
            Column("ImageNet", "weights a1"),
            Column("ImageNet", "weights racm"),
            Column("ImageNet", "weights ra"),
        ),
        {
            "resnet18": (69.752, None, None, None, None),
            "resnet34": (73.298, None, 76.420, None, None),
            "resnet50": (76.156, None, None, None, None),
            "resnet101": (77.404, None, None, None, None),
            "resnet152": (78.330, None, None, None, None),
            "wide_resnet50_2": (78.486, None, None, 81.466, None),
            "wide_resnet101_2": (78.862, None, None, None, None),
            "densenet121": (None, 74.750, None, None, 75.574),
            "densenet161": (None, 77.384, None, None, None),
            "densenet169": (None, 75.922, None, None, None),
            "densenet201": (None, 77.284, None, None, None),
        },
        accuracies=True,
    ),
    Table(
        "He 2015, table 2",
        (Column("ImageNet", "zero-padded shortcuts", "10 crops"),),
        {"resnet18": (27.88,)},
    ),
    Table(
        "He 2015, tables 3 and 4",
        (
            Column("ImageNet", view="10 crops"),
            Column("ImageNet", view="several scales"),
            Column("ImageNet", _V1_STRIDE, "10 crops"),
            Column("ImageNet", _V1_STRIDE, "several scales"),
        ),
        {
            "resnet34": ((24.52, 7.46), (21.84, 5.71), None, None),
            "resnet50": (None, None, (22.85, 6.71), (20.74, 5.25)),
            "resnet101": (None, None, (21.75, 6.05), (19.87, 4.60)),
            "resnet152": (None, None, (21.43, 5.71), (19.38, 4.49)),
        },
    ),
    Table(
        "KaimingHe/deep-residual-networks",
        (Column("ImageNet", _V1_STRIDE),),
        {
            "resnet50": ((24.7, 7.8),),
            "resnet101": ((23.6, 7.1),),
            "resnet152": ((23.0, 6.7),),
        },
    ),
    Table(
        "fb.resnet.torch README",
        (Column("ImageNet"), Column("ImageNet", view="10 crops")),
        {
            "resnet18": ((30.43, 10.76), (28.22, 9.42)),
            "resnet34": ((26.73, 8.74), (24.76, 7.35)),
            "resnet50": ((24.01, 7.02), (22.24, 6.08)),
            "resnet101": ((22.44, 6.21), (21.08, 5.35)),
            "resnet152": ((22.16, 6.16), (20.69, 5.21)),
        },
    ),
    Table("Zagoruyko 2016, table 8", (Column("ImageNet"),), {"wide_resnet50_2": ((21.9, 6.03),)}),
    Table(
        "Huang 2017, table 3",
        (Column("ImageNet"), Column("ImageNet", view="10 crops")),
        {
            "densenet121": ((25.02, 7.71), (23.61, 6.66)),
            "densenet169": ((23.80, 6.85), (22.08, 5.92)),
            "densenet201": ((22.58, 6.34), (21.46, 5.54)),
            "densenet264": ((22.15, 6.12), (20.80, 5.29)),
        },
    ),
    Table(
        "liuzhuang13/DenseNet README",
        (Column("ImageNet"),),
        {
            "densenet121": (25.0,),
            "densenet161": (22.2,),
            "densenet169": (23.6,),
            "densenet201": (22.5,),
            "densenet264": (22.1,),
        },
    ),
)

# He's 6.43 is the best of five runs where his later medians are 6.61; WRN's table 5 prints the
# CIFAR-100 errors of 164 and 1001 layers under other depths.
CIFAR_RESNET = (
    Table(
        "He 2015, table 6",
        (Column("CIFAR-10"), Column("CIFAR-10", "best of 5 runs, 6.61 +- 0.16")),
        {
            "resnet20": (8.75, None),
            "resnet32": (7.51, None),
            "resnet44": (7.17, None),
            "resnet56": (6.97, None),
            "resnet110": (None, 6.43),
            "resnet1202": (7.93, None),
        },
    ),
    Table(
        "akamaster README",
        (Column("CIFAR-10"),),
        {
            "resnet20": (8.27,),
            "resnet32": (7.37,),
            "resnet44": (6.90,),
            "resnet56": (6.61,),
            "resnet110": (6.32,),
            "resnet1202": (6.18,),
        },
    ),
    Table(
        "stochastic depth, in Huang 2017, table 2",
        (
            Column("CIFAR-10"),
            Column("CIFAR-10", _UNAUGMENTED),
            Column("CIFAR-100"),
            Column("CIFAR-100", _UNAUGMENTED),
            Column("SVHN"),
        ),
        {"resnet110": (6.41, 13.63, 27.22, 44.74, 2.01)},
    ),
    Table(
        "chenyaofo",
        (
            Column("CIFAR-10", _BEST_EPOCH),
            Column("CIFAR-10", "the last epoch"),
            Column("CIFAR-100", _BEST_EPOCH),
            Column("CIFAR-100", "the last epoch"),
        ),
        {
            "resnet20_b": (7.40, 7.44, 31.17, 31.52),
            "resnet32_b": (6.47, 6.59, 29.84, 30.00),
            "resnet44_b": (5.99, 6.15, 28.37, 28.37),
            "resnet56_b": (5.63, 5.79, 27.37, 27.63),
        },
    ),
    Table(
        "KellerJordan README",
        (Column("CIFAR-10"),),
        {"kellerjordan_resnet56": (91.69,)},
        accuracies=True,
    ),
    Table(
        "kuangliu README",
        (Column("CIFAR-10", _BEST_EPOCH),),
        {
            "resnet18_cifar": (93.02,),
            "resnet50_cifar": (93.62,),
            "resnet101_cifar": (93.75,),
            "preact_resnet18_cifar": (95.11,),
            "densenet121_cifar": (95.04,),
        },
        accuracies=True,
    ),
    Table(
        "weiaicunzai README",
        (Column("CIFAR-100", _BEST_EPOCH),),
        {
            "resnet18_cifar": ((24.39, 6.95),),
            "resnet34_cifar": ((23.24, 6.63),),
            "resnet50_cifar": ((22.61, 6.04),),
            "resnet101_cifar": ((22.22, 5.61),),
            "resnet152_cifar": ((22.31, 5.81),),
            "weiaicunzai_preact_resnet18_cifar": ((27.08, 8.53),),
            "weiaicunzai_preact_resnet34_cifar": ((24.79, 7.68),),
            "weiaicunzai_preact_resnet50_cifar": ((25.73, 8.15),),
            "weiaicunzai_preact_resnet101_cifar": ((24.84, 7.83),),
            "weiaicunzai_preact_resnet152_cifar": ((22.71, 6.62),),
        },
    ),
    Table(
        "He 2016, table 3",
        (Column("CIFAR-10", _MEDIAN), Column("CIFAR-100", _MEDIAN)),
        {
            "resnet110": (6.61, None),
            "resnet164": (5.93, 25.16),
            "resnet1001": (7.61, 27.82),
            "preact_resnet110": (6.37, None),
            "preact_resnet164": (5.46, 24.33),
            "preact_resnet1001": (4.92, 22.71),
        },
    ),
    Table(
        "He 2016, table 4",
        (Column("CIFAR-10", "batches of 64; median of 5 runs, 4.69 +- 0.20"),),
        {"preact_resnet1001": (4.62,)},
    ),
    Table(
        "Huang 2017, table 2",
        (Column("CIFAR-10", _UNAUGMENTED), Column("CIFAR-100", _UNAUGMENTED)),
        {"preact_resnet164": (11.26, 35.58), "preact_resnet1001": (10.56, 33.47)},
    ),
)

CIFAR_DENSENET = (
    Table(
        "Huang 2017, table 2",
        (
            Column("CIFAR-10"),
            Column("CIFAR-10", f"{_UNAUGMENTED}; dropout 0.2"),
            Column("CIFAR-100"),
            Column("CIFAR-100", f"{_UNAUGMENTED}; dropout 0.2"),
            Column("SVHN", "dropout 0.2"),
        ),
        {
            "densenet_40_12": (5.24, 7.00, 24.42, 27.55, 1.79),
            "densenet_100_12": (4.10, 5.77, 20.20, 23.79, 1.67),
            "densenet_100_24": (3.74, 5.83, 19.25, 23.42, 1.59),
            "densenet_bc_100_12": (4.51, 5.92, 22.27, 24.15, 1.76),
            "densenet_bc_250_24": (3.62, 5.19, 17.60, 19.64, 1.74),
            "densenet_bc_190_40": (3.46, None, 17.18, None, None),
        },
    ),
    Table(
        "liuzhuang13/DenseNet README",
        (Column("CIFAR-10"), Column("CIFAR-100")),
        {
            "densenet_bc_40_36": (4.58, 22.30),
            "densenet_bc_40_48": (3.99, 20.29),
            "densenet_bc_40_60": (4.01, 19.99),
        },
    ),
    Table("bamos README", (Column("CIFAR-10"),), {"densenet_bc_100_12": (4.77,)}),
    Table(
        "andreasveit README",
        (Column("CIFAR-10"), Column("CIFAR-10", "a stem of 24 channels")),
        {"densenet_bc_100_12": (4.76, None), "densenet_40_12": (None, 5.35)},
    ),
    Table(
        "weiaicunzai README",
        (Column("CIFAR-100", _BEST_EPOCH),),
        {
            "weiaicunzai_densenet121_cifar": ((22.99, 6.45),),
            "weiaicunzai_densenet161_cifar": ((21.56, 6.04),),
            "weiaicunzai_densenet201_cifar": ((21.46, 5.9),),
        },
    ),
)

# The authors ask for the numbers without ZCA whitening to be compared with; Huang 2017 quotes those
# with it.
WRN = (
    Table(
        "Zagoruyko 2016, table 5",
        (Column("CIFAR-10", _MEDIAN), Column("CIFAR-100", _MEDIAN)),
        {
            "wrn_16_8": (4.27, 20.43),
            "wrn_28_10": (4.00, 19.25),
            "wrn_40_4": (4.53, 21.18),
        },
    ),
    Table(
        "Zagoruyko 2016, table 6",
        (
            Column("CIFAR-10", _MEDIAN),
            Column("CIFAR-10", f"dropout 0.3; {_MEDIAN}"),
            Column("CIFAR-100", _MEDIAN),
            Column("CIFAR-100", f"dropout 0.3; {_MEDIAN}"),
            Column("SVHN"),
            Column("SVHN", "dropout 0.4"),
        ),
        {
            "wrn_16_4": (5.02, 5.24, 24.03, 23.91, 1.85, 1.64),
            "wrn_28_10": (None, 3.89, None, 18.85, None, None),
            "wrn_52_1": (6.43, 6.28, 29.89, 29.78, 2.08, 1.70),
        },
    ),
    Table(
        "Zagoruyko 2016",
        (Column("SVHN"), Column("SVHN", "dropout 0.4")),
        {"wrn_16_8": (1.81, 1.54)},
    ),
    Table(
        "Zagoruyko 2016, table 9",
        (
            Column("CIFAR-10", "dropout 0.3; one run"),
            Column("CIFAR-100", "dropout 0.3; one run"),
        ),
        {"wrn_40_10": (3.8, 18.3)},
    ),
    Table(
        "Zagoruyko 2016, table 4",
        (Column("CIFAR-10", _ZCA), Column("CIFAR-100", _ZCA)),
        {
            "wrn_16_8": (4.81, 22.07),
            "wrn_16_10": (4.56, 21.59),
            "wrn_22_8": (4.38, 21.22),
            "wrn_22_10": (4.44, 20.75),
            "wrn_28_10": (4.17, 20.50),
            "wrn_28_12": (4.33, 20.43),
            "wrn_40_1": (6.85, 30.89),
            "wrn_40_2": (5.33, 26.04),
            "wrn_40_4": (4.97, 22.89),
            "wrn_40_8": (4.66, None),
        },
    ),
    Table("Zagoruyko 2016, table 2", (Column("CIFAR-10", _ZCA),), {"wrn_28_2": (5.73,)}),
    Table("Zagoruyko 2016, table 3", (Column("CIFAR-10", _ZCA),), {"wrn_40_2": (5.43,)}),
    Table(
        "meliketoy README",
        (
            Column("CIFAR-10", "mean of 5 runs"),
            Column("CIFAR-10", "without dropout; mean of 5 runs"),
            Column("CIFAR-10", "without dropout, ZCA-whitened; mean of 5 runs"),
            Column("CIFAR-100", "mean of 5 runs"),
            Column("CIFAR-100", "without dropout; mean of 5 runs"),
            Column("CIFAR-100", "without dropout, ZCA-whitened; mean of 5 runs"),
        ),
        {
            "meliketoy_wrn_28_10": (96.27, 96.21, 95.83, 81.49, 81.02, 80.07),
            "meliketoy_wrn_28_20": (96.55, None, None, 82.45, None, None),
            "meliketoy_wrn_40_10": (96.31, None, None, 81.42, None, None),
            "meliketoy_wrn_40_14": (96.34, None, None, 81.87, None, None),
        },
        accuracies=True,
    ),
    Table(
        "weiaicunzai README",
        (Column("CIFAR-100", _BEST_EPOCH),),
        {"weiaicunzai_wrn_40_10": (21.25,)},
    ),
)

TABLES = IMAGENET + CIFAR_RESNET + CIFAR_DENSENET + WRN
