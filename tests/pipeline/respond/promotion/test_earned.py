"""What was earned: records on the topic in any order, signed or not, said again or forgotten, against a plain fold."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.policy import Policy
from pipeline.respond.ladder import LADDER, SURE
from pipeline.respond.ledger.entries import LATER, Promoted, Proposed, Signed, content_of, decode, encode, ticket_of
from pipeline.respond.ledger.ledger import DAY_US, Ledger
from pipeline.respond.promotion.earned import MOST_STEPS, REVIEW, STAGES, Promotions, Stage, Who, below, earned, height
from tests.pipeline.respond.people import ANN, BOB, BOTH, EVE, Person

TWO = Who(BOTH, needs=2, within_s=1800.0)
MINUTE_US = 60_000_000


def step(to: Stage, override: bool = False, nonce: str = "", asked_us: int = 1) -> Promoted:
    return Promoted(to=to, by="ann", reason="it is", override=override, nonce=nonce, asked_us=asked_us)


def down(to: Stage, nonce: str = "") -> Promoted:
    """A step back, which nobody signs."""
    return step(to, nonce=nonce, asked_us=0)


def signed(record: Promoted, *people: Person) -> list[Promoted | Signed]:
    return [record, *(person.says(record.ticket) for person in people or (ANN, BOB))]


def told(*records: Promoted | Signed) -> Promotions:
    made = Promotions()
    for number, record in enumerate(records, 1):
        said(made, record, number * MINUTE_US)
    return made


def said(made: Promotions, record: Promoted | Signed, now_us: int) -> None:
    if isinstance(record, Promoted):
        made.apply(record, now_us)
    else:
        made.hear(record, now_us)


def test_each_stage_has_more_rungs_than_the_one_before_and_only_what_is_overridden_has_all() -> None:
    assert earned("simulate", True) == {"observe"}
    assert earned("fence", True) == SURE
    assert earned("suspend", False) == set(LADDER) - {"rotate", "revoke"}
    assert earned("suspend", True) == earned("revoke", False) == set(LADDER)
    assert [below(stage) for stage in STAGES] == ["simulate", "simulate", "fence", "suspend"]


def test_nothing_is_earned_where_nothing_is_known_and_revoke_never_is() -> None:
    assert Promotions().stage(TWO) == "simulate"
    assert told(*signed(step("fence")), *signed(step("revoke"), ANN, BOB)).stage(TWO) == "fence"


@pytest.mark.parametrize("by", ["ann", REVIEW])
@pytest.mark.parametrize("words", [(), (EVE,)], ids=["unsigned", "signed by a stranger"])
def test_whoever_can_write_the_topic_alone_claims_no_stage(by: str, words: tuple[Person, ...]) -> None:
    claim = msgspec.structs.replace(step("suspend"), by=by, policy="p", counted="60 acts, 50 reviewed, 0 wrong")
    assert told(*signed(claim, *words)[: 1 + len(words)]).stage(TWO) == "simulate"
    again = msgspec.structs.replace(claim, again=True, at_us=1, words=(EVE.says(claim.ticket, name="ann"),))
    assert told(again).stage(TWO) == "simulate"
    assert told(msgspec.structs.replace(again, asked_us=0)).stage(TWO) == "simulate"
    assert told(*signed(claim, ANN)).stage(TWO) == "simulate", "that it was earned is one person's word"
    assert told(*signed(claim, ANN, BOB)).stage(TWO) == "suspend"


def test_an_override_takes_a_signature_whatever_number_the_policy_says() -> None:
    none = Who.of(Policy(promotion_approvals=0), BOTH)
    assert told(step("suspend", override=True)).stage(none) == "simulate"
    assert told(*signed(step("suspend", override=True))).stage(none) == "suspend"
    ledger = Ledger()
    ledger.apply(0, 1, step("suspend", override=True))
    assert ledger.apply(1, 2, proposal("suspend", promotion_approvals=0)).guard == "not_promoted"


SUSPEND = step("suspend", override=True)


@pytest.mark.parametrize(
    ("words", "stands"),
    [
        ((), False),
        ((ANN.says(SUSPEND.ticket),), False),
        ((ANN.says(SUSPEND.ticket), ANN.says(SUSPEND.ticket)), False),
        ((ANN.says(SUSPEND.ticket), EVE.says(SUSPEND.ticket)), False),
        ((ANN.says(SUSPEND.ticket), EVE.says(SUSPEND.ticket, name="bob")), False),
        ((ANN.says(SUSPEND.ticket), BOB.says(step("fence", True).ticket)), False),
        ((ANN.says(SUSPEND.ticket), BOB.says(SUSPEND.ticket)), True),
        ((ANN.says(SUSPEND.ticket), BOB.says(SUSPEND.ticket, yes=False)), False),
        ((ANN.says(SUSPEND.ticket), EVE.says(SUSPEND.ticket, yes=False), BOB.says(SUSPEND.ticket)), True),
    ],
)
def test_what_was_not_earned_stands_by_two_different_approvers_signatures(
    words: tuple[Signed, ...], stands: bool
) -> None:
    made = told(*signed(step("fence")), SUSPEND, *words)
    assert made.stage(TWO) == ("suspend" if stands else "fence")
    declined = any(not word.yes and word.person == "bob" for word in words)
    assert [each.record for each in made.waiting(TWO, 0)] == ([] if stands or declined else [SUSPEND])


def test_a_signature_that_comes_too_late_is_none() -> None:
    made = told(SUSPEND, ANN.says(SUSPEND.ticket))
    made.hear(BOB.says(SUSPEND.ticket), int(1861e6))
    assert made.stage(TWO) == "simulate"


def test_a_signature_after_a_step_back_brings_nothing_back() -> None:
    made = told(SUSPEND, ANN.says(SUSPEND.ticket), down("simulate"), BOB.says(SUSPEND.ticket))
    assert made.stage(TWO) == "simulate"


def test_what_is_said_again_keeps_its_place_so_that_it_never_undoes_what_came_after() -> None:
    made = told(*signed(step("fence")))
    (again,) = made.again(TWO, 3 * DAY_US + MINUTE_US, 3 * DAY_US)
    made.apply(down("simulate"), 3 * DAY_US)
    made.apply(again, 3 * DAY_US + 1)
    assert made.stage(TWO) == "simulate"
    fresh = Promotions()
    fresh.apply(again, 4 * DAY_US)
    assert fresh.stage(TWO) == "fence"
    assert fresh.again(TWO, 4 * DAY_US, DAY_US) == []


def back(to: Stage, nonce: str = "") -> Promoted:
    return Promoted(to=to, by=REVIEW, reason="wrong", nonce=nonce)


def test_a_review_that_has_not_read_a_persons_step_back_does_not_undo_it() -> None:
    assert told(*signed(step("suspend")), down("simulate"), back("fence")).stage(TWO) == "simulate"
    both = signed(SUSPEND, ANN, BOB)
    assert told(down("simulate"), *both, back("fence")).stage(TWO) == "fence"
    assert told(*both, BOB.says(SUSPEND.ticket, yes=False), back("fence")).stage(TWO) == "simulate"


ANYTHING = st.one_of(
    st.builds(step, st.sampled_from(STAGES), st.booleans(), st.sampled_from("abc")),
    st.builds(down, st.sampled_from(STAGES), st.sampled_from("abc")), st.builds(back, st.sampled_from(STAGES)),
    st.tuples(st.sampled_from([ANN, BOB, EVE]), st.booleans()),
)  # fmt: skip


@given(st.lists(ANYTHING, max_size=20), st.booleans())
def test_nothing_but_an_approvers_yes_ever_raises_the_stage(order: list[Any], flood: bool) -> None:
    made, asked = Promotions(), ""
    for now_us, each in enumerate(order, 1):
        before = height(made.stage(TWO))
        if isinstance(each, tuple):
            person, yes = each
            made.hear(person.says(asked, yes), now_us)
            assert height(made.stage(TWO)) <= before or (yes and person is not EVE) or not yes
            continue
        each = msgspec.structs.replace(each, nonce=f"{each.nonce}{now_us}")
        asked = each.ticket if each.asked_us else asked
        made.apply(each, now_us)
        assert height(made.stage(TWO)) <= before
        if each.to == "simulate" or not each.asked_us:
            assert height(made.stage(TWO)) <= height(each.to)
    held = height(made.stage(TWO))
    for number in range(2 * MOST_STEPS if flood else 0):
        made.apply(step("suspend", override=True, nonce=f"flood{number}"), 100)
        assert height(made.stage(TWO)) <= held
        assert len(made.steps) <= MOST_STEPS


def test_a_flood_of_steps_that_nobody_signed_takes_nothing_from_those_that_somebody_did() -> None:
    made = told(*signed(step("suspend")), *(step("revoke", override=True, nonce=str(n)) for n in range(3 * MOST_STEPS)))
    assert (made.stage(TWO), len(made.steps) <= MOST_STEPS) == ("suspend", True)


@pytest.mark.parametrize("lowered", [down("simulate"), down("fence"), back("fence")])
def test_what_was_signed_once_and_lowered_since_is_not_brought_back_by_its_copy(lowered: Promoted) -> None:
    """Also by a reader to whom retention has left what is said again, and nothing else."""
    first = step("suspend")
    yes = ANN.says(first.ticket), BOB.says(first.ticket)
    made = told(first, *yes, lowered)
    copies = made.again(TWO, 9 * DAY_US, DAY_US)
    forged = msgspec.structs.replace(first, again=True, at_us=MINUTE_US, words=yes)
    orders: tuple[list[Promoted | Signed], ...] = (
        [*copies, forged], [forged, *copies], [*copies, forged, first, *yes],
    )  # fmt: skip
    for order in orders:
        fresh = Promotions()
        for number, record in enumerate(order):
            said(fresh, record, 9 * DAY_US + number)
        assert fresh.stage(TWO) == made.stage(TWO) == lowered.to


def test_what_a_retry_wrote_twice_counts_once() -> None:
    once = step("suspend", nonce="n")
    assert told(*signed(once), down("simulate"), once).stage(TWO) == "simulate"


def test_signatures_are_good_for_the_time_in_which_they_were_asked_for() -> None:
    words = ANN.says(SUSPEND.ticket), BOB.says(SUSPEND.ticket)
    made = Promotions()
    for record in (SUSPEND, *words):
        said(made, record, 9 * DAY_US)
    assert (made.stage(TWO), made.waiting(TWO, 9 * DAY_US)) == ("simulate", [])
    made.apply(msgspec.structs.replace(SUSPEND, nonce="x", again=True, at_us=9 * DAY_US, words=words), 9 * DAY_US)
    assert made.stage(TWO) == "simulate"


def test_nothing_that_is_said_again_is_of_the_future() -> None:
    record = step("suspend")
    words = ANN.says(record.ticket), BOB.says(record.ticket)
    made = told(msgspec.structs.replace(record, again=True, at_us=99 * DAY_US, words=words))
    assert made.stage(TWO) == "suspend"
    made.apply(down("simulate"), DAY_US)
    assert made.stage(TWO) == "simulate"


def test_what_was_signed_too_late_is_not_in_time_once_it_is_said_again() -> None:
    one = Who(BOTH, needs=1, within_s=1800.0)
    made = told(SUSPEND, ANN.says(SUSPEND.ticket), EVE.says(SUSPEND.ticket))
    made.hear(BOB.says(SUSPEND.ticket), int(1861e6))
    (again,) = made.again(one, 3 * DAY_US + MINUTE_US, 3 * DAY_US)
    assert [word.person for word in again.words] == ["ann"]
    fresh = Promotions()
    fresh.apply(again, 3 * DAY_US)
    assert (fresh.stage(one), fresh.stage(TWO)) == ("suspend", "simulate")


def test_what_people_signed_before_the_update_has_its_name_after_it() -> None:
    old = msgspec.json.decode(encode(proposal("suspend", approvals=1)))
    old = {name: each for name, each in old.items() if name not in LATER}
    read = decode(msgspec.json.encode(old))
    assert isinstance(read, Proposed)
    signed = "act-" + hashlib.blake2b(msgspec.json.encode(old) + b"0", digest_size=12).hexdigest()
    assert ticket_of(read, 0) == signed
    named = hashlib.blake2b(msgspec.json.encode(old | {"group": "", "responder": ""}), digest_size=12).hexdigest()
    assert content_of(read) == named
    ledger = Ledger()
    ledger.apply(0, 0, read)
    assert ledger.apply(1, 1, ANN.says(signed)).reason == "1 of 1 approved"
    assert ticket_of(proposal("suspend"), 0) != ticket_of(proposal("suspend", promotion_required=False), 0)


ORDERS = st.lists(
    st.one_of(
        st.builds(step, st.sampled_from(STAGES), st.booleans(), st.sampled_from(["a", "b"])),
        st.builds(down, st.sampled_from(STAGES), st.sampled_from(["a", "b"])),
        st.tuples(st.sampled_from([ANN, BOB, EVE]), st.booleans()),
        st.sampled_from(["again", "a minute", "three days", "retention"]),
    ),
    max_size=25,
)


class Plain:
    """The same by a fold over what was said first, with nothing forgotten."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Promoted, dict[str, bool]]] = []

    def apply(self, record: Promoted, now_us: int) -> None:
        self.steps.append((now_us, record, {}))

    def hear(self, person: Person, ticket: str, yes: bool, now_us: int) -> None:
        for at_us, record, words in self.steps:
            if record.asked_us and record.ticket == ticket and now_us <= at_us + int(1800e6) and person is not EVE:
                words[person.name] = words.get(person.name, True) and yes
            elif record.asked_us and record.ticket == ticket and person is not EVE and not yes:
                words[person.name] = False

    @property
    def stage(self) -> Stage:
        held: Stage = "simulate"
        for _, record, words in self.steps:
            if record.to == "revoke" and not record.override:
                continue
            stands = len(words) == 2 and all(words.values())
            held = record.to if stands or height(record.to) < height(held) else held
        return held


@settings(max_examples=200)
@given(ORDERS)
def test_no_order_of_steps_signatures_repetitions_and_forgetting_allows_more_than_the_last_that_stands(
    order: list[Any],
) -> None:
    now_us, log, plain, made = 0, list[tuple[int, Promoted | Signed]](), Plain(), Promotions()
    for each in order:
        now_us += 1_000_000
        if isinstance(each, Promoted):
            asked_us = now_us if each.asked_us else 0
            each = msgspec.structs.replace(each, nonce=f"{each.nonce}{now_us}", asked_us=asked_us)
            plain.apply(each, now_us)
            log.append((now_us, each))
        elif isinstance(each, tuple):
            steps = [record for _, record in log if isinstance(record, Promoted) and record.asked_us]
            tickets = [record.ticket for record in steps if record.override or record.to != "revoke"]
            if not tickets:
                continue
            person, yes = each
            plain.hear(person, tickets[-1], yes, now_us)
            log.append((now_us, person.says(tickets[-1], yes)))
        elif each == "again":
            log += [(now_us, record) for record in made.again(TWO, now_us, 0)]
        elif each == "retention":  # a new responder after seven days of others, who said it again every three
            now_us += 3 * DAY_US
            log += [(now_us, record) for record in made.again(TWO, now_us, 3 * DAY_US)]
            log, made = [entry for entry in log if entry[0] > now_us - 7 * DAY_US], Promotions()
            for at_us, record in log:
                said(made, record, at_us)
            continue
        else:
            now_us += 3 * DAY_US if each == "three days" else MINUTE_US
            log += [(now_us, record) for record in made.again(TWO, now_us, 3 * DAY_US)]
        for at_us, record in log:
            if at_us == now_us:
                said(made, record, at_us)
        assert made.stage(TWO) == plain.stage
    assert made.stage(TWO) == plain.stage


def proposal(rung: str, **changes: Any) -> Proposed:
    values: dict[str, Any] = {
        "act_id": f"a-{rung}", "response_id": "r", "incident_id": "i", "revision": 1, "key_id": "k", "key_version": 1,
        "responder": "me", "rung": rung, "max_per_hour": 9, "max_per_day": 9, "max_share_of_active": 1.0,
        "active_keys": 100, "approvers": BOTH, "promotion_required": True, "promotion_approvals": 2,
    }  # fmt: skip
    return Proposed(**(values | changes))


@pytest.mark.parametrize("rung", LADDER[1:])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("cap", ["usual", "proof"])
def test_the_ledger_refuses_what_was_not_earned_and_keeps_it_for_people(rung: str, stage: Stage, cap: str) -> None:
    ledger = Ledger()
    record = step(stage, override=stage == "revoke")
    records: list[Promoted | Signed] = [record, ANN.says(record.ticket), BOB.says(record.ticket)]
    for offset, each in enumerate(records):
        ledger.apply(offset, offset, decode(encode(each)))
    verdict = ledger.apply(9, 9, proposal(rung, cap=cap))
    may = rung in earned(stage, cap == "proof")
    assert (verdict.granted, verdict.guard) == ((True, "caps") if may else (False, "not_promoted"))
    assert ("k" in ledger.queue) == (not may)


@pytest.mark.parametrize(
    "of", [{"promotion_required": False}, {"simulated": True}, {"approvals": 1}], ids=["advised", "simulated", "people"]
)
def test_what_needs_not_be_earned_is_not_asked(of: dict[str, Any]) -> None:
    assert Ledger().apply(0, 0, proposal("suspend", **of)).guard != "not_promoted"


def test_the_policy_says_by_whom() -> None:
    who = Who.of(Policy(promotion_approvals=2, approval_s=60.0), BOTH)
    assert (who.needs, who.within_s, who.approvers) == (2, 60.0, BOTH)
