"""Checkpoints of upstream code bases, against modules with their names and their computation."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import flaxnets
from flaxnets import CheckpointError, PreActResNetConfig, matching, torch_bridge
from flaxnets.dialects import DIALECTS

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from parity.upstream import EXAMPLES, LOG_PROBABILITIES, upstream_module  # noqa: E402
from torchref.upstream import densenet, preact_resnet, resnet, wide_resnet  # noqa: E402
from train.optimizer import sgd  # noqa: E402


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny network of one code base.

    Attributes:
        dialect: the name of its names.
        make: builds the PyTorch module.
        config: what ``load_torch`` should make of its state dict.
        options: what the state dict does not tell ``load_torch``.
        dropout: the rate that upstream's code always has.
        finish: what upstream does to the logits.
    """

    dialect: str
    make: Callable[[], Any]
    config: Any
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dropout: float = 0.0
    finish: Callable[[jax.Array], jax.Array] = lambda logits: logits


def log_softmax(logits: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits)


def case_of(name: str, dialect: str, config: Any, options: Mapping[str, Any]) -> Case:
    return Case(
        dialect=dialect,
        make=functools.partial(upstream_module, dialect, config),
        config=config,
        options=options,
        dropout=0.5 if name.startswith("kellerjordan") or name == "weiaicunzai, wrn" else 0.0,
        finish=log_softmax if dialect in LOG_PROBABILITIES else lambda logits: logits,
    )


CASES: dict[str, Case] = {
    name: case_of(name, example.dialect, example.config, example.options)
    for name, example in EXAMPLES.items()
} | {
    "szagoruyko": Case(
        dialect="szagoruyko",
        make=lambda: wide_resnet.Szagoruyko(10, 2, num_classes=3),
        config=EXAMPLES["xternalz"].config,
    )
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def draw(module: Any, seed: int = 0) -> Any:
    """Give every tensor of a module values that none is without effect with."""
    rng = np.random.default_rng(seed)
    values = {}
    for key, tensor in module.state_dict().items():
        shape = tuple(tensor.shape)
        if key.endswith("num_batches_tracked"):
            value = rng.integers(1, 1000, shape)
        elif len(shape) > 1:
            value = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        elif key.endswith(("weight", "running_var")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.3, shape)
        values[key] = torch.tensor(value, dtype=tensor.dtype)
    module.load_state_dict(values, strict=True)
    return module


def state_of(name: str) -> dict[str, Any]:
    """Random weights of a case."""
    return dict(draw(CASES[name].make()).state_dict())


def same(config: Any, **options: Any) -> Any:
    """The config without its initialisation, which has no bearing on what is loaded."""
    fields = {field.name for field in dataclasses.fields(config)}
    known = {field: value for field, value in options.items() if field in fields}
    return dataclasses.replace(config, init="torch", **known)


def evaluate_and_train(model: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    model.eval()
    evaluated = model(x)
    model.train()
    return evaluated, model(x)


def assert_close(ours: Any, expected: Any, name: str) -> None:
    """Equal up to 1e-10 of the largest value."""
    ours, expected = np.asarray(ours), expected.numpy()
    assert ours.dtype == expected.dtype, name
    assert ours.shape == expected.shape, name
    np.testing.assert_allclose(
        ours, expected, rtol=0, atol=1e-10 * np.abs(expected).max(), err_msg=name
    )


def assert_same_state(ours: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The same keys, dtypes and bits."""
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        found = torch.as_tensor(ours[key])
        assert found.dtype == value.dtype, key
        assert found.shape == value.shape, key
        assert torch.equal(found, value), key


# Both ways


def test_loaded_networks_compute_what_upstream_does(
    case: Case, images: Callable, forward: Callable
) -> None:
    """In evaluation and in training without dropout, running statistics included."""
    module = draw(case.make().double())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    x = images(4, 8, 16).astype(np.float64)
    options: Any = {"dtype": jnp.float64, "param_dtype": jnp.float64, **case.options}
    if not isinstance(case.config, PreActResNetConfig):
        options["dropout"] = 0.0
    with jax.enable_x64(True):
        model = flaxnets.load_torch(before, **options)
        assert same(model.config) == same(case.config)
        outputs = [case.finish(logits) for logits in forward(model, x, evaluate_and_train)]
        state = flaxnets.to_torch(model)
    inputs = torch.from_numpy(x.transpose(0, 3, 1, 2))
    for training, ours in zip((False, True), outputs, strict=True):
        with torch.no_grad():
            expected = module.train(training)(inputs)
        assert_close(ours, expected, f"logits, training={training}")
    after = module.state_dict()
    if case.dialect == "szagoruyko":
        state = {key: value for key, value in state.items() if "num_batches" not in key}
    for key, value in zip(after, state.values(), strict=True):
        assert_close(value, after[key], key)
    changed = {key.rpartition(".")[2] for key in after if not torch.equal(before[key], after[key])}
    assert changed - {"num_batches_tracked"} == {"running_mean", "running_var"}


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return pytest.importorskip("safetensors.torch").load_file(path)
    return torch.load(path, weights_only=True)


def test_upstreams_module_takes_what_is_given_back(case: Case, tmp_path: Path) -> None:
    """With exactly its keys, shapes, dtypes and bits; in memory and through files."""
    expected = dict(draw(case.make()).state_dict())
    model = flaxnets.load_torch(expected, **case.options)
    assert same(model.config) == same(case.config, dropout=case.dropout)
    given = flaxnets.to_torch(model, case.dialect)
    assert list(given) == list(expected)
    assert_same_state(given, expected)
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"weights{suffix}"
        flaxnets.save_torch(model, path, case.dialect)
        content = read(path)
        assert_same_state(content, expected)
        fresh = draw(case.make(), seed=1)
        fresh.load_state_dict(content, strict=True)
        assert_same_state(fresh.state_dict(), expected)
        again = flaxnets.load_torch(path, **case.options)
        assert again.config == model.config
        assert_same_state(flaxnets.to_torch(again, case.dialect), expected)


def test_torchvisions_key_names_of_2017() -> None:
    """As in its published DenseNet files: "norm.1" for "norm1" within the dense layers."""
    expected = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in state_of("torchvision, densenet").items()
    }
    assert "features.denseblock2.denselayer2.norm.1.running_mean" in expected
    model = flaxnets.load_torch(expected)
    assert same(model.config) == same(CASES["torchvision, densenet"].config)
    assert_same_state(flaxnets.to_torch(model, "torchvision_2017"), expected)
    assert_same_state(flaxnets.to_torch(model, "torchvision"), state_of("torchvision, densenet"))


@pytest.mark.parametrize(
    ("name", "dialect", "found"),
    [
        ("kellerjordan, A", "akamaster", "conv_bias is False there and True here"),
        ("akamaster, A", "kellerjordan", "conv_bias is True there and False here"),
        ("akamaster, A", "chenyaofo", "shortcut is 'projection' there and 'zero_pad_both' here"),
        ("chenyaofo", "torchvision", "stem is 'imagenet' there and 'cifar' here"),
        ("kuangliu, resnet with bottlenecks", "akamaster", "block is 'basic' there"),
        ("pytorch_book_fc, chapter 4 of v1.0", "torchvision", "project is 'on_change' there"),
        ("kuangliu, preact", "weiaicunzai", "stem_norm is True there and False here"),
        ("weiaicunzai, preact", "kuangliu", "conv_bias is False there and True here"),
        ("kuangliu, densenet", "bamos", "concat is 'old_new' there and 'new_old' here"),
        ("bamos", "weiaicunzai", "transition_relu is False there and True here"),
        ("andreasveit, tutorial", "kuangliu", "bottleneck is True there and False here"),
        ("meliketoy", "xternalz", "projection_input is 'activated' there and 'raw' here"),
        ("xternalz", "meliketoy", "stride_on is 'conv2' there and 'conv1' here"),
        ("weiaicunzai, wrn", "wrn_tutorial", "conv_bias is False there and True here"),
    ],
)
def test_names_of_code_that_computes_something_else_are_refused(
    name: str, dialect: str, found: str
) -> None:
    with pytest.raises(ValueError, match="computes something else") as error:
        torch_bridge.dialect_for(CASES[name].config, dialect)
    assert found in str(error.value)


# Wrappings and dtypes

WRAPPINGS: dict[str, Callable[[dict], dict]] = {
    "state_dict": lambda state: {"state_dict": state, "best_prec1": 91.7, "epoch": 3},
    "net": lambda state: {"net": state, "acc": 1.0, "epoch": 3},
    "params": lambda state: {"params": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "_orig_mod.": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "all of them": lambda state: {
        "state_dict": {"net": {f"_orig_mod.module.{key}": value for key, value in state.items()}}
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", ["kuangliu, resnet", "szagoruyko"])
def test_wrappings_are_peeled(name: str, wrapping: str, tmp_path: Path) -> None:
    expected = state_of(name)
    content, path = WRAPPINGS[wrapping](expected), tmp_path / "weights.pth"
    torch.save(content, path)
    for source in (content, path):
        model = flaxnets.load_torch(source)
        assert_same_state(flaxnets.to_torch(model, CASES[name].dialect), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_files_are_widened_or_kept(dtype: str, suffix: str, tmp_path: Path) -> None:
    narrow = getattr(torch, dtype)
    stored = {
        key: value.to(narrow) if value.is_floating_point() else value
        for key, value in state_of("kuangliu, resnet").items()
    }
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(stored, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(stored, path)
    model = flaxnets.load_torch(path)
    assert model.conv1.kernel.dtype == jnp.float32
    widened = {
        key: value.float() if value.is_floating_point() else value for key, value in stored.items()
    }
    assert_same_state(flaxnets.to_torch(model, "kuangliu"), widened)
    kept = flaxnets.load_torch(path, param_dtype=None)
    dtypes = {str(value.dtype) for value in jax.tree.leaves(nnx.state(kept, nnx.Param))}
    assert dtypes == {dtype}
    assert kept.bn1.mean.dtype == jnp.float32  # statistics are never narrower
    flaxnets.save_torch(kept, path, "kuangliu")
    expected = {key: widened[key] if "running" in key else value for key, value in stored.items()}
    assert_same_state(read(path), expected)


def test_files_that_count_no_batches() -> None:
    """akamaster's published files: 97 tensors of ResNet-20, with "module." before each."""
    state = dict(draw(resnet.akamaster("A")).state_dict())
    published = {f"module.{k}": v for k, v in state.items() if "num_batches" not in k}
    assert len(published) == 97
    source = {"state_dict": published, "best_prec1": 91.78}
    model = flaxnets.load_torch(source, dialect="akamaster")
    assert same(model.config) == same(flaxnets.get_config("resnet20"))
    counted = {
        key: torch.zeros_like(value) if "num_batches" in key else value
        for key, value in state.items()
    }
    assert_same_state(flaxnets.to_torch(model, "akamaster"), counted)


# What the keys don't tell


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def recognised(
    state: Mapping[str, Any], arch: str | None = None, dialect: str | None = None, **options: Any
) -> Any:
    """The config of the network that ``load_torch`` would build."""
    found = matching.match(shapes_of(state), arch=arch, dialect=dialect, options=options)
    return found.config


def ambiguity(state: Mapping[str, Any], **options: Any) -> str:
    with pytest.raises(CheckpointError, match="do not tell all") as error:
        flaxnets.load_torch(state, **options)
    return str(error.value)


def test_kellerjordans_a_or_c() -> None:
    state = dict(resnet.KellerJordan(sizes=(3, 3, 3)).state_dict())
    for options in ({}, {"dialect": "kellerjordan"}):
        message = ambiguity(state, **options)
        assert "KellerJordan/ResNet-PyTorch-CIFAR10" in message
        assert re.search(r"shortcut: .*'zero_pad_end' or 'avg_pool_pad'", message)
        assert "arch='kellerjordan_resnet20'" in message
        assert "dropout" not in message  # its code has one, of 0.5
    named = recognised(state, arch="kellerjordan_resnet20")
    assert (named.shortcut, named.dropout) == ("zero_pad_end", 0.5)
    chosen = recognised(state, arch="kellerjordan_resnet20", shortcut="avg_pool_pad")
    assert same(chosen) == same(recognised(state, shortcut="avg_pool_pad"))
    assert same(chosen, shortcut="zero_pad_end") == same(named)


def test_akamasters_zeros() -> None:
    state = dict(resnet.akamaster().state_dict())
    message = ambiguity(state)
    assert "akamaster/pytorch_resnet_cifar10" in message
    assert "shortcut: 'zero_pad_both' or 'zero_pad_end'" in message
    assert "arch='resnet20'" in message
    assert "dialect='akamaster' if the file comes from that code" in message
    for options in ({"dialect": "akamaster"}, {"arch": "resnet20"}, {"shortcut": "zero_pad_both"}):
        assert recognised(state, **options).shortcut == "zero_pad_both"
    assert recognised(state, shortcut="zero_pad_end").shortcut == "zero_pad_end"


@pytest.mark.parametrize("name", ["xternalz, not widened", "meliketoy", "wrn_tutorial"])
def test_dropout_of_wide_resnets(name: str) -> None:
    message = ambiguity(state_of(name))
    assert "dropout: any rate from 0 up to 1" in message
    assert "projection_input" not in message  # which these code bases decide
    config = recognised(state_of(name), dropout=0.3)
    assert same(config) == same(CASES[name].config, dropout=0.3)


def test_names_that_have_the_rate() -> None:
    state = dict(wide_resnet.Xternalz(10, 1).state_dict())
    assert "arch='wrn_10_1'" in ambiguity(state)
    assert recognised(state, arch="wrn_10_1").dropout == 0


@pytest.mark.parametrize(
    ("name", "open_fields", "decisions"),
    [
        (
            "xternalz, not widened",
            ["projection_input: 'activated' or 'raw'", "stride_on: 'conv1' or 'conv2'"],
            {
                "projection_input": "activated",
                "stride_on": "conv1",
                "dropout": 0.0,
                "final_norm_momentum": 0.9,
            },
        ),
        (
            "weiaicunzai, preact",
            ["shortcut_input: 'activated' or 'raw' or 'activated_first'"],
            {"shortcut_input": "raw", "stride_on": "conv1"},
        ),
        (
            "bamos",
            ["concat: 'old_new' or 'new_old'", "transition_relu: True or False"],
            {"concat": "old_new", "transition_relu": True, "dropout": 0.0},
        ),
    ],
)
def test_this_packages_own_names(
    name: str, open_fields: list[str], decisions: dict[str, Any]
) -> None:
    """They are nobody's, so that no code decides what leaves no trace."""
    case = CASES[name]
    state = flaxnets.to_torch(flaxnets.load_torch(state_of(name), **case.options))
    message = ambiguity(state)
    for line in open_fields:
        assert line in message
    assert same(recognised(state, **decisions)) == same(case.config)


# Look-alikes


def test_no_other_dialect_loads_another_function(case: Case) -> None:
    """Under every other name the weights are refused, or it is the same network."""
    shapes = shapes_of(case.make().state_dict())
    options = {key: value for key, value in case.options.items() if key != "dialect"}
    for dialect in {each.name for each in DIALECTS} - {case.dialect}:
        try:
            found = matching.match(shapes, arch=None, dialect=dialect, options=options)
        except ValueError:
            continue
        rate = getattr(found.config, "dropout", 0.0)
        assert same(found.config) == same(case.config, dropout=rate), dialect


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("meliketoy", "kuangliu"),
        ("andreasveit", "bamos"),
        ("bamos", "andreasveit"),
        ("bamos", "kuangliu"),
        ("kuangliu, densenet", "bamos"),
        ("chenyaofo", "torchvision"),
        ("torchvision, basic", "chenyaofo"),
        ("kuangliu, preact", "akamaster"),
        ("akamaster, A", "kuangliu"),
        ("xternalz", "szagoruyko"),
        ("weiaicunzai, wrn", "meliketoy"),
        ("wrn_tutorial", "meliketoy"),
        ("pytorch_book", "pytorch_book_fc"),
        ("pytorch_book_fc, chapter 4 of v1.0", "pytorch_book"),
    ],
)
def test_look_alikes_are_refused(name: str, dialect: str) -> None:
    options = {k: v for k, v in CASES[name].options.items() if k != "dialect"}
    with pytest.raises(CheckpointError):
        flaxnets.load_torch(state_of(name), dialect=dialect, **options)


def test_meliketoys_resnet_is_refused() -> None:
    """It has his WRN's names, and is no network of any paper."""
    module = wide_resnet.MeliketoyResNet()
    for state in (module.state_dict(), WRAPPINGS["module."](module.state_dict())):
        with pytest.raises(CheckpointError, match=r"meliketoy.*networks/resnet\.py: .*14 layers"):
            flaxnets.load_torch(state)


# Networks of the published size


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "densenet121"]
)
def test_torchvisions_networks_are_recognised(name: str) -> None:
    with torch.device("meta"):
        module = torchvision.models.get_model(name)
    found = matching.match(shapes_of(module.state_dict()), arch=None, dialect=None, options={})
    assert found.dialect.name == "torchvision"
    assert same(found.config) == same(flaxnets.get_config(name))


def on_meta(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with torch.device("meta"):
        return make(*args, **options)


DEEP: Any = {"sizes": (3, 4, 6, 3)}


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: resnet.PytorchBook(), 21_797_672),
        (lambda: resnet.PytorchBook("fc", project_first=True), 21_801_896),
        (
            lambda: resnet.PytorchBook(
                "fc", project_first=True, widths=(128, 256, 512, 512), num_classes=2
            ),
            46_993_986,
        ),
        (lambda: resnet.KellerJordan("A", sizes=(3, 3, 3)), 270_410),
        (lambda: resnet.KellerJordan("B", sizes=(3, 3, 3)), 273_066),
        (lambda: resnet.akamaster("A"), 269_722),
        (lambda: resnet.akamaster("B"), 272_474),
        (lambda: resnet.chenyaofo(num_classes=100), 278_324),
        (lambda: resnet.kuangliu(), 11_173_962),
        (lambda: resnet.kuangliu("bottleneck", **DEEP), 23_520_842),
        (lambda: resnet.Weiaicunzai(), 11_220_132),
        (lambda: resnet.Weiaicunzai("bottleneck", **DEEP), 23_705_252),
        (lambda: preact_resnet.Kuangliu(), 11_171_146),
        (lambda: preact_resnet.Kuangliu("bottleneck", **DEEP), 23_509_066),
        (lambda: preact_resnet.Weiaicunzai(), 11_222_244),
        (lambda: preact_resnet.Weiaicunzai("bottleneck", **DEEP), 23_720_164),
        (lambda: densenet.andreasveit(), 769_162),
        (lambda: densenet.bamos(), 769_162),
        (lambda: densenet.kuangliu(), 1_000_618),
        (lambda: densenet.Weiaicunzai(), 7_048_548),
        (lambda: wide_resnet.Xternalz(40, 2, num_classes=100), 2_255_156),
        (lambda: wide_resnet.Szagoruyko(16, 2), 691_674),
        (lambda: wide_resnet.Meliketoy(40, 2), 2_246_474),
        (lambda: wide_resnet.MeliketoyResNet(), 175_818),
        (lambda: wide_resnet.Weiaicunzai(40, 2), 2_258_084),
        (lambda: wide_resnet.Tutorial(16, 4), 2_748_890),
    ],
)
def test_upstreams_modules_have_upstreams_parameters(make: Callable, parameters: int) -> None:
    """As counted in the code bases' own modules."""
    assert sum(each.numel() for each in on_meta(make).parameters()) == parameters


# The optimizer's momentum


def test_momentum_goes_both_ways_and_goes_on(images: Callable) -> None:
    """After two steps of PyTorch, a third makes the same parameters in both frameworks."""
    case = CASES["chenyaofo"]
    module, rates = draw(case.make()), {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, **rates)
    pictures, labels = images(12, 8, 16).reshape(3, 4, 8, 16, 3), np.arange(12).reshape(3, 4) % 3

    def step(module: Any, optimizer: Any, number: int) -> None:
        optimizer.zero_grad()
        inputs = torch.from_numpy(pictures[number].transpose(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(module(inputs), torch.from_numpy(labels[number]))
        loss.backward()
        optimizer.step()

    for number in range(2):
        step(module, optimizer, number)
    buffers = {
        index: each["momentum_buffer"].clone()
        for index, each in optimizer.state_dict()["state"].items()
    }
    model = flaxnets.load_torch(module.state_dict())
    momentum = flaxnets.momentum_from_torch(model, optimizer.state_dict())

    back = flaxnets.momentum_to_torch(model, momentum)
    assert back["state"].keys() == buffers.keys()
    for index, buffer in buffers.items():
        assert torch.equal(torch.as_tensor(back["state"][index]["momentum_buffer"]), buffer)

    fresh = case.make()
    fresh.load_state_dict(
        {k: torch.as_tensor(v) for k, v in flaxnets.to_torch(model, case.dialect).items()}
    )
    resumed = torch.optim.SGD(fresh.parameters(), lr=0.05, **rates)
    (group,) = resumed.state_dict()["param_groups"]
    resumed.load_state_dict(
        {
            "state": {
                index: {"momentum_buffer": torch.as_tensor(each["momentum_buffer"])}
                for index, each in back["state"].items()
            },
            "param_groups": [group | back["param_groups"][0]],
        }
    )
    step(module, optimizer, 2)
    step(fresh, resumed, 2)
    assert_same_state(fresh.state_dict(), module.state_dict())

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def update(params: Any, opt_state: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = nnx.merge(graphdef, params, rest, copy=True)(pictures[2])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[2])
            return losses.mean()

        updates, _ = transformation.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates)

    transformation = sgd(0.05, **rates)
    opt_state = optax.tree.set(transformation.init(params), trace=momentum)
    stepped = flaxnets.to_torch(nnx.merge(graphdef, update(params, opt_state), rest))
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(
            stepped[name], parameter.detach().numpy(), rtol=0, atol=1e-6, err_msg=name
        )


def test_momentum_of_another_network() -> None:
    module = CASES["chenyaofo"].make()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    model = flaxnets.load_torch(state_of("weiaicunzai, resnet with bottlenecks"))
    with pytest.raises(CheckpointError, match=r"no state_dict of a torch\.optim\.SGD"):
        flaxnets.momentum_from_torch(model, optimizer.state_dict())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    optimizer.step()
    with pytest.raises(CheckpointError, match="29 momentum buffers, the network 38 parameters"):
        flaxnets.momentum_from_torch(model, optimizer.state_dict())


def test_names_are_a_bijection_for_every_network_that_a_code_base_can_build() -> None:
    pairs = 0
    for name in flaxnets.list_models():
        config = flaxnets.get_config(name)
        if max(getattr(config, "stage_sizes", (0,))) > 100:
            continue  # thousands of keys that differ from others' in a number
        keys = [entry.key for entry in flaxnets.layout.layout(config)]
        for dialect in DIALECTS:
            if not isinstance(config, dialect.family) or dialect.contradictions(config):
                continue
            upstream = [dialect.to_upstream(key) for key in keys]
            assert len(set(upstream)) == len(keys), (name, dialect.name)
            assert [dialect.from_upstream(key) for key in upstream] == keys, (name, dialect.name)
            pairs += 1
    assert pairs > 250
