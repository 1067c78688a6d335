"""Whether ClickHouse answers at all, asked beside the pages: nobody waits out a time limit for a server that is silent.

A refused connection is told at once; one that is taken and never answered (a hung server, a firewall that drops) only
after `clickhouse.timeout_s`. So `/ping` is asked twice a second on a connection of its own, which no query holds up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from clickhouse_connect.driver.httputil import check_env_proxy

T = TypeVar("T")
EVERY_S: Final = 0.5
WITHIN_S: Final = 0.75
MISSES: Final = 2
"""In a row, so that a moment's stall is none: a silent server is known after 1 to 2.5 s."""


class Reach:
    """Runs on the event loop; `silent` may be read in any thread. `ping` says whether there was an answer in time."""

    def __init__(self, ping: Callable[[], Awaitable[bool]], silent: bool = False) -> None:
        self.silent = silent
        self.ping, self._misses = ping, 0
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            self._misses = 0 if await self.ping() else self._misses + 1
            self.silent = self._misses >= MISSES
            for waiting, misses in self._waiting.items():
                if self._misses >= misses and not waiting.done():
                    waiting.set_result(None)
            await asyncio.sleep(EVERY_S)

    async def outlasts(self, answer: asyncio.Future[T], misses: int = MISSES, patience_s: float | None = None) -> bool:
        """Whether the answer is there before so many looks in a row were missed, or patience ends. It is not cancelled:
        its thread can't be, and what still comes of it is of no interest.
        """
        silence: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.silent:
            silence.set_result(None)
        self._waiting[silence] = misses
        either: set[asyncio.Future[Any]] = {answer, silence}
        try:
            await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._waiting[silence]
        if not answer.done():
            answer.add_done_callback(lambda late: late.cancelled() or late.exception())
        return answer.done()


def ping_of(url: str, ca_file: str = "") -> Callable[[], Awaitable[bool]]:
    """That of a server; of one in this process (chdb://) there is nothing to ask."""
    at = urlsplit(url)
    if at.scheme not in ("http", "https") or not at.hostname:
        return _always
    host, tls = at.hostname, ssl.create_default_context(cafile=ca_file or None) if at.scheme == "https" else None
    port = at.port or (8443 if tls else 8123)
    if check_env_proxy(at.scheme, host, port):
        return _always  # the pages' client goes through it, and there may be no other way

    async def ping() -> bool:
        try:
            async with asyncio.timeout(WITHIN_S):
                return await _asked(host, port, tls)
        except (ssl.SSLError, ConnectionResetError):
            return True  # it speaks; what it lacks is told by the page's own question
        except OSError:  # TimeoutError is one
            return False

    return ping


async def _always() -> bool:
    return True


async def _asked(host: str, port: int, tls: ssl.SSLContext | None) -> bool:
    """Whatever it answers is an answer, 404 of a proxy and a connection that it ends, too: silence is what is asked."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(f"GET /ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await reader.read(1)
        return True
    finally:
        writer.close()
