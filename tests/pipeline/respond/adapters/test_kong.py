"""What is Kong's own: no database, consumers with more keys, plug-ins that replace each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline.config.setting import Secret
from pipeline.respond.adapters.adapter import Outcome
from pipeline.respond.adapters.kong import KongAdapter
from pipeline.respond.adapters.settings import Kong
from schemas.incident import Rung
from tests.pipeline.respond.adapters.fake_kong import CONSUMER, CREDENTIAL, KEY, TOKEN, FakeKong, plugin
from tests.pipeline.respond.adapters.peers import running, snapshot
from tests.pipeline.respond.adapters.test_contract import done, intent


async def refused(fake: FakeKong, rung: Rung) -> str:
    """Why; nothing was changed."""
    before = snapshot(fake)
    async with running(fake.routes()) as server:
        outcome = await fake.adapter(server.url).attempt(intent(fake, rung))
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.label) == ("failed", "refused")
    assert snapshot(fake) == before
    return outcome.words


@pytest.mark.parametrize("rung", ["suspend", "throttle", "rotate", "revoke"])
async def test_a_kong_without_a_database_is_refused_with_what_to_do(rung: Rung) -> None:
    assert "control plane" in await refused(FakeKong(database="off"), rung)


async def test_check_names_a_missing_database_and_too_short_an_allowance() -> None:
    fake = FakeKong(database="off")
    async with running(fake.routes()) as server:
        assert "without a database" in (await fake.adapter(server.url).check())[0]
    fake = FakeKong()
    async with running(fake.routes()) as server:
        hasty = KongAdapter(Kong(url=server.url, token=Secret(TOKEN), delay_s=1), (1, 5))
        assert "every 5 s" in (await hasty.check())[0]


@pytest.mark.parametrize("rung", ["throttle", "fence", "flag"])
@pytest.mark.parametrize("kind", ["key-auths", "jwt"])
async def test_a_consumer_with_another_credential_of_any_kind_is_left_alone(rung: Rung, kind: str) -> None:
    fake = FakeKong()
    other = {"id": "11111111-2222-4333-8444-555555555555", "consumer": {"id": CONSUMER}, "key": "another"}
    fake.state.setdefault(kind, {})[other["id"]] = other
    assert "1 more credentials" in await refused(fake, rung)


async def test_suspending_one_of_two_keys_of_a_consumer_leaves_the_other_where_it_is() -> None:
    fake = FakeKong()
    other: dict[str, Any] = {
        "id": "11111111-2222-4333-8444-555555555555",
        "consumer": {"id": CONSUMER},
        "key": "another",
    }
    fake.state["key-auths"][other["id"]] = dict(other)
    async with running(fake.routes()) as server:
        await done(fake.adapter(server.url), intent(fake, "suspend"))
    assert fake.works("suspend")
    assert fake.state["key-auths"][other["id"]] == other


@pytest.mark.parametrize("scope", [{"route": "r1"}, {"service": "s1"}, {}])
async def test_a_fence_that_would_replace_another_list_of_addresses_is_refused(scope: dict[str, str]) -> None:
    fake = FakeKong()
    theirs = plugin("ip-restriction", {"allow": ["10.0.0.0/8"]}, **scope)
    fake.state["plugins"][theirs["id"]] = theirs
    assert "replaces it" in await refused(fake, "fence")


async def test_a_rate_of_the_consumers_own_is_not_touched() -> None:
    fake = FakeKong()
    theirs = plugin("rate-limiting", {"second": 5}, consumer=CONSUMER, route="r1")
    fake.state["plugins"][theirs["id"]] = theirs
    assert "of its own" in await refused(fake, "throttle")


async def test_a_throttle_takes_over_the_narrowest_of_the_limits_that_it_replaces() -> None:
    fake = FakeKong()
    for name, config in (("r1", {"minute": 10, "hour": 100}), ("r2", {"hour": 50}), ("r3", {"second": 9, "day": 40})):
        theirs = plugin("rate-limiting", config, route=name)
        fake.state["plugins"][theirs["id"]] = theirs
    async with running(fake.routes()) as server:
        wide = dataclasses.replace(intent(fake, "throttle"), limit_per_s=20.0)
        await done(fake.adapter(server.url), wide)
    ours = next(each for each in fake.state["plugins"].values() if each.get("consumer"))["config"]
    limits = {name: ours.get(name) for name in ("second", "minute", "hour", "day")}
    assert limits == {"second": 9, "minute": 10, "hour": 40, "day": 40}


async def test_a_quarantine_whose_plugin_somebody_removed_is_made_sure_of_before_a_key_is_moved() -> None:
    fake = FakeKong()
    async with running(fake.routes()) as server:
        adapter = fake.adapter(server.url)
        applied = await done(adapter, intent(fake, "suspend"))
        await done(adapter, dataclasses.replace(intent(fake, "suspend"), direction="undo", before=applied.before))
        fake.state["plugins"].clear()
        await done(adapter, intent(fake, "suspend"))
    assert fake.works("suspend")


async def test_a_rotations_old_credential_is_revoked_by_itself_and_the_new_one_goes_on_working() -> None:
    fake = FakeKong()
    async with running(fake.routes()) as server:
        adapter = fake.adapter(server.url)
        rotated = await done(adapter, intent(fake, "rotate"))
        await done(adapter, intent(fake, "revoke", "i2"))
    assert fake.works("revoke")
    new = fake.state["key-auths"][rotated.new_key_id]
    assert (new["consumer"]["id"], "key" in new) == (CONSUMER, True)


async def test_the_raw_key_is_in_no_answer_of_the_adapter() -> None:
    fake = FakeKong()
    async with running(fake.routes()) as server:
        for rung in ("suspend", "revoke", "rotate"):
            outcome = await fake.adapter(server.url).attempt(intent(fake, rung))
            assert KEY not in repr(outcome)
            assert TOKEN not in repr(outcome)
    assert fake.state["key-auths"][CREDENTIAL]["key"] == KEY
