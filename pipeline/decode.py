"""Raw records to events. What is no event becomes a `Reject`, a value; nothing here raises on bad input.

Order of the checks: size before JSON is parsed, then shape and limits (msgspec), then secrets, then whose event it is.
What can't be decoded, or may hold a secret, goes without its payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
import numpy as np

from pipeline import secrets
from pipeline.batch import Fields, fields_of
from pipeline.core import Reject, Slice
from schemas.event import MAX_EVENT_BYTES, Event

CLOCK_SKEW_US = 5 * 60 * 1_000_000
"""An event this far ahead of its record's timestamp is refused (reference/response.md, section 7)."""

_decode: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


class Unproven(Event, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An event of a slice whose key ids are judged all at once: one by one their pattern is 40 % of decoding."""

    key_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


_decode_unproven: Callable[[bytes], Event] = msgspec.json.Decoder(Unproven).decode
_encode = msgspec.json.Encoder().encode
_KEY_IDS: Final = re.compile(r"[\x21-\x7e\n]*")
_KEY_ID: Final = re.compile(r"[\x21-\x7e]+")
_NO_EVENT: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes that are no event."""


@dataclass(slots=True)
class Decoded:
    """The events of a slice, `at[i]` being the index of event i's record; and what was refused."""

    events: list[Event]
    at: list[int]
    rejects: list[Reject] = field(default_factory=list)
    columns: Fields | None = None

    def fields(self) -> Fields:
        """The events by column."""
        if self.columns is None or len(self.columns.key_id) != len(self.events):
            self.columns = fields_of(self.events)
        return self.columns


def decode(batch: Slice) -> Decoded:
    """All records of a slice; ticks are passed over. The common case, all good, is three passes without branches.

    Between bad records the good ones are still judged all at once: a flood slows them little (tests/bench/rejects.py).
    """
    events: list[Event] = []
    faults: dict[int, tuple[str, str]] = {}
    records = iter(_in_bounds(batch))
    while True:
        try:
            events.extend(map(_decode_unproven, records))  # raising, it keeps what it has and its place
            break
        except (*_NO_EVENT, TypeError) as error:
            at = len(events) + len(faults)
            faults[at] = _no_event(batch.values[at], error)
    if not faults and _all_good(batch, told := fields_of(events)):
        return Decoded(events, list(range(len(events))), columns=told)
    return _judged(batch, events, [i for i in range(len(batch.values)) if i not in faults], faults)


def _in_bounds(batch: Slice) -> Sequence[bytes]:
    """The values; None for ticks and for what is too large to be parsed, which then is no event."""
    values = batch.values
    largest = max((len(value) for value in values if value is not None), default=0)
    if largest > MAX_EVENT_BYTES or batch.ticks:
        ticks = batch.ticks
        values = [None if i in ticks or len(v or b"") > MAX_EVENT_BYTES else v for i, v in enumerate(values)]
    return values  # type: ignore[return-value]


def _all_good(batch: Slice, told: Fields) -> bool:
    return (
        _keys_match(told.key_id, batch.keys)
        and _none_ahead(batch, told.ts_us)
        and secrets.all_clean(
            told.key_id, [*told.path, *set(told.route)],
            {*told.user_agent, *told.scope, *told.source}, told.request_id, told.client_ip,
        )
    )  # fmt: skip


def _keys_match(key_ids: Sequence[str], keys: Sequence[bytes | None]) -> bool:
    """Every key id is ASCII without blanks and its record's key. One with a line feed makes a line too many."""
    lines = "\n".join(key_ids)
    proven = _KEY_IDS.fullmatch(lines) is not None and lines.count("\n") == max(0, len(key_ids) - 1)
    return proven and None not in keys and lines.encode() == b"\n".join(keys)  # type: ignore[arg-type]


def _none_ahead(batch: Slice, times_us: Sequence[int]) -> bool:
    records_us = np.asarray(batch.timestamps_ms, np.int64) * 1000
    return bool(np.all((records_us < 0) | (np.asarray(times_us, np.int64) <= records_us + CLOCK_SKEW_US)))


def _judged(batch: Slice, events: list[Event], at: list[int], faults: dict[int, tuple[str, str]]) -> Decoded:
    """Events and rejects in the order of the records; only doubtful events are looked at one by one."""
    refused = {i: reject(batch, i, *fault) for i, fault in faults.items() if i not in batch.ticks}
    for n in sorted(_doubtful(batch, events, at), reverse=True):
        judged = _judge(batch, at[n])
        if isinstance(judged, Event):
            events[n] = judged
        else:
            refused[at[n]] = judged
            del events[n], at[n]
    return Decoded(events, at, [refused[i] for i in sorted(refused)])


def _doubtful(batch: Slice, events: Sequence[Event], at: Sequence[int]) -> set[int]:
    """Indices of the events that may have to be refused or scrubbed."""
    key_ids, keys, positions = [e.key_id for e in events], [batch.keys[i] for i in at], np.asarray(at, np.int64)
    records_us = np.asarray(batch.timestamps_ms, np.int64)[positions] * 1000
    times_us = np.array([e.ts_us for e in events], np.int64)
    found = set(np.flatnonzero((records_us >= 0) & (times_us > records_us + CLOCK_SKEW_US)).tolist())
    if not _keys_match(key_ids, keys):
        pairs = enumerate(zip(key_ids, keys, strict=True))
        found.update(n for n, (name, key) in pairs if name.encode() != key or _KEY_ID.fullmatch(name) is None)
    return found.union(secrets.unclean(events))


def _judge(batch: Slice, at: int) -> Event | Reject:
    """One record that can be decoded but for its key id's pattern."""
    value = batch.values[at]
    try:
        event = _decode(value)  # type: ignore[arg-type]
    except _NO_EVENT as error:
        return reject(batch, at, *_no_event(value, error))
    scrubbed = secrets.scrub(event)  # a query goes; a secret in a path, agent or id is blanked
    if isinstance(scrubbed, str):
        return reject(batch, at, scrubbed, "the key_id looks like a key's secret: send the public id")
    refused = _refuse(scrubbed, batch.keys[at], batch.timestamps_ms[at])
    return scrubbed if refused is None else reject(batch, at, *refused, event if scrubbed is event else None)


def _no_event(value: bytes | None, error: Exception) -> tuple[str, str]:
    """(reason, what was wrong in words that quote nothing of the payload)"""
    if value is None:
        return "undecodable", "the record has no value"
    if len(value) > MAX_EVENT_BYTES:
        return "too_large", f"{len(value)} bytes where {MAX_EVENT_BYTES} are the limit"
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
