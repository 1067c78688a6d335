"""The partition's time is in the log, moves only forward, and nobody's wrong clock can push it; repeats count once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import EVENT
from detectors.records import records
from pipeline.admit import first_time, watermarks
from pipeline.core import Slice
from pipeline.enrich import request_hashes
from pipeline.fields import fields_of
from pipeline.state.partition import BOOK, REPEATS
from schemas.event import Event

LATENESS_US = 120_000_000
NOW_MS = 1_780_000_000_000
times = st.integers(NOW_MS - 10**8, NOW_MS + 10**8)


def slice_of(stamps_ms: list[int], ticks: frozenset[int] = frozenset()) -> Slice:
    n = len(stamps_ms)
    return Slice("t", 0, range(n), [b""] * n, [b""] * n, stamps_ms, ticks)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=30), st.integers(1, 29))
def test_the_watermark_never_goes_back_and_does_not_depend_on_cuts(records: list[tuple[int, int]], cut: int) -> None:
    event_us = np.array([event * 1000 for event, _ in records])
    stamps = [stamp for _, stamp in records]
    before, after = watermarks(slice_of(stamps), np.arange(len(records)), event_us, 0, LATENESS_US)
    assert (np.diff(before) >= 0).all()
    first, middle = watermarks(slice_of(stamps[:cut]), np.arange(cut)[: len(stamps)], event_us[:cut], 0, LATENESS_US)
    rest, last = watermarks(slice_of(stamps[cut:]), np.arange(len(stamps[cut:])), event_us[cut:], middle, LATENESS_US)
    assert np.concatenate([first, rest]).tolist() == before.tolist()
    assert last == after


@given(times, times)
def test_neither_a_future_event_nor_a_future_stamp_moves_it_alone(event_ms: int, stamp_ms: int) -> None:
    _, after = watermarks(slice_of([stamp_ms]), np.array([0]), np.array([event_ms * 1000]), 0, LATENESS_US)
    assert after == min(event_ms, stamp_ms) * 1000 - LATENESS_US


def test_a_tick_moves_an_idle_partition_on() -> None:
    ticking = slice_of([NOW_MS], frozenset([0]))
    _, after = watermarks(ticking, np.array([], np.int64), np.array([], np.int64), 5, LATENESS_US)
    assert after == NOW_MS * 1000 - LATENESS_US


Told = tuple[int, int]  # (time, request), all of one key


def kept(told: list[Told], book: Any = None, late: bool = False) -> list[int]:
    """What `first_time` keeps of these events of one key."""
    events = np.zeros(len(told), EVENT)
    events["ts_us"], events["request"] = [ts for ts, _ in told], [request for _, request in told]
    events["late"] = late
    keep, book = np.ones(len(told), np.uint8), np.zeros(1, BOOK) if book is None else book
    repeats = first_time(records(events), records(book), keep, np.zeros(len(told), np.int64))
    assert repeats == len(told) - keep.sum() == (events["slot"] < 0).sum()
    return keep.tolist()


@given(st.lists(st.integers(1, 60), max_size=120), st.integers(0, 120))
def test_a_request_counts_once_unless_32_others_came_between(requests: list[int], cut: int) -> None:
    """Each has a time of its own, so they come in any order."""
    told = [(1_000 + (request * 7_919) % 61, request) for request in requests]
    last: list[int] = []
    wanted = []
    for request in requests:
        wanted.append(int(request not in last[-REPEATS:]))
        last += [request] * wanted[-1]
    book = np.zeros(1, BOOK)
    assert kept(told[:cut], book) + kept(told[cut:], book) == wanted


@given(st.lists(st.integers(1, 100), min_size=1, max_size=100))
def test_what_is_newer_than_all_of_its_key_is_no_repeat_whatever_its_hash(gaps: list[int]) -> None:
    """All have the same 32 bits in the book: what chance brings once in 120 million."""
    times = np.cumsum(gaps).tolist()
    assert kept([(ts, number << 32 | 5) for number, ts in enumerate(times)]) == [1] * len(times)
    assert kept([(times[0], 5), (times[0], 5)]) == [1, 0]


def test_late_requests_drive_out_none_that_came_in_time_and_one_sent_twice_counts_once() -> None:
    book = np.zeros(1, BOOK)
    fresh = [(1_000_000 + number, 1_000 + number) for number in range(REPEATS)]
    assert kept(fresh, book) == [1] * REPEATS
    assert sum(kept([(number, number) for number in range(1, 500)], book, late=True)) == 499
    assert kept([(7, 501), (7, 501)], book, late=True) == [1, 0]
    assert kept(fresh, book) == [0] * REPEATS


def test_two_requests_of_the_bench_whose_hashes_agree_in_the_book_both_count() -> None:
    """Of the run that ended with 1,999,999 of 2,000,000: its events 1,448,865 and 1,448,976, with 20 between them."""
    ids = ((1_795_743_249_241_002, "7-161ba1"), (1_795_743_249_342_849, "7-161c10"))
    events = [Event(key_id="pk_00000", ts_us=ts_us, request_id=request_id) for ts_us, request_id in ids]
    first, second = request_hashes(fields_of(events)).tolist()
    assert first & 0xFFFFFFFF == second & 0xFFFFFFFF
    assert first != second
    assert kept([(events[0].ts_us, first), (events[1].ts_us, second)]) == [1, 1]
