"""The key catalogue: what is declared of each key, as one immutable snapshot with a version.

On the compacted topic `api.keys` a record is one `schemas.key.Key` under its key id, a tombstone takes it back. The
topic is read by a consumer of our own, without a group, to its end: before the first slice, then again now and then;
the new snapshot is a side input and adopted only at a checkpoint (design, section 4). A record that can't be read is
logged and leaves its key undeclared, which is the safe side: protected and only observed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
from aiokafka import TopicPartition

from pipeline.config import Config
from pipeline.errors import ConfigError, Fatal
from schemas.key import Key

logger = logging.getLogger(__name__)

READ_TIMEOUT_S: Final = 60.0
POLL_MS: Final = 200
_BITS: Final = 1 << 128
_decoder = msgspec.json.Decoder(Key)
_encoder = msgspec.json.Encoder()
_NO_KEY: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes that are no key."""


class KeysTopic(Protocol):
    """Where the keys are read from."""

    async def partitions(self) -> int:
        """How many the topic has; 0 where there is no such topic."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """A consumer without a group, as `pipeline.sinks.kafka.side_consumer`."""


@dataclass(frozen=True)
class BrokersTopic:
    """The topic on the configured broker. An unassigned consumer has no metadata of it, hence the admin's answer."""

    config: Config

    async def partitions(self) -> int:
        """Asked anew each time. Raises Fatal."""
        from pipeline.sinks.topics import partitions_of

        return (await partitions_of(self.config.kafka, [self.config.topics.keys])).get(self.config.topics.keys, 0)

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Raises Fatal on entering where no broker answers."""
        from pipeline.sinks.kafka import side_consumer

        return side_consumer(self.config.kafka)


class Catalogue:
    """All declared keys at one moment. `version` names the content: the same keys, in any order, give the same one."""

    __slots__ = ("_keys", "_sum", "version")

    def __init__(self, keys: Mapping[str, Key], total: int) -> None:
        self._keys = keys
        self._sum = total
        self.version = f"{total:032x}"

    @staticmethod
    def empty() -> Catalogue:
        """The catalogue in which nothing is declared."""
        return Catalogue({}, 0)

    @staticmethod
    def of(keys: Iterable[Key]) -> Catalogue:
        """The last one counts where a key occurs twice."""
        return Catalogue.empty().changed({key.key_id: key for key in keys})

    def get(self, key_id: str) -> Key | None:
        """What is declared of a key; None where nothing is."""
        return self._keys.get(key_id)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def items(self) -> Iterable[tuple[str, Key]]:
        """Key id and declaration."""
        return self._keys.items()

    def changed(self, changes: Mapping[str, Key | None]) -> Catalogue:
        """The next snapshot; None takes a key back. The version follows from the difference alone."""
        keys, total = dict(self._keys), self._sum
        for key_id, key in changes.items():
            before = keys.pop(key_id, None)
            total -= _weight(before) if before is not None else 0
            if key is not None:
                keys[key_id] = key
                total += _weight(key)
        return Catalogue(keys, total % _BITS)


def _weight(key: Key) -> int:
    return int.from_bytes(hashlib.blake2b(_encoder.encode(key), digest_size=16).digest())


class CatalogueReader:
    """Keeps a consumer at the end of the keys topic. `open`, then `refresh` as often as you like, then `close`."""

    def __init__(self, config: Config, source: KeysTopic | None = None) -> None:
        self._topic = config.topics.keys
        self._source: KeysTopic = source or BrokersTopic(config)
        self._stack = AsyncExitStack()
        self._consumer: Any = None
        self._partitions: list[TopicPartition] = []
        self.catalogue = Catalogue.empty()

    async def open(self) -> Catalogue:
        """Connect and read to the end. A missing topic is an empty catalogue. Raises Fatal."""
        self._consumer = await self._stack.enter_async_context(self._source.open())
        await self._assign()
        return await self.refresh()

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def refresh(self) -> Catalogue:
        """The newest snapshot; the very same object where nothing has changed. Raises Fatal."""
        if not self._partitions:
            await self._assign()
        changes: dict[str, Key | None] = {}
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._read(changes)
        except TimeoutError as error:
            raise Fatal(f"topic {self._topic} could not be read to its end in {READ_TIMEOUT_S:.0f} s") from error
        changes = {key_id: key for key_id, key in changes.items() if self.catalogue.get(key_id) != key}
        if changes:
            self.catalogue = self.catalogue.changed(changes)
        return self.catalogue

    async def _assign(self) -> None:
        count = await self._source.partitions()
        if not count:
            logger.warning("topic %s does not exist: no key is declared, every key is only observed", self._topic)
            return
        self._partitions = [TopicPartition(self._topic, number) for number in range(count)]
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning(*self._partitions)

    async def _read(self, changes: dict[str, Key | None]) -> None:
        """To the end as the fetch responses tell it; positions pass records that compaction took away."""
        behind = bool(self._partitions)
        while behind:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for records in batches.values():
                for record in records:
                    _take(record, changes)
            behind = bool(batches) or not await self._at_end()

    async def _at_end(self) -> bool:
        for partition in self._partitions:
            end = self._consumer.highwater(partition)
            if end is None or await self._consumer.position(partition) < end:
                return False
        return True


def _take(record: Any, changes: dict[str, Key | None]) -> None:
    """One record of the topic; what can't be read leaves its key undeclared."""
    key_id = (record.key or b"").decode("utf-8", "replace")
    if not record.value:
        changes[key_id] = None
        return
    try:
        key = _decoder.decode(record.value)
    except _NO_KEY as error:
        logger.warning("%s offset %d is no key and is left out: %s", record.topic, record.offset, _words(error))
        changes[key_id] = None
        return
    if key.key_id != key_id:
        logger.warning("%s offset %d speaks of another key than its own and is left out", record.topic, record.offset)
        return
    changes[key_id] = key


def _words(error: Exception) -> str:
    """What was wrong; msgspec quotes the value of enums, Python the bytes that are no UTF-8: neither goes on."""
    if isinstance(error, msgspec.ValidationError):
        return re.sub(r"(?s)enum value .* - at", "value - at", str(error))
    return "not JSON in UTF-8"


async def read_catalogue(config: Config, source: KeysTopic | None = None) -> Catalogue:
    """One snapshot of the keys topic, read to its end. Raises Fatal where the broker does not answer."""
    reader = CatalogueReader(config, source)
    try:
        return await reader.open()
    finally:
        await reader.close()


async def publish_keys(config: Config, keys: Iterable[Key], removed: Iterable[str] = ()) -> int:
    """Write keys, and tombstones of removed ones, to the topic; returns how many. Raises Fatal or Retry."""
    from pipeline.sinks.kafka import Producer

    producer, written, tombstone = Producer(config.kafka), 0, cast("bytes", None)
    await producer.start()
    try:
        for key in keys:
            await producer.publish(config.topics.keys, key.key_id.encode(), _encoder.encode(key))
            written += 1
        for key_id in removed:
            await producer.publish(config.topics.keys, key_id.encode(), tombstone)
            written += 1
    finally:
        await producer.close()
    return written


def load_file(path: Path) -> Catalogue:
    """A catalogue from a file: JSON lines or one JSON array of keys, or CSV. Raises ConfigError naming the line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"key file {path}: {error.strerror}") from error
    if path.suffix.lower() == ".csv":
        from pipeline.key_import import read_csv

        return Catalogue.of(read_csv(path))
    if raw.lstrip()[:1] == b"[":
        return Catalogue.of(_decode_all(raw, path))
    lines = ((number, line) for number, line in enumerate(raw.splitlines(), 1) if line.strip())
    return Catalogue.of([_decode_line(line, number, path) for number, line in lines])


def _decode_all(raw: bytes, path: Path) -> list[Key]:
    try:
        return msgspec.json.decode(raw, type=list[Key])
    except _NO_KEY as error:
        raise ConfigError(f"key file {path}: {_words(error)}") from error


def _decode_line(line: bytes, number: int, path: Path) -> Key:
    try:
        return _decoder.decode(line)
    except _NO_KEY as error:
        raise ConfigError(f"key file {path}, line {number}: {_words(error)}") from error
