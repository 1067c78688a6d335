"""What the stream shows of an act is told once, by the responder that owns it, and of the secret it was about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from pipeline.respond.brief import Known, brief, lines
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.delivery.webhook import Poster
from pipeline.respond.enforcement.proof import Enforcement, Watch
from pipeline.respond.enforcement.verdicts import Verdicts, is_newer
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Used, decode, encode
from pipeline.respond.ledger.standing import standing
from pipeline.respond.night.desk import case_row
from pipeline.respond.night.night import Books
from schemas.event import Event
from schemas.incident import Incident
from schemas.key import Key
from schemas.response import Response
from tests.pipeline.respond.enforcement.test_proof import AFTER_S, SKEW_S, request, us, watch
from tests.pipeline.respond.incidents import NOW_S, at, endpoint, key
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.receiver import Receiver, receiver
from tests.pipeline.respond.test_handle import DECISIONS, RESPONSES, Catalogue

BROKEN, REFUSED = request(AFTER_S), request(60.0, 403)


@dataclass
class World:
    """What outlives responders."""

    target: Receiver
    log: MemoryLog = field(default_factory=MemoryLog)
    catalogue: Catalogue = field(default_factory=lambda: Catalogue({"k1": key()}))

    @property
    def stages(self) -> list[str]:
        return [msgspec.json.decode(value, type=Response).stage for value in self.log.values(RESPONSES)]

    @asynccontextmanager
    async def verdicts(self) -> AsyncIterator[Verdicts]:
        """One responder's."""
        books, publisher = Books(), MemoryPublisher(self.log)
        decisions = Decisions(publisher, MemoryReader(self.log, DECISIONS), DECISIONS, "a", followers=[books.apply])
        await decisions.start()
        box = Mailbox(Poster(endpoint(self.target.url), 1, 2), decisions.write, lambda: NOW_S)
        deliveries = Deliveries([box])
        deliveries.start()
        made = Verdicts(
            RESPONSES, publisher, deliveries, decisions, books, self.catalogue, {}, lambda: frozenset({0}),
            "https://console.example/incidents/{incident_id}",
        )  # fmt: skip
        yield made
        await made.close()
        await deliveries.close()
        await decisions.close()

    async def show(self, made: Verdicts, *events: Event, of: Watch | None = None) -> None:
        """The log is read from the confirmation on, as after any start, until all of it is told and noted."""
        enforcement = Enforcement(SKEW_S)
        enforcement.watch(of or watch())
        for offset, event in enumerate(events):
            for verdict in enforcement.seen(event, offset, us(100)):
                await made.tell(verdict)
        await asyncio.gather(*(task for _, task in made._telling.values()))
        made.check()


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    async with receiver() as target:
        yield World(target)


async def test_a_broken_act_goes_to_whoever_has_not_chosen_otherwise_and_into_the_audit() -> None:
    async with a_world() as world, world.verdicts() as made:
        await world.show(made, BROKEN, REFUSED)
        assert world.stages == ["broken", "enforced"]
        (told,) = world.target.received
        assert told.message["type"] == "response.broken"
        assert told.message["data"]["link"] == f"https://console.example/incidents/{watch().incident_id}"


async def test_a_broken_act_is_a_case_that_people_take_and_its_page_says_to_go_to_the_gateway() -> None:
    async with a_world() as world, world.verdicts() as made:
        books = made.books
        for _ in range(2):  # killed before it was noted, and read again
            await world.show(made, BROKEN)
        (case,) = books.cases.cases.values()
        assert (case.state, case.severity, case.breaks) == ("open", "critical", 1)
        (row,) = [case_row(each, us(100)) for each in books.cases.cases.values()]
        assert row["broken"] == [watch().response_id] and row["text"].startswith("suspend is not enforced")
        about = msgspec.json.decode(case.lead, type=Incident)
        of = proposed("k1", response_id=watch().response_id, incident_id=watch().incident_id, rung="suspend")
        acts = [Act(of, 0, us(0), stage="done", done_us=us(1))]
        told = dict(lines(brief(about, key(), Known(standing=standing(acts, about, case.broken)))))
        assert told["Safest act"].startswith("the gateway does not obey the suspend in force")
        assert told["In force"].endswith("THE GATEWAY DOES NOT OBEY")
        await world.show(made, BROKEN, REFUSED)
        assert case.broken == {} and case.state == "open"


async def test_what_was_told_before_a_restart_or_a_rebalance_is_not_told_again() -> None:
    async with a_world() as world:
        async with world.verdicts() as made:
            await world.show(made, BROKEN)
            await world.show(made, BROKEN, REFUSED)
        async with world.verdicts() as made:
            await world.show(made, BROKEN, REFUSED)
        assert world.stages == ["broken", "enforced"]
        assert len(world.target.received) == 1


async def test_a_key_with_a_new_secret_may_be_used_and_is_watched_no_more() -> None:
    async with a_world() as world, world.verdicts() as made:
        world.catalogue.keys = {"k1": key(version=2)}
        await world.show(made, BROKEN)
        assert (world.stages, world.target.received) == ([], [])
        assert made._is_left(watch())


@pytest.mark.parametrize("catalogue", [Catalogue(None), Catalogue({}), Catalogue({"k1": key()})])
async def test_where_no_new_secret_is_known_of_it_is_told(catalogue: Catalogue) -> None:
    async with a_world() as world, world.verdicts() as made:
        world.catalogue.keys = catalogue.keys
        await world.show(made, BROKEN)
        assert world.stages == ["broken"]


@pytest.mark.parametrize(
    ("declared", "newer"),
    [
        (key(), False),
        (key(version=2), True),
        (key(version=0), False),
        (key(created_at=at(3600)), False),
        (key(created_at=at(-30)), True),
        (key(last_rotated_at=at(-30)), True),
        (key(last_rotated_at="soon"), False),
    ],
)
def test_a_secret_is_another_by_its_version_or_where_it_was_made_after_the_act(declared: Key, newer: bool) -> None:
    assert is_newer(declared, watch()) == newer


async def test_a_verdict_that_waits_for_its_endpoint_goes_with_its_partition() -> None:
    async with a_world() as world, world.verdicts() as made:
        world.target.gate.clear()
        enforcement = Enforcement(SKEW_S)
        enforcement.watch(watch(partition=3))
        (verdict,) = enforcement.seen(BROKEN, 0, us(100))
        await made.tell(verdict)
        made.let_go({0})
        assert made._is_told(verdict)
        made.let_go({3})
        await asyncio.wait([task for _, task in made._telling.values()])
        made.check()
        assert not made._is_told(verdict)


async def test_that_a_rotations_new_key_is_used_is_written_once_and_told_to_nobody() -> None:
    async with a_world() as world:
        of = proposed("k1", rung="rotate", act_id="r", response_id="r1")
        for record in (of, finished(of)):
            world.log.append(DECISIONS, b"", encode(record))
        async with world.verdicts() as made:
            for _ in range(2):
                await world.show(made, request(3.0), request(4.0), of=watch(rung="rotate"))
            act = made.decisions.ledger.act_of("r")
            assert act is not None
            assert act.used_us == us(3.0)
        assert [type(decode(value)) for value in world.log.values(DECISIONS)].count(Used) == 1
        assert (world.stages, world.target.received) == ([], [])
