"""The command line: what it prints, and what it refuses in one line."""

import json
import subprocess
import sys

import pytest

import flaxnets
from flaxnets.__main__ import main


def output(capsys, *command: str) -> str:
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_list_has_every_network_in_100_columns(capsys):
    lines = output(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines[2:]] == flaxnets.list_models()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == [
        "network",
        "parameters",
        "paper",
        "input",
        "best",
        "test",
        "error,",
        "%",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["resnet50"] == ["25,557,032", "He", "2015", "224x224", "19.14", "ImageNet"]
    assert rows["wrn_28_10"] == ["36,479,194", "Zagoruyko", "2016", "32x32", "3.89", "CIFAR-10"]
    assert rows["wrn_10_1"][-1] == "-"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("wrn_40_*", [name for name in flaxnets.list_models() if name.startswith("wrn_40_")]),
        ("28_2", ["wrn_28_2", "wrn_28_20", "meliketoy_wrn_28_20"]),
        ("resnet18", [name for name in flaxnets.list_models() if "resnet18" in name]),
        ("resnet2?", ["resnet20"]),
    ],
)
def test_list_takes_patterns_and_parts(capsys, pattern, names):
    rows = output(capsys, "list", pattern).splitlines()[2:]
    assert [row.split()[0] for row in rows] == names
    assert names


def test_list_as_json(capsys):
    (network,) = json.loads(output(capsys, "list", "resnet56", "--json"))[:1]
    assert network == {
        "name": "resnet56",
        "family": "ResNet",
        "parameters": 853_018,
        "paper": "He 2015",
        "source": "akamaster",
        "input_size": [32, 32],
        "best_error": {
            "dataset": "CIFAR-10",
            "top1": 6.61,
            "top5": None,
            "source": "akamaster README",
            "note": "",
            "view": "one crop",
        },
    }


def test_info(capsys):
    assert output(capsys, "info", "resnet50") == f"{flaxnets.info('resnet50')}\n"
    read = json.loads(output(capsys, "info", "resnet50", "--json"))
    assert read["parameters"] == 25_557_032
    assert read["multiply_adds"] == 4_089_000_000
    assert read["normalisations"][0]["mean"] == [0.485, 0.456, 0.406]
    assert read["recipe"]["epochs"] == 90
    assert read["config"]["stage_sizes"] == [3, 4, 6, 3]


def test_summary(capsys):
    text = output(capsys, "summary", "wrn_10_1")
    assert text == f"{flaxnets.summary('wrn_10_1')}\n"
    command = "summary wrn_10_1 --input 16x24 --batch 4 --classes 7 --json"
    read = json.loads(output(capsys, *command.split()))
    assert read["input_shape"] == [4, 16, 24, 3]
    assert read["rows"][0]["output_shape"] == [4, 16, 24, 16]
    assert read["rows"][-1]["output_shape"] == [4, 7]
    assert read["parameters"] == 77_850 - 3 * 65
    square = json.loads(output(capsys, "summary", "wrn_10_1", "--input", "16", "--json"))
    assert square["input_shape"] == [1, 16, 16, 3]


def test_summary_reads_pictures_of_the_networks_own_size(capsys):
    assert "1x224x224x3" in output(capsys, "summary", "resnet18").splitlines()[0]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("info resnt50", "no network named 'resnt50'; did you mean resnet50"),
        ("summary resnet21", "no network named 'resnet21'; did you mean resnet"),
        ("list rasnet", "no network's name matches 'rasnet'; did you mean resnet"),
        ("list qqqq", "'list' without a pattern names them all"),
        ("summary wrn_10_1 --classes -3", "num_classes=-3"),
        ("summary densenet_40_12 --input 2", "too small for 2x2 average pooling"),
        ("summary wrn_10_1 --input 3y4", "'3y4' is neither a size such as 64"),
        ("summary wrn_10_1 --input 0", "'0' is neither a size"),
        ("summary wrn_10_1 --input 3x4x5", "'3x4x5' is neither a size"),
        ("summary wrn_10_1 --batch 0", "'0' is not a whole number from 1 on"),
        ("summary", "required: NAME"),
        ("", "required: COMMAND"),
        ("lst", "invalid choice: 'lst'"),
    ],
)
def test_mistakes_get_one_line_and_status_2(capsys, command, words):
    try:
        status = main(command.split())
    except SystemExit as stop:  # argparse's own
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_as_a_program_whose_reader_leaves():
    command = f"{sys.executable} -m flaxnets list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("network ")
    assert done.stderr == ""
