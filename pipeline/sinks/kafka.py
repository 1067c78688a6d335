"""Kafka by aiokafka: client settings out of the configuration, a producer (BulkPublisher and PageLog), what topics hold

Both runners use the same producer: acks=all, idempotent (so retries neither double nor reorder), lz4. No transactions.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownError,
    UnsupportedVersionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.config.tree import Kafka
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.partitioner import PARTITIONERS
from pipeline.ports import Headers, Outgoing
from pipeline.sinks.packing import quick_lz4
from pipeline.sinks.tls import ssl_context, user_of

log = logging.getLogger(__name__)
# What aiokafka calls an unexpected error there, we say in our own words, with what is done about it (`_start_plainly`).
logging.getLogger("aiokafka.producer.sender").addFilter(lambda said: "InitProducerIdRequest" not in said.getMessage())

REQUEST_TIMEOUT_S: Final = 30.0
HIGHWATER_WAIT_S: Final = 30.0
BATCH_BYTES: Final = 131_072
UNCOMPRESSED: Final = 0
"""Kafka's number for it in a batch of records."""
REQUESTS_FETCH_BYTES: Final = 2 << 20
"""Of one partition of the requests topic at once: a whole slice (`worker.slice_bytes`), of which there is more."""
PAGES_FETCH_BYTES: Final = 8 << 20
"""Of one partition of the pages topic at once: whoever reads it reads all of it."""
DENIED: Final = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)


def client_settings(kafka: Kafka) -> dict[str, Any]:
    """What every aiokafka client of ours gets. Raises ConfigError."""
    settings: dict[str, Any] = {
        "bootstrap_servers": [broker.strip() for broker in kafka.brokers.split(",") if broker.strip()],
        "client_id": kafka.client_id,
        "security_protocol": kafka.security,
    }
    if not settings["bootstrap_servers"]:
        raise ConfigError("kafka.brokers is empty: give HOST:PORT[,HOST:PORT...]")
    if kafka.security.startswith("SASL"):
        settings |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": kafka.password.reveal(),
        }
    context = ssl_context(kafka)
    return settings | ({} if context is None else {"ssl_context": context})


async def by_consequence(kafka: Kafka, error: BaseException) -> Fatal:
    """A failure to connect as one clear line."""
    if isinstance(error, (KafkaConnectionError, OSError, TimeoutError)):
        error = await _first_answer(kafka) or error  # aiokafka says the same of no broker and of a wrong password
    if isinstance(error, (AuthenticationFailedError, SaslAuthenticationFailed)):
        return Fatal(
            f"Kafka at {kafka.brokers} refuses user {kafka.username!r}: check kafka.username, password, mechanism"
        )
    if isinstance(error, DENIED):
        return Fatal(
            f"Kafka at {kafka.brokers}: user {user_of(kafka)!r} may not do this ({type(error).__name__}): grant what "
            "it needs, deploy/kafka/acls.sh has the list"
        )
    if isinstance(error, ssl.SSLError):
        return Fatal(_without_tls(kafka, error))
    if isinstance(error, (KafkaConnectionError, OSError, TimeoutError)):
        silent = "no answer in time" if isinstance(error, (TimeoutError, RequestTimedOutError)) else "it hangs up"
        unnamed = kafka.security.endswith("SSL") and not kafka.cert_file
        asks = " Does it ask for a certificate (kafka.cert_file)?" if unnamed else ""
        reason = str(error) or f"{silent}; does that port speak {kafka.security}?{asks}"
        return Fatal(f"no Kafka broker answers at {kafka.brokers} ({kafka.security}): {reason}")
    return Fatal(f"Kafka at {kafka.brokers}: {type(error).__name__}: {error}")


def _without_tls(kafka: Kafka, error: ssl.SSLError) -> str:
    """Who refused whom: the broker sends an alert, what we refuse ourselves has none."""
    if "_ALERT_" not in (error.reason or ""):
        return f"no TLS with Kafka at {kafka.brokers}: {error}; check kafka.security and kafka.ca_file"
    if not kafka.cert_file:
        return (
            f"Kafka at {kafka.brokers} asks for a client certificate: set kafka.cert_file and kafka.key_file ({error})"
        )
    return (
        f"Kafka at {kafka.brokers} refuses the certificate of {user_of(kafka)!r} ({error}): do the brokers trust who "
        f"signed {kafka.cert_file} (their ssl.truststore), and is the chain in it whole?"
    )


async def _first_answer(kafka: Kafka) -> BaseException | None:
    """What the first broker says to a connection of its own, None where it lets us in."""
    settings = client_settings(kafka)
    host, port, _ = collect_hosts(settings.pop("bootstrap_servers"), randomize=False)[0]
    try:
        connection = await create_conn(host, port, request_timeout_ms=5_000, **settings)
    except ssl.SSLError as error:
        return error
    except (KafkaError, OSError) as error:
        cause = error.__cause__ or error.__context__
        return cause if isinstance(cause, ssl.SSLError) else error
    connection.close()
    return None


def _producer(kafka: Kafka, *, idempotent: bool) -> AIOKafkaProducer:
    quick_lz4()
    return AIOKafkaProducer(
        **client_settings(kafka),
        acks="all",
        enable_idempotence=idempotent,
        compression_type="lz4",
        linger_ms=0,
        max_batch_size=BATCH_BYTES,
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
    )


class Producer:
    """`BulkPublisher` and `PageLog` in one. Make it inside the event loop, `start` it, `close` it."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer = _producer(kafka, idempotent=True)
        self._pages_topic = ""

    def pages_to(self, topic: str) -> Producer:
        """Name the topic that `send` writes to."""
        self._pages_topic = topic
        return self

    async def start(self) -> None:
        """Connect. Raises Fatal with one clear line."""
        try:
            await self._producer.start()
        except (UnknownError, IncompatibleBrokerVersion, UnsupportedVersionError):
            await self._start_plainly()  # Tansu, the demo's broker, gives out no producer ids
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise await by_consequence(self._kafka, error) from error

    async def _start_plainly(self) -> None:
        """Without idempotence a retry may double a record: every reader of ours drops such by its id or offset."""
        log.warning("Kafka at %s gives out no producer ids: sending without idempotence", self._kafka.brokers)
        await self._producer.stop()
        self._producer = _producer(self._kafka, idempotent=False)
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise await by_consequence(self._kafka, error) from error

    async def close(self) -> None:
        """Send what is still buffered and disconnect."""
        await self._producer.stop()

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Send and await the acknowledgement; returns the offset. Raises Retry, Fatal where no retry helps."""
        with _to_topic(topic):
            sent = await self._producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))
        return int(sent.offset)

    async def publish_all(self, topic: str, records: Sequence[Outgoing]) -> None:
        """The same of many, by their keys' partitions, in batches of ours. Raises Retry, Fatal as `publish`.

        One by one each costs a task, two futures and a batch that is packed by itself: 150 us where this takes 10.
        """
        with _to_topic(topic):
            count = len(await self._producer.partitions_for(topic))
            lots: defaultdict[int, list[Outgoing]] = defaultdict(list)
            for record in records:
                lots[_home(record[0], count)].append(record)
            sending = [self._publish_batches(topic, number, lot) for number, lot in lots.items()]
            done = await asyncio.gather(*sending, return_exceptions=True)  # no batch is left on its way
            for failure in filter(None, done):
                raise failure

    async def _publish_batches(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        for batch, _ in batches(records, self._producer.create_batch):
            await (await self._producer.send_batch(batch, topic, partition=partition))

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        """Send one page and await it. Raises Fatal: a later manifest must not assume this page."""
        try:
            sent = await self._producer.send_and_wait(self._pages_topic, value, key=key, partition=partition)
        except KafkaError as error:
            raise Fatal(f"a page was not written to {self._pages_topic}: {type(error).__name__}: {error}") from error
        return int(sent.offset)

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        """Send pages in batches of ours and await them; returns the last offset. Raises Fatal as `send`.

        One by one each page costs a task, a future and a good 100 us. The batches are not compressed: pages are, and
        aiokafka's lz4 (level 9) takes 600 us for 18 KB that don't get smaller, 40 times what all else takes.
        """
        last = -1
        try:
            for batch, count in batches([(key, value, ()) for key, value in records], uncompressed):
                sent = await (await self._producer.send_batch(batch, self._pages_topic, partition=partition))
                last = int(sent.offset) + count - 1
        except KafkaError as error:
            raise Fatal(f"pages were not written to {self._pages_topic}: {type(error).__name__}: {error}") from error
        return last


@contextmanager
def _to_topic(topic: str) -> Iterator[None]:
    """What aiokafka raises inside becomes Retry, or Fatal where no retry helps."""
    try:
        yield
    except (MessageSizeTooLargeError, TopicAuthorizationFailedError) as error:
        raise Fatal(f"cannot write to topic {topic}: {type(error).__name__}: {error}") from error
    except KafkaError as error:
        raise Retry(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=4_096)  # few keys have most of the messages
def _home(key: bytes, partitions: int) -> int:
    """As aiokafka's own partitioner, which is Java's."""
    return PARTITIONERS["murmur2"](key, partitions)


uncompressed: Final = partial(BatchBuilder, BATCH_BYTES, UNCOMPRESSED)


def batches(
    records: Iterable[tuple[bytes, bytes | None, Headers]], make: Callable[[], BatchBuilder]
) -> Iterator[tuple[BatchBuilder, int]]:
    """Batches of ours and how many records are in each; a record that is longer than one is a batch of its own."""
    batch, count = make(), 0
    for key, value, headers in records:
        if batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
            yield batch, count
            batch, count = make(), 0
            batch.append(timestamp=None, key=key, value=value, headers=list(headers))  # whatever its size
        count += 1
    if count:
        yield batch, count


@asynccontextmanager
async def side_consumer(kafka: Kafka, **settings: Any) -> AsyncIterator[Any]:
    """A consumer without a group. Raises Fatal with one clear line if no broker answers."""
    consumer = AIOKafkaConsumer(
        **client_settings(kafka), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **settings
    )
    async with started(kafka, consumer):
        yield consumer


@asynccontextmanager
async def started(kafka: Kafka, consumer: AIOKafkaConsumer) -> AsyncIterator[None]:
    """The consumer runs inside. Raises what `by_consequence` makes of an answer that fails."""
    try:
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            raise await by_consequence(kafka, error) from error
        yield
    finally:
        await consumer.stop()


async def fetched_highwaters(kafka: Kafka, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """End offsets out of fetch responses: right on every broker, also where ListOffsets answers wrongly (Tansu).

    Raises Fatal with one clear line where they do not come.
    """
    wanted = {TopicPartition(topic, partition) for partition in partitions}
    if not wanted:
        return {}
    async with side_consumer(kafka, max_partition_fetch_bytes=1, fetch_max_wait_ms=50) as consumer:
        consumer.assign(list(wanted))
        await consumer.seek_to_beginning()
        try:
            async with asyncio.timeout(HIGHWATER_WAIT_S):
                while any(consumer.highwater(tp) is None for tp in wanted):
                    await consumer.getmany(timeout_ms=50)
        except TimeoutError as error:
            raise Fatal(f"the ends of {topic} were not told within {HIGHWATER_WAIT_S:.0f} s") from error
        return {tp.partition: int(consumer.highwater(tp)) for tp in wanted}


async def log_starts(kafka: Kafka, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """First offset that each partition still has."""
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    if not wanted:
        return {}
    async with side_consumer(kafka) as consumer:
        starts: Mapping[TopicPartition, int] = await consumer.beginning_offsets(wanted)
    return {tp.partition: int(offset) for tp, offset in starts.items()}


async def pages_in_turn(
    kafka: Kafka, topic: str, partitions: Iterable[int]
) -> AsyncGenerator[tuple[int, dict[bytes, bytes]], None]:
    """Partition after partition of the pages topic: the last value of every key, tombstoned ones left out.

    While the caller works on one the next is read, so two are in memory. Close it (`aclosing`) if not read to its end.
    Faust's own recovery makes an event of each record, in all some 100 us; a fetch that is taken whole costs 5 to 10.
    """
    waiting = list(partitions)
    if not waiting:
        return
    settings = {  # only an empty one waits; a page has a checksum of its own in the manifest
        "max_partition_fetch_bytes": PAGES_FETCH_BYTES, "fetch_max_wait_ms": 10, "check_crcs": False,
    }  # fmt: skip
    async with side_consumer(kafka, **settings) as consumer:
        reading = asyncio.create_task(_read_partition(consumer, topic, waiting[0]))
        try:
            for number, following in zip_longest(waiting, waiting[1:]):
                pages = await reading
                if following is not None:
                    reading = asyncio.create_task(_read_partition(consumer, topic, following))
                yield number, pages
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read_partition(consumer: Any, topic: str, partition: int) -> dict[bytes, bytes]:
    tp, pages, end = TopicPartition(topic, partition), dict[bytes, bytes](), None
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    # The position passes records that compaction removed, so it is what tells the end; that is the first fetch's: what
    # another member writes meanwhile is nothing that the group lets it go on from.
    while end is None or await consumer.position(tp) < end:
        for records in (await consumer.getmany(timeout_ms=20)).values():
            for record in records:
                stage(pages, record.key, record.value)
        end = consumer.highwater(tp) if end is None else end
    return pages


async def read_pages(kafka: Kafka, topic: str, partitions: Iterable[int]) -> dict[int, dict[bytes, bytes]]:
    """Of all these partitions at once, as `pages_in_turn`."""
    return {number: pages async for number, pages in pages_in_turn(kafka, topic, partitions)}


def stage(pages: dict[bytes, bytes], key: bytes | None, value: bytes | None) -> None:
    """One record of the pages topic, the last one wins. Raises Fatal for a record without a key."""
    if key is None:
        raise Fatal("the pages topic holds a record without a key")
    if value is None:
        pages.pop(key, None)
    else:
        pages[key] = value
