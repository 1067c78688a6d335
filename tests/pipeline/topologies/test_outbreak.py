"""Incidents of many keys that have one cause, and incidents that just come together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.sighting import Break
from tests.pipeline.topologies.messages import DAY_US, HOUR_US, MINUTE_US, START_US, core, judge, restored, slices


def broken(key: int, at_us: int, detector: str = "errors", route: str = "GET /v1/orders", **more: object) -> Break:
    return Break(
        key_id=f"key_{key}", ts_us=at_us, incident_id=f"{key:032x}", detectors=(detector,), route=route,
        owner=f"owner_{key % 7}", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def outage(keys: int, at_us: int = START_US) -> list[Break]:
    """The API answers 503 on one route."""
    return [broken(n, at_us + n * 5_000_000, status=503) for n in range(keys)]


def test_an_outage_is_one_incident_of_the_fleet_that_names_route_and_keys() -> None:
    found = judge("sources", outage(30))
    assert len({incident.incident_id for incident in found}) == 1
    assert found[0].key_id == "fleet:errors with 5xx"
    assert "by errors on GET /v1/orders answered 5xx" in found[-1].text
    assert found[-1].keys_total == 16  # told anew when they have doubled
    assert "one cause" in found[-1].text


def test_a_deploy_that_many_routes_feel_is_named_by_what_they_share() -> None:
    log = [broken(n, START_US + n * 5_000_000, route=f"GET /v1/r{n}", status=503) for n in range(12)]
    assert {incident.key_id for incident in judge("sources", log)} == {"fleet:errors with 5xx"}


def test_incidents_of_a_day_are_no_outbreak() -> None:
    log = [broken(n, START_US + n * HOUR_US, detector="geography", asn=64500 + n) for n in range(200)]
    assert judge("sources", log) == []


def test_incidents_of_many_kinds_at_once_are_no_outbreak() -> None:
    kinds = ("errors", "geography", "spike", "novel_client")
    log = [broken(n, START_US + n * MINUTE_US, kinds[n % 4], f"GET /v1/r{n}", asn=64500 + n) for n in range(12)]
    assert judge("sources", log) == []


@pytest.mark.parametrize("partitions", [1, 8, 64])
def test_the_number_of_key_partitions_changes_nothing(partitions: int) -> None:
    """Breaks come to one place, by whichever partition; only their order differs."""
    log = sorted(outage(30), key=lambda told: (int(told.key_id[4:]) % partitions, told.ts_us))
    found = judge("sources", log)
    assert {(incident.key_id, incident.rule) for incident in found} == {("fleet:errors with 5xx", "outbreak")}


def test_what_happens_every_day_becomes_usual() -> None:
    daily = [told for day in range(30) for told in outage(4, START_US + day * DAY_US)]
    assert judge("sources", daily) == []
    assert judge("sources", [*daily, *outage(6, START_US + 31 * DAY_US)]) == []


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, 40), max_size=5), at=st.integers(1, 40), twice=st.lists(st.integers(0, 40)))
def test_cuts_crashes_and_what_is_told_twice_change_nothing(cuts: list[int], at: int, twice: list[int]) -> None:
    log = outage(41)
    clean = judge("sources", log)
    assert judge("sources", log, cuts) == clean
    before = core("sources")
    first, second = slices(log, [at])
    found = before.process(first).incidents
    assert found + restored(before, "sources").process(second).incidents == clean
    doubled = list(log)
    for n in twice:
        doubled.insert(n + 1, doubled[n])
    again = judge("sources", doubled)
    assert [each.text for each in again] == [each.text for each in clean]


def scan(keys: int, at_us: int) -> list[Break]:
    """Somebody who knows the keys' ids alone asks for one route after another in their names."""
    return [
        broken(n, at_us + n * 5_000_000, route=f"GET /v1/made_up_{n}", status=404, stranger=True) for n in range(keys)
    ]


def test_daily_scans_in_keys_names_make_no_outbreak_of_their_holders_usual() -> None:
    daily = [told for day in range(30) for told in scan(4, START_US + day * DAY_US)]
    thefts = [broken(n, START_US + 31 * DAY_US + n * 5_000_000, status=404) for n in range(8)]
    found = judge("sources", [*daily, *thefts])
    assert {incident.key_id for incident in found} == {"fleet:errors with 4xx"}


def test_a_scan_that_is_told_already_is_not_taken_for_what_holders_do_next_to_it() -> None:
    thefts = [broken(n, START_US + MINUTE_US + n * 5_000_000, status=404) for n in range(8)]
    found = judge("sources", [*scan(8, START_US), *thefts])
    own = [incident for incident in found if incident.key_id == "fleet:errors with 4xx"]
    assert own and "one cause" in own[0].text
    (refused,) = {incident.key_id for incident in found} - {"fleet:errors with 4xx"}
    assert refused == "fleet:refused requests with 4xx"


def test_where_all_keys_are_refused_one_incident_says_what_it_may_be_and_explains_no_other() -> None:
    """An outage of what checks keys; a scan in many names looks the same."""
    found = judge("sources", [broken(n, START_US + n * 1_000_000, status=401, stranger=True) for n in range(60)])
    assert {incident.key_id for incident in found} == {"fleet:refused requests with 4xx"}
    assert "what checks keys fails, or somebody names keys that he does not hold" in found[-1].text
    assert "one cause" not in found[-1].text


def test_made_up_routes_in_keys_names_are_no_causes_of_their_own() -> None:
    judged = core("sources")
    for part in slices(scan(3_000, START_US)):
        judged.process(part)
    assert len(judged.judge.outbreak.causes) == 1  # type: ignore[attr-defined]
