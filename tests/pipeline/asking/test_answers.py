"""Tables on the terminal: what is too wide is told in lines, and nothing is cut off."""

from __future__ import annotations

from typing import Final

import pytest

from pipeline.asking.answers import Shown, show_table

KEY: Final = "key_of_a_customer_with_a_long_name"
IDENT: Final = "6b7979e9a512f6cd20b246f330d145eb"
ROWS: Final = [{"id": IDENT, "key": KEY, "why": "some-words " * 9}, {"id": "7c", "key": "", "why": ""}]
COLUMNS: Final[tuple[Shown, ...]] = (
    ("id", lambda row: row["id"], "left"), ("key", lambda row: row["key"], "left"),
    ("why", lambda row: row["why"], "left"),
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
@pytest.mark.parametrize("folds", [0, 2])
def test_nothing_is_cut_off_whatever_the_width(
    width: int, folds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show_table("what there is", ROWS, COLUMNS, folds)
    told = capsys.readouterr().out
    assert IDENT in told and KEY in told and told.count("some-words") == 9
    assert max(map(len, told.splitlines())) <= width


def test_where_it_fits_it_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show_table("what there is", ROWS, COLUMNS, 2)
    assert capsys.readouterr().out.splitlines()[1].split() == ["id", "key", "why"]
