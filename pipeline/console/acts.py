"""What people do from the console: the same words, on the same topics, as the commands write.

Each returns one line for the page, first of all. Raises ConfigError for what can't be said, Retry and Fatal as its
topic does.
"""

from __future__ import annotations

from functools import partial

import msgspec
from starlette.concurrency import run_in_threadpool

from pipeline import moments
from pipeline.asking import queries
from pipeline.config.tree import Config
from pipeline.console.answers import Answers
from pipeline.control import operate
from pipeline.control.controls import Controls
from pipeline.control.topic import say
from pipeline.errors import ConfigError, Retry
from pipeline.times import micros
from schemas.control import Mute, Verdict, control_id
from schemas.incident import KEY_RULES

IN_EFFECT: str = "in effect within 10 s and with the next events of the key's partition"


async def judge(answers: Answers, incident_id: str, verdict: str, reason: str, until: str, person: str) -> str:
    """`expected` or `malicious`, as `keywatch feedback`."""
    word = _verdict(verdict, until)
    needed(reason)
    ends = moments.future(until, "until", moments.now()) if until else ""
    incident = await answers.asked(queries.find_incident, incident_id)
    if incident is None:
        raise ConfigError("there is no such incident")
    if incident.rule not in KEY_RULES:
        raise ConfigError(f"{incident.rule} incidents are another topology's: mend the cause, words don't reach it")
    events = await answers.asked(queries.evidence_events, incident)
    await say(answers.config, [operate.feedback_on(incident, word, reason, person, ends, events)])
    return f"said: {verdict}; {IN_EFFECT}"


async def mute(
    answers: Answers, key: str, until: str, reason: str, person: str, known: bool = False
) -> tuple[str, int]:  # fmt: skip
    """Incidents of this key are not told until then, as `keywatch mute KEY`; also the place where that is said.

    `known`: an open case has it, so that it was used whatever ClickHouse can say now.
    """
    needed(reason)
    if not until:
        raise ConfigError("say until when: 12h, 7d or a time")
    said = operate.mute_of((key, "", ""), moments.future(until, "until", moments.now()), reason)
    operate.refuse_too_wide(said)
    if not known and (unknown := await _unknown(answers, said.key_id)):
        raise ConfigError(f"{unknown}: nothing is muted; `keywatch mute --force` mutes it all the same")
    (seq,) = await say(answers.config, [msgspec.structs.replace(said, owner_of_mute=person)])
    return f"muted until {said.until}; {IN_EFFECT}", seq


async def _unknown(answers: Answers, key_id: str) -> str:
    """As `keywatch mute` finds it; in a thread, which a server known to be silent does not get."""
    declared = answers.side.catalogue
    if declared is None:  # it can't be read just now, so nobody can say
        return ""
    look = partial(operate.unknown_key, declared, key_id, lambda: bool(answers.ask(queries.last_used, [key_id])))
    return look() if answers.reach.silent else await run_in_threadpool(look)


async def unmute(
    config: Config, known: Controls | None, scope: tuple[str, str, str], person: str
) -> tuple[str, int]:  # fmt: skip
    """Let the mute of this very (key, detector, owner) end now, as `keywatch unmute`. `known`: what was read of it."""
    if known is None:
        raise Retry("what is muted can't be read just now: `keywatch mutes`, `keywatch unmute`")
    now = moments.now()
    wanted = operate.mute_of(scope, moments.text(now), "lifted")
    found = known.get(control_id(wanted))
    if not isinstance(found, Mute) or micros(found.until) <= now.timestamp() * 1e6:
        raise ConfigError(f"{operate.scope_words(wanted)} is not muted any more")
    ended = msgspec.structs.replace(found, until=moments.text(now), at=moments.text(now), ended_by=person)
    (seq,) = await say(config, [ended])
    return f"unmuted: {operate.scope_words(found)}; {IN_EFFECT}", seq


def _verdict(verdict: str, until: str) -> Verdict:
    if verdict == "malicious" and not until:
        return "malicious"
    if verdict == "expected":
        return "expected"
    raise ConfigError("a verdict is expected (perhaps with an end) or malicious (without)")


def needed(reason: str) -> str:
    """Raises ConfigError where nobody says why."""
    if not reason.strip():
        raise ConfigError("say why: the next one on call will ask")
    return reason
