"""A database with a key in use for 30 days, an incident, what was done, and names that would be markup elsewhere."""

from __future__ import annotations

import asyncio

import msgspec

from pipeline.config.tree import ClickHouse, Config, Console, Person, Secret
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from schemas.incident import Band, Finding, Incident, Sample
from tests.row_examples import rows_of

HOUR_S = 3_600
NOON_S = 1_790_000_000 // 86_400 * 86_400 + 12 * HOUR_S
KEY = "key_warehouse_08"
EVIL = "<script>alert(1)</script>'\"&"
TOKENS = {name: f"{name}-token-of-the-test-01" for name in ("viewer", "responder", "admin")}

INCIDENT = Incident(
    incident_id="ab" * 16, key_id=KEY, rule="visit", revision=2, change="extended", state="open", severity="critical",
    rung="fence", opened_at="2026-09-21T12:30:00Z", last_at="2026-09-21T12:40:00Z", owner=EVIL, environment="live",
    seen_days=30.0, bits=41.0, return_period_days=9e5, events=7,
    text=f"{KEY}: 412 requests in 60 s where 9 are usual, from AS64500 in RO, never seen, by {EVIL}",
    findings=(
        Finding(
            detector="spike", family="volume", bits=14.5, at="2026-09-21T12:30:00Z", observed=412,
            expected=Band(low=3, median=9, high=21), unit="requests", text="412 requests in 60 s",
            authenticated=True, sample=Sample(at="2026-09-21T12:30:00Z", request_id="r-1"),
        ),
        Finding(
            detector="geography", family="network", bits=26.5, at="2026-09-21T12:30:01Z", observed=0,
            expected=Band(low=0, median=40, high=40), unit="visits", text=f"from AS64500 {EVIL}",
            authenticated=True,
            sample=Sample(
                at="2026-09-21T12:30:01Z", request_id="r-2", method="GET", route="/v1/orders", asn=64500, country="RO",
                client="python-requests",
            ),
        ),
    ),
)  # fmt: skip
FLEET = msgspec.structs.replace(
    INCIDENT,
    incident_id="cd" * 16,
    key_id="source:203.0.113.0/24",
    rule="spray",
    severity="medium",
    owner="",
    findings=(),
)


def config(front: str, database: str = "keywatch_console") -> Config:
    """People of all three roles on this front's database."""
    people = tuple(Person(name=name, role=name, token=Secret(token)) for name, token in TOKENS.items())
    return Config(clickhouse=ClickHouse(url=front, database=database, expire=False), console=Console(people=people))


def fill(settings: ClickHouse) -> None:
    """Make the tables and write."""
    migrate(settings)
    asyncio.run(_fill(settings))


async def _fill(settings: ClickHouse) -> None:
    sink = ClickHouseSink(settings)
    starts = [NOON_S - h * HOUR_S for h in range(30 * 24) if (h % 24) not in range(13, 21)]
    n = len(starts)
    quiet = {f"errors_{kind}": [0] * n for kind in ("401", "403", "404", "429", "4xx", "5xx")}
    hours = rows_of(
        "requests_1h", n, key_id=[KEY] * n, window_start=starts, requests=[20 + i % 9 for i in range(n)], **quiet
    )
    hours["requests"][0], hours["errors_403"][0] = 412, 31
    await sink.write("requests_1h", hours)
    sources = rows_of(
        "key_source_1h", 3, key_id=[KEY] * 3, window_start=[NOON_S - 9 * HOUR_S] * 3, country=["DE", "DE", "RO"],
        asn=[3320, 3209, 64_500], prefix=["a", "b", "c"], requests=[700, 90, 412], client=["acme-sdk", "curl", EVIL],
        outcome=["success"] * 3, route=["/v1/orders"] * 3,
    )  # fmt: skip
    await sink.write("key_source_1h", sources)
    names = [KEY, EVIL, *(f"key_{number:03}" for number in range(60))]
    used = rows_of("keys_last_used", len(names), key_id=names, last_used=[(NOON_S + 60) * 10**6] * len(names))
    await sink.write("keys_last_used", used)
    both = [INCIDENT, FLEET]
    incidents = rows_of(
        "incidents", 2, incident_id=[x.incident_id for x in both], key_id=[x.key_id for x in both],
        severity=[x.severity for x in both], state=["open"] * 2, rule=[x.rule for x in both],
        owner=[x.owner for x in both],
        body=[msgspec.json.encode(x).decode() for x in both], text=[x.text for x in both], detectors=[["spike"], []],
        opened_at=[(NOON_S + 1800) * 10**6, (NOON_S + 1700) * 10**6],
    )  # fmt: skip
    await sink.write("incidents", incidents)
    evidence = rows_of(
        "evidence", 2, incident_id=[INCIDENT.incident_id] * 2, request_id=["r-1", EVIL], offset=[1, 2],
        method=["GET"] * 2, route=["/v1/orders"] * 2, asn=[64500] * 2, country=["RO"] * 2,
        client=["python-requests"] * 2,
    )  # fmt: skip
    await sink.write("evidence", evidence)
    said = rows_of(
        "responses", 2, incident_id=[INCIDENT.incident_id] * 2, key_id=[KEY] * 2, stage=["decided", "done"],
        verdict=["allowed"] * 2, rung=["revoke"] * 2, offset=[1, 2], reason=["all guards passed", EVIL],
    )  # fmt: skip
    await sink.write("responses", said)
    await sink.close()
