from collections.abc import Callable
from math import prod

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import flaxnets
from flaxnets import layers, registry

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
    "pytorch_book_resnet34": (512, {1000: 21_797_672, 100: 21_335_972, 10: 21_289_802}),
    "pytorch_book_resnet34_v1": (512, {1000: 21_801_896}),
    "resnet20": (64, {10: 269_722, 100: 275_572}),
    "resnet32": (64, {10: 464_154, 100: 470_004}),
    "resnet44": (64, {10: 658_586, 100: 664_436}),
    "resnet56": (64, {10: 853_018, 100: 858_868}),
    "resnet110": (64, {10: 1_727_962, 100: 1_733_812}),
    "resnet1202": (64, {10: 19_421_274, 100: 19_427_124}),
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
    "densenet_40_12": (448, {10: 1_019_722, 100: 1_060_132}),
    "densenet_100_12": (1168, {10: 6_979_642, 100: 7_084_852}),
    "densenet_bc_40_12": (132, {10: 176_122, 100: 188_092}),
    "densenet_bc_100_12": (342, {10: 769_162, 100: 800_032}),
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
}
SLOW = ("resnet1202",)


@pytest.fixture
def no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial values of 0: tracing the random ones of a hundred million parameters takes long."""
    monkeypatch.setattr(
        layers, "_draw", lambda block, key, shape, factor, dtype: jnp.zeros(shape, dtype)
    )


def abstract(name: str, **overrides: object) -> nnx.Module:
    return nnx.eval_shape(lambda: flaxnets.create(name, rngs=nnx.Rngs(0), **overrides))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in COUNTS]
)
def test_parameter_counts_are_the_published_ones(name: str, no_draws: None) -> None:
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
    "name", ["resnet18", "resnet20", "resnet18_cifar", "densenet_bc_40_12", "wrn_16_1"]
)
def test_parameter_counts_with_100_classes(name: str, no_draws: None) -> None:
    model = abstract(name, num_classes=100)
    assert flaxnets.count_parameters(model) == COUNTS[name][1][100]


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
