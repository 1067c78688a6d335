"""`-o table|json|csv` of commands that list: CSV is the rows of the JSON, so whatever has JSON has CSV.

A field is a column; times in microseconds become RFC 3339 under the same name, lists are separated by blanks, what is
deeper stays JSON. Rows may have different fields: the columns are all of them, in the order of their first row.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipeline.asking import spreadsheet
from pipeline.cli.options import one_of

Row = dict[str, Any]


def listed(output: str, as_json: bool, run: Callable[[bool], int | None], rows: str = "") -> int:
    """Run a command that prints a table, or JSON where it is told so; `rows`: under which name its JSON has them.

    Returns the command's exit code. Raises ConfigError for an output that there isn't.
    """
    wanted = "json" if as_json else one_of(output, "table", "json", "csv")
    if wanted != "csv":
        return run(wanted == "json") or 0
    code, text = _captured(run)
    if text.strip():
        found = json.loads(text)
        write_csv(found[rows] if rows else found)
    return code


def _captured(run: Callable[[bool], int | None]) -> tuple[int, str]:
    """Exit code, and what it printed as JSON."""
    kept = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(kept):
        code = run(True) or 0
    kept.seek(0)
    return code, kept.read()


def write_csv(rows: list[Row]) -> None:
    """Rows on stdout; nothing at all where there are none."""
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        spreadsheet.write(columns, ({name: _cell(name, value) for name, value in row.items()} for row in rows))


def _cell(name: str, value: Any) -> Any:
    if name.endswith("_us") and isinstance(value, int):
        return datetime.fromtimestamp(value / 1e6, UTC).isoformat().replace("+00:00", "Z") if value else ""
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return " ".join(map(str, value))
    return json.dumps(value) if isinstance(value, list | dict) else value
