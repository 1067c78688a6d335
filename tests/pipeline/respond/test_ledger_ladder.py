"""The ledger beyond caps: approvals, timed ends, undos, the breaker, raises; by the order on the topic alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.respond.desk import bulked
from pipeline.respond.ledger.acts import REVOKED_US, TIME, UNCERTAIN_TRIES, Act
from pipeline.respond.ledger.entries import (
    Build,
    Bulked,
    Finished,
    Kept,
    Paged,
    Proposed,
    Raised,
    Record,
    Reset,
    Signed,
    Switched,
    Undo,
    content_of,
    decode,
    encode,
    group_of,
)
from pipeline.respond.ledger.ledger import DAY_US, HOUR_US, Ledger, Verdict
from pipeline.respond.propose import ids
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.people import ANN, BOB, BOTH, EVE, person

MIN_US = 60_000_000


def fence(key_id: str = "k1", revision: int = 1, rung: str = "fence", **changes: Any) -> Proposed:
    act, response = ids(key_id, 1, rung, f"i-{key_id}", revision)
    values: dict[str, Any] = {"act_id": act, "response_id": response, "rung": rung, "revision": revision}
    values |= {"cap": "fence" if rung == "fence" else "usual", "duration_s": 3600.0, "networks": ("192.0.2.0/24",)}
    return proposed(key_id, **(values | changes))


def undo(of: Proposed, by: str = "ann") -> Undo:
    return Undo(act_id=of.act_id, by=by, reason="it was us", responder="a")


def undone(of: Proposed, result: Any = "done") -> Finished:
    return Finished(act_id=of.act_id, response_id=of.response_id, result=result, direction="undo")


class Log:
    """A ledger and the topic behind it."""

    def __init__(self) -> None:
        self.ledger, self.records = Ledger(), list[tuple[int, Record | None]]()

    def say(self, record: Record | None, at_us: int = -1) -> Verdict:
        at_us = self.ledger.now_us + 1 if at_us < 0 else at_us
        self.records.append((at_us, record))
        return self.ledger.apply(len(self.records) - 1, at_us, record)

    def stand(self, of: Proposed, before: str = "") -> Act:
        """Proposed, granted and done."""
        assert self.say(of).granted
        self.say(msgspec.structs.replace(finished(of), before=before))
        act = self.ledger.act_of(of.act_id)
        assert act is not None
        return act


@pytest.fixture
def log() -> Log:
    return Log()


def test_records_of_every_kind_come_back_as_they_were_written() -> None:
    kinds: list[Record] = [
        undo(fence()), ANN.says("t"), Reset(by="a", reason=""), Kept(proposal=fence(), before="x"),
        Bulked(group="g", rung="fence", nonce="n", act_ids=("a",)),
        Raised(cap="usual", max_per_hour=9, max_per_day=9, max_share_of_active=0.5, until_us=9, by="a", reason="r"),
        Paged(opened_offset=3), Build(partition=1, config_version="c", geo_build="g"),
    ]  # fmt: skip
    assert [decode(encode(each)) for each in kinds] == kinds


def test_a_fence_is_counted_apart_from_what_stops_a_key(log: Log) -> None:
    for number in range(3):
        assert log.say(fence(f"k{number}")).granted
    assert not log.say(fence("k3")).granted
    assert log.say(fence("k4", rung="suspend")).granted


def test_the_same_rung_or_one_below_what_stands_is_not_done_again_but_one_above_is(log: Log) -> None:
    log.stand(fence(rung="suspend"))
    for rung in ("suspend", "fence", "flag"):
        assert log.say(fence(rung=rung, revision=2)).guard == "already_acted"
    assert log.say(proposed()).granted  # revoke


def test_a_key_of_one_owner_does_not_use_up_the_cap_of_all(log: Log) -> None:
    granted = [log.say(fence(f"k{n}", owner="cheap", max_per_owner=2)).granted for n in range(3)]
    assert granted == [True, True, False]
    assert log.say(fence("k9", owner="other", max_per_owner=2)).granted


def test_an_act_ends_when_the_brokers_clock_says_so_and_not_before(log: Log) -> None:
    act = log.stand(fence(), before="open to all")
    assert not log.say(undo(fence(), TIME), act.until_us - 1).granted
    assert log.say(undo(fence(), TIME), act.until_us).granted
    assert log.say(undo(fence(), TIME)).reason == "it is being undone"
    log.say(undone(fence()))
    assert (act.stage, act.ended_by, act.before) == ("undone", TIME, "open to all")
    assert log.say(fence(revision=2)).granted  # time's end exempts nobody


def test_after_a_person_s_undo_nothing_acts_on_the_key_by_itself_for_a_while(log: Log) -> None:
    wanted = fence(exempt_s=7200.0)
    log.stand(wanted)
    assert log.say(undo(wanted)).granted
    log.say(undone(wanted))
    again = fence(revision=2, exempt_s=7200.0)
    assert log.say(again).guard == "undone"
    assert log.say(msgspec.structs.replace(again, approvals=1, approvers=BOTH)).guard == "approvals"
    later = fence(revision=3, exempt_s=7200.0, rung="suspend")
    assert log.say(later, log.ledger.now_us + 2 * HOUR_US).granted


def test_a_failed_undo_is_asked_for_again_and_keeps_what_was_before(log: Log) -> None:
    act = log.stand(fence(), before="x")
    log.say(undo(fence()))
    log.say(undone(fence(), "failed"))
    assert act.stands
    assert log.say(undo(fence())).granted
    assert act.undo is not None
    assert (act.undo.tries, act.before) == (2, "x")


def test_revoke_has_no_undo_and_a_revoked_key_is_never_brought_back(log: Log) -> None:
    suspended = fence(rung="suspend")
    act = log.stand(suspended)
    log.say(undo(suspended))  # an undo is under way ...
    assert log.say(proposed()).granted  # ... when the key is revoked
    log.say(undone(suspended))
    assert log.say(undo(suspended)).reason == "the key is revoked"
    assert act.stands
    log.say(finished(proposed()))
    assert act.stage == "superseded"
    assert not log.say(undo(suspended, TIME), act.until_us + DAY_US).granted
    assert not log.say(undo(proposed())).granted


def test_a_revocation_is_remembered_for_a_month_also_when_the_topic_has_forgotten_it(log: Log) -> None:
    act = log.stand(proposed())
    kept = Kept(proposal=act.proposal, offset=act.offset, at_us=act.at_us)
    assert log.say(kept, 3 * DAY_US).granted
    later = Ledger()
    later.apply(log.ledger.next_offset - 1, 3 * DAY_US, kept)
    for ledger in (log.ledger, later):
        offset = ledger.next_offset
        for number, wanted in enumerate((proposed(revision=9), fence(revision=9, rung="suspend"))):
            verdict = ledger.apply(offset + number, 29 * DAY_US, wanted)
            assert (verdict.granted, verdict.guard) == (False, "already_acted")
        assert ledger.apply(offset + 2, act.at_us + REVOKED_US, proposed(revision=10)).granted


def test_a_suspension_that_is_done_after_the_revocation_never_ends(log: Log) -> None:
    suspended = fence(rung="suspend")
    log.say(suspended)
    log.say(proposed())
    log.say(finished(proposed()))
    log.say(finished(suspended))
    act = log.ledger.act_of(suspended.act_id)
    assert act is not None
    assert act.stage == "superseded"


def test_a_failed_revocation_lets_the_suspension_end(log: Log) -> None:
    act = log.stand(fence(rung="suspend"))
    log.say(proposed())
    log.say(finished(proposed(), "failed"))
    assert log.say(undo(fence(rung="suspend"), TIME), act.until_us).granted


def test_what_expired_may_have_taken_place_so_it_ends_in_time_and_is_given_up_after_some_tries(log: Log) -> None:
    wanted = fence()
    log.say(wanted)
    log.say(finished(wanted, "expired"))
    act = log.ledger.act_of(wanted.act_id)
    assert act is not None
    assert act.ends
    log.say(None, act.until_us)
    for _ in range(UNCERTAIN_TRIES):
        assert log.say(undo(wanted, TIME)).granted
        log.say(undone(wanted, "failed"))
    assert not log.say(undo(wanted, TIME)).granted


def waiting(log: Log, key_id: str = "k1", approvals: int = 2, **changes: Any) -> Act:
    verdict = log.say(fence(key_id, approvals=approvals, approvers=BOTH, **changes))
    assert not verdict.granted
    assert verdict.act is not None
    assert verdict.act.stage == "pending"
    return verdict.act


def test_two_different_people_must_sign_before_it_is_granted_and_caps_do_not_hold_them(log: Log) -> None:
    act = waiting(log, max_per_hour=0)
    assert log.say(ANN.says(act.ticket)).reason == "1 of 2 approved"
    assert log.say(ANN.says(act.ticket)).reason == "1 of 2 approved"
    assert act.stage == "pending"
    assert log.say(BOB.says(act.ticket)).granted
    assert (act.stage, act.approved_by) == ("open", ("ann", "bob"))
    assert act.until_us == log.ledger.now_us + HOUR_US
    assert log.ledger.used(HOUR_US, cap="fence") == 0


@pytest.mark.parametrize(
    "word",
    [
        lambda ticket: EVE.says(ticket),
        lambda ticket: EVE.says(ticket, name="ann"),
        lambda ticket: msgspec.structs.replace(ANN.says(ticket, yes=False), yes=True),
        lambda ticket: msgspec.structs.replace(ANN.says("act-other"), ticket=ticket),
        lambda ticket: Signed(ticket=ticket, yes=True, person="ann", signature="nonsense"),
    ],
)
def test_what_no_approver_signed_for_this_very_act_counts_for_nothing(log: Log, word: Any) -> None:
    act = waiting(log, approvals=1)
    assert not log.say(word(act.ticket)).granted
    assert act.stage == "pending"


def test_two_names_with_one_key_are_one_person(log: Log) -> None:
    twin = msgspec.structs.replace(ANN.approver, name="ann2")
    verdict = log.say(fence(approvals=2, approvers=(ANN.approver, twin)))
    assert verdict.act is not None
    log.say(ANN.says(verdict.act.ticket))
    log.say(ANN.says(verdict.act.ticket, name="ann2"))
    assert verdict.act.stage == "pending"


def test_an_approval_comes_too_late_after_half_an_hour_and_serves_no_later_proposal(log: Log) -> None:
    act = waiting(log, approvals=1)
    late = ANN.says(act.ticket)
    assert not log.say(late, act.at_us + 30 * MIN_US + 1).granted
    log.say(finished(act.proposal, "expired"))
    assert act.stage == "lapsed"
    again = waiting(log, approvals=1)
    assert again.ticket != act.ticket
    assert not log.say(late).granted
    assert again.stage == "pending"


def test_what_one_person_declines_is_not_done_for_this_incident(log: Log) -> None:
    act = waiting(log, approvals=1)
    assert log.say(BOB.says(act.ticket, yes=False)).granted
    assert not log.say(ANN.says(act.ticket)).granted
    assert log.say(fence(revision=2)).guard == "declined"
    assert log.say(fence(revision=2, incident_id="another")).granted


def test_the_kill_switch_holds_approved_acts_too_and_lets_undos_through(log: Log) -> None:
    standing = fence("k2")
    log.stand(standing)
    act = waiting(log, approvals=1)
    log.say(Switched(stop=True, by="ann", reason="drill"))
    assert log.say(ANN.says(act.ticket)).guard == "kill_switch"
    assert act.stage == "pending"
    assert log.say(undo(standing)).granted


def test_a_graver_act_that_waits_for_people_holds_up_no_milder_one_until_it_stands(log: Log) -> None:
    act = waiting(log, rung="suspend", approvals=1)
    assert log.say(fence()).granted
    assert log.say(ANN.says(act.ticket)).granted
    assert log.say(fence(revision=3, rung="throttle")).guard == "already_acted"


def test_a_rotation_holds_up_nothing_that_keeps_a_thief_from_the_old_key(log: Log) -> None:
    log.stand(fence(rung="rotate"))
    assert log.say(fence(revision=2)).granted
    assert log.say(fence(revision=3, rung="suspend")).granted


def trip(number: int, **changes: Any) -> Proposed:
    values: dict[str, Any] = {"owner": f"o{number}", "breaker_owners": 3, "max_per_hour": 50, "max_per_day": 50}
    return fence(f"k{number}", **(values | changes))


def test_keys_of_many_owners_at_once_open_the_breaker_until_a_person_closes_it(log: Log) -> None:
    assert [log.say(trip(n)).granted for n in range(4)] == [True, True, False, False]
    assert log.ledger.breaker.opened[False].owners == ("o0", "o1", "o2")
    assert log.say(trip(9), log.ledger.now_us + HOUR_US).guard == "breaker"
    assert set(log.ledger.queue) == {"k2", "k3", "k9"}
    assert log.say(trip(10, cap="proof")).granted
    log.say(Reset(by="ann", reason="it was an attack"))
    assert log.say(trip(11)).granted
    assert "k11" not in log.ledger.queue


def test_what_is_simulated_has_a_breaker_of_its_own(log: Log) -> None:
    assert [log.say(trip(n, simulated=True)).granted for n in range(4)] == [True, True, False, False]
    assert log.say(trip(10)).granted, "the real one is closed"
    for number in (11, 12):
        log.say(trip(number))
    log.ledger.breaker.opened.pop(True)
    assert log.say(trip(20, simulated=True, breaker_owners=0)).granted
    assert log.say(trip(21)).guard == "breaker"


@pytest.mark.parametrize(
    "changes",
    [{"settled": False}, {"owner": "one"}, {"owner": ""}, {"cap": "proof"}, {"breaker_owners": 0}],
)
def test_young_keys_one_owner_s_keys_and_proofs_do_not_open_it(log: Log, changes: dict[str, Any]) -> None:
    assert all(log.say(trip(n, **changes)).granted for n in range(12))
    assert not log.ledger.breaker.opened


def test_trips_that_lie_apart_do_not_open_it(log: Log) -> None:
    for number in range(8):
        assert log.say(trip(number), number * 6 * MIN_US).granted


def test_proofs_keep_a_small_cap_of_their_own(log: Log) -> None:
    for number in range(3):
        log.say(trip(number))
    proofs = [log.say(trip(20 + n, cap="proof", max_per_hour=3)).granted for n in range(5)]
    assert proofs == [True, True, True, False, False]


def bulk(log: Log, names: list[str], approvals: int = 1) -> tuple[str, list[Act]]:
    wanted = [fence(name, approvals=approvals, approvers=BOTH) for name in names]
    group = group_of([content_of(each) for each in wanted], "fence", "n")
    log.say(bulked(wanted, group, "n", "ann"))
    verdicts = [log.say(msgspec.structs.replace(each, group=group)) for each in wanted]
    return group, [verdict.act for verdict in verdicts if verdict.act]


def test_one_approval_acts_on_all_of_a_bulk_and_on_nothing_it_does_not_name(log: Log) -> None:
    group, acts = bulk(log, [f"k{n}" for n in range(20)])
    stranger = log.say(fence("k99", approvals=1, approvers=BOTH, group=group))
    assert stranger.guard == "group"
    assert log.say(ANN.says(group)).granted
    assert {act.stage for act in acts} == {"open"}
    assert len(acts) == 20
    assert log.ledger.used(HOUR_US, cap="fence") == 0


@pytest.mark.parametrize(
    "changes",
    [{"networks": ("0.0.0.0/0",)}, {"duration_s": 9e5}, {"adapter": "other"}, {"approvals": 2}, {"rung": "suspend"}],
)
def test_an_approval_of_a_bulk_covers_what_its_acts_do_and_not_only_which_they_are(
    log: Log, changes: dict[str, Any]
) -> None:
    wanted = fence(approvals=1, approvers=BOTH)
    group = group_of([content_of(wanted)], "fence", "n")
    log.say(bulked([wanted], group, "n", "ann"))
    assert log.say(msgspec.structs.replace(wanted, group=group, **changes)).guard == "group"
    assert log.say(msgspec.structs.replace(wanted, group=group, responder="another")).act is not None


def test_a_bulk_of_a_release_that_bound_only_ids_is_remembered_as_it_was_judged(log: Log) -> None:
    wanted = fence(approvals=1, approvers=BOTH, group="bulk-70316a83f5579600acae7291")
    log.say(Bulked(group=wanted.group, rung="fence", nonce="n", act_ids=(wanted.act_id,)))
    assert log.say(wanted).act is not None


def test_a_bulk_whose_name_is_not_its_content_is_none(log: Log) -> None:
    log.say(Bulked(group="bulk-made-up", rung="fence", nonce="n", act_ids=(fence().act_id,)))
    assert log.say(fence(approvals=1, approvers=BOTH, group="bulk-made-up")).guard == "group"


def test_where_the_policy_says_two_a_bulk_waits_for_the_second(log: Log) -> None:
    group, acts = bulk(log, ["k1", "k2"], approvals=2)
    log.say(ANN.says(group))
    assert {act.stage for act in acts} == {"pending"}
    log.say(BOB.says(group))
    assert {act.stage for act in acts} == {"open"}


def raised(until_us: int, **changes: Any) -> Raised:
    values: dict[str, Any] = {"cap": "fence", "max_per_hour": 6, "max_per_day": 50, "max_share_of_active": 0.5}
    return Raised(until_us=until_us, by="ann", reason="outbreak", **(values | changes))


def over(log: Log, number: int) -> bool:
    return log.say(fence(f"k{number}", approvers=BOTH)).granted


def test_caps_are_raised_by_two_people(log: Log) -> None:
    assert [over(log, n) for n in range(4)] == [True, True, True, False]
    wider = raised(HOUR_US // 2)
    log.say(wider)
    log.say(ANN.says(wider.ticket))
    log.say(ANN.says(wider.ticket))
    log.say(EVE.says(wider.ticket))
    assert not over(log, 4)
    log.say(BOB.says(wider.ticket))
    assert [over(log, n) for n in range(5, 9)] == [True, True, True, False]


def test_a_raise_ends_at_its_time_though_it_had_room_left(log: Log) -> None:
    wider = raised(HOUR_US // 2)
    for record in (wider, ANN.says(wider.ticket), BOB.says(wider.ticket)):
        log.say(record)
    assert [over(log, n) for n in range(4)] == [True] * 4, "of six"
    log.say(Reset(by="a", reason=""), HOUR_US // 2)
    assert not over(log, 5)


def test_a_no_of_an_approver_ends_a_raise_signed_or_not_and_nobody_elses(log: Log) -> None:
    wider = raised(HOUR_US // 2)
    for record in (wider, ANN.says(wider.ticket), EVE.says(wider.ticket, yes=False), BOB.says(wider.ticket)):
        log.say(record)
    assert [over(log, n) for n in range(5)] == [True] * 5
    assert log.say(BOB.says(wider.ticket, yes=False)).granted
    log.say(BOB.says(wider.ticket))
    assert not over(log, 6)


def test_a_raise_lasts_a_day_at_most_and_raises_no_other_cap(log: Log) -> None:
    wider = raised(90 * DAY_US)
    for record in (wider, ANN.says(wider.ticket), BOB.says(wider.ticket)):
        log.say(record)
    suspends = [log.say(fence(f"s{n}", rung="suspend", approvers=BOTH)).granted for n in range(4)]
    assert suspends == [True, True, True, False]
    log.say(Reset(by="a", reason=""), DAY_US + 10)
    assert [over(log, 20 + n) for n in range(4)] == [True, True, True, False]


def test_another_configuration_than_the_fleets_is_a_change_and_the_first_one_is_none(log: Log) -> None:
    """Another one that a partition begins with is a change, too: it was none, and a swap passed where many are."""
    log.say(Build(partition=0, config_version="c1", geo_build="g1"), 100)
    assert log.ledger.builds.changed_us == 0
    log.say(Build(partition=1, config_version="c2", geo_build="g1"), 200)
    assert log.ledger.builds.changed_us == 200
    log.say(Build(partition=0, config_version="c2", geo_build="g2"), 300)
    assert log.ledger.builds.changed_us == 300


def test_what_stands_is_remembered_for_as_long_as_it_stands(log: Log) -> None:
    act = log.stand(fence(duration_s=20 * 86_400.0), before="x")
    log.stand(fence("k2", duration_s=0.0))
    pending = waiting(log, "k3")
    log.say(Reset(by="a", reason=""), 19 * DAY_US)
    assert {each.proposal.key_id for each in log.ledger.acts.values()} == {"k1", "k2", "k3"}
    assert pending.stage == "pending"
    assert log.say(undo(act.proposal, TIME), 21 * DAY_US).granted


def test_what_is_said_again_outlives_the_topics_retention(log: Log) -> None:
    wanted = fence(duration_s=20 * 86_400.0)
    act = log.stand(wanted, before="x")
    for number in range(3):
        log.say(trip(50 + number))
    start = len(log.records)
    opened = log.ledger.breaker.opened[False]
    log.say(Kept(
        proposal=act.proposal, offset=act.offset, at_us=act.at_us, until_us=act.until_us, before=act.before
    ), 3 * DAY_US)  # fmt: skip
    log.say(Kept(offset=opened.offset, at_us=opened.at_us, owners=opened.owners))
    later = Ledger()
    for offset, (at_us, record) in enumerate(log.records[start:], start):
        later.apply(offset, at_us, record)
    again = later.act_of(wanted.act_id)
    assert again is not None
    assert (again.before, again.until_us, again.stands) == ("x", act.until_us, True)
    assert False in later.breaker.opened
    assert later.breaker.opened[False].paged


def test_what_ended_is_not_brought_back_by_being_said_again(log: Log) -> None:
    act = log.stand(fence())
    log.say(undo(fence()))
    log.say(undone(fence()))
    verdict = log.say(Kept(proposal=act.proposal, at_us=act.at_us, until_us=act.until_us))
    assert not verdict.granted
    assert act.stage == "undone"


def test_simulated_acts_neither_wait_nor_stand(log: Log) -> None:
    verdict = log.say(fence(approvals=2, approvers=BOTH, simulated=True))
    assert verdict.granted
    assert log.say(fence("k2", simulated=True)).granted
    assert not [act for act in log.ledger.acts.values() if act.stands]


def test_a_person_of_another_key_is_another_person() -> None:
    assert person("ann").approver == ANN.approver
    assert len({each.approver.public_key for each in (ANN, BOB, EVE)}) == 3


def test_an_act_that_perhaps_stands_is_only_replaced_by_one_that_is_sure_to(log: Log) -> None:
    """The target refused the second since the first was in force: then nobody would have ended the suspension."""
    first = fence(rung="suspend")
    log.say(first)
    log.say(Finished(act_id=first.act_id, response_id=first.response_id, result="expired"))
    second = fence(rung="suspend", revision=2)
    log.say(second)
    act = log.ledger.act_of(first.act_id)
    assert act is not None
    log.say(Finished(act_id=second.act_id, response_id=second.response_id, result="failed"))
    assert (act.stage, act.ends) == ("expired", True)
    third = fence(rung="suspend", revision=3)
    log.say(third)
    log.say(Finished(act_id=third.act_id, response_id=third.response_id, result="done"))
    assert act.stage == "superseded"


@pytest.mark.parametrize("value", [b"\xff", b'"\xff"', b'{"type":"switched","by":"\xff"}', b"[" * 5000, b"", None])
def test_what_is_no_record_ends_nobody(value: bytes | None) -> None:
    assert decode(value) is None
