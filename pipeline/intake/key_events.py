"""Intake of what is done to keys, for `api.key_events`: a key service's events, or CloudTrail's of access keys.

`key_events`: key events v1 as JSON (one, an array, or lines). `cloudtrail_keys`: CreateAccessKey, DeleteAccessKey and
UpdateAccessKey out of CloudTrail's files; all other records are passed over in silence: they are for the requests.
No text that looks like a secret goes on: an event whose key id is one is refused, other texts are blanked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.errors import ConfigError
from pipeline.formats import Refused
from pipeline.formats.envelope import json_records
from pipeline.formats.format import BadValueError
from pipeline.formats.values import iso_us
from pipeline.intake.run import Outgoing, outgoing
from pipeline.secrets import PLACEHOLDER, looks_secret
from schemas.key_event import DONE_TO_IT, MAX_KEY_EVENT_BYTES, KeyEvent, KeyEventKind

TEXTS: Final = ("event_id", "actor", "owner", "environment", "client_ip")
_json = msgspec.json.Encoder()


def route(raw: bytes, format: str, position: str) -> list[Outgoing]:
    """Everything that one raw message becomes. Pure; never raises on bad input."""
    return list(stream(raw, format, position))


def stream(raw: bytes, format: str, position: str) -> Iterator[Outgoing]:
    """`route`, one by one; a record's position is `position/index`."""
    for index, record in enumerate(json_records(raw)):
        at = f"{position}/{index}"
        event = record if isinstance(record, Refused) else _event(record, format)
        if isinstance(event, Refused):
            yield outgoing(msgspec.structs.replace(event, position=at), format)
        elif event is not None:
            named = event if event.event_id else msgspec.structs.replace(event, event_id=at[-128:])
            yield Outgoing(lane="key_events", key=named.key_id.encode(), value=_json.encode(named))


def of_files(paths: Sequence[Path], format: str) -> Iterator[Outgoing]:
    """All records of files and folders in the order of their times; gzip too. Raises ConfigError."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    events: list[tuple[int, Outgoing]] = []
    for file in files:
        for each in stream(_read(file), format, f"{file}") if not file.is_dir() else ():
            when_us = msgspec.json.decode(each.value, type=KeyEvent).ts_us if each.lane == "key_events" else 0
            events.append((when_us, each))
    events.sort(key=lambda event: event[0])
    return iter([each for _, each in events])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _event(record: Any, format: str) -> KeyEvent | Refused | None:
    try:
        event = _native(record) if format == "key_events" else _cloudtrail(record)
    except msgspec.ValidationError as error:
        return Refused(reason="invalid", detail=str(error).split(", got")[0].split("Invalid enum value")[0][:200])
    except BadValueError as error:
        return Refused(reason="invalid", detail=str(error))
    return event if event is None else _clean(event)


def _native(record: Any) -> KeyEvent:
    event = msgspec.convert(record, KeyEvent)
    if event.kind not in DONE_TO_IT:
        raise BadValueError("kind: what is done with a key is told by the worker alone")
    return event


def _cloudtrail(record: Any) -> KeyEvent | None:
    """An access key's creation, end or deactivation by anybody, where it succeeded."""
    if not isinstance(record, dict) or record.get("errorCode"):
        return None
    asked, made = record.get("requestParameters"), record.get("responseElements")
    asked, made = asked if isinstance(asked, dict) else {}, made if isinstance(made, dict) else {}
    kinds: dict[Any, KeyEventKind] = {"CreateAccessKey": "created", "DeleteAccessKey": "ended"}
    kind = kinds.get(record.get("eventName"))
    if record.get("eventName") == "UpdateAccessKey" and asked.get("status") == "Inactive":
        kind = "ended"
    key = made.get("accessKey") if kind == "created" else asked
    if kind is None or not isinstance(key, dict) or not key.get("accessKeyId"):
        return None
    who = record.get("userIdentity")
    who = who if isinstance(who, dict) else {}
    named = str(who.get("accessKeyId") or "")
    fields = {
        "key_id": key["accessKeyId"], "ts_us": iso_us(record.get("eventTime")), "kind": kind,
        "event_id": str(record.get("eventID") or "")[:128],
        "actor": str(who.get("userName") or who.get("arn") or named)[:128],
        "actor_role": "key" if named.startswith("AKIA") else "",  # ASIA: a session, of a person or a role
        "owner": str(key.get("userName") or asked.get("userName") or "")[:128], "environment": "live",
        "client_ip": str(record.get("sourceIPAddress") or "")[:45],
    }  # fmt: skip
    return msgspec.convert(fields, KeyEvent)


def _clean(event: KeyEvent) -> KeyEvent | Refused:
    if looks_secret(event.key_id):
        return Refused(reason="secret", detail="the key_id looks like a key's secret: send the public id")
    foul = {name: PLACEHOLDER for name in TEXTS if looks_secret(getattr(event, name))}
    for name in ("scopes", "scopes_before"):
        foul[name] = tuple(PLACEHOLDER if looks_secret(text) else text for text in getattr(event, name))  # type: ignore[assignment]
    cleaned = msgspec.structs.replace(event, **foul)
    if len(_json.encode(cleaned)) > MAX_KEY_EVENT_BYTES:
        return Refused(reason="too_large", detail="the key event is longer than one may be")
    return cleaned
