"""The key catalogue: what is declared of each key, as one immutable snapshot with a version.

On the compacted topic `api.keys` a record is one `schemas.key.Key` under its key id, a tombstone takes it back. The
topic is read by a consumer of our own, without a group, to its end: before the first slice, then again now and then;
the new snapshot is a side input and adopted only at a checkpoint (design, section 4). A record that can't be read is
logged and leaves its key undeclared, which is the safe side: protected and only observed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from pipeline.config.tree import Config
from pipeline.control.side_topic import Brokers, Source, Tail
from pipeline.errors import ConfigError
from pipeline.times import micros
from schemas.key import Key

logger = logging.getLogger(__name__)

_BITS: Final = 1 << 128
_decoder = msgspec.json.Decoder(Key)
_encoder = msgspec.json.Encoder()
_NO_KEY: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes that are no key."""


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
        """What is declared of a key, and when the one that replaces it was made; None where nothing is."""
        key = self._keys.get(key_id)
        new = self._keys.get(key.rotated_to) if key is not None and key.rotated_to and not key.superseded_at else None
        since = made_after(key, new) if key is not None and new is not None else ""
        return msgspec.structs.replace(key, superseded_at=since) if key is not None and since else key

    def written(self, key_id: str) -> Key | None:
        """What is declared of the key alone, as it was published."""
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


def made_after(old: Key, new: Key) -> str:
    """When the key that replaces `old` was made, as it declares; "" where it says nothing or was there before `old`.

    Whoever rotates to a key that he has had for long declares no moment: `superseded_at` may say it.
    """
    text, made = new.created_at or new.last_rotated_at, old.created_at or old.last_rotated_at
    try:
        return text if not made or not text or micros(text) > micros(made) else ""
    except ValueError:
        return text


def _weight(key: Key) -> int:
    return int.from_bytes(hashlib.blake2b(_encoder.encode(key), digest_size=16).digest())


class CatalogueReader:
    """Keeps a consumer at the end of the keys topic. `open`, then `refresh` as often as you like, then `close`."""

    def __init__(self, config: Config, source: Source | None = None) -> None:
        self._tail = Tail(config.topics.keys, source or Brokers(config.kafka, config.topics.keys))
        self.catalogue = Catalogue.empty()

    async def open(self) -> Catalogue:
        """Connect and read to the end. A missing topic is an empty catalogue. Raises Fatal."""
        await self._tail.open()
        return await self.refresh()

    async def close(self) -> None:
        """Disconnect."""
        await self._tail.close()

    async def refresh(self) -> Catalogue:
        """The newest snapshot; the very same object where nothing has changed. Raises Fatal."""
        changes: dict[str, Key | None] = {}
        for record in await self._tail.news():
            _take(record, changes)
        if not self._tail.partitions:
            logger.warning("topic %s does not exist: no key is declared, every key is only observed", self._tail.topic)
        changes = {key_id: key for key_id, key in changes.items() if self.catalogue.written(key_id) != key}
        if changes:
            self.catalogue = self.catalogue.changed(changes)
        return self.catalogue


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


async def read_catalogue(config: Config, source: Source | None = None) -> Catalogue:
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
        from pipeline.keys.key_import import read_csv

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
