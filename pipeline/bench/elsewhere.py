"""ClickHouse as if on machines of its own: rows are taken and acknowledged here, all else goes to the real one.

In production ClickHouse has processors of its own; beside a worker on the same two it takes nearly as many of them as
the worker does. What is measured with this is the worker alone, which makes, compresses and sends every row and waits
for its acknowledgement. `python -m pipeline.bench.elsewhere URL` prints `{"url": ...}` and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import web

from pipeline.demo.children import Children
from pipeline.demo.product import start_front

INSERT: Final = "INSERT INTO"
MAX_BODY_BYTES: Final = 1 << 30
LIFE_S: Final = 7_200
_OURS: Final = ("content-length", "transfer-encoding", "connection", "host", "date", "server")


class Elsewhere:
    """What the server answers with."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    async def answer(self, request: web.Request) -> web.Response:
        """An insert is read and acknowledged, as ClickHouse does it after applying; the rest is passed on."""
        body = await request.read()
        if request.query.get("query", "").startswith(INSERT):
            return web.Response(headers={"X-ClickHouse-Summary": "{}"})
        async with self._session.request(
            request.method, self._url + request.path_qs, data=body, headers=_passed(request.headers)
        ) as answer:
            return web.Response(status=answer.status, body=await answer.read(), headers=_passed(answer.headers))


async def start(children: Children, url: str) -> str:
    """Start one before that ClickHouse; returns its URL. Raises `Fatal`."""
    return await start_front(children, "elsewhere", [sys.executable, "-m", "pipeline.bench.elsewhere", url])


def _passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _OURS]


async def serve(url: str) -> None:
    """Until SIGTERM, two hours at most."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", Elsewhere(url, session).answer)
        runner = web.AppRunner(app, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{port}"}) + "\n")
        sys.stdout.flush()
        try:
            await asyncio.wait_for(ended.wait(), LIFE_S)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
