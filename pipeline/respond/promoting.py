"""`keywatch respond promote`: a step from simulate to enforce, if it is earned; the way back at any time.

Counted as `keywatch respond promotion` counts (`promotion.py`), written to the decisions topic, and read back by every
responder (`promoted.py`). What is not earned takes `--override`, a reason, and as many signatures as the policy says.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Final

import msgspec

from pipeline.asking import say_line
from pipeline.config import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.respond import promotion
from pipeline.respond.desk import Desk
from pipeline.respond.entries import Promoted
from pipeline.respond.ladder import Ladder, ladder_of
from pipeline.respond.promoted import STAGES, Stage, Step, Who

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
    signs = override and who.needs > 0
    path = key_file_of(config, person, key_file) if signs else None

    async def work(mine: Desk) -> int:
        holding = mine.ledger.promotions.holding(who)
        wanted = await asyncio.to_thread(_wanted, config, ladder, holding, stage, override)
        if isinstance(wanted, str):
            say_line(f"not promoted: {wanted}")
            return REFUSED
        await mine.decisions.catch_up()
        now = mine.ledger.promotions.holding(who)
        if (now and now.record) != (holding and holding.record):
            say_line(f"not promoted: meanwhile {now.record.by if now else 'nobody'} changed the stage: ask again")
            return REFUSED
        asked_us = mine.ledger.now_us if wanted.override else 0
        wanted = msgspec.structs.replace(wanted, by=person, reason=reason, asked_us=asked_us)
        verdict = await mine.promote(wanted, path if wanted.override else None)
        return _told(mine, who, wanted, verdict.reason if verdict else "", ladder.policy.promotion)

    return at_desk(config, person, work)


def _wanted(config: Config, ladder: Ladder, holding: Step | None, to: Stage, override: bool) -> Promoted | str:
    """The record, or what is missing."""
    now: Stage = holding.record.to if holding else "simulate"
    up = STAGES.index(to) - STAGES.index(now)
    if up == 0:
        return f"{to} is what holds now"
    blank = Promoted(to=to, by="", reason="", nonce=uuid.uuid4().hex[:8])
    if up < 0:
        return blank
    if to == "revoke" and not override:
        return "revoke by itself is never earned: proofs, approvals, or --override --reason TEXT"
    if up > 1 and not override:
        return f"{STAGES[STAGES.index(now) + 1]} comes first; or --override --reason TEXT"
    try:
        told = promotion.count(config, ladder, holding.at_us if holding else 0, now)
    except (Retry, Fatal) as error:
        if not override:
            raise
        return msgspec.structs.replace(blank, override=True, counted=f"not known: {error}")
    counted = promotion.acts_line(told)
    if told.missing and not override:
        return f"{'; '.join(told.missing)} ({counted}); or --override --reason TEXT"
    return msgspec.structs.replace(blank, override=override, policy=told.policy, counted=counted)


def _told(mine: Desk, who: Who, wanted: Promoted, signed: str, promotion_is: str) -> int:
    stage = mine.ledger.promotions.stage(who)
    if stage == wanted.to:
        say_line(f"acts happen by themselves up to {stage}" + (f": {wanted.counted}" if wanted.counted else ""))
    elif wanted.override:
        say_line(f"{signed}; {who.needs} are needed: keywatch respond approve {wanted.ticket}")
    else:
        say_line(f"somebody changed the stage at the same time: acts happen by themselves up to {stage}")
    if promotion_is != "required":
        say_line('respond.policy.promotion is "advised": nothing is refused by it until that is "required"')
    return 0
