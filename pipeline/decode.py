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
from pipeline.core import Reject, Slice
from schemas.event import MAX_EVENT_BYTES, Event

CLOCK_SKEW_US = 5 * 60 * 1_000_000
"""An event this far ahead of its record's timestamp is refused (reference/response.md, section 7)."""

_decode: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode


class Unproven(Event, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An event of a slice whose key ids are judged all at once: one by one their pattern is 40 % of decoding."""

    key_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


_decode_unproven: Callable[[bytes], Event] = msgspec.json.Decoder(Unproven).decode
_KEY_IDS: Final = re.compile(r"[\x21-\x7e\n]*")


@dataclass(slots=True)
class Decoded:
    """The events of a slice, `at[i]` being the index of event i's record; and what was refused."""

    events: list[Event]
    at: list[int]
    rejects: list[Reject] = field(default_factory=list)


def decode(batch: Slice) -> Decoded:
    """All records of a slice; ticks are passed over. The common case, all good, is three passes without branches."""
    values = batch.values
    if not batch.ticks:
        try:
            small = max(map(len, values), default=0) <= MAX_EVENT_BYTES  # type: ignore[arg-type]
            events = [_decode_unproven(value) for value in values] if small else []  # type: ignore[arg-type]
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, ValueError, RecursionError):
            return _one_by_one(batch)
        if small and _all_good(batch, events):
            return Decoded(events, list(range(len(events))))
    return _one_by_one(batch)


def _all_good(batch: Slice, events: Sequence[Event]) -> bool:
    key_ids = [e.key_id for e in events]
    return (
        _keys_match(key_ids, batch.keys)
        and _none_ahead(batch, events)
        and secrets.all_clean(
            key_ids,
            [*[e.path for e in events], *{e.route for e in events}],
            {*[e.user_agent for e in events], *[e.scope for e in events]},
            [e.request_id for e in events],
            [e.client_ip for e in events],
        )
    )


def _keys_match(key_ids: Sequence[str], keys: Sequence[bytes | None]) -> bool:
    """Every key id is ASCII without blanks and its record's key. One with a line feed makes a line too many."""
    lines = "\n".join(key_ids)
    proven = _KEY_IDS.fullmatch(lines) is not None and lines.count("\n") == max(0, len(key_ids) - 1)
    return proven and None not in keys and lines.encode() == b"\n".join(keys)  # type: ignore[arg-type]


def _none_ahead(batch: Slice, events: Sequence[Event]) -> bool:
    records_us = np.asarray(batch.timestamps_ms, np.int64) * 1000
    times_us = np.array([e.ts_us for e in events], np.int64)
    return bool(np.all((records_us < 0) | (times_us <= records_us + CLOCK_SKEW_US)))


def _one_by_one(batch: Slice) -> Decoded:
    out = Decoded([], [])
    for at, value in enumerate(batch.values):
        if at in batch.ticks:
            continue
        judged = _judge(value, batch.keys[at], batch.timestamps_ms[at])
        if isinstance(judged, Event):
            out.events.append(judged)
            out.at.append(at)
        else:
            out.rejects.append(reject(batch, at, *judged))
    return out


def _judge(value: bytes | None, key: bytes | None, timestamp_ms: int) -> Event | tuple[str, str]:
    """The event, or (reason, what was wrong in words that quote nothing of the payload)."""
    if value is None:
        return "undecodable", "the record has no value"
    if len(value) > MAX_EVENT_BYTES:
        return "too_large", f"{len(value)} bytes where {MAX_EVENT_BYTES} are the limit"
    try:
        event = _decode(value)
    except msgspec.ValidationError as error:
        return "invalid", _without_values(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return "undecodable", "not JSON in UTF-8"
    scrubbed = secrets.scrub(event)  # a query goes; a secret in a path, agent or id is blanked
    if isinstance(scrubbed, str):
        return scrubbed, "the key_id looks like a key's secret: send the public id"
    return _refuse(scrubbed, key, timestamp_ms) or scrubbed


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


_PAYLOAD_IS_SAFE = frozenset({"key_mismatch", "future", "unkeyed", "wrong_partition"})


def reject(batch: Slice, at: int, reason: str, detail: str) -> Reject:
    """The record as a refused one; `detail` quotes nothing of it."""
    value = batch.values[at] or b""
    return Reject(
        reason=reason, partition=batch.partition, offset=batch.offsets[at], detail=detail, size_bytes=len(value),
        payload_hash=secrets.keyed_hash(value), payload=_safe(value, reason),
    )  # fmt: skip


def _safe(value: bytes, reason: str) -> bytes | None:
    """The payload where it was decoded and holds no secret; else nothing of it goes on."""
    return value[:16_384] if reason in _PAYLOAD_IS_SAFE and not secrets.may_hold_secret(value) else None
