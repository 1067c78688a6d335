"""The documented contract of the generic adapter, message by message and answer by answer."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from aiohttp import web

from pipeline.respond.act import act_id
from pipeline.respond.adapters.adapter import Intent, Outcome, TryAgain
from pipeline.respond.adapters.webhook import MAX_BEFORE, WebhookAdapter
from pipeline.respond.audit import rfc3339
from pipeline.respond.delivery.webhook import Poster
from schemas.incident import Rung
from tests.pipeline.respond.incidents import NOW_S, endpoint
from tests.pipeline.respond.receiver import code, receiver, said

FENCE = Intent(
    act_id=act_id("k1", 1, "fence"), response_id="r1", incident_id="i1", key_id="k1", key_version=1,
    granted_at=rfc3339(NOW_S), granted_at_s=NOW_S, reason="k1 is odd", rung="fence", until_s=NOW_S + 3600,
    networks=("192.0.2.0/24",),
)  # fmt: skip


async def answer_to(wanted: Intent, *answers: web.Response) -> Outcome | TryAgain:
    async with receiver(*answers) as target:
        return await WebhookAdapter(Poster(endpoint(target.url), 1, 2)).attempt(wanted)


def answers(**fields: str) -> web.Response:
    return web.Response(body=msgspec.json.encode(fields), content_type="application/json")


async def test_a_fence_says_from_where_the_key_goes_on_working_and_until_when() -> None:
    async with receiver() as target:
        await WebhookAdapter(Poster(endpoint(target.url), 1, 2)).attempt(FENCE)
    received = target.received[0]
    assert received.message["type"] == "key.fence"
    assert received.message["data"] == {
        "key_id": "k1", "key_version": 1, "incident_id": "i1", "response_id": "r1", "rung": "fence",
        "reason": "k1 is odd", "networks": ["192.0.2.0/24"], "until": rfc3339(NOW_S + 3600),
    }  # fmt: skip
    assert received.headers["idempotency-key"] == FENCE.act_id


async def test_what_was_before_comes_back_with_the_undo_under_an_id_of_its_own() -> None:
    async with receiver(answers(status="done", before="allow:any")) as target:
        adapter = WebhookAdapter(Poster(endpoint(target.url), 1, 2))
        applied = await adapter.attempt(FENCE)
        assert applied == Outcome("done", "done", "done", "allow:any")
        await adapter.attempt(dataclasses.replace(FENCE, direction="undo", before=applied.before))
    first, second = target.received
    assert second.message["type"] == "key.fence.undo"
    assert second.message["data"]["before"] == "allow:any"
    assert (first.message_id, second.message_id) == ("rsp_r1", "rsp_r1_undo")


@pytest.mark.parametrize(("rung", "direction", "done"), [
    ("revoke", "apply", True), ("suspend", "apply", True), ("fence", "apply", False), ("suspend", "undo", False),
])  # fmt: skip
@pytest.mark.parametrize("status", [404, 409])
async def test_gone_or_so_already_is_a_success_only_where_a_key_is_taken_out_of_use(
    rung: Rung, direction: str, done: bool, status: int
) -> None:
    wanted = dataclasses.replace(FENCE, rung=rung, direction=direction)  # type: ignore[arg-type]
    answer = await answer_to(wanted, code(status))
    assert isinstance(answer, Outcome)
    assert (answer.result == "done") == done


async def test_a_new_key_is_named_by_its_public_id() -> None:
    answer = await answer_to(
        dataclasses.replace(FENCE, rung="rotate"), answers(status="scheduled", new_key_id="k2", before="k1")
    )
    assert answer == Outcome("done", "scheduled by the target", "scheduled", "k1", "k2")


async def test_a_refusal_stays_a_refusal_and_too_long_a_before_leaves_no_undo() -> None:
    assert await answer_to(FENCE, said("refused")) == Outcome("failed", "the target refused", "refused")
    long = await answer_to(FENCE, answers(status="done", before="x" * (MAX_BEFORE + 1)))
    assert isinstance(long, Outcome)
    assert (long.result, long.before, "no undo" in long.words) == ("done", "", True)


async def test_an_undo_that_failed_for_now_is_tried_again() -> None:
    answer = await answer_to(dataclasses.replace(FENCE, direction="undo", before="x"), code(429, Retry_After="3"))
    assert answer == TryAgain("answered 429", 3.0)
