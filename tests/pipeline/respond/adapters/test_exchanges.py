"""Exchanges written down from the vendors' documentation: each request is exactly theirs, each answer is understood."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from aiohttp import web

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome
from pipeline.respond.adapters.peer import mark
from tests.pipeline.respond.adapters.peers import Fake, Running, running
from tests.pipeline.respond.adapters.test_contract import FAKES, intent, noting, undo

FOLDER = Path(__file__).parent / "exchanges"
EXCHANGES = sorted(path.stem for path in FOLDER.glob("*.json"))
"""`<adapter>-<rung>`."""


class Recording:
    """Answers what is written down, in its order, and keeps what did not match."""

    def __init__(self, name: str) -> None:
        self.script: dict[str, Any] = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())
        self.left = list(self.script["exchanges"])
        self.wrong: list[str] = []
        self.mark = ""

    def intent(self, fake: Fake) -> Intent:
        """The act that was written down."""
        asked = intent(fake, self.script["rung"])
        return dataclasses.replace(
            asked, key_id=self.script["key_id"], scopes=tuple(self.script.get("scopes", asked.scopes))
        )

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


@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_documented_exchange_is_what_the_adapter_says_and_understands(name: str) -> None:
    fake, recording = FAKES[name.split("-")[0]](), Recording(name)
    asked = recording.intent(fake)
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


@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_fake_answers_in_the_documented_shape(name: str) -> None:
    """To every documented request: with the documented status, and every field that both have has one type."""
    fake, recording = FAKES[name.split("-")[0]](), Recording(name)
    asked = dataclasses.replace(recording.intent(fake), key_id=fake.key_id)
    async with running(fake.routes()) as server:
        first = await noting(fake.adapter(server.url), asked)
        assert isinstance(first, Outcome)
        if fake.adapter(server.url).matrix[asked.rung].undo:  # again, with what is made once for good
            await noting(fake.adapter(server.url), undo(asked, first))
            await noting(fake.adapter(server.url), asked)
    own = answers(server, fake.key_id, recording.script["key_id"])
    for exchange in recording.script["exchanges"]:
        documented = exchange["response"]
        given = own.get((*asked_for(exchange["request"]), documented["status"]), [])
        assert given, f"the fake never answers {exchange['request']} with {documented['status']}"
        shown = tree(documented["text"]) if "text" in documented else documented["body"]
        for body in given:
            assert list(differences(shown, tree(body) if "text" in documented else msgspec.json.decode(body))) == []


@pytest.mark.parametrize(
    ("documented", "given", "wrong"),
    [({"id": 1}, {"id": "1"}, ["id"]), ({"id": 1}, {"id": 1.5}, []), ({"on": True}, {"on": 1}, ["on"]),
     ({"tags": None}, {"tags": ["a"]}, []), ({"in": [{"a": 1}]}, {"in": [{"a": 2}, {"a": []}]}, ["in.a"]),
     ({"in": {"a": 1}}, {"in": [1]}, ["in"]), ({}, {"more": 1}, [])],
)  # fmt: skip
def test_another_type_is_a_difference(documented: Any, given: Any, wrong: list[str]) -> None:
    assert list(differences(documented, given)) == wrong


def asked_for(request: dict[str, Any]) -> tuple[str, str, str]:
    """(method, path, IAM's action) by which requests are the same; ids that the fake has others of are left out."""
    path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", request["path"])
    return request["method"], path, request.get("form", "").split("&")[0]


def answers(server: Running, key_id: str, documented: str) -> dict[tuple[str, str, str, int], list[str]]:
    """By request and status: the bodies that the fake sent."""
    found: dict[tuple[str, str, str, int], list[str]] = {}
    for (method, path, headers, body), answer in zip(server.requests, server.answers, strict=True):
        form = body.decode() if "form-urlencoded" in headers.get("Content-Type", "") else ""
        request = {"method": method, "path": path.replace(key_id, documented), "form": form}
        found.setdefault((*asked_for(request), answer.status), []).append(answer.text or "null")
    return found


def differences(documented: Any, given: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values have not the same type; null is of any, and what only one of them has is not compared."""
    if documented is None or given is None:
        return
    if kind(documented) is not kind(given):
        yield place
    elif isinstance(documented, dict):
        for name in documented.keys() & given.keys():
            yield from differences(documented[name], given[name], f"{place}.{name}".lstrip("."))
    elif isinstance(documented, list) and documented:
        for each in given:
            yield from differences(documented[0], each, place)


def kind(value: Any) -> type:
    """JSON's: there is one kind of number."""
    return float if type(value) is int else type(value)


def tree(text: str) -> Any:
    """XML as JSON would be: elements by name without their namespace, repeated ones as a list, texts at the leaves."""

    def plain(element: ElementTree.Element) -> Any:
        if not len(element):
            return element.text or ""
        found: dict[str, Any] = {}
        for each in element:
            name = each.tag.split("}")[-1]
            found[name] = [*found.get(name, []), plain(each)] if name == "member" else plain(each)
        return found

    root = ElementTree.fromstring(text)
    return {root.tag.split("}")[-1]: plain(root)}
