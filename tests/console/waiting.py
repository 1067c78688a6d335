"""A decisions topic in memory on which a suspension waits for one approval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.console.board import Board, Kept, Link
from pipeline.console.side import Readers, Side
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.by_hand import choose, wanted
from pipeline.respond.desk import Desk, bulked
from pipeline.respond.ladder import ladder_of
from pipeline.respond.ledger.decisions import Decisions
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.notices import full
from tests.pipeline.respond.people import person
from tests.pipeline.respond.test_by_hand import Networks, settings

TOPIC = "api.decisions"
RESPONDER = person("responder")


def in_memory() -> Decisions:
    """Not started yet."""
    log = MemoryLog()
    return Decisions(MemoryPublisher(log), MemoryReader(log, TOPIC), TOPIC, "console-test")


def linked(decisions: Decisions) -> Link:
    """A link that follows these, and loses them when their reading ends."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Kept]:
        await decisions.start()

        async def lost() -> None:
            while True:
                await decisions.moved(3600.0)

        try:
            yield Board(Desk(decisions, "console")), lost
        finally:
            await decisions.close()

    return Link(connect)


def unread() -> Side:
    """Of a broker that never answers: nothing is declared, nothing muted."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Readers]:
        yield await asyncio.get_running_loop().create_future()

    return Side(connect)


async def connected(link: Link, wanted: bool = True) -> None:
    """Return once the link has a board, or none."""
    while (link.board is not None) != wanted:  # noqa: ASYNC110  the link tells nobody else
        await asyncio.sleep(0.005)


async def propose(decisions: Decisions, **incident: Any) -> None:
    """The suspension; `RESPONDER` may approve it. `incident`: what of it is another."""
    respond = settings(RESPONDER.approver)
    ladder = ladder_of(respond.respond)
    queued = wanted(full(**incident), "suspend", ladder, "ada")
    proposal = (await choose(queued, "n1", ladder, respond, {"keys": MATRIX}, Networks())).proposal
    assert proposal is not None
    await decisions.write(bulked([proposal], proposal.group, "n1", "ada"))
    await decisions.write(proposal)
