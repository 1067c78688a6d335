"""`keywatch plugin`: follows `requests_1m` in ClickHouse as its minutes become final, in a process of its own.

Final is what lies `SETTLE_S` and the lateness before the newest minute in the table, so time is the table's, not the
clock's. No state is kept: it begins by learning from the last `plugin.learn_days`. A partition whose worker is behind
by more than that is not covered. Findings are full rows under ids of their own: to write them twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline import columns
from pipeline.config.tree import Config
from pipeline.decide import Decisions
from pipeline.errors import Retry
from pipeline.plugin.features import Minute
from pipeline.plugin.judge import PluginJudge, Said
from pipeline.ports import Publisher, RowSink
from pipeline.sinks.connect import by_consequence, connect

SETTLE_S: Final = 120
CHUNK_S: Final = 6 * 3600
DAY_S: Final = 86_400
AGAIN_S: Final = 3_600
"""A start tells once more what it may have told within the last hour."""
_FINAL: Final = {"do_not_merge_across_partitions_select_final": 1}
_NEWEST: Final = "SELECT toUnixTimestamp(max(window_start)) FROM requests_1m"
_MINUTES: Final = """
SELECT key_id, toUnixTimestamp(window_start) AS start_s, sum(requests),
       sum(errors_401 + errors_403 + errors_404 + errors_429 + errors_4xx + errors_5xx), sum(errors_401 + errors_403),
       sum(bytes_out), max(addresses), max(countries), max(routes), sum(latency_sum_ms)
FROM requests_1m FINAL
WHERE window_start >= toDateTime({first:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
GROUP BY key_id, start_s ORDER BY start_s, key_id
"""
_json = msgspec.json.Encoder()
log = logging.getLogger(__name__)


class Table:
    """The minutes, by a blocking client."""

    def __init__(self, client: Client, where: str) -> None:
        self._client = client
        self._where = where

    def newest_s(self) -> int:
        """Start of the newest minute, 0 where there is none. Raises Retry or Fatal."""
        return int(self._ask(_NEWEST, {})[0][0])

    def minutes(self, first_s: int, end_s: int) -> list[Minute]:
        """In the order of time and key."""
        rows = self._ask(_MINUTES, {"first": first_s, "end": end_s})
        return [msgspec.convert(row, Minute) for row in rows]

    def _ask(self, query: str, parameters: dict[str, Any]) -> Any:
        try:
            return self._client.query(query, parameters=parameters, settings=_FINAL).result_rows
        except ClickHouseError as error:
            raise by_consequence(self._where, error) from error


class Follower:
    """From where it has got to, to what is final now."""

    def __init__(self, config: Config, table: Any, judge: PluginJudge) -> None:
        self._lag_s = round(config.worker.lateness_s) + SETTLE_S
        self._learn_s = config.plugin.learn_days * DAY_S
        self._table = table
        self._judge = judge
        self._next_s = 0
        self._tell_from_s = 0

    def step(self) -> Said | None:
        """One chunk's worth; None where there is nothing new. Raises Retry or Fatal."""
        final_s = self._table.newest_s() - self._lag_s
        if final_s <= 0:
            return None
        if self._next_s == 0:
            self._tell_from_s = final_s - AGAIN_S
            self._next_s = max(0, final_s - round(self._learn_s)) // 60 * 60
        end_s = min(final_s // 60 * 60, self._next_s + CHUNK_S)
        if end_s <= self._next_s:
            return None
        minutes = self._table.minutes(self._next_s, end_s)
        self._next_s = end_s
        return self._judge.take(minutes, self._tell_from_s)


async def write(said: Said, rows: RowSink, publisher: Publisher | None, topic: str) -> None:
    """Findings and incidents; incidents go to their topic first, as everywhere. Raises Retry: do it again."""
    for incident in said.incidents:
        assert publisher is not None
        await publisher.publish(topic, incident.key_id.encode(), _json.encode(incident))
    if said.incidents:
        await rows.write("incidents", columns.incidents(said.incidents))
    if said.findings:
        n = len(said.findings)
        decided = Decisions(findings=said.findings, keys=said.keys, ids=said.ids, linked=[""] * n, offsets=[0] * n)
        await rows.write("findings", columns.findings(decided, "plugin", 0))


async def _again(work: Callable[[], Any], stop: asyncio.Event, poll_s: float) -> Any:
    """Until it works, or it is to stop."""
    while not stop.is_set():
        try:
            return await work()
        except Retry as error:
            log.warning("again in %.0f s: %s", poll_s, error)
            await _pause(stop, poll_s)
    return None


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def run(config: Config, stop: asyncio.Event) -> None:
    """Follow until `stop`. Raises ConfigError for the model or ClickHouse's address."""
    from pipeline.sinks.clickhouse import ClickHouseSink
    from pipeline.sinks.kafka import Producer

    poll_s = config.plugin.poll_s
    judge = PluginJudge(config.plugin)
    client = await asyncio.to_thread(connect, config.clickhouse, config.clickhouse.database)
    follower, rows = Follower(config, Table(client, config.clickhouse.url), judge), ClickHouseSink(config.clickhouse)
    producer = Producer(config.kafka) if config.plugin.incidents else None
    if producer is not None:
        await producer.start()
    log.info("judging the minutes of %s; %g days of each key are learned first",
             config.clickhouse.database, config.plugin.learn_days)  # fmt: skip
    try:
        while not stop.is_set():
            said = await _again(partial(asyncio.to_thread, follower.step), stop, poll_s)
            if said is None:
                await _pause(stop, poll_s)
                continue
            await _again(partial(write, said, rows, producer, config.topics.incidents), stop, poll_s)
    finally:
        await rows.close()
        if producer is not None:
            await producer.close()
        client.close()


def main(config: Config) -> int:
    """Until SIGTERM or SIGINT."""

    async def until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(config, stop)

    asyncio.run(until_stopped())
    return 0
