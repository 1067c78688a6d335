"""The things the core's surroundings need from the outside. Fake and real pass the same contract suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.column import Columns

__all__ = ["BulkPublisher", "Columns", "Headers", "Outgoing", "PageLog", "Publisher", "RowSink"]

Headers = Sequence[tuple[str, bytes]]
Outgoing = tuple[bytes, bytes, Headers]
"""Key, value and headers of a record; its partition is the key's."""


class RowSink(Protocol):
    """Where rows go (ClickHouse). Rows are full values: writing them twice is harmless."""

    async def write(self, table: str, rows: Columns) -> None:
        """Write and await the acknowledgement; columns as in `schemas/rows.py`. Raises `Retry`: send the same again."""

    async def close(self) -> None:
        """Release connections."""


class Publisher(Protocol):
    """Where incidents, rejects and responses go (Kafka)."""

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Send and await the acknowledgement (acks=all); returns the offset. Raises `Retry`."""


class BulkPublisher(Publisher, Protocol):
    """What a slice brings about goes out together."""

    async def publish_all(self, topic: str, records: Sequence[Outgoing]) -> None:
        """As `publish` for each, in order within a partition, all acknowledged. Raises `Retry`: send all of them again.

        Then some may have come through, and come twice.
        """


class PageLog(Protocol):
    """The changelog of state pages of one topic, co-partitioned with the requests."""

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        """Send one page (None is a tombstone), await the acknowledgement, return its offset. Raises `Fatal`."""

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        """As `send` for each, in order; returns the offset of the last one, -1 of none."""
