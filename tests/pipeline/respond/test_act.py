"""Carrying out an act: one id at every attempt, and every answer of the target understood."""

from __future__ import annotations

import dataclasses

import pytest
from aiohttp import web

from pipeline.respond.act import INTENT_LIVES_S, Acting, NullActor, act_id, response_id
from pipeline.respond.adapters.adapter import Intent, Outcome
from pipeline.respond.adapters.webhook import WebhookAdapter
from pipeline.respond.audit import rfc3339
from pipeline.respond.delivery.webhook import Poster
from tests.pipeline.respond.incidents import NOW_S, endpoint
from tests.pipeline.respond.receiver import Receiver, code, receiver, said

INTENT = Intent(
    act_id=act_id("k1", 1), response_id=response_id("i1", "revoke", 1), incident_id="i1", key_id="k1", key_version=1,
    granted_at=rfc3339(NOW_S), granted_at_s=NOW_S, reason="k1 is odd",
)  # fmt: skip


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s
        self.slept.append(delay_s)


def actor(target: Receiver, clock: Clock, killed: str = "") -> Acting:
    webhook = WebhookAdapter(Poster(endpoint(target.url), 1, 2))
    return Acting(webhook, lambda: killed, lambda: clock.now_s, clock.sleep)


async def outcome_of(*answers: web.Response) -> Outcome:
    async with receiver(*answers) as target:
        return await actor(target, Clock()).act(INTENT)


async def test_the_target_is_told_what_to_revoke_and_under_which_id() -> None:
    async with receiver() as target:
        outcome = await actor(target, Clock()).act(INTENT)
    assert outcome == Outcome("done", "revoked", "done")
    received = target.received[0]
    assert received.headers["idempotency-key"] == act_id("k1", 1)
    assert received.message_id == f"rsp_{INTENT.response_id}"
    assert received.message["type"] == "key.revoke"
    assert received.message["data"] == {
        "key_id": "k1", "key_version": 1, "incident_id": "i1", "response_id": INTENT.response_id, "rung": "revoke",
        "reason": "k1 is odd",
    }  # fmt: skip


async def test_every_attempt_is_the_same_message_under_the_same_ids() -> None:
    async with receiver(code(500), code(503), code(429, Retry_After="7")) as target:
        clock = Clock()
        assert (await actor(target, clock).act(INTENT)).result == "done"
    assert len({(each.body, each.message_id, each.headers["idempotency-key"]) for each in target.received}) == 1
    assert len(target.received) == 4
    assert clock.slept[2] == 7.0


@pytest.mark.parametrize("status", [404, 409])
async def test_what_is_gone_or_revoked_already_is_done(status: int) -> None:
    assert (await outcome_of(code(status))).result == "done"


async def test_scheduled_is_done_and_refused_is_not() -> None:
    assert await outcome_of(said("scheduled")) == Outcome("done", "scheduled by the target", "scheduled")
    assert await outcome_of(said("refused")) == Outcome("failed", "the target refused", "refused")


async def test_a_success_that_says_nothing_is_done_but_told_as_unproven() -> None:
    for answer in (code(204), said("maybe"), web.Response(body=b"ok")):
        outcome = await outcome_of(answer)
        assert outcome.result == "done"
        assert "unproven" in outcome.words


@pytest.mark.parametrize("status", [301, 400, 401, 403, 422])
async def test_what_no_repetition_heals_fails_at_once(status: int) -> None:
    async with receiver(code(status)) as target:
        assert (await actor(target, Clock()).act(INTENT)).result == "failed"
    assert len(target.received) == 1


async def test_an_endpoint_that_is_gone_is_not_called_again() -> None:
    async with receiver(code(410)) as target:
        gone = actor(target, Clock())
        assert (await gone.act(INTENT)).result == "failed"
        assert (await gone.act(INTENT)).result == "failed"
    assert len(target.received) == 1


async def test_an_intent_expires_fifteen_minutes_after_its_grant() -> None:
    async with receiver(*[code(503) for _ in range(100)]) as target:
        clock = Clock()
        outcome = await actor(target, clock).act(INTENT)
    assert outcome.result == "expired"
    assert "answered 503" in outcome.words
    assert INTENT_LIVES_S < clock.now_s - NOW_S < INTENT_LIVES_S + 61
    assert len(target.received) < 40


async def test_an_old_intent_is_never_sent() -> None:
    async with receiver() as target:
        clock = Clock()
        clock.now_s += INTENT_LIVES_S + 1
        assert (await actor(target, clock).act(INTENT)).result == "expired"
    assert target.received == []


async def test_the_kill_switch_is_asked_before_every_attempt() -> None:
    async with receiver(code(503)) as target:
        clock = Clock()
        reasons = iter(["", "the file exists"])
        webhook = WebhookAdapter(Poster(endpoint(target.url), 1, 2))
        killable = Acting(webhook, lambda: next(reasons), lambda: NOW_S, clock.sleep)
        outcome = await killable.act(INTENT)
    assert outcome.words == "stopped: the file exists"
    assert len(target.received) == 1


async def test_a_pause_that_the_target_asks_for_does_not_outlast_the_intent() -> None:
    async with receiver(code(429, Retry_After="86400")) as target:
        clock = Clock()
        assert (await actor(target, clock).act(INTENT)).result == "expired"
    assert clock.now_s - NOW_S < INTENT_LIVES_S + 2


async def test_what_the_adapter_has_no_row_for_is_never_sent() -> None:
    async with receiver() as target:
        webhook = WebhookAdapter(Poster(endpoint(target.url), 1, 2), rungs=("revoke",))
        acting = Acting(webhook, str, lambda: NOW_S)
        fence = await acting.act(dataclasses.replace(INTENT, rung="fence"))
        undo = await acting.act(dataclasses.replace(INTENT, direction="undo"))
    assert (fence.result, undo.result) == ("failed", "failed")
    assert (fence.words, undo.words) == ("webhook cannot fence", "webhook cannot undo revoke")
    assert target.received == []


@pytest.mark.parametrize(("new_key_id", "ours"), [("k2", True), ("k1", False), ("", False)])
async def test_an_old_key_is_ours_to_end_only_where_the_new_one_has_another_id(new_key_id: str, ours: bool) -> None:
    async with receiver(web.json_response({"status": "done", "new_key_id": new_key_id})) as target:
        outcome = await actor(target, Clock()).act(dataclasses.replace(INTENT, rung="rotate"))
    assert (outcome.result, outcome.new_key_id, outcome.ends_old) == ("done", new_key_id, ours)


async def test_a_null_actor_sends_nothing() -> None:
    assert (await NullActor().act(INTENT)).result == "failed"


def test_ids_bind_the_act_to_key_version_and_incident() -> None:
    assert len({act_id("k1", 1), act_id("k1", 2), act_id("k2", 1), act_id("k1", 1, "suspend")}) == 4
    assert len({response_id(i, "revoke", v) for i in ("i1", "i2") for v in (1, 2)}) == 4
    assert len(act_id("k1", 1)) == 64
