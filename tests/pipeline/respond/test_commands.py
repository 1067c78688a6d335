"""What people type (undo, pending, approve, queue, bulk, raise, ...) on a log in memory, seen in what it prints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from pipeline import moments
from pipeline.config.policy import Caps
from pipeline.config.tree import Config, Respond
from pipeline.errors import ConfigError, Fatal
from pipeline.keys.catalogue import Catalogue as Declared
from pipeline.respond import approval, commands, desk
from pipeline.respond.ledger.entries import Used
from pipeline.respond.policy import commands as policy_commands
from tests.pipeline.respond.incidents import endpoint, key
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.lives import POLICY, RULES, Lives, at_desk, live
from tests.pipeline.respond.people import ANN
from tests.pipeline.respond.test_handle import Catalogue


class Room:
    """A world, one approver whose key is a file, and the configuration that names him."""

    def __init__(self, folder: Path) -> None:
        names = {f"k{i}": key(f"k{i}", owner=f"owner-k{i}") for i in range(9)}
        self.reads = False  # the last desk was for reading alone
        self.world, self.file = Lives(catalogue=Catalogue(names)), folder / "carl"
        self.carl = approval.make("carl", self.file)
        self.world.approvers = (ANN.approver, self.carl)
        self.config = Config(respond=Respond(
            policy=POLICY, rules=RULES, approvers=self.world.approvers, endpoints=(endpoint("http://127.0.0.1:9/"),)
        ))  # fmt: skip

    def live(self) -> None:
        assert asyncio.run(self.fresh())

    async def fresh(self) -> bool:
        self.world.log.moved = asyncio.Event()
        return await live(self.world)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    made = Room(tmp_path)

    @asynccontextmanager
    async def opened(config: Config, person: str, reads: bool = False) -> AsyncIterator[desk.Desk]:
        made.world.log.moved, made.reads = asyncio.Event(), reads
        mine = await at_desk(made.world, person)
        try:
            yield mine
        finally:
            await mine.decisions.close()

    monkeypatch.setattr(desk, "opened", opened)
    monkeypatch.delenv(commands.KEY_ENV, raising=False)
    yield made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().out


def test_what_stands_is_listed_and_undone_by_the_beginning_of_its_id(room: Room, said: Callable[[], str]) -> None:
    room.world.open("k1")
    room.live()
    assert commands.holds(room.config, "carl", as_json=True) == 0
    (row,) = json.loads(said())
    assert (row["key_id"], row["rung"], row["stage"]) == ("k1", "suspend", "done")
    assert commands.undo(room.config, "carl", row["response_id"][:12], "ours", wait_s=0.0) == 0
    room.live()
    assert room.world.gateway.set_on == {}
    assert commands.undo(room.config, "carl", row["response_id"], "again", wait_s=0.0) == 1
    assert "not undone: it is undone" in said()
    with pytest.raises(ConfigError, match="exactly one act"):
        commands.undo(room.config, "carl", "nonsense", "x", wait_s=0.0)


def test_what_only_lists_needs_no_right_to_write(room: Room, said: Callable[[], str]) -> None:
    for show in (commands.holds, commands.pending, commands.breaker):
        show(room.config, "carl", as_json=True)
        assert room.reads, show.__name__
    commands.queue(room.config, "carl", desk.ALL, as_json=True)
    assert room.reads
    commands.switch(room.config, "carl", True, "a deploy")
    assert not room.reads


def test_all_that_stands_of_an_incident_is_undone_by_its_id_the_newest_first(
    room: Room, said: Callable[[], str]
) -> None:
    room.world.open("k1", severity="high")
    room.world.open("k1", revision=2, change="escalated")
    room.live()
    assert set(room.world.gateway.set_on) == {("k1", "fence"), ("k1", "suspend")}
    assert commands.undo(room.config, "carl", "incident-", "ours", wait_s=0.0) == 0  # as `holds` shows it: cut off
    assert [line.partition(" of")[0] for line in said().splitlines()] == ["suspend", "fence"]
    room.live()
    assert room.world.gateway.set_on == {}
    with pytest.raises(ConfigError, match="can be undone: fence of k1: it is undone; suspend of k1: it is undone"):
        commands.undo(room.config, "carl", "incident-k1", "again", wait_s=0.0)


def rotation(room: Room) -> None:
    of = proposed(
        "k1", rung="rotate", duration_s=3_600.0, adapter="keys", act_id="r", response_id="rotation",
        approvers=(ANN.approver, room.carl), max_overlap_s=86_400.0, force_approvals=2,
    )  # fmt: skip
    room.world.say(of)
    room.world.say(msgspec.structs.replace(finished(of), new_key_id="k9", ends_old=True))


def test_the_end_of_a_rotation_is_put_off_by_either_of_its_keys_and_refused_with_words(
    room: Room, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation(room)
    began = datetime.fromtimestamp(room.world.log.now_us / 1e6, UTC)
    monkeypatch.setattr(moments, "now", lambda: began)
    assert commands.extend(room.config, "carl", "k1", "3h", "a batch job") == 0
    assert said() == "the old key k1 ends 2026-11-18 14:06Z; before that when its traffic has moved\n"
    assert commands.extend(room.config, "carl", "k9", "2h", "less") == 1
    assert "not put off: the old key ends at" in said()
    assert commands.extend(room.config, "carl", "k9", "2d", "more") == 1
    assert "respond.policy.max_overlap_s" in said()
    with pytest.raises(ConfigError, match="no rotation of 'k2' is known"):
        commands.extend(room.config, "carl", "k2", "3h", "another")


def test_the_undo_of_a_rotation_in_use_is_forced_by_as_many_as_the_policy_says(
    room: Room, said: Callable[[], str]
) -> None:
    rotation(room)
    room.world.say(Used(act_id="r", response_id="rotation", at_us=room.world.log.now_us))
    assert commands.undo(room.config, "carl", "rotation", "ours", 0.0) == 1
    assert "rotate of k1: not undone: new_key_in_use: k9 was used at" in said()
    with pytest.raises(ConfigError, match="--key-file"):
        commands.undo(room.config, "carl", "rotation", "ours", 0.0, force=True)
    assert commands.undo(room.config, "carl", "rotation", "ours", 0.0, force=True, key_file=room.file) == 0
    words = said()
    assert "1 of 2 approved: keywatch respond approve undo-" in words
    assert commands.pending(room.config, "carl", as_json=True) == 0
    (row,) = json.loads(said())
    assert (row["key_id"], row["rung"], row["approved_by"], row["approvals"]) == ("k1", "undo of rotate", ["carl"], 2)
    room.world.say(ANN.says(row["ticket"]))
    room.live()
    assert [each.intent.direction for each in room.world.gateway.effects] == ["undo"]


def test_what_waits_is_listed_with_its_ticket_and_approved_or_declined(room: Room, said: Callable[[], str]) -> None:
    for name in ("k1", "k2"):
        room.world.open(name, severity="medium")
    room.live()
    assert commands.pending(room.config, "carl", as_json=True) == 0
    tickets = {row["key_id"]: row["ticket"] for row in json.loads(said())}
    assert commands.sign(room.config, "carl", tickets["k1"][:16], True, room.file, "") == 0
    assert "1 of 2 approved" in said()
    assert commands.sign(room.config, "carl", tickets["k2"], False, room.file, "known") == 0
    room.world.say(ANN.says(tickets["k1"]))
    room.live()
    assert set(room.world.gateway.set_on) == {("k1", "flag")}
    assert commands.pending(room.config, "carl", as_json=False) == 0
    assert "nothing waits" in said()


@pytest.mark.parametrize(
    ("person", "named", "words"),
    [
        ("carl", None, "--key-file"),
        ("eve", "carl", "is no approver"),
        ("ann", "carl", "is not the key of approver ann"),
    ],
)
def test_nobody_signs_for_another(room: Room, person: str, named: str | None, words: str) -> None:
    file = room.file if named else None
    with pytest.raises(ConfigError, match=words):
        commands.sign(room.config, person, "act-1", True, file, "")


def outbreak(room: Room) -> None:
    for number in range(1, 8):
        room.world.open(f"k{number}", seen_days=30.0, bits=float(number))
    room.live()


def test_the_queue_is_ranked_and_a_bulk_acts_on_it_once_it_is_no_preview(room: Room, said: Callable[[], str]) -> None:
    outbreak(room)
    before = len(room.world.gateway.effects)
    commands.queue(room.config, "carl", "breaker", as_json=True)
    bits = [row["bits"] for row in json.loads(said())]
    assert bits == sorted(bits, reverse=True)
    assert len(bits) == 4
    assert commands.bulk(room.config, "carl", "breaker", "suspend", True, None) == 0
    assert "suspend for 0.5 h" in said()
    assert commands.queue(room.config, "carl", "asn:6450", False) == 0
    assert "nothing that waits has the label 'asn:6450'" in said()
    assert commands.bulk(room.config, "carl", "asn:6450", "suspend", True, None) == 0
    assert "nothing that waits has the label 'asn:6450'" in said()
    room.live()
    assert len(room.world.gateway.effects) == before
    assert commands.bulk(room.config, "carl", "breaker", "suspend", False, room.file) == 0
    assert "1 of 1 approved" in said()
    room.live()
    assert len(room.world.gateway.effects) == before + 4


def test_the_breaker_is_shown_and_closed(room: Room, said: Callable[[], str]) -> None:
    outbreak(room)
    commands.breaker(room.config, "carl", as_json=False)
    assert "open since" in said()
    commands.close_breaker(room.config, "carl", "dealt with")
    commands.breaker(room.config, "carl", as_json=False)
    assert "closed; 4 keys wait" in said()


def test_caps_are_raised_by_a_first_one_who_names_the_ticket_for_the_second(
    room: Room, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    now = datetime.fromtimestamp(room.world.log.now_us // 10**6, UTC)
    monkeypatch.setattr("pipeline.moments.now", lambda: now)
    caps = commands.caps_of(room.config, "usual", 9, None, None)
    assert caps == Caps(max_per_hour=9, max_per_day=10, max_share_of_active=0.5)
    room.world.open("k1")
    room.live()
    assert commands.raise_caps(room.config, "carl", "usual", caps, "2h", "drill", room.file) == 0
    ticket = said().split("approve ")[1].strip()
    assert ticket.startswith("raise-")
    assert commands.pending(room.config, "ann", as_json=False) == 0
    assert ticket in said()
    room.world.say(ANN.says(ticket))
    commands.pending(room.config, "ann", as_json=False)
    assert "nothing waits" in said(), "two signed: it stands"
    for number in (2, 3, 4, 5):
        room.world.open(f"k{number}")
    room.live()
    assert len(room.world.gateway.set_on) == 5
    with pytest.raises(ConfigError, match="unknown --cap"):
        commands.caps_of(room.config, "all", 9, None, None)
    with pytest.raises(ConfigError, match="at most a day"):
        commands.raise_caps(room.config, "carl", "usual", caps, "3d", "drill", room.file)


def test_stop_and_go_reach_every_responder(room: Room, said: Callable[[], str]) -> None:
    commands.switch(room.config, "carl", stop=True, reason="drill")
    room.world.open("k1")
    room.live()
    assert room.world.gateway.effects == []
    commands.switch(room.config, "carl", stop=False, reason="over")
    room.world.open("k1", revision=2, change="escalated")
    room.live()
    assert len(room.world.gateway.effects) == 1
    assert "stopped" in said()


def test_the_simulate_switch_reaches_every_responder(room: Room, said: Callable[[], str]) -> None:
    commands.simulate(room.config, "carl", on=True, reason="new rules")
    room.world.open("k1")
    room.live()
    assert room.world.gateway.effects == []
    commands.simulate(room.config, "carl", on=False, reason="seen enough")
    room.world.open("k1", revision=2, change="escalated")
    room.live()
    assert len(room.world.gateway.effects) == 1
    assert "never carried out" in said()


def test_an_approver_is_made_with_the_lines_for_the_configuration(tmp_path: Path, said: Callable[[], str]) -> None:
    assert commands.make_approver("dora", tmp_path / "dora") == 0
    words = said()
    assert f'public_key = "{approval.public_half(tmp_path / "dora")}"' in words


def declared(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many active keys; 0 is a broker that isn't there."""

    async def read(config: Config) -> Declared:
        if not keys:
            raise Fatal("no broker")
        return Declared.of(key(f"k{n}") for n in range(keys))

    monkeypatch.setattr(commands, "read_catalogue", read)


def test_a_policy_s_faults_are_said_and_the_code_tells_what_can_never_match(
    room: Room, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(0, monkeypatch)
    wrong = msgspec.structs.replace(RULES[1], detectors=("nothing",))
    bad = msgspec.structs.replace(room.config.respond, rules=(wrong,))
    assert policy_commands.check_policy(Config(respond=bad)) == 1
    assert "never: respond.rules grave: detectors: none of nothing exists" in said()
    assert policy_commands.check_policy(room.config) == 0
    assert "only with enough active keys: caps from 2 on, fence_caps from 2 on, proof_caps from 2 on" in said()
    declared(1, monkeypatch)
    assert policy_commands.check_policy(room.config) == 1
    assert "never: respond.policy.caps: max_share_of_active = 0.5 of 1 active keys is less than one key" in said()
    declared(2, monkeypatch)
    assert policy_commands.check_policy(room.config) == 0
    assert "max_share_of_active" not in said()


def test_where_nobody_is_an_approver_that_is_said_before_a_key_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="nobody can sign: `keywatch respond approver NAME` makes a pair"):
        commands.key_file_of(Config(), "carl", None)
