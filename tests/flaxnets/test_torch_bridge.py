import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import CheckpointError

TINY: dict[str, dict[str, object]] = {
    "resnet18": {"stage_sizes": (1, 1), "widths": (4, 8), "stem_width": 4, "num_classes": 3},
    "densenet_bc_40_12": {
        "block_sizes": (1, 1),
        "growth_rate": 2,
        "stem_width": 4,
        "num_classes": 3,
    },
    "wrn_10_1": {"num_classes": 3},
    "kellerjordan_resnet20": {
        "stage_sizes": (1, 1),
        "widths": (4, 8),
        "stem_width": 4,
        "num_classes": 3,
        "shortcut": "projection_biased",
    },
}
StateDict = dict[str, np.ndarray]


def norm(name: str) -> list[str]:
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{name}.{leaf}" for leaf in leaves]


KEYS: dict[str, list[str]] = {
    "resnet18": [
        "conv1.weight",
        *norm("bn1"),
        "layer1.0.conv1.weight",
        *norm("layer1.0.bn1"),
        "layer1.0.conv2.weight",
        *norm("layer1.0.bn2"),
        "layer2.0.conv1.weight",
        *norm("layer2.0.bn1"),
        "layer2.0.conv2.weight",
        *norm("layer2.0.bn2"),
        "layer2.0.downsample.0.weight",
        *norm("layer2.0.downsample.1"),
        "fc.weight",
        "fc.bias",
    ],
    "densenet_bc_40_12": [
        "conv0.weight",
        *norm("denseblock1.denselayer1.norm1"),
        "denseblock1.denselayer1.conv1.weight",
        *norm("denseblock1.denselayer1.norm2"),
        "denseblock1.denselayer1.conv2.weight",
        *norm("transition1.norm"),
        "transition1.conv.weight",
        *norm("denseblock2.denselayer1.norm1"),
        "denseblock2.denselayer1.conv1.weight",
        *norm("denseblock2.denselayer1.norm2"),
        "denseblock2.denselayer1.conv2.weight",
        *norm("norm5"),
        "classifier.weight",
        "classifier.bias",
    ],
    "wrn_10_1": [
        "conv1.weight",
        *norm("layer1.0.bn1"),
        "layer1.0.conv1.weight",
        *norm("layer1.0.bn2"),
        "layer1.0.conv2.weight",
        *norm("layer2.0.bn1"),
        "layer2.0.conv1.weight",
        *norm("layer2.0.bn2"),
        "layer2.0.conv2.weight",
        "layer2.0.downsample.0.weight",
        *norm("layer3.0.bn1"),
        "layer3.0.conv1.weight",
        *norm("layer3.0.bn2"),
        "layer3.0.conv2.weight",
        "layer3.0.downsample.0.weight",
        *norm("bn1"),
        "fc.weight",
        "fc.bias",
    ],
    "kellerjordan_resnet20": [
        "conv1.weight",
        "conv1.bias",
        *norm("bn1"),
        "layer1.0.conv1.weight",
        "layer1.0.conv1.bias",
        *norm("layer1.0.bn1"),
        "layer1.0.conv2.weight",
        "layer1.0.conv2.bias",
        *norm("layer1.0.bn2"),
        "layer2.0.conv1.weight",
        "layer2.0.conv1.bias",
        *norm("layer2.0.bn1"),
        "layer2.0.conv2.weight",
        "layer2.0.conv2.bias",
        *norm("layer2.0.bn2"),
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.0.bias",
        "fc.weight",
        "fc.bias",
    ],
}


@pytest.fixture(params=sorted(TINY))
def arch(request: pytest.FixtureRequest) -> str:
    return request.param


def create(arch: str, **options: object) -> nnx.Module:
    return flaxnets.create(arch, rngs=nnx.Rngs(0), **TINY[arch], **options)


def load(source: object, arch: str = "resnet18", **options: object) -> nnx.Module:
    return flaxnets.load_torch(source, arch, **(TINY[arch] | options))


def random_state_dict(arch: str = "resnet18", seed: int = 0) -> StateDict:
    """One with a different value in every place."""
    rng = np.random.default_rng(seed)
    state = {}
    for key, value in flaxnets.to_torch(create(arch)).items():
        if key.endswith("num_batches_tracked"):
            state[key] = np.array(rng.integers(1000), np.int64)
        else:
            state[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    return state


def assert_equal(ours: StateDict, expected: StateDict) -> None:
    assert list(ours) == list(expected)
    for key, value in expected.items():
        assert ours[key].dtype == value.dtype, key
        np.testing.assert_array_equal(ours[key], value, err_msg=key, strict=True)


# Names and layouts


def test_keys_come_in_pytorchs_order(arch: str) -> None:
    assert list(flaxnets.to_torch(create(arch))) == KEYS[arch]


def test_every_variable_has_one_key(arch: str) -> None:
    state = flaxnets.to_torch(create(arch))
    variables = jax.tree.leaves(nnx.state(create(arch), (nnx.Param, nnx.BatchStat)))
    assert len(set(state)) == len(state) == len(variables)
    assert sum(value.size for value in state.values()) == sum(v.size for v in variables)


def test_round_trip_is_bit_identical(arch: str) -> None:
    """State dict to Flax to state dict, and Flax to state dict to Flax."""
    state = random_state_dict(arch)
    model = load(state, arch)
    assert_equal(flaxnets.to_torch(model), state)
    again = load(flaxnets.to_torch(model), arch)
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.state(model, (nnx.Param, nnx.BatchStat)),
        nnx.state(again, (nnx.Param, nnx.BatchStat)),
    )


def test_kernel_layouts() -> None:
    """(out, in, height, width) to (height, width, in, out), and (out, in) to (in, out)."""
    state = random_state_dict()
    model = load(state)
    conv, ours = state["layer2.0.conv1.weight"], np.asarray(model.layer2[0].conv1.kernel)
    assert (conv.shape, ours.shape) == ((8, 4, 3, 3), (3, 3, 4, 8))
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(ours[row, column].T, conv[:, :, row, column])
    assert model.fc.kernel.shape == (8, 3)
    np.testing.assert_array_equal(np.asarray(model.fc.kernel).T, state["fc.weight"])


def test_batch_norm_leaves() -> None:
    state = random_state_dict()
    norm = load(state).layer1[0].bn2
    pairs = {
        "weight": norm.scale,
        "bias": norm.bias,
        "running_mean": norm.mean,
        "running_var": norm.var,
        "num_batches_tracked": norm.num_batches_tracked,
    }
    for leaf, variable in pairs.items():
        np.testing.assert_array_equal(variable[...], state[f"layer1.0.bn2.{leaf}"], err_msg=leaf)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("layer1", "0", "conv1", "kernel"), "layer1.0.conv1.weight"),
        (("layer1", 0, "bn2", "scale"), "layer1.0.bn2.weight"),
        (("bn1", "bias"), "bn1.bias"),
        (("bn1", "mean"), "bn1.running_mean"),
        (("bn1", "var"), "bn1.running_var"),
        (("bn1", "num_batches_tracked"), "bn1.num_batches_tracked"),
        (("denseblock1", "denselayer12", "conv2"), "denseblock1.denselayer12.conv2"),
        (("layer2", "0", "downsample", "0"), "layer2.0.downsample.0"),
        (("fc",), "fc"),
    ],
)
def test_torch_name(path: tuple, name: str) -> None:
    assert flaxnets.torch_name(path) == name


def test_to_torch_does_not_share_the_models_memory() -> None:
    model = create("resnet18")
    state = flaxnets.to_torch(model)
    assert all(value.flags.c_contiguous and value.flags.writeable for value in state.values())
    state["fc.bias"][...] = 7
    assert (np.asarray(model.fc.bias) != 7).all()


# What is loaded


def test_the_loaded_network_computes_what_the_saved_one_did(
    arch: str, images: Callable, randomize: Callable, forward: Callable
) -> None:
    saved, x = randomize(create(arch)), images(2, 8, 8)
    loaded = load(flaxnets.to_torch(saved), arch)
    assert loaded.config == saved.config
    saved.eval()
    loaded.eval()
    np.testing.assert_array_equal(
        forward(loaded, x)["logits"], forward(saved, x)["logits"], strict=True
    )


def test_loaded_networks_are_in_training_mode() -> None:
    model = load(random_state_dict())
    assert model.bn1.use_running_average is False


def test_num_batches_tracked_may_be_absent(arch: str) -> None:
    """As in files saved before PyTorch 0.4.1, akamaster's among them: it is then 0."""
    full = random_state_dict(arch)
    state = {key: value for key, value in full.items() if "num_batches" not in key}
    result = flaxnets.to_torch(load(state, arch))
    expected = {k: v if k in state else np.zeros((), np.int64) for k, v in full.items()}
    assert_equal(result, expected)


def test_dropout_networks_are_loaded_with_a_random_state(images: Callable) -> None:
    arch = "kellerjordan_resnet20"
    state = random_state_dict(arch)
    model = load(state, arch)
    places = [path for path, module in nnx.iter_modules(model) if isinstance(module, nnx.Dropout)]
    assert len(places) == 2
    for made in (model, load(state, arch)):
        variables = jax.tree.leaves(nnx.state(made, nnx.RngState))
        assert len(variables) == 4
        assert all(isinstance(variable, jax.Array) for variable in variables)
    fresh = nnx.state(create(arch), nnx.RngKey)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(jax.random.key_data(a), jax.random.key_data(b)),
        nnx.state(model, nnx.RngKey),
        fresh,
    )
    graphdef, variables = nnx.split(model)  # a state of arrays only, fit for jax.jit
    outputs = jax.eval_shape(
        lambda v, x: nnx.merge(graphdef, v, copy=True)(x), variables, images(2, 8, 8)
    )
    assert outputs.shape == (2, 3)


@pytest.mark.parametrize("arch", ["resnet18", "kellerjordan_resnet20"])
def test_random_streams_of_ones_own(arch: str) -> None:
    assert_equal(
        flaxnets.to_torch(load(random_state_dict(arch), arch, rngs=nnx.Rngs(1))),
        random_state_dict(arch),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_converted(dtype: type) -> None:
    """torchvision's wide ResNets are stored in float16."""
    state = random_state_dict()
    stored = {k: v if v.dtype == np.int64 else v.astype(dtype) for k, v in state.items()}
    model = load(stored)
    assert model.conv1.kernel.dtype == jnp.float32
    expected = {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in stored.items()}
    assert_equal(flaxnets.to_torch(model), expected)


def test_dtypes_of_the_loaded_network() -> None:
    state = random_state_dict()
    model = load(state, dtype=jnp.bfloat16, param_dtype=jnp.float16)
    assert model.conv1.dtype == jnp.bfloat16
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert {leaf.dtype for leaf in parameters} == {jnp.dtype("float16")}
    assert model.bn1.var.dtype == jnp.float32
    saved = flaxnets.to_torch(model)
    np.testing.assert_array_equal(saved["fc.weight"], state["fc.weight"].astype(np.float16))
    assert saved["bn1.running_var"].dtype == np.float32


# What does not fit


def test_one_error_lists_all_that_does_not_fit() -> None:
    state = random_state_dict()
    del state["bn1.running_mean"], state["layer1.0.conv2.weight"]
    del state["layer1.0.bn2.num_batches_tracked"]  # which alone may be absent
    state["layer4.0.conv1.weight"] = state["module.fc.bias"] = np.zeros(1, np.float32)
    state["fc.weight"] = state["fc.weight"].T
    state["conv1.weight"] = np.zeros((4, 3, 3, 3), np.float32)
    with pytest.raises(CheckpointError) as caught:
        load(state)
    assert str(caught.value).splitlines() == [
        "these are not the weights of resnet18 in the names of torchvision.models.resnet:",
        "2 missing:",
        "  bn1.running_mean (4,)",
        "  layer1.0.conv2.weight (4, 4, 3, 3)",
        "2 unexpected:",
        "  layer4.0.conv1.weight",
        "  module.fc.bias",
        "2 of another shape:",
        "  conv1.weight (4, 3, 3, 3) instead of (4, 3, 7, 7)",
        "  fc.weight (8, 3) instead of (3, 8)",
    ]
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", KEYS["resnet18"])
def test_every_key_is_used(key: str) -> None:
    """Each key is wanted, its shape is checked, and no other is accepted in its place."""
    state = random_state_dict()
    absent = {other: value for other, value in state.items() if other != key}
    if not key.endswith("num_batches_tracked"):
        with pytest.raises(CheckpointError, match=rf"1 missing:\n  {re.escape(key)} \(.*\)$"):
            load(absent)
    with pytest.raises(CheckpointError, match=rf"1 unexpected:\n  {re.escape(key)}2$"):
        load(state | {key + "2": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match=rf"1 of another shape:\n  {re.escape(key)} \(1,"):
        load(state | {key: state[key][None]})


def test_the_wrong_number_of_classes() -> None:
    with pytest.raises(CheckpointError, match=r"fc\.bias \(3,\) instead of \(5,\)"):
        load(random_state_dict(), num_classes=5)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "net", "params"])
def test_a_checkpoint_wrapped_in_another_dictionary(wrapper: str) -> None:
    state = random_state_dict()
    inside = {f"module._orig_mod.{key}": value for key, value in state.items()}
    assert_equal(flaxnets.to_torch(load({wrapper: inside, "best_prec1": 91.78})), state)


def test_two_state_dicts_in_one_checkpoint() -> None:
    state = random_state_dict()
    with pytest.raises(CheckpointError, match="several state dicts, state_dict, model;"):
        load({"state_dict": state, "model": state})


def test_names_and_options_are_checked_before_the_file() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*resnet18"):
        flaxnets.load_torch("no such file.pth", "resnet19")
    with pytest.raises(ValueError, match="did you mean num_classes"):
        flaxnets.load_torch("no such file.pth", "resnet18", num_clases=3)


# Files


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "weights.pth", str(tmp_path / "weights.safetensors")):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint file at {path}"):
            load(path)
    with pytest.raises(CheckpointError, match="is a folder"):
        load(tmp_path)


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    monkeypatch.setitem(sys.modules, "torch", None)  # it is not needed
    path, state = tmp_path / "weights.safetensors", random_state_dict()
    safetensors.save_file(state, path)
    assert_equal(flaxnets.to_torch(load(path)), state)
    assert_equal(flaxnets.to_torch(load(str(path))), state)


PAGE = b"<!DOCTYPE html><html><body>404: not found</body></html>\n" * 20
OTHER_FILES = {
    "is a web page": PAGE,
    "is empty": b"",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "could not be read": bytes(range(1, 256)) * 4,
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("found", OTHER_FILES)
def test_another_kind_of_file(tmp_path: Path, found: str, suffix: str) -> None:
    pytest.importorskip("safetensors" if suffix == ".safetensors" else "torch")
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(OTHER_FILES[found])
    with pytest.raises(CheckpointError, match=f"{path}: .*{found}"):
        load(path)


def test_truncated_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "weights.safetensors"
    content = safetensors.save(random_state_dict())
    for length in (4, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"could not be read.*cut short"):
            load(path)


@pytest.mark.parametrize(
    ("module", "suffix", "advice"),
    [
        ("torch", ".pth", r"needs torch: pip install torch; \.safetensors"),
        ("safetensors", ".safetensors", r"needs safetensors: pip install safetensors$"),
    ],
)
def test_a_reader_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, suffix: str, advice: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=advice):
        load(path)


# Files of torch.save


@pytest.fixture
def torch() -> object:
    return pytest.importorskip("torch")


def tensors(torch: object, state: StateDict) -> dict:
    return {key: torch.from_numpy(value.copy()) for key, value in state.items()}


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.th", "weights"])
def test_file_of_torch_save(tmp_path: Path, torch: object, name: str) -> None:
    state = random_state_dict()
    torch.save(tensors(torch, state), tmp_path / name)
    assert_equal(flaxnets.to_torch(load(tmp_path / name)), state)


def test_file_in_torchs_old_format(tmp_path: Path, torch: object) -> None:
    state, path = random_state_dict(), tmp_path / "weights.pth"
    torch.save(tensors(torch, state), path, _use_new_zipfile_serialization=False)
    assert_equal(flaxnets.to_torch(load(path)), state)


def test_tensors(torch: object) -> None:
    """On the tape, strided, in bfloat16: none of it changes the values."""
    state = tensors(torch, random_state_dict())
    state["conv1.weight"] = torch.nn.Parameter(state["conv1.weight"])
    state["fc.weight"] = state["fc.weight"].T.contiguous().T
    state["fc.bias"] = state["fc.bias"].bfloat16()
    expected = {key: value.detach().float().numpy() for key, value in state.items()}
    for key, value in flaxnets.to_torch(load(state)).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_to_torch_is_what_load_state_dict_takes(torch: object) -> None:
    """Strictly, and in the dtypes of PyTorch's own modules."""
    state = random_state_dict()
    norm = torch.nn.BatchNorm2d(4)
    ours = {
        key.removeprefix("bn1."): torch.from_numpy(value)
        for key, value in flaxnets.to_torch(load(state)).items()
        if key.startswith("bn1.")
    }
    dtypes = {key: value.dtype for key, value in norm.state_dict().items()}
    assert {key: value.dtype for key, value in ours.items()} == dtypes
    norm.load_state_dict(ours, strict=True)
    np.testing.assert_array_equal(norm.running_var.numpy(), state["bn1.running_var"])


def test_to_torch_of_bfloat16_parameters(torch: object) -> None:
    model = create("resnet18", param_dtype=jnp.bfloat16)
    for value in flaxnets.to_torch(model).values():
        torch.from_numpy(value)


class CreatesFile:
    """Unpickled by a reader that trusts what it reads, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_a_malicious_pickle_is_not_executed(tmp_path: Path, torch: object, plain: bool) -> None:
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    content = {"conv1.weight": CreatesFile(made)}
    if plain:
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
        assert made.exists()  # so would it be if the file were trusted
        made.unlink()
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"could not be read|something else than tensors"):
        load(path)
    assert not made.exists()


def test_a_pickled_module(tmp_path: Path, torch: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match=r"(?s)whole pickled module.*\.state_dict\(\)"):
        load(path)


@pytest.mark.parametrize("content", [[1.0, 2.0], 3, None])
def test_something_else_than_a_state_dict(tmp_path: Path, torch: object, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    message = f"holds an? {type(content).__name__}, not a state dict"
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_truncated_file(tmp_path: Path, torch: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tensors(torch, random_state_dict()), path)
    content = path.read_bytes()
    for length in (1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=f"{path}: it could not be read.*cut short"):
            load(path)
