"""Cases: what belongs together is one page, silence can't be bought, and every restart has the same cases."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.night import Cases
from pipeline.respond.night import cases
from pipeline.respond.night.cases import DAY_US, SPAN_US, CaseBook, due, links_of, words
from pipeline.respond.night.records import ActSeen, CaseSaid, CaseSeen, DrillStarted, NightRecord, Verb
from schemas.incident import SEVERITIES, Severity
from tests.pipeline.respond.incidents import finding, incident, key
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.notices import full

MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
T0 = 1_795_000_000_000_000
RULES = Cases()


def case_id_of(name: str) -> str:
    return cases.case_id_of(name, T0)


def seen(
    name: str, links: tuple[str, ...] = (), severity: Severity = "high", revision: int = 1, closed: bool = False,
    key_id: str = "",
) -> CaseSeen:  # fmt: skip
    return CaseSeen(
        incident_id=name, revision=revision, key_id=key_id or f"key-{name}", severity=severity, closed=closed, at_us=T0,
        links=links or (f"key:{name}",), window_s=3600.0, partition=0, body=f"lead {name}",
    )  # fmt: skip


def said(name: str, verb: Verb, **changes: object) -> CaseSaid:
    return msgspec.convert({"case_id": case_id_of(name), "verb": verb, "by": "ada"} | changes, CaseSaid)


def book(*records: tuple[float, NightRecord]) -> CaseBook:
    """Records with minutes after T0."""
    this = CaseBook()
    for minute, record in records:
        this.apply(T0 + int(minute * MINUTE_US), record)
    return this


def steps(this: CaseBook, name: str, minute: float, told: tuple[str, ...] = ()) -> list[str]:
    return list(due(this.cases[case_id_of(name)], frozenset(told), T0 + int(minute * MINUTE_US), RULES))


def test_what_shares_an_owner_a_source_or_a_key_is_one_case_and_what_shares_nothing_is_not() -> None:
    this = book(
        (0, seen("a", ("key:a", "owner:billing", "net:198.51.100.0/24"))),
        (1, seen("b", ("key:b", "owner:billing"))),
        (2, seen("c", ("key:c", "net:198.51.100.0/24"))),
        (3, seen("d", ("key:d", "owner:other"))),
    )
    assert [list(case.incidents) for case in this.cases.values()] == [["a", "b", "c"], ["d"]]
    assert this.cases[case_id_of("a")].keys == ["key-a", "key-b", "key-c"]


def test_after_the_window_it_is_another_case() -> None:
    this = book((0, seen("a", ("owner:x",))), (59, seen("b", ("owner:x",))), (120, seen("c", ("owner:x",))))
    assert [list(case.incidents) for case in this.cases.values()] == [["a", "b"], ["c"]]


def test_of_a_source_only_what_was_odd_about_it_binds() -> None:
    about = full(owner="billing")
    assert set(links_of(about, key(owner="billing"))) == {
        "key:k1", "owner:billing", "net:198.51.100.0/24", "client:AS64500/curl"
    }  # fmt: skip
    usual = incident(findings=(msgspec.structs.replace(about.findings[0], family="volume"),))
    assert links_of(usual, None) == ("key:k1",)
    assert links_of(incident(findings=(finding("network"),), keys=("k2",)), None) == ("key:k1", "key:k2")


def test_that_automatic_acts_have_stopped_is_a_case_of_its_own() -> None:
    """Whoever has acknowledged one of its keys' cases has not acknowledged that."""
    stopped = incident("*", rule="breaker", keys=("k1", "k2"))
    assert set(links_of(stopped, None)).isdisjoint(links_of(incident("k1"), None))


def test_one_case_is_one_page() -> None:
    this = book((0, seen("a", ("owner:x",))), (1, seen("b", ("owner:x",))), (2, seen("c", ("owner:x",))))
    assert steps(this, "a", 3) == ["page:high"]
    assert steps(this, "a", 3, ("page:high",)) == []


def test_what_is_not_grave_enough_pages_nobody_until_it_is() -> None:
    this = book((0, seen("a", severity="medium")))
    assert steps(this, "a", 60) == []
    this.apply(T0 + 61 * MINUTE_US, seen("a", severity="critical", revision=2))
    assert steps(this, "a", 61) == ["page:critical"]


def test_nobody_acknowledging_escalates_every_fifteen_minutes_three_times() -> None:
    this = book((0, seen("a")))
    told = ("page:high",)
    assert steps(this, "a", 14.9, told) == []
    assert steps(this, "a", 15, told) == ["late:0.1"]
    assert steps(this, "a", 600, told) == ["late:0.1", "late:0.2", "late:0.3"]


def test_an_acknowledgement_ends_that_and_is_told() -> None:
    this = book((0, seen("a")), (10, said("a", "ack")))
    assert steps(this, "a", 600, ("page:high",)) == ["acknowledged:1"]
    assert steps(this, "a", 600, ("page:high", "acknowledged:1")) == []


def test_an_assignment_acknowledges_and_names_who() -> None:
    this = book((0, seen("a")), (10, said("a", "assign", to="grace")))
    case = this.cases[case_id_of("a")]
    assert (case.state, case.assignee) == ("acknowledged", "grace")


def test_a_snooze_holds_until_its_end_and_then_waits_anew() -> None:
    this = book((0, seen("a")), (10, said("a", "snooze", until_us=T0 + HOUR_US)))
    told = ("page:high", "acknowledged:1")
    assert steps(this, "a", 59, told) == []
    assert steps(this, "a", 60, told) == ["again:1"]
    assert steps(this, "a", 76, (*told, "again:1")) == ["late:1.1"]


def test_an_acknowledged_case_that_gets_graver_or_grows_is_open_again() -> None:
    """Else whoever opens a harmless incident from his own network first has bought silence for the rest."""
    this = book((0, seen("a", ("net:x",))), (1, said("a", "ack")), (2, seen("b", ("net:x",), severity="critical")))
    told = ("page:high", "acknowledged:1")
    assert steps(this, "a", 3, told) == ["page:critical"]
    this.apply(T0 + 3 * MINUTE_US, said("a", "ack"))
    for number in range(8):
        this.apply(T0 + 4 * MINUTE_US, seen(f"more{number}", ("net:x",)))
    assert "grown:10" in steps(this, "a", 5, (*told, "page:critical"))


def test_a_case_is_over_when_all_its_incidents_are_or_somebody_says_so() -> None:
    this = book((0, seen("a", ("o:x",))), (1, seen("b", ("o:x",))), (2, seen("a", ("o:x",), revision=2, closed=True)))
    assert this.cases[case_id_of("a")].state == "open"
    this.apply(T0 + 3 * MINUTE_US, seen("b", ("o:x",), revision=2, closed=True))
    assert steps(this, "a", 4, ("page:high",)) == ["closed:1"]
    assert steps(this, "a", 4) == []  # nobody was told that it began
    by_hand = book((0, seen("a")), (1, said("a", "close")))
    assert steps(by_hand, "a", 2, ("page:high",)) == ["closed:1"]


def test_a_closed_case_whose_incident_gets_graver_is_open_again_and_its_second_end_is_told() -> None:
    this = book((0, seen("a")), (1, said("a", "close")), (2, seen("a", severity="critical", revision=2)))
    told = ("page:high", "closed:1")
    assert steps(this, "a", 3, told) == ["page:critical"]
    this.apply(T0 + 4 * MINUTE_US, seen("a", severity="critical", revision=3, closed=True))
    assert steps(this, "a", 5, (*told, "page:critical")) == ["closed:2"]


def test_an_incident_that_is_read_again_after_a_crash_changes_nothing() -> None:
    records: list[tuple[int, NightRecord]] = [(0, seen("a", ("o:x",))), (1, said("a", "ack")), (2, seen("b", ("o:x",)))]
    once, twice = (
        book(*records),
        book(*records, *[(3, record) for _, record in records if isinstance(record, CaseSeen)]),
    )
    assert once.cases[case_id_of("a")].incidents == twice.cases[case_id_of("a")].incidents
    assert twice.cases[case_id_of("a")].state == "acknowledged"


def test_a_drill_s_decoy_pages_nobody_while_it_lasts_and_everybody_after() -> None:
    started = DrillStarted(drill_id="d", key_id="decoy", at_us=T0, limit_s=120, act=False, by="ada")
    this = book((0, started), (1, seen("a", key_id="decoy", severity="critical")))
    assert steps(this, "a", 2) == []
    later = book((0, started), (1, seen("a", key_id="decoy")), (10, seen("a", key_id="decoy", revision=2)))
    assert steps(later, "a", 11) == ["page:high"]
    joined = book((0, started), (1, seen("a", ("n:x",), key_id="decoy")), (1, seen("b", ("n:x",), key_id="real")))
    assert steps(joined, "a", 2) == ["page:high"]


def test_what_a_drill_led_to_stays_the_drill_s_when_its_incident_closes_later() -> None:
    this = book(
        (0, DrillStarted(drill_id="d", key_id="key-a", at_us=T0, limit_s=120, act=True, by="ada")), (1, seen("a")),
        (60, seen("a", revision=2, closed=True)),
    )  # fmt: skip
    act = proposed("key-a", incident_id="a")
    assert this.is_drill(act, T0 + MINUTE_US)
    assert not this.is_drill(act, T0 + 60 * MINUTE_US)


def test_a_case_without_its_lead_takes_that_of_the_next_revision() -> None:
    this = book((0, msgspec.structs.replace(seen("a"), body="")), (1, seen("a", revision=2)))
    assert this.cases[case_id_of("a")].lead == "lead a"


def test_an_act_that_holds_again_is_broken_in_none_of_its_incident_s_cases() -> None:
    broken = ActSeen(
        response_id="r1", incident_id="a", key_id="key-a", verdict_id="v1", broken=True, text="goes on", partition=0,
        body="{}",
    )  # fmt: skip
    over_min = ((cases.span_of(T0) + 1) * SPAN_US + cases.SPANS_END_US - T0) / MINUTE_US + 1
    this = book((0, seen("a")), (1, broken), (over_min, seen("a", revision=2)))
    assert (len(this.cases), this.is_broken("r1")) == (2, True)
    this.apply(this.now_us + MINUTE_US, msgspec.structs.replace(broken, broken=False, verdict_id="v2"))
    assert not this.is_broken("r1")


def test_a_word_on_a_case_that_is_not_there_is_nothing() -> None:
    assert book((0, said("nobody", "ack"))).cases == {}


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 40),  # hours after the one before
        st.sampled_from("abcdef"),
        st.sampled_from(("o:1", "o:2", "n:1", "")),
        st.sampled_from(SEVERITIES),
        st.sampled_from(("see", "see", "see", "end", "ack", "snooze", "close")),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(RECORDS)
def test_a_restart_that_reads_only_what_retention_left_has_the_same_cases(
    story: list[tuple[int, str, str, Severity, str]],
) -> None:
    log: list[tuple[int, NightRecord]] = []
    at_us, followed = T0, CaseBook()
    for number, (hours, name, link, severity, what) in enumerate(story):
        at_us += hours * HOUR_US
        ids = list(followed.cases)
        record: NightRecord
        if what in ("see", "end"):
            links = (f"key:{name}", link) if link else (f"key:{name}",)
            record = seen(name, links, severity, number + 1, what == "end")
        elif ids:
            verb: Verb = "ack" if what == "ack" else "close" if what == "close" else "snooze"
            record = CaseSaid(case_id=ids[number % len(ids)], verb=verb, by="ada", until_us=at_us)
        else:
            continue
        log.append((at_us, record))
        followed.apply(at_us, record)
    restarted = CaseBook()
    for when_us, record in log:
        if when_us > at_us - 7 * DAY_US:
            restarted.apply(when_us, record)
    assert restarted.cases == followed.cases
    assert restarted.of_incident == followed.of_incident
    assert all(followed.now_us - case.last_us <= SPAN_US for case in followed.cases.values())


def test_what_goes_on_for_days_is_a_new_case_of_its_own_every_three_days() -> None:
    this = book(*[(hour * 60, seen("a", revision=hour + 1)) for hour in range(0, 200, 12)])
    spans = {cases.span_of(case.opened_us) for case in this.cases.values()}
    assert len(spans) == len(this.cases) > 1
    assert all(case.last_us - case.opened_us <= SPAN_US for case in this.cases.values())


def test_every_step_has_words() -> None:
    for step in ("page:high", "grown:10", "again:1", "late:0.1", "acknowledged:2", "closed:1"):
        assert words(step)


def broke(name: str, verdict: str = "v1", broken: bool = True, response: str = "r1") -> ActSeen:
    return ActSeen(
        response_id=response, incident_id=name, key_id=f"key-{name}", verdict_id=verdict, broken=broken,
        text="suspend is not enforced", partition=0, body=f"lead {name}",
    )  # fmt: skip


@pytest.mark.parametrize("verb", ["ack", "close", "snooze"])
def test_a_gateway_that_does_not_obey_opens_whatever_the_case_was_as_critical_and_is_escalated(verb: Verb) -> None:
    word = said("a", verb, until_us=T0 + HOUR_US * 24)
    this = book((0, seen("a")), (1, word), (30, broke("a")), (30, broke("a")))  # written again after a crash
    case = this.cases[case_id_of("a")]
    assert (case.state, case.severity, case.breaks) == ("open", "critical", 1)
    told = ("page:high", f"{verb}:1")
    assert steps(this, "a", 30, told) == ["broken:1"]
    assert "page:critical" not in steps(this, "a", 31, (*told, "broken:1"))  # one thing is one page
    assert steps(this, "a", 46, (*told, "broken:1")) == ["late:2.1"]


def test_neither_a_quiet_key_nor_the_next_refusal_closes_what_nobody_has_seen() -> None:
    ends = seen("a", revision=2, closed=True)
    this = book((0, seen("a")), (1, broke("a")), (2, ends))
    assert this.cases[case_id_of("a")].state == "open"
    this.apply(T0 + 3 * MINUTE_US, broke("a", "v2", broken=False))
    assert (this.cases[case_id_of("a")].state, this.cases[case_id_of("a")].broken) == ("open", {})
    this.apply(T0 + 4 * MINUTE_US, said("a", "ack"))
    this.apply(T0 + 5 * MINUTE_US, seen("a", revision=3, closed=True))
    assert this.cases[case_id_of("a")].state == "closed"


def test_a_gateway_that_obeys_now_and_then_does_not_call_whoever_is_on_it() -> None:
    this = book((0, seen("a")), (1, broke("a")), (2, said("a", "ack")), (3, broke("a", "v2")))
    case = this.cases[case_id_of("a")]
    assert (case.state, case.breaks) == ("acknowledged", 1)
    this.apply(T0 + 4 * MINUTE_US, broke("a", "v3", response="r2"))  # another act
    assert (case.state, case.breaks) == ("open", 2)
    this.apply(T0 + 5 * MINUTE_US, said("a", "close"))
    this.apply(T0 + 6 * MINUTE_US, broke("a", "v4"))
    assert (case.state, case.breaks) == ("open", 3)


def test_of_a_forgotten_case_a_new_one_is_opened_and_a_drill_that_breaks_is_no_drill_any_more() -> None:
    late = book((0, seen("a")), (5 * 24 * 60, broke("a")))
    (case,) = late.cases.values()
    assert (case.lead, case.keys, case.state, list(case.incidents)) == ("lead a", ["key-a"], "open", ["a"])
    assert list(due(case, frozenset(), late.now_us, RULES)) == ["broken:1"]
    started = DrillStarted(drill_id="d", key_id="key-a", at_us=T0, limit_s=60, act=True, by="ada")
    drilled = book((0, started), (0, seen("a")), (0.5, broke("a")))
    assert steps(drilled, "a", 1) == ["broken:1"]
