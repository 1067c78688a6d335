"""The partition's time: it is in the log, moves only forward, and nobody's wrong clock can push it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit import watermarks
from pipeline.core import Slice

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
