"""Whether the gateway obeys, out of the stream alone: never too early, nor by a late or skewed event, nor twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.respond.act import act_id
from pipeline.respond.adapters.adapter import Intent, Support
from pipeline.respond.audit import rfc3339
from pipeline.respond.enforcement.proof import MAX_TOLD, Enforcement, Verdict, Watch
from pipeline.respond.render import standard
from schemas.event import Event
from tests.pipeline.respond.incidents import NOW_S

SKEW_S, ALLOWANCE_S = 5.0, 10.0
AFTER_S = ALLOWANCE_S + SKEW_S + 1.0


def watch(**changes: Any) -> Watch:
    """A suspension, confirmed at `NOW_S`, but for the changes."""
    intent = Intent(
        act_id=act_id("k1", 1, "suspend"), response_id="r1", incident_id="i1", key_id="k1", key_version=1,
        granted_at=rfc3339(NOW_S - 1), granted_at_s=NOW_S - 1, reason="odd", rung="suspend",
    )  # fmt: skip
    return msgspec.structs.replace(Watch.of(intent, NOW_S, Support("key", ALLOWANCE_S, undo=True)), **changes)


def us(after_s: float) -> int:
    return int((NOW_S + after_s) * 1e6)


def request(after_s: float, status: int = 200, **changes: Any) -> Event:
    """One request so many seconds after the confirmation, by the gateway's clock."""
    outcome = "success" if status < 400 else "disabled"
    values: dict[str, Any] = {"key_id": "k1", "ts_us": us(after_s), "status": status, "outcome": outcome}
    return Event(**(values | changes))


class Stream:
    """One enforcement and the offsets of its partition."""

    def __init__(self, *watches: Watch, **settings: float) -> None:
        self.enforcement, self.offset = Enforcement(SKEW_S, **settings), 0
        for each in watches or (watch(),):
            assert self.enforcement.watch(each)

    def see(self, *events: Event, record_s: float | None = None) -> list[str]:
        """The verdicts' words; records come into the log when the requests were made, or `record_s` after."""
        found: list[Verdict] = []
        for event in events:
            self.offset += 1
            found += self.enforcement.seen(event, self.offset, event.ts_us if record_s is None else us(record_s))
        return [verdict.word for verdict in found]


def test_a_success_after_the_allowance_is_broken_and_told_once() -> None:
    stream = Stream()
    assert stream.see(request(AFTER_S), request(AFTER_S + 1), request(AFTER_S + 2)) == ["broken"]


@pytest.mark.parametrize("after_s", [-3600.0, -0.1, 0.1, ALLOWANCE_S, ALLOWANCE_S + SKEW_S])
def test_a_success_from_before_or_within_the_allowance_says_nothing(after_s: float) -> None:
    assert Stream().see(request(after_s)) == []


def test_a_refusal_proves_it_and_measures_the_time_from_the_last_success_on() -> None:
    stream = Stream()
    events = (request(1.0), request(2.0, 403), request(3.0), request(4.5, 403), request(9.0, 403))
    verdicts = [v for n, each in enumerate(events) for v in stream.enforcement.seen(each, n, each.ts_us)]
    assert [(v.word, v.effect_s) for v in verdicts] == [("enforced", 4.5)]


def test_a_key_that_works_again_a_day_later_is_broken_though_it_was_proven() -> None:
    assert Stream().see(request(6.0, 401), request(80_000.0)) == ["enforced", "broken"]


def test_what_was_broken_and_is_refused_at_last_is_told_as_enforced() -> None:
    assert Stream().see(request(AFTER_S), request(60.0, 403), request(61.0, 403)) == ["broken", "enforced"]


def test_silence_is_unproven_until_a_refusal_is_seen() -> None:
    stream = Stream()
    assert stream.enforcement.due(us(AFTER_S)) == []
    assert [v.word for v in stream.enforcement.due(us(1000.0))] == ["unproven"]
    assert stream.enforcement.due(us(1010.0)) == []
    assert stream.see(request(1020.0, 403)) == ["enforced"]


@pytest.mark.parametrize("event", [
    request(AFTER_S, outcome="unknown"), request(AFTER_S, outcome="invalid"), request(AFTER_S, status=304),
    request(AFTER_S, 500, outcome="success"), request(AFTER_S, key_id="k2"),
    request(AFTER_S, 429, outcome="rate_limited"),
])  # fmt: skip
def test_only_an_authenticated_success_of_this_key_breaks_and_a_rate_limit_proves_no_suspension(event: Event) -> None:
    assert set(Stream().see(event)) <= {"enforced"}
    assert Stream().see(event) == ([] if event.outcome != "invalid" else ["enforced"])


def test_an_undone_act_is_watched_no_more_and_neither_is_one_that_ended_by_itself() -> None:
    stream = Stream()
    stream.enforcement.ended("r1")
    assert stream.see(request(AFTER_S)) == []
    assert stream.enforcement.keys() == frozenset()
    assert Stream(watch(until_us=us(3600.0))).see(request(3600.0), request(3600.0 - SKEW_S)) == []
    assert Stream(watch(until_us=us(3600.0))).see(request(3590.0)) == ["broken"]


def test_a_fence_is_broken_from_elsewhere_alone() -> None:
    fence = watch(rung="fence", networks=("192.0.2.0/24", "2001:db8::/32"))
    inside = [request(AFTER_S, client_ip=each) for each in ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.9", "", "x")]
    assert Stream(fence).see(*inside) == []
    assert Stream(fence).see(request(AFTER_S, client_ip="198.51.100.1")) == ["broken"]
    assert Stream(fence).see(request(AFTER_S, 403, client_ip="192.0.2.7")) == []
    assert Stream(fence).see(request(AFTER_S, 403, client_ip="198.51.100.1")) == ["enforced"]


def test_denied_scopes_and_no_others_are_watched() -> None:
    deny = watch(rung="deny", scopes=("keys:write",))
    assert Stream(deny).see(request(AFTER_S, scope="keys:read")) == []
    assert Stream(deny).see(request(AFTER_S, scope="keys:write")) == ["broken"]
    assert Stream(deny).see(request(AFTER_S, 403, scope="keys:write")) == ["enforced"]


@pytest.mark.parametrize("event", [
    request(AFTER_S, scope="Keys:write"), request(AFTER_S, scope="keys:write2"),
    request(AFTER_S, scope="keys:read", route="keys:write"), request(AFTER_S, route="keys:write"),
])  # fmt: skip
def test_where_scopes_are_no_routes_they_are_meant_literally_whatever_the_route(event: Event) -> None:
    assert Stream(watch(rung="deny", scopes=("keys:write", "keys:*"))).see(event) == []


def test_a_throttle_is_broken_by_more_than_twice_its_rate_within_a_minute() -> None:
    throttle = watch(rung="throttle", limit_per_s=1.0)
    start_s = 60.0 - NOW_S % 60 + 60
    usual = [request(start_s + n * 0.5) for n in range(119)]
    assert Stream(throttle).see(*usual) == []
    assert Stream(throttle).see(*[request(start_s + n * 0.3) for n in range(199)]) == ["broken"]
    assert Stream(throttle).see(request(AFTER_S, 429, outcome="rate_limited"), *usual) == ["enforced"]


@pytest.mark.parametrize("rung", ["observe", "flag"])
def test_what_stops_nothing_is_not_watched(rung: str) -> None:
    assert not Enforcement().watch(watch(rung=rung))


def test_of_a_rotation_the_first_request_with_its_new_key_that_is_let_in_says_that_it_is_used_and_silence_nothing() -> (
    None
):
    stream = Stream(watch(rung="rotate"))
    assert (stream.enforcement.silent(us(9_999)), stream.enforcement.due(us(9_999))) == ([], [])
    words = [each for status in (401, 403, 500, 200, 200) for each in stream.see(request(3.0, status))]
    assert words == ["used"]


def test_what_the_ledger_has_in_force_is_followed_and_an_old_act_is_not_taken_up_again() -> None:
    enforcement = Enforcement(SKEW_S, watch_s=3600.0)
    enforcement.follow([watch(), watch(response_id="r2", key_id="k2")], us(1.0))
    enforcement.seen(request(20.0), 0, us(20.0))
    enforcement.follow([watch()], us(21.0))
    assert [each.response_id for each in enforcement.watched()] == ["r1"]
    assert enforcement.seen(request(22.0), 1, us(22.0)) == []  # told already: it is the same watch
    enforcement.due(us(3601.0))
    enforcement.follow([watch()], us(3601.0))
    assert enforcement.watched() == ()


def test_a_gateway_that_obeys_now_and_then_is_told_but_not_for_ever() -> None:
    stream = Stream()
    flapping = [request(AFTER_S + n, 403 if n % 2 else 200) for n in range(500)]
    assert len(stream.see(*flapping)) == MAX_TOLD


def test_a_request_is_never_later_than_its_record() -> None:
    ahead = request(3600.0)  # by a gateway whose clock is an hour ahead; its record came before the act
    assert Stream().see(ahead, record_s=-1.0) == []


@dataclass(frozen=True)
class Made:
    """One request in true time, and how it is told."""

    true_s: float
    skew_s: float  # of its gateway's clock
    delay_s: float  # until its record is in the log


MADE = st.builds(Made, st.floats(-100, 400), st.floats(-SKEW_S, SKEW_S), st.floats(0, 300))


def log_of(made: list[Made], obeys_from_s: float) -> list[tuple[Event, int]]:
    """(event, record's time) in the log's order, of a gateway that refuses from then on."""
    ordered = sorted(made, key=lambda each: each.true_s + each.delay_s)
    return [
        (request(each.true_s + each.skew_s, 200 if each.true_s < obeys_from_s else 403), us(each.true_s + each.delay_s))
        for each in ordered
    ]


def verdicts_of(enforcement: Enforcement, log: list[tuple[Event, int]]) -> list[Verdict]:
    return [v for n, (event, record_us) in enumerate(log) for v in enforcement.seen(event, n, record_us)]


@settings(max_examples=300)
@given(made=st.lists(MADE, max_size=40), obeys_from_s=st.floats(0, ALLOWANCE_S))
def test_a_gateway_that_obeys_within_the_allowance_is_never_called_broken_by_skew_or_lateness(
    made: list[Made], obeys_from_s: float
) -> None:
    enforcement = Enforcement(SKEW_S)
    enforcement.watch(watch())
    found = verdicts_of(enforcement, log_of(made, obeys_from_s))
    assert {verdict.word for verdict in found} <= {"enforced"}
    late = [each for each in made if each.true_s > ALLOWANCE_S + 3 * SKEW_S]
    assert len(found) == 1 or not late
    assert all(verdict.effect_s >= 0 for verdict in found)


@settings(max_examples=300)
@given(made=st.lists(MADE, max_size=40))
def test_a_gateway_that_does_not_obey_is_called_broken_by_any_later_success_however_late_it_is_told(
    made: list[Made],
) -> None:
    enforcement = Enforcement(SKEW_S)
    enforcement.watch(watch())
    found = verdicts_of(enforcement, log_of(made, 1e9))
    surely = any(each.true_s > ALLOWANCE_S + 2 * SKEW_S + 0.001 for each in made)
    never = all(each.true_s < ALLOWANCE_S for each in made)
    assert [verdict.word for verdict in found] == (["broken"] if found else [])
    assert found or not surely
    assert not (found and never)


@settings(max_examples=200)
@given(
    made=st.lists(MADE, max_size=40),
    obeys_from_s=st.floats(0, 100),
    crash_at=st.integers(0, 40),
    back=st.integers(0, 40),
)
def test_a_restart_says_the_same_again_and_reading_twice_says_nothing_new(
    made: list[Made], obeys_from_s: float, crash_at: int, back: int
) -> None:
    log = log_of(made, obeys_from_s)
    whole = Enforcement(SKEW_S)
    whole.watch(watch())
    expected = [verdict.message_id for verdict in verdicts_of(whole, log)]
    assert verdicts_of(whole, log[-back:]) == []

    dying = Enforcement(SKEW_S)
    dying.watch(watch())
    before = [verdict.message_id for verdict in verdicts_of(dying, log[:crash_at])]
    reborn = Enforcement(SKEW_S)
    reborn.watch(watch())
    after = [verdict.message_id for verdict in verdicts_of(reborn, log)]
    assert after == expected
    assert after[: len(before)] == before


def test_a_second_key_on_the_same_partition_makes_the_log_be_read_again_without_harm() -> None:
    enforcement = Enforcement(SKEW_S)
    enforcement.watch(watch(rung="throttle", limit_per_s=1.0))
    events = [(request(100 + n * 0.4), us(100 + n * 0.4)) for n in range(100)]
    assert verdicts_of(enforcement, events) == []
    enforcement.watch(watch(response_id="r2", key_id="k2"))
    assert verdicts_of(enforcement, events) == []


def test_a_verdict_is_a_line_of_the_audit_and_a_message() -> None:
    (verdict,) = one_verdict()
    line = verdict.response()
    assert (line.stage, line.response_id, line.key_id) == ("broken", "r1", "k1")
    message = msgspec.json.decode(standard.body(verdict.notice()))
    assert (message["type"], message["data"]["severity"]) == ("response.broken", "critical")
    assert verdict.message_id == f"enf_r1_broken_{us(AFTER_S)}"


def one_verdict() -> list[Verdict]:
    enforcement = Enforcement(SKEW_S)
    enforcement.watch(watch())
    return enforcement.seen(request(AFTER_S), 0, us(AFTER_S))
