"""`keywatch respond promotion`: how far a policy has come from simulate to enforce, by what it would have done.

The way (issue 6, section 8): 14 days simulate, then fence only (or flag; no throttle, which the owner feels), then
suspend. A step needs 14 days of decisions since the last one and no wrong would-be act among at least 50 that people
have reviewed: an act is reviewed once somebody gave feedback on its incident, and wrong if that was `expected`. Only
what the policy as it is now decided by itself counts, since the last step where steps must be earned: a change of any
rule or number is a new policy, and counting begins anew. What people approved, and what a drill's decoy led to, are no
experience. `respond promote` goes by the same stage and the same count (`where`, `count`). Decisions are read from the
audit's copy in ClickHouse (`responses`), feedback from `controls`; each incident counts once for each rung.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.answers import connected, print_json, say_line
from pipeline.asking.queries import ask
from pipeline.config.tree import Config
from pipeline.control.people import user
from pipeline.respond import desk
from pipeline.respond.ladder import SURE, Ladder, ladder_of
from pipeline.respond.promotion.earned import STAGES, WORDS, Promotions, Stage, Step, Who, height

DAYS: Final = 14.0
REVIEWED: Final = 50
_ACTS: Final = """
    SELECT stage, rungs, days, acts, reviewed, wrong FROM (
        SELECT if(verdict = 'simulated', 'simulated', 'real') AS stage,
            arraySort(groupUniqArray(rung)) AS rungs,
            dateDiff('second', min(first), now64(6, 'UTC')) / 86400 AS days, count() AS acts,
            countIf(said != '') AS reviewed, countIf(said = 'expected') AS wrong
        FROM (
            SELECT incident_id, rung, verdict, min(at) AS first FROM responses FINAL
            WHERE stage = 'decided' AND verdict IN ('simulated', 'allowed') AND rung != 'observe'
                AND JSONExtractString(body, 'policy_version') = {policy:String} AND key_id != {decoy:String}
                AND at >= fromUnixTimestamp64Micro({since_us:Int64}, 'UTC')
                AND JSONExtractString(body, 'direction') != 'undo'
                AND empty(JSONExtract(body, 'approvals', 'Array(String)'))
            GROUP BY incident_id, rung, verdict
        ) AS decided
        LEFT JOIN (
            SELECT incident_id, argMax(verdict, seq) AS said FROM controls FINAL
            WHERE kind = 'feedback' GROUP BY incident_id
        ) AS feedback USING incident_id
        GROUP BY stage
    ) ORDER BY stage"""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Acts of one kind: `simulated`, or `real` ones. `days` since the first of them."""

    stage: str
    rungs: tuple[str, ...] = ()
    days: float = 0.0
    acts: int = 0
    reviewed: int = 0
    wrong: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a policy stands, and what is missing for the next stage; `missing` empty: it may go on."""

    stage: str
    next: str
    missing: tuple[str, ...]
    counted: Tally
    policy: str = ""  # its version
    by_rules: bool = False  # nobody promoted it, and nothing asks for that: the stage is what the rules do


@dataclass(frozen=True, slots=True)
class Where:
    """How far acts go by themselves, since when. `step`: on the topic; None: nobody took one."""

    stage: Stage
    step: Step | None
    by_rules: bool = False

    @property
    def since_us(self) -> int:
        """What was done before it is no experience with it."""
        return self.step.at_us if self.step else 0


def where(ladder: Ladder, promotions: Promotions, who: Who) -> Where:
    """The one answer: the step on the topic; where nobody took one and none is required, as far as the rules go."""
    step = promotions.holding(who)
    if step:
        return Where(step.record.to, step)
    if ladder.policy.promotion == "required" or ladder.policy.mode != "enforce":
        return Where("simulate", None)
    rungs = frozenset(rung for rule in ladder.rules for rung in (rule.rung, *rule.otherwise))
    return Where("fence" if rungs <= SURE else "suspend", None, by_rules=True)


def tallies(client: Client, policy: str, since_us: int = 0, decoy: str = "") -> dict[str, Tally]:
    """Of this version of the policy since then, by kind; what never happened is not in it. `decoy`: the drill's key."""
    asked = {"policy": policy, "since_us": since_us, "decoy": decoy}
    return {tally.stage: tally for tally in ask(client, Tally, _ACTS, asked)}


def progress(stage: Stage, counted: dict[str, Tally]) -> Progress:
    """What this stage has brought, and what the next one needs."""
    kind = "simulated" if stage == "simulate" else "real"
    return _step(stage, counted.get(kind, Tally(stage=kind)))


def _step(stage: Stage, counted: Tally) -> Progress:
    if height(stage) >= height("suspend"):  # the last that can be earned
        wrong = (f"{counted.wrong} wrong acts: go back a stage",) if counted.wrong else ()
        return Progress(stage=stage, next="", missing=wrong, counted=counted)
    missing = []
    if counted.days < DAYS:
        missing.append(f"{DAYS - counted.days:.1f} more days")
    if counted.reviewed < REVIEWED:
        missing.append(f"{REVIEWED - counted.reviewed} more reviewed acts ({counted.acts - counted.reviewed} wait)")
    if counted.wrong:
        missing.append(f"{counted.wrong} wrong acts: change the policy, then count anew")
    return Progress(stage=stage, next=STAGES[height(stage) + 1], missing=tuple(missing), counted=counted)


def show(config: Config, as_json: bool) -> int:
    """Print it. Exit code 1 while something is missing."""
    ladder = ladder_of(config.respond)
    told = count(config, ladder, asyncio.run(_where(config, ladder)))
    if as_json:
        print_json(told)
    else:
        say_line("\n".join((*lines(told), *beside(ladder, told.by_rules))))
    return 1 if told.missing else 0


def count(config: Config, ladder: Ladder, at: Where) -> Progress:
    """What is missing there; asks ClickHouse."""
    with connected(config.clickhouse) as client:
        found = tallies(client, ladder.version, at.since_us, config.respond.drill.key_id)
    told = progress(at.stage, found)
    if at.stage == "simulate" and ladder.policy.mode == "enforce":  # refused acts are no would-be acts
        told = msgspec.structs.replace(
            told, missing=('mode = "simulate" until then: else nothing is counted', *told.missing)
        )
    return msgspec.structs.replace(told, policy=ladder.version, by_rules=at.by_rules)


async def _where(config: Config, ladder: Ladder) -> Where:
    who = Who.of(ladder.policy, config.respond.approvers)
    async with desk.opened(config, user(), reads=True) as mine:
        return where(ladder, mine.ledger.promotions, who)


def lines(told: Progress) -> list[str]:
    """For people."""
    words = [
        f"stage {told.stage}: {dict(WORDS)[msgspec.convert(told.stage, Stage)]}",
        f"  by policy {told.policy} alone: any change of it counts anew",
        f"  {acts_line(told)}",
    ]
    if told.missing:
        words.append(f"  {'for ' + told.next if told.next else 'to stay'}: {'; '.join(told.missing)}")
    elif told.next:
        words.append(f"  may go on to {told.next}: {WORDS[msgspec.convert(told.next, Stage)]}")
    return words


def beside(ladder: Ladder, by_rules: bool) -> list[str]:
    """What `advised` means for the stage: nothing."""
    if ladder.policy.promotion == "required":
        return []
    words = 'respond.policy.promotion is "advised": nothing is refused by it until that is "required"'
    return [f"nobody has promoted this policy, the stage is what its rules do; {words}" if by_rules else words]


def acts_line(told: Progress) -> str:
    """What was counted, as the audit says it."""
    of, kind = told.counted, "would-be acts" if told.stage == "simulate" else "acts"
    return (
        f"{of.acts} {kind} in {of.days:.1f} days ({', '.join(of.rungs) or 'none'}), "
        f"{of.reviewed} reviewed, {of.wrong} wrong"
    )
