"""The plain networks compute what flaxnets' do, so that their speed can be compared."""

import jax
import numpy as np
import pytest
from flax import nnx

import flaxnets
from benchmarks import jax_common, plain_flax

SMALL = {
    "resnet20": {"stage_sizes": (1, 1, 1)},
    "resnet20_b": {"stage_sizes": (1, 1, 1)},
    "kellerjordan_resnet20": {"stage_sizes": (1, 1, 1), "shortcut": "avg_pool_pad", "dropout": 0.0},
    "resnet50": {"stage_sizes": (1, 1), "widths": (8, 16), "stem_width": 8},
    "resnext50_32x4d": {"stage_sizes": (1, 1), "widths": (64, 64), "stem_width": 8},
    "pytorch_book_resnet34_v1": {"stage_sizes": (1, 2), "widths": (8, 16), "stem_width": 8},
    "preact_resnet110": {"stage_sizes": (2, 1, 1)},
    "preact_resnet164": {"stage_sizes": (1, 1, 1)},
    "weiaicunzai_preact_resnet50_cifar": {"stage_sizes": (1, 1), "widths": (8, 16)},
    "densenet_40_12": {"block_sizes": (2, 1)},
    "densenet_bc_40_12": {"block_sizes": (2, 1)},
    "densenet121": {"block_sizes": (2, 1), "growth_rate": 8, "stem_width": 8},
    "densenet_cifar": {"block_sizes": (2, 1)},
    "weiaicunzai_densenet121_cifar": {"block_sizes": (2, 1)},
    "wrn_16_1": {"depth": 10},
    "meliketoy_wrn_16_8": {"depth": 10, "widen_factor": 1, "dropout": 0.0},
}


def test_every_family_is_there() -> None:
    families = {flaxnets.info(name).family for name in SMALL}
    assert families == {"ResNet", "PreActResNet", "DenseNet", "WideResNet"}


@pytest.mark.parametrize("name", SMALL)
def test_same_weights_same_logits(name: str) -> None:
    """In training mode, where every layer normalises by what came before it in this very batch."""
    config = flaxnets.get_config(name, **SMALL[name])
    ours = flaxnets.build(config, rngs=nnx.Rngs(0))
    plain = plain_flax.build(config, rngs=nnx.Rngs(1))
    jax_common.set_weights(ours)
    jax_common.set_weights(plain)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))

    def logits(model: nnx.Module) -> np.ndarray:
        graph, state = nnx.split(model)
        return np.asarray(jax.jit(lambda state: nnx.merge(graph, state, copy=True)(images))(state))

    expected = logits(ours)
    assert expected.shape == (2, config.num_classes)
    np.testing.assert_allclose(logits(plain), expected, atol=2e-4 * np.abs(expected).max(), rtol=0)


def test_the_names_inside_are_the_same() -> None:
    config = flaxnets.get_config("resnet20")
    models = flaxnets.build(config, rngs=nnx.Rngs(0)), plain_flax.build(config, rngs=nnx.Rngs(0))
    ours, plain = (jax_common.parameters(nnx.state(model, nnx.Param)) for model in models)
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in plain.items()
    }
    assert sum(value.size for value in ours.values()) == flaxnets.published_parameters("resnet20")
