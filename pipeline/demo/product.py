"""Keywatch itself in the demo: database, worker, responder, console as processes of their own, as in production."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from pipeline.config.tree import ClickHouse
from pipeline.demo.children import Child, Children
from pipeline.errors import Fatal
from pipeline.migrate import migrate

START_S: Final = 240.0
"""How long a process may take until it is ready; compiling the detectors for the first time takes most of it."""
POLL_S: Final = 0.25
Tell = Callable[[int], None]


async def start_database(children: Children) -> str:
    """Start the ClickHouse front on an empty folder, make the tables; returns its URL. Raises `Fatal`, `Retry`."""
    folder = children.folder / "clickhouse"
    command = [sys.executable, "-m", "pipeline.sinks.chdb_front", "--path", str(folder), "--port", "0"]
    url = await start_front(children, "clickhouse", command)
    await asyncio.to_thread(migrate, ClickHouse(url=url))
    return url


async def start_front(children: Children, name: str, command: Sequence[str]) -> str:
    """Start a server that prints `{"url": ...}` when it answers; returns it. Raises `Fatal`."""
    child = await children.start(name, command)
    return await _until(children, lambda: _printed_url(child), f"{name} says nothing")


def _printed_url(child: Child) -> str:
    for line in child.log.read_text(errors="replace").splitlines():
        if line.startswith("{") and '"url"' in line:
            return str(json.loads(line)["url"])
    return ""


async def start_keywatch(children: Children, config: Path, *commands: str) -> None:
    """Start these of worker, respond and console; they are not ready yet."""
    for command in commands:
        await children.start(command, [sys.executable, "-m", "pipeline.cli.main", command, "--config", str(config)])


async def wait_until_ready(session: aiohttp.ClientSession, children: Children, port: int, name: str) -> None:
    """Return when /readyz of that metrics port answers 200. Raises `Fatal`."""
    deadline = asyncio.get_running_loop().time() + START_S
    while not await _answers(session, f"http://127.0.0.1:{port}/readyz"):
        children.check()
        if asyncio.get_running_loop().time() > deadline:
            raise Fatal(f"{name} is not ready after {START_S:.0f} s")
        await asyncio.sleep(POLL_S)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _until(children: Children, ask: Callable[[], str], complaint: str) -> str:
    deadline = asyncio.get_running_loop().time() + START_S
    while not (answer := ask()):
        children.check()
        if asyncio.get_running_loop().time() > deadline:
            raise Fatal(f"{complaint} after {START_S:.0f} s")
        await asyncio.sleep(0.05)
    return answer


async def wait_for_rows(session: aiohttp.ClientSession, url: str, rows: int, timeout_s: float, tell: Tell) -> None:
    """Return when ClickHouse has that many requests; `tell` hears each new count. Raises `Fatal`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    seen = -1
    while (count := await _count(session, url)) < rows:
        if count != seen:
            tell(count)
        seen = count
        if asyncio.get_running_loop().time() > deadline:
            raise Fatal(f"the worker wrote {count} of {rows} requests in {timeout_s:.0f} s")
        await asyncio.sleep(POLL_S)


async def _count(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url, data="SELECT count() FROM keywatch.requests FORMAT TabSeparated") as response:
        text = await response.text()
    if response.status != 200:
        raise Fatal(f"ClickHouse: {text[:200]}")
    return int(text)
