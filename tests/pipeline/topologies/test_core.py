"""The core around the judges: time, poison, what a crash leaves behind; and subjects that come and go."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import Sides, Slice
from pipeline.topologies.core import MAX_MESSAGE_BYTES
from pipeline.topologies.episodes import Episode
from pipeline.topologies.register import Register
from schemas.incident import Incident
from tests.pipeline.log_of_requests import GEO, Declared
from tests.pipeline.topologies.messages import DAY_US, HOUR_US, MINUTE_US, START_US, core, restored, sighting, slices
from tests.pipeline.topologies.test_lifecycle import RENTED_ABROAD, made, used
from tests.pipeline.topologies.test_spray import NOW_US, stolen


def bad(value: bytes, key: bytes | None = b"AS64500") -> Slice:
    return Slice("api.sightings", 0, [0], [key], [value], [START_US // 1000])


def test_what_is_no_message_is_refused_without_its_payload_and_moves_no_time() -> None:
    good = msgspec.json.encode(sighting("key_1", START_US))
    cases = {
        "invalid": (bad(b"{"), bad(b'{"what":"nothing"}'), bad(good, b"AS1"), bad(b"\xff\xfe")),
        "unkeyed": (bad(good, None),),
        "too_large": (bad(b" " * (MAX_MESSAGE_BYTES + 1)),),
    }
    for reason, batches in cases.items():
        for batch in batches:
            judge = core("sources")
            effects = judge.process(batch)
            assert [(each.reason, each.payload) for each in effects.rejects] == [(reason, None)]
            assert judge.watermark_us == 0
            assert judge.next_offset == 1


@given(st.binary(max_size=200), st.sampled_from(["sources", "lifecycle"]))
def test_no_bytes_make_it_fail(value: bytes, topology: str) -> None:
    effects = core(topology).process(bad(value))
    assert len(effects.rejects) == 1
    assert not effects.incidents


def test_a_message_of_the_future_moves_time_no_further_than_its_record() -> None:
    ahead = msgspec.json.encode(sighting("key_1", START_US + DAY_US))
    judge = core("sources")
    judge.process(bad(ahead))
    assert judge.watermark_us == START_US // 1000 * 1000 - 120_000_000


def test_incidents_are_rows_with_findings_that_name_them() -> None:
    effects = core("sources").process(slices(stolen(8))[0])
    assert effects.rows["incidents"]["key_id"] == ["source:198.51.7.0/24"] * len(effects.incidents)
    assert set(effects.rows["findings"]["incident_id"]) == {effects.incidents[0].incident_id}
    assert effects.counts["findings.spray"] == len(effects.incidents)


def test_after_a_crash_what_only_the_topic_knows_is_closed_and_the_rest_goes_on_above_it() -> None:
    log = [made(START_US, role="member"), used(START_US + MINUTE_US, RENTED_ABROAD)]
    judge = core("lifecycle")
    (opened,) = judge.process(slices(log)[0]).incidents
    lost = msgspec.structs.replace(opened, incident_id="f" * 32, key_id="key_9", revision=4)
    others = [msgspec.structs.replace(lost, partition=7), msgspec.structs.replace(lost, rule="visit")]
    newer = msgspec.structs.replace(opened, revision=6)
    (closed,) = judge.disown([newer, lost, *others]).incidents
    assert (closed.incident_id, closed.change, closed.revision) == ("f" * 32, "closed", 5)
    later = slices([START_US + 3 * DAY_US], first=2)[0]
    (ended,) = restored(judge, "lifecycle").process(later).incidents
    assert (ended.incident_id, ended.change, ended.revision) == (opened.incident_id, "closed", 7)


def test_what_was_closed_after_a_crash_opens_above_its_closing_when_it_is_judged_again() -> None:
    """Who keeps the highest revision of each incident would not see it otherwise; also after one more crash."""
    log = [made(START_US, role="member"), used(START_US + MINUTE_US, RENTED_ABROAD)]
    first, second = slices(log[:1])[0], slices(log[1:], first=1)[0]
    judge = core("lifecycle")
    judge.process(first)
    (opened,) = restored(judge, "lifecycle").process(second).incidents  # and died before a checkpoint
    again = restored(judge, "lifecycle")
    (closed,) = again.disown([opened]).incidents
    for life in (again, restored(again, "lifecycle")):
        (reopened,) = life.process(second).incidents
        assert (reopened.incident_id, reopened.state) == (opened.incident_id, "open")
        assert reopened.revision == closed.revision + 1
        life.due_rows()
        assert b"spent\x80" in life.meta(), "nothing is kept of it once it is judged again"


def test_what_was_closed_on_the_topic_is_opened_above_that() -> None:
    log = [made(START_US, role="member"), used(START_US + MINUTE_US, RENTED_ABROAD)]
    (opened,) = core("lifecycle").process(slices(log)[0]).incidents
    ended = msgspec.structs.replace(opened, revision=2, state="closed", change="closed")
    judge = core("lifecycle")
    assert judge.disown([ended]).incidents == []
    (reopened,) = judge.process(slices(log)[0]).incidents
    assert (reopened.incident_id, reopened.revision) == (opened.incident_id, 3)


def test_a_new_geo_database_is_told_as_a_row() -> None:
    judge = core("lifecycle")
    assert judge.adopted(Sides(Declared(), GEO, ""))

    class Newer:
        build = "newer"

    assert not judge.adopted(Sides(Declared(), Newer(), ""))
    rows = judge.adopt(Sides(Declared(), Newer(), ""))
    assert rows["adoptions"]["version_id"] == ["newer"]
    assert judge.adopt(Sides(Declared(), Newer(), "")) == {}


def test_the_same_source_opens_one_incident_a_day() -> None:
    log = [told for n in range(6) for told in stolen(7, at_us=NOW_US + n * 3 * HOUR_US)]
    renamed = [msgspec.structs.replace(told, key_id=f"{told.key_id}_{n // 7}") for n, told in enumerate(log)]
    judge = core("sources")
    found = [each for part in slices(renamed) for each in judge.process(part).incidents]
    assert [each.change for each in found if each.rule == "spray"].count("opened") == 1


def episode(last_us: int) -> Episode:
    incident = Incident(
        incident_id="0" * 32, key_id="k", rule="spray", revision=1, change="opened", state="open", severity="medium",
        rung="flag", opened_at="2026-06-01T00:00:00Z", last_at="2026-06-01T00:00:00Z",
    )  # fmt: skip
    return Episode(incident, last_us, last_us, 1)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["add", "drop", "touch", "save"])), max_size=120),
    st.integers(1, 12),
)
def test_a_register_is_bounded_and_comes_back_as_it_was_saved(steps: list[tuple[int, str]], most: int) -> None:
    register: Register[Episode] = Register("some", Episode, most)
    for at, (number, what) in enumerate(steps):
        name = f"s{number}"
        known = register.get(name)
        if what == "add" and known is None:
            register.add(name, episode(at))
        elif what == "drop" and known is not None:
            register.drop(name)
        elif what == "touch" and known is not None:
            known.last_us = at
            register.touch(name)
        elif what == "save":
            register.save()
        assert len(register) <= most
    register.save()
    again: Register[Episode] = Register("some", Episode, most)
    again.blobs.rows = dict(register.blobs.rows)
    again.restore()
    assert {name: again.get(name) for name in again} == {name: register.get(name) for name in register}
    rows = [register._rows[name] for name in register]
    assert len(set(rows)) == len(rows)
