"""Webhooks that could not be delivered yet, as `api.decisions` tells of them: they outlive the process.

A delivery goes on that topic only once its first attempt has failed (or its endpoint takes none just now), with its
body; each further attempt adds a small record, the last one settles it. So the incident's own offset can be committed
as soon as every endpoint has either taken its message or handed it over here, a dead endpoint stalls nothing, and a
restart goes on with the schedule where it was. Who owns the incident's partition retries its deliveries. The
schedule's span (75 h) must fit into the topic's retention (7 days, `broker.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.respond.ledger import HandedOver, Record, Settled


@dataclass(slots=True)
class Outbox:
    """All pending deliveries of all partitions: (endpoint, message id) -> the newest record, with its body."""

    pending: dict[tuple[str, str], HandedOver] = field(default_factory=dict)

    def apply(self, record: Record | None) -> None:
        """Take the next record of the topic, in order."""
        if isinstance(record, HandedOver):
            before = self.pending.get((record.endpoint, record.message_id))
            body = record.body or (before.body if before else "")
            if body:  # an update whose first record retention has removed is nothing that could be sent
                self.pending[record.endpoint, record.message_id] = _with_body(record, body)
        elif isinstance(record, Settled):
            self.pending.pop((record.endpoint, record.message_id), None)

    def of(self, partitions: Iterable[int]) -> list[HandedOver]:
        """What is pending for incidents of these partitions, the earliest due first."""
        wanted = set(partitions)
        return sorted((each for each in self.pending.values() if each.partition in wanted), key=lambda e: e.next_at_us)


def _with_body(record: HandedOver, body: str) -> HandedOver:
    return HandedOver(
        message_id=record.message_id, endpoint=record.endpoint, partition=record.partition,
        attempts=record.attempts, next_at_us=record.next_at_us, body=body,
    )  # fmt: skip
