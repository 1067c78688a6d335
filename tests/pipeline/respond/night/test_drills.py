"""A drill passes only if its decoy was seen (and acted on, where asked for) within the limit, and ends once."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.respond.ledger.entries import Finished, Record
from pipeline.respond.night.drills import Drill, DrillBook
from pipeline.respond.night.records import DrillEnded, DrillStarted
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.night.test_cases import T0, seen

S = 1_000_000


def started(act: bool = False, name: str = "d1") -> DrillStarted:
    return DrillStarted(drill_id=name, key_id="decoy", at_us=T0, limit_s=60, act=act, by="ada")


def drill(*records: tuple[float, Record], act: bool = False) -> Drill:
    book = DrillBook()
    book.apply(T0, started(act))
    for at_s, record in records:
        book.apply(T0 + int(at_s * S), record)
    return book.drills["d1"]


SEEN = seen("i1", key_id="decoy")
DONE = Finished(act_id="a", response_id="r", result="done")


def test_a_decoy_that_is_seen_in_time_passes() -> None:
    ended = drill((1.4, SEEN)).verdict(T0 + 2 * S)
    assert ended == DrillEnded(drill_id="d1", passed=True, words="seen after 1.4 s")


@pytest.mark.parametrize(
    "record", [seen("i1", key_id="another"), seen("i1", key_id="decoy", closed=True),
               msgspec.structs.replace(SEEN, at_us=T0 - 60 * S)]
)  # fmt: skip
def test_what_is_not_this_use_of_this_decoy_does_not_count(record: Record) -> None:
    assert drill((1, record)).verdict(T0 + 2 * S) is None
    ended = drill((1, record)).verdict(T0 + 61 * S)
    assert ended is not None and not ended.passed
    assert "detection is missing" in ended.words


def test_seen_too_late_is_failed() -> None:
    ended = drill((61, SEEN)).verdict(T0 + 62 * S)
    assert ended is not None and not ended.passed


def test_where_an_act_is_asked_for_detection_alone_does_not_pass() -> None:
    proposal = proposed("decoy", act_id="a")
    waiting = drill((1, SEEN), (2, proposal), act=True)
    assert waiting.verdict(T0 + 3 * S) is None
    late = waiting.verdict(T0 + 61 * S)
    assert late is not None and "an act is missing" in late.words
    acted = drill((1, SEEN), (2, proposal), (4, DONE), act=True).verdict(T0 + 5 * S)
    assert acted is not None and acted.passed
    assert acted.words == "seen after 1.0 s, acted on after 4.0 s"


def test_an_act_that_failed_is_none_and_a_simulated_one_is_all_there_can_be() -> None:
    failed = msgspec.structs.replace(DONE, result="failed")
    assert drill((1, SEEN), (2, proposed("decoy", act_id="a")), (3, failed), act=True).needs == "an act"
    assert drill((1, SEEN), (2, proposed("decoy", act_id="a", simulated=True)), act=True).needs == ""


def test_a_drill_ends_once_and_what_comes_later_changes_nothing() -> None:
    book = DrillBook()
    book.apply(T0, started())
    book.apply(T0 + 61 * S, DrillEnded(drill_id="d1", passed=False, words="late"))
    book.apply(T0 + 62 * S, DrillEnded(drill_id="d1", passed=True, words="no"))
    book.apply(T0 + 63 * S, SEEN)
    this = book.drills["d1"]
    assert this.ended is not None and this.ended.words == "late"
    assert this.verdict(T0 + 99 * S) is None
    assert book.last_passed_us == 0


def test_the_newest_that_passed_is_remembered_and_old_ones_are_forgotten() -> None:
    book = DrillBook()
    for number in range(150):
        book.apply(T0 + number * S, started(name=f"n{number}"))
        book.apply(T0 + number * S, DrillEnded(drill_id=f"n{number}", passed=number != 149, words=""))
    assert len(book.drills) == 100
    assert book.last_passed_us == T0 + 148 * S


def test_when_the_last_one_passed_is_known_after_weeks_without_one() -> None:
    """After a week and a restart it was 0, "none was ever run", and whoever waited for the drill heard nothing."""
    book, day = DrillBook(), 86_400 * S
    book.apply(T0, started())
    book.apply(T0 + 2 * S, DrillEnded(drill_id="d1", passed=True, words="seen after 1.4 s"))
    for number in range(1, 8):
        now_us = T0 + 3 * number * day + 9 * S
        assert book.again(now_us - 8 * S, 3 * day) is None
        again = book.again(now_us, 3 * day)
        assert again
        book.apply(now_us, again)
        after = DrillBook()  # of a restarted responder: the drill itself is gone
        after.apply(now_us, again)
        assert after.last_passed_us == book.last_passed_us == T0
        assert after.again(now_us + 3 * day, 3 * day) == again
        book = after
    book.apply(now_us + day, started(name="d2"))
    book.apply(now_us + day, DrillEnded(drill_id="d2", passed=False, words="late"))
    assert book.last_passed_us == T0
