"""What is Tyk's own: hash mode, policies that overrule a session, quotas that a write would reset."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.respond.adapters.adapter import Outcome
from schemas.incident import Rung
from tests.pipeline.respond.adapters.fake_tyk import HASH, FakeTyk
from tests.pipeline.respond.adapters.peers import running, snapshot
from tests.pipeline.respond.adapters.test_contract import done, intent


async def words_of(fake: FakeTyk, rung: Rung) -> str:
    before = snapshot(fake)
    async with running(fake.routes()) as server:
        outcome = await fake.adapter(server.url).attempt(intent(fake, rung))
    assert isinstance(outcome, Outcome)
    assert outcome.label == "refused"
    assert snapshot(fake) == before
    return outcome.words


async def test_a_gateway_that_does_not_hash_its_keys_is_refused_with_what_to_do() -> None:
    fake = FakeTyk(hash_keys=False)
    assert "set hash_keys" in await words_of(fake, "suspend")
    async with running(fake.routes()) as server:
        assert "set hash_keys" in (await fake.adapter(server.url).check())[0]


@pytest.mark.parametrize(
    "ruled",
    [{"apply_policies": ["gold"]}, {"access_rights": {"api1": {"api_id": "api1", "limit": {"rate": 50, "per": 1}}}}],
)
async def test_a_throttle_that_would_have_no_effect_is_refused(ruled: dict[str, Any]) -> None:
    fake = FakeTyk()
    fake.state["keys"][HASH] |= ruled
    assert "no effect" in await words_of(fake, "throttle")


async def test_a_narrower_rate_is_never_widened() -> None:
    fake = FakeTyk()
    fake.state["keys"][HASH] |= {"rate": 1, "per": 60}
    async with running(fake.routes()) as server:
        await done(fake.adapter(server.url), intent(fake, "throttle"))
    assert (fake.state["keys"][HASH]["rate"], fake.state["keys"][HASH]["per"]) == (1, 60)


async def test_quota_and_last_update_stay_as_they_are() -> None:
    fake = FakeTyk()
    async with running(fake.routes()) as server:
        await done(fake.adapter(server.url), intent(fake, "suspend"))
        writes = [path for method, path, _, _ in server.requests if method == "PUT"]
    assert [path.endswith("&suppress_reset=1") for path in writes] == [True]
    assert fake.state["keys"][HASH]["quota_renews"] == 1449051461
    assert fake.state["keys"][HASH]["meta_data"]["owner"] == "acme"
