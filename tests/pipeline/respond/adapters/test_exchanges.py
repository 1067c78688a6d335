"""Exchanges written down from the vendors' documentation: each request is exactly theirs, each answer is understood."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from pipeline.respond.adapters.adapter import NoteFirst, Outcome
from pipeline.respond.adapters.peer import mark
from tests.pipeline.respond.adapters.peers import running
from tests.pipeline.respond.adapters.test_contract import FAKES, intent, noting

FOLDER = Path(__file__).parent / "exchanges"


class Recording:
    """Answers what is written down, in its order, and keeps what did not match."""

    def __init__(self, name: str) -> None:
        self.script: dict[str, Any] = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())
        self.left = list(self.script["exchanges"])
        self.wrong: list[str] = []
        self.mark = ""

    async def play(self, request: web.Request) -> web.Response:
        wanted, answer = self.left[0]["request"], self.left[0]["response"]
        body = await request.read()
        sent: dict[str, Any] = {"method": request.method, "path": request.path_qs}
        if request.content_type == "application/x-www-form-urlencoded":
            sent["form"] = body.decode()
        elif body:
            sent["body"] = msgspec.json.decode(body.replace(self.mark.encode(), b"$MARK"))
        if sent != wanted:
            self.wrong.append(f"{sent} instead of {wanted}")
            return web.Response(status=418)
        self.left.pop(0)
        text = answer.get("text") or msgspec.json.encode(answer["body"]).decode()
        return web.Response(status=answer["status"], text=text, content_type="application/json")


@pytest.mark.parametrize("name", FAKES)
async def test_the_documented_exchange_is_what_the_adapter_says_and_understands(name: str) -> None:
    fake, recording = FAKES[name](), Recording(name)
    asked = dataclasses.replace(
        intent(fake, recording.script["rung"]), key_id=recording.script["key_id"], direction="apply"
    )
    recording.mark = mark(asked)
    async with running([web.route("*", "/{path:.*}", recording.play)]) as server:
        outcome = await fake.adapter(server.url).attempt(asked)
        if isinstance(outcome, NoteFirst):  # the next attempt begins anew
            recording.left = list(recording.script["exchanges"])
            outcome = await fake.adapter(server.url).attempt(dataclasses.replace(asked, before=outcome.before))
    assert recording.wrong == []
    assert recording.left == []
    assert isinstance(outcome, Outcome)
    assert outcome.result == recording.script["result"]


@pytest.mark.parametrize("name", FAKES)
async def test_the_fake_answers_in_the_documented_shape(name: str) -> None:
    """Of what is read: every documented field that the fake has is of the documented type."""
    fake, recording = FAKES[name](), Recording(name)
    key_id = recording.script["key_id"]
    compared = 0
    async with running(fake.routes()) as server:
        await noting(fake.adapter(server.url), intent(fake, "suspend"))
        own = {(method, path.replace(fake.key_id, key_id)) for method, path, _, _ in server.requests}
    for exchange in recording.script["exchanges"]:
        wanted = exchange["request"]
        if "/plugins/" in wanted["path"]:
            continue  # a plug-in's id follows from its consumer's
        assert (wanted["method"], wanted["path"]) in own
        compared += 1
    assert compared >= 2
