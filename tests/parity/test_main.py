"""The command line: exit status, messages, files."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from parity import run
from parity.__main__ import main
from parity.cases import all_cases, named_cases, option_cases
from parity.checks import Pair
from parity.options import QUICK, chosen, make_parser
from parity.run import ALONE
from torchref.upstream.resnet import akamaster

pytestmark = pytest.mark.usefixtures("quick_compilation")

FAST = ["--dtype", "float64", "--mode", "eval", "--jobs", "1"]


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch, tiny_pair: Callable[..., Pair]) -> Callable:
    """Put a tiny pair, with a mistake if one is named, in place of every network."""

    def replace(mistake: str = "") -> None:
        monkeypatch.setattr(run, "make_pair", lambda case, seed: tiny_pair(mistake, seed))

    return replace


def test_status_0_where_all_is_equal(mistaken: Callable, capsys: pytest.CaptureFixture) -> None:
    mistaken()
    assert main(["--arch", "resnet20", *FAST]) == 0
    assert "EQUAL: resnet20, 54 comparisons" in capsys.readouterr().out


def test_status_1_where_something_is_not(mistaken: Callable, capsys: pytest.CaptureFixture) -> None:
    mistaken("epsilon")
    assert main(["--arch", "resnet20", *FAST]) == 1
    assert "first divergence: isolated layers bn1 (float64 eval)" in capsys.readouterr().out


def test_several_networks_get_a_line_each(
    mistaken: Callable, capsys: pytest.CaptureFixture
) -> None:
    mistaken()
    assert main(["--arch", "resnet20", "wrn_10_1", *FAST]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["resnet20", "equal"],
        ["wrn_10_1", "equal"],
    ]
    assert lines[3].startswith("2 of 2 equal")


def test_status_2_where_a_comparison_cannot_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("pictures too small\nand more")

    monkeypatch.setattr(run, "make_pair", fail)
    assert main(["--arch", "resnet20", *FAST]) == 2
    assert capsys.readouterr().err == (
        "parity: resnet20 could not be compared: pictures too small\nand more\n"
    )


def test_status_2_for_an_unknown_network(capsys: pytest.CaptureFixture) -> None:
    assert main(["--arch", "rsnet20"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "parity: there is no network named 'rsnet20'; did you mean resne"
    )
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["torch", "torchvision", "rich"])
def test_status_2_and_what_to_install_where_a_package_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["--list"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"parity: {missing} is not installed")
    assert 'pip install "flaxnets[parity]"' in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet20", "--input", "32"], "'32' is not a height and width such as 32x32"),
        (["--arch", "resnet20", "--batch", "0"], "'0' is not a whole number from 1 on"),
        (["--arch", "resnet20", "--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_status_2_for_wrong_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be compared? name it with --arch, or say --quick or --all"),
        (["--check", "layers"], "what is to be compared?"),
        (["--check", "layer-gradent"], "did you mean layer-gradients, "),
        (["--arch", "resnet20", "--dialect", "akamaster"], "--dialect says which code base"),
        (["--weights", "nowhere.pth"], "--weights: there is no file nowhere.pth"),
        (["--all", "--weights", "nowhere.pth"], "--weights is compared as one network"),
        (["--all", "--arch", "resnet20"], "--arch, --quick and --all each say what to compare"),
        (["--arch", "resnet20", "--check", "dropout"], "--arch is of networks, and these checks"),
        (["--check", "dropout", "--batch", "3"], "--batch is of networks, and these checks"),
        (
            ["--arch", "resnet20", "--check", "updates", "--dtype", "float32"],
            "updates are compared in float64 and in training mode only",
        ),
        (["--mutants", "--arch", "resnet20"], "--arch can't be combined with --mutants"),
        (["--mutants", "--dtype", "float64"], "--dtype can't be combined with --mutants"),
        (["--mutants", "no padding at all"], "there is no mutant named 'no padding at all'"),
        (
            ["--arch", "resnet20", "--html", "nowhere/page.html"],
            "--html: there is no folder nowhere",
        ),
    ],
)
def test_status_2_where_nothing_can_be_compared(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_json_needs_a_folder_that_exists(capsys: pytest.CaptureFixture) -> None:
    assert main(["--arch", "resnet20", "--json", "nowhere/result.json"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_json_has_the_head_and_every_comparison(mistaken: Callable, tmp_path: Path) -> None:
    mistaken()
    path = tmp_path / "result.json"
    assert main(["--arch", "resnet20", "--seed", "5", "--json", str(path), *FAST]) == 0
    document = json.loads(path.read_text())
    assert document["seed"] == 5
    assert {"jax", "flax", "torch", "python"} <= set(document["versions"])
    assert document["budgets"]["float64 forward"] == 1e-10
    assert len(document["comparisons"]) == 54
    assert all(record["ok"] for record in document["comparisons"])


def test_the_options_of_the_inputs_are_used(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: Callable[..., Pair]
) -> None:
    seen = []

    def note(case, seed: int) -> Pair:
        seen.append((case.name, case.height, case.width, case.batch, seed))
        return tiny_pair()

    monkeypatch.setattr(run, "make_pair", note)
    inputs = ["--input", "40x48", "--batch", "3", "--seed", "7"]
    assert main(["--arch", "wrn_10_*", "resnet", *inputs, *FAST]) == 0
    assert seen == [("wrn_10_1", 40, 48, 3, 7), ("resnet32", 40, 48, 3, 7)]


def test_list_names_all(capsys: pytest.CaptureFixture) -> None:
    assert main(["--list"]) == 0
    lines = {line.strip() for line in capsys.readouterr().out.splitlines()}
    assert set(named_cases()) | set(option_cases()) < lines


def test_a_file_is_compared_beside_the_code_base_that_it_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "weights.th"
    module = akamaster("A", sizes=(1, 1, 1))
    state = {f"module.{key}": value for key, value in module.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, path)
    assert main(["--weights", str(path), *FAST]) == 2
    assert "dialect='akamaster' if the file comes from that code" in capsys.readouterr().err
    arguments = ["--weights", str(path), "--dialect", "akamaster", "--input", "8x12", *FAST]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "layer2.0.bn1" in output
    assert "linear" in output  # akamaster's name
    assert "EQUAL: weights.th" in output
    assert main(["--arch", "resnet18", *arguments]) == 2
    assert "not the weights of resnet18" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--arch", "resnet20"], ["resnet20"]),
        (["--arch", "resnet20", "--check", "dropout", "layers"], ["resnet20", "dropout"]),
        (["--arch", "resnet20", "--check", "updates"], ["resnet20"]),
        (["--arch", "resnet20", "--check", "updates", "lockstep"], ["resnet20", "lockstep"]),
        (["--check", "batch-norm", "drift"], ["batch norm", "drift"]),
        (["--quick", "--check", "layers"], list(QUICK)),
        (["--all"], [*all_cases(), *ALONE]),
        (["--quick"], [*QUICK, *ALONE]),
    ],
)
def test_what_is_compared(arguments: list[str], expected: list[str]) -> None:
    tasks, _ = chosen(make_parser().parse_args(arguments))
    names = [task if isinstance(task, str) else task.name for task in tasks]
    assert sorted(names) == sorted(expected)


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    documents = []
    for jobs in ("1", "2"):
        path = tmp_path / f"{jobs}.json"
        names = ["resnet, zero_pad_end", "wrn, raw projection"]
        options = ["--dtype", "float64", "--jobs", jobs, "--json", str(path)]
        assert main(["--arch", *names, *options]) == 0
        documents.append(json.loads(path.read_text()))
    # Of an update only the array nearest to its budget is told: which one is a matter of rounding.
    one, two = (
        sorted(
            (c["network"], c["check"], c["mode"], c["layer"].partition(": ")[0])
            for c in document["comparisons"]
        )
        for document in documents
    )
    assert one == two
