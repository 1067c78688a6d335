"""A way that nobody has reviewed is told when it is learned: by the incident that had told of it, open or closed."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.asking.answers import _learned_words
from pipeline.respond.delivery.notice import of_incident
from pipeline.state.partition import KEPT_US, State
from pipeline.times import rfc3339
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline import said
from tests.pipeline.log_of_requests import HOUR_US, START_US, Outcome, Record, core, record, slices
from tests.pipeline.test_flow import restored

DAY_US = 24 * HOUR_US
HISTORY_DAYS = 120
MOVED_US = START_US + (HISTORY_DAYS + 1) * DAY_US


def calls(first_day: int, days: int, client_ip: str, user_agent: str, new: str) -> list[Record]:
    """Four visits a day of three calls each; the first call of a visit goes to `new`."""
    return [
        record(Event(
            key_id="pk_7", ts_us=START_US + day * DAY_US + visit * 3 * HOUR_US + k * 60_000_000, client_ip=client_ip,
            method=new.split()[0] if k == 0 else "GET", route=new.split()[1] if k == 0 else f"/v1/{k}", status=200,
            outcome="success", user_agent=user_agent, request_id=f"{day}/{visit}/{k}",
        ))
        for day in range(first_day, first_day + days) for visit in range(4) for k in range(3)
    ]  # fmt: skip


LOG = [
    *calls(0, HISTORY_DAYS, "8.8.8.8", "curl/8", "GET /v1/0"),
    *calls(HISTORY_DAYS + 1, 9, "185.220.101.4", "Go-http-client/2", "POST /v1/export"),
]
FIRST = 12 * HISTORY_DAYS


def judged(cuts: list[int], crash_at: int = -1) -> Outcome:
    judge, outcome = core(), Outcome()
    for batch in slices(LOG, cuts):
        if batch.first == crash_at:
            outcome.finish(judge.due_rows())
            judge = restored(judge)
            outcome.finish(judge.adopt(said.sides()))
        outcome.take(judge.process(batch))
    outcome.finish(judge.due_rows())
    return outcome


@pytest.fixture(scope="module")
def clean() -> Outcome:
    return judged([])


def test_an_incident_that_is_over_says_that_its_way_is_learned_now(clean: Outcome) -> None:
    told = list(clean.incidents.values())
    assert len({each.incident_id for each in told}) == 1
    assert [each.revision for each in told] == list(range(1, len(told) + 1))
    assert [each.adopted for each in told] == [False] * (len(told) - 1) + [True]
    before, last = told[-2:]
    assert (before.state, last.state, last.change, last.closed_at) == ("closed", "closed", "closed", before.closed_at)
    assert rfc3339(MOVED_US + 7 * DAY_US) <= last.last_at < rfc3339(MOVED_US + 8 * DAY_US)
    (row,) = (msgspec.json.decode(row[-2]) for row in clean.rows["incidents"].values())
    assert row["adopted"] is True, "what `keywatch report` looks for"
    assert "adopted unreviewed" in _learned_words(last)[0]
    assert "adopted unreviewed" in of_incident(last).text
    assert "adopted unreviewed" not in of_incident(before).text


@pytest.mark.parametrize("crash_at", [FIRST + 40, FIRST + 84])
def test_a_crash_between_the_closing_and_the_adoption_changes_nothing(clean: Outcome, crash_at: int) -> None:
    other = judged([FIRST + 1, FIRST + 40, FIRST + 84], crash_at)
    assert other.incidents == clean.incidents
    assert {t: r for t, r in other.rows.items() if t != "adoptions"} == {
        t: r for t, r in clean.rows.items() if t != "adoptions"
    }


def test_a_closed_incident_is_kept_for_as_long_as_its_way_can_be_adopted(clean: Outcome) -> None:
    closed = next(each for each in clean.incidents.values() if each.state == "closed")
    state = State()
    slots = [state.add_key(f"k{i}", None) for i in range(3)]
    late: Incident = msgspec.structs.replace(closed, closed_at=rfc3339(MOVED_US + KEPT_US + 2 * HOUR_US))
    state.keep_closed(slots[0], closed)
    state.keep_closed(slots[1], late)
    assert (list(state.closed), list(state.incidents.rows)) == ([slots[1]], [slots[1]])
    state.drop_key(slots[1])
    assert (state.closed, state.incidents.rows) == ({}, {})
