"""The whole worker as an operator runs it: `keywatch worker` as a process, effects and all, watched from outside.

Progress is what its /metrics say: an event is done when it was judged and ClickHouse has acknowledged its row. The
clock begins at the first fifth of the log. To tell all metrics takes the worker some 10 ms, so it is seldom asked
between the ends.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Final

import aiohttp

from pipeline.bench.clock import Clock
from pipeline.demo.children import Children
from pipeline.errors import Fatal

FINE_S: Final = 0.1
COARSE_S: Final = 2.0
NEAR_END: Final = 0.95
LIMIT_S: Final = 300.0
_CONSUMED: Final = re.compile(r"^keywatch_events_consumed_total\{[^}]*\} (\S+)$", re.MULTILINE)
_INSERTED: Final = re.compile(r'^keywatch_clickhouse_insert_rows_total\{table="requests"\} (\S+)$', re.MULTILINE)


def config_text(brokers: str, clickhouse_url: str, run: str, partitions: int, port: int) -> str:
    """The worker's configuration: its defaults, but for names and addresses."""
    return f"""\
[kafka]
brokers = "{brokers}"
group = "{run}"
partitions = {partitions}
rebalance_timeout_s = 3.0
session_timeout_s = 20.0

[topics]
requests = "{run}.requests"
rejected = "{run}.rejected"
keys = "{run}.keys"
incidents = "{run}.incidents"
decisions = "{run}.decisions"
responses = "{run}.responses"
raw = "{run}.raw"
pages = "{run}.pages"

[clickhouse]
url = "{clickhouse_url}"

[worker]
metrics_port = {port}
"""


async def measure(children: Children, config: Path, port: int, total: int) -> float:
    """Events per second. Raises Fatal where the worker ends or does not come to the end of the log."""
    clock = Clock(total)
    child = await children.start("worker", [sys.executable, "-m", "pipeline.cli", "worker", "--config", str(config)])
    try:
        async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession() as session:
            await _watch(session, children, f"http://127.0.0.1:{port}/metrics", clock)
    except TimeoutError:
        raise Fatal(f"the worker did {clock.last[1]} of {total} events in {LIMIT_S:.0f} s") from None
    finally:
        await children.stop(child)
        children.all.remove(child)
    return clock.per_s


async def _watch(session: aiohttp.ClientSession, children: Children, url: str, clock: Clock) -> None:
    while True:
        children.check()
        if clock.at(min(await _progress(session, url))):
            return
        near = clock.first is None or clock.last[1] > NEAR_END * clock.total
        await asyncio.sleep(FINE_S if near else COARSE_S)


async def _progress(session: aiohttp.ClientSession, url: str) -> tuple[int, int]:
    try:
        async with session.get(url) as response:
            text = await response.text()
    except aiohttp.ClientError:
        return 0, 0
    return _sum(_CONSUMED, text), _sum(_INSERTED, text)


def _sum(pattern: re.Pattern[str], text: str) -> int:
    return round(sum(float(found) for found in pattern.findall(text)))
