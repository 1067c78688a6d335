"""`keywatch respond`: the process. Wires Kafka, ClickHouse and the endpoints to `handle.Responder`, and stops cleanly.

Its own consumer group and credentials; the worker has none that can act. It reads `api.incidents` and `api.decisions`
(from the start, before the first incident), writes `api.decisions` and `api.responses`, and copies the latter into
ClickHouse. Any number may run: partitions of incidents are shared, caps are common, the rest are hot standbys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.config.tree import Config, Respond
from pipeline.errors import ConfigError, Fatal
from pipeline.health import Health, serve
from pipeline.keys.catalogue import CatalogueReader
from pipeline.metrics import REGISTRY, process_started, responder_started
from pipeline.refreshes import RefreshWatch, refreshes
from pipeline.respond.act import Acting, Actor, Note, unkept
from pipeline.respond.adapters import build
from pipeline.respond.adapters.adapter import Adapter, Intent, Outcome
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.caretaker import Caretaker
from pipeline.respond.carry import Carrier
from pipeline.respond.consume import AuditLoader, Incidents, TopicReader
from pipeline.respond.declared import DeclaredKeys, listed
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.telling import telling
from pipeline.respond.enforcement import witness
from pipeline.respond.enforcement.proof import Enforcement
from pipeline.respond.enforcement.verdicts import Verdicts
from pipeline.respond.fence import ClickHouseNetworks
from pipeline.respond.handle import Responder
from pipeline.respond.keys import FreshKeys
from pipeline.respond.ladder import LADDER, Matrix, ladder_of
from pipeline.respond.ledger.decisions import Decisions, Follower, ReadsOnly
from pipeline.respond.ledger.forgotten import Memory, stop_if_forgotten
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.night.night import Books
from pipeline.respond.policy.check import check
from pipeline.respond.promotion import review
from pipeline.respond.promotion.earned import Who
from pipeline.respond.promotion.review import ClickHouseWrongs, Review
from pipeline.respond.rotation import drain
from pipeline.respond.rotation.drain import ClickHouseRotations, Drain
from pipeline.respond.rounds import Round, Rounds
from pipeline.respond.set_up import SetUp
from pipeline.runners.ending import stop_by_signal
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.kafka import Producer, client_settings, fetched_highwaters, started
from pipeline.sinks.topics import create_topics, partitions_of, topic_id, topic_specs
from schemas.incident import Incident

log = logging.getLogger(__name__)

STOP_ENV: Final = "KEYWATCH_RESPOND_STOP"


async def run(config: Config, *, stop: asyncio.Event | None = None) -> None:
    """Respond until `stop` is set. Raises `ConfigError` or `Fatal`, each with one line for the operator."""
    check(config.respond)
    stop = stop or asyncio.Event()
    await _prepare_topics(config)
    process_started()
    responder_started(LADDER, [endpoint.name for endpoint in config.respond.endpoints])
    health = Health()
    async with AsyncExitStack() as stack:
        server = await serve(health, REGISTRY, config.respond.metrics_host, config.respond.metrics_port, "respond")
        stack.push_async_callback(server.close)
        producer = Producer(config.kafka)
        await producer.start()
        stack.push_async_callback(producer.close)
        books = Books()
        responder, caretaker = await _responder(config, producer, books, stack)
        audit_consumer = await stack.enter_async_context(_consumer(config, f"{config.respond.group}-audit"))
        sink = ClickHouseSink(config.clickhouse)
        stack.push_async_callback(sink.close)
        audit = AuditLoader(audit_consumer, config.topics.responses, sink, health)
        stack.push_async_callback(audit.close)
        incident_consumer = await stack.enter_async_context(_consumer(config, config.respond.group))
        incidents = Incidents(incident_consumer, config.topics.incidents, responder, caretaker, health)
        audit.start()
        seen = await _witness(config, responder, caretaker, books, stack)
        log.info("responding: mode %s, policy %s", responder.ladder.policy.mode, responder.ladder.version)
        _say_what_is_earned(responder)

        def check_all() -> None:
            audit.check()
            seen()

        await incidents.run(stop, check_all)
        log.info("stopped: what was finished is committed, the rest goes on at the next start")


def _say_what_is_earned(responder: Responder) -> None:
    policy = responder.ladder.policy
    if policy.promotion == "required" and policy.mode == "enforce":
        stage = responder.decisions.ledger.promotions.stage(Who.of(policy, responder.approvers))
        level = logging.WARNING if stage == "simulate" else logging.INFO
        log.log(level, "by themselves acts go up to %s: `keywatch respond promotion`, `respond promote`", stage)


def main(config: Config) -> int:
    """The command: SIGTERM and SIGINT stop it. Exit code 0, 1 for `Fatal`, 2 for `ConfigError`, 70 if it can't stop."""
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
    await run(config, stop=stop_by_signal())


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


async def _responder(
    config: Config, producer: Producer, books: Books, stack: AsyncExitStack
) -> tuple[Responder, Caretaker]:  # fmt: skip
    respond, ladder = config.respond, ladder_of(config.respond)
    memory = Memory()
    decisions = await decisions_of(config, producer, stack, _responder_id(), books.apply, memory.apply)
    await stop_if_forgotten(config, decisions, memory)
    keys = FreshKeys(lambda: CatalogueReader(config), time.monotonic)
    await keys.start()
    stack.push_async_callback(keys.close)
    declared = DeclaredKeys(keys.held, ClickHouseSink(config.clickhouse), lambda: listed(config.clickhouse))
    declared.start()
    stack.push_async_callback(declared.close)
    sums = RefreshWatch(lambda: refreshes(config.clickhouse))
    sums.start()
    stack.push_async_callback(sums.close)
    adapters = adapters_of(respond)
    matrices = matrices_of(respond, adapters)
    works = SetUp(ladder, respond.approvers, matrices)
    night = await telling(config, decisions, books, keys, stack, works)
    deliveries = night.deliveries
    carrier = Carrier(
        config.topics.responses, producer, decisions, time.time,
        actors=actors_of(respond, adapters, decisions.ledger), undoers=undoers_of(adapters), ladder=ladder,
        approvers=respond.approvers,
    )  # fmt: skip
    caretaker = Caretaker(carrier, keys, _paging(deliveries), drills=books.drills)
    caretaker.start()
    stack.push_async_callback(caretaker.close)
    rotations = Drain(
        carrier, ladder, keys, books, ClickHouseRotations(config), keys.held, matrices,
        lambda: kill_switch(respond), night.blind,
    )  # fmt: skip
    looks = [
        Round("overlaps", drain.DEADLINES_S, rotations.end_overlaps),
        Round("drain", drain.EVERY_S, rotations.look),
    ]
    if ladder.policy.promotion == "required":
        looks.append(Round("review", review.EVERY_S, Review(carrier, ladder, ClickHouseWrongs(config)).look))
    rounds = Rounds(caretaker, tuple(looks))
    rounds.start()
    stack.push_async_callback(rounds.close)
    deliveries.checks.append(rounds.check)
    responder = Responder(
        ladder=ladder, approvers=respond.approvers, matrices=matrices, carrier=carrier,
        keys=keys, networks=ClickHouseNetworks(config.clickhouse), deliveries=deliveries,
        killed=lambda: kill_switch(respond),
    )  # fmt: skip
    await responder.note_policy()
    return responder, caretaker


async def _witness(
    config: Config, responder: Responder, caretaker: Caretaker, books: Books, stack: AsyncExitStack
) -> Callable[[], None]:
    """Watches whether gateways obey; returns what raises its failure."""
    settings, deliveries = config.respond.enforcement, responder.deliveries
    if not settings.watch:
        return lambda: None
    verdicts = Verdicts(
        config.topics.responses, responder.carrier.publisher, deliveries, responder.decisions, books, responder.keys,
        responder.matrices, lambda: caretaker.partitions, config.respond.night.console_url,
    )  # fmt: skip
    stack.push_async_callback(verdicts.close)
    deliveries.letting_go.append(verdicts.let_go)
    deliveries.checks.append(verdicts.check)
    enforcement = Enforcement(settings.skew_s, settings.watch_s, settings.unproven_s)
    return await stack.enter_async_context(witness.witnessing(config, enforcement, verdicts.tell, verdicts.in_force))


def adapters_of(respond: Respond) -> dict[str, Adapter]:
    """By the name that the policy calls them: an entry of respond.adapters, or an endpoint as the signed webhook."""
    return build.adapters(respond)


def matrices_of(respond: Respond, adapters: Mapping[str, Adapter]) -> dict[str, Matrix]:
    """What each can do; where nothing is enforced and no adapter named, as if everything could be done."""
    anything: dict[str, Matrix] = {} if ladder_of(respond).policy.mode == "enforce" else {"": MATRIX}
    return anything | {name: each.matrix for name, each in adapters.items()}


def actors_of(respond: Respond, adapters: Mapping[str, Adapter], ledger: Ledger) -> dict[str, Actor]:
    """Only an enforcing policy gets something that can act."""
    if ladder_of(respond).policy.mode != "enforce":
        return {}

    def killed() -> str:
        return kill_switch(respond) or ledger.held

    return {name: Acting(adapter, killed, time.time) for name, adapter in adapters.items()}


def undoers_of(adapters: Mapping[str, Adapter]) -> dict[str, Actor]:
    """What was done is taken back in every mode, and though the kill switch is on: a suspension ends when it said."""
    return {name: Undoer(Acting(adapter, str, time.time)) for name, adapter in adapters.items()}


class Undoer:
    """Undoes, and can do nothing else."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        """Refuses what is no undo."""
        if intent.direction != "undo":
            return Outcome("failed", "not sent: this can only undo", "failed")
        return await self._actor.act(intent, note)


def _paging(deliveries: Deliveries) -> Callable[[Incident], Awaitable[None]]:
    async def page(incident: Incident) -> None:
        for released in await deliveries.send(incident, 0):
            await released.wait()

    return page


async def decisions_of(
    config: Config, producer: Producer | None, stack: AsyncExitStack, name: str, *followers: Follower
) -> Decisions:
    """The decisions topic, read up to now and followed from there, until the stack closes; followers get all of it.

    `producer` None: only read.
    """
    topic = config.topics.decisions
    ident = await topic_id(config.kafka, topic)  # before the first record is read

    async def same() -> bool:
        with contextlib.suppress(Fatal):  # no broker, or none of that name yet: the next look tells
            return await topic_id(config.kafka, topic) == ident
        return True

    reader = await _decision_reader(config, stack)
    decisions = Decisions(producer or ReadsOnly(), reader, topic, name, same=same if ident else None)
    decisions.followers.extend(followers)
    if producer is None:
        end = (await fetched_highwaters(config.kafka, topic, [0]))[0]

        async def all_read() -> bool:
            return await reader.position(topic) >= end

        decisions.all_read = all_read
    await decisions.start()
    stack.push_async_callback(decisions.close)
    return decisions


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
