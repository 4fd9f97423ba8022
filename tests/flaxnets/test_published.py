"""What is published: against the sources themselves where a package brings them, and by hand."""

import dataclasses

import pytest

import flaxnets
from flaxnets.published import cifar_recipe
from flaxnets.published_errors import DATASETS, TABLES
from flaxnets.published_recipes import CIFAR_HABITS, IMAGENET_RECIPES, RECIPES


@pytest.mark.parametrize("name", flaxnets.list_models())
def test_every_network_has_an_info(name):
    network = flaxnets.info(name)
    assert network.name == name
    assert network.config == flaxnets.get_config(name)
    assert network.parameters == flaxnets.published_parameters(name)
    assert network.family == type(network.config).__name__.removesuffix("Config")
    assert network.input_size in ((32, 32), (224, 224))
    own = {10: "CIFAR-10", 100: "CIFAR-100"}.get(network.config.num_classes, "ImageNet")
    assert network.normalisation.dataset == own
    assert (network.input_size == (224, 224)) == (own == "ImageNet")
    assert all(0.1 < value < 1 for n in network.normalisations for value in n.mean + n.std)
    for error in network.errors:
        assert 0 < error.top1 < 50
        assert error.top5 is None or 0 < error.top5 < error.top1
        assert (error.dataset == "ImageNet") == (own == "ImageNet")
    lines = str(network).splitlines()
    assert max(map(len, lines)) <= 100
    assert network.paper.arxiv in str(network)


def test_a_source_that_no_table_knows_is_seen():
    """A CIFAR network of a new upstream project must say how that project trains it."""
    for name in flaxnets.list_models():
        network = flaxnets.info(name)
        if network.input_size == (32, 32):
            assert network.source.startswith(tuple(CIFAR_HABITS)), network.source


def test_tables_name_registered_networks_only_and_are_rectangular():
    names = set(flaxnets.list_models())
    for table in TABLES:
        assert set(table.rows) <= names, table.source
        for name, row in table.rows.items():
            assert len(row) == len(table.columns), (table.source, name)
            assert any(percent is not None for percent in row), (table.source, name)
    assert set(IMAGENET_RECIPES) <= names
    assert {recipe for recipe, _ in CIFAR_HABITS.values()} | set(IMAGENET_RECIPES.values()) == set(
        RECIPES
    )


def test_no_error_is_given_twice():
    for name in flaxnets.list_models():
        errors = flaxnets.info(name).errors
        assert len({dataclasses.replace(error, top1=0, top5=0) for error in errors}) == len(errors)


def test_torchvisions_figures_are_those_of_its_weights():
    models = pytest.importorskip("torchvision.models")
    shared = [name for name in flaxnets.list_models() if name in models.list_models()]
    assert len(shared) == 14
    for name in shared:
        network = flaxnets.info(name)
        published = {
            error.source: (error.top1, error.top5)
            for error in network.errors
            if error.source.startswith("torchvision")
        }
        expected = {}
        for weights in models.get_model_weights(name):
            meta = weights.meta
            accuracies = meta["_metrics"]["ImageNet-1K"]
            expected[f"torchvision {weights.name.removeprefix('IMAGENET1K_')} weights"] = tuple(
                pytest.approx(100 - accuracies[key], abs=1e-9) for key in ("acc@1", "acc@5")
            )
            assert network.multiply_adds == round(meta["_ops"] * 1000) * 1_000_000
            assert network.parameters == meta["num_params"]
            transforms = weights.transforms()
            assert network.normalisation.mean == tuple(transforms.mean)
            assert network.normalisation.std == tuple(transforms.std)
        assert published == expected


@pytest.mark.parametrize(
    ("name", "source", "dataset", "note", "percent"),
    [
        ("resnet20", "He 2015, table 6", "CIFAR-10", "", (8.75, None)),
        ("resnet110", "He 2015, table 6", "CIFAR-10", "best of 5", (6.43, None)),
        ("resnet110", "akamaster README", "CIFAR-10", "", (6.32, None)),
        ("resnet56_b", "chenyaofo", "CIFAR-100", "last epoch", (27.63, None)),
        ("resnet1001", "He 2016, table 3", "CIFAR-100", "median", (27.82, None)),
        ("preact_resnet1001", "He 2016, table 4", "CIFAR-10", "batches of 64", (4.62, None)),
        ("preact_resnet164", "He 2016, table 3", "CIFAR-10", "median", (5.46, None)),
        ("kellerjordan_resnet56", "KellerJordan README", "CIFAR-10", "", (8.31, None)),
        ("resnet18_cifar", "kuangliu README", "CIFAR-10", "best", (6.98, None)),
        ("resnet18_cifar", "weiaicunzai README", "CIFAR-100", "best", (24.39, 6.95)),
        ("densenet_bc_100_12", "Huang 2017, table 2", "CIFAR-10", "neither", (5.92, None)),
        ("densenet_bc_190_40", "Huang 2017, table 2", "CIFAR-100", "", (17.18, None)),
        ("densenet_100_24", "Huang 2017, table 2", "SVHN", "dropout 0.2", (1.59, None)),
        ("densenet121", "Huang 2017, table 3", "ImageNet", "", (25.02, 7.71)),
        ("wide_resnet50_2", "Zagoruyko 2016, table 8", "ImageNet", "", (21.9, 6.03)),
        ("wrn_28_10", "Zagoruyko 2016, table 5", "CIFAR-10", "median", (4.00, None)),
        ("wrn_28_10", "Zagoruyko 2016, table 4", "CIFAR-100", "ZCA", (20.50, None)),
        ("wrn_52_1", "Zagoruyko 2016, table 6", "CIFAR-100", "dropout 0.3", (29.78, None)),
        ("meliketoy_wrn_28_20", "meliketoy README", "CIFAR-10", "mean of 5", (3.45, None)),
        ("resnet50", "fb.resnet.torch README", "ImageNet", "", (24.01, 7.02)),
    ],
)
def test_errors_are_the_published_ones(name, source, dataset, note, percent):
    found = [
        (error.top1, error.top5)
        for error in flaxnets.info(name).errors
        if (error.source, error.dataset) == (source, dataset)
        and note in error.note
        and (error.note != "") == (note != "")
    ]
    assert percent in found


@pytest.mark.parametrize(
    ("name", "dataset", "top1"),
    [
        ("resnet50", "ImageNet", 19.142),
        ("resnet34", "ImageNet", 23.58),  # not 21.84, which is of several scales
        ("resnet110", "CIFAR-10", 6.32),
        ("wrn_28_10", "CIFAR-10", 3.89),
        ("weiaicunzai_preact_resnet18_cifar", "CIFAR-100", 27.08),
    ],
)
def test_best_error(name, dataset, top1):
    best = flaxnets.info(name).best_error
    assert (best.dataset, best.top1, best.view) == (dataset, top1, "one crop")


def test_networks_without_published_errors():
    network = flaxnets.info("wrn_10_1")
    assert network.errors == ()
    assert network.best_error is None
    assert "none published" in str(network)


@pytest.mark.parametrize(
    ("name", "arxiv"),
    [
        ("resnet20", "1512.03385"),
        ("resnet1001", "1603.05027"),
        ("preact_resnet18_cifar", "1603.05027"),
        ("resnext50_32x4d", "1611.05431"),
        ("wide_resnet50_2", "1605.07146"),
        ("wrn_16_4", "1605.07146"),
        ("densenet201", "1608.06993"),
    ],
)
def test_papers(name, arxiv):
    assert flaxnets.info(name).paper.arxiv == arxiv


@pytest.mark.parametrize(
    ("name", "means", "deviations"),
    [
        # Each std tells its project apart from the others.
        ("resnet20", {"CIFAR-10": 0.485}, {"CIFAR-10": 0.229}),
        ("kellerjordan_resnet20", {"CIFAR-10": 0.5}, {"CIFAR-10": 0.5}),
        ("resnet18_cifar", {"CIFAR-10": 0.4914}, {"CIFAR-10": 0.2023}),
        ("densenet_bc_100_12", {"CIFAR-10": 0.4914}, {"CIFAR-10": 0.2471}),
        (
            "resnet20_b",
            {"CIFAR-10": 0.4914, "CIFAR-100": 0.507},
            {"CIFAR-10": 0.2023, "CIFAR-100": 0.2673},
        ),
        (
            "meliketoy_wrn_28_10",
            {"CIFAR-10": 0.4914, "CIFAR-100": 0.5071},
            {"CIFAR-10": 0.2023, "CIFAR-100": 0.2675},
        ),
        # The statistics of CIFAR-10 on both.
        (
            "wrn_28_10",
            {"CIFAR-10": 0.4914, "CIFAR-100": 0.4914},
            {"CIFAR-10": 0.2471, "CIFAR-100": 0.2471},
        ),
    ],
)
def test_normalisations(name, means, deviations):
    normalisations = flaxnets.info(name).normalisations
    assert {n.dataset: n.mean[0] for n in normalisations} == means
    assert {n.dataset: n.std[0] for n in normalisations} == deviations


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "nesterov", "decay", "milestones"),
    [
        ("resnet50", 90, 256, False, 1e-4, (30, 60)),
        ("resnext50_32x4d", 100, 256, False, 1e-4, (30, 60, 90)),
        ("wide_resnet50_2", 90, 256, True, 1e-4, (30, 60)),
        ("densenet121", 90, 256, True, 1e-4, (30, 60)),
        ("resnet20_b", 200, 256, True, 5e-4, ()),
        ("preact_resnet110", 164, 128, True, 1e-4, (80, 121)),
        ("preact_resnet164", 200, 64, True, 1e-4, (80, 121)),
        ("resnet164", 164, 128, False, 1e-4, (82, 123)),
        ("weiaicunzai_wrn_40_10", 200, 128, False, 5e-4, (59, 119, 159)),
        ("meliketoy_wrn_28_10", 200, 128, False, 5e-4, (60, 120, 160)),
        ("densenet121_cifar", 200, 128, False, 5e-4, ()),
    ],
)
def test_recipes(name, epochs, batch, nesterov, decay, milestones):
    recipe = flaxnets.info(name).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.nesterov) == (epochs, batch, nesterov)
    assert (recipe.learning_rate, recipe.momentum) == (0.1, 0.9)
    assert (recipe.weight_decay, recipe.milestones) == (decay, milestones)
    assert recipe.schedule == ("step" if milestones else "cosine")


def test_recipes_read_as_sentences():
    assert str(RECIPES["weiaicunzai"]) == (
        "200 epochs; batch 128; SGD with momentum 0.9; rate 0.1 (times 0.2 after 59, 119 and 159 "
        "epochs); weight decay 0.0005; 1-epoch warm-up"
    )
    assert "Nesterov momentum" in str(RECIPES["chenyaofo"])
    assert "rate 0.1 (cosine)" in str(RECIPES["chenyaofo"])


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("resnet18", "he_2015"),
        ("pytorch_book_resnet34", "he_2015"),
        ("densenet121", "huang_2017"),
        ("densenet121_cifar", "kuangliu"),
        ("resnet20", "he_2015"),
        ("wrn", "zagoruyko_2016"),
    ],
)
def test_recipes_on_cifar(name, recipe):
    assert cifar_recipe(name).name == recipe


def test_books_recipe_is_not_sgd():
    assert flaxnets.info("pytorch_book_resnet34").recipe is None


def test_aliases_and_near_misses():
    assert flaxnets.info("densenet").name == "densenet_bc_100_12"
    with pytest.raises(ValueError, match="no network named 'resnet21'; did you mean"):
        flaxnets.info("resnet21")


def test_text_lists_the_errors_by_data_set():
    text = str(flaxnets.info("resnet110"))
    assert "He 2015, table 6: best of 5 runs, 6.61 +- 0.16" in text
    order = [line.split()[0] for line in text.splitlines() if line.startswith(DATASETS)]
    table = order[1:]  # the first is the normalisation
    assert table == sorted(table, key=DATASETS.index)
    assert len(table) == 8
