import json
from pathlib import Path

import numpy as np
import pytest

from parity import report, tables
from parity.comparison import Comparison
from parity.page.document import parse
from parity.report import NetworkReport


def comparison(network: str, check: str, error: float, budget: float, **options) -> Comparison:
    values = {"dtype": "float64", "mode": "eval", "layer": "conv"} | options
    return Comparison(network, check, error=error, budget=budget, **values)


def count(network: str, note: str) -> Comparison:
    return comparison(network, "parameters", 0.0, 0.0, dtype="", mode="", note=note)


def subjects() -> list[NetworkReport]:
    net = (
        count("net", "1,234 (published: 1,234)"),
        comparison("net", "layers", 3e-15, 1e-10),
        comparison("net", "logits", 2e-12, 1e-10),
        comparison("net", "input gradient", 4e-11, 1e-9),
        comparison("net", "updates", 5e-13, 1e-9, mode="train"),
        comparison("net", "layers", 1e-7, 4e-7, dtype="float32"),
        comparison("net", "isolated layers", 3e-7, 4e-7, dtype="float32"),
    )
    option = (
        count("wide, narrow", "7 (PyTorch: 7)"),
        comparison("wide, narrow", "layers", np.inf, 1e-10),
    )
    alone = (
        comparison("pool", "functions", 0.0, 0.0),
        comparison("relu", "functions", 1e-7, 2e-7),
    )
    return [
        NetworkReport("net", net, 2.0),
        NetworkReport("wide, narrow", option, 1.0),
        NetworkReport("functions", alone, 4.2, standalone=True),
    ]


def test_the_tables_have_largest_errors_and_shares() -> None:
    groups, networks, checks = tables.tables(parse(report.to_json({}, subjects())))
    net = "2.0e-12 | 4.0e-11 | 5.0e-13 | 1.0e-07 (25 %) |  | 3.0e-07 (75 %) |"
    assert groups.splitlines()[2:] == [
        f"| named networks | 1 | 7 | 0 | {net}",
        "| options beside their names | 1 | 2 | 1 | inf |  |  |  |  |  |",
    ]
    assert networks.splitlines()[2:] == [f"| net | 1,234 | {net}"]
    assert checks.splitlines()[2:] == ["| functions | 2 | 0 | 50 % | 4 |"]


def test_mutants_have_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mutant = {"name": "no padding", "description": "none", "expected": "conv1", "found": "conv1"}
    mutant |= {"caught": True, "located": False, "seconds": 1.0}
    path = tmp_path / "mutants.json"
    path.write_text(json.dumps(report.to_json({"mutants": [mutant]}, [])))
    assert tables.main([str(path)]) == 0
    assert "| no padding | none | conv1 | conv1 | yes | NO |" in capsys.readouterr().out


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    assert tables.main([str(path)]) == 2
    assert "found list where an object is" in capsys.readouterr().err
