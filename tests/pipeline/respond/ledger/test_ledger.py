"""The ledger: whatever the order of proposals, crashes and clocks, no cap is exceeded and no act granted twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.policy import Approver
from pipeline.respond.act import act_id, response_id
from pipeline.respond.caps import ROTATION
from pipeline.respond.ledger.entries import Noted, PassedOver, Simulating, Undo, content_of, ticket_of, unread
from pipeline.respond.ledger.ledger import (
    DAY_US,
    HOUR_US,
    Finished,
    Joined,
    Ledger,
    Proposed,
    Record,
    Switched,
    Verdict,
    decode,
    encode,
    share_of,
)


def proposed(key_id: str = "k1", **changes: Any) -> Proposed:
    values: dict[str, Any] = {"incident_id": f"i-{key_id}", "revision": 1, "key_id": key_id, "key_version": 1}
    values |= {"act_id": act_id(key_id, 1), "response_id": response_id(f"i-{key_id}", "revoke", 1), "responder": "a"}
    values |= {"max_per_hour": 3, "max_per_day": 10, "max_share_of_active": 0.5, "active_keys": 1000}
    return Proposed(**(values | changes))


def finished(of: Proposed, result: Any = "done") -> Finished:
    return Finished(act_id=of.act_id, response_id=of.response_id, result=result)


def run(*records: tuple[int, Record | None]) -> tuple[Ledger, list[Verdict]]:
    ledger = Ledger()
    return ledger, [ledger.apply(offset, at_us, record) for offset, (at_us, record) in enumerate(records)]


def test_the_fourth_key_within_an_hour_is_refused() -> None:
    _, verdicts = run(*[(i, proposed(f"k{i}")) for i in range(4)])
    assert [verdict.granted for verdict in verdicts] == [True, True, True, False]
    assert verdicts[3].guard == "caps"
    assert "at most 3" in verdicts[3].reason


def test_an_hour_later_there_is_room_again_until_the_day_is_full() -> None:
    _, verdicts = run(*[(i * HOUR_US // 3 + i, proposed(f"k{i}")) for i in range(12)])
    assert [verdict.granted for verdict in verdicts] == [True] * 10 + [False] * 2
    assert "within the day" in verdicts[10].reason


def test_the_share_of_active_keys_is_rounded_down_and_the_smaller_cap_counts() -> None:
    assert share_of(999, 0.001) == 0
    assert share_of(1000, 0.001) == 1
    assert share_of(3000, 0.001) == 3
    _, verdicts = run((1, proposed("k1", active_keys=1000, max_share_of_active=0.001)),
                      (2, proposed("k2", active_keys=1000, max_share_of_active=0.001)))  # fmt: skip
    assert [verdict.granted for verdict in verdicts] == [True, False]


def noted(of: Proposed, before: str) -> Noted:
    return Noted(act_id=of.act_id, response_id=of.response_id, before=before)


def test_what_was_noted_first_is_what_an_undo_restores_whatever_comes_later() -> None:
    of = proposed(rung="suspend")
    failed = Finished(act_id=of.act_id, response_id=of.response_id, result="expired")
    for ends in (finished(of), failed):
        ledger, _ = run((1, of), (2, noted(of, "open")), (3, noted(of, "shut")), (4, ends), (5, noted(of, "late")))
        act = ledger.act_of(of.act_id)
        assert act is not None
        assert act.before == "open"


def test_another_try_that_found_the_work_of_the_first_does_not_take_it_for_what_was() -> None:
    first = proposed(rung="suspend", act_id="a1", response_id="r1")
    gone = Finished(act_id="a1", response_id="r1", result="expired")
    for second_saw, restores in (("shut", ""), ("open", "open")):
        then = proposed(rung="suspend", act_id="a2", response_id="r2", incident_id="i2")
        ledger, _ = run((1, first), (2, noted(first, "open")), (3, gone), (4, then), (5, noted(then, second_saw)),
                        (6, finished(then)))  # fmt: skip
        act = ledger.act_of("a2")
        assert act is not None
        assert (act.stage, act.before) == ("done", restores)


def test_a_later_releases_record_that_is_no_act_is_passed_over_and_any_other_may_be_one() -> None:
    later = b'{"type": "of_tomorrow", "no_act": true, "what": [1]}'
    assert decode(later) == PassedOver()
    for value in (b'{"type": "of_tomorrow"}', b'{"type": "proposed", "no_act": true}', b"", None, b'{"no_act": true'):
        assert (decode(value) == PassedOver()) == (value == b'{"no_act": true}')
    more = encode(proposed()).replace(b'"key_id"', b'"of_tomorrow":1,"key_id"')
    assert decode(more) == proposed()
    assert unread(b'{"type": "of_tomorrow"}') == "it is of the kind 'of_tomorrow', unknown to this release"
    assert unread(b'{"type": "proposed"}') == unread(b"") == "it is damaged"


def test_unknown_numbers_grant_nothing() -> None:
    for changes in (
        {"active_keys": 0},
        {"max_share_of_active": 0.0},
        {"max_share_of_active": 1.5},
        {"max_per_hour": 0},
    ):
        assert not run((1, proposed(**changes)))[1][0].granted


def test_an_act_that_is_open_or_done_is_not_granted_again_but_a_failed_one_is() -> None:
    first = proposed()
    assert [v.guard for v in run((1, first), (2, first))[1] if not v.granted] == ["already_acted"]
    assert not run((1, first), (2, finished(first)), (3, first))[1][2].granted
    for result in ("failed", "expired"):
        assert run((1, first), (2, finished(first, result)), (3, first))[1][2].granted


def test_what_is_tried_again_counts_once_and_what_failed_still_counts() -> None:
    first = proposed()
    ledger, _ = run((1, first), (2, finished(first, "failed")), (3, first), (4, finished(first, "failed")))
    assert ledger.used(HOUR_US) == 1
    assert not ledger.apply(4, 5, proposed("k2", max_per_hour=1)).granted


def test_another_version_of_a_key_is_another_act() -> None:
    second = proposed(act_id=act_id("k1", 2), key_version=2)
    assert [v.granted for v in run((1, proposed()), (2, second))[1]] == [True, True]


def test_the_kill_switch_on_the_topic_stops_real_acts_until_it_is_taken_back() -> None:
    stop, go = Switched(stop=True, by="ann", reason="drill"), Switched(stop=False, by="ann")
    _, verdicts = run((1, stop), (2, proposed()), (3, proposed("k2", simulated=True)), (4, go), (5, proposed()))
    assert [v.granted for v in verdicts] == [False, False, True, False, True]
    assert verdicts[1].guard == "kill_switch"


def test_the_simulate_switch_lets_only_simulated_acts_through_until_it_is_taken_back() -> None:
    on, off = Simulating(on=True, by="ann", reason="drill"), Simulating(on=False, by="ann")
    _, verdicts = run((1, on), (2, proposed()), (3, proposed("k2", simulated=True)), (4, off), (5, proposed()))
    assert [v.granted for v in verdicts] == [False, False, True, False, True]
    assert (verdicts[1].guard, verdicts[1].reason) == ("mode", "put to simulate by ann: drill")


def test_a_record_that_cannot_be_read_grants_nothing_for_a_day() -> None:
    assert decode(b'{"type":"proposed_v2"}') is None
    _, verdicts = run((1, None), (2, proposed()), (DAY_US, proposed()), (DAY_US + 1, proposed()))
    assert [v.granted for v in verdicts] == [False, False, False, True]


def test_simulated_acts_have_counts_of_their_own() -> None:
    _, verdicts = run(*[(i, proposed(f"k{i}", simulated=i < 3)) for i in range(6)])
    assert all(verdict.granted for verdict in verdicts)


def test_records_come_back_as_they_were_written() -> None:
    for record in (proposed(), finished(proposed()), Joined(responder="a", mark="m"), Switched(stop=True, by="x")):
        assert decode(encode(record)) == record


_keys = st.integers(0, 30).map(lambda i: f"k{i}")
_proposals = st.builds(
    proposed, _keys, responder=st.sampled_from(["a", "b"]), max_per_hour=st.integers(0, 5),
    max_per_day=st.integers(0, 12), active_keys=st.integers(0, 40),
)  # fmt: skip
_records = st.one_of(
    _proposals,
    st.builds(lambda k, r: finished(proposed(k), r), _keys, st.sampled_from(["done", "failed", "expired"])),
    st.builds(Switched, stop=st.booleans(), by=st.just("x")),
    st.builds(Simulating, on=st.booleans(), by=st.just("x")),
    st.none(),
)
_steps_us = st.sampled_from([-HOUR_US, 0, 1, HOUR_US // 7, HOUR_US, 5 * HOUR_US])
_logs = st.lists(st.tuples(_steps_us, _records), max_size=60)


def replayed(log: list[tuple[int, Record | None]]) -> list[tuple[int, Record | None, Verdict]]:
    ledger, now, seen = Ledger(), 0, []
    for offset, (step, record) in enumerate(log):
        now += step  # the broker's clock may jump back, too
        verdict = ledger.apply(offset, now, record)
        seen.append((ledger.now_us, record, verdict))
    return seen


@settings(max_examples=100)
@given(log=_logs)
def test_no_sequence_exceeds_the_cap_that_its_proposal_carries(log: list[tuple[int, Record | None]]) -> None:
    seen = replayed(log)
    granted = [(at, record) for at, record, verdict in seen if verdict.granted and isinstance(record, Proposed)]
    for index, (at, record) in enumerate(granted):
        for span_us, cap in ((HOUR_US, record.max_per_hour), (DAY_US, record.max_per_day)):
            keys = {r.key_id for t, r in granted[: index + 1] if t > at - span_us}
            earlier = {r.key_id for t, r in granted[:index] if t > at - span_us}
            assert len(keys) <= min(cap, share_of(record.active_keys, 0.5)) or record.key_id in earlier


@settings(max_examples=100)
@given(log=_logs)
def test_no_act_is_granted_twice_unless_it_failed_between_or_is_a_day_old(log: list[tuple[int, Record | None]]) -> None:
    open_since: dict[str, int] = {}
    for at, record, verdict in replayed(log):
        if isinstance(record, Finished) and record.result != "done":
            open_since.pop(record.act_id, None)
        if isinstance(record, Proposed) and verdict.granted:
            assert record.act_id not in open_since or at - open_since[record.act_id] >= DAY_US
            open_since[record.act_id] = at


@settings(max_examples=100)
@given(log=_logs, cut=st.integers(0, 60))
def test_a_restart_in_the_middle_comes_to_the_same_verdicts(log: list[tuple[int, Record | None]], cut: int) -> None:
    """A second reader sees some records twice (it starts anew): by offset they do nothing."""
    once = [verdict.granted for _, _, verdict in replayed(log)]
    ledger, now, again = Ledger(), 0, []
    for offset, (step, record) in enumerate(log):
        now += step
        if offset == cut:
            for earlier in range(offset):
                ledger.apply(earlier, now, log[earlier][1])
        again.append(ledger.apply(offset, now, record).granted)
    assert again == once


def test_what_people_signed_before_a_release_with_more_fields_is_still_found_under_its_name() -> None:
    """Names as the release before `promotion_required` made them of the same act, which has no such field."""
    of = Proposed(
        act_id="a" * 64, response_id="b" * 32, incident_id="c" * 32, revision=2, key_id="k1", key_version=3,
        responder="r", rung="fence", max_per_hour=3, max_share_of_active=0.05, approvals=2,
        approvers=(Approver(name="ann", public_key="x" * 44),), networks=("192.0.2.0/24",), limit_per_s=0.1,
        bits=21.37, duration_s=3600.0, labels=("asn:1",), evidence_hash="e", policy_version="p",
    )  # fmt: skip
    assert (ticket_of(of, 7), content_of(of)) == ("act-1a45c027fa2591fa43bff6e1", "f7adcd1e3a45a74a80128fab")
    for later in ({"promotion_required": True}, {"promotion_approvals": 2}):
        other = msgspec.structs.replace(of, **later)
        assert ticket_of(other, 7) != ticket_of(of, 7)
        assert content_of(other) != content_of(of)


def test_a_rotation_whose_old_key_its_gateway_has_ended_has_no_undo_and_one_asked_for_before_goes_on() -> None:
    """It would delete the only key that its owner has."""
    of = proposed(rung="rotate", duration_s=3600.0)
    made = msgspec.structs.replace(finished(of), new_key_id="k2")
    undo = Undo(act_id=of.act_id, by="ann", reason="ours", responder="a")
    not_undone = msgspec.structs.replace(finished(of, "failed"), direction="undo")
    hour = HOUR_US
    for ends_old, ended in ((False, True), (True, False)):
        rotated = msgspec.structs.replace(made, ends_old=ends_old)
        _, late = run((0, of), (1, rotated), (hour + 1, undo))
        assert late[-1].granted is not ended
        assert ("has ended the old key" in late[-1].reason) is ended
        _, early = run((0, of), (1, rotated), (hour - 1, undo), (hour - 1, not_undone), (hour + 60, undo))
        assert [each.granted for each in (early[2], early[4])] == [True, True]


@pytest.mark.parametrize(("result", "granted"), [("expired", False), ("failed", True)])
def test_a_rotation_whose_old_key_may_be_revoked_is_not_undone_or_its_owner_may_have_no_key(
    result: str, granted: bool
) -> None:
    rotate = proposed(rung="rotate", act_id="rotate", response_id="rotate")
    done = msgspec.structs.replace(finished(rotate), new_key_id="k2", ends_old=True)
    revoke = proposed(cap=ROTATION)
    undo = Undo(act_id="rotate", by="ann", reason="ours", responder="a")
    _, verdicts = run((0, rotate), (1, done), (2, revoke), (3, finished(revoke, result)), (4, undo))
    assert verdicts[2].granted
    assert verdicts[4].granted is granted
