"""Which acts this responder watches, and telling what the stream shows of them: each verdict once, by one responder.

An act is the business of whoever owns its incident's partition. That a verdict was told stands on the decisions topic
(`Told`), so that neither a restart nor a rebalance, which read the same requests again, tells it again; killed in
between, it comes twice at worst, under the same message id.

An act is bound to the key's version that it was granted for: once the catalogue declares another one, or that the key
was made anew or rotated after the act, what goes through is the new secret's right, and the act is watched no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipeline.metrics import METRICS
from pipeline.ports import Publisher
from pipeline.respond.carry import publish
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.enforcement.proof import Verdict, Watch
from pipeline.respond.enforcement.watched import Matrices, in_force
from pipeline.respond.keys import Keys
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Used
from pipeline.respond.night.night import Books
from pipeline.respond.night.notices import lead_of
from pipeline.respond.night.records import ActSeen, Told
from pipeline.times import micros
from schemas.incident import Incident
from schemas.key import Key

log = logging.getLogger(__name__)

SUBJECT: Final = "enforcement:{}"


@dataclass
class Verdicts:
    """`owned`: the partitions of incidents that are ours now."""

    responses_topic: str
    publisher: Publisher
    deliveries: Deliveries
    decisions: Decisions
    books: Books
    keys: Keys
    matrices: Matrices
    owned: Callable[[], frozenset[int]]
    console_url: str = ""  # respond.night.console_url
    _replaced: set[str] = field(default_factory=set)  # response ids whose key has another secret now
    _telling: dict[str, tuple[int, asyncio.Task[None]]] = field(default_factory=dict)  # message id -> its partition

    def in_force(self) -> list[Watch]:
        """What is to be watched here."""
        return [w for w in in_force(self.decisions.ledger, self.matrices, self.owned()) if not self._is_left(w)]

    async def tell(self, verdict: Verdict) -> None:
        """Into the audit, and to the endpoints that want it; nothing where it was told, or the secret is another."""
        watch = verdict.watch
        if verdict.word == "used":
            await self._note_used(verdict)
            return
        if self._is_told(verdict) or self._is_left(watch):
            return
        if await self._has_new_secret(watch):
            log.info("%s is watched no more: its key has another secret now", watch.response_id)
            self._replaced.add(watch.response_id)
            return
        self._count(verdict)
        await self._tell_case(verdict)
        await publish(
            self.publisher, self.responses_topic, watch.key_id.encode(), msgspec.json.encode(verdict.response())
        )
        events = await self.deliveries.tell(verdict.notice(self.console_url), watch.partition)
        task = asyncio.create_task(self._note(verdict, events), name=f"tell {verdict.message_id}")
        self._telling[verdict.message_id] = watch.partition, task

    async def _note_used(self, verdict: Verdict) -> None:
        """That somebody uses a rotation's new key is nothing to tell: it keeps an undo from deleting it."""
        for act in self.decisions.ledger.acts.values():
            of = act.proposal
            if of.response_id == verdict.watch.response_id and not of.simulated and not act.used_us:
                used = Used(act_id=of.act_id, response_id=of.response_id, at_us=verdict.at_us)
                await self.decisions.write(used)
                return

    async def _tell_case(self, verdict: Verdict) -> None:
        """The incident's topic is its worker's alone; what people take at night is the case, and that opens again."""
        of, broken = verdict.watch, verdict.word == "broken"
        case = self.books.cases.case_of(of.incident_id)
        if not broken and not self.books.cases.is_broken(of.response_id):
            return
        await self.decisions.write(ActSeen(
            response_id=of.response_id, incident_id=of.incident_id, key_id=of.key_id, verdict_id=verdict.message_id,
            broken=broken, text=verdict.text, partition=of.partition,
            body=(case.lead if case else lead_of(incident_of(verdict))) if broken else "",
        ))  # fmt: skip

    def let_go(self, partitions: set[int]) -> None:
        """These went to another responder: what waits here for its message would wait for ever."""
        for partition, task in self._telling.values():
            if partition in partitions:
                task.cancel()

    def check(self) -> None:
        """Raise what ended a note; forget those that are written."""
        for message_id in [message_id for message_id, (_, task) in self._telling.items() if task.done()]:
            _, task = self._telling.pop(message_id)
            if not task.cancelled():
                task.result()

    async def close(self) -> None:
        """Stop; what was told and not noted is told again at the next start, under the same id."""
        tasks = [task for _, task in self._telling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_told(self, verdict: Verdict) -> bool:
        subject = SUBJECT.format(verdict.watch.response_id)
        return verdict.message_id in self._telling or _step(verdict) in self.books.told(subject)

    def _is_left(self, watch: Watch) -> bool:
        return watch.response_id in self._replaced

    async def _has_new_secret(self, watch: Watch) -> bool:
        key, _, error = await self.keys.look_up(watch.key_id)
        return not error and key is not None and is_newer(key, watch)

    async def _note(self, verdict: Verdict, events: list[asyncio.Event]) -> None:
        for event in events:
            await event.wait()
        await self.decisions.write(Told(subject=SUBJECT.format(verdict.watch.response_id), step=_step(verdict)))

    def _count(self, verdict: Verdict) -> None:
        METRICS.enforcement.labels(verdict.watch.rung, verdict.word).inc()
        if verdict.word == "enforced":
            METRICS.response_seconds.labels("act_to_effect").observe(verdict.effect_s)
        level = logging.CRITICAL if verdict.word == "broken" else logging.INFO
        log.log(level, "%s: %s", verdict.watch.key_id, verdict.text)


def incident_of(verdict: Verdict) -> Incident:
    """What is left to say of an incident whose case is forgotten."""
    of, at = verdict.watch, verdict.response().at
    return Incident(
        incident_id=of.incident_id, key_id=of.key_id, rule="visit", revision=of.revision, change="escalated",
        state="open", severity="critical", rung=of.rung, opened_at=at, last_at=at, text=f"{of.key_id}: {verdict.text}",
        key_version=of.key_version,
    )  # fmt: skip


def is_newer(key: Key, watch: Watch) -> bool:
    """Whether the key's secret is another one than the act was about, as far as it is declared."""
    if key.version > 0 and watch.key_version > 0 and key.version != watch.key_version:
        return True
    return any(_us(text) > watch.confirmed_us for text in (key.created_at, key.last_rotated_at))


def _us(text: str) -> int:
    try:
        return micros(text)
    except ValueError:
        return -1


def _step(verdict: Verdict) -> str:
    return f"{verdict.word}:{verdict.at_us}"
