"""How long each page of the console takes with 100,000 keys and 30 days of hourly aggregates.

    python -m tests.bench.console [--keys 100000] [--hours-a-day 8] [--rounds 15]

Fills a chDB of its own by SQL (each key is used `hours-a-day` hours of each of 30 days, from two sources; 3,000
incidents, with findings, evidence and decisions), then asks for each page as a browser does, through the whole
application, of keys and incidents all over; all keys are declared. Prints the rows, and of each page milliseconds: the
median and the worst by the clock, and the processor's of server and console together, which count on a shared machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import psutil
from starlette.testclient import TestClient

from pipeline.config.tree import ClickHouse, Config, Console, Person, Secret
from pipeline.console import app
from pipeline.console.board import Kept, Link
from pipeline.console.side import Readers, Side
from pipeline.keys.catalogue import Catalogue
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key
from tests.bench.insert import insert
from tests.clickhouse_front import FrontProcess

DAYS: Final = 30
INCIDENTS: Final = 3_000
NOW: Final = "toStartOfHour(now())"
KEY: Final = "concat('key_', leftPad(toString({number}), 6, '0'))"
GRADE: Final = "['medium', 'high', 'critical'][number % 3 + 1]"
TOKEN: Final = "the-token-of-the-bench-01"


def fills(keys: int, hours: int) -> Iterator[str]:
    """The statements, a day at a time: a block of one day goes into one part."""
    body = msgspec.json.encode(_incident()).decode().replace("'", "\\'")
    for day in range(DAYS):
        start = f"toDateTime({NOW}) - {day * 86_400} - (number % {hours}) * 3600"
        yield insert(
            "requests_1h", f"numbers({keys * hours})", key_id=KEY.format(number=f"intDiv(number, {hours})"),
            window_start=start, requests="20 + number % 9", part="'p'", errors_403="number % 50 = 0",
        )  # fmt: skip
        yield insert(
            "key_source_1h", f"numbers({keys * 2})", key_id=KEY.format(number="intDiv(number, 2)"),
            window_start=f"{NOW} - {day * 86_400}", part="'p'", country="'DE'", asn="3320 + number % 2",
            prefix="concat('198.51.', toString(number % 250), '.0/24')", client="'sdk'", route="'/v1/orders'",
            outcome="'success'", requests="80",
        )  # fmt: skip
    yield insert("keys_last_used", f"numbers({keys})", key_id=KEY.format(number="number"), environment="'live'")
    named = {
        "key_id": KEY.format(number=f"number * {max(1, keys // INCIDENTS)}"),
        "incident_id": "lower(hex(MD5(toString(number))))",
    }
    at = f"now64(6) - toIntervalSecond(number * {DAYS * 86_400 // INCIDENTS})"
    yield insert(
        "incidents", f"numbers({INCIDENTS})", **named, body=f"'{body}'", text="'412 requests where 9 are usual'",
        rule="'visit'", state="if(number % 10 = 0, 'open', 'closed')", severity=GRADE,
        opened_at=at, last_at=at, owner="concat('team-', toString(number % 40))",
    )  # fmt: skip
    yield insert(
        "responses",
        f"numbers({INCIDENTS})",
        **named,
        at=at,
        stage="'done'",
        verdict="'allowed'",
        rung="'fence'",
        offset="number",
    )
    for table, each in (("findings", 10), ("evidence", 4)):
        many = {name: text.replace("number", f"intDiv(number, {each})") for name, text in named.items()}
        own = {"finding_id": "toString(number)", "at": at} if table == "findings" else {"ts": at, "offset": "number"}
        yield insert(table, f"numbers({INCIDENTS * each})", **many, **own)
    yield insert("requests", f"numbers({keys * 3})", key_id=KEY.format(number="intDiv(number, 3)"), offset="number")


def _incident() -> Incident:
    sample = Sample(at="2026-11-26T08:00:00Z", request_id="r")
    finding = Finding(
        detector="spike", family="volume", bits=14.0, at="2026-11-26T08:00:00Z", observed=412.0, unit="requests",
        expected=Band(low=3, median=9, high=21), text="412 requests", authenticated=True, sample=sample,
    )  # fmt: skip
    return Incident(
        incident_id="0" * 32, key_id="key_000000", rule="visit", revision=1, change="opened", state="open",
        severity="high", rung="fence", opened_at="2026-11-26T08:00:00Z", last_at="2026-11-26T08:10:00Z", bits=20.0,
        text="412 requests where 9 are usual", findings=(finding,),
    )  # fmt: skip


def measure(browser: TestClient, path: Callable[[], str], rounds: int, server: int) -> tuple[list[float], float]:
    """Milliseconds of each round, the least first, and the processor's of one; the first round (connections, caches) is
    left out.
    """
    took, before_s = [], 0.0
    for number in range(rounds + 1):
        at_s = time.perf_counter()
        answer = browser.get(path())
        took.append((time.perf_counter() - at_s) * 1000)
        assert answer.status_code == 200, (answer.status_code, answer.text[-300:])
        if number == 0:
            before_s = processor_s(server)
    return sorted(took[1:]), (processor_s(server) - before_s) * 1000 / rounds


def processor_s(server: int) -> float:
    """Of this process and the server so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (server, os.getpid()))


def declared(keys: int) -> Side:
    """The keys topic, as if it had been read."""
    side = Side(nothing_read)
    names = (f"key_{number:06}" for number in range(keys))
    side.catalogue = Catalogue.of(
        Key(key_id=name, owner=f"team-{number % 40}", environment="live", created_at="2026-01-01T00:00:00Z")
        for number, name in enumerate(names)
    )
    return side


def say(words: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def run(front: FrontProcess, keys: int, hours: int, rounds: int) -> None:
    """Fill, ask, print."""
    settings = ClickHouse(url=front.url, database="bench", expire=False)
    migrate(settings)
    client = connect(settings, settings.database)
    at_s = time.perf_counter()
    for statement in fills(keys, hours):
        client.command(statement)
    rows = client.query(
        "SELECT table, sum(rows) FROM system.parts WHERE active AND database = 'bench' GROUP BY 1 ORDER BY 1"
    )
    say(f"filled in {time.perf_counter() - at_s:.0f} s: " + ", ".join(f"{name} {n:,}" for name, n in rows.result_rows))
    incidents = [row[0] for row in client.query("SELECT incident_id FROM incidents").result_rows]
    chance, people = random.Random(7), (Person(name="bench", role="admin", token=Secret(TOKEN)),)
    pages: dict[str, Callable[[], str]] = {
        "list": lambda: "/",
        "list of all": lambda: "/?state=all",
        "search by key": lambda: f"/?state=all&about=key_{chance.randrange(keys):06}"[:-1],
        "search by owner": lambda: f"/?state=all&about=team-{chance.randrange(40)}",
        "incident": lambda: f"/incidents/{chance.choice(incidents)}",
        "keys": lambda: "/keys",
        "keys by beginning": lambda: f"/keys?q=key_{chance.randrange(keys):06}"[:-2],
        "key": lambda: f"/keys/key_{chance.randrange(keys):06}",
        "manifest": lambda: f"/manifest/key_{chance.randrange(keys):06}",
        "policy": lambda: "/policy",
        "log": lambda: "/log",
    }  # fmt: skip
    config = Config(clickhouse=settings, console=Console(people=people))
    application = app.make_app(config, link=Link(nothing), of_keys=declared(keys))
    with TestClient(application, base_url="http://127.0.0.1") as browser:  # one loop, so its threads keep their clients
        browser.post("/sign-in", data={"token": TOKEN})
        for name, path in pages.items():
            took, processor_ms = measure(browser, path, rounds, front.process.pid)
            told = (("median", statistics.median(took)), ("worst", took[-1]), ("processor", processor_ms))
            say(f"{name:18} " + "   ".join(f"{word} {value:6.0f}" for word, value in told))


@asynccontextmanager
async def nothing_read() -> AsyncIterator[Readers]:
    """No broker: what is declared stays as it is."""
    await asyncio.Event().wait()
    raise AssertionError
    yield


@asynccontextmanager
async def nothing() -> AsyncIterator[Kept]:
    """No broker: what is in force is not what is measured."""
    await asyncio.Event().wait()
    raise AssertionError
    yield


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("keys", 100_000), ("hours-a-day", 8), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = FrontProcess(Path(folder) / "clickhouse")
        try:
            run(process, options.keys, options.hours_a_day, options.rounds)
        finally:
            process.stop()


if __name__ == "__main__":
    main()
