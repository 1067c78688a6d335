"""Events to records: what each column says, and that neither slices nor caches change it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import (
    ERROR_5XX,
    ERROR_401,
    ERROR_403,
    ERROR_404,
    ERROR_429,
    ERROR_NONE,
    ERROR_OTHER_4XX,
    EVENT,
    NET_HOSTING,
    NET_KNOWN,
    NET_PRIVATE,
    UNKNOWN_NETWORKS,
    network_words,
)
from pipeline.column import coded
from pipeline.columns import asns
from pipeline.config import tree as config
from pipeline.enrich import Enricher, Table, mix64, request_hashes
from pipeline.fields import fields_of
from pipeline.geo.provider import DEMO_DB, open_geo
from schemas.event import Event
from schemas.key import BusinessHours, Key

GEO = open_geo(config.Geo(country_db=str(DEMO_DB)))
AT_US = 1_767_603_600_000_000  # Mon 2026-01-05 09:00 UTC


def sees_of(source: str) -> int:
    return 127 if source == "native" else 3


def event(**changes: Any) -> Event:
    return Event(**{"key_id": "k", "ts_us": AT_US, "request_id": "r1", "source": "native", **changes})


def enrich(*events: Event, declared: Sequence[Key | None] | None = None) -> Any:
    enricher = Enricher(GEO, sees_of)
    return enricher.columns(fields_of(events), range(len(events)), coded(declared or [None] * len(events)))


def test_an_address_becomes_place_numbers_and_text() -> None:
    batch = enrich(event(client_ip="203.0.113.7"), event(client_ip="10.1.1.1"), event())
    romania, private, none = batch.columns
    assert romania["country"] == ord("R") * 256 + ord("O")
    assert (romania["asn"], romania["net_flags"]) == (64500, NET_KNOWN | NET_HOSTING)
    assert 44 < romania["lat"] < 47
    assert (private["country"], private["net_flags"]) == (0, NET_PRIVATE)
    assert private["address"] != 0
    assert none["address"] == none["net_flags"] == 0
    assert [place.prefix for place in batch.places] == ["203.0.113.0/24", "10.1.1.0/24", ""]


def test_networks_that_the_database_does_not_know_are_told_apart_by_country_and_are_zero_in_rows() -> None:
    """Of the database that ships a sixth of all IPv4 addresses has a country and no network."""
    batch = enrich(event(client_ip="45.155.205.7"), event(client_ip="45.155.205.9"), event(client_ip="203.0.113.7"))
    russia = ord("R") * 256 + ord("U")
    assert batch.columns["asn"].tolist() == [UNKNOWN_NETWORKS + russia, UNKNOWN_NETWORKS + russia, 64500]
    assert asns(batch.columns["asn"]).tolist() == [0, 0, 64500]
    assert network_words(int(batch.columns["asn"][0]), "") == "an unknown network"
    assert enrich(event(client_ip="10.1.1.1")).columns["asn"][0] == 0, "nor is a country known"


def test_the_same_address_in_two_spellings_is_one() -> None:
    batch = enrich(event(client_ip="2001:db8::1"), event(client_ip="2001:0DB8:0:0:0:0:0:1"))
    assert batch.columns["address"][0] == batch.columns["address"][1]


def test_a_given_route_counts_and_a_path_only_where_there_is_none() -> None:
    batch = enrich(
        event(method="GET", route="/v1/users/:id", path="/v1/users/1"),
        event(method="GET", path="/v1/users/1"),
        event(method="GET", path="/v1/users/22"),
        event(method="POST", path="/v1/users/22"),
        event(method="GET"),
        event(method="BREW", path="/v1/users/22"),
    )
    numbers = batch.columns["route"].tolist()
    assert list(batch.routes) == ["/v1/users/:id", *["/v1/users/{id}"] * 3, "", "/v1/users/{id}"]
    assert numbers[1] == numbers[2]
    assert len(set(numbers)) == 5
    assert numbers[4] == 0
    assert batch.columns["method"].tolist() == [1, 1, 1, 3, 1, 0]


def test_a_client_is_its_family() -> None:
    batch = enrich(event(user_agent="curl/8.1"), event(user_agent="curl/7.0"), event())
    assert list(batch.clients) == ["curl", "curl", ""]
    one, two, none = batch.columns["client"].tolist()
    assert one == two != 0
    assert none == 0


def test_a_fingerprint_is_a_number_whatever_its_case() -> None:
    numbers = enrich(*(event(fingerprint=each) for each in ("a" * 32, "A" * 32, "b" * 32, ""))).columns["fingerprint"]
    assert numbers[0] == numbers[1] != numbers[2]
    assert numbers[2] != 0 == numbers[3]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, ERROR_NONE), (0, ERROR_NONE), (302, ERROR_NONE), (401, ERROR_401), (403, ERROR_403), (404, ERROR_404),
     (429, ERROR_429), (400, ERROR_OTHER_4XX), (422, ERROR_OTHER_4XX), (500, ERROR_5XX), (599, ERROR_5XX)],
)  # fmt: skip
def test_a_status_has_an_error_class(status: int, kind: int) -> None:
    assert enrich(event(status=status)).columns["error"][0] == kind


@pytest.mark.parametrize(
    ("outcome", "authenticated"),
    [("success", 1), ("denied", 1), ("rate_limited", 1), ("unknown", 0), ("invalid", 0), ("expired", 0), ("new", 0)],
)
def test_only_some_outcomes_prove_that_the_caller_held_the_key(outcome: str, authenticated: int) -> None:
    assert enrich(event(outcome=outcome)).columns["authenticated"][0] == authenticated


def test_the_environment_is_the_events_else_the_declared_one() -> None:
    key = Key(key_id="k", environment="test")
    columns = enrich(event(environment="live"), event(), event(), declared=[key, key, None]).columns
    assert columns["live"].tolist() == [1, 2, 0]


def test_capabilities_come_from_the_source() -> None:
    assert enrich(event(), event(source="combined")).columns["sees"].tolist() == [127, 3]


def test_measures_are_copied_and_slot_and_late_are_left_to_admit() -> None:
    row = enrich(event(bytes_in=5, bytes_out=1 << 50, latency_ms=1.5, status=204)).columns[0]
    assert (row["ts_us"], row["bytes_in"], row["bytes_out"], row["latency_ms"]) == (AT_US, 5, 1 << 50, 1.5)
    assert (row["slot"], row["late"], row["utc_hour"], row["local_hour"], row["in_hours"]) == (-1, 0, 9, -1, -1)


def test_local_hours_follow_the_declared_zone() -> None:
    hours = BusinessHours(start_min=540, end_min=1020)
    declared = [
        Key(key_id="b", time_zone="Europe/Berlin", business_hours=hours),
        Key(key_id="t", time_zone="America/New_York", business_hours=hours),
        Key(key_id="n", business_hours=hours),
        None,
    ]
    columns = enrich(*[event()] * 4, declared=declared).columns
    assert columns["local_hour"].tolist() == [10, 4, -1, -1]
    assert columns["in_hours"].tolist() == [1, 0, -1, -1]


def test_an_empty_slice_is_an_empty_batch() -> None:
    batch = enrich()
    assert len(batch.columns) == 0
    assert batch.columns.dtype == EVENT


ADDRESSES = st.sampled_from(["", "203.0.113.7", "192.0.2.70", "8.8.8.8", "2001:db8:4000::1", "x"])
EVENTS = st.builds(
    event,
    client_ip=ADDRESSES,
    user_agent=st.sampled_from(["", "curl/8", "acme/1"]),
    fingerprint=st.sampled_from(["", "a" * 32, "b" * 32]),
    path=st.sampled_from(["", "/a", "/a/1", "/b/22/c"]),
    method=st.sampled_from(["", "GET", "POST"]),
    request_id=st.text(max_size=40),
    ts_us=st.integers(AT_US, AT_US + 10**12),
)
ZONED = Key(key_id="z", time_zone="Asia/Kolkata", business_hours=BusinessHours(), holidays_country="IN")


@given(st.lists(EVENTS, min_size=1, max_size=30), st.integers(0, 30), st.integers(1, 4))
def test_neither_slices_nor_the_size_of_caches_change_a_record(events: list[Event], cut: int, rows: int) -> None:
    declared = [ZONED if at % 2 else None for at in range(len(events))]
    whole = Enricher(GEO, sees_of).columns(fields_of(events), range(len(events)), coded(declared))
    small = Enricher(GEO, sees_of, table_rows=rows)
    parts = [
        small.columns(fields_of(events[a:b]), range(len(events))[a:b], coded(declared[a:b]))
        for a, b in ((0, cut), (cut, len(events)))
    ]
    assert b"".join(part.columns.tobytes() for part in parts) == whole.columns.tobytes()
    assert [place for part in parts for place in part.places] == list(whole.places)
    assert [route for part in parts for route in part.routes] == list(whole.routes)


@given(st.lists(st.text(max_size=128), min_size=1, max_size=20))
def test_a_request_hash_does_not_depend_on_its_neighbours(ids: list[str]) -> None:
    events = [event(request_id=text) for text in ids]
    together = request_hashes(fields_of(events)).tolist()
    assert together == [request_hashes(fields_of([each]))[0] for each in events]
    assert len(set(together)) == len(set(ids))
    assert 0 not in together


def test_a_caller_who_sends_always_the_same_request_id_is_not_taken_for_one_request() -> None:
    """Traefik and ingress-nginx log his `X-Request-Id`; within 36 requests a repeat is dropped."""
    events = [event(request_id="x", ts_us=AT_US + each) for each in (0, 1, 250_000, 0)]
    first, second, third, again = request_hashes(fields_of(events)).tolist()
    assert len({first, second, third}) == 3
    assert first == again


def test_under_one_id_and_in_one_second_each_request_counts_that_asks_or_answers_otherwise() -> None:
    """NGINX logs whole seconds: a refused request of the same id, just before, hid the one that counts."""
    told = {"request_id": "x", "ts_us": AT_US, "path": "/v1/a", "status": 200}
    other = ({"path": "/v1/b"}, {"status": 401}, {"bytes_in": 1}, {"bytes_out": 1}, {"latency_ms": 0.5})
    events = [event(**told), *(event(**told | change) for change in other), event(**told)]
    hashes = request_hashes(fields_of(events)).tolist()
    assert len(set(hashes)) == len(events) - 1
    assert hashes[0] == hashes[-1]


def test_events_without_request_id_differ_by_all_that_they_say() -> None:
    events = [event(request_id="", position="a:1"), event(request_id="", position="a:2"), event(request_id="")]
    assert len(set(request_hashes(fields_of(events)).tolist())) == 3
    again = [event(request_id="", position="a:1")]
    assert request_hashes(fields_of(events[:1]))[0] == request_hashes(fields_of(again))[0]


def test_many_request_ids_do_not_collide_and_spread_over_all_bits() -> None:
    hashes = mix64([f"req-{number:07d}".encode() for number in range(200_000)])
    assert len(np.unique(hashes)) == 200_000
    ones = np.array([np.mean((hashes >> np.uint64(bit)) & np.uint64(1)) for bit in range(64)])
    assert np.all(np.abs(ones - 0.5) < 0.01)


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from tests.pipeline.test_enrich import enrich, event; c = enrich(event(client_ip='8.8.8.8', path='/a/1', "
        "user_agent='curl/8', method='GET')).columns; print(c.tobytes().hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_table_takes_over_what_is_asked_for_again_and_stays_bounded() -> None:
    asked: list[str] = []

    def work_out(key: str) -> tuple[tuple[Any, ...], str]:
        asked.append(key)
        return (len(key),), key.upper()

    table: Table[str, str] = Table(np.dtype([("n", "u4")]), work_out, 4)
    for keys in (["a", "bb", "ccc"], ["a", "dddd", "eeeee"], ["a", "bb"]):
        rows, objects = table.find(coded(keys))
        assert rows["n"].tolist() == [len(key) for key in keys]
        assert list(objects) == [key.upper() for key in keys]
    assert asked == ["a", "bb", "ccc", "dddd", "eeeee"]
    assert len(table) <= 4
