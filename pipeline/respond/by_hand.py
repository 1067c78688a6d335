"""`keywatch respond act INCIDENT --rung fence|suspend`: what a message proposes, done by a person in one command.

It is a bulk of one key: written as a group, approved by the signature of whoever gives the command (and of as many more
as `respond.policy.bulk_approvals` asks for), carried out by the responder. Guards are not asked, a person answers for
it; the kill switch, the adapter's matrix and "already acted on" hold all the same.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Final

from pipeline.asking import queries
from pipeline.asking.answers import connected, count_words, say_line
from pipeline.config.tree import Config, Respond
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.respond import desk, fence
from pipeline.respond.adapters import build
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.delivery.notice import one_line
from pipeline.respond.desk import Chosen, Desk
from pipeline.respond.fence import ClickHouseNetworks, Networks
from pipeline.respond.guard import evidence_hash
from pipeline.respond.ladder import Ladder, Matrix, Means, ladder_of, why_no_fence
from pipeline.respond.ledger.acts import in_the_way
from pipeline.respond.ledger.entries import Proposed
from pipeline.respond.ledger.ledger import Queued
from pipeline.respond.propose import MAX_REASON
from schemas.incident import Incident, Rung
from schemas.key import Key

REFUSED: Final = 1


def wanted(
    incident: Incident, rung: Rung, ladder: Ladder, person: str, key: Key | None = None, preview: bool = False
) -> Queued:
    """As if it had waited in the queue: adapter, duration and approvals are those of the rule for this very key.

    `key` is None where nobody declared it. Raises `ConfigError` where nothing could carry it out; a `preview`, which
    is never carried out, is to be had in every mode.
    """
    rule, _ = ladder.rule_of(incident, key)
    adapter = ladder.adapter_of(rule) if rule else ladder.policy.adapter
    if not adapter:
        raise ConfigError("respond.policy.adapter names nothing that could act")
    if ladder.policy.mode != "enforce" and not preview:
        raise ConfigError(
            f"respond.policy.mode is {ladder.policy.mode}: nothing is acted on, by hand or not; "
            "--preview says what would be"
        )
    proposal = Proposed(
        act_id="", response_id="", incident_id=incident.incident_id, revision=incident.revision,
        key_id=incident.key_id, key_version=incident.key_version, responder="", rung=rung, adapter=adapter,
        partition=incident.partition, reason=one_line(f"by {person}: {incident.text}", MAX_REASON), bits=incident.bits,
        approvals=ladder.policy.protected_approvals if key is None or key.protected else 0,
        first_us=fence.first_suspicious_us(incident), owner=incident.owner, rule=rule.name if rule else "",
        evidence_hash=evidence_hash(incident),
    )  # fmt: skip
    return Queued(proposal, int(time.time() * 1e6), "by hand")


async def carried_out(
    mine: Desk, chosen: Chosen, nonce: str, key_file: Path | None
) -> int:  # fmt: skip
    """Say what would be done, and with a key file do it. The exit code."""
    of = chosen.proposal
    if of is None:
        say_line(f"{chosen.queued.proposal.rung} is not possible: {chosen.why_not}")
        return REFUSED
    if other := in_the_way(mine.ledger.acts.values(), of):
        say_line(f"{of.rung} is not possible: {other.words}")
        return REFUSED
    networks = f", goes on from {', '.join(of.networks)}" if of.networks else ""
    say_line(f"{of.rung} {of.key_id} for {of.duration_s / 3600:g} h by {of.adapter}{networks}")
    if key_file is None:
        return say_line(
            f"it takes {count_words(of.approvals, 'signature')}; respond.approvers names {len(of.approvers)}"
        )
    verdict = await mine.bulk([of], of.group, nonce, key_file)
    if not verdict.granted:
        say_line(f"not done: {verdict.reason}")
        return REFUSED
    return say_line(f"{verdict.reason}; undo: keywatch respond undo {of.incident_id} --reason TEXT")


async def choose(
    queued: Queued, nonce: str, ladder: Ladder, config: Config, matrices: dict[str, Matrix], networks: Networks,
    catalogue: Catalogue | None = None, suspects: tuple[str, ...] = (),
) -> Chosen:  # fmt: skip
    """What would be done to the key, or why it can't; a fence that keeps none of `suspects` out is none."""
    rung = queued.proposal.rung
    if rung not in desk.BULK_RUNGS:
        raise ConfigError(f"by hand a key can be put to {' or '.join(desk.BULK_RUNGS)}, not {rung}")
    named: Rung = "fence" if rung == "fence" else "suspend"
    people = config.respond.approvers
    (chosen,) = await desk.choose([queued], named, nonce, ladder, people, matrices, networks, catalogue)
    if named == "fence" and chosen.proposal:
        of = chosen.proposal
        means = Means(of.adapter, matrices.get(of.adapter), of.networks, suspects=suspects)
        if why := why_no_fence(means):
            return Chosen(queued, None, why)
    return chosen


def known(respond: Respond) -> dict[str, Matrix]:
    """What each adapter of the configuration can do, by the name that rules use; without its credentials."""
    webhooks = {each.name: MATRIX for each in respond.endpoints if each.kind == "webhook"}
    return {**build.matrices(respond.adapters), **webhooks}


def act(config: Config, person: str, incident_id: str, rung: Rung, key_file: Path | None) -> int:
    """The command; `key_file` None only shows what would be done."""
    from pipeline.respond.commands import at_desk

    with connected(config.clickhouse) as client:
        incident = queries.find_incident(client, incident_id)
    if incident is None:
        raise ConfigError(f"{incident_id!r} is not the beginning of exactly one incident's id: `keywatch incidents`")
    ladder, nonce = ladder_of(config.respond), uuid.uuid4().hex[:8]
    matrices = known(config.respond)  # what adapters can do is no secret; their credentials are the responder's
    catalogue = asyncio.run(read_catalogue(config))
    queued = wanted(incident, rung, ladder, person, catalogue.get(incident.key_id), preview=key_file is None)
    suspects = fence.suspects(incident)

    async def work(mine: Desk) -> int:
        networks = ClickHouseNetworks(config.clickhouse)
        chosen = await choose(queued, nonce, ladder, config, matrices, networks, catalogue, suspects)
        code = await carried_out(mine, chosen, nonce, key_file)
        if chosen.proposal and ladder.policy.mode != "enforce":
            say_line(f"respond.policy.mode is {ladder.policy.mode}: it is done with enforce only")
        return code

    return at_desk(config, person, work)
