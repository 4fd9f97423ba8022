"""Parameter counts against published figures, or those of the upstream modules, on meta tensors."""

from typing import Any

import pytest
import torch

import torchref

B = {"shortcut": "projection"}
KELLERJORDAN_B = {"shortcut": "projection_biased"}
KELLERJORDAN_C = {"shortcut": "avg_pool_pad"}
STEM_2K = {"stem_width": 24}


def wide(depth: int, growth_rate: int, *, bottleneck: bool = True, **options: Any) -> dict:
    sizes = torchref.densenet_blocks(depth, bottleneck=bottleneck)
    shape = {"block_sizes": sizes, "growth_rate": growth_rate, "stem_width": 2 * growth_rate}
    return shape | options


def densenet(*block_sizes: int, growth_rate: int = 32, stem: str = "imagenet") -> dict:
    shape = {"block_sizes": block_sizes, "growth_rate": growth_rate}
    return shape | {"stem_width": 2 * growth_rate, "stem": stem}


CIFAR_RESNETS = [
    # akamaster (option A; B with batch norm, as chenyaofo); two classifiers
    ("resnet20", {}, {10: 269_722, 100: 275_572}),
    ("resnet32", {}, {10: 464_154, 100: 470_004}),
    ("resnet44", {}, {10: 658_586, 100: 664_436}),
    ("resnet56", {}, {10: 853_018, 100: 858_868}),
    ("resnet110", {}, {10: 1_727_962, 100: 1_733_812}),
    ("resnet1202", {}, {10: 19_421_274, 100: 19_427_124}),
    ("resnet20", B, {10: 272_474, 100: 278_324}),
    ("resnet32", B, {10: 466_906, 100: 472_756}),
    ("resnet44", B, {10: 661_338, 100: 667_188}),
    ("resnet56", B, {10: 855_770, 100: 861_620}),
    ("resnet110", B, {10: 1_730_714, 100: 1_736_564}),
    ("resnet1202", B, {10: 19_424_026, 100: 19_429_876}),
    # KellerJordan
    ("kellerjordan_resnet20", {}, {10: 270_410}),
    ("kellerjordan_resnet32", {}, {10: 465_290}),
    ("kellerjordan_resnet44", {}, {10: 660_170}),
    ("kellerjordan_resnet56", {}, {10: 855_050}),
    ("kellerjordan_resnet110", {}, {10: 1_732_010}),
    ("kellerjordan_resnet20", KELLERJORDAN_B, {10: 273_066}),
    ("kellerjordan_resnet32", KELLERJORDAN_B, {10: 467_946}),
    ("kellerjordan_resnet44", KELLERJORDAN_B, {10: 662_826}),
    ("kellerjordan_resnet56", KELLERJORDAN_B, {10: 857_706}),
    ("kellerjordan_resnet110", KELLERJORDAN_B, {10: 1_734_666}),
    ("kellerjordan_resnet20", KELLERJORDAN_C, {10: 270_410}),
    # the same as networks of their own, and the bottlenecks that He et al. 2016 compare with
    ("resnet20_b", {}, {10: 272_474, 100: 278_324}),
    ("resnet32_b", {}, {10: 466_906, 100: 472_756}),
    ("resnet44_b", {}, {10: 661_338, 100: 667_188}),
    ("resnet56_b", {}, {10: 855_770, 100: 861_620}),
    ("resnet110_b", {}, {10: 1_730_714, 100: 1_736_564}),
    ("resnet1202_b", {}, {10: 19_424_026, 100: 19_429_876}),
    ("resnet164", {}, {10: 1_704_154, 100: 1_727_284}),
    ("resnet1001", {}, {10: 10_328_602, 100: 10_351_732}),
    # kuangliu
    ("resnet18_cifar", {}, {10: 11_173_962, 100: 11_220_132}),
    ("resnet34_cifar", {}, {10: 21_282_122, 100: 21_328_292}),
    ("resnet50_cifar", {}, {10: 23_520_842, 100: 23_705_252}),
    ("resnet101_cifar", {}, {10: 42_512_970, 100: 42_697_380}),
    ("resnet152_cifar", {}, {10: 58_156_618, 100: 58_341_028}),
]

IMAGENET_RESNETS = [
    ("resnet18", {}, {1000: 11_689_512, 100: 11_227_812, 10: 11_181_642}),
    ("resnet34", {}, {1000: 21_797_672, 100: 21_335_972, 10: 21_289_802}),
    ("resnet50", {}, {1000: 25_557_032, 100: 23_712_932, 10: 23_528_522}),
    ("resnet101", {}, {1000: 44_549_160, 100: 42_705_060, 10: 42_520_650}),
    ("resnet152", {}, {1000: 60_192_808, 100: 58_348_708, 10: 58_164_298}),
    ("wide_resnet50_2", {}, {1000: 68_883_240, 100: 67_039_140, 10: 66_854_730}),
    ("wide_resnet101_2", {}, {1000: 126_886_696, 100: 125_042_596, 10: 124_858_186}),
    # the same shapes from this package's class
    ("resnet18", B, {1000: 11_689_512}),
    ("resnet50", B, {1000: 25_557_032}),
    ("wide_resnet50_2", B, {1000: 68_883_240}),
    ("wide_resnet101_2", B, {10: 124_858_186}),
    ("resnext50_32x4d", {}, {1000: 25_028_904}),
    ("resnext101_32x8d", {}, {1000: 88_791_336}),
    ("resnext101_64x4d", {}, {1000: 83_455_272}),
    ("resnext50_32x4d", B, {1000: 25_028_904}),
    ("resnext101_64x4d", B, {1000: 83_455_272}),
    # pytorch-book: its head, and the first edition with a projection in layer1
    (
        "pytorch_book_resnet34",
        {},
        {1000: 21_797_672, 100: 21_335_972, 10: 21_289_802, 2: 21_285_698},
    ),
    ("pytorch_book_resnet34_v1", {}, {1000: 21_801_896}),
    (
        "pytorch_book_resnet34_ch6_v1",
        {},
        {2: 46_993_986, 10: 46_998_090, 100: 47_044_260, 1000: 47_505_960},
    ),
]

PREACT_RESNETS = [
    # fb.resnet.torch and KaimingHe/resnet-1k-layers
    ("preact_resnet110", {}, {10: 1_727_962, 100: 1_733_812}),
    ("preact_resnet110_b", {}, {10: 1_730_522, 100: 1_736_372}),
    ("preact_resnet164", {}, {10: 1_703_258, 100: 1_726_388}),
    ("preact_resnet1001", {}, {10: 10_327_706, 100: 10_350_836}),
    # kuangliu
    ("preact_resnet18_cifar", {}, {10: 11_171_146, 100: 11_217_316}),
    ("preact_resnet34_cifar", {}, {10: 21_279_306, 100: 21_325_476}),
    ("preact_resnet50_cifar", {}, {10: 23_509_066, 100: 23_693_476}),
    ("preact_resnet101_cifar", {}, {10: 42_501_194, 100: 42_685_604}),
    ("preact_resnet152_cifar", {}, {10: 58_144_842, 100: 58_329_252}),
    # weiaicunzai
    ("weiaicunzai_preact_resnet18_cifar", {}, {10: 11_176_074, 100: 11_222_244}),
    ("weiaicunzai_preact_resnet34_cifar", {}, {10: 21_287_946, 100: 21_334_116}),
    ("weiaicunzai_preact_resnet50_cifar", {}, {10: 23_535_754, 100: 23_720_164}),
    ("weiaicunzai_preact_resnet101_cifar", {}, {10: 42_553_994, 100: 42_738_404}),
    ("weiaicunzai_preact_resnet152_cifar", {}, {10: 58_220_682, 100: 58_405_092}),
]

DENSENETS = [
    # plain, with the paper's 16 and the codes' 2k stem channels
    ("densenet_40_12", {}, {10: 1_019_722, 100: 1_060_132}),
    ("densenet_100_12", {}, {10: 6_979_642, 100: 7_084_852}),
    ("densenet_100_12", {"growth_rate": 24}, {10: 27_249_082, 100: 27_457_972}),
    ("densenet_40_12", STEM_2K, {10: 1_059_298, 100: 1_100_428}),
    ("densenet_100_12", STEM_2K, {10: 7_083_538, 100: 7_189_468}),
    ("densenet_100_12", wide(100, 24, bottleneck=False), {10: 28_071_706, 100: 28_283_476}),
    # BC and wide BC
    ("densenet_bc_100_12", {}, {10: 769_162, 100: 800_032}),
    ("densenet_bc_40_12", {}, {10: 176_122, 100: 188_092}),
    ("densenet_bc_100_12", wide(250, 24), {10: 15_324_406, 100: 15_480_556}),
    ("densenet_bc_100_12", wide(190, 40), {10: 25_624_430, 100: 25_821_620}),
    ("densenet_bc_40_12", wide(40, 36), {10: 1_542_682, 100: 1_578_412}),
    ("densenet_bc_40_12", wide(40, 48), {10: 2_733_130, 100: 2_780_740}),
    ("densenet_bc_40_12", wide(40, 60), {10: 4_261_690, 100: 4_321_180}),
    # the same as networks of their own
    ("densenet_100_24", {}, {10: 27_249_082, 100: 27_457_972}),
    ("densenet_bc_250_24", {}, {10: 15_324_406, 100: 15_480_556}),
    ("densenet_bc_190_40", {}, {10: 25_624_430, 100: 25_821_620}),
    ("densenet_bc_40_36", {}, {10: 1_542_682, 100: 1_578_412}),
    ("densenet_bc_40_48", {}, {10: 2_733_130, 100: 2_780_740}),
    ("densenet_bc_40_60", {}, {10: 4_261_690, 100: 4_321_180}),
    ("densenet121", {}, {1000: 7_978_856, 100: 7_056_356, 10: 6_964_106}),
    ("densenet161", {}, {1000: 28_681_000, 100: 26_692_900, 10: 26_494_090}),
    ("densenet169", {}, {1000: 14_149_480, 100: 12_650_980, 10: 12_501_130}),
    ("densenet201", {}, {1000: 20_013_928, 100: 18_285_028, 10: 18_112_138}),
    ("densenet264", {}, {1000: 33_337_704}),
    *(
        (prefix + name, {}, counts)
        for prefix in ("", "weiaicunzai_")
        for name, counts in {
            "densenet121_cifar": {10: 6_956_298, 100: 7_048_548},
            "densenet161_cifar": {10: 26_482_378, 100: 26_681_188},
            "densenet169_cifar": {10: 12_493_322, 100: 12_643_172},
            "densenet201_cifar": {10: 18_104_330, 100: 18_277_220},
        }.items()
    ),
    ("densenet_cifar", {}, {10: 1_000_618, 100: 1_035_268}),
    # four blocks: torchvision's, and kuangliu's with the CIFAR stem
    ("densenet_bc_100_12", densenet(6, 12, 24, 16), {1000: 7_978_856}),
    ("densenet_bc_100_12", densenet(6, 12, 36, 24, growth_rate=48), {1000: 28_681_000}),
    ("densenet_bc_100_12", densenet(6, 12, 24, 16, stem="cifar"), {10: 6_956_298}),
    ("densenet_bc_100_12", densenet(6, 12, 24, 16, growth_rate=12, stem="cifar"), {10: 1_000_618}),
]

WIDE_RESNETS = [
    ("wrn_10_1", {}, {10: 77_850, 100: 83_700}),
    ("wrn_16_1", {}, {10: 175_066, 100: 180_916}),
    ("wrn_16_2", {}, {10: 691_674, 100: 703_284}),
    ("wrn_16_4", {}, {10: 2_748_890, 100: 2_772_020}),
    ("wrn_16_8", {}, {10: 10_961_370, 100: 11_007_540}),
    ("wrn_16_10", {}, {10: 17_116_634, 100: 17_174_324}),
    ("wrn_22_8", {}, {10: 17_158_106, 100: 17_204_276}),
    ("wrn_22_10", {}, {10: 26_797_914, 100: 26_855_604}),
    ("wrn_28_1", {}, {10: 369_498, 100: 375_348}),
    ("wrn_28_2", {}, {10: 1_467_610, 100: 1_479_220}),
    ("wrn_28_10", {}, {10: 36_479_194, 100: 36_536_884}),
    ("wrn_28_12", {}, {10: 52_517_850, 100: 52_587_060}),
    ("wrn_28_20", {}, {10: 145_815_514, 100: 145_930_804}),
    ("wrn_34_10", {}, {10: 46_160_474, 100: 46_218_164}),
    ("wrn_40_1", {}, {10: 563_930, 100: 569_780}),
    ("wrn_40_2", {}, {10: 2_243_546, 100: 2_255_156}),
    ("wrn_40_4", {}, {10: 8_949_210, 100: 8_972_340}),
    ("wrn_40_8", {}, {10: 35_748_314, 100: 35_794_484}),
    ("wrn_40_10", {}, {10: 55_841_754, 100: 55_899_444}),
    ("wrn_40_14", {}, {10: 109_416_410, 100: 109_497_140}),
    ("wrn_52_1", {}, {10: 758_362, 100: 764_212}),
    # with biases: meliketoy and weiaicunzai
    ("meliketoy_wrn_16_8", {}, {10: 10_965_866, 100: 11_012_036}),
    ("meliketoy_wrn_28_10", {}, {10: 36_489_290, 100: 36_546_980}),
    ("meliketoy_wrn_28_20", {}, {10: 145_835_690, 100: 145_950_980}),
    ("meliketoy_wrn_40_10", {}, {10: 55_856_330, 100: 55_914_020}),
    ("meliketoy_wrn_40_14", {}, {10: 109_436_810, 100: 109_517_540}),
    ("weiaicunzai_wrn_40_10", {}, {10: 55_856_330, 100: 55_914_020}),
]

IMAGENET_NAMES = [name for name, _, _ in IMAGENET_RESNETS]
IMAGENET_DENSENETS = [f"densenet{depth}" for depth in (121, 161, 169, 201, 264)]
ROWS = [*CIFAR_RESNETS, *IMAGENET_RESNETS, *PREACT_RESNETS, *DENSENETS, *WIDE_RESNETS]


def classes(name: str) -> int:
    """The number of classes that a name stands for."""
    if name == "pytorch_book_resnet34_ch6_v1":
        return 2
    if name in IMAGENET_NAMES or name in IMAGENET_DENSENETS:
        return 1000
    return 100 if name.startswith("weiaicunzai") else 10


@pytest.mark.parametrize(("name", "options", "counts"), ROWS, ids=lambda value: str(value)[:40])
def test_parameter_count(name: str, options: dict, counts: dict[int, int]) -> None:
    with torch.device("meta"):
        network = torchref.create(name, **options)
    head = network.classifier if "densenet" in name else network.fc
    assert head.out_features == classes(name)
    body = sum(p.numel() for p in network.parameters()) - head.out_features * (head.in_features + 1)
    assert {n: body + n * (head.in_features + 1) for n in counts} == counts


def test_every_named_network_has_a_row() -> None:
    assert {name for name, _, _ in ROWS} == set(torchref.list_models())
