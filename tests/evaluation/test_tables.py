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
    told = rows(tables.headline(run))
    assert macro[1] == tables.ranged(run["intervals"]["macro_recall"]) == told[
        "macro recall at the listed budget, of all placements, 40 bits wanted"
    ][0]  # fmt: skip
    assert set(map(tables.words, run["recall"])) < set(rows(tables.reached(run)))
    strong = [cells[0] for name, cells in told.items() if "placements that reach 40 bits (too few of" in name]
    assert strong == [rows(tables.reached(run))["**macro**"][2]]
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
    assert not told["bulk_read, of all placements"]
    assert told["leaked_vpn_home, of all placements"]
    assert not told["innocent: acted on"]
    assert not told["incidents per 100,000 key-days, listed"]


def test_an_aim_of_attacks_is_held_of_all_placements_and_of_those_that_reach_the_strength_where_there_are_enough() -> (
    None
):
    run, declared = found(), small()[1]
    run["intervals"]["recall"]["bulk_read"] = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 60}
    strong = run["recall_of_reached"]["40"]
    strong["macro"] = {"mean": 0.9, "low": 0.8, "high": 1.0}
    strong["recall"]["bulk_read"] = {"mean": 1.0, "low": 0.99, "high": 1.0, "n": 40, "of": 60}
    strong["recall"]["leaked_vpn_home"] = {"mean": 1.0, "low": 0.4, "high": 1.0, "n": 9, "of": 60}
    told = {each["aim"]: each for each in aims.of(run, declared)}
    assert [told[f"bulk_read, of {which}"]["met"] for which in ("all placements", "placements that reach 40 bits")] == [
        False, True,
    ]  # fmt: skip
    assert told["bulk_read, of placements that reach 40 bits"]["placements"] == "40 of 60"
    assert "placements" not in told["bulk_read, of all placements"]
    assert not told["leaked_vpn_home, of placements that reach 40 bits"]["met"]
    assert told["macro recall, of placements that reach 40 bits"]["met"]
    assert told["macro recall, of all placements"]["mean"] == run["macro_recall"]
    assert len(told) == len(aims.of(run, declared)), "no two aims have one name"
