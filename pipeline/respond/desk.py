"""What people do with acts: undo, approve, refuse, act on a cluster at once, raise caps, stop and go on.

Every word is a record on `api.decisions`, read back through the ledger like a responder's own; the responder carries it
out. Only its own person's key signs (`approval.py`); who may write the topic at all is the broker's to say.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from pipeline.config.policy import Approver, Caps
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.respond import approval, fence
from pipeline.respond.act import act_id, response_id
from pipeline.respond.caps import DAY_US
from pipeline.respond.fence import Networks
from pipeline.respond.keys import others_of
from pipeline.respond.ladder import Ladder, Matrix, Others, reach, too_many
from pipeline.respond.ledger.acts import TIME, Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import (
    Bulked,
    Extended,
    Promoted,
    Proposed,
    Raised,
    Reset,
    Simulating,
    Switched,
    Undo,
    content_of,
    group_of,
)
from pipeline.respond.ledger.ledger import Ledger, Queued, Verdict
from pipeline.respond.promotion.earned import REVIEW
from pipeline.respond.undoing import WRONGLY_REVOKED
from schemas.incident import Rung
from schemas.key import Key

BULK_RUNGS: Final = ("fence", "suspend")
ALL: Final = "breaker"
POLL_S: Final = 1.0


@asynccontextmanager
async def opened(config: Config, person: str, reads: bool = False) -> AsyncIterator[Desk]:
    """A desk on the broker's topic, read up to now; `reads`: nothing is written at it. Raises `Fatal`."""
    from pipeline.respond.responder import decisions_of
    from pipeline.sinks.kafka import Producer

    async with AsyncExitStack() as stack:
        producer = None if reads else Producer(config.kafka)
        if producer:
            await producer.start()
            stack.push_async_callback(producer.close)
        yield Desk(await decisions_of(config, producer, stack, f"{person}-{uuid.uuid4().hex[:8]}"), person)


@dataclass
class Desk:
    """One person's."""

    decisions: Decisions
    person: str

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a name that is not a person's: what "time" ends is acted on again at once."""
        if self.person == TIME:
            raise ConfigError(f"{TIME!r} is who ends what was done for a time: say by --as who you are")
        if self.person == REVIEW:
            raise ConfigError(f"{REVIEW!r} is who takes a stage back after a wrong act: say by --as who you are")

    @property
    def ledger(self) -> Ledger:
        """What the topic says."""
        return self.decisions.ledger

    def pending(self) -> list[Act]:
        """What waits for people, the oldest first."""
        acts = [act for act in self.ledger.acts.values() if act.stage == "pending"]
        return sorted((act for act in acts if self.ledger.now_us <= act.lapses_us), key=lambda act: act.at_us)

    def in_force(self) -> list[Act]:
        """What stands and can be undone, the oldest first."""
        return sorted((act for act in self.ledger.acts.values() if act.stands), key=lambda act: act.at_us)

    def queue(self, cluster: str = ALL) -> list[Queued]:
        """What caps or the breaker held back, the strongest first; of one label only, unless it is `ALL`."""
        waiting = [q for q in self.ledger.queue.values() if cluster == ALL or cluster in q.proposal.labels]
        return sorted(waiting, key=lambda each: (-each.proposal.bits, each.proposal.key_id))

    def clusters(self) -> list[tuple[str, int]]:
        """Labels that several queued keys share, the widest first."""
        counted = Counter(label for each in self.ledger.queue.values() for label in each.proposal.labels)
        return [(label, number) for label, number in counted.most_common() if number > 1]

    def undoable(self, name: str) -> list[Act]:
        """The act whose response id begins so, or all that stands of the incident whose id does, the newest first.

        Raises `ConfigError` where neither is there, or several acts' or incidents' ids begin so.
        """
        acts = [act for act in self.ledger.acts.values() if name and not act.proposal.simulated]
        known = [act for act in acts if act.proposal.response_id.startswith(name)]
        over = [act for act in acts if act.proposal.incident_id.startswith(name)]
        of_incident = [act for act in over if act.stands]
        if len(known) != 1 and len({act.proposal.incident_id for act in of_incident}) != 1:
            if not of_incident and len({act.proposal.incident_id for act in over}) == 1:
                words = (f"{a.proposal.rung} of {a.proposal.key_id}: {self.why_no_undo(a)}" for a in over)
                raise ConfigError(f"nothing that was done for {name} can be undone: {'; '.join(words)}")
            raise ConfigError(
                f"{name!r} is not the beginning of exactly one act's response id, nor of that of one incident with an "
                "act that stands: `keywatch respond holds`"
            )
        return known if len(known) == 1 else sorted(of_incident, key=lambda act: -act.offset)

    def why_no_undo(self, act: Act) -> str:
        """Why this act can't be taken back, and what to do instead; "" if it can."""
        why = self.ledger.why_no_undo(act)
        return f"{why}: {WRONGLY_REVOKED}" if why and act.proposal.rung == "revoke" and act.stage == "done" else why

    async def undo(self, act: Act, reason: str, wait_s: float = 0.0, key_file: Path | None = None) -> Verdict:
        """Take one act back; waits so long at most for the responder to have done it.

        `key_file`: forced, though it deletes a key in use, and signed as the first.
        """
        asked = Undo(
            act_id=act.proposal.act_id, by=self.person, reason=reason, responder=self.decisions.responder,
            force=key_file is not None, asked_us=self.ledger.now_us if key_file else 0,
        )  # fmt: skip
        verdict = await self.decisions.write(asked)
        if key_file and asked.ticket in self.ledger.forces.waiting:
            verdict = await self.sign(asked.ticket, True, key_file)
        if verdict.granted:
            await self._until_undone(act, wait_s)
        return verdict

    def rotation(self, name: str) -> Act:
        """The rotation of this key (the old one or the new), the one that stands if one does. Raises `ConfigError`."""
        acts = [
            act for act in self.ledger.acts.values() if act.proposal.rung == "rotate" and not act.proposal.simulated
        ]
        found = [act for act in acts if name in (act.proposal.key_id, act.new_key_id, act.proposal.response_id)]
        if not found:
            raise ConfigError(f"no rotation of {name!r} is known: `keywatch respond holds` lists what stands")
        return max(found, key=lambda act: (act.stands, act.offset))

    async def extend(self, act: Act, until_us: int, reason: str) -> Verdict:
        """Put the end of a rotation off."""
        of = act.proposal
        return await self.decisions.write(Extended(
            act_id=of.act_id, response_id=of.response_id, until_us=until_us, by=self.person, reason=reason,
            responder=self.decisions.responder,
        ))  # fmt: skip

    async def _until_undone(self, act: Act, wait_s: float) -> None:
        ends_at_s = time.monotonic() + wait_s
        while act.undo and act.undo.stage == "open" and act.stage != "undone" and time.monotonic() < ends_at_s:
            await self.decisions.moved(min(POLL_S, wait_s))

    async def sign(self, ticket: str, yes: bool, key_file: Path, reason: str = "") -> Verdict:
        """Approve or decline what waits under this ticket (or its beginning)."""
        known = {each for act in self.pending() for each in (act.ticket, act.proposal.group) if each}
        known |= {*self.ledger.raises, *self.ledger.promotions.tickets, *self.ledger.forces.waiting}
        matching = [each for each in known if each.startswith(ticket)]
        if len(matching) != 1:
            raise ConfigError(f"{ticket!r} is not the beginning of exactly one ticket: `keywatch respond pending`")
        word = approval.sign(matching[0], yes, self.person, key_file, reason, self.decisions.responder)
        return await self.decisions.write(word)

    async def bulk(self, wanted: list[Proposed], group: str, nonce: str, key_file: Path) -> Verdict:
        """Propose all of it, and approve it as the first one; why not, where none of it may even wait."""
        await self.decisions.write(bulked(wanted, group, nonce, self.person))
        proposed = [msgspec.structs.replace(each, responder=self.decisions.responder) for each in wanted]
        verdicts = [await self.decisions.write(each) for each in proposed]
        if not any(act.proposal.group == group for act in self.pending()):
            return verdicts[0]
        return await self.sign(group, True, key_file)

    async def raise_caps(self, cap: str, caps: Caps, until_us: int, reason: str, key_file: Path) -> tuple[str, Verdict]:
        """Ask for wider caps and sign as the first; (the second one's ticket, what came of it)."""
        if until_us > self.ledger.now_us + DAY_US:
            raise ConfigError("caps are raised for at most a day")
        raised = Raised(
            cap=cap, max_per_hour=caps.max_per_hour, max_per_day=caps.max_per_day,
            max_share_of_active=caps.max_share_of_active, until_us=until_us, by=self.person, reason=reason,
        )  # fmt: skip
        await self.decisions.write(raised)
        return raised.ticket, await self.sign(raised.ticket, True, key_file)

    async def close_breaker(self, reason: str) -> bool:
        """Automatic acts go on; False where it was not open."""
        was_open = bool(self.ledger.breaker.opened)
        await self.decisions.write(Reset(by=self.person, reason=reason))
        return was_open

    async def switch(self, stop: bool, reason: str) -> None:
        """The kill switch on the topic."""
        await self.decisions.write(Switched(stop=stop, by=self.person, reason=reason))

    async def simulate(self, on: bool, reason: str) -> None:
        """The simulate switch on the topic."""
        await self.decisions.write(Simulating(on=on, by=self.person, reason=reason))

    async def promote(self, wanted: Promoted, key_file: Path | None) -> Verdict | None:
        """Another stage from now on; a step up is signed as the first."""
        await self.decisions.write(wanted)
        return await self.sign(wanted.ticket, True, key_file) if key_file else None


def bulked(wanted: list[Proposed], group: str, nonce: str, person: str) -> Bulked:
    """What the bulk of these consists of."""
    return Bulked(
        group=group, rung=wanted[0].rung, nonce=nonce, act_ids=tuple(each.act_id for each in wanted), by=person,
        contents=tuple(content_of(each) for each in wanted),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """One key of a bulk: what would be done, or why it is left out."""

    queued: Queued
    proposal: Proposed | None
    why_not: str = ""


async def choose(
    queue: Iterable[Queued], rung: Rung, nonce: str, ladder: Ladder, approvers: tuple[Approver, ...],
    matrices: Mapping[str, Matrix], networks: Networks, catalogue: Catalogue | None = None,
) -> list[Chosen]:  # fmt: skip
    """What a bulk would do to each key. A rung that the adapter lacks, or that would hit other keys, is left out.

    `catalogue` says which others there are; without it a rung that hits more than the key is never taken.
    """
    if rung not in BULK_RUNGS:
        raise ConfigError(f"a bulk can {' or '.join(BULK_RUNGS)}, not {rung}")
    chosen = []
    for each in queue:
        key = catalogue.get(each.proposal.key_id) if catalogue else None
        found, error = await _networks(each.proposal, rung, networks, key)
        why = _why_not(each.proposal, rung, matrices, others_of(catalogue, key), found, error)
        wanted = None if why else _bulk_proposal(each.proposal, rung, nonce, found, ladder, approvers)
        chosen.append(Chosen(each, wanted, why))
    group = group_of([content_of(each.proposal) for each in chosen if each.proposal], rung, nonce)
    return [
        Chosen(c.queued, msgspec.structs.replace(c.proposal, group=group) if c.proposal else None, c.why_not)
        for c in chosen
    ]


async def _networks(of: Proposed, rung: Rung, networks: Networks, key: Key | None) -> tuple[tuple[str, ...], str]:
    if rung != "fence" or of.networks:
        return of.networks, ""
    found, error = await networks.usual(of.key_id, of.first_us or int(time.time() * 1e6))
    return fence.with_declared(found, key), error


def _why_not(
    of: Proposed, rung: Rung, matrices: Mapping[str, Matrix], others: Others, found: tuple[str, ...], error: str
) -> str:
    support = matrices.get(of.adapter, {}).get(rung)
    if support is None:
        return f"{of.adapter or 'no adapter'} cannot {rung}"
    hits, words = reach(support, others)
    if hits:
        return words
    if rung == "fence" and not [each for each in found if fence.is_network(each)]:
        return error or "no network was used on 7 days before"
    return too_many(found, of.adapter, support) if rung == "fence" else ""


def _bulk_proposal(
    of: Proposed, rung: Rung, nonce: str, networks: tuple[str, ...], ladder: Ladder, approvers: tuple[Approver, ...]
) -> Proposed:
    policy, what = ladder.policy, f"{rung}\x00bulk\x00{nonce}\x00{of.incident_id}"
    rule = next((each for each in ladder.rules if each.name == of.rule), None)
    return msgspec.structs.replace(
        of, act_id=act_id(of.key_id, of.key_version, what), rung=rung, networks=networks if rung == "fence" else (),
        response_id=response_id(of.incident_id, what, of.key_version),
        approvals=max(1, policy.bulk_approvals, of.approvals, rule.approvals if rule else 0),
        approvers=approvers, approval_s=policy.approval_s, policy_version=ladder.version, scopes=(), limit_per_s=0.0,
        duration_s=(rule.duration_s if rule else 0.0) or 3600.0,
    )  # fmt: skip
