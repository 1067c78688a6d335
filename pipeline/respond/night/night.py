"""What is told without an incident's message: pages of cases, blindness, disabled endpoints, drills. Driven by state.

Each round asks the books (`cases.py`, `watch.py`, `drills.py`, `outbox.py`) what is due, tells it, and writes `Told`
once it is delivered or durably handed over. So a responder that is killed anywhere has nothing to remember: what was
not told is still due at the next start, and what was is told twice at worst, under the same message id.

A case is told by whoever owns the partition of its first incident, all else by the owner of partition 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import msgspec
from aiokafka.errors import KafkaError

from pipeline.config.tree import Respond
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.metrics import METRICS
from pipeline.respond import act_notices
from pipeline.respond.brief import Brief, Known, Usage, brief
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.notice import Notice, link_to, of_incident
from pipeline.respond.ladder import Others, ladder_of
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Record
from pipeline.respond.ledger.standing import standing
from pipeline.respond.night.cases import DAY_US, CaseBook, due, links_of
from pipeline.respond.night.drills import DrillBook
from pipeline.respond.night.notices import (
    PROMOTION,
    PROTECTION,
    lead_of,
    of_case,
    of_drill,
    of_endpoint,
    of_leftover,
    of_promotion,
    of_protection,
    of_rotation,
    of_rotation_over,
)
from pipeline.respond.night.records import CaseSeen, NightRecord, Told
from pipeline.respond.night.watch import Eyes, Look, ProtectionBook, Seen, Sight
from pipeline.respond.promotion.earned import REVIEW, Who
from pipeline.respond.rotation.book import TOLD_KEPT_US, RotationBook, step_of
from pipeline.respond.rotation.leftovers import LeftoverBook, Tidying
from pipeline.respond.set_up import SetUp
from pipeline.tasks import cancel_all, raise_ended
from pipeline.times import micros
from schemas.incident import Incident
from schemas.key import Key

log = logging.getLogger(__name__)

ROUND_S: Final = 1.0
TIDY_S: Final = 30.0
LOOK_WITHIN_S: Final = 60.0
KEY_WITHIN_S: Final = 2.0
MAX_ASKING: Final = 50
SLOW: Final = "it did not answer in time"
UNSEEN: Final = (Fatal, Retry, ConfigError, KafkaError, OSError)


class Keys(Protocol):
    """What the catalogue says now."""

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        """(the key or None, number of active keys or 0, why the catalogue can't be read or "")."""

    async def others(self, key: Key) -> Others:
        """Which an act on more than this key would hit, as `look_up` read it."""


class Numbers(Protocol):
    """A key's numbers, in time or not at all."""

    async def read(self, incident: Incident) -> Usage:
        """Never raises."""


@dataclass(slots=True)
class Books:
    """All that the topic says of the night; `apply` follows it from its start."""

    cases: CaseBook = field(default_factory=CaseBook)
    protection: ProtectionBook = field(default_factory=ProtectionBook)
    drills: DrillBook = field(default_factory=DrillBook)
    leftovers: LeftoverBook = field(default_factory=LeftoverBook)
    rotations: RotationBook = field(default_factory=RotationBook)
    _told: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)  # subject -> (when last, steps)

    def apply(self, at_us: int, record: Record | None) -> None:
        """The next record of the topic, in order, with the broker's time."""
        self.rotations.apply(at_us, record)
        if isinstance(record, Told):
            self._told[record.subject] = (at_us, self.told(record.subject) | {record.step})
            for old in [subject for subject, (when, _) in self._told.items() if at_us - when > TOLD_KEPT_US]:
                del self._told[old]
        if isinstance(record, NightRecord):
            self.cases.apply(at_us, record)
        self.protection.apply(record)
        self.drills.apply(at_us, record)
        self.leftovers.apply(at_us, record)

    def told(self, subject: str) -> frozenset[str]:
        """The steps of a subject that were told."""
        return self._told.get(subject, (0, frozenset[str]()))[1]


@dataclass(frozen=True, slots=True)
class Due:
    """One thing to tell."""

    subject: str
    step: str
    partition: int
    make: Callable[[], Notice] | None = None  # None: of a case, which is looked up first
    not_to: str = ""


@dataclass
class Night:
    """Tells what is due for the partitions that we own. `start` before use, `close` after."""

    settings: Respond
    books: Books
    decisions: Decisions
    keys: Keys
    numbers: Numbers
    now_s: Callable[[], float]
    eyes: Eyes | None = None  # None: blindness is not looked for
    deliveries: Deliveries = field(default_factory=lambda: Deliveries([]))
    set_up: SetUp | None = None  # None: everything can be done
    tidying: Tidying | None = None
    _sight: Sight = field(init=False)
    _looked: tuple[float, Seen] | None = None  # by the last look while partition 0 was ours, and when
    _telling: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by subject
    _of: dict[str, int] = field(default_factory=dict)  # subject -> its partition
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _counted: set[str] = field(default_factory=set)
    _asking: set[asyncio.Task[tuple[Key | None, int, str]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._sight = Sight(self.settings.night.blind_after_s)

    def start(self) -> None:
        """Begin. Drills that ended before are not counted again: a counter that starts with 3 has not grown by 3."""
        for outcome in ("passed", "failed"):
            METRICS.drills.labels(outcome)
        self._counted = {drill.started.drill_id for drill in self.books.drills.drills.values() if drill.ended}
        self._tasks.append(asyncio.create_task(self._run(self.round, ROUND_S), name="night"))
        if self.eyes and self.settings.night.blind_after_s > 0:
            look = self._run(self.look, self.settings.night.look_every_s)
            self._tasks.append(asyncio.create_task(look, name="watch"))

        if self.tidying:
            self._tasks.append(asyncio.create_task(self._run(self._tidy, TIDY_S), name="leftovers"))

    async def close(self) -> None:
        """Stop; what was not told is due again at the next start."""
        await cancel_all((*self._tasks, *self._telling.values(), *self._asking))

    def check(self) -> None:
        """Raise what ended it: without it nobody is paged any more."""
        for task in self._tasks:
            raise_ended(task, "telling of the night ended")

    # -- incidents -------------------------------------------------------------------------------------------------

    async def prepare(self, incident: Incident, partition: int) -> Notice:
        """What is told of an incident: its case, and the brief. The case's page follows from the state."""
        key, unreadable = await self._key(incident)
        await self.decisions.write(self._seen(incident, key, partition))
        case = self.books.cases.case_of(incident.incident_id)
        told = await self._told(incident, key, unreadable)
        return of_incident(incident, told, case.case_id if case else "", link_of(self.settings, incident))

    def _seen(self, incident: Incident, key: Key | None, partition: int) -> CaseSeen:
        """Always with its lead: whether it opens a case is for the topic's clock to say, not for ours."""
        return CaseSeen(
            incident_id=incident.incident_id, revision=incident.revision, key_id=incident.key_id,
            severity=incident.severity, closed=incident.state == "closed", at_us=micros(incident.last_at),
            links=links_of(incident, key), window_s=self.settings.cases.window_s, partition=partition,
            body=lead_of(incident),
        )  # fmt: skip

    async def _key(self, incident: Incident) -> tuple[Key | None, str]:
        """What the catalogue says in time, and why it says nothing: no message waits for one that is away."""
        if len(self._asking) >= MAX_ASKING:
            return None, SLOW
        task = asyncio.create_task(self.keys.look_up(incident.key_id))  # goes on when we don't wait: others share it
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        done, _ = await asyncio.wait([task], timeout=KEY_WITHIN_S)
        if not done:
            return None, SLOW
        key, _, error = task.result()
        return key, error

    # -- rounds ----------------------------------------------------------------------------------------------------

    async def round(self) -> None:
        """Begin to tell all that is due and is not being told."""
        now_us = int(self.now_s() * 1e6)
        if 0 in self.deliveries.owned:
            await self._housekeeping(now_us)
        for each in list(self._due(now_us)):
            if each.subject not in self._telling:
                task = asyncio.create_task(self._tell(each, now_us), name=f"tell {each.subject}")
                self._telling[each.subject], self._of[each.subject] = task, each.partition
        for subject in [subject for subject, task in self._telling.items() if task.done()]:
            task = self._telling.pop(subject)
            if not task.cancelled():
                task.result()  # raises what ended it
        self._show(now_us)

    def _due(self, now_us: int) -> Iterator[Due]:
        """At most one step of each subject: steps of a subject are told one after the other."""
        books, owned = self.books, self.deliveries.owned
        for case in books.cases.cases.values():
            if case.partition in owned and case.lead:  # an older responder opened some without: a revision brings it
                step = next(due(case, books.told(case.case_id), now_us, self.settings.cases), "")
                if step:
                    yield Due(case.case_id, step, case.partition)
        yield from self._due_of_acts(now_us)
        if 0 not in owned:
            return
        last = books.protection.last
        if last and (step := books.protection.due(books.told(PROTECTION))):
            yield Due(PROTECTION, step, 0, lambda: of_protection(last, now_us))
        for name, off in self.decisions.outbox.disabled.items():
            if str(off.since_us) not in books.told(f"endpoint:{name}"):
                notice = of_endpoint(name, off, now_us)
                yield Due(notice.subject, str(off.since_us), 0, lambda notice=notice: notice, name)  # type: ignore[misc]
        for drill in books.drills.drills.values():
            failed = drill.ended and not drill.ended.passed
            if failed and "failed" not in books.told(drill.started.drill_id):
                notice = of_drill(drill, now_us)
                yield Due(notice.subject, "failed", 0, lambda notice=notice: notice)  # type: ignore[misc]
        who = Who.of(ladder_of(self.settings).policy, self.settings.approvers)
        back = self.decisions.ledger.promotions.holding(who)
        taken = back is not None and back.record.by == REVIEW and now_us - back.at_us < DAY_US
        if back and taken and str(back.at_us) not in books.told(PROMOTION):
            yield Due(PROMOTION, str(back.at_us), 0, partial(of_promotion, back, now_us))
        for left in books.leftovers.due(now_us):
            notice = of_leftover(left, now_us)
            yield Due(left.subject, "due", 0, lambda notice=notice: notice)  # type: ignore[misc]
        for at_us, seen in books.rotations.seen.values():
            step = step_of(at_us, seen)
            notice = of_rotation(seen, step, now_us)
            if step not in books.told(notice.subject):
                yield Due(notice.subject, step, 0, lambda notice=notice: notice)  # type: ignore[misc]
        for over in books.rotations.over.values():
            notice = of_rotation_over(over, now_us)
            told = books.told(notice.subject)
            if over.steps & told and over.step not in told:
                yield Due(notice.subject, over.step, 0, lambda notice=notice: notice)  # type: ignore[misc]

    def _due_of_acts(self, now_us: int) -> Iterator[Due]:
        cases, ledger = self.books.cases, self.decisions.ledger
        sizes = {name: len(bulk.act_ids) for name, bulk in ledger.groups.items()}
        acts, replaced = (
            [act for act in some if not cases.is_drill(act.proposal, act.at_us)]
            for some in (ledger.acts.values(), ledger.replaced)
        )
        for said in act_notices.due(acts, now_us, self.books.told, sizes, replaced):
            if said.partition in self.deliveries.owned:
                case = cases.case_of(said.acts[0].proposal.incident_id)
                paged = case.case_id if case and case.state != "closed" and self.books.told(case.case_id) else ""
                make = partial(act_notices.notice, said, now_us, self.settings.night.console_url, paged)
                yield Due(said.subject, said.step, said.partition, make)

    def let_go(self, partitions: set[int]) -> None:
        """These went to another responder, who tells it; what waits here for its message would wait for ever."""
        if 0 in partitions:
            self._looked = None
        for subject, task in self._telling.items():
            if max(self._of[subject], 0) in partitions:
                task.cancel()

    async def _tell(self, each: Due, now_us: int) -> None:
        notice = each.make() if each.make else await self._of_case(each, now_us)
        others = [name for name in self.deliveries.mailboxes if name != each.not_to] if each.not_to else ()
        if each.not_to and not others:
            log.error("nobody else can be told: %s", notice.title)
        else:
            for released in await self.deliveries.tell(notice, each.partition, others):
                await released.wait()
        log.warning("told (%s): %s", notice.event, notice.title)
        await self.decisions.write(Told(subject=each.subject, step=each.step))

    async def _of_case(self, each: Due, now_us: int) -> Notice:
        case = self.books.cases.cases[each.subject]
        incident = msgspec.json.decode(case.lead, type=Incident)
        return of_case(case, each.step, now_us, incident, await self._brief(incident), link_of(self.settings, incident))

    async def _brief(self, incident: Incident) -> Brief:
        key, unreadable = await self._key(incident)
        return await self._told(incident, key, unreadable)

    async def _told(self, incident: Incident, key: Key | None, unreadable: str) -> Brief:
        """What stands is asked last: it may have been done while the numbers were asked for."""
        usage = await self.numbers.read(incident)
        others = await self.keys.others(key) if key else (None, None)
        broken = {name for case in self.books.cases.cases.values() for name in case.broken}
        stands = standing(self.decisions.ledger.acts.values(), incident, broken)
        known = Known(usage=usage, unreadable=unreadable, set_up=self.set_up, others=others, standing=stands)
        return brief(incident, key, known)

    async def _housekeeping(self, now_us: int) -> None:
        """Of the owner of partition 0: drills end, and what is disabled is said again before it is forgotten."""
        records: list[NightRecord] = list(self.decisions.outbox.restated(self.decisions.ledger.now_us))
        records += [end for drill in self.books.drills.drills.values() if (end := drill.verdict(now_us))]
        for record in records:
            await self.decisions.write(record)

    # -- Keywatch itself -------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One look at the workers, by the owner of partition 0; says it where it has changed."""
        if 0 not in self.deliveries.owned or self.eyes is None:
            return
        look: Look | None = None
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                look = await self.eyes.look()
        except UNSEEN as error:
            log.warning("the workers' lag can't be seen: %s", error)
        self._looked = self.now_s(), self._sight.take(look, self.now_s())
        record = self.books.protection.change(self._looked[1])
        if record is None:
            return
        log.error("%s", of_protection(record, int(self.now_s() * 1e6)).title)
        if look is None:  # the topic can't be written: what can still be told is told now
            await self._told_at_once(of_protection(record, int(self.now_s() * 1e6)))
        await self.decisions.write(record)
        if look is None:
            await self.decisions.write(Told(subject=PROTECTION, step=f"lost:{record.since_us}"))

    def blind(self) -> str:
        """Why it is not known that all requests are judged by now; "" where we have seen that they are."""
        settings = self.settings.night
        if self.eyes is None or settings.blind_after_s <= 0:
            return "nobody looks whether requests are judged (respond.night.blind_after_s)"
        if self._looked is None or self.now_s() - self._looked[0] > LOOK_WITHIN_S + 2 * settings.look_every_s:
            return "this responder has not looked yet, or no more, whether requests are judged"
        seen = self._looked[1]
        return "" if seen.well else seen.why or "requests wait to be judged, as far as is known"

    async def _tidy(self) -> None:
        if self.tidying and 0 in self.deliveries.owned:
            await self.tidying.round()

    async def _told_at_once(self, notice: Notice) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_WITHIN_S):
                for released in await self.deliveries.tell(notice, 0):
                    await released.wait()

    async def _run(self, step: Callable[[], object], every_s: float) -> None:
        while True:
            result = step()
            if asyncio.iscoroutine(result):
                await result
            await asyncio.sleep(every_s)

    def _show(self, now_us: int) -> None:
        cases = [case for case in self.books.cases.cases.values() if case.partition in self.deliveries.owned]
        waiting = [case for case in cases if case.state == "open" and self.books.told(case.case_id)]
        METRICS.open_cases.set(sum(case.state != "closed" for case in cases))
        METRICS.case_waiting_seconds.set(max((now_us - case.waiting_since_us for case in waiting), default=0) / 1e6)
        lost = self.books.protection.lost
        METRICS.unprotected_since.set(lost.since_us / 1e6 if lost else 0)
        if 0 in self.deliveries.owned:
            self._show_drills()

    def _show_drills(self) -> None:
        METRICS.drill_last_passed.set(self.books.drills.last_passed_us / 1e6)
        for drill in self.books.drills.drills.values():
            if drill.ended and drill.started.drill_id not in self._counted:
                self._counted.add(drill.started.drill_id)
                METRICS.drills.labels("passed" if drill.ended.passed else "failed").inc()
                if drill.ended.passed:
                    METRICS.drill_seconds.observe(drill.took_s)


def link_of(settings: Respond, incident: Incident) -> str:
    """The console's page of the incident, where acts are approved and undone; "" where nobody said where it is."""
    return link_to(settings.night.console_url, incident.incident_id, incident.key_id)
