"""Parts of a document, and its verdict in sentences."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from parity.comparison import Comparison
from parity.page.document import DocumentError, parse, read
from parity.page.verdict import explain, pass_of, verdict


def record(network: str = "net", check: str = "layers", **given: Any) -> dict[str, Any]:
    """A record of a document, within its budget unless something else is given."""
    return {
        "network": network,
        "check": check,
        "dtype": "float64",
        "mode": "eval",
        "layer": "conv1",
        "error": 1e-15,
        "budget": 1e-10,
        "measure": "norm",
        "reference": None,
        "note": "",
        "ok": True,
    } | given


def document(*records: dict[str, Any], **head: Any) -> dict[str, Any]:
    """A document of these records, with two networks."""
    networks = [{"network": name, "ok": True, "seconds": 1.5} for name in ("net", "other")]
    return {"seed": 0, **head, "networks": networks, "comparisons": list(records)}


def test_networks_and_standalone_checks_are_told_apart() -> None:
    parsed = parse(
        document(
            record("other"),
            record("maps", "batch norm"),
            record("net"),
            record("sgd", "lockstep"),
            command="python -m parity",
            checks=[{"check": "batch norm", "ok": True, "seconds": 2.5}],
        )
    )
    assert [(each.name, len(each.comparisons)) for each in parsed.networks] == [
        ("net", 1),
        ("other", 1),
    ]
    assert [each.seconds for each in parsed.networks] == [1.5, 1.5]
    assert [each.seconds for each in parsed.checks] == [2.5, None]
    assert [each.name for each in parsed.checks] == ["batch norm", "lockstep"]
    assert parsed.checks[1].comparisons[0].network == "sgd"
    assert parsed.head["command"] == "python -m parity"
    assert parsed.head.keys() == {"seed", "command"}


def test_null_is_infinite() -> None:
    (comparison,) = parse(document(record(error=None))).comparisons
    assert comparison.error == math.inf
    assert not comparison.ok


def test_ok_is_not_taken_on_trust() -> None:
    (comparison,) = parse(document(record(error=1.0, ok=True))).comparisons
    assert not comparison.ok


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "found list where an object is"),
        ({}, "no list 'networks'"),
        (document(drift={}), "'drift' is no list of objects"),
        (document(mutants=["epsilon"]), "'mutants' is no list of objects"),
        (document(checks=[{}]), "'checks' holds {}, which names no check"),
        ({"networks": [], "comparisons": "none"}, "no list 'comparisons'"),
        ({"networks": ["resnet20"], "comparisons": []}, "'resnet20', which names no network"),
        (document(record(), record() | {"error": "large"}), "comparison 2 is not whole"),
        (document({"network": "net"}), "comparison 1 is not whole"),
        (document(record(layer=3)), "comparison 1 is not whole"),
        (document(record(error=True)), "comparison 1 is not whole"),
    ],
)
def test_another_document_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as error:
        parse(wrong)
    assert "python -m parity --json FILE" in str(error.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"networks": [')
    with pytest.raises(DocumentError, match=r"result\.json is no JSON"):
        read(path)
    path.write_text(json.dumps(document()))
    assert read(path)["seed"] == 0


def test_verdict_where_all_is_equal() -> None:
    found = verdict(parse(document(record(), record("other", error=5e-11), record("x", "shapes"))))
    assert (found.good, found.word) == (True, "EQUAL")
    assert found.sentences == (
        "All 3 comparisons are within budget, in 2 networks and 1 standalone check.",
        "The nearest to it: other, the output of layer conv1 (float64, evaluation, forward pass), "
        "with 50.0 % of what it may be off.",
    )


def test_verdict_names_the_first_divergence() -> None:
    found = verdict(
        parse(
            document(
                record("other", "parameter gradients", layer="fc.bias", error=3e-7, budget=1e-9),
                record("net", "layers"),
                record("maps", "batch norm", error=1.0),
            )
        )
    )
    assert (found.good, found.word) == (False, "NOT EQUAL")
    assert found.sentences == (
        "First divergence: other, the gradient of parameter fc.bias "
        "(float64, evaluation, backward pass) is off by 3.00e-07 where 1.00e-09 is allowed, "
        "300 times as much.",
        "Out of budget are 2 of 3 comparisons, in 1 of 2 networks and 1 of 1 standalone check.",
    )


def test_what_could_not_be_compared_is_no_proof() -> None:
    missing = [{"name": "resnet20", "reason": "no memory"}]
    found = verdict(parse(document(record(), not_compared=missing)))
    assert (found.good, found.word) == (False, "NOT COMPLETE")
    assert found.sentences[-1] == "Could not be compared: 1."
    assert verdict(parse(document())).word == "NOT COMPLETE"
    assert verdict(parse(document(record(error=1.0), not_compared=missing))).word == "NOT EQUAL"


def test_verdict_on_mutants() -> None:
    found = {"name": "epsilon", "caught": True, "located": True}
    astray = {"name": "stride", "caught": True, "located": False}
    missed = {"name": "flip", "caught": False, "located": False}
    all_found = verdict(parse(document(mutants=[found])))
    assert (all_found.good, all_found.word) == (True, "ALL FOUND")
    assert all_found.sentences == ("All 1 mutants were caught and located.",)
    some = verdict(parse(document(mutants=[found, astray, missed])))
    assert (some.good, some.word) == (False, "NOT ALL FOUND")
    assert some.sentences == ("Of 3 mutants 2 were caught and 1 located; not both: stride, flip.",)
    beside = verdict(parse(document(record(), mutants=[missed])))
    assert (beside.good, beside.word) == (False, "NOT ALL FOUND")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"check": "isolated layers", "note": "gradient of the input", "error": 2.5e-10},
            "layer conv1 by itself (float64, evaluation, backward pass) "
            "is off by 2.50e-10 where 1.00e-10 is allowed, 2.5 times as much "
            "[gradient of the input]",
        ),
        (
            {"check": "logits", "layer": "", "mode": "train", "error": math.inf},
            "the network's output (float64, training, forward pass) "
            "can't be compared: it has no finite error",
        ),
        (
            {"check": "bridge", "dtype": "", "mode": "", "error": 2.0, "budget": 0.0},
            "bridge, conv1 is off by 2, and must be exact",
        ),
        (
            {"check": "names", "layer": "", "mode": "", "error": 1.0, "budget": math.inf},
            "the layers and parameters that both sides have (float64) "
            "is off by 1, and has no finite budget",
        ),
        (
            {"check": "of {another} version", "error": 1.0},
            "of {another} version, conv1 (float64, evaluation) "
            "is off by 1 where 1.00e-10 is allowed, 1.00e+10 times as much",
        ),
    ],
)
def test_a_comparison_as_a_sentence(given: dict[str, Any], sentence: str) -> None:
    fields = record(**given)
    del fields["ok"]
    assert explain(Comparison(**fields)) == sentence


@pytest.mark.parametrize(
    ("check", "note", "expected"),
    [
        ("layers", "", "forward pass"),
        ("statistics", "", "forward pass"),
        ("layer gradients", "", "backward pass"),
        ("input gradient", "", "backward pass"),
        ("isolated layers", "output", "forward pass"),
        ("isolated layers", "gradient of bn1.weight", "backward pass"),
        ("lockstep", "", ""),
    ],
)
def test_the_pass_that_a_comparison_is_about(check: str, note: str, expected: str) -> None:
    assert (
        pass_of(Comparison("net", check, "float64", "train", "", 0.0, 1.0, note=note)) == expected
    )
