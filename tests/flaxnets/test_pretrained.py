import dataclasses
import hashlib
import http.server
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import CheckpointError, pretrained

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

NAME = "resnet18"
TINY = {"stage_sizes": (1, 1), "widths": (4, 8), "stem_width": 4, "num_classes": 5}


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Weights of a tiny network that goes by the name of resnet18 for the time of a test."""
    network = flaxnets.registry.NETWORKS[NAME]
    tiny = dataclasses.replace(network, config=flaxnets.get_config(NAME, **TINY))
    monkeypatch.setitem(flaxnets.registry.NETWORKS, NAME, tiny)
    return flaxnets.to_torch(flaxnets.create(NAME, rngs=nnx.Rngs(3)))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that stands for torchvision's server; torch's own cache is empty."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/"
        monkeypatch.setattr(pretrained, "TORCHVISION_URL", url)
        yield folder
        running.shutdown()


def put(folder: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> str:
    """Save the weights under the name that their SHA-256 gives them; the name."""
    path = folder / "weights.pth"
    torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(pretrained.TORCHVISION, NAME, {"IMAGENET1K_V1": digest})
    name = f"{NAME}-{digest}.pth"
    path.rename(folder / name)
    return name


def test_addresses_and_checksums_are_torchvisions() -> None:
    published = {
        name: {
            weights.name: weights.url
            for weights in torchvision.models.get_model_weights(name)
            if weights.name.startswith("IMAGENET1K")
        }
        for name in pretrained.TORCHVISION
    }
    ours = {
        name: {
            tag: f"{pretrained.TORCHVISION_URL}{name}-{digest}.pth" for tag, digest in tags.items()
        }
        for name, tags in pretrained.TORCHVISION.items()
    }
    assert ours == published
    assert pretrained.TORCHVISION_URL.startswith("https://")


def test_download_once_and_check(
    server: Path, weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = put(server, weights, monkeypatch)
    model = flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="torchvision")
    for key, value in flaxnets.to_torch(model).items():
        np.testing.assert_array_equal(value, weights[key], err_msg=key)
    assert [path.name for path in (tmp_path / "cache" / "checkpoints").iterdir()] == [name]
    (server / name).unlink()
    flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="torchvision/IMAGENET1K_V1")


def test_other_classes_get_a_new_head(
    server: Path, weights: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, weights, monkeypatch)
    with pytest.warns(UserWarning, match="classifier of 5 classes was left out"):
        model = flaxnets.create(NAME, rngs=nnx.Rngs(0), num_classes=2, pretrained="torchvision")
    arrays = flaxnets.to_torch(model)
    assert arrays["fc.weight"].shape == (2, 8)
    assert 0 < np.abs(arrays["fc.weight"]).max() <= 8**-0.5
    np.testing.assert_array_equal(arrays["conv1.weight"], weights["conv1.weight"])


def test_a_damaged_download_leaves_nothing(
    server: Path, weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = put(server, weights, monkeypatch)
    (server / name).write_bytes((server / name).read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"could not be downloaded .*invalid hash"):
        flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="torchvision")
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


def test_offline_says_which_file_to_put_where(server: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache" / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(CheckpointError, match=f"elsewhere and put it at {place}"):
        flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="torchvision")


def test_a_damaged_file_in_the_cache(server: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="is damaged, or another file: its SHA-256 begins"):
        flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="torchvision")


def test_what_there_is_not() -> None:
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="neither 'torchvision'"):
        flaxnets.create("resnet50", rngs=rngs, pretrained="imagenet")
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        flaxnets.create("resnet18", rngs=rngs, pretrained="torchvision/IMAGENET1K_V2")
    with pytest.raises(
        ValueError, match=r"torchvision has weights of resnet18, .*none of wrn_28_10"
    ):
        flaxnets.create("wrn_28_10", rngs=rngs, pretrained="torchvision")
    with pytest.raises(ValueError, match="has weights of resnet34, not of resnet50"):
        flaxnets.create("resnet50", rngs=rngs, pretrained="timm/resnet34.a1_in1k")


class Hub(types.ModuleType):
    """In place of ``huggingface_hub``: one repository, in a folder."""

    constants = types.SimpleNamespace(HF_HUB_CACHE="/the/cache")

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.asked = folder, []

    def hf_hub_download(self, repository: str, file: str) -> str:
        self.asked.append((repository, file))
        path = self.folder / file
        if not path.exists():
            raise ConnectionError("no network")
        return str(path)


def test_timm(weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(CheckpointError, match=r"(?s)ConnectionError.*models--timm--resnet18\.tv"):
        flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="timm/resnet18.tv_in1k")
    safetensors.save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)  # it is not needed
    model = flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="timm/resnet18.tv_in1k")
    assert hub.asked[-1] == ("timm/resnet18.tv_in1k", "model.safetensors")
    for key, value in flaxnets.to_torch(model).items():
        np.testing.assert_array_equal(value, weights[key], err_msg=key)


def test_timm_without_its_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        flaxnets.create(NAME, rngs=nnx.Rngs(0), pretrained="timm/resnet18.tv_in1k")
