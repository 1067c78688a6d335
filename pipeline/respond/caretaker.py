"""What goes on without an incident: approved acts, timed ends, undos, what nobody approved, the page of the breaker.

All of it follows from the ledger: `due` lists what is to be done, and doing it changes the ledger. So a responder that
is killed has nothing to remember, and the next one finds the same list. Each act is the business of whoever owns its
incident's partition; where that is not known, of partition 0's owner. What stands for long, the open breaker, the
switches, by what is judged and when a drill last passed are said again each day, so that they outlive almost all of the
topic's retention (28 days, `sinks/topics.py`) without any responder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from pipeline.metrics import METRICS
from pipeline.respond.audit import rfc3339
from pipeline.respond.carry import Carrier, publish
from pipeline.respond.keys import Keys
from pipeline.respond.ladder import LADDER
from pipeline.respond.ledger.acts import TIME, Act, kept
from pipeline.respond.ledger.entries import Finished, Joined, Kept, Paged, Undo
from pipeline.respond.ledger.forgotten import BY
from pipeline.respond.ledger.ledger import DAY_US, Ledger
from pipeline.respond.night.drills import DrillBook
from pipeline.respond.promotion.earned import Who
from pipeline.tasks import cancel_all, raise_ended
from schemas.incident import Incident

log = logging.getLogger(__name__)

ROUND_S: Final = 1.0
CLOCK_S: Final = 30.0  # while something ends by itself, the broker's time is read so often
SOON_S: Final = 2.0
KEEP_US: Final = DAY_US
UNDO_AGAIN_S: Final = (60.0, 300.0, 900.0, 3600.0)  # after a failed undo; then every hour, for ever

Kind = Literal["act", "end", "undo", "lapse", "declined", "keep"]


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do for one act."""

    kind: Kind
    act: Act


def due(ledger: Ledger, partitions: frozenset[int]) -> Iterator[Job]:
    """What is to be done now for the acts of these partitions, by the broker's clock alone."""
    for act in list(ledger.acts.values()):
        mine = max(act.proposal.partition, 0) in partitions
        if mine and not act.proposal.simulated and (kind := _kind(act, ledger.now_us)):
            yield Job(kind, act)


def _kind(act: Act, now_us: int) -> Kind | None:
    if act.stage == "open":
        return "act"
    if act.stage == "pending":
        return "lapse" if now_us > act.lapses_us else None
    if act.stage == "declined":
        return None if act.outcome else "declined"
    if not act.stands and not act.revoked and not (act.undo and act.undo.stage == "open"):
        return None
    if act.undo and not act.revoked:
        wait_us = int(UNDO_AGAIN_S[min(act.undo.tries, len(UNDO_AGAIN_S)) - 1] * 1e6)
        if act.undo.stage == "open":
            return "undo"
        refused = act.used_us and not act.undo.words  # its new key came into use: for people
        if act.undo.stage == "failed" and not refused and now_us >= act.undo.at_us + wait_us:
            return "end"
    elif act.ends and now_us >= act.until_us:
        return "end"
    return "keep" if now_us >= max(act.at_us, act.kept_us) + KEEP_US else None


@dataclass
class Caretaker:
    """Does what is due. `page` delivers one message of our own and returns when it is out of our hands."""

    carrier: Carrier
    keys: Keys
    page: Callable[[Incident], Awaitable[None]]
    partitions: frozenset[int] = frozenset()
    drills: DrillBook = field(default_factory=DrillBook)
    _busy: dict[str, asyncio.Future[None]] = field(default_factory=dict)  # by act_id, or what is of no act
    _clock_at_s: float = 0.0
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; nothing is done before partitions are owned."""
        self._task = asyncio.create_task(self._run(), name="caretaker")

    async def close(self) -> None:
        """Stop; what is under way goes on with whoever comes next."""
        await cancel_all((self._task, *self._busy.values()))

    def check(self) -> None:
        """Raise what ended it."""
        raise_ended(self._task, "timed ends and approvals stand still")

    async def _run(self) -> None:
        while True:
            await self.round()
            await self.carrier.decisions.moved(ROUND_S)

    async def round(self) -> None:
        """Begin what is due and not under way; raises what ended badly."""
        self._collect()
        for job in due(self._ledger, self.partitions):
            self._begin(job.act.proposal.act_id, self._do(job), job.act.proposal.key_id)
        if 0 in self.partitions:
            self._begin("breaker", self._tell_of_breaker(), "")
            self._begin("topic", self._say_again(), "")
            self._begin("words", self._write_down_words(), "")
        self._show()

    def also(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin this, too, unless it is under way: given up with the partitions, and what it raises ends us."""
        self._begin(name, work, "")

    async def give_up(self, wait_s: float) -> None:
        """Nothing is owned any more: what is under way has `wait_s` to end, the rest is the next owner's."""
        self.partitions = frozenset()
        if self._busy:
            _, late = await asyncio.wait(self._busy.values(), timeout=wait_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            self._busy.clear()

    @property
    def _ledger(self) -> Ledger:
        return self.carrier.decisions.ledger

    def _collect(self) -> None:
        for name in [name for name, task in self._busy.items() if task.done()]:
            self._busy.pop(name).result()

    def _begin(self, name: str, work: Coroutine[Any, Any, None], key_id: str) -> None:
        if name in self._busy or (key_id and self.carrier.locks.busy(key_id)):
            work.close()
            return
        self._busy[name] = asyncio.ensure_future(work)

    async def _do(self, job: Job) -> None:
        act = job.act
        async with self.carrier.locks.one_at_a_time(act.proposal.key_id):
            current = self._ledger.act_of(act.proposal.act_id)
            if current is None or _kind(current, self._ledger.now_us) != job.kind:
                return  # done meanwhile, by the incident that led to it
            await getattr(self, f"_{job.kind}")(current)

    async def _act(self, act: Act) -> None:
        await self.carrier.resume(act, self.keys)

    async def _undo(self, act: Act) -> None:
        await self.carrier.undo(act)

    async def _end(self, act: Act) -> None:
        """Its time is over, or its undo failed: asked for on the topic, whose clock decides."""
        before = act.undo.asked if act.undo else None
        asked = before or Undo(
            act_id=act.proposal.act_id, by=TIME, reason=f"its time was over at {_at(act)}", responder=""
        )
        asked = msgspec.structs.replace(asked, responder=self.carrier.decisions.responder)
        verdict = await self.carrier.decisions.write(asked)
        if verdict.granted and verdict.act:
            await self.carrier.undo(verdict.act)

    async def _lapse(self, act: Act) -> None:
        wanted, words = act.proposal, f"nobody approved within {act.proposal.approval_s / 60:.0f} min"
        await self.carrier.decisions.write(Finished(
            act_id=wanted.act_id, response_id=wanted.response_id, result="expired", outcome=words
        ))  # fmt: skip
        if act.stage == "lapsed":  # by the broker's clock, too
            await self.carrier.record(wanted, "decided", "refused", f"approvals: {words}", act=act)

    async def _declined(self, act: Act) -> None:
        wanted = act.proposal
        reason = f"approvals: declined by {act.ended_by}"
        await self.carrier.record(wanted, "decided", "refused", reason, act=act)
        await self.carrier.decisions.write(Finished(
            act_id=wanted.act_id, response_id=wanted.response_id, result="failed", outcome=f"declined by {act.ended_by}"
        ))  # fmt: skip

    async def _keep(self, act: Act) -> None:
        decisions = self.carrier.decisions
        verdict = await decisions.write(said := kept(act, decisions.responder))
        while verdict.granted and said != (now := kept(act, decisions.responder)):  # put off, or used, while we wrote
            verdict = await decisions.write(said := now)
        if not verdict.granted:  # it ended while we wrote: said again, or it would come back once that is forgotten
            by, reason = act.ended_by or TIME, act.outcome
            await self.carrier.decisions.write(Undo(act_id=act.proposal.act_id, by=by, reason=reason, responder=""))
            await self.carrier.decisions.write(Finished(
                act_id=act.proposal.act_id, response_id=act.proposal.response_id, result="done", direction="undo",
                ended_by=by, outcome=reason,  # whoever reads only this may not grant that undo: a key in use, say
            ))  # fmt: skip

    async def _tell_of_breaker(self) -> None:
        opened = self._ledger.breaker.opened.get(False)
        if opened and not opened.paged:
            await self.page(breaker_page(self._ledger))
            await self.carrier.decisions.write(Paged(opened_offset=opened.offset))

    async def _write_down_words(self) -> None:
        """What people said to all responders, into the audit; then that it stands there."""
        carrier = self.carrier
        for said in list(self._ledger.words.waiting.values()):
            line = said.line(carrier.approvers)
            log.info("%s", line.reason)
            await publish(carrier.publisher, carrier.responses_topic, line.key_id.encode(), msgspec.json.encode(line))
            await carrier.decisions.write(said.told)

    async def _say_again(self) -> None:
        """All that stands for long, before it is forgotten; and a mark that tells the broker's time."""
        ledger, decisions = self._ledger, self.carrier.decisions
        opened = ledger.breaker.opened.get(False)
        if opened and ledger.now_us >= max(opened.at_us, opened.kept_us) + KEEP_US:
            await decisions.write(Kept(offset=opened.offset, at_us=opened.at_us, owners=opened.owners))
        if ledger.stopped and ledger.now_us >= ledger.stopped_us + KEEP_US:
            await decisions.write(msgspec.structs.replace(ledger.stopped, again=True))
        if ledger.simulating and ledger.now_us >= ledger.simulating_us + KEEP_US:
            await decisions.write(msgspec.structs.replace(ledger.simulating, again=True))
        if ladder := self.carrier.ladder:
            for promoted in ledger.promotions.again(
                Who.of(ladder.policy, self.carrier.approvers), ledger.now_us, KEEP_US
            ):
                await decisions.write(promoted)
        if builds := ledger.builds.again(ledger.now_us, KEEP_US):
            await decisions.write(builds)
        if passed := self.drills.again(ledger.now_us, KEEP_US):
            await decisions.write(passed)
        if self._wants_time():
            self._clock_at_s = self.carrier.now_s()
            await decisions.write(Joined(responder=decisions.responder, mark=""))

    def _wants_time(self) -> bool:
        """Often, where by our own clock something is over; a clock of ours that lies only costs some marks."""
        acts, now_us = self._ledger.acts.values(), self._ledger.now_us
        ends_us = [act.until_us if act.ends else act.lapses_us for act in acts if act.ends or act.stage == "pending"]
        ends_us += [act.until_us for act in acts if act.overlaps and now_us < act.until_us]
        now_s = self.carrier.now_s()
        every_s = SOON_S if ends_us and min(ends_us) <= now_s * 1e6 else CLOCK_S
        return bool(ends_us) and abs(now_s - self._clock_at_s) >= every_s

    def _show(self) -> None:
        acts = [act for act in self._ledger.acts.values() if not act.proposal.simulated]
        for rung in LADDER:
            METRICS.in_force.labels(rung).set(sum(act.stands and act.proposal.rung == rung for act in acts))
        METRICS.waiting.set(sum(act.stage == "pending" for act in acts))
        METRICS.queued.set(len(self._ledger.queue))
        stopped_by = self._ledger.stopped.by if self._ledger.stopped else None
        METRICS.acts_stopped.labels("keywatch").set(stopped_by == BY)
        METRICS.acts_stopped.labels("person").set(stopped_by not in (None, BY))
        METRICS.breaker_open.set(False in self._ledger.breaker.opened)
        ladder = self.carrier.ladder
        simulated, now_us = bool(ladder and ladder.policy.mode != "enforce"), int(self.carrier.now_s() * 1e6)
        for cap, window, ratio in self._ledger.counts.ratios(now_us, simulated):
            METRICS.cap_used_ratio.labels(cap, window).set(ratio)


def breaker_page(ledger: Ledger) -> Incident:
    """One critical message: automatic acts have stopped, and what to do."""
    opened = ledger.breaker.opened[False]
    ranked = sorted(ledger.queue.values(), key=lambda each: -each.proposal.bits)
    names = tuple(each.proposal.key_id for each in ranked)
    at = rfc3339(opened.at_us / 1e6)
    text = (
        f"automatic acts have stopped: keys of {len(opened.owners)} owners tripped at once, {len(names)} keys wait. "
        "`keywatch respond queue` ranks them, `keywatch respond bulk breaker --rung fence --preview` shows what one "
        "approval would do, `keywatch respond breaker close --reason TEXT` lets automatic acts go on"
    )
    return Incident(
        incident_id=f"{opened.offset:032x}", key_id="*", rule="breaker", revision=1, change="opened", state="open",
        severity="critical", rung="observe", opened_at=at, last_at=at, text=text, keys=names[:50],
        keys_total=len(names),
    )  # fmt: skip


def _at(act: Act) -> str:
    return rfc3339(act.until_us / 1e6)
