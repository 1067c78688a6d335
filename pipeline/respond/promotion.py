"""`keywatch respond promotion`: how far a policy has come from simulate to enforce, by what it would have done.

The way (issue 6, section 8): 14 days simulate, then fence only (or flag; no throttle, which the owner feels), then
suspend. A step needs 14 days of decisions since the last one and no wrong would-be act among at least 50 that people
have reviewed: an act is reviewed once somebody gave feedback on its incident, and wrong if that was `expected`. Only
what the policy as it is now decided by itself counts, since the last step where steps must be earned: a change of any
rule or number is a new policy, and counting begins anew. What people approved, and what a drill's decoy led to, are no
experience. Decisions are read from the audit's copy in ClickHouse (`responses`), feedback from `controls`; each
incident counts once for each rung.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking import connected, print_json, say_line
from pipeline.config import Config
from pipeline.people import user
from pipeline.queries import ask
from pipeline.respond import desk
from pipeline.respond.ladder import SURE, Ladder, ladder_of
from pipeline.respond.promoted import STAGES as BY_NAME
from pipeline.respond.promoted import Stage, Step, Who

DAYS: Final = 14.0
REVIEWED: Final = 50
STAGES: Final = (
    ("simulate", "nothing acts; review what would have been done: keywatch feedback ID expected|malicious"),
    ("fence", 'mode = "enforce" with rules whose rung is fence (or flag), all else observe'),
    ("suspend", "rules may suspend; revoke stays for proofs and people"),
)
_OVERRIDDEN: Final = {"revoke": "every rung by itself, revoke too: overridden, it can't be earned"}
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


def tallies(client: Client, policy: str, since_us: int = 0, decoy: str = "") -> dict[str, Tally]:
    """Of this version of the policy since then, by kind; what never happened is not in it. `decoy`: the drill's key."""
    asked = {"policy": policy, "since_us": since_us, "decoy": decoy}
    return {tally.stage: tally for tally in ask(client, Tally, _ACTS, asked)}


def progress(mode: str, rungs: frozenset[str], counted: dict[str, Tally], earned: Stage | None = None) -> Progress:
    """`rungs`: what the policy's rules may do. Without enforcing it is in the first stage, whatever they say.

    `earned`: the stage on the topic, where that is what holds (`promoted.py`).
    """
    if earned:
        kind = "simulated" if earned == "simulate" else "real"
        told = _step(min(BY_NAME.index(earned), len(STAGES) - 1), counted.get(kind, Tally(stage=kind)))
        return msgspec.structs.replace(told, stage=earned)
    if mode != "enforce":
        return _step(0, counted.get("simulated", Tally(stage="simulated")))
    real = counted.get("real", Tally(stage="real"))
    return _step(1 if rungs <= SURE else 2, real)


def _step(stage: int, counted: Tally) -> Progress:
    name = STAGES[stage][0]
    if stage + 1 == len(STAGES):
        wrong = (f"{counted.wrong} wrong acts: go back a stage",) if counted.wrong else ()
        return Progress(stage=name, next="", missing=wrong, counted=counted)
    missing = []
    if counted.days < DAYS:
        missing.append(f"{DAYS - counted.days:.1f} more days")
    if counted.reviewed < REVIEWED:
        missing.append(f"{REVIEWED - counted.reviewed} more reviewed acts ({counted.acts - counted.reviewed} wait)")
    if counted.wrong:
        missing.append(f"{counted.wrong} wrong acts: change the policy, then count anew")
    return Progress(stage=name, next=STAGES[stage + 1][0], missing=tuple(missing), counted=counted)


def show(config: Config, as_json: bool) -> int:
    """Print it. Exit code 1 while something is missing."""
    ladder = ladder_of(config.respond)
    step, stage = None, None
    if ladder.policy.promotion == "required":
        step = asyncio.run(_holding(config))
        stage = step.record.to if step else BY_NAME[0]
    told = count(config, ladder, step.at_us if step else 0, stage)
    if as_json:
        print_json(told)
    else:
        say_line("\n".join(lines(told)))
    return 1 if told.missing else 0


def count(config: Config, ladder: Ladder, since_us: int, earned: Stage | None) -> Progress:
    """Where the policy stands; asks ClickHouse."""
    rungs = frozenset(rung for rule in ladder.rules for rung in (rule.rung, *rule.otherwise))
    with connected(config.clickhouse) as client:
        found = tallies(client, ladder.version, since_us, config.respond.drill.key_id)
    told = progress(ladder.policy.mode, rungs, found, earned)
    if earned == "simulate" and ladder.policy.mode == "enforce":  # refused acts are no would-be acts
        told = msgspec.structs.replace(
            told, missing=('mode = "simulate" until then: else nothing is counted', *told.missing)
        )
    return msgspec.structs.replace(told, policy=ladder.version)


async def _holding(config: Config) -> Step | None:
    who = Who.of(ladder_of(config.respond).policy, config.respond.approvers)
    async with desk.opened(config, user()) as mine:
        return mine.ledger.promotions.holding(who)


def lines(told: Progress) -> list[str]:
    """For people."""
    words = [
        f"stage {told.stage}: {(dict(STAGES) | _OVERRIDDEN)[told.stage]}",
        f"  by policy {told.policy} alone: any change of it counts anew",
        f"  {acts_line(told)}",
    ]
    if told.missing:
        words.append(f"  {'for ' + told.next if told.next else 'to stay'}: {'; '.join(told.missing)}")
    elif told.next:
        words.append(f"  may go on to {told.next}: {dict(STAGES)[told.next]}")
    return words


def acts_line(told: Progress) -> str:
    """What was counted, as the audit says it."""
    of, kind = told.counted, "would-be acts" if told.stage == "simulate" else "acts"
    return (
        f"{of.acts} {kind} in {of.days:.1f} days ({', '.join(of.rungs) or 'none'}), "
        f"{of.reviewed} reviewed, {of.wrong} wrong"
    )
