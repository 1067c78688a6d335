"""`keywatch intake`: gateway logs from a raw topic, HTTP or files become keyed events on `topics.requests`.

1. decode the gateway's format, strip secrets, split arrays (`route`, pure);
2. bound the lane of requests without a key id (`NoKeyLane`), per source network;
3. publish with full acknowledgement;
4. only then move on: commit the raw topic's offset, answer 200, read the next lines.
A crash repeats what was not yet confirmed and loses nothing: an event keeps its request id, or gets one from where it
was read, and the core drops a repeat that comes within 32 requests of its key; for busy keys more may count twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, Literal

import msgspec

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.formats import FORMATS, Options, Refused, decode, place
from pipeline.formats.envelope import is_bare
from pipeline.health import Health, serve
from pipeline.history import ordered
from pipeline.metrics import METRICS, REGISTRY, process_started, reader_started
from pipeline.partitioner import PARTITIONERS
from pipeline.ports import Publisher
from pipeline.runners.ending import stop_by_signal
from pipeline.secrets import keyed_hash, may_hold_secret
from pipeline.sinks.kafka import Producer
from pipeline.sinks.topics import create_topics, partitions_of, topic_specs
from schemas.event import MAX_EVENT_BYTES, Event
from schemas.reasons import REASONS, Rejected

SOURCES: Final = ("kafka", "http", "files")
BATCH_EVENTS: Final = 1000
GIVE_UP_S: Final = 300.0
"""How long one batch is tried again while the broker is away; then the process ends and starts over from the commit."""
MAX_PAYLOAD_BYTES: Final = 16_384  # of a rejected record (reference/delivery.md, section 8)
MOST_REFUSED: Final = 1000
"""Refusals of one message that are written one by one: a body of 300 kB may hold a million, of 300 bytes each."""
_SHOWABLE: Final = frozenset({"native", "cloudtrail"})
"""Formats without headers or query strings: a rejected record of another format goes without its payload."""

Lane = Literal["requests", "rejected", "no_key", "key_events"]
KEY_EVENTS: Final = ("key_events", "cloudtrail_keys")
"""Formats of what is done to keys: `pipeline/intake/key_events.py`."""

_log = logging.getLogger(__name__)
_json = msgspec.json.Encoder()


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One record to write. `no_key` records go to the rejected topic, too, if their network's rate allows."""

    lane: Lane
    key: bytes
    value: bytes
    reason: str = ""
    minute: int = 0  # of the event's time: the unit of the no_key lane's rate


def options_of(config: Config) -> Options:
    """The format's options as configured."""
    of = config.intake
    return Options(key_field=of.key_field, pepper=of.pepper, trusted_proxies=of.trusted_proxies)


def route(raw: bytes, format: str, options: Options, position: str) -> list[Outgoing]:
    """Everything that one raw message becomes. Pure; never raises on bad input.

    The position of a record is `position/index`, index from 0, so that it does not depend on what else was read.
    """
    return list(stream(raw, format, options, position))


def stream(raw: bytes, format: str, options: Options, position: str) -> Iterator[Outgoing]:
    """`route`, one by one: a message of a megabyte may hold a million records."""
    if format in KEY_EVENTS:
        from pipeline.intake.key_events import stream as key_events  # it builds on this module

        yield from key_events(raw, format, position)
        return
    placed = (place(record, f"{position}/{index}") for index, record in enumerate(decode(raw, format, options)))
    head, second = next(placed, None), next(placed, None)
    payload = raw if second is None else b""
    some = (each for each in (head, second) if each is not None)
    yield from (outgoing(record, format, payload, len(raw)) for record in _told(chain(some, placed)))


def _told(records: Iterable[Event | Refused]) -> Iterator[Event | Refused]:
    """The records, of those refused but for `no_key` the first MOST_REFUSED; then one that counts the rest."""
    refused, last = 0, None
    for record in records:
        if isinstance(record, Refused) and record.reason != "no_key":
            refused += 1
            if refused > MOST_REFUSED:
                last = record
                continue
        yield record
    if last is not None:
        detail = f"{last.detail}; with it {refused - MOST_REFUSED} more records of this message are refused"
        yield msgspec.structs.replace(last, detail=detail)


def outgoing(record: Event | Refused, format: str, payload: bytes = b"", size_bytes: int = 0) -> Outgoing:
    """One decoded record. `payload` is the raw message, if the record was all of it."""
    if isinstance(record, Refused):
        return _refused(record, format, payload, size_bytes)
    value = _json.encode(record)
    if len(value) <= MAX_EVENT_BYTES:
        return Outgoing(lane="requests", key=record.key_id.encode(), value=value)
    refused = Refused(reason="too_large", detail=f"the event has {len(value)} bytes", position=record.position)
    return _refused(refused, format, b"", len(value))


def _refused(record: Refused, format: str, payload: bytes, size_bytes: int) -> Outgoing:
    """To the rejected topic: no_key by its network, everything else by its position."""
    if record.reason == "no_key":
        body = Rejected(
            reason=record.reason, position=record.position, detail=record.detail, network=record.network,
            ts_us=record.ts_us, status=record.status, outcome=record.outcome, route=record.route,
        )  # fmt: skip
        key, minute = record.network or "unknown", record.ts_us // 60_000_000
        return Outgoing(lane="no_key", key=key.encode(), value=_json.encode(body), reason="no_key", minute=minute)
    body = Rejected(
        reason=record.reason, position=record.position, detail=record.detail, size_bytes=size_bytes,
        payload_hash=keyed_hash(payload) if payload else "", payload=_payload(record, format, payload),
    )  # fmt: skip
    return Outgoing(lane="rejected", key=record.position.encode(), value=_json.encode(body), reason=record.reason)


def _payload(record: Refused, format: str, payload: bytes) -> bytes | None:
    """The raw record, only where it can be read and can't hold a secret: an envelope brings headers, or hides them."""
    if record.reason != "invalid" or format not in _SHOWABLE or not payload or len(payload) > MAX_PAYLOAD_BYTES:
        return None
    return payload if is_bare(payload) and not may_hold_secret(payload) else None


@dataclass
class NoKeyLane:
    """The rate of requests without a key id: so many per source network and minute of event time; the rest is counted.

    What was held back is told by the next one of that network that passes (`suppressed`). Bounded in networks: beyond
    `max_networks` the one seen longest ago is forgotten, whose count then goes to `lost`.
    """

    per_minute: int = 30
    max_networks: int = 10_000
    suppressed: int = 0
    lost: int = 0
    _seen: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # network -> minute, passed, held back

    def admit(self, message: Outgoing) -> Outgoing | None:
        """The message, told of those held back before it; None where it is held back itself."""
        minute, passed, held = self._seen.pop(message.key, (message.minute, 0, 0))
        if message.minute > minute:
            minute, passed = message.minute, 0
        admitted = passed < self.per_minute
        self._seen[message.key] = (minute, passed + 1, 0) if admitted else (minute, passed, held + 1)
        if len(self._seen) > self.max_networks:
            self.lost += self._seen.pop(next(iter(self._seen)))[2]
        if not admitted:
            self.suppressed += 1
            return None
        return _with_suppressed(message, held) if held else message


def _with_suppressed(message: Outgoing, held: int) -> Outgoing:
    body = msgspec.structs.replace(msgspec.json.decode(message.value, type=Rejected), suppressed=held)
    return msgspec.structs.replace(message, value=_json.encode(body))


@dataclass
class Pump:
    """Publishes what `route` gave; returns when all of it is acknowledged."""

    config: Config
    publisher: Publisher
    lane: NoKeyLane = field(default_factory=NoKeyLane)
    counts: Counter[str] = field(default_factory=Counter)
    partition_of: Callable[[bytes], int] | None = None  # None: the client's own, murmur2 as Java's
    health: Health = field(default_factory=Health)

    async def take(self, messages: Iterable[Outgoing]) -> None:
        """Write all; raises Retry where a part of them was not acknowledged (all may be written again)."""
        for batch in batches(messages):
            admitted = [each for each in map(self._admit, batch) if each is not None]
            # Tasks start in this order and aiokafka appends without awaiting while it has room: order is kept per key.
            results = await asyncio.gather(*map(self._publish, admitted), return_exceptions=True)
            for error in results:
                if isinstance(error, BaseException):
                    raise error
            self._count(batch)

    async def persist(self, messages: Sequence[Outgoing], give_up_s: float = GIVE_UP_S) -> None:
        """`take`, again and again while the broker is away. Raises Fatal after `give_up_s`."""
        loop = asyncio.get_running_loop()
        until, pause_s = loop.time() + give_up_s, 0.2
        while True:
            try:
                return await self.take(messages)
            except Retry as error:
                if loop.time() + pause_s > until:
                    raise Fatal(f"the broker did not acknowledge for {give_up_s:.0f} s: {error}") from error
                _log.warning("the broker does not acknowledge, trying again", extra={"pause_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 10.0)

    def _admit(self, message: Outgoing) -> Outgoing | None:
        return self.lane.admit(message) if message.lane == "no_key" else message

    async def _publish(self, message: Outgoing) -> int:
        topics = self.config.topics
        if message.lane == "requests":
            partition = None if self.partition_of is None else self.partition_of(message.key)
            return await self.publisher.publish(topics.requests, message.key, message.value, partition=partition)
        if message.lane == "key_events":
            return await self.publisher.publish(topics.key_events, message.key, message.value)
        headers = [("reason", message.reason.encode())]
        return await self.publisher.publish(topics.rejected, message.key, message.value, headers)

    def _count(self, batch: Sequence[Outgoing]) -> None:
        for message in batch:
            self.counts[message.reason or "events"] += 1
            if message.reason:
                METRICS.events_rejected.labels(message.reason).inc()


def batches(messages: Iterable[Outgoing], size: int = BATCH_EVENTS) -> Iterator[list[Outgoing]]:
    stream = iter(messages)
    while batch := list(islice(stream, size)):
        yield batch


async def batches_apart(messages: Iterable[Outgoing], size: int = BATCH_EVENTS) -> AsyncIterator[list[Outgoing]]:
    """`batches`, made in a thread: what packs a lot takes seconds of one core to unpack, and others are served.

    A thread can't be ended. So whoever is cancelled waits for it, and keeps what bounds how many there are.
    """
    made = batches(messages, size)
    while True:
        step = asyncio.ensure_future(asyncio.to_thread(next, made, None))
        try:
            batch = await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            raise
        if not batch:
            return
        yield batch


async def from_files(config: Config, paths: Sequence[Path], pump: Pump, stop: asyncio.Event) -> None:
    """All records of the files in the order of their times, as `replay` reads them; ends with the last one."""
    for batch in batches(_file_messages(config, paths)):
        if stop.is_set():
            raise Fatal(
                "stopped before the end of the files; run it again from the start into an empty topic: a repeat counts "
                "once only within 32 requests of its key"
            )
        await pump.persist(batch)


def _file_messages(config: Config, paths: Sequence[Path]) -> Iterator[Outgoing]:
    format = config.intake.format
    if format in KEY_EVENTS:
        from pipeline.intake.key_events import of_files

        return of_files(paths, format)
    lateness_us = round(config.worker.lateness_s * 1e6)
    return (outgoing(record, format) for record in ordered(paths, format, options_of(config), lateness_us))


async def run(config: Config, source: str, paths: Sequence[Path] = (), stop: asyncio.Event | None = None) -> None:
    """Read `source` (kafka | http | files) until it ends, or until `stop` is set (by default SIGTERM or SIGINT).

    Raises ConfigError for what the user gave, Fatal where going on would lose events.
    """
    check(config, source, paths)
    stopping = stop or stop_by_signal()
    partitions = await _topics(config)
    producer = Producer(config.kafka)
    await producer.start()
    pump = Pump(config, producer, partition_of=_partitioner(config, partitions))
    try:
        await _read(config, source, paths, pump, stopping)
    finally:
        await producer.close()
        _log.info("intake ended", extra={"counts": dict(pump.counts), "no_key_suppressed": pump.lane.suppressed})


async def _topics(config: Config) -> int:
    """Create what intake itself needs, where allowed; returns the partitions of the requests topic."""
    topics = config.topics
    wanted = {topics.key_events if config.intake.format in KEY_EVENTS else topics.requests, topics.rejected}
    wanted |= {topics.keys, topics.incidents} if config.leaks.enabled else set()
    needed = {spec.name: spec for spec in topic_specs(config) if spec.name in wanted}
    existing = await partitions_of(config.kafka, list(needed))
    missing = [spec for name, spec in needed.items() if name not in existing]
    if missing and not config.kafka.declare_topics:
        names = ", ".join(spec.name for spec in missing)
        raise ConfigError(f"topics are missing: {names}; create them or set kafka.declare_topics")
    await create_topics(config.kafka, missing)
    return existing.get(topics.requests, config.kafka.partitions)


def _partitioner(config: Config, partitions: int) -> Callable[[bytes], int] | None:
    """The worker rejects keys on a wrong partition, so both must go by the same hash."""
    if config.worker.partitioner == "murmur2":
        return None
    return partial(_by, PARTITIONERS[config.worker.partitioner], partitions)


def _by(partitioner: Callable[[bytes, int], int], partitions: int, key: bytes) -> int:
    return partitioner(key, partitions)


async def _read(config: Config, source: str, paths: Sequence[Path], pump: Pump, stop: asyncio.Event) -> None:
    if source == "files":  # ends by itself: nobody asks for its health
        return await from_files(config, paths, pump, stop)
    # Imported here: `intake_http` and `intake_topic` build on this module.
    from pipeline.intake.http import from_http
    from pipeline.intake.topic import from_topic

    process_started()
    reader_started(REASONS)
    server = await serve(pump.health, REGISTRY, config.intake.metrics_host, config.intake.metrics_port, "intake")
    try:
        await {"http": from_http, "kafka": from_topic}[source](config, pump, stop)
    finally:
        await server.close()


def check(config: Config, source: str, paths: Sequence[Path]) -> None:
    """Raises ConfigError, with what to do, for a combination that can't work."""
    if source not in SOURCES:
        raise ConfigError(f"unknown source {source!r}; known are {', '.join(SOURCES)}")
    if config.intake.format not in (*FORMATS, *KEY_EVENTS):
        known = ", ".join((*FORMATS, *KEY_EVENTS))
        raise ConfigError(f"intake.format {config.intake.format!r} is unknown; known are {known}")
    if (source == "files") != bool(paths):
        raise ConfigError("give paths with the source `files`, and with no other")
