"""One source and many keys: thieves, guessers, and those who look like them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.sighting import Sighting
from tests.pipeline.topologies.messages import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    START_US,
    Told,
    core,
    judge,
    restored,
    sighting,
    slices,
)

NOW_US = START_US + 8 * DAY_US


def stolen(keys: int, step_us: int = MINUTE_US, at_us: int = NOW_US, **more: Any) -> list[Sighting]:
    """A batch of keys of unrelated owners, one after the other, from one address."""
    return [sighting(f"key_{n}", at_us + n * step_us, owner=f"owner_{n}", **more) for n in range(keys)]


def office(days: int, joiners: int) -> list[Sighting]:
    """Each day some keys of one company come to its office's address for the first time."""
    return [
        sighting(f"key_{day}_{n}", START_US + day * DAY_US + n * MINUTE_US, owner="acme", asn=64501)
        for day in range(days)
        for n in range(joiners)
    ]


def vpn_exit(weeks: int) -> list[Sighting]:
    """An exit that customers of many owners come to, all at the same hour, each week twice as many as in the last."""
    return [
        sighting(f"key_{day}_{n}", START_US + day * DAY_US + n * MINUTE_US, owner=f"o_{day}_{n}", elsewhere=True)
        for day in range(weeks * 7)
        for n in range(2 ** (day // 7))
    ]


def test_a_stolen_batch_used_from_one_rented_server_is_one_incident_that_names_source_and_keys() -> None:
    found = judge("sources", stolen(20, elsewhere=True, network="Exemplu Hosting"))
    assert {incident.incident_id for incident in found} == {found[0].incident_id}
    last = found[-1]
    assert (last.key_id, last.rule, last.severity, last.rung) == ("source:198.51.7.0/24", "spray", "critical", "deny")
    assert last.keys[:3] == ("key_0", "key_1", "key_2")
    assert "18 valid keys of 18 unrelated owners" in last.text
    assert "AS64500 Exemplu Hosting, RO" in last.text
    assert "key_0, key_1, key_2, key_3, key_4 and" in last.text


def test_it_is_told_by_the_sixth_owner() -> None:
    assert len(judge("sources", stolen(6))) == 1
    assert judge("sources", stolen(4)) == []


def test_a_batch_spread_over_a_day_is_found_too() -> None:
    found = judge("sources", stolen(16, step_us=100 * MINUTE_US, elsewhere=True))
    assert found
    assert "in a day" in found[-1].text


def test_a_batch_over_many_addresses_of_one_hosting_network_is_found() -> None:
    spread = [
        sighting(f"key_{n}", NOW_US + n * MINUTE_US, address=n, owner=f"owner_{n}", elsewhere=True) for n in range(24)
    ]
    found = judge("sources", spread)
    assert {incident.key_id for incident in found} == {"source:AS64500"}
    assert found[0].rule == "spray"


def test_a_carriers_new_network_is_one_incident_of_the_fleet_and_no_theft() -> None:
    """Described: a provider renumbers, or a geo database calls its network by another name."""
    carrier = [sighting(f"key_{n}", NOW_US + n * MINUTE_US, address=n, owner=f"owner_{n}") for n in range(60)]
    found = judge("sources", carrier)
    assert {(incident.rule, incident.rung) for incident in found} == {("outbreak", "observe")}
    assert len({incident.incident_id for incident in found}) == 1
    assert "not a theft" in found[0].text


def test_an_office_where_a_companys_keys_turn_up_is_silent() -> None:
    assert judge("sources", office(days=5, joiners=40)) == []


def test_an_exit_where_many_keys_are_usual_is_silent_and_a_batch_there_is_still_found() -> None:
    usual = vpn_exit(weeks=5)
    assert judge("sources", usual) == []
    batch = stolen(100, at_us=START_US + 36 * DAY_US, step_us=10_000_000, elsewhere=True)
    assert len({incident.incident_id for incident in judge("sources", [*usual, *batch])}) == 1


def test_what_was_accused_for_a_week_is_adopted() -> None:
    daily = [told for day in range(30) for told in _customers(day)]
    found = [incident for incident in judge("sources", daily) if incident.change == "opened"]
    assert found
    assert max(incident.opened_at for incident in found) < "2026-06-20"


def _customers(day: int) -> list[Sighting]:
    return [sighting(f"key_{day}_{n}", NOW_US + day * DAY_US + n * MINUTE_US, owner=f"o_{day}_{n}") for n in range(12)]


def test_keys_that_are_hardly_known_say_nothing_of_a_network() -> None:
    """When Keywatch begins to watch, every carrier and cloud is new to all keys that it serves."""
    starting = [
        sighting(f"key_{n}", NOW_US + n * MINUTE_US, address=n, owner=f"o_{n}", elsewhere=True, known_days=2)
        for n in range(60)
    ]
    assert judge("sources", starting) == []
    assert judge("sources", stolen(60, kind="first", elsewhere=True)) == []


def test_a_build_services_fresh_address_is_judged_by_its_others() -> None:
    """Runners: each address is new, and brings the keys of a few customers."""
    runners = [
        sighting(
            f"key_{run}_{n}",
            START_US + run * HOUR_US + n * MINUTE_US,
            address=run % 250,
            owner=f"o_{run}_{n}",
            known_days=run // 24,
        )
        for run in range(800)
        for n in range(3)
    ]
    assert judge("sources", runners[: 3 * 400]) == []
    six = [sighting(f"late_{n}", START_US + 900 * HOUR_US + n, address=251, owner=f"p_{n}") for n in range(6)]
    assert judge("sources", six)
    assert judge("sources", [*runners, *six]) == []


def test_guessing_is_told_once_and_graver_when_it_succeeds() -> None:
    tried = [sighting(f"made_up_{n}", NOW_US + n * 1_000_000, kind="refused") for n in range(30)]
    found = judge("sources", [*tried, sighting("key_9", NOW_US + 40_000_000, owner="acme")])
    assert [(incident.rule, incident.change, incident.severity) for incident in found] == [
        ("guessing", "opened", "medium"), ("guessing", "escalated", "high"),
    ]  # fmt: skip
    assert "and used 1 that it holds: key_9" in found[-1].text


def test_one_client_with_an_old_key_is_no_guesser() -> None:
    retries = [sighting("key_1", START_US + n * DAY_US, kind="refused") for n in range(30)]
    assert judge("sources", retries) == []


def test_it_closes_when_the_source_is_quiet_for_an_hour() -> None:
    found = judge("sources", [*stolen(8), NOW_US + 3 * HOUR_US])
    assert [incident.change for incident in found][-1] == "closed"


@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(1, 60), max_size=8),
    twice=st.lists(st.integers(0, 49), max_size=20),
    at=st.integers(1, 59),
)
def test_cuts_crashes_and_what_is_told_twice_change_nothing(cuts: list[int], twice: list[int], at: int) -> None:
    told: list[Sighting | int] = [*stolen(30, elsewhere=True), *office(1, 20), NOW_US + 4 * HOUR_US]
    told.sort(key=_time_us)
    log: list[Told] = [*told]
    clean = judge("sources", log)
    assert clean
    assert judge("sources", log, cuts) == clean
    first, *rest = slices(log, [at])
    before = core("sources")
    incidents = before.process(first).incidents
    after = restored(before, "sources")
    for part in rest:
        incidents += after.process(part).incidents
    assert incidents == clean
    doubled = list(log)
    for n in twice:
        doubled.insert(n + 1, doubled[n])
    again = judge("sources", doubled)
    assert [_without_offset(each) for each in again] == [_without_offset(each) for each in clean]


def _time_us(told: Sighting | int) -> int:
    return told if isinstance(told, int) else told.ts_us


def _without_offset(incident: object) -> dict[str, object]:
    import msgspec

    return {name: value for name, value in msgspec.to_builtins(incident).items() if name != "offset"}


def refusals(at_us: int, first: int, count: int = 33) -> list[Sighting]:
    """Made-up keys, each named from another prefix of the thief's network."""
    return [
        sighting(f"made_up_{first + k}", at_us + k, "refused", address=(first + k) % 200 + 20) for k in range(count)
    ]


def test_refusals_from_other_addresses_of_a_network_hide_no_keys_used_there() -> None:
    """They cost nothing, and 32 of them between two uses made the thief's prefix forgotten each time."""
    batch = stolen(20, elsewhere=True)
    noise = [each for n, one in enumerate(batch) for each in refusals(one.ts_us + 1, n * 33)]
    told: list[Sighting] = sorted([*batch, *noise], key=lambda each: each.ts_us)
    found = judge("sources", told)
    spray = [each for each in found if each.rule == "spray"]
    assert spray and spray[-1].key_id == "source:198.51.7.0/24"
    assert spray[-1].keys == judge("sources", batch)[-1].keys


def test_where_keys_are_used_from_as_many_prefixes_as_are_known_refusals_take_no_place() -> None:
    batch = stolen(20, elsewhere=True)
    places = [
        sighting(f"own_{n}_{k}", one.ts_us + 1 + k, address=220 + k, owner="acme")
        for n, one in enumerate(batch)
        for k in range(31)
    ]
    noise = [each for n, one in enumerate(batch) for each in refusals(one.ts_us + 40, n * 5, 5)]
    told: list[Sighting] = sorted([*places, *batch, *noise], key=lambda each: each.ts_us)
    found = judge("sources", told)
    assert "source:198.51.7.0/24" in {each.key_id for each in found if each.rule == "spray"}
