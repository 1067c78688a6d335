"""What is fuzzed: name -> a function of bytes that raises `Broken`, or anything, where a boundary does not hold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from pipeline import secrets
from pipeline.column import plain
from pipeline.config import file as config_file
from pipeline.config import tree as config
from pipeline.config.tree import Config, Worker
from pipeline.control.controls import Controls, Said
from pipeline.control.topic import read
from pipeline.control.withhold import control_rows
from pipeline.core import Slice
from pipeline.decode import decode
from pipeline.errors import ConfigError, Fatal
from pipeline.fields import fields_of
from pipeline.formats import FORMATS, Options, Refused, detect, read_file
from pipeline.formats.confluent import Kind
from pipeline.geo import provider
from pipeline.intake import key_events as intake_key_events
from pipeline.intake import leaks as intake_leaks
from pipeline.intake.run import stream
from pipeline.keys import catalogue, key_import
from pipeline.sinks.clickhouse import checked
from schemas.control import control_id
from schemas.control import decode as decode_control
from schemas.event import Event
from schemas.key_event import KeyEvent
from schemas.reasons import REASONS, Rejected
from tests.fuzz import wrapped
from tests.fuzz.mutate import SECRET
from tests.pipeline.log_of_requests import core

Target = Callable[[bytes], None]
MAX_TAKEN: Final = 50_000


class Broken(AssertionError):
    """A boundary that did not hold."""


def ensure(holds: object, what: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(what)


def intake(raw: bytes, format: str) -> None:
    """Every record is keyed, within its limits, has a known reason, and is read back as what it was."""
    for out in islice(stream(raw, format, Options(pepper=config.Secret("p" * 32)), "raw/0/1"), MAX_TAKEN):
        ensure(out.key or out.reason, "a record without a key")
        ensure(out.reason in ("", *REASONS), f"reason {out.reason}")
        if out.reason:
            time_us = msgspec.json.decode(out.value, type=Rejected).ts_us
            ensure(abs(time_us) < 1 << 62, "a time that ClickHouse can't hold")
        else:
            ensure(secrets.is_clean(msgspec.json.decode(out.value, type=Event)), "an event with a secret")


def confluent_body(raw: bytes, kind: Kind) -> None:
    """A body under a registry's id is refused, or is JSON that intake takes as any other."""
    plain = wrapped.body(kind, raw)
    if plain is not None:
        intake(plain, "native")


def key_events(raw: bytes, format: str) -> None:
    """What happened to keys: an event that is read back, without a secret, or a known reason."""
    for out in islice(intake_key_events.stream(raw, format, "raw/0/1"), MAX_TAKEN):
        ensure(out.key or out.reason, "a record without a key")
        ensure(out.reason in ("", *REASONS), f"reason {out.reason}")
        if not out.reason:
            event = msgspec.json.decode(out.value, type=KeyEvent)
            ensure(not secrets.looks_secret(event.key_id), "a secret for a key id")


def control(raw: bytes) -> None:
    """A record of the control topic: something that people said, or None; never an error that stops all workers."""
    try:
        meant = decode_control(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        meant = None
    key = b"k" if meant is None else control_id(meant).encode("utf-8", "replace")
    said = read(SimpleNamespace(key=key, value=raw, topic="api.control", offset=1))
    ensure(said is None or said == meant, "read as something else")
    if said is not None:
        now = Controls.of("e", [Said(0, said)], 1)
        ensure(control_rows(now.said), "nothing to be written of it")


def feed(raw: bytes, kind: str) -> None:
    """A leak feed's delivery, or a person's: reports, or words that quote nothing of it."""
    try:
        said = intake_leaks.of_person(raw) if kind == "person" else intake_leaks.of_github(raw, "p" * 32)
    except ValueError as error:
        ensure(SECRET not in str(error), "a secret in a message")
    else:
        ensure(SECRET.encode() not in msgspec.json.encode(said.reports), "a secret came through")


def leaks(raw: bytes, format: str) -> None:
    """Of a message in which one value is a secret, nothing that comes out holds it."""
    for out in islice(stream(raw, format, Options(), "raw/0/1"), MAX_TAKEN):
        ensure(SECRET.encode() not in out.value + out.key, "a secret came through")


def files(raw: bytes, format: str) -> None:
    """The same from a file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        for record in islice(read_file(Path(file.name), format), MAX_TAKEN):
            ensure(not isinstance(record, Refused) or record.reason in REASONS, "an unknown reason")


def worker(raw: bytes) -> None:
    """Decode and the whole core: rows are of the tables' columns and every record is accounted for."""
    lines = raw.split(b"\n")[:200]
    good = Event(key_id="pk_0", ts_us=1_780_000_000_000_000, outcome="success", request_id="good")
    values = [*lines, msgspec.json.encode(good)]
    keys = [_key_of(value) for value in values]
    batch = Slice("t", 0, range(len(values)), keys, values, [1_780_000_000_000] * len(values))
    decoded = decode(batch)
    ensure(len(decoded.events) + len(decoded.rejects) == len(values), "a record was lost")
    ensure(decoded.events[-1].request_id == "good", "the good event was lost")
    ensure(all(reject.reason in REASONS for reject in decoded.rejects), "an unknown reason")
    judge = core(Config(worker=Worker(max_reject_ratio=1.0)))
    effects = judge.process(batch)
    for rows in (effects.rows, judge.due_rows()):
        for table, columns in rows.items():
            checked(table, columns)
            msgspec.json.encode({name: plain(column) for name, column in columns.items()})


def _key_of(raw: bytes) -> bytes:
    """As a producer keys it that is not the enemy."""
    try:
        return str(msgspec.json.decode(raw)["key_id"]).encode()
    except (*catalogue._NO_KEY, TypeError, KeyError, IndexError):
        return b"k"


def scrubbed(raw: bytes) -> None:
    """What is scrubbed is clean, and stays as it is."""
    text = raw.decode("utf-8", "replace")
    event = Event(key_id="k", ts_us=0, path=text, route=text, user_agent=text, scope=text, request_id=text)
    once = secrets.scrub(event)
    if isinstance(once, Event):
        ensure(secrets.is_clean(once), "scrubbed and not clean")
        ensure(not len(secrets.unclean(fields_of([once]))), "scrubbed and not clean, looked at together")
        ensure(secrets.scrub(once) == once, "scrubbing twice changes more")
    together = len(secrets.unclean(fields_of([event]))) > 0
    ensure(together == (not secrets.is_clean(event)), "two rules for what is clean")


def key_files(raw: bytes, kind: str) -> None:
    """Keys, or one line that says what is wrong."""
    with tempfile.NamedTemporaryFile(suffix=".csv" if kind == "csv" else ".json") as file:
        file.write(raw)
        file.flush()
        for read in (lambda path: key_import.read_keys(path, kind), catalogue.load_file):  # type: ignore[arg-type]
            try:
                read(Path(file.name))
            except ConfigError as error:
                ensure(SECRET not in str(error), "a secret in a message")


def catalogue_record(raw: bytes) -> None:
    """A record of the keys topic: a key, or nothing declared."""
    changes: dict[str, Any] = {}
    catalogue._take(SimpleNamespace(key=b"k", value=raw, topic="api.keys", offset=1), changes)


def settings(raw: bytes) -> None:
    """A configuration, or ConfigError."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(raw)
        file.flush()
        try:
            config_file.show(config_file.load(Path(file.name), {"KEYWATCH_KAFKA__BROKERS": "a:1"}))
        except ConfigError as error:
            ensure(SECRET not in str(error), "a secret in a message")


def geo(raw: bytes) -> None:
    """A database, or one line; a damaged one never gives a place that is none."""
    with tempfile.NamedTemporaryFile(suffix=".mmdb") as file:
        file.write(raw)
        file.flush()
        try:
            opened = provider.open_geo(config.Geo(country_db=file.name))
            for address in ("8.8.8.8", "192.0.2.1", "2001:db8::1", "203.0.113.9", "1.1.1.1", "x", "::ffff:1.2.3.4"):
                place = opened.look_up(address)
                ensure(len(place.country) in (0, 2), "a country that is none")
        except (ConfigError, Fatal):
            return


def _named(formats: Iterable[str], name: str, target: Callable[[bytes, str], None]) -> dict[str, Target]:
    return {f"{name}-{format}": partial(target, **{"kind" if name == "keys" else "format": format})
            for format in formats}  # fmt: skip


TARGETS: Final[dict[str, Target]] = {
    **_named(FORMATS, "intake", intake),
    **_named([name for name in FORMATS if not FORMATS[name].lines], "leaks", leaks),
    **_named(FORMATS, "files", files),
    **_named(("csv", "kong", "aws"), "keys", key_files),
    **_named(wrapped.ENVELOPES, "envelope", lambda raw, format: intake(raw, "native")),
    **{f"confluent-{kind}": partial(confluent_body, kind=kind) for kind in wrapped.BODIES},
    **{f"schema-{kind}": partial(wrapped.schema, kind) for kind in wrapped.SCHEMAS},
    **_named(("key_events", "cloudtrail"), "key_events", key_events),
    "feed-github": partial(feed, kind="github"),
    "feed-person": partial(feed, kind="person"),
    "control": control,
    "worker": worker,
    "scrub": scrubbed,
    "catalogue": catalogue_record,
    "config": settings,
    "geo": geo,
    "detect": lambda raw: ensure(detect(raw) in (None, *FORMATS), "an unknown format"),
}
