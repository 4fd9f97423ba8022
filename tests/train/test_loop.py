"""Whole runs of a tiny network: what they leave behind, and how they stop and go on."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from train import loop
from train.checkpoint import Checkpoints
from train.engine import Engine, choose_steps_per_dispatch
from train.progress import Display
from train.run_folder import RunFolder

LINE = ["kind", "epoch", "step", "lr", "loss", "accuracy", "images_per_second", "seconds"]
TIMES = {"images_per_second", "seconds", "compile_seconds"}


def metrics(out, without=()):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in without} for line in lines]


def arrays(tiny, out, kind="last"):
    """Every array of a checkpoint, keys as integers."""
    folder = RunFolder.open(out)
    with loop.prepare(folder.config, tiny.dataset(), out, resume=True, build=tiny.build) as trainer:
        checkpoints = Checkpoints(folder.checkpoints(kind))
        state = checkpoints.restore(trainer.engine.state).state
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


def assert_same_run(tiny, a, b):
    """Same metrics but for times, and the same bits in every array."""
    assert metrics(a, TIMES) == metrics(b, TIMES)
    for kind in ("last", "best"):
        for x, y in zip(arrays(tiny, a, kind), arrays(tiny, b, kind), strict=True):
            np.testing.assert_array_equal(x, y, strict=True)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert tiny.run(out) == 0
    return out


@pytest.fixture
def advance(monkeypatch):
    """Have a function called before every dispatch, with the number of those before it."""

    def install(before):
        original, calls = Engine.advance, []

        def wrapped(self, length):
            before(len(calls))
            calls.append(length)
            return original(self, length)

        monkeypatch.setattr(Engine, "advance", wrapped)
        return calls

    return install


def test_metrics_have_a_line_of_each_kind_an_epoch(whole):
    lines = metrics(whole)
    assert [line["kind"] for line in lines] == ["train", "test"] * 3
    assert [line["epoch"] for line in lines] == [1, 1, 2, 2, 3, 3]
    assert [line["step"] for line in lines] == [7, 7, 14, 14, 21, 21]
    for line in lines:
        assert set(LINE) <= set(line)
        assert 0 <= line["accuracy"] <= 1
        assert line["images_per_second"] > 0
    assert lines[-1]["accuracy"] > 0.5 > lines[0]["accuracy"]  # four classes: it has learnt
    assert [line["compile_seconds"] > 0 for line in lines[::2]] == [True, False, False]
    rates = RunFolder.open(whole).config.learning_rates(7)
    assert [line["lr"] for line in lines[::2]] == [float(rates(step)) for step in (6, 13, 20)]


def test_train_accuracy_is_of_the_pictures_seen(whole):
    for line in metrics(whole)[::2]:
        assert line["accuracy"] * 56 == pytest.approx(round(line["accuracy"] * 56), abs=1e-9)
    for line in metrics(whole)[1::2]:
        assert line["accuracy"] * 21 == pytest.approx(round(line["accuracy"] * 21), abs=1e-9)


def test_folder_holds_configuration_curves_and_checkpoints(tiny, whole):
    record = json.loads((whole / "config.json").read_text())
    assert record["config"] == dataclasses.asdict(tiny.CONFIG) | {"milestones": []}
    assert set(record["versions"]) == {"python", "jax", "flax", "optax", "numpy"}
    assert record["versions"]["jax"] == jax.__version__
    assert record["device"]["platform"] == jax.default_backend()
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(metrics(whole)[1::2], key=lambda line: line["accuracy"])
    names = {kind: os.listdir(whole / "checkpoints" / kind) for kind in ("last", "best")}
    assert names == {"last": ["21"], "best": [str(best["step"])]}
    assert {path.name for path in whole.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "curves.png",
        "checkpoints",
    }


def test_the_same_command_gives_the_same_bits_and_another_seed_others(tiny, whole, tmp_path):
    assert tiny.run(tmp_path / "again") == 0
    assert_same_run(tiny, whole, tmp_path / "again")
    assert tiny.run(tmp_path / "other", seed=4) == 0
    assert metrics(whole, TIMES) != metrics(tmp_path / "other", TIMES)


def test_sigkill_in_mid_epoch_and_resume_give_the_same_bits(tiny, whole, tmp_path):
    """It dies at step 11 of 7 an epoch, with that of step 9 saved, in another process than ours."""
    out = tmp_path / "killed"
    command = [sys.executable, tiny.__file__, str(out)]
    options = {
        "stdout": subprocess.PIPE,
        "env": os.environ | {"PYTHONPATH": str(Path(loop.__file__).parents[1])},
    }
    with subprocess.Popen([*command, "--hang-at", "11"], **options) as process:
        assert any(line == b"hanging\n" for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(out / "checkpoints" / "last") == ["9"]
    before = metrics(out, TIMES)
    assert [line["epoch"] for line in before] == [1, 1]
    subprocess.run([*command, "--resume"], check=True, **options)
    assert metrics(out, TIMES)[:2] == before
    assert_same_run(tiny, whole, out)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    tiny, whole, tmp_path, advance, capsys, number, status
):
    calls = advance(lambda count: os.kill(os.getpid(), number) if count == 2 else None)
    out = tmp_path / "a run"
    assert tiny.run(out, checkpoint_every=None) == status
    assert calls == [2, 2, 2]  # the dispatch under way was finished
    assert os.listdir(out / "checkpoints" / "last") == ["6"]
    printed = capsys.readouterr().out
    assert f"Stopped by {number.name} at step 6 of 21" in printed
    assert f"  python -m train.cifar --resume --out '{out}'\n" in printed
    assert tiny.run(out, resume=True) == 0
    assert_same_run(tiny, whole, out)


def test_a_signal_during_evaluation_evaluates_again_on_resume(tiny, whole, tmp_path, monkeypatch):
    evaluate = Engine.evaluate

    def interrupted(self, report):
        if int(self.state.step) == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, report)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", interrupted)
        assert tiny.run(out) == 130
    assert [line["epoch"] for line in metrics(out)] == [1, 1]
    assert os.listdir(out / "checkpoints" / "last") == ["14"]
    # A second interruption right after that evaluation must not count the old epoch's sums again.
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "advance", lambda self, length: os.abort())
        patch.setattr(
            "train.trainer.Trainer._advance", lambda self: self.signals._remember(2, None)
        )
        assert tiny.run(out, resume=True) == 130
    assert [line["epoch"] for line in metrics(out)] == [1, 1, 2, 2]
    assert tiny.run(out, resume=True) == 0
    assert_same_run(tiny, whole, out)


def test_a_second_signal_stops_at_once(tiny, tmp_path, advance):
    def twice(count):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    advance(twice)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler


def test_lines_after_the_checkpoint_and_a_cut_one_are_dropped(tiny, whole, tmp_path, advance):
    """As after a crash between the metrics of an epoch and its checkpoint."""
    out = tmp_path / "run"
    advance(lambda count: os.kill(os.getpid(), signal.SIGTERM) if count == 4 else None)
    assert tiny.run(out) == 143
    later = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)[2:5]
    with (out / "metrics.jsonl").open("a") as file:
        file.write("".join(later)[:-30])
    assert tiny.run(out, resume=True) == 0
    assert_same_run(tiny, whole, out)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tiny, whole, tmp_path):
    out = tmp_path / "run"
    with loop.prepare(tiny.CONFIG, tiny.dataset(), out, build=tiny.build):
        pass
    assert tiny.run(out, resume=True) == 0
    assert_same_run(tiny, whole, out)


def test_resuming_a_finished_run_changes_nothing(tiny, whole, advance, capsys):
    calls = advance(lambda count: None)
    before = (whole / "metrics.jsonl").read_text()
    assert tiny.run(whole, resume=True) == 0
    assert calls == []
    assert (whole / "metrics.jsonl").read_text() == before
    assert "Test accuracy" in capsys.readouterr().out


def test_non_finite_loss_stops_the_run_and_keeps_the_last_finite_state(tiny, tmp_path, capsys):
    """The learning rate of the second epoch is 1e29."""
    out = tmp_path / "run"
    changes = {"schedule": "step", "milestones": (1,), "decay_factor": 1e30, "warmup_epochs": 0}
    assert tiny.run(out, **changes) == 1
    printed = capsys.readouterr().out
    assert "at step 8 (epoch 2, learning rate 1e+29)" in printed
    assert (
        f"The last good checkpoint is that of step 7 in {out / 'checkpoints' / 'last'}" in printed
    )
    assert [line["epoch"] for line in metrics(out)] == [1, 1]
    assert all(np.isfinite(x).all() for x in arrays(tiny, out))


def test_a_parameter_that_breaks_in_the_last_step_is_not_saved(tiny, tmp_path, capsys):
    """The loss before an update says nothing about the parameters after it."""
    out = tmp_path / "run"
    changes = {"learning_rate": 1e37, "weight_decay": 1e3, "schedule": "constant"}
    assert tiny.run(out, warmup_epochs=0, checkpoint_every=1, steps_per_dispatch=1, **changes) == 1
    assert "A parameter became infinite or nan at step 0" in capsys.readouterr().out
    assert os.listdir(out / "checkpoints" / "last") == []


def test_refusals(tiny, whole, tmp_path):
    with pytest.raises(FileExistsError, match=f"{whole} already holds a run; .* --resume"):
        tiny.run(whole)
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        tiny.run(tmp_path / "none", resume=True)
    with pytest.raises(ValueError, match="--batch-size 60 is more than the 59 training pictures"):
        tiny.run(tmp_path / "none", batch_size=60)
    with pytest.raises(ValueError, match="data aren't those"):
        loop.run(tiny.CONFIG, tiny.dataset(train=60), whole, resume=True, build=tiny.build)
    assert not (tmp_path / "none").exists()
    (tmp_path / "config.json").write_text('{"config": {"arch": "tiny"}}')
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        _ = RunFolder.open(tmp_path).config


def test_plain_output_is_a_line_an_epoch(tiny, tmp_path, capsys):
    assert tiny.run(tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("epoch "))
    assert [line.split()[0] for line in lines[header + 1 : header + 4]] == ["1", "2", "3"]
    assert lines[header + 4] == ""
    assert {len(line) for line in lines[header : header + 4]} == {len(lines[header])}
    assert any(line.startswith("compiled in ") for line in lines)


def test_a_dispatch_ends_with_its_epoch(tiny, tmp_path, advance, capsys):
    calls = advance(lambda count: None)
    assert tiny.run(tmp_path / "run", epochs=2, steps_per_dispatch=100) == 0
    assert calls == [7, 7]


def test_live_line_of_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    with Display(10, 50, console) as display:
        display.training(125, 0.5, 64, {"loss": 1.25, "accuracy": 0.5})
        display._live.refresh()
    shown = screen.getvalue()
    for part in (
        "epoch 3/10",
        "step 25/50",
        "loss 1.2500",
        "accuracy 50.0 %",
        "128 images/s",
        "3:08 left",  # 375 steps of half a second
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("backend", "steps", "expected"),
    [
        ("cpu", 22, 2),
        ("cpu", 97, 1),
        ("cpu", 390, 5),
        ("cpu", 404, 4),
        ("cpu", 781, 5),
        ("gpu", 390, 30),
        ("gpu", 97, 32),
        ("gpu", 5, 5),
    ],
)
def test_steps_per_dispatch(monkeypatch, backend, steps, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert choose_steps_per_dispatch(steps) == expected


def test_networks_are_made_from_the_seed_for_the_classes(tiny):
    config = dataclasses.replace(tiny.CONFIG, arch="wrn_16_1", dtype="bfloat16", dropout=0.25)
    model = loop.build_network(config, tiny.dataset())
    assert model.fc.bias.shape == (4,)
    assert model.layer1[0].dropout.rate == 0.25
    assert {leaf.dtype for leaf in jax.tree.leaves(loop.nnx.state(model, loop.nnx.Param))} == {
        jnp.dtype("float32")
    }
    again = loop.build_network(config, tiny.dataset())
    other = loop.build_network(dataclasses.replace(config, seed=1), tiny.dataset())
    kernels = [np.asarray(m.conv1.kernel[...]) for m in (model, again, other)]
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[0] != kernels[2]).any()
