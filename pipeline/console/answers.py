"""ClickHouse for the console's threads, and the log of who looked at what."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from starlette.concurrency import run_in_threadpool

from pipeline.config.tree import Config
from pipeline.console.reach import Reach, ping_of
from pipeline.console.side import Side
from pipeline.console.visitor import Visitor
from pipeline.errors import ConfigError, Retry
from pipeline.respond.delivery.notice import one_line
from pipeline.sinks.connect import connect, first_line
from schemas.rows import CONSOLE_LOG

log = logging.getLogger(__name__)

T = TypeVar("T")
COLUMNS: Final = [name for name, _ in CONSOLE_LOG]
NOBODYS_ROWS: Final = 60
"""Within a minute, of those who have not come in: each is a part of its own in ClickHouse, and a flood of them would be
refused there together with the rows of those who act."""
MINUTE_S: Final = 60.0
MAX_LINE: Final = 2048
SILENT: Final = "ClickHouse gives no answer"


class Answers:
    """A client for each thread, and the topics' snapshots. `unlogged`: requests whose row could not be written; the
    process' log has them. While `reach` is silent nothing is asked and nothing written.
    """

    def __init__(self, config: Config, side: Side, reach: Reach | None = None) -> None:
        self.config = config
        self.side = side
        self.reach = reach or Reach(ping_of(config.clickhouse.url, config.clickhouse.ca_file))
        self.unlogged = 0
        self._own = threading.local()
        self._nobodys_at_s: deque[float] = deque()
        self._counting = threading.Lock()

    def ask(self, question: Callable[..., T], *values: Any, **named: Any) -> T:
        """The answer. Raises Retry where ClickHouse is away, at once where that is known; Fatal where it refuses."""
        return question(self._client(), *values, **named)

    def without(self) -> Answers:
        """What is known without ClickHouse: every question raises Retry at once."""
        return Answers(self.config, self.side, Reach(self.reach.ping, silent=True))

    async def asked(self, question: Callable[..., T], *values: Any) -> T:
        """The same for the event loop; in a thread, which a server known to be silent does not get."""
        if self.reach.silent:
            raise Retry(SILENT)
        return await run_in_threadpool(self.ask, question, *values)

    async def noted(self, *row: Any) -> None:
        """`note` for the event loop. Connections take their next request when this is over: it ends when ClickHouse
        falls silent, and needs no thread from then on.
        """
        if self.reach.silent:
            self.note(*row)
            return
        await self.reach.outlasts(asyncio.ensure_future(run_in_threadpool(self.note, *row)))

    def note(
        self, visitor: Visitor | None, method: str, path: str, status: int, address: str, detail: str = ""
    ) -> None:
        """One request, in the process' log (one line) and in ClickHouse; never raises, and no page waits for it.

        Of callers whom nobody knows, ClickHouse has `NOBODYS_ROWS` a minute.
        """
        who, role = (visitor.name, visitor.role) if visitor else ("", "")
        log.info("%s", one_line(f"{who or 'nobody'} {method} {path} {status} {detail}", MAX_LINE))
        if visitor is None and self._flooded():
            self.unlogged += 1
            return
        row = [datetime.now(UTC), who, role, method, path[:512], status, address, detail[:512]]
        try:
            self._client().insert("console_log", [row], column_names=COLUMNS)
        except (ClickHouseError, OSError, Retry, ConfigError) as error:
            self.unlogged += 1
            log.warning("not in console_log: %s", first_line(error))

    def _flooded(self) -> bool:
        now_s = time.monotonic()
        with self._counting:
            while self._nobodys_at_s and self._nobodys_at_s[0] < now_s - MINUTE_S:
                self._nobodys_at_s.popleft()
            if len(self._nobodys_at_s) >= NOBODYS_ROWS:
                return True
            self._nobodys_at_s.append(now_s)
        return False

    def _client(self) -> Client:
        if self.reach.silent:
            raise Retry(SILENT)
        found: Client | None = getattr(self._own, "client", None)
        if found is None:
            found = self._own.client = connect(self.config.clickhouse, self.config.clickhouse.database)
        return found
