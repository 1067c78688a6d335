"""A decisions topic that was emptied, or made anew, where the audit still tells of acts: nothing is acted on by itself.

Caps, the kill switch, undos and timed ends are what that topic says; `api.responses` cannot give them back (it has no
state from before an act, by design). So whoever starts on such a topic writes the kill switch into it, once. It holds
for all responders and later starts until a person lifts it by `keywatch respond go`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.config.tree import Config
from pipeline.errors import Fatal
from pipeline.respond.audit import decode
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Joined, Kept, Proposed, Record, Switched
from pipeline.respond.words import Word
from pipeline.sinks.kafka import fetched_highwaters, side_consumer
from pipeline.sinks.topic_settings import DAY_MS, KEEP, topic_settings
from schemas.response import Response

log = logging.getLogger(__name__)

BY: Final = "keywatch"
MOST_LINES: Final = 5_000
"""So far back the audit is read."""
USUAL_KEEP_MS: Final = 7 * DAY_MS
"""What a broker keeps where it may not be asked."""
ACTS: Final = frozenset({"decided", "acting", "done", "failed"})
"""Stages that follow a proposal at once."""
WHOLE_S: Final = 2 * 86_400.0
POLL_MS: Final = 200
READ_S: Final = 60.0


@dataclass(slots=True)
class Memory:
    """Follows the decisions topic: what of the audit it knows."""

    since_us: int = 0  # its oldest record but for marks; 0: none
    acts: set[str] = field(default_factory=set)  # response ids
    words: bool = False  # whether anybody said anything to all
    held: bool = False  # whether the topic was found forgotten before

    def apply(self, now_us: int, record: Record | None) -> None:
        """Take the next record."""
        if self.since_us == 0 and not isinstance(record, Joined):
            self.since_us = now_us
        match record:
            case Proposed():
                self.acts.add(record.response_id)
            case Kept(proposal=Proposed() as proposal):
                self.acts.add(proposal.response_id)
            case Switched(stop=True, by=by) if by == BY:
                self.held = True
        self.words = self.words or isinstance(record, Word)

    def knows(self, line: Response) -> bool:
        """Whether the topic tells what this line does, or it is nothing that it would have to tell."""
        if line.switch:
            return self.words
        granted = line.verdict == "allowed" and line.stage in ACTS and line.direction == "apply"
        return not granted or line.rung == "observe" or line.response_id in self.acts

    def told_since_s(self, kept_s: float, now_s: float) -> float:
        """Since when it tells all that matters; `kept_s`: since when retention keeps records, 0: all.

        A topic whose retention was less before (7 days of old) begins later than it keeps. One whose oldest record is
        of two days ago is whole again: what stands is said again each day, and no cap looks further back.
        """
        oldest_s = self.since_us / 1e6
        return max(kept_s, oldest_s) if 0.0 < oldest_s < now_s - WHOLE_S else kept_s


async def stop_if_forgotten(config: Config, decisions: Decisions, memory: Memory) -> None:
    """Write the kill switch where the audit tells of what the topic should still have. Raises Fatal.

    Called once all that the topic has was read.
    """
    if memory.held:
        return
    topics, since_s = config.topics, memory.told_since_s(await _kept_since_s(config), time.time())
    try:
        async with asyncio.timeout(READ_S), aclosing(_audit(config)) as audit:
            lines = [each async for each in audit if _at_s(each) >= since_s]
    except (KafkaError, TimeoutError) as error:
        raise Fatal(f"whether {topics.decisions} was emptied is not known: {topics.responses}: {error!r}") from error
    await decisions.catch_up()  # what another responder has said since is in the audit, too
    lost = [each for each in lines if not memory.knows(each)]
    if not lost:
        return
    last = lost[-1]
    reason = (
        f"{topics.decisions} was emptied: {topics.responses} tells of what it does not know (the last: "
        f"{last.switch or f'{last.rung} of {last.key_id}'}, {last.at[:19]}). Caps, ends of acts and a stop are "
        "forgotten: RUNBOOK, Decisions lost"
    )
    log.error("nothing is acted on until `keywatch respond go --reason TEXT`: %s", reason)
    await decisions.write(Switched(stop=True, by=BY, reason=reason))


async def _kept_since_s(config: Config) -> float:
    """Since when the topic has all that was said; a day less, for clocks."""
    topic = config.topics.decisions
    kept_ms = int((await topic_settings(config.kafka, [topic])).get(topic, {}).get(KEEP) or USUAL_KEEP_MS)
    return 0.0 if kept_ms < 0 else time.time() - (kept_ms - DAY_MS) / 1000


def _at_s(line: Response) -> float:
    return datetime.fromisoformat(line.at).timestamp()


async def _audit(config: Config) -> AsyncGenerator[Response, None]:
    """Its last lines, in order."""
    topic = config.topics.responses
    end = (await fetched_highwaters(config.kafka, topic, [0]))[0]
    async with side_consumer(config.kafka) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        consumer.seek(partition, max(await consumer.position(partition), end - MOST_LINES))
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=POLL_MS)).get(partition, []):
                if line := decode(record.value):
                    yield line
