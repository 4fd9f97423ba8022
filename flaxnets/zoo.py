"""The named networks as data: a config, and the parameters that its upstream project counts.

Counts and details are those of the upstream modules, with the number of classes that they publish.
"""

import dataclasses

from flaxnets.densenet import DenseNetConfig, cifar_densenet
from flaxnets.preact_resnet import PreActResNetConfig, cifar_preact_resnet
from flaxnets.resnet import ResNetConfig, cifar_resnet
from flaxnets.wide_resnet import WideResNetConfig

Config = ResNetConfig | PreActResNetConfig | DenseNetConfig | WideResNetConfig


@dataclasses.dataclass(frozen=True)
class Network:
    """One row of the registry.

    Attributes:
        config: the architecture, with its published number of classes.
        parameters: trainable parameters of the upstream module with that number of classes.
        source: the upstream project, or paper, that the count and the details come from.
    """

    config: Config
    parameters: int
    source: str


NETWORKS: dict[str, Network] = {}

# ImageNet ResNets: He 2015, table 1; ResNeXt: Xie 2017, table 1.

RESNETS = {
    18: ResNetConfig(stage_sizes=(2, 2, 2, 2)),
    34: ResNetConfig(stage_sizes=(3, 4, 6, 3)),
    50: ResNetConfig(stage_sizes=(3, 4, 6, 3), block="bottleneck"),
    101: ResNetConfig(stage_sizes=(3, 4, 23, 3), block="bottleneck"),
    152: ResNetConfig(stage_sizes=(3, 8, 36, 3), block="bottleneck"),
}

for _depth, _parameters in {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}.items():
    NETWORKS[f"resnet{_depth}"] = Network(RESNETS[_depth], _parameters, "torchvision")

for _depth, _parameters in {50: 68_883_240, 101: 126_886_696}.items():
    NETWORKS[f"wide_resnet{_depth}_2"] = Network(
        dataclasses.replace(RESNETS[_depth], bottleneck_width=2.0), _parameters, "torchvision"
    )

for (_depth, _groups, _width), _parameters in {
    (50, 32, 4): 25_028_904,
    (101, 32, 8): 88_791_336,
    (101, 64, 4): 83_455_272,
}.items():
    NETWORKS[f"resnext{_depth}_{_groups}x{_width}d"] = Network(
        dataclasses.replace(RESNETS[_depth], groups=_groups, bottleneck_width=_width / 64),
        _parameters,
        "torchvision",
    )

_BOOK = dataclasses.replace(RESNETS[34], init="torch")
NETWORKS |= {
    "pytorch_book_resnet34": Network(_BOOK, 21_797_672, "pytorch-book, chapter 4"),
    "pytorch_book_resnet34_v1": Network(
        dataclasses.replace(_BOOK, project="first_of_stage"),
        21_801_896,
        "pytorch-book v0.3 to v1.0, chapter 4",
    ),
    "pytorch_book_resnet34_ch6_v1": Network(
        dataclasses.replace(_BOOK, widths=(128, 256, 512, 512), num_classes=2),
        46_993_986,
        "pytorch-book v0.3 to v1.0, chapter 6",
    ),
}

# CIFAR ResNets: the thin ones of He 2015, section 4.2, and ImageNet's with a 3x3 stem.

for _depth, _parameters in {
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
}.items():
    NETWORKS[f"resnet{_depth}"] = Network(cifar_resnet(_depth), _parameters, "akamaster")

for _depth, _parameters in {20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770}.items():
    NETWORKS[f"resnet{_depth}_b"] = Network(
        cifar_resnet(_depth, shortcut="projection", init="fan_out"), _parameters, "chenyaofo"
    )

for _depth, _parameters in {110: 1_730_714, 1202: 19_424_026}.items():
    NETWORKS[f"resnet{_depth}_b"] = Network(
        cifar_resnet(_depth, shortcut="projection"), _parameters, "akamaster, option B"
    )

for _depth, _parameters in {164: 1_704_154, 1001: 10_328_602}.items():
    NETWORKS[f"resnet{_depth}"] = Network(
        cifar_resnet(_depth, block="bottleneck", shortcut="projection", init="fan_out_zero_bias"),
        _parameters,
        "He 2016, original unit",
    )

for _depth, _parameters in {
    20: 270_410,
    32: 465_290,
    44: 660_170,
    56: 855_050,
    110: 1_732_010,
}.items():
    NETWORKS[f"kellerjordan_resnet{_depth}"] = Network(
        cifar_resnet(_depth, shortcut="zero_pad_end", conv_bias=True, dropout=0.5, init="torch"),
        _parameters,
        "KellerJordan",
    )

for _depth, _parameters in {
    18: 11_173_962,
    34: 21_282_122,
    50: 23_520_842,
    101: 42_512_970,
    152: 58_156_618,
}.items():
    NETWORKS[f"resnet{_depth}_cifar"] = Network(
        dataclasses.replace(RESNETS[_depth], stem="cifar", num_classes=10, init="torch"),
        _parameters,
        "kuangliu",
    )

# Pre-activation ResNets: the thin ones of He 2016, and wide ones without his final norm.

NETWORKS |= {
    "preact_resnet110": Network(cifar_preact_resnet(110), 1_727_962, "fb.resnet.torch"),
    "preact_resnet110_b": Network(
        cifar_preact_resnet(110, shortcut="projection"), 1_730_522, "fb.resnet.torch"
    ),
    "preact_resnet164": Network(
        cifar_preact_resnet(164, block="bottleneck"), 1_703_258, "KaimingHe/resnet-1k-layers"
    ),
    "preact_resnet1001": Network(
        cifar_preact_resnet(1001, block="bottleneck"), 10_327_706, "KaimingHe/resnet-1k-layers"
    ),
}

for _depth, (_kuangliu, _weiaicunzai) in {
    18: (11_171_146, 11_222_244),
    34: (21_279_306, 21_334_116),
    50: (23_509_066, 23_720_164),
    101: (42_501_194, 42_738_404),
    152: (58_144_842, 58_405_092),
}.items():
    _block, _sizes = RESNETS[_depth].block, RESNETS[_depth].stage_sizes
    NETWORKS[f"preact_resnet{_depth}_cifar"] = Network(
        PreActResNetConfig(
            block=_block,
            stage_sizes=_sizes,
            stride_on="conv2" if _block == "bottleneck" else "conv1",
            final_norm=False,
            init="torch",
        ),
        _kuangliu,
        "kuangliu",
    )
    NETWORKS[f"weiaicunzai_preact_resnet{_depth}_cifar"] = Network(
        PreActResNetConfig(
            block=_block,
            stage_sizes=_sizes,
            num_classes=100,
            shortcut_input="raw",
            conv_bias=True,
            stem_norm=True,
            final_norm=False,
            init="torch",
        ),
        _weiaicunzai,
        "weiaicunzai",
    )

# DenseNets: Huang 2017, tables 1 and 2; "bc" are those with bottlenecks and compression.

for (_depth, _growth), _parameters in {
    (40, 12): 1_019_722,
    (100, 12): 6_979_642,
    (100, 24): 27_249_082,
}.items():
    NETWORKS[f"densenet_{_depth}_{_growth}"] = Network(
        cifar_densenet(_depth, _growth, bottleneck=False, compression=1.0),
        _parameters,
        "Huang 2017",
    )

for (_depth, _growth), _parameters in {
    (40, 12): 176_122,
    (40, 36): 1_542_682,
    (40, 48): 2_733_130,
    (40, 60): 4_261_690,
    (100, 12): 769_162,
    (190, 40): 25_624_430,
    (250, 24): 15_324_406,
}.items():
    NETWORKS[f"densenet_bc_{_depth}_{_growth}"] = Network(
        cifar_densenet(_depth, _growth), _parameters, "andreasveit"
    )

DENSENETS = {
    name: DenseNetConfig(
        block_sizes=sizes,
        growth_rate=growth,
        stem="imagenet",
        stem_width=2 * growth,
        dropout_after="last_conv",
        num_classes=1000,
        init="fan_in_zero_bias",
    )
    for name, sizes, growth in (
        ("densenet121", (6, 12, 24, 16), 32),
        ("densenet161", (6, 12, 36, 24), 48),
        ("densenet169", (6, 12, 32, 32), 32),
        ("densenet201", (6, 12, 48, 32), 32),
        ("densenet264", (6, 12, 64, 48), 32),
    )
}

for _name, _parameters in {
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}.items():
    NETWORKS[_name] = Network(DENSENETS[_name], _parameters, "torchvision")

NETWORKS["densenet264"] = Network(
    DENSENETS["densenet264"], 33_337_704, "Huang 2017, built with torchvision's class"
)

for _name, _kuangliu, _weiaicunzai in (
    ("densenet121", 6_956_298, 7_048_548),
    ("densenet161", 26_482_378, 26_681_188),
    ("densenet169", 12_493_322, 12_643_172),
    ("densenet201", 18_104_330, 18_277_220),
):
    _cifar = dataclasses.replace(
        DENSENETS[_name], stem="cifar", dropout_after="every_conv", init="torch"
    )
    NETWORKS[f"{_name}_cifar"] = Network(
        dataclasses.replace(_cifar, concat="new_old", num_classes=10), _kuangliu, "kuangliu"
    )
    NETWORKS[f"weiaicunzai_{_name}_cifar"] = Network(
        dataclasses.replace(_cifar, transition_relu=False, num_classes=100),
        _weiaicunzai,
        "weiaicunzai",
    )

NETWORKS["densenet_cifar"] = Network(
    DenseNetConfig(block_sizes=(6, 12, 24, 16), growth_rate=12, concat="new_old", init="torch"),
    1_000_618,
    "kuangliu",
)

# Wide ResNets: Zagoruyko 2016, and with biases those of meliketoy and weiaicunzai.

for (_depth, _factor), _parameters in {
    (10, 1): 77_850,
    (16, 1): 175_066,
    (16, 2): 691_674,
    (16, 4): 2_748_890,
    (16, 8): 10_961_370,
    (16, 10): 17_116_634,
    (22, 8): 17_158_106,
    (22, 10): 26_797_914,
    (28, 1): 369_498,
    (28, 2): 1_467_610,
    (28, 10): 36_479_194,
    (28, 12): 52_517_850,
    (28, 20): 145_815_514,
    (34, 10): 46_160_474,
    (40, 1): 563_930,
    (40, 2): 2_243_546,
    (40, 4): 8_949_210,
    (40, 8): 35_748_314,
    (40, 10): 55_841_754,
    (40, 14): 109_416_410,
    (52, 1): 758_362,
}.items():
    NETWORKS[f"wrn_{_depth}_{_factor}"] = Network(
        WideResNetConfig(depth=_depth, widen_factor=_factor), _parameters, "xternalz"
    )

for (_depth, _factor), _parameters in {
    (16, 8): 10_965_866,
    (28, 10): 36_489_290,
    (28, 20): 145_835_690,
    (40, 10): 55_856_330,
    (40, 14): 109_436_810,
}.items():
    NETWORKS[f"meliketoy_wrn_{_depth}_{_factor}"] = Network(
        WideResNetConfig(
            depth=_depth,
            widen_factor=_factor,
            projection_input="raw",
            stride_on="conv2",
            conv_bias=True,
            dropout=0.3,
            dropout_before="bn2",
            final_norm_momentum=0.1,
            init="xavier",
        ),
        _parameters,
        "meliketoy",
    )

NETWORKS["weiaicunzai_wrn_40_10"] = Network(
    WideResNetConfig(
        depth=40,
        widen_factor=10,
        projection_input="raw",
        conv_bias=True,
        dropout=0.5,
        num_classes=100,
        init="torch",
    ),
    55_914_020,
    "weiaicunzai",
)
