"""What is in force and what waits, from the ledger on the decisions topic: followed while the console runs.

The console holds nobody's approving key: the browser signs with the file that its person chooses (`static/console.js`),
and what comes here is the signature, checked by every responder.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from pipeline.config.tree import Config, Respond
from pipeline.console.following import follow
from pipeline.errors import ConfigError, Retry
from pipeline.respond.approval import signed_text
from pipeline.respond.desk import Desk
from pipeline.respond.ladder import ladder_of
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Signed
from pipeline.respond.ledger.ledger import Verdict
from pipeline.respond.night.cases import Case
from pipeline.respond.night.night import Books
from pipeline.respond.night.records import CaseSaid, Verb
from pipeline.respond.promotion.earned import Who

T = TypeVar("T")
LOOK_S: Final = 10.0
"""Between two looks whether the broker is still there."""
ANSWER_S: Final = 15.0
"""A form waits for the broker no longer."""


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
    broken: str = ""  # what goes through all the same, and the case that tells of it


class Board:
    """Of one console. Everything here runs on the event loop, as the ledger does."""

    def __init__(self, desk: Desk, books: Books | None = None) -> None:
        """`books` have followed the topic from its start; without any they do so from here on."""
        self._desk, self._books = desk, books or Books()
        self._saying = asyncio.Lock()
        if books is None:
            desk.decisions.followers.append(self._books.apply)

    def in_force(self, incident_id: str = "") -> list[Shown]:
        """The oldest first; of one incident or of all."""
        acts = self._desk.in_force()
        shown = [_shown(act) for act in acts if incident_id in ("", act.proposal.incident_id)]
        return [replace(each, broken=self._broken(each)) for each in shown]

    def _broken(self, shown: Shown) -> str:
        case = self.case_of(shown.incident_id)
        text = case.broken.get(shown.response_id, "") if case else ""
        return f"{text} ({case.case_id} is {case.state})" if case and text else ""

    def waiting(self, incident_id: str = "") -> list[Shown]:
        """What waits for people's signatures."""
        acts = self._desk.pending()
        groups = Counter(act.proposal.group for act in acts if act.proposal.group)
        shown = [act for act in acts if incident_id in ("", act.proposal.incident_id)]
        return [_shown(act, groups[act.proposal.group] - 1 if act.proposal.group else 0) for act in shown]

    def going_on(self, incident_id: str = "", key_id: str = "") -> list[Act]:
        """What is under way, in force or waits for people, the oldest first; "" is any."""
        acts = [act for act in self._desk.ledger.acts.values() if act.stage == "open" and not act.proposal.simulated]
        acts += [*self._desk.in_force(), *self._desk.pending()]
        wanted = [a for a in acts if incident_id in ("", a.proposal.incident_id) and key_id in ("", a.proposal.key_id)]
        return sorted(wanted, key=lambda act: act.at_us)

    def act(self, response_id: str) -> Act | None:
        """The real act of this very response id."""
        acts = [act for act in self._desk.ledger.acts.values() if not act.proposal.simulated]
        return next((act for act in acts if act.proposal.response_id == response_id), None)

    def cases(self) -> list[Case]:
        """Those that are not closed, who waits longest first."""
        cases = [case for case in self._books.cases.cases.values() if case.state != "closed"]
        return sorted(cases, key=lambda case: case.waiting_since_us)

    def case(self, case_id: str) -> Case | None:
        """The one of this id."""
        return self._books.cases.cases.get(case_id)

    def case_of(self, incident_id: str) -> Case | None:
        """The case that an incident belongs to."""
        return self._books.cases.case_of(incident_id)

    @property
    def stopped(self) -> str:
        """Who has stopped all automatic acts, and why; "" where nobody has."""
        switch = self._desk.ledger.stopped
        return f"{switch.by}: {switch.reason or 'no reason given'}" if switch else ""

    @property
    def simulating(self) -> str:
        """Who has put all acts to simulate, and why; "" where nobody has."""
        switch = self._desk.ledger.simulating
        return f"{switch.by}: {switch.reason or 'no reason given'}" if switch else ""

    def stage(self, respond: Respond) -> str:
        """Up to where acts happen by themselves; "" where that needn't be earned."""
        policy = ladder_of(respond).policy
        who = Who.of(policy, respond.approvers)
        return self._desk.ledger.promotions.stage(who) if policy.promotion == "required" else ""

    @property
    def breaker(self) -> bool:
        """Whether keys of many owners have tripped it."""
        return bool(self._desk.ledger.breaker.opened)

    async def undo(self, response_id: str, reason: str, person: str) -> str:
        """Ask for it; the responder carries it out. Raises ConfigError."""
        verdict = await self.take_back(self._desk.undoable(response_id)[0], reason, person)
        if not verdict.granted:
            raise ConfigError(f"not undone: {verdict.reason}")
        return "being undone: the responder tells the gateway"

    def can_undo(self, act: Act) -> bool:
        """Whether the ledger would grant a person's undo now."""
        return not self._desk.ledger.why_no_undo(act)

    async def take_back(self, act: Act, reason: str, person: str) -> Verdict:
        """Ask for an undo; what the ledger says of it. Raises Retry where the broker is away."""
        return await _soon(Desk(self._desk.decisions, person).undo(act, reason))

    async def sign(self, ticket: str, yes: bool, signature: str, reason: str, person: str) -> str:
        """One person's signed word on what waits. Raises ConfigError."""
        word = Signed(
            ticket=ticket, yes=yes, person=person, signature=signature, reason=reason,
            responder=self._desk.decisions.responder,
        )  # fmt: skip
        verdict = await _soon(self._desk.decisions.write(word))
        if not verdict.granted:
            raise ConfigError(f"not taken: {verdict.reason}")
        return verdict.reason

    async def say_of_case(self, case_id: str, verb: Verb, by: str, reason: str = "") -> bool:
        """A person's word on a case; False where there is none, or where it changes nothing."""
        return await _soon(self._say_of_case(CaseSaid(case_id=case_id, verb=verb, by=by, reason=reason)))

    async def _say_of_case(self, said: CaseSaid) -> bool:
        changes = {
            "ack": ("open", "snoozed"), "close": ("open", "snoozed", "acknowledged"), "unack": ("acknowledged",),
            "reopen": ("closed",),
        }  # fmt: skip
        async with self._saying:  # two at once would both find it open, and both be told to everybody
            case = self._books.cases.cases.get(said.case_id)
            if case is None or case.state not in changes.get(said.verb, ()):
                return False
            await self._desk.decisions.write(said)
            return True

    async def switch(self, stop: bool, reason: str, person: str) -> str:
        """The kill switch on the topic."""
        await _soon(Desk(self._desk.decisions, person).switch(stop, reason))
        return "all automatic acts are stopped" if stop else "automatic acts go on, as the policy says"

    async def simulate(self, on: bool, reason: str, person: str) -> str:
        """The simulate switch on the topic."""
        await _soon(Desk(self._desk.decisions, person).simulate(on, reason))
        words = "from now on acts are simulated: decided and recorded, never carried out"
        return words if on else "acts are carried out again where the policy says enforce"


Kept = tuple[Board, Callable[[], Awaitable[None]]]


async def _soon(answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await answer
    except TimeoutError:
        raise Retry("the broker does not answer; it may take effect all the same once it does: look again") from None


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


class Link:
    """The board, for as long as the broker answers; anew after that. `board` is None meanwhile."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Kept]]) -> None:
        self.board: Board | None = None
        self._connect = connect

    async def follow(self) -> None:
        """Until cancelled: hold the board, and find another when it is lost."""
        await follow(self._connect, self._hold, "no undo, no approval for now")

    async def _hold(self, kept: Kept) -> AsyncIterator[None]:
        self.board, lost = kept
        try:
            yield
            await lost()
        finally:
            self.board = None


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Kept]:
    """The board of the broker's topic, and what waits until it is lost, and raises then. Raises Fatal or Retry."""
    from pipeline.respond.responder import decisions_of
    from pipeline.sinks.kafka import Producer

    async with AsyncExitStack() as stack:
        producer = Producer(config.kafka)
        await producer.start()
        stack.push_async_callback(producer.close)
        name = f"console-{uuid.uuid4().hex[:8]}"
        books = Books()
        decisions = await decisions_of(config, producer, stack, name, books.apply)
        yield Board(Desk(decisions, "console"), books), partial(_lost, config, decisions)


async def _lost(config: Config, decisions: Decisions) -> None:
    """aiokafka's reader says nothing when the broker is gone: so it is asked whether the topic is there."""
    from pipeline.sinks.topics import partitions_of

    while True:
        await asyncio.sleep(LOOK_S)
        decisions.check()
        if config.topics.decisions not in await partitions_of(config.kafka, [config.topics.decisions]):
            raise Retry(f"{config.topics.decisions} is gone")
