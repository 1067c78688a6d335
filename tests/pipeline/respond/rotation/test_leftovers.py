"""A revoked key that its gateway only disabled: after 30 days one message says to delete it, whatever restarts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config.tree import Config
from pipeline.respond.ledger.entries import Finished
from pipeline.respond.night.records import Leftover, LeftoverGone
from pipeline.respond.rotation import desk as leftover_desk
from pipeline.respond.rotation.leftovers import DELETE_AFTER_US, Tidying
from schemas.key import Key
from tests.pipeline.respond.incidents import NOW_S, key
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.memory_log import Fuse, Killed
from tests.pipeline.respond.night.test_desk import at
from tests.pipeline.respond.night.test_night import TOPIC, World, life, rounds

DAY_S = 86_400.0
RETENTION_DAYS = 7


class Declared:
    """A catalogue whose key may go, get another version, or be unreadable."""

    def __init__(self) -> None:
        self.key: Key | None = key("k1")
        self.error = ""

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        return (None, 0, self.error) if self.error else (self.key, 100, "")

    async def others(self, about: Key) -> tuple[int | None, int | None]:
        return None, None


def revoked(world: World, adapter: str = "kong", **changes: Any) -> None:
    """A revocation that the gateway confirmed."""
    world.say(proposed("k1", rung="revoke", act_id="a", adapter=adapter, **changes))
    world.say(Finished(act_id="a", response_id="r", result="done"))


async def day(world: World, keys: Declared, fuse: Fuse | None = None) -> None:
    """One process' life; then a day passes and the topic's retention takes what is older than a week."""
    try:
        async with life(world, fuse) as night:
            tidying = Tidying(night.decisions, night.books.leftovers, keys, frozenset({"kong"}))
            await night.decisions.catch_up()
            await tidying.round()
            await rounds(night)
            await tidying.round()
    except* Killed:
        pass
    world.pass_time(DAY_S)
    start = world.log.now_us - int(RETENTION_DAYS * DAY_S * 1e6)
    kept = [record for record in world.log.topics[TOPIC] if record.timestamp_us > start]
    world.log.topics[TOPIC] = [replace(record, offset=number) for number, record in enumerate(kept)]


def reminders(world: World) -> list[str]:
    return [str(each["data"]["title"]) for each in world.lines[1].came if each["type"] == "deletion.due"]  # type: ignore[index]


async def test_after_thirty_days_of_restarts_one_message_says_what_to_delete_where() -> None:
    world, keys = World(), Declared()
    revoked(world)
    for number in range(45):
        await day(world, keys)
        assert len(reminders(world)) == (number >= 30), number
    assert reminders(world)[0].startswith("delete the key k1 at kong: it was revoked")
    assert world.lines[0].came == []  # nobody has to get up for it


async def test_killed_while_it_is_told_it_is_told_again_under_the_same_id_and_not_forgotten() -> None:
    for at_effect in range(4):
        world, keys = World(), Declared()
        world.say(_left(world))
        await day(world, keys, Fuse(at_effect, True))
        await day(world, keys)
        assert reminders(world)
        assert len(set(world.lines[1].ids)) == 1


@pytest.mark.parametrize("end", ["said", "gone", "version"])
async def test_what_was_deleted_is_told_of_no_more_and_does_not_come_back(end: str) -> None:
    world, keys = World(), Declared()
    revoked(world)
    await day(world, keys)
    if end == "said":
        world.say(LeftoverGone(key_id="k1", key_version=1, by="ann"))
    else:
        keys.key = None if end == "gone" else key("k1", version=2)
    await day(world, keys)
    world.say(_left(world))  # by a responder who was on its way with it
    for _ in range(33):
        await day(world, keys)
    assert reminders(world) == []
    assert not [each for each in world.records(Leftover)]


async def test_a_catalogue_that_cannot_be_read_ends_nothing_and_an_undeclared_key_waits_for_a_person() -> None:
    world, keys = World(), Declared()
    keys.key = None
    revoked(world)
    await day(world, keys)
    keys.error = "no broker"
    for _ in range(31):
        await day(world, keys)
    assert len(reminders(world)) == 1


@pytest.mark.parametrize("changes", [{"adapter": "hook"}, {"simulated": True}, {"result": "failed"}])
async def test_what_leaves_nothing_behind_or_was_not_done_is_none(changes: dict[str, Any]) -> None:
    world, result = World(), changes.pop("result", "done")
    world.say(proposed("k1", rung="revoke", act_id="a", **{"adapter": "kong", **changes}))
    world.say(Finished(act_id="a", response_id="r", result=result))
    await day(world, Declared())
    assert world.records(Leftover) == []


def test_a_command_lists_them_and_another_one_says_that_a_key_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    world, config = World(), Config()
    world.say(_left(world))
    assert leftover_desk.list_leftovers(config, True, at(world)) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["key_id"], row["adapter"], row["due"], row["told"]) == ("k1", "kong", True, False)
    assert leftover_desk.deleted(config, "k2", "ann", "", at(world)) == 1
    assert leftover_desk.deleted(config, "k1", "ann", "gone from Kong", at(world)) == 0
    assert leftover_desk.list_leftovers(config, False, at(world)) == 0
    assert "no revoked key is left over" in capsys.readouterr().out


def _left(world: World) -> Leftover:
    since_us = int(NOW_S * 1e6) - DELETE_AFTER_US - 1
    return Leftover(key_id="k1", key_version=1, adapter="kong", incident_id="i1", since_us=since_us, declared=True)
