"""Killed at any write or call, at every gateway: an act and its undo leave the key exactly as it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.config.policy import Rule
from pipeline.respond.adapters.adapter import Adapter, Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.delivery.caller import Answer
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Undo
from schemas.incident import Rung
from tests.pipeline.respond.adapters.peers import running, snapshot
from tests.pipeline.respond.adapters.test_contract import FAKES, UNDONE
from tests.pipeline.respond.incidents import finding, incident, key
from tests.pipeline.respond.lives import POLICY, Lives, Process, live, standing
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.test_handle import Catalogue


@dataclass
class AtAGateway(Lives):
    """What outlives processes, with a gateway that speaks its vendor's API."""

    url: str = ""
    fake: Any = None


class Calling(Process):
    """A responder whose adapter is a real one; each process has its own, and all that it remembers is lost with it."""

    world: AtAGateway

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adapter: Adapter = self.world.fake.adapter(self.world.url)
        peer: Any = vars(self.adapter)["_peer"]
        call: Callable[..., Awaitable[Answer]] = peer.call

        async def fused(method: str, *rest: Any) -> Answer:
            if method == "GET":
                return await call(method, *rest)
            self.fuse.before_effect()
            answer = await call(method, *rest)
            self.fuse.after_effect()
            return answer

        peer.call = fused

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        return await self.adapter.attempt(intent)


ROWS = [row for row in UNDONE if row != ("unkey", "rotate")]
"""All that can be undone; an Unkey secret that got lost on the way is another test's (`adapters/test_unkey.py`)."""


async def story(name: str, rung: Rung, fuses: tuple[Fuse, Fuse]) -> None:
    """An act and its undo, both by responders that may be killed, and by others that go on: the key is as it was."""
    fake = FAKES[name]()
    world = AtAGateway(catalogue=Catalogue({fake.key_id: key(fake.key_id, owner="acme")}), fake=fake)
    rule = Rule(name="it", rung=rung, min_severity="critical", limit_per_s=0.5, scopes=("s3:GetObject",))
    world.ladder = Ladder(POLICY, (rule,))
    world.incidents[0].append(incident(fake.key_id, findings=(finding("network"), finding("outcome")), owner="acme"))
    async with running(fake.routes()) as server:
        world.url, before = server.url, snapshot(fake)
        await live(world, "first", fuse=fuses[0], kind=Calling)
        assert await live(world, "second", kind=Calling)
        assert fake.works(rung)
        (act,) = await standing(world)
        world.say(Undo(act_id=act.proposal.act_id, by="ann", reason="ours", responder=""))
        await live(world, "third", fuse=fuses[1], kind=Calling)
        assert await live(world, "fourth", kind=Calling)
        assert snapshot(fake) == before, fuses
    (last,) = world.lines()[-1:]
    assert (last.direction, last.stage) == ("undo", "done"), fuses


@pytest.mark.parametrize(("name", "rung"), ROWS)
async def test_killed_anywhere_an_act_and_its_undo_leave_the_key_as_it_was(name: str, rung: Rung) -> None:
    whole = Fuse(), Fuse()
    await story(name, rung, whole)
    for nth, count in enumerate(fuse.count for fuse in whole):
        assert 4 < count < 25
        for at in range(count):
            for after in (False, True):
                fuse = Fuse(at, after)
                await story(name, rung, (fuse, Fuse()) if nth == 0 else (Fuse(), fuse))
