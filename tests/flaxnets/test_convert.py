from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.__main__ import main
from flaxnets.checkpoint_files import read_state_dict
from flaxnets.dialects import DIALECTS, OWN

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

ARCH = "wrn_10_1"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of xternalz's, as his training code wraps it."""
    model = flaxnets.create(ARCH, rngs=nnx.Rngs(1))
    arrays = flaxnets.to_torch(model, "xternalz")
    path = tmp_path / "in.pth"
    torch.save(
        {
            "epoch": 200,
            "state_dict": {f"module.{k}": torch.from_numpy(v) for k, v in arrays.items()},
        },
        path,
    )
    return path


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def test_conversion(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.safetensors"
    options = ("--to-dialect", "szagoruyko", "--set", "dropout=0.0")
    assert convert(source, target, *options) == 0
    shown = capfd.readouterr().out
    way = [line.split() for line in shown.splitlines() if line.startswith("block2.layer.0.convSh")]
    assert way == [
        [
            *("block2.layer.0.convShortcut.weight", "layer2.0.downsample.0.kernel"),
            *("group1.block0.convdim", "32x16x1x1", "float32"),
        ]
    ]
    assert "wrn_10_1: WideResNet with depth 10, widen_factor 1" in shown
    assert "46 keys, each used once" in shown
    assert f"every value is that of {source} to the bit" in shown
    assert "the outputs are equal" in shown
    before, after = read_state_dict(source), read_state_dict(target)
    assert after.keys() == flaxnets.to_torch(flaxnets.load_torch(before, ARCH), "szagoruyko").keys()
    np.testing.assert_array_equal(after["fc.weight"], before["fc.weight"])
    np.testing.assert_array_equal(
        after["group1.block0.convdim"], before["block2.layer.0.convShortcut.weight"]
    )


def test_dry_run_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, tmp_path / "out.pth", "--arch", ARCH, "--dry-run") == 0
    assert "nothing was written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "dropout: any rate"),
        (["--arch", "wrn_16_1"], "not the weights of wrn_16_1"),
        (["--arch", ARCH, "--to-dialect", "meliketoy"], "computes something else"),
        (["--arch", ARCH, "--to-dialect", "kuangliu"], "has no WideResNet"),
        (["--arch", ARCH, "--set", "depht=10"], "did you mean depth"),
    ],
)
def test_what_can_not_be_converted(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert convert(source, tmp_path / "out.pth", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_files_are_not_replaced_unasked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.pth"
    target.write_bytes(b"precious")
    assert convert(source, target, "--arch", ARCH) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"


def test_a_missing_file_and_a_bad_suffix(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path / "no.pth", tmp_path / "out.pth") == 2
    assert "there is no checkpoint file" in capsys.readouterr().err
    assert convert(source, tmp_path / "out.npz", "--arch", ARCH) == 2
    assert "should end in .safetensors" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_the_table_of_dialects_in_the_documents_is_complete() -> None:
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    documented = {
        (row[1].strip(" `"), family.strip()) for row in rows for family in row[2].split(",")
    }
    names = {"WideResNetConfig": "WRN"}
    ours = {
        (each.name, names.get(each.family.__name__, each.family.__name__.removesuffix("Config")))
        for each in DIALECTS
        if each.name != OWN
    }
    assert documented - {("dialect", "family"), (OWN, "all")} == ours
