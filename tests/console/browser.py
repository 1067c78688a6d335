"""A real Chromium, headless, told what to do over its own protocol: no driver, no library of its own."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

WAIT_S = 30.0
SETTLING = """
window.settled = new Promise((done) => document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.requestConfig.elt.id !== "live") done(1);
}));
0
"""
"""`window.settled`: until an answer is in the page that is none of a live part's own."""


def chromium() -> str | None:
    """The program, where Debian's package is installed."""
    return shutil.which("chromium")


def may_be_skipped() -> bool:
    """Whether the tests in it are left out: never in CI, which installs it, where they fail without."""
    return chromium() is None and os.environ.get("CI") != "true"


@dataclass
class Page:
    """One tab. `troubles`: exceptions, violations of the content security policy and errors on its console."""

    socket: aiohttp.ClientWebSocketResponse
    troubles: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)  # bodies that were sent
    loaded: int = 0
    _number: int = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        await self.socket.send_json({"id": self._number, "method": method, "params": params})
        while (said := await self._hear()).get("id") != self._number:
            pass
        assert "error" not in said, said
        return dict(said["result"])

    async def _hear(self) -> dict[str, Any]:
        said: dict[str, Any] = await asyncio.wait_for(self.socket.receive_json(), WAIT_S)
        match said.get("method"):
            case "Page.loadEventFired":
                self.loaded += 1
            case "Network.requestWillBeSent" if said["params"]["request"].get("postData"):
                self.posted.append(said["params"]["request"]["postData"])
            case "Runtime.exceptionThrown":
                self.troubles.append(str(said["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["params"]["type"] in ("error", "assert"):
                self.troubles.append(str(said["params"]["args"]))
            case "Log.entryAdded" if said["params"]["entry"]["level"] == "error":
                self.troubles.append(said["params"]["entry"]["text"])
        return said

    async def go(self, url: str) -> None:
        """Open it, until it is loaded."""
        before = self.loaded
        await self.call("Page.navigate", url=url)
        await self._until_loaded(before)

    async def do(self, script: str) -> Any:
        """The value of an expression."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, selector: str) -> None:
        """Focus it and press Enter, as somebody without a mouse does; the page that follows is loaded then."""
        before = self.loaded
        await self._enter(selector)
        await self._until_loaded(before)

    async def send(self, selector: str) -> None:
        """As `press`, where htmx puts the answer into this page."""
        await self.do(SETTLING)
        await self._enter(selector)
        await self.do("window.settled")

    async def back(self) -> None:
        """By the browser's own button."""
        before = self.loaded
        await self.do("history.back()")
        await self._until_loaded(before)

    async def key(self, name: str) -> None:
        """One key of the keyboard, where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    async def _enter(self, selector: str) -> None:
        await self.do(f"document.querySelector({selector!r}).focus()")
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                            windowsVirtualKeyCode=13)  # fmt: skip

    async def write(self, selector: str, text: str) -> None:
        """Type into a field."""
        await self.do(f"document.querySelector({selector!r}).focus()")
        await self.call("Input.insertText", text=text)

    async def sign_in(self, address: str, token: str) -> None:
        """On the sign-in page of the console at this address, as people do."""
        await self.go(address)
        await self.write("#token", token)
        await self.press("form.box button")

    async def until(self, url: str, words: str) -> str:
        """Load the page again until it says so; its text. Raises TimeoutError."""
        async with asyncio.timeout(WAIT_S):
            while words not in (text := str(await self.do("document.body.innerText"))):
                await self.go(url)
        return text

    async def choose_file(self, selector: str, path: Path) -> None:
        """As in the dialogue of a file's field, which has the focus: else a live part may take another in its place."""
        await self.do(f"document.querySelector({selector!r}).focus()")
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    async def look(self, width: int, scheme: str, path: Path) -> None:
        """As wide as this, light or dark; the picture goes to `path`."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                        mobile=width < 500)  # fmt: skip
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def _until_loaded(self, before: int) -> None:
        while self.loaded == before:
            await self._hear()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Page]:
    """A browser with a profile of its own, ended at the end."""
    program = chromium()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
        f"--user-data-dir={folder}", "about:blank", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        place = await asyncio.wait_for(_place(process), WAIT_S)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{place}/json") as answer:
                [tab] = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                await page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as a window in front
                yield page
    finally:
        process.kill()
        await process.wait()


async def _place(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if found := re.search(rb"ws://(127\.0\.0\.1:\d+)/", line):
            return found.group(1).decode()
    raise AssertionError("Chromium has ended")
