"""Blind or late is known from offsets alone, is said once, and is over only when it is seen to be."""

from __future__ import annotations

from pipeline.respond.night.notices import of_protection
from pipeline.respond.night.watch import Look, ProtectionBook, Seen, Sight

T0 = 1_795_000_000.0


def look(end: int, commit: int | None, members: int = 1) -> Look:
    return Look({0: end}, {0: commit}, members)


def seen(*looks: tuple[float, Look | None], after_s: float = 300) -> list[Seen]:
    sight = Sight(after_s)
    return [sight.take(each, T0 + at) for at, each in looks]


def test_a_group_that_keeps_up_is_well_however_much_comes() -> None:
    told = seen(*[(15 * i, look(1000 * i, 1000 * i - 900)) for i in range(1, 60)])
    assert all(each.since_s == 0 for each in told)
    assert told[-1].well


def test_a_record_that_waits_for_five_minutes_is_blindness_since_it_was_first_seen() -> None:
    told = seen((0, look(10, 10)), (15, look(20, 10)), (300, look(90, 10)), (315, look(95, 10)))
    assert [each.since_s for each in told] == [0, 0, 0, T0 + 15]
    assert "waits to be judged" in told[-1].why


def test_being_late_counts_as_long_as_the_oldest_waits_though_commits_move() -> None:
    behind = [(15.0 * i, look(100 * i, max(0, 100 * (i - 24) + 1))) for i in range(60)]  # six minutes late, always
    told = seen(*behind)
    assert told[-1].since_s == T0 + 15 * (60 - 24)
    assert not told[-1].well


def test_nobody_in_the_group_is_blindness_though_nothing_waits() -> None:
    told = seen((0, look(10, 10, 0)), (299, look(10, 10, 0)), (300, look(10, 10, 0)), (315, look(10, 10)))
    assert [each.since_s for each in told] == [0, 0, T0, 0]
    assert told[2].why == "no worker is running"
    assert told[3].well


def test_a_broker_that_does_not_answer_is_blindness() -> None:
    told = seen((0, look(10, 10)), (15, None), (315, None), (330, look(10, 10)))
    assert [each.since_s for each in told] == [0, 0, T0 + 15, 0]
    assert told[-1].well


def test_a_new_watcher_knows_nothing_and_so_says_nothing() -> None:
    """Whoever takes over while requests wait must neither page again nor tell that it is over."""
    (first,) = seen((0, look(1000, 10)))
    assert first == Seen(0.0, "", well=False)
    caught_up = seen((0, look(1000, 10)), (15, look(1100, 1050)))
    assert caught_up[-1].well


def test_a_group_that_never_committed_waits_from_the_first_look() -> None:
    assert seen((0, look(5, None)), (300, look(5, None)))[-1].since_s == T0


def test_a_topic_made_anew_is_no_lag() -> None:
    assert seen((0, look(1000, 1000)), (400, look(3, 3)))[-1].well


def test_it_is_said_once_and_its_end_only_if_its_beginning_was() -> None:
    book = ProtectionBook()
    lost = book.change(Seen(T0, "no worker is running", well=False))
    assert lost is not None
    book.apply(lost)
    assert book.change(Seen(T0 + 60, "no worker is running", well=False)) is None
    assert book.due(frozenset()) == f"lost:{int(T0 * 1e6)}"
    told = frozenset({book.due(frozenset())})
    assert book.due(told) == ""
    assert book.change(Seen(0, "", well=False)) is None
    over = book.change(Seen(0, "", well=True))
    assert over is not None
    book.apply(over)
    assert book.due(told) == f"restored:{int(T0 * 1e6)}"
    assert book.due(frozenset()) == ""
    assert book.due(told | {book.due(told)}) == ""


def test_the_page_says_since_when_by_the_clock() -> None:
    book = ProtectionBook()
    lost = book.change(Seen(T0, "no worker is running", well=False))
    assert lost is not None
    notice = of_protection(lost, int((T0 + 600) * 1e6))
    assert notice.title == "UNPROTECTED since 11:06 UTC: no worker is running"
    assert (notice.severity, notice.action, notice.subject) == ("critical", "trigger", "protection")
    book.apply(lost)
    over = book.change(Seen(0, "", well=True))
    assert over is not None
    ended = of_protection(over, int((T0 + 600) * 1e6))
    assert "for 10 min" in ended.title
    assert (ended.action, ended.subject) == ("resolve", "protection")
