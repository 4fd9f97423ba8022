"""The command line, from options to table, JSON, chart and exit status."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plan, run
from benchmarks.__main__ import main
from benchmarks.convolutions import count_parts, layers_of
from benchmarks.measure import Measurement, Progress
from benchmarks.plan import Options, make_groups
from benchmarks.task import WORKS, Task

SECONDS = {"ours": 0.1, "flax": 0.4, "torch-eager": 0.3, "torch-channels-last": 0.2}


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What every side of a fake measurement takes; torch-compile is skipped."""
    taken = dict(SECONDS)

    def fake(tasks: Sequence[Task], runs: int, progress: Progress) -> list[Measurement]:
        progress("measuring")
        found = []
        for task in tasks:
            each = Measurement(task, device={"platform": "cpu", "name": "test"})
            if task.side == "torch-compile":
                each.skipped = "no compiler"
            else:
                each.runs = [taken.get(task.side, 1.0)] * runs
                each.peaks = [2**20] * runs
                each.ready = {"steps": 2, "imports_s": 1.0, "warm_up_s": 2.0}
                if task.work == "convolutions":
                    parts = count_parts(layers_of(task))
                    each.parts = [dict.fromkeys(parts, each.runs[0])] * runs
                if task.work == "roofline":
                    each.ready |= {"flops": 10**11, "bytes": 10**9}
            found.append(each)
        return found

    monkeypatch.setattr(run, "measure", fake)
    return taken


def test_json_has_every_number(seconds: dict[str, float], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "out.json"
    assert main(["train-step", "--batch", "8", "--runs", "3", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    sides = {record["side"]: record for record in document["records"]}
    assert list(sides) == list(SECONDS)
    ours = sides["ours"]
    assert ours["work"] == "train-step"
    assert (ours["arch"], ours["batch"], ours["input"]) == ("resnet20", 8, "32x32")
    assert (ours["dtype"], ours["median_s"], ours["min_s"]) == ("float32", 0.1, 0.1)
    assert (ours["runs"], ours["peak_bytes"]) == ([0.1] * 3, 2**20)
    assert ours["images_per_second"] == pytest.approx(80)
    # ResNet-20 takes 40.55 million multiply-adds a picture.
    assert ours["gflops"] == pytest.approx(3 * 2 * 40.55e6 * 80 / 1e9, rel=1e-3)
    ratio = {each["to"]: each["ratio"] for each in document["ratios"] if each["side"] == "ours"}
    assert ratio == {"PyTorch's best": pytest.approx(2), "plain Flax": pytest.approx(4)}
    assert document["skipped"] == [{"side": "torch-compile", "reason": "no compiler"}]
    assert [limit["gflops"] for limit in document["limits"]] == [pytest.approx(100)] * 2
    assert {"command", "versions", "device", "cores", "date", "options"} <= document["head"].keys()
    shown = capsys.readouterr().out
    assert "torch-compile was left out: no compiler" in shown
    assert "2.00x" in shown
    assert "float32 matrix product 100 GFLOP/s" in shown


@pytest.mark.parametrize("work", WORKS)
def test_every_work_has_a_table_and_a_chart(
    work: str, seconds: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_write_weights", lambda task: None)
    file = tmp_path / "chart.png"
    options = [] if work == "roofline" else ["--no-roofline"]
    assert main([work, *options, "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 10_000


def test_saved_comparisons_are_shown_as_one(
    seconds: dict[str, float], tmp_path: Path, capsys: Any
) -> None:
    names = ("a.json", "b.json", "c.json", "chart.png")
    first, second, other, chart = (tmp_path / name for name in names)
    assert main(["train-step", "--batch", "8", "--no-roofline", "--json", str(first)]) == 0
    seconds["ours"] = 0.2
    assert main(["train-step", "--batch", "16", "--no-roofline", "--json", str(second)]) == 0
    capsys.readouterr()
    assert main(["show", str(first), str(second), "--plot", str(chart)]) == 0
    shown = capsys.readouterr().out
    assert shown.index("batch 8") < shown.index("2.00x") < shown.index("batch 16")
    assert shown.index("batch 16") < shown.index("1.00x", shown.index("batch 16"))
    assert chart.read_bytes().startswith(b"\x89PNG")

    assert main(["show", str(first), str(first)]) == 2
    assert f"{first} and {first} both have train-step, resnet20, batch 8" in capsys.readouterr().err
    assert main(["inference", "--batch", "8", "--no-roofline", "--json", str(other)]) == 0
    assert main(["show", str(other), str(second)]) == 2
    assert f"{other} is of inference, {second} of train-step: show" in capsys.readouterr().err

    document = json.loads(second.read_text())
    document["head"]["device"] = {"name": "another"}
    second.write_text(json.dumps(document))
    assert main(["show", str(first), str(second)]) == 2
    assert "show them apart" in capsys.readouterr().err


def test_guard_finds_a_regression(seconds: dict[str, float], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "saved.json"
    assert main(["train-step", "--batch", "8", "--no-roofline", "--json", str(file)]) == 0
    seconds["ours"] = 0.105
    assert main(["guard", str(file)]) == 0
    seconds["ours"] = 0.12
    assert main(["guard", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "WORSE   train-step resnet20, batch 8, to flax: 4.00x then, 3.33x now" in shown
    assert main(["guard", str(file), "--tolerance", "25"]) == 0
    # A slower machine is no regression: everyone is slower.
    for side in seconds:
        seconds[side] = 10 * SECONDS[side]
    assert main(["guard", str(file)]) == 0


def test_guard_compares_with_each_side_and_misses_one_that_is_gone(
    seconds: dict[str, float], tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "saved.json"
    assert main(["train-step", "--batch", "8", "--no-roofline", "--json", str(file)]) == 0
    # Against PyTorch's best there would be no change.
    seconds["torch-eager"], seconds["torch-channels-last"] = 0.2, 0.3
    assert main(["guard", str(file)]) == 1
    assert "WORSE   train-step resnet20, batch 8, to torch-eager: 3.00x" in capsys.readouterr().out

    document = json.loads(file.read_text())
    compiled = dict(document["records"][-1], side="torch-compile")  # is skipped now
    document["records"] = [*document["records"][:2], compiled]
    file.write_text(json.dumps(document))
    assert main(["guard", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "MISSING train-step resnet20, batch 8, to torch-compile: 2.00x then, not" in shown
    assert "WORSE" not in shown


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train-step", "--arch", "resnet21"], "there is no network named 'resnet21'"),
        (["train-step", "--sides", "theirs"], "has no side 'theirs'; its sides are ours, flax"),
        (["epoch", "--pictures", "10", "--batch", "20"], "--batch 20 is more than the 10 pictures"),
        (["train-step", "--arch", "densenet121", "--input", "8x8"], "too small"),
        (["train-step", "--json", "/nowhere/x.json"], "--json: there is no folder /nowhere"),
        (["guard", "/nowhere/x.json"], "/nowhere/x.json: No such file"),
        (["guard", __file__], "is no JSON"),
    ],
)
def test_mistakes_are_told_in_a_line(command: list[str], message: str, capsys: Any) -> None:
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("benchmarks: ")
    assert message in told
    assert told.count("\n") == 1


def test_a_document_of_something_else_is_refused(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"head": {"options": {"arch": 3}}}')
    assert main(["guard", str(file)]) == 2
    assert "is not what --json of this version writes" in capsys.readouterr().err


def test_missing_torch_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        plan.importlib.util,
        "find_spec",
        lambda name: None if name == "torch" else find_spec(name),
    )
    assert main(["train-step"]) == 2
    assert "torch is not installed" in capsys.readouterr().err
    assert make_groups(Options("train-step", sides=("ours", "flax")))


def test_batches_and_sizes_come_from_the_network() -> None:
    def sizes(work: str, arch: str) -> list[tuple[int, int]]:
        groups = make_groups(Options(work, arch=(arch,), sides=("ours",)))
        return [(group.tasks[0].batch, group.tasks[0].height) for group in groups]

    assert sizes("train-step", "resnet20") == [(128, 32)]
    assert sizes("train-step", "densenet_bc_40_12") == [(64, 32)]
    assert sizes("train-step", "resnet18") == [(32, 224)]
    assert sizes("inference", "resnet20") == [(1, 32), (128, 32)]
    (group,) = make_groups(Options("train-step", arch=("meliketoy_wrn_16_8",), sides=("ours",)))
    assert group.tasks[0].options == {"dropout": 0.0}
    # A training step keeps all activations of 32 pictures: some 20 MiB for each of ResNet-18's.
    (group,) = make_groups(Options("train-step", arch=("resnet18",), sides=("ours",)))
    assert 2**28 < group.tasks[0].needed_bytes < 2**31


@pytest.mark.slow
def test_real_processes_measure_a_training_step(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = ["train-step", "--batch", "4", "--input", "16x16", "--runs", "2", "--steps", "1"]
    assert main([*command, "--sides", "ours", "flax", "torch-eager", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert [record["side"] for record in document["records"]] == ["ours", "flax", "torch-eager"]
    assert all(min(record["runs"]) > 0 for record in document["records"])
    assert all(record["peak_bytes"] > 2**20 for record in document["records"])
    assert document["limits"][0]["gflops"] > 1
