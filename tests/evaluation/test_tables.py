"""The tables of figures.md come from a run's JSON and say what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation import aims, keybench
from tests.evaluation import tables
from tests.evaluation.test_keybench import small


def found() -> dict[str, Any]:
    """A small run as its JSON has it."""
    read: dict[str, Any] = json.loads(json.dumps(keybench._plain(small()[0])))
    return read


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the others."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.724, 2, ".72"), (0.001, 2, "0"), (1.0, 2, "1.00"), (-0.05, 2, "-.05"), (1234.5, 0, "1,234"), (None, 2, "-"),
     (10.5, 1, "10.5")],
)  # fmt: skip
def test_figures_are_written_as_in_the_document(value: float | None, digits: int, text: str) -> None:
    assert tables.plain(value, digits) == text


def test_every_table_has_a_row_for_whatever_the_run_has() -> None:
    run = found()
    assert set(map(tables.words, run["recall"])) < set(rows(tables.recall(run)))
    assert set(map(tables.words, run["innocent_rate"])) < set(rows(tables.innocents(run)))
    assert set(map(tables.words, run["baselines"])) < set(rows(tables.baselines(run)))
    macro = rows(tables.recall(run))["**macro**"]
    assert macro[1] == tables.ranged(run["intervals"]["macro_recall"]) == rows(tables.headline(run))[
        "macro recall at the listed budget, 40 bits"
    ][0]  # fmt: skip
    assert rows(tables.budgets(run))["100"] == [tables.ranged(run["untouched_at"]["100"], 0)]


def test_all_parts_are_printed_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keybench.json"
    file.write_text(json.dumps(found()))
    monkeypatch.setattr(sys, "argv", ["tables", str(file)])
    tables.main()
    printed = capsys.readouterr().out
    assert all(f"**{name}**" in printed for name in tables.PARTS)
    assert "None" not in printed
    monkeypatch.setattr(sys, "argv", ["tables", str(file), "twins"])
    tables.main()
    assert capsys.readouterr().out.count("**") == 2


def test_an_easy_attack_is_held_to_its_lower_bound_and_a_hard_one_to_its_figure() -> None:
    run, declared = found(), small()[1]
    run["intervals"]["recall"]["bulk_read"] = {"mean": 1.0, "low": 0.97, "high": 1.0}
    run["intervals"]["recall"]["leaked_vpn_home"] = {"mean": 0.5, "low": 0.2, "high": 0.8}
    run["acted_on_innocent"] = {"deploy": 1}
    run["untouched_at"]["100"] = {"mean": 201.0, "low": 150.0, "high": 260.0}
    told = {each["aim"]: each["met"] for each in aims.of(run, declared)}
    assert not told["bulk_read"]
    assert told["leaked_vpn_home"]
    assert not told["innocent: acted on"]
    assert not told["incidents per 100,000 key-days, listed"]
