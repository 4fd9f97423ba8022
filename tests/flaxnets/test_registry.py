import dataclasses
from collections.abc import Callable
from math import prod

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import flaxnets
from flaxnets import densenet, layers, preact_resnet, registry, resnet, wide_resnet
from flaxnets.layers import Layers

# Parameters that the upstream modules have with each number of classes, and the classifier's
# width. None: the upstream project fixes the number of classes.
COUNTS: dict[str, tuple[int, dict[int, int]]] = {
    "resnet18": (512, {1000: 11_689_512, 100: 11_227_812, 10: 11_181_642}),
    "resnet34": (512, {1000: 21_797_672, 100: 21_335_972, 10: 21_289_802}),
    "resnet50": (2048, {1000: 25_557_032, 100: 23_712_932, 10: 23_528_522}),
    "resnet101": (2048, {1000: 44_549_160, 100: 42_705_060, 10: 42_520_650}),
    "resnet152": (2048, {1000: 60_192_808, 100: 58_348_708, 10: 58_164_298}),
    "wide_resnet50_2": (2048, {1000: 68_883_240, 100: 67_039_140, 10: 66_854_730}),
    "wide_resnet101_2": (2048, {1000: 126_886_696, 100: 125_042_596, 10: 124_858_186}),
    "resnext50_32x4d": (2048, {1000: 25_028_904}),
    "resnext101_32x8d": (2048, {1000: 88_791_336}),
    "resnext101_64x4d": (2048, {1000: 83_455_272}),
    "pytorch_book_resnet34": (512, {1000: 21_797_672, 100: 21_335_972, 10: 21_289_802}),
    "pytorch_book_resnet34_v1": (512, {1000: 21_801_896}),
    "pytorch_book_resnet34_ch6_v1": (
        512,
        {2: 46_993_986, 10: 46_998_090, 100: 47_044_260, 1000: 47_505_960},
    ),
    "resnet20": (64, {10: 269_722, 100: 275_572}),
    "resnet32": (64, {10: 464_154, 100: 470_004}),
    "resnet44": (64, {10: 658_586, 100: 664_436}),
    "resnet56": (64, {10: 853_018, 100: 858_868}),
    "resnet110": (64, {10: 1_727_962, 100: 1_733_812}),
    "resnet1202": (64, {10: 19_421_274, 100: 19_427_124}),
    "resnet20_b": (64, {10: 272_474, 100: 278_324}),
    "resnet32_b": (64, {10: 466_906, 100: 472_756}),
    "resnet44_b": (64, {10: 661_338, 100: 667_188}),
    "resnet56_b": (64, {10: 855_770, 100: 861_620}),
    "resnet110_b": (64, {10: 1_730_714, 100: 1_736_564}),
    "resnet1202_b": (64, {10: 19_424_026, 100: 19_429_876}),
    "resnet164": (256, {10: 1_704_154, 100: 1_727_284}),
    "resnet1001": (256, {10: 10_328_602, 100: 10_351_732}),
    "kellerjordan_resnet20": (64, {10: 270_410}),
    "kellerjordan_resnet32": (64, {10: 465_290}),
    "kellerjordan_resnet44": (64, {10: 660_170}),
    "kellerjordan_resnet56": (64, {10: 855_050}),
    "kellerjordan_resnet110": (64, {10: 1_732_010}),
    "resnet18_cifar": (512, {10: 11_173_962, 100: 11_220_132}),
    "resnet34_cifar": (512, {10: 21_282_122, 100: 21_328_292}),
    "resnet50_cifar": (2048, {10: 23_520_842, 100: 23_705_252}),
    "resnet101_cifar": (2048, {10: 42_512_970, 100: 42_697_380}),
    "resnet152_cifar": (2048, {10: 58_156_618, 100: 58_341_028}),
    "preact_resnet110": (64, {10: 1_727_962, 100: 1_733_812}),
    "preact_resnet110_b": (64, {10: 1_730_522, 100: 1_736_372}),
    "preact_resnet164": (256, {10: 1_703_258, 100: 1_726_388}),
    "preact_resnet1001": (256, {10: 10_327_706, 100: 10_350_836}),
    "preact_resnet18_cifar": (512, {10: 11_171_146, 100: 11_217_316}),
    "preact_resnet34_cifar": (512, {10: 21_279_306, 100: 21_325_476}),
    "preact_resnet50_cifar": (2048, {10: 23_509_066, 100: 23_693_476}),
    "preact_resnet101_cifar": (2048, {10: 42_501_194, 100: 42_685_604}),
    "preact_resnet152_cifar": (2048, {10: 58_144_842, 100: 58_329_252}),
    "weiaicunzai_preact_resnet18_cifar": (512, {100: 11_222_244, 10: 11_176_074}),
    "weiaicunzai_preact_resnet34_cifar": (512, {100: 21_334_116, 10: 21_287_946}),
    "weiaicunzai_preact_resnet50_cifar": (2048, {100: 23_720_164, 10: 23_535_754}),
    "weiaicunzai_preact_resnet101_cifar": (2048, {100: 42_738_404, 10: 42_553_994}),
    "weiaicunzai_preact_resnet152_cifar": (2048, {100: 58_405_092, 10: 58_220_682}),
    "densenet_40_12": (448, {10: 1_019_722, 100: 1_060_132}),
    "densenet_100_12": (1168, {10: 6_979_642, 100: 7_084_852}),
    "densenet_bc_40_12": (132, {10: 176_122, 100: 188_092}),
    "densenet_bc_100_12": (342, {10: 769_162, 100: 800_032}),
    "densenet_100_24": (2320, {10: 27_249_082, 100: 27_457_972}),
    "densenet_bc_250_24": (1734, {10: 15_324_406, 100: 15_480_556}),
    "densenet_bc_190_40": (2190, {10: 25_624_430, 100: 25_821_620}),
    "densenet_bc_40_36": (396, {10: 1_542_682, 100: 1_578_412}),
    "densenet_bc_40_48": (528, {10: 2_733_130, 100: 2_780_740}),
    "densenet_bc_40_60": (660, {10: 4_261_690, 100: 4_321_180}),
    "densenet121": (1024, {1000: 7_978_856, 100: 7_056_356, 10: 6_964_106}),
    "densenet161": (2208, {1000: 28_681_000, 100: 26_692_900, 10: 26_494_090}),
    "densenet169": (1664, {1000: 14_149_480, 100: 12_650_980, 10: 12_501_130}),
    "densenet201": (1920, {1000: 20_013_928, 100: 18_285_028, 10: 18_112_138}),
    "densenet264": (2688, {1000: 33_337_704}),
    "densenet_cifar": (384, {10: 1_000_618, 100: 1_035_268}),
    "densenet121_cifar": (1024, {10: 6_956_298, 100: 7_048_548}),
    "densenet161_cifar": (2208, {10: 26_482_378, 100: 26_681_188}),
    "densenet169_cifar": (1664, {10: 12_493_322, 100: 12_643_172}),
    "densenet201_cifar": (1920, {10: 18_104_330, 100: 18_277_220}),
    "weiaicunzai_densenet121_cifar": (1024, {100: 7_048_548, 10: 6_956_298}),
    "weiaicunzai_densenet161_cifar": (2208, {100: 26_681_188, 10: 26_482_378}),
    "weiaicunzai_densenet169_cifar": (1664, {100: 12_643_172, 10: 12_493_322}),
    "weiaicunzai_densenet201_cifar": (1920, {100: 18_277_220, 10: 18_104_330}),
    "wrn_10_1": (64, {10: 77_850, 100: 83_700}),
    "wrn_16_1": (64, {10: 175_066, 100: 180_916}),
    "wrn_16_2": (128, {10: 691_674, 100: 703_284}),
    "wrn_16_4": (256, {10: 2_748_890, 100: 2_772_020}),
    "wrn_16_8": (512, {10: 10_961_370, 100: 11_007_540}),
    "wrn_16_10": (640, {10: 17_116_634, 100: 17_174_324}),
    "wrn_22_8": (512, {10: 17_158_106, 100: 17_204_276}),
    "wrn_22_10": (640, {10: 26_797_914, 100: 26_855_604}),
    "wrn_28_1": (64, {10: 369_498, 100: 375_348}),
    "wrn_28_2": (128, {10: 1_467_610, 100: 1_479_220}),
    "wrn_28_10": (640, {10: 36_479_194, 100: 36_536_884}),
    "wrn_28_12": (768, {10: 52_517_850, 100: 52_587_060}),
    "wrn_28_20": (1280, {10: 145_815_514, 100: 145_930_804}),
    "wrn_34_10": (640, {10: 46_160_474, 100: 46_218_164}),
    "wrn_40_1": (64, {10: 563_930, 100: 569_780}),
    "wrn_40_2": (128, {10: 2_243_546, 100: 2_255_156}),
    "wrn_40_4": (256, {10: 8_949_210, 100: 8_972_340}),
    "wrn_40_8": (512, {10: 35_748_314, 100: 35_794_484}),
    "wrn_40_10": (640, {10: 55_841_754, 100: 55_899_444}),
    "wrn_40_14": (896, {10: 109_416_410, 100: 109_497_140}),
    "wrn_52_1": (64, {10: 758_362, 100: 764_212}),
    "meliketoy_wrn_16_8": (512, {10: 10_965_866, 100: 11_012_036}),
    "meliketoy_wrn_28_10": (640, {10: 36_489_290, 100: 36_546_980}),
    "meliketoy_wrn_28_20": (1280, {10: 145_835_690, 100: 145_950_980}),
    "meliketoy_wrn_40_10": (640, {10: 55_856_330, 100: 55_914_020}),
    "meliketoy_wrn_40_14": (896, {10: 109_436_810, 100: 109_517_540}),
    "weiaicunzai_wrn_40_10": (640, {100: 55_914_020, 10: 55_856_330}),
}


class Counted(nnx.Module):
    """As many parameters as a block has that was made before, from the same arguments."""

    def __init__(self, parameters: int) -> None:
        self.parameters = nnx.Param(jnp.zeros(parameters))


COUNTED: dict[tuple, int] = {}


def made_once(block: type[nnx.Module]) -> Callable[..., nnx.Module]:
    """Make each kind of block once: a thousand layers of a few kinds take long to trace."""

    def make(*arguments: object, **options: object) -> nnx.Module:
        kind = (block, *map(shared, arguments), *options.items())
        if kind in COUNTED:
            return Counted(COUNTED[kind])
        made = block(*arguments, **options)
        COUNTED[kind] = flaxnets.count_parameters(made)
        return made

    def shared(argument: object) -> object:
        """What a block can depend on: not the number of classes or of the blocks after it."""
        if isinstance(argument, flaxnets.DenseNetConfig):
            return dataclasses.replace(argument, num_classes=1, block_sizes=(1,))
        return None if isinstance(argument, Layers) else argument

    return make


@pytest.fixture
def quick_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are made once a kind, and initial values are 0."""
    places = (
        (resnet, "ResidualBlock"),
        (preact_resnet, "PreactivationBlock"),
        (wide_resnet, "PreactivationBlock"),
        (densenet, "DenseLayer"),
    )
    for module, name in places:
        monkeypatch.setattr(module, name, made_once(getattr(module, name)))
    monkeypatch.setattr(
        layers, "_draw", lambda block, key, shape, factor, dtype: jnp.zeros(shape, dtype)
    )


def abstract(name: str, **overrides: object) -> nnx.Module:
    return nnx.eval_shape(lambda: flaxnets.create(name, rngs=nnx.Rngs(0), **overrides))


@pytest.mark.usefixtures("quick_tracing")
@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    """One network is traced; the others differ from it in the classifier alone."""
    width, counts = COUNTS[name]
    published = next(iter(counts))  # the number of classes that the name stands for
    model = abstract(name)
    assert model.config.num_classes == published
    total = flaxnets.count_parameters(model)
    assert total == counts[published]
    assert flaxnets.published_parameters(name) == counts[published]
    classifier = getattr(model, "classifier" if "densenet" in name else "fc")
    assert classifier.kernel.shape == (width, published)
    for classes, count in counts.items():
        assert total + (classes - published) * (width + 1) == count, classes


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet20", "resnet18_cifar", "resnet20_b", "preact_resnet18_cifar"),
        *("densenet_bc_40_12", "wrn_16_1", "meliketoy_wrn_16_8"),
    ],
)
def test_parameter_counts_with_100_classes_and_with_none(name: str) -> None:
    width, counts = COUNTS[name]
    assert flaxnets.count_parameters(abstract(name, num_classes=100)) == counts[100]
    headless = flaxnets.count_parameters(abstract(name, num_classes=0))
    assert headless == counts[100] - 100 * (width + 1)


def test_running_statistics_are_not_counted() -> None:
    config = flaxnets.WideResNetConfig(depth=10, widen_factor=1)
    model = nnx.eval_shape(lambda: flaxnets.build(config, rngs=nnx.Rngs(0)))
    statistics = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
    assert len(statistics) == 3 * 7
    everything = sum(prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    assert flaxnets.count_parameters(model) == 77_850
    assert everything == 77_850 + sum(prod(leaf.shape) for leaf in statistics)


def test_list_of_models() -> None:
    names = flaxnets.list_models()
    assert sorted(names) == sorted(COUNTS)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnext*", ["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"]),
        ("wrn_28_*", [f"wrn_28_{factor}" for factor in (1, 2, 10, 12, 20)]),
        ("resnet[24]?_b", ["resnet20_b", "resnet44_b"]),
        ("resnet20", ["resnet20"]),
        ("ResNet20", []),
        ("", []),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert flaxnets.list_models(pattern) == names


# What the names stand for


@pytest.mark.parametrize(
    ("alias", "name"),
    [("resnet", "resnet32"), ("densenet", "densenet_bc_100_12"), ("wrn", "wrn_28_10")],
)
def test_aliases(alias: str, name: str) -> None:
    assert flaxnets.canonical_name(alias) == name
    assert flaxnets.canonical_name(name) == name
    assert flaxnets.get_config(alias) == flaxnets.get_config(name)
    assert flaxnets.published_parameters(alias) == flaxnets.published_parameters(name)
    assert alias not in flaxnets.list_models()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet18", {"block": "basic", "stem": "imagenet", "init": "fan_out"}),
        ("resnet50", {"block": "bottleneck", "shortcut": "projection", "bottleneck_width": 1.0}),
        ("wide_resnet50_2", {"stage_sizes": (3, 4, 6, 3), "bottleneck_width": 2.0}),
        ("wide_resnet101_2", {"stage_sizes": (3, 4, 23, 3), "bottleneck_width": 2.0}),
        ("pytorch_book_resnet34", {"project": "on_change", "init": "torch"}),
        ("pytorch_book_resnet34_v1", {"project": "first_of_stage", "init": "torch"}),
        (
            "resnet20",
            {"shortcut": "zero_pad_both", "stem": "cifar", "init": "fan_in", "conv_bias": False},
        ),
        ("resnext101_64x4d", {"groups": 64, "bottleneck_width": 1 / 16, "init": "fan_out"}),
        (
            "pytorch_book_resnet34_ch6_v1",
            {"widths": (128, 256, 512, 512), "stem_width": 64, "num_classes": 2},
        ),
        ("resnet56_b", {"shortcut": "projection", "init": "fan_out", "stage_sizes": (9, 9, 9)}),
        ("resnet110_b", {"shortcut": "projection", "init": "fan_in"}),
        (
            "resnet164",
            {"block": "bottleneck", "shortcut": "projection", "stage_sizes": (18, 18, 18)},
        ),
        (
            "preact_resnet110",
            {
                "block": "basic",
                "shortcut": "zero_pad_end",
                "shortcut_input": "activated_first",
                "final_norm": True,
                "stem_norm": False,
                "init": "fan_out_zero_bias",
            },
        ),
        (
            "preact_resnet1001",
            {
                "block": "bottleneck",
                "shortcut": "projection",
                "stride_on": "conv1",
                "stage_sizes": (111, 111, 111),
            },
        ),
        (
            "preact_resnet18_cifar",
            {"shortcut_input": "activated", "final_norm": False, "stride_on": "conv1"},
        ),
        (
            "preact_resnet50_cifar",
            {"shortcut_input": "activated", "final_norm": False, "stride_on": "conv2"},
        ),
        (
            "weiaicunzai_preact_resnet50_cifar",
            {
                "shortcut_input": "raw",
                "stride_on": "conv1",
                "conv_bias": True,
                "stem_norm": True,
                "final_norm": False,
                "num_classes": 100,
                "init": "torch",
            },
        ),
        (
            "densenet161",
            {
                "growth_rate": 48,
                "stem_width": 96,
                "concat": "old_new",
                "dropout_after": "last_conv",
                "init": "fan_in_zero_bias",
            },
        ),
        ("densenet161_cifar", {"stem": "cifar", "concat": "new_old", "init": "torch"}),
        ("densenet_cifar", {"growth_rate": 12, "stem_width": 24, "concat": "new_old"}),
        (
            "weiaicunzai_densenet161_cifar",
            {"concat": "old_new", "transition_relu": False, "num_classes": 100},
        ),
        (
            "meliketoy_wrn_28_10",
            {
                "projection_input": "raw",
                "stride_on": "conv2",
                "conv_bias": True,
                "dropout": 0.3,
                "dropout_before": "bn2",
                "final_norm_momentum": 0.1,
                "init": "xavier",
            },
        ),
        (
            "weiaicunzai_wrn_40_10",
            {
                "projection_input": "raw",
                "stride_on": "conv1",
                "conv_bias": True,
                "dropout": 0.5,
                "dropout_before": "conv2",
                "final_norm_momentum": 0.9,
            },
        ),
        ("resnet152_cifar", {"shortcut": "projection", "stem": "cifar", "init": "torch"}),
        (
            "kellerjordan_resnet56",
            {
                "shortcut": "zero_pad_end",
                "conv_bias": True,
                "dropout": 0.5,
                "init": "torch",
                "stage_sizes": (9, 9, 9),
            },
        ),
        (
            "densenet_40_12",
            {
                "block_sizes": (12, 12, 12),
                "stem_width": 16,
                "bottleneck": False,
                "compression": 1.0,
                "dropout": 0.0,
                "init": "fan_out_zero_bias",
            },
        ),
        (
            "densenet_bc_100_12",
            {"block_sizes": (16, 16, 16), "stem_width": 24, "bottleneck": True, "compression": 0.5},
        ),
        (
            "wrn_40_4",
            {
                "depth": 40,
                "widen_factor": 4,
                "projection_input": "activated",
                "dropout_before": "conv2",
                "dropout": 0.0,
                "stride_on": "conv1",
                "conv_bias": False,
                "final_norm_momentum": 0.9,
                "init": "fan_out_zero_bias",
            },
        ),
    ],
)
def test_configs_of_names(name: str, fields: dict[str, object]) -> None:
    config = flaxnets.get_config(name)
    assert {field: getattr(config, field) for field in fields} == fields


def test_overrides_replace_fields() -> None:
    config = flaxnets.get_config("resnet20", num_classes=7, shortcut="projection")
    assert (config.num_classes, config.shortcut) == (7, "projection")
    assert config.stage_sizes == (3, 3, 3)
    assert flaxnets.get_config("resnet20").num_classes == 10
    model = abstract("densenet_bc_40_12", num_classes=7, growth_rate=4, stem_width=3)
    assert model.conv0.kernel.shape == (3, 3, 3, 3)
    assert model.classifier.kernel.shape[1] == 7


def test_create_passes_dtypes_on() -> None:
    model = abstract("resnet20", dtype=jnp.bfloat16, param_dtype=jnp.float16)
    assert model.conv1.kernel.dtype == jnp.float16
    assert model.layer3[0].bn2.dtype == jnp.bfloat16


# Mistakes


@pytest.fixture(params=[flaxnets.get_config, flaxnets.create], ids=["get_config", "create"])
def ask(request: pytest.FixtureRequest) -> Callable:
    options = {} if request.param is flaxnets.get_config else {"rngs": None}
    return lambda name, **overrides: request.param(name, **options, **overrides)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("resnet21", "resnet20"),
        ("resnet_50", "resnet50"),
        ("ResNet18", "resnet18"),
        ("wrn_28_11", "wrn_28_10"),
        ("wrn-28-10", "wrn_28_10"),
        ("densenet_bc_100", "densenet_bc_100_12"),
        ("desnet", "densenet"),
        ("kellerjordan_resnet21", "kellerjordan_resnet20"),
        ("preactresnet18_cifar", "preact_resnet18_cifar"),
        ("resnext50", "resnext50_32x4d"),
        ("densenet_121", "densenet121"),
    ],
)
def test_near_misses_are_suggested(name: str, suggestion: str, ask: Callable) -> None:
    message = rf"no network named '{name}'; did you mean .*\b{suggestion}\b"
    with pytest.raises(ValueError, match=message):
        ask(name)


def test_a_name_like_no_other(ask: Callable) -> None:
    message = r"no network named 'vgg'; flaxnets\.list_models\(\) names them all"
    with pytest.raises(ValueError, match=message):
        ask("vgg")
    with pytest.raises(ValueError, match="no network named ''"):
        flaxnets.published_parameters("")


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("resnet20", "num_clases", r"'num_clases' is not one of block.*did you mean num_classes"),
        ("resnet20", "growth_rate", r"option of resnet20.*is not one of block, stage_sizes"),
        ("densenet_40_12", "drop_out", r"did you mean dropout"),
        ("wrn", "widen", r"did you mean widen_factor"),
    ],
)
def test_unknown_options(name: str, option: str, expected: str, ask: Callable) -> None:
    with pytest.raises(ValueError, match=expected):
        ask(name, **{option: 1})


def test_overrides_are_checked_like_configs(ask: Callable) -> None:
    with pytest.raises(ValueError, match=r"got 27; the nearest valid depths are 22 and 28"):
        ask("wrn_28_10", depth=27)
    with pytest.raises(ValueError, match=r"compression=0 must satisfy"):
        ask("densenet", compression=0)


def test_every_row_names_its_source() -> None:
    assert all(network.source for network in registry.NETWORKS.values())


def test_a_name_is_not_a_config() -> None:
    with pytest.raises(TypeError, match="create builds a network by its name"):
        flaxnets.build("resnet20", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
