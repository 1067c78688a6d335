"""CSV on stdout that a spreadsheet opens without running anything in it.

User agents, paths and key names come from whoever calls the API. A cell that begins with one of `STARTS` is a formula
to Excel, LibreOffice and Google Sheets (`=HYPERLINK(...)` sends the sheet's contents away at a click), quoted or not;
with an apostrophe before it, it is text: https://owasp.org/www-community/attacks/CSV_Injection. Numbers stay numbers.
Python's csv writes a carriage return unquoted where lines end with a newline, so it could begin a row: it is a newline.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

STARTS: Final = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""The last four are full-width: Excel in Japanese and Chinese takes them for the same."""
_PLAIN: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|-", re.ASCII)
"""A number, or the dash that stands for nothing."""
_SPLIT: Final = re.compile("([;\t]\\s*+)([=+@\uff1d\uff0b\uff0d\uff20-])?")
"""Where Excel of a country with decimal commas, or an import by tabs, would begin another cell; a formula: group 2."""


def write(names: Sequence[str], rows: Iterable[Mapping[str, Any]], end: str = "\n") -> None:
    """A head and a line for each row; fields without a column are left out."""
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator=end)
    writer.writeheader()
    writer.writerows({name: text(value) for name, value in row.items()} for row in rows)


def text(value: Any) -> Any:
    """The cell as it is written."""
    if not isinstance(value, str):
        return value
    formula = value.startswith(tuple(STARTS)) and not _PLAIN.fullmatch(value)
    return ("'" if formula else "") + _SPLIT.sub(_disarmed, value.replace("\r\n", "\n").replace("\r", "\n"))


def _disarmed(cell: re.Match[str]) -> str:
    return f"{cell[1]}'{cell[2]}" if cell[2] else cell[1]
