"""The way back: once people say of an automatic act that it was wrong, the stage that allowed it is taken back.

Looked up in ClickHouse, where the audit and people's feedback are, by whoever has the first partition, and written to
the decisions topic, where all responders read it. Whoever can forge rows there can only make Keywatch do less. While
ClickHouse can't be asked nothing is taken back, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from pipeline.asking.queries import ask
from pipeline.config.tree import Config
from pipeline.respond.carry import Carrier
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Promoted
from pipeline.respond.promotion.earned import REVIEW, Step, Who, below
from pipeline.sinks.connect import AWAY, connect

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
MOST: Final = 5  # incidents that are named
_WRONG: Final = """
    WITH feedback AS (
        SELECT incident_id, minIf(at, verdict = 'expected') AS said_at FROM controls FINAL
        WHERE kind = 'feedback' AND incident_id != '' GROUP BY incident_id HAVING argMax(verdict, seq) = 'expected'
    )
    SELECT incident_id, rung, verdict, early FROM (
        SELECT incident_id, rung, verdict, at < fromUnixTimestamp64Micro({since_us:Int64}, 'UTC') AS early
        FROM responses FINAL
        PREWHERE stage = 'decided' AND rung != 'observe' AND incident_id IN (SELECT incident_id FROM feedback)
        WHERE verdict IN ('allowed', 'simulated') AND key_id != {decoy:String}
            AND JSONExtractString(body, 'direction') != 'undo'
            AND empty(JSONExtract(body, 'approvals', 'Array(String)'))
            AND if(early, {policy:String} != '' AND JSONExtractString(body, 'policy_version') = {policy:String},
                verdict = 'allowed')
        GROUP BY incident_id, rung, verdict, early
    ) AS decided
    INNER JOIN feedback USING incident_id
    WHERE NOT early OR said_at >= fromUnixTimestamp64Micro({since_us:Int64}, 'UTC')
    ORDER BY incident_id, rung LIMIT {most:UInt32}"""


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """One act that was wrong: done since the step, or (`early`) one that was counted for it, and reviewed since."""

    incident_id: str
    rung: str
    verdict: str
    early: bool = False

    @property
    def words(self) -> str:
        """In the audit."""
        done = "was counted for the stage" if self.early else "was done by itself"
        return f"{self.rung} for incident {self.incident_id} {done}, and was expected"


class Wrongs(Protocol):
    """What people have said of automatic acts."""

    def since(self, step: Step) -> list[Wrong]:
        """Wrong ones since this step, or that led to it. Raises what is in `AWAY`."""


@dataclass(frozen=True, slots=True)
class ClickHouseWrongs:
    """Asks ClickHouse, each time anew."""

    config: Config

    def since(self, step: Step) -> list[Wrong]:
        """See `Wrongs`."""
        asked: dict[str, str | int] = {
            "since_us": step.at_us, "policy": "" if step.record.override else step.record.policy, "most": MOST,
            "decoy": self.config.respond.drill.key_id,
        }  # fmt: skip
        with connect(self.config.clickhouse, self.config.clickhouse.database) as client:
            return ask(client, Wrong, _WRONG, asked)


@dataclass
class Review:
    """Looks whether something was wrong (`rounds.py` says when); where a stage must be earned."""

    carrier: Carrier
    ladder: Ladder
    wrongs: Wrongs
    _away: bool = False

    async def look(self) -> None:
        """Take a step back, if an act since it was wrong."""
        step = self._holding()
        if step is None or step.record.to == "simulate":
            return
        try:
            wrong = await asyncio.to_thread(self.wrongs.since, step)
        except AWAY as error:
            if not self._away:
                log.warning("whether acts were wrong can't be looked up, no stage is taken back: %s", error)
            self._away = True
            return
        self._away = False
        if not wrong or self._holding() is not step:
            return
        words = "; ".join(each.words for each in wrong)
        back = Promoted(to=below(step.record.to), by=REVIEW, reason=words, nonce=uuid.uuid4().hex[:8])
        log.warning("acts by themselves go back from %s to %s: %s", step.record.to, back.to, words)
        await self.carrier.decisions.write(back)

    def _holding(self) -> Step | None:
        who = Who.of(self.ladder.policy, self.carrier.approvers)
        return self.carrier.decisions.ledger.promotions.holding(who)
