"""The convolutions of a network, called one by one by every side."""

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest

import flaxnets
from benchmarks import records
from benchmarks.convolutions import (
    FORWARD,
    OF_INPUT,
    OF_KERNEL,
    PASSES,
    Convolution,
    count_parts,
    list_convolutions,
    part,
    totals,
)
from benchmarks.measure import CouldNotMeasureError, Measurement, require_the_same_results
from benchmarks.task import Task
from benchmarks.worker import checked

PLAIN = Convolution(8, 8, 16, 16, 3, 1, 1, 1, of_pictures=False, calls=2)
STRIDED = Convolution(8, 6, 8, 12, 3, 2, 1, 1, of_pictures=False)
GROUPED = Convolution(5, 5, 8, 16, 3, 1, 1, 4, of_pictures=False)
WIDE = Convolution(8, 8, 64, 64, 3, 1, 1, 1, of_pictures=False)
STEM = Convolution(9, 9, 3, 8, 7, 2, 3, 1, of_pictures=True)
LAYERS = [STEM, PLAIN, STRIDED, GROUPED, WIDE]
TASK = Task(
    "convolutions", "ours", batch=4, convolutions=[dataclasses.asdict(each) for each in LAYERS]
)
MODULES = {"ours": "ours", "flax": "flax_side"}
SIDES = ("ours", "flax", "torch-eager", "torch-channels-last")


def make(side: str, **changes: Any) -> Any:
    module = importlib.import_module(f"benchmarks.{MODULES.get(side, 'torch_side')}")
    return module.Convolutions(dataclasses.replace(TASK, side=side, **changes))


def outputs(side: str, layer: Convolution) -> dict[str, np.ndarray]:
    """What each pass computes, of the same arrays; PyTorch's turned to this project's layout."""
    generator = np.random.default_rng(3)
    images, kernel, gradient = (
        generator.standard_normal(shape, np.float32)
        for shape in ((4, *layer.input_shape), layer.kernel_shape, (4, *layer.output_shape))
    )
    made = make(side)
    found = {}
    for name, call in made._passes(layer, images, kernel, gradient).items():
        value = made._fetch(call())
        if side.startswith("torch"):
            value = value.transpose((2, 3, 1, 0) if name == OF_KERNEL else (0, 2, 3, 1))
        found[name] = value
    return found


@pytest.mark.parametrize("name", ["resnet20", "densenet_bc_40_12", "resnet50", "resnext50_32x4d"])
def test_together_they_are_the_networks(name: str) -> None:
    size = flaxnets.info(name).input_size
    layers = list_convolutions(name, (1, *size, 3))
    rows = flaxnets.summary(name, (1, *size, 3)).rows
    expected = [row.multiply_adds for row in rows if row.kind.startswith("Conv ")]
    assert sum(layer.calls for layer in layers) == len(expected)
    assert sum(layer.calls * layer.multiply_adds for layer in layers) == sum(expected)
    assert [layer.of_pictures for layer in layers] == [True] + [False] * (len(layers) - 1)


def test_equal_ones_are_listed_once_with_their_number() -> None:
    assert [layer.name for layer in list_convolutions("resnet20", (2, 32, 32, 3))] == [
        "1 of 3x3, 3 to 16, 32x32",
        "6 of 3x3, 16 to 16, 32x32",
        "1 of 3x3, 16 to 32, 32x32, stride 2",
        "5 of 3x3, 32 to 32, 16x16",
        "1 of 3x3, 32 to 64, 16x16, stride 2",
        "5 of 3x3, 64 to 64, 8x8",
    ]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("side", SIDES[1:])
def test_sides_compute_the_same(side: str, layer: Convolution) -> None:
    ours, theirs = outputs("ours", layer), outputs(side, layer)
    assert ours.keys() == theirs.keys() == set(layer.passes)
    assert ours[FORWARD].shape == (4, *layer.output_shape)
    assert ours[OF_KERNEL].shape == layer.kernel_shape
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-4 * np.abs(value).max(), rtol=0)


def test_pictures_have_no_gradient() -> None:
    assert OF_INPUT not in outputs("ours", STEM)
    assert set(outputs("ours", PLAIN)) == set(PASSES)


@pytest.mark.parametrize("side", SIDES)
def test_a_run_times_every_pass(side: str) -> None:
    made = make(side)
    (size,) = made.advance(1)
    assert set(made.parts) == {part(layer, name) for layer in LAYERS for name in layer.passes}
    assert all(seconds > 0 for seconds in made.parts.values())
    assert make("ours").advance(1) == [pytest.approx(size, rel=1e-4)]


def test_another_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sides have to agree on the size of each pass, not of all together."""
    from benchmarks import ours

    right = ours.conv2d

    def wrong(x: Any, k: Any, *, groups: int, **options: Any) -> Any:
        return right(x, 1.003 * k if groups > 1 else k, groups=groups, **options)

    def check(side: str) -> Measurement:
        task = dataclasses.replace(TASK, side=side)
        return Measurement(task, check=checked(make(side).advance(1)))

    expected = check("flax")
    require_the_same_results([expected, check("ours")])
    monkeypatch.setattr(ours, "conv2d", wrong)
    with pytest.raises(CouldNotMeasureError, match=r"the 1 of 3x3, 8 to 16, 5x5, 4 groups: "):
        require_the_same_results([expected, check("ours")])


def test_sums_count_every_call() -> None:
    layers = [STEM, PLAIN]
    parts = {
        part(STEM, FORWARD): 1.0,
        part(STEM, OF_KERNEL): 10.0,
        part(PLAIN, FORWARD): 100.0,
        part(PLAIN, OF_INPUT): 1_000.0,
        part(PLAIN, OF_KERNEL): 10_000.0,
    }
    assert totals(layers, parts) == {
        "all layers: forward": 201,
        "all layers: input's gradient": 2_000,
        "all layers: kernel's gradient": 20_010,
        "all layers": 22_211,
    }
    assert count_parts(layers)["all layers"] == 2 * STEM.multiply_adds + 6 * PLAIN.multiply_adds


def test_a_record_for_every_pass_and_sum() -> None:
    task = dataclasses.replace(TASK, convolutions=[dataclasses.asdict(PLAIN)])
    runs = [{part(PLAIN, name): seconds for name in PASSES} for seconds in (0.1, 0.3, 0.2)]
    ready = {"steps": 1, "imports_s": 1.0}
    measurement = Measurement(task, runs=[9.0] * 3, parts=runs, peaks=[1] * 3, ready=ready)
    made = {record.variant: record for record in records.make_records(measurement, 5)}
    forward, everything = made[part(PLAIN, FORWARD)], made["all layers"]
    assert (forward.median_s, forward.min_s, forward.runs) == (0.2, 0.1, [0.1, 0.3, 0.2])
    assert forward.gflops == pytest.approx(2 * 4 * 8 * 8 * 9 * 16 * 16 / 0.2 / 1e9)
    assert everything.median_s == pytest.approx(6 * 0.2)
    assert everything.gflops == pytest.approx(forward.gflops)
