"""A rotated key is revoked once its traffic has moved, where `respond.policy.revoke_at_drain` says so, or is due.

A rotation that the responder carried out at a gateway which ends no key by itself (`Support.ends_old`) ends like this,
whatever that setting says: when the old key has drained, and at its deadline whether it has or not (`end_overlaps`).
The deadline is the topic's clock's to tell, and needs neither ClickHouse nor a successor in use.

The way of any act: guard -> decide (on `api.decisions`, with caps of its own) -> act -> record; simulated by default;
once granted it goes on after a crash like every other (`caretaker.py`). There is no incident: the evidence is how long
the old key was quiet (`keys/rotations.py`), as ClickHouse has it. So what is not known counts as still in use: no
newest request within `max_evidence_age_s` (nothing was loaded), a worker that is blind, a beginning that nobody knows,
a successor that nobody uses. Nobody is asked for approval: what needs one is left to people.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from pipeline.config.policy import Rule
from pipeline.config.tree import Config
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.rotations import GAP_DAYS, Begun, Rotation, look
from pipeline.keys.rotations import Drain as Quiet
from pipeline.replicas import refuse_behind
from pipeline.respond import guard, propose
from pipeline.respond.act import act_id, response_id
from pipeline.respond.caps import DAY_US, ROTATION
from pipeline.respond.carry import Carrier
from pipeline.respond.keys import Keys
from pipeline.respond.ladder import Ladder, Matrix, Means, judged
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import Proposed, Used
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.ledger.standing import clock, extend_of, undo_of
from pipeline.respond.night.night import Books
from pipeline.respond.night.records import RotationSeen
from pipeline.sinks.connect import AWAY, connect
from pipeline.times import rfc3339
from schemas.incident import incident_id
from schemas.key import Key
from schemas.response import GuardResult

log = logging.getLogger(__name__)

EVERY_S: Final = 300.0  # a look at all
DEADLINES_S: Final = 15.0  # at those that are ours and over
RULE: Final = Rule(name="revoke_at_drain", rung="revoke")


class Rotations(Protocol):
    """What ClickHouse says of them now."""

    def look(self, catalogue: Catalogue, begun: tuple[Begun, ...]) -> tuple[int, list[Rotation]]:
        """(the newest use of any key in us, the rotations). Raises Retry, Fatal or ConfigError."""


@dataclass(frozen=True, slots=True)
class ClickHouseRotations:
    """Of the requests in ClickHouse."""

    config: Config

    def look(self, catalogue: Catalogue, begun: tuple[Begun, ...]) -> tuple[int, list[Rotation]]:
        """See `Rotations`."""
        with connect(self.config.clickhouse, self.config.clickhouse.database) as client:
            refuse_behind(client)
            return look(client, catalogue, self.config.key_life, begun)


@dataclass(frozen=True, slots=True)
class Question:
    """One rotation to end. `key`: the old one as the catalogue has it; `blind`: why requests are not judged, or "".

    `act`: the rotation, where it is ours; then a row that has not drained is over its deadline.
    """

    row: Rotation
    as_of_us: int
    ladder: Ladder
    key: Key | None
    catalogue_error: str
    killed: str
    blind: str
    now_s: float
    act: Act | None = None

    @property
    def rule(self) -> Rule:
        """By which it ends: what the policy says of all of them, or the rule that rotated it."""
        return Rule(name=(self.act.proposal.rule or "rotate") if self.act else RULE.name, rung="revoke")

    @property
    def adapter(self) -> str:
        """Who ends it: who rotated it."""
        return self.act.proposal.adapter if self.act else self.ladder.policy.adapter


def judge(asked: Question) -> tuple[GuardResult, ...]:
    """Every guard's answer; those that incidents have, too, have the same names."""
    key, policy = asked.key, asked.ladder.policy
    known = key is not None and not asked.catalogue_error
    shielded = key is None or key.protected or key.decoy
    version = key.version if key else 0
    same = version > 0 and (asked.act is None or version == asked.act.proposal.key_version)
    return (
        guard.result("mode", policy.mode in ("simulate", "enforce"), f"the mode is {policy.mode}"),
        guard.result("kill_switch", not asked.killed, asked.killed or "off"),
        *_evidence(asked),
        guard.result("catalogued", known, asked.catalogue_error or ("declared" if key else "nobody declared this key")),
        guard.result("protected", not shielded, "for people only" if shielded else "not protected"),
        guard.result("status", key is not None and key.status == "active", key.status if key else "not known"),
        guard.result("key_version", same, f"version {version}"),
    )


def _evidence(asked: Question) -> tuple[GuardResult, ...]:
    """That its traffic has moved; or that its deadline is over, which needs no other."""
    row = asked.row
    if asked.act and row.state == "overdue":
        return (guard.result("deadline", True, row.drain.reason),)
    behind_s, age_s = asked.now_s - asked.as_of_us / 1e6, asked.ladder.policy.max_evidence_age_s
    return (
        guard.result("drained", row.drain.drained and row.began_us > 0, row.drain.reason),
        guard.result("history", _is_known(row, asked.as_of_us), f"known for {GAP_DAYS} days, or the deadline is over"),
        guard.result("successor", row.new_requests_24h > 0, f"{row.new}: {row.new_requests_24h} requests in 24 h"),
        guard.result("freshness", behind_s <= age_s, f"the newest request is {behind_s:.0f} s old"),
        guard.result("sight", not asked.blind, asked.blind or "requests are seen to be judged as they come"),
    )


def _is_known(row: Rotation, as_of_us: int) -> bool:
    """Whether its pauses are: a job of once a month is seen in two months only. The owner's deadline is a word, too."""
    return 0 < row.known_since_us <= as_of_us - GAP_DAYS * DAY_US or 0 < row.deadline_us <= as_of_us


def proposal(asked: Question, adapter: str, active_keys: int) -> Proposed:
    """To revoke the old key, bound to the version that drained."""
    row, policy = asked.row, asked.ladder.policy
    version = asked.key.version if asked.key else 0
    about = incident_id(row.old, "rotation", row.began_us, row.new)
    return Proposed(
        act_id=act_id(row.old, version), response_id=response_id(about, "revoke", version), incident_id=about,
        revision=1, key_id=row.old, key_version=version, responder="", simulated=policy.mode != "enforce",
        max_per_hour=policy.caps.max_per_hour, max_per_day=policy.caps.max_per_day,
        max_share_of_active=policy.caps.max_share_of_active, active_keys=active_keys, cap=ROTATION, owner=row.owner,
        settled=False, exempt_s=policy.exempt_s, adapter=adapter, rule=asked.rule.name, first_us=row.began_us,
        reason=f"rotated to {row.new}: {row.drain.reason}", policy_version=asked.ladder.version,
        evidence_hash=hashlib.blake2b(msgspec.json.encode(row), digest_size=16).hexdigest(),
        deadline_us=row.deadline_us if asked.act and row.state == "overdue" else 0,
    )  # fmt: skip


@dataclass
class Drain:
    """Looks at rotations (`rounds.py` says when). `held`: the catalogue as last read.

    `blind`: why it is not known that all requests are judged, or "".
    """

    carrier: Carrier
    ladder: Ladder
    keys: Keys
    books: Books
    rotations: Rotations
    held: Callable[[], Catalogue | None]
    matrices: dict[str, Matrix]
    killed: Callable[[], str]
    blind: Callable[[], str]
    _said: dict[tuple[str, int], str] = field(default_factory=dict)  # what of a key's version was recorded last
    _held_s: dict[str, float] = field(default_factory=dict)  # act id -> not proposed again before that
    _away: bool = False

    async def look(self) -> None:
        """One look at all rotations: what nears its deadline is said, what has drained is refused, or one is revoked.

        One: an act may take a quarter of an hour, and by then the others must be looked at anew.
        """
        catalogue = self.held()
        if catalogue is None:
            return
        try:
            as_of_us, rows = await asyncio.to_thread(self.rotations.look, catalogue, tuple(begun(self._ledger)))
        except AWAY as error:
            if not self._away:
                log.warning("rotations can't be looked at, nothing of them is done: %s", error)
            self._away = True
            return
        self._away = False
        ours = {act.proposal.key_id: act for act in self._ledger.acts.values() if act.overlaps}
        await self._say_used(rows)
        if self.carrier.now_s() - as_of_us / 1e6 <= self.ladder.policy.max_evidence_age_s:  # else nothing has moved
            await self._say_over(catalogue, {row.old: row for row in rows})
        for row in rows:
            act = ours.get(row.old)
            if act is not None and _is_over(act, self._ledger.now_us):
                continue  # its deadline's, which also tells if it is not kept
            if row.state in ("due", "overdue"):
                await self._say_due(row, act)
            ends = row.state == "drained" and (act is not None or self.ladder.policy.revoke_at_drain)
            if ends and await self._end(row, as_of_us, act):
                return

    async def end_overlaps(self) -> None:
        """Say what is over, and revoke the old key of each rotation of ours at its deadline, by the topic's clock."""
        await self._say_over(self.held())
        for act in list(self._ledger.acts.values()):
            left_s = self._held_s.get(act.proposal.act_id, 0.0) - self.carrier.now_s()
            held = 0 < left_s <= EVERY_S  # more is a clock that was put back
            if act.overlaps and _is_over(act, self._ledger.now_us) and not held:
                await self._end(over(act), act.until_us, act)

    @property
    def _ledger(self) -> Ledger:
        return self.carrier.decisions.ledger

    async def _say_over(self, catalogue: Catalogue | None, rows: Mapping[str, Rotation] | None = None) -> None:
        for over in self.books.rotations.ended(self._ledger.acts.values(), catalogue, rows):
            await self.carrier.decisions.write(over)

    async def _say_used(self, rows: list[Rotation]) -> None:
        """What the requests' stream did not show within a day of the rotation (`watched.py`), ClickHouse does."""
        used = {(row.old, row.new): row.new_used_us for row in rows if row.new_used_us}
        for act in list(self._ledger.acts.values()):
            of = act.proposal
            at_us = used.get((of.key_id, act.new_key_id), 0)
            if act.stands and of.rung == "rotate" and not act.used_us and at_us and act.new_key_id != of.key_id:
                await self.carrier.decisions.write(Used(act_id=of.act_id, response_id=of.response_id, at_us=at_us))

    async def _say_due(self, row: Rotation, act: Act | None) -> None:
        end = ""
        if act:
            off = self._ledger.held or ("" if self.ladder.policy.mode == "enforce" else "nothing is enforced")
            when = "then, also if it is in use" if act.until_us else "once its traffic has moved, however late"
            end = f"Keywatch revokes the old key {when}" + (f" (but not while {off})" if off else "")
            end += f". Later: `{extend_of(act)}`" if act.proposal.max_overlap_s and act.until_us else ""
            end += "" if act.used_us else f". Not at all: `{undo_of(act)}` (deletes the new key, which nobody used yet)"
        await self._say(RotationSeen(
            old=row.old, new=row.new, owner=row.owner, deadline_us=row.deadline_us, state=row.state,
            requests_24h=row.old_requests_24h, reason=row.drain.reason, sources=tuple(words_of(row)), end=end,
        ))  # fmt: skip

    async def _say(self, seen: RotationSeen) -> None:
        if self.books.rotations.is_news(seen, self._ledger.now_us):
            await self.carrier.decisions.write(seen)

    async def _end(self, row: Rotation, as_of_us: int, act: Act | None) -> bool:
        """Whether it was acted on."""
        async with self.carrier.locks.one_at_a_time(row.old):
            if act is not None and (not act.overlaps or (row.state == "overdue" and act.until_us > row.deadline_us)):
                return False  # undone or put off meanwhile
            key, active_keys, error = await self.keys.look_up(row.old)
            ladder = self.ladder.simulated() if self._ledger.simulating else self.ladder
            lost = self.books.protection.lost
            blind = lost.why or "requests are not judged" if lost else self.blind()
            stop = self._ledger.stopped
            killed = self.killed() or (f"stopped by {stop.by}: {stop.reason}" if stop else "")
            asked = Question(row, as_of_us, ladder, key, error, killed, blind, self.carrier.now_s(), act)
            return await self._decide(asked, active_keys)

    async def _decide(self, asked: Question, active_keys: int) -> bool:
        adapter = asked.adapter
        of_owner, others = await self.keys.others(asked.key) if asked.key else (None, None)
        means = Means(adapter, self.matrices.get(adapter), owner_keys=of_owner, other_keys=others)
        guards = (*judge(asked), *judged("revoke", asked.rule, means))
        wanted = msgspec.structs.replace(
            proposal(asked, adapter, active_keys), responder=self.carrier.decisions.responder
        )
        if self._is_done(wanted):
            await self._say_waits(asked, wanted)
            return False
        if no := guard.refusals(guards):
            await self._refuse(asked, wanted, guards, no)
            await self._say_held(asked, no)
            return False
        verdict = await self.carrier.decisions.write(wanted)
        ours = verdict.act is not None and propose.same(verdict.act.proposal, wanted)
        if ours and verdict.act and verdict.act.stage == "done":
            return False  # by another responder, while we asked
        granted = verdict.granted or ours
        guards = (*guards, guard.result(verdict.guard, granted, verdict.reason))
        if verdict.act is None or not granted:
            await self._refuse(asked, wanted, guards, guards[-1:])
            await self._say_held(asked, guards[-1:])
            if asked.act:  # by the caps, say: no proposal every quarter of a minute
                self._held_s[asked.act.proposal.act_id] = asked.now_s + EVERY_S
        elif wanted.simulated:
            self._said[wanted.key_id, wanted.key_version] = "simulated"
            reason = f"would have been done: revoke, {wanted.reason} (simulate)"
            await self.carrier.record(wanted, "decided", "simulated", reason, guards=guards, act=verdict.act)
        else:
            await self.carrier.record(wanted, "decided", "allowed", wanted.reason, guards=guards, act=verdict.act)
            await self.carrier.carry_out(verdict.act)
            return True
        return False

    async def _say_waits(self, asked: Question, wanted: Proposed) -> None:
        """Why a revocation that the ledger knows has not ended the old key. One that failed is told as such."""
        known = self._ledger.act_of(wanted.act_id, wanted.simulated)
        if wanted.simulated:
            await self._say_held(asked, (guard.result("mode", False, self._ledger.held or "simulate"),))
        elif known and known.stage in ("pending", "declined", "lapsed"):
            why = f"a revocation for incident {known.proposal.incident_id} is {known.stage}"
            await self._say_held(asked, (guard.result("approvals", False, why),))

    async def _say_held(self, asked: Question, no: tuple[GuardResult, ...]) -> None:
        """A deadline that is not kept is told, unless it may only be late: whoever has the old secret can go on.

        Not of a key that somebody else has ended or deleted, or whose secret is another one by now: as far as that is
        known, so of all while the catalogue can't be read.
        """
        row = asked.row
        if not asked.catalogue_error and any(each.guard in ("status", "key_version") for each in no):
            return
        late_s = max(asked.now_s, self._ledger.now_us / 1e6) - row.deadline_us / 1e6
        if asked.act is None or row.state != "overdue" or late_s < EVERY_S:
            return
        why = "; ".join(f"{each.guard}: {each.reason}" for each in no)
        await self._say(RotationSeen(
            old=row.old, new=row.new, owner=row.owner, deadline_us=row.deadline_us, state="held",
            requests_24h=row.old_requests_24h, reason=row.drain.reason, end=f"Keywatch did not end it: {why}",
        ))  # fmt: skip

    def _is_done(self, wanted: Proposed) -> bool:
        """Whether this version was revoked, is being so, or was said to be: nothing to say every five minutes.

        The ledger knows a revocation for 30 days; a key that is not deleted by then is a leftover for longer, and if
        somebody has enabled it at the gateway meanwhile, he wants it to live on. What failed is tried again once the
        ledger has forgotten it, after a day: it counts towards the cap of all.
        """
        known = self._ledger.act_of(wanted.act_id, wanted.simulated) is not None
        name = wanted.key_id, wanted.key_version
        return known or name in self.books.leftovers.revoked or (
            wanted.simulated and self._said.get(name) == "simulated"
        )  # fmt: skip

    async def _refuse(
        self, asked: Question, of: Proposed, guards: tuple[GuardResult, ...], no: tuple[GuardResult, ...]
    ) -> None:  # fmt: skip
        """Recorded when its guards change, not at each look; of each version that was rotated by itself."""
        names = ", ".join(each.guard for each in no)
        about = of.key_id, asked.act.proposal.key_version if asked.act else of.key_version
        if self._said.get(about) == names:
            return
        self._said[about] = names
        reason = "; ".join(f"{each.guard}: {each.reason}" for each in no)
        await self.carrier.record(of, "decided", "refused", reason, guards=guards)


def begun(ledger: Ledger) -> list[Begun]:
    """The rotations that the responder carried out and that stand: their old keys are valid until the overlap ends.

    Not where the new secret keeps the key's id: nothing tells whose a request is.
    """
    return [
        Begun(old=act.proposal.key_id, new=act.new_key_id, began_us=act.at_us, deadline_us=act.until_us)
        for act in ledger.acts.values()
        if act.stands and act.proposal.rung == "rotate" and act.new_key_id not in ("", act.proposal.key_id)
    ]


def _is_over(act: Act, now_us: int) -> bool:
    return 0 < act.until_us <= now_us


def over(act: Act) -> Rotation:
    """A rotation of ours at its deadline, of which nothing else need be known."""
    of, since = act.proposal, clock(rfc3339(act.until_us))
    why = Quiet(drained=False, since_us=0, safe_at_us=0, reason=f"its overlap was over at {since}")
    return Rotation(
        old=of.key_id, new=act.new_key_id, owner=of.owner, state="overdue", began_us=act.at_us,
        deadline_us=act.until_us, old_requests_24h=0, new_requests_24h=0, old_share=0.0, drain=why, sources=[],
    )  # fmt: skip


def words_of(row: Rotation) -> list[str]:
    """Who still uses the old key, the busiest first."""
    return [f"{each.client or 'an unnamed client'} from {each.prefix} (AS{each.asn})" for each in row.sources[:3]]
