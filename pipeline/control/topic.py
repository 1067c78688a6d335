"""The control topic: reading it to its end, again and again, and writing to it.

A record that can't be read, or says times that are none, is logged and left out: one bad message must not stop the
judging of all keys. Its place counts all the same, so that everybody's version of the topic is the same.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from pipeline.config.tree import Config
from pipeline.control.controls import NO_CONTROLS, Controls, Said
from pipeline.control.side_topic import Brokers, Source, Tail
from pipeline.errors import ConfigError
from pipeline.times import micros
from schemas.control import Control, Feedback, Forget, Mute, control_id, decode, encode

logger = logging.getLogger(__name__)


class ControlsReader:
    """Keeps a consumer at the end of the control topic. `open`, then `refresh`, then `close`."""

    def __init__(self, config: Config, source: Source | None = None, epoch: str | None = None) -> None:
        """`epoch`: the topic's identity, asked of the broker where it is None."""
        self._config = config
        self._topic = config.topics.control
        self._tail = Tail(self._topic, source or Brokers(config.kafka, self._topic))
        self._epoch = epoch
        self.controls: Controls = NO_CONTROLS

    async def open(self) -> Controls:
        """Connect and read to the end. A missing topic says nothing. Raises Fatal."""
        await self._tail.open()
        return await self.refresh()

    async def close(self) -> None:
        """Disconnect."""
        await self._tail.close()

    async def refresh(self) -> Controls:
        """The newest snapshot; the very same object where nothing has changed. Raises Fatal, ConfigError."""
        records = await self._tail.news()
        if len(self._tail.partitions) > 1:
            raise ConfigError(
                f"{self._topic} has {len(self._tail.partitions)} partitions: what people say must have one order. "
                "Delete it and make it with one (deploy/kafka/topics.sh)"
            )
        if not records:
            return self.controls
        if not self.controls.end:
            self.controls = Controls(await self._identity())
        said = [Said(record.offset, control) for record in records if (control := read(record)) is not None]
        self.controls = self.controls.more(said, records[-1].offset + 1)
        return self.controls

    async def _identity(self) -> str:
        from pipeline.sinks.topics import topic_id

        if self._epoch is None:
            self._epoch = await topic_id(self._config.kafka, self._topic) or self._topic
        return self._epoch


def read(record: Any) -> Control | None:
    """One record of the topic; None, and a line in the log, for what is no control. A tombstone was `erase`'s."""
    if record.value is None:
        return None
    try:
        control = decode(record.value or b"")
        check_times(control)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        logger.warning("%s offset %d is no control and is left out: %s", record.topic, record.offset, error)
        return None
    if (record.key or b"").decode("utf-8", "replace") != control_id(control):
        logger.warning("%s offset %d is under another key than its own and is left out", record.topic, record.offset)
        return None
    return control


def check_times(control: Control) -> None:
    """Raises ValueError for a time that is none."""
    times: tuple[str, ...]
    match control:
        case Feedback():
            times = (control.at, control.opened_at, control.until or control.at)
        case Mute():
            times = (control.at, control.until)
        case Forget():
            times = (control.at,)
        case _:
            times = (control.from_, control.to, control.at)
    for text in times:
        if not micros(text):
            raise ValueError("a time is missing")


async def read_controls(config: Config) -> Controls:
    """One snapshot, read to its end. Raises Fatal where the broker does not answer."""
    reader = ControlsReader(config)
    try:
        return await reader.open()
    finally:
        await reader.close()


async def say(config: Config, controls: list[Control]) -> list[int]:
    """Write to the control topic; returns the places. Makes the topic where that is allowed. Raises Fatal or Retry."""
    from pipeline.sinks.kafka import Producer
    from pipeline.sinks.topics import ensure_control

    for each in controls:
        try:
            decode(encode(each))
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigError(f"not said: {error}") from None
    await ensure_control(config)
    producer = Producer(config.kafka)
    await producer.start()
    try:
        topic = config.topics.control
        return [await producer.publish(topic, control_id(each).encode(), encode(each)) for each in controls]
    finally:
        await producer.close()
