"""The worked example of docs/parity.md, without and with its mistakes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "bring_your_own.py"

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bring_your_own", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_without_a_mistake_the_two_are_equal(
    example: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    assert example.main([]) == 0
    assert "\nEQUAL: my network, 160 comparisons within budget" in capsys.readouterr().out


def test_a_missing_relu_is_named_and_shown(
    example: ModuleType, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert example.main(["--mistake", "relu", "--html", str(tmp_path / "report.html")]) == 1
    assert "first divergence: layers block2 (float64 eval)" in capsys.readouterr().out
    assert (
        "First divergence: my network, the output of layer block2 "
        "(float64, evaluation, forward pass) is off by"
    ) in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_another_epsilon_is_named(example: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert example.main(["--mistake", "epsilon"]) == 1
    assert "first divergence: isolated layers block2.bn2 (float64 eval)" in capsys.readouterr().out


def test_the_documentation_shows_the_example_as_it_is() -> None:
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    shown = [block for block in blocks if "class Flax" in block or "random_batches(" in block]
    assert len(shown) == 2
    source = EXAMPLE.read_text(encoding="utf-8")
    assert all(block in source for block in shown)
