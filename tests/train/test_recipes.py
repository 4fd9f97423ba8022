"""Recipes against the published numbers, and how a run's configuration is made from one."""

import dataclasses

import pytest

from train import recipes

PUBLISHED = {
    # arch: epochs, batch, rate, Nesterov, weight decay, schedule, milestones, factor
    "resnet20": (200, 128, 0.1, False, 1e-4, "step", (100, 150), 0.1),
    "densenet_40_12": (300, 64, 0.1, True, 1e-4, "step", (150, 225), 0.1),
    "wrn_16_4": (200, 128, 0.1, True, 5e-4, "step", (60, 120, 160), 0.2),
    "kellerjordan_resnet20": (60, 128, 0.1, False, 1e-4, "step", (50, 55), 0.1),
    "resnet18_cifar": (200, 128, 0.1, False, 5e-4, "cosine", (), 0.1),
    "wide_resnet50_2": (200, 128, 0.1, False, 1e-4, "step", (100, 150), 0.1),
}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_cifar_recipes_are_the_published_ones(arch):
    config = recipes.resolve(arch, "cifar10")
    got = (
        config.epochs,
        config.batch_size,
        config.learning_rate,
        config.nesterov,
        config.weight_decay,
        config.schedule,
        config.milestones,
        config.decay_factor,
    )
    assert got == PUBLISHED[arch]
    assert (config.arch, config.momentum, config.warmup_epochs) == (arch, 0.9, 0)
    assert recipes.resolve(arch, "cifar100") == dataclasses.replace(config, dataset="cifar100")


@pytest.mark.parametrize(
    ("alias", "arch"),
    [("resnet", "resnet32"), ("densenet", "densenet_bc_100_12"), ("wrn", "wrn_28_10")],
)
def test_aliases(alias, arch):
    assert recipes.resolve(alias, "cifar10").arch == arch
    assert recipes.resolve(alias, "digits").arch == arch


@pytest.mark.parametrize(
    ("arch", "epochs", "milestones"),
    [
        ("densenet", 40, (20, 30)),
        ("densenet", 3, (2, 3)),
        ("wrn", 100, (30, 60, 80)),
        ("wrn", 10, (3, 6, 8)),
        ("wrn", 1, (1, 1, 1)),
    ],
)
def test_milestones_follow_the_number_of_epochs(arch, epochs, milestones):
    assert recipes.resolve(arch, "cifar10", epochs=epochs).milestones == milestones


def test_given_values_win_and_none_means_the_recipe():
    config = recipes.resolve("wrn", "cifar10", epochs=7, milestones=(2, 5), momentum=None, seed=4)
    assert (config.epochs, config.milestones, config.momentum, config.seed) == (7, (2, 5), 0.9, 4)


def test_another_schedule_drops_the_milestones():
    assert recipes.resolve("wrn", "cifar10", schedule="cosine").milestones == ()


def test_rates_of_a_recipe_change_at_the_published_epochs():
    rates = recipes.resolve("densenet", "cifar10").learning_rates(steps_per_epoch=10)
    got = [float(rates(step)) for step in (0, 1499, 1500, 2249, 2250, 2999)]
    assert got == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"batch_size": -4}, "--batch-size must be at least 1, got -4"),
        ({"steps_per_dispatch": 0}, "--steps-per-dispatch must be at least 1"),
        ({"warmup_epochs": -1}, "--warmup-epochs must not be negative"),
        ({"schedule": "poly"}, "--schedule must be one of step, cosine, constant; got 'poly'"),
        ({"dtype": "int8"}, "--dtype must be one of float32, bfloat16; got 'int8'"),
        ({"milestones": (5, 3)}, r"--milestones must be ascending .* got \[5, 3\]"),
        ({"schedule": "cosine", "milestones": (3,)}, "mean nothing with --schedule cosine"),
    ],
)
def test_impossible_values_are_refused_with_the_flag_named(given, message):
    with pytest.raises(ValueError, match=message):
        recipes.resolve("resnet", "cifar10", **given)


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="no network named 'resnet21'; did you mean"):
        recipes.resolve("resnet21", "cifar10")
