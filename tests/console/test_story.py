"""The night shift's story in a real Chromium, with a responder and a gateway at work: see, approve, undo, stop."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pipeline.config.tree import Config, Respond
from pipeline.console import app
from pipeline.console.board import Board, Kept, Link
from pipeline.respond.audit import rows
from pipeline.respond.desk import Desk
from pipeline.sinks.clickhouse import ClickHouseSink
from tests.console import browser
from tests.console.filled import INCIDENT, KEY, TOKENS, config, fill
from tests.console.serving import SHOTS, served
from tests.console.waiting import RESPONDER, unread
from tests.pipeline.respond.incidents import key
from tests.pipeline.respond.lives import POLICY, RULES, Lives, Process, live
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.test_handle import RESPONSES, Catalogue

pytestmark = [
    pytest.mark.skipif(browser.may_be_skipped(), reason="chromium (Debian) is not installed"),
    pytest.mark.timeout(300),
]
INCIDENT_PAGE = f"/incidents/{INCIDENT.incident_id}"


def world_of(*keys: str, protected: bool) -> Lives:
    declared = {name: key(name, protected=protected, owner=f"owner-{name}") for name in keys}
    return Lives(catalogue=Catalogue(declared), approvers=(RESPONDER.approver,))


@dataclass
class Place:
    """A console, a responder at work behind it, and the gateway that obeys it."""

    world: Lives
    settings: Config
    console: str = ""
    gateway: str = ""
    process: list[Process] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Kept]:
        """A responder begins its life, and the console follows its topic."""
        process = Process(self.world, "a", frozenset((0, 1)), Fuse(), 0.0)
        await process.decisions.start()
        await process.handle(0)
        process.caretaker.start()
        self.process.append(process)
        try:
            yield Board(Desk(process.decisions, "console")), asyncio.Event().wait  # type: ignore[misc]
        finally:
            await process.caretaker.close()
            await process.decisions.close()

    async def refuse_or_answer(self, request: Request) -> PlainTextResponse:
        """The API behind the gateway."""
        held = (request.headers.get("x-api-key", ""), "suspend") in self.world.gateway.set_on
        return PlainTextResponse("suspended" if held else "ok", 403 if held else 200)

    def use(self) -> int:
        """The status that somebody gets who uses the key now."""
        return httpx2.get(self.gateway, headers={"x-api-key": KEY}).status_code

    def work(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Let this happen where the responder runs."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(doing, self.loop).result(60)

    async def load_audit(self) -> None:
        """`api.responses` into ClickHouse, as the responder's loader does."""
        sink = ClickHouseSink(self.settings.clickhouse)
        await sink.write("responses", rows(self.world.log.topics[RESPONSES]))
        await sink.close()


@contextmanager
def place(world: Lives, address: str, database: str) -> Iterator[Place]:
    settings = msgspec.structs.replace(config(address, database), respond=Respond(policy=POLICY, rules=RULES))
    fill(settings.clickhouse)
    found = Place(world, settings)
    gateway = Starlette(routes=[Route("/", found.refuse_or_answer)])
    with (
        served(gateway) as (found.gateway, _),
        served(app.make_app(settings, link=Link(found.connect), of_keys=unread())) as (
            found.console,
            found.loop,
        ),
    ):
        yield found


def test_open_understand_approve_see_the_key_refused_and_undo(front: str, tmp_path: Path) -> None:
    world = world_of(KEY, protected=True)
    world.open(KEY, incident_id=INCIDENT.incident_id)
    raw = RESPONDER.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    (tmp_path / "responder.key").write_bytes(base64.b64encode(raw) + b"\n")
    with place(world, front, "keywatch_story") as found:
        asyncio.run(_story(found, tmp_path))
    assert [effect.intent.direction for effect in world.gateway.effects] == ["apply", "undo"]
    stages = [(line.direction, line.stage, line.verdict) for line in world.lines()]
    assert stages[:2] == [("apply", "decided", "waiting"), ("apply", "decided", "allowed")]
    assert stages[-1] == ("undo", "done", "allowed")
    assert world.lines()[-1].by == "responder"


async def _story(found: Place, folder: Path) -> None:
    address = found.console + INCIDENT_PAGE
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(found.console, TOKENS["responder"])
        await page.press(f"a[href='{INCIDENT_PAGE}']")
        told = await page.until(address, "waits for 1 approval")
        for words in (
            "412 requests; usual 3 to 21",
            "Requests an hour",
            "Hours of the week",
            "AS64500",
            "What was found",
        ):
            assert words in told, words
        assert found.use() == 200
        await page.look(1200, "light", SHOTS / "story-1-waits.png")
        await page.choose_file("input.key", folder / "responder.key")
        await page.send("form[data-yes] button[value=yes]")
        assert "1 of 1 approved" in await page.do("document.querySelector('.said').innerText")
        await page.until(address, "is in force since")
        await found.load_audit()
        told = await page.until(address, "approved by responder")
        assert "done: suspend allowed" in told
        assert found.use() == 403
        await page.look(1200, "light", SHOTS / "story-2-in-force.png")
        await page.write("form[action='/undo'] input[name=reason]", "it was our new warehouse")
        await page.send("form[action='/undo'] button")
        assert "being undone" in await page.do("document.querySelector('.said').innerText")
        while "is in force since" in await page.do("document.body.innerText"):
            await page.go(address)
        assert found.use() == 200
        await found.load_audit()
        await page.until(address, "it was our new warehouse")
        await page.look(390, "dark", SHOTS / "story-3-undone.png")
        assert page.troubles == []


def test_the_switches_are_obeyed_at_once_and_after_a_restart(front: str, tmp_path: Path) -> None:
    world = world_of("k0", "k2", "k4", "k6", protected=False)
    with place(world, front, "keywatch_switches") as found:
        asyncio.run(_switches(found, tmp_path))
    assert {effect.intent.key_id for effect in world.gateway.effects} == {"k0"}
    verdicts = {line.key_id: line.verdict for line in world.lines() if line.stage == "decided" and not line.switch}
    assert {"simulate", "stop"} <= {line.switch for line in world.lines()}, "who said so stands in the audit"
    assert verdicts == {"k0": "allowed", "k2": "simulated", "k4": "simulated", "k6": "refused"}


async def _switches(found: Place, folder: Path) -> None:
    address, world = f"{found.console}/policy", found.world
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(found.console, TOKENS["admin"])
        await page.until(address, "Simulate: off")
        world.open("k0")
        found.work(found.process[0].handle(0))
        await _turn(page, address, "/simulate", "trying new rules")
        told = await page.until(address, "Simulate: on")
        assert "put to simulate by admin: trying new rules" in told
        await page.look(1200, "light", SHOTS / "policy-simulate.png")
        world.open("k2")
        found.work(found.process[0].handle(0))
        world.open("k4")
        found.work(live(world, name="after-a-restart"))
        await _turn(page, address, "/switch", "wrong keys")
        assert "stopped by admin: wrong keys" in await page.until(address, "Kill switch: on")
        await page.look(390, "light", SHOTS / "policy-stopped.png")
        world.open("k6")
        found.work(live(world, name="after-another"))
        assert page.troubles == []


async def _turn(page: browser.Page, address: str, form: str, reason: str) -> None:
    await page.go(address)
    await page.write(f"form[action='{form}'] input[name=reason]", reason)
    await page.send(f"form[action='{form}'] button[value=yes]")
