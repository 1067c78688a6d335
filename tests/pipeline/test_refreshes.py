"""Views that sum up days: the doctor and the metrics tell where one fails, is late or is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.config.tree import ClickHouse, Config
from pipeline.doctor import check_clickhouse
from pipeline.errors import Retry
from pipeline.metrics import METRICS
from pipeline.refreshes import LATE_S, VIEWS, Refresh, RefreshWatch, findings, refreshes, show
from pipeline.sinks.connect import connect


@pytest.fixture
def client(clickhouse: ClickHouse) -> Iterator[Client]:
    client = connect(clickhouse, clickhouse.database)
    yield client
    client.close()


def failing(view: str) -> tuple[float, float]:
    """The metrics as Prometheus gets them: (failing, when it last went well)."""
    gauges = (METRICS.view_refresh_failing, METRICS.view_refresh_success)
    fails, well_s = (float(gauge.labels(view)._value.get()) for gauge in gauges)
    return fails, well_s


def states(config: ClickHouse) -> list[str]:
    return [finding.state for finding in asyncio.run(check_clickhouse(Config(clickhouse=config)))]


def test_views_that_are_just_made_or_go_well_are_well(clickhouse: ClickHouse, client: Client) -> None:
    made = refreshes(clickhouse)
    assert [each.view for each in made] == list(VIEWS)
    assert all(each.now_s - each.since_s < 60 for each in made), "not refreshed yet: as old as the view"
    client.command("SYSTEM REFRESH VIEW to_days")
    client.command("SYSTEM WAIT VIEW to_days")
    assert states(clickhouse) == ["ok", "ok"]
    show(refreshes(clickhouse))
    assert failing("to_days") == (0.0, refreshes(clickhouse)[0].since_s)


def test_a_view_whose_refresh_fails_is_told_with_its_reason_and_the_way_out(
    clickhouse: ClickHouse, client: Client
) -> None:
    client.command("DROP VIEW to_days")
    client.command(
        "CREATE MATERIALIZED VIEW to_days REFRESH EVERY 1 YEAR APPEND TO days EMPTY AS"
        " SELECT toDate(throwIf(number = 0, 'no room left')) AS day FROM numbers(1)"
    )
    client.command("SYSTEM REFRESH VIEW to_days")
    with pytest.raises(ClickHouseError):
        client.command("SYSTEM WAIT VIEW to_days")
    (trouble,) = findings(clickhouse, refreshes(clickhouse))
    assert trouble.state == "fail"
    assert "no room left" in trouble.text
    assert "Stack trace" not in trouble.text
    assert f"SYSTEM REFRESH VIEW {clickhouse.database}.to_days" in trouble.advice
    assert states(clickhouse) == ["ok", "fail"]
    show(refreshes(clickhouse))
    assert [failing(view)[0] for view in VIEWS] == [1.0, 0.0]


def test_a_view_that_is_gone_is_told(clickhouse: ClickHouse, client: Client) -> None:
    client.command("DROP VIEW to_place_days")
    (trouble,) = findings(clickhouse, refreshes(clickhouse))
    assert "to_place_days is missing" in trouble.text
    show(refreshes(clickhouse))
    assert [failing(view)[0] for view in VIEWS] == [0.0, 1.0]


def test_a_view_that_was_stopped_is_told_after_three_hours() -> None:
    late = Refresh("to_days", "Disabled", "", 0.0, LATE_S + 1.0)
    punctual = msgspec.structs.replace(late, view="to_place_days", now_s=float(LATE_S))
    (trouble,) = findings(ClickHouse(), [late, punctual])
    assert "nothing for 3 hours (Disabled)" in trouble.text
    assert "SYSTEM START VIEW keywatch.to_days" in trouble.advice


async def test_a_clickhouse_that_is_away_leaves_the_metrics_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    seen = [Refresh("to_days", "Scheduled", "", 7.0, 8.0)]
    answers: list[Sequence[Refresh] | Retry] = [Retry("nobody"), Retry("nobody"), seen]

    def ask() -> Sequence[Refresh]:
        if isinstance(answer := answers.pop(), Retry):
            raise answer
        return answer

    watch = RefreshWatch(ask)
    for _ in range(3):
        await watch.look()
        assert failing("to_days") == (0.0, 7.0)
    assert caplog.text.count("days are summed up is not known: nobody") == 1


async def test_the_first_look_is_at_once() -> None:
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> Sequence[Refresh]:
        loop.call_soon_threadsafe(looked.set)
        return ()

    watch = RefreshWatch(ask)
    watch.start()
    await asyncio.wait_for(looked.wait(), 10)
    await watch.close()
