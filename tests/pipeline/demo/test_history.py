"""The history as the gateway would have logged it: deterministic, valid events, of no real address or secret."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import msgspec

from pipeline.demo import fleet, history, rhythm
from pipeline.demo.rhythm import DAY_US, Span
from schemas.event import Event

NOW_US = int(datetime(2026, 11, 24, 2, 30, tzinfo=UTC).timestamp()) * 1_000_000
CLIENTS = fleet.build(7)
DAY = Span(NOW_US - DAY_US, NOW_US)
PLANNED = rhythm.plan(CLIENTS, DAY, 7)
EVENTS = list(history.events(CLIENTS, PLANNED, 7, NOW_US))

DOCUMENTATION = [
    ipaddress.ip_network(block) for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def test_the_same_seed_gives_the_same_bytes() -> None:
    again = history.events(CLIENTS, PLANNED, 7, NOW_US)
    assert [msgspec.json.encode(event) for event in again] == [msgspec.json.encode(event) for event in EVENTS]


def test_every_event_survives_the_schemas_limits() -> None:
    assert [msgspec.json.decode(msgspec.json.encode(event), type=Event) for event in EVENTS] == EVENTS


def test_every_address_is_one_of_the_documentation_ranges() -> None:
    for address in {event.client_ip for event in EVENTS}:
        assert any(ipaddress.ip_address(address) in network for network in DOCUMENTATION if _fits(network, address))


def _fits(network: ipaddress.IPv4Network | ipaddress.IPv6Network, address: str) -> bool:
    return network.version == ipaddress.ip_address(address).version


def test_request_ids_are_unique() -> None:
    assert len({event.request_id for event in EVENTS}) == len(EVENTS)


def test_a_record_that_does_not_exist_is_404_and_everything_else_succeeds() -> None:
    assert {event.status for event in EVENTS} == {200, 201, 404}
    assert all(event.outcome == "success" for event in EVENTS)
    assert sum(event.status == 404 for event in EVENTS) < 0.02 * len(EVENTS)


def test_clients_had_the_former_library_until_nine_days_ago() -> None:
    fortnight = Span(NOW_US - 14 * DAY_US, NOW_US)
    one = tuple(client for client in CLIENTS if client.kind == "service")[:1]
    planned = rhythm.plan(one, fortnight, 7)
    agents = [event.user_agent for event in history.events(CLIENTS, planned, 7, NOW_US)]
    assert "2.3.0" in agents[0]
    assert "2.4.1" in agents[-1]
    assert len(set(agents)) == 2


def test_keys_go_to_the_partition_that_java_would_choose() -> None:
    # org.apache.kafka.common.utils.Utils.murmur2 of "foobar" is -790332482 (its own unit test)
    assert history.place_of("foobar", 10) == (b"foobar", (-790332482 & 0x7FFFFFFF) % 10)
