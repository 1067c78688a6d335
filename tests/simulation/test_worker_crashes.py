"""The worker in one process with everything around it faked: crashes between any two effects, slices cut anew, lost
and repeated. The invariant is the clean run's: the same incidents, rows and state, and no commit beyond the state.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import ClickHouse, Config, Worker
from pipeline.core import Sides, Slice
from pipeline.errors import Retry
from pipeline.health import Health
from pipeline.ports import Columns, Headers
from pipeline.recover import fill, load
from pipeline.runners.parts import Parts
from pipeline.runners.shell import Fetched, Shell
from pipeline.runners.start import Edges, Ready
from pipeline.sinks.kafka import stage
from schemas.incident import Incident
from tests.pipeline.counting_core import SIDES, CountingCore, open_core

CONFIG = Config(worker=Worker(ticks=False), clickhouse=ClickHouse(insert_s=0.0))


class Crash(Exception):
    """The process ends here."""


@dataclass
class World:
    """All that outlives the process. `until_crash` effects go well, then one raises Crash."""

    values: list[bytes]
    pages: dict[bytes, bytes] = field(default_factory=dict)
    incidents: dict[tuple[str, int], int] = field(default_factory=dict)
    rejects: set[int] = field(default_factory=set)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    committed: int | None = None
    until_crash: int = -1
    writes: int = 0

    def step(self) -> None:
        """One effect is about to happen."""
        if self.until_crash == 0:
            raise Crash
        self.until_crash -= 1

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Publisher."""
        self.step()
        if topic == CONFIG.topics.rejected:
            self.rejects.add(msgspec.json.decode(value)["offset"])
        else:
            incident = msgspec.json.decode(value, type=Incident)
            mark = self.incidents.setdefault((incident.incident_id, incident.revision), incident.offset)
            assert mark == incident.offset, "the same revision of an incident twice, with other content"
        return 0

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        """PageLog."""
        self.step()
        stage(self.pages, key, value)
        return 0

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        """PageLog; a crash may come between any two."""
        return max([await self.send(partition, key, value) for key, value in records], default=-1)

    async def write(self, table: str, rows: Columns) -> None:
        """RowSink; the fourth write fails once."""
        self.writes += 1
        if self.writes == 4:
            raise Retry("busy")
        self.step()
        for key, count, version in zip(rows["key_id"], rows["count"], rows["version"], strict=True):
            self.rows[key] = max(self.rows.get(key, (-1, 0)), (version, count))

    async def close(self) -> None:
        """RowSink."""

    def commit(self, offset: int | None) -> None:
        """Step 4."""
        if offset is not None:
            self.step()
            assert self.committed is None or offset >= self.committed
            self.committed = offset

    def fetch(self, first: int, next_: int) -> Fetched:
        """A slice."""
        offsets = range(first, next_)
        part = self.values[first:next_]
        return Fetched(Slice("t", 0, offsets, [None] * len(part), part, [0] * len(part)), first)


async def sides(config: Config) -> Sides:
    return SIDES


async def live(world: World, random_: random.Random) -> None:
    """One life of the process: until the end of the log, or a Crash."""

    async def edges(partitions: list[int]) -> Edges:
        return dict.fromkeys(partitions, 0), dict.fromkeys(partitions, len(world.values))

    parts = Parts(open_core, lambda config: world, sides, lambda: None)
    shell = Shell(Ready(CONFIG, parts, world, edges, world, SIDES, "id", 1, Health()), lambda: 1)
    try:
        await shell.take({0: dict(world.pages)}, {0: world.committed})
        await consume(shell, world, random_)
        await shell.checkpoint_all()
        world.commit(shell.cover(0))
    finally:
        await shell.close()


async def consume(shell: Shell, world: World, random_: random.Random) -> None:
    """Fetch at random: cut anew, sometimes lost, sometimes twice; checkpoints and row flushes between."""
    position = world.committed or 0
    while shell.owned[0].expected < len(world.values):
        if position >= len(world.values):
            position = shell.owned[0].expected  # what the runner's nudge does
        following = min(position + random_.randint(1, 9), len(world.values))
        fetched = world.fetch(position, following)
        position = following
        if random_.random() < 0.15:
            continue  # Faust lost it
        seek = await shell.handle(fetched)
        position = position if seek is None else seek
        if random_.random() < 0.1:
            await shell.handle(fetched, fresh=False)
        if random_.random() < 0.3:
            await shell.rows.flush()
        if random_.random() < 0.2:
            await shell.checkpoint_all()
            world.commit(shell.cover(0))


def truth(values: list[bytes]) -> tuple[dict[tuple[str, int], int], set[int], dict[str, int]]:
    core = CountingCore(0, CONFIG, SIDES, "id")
    effects = core.process(Slice("t", 0, range(len(values)), [None] * len(values), values, [0] * len(values)))
    incidents = {(i.incident_id, i.revision): i.offset for i in effects.incidents}
    return incidents, {reject.offset for reject in effects.rejects}, core.counts()


@given(
    st.lists(st.sampled_from([b"a 1", b"b 1", b"c 1", b"a 2", b"poison"]), min_size=1, max_size=120),
    st.lists(st.integers(0, 40), max_size=5),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_crashes_lost_slices_and_other_cuts_change_nothing(values: list[bytes], crashes: list[int], seed: int) -> None:
    world = World(values)
    random_ = random.Random(seed)
    for after in [*crashes, -1]:
        world.until_crash = after
        try:
            asyncio.run(live(world, random_))
        except Crash:
            continue
    incidents, rejects, counts = truth(values)
    state = load(0, world.pages, world.committed)
    core = CountingCore(0, CONFIG, SIDES, "id")
    fill(core, state)
    assert world.incidents == incidents
    assert world.rejects == rejects
    assert {key: count for key, (_, count) in world.rows.items()} == core.counts() == counts
    assert world.committed == state.next_offset == len(values)
