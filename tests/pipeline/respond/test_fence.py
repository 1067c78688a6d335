"""A fence: the networks of at least 7 days before anything suspicious, out of ClickHouse; nothing where it is away."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.config.tree import ClickHouse
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.fence import (
    ClickHouseNetworks,
    NoNetworks,
    first_suspicious_us,
    suspects,
    usual_networks,
    with_declared,
)
from pipeline.respond.ladder import Matrix, Means, why_no_fence
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from pipeline.times import micros
from schemas.incident import Sample
from tests.pipeline.respond.incidents import at, finding, incident, key
from tests.row_examples import rows_of

DAY_S = 86_400
FIRST_S = 1_795_003_600 // 3600 * 3600 + 1234
HOME, NEW, REFUSED, ONE_DAY = "192.0.2.0/24", "203.0.113.0/24", "198.51.100.0/24", "2001:db8::/48"


def _used(prefix: str, days: list[int], outcome: str = "success", key_id: str = "k1") -> dict[str, list[object]]:
    starts = [(FIRST_S // 3600) * 3600 - day * DAY_S for day in days]
    count = len(days)
    return rows_of(
        "key_source_1h", count, key_id=[key_id] * count, prefix=[prefix] * count, window_start=starts,
        outcome=[outcome] * count, part=[f"{prefix}{outcome}{day}" for day in days],
    )  # fmt: skip


@pytest.fixture
def filled(clickhouse: ClickHouse) -> ClickHouse:
    async def fill() -> None:
        sink = ClickHouseSink(clickhouse)
        for rows in (
            _used(HOME, list(range(1, 8))),
            _used(NEW, list(range(6))),  # the thief: 6 days, the last of them today
            _used(REFUSED, list(range(1, 20)), outcome="invalid"),
            _used(ONE_DAY, [1] * 9),
            _used("100.64.0.0/24", list(range(70, 90))),
            _used("192.0.3.0/24", list(range(1, 9)), key_id="k2"),
        ):
            await sink.write("key_source_1h", rows)
        await sink.close()

    asyncio.run(fill())
    return clickhouse


def test_only_networks_of_seven_days_before_the_first_suspicious_event_count(filled: ClickHouse) -> None:
    client = connect(filled, filled.database)
    assert usual_networks(client, "k1", FIRST_S * 10**6) == (HOME,)
    assert usual_networks(client, "nobody", FIRST_S * 10**6) == ()
    assert usual_networks(client, "k1", (FIRST_S - DAY_S) * 10**6) == ()
    client.close()
    assert asyncio.run(ClickHouseNetworks(filled).usual("k1", FIRST_S * 10**6)) == ((HOME,), "")


def test_a_key_of_more_networks_than_a_fence_takes_is_not_fenced_to_some_of_them(filled: ClickHouse) -> None:
    """300 branch offices: it was fenced to 256 of them, and 44 outages were recorded as a success."""
    offices = [_used(f"10.{n // 256}.{n % 256}.0/24", list(range(1, 8)), key_id="k3") for n in range(300)]
    together = {name: [value for rows in offices for value in rows[name]] for name in offices[0]}

    async def write_and_ask() -> tuple[tuple[str, ...], str]:
        sink = ClickHouseSink(filled)
        await sink.write("key_source_1h", together)
        await sink.close()
        return await ClickHouseNetworks(filled).usual("k3", FIRST_S * 10**6)

    found, _ = asyncio.run(write_and_ask())
    matrix: Matrix = {"fence": MATRIX["fence"]}
    assert "too many networks for a fence" in why_no_fence(Means("keys", matrix, networks=found))


async def test_a_clickhouse_that_is_away_is_a_reason_and_no_error() -> None:
    networks, why = await ClickHouseNetworks(ClickHouse(url="http://127.0.0.1:9")).usual("k1", 1)
    assert networks == ()
    assert "ClickHouse cannot say" in why
    assert (await NoNetworks().usual("k1", 1))[1]


def test_the_first_suspicious_event_is_the_oldest_finding_or_the_opening() -> None:
    findings = (finding("network", ago_s=90), finding("client", ago_s=30))
    assert first_suspicious_us(incident(findings=findings)) == micros(at(90))
    assert first_suspicious_us(incident(opened_at="nonsense", findings=())) == 0


def test_suspects_are_the_addresses_of_authenticated_evidence() -> None:
    import msgspec

    good = msgspec.structs.replace(finding("network"), sample=Sample(at="", client_ip="203.0.113.9"))
    junk = msgspec.structs.replace(good, authenticated=False, sample=Sample(at="", client_ip="198.51.100.1"))
    broken = msgspec.structs.replace(good, sample=Sample(at="", client_ip="?"))
    assert suspects(incident(findings=(good, junk, broken))) == ("203.0.113.9",)


def test_what_the_owner_declared_belongs_to_the_fence() -> None:
    declared = key(allowed_networks=(HOME, "10.0.0.0/8", "no network"))
    assert with_declared((HOME,), declared) == (HOME, "10.0.0.0/8")
    assert with_declared((), key(allowed_networks=("10.1.2.3/8",))) == ("10.0.0.0/8",)
    assert with_declared((), None) == ()
