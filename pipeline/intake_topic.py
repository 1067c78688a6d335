"""The raw topic as intake's source: offsets are committed by hand, after the broker acknowledged what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pipeline.config import Config
from pipeline.errors import Fatal
from pipeline.formats import Options
from pipeline.intake import Outgoing, Pump, batches, options_of, stream
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
        while not stop.is_set():
            await _one_fetch(consumer, config, pump)
    except (KafkaError, OSError) as error:
        raise await by_consequence(config.kafka, error) from error
    finally:
        await consumer.stop()


async def _one_fetch(consumer: AIOKafkaConsumer, config: Config, pump: Pump) -> None:
    fetched = await consumer.getmany(timeout_ms=500, max_records=1000)
    pump.health.polled()
    options = options_of(config)
    for tp, records in fetched.items():
        METRICS.events_consumed.labels(tp.topic).inc(len(records))
        outgoing = (out for record in records for out in _routed(record, config.intake.format, options))
        for batch in batches(outgoing):  # never all at once: records may unpack to a million each
            await pump.persist(batch)
        await _commit(consumer, tp, records[-1].offset + 1)


def _routed(record: ConsumerRecord, format: str, options: Options) -> Iterator[Outgoing]:
    if record.value is None:  # a tombstone says nothing
        return iter(())
    return stream(record.value, format, options, f"{record.topic}/{record.partition}/{record.offset}")


async def _commit(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> None:
    """Another member may own the partition by now: it reads the same again, and the core drops the repeats."""
    try:
        await consumer.commit({tp: offset})
        METRICS.commits.labels("ok").inc()
    except (CommitFailedError, IllegalStateError):
        METRICS.commits.labels("failed").inc()
    except KafkaError as error:
        raise Fatal(f"the commit of {tp.topic} failed: {type(error).__name__}") from error
