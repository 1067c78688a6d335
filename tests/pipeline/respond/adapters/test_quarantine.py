"""A policy quarantines an AWS user: from the rule without scopes to what CloudTrail shows of the key afterwards."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pipeline.config.policy import Rule
from pipeline.formats.cloudtrail import CLOUDTRAIL
from pipeline.formats.format import Options
from pipeline.respond.adapters import aws_iam
from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.adapters.settings import AwsIam
from pipeline.respond.enforcement.proof import Enforcement, Watch
from pipeline.respond.enforcement.watched import in_force
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import decode
from pipeline.respond.ledger.ledger import Ledger
from schemas.event import Event
from tests.pipeline.respond.adapters.fake_aws import FakeIam
from tests.pipeline.respond.adapters.peers import running
from tests.pipeline.respond.incidents import key
from tests.pipeline.respond.lives import POLICY, Lives, Process, live
from tests.pipeline.respond.test_handle import DECISIONS

KEY = "AKIAIOSFODNN7EXAMPL1"
MATRIX = aws_iam.matrix(AwsIam())


class Iam(FakeIam):
    """Its key's last character is a number, by which incidents find their partition."""

    key_id = KEY


class AtIam(Process):
    """A responder whose one adapter is IAM's."""

    matrix = MATRIX
    url = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.responder.matrices = {"keys": MATRIX}

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        return await Iam().adapter(self.url).attempt(intent)


async def quarantined(fake: Iam, *scopes: str) -> Watch:
    """What is watched after the responder acted by a rule that denies these scopes."""
    rule = Rule(name="thief", rung="deny", scopes=scopes)
    world = Lives(ladder=Ladder(POLICY, (rule,)))
    assert world.catalogue.keys is not None
    world.catalogue.keys[KEY] = key(KEY)
    world.open(KEY)
    async with running(fake.routes()) as server:
        AtIam.url = server.url
        assert await live(world, kind=AtIam)
    ledger = Ledger()
    for record in world.log.topics[DECISIONS]:
        ledger.apply(record.offset, record.timestamp_us, decode(record.value))
    (watch,) = in_force(ledger, {"keys": MATRIX}, frozenset({0, 1}))
    return watch


def call(watch: Watch, action: str, **more: Any) -> Event:
    """CloudTrail's record of the key's call, a minute after every node obeys."""
    service, name = action.split(":")
    at = datetime.fromtimestamp((watch.confirmed_us + watch.allowance_us) / 1e6 + 60, UTC)
    record = {
        "eventSource": f"{service}.amazonaws.com", "eventName": name, "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "userIdentity": {"type": "IAMUser", "accessKeyId": KEY}, "sourceIPAddress": "198.51.100.7", **more,
    }  # fmt: skip
    event = CLOUDTRAIL.event(record, Options())
    assert isinstance(event, Event)
    return event


def word(watch: Watch, *events: Event) -> list[str]:
    enforcement = Enforcement()
    assert enforcement.watch(watch)
    return [v.word for n, event in enumerate(events) for v in enforcement.seen(event, n, event.ts_us)]


async def test_a_rule_that_denies_without_scopes_puts_the_adapters_own_list_on_the_user() -> None:
    fake = Iam()
    watch = await quarantined(fake)
    (statement,) = msgspec.json.decode(fake.state["policies"]["bob/keywatch-quarantine"])["Statement"]
    assert statement == {"Effect": "Deny", "Resource": "*", "Action": list(aws_iam.DANGEROUS)}
    assert watch.scopes == aws_iam.DANGEROUS


async def test_the_rules_own_actions_are_denied_instead() -> None:
    fake = Iam()
    watch = await quarantined(fake, "s3:*", "dynamodb:Scan")
    (statement,) = msgspec.json.decode(fake.state["policies"]["bob/keywatch-quarantine"])["Statement"]
    assert statement["Action"] == ["s3:*", "dynamodb:Scan"]
    assert watch.scopes == ("s3:*", "dynamodb:Scan")


@pytest.mark.parametrize(
    ("scopes", "action"),
    [
        ((), "iam:CreateUser"),
        ((), "ec2:RunInstances"),
        (("s3:get*",), "s3:GetObject"),
        (("s3:GetObjec?",), "s3:GetObject"),
    ],
)
async def test_what_cloudtrail_shows_proves_the_denial_or_breaks_it(scopes: tuple[str, ...], action: str) -> None:
    watch = await quarantined(Iam(), *scopes)
    assert word(watch, call(watch, action)) == ["broken"]
    assert word(watch, call(watch, action, errorCode="AccessDenied")) == ["enforced"]


@pytest.mark.parametrize(
    "action", ["s3:GetObject", "iam:ListUsers", "sts:GetCallerIdentity", "sts:GetSessionToken", "s3:DeleteObjects"]
)
async def test_what_the_policy_does_not_deny_and_what_none_can_says_nothing(action: str) -> None:
    watch = await quarantined(Iam())
    assert word(watch, call(watch, action), call(watch, action, errorCode="AccessDenied")) == []


async def test_a_thief_who_asks_who_he_is_does_not_break_a_fence() -> None:
    watch = await quarantined(Iam())
    fence = msgspec.structs.replace(watch, rung="fence", networks=("192.0.2.0/24",), scopes=())
    assert word(fence, call(watch, "sts:GetCallerIdentity")) == []
    assert word(fence, call(watch, "s3:GetObject")) == ["broken"]
