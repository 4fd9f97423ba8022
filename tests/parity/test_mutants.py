"""Planted mistakes: the suite notices each, and its report names the place."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from flaxnets import layers
from parity.comparison import CHECKS, Comparison
from parity.mutants import (
    MUTANTS,
    Mutant,
    MutantResult,
    Place,
    judge_mutant,
    print_results,
    run_mutant,
    run_mutants,
    to_markdown,
)
from parity.mutants.changes import NoSuchCode, edited, forget_compiled, replaced
from parity.mutants.mutant import REFUSAL
from parity.mutants.run import compiled_in, run_subject
from parity.mutants.subjects import SUBJECTS

# One of each kind.
HANDFUL = (
    "SAME padding",
    "biased running variance",
    "ReLU missing",
    "compression rounded up",
    "kernel's height and width swapped",
    "weight decay after momentum",
    "flipped upside down",
)


@pytest.fixture(scope="module", autouse=True)
def kept_compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What mutants leave as it was is compiled once for all tests."""
    with compiled_in(str(tmp_path_factory.mktemp("compiled"))):
        yield


def double(x: float, factor: float = 2.0, *, offset: float = 0.0) -> float:
    return x * factor + offset


@jax.jit
def compiled(x: jax.Array) -> jax.Array:
    return x + 1


def test_edited_code_runs_in_the_context_alone() -> None:
    held = double
    with edited(double, ("x * factor", "x / factor")):
        assert (double(3), held(3)) == (1.5, 1.5)
    assert (double(3), held(3)) == (6, 6)


def test_defaults_are_edited_too() -> None:
    with edited(double, ("factor: float = 2.0", "factor: float = 5.0"), ("= 0.0", "= 1.0")):
        assert double(3) == 16
    assert double(3) == 6


def test_what_was_compiled_before_is_forgotten_both_ways() -> None:
    one = jnp.ones(())
    assert compiled(one) == 2
    with edited(compiled, ("x + 1", "x + 10")):
        forget_compiled()
        assert compiled(one) == 11
    forget_compiled()
    assert compiled(one) == 2


@pytest.mark.parametrize("text", ["y * factor", "x"])
def test_code_that_is_not_there_once_is_refused(text: str) -> None:
    with pytest.raises(NoSuchCode, match="times, not once"), edited(double, (text, "")):
        pass


def test_a_replacement_reaches_every_module_that_holds_the_object() -> None:
    from flaxnets import densenet, preactivation, resnet

    holders = (densenet, layers, preactivation, resnet)
    original = layers.relu
    with replaced(layers.relu, jnp.abs):
        assert all(module.relu is jnp.abs for module in holders)
    assert all(module.relu is original for module in holders)


def test_the_catalogue_is_whole() -> None:
    assert len(MUTANTS) >= 60
    assert len({mutant.description for mutant in MUTANTS.values()}) == len(MUTANTS)
    assert {mutant.subject for mutant in MUTANTS.values()} <= SUBJECTS.keys()
    assert {mutant.expected.check for mutant in MUTANTS.values()} <= {*CHECKS, REFUSAL}
    assert set(HANDFUL) <= MUTANTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_code_that_a_mutant_changes_is_there(name: str) -> None:
    with MUTANTS[name].change():
        pass


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ("layer1.0.conv1", True),
        ("layer1.0", True),
        ("layer1", True),
        ("layer1.0.conv1.weight", False),
        ("layer1.0.conv2", False),
        ("layer1.0.conv", False),
        ("", False),
    ],
)
def test_a_place_is_named_by_itself_or_by_what_contains_it(found: str, named: bool) -> None:
    place = Place("layers", "layer1.0.conv1")
    comparison = Comparison("resnet", "layers", "float64", "eval", found, 1.0, 0.0)
    assert place.is_named_by(comparison) == named
    assert not place.is_named_by(dataclasses.replace(comparison, check="isolated layers"))


def test_a_part_of_training_is_named_by_its_word() -> None:
    comparison = Comparison(
        "resnet", "lockstep", "float64", "train", "optimizer: step 2: momentum of bn1", 1.0, 0.0
    )
    assert Place("lockstep", "optimizer").is_named_by(comparison)
    assert not Place("lockstep", "schedule").is_named_by(comparison)
    assert not Place("lockstep", "optimizer", "densenet").is_named_by(comparison)


@pytest.mark.parametrize("name", HANDFUL)
def test_mutant_is_caught_and_located(name: str) -> None:
    result = run_mutant(name)
    assert result.caught
    assert result.located, f"{result.expected} expected, found {result.found}"


def test_nothing_of_a_mutant_is_left_behind() -> None:
    mutant = MUTANTS["epsilon 1e-3"]
    before = run_subject(mutant.subject)
    with mutant.change():
        during = run_subject(mutant.subject)
    after = run_subject(mutant.subject)
    assert not before.words
    assert during.first is not None
    assert during.first.layer == "bn1"
    assert before == after


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    yield


def test_a_mutant_that_does_nothing_is_not_caught() -> None:
    mutant = Mutant("nothing", "no mistake", Place("layers", "conv1"), "functions", nothing)
    result = judge_mutant(mutant)
    assert (result.caught, result.located, result.found) == (False, False, "")


def test_a_mutant_elsewhere_is_caught_but_not_located() -> None:
    elsewhere = Place("functions", "average pooling")
    mutant = dataclasses.replace(MUTANTS["max-pooling padded with 0"], expected=elsewhere)
    result = judge_mutant(mutant)
    assert (result.caught, result.located) == (True, False)
    assert "functions max pooling, output" in result.found


def test_mutants_of_an_unequal_subject_are_meaningless(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Comparison("resnet", "layers", "float64", "eval", "conv1", 1.0, 0.0)
    name = "max-pooling padded with 0"
    monkeypatch.setitem(SUBJECTS, MUTANTS[name].subject, lambda seed: [wrong])
    (result,) = run_mutants([name], jobs=1)
    assert (result.caught, result.located) == (False, False)
    assert result.found.startswith("meaningless: unequal without the mutant: resnet: layers conv1")


def test_results_as_text_and_records() -> None:
    good = MutantResult("a", "mistake a", "layers: conv1", True, True, "resnet: layers", 1.234)
    bad = dataclasses.replace(good, name="b", caught=False, located=False, found="")
    output = io.StringIO()
    print_results(Console(file=output, width=100), [good, bad])
    lines = output.getvalue().splitlines()
    assert lines[-1] == "caught 1 of 2, located 1 of 2"
    assert sum("NO" in line for line in lines) == 1
    assert good.record() == {
        "name": "a",
        "description": "mistake a",
        "expected": "layers: conv1",
        "caught": True,
        "located": True,
        "found": "resnet: layers",
        "seconds": 1.23,
    }
    assert "| a | mistake a | layers: conv1 | resnet: layers | yes | yes |" in to_markdown([good])


@pytest.mark.slow
@pytest.mark.parametrize("subject", sorted({mutant.subject for mutant in MUTANTS.values()}))
def test_every_subject_is_equal_without_a_mutant_and_has_the_expected_places(subject: str) -> None:
    verdict = run_subject(subject)
    assert verdict.comparisons
    assert not verdict.words
    places = {part for each in verdict.comparisons for part in re.split("[,:] ", each.layer)}
    for mutant in MUTANTS.values():
        expected = mutant.expected
        if mutant.subject == subject and expected.check not in (REFUSAL, "lockstep"):
            assert expected.layer in {*places, ""}, mutant.name
