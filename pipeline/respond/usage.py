"""A key's numbers for the brief, from ClickHouse, if they come in time: four questions at once, each by itself.

Whatever does not answer in time is unknown, and a ClickHouse that failed is not asked for half a minute, so that its
outage costs a night's messages a second once and not each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.asking.queries import HELD
from pipeline.config.tree import ClickHouse
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.respond import fence
from pipeline.respond.brief import NO_NUMBERS, Usage
from pipeline.sinks.connect import connect_async, is_embedded
from schemas.incident import Incident

log = logging.getLogger(__name__)

REST_S: Final = 30.0
USUAL_DAYS: Final = 30
FAILS: Final = (ClickHouseError, Retry, Fatal, ConfigError, OSError, ValueError)
_OPENED: Final = "parseDateTime64BestEffort({opened:String}, 6, 'UTC')"
_HOUR: Final = f"toStartOfHour({_OPENED})"

CLIENTS: Final = f"""
    SELECT uniqExact(client, asn) AS clients, sum(requests) / (60 * uniqExact(window_start)) AS per_minute
    FROM key_source_1h FINAL WHERE key_id = {{key:String}} AND {HELD}
        AND window_start < {_HOUR} AND window_start >= {_HOUR} - toIntervalDay(1)"""  # noqa: S608  (constants)
# with the key's public id alone, and another secret, nobody looks like its owner; refusals of a stopped key are his
USUAL: Final = f"""
    SELECT sum(one_in) AS usual_requests FROM requests FINAL
    WHERE key_id = {{key:String}} AND ts >= {_OPENED} AND outcome != 'invalid' AND asn IN (
        SELECT asn FROM key_source_1h FINAL WHERE key_id = {{key:String}} AND {HELD} AND window_start < {_HOUR}
            AND window_start >= {_HOUR} - toIntervalDay({{days:UInt16}})
    )"""  # noqa: S608
TOUCHED: Final = """
    SELECT groupArray(operation) AS touched, sum(asked) AS requests, sum(sent) AS bytes_out FROM (
        SELECT concat(method, ' ', route) AS operation, count() AS asked, sum(e.bytes_out) AS sent
        FROM evidence AS e FINAL WHERE incident_id = {incident:String}
        GROUP BY operation ORDER BY asked DESC, operation LIMIT 100
    )"""
NETWORKS: Final = f"SELECT groupArray(prefix) AS fence_networks FROM ({fence.QUERY})"  # noqa: S608


@dataclass
class UsageReader:
    """Asks ClickHouse, at most `within_s`; 0 asks nothing."""

    config: ClickHouse
    within_s: float
    now_s: Callable[[], float] = time.monotonic
    _client: AsyncClient | None = None
    _rests_until_s: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, incident: Incident) -> Usage:
        """What is known in time. Never raises."""
        if self.within_s <= 0 or self.now_s() < self._rests_until_s or is_embedded(self.config):
            return NO_NUMBERS
        tasks = [asyncio.create_task(self._ask(sql, incident)) for sql in (CLIENTS, USUAL, TOUCHED, NETWORKS)]
        done, late = await asyncio.wait(tasks, timeout=self.within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        answers = [answer for task in done if (answer := task.result()) is not None]
        if len(answers) < len(tasks):
            self._rests_until_s = self.now_s() + REST_S
            log.warning("a brief goes out without all its numbers: ClickHouse did not answer in %.1f s", self.within_s)
        return merged(answers)

    async def close(self) -> None:
        """Disconnect."""
        if self._client:
            await self._client.close()

    async def _ask(self, sql: str, incident: Incident) -> dict[str, Any] | None:
        values: dict[str, str | int] = {
            "key": incident.key_id, "opened": incident.opened_at, "incident": incident.incident_id, "days": USUAL_DAYS
        }  # fmt: skip
        if sql is NETWORKS:
            values = fence.asked(incident.key_id, fence.first_suspicious_us(incident))
        try:
            async with self._lock:
                if self._client is None:
                    self._client = await connect_async(self.config, self.config.database)
            found = await self._client.query(sql, parameters=values)
        except FAILS as error:
            log.info("no numbers for a brief: %s", error)
            return None
        return dict(zip(found.column_names, found.result_rows[0], strict=True))


def merged(answers: list[dict[str, Any]]) -> Usage:
    """One struct of all answers; a key that was not used the day before has no clients and no rate, which is known."""
    told: dict[str, Any] = {name: value for answer in answers for name, value in answer.items()}
    if told.get("per_minute") is not None and not told["per_minute"] >= 0:  # 0 / 0
        told["per_minute"] = 0.0
    if not told.get("requests", 1):
        told = {name: value for name, value in told.items() if name not in ("touched", "requests", "bytes_out")}
    return msgspec.convert(told, Usage, strict=False)
