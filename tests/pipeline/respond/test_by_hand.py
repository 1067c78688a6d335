"""What a message proposes is one command, signed by whoever gives it, and one takes it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from pipeline.config.policy import Approver, Policy, Rule
from pipeline.config.tree import Config, Respond
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.respond import approval
from pipeline.respond.adapters import build
from pipeline.respond.adapters.settings import Adapters
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.by_hand import carried_out, choose, wanted
from pipeline.respond.desk import Desk
from pipeline.respond.fence import suspects
from pipeline.respond.keys import others_of
from pipeline.respond.ladder import Ladder, Means, judged, ladder_of
from pipeline.respond.ledger.acts import TIME
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Finished
from pipeline.respond.propose import MAX_REASON
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


def signing(folder: Path) -> tuple[Path, Config]:
    """The key file of ada, and a configuration that knows her."""
    key = folder / "ada.key"
    return key, settings(approval.make("ada", key))


async def done(mine: Desk, config: Config, rung: Rung, key: Path | None, networks: Networks | None = None) -> int:
    ladder = ladder_of(config.respond)
    queued = wanted(full(), rung, ladder, "ada", preview=key is None)
    chosen = await choose(queued, "n1", ladder, config, {"keys": MATRIX}, networks or Networks())
    return await carried_out(mine, chosen, "n1", key)


async def test_one_command_fences_the_key_and_one_takes_it_back(tmp_path: Path) -> None:
    key, config = signing(tmp_path)
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


async def test_what_stands_in_the_way_is_said_before_anything_is_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is revoked, or suspended already: it was "not the beginning of exactly one ticket"."""
    key, config = signing(tmp_path)
    async with desk() as mine:
        assert await done(mine, config, "suspend", key) == 0
        records = len(mine.ledger.acts)
        capsys.readouterr()
        for file in (None, key):
            assert await done(mine, config, "fence", file) == 1
            assert (
                "fence is not possible: this version of the key is being acted on (suspend)" in capsys.readouterr().out
            )
        assert len(mine.ledger.acts) == records


async def test_a_bulk_of_which_nothing_may_wait_says_why(tmp_path: Path) -> None:
    key, config = signing(tmp_path)
    ladder = ladder_of(config.respond)
    async with desk() as mine:
        assert await done(mine, config, "suspend", key) == 0
        queued = wanted(full(), "fence", ladder, "ada")
        of = (await choose(queued, "n2", ladder, config, {"keys": MATRIX}, Networks())).proposal
        assert of is not None
        verdict = await mine.bulk([of], of.group, "n2", key)
        assert (verdict.granted, verdict.guard) == (False, "already_acted")


async def test_an_undo_of_what_is_over_says_how_it_ended(tmp_path: Path) -> None:
    """By the incident's id, as messages name it: it was "not the beginning of exactly one act's response id"."""
    key, incident = tmp_path / "ada.key", full().incident_id
    config = settings(approval.make("ada", key))
    async with desk() as mine:
        assert await done(mine, config, "suspend", key) == 0
        (act,) = mine.ledger.acts.values()
        of = act.proposal
        await mine.decisions.write(Finished(act_id=of.act_id, response_id=of.response_id, result="done"))
        assert (await mine.undo(act, "false alarm")).granted
        ended = Finished(act_id=of.act_id, response_id=of.response_id, result="done", direction="undo")
        await mine.decisions.write(ended)
        with pytest.raises(ConfigError, match="can be undone: suspend of k1: it is undone"):
            mine.undoable(incident)
        revoked = msgspec.structs.replace(of, act_id="r", response_id="r", rung="revoke", group="")
        await mine.decisions.write(revoked)
        assert (await mine.sign(mine.pending()[0].ticket, True, key)).granted
        await mine.decisions.write(Finished(act_id="r", response_id="r", result="done"))
        with pytest.raises(ConfigError, match="revoke of k1: revoke cannot be undone: if the revocation was wrong"):
            mine.undoable(incident)


async def test_a_long_reason_ends_with_a_sign_and_not_in_the_middle_of_a_number() -> None:
    text = "k1: " + "9" * 600
    queued = wanted(full(text=text), "suspend", ladder_of(settings().respond), "ada")
    assert (len(queued.proposal.reason), queued.proposal.reason[-1]) == (MAX_REASON, "…")


@pytest.mark.parametrize("mode", ["enforce", "simulate", "off"])
async def test_without_a_signature_it_only_says_what_it_would_do(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk() as mine:
        assert await done(mine, settings(mode=mode), "suspend", None) == 0
        assert mine.ledger.acts == {}
    said = capsys.readouterr().out
    assert "suspend k1 for 1 h by keys\nit takes 1 signature; respond.approvers names 0\n" in said


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


async def test_a_fence_by_hand_leaves_none_of_the_networks_out_either() -> None:
    ladder = Ladder(Policy(mode="enforce"), RULES)
    queued = wanted(full(), "fence", ladder, "ada", declare())
    many = Networks(tuple(f"10.{number // 256}.{number % 256}.0/24" for number in range(257)))
    chosen = await choose(queued, "n1", ladder, settings(), {queued.proposal.adapter: MATRIX}, many)
    assert (chosen.proposal, chosen.why_not[:31]) == (None, "too many networks for a fence: ")


@pytest.mark.parametrize("adapter", ["kong", "aws_iam"])
async def test_by_hand_a_rung_is_refused_where_it_is_by_itself_for_other_keys_of_the_consumer(adapter: str) -> None:
    ladder, matrices = Ladder(Policy(mode="enforce", adapter=adapter), ()), build.matrices(Adapters())
    mine, sibling = declare("k1", owner="billing"), declare("k2", owner="billing")
    stranger, disabled = declare("k3", owner="other"), declare("k4", owner="billing", status="disabled")
    for known, possible in (
        (Catalogue.of([mine, stranger, disabled]), True),
        (Catalogue.of([mine, sibling]), False),
        (Catalogue.of([sibling]), False),
        (None, False),
    ):
        queued = wanted(full(), "fence", ladder, "ada", mine)
        chosen = await choose(queued, "n1", ladder, settings(), matrices, Networks(), known)
        of_owner, others = others_of(known, known.get("k1") if known else None)
        means = Means(adapter, matrices[adapter], ("192.0.2.0/24",), owner_keys=of_owner, other_keys=others)
        step = judged("fence", Rule(name="r", rung="fence"), means)
        assert (chosen.proposal is not None, all(guard.passed for guard in step)) == (possible, possible)
        assert possible or chosen.why_not == next(guard.reason for guard in step if not guard.passed)


async def test_by_hand_too_a_fence_that_keeps_nobody_out_is_refused() -> None:
    ladder = Ladder(Policy(mode="enforce", adapter="keys"), ())
    queued = wanted(full(), "fence", ladder, "ada", declare())
    for network, possible in (("192.0.2.0/24", True), ("198.51.100.0/24", False)):
        chosen = await choose(
            queued, "n1", ladder, settings(), {"keys": MATRIX}, Networks((network,)), suspects=suspects(full())
        )  # fmt: skip
        assert (chosen.proposal is not None) == possible
    assert "come from networks it was used from before" in chosen.why_not


async def test_by_hand_a_fence_lets_go_on_what_the_owner_declared() -> None:
    ladder = Ladder(Policy(mode="enforce", adapter="keys"), ())
    declared = declare(allowed_networks=("198.51.100.0/24",))
    queued = wanted(full(), "fence", ladder, "ada", declared)
    chosen = await choose(
        queued, "n1", ladder, settings(), {"keys": MATRIX}, Networks(()), Catalogue.of([declared])
    )  # fmt: skip
    assert chosen.proposal is not None and chosen.proposal.networks == ("198.51.100.0/24",)


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
    key, config = signing(tmp_path)
    async with desk() as mine:
        assert await done(mine, config, "fence", key, Networks(())) == 1
        with pytest.raises(ConfigError, match="fence or suspend"):
            await done(mine, config, "revoke", key)
        with pytest.raises(ConfigError, match="simulate"):
            await done(mine, settings(mode="simulate"), "suspend", key)
        assert mine.ledger.acts == {}
    assert "no network was used" in capsys.readouterr().out


async def test_nobody_is_called_as_the_end_of_an_act_s_time_is() -> None:
    async with desk() as mine:
        with pytest.raises(ConfigError, match="who you are"):
            Desk(mine.decisions, TIME)
