"""The command line: its help, its defaults, its messages, and a short run of a real network."""

import dataclasses
import json
import os

import pytest

from train import command_line, loop
from train.datasets import Dataset


def errors_of(capsys, *command):
    """Run a command that must fail with exit status 2; return its one message."""
    assert command_line.main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture
def tiny_digits(tiny, monkeypatch):
    """Make the command train the tiny network, whatever is asked for."""
    loads = []

    def load(name: str, data_dir) -> Dataset:
        loads.append((name, str(data_dir)))
        return tiny.dataset()

    monkeypatch.setattr(command_line.datasets, "load", load)
    original = loop.prepare

    def prepare(*args, **options):
        return original(*args, build=tiny.build, **options)

    monkeypatch.setattr(command_line.loop, "prepare", prepare)
    return loads


def test_help_shows_the_recipe_and_names_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--arch", "wrn", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "python -m train.cifar --arch densenet --dataset digits" in text
    assert "the recipe of wrn_28_10 on cifar10 (Zagoruyko and Komodakis 2016, section 3)" in text
    flags = [field.name for field in dataclasses.fields(command_line.Arguments)]
    assert len(flags) == 20
    for flag in flags:
        assert f"--{flag.replace('_', '-')}" in text
    assert "--nesterov, --no-nesterov" in text
    assert "(default: 200)" in text
    assert "(default: 0.0005)" in text


def test_help_without_a_network(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--help"])
    assert caught.value.code == 0
    assert "densenet_bc_100_12 on cifar10" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "--arch is missing: resnet, densenet, wrn or the name of a network"),
        ("--arch densenett", "no network named 'densenett'; did you mean densenet"),
        ("--arch resnet --dataset digit", "unknown data set 'digit'"),
        ("--arch resnet --epochs 0", "--epochs must be at least 1, got 0"),
        ("--arch wrn --schedule cosine --milestones 3", "--milestones mean nothing"),
        ("--arch resnet --dataset digits --batch-size 1438", "more than the 1,437 training"),
        ("--arch resnet20 --dataset digits --dropout -1", "dropout=-1.0 must be"),
        (
            "--arch resnet20 --dataset digits --momentum 1",
            "momentum must be at least 0 and below 1",
        ),
        ("--resume", "--resume needs the run's folder: --out DIR"),
        ("--resume --out {out}", "{out} holds no run to resume"),
    ],
)
def test_mistakes_get_one_message_and_status_2(capsys, tmp_path, command, message):
    out = str(tmp_path / "nothing")
    before = os.listdir(tmp_path)
    command = [word.replace("{out}", out) for word in command.split()]
    if "--out" not in command:
        command += ["--out", out] if command else []
    if command == ["--resume", "--out", out] and "needs" in message:
        command = ["--resume"]
    assert message.replace("{out}", out) in errors_of(capsys, *command)
    assert os.listdir(tmp_path) == before


def test_unknown_flag_and_wrong_type_exit_with_2(capsys):
    for words in (["--epoch", "3"], ["--epochs", "three"], ["--schedule", "linear"]):
        with pytest.raises(SystemExit) as caught:
            command_line.main(["--arch", "resnet", "--dataset", "digits", *words])
        assert caught.value.code == 2
        assert words[0] in capsys.readouterr().err


def test_flags_and_recipe_reach_the_configuration(tiny_digits, tmp_path, capsys):
    out = tmp_path / "run"
    command = (
        f"--arch densenet --dataset digits --out {out} --epochs 2 --batch-size 16 --no-nesterov "
        "--schedule step --milestones 1 --decay-factor 0.5 --learning-rate 0.05 --momentum 0.8 "
        "--weight-decay 0.001 --dropout 0.1 --seed 9 --steps-per-dispatch 3 --data-dir somewhere"
    )
    assert command_line.main(command.split()) == 0
    config = json.loads((out / "config.json").read_text())["config"]
    assert config == {
        "arch": "densenet_bc_100_12",
        "dataset": "digits",
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.05,
        "schedule": "step",
        "milestones": [1],
        "decay_factor": 0.5,
        "warmup_epochs": 0.5,
        "momentum": 0.8,
        "nesterov": False,
        "weight_decay": 0.001,
        "dropout": 0.1,
        "seed": 9,
        "dtype": "float32",
        "steps_per_dispatch": 3,
        "checkpoint_every": None,
    }
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 3),
        ("test", 3),
        ("train", 6),
        ("test", 6),
    ]
    assert lines[2]["lr"] == pytest.approx(0.025)
    assert tiny_digits == [("digits", "somewhere")]


def test_resume_takes_the_runs_settings_and_refuses_others(tiny_digits, tmp_path, capsys):
    out = tmp_path / "run"
    command = f"--arch resnet --dataset digits --out {out} --epochs 2 --batch-size 16 --data-dir d"
    assert command_line.main(command.split()) == 0
    capsys.readouterr()
    assert "already holds a run" in errors_of(capsys, *command.split())
    assert command_line.main(["--resume", "--out", str(out)]) == 0
    assert command_line.main([*command.split(), "--resume"]) == 0
    assert command_line.main(["--resume", "--out", str(out), "--data-dir", "moved"]) == 0
    folders = [os.path.basename(folder) for _, folder in tiny_digits]
    assert folders == ["d", "d", "d", "d", "moved"]
    capsys.readouterr()
    message = errors_of(
        capsys,
        *f"--resume --out {out} --arch wrn --epochs 3 --batch-size 16 --no-nesterov".split(),
    )
    assert (
        "contradict: --arch wrn_28_10 (the run has resnet32), --epochs 3 (the run has 2)" in message
    )
    assert "nesterov" in message
    assert "batch-size" not in message


def test_default_folder_is_dated_and_named(tiny_digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["--arch", "wrn_16_1", "--dataset", "digits", "--epochs", "1"]) == 0
    (name,) = os.listdir(tmp_path / "runs")
    date, clock, rest = name.split("-", 2)
    assert (len(date), len(clock), rest) == (8, 6, "wrn_16_1-digits")
    assert f"runs/{name}/curves.png" in capsys.readouterr().out


def test_a_real_network_learns_the_digits(tmp_path, capsys):
    """The smallest named network, for two epochs."""
    out = tmp_path / "run"
    command = f"--arch wrn_16_1 --dataset digits --out {out}"
    assert command_line.main(command.split()) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["kind"] == "test"
    assert lines[-1]["step"] == 88
    assert lines[-1]["accuracy"] > 0.5
    assert lines[-1]["accuracy"] * 360 == pytest.approx(round(lines[-1]["accuracy"] * 360))
