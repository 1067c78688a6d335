"""Promotion on Apache Kafka: responders do by themselves what was signed, over SIGKILL; who only reads sees it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import msgspec
import pytest

from pipeline.doctor import of_decisions
from pipeline.errors import Fatal
from pipeline.respond.desk import opened
from pipeline.respond.ledger.entries import Promoted, Switched
from pipeline.respond.promotion.earned import Who
from pipeline.sinks.topic_settings import topic_settings
from tests.kafka.cluster import Cluster
from tests.kafka.test_responder import World, decided
from tests.pipeline.respond.people import ANN, BOTH
from tests.pipeline.respond.receiver import Receiver

ONE = Who(BOTH, needs=1, within_s=1800.0)


@pytest.fixture
def world(node: Cluster, target: Receiver) -> Iterator[World]:
    this = World(node.brokers, target.url)
    respond = this.settings["respond"]
    del respond["revocation"]
    respond["approvers"] = [msgspec.to_builtins(each) for each in BOTH]
    respond["rules"] = [{"name": "grave", "rung": "suspend", "min_severity": "medium"}]
    respond["policy"] = {
        "mode": "enforce", "adapter": "keys", "promotion": "required", "settle_s": 0, "breaker_owners": 0,
        "max_per_owner": 0, "caps": {"max_share_of_active": 0.5},
    }  # fmt: skip
    yield this
    this.end()


async def test_what_nobody_signed_is_refused_and_what_was_signed_is_done_also_after_a_kill(
    world: World, target: Receiver
) -> None:
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1")
    await world.lines(decided(1))
    async with opened(world.config, "ann") as desk:
        step = Promoted(to="suspend", by="ann", reason="", counted="60 acts", asked_us=desk.ledger.now_us)
        await desk.decisions.write(step)
        assert desk.ledger.promotions.stage(ONE) == "simulate", "an unsigned claim"
        await desk.decisions.write(ANN.says(step.ticket))
        assert desk.ledger.promotions.stage(ONE) == "suspend"
    await world.open("k2")
    await world.lines(decided(2))
    world.signal(first, signal.SIGKILL)
    first.wait(10)
    world.start()
    await world.open("k3")
    lines = await world.lines(decided(3))
    verdicts = [(line.key_id, line.verdict) for line in lines if line.stage == "decided" and not line.switch]
    assert verdicts[:2] == [("k1", "refused"), ("k2", "allowed")]
    told = {(each.message["data"]["key_id"], each.headers["idempotency-key"]) for each in target.received}
    assert sorted(name for name, _ in told if name != "k1") == ["k2", "k3"], "again after the kill, under one id"
    async with opened(world.config, "bob", reads=True) as desk:
        assert {"k2", "k3"} <= {act.proposal.key_id for act in desk.in_force()}
        assert desk.ledger.promotions.stage(ONE) == "suspend"
        with pytest.raises(Fatal, match="only reads"):
            await desk.decisions.write(Switched(stop=True, by="bob"))
    decisions = world.config.topics.decisions
    found = (await topic_settings(world.config.kafka, [decisions]))[decisions]
    assert found["retention.ms"] == str(28 * 86_400_000)
    assert of_decisions(decisions, found) == []
