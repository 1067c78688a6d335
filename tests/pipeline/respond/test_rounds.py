"""What is looked at every so often, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pipeline.errors import Fatal
from pipeline.respond.caretaker import Caretaker
from pipeline.respond.rounds import Round, Rounds


@dataclass
class Owner:
    """A caretaker: whose the first partition is, and what it was given."""

    partitions: frozenset[int] = frozenset({1})
    given: list[str] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    breaks: bool = False

    def also(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        if self.breaks:
            raise RuntimeError("no more")
        self.given.append(name)
        if self.given.count("often") > 3:
            self.came.set()


async def nothing() -> None:
    return None


def rounds_of(owner: Owner) -> Rounds:
    looks = Round("often", 0.001, nothing), Round("once", 3_600.0, nothing)
    return Rounds(cast(Caretaker, owner), looks)


async def test_each_thing_is_looked_at_in_its_own_time_by_the_owner_of_the_first_partition_alone() -> None:
    owner = Owner()
    made = rounds_of(owner)
    made.start()
    await asyncio.sleep(0.01)
    assert owner.given == []
    owner.partitions = frozenset({0, 1})
    await owner.came.wait()
    assert owner.given.count("once") == 1
    made.check()
    await made.close()


async def test_what_ends_it_is_raised() -> None:
    owner = Owner(frozenset({0}), breaks=True)
    made = rounds_of(owner)
    made.start()
    assert made._task is not None
    await asyncio.wait([made._task])
    with pytest.raises(Fatal, match="looking at rotations and at what was wrong ended: no more"):
        made.check()
    await made.close()
