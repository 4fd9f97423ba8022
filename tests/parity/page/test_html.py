"""The HTML page: what it shows, that it stands alone, and its size."""

import html.parser
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from parity import html as page
from parity.budget import DTYPES
from parity.comparison import CHECKS, MODES, NETWORK_CHECKS, Comparison
from parity.page.document import LISTS, DocumentError, parse
from parity.report import NetworkReport, to_json

HEAD = {"command": "python -m parity --all", "seed": 7, "versions": {"jax": "1.2.3"}}
# The checks that compare every layer of a network.
LAYERED = ("isolated layers", "layers", "layer gradients", "parameter gradients", "statistics")
# What could close the script element, begin a comment in it, or be taken for markup.
EVIL = "</script><!--<script>alert('x')&\"{{ 7 * 7 }}"


def network(name: str, layers: int, **out: float) -> NetworkReport:
    """A network with every check of networks, and ``layers`` layers in those that have any.

    Args:
        name: of the network.
        layers: number of layers.
        out: errors by the name of a layer, with "_" for "."; in place of those within budget.
    """
    found = []
    for check in NETWORK_CHECKS:
        for dtype in DTYPES:
            for mode in MODES:
                for place in range(layers if check in LAYERED else 1):
                    layer = f"layer{place % 4}.{place}.conv1"
                    error = out.get(layer.replace(".", "_"), (place % 97 + 1) * 3.21e-13)
                    reference = 2.5e-13 if dtype == "float32" else None
                    found.append(
                        Comparison(
                            *(name, check, dtype, mode, layer, error, 1e-10),
                            measure="norm",
                            reference=reference,
                        )
                    )
    return NetworkReport(name, tuple(found), 12.5)


def standalone() -> list[NetworkReport]:
    """One comparison of each check that stands for itself."""
    return [
        NetworkReport(
            check, (Comparison("maps", check, "", "", "output", 0.0, 0.0),), 2.5, standalone=True
        )
        for check in CHECKS
        if check not in NETWORK_CHECKS
    ]


def document(*reports: NetworkReport, **head: Any) -> dict[str, Any]:
    """A document as the suite writes it."""
    return to_json(HEAD | head, reports)


class Page(html.parser.HTMLParser):
    """What a browser would make of a page.

    Attributes:
        starts: every element's name and attributes.
        texts: the text outside of scripts and styles, piece by piece.
        data: what the script elements with data hold, by id.
        cells: every table's rows of texts, by the table's caption.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, Any] = {}
        self.cells: dict[str, list[list[str]]] = {}
        self._inside: list[str] = []
        self._caption = ""
        self.feed(text)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "tr" and self._caption:
            self.cells[self._caption].append([])
        if tag in ("td", "th") and self._caption:
            self.cells[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "script":
            name = self.starts[-1][1].get("id")
            if name:
                self.data[name] = json.loads(data)
        elif self._inside and self._inside[-1] != "style":
            self.texts.append(data)
        if "caption" in self._inside:
            self._caption = data
            self.cells[data] = []
        elif self._caption and {"td", "th"} & set(self._inside):
            self.cells[self._caption][-1][-1] += data.strip()


TIMES = "\N{MULTIPLICATION SIGN}"
MATRIX = "Share of the budget, by network, check and dtype"


def test_the_verdict_comes_first() -> None:
    text = Page(page.render(document(network("resnet20", 3)))).text
    assert text.index("✓ EQUAL") < text.index("All 92 comparisons are within budget")
    assert "NOT EQUAL" not in text


def test_the_first_divergence_is_in_the_verdict_and_at_its_network() -> None:
    reports = network("resnet20", 3), network("wrn_16_1", 3, layer1_1_conv1=5e-9)
    text = Page(page.render(document(*reports))).text
    sentence = (
        "layer layer1.1.conv1 by itself (float64, evaluation) "
        "is off by 5.00e-09 where 1.00e-10 is allowed, 50 times as much"
    )
    assert f"✗ NOT EQUAL First divergence: wrn_16_1, {sentence}." in text
    assert text.count(f"First divergence: {sentence}") == 1
    assert "Out of budget are 20 of 184 comparisons, in 1 of 2 networks." in text


def test_the_matrix_has_every_network_check_and_dtype() -> None:
    reports = network("resnet20", 3), network("wrn_16_1", 60, layer3_59_conv1=5e-9)
    upper, lower, *rows = Page(page.render(document(*reports))).cells[MATRIX]
    assert upper == ["network", "verdict", *NETWORK_CHECKS]
    assert lower == [*DTYPES] * len(NETWORK_CHECKS)
    assert [row[:2] for row in rows] == [["resnet20", "✓"], ["wrn_16_1", "✗ 20 out"]]
    place = 2 + 2 * list(NETWORK_CHECKS).index("layers")
    assert [row[place : place + 2] for row in rows] == [["<1 %"] * 2, [f"✗ 50{TIMES}"] * 2]


def test_a_cell_is_told_by_more_than_its_colour() -> None:
    exact = Comparison("net", "bridge", "", "", "", 0.0, 0.0)
    different = Comparison("net", "parameters", "", "", "Flax", 0.5, 0.0)
    half = Comparison("net", "layers", "float32", "eval", "conv1", 5e-7, 1e-6)
    missing = Comparison("net", "logits", "float32", "eval", "", float("inf"), 1e-6)
    report = NetworkReport("net", (exact, different, half, missing), 1.0)
    made = Page(page.render(document(report)))
    row = made.cells[MATRIX][2]
    assert row == ["net", "✗ 2 out", "✗ differs", "exact", "50 %", "✗ differs"]
    titles = [
        given["title"]
        for _, given in made.starts
        if "share" in str(given.get("class")) and "title" in given
    ]
    assert titles[2] == (
        "layers, conv1, float32, evaluation: off by 5.0e-07, 1.0e-06 allowed (1 comparison)"
    )


def test_every_network_and_check_can_be_opened() -> None:
    made = Page(
        page.render(document(network("resnet20", 3), network("wrn_16_1", 3), *standalone()))
    )
    assert [
        given["data-name"]
        for tag, given in made.starts
        if tag == "details" and "data-name" in given
    ] == ["resnet20", "wrn_16_1"]
    for check in CHECKS.keys() - NETWORK_CHECKS.keys():
        assert made.cells[f"Share of the budget: {check}"][-1] == ["maps", "✓", "exact"]
    sources = {given["data-source"] for _, given in made.starts if "data-source" in given}
    assert sources == made.data.keys()
    assert len(sources) == 2 + len(CHECKS.keys() - NETWORK_CHECKS.keys())


def test_the_data_are_those_of_the_document() -> None:
    report = network("resnet20", 5, layer1_1_conv1=5e-9)
    data = Page(page.render(document(report))).data["network-0-data"]
    groups = data["groups"]
    assert [(group["check"], group["dtype"], group["mode"]) for group in groups] == [
        (check, dtype, mode) for check in NETWORK_CHECKS for dtype in DTYPES for mode in MODES
    ]
    group = next(group for group in groups if group["check"] == "layers")
    layers = ["layer0.0", "layer1.1", "layer2.2", "layer3.3", "layer0.4"]
    assert data["layers"][group["layers"]] == [f"{layer}.conv1" for layer in layers]
    assert group["errors"] == [3.21e-13, 5e-9, 9.63e-13, 1.28e-12, 1.6e-12]
    assert (group["budgets"], group["own"], group["measures"]) == (1e-10, None, "n")
    assert group["out"] == [1]


def test_drift_is_shown_with_its_network_or_by_itself() -> None:
    drift = [
        {"network": name, "step": step, "side": side, "distance": 1e-7 * step, "loss": 2.0}
        for name in ("resnet20", "wrn_16_1")
        for step in (1, 2)
        for side in ("Flax float32", "PyTorch float32")
    ]
    made = Page(page.render(document(network("resnet20", 3), drift=drift)))
    run = {"step": [1, 2], "loss": [2, 2], "distance": [1e-7, 2e-7]}
    for name in ("network-0-data", "network-1-data"):
        assert made.data[name]["drift"] == {"Flax float32": run, "PyTorch float32": run}
    assert made.data["network-1-data"]["groups"] == []
    with pytest.raises(DocumentError, match="a record of 'drift' is not whole"):
        page.render(document(network("resnet20", 3), drift=[{"network": "resnet20", "step": 1}]))


def test_mutants_exceptions_and_what_was_not_compared_have_tables() -> None:
    mutant = {
        "name": "epsilon",
        "expected": "bn1",
        "caught": True,
        "located": False,
        "seconds": 1.25,
    }
    made = Page(
        page.render(
            document(
                network("resnet20", 3),
                mutants=[mutant],
                exceptions=[{"network": "wrn", "reason": "rounding alone"}],
                not_compared=[{"name": "resnet1202", "reason": "no memory"}],
            )
        )
    )
    assert made.cells["What was planted, what was to be found, and what was found"] == [
        ["name", "expected", "caught", "located", "seconds"],
        ["epsilon", "bn1", "✓ yes", "✗ no", "1.25"],
    ]
    assert made.cells["What is not held to its budget, and why"][1] == ["wrn", "rounding alone"]
    assert made.cells["What could not be compared, and why"][1] == ["resnet1202", "no memory"]
    assert "✗ NOT COMPLETE" in made.text


def test_the_run_is_described() -> None:
    made = Page(page.render(document(network("resnet20", 3), seconds=3725.04)))
    assert made.cells["Run"] == [
        ["command", "python -m parity --all"],
        ["seed", "7"],
        ["seconds", "3,725.0 (1:02:05 h)"],
    ]
    assert made.cells["Versions"] == [["jax", "1.2.3"]]


def test_all_text_is_escaped() -> None:
    report = NetworkReport(
        EVIL,
        (
            Comparison(EVIL, "layers", EVIL, EVIL, EVIL, 1.0, 0.0, note=EVIL),
            Comparison(EVIL, EVIL, "", "", EVIL, 1.0, 0.0),
        ),
        1.0,
    )
    records = [{"network": EVIL, EVIL: EVIL, "step": 1, "side": EVIL, "distance": 0, "loss": 1}]
    lists = dict.fromkeys(LISTS, records)
    plain = Page(page.render(document(network("net", 3), **lists)))
    text = page.render(document(report, **lists, **{EVIL: EVIL, "versions": {EVIL: EVIL}}))
    made = Page(text)
    assert {tag for tag, _ in made.starts} <= {tag for tag, _ in plain.starts} | {
        "li",
        "strong",
        "ul",
    }
    assert all(not name.startswith("on") for _, given in made.starts for name in given)
    scripts = [given for tag, given in made.starts if tag == "script"]
    # One for the network, one for the standalone check, and the page's own.
    assert scripts == [
        {"type": "application/json", "id": "network-0-data"},
        {"type": "application/json", "id": "check-0-data"},
        {},
    ]
    assert text.count("<script") == text.count("</script") == 3
    assert "<!--" not in text
    assert made.data["network-0-data"]["layers"] == [[EVIL]]
    assert made.data["network-0-data"]["drift"].keys() == {EVIL}
    assert EVIL in made.text


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page.render(document(network("resnet20", 3), *standalone()))
    made = Page(text)
    addresses = [
        given[name]
        for _, given in made.starts
        for name in ("src", "href", "srcset", "action", "data", "poster")
        if given.get(name)
    ]
    assert addresses
    anchors = {f"#{given['id']}" for _, given in made.starts if "id" in given}
    assert set(addresses) - anchors == {"data:,"}
    assert re.findall(r"https?:|url\(|@import|\bimport\b|\bfetch\b|XMLHttpRequest", text) == []
    (policy,) = [given["content"] for _, given in made.starts if "http-equiv" in given]
    assert str(policy).startswith("default-src 'none';")


def test_a_page_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    page.write_html(document(network("resnet20", 3)), path)
    before = path.read_text(encoding="utf-8")
    assert before.startswith("<!DOCTYPE html>")
    assert before.rstrip().endswith("</html>")
    with pytest.raises(DocumentError):
        page.write_html({"networks": []}, path)
    # A surrogate can't be encoded: the file fails in the middle.
    monkeypatch.setattr(page, "render", lambda _: "x" * 100_000 + "\udc80")
    with pytest.raises(UnicodeEncodeError):
        page.write_html({}, path)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    result, report = tmp_path / "result.json", tmp_path / "report.html"
    result.write_text(json.dumps(document(network("resnet20", 3))))
    assert page.main([str(result), str(report)]) == 0
    assert "✓ EQUAL" in Page(report.read_text(encoding="utf-8")).text
    assert capsys.readouterr() == ("", "")

    result.write_text("{}")
    assert page.main([str(result), str(report)]) == 2
    assert capsys.readouterr().err.startswith("parity.html: there is no list 'networks' in it;")
    assert page.main([str(tmp_path / "none.json"), str(report)]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    result.write_text(json.dumps(document()))
    assert page.main([str(result), str(tmp_path / "folder" / "report.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def large_document() -> Mapping[str, Any]:
    """170 networks with 150,000 comparisons, one of them with 1,000 layers."""
    reports = [network(f"densenet_bc_{index}_12", 40) for index in range(169)]
    return document(*reports, network("resnet1202", 1000), *standalone())


def test_a_large_document_makes_a_page_of_moderate_size(tmp_path: Path) -> None:
    large = large_document()
    assert len(large["comparisons"]) > 150_000
    started = time.perf_counter()
    page.write_html(large, tmp_path / "report.html")
    assert time.perf_counter() - started < 20
    assert (tmp_path / "report.html").stat().st_size < 5e6
    assert len(parse(large).networks) == 170
