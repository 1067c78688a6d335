"""The console in a real Chromium: signed in, read, understood and used by keyboard alone; on a phone, in the dark."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.config.tree import Config
from pipeline.console import acts, app, board
from pipeline.respond.desk import Desk
from pipeline.respond.ledger.decisions import Decisions
from schemas.control import Control, Feedback
from tests.console import browser
from tests.console.filled import INCIDENT, KEY, TOKENS, config, fill
from tests.console.known import DECLARED, known
from tests.console.looks import CONTRAST, FAULTS, FOCUS, TOO_WIDE
from tests.console.serving import SHOTS, served
from tests.console.waiting import RESPONDER, in_memory, propose

pytestmark = [
    pytest.mark.skipif(browser.may_be_skipped(), reason="chromium (Debian) is not installed"),
    pytest.mark.timeout(300),
]

RENEWED = """
new Promise((done) => {
  const look = () => document.querySelector("#live").innerText === "old" ? setTimeout(look, 50) : done(1);
  look();
})
"""
LEFT_ALONE = """
new Promise((done) => {
  addEventListener("htmx:beforeRequest", (event) => done(event.defaultPrevented), { once: true });
  document.dispatchEvent(new Event("visibilitychange"));
})
"""
"""Whether the live part, asked to renew itself now, left everything as it was."""
USES = {
    "read": ("0", False),
    "selected": ("getSelection().selectAllChildren(document.querySelector('h1')); 0", True),
    "let go": ("getSelection().empty(); 0", False),
    "focused": ("document.querySelector('#live a').focus()", True),
    "left": ("document.activeElement.blur()", False),
    "asked for a file": ("document.querySelector('#live input.key').click()", True),
    "done with it": ("document.activeElement.blur()", False),
    "typed into": ("document.querySelector('#live input[name=reason]').value = 'a thief'; 0", True),
}
"""What somebody does with the page: the script for it, and whether the live part is left alone then."""


@pytest.fixture(scope="module")
def settings(front: str) -> Config:
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
        try:
            await propose(made[0])
            yield board.Board(Desk(made[0], "console")), asyncio.Event().wait  # type: ignore[misc]
        finally:
            await made[0].close()

    monkeypatch.setattr(board, "connected", connected)
    return made


@pytest.fixture
def address(settings: Config, decisions: list[Decisions]) -> Iterator[str]:
    with served(app.make_app(settings, of_keys=known(DECLARED))) as (found, _):
        yield found


def test_the_night_shift_finds_reads_and_judges_an_incident_by_keyboard(
    address: str, said: list[Control], tmp_path: Path
) -> None:
    asyncio.run(_shift(address, tmp_path))
    [word] = said
    assert isinstance(word, Feedback)
    assert (word.verdict, word.reason, word.incident_id) == ("malicious", "not our region", INCIDENT.incident_id)


async def _shift(address: str, folder: Path) -> None:
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(address, TOKENS["responder"])
        assert KEY in await page.do("document.body.innerText")
        await page.press(f"a[href='/incidents/{INCIDENT.incident_id}']")
        assert await page.do("document.querySelectorAll('svg').length") >= 3
        assert await page.do("[...document.scripts].every((each) => each.src.startsWith(location.origin + '/static/'))")
        for path in (f"/incidents/{INCIDENT.incident_id}", "/", "/keys", f"/keys/{KEY}", f"/manifest/{KEY}", "/policy"):
            await page.go(address + path)
            for width, scheme in ((1200, "light"), (1200, "dark"), (390, "dark")):
                shot = f"{path.strip('/').partition('/')[0] or 'list'}{'-one' if path.count('/') > 1 else ''}"
                await page.look(width, scheme, SHOTS / f"{shot}-{width}-{scheme}.png")
                assert await page.do(TOO_WIDE) <= 0, (path, width)
                assert await page.do(CONTRAST) == [], (path, scheme)
            assert await page.do(FAULTS) == [], path
            assert await page.do(FOCUS) == [], path
        await page.go(f"{address}/incidents/{INCIDENT.incident_id}")
        form = "form:has(button[value=malicious])"
        await page.write(f"{form} input[name=reason]", "not our region")
        loaded = page.loaded
        await page.send(f"{form} button")
        assert "said: malicious" in await page.do("document.activeElement.innerText"), "the answer has the focus"
        assert page.loaded == loaded, "without another page"
        assert await page.do("document.querySelectorAll('.uplot').length") == 1
        assert page.troubles == []
    assert (SHOTS / "list-390-dark.png").stat().st_size > 5_000


def test_the_list_renews_itself_and_reads_without_javascript(address: str, tmp_path: Path) -> None:
    asyncio.run(_renewed(address, tmp_path))


async def _renewed(address: str, folder: Path) -> None:
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(address, TOKENS["viewer"])
        await page.do("document.activeElement.blur(); document.querySelector('#live').innerHTML = 'old'")
        assert await asyncio.wait_for(page.do(RENEWED), 20) == 1
        assert KEY in await page.do("document.querySelector('#live').innerText")
        await page.call("Emulation.setScriptExecutionDisabled", value=True)
        await page.go(f"{address}/keys/{KEY}")
        await page.call("Emulation.setScriptExecutionDisabled", value=False)
        assert KEY in await page.do("document.body.innerText")
        assert await page.do("document.querySelector('.plot svg').checkVisibility()")
        assert page.troubles == []


def test_a_live_part_is_left_alone_while_somebody_uses_it(address: str, tmp_path: Path) -> None:
    found = asyncio.run(_left_alone(address, tmp_path))
    assert found == {name: alone for name, (_, alone) in USES.items()}


async def _left_alone(address: str, folder: Path) -> dict[str, bool]:
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(address, TOKENS["responder"])
        await page.go(f"{address}/policy")
        found = {}
        for name, (script, _) in USES.items():
            await page.do(script)
            found[name] = await page.do(LEFT_ALONE)
        return found


def test_lists_and_acts_answer_in_place_and_the_chart_is_read_by_keyboard(address: str, tmp_path: Path) -> None:
    asyncio.run(_in_place(address, tmp_path))


async def _in_place(address: str, folder: Path) -> None:
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(address, TOKENS["responder"])
        await page.go(f"{address}/keys")
        loaded = page.loaded
        await page.send("#live p a")
        assert await page.do("[document.activeElement.id, scrollY]") == ["live", 0], "read on from the top"
        assert "key_055" in await page.do("document.querySelector('#live').innerText")
        await page.do(f"document.querySelector('#said').append('no answer'); {browser.SETTLING}")
        await page.write("input[name=q]", "key_011")
        await page.do("window.settled")
        assert await page.do("document.querySelector('#said').innerText") == "", "an answer came"
        assert await page.do("document.querySelectorAll('#live tbody tr').length") == 1
        assert (await page.do("location.search"), page.loaded) == ("?q=key_011", loaded)
        await page.back()
        assert "key_047" in await page.do("document.body.innerText"), "as it was before the page was turned"
        await _read(page, f"{address}/keys/{KEY}")
        assert page.troubles == []
        await page.go(f"{address}/incidents/{INCIDENT.incident_id}")
        await page.write("form[action='/mute'] input[name=until]", "soon")
        await page.write("form[action='/mute'] input[name=reason]", "load test")
        await page.send("form[action='/mute'] button")
        assert "until" in await page.do("document.activeElement.innerText"), "the refusal has the focus"
        assert await page.do("document.querySelector('form[action=\"/mute\"] input[name=reason]').value") == "load test"


TOLD = """
new Promise((done) => {
  const told = () => document.querySelector("#said .warn")?.innerText;
  const look = () => told() ? done([told(), document.querySelectorAll("#away").length]) : setTimeout(look, 50);
  look();
})
"""
MUTE = "form[action='/mute']"


def test_an_act_that_nobody_answered_says_so(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def broken(_: Config, __: list[Control]) -> list[int]:
        raise RuntimeError("a fault of ours: a plain 500, as a proxy's 502")

    monkeypatch.setattr(acts, "say", broken)
    refused, failed, cut_off = asyncio.run(_unanswered(address, tmp_path))
    assert "until" in refused[0]
    assert failed[0] == cut_off[0] == "No answer came: it may be done or not. Load the page again before you repeat it."
    assert [count for _, count in (refused, failed, cut_off)] == [1, 1, 1], "what says that it is away stands once"


async def _unanswered(address: str, folder: Path) -> list[tuple[str, int]]:
    async with browser.opened(folder / "profile") as page:
        await page.sign_in(address, TOKENS["responder"])
        told = []
        for until, offline in (("soon", False), ("12h", False), ("12h", True)):
            await page.go(f"{address}/incidents/{INCIDENT.incident_id}")
            await page.write(f"{MUTE} input[name=until]", until)
            await page.write(f"{MUTE} input[name=reason]", "load test")
            await page.call("Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1,
                            uploadThroughput=-1)  # fmt: skip
            await page.do(f'document.querySelector("{MUTE}").requestSubmit()')
            told.append(tuple(await asyncio.wait_for(page.do(TOLD), 20)))
        return told


async def _read(page: browser.Page, address: str) -> None:
    """The chart, by arrow keys; zoomed to a day it still tells the same hour."""
    await page.go(address)
    await page.do("document.querySelector('.plot-box').focus()")
    told = {}
    for name in ("End", "ArrowLeft", "PageUp", "Enter", "ArrowRight", "Escape"):
        await page.key(name)
        told[name] = await page.do("document.querySelector('.plot-box').ariaValueText")
    assert told["End"].startswith("Mon 21 Sep")
    assert told["End"].endswith("12:00 UTC: 412 requests, 31 refused or failed")
    assert "11:00 UTC" in told["ArrowLeft"]
    assert told["PageUp"].startswith("Sun 20 Sep")
    assert told["PageUp"] == told["Enter"], "zoomed to a day, on the same hour"
    assert "12:00 UTC" in told["ArrowRight"]
    assert told["ArrowRight"] == told["Escape"]
    await page.look(1200, "dark", SHOTS / "chart-1200-dark.png")


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
        await page.sign_in(address, TOKENS["responder"])
        await page.go(f"{address}/policy")
        await page.choose_file("input.key", key)
        await page.send("form[data-yes] button[value=yes]")
        assert "1 of 1 approved" in await page.do("document.querySelector('.said').innerText")
        assert page.troubles == []
        return unquote_plus(page.posted[-1])
