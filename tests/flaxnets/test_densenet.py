import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.densenet import DenseNet, DenseNetConfig, cifar_densenet
from flaxnets.pooling import max_pool_3x3_stride_2


def tiny(**options: object) -> DenseNetConfig:
    defaults = {"block_sizes": (2, 1), "growth_rate": 2, "stem_width": 5, "num_classes": 3}
    return DenseNetConfig(**(defaults | options))


def shapes(config: DenseNetConfig) -> dict[str, tuple[int, ...]]:
    """The parameters' shapes by dotted path."""
    model = nnx.eval_shape(lambda: flaxnets.build(config, rngs=nnx.Rngs(0)))
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(path): variable.shape for path, variable in state}


# Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "imagnet"}, r"stem='imagnet' is not one of imagenet, cifar \(did you mean imag"),
        ({"init": "he"}, r"init='he' is not one of fan_out"),
        ({"compression": 0.0}, r"compression=0\.0 must satisfy 0 < compression <= 1.*0\.5"),
        ({"compression": 1.5}, r"compression=1\.5 must satisfy 0 < compression <= 1"),
        ({"compression": -0.5}, r"compression=-0\.5 must satisfy"),
        ({"compression": float("nan")}, r"compression=nan must satisfy"),
        ({"compression": 0.1}, r"compression=0\.1 leaves .*transition no channel"),
        ({"dropout": -0.2}, r"dropout=-0\.2 must be a probability in \[0, 1\)"),
        ({"dropout": 1}, r"dropout=1 must be a probability"),
        ({"block_sizes": (2, -1)}, r"block_sizes=\(2, -1\) must be positive whole numbers"),
        ({"block_sizes": ()}, r"block_sizes=\(\) must be positive"),
        ({"growth_rate": 0}, r"growth_rate=0 must be positive"),
        ({"growth_rate": 2.5}, r"growth_rate=2\.5 must be positive whole numbers"),
        ({"stem_width": 0}, r"stem_width=0 must be positive"),
        ({"num_classes": -1}, r"num_classes=-1 must be a positive whole number, or 0 for a netw"),
        ({"concat": "old"}, r"concat='old' is not one of old_new, new_old"),
        ({"dropout_after": "conv"}, r"dropout_after='conv' is not one of every_conv, last_conv"),
    ],
)
def test_invalid_configs(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_a_later_transition_without_channels() -> None:
    """50 + 2 channels shrink to 2, and 2 + 2 to none."""
    with pytest.raises(ValueError, match="leaves"):
        tiny(block_sizes=(1, 1, 1), stem_width=50, compression=0.05)


@pytest.mark.parametrize(
    ("depth", "bottleneck", "rule", "near"),
    [
        (41, True, "DenseNet-BC depth must be 6n+4", (40, 46)),
        (9, True, "DenseNet-BC depth must be 6n+4", (10, 16)),
        (41, False, "DenseNet without bottlenecks depth must be 3n+4", (40, 43)),
        (4, False, "DenseNet without bottlenecks depth must be 3n+4", (7, 10)),
    ],
)
def test_depths(depth: int, bottleneck: bool, rule: str, near: tuple[int, int]) -> None:
    message = (
        f"{rule} with n >= 1, got {depth}; the nearest valid depths are {near[0]} and {near[1]}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        cifar_densenet(depth, 12, bottleneck=bottleneck)
    for valid in near:
        sizes = cifar_densenet(valid, 12, bottleneck=bottleneck).block_sizes
        assert sizes == ((valid - 4) // (6 if bottleneck else 3),) * 3


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"bottleneck": False, "compression": 1.0}, 16),
        ({"bottleneck": False, "compression": 0.5}, 24),
        ({"bottleneck": True, "compression": 1.0}, 24),
        ({}, 24),
        ({"stem_width": 7}, 7),
    ],
)
def test_stem_width_is_the_papers(options: dict[str, object], width: int) -> None:
    assert cifar_densenet(22, 12, **options).stem_width == width


# Structure


def test_parameters_with_bottlenecks() -> None:
    """A transition keeps floor(theta * channels): 9 channels become 4."""
    assert shapes(tiny()) == {
        "conv0.kernel": (3, 3, 3, 5),
        "denseblock1.denselayer1.norm1.scale": (5,),
        "denseblock1.denselayer1.norm1.bias": (5,),
        "denseblock1.denselayer1.conv1.kernel": (1, 1, 5, 8),
        "denseblock1.denselayer1.norm2.scale": (8,),
        "denseblock1.denselayer1.norm2.bias": (8,),
        "denseblock1.denselayer1.conv2.kernel": (3, 3, 8, 2),
        "denseblock1.denselayer2.norm1.scale": (7,),
        "denseblock1.denselayer2.norm1.bias": (7,),
        "denseblock1.denselayer2.conv1.kernel": (1, 1, 7, 8),
        "denseblock1.denselayer2.norm2.scale": (8,),
        "denseblock1.denselayer2.norm2.bias": (8,),
        "denseblock1.denselayer2.conv2.kernel": (3, 3, 8, 2),
        "transition1.norm.scale": (9,),
        "transition1.norm.bias": (9,),
        "transition1.conv.kernel": (1, 1, 9, 4),
        "denseblock2.denselayer1.norm1.scale": (4,),
        "denseblock2.denselayer1.norm1.bias": (4,),
        "denseblock2.denselayer1.conv1.kernel": (1, 1, 4, 8),
        "denseblock2.denselayer1.norm2.scale": (8,),
        "denseblock2.denselayer1.norm2.bias": (8,),
        "denseblock2.denselayer1.conv2.kernel": (3, 3, 8, 2),
        "norm5.scale": (6,),
        "norm5.bias": (6,),
        "classifier.kernel": (6, 3),
        "classifier.bias": (3,),
    }


def test_parameters_without_bottlenecks() -> None:
    config = tiny(bottleneck=False, compression=1.0, block_sizes=(1, 1), stem="imagenet")
    kernels = {path: shape for path, shape in shapes(config).items() if path.endswith("kernel")}
    assert kernels == {
        "conv0.kernel": (7, 7, 3, 5),
        "denseblock1.denselayer1.conv1.kernel": (3, 3, 5, 2),
        "transition1.conv.kernel": (1, 1, 7, 7),
        "denseblock2.denselayer1.conv1.kernel": (3, 3, 7, 2),
        "classifier.kernel": (9, 3),
    }
    assert shapes(config)["norm0.scale"] == (5,)


# What it computes


def by_hand(model: DenseNet, x: jax.Array) -> dict[str, jax.Array]:
    """The network as in the paper: every norm reads, and normalises, all the maps so far."""
    relu = jax.nn.relu

    def drop(module: nnx.Module, name: str, y: jax.Array) -> jax.Array:
        layer = getattr(module, name)
        return y if layer is None else layer(y)

    x = model.conv0(x)
    if model.config.stem == "imagenet":
        x = max_pool_3x3_stride_2(relu(model.norm0(x)))
    outputs = {"stem": x}
    for stage, size in enumerate(model.config.block_sizes, start=1):
        block = getattr(model, f"denseblock{stage}")
        for index in range(1, size + 1):
            layer = getattr(block, f"denselayer{index}")
            y = drop(layer, "dropout1", layer.conv1(relu(layer.norm1(x))))
            if model.config.bottleneck:
                y = drop(layer, "dropout2", layer.conv2(relu(layer.norm2(y))))
            x = jnp.concatenate([x, y] if model.config.concat == "old_new" else [y, x], axis=-1)
        outputs[f"stage{stage}"] = x
        if stage < len(model.config.block_sizes):
            transition = getattr(model, f"transition{stage}")
            y = transition.norm(x)
            y = relu(y) if model.config.transition_relu else y
            y = drop(transition, "dropout", transition.conv(y))
            height, width = y.shape[1] // 2 * 2, y.shape[2] // 2 * 2
            corners = [y[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
            x = sum(corners) / 4
    outputs["pre_logits"] = relu(model.norm5(x)).mean((1, 2))
    outputs["logits"] = outputs["pre_logits"] @ model.classifier.kernel + model.classifier.bias
    return outputs


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (
            {"dropout": 0.2},
            [
                "denseblock1.denselayer1.dropout1",
                "denseblock1.denselayer1.dropout2",
                "denseblock1.denselayer2.dropout1",
                "denseblock1.denselayer2.dropout2",
                "denseblock2.denselayer1.dropout1",
                "denseblock2.denselayer1.dropout2",
                "transition1.dropout",
            ],
        ),
        (
            {"dropout": 0.2, "bottleneck": False, "stem": "imagenet", "block_sizes": (1, 1)},
            [
                "denseblock1.denselayer1.dropout1",
                "denseblock2.denselayer1.dropout1",
                "transition1.dropout",
            ],
        ),
        (
            {
                "dropout": 0.2,
                "dropout_after": "last_conv",
                "concat": "new_old",
                "transition_relu": False,
            },
            [
                "denseblock1.denselayer1.dropout2",
                "denseblock1.denselayer2.dropout2",
                "denseblock2.denselayer1.dropout2",
            ],
        ),
        (
            {"dropout": 0.2, "dropout_after": "last_conv", "bottleneck": False},
            [
                "denseblock1.denselayer1.dropout1",
                "denseblock1.denselayer2.dropout1",
                "denseblock2.denselayer1.dropout1",
            ],
        ),
    ],
)
def test_evaluation_is_the_network_written_out(
    options: dict[str, object],
    places: list[str],
    images: Callable,
    randomize: Callable,
    forward: Callable,
    mark_dropout: Callable,
) -> None:
    """Dropout is replaced by a function that marks its place and doubles relative errors."""
    wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    with jax.enable_x64(True):
        model = randomize(flaxnets.build(tiny(**options), rngs=nnx.Rngs(0), **wide))
        model.eval()
        assert mark_dropout(model) == places
        x = images(2, 13, 14) if "stem" in options else images(2, 7, 6)
        x = x.astype(jnp.float64)
        ours, expected = forward(model, x), forward(model, x, by_hand)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("concat", ["old_new", "new_old"])
def test_training_normalises_once_and_gives_what_the_paper_gives(
    concat: str, images: Callable, randomize: Callable, gradients: Callable
) -> None:
    """In float64: outputs, gradients and every layer's running statistics."""

    def loss_of(features: Callable) -> Callable:
        def loss(model: DenseNet, x: jax.Array) -> tuple:
            outputs = features(model, x)
            return jnp.square(outputs["logits"] - 1).sum(), outputs

        return loss

    with jax.enable_x64(True):
        double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        model = randomize(flaxnets.build(tiny(concat=concat), rngs=nnx.Rngs(0), **double))
        x = jnp.asarray(images(3, 4, 5), jnp.float64)
        ours = gradients(loss_of(DenseNet.features), model, x)
        expected = gradients(loss_of(by_hand), model, x)
    by_parameters, _, _, statistics = ours
    sizes = [np.abs(leaf).max() for leaf in jax.tree.leaves(by_parameters)]
    assert len(sizes) == 26
    assert min(sizes) > 0
    counts = [leaf for leaf in jax.tree.leaves(statistics) if leaf.shape == ()]
    assert [int(count) for count in counts] == [1] * 8
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), ours, expected
    )


# Sizes


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((32, 32), [(32, 32), (16, 16), (8, 8)]),
        ((33, 31), [(33, 31), (16, 15), (8, 7)]),
        ((64, 64), [(64, 64), (32, 32), (16, 16)]),
        ((4, 7), [(4, 7), (2, 3), (1, 1)]),
    ],
)
def test_sizes_with_the_cifar_stem(
    size: tuple[int, int], maps: list[tuple[int, int]], output_shapes: Callable
) -> None:
    assert output_shapes(tiny(block_sizes=(2, 1, 1)), 2, *size) == {
        "stem": (2, *maps[0], 5),
        "stage1": (2, *maps[0], 9),
        "stage2": (2, *maps[1], 6),
        "stage3": (2, *maps[2], 5),
        "pre_logits": (2, 5),
        "logits": (2, 3),
    }


@pytest.mark.parametrize(
    ("size", "maps"),
    [((64, 48), [(16, 12), (8, 6)]), ((65, 47), [(17, 12), (8, 6)])],
)
def test_sizes_with_the_imagenet_stem(
    size: tuple[int, int], maps: list[tuple[int, int]], output_shapes: Callable
) -> None:
    shapes = output_shapes(tiny(stem="imagenet"), 2, *size)
    assert shapes["stem"] == (2, *maps[0], 5)
    assert shapes["stage1"] == (2, *maps[0], 9)
    assert shapes["stage2"] == (2, *maps[1], 6)


def test_a_picture_too_small_for_the_transitions(output_shapes: Callable) -> None:
    """PyTorch refuses it: "Output size is too small"."""
    with pytest.raises(ValueError, match="small"):
        output_shapes(tiny(block_sizes=(1, 1, 1)), 2, 2, 2)


def test_named_stages(output_shapes: Callable) -> None:
    assert output_shapes(flaxnets.get_config("densenet_bc_40_12"), 2, 32, 32) == {
        "stem": (2, 32, 32, 24),
        "stage1": (2, 32, 32, 96),
        "stage2": (2, 16, 16, 120),
        "stage3": (2, 8, 8, 132),
        "pre_logits": (2, 132),
        "logits": (2, 10),
    }
