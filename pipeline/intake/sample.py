"""`keywatch doctor --sample FILE`: which gateway wrote this log, how its records read, and what they leave blind."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from detectors.detector import (
    SEES_ADDRESS,
    SEES_BYTES,
    SEES_CLIENT,
    SEES_DENIED,
    SEES_OUTCOME,
    SEES_ROUTE,
    SEES_STATUS,
)
from pipeline.config.tree import Secret
from pipeline.errors import ConfigError
from pipeline.finding import Finding
from pipeline.formats import FORMATS, Options, Refused, decode, detect
from pipeline.intake.provenance import fields_of_raw_keys, sources
from pipeline.intake.sample_address import whose_word
from pipeline.routes import template
from schemas.event import Event

SAMPLE_BYTES: Final = 256 * 1024

BLIND: Final = (
    (SEES_ADDRESS, "client addresses: geography says nothing"),
    (SEES_STATUS, "statuses: errors says nothing"),
    (SEES_DENIED, "the key id of refused requests (401, 403, 429): errors misses them"),
    (SEES_BYTES, "bytes: downloads are seen by their number of requests only"),
    (SEES_OUTCOME, "whether the key was accepted: it is taken from the status"),
    (SEES_CLIENT, "user agents: a new client is not seen"),
    (SEES_ROUTE, "routes: endpoints are not told apart"),
)
FIELDS: Final = {
    "client_ip": "geography, travel and spray say nothing",
    "method": "reads and writes are not told apart",
    "status": "errors says nothing",
    "bytes_out": "downloads are seen by their number of requests only",
    "user_agent": "novel_client says nothing",
    "environment": "it must be declared (keywatch keys import)",
    "request_id": "a repeat is known by where intake read it, not by the request",
}
"""Field of the event -> what is missing without it."""


OPTIONAL: Final = ("fingerprint",)
"""Fields that few logs have: shown where they are, and nothing is blind without them."""


_DEFAULTS: Final = Options()
_PROBE: Final = Secret("only to see whether a pepper makes a difference")
NEW_PEPPER: Final = (
    "make one, once for ever: `(umask 077; openssl rand -hex 32 > pepper)`; KEYWATCH_INTAKE__PEPPER_FILE names the "
    "file. With another one every such key has another id"
)


def check_sample(path: Path, options: Options = _DEFAULTS) -> list[Finding]:
    """The format of a log, how its records read, and what it leaves blind. Raises ConfigError."""
    raw = read_sample(path)
    name = detect(raw)
    if name is None:
        advice = f"known are {', '.join(sorted(FORMATS))}; a gateway not among them can write the native form"
        return [Finding("fail", "format", f"{path}: no known format", advice)]
    findings = [Finding("ok", "format", f"{path}: {name} (intake.format or --format {name})")]
    return findings + read_as(raw, name, options) + blind_spots(FORMATS[name].sees)


def read_as(raw: bytes, name: str, options: Options = _DEFAULTS) -> list[Finding]:
    """How the sample's records map to the event's fields, each with how many have it and one as an example."""
    records = list(decode(raw, name, options))
    if records and isinstance(records[-1], Refused) and len(raw) == SAMPLE_BYTES:
        records.pop()  # cut in the middle
    events = [each for each in records if isinstance(each, Event)]
    refused = Counter(f"{each.reason}: {each.detail}" for each in records if isinstance(each, Refused))
    found = [Finding("ok" if events else "fail", "records", f"{len(events)} events, {refused.total()} refused")]
    found += [_refused(name, why, count) for why, count in refused.most_common(5)]
    found += _without_pepper(raw, name, options, len(events))
    if not events:
        return found
    keys = {each.key_id for each in events}
    span = [datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="milliseconds") for at in _span_us(events)]
    of = sources(raw, name, ("key_id", "ts_us", *FIELDS, *OPTIONAL, "route", "path"), options)
    found.append(Finding("ok", "key_id", f"{len(keys)} keys, e.g. {min(keys)}{_from(of, 'key_id')}"))
    found.append(Finding("ok", "ts", f"{span[0]} to {span[1]}{_from(of, 'ts_us')}: is that when it was?"))
    for field, without in FIELDS.items():
        found.append(_field(events, field, without, of))
        if field == "client_ip":
            found += whose_word(raw, FORMATS[name], options)
    found += [_field(events, field, "", of) for field in OPTIONAL if any(getattr(each, field) for each in events)]
    return [*found, *_routes(events, of)]


def _refused(name: str, why: str, count: int) -> Finding:
    advice = f"looked for: {FORMATS[name].key}" if why.startswith("no_key") else ""
    return Finding("warn", "refused", f"{count} x {why}", advice)


def _without_pepper(raw: bytes, name: str, options: Options, events: int) -> Iterator[Finding]:
    """Whether requests name their key by the key itself alone: its HMAC is the id, with a pepper."""
    if options.pepper:
        return
    for field in ("", *(() if options.key_field or events else fields_of_raw_keys(raw, name))):
        probe = msgspec.structs.replace(options, pepper=_PROBE, key_field=field or options.key_field)
        more = sum(isinstance(each, Event) for each in decode(raw, name, probe)) - events
        if more > 0:
            by = f'by the raw key in `{field}` (intake.key_field = "{field}")' if field else "by the raw key"
            text = f"intake.pepper is missing: {more} requests name their key {by} alone, whose HMAC becomes its id"
            yield Finding("fail", "pepper", text, NEW_PEPPER)
            return


def _span_us(events: list[Event]) -> tuple[int, int]:
    times = [each.ts_us for each in events]
    return min(times), max(times)


def _field(events: list[Event], field: str, without: str, of: dict[str, str]) -> Finding:
    values = [value for each in events if (value := getattr(each, field))]
    if not values:
        return Finding("warn", field, f"in none of them: {without}")
    share = len(values) / len(events)
    return Finding("ok", field, f"in {share:.0%}, e.g. {str(values[0])[:60]}{_from(of, field)}")


def _from(of: dict[str, str], field: str) -> str:
    return f", from {of[field]}" if field in of else ""


def _routes(events: list[Event], of: dict[str, str]) -> Iterator[Finding]:
    """The gateway's own route, and the path: what stands for the route where there is none, without its ids."""
    paths = [each.path for each in events if each.path]
    if any(each.route for each in events) or not paths:
        yield _field(events, "route", "endpoints are not told apart", of)
    else:
        yield Finding("ok", "route", f"in none of them: made of the path, e.g. {template(paths[0])[:60]}")
    if paths:
        yield _field(events, "path", "", of)


def blind_spots(sees: int) -> list[Finding]:
    """What a format with these SEES_* bits can't tell."""
    blind = [Finding("warn", "blind", f"it does not tell {words}") for bit, words in BLIND if not sees & bit]
    return blind or [Finding("ok", "blind", "it tells all that the detectors use")]


def read_sample(path: Path) -> bytes:
    """The beginning of a log, gunzipped where it is gzip. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(SAMPLE_BYTES)
    except OSError as error:
        raise ConfigError(f"sample {path}: {error.strerror}") from error
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return zlib.decompressobj(31).decompress(raw, SAMPLE_BYTES)
    except zlib.error as error:
        raise ConfigError(f"sample {path} is damaged gzip: {error}") from error
