"""`keywatch top` on a real database: the newest minute against the hour before, incidents, words that stay words."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import msgspec
import pytest
from rich.console import Console

from pipeline.asking import top
from pipeline.config.tree import ClickHouse, Config
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.row_examples import rows_of

NOON_S = 1_790_000_000 // 3600 * 3600


async def _fill(settings: ClickHouse) -> None:
    sink = ClickHouseSink(settings)
    starts = [NOON_S - 60 * n for n in range(70)]
    counts = [90] + [6] * 69
    quiet = rows_of("requests_1m", 70, key_id=["calm"] * 70, window_start=starts, requests=[7] * 70)
    loud = rows_of("requests_1m", 70, key_id=["\x1b[2Jloud[red]"] * 70, window_start=starts, requests=counts)
    for rows in (quiet, loud, loud):  # the last one again, as after a crash
        await sink.write("requests_1m", rows)
    names, states = ["ab" * 16, "cd" * 16], ["open", "closed"]
    texts = ["loud: [bold]90 requests\x1b[0m", "over"]
    await sink.write("incidents", rows_of("incidents", 2, incident_id=names, state=states, text=texts))
    await sink.close()


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> Config:
    asyncio.run(_fill(database))
    return Config(clickhouse=database)


def test_a_look_is_json_for_programs(filled: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main(filled, True, "json", 1.0) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["requests"], seen["keys"], seen["newest_us"]) == (97, 2, NOON_S * 10**6)
    loud, calm = seen["busy"]
    assert (loud["requests"], loud["usual"]) == (90, pytest.approx(6 * 59 / 60))
    assert (calm["requests"], calm["usual"]) == (7, pytest.approx(7 * 59 / 60))
    assert [each["incident_id"] for each in seen["incidents"]] == ["ab" * 16]


def test_an_open_incident_is_shown_below_any_number_of_newer_ones_that_are_over(database: ClickHouse) -> None:
    """Of the 50 newest the open ones were shown: after a storm a critical one was "none"."""
    over = 60
    columns: dict[str, list[Any]] = {
        "incident_id": [f"{n:032x}" for n in range(over + 9)], "state": ["closed"] * over + ["open"] * 9,
        "opened_at": [(NOON_S + over - n) * 10**6 for n in range(over + 9)],
    }  # fmt: skip
    scratch = msgspec.structs.replace(database, database=f"{database.database}_storm")
    migrate(scratch)

    async def fill() -> None:
        sink = ClickHouseSink(scratch)
        await sink.write("incidents", rows_of("incidents", over + 9, **columns))
        await sink.close()

    asyncio.run(fill())
    client = connect(scratch, scratch.database)
    screen = top.look(client)
    client.command(f"DROP DATABASE {scratch.database}")
    client.close()
    assert (screen.open, len(screen.incidents)) == (9, top.INCIDENTS)
    console = Console(file=io.StringIO(), width=140)
    console.print(top.drawn(screen, NOON_S))
    assert isinstance(console.file, io.StringIO)
    assert "and 1 more: keywatch incidents" in console.file.getvalue()


def test_what_is_old_is_said_to_be_and_names_can_not_steer_the_terminal(filled: Config) -> None:
    client = connect(filled.clickhouse, filled.clickhouse.database)
    screen = top.look(client)
    client.close()
    for now_s, late in ((NOON_S + 70, False), (NOON_S + 3600, True)):
        console = Console(file=io.StringIO(), width=140)
        console.print(top.drawn(screen, now_s))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert ("Idle, lagging or blind?" in text) == late
        assert "?[2Jloud[red]" in text
        assert "[bold]90 requests?[0m" in text
        assert "\x1b[2J" not in text


def test_it_goes_on_until_it_is_interrupted(filled: Config) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    assert top.main(filled, False, "table", 0.5, sleep) == 0
    assert slept == [0.5] * 3


def test_an_empty_database_is_told_as_such(front: str) -> None:
    settings = ClickHouse(url=front, database="keywatch_top_empty", expire=False)
    migrate(settings)
    client = connect(settings, settings.database)
    console = Console(file=io.StringIO(), width=100)
    console.print(top.drawn(top.look(client), 0.0))
    client.close()
    assert isinstance(console.file, io.StringIO)
    assert "nothing was judged yet" in console.file.getvalue()
