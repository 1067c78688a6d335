"""What is done to a key against what is done with it: thieves, developers, and the intruder of a real log."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.intake.key_events import route
from schemas.key_event import KeyEvent
from tests.pipeline.topologies.messages import DAY_US, HOUR_US, MINUTE_US, START_US, core, judge, restored, slices
from tests.real_data import real

OFFICE = "130.149.7.7"  # a German university
CLOUD_AT_HOME = "3.120.9.9"  # Amazon, Frankfurt
TOR = "185.220.101.4"
RENTED_ABROAD = "128.199.200.7"  # DigitalOcean, Singapore
FAR = "45.155.205.7"


def event(kind: str, at_us: int, key: str = "key_1", **more: Any) -> KeyEvent:
    return msgspec.convert({"key_id": key, "ts_us": at_us, "kind": kind, **more}, KeyEvent)


def made(at_us: int, key: str = "key_1", role: str = "admin", **more: Any) -> KeyEvent:
    said = {"actor": "user_1", "actor_role": role, "environment": "live", "client_ip": OFFICE, **more}
    return event("created", at_us, key, **said)


def used(at_us: int, address: str, key: str = "key_1") -> KeyEvent:
    return event("used", at_us, key, client_ip=address)


def test_a_live_key_made_by_no_admin_and_used_within_the_hour_from_a_rented_server_abroad() -> None:
    (found,) = judge("lifecycle", [made(START_US, role="member"), used(START_US + 10 * MINUTE_US, RENTED_ABROAD)])
    assert (found.key_id, found.rule, found.severity) == ("key_1", "lifecycle", "medium")
    assert "made by somebody who is no admin (user_1)" in found.text
    assert "used within the hour from another network" in found.text
    assert "made in DE" in found.text


def test_a_key_service_that_tells_later_than_the_worker_changes_nothing() -> None:
    log = [used(START_US + 10 * MINUTE_US, RENTED_ABROAD), made(START_US, role="member")]
    (found,) = judge("lifecycle", log)
    assert "used within the hour from another network" in found.text
    assert judge("lifecycle", [used(START_US - MINUTE_US, RENTED_ABROAD), made(START_US, role="member")]) == []


def test_a_developer_who_makes_a_key_in_the_office_and_deploys_it_is_no_incident() -> None:
    deploys = [told for n in range(40) for told in _deployed(n)]
    assert judge("lifecycle", deploys) == []


def _deployed(n: int) -> list[KeyEvent]:
    at_us, key = START_US + n * DAY_US, f"key_{n}"
    return [made(at_us, key), used(at_us + 5 * MINUTE_US, CLOUD_AT_HOME, key)]


def test_where_everybody_makes_keys_abroad_at_once_it_is_usual() -> None:
    usual = [
        told
        for n in range(60)
        for told in (
            made(START_US + n * DAY_US, f"key_{n}", role="member"),
            used(START_US + n * DAY_US + MINUTE_US, FAR, f"key_{n}"),
        )
    ]
    found = [incident for incident in judge("lifecycle", usual) if incident.change == "opened"]
    assert all(incident.key_id < "key_2" for incident in found if len(incident.key_id) == 5)
    assert len(found) <= 10
    assert not [incident for incident in found if incident.opened_at > "2026-06-25"]


def test_a_key_that_is_shown_and_then_used_from_a_new_network_after_more_scopes_and_in_bulk() -> None:
    log = [
        made(START_US), used(START_US + 3 * HOUR_US, OFFICE),
        event("scope_changed", START_US + DAY_US, scopes=("orders:read", "export"), scopes_before=("orders:read",)),
        event("revealed", START_US + DAY_US, actor="user_9"), used(START_US + DAY_US + 9 * MINUTE_US, TOR),
        event("bulk", START_US + DAY_US + 20 * MINUTE_US, bits=12.0),
    ]  # fmt: skip
    found = judge("lifecycle", log)
    assert found
    assert "after it was shown (user_9" in found[-1].text
    assert "in bulk within a day after it was given more scopes (with export)" in found[-1].text


def test_a_bulk_read_alone_and_more_scopes_alone_are_nothing() -> None:
    log = [made(START_US), used(START_US + 3 * HOUR_US, OFFICE), event("bulk", START_US + DAY_US, bits=30.0)]
    log += [event("scope_changed", START_US + 2 * DAY_US, scopes=("a", "b"), scopes_before=("a",))]
    assert judge("lifecycle", log) == []


def test_who_departed_and_comes_back_by_another_network() -> None:
    log = [
        made(START_US), used(START_US + 3 * HOUR_US, OFFICE), event("owner_departed", START_US + 9 * DAY_US),
        event("revealed", START_US + 9 * DAY_US, actor="user_1"), used(START_US + 9 * DAY_US + 5 * MINUTE_US, FAR),
    ]  # fmt: skip
    (found,) = judge("lifecycle", log)
    assert "after its owner had departed" in found.text


def test_a_test_key_is_nobodys_business() -> None:
    log = [made(START_US, role="member", environment="test"), used(START_US + MINUTE_US, OFFICE)]
    assert judge("lifecycle", log) == []


def invictus() -> list[KeyEvent]:
    """All that the real log says of access keys, in the order of time."""
    out = []
    for file in sorted(real("cloudtrail-invictus").glob("*.json")):
        messages = route(file.read_bytes(), "cloudtrail_keys", file.name)
        out += [msgspec.json.decode(each.value, type=KeyEvent) for each in messages if each.lane == "key_events"]
    return sorted(out, key=lambda told: told.ts_us)


def test_the_intruder_of_the_invictus_log_who_mints_keys_with_a_stolen_one_is_found() -> None:
    log = invictus()
    assert [told.kind for told in log] == ["created", "created", "ended", "ended"]
    assert {told.actor_role for told in log if told.kind == "created"} == {"key"}
    found = judge("lifecycle", log)
    assert found[0].key_id == "AKIATFQR7NSC3ZO6PKAZ"
    assert "made by another key" in found[0].text


def test_a_pipeline_that_makes_keys_every_day_becomes_usual() -> None:
    """Near miss: Terraform makes the same events as the intruder, day after day."""
    log = [
        made(START_US + n * DAY_US, f"key_{n:02}", role="key", actor="terraform", owner=f"service_{n}")
        for n in range(60)
    ]
    found = [incident for incident in judge("lifecycle", log) if incident.change == "opened"]
    assert 1 <= len(found) <= 8
    assert max(incident.key_id for incident in found) < "key_20"


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, 40), max_size=6),
    at=st.integers(1, 39),
    twice=st.lists(st.integers(0, 39), max_size=10),
)
def test_cuts_crashes_and_repeats_change_nothing(cuts: list[int], at: int, twice: list[int]) -> None:
    log = [told for n in range(20) for told in _abroad(n)]
    clean = judge("lifecycle", log)
    assert clean
    assert judge("lifecycle", log, cuts) == clean
    before = core("lifecycle")
    first, second = slices(log, [at])
    found = before.process(first).incidents
    assert found + restored(before, "lifecycle").process(second).incidents == clean
    doubled = list(log)
    for n in sorted(twice, reverse=True):
        doubled.insert(n + 1, doubled[n])
    assert [each.text for each in judge("lifecycle", doubled)] == [each.text for each in clean]


def _abroad(n: int) -> list[KeyEvent]:
    at_us, key = START_US + n * HOUR_US, f"key_{n}"
    role = "member" if n % 3 == 0 else "admin"
    return [made(at_us, key, role=role), used(at_us + MINUTE_US, (RENTED_ABROAD, CLOUD_AT_HOME)[n % 2], key)]
