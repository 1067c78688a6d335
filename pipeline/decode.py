"""Raw records to events. What is no event becomes a `Reject`, a value; nothing here raises on bad input.

Most records are read all at once (`scan.py`). What that leaves, and what may hold a secret, is judged one by one:
size before JSON is parsed, then shape and limits (msgspec), then secrets, then whose event it is. What can't be
decoded, or may hold a secret, goes without its payload. Between bad records the good ones are still read at once: a
flood slows them little (tests/bench/rejects.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from pipeline import fields, secrets
from pipeline.core import Reject, Slice
from pipeline.fields import Events, Fields
from pipeline.records import flat
from pipeline.scan import MOST_MEMBERS, scan
from schemas.event import MAX_EVENT_BYTES, Event

Array = np.ndarray[Any, Any]

CLOCK_SKEW_US = 5 * 60 * 1_000_000
"""An event this far ahead of its record's timestamp is refused (reference/response.md, section 7)."""

_decode: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode
_NO_EVENT: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes that are no event."""


@dataclass(slots=True)
class Decoded:
    """The events of a slice, `at[i]` being the index of event i's record; and what was refused."""

    told: Fields
    at: Array
    rejects: list[Reject] = field(default_factory=list)

    @property
    def events(self) -> Events:
        """The events, each made when it is asked for."""
        return Events(self.told)


def decode(batch: Slice) -> Decoded:
    """All records of a slice; ticks are passed over."""
    told, good = _scanned(batch)
    at = np.flatnonzero(good)
    mine = told if len(at) == len(told) else told.take(at)
    foul = secrets.unclean(mine)
    if len(foul):
        good[at[foul]] = False
        mine, at = mine.take(np.flatnonzero(good[at])), np.flatnonzero(good)
    return Decoded(mine, at) if len(at) == len(told) else _judged(batch, mine, at, good)


def _scanned(batch: Slice) -> tuple[Fields, Array]:
    """(all records, which of them `scan` could read); the rows of the others say nothing.

    Ticks and what is too large to be parsed are not even looked at.
    """
    values, keys = flat(batch.values), flat(batch.keys)
    told = fields.empty(values.data, len(values))
    sizes = np.where(values.lengths <= MAX_EVENT_BYTES, np.maximum(values.lengths, 0), 0)
    sizes[list(batch.ticks)] = 0
    records_us = np.asarray(batch.timestamps_ms, np.int64) * 1000
    latest_us = np.where(records_us < 0, np.iinfo(np.int64).max, records_us + CLOCK_SKEW_US)
    good = np.zeros(len(values), np.bool_)
    scan(
        values.data, values.starts, values.starts + sizes, keys.data, keys.starts, keys.lengths, latest_us,
        told.starts, told.lengths, told.whole, told.latency_ms, good, np.zeros(MOST_MEMBERS, np.int64),
    )  # fmt: skip
    return told, good


def _judged(batch: Slice, told: Fields, at: Array, good: Array) -> Decoded:
    """Events and rejects in the order of the records; what is not good is looked at one by one.

    told: the good ones, with the tables of texts that `unclean` has made: to make them anew cost the good events more
    than the rejects.
    """
    places, events, rejects = [], [], []
    for place in np.flatnonzero(~good).tolist():
        if place in batch.ticks:
            continue
        judged = _judge(batch, place)
        if isinstance(judged, Event):
            places.append(place)
            events.append(judged)
        else:
            rejects.append(judged)
    if not events:
        return Decoded(told, at, rejects)
    kept = np.concatenate([at, places])
    order = np.argsort(kept)
    return Decoded(told.joined(fields.fields_of(events), order), kept[order], rejects)


def _judge(batch: Slice, at: int) -> Event | Reject:
    """One record, by all rules."""
    value = batch.values[at]
    try:
        if len(value or b"") > MAX_EVENT_BYTES:
            return reject(batch, at, *_too_large(value or b""))
        event = _decode(value)  # type: ignore[arg-type]
    except (*_NO_EVENT, TypeError) as error:
        return reject(batch, at, *_no_event(value, error))
    scrubbed = secrets.scrub(event)  # a query goes; a secret in a path, agent or id is blanked
    if isinstance(scrubbed, str):
        return reject(batch, at, scrubbed, "the key_id looks like a key's secret: send the public id")
    refused = _refuse(scrubbed, batch.keys[at], batch.timestamps_ms[at])
    return scrubbed if refused is None else reject(batch, at, *refused, event if scrubbed is event else None)


def _too_large(value: bytes) -> tuple[str, str]:
    return "too_large", f"{len(value)} bytes where {MAX_EVENT_BYTES} are the limit"


def _no_event(value: bytes | None, error: Exception) -> tuple[str, str]:
    """(reason, what was wrong in words that quote nothing of the payload)"""
    if value is None:
        return "undecodable", "the record has no value"
    if isinstance(error, msgspec.ValidationError):
        return "invalid", _without_values(str(error))
    return "undecodable", "not JSON in UTF-8"


def _refuse(event: Event, key: bytes | None, timestamp_ms: int) -> tuple[str, str] | None:
    if key is None:
        return "unkeyed", "the record has no key: feed it through `keywatch intake`"
    if event.key_id.encode() != key:
        return "key_mismatch", "the record's key is not the event's key_id"
    if timestamp_ms >= 0 and event.ts_us > timestamp_ms * 1000 + CLOCK_SKEW_US:
        return "future", "the event's time lies more than 5 min after the record's"
    return None


def _without_values(text: str) -> str:
    """msgspec's message names the field and the rule; for enums and literals it quotes the value: cut there."""
    return text.split(", got")[0].split("Invalid enum value")[0][:200] or "not valid"


def reject(batch: Slice, at: int, reason: str, detail: str, event: Event | None = None) -> Reject:
    """The record as a refused one; `detail` quotes nothing of it. `event`: what it says, where that is clean.

    The payload is that event written anew and nothing else of the record, whose other fields may hold anything.
    """
    value = batch.values[at] or b""
    return Reject(
        reason=reason, partition=batch.partition, offset=batch.offsets[at], detail=detail, size_bytes=len(value),
        payload_hash=secrets.keyed_hash(value), payload=None if event is None else _payload(event),
    )  # fmt: skip


def _payload(event: Event) -> bytes | None:
    """`position` is judged here only: no row or message of ours shows it."""
    return None if secrets.looks_secret(event.position) else _encode(event)
