"""Health: alive by progress alone, ready by doing the work, and why not in words."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from pipeline.errors import ConfigError
from pipeline.health import Health, Server, serve
from pipeline.metrics import REGISTRY


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    this = Health(clock)
    this.recovered(True)
    return this


def test_a_new_process_is_alive_and_not_ready_until_its_state_is_loaded() -> None:
    health = Health(Clock())
    assert health.why_not_live() == []
    assert health.why_not_ready() == ["no assignment, or its state is not loaded yet"]
    health.recovered(True)
    assert health.why_not_ready() == []


def test_without_ticks_or_polls_it_is_dead(clock: Clock, health: Health) -> None:
    clock.now_s += 61
    assert health.why_not_live() == ["the event loop has stood still for 61 s"]
    health.ticked()
    clock.now_s += 250
    health.ticked()
    assert health.why_not_live() == ["no poll for 311 s (at most 300 s)"]
    health.polled()
    assert health.why_not_live() == []


def test_records_that_wait_while_nothing_is_processed_make_it_unready_not_dead(clock: Clock, health: Health) -> None:
    health.lagging(500)
    clock.now_s += 59
    assert health.why_not_ready() == []
    clock.now_s += 2
    health.ticked()
    assert health.why_not_ready() == ["500 records wait and nothing was processed for 61 s"]
    assert health.why_not_live() == []
    health.progressed(400)
    assert health.why_not_ready() == []


def test_an_idle_topic_is_not_stuck(clock: Clock, health: Health) -> None:
    health.progressed(0)
    for _ in range(100):
        clock.now_s += 50
        health.ticked()
        health.polled()
        health.lagging(0)
    health.lagging(3)  # the wait begins now, not when something was processed last
    assert health.why_not_ready() == []


def test_clickhouse_away_is_bearable_until_the_buffer_is_full(health: Health) -> None:
    health.clickhouse(False, 10, 100)
    assert health.why_not_ready() == []
    health.clickhouse(False, 100, 100)
    assert health.why_not_ready() == ["ClickHouse is away and 100 rows wait (at most 100)"]
    health.clickhouse(True)
    assert health.why_not_ready() == []


def test_a_stopping_process_takes_no_more_work_and_is_alive(health: Health) -> None:
    health.stopping()
    assert health.why_not_ready() == ["stopping"]
    assert health.why_not_live() == []


@pytest.fixture
async def server(health: Health) -> AsyncIterator[Server]:
    this = await serve(health, REGISTRY, "127.0.0.1", 0, "worker")
    yield this
    await this.close()


async def get(server: Server, path: str) -> tuple[int, str, str]:
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.content_type, await response.text()


async def test_the_probes_answer_in_json_with_the_reasons(server: Server, health: Health) -> None:
    assert await get(server, "/livez") == (200, "application/json", '{"ok":true,"why":[]}')
    assert (await get(server, "/readyz"))[0] == 200
    health.recovered(False)
    status, _, body = await get(server, "/readyz")
    assert status == 503
    assert "not loaded yet" in body


async def test_metrics_are_served_as_prometheus_reads_them(server: Server) -> None:
    status, kind, body = await get(server, "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert "# TYPE keywatch_events_consumed_total counter" in body


async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"set sources\.metrics_port"):
            await serve(Health(), REGISTRY, "127.0.0.1", taken.getsockname()[1], "sources")
