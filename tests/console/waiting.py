"""A decisions topic in memory on which a suspension waits for one approval."""

from __future__ import annotations

from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.by_hand import choose, wanted
from pipeline.respond.decisions import Decisions
from pipeline.respond.desk import bulked
from pipeline.respond.ladder import ladder_of
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


async def propose(decisions: Decisions) -> None:
    """The suspension; `RESPONDER` may approve it."""
    respond = settings(RESPONDER.approver)
    ladder = ladder_of(respond.respond)
    queued = wanted(full(), "suspend", ladder, "ada")
    proposal = (await choose(queued, "n1", ladder, respond, {"keys": MATRIX}, Networks())).proposal
    assert proposal is not None
    await decisions.write(bulked([proposal], proposal.group, "n1", "ada"))
    await decisions.write(proposal)
