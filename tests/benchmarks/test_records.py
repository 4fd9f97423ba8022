"""The arithmetic of records and ratios."""

import dataclasses

import pytest

from benchmarks.measure import Measurement
from benchmarks.records import (
    BEST_TORCH,
    PLAIN_FLAX,
    Record,
    fastest,
    make_record,
    ratios,
    spread,
)
from benchmarks.task import Task


def record(side: str, runs: list[float], *, peak: int = 100, **task: object) -> Record:
    values = {"work": "train-step", "batch": 10} | task
    measurement = Measurement(
        Task(side=side, **values),
        runs=runs,
        peaks=[peak] * len(runs),
        ready={"steps": 1, "imports_s": 0.5},
    )
    return make_record(measurement, multiply_adds=1_000_000)


def test_numbers_of_a_record() -> None:
    found = record("ours", [0.4, 0.1, 0.2])
    assert (found.median_s, found.min_s, found.runs) == (0.2, 0.1, [0.4, 0.1, 0.2])
    assert found.images_per_second == pytest.approx(50)
    # Training is three forward passes, a multiply-add two operations.
    assert found.gflops == pytest.approx(3 * 2 * 1e6 * 10 / 0.2 / 1e9)
    assert record("ours", [0.2], work="inference").gflops == pytest.approx(found.gflops / 3)


def test_an_epoch_trains_on_whole_batches_and_tests_on_a_fifth() -> None:
    found = record("ours", [2.0], work="epoch", pictures=55)
    assert found.images_per_second == pytest.approx(50 / 2)
    assert found.gflops == pytest.approx(2e6 * (3 * 50 + 11) / 2 / 1e9)


def test_starts_have_no_rates() -> None:
    found = record("ours", [2.0], work="compile", variant="cold")
    assert (found.images_per_second, found.gflops) == (None, None)


def test_the_fastest_is_it_by_rate() -> None:
    """A GPU's product is larger than a CPU's: it takes longer, and has the higher rate."""
    small = dataclasses.replace(record("numpy", [0.1], work="roofline"), gflops=100.0)
    large = dataclasses.replace(record("jax", [0.2], work="roofline"), gflops=5000.0)
    assert fastest([small, large]) is large
    copies = [dataclasses.replace(small, gflops=None, gigabytes_per_second=x) for x in (9.0, 8.0)]
    assert fastest(copies) is copies[0]


def test_spread_is_between_the_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert spread([1.0]) == 0


def test_ratios_are_to_the_best_of_pytorch_and_to_plain_flax() -> None:
    records = [
        record("ours", [0.1, 0.2, 0.3]),
        record("flax", [0.8]),
        record("torch-eager", [0.4]),
        record("torch-channels-last", [0.3]),
    ]
    found = {(each.side, each.to): each for each in ratios(records)}
    assert len(found) == 8
    assert found["ours", BEST_TORCH].ratio == pytest.approx(1.5)
    assert found["ours", BEST_TORCH].reference == "torch-channels-last"
    assert found["ours", PLAIN_FLAX].ratio == pytest.approx(4)
    assert found["flax", BEST_TORCH].ratio == pytest.approx(0.375)
    assert found["torch-channels-last", BEST_TORCH].ratio == 1


def test_ratios_stay_within_a_network_batch_and_variant() -> None:
    records = [
        record("ours", [0.1]),
        record("flax", [0.2], batch=20),
        record("flax", [0.2], arch="wrn_16_4"),
        record("flax", [0.2], work="inference"),
    ]
    assert [each.ratio for each in ratios(records)] == [1, 1, 1]


def test_memory_is_compared_by_bytes() -> None:
    records = [
        record("ours", [9.0], peak=200, work="memory"),
        record("flax", [1.0], peak=500, work="memory"),
    ]
    found = {each.side: each.ratio for each in ratios(records)}
    assert found == {"ours": 2.5, "flax": 1.0}
