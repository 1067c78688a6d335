"""The raw topic as intake's source: offsets are committed by hand, after the broker acknowledged what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pipeline.config.tree import Config
from pipeline.errors import Fatal
from pipeline.formats import Options, Refused, place
from pipeline.formats.confluent import framed
from pipeline.intake import schema_registry
from pipeline.intake.run import Outgoing, Pump, batches_apart, options_of, outgoing, stream
from pipeline.intake.schema_registry import SchemaRegistry
from pipeline.metrics import METRICS
from pipeline.sinks.kafka import by_consequence, client_settings


async def from_topic(config: Config, pump: Pump, stop: asyncio.Event) -> None:
    """Read `topics.raw` as a group member until `stop`. Raises Fatal where the broker refuses or stays away."""
    consumer = AIOKafkaConsumer(
        config.topics.raw,
        **client_settings(config.kafka),
        group_id=config.intake.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(config.kafka.session_timeout_s * 1000),
        heartbeat_interval_ms=int(config.kafka.heartbeat_s * 1000),
        # A batch may wait for the broker as long as `Pump.persist` tries.
        max_poll_interval_ms=600_000,
    )
    try:
        await consumer.start()
        pump.health.recovered(True)
        async with schema_registry.opened(config.intake) as registry:
            while not stop.is_set():
                await _one_fetch(consumer, config, pump, registry)
    except (KafkaError, OSError) as error:
        raise await by_consequence(config.kafka, error) from error
    finally:
        await consumer.stop()


async def _one_fetch(consumer: AIOKafkaConsumer, config: Config, pump: Pump, registry: SchemaRegistry | None) -> None:
    fetched = await consumer.getmany(timeout_ms=500, max_records=1000)
    pump.health.polled()
    options = options_of(config)
    for tp, records in fetched.items():
        METRICS.events_consumed.labels(tp.topic).inc(len(records))
        if registry is not None:
            await registry.know(framed(each.value, each.headers) for each in records if each.value is not None)
        routed = (out for record in records for out in _routed(record, config.intake.format, options, registry))
        async for batch in batches_apart(routed):  # never all at once: records may unpack to a million each
            await pump.persist(batch)
        await _commit(consumer, tp, records[-1].offset + 1)


def _routed(
    record: ConsumerRecord, format: str, options: Options, registry: SchemaRegistry | None
) -> Iterator[Outgoing]:
    if record.value is None:  # a tombstone says nothing
        return iter(())
    position = f"{record.topic}/{record.partition}/{record.offset}"
    plain = record.value if registry is None else registry.plain(framed(record.value, record.headers))
    if isinstance(plain, Refused):
        return iter([outgoing(place(plain, f"{position}/0"), format, record.value, len(record.value))])
    return stream(plain, format, options, position)


async def _commit(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> None:
    """Another member may own the partition by now: it reads the same again, and the core drops the repeats."""
    try:
        await consumer.commit({tp: offset})
        METRICS.commits.labels("ok").inc()
    except (CommitFailedError, IllegalStateError):
        METRICS.commits.labels("failed").inc()
    except KafkaError as error:
        raise Fatal(f"the commit of {tp.topic} failed: {type(error).__name__}") from error
