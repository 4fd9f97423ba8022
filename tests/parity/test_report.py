import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from parity import report
from parity.comparison import Comparison
from parity.report import NetworkReport


def comparison(layer: str, error: float, dtype: str = "float64", **options: str) -> Comparison:
    budget = 1e-10 if dtype == "float64" else 1e-6
    values = {"check": "layers", "mode": "eval", "measure": "worst"} | options
    reference = None if dtype == "float64" else 1e-7
    return Comparison(
        "net", dtype=dtype, layer=layer, error=error, budget=budget, reference=reference, **values
    )


COUNT = Comparison("net", "parameters", "", "", "Flax", 0.0, 0.0, note="1,234 (published: 1,234)")
GOOD = NetworkReport(
    "net", (COUNT, comparison("conv", 1e-12), comparison("conv", 5e-7, "float32")), 1.5
)
BAD = NetworkReport(
    "net", (COUNT, comparison("conv", 1e-12), comparison("bn", 2e-3), comparison("fc", np.inf)), 2.0
)


def printed(network: NetworkReport) -> str:
    stream = io.StringIO()
    report.print_network(Console(file=stream, width=120), network)
    return stream.getvalue()


def test_the_verdict_names_the_first_divergence() -> None:
    assert GOOD.ok
    assert str(report.verdict(GOOD)) == "EQUAL: net, 3 comparisons within budget, 1.5 s"
    assert not BAD.ok
    assert str(report.verdict(BAD)) == (
        "NOT EQUAL: net, 2 of 4 comparisons out of budget; first divergence: "
        "layers bn (float64 eval) error 2.00e-03, budget 1.00e-10"
    )


def test_the_table_has_every_layer_with_its_errors_and_marks_those_out_of_budget() -> None:
    lines = printed(BAD).splitlines()
    rows = {line.strip("|").split("|")[0].strip(): line for line in lines if line.startswith("|")}
    assert "1.0e-12" in rows["conv"]
    assert "OUT" not in rows["conv"]
    assert "2.0e-03 OUT" in rows["bn"]
    assert "inf OUT" in rows["fc"]
    assert "parameters: Flax 1,234 (published: 1,234)" in lines


def test_the_table_shows_what_float32_may_be_off() -> None:
    row = next(line for line in printed(GOOD).splitlines() if line.startswith("|conv"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("conv", "1.0e-12", "5.0e-07", "1.0e-06")
    ]


def test_the_summary_line_has_the_worst_errors() -> None:
    assert str(report.summary_line(GOOD)).split() == [
        *("net", "equal", "1.0e-12", "5.0e-07", "50.0%", "-", "-", "-", "-", "1,234", "1.5")
    ]
    assert str(report.summary_line(BAD)).split()[:4] == ["net", "NOT", "EQUAL", "inf"]


def test_json_has_a_record_a_comparison(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    report.write_json(path, report.to_json({"seed": 3}, [BAD]))
    document = json.loads(path.read_text())
    assert document["seed"] == 3
    assert document["networks"] == [{"network": "net", "ok": False, "seconds": 2.0}]
    assert [record["ok"] for record in document["comparisons"]] == [True, True, False, False]
    assert document["comparisons"][2] == {
        "network": "net",
        "check": "layers",
        "dtype": "float64",
        "mode": "eval",
        "layer": "bn",
        "error": 2e-3,
        "budget": 1e-10,
        "measure": "worst",
        "reference": None,
        "note": "",
        "ok": False,
    }
    assert document["comparisons"][3]["error"] is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("before")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_json(path, {"long": list(range(9999)), "error": float("nan")})
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_nothing_compared_is_not_equal() -> None:
    assert not NetworkReport("net", (), 0.0).ok


def test_the_summary_does_without_a_number_of_parameters() -> None:
    line = str(report.summary_line(NetworkReport("net", GOOD.comparisons[1:], 1.5)))
    assert line.split()[:2] == ["net", "equal"]


def test_a_layer_that_one_mode_lacks_has_an_empty_cell() -> None:
    partial = (*GOOD.comparisons, comparison("bn", np.inf, mode="train"))
    rows = printed(NetworkReport("net", partial, 1.0)).splitlines()
    row = next(line for line in rows if line.startswith("|bn"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["bn", "-", "-", "-", "inf OUT"]


def test_a_drift_that_is_not_finite_can_be_written(tmp_path: Path) -> None:
    records = ({"network": "net", "step": 1, "side": "Flax", "distance": np.nan, "loss": np.inf},)
    drifted = NetworkReport("drift", GOOD.comparisons, 1.0, standalone=True, drift=records)
    report.write_json(tmp_path / "drift.json", report.to_json({}, [drifted]))
    (record,) = json.loads((tmp_path / "drift.json").read_text())["drift"]
    assert (record["distance"], record["loss"]) == (None, None)
