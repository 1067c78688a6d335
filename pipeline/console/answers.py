"""ClickHouse for the console's threads, and the log of who looked at what."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.config import Config
from pipeline.console.visitor import Visitor
from pipeline.errors import ConfigError, Retry
from pipeline.sinks.connect import connect, first_line
from schemas.rows import CONSOLE_LOG

log = logging.getLogger(__name__)

T = TypeVar("T")
COLUMNS: Final = [name for name, _ in CONSOLE_LOG]


class Answers:
    """A client for each thread. `unlogged`: requests whose row could not be written; the process' log has them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.unlogged = 0
        self._own = threading.local()

    def ask(self, question: Callable[..., T], *values: Any, **named: Any) -> T:
        """The answer. Raises Retry where ClickHouse is away, Fatal where it refuses."""
        return question(self._client(), *values, **named)

    def note(
        self, visitor: Visitor | None, method: str, path: str, status: int, address: str, detail: str = ""
    ) -> None:
        """One request, in the process' log and in ClickHouse; never raises, and no page waits for it."""
        who, role = (visitor.name, visitor.role) if visitor else ("", "")
        log.info("%s %s %s %d %s", who or "nobody", method, path, status, detail)
        row = [datetime.now(UTC), who, role, method, path[:512], status, address, detail[:512]]
        try:
            self._client().insert("console_log", [row], column_names=COLUMNS)
        except (ClickHouseError, OSError, Retry, ConfigError) as error:
            self.unlogged += 1
            log.warning("not in console_log: %s", first_line(error))

    def _client(self) -> Client:
        found: Client | None = getattr(self._own, "client", None)
        if found is None:
            found = self._own.client = connect(self.config.clickhouse, self.config.clickhouse.database)
        return found
