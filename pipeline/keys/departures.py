"""Whose owner has departed: the newest `owner_departed` of each key on `api.key_events`, as far as the broker keeps it.

A record that can't be read is passed over: the worker of `--topology lifecycle` tells of those.
"""

from __future__ import annotations

import msgspec

from pipeline.config.tree import Config
from pipeline.control.side_topic import Brokers, Source, Tail
from schemas.key_event import KeyEvent

DEPARTED = b"owner_departed"


async def read_departures(config: Config, source: Source | None = None) -> dict[str, KeyEvent]:
    """Key id -> the event; {} where there is no such topic. Raises Fatal where the broker does not answer."""
    tail = Tail(config.topics.key_events, source or Brokers(config.kafka, config.topics.key_events))
    try:
        await tail.open()
        return departures([record.value or b"" for record in await tail.news()])
    finally:
        await tail.close()


def departures(values: list[bytes]) -> dict[str, KeyEvent]:
    """Pure. A key that was made anew, or whose owner came later, is the catalogue's to tell."""
    found: dict[str, KeyEvent] = {}
    decoder = msgspec.json.Decoder(KeyEvent)
    for value in values:
        if DEPARTED not in value:  # most are uses: not worth decoding
            continue
        try:
            event = decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        if event.kind == "owner_departed" and event.ts_us >= (
            found[event.key_id].ts_us if event.key_id in found else 0
        ):
            found[event.key_id] = event
    return found
