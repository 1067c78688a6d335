"""Whether this process lives and is ready, told by progress alone, and the little server that says so.

`/livez` asks nothing of the outside: a broker or ClickHouse that is away must not get the process killed, since a
restart brings neither back and costs a recovery. `/readyz` asks whether it does its work now. Both answer JSON with
every reason why not: {"ok": false, "why": ["..."]}, 200 or 503. `/metrics` is Prometheus' text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.errors import ConfigError
from pipeline.metrics import CONTENT_TYPE, METRICS
from pipeline.tasks import cancel_and_wait

TICK_S = 0.25  # how often the loop is asked to wake up; what it is late is its stall
MAX_STALL_S = 60.0  # a loop silent for longer hangs: the stop deadline (20 s) and a 30 s insert time-out fit in
MAX_POLL_S = 300.0  # aiokafka's max_poll_interval_ms by default: past it the group has thrown us out anyway
MAX_IDLE_LAGGING_S = 60.0  # records wait and none is processed for so long: stuck


class Health:
    """Progress marks. Call a mark whenever the thing has happened; reading them costs nothing. Seconds throughout."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_stall_s: float = MAX_STALL_S,
        max_poll_s: float = MAX_POLL_S,
        max_idle_lagging_s: float = MAX_IDLE_LAGGING_S,
    ) -> None:
        self._clock = clock
        self._max_stall_s, self._max_poll_s, self._max_idle_s = max_stall_s, max_poll_s, max_idle_lagging_s
        now = clock()
        self._tick, self._poll, self._progress = now, now, now
        self._lag_records = 0
        self._recovered = False
        self._clickhouse_reachable = True
        self._waiting_rows, self._max_waiting_rows = 0, 1
        self._stopping = False

    def ticked(self) -> None:
        """The event loop has come round (`serve` calls it)."""
        self._tick = self._clock()

    def polled(self) -> None:
        """The consumer's loop has come round, whether it fetched, found nothing, or is paused."""
        self._poll = self._clock()
        METRICS.last_poll_timestamp.set_to_current_time()

    def progressed(self, lag_records: int) -> None:
        """A slice's effects are done; `lag_records` are left behind it."""
        self._progress, self._lag_records = self._clock(), lag_records

    def lagging(self, lag_records: int) -> None:
        """The lag seen without having done anything; from 0 to more the wait starts now."""
        if lag_records and not self._lag_records:
            self._progress = self._clock()
        self._lag_records = lag_records

    def recovered(self, done: bool) -> None:
        """Whether what is assigned is also loaded; False from a rebalance until the state is verified."""
        self._recovered = done

    def clickhouse(self, reachable: bool, waiting_rows: int = 0, max_waiting_rows: int = 1) -> None:
        """Whether the last insert went well, and how much of the buffer for bad times is used."""
        self._clickhouse_reachable = reachable
        self._waiting_rows, self._max_waiting_rows = waiting_rows, max_waiting_rows

    def stopping(self) -> None:
        """A stop was asked for: no longer ready, still alive."""
        self._stopping = True

    def why_not_live(self) -> list[str]:
        """Reasons to be restarted; empty is alive."""
        now, why = self._clock(), []
        if now - self._tick > self._max_stall_s:
            why.append(f"the event loop has stood still for {now - self._tick:.0f} s")
        if now - self._poll > self._max_poll_s:
            why.append(f"no poll for {now - self._poll:.0f} s (at most {self._max_poll_s:.0f} s)")
        return why

    def why_not_ready(self) -> list[str]:
        """Reasons for not doing the work now; empty is ready."""
        why = self.why_not_live()
        if self._stopping:
            why.append("stopping")
        if not self._recovered:
            why.append("no assignment, or its state is not loaded yet")
        idle_s = self._clock() - self._progress
        if self._lag_records and idle_s > self._max_idle_s:
            why.append(f"{self._lag_records} records wait and nothing was processed for {idle_s:.0f} s")
        if not self._clickhouse_reachable and self._waiting_rows >= self._max_waiting_rows:
            why.append(f"ClickHouse is away and {self._waiting_rows} rows wait (at most {self._max_waiting_rows})")
        return why


@dataclass(slots=True)
class Server:
    """A running server. `port` is the real one when 0 was asked for; `close()` ends it and its ticking."""

    host: str
    port: int
    _runner: web.AppRunner
    _beat: asyncio.Task[None]

    async def close(self) -> None:
        """Stop answering."""
        await cancel_and_wait(self._beat)
        await self._runner.cleanup()


async def serve(health: Health, registry: CollectorRegistry, host: str, port: int, section: str) -> Server:
    """Answer /metrics, /livez and /readyz on host:port (0 is any), which that section of the configuration sets.

    Raises `ConfigError` where it can't bind.
    """
    runner = web.AppRunner(_app(health, registry), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        why = f"cannot listen on {host}:{port} for metrics ({error.strerror})"
        raise ConfigError(f"{why}: set {section}.metrics_port") from error
    return Server(host, int(runner.addresses[0][1]), runner, asyncio.create_task(_beat(health)))


def _app(health: Health, registry: CollectorRegistry) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: web.Request) -> web.Response:
        return _answer(health.why_not_live())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.why_not_ready())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


def _answer(why: list[str]) -> web.Response:
    body = msgspec.json.encode({"ok": not why, "why": why})
    return web.Response(body=body, status=503 if why else 200, content_type="application/json")


async def _beat(health: Health) -> None:
    loop = asyncio.get_running_loop()
    while True:
        asked = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        METRICS.loop_stall_seconds.observe(max(0.0, loop.time() - asked))
        health.ticked()
