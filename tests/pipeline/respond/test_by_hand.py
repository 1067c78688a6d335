"""What a message proposes is one command, signed by whoever gives it, and one takes it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config import Config, Respond
from pipeline.errors import ConfigError
from pipeline.policy import Approver, Policy, Rule
from pipeline.respond import approval
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.by_hand import carried_out, choose, wanted
from pipeline.respond.decisions import Decisions
from pipeline.respond.desk import Desk
from pipeline.respond.entries import Finished
from pipeline.respond.ladder import Ladder, ladder_of
from schemas.incident import Rung
from schemas.key import Key
from tests.pipeline.respond.incidents import key as declare
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.notices import full

TOPIC = "api.decisions"


@dataclass
class Networks:
    known: tuple[str, ...] = ("192.0.2.0/24",)

    async def usual(self, key_id: str, before_us: int) -> tuple[tuple[str, ...], str]:
        return self.known, "" if self.known else "no network was used on 7 days before"


def settings(*approvers: Approver, mode: str = "enforce", needed: int = 1) -> Config:
    policy = Policy(mode=mode, adapter="keys", bulk_approvals=needed)
    return Config(respond=Respond(policy=policy, approvers=approvers))


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    log = MemoryLog()
    decisions = Decisions(MemoryPublisher(log), MemoryReader(log, TOPIC), TOPIC, "ada")
    await decisions.start()
    try:
        yield Desk(decisions, "ada")
    finally:
        await decisions.close()


async def done(mine: Desk, config: Config, rung: Rung, key: Path | None, networks: Networks | None = None) -> int:
    ladder = ladder_of(config.respond)
    queued = wanted(full(), rung, ladder, "ada", preview=key is None)
    chosen = await choose(queued, "n1", ladder, config, {"keys": MATRIX}, networks or Networks())
    return await carried_out(mine, chosen, "n1", key)


async def test_one_command_fences_the_key_and_one_takes_it_back(tmp_path: Path) -> None:
    key = tmp_path / "ada.key"
    config = settings(approval.make("ada", key))
    async with desk() as mine:
        assert await done(mine, config, "fence", key) == 0
        (act,) = mine.ledger.acts.values()
        assert (act.stage, act.proposal.rung, act.proposal.networks) == ("open", "fence", ("192.0.2.0/24",))
        assert act.approved_by == ("ada",)
        of = act.proposal
        await mine.decisions.write(Finished(act_id=of.act_id, response_id=of.response_id, result="done"))
        (found,) = mine.undoable(full().incident_id)
        assert (await mine.undo(found, "false alarm")).granted
        assert act.undo is not None


@pytest.mark.parametrize("mode", ["enforce", "simulate", "off"])
async def test_without_a_signature_it_only_says_what_it_would_do(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk() as mine:
        assert await done(mine, settings(mode=mode), "suspend", None) == 0
        assert mine.ledger.acts == {}
    assert "suspend k1 for 1 h by keys" in capsys.readouterr().out


async def test_where_two_must_sign_one_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "ada.key"
    async with desk() as mine:
        await done(mine, settings(approval.make("ada", key), needed=2), "suspend", key)
        (act,) = mine.ledger.acts.values()
        assert act.stage == "pending"
    assert "1 of 2 approved" in capsys.readouterr().out


RULES = (
    Rule(name="tests", rung="fence", environments=("test",), adapter="sandbox", duration_s=60.0),
    Rule(name="partners", rung="suspend", owners=("partner",), adapter="tyk", duration_s=120.0, approvals=2),
    Rule(name="live", rung="fence", adapter="kong", duration_s=7200.0),
)


@pytest.mark.parametrize(
    ("declared", "adapter", "hours", "people"),
    [
        (declare(), "kong", 2.0, 1),
        (declare(owner="partner"), "tyk", 1 / 30, 2),
        (declare(environment="test"), "sandbox", 1 / 60, 1),
        (declare(protected=True), "kong", 2.0, 3),
        (None, "kong", 2.0, 3),
    ],
)
async def test_what_is_done_by_hand_is_done_as_the_rule_for_this_very_key_says(
    declared: Key | None, adapter: str, hours: float, people: int
) -> None:
    ladder = Ladder(Policy(mode="enforce", protected_approvals=3), RULES)
    queued = wanted(full(owner="billing"), "fence", ladder, "ada", declared)
    assert queued.proposal.adapter == adapter
    chosen = await choose(queued, "n1", ladder, settings(), {adapter: MATRIX}, Networks())
    assert chosen.proposal is not None
    assert (chosen.proposal.duration_s / 3600, chosen.proposal.approvals) == (hours, people)


async def test_a_signature_of_nobody_we_know_does_nothing(tmp_path: Path) -> None:
    known, stranger = tmp_path / "ada.key", tmp_path / "eve.key"
    config = settings(approval.make("ada", known))
    approval.make("eve", stranger)
    async with desk() as mine:
        assert await done(mine, config, "suspend", stranger) == 1
        assert all(act.stage == "pending" for act in mine.ledger.acts.values())


async def test_what_cannot_be_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "ada.key"
    config = settings(approval.make("ada", key))
    async with desk() as mine:
        assert await done(mine, config, "fence", key, Networks(())) == 1
        with pytest.raises(ConfigError, match="fence or suspend"):
            await done(mine, config, "revoke", key)
        with pytest.raises(ConfigError, match="simulate"):
            await done(mine, settings(mode="simulate"), "suspend", key)
        assert mine.ledger.acts == {}
    assert "no network was used" in capsys.readouterr().out
