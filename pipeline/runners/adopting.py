"""When a replay takes up what people said: at the times they said it, or at the very offsets at which the worker did.

A file has one control a line, as `keywatch mutes` and the control topic have them; each holds from the first record of
a partition whose time is not before the control's `at`. With `adopted` the rows of `adoptions` tell for each partition
from which offset on it was judged by the control topic up to where: the same log and adoptions give the same incidents.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.answers import connected
from pipeline.asking.queries import ask
from pipeline.config.tree import Config
from pipeline.control.controls import NO_CONTROLS, Controls, Said
from pipeline.control.topic import check_times, read_controls
from pipeline.core import Sides
from pipeline.errors import ConfigError, Fatal
from pipeline.runners.topic_range import Raw, Topic
from pipeline.times import micros
from schemas.control import decode

ADOPTED: Final = "adopted"


@dataclass(frozen=True, slots=True)
class Due:
    """The whole of it, and where which part of it begins: by time in ms, or by partition and offset."""

    controls: Controls = NO_CONTROLS
    times_ms: tuple[tuple[int, int], ...] = ()  # (from this time on, end), ascending
    offsets: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # partition -> [(from this offset on, end)]

    def begin(self, sides: Sides) -> Adopting:
        """One replay's progress through it."""
        return Adopting(self, sides)


NOTHING_DUE: Final = Due()


class Adopting:
    """How far each partition of one replay has come."""

    def __init__(self, plan: Due, sides: Sides) -> None:
        self._plan = plan
        self._sides = sides
        self._done: dict[int, int] = {}

    def due(self, record: Raw) -> Iterator[Sides]:
        """The side inputs that hold from this record on, if they are new; at most one."""
        if not self._plan.controls.end:
            return
        steps = self._plan.offsets.get(record.partition, []) if self._plan.offsets else list(self._plan.times_ms)
        place = record.offset if self._plan.offsets else record.timestamp_ms
        reached = bisect.bisect_right(steps, (place, 1 << 62))
        if reached > self._done.get(record.partition, 0):  # time in a log may go back, what was said stays
            self._done[record.partition] = reached
            yield dataclasses.replace(self._sides, controls=self._plan.controls.until(steps[reached - 1][1]))


def due_of(path: str) -> Due:
    """A file of controls, each from its own `at` on. Raises ConfigError naming the line."""
    try:
        lines = [line for line in Path(path).read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"--controls {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            control = decode(line)
            check_times(control)
        except (msgspec.MsgspecError, ValueError) as error:
            text = str(error).replace("`", "")
            raise ConfigError(f"--controls {path}, line {number}: {text}") from error
        found.append(control)
    found.sort(key=lambda control: micros(control.at))
    said = [Said(seq, control) for seq, control in enumerate(found)]
    times = tuple((-(-micros(control.at) // 1000), seq + 1) for seq, control in said)
    return Due(Controls.of(f"file {path}", said, len(said)), times)


class Adoption(msgspec.Struct, frozen=True):
    """A row of `adoptions` of the control topic: `version_id` is `epoch/end`."""

    partition: int
    offset: int
    version_id: str


def adopted(config: Config, topic: Topic) -> Due:
    """As the workers took up the control topic, by ClickHouse's rows. Raises Fatal where these are of another topic."""
    controls = asyncio.run(read_controls(config))
    with connected(config.clickhouse) as client:
        return adopted_by(_adoptions(client, topic), controls, config.topics.control)


def adopted_by(rows: Iterable[Adoption], controls: Controls, name: str) -> Due:
    """Of rows in the order of their offsets; `name`: of the control topic. Raises Fatal where they are of another.

    Who owns a partition never goes back on that topic. A row that does is of a worker that was thrown out while it
    adopted: frozen for a session at least, so that its successor has read no less, and it judged nothing after it.
    """
    offsets: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        epoch, _, end = row.version_id.rpartition("/")
        if row.version_id and epoch != controls.epoch:
            raise Fatal(
                f"{name} was made anew: what partition {row.partition} was judged by from offset "
                f"{row.offset} on is gone. Without --controls it is judged as if nobody had said anything"
            )
        steps = offsets.setdefault(row.partition, [])
        if not steps or int(end or 0) > steps[-1][1]:
            steps.append((row.offset, int(end or 0)))
    return Due(controls, offsets=offsets) if offsets else NOTHING_DUE


def _adoptions(client: Client, topic: Topic) -> list[Adoption]:
    sql = """
        SELECT partition, offset, version_id FROM adoptions FINAL
        WHERE topic = {topic:String} AND epoch = {epoch:String} AND input = 'controls' ORDER BY partition, offset"""
    return ask(client, Adoption, sql, {"topic": topic.name, "epoch": topic.epoch})
