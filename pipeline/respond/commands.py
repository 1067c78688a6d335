"""What the commands `keywatch respond ...` print. Each returns its exit code."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline import moments
from pipeline.asking.answers import Row, Shown, print_json, say_line, show_table
from pipeline.config.policy import Caps
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.respond import approval, desk
from pipeline.respond.caps import TWO
from pipeline.respond.desk import Chosen, Desk
from pipeline.respond.fence import ClickHouseNetworks
from pipeline.respond.keys import UNREADABLE
from pipeline.respond.ladder import ladder_of
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.ledger import Queued
from pipeline.respond.promotion.earned import Who
from schemas.incident import Rung

KEY_ENV: Final = "KEYWATCH_APPROVER_KEY"
REFUSED: Final = 1
CATALOGUE_WITHIN_S: Final = 5.0

_ACTS: Final[tuple[Shown, ...]] = (
    ("response", lambda row: row["response_id"][:12], "left"),
    ("key", lambda row: row["key_id"], "left"),
    ("rung", lambda row: row["rung"], "left"),
    ("since", lambda row: moments.of_us(row["at_us"]), "left"),
    ("until", lambda row: moments.of_us(row["until_us"]) if row["until_us"] else "undone", "left"),
    ("approved by", lambda row: ", ".join(row["approved_by"]), "left"),
    ("incident", lambda row: row["incident_id"][:12], "left"),
)
_PENDING: Final[tuple[Shown, ...]] = (
    ("ticket", lambda row: row["ticket"], "left"),
    ("key", lambda row: row["key_id"], "left"),
    ("rung", lambda row: row["rung"], "left"),
    ("approved", lambda row: f"{len(row['approved_by'])} of {row['approvals']}", "left"),
    ("lapses", lambda row: moments.of_us(row["lapses_us"]), "left"),
    ("why", lambda row: row["reason"], "left"),
)
_QUEUE: Final[tuple[Shown, ...]] = (
    ("key", lambda row: row["key_id"], "left"),
    ("owner", lambda row: row["owner"], "left"),
    ("rung", lambda row: row["rung"], "left"),
    ("bits", lambda row: f"{row['bits']:.1f}", "right"),
    ("held back by", lambda row: row["guard"], "left"),
    ("since", lambda row: moments.of_us(row["at_us"]), "left"),
    ("why", lambda row: row["reason"], "left"),
)
_BULK: Final[tuple[Shown, ...]] = (
    ("key", lambda row: row["key_id"], "left"),
    ("owner", lambda row: row["owner"], "left"),
    ("bits", lambda row: f"{row['bits']:.1f}", "right"),
    ("would be", lambda row: row["would"], "left"),
)


def at_desk(
    config: Config, person: str, work: Callable[[Desk], Coroutine[Any, Any, int]], reads: bool = False
) -> int:  # fmt: skip
    """Work at a desk on the broker's topic; `reads`: nothing is written at it. The exit code."""

    async def run() -> int:
        async with desk.opened(config, person, reads) as mine:
            return await work(mine)

    return asyncio.run(run())


def act_row(act: Act) -> Row:
    """One act, flat."""
    of = act.proposal
    return {
        "response_id": of.response_id, "incident_id": of.incident_id, "key_id": of.key_id,
        "key_version": of.key_version, "rung": of.rung, "stage": act.stage,
        "at_us": act.at_us, "until_us": act.until_us, "adapter": of.adapter,
        "approvals": of.approvals, "approved_by": act.approved_by, "ticket": of.group or act.ticket,
        "lapses_us": act.lapses_us, "reason": of.reason, "networks": of.networks,
    }  # fmt: skip


def queue_row(queued: Queued) -> Row:
    """One key that was held back, flat."""
    of = queued.proposal
    return {
        "key_id": of.key_id, "owner": of.owner, "rung": of.rung, "bits": of.bits, "guard": queued.guard,
        "at_us": queued.at_us, "incident_id": of.incident_id, "reason": of.reason, "labels": of.labels,
    }  # fmt: skip


def show(title: str, rows: Sequence[Row], columns: Sequence[Shown], none: str, as_json: bool) -> int:
    """A table, or what is said where it is empty; the exit code."""
    if as_json:
        return print_json(rows)
    return show_table(title, rows, columns, folds=len(columns) - 1) if rows else say_line(none)


def undo(
    config: Config, person: str, response: str, reason: str, wait_s: float, force: bool = False,
    key_file: Path | None = None,
) -> int:  # fmt: skip
    """Take one act back, or all that stands of an incident, one after the other, the newest first."""
    path = key_file_of(config, person, key_file) if force else None

    async def work(mine: Desk) -> int:
        return max([await _undo(mine, act, reason, wait_s, path) for act in mine.undoable(response)])

    return at_desk(config, person, work)


async def _undo(mine: Desk, act: Act, reason: str, wait_s: float, key_file: Path | None) -> int:
    verdict = await mine.undo(act, reason, wait_s, key_file)
    of = f"{act.proposal.rung} of {act.proposal.key_id}"
    waiting = next((ticket for ticket, each in mine.ledger.forces.waiting.items() if each.act is act), "")
    if verdict.granted and waiting:
        say_line(f"{of}: {verdict.reason}: keywatch respond approve {waiting}")
        return 0
    if not verdict.granted:
        say_line(f"{of}: not undone: {mine.why_no_undo(act) or verdict.reason}")
        return REFUSED
    done = act.stage == "undone"
    words = "undone" if done else f"asked for; the responder has not answered within {wait_s:.0f} s"
    say_line(f"{of}: {words}")
    return 0 if done or not wait_s else REFUSED


def extend(config: Config, person: str, key: str, until: str, reason: str) -> int:
    """Put the end of a rotation off."""
    until_us = int(moments.stamp(moments.future(until, "--until", moments.now())) * 1e6)

    async def work(mine: Desk) -> int:
        act = mine.rotation(key)
        verdict = await mine.extend(act, until_us, reason)
        if not verdict.granted:
            say_line(f"not put off: {verdict.reason}")
            return REFUSED
        moved = "; before that when its traffic has moved" if act.new_key_id else ""
        return say_line(f"the old key {act.proposal.key_id} ends {moments.of_us(act.until_us)}{moved}")

    return at_desk(config, person, work)


def holds(config: Config, person: str, as_json: bool) -> int:
    """What stands and can be undone."""

    async def work(mine: Desk) -> int:
        rows = [act_row(act) for act in mine.in_force()]
        show("in force", rows, _ACTS, "nothing is in force", as_json)
        return 0 if as_json or not rows else say_line("take one back: keywatch respond undo RESPONSE --reason TEXT")

    return at_desk(config, person, work, reads=True)


def pending(config: Config, person: str, as_json: bool) -> int:
    """What waits for people."""

    async def work(mine: Desk) -> int:
        rows, approvers = [act_row(act) for act in mine.pending()], config.respond.approvers
        rows += [
            {"ticket": ticket, "key_id": "*", "rung": f"raise {each.raised.cap} caps", "reason": each.raised.reason,
             "approved_by": each.signed(approvers), "approvals": TWO, "lapses_us": each.until_us}
            for ticket, each in mine.ledger.raises.items() if each.waits(approvers, mine.ledger.now_us)
        ]  # fmt: skip
        rows += [
            {"ticket": ticket, "key_id": each.act.proposal.key_id, "rung": "undo of rotate",
             "reason": each.asked.reason, "approved_by": each.signed, "approvals": each.needs,
             "lapses_us": each.lapses_us}
            for ticket, each in mine.ledger.forces.waiting.items() if mine.ledger.now_us <= each.lapses_us
        ]  # fmt: skip
        who = Who.of(ladder_of(config.respond).policy, config.respond.approvers)
        rows += [
            {"ticket": each.record.ticket, "key_id": "*", "rung": f"promote to {each.record.to}",
             "reason": each.record.reason, "approved_by": each.signed(who), "approvals": each.needs(who),
             "lapses_us": each.at_us + int(who.within_s * 1e6)}
            for each in mine.ledger.promotions.waiting(who, mine.ledger.now_us)
        ]  # fmt: skip
        return show("waiting for approval", rows, _PENDING, "nothing waits for approval", as_json)

    return at_desk(config, person, work, reads=True)


def sign(config: Config, person: str, ticket: str, yes: bool, key_file: Path | None, reason: str) -> int:
    """Approve or decline."""
    path = key_file_of(config, person, key_file)

    async def work(mine: Desk) -> int:
        verdict = await mine.sign(ticket, yes, path, reason)
        say_line(verdict.reason if verdict.granted else f"not taken: {verdict.reason}")
        promotions, who = mine.ledger.promotions, Who.of(ladder_of(config.respond).policy, config.respond.approvers)
        for step in [step for step in promotions.steps if step.record.ticket.startswith(ticket)]:
            if not step.raises(who) and step not in promotions.waiting(who, mine.ledger.now_us):
                say_line("it waits no longer: too late, or declined; `keywatch respond promote` asks anew")
            say_line(f"acts happen by themselves up to {promotions.stage(who)}")
        return 0 if verdict.granted else REFUSED

    return at_desk(config, person, work)


def key_file_of(config: Config, person: str, given: Path | None) -> Path:
    """The person's own, which must be the private half of what the configuration says of him."""
    named = os.environ.get(KEY_ENV, "")
    path = given or (Path(named) if named else None)
    if not config.respond.approvers:
        raise ConfigError("nobody can sign: `keywatch respond approver NAME` makes a pair for [[respond.approvers]]")
    if path is None:
        raise ConfigError(f"give the approver's key by --key-file or {KEY_ENV}")
    public = next((each.public_key for each in config.respond.approvers if each.name == person), None)
    if public is None:
        raise ConfigError(f"{person} is no approver: [[respond.approvers]] names who is; --as says who you are")
    if approval.public_half(path) != public:
        raise ConfigError(f"{path} is not the key of approver {person}")
    return path


def queue(config: Config, person: str, cluster: str, as_json: bool) -> int:
    """What caps or the breaker held back, ranked."""

    async def work(mine: Desk) -> int:
        code = show(
            "held back", [queue_row(each) for each in mine.queue(cluster)], _QUEUE, nothing_of(cluster), as_json
        )
        for label, number in [] if as_json else mine.clusters()[:10]:
            say_line(f"{number} of them share {label}: keywatch respond bulk '{label}' --rung fence --preview")
        return code

    return at_desk(config, person, work, reads=True)


def nothing_of(cluster: str) -> str:
    """What is said where the queue has none of it: a label may be mistyped."""
    return "nothing waits" if cluster == desk.ALL else f"nothing that waits has the label {cluster!r}: respond queue"


def bulk(config: Config, person: str, cluster: str, rung: Rung, preview: bool, key_file: Path | None) -> int:
    """Act on all of a cluster, or say what that would be."""
    from pipeline.respond.responder import adapters_of, matrices_of

    path = None if preview else key_file_of(config, person, key_file)
    matrices = matrices_of(config.respond, adapters_of(config.respond))
    catalogue = declared(config)  # without it what hits more than the key is left out

    async def work(mine: Desk) -> int:
        nonce = uuid.uuid4().hex[:8]
        chosen = await desk.choose(
            mine.queue(cluster), rung, nonce, ladder_of(config.respond), config.respond.approvers, matrices,
            ClickHouseNetworks(config.clickhouse), catalogue,
        )  # fmt: skip
        show(f"{rung} {cluster}", [_bulk_row(each, rung) for each in chosen], _BULK, nothing_of(cluster), as_json=False)
        wanted = [each.proposal for each in chosen if each.proposal]
        if path is None or not wanted:
            return 0
        verdict = await mine.bulk(wanted, wanted[0].group, nonce, path)
        say_line(f"{len(wanted)} keys, ticket {wanted[0].group}: {verdict.reason}")
        return 0 if verdict.granted else REFUSED

    return at_desk(config, person, work)


def _bulk_row(each: Chosen, rung: str) -> Row:
    of = each.proposal
    would = f"left out: {each.why_not}" if of is None else f"{rung} for {of.duration_s / 3600:g} h"
    if of is not None and of.networks:
        would += f", goes on from {len(of.networks)} networks"
    return {**queue_row(each.queued), "would": would}


def raise_caps(
    config: Config, person: str, cap: str, caps: Caps, until: str, reason: str, key_file: Path | None
) -> int:
    """Wider caps for a while, by two people."""
    path = key_file_of(config, person, key_file)
    until_us = int(moments.stamp(moments.future(until, "--until", moments.now())) * 1e6)

    async def work(mine: Desk) -> int:
        ticket, verdict = await mine.raise_caps(cap, caps, until_us, reason, path)
        say_line(f"{verdict.reason}: keywatch respond approve {ticket}")
        return 0 if verdict.granted else REFUSED

    return at_desk(config, person, work)


def breaker(config: Config, person: str, as_json: bool) -> int:
    """Whether it is open, since when, by whose keys; and how many keys wait."""

    async def work(mine: Desk) -> int:
        opened, waiting = mine.ledger.breaker.opened.get(False), len(mine.queue())
        if as_json:
            at_us, owners = (opened.at_us, opened.owners) if opened else (0, ())
            return print_json([{"open": bool(opened), "since_us": at_us, "owners": owners, "waiting": waiting}])
        words = f"open since {moments.of_us(opened.at_us)}: {', '.join(opened.owners)}" if opened else "closed"
        return say_line(f"{words}; {waiting} keys wait")

    return at_desk(config, person, work, reads=True)


def close_breaker(config: Config, person: str, reason: str) -> int:
    """Let automatic acts go on."""

    async def work(mine: Desk) -> int:
        was_open = await mine.close_breaker(reason)
        return say_line("closed: automatic acts go on" if was_open else "it was not open")

    return at_desk(config, person, work)


def switch(config: Config, person: str, stop: bool, reason: str) -> int:
    """The kill switch on the topic."""

    async def work(mine: Desk) -> int:
        await mine.switch(stop, reason)
        return say_line("stopped: nothing is acted on; undos go on" if stop else "acts go on")

    return at_desk(config, person, work)


def simulate(config: Config, person: str, on: bool, reason: str) -> int:
    """The simulate switch on the topic."""

    async def work(mine: Desk) -> int:
        await mine.simulate(on, reason)
        return say_line(
            "acts are simulated: decided and recorded, never carried out; undos go on"
            if on
            else "acts are carried out again, where the policy says enforce"
        )

    return at_desk(config, person, work)


def make_approver(name: str, key_file: Path) -> int:
    """A key pair, and the lines for the configuration."""
    made = approval.make(name, key_file)
    say_line(f"the private half is in {key_file}: it stays with {name}. For the configuration:")
    return say_line(f'\n[[respond.approvers]]\nname = "{made.name}"\npublic_key = "{made.public_key}"')


def declared(config: Config) -> Catalogue | None:
    """The catalogue; None where it can't be read at once."""

    async def read() -> Catalogue:
        async with asyncio.timeout(CATALOGUE_WITHIN_S):
            return await read_catalogue(config)

    try:
        return asyncio.run(read())
    except UNREADABLE:
        return None


def caps_of(config: Config, cap: str, per_hour: int | None, per_day: int | None, share: float | None) -> Caps:
    """What the policy says of this kind of cap, but for what is raised. Raises ConfigError."""
    policy = ladder_of(config.respond).policy
    known = {"usual": policy.caps, "fence": policy.fence_caps, "flag": policy.fence_caps, "proof": policy.proof_caps}
    if cap not in known:
        raise ConfigError(f"unknown --cap '{cap}'; there are {', '.join(known)}")
    changes = {"max_per_hour": per_hour, "max_per_day": per_day, "max_share_of_active": share}
    return msgspec.structs.replace(known[cap], **{name: value for name, value in changes.items() if value is not None})
