"""What is in force and what waits, on the pages; undo, and approvals signed outside of the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from pipeline.config.night import Night as NightSettings
from pipeline.config.tree import Config, Respond
from pipeline.console import app, board
from pipeline.console.board import Board, Kept, Link, texts
from pipeline.errors import Fatal, Retry
from pipeline.respond.desk import Desk
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Finished, Promoted, Switched, encode
from pipeline.respond.night.night import link_of
from pipeline.respond.night.records import ActSeen
from tests.console.filled import INCIDENT, TOKENS, config, fill
from tests.console.waiting import RESPONDER, TOPIC, connected, in_memory, linked, propose, unread
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.people import ANN, BOTH


@pytest.fixture(scope="module")
def filled(front: str) -> Config:
    made = config(front, "keywatch_board")
    fill(made.clickhouse)
    return made


class World:
    """A console in front of a decisions topic in memory; one loop for both, as in the process."""

    def __init__(self, made: Config, stack: ExitStack) -> None:
        self.decisions = in_memory()
        self.link = linked(self.decisions)
        console = app.make_app(made, link=self.link, of_keys=unread())
        self.browser = stack.enter_context(TestClient(console, base_url="http://127.0.0.1"))
        assert self.browser.portal is not None
        self.portal = self.browser.portal
        self.portal.call(connected, self.link)

    def sign_in(self, name: str) -> World:
        self.browser.post("/sign-in", data={"token": TOKENS[name]})
        return self

    @property
    def act(self) -> Act:
        (act,) = self.decisions.ledger.acts.values()
        return act

    @property
    def stage(self) -> str:
        return self.act.stage

    def propose(self) -> None:
        """A suspension that waits for one approval."""
        self.portal.call(propose, self.decisions)

    def carry_out(self) -> None:
        of = self.act.proposal
        self.portal.call(self.decisions.write, Finished(act_id=of.act_id, response_id=of.response_id, result="done"))

    def post(self, path: str, **form: Any) -> Any:
        page = self.browser.get("/policy").text
        token = page.split('name="form_token" value="')[1].split('"')[0]
        return self.browser.post(path, data={"form_token": token, "back": "/policy", **form})


@pytest.fixture
def world(filled: Config) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(filled, stack)


def test_what_waits_is_approved_by_a_signature_and_then_undone(world: World) -> None:
    world.sign_in("responder").propose()
    page = world.browser.get("/policy").text
    assert "waits for 1 approval" in page
    ticket = world.act.proposal.group or world.act.ticket
    yes, _ = texts(ticket, "responder")
    assert yes.splitlines()[0] == "keywatch approval v1"
    signed = RESPONDER.says(ticket)
    answer = world.post("/sign", ticket=ticket, yes="yes", signature=signed.signature, reason="it is a thief")
    assert "1 of 1 approved" in answer.text
    assert world.act.stage == "open"
    world.carry_out()
    assert "is in force since" in world.browser.get("/policy").text
    answer = world.post("/undo", response=world.act.proposal.response_id, reason="it was us")
    assert "being undone" in answer.text
    assert world.act.undo is not None
    assert world.act.undo.asked.by == "responder"


def test_the_link_in_a_message_leads_over_the_sign_in_to_the_page_where_undo_is_one_click(world: World) -> None:
    world.portal.call(partial(propose, world.decisions, incident_id=INCIDENT.incident_id))
    world.portal.call(world.decisions.write, RESPONDER.says(world.act.proposal.group or world.act.ticket))
    world.carry_out()
    night = Respond(night=NightSettings(console_url="http://127.0.0.1/incidents/{incident_id}"))
    asked = world.browser.get(link_of(night, INCIDENT)).text
    to = asked.split('name="to" value="')[1].split('"')[0]
    page = world.browser.post("/sign-in", data={"token": TOKENS["responder"], "to": to}).text
    assert to == f"/incidents/{INCIDENT.incident_id}"
    form = page.split('action="/undo"')[1].split("</form>")[0]
    fields = {
        name: form.split(f'name="{name}" value="')[1].split('"')[0] for name in ("form_token", "back", "response")
    }
    assert world.browser.post("/undo", data={**fields, "form_token": "", "reason": "it was us"}).status_code == 403
    assert world.act.undo is None
    assert "being undone" in world.browser.post("/undo", data={**fields, "reason": "it was us"}).text
    assert world.stage == "done"
    assert world.act.undo is not None


def test_an_act_that_the_gateway_does_not_obey_says_so_where_it_is_undone(world: World) -> None:
    world.sign_in("viewer").propose()
    world.portal.call(world.decisions.write, RESPONDER.says(world.act.proposal.group or world.act.ticket))
    world.carry_out()
    of = world.act.proposal
    world.portal.call(world.decisions.write, ActSeen(
        response_id=of.response_id, incident_id=of.incident_id, key_id=of.key_id, verdict_id="v1", broken=True,
        text="suspend is not enforced: a request went through", partition=0,
    ))  # fmt: skip
    page = world.browser.get("/policy").text
    assert "The gateway does not obey: suspend is not enforced: a request went through (case_" in page


@pytest.mark.parametrize("signature", ["", "AAAA", "nonsense"])
def test_a_signature_that_is_none_changes_nothing(world: World, signature: str) -> None:
    world.sign_in("responder").propose()
    ticket = world.act.proposal.group or world.act.ticket
    answer = world.post("/sign", ticket=ticket, yes="yes", signature=signature, reason="r")
    assert answer.status_code == 400
    assert "not taken" in answer.text
    assert world.act.stage == "pending"


def test_a_signature_for_no_does_not_serve_as_a_yes(world: World) -> None:
    world.sign_in("responder").propose()
    ticket = world.act.proposal.group or world.act.ticket
    signature = RESPONDER.says(ticket, yes=False).signature
    assert world.post("/sign", ticket=ticket, yes="yes", signature=signature).status_code == 400
    assert world.stage == "pending"
    assert world.post("/sign", ticket=ticket, yes="no", signature=signature).status_code == 200
    assert world.stage == "declined"


def test_a_viewer_sees_it_and_can_do_nothing(world: World) -> None:
    world.sign_in("viewer").propose()
    page = world.browser.get("/policy").text
    assert "waits for 1 approval" in page
    assert 'action="/sign"' not in page
    assert world.post("/undo", response="x", reason="r").status_code == 403


def test_an_admin_stops_all_acts_and_every_page_of_theirs_says_so(world: World) -> None:
    world.sign_in("admin")
    assert "all automatic acts are stopped" in world.post("/switch", stop="yes", reason="wrong keys").text
    assert world.decisions.ledger.stopped is not None
    assert "stopped by admin: wrong keys" in world.browser.get(f"/incidents/{INCIDENT.incident_id}").text
    assert world.post("/switch", stop="no", reason="").status_code == 400
    assert world.decisions.ledger.stopped is not None


def test_an_admin_puts_all_acts_to_simulate_and_takes_it_back(world: World) -> None:
    world.sign_in("admin")
    assert "acts are simulated" in world.post("/simulate", on="yes", reason="new rules").text
    assert world.decisions.ledger.simulating is not None
    assert "put to simulate by admin: new rules" in world.browser.get("/policy").text
    assert "put to simulate by admin: new rules" in world.browser.get(f"/incidents/{INCIDENT.incident_id}").text
    assert world.post("/simulate", on="no", reason="").status_code == 400
    world.post("/simulate", on="no", reason="seen enough")
    assert world.decisions.ledger.simulating is None
    assert "put to simulate" not in world.browser.get("/policy").text


def test_the_policy_page_says_up_to_where_acts_were_earned(filled: Config) -> None:
    policy = msgspec.structs.replace(filled.respond.policy, mode="enforce", promotion="required")
    respond = msgspec.structs.replace(filled.respond, policy=policy, approvers=BOTH)
    earned = msgspec.structs.replace(filled, respond=respond)
    with ExitStack() as stack:
        world = World(earned, stack).sign_in("viewer")
        assert "<strong>simulate</strong> (nothing by itself)" in world.browser.get("/policy").text
        step = Promoted(to="fence", by="ann", reason="", asked_us=world.decisions.ledger.now_us)
        for record in (step, ANN.says(step.ticket)):
            world.portal.call(world.decisions.write, record)
        assert "earned: <strong>fence</strong>" in world.browser.get("/policy").text


@pytest.mark.parametrize("path", ["/switch", "/simulate"])
def test_the_switches_are_for_admins(world: World, path: str) -> None:
    world.sign_in("responder")
    assert world.post(path, stop="yes", on="yes", reason="r").status_code == 403
    assert world.decisions.ledger.held == ""


@dataclass
class Broker:
    """One that can go away and come back; each connection is a new reader of the same topic."""

    log: MemoryLog = field(default_factory=MemoryLog)
    away: bool = False
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Kept]:
        if self.away:
            raise Fatal("Kafka at nowhere: no answer")
        self.connections += 1
        decisions = Decisions(MemoryPublisher(self.log), MemoryReader(self.log, TOPIC), TOPIC, f"c{self.connections}")
        await decisions.start()
        try:
            yield Board(Desk(decisions, "console")), self.lost
        finally:
            await decisions.close()

    async def lost(self) -> None:
        await self.gone.wait()
        self.gone.clear()
        raise Retry("no answer")


async def test_a_board_that_was_lost_is_found_again_and_knows_what_was_said_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.console.following.RETRY_S", (0.01,))
    broker = Broker(away=True)
    link = Link(broker.connect)
    following = asyncio.create_task(link.follow())
    try:
        async with asyncio.timeout(20):
            await asyncio.sleep(0)
            assert link.board is None
            broker.away = False
            await connected(link)
            broker.away = True
            broker.gone.set()
            await connected(link, False)
            broker.log.append(TOPIC, b"", encode(Switched(stop=True, by="ann", reason="meanwhile")))
            broker.away = False
            await connected(link)
            assert link.board is not None
            assert link.board.stopped == "ann: meanwhile"
    finally:
        following.cancel()
        await asyncio.wait([following])
    assert broker.connections == 2


async def test_a_form_does_not_wait_for_ever_for_a_broker_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "ANSWER_S", 0.05)
    log = MemoryLog()
    decisions = Decisions(Mute(log), MemoryReader(log, TOPIC), TOPIC, "c")
    with pytest.raises(Retry, match="look again"):
        await Board(Desk(decisions, "console")).switch(True, "r", "admin")


class Mute(MemoryPublisher):
    """Never gets an acknowledgement."""

    async def publish(self, *_: Any, **__: Any) -> int:
        await asyncio.Event().wait()
        return 0


def test_an_undo_of_what_is_not_known_is_told(world: World) -> None:
    world.sign_in("responder")
    answer = world.post("/undo", response="ffff", reason="r")
    assert (answer.status_code, "not the beginning of exactly one" in answer.text) == (400, True)


def test_without_the_topic_pages_are_there_and_say_what_is_missing(filled: Config) -> None:
    browser = TestClient(app.make_app(filled), base_url="http://127.0.0.1")  # its lifespan has not run
    browser.post("/sign-in", data={"token": TOKENS["admin"]})
    page = browser.get("/policy")
    assert "no undo and no approval from here" in page.text
    token = page.text.split('name="form_token" value="')[1].split('"')[0]
    answer = browser.post("/switch", data={"form_token": token, "stop": "yes", "reason": "r", "back": "/policy"})
    assert (answer.status_code, "decisions topic can" in answer.text) == (503, True)
