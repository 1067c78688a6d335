"""`keywatch respond`: the process. Wires Kafka, ClickHouse and the endpoints to `handle.Responder`, and stops cleanly.

Its own consumer group and credentials; the worker has none that can act. It reads `api.incidents` and `api.decisions`
(from the start, before the first incident), writes `api.decisions` and `api.responses`, and copies the latter into
ClickHouse. Any number may run: partitions of incidents are shared, caps are common, the rest are hot standbys.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.catalogue import CatalogueReader
from pipeline.config import Config, Endpoint, Respond
from pipeline.errors import ConfigError, Fatal
from pipeline.health import Health, serve
from pipeline.metrics import REGISTRY, process_started, responder_started
from pipeline.respond.act import Acting, Actor, NullActor
from pipeline.respond.adapters.webhook import WebhookAdapter
from pipeline.respond.consume import AuditLoader, Incidents, TopicReader
from pipeline.respond.decisions import Decisions
from pipeline.respond.deliver import Deliveries, Mailbox
from pipeline.respond.handle import RUNG, Responder
from pipeline.respond.keys import FreshKeys
from pipeline.respond.ledger import Ledger, Switched, encode
from pipeline.respond.webhook import Poster
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.kafka import Producer, client_settings, started
from pipeline.sinks.topics import create_topics, partitions_of, topic_specs
from schemas.incident import SEVERITIES

log = logging.getLogger(__name__)

STOP_ENV: Final = "KEYWATCH_RESPOND_STOP"
MODES: Final = ("off", "simulate", "enforce")


async def run(config: Config, *, stop: asyncio.Event | None = None) -> None:
    """Respond until `stop` is set. Raises `ConfigError` or `Fatal`, each with one line for the operator."""
    check(config.respond)
    stop = stop or asyncio.Event()
    await _prepare_topics(config)
    process_started()
    responder_started(RUNG, [endpoint.name for endpoint in config.respond.endpoints])
    health = Health()
    async with AsyncExitStack() as stack:
        server = await serve(health, REGISTRY, config.respond.metrics_host, config.respond.metrics_port)
        stack.push_async_callback(server.close)
        producer = Producer(config.kafka)
        await producer.start()
        stack.push_async_callback(producer.close)
        responder = await _responder(config, producer, stack)
        audit_consumer = await stack.enter_async_context(_consumer(config, f"{config.respond.group}-audit"))
        sink = ClickHouseSink(config.clickhouse)
        stack.push_async_callback(sink.close)
        audit = AuditLoader(audit_consumer, config.topics.responses, sink, health)
        stack.push_async_callback(audit.close)
        incident_consumer = await stack.enter_async_context(_consumer(config, config.respond.group))
        incidents = Incidents(incident_consumer, config.topics.incidents, responder, health)
        audit.start()
        log.info("responding: mode %s, endpoint %s", config.respond.revocation.mode, responder.endpoint or "none")
        await incidents.run(stop, audit.check)
        log.info("stopped: what was finished is committed, the rest goes on at the next start")


def main(config: Config) -> int:
    """The command: SIGTERM and SIGINT stop it. Exit code 0, 1 for `Fatal`, 2 for `ConfigError`."""
    try:
        asyncio.run(_until_signal(config))
    except ConfigError as error:
        log.error("%s", error)  # noqa: TRY400  one clear line, no traceback
        return 2
    except Fatal as error:
        log.error("%s", error)  # noqa: TRY400
        return 1
    return 0


async def _until_signal(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(config, stop=stop)


def check(respond: Respond) -> None:
    """Raise `ConfigError` for a policy that names what does not exist: no start is better than a guard never asked."""
    policy, names = respond.revocation, [endpoint.name for endpoint in respond.endpoints]
    if policy.mode not in MODES:
        raise ConfigError(f"respond.revocation.mode is {policy.mode!r}: one of {', '.join(MODES)}")
    if policy.min_severity not in SEVERITIES:
        raise ConfigError(
            f"respond.revocation.min_severity is {policy.min_severity!r}: not among {', '.join(SEVERITIES)}"
        )
    if len(set(names)) != len(names):
        raise ConfigError("respond.endpoints: two have the same name")
    if policy.endpoint and policy.endpoint not in names:
        raise ConfigError(f"respond.revocation.endpoint is {policy.endpoint!r}: no endpoint has that name")
    if policy.mode == "enforce" and not policy.endpoint:
        raise ConfigError("respond.revocation.mode is enforce: set respond.revocation.endpoint")


def kill_switch(respond: Respond) -> str:
    """Why the kill switch of this machine is on, "" if it is off. A path that can't be looked at counts as on."""
    if os.environ.get(STOP_ENV):
        return f"{STOP_ENV} is set"
    if not respond.kill_switch_file:
        return ""
    try:
        return f"{respond.kill_switch_file} exists" if Path(respond.kill_switch_file).exists() else ""
    except OSError as error:
        return f"{respond.kill_switch_file} cannot be looked at ({error.strerror})"


async def switch(config: Config, *, stop: bool, by: str, reason: str = "") -> None:
    """Stop all automatic acts of all responders, or let them go on: the kill switch on the decisions topic."""
    producer = Producer(config.kafka)
    await producer.start()
    try:
        await producer.publish(
            config.topics.decisions, b"", encode(Switched(stop=stop, by=by, reason=reason)), partition=0
        )
    finally:
        await producer.close()


async def _responder(config: Config, producer: Producer, stack: AsyncExitStack) -> Responder:
    respond = config.respond
    decisions = Decisions(producer, await _decision_reader(config, stack), config.topics.decisions, _responder_id())
    await decisions.start()
    stack.push_async_callback(decisions.close)
    deliveries = Deliveries([Mailbox(_poster(respond, each), decisions.write, time.time) for each in respond.endpoints])
    deliveries.start()
    stack.push_async_callback(deliveries.close)
    keys = FreshKeys(lambda: CatalogueReader(config), time.monotonic)
    await keys.start()
    stack.push_async_callback(keys.close)
    return Responder(
        policy=respond.revocation, responses_topic=config.topics.responses, publisher=producer, decisions=decisions,
        keys=keys, actor=_actor(respond, decisions.ledger), deliveries=deliveries,
        killed=lambda: kill_switch(respond), now_s=time.time, endpoint=respond.revocation.endpoint,
    )  # fmt: skip


def _actor(respond: Respond, ledger: Ledger) -> Actor:
    """Only an enforcing policy gets something that can act."""
    if respond.revocation.mode != "enforce":
        return NullActor()
    endpoint = next(each for each in respond.endpoints if each.name == respond.revocation.endpoint)

    def killed() -> str:
        return kill_switch(respond) or (f"stopped by {ledger.stopped.by}" if ledger.stopped else "")

    return Acting(WebhookAdapter(_poster(respond, endpoint)), killed, time.time)


def _poster(respond: Respond, endpoint: Endpoint) -> Poster:
    return Poster(endpoint, respond.connect_timeout_s, respond.total_timeout_s)


async def _decision_reader(config: Config, stack: AsyncExitStack) -> TopicReader:
    consumer = await stack.enter_async_context(_consumer(config, None))
    partition = TopicPartition(config.topics.decisions, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    return TopicReader(consumer)


@asynccontextmanager
async def _consumer(config: Config, group: str | None) -> AsyncIterator[AIOKafkaConsumer]:
    kafka = config.kafka
    consumer = AIOKafkaConsumer(
        **client_settings(kafka), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
        session_timeout_ms=int(kafka.session_timeout_s * 1000), heartbeat_interval_ms=int(kafka.heartbeat_s * 1000),
        rebalance_timeout_ms=int(kafka.rebalance_timeout_s * 1000), fetch_max_wait_ms=100,
    )  # fmt: skip
    async with started(kafka, consumer):
        yield consumer


async def _prepare_topics(config: Config) -> None:
    """Create what this process needs (where allowed), and refuse a decisions topic without one order."""
    topics = config.topics
    needed = {topics.incidents, topics.keys, topics.decisions, topics.responses}
    specs = [spec for spec in topic_specs(config) if spec.name in needed]
    existing = await partitions_of(config.kafka, sorted(needed))
    missing = [spec for spec in specs if spec.name not in existing]
    if missing and not config.kafka.declare_topics:
        names = ", ".join(spec.name for spec in missing)
        raise ConfigError(f"topics are missing: {names}; create them or set kafka.declare_topics")
    await create_topics(config.kafka, missing)
    if existing.get(topics.decisions, 1) != 1:
        raise ConfigError(f"{topics.decisions} has {existing[topics.decisions]} partitions: caps need exactly 1")


def _responder_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
