"""Killed at any write or call, of every gateway: a suspension ends in its time, and leaves the key exactly as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from pipeline.respond.adapters.adapter import Adapter, Intent, NoteFirst, Outcome, TryAgain
from tests.pipeline.respond.adapters.peers import Fake, running, snapshot
from tests.pipeline.respond.adapters.test_contract import FAKES
from tests.pipeline.respond.incidents import finding, incident, key
from tests.pipeline.respond.lives import SUSPEND_S, Lives, Process, live
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.test_handle import Catalogue


@dataclass
class AtAGateway(Lives):
    """What outlives processes, with a gateway that speaks its vendor's API."""

    url: str = ""
    fake: Any = None
    calls: list[Intent] = field(default_factory=list)


class Calling(Process):
    """A responder whose adapter is a real one; each process has its own, and all that it remembers is lost with it."""

    world: AtAGateway

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adapter: Adapter = self.world.fake.adapter(self.world.url)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        self.fuse.before_effect()
        self.world.calls.append(intent)
        answer = await self.adapter.attempt(intent)
        self.fuse.after_effect()
        return answer


async def suspended(fake: Fake, url: str, fuse: Fuse) -> AtAGateway:
    """One life that may be cut short, one that goes on, and one after the suspension's end."""
    world = AtAGateway(catalogue=Catalogue({fake.key_id: key(fake.key_id, owner="acme")}), url=url, fake=fake)
    found = (finding("network"), finding("outcome"))
    world.incidents[0].append(incident(fake.key_id, findings=found, owner="acme"))
    await live(world, "first", fuse=fuse, kind=Calling)
    world.advance(5.0)
    assert await live(world, "second", kind=Calling)
    assert fake.works("suspend")
    world.advance(SUSPEND_S)
    assert await live(world, "third", kind=Calling)
    return world


@pytest.mark.parametrize("name", FAKES)
async def test_killed_anywhere_a_suspended_key_is_in_the_end_what_it_was(name: str) -> None:
    fuse, fake = Fuse(), FAKES[name]()
    async with running(fake.routes()) as server:
        await suspended(fake, server.url, fuse)
    assert 5 < fuse.count < 20
    for at in range(fuse.count):
        for after in (False, True):
            fake = FAKES[name]()
            async with running(fake.routes()) as server:
                before = snapshot(fake)
                world = await suspended(fake, server.url, Fuse(at, after))
                assert snapshot(fake) == before, (at, after)
            ended = [msgspec.json.decode(each) for each in world.log.values("api.responses")][-1]
            assert (ended["direction"], ended["stage"]) == ("undo", "done"), (at, after)
