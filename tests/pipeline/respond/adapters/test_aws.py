"""What is AWS' own: plans and users that several keys share, the limits of a policy, our own key."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from pipeline.respond.adapters.adapter import Outcome
from pipeline.respond.adapters.aws_iam import DANGEROUS
from schemas.incident import Rung
from tests.pipeline.respond.adapters.fake_aws import API_KEY, OWN_KEY, SECRET, FakeApiGateway, FakeIam
from tests.pipeline.respond.adapters.peers import Fake, running, snapshot
from tests.pipeline.respond.adapters.test_contract import done, intent, undo


async def refused(fake: Fake, rung: Rung, **changes: Any) -> str:
    before = snapshot(fake)
    async with running(fake.routes()) as server:
        outcome = await fake.adapter(server.url).attempt(dataclasses.replace(intent(fake, rung), **changes))
    assert isinstance(outcome, Outcome)
    assert outcome.label == "refused"
    assert snapshot(fake) == before
    return outcome.words


async def test_a_usage_plan_of_several_keys_is_not_throttled_for_one() -> None:
    fake = FakeApiGateway()
    fake.state["in"]["n371pt"].append("aaaaaaaaaa")
    assert "1 more keys" in await refused(fake, "throttle")


async def test_limits_per_method_would_go_before_the_plans() -> None:
    fake = FakeApiGateway()
    fake.state["plans"]["n371pt"]["apiStages"][0]["throttle"] = {"/pets/GET": {"rateLimit": 5.0, "burstLimit": 5}}
    assert "per method" in await refused(fake, "throttle")


async def test_a_throttle_that_is_set_again_restores_what_was_there_the_second_time() -> None:
    fake = FakeApiGateway()
    async with running(fake.routes()) as server:
        adapter = fake.adapter(server.url)
        await done(adapter, undo(intent(fake, "throttle"), await done(adapter, intent(fake, "throttle"))))
        fake.state["plans"]["n371pt"]["throttle"] = {"rateLimit": 50.0, "burstLimit": 60}
        before = snapshot(fake)
        await done(adapter, undo(intent(fake, "throttle"), await done(adapter, intent(fake, "throttle"))))
    assert snapshot(fake) == before


async def test_a_plan_without_a_rate_has_none_again_after_the_undo() -> None:
    fake = FakeApiGateway()
    fake.state["plans"]["n371pt"].pop("throttle")
    before = snapshot(fake)
    async with running(fake.routes()) as server:
        adapter = fake.adapter(server.url)
        await done(adapter, undo(intent(fake, "throttle"), await done(adapter, intent(fake, "throttle"))))
    assert snapshot(fake) == before


async def test_the_keys_value_is_never_asked_for() -> None:
    fake = FakeApiGateway()
    async with running(fake.routes()) as server:
        outcome = await done(fake.adapter(server.url), intent(fake, "throttle"))
        assert not any("includeValue" in path for _, path, _, _ in server.requests)
    assert API_KEY not in repr(outcome)


@pytest.mark.parametrize("rung", ["deny", "fence"])
async def test_a_user_with_two_active_keys_gets_no_policy(rung: Rung) -> None:
    fake = FakeIam()
    fake.state["keys"]["AKIAI44QH8DHBEXAMPLE"] = ["bob", "Active"]
    assert "1 more access keys" in await refused(fake, rung)


async def test_an_inactive_second_key_does_not_matter() -> None:
    fake = FakeIam()
    fake.state["keys"]["AKIAI44QH8DHBEXAMPLE"] = ["bob", "Inactive"]
    async with running(fake.routes()) as server:
        await done(fake.adapter(server.url), intent(fake, "deny"))
    policy = msgspec.json.decode(fake.state["policies"]["bob/keywatch-quarantine"])
    assert policy["Statement"] == [{"Effect": "Deny", "Resource": "*", "Action": list(DANGEROUS)}]


async def test_a_fence_denies_all_from_elsewhere_but_what_aws_calls_for_the_user() -> None:
    fake = FakeIam()
    async with running(fake.routes()) as server:
        await done(fake.adapter(server.url), intent(fake, "fence"))
    statement = msgspec.json.decode(fake.state["policies"]["bob/keywatch-fence"])["Statement"][0]
    assert statement["Condition"] == {
        "NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]},
        "Bool": {"aws:ViaAWSService": "false"},
    }


async def test_a_fence_without_networks_or_with_too_many_is_refused() -> None:
    assert "suspension" in await refused(FakeIam(), "fence", networks=())
    many = tuple(f"10.{n}.0.0/16" for n in range(200))
    assert "2048" in await refused(FakeIam(), "fence", networks=many)


async def test_scopes_that_are_no_iam_actions_are_refused() -> None:
    assert "no IAM actions" in await refused(FakeIam(), "deny", scopes=("invoices:write", 'x:y","Effect":"Allow'))


async def test_keywatch_does_not_take_its_own_key_out_of_use() -> None:
    assert "itself" in await refused(FakeIam(), "suspend", key_id=OWN_KEY)


async def test_no_secret_of_ours_is_sent() -> None:
    for fake in (FakeIam(), FakeApiGateway()):
        async with running(fake.routes()) as server:
            await done(fake.adapter(server.url), intent(fake, "suspend"))
            assert SECRET not in repr(server.requests)
