"""`keywatch respond promote`: a step from simulate to enforce, if it is earned; the way back at any time.

Counted as `keywatch respond promotion` counts (`progress.py`), written to the decisions topic, and read back by every
responder (`earned.py`). A step up is signed with the approver's key of whoever takes it, and takes as many signatures
as the policy says; what is not earned takes `--override` and a reason, too.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Final

import msgspec

from pipeline.asking.answers import say_line
from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.respond.desk import Desk
from pipeline.respond.ladder import Ladder, ladder_of
from pipeline.respond.ledger.entries import Promoted
from pipeline.respond.promotion import progress as promotion
from pipeline.respond.promotion.earned import STAGES, Stage, Who, height
from pipeline.respond.promotion.progress import Where

REFUSED: Final = 1


def promote(
    config: Config, person: str, to: str, reason: str, override: bool, key_file: Path | None
) -> int:  # fmt: skip
    """The command's exit code: 1 where something is missing."""
    from pipeline.respond.commands import at_desk, key_file_of

    if to not in STAGES:
        raise ConfigError(f"unknown --to '{to}'; there are {', '.join(STAGES)}")
    stage = msgspec.convert(to, Stage)
    ladder = ladder_of(config.respond)
    if override and not reason:
        raise ConfigError("--override needs --reason: why it is right though it is not earned")
    who = Who.of(ladder.policy, config.respond.approvers)

    async def work(mine: Desk) -> int:
        at = promotion.where(ladder, mine.ledger.promotions, who)
        if no := _refused(at, stage, override):
            say_line(f"not promoted: {no}")
            return REFUSED
        path = key_file_of(config, person, key_file) if _is_up(at, stage) else None  # before all is counted
        wanted = await asyncio.to_thread(_wanted, config, ladder, at, stage, override)
        if isinstance(wanted, str):
            say_line(f"not promoted: {wanted}")
            return REFUSED
        await mine.decisions.catch_up()
        now = mine.ledger.promotions.holding(who)
        if (now and now.record) != (at.step and at.step.record):
            say_line(f"not promoted: meanwhile {now.record.by if now else 'nobody'} changed the stage: ask again")
            return REFUSED
        asked_us = mine.ledger.now_us if path else 0
        wanted = msgspec.structs.replace(wanted, by=person, reason=reason, asked_us=asked_us)
        verdict = await mine.promote(wanted, path)
        return _told(mine, who, wanted, verdict.reason if verdict else "", ladder)

    return at_desk(config, person, work)


def _is_up(at: Where, to: Stage) -> bool:
    """Whether the topic would let more happen than it does: then it is signed."""
    return height(to) > (height(at.step.record.to) if at.step else 0)


def _refused(at: Where, to: Stage, override: bool) -> str:
    """Why it is no step from there, whatever is counted; "" if it is one."""
    up = height(to) - height(at.stage)
    if at.by_rules and up <= 0 and to != "simulate" and not override:
        return f"acts go up to {at.stage} by the rules, which nobody promoted: --override --reason TEXT makes it a step"
    if up == 0 and not at.by_rules:
        return f"{to} is what holds now"
    if to == "revoke" and not override:
        return "revoke by itself is never earned: proofs, approvals, or --override --reason TEXT"
    if up > 1 and not override:
        return f"{STAGES[height(at.stage) + 1]} comes first; or --override --reason TEXT"
    return ""


def _wanted(config: Config, ladder: Ladder, at: Where, to: Stage, override: bool) -> Promoted | str:
    """The record, or what is missing."""
    blank = Promoted(to=to, by="", reason="", nonce=uuid.uuid4().hex[:8])
    if not _is_up(at, to):
        return blank
    try:
        told = promotion.count(config, ladder, at)
    except (Retry, Fatal) as error:
        if not override:
            raise
        return msgspec.structs.replace(blank, override=True, counted=f"not known: {error}")
    counted = promotion.acts_line(told)
    if told.missing and not override:
        return f"{'; '.join(told.missing)} ({counted}); or --override --reason TEXT"
    return msgspec.structs.replace(blank, override=override, policy=told.policy, counted=counted)


def _told(mine: Desk, who: Who, wanted: Promoted, signed: str, ladder: Ladder) -> int:
    stage = mine.ledger.promotions.stage(who)
    if stage == wanted.to:
        say_line(f"acts happen by themselves up to {stage}" + (f": {wanted.counted}" if wanted.counted else ""))
    elif wanted.asked_us:
        say_line(f"{signed}; {who.needs} are needed: keywatch respond approve {wanted.ticket}")
    else:
        say_line(f"somebody changed the stage at the same time: acts happen by themselves up to {stage}")
    for line in promotion.beside(ladder, by_rules=False):
        say_line(line)
    return 0
