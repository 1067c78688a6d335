"""The console in a real Chromium: signed in, read, understood and used by keyboard alone; on a phone, in the dark."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.config import Config
from pipeline.console import acts, app, board
from pipeline.respond.decisions import Decisions
from pipeline.respond.desk import Desk
from schemas.control import Control, Feedback
from tests.clickhouse_front import front  # noqa: F401
from tests.console import browser
from tests.console.filled import INCIDENT, KEY, TOKENS, config, fill
from tests.console.waiting import RESPONDER, in_memory, propose

pytestmark = [
    pytest.mark.skipif(browser.chromium() is None, reason="chromium (Debian) is not installed"),
    pytest.mark.timeout(180),
]

CONTRAST = """
(() => {
  const part = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * part(c[0] / 255) + 0.7152 * part(c[1] / 255) + 0.0722 * part(c[2] / 255);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("main *, header *, footer")) {
    if (![...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || node.closest("svg, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 80));
  }
  return poor;
})()
"""
FIELDS = "[...document.querySelectorAll('input:not([type=hidden]), select')]"
UNLABELLED = f"{FIELDS}.filter((n) => !n.labels.length).length"
RENEWED = """
new Promise((done) => {
  const look = () => document.querySelector("#live").innerText === "old" ? setTimeout(look, 50) : done(1);
  look();
})
"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def settings(front: str) -> Config:  # noqa: F811
    made = config(front, "keywatch_browser")
    fill(made.clickhouse)
    return made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Control]:
    heard: list[Control] = []

    async def say(_: Config, controls: list[Control]) -> list[int]:
        heard.extend(controls)
        return [0]

    monkeypatch.setattr(acts, "say", say)
    return heard


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[Decisions]:
    """The console's own, once it runs: in memory, with a suspension that waits."""
    made: list[Decisions] = []

    @asynccontextmanager
    async def connected(_: Config) -> AsyncIterator[board.Kept]:
        made.append(in_memory())
        await made[0].start()
        await propose(made[0])
        yield board.Board(Desk(made[0], "console")), asyncio.Event().wait  # type: ignore[misc]
        await made[0].close()

    monkeypatch.setattr(board, "connected", connected)
    return made


@pytest.fixture
def address(settings: Config, decisions: list[Decisions]) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app.make_app(settings), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_night_shift_finds_reads_and_judges_an_incident_by_keyboard(
    address: str, said: list[Control], tmp_path: Path
) -> None:
    asyncio.run(_shift(address, tmp_path))
    [word] = said
    assert isinstance(word, Feedback)
    assert (word.verdict, word.reason, word.incident_id) == ("malicious", "not our region", INCIDENT.incident_id)


async def _shift(address: str, folder: Path) -> None:
    async with browser.opened(folder / "profile") as page:
        await page.go(address)
        await page.write("#token", TOKENS["responder"])
        await page.press("form.box button")
        assert KEY in await page.do("document.body.innerText")
        await page.press(f"a[href='/incidents/{INCIDENT.incident_id}']")
        assert await page.do("document.querySelectorAll('svg').length") >= 3
        assert await page.do("document.querySelectorAll('script').length") == 1, "only ours"
        for path in (f"/incidents/{INCIDENT.incident_id}", "/", "/keys", f"/keys/{KEY}", "/policy"):
            await page.go(address + path)
            for width, scheme in ((1200, "light"), (390, "dark")):
                await page.look(width, scheme, folder / f"{path.strip('/').replace('/', '-') or 'list'}-{width}.png")
                assert await page.do(TOO_WIDE) <= 0, (path, width)
                assert await page.do(CONTRAST) == [], (path, scheme)
            assert await page.do(UNLABELLED) == 0, path
        await page.go(f"{address}/incidents/{INCIDENT.incident_id}")
        form = "form:has(button[value=malicious])"
        await page.write(f"{form} input[name=reason]", "not our region")
        await page.press(f"{form} button")
        assert "said: malicious" in await page.do("document.querySelector('.said').innerText")
        assert page.troubles == []
    assert (folder / "list-390.png").stat().st_size > 5_000


def test_the_list_renews_itself_and_reads_without_javascript(address: str, tmp_path: Path) -> None:
    asyncio.run(_renewed(address, tmp_path))


async def _renewed(address: str, folder: Path) -> None:
    async with browser.opened(folder / "profile") as page:
        await page.go(address)
        await page.write("#token", TOKENS["viewer"])
        await page.press("form.box button")
        await page.do("document.activeElement.blur(); document.querySelector('#live').innerHTML = 'old'")
        assert await asyncio.wait_for(page.do(RENEWED), 20) == 1
        assert KEY in await page.do("document.querySelector('#live').innerText")
        await page.call("Emulation.setScriptExecutionDisabled", value=True)
        await page.go(address)
        await page.call("Emulation.setScriptExecutionDisabled", value=False)
        assert KEY in await page.do("document.body.innerText")
        assert page.troubles == []


def test_an_approval_is_signed_in_the_browser_and_the_key_stays_there(
    address: str, decisions: list[Decisions], tmp_path: Path
) -> None:
    raw = RESPONDER.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    key = tmp_path / "responder.key"
    key.write_bytes(base64.b64encode(raw) + b"\n")
    sent = asyncio.run(_approved(address, key, tmp_path))
    (act,) = decisions[0].ledger.acts.values()
    assert (act.stage, act.approved_by) == ("open", ("responder",))
    assert act.words_said["responder"].signature in sent
    assert base64.b64encode(raw).decode() not in sent


async def _approved(address: str, key: Path, folder: Path) -> str:
    """What the browser sent for it."""
    async with browser.opened(folder / "profile") as page:
        await page.go(address)
        await page.write("#token", TOKENS["responder"])
        await page.press("form.box button")
        await page.go(f"{address}/policy")
        await page.choose_file("input.key", key)
        await page.press("form[data-yes] button[value=yes]")
        assert "1 of 1 approved" in await page.do("document.querySelector('.said').innerText")
        assert page.troubles == []
        return unquote_plus(page.posted[-1])
