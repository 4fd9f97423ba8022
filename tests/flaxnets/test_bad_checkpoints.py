"""Every way in which a checkpoint can be bad gives one error that names the problem.

Nothing is executed, nothing is written, and no error of a library below comes through.
"""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxnets
from flaxnets import CheckpointError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

TINY = {"stage_sizes": (1, 1), "widths": (4, 8), "stem_width": 4, "num_classes": 3}
ARCH = "resnet20_b"
State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def good() -> State:
    """A checkpoint with nothing wrong."""
    config = flaxnets.get_config(ARCH, **TINY)
    generator = np.random.default_rng(0)
    return {
        entry.key: np.array(3, np.int64)
        if entry.key.endswith("num_batches_tracked")
        else generator.uniform(0.5, 1.5, entry.shape).astype(np.float32)
        for entry in flaxnets.layout.layout(config)
    }


def tensors(state: State) -> dict:
    return {key: torch.from_numpy(value.copy()) for key, value in state.items()}


def pth(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load(path: Path, arch: str | None = ARCH) -> object:
    return flaxnets.load_torch(path, arch, **TINY if arch else {})


def refused(folder: Path, name: str, content: bytes, message: str, arch: str | None = ARCH) -> None:
    """The file is refused with this message, in one error of ours, and nothing else happens."""
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path, arch)
    assert not re.search("Traceback|site-packages", str(caught.value))
    assert sorted(folder.iterdir()) == [path]
    assert path.read_bytes() == content


def test_the_good_one_loads(tmp_path: Path, good: State) -> None:
    for name, content in {
        "a.pth": pth(tensors(good)),
        "a.safetensors": safetensors.save(good),
    }.items():
        (tmp_path / name).write_bytes(content)
        again = flaxnets.to_torch(load(tmp_path / name))
        for key, value in good.items():
            np.testing.assert_array_equal(again[key], value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_truncated(tmp_path: Path, good: State, name: str, share: float) -> None:
    whole = pth(tensors(good)) if name == "a.pth" else safetensors.save(good)
    message = "is empty" if share == 0 else "could not be read .*cut short"
    refused(tmp_path, name, whole[: int(share * len(whole))], message)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n  <html lang=en>sign in</html>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "LFS pointer"),
        (b"not weights at all, but text\n" * 9, "could not be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(400), "could not be read"),
        (b"\x1f\x8b\x08" + bytes(400), "could not be read"),
        (b"\x93NUMPY\x01\x00" + bytes(400), "could not be read"),
        (bytes(4096), "could not be read"),
    ],
    ids=["html", "page", "xml", "lfs", "text", "png", "gzip", "npy", "zeros"],
)
def test_another_kind_of_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    refused(tmp_path, name, content, message)


def test_the_wrong_suffix(tmp_path: Path, good: State) -> None:
    refused(tmp_path, "a.safetensors", pth(tensors(good)), "PyTorch file named .safetensors")
    (tmp_path / "a.safetensors").unlink()
    refused(tmp_path, "a.pth", safetensors.save(good), "safetensors file; rename it")


@pytest.mark.parametrize("header", [b"{}", b"[]", b"{", b'{"a": 1}', b'{"a":{"dtype":"F32"}}'])
def test_safetensors_with_another_header(tmp_path: Path, header: bytes) -> None:
    content = struct.pack("<Q", len(header)) + header
    refused(tmp_path, "a.safetensors", content, "could not be read|empty state dict")


def test_safetensors_that_declare_more_than_they_hold(tmp_path: Path) -> None:
    size = 1 << 50
    header = {"conv1.weight": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}
    text = json.dumps(header).encode()
    refused(tmp_path, "a.safetensors", struct.pack("<Q", len(text)) + text, "could not be read")
    refused(tmp_path, "a.safetensors", struct.pack("<Q", 1 << 60) + text, "could not be read")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    refused(tmp_path, "a.pth", buffer.getvalue(), "declares 50,000,000 bytes")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    refused(tmp_path, "a.pth", buffer.getvalue(), "could not be read")


class Creates:
    """Makes a file when it is unpickled by a reader that trusts what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "made"
    content = pickle.dumps({"conv1.weight": Creates(victim)}, protocol=protocol)
    pickle.loads(content)
    assert victim.exists()  # so would it be, if the file were trusted
    victim.unlink()
    refused(tmp_path, "a.pth", content, "something else than tensors|could not be read")


def test_a_malicious_archive(tmp_path: Path) -> None:
    content = pth({"state_dict": {"conv1.weight": Creates(tmp_path / "made")}})
    refused(tmp_path, "a.pth", content, "something else than tensors")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickled_module(tmp_path: Path, wrapped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    content = pth({"net": module, "acc": 95.0} if wrapped else module)
    refused(tmp_path, "a.pth", content, r"(?s)torch\.load\(.*\.state_dict\(\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1.0, 2.0], "a list, not a state dict"),
        (3, "an int, not a state dict"),
        ({}, "empty state dict"),
        ({"state_dict": {}}, "empty state dict"),
        ({"epoch": 3, "acc": 91.5}, "2 of 2 entries are no weights"),
        ({0: torch.zeros(1)}, "keys are names, found 0"),
        ({"state_dict": {"a": torch.zeros(1)}, "model": {"a": torch.zeros(1)}}, "several"),
    ],
)
def test_something_else_in_a_file_of_torch(tmp_path: Path, content: object, message: str) -> None:
    refused(tmp_path, "a.pth", pth(content), message)


def _without(key: str) -> Callable[[State], State]:
    return lambda state: {other: value for other, value in state.items() if other != key}


def _with(key: str, value: object) -> Callable[[State], State]:
    return lambda state: {**state, key: value}  # type: ignore[dict-item]


def _renamed(key: str, to: str) -> Callable[[State], State]:
    return lambda state: {to if other == key else other: value for other, value in state.items()}


def _changed(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[State], State]:
    return lambda state: {**state, key: change(state[key])}


DAMAGES: dict[str, tuple[Callable[[State], State], str]] = {
    "a missing kernel": (_without("layer1.0.conv2.weight"), r"1 missing:\n  layer1.0.conv2.weight"),
    "a missing bias": (_without("fc.bias"), r"1 missing:\n  fc\.bias \(3,\)"),
    "a missing statistic": (_without("bn1.running_var"), r"1 missing:\n  bn1\.running_var \(4,\)"),
    "a missing norm": (
        lambda state: {key: value for key, value in state.items() if "layer1.0.bn2" not in key},
        r"4 missing:",
    ),
    "an extra key": (_with("extra.weight", np.zeros(1, np.float32)), r"1 unexpected:\n  extra"),
    "an extra block": (
        _with("layer1.1.conv1.weight", np.zeros((4, 4, 3, 3), np.float32)),
        r"1 unexpected:\n  layer1\.1\.conv1",
    ),
    "two heads": (
        _with("classifier.weight", np.zeros((3, 8), np.float32)),
        r"1 unexpected:\n  classifier\.weight",
    ),
    "a renamed key": (_renamed("conv1.weight", "stem.weight"), r"(?s)1 missing:.*1 unexpected:"),
    "a swapped case": (_renamed("bn1.bias", "bn1.Bias"), r"(?s)missing:\n  bn1\.bias.*bn1\.Bias"),
    "a transposed kernel": (
        _changed("layer2.0.downsample.0.weight", lambda a: a.transpose(1, 0, 2, 3)),
        r"layer2\.0\.downsample\.0\.weight \(4, 8, 1, 1\) instead of \(8, 4, 1, 1\)",
    ),
    "a kernel in HWIO": (
        _changed("conv1.weight", lambda a: a.transpose(2, 3, 1, 0)),
        r"conv1\.weight \(3, 3, 3, 4\) instead of \(4, 3, 3, 3\)",
    ),
    "a transposed classifier": (_changed("fc.weight", np.transpose), r"\(8, 3\) instead of"),
    "a scalar": (_changed("bn1.weight", lambda a: a[0]), r"bn1\.weight \(\) instead of \(4,\)"),
    "a flattened kernel": (_changed("conv1.weight", np.ravel), r"conv1\.weight \(108,\) instead"),
    "an empty tensor": (_changed("bn1.weight", lambda a: a[:0]), r"bn1\.weight \(0,\) instead"),
    "another kernel size": (
        _changed("layer1.0.conv1.weight", lambda a: a[:, :, :1, :1]),
        r"layer1\.0\.conv1\.weight \(4, 4, 1, 1\) instead of \(4, 4, 3, 3\)",
    ),
    "more classes": (
        lambda state: {
            key: np.repeat(value, 2, axis=0) if key.startswith("fc") else value
            for key, value in state.items()
        },
        r'(?s)fc\.bias \(6,\) instead of \(3,\).*num_classes=6.*head="new"',
    ),
    "whole numbers": (_changed("fc.weight", lambda a: a.astype(np.int32)), "fc.weight: int32"),
    "bytes": (_changed("fc.weight", lambda a: a.astype(np.uint8)), "fc.weight: uint8"),
    "truth values": (_changed("fc.weight", lambda a: a > 1), "fc.weight: bool"),
    "a fractional count": (
        _changed("bn1.num_batches_tracked", lambda a: a.astype(np.float32)),
        "bn1.num_batches_tracked: float32",
    ),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(tmp_path: Path, good: State, damage: str, suffix: str) -> None:
    change, message = DAMAGES[damage]
    state = {key: np.array(value, order="C") for key, value in change(dict(good)).items()}
    content = pth(tensors(state)) if suffix == ".pth" else safetensors.save(state)
    refused(tmp_path, f"a{suffix}", content, message)


@pytest.mark.parametrize(
    "convert",
    [
        lambda value: value.to(torch.complex64),
        lambda value: value.to_sparse(),
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        lambda value: value.tolist(),
        lambda value: None,
        lambda value: "weights",
    ],
    ids=["complex", "sparse", "quantized", "list", "none", "text"],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_values_that_are_no_weights(tmp_path: Path, good: State, convert: Callable) -> None:
    state = tensors(good)
    state["fc.weight"] = convert(state["fc.weight"])
    refused(tmp_path, "a.pth", pth(state), "1 of .* entries are no weights.*\n  fc.weight: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told(good: State, value: float) -> None:
    state = {key: array.copy() for key, array in good.items()}
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    with pytest.warns(UserWarning, match=r"1 tensors .* NaN or infinite .* layer2\.0\.conv1"):
        flaxnets.load_torch(state, ARCH, **TINY)


def test_weights_of_another_network(tmp_path: Path, good: State) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pth(tensors(good)))
    for arch in ("resnet20", "wrn_16_1", "densenet_bc_40_12", "preact_resnet18_cifar"):
        with pytest.raises(CheckpointError, match=f"not the weights of {arch}"):
            flaxnets.load_torch(path, arch)


def test_weights_of_no_network(tmp_path: Path) -> None:
    refused(tmp_path, "a.pth", pth({"a.weight": torch.zeros(2)}), "of no network", arch=None)


def test_recognition_lists_what_is_missing(tmp_path: Path, good: State) -> None:
    state = tensors(_without("bn1.weight")(good))
    refused(tmp_path, "a.pth", pth(state), r"nearest:\n1 missing:\n  bn1\.weight", arch=None)


def test_a_refused_network_is_named(tmp_path: Path, good: State) -> None:
    state = tensors(good)
    state["conv1.bias"] = state["layer1.0.conv1.bias"] = torch.zeros(4)
    state["layer2.0.shortcut.1.weight"] = torch.zeros(8)
    refused(tmp_path, "a.pth", pth(state), "meliketoy.*drops the fourth stage", arch=None)


def test_a_module_in_memory() -> None:
    module = torch.nn.Conv2d(3, 4, 3)
    with pytest.raises(CheckpointError, match=r"pass its state_dict\(\)"):
        flaxnets.load_torch(module, ARCH)
    with pytest.raises(CheckpointError, match=r"checkpoint\['net'\]\.state_dict\(\)"):
        flaxnets.load_torch({"net": module}, ARCH)


def test_half_precision_is_not_bad(good: State) -> None:
    for dtype in (np.float16, jnp.bfloat16, np.float64):
        state = {
            key: array.astype(dtype) if array.dtype == np.float32 else array
            for key, array in good.items()
        }
        again = flaxnets.to_torch(flaxnets.load_torch(state, ARCH, **TINY))
        assert again["conv1.weight"].dtype == np.float32
        np.testing.assert_array_equal(
            again["conv1.weight"], state["conv1.weight"].astype(np.float32)
        )


def test_a_number_out_of_proportion_is_no_endless_network(good: State) -> None:
    for key in ("layer1.99999999.conv1.weight", "layer99999999.0.conv1.weight"):
        with pytest.raises(CheckpointError, match="of no network"):
            flaxnets.load_torch({**good, key: good["layer1.0.conv1.weight"]})


def test_a_max_pooling_that_no_key_shows_is_not_dropped(good: State) -> None:
    """chenyaofo's names with other widths are other code's, which pools after a 3x3 stem."""
    with pytest.raises(CheckpointError, match=r"(?s)names of flaxnets.*dropout: any rate"):
        flaxnets.load_torch(good)


@pytest.mark.parametrize("value", ["false", 0, None])
def test_flags_are_true_or_false(good: State, value: object) -> None:
    with pytest.raises(ValueError, match=r"conv_bias=.* must be True or False"):
        flaxnets.load_torch(good, ARCH, **TINY, conv_bias=value)
    with pytest.raises(ValueError, match=r"stage_sizes=3 must be .* in a tuple"):
        flaxnets.load_torch(good, ARCH, **(TINY | {"stage_sizes": 3}))


def test_half_precision_is_kept_when_asked(tmp_path: Path, good: State) -> None:
    model = flaxnets.load_torch(good, ARCH, param_dtype=jnp.bfloat16, **TINY)
    flaxnets.save_torch(model, tmp_path / "half.safetensors")
    again = flaxnets.load_torch(tmp_path / "half.safetensors", ARCH, param_dtype=None, **TINY)
    assert again.conv1.kernel.dtype == again.bn1.scale.dtype == jnp.bfloat16
    assert again.bn1.mean.dtype == jnp.float32
    np.testing.assert_array_equal(again.conv1.kernel[...], model.conv1.kernel[...])


def test_float64_is_kept_in_64_bit_mode_whatever_was_loaded_before(good: State) -> None:
    state = {key: array.astype(np.float64) for key, array in good.items() if array.ndim}
    narrow = flaxnets.load_torch(state, ARCH, param_dtype="float64", **TINY)
    assert narrow.conv1.kernel.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = flaxnets.load_torch(state, ARCH, param_dtype="float64", **TINY)
        assert wide.conv1.kernel.dtype == jnp.float64
        np.testing.assert_array_equal(flaxnets.to_torch(wide)["fc.weight"], state["fc.weight"])
