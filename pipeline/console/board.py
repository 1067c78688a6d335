"""What is in force and what waits, from the ledger on the decisions topic: followed while the console runs.

The console holds nobody's approving key: the browser signs with the file that its person chooses (`static/console.js`),
and what comes here is the signature, checked by every responder.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.respond.acts import Act
from pipeline.respond.approval import signed_text
from pipeline.respond.desk import Desk
from pipeline.respond.entries import Signed
from pipeline.respond.night import Books
from pipeline.respond.night_records import CaseSaid, Verb

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """One act, as a page shows it. `text`: what an approver signs, by whom he is."""

    response_id: str
    incident_id: str
    key_id: str
    rung: str
    adapter: str
    reason: str
    at_us: int
    until_us: int
    stage: str
    ticket: str = ""
    approved_by: tuple[str, ...] = ()
    approvals: int = 0
    lapses_us: int = 0
    others: int = 0  # further keys that the same signature approves
    networks: tuple[str, ...] = ()
    duration_s: float = 0.0


class Board:
    """Of one console. Everything here runs on the event loop, as the ledger does."""

    def __init__(self, desk: Desk, books: Books | None = None) -> None:
        """`books` have followed the topic from its start; without any they do so from here on."""
        self._desk, self._books = desk, books or Books()
        if books is None:
            desk.decisions.followers.append(self._books.apply)

    def in_force(self, incident_id: str = "") -> list[Shown]:
        """The oldest first; of one incident or of all."""
        acts = self._desk.in_force()
        return [_shown(act) for act in acts if incident_id in ("", act.proposal.incident_id)]

    def waiting(self, incident_id: str = "") -> list[Shown]:
        """What waits for people's signatures."""
        acts = self._desk.pending()
        groups = Counter(act.proposal.group for act in acts if act.proposal.group)
        shown = [act for act in acts if incident_id in ("", act.proposal.incident_id)]
        return [_shown(act, groups[act.proposal.group] - 1 if act.proposal.group else 0) for act in shown]

    @property
    def stopped(self) -> str:
        """Who has stopped all automatic acts, and why; "" where nobody has."""
        switch = self._desk.ledger.stopped
        return f"{switch.by}: {switch.reason or 'no reason given'}" if switch else ""

    @property
    def breaker(self) -> bool:
        """Whether keys of many owners have tripped it."""
        return bool(self._desk.ledger.breaker.opened)

    async def undo(self, response_id: str, reason: str, person: str) -> str:
        """Ask for it; the responder carries it out. Raises ConfigError."""
        desk = Desk(self._desk.decisions, person)
        verdict = await desk.undo(desk.undoable(response_id)[0], reason)
        if not verdict.granted:
            raise ConfigError(f"not undone: {verdict.reason}")
        return "being undone: the responder tells the gateway"

    async def sign(self, ticket: str, yes: bool, signature: str, reason: str, person: str) -> str:
        """One person's signed word on what waits. Raises ConfigError."""
        word = Signed(
            ticket=ticket, yes=yes, person=person, signature=signature, reason=reason,
            responder=self._desk.decisions.responder,
        )  # fmt: skip
        verdict = await self._desk.decisions.write(word)
        if not verdict.granted:
            raise ConfigError(f"not taken: {verdict.reason}")
        return verdict.reason

    async def say_of_case(self, case_id: str, verb: Verb, by: str) -> bool:
        """A person's word on a case; False where there is none, or where it changes nothing."""
        case = self._books.cases.cases.get(case_id)
        changes = {"ack": ("open", "snoozed"), "close": ("open", "snoozed", "acknowledged")}
        if case is None or case.state not in changes.get(verb, ()):
            return False
        await self._desk.decisions.write(CaseSaid(case_id=case_id, verb=verb, by=by))
        return True

    async def switch(self, stop: bool, reason: str, person: str) -> str:
        """The kill switch on the topic."""
        await Desk(self._desk.decisions, person).switch(stop, reason)
        return "all automatic acts are stopped" if stop else "automatic acts go on, as the policy says"


def texts(ticket: str, person: str) -> tuple[str, str]:
    """What this person signs for yes and for no."""
    yes, no = (signed_text(ticket, word, person).decode() for word in (True, False))
    return yes, no


def _shown(act: Act, others: int = 0) -> Shown:
    of = act.proposal
    return Shown(
        response_id=of.response_id, incident_id=of.incident_id, key_id=of.key_id, rung=of.rung, adapter=of.adapter,
        reason=of.reason, at_us=act.at_us, until_us=act.until_us, stage=act.stage, ticket=of.group or act.ticket,
        approved_by=act.approved_by, approvals=of.approvals, lapses_us=act.lapses_us if act.stage == "pending" else 0,
        others=others, networks=of.networks, duration_s=of.duration_s,
    )  # fmt: skip


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Board | None]:
    """The board; None, and a line in the log, where the broker does not answer: pages are shown without it."""
    from pipeline.respond.responder import decisions_of
    from pipeline.sinks.kafka import Producer

    async with AsyncExitStack() as stack:
        board = None
        try:
            producer = Producer(config.kafka)
            await producer.start()
            stack.push_async_callback(producer.close)
            name = f"console-{uuid.uuid4().hex[:8]}"
            books = Books()
            board = Board(Desk(await decisions_of(config, producer, stack, name, books.apply), "console"), books)
        except (Fatal, Retry, ConfigError) as error:
            log.warning("the console shows no acts in force and can't undo or approve: %s", error)
        yield board
