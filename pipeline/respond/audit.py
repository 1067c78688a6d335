"""The audit: one line per decision and per stage of an act on `api.responses`, and its copy in ClickHouse.

The topic is the truth. The table is loaded from it by position, (partition, offset), so that what ClickHouse misses
while it is away comes later, and twice is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pipeline.column import Columns
from schemas.response import Response
from schemas.rows import RESPONSES


@dataclass(frozen=True, slots=True)
class Positioned:
    """One record of a topic."""

    partition: int
    offset: int
    timestamp_us: int
    key: bytes | None
    value: bytes | None


_COPIED: Final = ("response_id", "incident_id", "revision", "key_id", "stage", "verdict", "rung", "reason")


def rows(records: Sequence[Positioned]) -> Columns:
    """The table `responses` for these records, times in microseconds; what is no response is left out."""
    lines = [(record, line) for record in records if (line := decode(record.value))]
    columns: dict[str, list[Any]] = {name: [] for name, _ in RESPONSES}
    for record, line in lines:
        for name in _COPIED:
            columns[name].append(getattr(line, name))
        columns["at"].append(int(datetime.fromisoformat(line.at).timestamp() * 1e6))
        columns["body"].append((record.value or b"").decode())
        columns["partition"].append(record.partition)
        columns["offset"].append(record.offset)
    return columns


def decode(value: bytes | None) -> Response | None:
    """The response, or None for what is none."""
    try:
        return _decoder.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_decoder: Final = msgspec.json.Decoder(Response)


def rfc3339(seconds: float) -> str:
    """2026-11-24T02:00:00.000000Z from Unix time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
